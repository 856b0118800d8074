"""The gaze: heat against an independent reference, overlays by pixel, files by what they hold."""

import base64
import io
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_reader import Page
from PIL import Image, ImageDraw, ImageSequence

from gazetell.errors import UsageError, WriteError
from gazetell.inference import gaze, lettering
from gazetell.inference.lettering import fit, font_for, is_right_to_left, one_line, wrap


def spike(rows, columns, row, column, floor=0.0):
    grid = np.full((rows, columns), floor)
    grid[row, column] = 1
    return grid / grid.sum()


def maps(words, rows=7, columns=7):
    return np.stack([spike(rows, columns, n % rows, n % columns) for n in range(len(words))])


def colourful(size=(120, 90)):
    picture = Image.new("RGB", size, (60, 90, 200))
    ImageDraw.Draw(picture).ellipse((0, 0, size[0] // 2, size[1] // 2), fill=(240, 200, 40))
    return picture


def brightest(picture):
    values = np.asarray(picture.convert("L"), dtype=int)
    return np.unravel_index(values.argmax(), values.shape)


# Heat


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (200, 10), (33, 64)])
@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (7, 7), (14, 9)])
def test_heat_of_a_uniform_map_is_one_half_everywhere(grid, size):
    uniform = np.full(grid, 1 / (grid[0] * grid[1]))
    found = gaze.heat(uniform, size)
    assert found.shape == (size[1], size[0])
    np.testing.assert_allclose(found, 0.5, atol=1e-12)


def test_heat_agrees_with_bicubic_resampling_by_pillow():
    rng = np.random.default_rng(0)
    grid = rng.random((5, 8)) ** 3
    width, height = 160, 75
    # Pillow's bicubic is the same cubic; edge cells are repeated so that its window is full.
    padded = Image.fromarray(np.pad(grid / grid.max(), 3, mode="edge").astype(np.float32))
    expected = padded.resize((width, height), Image.Resampling.BICUBIC, box=(3, 3, 11, 8))
    np.testing.assert_allclose(
        gaze.heat(grid, (width, height)), np.clip(np.asarray(expected), 0, 1), atol=1e-5
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_heat_has_each_cells_own_share_of_the_peak_at_its_centre(data):
    rows, columns = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    values = data.draw(st.lists(st.floats(0, 1), min_size=rows * columns, max_size=rows * columns))
    grid = np.array(values).reshape(rows, columns)
    times = 5  # odd: a pixel lies right at the centre of each cell
    found = gaze.heat(grid, (columns * times, rows * times))
    assert found.min() >= 0
    assert found.max() <= 1
    top = max(grid.max(), 2 * grid.mean())
    expected = grid / top if top > 0 else grid
    np.testing.assert_allclose(found[times // 2 :: times, times // 2 :: times], expected, atol=1e-9)


def test_heat_does_not_depend_on_the_scale_of_the_weights():
    grid = np.random.default_rng(1).random((4, 4))
    np.testing.assert_allclose(gaze.heat(grid, (9, 9)), gaze.heat(grid * 1000, (9, 9)))


def test_a_map_that_hardly_differs_from_uniform_stays_pale():
    noisy = 1 + 0.02 * np.random.default_rng(2).standard_normal((7, 7))
    found = gaze.heat(noisy, (70, 70))
    assert found.max() - found.min() < 0.1


def test_a_map_of_zeros_is_cold():
    assert gaze.heat(np.zeros((3, 3)), (6, 6)).max() == 0


@pytest.mark.parametrize(
    "grid",
    [np.ones(4), np.ones((1, 2, 2)), np.ones((0, 3)), np.array([[1, -1]]), np.array([[np.nan, 1]])],
)
def test_a_map_that_is_none_is_refused(grid):
    with pytest.raises(ValueError, match="expected"):
        gaze.heat(grid, (4, 4))


def test_where_says_the_ninth_of_the_picture():
    names = [
        ["mostly upper left", "mostly upper", "mostly upper right"],
        ["mostly left", "mostly the middle", "mostly right"],
        ["mostly lower left", "mostly lower", "mostly lower right"],
    ]
    for row in range(3):
        for column in range(3):
            assert gaze.where(spike(3, 3, row, column)) == names[row][column]
    # A grid that is not square, and a peak between two cells.
    assert gaze.where(spike(2, 14, 1, 0)) == "mostly lower left"
    assert gaze.where(np.array([[0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]])) == "mostly the middle"
    assert gaze.where(np.full((7, 7), 1 / 49)) == "spread over the picture"
    assert gaze.where(np.ones((1, 1))) == "spread over the picture"


# Overlay


@pytest.mark.parametrize("shade", [0, 20, 128, 255])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 6), (4, 1), (2, 3), (4, 6)])
def test_overlay_is_brightest_in_the_cell_with_the_peak(shade, row, column):
    picture = Image.new("RGB", (140, 60), (shade,) * 3)
    shown = gaze.overlay(picture, spike(5, 7, row, column, floor=0.02))
    assert shown.size == picture.size
    assert shown.mode == "RGB"
    y, x = brightest(shown)
    assert (y * 5 // 60, x * 7 // 140) == (row, column)


def test_overlay_row_0_is_on_top_and_column_0_is_left():
    picture = Image.new("RGB", (90, 60), (200, 200, 200))
    pixels = np.asarray(gaze.overlay(picture, spike(2, 3, 0, 0)).convert("L"), dtype=int)
    assert pixels[5, 5] > pixels[55, 5] + 50
    assert pixels[5, 5] > pixels[5, 85] + 50


def test_overlay_dims_a_bright_picture_and_lights_up_a_dark_one():
    grid = spike(6, 6, 1, 1)
    white = np.asarray(gaze.overlay(Image.new("RGB", (60, 60), "white"), grid), dtype=int)
    assert white[50, 50].max() < 0.3 * 255
    black = np.asarray(gaze.overlay(Image.new("RGB", (60, 60), "black"), grid), dtype=int)
    assert black[50, 50].max() == 0
    red, green, blue = black[15, 15]
    assert red > green > blue  # warm
    assert red > 50


def test_overlay_takes_pictures_of_any_mode_and_leaves_them_alone():
    picture = Image.new("LA", (10, 10), (100, 128))
    before = picture.copy()
    assert gaze.overlay(picture, spike(2, 2, 0, 0)).mode == "RGB"
    assert picture.tobytes() == before.tobytes()


# Strip


def test_strip_is_laid_out_as_asked():
    words = ["a", "red", "dot"]
    sheet = gaze.strip(colourful((240, 120)), words, maps(words), side=192)
    margin, gap, label = 24, 16, 38
    assert sheet.size == (2 * margin + 4 * 192 + 3 * gap, 2 * margin + 96 + label - label // 4)
    # The first tile is the picture, the next is dimmed.
    pixels = np.asarray(sheet, dtype=int)
    assert pixels[margin + 90, margin + 190].tolist() == [60, 90, 200]
    assert pixels[margin + 90, margin + 192 + gap + 190].sum() < 200


def test_strip_wraps_a_long_caption_into_even_rows():
    words = [f"w{n}" for n in range(12)]
    one, two = (gaze.strip(colourful(), words[:n], maps(words[:n])) for n in (5, 6))
    assert two.height > one.height  # 6 tiles in a row, 7 in two
    assert two.width < one.width  # rows of 4 and 3
    narrow = gaze.strip(colourful(), words, maps(words), columns=2)
    assert narrow.width == 2 * 24 + 2 * 192 + 16
    assert narrow.height > 6 * 144


def test_strip_title_takes_room_of_its_own():
    words = ["dot"]
    plain = gaze.strip(colourful(), words, maps(words))
    titled = gaze.strip(colourful(), words, maps(words), title="a dot " * 30)
    assert titled.width == plain.width
    assert titled.height > plain.height + 60  # several lines


def test_strip_marks_each_word_beneath_its_tile():
    words = ["word", ""]
    sheet = np.asarray(gaze.strip(colourful((192, 192)), words, maps(words)).convert("L"))
    beneath = sheet[24 + 192 :]
    dark = [int((beneath[:, 24 + n * 208 : 24 + n * 208 + 192] < 128).sum()) for n in (1, 2)]
    assert dark[0] > 50
    assert dark[1] == 0


ODD_WORDS = ["שלום", "مرحبا", "😀", "日本語", "naïve", "\ud800", "two\nlines", "x" * 300, "", " "]


def test_words_of_any_script_do_not_crash():
    found = gaze.strip(colourful(), ODD_WORDS, maps(ODD_WORDS), title=" ".join(ODD_WORDS))
    assert found.width > 0
    assert gaze.gif(colourful((40, 30)), ODD_WORDS, maps(ODD_WORDS), side=60)[:4] == b"GIF8"
    Page(gaze.html(colourful(), ODD_WORDS, maps(ODD_WORDS), page=True))


@pytest.mark.parametrize("size", [(1, 1), (500, 1), (1, 500), (3, 2)])
@pytest.mark.parametrize("grid", [(1, 1), (3, 11)])
def test_tiny_and_long_pictures(size, grid):
    picture, attention = Image.new("RGB", size, "red"), spike(*grid, 0, 0)[None]
    assert gaze.overlay(picture, attention[0]).size == size
    assert gaze.strip(picture, ["a"], attention).width > 192
    assert Image.open(io.BytesIO(gaze.gif(picture, ["a"], attention))).n_frames == 1
    Page(gaze.html(picture, ["a"], attention))


def test_words_are_fitted_to_their_room():
    font, text = fit("elephant", 20, 1000)
    assert (text, font.size) == ("elephant", 20)
    font, text = fit("elephant", 20, 60)
    assert text == "elephant"
    assert font.size < 20
    font, text = fit("elephant" * 9, 20, 60)
    assert text.endswith("...")
    assert font.getlength(text) <= 60
    assert fit("elephant", 20, 1)[1] == ""


def test_lines_hold_every_word_once():
    words = ["a", "red", "circle", "left", "of", "a", "blue", "square", "x" * 80]
    lines = wrap(words, 20, 120, 6)
    assert [index for line in lines for index in line] == list(range(len(words)))
    assert len(lines) > 2
    assert lines[-1] == [len(words) - 1]
    assert wrap([], 20, 120, 6) == []


def test_direction_and_cleaning():
    assert is_right_to_left("1 שלום")
    assert is_right_to_left("مرحبا")
    assert not is_right_to_left("a שלום")
    assert not is_right_to_left("...")
    assert one_line("a\n b\ud800") == "a b?"


# GIF


def test_gif_has_a_frame_a_word_and_loops():
    words = ["a", "dot", "a", "dot"]
    attention = np.stack([spike(5, 5, 0, 0), spike(5, 5, 4, 4)] * 2)
    found = Image.open(io.BytesIO(gaze.gif(Image.new("RGB", (50, 50), "gray"), words, attention)))
    assert found.n_frames == 4
    assert found.info["loop"] == 0
    frames, durations = [], []
    for frame in ImageSequence.Iterator(found):
        frames.append(np.asarray(frame.convert("L"), dtype=int))
        durations.append(frame.info["duration"])
    assert durations == [650, 650, 650, 1950]
    # The picture is 360 pixels; the looked-at corner of each frame is the bright one.
    for number, frame in enumerate(frames):
        corners = frame[20, 20], frame[340, 340]
        assert (corners[0] > corners[1] + 50) == (number % 2 == 0)
    # The caption grows.
    ink = [(frame[365:] < 128).sum() for frame in frames]
    assert ink[0] < ink[1] < ink[2] < ink[3]


def test_gif_without_words_is_the_picture():
    found = Image.open(io.BytesIO(gaze.gif(colourful(), [], np.zeros((0, 3, 3)))))
    assert (found.n_frames, found.size) == (1, (360, 270))


# HTML


def test_html_has_one_control_a_word_and_escapes():
    words = ["<script>alert(1)</script>", '"&', "dot"]
    text = gaze.html(colourful(), words, maps(words), title="<b>bold</b>", page=True)
    page = Page(text)
    controls = [attrs for attrs in page.all("button") if "data-where" in attrs]
    assert len(controls) == 3
    assert all(attrs["type"] == "button" and attrs["aria-pressed"] for attrs in controls)
    assert [data for tag, data in page.texts if tag == "bdi"] == words
    assert "<script>alert" not in text
    assert page.all("b") == []
    assert len(page.all("script")) == 1
    assert [attrs["lang"] for attrs in page.all("html")] == ["en"]
    assert page.all("img")[0]["alt"] == " ".join(words)
    assert [data for tag, data in page.texts if tag == "h1"] == ["<b>bold</b>"]


def test_html_fetches_nothing_and_fragments_do_not_clash():
    words = ["a", "dot"]
    fragment = gaze.html(colourful(), words, maps(words))
    page = Page(fragment + fragment)
    assert not any("id" in attrs for _, attrs in page.tags)
    assert re.findall(r"https?:|//[a-z]", fragment) == []
    # Every rule of the style sheet is confined to the fragment.
    css = re.sub(r"/\*.*?\*/|@media[^{]*\{", "", gaze.style(), flags=re.DOTALL)
    for selector in re.findall(r"([^{}]+)\{", css):
        assert all(one.strip().startswith(".gazetell-gaze") for one in selector.split(","))
    bare = gaze.html(colourful(), words, maps(words), with_assets=False)
    assert "<script" not in bare
    assert "<style" not in bare


@pytest.mark.parametrize("grid", [(7, 7), (1, 1), (4, 10), (40, 30)])
def test_html_carries_the_heat(grid):
    words = ["upper", "lower"]
    attention = np.stack([spike(*grid, 0, 0), spike(*grid, grid[0] - 1, grid[1] - 1)])
    (figure,) = Page(gaze.html(colourful(), words, attention)).all("figure")
    rows, columns = int(figure["data-rows"]), int(figure["data-columns"])
    levels = np.frombuffer(base64.b64decode(figure["data-maps"]), np.uint8)
    levels = levels.reshape(2, rows, columns)
    for one, level in zip(attention, levels, strict=True):
        np.testing.assert_allclose(level / 255, gaze.heat(one, (columns, rows)), atol=0.003)


def test_page_and_picture_show_the_same():
    # The browser lays colours with an opacity over the picture; this does the same by hand.
    layer = re.search(r'bytes\("([^"]+)"\)', gaze.script()).group(1)
    veil = np.frombuffer(base64.b64decode(layer), np.uint8).reshape(256, 4) / 255
    picture, grid = colourful(), spike(3, 3, 1, 1, floor=0.2)
    over = veil[np.rint(gaze.heat(grid, picture.size) * 255).astype(int)]
    colour, opacity = over[..., :3], over[..., 3:]
    expected = np.asarray(picture) / 255 * (1 - opacity) + colour * opacity
    np.testing.assert_allclose(np.asarray(gaze.overlay(picture, grid)) / 255, expected, atol=0.006)


def test_html_embeds_the_picture_at_most_as_large_as_asked():
    words = ["dot"]
    for side, width in ((640, 120), (60, 60)):
        (image,) = Page(gaze.html(colourful(), words, maps(words), side=side)).all("img")
        head, data = image["src"].split(",")
        assert head == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).width == width


def test_html_knows_the_direction_of_the_caption():
    words = ["دائرة", "حمراء"]
    bars = [
        attrs
        for attrs in Page(gaze.html(colourful(), words, maps(words))).all("div")
        if attrs.get("role") == "toolbar"
    ]
    assert [bar["dir"] for bar in bars] == ["rtl"]


# What it must not do in silence


def rotated(picture, orientation=6):
    """A copy that stands upright only by its EXIF orientation."""
    turned = picture.transpose(Image.Transpose.ROTATE_90).copy()
    turned.getexif()[0x0112] = orientation
    buffer = io.BytesIO()
    turned.save(buffer, "PNG", exif=turned.getexif())
    return Image.open(buffer)


def embedded(text):
    (image,) = Page(text).all("img")
    return Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1])))


def test_a_picture_is_set_upright_before_the_gaze_is_laid_on_it():
    picture, grid = colourful(), spike(3, 4, 0, 3, floor=0.1)
    turned = rotated(picture)
    assert turned.size == (90, 120)
    assert gaze.overlay(turned, grid).tobytes() == gaze.overlay(picture, grid).tobytes()
    for make in (gaze.strip, gaze.gif, gaze.html):
        found, expected = (make(one, ["dot"], grid[None]) for one in (turned, picture))
        assert (
            getattr(found, "tobytes", lambda f=found: f)()
            == getattr(expected, "tobytes", lambda e=expected: e)()
        )
    assert "--ratio:1.33333" in gaze.html(turned, ["dot"], grid[None])


def test_transparency_is_white_as_models_see_it():
    clear = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    assert gaze.strip(clear, [], np.zeros((0, 2, 2))).getpixel((100, 100)) == (255, 255, 255)
    assert embedded(gaze.html(clear, [], np.zeros((0, 2, 2)))).getpixel((5, 5)) == (255, 255, 255)


def test_letters_are_looked_for_in_other_fonts(caplog):
    # U+306E is not in DejaVu Sans; STIXGeneral, which comes with matplotlib, has it.
    assert "STIX" in font_for("\u306e", 20).path
    assert "DejaVuSans.ttf" in font_for("\u00e9", 20).path
    assert caplog.messages == []


def test_letters_that_no_font_has_are_told_once(monkeypatch, caplog):
    only = lettering._font_paths()[:1]
    monkeypatch.setattr(lettering, "_font_paths", lambda: only)
    for name in ("_path_for", "_say_once"):
        getattr(lettering, name).cache_clear()
    for word in ("\u4e00", "\u72d7", "a"):
        gaze.strip(colourful(), [word], maps([word]))
    (line,) = caplog.messages
    assert line.startswith("no font was found for CJK letters, which are drawn as boxes: install")
    lettering._path_for.cache_clear()


def test_a_strip_of_words_that_run_right_to_left_begins_at_the_right():
    words = ["\u05e9\u05dc\u05d5\u05dd", "\u05e2\u05d5\u05dc\u05dd"]
    picture = Image.new("RGB", (192, 192), "white")
    sheet = np.asarray(gaze.strip(picture, words, maps(words)).convert("L"), dtype=int)
    tiles = [sheet[24 + 96, 24 + n * 208 + 180] for n in range(3)]
    assert tiles[2] == 255 > max(tiles[:2])  # the picture itself
    title = gaze.strip(picture, words, maps(words), title=words[0])
    above = np.asarray(title.convert("L"))[:40]
    assert np.nonzero((above < 128).any(0))[0].min() > title.width // 2


def test_a_moving_picture_has_the_title():
    plain, titled = (
        Image.open(io.BytesIO(gaze.gif(colourful(), ["dot"], maps(["dot"]), title=title)))
        for title in (None, "how many dots are there? one")
    )
    assert titled.height > plain.height
    above = np.asarray(titled.convert("L"))[: titled.height - plain.height]
    assert (above < 128).any()


# Files and refusals


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.jpeg", "JPEG"), ("a.webp", "WEBP"), ("a.gif", "GIF")],
)
def test_save_writes_what_the_suffix_says(tmp_path, name, kind):
    words = ["a", "dot"]
    path = tmp_path / "new" / name
    gaze.save(path, colourful(), words, maps(words))
    with Image.open(path) as found:
        found.load()
        assert found.format == kind
    assert [file.name for file in path.parent.iterdir()] == [name]


def test_save_html_is_a_whole_page(tmp_path):
    words = ["a", "dot"]
    gaze.save(tmp_path / "a.html", colourful(), words, maps(words), title="a dot")
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "<title>a dot</title>" in text


@pytest.mark.parametrize("name", ["a.pdf", "a", "png"])
def test_save_names_the_suffixes_it_knows(tmp_path, name):
    with pytest.raises(UsageError, match=r"\.png, .*\.gif, \.html"):
        gaze.save(tmp_path / name, colourful(), ["a"], maps(["a"]))
    assert list(tmp_path.iterdir()) == []


def test_save_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(WriteError, match=r"a\.png: cannot be written: No space left"):
        gaze.save(path, colourful(), ["a"], maps(["a"]))
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("make", [gaze.strip, gaze.gif, gaze.html])
def test_a_model_without_attention_has_no_gaze(make):
    with pytest.raises(UsageError, match=r"^this model has no attention to show$"):
        make(colourful(), ["a"], None)


@pytest.mark.parametrize("make", [gaze.strip, gaze.gif, gaze.html])
@pytest.mark.parametrize("shape", [(2, 7, 7), (3, 7), (3, 7, 7, 1), (3, 0, 7)])
def test_maps_that_do_not_fit_the_words_are_refused(make, shape):
    with pytest.raises(ValueError, match="expected"):
        make(colourful(), ["a", "red", "dot"], np.ones(shape))


def test_importing_the_gaze_is_cheap():
    code = (
        "import sys, gazetell.inference.gaze, gazetell.inference.report; "
        "print([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

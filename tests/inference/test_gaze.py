"""The gaze: heat against an independent reference, pictures by pixel, pages in a browser."""

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

from gazetell.errors import UsageError
from gazetell.inference import gaze
from gazetell.inference.gaze import Gaze, heat, overlay
from gazetell.pictures import Frame, View


def spike(rows, columns, row, column, floor=0.0):
    grid = np.full((rows, columns), floor)
    grid[row, column] = 1
    return grid / grid.sum()


def maps(words, rows=7, columns=7):
    grids = [spike(rows, columns, n % rows, n % columns) for n in range(len(words))]
    return np.array(grids).reshape(-1, rows, columns)


def colourful(size=(120, 90)):
    picture = Image.new("RGB", size, (60, 90, 200))
    ImageDraw.Draw(picture).ellipse((0, 0, size[0] // 2, size[1] // 2), fill=(240, 200, 40))
    return picture


def gaze_of(words, picture=None, **more):
    return Gaze(picture or colourful(), words, maps(words), **more)


def grey(picture):
    return np.asarray(picture.convert("L"), dtype=int)


def frames(content):
    return [frame.copy() for frame in ImageSequence.Iterator(Image.open(io.BytesIO(content)))]


# Heat


def cubic(values, size, cells=(0, 1), seen=(0, 1)):
    """Catmull-Rom through ``values`` at ``size`` pixel centres, one number at a time."""
    found = []
    for pixel in range(size):
        share = (pixel + 0.5) / size
        if not seen[0] <= share <= seen[1]:
            found.append(0 * values[0])
            continue
        place = (share - cells[0]) / (cells[1] - cells[0]) * len(values) - 0.5
        left = int(np.floor(place))
        a, b, c, d = (values[min(len(values) - 1, max(0, left + k))] for k in (-1, 0, 1, 2))
        t = place - left
        found.append(
            b
            + (c - a) * t / 2
            + (a - 2.5 * b + 2 * c - d / 2) * t**2
            + (1.5 * (b - c) + (d - a) / 2) * t**3
        )
    return np.array(found)


# The middle of a wide picture; a tall one with padding; cells that begin half a cell late.
SHIFTED = View(cells=(0.07, 0.07, 1.07, 1.07))
VIEWS = [View(), Frame(64, "crop").view((200, 100)), Frame(64, "pad").view((50, 100)), SHIFTED]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("shape", "size"), [((5, 8), (160, 75)), ((1, 6), (33, 64)), ((7, 7), (70, 7))]
)
def test_heat_is_a_cubic_through_the_cells(shape, size, view):
    grid = np.random.default_rng(0).random(shape) ** 3
    columns, rows = ((view.cells[n::2], view.seen[n::2]) for n in (0, 1))
    across = [cubic(row, size[0], *columns) for row in grid / max(grid.max(), 2 * grid.mean())]
    expected = np.stack([cubic(column, size[1], *rows) for column in np.stack(across).T]).T
    np.testing.assert_allclose(heat(grid, size, view), np.clip(expected, 0, 1), atol=1e-5)


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(240, 120), (90, 180)])
@settings(max_examples=20, deadline=None)
@given(x=st.floats(0, 1), y=st.floats(0, 1))
def test_the_gaze_at_a_square_is_drawn_on_the_square(fit, size, x, y):
    """A model whose attention is how red each cell of its input is."""
    side, frame = 24, Frame(64, fit, (0, 0, 0))
    shown = frame.seen(size)
    # All of the square is seen, also where the picture is cropped.
    low, high = (np.clip(shown[n : n + 2], 0, 1) * size for n in (0, 2))
    left, top = np.rint(low + np.array((x, y)) * (high - low - side)).astype(int).tolist()
    picture = Image.new("RGB", size)
    picture.paste((255, 0, 0), (left, top, left + side, top + side))
    attention = frame.pixels(picture)[0].reshape(16, 4, 16, 4).mean((1, 3))
    level = heat(attention, size, frame.view(size))
    row, column = np.unravel_index(level.argmax(), level.shape)
    cell = (np.subtract(shown[2:], shown[:2]) * size) / 16  # pixels of the picture
    assert abs(column + 0.5 - (left + side / 2)) <= side / 2 + 0.5 * cell[0]
    assert abs(row + 0.5 - (top + side / 2)) <= side / 2 + 0.5 * cell[1]
    lit = np.asarray(overlay(picture, attention, frame.view(size)))[..., 0]
    row, column = np.unravel_index(lit.argmax(), lit.shape)
    assert lit.max() > 200
    assert left <= column < left + side
    assert top <= row < top + side
    unseen = heat(np.ones((8, 8)), size, frame.view(size)) == 0
    assert unseen.mean() == pytest.approx(0.5 if fit == "crop" else 0)


def test_weight_on_padding_leaves_the_picture_dim():
    view = Frame(64, "pad").view((100, 50))
    beside, on = spike(8, 8, 0, 4, floor=0.05), spike(8, 8, 4, 4, floor=0.05)
    assert heat(beside, (100, 50), view).max() < 0.15
    assert heat(on, (100, 50), view).max() > 0.95


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_heat_has_each_cells_own_share_of_the_peak_at_its_centre(data):
    rows, columns = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    values = data.draw(st.lists(st.floats(0, 1), min_size=rows * columns, max_size=rows * columns))
    grid = np.array(values).reshape(rows, columns)
    found = heat(grid, (columns * 5, rows * 5))  # odd: a pixel lies right at each cell's centre
    assert 0 <= found.min() <= found.max() <= 1
    top = max(grid.max(), 2 * grid.mean())
    np.testing.assert_allclose(found[2::5, 2::5], grid / top if top > 0 else grid, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (200, 10)])
@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (14, 9)])
def test_heat_of_a_uniform_map_is_one_half_whatever_its_scale(grid, size):
    found = heat(np.full(grid, 1000.0), size)
    assert found.shape == (size[1], size[0])
    np.testing.assert_allclose(found, 0.5, atol=1e-6)


# Overlay


@pytest.mark.parametrize("shade", [0, 128, 255])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 6), (4, 1), (4, 6)])
def test_overlay_is_brightest_in_the_cell_with_the_peak(shade, row, column):
    lit = overlay(Image.new("RGB", (140, 60), (shade,) * 3), spike(5, 7, row, column, floor=0.02))
    assert (lit.size, lit.mode) == ((140, 60), "RGB")
    y, x = np.unravel_index(grey(lit).argmax(), (60, 140))
    assert (y * 5 // 60, x * 7 // 140) == (row, column)


def test_overlay_dims_a_bright_picture_and_lights_up_a_dark_one():
    grid = spike(6, 6, 1, 1)
    white = overlay(Image.new("RGB", (60, 60), "white"), grid)
    assert max(white.getpixel((50, 50))) < 0.3 * 255
    black = overlay(Image.new("RGB", (60, 60), "black"), grid)
    assert black.getpixel((50, 50)) == (0, 0, 0)
    red, green, blue = black.getpixel((15, 15))
    assert red > 50
    assert red > green > blue  # warm


def test_a_picture_is_set_upright_and_laid_on_white_as_models_take_it():
    picture, grid = colourful(), spike(3, 4, 0, 3, floor=0.1)
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    buffer = io.BytesIO()
    turned.save(buffer, "PNG", exif=turned.getexif())
    turned = Image.open(buffer)
    assert turned.size == (90, 120)
    assert overlay(turned, grid).tobytes() == overlay(picture, grid).tobytes()
    one, two = (Gaze(p, ["dot"], grid[None]) for p in (turned, picture))
    assert one.strip().tobytes() == two.strip().tobytes()
    assert (one.gif(), one.html()) == (two.gif(), two.html())
    assert "--ratio:1.33333" in one.html()
    clear = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
    assert Gaze(clear, [], np.zeros((0, 2, 2))).strip().getpixel((100, 100)) == (255, 255, 255)


# Strip and moving picture


def test_a_strip_is_laid_out_in_even_rows():
    one, two = (gaze_of([f"w{n}" for n in range(count)]).strip() for count in (5, 6))
    assert two.height > one.height  # 6 tiles in a row, 7 in two
    assert two.width < one.width  # rows of 4 and 3
    picture = colourful((240, 120))
    sheet = Gaze(picture, ["a", "", "dot"], maps("abc")).strip(columns=2, side=192)
    assert sheet.width == 2 * 24 + 2 * 192 + 16
    # The first tile is the picture, the next is dimmed, with its word beneath.
    assert sheet.getpixel((24 + 190, 24 + 90)) == (60, 90, 200)
    assert sum(sheet.getpixel((24 + 208 + 190, 24 + 90))) < 200
    ink = [(grey(sheet)[y : y + 38, 232:424] < 128).sum() for y in (24 + 96, 24 + 96 + 150)]
    assert ink[0] > 20
    assert (grey(sheet)[24 + 96 + 150 : 24 + 96 + 188, 24:216] < 128).sum() == 0  # ""


@pytest.mark.parametrize(
    ("size", "tile"), [((1600, 400), 384), ((400, 3200), 640), ((90, 60), 192)]
)
def test_a_long_picture_is_drawn_large_enough_to_be_seen(size, tile):
    """The shorter side of a tile has half of the usual length, as far as previews are so large."""
    made = Gaze(colourful(size), ["a", "dot", "dot"], maps(["a", "dot", "dot"]))
    drawn = tile if size[0] > size[1] else round(tile * size[0] / size[1])
    columns = {384: 2, 640: 4, 192: 4}[tile]  # of four tiles
    assert made.strip().width == 2 * 24 + columns * max(drawn, 96) + (columns - 1) * 16
    assert min(frames(made.gif())[0].size) >= 80


def test_a_title_takes_room_of_its_own():
    for kind in ("strip", "gif"):
        plain, titled = (getattr(gaze_of(["dot"], title=t), kind)() for t in ("", "a dot " * 30))
        if kind == "gif":
            plain, titled = frames(plain)[0], frames(titled)[0]
        assert titled.width == plain.width
        assert titled.height > plain.height + 60  # several lines
        assert (grey(titled)[: titled.height - plain.height] < 128).any()


def test_words_that_run_right_to_left_begin_at_the_right():
    words, picture = ["שלום", "עולם"], Image.new("RGB", (192, 192), "white")
    sheet = Gaze(picture, words, maps(words), title=words[0]).strip()
    tiles = [sheet.getpixel((x + 180, 150)) for x in (24, 232, 440)]
    assert [tile == (255, 255, 255) for tile in tiles] == [False, False, True]  # the picture
    assert np.nonzero((grey(sheet)[:40] < 128).any(0))[0].min() > sheet.width // 2
    moving = frames(Gaze(picture, words, maps(words)).gif())
    ink = [np.nonzero((grey(frame)[370:] < 200).any(0))[0] for frame in moving]
    assert ink[0].min() > 180
    assert ink[1].min() < ink[0].min() - 20


def test_a_moving_picture_has_a_frame_a_word_and_loops():
    attention = np.stack([spike(5, 5, 0, 0), spike(5, 5, 4, 4)] * 2)
    content = Gaze(Image.new("RGB", (50, 50), "gray"), ["a", "dot"] * 2, attention).gif()
    assert Image.open(io.BytesIO(content)).info["loop"] == 0
    found = frames(content)
    assert [frame.info["duration"] for frame in found] == [650, 650, 650, 1950]
    for number, frame in enumerate(map(grey, found)):  # the corner looked at is the bright one
        assert (frame[20, 20] > frame[340, 340] + 50) == (number % 2 == 0)
    ink = [(grey(frame)[365:] < 128).sum() for frame in found]
    assert ink == sorted(ink)
    assert ink[0] < ink[-1]
    assert [f.size for f in frames(gaze_of([]).gif())] == [(360, 270)]
    assert len(frames(gaze_of(["dot"]).gif())) == 1


ODD_WORDS = ["שלום", "مرحبا", "😀", "日本語", "naïve", "\ud800", "two\nlines", "x" * 300, "", " "]


@pytest.mark.parametrize("size", [(120, 90), (1, 1), (500, 1), (1, 500)])
@pytest.mark.parametrize("grid", [(1, 1), (3, 11)])
def test_odd_words_and_odd_pictures_are_drawn(size, grid):
    picture, attention = Image.new("RGB", size, "red"), np.ones((len(ODD_WORDS), *grid))
    made = Gaze(picture, ODD_WORDS, attention, title=" ".join(ODD_WORDS))
    assert made.strip().width > 192
    assert len(frames(made.gif())) == len(ODD_WORDS)
    Page(made.html())
    ratio = float(re.search(r"--ratio:([^\"]+)", made.page()).group(1))
    assert ratio == pytest.approx(size[0] / size[1], rel=1e-4)


# Fonts


def test_letters_are_looked_for_in_other_fonts(caplog):
    # U+306E is not in DejaVu Sans; STIXGeneral, which comes with matplotlib, has it.
    assert "STIX" in gaze._font_for("\u306e", 20).path
    assert "DejaVuSans.ttf" in gaze._font_for("é", 20).path
    assert caplog.messages == []


def test_letters_that_no_font_has_are_told_once(monkeypatch, caplog):
    only = gaze._font_paths()[:1]
    monkeypatch.setattr(gaze, "_font_paths", lambda: only)
    for name in ("_font_path", "_warn_once"):
        getattr(gaze, name).cache_clear()
    gaze_of(["一", "狗", "a"]).strip()
    (line,) = caplog.messages
    assert line.startswith("no font was found for CJK letters, which are drawn as boxes: install")
    gaze._font_path.cache_clear()


# Pages


def test_a_page_has_one_control_a_word_and_escapes():
    words = ["<script>alert(1)</script>", '"&', "dot"]
    text = gaze_of(words, title="<b>bold</b>").page()
    page = Page(text)
    assert [data for tag, data in page.texts if tag == "bdi"] == words
    assert "<script>alert" not in text
    assert page.all("b") == []
    assert [attrs["lang"] for attrs in page.all("html")] == ["en"]
    assert page.all("img")[0]["alt"] == " ".join(words)
    assert [data for tag, data in page.texts if tag in ("h1", "title")] == ["<b>bold</b>"] * 2
    assert Page(gaze_of(words, caption="a dot").html()).all("img")[0]["alt"] == "a dot"


def test_a_fragment_fetches_nothing_and_two_do_not_clash():
    fragment = gaze_of(["a", "dot"]).html()
    page = Page(fragment + fragment)
    assert not any("id" in attrs for _, attrs in page.tags)
    assert re.findall(r"https?:|\bimport\b|src=\"(?!data:)", fragment) == []
    # Every rule of the style sheet is confined to the fragment.
    css = re.sub(r"/\*.*?\*/|@media[^{]*\{", "", gaze.template("gaze.css"), flags=re.DOTALL)
    for selector in re.findall(r"([^{}]+)\{", css):
        assert all(one.strip().startswith(".gazetell-gaze") for one in selector.split(","))
    bare = gaze_of(["a", "dot"]).html(assets=False)
    assert "<script" not in bare
    assert "<style" not in bare


def test_a_fragment_carries_maps_picture_and_direction():
    words = ["دائرة", "حمراء"]
    text = gaze_of(words, view=View((0.25, 0, 0.75, 1), (0.3, 0, 0.8, 1))).html(side=60)
    (figure,) = Page(text).all("figure")
    assert (figure["data-seen"], figure["data-cells"]) == ("0.25 0 0.75 1", "0.3 0 0.8 1")
    weights = np.frombuffer(base64.b64decode(figure["data-maps"]), "<f4").reshape(2, 7, 7)
    np.testing.assert_allclose(weights, maps(words), atol=1e-7)
    head, data = Page(text).all("img")[0]["src"].split(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (60, 45)
    assert [bar["dir"] for bar in Page(text).all("div") if bar.get("role") == "toolbar"] == ["rtl"]


def test_the_script_has_the_same_light_and_says_the_place(browser):
    grids = [
        spike(7, 7, 2, 5, floor=0.1),
        np.ones((1, 1)),
        spike(3, 11, 0, 0),
        np.full((2, 2), 0.25),
    ]
    grids, views = zip(*((grid, view) for grid in grids for view in VIEWS), strict=True)
    names = [
        *("mostly upper left", "mostly upper", "mostly upper right"),
        *("mostly left", "mostly the middle", "mostly right"),
        *("mostly lower left", "mostly lower", "mostly lower right"),
    ]
    places = {name: spike(3, 3, n // 3, n % 3) for n, name in enumerate(names)}
    places |= {"spread over the picture": np.ones((4, 4))}
    # Of a wide picture the middle third was seen, or it was padded above and below.
    middle, padded = (0.33, 0, 0.67, 1), (0, -1, 1, 2)
    # A peak between two cells of a long grid.
    between = np.array([[0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]])
    code = base64.b64encode(gaze.template("gaze.js").encode()).decode()
    page = browser.new_page()
    found = page.evaluate(
        """async ([code, grids, views, places]) => {
          const { heat, veil, where } = await import("data:text/javascript;base64," + code);
          const size = (grid) => ({ height: grid.length, width: grid[0].length });
          return [grids.map((grid, n) => heat(grid.flat(), { ...size(grid), ...views[n] })), veil,
            places.map(([grid, cells]) => where(grid.flat(), { ...size(grid), cells }))];
        }""",
        [
            code,
            [grid.tolist() for grid in grids],
            [view._asdict() for view in views],
            [
                *([grid.tolist()] for grid in (*places.values(), between)),
                *([spike(3, 3, *cell).tolist(), middle] for cell in ((0, 0), (2, 1))),
                *([spike(3, 3, *cell).tolist(), padded] for cell in ((1, 2), (2, 1))),
            ],
        ],
    )
    page.close()
    veil = np.array(found[1]) / 255
    for grid, view, levels in zip(grids, views, found[0], strict=True):
        levels = np.array(levels).reshape(64, 64)
        np.testing.assert_allclose(levels, heat(grid, (64, 64), view), atol=1e-5)
        colour, opacity = np.split(veil[np.rint(levels * 255).astype(int)], [3], axis=2)
        expected = np.asarray(overlay(Image.new("RGB", (64, 64), (128,) * 3), grid, view))
        np.testing.assert_allclose(opacity * colour * 255 + (1 - opacity) * 128, expected, atol=2)
    seen = ["mostly upper", "mostly lower", "mostly right", "mostly in the padding"]
    assert found[2] == [*places, "mostly the middle", *seen]


def test_a_page_is_played_with(browser, tmp_path):
    words = ["a", "red", "dot"]
    path = tmp_path / "gaze.html"
    Gaze(Image.new("RGB", (120, 90), (128,) * 3), words, maps(words)).save(path)
    page, errors = browser.new_page(reduced_motion="reduce"), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    buttons, line = page.locator(".gg-words button"), page.locator(".gg-where")
    page.wait_for_selector(".gg-words canvas")
    assert buttons.locator("canvas").count() == 3  # the tiles
    buttons.nth(1).hover()
    assert line.inner_text() == "“red”: mostly upper left"
    flat = page.evaluate("""() => [...document.querySelector(".gg-stage canvas").getContext("2d")
        .getImageData(0, 0, 64, 64).data]""")
    layer = np.array(flat, dtype=float).reshape(64, 64, 4)
    expected = np.asarray(overlay(Image.new("RGB", (64, 64), (128,) * 3), maps(words)[1]))
    opacity = layer[..., 3:] / 255
    np.testing.assert_allclose(opacity * layer[..., :3] + (1 - opacity) * 128, expected, atol=4)
    page.locator("body").hover(position={"x": 1, "y": 1})
    assert line.inner_text() == "Choose one to see where it looked."
    buttons.nth(0).focus()
    page.keyboard.press("ArrowLeft")
    assert line.inner_text().startswith("“dot”")
    page.keyboard.press("Escape")
    buttons.nth(2).click()
    assert buttons.nth(2).get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="Show word after word").click()
    assert line.inner_text().startswith("“a”")
    page.get_by_role("button", name="Stop").click()
    page.close()
    assert errors == []


# Files and refusals


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.jpeg", "JPEG"), ("a.webp", "WEBP"), ("a.gif", "GIF")],
)
def test_a_file_is_what_its_suffix_says(tmp_path, name, kind):
    path = tmp_path / "new" / name
    gaze_of(["a", "dot"]).save(path)
    with Image.open(path) as found:
        found.load()
        assert found.format == kind
    assert [file.name for file in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.pdf", "a", "png"])
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"\.png, .*\.gif, \.html"):
        gaze_of(["a"]).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_gaze_is_refused():
    with pytest.raises(UsageError, match=r"^this model has no attention to show$"):
        Gaze(colourful(), ["a"], None)
    for shape in [(2, 7, 7), (3, 7), (3, 7, 7, 1), (3, 0, 7)]:
        with pytest.raises(ValueError, match="expected attention"):
            Gaze(colourful(), ["a", "red", "dot"], np.ones(shape))
    for grid in (np.ones(4), np.ones((0, 3)), np.array([[1, -1]]), np.array([[np.nan, 1]])):
        with pytest.raises(ValueError, match="expected"):
            heat(grid, (4, 4))


def test_importing_the_gaze_is_cheap():
    code = (
        "import sys, gazetell.inference.gaze, gazetell.inference.report; "
        "print([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

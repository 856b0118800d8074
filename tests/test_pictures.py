"""Opening pictures: formats, modes, orientation, limits, and everything that is no picture."""

import contextlib
import io
import os
import re
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from gazetell import pictures
from gazetell.data import batches
from gazetell.data.batches import PixelSource
from gazetell.errors import ImageError
from gazetell.pictures import (
    WHOLE,
    Frame,
    area_within,
    image_files,
    load_pictures,
    open_image,
    picture_size,
    random_crop,
    stack_pixels,
)

# Pillow remarks on damaged metadata; what comes of the picture is what counts here.
FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def gradient(width: int = 40, height: int = 30) -> Image.Image:
    """Red grows to the right, green downwards: every orientation looks different."""
    red = np.linspace(0, 250, width)[None, :].repeat(height, 0)
    green = np.linspace(0, 250, height)[:, None].repeat(width, 1)
    return Image.fromarray(np.stack([red, green, 0 * red + 40], 2).astype(np.uint8))


def packed(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def difference(one: Image.Image, two: Image.Image) -> float:
    assert one.size == two.size
    a, b = (np.asarray(image.convert("RGB"), np.float64) for image in (one, two))
    return float(np.abs(a - b).mean())


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("source", ["path", "string", "bytes", "image"])
def test_formats_and_sources(kind, source, tmp_path):
    data = packed(gradient(), kind)
    path = tmp_path / "no-suffix-needed"
    path.write_bytes(data)
    given_as = {"path": path, "string": str(path), "bytes": data, "image": Image.open(path)}
    image = open_image(given_as[source])
    assert image.mode == "RGB"
    assert image.info == {}
    assert difference(image, gradient()) < 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("side", [None, 16])
def test_orientation_is_applied_once(orientation, kind, side):
    stored = gradient(160, 120)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = packed(stored, kind, exif=exif)
    # Pillow's own transposition of the pixels as they were saved is the reference.
    tagged = stored.copy()
    tagged.getexif()[0x0112] = orientation
    upright = ImageOps.exif_transpose(tagged)
    image = open_image(data, side=side)
    assert picture_size(data) == picture_size(upright) == upright.size
    again = open_image(image)
    assert again.tobytes() == image.tobytes()
    assert difference(image, upright.resize(image.size, Image.Resampling.BOX)) < 6


def test_damaged_exif_is_no_reason_to_refuse_a_picture():
    data = packed(gradient(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\xffnonsense")
    assert open_image(data).size == (40, 30)


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((1600, 1200), 224, (400, 300)),
        ((1600, 1200), 150, (200, 150)),
        ((1600, 1200), 151, (400, 300)),
        ((1600, 1200), 1300, (1600, 1200)),
        ((1600, 100), 224, (1600, 100)),
        ((1, 1), 224, (1, 1)),
    ],
)
def test_side_never_decodes_below_the_target(size, side, expected):
    image = open_image(packed(gradient(*size), "JPEG"), side=side)
    assert image.size == expected


def test_side_leaves_other_formats_and_given_images_alone():
    assert open_image(packed(gradient(800, 600), "PNG"), side=10).size == (800, 600)
    with Image.open(io.BytesIO(packed(gradient(800, 600), "JPEG"))) as mine:
        assert open_image(mine, side=10).size == mine.size == (800, 600)
    with pytest.raises(ValueError, match="side is 0"):
        open_image(gradient(), side=0)


def palette():
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    return image


ALPHA = np.array([[[0, 0, 0, 0], [0, 0, 0, 128], [0, 0, 0, 255]]], np.uint8)
GREY_ALPHA = np.array([[[10, 0], [10, 255]]], np.uint8)
WHITE, BLUE = (255, 255, 255), (0, 0, 200)


@pytest.mark.parametrize(
    ("image", "kind", "options", "expected"),
    [
        (Image.fromarray(ALPHA), "PNG", {}, [WHITE, (127,) * 3, (0,) * 3]),
        (Image.fromarray(GREY_ALPHA), "PNG", {}, [WHITE, (10,) * 3]),
        (Image.new("RGB", (1, 1), (9, 8, 7)), "PNG", {"transparency": (9, 8, 7)}, [WHITE]),
        (Image.new("1", (1, 1), 1), "PNG", {}, [WHITE]),
        (palette(), "PNG", {"transparency": 0}, [WHITE, BLUE]),
        (palette(), "GIF", {"transparency": 0}, [WHITE, BLUE]),
        (Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF", {}, [(255, 0, 0)]),
    ],
)
def test_colours_and_transparency(image, kind, options, expected):
    opened = open_image(packed(image, kind, **options))
    assert [opened.getpixel((x, 0)) for x in range(len(expected))] == expected


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 257, 32896, 65535], [0, 1, 128, 255]),
        ([0, 2048, 4095, 16], [0, 128, 255, 1]),  # 12 bits reach from black to white
        ([0, 512, 600, 1023], [0, 128, 150, 255]),
        ([0, 100, 200, 255], [0, 100, 200, 255]),
        ([0, 1, 2, 3], [0, 1, 2, 3]),  # never brighter than 8 bits would be
    ],
)
def test_grey_of_16_bits_has_the_range_of_its_bits(kind, values, expected):
    image = open_image(packed(Image.fromarray(np.array([values], np.uint16)), kind))
    assert [image.getpixel((x, 0)) for x in range(4)] == [(value,) * 3 for value in expected]


def test_a_tiff_whose_0_is_white_is_no_negative():
    grey = Image.fromarray(np.array([[0, 4095]], np.uint16))
    image = open_image(packed(grey, "TIFF", tiffinfo={262: 0}))
    assert [image.getpixel((x, 0))[0] for x in (0, 1)] == [255, 0]


def chunk(name: bytes, body: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I", len(body)) + name + body + check


def png(width: int, height: int, bits: int, colours: int, lines: bytes, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(lines))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("values", "expected"),
    [((4095, 2048, 0), (255, 136, 0)), ((65535, 32768, 0), (255, 128, 0)), ((0, 0, 0), (0, 0, 0))],
)
def test_colours_of_16_bits(values, expected):
    data = png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", *values))
    assert open_image(data).getpixel((0, 0)) == expected


def test_grey_of_16_bits_with_a_transparent_key():
    key = chunk(b"tRNS", struct.pack(">H", 514))
    image = open_image(png(2, 1, 16, 0, b"\0" + struct.pack(">HH", 514, 65535 - 257), key))
    assert [image.getpixel((x, 0))[0] for x in (0, 1)] == [255, 254]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 255]], np.int32), (0, 255)),
        (np.array([[0, 65535]], np.int32), (0, 255)),
        (np.array([[0, 4095]], np.int32), (0, 255)),
        (np.array([[-1024, 3071]], np.int32), (0, 255)),
        (np.array([[7, 7]], np.int32), (7, 7)),
        (np.array([[0.0, 1.0]], np.float32), (0, 255)),
        (np.array([[0.0, 200.0]], np.float32), (0, 200)),
        (np.array([[0.0, np.nan]], np.float32), (0, 0)),
        (np.array([[-3.0, 5.0]], np.float32), (0, 255)),
        (np.array([[np.inf, 1.0]], np.float32), (0, 255)),
        (np.array([[0.0, 70000.0]], np.float32), (0, 136)),
    ],
)
def test_wide_grey(values, expected):
    image = open_image(packed(Image.fromarray(values), "TIFF"))
    assert (image.getpixel((0, 0))[0], image.getpixel((1, 0))[0]) == expected


def test_values_that_are_not_finite_are_told(caplog):
    values = np.full((2, 2), np.nan, np.float32)
    with pytest.raises(ImageError, match="has no finite value"):
        open_image(packed(Image.fromarray(values), "TIFF"))
    values[0] = 1
    open_image(packed(Image.fromarray(values), "TIFF"))
    assert caplog.messages == ["picture: values that are not finite, taken as 0: 2 of 4"]


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "MPO", "AVIF"):
        data = packed(frames[0], kind, save_all=True, append_images=frames[1:])
        red, _, blue = open_image(data, side=2).getpixel((1, 1))
        assert red > 240
        assert blue < 15


def test_pages_that_are_left_out_are_told(tmp_path, caplog):
    pages = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = tmp_path / "scan.tiff"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert open_image(path).getpixel((0, 0)) == (255, 0, 0)
    assert [r.getMessage() for r in caplog.records] == [
        f"{path}: has 2 pages; only the first is read"
    ]


HEIC = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(99)


def test_heic_without_its_library_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for data in (HEIC, HEIC.replace(b"ftypheic", b"ftypmif1")):
        with pytest.raises(ImageError, match=r"is a HEIC picture; .*pip install pillow-heif"):
            open_image(data)


def test_heic(tmp_path):
    library = pytest.importorskip("pillow_heif")
    library.from_pillow(gradient()).save(tmp_path / "a.heic")
    assert difference(open_image(tmp_path / "a.heic"), gradient()) < 8
    assert ".heic" in pictures.SUFFIXES
    with pytest.raises(ImageError, match="is a damaged or truncated HEIC picture"):
        open_image(HEIC)


@pytest.mark.parametrize("side", [10_001, 30_000])
def test_a_header_over_the_limit_is_refused_before_decoding(side, tmp_path, monkeypatch):
    monkeypatch.setattr(
        ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded before the check")
    )
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, 8, 2, b"\0" * 100))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=f"bomb.png: is {side} x {side} pixels; .*100,000,000"):
            open_image(path)


def test_the_limit_is_the_callers_and_no_warning_is_given(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    data = packed(gradient(), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(data).size == (40, 30)
        assert open_image(data, max_pixels=1200).size == (40, 30)
        with pytest.raises(ImageError, match="picture: is 40 x 30 pixels; expected at most 1,199"):
            open_image(data, max_pixels=1199)
    assert Image.MAX_IMAGE_PIXELS == 10
    with pytest.raises(ImageError, match="40 x 30"):
        open_image(gradient(), max_pixels=100)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("side", [None, 8])
def test_truncated(kind, side, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = packed(Image.fromarray(noise), kind)
    path = tmp_path / f"half.{kind.lower()}"
    for keep in (len(data) // 2, 40):
        path.write_bytes(data[:keep])
        with pytest.raises(ImageError, match=r"half\.\w+: is a damaged or truncated") as caught:
            open_image(path, side=side)
        assert "\n" not in str(caught.value)


def test_what_is_no_picture(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("this is not a picture")
    (tmp_path / "vector.svg").write_text("<svg/>")
    (tmp_path / "other.jpg").write_bytes(packed(gradient(), "PPM"))
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    cases = {
        "empty.jpg": r"empty\.jpg: is empty \(0 bytes\); expected a JPEG",
        "text.jpg": r"text\.jpg: is not a picture that can be opened; expected a JPEG",
        "vector.svg": r"vector\.svg: is not a picture",
        "other.jpg": r"other\.jpg: is not a picture",
        "folder.jpg": r"folder\.jpg: is a folder or device; expected a picture file",
        "pipe.jpg": r"pipe\.jpg: is a folder or device",
        "missing.jpg": r"missing\.jpg: cannot be read: No such file",
        "missing\0.jpg": "null",
        "text.jpg/below.jpg": "cannot be read: Not a directory",
    }
    for name, message in cases.items():
        with pytest.raises(ImageError, match=message) as caught:
            open_image(f"{tmp_path}/{name}")
        assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match="picture: is empty"):
        open_image(b"")
    with pytest.raises(ImageError, match="picture: is not a picture"):
        open_image(b"GIF7 or so, in plain words")
    with pytest.raises(ImageError, match="found list"):
        open_image([1, 2, 3])  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="0 x 0"):
        open_image(Image.new("RGB", (0, 0)))


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(FORMATS),
    place=st.floats(0, 1),
    patch=st.binary(min_size=1, max_size=6),
)
def test_a_corrupted_file_opens_or_is_an_image_error(kind, place, patch):
    data = bytearray(packed(gradient(16, 16), kind))
    at = int(place * (len(data) - 1))
    data[at : at + len(patch)] = patch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Anything but a picture or this one error fails the test.
        with contextlib.suppress(ImageError):
            assert open_image(bytes(data), max_pixels=10_000).mode == "RGB"


def test_given_image_is_left_as_it_was():
    mine = gradient().convert("RGBA")
    mine.info["note"] = "mine"
    result = open_image(mine)
    result.putpixel((0, 0), (1, 2, 3))
    assert mine.mode == "RGBA"
    assert mine.info == {"note": "mine"}
    assert mine.getpixel((0, 0)) != (1, 2, 3, 255)
    rgb = gradient()
    open_image(rgb).putpixel((0, 0), (1, 2, 3))
    assert rgb.getpixel((0, 0)) != (1, 2, 3)


@pytest.fixture
def album(tmp_path) -> Path:
    seen = ("b.JPG", "a.png", "sub/c.webp", "x[1].gif")
    for name in (*seen, "notes.txt", "._a.png", ".hidden/d.jpg"):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "bare").mkdir()
    return tmp_path


def names(files, album: Path) -> list[str]:
    return [path.relative_to(album).as_posix() for path in files]


def test_image_files_of_a_folder(album, caplog):
    (album / "album" / "sub" / "loop").symlink_to(album / "album")
    found = names(image_files([album / "album"]), album)
    assert found == ["album/a.png", "album/b.JPG", "album/sub/c.webp", "album/x[1].gif"]
    assert [r.getMessage() for r in caplog.records] == ["1 file left out: notes.txt"]


def test_image_files_of_files_and_patterns(album, caplog):
    base = album / "album"
    # A file is taken whatever its suffix, and one whose name looks like a pattern is a file.
    files = [base / "notes.txt", base / "x[1].gif", f"{base}/*.png", f"{base}/**/*", base / "b.JPG"]
    assert names(image_files(files), album) == [
        "album/notes.txt",
        "album/x[1].gif",
        "album/a.png",
        "album/b.JPG",
        "album/sub/c.webp",
    ]
    assert image_files([]) == []
    # notes.txt was named, and b.JPG is what a pattern matches, too.
    told = [record.getMessage() for record in caplog.records]
    assert told == ["pictures named more than once, taken once: 1"]


def test_files_of_other_kinds_are_counted(album, caplog, monkeypatch):
    monkeypatch.setattr(pictures, "SUFFIXES", pictures.SUFFIXES - {".heic"})
    for name in ("d.heic", "sub/e.HEIC", "sub/raw"):
        (album / "album" / name).write_bytes(b"")
    assert len(image_files([album / "album", f"{album}/album/*"])) == 4
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        "4 files left out: .heic, .txt, no suffix; first: d.heic (HEIC is read where pillow-heif"
    )
    with pytest.raises(ImageError, match=r"\.heic: no pictures there; 1 file left out: d\.heic \("):
        image_files([f"{album}/album/*.heic"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bare", "no pictures there; expected a JPEG"),
        ("bare/*.jpg", "no pictures there"),
    ],
)
def test_image_files_refuses_at_once(album, name, said):
    with pytest.raises(ImageError, match=f"{re.escape(name)}: {said}"):
        image_files([album / "album" / "a.png", album / name])


def test_a_missing_file_is_refused_alone_and_else_when_it_is_opened(album):
    missing = album / "nothing.jpg"
    with pytest.raises(ImageError, match=r"nothing\.jpg: no such file"):
        image_files([missing, album / "neither.jpg"])
    assert image_files([missing, album / "album" / "a.png"])[0] == missing


# -- pixels ----------------------------------------------------------------------------------


def test_pictures_are_squashed_and_not_cropped():
    picture = np.zeros((50, 200, 3), np.uint8)
    picture[:, :100] = (255, 0, 0)  # left half red
    picture[:, 100:] = (0, 0, 255)
    pixels = Frame(64).pixels(Image.fromarray(picture))
    assert (pixels.shape, pixels.dtype) == ((3, 64, 64), np.uint8)
    assert pixels.flags.c_contiguous
    assert (pixels[0, :, :28] == 255).all()
    assert (pixels[2, :, 36:] == 255).all()
    assert (pixels[1] == 0).all()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert np.array_equal(Frame(64).pixels(Image.fromarray(noise)), noise.transpose(2, 0, 1))


FITS = ["squash", "crop", "pad"]
FILL = (200, 10, 90)
sides = st.integers(1, 400)
shares = st.floats(0, 1)


@pytest.mark.parametrize("fit", FITS)
@settings(max_examples=60, deadline=None)
@given(sides, sides, st.integers(1, 64), shares, shares)
def test_a_point_goes_to_the_input_and_back(fit, width, height, side, x, y):
    left, top, right, bottom = Frame(side, fit).seen((width, height))
    across, down = (x - left) / (right - left), (y - top) / (bottom - top)
    back = area_within((left, top, right, bottom), (across, down, 1, 1))
    assert back == pytest.approx((x, y, right, bottom))
    if fit != "squash":  # the shape is kept: a pixel of the input is a square of the picture
        assert (right - left) * width == pytest.approx((bottom - top) * height)
    if fit != "crop":  # all of the picture is in the input
        assert -1e-9 <= across <= 1 + 1e-9
        assert -1e-9 <= down <= 1 + 1e-9
    else:
        assert min(left, top) >= -1e-9
        assert max(right, bottom) <= 1 + 1e-9
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("fit", FITS)
@settings(max_examples=40, deadline=None)
@given(st.integers(20, 300), st.integers(20, 300), shares, shares)
def test_a_square_is_found_where_the_frame_says(fit, width, height, x, y):
    """A red square on grey, anywhere in a picture of any shape."""
    side, size = min(width, height) // 5, 96
    left, top = round(x * (width - side)), round(y * (height - side))
    picture = Image.new("RGB", (width, height), (128, 128, 128))
    picture.paste((255, 0, 0), (left, top, left + side, top + side))
    frame = Frame(size, fit, (128, 128, 128))
    red = frame.pixels(picture)[0] > 190
    view = frame.seen(picture.size)
    # The centre of each pixel of the input, as a place on the picture.
    middles = (np.arange(size) + 0.5) / size
    across = (view[0] + middles * (view[2] - view[0])) * width
    down = (view[1] + middles * (view[3] - view[1])) * height
    inside = (down[:, None] > top) & (down[:, None] < top + side)
    inside = inside & (across > left) & (across < left + side)
    # Apart from the square's own edge, blurred where the picture is enlarged.
    assert (red ^ inside).sum() <= 4 * (inside.any(0).sum() + inside.any(1).sum()) + size // 4


def test_what_lies_beside_a_crop_changes_nothing_of_it():
    noise = np.random.default_rng(0).integers(0, 256, (40, 100, 3), np.uint8)
    other = noise.copy()
    other[:, :30], other[:, 70:] = 0, 255
    frame = Frame(24, "crop")
    one, two = (frame.pixels(Image.fromarray(x)) for x in (noise, other))
    assert np.array_equal(one, two)
    assert np.array_equal(one, Frame(24).pixels(Image.fromarray(noise[:, 30:70])))


@pytest.mark.parametrize("size", [(100, 50), (50, 100), (3, 1), (500, 1), (1, 1)])
def test_padding_is_filled_on_both_sides(size):
    pixels = Frame(64, "pad", FILL).pixels(Image.new("RGB", size, (0, 255, 0)))
    filled = (pixels == np.array(FILL)[:, None, None]).all(0)
    assert (pixels[1][~filled] == 255).all()
    for axis, length in enumerate((size[1], size[0])):
        (places,) = np.nonzero((~filled).any(1 - axis))
        middle, half = 32, 32 * length / max(size)
        assert abs(places.min() - (middle - half)) <= 1
        assert abs(places.max() + 1 - (middle + half)) <= 1
        assert len(places) == places.max() + 1 - places.min()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("side", [None, 96])
def test_every_fit_takes_pictures_upright(fit, side):
    stored = gradient(160, 90)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Frame(48, fit).pixels(open_image(packed(stored, "PNG", exif=exif), side=side))
    upright = Frame(48, fit).pixels(stored.transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(turned, upright)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1 << 30))
def test_random_crops_are_mild_and_of_their_seed(seed):
    left, top, right, bottom = random_crop(np.random.default_rng(seed))
    assert 0 <= left < right <= 1
    assert 0 <= top < bottom <= 1
    width, height = right - left, bottom - top
    assert 0.6 - 1e-9 <= width * height <= 1
    assert 3 / 4 - 1e-9 <= width / height <= 4 / 3 + 1e-9
    assert random_crop(np.random.default_rng(seed)) == (left, top, right, bottom)
    assert random_crop(np.random.default_rng(seed), area=(1, 1)) == WHOLE


@pytest.mark.parametrize("fit", FITS)
def test_a_crop_is_an_enlarged_part_of_the_input(fit):
    picture, crop = gradient(300, 200), (0.25, 0.125, 0.75, 0.625)
    large = Frame(128, fit, FILL).pixels(picture)[:, 16:80, 32:96]
    found = Frame(64, fit, FILL).pixels(picture, crop)
    assert np.abs(found.astype(int) - large).mean() < 3


@pytest.fixture
def folder(tmp_path):
    for n in range(3):
        noise = np.random.default_rng(n).integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{n}.png")
    return tmp_path


NAMES = ["0.png", "1.png", "2.png"]


def pixels_of(path):
    return np.asarray(Image.open(path)).transpose(2, 0, 1)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("batch", [1, 2, 9])
def test_pictures_are_loaded_in_their_order(folder, workers, batch):
    (folder / "1.png").write_bytes(b"no picture")
    paths = [folder / name for name in NAMES]
    batches = list(load_pictures(paths, Frame(6), batch=batch, workers=workers, with_preview=True))
    assert [len(loaded) for loaded in batches] == {1: [1, 1, 1], 2: [2, 1], 9: [3]}[batch]
    zero, one, two = (picture for loaded in batches for picture in loaded)
    assert "1.png: is not a picture" in str(one)
    for picture, path in ((zero, paths[0]), (two, paths[2])):
        assert np.array_equal(picture.pixels, pixels_of(path))
        assert picture.preview.size == (6, 6)
    with pytest.raises(ImageError, match=r"1\.png"):
        stack_pixels([zero, one])


def test_pictures_are_read_as_the_work_goes_on(folder):
    taken = []

    def sources():
        for name in NAMES * 4:
            taken.append(name)
            yield folder / name

    loaded = load_pictures(sources(), Frame(6), batch=2)
    next(loaded)
    assert len(taken) == 4  # this batch and the next


@pytest.mark.parametrize("memory", [1 << 20, 3 * 3 * 36 - 1])
def test_pixels_come_from_memory_or_from_the_disk(folder, monkeypatch, memory):
    monkeypatch.setattr(batches, "KEEP_BYTES", memory)
    source = PixelSource(folder, NAMES, Frame(6))
    assert set(source.kept) == (set(NAMES) if memory == 1 << 20 else set())
    two, zero = (pixels_of(folder / name) for name in ("2.png", "0.png"))
    if source.kept:  # opened once
        (folder / "2.png").unlink()
    found = source.load(["2.png", "0.png", "0.png"], np.array([False, True, False]))
    assert (found.dtype, found.shape) == (torch.uint8, (3, 3, 6, 6))
    assert np.array_equal(found[0], two)
    assert np.array_equal(found[1], zero[:, :, ::-1])  # left and right change places
    assert np.array_equal(found[2], zero)


@pytest.mark.parametrize("memory", [1 << 20, 0])
def test_crops_are_taken_of_the_file_and_then_mirrored(tmp_path, monkeypatch, memory):
    monkeypatch.setattr(batches, "KEEP_BYTES", memory)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    source = PixelSource(tmp_path, ["a.png"], Frame(32))
    crops = [(0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0), WHOLE]
    mirrored = np.array([False, True, False])
    found = source.load(["a.png"] * 3, mirrored, crops).numpy()
    assert np.array_equal(found[0], noise[:32, :32].transpose(2, 0, 1))
    assert np.array_equal(found[1], noise[32:, 32:].transpose(2, 0, 1)[:, :, ::-1])
    assert np.array_equal(found[2], source.load(["a.png"], np.array([False]))[0].numpy())


def test_an_unreadable_picture_is_named(folder):
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"1\.png"):
        PixelSource(folder, NAMES, Frame(6))
    with pytest.raises(ImageError, match=r"1\.png: is empty"):
        picture_size(folder / "1.png")
    with pytest.raises(ImageError, match=r"7\.png"):
        PixelSource(folder, [], Frame(6)).load(["7.png"], np.array([False]))


RGB = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


@pytest.mark.parametrize(
    "source",
    [
        RGB,
        RGB / 255,
        (RGB / 255).astype(np.float32) + np.float32(1e-5),
        torch.from_numpy(RGB).permute(2, 0, 1),
        (torch.from_numpy(RGB).permute(2, 0, 1) / 255).requires_grad_(),
        np.dstack([RGB, np.full((5, 7), 255, np.uint8)]),
    ],
    ids=["uint8", "float64", "float32", "tensor", "float tensor", "opaque"],
)
def test_arrays_and_tensors_are_pictures(source):
    assert np.array_equal(np.asarray(open_image(source)), RGB)
    assert picture_size(source) == (7, 5)


@pytest.mark.parametrize("grey", [RGB[..., 0], RGB[..., :1], torch.from_numpy(RGB[..., 0])[None]])
def test_grey_arrays(grey):
    assert np.array_equal(np.asarray(open_image(grey))[..., 2], RGB[..., 0])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            RGB.transpose(2, 0, 1),
            r"an array 3 x 5 x 7: expected .* H x W x 3; transpose\(1, 2, 0\)",
        ),
        (torch.from_numpy(RGB), r"a tensor 5 x 7 x 3: expected .* 3 x H x W; permute\(2, 0, 1\)"),
        (torch.zeros(2, 3, 5, 7), r"2 x 3 x 5 x 7: .*; list\(\) makes pictures of a batch"),
        (np.zeros((3, 9, 3), np.uint8), "3 x 9 x 3: channels may be first or last"),
        (np.zeros((5, 7, 2), np.uint8), "5 x 7 x 2: expected H x W or H x W x 3"),
        (np.zeros((0, 7, 3), np.uint8), "0 x 7 x 3: expected"),
        (RGB.astype(float), "numbers from 0 to 104; expected 0 to 1"),
        (RGB / 255 - 0.5, "numbers from -0.5 to .*before any normalisation"),
        (np.full((5, 7), np.nan), "numbers from nan to nan"),
        (RGB.astype(np.int64), "int64; expected uint8, or floating point from 0 to 1"),
        (7, "expected a path, bytes, an image of Pillow, .* found int"),
        ([RGB], "found list"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(source, said):
    with pytest.raises(ImageError, match=said):
        open_image(source)

"""The one way of a picture: from whatever a person has on disk to the input of a network.

``open_image`` gives an upright 8-bit RGB image, ``Frame`` makes the network's input of it,
``load_pictures`` does both for many pictures, ahead of their use.

Read are JPEG, PNG, WebP, BMP, GIF, TIFF and AVIF, and HEIC where ``pillow-heif`` is installed. The
format is told by a file's first bytes, never by its name. The header is read first, and a picture
over the pixel limit is refused before anything is decoded; no global setting of Pillow is read or
changed, so any number of threads may open pictures at once. Where files leave a choice:

- The EXIF orientation is applied. Colour profiles are not; CMYK is converted without one.
- Of several pages or frames the first is taken; a warning tells of the others.
- Transparent pixels (alpha, palette entries, key colours) are laid on white.
- Grey values of more than 8 bits: the range is 0 to the smallest ``2^k - 1``, k >= 8, that holds
  every value, so that 12-bit values in a 16-bit file reach from black to white. Floating point
  within [0, 1] has that range. With negative values the range is the smallest to the largest.
  What is not finite is 0.
- Colours of 16 bits: the higher byte is taken, by the same rule where no value fills it.
"""

import glob
import io
import logging
import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, Union

import numpy as np
from PIL import Image, ImageFile

from .errors import ImageError, PixelLimitError
from .files import picture_path
from .process import begin_worker, undisturbed

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
log = logging.getLogger(__name__)
MAX_PIXELS = 100_000_000
# A picture is kept beside its caption or answer at no more than this many pixels a side.
PREVIEW = 640
TINY, LONG = 8, 6  # see ``Frame.doubt``

PictureSource = Union[bytes, str, os.PathLike[str], Image.Image, np.ndarray, "Tensor"]
Fit = Literal["squash", "crop", "pad"]
# Left, top, right and bottom, as shares of a width and a height from the left and the top.
Area = tuple[float, float, float, float]
WHOLE: Area = (0.0, 0.0, 1.0, 1.0)

_HEIC_SUFFIXES = {".heic", ".heif", ".hif"}
_HEIC_ADVICE = "HEIC is read where pillow-heif is installed: pip install pillow-heif (extra heic)"
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
    | (_HEIC_SUFFIXES if find_spec("pillow_heif") else set())
)
# The plugins register themselves with Pillow on import; nothing else of Pillow's is tried.
for _plugin in ("Jpeg", "Png", "WebP", "Bmp", "Gif", "Tiff", "Avif"):
    import_module(f"PIL.{_plugin}ImagePlugin")
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_EXPECTED = "expected a JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC picture"

_ORIENTATION = 0x0112  # EXIF tag; its values from 2 to 8 say what sets a picture upright
_UPRIGHT = (
    *("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM"),
    *("TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"),
)
_ON_ITS_SIDE = {Image.Transpose[name] for name in _UPRIGHT[3:]}
_PHOTOMETRIC = 262  # TIFF tag; 0 says that the value 0 is white


class NamedBytes(bytes):
    """The bytes of a picture file, and what messages call it."""

    name = "picture"


def name_of(source: PictureSource) -> str:
    """What messages call a picture."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return source.name if isinstance(source, NamedBytes) else NamedBytes.name


def open_image(
    source: PictureSource, *, side: int | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Open a picture as an upright 8-bit RGB image, by the rules of the module.

    Args:
        source: a path, the bytes of a picture file, an image of Pillow (left as it is), or what
            ``array_image`` takes.
        side: in pixels, what the picture will be scaled down to. A large JPEG is then decoded at
            1/2, 1/4 or 1/8 of its size, never below ``side`` on either side, which is several
            times faster. Other formats are decoded in full.
        max_pixels: the largest ``width * height`` that is decoded.

    Returns:
        An image of mode RGB that shares nothing with ``source`` and carries no metadata, so that
        opening it again changes nothing.

    Raises:
        ImageError: missing, a folder, empty, of another format, damaged or truncated.
        PixelLimitError: an ImageError too: more than ``max_pixels``.
    """
    if side is not None and side < 1:
        raise ValueError(f"side is {side}; expected at least 1 pixel")
    side = None if isinstance(source, Image.Image) else side
    return _read(source, partial(_decode, side=side, max_pixels=max_pixels))


def picture_size(source: PictureSource) -> tuple[int, int]:
    """Width and height of a picture set upright, from its header. Errors: ``open_image``'s."""

    def size(image: Image.Image, name: str) -> tuple[int, int]:
        if image.format == "TIFF":
            image.load()  # Pillow sets TIFFs upright by itself, their size earlier or then
        turned = _upright(image) in _ON_ITS_SIDE
        return (image.height, image.width) if turned else image.size

    return _read(source, size)


def array_image(source: Any) -> Image.Image:
    """An image of Pillow from the numbers of a picture; what could be read in two ways is refused.

    Args:
        source: an array of numpy (H, W) or (H, W, C) or a tensor of torch (H, W) or (C, H, W), C
            being 1, 3 or 4 (with alpha); uint8, or floating point from 0 to 1.

    Raises:
        ImageError: another shape or type, or numbers out of the range.
    """
    numpy = isinstance(source, np.ndarray)
    if not numpy:
        source = source.detach().cpu()
        source = (source.float() if source.is_floating_point() else source).numpy()
    shape, values = source.shape, source
    said = f"picture: {'an array' if numpy else 'a tensor'} {' x '.join(map(str, shape))}"
    expected = f"expected H x W or {'H x W x 3' if numpy else '3 x H x W'}"
    first, last = (len(shape) == 3 and shape[n] in (1, 3, 4) for n in (0, 2))
    if first and last:
        raise ImageError(f"{said}: channels may be first or last; expected an image of Pillow")
    if source.size == 0 or not (len(shape) == 2 or (last if numpy else first)):
        turn = "; transpose(1, 2, 0) makes it so" if first else ""
        turn = "; permute(2, 0, 1) makes it so" if last else turn
        batch = "; list() makes pictures of a batch" if len(shape) == 4 else ""
        raise ImageError(f"{said}: {expected}{turn}{batch}")
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not (low >= -1e-3 and high <= 1.001):  # rounding of a resize is no fault
            expected = "expected 0 to 1, before any normalisation, or uint8"
            raise ImageError(f"{said}: numbers from {low:g} to {high:g}; {expected}")
        values = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    if values.dtype != np.uint8:
        raise ImageError(f"{said}: {values.dtype}; expected uint8, or floating point from 0 to 1")
    values = values.transpose(1, 2, 0) if first else values
    grey = values.shape[2:] == (1,)
    return Image.fromarray(np.ascontiguousarray(values[:, :, 0] if grey else values))


def _read(source: PictureSource, read: Callable[[Image.Image, str], T]) -> T:
    """What ``read`` makes of a picture whose header has been read, and of its name."""
    if isinstance(source, np.ndarray) or hasattr(source, "detach"):
        source = array_image(source)
    if not isinstance(source, bytes | bytearray | memoryview | str | os.PathLike | Image.Image):
        raise ImageError(
            "picture: expected a path, bytes, an image of Pillow, an array of numpy or a tensor of "
            f"torch, found {type(source).__name__}"
        )
    name, kind = name_of(source), ""
    try:
        if isinstance(source, Image.Image):
            kind = source.format or "Pillow"
            return read(source, name)
        with _open_file(source) as file:
            prefix = file.read(64)
            kind, factory = _recognise(prefix, name)
            file.seek(0)
            with factory(file, "") as image:
                return read(image, name)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise PixelLimitError(f"{name}: is over the limit of pixels ({error})") from error
    except Exception as error:
        # Pillow's decoders raise almost anything at a damaged file, and OSError without a number.
        if isinstance(error, OSError) and error.errno:
            raise ImageError(f"{name}: cannot be read: {error.strerror}") from error
        reason = re.sub(r" \(\d+ bytes not processed\)", "", str(error)) or type(error).__name__
        raise ImageError(f"{name}: is a damaged or truncated {kind} picture ({reason})") from error


def _open_file(source: bytes | str | os.PathLike[str]) -> IO[bytes]:
    """The content of a picture; a named pipe or device would block or never end."""
    if not isinstance(source, str | os.PathLike):
        return io.BytesIO(source)
    if not stat.S_ISREG(os.stat(picture_path(source)).st_mode):
        raise ImageError(f"{os.fspath(source)}: is a folder or device; expected a picture file")
    return open(source, "rb")


def _recognise(prefix: bytes, name: str) -> tuple[str, Callable[..., Any]]:
    """The format of a file by its first bytes, and what reads it.

    Image.open would add its own size check, whose warning can only be silenced for the whole
    process; the plugins themselves read the header and check nothing.
    """
    if not prefix:
        raise ImageError(f"{name}: is empty (0 bytes); {_EXPECTED}")
    if prefix[4:8] == b"ftyp":  # the brands of the family follow, four bytes each
        brands = {prefix[n : n + 4] for n in range(8, len(prefix), 4)}
        if brands & {b"avif", b"avis"}:
            return "AVIF", Image.OPEN["AVIF"][0]
        if any(brand[:3] in (b"hei", b"hev") for brand in brands):
            try:
                from pillow_heif import HeifImageFile
            except ImportError as error:
                raise ImageError(f"{name}: is a HEIC picture; {_HEIC_ADVICE}") from error
            return "HEIC", HeifImageFile
    for kind in _FORMATS:
        factory, accept = Image.OPEN[kind]
        if accept is None or accept(prefix[:16]) is True:
            return kind, factory
    raise ImageError(f"{name}: is not a picture that can be opened; {_EXPECTED}")


def _decode(image: Image.Image, name: str, side: int | None, max_pixels: int) -> Image.Image:
    """Decode an opened picture whose pixels are not yet in memory."""
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: is {width} x {height} pixels; expected at least 1 x 1")
    if width * height > max_pixels:
        raise PixelLimitError(
            f"{name}: is {width} x {height} pixels; expected at most {max_pixels:,} pixels in all"
        )
    if (frames := getattr(image, "n_frames", 1)) > 1:
        what = "pages" if image.format == "TIFF" else "frames"
        log.warning("%s: has %s %s; only the first is read", name, frames, what)
    if side is not None and isinstance(image, ImageFile.ImageFile):
        image.draft(None, (side, side))
    deep = ";16" in str(getattr(image, "tile", ""))
    image.load()
    turn, rgb = _upright(image), _to_rgb(image, name, deep)
    if turn is not None:
        rgb = rgb.transpose(turn)
    # The orientation has been used up; left in place it would be applied again.
    rgb.info = {}
    return rgb


def _upright(image: Image.Image) -> Image.Transpose | None:
    """What sets a picture upright; None where its EXIF says nothing that can be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        # Broken metadata is common and says nothing about the pixels.
        return None
    return Image.Transpose[_UPRIGHT[value - 2]] if value in range(2, 9) else None


def _to_rgb(image: Image.Image, name: str, deep: bool) -> Image.Image:
    """A loaded image as a new RGB image; ``deep`` for one that had 16 bits a colour."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(image, name)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    rgb = image.convert("RGB")
    if deep:
        bits = max(int(high) for _, high in rgb.getextrema()).bit_length()  # type: ignore[misc]
        if 0 < bits < 8:
            rgb = rgb.point([min(255, value * 255 // (2**bits - 1)) for value in range(256)] * 3)
    return rgb


def _eight_bits(image: Image.Image, name: str) -> np.ndarray:
    """Grey values of more than 8 bits as (height, width) uint8, see the module."""
    raw = np.asarray(image)
    if odd := int(np.count_nonzero(~np.isfinite(raw))):
        if odd == raw.size:
            raise ImageError(f"{name}: has no finite value")
        log.warning("%s: values that are not finite, taken as 0: %d of %d", name, odd, raw.size)
    values = np.nan_to_num(raw.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low < 0:
        values -= low
        top = (high - low) or 1.0
    elif image.mode == "F" and high <= 1:
        top = 1.0
    else:
        top = 2.0 ** max(8, int(np.ceil(high)).bit_length()) - 1
    grey = np.rint(values * (255 / top)).astype(np.uint8)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[raw == transparent] = 255
    return grey


def preview(picture: Image.Image) -> Image.Image:
    """A picture no larger than is needed to show it."""
    if max(picture.size) > PREVIEW:
        picture = picture.copy()
        picture.thumbnail((PREVIEW, PREVIEW))
    return picture


def area_within(outer: Area, inner: Area) -> Area:
    """An area of ``outer``, as shares of what ``outer`` is an area of."""
    left, top, right, bottom = outer
    (x, y, end, low), width, height = inner, right - left, bottom - top
    return left + x * width, top + y * height, left + end * width, top + low * height


class View(NamedTuple):
    """Where an encoder's input and its grid lie on a picture; what is beyond 0 to 1 is not on it.

    Attributes:
        seen: the area that the input shows.
        cells: the area that the cells of the grid tile, each of the same size.
    """

    seen: Area = WHOLE
    cells: Area = WHOLE


WHOLE_VIEW = View()


@dataclass(frozen=True)
class Frame:
    """How a picture becomes the input of a network.

    Attributes:
        size: S, the side of the input in pixels.
        fit: ``squash`` shows the whole picture, its width and height each scaled to S; ``crop``
            keeps the shape, scales the shorter side to S and shows the middle of the longer one;
            ``pad`` keeps the shape, scales the longer side to S and fills the rest.
        fill: colour of the padding.
    """

    size: int
    fit: Fit = "squash"
    fill: tuple[int, int, int] = (128, 128, 128)

    def seen(self, size: tuple[int, int]) -> Area:
        """The area of a picture (width, height) that the input shows; of ``pad`` also beyond it."""
        if self.fit == "squash":
            return WHOLE
        side = min(size) if self.fit == "crop" else max(size)
        x, y = (side / length / 2 for length in size)
        return 0.5 - x, 0.5 - y, 0.5 + x, 0.5 + y

    def doubt(self, size: tuple[int, int]) -> str:
        """Why nothing sure can be told of a picture (width, height); empty where it can.

        Its shorter side is less than an eighth of the input, or its longer one more than six times
        the shorter: training pictures are neither.
        """
        width, height = size
        if TINY * min(size) < self.size:
            return f"is {width} x {height} pixels, enlarged to an input of {self.size}"
        if max(size) > LONG * min(size):
            longer = "wide as high" if width > height else "high as wide"
            seen = {"squash": "it is squashed to a square", "crop": "only its middle is seen"}
            why = seen.get(self.fit, "most of the input is padding")
            return f"is {max(size) / min(size):.1f} times as {longer}: {why}"
        return ""

    def view(self, size: tuple[int, int], cells: Area = WHOLE) -> View:
        """The view of a picture (width, height); ``cells`` is the area of the grid in the input."""
        seen = self.seen(size)
        return View(seen, area_within(seen, cells))

    def pixels(self, picture: Image.Image, crop: Area = WHOLE) -> np.ndarray:
        """An RGB picture as uint8 (3, S, S); of ``crop``, an area of the input, enlarged to it."""
        area, spans = area_within(self.seen(picture.size), crop), []
        for low, high, length in zip(area[:2], area[2:], picture.size, strict=True):
            inside = max(low, 0.0), min(high, 1.0)
            begin = min(round(inside[0] * length), length - 1)
            end = max(round(inside[1] * length), begin + 1)
            first, last = (round(self.size * (x - low) / (high - low)) for x in inside)
            first = min(first, self.size - 1)
            spans.append((begin, end, first, max(1, last - first)))
        (left, right, x, width), (top, bottom, y, height) = spans
        if (left, top, right, bottom) != (0, 0, *picture.size):
            # Cut before it is scaled: the filter would mix in what lies beside.
            picture = picture.crop((left, top, right, bottom))
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        if picture.size != (self.size, self.size):
            canvas = Image.new("RGB", (self.size, self.size), self.fill)
            canvas.paste(picture, (x, y))
            picture = canvas
        return np.ascontiguousarray(np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1))


def random_crop(
    random: np.random.Generator,
    area: tuple[float, float] = (0.6, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Area:
    """Draw an area of the input for ``Frame.pixels``, to train on.

    As in Szegedy et al. 2015 (Going Deeper with Convolutions), but mild: most of what a caption
    names should stay in sight.

    Args:
        random: decides alone; give one of seed, epoch and picture.
        area: least and largest share of the input.
        ratio: least and largest width to height, where the input's is 1.
    """
    share = random.uniform(*area)
    # No wider and no higher than the input.
    low, high = (np.log(np.clip(bound, share, 1 / share)) for bound in ratio)
    shape = float(np.exp(random.uniform(low, high)))
    width, height = min(1.0, (share * shape) ** 0.5), min(1.0, (share / shape) ** 0.5)
    left, top = random.uniform(0, 1 - width), random.uniform(0, 1 - height)
    return left, top, left + width, top + height


class LoadedPicture(NamedTuple):
    """A picture as a network's input.

    Attributes:
        pixels: uint8 (3, S, S).
        size: width and height as it was opened, upright.
        preview: see ``preview``; None where it is not wanted.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    preview: Image.Image | None


def load_picture(
    source: PictureSource, frame: Frame, with_preview: bool = False, crop: Area = WHOLE
) -> LoadedPicture:
    """Open a picture for an encoder; ``crop`` as for ``Frame.pixels``, errors as ``open_image``.

    One that will be shown, and of which nothing sure can be told, is told in a warning.
    """
    side = math.ceil(frame.size / min(crop[2] - crop[0], crop[3] - crop[1]))
    picture = open_image(source, side=max(PREVIEW, side) if with_preview else side)
    small = preview(picture) if with_preview else None
    if with_preview and (doubt := frame.doubt(picture.size)):
        log.warning("%s: %s; what is told of it is not sure", name_of(source), doubt)
    return LoadedPicture(frame.pixels(picture, crop), picture.size, small)


def load_pictures(
    sources: Iterable[PictureSource | ImageError],
    frame: Frame,
    *,
    batch: int,
    workers: int = 0,
    threads: int = 2,
    with_preview: bool = False,
) -> Iterator[list[LoadedPicture | ImageError]]:
    """Open pictures in their order, a batch at a time, the next one while this one is used.

    Args:
        sources: in any number, read as the work goes on without workers; errors are passed on.
        frame: of the encoder.
        batch: pictures at a time.
        workers: processes that open them; 0 for threads of this one.
        threads: how many, without workers.
        with_preview: also keep what is needed to show the pictures.

    Yields:
        For each picture what ``load_picture`` gives, or the error why it could not be opened.
    """
    load = partial(_load_all, frame=frame, with_preview=with_preview)
    if workers:
        from torch.utils.data import DataLoader

        rows: Any = list(sources)  # the pictures are opened as they are put together
        how: Any = {"num_workers": workers, "prefetch_factor": 4, "worker_init_fn": begin_worker}
        with undisturbed():
            opened = iter(DataLoader(rows, batch, collate_fn=load, **how))
        yield from opened
        return
    rest = iter(sources)
    with ThreadPoolExecutor(threads) as pool:  # decoding releases the interpreter's lock
        ahead = [pool.submit(load, [source]) for source in islice(rest, batch)]
        while ahead:
            following = [pool.submit(load, [source]) for source in islice(rest, batch)]
            yield [task.result()[0] for task in ahead]
            ahead = following


def _load_all(
    sources: Sequence[PictureSource | ImageError], frame: Frame, with_preview: bool
) -> list[LoadedPicture | ImageError]:
    loaded: list[LoadedPicture | ImageError] = []
    for source in sources:
        try:
            if isinstance(source, ImageError):
                raise source
            loaded.append(load_picture(source, frame, with_preview))
        except ImageError as error:
            loaded.append(error)
    return loaded


def stack_pixels(loaded: Sequence[LoadedPicture | ImageError]) -> "Tensor":
    """Pictures as one input of a network, uint8 (B, 3, S, S).

    Raises:
        ImageError: the first of those that could not be opened.
    """
    import torch  # late: preparing a dataset opens pictures and needs none of it

    for picture in loaded:
        if isinstance(picture, ImageError):
            raise picture
    return torch.from_numpy(np.stack([picture.pixels for picture in loaded]))  # type: ignore[union-attr]


def image_files(arguments: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The picture files that command-line arguments name, in order, each once.

    A file is taken as named, whatever its suffix; beside others also one that is missing, which
    fails when it is opened. A folder gives the pictures below it (by suffix, sorted by path, hidden
    ones left out); a pattern such as ``photos/**/*.jpg`` gives what it matches, folders included.
    Warnings count files of other kinds that are left out, and files that are named again.

    Raises:
        ImageError: no path exists, or a folder or pattern without pictures.
    """
    found: dict[Path, None] = {}
    others: dict[Path, None] = {}
    again, names = 0, [picture_path(argument) for argument in arguments]
    there = {name: os.path.lexists(name) for name in names}
    if names and not any(there[name] or glob.has_magic(name) for name in names):
        raise ImageError(f"{names[0]}: no such file or folder; expected a picture or a pattern")
    for name in names:
        folder = os.path.isdir(name)
        if not folder and (there[name] or not glob.has_magic(name)):
            again += Path(name) in found
            found[Path(name)] = None
            continue
        matches = [name] if folder else sorted(glob.glob(name, recursive=True))
        files = [path for match in matches for path in _files(match)]
        pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
        rest = [path for path in files if path.suffix.lower() not in SUFFIXES]
        if not pictures:
            raise ImageError(f"{name}: no pictures there{left_out(rest, '; ')}; {_EXPECTED}")
        found.update(dict.fromkeys(pictures))
        others.update(dict.fromkeys(rest))
    if again:
        log.warning("pictures named more than once, taken once: %d", again)
    if left := left_out([path for path in others if path not in found]):
        log.warning(left)
    return list(found)


def left_out(files: Sequence[Path], before: str = "") -> str:
    """How many files are left out, the first's name and all their kinds; empty for none."""
    kinds = {path.suffix.lower() or "no suffix" for path in files}
    if not kinds:
        return ""
    told = f"1 file left out: {files[0].name}"
    if len(files) > 1:
        told = f"{len(files)} files left out: {', '.join(sorted(kinds))}; first: {files[0].name}"
    return before + told + f" ({_HEIC_ADVICE})" * bool(_HEIC_SUFFIXES & kinds)


def _files(path: str) -> list[Path]:
    """A file, or those in a folder and all below it, sorted; links are followed, loops are not."""
    if not os.path.isdir(path):
        return [Path(path)]

    def refused(error: OSError) -> None:
        log.warning("%s: left out: %s", error.filename, error.strerror)

    seen = set()
    files: list[Path] = []
    for here, folders, names in os.walk(path, onerror=refused, followlinks=True):
        about = os.stat(here)
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files.extend(Path(here, name) for name in names if not name.startswith("."))
    return sorted(files)

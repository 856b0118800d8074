"""Opening pictures safely: whatever a person has on disk becomes an upright 8-bit RGB image.

JPEG, PNG, WebP, BMP, GIF (first frame) and TIFF are read, recognised by their first bytes and
never by their name. The header is read first and a picture over the pixel limit is refused before
anything is decoded. No global setting of Pillow is read for that limit or changed, so any number
of threads may open pictures at once.
"""

import errno
import glob
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

# The plugins register themselves with Pillow on import; nothing else of Pillow's is tried.
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from .errors import DataError, ImageError, PixelLimitError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "MAX_PIXELS",
    "PREVIEW",
    "SUFFIXES",
    "PixelSource",
    "image_files",
    "open_image",
    "preview",
]

MAX_PIXELS = 100_000_000
# A picture is kept beside its caption or answer at no more than this many pixels a side.
PREVIEW = 640
# Pictures that fit into this much memory are opened once instead of once an epoch.
KEEP_BYTES = 1 << 30
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
)

_FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
        BmpImagePlugin.BmpImageFile,
        GifImagePlugin.GifImageFile,
        TiffImagePlugin.TiffImageFile,
    )
)
_EXPECTED = "expected a JPEG, PNG, WebP, BMP, GIF or TIFF picture"

# EXIF tag 0x0112 names the transform that sets a picture upright.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(
    source: bytes | str | os.PathLike[str] | Image.Image,
    *,
    near: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Open a picture as an upright 8-bit RGB image.

    The EXIF orientation is applied; alpha and transparent palette entries are laid on white;
    grey pictures of 16 or 32 bits are scaled to 8 (see ``_eight_bits``). The result carries no
    metadata, so opening it again changes nothing.

    Args:
        source: a path, the bytes of a picture file, or an image of Pillow (left as it is).
        near: the side in pixels that the picture will be scaled down to. A large JPEG is then
            decoded at 1/2, 1/4 or 1/8 of its size, never below ``near`` on either side, which
            is several times faster. Other formats are decoded in full.
        max_pixels: the largest ``width * height`` that is decoded.

    Returns:
        An image of mode RGB that shares nothing with ``source``.

    Raises:
        ImageError: missing, a folder, empty, of another format, damaged or truncated.
        PixelLimitError: an ImageError too: more than ``max_pixels``.
    """
    if near is not None and near < 1:
        raise ValueError(f"near is {near}; expected a side of at least 1 pixel")
    if isinstance(source, Image.Image):
        return _decode(source, "picture", max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _read(io.BytesIO(source), "picture", near, max_pixels)
    if not isinstance(source, str | os.PathLike):
        raise ImageError(
            f"picture: expected a path, bytes or a Pillow image, found {type(source).__name__}"
        )
    name = os.fspath(source)
    with _open_file(name) as file:
        return _read(file, name, near, max_pixels)


def _open_file(name: str) -> IO[bytes]:
    """Open a regular file; a named pipe or device would block or never end."""
    try:
        mode = os.stat(name).st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{name}: is a folder; expected a picture file")
        if not stat.S_ISREG(mode):
            raise ImageError(f"{name}: is no regular file; expected a picture file")
        return open(name, "rb")
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file; expected a picture file") from error
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the path
        raise ImageError(f"{name!r}: is no path of a picture file ({error})") from error


def _read(file: IO[bytes], name: str, near: int | None, max_pixels: int) -> Image.Image:
    """Recognise, measure and decode the picture in ``file``."""
    try:
        prefix = file.read(16)
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from error
    if not prefix:
        raise ImageError(f"{name}: is empty (0 bytes); {_EXPECTED}")
    for kind in _FORMATS:
        # Image.open would add its own size check, whose warning can only be silenced for the
        # whole process; the plugin itself reads the header and checks nothing.
        factory, accept = Image.OPEN[kind]
        if accept is None or accept(prefix) is True:
            break
    else:
        raise ImageError(f"{name}: is no picture; {_EXPECTED}")
    file.seek(0)
    try:
        image = factory(file, "")
    except Image.DecompressionBombError as error:
        raise PixelLimitError(
            f"{name}: is over the limit of {max_pixels:,} pixels ({error})"
        ) from error
    except Exception as error:
        raise _damaged(name, kind, error) from error
    with image:
        return _decode(image, name, max_pixels, near)


def _decode(image: Image.Image, name: str, max_pixels: int, near: int | None = None) -> Image.Image:
    """Decode an opened picture whose pixels are not yet in memory."""
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: is {width} x {height} pixels; expected at least 1 x 1")
    if width * height > max_pixels:
        raise PixelLimitError(
            f"{name}: is {width} x {height} pixels; expected at most {max_pixels:,} pixels in all"
        )
    kind = image.format or "Pillow"
    try:
        if near is not None and isinstance(image, ImageFile.ImageFile):
            image.draft(None, (near, near))
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        rgb = _to_rgb(image)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ESTALE):
            raise ImageError(f"{name}: cannot be read: {error.strerror}") from error
        raise _damaged(name, kind, error) from error
    except Exception as error:
        # A damaged file makes Pillow's decoders raise almost anything: SyntaxError, struct.error,
        # zlib.error, ValueError, KeyError, MemoryError. All mean the same to the user.
        raise _damaged(name, kind, error) from error
    if turn is not None:
        rgb = rgb.transpose(turn)
    # The orientation has been used up; left in place it would be applied again.
    rgb.info = {}
    return rgb


def _damaged(name: str, kind: str, error: Exception) -> ImageError:
    """The error for a picture whose format is known and whose content is not as it should be."""
    reason = str(error) or type(error).__name__
    return ImageError(f"{name}: is a damaged or truncated {kind} picture ({reason})")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where it is absent or unreadable."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        # Broken metadata is common and says nothing about the pixels.
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image as a new RGB image, transparency laid on white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> np.ndarray:
    """Grey values of 16 bits, 32 bits or floating point as ``(height, width)`` uint8.

    16-bit values are divided by 257, so that 65535 becomes 255. The range of wider values is not
    told by the file: it is taken as 0..1 (floating point only), 0..255 or 0..65535, the first that
    holds every value, and else as the smallest to the largest value present.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    else:
        values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        low, high = float(values.min()), float(values.max())
        tops = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        top = next((top for top in tops if low >= 0 and high <= top), None)
        if top is None:
            values = values - low
            top = (high - low) or 1.0  # the same everywhere: black
        grey = np.rint(values * (255.0 / top)).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[np.asarray(image) == transparent] = 255
    return grey


def image_files(arguments: Sequence[str | os.PathLike[str]]) -> Iterator[Path]:
    """The picture files that command-line arguments name, in order, each once.

    A file is taken as named, whatever its suffix. A folder gives the pictures below it (by
    suffix, sorted by path, hidden files and folders left out); a pattern such as
    ``photos/**/*.jpg`` gives what it matches, folders included.

    Raises:
        DataError: at once, before the first file is given: a path that does not exist, or a
            folder or pattern without pictures.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        name = os.fspath(argument)
        if os.path.isdir(name):
            files = list(_pictures_below(name))
            if not files:
                raise DataError(f"{name}: no pictures in this folder; {_EXPECTED}")
        elif os.path.lexists(name):
            files = [Path(name)]
        elif glob.has_magic(name):
            files = list(_pictures_matching(name))
            if not files:
                raise DataError(f"{name}: no picture matches this pattern")
        else:
            raise DataError(f"{name}: no such file or folder; expected a picture, folder, pattern")
        found.update(dict.fromkeys(files))
    return iter(found)


def _is_picture(name: str) -> bool:
    """Whether a file name looks like a picture; ``._x.jpg`` of macOS is none."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def _pictures_below(folder: str) -> Iterator[Path]:
    """Pictures in a folder and all below it, sorted by path; links are followed, loops are not."""
    seen = set()
    files: list[Path] = []
    for here, folders, names in os.walk(folder, followlinks=True):
        about = os.stat(here)
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files.extend(Path(here, name) for name in names if _is_picture(name))
    return iter(sorted(files))


def _pictures_matching(pattern: str) -> Iterable[Path]:
    """Pictures that a glob pattern matches, sorted; a matched folder counts with its content."""
    for match in sorted(glob.glob(pattern, recursive=True)):
        if os.path.isdir(match):
            yield from _pictures_below(match)
        elif _is_picture(os.path.basename(match)):
            yield Path(match)


def preview(picture: Image.Image) -> Image.Image:
    """A picture no larger than is needed to show it."""
    if max(picture.size) > PREVIEW:
        picture = picture.copy()
        picture.thumbnail((PREVIEW, PREVIEW))
    return picture


class PixelSource:
    """Opens pictures as uint8 images (B, 3, S, S), kept in memory if they all fit.

    Args:
        root: folder of the pictures.
        names: all that will be asked for.
        pixels: makes the network's input (3, S, S) of a picture.
        size: S.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        pixels: Callable[[Image.Image], np.ndarray],
        size: int,
    ) -> None:
        self.root, self.pixels, self.size = root, pixels, size
        self.kept: dict[str, np.ndarray] = {}
        if len(names) * 3 * size * size <= KEEP_BYTES:
            with ThreadPoolExecutor(2) as pool:  # decoding releases the interpreter's lock
                self.kept = dict(zip(names, pool.map(self._open, names), strict=True))

    def load(self, names: Sequence[str], mirrored: np.ndarray) -> "Tensor":
        """See ``Source.load``."""
        import torch  # late: preparing a dataset opens pictures and needs none of it

        images = [self.kept[name] if name in self.kept else self._open(name) for name in names]
        images = [x[:, :, ::-1] if m else x for x, m in zip(images, mirrored, strict=True)]
        return torch.from_numpy(np.stack(images))

    def _open(self, name: str) -> np.ndarray:
        return self.pixels(open_image(self.root / name, near=self.size))

"""Where the model looked for each word: a strip, a moving picture, a page to play with, a file.

Attention as in Xu et al. 2015, "Show, Attend and Tell" (arXiv:1502.03044): for each word a weight
for each cell of the grid, summing to 1, row 0 on top. A ``View`` says where the cells lie on the
picture. What a cropped picture did not show the model stays dark; weight on the padding of a padded
one lies beside the picture and is not drawn, so that a gaze there leaves the picture dim. Heat is
linear in attention, so that half the weight is half as hot:

    heat = attention / max(peak of this word, 2 / R)

The second term is twice the level of an even map: that one is 0.5 all over, and a map that hardly
differs from it stays pale instead of having its noise blown up. Between cells the heat follows a
cubic (Catmull and Rom 1974, "A class of local interpolating splines"), which has each cell's own
value at the cell's centre; blurring would favour cells at the edge of the picture.
``templates/gaze.js`` does the same in a browser; a test holds both to the same light.

Shapes: ``T`` words, ``h, w`` the grid (``R = h * w`` cells), ``H, W`` the picture in pixels.
"""

import base64
import html as markup
import io
import logging
import math
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from ..errors import UsageError
from ..files import atomic_path
from ..pictures import PREVIEW, WHOLE_VIEW, View, open_image

FORMATS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".html")  # of `Gaze.save`

# The light, the same in templates/gaze.js.
SHADE = 0.24  # brightness that is left of the picture where the model did not look
GLOW = 0.34  # share of the glow's colour at the peak
EMBER, AMBER = (255.0, 104.0, 16.0), (255.0, 206.0, 96.0)  # the glow, from faint to full

PAPER, INK, FAINT, ACCENT = (250, 249, 246), (38, 36, 33), (150, 145, 137), (194, 84, 10)
SMALLEST = 11  # pixels of a letter

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
log = logging.getLogger(__name__)


# Light on a picture


def heat(attention_map: np.ndarray, size: tuple[int, int], view: View = WHOLE_VIEW) -> np.ndarray:
    """Spread one word's attention smoothly over a picture.

    Args:
        attention_map: (h, w) weights, row 0 on top. Their scale does not matter.
        size: (width, height) of the picture in pixels, as Pillow gives it.
        view: where the map lies on the picture.

    Returns:
        float32 (H, W) in [0, 1], linear in attention, 0 where the model saw nothing; see the head
        of this module.

    Raises:
        ValueError: not two axes, no cells, or a weight that is negative or not finite.
    """
    grid = np.asarray(attention_map, dtype=np.float64)
    if grid.ndim != 2 or grid.size == 0:
        raise ValueError(f"expected an attention map (height, width), found shape {grid.shape}")
    if not np.isfinite(grid).all() or grid.min() < 0:
        raise ValueError("expected attention weights that are finite and not negative")
    top = max(grid.max(), 2 * grid.mean()) or 1  # all zeros: a word without a gaze, no heat
    spans, box = [], np.zeros((2, 2))  # pixels that were seen; where they lie among the cells
    for axis, length in enumerate(size):  # across, then down
        seen, cells = view.seen[axis::2], view.cells[axis::2]
        # The pixels whose centre was seen, at least one.
        begin = max(math.ceil(seen[0] * length - 0.5), 0)
        end = max(min(math.floor(seen[1] * length + 0.5), length), begin + 1)
        spans.append(slice(begin, end))
        ends = np.array([begin, end]) / length
        box[:, axis] = (ends - cells[0]) / (cells[1] - cells[0]) * grid.shape[1 - axis]
    # Past the edge the cells at the edge go on, so that Pillow's window is full there too.
    edge = 3 + math.ceil(max(0, -box.min(), (box[1] - grid.shape[::-1]).max()))
    padded = Image.fromarray(np.pad(grid / top, edge, mode="edge").astype(np.float32))
    found = np.zeros(size[::-1], np.float32)
    part = (spans[0].stop - spans[0].start, spans[1].stop - spans[1].start)
    place = tuple((box + edge).flatten().tolist())
    found[spans[1], spans[0]] = padded.resize(part, Image.Resampling.BICUBIC, box=place)
    return np.clip(found, 0, 1)


def overlay(
    picture: Image.Image, attention_map: np.ndarray, view: View = WHOLE_VIEW
) -> Image.Image:
    """The picture dimmed where the model did not look, with a warm glow where it did.

    Args:
        picture: of any size; taken upright and laid on white, as models take it.
        attention_map: (h, w) weights.
        view: where they lie on the picture.

    Returns:
        An RGB picture of the same size.

    Raises:
        ValueError: as `heat`.
    """
    picture = open_image(picture)
    level = heat(attention_map, picture.size, view)[..., None]  # (H, W, 1)
    glow = GLOW * level**0.8
    light = (1 - level) * EMBER + level * AMBER
    pixels = (1 - glow) * (SHADE + (1 - SHADE) * level) * np.asarray(picture) + glow * light
    return Image.fromarray(np.rint(np.clip(pixels, 0, 255)).astype(np.uint8))


def resized(picture: Image.Image, side: int) -> Image.Image:
    """Upright RGB on white, the longer side ``side`` pixels, the shorter at least one."""
    picture = open_image(picture)
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _tile(picture: Image.Image, side: int) -> Image.Image:
    """``resized``, a long picture so large that half of ``side`` is left of its shorter side."""
    longest = max(side, round(side / 2 * max(picture.size) / min(picture.size)))
    return resized(picture, min(longest, max(side, PREVIEW)))


# Words on a picture


def one_line(text: str) -> str:
    """``text`` with line breaks made spaces, and what no font or file can hold made ``?``."""
    # A lone surrogate can be encoded in no file.
    return " ".join(str(text).encode("utf-8", "replace").decode("utf-8").split())


def _is_right_to_left(text: str) -> bool:
    """Whether the first letter with a direction runs right to left (Arabic, Hebrew)."""
    directions = (unicodedata.bidirectional(letter) for letter in text)
    return next((d for d in directions if d in ("L", "R", "AL")), "L") != "L"


@lru_cache(maxsize=64)
def _font(size: int, path: str) -> Font:
    """The font file at ``size`` pixels; Pillow's own font (Aileron) for no path."""
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


def _font_for(text: str, size: int) -> Font:
    """A font of ``size`` pixels that has the letters of ``text``, as far as one is at hand."""
    if _is_right_to_left(text) and not features.check_feature("fribidi"):
        _warn_once("right-to-left words are drawn letter by letter from the left: install fribidi")
    letters = frozenset(letter for letter in text if letter.isprintable() and letter != " ")
    return _font(size, "" if text.isascii() else _font_path(letters))


@lru_cache(maxsize=1024)
def _font_path(letters: frozenset[str]) -> str:
    """The first font file that has all letters; DejaVu Sans, with a warning, if none has."""
    paths = _font_paths()
    for path in paths:
        if letters <= _letters_of(path):
            return path
    missing = min(letters - _letters_of(paths[0]))
    script = unicodedata.name(missing, f"U+{ord(missing):X}").split()[0]  # CJK, HANGUL, THAI, ...
    _warn_once(
        f"no font was found for {script} letters, which are drawn as boxes: install one (for "
        "Chinese, Japanese and Korean: Noto Sans CJK), or save the gaze as .html"
    )
    return paths[0]


@lru_cache(maxsize=1)
def _font_paths() -> list[str]:
    """Upright font files of normal weight: DejaVu Sans, then those of the system by name."""
    import matplotlib  # 0.1 s, and only a word outside ASCII needs its fonts
    from matplotlib.font_manager import fontManager

    first = str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    others = sorted(
        (entry.name, entry.fname)
        for entry in fontManager.ttflist
        if (entry.style, entry.weight, entry.size) == ("normal", 400, "scalable")
        and "LastResort" not in entry.fname  # boxes for every letter there is
    )
    return [first, *(path for _, path in others)]


@lru_cache(maxsize=256)
def _letters_of(path: str) -> frozenset[str]:
    """The letters that a font file has; none if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError) as error:
        log.info("%s: cannot be read as a font: %s", path, error)
        return frozenset()


@lru_cache(maxsize=16)
def _warn_once(line: str) -> None:
    log.warning(line)


def _fit(text: str, size: int, width: int) -> tuple[str, Font]:
    """The wording and font with which ``text`` fits ``width`` pixels.

    The size is lowered to ``SMALLEST`` first; what is still too long is cut, and the cut is marked
    with three dots.
    """
    text = one_line(text)
    while size > SMALLEST and _font_for(text, size).getlength(text) > width:
        size -= 1
    font, whole = _font_for(text, size), text
    while text and font.getlength(text) > width:
        whole = whole[:-1]
        text = f"{whole}..." if whole else ""
    return text, font


class _Word(NamedTuple):
    """A word, and where it is drawn: the left end of its base line."""

    text: str
    font: Font
    at: tuple[float, float]

    def draw(self, draw: ImageDraw.ImageDraw, ink: tuple[int, int, int]) -> None:
        draw.text(self.at, self.text, fill=ink, font=self.font, anchor="ls")


def _paragraph(
    words: Sequence[str], size: int, width: int, top: int, margin: int
) -> tuple[list[_Word], int]:
    """Words in lines on a sheet of ``width`` pixels with a margin, below ``top``; and its bottom.

    The words run from the right if the first letter does. Without any the bottom is ``top``.
    """
    line_height = round(size * 1.5)
    right_to_left = _is_right_to_left(" ".join(words))
    placed, x, y = [], float(margin), top + margin + size * 1.1
    for word in words:
        text, font = _fit(word, size, width - 2 * margin)
        length = font.getlength(text)
        if x > margin and x + length > width - margin:
            x, y = float(margin), y + line_height
        placed.append(_Word(text, font, (width - x - length if right_to_left else x, y)))
        x += length + size // 3
    return placed, round(y + line_height - size * 1.1) + margin if placed else top


# Pictures and pages


@dataclass(frozen=True, eq=False)
class Gaze:
    """A picture, words about it, and where the model looked for each.

    Attributes:
        picture: of any size, as for `overlay`.
        words: T words, or names of passes.
        attention: (T, h, w), one map a word.
        title: a line above, for example the question.
        caption: the picture's alternative text on a page; by default the words.
        view: where the maps lie on the picture.

    Raises:
        UsageError: the model has no attention.
        ValueError: the maps do not fit the words.
    """

    picture: Image.Image
    words: Sequence[str]
    attention: np.ndarray | None
    title: str = ""
    caption: str = ""
    view: View = WHOLE_VIEW

    def __post_init__(self) -> None:
        if self.attention is None:
            raise UsageError("this model has no attention to show")
        shape = np.shape(self.attention)
        if len(shape) != 3 or shape[0] != len(self.words) or 0 in shape[1:]:
            raise ValueError(
                f"expected attention ({len(self.words)} words, height, width), found shape {shape}"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file, whole or not at all: a picture, a moving picture or a page by its suffix.

        Args:
            path: ``.png``, ``.jpg``, ``.jpeg`` or ``.webp`` for a `strip`, ``.gif`` or ``.html``;
                missing folders are made, which a warning tells.

        Raises:
            UsageError: another suffix.
            WriteError: the file system refused.
        """
        suffix = Path(path).suffix.lower()
        if suffix not in FORMATS:
            raise UsageError(f"{path}: expected a name that ends in {', '.join(FORMATS)}")
        new = not Path(path).parent.exists()
        with atomic_path(path) as temporary:
            if suffix == ".html":
                temporary.write_text(self.page(), encoding="utf-8")
            elif suffix == ".gif":
                temporary.write_bytes(self.gif())
            else:
                self.strip().save(temporary, quality=92)
        if new:
            log.warning("%s: a new folder was made", Path(path).parent)

    def strip(self, *, columns: int | None = None, side: int = 192) -> Image.Image:
        """The picture, then one overlay a word with the word beneath, in rows.

        The rows run from the right if the words do.

        Args:
            columns: tiles in a row; by default at most six, of wide ones fewer, evenly filled.
            side: the longer side of a tile in pixels; of a picture more than twice as long as high
                more, until the shorter one has half of that.
        """
        small = _tile(self.picture, side)
        tiles = [small, *(overlay(small, m, self.view) for m in self._maps)]
        if columns is None:
            fitting = max(1, 6 * side // max(small.width, side))
            columns = math.ceil(len(tiles) / math.ceil(len(tiles) / fitting))
        columns = min(max(1, columns), len(tiles))
        margin, gap, beneath, size = side // 8, side // 12, side // 5, max(SMALLEST, side // 11)
        # A narrow picture still leaves room for its word.
        cell_width, cell_height = max(small.width, side // 2), small.height + beneath + gap
        width = 2 * margin + columns * cell_width + (columns - 1) * gap
        heading, above = _paragraph(self.title.split(), size + 2, width, 0, margin)
        above = above or margin
        height = above + math.ceil(len(tiles) / columns) * cell_height
        sheet = Image.new("RGB", (width, height), PAPER)
        draw = ImageDraw.Draw(sheet)
        for word in heading:
            word.draw(draw, INK)
        mirrored = _is_right_to_left(" ".join(self.words))
        for number, (tile, label) in enumerate(zip(tiles, ("picture", *self.words), strict=True)):
            row, column = divmod(number, columns)
            column = columns - 1 - column if mirrored else column
            left, top = margin + column * (cell_width + gap), above + row * cell_height
            sheet.paste(tile, (left + (cell_width - tile.width) // 2, top))
            text, font = _fit(label, size, cell_width)
            middle = (left + cell_width / 2, top + tile.height + beneath / 2)
            draw.text(middle, text, fill=INK if number else FAINT, font=font, anchor="mm")
        return sheet

    def gif(self, *, side: int = 360, milliseconds: int = 650) -> bytes:
        """An endless moving picture: one frame a word, with the caption so far beneath.

        Args:
            side: the longer side of the picture in pixels.
            milliseconds: how long a word is shown; the last one stays three times as long.

        Returns:
            The bytes of a GIF file; without words the picture alone.
        """
        small = _tile(self.picture, side)
        width, size, margin = max(small.width, side // 2), max(SMALLEST, side // 18), side // 24
        heading, above = _paragraph(self.title.split(), size, width, 0, margin)
        below = above + small.height
        caption, height = _paragraph(self.words, size, width, below, margin)
        frames = []
        for now, lit in enumerate([overlay(small, m, self.view) for m in self._maps] or [small]):
            frame = Image.new("RGB", (width, height), PAPER)
            frame.paste(lit, ((width - small.width) // 2, above))
            draw = ImageDraw.Draw(frame)
            for word in heading:
                word.draw(draw, INK)
            for index, word in enumerate(caption[: now + 1]):
                word.draw(draw, ACCENT if index == now else INK)
            if caption:
                # How far the caption has come; it also keeps two frames from being the same.
                done = width * (now + 1) // len(caption)
                draw.rectangle((0, below, done, below + 2), fill=ACCENT)
            frames.append(frame)
        times = [milliseconds] * (len(frames) - 1) + [3 * milliseconds]
        buffer = io.BytesIO()
        frames[0].save(
            buffer, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0
        )
        return buffer.getvalue()

    def html(self, *, tiles: bool = False, assets: bool = True, side: int = 640) -> str:
        """A fragment to play with: hover over a word, tap it, or use the arrow keys.

        Nothing is fetched: the picture is a data URI, the maps are numbers, style and script are
        inline. There are no ids, so any number of fragments may stand on one page. All text is
        escaped. For those who do not see it, a live line says the place in words.

        Args:
            tiles: show a small overlay with each word, so that all is seen at a glance.
            assets: put style and script into the fragment; a page of many is smaller with
                ``gaze.css`` once in its head and one `script` after the last fragment.
            side: the longer side of the embedded picture in pixels, at most.
        """
        picture, maps = open_image(self.picture), self._maps
        words = [markup.escape(one_line(word)) or "&nbsp;" for word in self.words]
        title = markup.escape(one_line(self.title))
        fragment = fill(
            "gaze.html",
            kind=" gg-tiled" if tiles else "",
            height=maps.shape[1],
            width=maps.shape[2],
            seen=" ".join(f"{x:.6g}" for x in self.view.seen),
            cells=" ".join(f"{x:.6g}" for x in self.view.cells),
            maps=base64.b64encode(maps.astype("<f4").tobytes()).decode(),
            ratio=f"{picture.width / picture.height:.6g}",
            uri=picture_uri(picture, side),
            alt=markup.escape(self._spoken) or "picture",
            title=f'<p class="gg-title" dir="auto">{title}</p>' if title else "",
            direction="rtl" if _is_right_to_left(self._spoken) else "ltr",
            words=" ".join(
                f'<button type="button" aria-pressed="false"><bdi>{word}</bdi></button>'
                for word in words
            ),
        )
        if assets:
            return f"<style>{template('gaze.css')}</style>\n{fragment}{script()}"
        return fragment

    def page(self) -> str:
        """A whole document with the fragment and its tiles."""
        title = markup.escape(one_line(self.title))
        return fill(
            "page.html",
            title=title or markup.escape(self._spoken) or "gaze",
            style=template("gaze.css"),
            heading=f'<h1 dir="auto">{title}</h1>\n' if title else "",
            body=replace(self, title="").html(tiles=True, assets=False),
            script=script(),
        )

    @property
    def _maps(self) -> np.ndarray:
        return np.asarray(self.attention)

    @property
    def _spoken(self) -> str:
        return one_line(self.caption or " ".join(self.words))


@lru_cache(maxsize=8)
def template(name: str) -> str:
    """The text of a file in ``templates/``."""
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")


def fill(name: str, **values: object) -> str:
    """A file in ``templates/`` with its ``$names`` filled in."""
    return Template(template(name)).substitute(values)


def script() -> str:
    """The element with the script of every fragment: once a page, after the last fragment."""
    return f'<script type="module">{template("gaze.js")}</script>'


def picture_uri(picture: Image.Image, side: int, kind: str = "JPEG", quality: int = 85) -> str:
    """The picture as a JPEG or WEBP data URI, its longer side at most ``side`` pixels."""
    buffer = io.BytesIO()
    resized(picture, min(side, max(picture.size))).save(buffer, kind, quality=quality)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"

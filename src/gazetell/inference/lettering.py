"""Words drawn on a picture: a font that has the letters, a size that fits, lines that wrap.

Pillow's own scalable font (Aileron) is drawn where a word is plain ASCII, and DejaVu Sans, which
comes with matplotlib, where it is not (Latin with accents, Greek, Cyrillic, Arabic, Hebrew). For
other scripts the fonts of the system are searched. Letters that no font has are drawn as boxes,
and a warning says so.
"""

import logging
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont, features

__all__ = ["Font", "fit", "font_for", "is_right_to_left", "one_line", "wrap"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
log = logging.getLogger(__name__)


@lru_cache(maxsize=64)
def _font(size: int, path: str) -> Font:
    """The font file at ``size`` pixels; Pillow's own font for no path."""
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


def font_for(text: str, size: int) -> Font:
    """A font of ``size`` pixels that has the letters of ``text``, as far as one is at hand."""
    if is_right_to_left(text) and not features.check_feature("fribidi"):
        _say_once("right-to-left words are drawn letter by letter from the left: install fribidi")
    letters = frozenset(letter for letter in text if letter.isprintable() and letter != " ")
    return _font(size, "" if text.isascii() else _path_for(letters))


@lru_cache(maxsize=1024)
def _path_for(letters: frozenset[str]) -> str:
    """The first font file that has all letters, DejaVu Sans tried first; else DejaVu Sans."""
    paths = _font_paths()
    for path in paths:
        if letters <= _letters_of(path):
            return path
    missing = min(letters - _letters_of(paths[0]))
    script = unicodedata.name(missing, f"U+{ord(missing):X}").split()[0]  # CJK, HANGUL, THAI, ...
    _say_once(
        f"no font was found for {script} letters, which are drawn as boxes: install one (for "
        "Chinese, Japanese and Korean: Noto Sans CJK), or save the gaze as .html"
    )
    return paths[0]


@lru_cache(maxsize=1)
def _font_paths() -> list[str]:
    """Upright font files of normal weight: DejaVu Sans, then those of the system by name."""
    import matplotlib  # 0.1 s, and only a word outside ASCII needs it
    from matplotlib.font_manager import fontManager

    first = str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    others = sorted(
        (entry.name, entry.fname)
        for entry in fontManager.ttflist
        if (entry.style, entry.weight, entry.size) == ("normal", 400, "scalable")
        and "LastResort" not in entry.fname  # boxes for every letter there is
    )
    return list(dict.fromkeys((first, *(path for _, path in others))))


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
def _say_once(line: str) -> None:
    log.warning(line)


def one_line(text: str) -> str:
    """``text`` with line breaks made spaces, and what no font or file can hold made ``?``."""
    # A lone surrogate can be encoded in no file.
    return " ".join(str(text).encode("utf-8", "replace").decode("utf-8").split())


def is_right_to_left(text: str) -> bool:
    """Whether the first letter with a direction runs right to left (Arabic, Hebrew)."""
    for letter in text:
        direction = unicodedata.bidirectional(letter)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return False


def fit(text: str, size: int, width: int, smallest: int = 11) -> tuple[Font, str]:
    """The font and wording with which ``text`` fits ``width`` pixels.

    The size is lowered from ``size`` to ``smallest`` first; what is still too long is cut, and
    the cut is marked with three dots.
    """
    text = one_line(text)
    font = font_for(text, size)
    while size > smallest and font.getlength(text) > width:
        size -= 1
        font = font_for(text, size)
    shown = text
    while shown and font.getlength(shown) > width:
        text = text[:-1]
        shown = f"{text}..." if text else ""
    return font, shown


def wrap(words: Sequence[str], size: int, width: int, space: int) -> list[list[int]]:
    """Indices of ``words`` line by line, as many on a line as fit ``width`` pixels.

    A word wider than a line has a line of its own. ``space`` is the gap between words.
    """
    lines: list[list[int]] = []
    used = 0.0
    for index, word in enumerate(words):
        length = font_for(word, size).getlength(word)
        if lines and used + space + length <= width:
            lines[-1].append(index)
            used += space + length
        else:
            lines.append([index])
            used = length
    return lines

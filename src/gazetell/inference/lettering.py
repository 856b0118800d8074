"""Words drawn on a picture: a font that has the letters, a size that fits, lines that wrap.

Pillow's own scalable font (Aileron) is drawn where a word is plain ASCII, and DejaVu Sans, which
comes with matplotlib, where it is not (Latin with accents, Greek, Cyrillic, Arabic, Hebrew). A
script that neither knows is drawn as boxes, never an error.
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

__all__ = ["Font", "fit", "font_for", "is_right_to_left", "one_line", "wrap"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@lru_cache(maxsize=64)
def _font(size: int, ascii_only: bool) -> Font:
    """One of the two fonts at ``size`` pixels."""
    if not ascii_only:
        import matplotlib  # 0.1 s, and only a word outside ASCII needs it

        path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def font_for(text: str, size: int) -> Font:
    """A font of ``size`` pixels that has the letters of ``text``, as far as one is at hand."""
    return _font(size, text.isascii())


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

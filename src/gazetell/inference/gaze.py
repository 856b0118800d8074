"""Where the model looked for each word: a strip, a moving picture, a live page, a file.

The look of a single word is in ``maps``: how attention becomes heat, and heat light on the
picture. This module lays the words of a caption out: a strip to print, a GIF to show, and an HTML
page or fragment to play with (hover, tap, arrow keys), complete in itself: nothing is fetched.

Shapes: ``T`` words, ``h, w`` the grid, ``H, W`` the picture in pixels.
"""

import base64
import html as markup
import io
import math
import os
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image, ImageDraw

from ..errors import UsageError
from ..files import atomic_path, write_text
from ..pictures import open_image
from .lettering import fit, font_for, is_right_to_left, one_line, wrap
from .maps import checked_maps, heat, overlay, resized, veil, where

__all__ = [
    "FORMATS",
    "gif",
    "heat",
    "html",
    "overlay",
    "picture_uri",
    "save",
    "script",
    "strip",
    "style",
    "template",
    "where",
]

# What `save` writes, by suffix: Pillow's name of the format, or HTML.
FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".html": "HTML",
}

GRAIN = 28  # cells on the longer side of a map in a page, at least
PAPER, INK, FAINT, ACCENT = (250, 249, 246), (38, 36, 33), (150, 145, 137), (194, 84, 10)


def strip(
    picture: Image.Image,
    words: Sequence[str],
    attention: np.ndarray | None,
    *,
    title: str | None = None,
    columns: int | None = None,
    side: int = 192,
) -> Image.Image:
    """The picture, then one overlay a word with the word beneath, in rows.

    Args:
        picture: of any size.
        words: T words.
        attention: (T, h, w), one map a word.
        title: a line above, for example the caption.
        columns: tiles in a row; by default at most six, evenly filled.
        side: the longer side of a tile in pixels.

    Raises:
        UsageError: the model has no attention.
        ValueError: the maps do not fit the words.
    """
    maps = checked_maps(words, attention)
    small = resized(picture, side)
    tiles = [small, *(overlay(small, one) for one in maps)]
    labels = ["picture", *words]
    if columns is None:
        columns = math.ceil(len(tiles) / math.ceil(len(tiles) / 6))
    columns = min(max(1, columns), len(tiles))
    rows = math.ceil(len(tiles) / columns)
    margin, gap, label_height = side // 8, side // 12, side // 5
    text_size = max(11, side // 11)
    # A narrow picture still leaves room for its word.
    cell_width, cell_height = max(small.width, side // 2), small.height + label_height
    width = 2 * margin + columns * cell_width + (columns - 1) * gap
    right_to_left = is_right_to_left(" ".join(words) or title or "")
    title_words = one_line(title or "").split()
    title_size = round(text_size * 1.15)
    title_lines = wrap(title_words, title_size, width - 2 * margin, title_size // 3)
    line_height = round(title_size * 1.45)
    above = margin + len(title_lines) * line_height + (gap if title_lines else 0)
    height = above + rows * cell_height + (rows - 1) * gap + margin - label_height // 4

    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(title_lines):
        text = " ".join(title_words[index] for index in line)
        font, text = fit(text, title_size, width - 2 * margin)
        x, anchor = (width - margin, "ra") if right_to_left else (margin, "la")
        draw.text((x, margin + number * line_height), text, fill=INK, font=font, anchor=anchor)
    for number, (tile, label) in enumerate(zip(tiles, labels, strict=True)):
        row, column = divmod(number, columns)
        column = columns - 1 - column if right_to_left else column
        left, top = margin + column * (cell_width + gap), above + row * (cell_height + gap)
        sheet.paste(tile, (left + (cell_width - tile.width) // 2, top))
        font, text = fit(label, text_size, cell_width)
        middle = (left + cell_width / 2, top + tile.height + label_height / 2)
        draw.text(middle, text, fill=INK if number else FAINT, font=font, anchor="mm")
    return sheet


def gif(
    picture: Image.Image,
    words: Sequence[str],
    attention: np.ndarray | None,
    *,
    title: str | None = None,
    side: int = 360,
    milliseconds: int = 650,
) -> bytes:
    """An endless moving picture: one frame a word, with the caption so far beneath.

    Args:
        picture: of any size.
        words: T words; without words the picture stands alone.
        attention: (T, h, w), one map a word.
        title: lines above the picture.
        side: the longer side of the picture in pixels.
        milliseconds: how long a word is shown; the last one stays three times as long.

    Returns:
        The bytes of a GIF file.

    Raises:
        UsageError: the model has no attention.
        ValueError: the maps do not fit the words.
    """
    maps = checked_maps(words, attention)
    small = resized(picture, side)
    width, size = max(small.width, side // 2), max(11, side // 18)
    margin, line_height, space = side // 24, round(size * 1.5), size // 3
    shown = [fit(word, size, width - 2 * margin)[1] for word in words]
    lines = wrap(shown, size, width - 2 * margin, space)
    title_words = one_line(title or "").split()
    title_lines = wrap(title_words, size, width - 2 * margin, space)
    above = len(title_lines) * line_height + 2 * margin if title_lines else 0
    below = above + small.height
    height = below + (2 * margin + len(lines) * line_height if lines else 0)
    places: list[tuple[float, float]] = []  # left end of each word on its baseline
    right_to_left = is_right_to_left(" ".join(shown))
    for number, line in enumerate(lines):
        x: float = margin
        for index in line:
            length = font_for(shown[index], size).getlength(shown[index])
            y = below + margin + number * line_height + size * 1.1
            places.append((width - x - length if right_to_left else x, y))
            x += length + space

    frames = []
    for now in range(len(shown)):
        frame = Image.new("RGB", (width, height), PAPER)
        frame.paste(overlay(small, maps[now]), ((width - small.width) // 2, above))
        draw = ImageDraw.Draw(frame)
        for number, line in enumerate(title_lines):
            font, text = fit(" ".join(title_words[n] for n in line), size, width - 2 * margin)
            draw.text((margin, margin + number * line_height), text, fill=INK, font=font)
        # How far the caption has come; it also keeps two frames from being the same.
        along = round(width * (now + 1) / len(shown))
        draw.rectangle((0, below, along, below + 2), fill=ACCENT)
        for index in range(now + 1):
            font, ink = font_for(shown[index], size), ACCENT if index == now else INK
            draw.text(places[index], shown[index], fill=ink, font=font, anchor="ls")
        frames.append(frame)
    frames = frames or [small]
    durations = [milliseconds] * (len(frames) - 1) + [3 * milliseconds]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0
    )
    return buffer.getvalue()


@lru_cache(maxsize=8)
def template(name: str) -> str:
    """The text of a file in ``templates/``."""
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")


def picture_uri(picture: Image.Image, side: int) -> str:
    """The picture as a JPEG data URI, its longer side at most ``side`` pixels."""
    small = resized(picture, min(side, max(picture.size)))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def style() -> str:
    """The style sheet of every fragment, once a page."""
    return template("gaze.css")


@lru_cache(maxsize=1)
def script() -> str:
    """The script of every fragment, once a page and after the last fragment."""
    kept, added = veil()
    # One layer of colour and opacity that does the same as kept and added.
    opacity = 1 - kept[:, None]
    layer = np.rint(np.concatenate((added / opacity, 255 * opacity), axis=1)).astype(np.uint8)
    return Template(template("gaze.js")).substitute(veil=base64.b64encode(layer.tobytes()).decode())


def html(
    picture: Image.Image,
    words: Sequence[str],
    attention: np.ndarray | None,
    *,
    title: str | None = None,
    caption: str | None = None,
    page: bool = False,
    tiles: bool = False,
    with_assets: bool = True,
    side: int = 640,
) -> str:
    """Hover over a word, tap it or go through them with the arrow keys: see where it looked.

    Nothing is fetched: the picture is a data URI, the maps are 8-bit numbers, style and script
    are inline. Fragments carry no ids, so any number of them may stand on one page. Words and
    title are escaped. For those who do not see it, a live line says the place in words.

    Args:
        picture: of any size.
        words: T words.
        attention: (T, h, w), one map a word.
        title: a line above the words.
        caption: the picture's alternative text; by default the words.
        page: a whole document instead of a fragment.
        tiles: show a small overlay with each word, so that all is seen at a glance.
        with_assets: put style and script into the fragment; a page of many fragments is smaller
            with one `style` in its head and one `script` after the last fragment.
        side: the longer side of the embedded picture in pixels, at most.

    Raises:
        UsageError: the model has no attention.
        ValueError: the maps do not fit the words.
    """
    maps = checked_maps(words, attention)
    picture = open_image(picture)
    words = [one_line(word) for word in words]
    height, width = maps.shape[1:]
    # Finer than the grid, so that a browser's bilinear scaling looks smooth.
    times = max(1, math.ceil(GRAIN / max(height, width)))
    size = (width * times, height * times)
    levels = [np.rint(heat(one, size) * 255).astype(np.uint8).tobytes() for one in maps]
    caption = one_line(caption or " ".join(words))
    level, heading = "h1" if page else "p", ""
    if title:
        heading = f'<{level} class="gg-title" dir="auto">{markup.escape(one_line(title))}</{level}>'
    fill = Template(template("gaze.html")).substitute
    fragment = fill(
        kind=" gg-tiled" if tiles else "",
        columns=size[0],
        rows=size[1],
        maps=base64.b64encode(b"".join(levels)).decode(),
        ratio=f"{picture.width / picture.height:.6g}",
        uri=picture_uri(picture, side),
        alt=markup.escape(caption or "picture"),
        title=heading,
        direction="rtl" if is_right_to_left(caption) else "ltr",
        words=" ".join(
            f'<button type="button" aria-pressed="false" data-where="{where(one)}">'
            f"<bdi>{markup.escape(word) or '&nbsp;'}</bdi></button>"
            for word, one in zip(words, maps, strict=True)
        ),
    )
    if page:
        return Template(template("page.html")).substitute(
            title=markup.escape(one_line(title or caption) or "gaze"),
            style=style(),
            body=fragment,
            script=script(),
        )
    if with_assets:
        return f"<style>{style()}</style>\n{fragment}<script>{script()}</script>"
    return fragment


def save(
    path: str | os.PathLike[str],
    picture: Image.Image,
    words: Sequence[str],
    attention: np.ndarray | None,
    *,
    title: str | None = None,
) -> None:
    """Write the gaze to a file whose suffix says what it is.

    ``.png``, ``.jpg``, ``.jpeg`` and ``.webp`` are a `strip`, ``.gif`` a moving picture and
    ``.html`` a live page. The file appears whole or not at all.

    Args:
        path: where to write; missing folders are made.
        picture: of any size.
        words: T words.
        attention: (T, h, w), one map a word.
        title: a line above the strip or the moving picture, or on the page.

    Raises:
        UsageError: another suffix, or the model has no attention.
        WriteError: the file system refused.
        ValueError: the maps do not fit the words.
    """
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise UsageError(f"{path}: cannot be written; expected a name in {', '.join(FORMATS)}")
    if kind == "HTML":
        write_text(path, html(picture, words, attention, title=title, page=True, tiles=True))
        return
    if kind == "GIF":
        content = gif(picture, words, attention, title=title)
    else:
        buffer = io.BytesIO()
        sheet = strip(picture, words, attention, title=title)
        sheet.save(buffer, kind, **({} if kind == "PNG" else {"quality": 92}))
        content = buffer.getvalue()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)

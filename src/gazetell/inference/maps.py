"""Attention as light on a picture: heat, an overlay, and the same in words.

Attention as in Xu et al. 2015, "Show, Attend and Tell" (arXiv:1502.03044): for each word a
weight for each cell of the grid, summing to 1. The maps cover the whole picture, row 0 on top.

Heat is linear in attention, so that half the weight is half as hot:

    heat = attention / max(peak of this word, 2 / R)

The peak of a word that was looked for somewhere is 1. The second term is twice the level of a
map that is the same everywhere: such a map is 0.5 all over, and a map that hardly differs from
it stays pale instead of having its noise blown up to full contrast. Between cells the heat
follows a cubic (Catmull and Rom 1974, "A class of local interpolating splines"), so that it runs
smoothly and has each cell's own value at the cell's centre: blurring would look as soft, but
would favour cells at the edge of the picture.

Shapes: ``T`` words, ``h, w`` the grid (``R = h * w`` cells), ``H, W`` the picture in pixels.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UsageError
from ..pictures import open_image

__all__ = ["checked_maps", "heat", "overlay", "resized", "veil", "where"]

SHADE = 0.24  # brightness that is left of the picture where it did not look
GLOW = 0.34  # share of the glow's colour at the peak
EMBER, AMBER = (255.0, 104.0, 16.0), (255.0, 206.0, 96.0)  # the glow, from faint to full


@lru_cache(maxsize=1)
def veil() -> tuple[np.ndarray, np.ndarray]:
    """What lies over the picture at heat 0, 1/255, ..., 1.

    Returns:
        kept: (256,) the share of the picture that shows through.
        added: (256, 3) the light added to it, 0 to 255: ``pixel = kept * pixel + added``.
    """
    level = np.linspace(0, 1, 256)
    glow = GLOW * level**0.8
    colour = np.outer(1 - level, EMBER) + np.outer(level, AMBER)  # (256, 3)
    return (1 - glow) * (SHADE + (1 - SHADE) * level), glow[:, None] * colour


def _along(values: np.ndarray, size: int) -> np.ndarray:
    """Cubic through the rows of ``values (n, k)``, taken at ``size`` pixel centres: (size, k)."""
    n = len(values)
    values = np.pad(values, ((1, 1), (0, 0)), mode="edge")  # (n + 2, k): past the edge, the same
    slope = np.gradient(values, axis=0)
    # Pixel and cell edges coincide: the centre of cell i lies at i + 0.5 cells, row i + 1 here.
    position = (np.arange(size) + 0.5) * n / size + 0.5
    left = position.astype(int)
    t = (position - left)[:, None]
    # Cubic Hermite basis on [0, 1].
    return (
        (1 + 2 * t) * (1 - t) ** 2 * values[left]
        + t * (1 - t) ** 2 * slope[left]
        + t**2 * (3 - 2 * t) * values[left + 1]
        + t**2 * (t - 1) * slope[left + 1]
    )


def _grid(attention_map: Any) -> np.ndarray:
    """One map as float64 ``(h, w)``."""
    grid = np.asarray(attention_map, dtype=np.float64)
    if grid.ndim != 2 or grid.size == 0:
        raise ValueError(f"expected an attention map (height, width), found shape {grid.shape}")
    if not np.isfinite(grid).all() or grid.min() < 0:
        raise ValueError("expected attention weights that are finite and not negative")
    return grid


def checked_maps(words: Sequence[str], attention: Any) -> np.ndarray:
    """The maps as ``(T, h, w)``, one for each of ``words``."""
    if attention is None:
        raise UsageError("this model has no attention to show")
    maps = np.asarray(attention)
    if maps.ndim != 3 or len(maps) != len(words) or 0 in maps.shape[1:]:
        raise ValueError(
            f"expected attention ({len(words)} words, height, width), found shape {maps.shape}"
        )
    return maps


def heat(attention_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Spread one word's attention smoothly over a picture.

    Args:
        attention_map: (h, w) weights, row 0 on top. Their scale does not matter.
        size: (width, height) of the picture in pixels, as Pillow gives it.

    Returns:
        float64 (H, W) in [0, 1], linear in attention; see the head of this module.

    Raises:
        ValueError: not two axes, no cells, or a weight that is negative or not finite.
    """
    grid = _grid(attention_map)
    top = max(grid.max(), 2 * grid.mean())
    if top > 0:  # all zeros is a map of a word without a gaze: no heat
        grid = grid / top
    width, height = size
    across = _along(grid.T, width)  # (W, h)
    return np.clip(_along(across.T, height), 0, 1)  # (H, W)


def where(attention_map: np.ndarray) -> str:
    """Say where a map looks, for those who do not see it: ``"mostly upper left"``.

    The ninth of the picture in which the peak lies, weighed with the cells around it;
    ``"spread over the picture"`` where the peak is not above twice the level of a map that is the
    same everywhere.

    Args:
        attention_map: (h, w) weights, row 0 on top.

    Raises:
        ValueError: as `heat`.
    """
    grid = _grid(attention_map)
    if grid.max() <= 2 * grid.mean():
        return "spread over the picture"
    height, width = grid.shape
    row, column = divmod(int(grid.argmax()), width)
    top, left = max(row - 1, 0), max(column - 1, 0)
    near = grid[top : row + 2, left : column + 2]
    near = near / near.sum()
    y = top + near.sum(axis=1) @ (np.arange(near.shape[0]) + 0.5)
    x = left + near.sum(axis=0) @ (np.arange(near.shape[1]) + 0.5)
    down = ("upper", "", "lower")[min(2, int(3 * y / height))]
    across = ("left", "", "right")[min(2, int(3 * x / width))]
    return f"mostly {' '.join(filter(None, (down, across))) or 'the middle'}"


def overlay(picture: Image.Image, attention_map: np.ndarray) -> Image.Image:
    """The picture dimmed where the model did not look, with a warm glow where it did.

    Args:
        picture: of any size; taken upright and laid on white, as models take it.
        attention_map: (h, w) weights over the whole picture.

    Returns:
        An RGB picture of the same size.

    Raises:
        ValueError: as `heat`.
    """
    picture = open_image(picture)
    kept, added = veil()
    index = np.rint(heat(attention_map, picture.size) * 255).astype(np.uint8)  # (H, W)
    pixels = np.asarray(picture) * kept[index][..., None] + added[index]
    return Image.fromarray(np.rint(np.clip(pixels, 0, 255)).astype(np.uint8))


def resized(picture: Image.Image, side: int) -> Image.Image:
    """Upright RGB on white, the longer side ``side`` pixels, the shorter at least one."""
    picture = open_image(picture)
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)

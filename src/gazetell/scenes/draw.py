"""Drawing a scene: smooth edges, a muted pattern behind, a little noise over all.

Each thing is drawn as a mask at three times the size and reduced, which is as good as drawing the
whole picture large and about five times as fast.
"""

import math
import random
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from .world import FILL, HOLE, Background, Scene, Thing, outline

SIDE = 128
OVER = 3  # supersampling
RIM = 0.013  # width of the darker rim, in fractions of the side


def draw(scene: Scene, size: int = SIDE) -> Image.Image:
    """The picture of a scene, RGB, ``size`` by ``size`` pixels.

    The same scene gives the same pixels; a larger size gives the same picture in more detail.
    """
    picture = _background(scene.background, size)
    for thing in scene.things:
        _stamp(picture, thing, size)
    return _noisy(picture, scene.background)


def _stamp(picture: Image.Image, thing: Thing, size: int) -> None:
    """Draw one thing: its figure in a darker colour, then a smaller one in its own."""
    reach = thing.radius + 2 / size
    left, top = math.floor((thing.x - reach) * size), math.floor((thing.y - reach) * size)
    side = math.ceil(2 * reach * size) + 1
    rim = tuple(round(level * 0.62) for level in thing.rgb)
    for colour, shrink in ((rim, 0.0), (thing.rgb, RIM)):
        mask = Image.new("L", (side * OVER, side * OVER))
        _figure(ImageDraw.Draw(mask), thing, size, left, top, shrink)
        small = mask.reduce(OVER)
        picture.paste(colour, (left, top, left + side, top + side), small)


def _figure(
    pen: ImageDraw.ImageDraw, thing: Thing, size: int, left: int, top: int, shrink: float
) -> None:
    def spot(x: float, y: float) -> tuple[float, float]:
        # Pillow draws on pixel centres: the half keeps the figure where its box says it is.
        return (x * size - left) * OVER - 0.5, (y * size - top) * OVER - 0.5

    def disc(radius: float, fill: int) -> None:
        (x, y), reach = spot(thing.x, thing.y), radius * size * OVER
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=fill)

    if thing.shape in FILL:
        reach = thing.radius * FILL[thing.shape]
        disc(reach - shrink, 255)
        if thing.shape == "ring":
            disc(reach * HOLE + shrink, 0)
        return
    inner = 1 - SHRINK[thing.shape] * shrink / thing.radius
    corners = outline(thing)
    pen.polygon([spot(thing.x + (x - thing.x) * inner, thing.y + (y - thing.y) * inner)
                 for x, y in corners], fill=255)  # fmt: skip


# Radius lost for one unit of rim: the ratio of the circles around and inside the figure.
SHRINK = {"square": 1.41, "triangle": 2.0, "star": 2.0, "cross": 1.3}


def _background(back: Background, size: int) -> Image.Image:
    if back.pattern == "plain":
        return Image.new("RGB", (size, size), back.low)
    if back.pattern == "speckled":
        dots = random.Random(back.seed).randbytes(36 * 36)
        fine = Image.frombytes("L", (36, 36), dots).resize((size, size), Image.Resampling.BICUBIC)
        mix = fine.point(_STEEP)
    else:
        mix = Image.fromarray(_pattern(back, size))
    low, high = (Image.new("RGB", mix.size, colour) for colour in (back.low, back.high))
    return Image.composite(high, low, mix)


# Grey levels of smooth noise to speckles with soft edges.
_STEEP = [max(0, min(255, (level - 150) * 6)) for level in range(256)]


def _pattern(back: Background, size: int) -> np.ndarray:
    """Mixing levels 0 to 255 (size, size) of a gradient, stripes or checks."""
    turn = math.radians(back.angle)
    across = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    u = across[None, :] * math.cos(turn) + across[:, None] * math.sin(turn)
    if back.pattern == "shaded":
        return np.asarray((u / 1.42 + 0.5) * 255, dtype=np.uint8)
    wave = np.sin(u * np.float32(math.tau / back.scale))
    if back.pattern == "checkered":
        v = across[:, None] * math.cos(turn) - across[None, :] * math.sin(turn)
        wave *= np.sin(v * np.float32(math.tau / back.scale))
    # Steep enough for an edge, soft enough not to be jagged.
    return np.asarray(np.clip(wave * 500 + 128, 0, 255), dtype=np.uint8)


def _noisy(picture: Image.Image, back: Background) -> Image.Image:
    rows = _noise(picture.width, back.noise)
    shift = random.Random(back.seed ^ 1)
    left, top = shift.randrange(_SPARE), shift.randrange(_SPARE)
    piece = rows.crop((left, top, left + picture.width, top + picture.height))
    return ImageChops.add(picture, piece, scale=1.0, offset=-128)


_SPARE = 160


@lru_cache(maxsize=8)
def _noise(side: int, deviation: int) -> Image.Image:
    """A sheet of noise around 128, larger than a picture; each picture takes its own piece."""
    # RandomState: its stream is frozen for all numpy versions, that of default_rng is not.
    levels = np.random.RandomState(side * 100 + deviation).normal(
        128, deviation, (side + _SPARE, side + _SPARE, 3)
    )
    return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))

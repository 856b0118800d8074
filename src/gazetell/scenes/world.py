"""The scenes: things on a background, where things are, and how scenes are drawn by lot.

A scene is the whole truth about a picture: captions, questions, boxes and the judge all read it,
and nothing reads the pixels. Positions and lengths are fractions of the picture's side, origin
top left, x to the right and y down.

Scenes are split by content. The content of a scene says of each thing its size, colour, shape and
quarter of the picture; a hash of it, which depends on no seed, says to which split the content
belongs. A scene of the test split therefore never has the content of any training scene, of this
dataset or of one made with another seed; every single colour and shape occurs in all splits.

One definition of places and relations serves the captions and the judge. Captions are only made
of what holds with a margin (``clear=True``); the judge asks for none.

Relation. A group of things is *left of* another when every centre of the first lies left of every
centre of the second, and the line between the two groups' mean centres is at most about 63 degrees
off the horizontal: it goes at least half as far to the right as it goes up or down. Likewise right,
above and below. Clear: every pair differs by 0.07 of the side, and the line goes 1.25 times as far
along as across.

Place. *On the left* is a centre in the left half, *at the top left* in the top left quarter, *in
the corner* within 0.42 of both sides of it, *in the middle* within 0.12 of the middle both ways.

Between. A thing is between two others when it sees them at least 120 degrees apart (clear: 145).
"""

import colorsys
import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DataError, UsageError

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = ("small", "large")
BACKGROUNDS = ("plain", "shaded", "striped", "checkered", "speckled")

# Hue in degrees and its jitter, saturation, value. Neighbours in hue differ in lightness too.
COLOURS: dict[str, tuple[float, float, float, float]] = {
    "red": (356, 4, 0.84, 0.83),
    "orange": (26, 4, 0.92, 0.96),
    "yellow": (52, 4, 0.80, 0.96),
    "green": (132, 12, 0.70, 0.60),
    "blue": (214, 7, 0.80, 0.84),
    "purple": (276, 6, 0.60, 0.70),
    "pink": (332, 6, 0.40, 0.98),
}

# Radius of the circle around a thing, in fractions of the side (pixels of 128 in the numerator).
RADII = {"small": (17 / 128, 19 / 128), "large": (28 / 128, 31 / 128)}
GAP, MARGIN = 3 / 128, 2 / 128
# How far a thing may be turned, in degrees; a cross turned by 45 would be another figure.
TURN = {"circle": 0, "ring": 0, "square": 12, "triangle": 15, "star": 12, "cross": 12}

BACKGROUND_WEIGHTS = dict(zip(BACKGROUNDS, (40, 24, 12, 12, 12), strict=True))
COUNT_WEIGHTS = {1: 35, 2: 35, 3: 18, 4: 12}
# How many things of each kind a scene of so many things has, with weights.
PATTERNS: dict[int, dict[tuple[int, ...], int]] = {
    1: {(1,): 1},
    2: {(1, 1): 75, (2,): 25},
    3: {(2, 1): 45, (1, 1, 1): 35, (3,): 20},
    4: {(2, 2): 35, (3, 1): 25, (4,): 15, (1, 1, 1, 1): 15, (2, 1, 1): 10},
}
SHARES = (("train", 0.76), ("val", 0.88), ("test", 1.0))  # cumulative shares of all contents

Kind = tuple[str, str]  # colour, shape

CLEAR = 0.06
# place -> (left -1, right +1, either 0), (top -1, bottom +1, either 0)
PLACES: dict[str, tuple[int, int]] = {
    "top left": (-1, -1),
    "top right": (1, -1),
    "bottom left": (-1, 1),
    "bottom right": (1, 1),
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
    "middle": (0, 0),
}
# relation -> axis (0: x, 1: y) and direction from the first to the second
WAYS = {"left": (0, 1), "right": (0, -1), "above": (1, 1), "below": (1, -1)}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
# relation -> the side of the picture it points to
EDGE = {"left": "left", "right": "right", "above": "top", "below": "bottom"}

# Round figures stay inside the circle around a thing, so that all figures look equally large.
FILL = {"circle": 0.84, "ring": 0.86}
HOLE = 0.52  # inner radius of a ring, as a part of the outer


@dataclass(frozen=True)
class Thing:
    """One object: what it is, and where and how it is drawn.

    ``x, y`` is the centre and ``radius`` that of the circle around it, in fractions of the
    picture's side; ``angle`` in degrees clockwise; ``rgb`` its colour, 0 to 255.
    """

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    angle: float
    rgb: tuple[int, int, int]


def outline(thing: Thing) -> list[tuple[float, float]]:
    """The corners of a thing in picture fractions; none for a circle or ring."""
    turn, radius = math.radians(thing.angle), thing.radius
    return [
        (
            thing.x + radius * (length * math.sin(math.radians(corner) + turn)),
            thing.y + radius * (-length * math.cos(math.radians(corner) + turn)),
        )
        for corner, length in FIGURES[thing.shape]
    ]


def _cross() -> list[tuple[float, float]]:
    half, reach = 0.29, 0.92
    arm, tip = math.hypot(half, reach), math.degrees(math.atan2(half, reach))
    corners: list[tuple[float, float]] = []
    for quarter in (0, 90, 180, 270):
        corners += [(quarter - tip, arm), (quarter + tip, arm)]
        corners.append((quarter + 45, half * math.sqrt(2)))
    return corners


# Corners as (degrees clockwise from the top, distance from the centre in radii).
FIGURES: dict[str, list[tuple[float, float]]] = {
    "circle": [],
    "ring": [],
    "square": [(at, 1.0) for at in (45, 135, 225, 315)],
    "triangle": [(at, 1.0) for at in (0, 120, 240)],
    "star": [(36 * tip, 1.0 if tip % 2 == 0 else 0.44) for tip in range(10)],
    "cross": _cross(),
}


def extent(thing: Thing) -> tuple[float, float, float, float]:
    """The box around a thing: x0, y0, x1, y1 in picture fractions."""
    corners = outline(thing)
    if not corners:
        reach = thing.radius * FILL[thing.shape]
        return thing.x - reach, thing.y - reach, thing.x + reach, thing.y + reach
    across, down = [u for u, _ in corners], [v for _, v in corners]
    return min(across), min(down), max(across), max(down)


def holds(
    relation: str, first: Sequence[Thing], second: Sequence[Thing], *, clear: bool = False
) -> bool:
    """Whether ``first`` is left of, right of, above or below ``second`` (see the module)."""
    axis, sign = WAYS[relation]
    gap, ratio = (0.07, 1.25) if clear else (0.0, 0.5)
    ones, others = [(one.x, one.y) for one in first], [(one.x, one.y) for one in second]
    nearest = min(sign * (b[axis] - a[axis]) for a in ones for b in others)
    along = sign * (_mean(others, axis) - _mean(ones, axis))
    across = abs(_mean(others, 1 - axis) - _mean(ones, 1 - axis))
    return nearest > gap and along >= ratio * across


def _mean(points: list[tuple[float, float]], axis: int) -> float:
    return sum(point[axis] for point in points) / len(points)


def at(place: str, thing: Thing, *, corner: bool = False, clear: bool = False) -> bool:
    """Whether a thing's centre is at a place of the picture (see the module)."""
    across, down = thing.x - 0.5, thing.y - 0.5
    margin = CLEAR if clear else 0.0
    if place == "middle":
        return max(abs(across), abs(down)) <= 0.12 - margin
    bound = (0.08 if corner else 0.0) + margin
    horizontal, vertical = PLACES[place]
    return (not horizontal or across * horizontal > bound) and (
        not vertical or down * vertical > bound
    )


def place_of(thing: Thing) -> str | None:
    """The one place that tells best where a thing is, or None when that is not clear.

    Clear is a centre in the corner of both sides, or beside one side and central along it, or in
    the middle.
    """
    sides = tuple(
        0 if abs(offset) <= 0.12 - CLEAR
        else None if abs(offset) <= 0.08 + CLEAR
        else math.copysign(1, offset)
        for offset in (thing.x - 0.5, thing.y - 0.5)
    )  # fmt: skip
    return next((name for name, known in PLACES.items() if known == sides), None)


def outermost(things: Sequence[Thing]) -> tuple[str, Thing, Thing]:
    """The two ends of the longer way across things: "left" or "above", the first, the last."""
    by_x, by_y = sorted(things, key=lambda one: one.x), sorted(things, key=lambda one: one.y)
    across = by_x[-1].x - by_x[0].x >= by_y[-1].y - by_y[0].y
    return ("left", by_x[0], by_x[-1]) if across else ("above", by_y[0], by_y[-1])


def between(thing: Thing, one: Thing, other: Thing, *, clear: bool = False) -> bool:
    """Whether a thing lies between two others (see the module)."""
    a, b = (one.x - thing.x, one.y - thing.y), (other.x - thing.x, other.y - thing.y)
    lengths = math.hypot(*a) * math.hypot(*b)
    if not lengths:
        return False
    cosine = (a[0] * b[0] + a[1] * b[1]) / lengths
    return cosine <= math.cos(math.radians(145 if clear else 120))


@dataclass(frozen=True)
class Background:
    """What is behind the things: a pattern in two muted colours.

    ``angle`` in degrees, ``scale`` is the period of the pattern as a fraction of the side,
    ``seed`` fixes the speckles and the noise, ``noise`` is its standard deviation in grey levels.
    """

    pattern: str
    low: tuple[int, int, int]
    high: tuple[int, int, int]
    angle: float
    scale: float
    noise: int
    seed: int


@dataclass(frozen=True)
class Scene:
    """The truth of one picture."""

    things: tuple[Thing, ...]
    background: Background

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"things": [vars(one) for one in self.things], "background": vars(self.background)}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> "Scene":
        """The scene of ``to_dict``.

        Raises:
            DataError: a field is missing, has the wrong shape or an unknown word.
        """
        try:
            things = tuple(Thing(**{**one, "rgb": tuple(one["rgb"])}) for one in row["things"])
            back = row["background"]
            colours = {name: tuple(back[name]) for name in ("low", "high")}
            scene = cls(things, Background(**{**back, **colours}))
        except (KeyError, TypeError) as error:
            raise DataError(f"is not a scene: {error}") from error
        for one in things:
            if one.shape not in SHAPES or one.colour not in COLOURS or one.size not in SIZES:
                raise DataError(f"is not a scene: unknown {one.size} {one.colour} {one.shape}")
        if scene.background.pattern not in BACKGROUNDS:
            raise DataError(f"is not a scene: unknown background {scene.background.pattern!r}")
        return scene


def content(things: Sequence[Thing]) -> str:
    """The key of a scene, for example ``large blue star top left|small red ring bottom right``."""
    keys = (
        f"{thing.size} {thing.colour} {thing.shape} "
        f"{'top' if thing.y < 0.5 else 'bottom'} {'left' if thing.x < 0.5 else 'right'}"
        for thing in things
    )
    return "|".join(sorted(keys))


def split_of(key: str) -> str:
    """The split that a content belongs to, whatever the seed."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    return next(name for name, bound in SHARES if share < bound)


def sample_scene(
    rng: random.Random, *, split: str | None = None, count: int | None = None
) -> Scene:
    """Draw a scene by lot, of a split's contents and with ``count`` things (default: any).

    The same state of ``rng`` gives the same scene.

    Raises:
        UsageError: an unknown split or a count out of 1 to 4.
    """
    if split is not None and split not in dict(SHARES):
        raise UsageError(f"split: expected train, val or test, found {split!r}")
    if count is None:
        count = _weighted(rng, COUNT_WEIGHTS)
    elif count not in PATTERNS:
        raise UsageError(f"count: expected 1 to {max(PATTERNS)}, found {count}")
    while True:
        things = _arrange(rng, _sample_groups(rng, count))
        if things is not None and split in (None, split_of(content(things))):
            return Scene(tuple(things), _sample_background(rng))


def _weighted(rng: random.Random, weights: dict[Any, int]) -> Any:
    return rng.choices(list(weights), list(weights.values()))[0]


def _sample_groups(rng: random.Random, count: int) -> list[tuple[Kind, int]]:
    """Kinds, all different, and how many things of each; sometimes one colour or one shape."""
    pattern: tuple[int, ...] = _weighted(rng, PATTERNS[count])
    colours, shapes = list(COLOURS), list(SHAPES)
    chance = rng.random()
    if chance < 0.15:
        shapes = [rng.choice(shapes)]
    elif chance < 0.25:
        colours = [rng.choice(colours)]
    kinds = [(colour, shape) for colour in colours for shape in shapes]
    return list(zip(rng.sample(kinds, len(pattern)), pattern, strict=True))


def _arrange(rng: random.Random, groups: list[tuple[Kind, int]]) -> list[Thing] | None:
    """Sizes and places for the kinds; None when this draw cannot be told clearly in words."""
    kinds = [kind for kind, times in groups for _ in range(times)]
    # Things of one kind are often of one size; four large ones would not fit.
    alike = len(groups) == 1 and rng.random() < 0.6
    sizes = [rng.choice(SIZES)] * len(kinds) if alike else [rng.choice(SIZES) for _ in kinds]
    if len(kinds) > 2 and sizes.count("large") > 2:
        return None
    radii = [rng.uniform(*RADII[size]) for size in sizes]
    spots = _scatter(rng, radii)
    if not spots:
        return None
    order = list(range(len(kinds)))
    rng.shuffle(order)
    tidy = len(groups) == 2 and (len(kinds) == 2 or rng.random() < 0.75)
    if tidy:
        # The first kind takes the spots on one side, so that a relation between both holds.
        axis = rng.randrange(2)
        order.sort(key=lambda index: spots[index][axis], reverse=rng.random() < 0.5)
    things = [
        _sample_thing(rng, kind, sizes[index], radii[index], spots[index])
        for kind, index in zip(kinds, order, strict=True)
    ]
    if not _tellable(groups, things, tidy):
        return None
    rng.shuffle(things)
    return things


def _tellable(groups: list[tuple[Kind, int]], things: list[Thing], tidy: bool) -> bool:
    """Whether what captions say of such a scene is clear to the eye."""
    if len(things) == 1:
        return place_of(things[0]) is not None
    if len(things) == 2 or (len(groups) == 2 and tidy):
        cut = groups[0][1] if len(groups) == 2 else 1
        first, second = things[:cut], things[cut:]
        return any(holds(name, first, second, clear=True) for name in WAYS)
    if len(groups) > 2:
        way, one, other = outermost(things)
        return at(EDGE[way], one, clear=True) and at(EDGE[OPPOSITE[way]], other, clear=True)
    return True


def _scatter(rng: random.Random, radii: list[float]) -> list[tuple[float, float]]:
    """Centres of discs that keep a gap; none when a disc found no room."""
    spots: list[tuple[float, float]] = []
    for radius in radii:
        for _ in range(25):
            reach = radius + MARGIN
            x, y = rng.uniform(reach, 1 - reach), rng.uniform(reach, 1 - reach)
            if all(
                (x - u) ** 2 + (y - v) ** 2 >= (radius + other + GAP) ** 2
                for (u, v), other in zip(spots, radii, strict=False)
            ):
                spots.append((x, y))
                break
        else:
            return []
    return spots


def _sample_thing(
    rng: random.Random, kind: Kind, size: str, radius: float, spot: tuple[float, float]
) -> Thing:
    colour, shape = kind
    hue, spread, saturation, value = COLOURS[colour]
    hue += rng.uniform(-spread, spread)
    saturation += rng.uniform(-0.05, 0.05)
    rgb = _rgb(hue, saturation, min(1.0, value + rng.uniform(-0.05, 0.05)))
    angle = rng.uniform(-TURN[shape], TURN[shape])
    # Rounded so that a scene read back from JSON is the same and short to read.
    x, y = round(spot[0], 4), round(spot[1], 4)
    return Thing(shape, colour, size, x, y, round(radius, 4), round(angle, 1), rgb)


def _sample_background(rng: random.Random) -> Background:
    # Light or dark, never in between and never saturated: no thing is lost on it.
    light = rng.random() < 0.65
    hue, saturation = rng.uniform(0, 360), rng.uniform(0.02, 0.14)
    value = rng.uniform(0.78, 0.95) if light else rng.uniform(0.16, 0.32)
    step = rng.uniform(0.07, 0.13) * (-1 if light else 1)
    return Background(
        pattern=_weighted(rng, BACKGROUND_WEIGHTS),
        low=_rgb(hue, saturation, value),
        high=_rgb(hue + rng.uniform(-25, 25), saturation, value + step),
        angle=round(rng.uniform(0, 180), 1),
        scale=round(rng.uniform(0.09, 0.2), 4),
        noise=rng.choice((2, 3, 5)),
        seed=rng.randrange(2**32),
    )


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)

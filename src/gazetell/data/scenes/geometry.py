"""Where things are: outlines, places in the picture, and relations between things.

One definition serves the captions and the judge; captions are only made of what holds with a
margin (``clear=True``, ``margin=CLEAR``), the judge asks for none.

Relation. A group of things is *left of* another when every centre of the first lies left of every
centre of the second, and the line between the two groups' mean centres is at most about 63 degrees
off the horizontal: it goes at least half as far to the right as it goes up or down. Likewise right,
above and below. Clear: every pair differs by 0.07 of the side, and the line goes 1.25 times as far
along as across.

Place. *On the left* is a centre in the left half, *at the top left* in the top left quarter, *in
the corner* within 0.42 of both sides of it, *in the middle* within 0.12 of the middle both ways.

Between. A thing is between two others when it sees them at least 120 degrees apart (clear: 145).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "CLEAR",
    "EDGE",
    "PLACES",
    "WAYS",
    "Thing",
    "at",
    "between",
    "extent",
    "holds",
    "outermost",
    "outline",
    "place_of",
]

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
}
# relation -> axis (0: x, 1: y) and direction from the first to the second
WAYS = {"left": (0, 1), "right": (0, -1), "above": (1, 1), "below": (1, -1)}
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
    return [
        (thing.x + thing.radius * u, thing.y + thing.radius * v)
        for u, v in _turned(thing.shape, thing.angle)
    ]


def _turned(shape: str, angle: float) -> list[tuple[float, float]]:
    turn = math.radians(angle)
    return [
        (length * math.sin(math.radians(at) + turn), -length * math.cos(math.radians(at) + turn))
        for at, length in FIGURES[shape]
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


def at(place: str, thing: Thing, *, corner: bool = False, margin: float = 0.0) -> bool:
    """Whether a thing's centre is at a place of the picture (see the module)."""
    across, down = thing.x - 0.5, thing.y - 0.5
    if place == "middle":
        return max(abs(across), abs(down)) <= 0.12 - margin
    bound = (0.08 if corner else 0.0) + margin
    horizontal, vertical = PLACES[place]
    return (not horizontal or across * horizontal > bound) and (
        not vertical or down * vertical > bound
    )


def place_of(thing: Thing, *, margin: float = CLEAR) -> str | None:
    """The one place that tells best where a thing is, or None when that is not clear.

    Clear is a centre in the corner of both sides, or beside one side and central along it, or in
    the middle.
    """
    across, down = _side(thing.x - 0.5, margin), _side(thing.y - 0.5, margin)
    if across is None or down is None:
        return None
    if (across, down) == (0, 0):
        return "middle"
    return next(name for name, sides in PLACES.items() if sides == (across, down))


def _side(offset: float, margin: float) -> int | None:
    if abs(offset) <= 0.12 - margin:
        return 0
    if abs(offset) > 0.08 + margin:
        return 1 if offset > 0 else -1
    return None


def outermost(things: Sequence[Thing]) -> tuple[str, Thing, Thing]:
    """The two ends of the longer way across things: "left" or "above", the first, the last."""
    by_x, by_y = sorted(things, key=lambda one: one.x), sorted(things, key=lambda one: one.y)
    if by_x[-1].x - by_x[0].x >= by_y[-1].y - by_y[0].y:
        return "left", by_x[0], by_x[-1]
    return "above", by_y[0], by_y[-1]


def between(thing: Thing, one: Thing, other: Thing, *, clear: bool = False) -> bool:
    """Whether a thing lies between two others (see the module)."""
    a, b = (one.x - thing.x, one.y - thing.y), (other.x - thing.x, other.y - thing.y)
    lengths = math.hypot(*a) * math.hypot(*b)
    if not lengths:
        return False
    cosine = (a[0] * b[0] + a[1] * b[1]) / lengths
    return cosine <= math.cos(math.radians(145 if clear else 120))

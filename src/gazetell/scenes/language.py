"""Captions: the same content in several wordings.

What is told depends on the scene alone, so that the captions of one picture agree in content:

- one thing: its size, colour, shape and place;
- things of one kind: how many, often their sizes, and for two of them how they lie;
- two kinds: both, counted, and their relation where it is clear;
- three or four kinds: the thing between the two others where that is clear, else how many things
  there are and the two outermost ones.

How it is told is drawn by lot. All statements hold with a margin (``world.py``).
"""

import random
import re
from collections.abc import Sequence

from .world import (
    EDGE,
    OPPOSITE,
    SHAPES,
    WAYS,
    Scene,
    Thing,
    at,
    between,
    holds,
    outermost,
    place_of,
)

COUNTS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
SIZE_WORDS = {"large": "large", "big": "large", "small": "small", "tiny": "small"}
GENERIC = ("shape", "object")  # nouns that name any thing
SPELLING = {"center": "middle", "centre": "middle", "upper": "top", "lower": "bottom"}


def plural(noun: str) -> str:
    """The plural of a noun of this language."""
    return noun + ("es" if noun.endswith("s") else "s")


# noun -> (shape or None for any, whether it is plural)
NOUNS: dict[str, tuple[str | None, bool]] = {
    **{shape: (shape, False) for shape in SHAPES},
    **{plural(shape): (shape, True) for shape in SHAPES},
    **dict.fromkeys(GENERIC, (None, False)),
    **{plural(noun): (None, True) for noun in GENERIC},
}


def article(phrase: str) -> str:
    """``phrase`` with *a* or *an* before it."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def names(thing: Thing) -> tuple[str, ...]:
    """The words that name a thing: colour, shape in both numbers, and the words for its size."""
    sizes = tuple(word for word, size in SIZE_WORDS.items() if size == thing.size)
    return (thing.colour, thing.shape, plural(thing.shape), *sizes)


def tokens(text: str) -> list[str]:
    """Lower-case words without punctuation; spellings of one word become the same."""
    found = re.findall(r"[a-z0-9]+", text.lower())
    return [SPELLING.get(word, word) for word in found]


NUMBERS = {number: word for word, number in COUNTS.items()}
SIDES = {"left": "on the left", "right": "on the right", "above": "at the top",
         "below": "at the bottom"}  # fmt: skip


def captions(scene: Scene, n: int = 5, seed: int | str = 0) -> tuple[str, ...]:
    """``n`` different true captions of a scene, lower case, without punctuation.

    The same scene, ``n`` and seed give the same captions.
    """
    rng = random.Random(f"captions {seed}")
    told: dict[str, None] = {}
    # Every scene has some dozens of wordings; the bound only guards against an endless loop.
    for _ in range(200 * n):
        if len(told) == n:
            break
        told[_tell(rng, scene)] = None
    return tuple(told)


def _tell(rng: random.Random, scene: Scene) -> str:
    kinds: dict[tuple[str, str], list[Thing]] = {}
    for thing in scene.things:
        kinds.setdefault((thing.colour, thing.shape), []).append(thing)
    groups = list(kinds.values())
    if len(scene.things) == 1:
        return _one(rng, scene.things[0], scene.background.pattern)
    if len(groups) == 1:
        return _alike(rng, groups[0], scene.background.pattern)
    if len(groups) == 2:
        return _two_kinds(rng, groups)
    if len(scene.things) == 3:
        for index, thing in enumerate(scene.things):
            one, other = scene.things[:index] + scene.things[index + 1 :]
            if between(thing, one, other, clear=True):
                return _between(rng, thing, one, other)
    return _many(rng, scene.things)


def _pick(rng: random.Random, weights: dict[str, int]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def _size(rng: random.Random, size: str) -> str:
    """A word for a size, mostly the usual one."""
    return size if rng.random() < 0.75 else {"large": "big", "small": "tiny"}[size]


def _name(things: Sequence[Thing], size: str = "") -> str:
    """Colour and shape of things of one kind, with a size word before."""
    thing = things[0]
    noun = thing.shape if len(things) == 1 else plural(thing.shape)
    return " ".join(filter(None, (size, thing.colour, noun)))


def _counted(things: Sequence[Thing], size: str = "") -> str:
    name = _name(things, size)
    return article(name) if len(things) == 1 else f"{NUMBERS[len(things)]} {name}"


def _introduced(rng: random.Random, core: str) -> str:
    """The sentence around what is told."""
    several = core.split()[0] in ("two", "three", "four")
    return _pick(
        rng,
        {
            core: 40,
            f"there {'are' if several else 'is'} {core}": 25,
            f"the picture shows {core}": 15,
            f"you can see {core}": 10,
            f"a picture of {core}": 10,
        },
    )


def _one(rng: random.Random, thing: Thing, pattern: str) -> str:
    place = place_of(thing) or "middle"
    named = article(_name([thing], _size(rng, thing.size)))
    if " " in place:
        other = place.replace("top", "upper").replace("bottom", "lower")
        forms = {f"at the {place}": 40, f"in the {place} corner": 40, f"in the {other}": 20}
    elif place == "middle":
        forms = {"in the middle": 65, "in the center": 35}
    elif place in ("left", "right"):
        forms = {f"on the {place}": 60, f"on the {place} side": 40}
    else:
        forms = {f"at the {place}": 75, f"in the {place} half": 25}
    where = _pick(rng, forms)
    if rng.random() < 0.2:
        return _introduced(rng, f"{named} on a {pattern} background")
    ending = _pick(rng, {"": 70, " of the picture": 30})
    if rng.random() < 0.12:
        return f"the {named.split(' ', 1)[1]} is {where}{ending}"
    return _introduced(rng, f"{named} {where}{ending}")


def _alike(rng: random.Random, things: list[Thing], pattern: str) -> str:
    sizes = {size: [one for one in things if one.size == size] for size in ("large", "small")}
    word = {size: _size(rng, size) for size in sizes}
    core = _counted(things)
    if rng.random() < 0.75:
        # "one large and two small red rings": the larger number comes last and has the noun.
        first, last = sorted(sizes, key=lambda size: len(sizes[size]))
        core = _counted(sizes[last], word[last])
        if sizes[first]:
            count = "a" if len(things) == 2 else NUMBERS[len(sizes[first])]
            core = f"{count} {word[first]} and {core}"
    if len(things) == 2 and rng.random() < 0.7:
        level = any(holds(way, things[:1], things[1:], clear=True) for way in ("left", "right"))
        return _introduced(rng, f"{core} {'side by side' if level else 'one above the other'}")
    ending = f" on a {pattern} background" if rng.random() < 0.4 else ""
    return _introduced(rng, core + ending)


def _two_kinds(rng: random.Random, groups: list[list[Thing]]) -> str:
    way = next((name for name in WAYS if holds(name, *groups, clear=True)), None)
    if way in ("right", "below"):
        way, groups = OPPOSITE[way], groups[::-1]
    sizes = ["", ""]
    singles = len(groups[0]) == len(groups[1]) == 1
    if singles and groups[0][0].size != groups[1][0].size and rng.random() < 0.75:
        sizes = [_size(rng, group[0].size) for group in groups]
    first, second = (_counted(group, size) for group, size in zip(groups, sizes, strict=True))
    if way is None:
        # The smaller group comes last; a fixed order keeps the captions alike.
        one, other = groups
        if (len(one), -one[0].x) < (len(other), -other[0].x):
            first, second = second, first
        joint = _pick(rng, {"and": 75, "with": 25})
        return _introduced(rng, f"{first} {joint} {second}")
    forms = {f"{first} {_relation(rng, way)} {second}": 60,
             f"{second} {_relation(rng, OPPOSITE[way])} {first}": 15}  # fmt: skip
    ends = (way, OPPOSITE[way])
    if all(
        at(EDGE[end], one, clear=True)
        for end, group in zip(ends, groups, strict=True)
        for one in group
    ):
        forms[f"{first} {SIDES[way]} and {second} {SIDES[OPPOSITE[way]]}"] = 25
    if singles and rng.random() < 0.15:
        subject, object_ = (_name(group, size) for group, size in zip(groups, sizes, strict=True))
        return f"the {subject} is {_relation(rng, way)} the {object_}"
    return _introduced(rng, _pick(rng, forms))


def _relation(rng: random.Random, way: str) -> str:
    if way in ("left", "right"):
        return _pick(rng, {f"to the {way} of": 75, f"{way} of": 25})
    return way if rng.random() < 0.75 else {"above": "over", "below": "under"}[way]


def _between(rng: random.Random, thing: Thing, one: Thing, other: Thing) -> str:
    # The outer two in reading order: left to right, or top to bottom when they are stacked.
    _, *ends = outermost([one, other])
    middle, first, second = (_counted([each]) for each in (thing, *ends))
    core = f"{middle} between {first} and {second}"
    if rng.random() < 0.2:
        core = f"{_several([thing, one, other])} with {core}"
    return _introduced(rng, core)


def _several(things: Sequence[Thing]) -> str:
    """How many things of several kinds, with what they share."""
    noun = "shapes"
    if len({thing.shape for thing in things}) == 1:
        noun = plural(things[0].shape)
    elif len({thing.colour for thing in things}) == 1:
        noun = f"{things[0].colour} shapes"
    return f"{NUMBERS[len(things)]} {noun}"


def _many(rng: random.Random, things: Sequence[Thing]) -> str:
    way, one, other = outermost(things)
    first, last = _counted([one]), _counted([other])
    sides = SIDES[way], SIDES[OPPOSITE[way]]
    several = _several(things)
    joint = _pick(rng, {"with": 75, "including": 25})
    core = f"{several} {joint} {first} {sides[0]} and {last} {sides[1]}"
    if rng.random() < 0.2:
        return f"{several} where {first} is {sides[0]} and {last} is {sides[1]}"
    return _introduced(rng, core)

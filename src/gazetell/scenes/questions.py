"""Questions about a scene with one sure answer from a small closed set.

Yes and no cannot be guessed from the question: a fair coin chooses the answer before the question
is made.

=======  ==================================================  =============================
type     example                                             answers
=======  ==================================================  =============================
exists   is there a red circle?                              yes, no
colour   what colour is the large star?                      the seven colours
shape    what shape is the blue object?                      the six shapes
count    how many green rings are there?                     0, 1, 2, 3, 4
where    is the star on the left or on the right?            left, right
where    is the star at the top or at the bottom?            top, bottom
where    where is the star seen from the red ring?           left, right, above, below
compare  are there more circles than squares?                yes, no
compare  is the star larger than the ring?                   yes, no
compare  are the star and the ring the same colour?          yes, no
=======  ==================================================  =============================

Things are named by as few words as single them out; positions are asked for with the margin of the
captions (``world.py``), sizes only of things of different size.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations, product

from .language import article, plural
from .world import COLOURS, SHAPES, WAYS, Scene, Thing, at, holds


@dataclass(frozen=True)
class Question:
    """A question, its one answer, its type (see the module) and the things it is about.

    Those are what one must look at: the things that are named, counted or compared; none where
    what is asked for is not in the picture.
    """

    type: str
    text: str
    answer: str
    things: tuple[Thing, ...] = ()

    @property
    def answer_type(self) -> str:
        """``yes/no``, ``number`` or ``other``."""
        if self.answer in ("yes", "no"):
            return "yes/no"
        return "number" if self.type == "count" else "other"


def questions(scene: Scene, n: int = 6, seed: int | str = 0) -> tuple[Question, ...]:
    """Up to ``n`` different questions about a scene, each type in turn.

    A type that the scene gives no sure question for is passed over; at least ``exists`` and
    ``count`` always can be asked. The same scene, ``n`` and seed give the same questions.
    """
    rng = random.Random(f"questions {seed}")
    types = list(QUESTION_TYPES)
    rng.shuffle(types)
    asked: dict[str, Question] = {}
    for turn in range(10 * n):
        if len(asked) == n:
            break
        name = types[turn % len(types)]
        if made := _MAKERS[name](rng, scene.things):
            text, answer, about = made
            asked.setdefault(text, Question(name, text, answer, tuple(about)))
    return tuple(asked.values())


Things = Sequence[Thing]
Asked = tuple[str, str, Things]  # question, answer, what it is about


def _matching(things: Things, **words: str) -> list[Thing]:
    """The things of a colour, shape or size; an empty word allows any."""
    return [
        one
        for one in things
        if all(word in ("", getattr(one, field)) for field, word in words.items())
    ]


def _single(thing: Thing, things: Things, without: str = "") -> str | None:
    """The shortest name that only this thing has, without one of its attributes; or None."""
    options = [("shape",), ("colour",), ("colour", "shape"), ("size", "shape"), ("size", "colour"),
               ("size", "colour", "shape")]  # fmt: skip
    for fields in options:
        if without in fields:
            continue
        if len(_matching(things, **{field: getattr(thing, field) for field in fields})) == 1:
            words = [getattr(thing, field) for field in ("size", "colour") if field in fields]
            return " ".join([*words, thing.shape if "shape" in fields else "object"])
    return None


def _single_pairs(things: Things, without: str = "") -> Iterator[tuple[str, str, Thing, Thing]]:
    """All pairs of things that can be named, with their names."""
    for one, other in permutations(things, 2):
        first, second = _single(one, things, without), _single(other, things, without)
        if first and second:
            yield first, second, one, other


def _exists(rng: random.Random, things: Things) -> Asked:
    chance = rng.random()
    if rng.random() < 0.5:
        one = rng.choice(things)
        colour = "" if chance < 0.3 else one.colour
        about = _matching(things, colour=colour, shape=one.shape)
        return f"is there {article(f'{colour} {one.shape}'.strip())}?", "yes", about
    colours, shapes = {one.colour for one in things}, {one.shape for one in things}
    if chance < 0.3:
        phrase = rng.choice([shape for shape in SHAPES if shape not in shapes])
    else:
        # Nearly right more often than plainly absent: one of the two words is in the picture.
        absent = [pair for pair in product(COLOURS, SHAPES)
                  if not any(pair == (one.colour, one.shape) for one in things)]  # fmt: skip
        near = [pair for pair in absent if pair[0] in colours or pair[1] in shapes]
        phrase = " ".join(rng.choice(near if chance < 0.8 else absent))
    return f"is there {article(phrase)}?", "no", ()


def _attribute(rng: random.Random, things: Things, field: str) -> Asked | None:
    """What colour, or what shape, a thing has that is named without it."""
    sure = [
        (f"what {field} is the {name}?", getattr(one, field), [one])
        for one in things
        if (name := _single(one, things, without=field))
    ]
    return rng.choice(sure) if sure else None


def _count(rng: random.Random, things: Things) -> Asked:
    one = rng.choice(things)
    colour, shape = one.colour, one.shape
    if rng.random() < 0.2:
        colour, shape = rng.choice(list(COLOURS)), rng.choice(SHAPES)
    chance = rng.random()
    if chance < 0.35 or 0.55 <= chance < 0.75:
        colour = ""
    if 0.35 <= chance < 0.75:
        shape = ""
    counted = _matching(things, colour=colour, shape=shape)
    phrase = f"{colour} {plural(shape or 'object')}".strip()
    return f"how many {phrase} are there?", str(len(counted)), counted


def _where(rng: random.Random, things: Things) -> Asked | None:
    sure: list[Asked] = []
    if rng.random() >= 0.5:
        sure = [
            (f"where is the {first} seen from the {second}?", way, [one, other])
            for first, second, one, other in _single_pairs(things)
            for way in WAYS
            if holds(way, [one], [other], clear=True)
        ]
    halves = {"on the left or on the right": ("left", "right"),
              "at the top or at the bottom": ("top", "bottom")}  # fmt: skip
    sure = sure or [
        (f"is the {name} {text}?", place, [one])
        for one in things
        if (name := _single(one, things))
        for text, places in halves.items()
        for place in places
        if at(place, one, clear=True)
    ]
    return rng.choice(sure) if sure else None


def _compare(rng: random.Random, things: Things) -> Asked | None:
    yes = rng.random() < 0.5
    makers = [_more, _larger, _same]
    rng.shuffle(makers)
    for make in makers:
        if options := make(things, yes):
            text, about = rng.choice(options)
            return text, "yes" if yes else "no", about
    return None


Compared = list[tuple[str, list[Thing]]]


def _more(things: Things, yes: bool) -> Compared:
    number = {shape: len(_matching(things, shape=shape)) for shape in SHAPES}
    pairs = [(a, b) for a in SHAPES for b in SHAPES if number[a] > number[b]]
    # Both shapes in the picture where it can be: the harder question.
    pairs = [(a, b) for a, b in pairs if number[b]] or pairs
    return [
        (
            f"are there more {plural(a if yes else b)} than {plural(b if yes else a)}?",
            [one for one in things if one.shape in (a, b)],
        )
        for a, b in pairs
    ]


def _larger(things: Things, yes: bool) -> Compared:
    return [
        (f"is the {first if yes else second} larger than the {second if yes else first}?",
         [one, other])
        # The question must not name the sizes it asks for.
        for first, second, one, other in _single_pairs(things, without="size")
        if (one.size, other.size) == ("large", "small")
    ]  # fmt: skip


def _same(things: Things, yes: bool) -> Compared:
    return [
        (f"are the {first} and the {second} the same colour?", [one, other])
        for first, second, one, other in _single_pairs(things, without="colour")
        if (one.colour == other.colour) is yes
    ]


_MAKERS: dict[str, Callable[[random.Random, Things], Asked | None]] = {
    "exists": _exists,
    "colour": partial(_attribute, field="colour"),
    "shape": partial(_attribute, field="shape"),
    "count": _count,
    "where": _where,
    "compare": _compare,
}
QUESTION_TYPES = tuple(_MAKERS)

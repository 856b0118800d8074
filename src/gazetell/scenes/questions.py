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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations

from .language import article, plural
from .world import CLEAR, COLOURS, SHAPES, WAYS, Scene, Thing, at, holds


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
    found: dict[str, Question] = {}
    for turn in range(10 * n):
        if len(found) == n:
            break
        kind = types[turn % len(types)]
        asked = _MAKERS[kind](rng, scene.things)
        if asked:
            text, answer, about = asked
            found.setdefault(text, Question(kind, text, answer, tuple(about)))
    return tuple(found.values())


Things = Sequence[Thing]
Asked = tuple[str, str, Things] | None  # question, answer, what it is about
Compared = tuple[str, Things] | None


def _matching(things: Things, colour: str = "", shape: str = "", size: str = "") -> list[Thing]:
    return [
        one
        for one in things
        if colour in ("", one.colour) and shape in ("", one.shape) and size in ("", one.size)
    ]


def _single(thing: Thing, things: Things, *, without: str = "") -> str | None:
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


def _exists(rng: random.Random, things: Things) -> Asked:
    chance = rng.random()
    if rng.random() < 0.5:
        one = rng.choice(things)
        colour = "" if chance < 0.3 else one.colour
        phrase = f"{colour} {one.shape}".strip()
        return f"is there {article(phrase)}?", "yes", _matching(things, colour, one.shape)
    shapes = {one.shape for one in things}
    if chance < 0.3:
        return f"is there {article(rng.choice([s for s in SHAPES if s not in shapes]))}?", "no", ()
    # Nearly right more often than plainly absent: one of the two words is in the picture.
    absent = [(c, s) for c in COLOURS for s in SHAPES if not _matching(things, c, s)]
    colours = {one.colour for one in things}
    near = [(c, s) for c, s in absent if c in colours or s in shapes]
    phrase = " ".join(rng.choice(near if chance < 0.8 else absent))
    return f"is there {article(phrase)}?", "no", ()


def _attribute(rng: random.Random, things: Things, field: str) -> Asked:
    """What colour, or what shape, a thing has that is named without it."""
    named = [(_single(one, things, without=field), one) for one in things]
    sure = [(name, one) for name, one in named if name]
    if not sure:
        return None
    name, one = rng.choice(sure)
    return f"what {field} is the {name}?", getattr(one, field), [one]


def _count(rng: random.Random, things: Things) -> Asked:
    one = rng.choice(things)
    colour, shape = one.colour, one.shape
    if rng.random() < 0.2:
        colour, shape = rng.choice(list(COLOURS)), rng.choice(SHAPES)
    chance = rng.random()
    if chance < 0.35:
        phrase, counted = plural(shape), _matching(things, shape=shape)
    elif chance < 0.55:
        phrase, counted = f"{colour} objects", _matching(things, colour)
    elif chance < 0.75:
        phrase, counted = "objects", list(things)
    else:
        phrase, counted = f"{colour} {plural(shape)}", _matching(things, colour, shape)
    return f"how many {phrase} are there?", str(len(counted)), counted


def _where(rng: random.Random, things: Things) -> Asked:
    if rng.random() < 0.5:
        return _which_half(rng, things)
    pairs = [
        (f"where is the {name} seen from the {other}?", way, [one, two])
        for one, two in permutations(things, 2)
        if (name := _single(one, things)) and (other := _single(two, things))
        for way in WAYS
        if holds(way, [one], [two], clear=True)
    ]
    return rng.choice(pairs) if pairs else _which_half(rng, things)


def _which_half(rng: random.Random, things: Things) -> Asked:
    halves = [("left", "right", "on the left or on the right"),
              ("top", "bottom", "at the top or at the bottom")]  # fmt: skip
    sure = [
        (f"is the {name} {text}?", place, [one])
        for one in things
        if (name := _single(one, things))
        for *places, text in halves
        for place in places
        if at(place, one, margin=CLEAR)
    ]
    return rng.choice(sure) if sure else None


def _compare(rng: random.Random, things: Things) -> Asked:
    yes = rng.random() < 0.5
    makers = [_more, _larger, _same]
    rng.shuffle(makers)
    for make in makers:
        compared = make(rng, things, yes)
        if compared:
            text, about = compared
            return text, "yes" if yes else "no", about
    return None


def _more(rng: random.Random, things: Things, yes: bool) -> Compared:
    number = {shape: len(_matching(things, shape=shape)) for shape in SHAPES}
    pairs = [(a, b) for a in SHAPES for b in SHAPES if number[a] > number[b]]
    # Both shapes in the picture where it can be: the harder question.
    both = [(a, b) for a, b in pairs if number[b]]
    more, fewer = rng.choice(both or pairs) if pairs else ("", "")
    if not more:
        return None
    first, second = (more, fewer) if yes else (fewer, more)
    about = [one for one in things if one.shape in (first, second)]
    return f"are there more {plural(first)} than {plural(second)}?", about


def _larger(rng: random.Random, things: Things, yes: bool) -> Compared:
    pairs = [
        (large, small, [one, two])
        for one, two in permutations(things, 2)
        if (one.size, two.size) == ("large", "small")
        # The question must not name the sizes it asks for.
        if (large := _single(one, things, without="size"))
        and (small := _single(two, things, without="size"))
    ]
    if not pairs:
        return None
    large, small, about = rng.choice(pairs)
    first, second = (large, small) if yes else (small, large)
    return f"is the {first} larger than the {second}?", about


def _same(rng: random.Random, things: Things, yes: bool) -> Compared:
    texts = [
        (f"are the {first} and the {second} the same colour?", [one, two])
        for one, two in permutations(things, 2)
        if (one.colour == two.colour) is yes
        if (first := _single(one, things, without="colour"))
        and (second := _single(two, things, without="colour"))
    ]
    return rng.choice(texts) if texts else None


_MAKERS: dict[str, Callable[[random.Random, Things], Asked]] = {
    "exists": _exists,
    "colour": partial(_attribute, field="colour"),
    "shape": partial(_attribute, field="shape"),
    "count": _count,
    "where": _where,
    "compare": _compare,
}
QUESTION_TYPES = tuple(_MAKERS)

"""How truth is judged: every claim of a caption is checked against its scene.

A caption is read by the grammar of this little language (``grammar.py``). One that cannot be read
is false (*not understood*). Otherwise it is true when all it says holds at once:

- *A red circle*: the scene has at least one. *Two red circles*, *one red circle*: it has exactly so
  many, counted over the whole picture. *Red circles*: at least two. *The red circle*: exactly one.
  A colour or size that is left out may be any; *shapes* and *objects* are things of any shape.
- Phrases name different things: *a red circle and a circle* needs two circles. Only a count that
  the rest spells out (*three shapes with a red circle on the left*) and *the* may repeat.
- Left of, right of, above, below: every thing of the first phrases is on that side of every thing
  of the second, and between their mean centres it is at least half as far that way as it is across
  (``geometry.holds``). There must be one choice of things that fits all claims together.
- On the left, at the top, ...: the centre is in that half; at the top left: in that quarter; in the
  corner: within 0.42 of the side both ways; in the middle: within 0.12 of the middle both ways.
- Between: seen from the thing, the two others are at least 120 degrees apart. Side by side: one of
  the two is left of the other. One above the other: likewise above.
- On a striped background: the background is of that pattern.

Captions of the generator keep a margin to all these bounds, the judge has none: it does not call
false what a person might call true at the edge. It says nothing about what a caption leaves out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from .geometry import Thing, at, between, holds
from .grammar import Claim, Phrase, Unparsed, parse
from .world import Scene

__all__ = ["Verdict", "judge"]


@dataclass(frozen=True)
class Verdict:
    """Whether a caption is true of its scene, and why not (or ``every claim holds``)."""

    true: bool
    reason: str

    def __bool__(self) -> bool:
        return self.true


def judge(caption: str, scene: Scene) -> Verdict:
    """Whether a caption is true of a scene, by the rules of this module."""
    try:
        said = parse(caption)
    except Unparsed as error:
        return Verdict(False, str(error))
    for pattern in said.backgrounds:
        if pattern != scene.background.pattern:
            return Verdict(False, f"the background is {scene.background.pattern}, not {pattern}")
    options: list[list[Sequence[Thing]]] = []
    for phrase in said.phrases:
        matches = [thing for thing in scene.things if _fits(thing, phrase)]
        wrong = _miscounted(phrase, len(matches))
        if wrong:
            return Verdict(False, wrong)
        options.append([[one] for one in matches] if phrase.how == "a" else [matches])
    for claim in said.claims:
        if not any(_holds(claim, choice) for choice in _choices(options, claim.about + claim.to)):
            subject = " and ".join(said.phrases[index].text for index in claim.about)
            return Verdict(False, f"not so: {subject} {claim.text}")
    every = tuple(range(len(options)))
    for choice in _choices(options, every):
        if _disjoint(said.phrases, choice) and all(_holds(claim, choice) for claim in said.claims):
            return Verdict(True, "every claim holds")
    return Verdict(False, "no choice of things fits all that is said together")


def _fits(thing: Thing, phrase: Phrase) -> bool:
    return (
        phrase.size in (None, thing.size)
        and phrase.colour in (None, thing.colour)
        and phrase.shape in (None, thing.shape)
    )


def _miscounted(phrase: Phrase, found: int) -> str | None:
    """Why so many matches are wrong for a phrase; None when they are right."""
    if found == 0:
        return f"{phrase.text}: there is none"
    wanted = {"a": found, "the": 1, "many": max(found, 2), "count": phrase.count}[phrase.how]
    return (
        None if found == wanted else f"{phrase.text}: there {'is' if found == 1 else 'are'} {found}"
    )


Choice = dict[int, Sequence[Thing]]


def _choices(options: list[list[Sequence[Thing]]], about: tuple[int, ...]) -> Iterator[Choice]:
    """All ways to let each phrase of ``about`` name things."""
    if not about:
        yield {}
        return
    for things in options[about[0]]:
        for rest in _choices(options, about[1:]):
            yield {about[0]: things, **rest}


def _disjoint(phrases: list[Phrase], choice: Choice) -> bool:
    """Whether phrases that must name different things do so."""
    bound = [index for index in choice if not phrases[index].head and phrases[index].how != "the"]
    return not any(
        one is other for a, b in combinations(bound, 2) for one in choice[a] for other in choice[b]
    )


def _holds(claim: Claim, choice: Choice) -> bool:
    about = [thing for index in claim.about for thing in choice[index]]
    to = [thing for index in claim.to for thing in choice[index]]
    if claim.relation == "between":
        return len(to) == 2 and all(between(thing, to[0], to[1]) for thing in about)
    if claim.relation in ("beside", "stacked"):
        way = "left" if claim.relation == "beside" else "above"
        return len(about) == 2 and any(
            holds(way, [one], [other]) for one, other in (about, about[::-1])
        )
    if claim.relation.startswith(("at ", "corner ")):
        kind, place = claim.relation.split(" ", 1)
        return all(at(place, thing, corner=kind == "corner") for thing in about)
    return holds(claim.relation, about, to)

"""How truth is judged: every claim of a caption is checked against its scene.

A caption is read by the grammar of this little language (below). One that cannot be read
is false (*not understood*). Otherwise it is true when all it says holds at once:

- *A red circle*: the scene has at least one. *Two red circles*, *one red circle*: it has exactly so
  many, counted over the whole picture. *Red circles*: at least two. *The red circle*: exactly one.
  A colour or size that is left out may be any; *shapes* and *objects* are things of any shape.
- Phrases name different things: *a red circle and a circle* needs two circles. Only a count that
  the rest spells out (*three shapes with a red circle on the left*) and *the* may repeat.
- Left of, right of, above, below: every thing of the first phrases is on that side of every thing
  of the second, and between their mean centres it is at least half as far that way as it is across
  (``world.holds``). There must be one choice of things that fits all claims together.
- On the left, at the top, ...: the centre is in that half; at the top left: in that quarter; in the
  corner: within 0.42 of the side both ways; in the middle: within 0.12 of the middle both ways.
- Between: seen from the thing, the two others are at least 120 degrees apart. Side by side: one of
  the two is left of the other. One above the other: likewise above.
- On a striped background: the background is of that pattern.

Captions of the generator keep a margin to all these bounds, the judge has none: it does not call
false what a person might call true at the edge. It says nothing about what a caption leaves out.

The grammar::

    caption   = [intro] clause {joint clause} [ending]
    clause    = list {[verb] modifier}
    list      = noun phrase {"and" noun phrase}
    modifier  = relation list | place | "between" noun phrase "and" noun phrase
              | "side by side" | "one above the other" | on a PATTERN "background"
    joint     = "and" | "with" | "where" | "while" | "including"

A noun phrase is a determiner or a count, any adjectives of size and colour in any order, and a
shape or *shape(s)*, *object(s)*; two sizes may share the rest (*one large and two small rings*).
A modifier speaks of every noun phrase of the list before it; a relation makes its own list the one
that later modifiers speak of.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product

from .language import COUNTS, NOUNS, SIZE_WORDS, tokens
from .world import BACKGROUNDS, COLOURS, PLACES, Scene, Thing, at, between, holds

Indices = tuple[int, ...]


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: how many of what.

    ``how`` is "a" (at least one), "the" (exactly one), "many" (a bare plural: at least two) or
    "count". ``head`` marks a counted phrase that what follows spells out (*three shapes with a red
    ring on the left*).
    """

    text: str
    how: str
    count: int | None
    size: str | None
    colour: str | None
    shape: str | None
    head: bool = False


@dataclass(frozen=True)
class Claim:
    """Something said of phrases, by their indices: ``about`` stands in ``relation`` to ``to``."""

    text: str
    relation: str
    about: Indices
    to: Indices = ()


class Unparsed(ValueError):
    """The words are not of this language; the message says from where on."""


def _words(pattern: str) -> re.Pattern[str]:
    """A pattern of whole words: in the parser's text a blank follows each."""
    return re.compile(f"(?:{pattern}) ")


_MEDIUM = "(?:picture|image)"
_INTRO = _words(
    "(?:there|here) (?:is|are)|it shows|(?:you|we) can see|we see"
    f"|(?:the|this) {_MEDIUM} shows|(?:a|an|the) {_MEDIUM} (?:of|with|showing)"
    f"|in (?:the|this) {_MEDIUM} there (?:is|are)"
)
_ENDING = _words(f"in (?:the|this) {_MEDIUM}")
_JOINT = _words("and(?: there (?:is|are))?|while|(with|where|including)")
_VERB = _words("(?:that |which )?(?:is|are)")
_RELATION = _words("(?:(?:to|on) the )?(left|right) of|(above|over|below|under|beneath|between)")
_SAME = {"over": "above", "under": "below", "beneath": "below"}
# The places of two words come first in PLACES, so that the longest match wins.
_PLACE = _words(
    f"(?:at|in|on|to) the ({'|'.join(PLACES)})(?: side| half| part| (corner))?"
    f"(?: of the {_MEDIUM})?"
)
_PAIR = _words("(side by side|one above the other)")
_BACKGROUND = _words(f"(?:on|against) (?:a|the) ({'|'.join(BACKGROUNDS)}) background")
_AND = _words("and")

_HOW = {"the": "the", "a": "a", "an": "a", "another": "a"}
_COUNT, _SIZE, _COLOUR = "|".join(COUNTS), "|".join(SIZE_WORDS), "|".join(COLOURS)
_QUANTITY = f"(?:(?:an?|another) |(?:the )?(?:(?:{_COUNT}) )?)"
_ADJECTIVES = f"(?:(?:(?:{_SIZE}) )?(?:(?:{_COLOUR}) )?|(?:{_COLOUR}) (?:{_SIZE}) )"
_NOUNS = _words(
    f"(?:({_QUANTITY}(?:{_SIZE})) and (?=(?:{'|'.join(_HOW)}|{_COUNT}) ))?"
    f"({_QUANTITY}{_ADJECTIVES}({'|'.join(NOUNS)}))"
)


class _Parser:
    """Recursive descent over the words of a caption; ``at`` is where the next one begins."""

    def __init__(self, caption: str) -> None:
        self.text = "".join(f"{word} " for word in tokens(caption))
        self.at = 0
        self.phrases: list[Phrase] = []
        self.claims: list[Claim] = []
        self.backgrounds: list[str] = []
        self.take(_INTRO)
        if not self.clause():
            raise self.failure()
        while not self.ended():
            start = self.at
            joint = self.take(_JOINT)
            # Only a counted phrase can stand for the things named after it.
            if joint and joint[1] and not self.claims:
                last = self.phrases[-1]
                self.phrases[-1] = replace(last, head=last.how in ("count", "many"))
            if not joint or not self.clause():
                self.at = start
                raise self.failure()

    def failure(self) -> Unparsed:
        rest = " ".join(self.text[self.at :].split()[:4])
        return Unparsed(f"not understood: {rest!r}" if rest else "not understood: it ends too soon")

    def ended(self) -> bool:
        self.take(_ENDING)
        return self.at == len(self.text)

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Move over the pattern if it comes next."""
        match = pattern.match(self.text, self.at)
        if match:
            self.at = match.end()
        return match

    def clause(self) -> bool:
        current = found = self.nouns()
        while current:
            start = self.at
            verb = self.take(_VERB)
            current = self.modifier(current)
            if not current:
                self.at = start
                if verb:
                    raise self.failure()
        return bool(found)

    def modifier(self, current: Indices) -> Indices:
        """Read one modifier of ``current``; the list that the next one modifies, or none."""
        start = self.at
        if relation := self.take(_RELATION):
            # The two of "between" may come as one list or as a phrase for both.
            if other := self.nouns():
                word = relation[1] or relation[2]
                self.claim(start, _SAME.get(word, word), current, other)
                return other
            self.at = start  # "on the left of the picture" is a place
        if place := self.take(_PLACE):
            self.claim(start, f"{place[2] or 'at'} {place[1]}", current)
        elif pair := self.take(_PAIR):
            self.claim(start, pair[1], current)
        elif background := self.take(_BACKGROUND):
            self.backgrounds.append(background[1])
        else:
            return ()
        return current

    def claim(self, start: int, relation: str, about: Indices, to: Indices = ()) -> None:
        self.claims.append(Claim(self.text[start : self.at - 1], relation, about, to))

    def nouns(self) -> Indices:
        """Read a list of noun phrases; their indices, none when no noun phrase comes."""
        first, end = len(self.phrases), self.at
        while self.noun_phrase():
            end = self.at
            if not self.take(_AND):
                break
        self.at = end
        return tuple(range(first, len(self.phrases)))

    def noun_phrase(self) -> bool:
        """Read one noun phrase, or two that share their noun ("one large and two small rings")."""
        match = self.take(_NOUNS)
        if not match:
            return False
        before, text, noun = match.groups()
        phrase = _phrase(text, noun)
        # The noun's number follows the phrase that it stands in.
        if NOUNS[noun][1] != (phrase.how == "many" or (phrase.count or 1) > 1):
            return False
        if before and not phrase.size:
            return False
        if before:
            self.phrases.append(replace(_phrase(before, noun), colour=phrase.colour))
        self.phrases.append(phrase)
        return True


def _phrase(text: str, noun: str) -> Phrase:
    words = text.split()
    shape, several = NOUNS[noun]
    count = next((COUNTS[word] for word in words if word in COUNTS), None)
    return Phrase(
        text if noun in words else f"{text} {noun}",
        "count" if count else _HOW.get(words[0], "many" if several else "a"),
        count,
        next((SIZE_WORDS[word] for word in words if word in SIZE_WORDS), None),
        next((word for word in words if word in COLOURS), None),
        shape,
    )


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
        said = _Parser(caption)
    except Unparsed as error:
        return Verdict(False, str(error))
    for pattern in said.backgrounds:
        if pattern != scene.background.pattern:
            return Verdict(False, f"the background is {scene.background.pattern}, not {pattern}")
    options: list[list[Sequence[Thing]]] = []
    for phrase in said.phrases:
        matches = [thing for thing in scene.things if _fits(thing, phrase)]
        n = len(matches)
        if not n:
            return Verdict(False, f"{phrase.text}: there is none")
        if n != {"a": n, "the": 1, "many": max(n, 2), "count": phrase.count}[phrase.how]:
            return Verdict(False, f"{phrase.text}: there {'is' if n == 1 else 'are'} {n}")
        options.append([[one] for one in matches] if phrase.how == "a" else [matches])
    for claim in said.claims:
        if not any(_holds(claim, choice) for choice in _choices(options, claim.about + claim.to)):
            subject = " and ".join(said.phrases[index].text for index in claim.about)
            return Verdict(False, f"not so: {subject} {claim.text}")
    for choice in _choices(options, tuple(range(len(options)))):
        if _disjoint(said.phrases, choice) and all(_holds(claim, choice) for claim in said.claims):
            return Verdict(True, "every claim holds")
    return Verdict(False, "no choice of things fits all that is said together")


def _fits(thing: Thing, phrase: Phrase) -> bool:
    return all(
        getattr(phrase, field) in (None, getattr(thing, field))
        for field in ("size", "colour", "shape")
    )


Choice = dict[int, Sequence[Thing]]


def _choices(options: list[list[Sequence[Thing]]], about: Indices) -> Iterator[Choice]:
    """All ways to let each phrase of ``about`` name things."""
    for things in product(*(options[index] for index in about)):
        yield dict(zip(about, things, strict=True))


def _disjoint(phrases: list[Phrase], choice: Choice) -> bool:
    """Whether phrases that must name different things do so."""
    bound = [index for index in choice if not phrases[index].head and phrases[index].how != "the"]
    named = list(map(id, chain.from_iterable(choice[index] for index in bound)))
    return len(named) == len(set(named))


def _holds(claim: Claim, choice: Choice) -> bool:
    about, to = (
        [thing for index in indices for thing in choice[index]]
        for indices in (claim.about, claim.to)
    )
    if claim.relation == "between":
        return len(to) == 2 and all(between(thing, *to) for thing in about)
    if claim.relation in ("side by side", "one above the other"):
        way = "left" if claim.relation == "side by side" else "above"
        return len(about) == 2 and any(
            holds(way, [one], [other]) for one, other in (about, about[::-1])
        )
    if claim.to:
        return holds(claim.relation, about, to)
    corner, place = claim.relation.split(" ", 1)
    return all(at(place, thing, corner=corner == "corner") for thing in about)

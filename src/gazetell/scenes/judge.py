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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from .language import COUNTS, NOUNS, SIZE_WORDS, tokens
from .world import BACKGROUNDS, COLOURS, PLACES, Scene, Thing, at, between, holds


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: how many of what.

    ``count`` is None for *a* (at least one), *the* (exactly one) and a bare plural (at least
    two); ``how`` is "a", "the", "many" or "count". ``head`` marks a counted phrase that what
    follows spells out (*three shapes with a red ring on the left*).
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
    about: tuple[int, ...]
    to: tuple[int, ...] = ()


@dataclass
class Claims:
    """All that a caption says."""

    phrases: list[Phrase] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    backgrounds: list[str] = field(default_factory=list)


class Unparsed(ValueError):
    """The words are not of this language; the message says from where on."""


Words = tuple[str, ...]


def _phrases(*texts: str) -> list[Words]:
    """Phrases as words, longest first so that the longest match wins."""
    return sorted((tuple(text.split()) for text in texts), key=len, reverse=True)


_MEDIUM = ("picture", "image")
_INTROS = _phrases(
    "there is",
    "there are",
    "here is",
    "here are",
    "it shows",
    "you can see",
    "we can see",
    "we see",
    *(f"{article} {noun} shows" for article in ("the", "this") for noun in _MEDIUM),
    *(f"{article} {noun} {verb}" for article in ("a", "an", "the") for noun in _MEDIUM
      for verb in ("of", "with", "showing")),
    *(f"in {article} {noun} {verb}" for article in ("the", "this") for noun in _MEDIUM
      for verb in ("there is", "there are")),
)  # fmt: skip
_ENDINGS = _phrases(*(f"in {word} {noun}" for word in ("the", "this") for noun in _MEDIUM))
_JOINTS = _phrases("and", "with", "where", "while", "including", "and there is", "and there are")
_VERBS = _phrases("is", "are", "that is", "that are", "which is", "which are")
_RELATIONS: dict[Words, str] = {
    tuple(text.split()): name
    for name, texts in {
        "left": ("to the left of", "on the left of", "left of"),
        "right": ("to the right of", "on the right of", "right of"),
        "above": ("above", "over"),
        "below": ("below", "under", "beneath"),
    }.items()
    for text in texts
}
_PLACES: dict[Words, tuple[str, bool]] = {
    tuple(f"{preposition} the {place} {side} {of}".split()): (place, side == "corner")
    for place in (*PLACES, "middle")
    for preposition in ("at", "in", "on", "to")
    for side in ("", "side", "half", "part", "corner")
    for of in ("", "of the picture", "of the image")
}
_RELATION_WORDS = _phrases(*(" ".join(words) for words in _RELATIONS))
_PLACE_WORDS = _phrases(*(" ".join(words) for words in _PLACES))


def parse(caption: str) -> Claims:
    """What a caption claims.

    Raises:
        Unparsed: the caption is not of this language.
    """
    return _Parser(tokens(caption)).caption()


class _Parser:
    """Recursive descent over the words; ``at`` is the next one."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.at = 0
        self.said = Claims()

    def caption(self) -> Claims:
        self.take(_INTROS)
        if not self.clause():
            raise self.failure()
        while not self.ended():
            start = self.at
            joint = self.take(_JOINTS)
            # Only a counted phrase can stand for the things named after it.
            if joint and joint[0] in ("with", "where", "including"):
                self.mark_head()
            if not joint or not self.clause():
                self.at = start
                raise self.failure()
        return self.said

    def failure(self) -> Unparsed:
        rest = " ".join(self.words[self.at : self.at + 4])
        return Unparsed(f"not understood: {rest!r}" if rest else "not understood: it ends too soon")

    def ended(self) -> bool:
        self.take(_ENDINGS)
        return self.at == len(self.words)

    def mark_head(self) -> None:
        last = self.said.phrases[-1]
        if last.how in ("count", "many") and not self.said.claims:
            self.said.phrases[-1] = replace(last, head=True)

    def take(self, phrases: list[Words]) -> Words | None:
        """Move over the longest of the phrases that comes next."""
        for phrase in phrases:
            if self.peek(len(phrase)) == phrase:
                self.at += len(phrase)
                return phrase
        return None

    def peek(self, length: int = 1) -> Words:
        return tuple(self.words[self.at : self.at + length])

    def clause(self) -> bool:
        current = self.phrase_list()
        if not current:
            return False
        while self.at < len(self.words):
            start = self.at
            verb = self.take(_VERBS)
            following = self.modifier(current)
            if following is None:
                self.at = start
                if verb:
                    raise self.failure()
                break
            current = following
        return True

    def phrase_list(self) -> tuple[int, ...]:
        """Indices of the noun phrases of a list; none when no noun phrase comes."""
        found = self.noun_phrases()
        while found and self.peek() == ("and",):
            start = self.at
            self.at += 1
            more = self.noun_phrases()
            if not more:
                self.at = start
                break
            found += more
        return found

    def modifier(self, current: tuple[int, ...]) -> tuple[int, ...] | None:
        """Read one modifier of ``current``; the list that the next one modifies, or None."""
        start = self.at
        phrase = self.take(_RELATION_WORDS)
        if phrase:
            other = self.phrase_list()
            if other:
                self.claim(start, _RELATIONS[phrase], current, other)
                return other
            self.at = start  # "on the left of the picture" is a place
        place = self.take(_PLACE_WORDS)
        if place:
            where, corner = _PLACES[place]
            self.claim(start, f"{'corner' if corner else 'at'} {where}", current)
            return current
        if self.take([("between",)]):
            # The two may come as one list or as a phrase for both ("between two rings").
            other = self.phrase_list()
            if other:
                self.claim(start, "between", current, other)
                return other
        elif self.take([("side", "by", "side")]):
            self.claim(start, "beside", current)
            return current
        elif self.take([("one", "above", "the", "other")]):
            self.claim(start, "stacked", current)
            return current
        elif self.take([("on",), ("against",)]) and self.take([("a",), ("the",)]):
            pattern = self.peek()[0] if self.peek() else ""
            self.at += 1
            if pattern in BACKGROUNDS and self.take([("background",)]):
                self.said.backgrounds.append(pattern)
                return current
        self.at = start
        return None

    def claim(
        self, start: int, relation: str, about: tuple[int, ...], to: tuple[int, ...] = ()
    ) -> None:
        text = " ".join(self.words[start : self.at])
        self.said.claims.append(Claim(text, relation, about, to))

    def noun_phrases(self) -> tuple[int, ...]:
        """Read one noun phrase, or two that share their noun; none when none comes."""
        start = self.at
        first = self.qualifiers()
        if first.size and not first.colour and self.peek() == ("and",):
            shared = self.at
            self.at += 1
            second = self.qualifiers()
            noun = self.noun(second) if second.size and second.how else None
            if noun:
                # The noun's number follows the second ("one large and two small rings").
                one = _Qualifiers(first.how, first.count, first.size, second.colour)
                return (
                    self.add(start, shared, one, noun),
                    self.add(shared + 1, self.at, second, noun),
                )
            self.at = shared
        noun = self.noun(first)
        if noun is None:
            self.at = start
            return ()
        return (self.add(start, self.at, first, noun),)

    def qualifiers(self) -> "_Qualifiers":
        found = _Qualifiers()
        if self.take([("the",)]):
            found.how = "the"
        elif self.take([("a",), ("an",), ("another",)]):
            found.how = "a"
        if found.how != "a" and self.peek() and self.peek()[0] in COUNTS:
            found.how, found.count = "count", COUNTS[self.peek()[0]]
            self.at += 1
        while self.peek():
            word = self.peek()[0]
            if word in SIZE_WORDS and not found.size:
                found.size = SIZE_WORDS[word]
            elif word in COLOURS and not found.colour:
                found.colour = word
            else:
                break
            self.at += 1
        return found

    def noun(self, qualifiers: "_Qualifiers") -> str | None:
        """The noun that comes next, if its number agrees with what is before it."""
        word = self.peek()[0] if self.peek() else ""
        if word not in NOUNS:
            return None
        many = NOUNS[word][1]
        if qualifiers.how and many != ((qualifiers.count or 1) > 1):
            return None
        self.at += 1
        qualifiers.how = qualifiers.how or ("many" if many else "a")
        return word

    def add(self, start: int, end: int, found: "_Qualifiers", noun: str) -> int:
        text = " ".join(self.words[start:end])
        if noun not in self.words[start:end]:
            text += f" {noun}"
        self.said.phrases.append(
            Phrase(text, found.how, found.count, found.size, found.colour, NOUNS[noun][0])
        )
        return len(self.said.phrases) - 1


@dataclass
class _Qualifiers:
    """What stands before a noun."""

    how: str = ""
    count: int | None = None
    size: str | None = None
    colour: str | None = None


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

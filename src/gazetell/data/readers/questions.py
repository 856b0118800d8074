"""Questions made from captions by rules on their words, for more to learn from.

Ren, Kiros and Zemel 2015, "Exploring models and data for image question answering" (COCO-QA,
arXiv 1505.02074), find objects, numbers, colours and places with a parser. Here lists of common
things do (``questions.toml``). What one caption of a picture contradicts is not asked. Types:

    which-animal, -vehicle, -food     the only one that the captions name
    sport, room, place, doing         likewise, of a list of patterns
    how-many                          "two dogs"; one where no caption tells of more
    color                             "a red bus"
    where, what-on                    "a cat is sitting on a bed", either way round
    holding, riding, wearing, ...     "a man holding an umbrella"
    there, is-it, place-it, doing-it  yes where the value was found; no for another value, drawn as
                                      often as it is found, so that words alone tell nothing
"""

import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import NamedTuple

from ...errors import DataError, UsageError
from ...metrics.answers import NUMBERS, normalise_answer
from ..records import Dataset, QuestionRecord
from .rows import BadRows, Collector

# Also said of those who do something else.
_POSTURES = {"sitting", "standing", "lying", "walking", "running"}
_KNOWN = tomllib.loads((resources.files(__package__) / "questions.toml").read_text("utf-8"))
_KIND = {name: kind for kind, names in _KNOWN["things"].items() for name in names}
_LIST = {key: re.split(r"[| ]", text) for key, text in _KNOWN.items() if isinstance(text, str)}
_SALIENT, _UNCOUNTED = (_KNOWN[key].split("|") for key in ("salient", "uncounted"))
_VERBS = {form: verb for verb, text in _KNOWN["verbs"].items() for form in text.split("|")}


class _Word(NamedTuple):
    text: str
    thing: str = ""  # the name of the thing that it stands for
    plural: bool = False
    head: bool = False  # whether it is the thing itself: in "dog bed" there is no dog


class _Value(NamedTuple):
    """A value that was found: in ``question`` {one}, {many} or {value} stands for it."""

    type: str
    question: str
    value: str
    others: Iterable[str]  # values that may be right as well


_Found = Iterator[tuple[str, str, str] | _Value]  # type, question, answer


def _plural(name: str) -> str:
    """The plural of a name, which is that of its last word."""
    first, blank, last = name.rpartition(" ")
    if last in _KNOWN["plural"]:
        return f"{first}{blank}{_KNOWN['plural'][last]}"
    if re.search("[^aeou]y$", name):
        return f"{name[:-1]}ies"
    return name + ("es" if re.search("(s|x|ch|sh)$", name) else "s")


def _fill(question: str, name: str, subject: str = "") -> str:
    """A question about a thing."""
    one = name if _plural(name) == name else f"{'an' if name[:1] in tuple('aeiou') else 'a'} {name}"
    return question.format(one=one, many=_plural(name), value=name, subject=subject)


def _forms() -> Iterator[tuple[str, tuple[str, bool]]]:
    """From each form of a word for a thing to the name of the thing, and whether it is plural."""
    for name, words in ((n, w) for names in _KNOWN["things"].values() for n, w in names.items()):
        for word in (name, *filter(None, words.split("|"))):
            yield _plural(word), (name, True)
            if word not in _LIST["colours"]:
                yield word, (name, False)


_FORMS = dict(_forms())


def _words(caption: str) -> list[_Word]:
    """The words of a caption, with the things among them."""
    text = caption.lower().replace("grey", "gray").replace("'s ", " 's ")
    found: list[_Word] = []
    plain, at = re.findall(r"[a-z0-9'-]+|[.,;]", text), 0
    while at < len(plain):
        parts = (" ".join(plain[at : at + size]) for size in (4, 3, 2))
        part = next((part for part in parts if part in _FORMS), plain[at])
        thing, plural = _FORMS.get(part, ("", False))
        if thing and _plural(thing) == thing:  # sheep
            plural = not {"a", "an", "one"} & set(plain[max(0, at - 3) : at])
        found.append(_Word(part, thing, plural))
        at += part.count(" ") + 1
    return [
        one._replace(head=bool(one.thing) and not (then.thing or then.text in _LIST["heads"]))
        for one, then in pairwise([*found, _Word(".")])
    ]


class _Picture:
    """What the captions of a picture tell, and what can be asked of it."""

    def __init__(self, captions: Sequence[str], random: Random) -> None:
        self.random, self.captions = random, [_words(caption) for caption in captions]
        self.texts = [f" {' '.join(word.text for word in words)} " for words in self.captions]
        self.named = {word.thing for words in self.captions for word in words if word.thing}
        heads = [
            {word.thing: word.plural for word in words if word.head} for words in self.captions
        ]
        self.heads = Counter(thing for one in heads for thing in one)
        self.plurals = Counter(thing for one in heads for thing, plural in one.items() if plural)
        people = {thing for thing in self.heads if _KIND[thing] == "person"}
        animals = [thing for thing in self.named if _KIND[thing] == "animal"]
        self.crowd = self.mentions("people") or any(self.plurals[thing] for thing in people)
        self.crowd |= any(sum(_KIND[thing] == "person" for thing in one) > 1 for one in heads)
        # A girl for one may be a woman for another, but a man for none.
        sexes = [[p for p in people if p in sex] for sex in (("man", "boy"), ("woman", "girl"))]
        known = [*sexes[0], *sexes[1]] or [thing for thing in people if thing != "person"]
        who = "person" if all(sexes) else max(known, key=self.heads.__getitem__, default="person")
        self.subject = "people" if self.crowd else who if people else ""
        if not self.subject and len(animals) == 1 and not self.mentions("fake"):
            self.crowd = self.mentions("many") or self.plurals[animals[0]] > 0
            self.subject = _plural(animals[0]) if self.crowd else animals[0]

    def mentions(self, key: str) -> bool:
        """Whether a caption has one of the words of a list."""
        return any(re.search(f" ({_KNOWN.get(key, key)}) ", text) for text in self.texts)

    def ask(self, key: str, name: str, several: bool) -> str:
        forms = _KNOWN["questions"].get(f"{key}s" if several else key) or _KNOWN["questions"][key]
        return _fill(self.random.choice(forms), name, self.subject)

    def which(self) -> _Found:
        for kind in ("animal", "vehicle", "food"):
            names = [thing for thing in self.named if _KIND[thing] == kind]
            if len(names) == 1 and self.heads[names[0]] >= 2 and not self.mentions("fake"):
                several = 2 * self.plurals[names[0]] > self.heads[names[0]]
                answer = _plural(names[0]) if several else names[0]
                yield f"which-{kind}", self.ask(f"which-{kind}", names[0], several), answer
                if not several and kind != "food":
                    yield _Value("is-it", "Is this {one}?", names[0], names)

    def patterns(self) -> _Found:
        for type, about in _KNOWN["pattern"].items():
            counts = {k: sum(bool(re.search(p, t)) for t in self.texts) for k, p in about.items()}
            found = {name: count for name, count in counts.items() if count}
            strong = [name for name in found if name not in _POSTURES] or list(found)
            if len(strong) != 1 or found[strong[0]] < 2 or (type == "doing" and not self.subject):
                continue
            yield type, self.ask(type, self.subject, type == "doing" and self.crowd), strong[0]
            others = [*found, *_KNOWN["near"].get(strong[0], "").split("|")]
            if type in ("doing", "place"):
                do = f"{'Are' if self.crowd else 'Is'} the {self.subject} {{value}}?"
                question = do if type == "doing" else "Is this {one}?"
                yield _Value(f"{type}-it", question, strong[0], others)

    def numbers(self) -> _Found:
        said: dict[str, Counter[str]] = defaultdict(Counter)
        for words in self.captions:
            for at, word in enumerate(words):
                near = [w.text for w in words[max(0, at - 3) : at] if w.text in NUMBERS]
                if word.head and word.plural and near:
                    said[word.thing][NUMBERS[near[-1]]] += 1
        for thing, count in self.heads.items():
            if count >= 3 and not self.plurals[thing] and not self.mentions("many"):
                said[thing]["1"] += 0 if thing in _UNCOUNTED or _KIND[thing] == "place" else 2
        for thing, counts in said.items():
            if len(counts) == 1 and sum(counts.values()) >= 2:
                yield "how-many", self.ask("how-many", thing, False), next(iter(counts))

    def colours(self) -> _Found:
        found: dict[str, set[str]] = defaultdict(set)
        for words in self.captions:
            texts = [" ", " ", " ", *(word.text for word in words)]
            for at, word in enumerate(words, start=3):
                plain = texts[at - 1] in _LIST["function"] or words[at - 4].thing
                last = at - (1 if plain or texts[at - 1] in _LIST["colours"] else 2)
                if word.head and texts[last] in _LIST["colours"]:
                    two = texts[last - 1] == "and" and texts[last - 2] in _LIST["colours"]
                    found[word.thing].add(" ".join(texts[last - 2 * two : last + 1]))
                    if "," in texts[last - 2 - two : last]:
                        found[word.thing].add("of many")
        for thing, said in found.items():
            mixed = len(said) > 1 or self.plurals[thing] not in (0, self.heads[thing])
            if mixed or _KIND[thing] in ("person", "drink", "place") or self.mentions("grey"):
                continue
            colour = next(iter(said))
            yield "color", self.ask("color", thing, self.plurals[thing] > 0), colour
            if not self.plurals[thing]:
                yield _Value("color-it", f"Is the {thing} {{value}}?", colour, said)

    def relations(self) -> _Found:
        """Who holds what, and where things are."""
        held: dict[str, Counter[str]] = defaultdict(Counter)
        for words in self.captions:
            things = [n for n, word in enumerate(words) if word.thing]
            for at, then in pairwise(things):
                one, other, between = words[at], words[then], [w.text for w in words[at + 1 : then]]
                while between and between[-1] not in _LIST["function"] and len(between) > 1:
                    between.pop()  # adjectives
                while between and between[-1] in _LIST["articles"]:
                    between.pop()
                if not (one.head and other.head and between):
                    continue
                name = _plural(other.thing) if other.plural else other.thing
                verb, links = _VERBS.get(between[-1]), {*between[:-1]} <= {*_LIST["links"]}
                if verb and links and (one.thing == self.subject or _KIND[one.thing] == "person"):
                    held[f"{verb}"][name] += 1
                elif between[-1] in ("on", "in", "at", "under", "behind") and links:
                    if _KIND[other.thing] in _LIST["places"]:
                        bare = _KIND[other.thing] == "place" and between[-1] in ("on", "in", "at")
                        held[f"where {one.thing}"][name if bare else f"{between[-1]} {name}"] += 1
                    if between[-1] == "on" and other.thing in _LIST["holders"]:
                        what = _plural(one.thing) if one.plural else one.thing
                        held[f"what-on {other.thing}"][what] += _KIND[one.thing] != "person"
        for key, names in held.items():
            type, _, thing = key.partition(" ")
            (name, count), several = names.most_common(1)[0], self.plurals[thing] > 0
            if len(names) == 1 and count >= 1 + bool(thing) and (thing or self.subject):
                crowd = several if thing else self.crowd
                yield type, self.ask(type, thing or self.subject, crowd), name

    def there(self) -> _Found:
        maybe = {thing for thing in _SALIENT if thing in self.named}
        for words, kind in _KNOWN["general"].items():
            if self.mentions(words):
                maybe |= {thing for thing in _SALIENT if _KIND[thing] == kind}
        for thing in sorted(maybe):
            if self.heads[thing] >= 2:
                forms = _KNOWN["questions"]["theres" if self.plurals[thing] else "there"]
                yield _Value("there", self.random.choice(forms), thing, maybe)

    def asked(self) -> _Found:
        for rule in (self.which, self.patterns, self.numbers, self.colours, self.relations):
            yield from rule()
        yield from self.there()


def questions_from_captions(
    prepared: Path, *, most: float = 0.35, seed: int = 0, bad: BadRows | None = None
) -> Dataset:
    """Questions made from the captions of a prepared dataset: what, how many, what color, where.

    They are English, and about common things of photographs; each keeps its picture and split.

    Args:
        prepared: A prepared dataset with captions.
        most: No answer has a larger share of its type of question (among few different answers,
            each has the same); "yes" and "no" have half each for every thing asked about.
        seed: Of the choice of words, of what is not there, and of questions left out for MOST.
        bad: What to do with bad rows.
    """
    if not 0 < most <= 1:
        raise UsageError(f"most {most}: expected a share above 0, at most 1")
    dataset, random = Dataset.open(prepared), Random(seed)
    if not dataset.captions:
        raise DataError(f"{prepared}: has no captions, which the questions are made from")
    collector = Collector(dataset.root, bad)
    # By split and type, for yes and no also by what is asked about: (record, question, answer).
    found: dict[tuple[str, ...], list[tuple[int, str, str]]] = defaultdict(list)
    values: dict[tuple[str, ...], list[tuple[int, _Value]]] = defaultdict(list)
    for number, record in enumerate(dataset.captions):
        for one in _Picture(record.captions, Random(f"{seed}/{record.id}")).asked():
            if isinstance(one, _Value):
                like = _KIND.get(one.value, ""), "" if one.type == "there" else one.question
                values[record.split, one.type, *like].append((number, one))
            else:
                found[record.split, one[0]].append((number, *one[1:]))
    for (split, type, *_), ones in values.items():
        for number, one in ones:
            other = random.choice(ones)[1].value
            if random.random() < 0.5:
                row = number, _fill(one.question, one.value), "yes"
                found[split, type, one.value].append(row)
            elif other not in one.others:
                found[split, type, other].append((number, _fill(one.question, other), "no"))
    asked: list[tuple[int, str, str, str]] = []
    for (_, type, *value), rows in found.items():
        counts = Counter(answer for *_, answer in rows)
        share = max(most, 1 / max(len(counts), 1 + bool(value)))
        limit = max(counts.values())
        while limit > share * sum(min(count, limit) for count in counts.values()):
            limit -= 1
        kept: Counter[str] = Counter()
        for number, question, answer in random.sample(rows, len(rows)):
            kept[answer] += 1
            if kept[answer] <= limit:
                asked.append((number, type, question, answer))
    for place, (number, type, question, answer) in enumerate(sorted(asked)):
        record, text = dataset.captions[number], normalise_answer(answer)
        kind = {"yes": "yes/no", "no": "yes/no"}.get(text, "number" if text.isdigit() else "other")
        id = f"asked-{record.id}-{place}"
        made = QuestionRecord(id, record.image, question, (text,), record.split, type, kind)
        collector.add(str(prepared), made)
    if not asked:
        raise DataError(
            f"{prepared}: no question can be made of its captions; expected English captions "
            "about common things of photographs, best several per picture"
        )
    if left := len(dataset.captions) - len({number for number, *_ in asked}):
        collector.bad.notes.append(f"pictures left out, whose captions give no question: {left:,}")
    return collector.dataset(f"{dataset.name}-asked", "asked", prepared, dataset.machine_made)


READERS = {"questions-from-captions": questions_from_captions}

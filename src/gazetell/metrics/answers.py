"""Scores of answers to questions about pictures: accuracy and WUPS.

Accuracy, as the official VQA evaluation counts it.

Ten people answered each question. An answer is held against each nine of them in turn::

    accuracy = mean over i of min(matches among the answers but the i-th / 3, 1)

so that three who agree make it right. What counts as a match has rules (`normalise_answer`), and
the evaluation changed them once:

======  ====================================================  ================================
year    answers of people                                     prediction
======  ====================================================  ================================
2021    normalised unless all are the same                    normalised unless all people's are
                                                              the same
2015    only punctuation normalised, unless all are the same  always normalised
======  ====================================================  ================================

Where all agree, 2021 compares the texts as they are, capitals and all (a text to be read from the
picture stays a text); 2015 normalises the prediction even then. The second row was in use until
the change.

Questions with fewer than four answers, such as those of datasets with one, cannot reach 100 % by
that formula. They are scored by exact match after the same normalisation.

WUPS: answers judged by how near their words lie in a taxonomy, the measure of DAQUAR.

An answer is a set of items with commas between them ("table, chair"). For the right set T and the
answered set A::

    WUPS(A, T) = min( prod_{a in A} max_{t in T} w(a, t) , prod_{t in T} max_{a in A} w(a, t) )
    w(a, t)    = s(a, t)        if s(a, t) >= threshold
                 0.1 s(a, t)    otherwise

with s the similarity of Wu and Palmer, 2 depth(common ancestor) / (depth(a) + depth(t)), of the
nearest two noun meanings in WordNet; 1 for equal items and 0 where a word is not in it. 0.9 is
strict (nearly synonyms only), 0.0 weights nothing down. With several right answers the mean over
them is taken (average consensus of the second reference).

WordNet's noun files are read from Debian's ``wordnet-base``, from what nltk has unpacked, or from
the folder that the environment variable WNSEARCHDIR names. Where there are none the score is "not
computed", with the reason, never 0. Nothing is downloaded.

Items are compared after `normalise_answer`, so that an exact match is 1 here.
That drops commas: an answer from a vocabulary of normalised answers is one item, and where it has
several words it can only be right as a whole.

References:
    Antol et al. 2015, VQA: Visual Question Answering (the measure).
    Goyal et al. 2017, Making the V in VQA Matter (version 2).
    The official code: GT-Vision-Lab/VQA, a013f00 (2021) and c4e6a0e (before).
    Wu and Palmer 1994, Verb Semantics and Lexical Selection.
    Malinowski and Fritz 2014, A Multi-World Approach to Question Answering about Real-World Scenes.
    Malinowski, Rohrbach and Fritz 2015, Ask Your Neurons (consensus).
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import prod
from pathlib import Path
from typing import Any

from .words import check_pairs

YEARS = (2015, 2021)
OFFICIAL, EXACT = "official VQA accuracy", "exact match"
FULL = 3  # people who must agree
VOTES = FULL + 1  # with fewer answers nobody can reach 1: one is always left out

MARKS = ';/[]"{}()=+\\_-><@`,?!'  # neither the apostrophe nor the colon of times
ARTICLES = ("a", "an", "the")
NUMBERS = {
    **{"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"},
    **{"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"},
}
# The forms that are put right when exactly one apostrophe is missing. The list is that of the
# evaluation, with its gaps; its entries with capitals never apply, for words are in lower case.
APOSTROPHES = """
'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't
hadn't've hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am
might've mightn't mightn't've must've mustn't needn't not've o'clock oughtn't shan't she'd've
should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've
someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've wasn't we'd've we've weren't what'll what're
what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're
you've
"""
CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in APOSTROPHES.split()
    for place, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}  # the evaluation has this one the wrong way round

_THOUSANDS = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
# The official code passes a flag of value 32 where the number of replacements belongs.
_PERIODS = 32


@lru_cache(maxsize=1 << 16)
def normalise_answer(text: str) -> str:
    """An answer as the official evaluation compares it.

    Line breaks and tabs become blanks, punctuation becomes a blank (nothing where a blank is
    beside it or a comma stands between digits), periods that begin no decimal go, letters become
    lower case, number words up to ten become digits, articles go, and missing apostrophes are
    put in. It is to be applied once: a second time may change the text again.

    Args:
        text: an answer; it may be empty, and one of articles and punctuation becomes empty.
    """
    words = _punctuation(_blanks(text)).lower().split()
    digits = (NUMBERS.get(word, word) for word in words)
    return " ".join(CONTRACTIONS.get(word, word) for word in digits if word not in ARTICLES)


def vqa_accuracy(answers: Sequence[str], prediction: str, *, year: int = 2021) -> float:
    """The official accuracy of one answer.

    Args:
        answers: what people answered, in general ten.
        prediction: the answer to judge.
        year: of the evaluation's rules, 2021 or 2015 (see `gazetell.metrics.answers`).

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: no answers, or another year.
    """
    if not answers:
        raise ValueError("no answers to compare with")
    if year not in YEARS:
        raise ValueError(f"year {year}; expected one of {', '.join(map(str, YEARS))}")
    people = list(map(_blanks, answers)) if year == 2021 else list(answers)
    agreed = len(set(people)) == 1
    if not agreed:
        people = list(map(normalise_answer if year == 2021 else _punctuation, people))
    text = _blanks(prediction) if agreed and year == 2021 else normalise_answer(prediction)
    matches = people.count(text)
    # Summed one by one, as the official code does, so that sums of many questions are equal to it.
    return sum(min(1, (matches - (one == text)) / FULL) for one in people) / len(people)


def exact_match(answers: Sequence[str], prediction: str) -> float:
    """1.0 if the prediction is one of the answers after `normalise_answer`, else 0.0."""
    text = normalise_answer(prediction)
    return float(any(normalise_answer(answer) == text for answer in answers))


def answer_accuracy(answers: Sequence[str], prediction: str, *, year: int = 2021) -> float:
    """The accuracy of one answer by the measure that fits the number of people's answers.

    That is `vqa_accuracy` for four answers or more, `exact_match` for fewer. Errors are those of
    `vqa_accuracy`.
    """
    if 0 < len(answers) < VOTES:
        return exact_match(answers, prediction)
    return vqa_accuracy(answers, prediction, year=year)


def answer_measure(references: Mapping[str, Sequence[str]], *, year: int = 2021) -> str:
    """What `score_answers` calls its measure: official, exact match, or both where they mix."""
    few = sum(len(answers) < VOTES for answers in references.values())
    official = OFFICIAL if year == 2021 else f"{OFFICIAL} of {year}"
    if not few:
        return official
    return EXACT if few == len(references) else f"{official}, {EXACT} below {VOTES} answers"


def answer_scores(
    references: Mapping[str, Sequence[str]], predictions: Mapping[str, str], *, year: int = 2021
) -> dict[str, float]:
    """`answer_accuracy` of each question, in [0, 1], in the order of ``references``.

    Arguments and errors are those of `score_answers`.
    """
    check_pairs(references, predictions, "question")
    return {
        question: answer_accuracy(answers, predictions[question], year=year)
        for question, answers in references.items()
    }


def score_answers(
    references: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    *,
    question_types: Mapping[str, str | None] | None = None,
    answer_types: Mapping[str, str | None] | None = None,
    year: int = 2021,
) -> dict[str, Any]:
    """Score answers as the official VQA evaluation prints them.

    Args:
        references: people's answers to each question, at least one.
        predictions: the answer to each of the same questions.
        question_types: the type of each question ("what color is the", ...), where it has one.
        answer_types: likewise of its answers ("yes/no", "number", "other").
        year: of the official rules.

    Returns:
        ``accuracy``, ``per_answer_type`` and ``per_question_type`` (by name; empty without
        types) in 0 to 100 with two digits, ``measure`` (its name) and ``questions`` (how many).

    Raises:
        ValueError: no questions, different questions in the two, or one without answers.
    """
    scores = answer_scores(references, predictions, year=year)
    return {
        "accuracy": _percent(list(scores.values())),
        "measure": answer_measure(references, year=year),
        "questions": len(scores),
        "per_answer_type": _per_type(scores, answer_types),
        "per_question_type": _per_type(scores, question_types),
    }


def _blanks(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _punctuation(text: str) -> str:
    """Marks to blanks or to nothing, judged by the text as it was before any was replaced."""
    thousands = _THOUSANDS.search(text) is not None
    table: dict[int, str] = {
        ord(mark): "" if thousands or f"{mark} " in text or f" {mark}" in text else " "
        for mark in MARKS
        if mark in text
    }
    return _PERIOD.sub("", text.translate(table), count=_PERIODS)


def _percent(scores: Sequence[float]) -> float:
    return round(100 * float(sum(scores)) / len(scores), 2)


def _per_type(
    scores: Mapping[str, float], types: Mapping[str, str | None] | None
) -> dict[str, float]:
    """The accuracy of the questions of each type; those without a type are in none."""
    groups: dict[str, list[float]] = {}
    for question, score in scores.items():
        type_ = (types or {}).get(question)
        if type_ is not None:
            groups.setdefault(type_, []).append(score)
    return {type_: _percent(groups[type_]) for type_ in sorted(groups)}


Similarity = Callable[[str, str], float]
THRESHOLDS = (0.9, 0.0)
WORDNETS = ("/usr/share/wordnet", os.path.expanduser("~/nltk_data/corpora/wordnet"))
# From the endings of plurals to those of singulars, as in WordNet's own search.
ENDINGS = {
    **{"s": "", "ses": "s", "ves": "f", "xes": "x", "zes": "z", "ches": "ch", "shes": "sh"},
    **{"men": "man", "ies": "y"},
}.items()
FAR = 0.1  # weight of a similarity below the threshold


@dataclass(frozen=True)
class Wups:
    """WUPS at some thresholds, which may not have been computed.

    ``scores`` has a number in 0 to 100, with two digits, for each threshold; or None, and then
    ``reason`` is one line that says why.
    """

    scores: dict[float, float | None]
    reason: str | None = None


def wups(
    answers: Sequence[str], prediction: str, threshold: float, similarity: Similarity
) -> float:
    """WUPS of one answer.

    Args:
        answers: the right answers, at least one, each a set of items with commas between them.
        prediction: the answer to judge, likewise.
        threshold: similarities below it count a tenth.
        similarity: of two normalised items, in [0, 1]; it is not asked about equal ones.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: no answers.
    """
    if not answers:
        raise ValueError("no answers to compare with")

    def near(one: str, other: str) -> float:
        likeness = 1.0 if one == other else similarity(one, other)
        return likeness if likeness >= threshold else FAR * likeness

    def alike(right: str) -> float:
        # "chair, table" from a vocabulary that has lost its commas is right all the same.
        if normalise_answer(right) == normalise_answer(prediction):
            return 1.0
        wanted, given = _items(right), _items(prediction)
        if not wanted or not given:
            return 0.0
        return min(
            prod(max(near(a, t) for t in wanted) for a in given),
            prod(max(near(a, t) for a in given) for t in wanted),
        )

    return sum(alike(right) for right in answers) / len(answers)


def score_wups(
    references: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    similarity: Similarity | None = None,
) -> Wups:
    """The mean WUPS of the answers to some questions.

    Args:
        references: the right answers to each question, at least one.
        predictions: the answer to each of the same questions.
        thresholds: where to compute it.
        similarity: of two items; by default `wordnet_similarity`, if it can be had.

    Raises:
        ValueError: no questions, different questions in the two, or one without answers.
    """
    check_pairs(references, predictions, "question")
    if similarity is None:
        found = wordnet_similarity()
        if isinstance(found, str):
            return Wups(dict.fromkeys(thresholds), found)
        similarity = found
    scores: dict[float, float | None] = {}
    for threshold in thresholds:
        each = [
            wups(answers, predictions[question], threshold, similarity)
            for question, answers in references.items()
        ]
        scores[threshold] = round(100 * sum(each) / len(each), 2)
    return Wups(scores)


def wordnet_similarity() -> Similarity | str:
    """The similarity of Wu and Palmer in WordNet, or in one line why it cannot be had."""
    named = os.environ.get("WNSEARCHDIR")
    places = [Path(named)] if named else list(map(Path, WORDNETS))
    folder = next((place for place in places if (place / "index.noun").is_file()), None)
    if folder is None:
        missing = f"no index.noun in {', '.join(map(str, places))}"
        return f"WordNet is not there ({missing}): install wordnet-base, or name WNSEARCHDIR"
    try:
        return cache(_Nouns(folder).similarity)
    except OSError as error:
        return f"WordNet cannot be read ({error.filename}: {error.strerror})"


class _Nouns:
    """The nouns of WordNet 3 and what they are kinds of (``man 5 wndb``).

    Meanings are their places in ``data.noun``. Where two common ancestors are equally deep, the
    choice is that of nltk, by which DAQUAR is scored: its similarities are the same.
    """

    def __init__(self, folder: Path) -> None:
        index = (folder / "index.noun").read_text("utf-8").splitlines()
        rows = (line.split() for line in index if not line.startswith(" "))  # not the licence
        self._meanings = {row[0]: list(map(int, row[-int(row[2]) :])) for row in rows}
        exceptions = (folder / "noun.exc").read_text("utf-8").splitlines()
        self._irregular = {form: base for form, *base in map(str.split, exceptions)}
        self._data = (folder / "data.noun").read_bytes()
        self._ancestors = cache(self._find_ancestors)
        self._above = cache(self._read_above)

    def similarity(self, one: str, other: str) -> float:
        """That of the nearest two meanings; 0 if a word has none."""
        pairs = ((a, b) for a in self._of(one) for b in self._of(other))
        return max((self._wu_palmer(a, b) for a, b in pairs), default=0.0)

    def _of(self, word: str) -> list[int]:
        """The meanings of a word and of what it may be the plural of."""
        word = word.lower().replace(" ", "_")  # WordNet writes compounds with underscores
        plural = [word[: -len(old)] + new for old, new in ENDINGS if word.endswith(old)]
        forms = dict.fromkeys([word, *self._irregular.get(word, plural)])
        return [meaning for form in forms for meaning in self._meanings.get(form, ())]

    def _wu_palmer(self, one: int, other: int) -> float:
        first, second = self._ancestors(one), self._ancestors(other)
        common = first.keys() & second.keys()
        if not common:
            return 0.0
        nearest = {meaning: self._depth(meaning, min) for meaning in common}
        lowest = [meaning for meaning in common if nearest[meaning] == max(nearest.values())]
        shared = one if one in lowest else min(lowest, key=self._name)
        depth = self._depth(shared, max) + 1
        lengths = (self._distance(meaning, shared) + depth for meaning in (one, other))
        return 2 * depth / sum(lengths)

    def _distance(self, one: int, other: int) -> int:
        first, second = self._ancestors(one), self._ancestors(other)
        return min(first[meaning] + second[meaning] for meaning in first.keys() & second.keys())

    def _depth(self, meaning: int, of: Callable[[Iterable[int]], int]) -> int:
        above = self._above(meaning)
        return 1 + of(self._depth(one, of) for one in above) if above else 0

    def _find_ancestors(self, meaning: int) -> dict[int, int]:
        """All that a meaning is a kind of, itself included, and how far up it is."""
        found, last = {meaning: 0}, [meaning]
        while last:
            last = [up for one in last for up in self._above(one) if up not in found]
            found.update(dict.fromkeys(last, max(found.values()) + 1))
        return found

    def _line(self, meaning: int) -> list[str]:
        line = self._data[meaning : self._data.index(b"\n", meaning)]
        return line.decode().partition(" | ")[0].split()

    def _read_above(self, meaning: int) -> list[int]:
        """What a meaning is directly a kind or an instance of."""
        fields = self._line(meaning)
        pointers = fields[5 + 2 * int(fields[3], 16) :]
        pairs = zip(pointers[::4], pointers[1::4], strict=True)
        return [int(place) for sign, place in pairs if sign in ("@", "@i")]

    def _name(self, meaning: int) -> str:
        """As nltk names it: dog.n.01."""
        lemma = self._line(meaning)[4].lower()
        return f"{lemma}.n.{self._meanings[lemma].index(meaning) + 1:02d}"


def _items(answer: str) -> list[str]:
    """The different items of an answer, without empty ones."""
    return list(dict.fromkeys(filter(None, map(normalise_answer, answer.split(",")))))

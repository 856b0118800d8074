"""Accuracy of answers to questions about pictures, as the official VQA evaluation counts it.

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

References:
    Antol et al. 2015, VQA: Visual Question Answering (the measure).
    Goyal et al. 2017, Making the V in VQA Matter (version 2).
    The official code: GT-Vision-Lab/VQA, a013f00 (2021) and c4e6a0e (before).
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
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
        year: of the evaluation's rules, 2021 or 2015 (see `gazetell.metrics.vqa`).

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

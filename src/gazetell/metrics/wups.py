"""WUPS: answers judged by how near their words lie in a taxonomy, the measure of DAQUAR.

An answer is a set of items with commas between them ("table, chair"). For the right set T and the
answered set A::

    WUPS(A, T) = min( prod_{a in A} max_{t in T} w(a, t) , prod_{t in T} max_{a in A} w(a, t) )
    w(a, t)    = s(a, t)        if s(a, t) >= threshold
                 0.1 s(a, t)    otherwise

with s the similarity of Wu and Palmer, 2 depth(common ancestor) / (depth(a) + depth(t)), of the
nearest two noun meanings in WordNet; 1 for equal items and 0 where a word is not in it. 0.9 is
strict (nearly synonyms only), 0.0 weights nothing down. With several right answers the mean over
them is taken (average consensus of the second reference).

WordNet comes through nltk if both are at hand; otherwise the score is "not computed", with the
reason, never 0. Nothing is downloaded.

Items are compared after `gazetell.metrics.vqa.normalise_answer`, so that an exact match is 1 here.
That drops commas: an answer from a vocabulary of normalised answers is one item, and where it has
several words it can only be right as a whole.

References:
    Wu and Palmer 1994, Verb Semantics and Lexical Selection.
    Malinowski and Fritz 2014, A Multi-World Approach to Question Answering about Real-World Scenes.
    Malinowski, Rohrbach and Fritz 2015, Ask Your Neurons (consensus).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod

from .vqa import normalise_answer
from .words import check_pairs

Similarity = Callable[[str, str], float]
THRESHOLDS = (0.9, 0.0)
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
    try:
        from nltk.corpus import wordnet
    except ImportError as error:
        return f"nltk cannot be imported ({error}); pip install 'gazetell[wups]'"
    try:
        wordnet.ensure_loaded()
    except LookupError:
        return "WordNet is not there (python -m nltk.downloader wordnet)"
    except OSError as error:
        return f"WordNet cannot be read ({error.strerror or error})"

    @cache
    def similarity(one: str, other: str) -> float:
        # WordNet writes compounds with underscores.
        first, second = (
            wordnet.synsets(item.replace(" ", "_"), pos=wordnet.NOUN) for item in (one, other)
        )
        found = (a.wup_similarity(b) or 0.0 for a in first for b in second)
        return max(found, default=0.0)

    return similarity


def _items(answer: str) -> list[str]:
    """The different items of an answer, without empty ones."""
    return list(dict.fromkeys(filter(None, map(normalise_answer, answer.split(",")))))

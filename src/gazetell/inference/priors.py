"""What can be answered without looking: the figures that stand beside every accuracy.

References:
    Goyal et al. 2017, Making the V in VQA Matter (priors of the language); Agrawal et al. 2018,
    Don't Just Assume; Look and Answer.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ..data.answers import AnswerVocabulary, modal_answer
from ..data.records import QuestionRecord
from ..metrics import answer_accuracy

__all__ = ["Priors", "bias"]

PREFIX = 2  # words that make the type of a question: "how many", "what color"


class Priors:
    """The most frequent answers of training questions: of all, and by their first words."""

    def __init__(self, records: Iterable[QuestionRecord]) -> None:
        counts: dict[tuple[str, ...], Counter[str]] = {}
        for record in records:
            answer = modal_answer(record.answers)
            # A set: a question of one word begins with one word only once.
            for prefix in {_prefix(record.question, n) for n in range(PREFIX + 1) if answer}:
                counts.setdefault(prefix, Counter())[answer] += 1
        # Ties in alphabetical order: the same on every machine.
        self.best = {
            prefix: min(found, key=lambda answer: (-found[answer], answer))
            for prefix, found in counts.items()
        }

    def __bool__(self) -> bool:
        return bool(self.best)

    @property
    def most_frequent(self) -> str:
        """The most frequent answer of all."""
        return self.best[()]

    def answer(self, question: str) -> str:
        """The most frequent answer of the questions that begin alike, with two words or fewer."""
        prefixes = (_prefix(question, length) for length in range(PREFIX, -1, -1))
        return next(self.best[prefix] for prefix in prefixes if prefix in self.best)


def bias(
    training: Iterable[QuestionRecord],
    records: Sequence[QuestionRecord],
    vocabulary: AnswerVocabulary,
) -> dict[str, Any]:
    """Accuracies in 0 to 100 that need no model.

    Args:
        training: answered questions of the training split.
        records: answered questions to be judged by.
        vocabulary: of the model.

    Returns:
        ``most_frequent_answer`` and its accuracy ``most_frequent``, ``prefix`` (the most frequent
        answer by the question's first two words), both None without training questions, and
        ``ceiling``: what a model that always chose the best answer of its vocabulary would reach.
    """
    priors = Priors(training)

    def percent(scores: Sequence[float]) -> float:
        return round(100 * sum(scores) / len(scores), 2)

    best = [
        max((answer_accuracy(r.answers, a) for a in _possible(r, vocabulary)), default=0.0)
        for r in records
    ]
    figures: dict[str, Any] = {
        "most_frequent_answer": None,
        "most_frequent": None,
        "prefix": None,
        "ceiling": percent(best),
    }
    if priors:
        first = priors.most_frequent
        figures |= {
            "most_frequent_answer": first,
            "most_frequent": percent([answer_accuracy(r.answers, first) for r in records]),
            "prefix": percent(
                [answer_accuracy(r.answers, priors.answer(r.question)) for r in records]
            ),
        }
    return figures


def _possible(record: QuestionRecord, vocabulary: AnswerVocabulary) -> list[str]:
    """The answers of people that the vocabulary has."""
    places = {vocabulary.index(answer) for answer in record.answers}
    return [vocabulary.answers[place] for place in places if place is not None]


def _prefix(question: str, words: int) -> tuple[str, ...]:
    return tuple(question.lower().split()[:words])

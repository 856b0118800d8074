"""The answers a model can give: the most frequent of training, and the targets they are trained on.

A question answered by people has up to ten answers that need not agree; the *modal* answer is the
most frequent of them. A model chooses among ``A`` answers, its vocabulary, so every question gives
a target over them, a row of (A,) with few values that are not 0. With n_a answers "a" among n:

======  ==================================  =============================================
hard    1 for the modal answer              softmax; nothing if it is not in the vocabulary
soft    min(n_a / 3, 1)                     sigmoid and BCE (Teney et al., arXiv 1708.02711)
votes   n_a / n                             softmax; what is missing to 1 is out of vocabulary
======  ==================================  =============================================

Where a question has one answer all three are the same. Answers are compared as
``metrics.normalise_answer`` leaves them; what it leaves nothing of ("the") is no answer. They
are kept as most people wrote them ("t-shirt", "table, chair"): where all ten people agree, the
official accuracy wants their very spelling.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal, get_args

from ..errors import DataError, ModelError, UsageError
from ..files import read_json, write_json
from ..metrics.answers import answer_accuracy, normalise_answer
from .records import QuestionRecord

Target = Literal["hard", "soft", "votes"]
TARGETS: tuple[Target, ...] = get_args(Target)


def modal_answer(answers: Iterable[str]) -> str:
    """The most frequent answer after normalisation, ties by the first given; "" without one."""
    counts = _counts(answers)
    return max(counts, key=counts.__getitem__, default="")


class AnswerVocabulary:
    """The answers of a model, most frequent first; make one with ``train`` or ``load``."""

    def __init__(self, answers: Iterable[str]) -> None:
        """Take answers in this order.

        Raises:
            ModelError: none, one that normalises to nothing, or two that normalise to the same.
        """
        self.answers = tuple(answers)
        self._index = {_normal(answer): n for n, answer in enumerate(self.answers)}
        if not self.answers or "" in self._index or len(self._index) != len(self.answers):
            raise ModelError("expected a list of different answers, none of them empty")

    @classmethod
    def train(cls, records: Iterable[QuestionRecord], size: int = 1000) -> "AnswerVocabulary":
        """The ``size`` most frequent modal answers, ties in alphabetical order.

        Args:
            records: the questions of the training split, never those of another; those without
                an answer do not count.
            size: answers at most.

        Raises:
            UsageError: ``size`` below 1.
            DataError: no question has an answer.
        """
        if size < 1:
            raise UsageError(f"size is {size}; expected at least 1 answer")
        counts: Counter[str] = Counter()
        written: dict[str, Counter[str]] = {}
        for record in records:
            modal = modal_answer(record.answers)
            if modal:
                counts[modal] += 1
                spellings = [" ".join(text.split()) for text in record.answers]
                written.setdefault(modal, Counter()).update(
                    text for text in spellings if _normal(text) == modal
                )
        if not counts:
            raise DataError("no question of the training split has an answer")
        first = sorted(counts, key=lambda answer: (-counts[answer], answer))[:size]
        return cls(min(written[a], key=lambda s: (-written[a][s], s)) for a in first)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "AnswerVocabulary":
        """Read an ``answers.json``.

        Raises:
            ModelError: missing or not written by ``save``.
        """
        try:
            about = read_json(path)
            answers: Any = about.get("answers") if isinstance(about, dict) else None
            if not isinstance(answers, list) or not all(isinstance(text, str) for text in answers):
                raise DataError(f"{path}: has no list of answers")
        except DataError as error:
            raise ModelError(str(error)) from error
        try:
            return cls(answers)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``{"answers": [...]}``, atomically.

        Raises:
            WriteError: the file system refused.
        """
        write_json(path, {"answers": list(self.answers)})

    def __len__(self) -> int:
        return len(self.answers)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, AnswerVocabulary) and self.answers == other.answers

    def __hash__(self) -> int:
        return hash(self.answers)

    def __repr__(self) -> str:
        return f"AnswerVocabulary({len(self)} answers)"

    def index(self, answer: str) -> int | None:
        """The place of an answer; None if it is not in the vocabulary."""
        return self._index.get(_normal(answer))

    def target(self, answers: Sequence[str], target: Target = "hard") -> dict[int, float]:
        """The target of a question: from the place of an answer to its value in (0, 1].

        Args:
            answers: all answers of the question, in the order given.
            target: see the module.

        Returns:
            Those of the (A,) values that are not 0; none if no answer is in the vocabulary, or,
            for ``hard``, if the modal one is not.

        Raises:
            UsageError: an unknown ``target``.
        """
        if target not in TARGETS:
            raise UsageError(f"target {target!r}: expected one of {', '.join(TARGETS)}")
        counts = {modal_answer(answers): 1} if target == "hard" else _counts(answers)
        whole = len(answers) if target == "votes" else 3
        if target == "hard" or len(answers) < 2:
            whole = 1
        return {
            self._index[answer]: min(count / whole, 1.0)
            for answer, count in counts.items()
            if answer in self._index
        }


def coverage(
    records: Iterable[QuestionRecord],
    sizes: Iterable[int],
    *,
    train: "Iterable[QuestionRecord] | AnswerVocabulary | None" = None,
) -> dict[int, float]:
    """The ceiling that a vocabulary of each size puts on the accuracy.

    That is the accuracy (``metrics.answer_accuracy``, in [0, 1]) of a model that always gives
    the best answer it has. Questions without an answer are left aside.

    Args:
        records: the questions to be answered.
        sizes: numbers of answers.
        train: the questions that the vocabulary is made from, or all their answers; those of
            ``records`` in the split train if not given.

    Raises:
        DataError: no question to train on, or none to be answered, has an answer.
    """
    records = list(records)
    if train is None:
        train = [record for record in records if record.split == "train"]
    ranks = train if isinstance(train, AnswerVocabulary) else AnswerVocabulary.train(train, 2**31)
    asked = [record for record in records if any(record.answers)]
    if not asked:
        raise DataError("no question has an answer")
    # total[K]: what the first K answers of the vocabulary score; first what the K-th adds.
    total = [0.0] * (len(ranks) + 1)
    for record in asked:
        votes, best = 0, 0.0
        counts = _counts(record.answers)
        known = ((ranks._index[key], n) for key, n in counts.items() if key in ranks._index)
        for place, count in sorted(known):
            # The more people gave an answer, the better it scores.
            if count > votes:
                votes, score = count, answer_accuracy(record.answers, ranks.answers[place])
                total[place + 1] += score - best
                best = score
    for rank in range(1, len(total)):
        total[rank] += total[rank - 1]
    return {size: total[min(size, len(ranks))] / len(asked) for size in sizes}


def _counts(answers: Iterable[str]) -> Counter[str]:
    """How often each normalised answer is given, in the order in which they first are."""
    counts = Counter(map(_normal, answers))
    counts.pop("", None)
    return counts


@lru_cache(maxsize=1 << 16)
def _normal(answer: str) -> str:
    """A normalised answer; any white space counts as a blank, as in the spelling that is kept."""
    return normalise_answer(" ".join(answer.split()))

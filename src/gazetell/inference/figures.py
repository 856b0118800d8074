"""Parts of an evaluation that need no model: pointing, priors, the plots of confidences."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.answers import AnswerVocabulary, modal_answer
from ..data.records import Box, QuestionRecord
from ..files import atomic_path
from ..metrics import (
    Reliability,
    RiskCoverage,
    answer_accuracy,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Pointing", "Priors", "bias", "pointing", "save_reliability", "save_risk_coverage"]


@dataclass(frozen=True)
class Pointing:
    """How often a gaze peaks inside a box of what it is about.

    Attributes:
        score: share of the gazes whose attention is largest at a cell with its centre in one of
            their boxes.
        chance: the same for a gaze that peaks at a cell drawn at random.
        words: how many gazes were counted: those with a box.
    """

    score: float
    chance: float
    words: int


def pointing(gazes: Iterable[tuple[np.ndarray, Sequence[Box]]]) -> Pointing | None:
    """The pointing score of some gazes (height, width) and their boxes; None if none has a box."""
    hits, chances = [], []
    for gaze, boxes in gazes:
        if not boxes:
            continue
        height, width = gaze.shape
        y = (np.arange(height)[:, None] + 0.5) / height
        x = (np.arange(width)[None, :] + 0.5) / width
        inside = np.zeros(gaze.shape, bool)
        for box in boxes:
            inside |= (box.x0 <= x) & (x <= box.x1) & (box.y0 <= y) & (y <= box.y1)
        hits.append(bool(inside.flat[int(gaze.argmax())]))
        chances.append(float(inside.mean()))
    if not hits:
        return None
    return Pointing(float(np.mean(hits)), float(np.mean(chances)), len(hits))


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


INK, ACCENT, QUIET = "#262421", "#c2540a", "#969189"


def save_reliability(path: str | os.PathLike[str], found: Reliability) -> None:
    """Accuracy by confidence, with how many answers each bin holds, as a PNG.

    Raises:
        WriteError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    width = float(found.edges[1] - found.edges[0])
    middle = found.edges[:-1] + width / 2
    filled = found.count > 0
    top.plot([0, 1], [0, 1], color=QUIET, linewidth=1)
    top.bar(middle[filled], found.accuracy[filled], width * 0.92, color=ACCENT, alpha=0.85)
    top.plot(
        found.confidence[filled], found.accuracy[filled], "o", color=INK, markersize=4, zorder=3
    )
    top.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title="Is a confidence what it says?")
    bottom.bar(middle, found.count, width * 0.92, color=QUIET)
    bottom.set(xlabel="confidence", ylabel="answers")
    _save(path, figure)


def save_risk_coverage(path: str | os.PathLike[str], found: RiskCoverage) -> None:
    """Share of wrong answers by the share of questions answered, surest first, as a PNG.

    Raises:
        WriteError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(found.coverage, found.risk, color=ACCENT)
    axes.axhline(float(found.risk[-1]), color=QUIET, linewidth=1)
    axes.set(
        xlim=(0, 1),
        ylim=(0, None),
        xlabel="coverage: share of questions answered, surest first",
        ylabel="risk: share of wrong answers",
        title=f"What abstaining buys (area {found.area:.3f})",
    )
    _save(path, figure)


def _save(path: str | os.PathLike[str], figure: "Figure") -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)

"""Whether one model is better than another: the paired bootstrap over pictures or questions.

Two models' captions of the same P pictures differ in score, and would differ otherwise on other
pictures. To see by how much, as many pictures are drawn again with replacement, both models are
scored on the same draw, and the difference is noted; the middle 95 % of the differences of many
draws are its interval (percentile method). One that holds 0 shows no difference. With answers,
questions are drawn.

BLEU is computed anew from the summed counts of each draw, for it is a score of the set. ROUGE-L
and CIDEr are means over pictures; the document frequencies of CIDEr stay those of all references.

The interval tells of the choice of pictures alone. It does not tell of the luck of a training run:
the same model trained with another seed may differ by more.

Legend: P pictures or questions, S draws, M metrics.

References: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13; Koehn 2004,
Statistical Significance Tests for Machine Translation Evaluation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .answers import answer_scores
from .captions import Scored
from .ngrams import ORDERS, Scores, bleu_of_counts

_COUNTS = 2 + 2 * ORDERS  # columns of bleu_counts
# Without a common n-gram BLEU is a trace of its smoothing, (1e-15)**(1/4) at most, and no score.
_LEAST = 2e-4
_CELLS = 1 << 22  # of draws at a time


@dataclass(frozen=True)
class Difference:
    """A metric of two models.

    Attributes:
        first: score of the first.
        second: score of the second.
        difference: first - second.
        low: lower end of the interval of the difference.
        high: upper end.
        significant: whether the interval leaves 0 out, by more than a trace of BLEU's smoothing.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    significant: bool


def compare_captions(
    references: Mapping[str, Sequence[str]],
    first: Mapping[str, str],
    second: Mapping[str, str],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Difference]:
    """Compare two captioners on the same pictures.

    Args:
        references: the reference captions of each picture, at least one.
        first: the caption of each of the same pictures by one captioner.
        second: likewise by the other.
        resamples: how many times pictures are drawn, S.
        seed: of the draws; all metrics see the same draws.
        level: of the interval, in (0, 1).

    Returns:
        ``bleu_1`` to ``bleu_4``, ``rouge_l`` and ``cider``. The scores are those of
        `gazetell.metrics.score_captions`.

    Raises:
        ValueError: fewer than two pictures, different pictures in the three, a picture without
            references, or an option out of range.
    """
    # In one order of pictures: that of the references.
    one, two = (Scored.in_order(references, captions) for captions in (first, second))
    pictures = len(references)
    table = np.concatenate([one.counts, two.counts, one.means - two.means], axis=1)  # (P, 22)

    def differences(drawn: NDArray[np.int64], axis: int = -1) -> Scores:
        """Of all metrics, (6, S), for draws (S, P)."""
        # How often each picture is drawn makes sums of one product of matrices.
        rows = drawn + pictures * np.arange(len(drawn))[:, None]
        times = np.bincount(rows.ravel(), minlength=drawn.size).reshape(drawn.shape)
        sums = times.astype(np.float64) @ table  # (S, 22); sums of counts are exact
        bleus = bleu_of_counts(sums[:, :_COUNTS]) - bleu_of_counts(sums[:, _COUNTS : 2 * _COUNTS])
        return np.concatenate([bleus, sums[:, 2 * _COUNTS :].T / pictures])

    return _bootstrap(
        one.scores, two.scores, np.arange(pictures), differences, "picture", resamples, seed, level
    )


def compare_answers(
    references: Mapping[str, Sequence[str]],
    first: Mapping[str, str],
    second: Mapping[str, str],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    year: int = 2021,
) -> dict[str, Difference]:
    """Compare two answerers on the same questions, by the rules of a ``year``.

    The other arguments and the errors are those of `compare_captions`.

    Returns:
        ``accuracy``, in 0 to 100 and not rounded.
    """
    one, two = (
        100 * np.array(list(answer_scores(references, answers, year=year).values()))
        for answers in (first, second)
    )
    means = [{"accuracy": float(accuracies.mean())} for accuracies in (one, two)]

    def differences(drawn: Scores, axis: int = -1) -> Scores:
        """Of the accuracy, (1, S), for drawn differences (S, P)."""
        return drawn.mean(axis=axis)[None]

    values = one - two
    return _bootstrap(means[0], means[1], values, differences, "question", resamples, seed, level)


def _bootstrap(
    first: Mapping[str, float],
    second: Mapping[str, float],
    values: NDArray[Any],
    differences: Callable[..., Scores],
    what: str,
    resamples: int,
    seed: int,
    level: float,
) -> dict[str, Difference]:
    """The difference of each metric with its interval.

    ``first`` and ``second`` are the scores of all M metrics; ``differences`` gives those of draws
    (S, P) of the P values, shape (M, S); ``what`` is a picture or a question, for errors.
    """
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; expected at least 1")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a share between 0 and 1")
    if len(values) < 2:
        raise ValueError(f"one {what} to compare on; expected at least two")
    from scipy.stats import bootstrap  # late: slow to import

    interval = bootstrap(
        (values,),
        differences,
        n_resamples=resamples,
        batch=max(1, _CELLS // len(values)),
        vectorized=True,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return {
        name: Difference(
            *(first[name], second[name], first[name] - second[name], low, high),
            low > _LEAST or high < -_LEAST,
        )
        for name, low, high in zip(
            first, interval.low.tolist(), interval.high.tolist(), strict=True
        )
    }

"""Calibration: whether a confidence means what it says, and what abstaining buys.

Of the answers given with confidence 0.7, 70 % should be right. Answers are put into M bins of equal
width by their confidence, bin m holding the confidences in ((m - 1) / M, m / M]::

    ECE = sum over bins of count / N * |accuracy - mean confidence|

A model that may abstain answers only the questions that it is surest of. Coverage is the share
that it answers, risk the share of those that are wrong; the area under risk over coverage (AURC) is
small when the model knows what it does not know, whatever its confidences are in themselves.
Captions are judged in the same way, a good one being right (`gazetell.models.confidence`).

Legend: N answers, M bins.

References:
    Brier 1950, Verification of Forecasts Expressed in Terms of Probability.
    Guo et al. 2017, On Calibration of Modern Neural Networks (reliability, ECE).
    Geifman and El-Yaniv 2017, Selective Classification for Deep Neural Networks (risk, coverage).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy by bins of confidence.

    Attributes:
        edges: (M + 1,) from 0 to 1.
        confidence: (M,) mean confidence in each bin, NaN in an empty one.
        accuracy: (M,) mean correctness in each bin, NaN in an empty one.
        count: (M,) answers in each bin.
    """

    edges: Floats
    confidence: Floats
    accuracy: Floats
    count: NDArray[np.int64]


@dataclass(frozen=True)
class RiskCoverage:
    """What is wrong among the i answers of highest confidence, for i = 1 to N.

    Attributes:
        threshold: (N,) the lowest confidence among them, falling.
        coverage: (N,) their share, i / N.
        risk: (N,) 1 - their mean correctness.
        area: mean risk over all coverages, in [0, 1].
    """

    threshold: Floats
    coverage: Floats
    risk: Floats
    area: float


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> Reliability:
    """Sort answers into bins of equal width by their confidence.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) in [0, 1]; fractions are allowed, for people differ.
        bins: M.

    Raises:
        ValueError: no answers, shapes that differ, a number outside [0, 1], or no bins.
    """
    sure, right = _checked(confidence, correct)
    if bins < 1:
        raise ValueError(f"bins is {bins}; expected at least 1")
    edges = np.linspace(0, 1, bins + 1)
    # The bin whose upper edge is the first not below; 0 itself belongs to the first.
    place = np.maximum(np.searchsorted(edges, sure, side="left") - 1, 0)
    count = np.bincount(place, minlength=bins)
    filled = np.where(count, count, np.nan)
    return Reliability(
        edges,
        np.bincount(place, sure, minlength=bins) / filled,
        np.bincount(place, right, minlength=bins) / filled,
        count,
    )


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """How far confidence and accuracy lie apart, on average over answers (ECE), in [0, 1].

    0 is a confidence that means what it says. Arguments and errors are those of `reliability`.
    """
    table = reliability(confidence, correct, bins)
    gaps = np.abs(table.accuracy - table.confidence)
    return float(np.nansum(gaps * table.count) / table.count.sum())


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """How risk grows as the model answers more of the questions.

    Answers of equal confidence have no order; each counts with their mean correctness, which is
    what a draw among them would give. The result does not depend on the order of the input.
    Arguments and errors are those of `reliability`.
    """
    sure, right = _checked(confidence, correct)
    _, group, size = np.unique(-sure, return_inverse=True, return_counts=True)
    means = np.bincount(group, right) / size  # by falling confidence
    order = np.arange(1, len(sure) + 1)
    # Sums of rounded means may pass 1 by a hair.
    risk = np.clip(1 - np.cumsum(np.repeat(means, size)) / order, 0, 1)
    return RiskCoverage(np.sort(sure)[::-1], order / len(sure), risk, float(risk.mean()))


def selective_threshold(confidence: ArrayLike, correct: ArrayLike, accuracy: float) -> float | None:
    """The smallest confidence at which the answers with no less are right often enough.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) in [0, 1].
        accuracy: the mean correctness asked for.

    Returns:
        A confidence; 0 if all answers together are right often enough, None if no share of the
        surest is.

    Raises:
        ValueError: as for `reliability`.
    """
    curve = risk_coverage(confidence, correct)
    last = np.append(np.diff(curve.threshold) < 0, True)  # those of equal confidence stay together
    enough = np.flatnonzero(last & (1 - curve.risk >= accuracy - 1e-9))
    if not len(enough):
        return None
    return 0.0 if enough[-1] == len(last) - 1 else float(curve.threshold[enough[-1]])


def brier(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Mean squared distance of confidence and correctness (Brier 1950), in [0, 1]; 0 is best.

    Arguments and errors are those of `reliability`.
    """
    sure, right = _checked(confidence, correct)
    return float(np.mean((sure - right) ** 2))


def auroc(confidence: ArrayLike, correct: ArrayLike) -> float | None:
    """The chance that a right answer has a higher confidence than a wrong one, ties half.

    A fraction in ``correct`` is so much of a right answer and the rest of a wrong one. None where
    all are right or all wrong. Arguments and errors are those of `reliability`.
    """
    sure, right = _checked(confidence, correct)
    _, group = np.unique(sure, return_inverse=True)
    good, bad = np.bincount(group, right), np.bincount(group, 1 - right)
    pairs = good.sum() * bad.sum()
    return float(good @ (np.cumsum(bad) - bad / 2) / pairs) if pairs else None


def _checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[Floats, Floats]:
    sure, right = (np.asarray(values, dtype=np.float64) for values in (confidence, correct))
    if sure.ndim != 1 or sure.shape != right.shape:
        raise ValueError(f"shapes {sure.shape} and {right.shape}; expected two equal (N,)")
    if not len(sure):
        raise ValueError("no answers to judge")
    for name, values in (("confidence", sure), ("correct", right)):
        # Not "any outside": NaN compares as false either way.
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"{name} holds a number outside 0 to 1")
    return sure, right

"""Calibration against naive loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetell.metrics import (
    auroc,
    brier,
    expected_calibration_error,
    reliability,
    risk_coverage,
    selective_threshold,
)

# Multiples of 1/20 meet the edges of bins and each other.
SHARE = st.one_of(st.floats(0, 1), st.integers(0, 20).map(lambda i: i / 20))
ANSWERS = st.lists(st.tuples(SHARE, st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0])), min_size=1)
few = settings(max_examples=60, deadline=None)


def naive_bins(answers, bins):
    """Per bin: the (confidence, correct) in it, by comparing with both edges."""
    edges = [float(edge) for edge in np.linspace(0, 1, bins + 1)]
    found = []
    for m in range(bins):
        low, high = edges[m], edges[m + 1]
        found.append([(c, a) for c, a in answers if low < c <= high or (m == 0 and c == 0)])
    return found


@few
@given(ANSWERS, st.sampled_from([1, 2, 10, 15]))
def test_reliability_and_ece_against_loops(answers, bins):
    confidence, correct = zip(*answers, strict=True)
    found = reliability(confidence, correct, bins)
    error = 0.0
    for m, inside in enumerate(naive_bins(answers, bins)):
        assert found.count[m] == len(inside)
        if not inside:
            assert math.isnan(found.confidence[m])
            assert math.isnan(found.accuracy[m])
            continue
        mean = sum(c for c, _ in inside) / len(inside)
        accuracy = sum(a for _, a in inside) / len(inside)
        assert found.confidence[m] == pytest.approx(mean, abs=1e-9)
        assert found.accuracy[m] == pytest.approx(accuracy, abs=1e-9)
        error += len(inside) / len(answers) * abs(accuracy - mean)
    assert found.count.sum() == len(answers)
    ece = expected_calibration_error(confidence, correct, bins)
    assert ece == pytest.approx(error, abs=1e-9)
    assert 0 <= ece <= 1


@few
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([0.0, 0.3, 1.0])), min_size=1))
def test_risk_coverage_against_loops(answers):
    answers = [(level / 30, right) for level, right in answers]
    found = risk_coverage(*zip(*answers, strict=True))
    risks = []
    for i in range(1, len(answers) + 1):
        cut = sorted((c for c, _ in answers), reverse=True)[i - 1]
        above = [a for c, a in answers if c > cut]
        at = [a for c, a in answers if c == cut]
        # Of those at the cut, as many as are missing, each with the mean of all there.
        right = sum(above) + (i - len(above)) * sum(at) / len(at)
        risks.append(1 - right / i)
        assert found.threshold[i - 1] == cut
        assert found.coverage[i - 1] == pytest.approx(i / len(answers))
    np.testing.assert_allclose(found.risk, risks, atol=1e-9)
    assert found.area == pytest.approx(sum(risks) / len(risks), abs=1e-9)
    assert 0 <= found.area <= 1


@pytest.mark.parametrize("measure", [reliability, expected_calibration_error, risk_coverage])
@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([], [], "no answers"),
        ([0.5], [1, 0], "shapes"),
        ([[0.5]], [[1]], "shapes"),
        ([1.5], [1], "confidence holds a number outside 0 to 1"),
        ([float("nan")], [1], "confidence holds"),
        ([0.5], [-1], "correct holds"),
    ],
)
def test_bad_input(measure, confidence, correct, message):
    with pytest.raises(ValueError, match=message):
        measure(confidence, correct)
    with pytest.raises(ValueError, match="bins is 0"):
        reliability([0.5], [1], bins=0)


@few
@given(ANSWERS)
def test_brier_and_auroc_against_loops(answers):
    confidence, correct = zip(*answers, strict=True)
    assert brier(confidence, correct) == pytest.approx(
        sum((c - a) ** 2 for c, a in answers) / len(answers)
    )
    won = pairs = 0.0
    for c, a in answers:
        for d, b in answers:
            pairs += a * (1 - b)
            won += a * (1 - b) * (1.0 if c > d else 0.5 if c == d else 0.0)
    found = auroc(confidence, correct)
    assert found == (pytest.approx(won / pairs) if pairs > 1e-9 else None)


@few
@given(ANSWERS, st.sampled_from([0.3, 0.6, 1.0]))
def test_the_selective_threshold_against_trying_each(answers, wanted):
    confidence, correct = zip(*answers, strict=True)
    enough = [
        bound
        for bound in confidence
        if np.mean([a for c, a in answers if c >= bound]) >= wanted - 1e-9
    ]
    every = np.mean(correct) >= wanted - 1e-9
    expected = 0.0 if every else min(enough, default=None)
    assert selective_threshold(confidence, correct, wanted) == expected

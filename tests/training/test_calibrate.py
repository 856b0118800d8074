"""The temperature: found again where it is known, and the best of a naive search."""

import math

import numpy as np
import pytest
import torch

from gazetell.training.calibrate import HIGH, LOW, fit_temperature


def problem(factor, sigmoid=False, questions=6000, answers=8, seed=0):
    """Logits that are ``factor`` times those that the truth was drawn from, and who was right."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(questions, answers)) * 1.5
    first = logits.argmax(1)
    if sigmoid:
        chances = 1 / (1 + np.exp(-logits.max(1)))
        right = random.random(questions) < chances
    else:
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        truth = [random.choice(answers, p=row) for row in shares]
        right = first == truth
    return torch.from_numpy(logits * factor).float(), right.astype(float)


def naive(logits, right, temperature, sigmoid=False):
    """The loss, a question at a time."""
    total = 0.0
    for row, score in zip(logits.tolist(), right, strict=True):
        scaled = [value / temperature for value in row]
        if sigmoid:
            p = 1 / (1 + math.exp(-max(scaled)))
        else:
            p = 1 / sum(math.exp(value - max(scaled)) for value in scaled)
        p = min(max(p, 1e-12), 1 - 1e-12)
        total -= score * math.log(p) + (1 - score) * math.log(1 - p)
    return total / len(logits)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found_again(factor, sigmoid):
    logits, right = problem(factor, sigmoid)
    assert fit_temperature(logits, right, sigmoid=sigmoid) == pytest.approx(factor, rel=0.08)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_no_temperature_of_a_search_is_better(sigmoid):
    logits, right = problem(2.0, sigmoid, questions=200, seed=4)
    right = np.random.default_rng(1).choice([0.3, 0.6, 0.9, 1.0], 200) * right  # people differ
    found = fit_temperature(logits, right, sigmoid=sigmoid)
    tried = np.geomspace(LOW, HIGH, 80)
    losses = [naive(logits, right, float(t), sigmoid) for t in tried]
    assert naive(logits, right, found, sigmoid) <= min(losses) + 1e-6
    assert found == pytest.approx(tried[int(np.argmin(losses))], rel=0.08)


def test_always_right_and_never_right_fit_nothing():
    """The likelihood would want certainty, or none at all, whatever the questions."""
    logits, right = problem(1.0, questions=100)
    assert fit_temperature(logits, np.ones(100)) == 1
    assert fit_temperature(logits, np.zeros(100)) == 1
    assert right.min() < right.max()


def test_nothing_to_fit_on():
    assert fit_temperature(torch.zeros(0, 5), np.zeros(0)) == 1.0
    # One answer alone is always certain: any temperature will do, none is NaN.
    assert LOW <= fit_temperature(torch.zeros(4, 1), np.ones(4)) <= HIGH
    # Large logits do not overflow.
    assert LOW <= fit_temperature(torch.tensor([[900.0, -900.0]]), np.ones(1)) <= HIGH

"""Confidences of captions: the fit against other optimisers, its signs, captions told apart."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from gazetell.metrics import auroc, expected_calibration_error
from gazetell.models.confidence import (
    FEATURES,
    LEAST,
    LIKELY,
    Confidence,
    Novelty,
    certainty,
    features,
    fit_abstaining,
    fit_confidence,
    fit_logistic,
    fit_novelty,
    hide_a_word,
)
from gazetell.models.decoding import Decoded

FREE = [(None, None)] * 3


def decoded(words=4, log_prob=-5.0, weakest=-2.0, attention=None):
    return Decoded(list(range(words)), attention, log_prob, log_prob, True, weakest)


def drawn(count=400, seed=0):
    """Features (N, 3), of different sizes, and which captions are good."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 3)) * [1, 20, 0.05] + [0, 100, -3]
    logit = 1.5 * x[:, 0] - 0.04 * (x[:, 1] - 100) + 10 * (x[:, 2] + 3)
    return x, random.random(count) < 1 / (1 + np.exp(-logit))


def test_the_fit_is_the_minimum_that_another_method_finds():
    x, good = drawn()
    weights, bias = fit_logistic(x, good, FREE)
    z = (x - x.mean(0)) / x.std(0)

    def loss(v):
        logit = v[0] + z @ v[1:]
        return np.log1p(np.exp(np.where(good, -logit, logit))).sum() + v[1:] @ v[1:] / 2

    other = minimize(
        loss, np.zeros(4), method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-7}
    )
    assert weights * x.std(0) == pytest.approx(other.x[1:], abs=1e-3)
    assert bias + x.mean(0) @ weights == pytest.approx(other.x[0], abs=1e-3)
    # The sum of the probabilities is the number of good ones: no mean error is left.
    assert (1 / (1 + np.exp(-(bias + x @ weights)))).sum() == pytest.approx(good.sum(), abs=1e-3)


def test_a_bound_holds_where_the_data_want_another_sign():
    x, good = drawn()
    weights, _ = fit_logistic(x, good, [(None, 0.0), (0.0, None), (None, None)])
    assert weights[0] == 0
    assert weights[1] == 0
    assert weights[2] > 0


def test_a_feature_that_does_not_vary_has_no_weight():
    x, good = drawn()
    x[:, 1] = 7.0
    weights, bias = fit_logistic(x, good, FREE)
    assert weights[1] == 0
    assert math.isfinite(bias)


def test_features_by_hand():
    sharp = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0]])
    even = torch.full((2, 4), 0.25)
    rows = features(
        [decoded(2, -6.0, -3.0, sharp), decoded(2, attention=even), decoded(0, attention=even[:0])],
        np.array([1.0, 2.0, 3.0]),
    )
    assert dict(zip(FEATURES, rows[0], strict=True)) == pytest.approx(
        {"log_prob": -2.0, "weakest": -3.0, "spread": 0.0, "length": 2, "distance": 1.0}
    )
    assert rows[:, 2] == pytest.approx([0, 1, 1])
    assert features([decoded()], np.zeros(1))[0, 2] == 0  # of a model without attention


REFERENCES = [
    (
        "a red circle above a blue star",
        "a red circle over a blue star",
        "one red circle and a star",
    ),
    ("a green ring on the left", "a green ring at the left side", "the ring on the left is green"),
    ("two large yellow squares", "two yellow squares side by side", "there are two yellow squares"),
    ("a small purple triangle", "the picture shows a purple triangle", "a purple triangle below"),
]


def split(count, seed):
    """Captions of which the sure ones are right, and how far their pictures are."""
    random = np.random.default_rng(seed)
    captions, texts, references = [], [], []
    for n in range(count):
        sure = random.random()
        right = random.random() < sure
        place = n % len(REFERENCES)
        wrong = (place + 1) % len(REFERENCES)
        texts.append(REFERENCES[place if right else wrong][0])
        references.append(REFERENCES[place])
        captions.append(decoded(5, 6 * (sure - 2), 2 * (sure - 1.5)))
    return captions, texts, references, random.random(count)


def fit(captions, texts, references, far):
    said = iter(texts)
    return fit_confidence(captions, far, lambda tokens: next(said), references)


def fitted(**changes):
    made = fit(*split(400, 1))
    assert isinstance(made, Confidence)
    return Confidence.from_dict(made.to_dict() | changes)


def test_good_and_bad_captions_are_told_apart_and_confidences_mean_what_they_say():
    captions, texts, references, distance = split(400, 2)  # not those that were fitted
    sure = fitted()(captions, distance)
    good = [text == said[0] for text, said in zip(texts, references, strict=True)]
    assert auroc(sure, good) > 0.75
    assert expected_calibration_error(sure, good, bins=5) < 0.08
    assert 0.05 < np.mean(sure < fitted().threshold) < 0.6


def test_a_further_picture_never_has_the_higher_confidence():
    made = fitted()
    signs = dict(zip(FEATURES, made.weights, strict=True))
    assert signs["log_prob"] >= 0
    assert signs["weakest"] >= 0
    assert signs["spread"] <= 0
    assert signs["distance"] <= 0
    far = np.arange(1, 200, 7.0)
    falling = fitted(weights=signs | {"distance": -0.1})([decoded()] * len(far), far)
    assert (np.diff(falling) < 0).all()
    assert falling[-1] < 0.05


def test_what_is_stored_says_the_same():
    made = fitted()
    assert Confidence.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_the_distance_of_an_earlier_version_by_hand(confidence):
    made = confidence(centre=(1.0, 2.0), scale=(2.0, 1.0))
    assert made.distance([[3.0, 2.0]], None) == pytest.approx([math.sqrt((1 + 0) / 2)])
    assert Confidence.from_dict(made.to_dict()) == made


def pooled(count, seed, foreign=False):
    """Pooled grids (N, 6) in three directions of the first three channels, of any length."""
    random = np.random.default_rng(seed)
    rows = random.random((count, 6)) * 0.1
    rows[np.arange(count), np.arange(count) % 3 + 3 * foreign] += 1
    return rows * random.uniform(0.1, 10, (count, 1))


def test_pictures_in_another_direction_are_unfamiliar():
    known = fit_novelty(pooled(300, 0), pooled(200, 1))
    assert sum(known.unfamiliar(pooled(200, 1))) == 2  # 1 %
    assert sum(known.unfamiliar(pooled(400, 2))) < 40
    assert all(known.unfamiliar(pooled(50, 3, foreign=True)))
    again = Novelty.from_dict(json.loads(json.dumps(known.to_dict())))
    assert (again.distance(pooled(50, 4)) == known.distance(pooled(50, 4))).all()
    by_hand = min(1 - c[0] / np.linalg.norm(c) for c in known.centroids)
    assert known.distance([[5.0, 0, 0, 0, 0, 0]]) == pytest.approx([by_hand], abs=1e-3)


def test_a_distance_needs_pictures_and_holds_where_they_are_all_alike():
    few = "300 training and 19 validation pictures; expected 20 or more of each"
    assert fit_novelty(pooled(300, 0), pooled(19, 1)) == few
    same = np.ones((30, 6))
    known = fit_novelty(same, same)
    assert known.unfamiliar([*same[:1], [1, 0, 0, 0, 0, 0]]) == [False, True]
    for changes in ({"threshold": math.nan}, {"count": 5}, {"centroids": ""}):
        with pytest.raises(ValueError):  # noqa: PT011
            Novelty.from_dict(known.to_dict() | changes)


def test_the_rarest_word_is_hidden():
    assert hide_a_word([5, 9, 7, 0, 0], 3) == [5, 3, 7, 0, 0]
    assert hide_a_word([5, 3, 7], 3) == [5, 3, 7]


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": 1.5},
        {"scale": "1 1 1"},
        {"centre": "nan 0", "scale": "1 1"},
        {"centre": "0 0", "scale": "0 1"},
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes):
    with pytest.raises(ValueError, match="confidence"):
        fitted(**changes)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda c, t, r, p: (c, t, [said[:1] for said in r], p), "one caption alone"),
        (
            lambda c, t, r, p: (c, [said[0] for said in r], r, p),
            f"expected {LEAST} or more of both",
        ),
        (lambda c, t, r, p: (c[:1], t[:1], r[:1], p[:1]), "CIDEr of one picture"),
    ],
)
def test_why_nothing_is_fitted_is_said(change, why):
    assert why in fit(*change(*split(100, 4)))


@pytest.mark.parametrize(
    ("right", "bound"),
    [
        ([1.0] * 30 + [0.0] * 20, 0.0),  # 60 % of all
        ([1.0] * 24 + [0.0] * 26, 0.2),  # 24 of 40, at the 40th of 50
        ([0.0] * 50, 1.0),
    ],
)
def test_the_bound_to_abstain_below(right, bound):
    said = []
    sure = np.linspace(0.98, 0.0, 50).round(2)
    assert fit_abstaining(sure, right, said.append) == pytest.approx(bound, abs=1e-9)
    assert bool(said) == (bound == 1)
    assert fit_abstaining(sure[:20], right[:20], said.append) == 0.0
    assert "expected 30" in said[-1]


@pytest.mark.parametrize(
    ("confidence", "sure", "least", "word"),
    [
        (None, None, 0.0, None),
        (0.9, False, 0.0, "not sure"),
        (0.3, True, 0.0, "fairly sure"),
        (0.3, True, LIKELY, "not sure"),
        (0.66, True, LIKELY, "fairly sure"),
        (0.67, True, LIKELY, "sure"),
    ],
)
def test_a_confidence_in_words(confidence, sure, least, word):
    assert certainty(confidence, sure, least) == word
    unfamiliar = "fairly sure" if word == "sure" else word
    assert certainty(confidence, sure, least, unfamiliar=True) == unfamiliar

"""Confidence: the calibrated probability that a caption is good.

A caption is **good** if its CIDEr-D is above the level of a person: what half of the references
exceed when each is scored against the others of its picture, with the document frequencies of all
references of the split. So half of what people say is good. The level is that of the split where
captions are judged: of the validation split when the confidence is fitted, of another one when it
is measured there.

Logistic regression on five features x of a caption and its picture, maximum a posteriori with a
normal prior on the weights of the standardised features::

    p(good) = sigmoid(bias + w . x)

=========  ===================================================================  =========
x                                                                               sign of w
=========  ===================================================================  =========
log_prob   log-probability a word, the end counted                              >= 0
weakest    the least log-probability of a word or of the end                    >= 0
spread     mean entropy of the attention, in shares of the largest (0 to 1)     <= 0
length     words                                                                any
distance   sqrt(mean_c ((g_c - m_c) / s_c)^2) from the training pictures        <= 0
=========  ===================================================================  =========

g is the pooled grid of the picture, before any projection, m and s are the mean and the standard
deviation of the training pictures' (s plus a tenth of its mean over c, for channels that hardly
vary). The signs are bounds of the fit: a picture that is further from all training pictures never
has the higher confidence, however far it is.

Below the **threshold** a model is not sure. It is the smallest confidence of the validation split
at which the captions with no less are as often good as those of people, and not below that of the
least sure tenth, which keeps a good model from being sure of everything.

Shapes: ``N`` captions, ``M`` training pictures, ``C`` channels, ``F`` features.

References:
    Platt 1999, Probabilistic Outputs for Support Vector Machines.
    Lee et al. 2018, A Simple Unified Framework for Detecting Out-of-Distribution Samples.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UsageError
from ..metrics import caption_scores, cider_problem, person_level, selective_threshold
from .search import Decoded

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]

FEATURES = {  # with the bounds of their weights
    "log_prob": (0.0, None),
    "weakest": (0.0, None),
    "spread": (None, 0.0),
    "length": (None, None),
    "distance": (None, 0.0),
}
LONG = ("centre", "scale")  # fields of a number a channel
SAMPLE = 2000  # training pictures that give mean and deviation
LEAST = 10  # good captions, and others, without which nothing is fitted
PERSON = 0.5  # share of people's captions that are good, by definition
TAIL = 0.1  # share of validation captions that are never sure
ANSWERED = 0.6  # accuracy of the answers that a model is sure of
ANSWERS = 30  # validation answers, without which no bound is fitted
SURE = 2 / 3  # confidence from which a model is called sure, not fairly sure
LIKELY = 0.5  # of an answer, from which it is called fairly sure: else it is rather wrong


@dataclass(frozen=True)
class Confidence:
    """A fitted confidence; calling it gives the confidences (N,) of captions.

    Attributes:
        weights: of ``FEATURES``, in their order and own units.
        bias: of the sum.
        threshold: the confidence below which the model is not sure.
        centre: (C,) mean of the training pictures' pooled grids.
        scale: (C,) their deviation; infinite where it is 0 in all channels.
    """

    weights: tuple[float, ...]
    bias: float
    threshold: float
    centre: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        sizes = len(self.weights) == len(FEATURES) and len(self.centre) == len(self.scale) > 0
        numbers = np.array([*self.weights, self.bias, *self.centre])
        if not (sizes and np.isfinite(numbers).all() and min(self.scale) > 0):
            raise ValueError("confidence: expected finite numbers of equal counts")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"confidence: threshold {self.threshold}: expected 0 to 1")

    def __call__(self, captions: Sequence[Decoded], pooled: ArrayLike) -> Floats:
        """Confidences (N,) of captions, with the pooled grid (N, C) of each one's picture."""
        x = features(captions, distances(pooled, self.centre, self.scale))
        return 0.5 + 0.5 * np.tanh((self.bias + x @ np.array(self.weights)) / 2)

    def judge(self, caption: Decoded, pooled: ArrayLike) -> tuple[float, bool]:
        """The confidence of a caption and whether the model is sure; pooled (C,) is its picture."""
        confidence = float(self([caption], np.asarray(pooled)[None])[0])
        return confidence, confidence >= self.threshold

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; each (C,) is one text."""
        long = {name: " ".join(f"{x:.5g}" for x in getattr(self, name)) for name in LONG}
        weights = dict(zip(FEATURES, self.weights, strict=True))
        return {"weights": weights, "bias": self.bias, "threshold": self.threshold, **long}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From ``to_dict``'s values; ValueError, KeyError or TypeError where they are none."""
        weights = tuple(float(values["weights"][name]) for name in FEATURES)
        long = {name: tuple(map(float, values[name].split())) for name in LONG}
        return cls(weights, float(values["bias"]), float(values["threshold"]), **long)


def features(captions: Sequence[Decoded], distance: Floats) -> Floats:
    """The features (N, F) of captions, with the distance (N,) of each one's picture."""
    rows = []
    for caption, far in zip(captions, distance, strict=True):
        words, maps, spread = len(caption.tokens), caption.attention, 0.0
        if maps is not None and maps.shape[1] > 1:
            maps = np.asarray(maps, np.float64)
            entropy = -(maps * np.log(maps.clip(1e-12))).sum(1)  # (T,)
            spread = float(entropy.mean()) / math.log(maps.shape[1]) if words else 1.0
        rows.append([caption.log_prob / (words + 1), caption.weakest, spread, words, far])
    return np.array(rows, dtype=np.float64).reshape(-1, len(FEATURES))


def distances(pooled: ArrayLike, centre: Sequence[float], scale: Sequence[float]) -> Floats:
    """How far pictures with the pooled grids (N, C) are from the training pictures, (N,)."""
    apart = (np.asarray(pooled, np.float64) - np.array(centre)) / np.array(scale)
    return np.sqrt(np.mean(apart**2, axis=1))


def fit_confidence(
    validation: Iterable[tuple["Tensor", Sequence[Decoded]]],
    text_of: Callable[[Sequence[int]], str],
    references: Sequence[Sequence[str]],
    training: Iterable["Tensor"],
) -> Confidence | str:
    """Fit a model's confidence on the validation split.

    Args:
        validation: batches of the N pictures: the pooled grids (B, C), before any projection, and
            the captions, decoded as the model decodes.
        text_of: a caption's text from its tokens.
        references: what people said of each picture.
        training: pooled grids (B, C) of the M training pictures, likewise.

    Returns:
        The confidence, or in half a sentence why there is none.
    """
    import torch  # late: a confidence that was fitted needs none of it

    people = {str(n): given for n, given in enumerate(references)}
    if problem := cider_problem(people):
        return problem
    level = person_level(people)
    if level is None:
        return "every validation picture has one caption alone: no person's level is known"
    batches = list(validation)
    pooled = torch.cat([some for some, _ in batches]).cpu()
    captions = [caption for _, some in batches for caption in some]
    texts = [text_of(caption.tokens) for caption in captions]
    scores = caption_scores(people, {str(n): text for n, text in enumerate(texts)})
    good = np.array(list(scores.values())) > level
    if min(good.sum(), (~good).sum()) < LEAST:
        return (
            f"{good.sum()} of {len(good)} validation captions are as good as a person's; expected "
            f"{LEAST} or more of both kinds"
        )
    grids = torch.cat(list(training)).double().cpu().numpy()
    centre, deviation = grids.mean(0), grids.std(0)
    scale = deviation + 0.1 * deviation.mean()
    scale[scale == 0] = math.inf
    x = features(captions, distances(pooled, centre, scale))
    weights, bias = fit_logistic(x, good, list(FEATURES.values()))
    fitted = Confidence(tuple(weights), bias, 0.0, tuple(centre), tuple(scale))
    # What is stored is rounded: the threshold is that of the captions as they will be judged.
    fitted = Confidence.from_dict(fitted.to_dict())
    sure = fitted(captions, pooled)
    reached = selective_threshold(sure, good, PERSON)
    threshold = max(1.0 if reached is None else reached, float(np.quantile(sure, TAIL)))
    return Confidence.from_dict(fitted.to_dict() | {"threshold": threshold})


def fit_abstaining(
    sure: Sequence[float], right: Sequence[float], say: Callable[[str], None]
) -> float:
    """The confidence below which a model is not sure of an answer, from the validation split.

    It is the smallest at which 60 % of the answers with no less are right: 0 where all answers
    are, 1 where none of the surest are.

    Args:
        sure: confidence of each validation answer.
        right: accuracy of each, in [0, 1].
        say: takes a line where there is no such bound.
    """
    if len(sure) < ANSWERS:
        say(
            f"no bound to abstain below: {len(sure)} validation answers; expected {ANSWERS} or more"
        )
        return 0.0
    reached = selective_threshold(sure, right, ANSWERED)
    if reached is None:
        say(f"never sure: even of the surest validation answers less than {ANSWERED:.0%} are right")
    return 1.0 if reached is None else reached


def certainty(confidence: float | None, sure: bool | None, least: float = 0.0) -> str | None:
    """A confidence in words: "not sure", "fairly sure" or "sure"; None where there is none.

    Args:
        confidence: of a caption or an answer.
        sure: whether it reaches the model's own bound.
        least: below it a model is not sure either; ``LIKELY`` for answers. Of captions half is the
            level of people.
    """
    if confidence is None:
        return None
    if not sure or confidence < least:
        return "not sure"
    return "sure" if confidence >= SURE else "fairly sure"


def check_bound(value: float | None) -> None:
    """Refuse a bound on the confidence outside 0 to 1, with a UsageError; None is the model's."""
    if value is not None and (not isinstance(value, Real) or not 0 <= value <= 1):
        raise UsageError(f"--abstain-below {value}: expected 0 to 1")


def fit_logistic(
    x: Floats, good: NDArray[np.bool_], bounds: Sequence[tuple[float | None, float | None]]
) -> tuple[Floats, float]:
    """Logistic regression with bounds on the weights.

    With z the features (N, F) standardised by their mean and deviation, it minimises::

        sum_n log(1 + exp(-y_n (b + v . z_n))) + |v|^2 / 2        y_n = 1 where good, else -1

    A feature that does not vary has the weight 0.

    Returns:
        The weights (F,) of the features as they are, and the bias.
    """
    from scipy.optimize import minimize

    mean, deviation = x.mean(0), x.std(0)
    varies = deviation > 1e-9
    z = np.where(varies, (x - mean) / np.where(varies, deviation, 1.0), 0.0)
    sign = np.where(good, 1.0, -1.0)

    def loss(values: Floats) -> tuple[float, Floats]:
        v, bias = values[:-1], values[-1]
        margin = sign * (bias + z @ v)
        slope = -sign * (0.5 - 0.5 * np.tanh(margin / 2))  # d loss / d (bias + v . z)
        value = np.logaddexp(0, -margin).sum() + v @ v / 2
        return float(value), np.append(z.T @ slope + v, slope.sum())

    start = np.zeros(x.shape[1] + 1)
    options = {"ftol": 1e-12, "gtol": 1e-8}
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[*bounds, (None, None)], options=options
    )
    weights = np.where(varies, found.x[:-1] / np.where(varies, deviation, 1.0), 0.0)
    return weights, float(found.x[-1] - weights @ mean)

"""Confidence: the chance that a caption is good, and what a model cannot judge.

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
distance   from the training pictures (``Novelty``)                             <= 0
=========  ===================================================================  =========

The signs are bounds of the fit: a picture that is further from all training pictures never has the
higher confidence.

Below the **threshold** a model is not sure. It is the smallest confidence of the validation split
at which the captions with no less are as often good as those of people, and not below that of the
least sure tenth, which keeps a good model from being sure of everything.

A picture is **unfamiliar** if its distance from the training pictures is more than that of 99 % of
the validation pictures. With g the pooled grid of a picture, before any projection, and k_j the K
centroids of those of the training pictures, all of length 1::

    distance = 1 - max_j g . k_j

A direction says what is in a picture, the length of g how much: the direction alone tells foreign
pictures best (benchmarks/unfamiliar.py).

A question with an **unknown content word** is about something that the model cannot read. Its
answer is never sure, and its confidence is what it proved to be worth on validation questions whose
rarest word was hidden: a temperature of their own divides its logits.

Shapes: ``N`` captions, pictures or questions, ``M`` training pictures, ``C`` channels, ``F``
features, ``T`` words, ``A`` answers.

References:
    Platt 1999, Probabilistic Outputs for Support Vector Machines.
    Sun et al. 2022, Out-of-Distribution Detection with Deep Nearest Neighbors (features of length
    1; here the nearest centroid stands for the nearest pictures).
    Dhillon and Modha 2001, Concept Decompositions for Large Sparse Text Data (spherical k-means).
"""

import base64
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UsageError
from ..metrics import caption_scores, cider_problem, person_level, selective_threshold
from .search import Decoded

Floats = NDArray[np.float64]

FEATURES = {  # with the bounds of their weights
    "log_prob": (0.0, None),
    "weakest": (0.0, None),
    "spread": (None, 0.0),
    "length": (None, None),
    "distance": (None, 0.0),
}
LONG = ("centre", "scale")  # fields of a number a channel
SAMPLE = 2000  # training pictures that give the centroids
CENTROIDS = 16
ALARMS = 0.01  # share of the validation pictures that are unfamiliar
PICTURES = 20  # of either split, without which no distance is fitted
LEAST = 10  # good captions, and others, without which nothing is fitted
PERSON = 0.5  # share of people's captions that are good, by definition
TAIL = 0.1  # share of validation captions that are never sure
ANSWERED = 0.6  # accuracy of the answers that a model is sure of
ANSWERS = 30  # validation answers, without which no bound is fitted
SURE = 2 / 3  # confidence from which a model is called sure, not fairly sure
LIKELY = 0.5  # of an answer, from which it is called fairly sure: else it is rather wrong
LOW, HIGH = 0.05, 20.0  # of the temperature


@dataclass(frozen=True, eq=False)
class Novelty:
    """How far pictures are from those that a model learned from.

    Attributes:
        centroids: (K, C) float32, each of length 1.
        threshold: the distance above which a picture is unfamiliar.
    """

    centroids: NDArray[np.float32]
    threshold: float

    def __post_init__(self) -> None:
        finite = np.isfinite(self.centroids).all() and math.isfinite(self.threshold)
        if self.centroids.ndim != 2 or not self.centroids.size or not finite:
            raise ValueError("novelty: expected rows of finite numbers")

    def distance(self, pooled: ArrayLike) -> Floats:
        """How far pictures with the pooled grids (N, C) are from the training pictures, (N,)."""
        return 1.0 - (_of_length_1(pooled) @ self.centroids.T.astype(np.float64)).max(1)

    def unfamiliar(self, pooled: ArrayLike) -> list[bool]:
        """Whether pictures with the pooled grids (N, C) are unlike the training pictures, N."""
        return [bool(far > self.threshold) for far in self.distance(pooled)]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; the centroids are base64 of float16, row after row."""
        content = base64.b64encode(self.centroids.astype("<f2").tobytes()).decode()
        return {"threshold": self.threshold, "count": len(self.centroids), "centroids": content}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From ``to_dict``'s values; ValueError, KeyError or TypeError where they are none."""
        numbers = np.frombuffer(base64.b64decode(values["centroids"], validate=True), "<f2")
        rows = numbers.reshape(int(values["count"]), -1).astype(np.float32)
        return cls(rows, float(values["threshold"]))


def _of_length_1(pooled: ArrayLike) -> Floats:
    """Rows (N, C) of length 1, or 0 where all is 0."""
    rows = np.asarray(pooled, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def fit_novelty(training: ArrayLike, validation: ArrayLike) -> Novelty | str:
    """Fit the distance from a model's training pictures.

    Args:
        training: pooled grids (M, C), before any projection.
        validation: those (N, C) of other pictures of the same kind.

    Returns:
        The distance with its threshold, or in half a sentence why there is none.
    """
    from scipy.cluster.vq import kmeans2

    rows, others = _of_length_1(training), np.asarray(validation)
    if min(len(rows), len(others)) < PICTURES:
        found = f"{len(rows)} training and {len(others)} validation pictures"
        return f"{found}; expected {PICTURES} or more of each"
    # As many as there are different pictures, and no cluster of a few.
    count = min(CENTROIDS, len(np.unique(rows, axis=0)), len(rows) // 5)
    with warnings.catch_warnings():  # of a centroid without pictures, which stays where it was
        warnings.simplefilter("ignore")
        means = kmeans2(rows, count, minit="++", rng=np.random.default_rng(0))[0]
    centroids = _of_length_1(means).astype(np.float32)
    # What is stored is rounded: the threshold is that of the distances as they will be taken.
    fitted = Novelty.from_dict(Novelty(centroids, 0.0).to_dict())
    far = fitted.distance(others)
    return Novelty(fitted.centroids, float(np.quantile(far, 1 - ALARMS)))


@dataclass(frozen=True)
class Confidence:
    """A fitted confidence; calling it gives the confidences (N,) of captions.

    Attributes:
        weights: of ``FEATURES``, in their order and own units.
        bias: of the sum.
        threshold: the confidence below which the model is not sure.
        centre: (C,) of a model of an earlier version, whose distance is
            ``sqrt(mean_c ((g_c - centre_c) / scale_c)^2)``; else empty.
        scale: (C,) likewise.
    """

    weights: tuple[float, ...]
    bias: float
    threshold: float
    centre: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        sizes = len(self.weights) == len(FEATURES) and len(self.centre) == len(self.scale)
        numbers = np.array([*self.weights, self.bias, *self.centre])
        if not (sizes and np.isfinite(numbers).all() and min(self.scale, default=1) > 0):
            raise ValueError("confidence: expected finite numbers of equal counts")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"confidence: threshold {self.threshold}: expected 0 to 1")

    def __call__(self, captions: Sequence[Decoded], distance: Floats) -> Floats:
        """Confidences (N,) of captions, with the distance (N,) of each one's picture."""
        x = features(captions, distance)
        return 0.5 + 0.5 * np.tanh((self.bias + x @ np.array(self.weights)) / 2)

    def distance(self, pooled: ArrayLike, novelty: Novelty | None) -> Floats:
        """The distances (N,) of pictures that it takes; ``novelty`` is the model's."""
        rows = np.asarray(pooled, np.float64)
        if self.centre:
            apart = (rows - np.array(self.centre)) / np.array(self.scale)
            return np.sqrt(np.mean(apart**2, axis=1))
        return novelty.distance(rows) if novelty else np.zeros(len(rows))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; each (C,) is one text."""
        long = {name: " ".join(f"{x:.5g}" for x in getattr(self, name)) for name in LONG}
        weights = dict(zip(FEATURES, self.weights, strict=True))
        plain = {"weights": weights, "bias": self.bias, "threshold": self.threshold}
        return plain | long if self.centre else plain

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From ``to_dict``'s values; ValueError, KeyError or TypeError where they are none."""
        weights = tuple(float(values["weights"][name]) for name in FEATURES)
        long = {n: tuple(map(float, values[n].split())) for n in LONG if n in values}
        return cls(weights, float(values["bias"]), float(values["threshold"]), **long)


def judge(
    caption: Decoded, pooled: ArrayLike, confidence: Confidence | None, novelty: Novelty | None
) -> tuple[float | None, bool | None, bool | None]:
    """What a model knows of a caption: ``confidence``, ``sure`` and ``unfamiliar`` of ``Caption``.

    Args:
        caption: of a picture.
        pooled: (C,) its grid.
        confidence: the model's, or None.
        novelty: likewise.
    """
    rows = np.asarray(pooled)[None]
    unfamiliar = novelty.unfamiliar(rows)[0] if novelty else None
    share = sure = None
    if confidence:
        share = float(confidence([caption], confidence.distance(rows, novelty))[0])
        sure = share >= confidence.threshold
    return share, sure, unfamiliar


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


def fit_confidence(
    captions: Sequence[Decoded],
    distance: Floats,
    text_of: Callable[[Sequence[int]], str],
    references: Sequence[Sequence[str]],
) -> Confidence | str:
    """Fit a model's confidence on the validation split.

    Args:
        captions: of the N pictures, decoded as the model decodes.
        distance: (N,) of the pictures from the training pictures.
        text_of: a caption's text from its tokens.
        references: what people said of each picture.

    Returns:
        The confidence, or in half a sentence why there is none.
    """
    people = {str(n): given for n, given in enumerate(references)}
    if problem := cider_problem(people):
        return problem
    level = person_level(people)
    if level is None:
        return "every validation picture has one caption alone: no person's level is known"
    texts = [text_of(caption.tokens) for caption in captions]
    scores = caption_scores(people, {str(n): text for n, text in enumerate(texts)})
    good = np.array(list(scores.values())) > level
    if min(good.sum(), (~good).sum()) < LEAST:
        return (
            f"{good.sum()} of {len(good)} validation captions are as good as a person's; expected "
            f"{LEAST} or more of both kinds"
        )
    weights, bias = fit_logistic(features(captions, distance), good, list(FEATURES.values()))
    fitted = Confidence(tuple(map(float, weights)), bias, 0.0)
    sure = fitted(captions, distance)
    reached = selective_threshold(sure, good, PERSON)
    threshold = max(1.0 if reached is None else reached, float(np.quantile(sure, TAIL)))
    return replace(fitted, threshold=threshold)


def likeliest(logits: ArrayLike, temperature: float, sigmoid: bool) -> Floats:
    """The probability (N,) of each question's likeliest answer, of logits (N, A)."""
    from scipy.special import expit, softmax

    scaled = np.asarray(logits, np.float64) / temperature
    return np.asarray((expit(scaled) if sigmoid else softmax(scaled, axis=1)).max(1))


def hide_a_word(tokens: Sequence[int], unk: int) -> list[int]:
    """A question as if a word of it were unknown: its rarest, since unknown words are rare.

    Ids grow as words get rarer. A question with an unknown word stays as it is.
    """
    hidden = list(tokens)
    if unk not in hidden:
        hidden[hidden.index(max(hidden))] = unk
    return hidden


def fit_temperature(logits: ArrayLike, accuracy: ArrayLike, *, sigmoid: bool = False) -> float:
    """The temperature T of a model, in 0.05 to 20, which divides its logits.

    With p(T) the probability of the model's first answer and a the accuracy of that answer, T
    minimises::

        - mean of  a log p(T) + (1 - a) log (1 - p(T))

    Guo et al. minimise the likelihood of the right class. Here the right answer is often outside
    the vocabulary, which their measure cannot see, and ten people may differ; so it is the first
    answer's being right that is made likely.

    Args:
        logits: (N, A) of validation questions.
        accuracy: a (N,) in [0, 1], of each question's likeliest answer.
        sigmoid: answers are independent (``soft`` targets) instead of a softmax.

    Returns:
        T, or 1.0 where there are no questions, or all or none are answered right.

    References:
        Guo et al. 2017, On Calibration of Modern Neural Networks.
    """
    from scipy.optimize import minimize_scalar

    right, wide = np.asarray(accuracy, np.float64), np.asarray(logits, np.float64)
    # Of no question, or at T = 0, or infinite, there is no minimum.
    if not len(wide) or right.min() == 1 or right.max() == 0:
        return 1.0

    def loss(log_temperature: float) -> float:
        first = likeliest(wide, float(np.exp(log_temperature)), sigmoid).clip(1e-12, 1 - 1e-12)
        return float(-(right * np.log(first) + (1 - right) * np.log(1 - first)).mean())

    result = minimize_scalar(loss, bounds=(np.log(LOW), np.log(HIGH)), method="bounded")
    return float(np.exp(result.x))


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


def certainty(
    confidence: float | None,
    sure: bool | None,
    least: float = 0.0,
    *,
    unfamiliar: bool | None = None,
) -> str | None:
    """A confidence in words: "not sure", "fairly sure" or "sure"; None where there is none.

    Args:
        confidence: of a caption or an answer.
        sure: whether it reaches the model's own bound.
        least: below it a model is not sure either; ``LIKELY`` for answers. Of captions half is the
            level of people.
        unfamiliar: whether the picture is; of such a one a model is at best fairly sure, since its
            confidence was fitted to others.
    """
    if confidence is None:
        return None
    if not sure or confidence < least:
        return "not sure"
    return "sure" if confidence >= SURE and not unfamiliar else "fairly sure"


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

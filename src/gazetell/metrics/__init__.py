"""Metrics of captions and of answers: strings in, numbers out.

`score_captions` gives BLEU-1..4, ROUGE-L and CIDEr as the official COCO caption evaluation
(pycocoevalcap) prints them, without Java, and METEOR and SPICE with it. `compare_captions` tells
whether one set of captions scores better than another by more than the choice of pictures.

`score_answers` gives the accuracy of answers to questions as the official VQA evaluation does,
`score_wups` the measure of DAQUAR, `compare_answers` is to answers what `compare_captions` is to
captions. `expected_calibration_error`, `reliability` and `risk_coverage` judge confidences.

The parts can be used alone: `words` splits captions as that evaluation does, `ngrams` and `cider`
score tokens of any kind, `java` runs METEOR and SPICE, `vqa` normalises and judges one answer.
Nothing here reads files or imports the rest of gazetell.
"""

import logging
from collections.abc import Mapping, Sequence

from .calibration import (
    Reliability,
    RiskCoverage,
    expected_calibration_error,
    reliability,
    risk_coverage,
)
from .cider import CiderD, cider_d
from .compare import Difference, compare_answers, compare_captions
from .java import JavaScore, meteor, spice
from .ngrams import bleu, rouge_l
from .vqa import (
    YEARS,
    answer_accuracy,
    answer_measure,
    answer_scores,
    exact_match,
    normalise_answer,
    score_answers,
    vqa_accuracy,
)
from .words import at_blanks, split, split_all, unspaced_texts
from .wups import Wups, score_wups

__all__ = [
    "METRICS",
    "YEARS",
    "CiderD",
    "Difference",
    "JavaScore",
    "Reliability",
    "RiskCoverage",
    "Wups",
    "answer_accuracy",
    "answer_measure",
    "answer_scores",
    "bleu",
    "caption_scores",
    "cider_d",
    "cider_problem",
    "compare_answers",
    "compare_captions",
    "exact_match",
    "expected_calibration_error",
    "meteor",
    "normalise_answer",
    "reliability",
    "risk_coverage",
    "rouge_l",
    "score_answers",
    "score_captions",
    "score_wups",
    "spice",
    "split",
    "unspaced_texts",
    "vqa_accuracy",
]

METRICS = (*(f"bleu_{n}" for n in range(1, 5)), "rouge_l", "cider", "cider_d", "meteor", "spice")
"""The keys of `score_captions`, in the order of a table."""

logger = logging.getLogger(__name__)


def score_captions(
    references: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    *,
    java: bool = False,
) -> dict[str, float | None]:
    """Score captions against references, as the official COCO caption evaluation does.

    ``cider`` and ``cider_d`` are the same number under its two names: what pycocoevalcap, and
    every table of results, calls CIDEr is CIDEr-D (see `gazetell.metrics.cider`). Document
    frequencies are those of the references given, so a score depends on the set of pictures.

    Args:
        references: the reference captions of each picture, at least one.
        predictions: the caption of each of the same pictures; one without words scores as empty.
        java: also compute METEOR and SPICE, which need Java and pycocoevalcap.

    Returns:
        The scores under `METRICS`, in [0, 1] (CIDEr in [0, 10]). None means not computed; for
        METEOR and SPICE with ``java`` the reason is logged as a warning.

    Raises:
        ValueError: no pictures, different pictures in the two, or one without references.
    """
    candidates, texts = split_all(references, predictions)
    spaced = [at_blanks(words) for words in candidates]
    spaced_texts = [[at_blanks(words) for words in captions] for captions in texts]
    bleus, _ = bleu(spaced, spaced_texts)
    cider, _ = cider_d(spaced, spaced_texts)
    scores: dict[str, float | None] = dict.fromkeys(METRICS)
    scores |= {f"bleu_{n}": score for n, score in enumerate(bleus, start=1)}
    scores |= {"rouge_l": rouge_l(candidates, texts)[0], "cider": cider, "cider_d": cider}
    if java:
        lines = [" ".join(words) for words in candidates]
        reference_lines = [[" ".join(words) for words in captions] for captions in texts]
        for name, metric in (("meteor", meteor), ("spice", spice)):
            result = metric(lines, reference_lines)
            scores[name] = result.score
            if result.score is None:
                logger.warning("%s not computed: %s", name.upper(), result.reason)
    return scores


def caption_scores(
    references: Mapping[str, Sequence[str]], predictions: Mapping[str, str]
) -> dict[str, float]:
    """The CIDEr of each picture's caption, for lists of the best and the worst.

    Args:
        references: the reference captions of each picture, at least one.
        predictions: the caption of each of the same pictures.

    Returns:
        A score in [0, 10] for each picture, in the order of ``predictions``. Their mean is the
        ``cider`` of `score_captions`.

    Raises:
        ValueError: no pictures, different pictures in the two, or one without references.
    """
    candidates, texts = split_all(references, predictions)
    _, scores = cider_d(
        [at_blanks(words) for words in candidates],
        [[at_blanks(words) for words in captions] for captions in texts],
    )
    return dict(zip(predictions, scores.tolist(), strict=True))


def cider_problem(references: Mapping[str, Sequence[str]]) -> str | None:
    """Why CIDEr cannot tell good captions from bad ones against these references.

    It is 0 for every caption where all pictures share all their n-grams: of one picture, or of
    references that are alike. Of text without blanks between words the official splitter makes
    one word a sentence. A model must not be chosen by such a figure.

    Args:
        references: the reference captions of each picture, at least one.

    Returns:
        The reason, half a sentence for a message; None if CIDEr can tell.
    """
    captions = [caption for texts in references.values() for caption in texts]
    unspaced = unspaced_texts(captions)
    if 2 * unspaced.total() > len(captions):
        return (
            f"the references are in {' and '.join(unspaced)} without blanks between words, and "
            "the official splitter takes whole sentences for words"
        )
    if len(references) == 1:
        return "CIDEr of one picture is 0 by definition"
    sets = (_ngrams(texts) for texts in references.values())
    first = next(sets, frozenset())
    if all(ngrams == first for ngrams in sets):
        return "the references of all pictures are alike, and CIDEr is 0 by definition"
    return None


def _ngrams(captions: Sequence[str]) -> frozenset[tuple[str, ...]]:
    """The n-grams of some captions, n = 1..4."""
    words = [at_blanks(split(caption)) for caption in captions]
    return frozenset(
        tuple(text[start : start + n])
        for text in words
        for n in range(1, 5)
        for start in range(len(text) - n + 1)
    )

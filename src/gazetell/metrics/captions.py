"""Scores of captions, as the official COCO caption evaluation (pycocoevalcap) prints them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cider import CiderD
from .java import meteor, spice
from .ngrams import bleu_counts, bleu_of_counts, count_ngrams, rouge_l
from .words import at_blanks, check_pairs, split, unspaced_texts

METRICS = (*(f"bleu_{n}" for n in range(1, 5)), "rouge_l", "cider", "cider_d", "meteor", "spice")
"""The keys of `score_captions`, in the order of a table."""

Words = list[list[str]]

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
    candidates, texts = _split(references, predictions)
    found = Scored.of(candidates, texts)
    scores: dict[str, float | None] = dict.fromkeys(METRICS)
    scores |= found.scores | {"cider_d": found.scores["cider"]}
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

    Arguments and errors are those of `score_captions`.

    Returns:
        A score in [0, 10] for each picture, in the order of ``predictions``. Their mean is the
        ``cider`` of `score_captions`.
    """
    candidates, texts = _at_blanks(*_split(references, predictions))
    return dict(zip(predictions, CiderD(texts).score(candidates).tolist(), strict=True))


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
    sets = (
        {ngram for caption in texts for ngram in count_ngrams(at_blanks(split(caption)))}
        for texts in references.values()
    )
    first = next(sets, set())
    if all(ngrams == first for ngrams in sets):
        return "the references of all pictures are alike, and CIDEr is 0 by definition"
    return None


@dataclass(frozen=True)
class Scored:
    """What captions score: on the set, and in each picture what the scores of a draw need."""

    scores: dict[str, float]
    counts: NDArray[np.float64]  # (pictures, 10), see bleu_counts
    means: NDArray[np.float64]  # (pictures, 2): ROUGE-L and CIDEr

    @classmethod
    def of(cls, candidates: Words, texts: list[Words]) -> "Scored":
        """Score the words of captions and of their references."""
        spaced, spaced_texts = _at_blanks(candidates, texts)
        counts = bleu_counts(spaced, spaced_texts)
        bleus = bleu_of_counts(counts.sum(axis=0, keepdims=True))[:, 0]
        rouge, rouges = rouge_l(candidates, texts)
        ciders = CiderD(spaced_texts).score(spaced)
        scores = {f"bleu_{n}": float(score) for n, score in enumerate(bleus, start=1)}
        scores |= {"rouge_l": rouge, "cider": float(ciders.mean())}
        return cls(scores, counts, np.stack([rouges, ciders], axis=1))

    @classmethod
    def in_order(
        cls, references: Mapping[str, Sequence[str]], captions: Mapping[str, str]
    ) -> "Scored":
        """Score captions, pictures in the order of the references."""
        ordered = {picture: captions[picture] for picture in references if picture in captions}
        # Captions of other pictures stay, to be refused by name.
        return cls.of(*_split(references, {**ordered, **captions}))


def _split(
    references: Mapping[str, Sequence[str]], predictions: Mapping[str, str]
) -> tuple[Words, list[Words]]:
    """The words of predictions and references, pictures in the order of ``predictions``."""
    check_pairs(references, predictions, "picture")
    return (
        [split(caption) for caption in predictions.values()],
        [[split(caption) for caption in references[picture]] for picture in predictions],
    )


def _at_blanks(candidates: Words, texts: list[Words]) -> tuple[Words, list[Words]]:
    """Words for BLEU and CIDEr."""
    return (
        [at_blanks(words) for words in candidates],
        [[at_blanks(words) for words in captions] for captions in texts],
    )

"""BLEU and ROUGE-L on tokens, equal to the official COCO caption evaluation.

Both take ``candidates``, one token sequence a picture, and ``references``, at least one token
sequence for each of the same pictures. Tokens are anything hashable. They return the score of the
set and an array with each picture's own. Score words, not token ids: an unknown word must not
match another. CIDEr-D is in `gazetell.metrics.cider`.

Equality is meant with pycocoevalcap, whose habits are kept:

* BLEU is that of the whole set, not a mean: matches and lengths are summed first. The brevity
  penalty takes the reference nearest in length, the shorter of two. A precision is
  ``(correct + 1e-15) / (guessed + 1e-9)``, so a set without a match scores next to 0, not 0.
* ROUGE-L takes the best recall and the best precision over the references, which may come from
  two different ones, and F with beta = 1.2. A text without a word counts as one empty word, so
  an empty candidate is right where a reference is empty too.

References: Papineni et al. 2002, BLEU; Lin 2004, ROUGE; Hyyrö 2004, Bit-Parallel LCS-length
Computation Revisited.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = Sequence[Hashable]
Scores = NDArray[np.float64]

ORDERS = 4
SMALL, TINY = 1e-9, 1e-15
BETA = 1.2


def bleu(
    candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> tuple[tuple[float, ...], Scores]:
    """BLEU-1 to BLEU-4.

    Args:
        candidates: one token sequence a picture; may be empty.
        references: the reference token sequences of each picture.

    Returns:
        BLEU-1..4 of the set, each in [0, 1], and those of each picture, shape (4, pictures).

    Raises:
        ValueError: no pictures, unequal numbers, or a picture without references.
    """
    counts = bleu_counts(candidates, references)
    total = bleu_of_counts(counts.sum(axis=0, keepdims=True))[:, 0]
    return tuple(float(value) for value in total), bleu_of_counts(counts)


def bleu_counts(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Scores:
    """What BLEU counts in each picture, (pictures, 10); the counts of a set are their sum.

    Columns: words, words of the nearest reference, then correct n-grams for n = 1..4, then guessed
    ones.
    """
    check_texts(candidates, references)
    counts = np.zeros((len(candidates), 2 + 2 * ORDERS))
    for row, candidate, texts in zip(counts, candidates, references, strict=True):
        length = len(candidate)
        row[0] = length
        row[1] = min((abs(len(text) - length), len(text)) for text in texts)[1]
        known = [count_ngrams(text) for text in texts]
        for ngram, count in count_ngrams(candidate).items():
            row[1 + len(ngram)] += min(count, max(text.get(ngram, 0) for text in known))
        row[2 + ORDERS :] = [max(0, length - n) for n in range(ORDERS)]
    return counts


def bleu_of_counts(counts: Scores) -> Scores:
    """BLEU-1..4, shape (4, rows), of rows of counts, (rows, 10) as `bleu_counts` lays them out."""
    length, nearest = counts[:, 0], counts[:, 1]
    correct, guessed = counts[:, 2 : 2 + ORDERS].T, counts[:, 2 + ORDERS :].T
    precision = (correct + TINY) / (guessed + SMALL)  # (4, rows)
    mean = np.cumprod(precision, axis=0) ** (1 / np.arange(1, ORDERS + 1)[:, None])
    ratio = (length + TINY) / (nearest + SMALL)
    return mean * np.exp(np.minimum(0.0, 1 - 1 / ratio))


def rouge_l(
    candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> tuple[float, Scores]:
    """ROUGE-L, the F measure (beta 1.2) of the longest common subsequence.

    Arguments and errors are those of `bleu`.

    Returns:
        The mean over the pictures, in [0, 1], and the score of each, shape (pictures,).
    """
    check_texts(candidates, references)
    scores = np.zeros(len(candidates))
    for i, (candidate, texts) in enumerate(zip(candidates, references, strict=True)):
        words = candidate or ("",)
        places: dict[Hashable, int] = {}  # bit j of places[word]: the candidate's word j is it
        for j, word in enumerate(words):
            places[word] = places.get(word, 0) | 1 << j
        precision = recall = 0.0
        for text in texts:
            text = text or ("",)
            common = _common(places, len(words), text)
            precision = max(precision, common / len(words))
            recall = max(recall, common / len(text))
        if precision and recall:
            scores[i] = (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)
    return float(scores.mean()), scores


def _common(places: dict[Hashable, int], length: int, text: Tokens) -> int:
    """Length of the longest common subsequence, one step a word (Hyyrö's bit-parallel algorithm).

    Zeros of ``row`` are the places where the usual table steps up.
    """
    full = row = (1 << length) - 1
    for word in text:
        if word in places:
            hit = row & places[word]
            row = (row + hit | row - hit) & full
    return length - row.bit_count()


def count_ngrams(tokens: Tokens) -> Counter[Any]:
    """How often each n-gram (a tuple, n = 1..4) occurs."""
    shifted = [tokens[n:] for n in range(ORDERS)]
    return Counter(chain(*(zip(*shifted[: n + 1], strict=False) for n in range(ORDERS))))


def check_texts(candidates: Sequence[Any], references: Sequence[Sequence[Any]]) -> None:
    """Refuse unequal numbers, none, or a picture without references."""
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} candidates, but references of {len(references)}")
    if not len(references):
        raise ValueError("no pictures to score")
    for i, texts in enumerate(references):
        if not len(texts):
            raise ValueError(f"picture {i} has no references")

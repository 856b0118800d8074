"""CIDEr-D: how well a caption agrees with what most references of its picture say.

A text is the vector g of the tf-idf weights of its n-grams, n = 1..4: how often the n-gram
occurs, times the logarithm of (pictures / pictures with the n-gram in a reference, at least 1).
With l the length of a text in bigrams, sigma = 6, and S the references of the picture::

    CIDEr-D_n(c, S) = 10 / |S| * sum_s  exp(-(l(c) - l(s))^2 / (2 sigma^2))
                                        * min(g(c), g(s)) . g(s) / (|g(c)| |g(s)|)

CIDEr-D is the mean over n, between 0 and 10. Two names for it are about. pycocoevalcap prints it
as "CIDEr", and so does every table of captioning results; the authors' own package calls the same
computation "CIDEr-D" and keeps "CIDEr" for one without the minimum and without the penalty on
length (``plain=True`` here). The paper divides each count by the length of the text as well; no
implementation does, and neither does this one. It equals pycocoevalcap's to rounding.

In a set of one picture every n-gram is in every document, so all weights and scores are 0.

Legend: E entries (an n-gram of a text and its count, texts one after the other), P pairs of a
candidate and a reference of its picture, N = 4 orders.

References: Vedantam, Zitnick and Parikh 2015, CIDEr; Rennie et al. 2017, Self-critical Sequence
Training (CIDEr-D as a reward).
"""

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .ngrams import ORDERS, Scores, Tokens, check_texts

Numbers = NDArray[np.int64]

SIGMA = 6.0
_PIECE = 50_000  # texts


def cider_d(
    candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], *, plain: bool = False
) -> tuple[float, Scores]:
    """CIDEr-D of a set, document frequencies taken from its references.

    Args:
        candidates: one token sequence a picture; may be empty.
        references: the reference token sequences of each picture.
        plain: the authors' CIDEr instead: no clipping, no penalty on length.

    Returns:
        The mean over the pictures, in [0, 10], and the score of each, shape (pictures,).

    Raises:
        ValueError: no pictures, unequal numbers, or a picture without references.
    """
    check_texts(candidates, references)
    scores = CiderD(references, plain=plain).score(candidates)
    return float(scores.mean()), scores


class CiderD:
    """CIDEr-D against references that stay: they are counted once.

    Made for a reward in training: ``score`` takes any number of candidates for any of the
    pictures, and document frequencies are always those of the references given here.

    Args:
        references: the reference token sequences of each picture. Tokens are anything hashable,
            words or token ids; candidates must be made of the same.
        plain: CIDEr instead of CIDEr-D: no clipping, no penalty on length.
        corpus: the references of other pictures, whose document frequencies count instead.

    Raises:
        ValueError: no pictures, or a picture without references.
    """

    def __init__(
        self,
        references: Sequence[Sequence[Tokens]],
        *,
        plain: bool = False,
        corpus: Sequence[Sequence[Tokens]] | None = None,
    ) -> None:
        check_texts(references, references)
        counted = references if corpus is None else corpus
        check_texts(counted, counted)
        self.plain = plain
        self._first_text = _starts(np.array([len(texts) for texts in references]))
        self._vocabulary = _Vocabulary()
        texts = [text for texts in references for text in texts]
        others = [text for texts in corpus or () for text in texts]
        entries = self._vocabulary.count([*texts, *others], learn=True)
        ours, theirs = (entries.part(0, len(texts)), entries.part(len(texts), len(texts + others)))
        self._entries, of = ours, ours if corpus is None else theirs
        self._lengths = _lengths(texts)
        self._first_entry = _starts(np.bincount(self._entries.text, minlength=len(texts)))

        sizes = np.array([len(texts) for texts in counted])
        in_picture = np.repeat(np.arange(len(sizes)), sizes)[of.text]
        in_picture *= of.span
        in_picture += of.ngram
        in_picture.sort()
        once = in_picture[np.diff(in_picture, prepend=-1) > 0]
        once %= of.span
        frequency = np.bincount(once, minlength=of.span)
        del in_picture, once  # they are large
        # An n-gram that no reference has weighs as much as one that a single picture has.
        self._unseen = math.log(len(counted))
        self._idf = self._unseen - np.log(np.maximum(1.0, frequency))
        self._weights, self._norms = self._weigh(self._entries, len(texts))

    def score(self, candidates: Sequence[Tokens], indices: Sequence[int] | None = None) -> Scores:
        """CIDEr-D of each candidate.

        Args:
            candidates: token sequences.
            indices: for each candidate, the place of its picture in ``references``; by default
                0, 1, 2, ... Places may repeat (several samples of one picture).

        Returns:
            Scores in [0, 10], shape (candidates,).

        Raises:
            ValueError: unequal numbers, or an index that is not in ``references``.
        """
        pictures = np.arange(len(candidates)) if indices is None else np.asarray(indices, np.int64)
        if len(pictures) != len(candidates):
            raise ValueError(f"{len(candidates)} candidates, but {len(pictures)} indices")
        if not len(pictures):
            return np.zeros(0)
        if pictures.min() < 0 or pictures.max() >= len(self._first_text) - 1:
            raise ValueError(
                f"indices must be in 0..{len(self._first_text) - 2}, "
                f"found {pictures.min()}..{pictures.max()}"
            )
        mine = self._vocabulary.count(candidates)
        weights, norms = self._weigh(mine, len(candidates))

        first, end = self._first_text[pictures], self._first_text[pictures + 1]
        candidate = np.repeat(np.arange(len(pictures)), end - first)  # (P,)
        text = _ranges(first, end)  # (P,)
        # Go through the entries of the references and look each up among the candidate's.
        first, end = self._first_entry[text], self._first_entry[text + 1]
        pair = np.repeat(np.arange(len(text)), end - first)
        theirs = _ranges(first, end)
        span = max(mine.span, self._entries.span)
        keys = mine.text.astype(np.int64) * span + mine.ngram  # sorted, as entries are
        place, hit = _find(keys, candidate[pair] * span + self._entries.ngram[theirs])
        pair, place, theirs = pair[hit], place[hit], theirs[hit]

        weight = self._weights[theirs]
        shared = weights[place] if self.plain else np.minimum(weights[place], weight)
        order = self._entries.ngram[theirs] % ORDERS
        dots = _sums(pair * ORDERS + order, shared * weight, len(text) * ORDERS)
        dots = dots.reshape(-1, ORDERS)  # (P, N)
        scale = norms[candidate] * self._norms[text]
        cosines = np.divide(dots, scale, out=np.zeros_like(dots), where=scale > 0).mean(axis=1)
        if not self.plain:
            apart = _lengths(candidates)[candidate] - self._lengths[text]
            cosines *= np.exp(-(apart**2) / (2 * SIGMA**2))
        counted = np.bincount(candidate)
        return 10 * _sums(candidate, cosines, len(pictures)) / counted

    def people(self, references: Sequence[Sequence[Tokens]]) -> Scores:
        """The score of each reference against the others of its picture; NaN for one that is alone.

        Document frequencies are those of all references, this one's words counted.

        Args:
            references: those that the scorer was made of.
        """
        sizes = np.diff(self._first_text)
        picture = np.repeat(np.arange(len(sizes)), sizes)
        among = self.score([text for texts in references for text in texts], picture.tolist())
        # A text is like itself in each order that has any weight.
        itself = 10 * (self._norms > 0).mean(1)
        others = (sizes - 1)[picture]
        alone = others == 0
        sums = sizes[picture] * among - itself
        return np.where(alone, np.nan, sums / np.where(alone, 1, others))

    def _weigh(self, entries: "_Entries", texts: int) -> tuple[Scores, Scores]:
        """The tf-idf weight of each entry, shape (E,), and the norms of each text, (texts, N)."""
        seen = entries.ngram < len(self._idf)
        idf = np.full(len(seen), self._unseen)
        idf[seen] = self._idf[entries.ngram[seen]]
        weights = entries.times * idf
        order = entries.ngram % ORDERS
        squares = _sums(entries.text * ORDERS + order, weights**2, texts * ORDERS)
        return weights, np.sqrt(squares).reshape(texts, ORDERS)


class _Entries(NamedTuple):
    """The different n-grams of texts, sorted by text, then n-gram. All numbers are below ``span``.

    The n-gram number is ``N * (place among those of its order) + n - 1``. The arrays are of int32:
    those of half a million references are large.
    """

    text: NDArray[np.int32]  # (E,)
    ngram: NDArray[np.int32]  # (E,)
    times: NDArray[np.int32]  # (E,)
    span: int

    def part(self, first: int, end: int) -> "_Entries":
        """The entries of some of the texts, which are counted from 0 again."""
        a, b = np.searchsorted(self.text, (first, end))
        return _Entries(self.text[a:b] - first, self.ngram[a:b], self.times[a:b], self.span)


class _Vocabulary:
    """Numbers n-grams.

    An n-gram is known by the number of its first n - 1 tokens and its last token, so a table a
    level suffices, and all texts go through a level at once.
    """

    def __init__(self) -> None:
        self._tokens: dict[Hashable, int] = {}
        self._tables: list[Numbers] = []  # sorted keys of the known n-grams, n = 2..4

    def count(self, texts: Sequence[Tokens], learn: bool = False) -> _Entries:
        """Count the n-grams of texts; the first call learns them, later calls only know them.

        N-grams that were not learned get numbers of their own, none that a learned one has.
        """
        known = self._tokens
        numbers = known if learn else {}
        flat: list[int] = []
        for text in texts:
            for token in text:
                number = known.get(token)
                if number is None:
                    number = numbers.setdefault(token, len(known) + (0 if learn else len(numbers)))
                flat.append(number)
        tokens = np.array(flat, dtype=np.int64)
        sizes = np.array([len(text) for text in texts], dtype=np.int64)
        text_of = np.repeat(np.arange(len(texts), dtype=np.int32), sizes)
        left = np.repeat(np.cumsum(sizes), sizes) - np.arange(len(tokens))  # tokens to the end

        where = np.arange(len(tokens), dtype=np.int32)  # places at which an n-gram starts
        place = tokens
        starts, ngrams = [where], [(place * ORDERS).astype(np.int32)]
        for n in range(1, ORDERS):
            longer = left[where] > n
            where, place = where[longer], place[longer]
            place = self._number((place << 31) | tokens[where + n], n, learn)
            starts.append(where)
            ngrams.append((place * ORDERS + n).astype(np.int32))
        span = max(int(each.max(initial=0)) for each in ngrams) + 1
        # Some texts at a time: to sort all at once takes several times the memory.
        first = _starts(sizes)
        counted: list[tuple[NDArray[np.int32], ...]] = []
        for begin in range(0, max(len(texts), 1), _PIECE):
            ends = first[begin], first[min(begin + _PIECE, len(texts))]
            cuts = [slice(*np.searchsorted(where, ends)) for where in starts]
            owner = np.concatenate([text_of[w[c]] for w, c in zip(starts, cuts, strict=True)])
            ngram = np.concatenate([x[c] for x, c in zip(ngrams, cuts, strict=True)])
            keys, times = np.unique(owner.astype(np.int64) * span + ngram, return_counts=True)
            counted.append(tuple(x.astype(np.int32) for x in (keys // span, keys % span, times)))
        owners, grams, counts = map(np.concatenate, zip(*counted, strict=True))
        return _Entries(owners, grams, counts, span)

    def _number(self, keys: Numbers, n: int, learn: bool) -> Numbers:
        """Numbers of the (n + 1)-grams with these keys."""
        if learn:
            table, place = np.unique(keys, return_inverse=True)
            self._tables.append(table)
            return place
        table = self._tables[n - 1]
        place, hit = _find(table, keys)
        _, new = np.unique(keys[~hit], return_inverse=True)
        place[~hit] = len(table) + new
        return place


def _find(table: Numbers, keys: Numbers) -> tuple[Numbers, NDArray[np.bool_]]:
    """Where in a sorted table each key is, and whether it is there at all."""
    if not len(table):
        return np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=bool)
    place = np.searchsorted(table, keys).clip(max=len(table) - 1)
    return place, table[place] == keys


def _lengths(texts: Sequence[Tokens]) -> Numbers:
    """Lengths in bigrams."""
    return np.array([max(0, len(text) - 1) for text in texts], dtype=np.int64)


def _starts(sizes: NDArray[Any]) -> Numbers:
    """Where each of consecutive stretches starts, and the end of the last."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _ranges(first: Numbers, end: Numbers) -> Numbers:
    """``[*range(first[0], end[0]), *range(first[1], end[1]), ...]``."""
    starts = _starts(end - first)
    return np.arange(starts[-1]) + np.repeat(first - starts[:-1], end - first)


def _sums(places: Numbers, values: Scores, size: int) -> Scores:
    """Add up ``values`` by place, shape (size,); bincount alone makes integers of no values."""
    return np.bincount(places, weights=values, minlength=size).astype(np.float64)

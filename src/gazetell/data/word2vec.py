"""Word vectors from the captions of a dataset itself: word2vec, by gensim.

Two models with negative sampling. Skip-gram predicts each neighbour ``c`` of a word ``w`` among
five words ``n`` drawn at random, maximising ``log s(u_c . v_w) + sum_n log s(-u_n . v_w)``; CBOW
predicts ``w`` from the mean of its neighbours' ``v``. The rows ``v`` are the word vectors.

A caption is what the captioner will read: the ids of the tokenizer, ``<start>``, ``<end>`` and
``<unk>`` among them, so that these have vectors too.

Reference: Mikolov et al. 2013, arXiv:1301.3781 and arXiv:1310.4546.

Shapes: ``V`` words that occur, ``E`` embedding.
"""

import logging
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import UsageError
from .text import Tokenizer

__all__ = ["Word2VecModel", "Word2VecOptions", "train_word2vec"]

Word2VecModel = Literal["skipgram", "cbow"]


@dataclass(frozen=True)
class Word2VecOptions:
    """How to train; raises UsageError for an option out of range.

    Attributes:
        model: "skipgram" (better on small corpora) or "cbow" (faster).
        size: E, numbers a word.
        epochs: passes over the captions.
        window: neighbours to each side, at most.
        seed: of everything random.
    """

    model: Word2VecModel = "skipgram"
    size: int = 256
    epochs: int = 20
    window: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model not in ("skipgram", "cbow"):
            raise UsageError(f"model is {self.model!r}; expected 'skipgram' or 'cbow'")
        for name in ("size", "epochs", "window"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed is {self.seed}; expected 0 to {2**32 - 1}")


def train_word2vec(
    captions: Sequence[str], tokenizer: Tokenizer, options: Word2VecOptions
) -> tuple[list[str], np.ndarray, int]:
    """Train word vectors on captions; the same captions and options give the same bits.

    Args:
        captions: the training captions, never those of another split.
        tokenizer: made of the same captions; its words get vectors.
        options: how.

    Returns:
        The words that occur, in the order of their ids; their vectors (V, E) float32; and how
        many words the captions have together (special tokens but ``<unk>`` not counted).

    Raises:
        UsageError: gensim is missing.
    """
    try:
        from gensim.models import Word2Vec
    except ImportError as error:
        raise UsageError(
            f"word vectors are trained by gensim ({error}): pip install 'gazetell[vectors]'"
        ) from error
    vocabulary = tokenizer.vocabulary
    corpus = [[vocabulary[i] for i in ids] for ids in tokenizer.encode_batch(captions)]
    with _silent("gensim"):
        model = Word2Vec(
            corpus,
            vector_size=options.size,
            window=options.window,
            epochs=options.epochs,
            sg=int(options.model == "skipgram"),
            seed=options.seed,
            min_count=1,  # the tokenizer has sorted out the rare words
            workers=1,  # several would race
            hashfxn=_hash,
        )
    words = [word for word in vocabulary if word in model.wv]
    running = sum(map(len, corpus)) - 2 * len(corpus)  # without <start> and <end>
    return words, np.stack([model.wv[word] for word in words]), running


def _hash(text: str) -> int:
    """A hash that, unlike Python's own, is the same in each process."""
    return zlib.crc32(text.encode())


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keep a library's advice on its inner settings off the terminal."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)

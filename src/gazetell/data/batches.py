"""Batches for training: pictures and all their captions, longest caption first.

A batch holds ``B`` pictures and the ``N`` captions of all of them, so that a picture is read,
encoded and projected once for its five captions. The captions are sorted by length: at each time
step a recurrent model computes only the rows that still have a word, so no padding is computed.

Shapes: ``B`` pictures, ``N`` captions, ``T`` words with ``<end>``, ``S`` input side, ``R``
regions, ``C`` channels.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .records import CaptionRecord
from .text import Tokenizer

__all__ = ["CaptionBatch", "CaptionData", "Source", "pad_captions"]


class CaptionBatch(NamedTuple):
    """A batch, see the module.

    Attributes:
        pictures: uint8 images (B, 3, S, S), or float16 cells (B, R, C) from a feature cache.
        records: (B,) index of each picture's record.
        owner: (N,) which of the B pictures a caption belongs to.
        tokens: (N, T+1) from ``<start>`` to ``<end>``, padded.
        lengths: (N,) steps of each caption, ``<end>`` counted; falling.
    """

    pictures: Tensor
    records: Tensor
    owner: Tensor
    tokens: Tensor
    lengths: Tensor


class Source(Protocol):
    """Where the pictures of a batch come from."""

    def load(self, names: Sequence[str], mirrored: np.ndarray) -> Tensor:
        """The pictures (B, ...), mirrored where ``mirrored`` (B,) says so."""


class CaptionData(Dataset[CaptionBatch]):
    """The captions of a split as batches; index it with a list of record indices.

    Args:
        records: of the split.
        tokenizer: encodes the captions.
        source: of the pictures.
        max_length: most words of a caption in training; the rest is cut.
        captions_per_image: at most so many captions of a picture an epoch, drawn anew each
            epoch; 0 is all.
        flip: probability of the mirrored picture.
        seed: of the draws.
        epoch: draws depend on seed, epoch and record alone, so a resumed run repeats them.
    """

    def __init__(
        self,
        records: Sequence[CaptionRecord],
        tokenizer: Tokenizer,
        source: Source,
        *,
        max_length: int = 20,
        captions_per_image: int = 0,
        flip: float = 0.0,
        seed: int = 0,
        epoch: int = 0,
    ) -> None:
        self.records, self.source = records, source
        self.pad = tokenizer.pad
        self.captions_per_image, self.flip = captions_per_image, flip
        self.seed, self.epoch = seed, epoch
        texts = [caption for record in records for caption in record.captions]
        encoded = iter(tokenizer.encode_batch(texts, max_length + 2))
        self.tokens = [[next(encoded) for _ in record.captions] for record in records]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> CaptionBatch:
        """A batch of one picture."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> CaptionBatch:
        """The batch of some records; torch's loader asks for a whole batch at once."""
        mirrored = np.zeros(len(indices), bool)
        captions: list[tuple[int, list[int]]] = []  # (owner, tokens)
        for b, index in enumerate(indices):
            random = np.random.default_rng((self.seed, self.epoch, index))
            mirrored[b] = random.random() < self.flip
            chosen = self.tokens[index]
            if 0 < self.captions_per_image < len(chosen):
                picks = random.choice(len(chosen), self.captions_per_image, replace=False)
                chosen = [chosen[pick] for pick in picks]
            captions += [(b, tokens) for tokens in chosen]
        captions.sort(key=lambda caption: -len(caption[1]))
        tokens, lengths = pad_captions([ids for _, ids in captions], self.pad)
        return CaptionBatch(
            pictures=self.source.load([self.records[i].image for i in indices], mirrored),
            records=torch.tensor(list(indices)),
            owner=torch.tensor([owner for owner, _ in captions], dtype=torch.long),
            tokens=tokens,
            lengths=lengths,
        )


def pad_captions(captions: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids from ``<start>`` on, longest first, as tokens (N, T+1) and lengths (N,)."""
    longest = len(captions[0]) if captions else 2
    tokens = torch.full((len(captions), longest), pad)
    for n, ids in enumerate(captions):
        tokens[n, : len(ids)] = torch.tensor(ids)
    return tokens, torch.tensor([len(ids) - 1 for ids in captions], dtype=torch.long)

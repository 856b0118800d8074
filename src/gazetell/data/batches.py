"""Batches for training: pictures and all their captions, or all their questions.

A batch holds ``B`` pictures and the ``N`` texts of all of them, so that a picture is read, encoded
and projected once for its five captions. Captions are sorted by length, longest first: at each
time step a recurrent model computes only the rows that still have a word, so no padding is
computed. Questions stay in order.

Shapes: ``B`` pictures, ``N`` captions or questions, ``T`` words (of a caption with ``<end>``),
``A`` answers, ``S`` input side, ``R`` regions, ``C`` channels.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypedDict, TypeVar, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..pictures import WHOLE, Area, Frame, load_picture, load_pictures, random_crop, stack_pixels
from .answers import AnswerVocabulary, Target
from .records import CaptionRecord, QuestionRecord
from .text import Tokenizer

logger = logging.getLogger(__name__)
KEEP_BYTES = 1 << 30  # pictures that fit into this are opened once instead of once an epoch


class CaptionBatch(NamedTuple):
    """A batch of captions."""

    pictures: Tensor  # uint8 images (B, 3, S, S), or float16 cells (B, R, C) of cached features
    records: Tensor  # (B,) index of each picture's record
    owner: Tensor  # (N,) which of the B pictures a caption belongs to
    tokens: Tensor  # (N, T+1) from <start> to <end>, padded
    lengths: Tensor  # (N,) steps of each caption, <end> counted; falling


class QuestionBatch(NamedTuple):
    """A batch of questions."""

    pictures: Tensor  # as above
    records: Tensor  # (N,) index of each question's record
    owner: Tensor  # (N,) which of the B pictures a question is about
    tokens: Tensor  # (N, T) the words of each question, padded
    lengths: Tensor  # (N,) words of each question, at least 1
    targets: Tensor  # (N, A) float32, see AnswerVocabulary.target


Batch = TypeVar("Batch", CaptionBatch, QuestionBatch)


class Source(Protocol):
    """Where the pictures of a batch come from."""

    def load(
        self, names: Sequence[str], mirrored: np.ndarray, crops: Sequence[Area] | None = None
    ) -> Tensor:
        """The pictures (B, ...) or B areas of them, mirrored where ``mirrored`` (B,) says so."""


class PixelSource:
    """Opens pictures for training as uint8 images (B, 3, S, S), kept in memory if they all fit.

    Args:
        root: folder of the pictures.
        names: all that will be asked for.
        frame: of the encoder.
    """

    def __init__(self, root: Path, names: Sequence[str], frame: Frame) -> None:
        self.root, self.frame = root, frame
        self.kept: dict[str, np.ndarray] = {}
        if len(names) * 3 * frame.size**2 <= KEEP_BYTES:
            loaded = load_pictures([root / name for name in names], frame, batch=64)
            pixels = (one for batch in loaded for one in stack_pixels(batch).numpy())
            self.kept = dict(zip(names, pixels, strict=True))

    def load(
        self, names: Sequence[str], mirrored: np.ndarray, crops: Sequence[Area] | None = None
    ) -> Tensor:
        """The pictures (B, 3, S, S), mirrored where ``mirrored`` (B,) says so.

        Args:
            names: B of those above, or others in the folder.
            mirrored: (B,) after cropping.
            crops: an area of each one's input, as ``random_crop`` draws them; the file is then
                opened anew, as large as the crop needs. None for the whole input.
        """
        areas = [WHOLE] * len(names) if crops is None else crops
        images = [self._pixels(name, area) for name, area in zip(names, areas, strict=True)]
        images = [x[:, :, ::-1] if m else x for x, m in zip(images, mirrored, strict=True)]
        return torch.from_numpy(np.stack(images))

    def _pixels(self, name: str, crop: Area) -> np.ndarray:
        if crop == WHOLE and name in self.kept:
            return self.kept[name]
        return load_picture(self.root / name, self.frame, crop=crop).pixels


class NoPictures:
    """Zeros (B, R, 1) for a model that sees nothing: the pictures need not be there."""

    def __init__(self, regions: int) -> None:
        self.regions = regions

    def load(
        self, names: Sequence[str], mirrored: np.ndarray, crops: Sequence[Area] | None = None
    ) -> Tensor:
        """See ``Source.load``."""
        return torch.zeros(len(names), self.regions, 1)


class Ragged:
    """Rows of numbers, each of its own length, as one tensor: worker processes share its memory.

    Lists they would copy as they read them, page by page, for Python counts references in them.
    """

    def __init__(self, rows: Sequence[Collection[float]], dtype: type = np.int32) -> None:
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        self.values = torch.from_numpy(np.fromiter(chain.from_iterable(rows), dtype))
        self.lengths = torch.from_numpy(lengths)
        self.starts = torch.from_numpy(lengths.cumsum() - lengths)

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The values of some rows (N,), one after the other; the row of each, and its place there.

        Rows are counted from 0 to N - 1.
        """
        lengths = self.lengths[rows]
        row = torch.arange(len(rows)).repeat_interleave(lengths)
        place = torch.arange(len(row)) - (lengths.cumsum(0) - lengths)[row]
        return self.values[self.starts[rows][row] + place], row, place

    def padded(self, rows: Tensor, pad: int, least: int = 1) -> tuple[Tensor, Tensor]:
        """Some rows as tokens (N, T) and lengths (N,); T is at least ``least``."""
        values, row, place = self.gather(rows)
        lengths = self.lengths[rows]
        tokens = torch.full((len(rows), max([least, *lengths.tolist()])), pad)
        tokens[row, place] = values.long()
        return tokens, lengths


class Draws(TypedDict, total=False):
    """What is drawn anew each epoch, by seed, epoch and picture alone: a resumed run repeats it."""

    per_image: int  # at most so many texts of a picture an epoch; 0 is all
    flip: float  # probability of the mirrored picture
    crop: float  # least share of a picture that a random crop keeps; 0 is whole pictures
    seed: int
    epoch: int


class _PictureTexts(Dataset[Batch], ABC, Generic[Batch]):
    """Pictures with their texts; torch's loader asks for a whole batch by a list of pictures.

    Args:
        images: the name of each picture.
        texts_of: the numbers of each picture's texts.
        source: of the pictures.
        draws: see ``Draws``; ``epoch`` is set anew in training.
    """

    tokens: Ragged  # of each text

    def __init__(
        self, images: list[str], texts_of: list[list[int]], source: Source, draws: Draws
    ) -> None:
        self.images, self.texts_of, self.source = np.array(images), Ragged(texts_of), source
        self.per_image, self.flip = draws.get("per_image", 0), draws.get("flip", 0.0)
        self.crop = draws.get("crop", 0.0)
        self.seed, self.epoch = draws.get("seed", 0), draws.get("epoch", 0)

    def __len__(self) -> int:
        return len(self.images)

    def words(self) -> list[int]:
        """Words of all texts of each picture, ``<start>`` and ``<end>`` of captions counted."""
        texts, row, _ = self.texts_of.gather(torch.arange(len(self)))
        sums = torch.zeros(len(self), dtype=torch.long)
        return sums.index_add_(0, row, self.tokens.lengths[texts.long()]).tolist()

    def __getitem__(self, index: int) -> Batch:
        """A batch of one picture."""
        return self.__getitems__([index])

    @abstractmethod
    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch of some pictures."""

    def _draw(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The pictures; of each text that is drawn whose it is, 0 to B - 1, and its number."""
        mirrored, crops = np.zeros(len(indices), bool), []
        pictures = torch.tensor(list(indices))
        texts, owner, _ = self.texts_of.gather(pictures)
        counts = self.texts_of.lengths[pictures].tolist()
        kept: list[int] = []  # of texts
        first = 0
        for b, index in enumerate(indices):
            random = np.random.default_rng((self.seed, self.epoch, index))
            mirrored[b] = random.random() < self.flip
            if self.crop:
                crops.append(random_crop(random, (self.crop, 1.0)))
            if 0 < self.per_image < counts[b]:
                kept += (first + random.choice(counts[b], self.per_image, replace=False)).tolist()
            else:
                kept += range(first, first + counts[b])
            first += counts[b]
        names = self.images[list(indices)].tolist()
        loaded = self.source.load(names, mirrored, crops or None)
        return loaded, owner[kept], texts[kept].long()


class CaptionData(_PictureTexts[CaptionBatch]):
    """The captions of a split as batches, cut at ``max_length`` words; an index is of a record."""

    def __init__(
        self,
        records: Sequence[CaptionRecord],
        tokenizer: Tokenizer,
        source: Source,
        *,
        max_length: int = 20,
        **draws: Unpack[Draws],
    ) -> None:
        texts = [caption for record in records for caption in record.captions]
        self.tokens = Ragged(_encoded(texts, tokenizer, max_length, "captions"))
        self.pad = tokenizer.pad
        numbers = iter(range(len(texts)))
        captions_of = [[next(numbers) for _ in record.captions] for record in records]
        super().__init__([record.image for record in records], captions_of, source, draws)

    def __getitems__(self, indices: Sequence[int]) -> CaptionBatch:
        """The batch of some records."""
        pictures, owner, captions = self._draw(indices)
        order = self.tokens.lengths[captions].argsort(descending=True, stable=True)
        tokens, lengths = self.tokens.padded(captions[order], self.pad, least=2)
        records = torch.tensor(list(indices))
        return CaptionBatch(pictures, records, owner[order], tokens, lengths - 1)


class QuestionData(_PictureTexts[QuestionBatch]):
    """The questions of a split as batches, cut at ``max_question`` words; an index is of a picture.

    ``targets`` as in ``AnswerVocabulary.target``.
    """

    def __init__(
        self,
        records: Sequence[QuestionRecord],
        tokenizer: Tokenizer,
        answers: AnswerVocabulary,
        source: Source,
        *,
        targets: Target = "hard",
        max_question: int = 30,
        **draws: Unpack[Draws],
    ) -> None:
        texts = [record.question for record in records]
        rows = _encoded(texts, tokenizer, max_question, "questions")
        self.tokens = Ragged([row[1:-1] for row in rows])
        self.pad, self.answers = tokenizer.pad, answers
        shares = [answers.target(record.answers, targets) for record in records]
        self.targets = Ragged(shares), Ragged([list(x.values()) for x in shares], np.float32)
        asked: dict[str, list[int]] = {}
        for index, record in enumerate(records):
            asked.setdefault(record.image, []).append(index)
        super().__init__(list(asked), list(asked.values()), source, draws)

    def __getitems__(self, indices: Sequence[int]) -> QuestionBatch:
        """The batch of some pictures."""
        pictures, owner, records = self._draw(indices)
        tokens, lengths = self.tokens.padded(records, self.pad)
        answers, shares = (part.gather(records) for part in self.targets)
        targets = torch.zeros(len(records), len(self.answers))
        targets[answers[1], answers[0]] = shares[0]
        return QuestionBatch(pictures, records, owner, tokens, lengths, targets)


def _encoded(
    texts: Sequence[str], tokenizer: Tokenizer, max_words: int, what: str
) -> list[list[int]]:
    """Ids from ``<start>`` to ``<end>`` of each text, of at least one word."""
    rows = tokenizer.encode_batch(texts, max_words + 2)
    # A text of no words would teach a model to say nothing.
    bare = [number for number, row in enumerate(rows) if len(row) == 2]
    for number in bare:
        rows[number].insert(1, tokenizer.unk)
    if bare:
        message = "%s without a word count as one unknown word: %d (first: %r)"
        logger.warning(message, what, len(bare), texts[bare[0]][:40])
    return rows


def pad_captions(captions: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids from ``<start>`` to ``<end>`` as tokens (N, T+1) and lengths (N,) in steps."""
    tokens, lengths = pad_rows(captions, pad, least=2)
    return tokens, lengths - 1


def pad_rows(rows: Sequence[Sequence[int]], pad: int, least: int = 1) -> tuple[Tensor, Tensor]:
    """Token ids of N texts as tokens (N, T) and lengths (N,); T is at least ``least``."""
    return Ragged(rows).padded(torch.arange(len(rows)), pad, least)

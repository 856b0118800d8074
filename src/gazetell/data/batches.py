"""Batches for training: pictures and all their captions, or all their questions.

A batch holds ``B`` pictures and the ``N`` texts of all of them, so that a picture is read, encoded
and projected once for its five captions. Captions are sorted by length, longest first: at each
time step a recurrent model computes only the rows that still have a word, so no padding is
computed. Questions stay in order.

Shapes: ``B`` pictures, ``N`` captions or questions, ``T`` words (of a caption with ``<end>``),
``A`` answers, ``S`` input side, ``R`` regions, ``C`` channels.
"""

import logging
from collections.abc import Sequence
from typing import Generic, NamedTuple, Protocol, TypedDict, TypeVar, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..pictures import Area, random_crop
from .answers import AnswerVocabulary, Target
from .records import CaptionRecord, QuestionRecord
from .text import Tokenizer

logger = logging.getLogger(__name__)


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


class NoPictures:
    """Zeros (B, R, 1) for a model that sees nothing: the pictures need not be there."""

    def __init__(self, regions: int) -> None:
        self.regions = regions

    def load(
        self, names: Sequence[str], mirrored: np.ndarray, crops: Sequence[Area] | None = None
    ) -> Tensor:
        """See ``Source.load``."""
        return torch.zeros(len(names), self.regions, 1)


class Draws(TypedDict, total=False):
    """What is drawn anew each epoch, by seed, epoch and picture alone: a resumed run repeats it."""

    per_image: int  # at most so many texts of a picture an epoch; 0 is all
    flip: float  # probability of the mirrored picture
    crop: float  # least share of a picture that a random crop keeps; 0 is whole pictures
    seed: int
    epoch: int


class _PictureTexts(Dataset[Batch], Generic[Batch]):
    """Pictures with their texts; torch's loader asks for a whole batch by a list of pictures.

    Args:
        images: the name of each picture.
        texts_of: the numbers of each picture's texts.
        source: of the pictures.
        draws: see ``Draws``; ``epoch`` is set anew in training.
    """

    def __init__(
        self, images: list[str], texts_of: list[list[int]], source: Source, draws: Draws
    ) -> None:
        self.images, self.texts_of, self.source = images, texts_of, source
        self.per_image, self.flip = draws.get("per_image", 0), draws.get("flip", 0.0)
        self.crop = draws.get("crop", 0.0)
        self.seed, self.epoch = draws.get("seed", 0), draws.get("epoch", 0)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        """A batch of one picture."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch of some pictures."""
        raise NotImplementedError

    def _draw(self, indices: Sequence[int]) -> tuple[Tensor, list[tuple[int, int]]]:
        """The pictures, and (owner, number) of the texts that are drawn."""
        mirrored, crops = np.zeros(len(indices), bool), []
        texts: list[tuple[int, int]] = []
        for b, index in enumerate(indices):
            random = np.random.default_rng((self.seed, self.epoch, index))
            mirrored[b] = random.random() < self.flip
            if self.crop:
                crops.append(random_crop(random, (self.crop, 1.0)))
            chosen = self.texts_of[index]
            if 0 < self.per_image < len(chosen):
                picks = random.choice(len(chosen), self.per_image, replace=False)
                chosen = [chosen[pick] for pick in picks]
            texts += [(b, text) for text in chosen]
        names = [self.images[index] for index in indices]
        return self.source.load(names, mirrored, crops or None), texts


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
        self.tokens = _encoded(texts, tokenizer, max_length, "captions")
        self.pad = tokenizer.pad
        numbers = iter(range(len(texts)))
        captions_of = [[next(numbers) for _ in record.captions] for record in records]
        super().__init__([record.image for record in records], captions_of, source, draws)

    def __getitems__(self, indices: Sequence[int]) -> CaptionBatch:
        """The batch of some records."""
        pictures, captions = self._draw(indices)
        captions.sort(key=lambda caption: -len(self.tokens[caption[1]]))
        tokens, lengths = pad_captions([self.tokens[number] for _, number in captions], self.pad)
        owner = torch.tensor([owner for owner, _ in captions], dtype=torch.long)
        return CaptionBatch(pictures, torch.tensor(list(indices)), owner, tokens, lengths)


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
        self.tokens = [row[1:-1] for row in rows]
        self.pad, self.answers = tokenizer.pad, answers
        self.targets = [answers.target(record.answers, targets) for record in records]
        asked: dict[str, list[int]] = {}
        for index, record in enumerate(records):
            asked.setdefault(record.image, []).append(index)
        super().__init__(list(asked), list(asked.values()), source, draws)

    def __getitems__(self, indices: Sequence[int]) -> QuestionBatch:
        """The batch of some pictures."""
        pictures, questions = self._draw(indices)
        owner, records = (list(part) for part in zip(*questions, strict=True))
        tokens, lengths = pad_rows([self.tokens[record] for record in records], self.pad)
        targets = torch.zeros(len(records), len(self.answers))
        for n, record in enumerate(records):
            for answer, share in self.targets[record].items():
                targets[n, answer] = share
        part = torch.tensor(records), torch.tensor(owner)
        return QuestionBatch(pictures, *part, tokens, lengths, targets)


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
    lengths = torch.tensor([len(ids) for ids in rows], dtype=torch.long)
    tokens = torch.full((len(rows), max(map(len, rows), default=least)), pad)
    for n, ids in enumerate(rows):
        tokens[n, : len(ids)] = torch.tensor(ids)
    return tokens, lengths

"""Batches of questions: pictures and all their questions, each picture there once.

Shapes: ``B`` pictures, ``N`` questions, ``T`` words, ``A`` answers, ``S`` input side, ``R``
regions, ``C`` channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UsageError
from .answers import AnswerVocabulary, Target
from .batches import Source
from .records import QuestionRecord
from .text import Tokenizer

__all__ = ["Question", "QuestionBatch", "QuestionData", "pad_questions", "read_question"]


class QuestionBatch(NamedTuple):
    """A batch, see the module.

    Attributes:
        pictures: uint8 images (B, 3, S, S), or float16 cells (B, R, C) from a feature cache.
        records: (N,) index of each question's record.
        owner: (N,) which of the B pictures a question is about.
        tokens: (N, T) the words of each question, padded.
        lengths: (N,) words of each question, at least 1.
        targets: (N, A) float32, see ``AnswerVocabulary.target``.
    """

    pictures: Tensor
    records: Tensor
    owner: Tensor
    tokens: Tensor
    lengths: Tensor
    targets: Tensor


class QuestionData(Dataset[QuestionBatch]):
    """The questions of a split as batches; index it with a list of picture indices.

    Args:
        records: of the split.
        tokenizer: encodes the questions.
        answers: what can be answered.
        source: of the pictures.
        kind: of target: ``hard``, ``soft`` or ``votes``.
        max_question: most words of a question; the rest is cut.
        questions_per_image: at most so many questions of a picture an epoch, drawn anew each
            epoch; 0 is all.
        flip: probability of the mirrored picture.
        seed: of the draws.
        epoch: draws depend on seed, epoch and picture alone, so a resumed run repeats them.
    """

    def __init__(
        self,
        records: Sequence[QuestionRecord],
        tokenizer: Tokenizer,
        answers: AnswerVocabulary,
        source: Source,
        *,
        kind: Target = "hard",
        max_question: int = 30,
        questions_per_image: int = 0,
        flip: float = 0.0,
        seed: int = 0,
        epoch: int = 0,
    ) -> None:
        self.source, self.answers = source, answers
        self.pad = tokenizer.pad
        self.questions_per_image, self.flip = questions_per_image, flip
        self.seed, self.epoch = seed, epoch
        texts = [record.question for record in records]
        self.tokens = [
            # Readers refuse a question without words; whoever writes records by hand may have one.
            row[1:-1] or [tokenizer.unk]
            for row in tokenizer.encode_batch(texts, max_question + 2)
        ]
        self.targets = [answers.target(record.answers, kind) for record in records]
        asked: dict[str, list[int]] = {}
        for index, record in enumerate(records):
            asked.setdefault(record.image, []).append(index)
        self.images, self.asked = list(asked), list(asked.values())

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> QuestionBatch:
        """A batch of one picture."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> QuestionBatch:
        """The batch of some pictures; torch's loader asks for a whole batch at once."""
        mirrored = np.zeros(len(indices), bool)
        records: list[int] = []
        owner: list[int] = []
        for b, index in enumerate(indices):
            random = np.random.default_rng((self.seed, self.epoch, index))
            mirrored[b] = random.random() < self.flip
            chosen = self.asked[index]
            if 0 < self.questions_per_image < len(chosen):
                picks = random.choice(len(chosen), self.questions_per_image, replace=False)
                chosen = [chosen[pick] for pick in picks]
            records += chosen
            owner += [b] * len(chosen)
        tokens, lengths = pad_questions([self.tokens[record] for record in records], self.pad)
        targets = torch.zeros(len(records), len(self.answers))
        for n, record in enumerate(records):
            for answer, share in self.targets[record].items():
                targets[n, answer] = share
        return QuestionBatch(
            pictures=self.source.load([self.images[index] for index in indices], mirrored),
            records=torch.tensor(records),
            owner=torch.tensor(owner),
            tokens=tokens,
            lengths=lengths,
            targets=targets,
        )


@dataclass(frozen=True)
class Question:
    """A question as a model reads it.

    Attributes:
        text: as it was asked.
        ids: of its words, at least one.
        unknown: the words that are not in the vocabulary, as written, each once.
        cut: how many words at its end are not read.
    """

    text: str
    ids: list[int]
    unknown: list[str]
    cut: int = 0


def read_question(tokenizer: Tokenizer, text: str, max_question: int) -> Question:
    """Turn a question into ids, at most ``max_question`` of them.

    Raises:
        UsageError: no text, or a text without words.
    """
    if not isinstance(text, str):
        raise UsageError(f"question {text!r}: expected text")
    ids, words = tokenizer.encode_words(text)
    if not ids:
        raise UsageError(f"question {text[:60]!r}: has no words")
    read = list(zip(ids, words, strict=True))[:max_question]
    unknown = dict.fromkeys(word for number, word in read if number == tokenizer.unk)
    return Question(text, ids[:max_question], list(unknown), len(ids) - len(read))


def pad_questions(questions: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids of N questions as tokens (N, T) and lengths (N,)."""
    lengths = [len(ids) for ids in questions]
    tokens = torch.full((len(questions), max(lengths, default=1)), pad)
    for n, ids in enumerate(questions):
        tokens[n, : len(ids)] = torch.tensor(ids)
    return tokens, torch.tensor(lengths)

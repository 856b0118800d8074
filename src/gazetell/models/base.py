"""The contract of all captioners: a grid of regions becomes a sentence, one word a step.

``start(grid) -> state``; ``step(tokens, state) -> (logits, state, attention)``;
``forward(grid, tokens) -> (logits, attention)`` for teacher forcing. A new architecture is a
class with ``start``, ``step`` and ``unroll`` and an entry in ``captioners.CAPTIONERS``.

Shapes: ``B`` batch, ``R`` regions, ``C`` channels, ``T`` words, ``E`` embedding, ``H`` hidden,
``V`` vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .encoders import Grid
from .options import POSITIVE, SHARE, Options, check_sizes, option

__all__ = ["CaptionModel", "CaptionerOptions", "State", "active_rows", "in_steps", "stack_steps"]


@dataclass(frozen=True)
class CaptionerOptions(Options):
    """What every captioner can be told."""

    embedding: int = option(256, "Width of the word embeddings.", POSITIVE)
    hidden: int = option(512, "Width of the recurrent state.", POSITIVE)
    dropout: float = option(
        0.4, "Dropout on the word embeddings and on the output of a captioner.", SHARE
    )
    grid_dropout: float = option(0.0, "Dropout on the numbers of the normalised regions.", SHARE)


@dataclass(frozen=True)
class State:
    """What a captioner carries from step to step.

    ``recurrent`` tensors (B, ...) change at each step; ``memory`` tensors (B, ...) hold what is
    looked at and stay as ``start`` made them.
    """

    recurrent: tuple[Tensor, ...]
    memory: tuple[Tensor, ...] = ()

    def select(self, rows: Tensor) -> "State":
        """The state of the given rows (N,), repeated where a row is named twice."""
        return State(
            tuple(tensor.index_select(0, rows) for tensor in self.recurrent),
            tuple(tensor.index_select(0, rows) for tensor in self.memory),
        )

    def reorder(self, rows: Tensor) -> "State":
        """As ``select`` where each row stays with its picture: the memory need not move."""
        return replace(self, recurrent=tuple(x.index_select(0, rows) for x in self.recurrent))


class CaptionModel(nn.Module, ABC):
    """Base of the captioners: embeddings, the vocabulary layer, and teacher forcing.

    Args:
        options: of the architecture, an ``Options`` of the class.
        channels: C of the encoder's grid.
        vocabulary: V, special tokens included.
    """

    architecture: str  # set by who builds it
    Options: type[CaptionerOptions] = CaptionerOptions

    def __init__(self, options: CaptionerOptions, *, channels: int, vocabulary: int) -> None:
        super().__init__()
        check_sizes(channels=channels, vocabulary=vocabulary)
        self.options, self.channels, self.vocabulary = options, channels, vocabulary
        self.embed = nn.Embedding(vocabulary, options.embedding)
        self.dropout = nn.Dropout(options.dropout)
        self.grid_dropout = nn.Dropout(options.grid_dropout)
        # Dropout stands before the vocabulary, where training has left the padding out already.
        self.head: nn.Module = nn.Sequential(
            nn.Dropout(options.dropout), nn.Linear(options.hidden, vocabulary)
        )

    @property
    def config(self) -> dict[str, Any]:
        """All that ``build_captioner`` needs to build it again: architecture, sizes, options."""
        sizes = {"channels": self.channels, "vocabulary": self.vocabulary}
        return {"architecture": self.architecture, **sizes, **asdict(self.options)}

    @abstractmethod
    def start(self, grid: Grid) -> State:
        """The state before the first word, for cells (B, R, C)."""

    @abstractmethod
    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        """Read a word (B,), give logits (B, V) of the next, the new state, attention (B, R)."""

    @abstractmethod
    def unroll(
        self, state: State, tokens: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Teacher forcing over tokens (B, T): outputs (B, T, H) for ``head``, attention (B, T, R).

        With ``lengths`` (B,), on the CPU and in falling order, only real words are computed; what
        lies behind them is zero.
        """

    def forward(
        self, grid: Grid, tokens: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (B, T, V) of the word after each of tokens (B, T), and attention (B, T, R)."""
        outputs, attention = self.unroll(self.start(grid), tokens, lengths)
        return self.head(outputs), attention


def active_rows(lengths: Tensor | None, batch: int, steps: int) -> list[int]:
    """How many of the rows, sorted by falling length, still have a word at each step."""
    if lengths is None:
        return [batch] * steps
    if bool((lengths[1:] > lengths[:-1]).any()):
        raise ValueError("lengths must fall: sort the batch by length, longest first")
    lengths = lengths.cpu()
    return [int((lengths > t).sum()) for t in range(steps)]


def in_steps(tokens: Tensor, active: Sequence[int]) -> Tensor:
    """Tokens (B, T) without padding, step after step: (M,), to be split by ``active``."""
    return torch.cat([tokens[:n, t] for t, n in enumerate(active)])


def stack_steps(steps: Sequence[Tensor], batch: int) -> Tensor:
    """Stack tensors (n_t, D) of falling n_t along time, zero-padded: (B, T, D)."""
    padded = [nn.functional.pad(x, (0, 0, 0, batch - x.shape[0])) for x in steps]
    return torch.stack(padded, 1)

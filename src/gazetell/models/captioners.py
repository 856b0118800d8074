"""Captioners: a grid of regions becomes a sentence, one word a step.

The shared contract: ``start(grid) -> state``; ``step(tokens, state) -> (logits, state,
attention)``; ``forward(grid, tokens) -> (logits, attention)`` for teacher forcing. A new
architecture is a class with ``start``, ``step`` and ``unroll`` and an entry in ``CAPTIONERS``.

Shapes: ``B`` batch, ``R`` regions, ``C`` channels, ``T`` words, ``E`` embedding, ``H`` hidden,
``V`` vocabulary.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError, UsageError
from .deferred import DeferredKeys, DeferredWeight, look
from .encoders import Grid

__all__ = ["CAPTIONERS", "AttentionLSTM", "CaptionModel", "CaptionerConfig", "State"]


@dataclass(frozen=True)
class CaptionerConfig:
    """The size of a captioner.

    Attributes:
        architecture: a key of ``CAPTIONERS``.
        channels: C of the encoder's grid.
        vocabulary: V, special tokens included.
        embedding: E, width of the word embeddings.
        hidden: H, width of the recurrent state.
        dropout: probability, on word embeddings and on the output before the vocabulary.
    """

    architecture: str = "attention-lstm"
    channels: int = 400
    vocabulary: int = 1000
    embedding: int = 256
    hidden: int = 512
    dropout: float = 0.3

    def __post_init__(self) -> None:
        if self.architecture not in CAPTIONERS:
            raise UsageError(
                f"architecture {self.architecture!r} is unknown; expected one of "
                f"{', '.join(CAPTIONERS)}"
            )
        for name in ("channels", "vocabulary", "embedding", "hidden"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)}: expected a positive number")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout {self.dropout}: expected 0 up to below 1")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CaptionerConfig":
        """From ``to_dict``'s values.

        Raises:
            ModelError: a field that this version does not know.
        """
        if unknown := set(values) - {field.name for field in fields(cls)}:
            raise ModelError(f"captioner configuration has unknown fields: {sorted(unknown)}")
        return cls(**values)


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
    """Base of the captioners: embeddings, the vocabulary layer, and teacher forcing."""

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocabulary, config.embedding)
        self.dropout = nn.Dropout(config.dropout)
        # Dropout stands before the vocabulary, where training has left the padding out already.
        self.head = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(config.hidden, config.vocabulary)
        )

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


class AttentionLSTM(CaptionModel):
    """LSTM with scaled dot-product attention over the grid.

    The regions, each normalised over its channels, are projected to H once and serve as keys and
    values ``k_i``; with their mean the recurrence begins, and at each step the hidden state asks
    where to look::

        k_i = W_k LayerNorm(a_i) + b_k   h_0 = c_0 = mean_i k_i
        e_ti = k_i . h_{t-1} / sqrt(H)   alpha_t = softmax(e_t)
        z_t = sum_i alpha_ti k_i
        h_t, c_t = LSTM([x_t ; z_t], h_{t-1}, c_{t-1})
        p(w_{t+1}) = softmax(W_o h_t + b_o)

    ``alpha_t`` is the gaze of the word that step t predicts.

    References:
        Luong et al. 2015, Effective Approaches to Attention-based Neural Machine Translation
        (dot score); Vaswani et al. 2017 (scaling); Hochreiter and Schmidhuber 1997 (LSTM).
    """

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__(config)
        hidden = config.hidden
        # Raw activations of a CNN differ widely in size; unnormalised, the attention saturates on
        # one cell within the first hundred steps and hardly learns to move from there.
        self.normalise = nn.LayerNorm(config.channels)
        self.keys = nn.Linear(config.channels, hidden)
        # Gates in the order input, forget, cell, output: the share of the word, which is known
        # for all steps at once, and the share of what is looked at and of the last state.
        self.word_gates = nn.Linear(config.embedding, 4 * hidden)
        self.state_gates = nn.Linear(2 * hidden, 4 * hidden, bias=False)
        nn.init.orthogonal_(self.state_gates.weight[:, hidden:])
        nn.init.zeros_(self.word_gates.bias)
        with torch.no_grad():
            self.word_gates.bias[hidden : 2 * hidden] = 1.0  # remember at first

    def start(self, grid: Grid) -> State:
        """See ``CaptionModel.start``."""
        keys = self.keys(self.normalise(grid.cells))  # (B, R, C) -> (B, R, H)
        # In float32 at least: the state sums over many steps.
        mean = keys.to(torch.promote_types(keys.dtype, torch.float32)).mean(1)
        return State(recurrent=(mean, mean), memory=(keys,))

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State, Tensor]:
        """See ``CaptionModel.step``."""
        words = self.word_gates(self.dropout(self.embed(tokens)))
        hidden, cell = state.recurrent
        looked, attention = look(hidden, *state.memory)
        gates = words + self.state_gates(torch.cat((looked, hidden.to(looked.dtype)), 1))
        hidden, cell = lstm_update(gates, cell)
        logits = self.head(hidden)
        return logits, replace(state, recurrent=(hidden, cell)), attention

    def unroll(
        self, state: State, tokens: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See ``CaptionModel.unroll``."""
        active = active_rows(lengths, *tokens.shape)
        words = self.word_gates(self.dropout(self.embed(tokens)))  # (B, T, 4H)
        hidden, cell = state.recurrent
        (keys,) = state.memory
        memory = DeferredKeys(keys)
        weights = DeferredWeight(self.state_gates.weight, keys.dtype)
        outputs, attentions = [], []
        for word, n in zip(words.unbind(1), active, strict=True):
            if n < hidden.shape[0]:
                hidden, cell = hidden[:n], cell[:n]
            looked, attention = memory.look(hidden)
            gates = word[:n] + weights(torch.cat((looked, hidden.to(looked.dtype)), 1))
            hidden, cell = lstm_update(gates, cell)
            outputs.append(hidden)
            attentions.append(attention)
        batch = len(tokens)
        return stack_steps(outputs, batch), stack_steps(attentions, batch)


def lstm_update(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """New hidden state and cell (B, H) from gates (B, 4H) in the order i, f, g, o."""
    i, f, g, o = gates.to(cell.dtype).chunk(4, 1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def active_rows(lengths: Tensor | None, batch: int, steps: int) -> list[int]:
    """How many of the rows, sorted by falling length, still have a word at each step."""
    if lengths is None:
        return [batch] * steps
    if bool((lengths[1:] > lengths[:-1]).any()):
        raise ValueError("lengths must fall: sort the batch by length, longest first")
    lengths = lengths.cpu()
    return [int((lengths > t).sum()) for t in range(steps)]


def stack_steps(steps: list[Tensor], batch: int) -> Tensor:
    """Stack tensors (n_t, D) of falling n_t along time, zero-padded: (B, T, D)."""
    padded = [nn.functional.pad(x, (0, 0, 0, batch - x.shape[0])) for x in steps]
    return torch.stack(padded, 1)


CAPTIONERS: dict[str, type[CaptionModel]] = {"attention-lstm": AttentionLSTM}


def build_captioner(config: CaptionerConfig) -> CaptionModel:
    """A captioner with random weights."""
    return CAPTIONERS[config.architecture](config)

"""Captioners without attention: the picture is one vector, from which the recurrence begins.

Shapes: ``B`` batch, ``R`` regions, ``C`` channels, ``T`` words, ``E`` embedding, ``H`` hidden,
``V`` vocabulary.
"""

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .base import CaptionerOptions, CaptionModel, State, active_rows
from .cells import lstm_update, rnn_update
from .encoders import Grid

__all__ = ["LSTMCaptioner", "RNNCaptioner"]


class _Recurrent(CaptionModel):
    """What both share: the first state ``W_i LayerNorm(mean_i a_i) + b_i``, then one word a step.

    ``step`` is the cell's plain equations; teacher forcing runs torch's fused module with the same
    weights. Set ``teaching`` to True to unroll by the equations, too.
    """

    recurrent: nn.RNN | nn.LSTM
    states = 1  # tensors of the recurrent state
    teaching = False

    def __init__(self, options: CaptionerOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        self.normalise = nn.LayerNorm(self.channels)
        self.image = nn.Linear(self.channels, self.states * options.hidden)

    def start(self, grid: Grid) -> State:
        """See ``CaptionModel.start``."""
        first = self.image(self.grid_dropout(self.normalise(grid.pooled)))  # (B, C) -> (B, H or 2H)
        first = first.to(torch.promote_types(first.dtype, torch.float32))
        return State(recurrent=first.chunk(self.states, 1))

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State, None]:
        """See ``CaptionModel.step``."""
        recurrent = self.advance(self.dropout(self.embed(tokens)), state.recurrent)
        return self.head(recurrent[0]), replace(state, recurrent=recurrent), None

    def unroll(
        self, state: State, tokens: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """See ``CaptionModel.unroll``."""
        words = self.dropout(self.embed(tokens))  # (B, T, E)
        batch, steps = tokens.shape
        rows = active_rows(lengths, batch, steps)[0]  # the fused modules take no empty sequence
        if self.teaching:
            return self._by_equations(words, state.recurrent, lengths), None
        if lengths is None:
            lengths = torch.full((batch,), steps)
        packed = pack_padded_sequence(words[:rows], lengths[:rows].cpu(), batch_first=True)
        first = tuple(x[:rows].unsqueeze(0).to(words.dtype) for x in state.recurrent)  # (1, B, H)
        outputs, _ = self.recurrent(packed, first if len(first) > 1 else first[0])
        padded, _ = pad_packed_sequence(outputs, batch_first=True, total_length=steps)
        return nn.functional.pad(padded, (0, 0, 0, 0, 0, batch - rows)), None  # (B, T, H)

    def _by_equations(
        self, words: Tensor, recurrent: tuple[Tensor, ...], lengths: Tensor | None
    ) -> Tensor:
        outputs = []
        for word in words.unbind(1):
            recurrent = self.advance(word, recurrent)
            outputs.append(recurrent[0])
        stacked = torch.stack(outputs, 1)  # (B, T, H)
        if lengths is None:
            return stacked
        real = torch.arange(words.shape[1]) < lengths.unsqueeze(1)
        return stacked * real.to(stacked.device).unsqueeze(2)

    def affine(self, word: Tensor, hidden: Tensor) -> Tensor:
        """``W_x x_t + b_x + W_h h_{t-1} + b_h`` of words (B, E) and hidden states (B, H)."""
        w_x, w_h, b_x, b_h = self.recurrent.all_weights[0]
        linear = nn.functional.linear
        return linear(word, w_x, b_x) + linear(hidden, w_h, b_h)

    @abstractmethod
    def advance(self, word: Tensor, recurrent: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The recurrent state, h_t first, after reading words (B, E)."""


class RNNCaptioner(_Recurrent):
    """Vanilla RNN on the pooled picture::

        h_0 = W_i LayerNorm(a) + b_i        a = mean_i a_i
        h_t = tanh(W_x x_t + W_h h_{t-1} + b)
        p(w_{t+1}) = softmax(W_o h_t + b_o)

    References:
        Karpathy and Fei-Fei 2015, Deep Visual-Semantic Alignments for Generating Image
        Descriptions (an RNN that begins from the picture); Elman 1990.
    """

    def __init__(self, options: CaptionerOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        self.recurrent = nn.RNN(options.embedding, options.hidden, batch_first=True)
        _, w_h, _, _ = self.recurrent.all_weights[0]
        nn.init.orthogonal_(w_h)

    def advance(self, word: Tensor, recurrent: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See ``_Recurrent.advance``."""
        return (rnn_update(self.affine(word, *recurrent)),)


class LSTMCaptioner(_Recurrent):
    """LSTM on the pooled picture::

        [h_0 ; c_0] = W_i LayerNorm(a) + b_i         a = mean_i a_i
        h_t, c_t = LSTM(x_t, h_{t-1}, c_{t-1})
        p(w_{t+1}) = softmax(W_o h_t + b_o)

    The original feeds the picture as the first word; here it is the first state, as in ``rnn``.
    Course notebooks have c_0 = 0: the picture then has but one step to get into the cell, and the
    captions are worse than the plain RNN's.

    References:
        Vinyals et al. 2015, Show and Tell: A Neural Image Caption Generator.
    """

    states = 2

    def __init__(self, options: CaptionerOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        hidden = options.hidden
        self.recurrent = nn.LSTM(options.embedding, hidden, batch_first=True)
        _, w_h, b_x, b_h = self.recurrent.all_weights[0]
        nn.init.orthogonal_(w_h)
        nn.init.zeros_(b_x)
        nn.init.zeros_(b_h)
        nn.init.ones_(b_x.data[hidden : 2 * hidden])  # remember at first

    def advance(self, word: Tensor, recurrent: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """See ``_Recurrent.advance``."""
        hidden, cell = recurrent
        return lstm_update(self.affine(word, hidden), cell)

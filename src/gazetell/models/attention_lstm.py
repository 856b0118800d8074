"""LSTM with dot-product attention over the grid.

Shapes: ``B`` batch, ``R`` regions, ``C`` channels, ``T`` words, ``E`` embedding, ``H`` hidden,
``V`` vocabulary.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from .base import CaptionerOptions, CaptionModel, State, active_rows, in_steps, stack_steps
from .cells import lstm_update
from .deferred import DeferredKeys, DeferredWeight, look
from .encoders import Grid

__all__ = ["AttentionLSTM"]


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

    def __init__(self, options: CaptionerOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        hidden = options.hidden
        # Raw activations of a CNN differ widely in size; unnormalised, the attention saturates on
        # one cell within the first hundred steps and hardly learns to move from there.
        self.normalise = nn.LayerNorm(self.channels)
        self.keys = nn.Linear(self.channels, hidden)
        # Gates in the order input, forget, cell, output: the share of the word, which is known
        # for all steps at once, and the share of what is looked at and of the last state.
        self.word_gates = nn.Linear(options.embedding, 4 * hidden)
        self.state_gates = nn.Linear(2 * hidden, 4 * hidden, bias=False)
        nn.init.orthogonal_(self.state_gates.weight[:, hidden:])
        nn.init.zeros_(self.word_gates.bias)
        with torch.no_grad():
            self.word_gates.bias[hidden : 2 * hidden] = 1.0  # remember at first

    def start(self, grid: Grid) -> State:
        """See ``CaptionModel.start``."""
        keys = self.keys(self.grid_dropout(self.normalise(grid.cells)))  # (B, R, C) -> (B, R, H)
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
        embedded = self.embed(in_steps(tokens, active))
        words = self.word_gates(self.dropout(embedded)).split(active)  # T tensors (n_t, 4H)
        hidden, cell = state.recurrent
        (keys,) = state.memory
        memory = DeferredKeys(keys)
        weights = DeferredWeight(self.state_gates.weight, keys.dtype)
        outputs, attentions = [], []
        for word, n in zip(words, active, strict=True):
            if n < hidden.shape[0]:
                hidden, cell = hidden[:n], cell[:n]
            looked, attention = memory.look(hidden)
            gates = word + weights(torch.cat((looked, hidden.to(looked.dtype)), 1))
            hidden, cell = lstm_update(gates, cell)
            outputs.append(hidden)
            attentions.append(attention)
        batch = len(tokens)
        return stack_steps(outputs, batch), stack_steps(attentions, batch)

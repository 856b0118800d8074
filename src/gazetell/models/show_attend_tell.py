"""Show, Attend and Tell with soft attention, and its variant with a second attention over words.

Shapes: ``B`` batch, ``R`` regions, ``C`` channels, ``T`` words, ``E`` embedding, ``H`` hidden,
``A`` attention, ``V`` vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .additive import DeferredAdditive, look_additive
from .base import CaptionerOptions, CaptionModel, State, active_rows, in_steps, stack_steps
from .cells import lstm_update
from .deferred import DeferredWeight
from .encoders import Grid
from .options import POSITIVE, option

__all__ = ["DeepOutput", "DualAttention", "ShowAttendTell", "ShowAttendTellOptions"]

Look = Callable[[Tensor], tuple[Tensor, Tensor]]
Products = dict[str, Callable[[Tensor], Tensor]]


class DeepOutput(nn.Module):
    """What predicts the next word, from the last word, the state and what was looked at::

        p(w_{t+1}) = softmax(L_o dropout(L_x x_t + h_t + L_z z_t))

    Takes the three side by side (..., E+H+C) and gives logits (..., V). The paper has
    ``x_t + L_h h_t + L_z z_t``, of width E; its word is added as it is, which drowns the rest where
    embeddings are of unit variance. The same sum with the map at the word instead of the state, of
    width H, learns much faster.

    References:
        Xu et al. 2015, equation 7; Pascanu et al. 2014, How to Construct Deep Recurrent Neural
        Networks.
    """

    def __init__(self, options: CaptionerOptions, channels: int, vocabulary: int) -> None:
        super().__init__()
        hidden = options.hidden
        self.sizes = [options.embedding, hidden, channels]
        self.word = nn.Linear(options.embedding, hidden, bias=False)
        self.looked = nn.Linear(channels, hidden)
        self.dropout = nn.Dropout(options.dropout)
        self.words = nn.Linear(hidden, vocabulary)

    def forward(self, outputs: Tensor) -> Tensor:
        """See the class."""
        word, hidden, looked = outputs.split(self.sizes, -1)
        return self.words(self.dropout(self.word(word) + hidden + self.looked(looked)))


@dataclass(frozen=True)
class ShowAttendTellOptions(CaptionerOptions):
    """Options of ``ShowAttendTell`` and ``DualAttention``."""

    attention_width: int = option(256, "Width of the additive attention.", POSITIVE)


class ShowAttendTell(CaptionModel):
    """Show, Attend and Tell with soft attention::

        a_i = LayerNorm(cell_i)               h_0 = W_0 mean_i a_i + b,  c_0 = W_0' mean_i a_i + b'
        e_ti = v . tanh(W_a a_i + W_s h_{t-1} + b_s)      alpha_t = softmax(e_t)
        z_t = beta_t sum_i alpha_ti a_i                   beta_t = sigmoid(w_b . h_{t-1} + b_b)
        h_t, c_t = LSTM([x_t ; z_t], h_{t-1}, c_{t-1})
        p(w_{t+1}) = softmax(L_o (L_x x_t + h_t + L_z z_t))

    ``beta_t`` is one number, as in the paper; some tutorials have one a channel. The regions are
    normalised over their channels, without learned scale: they stay constants of a frozen encoder.

    References:
        Xu et al. 2015, Show, Attend and Tell: Neural Image Caption Generation with Visual
        Attention, sections 3.1.2 and 4.2.
    """

    Options = ShowAttendTellOptions
    recurrent_layers: tuple[str, ...] = ("state", "gate", "gates")

    def __init__(self, options: ShowAttendTellOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        channels, hidden, width = self.channels, options.hidden, options.attention_width
        self.normalise = nn.LayerNorm(channels, elementwise_affine=False)
        self.first = nn.Linear(channels, 2 * hidden)  # h_0 and c_0
        self.regions = nn.Linear(channels, width, bias=False)
        self.state = nn.Linear(hidden, width)
        self.score = nn.Parameter(torch.randn(width) / width**0.5)
        self.gate = nn.Linear(hidden, 1)
        # Gates of the LSTM, in the order i, f, g, o.
        self.word_gates = nn.Linear(options.embedding, 4 * hidden)
        self.gates = nn.Linear(channels + hidden, 4 * hidden, bias=False)
        nn.init.orthogonal_(self.gates.weight[:, channels:])
        nn.init.zeros_(self.word_gates.bias)
        with torch.no_grad():
            self.word_gates.bias[hidden : 2 * hidden] = 1.0  # remember at first
        self.head = DeepOutput(options, channels, self.vocabulary)

    def start(self, grid: Grid) -> State:
        """See ``CaptionModel.start``."""
        cells = self.grid_dropout(self.normalise(grid.cells))
        keys = self.regions(cells)  # (B, R, C) -> (B, R, A)
        first = self.first(cells.mean(1))
        first = first.to(torch.promote_types(first.dtype, torch.float32))
        hidden, cell = first.chunk(2, 1)
        return State(recurrent=(hidden, cell), memory=(keys, cells.to(keys.dtype)))

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State, Tensor]:
        """See ``CaptionModel.step``."""
        products: Products = {name: getattr(self, name) for name in self.recurrent_layers}
        keys, values = state.memory
        hidden, cell = state.recurrent

        def look(query: Tensor) -> tuple[Tensor, Tensor]:
            return look_additive(query, keys, values, self.score)

        output, attention, hidden, cell = self.advance(
            self.words(tokens), hidden, cell, look, products
        )
        return self.head(output), replace(state, recurrent=(hidden, cell)), attention

    def unroll(
        self, state: State, tokens: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See ``CaptionModel.unroll``."""
        active = active_rows(lengths, *tokens.shape)
        words = (x.split(active) for x in self.words(in_steps(tokens, active)))
        hidden, cell = state.recurrent
        keys, values = state.memory
        memory = DeferredAdditive(keys, values, self.score)
        products: Products = {
            name: deferred(getattr(self, name), keys.dtype) for name in self.recurrent_layers
        }
        outputs, attentions = [], []
        for n, *word in zip(active, *words, strict=True):
            if n < hidden.shape[0]:
                hidden, cell = hidden[:n], cell[:n]
            output, attention, hidden, cell = self.advance(
                tuple(word), hidden, cell, memory.look, products
            )
            outputs.append(output)
            attentions.append(attention)
        batch = len(tokens)
        return stack_steps(outputs, batch), stack_steps(attentions, batch)

    def words(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """What is known of the words (B, ...) before the recurrence: x_t and its gates."""
        embedded = self.dropout(self.embed(tokens))
        return embedded, self.word_gates(embedded)

    def read(
        self, words: tuple[Tensor, ...], state: Tensor, product: Products
    ) -> tuple[Tensor, Tensor]:
        """The word as the LSTM and the output get it (n, E), and its gates (n, 4H)."""
        word, gates = words
        return word, gates

    def advance(
        self, words: tuple[Tensor, ...], hidden: Tensor, cell: Tensor, look: Look, product: Products
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One step: the input of ``head`` (n, E+H+C), attention (n, R), h_t and c_t (n, H)."""
        state = product["state"](hidden)
        word, gates = self.read(words, state, product)
        looked, attention = look(state)
        looked = looked * product["gate"](hidden).sigmoid()
        gates = gates + product["gates"](torch.cat((looked, hidden.to(looked.dtype)), 1))
        hidden, cell = lstm_update(gates, cell)
        output = torch.cat((word.to(looked.dtype), hidden.to(looked.dtype), looked), 1)
        return output, attention, hidden, cell


class DualAttention(ShowAttendTell):
    """Show, Attend and Tell that also attends to the components of the last word's embedding.

    Three independent linear layers, of the regions, the state and the word, and two softmaxes::

        s_t = W_s h_{t-1} + b_s
        e_ti = v . tanh(W_a a_i + s_t)                    alpha_t = softmax(e_t)        over R
        omega_t = softmax(W_c tanh(W_x x_t + s_t) + b_c)                                over E
        z_t = beta_t sum_i alpha_ti a_i                   y_t = E omega_t * x_t
        h_t, c_t = LSTM([y_t ; z_t], h_{t-1}, c_{t-1})
        p(w_{t+1}) = softmax(L_o (L_x y_t + h_t + L_z z_t))

    ``omega_t`` sums to 1; the factor E (the number of components) keeps ``y_t`` as large as
    ``x_t``: an even ``omega_t`` leaves the word as it is.
    """

    recurrent_layers = (*ShowAttendTell.recurrent_layers, "components", "word_gates")

    def __init__(self, options: ShowAttendTellOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        self.word = nn.Linear(options.embedding, options.attention_width, bias=False)
        self.components = nn.Linear(options.attention_width, options.embedding)

    def words(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """See ``ShowAttendTell.words``: x_t and W_x x_t."""
        embedded = self.dropout(self.embed(tokens))
        return embedded, self.word(embedded)

    def read(
        self, words: tuple[Tensor, ...], state: Tensor, product: Products
    ) -> tuple[Tensor, Tensor]:
        """See ``ShowAttendTell.read``."""
        word, key = words
        word = word * self.component_weights(key, state, product) * word.shape[1]
        return word, product["word_gates"](word)

    def component_weights(self, key: Tensor, state: Tensor, product: Products) -> Tensor:
        """omega_t (n, E), at least float32, from W_x x_t and s_t (n, A)."""
        scores = product["components"]((key + state).tanh())
        return scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(1)


def deferred(layer: nn.Linear, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The layer for a sequence, the gradient of its weight made once (see ``deferred``)."""
    product = DeferredWeight(layer.weight, dtype)
    bias = layer.bias
    return product if bias is None else lambda x: product(x) + bias.to(dtype)

"""The captioners: a grid of regions becomes a sentence, one word a step.

- ``rnn``: vanilla RNN on the pooled picture
- ``lstm``: LSTM on the pooled picture
- ``attention-lstm``: LSTM with dot-product attention over the grid
- ``show-attend-tell``: LSTM with additive attention, gated context, deep output
- ``dual-attention``: the same with a second attention, over the word's embedding
- ``up-down``: two LSTMs, one that asks where to look and one that says the word

The contract of all of them: ``start(grid) -> state``, then ``step(tokens, state) -> (logits, state,
attention)`` to decode, or ``unroll(state, tokens, lengths) -> (outputs, attention)`` for teacher
forcing, where ``head(outputs)`` are the logits. A new architecture is a class with ``begin`` and
``advance`` and its ``Options``: an entry in ``CAPTIONERS``, or in a module of your own.

What does not depend on the state is computed for all steps at once. The state is float32 at least,
also where products are in bfloat16.

Shapes: ``B`` batch, ``n <= B`` rows that still have a word, ``M`` words of all rows and steps,
``R`` regions, ``C`` channels, ``T`` steps, ``E`` embedding, ``H`` hidden, ``A`` width of the
attention, ``V`` vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .encoders import Grid
from .fused import Product, deferred, stack_steps, widened
from .options import POSITIVE, SHARE, Network, Options, build, current_config, option

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class CaptionerOptions(Options):
    """What every captioner can be told."""

    embedding: int = option(256, "Width of the word embeddings.", POSITIVE)
    hidden: int = option(512, "Width of the recurrent state.", POSITIVE)
    dropout: float = option(
        0.4, "Dropout on the word embeddings and on the output of a captioner.", SHARE
    )
    grid_dropout: float = option(0.0, "Dropout on the numbers of the normalised regions.", SHARE)
    blind: bool = option(
        False, "Hide the picture, which is replaced by zeros: a baseline that knows only words."
    )


@dataclass(frozen=True)
class State:
    """What a captioner carries from step to step, tensors (B, ...).

    ``recurrent`` ones change at each step; ``memory`` holds what is attended to and stays.
    """

    recurrent: Tensors
    memory: Tensors = ()

    def select(self, rows: Tensor) -> "State":
        """The state of the given rows (N,), repeated where a row is named twice."""
        memory = tuple(x.index_select(0, rows) for x in self.memory)
        return replace(self.reorder(rows), memory=memory)

    def reorder(self, rows: Tensor) -> "State":
        """As ``select`` where each row stays with its picture: the memory need not move."""
        return replace(self, recurrent=tuple(x.index_select(0, rows) for x in self.recurrent))

    def first(self, n: int) -> "State":
        """The state of the first n rows."""
        if n == len(self.recurrent[0]):
            return self
        return State(tuple(x[:n] for x in self.recurrent), tuple(x[:n] for x in self.memory))


Step = tuple[Tensor, State, Tensor | None]  # what comes out, the state behind it, attention (n, R)
Unrolled = tuple[Tensor, Tensor | None]  # the same of all steps, (B, T, ...)


class CaptionModel(Network, ABC):
    """Base of the captioners: embeddings, the vocabulary layer, one step and all steps.

    A blind one sees zeros and gives no attention; its weights of the picture stay untrained.

    Args:
        options: of the architecture.
        sizes: ``channels``, C of the encoder's grid; ``vocabulary``, V with special tokens.
    """

    kind = "captioner"
    Options: ClassVar[type[CaptionerOptions]] = CaptionerOptions
    options: CaptionerOptions
    size_names = ("channels", "vocabulary")

    def __init__(self, options: CaptionerOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        self.embed = nn.Embedding(self.vocabulary, options.embedding)
        self.dropout = nn.Dropout(options.dropout)
        self.grid_dropout = nn.Dropout(options.grid_dropout)
        # Dropout stands before the vocabulary, where training has left the padding out already.
        self.head: nn.Module = nn.Sequential(
            nn.Dropout(options.dropout), nn.Linear(options.hidden, self.vocabulary)
        )

    def start(self, grid: Grid) -> State:
        """The state before the first word, for cells (B, R, C)."""
        if not self.options.blind:
            return self.begin(grid)
        # All pictures are alike: one is enough.
        none = Grid.of(torch.zeros_like(grid.cells[:1]), grid.height, grid.width)
        rows = torch.zeros(grid.cells.shape[0], dtype=torch.long, device=grid.cells.device)
        return self.begin(none).select(rows)

    @abstractmethod
    def begin(self, grid: Grid) -> State:
        """``start`` for a grid that may be seen."""

    def words(self, tokens: Tensor) -> Tensors:
        """What is known of words (M,) before the recurrence; by default x (M, E) alone."""
        return (self.dropout(self.embed(tokens)),)

    @abstractmethod
    def advance(self, words: Tensors, state: State) -> Step:
        """One step: output (n, ...) for ``head``, the state behind the words, attention (n, R)."""

    def shared(self, state: State) -> dict[nn.Module, Tensor]:
        """What ``unroll`` lets ``fused.deferred`` take over: modules of ``advance`` and weights."""
        return {}

    def step(self, tokens: Tensor, state: State) -> Step:
        """Read a word (B,), give logits (B, V) of the next, the new state, attention (B, R)."""
        output, state, attention = self.advance(self.words(tokens), state)
        return self.head(output), state, None if self.options.blind else attention

    def unroll(self, state: State, tokens: Tensor, lengths: Tensor | None = None) -> Unrolled:
        """Teacher forcing over tokens (B, T): outputs for ``head``, attention (B, T, R).

        With ``lengths`` (B,), on the CPU and in falling order, only real words are computed; what
        lies behind them is zero.
        """
        active = active_rows(lengths, *tokens.shape)
        flat = torch.cat([tokens[:n, t] for t, n in enumerate(active)])  # (M,), step after step
        words = zip(*(x.split(active) for x in self.words(flat)), strict=True)
        outputs, attentions = [], []
        with deferred(self.shared(state)):
            for n, word in zip(active, words, strict=True):
                output, state, attention = self.advance(word, state.first(n))
                outputs.append(output)
                if attention is not None and not self.options.blind:
                    attentions.append(attention)
        batch = len(tokens)
        gaze = stack_steps(attentions, batch) if attentions else None
        return stack_steps(outputs, batch), gaze

    def forward(self, grid: Grid, tokens: Tensor, lengths: Tensor | None = None) -> Unrolled:
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


def lstm_update(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the LSTM: h_t and c_t (n, H), in the format of the cell c_{t-1}::

        i, f, g, o = W_x x_t + W_h h_{t-1} + b       the given gates (n, 4H), in torch's order
        c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
        h_t = sigmoid(o) * tanh(c_t)

    References:
        Hochreiter and Schmidhuber 1997, Long Short-Term Memory; Gers et al. 2000 (forget gate).
    """
    i, f, g, o = gates.to(cell.dtype).chunk(4, 1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


@torch.no_grad()
def remember_at_first(bias: Tensor) -> None:
    """Biases of LSTM gates (4H,): 0, and 1 for the forget gates."""
    nn.init.zeros_(bias)
    bias.chunk(4)[1].fill_(1.0)


class Pooled(CaptionModel):
    """``rnn`` and ``lstm``: the picture is one vector, from which the recurrence begins.

    Teacher forcing runs torch's fused module of the same weights; ``CaptionModel.unroll`` runs the
    equations.
    """

    recurrent: nn.RNN | nn.LSTM
    states = 1  # tensors of the recurrent state

    def __init__(self, options: CaptionerOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        self.normalise = nn.LayerNorm(self.channels).requires_grad_(not options.blind)
        self.image = nn.Linear(self.channels, self.states * options.hidden)

    def begin(self, grid: Grid) -> State:
        first = self.image(self.grid_dropout(self.normalise(grid.pooled)))  # (B, C) -> (B, H or 2H)
        return State(recurrent=widened(first).chunk(self.states, 1))

    def affine(self, word: Tensor, hidden: Tensor) -> Tensor:
        """``W_x x_t + b_x + W_h h_{t-1} + b_h`` of words (n, E) and hidden states (n, H)."""
        w_x, w_h, b_x, b_h = self.recurrent.all_weights[0]
        linear = nn.functional.linear
        return linear(word, w_x, b_x) + linear(hidden, w_h, b_h)

    def unroll(self, state: State, tokens: Tensor, lengths: Tensor | None = None) -> Unrolled:
        (words,) = self.words(tokens)  # (B, T, E)
        batch, steps = tokens.shape
        rows = active_rows(lengths, batch, steps)[0]  # the fused modules take no empty sequence
        if lengths is None:
            lengths = torch.full((batch,), steps)
        packed = pack_padded_sequence(words[:rows], lengths[:rows].cpu(), batch_first=True)
        # (1, B, H); cuDNN takes contiguous ones only
        first = tuple(x[:rows].unsqueeze(0).to(words.dtype).contiguous() for x in state.recurrent)
        outputs, _ = self.recurrent(packed, first if len(first) > 1 else first[0])
        padded, _ = pad_packed_sequence(outputs, batch_first=True, total_length=steps)
        return nn.functional.pad(padded, (0, 0, 0, 0, 0, batch - rows)), None  # (B, T, H)


class RNNCaptioner(Pooled):
    """Vanilla RNN on the pooled picture::

        h_0 = W_i LayerNorm(a) + b_i        a = mean_i a_i
        h_t = tanh(W_x x_t + W_h h_{t-1} + b)
        p(w_{t+1}) = softmax(W_o h_t + b_o)

    References:
        Karpathy and Fei-Fei 2015, Deep Visual-Semantic Alignments for Generating Image
        Descriptions (an RNN that begins from the picture); Elman 1990, Finding Structure in Time.
    """

    def __init__(self, options: CaptionerOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        self.recurrent = nn.RNN(options.embedding, options.hidden, batch_first=True)
        nn.init.orthogonal_(self.recurrent.all_weights[0][1])  # W_h

    def advance(self, words: Tensors, state: State) -> Step:
        hidden = widened(self.affine(words[0], state.recurrent[0])).tanh()
        return hidden, replace(state, recurrent=(hidden,)), None


class LSTMCaptioner(Pooled):
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
        self.recurrent = nn.LSTM(options.embedding, options.hidden, batch_first=True)
        _, w_h, b_x, b_h = self.recurrent.all_weights[0]
        nn.init.orthogonal_(w_h)
        remember_at_first(b_x)
        nn.init.zeros_(b_h)

    def advance(self, words: Tensors, state: State) -> Step:
        hidden, cell = state.recurrent
        hidden, cell = lstm_update(self.affine(words[0], hidden), cell)
        return hidden, replace(state, recurrent=(hidden, cell)), None


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
        self.normalise = nn.LayerNorm(self.channels).requires_grad_(not options.blind)
        self.keys = nn.Linear(self.channels, hidden)
        # The shares of the word, which is known for all steps at once, and of context and state.
        self.word_gates = nn.Linear(options.embedding, 4 * hidden)
        self.state_gates = nn.Linear(2 * hidden, 4 * hidden, bias=False)
        nn.init.orthogonal_(self.state_gates.weight[:, hidden:])
        remember_at_first(self.word_gates.bias)
        self.compare, self.gather = Product(), Product()

    def begin(self, grid: Grid) -> State:
        keys = self.keys(self.grid_dropout(self.normalise(grid.cells)))  # (B, R, C) -> (B, R, H)
        mean = widened(keys).mean(1)
        return State(recurrent=(mean, mean), memory=(keys,))

    def words(self, tokens: Tensor) -> Tensors:
        return (self.word_gates(*super().words(tokens)),)  # (M, 4H)

    def advance(self, words: Tensors, state: State) -> Step:
        (hidden, cell), (keys,) = state.recurrent, state.memory
        asked = hidden.to(keys.dtype)
        # A Product is a matrix product, here keys_n asked_n in each row n, with a faster gradient.
        scores = widened(self.compare(asked, keys)) / hidden.shape[1] ** 0.5  # (n, R)
        attention = scores.softmax(1)
        context = self.gather(attention, keys.transpose(1, 2))  # (n, H)
        gates = words[0] + self.state_gates(torch.cat((context, asked), 1))
        hidden, cell = lstm_update(gates, cell)
        return hidden, replace(state, recurrent=(hidden, cell)), attention

    def shared(self, state: State) -> dict[nn.Module, Tensor]:
        keys, gates = state.memory[0], self.state_gates
        return {gates: gates.weight, self.compare: keys, self.gather: keys.transpose(1, 2)}


class DeepOutput(nn.Module):
    """What predicts the next word, from the last word, the state and the context::

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
        self.widths = [options.embedding, options.hidden, channels]
        self.word = nn.Linear(options.embedding, options.hidden, bias=False)
        self.looked = nn.Linear(channels, options.hidden)
        self.dropout = nn.Dropout(options.dropout)
        self.words = nn.Linear(options.hidden, vocabulary)

    def forward(self, outputs: Tensor) -> Tensor:
        word, hidden, context = outputs.split(self.widths, -1)
        return self.words(self.dropout(self.word(word) + hidden + self.looked(context)))


@dataclass(frozen=True)
class ShowAttendTellOptions(CaptionerOptions):
    """Options of ``ShowAttendTell``, ``DualAttention`` and ``UpDown``."""

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
        Attention, sections 3.1.2 and 4.2; Bahdanau et al. 2015 (the attention).
    """

    Options = ShowAttendTellOptions

    def __init__(self, options: ShowAttendTellOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        channels, hidden, width = self.channels, options.hidden, options.attention_width
        self.normalise = nn.LayerNorm(channels, elementwise_affine=False)
        self.first = nn.Linear(channels, 2 * hidden)  # h_0 and c_0
        self.regions = nn.Linear(channels, width, bias=False)
        self.state = nn.Linear(hidden, width)
        self.score = nn.Parameter(torch.randn(width) / width**0.5)
        self.gate = nn.Linear(hidden, 1)
        self.word_gates = nn.Linear(options.embedding, 4 * hidden)
        self.gates = nn.Linear(channels + hidden, 4 * hidden, bias=False)
        nn.init.orthogonal_(self.gates.weight[:, channels:])
        remember_at_first(self.word_gates.bias)
        self.head = DeepOutput(options, channels, self.vocabulary)

    def begin(self, grid: Grid) -> State:
        cells = self.grid_dropout(self.normalise(grid.cells))
        keys = self.regions(cells)  # (B, R, C) -> (B, R, A)
        first = widened(self.first(cells.mean(1))).chunk(2, 1)  # two of (B, H)
        return State(recurrent=first, memory=(keys, cells.to(keys.dtype)))

    def words(self, tokens: Tensor) -> Tensors:
        (embedded,) = super().words(tokens)
        return embedded, self.word_gates(embedded)  # (M, E) and (M, 4H)

    def read(self, words: Tensors, state: Tensor) -> tuple[Tensor, Tensor]:
        """The word as the LSTM and the output get it (n, E), and its gates (n, 4H)."""
        word, gates = words
        return word, gates

    def advance(self, words: Tensors, state: State) -> Step:
        (hidden, cell), (keys, cells) = state.recurrent, state.memory
        query = self.state(hidden)  # (n, A)
        word, gates = self.read(words, query)
        context, attention = attend_additively(query, keys, cells, self.score)
        context = context * self.gate(hidden).sigmoid()
        gates = gates + self.gates(torch.cat((context, hidden.to(context.dtype)), 1))
        hidden, cell = lstm_update(gates, cell)
        output = torch.cat((word.to(context.dtype), hidden.to(context.dtype), context), 1)
        return output, replace(state, recurrent=(hidden, cell)), attention

    def shared(self, state: State) -> dict[nn.Module, Tensor]:
        return {self.gates: self.gates.weight}


def attend_additively(
    query: Tensor, keys: Tensor, values: Tensor, score: Tensor
) -> tuple[Tensor, Tensor]:
    """``e_i = v . tanh(k_i + q)``, ``alpha = softmax(e)``, ``z = sum_i alpha_i a_i``.

    Args:
        query: q (n, A).
        keys: k (n, R, A).
        values: a (n, R, C).
        score: v (A,).

    Returns:
        The context z (n, C), in the values' format, and the attention (n, R), at least float32.
    """
    scores = (keys + query.to(keys.dtype).unsqueeze(1)).tanh() @ score.to(keys.dtype)  # (n, R)
    attention = widened(scores).softmax(1)
    return torch.bmm(attention.to(values.dtype).unsqueeze(1), values).squeeze(1), attention


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

    def __init__(self, options: ShowAttendTellOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        self.word = nn.Linear(options.embedding, options.attention_width, bias=False)
        self.components = nn.Linear(options.attention_width, options.embedding)

    def words(self, tokens: Tensor) -> Tensors:
        embedded = self.dropout(self.embed(tokens))
        return embedded, self.word(embedded)  # (M, E) and (M, A)

    def read(self, words: Tensors, state: Tensor) -> tuple[Tensor, Tensor]:
        word, key = words
        omega = widened(self.components((key + state).tanh())).softmax(1)  # (n, E)
        word = word * omega * word.shape[1]
        return word, self.word_gates(word)


class UpDown(CaptionModel):
    """Two LSTMs, one that asks where to look and one that says the word::

        v_i = W_v LayerNorm(a_i) + b_v         h_0 = c_0 = 0 of both
        h1_t, c1_t = LSTM_1([x_t ; mean_i v_i ; h2_{t-1}], h1_{t-1}, c1_{t-1})
        e_ti = w . tanh(W_a LayerNorm(a_i) + W_s h1_t + b_s)      alpha_t = softmax(e_t)
        z_t = sum_i alpha_ti v_i
        h2_t, c2_t = LSTM_2([z_t ; h1_t], h2_{t-1}, c2_{t-1})
        p(w_{t+1}) = softmax(W_o h2_t + b_o)

    The first has read the last word before it asks, so that the gaze is that of the word to come.
    The paper attends to detected objects; here the regions are the grid's, projected to H.

    References:
        Anderson et al. 2018, Bottom-Up and Top-Down Attention for Image Captioning and Visual
        Question Answering, section 3.2.
    """

    Options = ShowAttendTellOptions

    def __init__(self, options: ShowAttendTellOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        channels, hidden, width = self.channels, options.hidden, options.attention_width
        self.normalise = nn.LayerNorm(channels, elementwise_affine=False)
        self.values = nn.Linear(channels, hidden)
        self.regions = nn.Linear(channels, width, bias=False)
        self.query = nn.Linear(hidden, width)
        self.score = nn.Parameter(torch.randn(width) / width**0.5)
        self.word_gates = nn.Linear(options.embedding, 4 * hidden)
        self.picture_gates = nn.Linear(hidden, 4 * hidden, bias=False)
        self.asking_gates = nn.Linear(2 * hidden, 4 * hidden, bias=False)
        self.telling_gates = nn.Linear(3 * hidden, 4 * hidden, bias=False)
        self.telling_bias = nn.Parameter(torch.empty(4 * hidden))
        for gates, bias in (
            (self.asking_gates, self.word_gates.bias),
            (self.telling_gates, self.telling_bias),
        ):
            nn.init.orthogonal_(gates.weight[:, -hidden:])
            remember_at_first(bias)

    def begin(self, grid: Grid) -> State:
        cells = self.grid_dropout(self.normalise(grid.cells))  # (B, R, C)
        values, keys = self.values(cells), self.regions(cells)  # (B, R, H) and (B, R, A)
        first = torch.zeros_like(widened(values[:, 0]))  # (B, H)
        return State((first,) * 4, (keys, values, self.picture_gates(values.mean(1))))

    def words(self, tokens: Tensor) -> Tensors:
        return (self.word_gates(*super().words(tokens)),)  # (M, 4H)

    def advance(self, words: Tensors, state: State) -> Step:
        (asking, first), (telling, second) = state.recurrent[:2], state.recurrent[2:]
        keys, values, picture = state.memory
        both = torch.cat((telling, asking), 1).to(values.dtype)
        asking, first = lstm_update(words[0] + picture + self.asking_gates(both), first)
        context, attention = attend_additively(self.query(asking), keys, values, self.score)
        every = torch.cat((context, asking.to(context.dtype), telling.to(context.dtype)), 1)
        gates = self.telling_gates(every) + self.telling_bias
        telling, second = lstm_update(gates, second)
        return telling, replace(state, recurrent=(asking, first, telling, second)), attention

    def shared(self, state: State) -> dict[nn.Module, Tensor]:
        return {gates: gates.weight for gates in (self.asking_gates, self.telling_gates)}


CAPTIONERS: dict[str, type[CaptionModel]] = {
    "rnn": RNNCaptioner,
    "lstm": LSTMCaptioner,
    "attention-lstm": AttentionLSTM,
    "show-attend-tell": ShowAttendTell,
    "dual-attention": DualAttention,
    "up-down": UpDown,
}


def build_captioner(architecture: str, **values: Any) -> CaptionModel:
    """A captioner with random weights: ``build`` with channels, vocabulary and options."""
    captioner: CaptionModel = build(CAPTIONERS, architecture, values)
    return captioner


def captioner_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``build_captioner`` from a model folder's, also an earlier version's."""
    return current_config(CAPTIONERS, values)

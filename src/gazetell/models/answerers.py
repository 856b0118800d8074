"""The answerers: a grid of regions and a question become scores of answers.

- ``bow-mlp``: a bag of words and the picture, through a multi-layer perceptron
- ``lstm-vqa``: stacked LSTMs over the words, merged with the picture
- ``attention-vqa``: the question attends to the regions of the grid, a few times at once
- ``dmn-plus``: dynamic memory network, several passes of attention over the grid

The contract of all of them: ``encode_picture(grid) -> EncodedPicture``, once a picture; then
``answer(picture, tokens, lengths, owner) -> (logits, attention)``, for any number of questions
about those pictures. A new one has ``encode_grid``, ``answer`` and ``Options``, here or elsewhere.

Shapes: ``B`` pictures, ``N`` questions, ``R`` regions, ``C`` channels, ``T`` words, ``E``
embedding, ``H`` hidden, ``V`` vocabulary, ``A`` answers, ``P`` passes or glimpses.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from ..data.text import Tokenizer
from .encoders import Grid
from .fused import region_scores, widened
from .options import POSITIVE, SHARE, Network, Options, build, current_config, option


@dataclass(frozen=True)
class AnswererOptions(Options):
    """What every answerer can be told."""

    embedding: int = option(256, "Width of the word embeddings.", POSITIVE)
    dropout: float = option(0.4, "Dropout on hidden layers and before the output.", SHARE)
    grid_dropout: float = option(0.0, "Dropout on the numbers of the normalised picture.", SHARE)
    word_dropout: float = option(0.0, "Dropout on the word embeddings.", SHARE)
    blind: bool = option(
        False,
        "Hide the picture, which is replaced by zeros: a baseline that knows only the question.",
    )


class EncodedPicture(NamedTuple):
    """What an answerer keeps of B pictures, for any number of questions about them.

    ``features`` (B, ...) are the architecture's own, a row a picture; ``height`` and ``width`` are
    the grid's.
    """

    features: Tensor
    height: int
    width: int

    def of(self, owner: Tensor | None) -> Tensor:
        """The features (N, ...) of each question's picture; see ``AnswerModel.answer``."""
        return self.features if owner is None else self.features.index_select(0, owner)


class AnswerModel(Network, ABC):
    """Base of the answerers: word embeddings, and the picture that a blind model does not see.

    Args:
        options: of the architecture.
        sizes: ``channels``, C of the encoder's grid; ``vocabulary``, V of the questions' words
            with special tokens; ``answers``, A.
    """

    kind = "answerer"
    Options: ClassVar[type[AnswererOptions]] = AnswererOptions
    options: AnswererOptions
    size_names = ("channels", "vocabulary", "answers")
    answers: int

    def __init__(self, options: AnswererOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        self.embed = nn.Embedding(self.vocabulary, options.embedding, padding_idx=Tokenizer.pad)
        self.word_dropout = nn.Dropout(options.word_dropout)
        self.grid_dropout = nn.Dropout(options.grid_dropout)

    def head_of(self, width: int) -> nn.Sequential:
        """The layer that scores the answers, behind dropout."""
        return nn.Sequential(nn.Dropout(self.options.dropout), nn.Linear(width, self.answers))

    def encode_picture(self, grid: Grid) -> EncodedPicture:
        """The picture's part, which does not depend on the question."""
        if self.options.blind:
            cells, pooled = torch.zeros_like(grid.cells), torch.zeros_like(grid.pooled)
            grid = grid._replace(cells=cells, pooled=pooled)
        return EncodedPicture(self.encode_grid(grid), grid.height, grid.width)

    @abstractmethod
    def encode_grid(self, grid: Grid) -> Tensor:
        """``EncodedPicture.features`` (B, ...) of a grid that may be seen."""

    def embed_words(self, tokens: Tensor, lengths: Tensor) -> PackedSequence:
        """The words of questions (N, T) as E numbers each, without padding."""
        words = self.word_dropout(self.embed(tokens))
        return pack_padded_sequence(words, lengths.cpu(), batch_first=True, enforce_sorted=False)

    @abstractmethod
    def answer(
        self, picture: EncodedPicture, tokens: Tensor, lengths: Tensor, owner: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Scores of the answers.

        Args:
            picture: B pictures, from ``encode_picture``.
            tokens: (N, T) word ids of the questions, without ``<start>`` and ``<end>``; what
                stands behind a question's length does not matter.
            lengths: (N,) words of each question, at least 1, in any order, on any device.
            owner: (N,) which of the B pictures each question is about; None: question i is about
                picture i.

        Returns:
            Logits (N, A), and the attention (N, P, R) of each pass over the regions in reading
            order, at least float32, each pass summing to 1; None if the architecture has none.
        """

    def forward(
        self, grid: Grid, tokens: Tensor, lengths: Tensor, owner: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """``answer`` of ``encode_picture``."""
        return self.answer(self.encode_picture(grid), tokens, lengths, owner)


@torch.no_grad()
def start_recurrent(layer: nn.RNNBase) -> None:
    """First weights: recurrent ones orthogonal for each gate, biases 0, forget gates 1.

    References:
        Saxe et al. 2014, Exact solutions to the nonlinear dynamics of learning in deep linear
        neural networks; Jozefowicz et al. 2015 (forget bias).
    """
    for name, parameter in layer.named_parameters():
        if name.startswith("weight_hh"):
            for gate in parameter.split(layer.hidden_size):
                nn.init.orthogonal_(gate)
        elif name.startswith("weight_ih"):
            for gate in parameter.split(layer.hidden_size):
                nn.init.xavier_uniform_(gate)
        else:
            parameter.zero_()
            if isinstance(layer, nn.LSTM) and name.startswith("bias_ih"):
                parameter[layer.hidden_size : 2 * layer.hidden_size] = 1.0


@dataclass(frozen=True)
class OneVectorOptions(AnswererOptions):
    """What those have whose picture is one vector."""

    normalise: Literal["l2", "layer", "none"] = option(
        "l2", "The picture's vector: l2 (length 1), layer (mean 0, variance 1) or none."
    )


class OneVector(AnswerModel):
    """An answerer that sees the picture as one vector v, through one affine map, once a picture.

    v is the grid's pooled one: the mean of its cells, or for a grid of one cell (VGG's
    ``classifier.3``, which is fc7) that cell. It is divided by its length (``normalise="l2"``): a
    raw one drives every tanh behind it to its ends, and training sticks at answers from words.
    """

    options: "BowMLPOptions | LSTMAnswererOptions"

    def __init__(self, options: "BowMLPOptions | LSTMAnswererOptions", **sizes: int) -> None:
        super().__init__(options, **sizes)
        self.layer_norm = nn.LayerNorm(self.channels, elementwise_affine=False)
        self.image = nn.Linear(self.channels, options.width)
        if options.normalise == "l2":
            # The numbers of a vector of length 1 are that much smaller than those of unit variance.
            with torch.no_grad():
                self.image.weight *= self.channels**0.5

    def encode_grid(self, grid: Grid) -> Tensor:
        vector = grid.pooled
        if self.options.normalise == "l2":
            vector = F.normalize(vector, dim=1)
        elif self.options.normalise == "layer":
            vector = self.layer_norm(vector)
        return self.image(self.grid_dropout(vector))  # (B, C) -> (B, width)


@dataclass(frozen=True)
class BowMLPOptions(OneVectorOptions):
    """Options of ``BowMLP``."""

    width: int = option(1024, "Width of the hidden layers.", POSITIVE)
    layers: int = option(3, "Hidden layers.", POSITIVE)
    pooling: Literal["sum", "mean"] = option("sum", "How the words are summed up: sum or mean.")


class BowMLP(OneVector):
    """Bag of words and picture through a multi-layer perceptron::

        s = sum_t x_t                                       or their mean, pooling="mean"
        u_0 = dropout(W_s s + W_v v + b)                    a linear map of [s ; v]
        u_l = dropout(tanh(W_l u_{l-1} + b_l))              l = 1..layers
        p(answer) = softmax(W_o u_L + b_o)

    x_t are the words (E), v the normalised image vector (C), u_l hidden layers (width). The hidden
    layers start with weights of Glorot's size for a tanh (gain 5/3); with smaller ones the signal
    fades from layer to layer, and the model answers the same to everything. Even so, learning rates
    of 3e-4 are safer than 1e-3.

    References:
        Zhou et al. 2015, Simple Baseline for Visual Question Answering; Antol et al. 2015, VQA:
        Visual Question Answering (MLP with bag of words); widths as in the Keras tutorials of
        2016 to 2018; Glorot and Bengio 2010.
    """

    Options = BowMLPOptions
    options: BowMLPOptions

    def __init__(self, options: BowMLPOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        width = options.width
        self.words = nn.Linear(options.embedding, width, bias=False)
        blocks: list[nn.Module] = [nn.Dropout(options.dropout)]
        for _ in range(options.layers):
            layer = nn.Linear(width, width)
            nn.init.xavier_uniform_(layer.weight, nn.init.calculate_gain("tanh"))
            nn.init.zeros_(layer.bias)
            blocks += [layer, nn.Tanh(), nn.Dropout(options.dropout)]
        self.hidden = nn.Sequential(*blocks)
        self.head = nn.Linear(width, self.answers)

    def answer(
        self, picture: EncodedPicture, tokens: Tensor, lengths: Tensor, owner: Tensor | None = None
    ) -> tuple[Tensor, None]:
        lengths = lengths.to(tokens.device)
        real = torch.arange(tokens.shape[1], device=tokens.device) < lengths.unsqueeze(1)  # (N, T)
        words = self.word_dropout(self.embed(tokens)).masked_fill(~real.unsqueeze(2), 0)
        bag = words.sum(1)  # (N, T, E) -> (N, E)
        if self.options.pooling == "mean":
            bag = bag / lengths.unsqueeze(1)
        return self.head(self.hidden(self.words(bag) + picture.of(owner))), None


@dataclass(frozen=True)
class LSTMAnswererOptions(OneVectorOptions):
    """Options of ``LSTMAnswerer``."""

    width: int = option(1024, "Width of the merged layer.", POSITIVE)
    hidden: int = option(512, "Width of the recurrent state.", POSITIVE)
    layers: int = option(3, "LSTM layers.", POSITIVE)
    fusion: Literal["concat", "product"] = option(
        "concat", "How question and picture are merged: concat, or product (of tanh layers)."
    )


class LSTMAnswerer(OneVector):
    """Stacked LSTMs over the words, merged with the picture::

        h_1 = LSTM_1(x)                         x the words (T, E)
        h_l = h_{l-1} + LSTM_l(h_{l-1})         l = 2..layers
        s = h_L at the last word
        u = tanh(W_s s + W_v v + b)             fusion="concat": a layer over [s ; v]
        u = tanh(W_s s + b) * tanh(W_v v + b')  fusion="product"
        p(answer) = softmax(W_o dropout(u) + b_o)

    v is the normalised image vector (C), u the merged layer (width). What the originals have not:

    - A layer adds to what is below it. Three plain layers hardly train on small sets; with the
      sums, orthogonal recurrent weights and forget gates that begin open they do.
    - With ``concat`` a hidden layer stands between merging and answers. A linear map alone would
      add up an opinion of the words and one of the picture, whatever the words ask about.
    - With ``product`` the top layer's state alone is used, not states and cells of all layers.

    References:
        Antol et al. 2015, VQA: Visual Question Answering (LSTM Q + I), and the Keras tutorials
        after it (``concat``); Lu et al. 2015, Deeper LSTM and normalized CNN Visual Question
        Answering model (``product``); He et al. 2016 (residuals).
    """

    Options = LSTMAnswererOptions
    options: LSTMAnswererOptions

    def __init__(self, options: LSTMAnswererOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        hidden = options.hidden
        widths = [options.embedding, *[hidden] * (options.layers - 1)]
        layers = [nn.LSTM(width, hidden, batch_first=True) for width in widths]
        for layer in layers:
            start_recurrent(layer)
        self.lstms = nn.ModuleList(layers)
        self.words = nn.Linear(hidden, options.width)
        self.head = self.head_of(options.width)

    def encode_grid(self, grid: Grid) -> Tensor:
        image = super().encode_grid(grid)
        return image.tanh() if self.options.fusion == "product" else image

    def answer(
        self, picture: EncodedPicture, tokens: Tensor, lengths: Tensor, owner: Tensor | None = None
    ) -> tuple[Tensor, None]:
        below = self.embed_words(tokens, lengths)
        states: list[Tensor] = []
        for lstm in self.lstms:
            outputs, (last, _) = lstm(below)
            below = outputs._replace(data=below.data + outputs.data) if states else outputs
            states.append(widened(last[0]))  # (1, N, H) -> (N, H)
        words, image = self.words(torch.stack(states).sum(0)), picture.of(owner)
        product = self.options.fusion == "product"
        return self.head(words.tanh() * image if product else (words + image).tanh()), None


@dataclass(frozen=True)
class RegionsOptions(AnswererOptions):
    """Options of ``Regions``."""

    hidden: int = option(512, "Width of the recurrent state.", POSITIVE)
    question: Literal["gru", "lstm"] = option("gru", "What reads the question: gru or lstm.")
    positions: bool = option(False, "Tell each region where it lies, for questions about places.")


class Regions(AnswerModel):
    """An answerer that looks at regions, with one recurrent layer that reads the question.

    The regions are normalised over their channels, without learned scale: raw activations of a CNN
    differ much in size, and training sticks at answers from words alone.
    """

    options: "AttentionAnswererOptions | DMNPlusOptions"
    question: nn.RNNBase

    def __init__(self, options: "AttentionAnswererOptions | DMNPlusOptions", **sizes: int) -> None:
        super().__init__(options, **sizes)
        self.normalise = nn.LayerNorm(self.channels, elementwise_affine=False)
        self.facts = nn.Linear(self.channels, options.hidden)
        if options.positions:
            self.places = nn.Linear(2, options.hidden, bias=False)

    def question_reader(self) -> nn.RNNBase:
        """What reads the question; the order of a network's parts is that of its checkpoints."""
        kind = nn.LSTM if self.options.question == "lstm" else nn.GRU
        layer = kind(self.options.embedding, self.options.hidden, batch_first=True)
        start_recurrent(layer)
        return layer

    def encode_grid(self, grid: Grid) -> Tensor:
        facts = self.facts(self.grid_dropout(self.normalise(grid.cells)))  # (B, R, C) -> (B, R, H)
        if self.options.positions:
            facts = facts + self.places(positions(grid.height, grid.width, grid.cells))
        return facts

    def read(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The question q (N, H): the last state of its reader."""
        _, last = self.question(self.embed_words(tokens, lengths))
        return widened((last[0] if isinstance(last, tuple) else last)[0])  # (1, N, H) -> (N, H)


@dataclass(frozen=True)
class AttentionAnswererOptions(RegionsOptions):
    """Options of ``AttentionAnswerer``."""

    width: int = option(1024, "Width of the merged layer.", POSITIVE)
    glimpses: int = option(2, "Attentions over the regions, side by side.", POSITIVE)


class AttentionAnswerer(Regions):
    """The question looks at the regions, P times side by side, and is merged with what it saw::

        k_i = W_k LayerNorm(x_i) + b_k                      + W_p p_i, positions=True
        q   = GRU(words), its last state                    or an LSTM, question="lstm"
        g   = softmax_i(k_i . (W_t q + b_t) / sqrt(H))      the gaze of glimpse t = 1..P
        c_t = sum_i g_i k_i
        u   = tanh(W_c [c_1 ; .. ; c_P] + b_c) * tanh(W_q q + b_q)
        p(answer) = softmax(W_a dropout(u) + b_a)

    The score is that of ``attention-lstm``; Kazemi and Elqursh score by a layer.

    References:
        Kazemi and Elqursh 2017, Show, Ask, Attend, and Answer (glimpses); Anderson et al. 2018,
        Bottom-Up and Top-Down Attention for Image Captioning and Visual Question Answering (the
        product of question and attended region); Luong et al. 2015 (dot score).
    """

    Options = AttentionAnswererOptions
    options: AttentionAnswererOptions

    def __init__(self, options: AttentionAnswererOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        hidden, glimpses = options.hidden, options.glimpses
        self.question = self.question_reader()
        self.queries = nn.Linear(hidden, glimpses * hidden)
        self.seen = nn.Linear(glimpses * hidden, options.width)
        self.words = nn.Linear(hidden, options.width)
        self.head = self.head_of(options.width)

    def answer(
        self, picture: EncodedPicture, tokens: Tensor, lengths: Tensor, owner: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        keys, question = picture.of(owner), self.read(tokens, lengths)  # (N, R, H), (N, H)
        queries = self.queries(question).unflatten(1, (self.options.glimpses, -1))  # (N, P, H)
        scores = torch.bmm(queries, keys.to(queries.dtype).transpose(1, 2))  # (N, P, R)
        gaze = (widened(scores) / keys.shape[2] ** 0.5).softmax(2)
        contexts = torch.bmm(gaze.to(keys.dtype), keys).flatten(1)  # (N, P H)
        merged = self.seen(contexts).tanh() * self.words(question).tanh()
        return self.head(merged), gaze


@dataclass(frozen=True)
class DMNPlusOptions(RegionsOptions):
    """Options of ``DMNPlus``."""

    attention_width: int = option(256, "Width of the layer behind the gates.", POSITIVE)
    passes: int = option(3, "Passes over the picture.", POSITIVE)
    memory: Literal["relu", "gru"] = option(
        "relu", "How the memory is renewed after a pass: relu or gru."
    )
    attention_kind: Literal["gru", "soft"] = option(
        "gru", "How the regions attended to are read: gru or soft (a weighted sum)."
    )


class DMNPlus(Regions):
    """Dynamic memory network for pictures::

        f_i = tanh(W LayerNorm(x_i) + b)        regions in snake order: every second row reversed
                                                + W_p p_i inside the tanh, positions=True
        F_i = GRU_forth(f)_i + GRU_back(f)_i    input fusion: each region with its context
        q   = GRU(words), its last state        or an LSTM, question="lstm"
        m_0 = q, and for each pass t = 1..P
            z_i = [F_i * q ; F_i * m_{t-1} ; |F_i - q| ; |F_i - m_{t-1}|]
            g   = softmax_i(W2 tanh(W1 z_i + b1))       the gaze of the pass
            c   = last state of the attention GRU       or sum_i g_i F_i, attention_kind="soft"
            m_t = ReLU(W_m [m_{t-1} ; c ; q] + b_m)     or GRU(c, m_{t-1}), memory="gru"
        p(answer) = softmax(W_a dropout([q ; m_P]) + b_a)

    Gates, attention GRUs and W_m of each pass have weights of their own; the GRU of
    ``memory="gru"`` is one. p_i is row and column of the centre of a region, the picture's edges
    being -1 and 1. ``F`` and what the attention GRU makes of it alone are computed once a picture.

    What the paper has not:

    - The scores of the gates have no second bias: it moves all of them alike.
    - ``positions``: without them only the recurrences of the input fusion know where a region lies,
      and questions about places take long to learn.
    - The paper's dropout on the picture is ``grid_dropout`` (it has 0.5), here 0 by default.

    References:
        Xiong, Merity and Socher 2016, Dynamic Memory Networks for Visual and Textual Question
        Answering; Kumar et al. 2016, Ask Me Anything (the memory's GRU); Liu et al. 2018, An
        Intriguing Failing of Convolutional Neural Networks and the CoordConv Solution.
    """

    Options = DMNPlusOptions
    options: DMNPlusOptions

    def __init__(self, options: DMNPlusOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        hidden, passes = options.hidden, range(options.passes)
        self.fusion = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True)
        start_recurrent(self.fusion)
        self.question = self.question_reader()
        self.gates = nn.ModuleList(RegionGates(hidden, options.attention_width) for _ in passes)
        if options.attention_kind == "gru":
            self.reader = AttentionGRU(hidden, hidden, options.passes)
        if options.memory == "gru":
            self.memory_cell = nn.GRUCell(hidden, hidden)
        else:
            self.memories = nn.ModuleList(nn.Linear(3 * hidden, hidden) for _ in passes)
        self.head = self.head_of(2 * hidden)

    def encode_grid(self, grid: Grid) -> Tensor:
        order = snake(grid.height, grid.width, grid.cells.device)
        facts = super().encode_grid(grid).tanh()[:, order]
        fused, _ = self.fusion(widened(facts))
        forth, back = fused.chunk(2, 2)  # (B, R, 2H) -> (B, R, H) each
        return forth + back  # F in snake order

    def answer(
        self, picture: EncodedPicture, tokens: Tensor, lengths: Tensor, owner: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        facts, question = picture.features, self.read(tokens, lengths)
        soft = self.options.attention_kind == "soft"
        own = picture.of(owner) if soft else facts
        drives = () if soft else self.reader.drives(facts)
        memory, attention = question, []
        for t, gates in enumerate(self.gates):
            g = gates(facts, question, memory if t else None, owner)
            if soft:
                context = torch.bmm(g.to(facts.dtype).unsqueeze(1), own).squeeze(1)
            else:
                context = self.reader(drives[t], g, t, owner)
            if self.options.memory == "gru":
                memory = widened(self.memory_cell(context, memory))
            else:
                together = torch.cat((memory, context, question), 1)
                memory = widened(self.memories[t](together).relu())
            attention.append(g)
        logits = self.head(torch.cat((question, memory), 1))
        gaze = torch.stack(attention, 1)  # P tensors (N, R) -> (N, P, R)
        return logits, gaze[..., snake(picture.height, picture.width, gaze.device)]


class RegionGates(nn.Module):
    """The gates of one pass: how much each region matters, for question and memory."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(4 * hidden, width)
        self.score = nn.Parameter(torch.randn(width) / width**0.5)

    def forward(
        self, facts: Tensor, question: Tensor, memory: Tensor | None, owner: Tensor | None = None
    ) -> Tensor:
        """The gates (N, R) of facts (B, R, H); no memory (N, H) where it is the question (N, H)."""
        weight = self.inner.weight
        vectors = [question] if memory is None else [question, memory]
        if memory is None:
            # What sees q and what sees m added up, half the product: (G, 2, 2, H) -> (G, 2H).
            weight = weight.unflatten(1, (2, 2, -1)).sum(2).flatten(1)
        stacked = torch.stack(vectors).to(facts.dtype)
        scores = region_scores(facts, stacked, weight, self.inner.bias, self.score, owner)
        return widened(scores).softmax(1)


class AttentionGRU(nn.Module):
    """GRUs over regions whose update gate is an attention weight, one of each pass::

        r_i = sigmoid(Wr F_i + Ur h_{i-1} + br)
        h~_i = tanh(W F_i + r_i * (U h_{i-1}) + b)
        h_i = g_i h~_i + (1 - g_i) h_{i-1}              h_0 = 0, i = 1..R

    One number g_i a region, where a GRU has a vector that it computes itself: the last state h_R is
    what was read in the order of the regions, where a weighted sum would forget the order.

    References:
        Xiong, Merity and Socher 2016, section 3.3.
    """

    def __init__(self, inputs: int, hidden: int, passes: int) -> None:
        super().__init__()
        self.passes = passes
        # A pass after the other, and in each of them r before h~.
        self.facts = nn.Linear(inputs, passes * 2 * hidden)
        self.state = nn.Parameter(torch.empty(passes, 2 * hidden, hidden))
        with torch.no_grad():
            for block in self.facts.weight.split(hidden):
                nn.init.xavier_uniform_(block)
            for block in self.state.flatten(0, 1).split(hidden):
                nn.init.orthogonal_(block)
        nn.init.zeros_(self.facts.bias)

    def drives(self, facts: Tensor) -> tuple[Tensor, ...]:
        """What does not depend on h: for facts (B, R, F) the drive (R, B, 2H) of each pass."""
        return self.facts(facts.transpose(0, 1)).chunk(self.passes, 2)

    def forward(self, drive: Tensor, gates: Tensor, number: int, owner: Tensor | None) -> Tensor:
        """The context h_R (N, H) of pass ``number``, from its drive and the gates (N, R)."""
        if owner is not None:
            drive = drive.index_select(1, owner)  # (R, N, 2H)
        weight, gates = self.state[number], widened(gates)
        h = gates.new_zeros(len(gates), weight.shape[1])
        for fact, g in zip(drive.unbind(0), gates.t().unsqueeze(2).unbind(0), strict=True):
            (for_r, for_h), (r, u) = fact.chunk(2, 1), F.linear(h, weight).chunk(2, 1)
            r = (widened(for_r) + r).sigmoid()
            h = torch.lerp(h, (widened(for_h) + r * u).tanh(), g)
        return h


def positions(height: int, width: int, like: Tensor) -> Tensor:
    """Row and column (R, 2) of the centre of each region, the picture's edges being -1 and 1."""
    edges = (torch.arange(n, device=like.device, dtype=like.dtype) for n in (height, width))
    rows, columns = ((x * 2 + 1) / len(x) - 1 for x in edges)
    return torch.cartesian_prod(rows, columns)


def snake(height: int, width: int, device: torch.device) -> Tensor:
    """The regions (R,) of a grid in snake order: each is a neighbour of the one before.

    Reversing every second row twice changes nothing: the same index leads there and back.
    """
    order = torch.arange(height * width, device=device).view(height, width).clone()
    order[1::2] = order[1::2].flip(1)
    return order.flatten()


ANSWERERS: dict[str, type[AnswerModel]] = {
    "bow-mlp": BowMLP,
    "lstm-vqa": LSTMAnswerer,
    "attention-vqa": AttentionAnswerer,
    "dmn-plus": DMNPlus,
}


def build_answerer(architecture: str, **values: Any) -> AnswerModel:
    """An answerer with random weights: ``build`` with channels, vocabulary, answers and options."""
    answerer: AnswerModel = build(ANSWERERS, architecture, values)
    return answerer


def answerer_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``build_answerer`` from a model folder's, also an earlier version's."""
    return current_config(ANSWERERS, values)

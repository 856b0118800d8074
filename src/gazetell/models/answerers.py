"""The answerers by name, and the two that see the picture as one vector.

- ``bow-mlp``: a bag of words and the picture, through a multi-layer perceptron
- ``lstm-vqa``: stacked LSTMs over the words, merged with the picture
- ``dmn-plus``: dynamic memory network, several passes of attention over the grid

The image vector v is the grid's pooled one: the mean of its cells, or for a grid of one cell (VGG's
``classifier.3``, which is fc7) that cell. It is divided by its length (``normalise="l2"``): a raw
one drives every tanh behind it to its ends, and training sticks at answers from words alone.

Shapes: ``B`` pictures, ``N`` questions, ``C`` channels, ``T`` words, ``E`` embedding, ``H`` hidden,
``A`` answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from .answer_base import AnswererOptions, AnswerModel, Looked, of_owners, start_recurrent
from .dmn import DMNPlus
from .encoders import Grid
from .options import POSITIVE, current, make_options, option

__all__ = [
    "ANSWERERS",
    "AnswerModel",
    "AnswererOptions",
    "BowMLP",
    "LSTMAnswerer",
    "Looked",
    "answerer_config",
    "build_answerer",
]


@dataclass(frozen=True)
class OneVectorOptions(AnswererOptions):
    """What both have whose picture is one vector."""

    width: int = option(1024, "Width of the hidden layers.", POSITIVE)
    normalise: Literal["l2", "layer", "none"] = option(
        "l2", "The picture's vector: l2 (length 1), layer (mean 0, variance 1) or none."
    )


class _OneVector(AnswerModel):
    """An answerer that sees the picture as one vector, through one affine map ``self.image``."""

    Options: type[OneVectorOptions] = OneVectorOptions
    options: OneVectorOptions

    def __init__(self, options: OneVectorOptions, **sizes: int) -> None:
        super().__init__(options, **sizes)
        self.layer_norm = nn.LayerNorm(self.channels, elementwise_affine=False)
        self.image = nn.Linear(self.channels, options.width)
        if options.normalise == "l2":
            # The numbers of a vector of length 1 are that much smaller than those of unit variance.
            with torch.no_grad():
                self.image.weight *= self.channels**0.5

    def see(self, grid: Grid) -> Tensor:
        """``W_v v + b`` (B, width), see ``AnswerModel.see``."""
        vector = grid.pooled
        if self.options.normalise == "l2":
            vector = F.normalize(vector, dim=1)
        elif self.options.normalise == "layer":
            vector = self.layer_norm(vector)
        return self.image(self.grid_dropout(vector))


@dataclass(frozen=True)
class BowMLPOptions(OneVectorOptions):
    """Options of ``BowMLP``."""

    layers: int = option(3, "Hidden layers.", POSITIVE)
    pooling: Literal["sum", "mean"] = option("sum", "How the words are summed up: sum or mean.")


class BowMLP(_OneVector):
    """Bag of words and picture through a multi-layer perceptron::

        s = sum_t x_t                                       or their mean, pooling="mean"
        u_0 = dropout(W_s s + W_v v + b)                    a linear map of [s ; v]
        u_l = dropout(tanh(W_l u_{l-1} + b_l))              l = 1..layers
        p(answer) = softmax(W_o u_L + b_o)

    x_t are the words (E), v the normalised image vector (C), u_l hidden layers (width). ``W_v v``
    is computed once a picture. The hidden layers start with weights of Glorot's size for a tanh
    (gain 5/3); with smaller ones the signal fades from layer to layer, and the model answers the
    same to everything. Even so, learning rates of 3e-4 are safer than 1e-3.

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
        self, looked: Looked, tokens: Tensor, lengths: Tensor, owner: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """See ``AnswerModel.answer``."""
        lengths = lengths.to(tokens.device)
        real = torch.arange(tokens.shape[1], device=tokens.device) < lengths.unsqueeze(1)  # (N, T)
        words = self.word_dropout(self.embed(tokens)).masked_fill(~real.unsqueeze(2), 0)
        bag = words.sum(1)  # (N, T, E) -> (N, E)
        if self.options.pooling == "mean":
            bag = bag / lengths.unsqueeze(1)
        return self.head(self.hidden(self.words(bag) + of_owners(looked.seen, owner))), None


@dataclass(frozen=True)
class LSTMAnswererOptions(OneVectorOptions):
    """Options of ``LSTMAnswerer``."""

    width: int = option(1024, "Width of the merged layer.", POSITIVE)
    hidden: int = option(512, "Width of the recurrent state.", POSITIVE)
    layers: int = option(3, "LSTM layers.", POSITIVE)
    fusion: Literal["concat", "product"] = option(
        "concat", "How question and picture are merged: concat, or product (of tanh layers)."
    )


class LSTMAnswerer(_OneVector):
    """Stacked LSTMs over the words, merged with the picture::

        h_1 = LSTM_1(x)                         x the words (T, E)
        h_l = h_{l-1} + LSTM_l(h_{l-1})         l = 2..layers
        s = h_L at the last word
        u = tanh(W_s s + W_v v + b)             fusion="concat": a layer over [s ; v]
        u = tanh(W_s s + b) * tanh(W_v v + b')  fusion="product"
        p(answer) = softmax(W_o dropout(u) + b_o)

    v is the normalised image vector (C), u the merged layer (width). ``W_v v`` is computed once a
    picture. The questions are packed, so that no padding is read. What the originals have not:

    - A layer adds to what is below it. Three plain layers hardly train on small sets; with the
      sums, orthogonal recurrent weights and forget gates that begin open they do.
    - With ``concat`` a hidden layer stands between merging and answers. A linear map alone of
      [s ; v] would add up one opinion of the words and one of the picture, and could not say
      about which thing in the picture the words ask.
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
        self.head = nn.Sequential(
            nn.Dropout(options.dropout), nn.Linear(options.width, self.answers)
        )

    def see(self, grid: Grid) -> Tensor:
        """The picture's term or factor of u (B, width), see ``AnswerModel.see``."""
        image = super().see(grid)
        return image.tanh() if self.options.fusion == "product" else image

    def answer(
        self, looked: Looked, tokens: Tensor, lengths: Tensor, owner: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """See ``AnswerModel.answer``."""
        words = self.words(self.read(tokens, lengths))
        image = of_owners(looked.seen, owner)
        merged = (
            words.tanh() * image if self.options.fusion == "product" else (words + image).tanh()
        )
        return self.head(merged), None

    def read(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """S (N, H) of questions (N, T), at least float32."""
        words = self.word_dropout(self.embed(tokens))
        packed = pack_padded_sequence(words, lengths.cpu(), batch_first=True, enforce_sorted=False)
        top: Tensor | None = None
        for lstm in self.lstms:
            outputs, (last, _) = lstm(packed)
            last = last[0].to(torch.promote_types(last.dtype, torch.float32))  # (1, N, H) -> (N, H)
            if top is None:
                top, packed = last, outputs
            else:
                top = top + last
                packed = outputs._replace(data=packed.data + outputs.data)
        assert top is not None  # there is at least one layer
        return top


ANSWERERS: dict[str, type[AnswerModel]] = {
    "bow-mlp": BowMLP,
    "lstm-vqa": LSTMAnswerer,
    "dmn-plus": DMNPlus,
}


def build_answerer(
    architecture: str, *, channels: int, vocabulary: int, answers: int, **options: Any
) -> AnswerModel:
    """An answerer with random weights.

    Args:
        architecture: a key of ``ANSWERERS``.
        channels: C of the encoder's grid.
        vocabulary: V of the questions' words, special tokens included.
        answers: A, the size of the answer vocabulary.
        options: fields of the architecture's ``Options``; the others have their defaults.

    Raises:
        UsageError: an architecture or an option that does not exist, or a value out of bounds.
    """
    made = make_options(ANSWERERS, architecture, options)
    sizes = {"channels": channels, "vocabulary": vocabulary, "answers": answers}
    answerer = ANSWERERS[architecture](made, **sizes)  # type: ignore[arg-type]
    answerer.architecture = architecture
    return answerer


def answerer_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``build_answerer`` from a model folder's, also an earlier version's.

    Raises:
        ModelError: a field that this version does not know.
        UsageError: an architecture that does not exist.
    """
    return current(values, ANSWERERS, ("channels", "vocabulary", "answers"))

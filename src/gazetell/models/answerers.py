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

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from ..errors import UsageError
from .answer_base import AnswererConfig, AnswerModel, Looked, of_owners, start_recurrent
from .dmn import DMNPlus
from .encoders import Grid

__all__ = [
    "ANSWERERS",
    "AnswerModel",
    "AnswererConfig",
    "BowMLP",
    "LSTMAnswerer",
    "Looked",
    "build_answerer",
]


class _OneVector(AnswerModel):
    """An answerer that sees the picture as one vector, through one affine map ``self.image``."""

    def __init__(self, config: AnswererConfig) -> None:
        super().__init__(config)
        self.layer_norm = nn.LayerNorm(config.channels, elementwise_affine=False)
        self.image = nn.Linear(config.channels, config.width)
        if config.normalise == "l2":
            # The numbers of a vector of length 1 are that much smaller than those of unit variance.
            with torch.no_grad():
                self.image.weight *= config.channels**0.5

    def see(self, grid: Grid) -> Tensor:
        """``W_v v + b`` (B, width), see ``AnswerModel.see``."""
        vector = grid.pooled
        if self.config.normalise == "l2":
            vector = F.normalize(vector, dim=1)
        elif self.config.normalise == "layer":
            vector = self.layer_norm(vector)
        return self.image(self.grid_dropout(vector))


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

    Fields: embedding, layers, width, dropout, pooling, normalise.

    References:
        Zhou et al. 2015, Simple Baseline for Visual Question Answering; Antol et al. 2015, VQA:
        Visual Question Answering (MLP with bag of words); widths as in the Keras tutorials of
        2016 to 2018; Glorot and Bengio 2010.
    """

    def __init__(self, config: AnswererConfig) -> None:
        super().__init__(config)
        width = config.width
        self.words = nn.Linear(config.embedding, width, bias=False)
        blocks: list[nn.Module] = [nn.Dropout(config.dropout)]
        for _ in range(config.layers):
            layer = nn.Linear(width, width)
            nn.init.xavier_uniform_(layer.weight, nn.init.calculate_gain("tanh"))
            nn.init.zeros_(layer.bias)
            blocks += [layer, nn.Tanh(), nn.Dropout(config.dropout)]
        self.hidden = nn.Sequential(*blocks)
        self.head = nn.Linear(width, config.answers)

    def answer(
        self, looked: Looked, tokens: Tensor, lengths: Tensor, owner: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """See ``AnswerModel.answer``."""
        lengths = lengths.to(tokens.device)
        real = torch.arange(tokens.shape[1], device=tokens.device) < lengths.unsqueeze(1)  # (N, T)
        words = self.word_dropout(self.embed(tokens)).masked_fill(~real.unsqueeze(2), 0)
        bag = words.sum(1)  # (N, T, E) -> (N, E)
        if self.config.pooling == "mean":
            bag = bag / lengths.unsqueeze(1)
        return self.head(self.hidden(self.words(bag) + of_owners(looked.seen, owner))), None


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

    Fields: embedding, hidden, layers, width, dropout, fusion, normalise.

    References:
        Antol et al. 2015, VQA: Visual Question Answering (LSTM Q + I), and the Keras tutorials
        after it (``concat``); Lu et al. 2015, Deeper LSTM and normalized CNN Visual Question
        Answering model (``product``); He et al. 2016 (residuals).
    """

    def __init__(self, config: AnswererConfig) -> None:
        super().__init__(config)
        hidden = config.hidden
        widths = [config.embedding, *[hidden] * (config.layers - 1)]
        layers = [nn.LSTM(width, hidden, batch_first=True) for width in widths]
        for layer in layers:
            start_recurrent(layer)
        self.lstms = nn.ModuleList(layers)
        self.words = nn.Linear(hidden, config.width)
        self.head = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(config.width, config.answers)
        )

    def see(self, grid: Grid) -> Tensor:
        """The picture's term or factor of u (B, width), see ``AnswerModel.see``."""
        image = super().see(grid)
        return image.tanh() if self.config.fusion == "product" else image

    def answer(
        self, looked: Looked, tokens: Tensor, lengths: Tensor, owner: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """See ``AnswerModel.answer``."""
        words = self.words(self.read(tokens, lengths))
        image = of_owners(looked.seen, owner)
        merged = words.tanh() * image if self.config.fusion == "product" else (words + image).tanh()
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


def build_answerer(config: AnswererConfig) -> AnswerModel:
    """An answerer with random weights.

    Raises:
        UsageError: an architecture that does not exist.
    """
    if config.architecture not in ANSWERERS:
        raise UsageError(
            f"architecture {config.architecture!r} is unknown; expected one of "
            f"{', '.join(ANSWERERS)}"
        )
    return ANSWERERS[config.architecture](config)

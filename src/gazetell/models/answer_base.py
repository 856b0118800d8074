"""The contract of all answerers: a grid of regions and a question become scores of answers.

``look(grid) -> Looked``, once a picture; ``answer(looked, tokens, lengths, owner) -> (logits,
attention)``, for any number of questions about those pictures. A new architecture is a class with
``see`` and ``answer`` and an entry in ``answerers.ANSWERERS``.

Shapes: ``B`` pictures, ``N`` questions, ``R`` regions, ``C`` channels, ``T`` words, ``E``
embedding, ``H`` hidden, ``V`` vocabulary, ``A`` answers, ``P`` passes.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..data.text import Tokenizer
from ..errors import UsageError
from .config import Config
from .encoders import Grid

__all__ = ["CHOICES", "AnswerModel", "AnswererConfig", "Looked", "of_owners", "start_recurrent"]

# What these fields of a configuration may be.
CHOICES = {
    "fusion": ("concat", "product"),
    "pooling": ("sum", "mean"),
    "normalise": ("l2", "layer", "none"),
    "memory": ("relu", "gru"),
    "attention": ("gru", "soft"),
    "question": ("gru", "lstm"),
}


@dataclass(frozen=True)
class AnswererConfig(Config):
    """The size of an answerer. An architecture uses the fields that its docstring names.

    Attributes:
        architecture: a key of ``ANSWERERS``.
        channels: C of the encoder's grid.
        vocabulary: V of the questions' words, special tokens included.
        answers: A, the size of the answer vocabulary.
        embedding: E, width of the word embeddings.
        hidden: H, width of the recurrent state.
        layers: hidden layers of ``bow-mlp``; LSTM layers of ``lstm-vqa``.
        width: of the hidden layers of ``bow-mlp``, and of the merged layer of ``lstm-vqa``.
        dropout: probability, on hidden layers and on the input of the last one.
        grid_dropout: probability, on the numbers of the normalised picture.
        word_dropout: probability, on the numbers of the word embeddings.
        fusion: how ``lstm-vqa`` merges question and picture, ``concat`` or ``product``.
        pooling: how ``bow-mlp`` pools words, ``sum`` or ``mean``.
        normalise: the image vector, ``l2`` (length 1), ``layer`` (mean 0, variance 1) or ``none``.
        passes: P of ``dmn-plus`` over the regions.
        gate: width of the hidden layer behind the gates of ``dmn-plus``.
        memory: how ``dmn-plus`` renews its memory, ``relu`` or ``gru``.
        attention: how ``dmn-plus`` reads the regions by their gates, ``gru`` or ``soft``.
        question: what reads the question in ``dmn-plus``, ``gru`` or ``lstm``.
        positions: tell each region of ``dmn-plus`` where it lies.
        blind: see nothing: every picture is replaced by zeros (the question-only twin).
    """

    what = "answerer"

    architecture: str = "dmn-plus"
    channels: int = 400
    vocabulary: int = 1000
    answers: int = 1000
    embedding: int = 300
    hidden: int = 512
    layers: int = 3
    width: int = 1024
    dropout: float = 0.5
    grid_dropout: float = 0.0
    word_dropout: float = 0.0
    fusion: str = "concat"
    pooling: str = "sum"
    normalise: str = "l2"
    passes: int = 3
    gate: int = 512
    memory: str = "relu"
    attention: str = "gru"
    question: str = "gru"
    positions: bool = False
    blind: bool = False

    def __post_init__(self) -> None:
        sizes = ("channels", "vocabulary", "answers", "embedding", "hidden", "layers", "width")
        for name in (*sizes, "passes", "gate"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)}: expected a positive number")
        for name in ("dropout", "grid_dropout", "word_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)}: expected 0 up to below 1")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"{name} {getattr(self, name)!r}: expected one of {', '.join(choices)}"
                )


class Looked(NamedTuple):
    """What an answerer keeps of B pictures, for any number of questions about them.

    ``seen`` (B, ...) is the architecture's own, a row a picture; ``height`` and ``width`` are the
    grid's.
    """

    seen: Tensor
    height: int
    width: int


class AnswerModel(nn.Module, ABC):
    """Base of the answerers: word embeddings, and the picture that a blind model does not see."""

    def __init__(self, config: AnswererConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocabulary, config.embedding, padding_idx=Tokenizer.pad)
        self.word_dropout = nn.Dropout(config.word_dropout)
        self.grid_dropout = nn.Dropout(config.grid_dropout)

    def look(self, grid: Grid) -> Looked:
        """The picture's part, which does not depend on the question."""
        if self.config.blind:
            cells, pooled = torch.zeros_like(grid.cells), torch.zeros_like(grid.pooled)
            grid = grid._replace(cells=cells, pooled=pooled)
        return Looked(self.see(grid), grid.height, grid.width)

    @abstractmethod
    def see(self, grid: Grid) -> Tensor:
        """``Looked.seen`` (B, ...) of a grid that may be seen."""

    @abstractmethod
    def answer(
        self, looked: Looked, tokens: Tensor, lengths: Tensor, owner: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Scores of the answers.

        Args:
            looked: B pictures, from ``look``.
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
        """``answer`` of ``look``."""
        return self.answer(self.look(grid), tokens, lengths, owner)


def of_owners(pictures: Tensor, owner: Tensor | None) -> Tensor:
    """What belongs to pictures (B, ...), for each question (N, ...)."""
    return pictures if owner is None else pictures.index_select(0, owner)


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

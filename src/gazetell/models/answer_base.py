"""The contract of all answerers: a grid of regions and a question become scores of answers.

``look(grid) -> Looked``, once a picture; ``answer(looked, tokens, lengths, owner) -> (logits,
attention)``, for any number of questions about those pictures. A new architecture is a class with
``see`` and ``answer`` and an entry in ``answerers.ANSWERERS``.

Shapes: ``B`` pictures, ``N`` questions, ``R`` regions, ``C`` channels, ``T`` words, ``E``
embedding, ``H`` hidden, ``V`` vocabulary, ``A`` answers, ``P`` passes.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..data.text import Tokenizer
from .encoders import Grid
from .options import POSITIVE, SHARE, Options, check_sizes, option

__all__ = ["AnswerModel", "AnswererOptions", "Looked", "of_owners", "start_recurrent"]


@dataclass(frozen=True)
class AnswererOptions(Options):
    """What every answerer can be told."""

    embedding: int = option(256, "Width of the word embeddings.", POSITIVE)
    dropout: float = option(0.4, "Dropout on hidden layers and before the output.", SHARE)
    grid_dropout: float = option(0.0, "Dropout on the numbers of the normalised picture.", SHARE)
    word_dropout: float = option(0.0, "Dropout on the word embeddings.", SHARE)
    blind: bool = option(
        False, "Hide the picture, which is replaced by zeros: the question-only twin."
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
    """Base of the answerers: word embeddings, and the picture that a blind model does not see.

    Args:
        options: of the architecture, an ``Options`` of the class.
        channels: C of the encoder's grid.
        vocabulary: V of the questions' words, special tokens included.
        answers: A, the size of the answer vocabulary.
    """

    architecture: str  # set by who builds it
    Options: type[AnswererOptions] = AnswererOptions

    def __init__(
        self, options: AnswererOptions, *, channels: int, vocabulary: int, answers: int
    ) -> None:
        super().__init__()
        check_sizes(channels=channels, vocabulary=vocabulary, answers=answers)
        self.options, self.channels = options, channels
        self.vocabulary, self.answers = vocabulary, answers
        self.embed = nn.Embedding(vocabulary, options.embedding, padding_idx=Tokenizer.pad)
        self.word_dropout = nn.Dropout(options.word_dropout)
        self.grid_dropout = nn.Dropout(options.grid_dropout)

    @property
    def config(self) -> dict[str, Any]:
        """All that ``build_answerer`` needs to build it again: architecture, sizes, options."""
        sizes = {name: getattr(self, name) for name in ("channels", "vocabulary", "answers")}
        return {"architecture": self.architecture, **sizes, **asdict(self.options)}

    def look(self, grid: Grid) -> Looked:
        """The picture's part, which does not depend on the question."""
        if self.options.blind:
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

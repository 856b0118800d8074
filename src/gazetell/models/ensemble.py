"""Several captioners that tell one caption together, by the mean of their probabilities.

::

    p(w | ...) = 1/M sum_m p_m(w | ...)

All look at the same grid, each through its own encoder's projection, and share one vocabulary. The
gaze is the mean of those members that have attention.

Shapes: ``B`` pictures, ``N`` rows, ``R`` regions, ``V`` vocabulary, ``M`` members.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .base import CaptionModel, State
from .encoders import Encoder, Grid

__all__ = ["Ensemble", "States"]


@dataclass(frozen=True)
class States:
    """The members' states, moved together."""

    members: tuple[State, ...]

    def select(self, rows: Tensor) -> "States":
        """See ``State.select``."""
        return States(tuple(state.select(rows) for state in self.members))

    def reorder(self, rows: Tensor) -> "States":
        """See ``State.reorder``."""
        return States(tuple(state.reorder(rows) for state in self.members))


class Ensemble(nn.Module):
    """Captioners as one ``Decoder``; a single one is as good as itself.

    Args:
        members: each captioner and the encoder whose projection it was trained with.
    """

    def __init__(self, members: Sequence[tuple[Encoder, CaptionModel]]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoder for encoder, _ in members)
        self.captioners = nn.ModuleList(captioner for _, captioner in members)

    def start(self, grid: Grid) -> States:
        """The members' states before the first word, for the grid (B, R, C) of the CNN alone."""
        return States(
            tuple(
                captioner.start(encoder.project_grid(grid))  # type: ignore[operator]
                for encoder, captioner in zip(self.encoders, self.captioners, strict=True)
            )
        )

    def step(self, tokens: Tensor, state: States) -> tuple[Tensor, States, Tensor | None]:
        """Read a word (N,), give log-probabilities (N, V), states and attention (N, R)."""
        logits, states, gazes = [], [], []
        for captioner, own in zip(self.captioners, state.members, strict=True):
            scores, own, gaze = captioner.step(tokens, own)  # type: ignore[operator]
            logits.append(scores)
            states.append(own)
            if gaze is not None:
                gazes.append(gaze)
        attention = torch.stack(gazes).mean(0) if gazes else None
        if len(logits) == 1:
            return logits[0], States(tuple(states)), attention
        each = torch.stack([x.float().log_softmax(1) for x in logits])  # (M, N, V)
        return each.logsumexp(0) - math.log(len(logits)), States(tuple(states)), attention

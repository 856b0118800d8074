"""The pointing score: how often a gaze peaks inside the box of what it is about.

References:
    Zhang et al. 2016, Top-down Neural Attention by Excitation Backprop (the pointing game).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.records import Box

__all__ = ["Pointing", "pointing"]


@dataclass(frozen=True)
class Pointing:
    """How often a gaze peaks inside a box of what it is about.

    Attributes:
        score: share of the gazes whose attention is largest at a cell with its centre in one of
            their boxes.
        chance: the same for a gaze that peaks at a cell drawn at random.
        words: how many gazes were counted: those with a box.
    """

    score: float
    chance: float
    words: int


def pointing(gazes: Iterable[tuple[np.ndarray, Sequence[Box]]]) -> Pointing | None:
    """The pointing score of some gazes (height, width) and their boxes; None if none has a box."""
    hits, chances = [], []
    for gaze, boxes in gazes:
        if not boxes:
            continue
        height, width = gaze.shape
        y = (np.arange(height)[:, None] + 0.5) / height
        x = (np.arange(width)[None, :] + 0.5) / width
        inside = np.zeros(gaze.shape, bool)
        for box in boxes:
            inside |= (box.x0 <= x) & (x <= box.x1) & (box.y0 <= y) & (y <= box.y1)
        hits.append(bool(inside.flat[int(gaze.argmax())]))
        chances.append(float(inside.mean()))
    if not hits:
        return None
    return Pointing(float(np.mean(hits)), float(np.mean(chances)), len(hits))

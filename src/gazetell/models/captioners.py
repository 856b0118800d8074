"""The captioners by name.

- ``rnn``: vanilla RNN on the pooled picture
- ``lstm``: LSTM on the pooled picture
- ``attention-lstm``: LSTM with dot-product attention over the grid
- ``show-attend-tell``: LSTM with additive attention, gated context, deep output
- ``dual-attention``: the same with a second attention, over the word's embedding
"""

from collections.abc import Mapping
from typing import Any

from .attention_lstm import AttentionLSTM
from .base import CaptionerOptions, CaptionModel, State
from .options import current, make_options
from .recurrent import LSTMCaptioner, RNNCaptioner
from .show_attend_tell import DualAttention, ShowAttendTell

__all__ = [
    "CAPTIONERS",
    "CaptionModel",
    "CaptionerOptions",
    "State",
    "build_captioner",
    "captioner_config",
]

CAPTIONERS: dict[str, type[CaptionModel]] = {
    "rnn": RNNCaptioner,
    "lstm": LSTMCaptioner,
    "attention-lstm": AttentionLSTM,
    "show-attend-tell": ShowAttendTell,
    "dual-attention": DualAttention,
}


def build_captioner(
    architecture: str, *, channels: int, vocabulary: int, **options: Any
) -> CaptionModel:
    """A captioner with random weights.

    Args:
        architecture: a key of ``CAPTIONERS``.
        channels: C of the encoder's grid.
        vocabulary: V, special tokens included.
        options: fields of the architecture's ``Options``; the others have their defaults.

    Raises:
        UsageError: an architecture or an option that does not exist, or a value out of bounds.
    """
    made = make_options(CAPTIONERS, architecture, options)
    sizes = {"channels": channels, "vocabulary": vocabulary}
    captioner = CAPTIONERS[architecture](made, **sizes)  # type: ignore[arg-type]
    captioner.architecture = architecture
    return captioner


def captioner_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``build_captioner`` from a model folder's, also an earlier version's.

    Raises:
        ModelError: a field that this version does not know.
        UsageError: an architecture that does not exist.
    """
    return current(values, CAPTIONERS, ("channels", "vocabulary"))

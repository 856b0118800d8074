"""The captioners by name.

- ``rnn``: vanilla RNN on the pooled picture
- ``lstm``: LSTM on the pooled picture
- ``attention-lstm``: LSTM with dot-product attention over the grid
- ``show-attend-tell``: LSTM with additive attention, gated context, deep output
- ``dual-attention``: the same with a second attention, over the word's embedding
"""

from ..errors import UsageError
from .attention_lstm import AttentionLSTM
from .base import CaptionerConfig, CaptionModel, State
from .recurrent import LSTMCaptioner, RNNCaptioner
from .show_attend_tell import DualAttention, ShowAttendTell

__all__ = ["CAPTIONERS", "CaptionModel", "CaptionerConfig", "State", "build_captioner"]

CAPTIONERS: dict[str, type[CaptionModel]] = {
    "rnn": RNNCaptioner,
    "lstm": LSTMCaptioner,
    "attention-lstm": AttentionLSTM,
    "show-attend-tell": ShowAttendTell,
    "dual-attention": DualAttention,
}


def build_captioner(config: CaptionerConfig) -> CaptionModel:
    """A captioner with random weights.

    Raises:
        UsageError: an architecture that does not exist.
    """
    if config.architecture not in CAPTIONERS:
        raise UsageError(
            f"architecture {config.architecture!r} is unknown; expected one of "
            f"{', '.join(CAPTIONERS)}"
        )
    return CAPTIONERS[config.architecture](config)

"""An exponential moving average of the weights, by Lightning's callback.

The average is what is validated, what ``best.ckpt`` and the model folder hold; training goes on
with the weights themselves, and a resumed run has both.

References:
    Polyak and Juditsky 1992, Acceleration of Stochastic Approximation by Averaging.
"""

from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

__all__ = ["EMA", "decay_at"]

EVERY = 4  # steps; more seldom than each, at the same decay a step, costs next to nothing


class EMA(WeightAveraging):
    """Averages with the given decay a step.

    Args:
        decay: of the average, a step.
    """

    def __init__(self, decay: float) -> None:
        def average(mean: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
            if not mean.is_floating_point():
                return current
            return mean.lerp(current, 1 - decay_at(int(updates), decay))

        super().__init__(avg_fn=average)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Every few steps, and after the first: before it the average is the random start."""
        return step_idx is not None and (step_idx == 0 or (step_idx + 1) % EVERY == 0)


def decay_at(updates: int, decay: float) -> float:
    """The decay of an update: smaller at first, that the random start is soon forgotten."""
    return min(decay**EVERY, (1 + updates) / (10 + updates))

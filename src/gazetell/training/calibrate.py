"""Temperature scaling: a confidence that means what it says.

One number T, fitted after training on the validation split, divides the logits. With p(T) the
probability of the model's first answer and a in [0, 1] the accuracy of that answer, T minimises::

    - mean of  a log p(T) + (1 - a) log (1 - p(T))

Guo et al. minimise the likelihood of the right class. Here the right answer is often outside the
vocabulary, which their measure cannot see, and ten people may differ; so it is the first answer's
being right that is made likely.

References:
    Guo et al. 2017, On Calibration of Modern Neural Networks.
"""

import numpy as np
import torch
from torch import Tensor

__all__ = ["fit_temperature"]

LOW, HIGH = 0.05, 20.0


def fit_temperature(logits: Tensor, accuracy: np.ndarray, *, sigmoid: bool = False) -> float:
    """The temperature of a model, in 0.05 to 20.

    Args:
        logits: (N, A) of validation questions.
        accuracy: (N,) in [0, 1], of each question's likeliest answer.
        sigmoid: answers are independent (``soft`` targets) instead of a softmax.

    Returns:
        T, or 1.0 where there are no questions, or all or none are answered right.
    """
    from scipy.optimize import minimize_scalar

    if not len(logits):
        return 1.0
    wide = logits.double()
    right = torch.from_numpy(np.asarray(accuracy, dtype=np.float64))

    def loss(log_temperature: float) -> float:
        scaled = wide / float(np.exp(log_temperature))
        shares = scaled.sigmoid() if sigmoid else scaled.softmax(1)
        first = shares.amax(1).clamp(1e-12, 1 - 1e-12)
        return float(-(right * first.log() + (1 - right) * (1 - first).log()).mean())

    if right.min() == right.max() and float(right.min()) in (0.0, 1.0):
        return 1.0  # the minimum is at T = 0, or infinite
    found = minimize_scalar(loss, bounds=(np.log(LOW), np.log(HIGH)), method="bounded")
    return float(np.exp(found.x))

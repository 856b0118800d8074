"""The recurrent cells as plain equations, the one place where they are written out.

Gates stand side by side in torch's order: input, forget, cell, output. The captioners with
attention, and every captioner when it decodes, run these; ``rnn`` and ``lstm`` train with torch's
fused modules, which a test holds to these equations.

Shapes: ``B`` batch, ``H`` hidden.
"""

import torch
from torch import Tensor

__all__ = ["lstm_update", "rnn_update"]


def rnn_update(drive: Tensor) -> Tensor:
    """Elman's recurrence ``h_t = tanh(W_x x_t + W_h h_{t-1} + b)``.

    Args:
        drive: (B, H), the affine sum in the brackets.

    Returns:
        The new hidden state (B, H), at least float32.

    References:
        Elman 1990, Finding Structure in Time.
    """
    return drive.to(torch.promote_types(drive.dtype, torch.float32)).tanh()


def lstm_update(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the LSTM::

        i, f, g, o = W_x x_t + W_h h_{t-1} + b       the given gates
        c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
        h_t = sigmoid(o) * tanh(c_t)

    Args:
        gates: (B, 4H), i, f, g and o side by side, before their nonlinearities.
        cell: c_{t-1} (B, H).

    Returns:
        h_t and c_t (B, H), in the cell's format.

    References:
        Hochreiter and Schmidhuber 1997, Long Short-Term Memory; Gers et al. 2000 (forget gate).
    """
    i, f, g, o = gates.to(cell.dtype).chunk(4, 1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell

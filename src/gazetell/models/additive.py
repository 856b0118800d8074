"""Additive attention over regions, with its gradients gathered over the whole sequence.

::

    e_i = v . tanh(k_i + q)      alpha = softmax(e)      z = sum_i alpha_i a_i

Plain autograd keeps three tensors (N, R, A) a step and adds a gradient of the keys at every step.
Here a step keeps one, the tanh, and the gradient of the keys is summed in one place: with
``t = tanh(k + q)`` and the gradient ``d`` of the scores::

    dv = sum_i d_i t_i      dq = v * sum_i d_i (1 - t_i^2)      dk_i = v * sum_steps d_i (1 - t_i^2)

Shapes: ``N`` rows, ``n <= N`` rows active at a step, ``R`` regions, ``A`` width of the attention,
``C`` channels.

References:
    Bahdanau et al. 2015, Neural Machine Translation by Jointly Learning to Align and Translate.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .base import stack_steps

__all__ = ["DeferredAdditive", "look_additive"]


def look_additive(
    query: Tensor, keys: Tensor, values: Tensor, score: Tensor
) -> tuple[Tensor, Tensor]:
    """Where to look, and what is seen there.

    Args:
        query: (n, A).
        keys: (n, R, A).
        values: (n, R, C).
        score: v (A,).

    Returns:
        What was looked at (n, C), in the values' format, and the attention (n, R), at least
        float32.
    """
    return _forward(query, keys, values, score)[1:]


def _forward(
    query: Tensor, keys: Tensor, values: Tensor, score: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    bent = (keys + query.to(keys.dtype).unsqueeze(1)).tanh_()  # (n, R, A)
    scores = bent @ score.to(keys.dtype)  # (n, R)
    attention = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(1)
    looked = torch.bmm(attention.to(values.dtype).unsqueeze(1), values).squeeze(1)  # (n, C)
    return bent, looked, attention


class DeferredAdditive:
    """``look_additive`` for a sequence, over the first n rows of keys (N, R, A) at each step."""

    def __init__(self, keys: Tensor, values: Tensor, score: Tensor) -> None:
        self._tape: list[tuple[Tensor, Tensor]] = []
        self._slopes: list[Tensor] = []
        self._memory = keys.detach(), values.detach()
        self._score = score
        self._token = _Begin.apply(keys, values, score.detach(), self._tape, self._slopes)

    def look(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """See ``look_additive``; query (n, A)."""
        return _Look.apply(query, self._score, self._token, *self._memory, self._tape, self._slopes)


class _Begin(torch.autograd.Function):
    """The start of the tape: autograd comes here when every step has been gone through."""

    @staticmethod
    def forward(
        ctx: Any, keys: Tensor, values: Tensor, score: Tensor, tape: list[Any], slopes: list[Any]
    ) -> Tensor:
        ctx.tape, ctx.slopes, ctx.shape = tape, slopes, values.shape
        ctx.save_for_backward(score)
        return keys.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        (score,) = ctx.saved_tensors
        dkeys = ctx.slopes[0] * score.to(ctx.slopes[0].dtype)
        ctx.slopes.clear()
        dvalues = None
        if ctx.needs_input_grad[1]:
            batch = ctx.shape[0]
            # T tensors (n_t, D) -> (N, T, D), zero where a row was no longer active.
            attention, looked = (stack_steps(x, batch) for x in zip(*ctx.tape, strict=True))
            dvalues = torch.bmm(attention.transpose(1, 2), looked)  # (N, R, T) x (N, T, C)
        ctx.tape.clear()
        return dkeys, dvalues, None, None, None


class _Look(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        score: Tensor,
        token: Tensor,
        keys: Tensor,
        values: Tensor,
        tape: list[Any],
        slopes: list[Any],
    ) -> tuple[Tensor, Tensor]:
        n = query.shape[0]
        bent, looked, attention = _forward(query, keys[:n], values[:n], score)
        ctx.save_for_backward(bent, attention, values, score)
        ctx.tape, ctx.slopes, ctx.rows, ctx.dtype = tape, slopes, keys.shape[0], query.dtype
        return looked, attention

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dlooked: Tensor, dattention: Tensor) -> tuple[Any, ...]:
        bent, attention, values, score = ctx.saved_tensors
        n, regions, width = bent.shape
        dlooked = dlooked.to(values.dtype)
        slope = torch.bmm(values[:n], dlooked.unsqueeze(2)).squeeze(2)  # (n, R)
        slope = slope.to(attention.dtype) + dattention
        dscores = attention * (slope - (attention * slope).sum(1, keepdim=True))
        dscores = dscores.to(bent.dtype)
        dscore = dscores.reshape(1, -1) @ bent.reshape(-1, width)  # (1, A)
        bend = torch.addcmul(bent.new_ones(()), bent, bent, value=-1)  # 1 - tanh^2 in one pass
        dquery = torch.bmm(dscores.unsqueeze(1), bend).squeeze(1) * score.to(bent.dtype)
        if not ctx.slopes:
            ctx.slopes.append(bent.new_zeros((ctx.rows, regions, width)))
        ctx.slopes[0][:n].addcmul_(bend, dscores.unsqueeze(2))
        ctx.tape.append((attention.to(values.dtype), dlooked))
        return (
            dquery.to(ctx.dtype),
            dscore.squeeze(0).to(score.dtype),
            bent.new_zeros(()),
            *(None,) * 4,
        )

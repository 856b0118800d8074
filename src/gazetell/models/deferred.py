"""Gradients of what all time steps share, in one product for the whole sequence.

In a loop over time, plain autograd makes a gradient of the keys (N, R, H) and of the recurrent
weights at every step and adds them up; those sums, not the forward products, take most of a
training step. Here each step's backward pass only notes its factors on a tape, and when the last
step is done one product gives the whole gradient::

    dK_i = sum_t  ds_ti h_t + a_ti dz_t          keys: two batched products over t
    dW   = sum_t  dy_t^T x_t                     weights: one product over n and t

Each step takes a token that the tape's ``begin`` made: autograd visits ``begin`` after all steps.
A graph that is kept for a second backward pass must be asked for the shared tensors (keys, weight)
in the first one, too: else the first pass's notes stay on the tape.

Shapes: ``N`` rows, ``n <= N`` rows active at a step, ``R`` regions, ``H`` hidden, ``T`` steps.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .base import stack_steps

__all__ = ["DeferredKeys", "DeferredWeight", "look"]


def look(hidden: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention of one query: hidden (n, H) over keys (n, R, H).

    Returns:
        What was looked at (n, H), in the keys' format, and the attention (n, R), at least float32.
    """
    scores = torch.bmm(keys, hidden.to(keys.dtype).unsqueeze(2)).squeeze(2)  # (n, R)
    wide = torch.promote_types(keys.dtype, torch.float32)
    attention = (scores.to(wide) / math.sqrt(hidden.shape[1])).softmax(1)
    looked = torch.bmm(attention.to(keys.dtype).unsqueeze(1), keys).squeeze(1)  # (n, H)
    return looked, attention


class DeferredKeys:
    """``look`` for a sequence, over the first n rows of keys (N, R, H) at each step."""

    def __init__(self, keys: Tensor) -> None:
        self._tape: list[tuple[Tensor, ...]] = []
        self._keys = keys.detach()
        self._token = _BeginKeys.apply(keys, self._tape)

    def look(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See ``look``; hidden (n, H)."""
        return _Look.apply(hidden, self._keys, self._token, self._tape)


class DeferredWeight:
    """``x @ weight.T`` for a sequence, x (n, I) at each step, weight (O, I)."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self._tape: list[tuple[Tensor, ...]] = []
        self._weight = weight.detach().to(dtype)
        self._token = _BeginWeight.apply(weight, self._tape)

    def __call__(self, x: Tensor) -> Tensor:
        """The product (n, O), in the chosen format."""
        return _Multiply.apply(x.to(self._weight.dtype), self._weight, self._token, self._tape)


class _BeginKeys(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keys: Tensor, tape: list[tuple[Tensor, ...]]) -> Tensor:
        ctx.tape, ctx.shape = tape, keys.shape
        return keys.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        batch = ctx.shape[0]
        # T tensors (n_t, D) -> (N, T, D), zero where a row was no longer active.
        hidden, attention, looked, scores = (
            stack_steps(column, batch) for column in zip(*ctx.tape, strict=True)
        )
        ctx.tape.clear()
        grad = torch.bmm(scores.transpose(1, 2), hidden)  # (N, R, T) x (N, T, H)
        return grad.baddbmm_(attention.transpose(1, 2), looked), None


class _Look(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, keys: Tensor, token: Tensor, tape: list[tuple[Tensor, ...]]
    ) -> tuple[Tensor, Tensor]:
        looked, attention = look(hidden, keys[: hidden.shape[0]])
        ctx.save_for_backward(hidden, attention, keys)
        ctx.tape = tape
        return looked, attention

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dlooked: Tensor, dattention: Tensor) -> tuple[Any, ...]:
        hidden, attention, keys = ctx.saved_tensors
        keys = keys[: hidden.shape[0]]
        narrow = dlooked.to(keys.dtype)
        slope = torch.bmm(keys, narrow.unsqueeze(2)).squeeze(2).to(attention.dtype) + dattention
        # Through the softmax and the scale.
        scores = attention * (slope - (attention * slope).sum(1, keepdim=True))
        scores = (scores / math.sqrt(hidden.shape[1])).to(keys.dtype)  # (n, R)
        dhidden = torch.bmm(scores.unsqueeze(1), keys).squeeze(1)
        ctx.tape.append((hidden.to(keys.dtype), attention.to(keys.dtype), narrow, scores))
        return dhidden.to(hidden.dtype), None, keys.new_zeros(()), None


class _BeginWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, tape: list[tuple[Tensor, ...]]) -> Tensor:
        ctx.tape, ctx.dtype = tape, weight.dtype
        return weight.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        inputs, slopes = (torch.cat(column) for column in zip(*ctx.tape, strict=True))
        ctx.tape.clear()
        return (slopes.t() @ inputs).to(ctx.dtype), None  # (O, n) x (n, I)


class _Multiply(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, token: Tensor, tape: list[tuple[Tensor, ...]]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.tape = tape
        ctx.token_dtype = token.dtype
        return x @ weight.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        ctx.tape.append((x, dy.to(x.dtype)))
        return dy.to(x.dtype) @ weight, None, dy.new_zeros((), dtype=ctx.token_dtype), None

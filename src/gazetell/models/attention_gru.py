"""The attention GRU: a GRU over regions whose update gate is an attention weight.

::

    r_i = sigmoid(Wr F_i + Ur h_{i-1} + br)
    h~_i = tanh(W F_i + r_i * (U h_{i-1}) + b)
    h_i = g_i h~_i + (1 - g_i) h_{i-1}              h_0 = 0, i = 1..R

One number g_i a region, where a GRU has a vector that it computes itself: the last state h_R is
what was read in the order of the regions, where a weighted sum would forget the order.

``Wr F + br`` and ``W F + b`` do not depend on h: they come from one product for all regions and
passes, once a picture. ``Ur h`` and ``U h`` stay in the loop, with seven calls a region that write
into memory set aside before. Backwards the loop notes the gradients ``dr`` and ``du`` of the two
sums, and the weights get theirs from one product each for the whole sequence::

    dUr = sum_i dr_i^T h_{i-1}      dU = sum_i du_i^T h_{i-1}

What the loop reads and writes lies region by region, (R, N, H), so that a step is one piece of
memory. The state is float32 also where products are in bfloat16.

Shapes: ``B`` pictures, ``N`` questions, ``R`` regions, ``F`` width of a fact, ``H`` hidden, ``P``
passes.

References:
    Xiong, Merity and Socher 2016, Dynamic Memory Networks for Visual and Textual Question
    Answering, section 3.3.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["AttentionGRU", "attention_gru"]


class AttentionGRU(nn.Module):
    """The attention GRUs of P passes, with weights of their own.

    Args:
        inputs: F.
        hidden: H.
        passes: P.
    """

    def __init__(self, inputs: int, hidden: int, passes: int) -> None:
        super().__init__()
        self.passes = passes
        # A pass after the other, and in each of them r before h~.
        self.facts = nn.Linear(inputs, passes * 2 * hidden)
        self.state = nn.Parameter(torch.empty(passes, 2 * hidden, hidden))
        with torch.no_grad():
            for block in self.facts.weight.split(hidden):
                nn.init.xavier_uniform_(block)
            for block in self.state.flatten(0, 1).split(hidden):
                nn.init.orthogonal_(block)
        nn.init.zeros_(self.facts.bias)

    def drives(self, facts: Tensor) -> tuple[Tensor, ...]:
        """What does not depend on h: for facts (B, R, F) the drive (R, B, 2H) of each pass."""
        return self.facts(facts.transpose(0, 1)).chunk(self.passes, 2)

    def forward(self, drive: Tensor, gates: Tensor, number: int, owner: Tensor | None) -> Tensor:
        """The context (N, H) of pass ``number`` (0 is the first); see ``attention_gru``."""
        return attention_gru(drive, gates, self.state[number], owner)


def attention_gru(
    drive: Tensor, gates: Tensor, weight: Tensor, owner: Tensor | None = None
) -> Tensor:
    """The last state of the recurrence at the top of this module.

    Args:
        drive: (R, B, 2H), ``Wr F_i + br`` and ``W F_i + b`` side by side; its format is that of
            the products.
        gates: (N, R).
        weight: (2H, H), ``Ur`` above ``U``.
        owner: (N,) which of the B pictures each row of gates is about; None: row i is about
            picture i, and N = B.

    Returns:
        h_R (N, H), at least float32.
    """
    wide = torch.promote_types(drive.dtype, torch.float32)
    ordered = gates.t().to(wide).contiguous()  # (N, R) -> (R, N)
    last: Tensor = _Scan.apply(drive, ordered, weight, owner, torch.is_grad_enabled())
    return last


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, drive: Tensor, gates: Tensor, weight: Tensor, owner: Tensor | None, keep: bool
    ) -> Tensor:
        (regions, n), hidden, wide = gates.shape, weight.shape[1], gates.dtype
        narrow = weight.to(drive.dtype)
        to_r, to_u = (block.t() for block in narrow.chunk(2))  # (H, H) each
        # For the backward pass every step is kept; else all steps write to the same place.
        kept = regions if keep else 1
        states = gates.new_zeros((kept + 1 if keep else 1, n, hidden))
        r, u, bent = (gates.new_empty((kept, n, hidden)) for _ in range(3))
        rows = drive.new_empty((n, 2 * hidden))
        h = states.unbind(0) if keep else states.unbind(0) * (regions + 1)
        steps = [x.unbind(0) if keep else x.unbind(0) * regions for x in (r, u, bent)]
        pairs = zip(drive.unbind(0), gates.unsqueeze(2).unbind(0), *steps, strict=True)
        for i, (fact, g, r_i, u_i, bent_i) in enumerate(pairs):
            both = fact if owner is None else torch.index_select(fact, 0, owner, out=rows)
            for_r, for_h = both.to(wide).chunk(2, 1)
            _add_product(r_i.copy_(for_r), h[i], to_r).sigmoid_()
            _product(h[i], to_u, u_i)
            torch.addcmul(for_h, r_i, u_i, out=bent_i).tanh_()
            torch.lerp(h[i], bent_i, g, out=h[i + 1])
        if keep:
            ctx.save_for_backward(gates, weight, owner, states, r, u, bent)
            ctx.shape, ctx.dtype = drive.shape, drive.dtype
        return h[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dlast: Tensor) -> tuple[Tensor | None, ...]:
        gates, weight, owner, states, r, u, bent = ctx.saved_tensors
        to_r, to_u = weight.to(ctx.dtype).chunk(2)
        dr, du, dbent = (torch.empty_like(r) for _ in range(3))
        dgates = torch.empty_like(gates)
        dh = dlast.to(gates.dtype).clone(memory_format=torch.contiguous_format)
        spare, share = torch.empty_like(dh), torch.empty_like(dh)
        sequences = (gates.unsqueeze(2), states[:-1], r, u, bent, dr, du, dbent, dgates)
        steps = zip(*(x.unbind(0) for x in sequences), strict=True)
        for g, h, r_i, u_i, bent_i, dr_i, du_i, dbent_i, dg_i in reversed(list(steps)):
            torch.sum(torch.sub(bent_i, h, out=spare).mul_(dh), 1, out=dg_i)
            torch.mul(dh, g, out=share)  # what goes to h~
            # dbent and dr are the gradients of the sums, before tanh and sigmoid.
            torch.addcmul(share, torch.mul(share, bent_i, out=spare), bent_i, value=-1, out=dbent_i)
            torch.mul(dbent_i, r_i, out=du_i)
            torch.mul(dbent_i, u_i, out=spare).mul_(r_i)
            torch.addcmul(spare, spare, r_i, value=-1, out=dr_i)
            _add_product(_add_product(dh.sub_(share), dr_i, to_r), du_i, to_u)
        before = states[:-1].flatten(0, 1).to(ctx.dtype)  # (R, N, H) -> (R N, H)
        dweight = torch.cat([x.flatten(0, 1).to(ctx.dtype).t() @ before for x in (dr, du)])
        if owner is None:
            ddrive = torch.cat((dr, dbent), 2)
        else:
            ddrive = gates.new_zeros(ctx.shape)
            for half, x in zip(ddrive.chunk(2, 2), (dr, dbent), strict=True):
                half.index_add_(1, owner, x)
        return ddrive.to(ctx.dtype), dgates, dweight.to(weight.dtype), None, None


def _product(x: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """``x @ weight`` in the weight's format, into ``out``, which has x's."""
    if x.dtype == weight.dtype:
        return torch.mm(x, weight, out=out)
    return out.copy_(x.to(weight.dtype) @ weight)


def _add_product(total: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """``total + x @ weight`` in place, the product in the weight's format."""
    if x.dtype == weight.dtype:
        return total.addmm_(x, weight)
    return total.add_(x.to(weight.dtype) @ weight)

"""The gates of DMN+: how much each region matters, for a question and what is remembered so far.

::

    z_i = [F_i * q ; F_i * m ; |F_i - q| ; |F_i - m|]
    s_i = W2 tanh(W1 z_i + b1)          g = softmax_i(s)

Plain autograd keeps z, 4H numbers for each region of each question and pass, and as many again for
its gradients. Here z is made for a few questions at a time, both forwards and backwards, and never
leaves the cache: only the tanh is kept, and the regions are stored once a picture.

In the first pass m = q, and the two halves of W1 that see them are added up: half the product.

Shapes: ``B`` pictures, ``N`` questions, ``R`` regions, ``H`` hidden, ``G`` width of the gate, ``K``
vectors that regions are held against (q alone, or q and m).

References:
    Xiong, Merity and Socher 2016, equations 8 to 10.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["RegionGates", "region_scores"]

# Rows of z (questions times regions) in one piece: as many as the cache holds, or on a GPU enough
# to keep it busy.
_ROWS = {"cpu": 512}
_ROWS_ELSEWHERE = 32768


class RegionGates(nn.Module):
    """The gates of one pass. W2 has no bias: it would move all scores alike.

    Args:
        hidden: H.
        width: G.
    """

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(4 * hidden, width)
        self.score = nn.Parameter(torch.randn(width) / width**0.5)

    def forward(
        self,
        facts: Tensor,
        question: Tensor,
        memory: Tensor | None,
        owner: Tensor | None = None,
    ) -> Tensor:
        """The gates (N, R), at least float32.

        Args:
            facts: (B, R, H).
            question: (N, H).
            memory: (N, H); None if it is the question (the first pass).
            owner: (N,) which picture each question is about; None: question i about picture i.
        """
        weight = self.inner.weight
        vectors: tuple[Tensor, ...] = (question,)
        if memory is None:
            # (G, 4H) -> (G, 2, 2, H) -> (G, 2H): what sees q and what sees m, added up.
            weight = weight.unflatten(1, (2, 2, -1)).sum(2).flatten(1)
        else:
            vectors = (question, memory)
        kind = facts.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        stacked = torch.stack(vectors).to(facts.dtype)
        scores = region_scores(facts, stacked, weight, self.inner.bias, self.score, owner, dtype)
        return scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(1)


def region_scores(
    facts: Tensor,
    vectors: Tensor,
    weight: Tensor,
    bias: Tensor,
    score: Tensor,
    owner: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """``score . tanh(weight z + bias)`` with ``z = [F * v_1 ; .. ; |F - v_1| ; ..]``.

    Args:
        facts: F (B, R, H).
        vectors: v (K, N, H).
        weight: (G, 2KH).
        bias: (G,).
        score: (G,).
        owner: (N,) or None, see ``RegionGates``.
        dtype: the products' format.

    Returns:
        Scores (N, R), in ``dtype``.
    """
    shared = (owner, dtype, torch.is_grad_enabled())
    scores: Tensor = _Scores.apply(facts, vectors, weight, bias, score, *shared)
    return scores


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        facts: Tensor,
        vectors: Tensor,
        weight: Tensor,
        bias: Tensor,
        score: Tensor,
        owner: Tensor | None,
        dtype: torch.dtype,
        keep: bool,
    ) -> Tensor:
        n, regions = vectors.shape[1], facts.shape[1]
        to_inner, add, to_score = weight.to(dtype).t(), bias.to(dtype), score.to(dtype)
        scores = facts.new_empty((n, regions), dtype=dtype)
        bent = facts.new_empty((n, regions, len(score)), dtype=dtype) if keep else None
        for part in _pieces(n, regions, facts.device):
            z = _compare(_take(facts, part, owner), vectors[:, part], dtype)
            inner = torch.addmm(add, z, to_inner).tanh_()  # (n R, G)
            scores[part] = (inner @ to_score).unflatten(0, (-1, regions))
            if bent is not None:
                bent[part] = inner.unflatten(0, (-1, regions))
        if keep:
            ctx.save_for_backward(facts, vectors, weight, score, owner, bent)
        ctx.dtype, ctx.bias = dtype, bias.dtype
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dscores: Tensor) -> tuple[Tensor | None, ...]:
        facts, vectors, weight, score, owner, bent = ctx.saved_tensors
        narrow, (n, regions, width) = weight.to(ctx.dtype), bent.shape
        dscores = dscores.to(ctx.dtype)
        dscore = (dscores.reshape(1, -1) @ bent.flatten(0, 1)).squeeze(0)
        dbias = torch.zeros_like(score)
        dfacts, dvectors = torch.zeros_like(facts), torch.empty_like(vectors)
        dweight = torch.zeros_like(weight)
        for part in _pieces(n, regions, facts.device):
            own, against = _take(facts, part, owner), vectors[:, part]
            slope = torch.addcmul(bent.new_ones(()), bent[part], bent[part], value=-1)
            slope = slope.mul_(dscores[part].unsqueeze(2)).mul_(score.to(ctx.dtype))
            slope = slope.view(-1, width)  # (n R, G)
            dbias += slope.sum(0)
            z = _compare(own, against, ctx.dtype)
            _add_product(dweight, slope.t(), z)
            dz = (slope @ narrow).view(*own.shape[:2], 2, len(vectors), -1)  # (n, R, 2, K, H)
            dz = dz.to(facts.dtype)
            down = torch.zeros_like(own)  # (n, R, H)
            for k, v in enumerate(against.unsqueeze(2)):  # (n, 1, H)
                times, apart = dz[:, :, 0, k], dz[:, :, 1, k] * (own - v).sign_()
                down.addcmul_(times, v).add_(apart)
                dvectors[k, part] = (times * own).sub_(apart).sum(1)
            if owner is None:
                dfacts[part] = down
            else:
                dfacts.index_add_(0, owner[part], down)
        dscore, dbias = dscore.to(score.dtype), dbias.to(ctx.bias)
        return dfacts, dvectors, dweight, dbias, dscore, None, None, None


def _pieces(n: int, regions: int, device: torch.device) -> list[slice]:
    """The n questions in pieces."""
    size = max(1, _ROWS.get(device.type, _ROWS_ELSEWHERE) // regions)
    return [slice(at, min(at + size, n)) for at in range(0, n, size)]


def _take(facts: Tensor, part: slice, owner: Tensor | None) -> Tensor:
    """The facts (n, R, H) of some questions."""
    return facts[part] if owner is None else facts.index_select(0, owner[part])


def _compare(facts: Tensor, vectors: Tensor, dtype: torch.dtype) -> Tensor:
    """Z (n R, 2KH) of facts (n, R, H) and vectors (K, n, H)."""
    n, regions, hidden = facts.shape
    z = facts.new_empty((n, regions, 2, len(vectors), hidden), dtype=dtype)
    for k, v in enumerate(vectors.unsqueeze(2)):  # (n, 1, H)
        torch.mul(facts, v, out=z[:, :, 0, k])
        torch.sub(facts, v, out=z[:, :, 1, k]).abs_()
    return z.view(n * regions, -1)


def _add_product(total: Tensor, x: Tensor, y: Tensor) -> None:
    """Add ``x @ y`` to total, whose format may be wider."""
    if total.dtype == x.dtype:
        total.addmm_(x, y)
    else:
        total.add_(x @ y)

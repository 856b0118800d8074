"""The gates of DMN+ against their equations, and in pieces of any size."""

import pytest
import torch

from gazetell.models import region_gates
from gazetell.models.region_gates import RegionGates, region_scores


def naive(facts, vectors, weight, bias, score, owner):
    """The scores of the module's equations, a region at a time."""
    rows = []
    for n in range(vectors.shape[1]):
        for fact in facts[n if owner is None else owner[n]]:
            z = torch.cat(
                [*(fact * v[n] for v in vectors), *((fact - v[n]).abs() for v in vectors)]
            )
            rows.append(score @ torch.tanh(weight @ z + bias))
    return torch.stack(rows).view(vectors.shape[1], -1)


def inputs(count, pictures=3, questions=5, regions=6, hidden=4, width=7, shared=True):
    random = torch.Generator().manual_seed(count)
    shapes = [(pictures, regions, hidden), (count, questions, hidden)]
    shapes += [(width, 2 * count * hidden), (width,), (width,)]
    given = [torch.randn(*s, generator=random, dtype=torch.float64) for s in shapes]
    owner = torch.randint(0, pictures, (questions,), generator=random) if shared else None
    return [x.requires_grad_() for x in given], owner


@pytest.mark.parametrize("rows", [1, 12, 10_000])  # one question, two, all of them at a time
@pytest.mark.parametrize(("count", "shared"), [(1, True), (2, True), (2, False)])
def test_scores_and_gradients_are_those_of_the_equations(monkeypatch, rows, count, shared):
    monkeypatch.setitem(region_gates._ROWS, "cpu", rows)
    given, owner = inputs(count, questions=5 if shared else 3, shared=shared)
    ours, expected = region_scores(*given, owner, torch.float64), naive(*given, owner)
    assert torch.allclose(ours, expected, atol=1e-10, rtol=0)
    slope = torch.randn_like(ours)
    pairs = zip(*(torch.autograd.grad(x, given, slope) for x in (ours, expected)), strict=True)
    for mine, plain in pairs:
        assert plain.abs().max() > 1e-2
        assert torch.allclose(mine, plain, atol=1e-10, rtol=0)
    with torch.no_grad():
        assert torch.equal(region_scores(*given, owner, torch.float64), ours)


def test_gradients_in_double_precision():
    given, owner = inputs(2, 2, 3, 2, 3, 3)
    assert torch.autograd.gradcheck(lambda *x: region_scores(*x, owner, torch.float64), given)


def test_the_first_pass_holds_the_question_in_both_places():
    torch.manual_seed(0)
    gates = RegionGates(4, 7).double()
    facts, q = torch.randn(3, 6, 4).double(), torch.randn(5, 4).double()
    owner = torch.tensor([0, 2, 1, 1, 0])
    short, whole = gates(facts, q, None, owner), gates(facts, q, q, owner)
    assert torch.allclose(short, whole, atol=1e-12)
    inner = gates.inner
    expected = naive(facts, torch.stack((q, q)), inner.weight, inner.bias, gates.score, owner)
    assert torch.allclose(whole, expected.softmax(1), atol=1e-12)
    assert not torch.allclose(gates(facts, q, q.flip(0), owner), whole, atol=1e-3)


def test_products_in_bfloat16_and_a_softmax_in_float32():
    torch.manual_seed(0)
    gates = RegionGates(16, 16)
    facts, q, m = torch.randn(3, 6, 16), torch.randn(3, 16), torch.randn(3, 16)
    exact = gates(facts, q, m)
    with torch.autocast("cpu", torch.bfloat16):
        rough = gates(facts, q, m)
    assert rough.dtype == torch.float32
    assert torch.allclose(rough.sum(1), torch.ones(3))
    assert torch.allclose(rough, exact, atol=0.02)
    slope = torch.randn_like(exact)
    pairs = [
        torch.autograd.grad((x * slope).sum(), list(gates.parameters())) for x in (rough, exact)
    ]
    for one, other in zip(*pairs, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.05 * other.norm()

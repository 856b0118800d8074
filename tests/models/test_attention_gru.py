"""The attention GRU against its equations, one region after the other."""

import pytest
import torch

from gazetell.models.attention_gru import AttentionGRU, attention_gru


def naive(drive, gates, weight, owner=None):
    """The module's equations, for one question and one region at a time."""
    hidden = weight.shape[1]
    to_r, to_u = weight[:hidden], weight[hidden:]
    contexts = []
    for n in range(len(gates)):
        picture = n if owner is None else int(owner[n])
        h = drive.new_zeros(hidden)
        for i in range(len(drive)):
            fact = drive[i, picture]
            r = torch.sigmoid(fact[:hidden] + to_r @ h)
            candidate = torch.tanh(fact[hidden:] + r * (to_u @ h))
            h = gates[n, i] * candidate + (1 - gates[n, i]) * h
        contexts.append(h)
    return torch.stack(contexts)


def inputs(pictures, questions, regions, hidden, dtype=torch.float64, shared=True):
    random = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    drive = draw(regions, pictures, 2 * hidden)
    gates = draw(questions, regions).softmax(1)
    weight = draw(2 * hidden, hidden) / hidden**0.5
    given = [x.to(dtype).requires_grad_() for x in (drive, gates, weight)]
    owner = torch.randint(0, pictures, (questions,), generator=random) if shared else None
    return given, owner


SHAPES = [(3, 5, 6, 4, True), (4, 4, 9, 7, False), (2, 3, 1, 5, True), (2, 4, 196, 8, True)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_context_and_gradients_are_those_of_the_equations(shape, dtype, most):
    *sizes, shared = shape
    given, owner = inputs(*sizes, dtype=dtype, shared=shared)
    ours, expected = (f(*given, owner) for f in (attention_gru, naive))
    assert ours.dtype == dtype
    assert torch.allclose(ours, expected, atol=most, rtol=0)
    slope = torch.randn_like(ours)
    pairs = zip(*(torch.autograd.grad(x, given, slope) for x in (ours, expected)), strict=True)
    for mine, plain in pairs:
        assert plain.abs().max() > 1e-3 or len(given[0]) == 1  # with one region h never matters
        assert torch.allclose(mine, plain, atol=most * max(1, float(plain.abs().max())), rtol=0)


@pytest.mark.parametrize("shared", [True, False])
def test_gradients_in_double_precision(shared):
    given, owner = inputs(3, 3, 4, 3, shared=shared)
    assert torch.autograd.gradcheck(lambda *x: attention_gru(*x, owner), given)


def test_without_gradients_it_gives_the_same():
    given, owner = inputs(3, 5, 6, 4)
    with torch.no_grad():
        assert torch.equal(
            attention_gru(*given, owner), attention_gru(*inputs(3, 5, 6, 4)[0], owner)
        )
        quick = attention_gru(*given, owner)
    kept = attention_gru(*given, owner)
    assert kept.requires_grad
    assert torch.equal(quick, kept)


def test_a_graph_that_is_kept_gives_the_same_gradients_again():
    given, owner = inputs(3, 5, 6, 4)
    context = attention_gru(*given, owner).sum()
    first = torch.autograd.grad(context, given, retain_graph=True)
    second = torch.autograd.grad(context, given)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_region_without_weight_is_not_read_and_all_weight_reads_one_region():
    (drive, gates, weight), _ = inputs(2, 2, 5, 4, shared=False)
    assert torch.equal(
        attention_gru(drive, torch.zeros_like(gates), weight), torch.zeros(2, 4).double()
    )
    one = torch.zeros_like(gates)
    one[:, 3] = 1
    assert torch.allclose(attention_gru(drive, one, weight), drive[3, :, 4:].tanh())


def test_the_order_of_regions_matters():
    (drive, gates, weight), _ = inputs(2, 2, 5, 4, shared=False)
    there = attention_gru(drive, gates, weight)
    back = attention_gru(drive.flip(0), gates.flip(1), weight)
    assert not torch.allclose(there, back, atol=1e-3)


def test_products_in_bfloat16_with_a_state_in_float32():
    given, owner = inputs(3, 6, 49, 16, dtype=torch.float32)
    exact = attention_gru(*given, owner)
    drive, gates, weight = given
    rough = attention_gru(drive.bfloat16(), gates, weight, owner)
    assert rough.dtype == torch.float32
    assert torch.allclose(rough, exact, atol=0.02)
    assert not torch.equal(rough, exact)
    grads = torch.autograd.grad(rough.sum(), given)
    for one, other in zip(grads, torch.autograd.grad(exact.sum(), given), strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.03 * other.norm()


def test_one_product_drives_all_passes():
    torch.manual_seed(0)
    reader = AttentionGRU(6, 4, 3).double()
    facts = torch.randn(2, 5, 6, dtype=torch.float64)
    drives = reader.drives(facts)
    for t, drive in enumerate(drives):
        rows = slice(8 * t, 8 * (t + 1))
        expected = facts @ reader.facts.weight[rows].T + reader.facts.bias[rows]
        assert torch.allclose(drive, expected.transpose(0, 1))
    gates = torch.rand(2, 5, dtype=torch.float64)
    for t in range(3):
        context = reader(drives[t], gates, t, None)
        assert torch.allclose(context, naive(drives[t], gates, reader.state[t]))
        for block in reader.state[t].split(4):
            assert torch.allclose(block @ block.T, torch.eye(4).double(), atol=1e-5)

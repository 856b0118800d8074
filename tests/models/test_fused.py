"""Hand-written gradients against plain autograd of the same equations."""

import pytest
import torch
from tiny_captioners import B, R, T, grid, model, words

from gazetell.models import fused
from gazetell.models.encoders import Grid
from gazetell.models.fused import Product, deferred, region_scores

SHARING = ("attention-lstm", "show-attend-tell", "dual-attention", "up-down")
LENGTHS = [None, [7, 7, 7, 7], [7, 5, 5, 2], [4, 2, 2, 0], [1, 1, 1, 1]]


def unrolled(captioner, lengths, dtype=torch.float64):
    """Outputs, attention, and the gradients of cells and parameters by them."""
    random = torch.Generator().manual_seed(5)
    cells = grid().cells.to(dtype).requires_grad_()
    state = captioner.start(Grid.of(cells, 2, 3))
    outputs, attention = captioner.unroll(state, words(), lengths)
    loss = 0
    for x in (outputs, attention):
        loss = loss + (x * torch.randn(x.shape, generator=random, dtype=torch.float64)).sum()
    learned = [p for name, p in captioner.named_parameters() if not name.startswith("head")]
    return outputs, attention, *torch.autograd.grad(loss, [cells, *learned])


@pytest.mark.parametrize("architecture", SHARING)
@pytest.mark.parametrize("lengths", LENGTHS)
def test_teacher_forcing_equals_the_plain_equations(monkeypatch, architecture, lengths):
    captioner = model(architecture)
    lengths = None if lengths is None else torch.tensor(lengths)
    ours = unrolled(captioner, lengths)
    monkeypatch.setattr(captioner, "shared", lambda state: {})
    plain = unrolled(captioner, lengths)
    for one, other in zip(ours, plain, strict=True):
        assert torch.allclose(one, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("active", [[4, 4, 4], [4, 3, 3, 1], [2, 1]])
def test_gradients_of_products_are_right(active):
    torch.manual_seed(0)
    shapes = (4, 3), (3, 3), (4, 3, 3)
    tensors = [torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in shapes]

    def compute(given, matrix, rows):
        module, of_rows, outputs = torch.nn.Module(), Product(), []
        module.forward = None
        with deferred({module: matrix, of_rows: rows}):
            for n in active:
                given = of_rows(module(given[:n]).tanh(), rows[:n]).tanh()
                outputs.append(given)
        return tuple(outputs)

    assert torch.autograd.gradcheck(compute, tensors)
    # Of the first step alone, and twice of the same graph.
    outputs = compute(*tensors)
    first = torch.autograd.grad(outputs[0].sum(), tensors, retain_graph=True)
    assert torch.equal(first[0][active[0] :], torch.zeros(4 - active[0], 3, dtype=torch.float64))
    again = torch.autograd.grad(outputs[0].sum(), tensors, retain_graph=True)
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    alone = torch.autograd.grad(compute(*tensors)[0].sum(), tensors)
    assert all(torch.allclose(x, y) for x, y in zip(first, alone, strict=True))


def test_modules_are_themselves_again_afterwards():
    captioner = model("attention-lstm")
    before = captioner.state_gates(torch.ones(1, 16, dtype=torch.float64))
    shared = {captioner.state_gates: captioner.state_gates.weight}

    def fail():
        with deferred(shared):
            assert "forward" in vars(captioner.state_gates)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert "forward" not in vars(captioner.state_gates)
    assert torch.equal(captioner.state_gates(torch.ones(1, 16, dtype=torch.float64)), before)
    with torch.no_grad(), deferred(shared):
        assert "forward" not in vars(captioner.state_gates)
    assert captioner(grid(), words())[1].shape == (B, T, R)


def naive(facts, vectors, weight, bias, score, owner):
    """The scores of the docstring's equations, a region at a time."""
    rows = []
    for n in range(vectors.shape[1]):
        for fact in facts[n if owner is None else owner[n]]:
            z = [*(fact * v[n] for v in vectors), *((fact - v[n]).abs() for v in vectors)]
            rows.append(score @ torch.tanh(weight @ torch.cat(z) + bias))
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
    monkeypatch.setitem(fused.ROWS, "cpu", rows)
    given, owner = inputs(count, questions=5 if shared else 3, shared=shared)
    ours, expected = region_scores(*given, owner), naive(*given, owner)
    assert torch.allclose(ours, expected, atol=1e-10, rtol=0)
    pull = torch.randn_like(ours)
    pairs = zip(*(torch.autograd.grad(x, given, pull) for x in (ours, expected)), strict=True)
    for mine, plain in pairs:
        assert plain.abs().max() > 1e-2
        assert torch.allclose(mine, plain, atol=1e-10, rtol=0)
    with torch.no_grad():
        assert torch.equal(region_scores(*given, owner), ours)

"""Additive attention against loops, and its gathered gradients against plain autograd."""

import math

import pytest
import torch

from gazetell.models.additive import DeferredAdditive, look_additive

N, R, A, C = 4, 5, 3, 6
ACTIVE = [[4, 4, 4], [4, 3, 3, 1], [3, 2, 0], [1]]


def inputs(steps=4, dtype=torch.float64, seed=0):
    """Keys (N, R, A), values (N, R, C), score (A,) and a query (N, A) a step, all leaves."""
    random = torch.Generator().manual_seed(seed)
    shapes = [(N, R, A), (N, R, C), (A,), *[(N, A)] * steps]
    drawn = [torch.randn(*shape, generator=random, dtype=torch.float64) for shape in shapes]
    return [x.to(dtype).requires_grad_() for x in drawn]


def unroll(look, queries, active):
    """Looks at each step; each query also hears what was seen at the step before."""
    found, seen = [], None
    for query, n in zip(queries, active, strict=True):
        heard = query[:n] if seen is None else query[:n] + seen[:n, :A].to(query.dtype)
        seen, attention = look(heard)
        found += [seen, attention]
    return found


def plain(keys, values, score, queries, active):
    return unroll(
        lambda q: look_additive(q, keys[: len(q)], values[: len(q)], score), queries, active
    )


def deferred(keys, values, score, queries, active):
    return unroll(DeferredAdditive(keys, values, score).look, queries, active)


def loss(found, seed=7):
    """Pulls at everything that was seen and at every attention."""
    random = torch.Generator().manual_seed(seed)
    pulls = [torch.randn(x.shape, generator=random, dtype=torch.float64) for x in found]
    return sum((x * pull.to(x.dtype)).sum() for x, pull in zip(found, pulls, strict=True))


def same(found, expected, atol=1e-12):
    return all(
        torch.allclose(x, y, atol=atol, rtol=0) for x, y in zip(found, expected, strict=True)
    )


def test_a_look_follows_the_equations():
    keys, values, score, query = (x.tolist() for x in inputs(1))
    tensors = inputs(1)
    looked, attention = look_additive(tensors[3], *tensors[:3])
    assert looked.shape == (N, C)
    for n in range(N):
        scores = [
            sum(score[j] * math.tanh(keys[n][i][j] + query[n][j]) for j in range(A))
            for i in range(R)
        ]
        total = sum(math.exp(e) for e in scores)
        alpha = [math.exp(e) / total for e in scores]
        assert attention[n].tolist() == pytest.approx(alpha, abs=1e-14)
        seen = [sum(alpha[i] * values[n][i][j] for i in range(R)) for j in range(C)]
        assert looked[n].tolist() == pytest.approx(seen, abs=1e-14)


@pytest.mark.parametrize("active", ACTIVE)
def test_gradients_are_those_of_plain_autograd(active):
    tensors = inputs(len(active))
    keys, values, score, *queries = tensors
    found = deferred(keys, values, score, queries, active)
    expected = plain(keys, values, score, queries, active)
    assert same(found, expected)
    found, expected = (
        torch.autograd.grad(loss(x), tensors, materialize_grads=True) for x in (found, expected)
    )
    assert same(found, expected)
    still = active[0]
    for gradient in found[:2]:  # keys and values
        assert gradient[:still].flatten(1).any(1).all()
        assert not gradient[still:].any()  # rows that never looked


@pytest.mark.parametrize("pulled", [0, 1])
def test_a_gradient_of_what_was_seen_or_of_the_attention_alone(pulled):
    tensors = inputs()
    keys, values, score, *queries = tensors
    gradients = [
        torch.autograd.grad(
            loss(run(keys, values, score, queries, [4, 3, 3, 1])[pulled::2]), tensors
        )
        for run in (deferred, plain)
    ]
    assert same(*gradients)


def test_a_gradient_of_the_first_steps_alone():
    tensors = inputs()
    keys, values, score, *queries = tensors
    gradients = [
        torch.autograd.grad(
            loss(run(keys, values, score, queries, [4, 3, 3, 1])[:4]),
            tensors,
            materialize_grads=True,
        )
        for run in (deferred, plain)
    ]
    assert same(*gradients)
    assert not gradients[0][5].any()  # the third query


def test_gradients_are_right():
    tensors = inputs(3)

    def compute(keys, values, score, *queries):
        return tuple(deferred(keys, values, score, queries, [4, 3, 1]))

    assert torch.autograd.gradcheck(compute, tensors)


def test_values_that_stay_as_they_are_get_no_gradient():
    keys, values, score, *queries = inputs()
    active = [4, 3, 3, 1]
    constant = values.detach()
    found = loss(deferred(keys, constant, score, queries, active))
    expected = loss(plain(keys, values, score, queries, active))
    found.backward()
    assert constant.grad is None
    learned = [keys, score, *queries]
    assert same([x.grad for x in learned], torch.autograd.grad(expected, learned))


def test_values_alone_are_learned():
    _, values, *_ = tensors = inputs()
    keys, _, score, *queries = (x.detach() for x in tensors)
    gradients = [
        torch.autograd.grad(loss(run(keys, values, score, queries, [4, 4, 2, 1])), values)
        for run in (deferred, plain)
    ]
    assert same(*gradients)


def test_a_second_pass_over_the_same_graph_finds_the_same():
    tensors = inputs()
    keys, values, score, *queries = tensors
    whole = loss(deferred(keys, values, score, queries, [4, 3, 3, 1]))
    first = torch.autograd.grad(whole, tensors, retain_graph=True)
    second = torch.autograd.grad(whole, tensors)
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_sixteen_bits_come_close():
    active = [4, 3, 3, 1]
    exact, rough = inputs(), inputs(dtype=torch.bfloat16)
    found = [deferred(*x[:3], x[3:], active) for x in (exact, rough)]
    assert [x.dtype for x in found[1]] == [torch.bfloat16, torch.float32] * 4
    assert same([x.double() for x in found[1]], found[0], atol=0.05)
    gradients = [
        torch.autograd.grad(loss(x), y) for x, y in zip(found, (exact, rough), strict=True)
    ]
    for near, far in zip(*gradients, strict=True):
        assert far.dtype == torch.bfloat16
        assert torch.cosine_similarity(near.flatten(), far.double().flatten(), dim=0) > 0.999

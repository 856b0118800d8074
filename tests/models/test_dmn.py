"""``dmn-plus`` against its equations, written out in floats."""

import itertools

import pytest
import torch
from tiny_answerers import A, H, N, affine, config, follows, grid, gru, model, questions, tanh
from tiny_captioners import add, dot, lstm, normalised, sigmoid, softmax, times, weighted

from gazetell.models.answerers import build_answerer
from gazetell.models.dmn import snake
from gazetell.models.encoders import Grid


def in_snake(rows, width):
    """Cells in snake order, a row at a time."""
    grid_rows = [rows[at : at + width] for at in range(0, len(rows), width)]
    return [x for n, row in enumerate(grid_rows) for x in (row[::-1] if n % 2 else row)]


def by_hand(passes, width):
    """The docstring's equations for one question, in lists of Python floats."""

    def find(p, cells, words):
        facts = [
            tanh(add(affine(p, "facts", normalised(x)), place(p, i, len(cells) // width, width)))
            for i, x in enumerate(cells)
        ]
        facts = in_snake(facts, width)
        fused = [[0.0] * H for _ in facts]
        for end, order in (("_l0", 1), ("_l0_reverse", -1)):
            h = [0.0] * H
            for i in range(len(facts))[::order]:
                h = gru(p, "fusion", facts[i], h, end)
                fused[i] = add(fused[i], h)
        q = question(p, words)
        m, gaze = q, []
        for t in range(passes):
            g = softmax([score(p, t, fact, q, m) for fact in fused])
            c = weighted(g, fused) if "reader.state" not in p else attend(p, t, fused, g, passes)
            if "memory_cell.weight_ih" in p:
                m = gru(p, "memory_cell", c, m)
            else:
                m = [max(x, 0.0) for x in affine(p, f"memories.{t}", m + c + q)]
            gaze.append(in_snake(g, width))  # back into reading order
        return affine(p, "head.1", q + m), gaze

    return find


def place(p, i, height, width):
    """W_p p_i, or zeros."""
    centre = [(i // width + 0.5) / height * 2 - 1, (i % width + 0.5) / width * 2 - 1]
    return times(p["places.weight"], centre) if "places.weight" in p else [0.0] * H


def question(p, words):
    h, c = [0.0] * H, [0.0] * H
    for word in words:
        x = p["embed.weight"][word]
        if len(p["question.bias_ih_l0"]) == 4 * H:
            w, b = "question.weight_", "question.bias_"
            sums = add(times(p[f"{w}ih_l0"], x), times(p[f"{w}hh_l0"], h), p[f"{b}ih_l0"])
            h, c = lstm(add(sums, p[f"{b}hh_l0"]), c)
        else:
            h = gru(p, "question", x, h, "_l0")
    return h


def score(p, t, fact, q, m):
    """W2 tanh(W1 z + b1)."""
    z = [f * x for v in (q, m) for f, x in zip(fact, v, strict=True)]
    z += [abs(f - x) for v in (q, m) for f, x in zip(fact, v, strict=True)]
    return dot(p[f"gates.{t}.score"], tanh(affine(p, f"gates.{t}.inner", z)))


def attend(p, t, facts, gates, passes):
    """The context of the attention GRU of pass t."""
    weight, bias = p["reader.facts.weight"], p["reader.facts.bias"]
    w_r, w = (weight[(2 * t + half) * H : (2 * t + half + 1) * H] for half in (0, 1))
    b_r, b = (bias[(2 * t + half) * H : (2 * t + half + 1) * H] for half in (0, 1))
    u_r, u = p["reader.state"][t][:H], p["reader.state"][t][H:]
    h = [0.0] * H
    for fact, g in zip(facts, gates, strict=True):
        r = [sigmoid(x) for x in add(times(w_r, fact), times(u_r, h), b_r)]
        inner = [x * y for x, y in zip(r, times(u, h), strict=True)]
        candidate = tanh(add(times(w, fact), inner, b))
        h = [g * x + (1 - g) * y for x, y in zip(candidate, h, strict=True)]
    assert len(weight) == 2 * passes * H
    return h


CHOICES = list(itertools.product(("gru", "soft"), ("relu", "gru"), ("gru", "lstm")))


@pytest.mark.parametrize(("attention", "memory", "reads"), CHOICES)
def test_answers_follow_the_equations(attention, memory, reads):
    answerer = model("dmn-plus", attention_kind=attention, memory=memory, question=reads, passes=2)
    assert follows(answerer, by_hand(2, 3), grid(2, 3))


@pytest.mark.parametrize(("height", "width", "passes"), [(1, 1, 3), (3, 2, 3), (7, 7, 1)])
def test_grids_of_other_shapes_follow_them_too(height, width, passes):
    answerer = model("dmn-plus", passes=passes)
    assert follows(answerer, by_hand(passes, width), grid(height, width))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (3, 2)])
def test_regions_may_be_told_where_they_lie(height, width):
    answerer = model("dmn-plus", positions=True)
    assert follows(answerer, by_hand(3, width), grid(height, width))


def test_the_snake_goes_from_neighbour_to_neighbour_and_back():
    assert snake(3, 4, torch.device("cpu")).tolist() == [0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11]
    for height, width in ((1, 1), (1, 5), (5, 1), (7, 7), (14, 14)):
        order = snake(height, width, torch.device("cpu"))
        assert torch.equal(order[order], torch.arange(height * width))
        rows, columns = order // width, order % width
        steps = (rows.diff().abs() + columns.diff().abs()).tolist()
        assert steps == [1] * (height * width - 1)


@pytest.mark.parametrize("attention", ["gru", "soft"])
@pytest.mark.parametrize("side", [1, 7, 14])
def test_the_gaze_has_a_weight_for_every_region_of_every_pass(side, attention):
    answerer = model("dmn-plus", attention_kind=attention).float()
    pictures = grid(side, side)
    pictures = Grid.of(pictures.cells.float(), side, side)
    tokens, lengths, owner = questions()
    logits, gaze = answerer(pictures, tokens, lengths, owner)
    assert logits.shape == (N, A)
    assert gaze.shape == (N, 3, side**2)
    assert gaze.dtype == torch.float32
    assert (gaze >= 0).all()
    assert torch.allclose(gaze.sum(2), torch.ones(N, 3))
    if side > 1:
        assert not torch.allclose(gaze[:, 0], gaze[:, 1], atol=1e-3)  # passes differ


def test_scale_and_offset_of_a_region_do_not_matter():
    answerer, asked = model("dmn-plus"), questions()
    cells = grid().cells * 50  # far above the epsilon of the normalisation
    moved = cells * torch.arange(1, 7).view(6, 1) + 100
    one, other = (answerer(Grid.of(x, 2, 3), *asked)[0] for x in (cells, moved))
    assert torch.allclose(one, other, atol=1e-3)


def test_the_default_trains_in_bfloat16_as_in_float32():
    torch.manual_seed(0)
    answerer = model("dmn-plus", dropout=0.0).float()
    pictures = Grid.of(grid(7, 7).cells.float(), 7, 7)
    tokens, lengths, owner = questions()
    found = []
    for enabled in (False, True):
        answerer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits, gaze = answerer(pictures, tokens, lengths, owner)
        assert gaze.dtype == torch.float32
        logits.float().logsumexp(1).sum().backward()
        grads = torch.cat([p.grad.flatten() for p in answerer.parameters()])
        found.append((logits.detach().float(), gaze.detach(), grads))
    (exact, gaze, grads), (rough, rough_gaze, rough_grads) = found
    assert torch.allclose(rough, exact, atol=0.05 * float(exact.abs().max()))
    assert torch.allclose(rough_gaze, gaze, atol=0.02)
    assert (rough_grads - grads).norm() < 0.1 * grads.norm()


def test_gates_remember_at_first_and_recurrent_weights_are_orthogonal():
    answerer = build_answerer(**config("dmn-plus", question="lstm"))
    biases = answerer.question.bias_ih_l0 + answerer.question.bias_hh_l0
    assert biases.tolist() == [0] * H + [1] * H + [0] * 2 * H
    assert not answerer.fusion.bias_ih_l0.any()
    for block in (*answerer.question.weight_hh_l0.split(H), *answerer.fusion.weight_hh_l0.split(H)):
        assert torch.allclose(block @ block.T, torch.eye(H), atol=1e-5)
    assert not answerer.embed.weight[0].any()  # padding

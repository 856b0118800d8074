"""``show-attend-tell`` and ``dual-attention`` against their equations, written out in floats."""

import math

import pytest
import torch
from tiny_captioners import (
    A,
    B,
    C,
    E,
    H,
    R,
    V,
    add,
    dot,
    follows,
    grid,
    lstm,
    mean,
    model,
    normalised,
    numbers,
    sigmoid,
    softmax,
    times,
    weighted,
    words,
)

from gazetell.models.captioners import CAPTIONERS, build_captioner
from gazetell.models.encoders import Grid
from gazetell.models.show_attend_tell import DeepOutput

ARCHITECTURES = ("show-attend-tell", "dual-attention")


def by_hand(p, cells, tokens):
    """The docstrings' equations for one picture, in lists of Python floats."""
    a = [normalised(cell) for cell in cells]
    first = add(times(p["first.weight"], mean(a)), p["first.bias"])
    h, c = first[:H], first[H:]
    logits, attention = [], []
    for token in tokens:
        x = p["embed.weight"][token]
        s = add(times(p["state.weight"], h), p["state.bias"])  # W_s h + b_s
        if "components.weight" in p:
            bent = [math.tanh(v) for v in add(times(p["word.weight"], x), s)]
            omega = softmax(add(times(p["components.weight"], bent), p["components.bias"]))
            x = [E * omega[j] * x[j] for j in range(E)]
        e = []
        for region in a:
            bent = [math.tanh(v) for v in add(times(p["regions.weight"], region), s)]
            e.append(dot(p["score"], bent))
        alpha = softmax(e)
        beta = sigmoid(dot(p["gate.weight"][0], h) + p["gate.bias"][0])
        z = [beta * value for value in weighted(alpha, a)]
        word = add(times(p["word_gates.weight"], x), p["word_gates.bias"])
        h, c = lstm(add(word, times(p["gates.weight"], z + h)), c)
        logits.append(deep_output(p, x, h, z))
        attention.append(alpha)
    return logits, attention


def deep_output(p, x, h, z):
    """L_o (L_x x + h + L_z z + b) + b_o."""
    to_x, to_z = p["head.word.weight"], p["head.looked.weight"]
    inner = add(times(to_x, x), h, times(to_z, z), p["head.looked.bias"])
    return add(times(p["head.words.weight"], inner), p["head.words.bias"])


def looks(captioner, hidden, tokens, pictures):
    """What ``head`` gets after one step from a hidden state: word (E), state (H), looked (C)."""
    state = captioner.start(pictures)
    products = {name: getattr(captioner, name) for name in captioner.recurrent_layers}

    def even(query):  # looks at all regions alike
        return state.memory[1].mean(1), torch.full((len(query), R), 1 / R)

    given = captioner.advance(captioner.words(tokens), hidden, hidden, even, products)[0]
    return given.split([E, H, C], 1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_teacher_forcing_follows_the_equations(architecture):
    captioner = model(architecture)
    assert ("components.weight" in numbers(captioner)) == (architecture == "dual-attention")
    assert follows(captioner, by_hand)


def test_the_deep_output_follows_its_equation():
    torch.manual_seed(0)
    options = CAPTIONERS["show-attend-tell"].Options(embedding=E, hidden=H, dropout=0.5)
    head = DeepOutput(options, C, V).double()
    given = torch.randn(2, 3, E + H + C, dtype=torch.float64)
    p = {f"head.{name}": tensor.tolist() for name, tensor in head.state_dict().items()}
    logits = head.eval()(given)
    assert logits.shape == (2, 3, V)
    for row, one in zip(given.flatten(0, 1).tolist(), logits.flatten(0, 1), strict=True):
        expected = deep_output(p, row[:E], row[E : E + H], row[E + H :])
        assert one.tolist() == pytest.approx(expected, abs=1e-12)
    assert not torch.allclose(head.train()(given), logits)  # dropout stands before the words


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_number_from_the_state_gates_what_was_looked_at(architecture):
    captioner, pictures = model(architecture), grid()
    hidden = torch.randn(B, H, dtype=torch.float64)
    looked = looks(captioner, hidden, words()[:, 0], pictures)[2]
    beta = looked / captioner.start(pictures).memory[1].mean(1)  # (B, C)
    assert (beta > 0).all()
    assert (beta < 1).all()
    assert torch.allclose(beta, beta[:, :1].expand(B, C))  # the same for every channel
    assert len(beta[:, 0].unique()) == B  # another for every state
    expected = (hidden @ captioner.gate.weight.T + captioner.gate.bias).sigmoid()
    assert torch.allclose(beta[:, :1], expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_behind_a_closed_gate_the_picture_does_not_matter(architecture):
    captioner, tokens = model(architecture), words()
    state, other = captioner.start(grid(seed=1)), captioner.start(grid(seed=9))

    def outputs(memory):
        found, attention = captioner.unroll(
            type(state)(recurrent=state.recurrent, memory=memory), tokens
        )
        return captioner.head(found), attention

    opened = [outputs(x.memory)[0] for x in (state, other)]
    assert not torch.allclose(*opened, atol=1e-3)
    with torch.no_grad():
        captioner.gate.bias.fill_(-1e4)
    (one, gaze), (two, elsewhere) = (outputs(x.memory) for x in (state, other))
    assert torch.equal(one, two)
    assert not torch.allclose(gaze, elsewhere, atol=1e-3)  # it looks, and lets nothing through


def omega(captioner, tokens, hidden):
    """The attention over the components of the words (B,), for hidden states (B, H)."""
    _, key = captioner.words(tokens)
    products = {"components": captioner.components}
    return captioner.component_weights(key, captioner.state(hidden), products)


def test_the_components_attention_sums_to_one_and_hears_word_and_state():
    captioner = model("dual-attention")
    tokens = torch.arange(B)
    hidden = torch.randn(B, H, dtype=torch.float64)
    weights = omega(captioner, tokens, hidden)
    assert weights.shape == (B, E)
    assert (weights > 0).all()
    assert torch.allclose(weights.sum(1), torch.ones(B, dtype=torch.float64))
    for b in range(1, B):
        assert not torch.allclose(omega(captioner, tokens, hidden.roll(b, 0)), weights, atol=1e-3)
        assert not torch.allclose(omega(captioner, tokens.roll(b), hidden), weights, atol=1e-3)


def test_the_components_attention_weighs_the_word_that_lstm_and_output_get():
    captioner, tokens = model("dual-attention"), words()[:, 0]
    hidden = torch.randn(B, H, dtype=torch.float64)
    word, state, _ = looks(captioner, hidden, tokens, grid())
    weighed = E * omega(captioner, tokens, hidden) * captioner.embed(tokens)
    assert torch.allclose(word, weighed, atol=1e-12, rtol=0)
    with torch.no_grad():  # all weight on the first component
        captioner.components.weight.zero_()
        captioner.components.bias.copy_(torch.tensor([1e3, 0, 0]))
        captioner.embed.weight[:, 1:] = 0
    before = looks(captioner, hidden, tokens, grid())
    with torch.no_grad():
        captioner.embed.weight[:, 1:] = 5
    after = looks(captioner, hidden, tokens, grid())
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert not torch.allclose(before[1], state, atol=1e-3)


def test_an_even_attention_over_components_is_show_attend_tell():
    dual, single = model("dual-attention"), model("show-attend-tell", seed=3)
    names = single.state_dict().keys()
    single.load_state_dict({n: p for n, p in dual.state_dict().items() if n in names})
    assert not torch.allclose(dual(grid(), words())[0], single(grid(), words())[0], atol=1e-3)
    with torch.no_grad():
        dual.components.weight.zero_()
        dual.components.bias.fill_(2)
    for one, other in zip(dual(grid(), words()), single(grid(), words()), strict=True):
        assert torch.allclose(one, other, atol=1e-12, rtol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scale_and_offset_of_a_region_do_not_matter(architecture):
    captioner, tokens = model(architecture), words()
    cells = grid().cells * 50  # far above the epsilon of the normalisation
    moved = cells * torch.arange(1, R + 1).view(R, 1) + 100
    one, other = (captioner(Grid.of(x, 2, 3), tokens)[0] for x in (cells, moved))
    assert torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_beginning(architecture):
    torch.manual_seed(0)
    sizes = {"channels": C, "vocabulary": V, "embedding": E, "hidden": H}
    fresh = build_captioner(architecture, **sizes, attention_width=A)
    bias = fresh.word_gates.bias.view(4, H)  # i, f, g, o
    assert torch.equal(bias[1], torch.ones(H))  # the forget gate is open
    assert not bias[[0, 2, 3]].any()
    recurrent = fresh.gates.weight[:, C:]  # (4H, H)
    assert torch.allclose(recurrent.T @ recurrent, torch.eye(H), atol=1e-5)

"""``rnn`` and ``lstm``: the equations by hand, torch's modules, and the two ways to unroll."""

import math

import pytest
import torch
from tiny_captioners import (
    B,
    C,
    E,
    H,
    T,
    V,
    add,
    follows,
    grid,
    layer_norm,
    lstm,
    mean,
    model,
    times,
    words,
)
from torch import nn

from gazetell.models.captioners import build_captioner
from gazetell.models.cells import lstm_update, rnn_update

ARCHITECTURES = ("rnn", "lstm")
STEPS = 20
PRECISIONS = [(torch.float32, 1e-6), (torch.float64, 1e-12)]


def by_hand(p, cells, tokens):
    """The docstrings' equations for one picture, in lists of Python floats."""
    picture = layer_norm(p["normalise.weight"], p["normalise.bias"], mean(cells))
    h = add(times(p["image.weight"], picture), p["image.bias"])
    h, c = h[:H], h[H:]  # an RNN has no cell
    is_lstm = len(p["recurrent.bias_ih_l0"]) == 4 * H
    logits = []
    for token in tokens:
        word = times(p["recurrent.weight_ih_l0"], p["embed.weight"][token])
        past = times(p["recurrent.weight_hh_l0"], h)
        drive = add(word, past, p["recurrent.bias_ih_l0"], p["recurrent.bias_hh_l0"])
        h, c = lstm(drive, c) if is_lstm else ([math.tanh(x) for x in drive], c)
        logits.append(add(times(p["head.1.weight"], h), p["head.1.bias"]))
    return logits, []


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("teaching", [False, True])
def test_teacher_forcing_follows_the_equations(architecture, teaching):
    captioner = model(architecture)
    captioner.teaching = teaching
    assert follows(captioner, by_hand)


def test_the_picture_is_the_first_hidden_state_and_the_first_cell():
    hidden, cell = model("lstm").start(grid()).recurrent
    (alone,) = model("rnn").start(grid()).recurrent
    assert hidden.shape == cell.shape == alone.shape == (B, H)
    for state in (hidden, cell, alone):
        assert not torch.equal(state[0], state[1])
    assert not torch.equal(hidden, cell)


def sequence(dtype):
    """Words (B, T, E) and a state (B, H), large enough to reach the bends of the gates."""
    torch.manual_seed(3)
    return torch.randn(B, STEPS, E, dtype=dtype) * 2, torch.randn(B, H, dtype=dtype)


@pytest.mark.parametrize(("dtype", "close"), PRECISIONS)
def test_the_rnns_equation_is_torchs(dtype, close):
    torch.manual_seed(0)
    x, h = sequence(dtype)
    module, cell = nn.RNN(E, H, batch_first=True, dtype=dtype), nn.RNNCell(E, H, dtype=dtype)
    cell.load_state_dict({n.removesuffix("_l0"): p for n, p in module.state_dict().items()})
    expected, _ = module(x, h.unsqueeze(0))
    ours = torchs = h
    for t in range(STEPS):
        drive = x[:, t] @ cell.weight_ih.T + ours @ cell.weight_hh.T + cell.bias_ih + cell.bias_hh
        ours, torchs = rnn_update(drive), cell(x[:, t], torchs)
        assert ours.dtype == dtype
        assert torch.allclose(ours, torchs, atol=close, rtol=0)
        assert torch.allclose(ours, expected[:, t], atol=close, rtol=0)


@pytest.mark.parametrize(("dtype", "close"), PRECISIONS)
def test_the_lstms_equations_are_torchs(dtype, close):
    torch.manual_seed(0)
    x, h = sequence(dtype)
    module, cell = nn.LSTM(E, H, batch_first=True, dtype=dtype), nn.LSTMCell(E, H, dtype=dtype)
    cell.load_state_dict({n.removesuffix("_l0"): p for n, p in module.state_dict().items()})
    c = h.flip(0) * 3
    expected, (_, last) = module(x, (h.unsqueeze(0), c.unsqueeze(0)))
    torchs = h, c
    for t in range(STEPS):
        gates = x[:, t] @ cell.weight_ih.T + h @ cell.weight_hh.T + cell.bias_ih + cell.bias_hh
        (h, c), torchs = lstm_update(gates, c), cell(x[:, t], torchs)
        assert h.dtype == c.dtype == dtype
        assert torch.allclose(h, torchs[0], atol=close, rtol=0)
        assert torch.allclose(c, torchs[1], atol=close * 3, rtol=0)
        assert torch.allclose(h, expected[:, t], atol=close, rtol=0)
    assert torch.allclose(c, last[0], atol=close * 3, rtol=0)


def test_the_state_is_kept_in_thirty_two_bits():
    assert rnn_update(torch.ones(B, H, dtype=torch.bfloat16)).dtype == torch.float32
    hidden, cell = lstm_update(torch.ones(B, 4 * H, dtype=torch.bfloat16), torch.ones(B, H))
    assert hidden.dtype == cell.dtype == torch.float32


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("lengths", [None, [7, 7, 5, 1], [6, 3, 3, 2], [4, 1, 0, 0]])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_teaching_equals_the_fused_module(architecture, lengths, dtype, close):
    captioner, tokens = model(architecture).to(dtype), words()
    lengths = None if lengths is None else torch.tensor(lengths)
    pull = torch.randn(B, T, H, dtype=dtype)
    outputs, gradients = [], []
    for teaching in (False, True):
        captioner.teaching = teaching
        pictures = grid()._replace(pooled=grid().pooled.to(dtype).requires_grad_())
        found, attention = captioner.unroll(captioner.start(pictures), tokens, lengths)
        assert attention is None
        weights = [p for n, p in captioner.named_parameters() if not n.startswith("head")]
        gradients.append(torch.autograd.grad((found * pull).sum(), [pictures.pooled, *weights]))
        outputs.append(found)
    assert torch.allclose(*outputs, atol=close, rtol=0)
    for fused, equations in zip(*gradients, strict=True):
        assert fused.any()
        assert torch.allclose(fused, equations, atol=close * 100, rtol=close * 100)


def test_the_forget_gate_begins_open():
    torch.manual_seed(0)
    cell = build_captioner("lstm", channels=C, vocabulary=V, embedding=E, hidden=H).recurrent
    bias = (cell.bias_ih_l0 + cell.bias_hh_l0).view(4, H)  # i, f, g, o
    assert torch.equal(bias[1], torch.ones(H))
    assert not bias[[0, 2, 3]].any()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_recurrent_weights_begin_orthogonal(architecture):
    torch.manual_seed(0)
    captioner = build_captioner(architecture, channels=C, vocabulary=V, embedding=E, hidden=H)
    weight = captioner.recurrent.weight_hh_l0  # (4H, H) or (H, H)
    assert torch.allclose(weight.T @ weight, torch.eye(H), atol=1e-5)

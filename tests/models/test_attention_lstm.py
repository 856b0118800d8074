"""``attention-lstm`` against its equations, written out region by region and step by step."""

import math

import torch
from tiny_captioners import (
    C,
    E,
    H,
    T,
    V,
    add,
    dot,
    follows,
    grid,
    layer_norm,
    lstm,
    mean,
    model,
    softmax,
    times,
    weighted,
    words,
)
from torch import nn

from gazetell.models.captioners import build_captioner


def by_hand(p, cells, tokens):
    """The docstring's equations for one picture, in lists of Python floats."""
    cells = [layer_norm(p["normalise.weight"], p["normalise.bias"], cell) for cell in cells]
    keys = [add(times(p["keys.weight"], cell), p["keys.bias"]) for cell in cells]
    h = c = mean(keys)
    logits, attention = [], []
    for token in tokens:
        alpha = softmax([dot(key, h) / math.sqrt(H) for key in keys])
        z = weighted(alpha, keys)
        x = p["embed.weight"][token]
        word = add(times(p["word_gates.weight"], x), p["word_gates.bias"])
        h, c = lstm(add(word, times(p["state_gates.weight"], z + h)), c)
        logits.append(add(times(p["head.1.weight"], h), p["head.1.bias"]))
        attention.append(alpha)
    return logits, attention


def test_teacher_forcing_follows_the_equations():
    assert follows(model("attention-lstm"), by_hand)


def test_the_recurrence_is_torchs_lstm():
    captioner, pictures, tokens = model("attention-lstm"), grid(), words()
    cell = nn.LSTMCell(E + H, H).double()  # gates in the order i, f, g, o
    with torch.no_grad():
        word, state = captioner.word_gates, captioner.state_gates
        cell.weight_ih.copy_(torch.cat((word.weight, state.weight[:, :H]), 1))
        cell.weight_hh.copy_(state.weight[:, H:])
        cell.bias_ih.copy_(word.bias)
        cell.bias_hh.zero_()
    keys = captioner.keys(captioner.normalise(pictures.cells))
    h = c = keys.mean(1)
    logits, _ = captioner(pictures, tokens)
    for t in range(T):
        alpha = torch.einsum("brh,bh->br", keys, h).div(math.sqrt(H)).softmax(1)
        looked = torch.einsum("br,brh->bh", alpha, keys)
        h, c = cell(torch.cat((captioner.embed(tokens[:, t]), looked), 1), (h, c))
        assert torch.allclose(captioner.head(h), logits[:, t], atol=1e-10, rtol=0)


def test_the_forget_gate_begins_open():
    torch.manual_seed(0)
    fresh = build_captioner("attention-lstm", channels=C, vocabulary=V, embedding=E, hidden=H)
    bias = fresh.word_gates.bias.view(4, H)
    assert torch.equal(bias[1], torch.ones(H))
    assert not bias[[0, 2, 3]].any()
    recurrent = fresh.state_gates.weight[:, H:]  # (4H, H)
    assert torch.allclose(recurrent.T @ recurrent, torch.eye(H), atol=1e-5)

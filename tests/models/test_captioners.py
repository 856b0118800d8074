"""The captioners: the contract that every architecture keeps, and each against its equations."""

import json
import math

import pytest
import torch
from sums import add, dot, layer_norm, lstm, mean, normalised, sigmoid, softmax, times, weighted
from tiny_captioners import WITH_ATTENTION, B, C, E, H, R, T, V, follows, grid, model, words
from torch import nn

from gazetell.errors import UsageError
from gazetell.models.captioners import CAPTIONERS, build_captioner, captioner_config
from gazetell.models.encoders import Grid

every_architecture = pytest.mark.parametrize("architecture", CAPTIONERS)
ADDITIVE = ("show-attend-tell", "dual-attention")


def recurrent_by_hand(p, cells, tokens):
    """``rnn`` and ``lstm`` for one picture, in lists of Python floats."""
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


def attention_lstm_by_hand(p, cells, tokens):
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


def additive_by_hand(p, cells, tokens):
    """``show-attend-tell``, and ``dual-attention`` where there are its weights."""
    a = [normalised(cell) for cell in cells]
    first = add(times(p["first.weight"], mean(a)), p["first.bias"])
    h, c = first[:H], first[H:]
    logits, attention = [], []
    for token in tokens:
        x = p["embed.weight"][token]
        s = add(times(p["state.weight"], h), p["state.bias"])  # W_s h + b_s
        if "components.weight" in p:
            inner = [math.tanh(v) for v in add(times(p["word.weight"], x), s)]
            omega = softmax(add(times(p["components.weight"], inner), p["components.bias"]))
            x = [E * omega[j] * x[j] for j in range(E)]
        e = []
        for region in a:
            inner = [math.tanh(v) for v in add(times(p["regions.weight"], region), s)]
            e.append(dot(p["score"], inner))
        alpha = softmax(e)
        beta = sigmoid(dot(p["gate.weight"][0], h) + p["gate.bias"][0])
        z = [beta * value for value in weighted(alpha, a)]
        word = add(times(p["word_gates.weight"], x), p["word_gates.bias"])
        h, c = lstm(add(word, times(p["gates.weight"], z + h)), c)
        deep = add(times(p["head.word.weight"], x), h, times(p["head.looked.weight"], z))
        deep = add(deep, p["head.looked.bias"])
        logits.append(add(times(p["head.words.weight"], deep), p["head.words.bias"]))
        attention.append(alpha)
    return logits, attention


def up_down_by_hand(p, cells, tokens):
    a = [normalised(cell) for cell in cells]
    v = [add(times(p["values.weight"], region), p["values.bias"]) for region in a]
    picture = times(p["picture_gates.weight"], mean(v))
    h1, c1, h2, c2 = ([0.0] * H for _ in range(4))
    logits, attention = [], []
    for token in tokens:
        word = add(times(p["word_gates.weight"], p["embed.weight"][token]), p["word_gates.bias"])
        h1, c1 = lstm(add(word, picture, times(p["asking_gates.weight"], h2 + h1)), c1)
        query = add(times(p["query.weight"], h1), p["query.bias"])
        inner = [add(times(p["regions.weight"], region), query) for region in a]
        alpha = softmax([dot(p["score"], [math.tanh(x) for x in row]) for row in inner])
        drive = times(p["telling_gates.weight"], weighted(alpha, v) + h1 + h2)
        h2, c2 = lstm(add(drive, p["telling_bias"]), c2)
        logits.append(add(times(p["head.1.weight"], h2), p["head.1.bias"]))
        attention.append(alpha)
    return logits, attention


BY_HAND = {
    **dict.fromkeys(("rnn", "lstm"), recurrent_by_hand),
    "attention-lstm": attention_lstm_by_hand,
    **dict.fromkeys(ADDITIVE, additive_by_hand),
    "up-down": up_down_by_hand,
}


@every_architecture
def test_teacher_forcing_follows_the_equations(architecture):
    assert follows(model(architecture), BY_HAND[architecture])


@every_architecture
def test_logits_and_attention_have_their_shapes(architecture):
    logits, attention = model(architecture)(grid(), words())
    assert logits.shape == (B, T, V)
    if architecture not in WITH_ATTENTION:
        assert attention is None
        return
    assert attention.shape == (B, T, R)
    assert (attention > 0).all()
    assert torch.allclose(attention.sum(2), torch.ones(B, T, dtype=torch.float64))


@every_architecture
def test_the_blind_twin_sees_no_picture(architecture):
    seeing, blind = (model(architecture, blind=blind) for blind in (False, True))
    for each in (seeing, blind):  # as every model begins
        if getattr(each.normalise, "bias", None) is not None:
            nn.init.zeros_(each.normalise.bias)
    logits, attention = blind.train()(grid(), words())
    assert attention is None
    assert blind.step(words()[:, 0], blind.start(grid()))[2] is None
    logits.sum().backward()
    trained = {n for n, p in blind.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained >= {"embed.weight"}
    assert not trained & {f"{name}.weight" for name in ("normalise", "keys", "image", "regions")}
    both = [each.eval() for each in (seeing, blind)]
    assert torch.equal(both[1](grid(), words())[0], both[1](grid(seed=9), words())[0])
    nothing = Grid.of(torch.zeros_like(grid().cells), 2, 3)
    # The same model otherwise.
    assert torch.allclose(both[1](grid(), words())[0], both[0](nothing, words())[0], atol=1e-12)


@every_architecture
@pytest.mark.parametrize("lengths", [[7, 7, 5, 1], [7, 7, 7, 7], [4, 2, 2, 0], [1, 1, 1, 1]])
def test_only_real_words_are_computed(architecture, lengths):
    captioner, tokens = model(architecture), words()
    state = captioner.start(grid())
    whole = captioner.unroll(state, tokens)
    real = captioner.unroll(state, tokens, torch.tensor(lengths))
    for x, expected in zip(real, whole, strict=True):  # outputs, and attention if there is one
        if expected is None:
            assert x is None
            continue
        assert x.shape == expected.shape
        for b, length in enumerate(lengths):
            assert torch.allclose(x[b, :length], expected[b, :length], atol=1e-12, rtol=0)
            assert not x[b, length:].any()


@every_architecture
@pytest.mark.parametrize("lengths", [[3, 4, 2, 1], [3, 0, 2, 1]])
def test_lengths_that_rise_are_refused(architecture, lengths):
    captioner = model(architecture)
    with pytest.raises(ValueError, match="longest first"):
        captioner.unroll(captioner.start(grid()), words(), torch.tensor(lengths))


@every_architecture
def test_a_selected_state_goes_on_as_its_own_row(architecture):
    captioner, tokens = model(architecture), words()
    _, state, _ = captioner.step(tokens[:, 0], captioner.start(grid()))
    rows = torch.tensor([3, 1, 1])
    whole, _, _ = captioner.step(tokens[:, 1], state)
    part, _, _ = captioner.step(tokens[rows, 1], state.select(rows))
    assert torch.allclose(part, whole[rows], atol=1e-12, rtol=0)


@every_architecture
def test_dropout_acts_in_training_alone(architecture):
    captioner = model(architecture, dropout=0.5)
    first, _ = captioner(grid(), words())
    assert torch.equal(captioner(grid(), words())[0], first)
    captioner.train()
    assert not torch.allclose(captioner(grid(), words())[0], first)


@every_architecture
def test_sixteen_bits_come_close(architecture):
    captioner = model(architecture).float()
    pictures, lengths = Grid.of(grid().cells.float(), 2, 3), torch.tensor([7, 6, 6, 2])
    exact, gaze = captioner(pictures, words(), lengths)
    with torch.autocast("cpu", torch.bfloat16):
        rough, rough_gaze = captioner(pictures, words(), lengths)
    assert torch.allclose(rough.float(), exact, atol=0.1)
    if gaze is not None:
        assert rough_gaze.dtype == torch.float32
        assert torch.allclose(rough_gaze, gaze, atol=0.05)
    parameters = list(captioner.parameters())
    gradients = [
        torch.cat([g.flatten() for g in torch.autograd.grad(x.float().square().sum(), parameters)])
        for x in (exact, rough)
    ]
    assert gradients[1].dtype == torch.float32
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999


@every_architecture
def test_unrolling_equals_stepping_in_results_and_gradients(architecture):
    captioner, tokens = model(architecture), words()
    pull = torch.randn(B, T, V, dtype=torch.float64), torch.randn(B, T, R, dtype=torch.float64)

    def stepped(grid, tokens):
        state, steps = captioner.start(grid), []
        for t in range(T):
            logits, state, attention = captioner.step(tokens[:, t], state)
            steps.append((logits, attention))
        logits, attention = zip(*steps, strict=True)
        return torch.stack(logits, 1), None if None in attention else torch.stack(attention, 1)

    def results(run):
        cells = grid().cells.requires_grad_()
        given = [x for x in run(Grid.of(cells, 2, 3), tokens) if x is not None]
        loss = sum((x * y).sum() for x, y in zip(given, pull, strict=False))
        return *given, *torch.autograd.grad(loss, [cells, *captioner.parameters()])

    for one, other in zip(results(captioner), results(stepped), strict=True):
        assert torch.allclose(one, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("architecture", list(CAPTIONERS)[1:])
def test_gates_remember_at_first_and_recurrent_weights_are_orthogonal(architecture):
    torch.manual_seed(0)
    fresh = build_captioner(architecture, channels=C, vocabulary=V, embedding=E, hidden=H)
    weights = dict(fresh.named_parameters())
    if architecture == "lstm":
        pairs = [(weights["recurrent.bias_ih_l0"], weights["recurrent.weight_hh_l0"])]
        assert not weights["recurrent.bias_hh_l0"].any()
    elif architecture == "up-down":
        pairs = [(weights["word_gates.bias"], weights["asking_gates.weight"])]
        pairs.append((weights["telling_bias"], weights["telling_gates.weight"]))
    else:
        name = "state_gates" if architecture == "attention-lstm" else "gates"
        pairs = [(weights["word_gates.bias"], weights[f"{name}.weight"])]
    for bias, weight in pairs:
        assert bias.tolist() == [0] * H + [1] * H + [0] * 2 * H  # i, f, g, o
        square = weight[:, -H:]  # (4H, H)
        assert torch.allclose(square.T @ square, torch.eye(H), atol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden": 0}, "--hidden 0: expected 1 or more"),
        ({"hidden": 2.5}, "--hidden 2.5: expected a whole number"),
        ({"attention_width": 0}, "--attention-width 0: expected 1 or more"),
        ({"vocabulary": -1}, "vocabulary -1: expected 1 or more"),
        ({"dropout": 1.0}, "--dropout 1.0: expected 0 up to below 1"),
        ({"dropout": float("nan")}, "--dropout nan: expected 0 up to below 1"),
        ({"depth": 2}, "--depth: show-attend-tell has no such option"),
        (
            {"architecture": "lstm", "attention_width": 2},
            "--attention-width: lstm has no such option; expected one of show-attend-te",
        ),
        (
            {"architecture": "transformer"},
            "--architecture transformer: expected one of rnn, lstm, attention-lstm, "
            "show-attend-tell, dual-attention, up-down",
        ),
    ],
)
def test_what_cannot_be_built_is_named(values, message):
    usual = {"architecture": "show-attend-tell", "channels": 4, "vocabulary": 9}
    with pytest.raises(UsageError, match=f"^{message}"):
        build_captioner(**{**usual, **values})


@pytest.mark.parametrize("architecture", CAPTIONERS)
def test_the_configuration_builds_the_same_captioner(architecture):
    captioner = model(architecture)
    values = json.loads(json.dumps(captioner.config))
    assert values["architecture"] == architecture
    again = build_captioner(**captioner_config(values)).double().eval()
    again.load_state_dict(captioner.state_dict())
    assert torch.equal(again(grid(), words())[0], captioner(grid(), words())[0])


@pytest.mark.parametrize("architecture", ["rnn", "lstm"])
def test_the_fused_modules_begin_with_contiguous_states(architecture):
    # cuDNN refuses others, and a state that no ``select`` has copied is a slice of one product.
    captioner, seen = model(architecture), []
    captioner.recurrent.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    captioner.unroll(captioner.start(grid()), words())
    states = seen[0] if isinstance(seen[0], tuple) else (seen[0],)
    assert [state.is_contiguous() for state in states] == [True] * len(states)

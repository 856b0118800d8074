"""The captioner against its equations, written out region by region and step by step."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from gazetell.errors import ModelError, UsageError
from gazetell.models.captioners import (
    CAPTIONERS,
    CaptionerConfig,
    State,
    active_rows,
    build_captioner,
    stack_steps,
)
from gazetell.models.decoding import DecodingOptions, decode
from gazetell.models.encoders import Grid

B, R, C, T, E, H, V = 4, 6, 5, 7, 3, 8, 11


def model(seed=0, **options):
    torch.manual_seed(seed)
    sizes = {"channels": C, "vocabulary": V, "embedding": E, "hidden": H, "dropout": 0.3}
    built = build_captioner(CaptionerConfig(**{**sizes, **options})).double().eval()
    with torch.no_grad():  # biases that are not zero, so that a forgotten one shows
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return built


def grid(seed=1, batch=B):
    random = torch.Generator().manual_seed(seed)
    return Grid.of(torch.randn(batch, R, C, generator=random, dtype=torch.float64), 2, 3)


def words(seed=2, batch=B, steps=T):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, V, (batch, steps), generator=random)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def affine(weight, bias, x):
    return [dot(row, x) + b for row, b in zip(weight, bias, strict=True)]


def layer_norm(weight, bias, x):
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    scaled = [(value - mean) / math.sqrt(variance + 1e-5) for value in x]
    return [w * value + b for w, value, b in zip(weight, scaled, bias, strict=True)]


def by_hand(captioner, cells, tokens):
    """The docstring's equations for one picture, in lists of Python floats."""
    p = {name: tensor.tolist() for name, tensor in captioner.state_dict().items()}
    cells = [layer_norm(p["normalise.weight"], p["normalise.bias"], cell) for cell in cells]
    keys = [affine(p["keys.weight"], p["keys.bias"], cell) for cell in cells]
    h = c = [sum(key[j] for key in keys) / len(keys) for j in range(H)]
    logits, attention = [], []
    for token in tokens:
        scores = [dot(key, h) / math.sqrt(H) for key in keys]
        total = sum(math.exp(score) for score in scores)
        alpha = [math.exp(score) / total for score in scores]
        z = [sum(a * key[j] for a, key in zip(alpha, keys, strict=True)) for j in range(H)]
        x = p["embed.weight"][token]
        gates = affine(p["word_gates.weight"], p["word_gates.bias"], x)
        gates = [g + dot(row, z + h) for g, row in zip(gates, p["state_gates.weight"], strict=True)]
        i, f, g, o = (gates[n * H : (n + 1) * H] for n in range(4))
        c = [sigmoid(f[j]) * c[j] + sigmoid(i[j]) * math.tanh(g[j]) for j in range(H)]
        h = [sigmoid(o[j]) * math.tanh(c[j]) for j in range(H)]
        logits.append(affine(p["head.1.weight"], p["head.1.bias"], h))
        attention.append(alpha)
    return logits, attention


def test_teacher_forcing_follows_the_equations():
    captioner, pictures, tokens = model(), grid(), words()
    logits, attention = captioner(pictures, tokens)
    assert logits.shape == (B, T, V)
    assert attention.shape == (B, T, R)
    for b in range(B):
        expected, gaze = by_hand(captioner, pictures.cells[b].tolist(), tokens[b].tolist())
        assert torch.allclose(
            logits[b], torch.tensor(expected, dtype=torch.float64), atol=1e-10, rtol=0
        )
        assert torch.allclose(
            attention[b], torch.tensor(gaze, dtype=torch.float64), atol=1e-10, rtol=0
        )


def test_the_recurrence_is_torchs_lstm():
    captioner, pictures, tokens = model(), grid(), words()
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


@pytest.mark.parametrize("architecture", CAPTIONERS)
def test_unrolling_equals_stepping(architecture):
    captioner, tokens = model(architecture=architecture), words()
    logits, attention = captioner(grid(), tokens)
    state = captioner.start(grid())
    for t in range(T):
        one, state, gaze = captioner.step(tokens[:, t], state)
        assert torch.allclose(one, logits[:, t], atol=1e-12, rtol=0)
        assert torch.allclose(gaze, attention[:, t], atol=1e-12, rtol=0)


@pytest.mark.parametrize("architecture", CAPTIONERS)
def test_rows_do_not_see_each_other(architecture):
    captioner, pictures, tokens = model(architecture=architecture), grid(), words()
    together, _ = captioner(pictures, tokens)
    for b in range(B):
        alone, _ = captioner(Grid.of(pictures.cells[b : b + 1], 2, 3), tokens[b : b + 1])
        assert torch.allclose(alone[0], together[b], atol=1e-12, rtol=0)


@pytest.mark.parametrize("architecture", CAPTIONERS)
@pytest.mark.parametrize("lengths", [[7, 7, 5, 1], [7, 7, 7, 7], [4, 2, 2, 0], [1, 1, 1, 1]])
def test_only_real_words_are_computed(architecture, lengths):
    captioner, tokens = model(architecture=architecture), words()
    state = captioner.start(grid())
    outputs, attention = captioner.unroll(state, tokens)
    short, gaze = captioner.unroll(state, tokens, torch.tensor(lengths))
    assert short.shape == outputs.shape
    assert gaze.shape == attention.shape
    for b, length in enumerate(lengths):
        assert torch.allclose(short[b, :length], outputs[b, :length], atol=1e-12, rtol=0)
        assert torch.allclose(gaze[b, :length], attention[b, :length], atol=1e-12, rtol=0)
        assert not short[b, length:].any()
        assert not gaze[b, length:].any()


def test_gradients_are_the_same_with_and_without_lengths():
    captioner, tokens, lengths = model(), words(), torch.tensor([7, 5, 5, 2])
    real = torch.arange(T) < lengths[:, None]
    gradients = []
    for given in (None, lengths):
        outputs, _ = captioner.unroll(captioner.start(grid()), tokens, given)
        loss = captioner.head(outputs[real]).square().sum()
        gradients.append(torch.autograd.grad(loss, list(captioner.parameters())))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-9)


def test_gradients_of_unrolling_are_those_of_stepping():
    captioner, tokens = model(), words()
    pull = torch.randn(B, T, V, dtype=torch.float64), torch.randn(B, T, R, dtype=torch.float64)

    def stepped(cells):
        state, found = captioner.start(Grid.of(cells, 2, 3)), []
        for t in range(T):
            logits, state, attention = captioner.step(tokens[:, t], state)
            found.append((logits, attention))
        return (torch.stack(column, 1) for column in zip(*found, strict=True))

    def gradients(run, retain=False):
        cells = grid().cells.requires_grad_()
        logits, attention = run(cells)
        loss = (logits * pull[0]).sum() + (attention * pull[1]).sum()
        wanted = [cells, *captioner.parameters()]
        found = torch.autograd.grad(loss, wanted, retain_graph=retain)
        if retain:  # a second pass over the same graph finds the same
            again = torch.autograd.grad(loss, wanted)
            assert all(torch.equal(x, y) for x, y in zip(found, again, strict=True))
        return found

    expected = gradients(stepped)
    found = gradients(lambda cells: captioner(Grid.of(cells, 2, 3), tokens), retain=True)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-10, rtol=1e-10)


def test_a_gradient_of_some_steps_alone():
    captioner, tokens, pictures = model(), words(), grid()
    state = captioner.start(pictures)
    outputs, attention = captioner.unroll(state, tokens)
    short, gaze = captioner.unroll(captioner.start(pictures), tokens[:, :3])
    losses = outputs[:, 2].sum() + attention[:, 1, 0].sum(), short[:, 2].sum() + gaze[:, 1, 0].sum()
    parameters = [p for n, p in captioner.named_parameters() if not n.startswith("head")]
    found, expected = (torch.autograd.grad(loss, parameters) for loss in losses)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-12, rtol=0)


def test_lengths_that_rise_are_refused():
    with pytest.raises(ValueError, match="longest first"):
        model().unroll(model().start(grid()), words(), torch.tensor([3, 4, 2, 1]))
    assert active_rows(torch.tensor([4, 2, 2, 0]), 4, 5) == [3, 3, 1, 1, 0]
    assert active_rows(None, 4, 2) == [4, 4]


def test_steps_are_stacked_with_zeros_behind():
    stacked = stack_steps([torch.ones(3, 2), torch.ones(1, 2) * 2], 3)
    assert stacked.shape == (3, 2, 2)
    assert stacked[:, 0].eq(1).all()
    assert stacked[0, 1].eq(2).all()
    assert stacked[1:, 1].eq(0).all()


@pytest.mark.parametrize("architecture", CAPTIONERS)
def test_the_gaze_is_a_distribution(architecture):
    _, attention = model(architecture=architecture)(grid(), words())
    assert (attention > 0).all()
    assert torch.allclose(attention.sum(2), torch.ones(B, T, dtype=torch.float64))


def test_a_state_is_selected_and_reordered():
    recurrent, memory = torch.arange(6.0).view(3, 2), torch.arange(12.0).view(3, 2, 2)
    state = State((recurrent, recurrent + 100), (memory,))
    rows = torch.tensor([2, 0, 0, 1])
    chosen = state.select(rows)
    assert torch.equal(chosen.recurrent[1], recurrent[[2, 0, 0, 1]] + 100)
    assert torch.equal(chosen.memory[0], memory[[2, 0, 0, 1]])
    moved = state.reorder(torch.tensor([1, 1, 2]))
    assert torch.equal(moved.recurrent[0], recurrent[[1, 1, 2]])
    assert moved.memory[0] is memory


@pytest.mark.parametrize("architecture", CAPTIONERS)
def test_a_selected_state_goes_on_as_its_own_row(architecture):
    captioner, tokens = model(architecture=architecture), words()
    _, state, _ = captioner.step(tokens[:, 0], captioner.start(grid()))
    rows = torch.tensor([3, 1, 1])
    whole, _, _ = captioner.step(tokens[:, 1], state)
    part, _, _ = captioner.step(tokens[rows, 1], state.select(rows))
    assert torch.allclose(part, whole[rows], atol=1e-12, rtol=0)


@pytest.mark.parametrize("architecture", CAPTIONERS)
def test_gradients_are_right(architecture):
    captioner = model(architecture=architecture, vocabulary=4, hidden=3, embedding=2, dropout=0.0)
    names = [name for name, _ in captioner.named_parameters()]
    tokens, lengths = torch.tensor([[1, 2, 3], [3, 0, 0]]), torch.tensor([3, 2])
    cells = grid(batch=2).cells[:, :3].clone().requires_grad_()

    class Outputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = captioner

        def forward(self, cells):
            return self.inner(Grid.of(cells, 1, 3), tokens, lengths)

    outputs = Outputs()

    def compute(cells, *values):
        given = {f"inner.{n}": v for n, v in zip(names, values, strict=True)}
        return functional_call(outputs, given, (cells,))

    values = [parameter.detach().clone().requires_grad_() for parameter in captioner.parameters()]
    assert torch.autograd.gradcheck(compute, (cells, *values))


def test_dropout_acts_in_training_alone():
    captioner = model(dropout=0.5)
    first, _ = captioner(grid(), words())
    assert torch.equal(captioner(grid(), words())[0], first)
    captioner.train()
    assert not torch.allclose(captioner(grid(), words())[0], first)


def test_the_forget_gate_begins_open():
    torch.manual_seed(0)
    fresh = build_captioner(CaptionerConfig(channels=C, vocabulary=V, embedding=E, hidden=H))
    bias = fresh.word_gates.bias.view(4, H)
    assert torch.equal(bias[1], torch.ones(H))
    assert not bias[[0, 2, 3]].any()
    recurrent = fresh.state_gates.weight[:, H:]  # (4H, H)
    assert torch.allclose(recurrent.T @ recurrent, torch.eye(H), atol=1e-5)


@pytest.mark.parametrize("architecture", CAPTIONERS)
def test_sixteen_bits_come_close(architecture):
    captioner = model(architecture=architecture).float()
    pictures, lengths = Grid.of(grid().cells.float(), 2, 3), torch.tensor([7, 6, 6, 2])
    exact, gaze = captioner(pictures, words(), lengths)
    with torch.autocast("cpu", torch.bfloat16):
        rough, rough_gaze = captioner(pictures, words(), lengths)
    assert rough_gaze.dtype == torch.float32
    assert torch.allclose(rough.float(), exact, atol=0.1)
    assert torch.allclose(rough_gaze, gaze, atol=0.05)
    parameters = list(captioner.parameters())
    gradients = [
        torch.cat([g.flatten() for g in torch.autograd.grad(x.float().square().sum(), parameters)])
        for x in (exact, rough)
    ]
    assert gradients[1].dtype == torch.float32
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999


@pytest.mark.parametrize("architecture", CAPTIONERS)
def test_it_learns_a_few_captions_by_heart(architecture):
    torch.manual_seed(0)
    start, end, pad = 1, 2, 0
    lengths = torch.tensor([6, 6, 5, 5, 4, 4, 3, 2])
    tokens = torch.randint(3, 20, (8, 7))
    tokens[:, 0] = start
    for b, length in enumerate(lengths.tolist()):
        tokens[b, length] = end
        tokens[b, length + 1 :] = pad
    pictures = Grid.of(torch.randn(8, 4, 10), 2, 2)
    sizes = {"channels": 10, "vocabulary": 20, "embedding": 16, "hidden": 32, "dropout": 0.0}
    captioner = build_captioner(CaptionerConfig(architecture, **sizes))
    optimizer = torch.optim.Adam(captioner.parameters(), 1e-2)
    real = tokens[:, 1:] != pad
    for _ in range(150):
        outputs, _ = captioner.unroll(captioner.start(pictures), tokens[:, :-1], lengths)
        loss = nn.functional.cross_entropy(captioner.head(outputs[real]), tokens[:, 1:][real])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.02
    captioner.eval()
    for beam in (1, 3):
        options = DecodingOptions(beam=beam, max_length=10)
        found = decode(captioner, pictures, options, start=start, end=end, banned=(pad,))
        expected = [row[1:n].tolist() for row, n in zip(tokens, lengths.tolist(), strict=True)]
        assert [caption.tokens for caption in found] == expected
        assert all(caption.ended for caption in found)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"architecture": "transformer"}, "transformer"),
        ({"hidden": 0}, "hidden 0"),
        ({"vocabulary": -1}, "vocabulary -1"),
        ({"dropout": 1.0}, r"dropout 1\.0"),
    ],
)
def test_sizes_out_of_range_are_named(options, named):
    with pytest.raises(UsageError, match=named):
        CaptionerConfig(**options)


def test_the_configuration_is_plain_json():
    config = CaptionerConfig(hidden=33)
    assert CaptionerConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ModelError, match="layers"):
        CaptionerConfig.from_dict({"layers": 2})

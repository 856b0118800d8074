"""The contract of the captioners, which every architecture keeps."""

import json

import pytest
import torch
from tiny_captioners import WITH_ATTENTION, B, R, T, V, grid, model, words
from torch import nn

from gazetell.errors import ModelError, UsageError
from gazetell.models.base import active_rows, stack_steps
from gazetell.models.captioners import CAPTIONERS, State, build_captioner, captioner_config
from gazetell.models.decoding import DecodingOptions, decode
from gazetell.models.encoders import Grid

every_architecture = pytest.mark.parametrize("architecture", CAPTIONERS)


@every_architecture
def test_logits_and_the_gaze_have_their_shapes(architecture):
    logits, attention = model(architecture)(grid(), words())
    assert logits.shape == (B, T, V)
    if architecture in ("rnn", "lstm"):
        assert attention is None
    else:
        assert attention.shape == (B, T, R)


@every_architecture
def test_unrolling_equals_stepping(architecture):
    captioner, tokens = model(architecture), words()
    logits, attention = captioner(grid(), tokens)
    state = captioner.start(grid())
    for t in range(T):
        one, state, gaze = captioner.step(tokens[:, t], state)
        assert torch.allclose(one, logits[:, t], atol=1e-12, rtol=0)
        if attention is None:
            assert gaze is None
        else:
            assert torch.allclose(gaze, attention[:, t], atol=1e-12, rtol=0)


@every_architecture
def test_rows_do_not_see_each_other(architecture):
    captioner, pictures, tokens = model(architecture), grid(), words()
    together, _ = captioner(pictures, tokens)
    for b in range(B):
        alone, _ = captioner(Grid.of(pictures.cells[b : b + 1], 2, 3), tokens[b : b + 1])
        assert torch.allclose(alone[0], together[b], atol=1e-12, rtol=0)


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
@pytest.mark.parametrize("shortest", [2, 0])
def test_gradients_are_the_same_with_and_without_lengths(architecture, shortest):
    captioner, tokens = model(architecture), words()
    lengths = torch.tensor([7, 5, 5, shortest])
    real = torch.arange(T) < lengths[:, None]
    gradients = []
    for given in (None, lengths):
        outputs, _ = captioner.unroll(captioner.start(grid()), tokens, given)
        loss = captioner.head(outputs[real]).square().sum()
        gradients.append(torch.autograd.grad(loss, list(captioner.parameters())))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-9)


@every_architecture
def test_gradients_of_unrolling_are_those_of_stepping(architecture):
    captioner, tokens = model(architecture), words()
    pull = torch.randn(B, T, V, dtype=torch.float64), torch.randn(B, T, R, dtype=torch.float64)

    def stepped(cells):
        state, found = captioner.start(Grid.of(cells, 2, 3)), []
        for t in range(T):
            logits, state, attention = captioner.step(tokens[:, t], state)
            found.append((logits, attention))
        logits, attention = zip(*found, strict=True)
        return torch.stack(logits, 1), None if None in attention else torch.stack(attention, 1)

    def gradients(run, retain=False):
        cells = grid().cells.requires_grad_()
        logits, attention = run(cells)
        loss = (logits * pull[0]).sum()
        if attention is not None:
            loss = loss + (attention * pull[1]).sum()
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


@every_architecture
def test_a_gradient_of_some_steps_alone(architecture):
    captioner, tokens, pictures = model(architecture), words(), grid()
    parameters = [p for n, p in captioner.named_parameters() if not n.startswith("head")]

    def gradients(given):
        outputs, attention = captioner.unroll(captioner.start(pictures), given)
        loss = outputs[:, 2].square().sum()
        if attention is not None:
            loss = loss + attention[:, 1, 0].sum()
        return torch.autograd.grad(loss, parameters)

    for one, other in zip(gradients(tokens), gradients(tokens[:, :3]), strict=True):
        assert torch.allclose(one, other, atol=1e-12, rtol=0)


@every_architecture
@pytest.mark.parametrize("lengths", [[3, 4, 2, 1], [3, 0, 2, 1]])
def test_lengths_that_rise_are_refused(architecture, lengths):
    captioner = model(architecture)
    with pytest.raises(ValueError, match="longest first"):
        captioner.unroll(captioner.start(grid()), words(), torch.tensor(lengths))


def test_the_rows_that_still_have_a_word_are_counted():
    assert active_rows(torch.tensor([4, 2, 2, 0]), 4, 5) == [3, 3, 1, 1, 0]
    assert active_rows(None, 4, 2) == [4, 4]


def test_steps_are_stacked_with_zeros_behind():
    stacked = stack_steps([torch.ones(3, 2), torch.ones(1, 2) * 2], 3)
    assert stacked.shape == (3, 2, 2)
    assert stacked[:, 0].eq(1).all()
    assert stacked[0, 1].eq(2).all()
    assert stacked[1:, 1].eq(0).all()


@pytest.mark.parametrize("architecture", WITH_ATTENTION)
def test_the_gaze_is_a_distribution(architecture):
    _, attention = model(architecture)(grid(), words())
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


@every_architecture
def test_a_selected_state_goes_on_as_its_own_row(architecture):
    captioner, tokens = model(architecture), words()
    _, state, _ = captioner.step(tokens[:, 0], captioner.start(grid()))
    rows = torch.tensor([3, 1, 1])
    whole, _, _ = captioner.step(tokens[:, 1], state)
    part, _, _ = captioner.step(tokens[rows, 1], state.select(rows))
    assert torch.allclose(part, whole[rows], atol=1e-12, rtol=0)


@every_architecture
def test_gradients_are_right(architecture):
    sizes = {"vocabulary": 4, "hidden": 3, "embedding": 2, "attention_width": 2, "dropout": 0.0}
    captioner = model(architecture, **sizes)
    tokens, lengths = torch.tensor([[1, 2, 3], [3, 0, 0]]), torch.tensor([3, 2])
    cells = grid(batch=2).cells[:, :3].clone().requires_grad_()

    def compute(cells, *weights):  # gradcheck moves the weights where they are
        outputs = captioner(Grid.of(cells, 1, 3), tokens, lengths)
        return tuple(x for x in outputs if x is not None)

    assert torch.autograd.gradcheck(compute, (cells, *captioner.parameters()))


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
    sizes = {"channels": 10, "vocabulary": 20, "embedding": 16, "hidden": 32}
    captioner = build_captioner(architecture, **sizes, dropout=0.0)
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
            "--attention-width: lstm has no such option; show-attend-tell, dual-attention have",
        ),
        (
            {"architecture": "transformer"},
            "--architecture transformer: expected one of rnn, lstm, attention-lstm, "
            "show-attend-tell, dual-attention",
        ),
    ],
)
def test_what_cannot_be_built_is_named(values, message):
    usual = {"architecture": "show-attend-tell", "channels": 4, "vocabulary": 9}
    with pytest.raises(UsageError, match=f"^{message}$"):
        build_captioner(**{**usual, **values})


@pytest.mark.parametrize("architecture", CAPTIONERS)
def test_the_configuration_builds_the_same_captioner(architecture):
    captioner = model(architecture)
    values = json.loads(json.dumps(captioner.config))
    assert values["architecture"] == architecture
    again = build_captioner(**captioner_config(values)).double().eval()
    again.load_state_dict(captioner.state_dict())
    assert torch.equal(again(grid(), words())[0], captioner(grid(), words())[0])


def test_the_configuration_of_an_earlier_version_is_read():
    earlier = {"architecture": "lstm", "channels": 5, "vocabulary": 9, "embedding": 3, "hidden": 4}
    earlier |= {"attention": 512, "dropout": 0.1, "grid_dropout": 0.2}
    captioner = build_captioner(**captioner_config(earlier))
    assert (captioner.options.dropout, captioner.options.grid_dropout) == (0.1, 0.2)
    values = captioner_config({**earlier, "architecture": "dual-attention"})
    assert values["attention_width"] == 512
    for extra in ({"layers": 2}, {"gaits": 1}):
        with pytest.raises(ModelError, match=f"unknown fields: .'{next(iter(extra))}'"):
            captioner_config({**earlier, **extra})

"""What is minimised, each written out by hand: losses, penalty, policy gradient, temperature."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetell.data.batches import CaptionBatch
from gazetell.data.records import CaptionRecord, Dataset
from gazetell.data.text import Tokenizer
from gazetell.metrics import cider_d
from gazetell.models.captioners import build_captioner
from gazetell.models.confidence import HIGH, LOW, fit_temperature
from gazetell.models.decoding import Decoded
from gazetell.models.encoders import Grid
from gazetell.training.answers import answer_loss
from gazetell.training.captions import (
    RewardedCaptions,
    advantages,
    divergence,
    doubly_stochastic,
    teacher_forcing,
)
from gazetell.training.options import train_options

N, T, R = 3, 5, 4


def gaze(seed=0):
    """Attention (N, T, R) that sums to 1 over the regions, zero behind captions of 5, 3 and 1."""
    random = torch.Generator().manual_seed(seed)
    alpha = torch.randn(N, T, R, generator=random, dtype=torch.float64).mul(2).softmax(2)
    return alpha * (torch.arange(T) < torch.tensor([[5], [3], [1]])).unsqueeze(2)


def papers(alpha):
    """Equation 14 of Show, Attend and Tell: the sum over regions, here of one caption (T, R)."""
    return sum((1 - sum(float(alpha[t][i]) for t in range(T))) ** 2 for i in range(R))


def test_the_penalty_is_the_papers_sum_divided_by_the_regions():
    alpha = gaze()
    expected = sum(papers(alpha[n]) / R for n in range(N)) / N
    assert float(doubly_stochastic(alpha)) == pytest.approx(expected, abs=1e-14)
    fixed = torch.zeros(N, R, R)
    fixed[:, :, 0] = 1  # R times the first region, the R-1 others never
    assert float(doubly_stochastic(fixed)) == ((R - 1) ** 2 + (R - 1)) / R
    assert float(doubly_stochastic(torch.full((N, R, R), 1 / R))) == 0


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["lstm", "attention-lstm", "dual-attention"])
def test_the_loss_of_captions_is_the_mean_over_words_and_the_penalty(architecture):
    tokenizer = Tokenizer.train(["a red box", "two blue balls on a box"], min_frequency=1)
    rows = tokenizer.encode_batch(["two blue balls", "a box", "red"], 10)
    tokens = torch.full((3, len(rows[0])), tokenizer.pad)
    for n, row in enumerate(rows):
        tokens[n, : len(row)] = torch.tensor(row)
    lengths, owner = torch.tensor([len(row) - 1 for row in rows]), torch.tensor([1, 0, 1])
    batch = CaptionBatch(torch.zeros(2), torch.arange(2), owner, tokens, lengths)
    torch.manual_seed(0)
    sizes = {"channels": 6, "vocabulary": tokenizer.vocab_size, "embedding": 4, "hidden": 5}
    captioner = build_captioner(architecture, **sizes).eval()
    grid = Grid.of(torch.randn(2, R, 6), 2, 2)
    logits, attention = captioner(Grid.of(grid.cells[owner], 2, 2), tokens[:, :-1], lengths)
    places = [(n, t, word) for n, row in enumerate(rows) for t, word in enumerate(row[1:])]
    nats = [-float(logits[n, t].log_softmax(0)[word]) for n, t, word in places]
    plain = float(teacher_forcing(captioner, grid, batch).loss())
    assert plain == pytest.approx(sum(nats) / len(nats), rel=1e-5)
    terms = teacher_forcing(captioner, grid, batch).terms(penalty=0.5)
    assert [count for _, count in terms] == [len(nats), 3][: len(terms)]
    penalised = sum(float(mean) for mean, _ in terms)
    expected = 0.0 if attention is None else 0.5 * float(doubly_stochastic(attention))
    assert (expected > 0.01) == (architecture != "lstm")
    assert penalised - plain == pytest.approx(expected, abs=1e-5)


def test_the_divergence_from_teachers_is_its_formula():
    torch.manual_seed(3)
    logits, taught = torch.randn(5, 7), torch.randn(5, 7).softmax(1)
    taught[0, 1:] = 0  # sure of a word
    taught[0, 0] = 1
    total = 0.0
    for mine, theirs in zip(logits.softmax(1).tolist(), taught.tolist(), strict=True):
        total += sum(p * math.log(p / q) for p, q in zip(theirs, mine, strict=True) if p)
    assert float(divergence(logits, taught)) == pytest.approx(total / 5, rel=1e-5)
    assert float(divergence(logits, logits.softmax(1))) == pytest.approx(0, abs=1e-6)


CAPTIONS = (
    ("a red ball on grass", "the ball lies on grass"),
    ("two dogs run", "dogs run on grass"),
    ("a man", "a man in a red hat"),
)


@pytest.fixture
def task(tmp_path, monkeypatch):
    records = tuple(
        CaptionRecord(str(n), f"{n}.png", captions, split)
        for split in ("train", "val")
        for n, captions in enumerate(CAPTIONS)
    )
    torch.manual_seed(0)
    small = {"encoder": "small-cnn", "encoder_weights": "none", "encoder_size": 32, "embedding": 6}
    small |= {"min_frequency": 1, "hidden": 7, "dropout": 0.0}
    options = train_options(reward="cider", samples=3, **small)
    return RewardedCaptions(Dataset("d", "table", tmp_path, records), options, lambda line: None)


def sampled(task, text, ended=True):
    return Decoded(task.tokenizer.encode(text)[1:-1], None, -1.0, -1.0, ended, -1.0)


def pictures(task):
    random = torch.Generator().manual_seed(3)
    return Grid.of(torch.randn(2, 4, task.encoder.channels, generator=random), 2, 2)


def test_the_baseline_is_the_mean_of_the_others():
    rewards = np.random.default_rng(0).random((4, 5))
    for b, s in np.ndindex(4, 5):
        others = np.delete(rewards[b], s).mean()
        assert advantages(rewards)[b, s] == pytest.approx(rewards[b, s] - others)


def test_the_reward_is_cider_d_with_the_end_as_a_word(task):
    texts = ["a red ball", "dogs run on grass", "a man in a"]
    captions = [sampled(task, text, ended) for text, ended in zip(texts, (1, 1, 0), strict=True)]
    references = [[[*c.split(), "END"] for c in captions] for captions in CAPTIONS]
    words = [["a", "red", "ball", "END"], ["dogs", "run", "on", "grass", "END"], texts[2].split()]
    assert task.reward(captions, [0, 1, 2]) == pytest.approx(cider_d(words, references)[1])
    whole, cut = task.reward([sampled(task, "a man"), sampled(task, "a man", False)], [2, 2])
    assert whole > cut


@pytest.mark.parametrize("baseline", ["mean", "greedy"])
def test_a_step_learns_from_what_samples_gain(task, baseline, monkeypatch):
    object.__setattr__(task.options, "reward_baseline", baseline)
    grid, batch = pictures(task), CaptionBatch(None, torch.tensor([1, 0]), None, None, None)
    seen = []
    monkeypatch.setattr(task, "policy_loss", lambda *asked: seen.append(asked) or torch.tensor(0.0))
    [(_, count)], logs = task.step(grid, batch, 0)
    (_, samples, gained), rewards = seen[0], task.reward(seen[0][1], [1, 1, 1, 0, 0, 0])
    rewards = rewards.reshape(2, 3)
    assert len(samples) == 6
    assert count == sum(len(sample.tokens) + sample.ended for sample in samples)
    assert logs["train_reward"] == pytest.approx(rewards.mean())
    greedy = task.reward(task.generate(grid), [1, 0])[:, None]
    expected = advantages(rewards) if baseline == "mean" else rewards - greedy
    assert gained == pytest.approx(expected)


def test_the_loss_is_the_policy_gradient_written_out(task):
    grid = pictures(task)
    texts = ["a man in a red hat", "grass", "two dogs", "a", "the ball lies on grass", "run"]
    ends = [True, True, False, True, True, False]
    samples = [sampled(task, text, ended) for text, ended in zip(texts, ends, strict=True)]
    gained = np.random.default_rng(1).normal(size=(2, 3))
    loss = task.policy_loss(grid, samples, gained)
    total, words = 0.0, 0
    for n, sample in enumerate(samples):
        picture = Grid.of(grid.cells[n // 3 : n // 3 + 1], 2, 2)
        state, last = task.network.start(picture), task.tokenizer.start
        for word in sample.tokens + [task.tokenizer.end] * sample.ended:
            logits, state, _ = task.network.step(torch.tensor([last]), state)
            total = total - gained[n // 3, n % 3] * logits.log_softmax(1)[0, word]
            last, words = word, words + 1
    assert loss.item() == pytest.approx((total / words).item(), rel=1e-5)
    parameters = list(task.network.parameters())
    found = torch.autograd.grad(loss, parameters)
    expected = torch.autograd.grad(total / words, parameters)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def by_hand(logits, targets, kind, smoothing):
    """Answer after answer, in Python."""
    losses = []
    for scores, target in zip(logits, targets, strict=True):
        if kind == "soft":
            each = [
                -t * math.log(1 / (1 + math.exp(-x))) - (1 - t) * math.log(1 / (1 + math.exp(x)))
                for x, t in zip(scores, target, strict=True)
            ]
            losses.append(sum(each))
            continue
        if not sum(target):
            continue
        whole = sum(math.exp(x) for x in scores)
        shares = [t / sum(target) for t in target]
        shares = [(1 - smoothing) * t + smoothing / len(shares) for t in shares]
        losses.append(
            -sum(t * math.log(math.exp(x) / whole) for x, t in zip(scores, shares, strict=True))
        )
    return sum(losses) / len(losses) if losses else 0.0


values = st.integers(0, 10).map(lambda n: n / 10)
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(values, min_size=width, max_size=width), min_size=1, max_size=5)
)


@settings(max_examples=80, deadline=None)
@given(
    tables,
    st.sampled_from(["hard", "soft", "votes"]),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.integers(0, 9999),
)
def test_the_loss_of_answers_equals_a_plain_loop(targets, kind, smoothing, seed):
    if kind == "hard":  # one answer, or none
        targets = [
            [float(n == row.index(max(row)) and max(row) > 0) for n in range(len(row))]
            for row in targets
        ]
    random = torch.Generator().manual_seed(seed)
    shape = len(targets), len(targets[0])
    logits = torch.randn(shape, generator=random, dtype=torch.float64) * 3
    loss = answer_loss(logits, torch.tensor(targets, dtype=torch.float64), kind, smoothing)
    assert loss.item() == pytest.approx(by_hand(logits.tolist(), targets, kind, smoothing))


@pytest.mark.parametrize("kind", ["hard", "votes"])
def test_questions_without_a_target_have_no_gradient(kind):
    logits = torch.randn(3, 4, requires_grad=True)
    targets = torch.tensor([[0, 1.0, 0, 0], [0, 0, 0, 0], [0.5, 0, 0, 0]])
    answer_loss(logits, targets, kind, 0.1).backward()
    assert logits.grad[1].abs().max() == 0
    assert (logits.grad[[0, 2]].abs().sum(1) > 0).all()
    assert torch.isfinite(logits.grad).all()
    nothing = answer_loss(logits, torch.zeros(3, 4), kind)
    nothing.backward()
    assert nothing.item() == 0


def problem(factor, sigmoid=False, questions=6000, answers=8, seed=0):
    """Logits that are ``factor`` times those that the truth was drawn from, and who was right."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(questions, answers)) * 1.5
    if sigmoid:
        right = random.random(questions) < 1 / (1 + np.exp(-logits.max(1)))
    else:
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        right = logits.argmax(1) == [random.choice(answers, p=row) for row in shares]
    return torch.from_numpy(logits * factor).float(), right.astype(float)


def naive(logits, right, temperature, sigmoid=False):
    """The loss, a question at a time."""
    total = 0.0
    for row, score in zip(logits.tolist(), right, strict=True):
        scaled = [value / temperature for value in row]
        if sigmoid:
            p = 1 / (1 + math.exp(-max(scaled)))
        else:
            p = 1 / sum(math.exp(value - max(scaled)) for value in scaled)
        p = min(max(p, 1e-12), 1 - 1e-12)
        total -= score * math.log(p) + (1 - score) * math.log(1 - p)
    return total / len(logits)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_no_temperature_of_a_search_is_better(sigmoid):
    logits, right = problem(2.0, sigmoid, questions=200, seed=4)
    right = np.random.default_rng(1).choice([0.3, 0.6, 0.9, 1.0], 200) * right  # people differ
    found = fit_temperature(logits, right, sigmoid=sigmoid)
    tried = np.geomspace(LOW, HIGH, 80)
    losses = [naive(logits, right, float(t), sigmoid) for t in tried]
    assert naive(logits, right, found, sigmoid) <= min(losses) + 1e-6
    assert found == pytest.approx(tried[int(np.argmin(losses))], rel=0.08)


def test_where_there_is_no_best_temperature_it_is_one():
    """Always right wants certainty, never right none at all, whatever the questions."""
    logits, _ = problem(1.0, questions=100)
    assert fit_temperature(logits, np.ones(100)) == 1
    assert fit_temperature(logits, np.zeros(100)) == 1
    assert fit_temperature(torch.zeros(0, 5), np.zeros(0)) == 1
    mixed = torch.tensor([[900.0, -900.0], [-900.0, 900.0]])  # which must not overflow
    assert LOW <= fit_temperature(mixed, np.array([1.0, 0.0])) <= HIGH

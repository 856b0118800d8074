"""Self-critical training: baselines, <end> in the reward, and the gradient, each by hand."""

import numpy as np
import pytest
import torch

from gazetell.data.batches import CaptionBatch
from gazetell.data.records import CaptionRecord
from gazetell.data.text import Tokenizer
from gazetell.metrics import cider_d
from gazetell.models.captioners import build_captioner
from gazetell.models.decoding import Decoded
from gazetell.models.encoders import Encoder, EncoderConfig, Grid
from gazetell.training.options import TrainOptions
from gazetell.training.reward import RewardTask, advantages

CAPTIONS = (
    ("a red ball on grass", "the ball lies on grass"),
    ("two dogs run", "dogs run on grass"),
    ("a man", "a man in a red hat"),
)


@pytest.fixture
def task():
    records = [
        CaptionRecord(str(n), f"{n}.png", captions, "train") for n, captions in enumerate(CAPTIONS)
    ]
    tokenizer = Tokenizer.train([c for r in records for c in r.captions], min_frequency=1)
    encoder = Encoder(EncoderConfig("small-cnn", size=32))
    torch.manual_seed(0)
    captioner = build_captioner(
        "attention-lstm",
        channels=encoder.channels,
        vocabulary=tokenizer.vocab_size,
        embedding=6,
        hidden=7,
        dropout=0.0,
    )
    options = TrainOptions(reward="cider", samples=3, encoder="small-cnn", encoder_weights="none")
    return RewardTask(encoder, captioner, tokenizer, options, records, training=records)


def sampled(task, text, ended=True):
    ids = task.tokenizer.encode(text)[1:-1]
    return Decoded(ids, None, -1.0, -1.0, ended)


def grid(task, batch):
    random = torch.Generator().manual_seed(3)
    return Grid.of(torch.randn(batch, 4, task.encoder.channels, generator=random), 2, 2)


def test_the_baseline_is_the_mean_of_the_others():
    rewards = np.random.default_rng(0).random((4, 5))
    for b in range(4):
        for s in range(5):
            others = np.delete(rewards[b], s).mean()
            assert advantages(rewards)[b, s] == pytest.approx(rewards[b, s] - others)


def test_the_reward_is_cider_d_with_the_end_as_a_word(task):
    texts = ["a red ball", "dogs run on grass", "a man in a"]
    captions = [sampled(task, text, ended) for text, ended in zip(texts, (1, 1, 0), strict=True)]
    found = task.reward(captions, [0, 1, 2])
    references = [[[*c.split(), "END"] for c in captions] for captions in CAPTIONS]
    words = [["a", "red", "ball", "END"], ["dogs", "run", "on", "grass", "END"], texts[2].split()]
    assert found == pytest.approx(cider_d(words, references)[1])


def test_a_caption_cut_short_is_worth_less_than_a_whole_one(task):
    whole, cut = sampled(task, "a man"), sampled(task, "a man", ended=False)
    rewards = task.reward([whole, cut], [2, 2])
    assert rewards[0] > rewards[1]


def test_the_greedy_baseline_is_the_reward_of_the_greedy_caption(task):
    task.options = TrainOptions(
        **{**task.options.to_dict(), "reward_baseline": "greedy", "samples": 2}
    )
    pictures = grid(task, 2)
    batch = CaptionBatch(None, torch.tensor([1, 0]), None, None, None)
    samples = [sampled(task, text) for text in ("two dogs run", "a man", "a red ball", "grass")]
    rewards, gained = task.judge(pictures, batch, samples)
    task.captioner.eval()
    from gazetell.models.decoding import DecodingOptions

    greedy = task.reward(task.generate(pictures, DecodingOptions(beam=1)), [1, 0])
    assert rewards == pytest.approx(task.reward(samples, [1, 1, 0, 0]).reshape(2, 2))
    assert gained == pytest.approx(rewards - greedy[:, None])


def test_the_loss_is_the_policy_gradient_written_out(task):
    pictures = grid(task, 2)
    texts = ["a man in a red hat", "grass", "two dogs", "a", "the ball lies on grass", "run"]
    ends = [True, True, False, True, True, False]
    samples = [sampled(task, text, ended) for text, ended in zip(texts, ends, strict=True)]
    gained = np.random.default_rng(1).normal(size=(2, 3))
    loss = task.policy_loss(pictures, samples, gained)
    total, words = 0.0, 0
    for n, sample in enumerate(samples):
        picture = Grid.of(pictures.cells[n // 3 : n // 3 + 1], 2, 2)
        state, last = task.captioner.start(picture), task.tokenizer.start
        for word in sample.tokens + [task.tokenizer.end] * sample.ended:
            logits, state, _ = task.captioner.step(torch.tensor([last]), state)
            total = total - gained[n // 3, n % 3] * logits.log_softmax(1)[0, word]
            last, words = word, words + 1
    assert loss.item() == pytest.approx((total / words).item(), rel=1e-5)
    parameters = list(task.captioner.parameters())
    found = torch.autograd.grad(loss, parameters)
    expected = torch.autograd.grad(total / words, parameters)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_scheduled_sampling_replaces_the_words_and_nothing_else(task):
    tokens = torch.tensor([task.tokenizer.encode(c[1]) for c in CAPTIONS[:1]])
    short = task.tokenizer.encode("a man")
    row = torch.tensor([short + [0] * (tokens.shape[1] - len(short))])
    tokens = torch.cat((tokens, row))
    batch = CaptionBatch(
        None,
        torch.tensor([0, 1]),
        torch.tensor([0, 1]),
        tokens,
        torch.tensor([tokens.shape[1] - 1, len(short) - 1]),
    )
    state = task.captioner.start(grid(task, 2))
    torch.manual_seed(1)
    assert torch.equal(task.mix(state, batch, 0.0), tokens)
    drawn = torch.stack([task.mix(state, batch, 1.0) for _ in range(40)])
    special = tokens <= task.tokenizer.unk
    assert (drawn[:, special] == tokens[special]).all()
    assert (drawn[:, ~special] > task.tokenizer.unk).all()
    assert drawn[:, ~special].ne(tokens[~special]).float().mean() > 0.5
    half = torch.stack([task.mix(state, batch, 0.5) for _ in range(200)])
    changed = half[:, ~special].ne(tokens[~special]).float().mean()
    always = drawn[:, ~special].ne(tokens[~special]).float().mean()
    assert abs(changed - always / 2) < 0.1

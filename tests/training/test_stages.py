"""Second stages and small options: each changes what it says, and resumes exactly."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gazetell import scenes
from gazetell.data.vectors import write_vectors
from gazetell.errors import ModelError, UsageError
from gazetell.inference.predict import load
from gazetell.models.captioners import CAPTIONERS
from gazetell.models.folder import load_model
from gazetell.training import fit
from gazetell.training.averaging import EMA, EVERY, decay_at
from gazetell.training.fit import resume, train
from gazetell.training.options import TrainOptions

TINY = TrainOptions(
    architecture="attention-lstm",
    embedding=16,
    hidden=24,
    attention_width=8,
    dropout=0.0,
    min_frequency=1,
    encoder="small-cnn",
    encoder_weights="none",
    encoder_trainable="none",
    encoder_size=32,
    batch=8,
    precision="fp32",
    learning_rate=3e-3,
    epochs=2,
    seed=5,
)


def quiet(line):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    scenes.generate(folder, train=24, val=6, test=6, questions_per_image=0, seed=1)
    return folder


@pytest.fixture(scope="module")
def first(data, tmp_path_factory):
    """A run of cross-entropy."""
    folder = tmp_path_factory.mktemp("first")
    train(data, folder, TINY, report=quiet)
    return folder


def rows(run):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "reward_share")} for row in found]


def weights(run):
    return load_model(run).captioner.state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("architecture", CAPTIONERS)
def test_every_architecture_trains_and_captions(architecture, data, tmp_path):
    train(data, tmp_path, replace(TINY, architecture=architecture, epochs=1), report=quiet)
    caption = load(tmp_path).caption(data / "images/scene-000000.png")
    assert (caption.attention is None) == (architecture in ("rnn", "lstm"))


def test_a_second_stage_goes_on_from_the_first(data, first, tmp_path):
    options = replace(
        TINY, architecture="rnn", hidden=7, init_from=str(first), learning_rate=1e-9, epochs=1
    )
    train(data, tmp_path / "run", options, report=quiet)
    before, after = weights(first), weights(tmp_path / "run")
    assert all(torch.allclose(before[k], after[k], atol=1e-6) for k in before)
    saved = json.loads((tmp_path / "run/training.json").read_text())["options"]
    assert (saved["architecture"], saved["hidden"]) == ("attention-lstm", 24)
    assert load_model(tmp_path / "run").tokenizer == load_model(first).tokenizer


def test_the_encoder_is_trained_in_a_second_stage_alone(data, first, tmp_path):
    options = replace(TINY, init_from=str(first), encoder_trainable="last:1", epochs=1)
    train(data, tmp_path / "run", options, report=quiet)
    before = load_model(first).encoder.state_dict()
    after = load_model(tmp_path / "run").encoder.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed
    assert all(name.startswith("trunk.15") or name.startswith("trunk.16") for name in changed)


def test_a_first_stage_that_is_not_there(data, tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        train(data, tmp_path / "run", replace(TINY, init_from=str(tmp_path / "nowhere")))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("baseline", ["mean", "greedy"])
def test_self_critical_training_raises_the_reward(baseline, data, first, tmp_path):
    options = replace(
        TINY,
        init_from=str(first),
        reward="cider",
        reward_baseline=baseline,
        learning_rate=2e-2,
        batch=4,
        epochs=25,
        eval_every=25,
        warmup=0.0,
        patience=9,
    )
    train(data, tmp_path / "run", options, report=quiet)
    rewards = [row["train_reward"] for row in rows(tmp_path / "run")]
    assert np.mean(rewards[-5:]) > 1.2 * np.mean(rewards[:5]), rewards
    found = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["reward_share"] < 1 for row in found)


STAGES = {
    "reward": {"reward": "cider", "samples": 3},
    "ema": {"ema": 0.9},
    "sampling": {"scheduled_sampling": 0.5, "dropout": 0.2},
}


@pytest.mark.parametrize("name", STAGES)
def test_a_killed_run_resumes_to_the_same_end(name, data, tmp_path, monkeypatch):
    options = replace(TINY, epochs=3, **STAGES[name])
    train(data, tmp_path / "whole", options, report=quiet)

    class Killed(Exception):
        pass

    def stop(line):
        if line.startswith("epoch 2/"):
            raise Killed

    with pytest.raises(Killed):
        train(data, tmp_path / "cut", options, report=stop)
    resume(tmp_path / "cut", report=quiet)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    plain = replace(TINY, epochs=3, dropout=options.dropout)
    train(data, tmp_path / "plain", plain, report=quiet)
    assert not same(weights(tmp_path / "plain"), weights(tmp_path / "whole"))


def test_the_average_is_what_is_kept(data, tmp_path, monkeypatch):
    """The callback against an average written out beside the training."""
    expected = {}

    class Beside(EMA):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)
            if trainer.global_step == 1 or trainer.global_step % EVERY == 0:
                n = trainer.global_step // EVERY
                for name, value in module.captioner.named_parameters():
                    decay = 0.0 if n == 0 else decay_at(n, 0.9)
                    old = expected.get(name, torch.zeros_like(value))
                    expected[name] = (decay * old + (1 - decay) * value).detach().clone()

    monkeypatch.setattr(fit, "EMA", Beside)
    options = replace(TINY, epochs=4, ema=0.9, eval_every=4)
    train(data, tmp_path / "run", options, report=quiet)
    kept = weights(tmp_path / "run")
    for name, value in expected.items():
        assert torch.allclose(kept[name], value, atol=1e-6), name


def test_word_vectors_are_where_training_begins(data, tmp_path):
    words = load_words(data)
    matrix = np.random.default_rng(0).normal(size=(len(words), 16)).astype(np.float32)
    write_vectors(tmp_path / "vectors.txt.gz", words, matrix)
    lines = []
    options = replace(
        TINY, word_vectors=str(tmp_path / "vectors.txt.gz"), freeze_words=True, epochs=1
    )
    train(data, tmp_path / "run", options, report=lines.append)
    model = load_model(tmp_path / "run")
    for word, row in zip(words, matrix, strict=True):
        number = model.tokenizer.vocabulary.index(word)
        assert np.allclose(model.captioner.embed.weight[number].detach(), row)
    assert any(str(len(words)) in line for line in lines)
    train(data, tmp_path / "free", replace(options, freeze_words=False), report=quiet)
    free = load_model(tmp_path / "free").captioner.embed.weight
    assert not torch.equal(free, model.captioner.embed.weight)
    with pytest.raises(UsageError, match="--embedding 16, not 8"):
        train(data, tmp_path / "narrow", replace(options, embedding=8), report=quiet)


def load_words(data):
    """Some words of the training captions."""
    from gazetell.data.records import Dataset
    from gazetell.data.text import Tokenizer

    captions = [text for r in Dataset.open(data).split("train") for text in r.captions]
    return list(Tokenizer.train(captions, min_frequency=1).vocabulary[4:20])

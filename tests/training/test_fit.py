"""Runs: they learn, they are killed and resume to the same end, and what is left out is said."""

import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

import gazetell
from gazetell import scenes
from gazetell.data.answers import AnswerVocabulary
from gazetell.data.batches import PixelSource
from gazetell.data.records import Dataset
from gazetell.data.text import Question, Tokenizer
from gazetell.data.vectors import write_vectors
from gazetell.errors import (
    DataError,
    ImageError,
    ModelError,
    StoppedError,
    UsageError,
    WriteError,
)
from gazetell.inference.evaluate import evaluate_answers
from gazetell.models.answerers import ANSWERERS
from gazetell.models.captioners import CAPTIONERS
from gazetell.models.confidence import fit_temperature
from gazetell.models.folder import load_model, save_model, update_metrics
from gazetell.training import captions, devices, fit, module
from gazetell.training.fit import finish, resume, train
from gazetell.training.options import train_options


def of_val(**changes):
    """A change of the records of the validation split."""
    return lambda record: replace(record, **changes) if record.split == "val" else record


def number(record):
    """Which picture of the scenes this is about."""
    return int(Path(record.image).stem.split("-")[1])


def load(run):
    return gazetell.load(run, precision="fp32")


@pytest.fixture(scope="module")
def first(tiny, tmp_path_factory):
    """A captioner with a frozen encoder."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    tiny.train(folder, encoder_trainable="none")
    return folder


@pytest.fixture(scope="module")
def answerer(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "answerer"
    tiny.train(folder, architecture="dmn-plus", attention_width=12, passes=2)
    return folder


# -- learning ----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", [*CAPTIONERS, *ANSWERERS])
def test_every_weight_of_every_model_learns(architecture, tiny, tmp_path, monkeypatch):
    """In every step: what got no gradient would keep other processes waiting for it."""
    idle = []

    def look(self, optimizer):
        idle.extend(n for n, p in self.named_parameters() if p.requires_grad and p.grad is None)

    monkeypatch.setattr("gazetell.training.fit.Training.on_before_optimizer_step", look)
    tiny.train(tmp_path, architecture=architecture, epochs=1, batch=16)
    assert not idle
    if architecture in CAPTIONERS:
        caption = load(tmp_path).caption(tiny.data / "images/scene-000000.png")
        assert (caption.attention is None) == (architecture in ("rnn", "lstm"))


def test_captions_of_a_few_pictures_are_learned_by_heart(tiny, tmp_path):
    large = {"hidden": 64, "embedding": 16, "learning_rate": 2e-2, "beta2": 0.95}
    lines = tiny.train(tmp_path, overfit=4, batch=4, epochs=80, eval_every=80, **large)
    last = tiny.rows(tmp_path)[-1]
    # Two captions a picture: their choice is what remains.
    assert last["train_loss"] < 0.3
    assert last["val_cider"] > 1.5
    assert "--overfit 4: trained and validated on the same pictures" in "\n".join(lines)
    model, dataset = load(tmp_path), Dataset.open(tiny.data)
    truth = scenes.read_truth(tiny.data)
    for record in dataset.split("train")[:4]:
        assert scenes.judge(model.caption(dataset.path(record)).text, truth[record.id])


@pytest.mark.parametrize("architecture", ANSWERERS)
def test_answers_about_a_few_pictures_are_learned_by_heart(architecture, tiny, tmp_path):
    sizes = {"embedding": 32, "learning_rate": 8e-3, "beta2": 0.95, "label_smoothing": 0.0}
    sizes |= {
        "bow-mlp": {"width": 64, "layers": 1},
        "lstm-vqa": {"hidden": 48, "layers": 1},
        "attention-vqa": {"hidden": 48, "width": 64},
        "dmn-plus": {"hidden": 48, "attention_width": 12, "passes": 2},
    }[architecture]
    sizes["label_smoothing"] = None
    shared = {"overfit": 4, "batch": 2, "epochs": 20, "eval_every": 20}
    lines = tiny.train(tmp_path, architecture=architecture, **shared, **sizes)
    rows = tiny.rows(tmp_path)
    assert rows[-1]["val_accuracy"] == 1
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] / 3
    assert "best accuracy on val 100.0" in lines[-1]
    options = load_model(tmp_path).network.options  # overfitting is without dropout
    assert options.dropout == options.word_dropout == options.grid_dropout == 0


def test_a_run_leaves_a_complete_folder(tiny, answerer):
    rows = tiny.rows(answerer)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert {"val_loss", "val_accuracy", "learning_rate"} <= rows[0].keys()
    assert list((answerer / "tensorboard").glob("events.*"))
    saved = json.loads((answerer / "training.json").read_text())["options"]
    assert (saved["passes"], saved["seed"]) == (2, 5)
    model, training = load_model(answerer), Dataset.open(tiny.data).questions_of("train")
    assert model.answers == AnswerVocabulary.train(training)
    assert (model.about["questions"], model.about["pictures"]) == (len(training), 16)
    # The folder holds the weights of the best epoch, whichever that was.
    best = torch.load(answerer / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    mine = model.network.state_dict()
    assert all(torch.equal(mine[k], best[f"answerer.{k}"]) for k in mine)
    figures = evaluate_answers(load(answerer), Dataset.open(tiny.data), split="val").figures
    top = max(row["val_accuracy"] for row in rows)
    assert figures["metrics"]["accuracy"] == pytest.approx(100 * top, abs=0.01)


def test_the_temperature_is_the_one_of_the_validation_split(tiny, answerer):
    model, dataset = load(answerer), Dataset.open(tiny.data)
    logits, right = [], []
    for record in dataset.questions_of("val"):
        grid = model.encode(dataset.path(record)).grid
        row, _ = model.logits(grid, [model.read_question(record.question)], torch.tensor([0]))
        logits.append(row)
        right.append(float(model.answers.answers[int(row.argmax())] == record.answers[0]))
    assert model.temperature == pytest.approx(fit_temperature(torch.cat(logits), right), rel=1e-3)


@pytest.mark.parametrize("targets", ["soft", "votes"])
def test_targets_of_several_people(tiny, tmp_path, targets):
    def voted(record):
        return replace(record, answers=(*[record.answers[0]] * 7, "a b", "c", "d"))

    folder = tiny.changed(tmp_path / "voted", questions=voted)
    chosen = {"architecture": "lstm-vqa", "layers": 1, "targets": targets}
    tiny.train(tmp_path / "run", data=folder, **chosen)
    rows = tiny.rows(tmp_path / "run")
    assert rows[1]["train_loss"] < rows[0]["train_loss"]
    model = load(tmp_path / "run")
    assert model.sigmoid is (targets == "soft")
    asked = [Question("", [4], [])]
    total = sum(model.probabilities(torch.zeros(1, len(model.answers)), asked)[0].tolist())
    assert total == pytest.approx(len(model.answers) / 2 if targets == "soft" else 1, rel=1e-4)


def test_the_same_seed_gives_the_same_model_and_another_seed_another(tiny, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        tiny.train(tmp_path / name, epochs=1, seed=seed)
    assert tiny.same(tmp_path / "a", tmp_path / "b")
    assert not tiny.same(tmp_path / "a", tmp_path / "c")


def test_a_frozen_encoder_trains_from_its_cache_and_from_pixels_alike(tiny, tmp_path):
    losses = []
    for name in ("auto", "none"):
        frozen = {"encoder": "squeezenet1_1", "encoder_size": 64, "encoder_trainable": "none"}
        tiny.train(tmp_path / name, **frozen, features=name, epochs=1)
        losses.append(tiny.rows(tmp_path / name)[0]["val_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)  # float16 on disk
    assert list((tiny.data / "features").glob("squeezenet1_1-64-*"))


def test_a_quick_try_keeps_what_it_encoded_and_the_time_is_told(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("gazetell.process.FIRST", 0)
    monkeypatch.setattr("gazetell.process.EVERY", 0)
    folder, frozen = tiny.changed(tmp_path / "data"), {"encoder_trainable": "none", "epochs": 1}
    said = [
        "\n".join(tiny.train(tmp_path / name, data=folder, **frozen, **few))
        for name, few in (("a", {"limit": 3, "batch": 1}), ("b", {"overfit": 3}), ("c", {}))
    ]
    assert "pictures to encode: 6 of 6, " in said[0]
    assert re.search(r"\n3 steps \(--epochs 1\): \d+ s left at most, besides validation\n", said[0])
    assert "to encode" not in said[1]
    assert "pictures to encode: 18 of 24, " in said[2]


@pytest.mark.parametrize("baseline", ["mean", "greedy"])
def test_self_critical_training_raises_the_reward(baseline, tiny, first, tmp_path):
    chosen = {"learning_rate": 2e-2, "batch": 4, "epochs": 25, "eval_every": 25, "warmup": 0.0}
    chosen |= {"reward": "cider", "reward_baseline": baseline, "encoder_trainable": "none"}
    tiny.train(tmp_path, tiny.second(first, **chosen))
    rewards = [row["train_reward"] for row in tiny.rows(tmp_path)]
    assert np.mean(rewards[-5:]) > 1.2 * np.mean(rewards[:5]), rewards
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["reward_share"] < 1 for row in rows)


def test_random_crops_are_of_the_training_pictures_and_drawn_anew(tiny, tmp_path, monkeypatch):
    seen = []
    real = PixelSource.load

    def load(self, names, mirrored, crops=None):
        seen.append((names, crops))
        assert self.kept.keys() == {r.image for r in Dataset.open(tiny.data).split("val")}
        return real(self, names, mirrored, crops)

    monkeypatch.setattr(PixelSource, "load", load)
    tiny.train(tmp_path, random_crop=0.4, workers=0)
    drawn = [dict(zip(*each, strict=True)) for each in seen if each[1] is not None]
    epochs = [drawn[0] | drawn[1], drawn[2] | drawn[3]]
    assert epochs[0].keys() == epochs[1].keys()
    areas = [
        (right - left) * (low - top) for each in epochs for left, top, right, low in each.values()
    ]
    assert len(set(areas)) == 32
    assert 0.39 < min(areas) < 0.7
    assert any(crops is None for _, crops in seen)  # validation


def test_the_reward_counts_n_grams_in_another_dataset(tiny, first, tmp_path):
    more = tiny.changed(tmp_path / "more", captions=of_val(split="train"))
    given = {"reward": "cider", "samples": 2, "encoder_trainable": "none", "epochs": 1}
    own = tiny.train(tmp_path / "own", tiny.second(first, **given))
    references = {"reward_references": str(more)}
    lines = tiny.train(tmp_path / "other", tiny.second(first, **given, **references))
    assert any("counted in 22 pictures" in line for line in lines)
    assert not any("counted in" in line for line in own)
    rewards = [tiny.rows(tmp_path / name)[0]["train_reward"] for name in ("own", "other")]
    assert rewards[0] != rewards[1]


def test_a_student_learns_what_its_teacher_says(tiny, first, tmp_path):
    lent = dict.fromkeys(("encoder", "encoder_weights", "encoder_size"))
    lent |= {"encoder_from": str(first), "encoder_trainable": "none", "epochs": 6, "batch": 4}
    again = shutil.copytree(first, tmp_path / "again")
    taught = {"teacher": (str(first), str(again)), "teacher_weight": 1.0, "hidden": 20}
    tiny.train(tmp_path / "student", **lent, **taught, seed=9)
    losses = [row["train_loss"] for row in tiny.rows(tmp_path / "student")]
    assert 0 < losses[-1] < 0.5 * losses[0]  # of the divergence alone, which can come to 0
    for changes, named in (
        ({"min_frequency": 5}, "has another vocabulary"),
        ({"encoder_trainable": "none", "seed": 9}, "has another encoder"),
        ({"encoder_size": 64}, "another size"),
    ):
        with pytest.raises(UsageError, match=f"--teacher .*{named}"):
            tiny.train(tmp_path / "refused", teacher=(str(first),), **changes)


def test_the_average_is_what_is_kept(tiny, tmp_path, monkeypatch):
    """The callback against an average written out beside the training."""
    expected, step = {}, []
    real = fit.Training.on_train_batch_end

    def beside(self, *rest):
        real(self, *rest)
        n = len(step)
        step.append(n)
        decay = min(0.9, (1 + n) / (10 + n)) if n else 0.0
        for name, value in self.task.network.named_parameters():
            old = expected.get(name, torch.zeros_like(value))
            expected[name] = (decay * old + (1 - decay) * value).detach().clone()

    monkeypatch.setattr(fit.Training, "on_train_batch_end", beside)
    tiny.train(tmp_path, epochs=4, ema=0.9, eval_every=4, encoder_trainable="none")
    kept = load_model(tmp_path).network.state_dict()
    assert len(step) == 8
    for name, value in expected.items():
        assert torch.allclose(kept[name], value, atol=1e-6), name


def test_word_vectors_are_where_training_begins(tiny, tmp_path):
    texts = [text for r in Dataset.open(tiny.data).split("train") for text in r.captions]
    words = Tokenizer.train(texts, min_frequency=1).vocabulary[4:20]
    matrix = np.random.default_rng(0).normal(size=(len(words), 12)).astype(np.float32)
    write_vectors(tmp_path / "vectors.txt.gz", words, matrix)
    begun = {"word_vectors": str(tmp_path / "vectors.txt.gz"), "epochs": 1}
    lines = tiny.train(tmp_path / "frozen", **begun, freeze_words=True)
    tiny.train(tmp_path / "free", **begun)
    frozen, free = (load_model(tmp_path / name) for name in ("frozen", "free"))
    for word, row in zip(words, matrix, strict=True):
        place = frozen.tokenizer.vocabulary.index(word)
        assert np.allclose(frozen.network.embed.weight[place].detach(), row)
    assert not torch.equal(free.network.embed.weight, frozen.network.embed.weight)
    assert any(str(len(words)) in line for line in lines)
    assert not any("\n" in line for line in lines)
    with pytest.raises(UsageError, match="--embedding 12, not 8"):
        tiny.train(tmp_path / "narrow", **begun, embedding=8)
    # A model lends its words, also to an answerer.
    asked = {"architecture": "attention-vqa", "freeze_words": True, "epochs": 1}
    tiny.train(tmp_path / "asked", word_vectors=str(tmp_path / "frozen"), **asked)
    borrower = load_model(tmp_path / "asked")
    both = set(frozen.tokenizer.vocabulary[4:]) & set(borrower.tokenizer.vocabulary)
    assert len(both) > 2
    for word in both:
        models = (frozen, borrower)
        rows = [m.network.embed.weight[m.tokenizer.vocabulary.index(word)] for m in models]
        assert torch.equal(*rows)
    words = len(frozen.tokenizer.vocabulary) - 4
    foreign = [f"zz{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(words)]
    others = Tokenizer.train(foreign, min_frequency=1)
    save_model(tmp_path / "foreign", replace(frozen, tokenizer=others))
    with pytest.raises(DataError, match="foreign: its model has none of the words"):
        tiny.train(tmp_path / "no", word_vectors=str(tmp_path / "foreign"), epochs=1)


# -- beginning with an earlier model -----------------------------------------------------------


def test_a_second_stage_goes_on_from_the_first(tiny, first, answerer, tmp_path):
    still = {"learning_rate": 1e-9, "weight_decay": 0.0, "epochs": 1}
    for name, run in (("captions", first), ("answers", answerer)):
        chosen = tiny.second(run, **still, encoder_trainable="none")
        tiny.train(tmp_path / name, chosen)
        before, after = tiny.weights(run), tiny.weights(tmp_path / name)
        assert all(torch.allclose(before[k], after[k], atol=1e-6) for k in before)
        assert load_model(tmp_path / name).tokenizer == load_model(run).tokenizer


def test_the_encoder_is_trained_in_a_second_stage_alone(tiny, first, tmp_path):
    tiny.train(tmp_path, tiny.second(first, encoder_trainable="last:1", epochs=1))
    before = load_model(first).encoder.state_dict()
    after = load_model(tmp_path).encoder.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed
    assert all(name.startswith(("trunk.15", "trunk.16")) for name in changed)


@pytest.mark.parametrize("trainable", ["none", "all"])
def test_a_captioner_lends_its_encoder(tiny, first, tmp_path, trainable):
    sizes = {"encoder": None, "encoder_weights": None, "encoder_size": None, "epochs": 1}
    lent = {"architecture": "lstm-vqa", "encoder_from": str(first), "encoder_trainable": trainable}
    tiny.train(tmp_path, **sizes, **lent)
    prints = [load_model(run).encoder.fingerprint() for run in (first, tmp_path)]
    assert (prints[0] == prints[1]) == (trainable == "none")
    assert f"- Encoder from: {first.name}\n" in (tmp_path / "README.md").read_text()
    if trainable == "none":  # the two share the encoding of a picture
        encoding = load(first).encode(next((tiny.data / "images").iterdir()))
        assert load(tmp_path).ask(encoding, "is there a star?").text


@pytest.mark.parametrize("trainable", ["none", None])
def test_a_blind_twin_needs_no_pictures(tiny, tmp_path, trainable):
    shutil.copytree(tiny.data, tmp_path / "data")
    shutil.rmtree(tmp_path / "data/images")
    blind = {"architecture": "lstm-vqa", "blind": True, "encoder_trainable": "none"}
    tiny.train(tmp_path / "run", data=tmp_path / "data", **blind)
    model, dataset = load(tmp_path / "run"), Dataset.open(tiny.data)
    record = dataset.questions_of("test")[0]
    images = sorted({r.image for r in dataset.questions_of("test")})
    one, other = (model.ask(dataset.root / image, record.question) for image in images)
    assert one.confidence == other.confidence
    # What it was trained on, zeros, is what it sees when it is used.
    found = evaluate_answers(model, dataset, split="val").figures["metrics"]["accuracy"]
    top = max(row["val_accuracy"] for row in tiny.rows(tmp_path / "run"))
    assert found == pytest.approx(100 * top, abs=0.01)


@pytest.mark.parametrize("architecture", CAPTIONERS)
def test_a_captioner_learns_words_blind_and_goes_on_seeing(architecture, tiny, tmp_path):
    shutil.copytree(tiny.data, tmp_path / "data")
    shutil.rmtree(tmp_path / "data/images")
    sizes = dict.fromkeys(("encoder", "encoder_weights", "encoder_size"))
    blind = {"architecture": architecture, "blind": True, "encoder_trainable": "none", "epochs": 4}
    said = tiny.train(tmp_path / "blind", data=tmp_path / "data", **sizes, **blind)
    assert any("small-cnn" in line for line in said)
    losses = [row["train_loss"] for row in tiny.rows(tmp_path / "blind")]
    assert losses[-1] < losses[0]
    images = sorted((tiny.data / "images").iterdir())[:2]
    model = load(tmp_path / "blind")
    one, other = model.captions(images)
    assert one.words == other.words
    assert one.attention is None
    # Another encoder, with other channels: the words stay, what sees the picture is new.
    second = dict.fromkeys(("embedding", "hidden", "min_frequency"))
    second |= {"init_from": str(tmp_path / "blind"), "encoder_project": 24, "learning_rate": 1e-9}
    said = tiny.train(tmp_path / "seeing", **second)
    assert any("what sees is random" in line for line in said)
    seeing = load(tmp_path / "seeing")
    ids = range(model.tokenizer.vocab_size)
    assert seeing.tokenizer.words(ids) == model.tokenizer.words(ids)
    before, after = (m.captioner.state_dict() for m in (model, seeing))
    for name, weight in before.items():
        columns = weight.shape[-1] - (
            model.encoder.channels if weight.shape != after[name].shape else 0
        )
        if columns:
            kept = [w[..., w.shape[-1] - columns :] for w in (weight, after[name])]
            assert torch.allclose(*kept, atol=1e-4), name
    with pytest.raises(UsageError, match="--encoder-from: has no effect with --init-from"):
        tiny.second(tmp_path / "seeing", encoder_from=str(tmp_path / "seeing"))
    lent = tiny.second(
        tmp_path / "blind", encoder_from=str(tmp_path / "seeing"), encoder_trainable="none"
    )
    assert lent.encoder_size == 32


# -- killed and resumed ------------------------------------------------------------------------

RUNS = {
    "captions": {"dropout": 0.1},
    "reward": {"reward": "cider", "samples": 3},
    "crops": {"random_crop": 0.5, "flip": True, "workers": 1},
    "ema": {"ema": 0.9},
    "dmn-plus": {"architecture": "dmn-plus", "attention_width": 12, "targets": "votes"},
    "lstm-vqa": {"architecture": "lstm-vqa", "word_dropout": 0.2, "flip": True, "ema": 0.9},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_dies_and_is_resumed_ends_as_if_it_had_not(name, tiny, tmp_path):
    tiny.train(tmp_path / "whole", epochs=3, **RUNS[name])
    tiny.killed(tmp_path / "died", epochs=3, **RUNS[name])
    with pytest.raises(ModelError, match="--resume"):
        load_model(tmp_path / "died")
    lines = tiny.resume(tmp_path / "died")
    assert not any(line.startswith("epoch 1/") for line in lines)
    assert tiny.same(tmp_path / "whole", tmp_path / "died")
    assert tiny.rows(tmp_path / "whole") == tiny.rows(tmp_path / "died")
    ends = [load_model(tmp_path / run) for run in ("whole", "died")]
    assert getattr(ends[0], "temperature", 0) == getattr(ends[1], "temperature", 0)


def test_one_process_at_a_time_writes_a_run_and_needs_its_best_epoch(tiny, tmp_path):
    run = tmp_path / "run"
    tiny.killed(run, epoch=3)
    with FileLock(run / ".lock"), pytest.raises(UsageError, match="another training is writing"):
        tiny.resume(run)
    (run / "checkpoints" / "best.ckpt").write_bytes(b"half")
    with pytest.raises(ModelError, match=r"best\.ckpt: cannot be read"):
        tiny.resume(run)
    assert not (run / "config.json").exists()


@pytest.mark.timeout(180)
def test_kill_9_then_resume_ends_in_the_same_weights(tiny, tmp_path):
    tiny.train(tmp_path / "whole", epochs=4)
    run, fork = tmp_path / "killed", multiprocessing.get_context("fork")
    lines, told = fork.Pipe(duplex=False)
    given = (tiny.data, run, tiny.options(epochs=4))
    process = fork.Process(target=train, args=given, kwargs={"report": told.send})
    process.start()
    told.close()  # else nobody hears the end of a process that failed
    while not lines.recv().startswith("epoch 2/4"):
        pass
    time.sleep(0.05)  # some time into the third epoch, wherever that is
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    tiny.resume(run)
    assert tiny.same(tmp_path / "whole", run)
    assert tiny.rows(tmp_path / "whole") == tiny.rows(run)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_moved_folder_and_one_of_an_earlier_version_resume(earlier, tiny, tmp_path):
    """The checkpoint of the earlier version says that its callbacks watch val_cider."""
    tiny.train(tmp_path / "whole", epochs=4, learning_rate=1e-2)
    tiny.killed(tmp_path / "old", epoch=3, learning_rate=1e-2)
    run = (tmp_path / "old").rename(tmp_path / "new")
    if earlier:
        last = run / "checkpoints/last.ckpt"
        state = torch.load(last, weights_only=True)
        states = state["callbacks"]
        state["callbacks"] = {k.replace("'choice'", "'val_cider'"): v for k, v in states.items()}
        assert state["callbacks"].keys() != states.keys()
        torch.save(state, last)
        saved = json.loads((run / "training.json").read_text())
        del saved["sha256"]
        (run / "training.json").write_text(json.dumps(saved))
    tiny.resume(run)
    assert not (tmp_path / "old").exists()
    ends = [
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["callbacks"]
        for name in ("whole", "new")
    ]
    for key, value in ends[0].items():
        other = ends[1][key]
        assert value == other if key.startswith("EarlyStopping") else True
        assert value.get("best_model_score") == other.get("best_model_score")


def interrupted(tiny, run, when, **changes):
    """A run that somebody interrupts at a line, and the lines after it."""
    lines = []

    def interrupt(line):
        if lines or line.startswith(when):
            lines.append(line)
        if line.startswith(when):
            raise KeyboardInterrupt

    with pytest.raises(StoppedError):
        train(tiny.data, run, tiny.options(**changes), report=interrupt)
    return lines[1:]


def test_ctrl_c_leaves_the_best_model_so_far_and_the_run_goes_on(tiny, tmp_path):
    """It ends as a run that nobody stopped; its temperature is fitted in the meantime, too."""
    whole, run, before = tmp_path / "whole", tmp_path / "run", signal.getsignal(signal.SIGINT)
    chosen = {"architecture": "lstm-vqa", "layers": 1, "epochs": 4}
    (line,) = interrupted(tiny, run, "epoch 3/4", **chosen)
    assert line.startswith("stopped after epoch 3; the best model so far is being written")
    assert f"--finish {run}" in line
    assert line.endswith(f"--resume {run}")
    assert signal.getsignal(signal.SIGINT) is before
    best, last = (
        torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True) for name in ("best", "last")
    )
    assert best["epoch"] < 3
    assert last["epoch"] == 2  # the third: what the line said is kept
    model = load_model(run)
    words = model.network.state_dict()
    assert all(torch.equal(words[k], best["state_dict"][f"answerer.{k}"]) for k in words)
    assert model.temperature != 1
    assert load(run).ask(tiny.data / "images/scene-000000.png", "is there a star?").text
    assert not fit.is_finished(run)
    lines = tiny.resume(run)
    assert "resuming" in lines[0]
    assert [line[:9] for line in lines if line.startswith("epoch ")] == ["epoch 4/4"]
    assert fit.is_finished(run)
    tiny.train(whole, **chosen)
    assert tiny.same(whole, run)
    assert tiny.rows(whole) == tiny.rows(run)
    assert load_model(run).temperature == load_model(whole).temperature
    assert "is finished" in tiny.resume(run)[0]


def test_ctrl_c_again_leaves_the_writing_to_finish(tiny, tmp_path):
    run = tmp_path / "run"
    with tiny.ends_at(1, KeyboardInterrupt), pytest.raises(StoppedError):
        tiny.train(run)
    with pytest.raises(ModelError, match=f"--resume {run}"):  # there was no epoch to keep
        finish(run)
    run, said = tmp_path / "again", []

    def again(line):
        said.append(line)
        if line.startswith("stopped"):
            raise KeyboardInterrupt

    with tiny.ends_at(2, KeyboardInterrupt), pytest.raises(StoppedError):
        train(tiny.data, run, tiny.options(epochs=4), report=again)
    assert said[-1].startswith("stopped after epoch 1;")  # its checkpoint holds no more
    assert not any(line.startswith("epoch 2/4") for line in said)
    with pytest.raises(ModelError, match=f"take the best model so far: .*--finish {run}"):
        load_model(run)
    finish(run, report=said.append)
    assert said[-1].startswith(f"model written to {run}; best ")
    assert said[-1].endswith("(epoch 1)")
    assert load_model(run).about["epochs"] == 1
    assert "resuming" in tiny.resume(run)[0]
    finish(run, report=said.append)
    assert "is finished" in said[-1]


def test_a_run_is_extended(tiny, tmp_path):
    tiny.train(tmp_path / "whole", epochs=4)
    run = tmp_path / "run"
    tiny.train(run, epochs=2)
    with pytest.raises(UsageError, match=f"--epochs 2: {run} has trained 2 already"):
        resume(run, epochs=2)
    lines = []
    resume(run, epochs=4, report=lines.append)
    assert any(
        "the learning rate is that of a run of 4 epochs (--schedule cosine)" in x for x in lines
    )
    rates = [[row["learning_rate"] for row in tiny.rows(tmp_path / n)] for n in ("whole", "run")]
    assert rates[0][2:] == pytest.approx(rates[1][2:])
    assert load_model(run).about["epochs"] == 4
    assert "is finished" in tiny.resume(run)[0]
    assert "epochs = 4\n" in (run / "recipe.toml").read_text()
    assert "It began with --epochs 2" in (run / "recipe.toml").read_text()


def test_a_run_repeats_by_its_recipe(tiny, tmp_path):
    chosen = {"dropout": 0.2, "flip": True, "encoder_trainable": "last:2", "ema": 0.9}
    tiny.train(tmp_path / "one", epochs=1, **chosen)
    recipe = tmp_path / "one/recipe.toml"
    tiny.train(tmp_path / "two", train_options(str(recipe)))
    assert tiny.same(tmp_path / "one", tmp_path / "two")
    head, _, rest = recipe.read_text().partition("\n")
    assert head == f"# gazetell train {tiny.data} --recipe {recipe} --out NEW repeats this run."
    assert rest == (tmp_path / "two/recipe.toml").read_text().partition("\n")[2]


class Kept:
    """Stands for the package trackio: what it was told."""

    def __init__(self):
        self.said = []

    def init(self, **about):
        print("hello")
        self.said.append(about)
        return self

    def log(self, figures, step):
        self.said.append((step, figures))

    def finish(self):
        self.said.append("finished")


def test_curves_go_where_the_logger_says(tiny, tmp_path, monkeypatch, capsys):
    kept = Kept()
    tiny.train(tmp_path / "csv", epochs=1, logger="csv")
    rows = (tmp_path / "csv/csv/version_0/metrics.csv").read_text().splitlines()
    assert "val_loss" in rows[0]
    monkeypatch.setattr("gazetell.training.module.find_spec", {"trackio": True}.get)
    monkeypatch.setitem(sys.modules, "trackio", kept)
    with pytest.raises(UsageError, match="--logger wandb: the package wandb is not installed"):
        tiny.train(tmp_path / "no", logger="wandb")
    assert not (tmp_path / "no").exists()
    tiny.train(tmp_path / "run", epochs=1, logger="trackio")
    about, *figures, last = kept.said
    assert about["name"].startswith("run-")
    assert about["config"]["seed"] == 5
    assert any("val_loss" in row for _, row in figures)
    assert last == "finished"
    assert "hello" not in capsys.readouterr().out
    monkeypatch.setattr(kept, "init", lambda **about: 1 / 0)
    with pytest.raises(UsageError, match="--logger trackio: cannot begin: division by zero"):
        tiny.train(tmp_path / "fails", logger="trackio")
    tiny.train(tmp_path / "fails", epochs=1)  # what failed is no run yet


def test_a_full_disk_is_one_line_and_the_run_resumes(tiny, tmp_path, monkeypatch):
    """The disk is full in the middle of the second epoch's checkpoint: the first one's stays."""
    real, calls = module.TorchCheckpointIO.save_checkpoint, []

    def full(self, state, path, *rest):
        calls.append(path)
        if len(calls) < 4:
            return real(self, state, path, *rest)
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.TorchCheckpointIO, "save_checkpoint", full)
    with pytest.raises(WriteError, match=r"last\.ckpt: .*No space left"):
        tiny.train(tmp_path, learning_rate=1e-2)
    monkeypatch.undo()
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 0
    assert "epoch 2/2" in "\n".join(tiny.resume(tmp_path))
    assert [row["epoch"] for row in tiny.rows(tmp_path)] == [1, 2]


def test_a_run_that_stopped_early_trains_no_further(tiny, tmp_path, monkeypatch):
    def interrupted(*rest):
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "save_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny.train(tmp_path, epochs=20, patience=1, learning_rate=0.3)
    epochs = len(tiny.rows(tmp_path))
    assert epochs < 20
    monkeypatch.undo()
    tiny.resume(tmp_path)
    assert len(tiny.rows(tmp_path)) == epochs
    for other in (1, 40):
        said = f"--epochs {other}: .* stopped early after epoch {epochs} .*--init-from"
        with pytest.raises(UsageError, match=said):
            resume(tmp_path, epochs=other)
    update_metrics(tmp_path, {"metrics": {"cider": 1.0}})
    assert "is finished" in tiny.resume(tmp_path)[0]  # and keeps its figures
    assert load_model(tmp_path).metrics == {"metrics": {"cider": 1.0}}


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch evil",)


def test_what_cannot_be_resumed_is_one_line(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tiny.changed(tmp_path / "data")
    tiny.killed(tmp_path / "run", data=data)
    last = tmp_path / "run/checkpoints/last.ckpt"
    whole = last.read_bytes()
    torch.save(torch.load(last, weights_only=True) | {"extra": Evil()}, last)
    with pytest.raises(ModelError, match=r"last\.ckpt: cannot be read"):
        tiny.resume(tmp_path / "run")
    assert not (tmp_path / "evil").exists()
    last.write_bytes(whole[:5000])
    with pytest.raises(ModelError, match=r"last\.ckpt: cannot be read"):
        tiny.resume(tmp_path / "run")
    tiny.changed(data, captions=lambda r: r if r.split != "val" else None)
    with pytest.raises(ModelError, match="other records"):
        tiny.resume(tmp_path / "run")
    (tmp_path / "run/training.json").write_text('{"data": "x"}')
    with pytest.raises(ModelError, match="malformed"):
        tiny.resume(tmp_path / "run")
    with pytest.raises(ModelError, match="no run to resume"):
        tiny.resume(tmp_path)


# -- what chooses the best epoch ---------------------------------------------------------------

ALIKE = of_val(captions=("a red star",))


def one_val(record):
    return record if record.split == "train" or number(record) == 16 else None


@pytest.mark.parametrize("change", [one_val, ALIKE], ids=["one picture", "alike"])
def test_where_cider_is_zero_by_definition_the_loss_chooses(change, tiny, tmp_path):
    folder = tiny.changed(tmp_path / "data", captions=change)
    chosen = {"epochs": 6, "patience": 2, "learning_rate": 1e-2}
    lines = tiny.train(tmp_path / "run", data=folder, **chosen)
    rows = tiny.rows(tmp_path / "run")
    losses = [row["val_loss"] for row in rows]
    assert all(row["val_cider"] == 0 for row in rows)
    (said,) = (line for line in lines if line.startswith("the best epoch is chosen by"))
    assert "by the loss on val: " in said
    assert "CIDEr" in said
    assert float(lines[-1].rpartition("best loss on val ")[2]) == pytest.approx(
        min(losses), abs=1e-4
    )
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert losses[best["epoch"]] == min(losses)
    assert best["epoch"] > 0


def test_where_all_answers_are_one_the_loss_chooses(tiny, tmp_path):
    folder = tiny.changed(tmp_path / "data", questions=of_val(answers=("yes",)))
    chosen = {"architecture": "lstm-vqa", "epochs": 4, "learning_rate": 1e-2, "batch": 16}
    lines = tiny.train(tmp_path / "run", data=folder, **chosen)
    assert "the best epoch is chosen by the loss on val: all its questions" in "\n".join(lines)
    losses = [row["val_loss"] for row in tiny.rows(tmp_path / "run")]
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert losses[best["epoch"]] == min(losses)


def test_patience_counts_passes_and_training_goes_on_while_cider_is_zero(tiny, tmp_path):
    lines = tiny.train(tmp_path / "a", epochs=12, eval_every=2, patience=4, learning_rate=1e-9)
    assert len(tiny.rows(tmp_path / "a")) < 12
    assert any(line.startswith("stopped after epoch") for line in lines)
    lines = tiny.train(tmp_path / "b", epochs=5, patience=1)
    rows = tiny.rows(tmp_path / "b")
    assert len(rows) == 5 or rows[0]["val_cider"] > 0
    assert "the best epoch is chosen by CIDEr on val" in lines


def test_a_loss_that_is_no_number_gives_no_model(tiny, tmp_path, monkeypatch):
    def nothing(words, *rest):
        return words.logits.mean() * torch.nan

    monkeypatch.setattr(captions.Words, "loss", nothing)
    with pytest.raises(ModelError, match="finite loss"):
        tiny.train(tmp_path)
    assert not (tmp_path / "config.json").exists()
    assert "train_loss" not in tiny.rows(tmp_path)[0]


# -- one device --------------------------------------------------------------------------------


def test_on_a_cluster_one_process_trains(tiny, tmp_path, monkeypatch):
    for name, value in {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "x", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    tiny.train(tmp_path, epochs=1)
    assert load_model(tmp_path)


def test_one_device_is_used_and_the_others_are_named(tiny, tmp_path, monkeypatch):
    asked, lines = {}, []

    def trainer(**values):
        asked.update(values)
        raise InterruptedError

    monkeypatch.setattr(fit.L, "Trainer", trainer)
    monkeypatch.setattr(devices, "choose_device", lambda name: torch.device("cuda:1"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(WriteError):
        train(tiny.data, tmp_path, tiny.options(), report=lines.append)
    assert asked["devices"] == [1]
    assert "2 GPUs found; training uses one, cuda:1" in lines


# -- what is left out, and what does not fit ---------------------------------------------------


def test_what_is_left_out_of_captions_is_counted(tiny, tmp_path):
    def change(record):
        if number(record) == 0:
            return replace(record, captions=())
        return replace(record, split="dev") if number(record) == 1 else record

    folder = tiny.changed(tmp_path / "data", captions=change)
    chosen = {"epochs": 1, "max_length": 4, "min_frequency": 3, "limit": 5, "workers": 2}
    lines = "\n".join(tiny.train(tmp_path / "run", data=folder, **chosen))
    assert "1 of 21 pictures left out: they have no captions" in lines
    assert "splits that training does not use: dev" in lines
    assert "--limit 5: only the first 5 pictures of each split" in lines
    assert "are not in the vocabulary (--min-frequency, --max-words)" in lines
    assert "--workers: has no effect here, since the pictures fit in memory" in lines
    texts = [c for r in Dataset.open(folder).split("train")[1:6] for c in r.captions]
    assert f"texts cut to --max-length 4: {sum(len(t.split()) > 4 for t in texts)} of 10" in lines


def test_a_run_keeps_how_captions_are_written(tiny, tmp_path):
    def change(record):
        return replace(record, captions=tuple(f"{x.title()}, or not?" for x in record.captions))

    folder = tiny.changed(tmp_path / "data", captions=change)
    tiny.train(tmp_path / "run", data=folder, epochs=1, keep="all")
    words = load_model(tmp_path / "run").tokenizer
    assert words.keep == "all"
    for record in Dataset.open(folder).split("train"):
        assert [words.decode(words.encode(text)) for text in record.captions] == [*record.captions]


def test_what_is_left_out_of_questions_is_counted(tiny, tmp_path):
    training = Dataset.open(tiny.data).questions_of("train")
    known, numbers = training[0].answers[0], iter(range(999))

    def change(record):
        if record.split != "val":
            return replace(record, answers=()) if next(numbers) == 0 else record
        return replace(record, answers=("xylophone",) if next(numbers) % 2 else (known,))

    folder = tiny.changed(tmp_path / "data", questions=change)
    chosen = {"architecture": "bow-mlp", "epochs": 1, "answers": 2, "max_question": 3}
    lines = "\n".join(tiny.train(tmp_path / "run", data=folder, **chosen))
    model = load_model(tmp_path / "run")
    kept = [r for r in training[1:] if r.answers[0] in model.answers.answers]
    assert "1 of 88 questions left out: they have no answers" in lines
    assert f"{len(training) - 1 - len(kept)} training questions left out" in lines
    assert "training texts cut to --max-question 3: " in lines
    assert "12 of 24 validation questions cannot be answered right" in lines
    assert model.about["questions"] == len(kept)


@pytest.mark.parametrize(
    ("chosen", "captions", "questions", "named"),
    [
        ({}, of_val(split="test"), None, "split 'val' has no captions; splits with captions: te"),
        ({"architecture": "bow-mlp"}, None, of_val(answers=()), "split 'val' has no answers"),
        ({"architecture": "bow-mlp"}, None, lambda r: None, "has no questions.*attention-lstm"),
        ({}, lambda r: None, None, "has no pictures with captions.*one of bow-mlp"),
        ({"reward": "cider"}, lambda r: replace(r, captions=("a",)), None, "--reward cider: .*CID"),
        ({"architecture": "bow-mlp"}, None, of_val(answers=("xyz",)), "no validation question has"),
    ],
)
def test_data_that_does_not_fit(chosen, captions, questions, named, tiny, tmp_path):
    folder = tiny.changed(tmp_path / "data", captions, questions)
    with pytest.raises(DataError, match=named):
        tiny.train(tmp_path / "run", data=folder, **chosen)
    assert not (tmp_path / "run").exists()


def test_answers_of_another_vocabulary_teach_nothing(tiny, answerer, tmp_path):
    folder = tiny.changed(tmp_path / "data", None, lambda r: replace(r, answers=("xylophone",)))
    with pytest.raises(DataError, match="no training question has an answer of the vocabulary"):
        tiny.train(tmp_path / "run", tiny.second(answerer), data=folder)


def test_a_penalty_of_attention_needs_attention(tiny, tmp_path):
    with pytest.raises(UsageError, match=r"--attention-penalty 0\.5: lstm has no attention"):
        tiny.train(tmp_path / "run", architecture="lstm", attention_penalty=0.5)


@pytest.mark.parametrize("name", ["training.json", "recipe.toml", "csv", "checkpoints"])
def test_nothing_of_another_is_written_over(name, tiny, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=f"already contains {name}"):
        tiny.train(tmp_path)


def test_a_picture_that_cannot_be_opened_is_one_line_from_a_worker(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("gazetell.data.batches.KEEP_BYTES", 0)
    shutil.copytree(tiny.data, tmp_path / "data")
    broken = next((tmp_path / "data/images").iterdir())
    broken.write_text("no picture")
    with pytest.raises(ImageError, match=broken.name) as caught:
        tiny.train(tmp_path / "run", data=tmp_path / "data")
    assert "Traceback" not in str(caught.value)

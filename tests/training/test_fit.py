"""Training: it learns, it is killed and resumes to the same end, it fails in one line."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from gazetell import scenes
from gazetell.data.records import Dataset
from gazetell.errors import DataError, ModelError, UsageError, WriteError
from gazetell.inference.predict import load
from gazetell.training.fit import resume, train
from gazetell.training.options import TrainOptions, read_recipe

TINY = {
    "architecture": "attention-lstm",
    "embedding": 16,
    "hidden": 32,
    "dropout": 0.1,
    "min_frequency": 1,
    "encoder": "small-cnn",
    "encoder_weights": "none",
    "encoder_trainable": "all",
    "encoder_size": 32,
    "batch": 8,
    "precision": "fp32",
    "learning_rate": 3e-3,
    "epochs": 3,
    "seed": 5,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    scenes.generate(folder, train=24, val=6, test=6, questions_per_image=0, seed=1)
    return folder


def options(**changes):
    return TrainOptions(**{**TINY, **changes})


def state(run):
    model = load(run, precision="fp32")
    return {**model.captioner.state_dict(), **model.encoder.state_dict()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_a_run_leaves_a_complete_folder(data, tmp_path):
    lines = []
    train(data, tmp_path / "run", options(), report=lines.append)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert {"val_loss", "val_cider", "val_bleu_4", "learning_rate", "seconds"} <= rows[0].keys()
    saved = json.loads((tmp_path / "run/training.json").read_text())
    assert saved["options"]["embedding"] == 16
    assert saved["options"]["seed"] == 5
    assert list((tmp_path / "run/tensorboard").glob("events.*"))
    assert any("epoch 3/3" in line for line in lines)
    # The folder holds the weights of the best epoch, whichever that was.
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=False)["state_dict"]
    mine = state(tmp_path / "run")
    assert all(
        torch.equal(mine[k], best[f"captioner.{k}"]) for k in mine if f"captioner.{k}" in best
    )


def test_the_same_seed_gives_the_same_model_and_another_seed_another(data, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        train(data, tmp_path / name, options(epochs=1, seed=seed), report=lambda line: None)
    assert same(state(tmp_path / "a"), state(tmp_path / "b"))
    assert not same(state(tmp_path / "a"), state(tmp_path / "c"))


@pytest.mark.timeout(180)
def test_kill_9_then_resume_ends_in_the_same_weights(data, tmp_path):
    train(data, tmp_path / "whole", options(epochs=4), report=lambda line: None)
    run = tmp_path / "killed"
    code = (
        "import sys, json; from gazetell.training.fit import train;"
        "from gazetell.training.options import TrainOptions;"
        f"train({str(data)!r}, {str(run)!r}, TrainOptions(**json.loads(sys.argv[1])),"
        "report=lambda line: print(line, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps({**TINY, "epochs": 4})],
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("epoch 2/4"):
            # Some time into the third epoch, wherever that is.
            time.sleep(0.05)
            os.kill(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    assert not (run / "config.json").exists()
    with pytest.raises(ModelError, match="--resume"):
        load(run)
    lines = []
    resume(run, report=lines.append)
    assert not any("epoch 1/4" in line for line in lines)
    assert same(state(tmp_path / "whole"), state(run))

    def rows(folder):
        found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if k != "seconds"} for row in found]

    assert rows(run) == rows(tmp_path / "whole")


def test_ctrl_c_says_how_to_go_on(data, tmp_path):
    run = tmp_path / "run"
    lines = []

    def interrupt(line):
        lines.append(line)
        if line.startswith("epoch 2/3"):
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(data, run, options(), report=interrupt)
    finally:
        signal.signal(signal.SIGINT, handler)  # the Trainer leaves it ignored
    assert f"--resume {run}" in lines[-1]
    train(data, tmp_path / "whole", options(), report=lambda line: None)
    resume(run, report=lambda line: None)
    assert same(state(run), state(tmp_path / "whole"))


def test_it_can_overfit(data, tmp_path):
    run = tmp_path / "run"
    chosen = options(
        overfit=4,
        batch=4,
        epochs=150,
        eval_every=150,
        hidden=64,
        learning_rate=1e-2,
        encoder_learning_rate=2e-3,
        beta2=0.95,
    )
    train(data, run, chosen, report=lambda line: None)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    # Five captions a picture: their choice is what remains, about the logarithm of a few a caption.
    assert last["train_loss"] < 0.45
    assert last["val_cider"] > 1.5
    model = load(run, precision="fp32")
    dataset = Dataset.open(data)
    for record in dataset.split("train")[:4]:
        assert scenes.judge(
            model.caption(dataset.path(record)).text, scenes.read_truth(data)[record.id]
        )


def test_a_folder_that_holds_a_run_is_refused(data, tmp_path):
    (tmp_path / "training.json").write_text("{}")
    with pytest.raises(UsageError, match="--resume"):
        train(data, tmp_path, options())


def test_resume_where_there_is_nothing(tmp_path):
    with pytest.raises(ModelError, match="no run to resume"):
        resume(tmp_path)


def test_resume_of_a_damaged_run_file(tmp_path):
    (tmp_path / "training.json").write_text('{"data": "x"}')
    with pytest.raises(ModelError, match="malformed"):
        resume(tmp_path)


def test_a_dataset_without_validation_is_named(tmp_path):
    folder = tmp_path / "scenes"
    dataset = scenes.generate(folder, train=4, val=1, test=1, questions_per_image=0)
    kept = tuple(record for record in dataset.captions if record.split != "val")
    Dataset(dataset.name, dataset.kind, dataset.root, kept).save(tmp_path / "cut")
    with pytest.raises(DataError, match="split 'val' has no captions"):
        train(tmp_path / "cut", tmp_path / "run", options())


def test_a_dataset_of_one_picture_can_be_overfitted(tmp_path):
    dataset = scenes.generate(tmp_path / "scenes", train=1, val=1, test=1, questions_per_image=0)
    one = tuple(record for record in dataset.captions if record.split == "train")
    Dataset("one", "table", dataset.root, one).save(tmp_path / "one")
    train(
        tmp_path / "one", tmp_path / "run", options(overfit=1, epochs=1), report=lambda line: None
    )
    assert load(tmp_path / "run").caption(dataset.path(one[0])).words


def test_a_full_disk_is_one_line_and_the_run_resumes(data, tmp_path, monkeypatch):
    run = tmp_path / "run"
    real = torch.save
    calls = []

    def full(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WriteError, match="No space left"):
        train(data, run, options(epochs=3), report=lambda line: None)
    monkeypatch.undo()
    resume(run, report=lambda line: None)
    whole = tmp_path / "whole"
    train(data, whole, options(epochs=3), report=lambda line: None)
    assert same(state(run), state(whole))


def test_a_frozen_encoder_trains_from_its_cache_and_from_pixels_alike(data, tmp_path):
    frozen = {"encoder": "squeezenet1_1", "encoder_size": 64, "encoder_trainable": "none"}
    results = []
    for name, features in (("cached", "auto"), ("pixels", "none")):
        chosen = options(**frozen, features=features, epochs=1)
        train(data, tmp_path / name, chosen, report=lambda line: None)
        rows = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        results.append(json.loads(rows[0])["val_loss"])
    assert results[0] == pytest.approx(results[1], rel=1e-2)  # float16 on disk
    assert list((data / "features").glob("squeezenet1_1-64-*"))


def test_the_scenes_recipe_fits_the_scenes():
    assert read_recipe("scenes")["encoder"] == "small-cnn"
    assert not read_recipe("scenes").get("flip", False)  # their captions say left and right

"""Runs that once ended well and were wrong, and what training leaves out: each is said."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gazetell import scenes
from gazetell.data.records import Dataset
from gazetell.errors import DataError, ImageError, ModelError, UsageError
from gazetell.models.folder import load_model, update_metrics
from gazetell.training import fit
from gazetell.training.captions import CaptionTask
from gazetell.training.fit import resume, train
from gazetell.training.options import TrainOptions

TINY = {
    "embedding": 8,
    "hidden": 12,
    "attention_width": 8,
    "dropout": 0.0,
    "min_frequency": 1,
    "encoder": "small-cnn",
    "encoder_weights": "none",
    "encoder_trainable": "all",
    "encoder_size": 32,
    "batch": 8,
    "precision": "fp32",
    "epochs": 2,
}


def options(**changes):
    return TrainOptions(**{**TINY, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    scenes.generate(folder, train=12, val=4, test=2, captions_per_image=2, questions_per_image=2)
    return folder


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def with_records(data, folder, captions=None, questions=None):
    """The dataset with its records changed by functions."""
    whole = Dataset.open(data)
    made = Dataset(
        "made",
        "table",
        whole.root,
        tuple(r for r in map(captions or (lambda r: r), whole.captions) if r),
        tuple(r for r in map(questions or (lambda r: r), whole.questions) if r),
    )
    made.save(folder)
    return folder


def one_val(record):
    first = "scene-000012"  # of the validation split
    return record if record.split == "train" or Path(record.image).stem == first else None


def alike(record):
    return record if record.split == "train" else replace(record, captions=("a red star",))


@pytest.mark.parametrize("change", [one_val, alike])
def test_where_cider_is_zero_by_definition_the_loss_chooses(data, tmp_path, change):
    folder = with_records(data, tmp_path / "data", captions=change)
    lines = []
    chosen = options(epochs=6, patience=2, learning_rate=1e-2)
    train(folder, tmp_path / "run", chosen, report=lines.append)
    found = rows(tmp_path / "run")
    assert all(row["val_cider"] == 0 for row in found)
    losses = [row["val_loss"] for row in found]
    assert len(found) == 6  # the loss fell all the time
    assert losses == sorted(losses, reverse=True)
    (said,) = (line for line in lines if line.startswith("the best epoch is chosen by the loss"))
    assert "CIDEr" in said
    assert f"best loss on val {losses[-1]:.4f}" in lines[-1]
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert best["epoch"] == 5


def test_where_all_answers_are_one_the_loss_chooses(data, tmp_path):
    def yes(record):
        return record if record.split == "train" else replace(record, answers=("yes",))

    folder = with_records(data, tmp_path / "data", questions=yes)
    lines = []
    chosen = options(architecture="lstm-vqa", epochs=4, patience=1, learning_rate=1e-2, batch=16)
    train(folder, tmp_path / "run", chosen, report=lines.append)
    assert any("chosen by the loss on val: all its questions" in line for line in lines)
    losses = [row["val_loss"] for row in rows(tmp_path / "run")]
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert losses[best["epoch"]] == min(losses)
    assert any(row["val_accuracy"] > 0 for row in rows(tmp_path / "run"))


def test_while_cider_is_zero_the_loss_decides_whether_to_go_on(data, tmp_path):
    lines = []
    train(
        data,
        tmp_path / "run",
        options(epochs=5, patience=1, learning_rate=3e-3),
        report=lines.append,
    )
    found = rows(tmp_path / "run")
    assert len(found) == 5 or found[0]["val_cider"] > 0
    assert "the best epoch is chosen by CIDEr on val" in lines


def test_patience_counts_passes_not_validations(data, tmp_path):
    lines = []
    chosen = options(epochs=12, eval_every=2, patience=4, learning_rate=1e-9)
    train(data, tmp_path / "run", chosen, report=lines.append)
    assert len(rows(tmp_path / "run")) < 12
    assert any(line.startswith("stopped after epoch") for line in lines)


@pytest.mark.parametrize("name", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_one_of_several_processes_is_refused(data, tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "2")
    with pytest.raises(UsageError, match=f"{name}=2: a launcher started 2 processes"):
        train(data, tmp_path / "run", options())
    with pytest.raises(UsageError, match=name):
        resume(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_on_a_cluster_one_process_trains(data, tmp_path, monkeypatch):
    for name, value in {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "x", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    train(data, tmp_path / "run", options(epochs=1), report=lambda line: None)
    assert load_model(tmp_path / "run")


def test_one_device_is_used_and_the_others_are_named(data, tmp_path, monkeypatch):
    asked = {}

    class Stop(Exception):
        pass

    def trainer(**values):
        asked.update(values)
        raise Stop

    monkeypatch.setattr(fit.L, "Trainer", trainer)
    monkeypatch.setattr(fit, "choose_device", lambda name: torch.device("cuda:1"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    lines = []
    with pytest.raises(Stop):
        train(data, tmp_path / "run", options(), report=lines.append)
    assert asked["devices"] == [1]
    assert "2 GPUs are here; training uses one, cuda:1" in lines


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch evil",)


def test_a_checkpoint_runs_no_code(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    killed(data, tmp_path / "run")
    last = tmp_path / "run/checkpoints/last.ckpt"
    state = torch.load(last, weights_only=True)
    torch.save(state | {"extra": Evil()}, last)
    with pytest.raises(ModelError, match=r"last\.ckpt: cannot be read"):
        resume(tmp_path / "run", report=lambda line: None)
    assert not (tmp_path / "evil").exists()


def killed(data, run, when="epoch 2/", **changes):
    """A run that is killed in an epoch."""

    def stop(line):
        if line.startswith(when):
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(data, run, options(**{"epochs": 4, **changes}), report=stop)


def test_a_truncated_checkpoint_is_one_line(data, tmp_path):
    killed(data, tmp_path / "run")
    last = tmp_path / "run/checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"last\.ckpt: cannot be read"):
        resume(tmp_path / "run", report=lambda line: None)


def test_a_run_resumes_in_a_folder_that_was_moved(data, tmp_path):
    train(data, tmp_path / "whole", options(epochs=4, learning_rate=1e-2), report=lambda line: None)
    killed(data, tmp_path / "old", when="epoch 3/", learning_rate=1e-2)
    (tmp_path / "old").rename(tmp_path / "new")
    resume(tmp_path / "new", report=lambda line: None)
    last = [torch.load(tmp_path / n / "checkpoints/last.ckpt") for n in ("whole", "new")]
    scores = [
        next(s["best_model_score"] for k, s in c["callbacks"].items() if "ModelCheckpoint" in k)
        for c in last
    ]
    assert scores[0] == scores[1]
    assert not (tmp_path / "old").exists()


def test_a_checkpoint_of_an_earlier_version_resumes(data, tmp_path):
    """It says of its callbacks that they watch val_cider."""
    train(data, tmp_path / "whole", options(epochs=4, learning_rate=1e-2), report=lambda line: None)
    killed(data, tmp_path / "run", when="epoch 3/", learning_rate=1e-2)
    last = tmp_path / "run/checkpoints/last.ckpt"
    state = torch.load(last, weights_only=True)
    states = state["callbacks"]
    state["callbacks"] = {k.replace("'choice'", "'val_cider'"): v for k, v in states.items()}
    assert state["callbacks"].keys() != states.keys()
    torch.save(state, last)
    saved = json.loads((tmp_path / "run/training.json").read_text())
    del saved["sha256"]
    (tmp_path / "run/training.json").write_text(json.dumps(saved))
    resume(tmp_path / "run", report=lambda line: None)
    ends = [
        torch.load(tmp_path / n / "checkpoints/last.ckpt")["callbacks"] for n in ("whole", "run")
    ]
    for key, value in ends[0].items():
        if key.startswith("EarlyStopping"):
            assert value == ends[1][key]
        assert value.get("best_model_score") == ends[1][key].get("best_model_score")


def test_a_finished_run_keeps_its_figures(data, tmp_path):
    train(data, tmp_path / "run", options(epochs=1), report=lambda line: None)
    update_metrics(tmp_path / "run", {"metrics": {"cider": 1.0}})
    lines = []
    resume(tmp_path / "run", report=lines.append)
    assert load_model(tmp_path / "run").metrics == {"metrics": {"cider": 1.0}}
    assert "finished" in lines[0]


def test_a_run_that_stopped_early_trains_no_further(data, tmp_path, monkeypatch):
    real = fit.save_model

    def full(*rest):
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "save_model", full)
    chosen = options(epochs=20, patience=1, learning_rate=0.3)
    lines = []
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run", chosen, report=lines.append)
    assert f"--resume {tmp_path / 'run'}" in lines[-1]
    epochs = len(rows(tmp_path / "run"))
    assert epochs < 20
    monkeypatch.setattr(fit, "save_model", real)
    resume(tmp_path / "run", report=lambda line: None)
    assert len(rows(tmp_path / "run")) == epochs
    assert load_model(tmp_path / "run")


def test_other_records_do_not_resume(data, tmp_path):
    folder = with_records(data, tmp_path / "data")
    killed(folder, tmp_path / "run")
    with_records(data, folder, captions=one_val)
    with pytest.raises(ModelError, match="other records"):
        resume(tmp_path / "run", report=lambda line: None)


@pytest.mark.parametrize("name", ["README.md", "config.json", "checkpoints"])
def test_nothing_of_another_is_written_over(data, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=f"holds {name} already"):
        train(data, tmp_path, options())


def test_a_loss_that_is_no_number_gives_no_model(data, tmp_path, monkeypatch):
    monkeypatch.setattr(CaptionTask, "loss", lambda self, *rest: rest[0].cells.mean() * torch.nan)
    lines = []
    with pytest.raises(ModelError, match="finite loss"):
        train(data, tmp_path / "run", options(), report=lines.append)
    assert any("is no finite number" in line for line in lines)
    assert not (tmp_path / "run/config.json").exists()


def test_an_average_over_a_run_of_three_steps_is_no_random_model(data, tmp_path):
    """The average is renewed every four steps: it must begin before."""
    train(data, tmp_path / "run", options(epochs=1, ema=0.9, batch=6), report=lambda line: None)
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert int(best["averaging_state"]["n_averaged"]) > 0


def test_words_that_nothing_taught_are_not_frozen(data, tmp_path):
    with pytest.raises(UsageError, match="--freeze-words: would freeze random"):
        train(data, tmp_path / "run", options(freeze_words=True))
    assert not (tmp_path / "run").exists()


def test_a_reward_that_is_always_zero_is_refused(data, tmp_path):
    def same(record):
        return replace(record, captions=("a red star",))

    folder = with_records(data, tmp_path / "data", captions=same)
    with pytest.raises(DataError, match="--reward cider: the references of all pictures are alike"):
        train(folder, tmp_path / "run", options(reward="cider"))


def test_what_is_left_out_of_captions_is_counted(data, tmp_path):
    def change(record):
        number = int(Path(record.image).stem.split("-")[1])
        if number == 0:
            return replace(record, captions=())
        if number == 1:
            return replace(record, split="dev")
        return record

    folder = with_records(data, tmp_path / "data", captions=change)
    lines = []
    chosen = options(epochs=1, max_length=4, min_frequency=3, limit=5)
    train(folder, tmp_path / "run", chosen, report=lines.append)
    said = "\n".join(lines)
    assert "1 of 15 pictures of train and val left out: they have no captions" in said
    assert "left out: 1 records of dev; training reads train and val" in said
    assert "--limit 5: 5 of 10 training pictures, 4 of 4 validation pictures" in said
    texts = [c for r in Dataset.open(folder).split("train")[1:6] for c in r.captions]
    assert f"{sum(len(t.split()) > 4 for t in texts)} of 10 training captions are cut" in said
    assert "are not in the vocabulary (--min-frequency, --max-words)" in said


def test_what_is_left_out_of_questions_is_counted(data, tmp_path):
    whole = Dataset.open(data).questions
    known = next(r.answers[0] for r in whole if r.split == "train")
    lost = iter(range(99))

    def change(record):
        if record.split != "val":
            return replace(record, answers=()) if next(lost) == 0 else record
        return replace(record, answers=("xylophone",) if next(lost) % 2 else (known,))

    folder = with_records(data, tmp_path / "data", questions=change)
    lines = []
    chosen = options(architecture="bow-mlp", epochs=1, max_question=3)
    train(folder, tmp_path / "run", chosen, report=lines.append)
    said = "\n".join(lines)
    assert "1 of 32 questions of train and val left out: they have no answers" in said
    assert "training questions are cut to --max-question 3 words" in said
    assert "4 of 8 validation questions cannot be answered right" in said

    def unheard(record):
        return replace(record, answers=("xylophone",)) if record.split == "val" else record

    folder = with_records(data, tmp_path / "other", questions=unheard)
    with pytest.raises(DataError, match="no validation question has an answer"):
        train(folder, tmp_path / "none", chosen, report=lambda line: None)


def test_a_picture_that_cannot_be_opened_is_one_line_from_a_worker(data, tmp_path, monkeypatch):
    from gazetell import pictures

    monkeypatch.setattr(pictures, "KEEP_BYTES", 0)
    whole = Dataset.open(data)
    root = tmp_path / "images"
    root.mkdir()
    for record in whole.captions:
        (root / record.image).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / record.image)
    (root / whole.captions[3].image).write_text("no picture")
    Dataset("d", "table", root, whole.captions).save(tmp_path / "data")
    with pytest.raises(ImageError) as caught:
        train(tmp_path / "data", tmp_path / "run", options(workers=1), report=lambda line: None)
    assert "Traceback" not in str(caught.value)
    assert Path(whole.captions[3].image).name in str(caught.value)


def test_a_seed_out_of_range_is_refused():
    with pytest.raises(UsageError, match="--seed"):
        options(seed=2**32)

"""Several settings in one evaluation, and several models as one, on the command line."""

import json
import shutil

import pytest

from gazetell.inference.predict import load
from gazetell.models.folder import save_model


@pytest.fixture
def model(untrained, tmp_path):
    save_model(tmp_path / "model", untrained())
    return tmp_path / "model"


SETTINGS = ("--beam", 1, "--beam", 2, "--length-penalty", 0.0, "--length-penalty", 2.0)


def test_a_row_a_setting_and_the_best_is_kept(run, model, scenes_folder):
    arguments = ("evaluate", model, "--data", scenes_folder, "--split", "val", *SETTINGS)
    status, out, _ = run(*arguments, "--json")
    assert status == 0
    rows = json.loads(out)
    assert [(row["beam"], row["length_penalty"]) for row in rows] == [
        (1, None),  # once: a length penalty has no effect on it
        (2, 0.0),
        (2, 2.0),
    ]
    folders = sorted(path.name for path in (model / "evaluation").iterdir())
    assert folders == ["val-beam1", "val-beam2-penalty0.0", "val-beam2-penalty2.0"]
    before = load(model).decoding
    assert not json.loads((model / "metrics.json").read_text())  # none of them is the model's own

    status, out, err = run(*arguments, "--keep-best")
    assert status == 0
    best = max(row["metrics"]["cider"] for row in rows)
    assert sum("best CIDEr" in line for line in out.splitlines()) >= 1
    kept = load(model).decoding
    winners = [r for r in rows if r["metrics"]["cider"] == best]
    assert (kept.beam, kept.length_penalty) in [
        (r["beam"], before.length_penalty if r["beam"] == 1 else r["length_penalty"])
        for r in winners
    ]
    assert kept.max_length == before.max_length
    assert "kept: beam" in err
    assert json.loads((model / "metrics.json").read_text())["metrics"]["cider"] == best


def test_what_was_measured_is_what_is_kept(run, model, scenes_folder):
    """The greatest length too: else the card would tell of captions that the model never gives."""
    arguments = ("evaluate", model, "--data", scenes_folder, "--split", "val", "--max-length", 4)
    status, _, err = run(*arguments)
    assert status == 0
    assert "not on the model's card" in err
    assert not json.loads((model / "metrics.json").read_text())
    assert run(*arguments, "--keep-best")[0] == 0
    assert load(model).decoding.max_length == 4
    assert json.loads((model / "metrics.json").read_text())["max_length"] == 4
    assert [path.name for path in (model / "evaluation").iterdir()] == ["val-beam3-words4"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--limit", 1, "--beam", 1, "--keep-best"), "nothing to choose by: CIDEr of one picture"),
        (("--keep-best",), "to keep"),
        (("--beam", 1, "--length-penalty", 1.0), "length_penalty: has no effect"),
    ],
)
def test_what_would_do_nothing_is_refused(run, model, scenes_folder, options, said):
    status, out, err = run("evaluate", model, "--data", scenes_folder, "--split", "val", *options)
    assert (status, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_the_test_split_chooses_nothing(run, model, scenes_folder):
    before = (model / "config.json").read_bytes()
    status, out, err = run("evaluate", model, "--data", scenes_folder, "--keep-best")
    assert (status, out) == (2, "")
    assert "--keep-best" in err
    assert "val" in err
    assert (model / "config.json").read_bytes() == before


def test_several_models_are_one(run, model, scenes_folder, scenes_dataset, tmp_path):
    shutil.copytree(model, tmp_path / "again")
    arguments = ("--data", scenes_folder, "--beam", 2, "--json")
    _, alone, _ = run("evaluate", model, *arguments)
    status, out, _ = run("evaluate", model, tmp_path / "again", *arguments)
    assert status == 0
    assert json.loads(out)["members"] == 2
    assert json.loads(out)["metrics"] == json.loads(alone)["metrics"]  # twice the same
    assert (model / "evaluation/test-beam2-ensemble2/predictions.jsonl").is_file()
    assert json.loads((model / "metrics.json").read_text())["members"] == 1
    picture = scenes_dataset.path(scenes_dataset.captions[0])
    single = run("caption", picture, "--model", model)
    assert run("caption", picture, "--model", model, "--model", tmp_path / "again") == single


def test_no_model_is_one_line(run, scenes_folder):
    for arguments in (("evaluate", "--data", scenes_folder), ("caption", "x.png")):
        status, _, err = run(*arguments)
        assert status == 2
        assert len(err.splitlines()) == 1
        assert "model" in err


def test_one_folder_for_several_settings_is_refused(run, model, scenes_folder, tmp_path):
    arguments = ("evaluate", model, "--data", scenes_folder, "--out", tmp_path / "o", *SETTINGS)
    status, _, err = run(*arguments)
    assert status == 2
    assert "--out" in err

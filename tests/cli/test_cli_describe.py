"""``gazetell describe`` as a user has it."""

import csv
import shutil

import pytest


@pytest.fixture
def home(scenes_dataset, model_folder, tmp_path, monkeypatch):
    """A place with ``pictures`` (three, one of them broken) and ``model``."""
    for name, record in zip(("b.png", "sub/a.png"), scenes_dataset.captions, strict=False):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scenes_dataset.path(record), path)
    (tmp_path / "pictures/broken.jpg").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("out", ["out/captions.csv", "captions.jsonl", "captions.html"])
def test_a_folder_is_described_and_bad_files_are_listed(run, home, out):
    status, said, err = run("describe", "pictures", "--model", "model", "--out", out)
    assert (status, said) == (1, "")
    assert err.splitlines() == [
        "error: pictures/broken.jpg: is no picture; "
        "expected a JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC picture",
        f"{out}: 3 pictures, 2 captioned now, 0 before, 1 failed",
    ]
    (home / "pictures/broken.jpg").unlink()
    text = (home / out).read_text()
    assert "b.png" in text
    assert "sub/a.png" in text
    status, _, err = run("describe", "pictures", "--model", "model", "--out", out)
    assert (status, err) == (0, f"{out}: 2 pictures, 0 captioned now, 2 before, 0 failed\n")


def test_options_reach_the_search(run, home):
    arguments = ("describe", "pictures", "--model", "model", "--out", "c.csv")
    run(*arguments, "--beam", 1, "--max-length", 2, "--batch", 1)
    with (home / "c.csv").open() as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    assert len(captions) == 2
    assert all(1 <= len(caption.split()) <= 2 for caption in captions)
    status, _, err = run(*arguments, "--beam", 2, "--max-length", 2)
    assert status == 2
    assert err == (
        "error: --out c.csv: was begun with beam 1 (now 2); name another, or start over with "
        "--again\n"
    )
    status, _, err = run(*arguments, "--beam", 2, "--max-length", 2, "--again")
    assert "2 captioned now" in err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["pictures", "--out", "c.csv"], 2, "--model"),
        (["pictures", "--model", "model"], 2, "--out"),
        (["pictures", "--model", "model", "--out", "c.pdf"], 2, ".csv, .jsonl, .html"),
        (["pictures", "--model", "model", "--out", "c.csv", "--batch", 0], 2, "--batch 0"),
        (["pictures", "--model", "model", "--out", "c.csv", "--beam", 0], 2, "beam 0"),
        (["nowhere", "--model", "model", "--out", "c.csv"], 3, "nowhere: is no folder"),
        (["pictures", "--model", "nowhere", "--out", "c.csv"], 5, "nowhere: is no model folder"),
        (["pictures", "--model", "model", "--out", "model/config.json/c.csv"], 6, "c.csv"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(run, home, arguments, status, said):
    before = sorted(home.rglob("*"))
    found, out, err = run("describe", *arguments)
    assert (found, out) == (status, "")
    assert said in err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert sorted(home.rglob("*")) == before

"""``gazetell describe`` as a user has it."""

import csv
import shutil

import pytest

from gazetell.inference.describe import Describer

MODEL = ("--model", "model", "--device", "cpu", "--precision", "fp32")
RAY = ("--engine", "ray", "--address")


@pytest.fixture
def home(scenes_dataset, model_folder, tmp_path, monkeypatch):
    """A place with ``pictures`` (three, one of them broken) and ``model``."""
    for name, record in zip(("b.png", "sub/a.png"), scenes_dataset.captions, strict=False):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scenes_dataset.path(record), path)
    (tmp_path / "pictures/broken.jpg").write_text("no picture")
    (tmp_path / "mine.csv").write_text("somebody's")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_is_described_and_what_is_amiss_is_told(run, home):
    arguments = ("describe", "pictures", *MODEL, "--out", "out/captions.csv", "--max-length", 1)
    (home / "pictures/c.xcf").write_text("a kind that is not read")
    status, said, err = run(*arguments)
    assert (status, said) == (1, "")
    left, broken, cut, last = err.splitlines()
    assert left == "1 file left out: c.xcf"
    assert broken.startswith(
        "error: broken.jpg: is not a picture that can be opened; expected a JPEG, PNG"
    )
    assert cut == "captions cut at --max-length (ended: false): 2"
    assert last == "out/captions.csv: 3 pictures, 2 captioned now, 0 before, 1 failed"
    for name in ("broken.jpg", "b.png", "c.xcf"):
        (home / "pictures" / name).unlink()
    status, _, err = run(*arguments)
    gone = "pictures captioned before that are no longer in pictures, left out: 1"
    last = "out/captions.csv: 1 picture, 0 captioned now, 1 before, 0 failed"
    assert (status, err.splitlines()) == (0, [cut.replace("2", "1"), gone, last])


def test_an_interrupted_run_says_how_far_it_came(run, home, monkeypatch):
    (home / "pictures/broken.jpg").unlink()
    rows = Describer.rows

    def some(self, items):
        yield next(rows(self, items))
        raise KeyboardInterrupt

    monkeypatch.setattr(Describer, "rows", some)
    line = "interrupted: 1 of 2 pictures are done; the same command goes on\n"
    assert run("describe", "pictures", *MODEL, "--out", "c.csv") == (130, "", line)
    monkeypatch.undo()
    monkeypatch.chdir(home)
    run("describe", "pictures", *MODEL, "--out", "c.csv")
    assert (home / "c.csv").read_text().count("\n") == 3


def test_options_reach_the_search(run, home):
    (home / "pictures/broken.jpg").unlink()
    arguments = ("describe", "pictures", *MODEL, "--out", "c.csv")
    run(*arguments, "--beam", 1, "--max-length", 2, "--batch", 1)
    with (home / "c.csv").open() as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    assert len(captions) == 2
    assert all(1 <= len(caption.split()) <= 2 for caption in captions)
    status, _, err = run(*arguments, "--beam", 2, "--max-length", 2)
    assert status == 2
    assert err.endswith(
        "--out c.csv: was begun with beam 1 (now 2); name another, or start over with --again\n"
    )
    status, _, err = run(*arguments, "--beam", 2, "--max-length", 2, "--again")
    assert "2 captioned now" in err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["pictures", *MODEL], 2, "--out is missing: for example --out captions.html"),
        (["pictures", *MODEL, "--output", "a.html"], 2, "option: --output. Did you mean --out?"),
        (["a.html", "--out", "c.csv"], 2, "a.html: is a page; of a sheet to review, press Downl"),
        (["https://x.org/a", *MODEL, "--out", "c.csv"], 4, "addresses are not fetched; download"),
        (["pictures", *MODEL, "--out", "c.pdf"], 2, ".csv, .jsonl, .html"),
        (["pictures", *MODEL, "--out", "c.csv", "--batch", 0], 2, "--batch 0"),
        (["pictures", *MODEL, "--out", "c.csv", "--beam", 0], 2, "beam 0"),
        (["pictures", *MODEL, "--out", "c", "--address", "auto"], 2, "--address: has no effect"),
        (
            ["pictures", *MODEL, "--out", "c", *RAY, "here"],
            2,
            "expected auto or host",
        ),
        (["pictures", *MODEL, "--out", "c", "--question", "why?"], 2, "model has no answerer"),
        (
            ["pictures", *MODEL, "--out", "c.csv", "--url", "https://x"],
            2,
            "--url: has no effect on",
        ),
        (["pictures", *MODEL, "--out", "c.wordpress.csv"], 2, "expected --url https://"),
        (
            ["pictures", *MODEL, "--out", "c.img.html", "--question", "why?"],
            2,
            "--question: has no",
        ),
        (["pictures", *MODEL, "--out", "c.html", "--question", "why?"], 2, "holds only alt texts"),
        (
            ["pictures", *MODEL, "--out", "c.img.html", "--url", "x.org/a"],
            2,
            "--url x.org/a: expected the address of a folder",
        ),
        (["pictures", "more", *MODEL, "--out", "c.csv"], 2, "too many arguments: more; expected"),
        (["s3:/pictures", *MODEL, "--out", "c"], 4, "s3:/pictures: does not exist; expected"),
        (["nowhere", *MODEL, "--out", "c.csv"], 4, "nowhere: does not exist"),
        (["pictures", "--model", "nowhere", "--out", "mine.csv"], 2, "mine.csv: already exists"),
        (["pictures", "--model", "nowhere", "--out", "pictures"], 2, "contains something that"),
        (["pictures", "--model", "nowhere", "--out", "c.csv"], 5, "nowhere: is not a model folder"),
        (["pictures", *MODEL, "--out", "model/config.json/c.csv"], 6, "c.csv"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(mistake, home, arguments, status, said):
    mistake(status, said, "describe", *arguments)

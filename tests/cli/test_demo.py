"""``gazetell demo``: photographs; the training: what is refused and never deleted, a small run."""

import html

import pytest
from PIL import Image

from gazetell.cli.demo import EXAMPLES, PHOTOGRAPHS

TINY = ["--train-pictures", 12, "--val-pictures", 2, "--epochs", 1, "--answer-epochs", 1]


@pytest.mark.parametrize(
    ("option", "number", "least"),
    [
        *(("--train-pictures", 0, 1), ("--val-pictures", -1, 1), ("--test-pictures", 1, 2)),
        *(("--epochs", 0, 1), ("--answer-epochs", 0, 1)),
    ],
)
def test_a_number_that_cannot_work_is_refused(mistake, tmp_path, option, number, least):
    told = f"error: {option} {number}: expected {least} or more\n"
    mistake(2, told, "demo", "--train", "--out", tmp_path / "demo", option, number)


@pytest.mark.parametrize("names", [["training.json"], ["scenes/a.png", "mine.txt"]])
def test_what_is_no_demo_is_never_deleted(run, tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    status, _, err = run("demo", "--train", "--out", tmp_path, "--again")
    assert (status, "is not empty" in err) == (2, True)
    assert all((tmp_path / name).read_text() == "mine" for name in names)


def test_a_small_demo(run, tmp_path):
    out = tmp_path / "demo"
    _, said, _ = run("demo", "--train", "--out", out, *TINY, "--test-pictures", 3, status=0)
    assert "true captions" in said
    assert "None" not in said
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "None" not in page
    # Of three pictures one is the best and one the worst.
    assert page.count("<article>") == 3 + 3 + 1 + 1
    status, _, err = run("demo", "--train", "--out", out, *TINY)
    assert (status, "holds a demo; replace it with --again" in err) == (2, True)
    assert run("demo", "--train", "--out", out, *TINY, "--test-pictures", 2, "--again")[0] == 0


def test_photographs_are_captioned_and_asked_about(run, world):
    status, said, err = run("demo --model tell --model ask")
    assert (status, err) == (0, "")
    page = html.unescape((world / "runs/demo/report.html").read_text(encoding="utf-8"))
    assert "gazetell caption photo.jpg --model tell --gaze gaze.html" in page
    assert "gazetell ask photo.jpg 'What animal is this?' --model ask<" in page
    assert "gazetell serve --model tell --model ask<" in page
    questions = [question for asked in PHOTOGRAPHS.values() for question in asked]
    assert page.count("<article>") == len(PHOTOGRAPHS)
    assert page.count("gg-word") >= len(PHOTOGRAPHS)
    assert page.count(" %)</dd>") == len(questions)
    assert said.count(" %)") == len(questions)
    _, alone, _ = run("caption --model tell", EXAMPLES / "chelsea.jpg")
    assert said.splitlines()[0] == f"chelsea.jpg: {alone.strip()}"
    # Two of the licences ask for the author's name wherever the picture is shown.
    assert page.count("CC BY 2.0, https://creativecommons.org/licenses/by/2.0/") == 2
    status, said, err = run("demo --model lstm --out other")
    assert (status, " %)" in said) == (0, False)
    assert "no questions are asked: lstm only captions" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--model tell --epochs 0", "--epochs: has no effect without --train"),
        ("--model tell --again", "--again: has no effect without --train"),
        ("--train --model tell", "--model: has no effect with --train"),
        ("--train --fit pad", "--fit: has no effect with --train"),
        ("--model ask", "--model ask: expected a captioner"),
        ("--model tell --model lstm", "--model tell lstm: expected a captioner"),
        ("--model tell --out a.png", "--out a.png: "),
        ("--model tell --out .", "--out .: is not empty"),
    ],
)
def test_what_the_photographs_have_no_use_for_is_refused(run, world, options, said):
    (world / "scenes").mkdir()  # of a training demo
    status, out, err = run("demo", *options.split())
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"error: {said}")


def test_every_photograph_has_credits_and_is_small():
    credited = (EXAMPLES / "CREDITS.md").read_text(encoding="utf-8")
    names = {path.name for path in EXAMPLES.glob("*.jpg")}
    assert names == set(PHOTOGRAPHS)
    for name in names:
        assert f"| `{name}` | " in credited
        with Image.open(EXAMPLES / name) as picture:
            assert max(picture.size) <= 640

"""``gazetell demo``: what it refuses, what it never deletes, and a run of the smallest size."""

import pytest

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
    mistake(2, told, "demo", "--out", tmp_path / "demo", option, number)


@pytest.mark.parametrize("names", [["training.json"], ["scenes/a.png", "mine.txt"]])
def test_what_is_no_demo_is_never_deleted(run, tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    status, _, err = run("demo", "--out", tmp_path, "--again")
    assert (status, "holds something else" in err) == (2, True)
    assert all((tmp_path / name).read_text() == "mine" for name in names)


def test_a_small_demo(run, tmp_path):
    out = tmp_path / "demo"
    _, said, _ = run("demo", "--out", out, *TINY, "--test-pictures", 3, status=0)
    assert "true captions" in said
    assert "None" not in said
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "None" not in page
    # Of three pictures one is the best and one the worst.
    assert page.count("<article>") == 3 + 3 + 1 + 1
    status, _, err = run("demo", "--out", out, *TINY)
    assert (status, "holds a demo; make it anew with --again" in err) == (2, True)
    assert run("demo", "--out", out, *TINY, "--test-pictures", 2, "--again")[0] == 0

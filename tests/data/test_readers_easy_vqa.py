"""easy-VQA: two folders that number their pictures alike."""

import json
from pathlib import Path

import pytest
from PIL import Image

from gazetell.data.prepare import prepare
from gazetell.data.readers import BadRows, easy_vqa
from gazetell.errors import DataError

ROWS = [["what is the blue shape?", "circle", n // 2] for n in range(20)]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Ten pictures to train on and two to test on, two questions each."""
    root = tmp_path / "easy-vqa"
    for split, pictures in (("train", 10), ("test", 2)):
        (root / split / "images").mkdir(parents=True)
        for number in range(pictures):
            Image.new("RGB", (4, 4)).save(root / split / "images" / f"{number}.png")
        (root / split / "questions.json").write_text(json.dumps(ROWS[: 2 * pictures]))
    (root / "answers.txt").write_text("yes\ncircle\nno")
    return root


def test_records(folder, tmp_path):
    dataset = easy_vqa(folder, val=0.3, seed=2)
    assert (dataset.name, dataset.kind, dataset.root) == ("easy-vqa", "easy-vqa", folder)
    assert len({record.id for record in dataset.questions}) == 24
    splits: dict[str, set[str]] = {}
    for record in dataset.questions:
        splits.setdefault(record.image, set()).add(record.split)
    assert all(len(of) == 1 for of in splits.values())
    assert sum(of == {"val"} for of in splits.values()) == 3
    assert splits["test/images/0.png"] == {"test"}
    last = dataset.questions[-1]
    assert (last.id, last.image, last.answers) == ("test-3", "test/images/1.png", ("circle",))
    assert prepare(dataset, tmp_path / "out").splits == {"train": 7, "val": 3, "test": 2}
    # Where its Python package keeps them: below data/.
    (tmp_path / "package").mkdir()
    folder.rename(tmp_path / "package" / "data")
    assert easy_vqa(tmp_path / "package").root == tmp_path / "package" / "data"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (["", "yes", 0], "question is empty"),
        ([None, "yes", 0], "question is missing"),
        (["--", "yes", 0], "question has no words"),
        (["is it?", None, 0], "answer is missing"),
        (["is it?", "", 0], "answer is empty"),
        (["is it?", "pink", 0], "answer 'pink' is not in"),
        (["is it?", "yes", "0"], "expected [question, answer, picture id]"),
        (["is it?", "yes"], "expected [question, answer, picture id]"),
        ({"question": "is it?"}, "expected [question, answer, picture id]"),
    ],
)
def test_bad_rows(folder, row, told):
    path = folder / "test" / "questions.json"
    path.write_text(json.dumps([ROWS[0], row]))
    with pytest.raises(DataError) as caught:
        easy_vqa(folder)
    assert str(caught.value).startswith(f"{path}: row 1: {told}")
    bad = BadRows(skip=True)
    assert len(easy_vqa(folder, bad=bad).questions_of("test")) == 1
    assert len(bad.rows) == 1


def test_missing_or_of_another_form(folder, tmp_path):
    for name, content, told in (
        ("train/questions.json", "{}", "expected a list of"),
        ("train/questions.json", None, r"questions\.json: cannot be read: No such file"),
        ("answers.txt", None, r"answers\.txt: cannot be read"),
    ):
        path = folder / name
        before = path.read_text()
        path.unlink() if content is None else path.write_text(content)
        with pytest.raises(DataError, match=told):
            easy_vqa(folder)
        path.write_text(before)
    for split in ("train", "test"):
        (folder / split / "questions.json").write_text("[]")
    with pytest.raises(DataError, match="holds no question with a picture"):
        easy_vqa(folder)


def test_a_picture_listed_but_not_there(folder, tmp_path):
    (folder / "train/images/4.png").unlink()
    with pytest.raises(DataError, match=r"1 missing \(first: train/images/4\.png\)"):
        prepare(easy_vqa(folder), tmp_path / "out")
    bad = BadRows(skip=True)
    summary = prepare(easy_vqa(folder, bad=bad), tmp_path / "out", bad=bad)
    assert summary.missing == ("train/images/4.png",)
    assert summary.questions == 22

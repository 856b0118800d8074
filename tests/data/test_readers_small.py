"""DAQUAR: pictures named in questions, answers of several things. easy-VQA: two folders."""

import json
import re
from pathlib import Path

import pytest

from gazetell.data.prepare import prepare
from gazetell.data.readers.rows import BadRows
from gazetell.data.readers.small import daquar, easy_vqa
from gazetell.errors import DataError, UsageError

PAIRS = [
    ("what is on the desk in the image1 ?", "lamp"),
    ("what is on the left side of the image2 ?", "table, chair,  book"),
    ("what is the table in the image1 on the floor in the image2 ?", "garbage_bin"),
    ("how many chairs are in this image3 ?", "3"),
    ("what is beneath the beds image4?", "chair, book, table"),
]
RECORDS = [
    ("1", "image1.jpg", "what is on the desk?", ("lamp",), "train"),
    ("2", "image2.jpg", "what is on the left side?", ("book, chair, table",), "train"),
    ("3", "image2.jpg", "what is the table on the floor?", ("garbage_bin",), "train"),
    ("4", "image3.jpg", "how many chairs are?", ("3",), "test"),
    ("5", "image4.jpg", "what is beneath the beds?", ("book, chair, table",), "test"),
]


@pytest.fixture
def rooms(tmp_path) -> Path:
    root = tmp_path / "daquar"
    (root / "images").mkdir(parents=True)
    for number in range(1, 5):
        (root / "images" / f"image{number}.jpg").touch()
    write(root, PAIRS)
    (root / "train_images_list.txt").write_text("image1\nimage2")
    (root / "test_images_list.txt").write_text("image3\nimage4\n")
    return root


def write(folder: Path, pairs: list, end: str = "", name: str = "all_qa_pairs.txt") -> None:
    (folder / name).write_text("\n".join(line for pair in pairs for line in pair) + end)


def plain(dataset) -> list[tuple]:
    return [(r.id, r.image, r.question, r.answers, r.split) for r in dataset.questions]


def test_daquar(rooms, tmp_path):
    bad = BadRows()
    dataset = daquar(rooms, val=0, bad=bad)
    assert (dataset.name, dataset.kind, dataset.root) == ("daquar", "daquar", rooms / "images")
    assert plain(dataset) == RECORDS
    where = f"(first: {rooms}/all_qa_pairs.txt:3)"
    assert bad.notes == [f"answers of several things, sorted because their order varies: 2 {where}"]
    assert prepare(dataset, tmp_path / "out").pictures == 4
    write(rooms, PAIRS, "\n\n")
    assert daquar(rooms, val=0).questions == dataset.questions
    drawn = daquar(rooms, val=0.5)
    assert len({one.image for one in drawn.questions_of("val")}) == 1
    assert len(drawn.questions_of("test")) == 2
    (rooms / "images/image3.jpg").unlink()
    with pytest.raises(DataError, match=r"1 missing \(first: image3\.jpg\)"):
        prepare(daquar(rooms), tmp_path / "out")


def test_other_forms_of_daquar(rooms):
    (rooms / "nyu_depth_images").mkdir()
    for path in (rooms / "images").iterdir():
        path.rename(rooms / "nyu_depth_images" / f"{path.stem.title()}.png")
    (rooms / "images").rmdir()
    (rooms / "all_qa_pairs.txt").rename(rooms / "mine.txt")
    with pytest.raises(DataError, match=r"no file all_qa_pairs\.txt or qa\.894\.raw\.txt or"):
        daquar(rooms)
    dataset = daquar(rooms, pairs=rooms / "mine.txt")
    assert dataset.path(dataset.questions[0]) == rooms / "nyu_depth_images/Image1.png"
    # As the authors hand it out: a file a split, and no lists.
    for name in ("mine.txt", "train_images_list.txt", "test_images_list.txt"):
        (rooms / name).unlink()
    write(rooms, PAIRS[:3], name="qa.894.raw.train.txt")
    write(rooms, PAIRS[3:], name="qa.894.raw.test.txt")
    halves = [(row[2:], row[1][:6]) for row in plain(daquar(rooms, val=0))]
    assert halves == [(row[2:], row[1][:6].title()) for row in RECORDS]
    assert [one.id for one in daquar(rooms, val=0).questions][2:4] == ["train-3", "test-1"]


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        (("what is on the desk ?", "lamp"), "all_qa_pairs.txt:3: names no picture"),
        (("in the image1 ?", "lamp"), "all_qa_pairs.txt:3: question has no words: '?'"),
        (("what is in the image1 ?", " , "), "all_qa_pairs.txt:3: answer is empty"),
    ],
)
def test_bad_rows_of_daquar(rooms, left_out, pair, told):
    write(rooms, [PAIRS[0], pair, PAIRS[1]])
    dataset, rows = left_out(re.escape(told), daquar, rooms)
    assert (len(dataset.questions), len(rows)) == (2, 1)


def test_files_of_daquar_that_do_not_fit(rooms):
    write(rooms, [PAIRS[0], (PAIRS[3][0],)])
    with pytest.raises(
        DataError, match=r"all_qa_pairs\.txt:3: the last question has no answer line"
    ):
        daquar(rooms)
    write(rooms, PAIRS)
    lists = rooms / "train_images_list.txt", rooms / "test_images_list.txt"
    lists[1].write_text("image3\nimage2\n")
    with pytest.raises(DataError, match=r"images_list\.txt:2: image2 is also in the list of train"):
        daquar(rooms)
    lists[1].write_text("IMAGE3.jpg\n")
    bad = BadRows()
    assert len(daquar(rooms, val=0, bad=bad).questions) == 4
    assert bad.notes[-1].startswith("questions of pictures in no official list, left out: 1 (fi")
    for path in lists:
        path.write_text("")
    with pytest.raises(DataError, match=r"all_qa_pairs\.txt: has no picture with a caption or q"):
        daquar(rooms)
    lists[1].unlink()
    with pytest.raises(DataError, match=r"no file test_images_list\.txt"):
        daquar(rooms)


ROWS = [["what is the blue shape?", "circle", n // 2] for n in range(20)]


@pytest.fixture
def shapes(tmp_path) -> Path:
    """Ten pictures to train on and two to test on, two questions each."""
    root = tmp_path / "easy-vqa"
    for split, pictures in (("train", 10), ("test", 2)):
        (root / split / "images").mkdir(parents=True)
        for number in range(pictures):
            (root / split / "images" / f"{number}.png").touch()
        (root / split / "questions.json").write_text(json.dumps(ROWS[: 2 * pictures]))
    (root / "answers.txt").write_text("yes\ncircle\nno")
    return root


def test_easy_vqa(shapes, tmp_path):
    dataset = easy_vqa(shapes, val=0.3, seed=2)
    assert (dataset.name, dataset.kind, dataset.root) == ("easy-vqa", "easy-vqa", shapes)
    assert len({record.id for record in dataset.questions}) == 24
    last = dataset.questions[-1]
    assert (last.id, last.image, last.answers) == ("test-3", "test/images/1.png", ("circle",))
    assert prepare(dataset, tmp_path / "out").splits == {"train": 7, "val": 3, "test": 2}
    (shapes / "train/images/4.png").unlink()
    with pytest.raises(DataError, match=r"1 missing \(first: train/images/4\.png\)"):
        prepare(dataset, tmp_path / "out")
    # Where its Python package keeps them: below data/.
    (tmp_path / "package").mkdir()
    shapes.rename(tmp_path / "package" / "data")
    assert easy_vqa(tmp_path / "package").root == tmp_path / "package" / "data"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (["", "yes", 0], "question is empty"),
        (["is it?", None, 0], "answer is missing"),
        (["is it?", "pink", 0], "answer 'pink' is not in"),
        (["is it?", "yes", "0"], "expected [question, answer, picture id]"),
        (["is it?", "yes"], "expected [question, answer, picture id]"),
        ({"question": "is it?"}, "expected [question, answer, picture id]"),
    ],
)
def test_bad_rows_of_easy_vqa(shapes, left_out, row, told):
    path = shapes / "test" / "questions.json"
    path.write_text(json.dumps([ROWS[0], row]))
    dataset, rows = left_out(re.escape(f"{path}: row 1: {told}"), easy_vqa, shapes)
    assert (len(dataset.questions_of("test")), len(rows)) == (1, 1)


def test_files_of_easy_vqa_that_do_not_fit(shapes):
    for name, content, told in (
        ("train/questions.json", "{}", "expected a list of"),
        ("train/questions.json", None, r"questions\.json: cannot be read: No such file"),
        ("answers.txt", None, r"answers\.txt: cannot be read"),
    ):
        path = shapes / name
        before = path.read_text()
        path.unlink() if content is None else path.write_text(content)
        with pytest.raises(DataError, match=told):
            easy_vqa(shapes)
        path.write_text(before)
    for split, error in (("train", UsageError), ("test", DataError)):
        (shapes / split / "questions.json").write_text("[]")
        with pytest.raises(error, match=r"no pictures of train to draw from|has no picture with"):
            easy_vqa(shapes)

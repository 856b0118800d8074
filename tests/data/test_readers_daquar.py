"""DAQUAR: pictures named in questions, answers of several things."""

from pathlib import Path

import pytest
from PIL import Image

from gazetell.data.prepare import prepare
from gazetell.data.readers import BadRows, daquar
from gazetell.errors import DataError

PAIRS = [
    ("what is on the desk in the image1 ?", "lamp"),
    ("what is on the left side of the image2 ?", "table, chair,  book"),
    ("what is the table in the image1 on the floor in the image2 ?", "garbage_bin"),
    ("how many chairs are in this image3 ?", "3"),
    ("what is beneath the beds image4?", "chair, book, table"),
]


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "daquar"
    (root / "images").mkdir(parents=True)
    for number in range(1, 5):
        Image.new("RGB", (4, 4)).save(root / "images" / f"image{number}.jpg")
    write(root, PAIRS)
    (root / "train_images_list.txt").write_text("image1\nimage2")
    (root / "test_images_list.txt").write_text("image3\nimage4\n")
    return root


def write(folder: Path, pairs: list, end: str = "") -> None:
    lines = [line for pair in pairs for line in pair]
    (folder / "all_qa_pairs.txt").write_text("\n".join(lines) + end)


def test_records(folder, tmp_path):
    bad = BadRows()
    dataset = daquar(folder, val=0, bad=bad)
    assert (dataset.name, dataset.kind, dataset.root) == ("daquar", "daquar", folder / "images")
    found = [(one.id, one.image, one.question, one.answers, one.split) for one in dataset.questions]
    assert found == [
        ("1", "image1.jpg", "what is on the desk?", ("lamp",), "train"),
        ("2", "image2.jpg", "what is on the left side?", ("book, chair, table",), "train"),
        ("3", "image2.jpg", "what is the table on the floor?", ("garbage_bin",), "train"),
        ("4", "image3.jpg", "how many chairs are?", ("3",), "test"),
        ("5", "image4.jpg", "what is beneath the beds?", ("book, chair, table",), "test"),
    ]
    assert bad.notes == ["answers of several things, sorted because their order varies: 2"]
    assert prepare(dataset, tmp_path / "out").pictures == 4
    write(folder, PAIRS, "\n\n")
    assert daquar(folder, val=0).questions == dataset.questions
    drawn = daquar(folder, val=0.5)
    assert len({one.image for one in drawn.questions_of("val")}) == 1
    assert len(drawn.questions_of("test")) == 2


def test_the_original_pictures_are_png_of_another_folder(folder):
    (folder / "nyu_depth_images").mkdir()
    for path in (folder / "images").iterdir():
        path.rename(folder / "nyu_depth_images" / f"{path.stem}.png")
    (folder / "images").rmdir()
    (folder / "all_qa_pairs.txt").rename(folder / "mine.txt")
    with pytest.raises(DataError, match=r"no file all_qa_pairs\.txt or qa\.894\.raw\.txt"):
        daquar(folder)
    dataset = daquar(folder, pairs=folder / "mine.txt")
    assert dataset.path(dataset.questions[0]) == folder / "nyu_depth_images/image1.png"


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        (("what is on the desk ?", "lamp"), "all_qa_pairs.txt:3: names no picture"),
        (("in the image1 ?", "lamp"), "all_qa_pairs.txt:3: question has no words: '?'"),
        (("image1", "lamp"), "all_qa_pairs.txt:3: question is empty"),
        (("what is in the image1 ?", " , "), "all_qa_pairs.txt:4: answer is empty"),
    ],
)
def test_bad_rows(folder, pair, told):
    write(folder, [PAIRS[0], pair, PAIRS[1]])
    with pytest.raises(DataError) as caught:
        daquar(folder)
    assert told in str(caught.value)
    bad = BadRows(skip=True)
    assert len(daquar(folder, bad=bad).questions) == 2
    assert len(bad.rows) == 1


def test_a_question_without_a_line_of_answer(folder):
    write(folder, [PAIRS[0], (PAIRS[3][0],)])
    with pytest.raises(DataError, match=r"all_qa_pairs\.txt:3: the last question has no line of"):
        daquar(folder)


def test_lists(folder):
    (folder / "test_images_list.txt").write_text("image3\nimage2\n")
    with pytest.raises(DataError, match=r"test_images_list\.txt:2: image2 is in the list of train"):
        daquar(folder)
    (folder / "test_images_list.txt").write_text("IMAGE3.jpg\n")
    bad = BadRows()
    assert len(daquar(folder, bad=bad).questions) == 4
    assert bad.notes[0] == "questions of pictures in no official list, left out: 1"
    (folder / "train_images_list.txt").write_text("")
    (folder / "test_images_list.txt").write_text("")
    with pytest.raises(DataError, match="holds no question about a picture of the official lists"):
        daquar(folder)
    (folder / "test_images_list.txt").unlink()
    with pytest.raises(DataError, match=r"no file test_images_list\.txt"):
        daquar(folder)


def test_a_picture_listed_but_not_there(folder, tmp_path):
    (folder / "images/image3.jpg").unlink()
    with pytest.raises(DataError, match=r"1 missing \(first: image3\.jpg\)"):
        prepare(daquar(folder), tmp_path / "out")

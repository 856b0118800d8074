"""The text files of the VQA tutorials, there and back."""

import dataclasses
from pathlib import Path

import pytest

from gazetell.data.readers import BadRows, vqa_text, write_vqa_text
from gazetell.data.records import Dataset, QuestionRecord
from gazetell.errors import DataError, WriteError

RECORDS = (
    QuestionRecord("10", "train2014/COCO_train2014_000000000001.jpg", "Is it red?",
                   ("no", "yes", "yes", ""), "train", "is it", "yes/no"),
    QuestionRecord("11", "train2014/COCO_train2014_000000000001.jpg", "How\u2028many\n dogs?",
                   ("Two ", "3"), "train"),
    QuestionRecord("20", "val2014/COCO_val2014_000000000042.jpg", "这是什么？", ("狗",), "val"),
    QuestionRecord("30", "test2015/COCO_test2015_000000000007.jpg", "why?", (), "test"),
)  # fmt: skip


def pictures(root: Path) -> Path:
    for record in RECORDS:
        (root / record.image).parent.mkdir(parents=True, exist_ok=True)
        (root / record.image).touch()
    return root


def test_there_and_back(tmp_path):
    root, out = pictures(tmp_path / "images"), tmp_path / "text"
    mine = Dataset("vqa", "vqa", root, questions=RECORDS)
    assert write_vqa_text(mine, out) == {"train": 2, "val": 1, "test": 1}
    content = {path.name: path.read_text() for path in out.iterdir()}
    assert content == {
        "questions_train2014.txt": "Is it red?\nHow many dogs?\n",
        "questions_id_train2014.txt": "10\n11\n",
        "images_train2014.txt": "1\n1\n",
        "answers_train2014_modal.txt": "yes\nTwo\n",
        "questions_val2014.txt": "这是什么？\n",
        "questions_id_val2014.txt": "20\n",
        "images_val2014_all.txt": "42\n",
        "answers_val2014_modal.txt": "狗\n",
        "questions_test2015.txt": "why?\n",
        "questions_id_test2015.txt": "30\n",
        "images_test2015.txt": "7\n",
    }
    bad = BadRows()
    back = vqa_text(out, root, bad=bad)
    assert (back.name, back.kind, back.root) == ("text", "vqa-text", root)
    modal = [("yes",), ("Two",), ("狗",), ()]
    assert back.questions == tuple(
        dataclasses.replace(
            record,
            question=" ".join(record.question.split()),
            answers=answers,
            question_type=None,
            answer_type=None,
        )
        for record, answers in zip(RECORDS, modal, strict=True)
    )
    assert bad.notes == ["questions_test2015.txt: questions without answers"]
    # Once more it is the same.
    assert write_vqa_text(back, tmp_path / "again") == {"train": 2, "val": 1, "test": 1}
    assert {path.name: path.read_text() for path in (tmp_path / "again").iterdir()} == content


def test_pictures_without_a_number_keep_their_names(tmp_path):
    record = QuestionRecord("a#1", "photos/my dog.jpg", "what?", ("dog",), "train")
    write_vqa_text(Dataset("mine", "table", tmp_path, questions=(record,)), tmp_path)
    assert vqa_text(tmp_path, tmp_path).questions == (record,)


def test_unanswered_questions_are_left_out_and_counted(tmp_path):
    bare = dataclasses.replace(RECORDS[0], id="12", answers=())
    mine = Dataset("vqa", "vqa", tmp_path, questions=(*RECORDS, bare))
    assert write_vqa_text(mine, tmp_path) == {"train": 2, "val": 1, "test": 1}
    assert (tmp_path / "questions_id_train2014.txt").read_text() == "10\n11\n"


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(DataError, match="mine: has no questions"):
        write_vqa_text(Dataset("mine", "table", tmp_path), tmp_path / "out")
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(WriteError, match="cannot be written"):
        write_vqa_text(Dataset("vqa", "vqa", tmp_path, questions=RECORDS), tmp_path / "out")


@pytest.fixture
def written(tmp_path) -> Path:
    pictures(tmp_path / "images")
    write_vqa_text(Dataset("vqa", "vqa", tmp_path, questions=RECORDS), tmp_path / "text")
    return tmp_path / "text"


def test_files_of_the_tutorials_in_their_other_forms(written):
    root = written.parent / "images"
    # No final newline, Windows line ends, the other name of the pictures of val, test-dev.
    (written / "questions_train2014.txt").write_bytes(b"Is it red?\r\nHow many dogs?")
    (written / "images_val2014_all.txt").rename(written / "images_val2014.txt")
    for stem in ("questions", "questions_id", "images"):
        path = written / f"{stem}_test2015.txt"
        (written / f"{stem}_test-dev2015.txt").write_bytes(path.read_bytes())
    (written / "questions_lengths_train2014.txt").write_text("3\n3\n")
    bad = BadRows()
    again = vqa_text(written, root, bad=bad)
    assert [one.id for one in again.questions] == ["10", "11", "20", "30"]
    assert again.questions[0].question == "Is it red?"
    assert bad.notes[0] == "not read, as test2015 is there: test-dev2015"
    (written / "questions_test2015.txt").unlink()
    dev = vqa_text(written, root).questions_of("test")
    assert [one.image for one in dev] == ["test2015/COCO_test2015_000000000007.jpg"]
    moved = vqa_text(written, root, val_from_train=0.5)
    assert [one.split for one in moved.questions] == ["train", "train", "test"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("questions_train2014.txt", "\nwhat?\n", "questions_train2014.txt:1: question is empty"),
        ("questions_train2014.txt", "what?\n...\n", ":2: question has no words: '...'"),
        ("answers_train2014_modal.txt", "yes\n\n", ":2: answer is empty"),
        ("questions_id_train2014.txt", "10\n10\n", ":2: question id '10' occurs twice"),
        ("questions_id_train2014.txt", "\n11\n", ":1: has no id or no picture"),
        ("images_train2014.txt", "1\n \n", ":2: has no id or no picture"),
    ],
)
def test_bad_lines(written, name, text, told):
    (written / name).write_text(text)
    root = written.parent / "images"
    with pytest.raises(DataError) as caught:
        vqa_text(written, root)
    assert told in str(caught.value)
    bad = BadRows(skip=True)
    assert len(vqa_text(written, root, bad=bad).questions) == len(RECORDS) - 1
    assert len(bad.rows) == 1


def test_files_that_do_not_fit(written):
    root = written.parent / "images"
    (written / "images_train2014.txt").write_text("1\n")
    with pytest.raises(DataError, match=r"images_train2014\.txt: has 1 lines; expected 2, one a q"):
        vqa_text(written, root)
    (written / "answers_train2014_modal.txt").unlink()
    (written / "images_train2014.txt").write_text("1\n1")
    with pytest.raises(DataError, match=r"answers_train2014_modal\.txt: cannot be read: No such"):
        vqa_text(written, root)
    with pytest.raises(DataError, match=r"no file questions_train2014\.txt"):
        vqa_text(root, root)
    for path in written.iterdir():
        path.write_text("") if "test2015" in path.name else path.unlink()
    with pytest.raises(DataError, match="holds no question with a picture"):
        vqa_text(written, root)

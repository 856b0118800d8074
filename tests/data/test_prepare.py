"""Preparing: the folder, the summary, what is left out, a survey of questions, opening again."""

import dataclasses
import errno
import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gazetell.data.prepare import prepare, summarise, survey
from gazetell.data.readers.rows import BadRows
from gazetell.data.readers.table import table
from gazetell.data.records import CaptionRecord, Dataset, QuestionRecord
from gazetell.errors import DataError, UsageError, WriteError


def photo(path: Path, seed: int = 0, size: int = 24) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def dataset(tmp_path: Path, count: int = 6, captions=("A dog runs.", "A dog and a dog")) -> Dataset:
    splits = ("train", "val", "test")
    for n in range(count):
        photo(tmp_path / "images" / f"{n}.png", n)
    records = tuple(
        CaptionRecord(str(n), f"{n}.png", tuple(captions), splits[n % 3]) for n in range(count)
    )
    return Dataset("mine", "table", tmp_path / "images", records)


def broken(images: Path) -> dict[str, str]:
    """Files that are no pictures in place of the dataset's first four; name to reason."""
    (images / "0.png").write_bytes(b"")
    (images / "1.png").write_text("this is not a picture")
    data = (images / "2.png").read_bytes()
    (images / "2.png").write_bytes(data[: len(data) // 2])
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(header))
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + crc
    (images / "3.png").write_bytes(bomb + struct.pack(">I", 0) + b"IDAT" + b"\0" * 4)
    return {
        "0.png": "is empty (0 bytes)",
        "1.png": "is not a picture",
        "2.png": "is a damaged or truncated PNG picture",
        "3.png": "is 30000 x 30000 pixels",
    }


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("check", ["exists", "decode", "none"])
def test_the_folder_opens_as_the_same_dataset(tmp_path, check):
    mine = dataset(tmp_path)
    prepare(mine, tmp_path / "out", check_images=check)
    assert Dataset.open(tmp_path / "out").captions == mine.captions
    assert sorted(content(tmp_path / "out")) == ["captions.jsonl", "dataset.json"]
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == []


def test_a_folder_with_its_pictures_inside_can_be_moved(tmp_path):
    mine = dataset(tmp_path / "out")
    prepare(mine, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    moved = Dataset.open(tmp_path / "moved")
    assert moved.path(moved.captions[0]).is_file()
    assert json.loads((tmp_path / "moved" / "dataset.json").read_text())["root"] == "images"


def test_a_relative_folder(tmp_path, monkeypatch):
    mine = dataset(tmp_path)
    monkeypatch.chdir(tmp_path)
    prepare(dataclasses.replace(mine, root=Path("images")), "out")
    assert Dataset.open("out").captions == mine.captions


def test_summary(tmp_path):
    captions = ("A dog, a dog!", "The dog's שלום 😀", "dog " * 500)
    mine = dataset(tmp_path, 7, captions)
    bad = BadRows(notes=["pictures of no split, left out: 3"])
    summary = prepare(mine, tmp_path / "out", bad=bad)
    assert summary.pictures == 7
    assert summary.captions == 21
    assert summary.splits == {"train": 3, "val": 2, "test": 2}
    # a, dog, the, dog's, שלום, 😀; three pictures of train: "a" six times, "dog" far more often.
    assert (summary.words, summary.frequent_words) == (6, 2)
    assert summary.lengths == {4: 14, 500: 7}
    assert summary.warnings == ()
    lines = summary.lines()
    assert lines[0] == f"mine (table) -> {tmp_path / 'out'}"
    assert lines[4] == "lengths    0-5: 14, 51-500: 7 words (longest 500)"
    assert summary.remarks() == ["note: pictures of no split, left out: 3"]
    assert json.loads(json.dumps(summary.to_dict()))["lengths"] == {"4": 14, "500": 7}
    assert Dataset.open(tmp_path / "out").captions[0].captions == captions


def test_missing_pictures(tmp_path):
    mine = dataset(tmp_path)
    for name in ("1.png", "4.png"):
        (mine.root / name).unlink()
    with pytest.raises(DataError, match=r"images: of 6 pictures 2 missing \(first: 1\.png\)"):
        prepare(mine, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    summary = prepare(mine, tmp_path / "out", bad=BadRows(skip=True))
    assert summary.missing == ("1.png", "4.png")
    assert summary.pictures == 4
    assert summary.warnings == ("split val has no pictures",)
    left_out = f"left out: missing pictures 2; see {tmp_path}/out/quarantine.jsonl"
    assert summary.remarks()[0] == left_out
    rows = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").open()]
    assert [(row["where"], row["reason"]) for row in rows] == [
        (str(mine.root / name), "picture is missing") for name in ("1.png", "4.png")
    ]
    assert json.loads(rows[0]["row"])["captions"] == ["A dog runs.", "A dog and a dog"]
    # "none" asks for nothing; the earlier quarantine is no longer true.
    assert prepare(mine, tmp_path / "out", check_images="none").pictures == 6
    assert not (tmp_path / "out" / "quarantine.jsonl").exists()


def test_unreadable_pictures(tmp_path):
    mine = dataset(tmp_path)
    reasons = broken(mine.root)
    (mine.root / "4.png").unlink()
    assert prepare(mine, tmp_path / "out", bad=BadRows(skip=True)).pictures == 5
    with pytest.raises(DataError) as caught:
        prepare(mine, tmp_path / "new", check_images="decode")
    message = str(caught.value)
    assert "1 missing (first: 4.png) and 4 unreadable (first: 0.png: is empty (0 bytes)" in message
    assert "--skip-bad" in message
    assert "\n" not in message
    summary = prepare(mine, tmp_path / "out", check_images="decode", bad=BadRows(skip=True))
    assert summary.missing == ("4.png",)
    assert [name for name, _ in summary.unreadable] == list(reasons)
    for name, reason in summary.unreadable:
        assert reason.startswith(reasons[name])
    assert Dataset.open(tmp_path / "out").captions == mine.captions[5:]
    assert len((tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()) == 5


def test_nothing_left(tmp_path):
    mine = dataset(tmp_path, 1)
    (mine.root / "0.png").unlink()
    with pytest.raises(DataError, match="no picture is left"):
        prepare(mine, tmp_path / "out", bad=BadRows(skip=True))
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="check_images 'all'"):
        prepare(mine, tmp_path / "out", check_images="all")  # type: ignore[arg-type]


def test_a_name_too_long_for_the_file_system_is_a_missing_picture(tmp_path):
    record = CaptionRecord("1", "a dog runs " * 100, ("x",), "train")
    with pytest.raises(DataError, match="1 missing"):
        prepare(Dataset("mine", "table", tmp_path, (record,)), tmp_path / "out")


def test_warnings(tmp_path):
    mine = dataset(tmp_path, 1)
    summary = prepare(mine, tmp_path / "out")
    assert [warning.split(";")[0] for warning in summary.warnings] == [
        "split val has no pictures",
        "split test has no pictures",
        "the dataset has one picture only",
        "no word occurs 5 times in train",
    ]
    assert summary.remarks()[-1].startswith("warning: no word occurs")
    dev = dataclasses.replace(mine.captions[0], split="dev", id="9")
    other = dataclasses.replace(mine, captions=(*mine.captions, dev))
    assert "records of splits that nothing reads: dev 1" in prepare(other, tmp_path / "o").warnings
    silent = dataclasses.replace(mine.captions[0], captions=())
    bare = dataclasses.replace(mine, captions=(silent, *mine.captions))
    assert "pictures of train without a caption: 1" in prepare(bare, tmp_path / "out").warnings


@pytest.mark.parametrize(
    ("texts", "warning"),
    [
        (("...", "?!"), "captions without a word: 6"),
        (("วงกลมสีแดงในภาพ",), "1 of 1 texts are in Thai without blanks between words"),
        (("一个红色的圆形",) * 2, None),
    ],
)
def test_captions_that_teach_little(tmp_path, texts, warning, caplog):
    found = prepare(dataset(tmp_path, 3, texts), tmp_path / "out").warnings
    told = [line for line in found if not line.startswith("no word occurs 5 times")]
    assert [line[: len(warning or "")] for line in told] == ([warning] if warning else [])
    assert caplog.messages == []  # once is enough


def test_pictures_in_two_splits(tmp_path):
    mine = dataset(tmp_path)
    (mine.root / "1.png").write_bytes((mine.root / "3.png").read_bytes())
    warning = "pictures in two splits: 1, first: 3.png (train) and 1.png (val)"
    assert prepare(mine, tmp_path / "out", check_images="decode").warnings == (warning,)
    # Without reading the content only names can tell.
    assert prepare(mine, tmp_path / "out", check_images="exists").warnings == ()
    twice = (*mine.captions, dataclasses.replace(mine.captions[0], split="test"))
    named = dataclasses.replace(mine, captions=twice)
    assert prepare(named, tmp_path / "out").warnings == (
        "pictures in two splits: 1, first: 0.png (train) and 0.png (test)",
    )


def test_one_picture_under_two_names(tmp_path):
    mine = dataset(tmp_path)
    (mine.root / "3.png").write_bytes((mine.root / "0.png").read_bytes())
    assert prepare(mine, tmp_path / "out", check_images="decode").warnings == (
        "pictures twice in a split: 1, first: 0.png (train) and 3.png (train)",
    )
    # One name in two Unicode spellings, as file systems of two makers have it.
    names = iter(["caf\u00e9.png", "cafe\u0301.png"])
    spelt = [dataclasses.replace(r, image=next(names, r.image)) for r in mine.captions]
    mine = dataclasses.replace(mine, captions=tuple(spelt))
    assert prepare(mine, tmp_path / "out", check_images="none").warnings == (
        "pictures in two splits: 1, first: caf\u00e9.png (train) and cafe\u0301.png (val)",
    )


def test_bad_rows_of_a_reader_and_missing_pictures_share_the_quarantine(tmp_path):
    photo(tmp_path / "a.png")
    path = tmp_path / "t.csv"
    path.write_text("image,caption\na.png,fine\na.png,\nb.png,no such picture\n")
    with pytest.raises(DataError, match=r"t\.csv:3: caption is empty"):
        table(path)
    bad = BadRows(skip=True)
    summary = prepare(table(path, val=0, test=0, bad=bad), tmp_path / "out", bad=bad)
    assert (summary.bad_rows, summary.missing, summary.pictures) == (1, ("b.png",), 1)
    assert any("bad rows 1, missing pictures 1;" in line for line in summary.remarks())
    rows = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").open()]
    assert [row["where"] for row in rows] == [f"{path}:3", str(tmp_path / "b.png")]


def full(*_args, **_options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullFile(io.StringIO):
    def write(self, text: str) -> int:
        full()
        return len(text)


@pytest.mark.parametrize("call", ["os.replace", "pathlib.Path.open", "pathlib.Path.write_text"])
def test_a_full_disk_leaves_the_old_folder_as_it_was(tmp_path, monkeypatch, call):
    prepare(dataset(tmp_path, 3), tmp_path / "out")
    before = content(tmp_path / "out")
    larger = dataset(tmp_path, 6)
    with monkeypatch.context() as patch:
        patch.setattr(call, full if call != "pathlib.Path.open" else lambda *a, **k: FullFile())
        for folder in ("out", "new"):
            with pytest.raises(WriteError, match="cannot be written: No space left") as caught:
                prepare(larger, tmp_path / folder)
            assert ".prepare" not in str(caught.value)
            assert str(tmp_path / folder) in str(caught.value)
    assert content(tmp_path / "out") == before
    assert [path.name for path in (tmp_path / "out").iterdir()] != []
    assert not list((tmp_path / "out").glob(".*"))
    assert not (tmp_path / "new").exists()
    assert len(Dataset.open(tmp_path / "out").captions) == 3


def test_a_file_in_the_way(tmp_path):
    mine = dataset(tmp_path, 3)
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(WriteError, match="out: cannot be written"):
        prepare(mine, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "in the way"


# -- opening a prepared folder ---------------------------------------------------------------

CAPTION = {"id": "1", "image": "a.png", "captions": ["a dog"], "split": "train"}
QUESTION = {"id": "1", "image": "a.png", "question": "what?", "answers": ["x"], "split": "val"}
BOX = {"words": ["dog"], "x0": 0, "y0": 0, "x1": 1, "y1": 1}


def written(folder, captions=(), questions=(), **about):
    folder.mkdir(exist_ok=True)
    about = {"format": 1, "name": "mine", "kind": "table", "root": "."} | about
    (folder / "dataset.json").write_text(json.dumps(about))
    for name, rows in (("captions", captions), ("questions", questions)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_folder_written_by_hand(tmp_path):
    other = {**CAPTION, "split": "val", "boxes": [BOX]}  # ids of two splits may be the same
    question = {**QUESTION, "answer_type": None}
    found = Dataset.open(written(tmp_path, [CAPTION, other], [question]))
    assert found.captions[1].boxes[0].words == ("dog",)
    assert found.questions[0].answer_type is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**CAPTION, "captions": "a dog"}, "is not a CaptionRecord: captions: "),
        ({**CAPTION, "captions": ["a", 3]}, "captions.1: Input should be a valid string"),
        ({**CAPTION, "id": 2}, "id: Input should be a valid string"),
        ({**CAPTION, "image": None}, "image: Input should be a valid string"),
        ({**CAPTION, "boxes": [{**BOX, "words": "dog"}]}, "boxes.0.words: "),
        ({**CAPTION, "boxes": [{**BOX, "x0": "left"}]}, "boxes.0.x0: "),
        ({**CAPTION, "boxes": [{}]}, "boxes.0.words: Field required"),
        ({**CAPTION, "boxes": 3}, "is not a CaptionRecord"),
        ({**CAPTION, "colour": "red"}, "colour: "),
        ({"id": "2", "image": "a.png", "split": "val"}, "captions: Field required"),
        (CAPTION, "id '1' twice in train, first on line 1"),
    ],
)
def test_a_row_that_is_no_record(tmp_path, row, message):
    with pytest.raises(DataError) as caught:
        Dataset.open(written(tmp_path, [CAPTION, row]))
    assert str(caught.value).startswith(f"{tmp_path / 'captions.jsonl'}:2: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"format": 2}, "dataset.json: expected format 1; prepare it again"),
        ({"root": None}, 'dataset.json: expected "root", a string'),
        ({}, "has no records"),
    ],
)
def test_a_folder_that_is_no_dataset(tmp_path, about, message):
    with pytest.raises(DataError, match=message):
        Dataset.open(written(tmp_path, **about))
    with pytest.raises(DataError, match="is not a prepared dataset"):
        Dataset.open(tmp_path / "elsewhere")


# -- a survey of questions -------------------------------------------------------------------

TRAIN = (
    QuestionRecord("1", "a.png", "Is it red?", ("yes", "yes", "No"), "train", "is it", "yes/no"),
    QuestionRecord("2", "a.png", "is  it RED?", ("no", "No.", "yes"), "train", "is it", "yes/no"),
    QuestionRecord("3", "b.png", "How many?", ("2",), "train", "how many", "number"),
    QuestionRecord("4", "b.png", "What is it?", (), "train"),
)
TEST = (
    QuestionRecord("5", "c.png", "Is it red?", ("yes",), "test", "is it", "yes/no"),
    QuestionRecord("6", "c.png", "Why " * 60, ("rust",), "test"),
    QuestionRecord("7", "b.png", "Where?", (), "test"),
)


def test_figures():
    found = survey((*TRAIN, *TEST), missing=["c.png"])
    assert found.lengths == {1: 1, 2: 1, 3: 4, 60: 1}
    assert found.answers_a_question == {0: 2, 1: 3, 3: 2}
    assert found.pictures_in_two_splits == 1
    # Words: is it red how many what. Answers: yes, no, 2, of which test says yes and rust.
    # Modal answers 2, no, yes, once each: in this order, as ties go by their text.
    assert found.lines() == [
        "questions  7 (train 4, val 0, test 3)",
        "asked      is it 75.0 %, how many 25.0 %",
        "types      yes/no 75.0 %, number 25.0 %",
        "words      6 in the questions of train, 0 of them at least 5 times",
        "lengths    0-5: 6, 51-60: 1 words (longest 60)",
        "answers    1 to 3 a question; 3 different in train, 2 of them never in test",
        "ceiling    of the most frequent answers, on train: 3: 100.0 %",
        "ceiling    of the most frequent answers, on test: 3: 50.0 %",
        "repeated   1 about the same picture in the same words",
        "unanswered test 1",
    ]
    assert list(found.warnings()) == [
        "questions of train without an answer: 1",
        "questions whose picture is missing: 2",
    ]


def test_many_answers_and_types():
    records = [
        QuestionRecord(f"{n}", f"{n}.png", "what?", (f"thing {min(n, 40)}",), "train", f"t{n % 11}")
        for n in range(50)
    ]
    found = survey(records)
    assert found.ceiling == {"train": {10: pytest.approx(0.38), 41: 1.0}}
    assert "10: 38.0 %, 41: 100.0 %" in found.lines()[-1]
    assert found.lines()[1].endswith(", 3 more")
    assert found.never_in_test is None
    assert "unanswered" not in found.lines()[-1]


def test_training_answers_that_never_occur_in_test():
    found = survey((*TRAIN, *(dataclasses.replace(one, answers=("rust",)) for one in TEST)))
    assert found.never_in_test == found.answers == 3
    assert "no answer of train ever occurs in test; expected answers in common" in found.warnings()
    # Without answers in test nothing can be said.
    bare = survey((*TRAIN, *(dataclasses.replace(one, answers=()) for one in TEST)))
    assert bare.never_in_test is None
    assert not any("test" in line for line in bare.warnings())


def test_the_summary_of_a_dataset_of_questions(tmp_path):
    for number, name in enumerate("abc"):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{name}.png")
    mine = Dataset("mine", "vqa", tmp_path, questions=(*TRAIN, *TEST))
    summary = prepare(mine, tmp_path / "out", check_images="decode")
    assert summary.asked == survey((*TRAIN, *TEST))
    assert summary.questions == 7
    assert summary.lines()[1] == "pictures   3 (train 2, val 0, test 2)"
    assert summary.warnings == (
        "split val has no pictures",
        "pictures in two splits: 1, first: b.png (train) and b.png (test)",
        "questions of train without an answer: 1",
    )
    assert json.loads(json.dumps(summary.to_dict()))["asked"]["repeated"] == 1
    (tmp_path / "c.png").unlink()
    shown = summarise(Dataset.open(tmp_path / "out"))
    assert "questions whose picture is missing: 2" in shown.warnings
    # Shown as it is: nothing was left out of it.
    assert "warning: pictures missing on disk: 1 (first: c.png)" in shown.remarks()
    assert not any(line.startswith("left out") for line in shown.remarks())
    # Left out with their picture.
    again = prepare(mine, tmp_path / "out", bad=BadRows(skip=True))
    assert (again.questions, again.missing) == (5, ("c.png",))
    quarantine = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert len(quarantine) == 2


@pytest.mark.parametrize("name", ["captions.jsonl", "questions.jsonl"])
def test_a_table_is_never_overwritten(tmp_path, name):
    """The table that is read may bear the name of a file of the prepared folder."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=f"already contains {name}; expected another folder"):
        prepare(dataset(tmp_path, 3), tmp_path)
    assert (tmp_path / name).read_text() == "mine"
    assert not (tmp_path / "dataset.json").exists()


def test_an_earlier_dataset_of_another_kind_and_the_pictures_stay_as_they_are(tmp_path):
    captions = dataset(tmp_path, 3)
    with pytest.raises(UsageError, match="is the folder of the pictures"):
        prepare(captions, captions.root)
    prepare(captions, tmp_path / "out")
    there = (tmp_path / "out" / "captions.jsonl").read_text()
    question = QuestionRecord("q", captions.captions[0].image, "is it?", ["yes"], "train")
    asked = dataclasses.replace(captions, captions=[], questions=[question])
    with pytest.raises(UsageError, match=r"already contains captions.jsonl"):
        prepare(asked, tmp_path / "out")
    assert (tmp_path / "out" / "captions.jsonl").read_text() == there

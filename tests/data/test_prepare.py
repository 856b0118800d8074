"""Preparing: the folder, the summary, what is left out, and failures that leave no trace."""

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

from gazetell.data.prepare import prepare
from gazetell.data.readers import BadRows, coco, flickr8k, table
from gazetell.data.records import CaptionRecord, Dataset, QuestionRecord
from gazetell.errors import DataError, GazetellError, UsageError, WriteError


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
        "1.png": "is no picture",
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
    assert lines[1] == "pictures   7 (train 3, val 2, test 2)"
    assert lines[3] == "words      6 in train, 2 of them at least 5 times"
    assert lines[4] == "lengths    0-5: 14, 51-500: 7 words (longest 500)"
    assert lines[5] == "note: pictures of no split, left out: 3"
    assert json.loads(json.dumps(summary.to_dict()))["lengths"] == {"4": 14, "500": 7}
    with pytest.raises(dataclasses.FrozenInstanceError):
        summary.words = 0  # type: ignore[misc]
    stored = Dataset.open(tmp_path / "out").captions[0].captions
    assert stored == captions


def test_questions_alone(tmp_path):
    photo(tmp_path / "a.png")
    question = QuestionRecord("1", "a.png", "What?", ("dog",), "train")
    summary = prepare(Dataset("q", "vqa", tmp_path, questions=(question,)), tmp_path / "out")
    assert (summary.pictures, summary.captions, summary.questions) == (1, 0, 1)
    assert "questions  1 (train 1, val 0, test 0)" in summary.lines()
    assert Dataset.open(tmp_path / "out").questions == (question,)


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
    assert f"left out   missing pictures 2; see {tmp_path}/out/quarantine.jsonl" in summary.lines()
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


def test_pictures_of_one_pixel_are_pictures(tmp_path):
    mine = dataset(tmp_path, 3)
    photo(mine.root / "0.png", size=1)
    assert prepare(mine, tmp_path / "out", check_images="decode").unreadable == ()


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
    assert summary.lines()[-1].startswith("warning: no word occurs")
    bare = dataclasses.replace(
        mine, captions=(dataclasses.replace(mine.captions[0], captions=()), *mine.captions)
    )
    assert "pictures of train without a caption: 1" in prepare(bare, tmp_path / "out").warnings


def test_only_punctuation(tmp_path):
    summary = prepare(dataset(tmp_path, 3, ("...", "?!")), tmp_path / "out")
    assert (summary.words, summary.lengths) == (0, {0: 6})


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


def test_bad_rows_of_a_reader_and_missing_pictures_share_the_quarantine(tmp_path):
    photo(tmp_path / "a.png")
    path = tmp_path / "t.csv"
    path.write_text("image,caption\na.png,fine\na.png,\nb.png,no such picture\n")
    with pytest.raises(DataError, match=r"t\.csv:3: caption is empty"):
        table(path)
    bad = BadRows(skip=True)
    summary = prepare(table(path, val=0, test=0, bad=bad), tmp_path / "out", bad=bad)
    assert (summary.bad_rows, summary.missing, summary.pictures) == (1, ("b.png",), 1)
    assert any("bad rows 1, missing pictures 1;" in line for line in summary.lines())
    rows = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").open()]
    assert [row["where"] for row in rows] == [f"{path}:3", str(tmp_path / "b.png")]


def test_every_reader_prepares(tmp_path):
    folder = tmp_path / "flickr8k"
    for name in "abc":
        photo(folder / "Images" / f"{name}.jpg", ord(name))
    lines = ["image,caption"] + [f"{name}.jpg,A dog ." for name in "abc"]
    (folder / "captions.txt").write_text("\n".join(lines))
    about = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "caption": "A dog"}],
    }
    (folder / "captions_train2014.json").write_text(json.dumps(about))
    sets = [
        flickr8k(folder, val=1, test=1),
        coco({"train": folder / "captions_train2014.json"}, folder / "Images"),
    ]
    for number, one in enumerate(sets):
        out = tmp_path / f"out{number}"
        assert prepare(one, out, check_images="decode").pictures == len(one.captions)
        assert Dataset.open(out).captions == one.captions


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


def test_errors_are_one_line(tmp_path):
    mine = dataset(tmp_path)
    broken(mine.root)
    with pytest.raises(GazetellError) as caught:
        prepare(mine, tmp_path / "out", check_images="decode")
    assert len(str(caught.value).splitlines()) == 1

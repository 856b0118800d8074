"""COCO: official caption files and Karpathy's split files, whole and damaged."""

import gzip
import json
import lzma
from pathlib import Path

import pytest

from gazetell.data.readers.captions import coco, karpathy
from gazetell.data.readers.rows import BadRows
from gazetell.errors import DataError, UsageError


def official(path: Path, images=None, annotations=None, **more) -> Path:
    about = {
        "images": images or [{"id": 9, "file_name": "a.jpg"}, {"id": 25, "file_name": "b.jpg"}],
        "annotations": annotations
        or [
            {"id": 1, "image_id": 25, "caption": "A giraffe. "},
            {"id": 2, "image_id": 9, "caption": "A table"},
            {"id": 3, "image_id": 25, "caption": "Two trees 😀"},
        ],
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({key: value for key, value in about.items() if value is not None}))
    return path


@pytest.mark.parametrize("year", [2014, 2017])
@pytest.mark.parametrize("end", ["", ".gz", ".xz"])
def test_official_files_of_both_years(tmp_path, year, end):
    val = [{"id": 42, "file_name": "c.jpg"}], [{"image_id": 42, "caption": "A dog"}]
    for path in (
        official(tmp_path / "annotations" / f"captions_train{year}.json"),
        official(tmp_path / "annotations" / f"captions_val{year}.json", *val),
    ):
        if end:
            pack = gzip.compress if end == ".gz" else lzma.compress
            path.with_name(path.name + end).write_bytes(pack(path.read_bytes()))
            path.unlink()
    (tmp_path / "images" / f"train{year}").mkdir(parents=True)
    dataset = coco(tmp_path, images=tmp_path / "images")
    assert [(r.id, r.image, r.split) for r in dataset.captions] == [
        ("9", f"train{year}/a.jpg", "train"),
        ("25", f"train{year}/b.jpg", "train"),
        # There is no folder val*: its pictures lie in the folder itself.
        ("42", "c.jpg", "val"),
    ]
    assert dataset.captions[1].captions == ("A giraffe.", "Two trees 😀")
    assert dataset.path(dataset.captions[2]) == tmp_path / "images" / "c.jpg"
    assert dataset.kind == "coco"
    assert coco(tmp_path, images=tmp_path / "images", year=year) == dataset
    with pytest.raises(DataError, match=rf"captions_val\*\.json of {2014 + 2017 - year}"):
        coco(tmp_path, year=2014 + 2017 - year)


def test_of_two_years_one_is_read(tmp_path):
    official(tmp_path / "captions_val2014.json")
    official(tmp_path / "captions_train2017.json")
    bad = BadRows()
    assert {record.split for record in coco(tmp_path, bad=bad).captions} == {"val"}
    assert bad.notes == ["the captions of 2017 are there too, and are not read"]


def test_a_test_file_has_no_annotations(tmp_path):
    path = tmp_path / "image_info_test2014.json"
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "t.jpg"}]}))
    dataset = coco(tmp_path, test=path)
    assert [(r.id, r.captions, r.split) for r in dataset.captions] == [("1", (), "test")]
    with pytest.raises(UsageError, match="year 2014: has no effect, since the files are named"):
        coco(tmp_path, test=path, year=2014)


def test_files_not_found(tmp_path):
    with pytest.raises(DataError, match="nowhere: cannot be read as a folder"):
        coco(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no captions_train\*\.json or .* of 2014 or 2017"):
        coco(tmp_path)
    with pytest.raises(DataError, match=r"x\.json: cannot be read"):
        coco(tmp_path, train=tmp_path / "x.json")
    path = official(tmp_path / "captions_val2014.json")
    with pytest.raises(DataError, match=r"picture 'a\.jpg' is in split train at .*, here val"):
        coco(tmp_path, train=path, val=path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"x\.json:1: is not JSON"),
        ('{"images": [{"id": 1, "file_na', r"x\.json:1: is not JSON"),
        ("[]", "expected a JSON object, found list"),
        ("{}", "has no list 'images'"),
        ('{"images": {}}', "has no list 'images'"),
        ('{"images": [], "annotations": 3}', "has no list 'annotations'"),
        ('{"images": [], "annotations": []}', "has no picture with a caption or question"),
    ],
)
def test_empty_and_foreign_files(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        coco(tmp_path, train=path)
    if "annotations" not in text:
        with pytest.raises(DataError, match=message):
            karpathy(path, images=tmp_path)


IMAGES = [{"id": 9, "file_name": "a.jpg"}]
CAPTION = {"image_id": 9, "caption": "A table"}


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        ([*IMAGES, {"id": 3}], [CAPTION], r"images\[1\]: expected id and file_name"),
        ([*IMAGES, 7], [CAPTION], r"images\[1\]: expected an object, found int"),
        ([*IMAGES, {"id": [], "file_name": "b"}], [CAPTION], r"images\[1\]: expected id and"),
        ([*IMAGES, {"id": 3, "file_name": "\ud83d"}], [CAPTION], r"images\[1\]: expected id and"),
        (IMAGES * 2, [CAPTION], r"images\[1\]: id 9 occurs twice"),
        (IMAGES, [CAPTION, "text"], r"annotations\[1\]: expected an object"),
        (IMAGES, [CAPTION, {"image_id": 1, "caption": "x"}], r"\[1\]: image_id 1 is that of no"),
        (IMAGES, [CAPTION, {"image_id": [], "caption": "x"}], r"\[1\]: image_id \[\] is that"),
        (IMAGES, [CAPTION, {"image_id": 9}], r"\[1\]: caption is missing"),
        ([*IMAGES, {"id": 3, "file_name": "b"}], [CAPTION], "picture b has no caption"),
    ],
)
def test_bad_rows(tmp_path, left_out, images, annotations, message):
    path = official(tmp_path / "captions_train2014.json", images, annotations)
    dataset, rows = left_out(f"{path}: .*{message}", coco, tmp_path, train=path)
    assert [(r.id, r.captions) for r in dataset.captions] == [("9", ("A table",))]
    assert len(rows) == 1


def split_file(path: Path, *rows) -> Path:
    known = {"a": ("train", 9), "b": ("restval", 25), "c": ("val", 42), "d": ("test", 43)}
    default = [picture(f"{name}.jpg", split, cocoid=n) for name, (split, n) in known.items()]
    path.write_text(json.dumps({"dataset": "coco", "images": [*default, *rows]}))
    return path


def picture(name: str, split: str, **more) -> dict:
    folder = "train2014" if split == "train" else "val2014"
    texts = [{"raw": "A dog.", "tokens": ["a", "dog"]}, {"raw": "Two dogs "}]
    about = {"filename": name, "filepath": folder, "split": split, "imgid": 0, "sentences": texts}
    return about | more


def test_karpathys_coco(tmp_path):
    path = split_file(tmp_path / "dataset_coco.json")
    (tmp_path / "images" / "val2014").mkdir(parents=True)
    dataset = karpathy(path, images=tmp_path / "images")
    assert [(r.id, r.image, r.split) for r in dataset.captions] == [
        ("9", "a.jpg", "train"),
        ("25", "val2014/b.jpg", "train"),
        ("42", "val2014/c.jpg", "val"),
        ("43", "val2014/d.jpg", "test"),
    ]
    assert dataset.captions[0].captions == ("A dog.", "Two dogs")
    assert dataset.name == "coco"
    assert karpathy(path, images=tmp_path, restval="val").captions[1].split == "val"
    bad = BadRows()
    assert len(karpathy(path, images=tmp_path, restval="drop", bad=bad).captions) == 3
    assert bad.notes == ["restval pictures, left out: 1"]


def test_karpathys_flickr(tmp_path):
    path = tmp_path / "dataset_flickr8k.json"
    row = picture("2513_03d.jpg", "train")
    del row["filepath"]
    path.write_text(json.dumps({"dataset": "flickr8k", "images": [row]}))
    dataset = karpathy(path, images=tmp_path)
    assert [(r.id, r.image) for r in dataset.captions] == [("2513_03d", "2513_03d.jpg")]
    assert dataset.kind == "flickr8k"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("text", "expected an object, found str"),
        ({"split": "val"}, "expected an object with filename"),
        (picture("e.jpg", "holdout"), "split 'holdout': expected train, val, test, restval"),
        (picture("e.jpg", "val", sentences=[]), "has no caption"),
        (picture("e.jpg", "val", sentences="A dog"), "has no caption"),
        (picture("e.jpg", "val", cocoid=42), "id '42' is already that of picture 'c.jpg'"),
        (picture("a.jpg", "val", cocoid=9), "picture 'a.jpg' is in split train at .*, here val"),
        (picture("e.jpg", "val", filepath=5), "filepath is int; expected a folder"),
        (picture("e.jpg", "val", filepath=["x"]), "filepath is list; expected a folder"),
    ],
)
def test_bad_rows_of_karpathys_files(tmp_path, left_out, row, message):
    path = split_file(tmp_path / "dataset_coco.json", row)
    dataset, rows = left_out(rf"json: images\[4\]: {message}", karpathy, path, images=tmp_path)
    assert (len(dataset.captions), len(rows)) == (4, 1)


def test_a_bad_sentence_leaves_the_others(tmp_path, left_out):
    sentences = [{"raw": " "}, "x", {"raw": "A cat"}]
    row = picture("e.jpg", "val", sentences=sentences, filepath=None)
    path = split_file(tmp_path / "dataset_coco.json", row)
    told = r"images\[4\]\.sentences\[0\]: caption is empty"
    dataset, rows = left_out(told, karpathy, path, images=tmp_path)
    assert dataset.captions[-1].captions == ("A cat",)
    assert len(rows) == 2

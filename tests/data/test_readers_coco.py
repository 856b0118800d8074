"""COCO: official caption files and Karpathy's split files, whole and damaged."""

import json
from pathlib import Path

import pytest

from gazetell.data.readers import BadRows, coco, coco_files, karpathy
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
def test_official_files_of_both_years(tmp_path, year):
    train = official(tmp_path / "annotations" / f"captions_train{year}.json")
    val = official(
        tmp_path / "annotations" / f"captions_val{year}.json",
        images=[{"id": 42, "file_name": "c.jpg"}],
        annotations=[{"image_id": 42, "caption": "A dog"}],
    )
    (tmp_path / "images" / f"train{year}").mkdir(parents=True)
    files = coco_files(tmp_path, year)
    assert files == {"train": train, "val": val}
    dataset = coco(files, tmp_path / "images")
    assert [(r.id, r.image, r.split) for r in dataset.captions] == [
        ("9", f"train{year}/a.jpg", "train"),
        ("25", f"train{year}/b.jpg", "train"),
        # There is no folder val*: its pictures lie in the folder itself.
        ("42", "c.jpg", "val"),
    ]
    assert dataset.captions[1].captions == ("A giraffe.", "Two trees 😀")
    assert dataset.path(dataset.captions[2]) == tmp_path / "images" / "c.jpg"
    assert dataset.kind == "coco"


def test_a_test_file_has_no_annotations(tmp_path):
    path = tmp_path / "image_info_test2014.json"
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "t.jpg"}]}))
    dataset = coco({"test": path}, tmp_path)
    assert [(r.id, r.captions, r.split) for r in dataset.captions] == [("1", (), "test")]


def test_files_not_found(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        coco_files(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"expected captions_train2017\.json or captions_val2017"):
        coco_files(tmp_path, 2017)
    with pytest.raises(DataError, match=r"x\.json: cannot be read"):
        coco({"train": tmp_path / "x.json"}, tmp_path)
    with pytest.raises(UsageError, match="split 'dev'"):
        coco({"dev": tmp_path / "x.json"}, tmp_path)
    with pytest.raises(UsageError, match="no annotation files"):
        coco({}, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"x\.json:1: is not JSON"),
        ('{"images": [{"id": 1, "file_na', r"x\.json:1: is not JSON"),
        ("[]", "expected a JSON object, found list"),
        ("{}", "has no list 'images'"),
        ('{"images": {}}', "has no list 'images'"),
        ('{"images": [], "annotations": 3}', "has no list 'annotations'"),
        ('{"images": [], "annotations": []}', "holds no picture with a caption"),
    ],
)
def test_empty_and_foreign_files(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        coco({"train": path}, tmp_path)
    if "annotations" not in text:
        with pytest.raises(DataError, match=message):
            karpathy(path, tmp_path)


IMAGES = [{"id": 9, "file_name": "a.jpg"}]
CAPTION = {"image_id": 9, "caption": "A table"}


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        ([*IMAGES, {"id": 3}], [CAPTION], r"images\[1\]: expected id and file_name"),
        ([*IMAGES, 7], [CAPTION], r"images\[1\]: expected id and file_name"),
        ([*IMAGES, {"id": [], "file_name": "b"}], [CAPTION], r"images\[1\]: expected id and"),
        ([*IMAGES, {"id": 3, "file_name": "\ud83d"}], [CAPTION], r"images\[1\]: expected id and"),
        (IMAGES * 2, [CAPTION], r"images\[1\]: id 9 occurs twice"),
        (IMAGES, [CAPTION, "text"], r"annotations\[1\]: expected an object"),
        (IMAGES, [CAPTION, {"image_id": 1, "caption": "x"}], r"\[1\]: image_id 1 is that of no"),
        (IMAGES, [CAPTION, {"image_id": [], "caption": "x"}], r"\[1\]: image_id \[\] is that"),
        (IMAGES, [CAPTION, {"image_id": 9, "caption": " \n"}], r"\[1\]: caption is empty"),
        (IMAGES, [CAPTION, {"image_id": 9}], r"\[1\]: caption is missing"),
        (IMAGES, [CAPTION, {"image_id": 9, "caption": 5}], r"\[1\]: caption is int"),
        ([*IMAGES, {"id": 3, "file_name": "b"}], [CAPTION], "picture b has no caption"),
    ],
)
def test_bad_rows(tmp_path, images, annotations, message):
    path = official(tmp_path / "captions_train2014.json", images, annotations)
    with pytest.raises(DataError, match=message) as caught:
        coco({"train": path}, tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    bad = BadRows(skip=True)
    dataset = coco({"train": path}, tmp_path, bad=bad)
    assert [(r.id, r.captions) for r in dataset.captions] == [("9", ("A table",))]
    assert len(bad.rows) == 1


def split_file(path: Path, *rows) -> Path:
    default = [
        picture("a.jpg", "train", cocoid=9),
        picture("b.jpg", "restval", cocoid=25),
        picture("c.jpg", "val", cocoid=42),
        picture("d.jpg", "test", cocoid=43),
    ]
    path.write_text(json.dumps({"dataset": "coco", "images": [*default, *rows]}))
    return path


def picture(name: str, split: str, **more) -> dict:
    folder = "train2014" if split == "train" else "val2014"
    return {
        "filename": name,
        "filepath": folder,
        "split": split,
        "imgid": 0,
        "sentences": [{"raw": "A dog.", "tokens": ["a", "dog"]}, {"raw": "Two dogs "}],
        **more,
    }


def test_karpathys_coco(tmp_path):
    path = split_file(tmp_path / "dataset_coco.json")
    (tmp_path / "images" / "val2014").mkdir(parents=True)
    dataset = karpathy(path, tmp_path / "images")
    assert [(r.id, r.image, r.split) for r in dataset.captions] == [
        ("9", "a.jpg", "train"),
        ("25", "val2014/b.jpg", "train"),
        ("42", "val2014/c.jpg", "val"),
        ("43", "val2014/d.jpg", "test"),
    ]
    assert dataset.captions[0].captions == ("A dog.", "Two dogs")
    assert dataset.name == "coco"


def test_restval(tmp_path):
    path = split_file(tmp_path / "dataset_coco.json")
    assert karpathy(path, tmp_path, restval="val").captions[1].split == "val"
    bad = BadRows()
    assert len(karpathy(path, tmp_path, restval=None, bad=bad).captions) == 3
    assert bad.notes == ["restval pictures, left out: 1"]
    with pytest.raises(UsageError, match="restval 'rest'"):
        karpathy(path, tmp_path, restval="rest")


def test_karpathys_flickr(tmp_path):
    path = tmp_path / "dataset_flickr8k.json"
    row = picture("2513_03d.jpg", "train")
    del row["filepath"]
    path.write_text(json.dumps({"dataset": "flickr8k", "images": [row]}))
    dataset = karpathy(path, tmp_path)
    assert [(r.id, r.image) for r in dataset.captions] == [("2513_03d", "2513_03d.jpg")]
    assert dataset.kind == "flickr8k"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("text", "expected an object with filename"),
        ({"split": "val"}, "expected an object with filename"),
        (picture("e.jpg", "holdout"), "split 'holdout': expected train, val, test, restval"),
        (picture("e.jpg", "val", sentences=[]), "has no caption"),
        (picture("e.jpg", "val", sentences="A dog"), "has no caption"),
        (picture("e.jpg", "val", cocoid=42), "id '42' is already that of picture 'c.jpg'"),
        (picture("a.jpg", "val", cocoid=9), "picture 'a.jpg' is in split train at .*, here val"),
    ],
)
def test_bad_rows_of_karpathys_files(tmp_path, row, message):
    path = split_file(tmp_path / "dataset_coco.json", row)
    with pytest.raises(DataError, match=rf"json: images\[4\]: {message}"):
        karpathy(path, tmp_path)
    bad = BadRows(skip=True)
    assert len(karpathy(path, tmp_path, bad=bad).captions) == 4
    assert len(bad.rows) == 1


def test_a_bad_sentence_leaves_the_others(tmp_path):
    row = picture("e.jpg", "val", sentences=[{"raw": " "}, "x", {"raw": "A cat"}])
    path = split_file(tmp_path / "dataset_coco.json", row)
    with pytest.raises(DataError, match=r"images\[4\]\.sentences\[0\]: caption is empty"):
        karpathy(path, tmp_path)
    bad = BadRows(skip=True)
    assert karpathy(path, tmp_path, bad=bad).captions[-1].captions == ("A cat",)
    assert len(bad.rows) == 2


@pytest.mark.parametrize("filepath", [5, ["x"], {"a": 1}, None])
def test_an_odd_filepath(tmp_path, filepath):
    path = split_file(tmp_path / "dataset_coco.json", picture("e.jpg", "val", filepath=filepath))
    bad = BadRows(skip=True)
    assert len(karpathy(path, tmp_path, bad=bad).captions) == (5 if filepath is None else 4)

import json

import pytest

from gazetell.data.predictions import match, read_predictions, read_references
from gazetell.errors import DataError


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_json_lines(tmp_path):
    references = write(
        tmp_path / "references.jsonl",
        {"id": "b", "captions": ["a dog", ""], "image": "b.jpg", "split": "test"},
        {"id": 7, "captions": ["un café"]},
    )
    predictions = write(
        tmp_path / "predictions.jsonl", {"id": 7, "caption": ""}, {"id": "b", "caption": "a cat"}
    )
    assert read_references(references) == {"b": ["a dog", ""], "7": ["un café"]}
    assert read_predictions(predictions) == {"7": "", "b": "a cat"}


def test_coco(tmp_path):
    references = write(
        tmp_path / "references.JSON",
        {
            "images": [{"id": 2, "file_name": "x.jpg"}, {"id": 10}],
            "annotations": [
                {"image_id": 10, "caption": "a dog", "id": 1},
                {"image_id": 2, "caption": "a cat", "id": 2},
                {"image_id": 10, "caption": "the dog", "id": 3},
            ],
        },
    )
    predictions = write(tmp_path / "results.json", [{"image_id": 2, "caption": "a cat"}])
    assert read_references(references) == {"2": ["a cat"], "10": ["a dog", "the dog"]}
    assert read_predictions(predictions) == {"2": "a cat"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "references.jsonl: holds no captions"),
        ([{"captions": ["a"]}], 'references.jsonl:1: expected "id", a string or an integer'),
        ([{"id": True, "captions": ["a"]}], 'references.jsonl:1: expected "id"'),
        ([{"id": "a", "captions": "a dog"}], 'references.jsonl:1: expected "captions", a list'),
        ([{"id": "a", "captions": ["x", 3]}], 'references.jsonl:1: expected "captions", a list'),
        ([{"id": "a", "captions": []}], "references.jsonl:1: picture 'a' has no captions"),
        (
            [{"id": 1, "captions": ["x"]}, {"id": 2, "captions": ["x"]}, {"id": "1"}],
            "references.jsonl:3: picture '1' again, first on line 1",
        ),
        ([["a"]], "references.jsonl:1: expected a JSON object"),
    ],
)
def test_bad_references(tmp_path, rows, message):
    with pytest.raises(DataError) as caught:
        read_references(write(tmp_path / "references.jsonl", *rows))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "predictions.jsonl: holds no captions"),
        ([{"id": 1}], 'predictions.jsonl:1: expected "caption", a string'),
        ([{"id": 1, "caption": None}], 'predictions.jsonl:1: expected "caption", a string'),
        ([{"id": 1.5, "caption": "a"}], 'predictions.jsonl:1: expected "id"'),
        (
            [{"id": 1, "caption": "a"}, {"id": "1", "caption": "b"}],
            "predictions.jsonl:2: picture '1' again, first on line 1",
        ),
    ],
)
def test_bad_predictions(tmp_path, rows, message):
    with pytest.raises(DataError) as caught:
        read_predictions(write(tmp_path / "predictions.jsonl", *rows))
    assert message in str(caught.value)


IMAGE, NOTE = {"id": 1}, {"image_id": 1, "caption": "a"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], 'expected a COCO annotation file, an object with "annotations"'),
        ({"images": [IMAGE]}, 'expected a COCO annotation file, an object with "annotations"'),
        ({"annotations": [NOTE]}, 'expected a COCO annotation file with "images"'),
        ({"images": [], "annotations": []}, "holds no captions"),
        ({"images": [IMAGE, IMAGE], "annotations": [NOTE]}, "image 2: picture '1' again"),
        ({"images": [IMAGE], "annotations": [NOTE, 3]}, "annotation 2: expected an object"),
        ({"images": [IMAGE], "annotations": [{"image_id": 1}]}, 'annotation 1: expected "caption"'),
        (
            {"images": [IMAGE], "annotations": [{"image_id": 5, "caption": "a"}]},
            "annotation 1: picture '5' is not among \"images\"",
        ),
        (
            {"images": [{"id": i} for i in range(9)], "annotations": [NOTE]},
            "8 pictures have no captions, expected some: 0, 2, 3, 4, 5, ...",
        ),
    ],
)
def test_bad_coco_references(tmp_path, document, message):
    with pytest.raises(DataError) as caught:
        read_references(write(tmp_path / "references.json", document))
    assert "references.json: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"annotations": []}, "expected a COCO result file, a list of objects"),
        ([], "holds no captions"),
        ([["x"]], "entry 1: expected an object, found list"),
        ([NOTE, NOTE], "entry 2: picture '1' again, first on entry 1"),
        ([{"image_id": 1}], 'entry 1: expected "caption", a string'),
    ],
)
def test_bad_coco_predictions(tmp_path, document, message):
    with pytest.raises(DataError) as caught:
        read_predictions(write(tmp_path / "results.json", document))
    assert message in str(caught.value)


def test_a_missing_file(tmp_path):
    for read in (read_references, read_predictions):
        for name in ("none.jsonl", "none.json"):
            with pytest.raises(DataError, match=name):
                read(tmp_path / name)


def test_match():
    references = {str(i): ["a"] for i in range(9)}
    match(references, dict.fromkeys(references, "a"))
    with pytest.raises(DataError) as caught:
        match(references, {"0": "a"}, references_name="r.jsonl", predictions_name="p.jsonl")
    assert str(caught.value) == (
        "p.jsonl: lacks 8 of the 9 pictures of r.jsonl: 1, 2, 3, 4, 5, ..."
    )
    with pytest.raises(DataError) as caught:
        match({"0": ["a"]}, {"0": "a", "x": "b"})
    assert str(caught.value) == "references: lacks 1 of the 2 pictures of predictions: x"

"""The generated folder: records, reproducibility, refusals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gazetell.data.records import Dataset
from gazetell.errors import DataError, UsageError, WriteError
from gazetell.scenes import boxes, draw, generate, judge, read_truth

SMALL = {"train": 30, "val": 8, "test": 12, "seed": 5}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "scenes"
    generate(folder, **SMALL)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_records_pictures_and_truth_fit_together(made: Path) -> None:
    dataset, truth = Dataset.open(made), read_truth(made)
    assert (dataset.kind, dataset.name) == ("scenes", "scenes")
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [30, 8, 12]
    assert list(truth) == [record.id for record in dataset.captions]
    assert dataset.captions[7].id == "scene-000007"
    for record in dataset.captions:
        scene = truth[record.id]
        assert len(record.captions) == 5
        assert all(judge(caption, scene) for caption in record.captions)
        assert record.boxes == boxes(scene)
        picture = Image.open(dataset.path(record))
        assert (picture.size, picture.mode) == ((128, 128), "RGB")
        assert np.array_equal(np.asarray(picture), np.asarray(draw(scene)))
    assert len(dataset.questions) == 6 * 50
    splits = {record.id: record.split for record in dataset.captions}
    for question in dataset.questions:
        owner = question.id.rsplit("-q", 1)[0]
        assert question.split == splits[owner]
        assert question.image == f"images/{owner}.png"
        assert len(question.answers) == 1
        assert set(question.boxes) <= set(boxes(truth[owner]))
        assert question.question_type
        assert question.answer_type
    pointed = [one for one in dataset.questions if one.question_type in ("colour", "shape")]
    assert pointed
    assert all(len(one.boxes) == 1 for one in pointed)


def test_the_same_bytes_whatever_the_workers_but_others_for_another_seed(
    made: Path, tmp_path: Path
) -> None:
    calls: list[tuple[int, int]] = []
    dataset = generate(tmp_path, **SMALL, workers=2, progress=lambda *at: calls.append(at))
    assert dataset == Dataset.open(tmp_path)
    first = content(made)
    assert content(tmp_path) == first
    assert calls == [(50, 50)]
    generate(tmp_path, **{**SMALL, "seed": 6})
    second = content(tmp_path)
    assert not any(first[name] == second[name] for name in first if name.endswith(".png"))


def test_a_scenes_folder_is_made_anew(tmp_path: Path) -> None:
    generate(tmp_path, train=6, val=0, test=0)
    (tmp_path / "notes.txt").write_text("mine")
    generate(tmp_path, train=4, val=0, test=0, questions_per_image=0, captions_per_image=2)
    assert sorted(content(tmp_path)) == [
        "captions.jsonl", "dataset.json", "images/scene-000000.png", "images/scene-000001.png",
        "images/scene-000002.png", "images/scene-000003.png", "notes.txt", "recipe.json",
        "scenes.jsonl",
    ]  # fmt: skip
    assert {len(record.captions) for record in Dataset.open(tmp_path).captions} == {2}
    # An interrupted run is taken up.
    (tmp_path / "notes.txt").unlink()
    before = content(tmp_path)
    (tmp_path / "dataset.json").unlink()
    generate(tmp_path, train=4, val=0, test=0, questions_per_image=0, captions_per_image=2)
    assert content(tmp_path) == before


def test_a_folder_of_something_else_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="is not empty; expected a new or empty folder"):
        generate(tmp_path, train=1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "dataset.json").write_text(json.dumps({"kind": "coco"}))
    with pytest.raises(UsageError, match="other: is not empty"):
        generate(other, train=1)
    mine = tmp_path / "mine"
    (mine / "images").mkdir(parents=True)
    (mine / "captions.jsonl").write_text("my own\n")
    with pytest.raises(UsageError, match="mine: is not empty"):
        generate(mine, train=1)
    assert (mine / "captions.jsonl").read_text() == "my own\n"
    shutil.rmtree(mine)
    with pytest.raises(UsageError, match=r"photo\.jpg: is a file"):
        generate(tmp_path / "photo.jpg", train=1)
    assert sorted(content(tmp_path)) == ["other/dataset.json", "photo.jpg"]


def test_a_failed_write_leaves_no_data_set(tmp_path: Path) -> None:
    # A folder lies where a picture must go, left by an interrupted run.
    (tmp_path / "recipe.json").write_text("{}")
    (tmp_path / "images" / "scene-000002.png.d").mkdir(parents=True)
    (tmp_path / "images" / "scene-000002.png.d").rename(tmp_path / "images" / "scene-000002.png")
    with pytest.raises(WriteError, match="cannot be written"):
        generate(tmp_path, train=4, val=0, test=0)
    assert not (tmp_path / "dataset.json").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"train": -1}, "train -1: expected 0 pictures or more"),
        ({"train": 0, "val": 0, "test": 0}, "at least one picture"),
        ({"captions_per_image": 0}, "captions 0: expected 1 to 10 a picture"),
        ({"questions_per_image": 13}, "questions 13: expected 0 to 12 a picture"),
        ({"workers": 0}, "workers 0: expected at least 1"),
    ],
)
def test_options_are_checked(options: dict, told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told):
        generate(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_truth_that_cannot_be_read_is_named(made: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no generated scenes"):
        read_truth(tmp_path)
    (tmp_path / "recipe.json").write_bytes((made / "recipe.json").read_bytes())
    (tmp_path / "scenes.jsonl").write_text('{"id": "scene-000000", "things": 3}\n')
    with pytest.raises(DataError, match=r"scenes\.jsonl:1: is not a scene"):
        read_truth(tmp_path)
    (tmp_path / "recipe.json").write_text('{"version": 0}')
    with pytest.raises(DataError, match="version 0, expected 1; generate it again"):
        read_truth(tmp_path)

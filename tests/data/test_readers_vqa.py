"""The official files of VQA v1 and v2: every form, and what is wrong with them."""

import gzip
import json
from pathlib import Path

import pytest

from gazetell.data.prepare import prepare
from gazetell.data.readers import BadRows, VQAFiles, vqa, vqa_files
from gazetell.errors import DataError, UsageError

TEN = ["yes", "no", "yes", "Yes", "", "no", "yes", "maybe", "yes", "no"]


def question(number: int, text="Is it raining?", image: int = 0, **more) -> dict:
    return {"question_id": number, "image_id": image or number // 10, "question": text, **more}


def annotation(number: int, answers=TEN, image: int = 0, **more) -> dict:
    if isinstance(answers, list):
        answers = [
            {"answer": text, "answer_confidence": "yes", "answer_id": place}
            for place, text in enumerate(answers, start=1)
        ]
    row = {"question_id": number, "image_id": image or number // 10, "answers": answers, **more}
    return {key: value for key, value in row.items() if value is not ...}


def put(path: Path, value) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def pair(folder: Path, questions: list, annotations: list | None, **about) -> VQAFiles:
    """The two files of a split."""
    first = put(folder / "q.json", {"questions": questions, **about})
    if annotations is None:
        return VQAFiles(first)
    return VQAFiles(first, put(folder / "a.json", {"annotations": annotations}))


def official(folder: Path, end: str = "") -> None:
    """The files of v2, each picture with two questions: train 1 to 10, val 11 to 14, test 20."""
    for subset, images in (("train2014", range(1, 11)), ("val2014", range(11, 15))):
        ids = [10 * image + place for image in images for place in range(2)]
        put(
            folder / f"Questions/v2_OpenEnded_mscoco_{subset}_questions.json{end}",
            {"data_subtype": subset, "questions": [question(n) for n in ids]},
        )
        rows = [annotation(n, question_type="is it", answer_type="yes/no") for n in ids]
        put(folder / f"v2_mscoco_{subset}_annotations.json{end}", {"annotations": rows})
        for image in images:
            picture = folder / f"{subset}/COCO_{subset}_{image:012d}.jpg"
            picture.parent.mkdir(exist_ok=True)
            picture.touch()
    for name, count in (("test-dev2015", 1), ("test2015", 2)):
        put(
            folder / f"Questions/v2_OpenEnded_mscoco_{name}_questions.json{end}",
            {"data_subtype": name, "questions": [question(200 + n) for n in range(count)]},
        )
    (folder / "test2015").mkdir()
    (folder / "test2015/COCO_test2015_000000000020.jpg").touch()


@pytest.mark.parametrize("end", ["", ".gz"])
def test_the_official_files(tmp_path, end):
    official(tmp_path, end)
    bad = BadRows()
    dataset = vqa(vqa_files(tmp_path, bad), tmp_path, bad=bad)
    assert (dataset.name, dataset.kind, dataset.root) == ("vqa2", "vqa", tmp_path)
    sizes = {name: len(dataset.questions_of(name)) for name in ("train", "val", "test")}
    assert sizes == {"train": 20, "val": 8, "test": 2}
    first = dataset.questions[0]
    assert (first.id, first.image) == ("10", "train2014/COCO_train2014_000000000001.jpg")
    assert (first.question, first.answers) == ("Is it raining?", tuple(TEN))  # all ten, in order
    assert (first.question_type, first.answer_type) == ("is it", "yes/no")
    last = dataset.questions[-1]
    assert (last.id, last.answers, last.answer_type) == ("201", (), None)
    names = [f"v2_OpenEnded_mscoco_{name}2015_questions.json{end}" for name in ("test-dev", "test")]
    assert bad.notes == [
        f"files of questions that were not read: {names[0]}",
        f"{names[1]}: questions without annotations, so without answers",
    ]
    assert prepare(dataset, tmp_path / "out").pictures == 15
    if not end:  # test-dev alone, whose pictures are those of test
        (tmp_path / "Questions/v2_OpenEnded_mscoco_test2015_questions.json").unlink()
        dev = vqa(vqa_files(tmp_path), tmp_path).questions_of("test")
        assert [one.image for one in dev] == ["test2015/COCO_test2015_000000000020.jpg"]


def test_val_from_train(tmp_path):
    official(tmp_path)
    bad = BadRows()
    dataset = vqa(vqa_files(tmp_path), tmp_path, val_from_train=0.2, seed=1, bad=bad)
    by_split = {name: dataset.questions_of(name) for name in ("train", "val", "test")}
    assert {name: len(of) for name, of in by_split.items()} == {"train": 16, "val": 4, "test": 8}
    assert not {one.image for one in by_split["train"]} & {one.image for one in by_split["val"]}
    assert all(one.image.startswith("val2014") for one in by_split["test"])
    assert bad.notes[-2:] == [
        "questions of the official test, left out: 2",
        "test is the official val; val was drawn from the pictures of train",
    ]
    # Without an official val the official test stays.
    files = vqa_files(tmp_path)
    del files["val"]
    left = vqa(files, tmp_path, val_from_train=0.2)
    assert len(left.questions_of("test")) == 2
    with pytest.raises(UsageError, match="val 1: expected a share"):
        vqa(files, tmp_path, val_from_train=1)


def test_version_1_and_multiple_choice(tmp_path):
    rows = [question(10, multiple_choices=["yes", "no", "red"]), question(11)]
    choice = put(tmp_path / "MultipleChoice_mscoco_train2014_questions.json", {"questions": rows})
    answers = put(
        tmp_path / "mscoco_train2014_annotations.json.gz",
        {"annotations": [annotation(10), annotation(11)]},
    )
    assert vqa_files(tmp_path) == {"train": VQAFiles(choice, answers)}
    bad = BadRows()
    dataset = vqa(vqa_files(tmp_path), tmp_path, bad=bad)
    assert dataset.name == "vqa"
    # No field data_subtype: the name of the file tells.
    assert dataset.questions[0].image == "COCO_train2014_000000000001.jpg"
    assert bad.notes == [
        "MultipleChoice_mscoco_train2014_questions.json: the multiple choices of 1 questions are "
        "not kept; the questions are taken as open ones"
    ]
    # The open questions go first, and what was passed over is told.
    opened = put(tmp_path / "OpenEnded_mscoco_train2014_questions.json", {"questions": rows})
    assert vqa_files(tmp_path, bad)["train"].questions == opened
    assert bad.notes[-1].endswith(f"were not read: {choice.name}")


def test_one_answer_alone(tmp_path):
    rows = [
        annotation(10, ..., multiple_choice_answer="red"),
        annotation(11, ["two"]),
        annotation(12, "blue"),
    ]
    bad = BadRows()
    files = pair(tmp_path, [question(n) for n in (10, 11, 12)], rows)
    dataset = vqa({"val": files}, tmp_path, bad=bad)
    assert [one.answers for one in dataset.questions] == [("red",), ("two",), ("blue",)]
    assert bad.notes == [
        "a.json: annotations without answers but with multiple_choice_answer, which was taken: 1"
    ]


GOOD = question(10)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (question(11, ""), "questions[1]: question is empty"),
        (question(11, "?!"), "questions[1]: question has no words: '?!'"),
        (question(11, None), "questions[1]: question is missing"),
        (question(10, "Why?"), "questions[1]: question id '10' occurs twice, first at"),
        (question(12), "questions[1]: question 12 has no annotation in"),
        (question(11, image="one"), "questions[1]: image_id is 'one'; expected a number"),
        (question(11, image=3), "questions[1]: is about image_id 3, its annotation about 1"),
        ({"question": "Why?"}, "questions[1]: expected an object with question_id"),
        ("Why?", "questions[1]: expected an object with question_id"),
    ],
)
def test_bad_questions(tmp_path, row, told):
    files = {"train": pair(tmp_path, [GOOD, row], [annotation(10), annotation(11)])}
    with pytest.raises(DataError) as caught:
        vqa(files, tmp_path)
    assert told in str(caught.value)
    bad = BadRows(skip=True)
    assert [one.id for one in vqa(files, tmp_path, bad=bad).questions] == ["10"]
    assert any(told in f"{one.where}: {one.reason}" for one in bad.rows)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (annotation(11, ...), "annotations[1]: answer is missing"),
        (annotation(11, None), "annotations[1]: answer is missing"),
        (annotation(11, []), "annotations[1]: answer is missing"),
        (annotation(11, ["", " "]), "annotations[1]: answer is empty"),
        (annotation(11, ["yes", None]), "annotations[1]: answer is missing"),
        (annotation(11, ["yes", 1.5]), "annotations[1]: answer is float; expected text"),
        (annotation(11, [["yes"]]), "annotations[1]: answer is list; expected text"),
        (annotation(10), "annotations[1]: question_id 10 occurs twice"),
        ({"answers": []}, "annotations[1]: expected an object with question_id and answers"),
    ],
)
def test_bad_annotations(tmp_path, row, told):
    asked = [GOOD] if row.get("question_id") in (10, None) else [GOOD, question(11)]
    files = {"train": pair(tmp_path, asked, [annotation(10), row])}
    with pytest.raises(DataError) as caught:
        vqa(files, tmp_path)
    assert told in str(caught.value)
    bad = BadRows(skip=True)
    assert [one.id for one in vqa(files, tmp_path, bad=bad).questions] == ["10"]
    assert len(bad.rows) == 1  # told once, not again for its question


def test_whole_numbers_are_answers(tmp_path):
    files = pair(tmp_path, [GOOD], [annotation(10, [2, "two", 2])])
    assert vqa({"train": files}, tmp_path).questions[0].answers == ("2", "two", "2")


def test_an_annotation_without_its_question(tmp_path):
    files = {"train": pair(tmp_path, [GOOD], [annotation(10), annotation(99)])}
    with pytest.raises(DataError, match=r"a\.json: annotations\[1\]: question_id 99 is that of no"):
        vqa(files, tmp_path)


def test_questions_of_any_length_and_script_are_kept(tmp_path):
    texts = ["Why " * 2500, "qwrtx zzgh", "这是什么？", "מה זה?"]
    rows = [question(10 + n, text) for n, text in enumerate(texts)]
    files = pair(tmp_path, rows, [annotation(10 + n) for n in range(4)])
    found = vqa({"train": files}, tmp_path).questions
    assert [one.question for one in found] == [text.strip() for text in texts]


def test_a_picture_listed_but_not_there(tmp_path):
    files = pair(tmp_path, [GOOD], [annotation(10)], data_subtype="train2014")
    dataset = vqa({"train": files}, tmp_path)
    with pytest.raises(DataError, match=r"1 missing \(first: COCO_train2014_000000000001\.jpg\)"):
        prepare(dataset, tmp_path / "out")


def test_files_that_are_missing_or_of_another_form(tmp_path):
    with pytest.raises(DataError, match="no file OpenEnded_mscoco_"):
        vqa_files(tmp_path)
    with pytest.raises(UsageError, match="no files of questions"):
        vqa({}, tmp_path)
    name = tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json"
    put(name, {"questions": []})
    with pytest.raises(DataError, match=r"expected v2_mscoco_val2014_annotations\.json"):
        vqa_files(tmp_path)
    with pytest.raises(DataError, match="holds no question with a picture"):
        vqa({"test": VQAFiles(name)}, tmp_path)
    with pytest.raises(UsageError, match="split 'dev'"):
        vqa({"dev": VQAFiles(name)}, tmp_path)
    # The annotations in the place of the questions, and the reverse.
    files = pair(tmp_path, [GOOD], [annotation(10)])
    assert files.annotations
    with pytest.raises(DataError, match=r"q\.json: has no list 'annotations'; expected a file of"):
        vqa({"val": VQAFiles(files.questions, files.questions)}, tmp_path)
    with pytest.raises(DataError, match=r"a\.json: has no list 'questions'"):
        vqa({"val": VQAFiles(files.annotations, files.annotations)}, tmp_path)
    packed = put(tmp_path / "q.json.gz", {"questions": [GOOD]})
    for content, told in (
        (packed.read_bytes()[:-12], "truncated or damaged gzip"),
        (b'{"annotations": []}', "has no list 'questions'"),
        (gzip.compress(b"{"), "is not JSON"),
        (gzip.compress(b"\xff\xfe\x00\x01"), "is not UTF-8 text"),
    ):
        packed.write_bytes(content)
        with pytest.raises(DataError, match=told):
            vqa({"test": VQAFiles(packed)}, tmp_path)
    with pytest.raises(DataError, match=r"none\.json\.gz: cannot be read: No such file"):
        vqa({"test": VQAFiles(tmp_path / "none.json.gz")}, tmp_path)

"""VQA v1 and v2: the official files, the text files of tutorials, and what is wrong in them."""

import dataclasses
import gzip
import json
import re
from pathlib import Path

import pytest

from gazetell.data.readers.rows import BadRows
from gazetell.data.readers.vqa import vqa, vqa_text, write_vqa_text
from gazetell.data.records import Dataset, QuestionRecord
from gazetell.errors import DataError, UsageError, WriteError

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


def pair(folder: Path, questions: list, annotations: list, **about) -> dict[str, Path]:
    """The two files of train."""
    return {
        "train": put(folder / "q.json", {"questions": questions, **about}),
        "train_annotations": put(folder / "a.json", {"annotations": annotations}),
    }


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
    dataset = vqa(tmp_path, bad=bad)
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
        f"{names[0]}: not read, since {names[1]} is there",
        f"{names[1]}: questions without annotations, so without answers",
    ]
    if not end:  # test-dev alone, whose pictures are those of test
        (tmp_path / "Questions/v2_OpenEnded_mscoco_test2015_questions.json").unlink()
        dev = vqa(tmp_path).questions_of("test")
        assert [one.image for one in dev] == ["test2015/COCO_test2015_000000000020.jpg"]


def test_val_from_train(tmp_path):
    official(tmp_path)
    bad = BadRows()
    dataset = vqa(tmp_path, val_from_train=0.2, seed=1, bad=bad)
    by_split = {name: dataset.questions_of(name) for name in ("train", "val", "test")}
    assert {name: len(of) for name, of in by_split.items()} == {"train": 16, "val": 4, "test": 8}
    assert not {one.image for one in by_split["train"]} & {one.image for one in by_split["val"]}
    assert all(one.image.startswith("val2014") for one in by_split["test"])
    told = "test is the official val; val is drawn from the pictures of train; the official test is"
    assert bad.notes[1:] == [f"{told} left out"]
    # Without an official val the official test stays.
    for path in tmp_path.rglob("*val2014*.json"):
        path.unlink()
    left = vqa(tmp_path, val_from_train=2)
    assert len(left.questions_of("test")) == 2
    assert len({one.image for one in left.questions_of("val")}) == 2
    for path in tmp_path.rglob("*train2014*.json"):
        path.unlink()
    with pytest.raises(UsageError, match="no pictures of train to draw from"):
        vqa(tmp_path, val_from_train=0.1)


def test_version_1_and_multiple_choice(tmp_path):
    rows = [question(10, multiple_choices=["yes", "no", "red"]), question(11)]
    choice = put(tmp_path / "MultipleChoice_mscoco_train2014_questions.json", {"questions": rows})
    answers = {"annotations": [annotation(10), annotation(11)]}
    put(tmp_path / "mscoco_train2014_annotations.json.gz", answers)
    bad = BadRows()
    dataset = vqa(tmp_path, bad=bad)
    assert dataset.name == "vqa"
    # No field data_subtype: the name of the file tells.
    assert dataset.questions[0].image == "COCO_train2014_000000000001.jpg"
    assert bad.notes == [
        "MultipleChoice_mscoco_train2014_questions.json: multiple choices not kept, "
        "the questions taken as open: 1"
    ]
    # The open questions go first, and what was passed over is told.
    put(tmp_path / "OpenEnded_mscoco_train2014_questions.json", {"questions": rows})
    vqa(tmp_path, bad=bad)
    assert bad.notes[-2].startswith(f"{choice.name}: not read, since OpenEnded_")


def test_one_answer_alone(tmp_path):
    rows = [annotation(10, ..., multiple_choice_answer="red"), annotation(11, ["two"])]
    rows.append(annotation(12, "blue"))
    bad = BadRows()
    files = pair(tmp_path, [question(n) for n in (10, 11, 12)], rows)
    dataset = vqa(tmp_path, **files, bad=bad)
    assert [one.answers for one in dataset.questions] == [("red",), ("two",), ("blue",)]
    assert bad.notes == [
        "a.json: annotations with multiple_choice_answer alone, taken: 1 "
        f"(first: {tmp_path}/a.json: annotations[0])"
    ]


GOOD = question(10)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (question(11, "?!"), "questions[1]: question has no words: '?!'"),
        (question(10, "Why?"), "questions[1]: question id '10' occurs twice, first at"),
        (question(12), "questions[1]: question 12 has no annotation in"),
        (question(11, image="one"), "questions[1]: image_id is 'one'; expected a number"),
        (question(11, image=3), "questions[1]: is about image_id 3, its annotation about 1"),
        ({"question": "Why?"}, "questions[1]: expected an object with question_id"),
        ("Why?", "questions[1]: expected an object, found str"),
    ],
)
def test_bad_questions(tmp_path, left_out, row, told):
    files = pair(tmp_path, [GOOD, row], [annotation(10), annotation(11)])
    dataset, _ = left_out(re.escape(told), vqa, tmp_path, **files)
    assert [one.id for one in dataset.questions] == ["10"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (annotation(11, ...), "annotations[1]: answer is missing"),
        (annotation(11, []), "annotations[1]: answer is missing"),
        (annotation(11, ["yes", 1.5]), "annotations[1]: answer is float; expected text"),
        (annotation(11, [["yes"]]), "annotations[1]: answer is list; expected text"),
        (annotation(10), "annotations[1]: question_id 10 occurs twice"),
        (annotation(99), "annotations[1]: question_id 99 is that of no question in"),
        ({"answers": []}, "annotations[1]: expected an object with question_id"),
    ],
)
def test_bad_annotations(tmp_path, left_out, row, told):
    asked = [GOOD] if row.get("question_id") in (10, 99, None) else [GOOD, question(11)]
    files = pair(tmp_path, asked, [annotation(10), row])
    dataset, rows = left_out(re.escape(told), vqa, tmp_path, **files)
    assert [one.id for one in dataset.questions] == ["10"]
    assert len(rows) == 1  # told once, not again for its question


def test_whole_numbers_are_answers_and_ids_may_be_text(tmp_path):
    asked = question("010", image="1")
    files = pair(tmp_path, [asked], [annotation("010", [2, "two", 2], image=1)])
    first = vqa(tmp_path, **files).questions[0]
    assert (first.id, first.answers) == ("010", ("2", "two", "2"))
    assert first.image.endswith("_000000000001.jpg")


def test_files_that_are_missing_or_of_another_form(tmp_path):
    with pytest.raises(DataError, match="no file OpenEnded_mscoco_"):
        vqa(tmp_path)
    name = put(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": []})
    with pytest.raises(DataError, match=r"expected v2_mscoco_val2014_annotations\.json"):
        vqa(tmp_path)
    with pytest.raises(DataError, match="has no picture with a caption or question"):
        vqa(tmp_path, test=name)
    # The annotations in the place of the questions, and the reverse.
    files = pair(tmp_path, [GOOD], [annotation(10)])
    with pytest.raises(DataError, match=r"q\.json: has no list 'annotations'"):
        vqa(tmp_path, val=files["train"], val_annotations=files["train"])
    with pytest.raises(DataError, match=r"a\.json: has no list 'questions'"):
        vqa(tmp_path, test=files["train_annotations"])
    with pytest.raises(DataError, match="expected a JSON object, found list"):
        vqa(tmp_path, test=put(tmp_path / "q.json.gz", []))


def test_pictures_are_found_by_their_number(tmp_path):
    for name in (
        "COCO_val2014_000000000001.jpg",
        "train2014/COCO_train2014_000000000002.jpg",
        "other/000000000003.JPG",
        "other/000000000004.npy",
        "val2014/COCO_val2014_000000000005.jpg",
        "small/COCO_val2014_000000000005.jpg",
    ):
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "images" / name).touch()
    rows = [question(n, image=n) for n in range(1, 6)]
    path = put(tmp_path / "q.json", {"data_subtype": "val2014", "questions": rows})
    assert [
        one.image for one in vqa(tmp_path, images=tmp_path / "images", test=path).questions
    ] == [
        "COCO_val2014_000000000001.jpg",
        "train2014/COCO_train2014_000000000002.jpg",
        "other/000000000003.JPG",
        "val2014/COCO_val2014_000000000004.jpg",  # not there: what it would be called
        "val2014/COCO_val2014_000000000005.jpg",
    ]
    with pytest.raises(DataError, match="nowhere: cannot be read as a folder"):
        vqa(tmp_path, images=tmp_path / "nowhere", test=path)


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
    back = vqa_text(out, images=root, bad=bad)
    assert (back.name, back.kind, back.root) == ("text", "vqa-text", root)
    modal = [("yes",), ("Two",), ("狗",), ()]
    bare = {"question_type": None, "answer_type": None}
    for record, answers, read in zip(RECORDS, modal, back.questions, strict=True):
        text = " ".join(record.question.split())
        assert read == dataclasses.replace(record, question=text, answers=answers, **bare)
    assert bad.notes == ["questions_test2015.txt: questions without answers"]
    # Once more it is the same.
    assert write_vqa_text(back, tmp_path / "again") == {"train": 2, "val": 1, "test": 1}
    assert {path.name: path.read_text() for path in (tmp_path / "again").iterdir()} == content


def test_pictures_without_a_number_keep_their_names(tmp_path):
    record = QuestionRecord("a#1", "photos/my dog.jpg", "what?", ("dog",), "train")
    write_vqa_text(Dataset("mine", "table", tmp_path, questions=(record,)), tmp_path)
    assert vqa_text(tmp_path, images=tmp_path).questions == (record,)


def test_what_is_not_written(tmp_path):
    bare = dataclasses.replace(RECORDS[0], id="12", answers=())
    mine = Dataset("vqa", "vqa", tmp_path, questions=(*RECORDS, bare))
    assert write_vqa_text(mine, tmp_path) == {"train": 2, "val": 1, "test": 1}
    assert (tmp_path / "questions_id_train2014.txt").read_text() == "10\n11\n"
    # Files of another dataset would be read with those written.
    with pytest.raises(DataError, match=r"questions_val2014\.txt: is of another dataset; expected"):
        write_vqa_text(dataclasses.replace(mine, questions=RECORDS[:1]), tmp_path)
    with pytest.raises(DataError, match="mine: has no questions"):
        write_vqa_text(Dataset("mine", "table", tmp_path), tmp_path / "out")
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(WriteError, match="cannot be written"):
        write_vqa_text(mine, tmp_path / "out")


@pytest.fixture
def written(tmp_path) -> Path:
    pictures(tmp_path / "images")
    write_vqa_text(Dataset("vqa", "vqa", tmp_path, questions=RECORDS), tmp_path / "text")
    return tmp_path / "text"


def test_files_of_the_tutorial_of_2018(written):
    root = written.parent / "images"
    expected = [one for one in vqa_text(written, images=root).questions if one.split != "test"]
    for path in written.glob("*test*"):
        path.unlink()
    for split in ("train", "val"):
        images = f"images_{split}2014{'_all' if split == 'val' else ''}.txt"
        for old, new in (
            (f"questions_{split}2014.txt", f"ques_{split}.txt"),
            (f"questions_id_{split}2014.txt", f"ques_{split}_id.txt"),
            (f"answers_{split}2014_modal.txt", f"answer_{split}.txt"),
            (images, f"{'val_' if split == 'val' else ''}images_coco_id.txt"),
        ):
            (written / old).rename(written / new)
        (written / f"ques_{split}_len.txt").write_text("3")
    assert list(vqa_text(written, images=root).questions) == expected


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
    again = vqa_text(written, images=root, bad=bad)
    assert [one.id for one in again.questions] == ["10", "11", "20", "30"]
    assert again.questions[0].question == "Is it red?"
    told = "questions_test-dev2015.txt: not read, since questions_test2015.txt is there"
    assert bad.notes[0] == told
    (written / "questions_test2015.txt").unlink()
    dev = vqa_text(written, images=root).questions_of("test")
    assert [one.image for one in dev] == ["test2015/COCO_test2015_000000000007.jpg"]
    moved = vqa_text(written, images=root, val_from_train=0.5)
    assert [one.split for one in moved.questions] == ["train", "train", "test"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("questions_train2014.txt", "what?\n...\n", ":2: question has no words: '...'"),
        ("answers_train2014_modal.txt", "yes\n\n", ":2: answer is empty"),
        ("questions_id_train2014.txt", "10\n10\n", ":2: question id '10' occurs twice"),
        ("questions_id_train2014.txt", "\n11\n", ":1: has no id or no picture"),
        ("images_train2014.txt", "1\n \n", ":2: has no id or no picture"),
    ],
)
def test_bad_lines(written, left_out, name, text, told):
    (written / name).write_text(text)
    images = written.parent / "images"
    dataset, rows = left_out(re.escape(told), vqa_text, written, images=images)
    assert (len(dataset.questions), len(rows)) == (len(RECORDS) - 1, 1)


def test_files_that_do_not_fit(written):
    root = written.parent / "images"
    (written / "images_train2014.txt").write_text("1\n")
    with pytest.raises(
        DataError, match=r"images_train2014\.txt: has 1 lines; expected 2, one per q"
    ):
        vqa_text(written, images=root)
    (written / "answers_train2014_modal.txt").unlink()
    (written / "images_train2014.txt").write_text("1\n1")
    with pytest.raises(DataError, match=r"answers_train2014_modal\.txt: cannot be read: No such"):
        vqa_text(written, images=root)
    with pytest.raises(DataError, match=r"expected files such as questions_train2014\.txt"):
        vqa_text(root, images=root)
    for path in written.iterdir():
        path.write_text("") if "test2015" in path.name else path.unlink()
    with pytest.raises(DataError, match="has no picture with a caption or question"):
        vqa_text(written, images=root)

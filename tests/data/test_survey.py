"""What a dataset of questions holds: figures counted by hand."""

import dataclasses
import json

import pytest
from PIL import Image

from gazetell.data.prepare import prepare, summarise, survey
from gazetell.data.readers import BadRows
from gazetell.data.records import Dataset, QuestionRecord

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
    assert found.questions == {"train": 4, "val": 0, "test": 3}
    assert found.answer_types == {"yes/no": 3, "number": 1}
    assert found.question_types == {"is it": 3, "how many": 1}
    assert found.words == 6  # is it red how many what
    assert found.frequent_words == 0
    assert found.lengths == {1: 1, 2: 1, 3: 4, 60: 1}
    assert found.answers_a_question == {0: 2, 1: 3, 3: 2}
    assert (found.answers, found.never_in_test) == (3, 2)  # yes, no, 2: test says yes and rust
    # Modal answers 2, no, yes, once each: in this order, as ties go by their text.
    assert found.ceiling == {"train": {3: 1.0}, "test": {3: 0.5}}
    assert found.repeated == 1
    assert found.without_answer == {"train": 1, "val": 0, "test": 1}
    assert (found.without_picture, found.pictures_in_two_splits) == (2, 1)
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
    assert found.warnings() == [
        "questions of train without an answer: 1",
        "questions whose picture is missing: 2",
    ]
    assert json.loads(json.dumps(found.to_dict()))["ceiling"]["test"] == {"3": 0.5}


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


def test_a_test_split_alone():
    found = survey(TEST)
    assert (found.words, found.answers, found.ceiling) == (0, 0, {})
    assert [line.split()[0] for line in found.lines()][:4] == [
        "questions", "asked", "types", "lengths",
    ]  # fmt: skip
    assert "answers    1 a question" in found.lines()


def test_the_summary_of_a_dataset_of_questions(tmp_path):
    for number, name in enumerate("abc"):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{name}.png")
    mine = Dataset("mine", "vqa", tmp_path, questions=(*TRAIN, *TEST))
    summary = prepare(mine, tmp_path / "out", check_images="decode")
    assert summary.asked == survey((*TRAIN, *TEST))
    assert summary.questions == 7
    assert summary.lines()[1:3] == [
        "pictures   3 (train 2, val 0, test 2)",
        "questions  7 (train 4, val 0, test 3)",
    ]
    assert summary.warnings == (
        "split val has no pictures",
        "pictures in two splits: 1, first: b.png (train) and b.png (test)",
        "questions of train without an answer: 1",
    )
    assert json.loads(json.dumps(summary.to_dict()))["asked"]["repeated"] == 1
    (tmp_path / "c.png").unlink()
    shown = summarise(Dataset.open(tmp_path / "out"))
    assert "questions whose picture is missing: 2" in shown.warnings
    # Left out with their picture.
    again = prepare(mine, tmp_path / "out", bad=BadRows(skip=True))
    assert (again.questions, again.missing) == (5, ("c.png",))
    quarantine = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert len(quarantine) == 2

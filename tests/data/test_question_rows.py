"""What all readers of questions share, and the records in their prepared folder."""

import dataclasses
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetell.data.readers.question_rows import (
    CocoPictures,
    QuestionCollector,
    answer_texts,
    question_text,
    val_from_train,
)
from gazetell.data.readers.rows import BadRows
from gazetell.data.records import Box, Dataset, QuestionRecord
from gazetell.data.text import Tokenizer
from gazetell.errors import DataError, UsageError

ONE = QuestionRecord("1", "a.jpg", "what?", ("yes",), "train")


def test_questions_of_a_split_and_back_from_disk(tmp_path):
    box = Box(("red", "ring"), 0.1, 0.2, 0.3, 0.4)
    two = QuestionRecord("2", "b.jpg", "how many?", ("2", "two"), "test", "how", "number", (box,))
    Dataset("mine", "table", tmp_path, questions=(ONE, two)).save(tmp_path)
    dataset = Dataset.open(tmp_path)
    assert dataset.questions == (ONE, two)
    assert dataset.questions_of("test") == (two,)
    assert "boxes" not in (tmp_path / "questions.jsonl").read_text().split("\n")[0]
    with pytest.raises(DataError, match="'val' has no questions; splits with questions: test, tr"):
        dataset.questions_of("val")
    with pytest.raises(DataError, match="splits with questions: none"):
        Dataset("mine", "table", tmp_path).questions_of("train")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "question is missing"),
        (7, "question is int; expected text"),
        (["what?"], "question is list; expected text"),
        ("", "question is empty"),
        (" \t\n", "question is empty"),
        ("???", "question has no words: '???'"),
        ("¿ … $ ≠ ?!", "question has no words"),
        ("what \ud800?", "question is no valid Unicode"),
    ],
)
def test_what_is_no_question(value, reason):
    text, told = question_text(value)
    assert text is None
    assert told.startswith(reason)


def test_what_is_a_question():
    long = "why " * 2500
    for text in (long, "qwrtx zzgh?", "这是什么？", "מה זה?", "यह क्या है?", "🐶?", "7?"):
        assert question_text(f"  {text}\n") == (text.strip(), "")


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs", "Cn", "Co"])))
def test_a_question_has_words_if_the_tokenizer_finds_some(text):
    try:
        found = Tokenizer.train([text], min_frequency=1).vocab_size > 4
    except DataError:
        found = False
    kept = question_text(text)[0] is not None
    # A mark that stands alone is the tokenizer's word; marks that it composes are not lost.
    assert kept == found, [unicodedata.category(one) for one in text]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (["yes"], ("yes",)),
        ([" yes\n", "", "No"], ("yes", "", "No")),
        ([2, "two"], ("2", "two")),
    ],
)
def test_answers(values, texts):
    assert answer_texts(values) == (texts, "")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "answer is missing"),
        ([None], "answer is missing"),
        (["yes", None], "answer is missing"),
        (["", "  "], "answer is empty"),
        ([2.5], "answer is float; expected text"),
        ([True], "answer is bool; expected text"),
        ([{"answer": "yes"}], "answer is dict"),
        (["\udfff"], "answer is no valid Unicode"),
    ],
)
def test_what_is_no_answer(values, reason):
    texts, told = answer_texts(values)
    assert texts is None
    assert told.startswith(reason)


def test_ids_are_used_once():
    bad = BadRows(skip=True)
    collector = QuestionCollector(bad)
    collector.add("f:1", ONE)
    collector.add("f:2", ONE)
    collector.add("f:3", dataclasses.replace(ONE, id="\ud800"))
    assert collector.records() == (ONE,)
    assert [row.reason for row in bad.rows] == [
        "question id '1' occurs twice, first at f:1",
        "picture 'a.jpg' or id is no valid Unicode",
    ]


def test_several_answers_join():
    bad = BadRows(skip=True)
    collector = QuestionCollector(bad, several=True)
    collector.add("f:1", ONE)
    collector.add("f:2", dataclasses.replace(ONE, answers=("no",)))
    collector.add("f:3", dataclasses.replace(ONE, question="why?"))
    collector.add("f:4", dataclasses.replace(ONE, split="test"))
    assert collector.records() == (dataclasses.replace(ONE, answers=("yes", "no")),)
    assert [row.reason for row in bad.rows] == [
        "id '1' is that of another question at f:1",
        "question '1' is in split train at f:1, here test",
    ]


def test_val_is_a_share_of_the_pictures_of_train():
    records = [
        QuestionRecord(f"{n}", f"{n // 3}.jpg", "what?", ("yes",), "train") for n in range(60)
    ]
    records.append(dataclasses.replace(ONE, image="t.jpg", split="test"))
    drawn = val_from_train(records, 0.25, seed=3)
    assert [record.id for record in drawn] == [record.id for record in records]
    splits: dict[str, set[str]] = {}
    for record in drawn:
        splits.setdefault(record.image, set()).add(record.split)
    assert all(len(of) == 1 for of in splits.values())  # a picture with all its questions
    assert sum(of == {"val"} for of in splits.values()) == 5
    assert splits["t.jpg"] == {"test"}
    assert drawn == val_from_train(reversed(records), 0.25, seed=3)[::-1]
    assert drawn != val_from_train(records, 0.25, seed=4)
    assert val_from_train(records, 0) == tuple(records)
    for share in (-0.1, 1, float("nan")):
        with pytest.raises(UsageError, match="expected a share of the pictures"):
            val_from_train(records, share)


def test_pictures_of_coco_are_found_by_their_number(tmp_path):
    for name in (
        "COCO_val2014_000000000001.jpg",
        "train2014/COCO_train2014_000000000002.jpg",
        "other/000000000003.JPG",
        "other/000000000004.npy",
        "val2014/COCO_val2014_000000000005.jpg",
        "small/COCO_val2014_000000000005.jpg",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    pictures = CocoPictures(tmp_path)
    assert pictures.name(1, "val2014") == "COCO_val2014_000000000001.jpg"
    assert pictures.name(2, "val2014") == "train2014/COCO_train2014_000000000002.jpg"
    assert pictures.name(3, "") == "other/000000000003.JPG"
    assert pictures.name(5, "val2014") == "val2014/COCO_val2014_000000000005.jpg"
    # Not there: what it would be called.
    assert pictures.name(4, "val2014") == "val2014/COCO_val2014_000000000004.jpg"
    assert pictures.name(4, "test2015") == "COCO_test2015_000000000004.jpg"
    with pytest.raises(DataError, match="nowhere: cannot be read as a folder"):
        CocoPictures(tmp_path / "nowhere")

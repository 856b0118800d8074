"""One's own tables of questions and answers."""

import csv
import json
from pathlib import Path

import pytest

from gazetell.data.readers import BadRows, table
from gazetell.errors import DataError, UsageError

KEYS = ("image", "question", "answer")
ROWS = [
    ("a.jpg", "Is it rusty?", "yes"),
    ("b.jpg", "How many rings, in all?", "2"),
    ("a.jpg", "מה זה?", "טבעת"),
    ("./a.jpg", "Is it rusty?", "no"),
]
EXPECTED = [
    ("a.jpg#1", "a.jpg", "Is it rusty?", ("yes", "no")),
    ("b.jpg#1", "b.jpg", "How many rings, in all?", ("2",)),
    ("a.jpg#2", "a.jpg", "מה זה?", ("טבעת",)),
]


def put(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def lines(*rows: dict) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def plain(dataset) -> list[tuple]:
    assert not dataset.captions
    return [(one.id, one.image, one.question, one.answers) for one in dataset.questions]


def test_the_same_rows_in_every_form(tmp_path):
    for name, delimiter in (("t.csv", ","), ("t.tsv", "\t")):
        with open(tmp_path / name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=delimiter).writerows(
                [("image", "question", "answer"), *ROWS]
            )
        assert plain(table(tmp_path / name)) == EXPECTED
    rows = [dict(zip(KEYS, row, strict=True)) for row in ROWS]
    assert plain(table(put(tmp_path / "t.jsonl", lines(*rows)))) == EXPECTED
    lists = [
        {"image": image, "question": question, "answers": list(answers)}
        for _, image, question, answers in EXPECTED
    ]
    dataset = table(put(tmp_path / "u.jsonl", lines(*lists)))
    assert plain(dataset) == EXPECTED
    assert (dataset.name, dataset.kind, dataset.root) == ("u", "table", tmp_path)


def test_columns_by_name(tmp_path):
    path = put(
        tmp_path / "t.csv",
        "nr,file,ask,say,set\n1,a.jpg,Why?,Rust,dev\n2,a.jpg,Why?,Age,train\n1,a.jpg,Why?,Salt,val",
    )
    dataset = table(
        path,
        images=tmp_path / "photos",
        image_column="file",
        question_column="ask",
        answer_column="say",
        split_column="set",
        id_column="nr",
    )
    # Rows of an id are answers to one question; the same words under another id are another one.
    assert plain(dataset) == [
        ("1", "a.jpg", "Why?", ("Rust", "Salt")),
        ("2", "a.jpg", "Why?", ("Age",)),
    ]
    assert [one.split for one in dataset.questions] == ["val", "train"]
    assert dataset.path(dataset.questions[0]) == tmp_path / "photos/a.jpg"


def test_a_seeded_split_keeps_a_picture_together(tmp_path):
    rows = "".join(f"{n % 20}.jpg,Is it number {n}?,yes\n" for n in range(100))
    path = put(tmp_path / "t.csv", "image,question,answer\n" + rows)
    dataset = table(path, val=0.2, test=3, seed=1)
    pictures = {
        split: {one.image for one in dataset.questions_of(split)}
        for split in ("train", "val", "test")
    }
    assert {split: len(of) for split, of in pictures.items()} == {"train": 13, "val": 4, "test": 3}
    assert len(set.union(*pictures.values())) == 20
    assert dataset == table(path, val=0.2, test=3, seed=1)
    assert dataset != table(path, val=0.2, test=3, seed=2)


BOTH = "image,caption,question,answer\na.jpg,A ring,Is it red?,yes\n"


def test_captions_or_questions(tmp_path):
    path = put(tmp_path / "t.csv", BOTH)
    assert [one.captions for one in table(path).captions] == [("A ring",)]
    assert not table(path).questions
    for options in ({"question_column": "question"}, {"answer_column": "answer"}):
        assert plain(table(path, **options)) == [("a.jpg#1", "a.jpg", "Is it red?", ("yes",))]
    with pytest.raises(UsageError, match="a table is read for one of the two"):
        table(path, caption_column="caption", question_column="question")
    row = dict(zip(*(line.split(",") for line in BOTH.splitlines()), strict=True))
    path = put(tmp_path / "t.jsonl", lines(row))
    assert table(path).captions
    assert table(path, question_column="question").questions


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("image,question\na,b", {}, ":1: no column 'answer'; columns: image, question"),
        ("image,answer\na,b", {}, ":1: no column 'caption'; columns: image, answer"),
        ("image,q,a\na,b,c", {"question_column": "q"}, ":1: no column 'answer'"),
        ("image,q,a\na,b,c", {"answer_column": "a"}, ":1: no column 'question'"),
        ("picture,question,answer\na,b,c", {}, ":1: no column 'image'"),
        ("image,question,answer\n", {}, "holds no picture with a question"),
    ],
)
def test_columns_that_are_missing(tmp_path, text, options, told):
    with pytest.raises(DataError) as caught:
        table(put(tmp_path / "t.csv", text), **options)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"question": ""}, "question is empty"),
        ({"question": "?!..."}, "question has no words: '?!...'"),
        ({"question": None}, "question is missing"),
        ({"question": 5}, "question is int; expected text"),
        ({"answer": ""}, "answer is empty"),
        ({"answer": None}, "answer is missing"),
        ({"answer": 2.5}, "answer is float; expected text"),
        ({"answer": True}, "answer is bool; expected text"),
        ({"answer": []}, "answer is missing"),
        ({"answer": ["yes", None]}, "answer is missing"),
        ({"image": ""}, "image is empty; expected the name of a picture"),
        ({"split": "mine"}, "split is 'mine'; expected train, val or test"),
        ({"nr": ""}, "nr is empty; expected an id"),
        ({"nr": 1}, "id '1' is that of another question at"),
    ],
)
def test_bad_rows(tmp_path, row, told):
    good = {"nr": 1, "image": "a.jpg", "question": "Is it?", "answer": "yes", "split": "train"}
    other = {**good, "nr": 2, "question": "Why?", **row}
    path = put(tmp_path / "t.jsonl", lines(good, other))
    with pytest.raises(DataError) as caught:
        table(path, id_column="nr")
    assert f"{path}:2: {told}" in str(caught.value)
    bad = BadRows(skip=True)
    assert len(table(path, id_column="nr", bad=bad).questions) == 1
    assert [one.where for one in bad.rows] == [f"{path}:2"]


def test_the_same_question_in_two_splits_is_a_bad_row(tmp_path):
    text = "image,question,answer,split\na.jpg,Why?,yes,train\na.jpg,Why?,no,test\n"
    with pytest.raises(DataError, match=r":3: question 'a\.jpg#1' is in split train at .*:2, here"):
        table(put(tmp_path / "t.csv", text))


def test_what_is_kept(tmp_path):
    texts = ["why " * 2500, "qwrtx zzgh?", "这是什么？", "🐶?"]
    rows = [{"image": "a.jpg", "question": text, "answer": 2} for text in texts]
    dataset = table(put(tmp_path / "t.jsonl", lines(*rows)))
    assert [one.question for one in dataset.questions] == [text.strip() for text in texts]
    assert {one.answers for one in dataset.questions} == {("2",)}  # a whole number: its digits

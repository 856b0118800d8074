"""What all readers share: texts, records, splits, names of pictures, and finding files."""

import dataclasses
import gzip
import os
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetell.data.readers.rows import (
    BadRows,
    BadValue,
    Collector,
    answer_texts,
    find,
    find_pictures,
    plain_text,
    question_text,
    seeded_split,
    split_name,
)
from gazetell.data.records import Box, CaptionRecord, Dataset, QuestionRecord
from gazetell.data.text import Tokenizer
from gazetell.errors import DataError, UsageError

ONE = QuestionRecord("1", "a.jpg", "what?", ("yes",), "train")
CAPTION = CaptionRecord("", "a.jpg", ("a dog",), "train")


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
    ("read", "value", "reason"),
    [
        (question_text, None, "question is missing"),
        (question_text, ["what?"], "question is list; expected text"),
        (question_text, " \t\n", "question is empty"),
        (question_text, "???", "question has no words: '???'"),
        (question_text, "¿ … $ ≠ ?!", "question has no words"),
        (question_text, "what \ud800?", "question is not valid Unicode"),
        (answer_texts, [], "answer is missing"),
        (answer_texts, ["yes", None], "answer is missing"),
        (answer_texts, ["", "  "], "answer is empty"),
        (answer_texts, [2.5], "answer is float; expected text"),
        (answer_texts, [True], "answer is bool; expected text"),
        (answer_texts, [{"answer": "yes"}], "answer is dict"),
        (answer_texts, ["\udfff"], "answer is not valid Unicode"),
    ],
)
def test_what_is_no_question_and_no_answer(read, value, reason):
    with pytest.raises(BadValue) as caught:
        read(value)
    assert str(caught.value).startswith(reason)


def test_what_is_a_text():
    for text in ("why " * 2500, "qwrtx zzgh?", "这是什么？", "מה זה?", "यह क्या है?", "🐶?", "7?"):
        assert question_text(f"  {text}\n") == plain_text(f"\t{text}", "x") == text.strip()
    assert answer_texts([" yes\n", "", "No", 2]) == ("yes", "", "No", "2")


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs", "Cn", "Co"])))
def test_a_question_has_words_if_the_tokenizer_finds_some(text):
    try:
        expected = Tokenizer.train([text], min_frequency=1).vocab_size > 4
    except DataError:
        expected = False
    try:
        kept = bool(question_text(text))
    except BadValue:
        kept = False
    # A mark that stands alone is the tokenizer's word; marks that it composes are not lost.
    assert kept == expected, [unicodedata.category(character) for character in text]


def test_what_contradicts_an_earlier_row_is_bad(tmp_path):
    bad = BadRows(skip=True)
    collector = Collector(tmp_path, bad)
    rows = [
        (CAPTION, ""),
        (dataclasses.replace(CAPTION, captions=("a cat", "a dog")), ""),
        (dataclasses.replace(CAPTION, split="val"), "picture 'a.jpg' is in split train at f:0, h"),
        (dataclasses.replace(CAPTION, id="7"), "picture 'a.jpg' has id 'a.jpg' at f:0, here '7'"),
        (dataclasses.replace(CAPTION, id="a.jpg", image="b.jpg"), "id 'a.jpg' is already that of"),
        (dataclasses.replace(CAPTION, captions=("fine", "")), "caption is empty"),
        (dataclasses.replace(CAPTION, image="\ud83d"), "picture '\\ud83d' is not valid Unicode"),
        (ONE, ""),
        (ONE, "question id '1' occurs twice, first at f:7"),
        (dataclasses.replace(ONE, id="\ud800"), "id is not valid Unicode"),
    ]
    for number, (record, _) in enumerate(rows):
        with bad.catch(f"f:{number}", "the row"):
            collector.add(f"f:{number}", record)
    dataset = collector.dataset("mine", "table", "f")
    assert [r.captions for r in dataset.captions] == [("a dog", "a cat", "a dog")]
    assert dataset.questions == (ONE,)
    assert bad.notes == ["captions that a picture has twice, kept: 1 (first: f:1)"]
    told = {f"f:{number}": reason for number, (_, reason) in enumerate(rows) if reason}
    assert [row.where for row in bad.rows] == list(told)
    assert all(row.reason.startswith(told[row.where]) for row in bad.rows)
    with pytest.raises(DataError, match="f: has no picture with a caption or question"):
        Collector(tmp_path, bad).dataset("mine", "table", "f")


def test_several_answers_join_and_questions_are_numbered(tmp_path):
    bad = BadRows(skip=True)
    collector = Collector(tmp_path, bad, several=True)
    asked = [{}, {"answers": ("no",)}, {"question": "why?"}, {"split": "test"}, {"id": ""}]
    asked += [{"id": "", "question": "why?"}, {"id": "", "answers": ("no",)}]
    for record in (dataclasses.replace(ONE, **changes) for changes in asked):
        with bad.catch("f"):
            collector.add("f", record)
    assert [(r.id, r.answers) for r in collector.dataset("q", "table", "f").questions] == [
        ("1", ("yes", "no")),
        ("a.jpg#1", ("yes", "no")),
        ("a.jpg#2", ("yes",)),
    ]
    assert [row.reason for row in bad.rows] == [
        "id '1' is that of another question at f",
        "question '1' is in split train at f, here test",
    ]


def test_bad_rows_can_be_written_to_any_file():
    bad = BadRows(skip=True)
    bad.add("x:1", "reason \ud83d", {"row": "\udc00" * 9000})
    row = bad.rows[0]
    (row.where + row.reason + row.row).encode()
    assert len(row.row) < 5000
    with pytest.raises(DataError, match="x:1: reason"):
        BadRows().add("x:1", "reason \ud83d")


NFC, NFD = "gr\u00fcn.jpg", "gru\u0308n.jpg"


@pytest.mark.parametrize(
    ("name", "found", "differs"),
    [
        ("sub/p.jpg", "sub/p.jpg", False),
        ("./sub//p.jpg", "sub/p.jpg", False),
        ("sub/../sub/p.jpg", "sub/p.jpg", False),
        (r"sub\p.jpg", "sub/p.jpg", True),
        (r".\SUB\P.JPG", "sub/p.jpg", True),
        (NFC, NFD, True),
        (NFC.upper(), NFD, True),
        ("Twice.jpg", "Twice.jpg", False),
        ("nowhere/p.jpg", "nowhere/p.jpg", False),
        (r"a\b.jpg", r"a\b.jpg", False),  # a file of that very name
        ("../ABOVE.jpg", "../above.jpg", True),
    ],
)
def test_names_of_other_systems(tmp_path, name, found, differs):
    (tmp_path / "above.jpg").touch()
    root = tmp_path / "pictures"
    (root / "sub").mkdir(parents=True)
    for picture in ("sub/p.jpg", NFD, "Twice.jpg", "twice.jpg", r"a\b.jpg"):
        (root / picture).touch()
    bad = BadRows()
    collector = Collector(root, bad)
    for spelling in (name, found, str(root / found)):
        collector.add("f:1", dataclasses.replace(CAPTION, image=spelling))
    first, whole = (record.image for record in collector.dataset("mine", "table", "f").captions)
    assert (first, whole) == (found, os.path.normpath(root / found))
    told = "pictures found although slash, letter case or Unicode form differ: 1 (first: "
    assert bad.notes[:-1] == ([f"{told}{name!a} is {found!a})"] if differs else [])


def test_a_name_that_fits_two_files_is_a_bad_row(tmp_path):
    for picture in ("Twice.jpg", "twice.jpg"):
        (tmp_path / picture).touch()
    collector = Collector(tmp_path, BadRows())
    with pytest.raises(BadValue, match=r"'TWICE\.jpg' matches several files: Twice\.jpg, tw"):
        collector.add("f:1", dataclasses.replace(CAPTION, image="TWICE.jpg"))


@given(
    names=st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=60),
    val=st.floats(0, 0.45),
    test=st.floats(0, 0.45),
    seed=st.integers(0, 5),
)
def test_seeded_split(names, val, test, seed):
    splits = seeded_split(sorted(names), val=val, test=test, seed=seed)
    assert splits == seeded_split(sorted(names, reverse=True), val=val, test=test, seed=seed)
    assert splits.keys() == names
    counts = Counter(splits.values())
    assert counts["train"] >= 1
    for split, share in (("val", val), ("test", test)):
        assert abs(counts[split] - share * len(names)) <= 1
        if len(names) >= 3:
            assert (counts[split] > 0) == (share > 0)


def test_seeded_split_is_fixed_for_ever():
    # A golden split: a change here would change every user's test set.
    splits = seeded_split([f"{n}.jpg" for n in range(10)], val=2, test=2, seed=0)
    assert sorted(name for name in splits if splits[name] == "test") == ["2.jpg", "6.jpg"]
    assert sorted(name for name in splits if splits[name] == "val") == ["0.jpg", "1.jpg"]
    assert splits == seeded_split([f"{n}.jpg" for n in range(10)], val=0.2, test=2.0)


@pytest.mark.parametrize(
    ("val", "test", "told"),
    [
        (-0.1, 0.1, "expected shares that leave some for train"),
        (0.5, 0.5, "expected shares that leave some for train"),
        (float("nan"), 0.1, "expected shares that leave some for train"),
        (float("inf"), 0, "expected a share below 1 or a whole number"),
        (1.5, 0, "val 1.5: expected a share below 1 or a whole number"),
        (3, 0, "val 3: only 3 pictures to draw from, and one must stay"),
        (2, 1, "val 2: only 3 pictures"),
    ],
)
def test_seeded_split_refuses(val, test, told):
    with pytest.raises(UsageError, match=told):
        seeded_split(["a", "b", "c"], val=val, test=test)


def test_a_draw_takes_pictures_with_all_their_rows(tmp_path):
    def collected(order=1):
        bad = BadRows()
        collector = Collector(tmp_path, bad)
        for n in list(range(60))[::order]:
            collector.add("f", dataclasses.replace(ONE, id=str(n), image=f"{n // 3}.jpg"))
        collector.add("f", dataclasses.replace(CAPTION, image="0.jpg"))
        collector.add("f", dataclasses.replace(ONE, id="t", image="t.jpg", split="test"))
        return collector, bad

    def drawn(seed, order=1, **shares):
        collector, bad = collected(order)
        collector.draw(seed=seed, **shares)
        dataset = collector.dataset("mine", "vqa", "f")
        splits = {}
        for record in (*dataset.captions, *dataset.questions):
            splits.setdefault(record.image, set()).add(record.split)
        return splits, bad.notes

    splits, notes = drawn(3, val=0.25)
    assert notes == []
    assert all(len(of) == 1 for of in splits.values())
    assert Counter(*zip(*splits.values(), strict=True)) == {"train": 15, "val": 5, "test": 1}
    assert splits["t.jpg"] == {"test"}
    assert drawn(3, -1, val=0.25)[0] == splits != drawn(4, val=0.25)[0]
    assert set.union(*drawn(0, val=0)[0].values()) == {"train", "test"}
    # From another split, and a share of less than a picture.
    splits, notes = drawn(0, val=0, test=0.5, pool="test")
    assert (splits["t.jpg"], notes) == ({"test"}, ["test 0.5 of 1 pictures is 0.5; 0 taken"])
    assert drawn(0, val=0.01)[1] == ["val 0.01 of 20 pictures is 0.2; 1 taken"]
    with pytest.raises(UsageError, match=r"val 0\.1 and test 0: no pictures of val to draw from"):
        drawn(0, val=0.1, pool="val")


def test_names_of_splits():
    names = ("Dev", " valid ", "validation", "TEST", "Testing", "train", "training", "", 3)
    expected = ["val", "val", "val", "test", "test", "train", "train", None, None]
    assert [split_name(name) for name in names] == expected


def test_files_are_found_packed_and_what_is_passed_over_is_told(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/LIST.txt").write_text("x")
    assert find(tmp_path, ["list.txt"]) == tmp_path / "sub/LIST.txt"
    (tmp_path / "list.txt.gz").write_bytes(gzip.compress(b"x"))
    bad = BadRows()
    assert find(tmp_path, ["other.txt", "list.txt"], bad) == tmp_path / "list.txt.gz"
    assert bad.notes == ["read list.txt.gz; not read: sub/LIST.txt"]
    assert find(tmp_path, ["none.txt"]) is None
    with pytest.raises(DataError, match="nowhere: cannot be read as a folder"):
        find(tmp_path / "nowhere", ["list.txt"])
    with pytest.raises(DataError, match="no folder of pictures; expected one of Images"):
        find_pictures(tmp_path, ["Images"])

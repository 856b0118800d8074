"""One's own tables: CSV, TSV, JSON Lines, and the line numbers of what is wrong in them."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gazetell.data.readers import BadRows, table
from gazetell.errors import DataError, UsageError

ROWS = [("a.jpg", "A dog, running"), ("b.jpg", 'A "red" cat'), ("a.jpg", "כלב 😀")]


def put(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def by_image(dataset) -> dict[str, tuple[str, ...]]:
    return {record.image: record.captions for record in dataset.captions}


def test_the_same_rows_in_every_form(tmp_path):
    expected = {"a.jpg": ("A dog, running", "כלב 😀"), "b.jpg": ('A "red" cat',)}
    for name, delimiter in (("t.csv", ","), ("t.tsv", "\t"), ("t.CSV", ",")):
        with open(tmp_path / name, "w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file, delimiter=delimiter).writerows([("image", "caption"), *ROWS])
        assert by_image(table(tmp_path / name)) == expected
    lines = [json.dumps({"image": image, "caption": caption}) for image, caption in ROWS]
    assert by_image(table(put(tmp_path / "t.jsonl", "\n".join(lines)))) == expected
    lists = [json.dumps({"image": key, "captions": list(found)}) for key, found in expected.items()]
    dataset = table(put(tmp_path / "u.jsonl", "\ufeff" + "\n\n".join(lists)))
    assert by_image(dataset) == expected
    assert dataset.root == tmp_path
    assert (dataset.name, dataset.kind) == ("u", "table")


def test_columns_by_name_and_splits(tmp_path):
    path = put(
        tmp_path / "t.csv",
        "id,part,file,text,set\n1,x,a.jpg,A nut,Train\n2,x,b.jpg,A nut,dev\n3,x,c.jpg,A pin,test",
    )
    dataset = table(
        path,
        images=tmp_path / "photos",
        image_column="file",
        caption_column="text",
        split_column="set",
        id_column="id",
    )
    assert [(r.id, r.image, r.split) for r in dataset.captions] == [
        ("1", "a.jpg", "train"),
        ("2", "b.jpg", "val"),
        ("3", "c.jpg", "test"),
    ]
    assert dataset.path(dataset.captions[0]) == tmp_path / "photos" / "a.jpg"


def test_a_split_column_is_used_where_it_is(tmp_path):
    text = "image,caption,split\na.jpg,A bolt,test\nb.jpg,A nut,train\n"
    dataset = table(put(tmp_path / "t.csv", text))
    assert [record.split for record in dataset.captions] == ["test", "train"]
    lines = '{"image": "a.jpg", "caption": "x", "split": "val"}\n{"image": "b.jpg", "caption": "y"}'
    path = put(tmp_path / "t.jsonl", lines)
    with pytest.raises(DataError, match=r"t\.jsonl:2: split is missing; expected train, val or"):
        table(path)


def test_seeded_split_by_picture(tmp_path):
    rows = "".join(f"p{n % 20}.jpg,caption {n}\n" for n in range(60))
    path = put(tmp_path / "t.csv", "image,caption\n" + rows)
    dataset = table(path)
    assert Counter(r.split for r in dataset.captions) == {"train": 16, "val": 2, "test": 2}
    assert {len(record.captions) for record in dataset.captions} == {3}
    assert dataset == table(path)
    assert dataset != table(path, seed=7)
    assert Counter(r.split for r in table(path, val=0.0, test=5).captions)["test"] == 5
    with pytest.raises(UsageError, match="leave some for train"):
        table(path, val=0.6, test=0.6)


def test_one_picture_goes_to_train(tmp_path):
    dataset = table(put(tmp_path / "t.csv", "image,caption\na.jpg,A bolt\na.jpg,A screw\n"))
    assert [(r.image, r.split) for r in dataset.captions] == [("a.jpg", "train")]


def test_names_of_one_picture(tmp_path):
    text = "image,caption\n./a.jpg,one\na.jpg,two\nsub//a.jpg,three\n"
    assert by_image(table(put(tmp_path / "t.csv", text))) == {
        "a.jpg": ("one", "two"),
        "sub/a.jpg": ("three",),
    }


def test_long_captions_and_quoted_lines_are_kept(tmp_path):
    long = "dog " * 500
    text = f'image,caption\na.jpg,"first\nsecond, ""third"""\nb.jpg,{long}\n'
    found = by_image(table(put(tmp_path / "t.csv", text)))
    assert found["a.jpg"] == ('first\nsecond, "third"',)
    assert found["b.jpg"] == (long.strip(),)


BAD_CSV = [
    ("b.jpg", 6, "expected 2 fields, found 1"),
    ("b.jpg,a dog, unquoted", 6, "expected 2 fields, found 3"),
    ("b.jpg,", 6, "caption is empty"),
    ("b.jpg,   ", 6, "caption is empty"),
    (",a dog", 6, "image is empty; expected the name of a picture"),
    ("b\0.jpg,a dog", 6, "image is "),
    ('b.jpg,"a"dog', 6, "is no row of CSV"),
    ('\n\nb.jpg,"x\n\ny",extra', 8, "expected 2 fields, found 3"),
]


@pytest.mark.parametrize(("row", "line", "reason"), BAD_CSV)
def test_bad_rows_of_csv(tmp_path, row, line, reason):
    text = f'image,caption\na.jpg,"one\ntwo\nthree"\nc.jpg,fine\n{row}\nd.jpg,fine\n'
    path = put(tmp_path / "t.csv", text)
    with pytest.raises(DataError, match=rf"t\.csv:{line}: {reason}"):
        table(path)
    bad = BadRows(skip=True)
    assert by_image(table(path, bad=bad)).keys() == {"a.jpg", "c.jpg", "d.jpg"}
    assert [found.where for found in bad.rows] == [f"{path}:{line}"]


def test_an_open_quote_is_found_where_it_opens(tmp_path):
    path = put(tmp_path / "t.csv", 'image,caption\na.jpg,fine\nb.jpg,"open\nc.jpg,lost\n')
    with pytest.raises(DataError, match=r"t\.csv:3: is no row of CSV .*, read on to line"):
        table(path)
    bad = BadRows(skip=True)
    assert by_image(table(path, bad=bad)).keys() == {"a.jpg"}
    assert len(bad.rows) == 1


BAD_JSON = [
    ('{"image": "b.jpg", "caption": ', "is not JSON"),
    ('["b.jpg", "a dog"]', "expected a JSON object, found list"),
    ('{"image": "b.jpg"}', "caption is missing"),
    ('{"image": "b.jpg", "captions": []}', "caption is list; expected text"),
    ('{"image": "b.jpg", "captions": ["fine", ""]}', "caption is empty"),
    ('{"image": "b.jpg", "captions": ["fine", 3]}', "caption is int; expected text"),
    ('{"image": "b.jpg", "captions": {"a": 1}}', "caption is dict; expected text"),
    ('{"image": "b.jpg", "caption": "\\ud83d"}', "caption is no valid Unicode"),
    ('{"image": "\\ud83d.jpg", "caption": "x"}', "picture .* is no valid Unicode"),
    ('{"image": 5, "caption": "x"}', "image is 5; expected the name of a picture"),
    ('{"caption": "x"}', "image is missing"),
    ("[" * 100_000, "is not JSON"),
]


@pytest.mark.parametrize(("row", "reason"), BAD_JSON)
def test_bad_rows_of_json_lines(tmp_path, row, reason):
    fine = '{"image": "a.jpg", "caption": "fine"}'
    path = put(tmp_path / "t.jsonl", f"{fine}\n\n{row}\n{fine}\n")
    with pytest.raises(DataError, match=rf"t\.jsonl:3: {reason}"):
        table(path)
    bad = BadRows(skip=True)
    assert by_image(table(path, bad=bad)) == {"a.jpg": ("fine", "fine")}
    assert [found.where for found in bad.rows] == [f"{path}:3"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2,a.jpg,x,train", "picture 'a.jpg' has id '1' at .*:2, here '2'"),
        ("1,b.jpg,x,train", "id '1' is already that of picture 'a.jpg'"),
        ("1,a.jpg,x,val", "picture 'a.jpg' is in split train at .*:2, here val"),
        ("1,a.jpg,x,holdout", "split is 'holdout'; expected train, val or test"),
        ("1,a.jpg,x,", "split is empty; expected train, val or test"),
        (" ,a.jpg,x,train", "id is ' '; expected an id"),
    ],
)
def test_contradictions(tmp_path, row, reason):
    path = put(tmp_path / "t.csv", f"id,image,caption,split\n1,a.jpg,fine,train\n{row}\n")
    with pytest.raises(DataError, match=rf"t\.csv:3: {reason}"):
        table(path, id_column="id")
    bad = BadRows(skip=True)
    assert by_image(table(path, id_column="id", bad=bad)) == {"a.jpg": ("fine",)}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "", r"t\.csv:1: is empty; expected a header line"),
        ("t.csv", "\n\n", r"t\.csv:1: is empty; expected a header line"),
        ("t.csv", "image,caption\n", r"t\.csv: holds no picture with a caption"),
        ("t.csv", "image;caption\na;b\n", r"t\.csv:1: no column 'image'; columns: image;caption"),
        ("t.csv", "\nimage,text\na,b\n", r"t\.csv:2: no column 'caption'; columns: image, text"),
        ("t.csv", "image,caption,image\n", r"t\.csv:1: column 'image' occurs twice"),
        ("t.jsonl", "", r"t\.jsonl:1: holds no rows"),
        ("t.xlsx", "", r"t\.xlsx: expected a \.csv, \.tsv or \.jsonl file"),
    ],
)
def test_empty_and_foreign_files(tmp_path, name, text, message):
    for bad in (BadRows(), BadRows(skip=True)):
        with pytest.raises(DataError, match=message):
            table(put(tmp_path / name, text), bad=bad)


def test_missing_file_and_column_options(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: cannot be read: No such file"):
        table(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(b"image,caption\na.jpg,caf\xe9\n")
    with pytest.raises(DataError, match="is not UTF-8"):
        table(tmp_path / "latin.csv")
    path = put(tmp_path / "t.csv", "image,caption\na.jpg,x\n")
    with pytest.raises(DataError, match="no column 'set'; columns: image, caption"):
        table(path, split_column="set")
    with pytest.raises(DataError, match="no column 'key'"):
        table(path, id_column="key")


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=20)


@given(st.lists(st.tuples(st.sampled_from(["a.jpg", "b.jpg"]), CELL), min_size=1, max_size=8))
def test_any_caption_survives_csv_and_json(tmp_path_factory, rows):
    rows = [(image, caption) for image, caption in rows if caption.strip()] or [("a.jpg", "x")]
    expected: dict[str, tuple[str, ...]] = {}
    for image, caption in rows:
        expected[image] = (*expected.get(image, ()), caption.strip())
    folder = tmp_path_factory.mktemp("table")
    with open(folder / "t.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    assert by_image(table(folder / "t.csv")) == expected
    lines = [json.dumps({"image": image, "caption": caption}) for image, caption in rows]
    assert by_image(table(put(folder / "t.jsonl", "\n".join(lines)))) == expected

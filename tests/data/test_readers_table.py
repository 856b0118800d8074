"""One's own tables of captions or questions: CSV, TSV, JSON, and what is wrong in them."""

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gazetell.data.readers.rows import BadRows
from gazetell.data.readers.table import table
from gazetell.errors import DataError, UsageError

ROWS = [("a.jpg", "A dog, running"), ("b.jpg", 'A "red" cat'), ("a.jpg", "כלב 😀")]
CAPTIONS = {"a.jpg": ("A dog, running", "כלב 😀"), "b.jpg": ('A "red" cat',)}
ASKED = [
    ("a.jpg", "Is it rusty?", "yes"),
    ("b.jpg", "How many rings, in all?", "2"),
    ("a.jpg", "מה זה?", "טבעת"),
    ("./a.jpg", "Is it rusty?", "no"),
]
QUESTIONS = [
    ("a.jpg#1", "a.jpg", "Is it rusty?", ("yes", "no")),
    ("b.jpg#1", "b.jpg", "How many rings, in all?", ("2",)),
    ("a.jpg#2", "a.jpg", "מה זה?", ("טבעת",)),
]


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(*rows: dict) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def by_image(dataset) -> dict[str, tuple[str, ...]]:
    return {record.image: record.captions for record in dataset.captions}


def plain(dataset) -> list[tuple]:
    assert not dataset.captions
    return [(one.id, one.image, one.question, one.answers) for one in dataset.questions]


def noted(path: Path, **options):
    """What is read, and the notes about it."""
    bad = BadRows()
    return table(path, val=0, test=0, bad=bad, **options), bad.notes


def test_the_same_rows_in_every_form(tmp_path):
    for header, rows, read, expected in (
        (("image", "caption"), ROWS, by_image, CAPTIONS),
        (("image", "question", "answer"), ASKED, plain, QUESTIONS),
    ):
        for name, delimiter in (("t.csv", ","), ("t.tsv", "\t"), ("t.CSV", ","), ("t.txt", "\t")):
            with open(tmp_path / name, "w", newline="", encoding="utf-8-sig") as file:
                csv.writer(file, delimiter=delimiter).writerows([header, *rows])
            assert read(table(tmp_path / name)) == expected
        packed = put(tmp_path / "t.csv.gz", gzip.compress((tmp_path / "t.csv").read_bytes()))
        dataset = table(packed)
        assert (read(dataset), dataset.name) == (expected, "t")
        objects = [dict(zip(header, row, strict=True)) for row in rows]
        assert read(table(put(tmp_path / "t.jsonl", "\ufeff" + lines(*objects)))) == expected
        assert read(table(put(tmp_path / "t.json", json.dumps(objects)))) == expected
        dataset, notes = noted(put(tmp_path / "t.jsonl", lines(*objects).replace("}\n", "},\n")))
        assert read(dataset) == expected
        count = len(rows) - 1
        where = f"(first: {tmp_path}/t.jsonl:1)"
        told = [f"t.jsonl: commas dropped at the end of a line: {count} {where}", notes[-1]]
        assert notes == told
        assert " mix scripts (Latin 2, Hebrew 1); --where COLUMN=VALUE " in notes[-1]
    lists = [{"image": image, "captions": list(texts)} for image, texts in CAPTIONS.items()]
    dataset = table(put(tmp_path / "u.jsonl", lines(*lists)))
    assert by_image(dataset) == CAPTIONS
    assert (dataset.name, dataset.kind, dataset.root) == ("u", "table", tmp_path)
    lists = [{"image": row[1], "question": row[2], "answers": list(row[3])} for row in QUESTIONS]
    assert plain(table(put(tmp_path / "u.jsonl", lines(*lists)))) == QUESTIONS


def test_columns_by_name_and_splits(tmp_path):
    text = "id,part,file,text,set\n1,x,a.jpg,A nut,Train\n2,x,b.jpg,A nut,dev\n3,x,c.jpg,A pin,test"
    options = {"image_column": "FILE", "caption_column": "text", "split_column": "set"}
    path = put(tmp_path / "t.csv", text)
    (tmp_path / "photos").mkdir()
    dataset = table(path, images=tmp_path / "photos", id_column="id", **options)
    assert [(r.id, r.image, r.split) for r in dataset.captions] == [
        ("1", "a.jpg", "train"),
        ("2", "b.jpg", "val"),
        ("3", "c.jpg", "test"),
    ]
    assert dataset.path(dataset.captions[0]) == tmp_path / "photos" / "a.jpg"
    with pytest.raises(UsageError, match=r"val 0\.2: has no effect, since column 'set' tells"):
        table(path, val=0.2, **options)
    text = "nr,file,ask,say,set\n1,a.jpg,Why?,Rust,dev\n2,a.jpg,Why?,Age,dev\n1,a.jpg,Why?,Salt,val"
    names = {"image": "file", "question": "ask", "answer": "say", "split": "set", "id": "nr"}
    options = {f"{column}_column": name for column, name in names.items()}
    dataset = table(put(tmp_path / "t.csv", text), **options)
    # Rows of an id are answers to one question; the same words under another id are another one.
    told = [(one.id, one.question, one.answers) for one in dataset.questions]
    assert told == [("1", "Why?", ("Rust", "Salt")), ("2", "Why?", ("Age",))]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json"])
@pytest.mark.parametrize(
    ("header", "said"),
    [
        (("image", "question", "answer"), ""),
        (("image", "question", "answer", "question2", "answer2"), "question2, answer2; give a sec"),
        (("image", "caption", "Caption 2"), "Caption 2; give a second text of a picture a row"),
        (("image", "caption", "captions", "id"), "captions, id"),
        (("image", "caption", *(f"x{n}" for n in range(22))), ", x19 and 2 more"),
    ],
)
def test_columns_that_are_not_read_are_named(tmp_path, kind, header, said):
    row = dict.fromkeys(header, "What?") | {"image": "a.jpg"}
    between = {"csv": ",", "tsv": "\t"}.get(kind)
    text = json.dumps([row]) if kind == "json" else lines(row)
    text = text if between is None else f"{between.join(header)}\n{between.join(row.values())}\n"
    notes = noted(put(tmp_path / f"t.{kind}", text))[1]
    assert [note.startswith(f"t.{kind}: columns not read: ") for note in notes] == [True][
        : len(said)
    ]
    assert said in "".join(notes)


def test_columns_that_are_called_otherwise(tmp_path):
    text = " Image ,Caption,Split\na.jpg,A bolt,Testing\nb.jpg,A nut,train\n"
    bad = BadRows()
    dataset = table(put(tmp_path / "t.csv", text), bad=bad)
    told = [(r.captions[0], r.split) for r in dataset.captions]
    assert told == [("A bolt", "test"), ("A nut", "train")]
    assert bad.notes == []
    dataset, notes = noted(put(tmp_path / "t.csv", "File_Name,Text\na.jpg,A bolt\n"))
    assert by_image(dataset) == {"a.jpg": ("A bolt",)}
    assert notes == [
        "t.csv: column 'File_Name' is taken for the image",
        "t.csv: column 'Text' is taken for the caption",
    ]
    both = put(tmp_path / "t.csv", "image,caption,question,answer\na.jpg,A ring,Is it red?,yes\n")
    dataset, notes = noted(both)
    assert by_image(dataset) == {"a.jpg": ("A ring",)}
    assert notes == [
        "t.csv: has captions and questions, and is read for its captions; "
        "--question-column reads the questions",
        "t.csv: columns not read: question, answer",
    ]
    unread = ["t.csv: columns not read: question, answer"]
    assert noted(both, caption_column="caption")[1] == unread
    for options in ({"question_column": "question"}, {"answer_column": "answer"}):
        dataset, notes = noted(both, **options)
        assert plain(dataset) == [("a.jpg#1", "a.jpg", "Is it red?", ("yes",))]
        assert notes == ["t.csv: columns not read: caption"]
    with pytest.raises(UsageError, match="expected only one of them"):
        table(both, caption_column="caption", question_column="question")
    wrong = r"split_column set: .*:1 has no such column; columns: image, "
    with pytest.raises(UsageError, match=wrong):
        table(both, split_column="set")
    with pytest.raises(UsageError, match=r"_column and .*_column: are both 'image'"):
        table(both, image_column="image", caption_column="image")


@pytest.mark.parametrize(
    ("content", "captions", "told"),
    [
        ("image;caption\r\na.jpg;links, rechts\r\n", "links, rechts", "';' between fields"),
        ("image\tcaption\na.jpg\tA dog, a cat\n", "A dog, a cat", "tabs between fields"),
        ("sep=;\nimage;caption\na.jpg;b\n", "b", "';' between fields"),
        ("image,caption\na.jpg,grün\n", "grün", None),
        ("image,caption,,\na.jpg,fine,,\n,,,\n", "fine", None),
        ("image,caption\ra.jpg,fine\r", "fine", None),
        ("image,caption\na.jpg,ein grüner „Kreis“\n".encode("cp1252"), "ein grüner „Kreis“",
         "Windows' code page 1252 (line 2 is not UTF-8)"),
        ("image;caption\r\na.jpg;grün\r\n".encode("utf-16"), "grün",
         "UTF-16, with ';' between fields"),
        ("image,caption\na.jpg,grün\n".encode("utf-16-le"), "grün", "UTF-16-LE"),
        ("image,caption\na.jpg,grün\n".encode("utf-16-be"), "grün", "UTF-16-BE"),
    ],
)  # fmt: skip
def test_what_spreadsheets_write(tmp_path, content, captions, told):
    dataset, notes = noted(put(tmp_path / "t.csv", content))
    assert by_image(dataset) == {"a.jpg": (captions,)}
    end = "; --encoding or --delimiter if wrong"
    assert notes == ([f"t.csv: read as {told}{end}"] if told else [])


def test_delimiter_and_encoding_by_name(tmp_path):
    path = put(tmp_path / "t.csv", "image/caption\na.jpg/żółty\n".encode("cp1250"))
    dataset, notes = noted(path, delimiter="/", encoding="cp1250")
    assert (by_image(dataset), notes) == ({"a.jpg": ("żółty",)}, [])
    with pytest.raises(DataError, match=r"t\.csv:2: is not utf-8 text"):
        table(path, encoding="utf-8")
    for options, told in (
        ({"encoding": "latin-99"}, "encoding 'latin-99': is unknown"),
        ({"delimiter": "ab", "encoding": "cp1250"}, "delimiter 'ab': expected one character"),
    ):
        with pytest.raises(UsageError, match=told):
            table(path, **options)
    assert by_image(noted(put(path, "image\tcaption\na.jpg\tx"), delimiter="tab")[0])
    with pytest.raises(UsageError, match="delimiter ;: has no effect, since the file is JSON"):
        table(tmp_path / "t.jsonl", delimiter=";")


@pytest.mark.parametrize("text", ["красный круг", "红色的圆圈", "まるい", "κύκλος"])
def test_other_scripts_than_latin_are_not_guessed(tmp_path, text):
    encodings = {"к": "cp1251", "红": "gbk", "ま": "shift-jis", "κ": "cp1253"}
    path = put(tmp_path / "t.csv", f"image,caption\na.jpg,{text}\n".encode(encodings[text[0]]))
    with pytest.raises(DataError, match=r"t\.csv:2: is not UTF-8 text; name its --encoding"):
        table(path)


LANGUAGES = [("en", "by", "a dog"), ("de", "by", "ein Hund"), ("en", "", 'a "b"')]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_rows_are_chosen_by_the_value_of_a_column(tmp_path, kind):
    rows = [(f"{n}.jpg", text, lang, free) for n, (lang, free, text) in enumerate(LANGUAGES)]
    rows.append(("3.jpg", "un chien", " fr ", "by"))
    header = ("image", "caption", "Lang", "licence")
    path = tmp_path / f"t.{kind}"
    if kind == "csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
    else:
        put(path, lines(*(dict(zip(header, row, strict=True)) for row in rows)))
    for where, taken in (
        (["Lang=en"], [0, 2]),
        (["lang=fr"], [3]),
        (["Lang=en", "Lang = de"], [0, 1, 2]),
        (["Lang=en", "licence=by"], [0]),
        (["licence="], [2]),
    ):
        dataset, notes = noted(path, where=tuple(where))
        assert [record.image for record in dataset.captions] == [f"{n}.jpg" for n in taken]
        told = [f"t.{kind}: {len(taken)} of 4 rows taken, where {' and '.join(where)}"]
        unread = [name for name in header[2:] if name.lower() not in " ".join(where).lower()]
        if unread:
            told.insert(0, f"t.{kind}: columns not read: {', '.join(unread)}")
        assert notes == told
    for where, told in (
        (["Language=en"], r"where Language=en: .* has no column 'Language'; columns: image, "),
        (["Lang"], "where Lang: expected COLUMN=VALUE; columns: image, caption, Lang, licence"),
        (["Lang=EN"], r"where Lang=EN: no row .*; Lang is 'en' \(2\), 'de' \(1\), 'fr' \(1\)"),
        (["Lang=de", "licence="], "where Lang=de and licence=: no row of .* has them together"),
    ):
        with pytest.raises(UsageError, match=told):
            table(path, where=tuple(where))


def test_the_values_of_json_are_as_json_writes_them(tmp_path):
    rows = [{"image": "a.jpg", "caption": "a", "ok": True}, {"image": "b.jpg", "caption": "b"}]
    path = put(tmp_path / "t.jsonl", lines(*rows, {**rows[1], "image": "c.jpg", "ok": 2}))
    for value, image in (("true", "a.jpg"), ("2", "c.jpg"), ("", "b.jpg")):
        assert list(by_image(table(path, where=(f"ok={value}",)))) == [image]


@pytest.mark.parametrize(
    ("captions", "told"),
    [
        (["a dog", "красный круг", "ein Kreis"], "Latin 2, Cyrillic 1"),
        (["一只狗", "いぬ", "dog 7"], "Chinese or Japanese 2, Latin 1"),
        (["كلب", "कुत्ता", "σκύλος", "개"], "Arabic 1, Devanagari 1, Greek 1, Hangul 1"),
        (["一部iPhone手机", "いぬとネコ", "Ｔシャツ", "123"], None),
        (["a 10 µm ring", "ﬁne café", "Łódź", "№ 5 α-iron", "?"], None),
        (["красный T-shirt", "круг"], None),
    ],
)
def test_a_note_where_captions_mix_scripts(tmp_path, captions, told):
    rows = (f"{number}.jpg,{text}\n" for number, text in enumerate(captions))
    notes = noted(put(tmp_path / "t.csv", "image,caption\n" + "".join(rows)))[1]
    hint = "--where COLUMN=VALUE takes the rows of one language"
    assert notes == ([f"t.csv: captions mix scripts ({told}); {hint}"] if told else [])


def test_pictures_are_files_in_a_folder(tmp_path, left_out):
    path = put(tmp_path / "t.csv", "image,caption\nHTTPS://x.org/a.jpg,a dog\nb.jpg,a cat\n")
    reason = "image is 'HTTPS://x.org/a.jpg'; expected a file: download the pictures"
    dataset, rows = left_out(rf"t\.csv:2: {reason}", table, path)
    assert (list(by_image(dataset)), [row.where for row in rows]) == (["b.jpg"], [f"{path}:2"])
    for images in (tmp_path / "none", path):
        with pytest.raises(UsageError, match=rf"images {images}: is not a folder; expected the"):
            table(path, images=images)


def test_quotation_marks_between_tabs_are_text_unless_they_enclose_a_field(tmp_path):
    rows = ['"a red circle', "a green square", 'a sign says hello"', '"both ends"', '"a ""b"""']
    text = "".join(f"p{n}.jpg\t{row}\n" for n, row in enumerate(rows))
    dataset, notes = noted(put(tmp_path / "t.tsv", f"image\tcaption\n{text}"))
    captions = [record.captions[0] for record in dataset.captions]
    assert captions == [*rows[:3], "both ends", 'a "b"']
    where = f"(first: {tmp_path}/t.tsv:2)"
    assert notes == [f"t.tsv: rows whose quotation marks are text: 1 {where}"]


def test_a_field_may_run_over_lines_but_not_over_a_row(tmp_path, left_out):
    long = "dog " * 500
    text = f'image,caption\na.jpg,"first\nsecond, ""third"""\nb.jpg,{long}\n'
    dataset, notes = noted(put(tmp_path / "t.csv", text))
    assert by_image(dataset) == {"a.jpg": ('first\nsecond, "third"',), "b.jpg": (long.strip(),)}
    assert notes == [f"t.csv: rows that run over several lines: 1 (first: {tmp_path}/t.csv:2)"]
    path = put(tmp_path / "t.csv", 'image,caption\na.jpg,"open\nb.jpg,fine\nc.jpg,end"\nd.jpg,"x')
    # A stray mark spoils its own row and no other.
    told = r"t\.csv:2: is not a row of CSV \(unexpected end of data\)"
    dataset, rows = left_out(told, table, path)
    assert by_image(dataset) == {"b.jpg": ("fine",), "c.jpg": ('end"',)}
    assert [row.where for row in rows] == [f"{path}:2", f"{path}:5"]


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
    dataset = table(put(tmp_path / "t.csv", "image,caption\na.jpg,A bolt\na.jpg,A screw\n"))
    assert [(r.image, r.split) for r in dataset.captions] == [("a.jpg", "train")]


BAD_CSV = [
    ("b.jpg", 6, "expected 2 fields, found 1"),
    ("b.jpg,a dog, unquoted", 6, "expected 2 fields, found 3"),
    ("b.jpg,", 6, "caption is empty"),
    (",a dog", 6, "image is empty; expected the name of a picture"),
    ("b\0.jpg,a dog", 6, "image is "),
    ('b.jpg,"a"dog', 6, "is not a row of CSV"),
    ('\n\nb.jpg,"x\n\ny",extra', 8, "expected 2 fields, found 3"),
]


@pytest.mark.parametrize(("row", "line", "reason"), BAD_CSV)
def test_bad_rows_of_csv(tmp_path, left_out, row, line, reason):
    text = f'image,caption\na.jpg,"one\ntwo\nthree"\nc.jpg,fine\n{row}\nd.jpg,fine\n'
    dataset, rows = left_out(rf"t\.csv:{line}: {reason}", table, put(tmp_path / "t.csv", text))
    assert by_image(dataset).keys() == {"a.jpg", "c.jpg", "d.jpg"}
    assert len(rows) == 1


FINE = {"nr": 1, "image": "a.jpg", "caption": "x", "question": "Is it?", "answer": "yes"}
BAD_JSON = [
    ("captions", '{"image": "b.jpg", "caption": ', "is not JSON"),
    ("captions", '["b.jpg", "a dog"]', "expected a JSON object, found list"),
    ("captions", "[" * 100_000, "is not JSON"),
    ("captions", '{"image": "b.jpg"}', "caption is missing"),
    ("captions", '{"image": "b.jpg", "captions": []}', "caption is list; expected text"),
    ("captions", '{"image": "\\ud83d.jpg", "caption": "x"}', "picture .* is not valid Unicode"),
    ("captions", '{"image": 5, "caption": "x"}', "image is 5; expected the name of a picture"),
    ("captions", {"split": "mine"}, "split is 'mine'; expected train, val or test"),
    ("captions", {"split": None}, "split is missing; expected train, val or test"),
    ("captions", {"nr": ""}, "nr is empty; expected an id"),
    ("captions", {"nr": 1}, "id '1' is already that of picture 'a.jpg'"),
    ("questions", {"question": "?!..."}, r"question has no words: '\?!\.\.\.'"),
    ("questions", {"answer": None}, "answer is missing"),
    ("questions", {"nr": 1, "question": "Why?"}, "id '1' is that of another question at"),
]


@pytest.mark.parametrize(("kind", "row", "reason"), BAD_JSON)
def test_bad_rows_of_json_lines(tmp_path, left_out, kind, row, reason):
    fine = {**FINE, "split": "train"}
    if isinstance(row, dict):
        row = json.dumps({**fine, "nr": 2, "image": "b.jpg", **row})
    path = put(tmp_path / "t.jsonl", f"{json.dumps(fine)}\n\n{row}\n{json.dumps(fine)}\n")
    options = {"id_column": "nr"} if '"nr"' in row else {"split_column": "split"}
    if "split" not in row:
        path.write_text(path.read_text().replace('"split"', '"other"'))
        options.pop("split_column")
    if kind == "questions":
        options["question_column"] = "question"
    dataset, rows = left_out(rf"t\.jsonl:3: {reason}", table, path, **options)
    records = dataset.captions or dataset.questions
    assert [(r.image, getattr(r, "captions", ("x", "x"))) for r in records] == [
        ("a.jpg", ("x", "x"))
    ]
    assert len(rows) == 1


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("t.csv", "\n\n", {}, r"t\.csv:1: is empty; expected a header line"),
        ("t.csv", ",,\na,b,c", {}, r"t\.csv:1: is empty; expected a header line"),
        ("t.csv", "image,caption\n", {}, r"t\.csv: has no picture with a caption"),
        ("t.csv", "\nimage,words\na,b\n", {}, r":2: no column 'caption'; columns: image, words"),
        ("t.csv", "image,caption,image\n", {}, r"t\.csv:1: column 'image' occurs twice"),
        ("t.csv", "image,Caption,CAPTION\n", {}, "columns Caption, CAPTION all match 'caption'"),
        ("t.csv", "p.jpg,a dog\n", {}, "columns: p.jpg, a dog; expected a header line first"),
        ("t.csv", "image,question\na,b", {}, ":1: no column 'answer'; columns: image, question"),
        ("t.csv", "image,answer\na,b", {}, ":1: no column 'caption'; columns: image, answer"),
        ("t.csv", "image,q,a\n", {"answer_column": "a"}, ":1: no column 'question'"),
        ("t.csv", b"PK\x03\x04 \xff", {}, "is a workbook; save the sheet as CSV UTF-8"),
        ("t.xlsx", "", {}, "is a workbook; save the sheet as CSV UTF-8"),
        ("t.doc", "", {}, r"t\.doc: expected a \.csv, \.tsv or \.jsonl file"),
        ("t.jsonl", "", {}, r"t\.jsonl:1: has no rows"),
        ("t.json", '{"images": []}', {}, r"t\.json: expected a list of rows, found dict"),
    ],
)
def test_empty_and_foreign_files(tmp_path, name, text, options, message):
    for bad in (BadRows(), BadRows(skip=True)):
        with pytest.raises(DataError, match=message):
            table(put(tmp_path / name, text), bad=bad, **options)
    with pytest.raises(DataError, match=r"none\.csv: cannot be read: No such file"):
        table(tmp_path / "none.csv")


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=20)


@given(st.lists(st.tuples(st.sampled_from(["a.jpg", "b.jpg"]), CELL), min_size=1, max_size=8))
def test_any_caption_survives_csv_and_json(tmp_path_factory, rows):
    rows = [(image, caption) for image, caption in rows if caption.strip()] or [("a.jpg", "x")]
    expected: dict[str, tuple[str, ...]] = {}
    for image, caption in rows:
        expected[image] = (*expected.get(image, ()), caption.strip())
    folder = tmp_path_factory.mktemp("table")
    for name, delimiter in (("t.csv", ","), ("t.csv", ";"), ("t.tsv", "\t")):
        with open(folder / name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=delimiter).writerows([("image", "caption"), *rows])
        assert by_image(table(folder / name)) == expected
    objects = lines(*({"image": image, "caption": caption} for image, caption in rows))
    assert by_image(table(put(folder / "t.jsonl", objects))) == expected

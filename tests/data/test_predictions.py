"""Files to score: what is read, what is refused with its place, what is matched."""

import gzip
import json

import pytest

from gazetell.data.predictions import RowFile, Texts, content_of, match, read_texts
from gazetell.data.records import CaptionRecord, Dataset, QuestionRecord
from gazetell.errors import DataError

ENDS = pytest.mark.parametrize("end", ["", ".gz"])


def write(path, *rows):
    """JSON Lines, or one document; gzip'd where the name says so."""
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def references(path, *rows, content="captions"):
    return read_texts(RowFile.read(write(path, *rows)), content)


def predictions(path, *rows, content="captions"):
    found = read_texts(RowFile.read(write(path, *rows)), content, model=True)
    return {name: text for name, (text,) in found.texts.items()}


def votes(question, *answers, **more):
    people = [{"answer": answer, "answer_id": i} for i, answer in enumerate(answers, start=1)]
    return {"question_id": question, "image_id": 9, "answers": people, **more}


@ENDS
def test_captions(tmp_path, end):
    found = references(
        tmp_path / f"references.jsonl{end}",
        {"id": "b", "captions": ["a dog", "dark\u2028red"], "image": "b.jpg", "split": "test"},
        {"id": 7, "captions": []},
    )
    assert found.texts == {"b": ["a dog", "dark\u2028red"], "7": []}
    rows = {"id": 7, "caption": ""}, {"id": "b", "caption": "un café"}
    assert predictions(tmp_path / f"p.jsonl{end}", *rows) == {"7": "", "b": "un café"}
    found = references(
        tmp_path / f"references.JSON{end}",
        {
            "images": [{"id": 2, "file_name": "x.jpg"}, {"id": 10}, {"id": 3}],
            "annotations": [
                {"image_id": 10, "caption": "a dog", "id": 1},
                {"image_id": 2, "caption": "a cat", "id": 2},
                {"image_id": 10, "caption": "the dog", "id": 3},
            ],
        },
    )
    assert found.texts == {"2": ["a cat"], "10": ["a dog", "the dog"], "3": []}
    results = [{"image_id": 2, "caption": "a cat"}]
    assert predictions(tmp_path / f"results.json{end}", results) == {"2": "a cat"}


@ENDS
def test_answers(tmp_path, end):
    found = references(
        tmp_path / f"questions.jsonl{end}",
        {"id": "b", "answers": ["red", "dark red"], "answer_type": "other", "image": "b.jpg"},
        {"id": 7, "answers": ["2"], "question_type": "how many", "answer_type": None},
        content="answers",
    )
    assert found.texts == {"b": ["red", "dark red"], "7": ["2"]}
    assert found.question_types == {"b": None, "7": "how many"}
    assert found.answer_types == {"b": "other", "7": None}
    rows = {"id": 7, "answer": "", "confidence": 0.5}, {"id": "b", "answer": "été"}
    said = predictions(tmp_path / f"p.jsonl{end}", *rows, content="answers")
    assert said == {"7": "", "b": "été"}
    more = {"question_type": "is", "answer_type": "yes/no", "multiple_choice_answer": "yes"}
    annotations = [votes(12, "yes", "no", "yes", **more), votes(3, "2")]
    found = references(tmp_path / f"a.JSON{end}", {"annotations": annotations}, content="answers")
    assert found.texts == {"12": ["yes", "no", "yes"], "3": ["2"]}
    assert found.question_types == {"12": "is", "3": None}
    assert found.answer_types == {"12": "yes/no", "3": None}
    results = [{"question_id": 3, "answer": "2"}]
    assert predictions(tmp_path / f"r.json{end}", results, content="answers") == {"3": "2"}


def test_a_prepared_dataset_as_it_stands(tmp_path):
    captions = (CaptionRecord("1", "a.png", ("a dog", "dogs"), "test"),)
    questions = (QuestionRecord("q", "a.png", "What?", ("dog", "a dog"), "test", answer_type="x"),)
    Dataset("d", "table", tmp_path, captions, questions).save(tmp_path)
    found = read_texts(RowFile.read(tmp_path / "captions.jsonl"), "captions")
    assert found.texts == {"1": ["a dog", "dogs"]}
    found = read_texts(RowFile.read(tmp_path / "questions.jsonl"), "answers")
    assert (found.texts, found.answer_types) == ({"q": ["dog", "a dog"]}, {"q": "x"})


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", [{"id": 1, "answers": ["x"]}], "answers"),
        ("a.jsonl", [{"id": 1, "question": "what?"}], "answers"),
        ("a.jsonl", [{"id": 1, "captions": ["x"]}], "captions"),
        ("a.jsonl", [{"id": 1, "caption": "x"}], "captions"),
        ("a.jsonl", [{"id": 1}], None),
        ("a.jsonl", [], None),
        ("a.json", [{"annotations": [votes(1, "x")]}], "answers"),
        ("a.json", [{"questions": []}], "answers"),
        ("a.json.gz", [[{"question_id": 1, "answer": "x"}]], "answers"),
        ("a.json", [{"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}], "captions"),
        ("a.json", [[{"image_id": 1, "caption": "x"}]], "captions"),
        ("a.json", [[]], None),
    ],
)
def test_what_a_file_holds(tmp_path, name, content, expected):
    file = RowFile.read(write(tmp_path / name, *content))
    assert file.holds() == expected
    assert content_of([file]) == (expected or "captions")


CAPTION = {"id": 1, "captions": ["a"]}
ANSWER = {"id": 1, "answers": ["a"]}
IMAGE, NOTE = {"id": 1}, {"image_id": 1, "caption": "a"}


@pytest.mark.parametrize(
    ("content", "rows", "message"),
    [
        ("captions", [], "x.jsonl: has no captions"),
        ("captions", [{"captions": ["a"]}], 'x.jsonl:1: expected "id", a string or an integer'),
        ("captions", [{"id": True, "captions": ["a"]}], 'x.jsonl:1: expected "id"'),
        ("captions", [{"id": "a", "captions": "a dog"}], "a list of strings, found str"),
        ("answers", [ANSWER, {"id": "2"}], 'x.jsonl:2: expected "answers", a list of strings'),
        ("answers", [{"id": 1, "answers": None}], "a list of strings, found nothing"),
        ("answers", [{"id": 1, "answer": "red"}], '(one "answer" makes a prediction)'),
        ("captions", [{"id": "a", "captions": ["x", 3]}], 'the number 3 (write "3")'),
        ("answers", [{"id": 1, "answers": [True]}], "strings, found bool"),
        ("answers", [{**ANSWER, "answer_type": 3}], 'x.jsonl:1: expected "answer_type", a string'),
        (
            "captions",
            [CAPTION, {"id": "1"}],
            "x.jsonl:2: picture '1' twice, first on line 1",
        ),
        ("answers", [ANSWER, {"id": "1"}], "x.jsonl:2: question '1' twice, first on line 1"),
        ("captions", [["a"]], "x.jsonl:1: expected a JSON object"),
    ],
)
def test_bad_lines_of_references(tmp_path, content, rows, message):
    with pytest.raises(DataError) as caught:
        references(tmp_path / "x.jsonl", *rows, content=content)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "document", "message"),
    [
        ("captions", [], 'expected a COCO annotation file, an object with "annotations", a list'),
        ("captions", {"images": [IMAGE]}, "expected a COCO annotation file, an object"),
        ("captions", {"annotations": [NOTE]}, 'a COCO annotation file, an object with "images"'),
        ("captions", {"images": [], "annotations": []}, "has no captions"),
        (
            "captions",
            {"images": [IMAGE] * 2, "annotations": []},
            "image 2: picture '1' twice",
        ),
        ("captions", {"images": [IMAGE], "annotations": [3]}, "annotation 1: expected an object"),
        (
            "captions",
            {"images": [IMAGE], "annotations": [{"image_id": 1}]},
            '1: expected "caption"',
        ),
        ("captions", {"images": [{"id": 5}], "annotations": [NOTE]}, "1: picture '1' is not among"),
        ("answers", {"questions": []}, "is a VQA question file; expected the annotation file"),
        ("answers", {"annotations": [{"answers": []}]}, 'annotation 1: expected "question_id"'),
        ("answers", {"annotations": [votes(1, "x"), {"question_id": 2}]}, '2: expected "answers"'),
        ("answers", {"annotations": [votes(1, "x", 4)]}, '1, answers: expected "answer", a string'),
        ("answers", {"annotations": [{"question_id": 1, "answers": ["x"]}]}, "objects, found str"),
        ("answers", {"annotations": [votes(1, "x")] * 2}, "2: question '1' twice, first on"),
    ],
)
def test_bad_annotation_files(tmp_path, content, document, message):
    with pytest.raises(DataError) as caught:
        references(tmp_path / "x.json", document, content=content)
    assert str(caught.value).startswith(f"{tmp_path / 'x.json'}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "name", "rows", "message"),
    [
        ("captions", "x.jsonl", [{"id": 1}], 'x.jsonl:1: expected "caption", a string'),
        ("captions", "x.jsonl", [{"id": 1.5, "caption": "a"}], 'x.jsonl:1: expected "id"'),
        (
            "captions",
            "x.jsonl",
            [{"id": 1, "caption": "a"}] * 2,
            "x.jsonl:2: picture '1' twice",
        ),
        ("answers", "x.jsonl", [{"id": 1, "answer": 2}], 'the number 2 (write "2")'),
        ("captions", "x.json", [{"annotations": []}], "expected a COCO result file, a list"),
        ("answers", "x.json", [{"annotations": []}], "expected a VQA result file, a list"),
        ("answers", "x.json", [[]], "x.json: has no answers"),
        ("captions", "x.json", [[["x"]]], "entry 1: expected an object, found list"),
        (
            "captions",
            "x.json",
            [[NOTE, NOTE]],
            "entry 2: picture '1' twice, first on entry 1",
        ),
        ("answers", "x.json", [[{"question_id": 1}]], 'x.json: entry 1: expected "answer"'),
    ],
)
def test_bad_predictions(tmp_path, content, name, rows, message):
    with pytest.raises(DataError) as caught:
        predictions(tmp_path / name, *rows, content=content)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("none.jsonl", None, "none.jsonl: cannot be read"),
        ("bad.json.gz", gzip.compress(b"\n[{,", mtime=0), "bad.json.gz:2: is not JSON"),
        ("bad.json", b'{"id": "a"}\n{"id": "b"}', "the name of JSON Lines ends in .jsonl"),
        ("bad.txt", b"image,caption\n", r"bad.txt:1: is not JSON .*; expected .* captions.jsonl"),
        ("bad.csv", b"a,caption\n", r"bad.csv:1: no column 'image'; columns: a, caption"),
        ("bad.csv", b"image,caption\na.png,a,dog\n", "bad.csv:2: expected 2 fields, found 3"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, data, message):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        RowFile.read(tmp_path / name)


def said(**texts):
    return Texts("p.jsonl", {name: [text] for name, text in texts.items()})


WANTED = Texts("r.jsonl", {name: [f"a {name}"] for name in "abcdefgh"}, {"a": "is"})
ALL = said(**dict.fromkeys(reversed("abcdefgh"), "x"))


def test_match_keeps_the_order_of_the_references():
    wanted, models, left_out = match(WANTED, [ALL, ALL], "captions")
    assert wanted == WANTED
    assert [list(model.texts) for model in models] == [list("abcdefgh")] * 2
    assert left_out == 0


def test_what_has_no_prediction_is_left_out_if_asked_for():
    models = [said(c="x", a="x", b="x"), said(b="y", c="y", d="y")]
    wanted, kept, left_out = match(WANTED, models, "captions", subset=True)
    assert wanted.texts == {"b": ["a b"], "c": ["a c"]}
    assert [model.texts for model in kept] == [{"b": ["x"], "c": ["x"]}, {"b": ["y"], "c": ["y"]}]
    assert left_out == 6
    assert wanted.question_types == {}
    assert match(WANTED, models[:1], "answers", subset=True)[0].question_types == {"a": "is"}


@pytest.mark.parametrize(
    ("models", "subset", "message"),
    [
        (
            [said(a="x")],
            False,
            "p.jsonl: lacks 7 of the 8 questions of r.jsonl: b, c, d, e, f, ...;",
        ),
        ([said(x="x")], False, "r.jsonl: lacks 1 of the 1 questions of p.jsonl: x"),
        ([said(a="x", x="x")], True, "r.jsonl: lacks 1 of the 2 questions of p.jsonl: x"),
        ([said(a="x"), said(b="x")], True, "p.jsonl and p.jsonl: have no question in common"),
    ],
)
def test_what_does_not_match(models, subset, message):
    with pytest.raises(DataError) as caught:
        match(WANTED, models, "answers", subset=subset)
    assert str(caught.value).startswith(message)


def test_something_scored_without_references():
    wanted = Texts("r.jsonl", {"a": ["a dog"], "b": []})
    with pytest.raises(DataError, match=r"r\.jsonl: 1 pictures have no captions: b"):
        match(wanted, [said(a="x", b="x")], "captions")
    assert match(wanted, [said(a="x")], "captions", subset=True)[2] == 1


def test_texts_without_a_word_are_told_of(caplog):
    wanted = Texts("r.jsonl", {"a": ["a dog", " ", ""], "b": ["红"]})
    match(wanted, [said(a="?!", b="x")], "captions")
    assert caplog.messages == [
        "r.jsonl: captions without a word: 2; scored as they are (picture a)",
        "p.jsonl: captions without a word: 1; scored as they are (picture a)",
    ]

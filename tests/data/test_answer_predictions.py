import gzip
import json

import pytest

from gazetell.data.answer_predictions import (
    RowFile,
    read_answer_predictions,
    read_answer_references,
)
from gazetell.data.predictions import match
from gazetell.data.records import Dataset, QuestionRecord
from gazetell.errors import DataError


def write(path, *rows):
    """JSON Lines, or one document; gzip'd where the name says so."""
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def annotation(question, *answers, **more):
    votes = [
        {"answer": answer, "answer_confidence": "yes", "answer_id": i}
        for i, answer in enumerate(answers, start=1)
    ]
    return {"question_id": question, "image_id": 9, "answers": votes, **more}


@pytest.mark.parametrize("end", ["", ".gz"])
def test_json_lines(tmp_path, end):
    references = write(
        tmp_path / f"questions.jsonl{end}",
        {"id": "b", "answers": ["red", "dark\u2028red"], "answer_type": "other", "image": "b.jpg"},
        {"id": 7, "answers": ["2"], "question_type": "how many", "answer_type": None},
    )
    predictions = write(
        tmp_path / f"predictions.jsonl{end}",
        {"id": 7, "answer": "", "confidence": 0.5},
        {"id": "b", "answer": "été"},
    )
    found = read_answer_references(references)
    assert found.answers == {"b": ["red", "dark\u2028red"], "7": ["2"]}
    assert found.question_types == {"b": None, "7": "how many"}
    assert found.answer_types == {"b": "other", "7": None}
    assert read_answer_predictions(predictions) == {"7": "", "b": "été"}


def test_a_prepared_dataset_as_it_stands(tmp_path):
    records = (
        QuestionRecord("q1", "a.png", "What is it?", ("dog", "a dog"), "test", answer_type="other"),
        QuestionRecord("q2", "a.png", "Is it big?", ("yes",), "test"),
    )
    Dataset("d", "table", tmp_path, questions=records).save(tmp_path)
    found = read_answer_references(tmp_path / "questions.jsonl")
    assert found.answers == {"q1": ["dog", "a dog"], "q2": ["yes"]}
    assert found.answer_types == {"q1": "other", "q2": None}


@pytest.mark.parametrize("end", ["", ".gz"])
def test_official(tmp_path, end):
    more = {"question_type": "is", "answer_type": "yes/no", "multiple_choice_answer": "yes"}
    references = write(
        tmp_path / f"annotations.JSON{end}",
        {
            "info": {},
            "annotations": [annotation(12, "yes", "no", "yes", **more), annotation(3, "2")],
        },
    )
    results = [{"question_id": 3, "answer": "2"}, {"question_id": 12, "answer": "no"}]
    predictions = write(tmp_path / f"results.json{end}", results)
    found = read_answer_references(references)
    assert found.answers == {"12": ["yes", "no", "yes"], "3": ["2"]}
    assert found.question_types == {"12": "is", "3": None}
    assert found.answer_types == {"12": "yes/no", "3": None}
    assert read_answer_predictions(predictions) == {"3": "2", "12": "no"}


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.jsonl", [{"id": 1, "answers": ["x"]}], "answers"),
        ("a.jsonl", [{"id": 1, "answer": "x"}], "answers"),
        ("a.jsonl", [{"id": 1, "question": "what?"}], "answers"),
        ("a.jsonl", [{"id": 1, "captions": ["x"]}], "captions"),
        ("a.jsonl", [{"id": 1, "caption": "x"}], "captions"),
        ("a.jsonl", [{"id": 1}], None),
        ("a.jsonl", [], None),
        ("a.json", [{"annotations": [annotation(1, "x")]}], "answers"),
        ("a.json", [{"questions": []}], "answers"),
        ("a.json", [[{"question_id": 1, "answer": "x"}]], "answers"),
        ("a.json.gz", [[{"question_id": 1, "answer": "x"}]], "answers"),
        ("a.json", [{"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}], "captions"),
        ("a.json", [[{"image_id": 1, "caption": "x"}]], "captions"),
        ("a.json", [[]], None),
        ("a.json", [{"annotations": {}}], None),
        ("a.json", [[3]], None),
        ("a.json", ["text"], None),
    ],
)
def test_what_a_file_holds(tmp_path, name, content, kind):
    assert RowFile.read(write(tmp_path / name, *content)).holds() == kind


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "refs.jsonl: holds no answers"),
        ([{"answers": ["a"]}], 'refs.jsonl:1: expected "id", a string or an integer'),
        ([{"id": 1, "answers": ["a"]}, {"id": "2"}], 'refs.jsonl:2: expected "answers", a list'),
        ([{"id": "2"}], "a list of strings, found nothing"),
        ([{"id": 1, "answers": None}], "refs.jsonl:1: expected"),
        ([{"id": 1, "answers": "red"}], "a list of strings, found str"),
        ([{"id": 1, "answer": "red"}], 'found nothing (one "answer" makes a prediction)'),
        ([{"id": 1, "answers": []}], "refs.jsonl:1: question '1' has no answers"),
        ([{"id": 1, "answers": ["2", 2]}], 'strings, found the number 2 (write "2")'),
        ([{"id": 1, "answers": [1.5]}], 'found the number 1.5 (write "1.5")'),
        ([{"id": 1, "answers": ["2", None]}], "strings, found nothing"),
        ([{"id": 1, "answers": [True]}], "strings, found bool"),
        ([{"id": 1, "answers": ["a"], "answer_type": 3}], 'refs.jsonl:1: expected "answer_type"'),
        (
            [{"id": 1, "answers": ["x"]}, {"id": 2, "answers": ["x"]}, {"id": "1"}],
            "refs.jsonl:3: question '1' again, first on line 1",
        ),
        ([["a"]], "refs.jsonl:1: expected a JSON object"),
    ],
)
@pytest.mark.parametrize("end", ["", ".gz"])
def test_bad_references(tmp_path, rows, message, end):
    with pytest.raises(DataError) as caught:
        read_answer_references(write(tmp_path / f"refs.jsonl{end}", *rows))
    assert message in str(caught.value).replace("refs.jsonl.gz", "refs.jsonl")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], 'a.json: expected a VQA annotation file, an object with "annotations"'),
        ({"annotations": {}}, "expected a VQA annotation file"),
        ({"questions": []}, "a.json: is a VQA question file; expected the annotation file"),
        ({"annotations": []}, "a.json: holds no answers"),
        ({"annotations": [3]}, "a.json: annotation 1: expected an object, found int"),
        ({"annotations": [{"answers": []}]}, 'annotation 1: expected "question_id"'),
        (
            {"annotations": [annotation(1, "x"), {"question_id": 2}]},
            'annotation 2: expected "answers", a list of objects, found nothing',
        ),
        ({"annotations": [annotation(1)]}, "annotation 1: question '1' has no answers"),
        (
            {"annotations": [annotation(1, "x"), annotation(2, "x", 4)]},
            'annotation 2, answer 2: expected "answer", a string, found the number 4 (write "4")',
        ),
        ({"annotations": [annotation(1, None)]}, "annotation 1, answer 1: expected"),
        ({"annotations": [{"question_id": 1, "answers": ["x"]}]}, "list of objects, found str"),
        (
            {"annotations": [annotation(1, "x"), annotation(2, "x"), annotation(1, "y")]},
            "annotation 3: question '1' again, first on annotation 1",
        ),
    ],
)
def test_bad_annotations(tmp_path, document, message):
    with pytest.raises(DataError) as caught:
        read_answer_references(write(tmp_path / "a.json", document))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", [], "p.jsonl: holds no answers"),
        ("p.jsonl", [{"id": 1}], 'p.jsonl:1: expected "answer", a string, found nothing'),
        ("p.jsonl", [{"id": 1, "answer": None}], 'p.jsonl:1: expected "answer"'),
        ("p.jsonl", [{"id": 1, "answer": "x"}, {"id": 2, "answer": 2}], 'the number 2 (write "2")'),
        ("p.jsonl", [{"id": 1.5, "answer": "x"}], 'p.jsonl:1: expected "id"'),
        (
            "p.jsonl",
            [{"id": 1, "answer": "a"}, {"id": "1", "answer": "b"}],
            "p.jsonl:2: question '1' again, first on line 1",
        ),
        ("p.json", [[]], "p.json: holds no answers"),
        ("p.json", [{"annotations": []}], "p.json: expected a VQA result file, a list of objects"),
        ("p.json", [["x"]], "p.json: entry 1: expected an object, found str"),
        ("p.json", [[{"question_id": 1, "answer": 2}]], "p.json: entry 1: expected"),
        (
            "p.json",
            [[{"question_id": 1, "answer": "a"}, {"question_id": 1, "answer": "b"}]],
            "p.json: entry 2: question '1' again, first on entry 1",
        ),
    ],
)
def test_bad_predictions(tmp_path, name, content, message):
    with pytest.raises(DataError) as caught:
        read_answer_predictions(write(tmp_path / name, *content))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "cut.json.gz",
            gzip.compress(b'[{"question_id": 1}]', mtime=0)[:-9],
            "truncated or damaged gzip",
        ),
        ("bad.json.gz", gzip.compress(b"\n[{,", mtime=0), "bad.json.gz:2: is not JSON"),
        ("bad.jsonl.gz", gzip.compress(b'\n{"id":}', mtime=0), "bad.jsonl.gz:2: is not JSON"),
        ("empty.json.gz", gzip.compress(b"", mtime=0), "empty.json.gz:1: is not JSON"),
        ("latin.json.gz", gzip.compress(b'["\xe9"]', mtime=0), "is not UTF-8 text"),
        ("bad.json", b"\n[{,", "bad.json:2: is not JSON"),
        ("empty.json", b"", "empty.json:1: is not JSON"),
    ],
)
def test_damaged_files(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    for read in (read_answer_references, read_answer_predictions):
        with pytest.raises(DataError) as caught:
            read(path)
        assert message in str(caught.value)
        assert str(path) in str(caught.value)


def test_a_missing_file(tmp_path):
    for read in (read_answer_references, read_answer_predictions):
        for name in ("none.jsonl", "none.json.gz"):
            with pytest.raises(DataError, match=f"{name}: cannot be read"):
                read(tmp_path / name)


def test_match():
    references = {str(i): ["a"] for i in range(9)}
    match(references, dict.fromkeys(references, "a"), what="question")
    names = {"what": "question", "references_name": "r", "predictions_name": "p"}
    with pytest.raises(DataError) as caught:
        match(references, {"3": "a"}, **names)
    assert str(caught.value) == "p: lacks 8 of the 9 questions of r: 0, 1, 2, 4, 5, ..."
    with pytest.raises(DataError) as caught:
        match({"3": ["a"]}, {"3": "a", "4": "b"}, **names)
    assert str(caught.value) == "r: lacks 1 of the 2 questions of p: 4"

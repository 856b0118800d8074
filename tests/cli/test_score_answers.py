"""``gazetell score`` on answers to questions."""

import json
import sys

import pytest

from gazetell.metrics import compare_answers

REFERENCES = {
    "1": (["yes"] * 10, "yes/no", "is"),
    "2": (["no"] * 8 + ["yes"] * 2, "yes/no", "is"),
    "3": (["two"] * 9 + ["3"], "number", "how many"),
    "4": (["kite"] * 5 + ["drum"] * 5, "other", "what"),
}
PREDICTIONS = {"1": "yes", "2": "yes", "3": "2", "4": "drum"}
WRONG = dict.fromkeys(PREDICTIONS, "oak")
SCORES = {
    "accuracy": 90.0,
    "measure": "official VQA accuracy",
    "questions": 4,
    "per_answer_type": {"number": 100.0, "other": 100.0, "yes/no": 80.0},
    "per_question_type": {"how many": 100.0, "is": 80.0, "what": 100.0},
}


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def references(path):
    return lines(
        path,
        (
            {"id": i, "answers": answers, "answer_type": answer, "question_type": question}
            for i, (answers, answer, question) in REFERENCES.items()
        ),
    )


def predictions(path, answers):
    return lines(path, ({"id": i, "answer": answer} for i, answer in answers.items()))


@pytest.fixture
def files(tmp_path):
    return [
        *("--references", references(tmp_path / "refs.jsonl")),
        *("--predictions", predictions(tmp_path / "preds.jsonl", PREDICTIONS)),
    ]


def test_json(run, files):
    status, out, err = run("score", *files, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == SCORES


def test_lines(run, files):
    status, out, _ = run("score", *files)
    assert status == 0
    assert out.splitlines() == [
        "accuracy   90.00  official VQA accuracy, 4 questions",
        "answer type",
        "  100.00  number",
        "  100.00  other",
        "   80.00  yes/no",
        "question type",
        "  100.00  how many",
        "   80.00  is",
        "  100.00  what",
    ]


def test_official_files(run, tmp_path):
    annotations = [
        {
            "question_id": int(i),
            "answers": [{"answer": a, "answer_id": n} for n, a in enumerate(answers)],
            "answer_type": answer,
            "question_type": question,
        }
        for i, (answers, answer, question) in REFERENCES.items()
    ]
    results = [{"question_id": int(i), "answer": answer} for i, answer in PREDICTIONS.items()]
    wanted, found = tmp_path / "annotations.json", tmp_path / "results.json"
    wanted.write_text(json.dumps({"annotations": annotations}))
    found.write_text(json.dumps(results))
    status, out, _ = run("score", "--references", wanted, "--predictions", found, "--json")
    assert status == 0
    assert json.loads(out) == SCORES


def test_the_older_rules(run, files):
    status, out, _ = run("score", *files, "--year", 2015, "--json")
    assert status == 0
    scores = json.loads(out)
    assert scores["measure"] == "official VQA accuracy of 2015"
    # Nobody's "two" became a 2 then.
    assert scores["per_answer_type"]["number"] == 0


def test_one_answer_a_question(run, tmp_path):
    wanted = lines(
        tmp_path / "refs.jsonl",
        ({"id": i, "answers": [answer]} for i, answer in enumerate(["a dog", "Cat.", "two"])),
    )
    found = predictions(tmp_path / "preds.jsonl", {0: "dog", 1: "cat", 2: "3"})
    status, out, _ = run("score", "--references", wanted, "--predictions", found)
    assert status == 0
    assert out == "accuracy   66.67  exact match, 3 questions\n"


def test_wups_without_wordnet(run, files, monkeypatch, caplog):
    for name in ("nltk", "nltk.corpus"):
        monkeypatch.setitem(sys.modules, name, None)
    status, out, _ = run("score", *files, "--wups", "--json")
    assert status == 0
    assert json.loads(out) == {**SCORES, "wups_0.9": None, "wups_0.0": None}
    assert "WUPS not computed: nltk cannot be imported" in caplog.text
    _, out, _ = run("score", *files, "--wups")
    assert out.splitlines()[1:3] == ["wups_0.9  not computed", "wups_0.0  not computed"]


def test_against(run, files, tmp_path):
    other = predictions(tmp_path / "others.jsonl", WRONG)
    options = ("--against", other, "--resamples", 50, "--seed", 3)
    status, out, err = run("score", *files, *options, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    wanted = {i: answers for i, (answers, *_) in REFERENCES.items()}
    expected = compare_answers(wanted, PREDICTIONS, WRONG, resamples=50, seed=3)
    assert found.pop("metrics") == {name: one.__dict__ for name, one in expected.items()}
    assert found == {
        "questions": 4,
        "measure": "official VQA accuracy",
        "resamples": 50,
        "seed": 3,
        "level": 0.95,
    }
    status, out, _ = run("score", *files, *options)
    assert status == 0
    line = out.splitlines()[1]
    assert line.split()[:4] == ["accuracy", "90.00", "0.00", "+90.00"]
    assert line.endswith("  a difference")


CAPTIONS = [{"id": i, "captions": ["a dog"]} for i in "1234"]


def test_captions_and_answers_do_not_mix(run, files, tmp_path):
    captions = lines(tmp_path / "captions.jsonl", CAPTIONS)
    status, out, err = run("score", "--references", captions, *files[2:])
    assert (status, out) == (3, "")
    assert len(err.splitlines()) == 1
    assert "captions.jsonl holds captions" in err
    assert "preds.jsonl holds answers; expected captions in all or answers in all" in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--java"], "--java: METEOR and SPICE are for captions"),
        (["--year", 2016], "--year 2016: expected 2015 or 2021"),
        (["--wups", "--against", "x"], "--wups: WUPS is not compared"),
        (["--resamples", 0], "--resamples 0: expected at least 1"),
    ],
)
def test_options_that_do_not_fit(run, files, more, message):
    status, out, err = run("score", *files, *more)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("more", [["--wups"], ["--year", 2015]])
def test_options_that_captions_do_not_have(run, tmp_path, more):
    wanted = lines(tmp_path / "refs.jsonl", CAPTIONS)
    found = lines(tmp_path / "preds.jsonl", [{"id": i, "caption": "a dog"} for i in "1234"])
    status, out, err = run("score", "--references", wanted, "--predictions", found, *more)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {more[0]}: is for answers")


def test_files_that_do_not_fit(run, files, tmp_path):
    fewer = predictions(tmp_path / "fewer.jsonl", {"1": "yes"})
    status, _, err = run("score", *files[:2], "--predictions", fewer)
    assert status == 3
    assert "fewer.jsonl: lacks 3 of the 4 questions of" in err
    more = predictions(tmp_path / "more.jsonl", {**PREDICTIONS, "5": "yes"})
    status, _, err = run("score", *files[:2], "--predictions", more)
    assert status == 3
    assert "refs.jsonl: lacks 1 of the 5 questions of" in err
    empty = lines(tmp_path / "empty.jsonl", [])
    status, _, err = run("score", *files[:2], "--predictions", empty)
    assert status == 3
    assert "empty.jsonl: holds no answers" in err
    one = lines(tmp_path / "one.jsonl", [{"id": "1", "answers": ["yes"]}])
    status, _, err = run(
        *("score", "--references", one, "--predictions", fewer, "--against", fewer)
    )
    assert status == 3
    assert "one.jsonl: has one question; expected at least two" in err
    number = lines(tmp_path / "number.jsonl", [{"id": "1", "answer": 4}])
    status, _, err = run("score", "--references", one, "--predictions", number)
    assert status == 3
    assert "number.jsonl:1: " in err
    assert 'found the number 4 (write "4")' in err

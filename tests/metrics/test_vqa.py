"""The official VQA accuracy against figures of the official code, and against a naive one."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetell.metrics import (
    answer_accuracy,
    answer_scores,
    compare_answers,
    exact_match,
    normalise_answer,
    score_answers,
    vqa_accuracy,
)

FILE = Path(__file__).parents[1] / "golden" / "vqa_scores.json"
GOLDEN = json.loads(FILE.read_text(encoding="utf-8"))


def people(case):
    return [answer for answer, count in case["votes"] for _ in range(count)]


@pytest.mark.parametrize(("year", "key"), [(2021, "score"), (2015, "score_2015")])
def test_scores_of_the_official_code(year, key):
    assert {case["score"] for case in GOLDEN["cases"]} >= {0, 30, 60, 90, 100}
    for case in GOLDEN["cases"]:
        score = vqa_accuracy(people(case), case["prediction"], year=year)
        assert round(100 * score, 2) == case[key], case


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["kite", "the kite", "drum", "2", "two", "oak tree"]), min_size=1),
    st.sampled_from(["kite", "2", "oak-tree", "drum!"]),
)
def test_leave_one_out_by_index(answers, prediction):
    same = len(set(answers)) == 1
    texts = answers if same else [normalise_answer(answer) for answer in answers]
    wanted = prediction if same else normalise_answer(prediction)
    total = 0.0
    for out in range(len(texts)):
        others = texts[:out] + texts[out + 1 :]
        total += min(others.count(wanted) / 3, 1)
    assert vqa_accuracy(answers, prediction) == pytest.approx(total / len(texts), abs=1e-12)


def test_normalised_as_by_the_official_code():
    cases = GOLDEN["normalised"]
    assert len(cases) > 300
    assert not [(text, wanted) for text, wanted in cases if normalise_answer(text) != wanted]


def test_exact_match():
    assert exact_match(["The kite."], "kite") == 1
    assert exact_match(["two"], "2") == 1
    assert exact_match(["kite"], "kites") == 0
    assert exact_match(["red", "dark red"], "Dark red!") == 1


def test_the_measure_follows_the_number_of_answers():
    assert answer_accuracy(["kite"] * 3, "a kite") == 1
    # Four who agree are official, and official means as it is written.
    assert answer_accuracy(["kite"] * 4, "a kite") == 0
    assert answer_accuracy(["kite"] * 4, "kite") == 1
    assert answer_accuracy(["kite"] * 4, "a kite", year=2015) == 1


REFERENCES = {"a": ["yes"] * 10, "b": ["no"] * 8 + ["yes"] * 2, "c": ["2"] * 9 + ["3"]}
REFERENCES["d"] = ["kite"] * 5 + ["drum"] * 5
PREDICTIONS = {"d": "kite", "c": "3", "b": "yes", "a": "yes"}


def test_score_answers():
    found = score_answers(
        REFERENCES,
        PREDICTIONS,
        answer_types={"a": "yes/no", "b": "yes/no", "c": "number", "d": None},
        question_types={"a": "is", "b": "is", "c": "how many"},
    )
    # By hand: 100; eight leave 2 votes, two leave 1: (8 * 2/3 + 2 * 1/3) / 10; 9 * 1/3 / 10; 100.
    assert found == {
        "accuracy": 72.5,
        "measure": "official VQA accuracy",
        "questions": 4,
        "per_answer_type": {"number": 30.0, "yes/no": 80.0},
        "per_question_type": {"how many": 30.0, "is": 80.0},
    }
    each = answer_scores(REFERENCES, PREDICTIONS)
    assert list(each) == list(REFERENCES)
    assert each == pytest.approx({"a": 1, "b": 0.6, "c": 0.3, "d": 1})
    older = score_answers(REFERENCES, PREDICTIONS, year=2015)
    assert older["measure"] == "official VQA accuracy of 2015"
    assert older["per_answer_type"] == {}


def test_one_answer_a_question_is_exact_match():
    references = {"a": ["a table"], "b": ["chair"], "c": ["lamp"]}
    found = score_answers(references, {"a": "Table", "b": "sofa", "c": "lamp"})
    assert found["measure"] == "exact match"
    assert found["accuracy"] == 66.67
    mixed = score_answers({**references, **REFERENCES}, dict.fromkeys("abcd", "yes"))
    assert mixed["measure"] == "official VQA accuracy"
    references["d"] = ["kite"] * 10
    mixed = score_answers(references, dict.fromkeys("abcd", "kite"))
    assert mixed["measure"] == "official VQA accuracy, exact match below 4 answers"
    assert mixed["accuracy"] == 25.0


@pytest.mark.parametrize(
    ("references", "predictions", "message"),
    [
        ({}, {}, "no questions"),
        ({"a": ["x"]}, {}, "question 'a' has no prediction"),
        ({"a": ["x"]}, {"a": "x", "b": "y"}, "question 'b' has no reference"),
        ({"a": []}, {"a": "x"}, "question 'a' has no references"),
    ],
)
def test_what_cannot_be_scored(references, predictions, message):
    with pytest.raises(ValueError, match=message):
        score_answers(references, predictions)


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match="no answers"):
        vqa_accuracy([], "x")
    with pytest.raises(ValueError, match="no answers"):
        answer_accuracy([], "x")
    with pytest.raises(ValueError, match="year 2016; expected one of 2015, 2021"):
        vqa_accuracy(["x"], "x", year=2016)


def test_compare_answers_against_a_naive_bootstrap():
    rng = random.Random(1)
    references = {str(i): [rng.choice(["yes", "no"])] for i in range(60)}
    good = {i: a[0] if rng.random() < 0.8 else "?" for i, a in references.items()}
    poor = {i: a[0] if rng.random() < 0.4 else "?" for i, a in references.items()}
    # The order of a file of predictions is not that of the references.
    found = compare_answers(references, dict(reversed(good.items())), poor, resamples=2000)
    one = found["accuracy"]
    assert one.first == pytest.approx(score_answers(references, good)["accuracy"], abs=0.006)
    assert one.second == pytest.approx(score_answers(references, poor)["accuracy"], abs=0.006)
    assert one.difference == one.first - one.second
    first = [exact_match(references[i], good[i]) for i in references]
    second = [exact_match(references[i], poor[i]) for i in references]
    differences = []
    for _ in range(2000):
        drawn = [rng.randrange(60) for _ in range(60)]
        differences.append(100 * sum(first[i] - second[i] for i in drawn) / 60)
    differences.sort()
    # Two sets of 2,000 draws: their ends agree to about two questions of sixty.
    assert one.low == pytest.approx(differences[50], abs=3.4)
    assert one.high == pytest.approx(differences[1949], abs=3.4)
    assert one.significant


@pytest.mark.parametrize("options", [{"resamples": 0}, {"level": 1.0}])
def test_compare_answers_refuses(options):
    with pytest.raises(ValueError, match=r"resamples is 0|level is 1\.0"):
        compare_answers(REFERENCES, PREDICTIONS, PREDICTIONS, **options)
    with pytest.raises(ValueError, match="one question"):
        compare_answers({"a": ["x"]}, {"a": "x"}, {"a": "y"})

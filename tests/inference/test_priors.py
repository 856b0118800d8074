"""What needs no picture: priors and the ceiling, counted by hand."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetell.data.answers import AnswerVocabulary
from gazetell.data.records import QuestionRecord
from gazetell.inference.figures import Priors, bias


def record(question, *answers, number=0):
    return QuestionRecord(str(number), "a.png", question, answers, "train")


TRAINING = [
    record("What colour is the ball?", "red"),
    record("what colour is the sky", "blue"),
    record("What colour is the tie", "blue"),
    record("What is it", "dog"),
    record("Is it raining", "no"),
    record("Is it a dog", "no"),
    record("is it red", "no"),
    record("How many dogs", "2"),
]


def test_priors_by_hand():
    priors = Priors(TRAINING)
    assert priors.answer("") == "no"
    assert priors.answer("what COLOUR are they") == "blue"
    assert priors.answer("what time") == "blue"  # "what time" is new, "what" is not
    assert priors.answer("how") == "2"
    assert priors.answer("why") == "no"
    assert not Priors([]).best
    assert not Priors([record("what is it", "the")]).best  # nothing is left of that answer


def test_ties_go_by_the_alphabet():
    assert Priors([record("a", "pear"), record("b", "fig")]).answer("") == "fig"


def test_a_question_of_one_word_counts_once():
    known = [record("why", "fig"), record("why not", "pear"), record("why me", "pear")]
    assert Priors(known).answer("why") == "pear"


def test_bias_by_hand():
    asked = [
        record("Is it snowing", "no"),
        record("What colour is it", "red"),
        record("what colour is he", "blue"),
        record("how many cats", "7"),
    ]
    vocabulary = AnswerVocabulary(["no", "blue", "2"])
    assert bias(TRAINING, asked, vocabulary) == {
        "most_frequent_answer": "no",
        "most_frequent": 25.0,
        "prefix": 50.0,
        "ceiling": 50.0,
    }
    without = bias([], asked, vocabulary)
    assert without["ceiling"] == 50.0
    assert {without[key] for key in ("most_frequent_answer", "most_frequent", "prefix")} == {None}


def test_the_ceiling_takes_the_best_of_peoples_answers():
    ten = record("what is it", *["dog"] * 5, *["puppy"] * 3, "cat", "pet")
    both, rare = AnswerVocabulary(["cat", "puppy"]), AnswerVocabulary(["cat"])
    assert bias([], [ten], both)["ceiling"] == 90.0  # puppy: (7 * 1 + 3 * 2/3) / 10
    assert bias([], [ten], rare)["ceiling"] == 30.0  # cat: 9 * 1/3 / 10
    assert bias([], [ten], AnswerVocabulary(["bus"]))["ceiling"] == 0.0


rows = st.lists(
    st.tuples(
        st.sampled_from(["is it", "is it so", "what is", "how", "what"]), st.sampled_from("abc")
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(rows, rows)
def test_priors_equal_a_naive_count(training, asked):
    # "a" is an article, of which nothing is left.
    named = {"a": "x", "b": "y", "c": "z"}
    known = [record(question, named[answer]) for question, answer in training]
    posed = [record(question, named[answer]) for question, answer in asked]
    hits = Counter()
    for one in posed:
        words = one.question.split()[:2]
        for length in range(len(words), -1, -1):
            begin = words[:length]
            alike = [r.answers[0] for r in known if r.question.split()[:length] == begin]
            if alike:
                best = max(sorted(set(alike)), key=alike.count)
                hits["prefix"] += best == one.answers[0]
                break
        everything = [r.answers[0] for r in known]
        best = max(sorted(set(everything)), key=everything.count)
        hits["most_frequent"] += best == one.answers[0]
    found = bias(known, posed, AnswerVocabulary(["x", "y", "z"]))
    for key in ("prefix", "most_frequent"):
        assert found[key] == pytest.approx(100 * hits[key] / len(posed), abs=0.006)
    assert found["ceiling"] == 100

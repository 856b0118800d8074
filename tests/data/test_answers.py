"""The answer vocabulary, its targets, and the ceiling it puts on the accuracy."""

import json
import random
from collections import Counter

import pytest

from gazetell.data.answers import TARGETS, AnswerVocabulary, coverage, modal_answer
from gazetell.data.records import QuestionRecord
from gazetell.errors import DataError, ModelError, UsageError
from gazetell.metrics.answers import answer_accuracy, normalise_answer

TEN = ("Yes", "yes.", "no", "no", "the cat", "yes", "maybe", "no", "no", "two")


def asked(*answers: str, split: str = "train") -> QuestionRecord:
    return QuestionRecord("1", "a.jpg", "what is it?", answers, split)


def test_the_modal_answer():
    assert modal_answer(TEN) == "no"
    assert modal_answer(("red", "blue", "Blue", "Red.")) == "red"  # a tie: the first given
    assert modal_answer(("two", "2")) == "2"
    assert modal_answer(("the", "The!", "dog")) == "dog"  # normalised to nothing: no answer
    assert modal_answer(("the",)) == modal_answer(()) == ""


def test_most_frequent_first_and_ties_by_text():
    records = [asked(*said) for said in (["b"], ["A cat"], ["c"], ["c."], [], ["the"], ["d"])]
    assert AnswerVocabulary.train(records).answers == ("c", "b", "A cat", "d")
    small = AnswerVocabulary.train(records, size=2)
    assert (small.answers, len(small)) == (("c", "b"), 2)
    assert [small.index(text) for text in ("B!", "the c", "cat", "")] == [1, 0, None, None]
    with pytest.raises(UsageError, match="size is 0"):
        AnswerVocabulary.train(records, size=0)
    with pytest.raises(DataError, match="no question of the training split has an answer"):
        AnswerVocabulary.train([asked(), asked("the")])


def test_answers_are_kept_as_most_people_wrote_them():
    records = [asked("t shirt", "t-shirt", "t-shirt", "jeans"), asked("chair, table")]
    records += [asked("T-Shirt"), asked("t  shirt")]
    vocabulary = AnswerVocabulary.train(records)
    assert vocabulary.answers == ("t shirt", "chair, table")  # two against two: by text
    assert vocabulary.index("t-shirt") == vocabulary.index("T shirt") == 0
    assert AnswerVocabulary.train(records[:2]).answers == ("chair, table", "t-shirt")
    with pytest.raises(ModelError, match="different answers"):
        AnswerVocabulary(["t-shirt", "t shirt"])


def test_an_answer_of_the_vocabulary_is_found():
    # Only so many periods go in one turn, so that a second would change it.
    vocabulary = AnswerVocabulary.train([asked("." * 33 + "a")])
    assert vocabulary.index(vocabulary.answers[0]) == 0
    # A no-break space beside a hyphen: the spelling that is kept has a blank there.
    record = asked("x-b\u00a0-\u00a0c")
    vocabulary = AnswerVocabulary.train([record])
    assert vocabulary.target(record.answers) == {0: 1.0}


def test_targets():
    vocabulary = AnswerVocabulary(["no", "yes", "2"])
    assert vocabulary.target(TEN) == vocabulary.target(TEN, "hard") == {0: 1.0}
    assert vocabulary.target(TEN, "soft") == {1: 1.0, 0: 1.0, 2: pytest.approx(1 / 3)}
    assert vocabulary.target(TEN, "votes") == {1: 0.3, 0: 0.4, 2: 0.1}
    other = ("dog",) * 6 + ("no",) * 2 + ("the", "cat")
    assert vocabulary.target(other, "hard") == {}
    assert vocabulary.target(other, "soft") == {0: pytest.approx(2 / 3)}
    assert vocabulary.target(other, "votes") == {0: 0.2}
    for kind in TARGETS:  # one answer: the same for all
        assert vocabulary.target(("Yes!",), kind) == {1: 1.0}
        assert vocabulary.target(("dog",), kind) == vocabulary.target((), kind) == {}
    with pytest.raises(UsageError, match="target 'loud': expected one of hard, soft, votes"):
        vocabulary.target(TEN, "loud")


def test_saved_and_loaded(tmp_path):
    vocabulary = AnswerVocabulary(["ja", "כלב", "garbage bin"])
    vocabulary.save(tmp_path / "answers.json")
    assert AnswerVocabulary.load(tmp_path / "answers.json") == vocabulary
    assert json.loads((tmp_path / "answers.json").read_text())["answers"][1] == "כלב"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot be read"),
        ("[", "is not JSON"),
        ("[]", "has no list of answers"),
        ('{"answers": "yes"}', "has no list of answers"),
        ('{"answers": ["yes", 2]}', "has no list of answers"),
        ('{"answers": []}', "expected a list of different answers"),
        ('{"answers": ["yes", ""]}', "none of them empty"),
        ('{"answers": ["yes", "yes"]}', "expected a list of different answers"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, text, told):
    path = tmp_path / "answers.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ModelError, match=told) as caught:
        AnswerVocabulary.load(path)
    assert str(path) in str(caught.value)


def best_by_trying(records, train, size: int) -> float:
    """The mean of the best score that any of the ``size`` answers gets."""
    counts = Counter(modal_answer(record.answers) for record in train)
    counts.pop("", None)
    said = [(answer, modal_answer(record.answers)) for record in train for answer in record.answers]
    kept = []
    for one in sorted(counts, key=lambda one: (-counts[one], one))[:size]:
        written = Counter(text for text, modal in said if modal == one == normalise_answer(text))
        kept.append(max(sorted(written), key=written.__getitem__))
    best = (max(answer_accuracy(record.answers, one) for one in kept) for record in records)
    return sum(best) / len(records)


@pytest.mark.parametrize("people", [1, 2, 10])
def test_coverage_is_the_best_that_trying_every_answer_finds(people):
    rng = random.Random(people)
    words = ["yes", "no", "Red", "two", "2", "the cat", "cat.", "blue", "", "maybe"]
    records = [
        asked(*rng.choices(words, range(10, 0, -1), k=people), split=rng.choice(["train", "val"]))
        for _ in range(120)
    ]
    records = [record for record in records if any(record.answers)]
    records.append(asked(*["Red"] * people, split="val"))  # all the same: compared as it is
    train = [record for record in records if record.split == "train"]
    val = [record for record in records if record.split == "val"]
    sizes = [1, 2, 3, 5, 100]
    found = coverage(val, sizes, train=train)
    assert list(found) == sizes
    for size in sizes:
        assert found[size] == pytest.approx(best_by_trying(val, train, size))
    everything = coverage(records, [2])
    assert everything[2] == pytest.approx(best_by_trying(records, train, 2))


def test_coverage_leaves_unanswered_questions_aside():
    records = [asked("yes"), asked("no"), asked("no"), asked(), asked("dog", split="val")]
    assert coverage(records, [1, 2]) == {1: 0.5, 2: 0.75}
    with pytest.raises(DataError, match="no question has an answer"):
        coverage([asked(split="test")], [1], train=records)
    with pytest.raises(DataError, match="of the training split"):
        coverage([asked("yes", split="test")], [1])

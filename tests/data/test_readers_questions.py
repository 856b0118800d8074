"""Questions made from captions, of captions whose questions are known."""

from collections import Counter

import pytest

from gazetell.data.readers.questions import _plural, _words, questions_from_captions
from gazetell.data.readers.rows import BadRows
from gazetell.data.records import CaptionRecord, Dataset, QuestionRecord
from gazetell.errors import DataError, UsageError


@pytest.fixture
def asked(tmp_path):
    """The questions of pictures with these captions, as (question, answer) by type."""

    def ask(*pictures: list[str], split="train", **options) -> dict[str, set[tuple[str, str]]]:
        records = tuple(
            CaptionRecord(f"{n}", f"{n}.jpg", tuple(captions), split)
            for n, captions in enumerate(pictures)
        )
        Dataset("mine", "table", tmp_path, records).save(tmp_path / "prepared")
        made = questions_from_captions(tmp_path / "prepared", **{"most": 1.0, **options})
        found: dict[str, set[tuple[str, str]]] = {}
        for one in made.questions:
            assert (one.split, one.id.split("-")[1]) == (split, one.image.removesuffix(".jpg"))
            found.setdefault(one.question_type, set()).add((one.question, one.answers[0]))
        return found

    return ask


DOG = [
    "A brown dog is sitting on a couch.",
    "A dog sitting on a couch in a living room.",
    "The dog looks at a man who is holding an umbrella.",
    "A man holding an umbrella in a living room.",
]


def test_what_is_asked_of_a_picture(asked):
    found = asked(DOG)
    assert {answer for _, answer in found["which-animal"]} == {"dog"}
    assert {answer for _, answer in found["room"]} == {"living room"}
    assert found["where"] == {("Where is the dog?", "on couch")}
    assert found["what-on"] == {("What is on the couch?", "dog")}
    assert found["holding"] == {("What is the man holding?", "umbrella")}
    assert {answer for question, answer in found["color"] if "dog" in question} == {"brown"}
    # A yes alone would tell by its words that it is right.
    assert "there" not in found


@pytest.mark.parametrize(
    ("captions", "type", "answers"),
    [
        (["Two dogs run.", "Two small dogs in the grass."], "how-many", {"2"}),
        (["Two dogs run.", "Three small dogs in the grass."], "how-many", set()),
        (["A dog runs."] * 3, "how-many", {"1"}),
        (["A dog runs.", "A dog runs.", "A dog and another dog."], "how-many", set()),
        (["A red bus.", "A bus on a road."], "color", {"red"}),
        (["A red and white bus.", "A bus on a road."], "color", {"red and white"}),
        (["A red bus.", "A blue bus."], "color", set()),
        (["A red, white, and blue bus.", "A bus."], "color", set()),
        (["A black and white photo of a bus.", "A red bus."], "color", set()),
        (["A dog bed in a kitchen.", "A dog bed in the kitchen."], "which-animal", set()),
        (["A stuffed dog.", "A toy dog."], "which-animal", set()),
        (["A dog.", "A dog and a cat."], "which-animal", set()),
        (["Three sheep grazing.", "Sheep grazing."], "which-animal", {"sheep"}),
        (["A man surfing.", "A man rides a wave."], "doing", {"surfing"}),
        (["A man surfing.", "A man is skiing."], "doing", set()),
        (["A man is sitting.", "A man sitting."], "doing", {"sitting"}),
        (["Zebras grazing.", "Two zebras graze."], "doing", {"grazing"}),
        (["A woman plays tennis.", "A girl plays tennis."], "sport", {"tennis"}),
    ],
)
def test_what_captions_agree_on(asked, captions, type, answers):
    found = asked(captions, ["A thing.", "It."], ["A cat.", "A cat on a bed."])
    told = {answer for question, answer in found.get(type, ()) if "cat" not in question}
    assert told - {"cat"} == answers


@pytest.mark.parametrize(
    ("captions", "question"),
    [
        (["A man eats.", "A man is eating."], "What is the man doing?"),
        (["A man eats.", "A boy is eating."], "What is the man doing?"),
        (["A man eats.", "A woman is eating."], "What is the person doing?"),
        (["A man and a woman eat.", "A man is eating."], "What are the people doing?"),
        (["A dog eats.", "A dog is eating."], "What is the dog doing?"),
        (["Three dogs eat.", "Three dogs eating."], "What are the dogs doing?"),
    ],
)
def test_who_does_it(asked, captions, question):
    ((asked_, answer),) = asked([*captions, captions[1]])["doing"]
    assert answer == "eating"
    assert asked_ == question or (question == "What is the man doing?" and "boy" in asked_)


def test_yes_and_no_are_balanced_for_each_thing(asked):
    pictures = [[f"A {thing}.", f"A {thing}!"] for thing in ("cat", "dog", "horse") * 40]
    found = asked(*pictures)
    for type in ("there", "is-it"):
        told = Counter((q.split(" in ")[0].rstrip("?").split()[-1], a) for q, a in found[type])
        assert {thing for thing, _ in told} >= {"cat", "dog", "horse"}
        assert all(told[thing, "yes"] > 0 and told[thing, "no"] > 0 for thing, _ in told)


def test_no_answer_has_more_than_its_share(tmp_path):
    things = ["cat"] * 60 + ["dog"] * 20 + ["horse"] * 20 + ["bear"] * 20
    records = tuple(
        CaptionRecord(f"{n}", f"{n}.jpg", (f"A {thing}.",) * 2, "train")
        for n, thing in enumerate(things)
    )
    Dataset("mine", "table", tmp_path, records).save(tmp_path)
    for most, expected in ((1.0, 60), (0.4, 40), (0.1, 20)):
        made = questions_from_captions(tmp_path, most=most).questions
        told = Counter(one.answers[0] for one in made if one.question_type == "which-animal")
        assert told == {"cat": expected, "dog": 20, "horse": 20, "bear": 20}
    assert made == questions_from_captions(tmp_path, most=0.1).questions
    with pytest.raises(UsageError, match="most 0: expected a share above 0"):
        questions_from_captions(tmp_path, most=0)


def test_words_and_plurals():
    words = _words("Three polar bears by a fire truck's grey knife")
    assert {one.thing: one.plural for one in words if one.head} == {"bear": True, "knife": False}
    assert "gray" in [one.text for one in words]
    for one, many in {"bus": "buses", "wine glass": "wine glasses", "puppy": "puppies"}.items():
        assert _plural(one) == many
    told = [_plural(one) for one in ("toy", "fire truck", "woman")]
    assert told == ["toys", "fire trucks", "women"]


def test_what_gives_no_question_is_told(asked, tmp_path):
    bad = BadRows()
    asked(DOG, ["Ein Hund sitzt."], bad=bad)
    assert bad.notes == ["pictures left out, whose captions give no question: 1"]
    with pytest.raises(
        DataError, match="no question can be made of its captions; expected English"
    ):
        asked(["Ein Hund sitzt."])
    question = QuestionRecord("q", "0.jpg", "Is it?", ("yes",), "train")
    Dataset("mine", "table", tmp_path, questions=(question,)).save(tmp_path / "other")
    with pytest.raises(DataError, match="other: has no captions"):
        questions_from_captions(tmp_path / "other")

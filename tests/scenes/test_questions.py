"""Questions have one answer, checked by a reader of its own; yes and no are balanced."""

import hashlib
import random
import re
from collections import Counter

import pytest

from gazetell.scenes import Question, Scene, questions, sample_scene
from gazetell.scenes.world import COLOURS, SHAPES

SCENES = [sample_scene(random.Random(f"questions {index}")) for index in range(1500)]
ASKED = [
    (scene, question)
    for index, scene in enumerate(SCENES)
    for question in questions(scene, 6, index)
]
SINGULAR = {**{shape + "s": shape for shape in SHAPES}, "crosses": "cross", "objects": "object"}


def named(scene: Scene, phrase: str) -> list:
    """The things that a phrase such as *large red ring* or *blue objects* fits."""
    found = list(scene.things)
    for word in phrase.split():
        word = SINGULAR.get(word, word)
        if word != "object":
            found = [one for one in found if word in (one.size, one.colour, one.shape)]
    return found


def the(scene: Scene, phrase: str):
    (one,) = named(scene, phrase)  # fails when the phrase does not single out a thing
    return one


def answer(scene: Scene, text: str) -> str:
    """The answer, worked out from the words of the question."""
    if match := re.fullmatch(r"is there an? (.+)\?", text):
        return "yes" if named(scene, match[1]) else "no"
    if match := re.fullmatch(r"what (colour|shape) is the (.+)\?", text):
        return getattr(the(scene, match[2]), match[1])
    if match := re.fullmatch(r"how many (.+) are there\?", text):
        return str(len(named(scene, match[1])))
    if match := re.fullmatch(r"is the (.+) on the left or on the right\?", text):
        return "left" if the(scene, match[1]).x < 0.5 else "right"
    if match := re.fullmatch(r"is the (.+) at the top or at the bottom\?", text):
        return "top" if the(scene, match[1]).y < 0.5 else "bottom"
    if match := re.fullmatch(r"where is the (.+) seen from the (.+)\?", text):
        one, other = the(scene, match[1]), the(scene, match[2])
        across, down = one.x - other.x, one.y - other.y
        if abs(across) > abs(down):
            return "left" if across < 0 else "right"
        return "above" if down < 0 else "below"
    if match := re.fullmatch(r"are there more (.+) than (.+)\?", text):
        more = len(named(scene, match[1])) - len(named(scene, match[2]))
        assert more, "a draw is not asked for"
        return "yes" if more > 0 else "no"
    if match := re.fullmatch(r"is the (.+) larger than the (.+)\?", text):
        ratio = the(scene, match[1]).radius / the(scene, match[2]).radius
        assert not 0.7 < ratio < 1.4
        assert not re.search("large |small ", text)
        return "yes" if ratio > 1 else "no"
    match = re.fullmatch(r"are the (.+) and the (.+) the same colour\?", text)
    assert match, text
    one, other = the(scene, match[1]), the(scene, match[2])
    assert one is not other
    return "yes" if one.colour == other.colour else "no"


def test_every_answer_is_right() -> None:
    for scene, question in ASKED:
        assert answer(scene, question.text) == question.answer, (question, scene)


def test_positions_are_clear() -> None:
    for scene, question in ASKED:
        if match := re.match(r"is the (.+) (on|at) the .* or", question.text):
            one = the(scene, match[1])
            offset = one.x if match[2] == "on" else one.y
            assert abs(offset - 0.5) > 0.05


def test_colour_and_shape_are_not_given_away() -> None:
    for _, question in ASKED:
        words = set(re.findall("[a-z]+", question.text))
        if question.type == "colour":
            assert not words & set(COLOURS)
        if question.type == "shape":
            assert not words & set(SHAPES)


@pytest.mark.parametrize("kind", ["exists", "compare"])
def test_yes_and_no_are_balanced(kind: str) -> None:
    forms: dict[str, Counter] = {}
    for _, question in ASKED:
        if question.type == kind:
            words = question.text.split()
            # "are the" (same colour) only has a yes where two things share a colour.
            form = " ".join(words[:2]) if kind == "compare" else f"{len(words)} words"
            forms.setdefault(form, Counter())[question.answer] += 1
    total = sum(forms.values(), Counter())
    assert 0.45 < total["yes"] / total.total() < 0.55
    for form, counts in forms.items():
        if form != "are the":
            assert 0.42 < counts["yes"] / counts.total() < 0.58, (form, counts)


def test_answers_come_from_a_closed_set_and_no_answer_dominates() -> None:
    sets = {
        "exists": {"yes", "no"},
        "compare": {"yes", "no"},
        "colour": set(COLOURS),
        "shape": set(SHAPES),
        "count": set("01234"),
        "where": {"left", "right", "top", "bottom", "above", "below"},
    }
    for kind, expected in sets.items():
        counts = Counter(one.answer for _, one in ASKED if one.type == kind)
        assert set(counts) == expected
        assert max(counts.values()) / counts.total() <= 0.58


def test_types_and_answer_types() -> None:
    kinds = {(one.type, one.answer_type) for _, one in ASKED}
    assert kinds == {
        ("exists", "yes/no"), ("compare", "yes/no"), ("count", "number"),
        ("colour", "other"), ("shape", "other"), ("where", "other"),
    }  # fmt: skip


def test_number_and_reproducibility() -> None:
    for index, scene in enumerate(SCENES[:200]):
        asked = questions(scene, 6, index)
        assert asked == questions(scene, 6, index)
        assert len({one.text for one in asked}) == len(asked) == 6
        assert all(isinstance(one, Question) for one in asked)
        assert len(questions(scene, 2, index)) == 2
        assert questions(scene, 0, index) == ()


def test_questions_stay_what_they_were() -> None:
    """A digest of questions made before they told what they are about: data stay comparable."""
    digest = hashlib.sha256()
    for index, scene in enumerate(SCENES[:200]):
        for one in questions(scene, 6, index):
            digest.update(f"{one.type} {one.text} {one.answer}\n".encode())
    assert digest.hexdigest()[:16] == "54640f466353afe3"


def about(scene: Scene, text: str) -> list:
    """The things that a question is about, worked out from its words."""
    for pattern in (
        r"is there an? (.+)\?",
        r"what (?:colour|shape) is the (.+)\?",
        r"how many (.+) are there\?",
        r"is the (.+) (?:on the left or on the right|at the top or at the bottom)\?",
        r"where is the (.+) seen from the (.+)\?",
        r"are there more (.+) than (.+)\?",
        r"is the (.+) larger than the (.+)\?",
        r"are the (.+) and the (.+) the same colour\?",
    ):
        if match := re.fullmatch(pattern, text):
            return [one for phrase in match.groups() for one in named(scene, phrase)]
    raise AssertionError(text)


def test_what_a_question_is_about() -> None:
    kinds: dict[str, Counter] = {}
    for scene, question in ASKED:
        expected = about(scene, question.text)
        assert sorted(map(id, question.things)) == sorted(map(id, expected)), question
        kinds.setdefault(question.type, Counter())[len(question.things)] += 1
    assert set(kinds["colour"]) == set(kinds["shape"]) == {1}
    assert set(kinds["where"]) == {1, 2}
    assert 0 in kinds["exists"]  # nothing to look at
    assert max(kinds["count"]) == 4

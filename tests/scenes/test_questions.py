"""Questions have one answer, checked by a reader of its own; yes and no are balanced."""

import random
import re
from collections import Counter

import pytest

from gazetell.scenes import Question, Scene, questions, sample_scene
from gazetell.scenes.world import COLOURS, SHAPES

SCENES = [sample_scene(random.Random(f"questions {index}")) for index in range(1500)]
ASKED = [(one, asked) for n, one in enumerate(SCENES) for asked in questions(one, 6, n)]
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


def read(scene: Scene, text: str) -> tuple[str, list]:
    """The answer and what the question is about, worked out from its words."""
    if match := re.fullmatch(r"is there an? (.+)\?", text):
        found = named(scene, match[1])
        return "yes" if found else "no", found
    if match := re.fullmatch(r"what (colour|shape) is the (.+)\?", text):
        one = the(scene, match[2])
        return getattr(one, match[1]), [one]
    if match := re.fullmatch(r"how many (.+) are there\?", text):
        found = named(scene, match[1])
        return str(len(found)), found
    if match := re.fullmatch(r"is the (.+) (?:on|at) the (left|top) or (?:on|at) the (.+)\?", text):
        one = the(scene, match[1])
        offset = (one.x if match[2] == "left" else one.y) - 0.5
        assert abs(offset) > 0.05, "the position is clear"
        return match[2] if offset < 0 else match[3], [one]
    if match := re.fullmatch(r"where is the (.+) seen from the (.+)\?", text):
        one, other = the(scene, match[1]), the(scene, match[2])
        across, down = one.x - other.x, one.y - other.y
        ways = ("left", "right", across) if abs(across) > abs(down) else ("above", "below", down)
        return ways[ways[2] > 0], [one, other]
    if match := re.fullmatch(r"are there more (.+) than (.+)\?", text):
        first, second = named(scene, match[1]), named(scene, match[2])
        assert len(first) != len(second), "a draw is not asked for"
        return "yes" if len(first) > len(second) else "no", first + second
    if match := re.fullmatch(r"is the (.+) larger than the (.+)\?", text):
        one, other = the(scene, match[1]), the(scene, match[2])
        assert not 0.7 < one.radius / other.radius < 1.4
        assert not re.search("large |small ", text)
        return "yes" if one.radius > other.radius else "no", [one, other]
    match = re.fullmatch(r"are the (.+) and the (.+) the same colour\?", text)
    assert match, text
    one, other = the(scene, match[1]), the(scene, match[2])
    assert one is not other
    return "yes" if one.colour == other.colour else "no", [one, other]


def test_every_answer_is_right_and_what_it_is_about() -> None:
    numbers: dict[str, set] = {}
    for scene, question in ASKED:
        answer, about = read(scene, question.text)
        assert answer == question.answer, (question, scene)
        assert sorted(map(id, question.things)) == sorted(map(id, about)), question
        numbers.setdefault(question.type, set()).add(len(about))
    assert numbers["colour"] == numbers["shape"] == {1}
    assert numbers["where"] == {1, 2}
    assert 0 in numbers["exists"]  # nothing to look at
    assert max(numbers["count"]) == 4


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
    sets = {"exists": {"yes", "no"}, "compare": {"yes", "no"}, "count": set("01234")}
    sets |= {"colour": set(COLOURS), "shape": set(SHAPES)}
    sets["where"] = {"left", "right", "top", "bottom", "above", "below"}
    for kind, expected in sets.items():
        counts = Counter(one.answer for _, one in ASKED if one.type == kind)
        assert set(counts) == expected
        assert max(counts.values()) / counts.total() <= 0.58
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

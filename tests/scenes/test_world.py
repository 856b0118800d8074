"""Scenes: sampling, splits, geometry, drawing and boxes."""

import math
import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetell.errors import DataError, UsageError
from gazetell.scenes import Scene, Thing, boxes, draw, sample_scene
from gazetell.scenes.world import COLOURS, SHAPES, at, between, holds

SCENES = [sample_scene(random.Random(f"world {index}")) for index in range(1500)]


def thing(x: float, y: float) -> Thing:
    return Thing("circle", "red", "small", x, y, 0.12, 0.0, (200, 30, 30))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"things": None}, "is not a scene"),
        ({"background": {"pattern": "plain"}}, "is not a scene"),
        ({"things": [{**vars(thing(0.5, 0.5)), "shape": "blob"}]}, "small red blob"),
    ],
)
def test_a_malformed_scene_is_refused(change: dict, told: str) -> None:
    with pytest.raises(DataError, match=told):
        Scene.from_dict({**SCENES[0].to_dict(), **change})


def test_sampling_options_are_checked() -> None:
    with pytest.raises(UsageError, match="split: expected train, val or test, found 'dev'"):
        sample_scene(random.Random(0), split="dev")
    with pytest.raises(UsageError, match="count: expected 1 to 4, found 5"):
        sample_scene(random.Random(0), count=5)
    assert {len(sample_scene(random.Random(i), count=3).things) for i in range(20)} == {3}


def test_splits_share_no_content_and_have_all_words() -> None:
    contents: dict[str, set] = {}
    for split in ("train", "val", "test"):
        scenes = [sample_scene(random.Random(f"{split} {i}"), split=split) for i in range(800)]
        contents[split] = {
            tuple(sorted((t.size, t.colour, t.shape, t.x < 0.5, t.y < 0.5) for t in scene.things))
            for scene in scenes
        }
        found = [one for scene in scenes for one in scene.things]
        assert {one.colour for one in found} == set(COLOURS)
        assert {one.shape for one in found} == set(SHAPES)
        assert {len(scene.things) for scene in scenes} == {1, 2, 3, 4}
    for one, other in combinations(contents.values(), 2):
        assert not one & other


def test_sampling_has_no_lean() -> None:
    things = [one for scene in SCENES for one in scene.things]
    for field, values in (("colour", COLOURS), ("shape", SHAPES)):
        counts = Counter(getattr(one, field) for one in things)
        assert max(counts.values()) < 1.35 * min(counts[value] for value in values)
    # The lone thing beside a pair is as often on its left as on its right.
    lone = [
        one.x < 0.5
        for scene in SCENES
        if len(scene.things) == 3
        for one in scene.things
        if Counter((each.colour, each.shape) for each in scene.things)[one.colour, one.shape] == 1
    ]
    assert 0.42 < sum(lone) / len(lone) < 0.58


def test_things_are_inside_apart_and_large_enough() -> None:
    for scene in SCENES:
        for index, one in enumerate(scene.things):
            for other in scene.things[:index]:
                apart = math.hypot(one.x - other.x, one.y - other.y) * 128
                assert apart >= (one.radius + other.radius) * 128 + 2.9
        for box in boxes(scene):
            assert 0 < box.x0 < box.x1 < 1
            assert 0 < box.y0 < box.y1 < 1
            assert min(box.x1 - box.x0, box.y1 - box.y0) * 128 >= 21
            # The centre of at least one cell of an 8 by 8 grid lies in the box.
            centres = [(cell + 0.5) / 8 for cell in range(8)]
            assert any(box.x0 <= centre <= box.x1 for centre in centres)
            assert any(box.y0 <= centre <= box.y1 for centre in centres)
    sizes = {
        size: [one.radius for scene in SCENES for one in scene.things if one.size == size]
        for size in ("small", "large")
    }
    assert min(sizes["large"]) > 1.4 * max(sizes["small"])


def test_boxes_fit_the_drawn_pixels() -> None:
    for scene in SCENES[:80]:
        whole = np.asarray(draw(scene)).astype(int)
        for index, box in enumerate(boxes(scene)):
            others = scene.things[:index] + scene.things[index + 1 :]
            without = np.asarray(draw(Scene(others, scene.background))).astype(int)
            rows, columns = np.nonzero(np.abs(whole - without).max(axis=2) > 12)
            drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            said = [128 * edge for edge in (box.x0, box.y0, box.x1, box.y1)]
            assert np.abs(np.subtract(drawn, said)).max() <= 2.0, (scene.things[index], drawn, said)


def test_a_thing_has_its_colour() -> None:
    scene = next(scene for scene in SCENES if scene.things[0].shape == "square")
    one = scene.things[0]
    for size in (128, 384):
        picture = np.asarray(draw(scene, size)).astype(int)
        assert picture.shape == (size, size, 3)
        middle = picture[int(one.y * size) - 2 :, int(one.x * size) - 2 :][:5, :5]
        assert np.abs(middle.mean(axis=(0, 1)) - one.rgb).max() < 6
    # The words of its box name it.
    sizes = ("large", "big") if one.size == "large" else ("small", "tiny")
    assert boxes(scene)[0].words == (one.colour, "square", "squares", *sizes)


place = st.floats(0.05, 0.95).map(lambda value: round(value, 4))
spots = st.builds(thing, place, place)
groups = st.lists(spots, min_size=1, max_size=3)
OPPOSITE = {"left": "right", "above": "below"}


@given(groups, groups)
@settings(max_examples=200, deadline=None)
def test_relations_are_opposites_and_exclude_each_other(first: list, second: list) -> None:
    for way, back in OPPOSITE.items():
        assert holds(way, first, second) == holds(back, second, first)
        assert not (holds(way, first, second) and holds(back, first, second))
    for way in ("left", "right", "above", "below"):
        if holds(way, first, second, clear=True):
            assert holds(way, first, second)
            # Clear: no relation along the other axis could be meant.
            others = ("above", "below") if way in ("left", "right") else ("left", "right")
            assert not any(holds(one, first, second, clear=True) for one in others)


@given(spots, spots)
@settings(max_examples=200, deadline=None)
def test_two_things_always_stand_in_some_relation(one: Thing, other: Thing) -> None:
    found = [way for way in ("left", "right", "above", "below") if holds(way, [one], [other])]
    assert len(found) <= 2
    assert found or (one.x, one.y) == (other.x, other.y)


@given(spots, spots, spots)
@settings(max_examples=200, deadline=None)
def test_between_is_by_the_angle(middle: Thing, one: Thing, other: Thing) -> None:
    assert between(middle, one, other) == between(middle, other, one)
    a = math.atan2(one.y - middle.y, one.x - middle.x)
    b = math.atan2(other.y - middle.y, other.x - middle.x)
    angle = abs(math.degrees(a - b))
    angle = min(angle, 360 - angle)
    known = all((each.x, each.y) != (middle.x, middle.y) for each in (one, other))
    if abs(angle - 120) > 1e-6:
        assert between(middle, one, other) == (known and angle > 120)


@pytest.mark.parametrize(
    ("name", "spot", "corner", "expected"),
    [
        ("left", (0.49, 0.9), False, True),
        ("left", (0.51, 0.9), False, False),
        ("top left", (0.45, 0.45), False, True),
        ("top left", (0.45, 0.45), True, False),
        ("top left", (0.41, 0.41), True, True),
        ("bottom right", (0.6, 0.4), False, False),
        ("middle", (0.6, 0.4), False, True),
        ("middle", (0.5, 0.63), False, False),
        ("bottom", (0.1, 0.55), False, True),
    ],
)
def test_places(name: str, spot: tuple, corner: bool, expected: bool) -> None:
    assert at(name, thing(*spot), corner=corner) is expected

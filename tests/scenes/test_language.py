"""Captions are true, and the judge knows true from false."""

import random
import re
from collections import Counter

import pytest

from gazetell.scenes import Background, Scene, Thing, captions, judge, sample_scene
from gazetell.scenes.world import BACKGROUNDS, COLOURS, SHAPES

SCENES = [sample_scene(random.Random(f"language {index}")) for index in range(1200)]
TOLD = [(scene, captions(scene, 5, index)) for index, scene in enumerate(SCENES)]
ALL = [(scene, caption) for scene, several in TOLD for caption in several]


def scene(*things: str, background: str = "plain") -> Scene:
    """A scene from texts such as ``large red circle 20 80`` (percent across, percent down)."""
    made = []
    for text in things:
        size, colour, shape, x, y = text.split()
        radius = 0.21 if size == "large" else 0.12
        made.append(Thing(shape, colour, size, int(x) / 100, int(y) / 100, radius, 0, (0, 0, 0)))
    return Scene(tuple(made), Background(background, (9, 9, 9), (9, 9, 9), 0, 0.1, 2, 0))


def test_every_caption_is_true_and_different() -> None:
    for index, (one, several) in enumerate(TOLD):
        assert len(set(several)) == 5
        for caption in several:
            verdict = judge(caption, one)
            assert verdict.true, (caption, verdict.reason, one)
        if index < 300:
            assert captions(one, 5, index) == several
            assert len(set(captions(one, 10, index))) == 10


def test_captions_are_plain_sentences_of_moderate_length() -> None:
    lengths = [len(caption.split()) for _, caption in ALL]
    assert min(lengths) >= 3
    assert max(lengths) <= 20
    assert 8 <= sum(lengths) / len(lengths) <= 12
    words = Counter(word for _, caption in ALL for word in caption.split())
    assert 50 <= len(words) <= 80
    for _, caption in ALL:
        assert re.fullmatch(r"[a-z]+( [a-z]+)*", caption)
        assert not re.search(r"\ban (?![aeiou])|\ba (?=[aeiou])", caption)
        assert not re.search(r"\b(is|a|an) (two|three|four)\b|\bare an? ", caption)


def test_all_kinds_of_statement_occur() -> None:
    text = "\n".join(caption for _, caption in ALL)
    for phrase in (
        "to the left of", "right of", "above", "below", "side by side",
        "one above the other", "on the left and", "at the top and", "in the middle",
        "corner", "background", "one large and two small", "four", "shapes", "including",
    ):  # fmt: skip
        assert phrase in text, phrase
    rare = (captions(sample_scene(random.Random(f"rare {i}"), count=3)) for i in range(2000))
    assert any("between" in caption for several in rare for caption in several)


TWO = scene("large red circle 25 50", "small blue square 75 45", background="striped")
PAIR = scene("small red ring 25 20", "small red ring 70 25", "large blue star 50 75")
APART = scene("small red ring 20 30", "small blue ring 80 75", "small pink star 50 50")
RINGS = "small red ring 20 50", "small blue ring 50 55"
MIX = scene(*RINGS, "large red star 80 45", "small pink cross 50 15")


@pytest.mark.parametrize(
    ("where", "caption", "reason"),
    [
        (TWO, "a red circle", None),
        (TWO, "the big circle is on the left and the tiny square is on the right", None),
        (TWO, "in the image there are two shapes", None),
        (TWO, "a circle and a blue object on a striped background", None),
        (TWO, "a red circle and a blue square side by side", None),
        (TWO, "one object that is red", "not understood: 'that is red'"),
        (TWO, "a large circle over a square", "not so: a large circle over a square"),
        (TWO, "a red circle to the right of a blue square", "to the right of a blue square"),
        (TWO, "a red circle and a red circle", "no choice of things"),
        (TWO, "a red square", "a red square: there is none"),
        (TWO, "circles", "circles: there is 1"),
        (TWO, "a small red circle", "there is none"),
        (TWO, "a red circle in the corner", "not understood: 'in the corner'"),
        (TWO, "a red red circle", "not understood"),
        (PAIR, "a large and a small red ring", "there is none"),
        (TWO, "two red circles", "two red circles: there is 1"),
        (TWO, "one shape", "one shape: there are 2"),
        (TWO, "a red circle on a plain background", "the background is striped, not plain"),
        (TWO, "a red circles", "not understood"),
        (TWO, "a red circle above", "not understood: 'above'"),
        (TWO, "a red circle and", "not understood: 'and'"),
        (TWO, "", "not understood: it ends too soon"),
        (TWO, "a dog on a striped background", "not understood: 'a dog on a'"),
        (PAIR, "two red rings above a blue star", None),
        (PAIR, "a red ring and a red ring", None),
        (PAIR, "a ring to the left of a ring", None),
        (PAIR, "three shapes and a ring", "no choice of things"),
        (PAIR, "the red ring", "the red ring: there are 2"),
        (PAIR, "two rings on the left", "not so: two rings on the left"),
        (PAIR, "two red rings one above the other", "not so"),
        (MIX, "a blue ring between a red ring and a red star", None),
        (MIX, "a red ring between a blue ring and a star", "not so: a red ring between"),
        (MIX, "one large and three small shapes", None),
        (MIX, "one large and two small shapes", "two small shapes: there are 3"),
        (MIX, "large and a small red object", None),
        (MIX, "four shapes where a red ring is on the left and a star is on the right", None),
        (MIX, "a red ring and a blue ring to the left of a star", None),
        # Each claim holds of one of the rings, but not both of the same.
        (MIX, "a ring on the left and a ring above a cross", "not so"),
        (MIX, "a ring to the left of a ring to the left of a star", None),
        (APART, "a ring on the left", None),
        (APART, "a ring below a star", None),
        (APART, "the ring on the left", "the ring: there are 2"),
        (APART, "a ring on the left below a star", "no choice of things fits all that is said tog"),
    ],
)  # fmt: skip
def test_verdicts(where: Scene, caption: str, reason: str | None) -> None:
    verdict = judge(caption, where)
    assert bool(verdict) is (reason is None), verdict
    assert (reason or "every claim holds") in verdict.reason
    assert "\n" not in verdict.reason


def swapped(caption: str, old: str, new: str) -> str:
    return re.sub(rf"\b{old}\b", new, caption)


def mirrored(caption: str, *pairs: tuple[str, str]) -> str:
    table = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    return " ".join(table.get(word, word) for word in caption.split())


def corruptions(one: Scene, caption: str) -> list[str]:
    """Captions that are surely false: each tells of something that is not so."""
    words = caption.split()
    false = []
    have = {thing.colour for thing in one.things}, {thing.shape for thing in one.things}
    for colour in have[0] & set(words):
        false += [swapped(caption, colour, other) for other in set(COLOURS) - have[0]]
    for shape in have[1]:
        for end in ("", "es" if shape == "cross" else "s"):
            if shape + end in words:
                ends = {new: "es" if end and new == "cross" else "s" * bool(end) for new in SHAPES}
                others = set(SHAPES) - have[1]
                false += [swapped(caption, shape + end, new + ends[new]) for new in others]
    numbers = ("two", "three", "four")
    for old in set(numbers) & set(words):
        false += [swapped(caption, old, new) for new in numbers if new != old]
    if "background" in words:
        pattern = one.background.pattern
        false += [swapped(caption, pattern, new) for new in BACKGROUNDS if new != pattern]
    kinds = Counter((thing.colour, thing.shape) for thing in one.things)
    if re.search(r"\b(of (a|an|the|two|three)|above|below|over|under) (?!other)", caption):
        if "of the picture" not in caption and "one above" not in caption:
            pairs = ("left", "right"), ("above", "below"), ("over", "under")
            false.append(mirrored(caption, *pairs))
    elif (
        max(kinds.values()) == 1
        and re.search(r"\b(on|at|in) the ", caption)
        and not re.search(r"middle|center", caption)
    ):
        sides = ("left", "right"), ("top", "bottom"), ("upper", "lower")
        false.append(mirrored(caption, *sides))
    if len(one.things) == 1:
        sizes = ("large", "small"), ("big", "tiny")
        false.append(mirrored(caption, *sizes))
        if not caption.startswith("the "):  # "the" may name one thing twice
            false.append(f"{caption} and {caption}")
    return [text for text in false if text != caption]


def test_the_judge_rejects_corrupted_captions() -> None:
    kinds: Counter[str] = Counter()
    for one, caption in ALL[::3]:
        for false in corruptions(one, caption):
            verdict = judge(false, one)
            assert not verdict, (caption, false, one)
            kinds[verdict.reason.split(":")[0].split()[-1]] += 1
    assert sum(kinds.values()) > 10_000


def test_the_judge_rejects_broken_sentences() -> None:
    rng = random.Random(3)
    for one, caption in ALL[::10]:
        words = caption.split()
        stray = rng.sample(["a", "of", "left", "is", "the"], 2)
        ends = [[*words, words[-1]], [*words, "and"], [*words[:-1], "dog"], words + stray]
        for broken in (*ends, ["and", *words]):
            assert judge(" ".join(broken), one).reason.startswith("not understood"), broken
    words = sorted({word for _, caption in ALL for word in caption.split()})
    for one in SCENES[:500]:
        text = " ".join(rng.choices(words, k=rng.randrange(1, 12)))
        assert isinstance(judge(text, one).true, bool)
    assert not judge("<unk> \x00 é 🙂", SCENES[0])

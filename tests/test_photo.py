"""The model in the box, on photographs that come with gazetell and on one that it cannot know."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from gazetell.inference.gaze import heat
from gazetell.inference.load import load

EXAMPLES = Path(str(files("gazetell") / "examples"))
GALAXIES = Path(__file__).parent / "pictures" / "hubble_deep_field.jpg"
# Left, top, right and bottom of the cat, as shares of the picture.
CAT = (0.18, 0.05, 0.85, 1.0)


@pytest.fixture(scope="module")
def photo():
    return load()


@pytest.mark.parametrize(
    ("name", "words"), [("chelsea", {"cat"}), ("coffee", {"cup", "coffee", "mug"})]
)
def test_a_photograph_is_told(photo, name, words):
    caption = photo.caption(EXAMPLES / f"{name}.jpg")
    assert words & set(caption.words)
    assert 0 <= caption.confidence <= 1


def test_the_gaze_of_the_cat_lies_on_the_cat(photo):
    caption = photo.caption(EXAMPLES / "chelsea.jpg")
    light = heat(caption.attention[caption.words.index("cat")], (100, 100), caption.view)
    row, column = np.unravel_index(light.argmax(), light.shape)
    left, top, right, bottom = CAT
    assert left <= (column + 0.5) / 100 <= right
    assert top <= (row + 0.5) / 100 <= bottom


def test_galaxies_are_not_sure(photo):
    assert photo.caption(GALAXIES).sure is False


def test_a_question_is_answered_from_the_same_encoding(photo):
    encoding = photo.encode(EXAMPLES / "chelsea.jpg")
    assert "cat" in photo.caption(encoding).words
    assert photo.ask(encoding, "Which animal is this?").text == "cat"

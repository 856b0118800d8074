import json
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gazetell.metrics import words
from gazetell.metrics.words import PUNCTUATION, split

GOLDEN = Path(__file__).parents[1] / "golden" / "captions_words.json"
NASTY = "abtIn'’.,:;!?-/&@#$%()<>[]\"_*+= 0159\t\u00a0é“”…½日😀"


def test_splits_as_the_java_tokeniser_does():
    cases = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert len(cases) > 700
    assert not [(text, words, split(text)) for text, words in cases if split(text) != words]


@pytest.mark.parametrize("text", ["", " ", ".", "...", " -- ", "\n\t", "''", "😀", "\u00a0"])
def test_text_without_words(text):
    assert split(text) == []


@given(st.one_of(st.text(), st.text(alphabet=NASTY)))
@example("a\u0301\U0001d400")
def test_words_are_lower_case_and_whole(text):
    for word in split(text):
        assert word
        assert word not in PUNCTUATION
        assert " " not in word
        assert "\n" not in word
        assert word == word.lower() or not word.isascii()


@given(st.text(alphabet="abcnotgmewI.,!? \n'"))
def test_the_short_cut_for_plain_words_changes_nothing(text):
    scanned: list[str] = []
    padded, at = text.replace("\n", " ") + "\n\n", 0
    while at < len(padded) - 2:
        at = words._scan(padded, at, scanned)
    assert split(text) == scanned


@pytest.mark.parametrize("piece", ["b,", "a.", "&a", "w.&", "a-", "a/", "((", "''", "<a "])
def test_long_text_without_blanks_takes_no_time(piece):
    start = time.process_time()  # that of others on a busy machine is not counted
    split(piece * 10_000)
    assert time.process_time() - start < 5

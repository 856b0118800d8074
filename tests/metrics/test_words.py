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
    wrong = [(text, words, split(text)) for text, words in cases if split(text) != words]
    assert not wrong


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A man doesn't run.", "a man does n't run"),
        ("It's the dogs' bowl, isn't it?", "it 's the dogs bowl is n't it"),
        ("You cannot be gonna go", "you can not be gon na go"),
        ("Mr. Smith in the U.S. at 5 p.m.", "mr. smith in the u.s. at 5 p.m."),
        ("the end.", "the end"),
        ("no. 5, but no.", "no. 5 but no"),
        ('He said: "why -- me?"', "he said why me"),
        ("(a dog) [b]", "-lrb- a dog -rrb- -lsb- b -rsb-"),
        ("a black-and-white T-shirt", "a black-and-white t-shirt"),
        ("cat/dog w/o $5 & 50%", "cat/dog w/o $ 5 & 50 %"),
        ("rock 'n' roll o'clock y'all", "rock 'n' roll o'clock y' all"),
        ("AT&T at&t", "at&t at & t"),
        ("mail me@foo.com, see http://a.b/c.", "mail me@foo.com, see http://a.b/c"),
        ("a <unk> <b>", "a <unk> <b>"),
        ("10:30am 1,000 -1.5", "10:30 am 1,000 -1.5"),
        ("what?! no!!", "what ?! no !!"),
        ("It’s “quoted”…", "it 's quoted"),
        ("a😀b", "a b"),
        ("call 415 555 1234 now", "call 415\u00a0555\u00a01234 now"),
        ("a dog\nruns\r\nfast", "a dog runs fast"),
    ],
)
def test_examples(text, expected):
    assert split(text) == expected.split(" ")


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


@given(st.lists(st.from_regex(r"[b-df-hj-np-tv-z]{3,9}", fullmatch=True), max_size=8))
def test_plain_words_come_back(plain):
    assert split(" ".join(plain)) == plain
    assert split(" ".join(word.capitalize() for word in plain) + " .") == plain


@pytest.mark.parametrize("piece", ["b,", "a.", "&a", "w.&", "a-", "a/", "((", "''", "<a "])
def test_long_text_without_blanks_takes_no_time(piece):
    start = time.perf_counter()
    split(piece * 10_000)
    assert time.perf_counter() - start < 5

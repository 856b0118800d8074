"""WUPS with a small taxonomy, by hand from its formula."""

import sys
from types import SimpleNamespace

import pytest

from gazetell.metrics import score_wups
from gazetell.metrics.answers import wordnet_similarity, wups

# thing > furniture > seat > (chair > armchair, sofa), furniture > table, thing > wall
PARENT = {
    "furniture": "thing",
    "wall": "thing",
    "seat": "furniture",
    "table": "furniture",
    "chair": "seat",
    "sofa": "seat",
    "armchair": "chair",
}


def line(word):
    """From a word up to the root."""
    found = [word]
    while found[-1] in PARENT:
        found.append(PARENT[found[-1]])
    return found


def wu_palmer(one, other):
    """2 depth(common ancestor) / (depth(one) + depth(other)), the root at depth 1."""
    first, second = line(one), line(other)
    if first[-1] != second[-1]:
        return 0.0
    common = next(word for word in first if word in second)
    return 2 * len(line(common)) / (len(first) + len(second))


NEAR = 2 * 4 / (4 + 5)  # chair (depth 4) and armchair (5)
SEATS = 2 * 3 / (4 + 4)  # chair and sofa under seat (3)
ROOM = 2 * 2 / (4 + 3)  # chair and table under furniture (2)


@pytest.mark.parametrize(
    ("right", "answer", "threshold", "expected"),
    [
        ("chair", "chair", 0.9, 1.0),
        ("a Chair!", "chair", 0.9, 1.0),
        ("chair", "armchair", 0.0, NEAR),
        ("chair", "armchair", 0.9, 0.1 * NEAR),
        ("chair", "armchair", NEAR, NEAR),
        ("chair", "sofa", 0.7, SEATS),
        ("chair", "zebra", 0.0, 0.0),
        ("chair, table", "table, chair", 0.9, 1.0),
        ("chair, chair", "chair", 0.9, 1.0),
        # {chair} against {chair, table}: all given are right, table's nearest is chair.
        ("chair, table", "chair", 0.0, min(1.0, 1.0 * ROOM)),
        ("chair", "chair, table", 0.9, min(1.0 * 0.1 * ROOM, 1.0)),
        # {sofa, table} against {chair, wall}: wall's nearest is table, under thing.
        ("chair, wall", "sofa, table", 0.0, min(SEATS * ROOM, SEATS * (2 * 1 / (3 + 2)))),
        ("chair", "", 0.0, 0.0),
        ("chair", "the", 0.0, 0.0),
        # A vocabulary of normalised answers has lost the comma.
        ("chair, table", "chair table", 0.9, 1.0),
    ],
)
def test_the_formula(right, answer, threshold, expected):
    assert wups([right], answer, threshold, wu_palmer) == pytest.approx(expected, abs=1e-12)


def test_several_right_answers_give_their_mean():
    found = wups(["chair", "sofa", "wall"], "chair", 0.7, wu_palmer)
    assert found == pytest.approx((1 + SEATS + 0.1 * 2 / (4 + 2)) / 3)
    with pytest.raises(ValueError, match="no answers"):
        wups([], "chair", 0.7, wu_palmer)


def test_score_wups():
    references = {"1": ["chair"], "2": ["table"], "3": ["sofa"]}
    predictions = {"3": "sofa", "2": "table", "1": "armchair"}
    found = score_wups(references, predictions, similarity=wu_palmer)
    assert found.reason is None
    assert found.scores == {
        0.9: round(100 * (0.1 * NEAR + 2) / 3, 2),
        0.0: round(100 * (NEAR + 2) / 3, 2),
    }
    with pytest.raises(ValueError, match="no questions"):
        score_wups({}, {}, similarity=wu_palmer)


class Meaning:
    """A meaning of a word, as WordNet's: it may have no ancestor in common with another."""

    def __init__(self, word):
        self.word = word

    def wup_similarity(self, other):
        return wu_palmer(self.word, other.word) or None


def stand_in(monkeypatch, ensure_loaded):
    def synsets(word, pos):
        assert pos == "n"
        return [Meaning(one) for one in meanings.get(word, [])]

    meanings = {"bank": ["wall", "seat"], "chair": ["chair"], "arm_chair": ["armchair"], "x": ["x"]}
    wordnet = SimpleNamespace(NOUN="n", synsets=synsets, ensure_loaded=ensure_loaded)
    monkeypatch.setitem(sys.modules, "nltk", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "nltk.corpus", SimpleNamespace(wordnet=wordnet))


def test_the_nearest_meanings_count(monkeypatch):
    stand_in(monkeypatch, lambda: None)
    similarity = wordnet_similarity()
    assert similarity("bank", "chair") == pytest.approx(2 * 3 / (3 + 4))
    assert similarity("arm chair", "chair") == pytest.approx(NEAR)
    assert similarity("bank", "unheard of") == 0
    assert similarity("x", "chair") == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LookupError("\n****\nResource wordnet not found."), "python -m nltk.downloader wordnet"),
        (OSError("No such file: index.sense"), "WordNet cannot be read (No such file"),
        (None, "pip install 'gazetell[wups]'"),  # nltk is not there
    ],
)
def test_not_computed_is_none_with_a_reason(monkeypatch, error, reason):
    def missing():
        raise error

    stand_in(monkeypatch, missing)
    if error is None:
        monkeypatch.setitem(sys.modules, "nltk.corpus", None)
    found = score_wups({"1": ["x"]}, {"1": "y"})
    assert found.scores == {0.9: None, 0.0: None}
    assert reason in found.reason
    assert len(found.reason.splitlines()) == 1

"""WUPS with a small taxonomy, by hand from its formula."""

from pathlib import Path

import pytest

from gazetell.metrics import score_wups
from gazetell.metrics.answers import WORDNETS, wordnet_similarity, wups

# thing > furniture > seat > (chair > armchair, sofa), furniture > table, thing > wall
PARENT = {"furniture": "thing", "wall": "thing", "seat": "furniture", "table": "furniture"}
PARENT |= {"chair": "seat", "sofa": "seat", "armchair": "chair"}


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
    strict, loose = (round(100 * (share * NEAR + 2) / 3, 2) for share in (0.1, 1))
    assert found.scores == {0.9: strict, 0.0: loose}
    with pytest.raises(ValueError, match="no questions"):
        score_wups({}, {}, similarity=wu_palmer)


# A word, its meanings by the number of the line of each, and the lines: words, and of what the
# meaning is a kind (or, for a city, an instance).
LINES = [
    (["entity"], []),
    (["thing"], [0]),
    (["furniture"], [1]),
    (["seat"], [2]),
    (["chair"], [3]),
    (["armchair", "arm_chair"], [4]),
    (["table"], [2]),
    (["wall"], [1]),
    (["bank", "wall"], [1]),
    (["bank"], [3]),
    (["london"], [1]),
    (["dog", "domestic_dog"], [12, 13]),
    (["canine"], [1]),
    (["pet"], [14]),
    (["animal"], [1]),
    (["cat"], [14]),
    (["knife"], [1]),
    (["ghost"], []),
]


@pytest.fixture
def nouns(tmp_path, monkeypatch):
    """WordNet's files with a few nouns, in the folder that the program looks in."""
    licence, width = "  1 This software and database is ours.  \n", 120
    places = [f"{len(licence) + width * number:08d}" for number in range(len(LINES))]
    data, meanings = licence, {}
    for place, (words, above) in zip(places, LINES, strict=True):
        sign = "@i" if words == ["london"] else "@"
        pointers = [*(f"{sign} {places[one]} n 0000" for one in above), "~ 00000000 n 0000"]
        named = " ".join(f"{word} 0" for word in words)
        line = f"{place} 06 n {len(words):02x} {named} {len(pointers):03d} {' '.join(pointers)}"
        data += f"{line} | what it is".ljust(width - 1) + "\n"
        for word in words:
            meanings.setdefault(word, []).append(place)
    index = "".join(
        f"{word} n {len(found)} 2 @ ~ {len(found)} 1 {' '.join(found)}  \n"
        for word, found in meanings.items()
    )
    (tmp_path / "data.noun").write_text(data)
    (tmp_path / "index.noun").write_text(licence + index)
    (tmp_path / "noun.exc").write_text("knives knife\nmanservants manservant\n")
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("chair", "table", 2 * 3 / (5 + 4)),
        ("chair", "chairs", 1.0),
        ("Chair", "arm chair", 2 * 5 / (5 + 6)),
        # The nearest two meanings: a bank is a seat, too.
        ("bank", "chair", 2 * 4 / (5 + 5)),
        ("bank", "walls", 1.0),
        ("london", "wall", 2 * 2 / (3 + 3)),
        ("knives", "knife", 1.0),
        # A dog is a canine as well as a pet, and only the pet is an animal, as the cat is.
        ("dog", "cat", 2 * 3 / (5 + 4)),
        ("chair", "ghost", 0.0),
        ("chair", "unheard of", 0.0),
    ],
)
def test_the_nearness_of_nouns(nouns, one, other, expected):
    similarity = wordnet_similarity()
    assert similarity(one, other) == pytest.approx(expected, abs=1e-12)
    assert similarity(other, one) == pytest.approx(expected, abs=1e-12)
    found = score_wups({"1": [one]}, {"1": other}, thresholds=[0.0])
    assert found.scores == {0.0: round(100 * expected, 2)}


@pytest.mark.skipif(not Path(WORDNETS[0]).is_dir(), reason="Debian's wordnet-base is not there")
def test_whole_wordnet():
    """As nltk 3.9 gives them: ``Synset.wup_similarity`` of the nearest two meanings."""
    similarity = wordnet_similarity()
    expected = {("dog", "cat"): 0.857143, ("chair", "table"): 0.842105, ("sofas", "couch"): 1.0}
    assert {pair: similarity(*pair) for pair in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("lost", "reason"),
    [("index.noun", "WordNet is not there (no index.noun in "), ("data.noun", "cannot be read (")],
)
def test_not_computed_is_none_with_a_reason(nouns, lost, reason):
    (nouns / lost).unlink()
    found = score_wups({"1": ["x"]}, {"1": "y"})
    assert found.scores == {0.9: None, 0.0: None}
    assert reason in found.reason
    assert len(found.reason.splitlines()) == 1

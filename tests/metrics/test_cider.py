import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gazetell.metrics import CiderD, cider_d

TEXT = st.lists(st.sampled_from("abcd"), max_size=7)
TEXTS = st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=4)), min_size=1, max_size=5)


def grams(tokens, n):
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def naive(candidate, texts, references, plain=False):
    """CIDEr-D of one candidate from the formula, n-gram by n-gram."""
    total = 0.0
    for n in range(1, 5):
        frequency = Counter(
            gram for each in references for gram in {g for text in each for g in grams(text, n)}
        )

        def weigh(text, n=n, frequency=frequency):
            pictures = len(references)
            return {
                gram: count * math.log(pictures / max(1, frequency[gram]))
                for gram, count in grams(text, n).items()
            }

        mine = weigh(candidate)
        for text in texts:
            theirs = weigh(text)
            norm = math.hypot(*mine.values()) * math.hypot(*theirs.values())
            if not norm:
                continue
            shared = mine.keys() & theirs.keys()
            if plain:
                total += sum(mine[g] * theirs[g] for g in shared) / norm
            else:
                apart = max(0, len(candidate) - 1) - max(0, len(text) - 1)
                clipped = sum(min(mine[g], theirs[g]) * theirs[g] for g in shared)
                total += clipped / norm * math.exp(-(apart**2) / 72)
    return 10 * total / 4 / len(texts)


@given(TEXTS, st.booleans())
def test_it_is_its_formula(pictures, plain):
    candidates, references = zip(*pictures, strict=True)
    score, each = cider_d(candidates, references, plain=plain)
    expected = [naive(*picture, references, plain) for picture in pictures]
    np.testing.assert_allclose(each, expected, atol=1e-9)
    assert score == pytest.approx(sum(expected) / len(expected))


@given(TEXTS, st.lists(st.tuples(TEXT, st.integers(0, 4)), max_size=8))
def test_any_candidates_for_any_pictures(pictures, asked):
    references = [texts for _, texts in pictures]
    candidates = [candidate for candidate, _ in asked]
    indices = [index % len(references) for _, index in asked]
    scores = CiderD(references).score(candidates, indices)
    expected = [
        naive(candidate, references[i], references)
        for candidate, i in zip(candidates, indices, strict=True)
    ]
    np.testing.assert_allclose(scores, expected, atol=1e-9)


@given(TEXTS)
def test_token_ids_score_as_words(pictures):
    def number(text):
        return ["dbca".index(token) * 1_000_003 for token in text]

    candidates, references = zip(*pictures, strict=True)
    words = cider_d(candidates, references)[1]
    ids = cider_d(
        [number(text) for text in candidates],
        [[number(text) for text in texts] for texts in references],
    )[1]
    np.testing.assert_allclose(ids, words, atol=1e-9)


@given(TEXTS, st.randoms(use_true_random=False))
def test_order_does_not_matter(pictures, rng):
    shuffled = [(candidate, rng.sample(texts, len(texts))) for candidate, texts in pictures]
    rng.shuffle(shuffled)
    first, second = (cider_d(*zip(*p, strict=True))[0] for p in (pictures, shuffled))
    assert first == pytest.approx(second)


def test_a_repeated_reference_scores_ten():
    texts = [["a", "brown", "dog", "runs", "fast"], ["two", "cats", "sleep", "all", "day"]]
    score, each = cider_d(texts, [[text] for text in texts])
    assert each == pytest.approx([10, 10])
    assert score == pytest.approx(10)


def test_repetition_pays_only_without_clipping():
    references = [[["a", "dog"]], [["a", "cat"]]]
    repeated = [["dog"] * 6, ["a", "cat"]]
    clipped = cider_d(repeated, references)[1][0]
    plain = cider_d(repeated, references, plain=True)[1][0]
    assert plain > 2 * clipped > 0


def test_what_scores_nothing():
    assert cider_d([["a", "dog"]], [[["a", "dog"]]])[0] == 0  # one picture: no weights
    references = [[["a", "dog"]], [["a", "cat"]]]
    assert cider_d([[], ["x", "y"]], references)[1].tolist() == [0, 0]
    assert cider_d([[], []], [[[]], [[]]])[1].tolist() == [0, 0]


def test_misuse():
    with pytest.raises(ValueError, match="no pictures"):
        CiderD([])
    with pytest.raises(ValueError, match="picture 1 has no references"):
        CiderD([[["a"]], []])
    with pytest.raises(ValueError, match="1 candidates"):
        cider_d([["a"]], [[["a"]], [["b"]]])
    scorer = CiderD([[["a"]], [["b"]]])
    with pytest.raises(ValueError, match=r"indices must be in 0\.\.1, found 0\.\.2"):
        scorer.score([["a"], ["b"]], [0, 2])
    with pytest.raises(ValueError, match="2 candidates, but 1 indices"):
        scorer.score([["a"], ["b"]], [0])
    assert scorer.score([]).shape == (0,)


def test_equal_to_pycocoevalcap_on_random_captions():
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.cider.cider import Cider

    rng = random.Random(2)
    for _ in range(1000):
        vocabulary = [f"w{i}" for i in range(rng.choice([2, 5, 30]))]
        pictures = rng.randint(1, 5)
        candidates = [rng.choices(vocabulary, k=rng.choice([0, 1, 3, 9])) for _ in range(pictures)]
        references = [
            [rng.choices(vocabulary, k=rng.choice([0, 1, 4, 9])) for _ in range(rng.randint(1, 5))]
            for _ in range(pictures)
        ]
        references[0].append(["w0"])  # pycocoevalcap fails where no reference has a word
        gts = {i: [" ".join(text) for text in texts] for i, texts in enumerate(references)}
        res = {i: [" ".join(text)] for i, text in enumerate(candidates)}
        theirs, each = Cider().compute_score(gts, res)
        score, own = cider_d(candidates, references)
        assert score == pytest.approx(theirs, abs=1e-9)
        np.testing.assert_allclose(own, each, rtol=0, atol=1e-9)

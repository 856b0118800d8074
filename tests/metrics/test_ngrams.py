"""BLEU, ROUGE-L and CIDEr against their definitions and against pycocoevalcap."""

import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gazetell.metrics import CiderD, bleu, cider_d, rouge_l

TEXT = st.lists(st.sampled_from("abcd"), max_size=8)
TEXTS = st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=4)), min_size=1, max_size=5)


def grams(tokens, n):
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def naive_bleu(candidates, references):
    """BLEU of the set from its definition, on plain Python numbers."""
    length = sum(map(len, candidates))
    nearest = sum(
        min((abs(len(text) - len(candidate)), len(text)) for text in texts)[1]
        for candidate, texts in zip(candidates, references, strict=True)
    )
    scores, product = [], 1.0
    for n in range(1, 5):
        correct = guessed = 0
        for candidate, texts in zip(candidates, references, strict=True):
            for gram, count in grams(candidate, n).items():
                guessed += count
                correct += min(count, max(grams(text, n)[gram] for text in texts))
        product *= (correct + 1e-15) / (guessed + 1e-9)
        scores.append(product ** (1 / n))
    ratio = (length + 1e-15) / (nearest + 1e-9)
    return [score * math.exp(1 - 1 / ratio) if ratio < 1 else score for score in scores]


def naive_common(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
            )
    return table[-1][-1]


def naive_rouge(candidate, texts):
    candidate = candidate or [""]
    common = [(naive_common(candidate, text or [""]), len(text or [""])) for text in texts]
    precision = max(same / len(candidate) for same, _ in common)
    recall = max(same / size for same, size in common)
    if not precision or not recall:
        return 0.0
    return (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)


@given(TEXTS)
def test_bleu_is_its_definition(pictures):
    candidates, references = zip(*pictures, strict=True)
    scores, each = bleu(candidates, references)
    np.testing.assert_allclose(scores, naive_bleu(candidates, references), rtol=1e-9, atol=1e-12)
    for i, (candidate, texts) in enumerate(pictures):
        alone = naive_bleu([candidate], [texts])
        np.testing.assert_allclose(each[:, i], alone, rtol=1e-9, atol=1e-12)


@given(TEXTS)
def test_rouge_is_its_definition(pictures):
    candidates, references = zip(*pictures, strict=True)
    score, each = rouge_l(candidates, references)
    expected = [naive_rouge(*picture) for picture in pictures]
    np.testing.assert_allclose(each, expected, atol=1e-12)
    assert score == pytest.approx(sum(expected) / len(expected))


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=40))
def test_rouge_of_long_texts(a, b):
    assert rouge_l([a], [[b]])[0] == pytest.approx(naive_rouge(a, [b]))


def test_empty_candidates():
    scores, each = bleu([[], ["a"]], [[["a", "b"]], [["a"]]])
    assert each[:, 0].max() == 0
    assert 0 < scores[0] < 1
    assert rouge_l([[]], [[["a"]]])[0] == 0
    assert rouge_l([[]], [[[]]])[0] == 1  # as pycocoevalcap has it


@pytest.mark.parametrize("metric", [bleu, rouge_l, cider_d])
@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        ([], [], "no pictures"),
        ([["a"]], [], "1 candidates"),
        ([["a"]], [[]], "picture 0 has no references"),
    ],
)
def test_misuse(metric, candidates, references, message):
    with pytest.raises(ValueError, match=message):
        metric(candidates, references)


def test_equal_to_pycocoevalcap_on_random_captions():
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    rng = random.Random(1)
    for _ in range(1000):
        vocabulary = [f"w{i}" for i in range(rng.choice([2, 5, 30]))]
        pictures = rng.randint(1, 5)
        candidates = [rng.choices(vocabulary, k=rng.choice([0, 1, 3, 9])) for _ in range(pictures)]
        references = [
            [rng.choices(vocabulary, k=rng.choice([0, 1, 4, 9])) for _ in range(rng.randint(1, 5))]
            for _ in range(pictures)
        ]
        references[0].append(["w0"])  # its CIDEr fails where no reference has a word
        gts = {i: [" ".join(text) for text in texts] for i, texts in enumerate(references)}
        res = {i: [" ".join(text)] for i, text in enumerate(candidates)}
        theirs, each = Bleu(4).compute_score(gts, res, verbose=0)
        scores, own = bleu(candidates, references)
        np.testing.assert_allclose(scores, theirs, rtol=0, atol=1e-9)
        np.testing.assert_allclose(own, each, rtol=0, atol=1e-9)
        for official, metric in ((Rouge, rouge_l), (Cider, cider_d)):
            theirs, each = official().compute_score(gts, res)
            score, own = metric(candidates, references)
            assert score == pytest.approx(theirs, abs=1e-9)
            np.testing.assert_allclose(own, each, rtol=0, atol=1e-9)


def naive_cider(candidate, texts, references, plain=False):
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
def test_cider_is_its_formula(pictures, plain):
    candidates, references = zip(*pictures, strict=True)
    score, each = cider_d(candidates, references, plain=plain)
    expected = [naive_cider(*picture, references, plain) for picture in pictures]
    np.testing.assert_allclose(each, expected, atol=1e-9)
    assert score == pytest.approx(sum(expected) / len(expected))


@given(TEXTS, st.lists(st.tuples(TEXT, st.integers(0, 4)), max_size=8))
def test_cider_of_any_candidates_for_any_pictures(pictures, asked):
    references = [texts for _, texts in pictures]
    candidates = [candidate for candidate, _ in asked]
    indices = [index % len(references) for _, index in asked]
    scores = CiderD(references).score(candidates, indices)
    expected = [
        naive_cider(candidate, references[i], references)
        for candidate, i in zip(candidates, indices, strict=True)
    ]
    np.testing.assert_allclose(scores, expected, atol=1e-9)


@given(TEXTS, TEXTS)
def test_cider_with_the_document_frequencies_of_other_pictures(pictures, others):
    candidates, references = zip(*pictures, strict=True)
    corpus = [texts for _, texts in others]
    scores = CiderD(references, corpus=corpus).score(candidates)
    expected = [naive_cider(*picture, corpus) for picture in pictures]
    np.testing.assert_allclose(scores, expected, atol=1e-9)
    same = CiderD(references, corpus=references).score(candidates)
    np.testing.assert_allclose(same, CiderD(references).score(candidates), atol=1e-12)


@given(TEXTS)
def test_cider_of_each_reference_against_the_others(pictures):
    references = [texts for _, texts in pictures]
    expected = [
        naive_cider(text, others, references) if others else math.nan
        for texts in references
        for n, text in enumerate(texts)
        for others in [texts[:n] + texts[n + 1 :]]
    ]
    np.testing.assert_allclose(CiderD(references).people(references), expected, atol=1e-9)


@given(TEXTS)
def test_cider_of_token_ids_is_that_of_words(pictures):
    def number(text):
        return ["dbca".index(token) * 1_000_003 for token in text]

    candidates, references = zip(*pictures, strict=True)
    words = cider_d(candidates, references)[1]
    ids = cider_d(
        [number(text) for text in candidates],
        [[number(text) for text in texts] for texts in references],
    )[1]
    np.testing.assert_allclose(ids, words, atol=1e-9)


def test_what_cider_gives_nothing():
    assert cider_d([["a", "dog"]], [[["a", "dog"]]])[0] == 0  # one picture: no weights
    references = [[["a", "dog"]], [["a", "cat"]]]
    assert cider_d([[], ["x", "y"]], references)[1].tolist() == [0, 0]
    assert cider_d([[], []], [[[]], [[]]])[1].tolist() == [0, 0]


def test_misuse_of_cider():
    with pytest.raises(ValueError, match="picture 1 has no references"):
        CiderD([[["a"]], []])
    scorer = CiderD([[["a"]], [["b"]]])
    with pytest.raises(ValueError, match=r"indices must be in 0\.\.1, found 0\.\.2"):
        scorer.score([["a"], ["b"]], [0, 2])
    with pytest.raises(ValueError, match="2 candidates, but 1 indices"):
        scorer.score([["a"], ["b"]], [0])
    assert scorer.score([]).shape == (0,)

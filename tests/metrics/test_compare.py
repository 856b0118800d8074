"""The paired bootstrap against a naive one, and what must hold of it by construction."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gazetell.metrics import (
    Difference,
    bleu,
    caption_scores,
    compare_captions,
    rouge_l,
    score_captions,
    split,
)

METRICS = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"]
GOLDEN = Path(__file__).parents[1] / "golden" / "captions_scores.json"
GOLDEN_CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))
CASES = [case for case in GOLDEN_CASES if len(case["predictions"]) > 1]
VOCABULARY = [f"word{letter}" for letter in "abcdefghijklmnop"]


def world(pictures, seed=0):
    """References of random words, and two captioners that copy one with some words wrong."""
    rng = random.Random(seed)

    def noisy(text, share):
        words = [rng.choice(VOCABULARY) if rng.random() < share else w for w in text.split()]
        return " ".join(words[: rng.randint(5, 9)])

    references = {
        f"p{i}": [" ".join(rng.choices(VOCABULARY, k=rng.randint(6, 9))) for _ in range(3)]
        for i in range(pictures)
    }
    better = {i: noisy(texts[0], 0.3) for i, texts in references.items()}
    worse = {i: noisy(texts[1], 0.5) for i, texts in references.items()}
    return references, better, worse


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_scores_are_those_of_score_captions(case):
    references, first = case["references"], case["predictions"]
    second = dict(zip(first, reversed(first.values()), strict=True))
    found = compare_captions(references, first, second, resamples=10)
    assert list(found) == METRICS
    ones, twos = score_captions(references, first), score_captions(references, second)
    for name, one in found.items():
        assert one.first == pytest.approx(ones[name], abs=1e-12), name
        assert one.second == pytest.approx(twos[name], abs=1e-12), name
        assert one.difference == one.first - one.second


def test_equal_captions_do_not_differ():
    references, first, _ = world(9)
    turned = dict(reversed(first.items()))
    for one in compare_captions(references, first, turned, resamples=50).values():
        assert one == Difference(one.first, one.first, 0.0, 0.0, 0.0, False)
        assert one.first > 0


def naive(references, first, second, resamples, seed):
    """Differences of all metrics, (resamples, 6): every draw scored as a set of its own."""
    rng = np.random.default_rng(seed)
    names = list(references)
    texts = [[split(text) for text in references[name]] for name in names]
    words = [[split(captions[name]) for name in names] for captions in (first, second)]
    # Document frequencies of all references, so each picture's score is what it is.
    ciders = [caption_scores(references, captions) for captions in (first, second)]
    found = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(names), len(names)).tolist()
        scores = []
        for own, cider in zip(words, ciders, strict=True):
            candidates, wanted = [own[i] for i in drawn], [texts[i] for i in drawn]
            scores.append([
                *bleu(candidates, wanted)[0],
                rouge_l(candidates, wanted)[0],
                sum(cider[names[i]] for i in drawn) / len(drawn),
            ])  # fmt: skip
        found.append(np.subtract(*scores))
    return np.array(found)


def test_it_agrees_with_a_naive_bootstrap():
    references, first, second = world(8, seed=3)
    found = compare_captions(references, first, second, resamples=4000, seed=1)
    slow = naive(references, first, second, 700, seed=2)
    low, high = np.percentile(slow, [2.5, 97.5], axis=0)
    for place, name in enumerate(METRICS):
        tolerance = 0.1 * (high[place] - low[place])
        assert found[name].low == pytest.approx(low[place], abs=tolerance), name
        assert found[name].high == pytest.approx(high[place], abs=tolerance), name


def test_the_interval_covers_a_known_difference():
    # ROUGE-L is 1 where a caption is right and 0 where it is wrong, so the true difference is
    # that of two probabilities.
    rng = random.Random(0)
    references = {str(i): ["dog"] for i in range(60)}
    covered = 0
    for seed in range(150):
        first = {i: "dog" if rng.random() < 0.7 else "cat" for i in references}
        second = {i: "dog" if rng.random() < 0.5 else "cat" for i in references}
        one = compare_captions(references, first, second, resamples=300, seed=seed)["rouge_l"]
        covered += one.low <= 0.2 <= one.high
    assert 0.88 <= covered / 150 <= 0.99


def test_pairs_are_kept():
    """A small advantage on every picture shows, however much the pictures themselves differ."""
    references, _, _ = world(40)
    first = {i: texts[0] for i, texts in references.items()}
    # Half of the pictures are told right by both, half wrong by both but for one word.
    for number, picture in enumerate(first):
        if number % 2:
            first[picture] = f"zebra quagga okapi {references[picture][0].split()[0]}"
    second = {i: f"{text} umbrella" for i, text in first.items()}
    one = compare_captions(references, first, second)["rouge_l"]
    assert one.significant
    assert 0 < one.low < one.difference < one.high
    # Drawn apart, the two would not be told apart.
    texts = [[split(text) for text in group] for group in references.values()]
    apart = [
        rouge_l([split(text) for text in captions.values()], texts)[1].var() / len(texts)
        for captions in (first, second)
    ]
    assert one.difference < 1.96 * sum(apart) ** 0.5


def test_a_wider_level_and_another_seed():
    references, first, second = world(20)
    usual = compare_captions(references, first, second)["cider"]
    assert usual == compare_captions(references, first, second)["cider"]
    assert usual != compare_captions(references, first, second, seed=1)["cider"]
    wide = compare_captions(references, first, second, level=0.99)["cider"]
    assert wide.low < usual.low < usual.high < wide.high
    # The order of pictures in the predictions does not matter.
    turned = (dict(reversed(captions.items())) for captions in (first, second))
    assert compare_captions(references, *turned)["cider"] == usual


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resamples": 0}, "resamples is 0"),
        ({"level": 1.0}, "level is 1.0"),
        ({"first": {"1": "a"}}, "picture '2' has no prediction"),
        ({"second": {"1": "a", "2": "b", "3": "c"}}, "picture '3' has no reference"),
        ({"references": {"1": ["a"], "2": []}}, "picture '2' has no references"),
    ],
)
def test_misuse(options, message):
    given = {"references": {"1": ["a"], "2": ["b"]}, "first": {"1": "a", "2": "b"}}
    given |= {"second": {"1": "b", "2": "b"}} | options
    with pytest.raises(ValueError, match=message):
        compare_captions(**given)
    with pytest.raises(ValueError, match="expected at least two"):
        compare_captions({"1": ["a"]}, {"1": "a"}, {"1": "b"})


def test_scipy_is_imported_when_it_is_needed():
    code = "import sys, gazetell.metrics; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_trace_of_smoothing_is_no_difference():
    """Captions without a common 4-gram have a BLEU-4 above 0 all the same."""
    references = {
        str(n): [f"a {word} runs here now"] for n, word in enumerate(("dog", "cat", "cow"))
    }
    near = {name: " ".join([*text.split()[:3], "by", "it"]) for name, (text,) in references.items()}
    found = compare_captions(references, near, dict.fromkeys(references, "two men"))
    assert found["bleu_4"].low > 0.00001
    assert not found["bleu_4"].significant
    assert found["bleu_1"].significant

import json
from pathlib import Path

import pytest

from gazetell.metrics import METRICS, caption_scores, cider_problem, score_captions

GOLDEN = Path(__file__).parents[1] / "golden" / "captions_scores.json"
CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_equal_to_the_official_evaluation(case):
    scores = score_captions(case["references"], case["predictions"])
    assert list(scores) == list(METRICS)
    for name, expected in case["scores"].items():
        assert scores[name] == pytest.approx(expected, abs=1e-9), name
    assert scores["cider_d"] == scores["cider"]
    assert scores["meteor"] is scores["spice"] is None
    scores = caption_scores(case["references"], case["predictions"])
    assert scores == pytest.approx(case["cider"], abs=1e-9)
    assert list(scores) == list(case["predictions"])


def test_scores_are_numbers_that_json_can_hold():
    scores = score_captions({"1": ("A dog.",), "2": ("A cat.",)}, {"2": "a cat", "1": "a dog"})
    assert json.loads(json.dumps(scores)) == scores
    assert scores["bleu_1"] == pytest.approx(1)
    assert scores["cider"] == pytest.approx(5)  # two words have no trigrams


def test_a_fraction_is_one_word_for_rouge_only():
    # pycocoevalcap cuts at the no-break space for BLEU and CIDEr, not for ROUGE-L.
    scores = score_captions({"1": ["1 1/2"]}, {"1": "1/2"})
    assert scores["rouge_l"] == 0
    assert scores["bleu_1"] > 0.3


@pytest.mark.parametrize("function", [score_captions, caption_scores])
@pytest.mark.parametrize(
    ("references", "predictions", "message"),
    [
        ({}, {}, "no pictures"),
        ({"1": ["a"], "7": ["b"]}, {"1": "a"}, "picture '7' has no prediction"),
        ({"1": ["a"]}, {"1": "a", "3": "b"}, "picture '3' has no reference"),
        ({"1": []}, {"1": "a"}, "has no references"),
    ],
)
def test_misuse(function, references, predictions, message):
    with pytest.raises(ValueError, match=message):
        function(references, predictions)


@pytest.mark.parametrize(
    ("references", "reason"),
    [
        ({"1": ["a dog runs", "a brown dog"]}, "one picture is 0 by definition"),
        ({"1": ["a dog", "a cat"], "2": ["A cat.", "a dog"]}, "are alike"),
        ({"1": ["..."], "2": [""]}, "are alike"),
        ({"1": ["一个红色的圆形"], "2": ["一个绿色的正方形"]}, "in Chinese or Japanese without"),
        ({"1": ["วงกลมสีแดงในภาพ"], "2": ["a dog"], "3": ["วงกลมสีแดง"]}, "in Thai without blanks"),
        ({"1": ["a dog"], "2": ["a cat"]}, None),
        ({"1": ["a dog"], "2": ["dog a"]}, None),  # they differ in a bigram
        ({"1": ["一个 红色 的 圆形"], "2": ["一个 绿色 的 正方形"]}, None),
        ({"1": ["빨간 원 하나"], "2": ["파란 원 하나"]}, None),
    ],
)
def test_why_cider_cannot_tell(references, reason):
    found = cider_problem(references)
    assert (found is None) == (reason is None)
    assert (reason or "") in (found or "")
    cider = score_captions(references, {k: v[0] for k, v in references.items()})["cider"]
    if reason and "0 by definition" in found:
        assert cider == 0
    elif reason is None:
        assert cider > 0

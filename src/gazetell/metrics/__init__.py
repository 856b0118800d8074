"""Metrics of captions and of answers: strings in, numbers out.

`score_captions` gives BLEU-1..4, ROUGE-L and CIDEr as the official COCO caption evaluation
(pycocoevalcap) prints them, without Java, and METEOR and SPICE with it. `compare_captions` tells
whether one set of captions scores better than another by more than the choice of pictures.

`score_answers` gives the accuracy of answers to questions as the official VQA evaluation does,
`score_wups` the measure of DAQUAR, `compare_answers` is to answers what `compare_captions` is to
captions. `expected_calibration_error`, `reliability`, `risk_coverage`, `brier` and `auroc` judge
confidences.

The parts can be used alone: `words` splits captions as that evaluation does, `ngrams` and `cider`
score tokens of any kind, `captions` runs METEOR and SPICE, `answers` judges one answer.
Nothing here reads files or imports the rest of gazetell.
"""

from .answers import (
    YEARS,
    Wups,
    answer_accuracy,
    answer_measure,
    answer_scores,
    exact_match,
    normalise_answer,
    score_answers,
    score_wups,
    vqa_accuracy,
)
from .calibration import (
    Reliability,
    RiskCoverage,
    auroc,
    brier,
    expected_calibration_error,
    reliability,
    risk_coverage,
    selective_threshold,
)
from .captions import (
    METRICS,
    TITLES,
    JavaScore,
    caption_scores,
    cider_problem,
    meteor,
    person_level,
    points,
    score_captions,
    spice,
)
from .cider import CiderD, cider_d
from .compare import Difference, compare_answers, compare_captions
from .ngrams import bleu, rouge_l
from .words import split, unspaced_texts

"""Parts of an evaluation that need no model: pointing, bias, the two plots, rows of a table.

The *pointing* score is how often a gaze peaks inside the box of what it is about (Zhang et al.
2016, Top-down Neural Attention by Excitation Backprop: the pointing game). What can be answered
without looking, the *bias*, stands beside every accuracy (Goyal et al. 2017, Making the V in VQA
Matter; Agrawal et al. 2018, Don't Just Assume; Look and Answer).
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from ..data.answers import AnswerVocabulary, modal_answer
from ..data.records import Box, CaptionRecord, QuestionRecord
from ..files import atomic_path
from ..metrics import (
    Difference,
    answer_accuracy,
    compare_answers,
    compare_captions,
    reliability,
    risk_coverage,
)
from ..pictures import View

PREFIX = 2  # words that make the type of a question: "how many", "what color"
INK, ACCENT, QUIET = "#262421", "#c2540a", "#969189"


@dataclass(frozen=True)
class Pointing:
    """How often a gaze peaks inside a box of what it is about.

    Attributes:
        score: share of the gazes whose attention is largest at a cell with its centre in one of
            their boxes.
        chance: the same for a gaze that peaks at a cell drawn at random.
        words: how many gazes were counted: those with a box.
    """

    score: float
    chance: float
    words: int


def pointing(gazes: Iterable[tuple[np.ndarray, View, Sequence[Box]]]) -> Pointing | None:
    """The pointing score of gazes (height, width), each with its view of a picture and boxes there.

    A peak on padding misses. None if no gaze has a box.
    """
    hits, chances = [], []
    for gaze, view, boxes in gazes:
        if not boxes:
            continue
        height, width = gaze.shape
        left, top, right, bottom = view.cells
        y = top + (np.arange(height)[:, None] + 0.5) / height * (bottom - top)
        x = left + (np.arange(width)[None, :] + 0.5) / width * (right - left)
        inside = np.zeros(gaze.shape, bool)
        for box in boxes:
            inside |= (box.x0 <= x) & (x <= box.x1) & (box.y0 <= y) & (y <= box.y1)
        hits.append(bool(inside.flat[int(gaze.argmax())]))
        chances.append(float(inside.mean()))
    if not hits:
        return None
    return Pointing(float(np.mean(hits)), float(np.mean(chances)), len(hits))


class Priors:
    """The most frequent answers of training questions, by their first words.

    Attributes:
        best: from the first words of a question, PREFIX or fewer, to the most frequent answer.
            Ties go by the alphabet: the same on every machine.
    """

    def __init__(self, records: Iterable[QuestionRecord]) -> None:
        counts: dict[tuple[str, ...], Counter[str]] = {}
        for record in records:
            if answer := modal_answer(record.answers):
                # A set: a question of one word begins with one word only once.
                for prefix in {_prefix(record.question, n) for n in range(PREFIX + 1)}:
                    counts.setdefault(prefix, Counter())[answer] += 1
        self.best = {
            prefix: min(answers, key=lambda answer: (-answers[answer], answer))
            for prefix, answers in counts.items()
        }

    def answer(self, question: str) -> str:
        """The most frequent answer of the questions that begin alike, of all for ""."""
        prefixes = (_prefix(question, length) for length in range(PREFIX, -1, -1))
        return next(self.best[prefix] for prefix in prefixes if prefix in self.best)


def _prefix(question: str, words: int) -> tuple[str, ...]:
    return tuple(question.lower().split()[:words])


def bias(
    training: Iterable[QuestionRecord],
    records: Sequence[QuestionRecord],
    vocabulary: AnswerVocabulary | None,
) -> dict[str, Any]:
    """Accuracies in 0 to 100 that need no model.

    Args:
        training: answered questions of the training split.
        records: answered questions to be judged by.
        vocabulary: of the model; None where it writes its answers.

    Returns:
        ``most_frequent_answer`` and its accuracy ``most_frequent``, ``prefix`` (the most frequent
        answer by the question's first two words), all None without training questions, and
        ``ceiling``, None without a vocabulary: what a model that always chose the best answer of
        it would reach.
    """

    def percent(scores: Iterable[float]) -> float:
        return round(100 * sum(scores) / len(records), 2)

    def best(record: QuestionRecord, vocabulary: AnswerVocabulary) -> float:
        known = {place for a in record.answers if (place := vocabulary.index(a)) is not None}
        texts = (vocabulary.answers[place] for place in known)
        return max((answer_accuracy(record.answers, text) for text in texts), default=0.0)

    priors = Priors(training)
    figures: dict[str, Any] = dict.fromkeys(("most_frequent_answer", "most_frequent", "prefix"))
    if priors.best:
        first = figures["most_frequent_answer"] = priors.answer("")
        figures["most_frequent"] = percent(answer_accuracy(r.answers, first) for r in records)
        answers = [(r.answers, priors.answer(r.question)) for r in records]
        figures["prefix"] = percent(answer_accuracy(*pair) for pair in answers)
    ceiling = percent(best(record, vocabulary) for record in records) if vocabulary else None
    return figures | {"ceiling": ceiling}


def save_plots(
    folder: str | os.PathLike[str], sure: Sequence[float], scores: Sequence[float]
) -> None:
    """Draw ``reliability.png`` (share right by confidence) and ``risk-coverage.png``.

    Args:
        folder: to write them to.
        sure: confidence of each answer or caption.
        scores: how right each is, in [0, 1].

    Raises:
        WriteError: a file cannot be written.
    """
    from matplotlib.figure import Figure

    bins, curve = reliability(sure, scores), risk_coverage(sure, scores)
    calibration = Figure(figsize=(5, 5.6), layout="constrained")
    top, bottom = calibration.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    width = float(bins.edges[1] - bins.edges[0])
    middle, filled = bins.edges[:-1] + width / 2, bins.count > 0
    top.plot([0, 1], [0, 1], color=QUIET, linewidth=1)
    top.bar(middle[filled], bins.accuracy[filled], width * 0.92, color=ACCENT, alpha=0.85)
    sure_and_right = bins.confidence[filled], bins.accuracy[filled]
    top.plot(*sure_and_right, "o", color=INK, markersize=4, zorder=3)
    top.set(xlim=(0, 1), ylim=(0, 1), ylabel="share right", title="Is a confidence what it says?")
    bottom.bar(middle, bins.count, width * 0.92, color=QUIET)
    bottom.set(xlabel="confidence", ylabel="number")

    selective = Figure(figsize=(5, 4), layout="constrained")
    axes = selective.subplots()
    axes.plot(curve.coverage, curve.risk, color=ACCENT)
    axes.axhline(float(curve.risk[-1]), color=QUIET, linewidth=1)
    axes.set(
        xlim=(0, 1),
        ylim=(0, None),
        xlabel="coverage: share kept, surest first",
        ylabel="risk: share wrong of those kept",
        title=f"What leaving out the least sure buys (area {curve.area:.3f})",
    )
    for name, figure in (("reliability", calibration), ("risk-coverage", selective)):
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
        with atomic_path(Path(folder) / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def references_of(record: CaptionRecord | QuestionRecord) -> Sequence[str]:
    """What people said of it."""
    return record.captions if isinstance(record, CaptionRecord) else record.answers


def compare(
    records: Sequence[CaptionRecord] | Sequence[QuestionRecord],
    first: Mapping[str, str],
    second: Mapping[str, str],
) -> dict[str, Difference]:
    """The paired bootstrap of what two models said of the same records, by their ids.

    Raises:
        ValueError: fewer than two records, or texts of others.
    """
    references = {record.id: references_of(record) for record in records}
    captions = isinstance(records[0], CaptionRecord)
    return (compare_captions if captions else compare_answers)(references, first, second)


# Rows of a table of results, of the entries that ``gazetell reproduce`` makes

COLUMNS = {
    **{f"bleu_{n}": f"BLEU-{n}" for n in range(1, 5)},
    **{"meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr"},
}
# What is compared, and by how much it is multiplied to be in 0 to 100.
MAIN = {"bleu_4": ("BLEU-4", 100), "cider": ("CIDEr", 100), "accuracy": ("accuracy", 1)}
ANSWERS = {name: name for name in ("accuracy", "yes/no", "number", "other")}
ANSWERS |= {"ece": "ECE", "0.9": "WUPS 0.9", "0.0": "WUPS 0.0"}


def kind_of(entry: dict[str, Any]) -> tuple[str, bool]:
    """Entries of one kind make a table: those of a dataset, of captions or of answers."""
    return entry["on"], "accuracy" in entry["figures"]["metrics"]


def header(*names: str) -> str:
    """The head of a Markdown table."""
    return f"{cells(names)}\n|{'---|' * len(names)}"


def cells(values: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(values)} |"


MAKING = ("parameters", "training")
HEADERS = (
    header("model", "seed", "beam", *COLUMNS.values(), *MAKING, "captions/s", "pictures/s"),
    header("model", "seed", *ANSWERS.values(), *MAKING, "questions/s", "answers/s"),
)


def line(entry: dict[str, Any]) -> str:
    """The row of one run on a dataset, of captions at one beam."""
    figures, trained, answers = entry["figures"], "parameters" in entry, kind_of(entry)[1]
    # Accuracy and WUPS are in 0 to 100 as they are, the others in 0 to 1.
    parts = {k: v and (v if k == "accuracy" else 100 * v) for k, v in figures["metrics"].items()}
    parts |= {**figures["per_answer_type"], **(figures["wups"] or {})} if answers else {}
    values = [parts.get(key) for key in (ANSWERS if answers else COLUMNS)]
    speed = figures["answers_per_second" if answers else "decoding_pictures_per_second"]
    rate = f"{'questions' if answers else 'captions'}_per_second"
    beam = "greedy" if entry["beam"] == 1 else str(entry["beam"])
    return cells(
        [
            entry["row"],
            str(entry["seed"]) if trained else "",
            *([] if answers else [beam]),
            *("" if value is None else f"{value:.1f}" for value in values),
            f"{entry['parameters'] / 1e6:.1f} M" if trained else "",
            f"{entry['training_seconds'] / 60:.1f} min" if trained else "",
            f"{entry[rate]:,.0f}" if trained else "",
            f"{speed:,.0f}",
        ]
    )


def spread(name: str, entries: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A row's figures over its seeds, at each beam; nothing for a single seed."""
    for beam in dict.fromkeys(entry["beam"] for entry in entries):
        own = [e["figures"]["metrics"] for e in entries if (e["row"], e["beam"]) == (name, beam)]
        parts = []
        for key, (title, scale) in MAIN.items():
            values = [scale * one[key] for one in own if one.get(key) is not None]
            if len(values) > 1:
                parts.append(f"{title} {mean(values):.1f} ± {stdev(values):.1f}")
        if parts:
            at = f", beam {beam}" if beam else ""
            yield f"- {name}{at}, {len(own)} seeds: {', '.join(parts)}"


def difference(found: dict[str, Any]) -> Iterator[str]:
    """The rows of a comparison, one a metric."""
    first = [*found["rows"], found["on"], str(found["beam"] or "")]
    for key, (title, scale) in MAIN.items():
        if value := found["metrics"].get(key):
            low, high = (f"{scale * value[end]:+.1f}" for end in ("low", "high"))
            text = f"{scale * value['difference']:+.1f} [{low}, {high}]"
            shown = f"**{text}**" if value["significant"] else f"{text}: none shown"
            yield cells([*first, title, shown])

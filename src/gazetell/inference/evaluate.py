"""Evaluation: a trained model against a split of a prepared dataset.

Beside the official metrics stand the figures that tell what they are worth. Of captions: how
varied they are, what one reference scores against the others (the level of a person), how often
the gaze points at what a word names, and on scenes how many are true. Of answers: what needs no
picture or no model and, with ``evidence``, whether the model looked: the same questions about a
plain grey picture and about another picture. Of both: whether confidences mean what they say, and
what leaving out the least sure buys. A figure that cannot be known is None, and ``not_measured``
says why.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from .. import scenes
from ..data.records import MACHINE_MADE, Box, CaptionRecord, Dataset, QuestionRecord
from ..data.text import Question
from ..errors import DataError, UsageError
from ..features import grids
from ..files import write_json, write_jsonl
from ..metrics import (
    answer_scores,
    auroc,
    brier,
    caption_scores,
    cider_problem,
    expected_calibration_error,
    person_level,
    risk_coverage,
    score_answers,
    score_captions,
    score_wups,
)
from ..models.confidence import check_bound
from ..models.encoders import Grid
from ..pictures import View
from ..process import bar
from .figures import Pointing, bias, compare, pointing, references_of, save_plots
from .large import Large
from .predict import Answerer, Captioner
from .results import Answer, Caption

COVERAGES = (0.25, 0.5, 0.75, 1.0)
KEPT = (1.0, 0.8, 0.6, 0.4)  # shares of the captions, surest first
CALIBRATION = 30  # answers: with fewer, a bin of confidences holds one or two

Record = TypeVar("Record", CaptionRecord, QuestionRecord)
Result = TypeVar("Result", Caption, Answer)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation(Generic[Record, Result]):
    """What was measured on a split.

    Attributes:
        figures: JSON values: ``metrics`` and the rest, as ``gazetell evaluate --json`` prints.
        records: of the split.
        results: the model's captions or answers, in the records' order, without pictures; answers
            without attention, too.
        scores: CIDEr of each caption, in [0, 10], or accuracy of each answer, in [0, 1].
        right: accuracy of each answer, or 1 for a caption that is good and 0 for another; empty
            where that is not known.
        verdicts: on scenes, whether each caption is true of its picture, and why not.
    """

    figures: dict[str, Any]
    records: Sequence[Record]
    results: Sequence[Result]
    scores: Sequence[float]
    right: Sequence[float]
    verdicts: Sequence[scenes.Verdict] | None = None

    @property
    def texts(self) -> dict[str, str]:
        """The captions or answers by the ids of their records."""
        return {r.id: x.text for r, x in zip(self.records, self.results, strict=True)}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``metrics.json`` and ``predictions.jsonl``, with confidences also two plots."""
        folder = Path(folder)
        rows = [self._row(n) for n in range(len(self.records))]
        write_jsonl(folder / "predictions.jsonl", rows)
        sure = [result.confidence for result in self.results if result.confidence is not None]
        if sure and self.right:
            save_plots(folder, sure, self.right)
        write_json(folder / "metrics.json", self.figures)

    def _row(self, n: int) -> dict[str, Any]:
        record, result, score = self.records[n], self.results[n], round(self.scores[n], 5)
        row: dict[str, Any] = {"id": record.id}
        references = {"references": references_of(record)}
        if isinstance(result, Answer):
            row |= {"answer": result.text, "confidence": round(result.confidence, 5)}
            return row | {"accuracy": score} | references
        known = self.figures["metrics"]["cider"] is not None
        row |= {"caption": result.text, "log_prob": result.log_prob}
        if result.confidence is not None:
            row["confidence"] = round(result.confidence, 5)
        row |= {"cider": score if known else None}
        if self.verdicts is not None:
            row |= {"true": self.verdicts[n].true, "reason": self.verdicts[n].reason}
        return row | references


def evaluate(
    model: Captioner,
    dataset: Dataset | str | os.PathLike[str],
    *,
    split: str = "test",
    batch: int = 64,
    limit: int = 0,
    java: bool = False,
    progress: bool = False,
    **options: Any,
) -> Evaluation[CaptionRecord, Caption]:
    """Caption a split and measure.

    Args:
        model: a loaded captioner.
        dataset: a prepared dataset, or its folder.
        split: of the dataset.
        batch: pictures a forward pass.
        limit: only the first so many pictures; 0 for all.
        java: also compute METEOR and SPICE, where Java and pycocoevalcap are there.
        progress: show a progress bar on standard error.
        options: decoding, as for ``Captioner.caption``.

    Raises:
        DataError: the split has no pictures or no references.
        UsageError: a limit or a decoding option out of its range.
    """
    chosen = model.options(**options)
    dataset = opened(dataset, batch, limit)
    records = scored_records(dataset, split, limit)
    captions: list[Caption] = []
    seconds = 0.0
    with bar("captions", progress) as update:
        for grid in grids(model, dataset, [record.image for record in records], batch):
            began, first = time.perf_counter(), len(captions)
            decoded = model.decode(grid, chosen, range(first, first + len(grid.cells)))
            seconds += time.perf_counter() - began
            for caption, record in zip(decoded, records[first:], strict=False):
                if caption.attention is not None:  # the view is that of the gaze
                    caption = replace(caption, view=model.view(dataset.path(record)))
                captions.append(caption)
            update(len(captions), len(records))
    references = {record.id: record.captions for record in records}
    texts = [caption.text for caption in captions]
    predictions = {record.id: text for record, text in zip(records, texts, strict=True)}
    training = [text for r in dataset.captions if r.split == "train" for text in r.captions]
    seen = set(model.plain(training))
    # Ours are written so already.
    said = model.plain(texts) if isinstance(model, Large) else texts
    verdicts = None
    if dataset.kind == "scenes" and dataset.folder is not None:
        truth = scenes.read_truth(dataset.folder)
        pairs = zip(said, records, strict=True)
        verdicts = [scenes.judge(text, truth[record.id]) for text, record in pairs]
    pointed = caption_pointing(records, captions)
    boxes = any(record.boxes for record in records)
    alone = any(len(record.captions) < 2 for record in records)
    not_measured = {
        "cider": cider_problem(references),
        "distinct": "of one caption" if len(texts) < 2 else None,
        "unseen": None if seen else "the dataset has no training captions",
        "human": "each picture has only one reference" if alone else None,
        "pointing": _no_pointing(model, pointed, "no word of a caption names a box", boxes),
    }
    metrics = score_captions(references, predictions, java=java)
    scores = caption_scores(references, predictions)
    level = None if not_measured["cider"] else person_level(references)
    right = [] if level is None else [float(scores[r.id] > level) for r in records]
    sure = [caption.confidence for caption in captions if caption.confidence is not None]
    if not sure:
        blind = "a blind model, which looks at no picture"
        fit = "gazetell calibrate" if isinstance(model, Large) else "--calibrate"
        member = blind if model.blind else f"the model; see {fit}"
        fitted = "an ensemble" if model.members > 1 else member
        not_measured["confidence"] = f"none was fitted to {fitted}"
    elif level is None:
        not_measured["confidence"] = not_measured["cider"] or "each picture has only one reference"
    elif split == "val":
        logger.warning("the confidence was fitted on val: its calibration error is too good")
    if not_measured["cider"]:
        metrics |= {"cider": None, "cider_d": None}
    count = len(captions)
    figures: dict[str, Any] = {
        "metrics": metrics,
        "dataset": dataset.name,
        **({"machine_made": list(dataset.machine_made)} if dataset.machine_made else {}),
        "split": split,
        "pictures": count,
        "members": model.members,
        "fit": model.encoder.config.fit,
        "beam": chosen.beam,
        "length_penalty": chosen.length_penalty if chosen.beam > 1 else None,
        "max_length": chosen.max_length,
        "distinct": len(set(texts)) / count if count > 1 else None,
        "unseen": sum(text not in seen for text in said) / count if seen else None,
        "vocabulary": len({word for caption in captions for word in caption.words}),
        "mean_length": sum(len(caption.words) for caption in captions) / count,
        "cut": sum(not caption.ended for caption in captions) / count,
        "decoding_pictures_per_second": round(count / seconds, 1),
        "human": None if alone else _human(records, predictions),
        "pointing": None if pointed is None else asdict(pointed),
        "truth": None if verdicts is None else sum(v.true for v in verdicts) / count,
        "confidence": None,
        "not_measured": {name: why for name, why in not_measured.items() if why},
    }
    ciders = [scores[record.id] for record in records]
    if model.confidence is not None and right:
        threshold = model.confidence.threshold
        figures["confidence"] = _confident(sure, right, ciders, threshold) | {"level": level}
    return Evaluation(figures, records, captions, ciders, right, verdicts)


def _confident(
    sure: Sequence[float], right: Sequence[float], ciders: Sequence[float], threshold: float
) -> dict[str, Any]:
    """What the confidences of captions are worth; shares are in 0 to 1."""
    order = np.argsort(-np.array(sure), kind="stable")
    kept = [good for p, good in zip(sure, right, strict=True) if p >= threshold]
    cider = {
        str(share): float(np.mean(np.array(ciders)[order[: round(share * len(sure))]]))
        for share in KEPT
        if round(share * len(sure))
    }
    return {
        "good": sum(right) / len(right),
        **_calibration(sure, right),
        "cider_at_coverage": cider,
        "threshold": threshold,
        "sure": len(kept) / len(right),
        "good_of_sure": sum(kept) / len(kept) if kept else None,
    }


def _calibration(sure: Sequence[float], right: Sequence[float]) -> dict[str, float | None]:
    few = len(right) < CALIBRATION
    return {
        "ece": None if few else expected_calibration_error(sure, right),
        "brier": brier(sure, right),
        "auroc": auroc(sure, right),
        "risk_coverage_area": risk_coverage(sure, right).area,
    }


def opened(dataset: Dataset | str | os.PathLike[str], batch: int, limit: int) -> Dataset:
    """The dataset, and two numbers checked."""
    for name, value, least in (("batch", batch, 1), ("limit", limit, 0)):
        if value < least:
            raise UsageError(f"--{name} {value}: expected {least} or more")
    return dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)


def with_references(dataset: Dataset, split: str, records: Sequence[Record]) -> list[Record]:
    """Those records that have captions or answers.

    How many have none is said, and so is that a model told them.

    Raises:
        DataError: none has.
    """
    scored = [record for record in records if references_of(record)]
    if not scored:
        raise DataError(f"{dataset.folder}: split {split!r} has no references to score against")
    if len(scored) < len(records):
        left_out = len(records) - len(scored)
        logger.warning("split %r: without captions or answers, left out: %d", split, left_out)
    if dataset.machine_made:
        logger.warning(
            MACHINE_MADE, dataset.folder or dataset.name, ", ".join(dataset.machine_made)
        )
    return scored


def scored_records(dataset: Dataset, split: str, limit: int = 0) -> list[CaptionRecord]:
    """The first records of a split that have reference captions; DataError if none has."""
    return with_references(dataset, split, dataset.split(split))[: limit or None]


def asked_records(dataset: Dataset, split: str, limit: int = 0) -> dict[str, list[QuestionRecord]]:
    """The questions with answers about each of a split's first pictures; DataError without any."""
    asked: dict[str, list[QuestionRecord]] = {}
    for record in with_references(dataset, split, dataset.questions_of(split)):
        asked.setdefault(record.image, []).append(record)
    return dict(islice(asked.items(), limit or None))


def asked_grids(
    model: Answerer,
    dataset: Dataset,
    asked: Mapping[str, Sequence[QuestionRecord]],
    batch: int,
    progress: bool,
) -> Iterator[tuple[Grid, list[QuestionRecord], torch.Tensor]]:
    """Grids of pictures, the questions about them, and which picture (N,) each is about."""
    rest, total, done = iter(asked.values()), sum(map(len, asked.values())), 0
    with bar("answers", progress) as update:
        for grid in grids(model, dataset, list(asked), batch):
            some = list(islice(rest, len(grid.cells)))
            owner = torch.tensor([n for n, records in enumerate(some) for _ in records])
            yield grid, [record for records in some for record in records], owner
            update(done := done + len(owner), total)


def _no_pointing(
    model: Captioner | Answerer, pointed: object, unnamed: str, boxes: bool
) -> str | None:
    """Why there is no pointing score, if there is none."""
    if pointed:
        return None
    if model.blind or not model.attentive:
        return f"the model {'is blind' if model.blind else 'has no attention'}"
    return unnamed if boxes else "the split has no boxes"


def _human(
    records: Sequence[CaptionRecord], predictions: dict[str, str]
) -> dict[str, float | None]:
    """CIDEr and BLEU-4 of the first reference against the others, and of the model against those.

    CIDEr is None where it cannot tell good captions from bad ones.
    """
    others = {record.id: record.captions[1:] for record in records}
    known = cider_problem(others) is None
    first = {record.id: record.captions[0] for record in records}
    figures: dict[str, float | None] = {}
    for prefix, captions in (("", first), ("model_", predictions)):
        scores = score_captions(others, captions)
        figures |= {f"{prefix}cider": scores["cider"] if known else None}
        figures |= {f"{prefix}bleu_4": scores["bleu_4"]}
    return figures


def caption_pointing(
    records: Sequence[CaptionRecord], captions: Sequence[Caption]
) -> Pointing | None:
    """The pointing score of the words that name a box.

    None where no word names a box or the model has no attention.
    """
    return pointing(
        (gaze, caption.view, [box for box in record.boxes if {word, word.lower()} & {*box.words}])
        for record, caption in zip(records, captions, strict=True)
        if caption.attention is not None
        for word, gaze in zip(caption.words, caption.attention, strict=True)
    )


def evaluate_answers(
    model: Answerer,
    dataset: Dataset | str | os.PathLike[str],
    *,
    split: str = "test",
    batch: int = 64,
    limit: int = 0,
    abstain_below: float | None = None,
    evidence: bool = False,
    question_only: Answerer | None = None,
    progress: bool = False,
) -> Evaluation[QuestionRecord, Answer]:
    """Answer a split and measure; what is not said here is as for ``evaluate``.

    Args:
        model: a loaded answerer.
        dataset: with questions.
        split: of the dataset.
        batch: pictures a forward pass, with all their questions.
        limit: only the questions of the first so many pictures.
        abstain_below: count the questions answered with at least this confidence, too; the
            model's own bound if not given.
        evidence: also ask about a grey picture and about another picture.
        question_only: a model trained without pictures, to compare with.
        progress: as for ``evaluate``.

    Raises:
        DataError: the split has no answered questions, or one alone beside ``question_only``.
        UsageError: a limit or a bound out of range.
    """
    check_bound(abstain_below)
    bound = model.abstain_below if abstain_below is None else abstain_below
    dataset = opened(dataset, batch, limit)
    asked = asked_records(dataset, split, limit)
    records = [record for some in asked.values() for record in some]
    if question_only is not None and len(records) < 2:
        raise DataError(
            f"{dataset.folder}: split {split!r} has one answered question; a comparison with a "
            "question-only model needs two"
        )
    answers: list[Answer] = []
    gazes: list[tuple[np.ndarray, View, Sequence[Box]]] = []  # (P, height, width)
    changed = _Evidence(model)
    seconds = 0.0
    for grid, now, owner in asked_grids(model, dataset, asked, batch, progress):
        questions = [model.read_question(record.question) for record in now]
        began = time.perf_counter()
        batch_answers = model.answer(grid, questions, owner, abstain_below=bound)
        seconds += time.perf_counter() - began
        if evidence:
            changed.ask(grid, questions, owner)
        for record, answer in zip(now, batch_answers, strict=True):
            if answer.attention is not None and record.boxes and not model.blind:
                view = model.view(dataset.path(record))
                gazes.append((answer.attention, view, record.boxes))
            answers.append(replace(answer, attention=None))
    references = {record.id: record.answers for record in records}
    predictions = _texts(records, [answer.text for answer in answers])
    scores = list(answer_scores(references, predictions).values())
    official = score_answers(
        references,
        predictions,
        question_types={record.id: record.question_type for record in records},
        answer_types={record.id: record.answer_type for record in records},
    )
    sure = [answer.confidence for answer in answers]
    few, cut = len(answers) < CALIBRATION, sum(answer.cut > 0 for answer in answers)
    if cut:
        longest = model.max_question
        logger.warning("questions cut at %d words: %d of %d", longest, cut, len(answers))
    if split == "val" and model.temperature != 1:
        logger.warning("the temperature was fitted on val: its calibration error is too good")
    training = [r for r in dataset.questions if r.split == "train" and r.answers]
    one = evidence and len(asked) == 1
    passes = range(len(gazes[0][0]) if gazes else 0)
    pointed = [pointing((gaze[p], *rest) for gaze, *rest in gazes) for p in passes]
    not_measured = {
        "ece": f"{len(answers)} answers; expected {CALIBRATION} or more" if few else None,
        "ceiling": None if model.answers else "the model writes its answers",
        "most frequent": None if training else "the dataset has no answered training questions",
        "other picture": "the questions are about one picture" if one else None,
        "pointing": _no_pointing(model, pointed, "", False),
    }
    figures: dict[str, Any] = {
        "metrics": {
            "accuracy": official["accuracy"],
            **_calibration(sure, scores),
        },
        "measure": official["measure"],
        "per_answer_type": official["per_answer_type"],
        "per_question_type": official["per_question_type"],
        "dataset": dataset.name,
        **({"machine_made": list(dataset.machine_made)} if dataset.machine_made else {}),
        "split": split,
        "fit": model.encoder.config.fit,
        "questions": len(records),
        "pictures": len(asked),
        "temperature": model.temperature,
        "selective": _selective(sure, scores, bound),
        "bias": bias(training, records, model.answers),
        "question_only": None,
        "evidence": changed.figures(records, answers, official["accuracy"]) if evidence else None,
        "pointing": [asdict(one) for one in pointed if one is not None] or None,
        "wups": None,
        "cut_questions": cut / len(answers),
        "unknown_words": sum(bool(answer.unknown) for answer in answers) / len(answers),
        "answers_per_second": round(len(answers) / seconds, 1),
        "not_measured": {name: why for name, why in not_measured.items() if why},
    }
    if question_only is not None:
        twin = evaluate_answers(question_only, dataset, split=split, batch=batch, limit=limit)
        compared = compare(records, predictions, twin.texts)["accuracy"]
        accuracy = twin.figures["metrics"]["accuracy"]
        figures["question_only"] = {"accuracy": accuracy, **asdict(compared)}
    if dataset.kind == "daquar":
        wups = score_wups(references, predictions)
        by_threshold = {str(threshold): value for threshold, value in wups.scores.items()}
        figures["wups"] = {**by_threshold, "reason": wups.reason}
    return Evaluation(figures, records, answers, scores, scores)


class _Evidence:
    """The answers to the same questions about a grey picture and about another picture.

    The other picture is the one before in the split, of the first picture the last.
    """

    def __init__(self, model: Answerer) -> None:
        self.model = model
        self.blank: list[str] = []
        self.other: list[str] = []
        self.first: list[Question] = []  # the questions of the first picture
        self.last: Grid | None = None

    def ask(self, grid: Grid, questions: Sequence[Question], owner: torch.Tensor) -> None:
        """Ask the questions about some pictures again."""
        self.blank += self._answers(self.model.blank, questions, torch.zeros_like(owner))
        end = len(grid.cells) - 1
        before = grid.rows(0, end)
        if self.last is None:
            count = int((owner == 0).sum())
            self.first = list(questions[:count])
            questions, owner = questions[count:], owner[count:] - 1
        else:
            before = Grid.join([self.last, before])
        if questions:
            self.other += self._answers(before, questions, owner)
        self.last = grid.rows(end, end + 1)

    def _answers(self, grid: Grid, questions: Sequence[Question], owner: torch.Tensor) -> list[str]:
        return [answer.text for answer in self.model.answer(grid, questions, owner)]

    def figures(
        self, records: Sequence[QuestionRecord], answers: Sequence[Answer], accuracy: float
    ) -> dict[str, dict[str, float] | None]:
        """Accuracy, accuracy lost and the share of answers changed, for both.

        None for the other picture where there is none.
        """
        other: list[str] = []
        if self.other and self.last is not None:
            nowhere = torch.zeros(len(self.first), dtype=torch.long)
            other = self._answers(self.last, self.first, nowhere) + self.other
        references = {record.id: record.answers for record in records}
        figures: dict[str, dict[str, float] | None] = {"blank": None, "other_picture": None}
        for name, texts in (("blank", self.blank), ("other_picture", other)):
            if texts:
                score = score_answers(references, _texts(records, texts))["accuracy"]
                changed = sum(a.text != text for a, text in zip(answers, texts, strict=True))
                lost = round(accuracy - score, 2)
                share = changed / len(texts)
                figures[name] = {"accuracy": score, "lost": lost, "changed": share}
        return figures


def _texts(records: Sequence[QuestionRecord], texts: Sequence[str]) -> dict[str, str]:
    return {record.id: text for record, text in zip(records, texts, strict=True)}


def _selective(
    sure: Sequence[float], scores: Sequence[float], abstain_below: float
) -> dict[str, Any]:
    """Accuracy, in 0 to 100, at some coverages, and of what is answered above the bound.

    None at a coverage of less than a question.
    """
    risk = risk_coverage(sure, scores).risk
    counts = {str(share): round(share * len(scores)) for share in COVERAGES}
    kept = [score for p, score in zip(sure, scores, strict=True) if p >= abstain_below]
    return {
        "accuracy_at_coverage": {
            share: round(100 * (1 - float(risk[count - 1])), 2) if count else None
            for share, count in counts.items()
        },
        "abstain_below": abstain_below,
        "coverage": len(kept) / len(scores),
        "accuracy": round(100 * sum(kept) / len(kept), 2) if kept else None,
    }

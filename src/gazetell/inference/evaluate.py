"""Evaluation: a trained captioner against a split of a prepared dataset.

Besides the official metrics: how varied the captions are, what one reference scores against the
others (the level of a person), on datasets with boxes how often the gaze points at what a word
names, and on scenes how many captions are true.
"""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import scenes
from ..data.records import Box, CaptionRecord, Dataset, QuestionRecord
from ..data.text import Question
from ..errors import DataError, UsageError
from ..features import grids
from ..files import write_json, write_jsonl
from ..metrics import (
    answer_scores,
    caption_scores,
    cider_problem,
    compare_answers,
    expected_calibration_error,
    reliability,
    risk_coverage,
    score_answers,
    score_captions,
    score_wups,
)
from ..models.encoders import Grid
from ..pictures import open_image, preview
from ..progress import bar
from .predict import Answer, Answerer, Caption, Captioner, check_bound

if TYPE_CHECKING:
    pass

from .figures import Pointing, bias, pointing, save_reliability, save_risk_coverage

__all__ = [
    "AnswerEvaluation",
    "Evaluation",
    "caption_pointing",
    "evaluate",
    "evaluate_answers",
    "scored_records",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What was measured on a split.

    Attributes:
        figures: JSON values: ``metrics`` and the rest, as ``gazetell evaluate --json`` prints. A
            figure that cannot be known is None, and ``not_measured`` says why.
        records: of the split.
        captions: the model's, in the records' order, without pictures.
        scores: CIDEr of each.
        verdicts: on scenes, whether each is true of its picture, and why not.
    """

    figures: dict[str, Any]
    records: Sequence[CaptionRecord]
    captions: Sequence[Caption]
    scores: Sequence[float]
    verdicts: Sequence[scenes.Verdict] | None

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``metrics.json`` and ``predictions.jsonl``."""
        folder = Path(folder)
        rows = []
        for n, (record, caption) in enumerate(zip(self.records, self.captions, strict=True)):
            row = {"id": record.id, "caption": caption.text, "log_prob": caption.log_prob}
            known = self.figures["metrics"]["cider"] is not None
            row["cider"] = round(self.scores[n], 5) if known else None
            if self.verdicts is not None:
                row |= {"true": self.verdicts[n].true, "reason": self.verdicts[n].reason}
            rows.append(row)
        write_jsonl(folder / "predictions.jsonl", rows)
        write_json(folder / "metrics.json", self.figures)

    def with_picture(self, index: int, root: Path) -> Caption:
        """A caption with its picture, to show its gaze."""
        picture = preview(open_image(root / self.records[index].image))
        return replace(self.captions[index], image=picture)


def evaluate(
    model: Captioner,
    dataset: Dataset,
    *,
    split: str = "test",
    batch: int = 64,
    limit: int = 0,
    java: bool = False,
    progress: bool = False,
    **options: Any,
) -> Evaluation:
    """Caption a split and measure.

    Args:
        model: a loaded captioner.
        dataset: a prepared dataset.
        split: of the dataset.
        batch: pictures a forward pass.
        limit: only the first so many pictures; 0 for all.
        java: also compute METEOR and SPICE, where Java and pycocoevalcap are there.
        progress: show a progress bar on standard error.
        options: decoding, see ``Captioner.caption``.

    Raises:
        DataError: the split has no pictures or no references.
        UsageError: a decoding option out of its range.
    """
    chosen = model.options(**options)
    records = scored_records(dataset, split, limit)
    captions: list[Caption] = []
    seconds = 0.0
    with bar("captions", progress) as update:
        for grid in grids(model, dataset, [record.image for record in records], batch):
            began = time.perf_counter()
            first = len(captions)
            captions += model.decode(grid, chosen, range(first, first + len(grid.cells)))
            seconds += time.perf_counter() - began
            update(len(captions), len(records))
    references = {record.id: record.captions for record in records}
    predictions = {r.id: c.text for r, c in zip(records, captions, strict=True)}
    verdicts = _verdicts(dataset, records, captions)
    texts = [caption.text for caption in captions]
    seen = {
        model.tokenizer.decode(ids)
        for record in dataset.captions
        if record.split == "train"
        for ids in model.tokenizer.encode_batch(record.captions)
    }
    metrics = score_captions(references, predictions, java=java)
    not_measured: dict[str, str] = {}
    if problem := cider_problem(references):
        metrics |= {"cider": None, "cider_d": None}
        not_measured["cider"] = problem
    pointed = caption_pointing(records, captions)
    if pointed is None:
        not_measured["pointing"] = (
            "the model has no attention"
            if not model.attentive
            else "no word of a caption names a box"
            if any(record.boxes for record in records)
            else "the dataset has no boxes"
        )
    human = None
    if any(len(record.captions) < 2 for record in records):
        not_measured["human"] = "a picture has one reference alone"
    else:
        human = _human(records, predictions)
    if len(texts) < 2:
        not_measured["distinct"] = "of one caption"
    if not seen:
        not_measured["unseen"] = "the dataset has no training captions"
    figures: dict[str, Any] = {
        "metrics": metrics,
        "dataset": dataset.name,
        "split": split,
        "pictures": len(records),
        "members": model.members,
        "beam": chosen.beam,
        "length_penalty": chosen.length_penalty if chosen.beam > 1 else None,
        "max_length": chosen.max_length,
        "distinct": len(set(texts)) / len(texts) if len(texts) > 1 else None,
        "unseen": sum(text not in seen for text in texts) / len(texts) if seen else None,
        "vocabulary": len({word for caption in captions for word in caption.words}),
        "mean_length": sum(len(caption.words) for caption in captions) / len(captions),
        "cut": sum(not caption.ended for caption in captions) / len(captions),
        "decoding_pictures_per_second": round(len(captions) / seconds, 1),
        "human": human,
        "pointing": None if pointed is None else pointed.__dict__,
        "truth": None if verdicts is None else sum(v.true for v in verdicts) / len(verdicts),
        "not_measured": not_measured,
    }
    scores = caption_scores(references, predictions)
    return Evaluation(figures, records, captions, [scores[r.id] for r in records], verdicts)


def scored_records(dataset: Dataset, split: str, limit: int = 0) -> list[CaptionRecord]:
    """The records of a split that have reference captions; says how many have none.

    Raises:
        DataError: none has.
        UsageError: a limit below 0.
    """
    if limit < 0:
        raise UsageError(f"--limit {limit}: expected 0 or more")
    every = dataset.split(split)
    records = [record for record in every if record.captions]
    if not records:
        raise DataError(f"{dataset.folder}: split {split!r} has no reference captions")
    if len(records) < len(every):
        left_out = len(every) - len(records)
        logger.warning("split %r: %d pictures without captions are left out", split, left_out)
    return records[: limit or None]


def _human(
    records: Sequence[CaptionRecord], predictions: dict[str, str]
) -> dict[str, float | None]:
    """CIDEr and BLEU-4 of the first reference against the others, and of the model against those.

    CIDEr is None where it cannot tell good captions from bad ones.
    """
    others = {record.id: record.captions[1:] for record in records}
    person = score_captions(others, {record.id: record.captions[0] for record in records})
    own = score_captions(others, predictions)
    known = cider_problem(others) is None
    return {
        "cider": person["cider"] if known else None,
        "bleu_4": person["bleu_4"],
        "model_cider": own["cider"] if known else None,
        "model_bleu_4": own["bleu_4"],
    }


def _verdicts(
    dataset: Dataset, records: Sequence[CaptionRecord], captions: Sequence[Caption]
) -> list[scenes.Verdict] | None:
    """Whether each caption is true of its scene; None for datasets whose truth is not known."""
    if dataset.kind != "scenes" or dataset.folder is None:
        return None
    truth = scenes.read_truth(dataset.folder)
    return [scenes.judge(c.text, truth[r.id]) for r, c in zip(records, captions, strict=True)]


def caption_pointing(
    records: Sequence[CaptionRecord], captions: Sequence[Caption]
) -> Pointing | None:
    """The pointing score of the words that name a box.

    None where no word names a box or the model has no attention.
    """
    if any(caption.attention is None for caption in captions):
        return None
    return pointing(
        (gaze, [box for box in record.boxes if word in box.words])
        for record, caption in zip(records, captions, strict=True)
        if caption.attention is not None
        for word, gaze in zip(caption.words, caption.attention, strict=True)
    )


COVERAGES = (0.25, 0.5, 0.75, 1.0)
CALIBRATION = 30  # answers: with fewer, a bin of confidences holds one or two


@dataclass(frozen=True)
class AnswerEvaluation:
    """What was measured on a split.

    Attributes:
        figures: JSON values: ``metrics`` and the rest, as ``gazetell evaluate --json`` prints. A
            figure that cannot be known is None, and ``not_measured`` says why.
        records: of the split.
        answers: the model's, in the records' order, without pictures and attention.
        scores: accuracy of each, in [0, 1].
    """

    figures: dict[str, Any]
    records: Sequence[QuestionRecord]
    answers: Sequence[Answer]
    scores: Sequence[float]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``metrics.json``, ``predictions.jsonl`` and the two plots."""
        folder = Path(folder)
        rows = [
            {
                "id": record.id,
                "answer": answer.text,
                "confidence": round(answer.confidence, 5),
                "accuracy": round(score, 5),
            }
            for record, answer, score in zip(self.records, self.answers, self.scores, strict=True)
        ]
        write_jsonl(folder / "predictions.jsonl", rows)
        sure = [answer.confidence for answer in self.answers]
        save_reliability(folder / "reliability.png", reliability(sure, self.scores))
        save_risk_coverage(folder / "risk-coverage.png", risk_coverage(sure, self.scores))
        write_json(folder / "metrics.json", self.figures)

    def with_picture(self, index: int, root: Path, model: Answerer) -> Answer:
        """An answer with its picture and its attention, to show its gaze."""
        record = self.records[index]
        return model.ask(root / record.image, record.question)


def evaluate_answers(
    model: Answerer,
    dataset: Dataset,
    *,
    split: str = "test",
    batch: int = 64,
    limit: int = 0,
    abstain_below: float = 0.0,
    evidence: bool = False,
    question_only: Answerer | None = None,
    progress: bool = False,
) -> AnswerEvaluation:
    """Answer a split and measure.

    Args:
        model: a loaded answerer.
        dataset: a prepared dataset.
        split: of the dataset.
        batch: pictures a forward pass, with all their questions.
        limit: only the questions of the first so many pictures; 0 for all.
        abstain_below: count the questions answered with at least this confidence, too.
        evidence: also ask about a grey picture and about another picture.
        question_only: a model trained without pictures, to compare with.
        progress: show a progress bar on standard error.

    Raises:
        DataError: the split has no answered questions, or one alone beside ``question_only``.
        UsageError: a limit or a bound out of range.
    """
    if limit < 0:
        raise UsageError(f"--limit {limit}: expected 0 or more")
    check_bound(abstain_below)
    asked: dict[str, list[QuestionRecord]] = {}
    unanswered = 0
    for record in dataset.questions_of(split):
        unanswered += not record.answers
        if record.answers:
            asked.setdefault(record.image, []).append(record)
    images = list(asked)[: limit or None]
    if not images:
        raise DataError(f"{dataset.folder}: split {split!r} has no answered questions")
    if unanswered:
        logger.warning("split %r: %d questions without answers are left out", split, unanswered)
    records = [record for image in images for record in asked[image]]
    if question_only is not None and len(records) < 2:
        raise DataError(
            f"{dataset.folder}: split {split!r} has one answered question; a comparison with a "
            "question-only model takes two"
        )
    answers: list[Answer] = []
    gazes: list[tuple[np.ndarray, Sequence[Box]]] = []  # (P, height, width)
    changed = _Changed(model)
    seconds, first = 0.0, 0
    with bar("answers", progress) as update:
        for grid in grids(model, dataset, images, batch):
            pictures = len(grid.cells)
            group = [asked[image] for image in images[first : first + pictures]]
            first += pictures
            now = [record for some in group for record in some]
            texts = [model.read_question(record.question) for record in now]
            owner = torch.tensor([n for n, some in enumerate(group) for _ in some])
            began = time.perf_counter()
            found = model.answer(grid, texts, owner, abstain_below=abstain_below)
            seconds += time.perf_counter() - began
            if evidence:
                changed.ask(grid, texts, owner)
            gazes += [
                (answer.attention, record.boxes)
                for record, answer in zip(now, found, strict=True)
                if answer.attention is not None and record.boxes
            ]
            answers += [replace(answer, attention=None) for answer in found]
            update(len(answers), len(records))
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
    training = [r for r in dataset.questions if r.split == "train" and r.answers]
    cut = sum(answer.cut > 0 for answer in answers)
    if cut:
        logger.warning(
            "%d questions of more than %d words are cut at that", cut, model.max_question
        )
    not_measured: dict[str, str] = {}
    if len(answers) < CALIBRATION:
        not_measured["ece"] = f"{len(answers)} answers; expected {CALIBRATION} or more"
    if not training:
        not_measured["most frequent"] = "the dataset has no answered training questions"
    if not gazes:
        not_measured["pointing"] = (
            "no question is about a thing with a box"
            if model.attentive
            else "the model has no attention"
        )
    evidenced = None
    if evidence:
        evidenced = changed.figures(records, answers, official["accuracy"])
        if evidenced["other_picture"] is None:
            not_measured["other picture"] = "the questions are about one picture"
    figures: dict[str, Any] = {
        "metrics": {
            "accuracy": official["accuracy"],
            "ece": None if "ece" in not_measured else expected_calibration_error(sure, scores),
            "risk_coverage_area": risk_coverage(sure, scores).area,
        },
        "measure": official["measure"],
        "per_answer_type": official["per_answer_type"],
        "per_question_type": official["per_question_type"],
        "dataset": dataset.name,
        "split": split,
        "questions": len(records),
        "pictures": len(images),
        "temperature": model.temperature,
        "selective": _selective(sure, scores, abstain_below),
        "bias": bias(training, records, model.answers),
        "question_only": None,
        "evidence": evidenced,
        "pointing": None,
        "wups": None,
        "cut_questions": cut / len(answers),
        "unknown_words": sum(bool(answer.unknown) for answer in answers) / len(answers),
        "answers_per_second": round(len(answers) / seconds, 1),
        "not_measured": not_measured,
    }
    if question_only is not None:
        twin = evaluate_answers(question_only, dataset, split=split, batch=batch, limit=limit)
        other = _texts(twin.records, [answer.text for answer in twin.answers])
        compared = compare_answers(references, predictions, other)["accuracy"]
        figures["question_only"] = {"accuracy": twin.figures["metrics"]["accuracy"]}
        figures["question_only"] |= asdict(compared)
    if gazes:
        passes = range(len(gazes[0][0]))
        each = [pointing((gaze[p], boxes) for gaze, boxes in gazes) for p in passes]
        figures["pointing"] = [asdict(one) for one in each if one is not None]
    if dataset.kind == "daquar":
        found_wups = score_wups(references, predictions)
        figures["wups"] = {
            **{str(threshold): value for threshold, value in found_wups.scores.items()},
            "reason": found_wups.reason,
        }
    return AnswerEvaluation(figures, records, answers, scores)


class _Changed:
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
        self.blank += self._answers(self.model.blank(), questions, torch.zeros_like(owner))
        before = grid.rows(0, len(grid.cells) - 1)
        if self.last is None:
            count = int((owner == 0).sum())
            self.first = list(questions[:count])
            questions, owner = questions[count:], owner[count:] - 1
        else:
            before = Grid.join([self.last, before])
        if questions:
            self.other += self._answers(before, questions, owner)
        self.last = grid.rows(len(grid.cells) - 1, len(grid.cells))

    def _answers(self, grid: Grid, questions: Sequence[Question], owner: torch.Tensor) -> list[str]:
        best = self.model.logits(grid, questions, owner)[0].argmax(1).tolist()
        return [self.model.answers.answers[place] for place in best]

    def figures(
        self, records: Sequence[QuestionRecord], answers: Sequence[Answer], accuracy: float
    ) -> dict[str, dict[str, float] | None]:
        """Accuracy, accuracy lost and the share of answers changed, for both.

        None for the other picture where there is none.
        """
        told: dict[str, list[str] | None] = {"blank": self.blank, "other_picture": None}
        if self.other and self.last is not None:
            nowhere = torch.zeros(len(self.first), dtype=torch.long)
            told["other_picture"] = self._answers(self.last, self.first, nowhere) + self.other
        references = {record.id: record.answers for record in records}
        figures: dict[str, dict[str, float] | None] = {}
        for name, texts in told.items():
            if texts is None:
                figures[name] = None
                continue
            score = score_answers(references, _texts(records, texts))["accuracy"]
            changed = [a.text != text for a, text in zip(answers, texts, strict=True)]
            figures[name] = {
                "accuracy": score,
                "lost": round(accuracy - score, 2),
                "changed": sum(changed) / len(changed),
            }
        return figures


def _texts(records: Sequence[QuestionRecord], texts: Sequence[str]) -> dict[str, str]:
    return {record.id: text for record, text in zip(records, texts, strict=True)}


def _selective(
    sure: Sequence[float], scores: Sequence[float], abstain_below: float
) -> dict[str, Any]:
    """Accuracy, in 0 to 100, at some coverages, and of what is answered above the bound.

    None at a coverage of less than a question.
    """
    curve = risk_coverage(sure, scores)
    at = {}
    for share in COVERAGES:
        first = round(share * len(scores))
        # Of too few questions there is no such share.
        at[str(share)] = round(100 * (1 - float(curve.risk[first - 1])), 2) if first else None
    kept = [score for p, score in zip(sure, scores, strict=True) if p >= abstain_below]
    return {
        "accuracy_at_coverage": at,
        "abstain_below": abstain_below,
        "coverage": len(kept) / len(scores),
        "accuracy": round(100 * sum(kept) / len(kept), 2) if kept else None,
    }

"""Evaluation: a trained captioner against a split of a prepared dataset.

Besides the official metrics: how varied the captions are, what one reference scores against the
others (the level of a person), on datasets with boxes how often the gaze points at what a word
names, and on scenes how many captions are true.
"""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import scenes
from ..data.records import CaptionRecord, Dataset
from ..errors import DataError, UsageError
from ..features import grids
from ..files import write_json, write_jsonl
from ..metrics import caption_scores, cider_problem, score_captions
from ..pictures import open_image, preview
from ..progress import bar
from .pointing import Pointing, pointing
from .predictor import Caption, Captioner

__all__ = ["Evaluation", "caption_pointing", "evaluate", "scored_records"]

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

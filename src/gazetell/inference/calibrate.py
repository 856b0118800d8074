"""Calibration of a trained model on a validation split, as training does at its end.

``gazetell calibrate`` and ``gazetell evaluate --calibrate`` are ``calibrate_and_keep``. What is
fitted to a large model lies in a file of its own (``calibration_file``). Its training pictures are
not known, so it calls no picture unfamiliar.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.records import Dataset, QuestionRecord
from ..errors import DataError, UsageError
from ..features import grids
from ..files import read_json, write_json
from ..metrics import answer_accuracy
from ..models.confidence import (
    ANSWERS,
    SAMPLE,
    Novelty,
    fit_abstaining,
    fit_confidence,
    fit_novelty,
    fit_temperature,
    hide_a_word,
    likeliest,
)
from ..models.decoding import Decoded
from ..models.encoders import Grid
from ..models.folder import update_settings
from ..models.large import calibration_file
from ..process import bar
from .evaluate import asked_grids, asked_records, opened, scored_records
from .large import Large, LargeAnswerer, LargeCaptioner
from .predict import Answerer, Captioner

log = logging.getLogger(__name__)


def calibrate(
    model: Captioner | Answerer,
    dataset: Dataset | str | os.PathLike[str],
    *,
    batch: int = 64,
    limit: int = 0,
    progress: bool = False,
) -> int:
    """Fit anew what a loaded model knows of itself, as training does at its end.

    Of both that is ``novelty``; of a captioner also ``confidence``, of an answerer
    ``abstain_below`` and ``unknown_temperature``; its temperature stays.

    Args:
        model: not an ensemble.
        dataset: that it was trained on, with ``val`` and ``train``.
        batch: pictures a forward pass.
        limit: only the first so many validation pictures; 0 for all.
        progress: show a progress bar on standard error.

    Returns:
        How many captions or answers it was fitted to.

    Raises:
        DataError: the splits are not there, or nothing can be fitted to them; the model is as it
            was.
        UsageError: an ensemble.
    """
    dataset = opened(dataset, batch, limit)
    if isinstance(model, Answerer):
        return _answers(model, dataset, batch, limit, progress)
    if model.members > 1:
        raise UsageError("a confidence is fitted to one model; expected no ensemble")
    if model.blind:
        raise UsageError("a blind captioner looks at no picture and gets no confidence")
    records = scored_records(dataset, "val", limit)
    images = [record.image for record in records]
    training = None
    if not isinstance(model, Large):
        names = [record.image for record in dataset.split("train")]
        training = _training(model, dataset, names, batch)
    pooled, captions = list[torch.Tensor](), list[Decoded]()
    with bar("captions", progress) as update:
        for grid in grids(model, dataset, images, batch):
            pooled.append(grid.pooled.float().cpu())
            captions += [best[0] for best in model.search(grid, model.decoding)]
            update(len(captions), len(records))
    seen = torch.cat(pooled)
    novelty = None if training is None else fit_novelty(training, seen)
    far = novelty.distance(seen) if isinstance(novelty, Novelty) else np.zeros(len(captions))
    said = [record.captions for record in records]
    fitted = fit_confidence(captions, far, model.tokenizer.decode, said)
    if isinstance(fitted, str):
        raise DataError(f"{dataset.folder}: no confidence can be fitted: {fitted}")
    model.confidence, model.novelty = fitted, _told(novelty)
    return len(records)


def calibrate_and_keep(
    model: Captioner | Answerer,
    home: Path,
    dataset: Dataset,
    *,
    limit: int = 0,
    progress: bool = False,
) -> str:
    """``calibrate``, and keep what was fitted in the model's folder.

    Args:
        model: loaded from ``home``.
        home: its folder; of a large model of no account.
        dataset: as for ``calibrate``.
        limit: likewise.
        progress: likewise.

    Returns:
        A line that says what was fitted, and where it is.

    Raises:
        WriteError: the folder cannot be written; else as for ``calibrate``.
    """
    count = calibrate(model, dataset, limit=limit, progress=progress)
    fitted, what = ["abstain_below", "unknown_temperature", "novelty"], "answers"
    if isinstance(model, Captioner):
        fitted, what = ["confidence", "novelty"], "captions"
    if isinstance(model, Large):
        home, fitted = calibration_file(model.fingerprint), fitted[:1]
        values: dict[str, Any] = {}
        if isinstance(model, LargeCaptioner) and model.confidence:
            values = {"confidence": model.confidence.to_dict()}
        elif isinstance(model, Answerer):
            fitted = ["temperature", "abstain_below"]
            values = {name: getattr(model, name) for name in fitted}
        write_json(home, (read_json(home) if home.is_file() else {}) | values)
    else:
        update_settings(home, {name: getattr(model, name) for name in fitted})
    return f"{home}: {', '.join(fitted)} fitted on {count} {what} of val"


def _answers(model: Answerer, dataset: Dataset, batch: int, limit: int, progress: bool) -> int:
    asked = asked_records(dataset, "val", limit)
    total = sum(map(len, asked.values()))
    if total < ANSWERS:
        raise DataError(
            f"{dataset.name}: no bound can be fitted: {total} validation answers; expected "
            f"{ANSWERS} or more"
        )
    if isinstance(model, LargeAnswerer):
        return _large_answers(model, asked_grids(model, dataset, asked, batch, progress))
    unk = model.tokenizer.unk
    novelty: Novelty | str | None = None
    names = [record.image for record in dataset.questions_of("train")]
    training = None if model.blind else _training(model, dataset, names, batch)
    pooled = list[torch.Tensor]()
    logits: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    right: tuple[list[float], list[float]] = ([], [])
    for grid, records, owner in asked_grids(model, dataset, asked, batch, progress):
        pooled.append(grid.pooled.float().cpu())
        whole = [model.read_question(record.question) for record in records]
        hidden = [hide_a_word(q.ids, unk) for q in whole]
        masked = [replace(q, ids=ids) for q, ids in zip(whole, hidden, strict=True)]
        for questions, found, scores in zip((whole, masked), logits, right, strict=True):
            found.append(model.logits(grid, questions, owner)[0])
            said = [model.answers.answers[best] for best in found[-1].argmax(1).tolist()]
            pairs = zip(records, said, strict=True)
            scores += [answer_accuracy(record.answers, text) for record, text in pairs]
    if training is not None:
        novelty = fit_novelty(training, torch.cat(pooled))
    sure = likeliest(torch.cat(logits[0]), model.temperature, model.sigmoid)
    model.abstain_below = fit_abstaining(sure.tolist(), right[0], log.warning)
    unknown = fit_temperature(torch.cat(logits[1]), right[1], sigmoid=model.sigmoid)
    model.unknown_temperature = max(model.temperature, unknown)
    model.novelty = _told(novelty)
    return total


def _large_answers(
    model: LargeAnswerer, asked: Iterable[tuple[Grid, list[QuestionRecord], torch.Tensor]]
) -> int:
    """Fit the temperature of the log-odds of written answers, and the bound to abstain below."""
    sure, right = list[float](), list[float]()
    for grid, records, owner in asked:
        told = model.answer(grid, [record.question for record in records], owner)
        sure += [answer.confidence for answer in told]
        right += [answer_accuracy(r.answers, x.text) for r, x in zip(records, told, strict=True)]
    p = np.array(sure).clip(1e-300, 1 - 1e-9)
    logits = model.temperature * (np.log(p) - np.log1p(-p))[:, None]
    model.temperature = fit_temperature(logits, right, sigmoid=True)
    fitted = likeliest(logits, model.temperature, True).tolist()
    model.abstain_below = fit_abstaining(fitted, right, log.warning)
    return len(right)


def _training(
    model: Captioner | Answerer, dataset: Dataset, names: Sequence[str], batch: int
) -> torch.Tensor:
    """The pooled grids (M, C) of some training pictures, spread over the split."""
    images = list(dict.fromkeys(names))
    if not images:
        raise DataError(f"{dataset.folder}: split 'train' has no pictures to compare others with")
    sample = images[:: -(-len(images) // SAMPLE)]
    return torch.cat([grid.pooled.float().cpu() for grid in grids(model, dataset, sample, batch)])


def _told(novelty: Novelty | str | None) -> Novelty | None:
    if isinstance(novelty, str):
        log.warning("unfamiliar pictures will not be marked: %s", novelty)
        return None
    return novelty

"""``gazetell score``."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..data.answer_predictions import (
    RowFile,
    read_answer_predictions,
    read_answer_references,
)
from ..data.predictions import match, read_predictions, read_references
from ..errors import DataError, UsageError
from ..metrics import (
    YEARS,
    Difference,
    answer_measure,
    compare_answers,
    compare_captions,
    score_answers,
    score_captions,
    score_wups,
)
from .terminal import print_json

__all__ = ["score"]

LEVEL = 0.95  # of the interval of a difference

logger = logging.getLogger(__name__)


def score(
    *,
    references: Path,
    predictions: Path,
    against: Path | None = None,
    resamples: int = 1000,
    seed: int = 0,
    java: bool = False,
    wups: bool = False,
    year: int = 2021,
    json: bool = False,
) -> None:
    """Score captions, or answers to questions, with the official metrics.

    Captions need no Java for all but METEOR and SPICE. What the files hold is seen by their
    content.

    Args:
        references: Captions: JSON Lines {"id", "captions": [...]}, or COCO annotation JSON.
            Answers: JSON Lines {"id", "answers": [...]}, or VQA annotation JSON.
        predictions: Captions: JSON Lines {"id", "caption"}, or COCO result JSON. Answers: JSON
            Lines {"id", "answer"}, or VQA result JSON.
        against: Other predictions of the same pictures or questions: print both scores and the
            95 % interval of their difference, by the paired bootstrap.
        resamples: With AGAINST, how many times pictures or questions are drawn.
        seed: With AGAINST, of the draws.
        java: Captions: also METEOR and SPICE, where Java and pycocoevalcap are there.
        wups: Answers: also WUPS at 0.9 and 0.0, where nltk and WordNet are there.
        year: Answers: the rules of the official VQA evaluation, 2021 or 2015 (before 2021).
        json: Print one JSON object instead of lines.
    """
    if against is not None and java:
        raise UsageError("--java: METEOR and SPICE are not compared; leave out --java or --against")
    if against is not None and wups:
        raise UsageError("--wups: WUPS is not compared; leave out --wups or --against")
    if resamples < 1:
        raise UsageError(f"--resamples {resamples}: expected at least 1")
    if seed < 0:
        raise UsageError(f"--seed {seed}: expected 0 or more")
    if year not in YEARS:
        raise UsageError(f"--year {year}: expected {' or '.join(map(str, YEARS))}")
    paths = [references, predictions] + ([] if against is None else [against])
    files = [RowFile.read(path) for path in paths]
    if _holds(files) == "answers":
        if java:
            raise UsageError(f"--java: METEOR and SPICE are for captions; {references} has answers")
        _answers(files, resamples=resamples, seed=seed, wups=wups, year=year, json=json)
    else:
        if wups or year != max(YEARS):
            option = "--wups" if wups else "--year"
            raise UsageError(f"{option}: is for answers; {references} has captions")
        _captions(paths, resamples=resamples, seed=seed, java=java, json=json)


def _holds(files: list[RowFile]) -> str | None:
    """What all the files hold; files of which that cannot be told go with the others."""
    kinds = {str(file.path): kind for file in files if (kind := file.holds()) is not None}
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{path} holds {kind}" for path, kind in kinds.items())
        raise DataError(f"{told}; expected captions in all or answers in all")
    return next(iter(kinds.values()), None)


def _captions(paths: list[Path], *, resamples: int, seed: int, java: bool, json: bool) -> None:
    references, *models = paths
    wanted, found = read_references(references), [read_predictions(path) for path in models]
    for path, captions in zip(models, found, strict=True):
        match(wanted, captions, references_name=str(references), predictions_name=str(path))
    if len(found) > 1:
        if len(wanted) < 2:
            raise DataError(f"{references}: has one picture; expected at least two to compare on")
        compared = compare_captions(wanted, *found, resamples=resamples, seed=seed, level=LEVEL)
        about = {"pictures": len(wanted), "resamples": resamples, "seed": seed, "level": LEVEL}
        _print_comparison(compared, about, json, digits=4)
        return
    scores = score_captions(wanted, found[0], java=java)
    if json:
        print_json(scores)
        return
    for name, value in scores.items():
        print(f"{name:<8} {'not computed' if value is None else f'{value:.4f}'}")


def _answers(
    files: list[RowFile], *, resamples: int, seed: int, wups: bool, year: int, json: bool
) -> None:
    references, *models = files
    wanted = read_answer_references(references)
    found = [read_answer_predictions(file) for file in models]
    for file, answers in zip(models, found, strict=True):
        match(
            wanted.answers,
            answers,
            what="question",
            references_name=references.path,
            predictions_name=file.path,
        )
    questions = len(wanted.answers)
    if len(found) > 1:
        if questions < 2:
            raise DataError(
                f"{references.path}: has one question; expected at least two to compare on"
            )
        compared = compare_answers(
            wanted.answers, *found, resamples=resamples, seed=seed, level=LEVEL, year=year
        )
        about = {
            "questions": questions,
            "measure": answer_measure(wanted.answers, year=year),
            "resamples": resamples,
            "seed": seed,
            "level": LEVEL,
        }
        _print_comparison(compared, about, json, digits=2)
        return
    scores = score_answers(
        wanted.answers,
        found[0],
        question_types=wanted.question_types,
        answer_types=wanted.answer_types,
        year=year,
    )
    if wups:
        computed = score_wups(wanted.answers, found[0])
        scores |= {f"wups_{threshold}": value for threshold, value in computed.scores.items()}
        if computed.reason is not None:
            logger.warning("WUPS not computed: %s", computed.reason)
    if json:
        print_json(scores)
    else:
        print("\n".join(_answer_lines(scores)))


def _answer_lines(scores: Mapping[str, Any]) -> list[str]:
    """The accuracy and its measure, WUPS, and a line a type."""
    about = f"{scores['measure']}, {scores['questions']:,} questions"
    lines = [f"accuracy  {scores['accuracy']:>6.2f}  {about}"]
    for name, value in scores.items():
        if name.startswith("wups"):
            lines.append(f"{name:<8}  {'not computed' if value is None else f'{value:>6.2f}'}")
    for name in ("answer", "question"):
        types = scores[f"per_{name}_type"]
        lines += [f"{name} type"] if types else []
        lines += [f"  {value:>6.2f}  {kind}" for kind, value in types.items()]
    return lines


def _print_comparison(
    compared: Mapping[str, Difference], about: Mapping[str, Any], json: bool, digits: int
) -> None:
    """One JSON object, or a table with a line a metric."""
    if json:
        print_json({**about, "metrics": {name: asdict(one) for name, one in compared.items()}})
        return
    print(f"{'':<8} predictions  against  difference  {100 * LEVEL:.0f} % interval")
    for name, one in compared.items():
        interval = f"{one.low:+.{digits}f} to {one.high:+.{digits}f}"
        verdict = "a difference" if one.significant else "no difference shown"
        print(
            f"{name:<8} {one.first:>11.{digits}f}  {one.second:>7.{digits}f}"
            f"  {one.difference:>+10.{digits}f}  {interval}  {verdict}"
        )

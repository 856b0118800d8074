"""``gazetell score``."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ..data.predictions import RowFile, content_of, match, read_texts
from ..data.records import MACHINE_MADE
from ..errors import DataError, UsageError
from ..files import read_json
from ..metrics import (
    TITLES,
    YEARS,
    Difference,
    answer_measure,
    cider_problem,
    compare_answers,
    compare_captions,
    points,
    score_answers,
    score_captions,
    score_wups,
)
from ..metrics.answers import EXACT
from .terminal import print_json

LEVEL = 0.95  # of the interval of a difference
LEAST = 40  # draws whose ends are that interval's

logger = logging.getLogger(__name__)


def score(
    *,
    references: Path,
    predictions: Path,
    against: Path | None = None,
    split: str | None = None,
    subset: bool = False,
    resamples: int | None = None,
    seed: int | None = None,
    java: bool = False,
    wups: bool = False,
    year: int | None = None,
    json: bool = False,
) -> None:
    """Score captions, or answers to questions, with the official metrics.

    Captions need no Java for all but METEOR and SPICE. What the files hold is seen by their
    content.

    Args:
        references: Captions: JSON Lines {"id", "captions": [...]}, or COCO annotation JSON.
            Answers: JSON Lines {"id", "answers": [...]}, or VQA annotation JSON. Of both also a
            .csv or .tsv table with the columns of gazetell data table.
        predictions: Captions: JSON Lines {"id", "caption"}, or COCO result JSON. Answers: JSON
            Lines {"id", "answer"}, or VQA result JSON. Of both also a table, such as gazetell
            describe and caption --csv write.
        against: Other predictions of the same pictures or questions: print both scores and the
            95 % interval of their difference, by the paired bootstrap.
        split: Of a prepared captions.jsonl or questions.jsonl as references: only the rows of this
            split.
        subset: Score only the pictures or questions that have a prediction, and say how many
            were left out.
        resamples: With AGAINST, how many times pictures or questions are drawn (1000).
        seed: With AGAINST, random seed of the draws (0).
        java: Captions: also METEOR and SPICE, where Java and pycocoevalcap are there.
        wups: Answers: also WUPS at 0.9 and 0.0, where WordNet is there.
        year: Answers: the rules of the official VQA evaluation, 2021 (as without this option) or
            2015 (before 2021).
        json: Print one JSON object instead of lines.
    """
    options = {"resamples": resamples, "seed": seed, "java": java, "wups": wups, "year": year}
    given = {name for name, value in options.items() if value is not None and value is not False}
    if against is None:
        _refuse(given & {"resamples", "seed"}, "needs --against")
    else:
        _refuse(given & {"java", "wups"}, "is not compared; leave it out, or --against")
    if resamples is not None and resamples < LEAST:
        raise UsageError(f"--resamples {resamples}: expected at least {LEAST}")
    if seed is not None and seed < 0:
        raise UsageError(f"--seed {seed}: expected 0 or more")
    if year not in (None, *YEARS):
        raise UsageError(f"--year {year}: expected {' or '.join(map(str, YEARS))}")
    told = [predictions, *([against] if against else [])]
    files = [RowFile.read(references), *(RowFile.read(path, model=True) for path in told)]
    about_data = references.parent / "dataset.json"
    prepared = references.name in ("captions.jsonl", "questions.jsonl") and about_data.is_file()
    if prepared and (made := dict(read_json(about_data)).get("machine_made")):
        logger.warning(MACHINE_MADE, references.parent, ", ".join(made))
    if split is not None:
        files[0] = files[0].of_split(split)
    content = content_of(files)
    if content == "captions":
        _refuse(given & {"wups", "year"}, f"is for answers; {references} has captions")
    else:
        _refuse(given & {"java"}, f"is for captions; {references} has answers")

    models = [read_texts(file, content, model=True) for file in files[1:]]
    wanted, models, left_out = match(read_texts(files[0], content), models, content, subset=subset)
    said = [{name: text for name, (text,) in model.texts.items()} for model in models]
    items = "pictures" if content == "captions" else "questions"
    about: dict[str, Any] = {items: len(wanted.texts)} | ({"left_out": left_out} if subset else {})
    if left_out:
        logger.warning("left out, since they have no prediction: %d of the %s", left_out, items)
    if against is not None and len(wanted.texts) < 2:
        raise DataError(f"{references}: has one of the {items}; a comparison needs at least two")
    rules = year or max(YEARS)
    compare: Any = compare_captions
    if content == "answers":
        about["measure"] = answer_measure(wanted.texts, year=rules)
        if about["measure"] == EXACT:
            _refuse(given & {"year"}, f"is for four answers a question or more; {references}")
        compare = partial(compare_answers, year=rules)
    elif problem := cider_problem(wanted.texts):
        logger.warning("CIDEr says nothing here: %s", problem)

    if against is not None:
        draws = {"resamples": resamples or 1000, "seed": seed or 0, "level": LEVEL}
        compared = compare(wanted.texts, *said, **draws)
        if json:
            metrics = {name: asdict(difference) for name, difference in compared.items()}
            print_json({**about, **draws, "metrics": metrics})
        else:
            print("\n".join(comparison(compared, str(predictions), str(against))))
        return
    scores: dict[str, Any]
    if content == "captions":
        scores = dict(score_captions(wanted.texts, said[0], java=java))
        lines = [f"{TITLES[name]:<8} {points(name, value):>5}" for name, value in scores.items()]
        scores |= about if subset else {}
    else:
        types = {"question_types": wanted.question_types, "answer_types": wanted.answer_types}
        scores = score_answers(wanted.texts, said[0], **types, year=rules) | about
        if wups:
            computed = score_wups(wanted.texts, said[0])
            scores |= {f"wups_{threshold}": value for threshold, value in computed.scores.items()}
            if computed.reason is not None:
                logger.warning("WUPS not computed: %s", computed.reason)
        lines = _answer_lines(scores)
    if json:
        print_json(scores)
    else:
        print("\n".join(lines))


def _refuse(options: set[str], reason: str) -> None:
    """Refuse options that would have no effect."""
    for name in sorted(options):
        raise UsageError(f"--{name}: {reason}")


def _figure(value: float | None, form: str) -> str:
    return "not computed" if value is None else format(value, form)


def _answer_lines(scores: Mapping[str, Any]) -> list[str]:
    """The accuracy and its measure, WUPS, and a line a type."""
    about = f"{scores['measure']}, {scores['questions']:,} questions"
    lines = [f"accuracy  {scores['accuracy']:>6.2f}  {about}"]
    for name, value in scores.items():
        if name.startswith("wups"):
            lines.append(f"{name:<8}  {_figure(value, '>6.2f')}")
    for name in ("answer", "question"):
        types = scores[f"per_{name}_type"]
        lines += [f"{name} type"] if types else []
        lines += [f"  {value:>6.2f}  {type_}" for type_, value in types.items()]
    return lines


def comparison(compared: Mapping[str, Difference], *names: str) -> Iterator[str]:
    """A table with a line a metric; ``names`` are those of the two that are compared."""
    one, other = (max(len(name), 6) for name in names)
    head = f"{names[0]:>{one}}  {names[1]:>{other}}  difference"
    yield f"{'':<8} {head}  {100 * LEVEL:.0f} % interval"
    for name, scores in compared.items():
        interval = f"{points(name, scores.low, '+.2f')} to {points(name, scores.high, '+.2f')}"
        verdict = "a difference" if scores.significant else "no difference shown"
        yield (
            f"{TITLES[name]:<8} {points(name, scores.first, f'>{one}.2f')}  "
            f"{points(name, scores.second, f'>{other}.2f')}  "
            f"{points(name, scores.difference, '>+10.2f')}  {interval}  {verdict}"
        )

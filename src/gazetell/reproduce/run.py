"""Making a table: each row trained, measured and printed; what is done is not done again.

The folder of a table::

    runs/NAME-seedN/     a run folder each, with its evaluations
    vectors-*.txt        word vectors trained on the captions, for the rows that ask for them
    results.json         all figures, after each row
    results.md           the table
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..data.records import Dataset
from ..data.text import Tokenizer
from ..data.vectors import Word2VecOptions, train_word2vec, write_vectors
from ..errors import UsageError
from ..files import read_json, read_jsonl, write_json, write_text
from ..inference.evaluate import evaluate
from ..inference.predictor import Captioner
from ..metrics import compare_captions
from ..models.folder import load_model, read_config, update_metrics
from ..training.fit import resume, train
from ..training.history import Report
from ..training.options import TrainOptions
from .plan import Plan, Row
from .table import HEADER, line, page

__all__ = ["reproduce"]


def reproduce(
    plan: Plan,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    encoder_weights: str | None = None,
    split: str = "test",
    java: bool = False,
    report: Report = print,
    show: Report = print,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Train, measure and tabulate the rows of a plan.

    Args:
        plan: see ``read_plan``.
        data: a prepared dataset.
        out: the folder of the table; a killed run goes on where it was.
        encoder_weights: instead of the recipes' own, where these cannot be downloaded.
        split: that is measured.
        java: also METEOR.
        report: takes lines about the work.
        show: takes the rows of the table as they come.
        progress: show progress bars on standard error.

    Returns:
        The figures, one for each run and beam.

    Raises:
        UsageError: a run folder that was made with other options, or an ensemble of models with
            different CNNs.
    """
    plan.check_ensembles(encoder_weights)
    out, dataset = Path(out), Dataset.open(data)
    found: list[dict[str, Any]] = []
    show(HEADER)
    for row in plan.rows:
        for seed, runs in _runs(plan, row, out):
            about: dict[str, Any] = {}
            if not row.members:
                options = row.train_options(seed, encoder_weights)
                if row.init_from:
                    begin = out / "runs" / plan.row(row.init_from).run_name(seed)
                    options = replace(options, init_from=str(begin.resolve()))
                if row.vectors:
                    file = _vectors(row.vectors, options.min_frequency, dataset, out, report)
                    options = replace(options, word_vectors=str(file.resolve()))
                _train(runs[0], Path(data), options, report, progress)
                about = _making(runs[0])
            model = None
            for beam in plan.beams:
                folder = runs[0] / "evaluation" / _name(split, beam, len(runs), row)
                if not (folder / "metrics.json").is_file():
                    model = model or Captioner.load(*runs)
                    result = evaluate(
                        model, dataset, split=split, java=java, progress=progress, beam=beam
                    )
                    result.save(folder)
                    if len(runs) == 1 and beam == model.decoding.beam:
                        update_metrics(runs[0], result.figures)
                figures = read_json(folder / "metrics.json")
                entry = {"row": row.name, "seed": seed, "folder": str(folder.relative_to(out))}
                found.append(entry | {"beam": beam, "figures": figures} | about)
                show(line(found[-1]))
                write_json(out / "results.json", found)
                write_text(out / "results.md", page(plan, found, []))
    differences = [_compare(found, pair, dataset, split, out) for pair in plan.compare]
    write_text(out / "results.md", page(plan, found, differences))
    report(f"the table is in {out / 'results.md'}")
    return found


def _runs(plan: Plan, row: Row, out: Path) -> Iterator[tuple[int, list[Path]]]:
    """Each seed of a row with its run folder, or an ensemble's once with all its members'."""
    if row.members:
        members = [plan.row(name) for name in row.members]
        yield 0, [out / "runs" / m.run_name(seed) for m in members for seed in m.seeds]
        return
    for seed in row.seeds:
        yield seed, [out / "runs" / row.run_name(seed)]


def _name(split: str, beam: int, runs: int, row: Row) -> str:
    name = f"{split}-beam{beam}"
    return name if runs == 1 else f"{name}-{row.run_name(0).removesuffix('-seed0')}"


def _train(run: Path, data: Path, options: TrainOptions, report: Report, progress: bool) -> None:
    """Train, go on with, or leave a finished run."""
    if not (run / "training.json").is_file():
        report(f"training {run.name}")
        train(data, run, options, report=report, progress=progress)
        return
    saved = read_json(run / "training.json")["options"]
    if options.init_from:
        options = options.taking_over(load_model(options.init_from))
    wanted = json.loads(json.dumps(options.to_dict()))  # tuples become lists, as in the file
    usual = TrainOptions().to_dict()  # of options that a run made earlier did not have yet
    for name, value in wanted.items():
        if value != saved.get(name, usual[name]):
            raise UsageError(
                f"{run}: was made with {name} {saved.get(name)}, the plan says {value}; "
                "delete it or name another --out"
            )
    if not (run / "config.json").is_file():
        resume(run, report=report, progress=progress)


def _vectors(size: int, frequency: int, dataset: Dataset, out: Path, report: Report) -> Path:
    """Word vectors of the training captions, made once."""
    path = out / f"vectors-{size}-frequency{frequency}.txt"
    if not path.is_file():
        report(f"training word vectors, {path.name}")
        captions = [caption for r in dataset.split("train") for caption in r.captions]
        tokenizer = Tokenizer.train(captions, min_frequency=frequency)
        words, matrix, _ = train_word2vec(captions, tokenizer, Word2VecOptions(size=size))
        write_vectors(path, words, matrix)
    return path


def _making(run: Path) -> dict[str, Any]:
    """What is known of the making of a run: size, time, speed."""
    about = read_config(run)["about"]
    rows = [row for _, row in read_jsonl(run / "metrics.jsonl")]
    seconds = sum(row["seconds"] for row in rows)
    return {
        "parameters": about["parameters"],
        "epochs": len(rows),
        "training_seconds": round(seconds, 1),
        "captions_per_second": round(about["captions"] * len(rows) / seconds, 1),
    }


def _compare(
    found: list[dict[str, Any]], pair: tuple[str, str], dataset: Dataset, split: str, out: Path
) -> dict[str, Any]:
    """The paired bootstrap between the first runs of two rows, at the beam that serves both best.

    The beam is the one with the highest CIDEr of the two rows together.
    """
    first, second = ({e["beam"]: e for e in reversed(found) if e["row"] == name} for name in pair)
    beam = max(
        first,
        key=lambda b: sum(e[b]["figures"]["metrics"]["cider"] or 0.0 for e in (first, second)),
    )
    references = {r.id: r.captions for r in dataset.split(split) if r.captions}
    predictions = [
        {
            row["id"]: row["caption"]
            for _, row in read_jsonl(out / e[beam]["folder"] / "predictions.jsonl")
        }
        for e in (first, second)
    ]
    differences = compare_captions(references, *predictions)
    return {
        "rows": list(pair),
        "beam": beam,
        "metrics": {name: asdict(value) for name, value in differences.items()},
    }

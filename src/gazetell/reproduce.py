"""A plan: which models a table of results holds and how each is trained.

A TOML file with a title, the beams, and its rows::

    title = "Flickr8k"
    beams = [1, 3]
    [[row]]
    name = "lstm"
    recipe = "flickr8k"
    options = {architecture = "lstm"}       # of TrainOptions, over the recipe's
    seeds = [0, 1]
    [[row]]
    name = "lstm, CIDEr"
    init_from = "lstm"                      # a second stage, from the row's run of the same seed
    options = {reward = "cider"}
    [[row]]
    name = "lstm, word vectors"
    recipe = "flickr8k"
    options = {architecture = "lstm"}
    vectors = 256                           # word2vec of that size on the training captions
    [[row]]
    name = "both"
    members = ["lstm", "lstm, CIDEr"]       # all their runs as an ensemble
    [[compare]]
    rows = ["lstm", "lstm, CIDEr"]          # paired bootstrap of their first runs
    [[published]]
    name = "..."                            # a row of the paper's figures, as text

The folder of a table::

    runs/NAME-seedN/     a run folder each, with its evaluations
    vectors-*.txt        word vectors trained on the captions, for the rows that ask for them
    results.json         all figures, after each row
    results.md           the table
"""

import json
import os
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from .data.records import Dataset
from .data.text import Tokenizer
from .data.vectors import train_word2vec, write_vectors
from .errors import DataError, UsageError
from .files import read_json, read_jsonl, read_text, write_json, write_text
from .inference.evaluate import evaluate
from .inference.predict import Captioner
from .metrics import compare_captions
from .models.folder import load_model, read_config, update_metrics
from .training.fit import resume, train
from .training.history import Report
from .training.options import TrainOptions, read_recipe

__all__ = ["HEADER", "Plan", "Row", "line", "page", "plan_names", "read_plan", "reproduce"]


@dataclass(frozen=True)
class Row:
    """One model of a table; see the module.

    ``members`` names the rows of an ensemble, which has no training of its own.
    """

    name: str
    recipe: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    init_from: str | None = None
    vectors: int = 0
    members: tuple[str, ...] = ()

    def run_name(self, seed: int) -> str:
        """The folder of the run with a seed."""
        words = "".join(c if c.isalnum() else " " for c in self.name.lower()).split()
        return f"{'-'.join(words)}-seed{seed}"

    def train_options(self, seed: int, encoder_weights: str | None) -> TrainOptions:
        """What the run with a seed is made of, apart from ``init_from``."""
        values = read_recipe(self.recipe) if self.recipe else {}
        values |= self.options | {"seed": seed}
        if encoder_weights:
            values["encoder_weights"] = encoder_weights
        return TrainOptions.from_dict(values, f"row {self.name!r}")


@dataclass(frozen=True)
class Plan:
    """A table to be made."""

    title: str
    beams: tuple[int, ...]
    rows: tuple[Row, ...]
    compare: tuple[tuple[str, str], ...] = ()
    published: tuple[dict[str, str], ...] = ()

    def row(self, name: str) -> Row:
        """The row of a name."""
        return next(row for row in self.rows if row.name == name)

    def check_ensembles(self, encoder_weights: str | None) -> None:
        """Refuse, before hours of work, an ensemble whose members would have different CNNs.

        Raises:
            UsageError: naming the row and two of its members.
        """
        for row in self.rows:
            runs = [(m, seed) for m in map(self.row, row.members) for seed in m.seeds]
            for (first, one), (other, two) in pairwise(runs):
                if self._cnn(first, one, encoder_weights) != self._cnn(other, two, encoder_weights):
                    raise UsageError(
                        f"row {row.name!r}: an ensemble needs one CNN, but {first.name!r} (seed "
                        f"{one}) and {other.name!r} (seed {two}) have each its own"
                    )

    def _cnn(self, row: Row, seed: int, encoder_weights: str | None) -> tuple[Any, ...]:
        """What tells the CNN of a run from others: equal means the same weights."""
        options = row.train_options(seed, encoder_weights)
        if options.encoder_trainable != "none":
            return row.name, seed
        if row.init_from:
            return self._cnn(self.row(row.init_from), seed, encoder_weights)
        # Each run may project the grid in its own way: that is no part of the CNN.
        config = replace(options.encoder_config(), project=None)
        return options.encoder_from, config, seed if config.weights == "none" else None


def plan_names() -> list[str]:
    """The plans that come with gazetell."""
    folder = resources.files(__package__) / "plans"
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".toml"))


def read_plan(name: str) -> Plan:
    """A plan by name or file.

    Raises:
        UsageError: no such plan.
        DataError: not TOML, an option that does not exist, or a row that names an unknown one.
    """
    if name in plan_names():
        source = f"plan {name}"
        text = (resources.files(__package__) / "plans" / f"{name}.toml").read_text("utf-8")
    elif Path(name).suffix == ".toml":
        source, text = name, read_text(name)
    else:
        raise UsageError(f"plan {name}: expected a .toml file or one of {', '.join(plan_names())}")
    try:
        values = tomllib.loads(text)
        plan = Plan(
            title=values["title"],
            beams=tuple(values["beams"]),
            rows=tuple(_row(row) for row in values["row"]),
            compare=tuple((a, b) for a, b in (pair["rows"] for pair in values.get("compare", []))),
            published=tuple(values.get("published", [])),
        )
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{source}: is not TOML: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{source}: is no plan: {type(error).__name__} {error}") from error
    _check(plan, source)
    return plan


def _row(values: dict[str, Any]) -> Row:
    lists: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Row(**lists)


def _check(plan: Plan, source: str) -> None:
    """Refuse a plan before hours of work, not after."""
    known: list[str] = []
    for row in plan.rows:
        for name in (*row.members, *([row.init_from] if row.init_from else [])):
            if name not in known:
                raise DataError(f"{source}: row {row.name!r} needs {name!r}, which is no row above")
        if row.name in known:
            raise DataError(f"{source}: two rows are named {row.name!r}")
        if not row.members:
            row.train_options(0, None)
        known.append(row.name)
    for pair in plan.compare:
        if unknown := [name for name in pair if name not in known]:
            raise DataError(f"{source}: compares {unknown[0]!r}, which is no row")


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
        words, matrix, _ = train_word2vec(captions, tokenizer, size=size)
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


COLUMNS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr")
KEYS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider")
NAMES = ("model", "seed", "beam", *COLUMNS, "parameters", "training", "captions/s", "pictures/s")
HEADER = f"| {' | '.join(NAMES)} |\n|{'---|' * len(NAMES)}"


def line(entry: dict[str, Any]) -> str:
    """The row of one run at one beam."""
    figures = entry["figures"]
    seconds = entry.get("training_seconds")
    cells = [
        entry["row"],
        str(entry["seed"]) if "parameters" in entry else "",
        "greedy" if entry["beam"] == 1 else str(entry["beam"]),
        *(_percent(figures["metrics"].get(key)) for key in KEYS),
        f"{entry['parameters'] / 1e6:.1f} M" if "parameters" in entry else "",
        f"{seconds / 60:.1f} min" if seconds else "",
        f"{entry['captions_per_second']:,.0f}" if seconds else "",
        f"{figures['decoding_pictures_per_second']:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def page(plan: Plan, found: Sequence[dict[str, Any]], differences: Sequence[dict[str, Any]]) -> str:
    """The whole table, the spread over seeds, the published rows and the comparisons."""
    lines = [f"# {plan.title}", "", HEADER, *(line(entry) for entry in found), ""]
    spreads = [text for row in plan.rows if (text := _spread(row.name, found))]
    if spreads:
        lines += ["Over the seeds, mean and standard deviation:", "", *spreads, ""]
    if plan.published:
        lines += ["| published | BLEU-1..4 | METEOR | CIDEr |", "|---|---|---|---|"]
        keys = ("name", "bleu", "meteor", "cider")
        lines += [f"| {' | '.join(row.get(k, '') for k in keys)} |" for row in plan.published]
        lines.append("")
    if differences:
        lines += [
            "Differences (first less second, the first run of each; 95 % interval of a paired "
            "bootstrap over pictures):",
            "",
            "| first | second | beam | BLEU-4 | CIDEr |",
            "|---|---|---|---|---|",
            *(_difference(one) for one in differences),
            "",
        ]
    return "\n".join(lines)


def _spread(name: str, found: Sequence[dict[str, Any]]) -> str:
    """A row's figures over its seeds, at each beam; empty for a single seed."""
    texts = []
    for beam in dict.fromkeys(entry["beam"] for entry in found):
        own = [e["figures"]["metrics"] for e in found if (e["row"], e["beam"]) == (name, beam)]
        if len(own) < 2:
            continue
        parts = []
        for key, title in (("bleu_4", "BLEU-4"), ("cider", "CIDEr")):
            values = [100 * metrics[key] for metrics in own if metrics[key] is not None]
            if len(values) < 2:
                continue
            parts.append(f"{title} {mean(values):.1f} ± {stdev(values):.1f}")
        texts.append(f"- {name}, beam {beam}, {len(own)} seeds: {', '.join(parts)}")
    return "\n".join(texts)


def _difference(one: dict[str, Any]) -> str:
    cells = [*one["rows"], str(one["beam"])]
    for key in ("bleu_4", "cider"):
        value = one["metrics"][key]
        text = f"{100 * value['difference']:+.1f} [{100 * value['low']:+.1f}, "
        text += f"{100 * value['high']:+.1f}]"
        cells.append(f"**{text}**" if value["significant"] else f"{text}: none shown")
    return f"| {' | '.join(cells)} |"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"

"""Tables of results by one command: each row trained, measured and printed, once.

A plan is a TOML file with a title, the beams, and the rows of the table::

    title = "Flickr8k"
    beams = [1, 3]
    [[row]]
    name = "lstm"
    recipe = "flickr8k"
    options = {architecture = "lstm"}       # of training, over the recipe's
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

import os
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
from .errors import DataError, GazetellError, UsageError
from .files import read_json, read_jsonl, write_json, write_text
from .inference.evaluate import evaluate
from .inference.predict import Captioner
from .metrics import compare_captions
from .models.captioners import CAPTIONERS
from .models.decoding import DecodingOptions
from .models.folder import read_config, update_metrics
from .training import options as training
from .training.fit import resume, train
from .training.options import TrainOptions, saved_options, train_options
from .training.task import Report

PLANS = resources.files(__package__) / "plans"


@dataclass(frozen=True)
class Row:
    """One model of a table; see the module. An ensemble of ``members`` has no training."""

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

    def train_options(self, seed: int, encoder_weights: str | None, **more: Any) -> TrainOptions:
        """What the run with a seed is made of; ``more`` are the paths of what it begins with."""
        options: Any = train_options(self.recipe, **{**self.options, "seed": seed, **more})
        published = options.encoder_weights != "none" and not options.encoder_from
        if not encoder_weights or not published or self.init_from:
            return options
        path = Path(encoder_weights)
        return replace(options, encoder_weights=str(path.resolve()) if path.exists() else str(path))


@dataclass(frozen=True)
class Pair:
    """Two rows to be compared."""

    rows: tuple[str, str]


@dataclass(frozen=True)
class Published:
    """A row of the paper's figures, as text."""

    name: str
    bleu: str = ""
    meteor: str = ""
    cider: str = ""


@dataclass(frozen=True)
class Plan:
    """A table to be made."""

    title: str
    beams: tuple[int, ...]
    rows: tuple[Row, ...]
    compare: tuple[Pair, ...] = ()
    published: tuple[Published, ...] = ()

    def row(self, name: str) -> Row:
        """The row of a name."""
        return next(row for row in self.rows if row.name == name)

    def planned(self, row: Row, seed: int, encoder_weights: str | None) -> TrainOptions:
        """The options of a run before that is there which it begins with."""
        more: dict[str, Any] = {"word_vectors": "made later"} if row.vectors else {}
        first = row
        while first.init_from:
            first = self.row(first.init_from)
        if first is not row:
            more["architecture"] = self.planned(first, seed, None).architecture
        return row.train_options(seed, encoder_weights, **more)

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
        options = self.planned(row, seed, encoder_weights)
        if options.encoder_trainable != "none":
            return row.name, seed
        if row.init_from:
            return self._cnn(self.row(row.init_from), seed, encoder_weights)
        # Each run may project the grid in its own way: that is no part of the CNN.
        config = replace(options.encoder_config(), project=None)
        return options.encoder_from, config, seed if config.weights == "none" else None


def plan_names() -> list[str]:
    """The plans that come with gazetell."""
    return training.toml_names(PLANS)


def read_plan(name: str) -> Plan:
    """A plan by name or file, checked before hours of work.

    Raises:
        UsageError: no such plan.
        DataError: not TOML, something that is not known, or a row that names an unknown one.
    """
    source, values = training.read_toml(name, PLANS, "plan")
    try:
        parts: dict[str, Any] = {
            key: tuple(made(**training.plain(part)) for part in values.pop(table, ()))
            for key, table, made in (
                ("rows", "row", Row),
                ("compare", "compare", Pair),
                ("published", "published", Published),
            )
        }
        beams = tuple(DecodingOptions(beam=beam).beam for beam in values.pop("beams"))
        plan = Plan(beams=beams, **parts, **values)
        if wrong := [row for row in plan.rows if not _well_typed(row)]:
            raise ValueError(f"row {wrong[0].name!r} has a value of another type than expected")
        if any(len(pair.rows) != 2 or pair.rows[0] == pair.rows[1] for pair in plan.compare):
            raise ValueError("compare: expected rows = two different names")
    except KeyError as error:
        raise DataError(f"{source}: is no plan: it lacks {error}") from error
    except (TypeError, ValueError, GazetellError) as error:
        raise DataError(f"{source}: is no plan: {error}") from error
    known: dict[str, Row] = {}
    for row in plan.rows:
        try:
            _check(plan, row, known)
        except GazetellError as error:
            raise DataError(f"{source}: row {row.name!r}: {error}") from error
        known[row.name] = row
    if unknown := [name for pair in plan.compare for name in pair.rows if name not in known]:
        raise DataError(f"{source}: compares {unknown[0]!r}, which is no row")
    return plan


def _well_typed(row: Row) -> bool:
    """Whether TOML gave what a row holds."""
    texts = (row.name, *row.members, *filter(None, (row.recipe, row.init_from)))
    numbers = (row.vectors, *row.seeds)
    return (
        all(isinstance(text, str) and text.strip() for text in texts)
        and all(type(number) is int and number >= 0 for number in numbers)
        and isinstance(row.options, dict)
    )


def _check(plan: Plan, row: Row, above: dict[str, Row]) -> None:
    """Refuse what would be found out after hours, or never."""
    first = row.init_from
    for name in (*row.members, *([first] if first else [])):
        if name not in above:
            raise DataError(f"needs {name!r}, which is no row above")
    if row.run_name(0) in {other.run_name(0) for other in above.values()}:
        raise DataError("another row has the same name or folder")
    if not row.seeds or not plan.beams or "seed" in row.options:
        raise DataError("expected seeds, beams, and no seed among the options")
    if len(set(row.seeds)) < len(row.seeds):
        raise DataError("expected seeds that differ")
    if row.members:
        if row != Row(row.name, members=row.members):
            raise DataError("an ensemble has members and nothing else")
        return
    if first and (above[first].members or set(row.seeds) - set(above[first].seeds)):
        raise DataError(f"{first!r} has no run of each of its seeds")
    options = plan.planned(row, row.seeds[0], None)
    brought = training.taken_over(options) if first else {"word_vectors"} if row.vectors else set()
    wrong = sorted(row.options.keys() & brought) or ["vectors"] * bool(first and row.vectors)
    if wrong:
        raise DataError(f"{wrong[0]} comes from {first or 'the vectors'}")
    if options.architecture not in CAPTIONERS:
        raise DataError(f"{options.architecture} answers questions; a table is of captions")


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
    """Train, measure and tabulate the rows of a plan; what is done is not done again.

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
        UsageError: a run folder that was made with other options or data, an ensemble of models
            with different CNNs, or ``encoder_weights`` that replace none.
        DataError: no such split.
    """
    trained = [row for row in plan.rows if not row.members]
    if encoder_weights and all(
        plan.planned(row, seed, encoder_weights) == plan.planned(row, seed, None)
        for row in trained
        for seed in row.seeds
    ):
        raise UsageError(
            f"encoder_weights {encoder_weights}: has no effect: no row of the plan begins with "
            "other published weights"
        )
    plan.check_ensembles(encoder_weights)
    dataset = Dataset.open(data)
    dataset.split(split)
    table = _Table(
        plan, Path(data), Path(out), dataset, encoder_weights, split, java, report, progress
    )
    entries: list[dict[str, Any]] = []
    show(HEADER)
    for entry in table.entries():
        entries.append(entry)
        show(line(entry))
        write_json(table.out / "results.json", entries)
        write_text(table.out / "results.md", page(plan, entries, []))
    differences = [table.compare(entries, pair.rows) for pair in plan.compare]
    write_text(table.out / "results.md", page(plan, entries, differences))
    report(f"the table is in {table.out / 'results.md'}")
    return entries


@dataclass(frozen=True)
class _Table:
    """The work on a table, see ``reproduce``."""

    plan: Plan
    data: Path
    out: Path
    dataset: Dataset
    encoder_weights: str | None
    split: str
    java: bool
    report: Report
    progress: bool

    def run(self, row: Row, seed: int) -> Path:
        """The folder of a run."""
        return self.out / "runs" / row.run_name(seed)

    def entries(self) -> Iterator[dict[str, Any]]:
        """The figures of each run at each beam, as they come."""
        for row in self.plan.rows:
            if row.members:
                members = [self.plan.row(name) for name in row.members]
                runs = [self.run(member, seed) for member in members for seed in member.seeds]
                yield from self.measured(row, 0, *runs)
            for seed in () if row.members else row.seeds:
                self.train(row, seed)
                yield from self.measured(row, seed, self.run(row, seed))

    def train(self, row: Row, seed: int) -> None:
        """Train, go on with, or leave a finished run."""
        more, run = {}, self.run(row, seed)
        if row.init_from:
            more["init_from"] = str(self.run(self.plan.row(row.init_from), seed))
        if row.vectors:
            more["word_vectors"] = self.vectors(row)
        options = row.train_options(seed, self.encoder_weights, **more)
        if not (run / "training.json").is_file():
            self.report(f"training {run.name}")
            train(self.data, run, options, report=self.report, progress=self.progress)
            return
        about, key = read_json(run / "training.json"), self.dataset.fingerprint()
        saved = saved_options(about["options"], str(run / "training.json")).to_dict()
        for name, value in options.to_dict().items():
            if value != saved.get(name):
                raise UsageError(
                    f"{run}: was made with {name} {saved.get(name)}, the plan says {value}; "
                    "delete it or name another --out"
                )
        if about.get("sha256", key) != key:
            raise UsageError(f"{run}: was made on other records than those of {self.data}")
        if not (run / "config.json").is_file():
            resume(run, report=self.report, progress=self.progress)

    def vectors(self, row: Row) -> str:
        """Word vectors of the training captions, made once."""
        least = self.plan.planned(row, row.seeds[0], None).min_frequency
        path = self.out / f"vectors-{row.vectors}-frequency{least}.txt"
        if not path.is_file():
            self.report(f"training word vectors, {path.name}")
            captions = [caption for r in self.dataset.split("train") for caption in r.captions]
            tokenizer = Tokenizer.train(captions, min_frequency=least)
            words, matrix, _ = train_word2vec(captions, tokenizer, size=row.vectors)
            write_vectors(path, words, matrix)
        return str(path)

    def measured(self, row: Row, seed: int, *runs: Path) -> Iterator[dict[str, Any]]:
        """Figures at each beam, made anew only where models, data or metrics are others."""
        model: Any = None
        of = {
            "models": [read_config(run)["sha256"]["model.safetensors"] for run in runs],
            "data": self.dataset.fingerprint(),
            "java": self.java,
        }
        about = {} if row.members else _making(runs[0])
        ensemble = f"-{row.run_name(0).removesuffix('-seed0')}" if row.members else ""
        for beam in self.plan.beams:
            folder = runs[0] / "evaluation" / f"{self.split}-beam{beam}{ensemble}"
            path = folder / "of.json"
            if not path.is_file() or read_json(path) != of:
                model = model or Captioner.load(*runs)
                asked: dict[str, Any] = {"split": self.split, "java": self.java, "beam": beam}
                result = evaluate(model, self.dataset, progress=self.progress, **asked)
                result.save(folder)
                write_json(path, of)
                if not row.members and beam == model.decoding.beam:
                    update_metrics(runs[0], result.figures)
            where = {"folder": str(folder.relative_to(self.out)), "beam": beam}
            figures = read_json(folder / "metrics.json")
            yield {"row": row.name, "seed": seed, **where, "figures": figures, **about}

    def compare(self, entries: list[dict[str, Any]], pair: tuple[str, str]) -> dict[str, Any]:
        """The paired bootstrap of the first runs of two rows, at the beam that serves both best.

        The beam is the one with the highest CIDEr of the two rows together.
        """
        of = [{e["beam"]: e for e in reversed(entries) if e["row"] == name} for name in pair]

        def cider(beam: int) -> float:
            return sum(runs[beam]["figures"]["metrics"]["cider"] or 0.0 for runs in of)

        beam = max(of[0], key=cider)
        references = {r.id: r.captions for r in self.dataset.split(self.split) if r.captions}
        files = [self.out / runs[beam]["folder"] / "predictions.jsonl" for runs in of]
        first, second = ({row["id"]: row["caption"] for _, row in read_jsonl(f)} for f in files)
        metrics = compare_captions(references, first, second)
        return {
            "rows": list(pair),
            "beam": beam,
            "metrics": {name: asdict(value) for name, value in metrics.items()},
        }


def _making(run: Path) -> dict[str, Any]:
    """What is known of the making of a run: size, time, speed."""
    about = read_config(run)["about"]
    rows = [row for _, row in read_jsonl(run / "metrics.jsonl")]
    seconds = sum(row["seconds"] for row in rows)
    return {
        "parameters": about["parameters"],
        "epochs": len(rows),
        "training_seconds": round(seconds, 1),
        "captions_per_second": round(about["captions"] * len(rows) / max(seconds, 1e-9), 1),
    }


# -- the page ----------------------------------------------------------------------------------

COLUMNS = {
    **{f"bleu_{n}": f"BLEU-{n}" for n in range(1, 5)},
    **{"meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr"},
}
MAIN = ("bleu_4", "cider")
MAKING = ("parameters", "training", "captions/s", "pictures/s")
NAMES = ("model", "seed", "beam", *COLUMNS.values(), *MAKING)
HEADER = f"| {' | '.join(NAMES)} |\n|{'---|' * len(NAMES)}"


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def line(entry: dict[str, Any]) -> str:
    """The row of one run at one beam."""
    figures, trained = entry["figures"], "parameters" in entry
    values = [figures["metrics"].get(key) for key in COLUMNS]
    return _cells(
        [
            entry["row"],
            str(entry["seed"]) if trained else "",
            "greedy" if entry["beam"] == 1 else str(entry["beam"]),
            *("" if value is None else f"{100 * value:.1f}" for value in values),
            f"{entry['parameters'] / 1e6:.1f} M" if trained else "",
            f"{entry['training_seconds'] / 60:.1f} min" if trained else "",
            f"{entry['captions_per_second']:,.0f}" if trained else "",
            f"{figures['decoding_pictures_per_second']:,.0f}",
        ]
    )


def page(
    plan: Plan, entries: Sequence[dict[str, Any]], differences: Sequence[dict[str, Any]]
) -> str:
    """The whole table, the spread over seeds, the published rows and the comparisons."""
    lines = [f"# {plan.title}", "", HEADER, *map(line, entries), ""]
    if spreads := [text for row in plan.rows for text in _spread(row.name, entries)]:
        lines += ["Over the seeds, mean and standard deviation:", "", *spreads, ""]
    if plan.published:
        lines += ["| published | BLEU-1..4 | METEOR | CIDEr |", "|---|---|---|---|"]
        lines += [*(_cells(list(asdict(row).values())) for row in plan.published), ""]
    if differences:
        lines += [
            "Differences (first less second, the first run of each; 95 % interval of a paired "
            "bootstrap over pictures):",
            "",
            "| first | second | beam | BLEU-4 | CIDEr |",
            "|---|---|---|---|---|",
            *map(_difference, differences),
            "",
        ]
    return "\n".join(lines)


def _spread(name: str, entries: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A row's figures over its seeds, at each beam; nothing for a single seed."""
    for beam in dict.fromkeys(entry["beam"] for entry in entries):
        own = [e["figures"]["metrics"] for e in entries if (e["row"], e["beam"]) == (name, beam)]
        parts = []
        for key in MAIN:
            values = [100 * metrics[key] for metrics in own if metrics[key] is not None]
            if len(values) > 1:
                parts.append(f"{COLUMNS[key]} {mean(values):.1f} ± {stdev(values):.1f}")
        if parts:
            yield f"- {name}, beam {beam}, {len(own)} seeds: {', '.join(parts)}"


def _difference(difference: dict[str, Any]) -> str:
    cells = [*difference["rows"], str(difference["beam"])]
    for value in (difference["metrics"][key] for key in MAIN):
        low, high = (f"{100 * value[key]:+.1f}" for key in ("low", "high"))
        text = f"{100 * value['difference']:+.1f} [{low}, {high}]"
        cells.append(f"**{text}**" if value["significant"] else f"{text}: none shown")
    return _cells(cells)

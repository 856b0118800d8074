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
    reward_references = "texts"             # the dataset whose n-grams are counted
    [[row]]
    name = "lstm, word vectors"
    recipe = "flickr8k"
    options = {architecture = "lstm"}
    vectors = 256                           # word2vec of that size on the training captions
    teacher = ["lstm", "lstm, CIDEr"]       # all their runs
    [[row]]
    name = "both"
    members = ["lstm", "lstm, CIDEr"]       # all their runs as an ensemble
    [[row]]
    name = "lstm-vqa"                       # captions and answers are tables of their own
    encoder_from = "lstm"                   # the CNN of that row's run; also "photo"
    data = "vqa"                            # trained on this dataset
    on = ["vqa:val"]                        # and measured on these; [] is a stage, not measured
    [[compare]]
    rows = ["lstm", "lstm, CIDEr"]          # paired bootstrap of their first runs
    [[published]]
    name = "..."                            # a row of the paper's figures, as text

Datasets are folders below the one that is given, ``FOLDER:SPLIT`` is one split; ``data`` and ``on``
above the rows are those of all rows. Without ``data`` the given folder is the dataset, without
``on`` a row is measured on what it is trained on.

The folder of a table::

    runs/NAME-seedN/     a run folder each, with its evaluations
    vectors-*.txt        word vectors trained on the captions, for the rows that ask for them
    results.json         all figures, after each row
    results.md           the table
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .data.records import SPLITS, Dataset
from .data.vectors import write_word2vec
from .errors import DataError, GazetellError, UsageError
from .files import (
    SHIPPED,
    read_json,
    read_jsonl,
    read_toml,
    write_json,
    write_text,
)
from .inference.evaluate import evaluate, evaluate_answers
from .inference.figures import HEADERS, cells, compare, difference, header, kind_of, line, spread
from .inference.predict import Answerer, Captioner
from .models.decoding import DecodingOptions
from .models.folder import read_config, update_metrics
from .models.options import import_architecture
from .training import options as training
from .training.fit import is_finished, resume, train
from .training.options import TrainOptions, saved_options, train_options
from .training.task import Report

PLANS = resources.files(__package__) / "plans"


Text = Annotated[str, Field(pattern=r"\S")]
Number = Annotated[int, Field(strict=True, ge=0)]


class Part(BaseModel):
    """Base of what a plan holds: nothing that is unknown or of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(Part):
    """One model of a table; see the module. An ensemble of ``members`` has no training."""

    name: Text
    recipe: Text | None = None
    options: dict[str, Any] = {}
    seeds: tuple[Number, ...] = (0,)
    init_from: Text | None = None
    vectors: Number = 0
    members: tuple[Text, ...] = ()
    encoder_from: Text | None = None
    word_vectors: Text | None = None
    teacher: tuple[Text, ...] = ()
    reward_references: Text | None = None
    data: str | None = None
    on: tuple[Text, ...] | None = None

    def run_name(self, seed: int) -> str:
        """The folder of the run with a seed."""
        words = "".join(c if c.isalnum() else " " for c in self.name.lower()).split()
        return f"{'-'.join(words)}-seed{seed}"

    @property
    def lenders(self) -> dict[str, str]:
        """The earlier models that it begins with, by option."""
        names = ("init_from", "encoder_from", "word_vectors")
        return {name: model for name in names if (model := getattr(self, name))}


class Pair(Part):
    """Two rows to be compared."""

    rows: tuple[str, str]


class Published(Part):
    """A row of the paper's figures, as text."""

    name: str
    bleu: str = ""
    meteor: str = ""
    cider: str = ""


class Plan(Part):
    """A table to be made."""

    title: str
    beams: tuple[Number, ...]
    rows: tuple[Row, ...] = Field((), alias="row")
    compare: tuple[Pair, ...] = ()
    published: tuple[Published, ...] = ()
    data: str = ""
    on: tuple[str, ...] = ()

    def data_of(self, row: Row) -> str:
        """The dataset that a row is trained on."""
        return self.data if row.data is None else row.data

    def on_of(self, row: Row) -> tuple[str, ...]:
        """The datasets that a row is measured on; for an ensemble those of its first member."""
        if row.on is None and row.members:
            return self.on_of(self.row(row.members[0]))
        return (self.on or (self.data_of(row),)) if row.on is None else row.on

    def answers(self, row: Row) -> bool:
        """Whether a row answers questions."""
        planned = None if row.members else self.planned(row, row.seeds[0], None)
        return isinstance(planned, training.AnswerOptions)

    def row(self, name: str) -> Row:
        """The row of a name."""
        return next(row for row in self.rows if row.name == name)

    def runs(self, names: Sequence[str]) -> list[tuple[Row, int]]:
        """All runs of rows, each as a row and a seed; an ensemble has those of its members."""
        rows = map(self.row, names)
        each = (self.runs(row.members) or [(row, seed) for seed in row.seeds] for row in rows)
        return [run for runs in each for run in runs]

    def planned(
        self, row: Row, seed: int, encoder_weights: str | None, *places: Path, words: str = "later"
    ) -> TrainOptions:
        """The options of a run; ``places`` are the folders of runs and of datasets, once there."""
        runs, data = places or (Path(), Path())
        more: dict[str, Any] = {"word_vectors": words} if row.vectors else {}
        if row.teacher:
            taught = (one.run_name(of) for one, of in self.runs(row.teacher))
            more["teacher"] = tuple(str(runs / name) for name in taught)
        if row.reward_references:
            more["reward_references"] = str(data / row.reward_references)
        for name, model in row.lenders.items():
            if model in SHIPPED:
                more[name] = model
            elif places:
                more[name] = str(runs / self.row(model).run_name(seed))
            elif name == "init_from":
                more["architecture"] = self.planned(self.row(model), seed, None).architecture
        options: Any = train_options(row.recipe, **row.options | more | {"seed": seed})
        if not encoder_weights or options.encoder_weights == "none" or self.lender(row):
            return options
        path = Path(encoder_weights)
        return replace(options, encoder_weights=str(path.resolve()) if path.exists() else str(path))

    def lender(self, row: Row) -> str | None:
        """The row or shipped model that gives this row its CNN: a blind one has none to give."""
        for name in filter(None, (row.init_from, row.encoder_from)):
            if name in SHIPPED or not self.planned(self.row(name), row.seeds[0], None).blind:
                return name
        return None

    def check_ensembles(self, encoder_weights: str | None) -> None:
        """Refuse, before hours of work, an ensemble whose members would have different CNNs.

        Likewise a row with a frozen encoder whose teachers would have another.

        Raises:
            UsageError: naming the row and two of its members.
        """
        for row in self.rows:
            what, groups = "an ensemble needs one CNN", [self.runs(row.members)]
            if row.teacher and self.planned(row, row.seeds[0], None).encoder_trainable == "none":
                what = "its encoder is frozen, so its teachers need the same CNN"
                groups = [[(row, seed), *self.runs(row.teacher)] for seed in row.seeds]
            for (first, one), (other, two) in (pair for runs in groups for pair in pairwise(runs)):
                if self._cnn(first, one, encoder_weights) != self._cnn(other, two, encoder_weights):
                    raise UsageError(
                        f"row {row.name!r}: {what}, but {first.name!r} (seed {one}) and "
                        f"{other.name!r} (seed {two}) have different ones"
                    )

    def _cnn(self, row: Row, seed: int, encoder_weights: str | None) -> tuple[Any, ...]:
        """What tells the CNN of a run from others: equal means the same weights."""
        options = self.planned(row, seed, encoder_weights)
        if options.encoder_trainable != "none":
            return row.name, seed
        if name := self.lender(row):
            shipped_model = (name.partition("/")[0],) if name in SHIPPED else None
            return shipped_model or self._cnn(self.row(name), seed, encoder_weights)
        # Each run may project the grid in its own way: that is no part of the CNN.
        config = replace(options.encoder_config(), project=None)
        return config, seed if config.weights == "none" else None


def read_plan(name: str, *, trust: bool = False) -> Plan:
    """A plan by name or file, checked before hours of work; ``trust`` as for ``train_options``.

    Raises:
        UsageError: no such plan.
        DataError: not TOML, something that is not known, or a row that names an unknown one.
    """
    source, values = read_toml(name, PLANS, "plan")
    try:
        plan = Plan.model_validate(values)
        for beam in plan.beams:
            DecodingOptions(beam=beam)
        for row in plan.rows:
            chosen = training.read_recipe(row.recipe, trust=trust) if row.recipe else {}
            named = str((chosen | row.options).get("architecture", ""))
            import_architecture(named, trust=trust)
    except ValidationError as error:
        wrong = error.errors()[0]
        *places, key = map(str, wrong["loc"])
        where = ".".join((*places, key))
        if wrong["type"] == "missing" and not key.isdecimal():
            number = f"{places[0]} {int(places[1]) + 1}" if places else "the plan"
            raise DataError(f"{source}: {number} lacks the key {key!r}") from error
        raise DataError(f"{source}: is not a plan: {where}: {wrong['msg']}") from error
    except GazetellError as error:
        raise DataError(f"{source}: is not a plan: {error}") from error
    if any(first == second for first, second in (pair.rows for pair in plan.compare)):
        raise DataError(f"{source}: compare: expected rows = two different names")
    if not plan.rows:
        raise DataError(f"{source}: the plan lacks rows; expected [[row]] with a name")
    known: dict[str, Row] = {}
    for row in plan.rows:
        try:
            _check(plan, row, known)
        except GazetellError as error:
            raise DataError(f"{source}: row {row.name!r}: {error}") from error
        known[row.name] = row
    if unknown := [name for pair in plan.compare for name in pair.rows if name not in known]:
        raise DataError(f"{source}: compares {unknown[0]!r}, which is not a row of the plan")
    for first, second in (map(plan.row, pair.rows) for pair in plan.compare):
        alike = plan.answers(first) == plan.answers(second)
        if not alike or not set(plan.on_of(first)) & set(plan.on_of(second)):
            names = f"{first.name!r} with {second.name!r}"
            raise DataError(f"{source}: compares {names}, but no dataset measures both")
    return plan


def _check(plan: Plan, row: Row, above: dict[str, Row]) -> None:
    """Refuse what would be found out after hours, or never."""
    first, lenders = row.init_from, {*row.lenders.values()} - {*SHIPPED}
    for name in (*row.members, *row.teacher, *lenders):
        if name not in above:
            raise DataError(f"needs {name!r}, which is not a row above it")
    beside = {"init_from", "encoder_from", "word_vectors", "teacher", "reward_references"}
    for name in row.options.keys() & beside:
        of = "a dataset" if name == "reward_references" else "an earlier row"
        raise DataError(f"{name} is among the options; expected it in the row, naming {of}")
    if row.name in SHIPPED:
        raise DataError("is the name of a model that comes with gazetell; expected another")
    if row.run_name(0) in {other.run_name(0) for other in above.values()}:
        raise DataError("another row has the same name or folder")
    if not row.seeds or not plan.beams or "seed" in row.options:
        raise DataError("expected seeds in the row, beams in the plan, no seed in the options")
    if len(set(row.seeds)) < len(row.seeds):
        raise DataError("expected seeds that differ")
    if wrong := [name for name in (*row.members, *row.teacher) if plan.answers(above[name])]:
        said = "ensembles and teachers take only captioners"
        raise DataError(f"{wrong[0]!r} answers questions; {said}")
    for names in (row.members, row.teacher):
        runs = [one.run_name(seed) for one, seed in plan.runs(names)]
        if twice := next((run for run in runs if runs.count(run) > 1), None):
            raise DataError(f"names {twice!r} twice; expected different runs")
    lent = above.get(row.encoder_from or "")
    if lent and not lent.members and plan.planned(lent, lent.seeds[0], None).blind:
        raise DataError(f"{lent.name!r} is blind and has no encoder to lend")
    if row.members:
        if row != Row(name=row.name, members=row.members, on=row.on):
            raise DataError("an ensemble takes only members, and datasets to measure on")
        return
    for name in lenders:
        if above[name].members or set(row.seeds) - set(above[name].seeds):
            raise DataError(f"{name!r} must be one model with a run of each seed of this row")
    options = plan.planned(row, row.seeds[0], None)
    brought = training.taken_over(options) if first else set()
    if first and not plan.lender(row):
        brought = {name for name in brought if not name.startswith("encoder")}
    wrong = sorted((row.options.keys() | row.lenders.keys() - {"init_from"}) & brought)
    if wrong := wrong or ["vectors"] * bool(row.vectors and (first or row.word_vectors)):
        raise DataError(f"{wrong[0]}: is taken from {first or row.word_vectors}; leave it out")
    if row.vectors and plan.answers(row):
        raise DataError("vectors are made from captions, but this row answers questions")


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
        data: a prepared dataset, or the folder of those that the plan names.
        out: the folder of the table; a killed run goes on where it was.
        encoder_weights: instead of the recipes' own, where these cannot be downloaded.
        split: that is measured where the plan names none.
        java: also METEOR.
        report: takes lines about the work.
        show: takes the rows of the table as they come.
        progress: show progress bars on standard error.

    Returns:
        The figures, one for each run, dataset and beam.

    Raises:
        UsageError: a run folder that was made with other options or data, an ensemble of models
            with different CNNs, or ``encoder_weights`` that replace none.
        DataError: no such dataset or split.
    """
    trained = [row for row in plan.rows if not row.members]
    runs = [(row, seed) for row in trained for seed in row.seeds]
    if encoder_weights and all(
        plan.planned(*run, encoder_weights) == plan.planned(*run, None) for run in runs
    ):
        raise UsageError(
            f"encoder_weights {encoder_weights}: has no effect: no row of the plan begins with "
            "other published weights"
        )
    plan.check_ensembles(encoder_weights)
    used = {plan.data_of(row) for row in trained}
    used |= {_place(name, split)[0] for row in plan.rows for name in plan.on_of(row)}
    counted = {row.reward_references for row in trained if row.reward_references}
    opened = {name: Dataset.open(Path(data) / name) for name in sorted(used | counted)}
    for name in counted:
        opened[name].split("train")
    for row in plan.rows:
        for name, chosen in (_place(name, split) for name in plan.on_of(row)):
            (opened[name].questions_of if plan.answers(row) else opened[name].split)(chosen)
    settings = (encoder_weights, split, java, report, progress)
    table = _Table(plan, Path(data), Path(out), opened, *settings)
    report(table.estimate())
    entries: list[dict[str, Any]] = []
    for entry in table.entries():
        entries.append(entry)
        if kind_of(entry) != (kind_of(entries[-2]) if entries[1:] else None):
            show(HEADERS[kind_of(entry)[1]])
        show(line(entry))
        write_json(table.out / "results.json", entries)
        write_text(table.out / "results.md", page(plan, entries, []))
    differences = [one for pair in plan.compare for one in table.compare(entries, pair.rows)]
    write_text(table.out / "results.md", page(plan, entries, differences))
    report(f"the table is in {table.out / 'results.md'}")
    return entries


@dataclass(frozen=True)
class _Table:
    """The work on a table, see ``reproduce``."""

    plan: Plan
    data: Path
    out: Path
    opened: dict[str, Dataset]
    encoder_weights: str | None
    split: str
    java: bool
    report: Report
    progress: bool

    def run(self, row: Row, seed: int) -> Path:
        return self.out / "runs" / row.run_name(seed)

    def entries(self) -> Iterator[dict[str, Any]]:
        """The figures of each run at each beam, as they come."""
        for row in self.plan.rows:
            if row.members:
                runs = [self.run(*one) for one in self.plan.runs(row.members)]
                yield from self.measured(row, 0, *runs)
            for seed in () if row.members else row.seeds:
                self.train(row, seed)
                yield from self.measured(row, seed, self.run(row, seed))

    def estimate(self) -> str:
        """What is to be done: rows, runs, epochs, and how long where earlier epochs tell."""
        runs = self.plan.runs([row.name for row in self.plan.rows if not row.members])
        speeds: dict[str, list[float]] = {}  # seconds of each epoch that was trained, by row
        left: list[tuple[str, int]] = []
        for row, seed in runs:
            run = self.run(row, seed)
            rows = read_jsonl(run / "metrics.jsonl") if (run / "metrics.jsonl").is_file() else ()
            seconds = [one["seconds"] for _, one in rows]
            speeds.setdefault(row.name, []).extend(seconds)
            if not is_finished(run):
                epochs = self.plan.planned(row, seed, None).epochs
                left.append((row.name, epochs - len(seconds)))
        todo = sum(count for _, count in left)
        said = f"{len(self.plan.rows)} rows, {len(runs)} runs, {len(runs) - len(left)} of them "
        said += f"trained already; to train: at most {todo:,} epochs"
        every = [second for seconds in speeds.values() for second in seconds]
        if todo and every:
            means = {name: mean(seconds or every) for name, seconds in speeds.items()}
            took = sum(means[name] * count for name, count in left)
            said += f", about {took / 60:,.0f} minutes at the pace of the epochs before"
        return said

    def train(self, row: Row, seed: int) -> None:
        """Train, go on with, or leave a finished run."""
        run, name = self.run(row, seed), self.plan.data_of(row)
        data, dataset = self.data / name, self.opened[name]
        made = (row, seed, self.encoder_weights, run.parent, self.data)
        options = self.plan.planned(*made, words=self.vectors(row) if row.vectors else "")
        if not (run / "training.json").is_file():
            self.report(f"training {run.name}")
            train(data, run, options, report=self.report, progress=self.progress)
            return
        about, key = read_json(run / "training.json"), dataset.fingerprint()
        saved = saved_options(about["options"], str(run / "training.json")).to_dict()
        for name, value in options.to_dict().items():
            before = saved.get(name)
            if before and row.lenders.get(name) in SHIPPED:  # wherever gazetell was installed then
                before, value = ("/".join(Path(each).parts[-2:]) for each in (before, value))
            if value != before:
                raise UsageError(
                    f"{run}: was made with {name} {before}, the plan says {value}; "
                    "delete it or name another --out"
                )
        if about.get("sha256", key) != key:
            raise UsageError(f"{run}: was made with other records than those of {data}")
        if not is_finished(run):
            resume(run, report=self.report, progress=self.progress)

    def vectors(self, row: Row) -> str:
        """Word vectors of the training captions, made once."""
        least = self.plan.planned(row, row.seeds[0], None).min_frequency
        of = f"{self.plan.data_of(row)}-" if row.data else ""
        path = self.out / f"vectors-{of}{row.vectors}-frequency{least}.txt"
        if not path.is_file():
            self.report(f"training word vectors, {path.name}")
            records = self.opened[self.plan.data_of(row)].split("train")
            captions = [caption for record in records for caption in record.captions]
            write_word2vec(path, captions, min_frequency=least, size=row.vectors)
        return str(path)

    def measured(self, row: Row, seed: int, *runs: Path) -> Iterator[dict[str, Any]]:
        """Figures on each dataset at each beam, made anew only where what they are of differs."""
        model: Any = None
        answers, own = self.plan.answers(row), _place(self.plan.data_of(row), self.split)
        about = {} if row.members else _making(runs[0])
        ensemble = f"-{row.run_name(0).removesuffix('-seed0')}" if row.members else ""
        models = [read_config(run)["sha256"]["model.safetensors"] for run in runs]
        for on in self.plan.on_of(row):
            place, split = _place(on, self.split)
            dataset = self.opened[place]
            of = {"models": models, "data": dataset.fingerprint(), "java": self.java}
            for beam in (0,) if answers else self.plan.beams:
                how = (place.replace("/", "-"), split, f"beam{beam}" if beam else "")
                folder = runs[0] / "evaluation" / f"{'-'.join(filter(None, how))}{ensemble}"
                if not (folder / "of.json").is_file() or not (
                    of.items() <= read_json(folder / "of.json").items()
                ):
                    model = model or (Answerer if answers else Captioner).load(*runs)
                    asked: dict[str, Any] = {"split": split, "progress": self.progress}
                    asked |= {} if answers else {"java": self.java, "beam": beam}
                    measure: Any = evaluate_answers if answers else evaluate
                    result = measure(model, dataset, **asked)
                    result.save(folder)
                    write_json(folder / "of.json", of)
                    usual = (place, split) == own and (answers or beam == model.decoding.beam)
                    if usual and not row.members:
                        update_metrics(runs[0], result.figures)
                where = {"folder": str(folder.relative_to(self.out)), "on": on, "beam": beam}
                about |= {"figures": read_json(folder / "metrics.json")}
                yield {"row": row.name, "seed": seed, **where, **about}

    def compare(
        self, entries: Sequence[dict[str, Any]], pair: tuple[str, str]
    ) -> Iterator[dict[str, Any]]:
        """The paired bootstrap of the first runs of two rows, on each dataset that both have;
        of captions at the beam with the highest CIDEr of the two together.
        """
        answers = self.plan.answers(self.plan.row(pair[0]))
        said = "answer" if answers else "caption"
        for on in dict.fromkeys(entry["on"] for entry in entries):
            own = [entry for entry in reversed(entries) if entry["on"] == on]
            of = [{e["beam"]: e for e in own if e["row"] == name} for name in pair]
            if not all(of):
                continue
            cider = dict.fromkeys(of[0], 0.0)
            for beam, entry in (item for runs in of for item in runs.items()):
                cider[beam] += entry["figures"]["metrics"].get("cider") or 0.0
            beam = max(cider, key=cider.__getitem__)
            files = [self.out / runs[beam]["folder"] / "predictions.jsonl" for runs in of]
            first, second = ({row["id"]: row[said] for _, row in read_jsonl(f)} for f in files)
            place, split = _place(on, self.split)
            dataset: Any = self.opened[place]
            records = dataset.questions_of(split) if answers else dataset.split(split)
            found = compare([record for record in records if record.id in first], first, second)
            metrics = {name: asdict(value) for name, value in found.items()}
            yield {"rows": list(pair), "on": on, "beam": beam, "metrics": metrics}


def _place(name: str, split: str) -> tuple[str, str]:
    """The folder and the split that a name of a plan means."""
    folder, _, own = name.rpartition(":")
    return (folder, own) if own in SPLITS else (name, split)


def _making(run: Path) -> dict[str, Any]:
    """What is known of the making of a run: size, time, speed."""
    about = read_config(run)["about"]
    rows = [row for _, row in read_jsonl(run / "metrics.jsonl")]
    seconds = sum(row["seconds"] for row in rows)
    texts = "captions" if "captions" in about else "questions"
    return {
        "parameters": about["parameters"],
        "epochs": len(rows),
        "training_seconds": round(seconds, 1),
        f"{texts}_per_second": round(about[texts] * len(rows) / max(seconds, 1e-9), 1),
    }


def page(
    plan: Plan, entries: Sequence[dict[str, Any]], differences: Sequence[dict[str, Any]]
) -> str:
    """The whole table, the spread over seeds, the published rows and the comparisons."""
    lines = [f"# {plan.title}", ""]
    for kind in dict.fromkeys(map(kind_of, entries)):
        own = [entry for entry in entries if kind_of(entry) == kind]
        lines += [f"Measured on {kind[0]}:", ""] if kind[0] else []
        lines += [HEADERS[kind[1]], *map(line, own), ""]
        if spreads := [text for row in plan.rows for text in spread(row.name, own)]:
            lines += ["Over the seeds, mean and standard deviation:", "", *spreads, ""]
    if plan.published:
        lines += ["| published | BLEU-1..4 | METEOR | CIDEr |", "|---|---|---|---|"]
        lines += [*(cells(list(row.model_dump().values())) for row in plan.published), ""]
    if differences:
        lines += [
            "Differences (first less second, the first run of each; 95 % interval of a paired "
            "bootstrap over pictures):",
            "",
            header("first", "second", "on", "beam", "metric", "difference"),
            *(text for one in differences for text in difference(one)),
            "",
        ]
    return "\n".join(lines)

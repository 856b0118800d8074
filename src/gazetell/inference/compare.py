"""Several models on the same pictures: what each tells, what that costs, how far they agree.

The models work one after the other, each in a process of its own, on one picture at a time. So the
peak of its memory is the model's, and a model that dies takes no other with it. Times are medians
over the pictures, from the file to the words, without the first where there are others.

*Agreement* of two models: of captions the ROUGE-L of one against the other, the mean of both
directions. It can be told of a single picture, unlike CIDEr-D, whose document frequencies say
nothing of a few. Of answers the share that are equal by the rules of the VQA evaluation
(``normalise_answer``). With references there are metrics too, and their paired bootstrap.
"""

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, combinations, islice
from logging.handlers import BufferingHandler
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import torch

from ..data.records import CaptionRecord, Dataset, QuestionRecord
from ..errors import GazetellError, ImageError, ModelError, UsageError
from ..files import read_json
from ..metrics import (
    TITLES,
    Difference,
    cider_problem,
    normalise_answer,
    points,
    rouge_l,
    score_answers,
    score_captions,
    split,
)
from ..models.folder import KINDS, fetch, is_pair, read_config
from ..models.large import VQA, is_large, takes_prompt
from ..pictures import NamedBytes
from ..process import bar, keep_memory, peak_memory
from .evaluate import asked_records, scored_records
from .figures import compare as compare_texts
from .figures import references_of
from .large import LargeAnswerer
from .load import load_answerer, load_captioner
from .predict import check_members
from .results import Answer, Caption
from .sources import TARS, Source, open_source

MAIN = ("bleu_4", "rouge_l", "cider", "accuracy")  # metrics that a table has
log = logging.getLogger(__name__)
Record = CaptionRecord | QuestionRecord
Told = Caption | Answer | str  # a text is the error instead


class Case(NamedTuple):
    """A picture and what is asked about it: no questions for a caption; one record, or one each."""

    name: str
    content: NamedBytes | str | ImageError  # a path, the bytes of a file, or why there are none
    questions: tuple[str, ...] = ()
    records: tuple[Record, ...] = ()


@dataclass(frozen=True)
class Work:
    """What each model does, by the arguments of ``compare``; ``kind`` as of a model folder."""

    parts: Sequence[Source | Case]
    kind: str = "captioner"
    questions: tuple[str, ...] = ()  # about each picture of a source
    listed: Sequence[str] | None = None
    limit: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    how: Mapping[str, Any] = field(default_factory=dict)
    progress: bool = False

    def cases(self) -> Iterator[Case]:
        """All pictures, the same whenever they are asked for."""

        def of(part: Source | Case) -> Iterable[Case]:
            if isinstance(part, Case):
                return [part]
            items = (item for block in part.blocks for item in part.reader(block))
            return (Case(item.name, item.content, self.questions) for item in items)

        return islice(chain.from_iterable(map(of, self.parts)), self.limit or None)


@dataclass
class Column:
    """What one model told, a result or an error for each row, and what it cost.

    ``cpu_ms``, the processor time of all threads together, and ``ms``, the time that passed, are
    medians over all pictures but the first. Bytes at most: ``peak`` in memory, Python and the
    libraries included (None where the model had no process of its own), ``own`` of them beyond
    what was there before it was loaded, ``gpu`` in a GPU's memory. ``error`` says why it told
    nothing at all. ``metrics`` are of the rows of which every model told something.
    """

    model: str
    told: list[Told] = field(default_factory=list)
    cpu_ms: float | None = None
    ms: float | None = None
    peak: int | None = None
    own: int | None = None
    gpu: int | None = None
    error: str = ""
    notes: list[str] = field(default_factory=list)
    metrics: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """How far two models agree: the mean over the rows that both told something of, in [0, 1].

    ``equal`` is the share of those with the same words.
    """

    models: tuple[str, str]
    value: float
    equal: float
    rows: int


@dataclass(frozen=True)
class Comparison:
    """Several models on the same pictures."""

    work: Work
    rows: Sequence[tuple[str, str, Record | None]]  # picture, question or "", what people said
    columns: Sequence[Column]  # one a model
    agreements: Sequence[Agreement]  # of pairs that told something of the same picture
    apart: Sequence[float]  # of each row the mean disagreement of the pairs, 0 to 1
    differences: Mapping[tuple[str, str], dict[str, Difference]]  # of metrics, by two models
    failed: Sequence[str]  # a line for each picture or model

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        pictures = []
        for n, (name, question, record) in enumerate(self.rows):
            row: dict[str, Any] = {"picture": name} | ({"question": question} if question else {})
            if record is not None:
                row["references"] = list(references_of(record))
            told = ((c.model, c.told[n]) for c in self.columns)
            row["told"] = {k: {"error": x} if isinstance(x, str) else x.to_dict() for k, x in told}
            pictures.append(row)
        about = [vars(column).items() for column in self.columns]
        return {
            "models": [{k: v for k, v in x if k not in ("told", "notes")} for x in about],
            "agreement": [asdict(one) for one in self.agreements],
            "differences": [
                {"models": pair, "metrics": {name: asdict(one) for name, one in found.items()}}
                for pair, found in self.differences.items()
            ],
            "pictures": pictures,
            "failed": list(self.failed),
        }

    def figures(self) -> list[list[str]]:
        """A table with a row a model: its costs and metrics."""
        metrics = [name for name in MAIN if any(name in c.metrics for c in self.columns)]
        gpu = any(column.gpu is not None for column in self.columns)
        heads = ["model", "CPU ms", "ms", "peak MB", "of the model", *["GPU MB"] * gpu]
        rows = [[*heads, *(TITLES[name] for name in metrics), "failed"]]
        for column in self.columns:
            memory = [column.peak, column.own] + [column.gpu] * gpu
            costs = [column.cpu_ms, column.ms, *(x and x / 1e6 for x in memory)]
            cells = ["-" if x is None else f"{x:,.{int(x < 100)}f}" for x in costs]
            cells += [points(name, column.metrics.get(name)) for name in metrics]
            failed = sum(isinstance(one, str) for one in column.told)
            rows.append([column.model, *cells, str(failed)])
        return rows

    def agreement_lines(self) -> list[str]:
        """How far each pair of models agrees, a line each."""
        return [
            f"{' and '.join(one.models)}: "
            + ("" if self.answers else f"ROUGE-L {100 * one.value:.1f}, ")
            + f"the same in {round(one.equal * one.rows)} of {one.rows}"
            for one in self.agreements
        ]

    def difference_rows(self) -> list[list[str]]:
        """A table of the differences of the main metrics; a head alone without any."""
        rows = [["models", "metric", "first", "second", "difference", "95 % interval"]]
        for pair, found in self.differences.items():
            for name, one in ((name, found[name]) for name in MAIN if name in found):
                low, high = (points(name, x, "+.2f") for x in (one.low, one.high))
                cells = [points(name, x, ".2f") for x in (one.first, one.second)]
                cells += [points(name, one.difference, "+.2f"), f"{low} to {high}"]
                rows.append([" and ".join(pair), TITLES[name], *cells])
        return rows

    def contents(self, rows: Collection[int]) -> dict[int, Any]:
        """The pictures of some rows: paths, or bytes of files."""
        asked = (case for case in self.work.cases() for _ in case.questions or ("",))
        return {n: case.content for n, case in enumerate(asked) if n in rows}

    @property
    def answers(self) -> bool:
        """Whether it is answers that were compared."""
        return self.work.kind == "answerer"


def compare(
    models: Sequence[str],
    pictures: Sequence[str | os.PathLike[str]],
    *,
    split: str | None = None,
    questions: Sequence[str] = (),
    listed: Sequence[str] | None = None,
    column: str | None = None,
    limit: int = 0,
    how: Mapping[str, Any] | None = None,
    alone: bool = True,
    progress: bool = False,
    **options: Any,
) -> Comparison:
    """Caption the same pictures with several models, or ask about them.

    Args:
        models: two or more, as ``gazetell.load`` takes each.
        pictures: files, and what ``open_source`` reads; or one prepared dataset.
        split: of the dataset; ``test`` if not given.
        questions: that are asked about each picture, instead of captions.
        listed: answers among which large models choose.
        column: of Parquet.
        limit: only the first so many pictures; 0 for all.
        how: options of ``gazetell.load``; ``prompt`` is of the large models that take one.
        alone: each model in a process of its own; else in this one, and no memory is measured.
        progress: show a progress bar for each model.
        options: of decoding captions.

    Raises:
        UsageError: fewer than two models, one that is given twice or cannot do it, an option
            without effect.
        GazetellError: no pictures, a split without references, no model told anything.
    """
    if limit < 0:
        raise UsageError(f"limit {limit}: expected 0 or more")
    kinds, folders = _check_models(models)
    parts, kind = _parts(kinds, [os.fspath(x) for x in pictures], split, questions, column)
    if kind == "answerer" and options:
        raise UsageError(f"{next(iter(options))}: has no effect on answers")
    how = dict(how or {})
    if (prompt := how.get("prompt")) is not None:
        _effect("prompt", models, {x for x in models if takes_prompt(folders[x])})
    if listed is not None:
        large = {x for x in models if is_large(folders[x]) and kind == "answerer"}
        _effect("answers", models, large)
    work = Work(parts, kind, tuple(questions), listed, limit, options, how, progress)
    rows = [
        (case.name, question, case.records[n] if case.records else None)
        for case in work.cases()
        for n, question in enumerate(case.questions or ("",))
    ]
    if not rows:
        raise ImageError(f"{pictures[0]}: no pictures there")
    columns = []
    for model in models:
        own = work
        if prompt is not None and not takes_prompt(folders[model]):
            own = replace(work, how=how | {"prompt": None})
        columns.append(_alone(model, own) if alone else _column(model, own))
        for note in columns[-1].notes:
            log.warning("%s: %s", model, note.removeprefix(f"{model}: "))
        if columns[-1].error:
            columns[-1].told = [columns[-1].error] * len(rows)
    if all(column.error for column in columns):
        raise ModelError(f"{columns[0].model}: {columns[0].error}")
    agreements, apart = _agreements(columns, kind == "answerer", len(rows))
    differences = _measure(columns, [record for *_, record in rows], kind == "answerer")
    return Comparison(work, rows, columns, agreements, apart, differences, _failed(columns))


def _effect(option: str, models: Sequence[str], some: Collection[str]) -> None:
    """Refuse an option that none of the models takes; say which do not."""
    others = ", ".join(name for name in models if name not in some)
    if not some:
        raise UsageError(f"{option}: has no effect on {others}")
    if others:
        log.warning("--%s: has no effect on %s", option, others)


def _check_models(models: Sequence[str]) -> tuple[dict[str, set[str]], dict[str, Path]]:
    """The kinds of each model, and its folder."""
    if len(models) < 2:
        raise UsageError("model: expected two models or more to compare")
    check_members(models)
    kinds, folders = dict[str, set[str]](), dict[str, Path]()
    for name in models:
        folder = fetch(name).resolve()
        if first := next((x for x, other in folders.items() if other == folder), None):
            raise UsageError(f"model {name}: is the same as {first}; expected different ones")
        folders[name] = folder
        if is_large(folder):
            # What it does with a question shows when it is loaded.
            asked = VQA in (read_json(folder / "config.json").get("architectures") or ())
            kinds[name] = {"answerer"} if asked else set(KINDS)
        else:
            kinds[name] = set(KINDS) if is_pair(folder) else {read_config(folder)["kind"]}
    return kinds, folders


def _parts(
    kinds: Mapping[str, set[str]],
    pictures: Sequence[str],
    split: str | None,
    questions: Sequence[str],
    column: str | None,
) -> tuple[Sequence[Source | Case], str]:
    """What is to be done, and by which kind of model."""
    sets = [name for name in pictures if (Path(name) / "dataset.json").is_file()]
    kind = "answerer" if questions else "captioner"
    if sets:
        if len(pictures) > 1:
            raise UsageError(f"{sets[0]}: is a prepared dataset; expected nothing beside it")
        for option, value in (("column", column), ("question", questions or None)):
            if value is not None:
                raise UsageError(f"{option}: has no effect on a prepared dataset")
        dataset, chosen = Dataset.open(sets[0]), split or "test"
        tells = all("captioner" in can for can in kinds.values())
        if not (dataset.captions and (tells or not dataset.questions)):
            kind = "answerer"
    elif split is not None:
        raise UsageError(f"split {split}: has no effect on pictures without references")
    expected = "a model that captions" + ("" if sets else ", or questions")
    expected = expected if kind == "captioner" else "a model that answers questions"
    if unable := next((name for name, can in kinds.items() if kind not in can), None):
        raise UsageError(f"model {unable}: cannot do this; expected {expected}")
    if not sets:
        own = [os.path.isfile(x) and not x.lower().endswith((*TARS, ".parquet")) for x in pictures]
        return [
            Case(name, name, tuple(questions)) if one else open_source(name, column)
            for name, one in zip(pictures, own, strict=True)
        ], kind
    if kind == "captioner":
        told = scored_records(dataset, chosen)
        return [Case(r.image, str(dataset.path(r)), (), (r,)) for r in told], kind
    return [
        Case(image, str(dataset.path(some[0])), tuple(r.question for r in some), tuple(some))
        for image, some in asked_records(dataset, chosen).items()
    ], kind


# One model's work


def _alone(model: str, work: Work) -> Column:
    """``_column`` in a process of its own."""
    # A server that has imported this module gives a process in no time; Windows has none.
    there = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in there else "spawn")
    if "forkserver" in there:
        context.set_forkserver_preload([__name__])
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_send_column, args=(send, model, work))
    process.start()
    send.close()
    try:
        found: Column | GazetellError = receive.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        memory = ", mostly for want of memory" if code == -9 else ""
        return Column(model, error=f"its process {how}{memory}")
    finally:
        process.kill()
        process.join()
    if isinstance(found, GazetellError):
        raise found
    return found


def _send_column(send: Any, model: str, work: Work) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    keep_memory()
    notes, before = BufferingHandler(10**6), peak_memory()
    notes.setLevel(logging.WARNING)
    logging.getLogger("gazetell").addHandler(notes)
    try:
        found: Any = _column(model, work)
        found.peak = peak_memory()
        found.own = found.peak - before
        lines = (" ".join(record.getMessage().split()) for record in notes.buffer)
        found.notes = list(dict.fromkeys(lines))
    except UsageError as error:
        found = error
    send.send(found)


def _column(name: str, work: Work) -> Column:
    """What a model tells.

    Raises:
        UsageError: an option or a question that it does not take.
    """
    found, cpu, wall = Column(name), list[float](), list[float]()
    try:
        opened = load_captioner if work.kind == "captioner" else load_answerer
        model: Any = opened(name, **work.how)
        if isinstance(model, LargeAnswerer):
            model = LargeAnswerer(model.network, work.listed)
        total = sum(1 for _ in work.cases()) if work.progress else 0
        with bar(name, work.progress) as update:
            for number, case in enumerate(work.cases(), 1):
                began = time.perf_counter(), time.process_time()
                told = _tell(model, case, work.options)
                if not isinstance(told[0], str):
                    wall.append(time.perf_counter() - began[0])
                    cpu.append(time.process_time() - began[1])
                found.told += told
                update(number, total)
    except UsageError:
        raise
    except Exception as error:  # of a model of any make: said, and the others go on
        found.error = _said(error)
    if cpu:
        # The first picture also pays for what is made once: left out where there are others.
        found.cpu_ms, found.ms = (1000 * median(x[1:] or x) for x in (cpu, wall))
    if torch.cuda.is_available() and (most := torch.cuda.max_memory_allocated()):
        found.gpu = most
    return found


def _tell(model: Any, case: Case, options: Mapping[str, Any]) -> Sequence[Told]:
    try:
        if isinstance(case.content, ImageError):
            raise case.content
        told: Sequence[Any]
        if case.questions:
            told = model.ask_all(case.content, case.questions)
        else:
            told = [model.caption(case.content, **options)]
        # Without the picture, which would be sent to another process.
        return [replace(one, image=None) for one in told]
    except UsageError:
        raise
    except Exception as error:  # as above, of one picture
        said = _said(error)
        known = case.name in said or str(case.content) in said
        return [said if known else f"{case.name}: {said}"] * max(1, len(case.questions))


def _said(error: Exception) -> str:
    """An error in one line; one that is not ours with its kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, GazetellError) else f"{type(error).__name__}: {text}"


# What comes of it


def _failed(columns: Sequence[Column]) -> list[str]:
    """One line for each model or picture that failed."""
    models: dict[str, list[str]] = {}
    for column in columns:
        for error in dict.fromkeys(one for one in column.told if isinstance(one, str)):
            models.setdefault(error, []).append(column.model)
    return [
        error if len(names) == len(columns) else f"{', '.join(names)}: {error}"
        for error, names in models.items()
    ]


def _agreements(
    columns: Sequence[Column], answers: bool, rows: int
) -> tuple[list[Agreement], list[float]]:
    """Of each pair of models, and of each row how far the pairs are apart."""
    found, apart = [], [list[float]() for _ in range(rows)]
    for first, second in combinations(columns, 2):
        values, equal = list[float](), 0
        for one, other, distances in zip(first.told, second.told, apart, strict=True):
            if isinstance(one, str) or isinstance(other, str):
                continue
            value, same = agreement(one.text, other.text, answers)
            values.append(value)
            equal += same
            distances.append(1 - value)
        if values:
            pair = first.model, second.model
            found.append(Agreement(pair, fmean(values), equal / len(values), len(values)))
    return found, [fmean(some) if some else 0.0 for some in apart]


def agreement(first: str, second: str, answers: bool) -> tuple[float, bool]:
    """How far two captions or answers agree, in [0, 1], and whether their words are the same."""
    if answers:
        same = normalise_answer(first) == normalise_answer(second)
        return float(same), same
    one, other = split(first), split(second)
    return (rouge_l([one], [[other]])[0] + rouge_l([other], [[one]])[0]) / 2, one == other


def _measure(
    columns: Sequence[Column], records: Sequence[Record | None], answers: bool
) -> dict[tuple[str, str], dict[str, Difference]]:
    """Put the metrics into the columns; and the bootstrap of each pair of models."""
    if not records or records[0] is None:
        return {}
    working = [column for column in columns if not column.error]
    told = list(zip(*(column.told for column in working), strict=True))
    whole = [n for n, row in enumerate(told) if not any(isinstance(x, str) for x in row)]
    if len(whole) < len(records):
        log.warning(f"metrics leave out what a model failed at: {len(records) - len(whole)}")
    if not whole:
        return {}
    wanted: Any = [records[n] for n in whole]
    references = {record.id: references_of(record) for record in wanted}
    said: dict[str, dict[str, str]] = {}
    if problem := None if answers else cider_problem(references):
        log.warning("CIDEr says nothing here: %s", problem)
    for column in working:
        some: Any = [column.told[n] for n in whole]
        texts = {r.id: one.text for r, one in zip(wanted, some, strict=True)}
        said[column.model] = texts
        if answers:
            column.metrics = {"accuracy": score_answers(references, texts)["accuracy"]}
        else:
            column.metrics = score_captions(references, texts)
            column.metrics |= {"cider": None, "cider_d": None} if problem else {}
    if len(whole) < 2:
        log.warning("no bootstrap: it needs two pictures or questions with references")
        return {}
    return {
        pair: compare_texts(wanted, *(said[name] for name in pair))
        for pair in combinations(said, 2)
    }

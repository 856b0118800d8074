"""Fitting: from options and a prepared dataset to a model folder, by Lightning's Trainer.

A run folder is a model folder with the history of its making::

    training.json        the resolved options, the data, versions
    recipe.toml          the same options as a recipe that repeats the run
    metrics.jsonl        a row an epoch: losses, scores, learning rate, seconds
    tensorboard/         the same as curves (--logger)
    checkpoints/         best.ckpt, last.ckpt: to resume, not to distribute
    config.json, ...     the model folder, written when training is done or interrupted

Order, dropout and augmentation depend on seed and epoch alone and ``last.ckpt`` is written at the
end of each epoch, before the line about it: a run that is killed and resumed ends as if it had not
been. ``best.ckpt`` is the epoch of the best score on the validation split; the loss chooses as long
as the score is 0, and where the score cannot tell a good model from a bad one.

Shapes: ``B`` pictures, ``R`` regions, ``C`` channels.
"""

import logging
import math
import os
import platform
import shlex
import signal
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from filelock import FileLock, Timeout

from .. import __version__
from ..data.batches import NoPictures, PixelSource, Source
from ..data.records import Dataset
from ..errors import ModelError, StoppedError, UsageError
from ..features import build_cache
from ..files import (
    check_new_run,
    check_run,
    read_json,
    read_jsonl,
    write_error,
    write_json,
    write_text,
)
from ..models.folder import ModelFolder, has_model, load_model, read_config, save_model
from ..models.options import import_architecture
from ..models.precision import choose_precision
from ..models.weights import shown_name
from ..process import bar, worker_errors
from .answers import Answers
from .captions import Captions, RewardedCaptions
from .devices import Ranks, Threads, find_ranks, go_on, launch, normalises, silent, stopping
from .module import (
    OwnSignals,
    ProgressBar,
    TimeLeft,
    Training,
    WholeCheckpoints,
    average,
    check_logger,
    last_checkpoint,
    read_checkpoint,
    run_logger,
    watchers,
)
from .options import OVERFIT, AnswerOptions, TrainOptions, recipe_text, saved_options
from .task import Report, Task


def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: TrainOptions,
    *,
    trust: bool = False,
    report: Report = print,
    progress: bool = False,
) -> ModelFolder:
    """Train a captioner or an answerer and write its run folder.

    Args:
        data: a prepared dataset with captions, or answered questions, in ``train`` and ``val``.
        out: the run folder; must be new.
        options: of the run, from ``train_options``.
        trust: as there.
        report: takes one line of plain text at a time.
        progress: show a progress bar on standard error.

    Returns:
        The best model on the validation split, as written.

    Raises:
        UsageError: options that do not fit together, a folder that holds something already, or
            devices that are not there.
        DataError: a dataset without the splits, or unreadable.
        WriteError: the disk is full.
        GazetellError: one of several processes was killed.
    """
    out = Path(out)
    check_new_run(out)
    run = {
        "data": str(Path(data).resolve()),
        "options": options.to_dict(),
        "command": shlex.join(["gazetell", *sys.argv[1:]]) if sys.argv else "",
        "gazetell": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "id": uuid.uuid4().hex[:8],  # by which wandb and trackio know it when it is resumed
    }
    return _train(out, run, trust, report, progress, new=True)


def resume(
    out: str | os.PathLike[str],
    *,
    device: str | None = None,
    devices: int | None = None,
    nodes: int | None = None,
    strategy: str | None = None,
    epochs: int | None = None,
    trust: bool = False,
    report: Report = print,
    progress: bool = False,
) -> ModelFolder:
    """Go on with a run that was stopped or killed, to the end it would have had, or another one.

    Args:
        out: the run folder.
        device: other than before, if given; likewise the rest.
        devices: of a machine.
        nodes: machines.
        strategy: how devices share the work.
        epochs: other than planned, more than were trained. From the next step on the learning rate
            is that of a run of so many: of a finished one it rises again where it follows a cosine.
        trust: as for ``train_options``.
        report: takes one line of plain text at a time.
        progress: show a progress bar on standard error.

    Raises:
        ModelError: no run there, a damaged checkpoint, or a dataset that was prepared anew.
        UsageError: no more epochs than were trained, or a run that stopped early.
    """
    out = Path(out)
    given = {"device": device, "devices": devices, "nodes": nodes, "strategy": strategy}
    run = _begun(out, given | {"epochs": epochs})
    if epochs is not None:
        _check_extends(out, run, epochs)
    return _train(out, run, trust, report, progress)


def finish(
    out: str | os.PathLike[str],
    *,
    device: str | None = None,
    trust: bool = False,
    report: Report = print,
) -> ModelFolder:
    """Write the model of the best epoch so far of a run that was stopped, which may still go on.

    Args:
        out: the run folder.
        device: other than before, if given.
        trust: as for ``train_options``.
        report: takes one line of plain text at a time.

    Raises:
        ModelError: no run there, or none of its epochs was validated yet.
        UsageError: a training that is going on there.
    """
    one = {"devices": 1, "nodes": 1, "strategy": "auto"}
    run = _begun(Path(out), {"device": device, **one})
    return _train(Path(out), run, trust, report, ending=True)


def is_finished(out: Path) -> bool:
    """Whether a run folder has a model that is its last, not only the best so far."""
    done = (out / "config.json").is_file()
    return done and bool(read_json(out / "training.json").get("finished", True))


def _begun(out: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The training.json of a run, with the options that are given; ``planned`` is its epochs."""
    file = out / "training.json"
    check_run(out)
    run = read_json(file)
    try:
        run["planned"] = run["options"].get("epochs", TrainOptions.epochs)
        run["options"] |= {name: value for name, value in given.items() if value is not None}
    except (AttributeError, KeyError, TypeError) as error:
        raise ModelError(f"{file}: is malformed: {error}") from error
    return run


def _train(
    out: Path,
    run: dict[str, Any],
    trust: bool,
    report: Report,
    progress: bool = False,
    *,
    new: bool = False,
    ending: bool = False,
) -> ModelFolder:
    """Train as one of the ranks, or start them; ``run`` is for training.json.

    ``new`` begins the run, ``ending`` trains no more.
    """
    file = str(out / "training.json")
    try:
        # Whoever began a run had its architecture imported.
        named = str(run["options"].get("architecture", ""))
        import_architecture(named, trust=new or trust, named_by=file)
        options, data = saved_options(run["options"], file, trust=trust), Path(run["data"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file}: is malformed: {error}") from error
    ranks = find_ranks(options)
    check_logger(options.logger)
    report = report if ranks.first else silent
    extends = run.get("planned", options.epochs) != options.epochs
    if not (new or extends) and is_finished(out):
        report(f"{out}: its training is finished; nothing is left to do")
        return load_model(out)
    if not ranks.started:
        Dataset.open(data)  # what is wrong with it is said before processes start
        with _stoppable(out, report, lambda: finish(out, trust=new or trust, report=silent)):
            launch(
                partial(_train, new=new), (out, run, trust), ranks.devices, out, report, progress
            )
        return load_model(out)
    with ranks.joined(out, report), _stoppable(out, report):
        with ranks.together():
            dataset = Dataset.open(data)
            now = dataset.fingerprint()
            if run.setdefault("sha256", now) != now:
                raise ModelError(
                    f"{out}: was started with other records than those of {data}; start a new run"
                )
        there = ranks.gathered(
            {"dataset": now, "gazetell": __version__, "torch": torch.__version__}
        )
        with ranks.together():
            for name, value in there[0].items():
                if other := [place for place, one in enumerate(there) if one[name] != value]:
                    raise UsageError(f"process {other[0] + 1} of {len(there)} has another {name}")
        if not (new or ending):
            begun = (out / "checkpoints" / "last.ckpt").is_file()
            report(f"resuming {out}" + ("" if begun else " from the beginning: no checkpoint yet"))
        return _fit(dataset, out, options, ranks, run, report, progress, new, ending)


def _fit(
    dataset: Dataset,
    out: Path,
    options: TrainOptions,
    ranks: Ranks,
    run: dict[str, Any],
    report: Report,
    progress: bool,
    new: bool,
    ending: bool,
) -> ModelFolder:
    """Train to the end, or until somebody interrupts, and write the model of the best epoch."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)  # its advice is to developers
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    if options.overfit:
        off: Any = {name: value for name, value in OVERFIT.items() if hasattr(options, name)}
        options = replace(options, **off)
    L.seed_everything(options.seed, verbose=False)
    device, begun, stopped = ranks.device, False, False
    precision = choose_precision(device, options.precision)
    with ranks.together():
        task = _task(dataset, options, report)
        module, encoder = Training(task, out, ranks, report), task.encoder
        weights = sum(p.numel() for p in module.parameters())
        weights -= sum(p.numel() for p in encoder.trunk.parameters())
        words = f"{task.tokenizer.vocab_size} words"
        words += f", {len(task.answers)} answers" if isinstance(task, Answers) else ""
        measure = f"the loss on val: {task.unfit}" if task.unfit else f"{task.chosen_by} on val"
        shared = f", {ranks.world} processes" if ranks.world > 1 else ""
        report(
            f"{options.architecture}: {weights / 1e6:.2f} M parameters, {words}; "
            f"{len(task.training)} training and {len(task.validation)} validation {task.records}; "
            f"{options.encoder} grid {encoder.height}x{encoder.width}x{encoder.channels}; "
            f"{device.type}{shared}, {precision.name} ({precision.reason})"
        )
        report(f"the best epoch is chosen by {measure}")
        if device.type == "cuda" and torch.cuda.device_count() > ranks.world == 1:
            report(f"{torch.cuda.device_count()} GPUs found; training uses one, {device}")
        if ranks.world > 1 and device.type != "cuda" and normalises(module):
            report("batch norm of the encoder is over the pictures within each process only")
    for turn in (ranks.local == 0, ranks.local > 0):  # one encodes, then the others read
        with ranks.together():
            if turn:
                module.open(_source(dataset, task, device, report, progress))
    with _written(out), ExitStack() as held:
        last, best = (out / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
        with ranks.together():
            if ranks.first:
                held.enter_context(_claimed(out))
                if new and (out / "training.json").exists():
                    raise UsageError(f"{out}: another training has begun there in the meantime")
            logger = False if ending else run_logger(options, out, run.get("id"), ranks.first)
            if ranks.first and new:  # what fails up to here leaves no folder that holds a run
                write_json(out / "training.json", run)
                _write_recipe(out, run, options)
            if ending and not best.is_file():
                raise ModelError(f"{out}: has no validated epoch yet{go_on(out)}")
        with ranks.together():
            begun = not new and last.is_file()
            if begun:
                read_checkpoint(last, module)  # before the work
            if begun and any("val_loss" in row for _, row in read_jsonl(out / "metrics.jsonl")):
                read_checkpoint(best, module)
            if ranks.first and run.get("planned", options.epochs) != options.epochs:
                _extend(out, run, options, report)
        early, *keep = watchers(out, options)
        gpu, free = device.type == "cuda", "OMP_NUM_THREADS" not in os.environ
        free = free and device.type == "cpu" and ranks.world == 1 and torch.get_num_threads() > 1
        trainer = L.Trainer(
            accelerator="gpu" if gpu else device.type,
            devices=[device.index or 0] if gpu and ranks.world == 1 else ranks.devices,
            num_nodes=ranks.nodes,
            strategy=ranks.strategy(options.strategy, module),
            plugins=[ranks.environment, WholeCheckpoints()],
            sync_batchnorm=gpu and ranks.world > 1,
            precision="bf16-mixed" if precision.name == "bf16" else "32-true",
            max_epochs=options.epochs,
            check_val_every_n_epoch=options.eval_every,
            logger=logger,
            callbacks=[
                *(early, *keep),
                *([average(options.ema)] if options.ema else []),
                *([Threads(report)] if free else []),
                *(TimeLeft(report, lines=not progress), OwnSignals()),
                *([ProgressBar()] if progress else []),
            ],
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=10,
            use_distributed_sampler=False,
            reload_dataloaders_every_n_epochs=1,
            default_root_dir=out,
        )
        handler, tell = signal.getsignal(signal.SIGINT), report
        try:
            if not ending:
                trainer.fit(module, ckpt_path=last if begun else None, weights_only=True)
        except (KeyboardInterrupt, SystemExit):  # the Trainer makes the second of the first
            if ranks.world > 1 or not best.is_file():
                raise
            _listen(handler)
            ending, stopped, tell = True, True, silent
        if 0 < early.stopped_epoch < options.epochs - 1 and not ending:
            why = f"no better one for {options.patience} (--patience)"
            report(f"stopped after epoch {early.stopped_epoch + 1} of {options.epochs}: {why}")
        with ranks.together(), precision.autocast(device), _told(stopped):
            if stopped:
                report(stopping(out, last_checkpoint(out)["epoch"] + 1))
            if ranks.first:  # alone, with all of the validation split
                state = read_checkpoint(best, module)
                score = _score(out, state)
                about = _about(out, dataset, options)
                about |= {"parameters": weights, "precision": precision.name}
                if options.strategy == "fsdp":  # each rank is left with a part of the weights
                    source, task = module.data[0].source, _task(dataset, options, silent)
                    module = Training(task, out, ranks, report)
                    module.open(source)
                module.load_state_dict(state["state_dict"])
                module.to(device).eval()
                pictures = task.sample(module.data[0], device)
                model = task.folder(about, module.validation(device), pictures, tell)
                if ending:  # before it looks as if the training were finished
                    _mark(out, finished=False)
                save_model(out, model)
                if not ending and "finished" in read_json(out / "training.json"):
                    _mark(out, finished=True)
        if not ranks.first:
            return load_model(out)
    value = f"{task.chosen_by} on val {100 * score:.1f}"
    if score <= 0:
        why = "" if task.unfit else f"; it chose, since {task.chosen_by} stayed 0"
        value = f"loss on val {abs(score):.4f}{why}"
    value += f" (epoch {state['epoch'] + 1})" if ending else ""
    report(f"model written to {out}; best {value}")
    return model


def _score(out: Path, state: dict[str, Any]) -> float:
    """That of the best epoch, by its checkpoint."""
    watching = next(each for each in state["callbacks"].values() if each.get("monitor"))
    if not math.isfinite(score := float(watching["best_model_score"])):
        raise ModelError(f"{out}: no epoch gave a finite loss, so there is no model")
    return score


def _mark(out: Path, *, finished: bool, **options: Any) -> None:
    """Note whether a run with a model in its folder is finished, and options that have changed."""
    run = read_json(out / "training.json")
    run |= {"finished": finished, "options": run["options"] | options}
    write_json(out / "training.json", run)


def _check_extends(out: Path, run: dict[str, Any], epochs: int) -> None:
    """Refuse another number of epochs for a run that stopped early or has trained as many."""
    state = last_checkpoint(out)
    trained = state["epoch"] + 1
    early = (x for name, x in state["callbacks"].items() if name.startswith("EarlyStopping"))
    if epochs != run["planned"] and any(each["stopped_epoch"] for each in early):
        stage = ["gazetell", "train", run["data"], "--init-from", str(out), "--out", "NEW"]
        raise UsageError(
            f"--epochs {epochs}: {out} stopped early after epoch {trained} (--patience "
            f"{run['options'].get('patience', TrainOptions.patience)}), so it has no other number "
            f"of epochs; expected a second stage: {shlex.join(stage)}"
        )
    if epochs <= trained:
        raise UsageError(f"--epochs {epochs}: {out} has trained {trained} already; expected more")


def _extend(out: Path, run: dict[str, Any], options: TrainOptions, report: Report) -> None:
    """Change the number of epochs of a run that was begun."""
    epochs, planned = options.epochs, run["planned"]
    _mark(out, finished=False, epochs=epochs)
    _write_recipe(out, run, options, f"It began with --epochs {planned}, which is not repeated.")
    report(
        f"--epochs {epochs}, not {planned}: from the next step on the learning rate is that of a "
        f"run of {epochs} epochs (--schedule {options.schedule})"
    )


def _write_recipe(out: Path, run: dict[str, Any], options: TrainOptions, note: str = "") -> None:
    """Write the recipe that repeats the run."""
    words = ["gazetell", "train", run["data"], "--recipe", str(out / "recipe.toml"), "--out", "NEW"]
    text = recipe_text(options, f"{shlex.join(words)} repeats this run. {note}")
    write_text(out / "recipe.toml", text)


def _listen(handler: Any) -> None:
    """Listen to Ctrl-C, which the Trainer leaves ignored."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handler)


@contextmanager
def _told(stopped: bool) -> Iterator[None]:
    """What a run that was stopped still does ends without another line, interrupted or not."""
    if not stopped:
        yield
        return
    with suppress(KeyboardInterrupt):
        yield
    raise StoppedError


def _about(out: Path, dataset: Dataset, options: TrainOptions) -> dict[str, Any]:
    """What the card tells of the making."""
    about: dict[str, Any] = {
        "dataset": dataset.name,
        "seed": options.seed,
        "epochs": last_checkpoint(out)["epoch"] + 1,
        "gazetell": __version__,
        "torch": torch.__version__,
    }
    if dataset.machine_made:
        about["machine_made"] = ", ".join(dataset.machine_made)
    # Else the card would name only the weights that the other model began with.
    taken = {name: getattr(options, name) for name in ("encoder_from", "init_from")}
    for name, value in taken.items():
        if value:  # of one of a pair also the pair's name: photo/captioner
            about[name] = shown_name(value)
            if has_model(Path(value)):  # it may be gone since
                theirs = read_config(Path(value))["about"]
                about[f"{name}_dataset"] = theirs.get("dataset", "unnamed data")
                if "machine_made" in theirs:
                    about[f"{name}_machine_made"] = theirs["machine_made"]
    return about


def _task(dataset: Dataset, options: TrainOptions, report: Report) -> Task:
    """What is learned."""
    if isinstance(options, AnswerOptions):
        return Answers(dataset, options, report)
    rewarded = getattr(options, "reward", "") == "cider"
    return (RewardedCaptions if rewarded else Captions)(dataset, options, report)


@contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """Let one process alone write a run folder; its lock goes when the process does."""
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError(f"{out}: another training is writing this run") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _stoppable(out: Path, report: Report, end: Callable[[], Any] | None = None) -> Iterator[None]:
    """Tell how to go on with a run that is interrupted; ``end`` writes the best model so far."""
    handler = signal.getsignal(signal.SIGINT)
    anew = " before the first step; the same command begins again, with what is encoded"
    try:
        with worker_errors(go_on(out)):
            yield
    except StoppedError:
        raise
    except (KeyboardInterrupt, SystemExit) as stop:  # the Trainer makes the second of the first
        _listen(handler)
        if end and (out / "checkpoints" / "best.ckpt").is_file():
            with _told(stopped=True):
                report(stopping(out, last_checkpoint(out)["epoch"] + 1))
                end()
        report(f"stopped{go_on(out) or anew}")
        raise StoppedError from stop


@contextmanager
def _written(out: Path) -> Iterator[None]:
    """Make a full disk one line."""
    try:
        yield
    except OSError as error:
        raise write_error(out, error) from error


def _source(
    dataset: Dataset,
    task: Task,
    device: torch.device,
    report: Report,
    progress: bool,
) -> Source:
    """Cached grids of a frozen encoder, else the pictures themselves; nothing for a blind model."""
    options, encoder = task.options, task.encoder
    if options.blind:
        return NoPictures(encoder.height * encoder.width)
    if encoder.frozen and not task.begun:
        report(
            f"the encoder {options.encoder} is random and stays so; expected --encoder-weights, "
            "--encoder-from or --encoder-trainable"
        )
    precision = choose_precision(device, options.precision)
    if not encoder.frozen or options.features == "none":
        # Crops are opened anew each time.
        whole = [r.image for r in task.validation] if options.random_crop else task.pictures()
        return PixelSource(dataset.root, list(dict.fromkeys(whole)), encoder.frame)
    few = options.limit or options.overfit  # a quick try does not encode everything
    with bar("features", progress, report) as update:
        return build_cache(
            dataset,
            encoder,
            device,
            precision,
            flip=options.flip,
            workers=options.workers,
            pictures=task.pictures() if few else None,
            progress=update,
            report=report,
        )

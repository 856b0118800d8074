"""Fitting: from options and a prepared dataset to a model folder, by Lightning's Trainer.

A run folder is a model folder with the history of its making::

    training.json        the resolved options, the data, versions
    metrics.jsonl        a row an epoch: losses, scores, learning rate, seconds
    tensorboard/         the same as curves
    checkpoints/         best.ckpt, last.ckpt: to resume, not to distribute
    config.json, ...     the model folder, written when training is done

Order, dropout and augmentation depend on seed and epoch alone and ``last.ckpt`` is written at the
end of each epoch: a run that is killed and resumed ends as if it had not been.
"""

import hashlib
import logging
import math
import os
import platform
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment

from .. import __version__
from ..data.records import Dataset
from ..errors import ModelError, UsageError
from ..files import read_json, read_jsonl, write_error, write_json
from ..models.folder import ModelFolder, load_model, save_model
from ..models.precision import Precision, choose_device, choose_precision
from .averaging import EMA
from .history import EpochLog, ProgressBar, Report
from .job import Job, job_of
from .loaders import Batches, picture_source
from .options import TrainOptions
from .task import Task

__all__ = ["fingerprint", "one_process", "resume", "train"]

# What a run writes into its folder.
OWN = (
    *("config.json", "model.safetensors", "tokenizer.json", "answers.json", "metrics.json"),
    *("metrics.jsonl", "README.md", "tensorboard", "checkpoints"),
)
# Where torchrun, srun and mpirun say how many processes they started.
LAUNCHERS = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: TrainOptions,
    *,
    report: Report = print,
    progress: bool = False,
) -> ModelFolder:
    """Train a captioner or an answerer and write its run folder.

    Args:
        data: a prepared dataset with captions, or answered questions, in ``train`` and ``val``.
        out: the run folder; must be new or empty.
        options: of the run.
        report: takes one line of plain text at a time.
        progress: show a progress bar on standard error.

    Returns:
        The best model by CIDEr, or accuracy, on the validation split, as written.

    Raises:
        UsageError: options that do not fit together, or a folder that holds a run.
        DataError: a dataset without the splits, or unreadable.
        WriteError: the disk is full.
    """
    one_process()
    out = Path(out)
    if (out / "training.json").exists():
        raise UsageError(
            f"{out}: holds a run already; go on with --resume {out}, or name another folder"
        )
    if held := [name for name in OWN if (out / name).exists()]:
        raise UsageError(f"{out}: holds {held[0]} already; expected a new folder for the run")
    dataset = Dataset.open(data)
    # Absolute, since the run may be resumed from another folder.
    if options.word_vectors:
        options = replace(options, word_vectors=str(Path(options.word_vectors).resolve()))
    if options.encoder_from and options.init_from:
        raise UsageError("--encoder-from beside --init-from: that model brings its encoder")
    if options.encoder_from:
        source = str(Path(options.encoder_from).resolve())
        options = replace(options, encoder_from=source)
        options = options.taking_encoder(load_model(source).encoder.config)
    if options.init_from:
        earlier = str(Path(options.init_from).resolve())
        options = replace(options, init_from=earlier).taking_over(load_model(earlier))
    run = {
        "data": str(Path(data).resolve()),
        "sha256": fingerprint(dataset),
        "options": options.to_dict(),
        "command": shlex.join(["gazetell", *sys.argv[1:]]) if sys.argv else "",
        "gazetell": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    return _fit(dataset, out, options, None, report, progress, run)


def resume(
    out: str | os.PathLike[str], *, report: Report = print, progress: bool = False
) -> ModelFolder:
    """Go on with a run that was stopped or killed, to the end it would have had.

    Raises:
        ModelError: no run there, a damaged checkpoint, or a dataset that was prepared anew.
    """
    one_process()
    out = Path(out)
    if not (out / "training.json").is_file():
        raise ModelError(f"{out}: holds no run to resume (no training.json)")
    try:
        run = read_json(out / "training.json")
        options = TrainOptions.from_dict(run["options"], str(out / "training.json"))
        dataset = Dataset.open(run["data"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"{out / 'training.json'}: is malformed: {error}") from error
    if run.get("sha256", fingerprint(dataset)) != fingerprint(dataset):
        raise ModelError(
            f"{out}: was begun on other records than {run['data']} holds now; train anew"
        )
    if (out / "config.json").is_file():
        report(f"{out}: its training is finished; nothing is left to do")
        return load_model(out)
    last = out / "checkpoints" / "last.ckpt"
    report(f"resuming {out}" + ("" if last.is_file() else " from the beginning: no checkpoint yet"))
    return _fit(dataset, out, options, last if last.is_file() else None, report, progress)


def _fit(
    dataset: Dataset,
    out: Path,
    options: TrainOptions,
    checkpoint: Path | None,
    report: Report,
    progress: bool,
    run: dict[str, Any] | None = None,
) -> ModelFolder:
    _quiet()
    if options.overfit:
        options = replace(
            options,
            dropout=0.0,
            grid_dropout=0.0,
            word_dropout=0.0,
            flip=False,
            label_smoothing=0.0,
            limit=0,
            captions_per_image=0,
        )
    L.seed_everything(options.seed, verbose=False)
    device = choose_device(options.device)
    precision = choose_precision(device, options.precision)
    job = job_of(dataset, options, report)
    if run is not None:
        # Not before: what fails up to here leaves no folder that holds a run.
        write_json(out / "training.json", run)
    with _going_on(out, report):
        return _run(job, dataset, out, options, checkpoint, report, progress, device, precision)


def _run(
    job: Job,
    dataset: Dataset,
    out: Path,
    options: TrainOptions,
    checkpoint: Path | None,
    report: Report,
    progress: bool,
    device: torch.device,
    precision: Precision,
) -> ModelFolder:
    task, encoder = job.task, job.encoder
    trunk = sum(p.numel() for p in encoder.trunk.parameters())
    weights = sum(p.numel() for p in task.parameters()) - trunk
    report(
        f"{options.architecture}: {weights / 1e6:.2f} M parameters, {job.summary}; "
        f"{options.encoder} grid {encoder.height}x{encoder.width}x{encoder.channels}; "
        f"{device.type}, {precision.name} ({precision.reason})"
    )
    report(
        f"the best epoch is chosen by the loss on val: {task.unfit}"
        if task.unfit
        else f"the best epoch is chosen by {job.chosen_by} on val"
    )
    source = picture_source(dataset, encoder, options, job.pictures, device, report, progress)
    if device.type == "cuda" and torch.cuda.device_count() > 1:
        report(f"{torch.cuda.device_count()} GPUs are here; training uses one, {device}")
    epochs = EpochLog(out / "metrics.jsonl", report, task.columns)
    best = ModelCheckpoint(
        out / "checkpoints",
        filename="best",
        monitor="choice",
        mode="max",
        save_last=False,
        enable_version_counter=False,
    )
    last = ModelCheckpoint(
        out / "checkpoints",
        filename="last",
        monitor=None,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    # Lightning counts validation passes.
    patience = math.ceil(options.patience / options.eval_every)
    early = EarlyStopping("choice", mode="max", patience=patience)
    callbacks: list[Callback] = [
        epochs,
        early,
        best,
        last,
    ]
    if options.ema:
        callbacks.append(EMA(options.ema))
    if progress:
        callbacks.append(ProgressBar())
    trainer = L.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=[device.index or 0] if device.type == "cuda" else 1,
        plugins=[LightningEnvironment()],  # not that of a cluster, which would want more processes
        precision="bf16-mixed" if precision.name == "bf16" else "32-true",
        max_epochs=options.epochs,
        check_val_every_n_epoch=options.eval_every,
        logger=TensorBoardLogger(out, name="", version="tensorboard"),
        callbacks=callbacks,
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        use_distributed_sampler=False,
        reload_dataloaders_every_n_epochs=1,
        default_root_dir=out,
    )
    batches = Batches(*job.data(source), options)
    if checkpoint:
        _check(checkpoint, task)
    trainer.fit(task, datamodule=batches, ckpt_path=checkpoint, weights_only=True)
    score = float("nan") if best.best_model_score is None else float(best.best_model_score)
    if not math.isfinite(score):
        raise ModelError(f"{out}: no epoch gave a finite loss, so there is no model")
    if 0 < early.stopped_epoch < options.epochs - 1:
        finite = early.stopping_reason is not EarlyStoppingReason.NON_FINITE_METRIC
        why = f"no better one for {patience}" if finite else "the loss is no finite number"
        report(f"stopped after epoch {early.stopped_epoch + 1} of {options.epochs}: {why}")
    _check(Path(best.best_model_path), task)
    state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    task.load_state_dict(state["state_dict"])
    rows = [row for _, row in read_jsonl(out / "metrics.jsonl")]
    about = {
        "dataset": dataset.name,
        **job.about(),
        "parameters": weights,
        "seed": options.seed,
        "epochs": len(rows),
        "precision": precision.name,
        "gazetell": __version__,
        "torch": torch.__version__,
    }
    task.to(device).eval()
    held = (task.transfer_batch_to_device(batch, device, 0) for batch in batches.val_dataloader())
    with precision.autocast(device):
        model = job.folder(about, held)
    save_model(out, model)
    said = f"{job.chosen_by} on val {score:.4f}" if score > 0 else f"loss on val {-score:.4f}"
    report(f"model written to {out}; best {said}")
    return model


@contextmanager
def _going_on(out: Path, report: Report) -> Iterator[None]:
    """Tell how to go on with a run that is interrupted, and turn a full disk into one line."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:  # the Trainer makes the second of the first
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)  # which the Trainer leaves ignored
        report(f"stopped; go on with: gazetell train --resume {out}")
        raise KeyboardInterrupt from stop
    except OSError as error:
        raise write_error(out, error) from error


def one_process() -> None:
    """Refuse to be one of several processes: they would write one folder.

    Raises:
        UsageError: naming the variable in which a launcher says so.
    """
    for name in LAUNCHERS:
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value) > 1:
            raise UsageError(
                f"{name}={value}: a launcher started {value} processes; training runs in one, on "
                "one device: start it once, without torchrun, srun or mpirun"
            )


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 of the records of a dataset: a run goes on with these alone."""
    digest = hashlib.sha256()
    for record in (*dataset.captions, *dataset.questions):
        digest.update(repr(record).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _check(checkpoint: Path, task: Task) -> None:
    """Refuse a checkpoint that is damaged, or of another model than the options say.

    Raises:
        ModelError: naming it.
    """
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        found = {name: tensor.shape for name, tensor in state["state_dict"].items()}
    except Exception as error:  # torch raises many kinds
        reason = str(error).strip().splitlines()[0][:200]
        raise ModelError(f"{checkpoint}: cannot be read: {reason}") from error
    if found != {name: tensor.shape for name, tensor in task.state_dict().items()}:
        raise ModelError(f"{checkpoint}: does not fit training.json and the dataset")


def _quiet() -> None:
    """Keep Lightning's advice to its own developers off the user's terminal."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")

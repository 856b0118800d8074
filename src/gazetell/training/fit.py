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

import logging
import os
import platform
import shlex
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from .. import __version__
from ..data.records import Dataset
from ..errors import ModelError, UsageError
from ..files import read_json, read_jsonl, write_error, write_json
from ..models.folder import ModelFolder, load_model, save_model
from ..models.precision import choose_device, choose_precision
from .averaging import EMA
from .history import EpochLog, ProgressBar, Report
from .job import job_of
from .loaders import Batches, picture_source
from .options import TrainOptions

__all__ = ["resume", "train"]


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
    out = Path(out)
    if (out / "training.json").exists():
        raise UsageError(
            f"{out}: holds a run already; go on with --resume {out}, or name another folder"
        )
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
        ModelError: no run there.
    """
    out = Path(out)
    if not (out / "training.json").is_file():
        raise ModelError(f"{out}: holds no run to resume (no training.json)")
    try:
        run = read_json(out / "training.json")
        options = TrainOptions.from_dict(run["options"], str(out / "training.json"))
        dataset = Dataset.open(run["data"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"{out / 'training.json'}: is malformed: {error}") from error
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
    task, encoder = job.task, job.encoder
    trunk = sum(p.numel() for p in encoder.trunk.parameters())
    weights = sum(p.numel() for p in task.parameters()) - trunk
    report(
        f"{options.architecture}: {weights / 1e6:.2f} M parameters, {job.summary}; "
        f"{options.encoder} grid {encoder.height}x{encoder.width}x{encoder.channels}; "
        f"{device.type}, {precision.name} ({precision.reason})"
    )
    source = picture_source(dataset, encoder, options, job.pictures, device, report, progress)
    monitor = task.columns[0]
    epochs = EpochLog(out / "metrics.jsonl", report, task.columns)
    best = ModelCheckpoint(
        out / "checkpoints",
        filename="best",
        monitor=monitor,
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
    callbacks: list[Callback] = [
        epochs,
        EarlyStopping(monitor, mode="max", patience=options.patience),
        best,
        last,
    ]
    if options.ema:
        callbacks.append(EMA(options.ema))
    if progress:
        callbacks.append(ProgressBar())
    trainer = L.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices="auto" if device.type == "cuda" else 1,
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
    try:
        # Our own checkpoint, which also holds the state of callbacks and optimiser.
        trainer.fit(task, datamodule=batches, ckpt_path=checkpoint, weights_only=False)
        if not Path(best.best_model_path).is_file():
            raise ModelError(f"{out}: no epoch was finished, so there is no model")
        state = torch.load(best.best_model_path, map_location="cpu", weights_only=False)
    except SystemExit as stop:  # what the Trainer makes of Ctrl-C
        report(f"stopped; go on with: gazetell train --resume {out}")
        raise KeyboardInterrupt from stop
    except OSError as error:
        raise write_error(out, error) from error
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
    score = float(best.best_model_score or 0)
    report(f"model written to {out}; best {job.chosen_by} on val {score:.4f}")
    return model


def _quiet() -> None:
    """Keep Lightning's advice to its own developers off the user's terminal."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")

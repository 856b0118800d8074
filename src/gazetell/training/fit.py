"""Fitting: from options and a prepared dataset to a model folder, by Lightning's Trainer.

A run folder is a model folder with the history of its making::

    training.json        the resolved options, the data, versions
    metrics.jsonl        a row an epoch: losses, scores, learning rate, seconds
    tensorboard/         the same as curves
    checkpoints/         best.ckpt, last.ckpt: to resume, not to distribute
    config.json, ...     the model folder, written when training is done

Order, dropout and augmentation depend on seed and epoch alone and ``last.ckpt`` is written at the
end of each epoch: a run that is killed and resumed ends as if it had not been. ``best.ckpt`` is the
epoch of the best score on the validation split; the loss chooses as long as the score is 0, and
where the score cannot tell a good model from a bad one.

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
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from filelock import FileLock, Timeout
from lightning.pytorch import callbacks
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader
from torch.utils.data import Dataset as TorchDataset

from .. import __version__
from ..data.batches import NoPictures, Source
from ..data.records import Dataset
from ..errors import GazetellError, ModelError, UsageError
from ..features import build_cache, cache_folder
from ..files import atomic_path, read_json, read_jsonl, write_error, write_json, write_jsonl
from ..models.answerers import ANSWERERS
from ..models.folder import KINDS, ModelFolder, load_model, save_model
from ..models.precision import choose_device, choose_precision
from ..pictures import PixelSource
from ..progress import bar
from .answers import Answers
from .captions import Captions, RewardedCaptions
from .options import OVERFIT, TrainOptions, saved_options
from .task import Report, Task

# What a run writes into its folder.
RUN_FILES = (
    *("training.json", "config.json", "model.safetensors", "tokenizer.json", "answers.json"),
    *("metrics.json", "metrics.jsonl", "README.md", "tensorboard", "checkpoints"),
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
        out: the run folder; must be new.
        options: of the run, from ``train_options``.
        report: takes one line of plain text at a time.
        progress: show a progress bar on standard error.

    Returns:
        The best model on the validation split, as written.

    Raises:
        UsageError: options that do not fit together, a folder that holds something already, or one
            of several processes.
        DataError: a dataset without the splits, or unreadable.
        WriteError: the disk is full.
    """
    _one_process()
    out, dataset = Path(out), Dataset.open(data)
    if present := [name for name in RUN_FILES if (out / name).exists()]:
        how = f"go on with --resume {out}, or name another folder"
        said = how if present[0] == "training.json" else "expected a new folder for the run"
        raise UsageError(f"{out}: holds {present[0]} already; {said}")
    run = {
        "data": str(Path(data).resolve()),
        "sha256": dataset.fingerprint(),
        "options": options.to_dict(),
        "command": shlex.join(["gazetell", *sys.argv[1:]]) if sys.argv else "",
        "gazetell": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    return _fit(dataset, out, options, report, progress, run)


def resume(
    out: str | os.PathLike[str], *, report: Report = print, progress: bool = False
) -> ModelFolder:
    """Go on with a run that was stopped or killed, to the end it would have had.

    Raises:
        ModelError: no run there, a damaged checkpoint, or a dataset that was prepared anew.
    """
    _one_process()
    out = Path(out)
    file = out / "training.json"
    if not file.is_file():
        raise ModelError(f"{out}: holds no run to resume (no training.json)")
    try:
        run = read_json(file)
        options, dataset = saved_options(run["options"], str(file)), Dataset.open(run["data"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"{file}: is malformed: {error}") from error
    now = dataset.fingerprint()
    if run.get("sha256", now) != now:
        raise ModelError(f"{out}: was begun on other records than {run['data']} holds; train anew")
    if (out / "config.json").is_file():
        report(f"{out}: its training is finished; nothing is left to do")
        return load_model(out)
    begun = (out / "checkpoints" / "last.ckpt").is_file()
    report(f"resuming {out}" + ("" if begun else " from the beginning: no checkpoint yet"))
    return _fit(dataset, out, options, report, progress)


def _one_process() -> None:
    """Refuse to be one of several processes: they would write one folder."""
    for name in LAUNCHERS:
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value) > 1:
            raise UsageError(
                f"{name}={value}: a launcher started {value} processes; training runs in one, on "
                "one device: start it once, without torchrun, srun or mpirun"
            )


def _fit(
    dataset: Dataset,
    out: Path,
    options: TrainOptions,
    report: Report,
    progress: bool,
    run: dict[str, Any] | None = None,
) -> ModelFolder:
    """Train to the end; ``run`` is what a new run writes of itself, None goes on with one."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)  # its advice is to developers
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    if options.overfit:
        off: Any = {name: value for name, value in OVERFIT.items() if hasattr(options, name)}
        options = replace(options, **off)
    L.seed_everything(options.seed, verbose=False)
    device = choose_device(options.device)
    precision = choose_precision(device, options.precision)
    answers, rewarded = options.architecture in ANSWERERS, getattr(options, "reward", "") == "cider"
    made = Answers if answers else RewardedCaptions if rewarded else Captions
    task: Task = made(dataset, options, report)
    module, encoder = Training(task, out, report), task.encoder
    weights = sum(p.numel() for p in module.parameters())
    weights -= sum(p.numel() for p in encoder.trunk.parameters())
    words = f"{task.tokenizer.vocab_size} words"
    words += f", {len(task.answers)} answers" if isinstance(task, Answers) else ""
    measure = f"the loss on val: {task.unfit}" if task.unfit else f"{task.chosen_by} on val"
    report(
        f"{options.architecture}: {weights / 1e6:.2f} M parameters, {words}; "
        f"{len(task.training)} training and {len(task.validation)} validation {task.records}; "
        f"{options.encoder} grid {encoder.height}x{encoder.width}x{encoder.channels}; "
        f"{device.type}, {precision.name} ({precision.reason})"
    )
    report(f"the best epoch is chosen by {measure}")
    if device.type == "cuda" and torch.cuda.device_count() > 1:
        report(f"{torch.cuda.device_count()} GPUs are here; training uses one, {device}")
    with _claimed(out), _stoppable(out, report):
        if run is not None:
            if (out / "training.json").exists():
                raise UsageError(f"{out}: another training has begun there in the meantime")
            # Not before: what fails up to here leaves no folder that holds a run.
            write_json(out / "training.json", run)
        module.open(_source(dataset, task, device, report, progress))
        early, best, last = _watchers(out, options)
        trainer = L.Trainer(
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=[device.index or 0] if device.type == "cuda" else 1,
            # A cluster's environment would want more processes.
            plugins=[LightningEnvironment(), WholeCheckpoints()],
            precision="bf16-mixed" if precision.name == "bf16" else "32-true",
            max_epochs=options.epochs,
            check_val_every_n_epoch=options.eval_every,
            logger=TensorBoardLogger(out, name="", version="tensorboard"),
            callbacks=[
                *(early, best, last),
                *([_average(options.ema)] if options.ema else []),
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
        checkpoint = out / "checkpoints" / "last.ckpt"
        begun = run is None and checkpoint.is_file()
        if begun:
            _read_checkpoint(checkpoint, module)
            if any("val_loss" in row for _, row in read_jsonl(out / "metrics.jsonl")):
                _read_checkpoint(checkpoint.with_name("best.ckpt"), module)  # before the work
        trainer.fit(module, ckpt_path=checkpoint if begun else None, weights_only=True)
        score = float("nan") if best.best_model_score is None else float(best.best_model_score)
        if not math.isfinite(score):
            raise ModelError(f"{out}: no epoch gave a finite loss, so there is no model")
        if 0 < early.stopped_epoch < options.epochs - 1:
            why = f"no better one for {options.patience} (--patience)"
            report(f"stopped after epoch {early.stopped_epoch + 1} of {options.epochs}: {why}")
        module.load_state_dict(_read_checkpoint(Path(best.best_model_path), module))
        about = {
            "dataset": dataset.name,
            "parameters": weights,
            "seed": options.seed,
            "epochs": sum(1 for _ in read_jsonl(out / "metrics.jsonl")),
            "precision": precision.name,
            "gazetell": __version__,
            "torch": torch.__version__,
        }
        # Else the card would name only the weights that the other model began with.
        taken = {name: getattr(options, name) for name in ("encoder_from", "init_from")}
        for name, value in taken.items():
            if value:  # of one of a pair also the pair's name: photo/captioner
                about[name] = "/".join(Path(value).parts[-1 - (Path(value).name in KINDS) :])
        with precision.autocast(device):
            module.to(device).eval()
            pictures = task.sample(module.data[0], device)
            model = task.folder(about, module.validation(device), pictures, report)
        save_model(out, model)
    value = f"{task.chosen_by} on val {score:.4f}"
    if score <= 0:
        why = "" if task.unfit else f"; it chose, since {task.chosen_by} stayed 0"
        value = f"loss on val {abs(score):.4f}{why}"
    report(f"model written to {out}; best {value}")
    return model


@contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """Let one process alone write a run folder; its lock goes when the process does."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / ".lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise UsageError(f"{out}: another training is writing this run") from error
    except OSError as error:
        raise write_error(out, error) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _stoppable(out: Path, report: Report) -> Iterator[None]:
    """Tell how to go on with a run that is interrupted, and make a full disk one line."""
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


def _watchers(out: Path, options: TrainOptions) -> tuple[Any, Any, Any]:
    """What stops early, and what keeps the best and the last epoch."""
    patience = math.ceil(options.patience / options.eval_every)  # of validation passes
    early = callbacks.EarlyStopping("choice", mode="max", patience=patience)
    common: Any = {"dirpath": out / "checkpoints", "enable_version_counter": False}
    best = callbacks.ModelCheckpoint(filename="best", monitor="choice", mode="max", **common)
    last = callbacks.ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **common)
    return early, best, last


def _average(decay: float) -> callbacks.WeightAveraging:
    """Validate and keep an exponential moving average of the weights.

    Training goes on with the weights themselves, and a resumed run has both. At first the decay is
    smaller, that the random start is soon forgotten.

    References:
        Polyak and Juditsky 1992, Acceleration of Stochastic Approximation by Averaging.
    """

    def update(means: Any, currents: Any, updates: Tensor | int) -> None:
        """All tensors of a format at once: one by one a GPU would wait for Python."""
        if means[0].is_floating_point():
            decayed = min(decay, (1 + int(updates)) / (10 + int(updates)))
            torch._foreach_lerp_(means, currents, 1 - decayed)
        else:
            torch._foreach_copy_(means, currents)

    return callbacks.WeightAveraging(multi_avg_fn=update)


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that a kill or a full disk in the middle of writing leaves as they were."""

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        """Write beside the target, then rename."""
        with atomic_path(path) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)


class ProgressBar(callbacks.RichProgressBar):
    """Lightning's bar on standard error, without the number of the logger's version."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=5, console_kwargs={"stderr": True})

    def get_metrics(self, *modules: Any) -> dict[str, int | str | float | dict[str, float]]:
        """What is shown behind the bar."""
        return {k: v for k, v in super().get_metrics(*modules).items() if k != "v_num"}


def _read_checkpoint(path: Path, module: nn.Module) -> dict[str, Tensor]:
    """The weights in a checkpoint; nothing in it is executed.

    Raises:
        ModelError: it is damaged, or of another model than the options say.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
        shapes = {name: tensor.shape for name, tensor in state.items()}
    except Exception as error:  # torch raises many kinds
        reason = str(error).strip().splitlines()[0][:200]
        raise ModelError(f"{path}: cannot be read: {reason}") from error
    if shapes != {name: tensor.shape for name, tensor in module.state_dict().items()}:
        raise ModelError(f"{path}: does not fit training.json and the dataset")
    return state


class Training(L.LightningModule):
    """A task under the Trainer: batches, repeatable dropout, clipping, AdamW, the history."""

    data: tuple[Any, Any]  # of training and validation
    workers = 0

    def __init__(self, task: Task, out: Path, report: Report) -> None:
        super().__init__()
        self.task, self.options, self.encoder = task, task.options, task.encoder
        self.history, self.report = out / "metrics.jsonl", report
        self.add_module(task.kind, task.network)

    def open(self, source: Source) -> None:
        """Take the pictures from a source."""
        self.data = self.task.data(source)
        # Worker processes pay off only where pictures are opened again and again.
        again = isinstance(source, PixelSource) and not source.kept
        if again or self.options.random_crop:
            self.workers = self.options.workers
        elif isinstance(source, PixelSource) and self.options.workers > 1:
            self.report("--workers has no effect here, since the pictures fit in memory")

    def train_dataloader(self) -> DataLoader[Any]:
        """Made anew each epoch, shuffled by seed and epoch."""
        training, _ = self.data
        training.epoch = self.current_epoch
        draw = torch.Generator().manual_seed(self.options.seed + self.current_epoch)
        # Drawn once: a loader with workers is begun twice, and a sampler would draw anew.
        order = torch.randperm(len(training), generator=draw).tolist()
        return self._loader(training, self.options.batch, order)

    def val_dataloader(self) -> DataLoader[Any]:
        """In order."""
        return self._loader(self.data[1], 64, range(len(self.data[1])))

    def _loader(self, data: Any, batch: int, order: Sequence[int]) -> DataLoader[Any]:
        indices = BatchSampler(order, batch, drop_last=False)
        # The dataset makes whole batches: there is nothing to collate.
        pinned = self.workers > 0 and self.device.type == "cuda"
        return DataLoader(
            OneLineErrors(data), None, sampler=indices, num_workers=self.workers, pin_memory=pinned
        )

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """All but what is read on the CPU: to ask a GPU for it would wait for its work."""
        moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved._replace(records=batch.records, lengths=batch.lengths)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Raise what went wrong with a batch."""
        if isinstance(batch, GazetellError):
            raise batch
        return batch

    def validation(self, device: torch.device) -> Iterator[Any]:
        """The validation batches without the Trainer."""
        for batch in self.val_dataloader():
            yield self.transfer_batch_to_device(self.on_before_batch_transfer(batch, 0), device, 0)

    def on_train_start(self) -> None:
        """Train no further epoch where a run that is resumed had stopped early."""
        early: Any = self.trainer.early_stopping_callback
        self.trainer.should_stop = early.stopped_epoch > 0

    def on_train_epoch_start(self) -> None:
        """Note the time."""
        self.epoch_began = time.perf_counter()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Make dropout depend on seed and epoch alone, so a resumed run repeats it.

        Not at the start of the epoch: making a loader draws a number too, before it or after.
        """
        self.step_began = time.perf_counter()
        if batch_idx == 0:
            torch.manual_seed(self.options.seed * 100_003 + self.current_epoch)

    def training_step(self, batch: Any, index: int) -> Tensor:
        """One step; the loss is logged."""
        grid = self.task.grid(batch.pictures)
        loss, count, self.extra = self.task.step(grid, batch, self.current_epoch)
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=False)
        self.log("train_loss_epoch", loss, on_step=False, on_epoch=True, batch_size=count)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the reward, and what share of the step, now that it is done, it took."""
        if self.extra:
            share = self.extra["reward_seconds"] / (time.perf_counter() - self.step_began)
            self.log("reward_share", share, on_step=False, on_epoch=True, batch_size=1)
            reward, count = self.extra["train_reward"], len(batch.records)
            self.log("train_reward", reward, on_step=False, on_epoch=True, batch_size=count)

    def validation_step(self, batch: Any, index: int) -> None:
        """The loss; the figures follow at the end."""
        loss, count = self.task.validate(self.task.grid(batch.pictures), batch)
        self.log("val_loss", loss, batch_size=count)

    def on_validation_epoch_end(self) -> None:
        """Log the figures, and ``choice``, by which the best epoch is chosen: greater is better."""
        figures = self.task.figures()
        for name, value in figures.items():
            self.log(name, value, prog_bar=name == self.task.columns[0])
        loss = float(self.trainer.callback_metrics["val_loss"])
        score = 0.0 if self.task.unfit else figures[self.task.columns[0]]
        telling = score > 0 and math.isfinite(loss)
        self.log("choice", score if telling else -loss, logger=False)

    def on_train_epoch_end(self) -> None:
        """Write the row; rows that a killed run wrote for this or later epochs are replaced."""
        seconds, epoch = time.perf_counter() - self.epoch_began, self.current_epoch + 1
        # JSON has no numbers but finite ones.
        metrics = self.trainer.callback_metrics
        values = {k: float(v) for k, v in metrics.items() if math.isfinite(v)}
        if "train_loss_epoch" in values:
            values["train_loss"] = values["train_loss_epoch"]
        else:
            self.trainer.should_stop = True
            self.report(
                f"epoch {epoch}: the training loss is no finite number; training ends here (a "
                "smaller --learning-rate may help)"
            )
        names = ["train_loss", "train_reward", "reward_share"]
        if epoch % self.options.eval_every == 0:
            names += ["val_loss", *self.task.columns]
        row = {"epoch": epoch, **{name: round(values[name], 5) for name in names if name in values}}
        row["learning_rate"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        row["seconds"] = round(seconds, 2)
        rows = [r for _, r in read_jsonl(self.history)] if self.history.is_file() else []
        write_jsonl(self.history, [*(r for r in rows if r["epoch"] < epoch), row])
        shown = [f"{n} {values[n]:.4f}" for n in names if n in row and n != "reward_share"]
        where = f"epoch {epoch}/{self.options.epochs}"
        self.report("  ".join([where, *shown, f"{seconds:.0f} s"]))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the callbacks' state fit a run folder that was moved, or made before ``choice``."""
        folder = self.history.resolve().parent / "checkpoints"

        def here(path: str) -> str:
            return path and str(folder / Path(path).name)

        states = checkpoint["callbacks"]
        for key in list(states):
            state = states.pop(key)
            if "dirpath" in state:
                state["dirpath"] = str(folder)
                for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
                    state[name] = here(state[name])
                state["best_k_models"] = {here(k): v for k, v in state["best_k_models"].items()}
            states[key.replace(repr(self.task.columns[0]), "'choice'")] = state

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient; the Trainer's own clipping refuses fused optimisers."""
        if self.options.clip:
            nn.utils.clip_grad_norm_(self.parameters(), self.options.clip)

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up; matrices decay, biases, norms and embeddings do not."""
        options = self.options
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            trunk = name.startswith("encoder.trunk.")
            rate = options.encoder_learning_rate if trunk else options.learning_rate
            plain = parameter.dim() < 2 or ".embed." in name
            decay = 0.0 if plain else options.weight_decay
            groups.setdefault((rate, decay), []).append(parameter)
        optimizer = torch.optim.AdamW(
            [{"params": p, "lr": lr, "weight_decay": wd} for (lr, wd), p in groups.items()],
            betas=(0.9, options.beta2),
            fused=True,
        )
        total = max(int(self.trainer.estimated_stepping_batches), 1)
        warmup = int(options.warmup * total)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            if options.schedule == "constant":
                return 1.0
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class OneLineErrors(TorchDataset[Any]):
    """A dataset that returns its one-line errors: raised in a worker they become tracebacks."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __getitem__(self, indices: Any) -> Any:
        """The batch of some indices, or what went wrong with it."""
        try:
            return self.data.__getitems__(indices)
        except GazetellError as error:
            return error


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
    folder = cache_folder(dataset, encoder, precision, flip=options.flip)
    # A quick try does not encode everything; a cache serves it where there is one.
    quick = (options.limit or options.overfit) and not folder.is_dir()
    if not encoder.frozen or options.features == "none" or quick:
        # Crops are opened anew each time.
        whole = [r.image for r in task.validation] if options.random_crop else task.pictures()
        return PixelSource(dataset.root, list(dict.fromkeys(whole)), encoder.frame)
    with bar("features", progress) as update:
        return build_cache(
            dataset,
            encoder,
            device,
            precision,
            flip=options.flip,
            workers=options.workers,
            progress=update,
        )

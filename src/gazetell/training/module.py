"""A task under Lightning's Trainer: batches, loss, optimiser, history."""

import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import lightning as L
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ..data.batches import PixelSource, Source
from ..errors import GazetellError, ModelError, UsageError
from ..files import atomic_path, read_jsonl, write_jsonl
from ..metrics import TITLES
from ..process import Pace, begin_worker, undisturbed
from .devices import Ranks, Shares
from .task import Report, Task

PROJECT = "gazetell"  # where wandb and trackio keep the runs
VALIDATED = 64  # pictures of a validation batch on each device


class Training(L.LightningModule):
    """A task under the Trainer: batches, repeatable dropout, clipping, AdamW, the history."""

    data: tuple[Any, Any]  # of training and validation
    time_left = ""  # see TimeLeft
    line = ""  # see EpochLine
    workers = 0

    def __init__(self, task: Task, out: Path, ranks: Ranks, report: Report) -> None:
        super().__init__()
        self.task, self.options, self.encoder = task, task.options, task.encoder
        self.history, self.ranks, self.report = out / "metrics.jsonl", ranks, report
        self.add_module(task.kind, task.network)
        # Matrices decay; biases, norms and embeddings do not. FSDP flattens all of them later.
        named = self.named_parameters()
        self.decaying = {n for n, p in named if p.dim() > 1 and ".embed." not in n}

    def open(self, source: Source) -> None:
        """Take the pictures from a source."""
        self.data = self.task.data(source)
        # Worker processes pay off only where pictures are opened again and again.
        again = isinstance(source, PixelSource) and not source.kept
        if again or self.options.random_crop:
            self.workers = self.options.workers
        elif isinstance(source, PixelSource) and self.options.workers > 1:
            self.report("--workers: has no effect here, since the pictures fit in memory")

    def train_dataloader(self) -> DataLoader[Any]:
        """Made anew each epoch, shuffled by seed and epoch."""
        training, _ = self.data
        training.epoch = self.current_epoch
        draw = torch.Generator().manual_seed(self.options.seed + self.current_epoch)
        # Drawn once: a loader with workers is begun twice, and a sampler would draw anew.
        order = torch.randperm(len(training), generator=draw).tolist()
        self.shares = Shares(order, self.options.batch, training.words(), self.ranks)
        return self._loader(training, self.shares)

    def val_dataloader(self) -> DataLoader[Any]:
        """In order."""
        self.val_shares = self._in_order(self.ranks)
        return self._loader(self.data[1], self.val_shares)

    def _in_order(self, ranks: Ranks) -> Shares:
        data = self.data[1]
        return Shares(range(len(data)), VALIDATED * ranks.world, data.words(), ranks)

    def _loader(self, data: Any, shares: Shares) -> DataLoader[Any]:
        # The dataset makes whole batches: there is nothing to collate.
        pinned = self.workers > 0 and self.device.type == "cuda"
        how: Any = {"num_workers": self.workers, "worker_init_fn": begin_worker}
        return _Loader(OneLineErrors(data), None, sampler=shares, pin_memory=pinned, **how)

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
        """All validation batches, without the Trainer and the other ranks."""
        for batch in self._loader(self.data[1], self._in_order(Ranks())):
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
            seed = self.options.seed * 100_003 + self.current_epoch
            torch.manual_seed(seed + (self.ranks.rank << 50))  # each rank drops out others

    def training_step(self, batch: Any, index: int) -> Tensor:
        """One step; the loss is logged, that of all ranks."""
        grid = self.task.grid(batch.pictures)
        terms, self.extra = self.task.step(grid, batch, self.current_epoch)
        self.idle = self.shares.idle(index)
        loss, shown = self.ranks.mean(terms, self.idle)
        self.log("train_loss", shown, prog_bar=True, on_step=True, on_epoch=False)
        self._log_mean("train_loss_epoch", shown, 0 if self.idle else terms[0][1])
        return loss

    def _log_mean(self, name: str, value: Any, count: int) -> None:
        """Log a mean over the epoch and the ranks, weighted by so many words or pictures."""
        # A float: Lightning takes the mean of the ranks' weights, and cuts that of integers.
        weight: Any = float(count)
        self.log(name, value, on_step=False, on_epoch=True, batch_size=weight, sync_dist=True)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the reward, and what share of the step, now that it is done, it took."""
        if self.extra:
            share = self.extra["reward_seconds"] / (time.perf_counter() - self.step_began)
            self._log_mean("reward_share", share, 1)
            count = 0 if self.idle else len(batch.records)
            self._log_mean("train_reward", self.extra["train_reward"], count)

    def validation_step(self, batch: Any, index: int) -> None:
        """The loss; the figures follow at the end."""
        loss, count = self.task.validate(self.task.grid(batch.pictures), batch)
        self._log_mean("val_loss", loss, 0 if self.val_shares.idle(index) else count)

    def on_validation_epoch_end(self) -> None:
        """Log the figures of all ranks, and ``choice``: the epoch where it is greatest is best."""
        parts, self.task.said = self.ranks.gathered(self.task.said), {}
        said = dict(sorted(pair for part in parts for pair in part.items()))
        figures = self.ranks.once(partial(self.task.figures, said))
        for name, value in figures.items():
            self.log(name, value, prog_bar=name == self.task.columns[0])
        loss = float(self.trainer.callback_metrics["val_loss"])
        score = 0.0 if self.task.unfit else figures[self.task.columns[0]]
        telling = score > 0 and math.isfinite(loss)
        self.log("choice", score if telling else -loss, logger=False)

    def on_train_epoch_end(self) -> None:
        """Write the row; rows that a killed run wrote for this or later epochs are replaced.

        Before the checkpoint: a kill between the two repeats the epoch and its row.
        """
        seconds, epoch = time.perf_counter() - self.epoch_began, self.current_epoch + 1
        # JSON has no numbers but finite ones.
        metrics = self.trainer.callback_metrics
        values = {k: float(v) for k, v in metrics.items() if math.isfinite(v)}
        if "train_loss_epoch" in values:
            values["train_loss"] = values["train_loss_epoch"]
        else:
            self.trainer.should_stop = True
            self.report(
                f"epoch {epoch}: the training loss is not a finite number; training ends here (a "
                "smaller --learning-rate may help)"
            )
        names = ["train_loss", "train_reward", "reward_share"]
        if epoch % self.options.eval_every == 0:
            names += ["val_loss", *self.task.columns]
        row = {"epoch": epoch, **{name: round(values[name], 5) for name in names if name in values}}
        row["learning_rate"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        row["seconds"] = round(seconds, 2)
        if not self.ranks.first:
            return
        rows = [r for _, r in read_jsonl(self.history)] if self.history.is_file() else []
        write_jsonl(self.history, [*(r for r in rows if r["epoch"] < epoch), row])
        shown = [_shown(n, values[n]) for n in names if n in row and n != "reward_share"]
        where = f"epoch {epoch}/{self.options.epochs}"
        self.line = "  ".join([where, *shown, f"{seconds:.0f} s"])  # EpochLine tells it

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
            plain = partial(nn.utils.clip_grad_norm_, self.parameters())
            # FSDP knows the norm of what the other ranks hold.
            getattr(self.trainer.strategy.model, "clip_grad_norm_", plain)(self.options.clip)

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up."""
        options = self.options
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            trunk = name.startswith("encoder.trunk.")
            rate = options.encoder_learning_rate if trunk else options.learning_rate
            decay = options.weight_decay if name in self.decaying else 0.0
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


class _Loader(DataLoader[Any]):
    """A loader that starts all of its workers or none."""

    def __iter__(self) -> Any:
        with undisturbed():
            return super().__iter__()


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


def average(decay: float) -> callbacks.WeightAveraging:
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


class TrackioLogger(Logger):
    """trackio under the Trainer, which knows wandb alone; the two have one API.

    Args:
        run: its name.
        config: what is known of it.
    """

    def __init__(self, run: str, config: dict[str, Any]) -> None:
        super().__init__()
        self.run, self.config = run, config
        self._begun: Any = None

    @property
    def name(self) -> str:
        """Of the project."""
        return PROJECT

    @property
    def version(self) -> str:
        """The run."""
        return self.run

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Its run, begun when it is first asked for."""
        if self._begun is None:
            import trackio

            about: dict[str, Any] = {"name": self.run, "config": self.config, "resume": "allow"}
            with redirect_stdout(sys.stderr):
                self._begun = trackio.init(project=PROJECT, **about)
        return self._begun

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Keep the figures of a step."""
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """They are in the configuration."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run."""
        if self._begun is not None:
            import trackio

            with redirect_stdout(sys.stderr):
                trackio.finish()  # its run's own would be called again when Python ends
            self._begun = None


def check_logger(name: str) -> None:
    """Refuse a ``--logger`` whose package is not installed, with a UsageError."""
    if name in ("wandb", "trackio") and find_spec(name) is None:
        said = f"the package {name} is not installed; pip install {name}"
        raise UsageError(f"--logger {name}: {said}")


def run_logger(options: Any, out: Path, key: str | None, first: bool) -> Any:
    """The Trainer's logger that keeps the curves of a run, as ``--logger`` says.

    Args:
        options: of the run.
        out: its folder.
        key: by which others know it when it is resumed.
        first: whether this process writes.

    Raises:
        UsageError: wandb or trackio cannot begin, as without an account.
    """
    if options.logger == "tensorboard":
        return TensorBoardLogger(out, name="", version="tensorboard")
    if options.logger == "csv":
        return CSVLogger(out, name="csv")  # a folder a start: it would write over an earlier file
    config = options.to_dict()
    try:
        logger: Any = TrackioLogger(f"{out.name}-{key}", config)
        if options.logger == "wandb":
            project = os.environ.get("WANDB_PROJECT", PROJECT)
            logger = WandbLogger(out.name, out, id=key, project=project, config=config)
        if first:  # now, as what fails later would be no line of ours
            _ = logger.experiment
    except Exception as error:  # of the package's own kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"--logger {options.logger}: cannot begin: {reason}") from error
    return logger


class TimeLeft(callbacks.Callback):
    """Tells how long the run will take at most: once it is known, then in lines or beside the bar.

    Args:
        report: takes a line.
        lines: one a minute, as there is no bar.
    """

    def __init__(self, report: Report, lines: bool) -> None:
        self.report, self.lines, self.pace = report, lines, Pace()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the steps."""
        self.total = int(trainer.estimated_stepping_batches)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell it where it is time."""
        first, epochs = not self.pace.left, trainer.max_epochs
        left = self.pace(trainer.global_step, self.total)
        pl_module.time_left = self.pace.left
        steps = trainer.num_training_batches
        if left and first:
            rest = "" if trainer.current_epoch else ", besides validation"
            self.report(f"{self.total} steps (--epochs {epochs}): {left} left at most{rest}")
        elif left and self.lines:
            where = f"epoch {trainer.current_epoch + 1}/{epochs}, step {batch_idx + 1} of {steps}"
            loss = float(trainer.callback_metrics["train_loss"])
            self.report(f"{where}: train_loss {loss:.4f}, {left} left at most")


class OwnSignals(callbacks.Callback):
    """Leaves SIGTERM as it was: the Trainer's handler would wait for the other ranks' in vain."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Note it."""
        self.before = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Where nobody had one, the Trainer's is better than none."""
        if callable(self.before) and current_thread() is main_thread():
            signal.signal(signal.SIGTERM, self.before)


class ProgressBar(callbacks.RichProgressBar):
    """Lightning's bar on standard error, without the number of the logger's version."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=5, console_kwargs={"stderr": True})

    def get_metrics(
        self, trainer: L.Trainer, pl_module: Any
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What is shown behind the bar."""
        shown = super().get_metrics(trainer, pl_module) | {"left": pl_module.time_left or "?"}
        return {k: v for k, v in shown.items() if k != "v_num"}


def watchers(out: Path, options: Any) -> tuple[Any, ...]:
    """What stops early, and what keeps the best and the last epoch: its line comes after that."""
    patience = math.ceil(options.patience / options.eval_every)  # of validation passes
    early = callbacks.EarlyStopping("choice", mode="max", patience=patience)
    common: Any = {"dirpath": out / "checkpoints", "enable_version_counter": False}
    best = callbacks.ModelCheckpoint(filename="best", monitor="choice", mode="max", **common)
    last = callbacks.ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **common)
    return early, best, last, EpochLine()


class EpochLine(callbacks.Checkpoint):
    """Tells of an epoch once its checkpoint is written: who stops then can rely on the line.

    A ``Checkpoint``, as the Trainer calls those last, in the order in which they are given.
    """

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Tell it."""
        pl_module.report(pl_module.line)


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that a kill or a full disk in the middle of writing leaves as they were."""

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        """Write beside the target, then rename."""
        with atomic_path(path) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)


def read_checkpoint(path: Path, module: nn.Module | None = None) -> dict[str, Any]:
    """A checkpoint; nothing in it is executed.

    Raises:
        ModelError: it is damaged, or of another model than ``module``.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        shapes = {name: tensor.shape for name, tensor in state["state_dict"].items()}
    except Exception as error:  # torch raises many kinds
        reason = str(error).strip().splitlines()[0][:200]
        raise ModelError(f"{path}: cannot be read: {reason}") from error
    if module and shapes != {name: tensor.shape for name, tensor in module.state_dict().items()}:
        raise ModelError(f"{path}: does not fit training.json and the dataset")
    return state


def last_checkpoint(out: Path) -> dict[str, Any]:
    """That of the last epoch which a run folder holds; of none, its ``epoch`` is -1."""
    last = out / "checkpoints" / "last.ckpt"
    return read_checkpoint(last) if last.is_file() else {"epoch": -1, "callbacks": {}}


def _shown(name: str, value: float) -> str:
    """A figure of ``metrics.jsonl`` as a person reads it: ``val_cider`` 0.547 is CIDEr 54.7."""
    split, _, what = name.partition("_")
    if what == "loss":
        return f"{name} {value:.4f}"
    return f"{split} {TITLES['cider_d' if what == 'reward' else what]} {100 * value:.1f}"

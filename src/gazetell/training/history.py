"""The history of a run: a row an epoch in ``metrics.jsonl``, a line in the report."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, RichProgressBar

from ..files import read_jsonl, write_jsonl

__all__ = ["EpochLog", "ProgressBar", "Report"]

Report = Callable[[str], None]


class ProgressBar(RichProgressBar):
    """Lightning's bar on standard error, without the number of the logger's version."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=5, console_kwargs={"stderr": True})

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What is shown behind the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class EpochLog(Callback):
    """Writes a row an epoch to ``metrics.jsonl`` and a line to the report."""

    def __init__(self, path: Path, report: Report, scores: Sequence[str]) -> None:
        """``scores`` names what validation logs besides ``val_loss``."""
        self.path, self.report, self.scores = path, report, tuple(scores)
        self.began = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Train no further epoch where a run that is resumed had stopped early."""
        early = trainer.early_stopping_callback
        trainer.should_stop = early is not None and early.stopped_epoch > 0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the time."""
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the row; rows that a killed run wrote for this or later epochs are replaced."""
        seconds = time.perf_counter() - self.began
        values = {k: float(v) for k, v in trainer.callback_metrics.items()}
        values = {k: v for k, v in values.items() if math.isfinite(v)}  # JSON has no other number
        row: dict[str, Any] = {"epoch": trainer.current_epoch + 1}
        if "train_loss_epoch" in values:
            row["train_loss"] = round(values["train_loss_epoch"], 5)
        else:
            trainer.should_stop = True
            self.report(
                f"epoch {row['epoch']}: the training loss is no finite number; training ends here "
                "(a smaller --learning-rate may help)"
            )
        validated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
        names = ["train_reward", "reward_share"]
        names += ["val_loss", *self.scores] if validated else []
        row |= {name: round(values[name], 5) for name in names if name in values}
        row["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        row["seconds"] = round(seconds, 2)
        rows = [r for _, r in read_jsonl(self.path)] if self.path.is_file() else []
        write_jsonl(self.path, [*(r for r in rows if r["epoch"] < row["epoch"]), row])
        shown = "  ".join(
            f"{name} {row[name]:.4f}"
            for name in ("train_loss", "train_reward", "val_loss", *self.scores)
            if name in row
        )
        self.report(f"epoch {row['epoch']}/{trainer.max_epochs}  {shown}  {seconds:.0f} s")

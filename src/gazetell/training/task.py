"""What training captioners and training answerers share, as a Lightning module.

Shapes: ``B`` pictures, ``R`` regions, ``C`` channels, ``S`` input side.
"""

import math
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from ..models.encoders import Encoder, Grid
from .options import TrainOptions

__all__ = ["Task"]


class Task(L.LightningModule):
    """The encoder with a network on top: grids, repeatable dropout, clipping, AdamW.

    ``columns`` names what a validation pass logs, in the order of the history; the first is what
    the best epoch is chosen by; ``unfit`` says why it cannot tell a good model from a bad one, if
    so.
    """

    columns: ClassVar[tuple[str, ...]]
    unfit: str | None

    def __init__(self, encoder: Encoder, options: TrainOptions) -> None:
        super().__init__()
        self.encoder, self.options = encoder, options

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Make dropout depend on seed and epoch alone, so a resumed run repeats it.

        Not at the start of the epoch: making a loader draws a number too, before it or after.
        """
        if batch_idx == 0:
            torch.manual_seed(self.options.seed * 100_003 + self.current_epoch)

    def grid(self, pictures: Tensor) -> Grid:
        """The grid of uint8 images (B, 3, S, S), or of cached cells (B, R, C)."""
        if pictures.dtype == torch.uint8:
            return self.encoder(pictures)
        cells = pictures.float()
        return self.encoder.project_grid(Grid.of(cells, self.encoder.height, self.encoder.width))

    def log_loss(self, loss: Tensor, count: int) -> None:
        """Log the loss of a training step over ``count`` captions or questions."""
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=False)
        self.log("train_loss_epoch", loss, on_step=False, on_epoch=True, batch_size=count)

    def log_choice(self, score: float) -> None:
        """Log what the best epoch is chosen by, greater is better.

        That is the score, and, as long as it is 0 or where it is unfit, the negative loss.
        """
        loss = float(self.trainer.callback_metrics["val_loss"])
        self.log("choice", score if not self.unfit and score > 0 else -loss, logger=False)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the callbacks' state fit a run folder that was moved, or made before ``choice``."""
        saver = self.trainer.checkpoint_callback
        folder = saver.dirpath if isinstance(saver, ModelCheckpoint) else None
        states = checkpoint["callbacks"]
        for key in list(states):
            state = states.pop(key)
            if folder and "dirpath" in state:
                for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
                    if state[name]:
                        state[name] = str(Path(folder, Path(state[name]).name))
                state["best_k_models"] = {
                    str(Path(folder, Path(k).name)): v for k, v in state["best_k_models"].items()
                }
                state["dirpath"] = folder
            states[key.replace(repr(self.columns[0]), "'choice'")] = state

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient; the Trainer's own clipping refuses fused optimisers."""
        if self.options.clip:
            nn.utils.clip_grad_norm_(self.parameters(), self.options.clip)

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up; matrices decay, biases, norms and embeddings do not."""
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            trunk = name.startswith("encoder.trunk.")
            rate = self.options.encoder_learning_rate if trunk else self.options.learning_rate
            plain = parameter.dim() < 2 or ".embed." in name
            decay = 0.0 if plain else self.options.weight_decay
            groups.setdefault((rate, decay), []).append(parameter)
        optimizer = torch.optim.AdamW(
            [{"params": p, "lr": lr, "weight_decay": wd} for (lr, wd), p in groups.items()],
            betas=(0.9, self.options.beta2),
            fused=True,
        )
        total = max(int(self.trainer.estimated_stepping_batches), 1)
        warmup = int(self.options.warmup * total)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            if self.options.schedule == "constant":
                return 1.0
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

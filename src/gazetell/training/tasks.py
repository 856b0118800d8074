"""Tasks: what one training step and one validation pass do, as Lightning modules.

Shapes: ``B`` pictures, ``N`` captions, ``T`` words, ``M`` words that are no padding, ``V``
vocabulary, ``R`` regions, ``C`` channels.
"""

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.batches import CaptionBatch
from ..data.records import CaptionRecord
from ..data.text import Tokenizer
from ..metrics import score_captions
from ..models.captioners import CaptionModel
from ..models.decoding import DecodingOptions, decode
from ..models.encoders import Encoder, Grid
from .options import TrainOptions

__all__ = ["CaptionTask"]


class CaptionTask(L.LightningModule):
    """Cross-entropy training of a captioner; validation on freely generated captions.

    Logs ``train_loss`` and ``val_loss`` (nats a word, ``<end>`` counted) and, of greedy captions
    of the validation pictures, ``val_cider`` and ``val_bleu_4``.
    """

    def __init__(
        self,
        encoder: Encoder,
        captioner: CaptionModel,
        tokenizer: Tokenizer,
        options: TrainOptions,
        validation: Sequence[CaptionRecord],
    ) -> None:
        super().__init__()
        self.encoder, self.captioner = encoder, captioner
        self.tokenizer, self.options, self.validation = tokenizer, options, validation
        self.generated: dict[int, str] = {}

    def on_train_batch_start(self, batch: CaptionBatch, batch_idx: int) -> None:
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
        return self.encoder.finish(Grid.of(cells, self.encoder.height, self.encoder.width))

    def loss(self, grid: Grid, batch: CaptionBatch, smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy a word in nats."""
        state = self.captioner.start(grid).select(batch.owner)
        inputs, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]
        outputs, _ = self.captioner.unroll(state, inputs, batch.lengths)  # (N, T, H)
        real = targets != self.tokenizer.pad
        logits = self.captioner.head(outputs[real])  # (M, V)
        return F.cross_entropy(logits.float(), targets[real], label_smoothing=smoothing)

    def training_step(self, batch: CaptionBatch, index: int) -> Tensor:
        """One step of teacher forcing."""
        loss = self.loss(self.grid(batch.pictures), batch, self.options.label_smoothing)
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=False)
        self.log(
            "train_loss_epoch", loss, on_step=False, on_epoch=True, batch_size=len(batch.owner)
        )
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the captions of the last pass."""
        self.generated = {}

    def validation_step(self, batch: CaptionBatch, index: int) -> None:
        """Loss on the references, and a greedy caption of each picture."""
        grid = self.grid(batch.pictures)
        if len(batch.owner):
            loss = self.loss(grid, batch)
            self.log("val_loss", loss, batch_size=len(batch.owner), sync_dist=True)
        found = decode(
            self.captioner,
            grid,
            DecodingOptions(beam=1, max_length=self.options.max_length),
            start=self.tokenizer.start,
            end=self.tokenizer.end,
            banned=(self.tokenizer.pad, self.tokenizer.unk),
        )
        for record, caption in zip(batch.records.tolist(), found, strict=True):
            self.generated[record] = self.tokenizer.decode(caption.tokens)

    def on_validation_epoch_end(self) -> None:
        """CIDEr and BLEU-4 of the generated captions."""
        references = {str(i): self.validation[i].captions for i in self.generated}
        predictions = {str(i): text for i, text in self.generated.items()}
        scores = score_captions(references, predictions)
        for name in ("cider", "bleu_4"):
            self.log(f"val_{name}", scores[name] or 0.0, prog_bar=name == "cider", sync_dist=True)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient; the Trainer's own clipping refuses fused optimisers."""
        if self.options.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters(), self.options.clip)

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

"""Training of captioners: what one step and one validation pass do.

Shapes: ``B`` pictures, ``N`` captions, ``T`` words, ``M`` words that are no padding, ``V``
vocabulary, ``R`` regions.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.batches import CaptionBatch
from ..data.records import CaptionRecord
from ..data.text import Tokenizer
from ..metrics import cider_problem, score_captions
from ..models.captioners import CaptionModel, State
from ..models.decoding import Decoded, DecodingOptions, decode
from ..models.encoders import Encoder, Grid
from .options import TrainOptions
from .task import Task

__all__ = ["CaptionTask", "doubly_stochastic"]


class CaptionTask(Task):
    """Cross-entropy training of a captioner; validation on freely generated captions.

    Logs ``train_loss`` and ``val_loss`` (nats a word, ``<end>`` counted) and, of greedy captions
    of the validation pictures, ``val_cider`` and ``val_bleu_4``.
    """

    columns = ("val_cider", "val_bleu_4")

    def __init__(
        self,
        encoder: Encoder,
        captioner: CaptionModel,
        tokenizer: Tokenizer,
        options: TrainOptions,
        validation: Sequence[CaptionRecord],
    ) -> None:
        super().__init__(encoder, options)
        self.captioner, self.tokenizer, self.validation = captioner, tokenizer, validation
        self.generated: dict[int, str] = {}
        self.unfit = cider_problem({record.id: record.captions for record in validation})

    def loss(
        self,
        grid: Grid,
        batch: CaptionBatch,
        smoothing: float = 0.0,
        penalty: float = 0.0,
        sampled: float = 0.0,
    ) -> Tensor:
        """Mean cross-entropy a word in nats, and the penalty of the attention."""
        state = self.captioner.start(grid).select(batch.owner)
        inputs, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]
        if sampled:
            inputs = self.mix(state, batch, sampled)[:, :-1]
        outputs, attention = self.captioner.unroll(state, inputs, batch.lengths)  # (N, T, H)
        real = targets != self.tokenizer.pad
        logits = self.captioner.head(outputs[real])  # (M, V)
        loss = F.cross_entropy(logits.float(), targets[real], label_smoothing=smoothing)
        if penalty and attention is not None:
            loss = loss + penalty * doubly_stochastic(attention)
        return loss

    def generate(self, grid: Grid, options: DecodingOptions, samples: int = 1) -> list[Decoded]:
        """Captions of a grid, without unknown words and without dropout."""
        special, training = self.tokenizer, self.captioner.training
        self.captioner.eval()
        found = decode(
            self.captioner,
            grid,
            options,
            start=special.start,
            end=special.end,
            banned=(special.pad, special.unk),
            samples=samples,
        )
        self.captioner.train(training)
        return found

    def mix(self, state: State, batch: CaptionBatch, share: float) -> Tensor:
        """Scheduled sampling: tokens (N, T+1) with a share of them drawn by the model.

        A first pass over the references draws a word at each place, a second one is trained on
        references in which some words are those draws: the model's own mistakes, of one word
        each, without a step-by-step generation.

        References:
            Bengio et al. 2015, Scheduled Sampling for Sequence Prediction; Duckworth et al. 2019,
            Parallel Scheduled Sampling (the two passes).
        """
        tokens = batch.tokens
        with torch.no_grad():
            outputs, _ = self.captioner.unroll(state, tokens[:, :-1], batch.lengths)
            inner = tokens[:, 1:] > self.tokenizer.unk  # words, in the places after the first
            logits = self.captioner.head(outputs[inner]).float()  # (M, V)
            logits[:, : self.tokenizer.unk + 1] = -torch.inf
            drawn = torch.multinomial(logits.softmax(1), 1).squeeze(1)
        mixed = tokens.clone()
        chosen = torch.rand(drawn.shape, device=drawn.device) < share
        mixed[:, 1:][inner] = torch.where(chosen, drawn, tokens[:, 1:][inner])
        return mixed

    def training_step(self, batch: CaptionBatch, index: int) -> Tensor:
        """One step of teacher forcing."""
        options = self.options
        grid = self.grid(batch.pictures)
        done = self.global_step / max(self.trainer.estimated_stepping_batches, 1)
        loss = self.loss(
            grid,
            batch,
            options.label_smoothing,
            options.attention_penalty,
            options.scheduled_sampling * done,
        )
        self.log_loss(loss, len(batch.owner))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the captions of the last pass."""
        self.generated = {}

    def validation_step(self, batch: CaptionBatch, index: int) -> None:
        """Loss on the references, and a greedy caption of each picture."""
        grid = self.grid(batch.pictures)
        if len(batch.owner):
            loss = self.loss(grid, batch)
            self.log("val_loss", loss, batch_size=len(batch.owner))
        greedy = DecodingOptions(beam=1, max_length=self.options.max_length)
        found = self.generate(grid, greedy)
        for record, caption in zip(batch.records.tolist(), found, strict=True):
            self.generated[record] = self.tokenizer.decode(caption.tokens)

    def on_validation_epoch_end(self) -> None:
        """CIDEr and BLEU-4 of the generated captions."""
        references = {str(i): self.validation[i].captions for i in self.generated}
        predictions = {str(i): text for i, text in self.generated.items()}
        scores = score_captions(references, predictions)
        for name in ("cider", "bleu_4"):
            self.log(f"val_{name}", scores[name] or 0.0, prog_bar=name == "cider")
        self.log_choice(scores["cider"] or 0.0)


def doubly_stochastic(attention: Tensor) -> Tensor:
    """How far the attention to each region is from summing to 1 over a caption::

        mean_n mean_i (1 - sum_t alpha_nti)^2

    The mean over regions, not the paper's sum: a weight of 1 here is a weight of 1/R there.

    Args:
        attention: alpha (N, T, R), zero behind the end of a caption.

    References:
        Xu et al. 2015, equation 14.
    """
    return (1 - attention.sum(1)).square().mean()

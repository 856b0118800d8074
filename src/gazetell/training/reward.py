"""Self-critical sequence training: the reward of a sampled caption is its CIDEr-D.

For S captions ``w_s`` sampled of a picture, with the rewards r(w_s) and a baseline b_s, the loss
is::

    - mean over words of  (r(w_s) - b_s) log p(w_s,t | w_s,<t)

The baseline is the mean reward of the picture's other samples (``mean``), or the reward of its
greedy caption (``greedy``). ``<end>`` is a word of captions and references alike: without it in
the reward, a caption cut off before its end ("a man in a") would lose nothing.

Samples are drawn without dropout and learned from with it, which keeps the model from learning the
training pictures by heart; with ``dropout`` 0 both see exactly the same distribution.

Shapes: ``B`` pictures, ``S`` samples a picture, ``N = B*S`` captions, ``T`` words.

References:
    Rennie et al. 2017, Self-critical Sequence Training for Image Captioning; Luo 2020, A Better
    Variant of Self-Critical Sequence Training (the mean of the others).
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.batches import CaptionBatch, pad_captions
from ..data.records import CaptionRecord
from ..metrics import CiderD
from ..models.decoding import Decoded, DecodingOptions
from ..models.encoders import Grid
from .captions import CaptionTask

__all__ = ["RewardTask", "advantages"]


class RewardTask(CaptionTask):
    """Self-critical training of a captioner; validation as in ``CaptionTask``.

    Args:
        training: the training records, whose references the reward compares with.

    Logs, besides, ``train_reward`` (mean CIDEr-D of the samples) and ``reward_share`` (the share of
    the step's time that computing rewards takes).
    """

    def __init__(self, *pieces: Any, training: Sequence[CaptionRecord]) -> None:
        super().__init__(*pieces)
        longest = self.options.max_length
        # As token ids from the first word to <end>, cut like the samples.
        self.cider = CiderD(
            [
                [ids[1:] for ids in self.tokenizer.encode_batch(record.captions, longest + 2)]
                for record in training
            ]
        )

    def training_step(self, batch: CaptionBatch, index: int) -> Tensor:
        """One step of policy gradient."""
        began = time.perf_counter()
        grid = self.grid(batch.pictures)
        samples = self.draw(grid, index)
        asked = time.perf_counter()
        rewards, gained = self.judge(grid, batch, samples)
        answered = time.perf_counter()
        loss = self.policy_loss(grid, samples, gained)
        self.log_loss(loss, len(samples))
        self.log(
            "train_reward",
            float(rewards.mean()),
            on_step=False,
            on_epoch=True,
            batch_size=len(samples),
        )
        self._times = began, answered - asked
        return loss

    def on_train_batch_end(self, outputs: Any, batch: CaptionBatch, batch_idx: int) -> None:
        """Log the share of the reward, when the whole step is done."""
        began, seconds = self._times
        share = seconds / (time.perf_counter() - began)
        self.log("reward_share", share, on_step=False, on_epoch=True, batch_size=1)

    def draw(self, grid: Grid, step: int) -> list[Decoded]:
        """S samples of each picture, those of a picture one after the other."""
        seed = (self.options.seed * 1009 + self.current_epoch) * 1_000_003 + step
        options = DecodingOptions(
            beam=1, sample=True, max_length=self.options.max_length, seed=seed
        )
        return self.generate(grid, options, self.options.samples)

    def judge(
        self, grid: Grid, batch: CaptionBatch, samples: Sequence[Decoded]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The reward of each sample and what it gains over its baseline, both (B, S)."""
        records = batch.records.tolist()
        each = self.options.samples
        rewards = self.reward(samples, np.repeat(records, each).tolist()).reshape(-1, each)
        if self.options.reward_baseline == "mean":
            return rewards, advantages(rewards)
        options = DecodingOptions(beam=1, max_length=self.options.max_length)
        greedy = self.reward(self.generate(grid, options), records)
        return rewards, rewards - greedy[:, None]

    def reward(self, captions: Sequence[Decoded], records: Sequence[int]) -> np.ndarray:
        """CIDEr-D, ``<end>`` counted, of captions of the given training records."""
        return self.cider.score([self.words(caption) for caption in captions], records)

    def words(self, caption: Decoded) -> list[int]:
        """The words of a caption, and ``<end>`` if it came to it."""
        return caption.tokens + [self.tokenizer.end] * caption.ended

    def policy_loss(self, grid: Grid, samples: Sequence[Decoded], gained: np.ndarray) -> Tensor:
        """The loss at the top of this module, for what each sample (B, S) gained."""
        device = grid.cells.device
        captions = [[self.tokenizer.start, *self.words(sample)] for sample in samples]
        order = sorted(range(len(captions)), key=lambda n: -len(captions[n]))  # longest first
        tokens, lengths = pad_captions([captions[n] for n in order], self.tokenizer.pad)
        longest = tokens.shape[1] - 1
        owner = torch.tensor(order) // self.options.samples
        tokens, owner = tokens.to(device), owner.to(device)
        weight = torch.from_numpy(gained.reshape(-1)[order]).float().to(device)  # (N,)
        state = self.captioner.start(grid).select(owner)
        outputs, _ = self.captioner.unroll(state, tokens[:, :-1], lengths)
        targets = tokens[:, 1:]
        real = torch.arange(longest, device=device) < lengths.to(device).unsqueeze(1)
        logits = self.captioner.head(outputs[real])  # (M, V)
        nats = torch.nn.functional.cross_entropy(logits.float(), targets[real], reduction="none")
        return (nats * weight.unsqueeze(1).expand_as(real)[real]).mean()


def advantages(rewards: np.ndarray) -> np.ndarray:
    """What each reward (B, S) is above the mean of the picture's others."""
    each = rewards.shape[1]
    return (rewards - rewards.mean(1, keepdims=True)) * each / (each - 1)

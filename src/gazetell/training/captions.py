"""Training of captioners: cross-entropy, or a reward of sampled captions.

Self-critical training: for S captions ``w_s`` sampled of a picture, with the rewards r(w_s), their
CIDEr-D, and a baseline b_s, the loss is::

    - mean over words of  (r(w_s) - b_s) log p(w_s,t | w_s,<t)

The baseline is the mean reward of the picture's other samples (``mean``), or the reward of its
greedy caption (``greedy``). ``<end>`` is a word of captions and references alike: without it in
the reward, a caption cut off before its end ("a man in a") would lose nothing. Samples are drawn
without dropout and learned from with it, which keeps the model from learning the training pictures
by heart; with ``dropout`` 0 both see exactly the same distribution.

Shapes: ``B`` pictures, ``S`` samples a picture, ``N`` captions (``B*S`` sampled ones), ``T`` words,
``M`` words that are no padding, ``V`` vocabulary, ``R`` regions.

References:
    Rennie et al. 2017, Self-critical Sequence Training for Image Captioning; Luo 2020, A Better
    Variant of Self-Critical Sequence Training (the mean of the others).
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.batches import CaptionBatch, CaptionData, pad_captions
from ..data.records import CaptionRecord, Dataset
from ..errors import DataError, UsageError
from ..metrics import CiderD, cider_problem, score_captions
from ..models.captioners import CaptionModel, build_captioner
from ..models.confidence import Confidence, Novelty, fit_confidence
from ..models.decoding import Decoded, DecodingOptions, decode
from ..models.encoders import Grid
from ..models.folder import CaptionerFolder, load_kind
from .options import TrainOptions
from .task import Report, Task, Terms


class Captions(Task):
    """Cross-entropy training of a captioner; validation on freely generated captions.

    Losses are nats a word, ``<end>`` counted; the figures are those of greedy captions.
    """

    kind, records = "captioner", "pictures"
    learns, reads, cut_by = "captions", "captions", "max_length"
    columns, chosen_by = ("val_cider", "val_bleu_4"), "CIDEr"
    build, batches = staticmethod(build_captioner), CaptionData

    network: CaptionModel

    def __init__(self, dataset: Dataset, options: TrainOptions, report: Report) -> None:
        super().__init__(dataset, options, report)
        self.unfit = cider_problem({r.id: r.captions for r in self.validation})
        penalty = self.options.attention_penalty
        if penalty and not self._attends():
            raise UsageError(
                f"--attention-penalty {penalty}: {options.architecture} has no attention"
            )
        self.teachers = [self._teacher(path) for path in self.options.teacher]

    def step(self, grid: Grid, batch: CaptionBatch, epoch: int) -> tuple[Terms, dict[str, float]]:
        """Teacher forcing."""
        smoothing, penalty = self.options.label_smoothing, self.options.attention_penalty
        words = teacher_forcing(self.network, grid, batch)
        terms = words.terms(smoothing, penalty)
        if self.teachers:
            weight = self.options.teacher_weight
            terms = [((1 - weight) * mean, count) for mean, count in terms]
            taught = divergence(words.logits, self.teacher_probabilities(batch))
            terms.append((weight * taught, len(words.targets)))
        return terms, {}

    @torch.no_grad()
    def teacher_probabilities(self, batch: CaptionBatch) -> Tensor:
        """The teachers' probabilities (M, V) of the words of a batch."""
        shares: list[Tensor] = []
        for teacher in self.teachers:
            device = batch.tokens.device
            grid = self.grid(batch.pictures, teacher.encoder.to(device))
            words = teacher_forcing(teacher.captioner.to(device), grid, batch)
            shares.append(words.logits.softmax(1))
        return torch.stack(shares).mean(0)

    def validate(self, grid: Grid, batch: CaptionBatch) -> tuple[Tensor, int]:
        """The loss on the references, and a greedy caption of each picture."""
        words = teacher_forcing(self.network, grid, batch)
        for record, caption in zip(batch.records.tolist(), self.generate(grid), strict=True):
            self.said[record] = self.tokenizer.decode(caption.tokens)
        return words.loss(), len(words.targets)

    def figures(self, said: dict[int, str]) -> dict[str, float]:
        """CIDEr and BLEU-4 of the generated captions."""
        references = {str(i): self.validation[i].captions for i in said}
        scores = score_captions(references, {str(i): x for i, x in said.items()})
        return {name: scores[name.removeprefix("val_")] or 0.0 for name in self.columns}

    @torch.inference_mode()
    def settings(
        self, validation: Iterable[Any], pictures: Iterable[Tensor], report: Report
    ) -> dict[str, Any]:
        """What the captioner decodes by, its confidence, and what pictures it knows."""
        options = self.options
        decoding = DecodingOptions(
            max_length=options.max_length,
            length_penalty=options.length_penalty,
            no_repeat_ngram=options.no_repeat_ngram,
        )
        found: Confidence | str
        novelty: Novelty | None = None
        if options.blind:
            found = "a blind captioner looks at no picture"
        elif options.overfit:
            found = "trained and validated on the same pictures"
        else:
            pooled: list[Tensor] = []
            captions: list[Decoded] = []
            for batch in validation:
                grid = self.trunk_grid(batch.pictures)
                pooled.append(grid.pooled.float().cpu())
                captions += self._decode(self.encoder.project_grid(grid), decoding)
            novelty = self.novelty(pooled, pictures, report)
            found = fit_confidence(
                captions,
                novelty.distance(torch.cat(pooled)) if novelty else np.zeros(len(captions)),
                self.tokenizer.decode,
                [record.captions for record in self.validation],
            )
        if isinstance(found, str):
            report(f"captions get no confidence: {found}")
        confidence = None if isinstance(found, str) else found
        return {"decoding": decoding, "confidence": confidence, "novelty": novelty}

    def generate(
        self, grid: Grid, samples: int = 0, seed: int = 0, of: Sequence[int] | None = None
    ) -> list[Decoded]:
        """Greedy captions of a grid, or samples drawn by the seed and the records that it is of.

        There are no unknown words in them, and there is no dropout.
        """
        training, longest = self.network.training, self.options.max_length
        self.network.eval()
        options = DecodingOptions(beam=1, sample=samples > 0, max_length=longest, seed=seed)
        decoded = self._decode(grid, options, samples=max(samples, 1), positions=of)
        self.network.train(training)
        return decoded

    def _teacher(self, path: str) -> CaptionerFolder:
        """A teacher that reads the same words and looks through the same frozen encoder.

        Where this run trains its encoder, a teacher looks through its own, at the same input.
        """
        teacher, own = load_kind(path, CaptionerFolder), self.encoder
        if teacher.tokenizer.vocabulary != self.tokenizer.vocabulary:
            raise UsageError(
                f"--teacher {path}: has another vocabulary; expected a teacher of the same "
                f"captions and --min-frequency, or --init-from {path}"
            )
        if own.frozen and teacher.encoder.fingerprint() != own.fingerprint():
            raise UsageError(
                f"--teacher {path}: has another encoder; expected --encoder-from {path}, or a "
                "trained one (--encoder-trainable)"
            )
        if replace(teacher.encoder.frame, fill=own.frame.fill) != own.frame:
            raise UsageError(
                f"--teacher {path}: takes pictures of another size or fit; expected its "
                "--encoder-size and --encoder-fit"
            )
        return teacher

    def _decode(self, grid: Grid, options: DecodingOptions, **rest: Any) -> list[Decoded]:
        special = self.tokenizer
        rest |= {"start": special.start, "end": special.end, "banned": (special.pad, special.unk)}
        return decode(self.network, grid, options, **rest)

    @torch.no_grad()
    def _attends(self) -> bool:
        """Whether the network gives an attention."""
        grid = Grid.of(torch.zeros(1, 1, self.encoder.channels), 1, 1)
        tokens = torch.tensor([self.tokenizer.start])
        return self.network.step(tokens, self.network.start(grid))[2] is not None


class RewardedCaptions(Captions):
    """Self-critical training; ``train_reward`` is the mean CIDEr-D of the samples."""

    def __init__(self, dataset: Dataset, options: TrainOptions, report: Report) -> None:
        super().__init__(dataset, options, report)
        counted = self.training
        if self.options.reward_references:
            given = Dataset.open(self.options.reward_references)
            counted = [record for record in given.split("train") if record.captions]
            report(f"the rarity of n-grams is counted in {len(counted)} pictures of {given.folder}")
        if problem := cider_problem({r.id: r.captions for r in counted}):
            raise DataError(f"{dataset.folder}: --reward {self.options.reward}: {problem}")
        if not options.init_from:
            report(
                f"--reward {self.options.reward} without --init-from begins with random captions; "
                "a model trained by cross-entropy is the usual start"
            )
        own = self._references(self.training)
        corpus = self._references(counted) if self.options.reward_references else None
        self.cider = CiderD(own, corpus=corpus)

    def _references(self, records: Sequence[CaptionRecord]) -> list[list[list[int]]]:
        """Captions as token ids from the first word to ``<end>``, cut like the samples."""
        texts = [caption for record in records for caption in record.captions]
        rows = iter(self.tokenizer.encode_batch(texts, self.options.max_length + 2))
        return [[next(rows)[1:] for _ in record.captions] for record in records]

    def step(self, grid: Grid, batch: CaptionBatch, epoch: int) -> tuple[Terms, dict[str, float]]:
        """One step of policy gradient."""
        each, records = self.options.samples, batch.records.tolist()
        seed = self.options.seed * 1009 + epoch
        samples = self.generate(grid, each, seed, records)  # those of a picture side by side
        began = time.perf_counter()
        rewards = self.reward(samples, np.repeat(records, each).tolist()).reshape(-1, each)
        if self.options.reward_baseline == "mean":
            gained = advantages(rewards)
        else:
            gained = rewards - self.reward(self.generate(grid), records)[:, None]
        seconds = time.perf_counter() - began
        loss = self.policy_loss(grid, samples, gained)
        logs = {"train_reward": float(rewards.mean()), "reward_seconds": seconds}
        return [(loss, sum(len(self._words(sample)) for sample in samples))], logs

    def reward(self, captions: Sequence[Decoded], records: Sequence[int]) -> np.ndarray:
        """CIDEr-D, ``<end>`` counted, of captions of the given training records."""
        return self.cider.score([self._words(caption) for caption in captions], records)

    def _words(self, caption: Decoded) -> list[int]:
        """The words of a caption, and ``<end>`` if it came to it."""
        return caption.tokens + [self.tokenizer.end] * caption.ended

    def policy_loss(self, grid: Grid, samples: Sequence[Decoded], gained: np.ndarray) -> Tensor:
        """The loss at the top of this module, for what each sample (B, S) gained."""
        device = grid.cells.device
        captions = [[self.tokenizer.start, *self._words(sample)] for sample in samples]
        order = sorted(range(len(captions)), key=lambda n: -len(captions[n]))  # longest first
        tokens, lengths = pad_captions([captions[n] for n in order], self.tokenizer.pad)
        owner = torch.tensor(order) // (len(samples) // len(grid.cells))
        weight = torch.from_numpy(gained.reshape(-1)[order]).float().to(device)  # (N,)
        batch = CaptionBatch(grid.cells, owner, owner.to(device), tokens.to(device), lengths)
        words = teacher_forcing(self.network, grid, batch)
        nats = F.cross_entropy(words.logits, words.targets, reduction="none")
        return (nats * weight[words.caption]).mean()


class Words(NamedTuple):
    """What teacher forcing says of the words of captions, the padding left out."""

    logits: Tensor  # (M, V) float32
    targets: Tensor  # (M,) the words
    caption: Tensor  # (M,) which of the N captions a word is of
    attention: Tensor | None  # (N, T, R)

    def loss(self, smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy a word in nats."""
        return F.cross_entropy(self.logits, self.targets, label_smoothing=smoothing)

    def terms(self, smoothing: float = 0.0, penalty: float = 0.0) -> Terms:
        """The same, and the penalty of the attention if there is one, a mean over captions."""
        found = [(self.loss(smoothing), len(self.targets))]
        if penalty and self.attention is not None:
            found.append((penalty * doubly_stochastic(self.attention), len(self.attention)))
        return found


def teacher_forcing(captioner: CaptionModel, grid: Grid, batch: CaptionBatch) -> Words:
    """Predict each word of the captions from those before it."""
    state = captioner.start(grid).select(batch.owner)
    outputs, attention = captioner.unroll(state, batch.tokens[:, :-1], batch.lengths)  # (N, T, H)
    # Which words are real is found on the CPU: a GPU would finish its work before it answers.
    steps = outputs.shape[1]
    real = torch.arange(steps) < batch.lengths.cpu().unsqueeze(1)
    places = real.flatten().nonzero().squeeze(1).to(outputs.device, non_blocking=True)  # (M,)
    logits = captioner.head(outputs.flatten(0, 1).index_select(0, places))  # (M, V)
    targets = batch.tokens[:, 1:].flatten().index_select(0, places)
    return Words(logits.float(), targets, places // steps, attention)


def divergence(logits: Tensor, teachers: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence a word, in nats, of a model from its teachers.

    Args:
        logits: of the model (M, V).
        teachers: their probabilities (M, V).

    References:
        Hinton et al. 2015, Distilling the Knowledge in a Neural Network (at temperature 1).
    """
    return F.kl_div(logits.log_softmax(1), teachers, reduction="batchmean")


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


def advantages(rewards: np.ndarray) -> np.ndarray:
    """What each reward (B, S) is above the mean of the picture's others."""
    each = rewards.shape[1]
    return (rewards - rewards.mean(1, keepdims=True)) * each / (each - 1)

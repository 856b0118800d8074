"""Using a trained captioner: ``load`` it, ``caption`` pictures, look at the gaze.

model = gazetell.load("runs/demo")
caption = model.caption("scene.png")
caption.text, caption.words, caption.attention, caption.log_prob
caption.save_gaze("gaze.png")
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from html import escape
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..data.batches import pad_rows
from ..data.text import Question, Tokenizer, read_question
from ..errors import ModelError, UsageError
from ..features import Encoding, Model, Picture, check_several
from ..models.decoding import Decoded, DecodingOptions, Ensemble, check_effect, n_best
from ..models.encoders import Grid
from ..models.folder import (
    AnswererFolder,
    CaptionerFolder,
    fetch,
    load_answerer,
    load_captioner,
    load_model,
)
from ..pictures import PREVIEW
from . import gaze

__all__ = ["Answer", "Answerer", "Caption", "Captioner", "check_bound", "load"]

TOP = 5
GREY = 128  # of the picture that stands for none


@dataclass(frozen=True)
class Answer:
    """An answer and its evidence.

    Attributes:
        question: as it was asked.
        text: the likeliest answer.
        confidence: its calibrated probability.
        top: the five likeliest answers with their probabilities, best first.
        attention: (P, height, width), where the model looked in each pass, each map summing to 1
            with row 0 on top; None for a model without attention.
        unknown: words of the question that are not in the model's vocabulary.
        cut: how many words at the end of the question the model did not read.
        abstained: the confidence lies below the bound that was asked for.
        without_picture: probability of the same answer when the picture is plain grey, if asked.
        image: the picture, at most 640 px a side.
    """

    question: str
    text: str
    confidence: float
    top: list[tuple[str, float]]
    attention: np.ndarray | None
    unknown: list[str] = field(default_factory=list)
    cut: int = 0
    abstained: bool = False
    without_picture: float | None = None
    image: Image.Image | None = field(default=None, repr=False, compare=False)

    @property
    def passes(self) -> list[str]:
        """A name for each pass of the attention."""
        return [
            f"pass {n + 1}" for n in range(0 if self.attention is None else len(self.attention))
        ]

    def save_gaze(self, path: str | os.PathLike[str]) -> None:
        """Save where the model looked in each pass.

        Args:
            path: ``.png`` (a strip; also ``.jpg``, ``.webp``), ``.html`` (interactive) or
                ``.gif`` (animated).

        Raises:
            UsageError: another suffix, or a model without attention.
            WriteError: the file cannot be written.
        """
        if self.image is None:
            raise ModelError("this answer has no picture: it was made from features alone")
        title = f"{self.question} {self.text} ({100 * self.confidence:.0f} %)"
        gaze.save(path, self.image, self.passes, self.attention, title=title)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, the attention rounded to 4 digits."""
        maps = None if self.attention is None else np.round(self.attention.astype(float), 4)
        return {
            "question": self.question,
            "answer": self.text,
            "confidence": round(self.confidence, 5),
            "top": [{"answer": text, "confidence": round(p, 5)} for text, p in self.top],
            "unknown_words": self.unknown,
            "words_cut": self.cut,
            "abstained": self.abstained,
            "without_picture": (
                None if self.without_picture is None else round(self.without_picture, 5)
            ),
            "attention": None if maps is None else maps.tolist(),
        }

    def _repr_html_(self) -> str:
        """Question, answers and the gaze in a notebook."""
        # Question and answers come from people and datasets: escape them.
        others = ", ".join(f"{escape(text)} {100 * p:.1f} %" for text, p in self.top)
        text = f"<p>{escape(self.question)} <b>{escape(self.text)}</b> ({others})</p>"
        if self.image is None:
            return text
        if self.attention is None:
            return f'<img src="{gaze.picture_uri(self.image, PREVIEW)}" alt="">{text}'
        return text + gaze.html(self.image, self.passes, self.attention)


class Answerer(Model):
    """A loaded model that answers questions; see ``gazetell.load``.

    Args:
        model: a model folder's content.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``bf16`` or ``fp32``.
    """

    def __init__(
        self, model: AnswererFolder, *, device: str = "auto", precision: str = "auto"
    ) -> None:
        super().__init__(model.encoder, device, precision)
        self.answerer = model.answerer.to(self.device).eval()
        self.tokenizer, self.answers = model.tokenizer, model.answers
        self.temperature, self.sigmoid = model.temperature, model.sigmoid
        self.max_question = model.max_question
        self.about = model.about
        self._blank: Grid | None = None

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, device: str = "auto", precision: str = "auto"
    ) -> "Answerer":
        """``gazetell.load``, refusing a captioner."""
        return cls(load_answerer(fetch(path)), device=device, precision=precision)

    def ask(
        self,
        image: Picture,
        question: str,
        *,
        abstain_below: float = 0.0,
        evidence: bool = False,
    ) -> Answer:
        """Answer a question about a picture.

        Args:
            image: a path, the bytes of a file, a PIL image, or an ``Encoding``.
            question: in words; ``Answer.cut`` counts those that the model does not read.
            abstain_below: mark the answer as abstained where its confidence is lower.
            evidence: also ask about a plain grey picture, see ``Answer.without_picture``.

        Raises:
            ImageError: the picture cannot be opened.
            UsageError: a question without words, or a bound outside 0 to 1.
        """
        return self.ask_all(image, [question], abstain_below=abstain_below, evidence=evidence)[0]

    def ask_all(
        self,
        image: Picture,
        questions: Sequence[str],
        *,
        abstain_below: float = 0.0,
        evidence: bool = False,
    ) -> list[Answer]:
        """Answer several questions about a picture, which is encoded once; see ``ask``."""
        check_bound(abstain_below)
        check_several("questions", questions)
        if not questions:
            return []
        encoding = self.encode(image)
        owner = torch.zeros(len(questions), dtype=torch.long)
        return self.answer(
            encoding.grid,
            questions,
            owner,
            encodings=[encoding],
            abstain_below=abstain_below,
            evidence=evidence,
        )

    def answer(
        self,
        grid: Grid,
        questions: Sequence[str | Question],
        owner: torch.Tensor,
        *,
        encodings: Sequence[Encoding] = (),
        abstain_below: float = 0.0,
        evidence: bool = False,
    ) -> list[Answer]:
        """Answers about grids (B, R, C) as ``grid`` makes them.

        Args:
            grid: of B pictures.
            questions: N of them, as text or as ``read_question`` gave them.
            owner: (N,) which picture each is about.
            encodings: the B pictures, where answers shall bring theirs along.
            abstain_below: see ``ask``.
            evidence: see ``ask``.
        """
        asked = [q if isinstance(q, Question) else self.read_question(q) for q in questions]
        logits, attention = self.logits(grid, asked, owner)
        shares = self.probabilities(logits)
        plain = None
        if evidence:
            nowhere = torch.zeros_like(owner)
            plain = self.probabilities(self.logits(self.blank(), asked, nowhere)[0])
        best = shares.topk(min(TOP, shares.shape[1]), dim=1)
        found = []
        for n, question in enumerate(asked):
            places, chances = best.indices[n].tolist(), best.values[n].tolist()
            found.append(
                Answer(
                    question=question.text,
                    text=self.answers.answers[places[0]],
                    confidence=chances[0],
                    top=[
                        (self.answers.answers[place], chance)
                        for place, chance in zip(places, chances, strict=True)
                    ],
                    attention=(
                        None
                        if attention is None
                        else attention[n].reshape(-1, grid.height, grid.width).numpy()
                    ),
                    unknown=question.unknown,
                    cut=question.cut,
                    abstained=chances[0] < abstain_below,
                    without_picture=None if plain is None else float(plain[n, places[0]]),
                    image=encodings[int(owner[n])].image if encodings else None,
                )
            )
        return found

    @torch.inference_mode()
    def logits(
        self, grid: Grid, questions: Sequence[Question], owner: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits (N, A) and attention (N, P, R) or None, in float32 on the CPU."""
        tokens, lengths = pad_rows([q.ids for q in questions], self.tokenizer.pad)
        with self.precision.autocast(self.device):
            logits, attention = self.answerer(
                self.encoder.project_grid(grid),
                tokens.to(self.device),
                lengths.to(self.device),
                owner.to(self.device),
            )
        return logits.float().cpu(), None if attention is None else attention.float().cpu()

    def read_question(self, text: str) -> Question:
        """A question as the model reads it.

        Raises:
            UsageError: no words.
        """
        return read_question(self.tokenizer, text, self.max_question)

    @cached_property
    def attentive(self) -> bool:
        """Whether answers come with attention."""
        question = Question("", [self.tokenizer.unk], [])
        owner = torch.zeros(1, dtype=torch.long)
        return self.logits(self.blank_grid(), [question], owner)[1] is not None

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Calibrated probabilities (N, A)."""
        scaled = logits / self.temperature
        return scaled.sigmoid() if self.sigmoid else scaled.softmax(1)

    def blank(self) -> Grid:
        """The grid (1, R, C) of a plain grey picture."""
        if self._blank is None:
            size = self.encoder.size
            self._blank = self.grid(torch.full((1, 3, size, size), GREY, dtype=torch.uint8))
        return self._blank


def check_bound(value: float) -> None:
    """Refuse a bound on the confidence that is none.

    Raises:
        UsageError: outside 0 to 1.
    """
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UsageError(f"--abstain-below {value}: expected 0 to 1")


KINDS: dict[type, tuple[type, str]] = {
    bool: (bool, "True or False"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
}


@dataclass(frozen=True)
class Caption:
    """A caption and its evidence.

    Attributes:
        text: the sentence.
        words: its words, T of them.
        attention: (T, height, width), where the model looked for each word, each map summing to
            1 with row 0 on top; None for a model without attention.
        log_prob: natural logarithm of the probability that the model gives to exactly this
            sentence, its end counted, also where it was cut.
        ended: False if the sentence was cut at the greatest length.
        image: the picture, at most 640 px a side.
    """

    text: str
    words: list[str]
    attention: np.ndarray | None
    log_prob: float
    ended: bool = True
    image: Image.Image | None = field(default=None, repr=False, compare=False)

    def save_gaze(self, path: str | os.PathLike[str]) -> None:
        """Save where the model looked for each word.

        Args:
            path: ``.png`` (a strip; also ``.jpg``, ``.webp``), ``.html`` (interactive) or
                ``.gif`` (animated).

        Raises:
            UsageError: another suffix, or a model without attention.
            WriteError: the file cannot be written.
        """
        gaze.save(path, self._picture(), self.words, self.attention)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, the attention rounded to 4 digits."""
        maps = None if self.attention is None else np.round(self.attention.astype(float), 4)
        return {
            "caption": self.text,
            "words": self.words,
            "log_prob": round(self.log_prob, 5),
            "ended": self.ended,
            "attention": None if maps is None else maps.tolist(),
        }

    def _picture(self) -> Image.Image:
        if self.image is None:
            raise ModelError("this caption has no picture: it was made from features alone")
        return self.image

    def _repr_html_(self) -> str:
        """The interactive gaze in a notebook."""
        if self.image is not None and self.attention is not None and self.words:
            return gaze.html(self.image, self.words, self.attention)
        # The text comes from a vocabulary that was built from someone's dataset: escape it.
        text = f"<p>{escape(self.text)}</p>"
        if self.image is None:
            return text
        return f'<img src="{gaze.picture_uri(self.image, PREVIEW)}" alt="">{text}'


class Captioner(Model):
    """A loaded captioning model, or several that tell captions together; see ``load``.

    Args:
        model: a model folder's content.
        others: of the same vocabulary and the same CNN: an ensemble.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``bf16`` or ``fp32``.

    Raises:
        ModelError: models that do not fit together.
    """

    def __init__(
        self,
        model: CaptionerFolder,
        *others: CaptionerFolder,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        for number, other in enumerate(others, 2):
            if other.tokenizer != model.tokenizer:
                raise ModelError(f"model {number} of the ensemble has another vocabulary")
            if other.encoder.fingerprint() != model.encoder.fingerprint():
                raise ModelError(f"model {number} of the ensemble has another encoder")
        super().__init__(model.encoder, device, precision)
        self.captioner = model.captioner.to(self.device).eval()
        # Of the others' encoders only the projections: the CNN is the same.
        members = [(m.encoder.project, m.captioner) for m in (model, *others)]
        self.decoder = Ensemble(members).to(self.device).eval()
        self.members = len(members)
        self.tokenizer: Tokenizer = model.tokenizer
        self.decoding: DecodingOptions = model.decoding
        self.about = model.about

    @classmethod
    def load(
        cls, *paths: str | os.PathLike[str], device: str = "auto", precision: str = "auto"
    ) -> "Captioner":
        """``gazetell.load``, refusing answerers."""
        if not paths:
            raise UsageError("expected a model folder or hf://owner/name")
        models = [load_captioner(fetch(path)) for path in paths]
        return cls(*models, device=device, precision=precision)

    def caption(self, image: Picture, **options: Any) -> Caption:
        """Tell what a picture shows.

        Args:
            image: a path, the bytes of a file, a PIL image, or an ``Encoding``.
            options: fields of ``DecodingOptions`` that differ from the model's own, such as
                ``beam=5``, ``max_length=12`` or ``sample=True, beam=1``.

        Raises:
            ImageError: the picture cannot be opened.
            UsageError: an option out of its range.
        """
        return self.captions([image], **options)[0]

    def captions(self, images: Sequence[Picture], **options: Any) -> list[Caption]:
        """Caption several pictures in one batch; see ``caption``."""
        chosen = self.options(**options)
        check_several("pictures", images)
        if not images:
            return []
        encodings = self.encode_all(images)
        found = self.decode(Grid.join([encoding.grid for encoding in encodings]), chosen)
        return [
            replace(caption, image=encoding.image)
            for caption, encoding in zip(found, encodings, strict=True)
        ]

    def options(self, **changes: Any) -> DecodingOptions:
        """The model's decoding options with some changed.

        Raises:
            UsageError: an option that does not exist, is out of its range or has no effect.
        """
        names = [option.name for option in fields(DecodingOptions)]
        for name, value in changes.items():
            if name not in names:
                raise UsageError(f"{name}: is no option; expected {', '.join(names)}")
            kind, expected = KINDS[type(getattr(DecodingOptions, name))]
            if not isinstance(value, kind):
                raise UsageError(f"{name} {value!r}: expected {expected}")
        given = set(changes)
        if changes.get("sample") and "beam" not in changes:
            changes["beam"] = 1
        chosen = replace(self.decoding, **changes)
        check_effect(given, chosen)
        return chosen

    @cached_property
    def attentive(self) -> bool:
        """Whether captions come with attention."""
        with torch.inference_mode(), self.precision.autocast(self.device):
            start = torch.tensor([self.tokenizer.start], device=self.device)
            state = self.decoder.start(self.blank_grid())
            return self.decoder.step(start, state)[2] is not None

    def n_best(self, image: Picture, count: int, **options: Any) -> list[Caption]:
        """The ``count`` best captions of a picture, best first; see ``caption``.

        With ``sample=True`` so many drawn ones; else no more than the beam.
        """
        encoding = self.encode(image)
        found = self.decode_best(encoding.grid, self.options(**options), count)[0]
        return [replace(caption, image=encoding.image) for caption in found]

    def decode(
        self, grid: Grid, options: DecodingOptions, positions: Sequence[int] | None = None
    ) -> list[Caption]:
        """Captions, without pictures, of grids (B, R, C) as ``grid`` makes them.

        ``positions`` of the pictures in all that the caller captions keep random draws apart.
        """
        return [best[0] for best in self.decode_best(grid, options, 1, positions)]

    @torch.inference_mode()
    def decode_best(
        self,
        grid: Grid,
        options: DecodingOptions,
        count: int,
        positions: Sequence[int] | None = None,
    ) -> list[list[Caption]]:
        """The ``count`` best captions of each picture, best first; see ``decode``."""
        with self.precision.autocast(self.device):
            found = n_best(
                self.decoder,
                grid,
                options,
                count,
                start=self.tokenizer.start,
                end=self.tokenizer.end,
                banned=(self.tokenizer.pad, self.tokenizer.unk),
                positions=positions,
            )
        return [[self._caption(caption, grid) for caption in best] for best in found]

    def _caption(self, found: Decoded, grid: Grid) -> Caption:
        maps = None
        if found.attention is not None:
            maps = found.attention.numpy().reshape(-1, grid.height, grid.width)
        return Caption(
            self.tokenizer.decode(found.tokens),
            self.tokenizer.words(found.tokens),
            maps,
            found.log_prob,
            found.ended,
        )


def load(
    path: str | os.PathLike[str],
    *others: str | os.PathLike[str],
    device: str = "auto",
    precision: str = "auto",
) -> Captioner | Answerer:
    """Load a trained model, or several captioners as an ensemble.

    Args:
        path: a model folder, or ``hf://owner/name`` for one on the Hugging Face hub.
        others: further captioners of the same vocabulary and CNN, whose word probabilities are
            averaged with the first one's.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``bf16`` or ``fp32``.

    Raises:
        ModelError: no model there, one whose pieces do not fit together, or answerers in an
            ensemble.
    """
    model = load_model(fetch(path))
    if isinstance(model, CaptionerFolder):
        members = [load_captioner(fetch(other)) for other in others]
        return Captioner(model, *members, device=device, precision=precision)
    if others:
        raise ModelError(f"{path}: answers questions; an ensemble is of captioners")
    return Answerer(model, device=device, precision=precision)

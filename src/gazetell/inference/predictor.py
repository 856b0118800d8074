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

from ..data.text import Tokenizer
from ..errors import ModelError, UsageError
from ..features import Model, Picture, check_several
from ..models.decoding import Decoded, DecodingOptions, Ensemble, check_effect, n_best
from ..models.encoders import Grid
from ..models.folder import CaptionerFolder, fetch, load_captioner, load_model
from ..pictures import PREVIEW
from . import gaze
from .answering import Answerer

__all__ = ["Caption", "Captioner", "load"]

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

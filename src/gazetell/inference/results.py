"""What a model tells of a picture: ``Caption`` and ``Answer``, with the evidence for them.

Plain values, which need no torch: ``gazetell.onnx`` gives them too.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any, ClassVar, Self

import numpy as np
from PIL import Image

from ..data.text import sentence
from ..errors import ModelError
from ..pictures import PREVIEW, WHOLE_VIEW, View
from .gaze import Gaze, picture_uri

TOP = 5  # answers that an ``Answer`` tells


class _Result(ABC):
    """What a caption and an answer can do with their picture and their attention."""

    doubted: ClassVar[dict[str, bool]]  # what it says where nothing sure can be told

    attention: np.ndarray | None
    image: Image.Image | None
    text: str
    view: View

    def of(self, view: View, doubt: str, image: Image.Image | None = None) -> Self:
        """The same of a picture, and not sure where there is a doubt (``Frame.doubt``)."""
        return replace(self, view=view, image=image, **self.doubted if doubt else {})  # type: ignore[type-var]

    @abstractmethod
    def _shown(self) -> tuple[Sequence[str], str | None, str]:
        """A label for each map of the attention, a title above them, and the text as HTML."""

    def save_gaze(self, path: str | os.PathLike[str]) -> None:
        """Save where the model looked for each word, or in each pass.

        Args:
            path: ``.png`` (a strip; also ``.jpg``, ``.webp``), ``.html`` (interactive) or
                ``.gif`` (animated).

        Raises:
            UsageError: another suffix, or a model without attention.
            ModelError: a result without a picture.
            WriteError: the file cannot be written.
        """
        if self.image is None:
            name = type(self).__name__.lower()
            raise ModelError(f"this {name} has no picture: it was made from features only")
        labels, title, _ = self._shown()
        spoken = title or self.text
        Gaze(self.image, labels, self.attention, title or "", spoken, self.view).save(path)

    def _repr_html_(self) -> str:
        """The text and the interactive gaze in a notebook."""
        labels, title, text = self._shown()
        if self.image is None:
            return text
        if self.attention is None or not labels:
            return f'<img src="{picture_uri(self.image, PREVIEW)}" alt="">{text}'
        # Without a title the labels are the text.
        spoken = title or self.text
        gaze = Gaze(self.image, labels, self.attention, caption=spoken, view=self.view)
        return (text if title else "") + gaze.html()

    def _looked(self) -> dict[str, Any]:
        maps = self.attention
        return {
            "attention": None if maps is None else np.round(maps.astype(float), 4).tolist(),
            "view": {
                name: np.round(area, 4).tolist() for name, area in self.view._asdict().items()
            },
        }


@dataclass(frozen=True)
class Caption(_Result):
    """A caption and its evidence.

    Attributes:
        text: the sentence.
        words: its words, T of them.
        attention: (T, height, width), where the model looked for each word, each map summing to
            1 with row 0 on top; None for a model without attention.
        log_prob: natural logarithm of the probability that the model gives to exactly this
            sentence, its end counted, also where it was cut.
        ended: False if the sentence was cut at the greatest length.
        confidence: calibrated probability that it is good (`gazetell.models.confidence`); None for
            a model without one, and for an ensemble, to which none was fitted.
        sure: whether the confidence reaches the model's threshold; None likewise. False of a tiny
            or very long picture.
        unfamiliar: whether the picture is unlike those that the model learned from; None for a
            model that cannot tell.
        image: the picture, at most 640 px a side.
        view: where the maps lie on the picture.
    """

    doubted: ClassVar = {"sure": False}

    text: str
    words: list[str]
    attention: np.ndarray | None = field(repr=False, compare=False)
    log_prob: float
    ended: bool = True
    confidence: float | None = None
    sure: bool | None = None
    unfamiliar: bool | None = None
    image: Image.Image | None = field(default=None, repr=False, compare=False)
    view: View = WHOLE_VIEW

    @property
    def alt_text(self) -> str:
        """The text with a capital and a full stop; an ellipsis if it was cut off."""
        return sentence(self.text, self.ended)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, the attention rounded to 4 digits."""
        return {
            "caption": self.text,
            "words": self.words,
            "log_prob": round(self.log_prob, 5),
            "ended": self.ended,
            "confidence": _digits(self.confidence),
            "sure": self.sure,
            "unfamiliar": self.unfamiliar,
            **self._looked(),
        }

    def _shown(self) -> tuple[Sequence[str], str | None, str]:
        # The words come from a vocabulary that was built from someone's dataset: escaped.
        return self.words, None, f"<p>{escape(self.text)}</p>"


@dataclass(frozen=True)
class Answer(_Result):
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
        abstained: the confidence lies below the bound that was asked for, or below the model's
            own; without a bound asked for also of a tiny or very long picture, and
            where an unknown word says what the question is about.
        unfamiliar: as of ``Caption``.
        without_picture: probability of the same answer when the picture is plain grey, if asked.
        image: the picture, at most 640 px a side.
        view: where the maps lie on the picture.
    """

    doubted: ClassVar = {"abstained": True}

    question: str
    text: str
    confidence: float
    top: list[tuple[str, float]]
    attention: np.ndarray | None = field(repr=False, compare=False)
    unknown: list[str] = field(default_factory=list)
    cut: int = 0
    abstained: bool = False
    unfamiliar: bool | None = None
    without_picture: float | None = None
    image: Image.Image | None = field(default=None, repr=False, compare=False)
    view: View = WHOLE_VIEW

    @property
    def with_confidence(self) -> str:
        """The answer with its confidence, and that the model is not sure of it."""
        text = f"{self.text} ({100 * self.confidence:.0f} %)"
        return f"not sure; at best {text}" if self.abstained else text

    @property
    def passes(self) -> list[str]:
        """A name for each pass of the attention."""
        count = 0 if self.attention is None else len(self.attention)
        return [f"pass {n + 1}" for n in range(count)]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, the attention rounded to 4 digits."""
        return {
            "question": self.question,
            "answer": self.text,
            "confidence": round(self.confidence, 5),
            "top": [{"answer": text, "confidence": round(p, 5)} for text, p in self.top],
            "unknown_words": self.unknown,
            "words_cut": self.cut,
            "abstained": self.abstained,
            "unfamiliar": self.unfamiliar,
            "without_picture": _digits(self.without_picture),
            **self._looked(),
        }

    def _shown(self) -> tuple[Sequence[str], str | None, str]:
        others = ", ".join(f"{escape(text)} {100 * p:.1f} %" for text, p in self.top)
        text = f"<p>{escape(self.question)} <b>{escape(self.text)}</b> ({others})</p>"
        title = f"{self.question} {self.text} ({100 * self.confidence:.0f} %)"
        return self.passes, title, text


def _digits(value: float | None) -> float | None:
    return None if value is None else round(value, 5)

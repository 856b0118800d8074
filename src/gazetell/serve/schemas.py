"""What requests and replies of the API hold.

A reply is made of an object with attributes of the same names: a ``Caption``, an ``Answer``, the
limits of ``ServeOptions``.
"""

import base64
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    WithJsonSchema,
    computed_field,
    model_validator,
)

from ..inference.predict import Answer, Caption
from ..models.confidence import LIKELY, certainty
from ..pictures import Area

CERTAINTY = "The confidence in words: sure, fairly sure or not sure; null without a confidence."
UNFAMILIAR = "The picture is unlike those that the model learned from; null where it cannot tell."

# Requests


def _picture_file(value: Any) -> Any:
    """The bytes of a picture that was sent as base64 or as a data URI."""
    if not isinstance(value, str):
        return value
    try:
        text = value.partition(",")[2] if value.startswith("data:") else value
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("expected a picture file in base64") from None


def _unicode(text: str) -> str:
    if any("\ud800" <= letter < "\ue000" for letter in text):  # a JSON escape can be one
        raise ValueError("this is not valid Unicode")
    return text


class PictureRequest(BaseModel):
    """A picture."""

    model_config = ConfigDict(extra="forbid")

    image: Annotated[
        bytes | None,
        BeforeValidator(_picture_file),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "null"}]}),
    ] = Field(None, description="A picture file in base64; or `look` instead.")

    @model_validator(mode="after")
    def _has_a_picture(self) -> "PictureRequest":
        given = [name for name in ("image", "look") if getattr(self, name, None) is not None]
        if len(given) != 1:
            expected = "image or look" if "look" in type(self).model_fields else "image"
            raise ValueError(f"expected {expected}, found {'both' if given else 'nothing'}")
        return self


class PictureOrLookRequest(PictureRequest):
    """A picture, or the handle of one that was sent before."""

    look: str | None = Field(None, description="A handle of POST /v1/look, instead of `image`.")
    model: str | None = Field(None, description="Of GET /v1/models; else the first that fits.")
    gaze: bool = Field(True, description="Send the attention too, where the model has one.")


class CaptionRequest(PictureOrLookRequest):
    """A picture to be captioned."""

    beam: int | None = Field(None, ge=1, description="1 for greedy; the model's if not given.")
    max_length: int | None = Field(
        None, ge=1, le=100, description="Most words; the model's if not given."
    )
    captions: int = Field(1, ge=1, description="How many, best first; at most the beam.")
    min_length: int | None = Field(None, ge=0, le=100, description="Fewest words.")
    no_repeat_ngram: int | None = Field(None, ge=0, description="So many words are never repeated.")
    beam_groups: int | None = Field(None, ge=1, description="They avoid each other's words.")
    diversity: float | None = Field(None, gt=0, le=100, description="How much groups avoid them.")


class AnswerRequest(PictureOrLookRequest):
    """Questions about a picture."""

    # The first that is no text ends the check: of thousands each would have its own complaint.
    questions: Annotated[list[Annotated[str, AfterValidator(_unicode)]], FailFast()] = Field(
        [], description="In words; or `question` for a single one."
    )
    question: str | None = Field(None, description="A single question.")
    abstain_below: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Mark answers with a lower confidence as abstained; the model's if not given.",
    )
    evidence: bool = Field(
        False, description="Also ask about a plain grey picture: `without_picture`."
    )

    @model_validator(mode="before")
    @classmethod
    def _question_becomes_a_list(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("question") is not None:
            if values.get("questions"):
                raise ValueError("both question and questions were given; expected one of them")
            values = {**values, "questions": [values["question"]], "question": None}
        return values


# Replies


class Reply(BaseModel):
    """A part of a reply, made of an object with attributes of these names."""

    model_config = ConfigDict(from_attributes=True)

    @classmethod
    def of(cls, result: Caption | Answer, gaze: bool, **changes: Any) -> Self:
        """What a result says, without its attention if that was not asked for."""
        maps, looked = result.attention, None
        if gaze and maps is not None:
            flat = np.round(maps.astype(float).reshape(len(maps), -1), 6)
            looked = {"height": maps.shape[1], "width": maps.shape[2], "maps": flat.tolist()}
            looked |= result.view._asdict()
        return cls.model_validate(replace(result, **changes, attention=looked))  # type: ignore[arg-type]


class Attention(Reply):
    """Where the model looked: a map for each word or pass."""

    height: int
    width: int
    maps: list[list[float]] = Field(description="height x width numbers each, row by row, sum 1.")
    seen: Area = Field(
        description="The area of the picture that the model saw: left, top, right, bottom as "
        "shares of its width and height; below 0 and above 1 is padding."
    )
    cells: Area = Field(description="The area that the cells of a map tile, likewise.")


class Timings(Reply):
    """Milliseconds: to open the picture, in the queue, in the models, and altogether."""

    open: float
    wait: float
    run: float
    total: float


class CaptionItem(Reply):
    """A caption."""

    text: str
    alt_text: str = Field(description="The text with a capital and a full stop.")
    words: list[str]
    log_prob: float = Field(description="Natural logarithm of its probability.")
    ended: bool = Field(description="False if it was cut at the greatest length.")
    confidence: float | None = Field(description="Calibrated chance that it is good, 0 to 1.")
    sure: bool | None = Field(description="Whether that reaches the model's own bound.")
    unfamiliar: bool | None = Field(None, description=UNFAMILIAR)
    attention: Attention | None

    @computed_field(description=CERTAINTY)  # type: ignore[prop-decorator]
    @property
    def certainty(self) -> str | None:
        """See ``gazetell.models.confidence.certainty``."""
        return certainty(self.confidence, self.sure, unfamiliar=self.unfamiliar)


class CaptionReply(Reply):
    """Captions, best first."""

    model: str
    captions: list[CaptionItem]
    timings: Timings


class Choice(Reply):
    """A possible answer."""

    answer: str
    confidence: float

    @model_validator(mode="before")
    @classmethod
    def _of_a_pair(cls, pair: Any) -> Any:
        return {"answer": pair[0], "confidence": pair[1]} if isinstance(pair, tuple) else pair


class AnswerItem(Reply):
    """An answer."""

    question: str
    answer: str = Field(validation_alias="text")
    confidence: float = Field(description="Calibrated probability, 0 to 1.")
    top: list[Choice] = Field(description="The five likeliest answers.")
    unknown_words: list[str] = Field(
        validation_alias="unknown", description="Words that the model never learned."
    )
    words_cut: int = Field(
        0, validation_alias="cut", description="Words at the question's end that it did not read."
    )
    abstained: bool
    unfamiliar: bool | None = Field(None, description=UNFAMILIAR)
    without_picture: float | None
    attention: Attention | None

    @computed_field(description=CERTAINTY)  # type: ignore[prop-decorator]
    @property
    def certainty(self) -> str | None:
        """See ``gazetell.models.confidence.certainty``."""
        return certainty(self.confidence, not self.abstained, LIKELY, unfamiliar=self.unfamiliar)


class AnswerReply(Reply):
    """Answers in the order of the questions."""

    model: str
    answers: list[AnswerItem]
    timings: Timings


class LookReply(Reply):
    """A picture that was encoded and is kept."""

    look: str
    expires_in: float = Field(description="Seconds after the last use.")


class ModelItem(Reply):
    """A model that is served."""

    name: str
    kind: Literal["captioner", "answerer"]
    architecture: str
    encoder: str
    attention: bool
    beam: int | None
    max_length: int | None
    answers: int | None
    not_sure_below: float | None = Field(
        description="Its bound on the confidence; null for captions without confidences."
    )
    default: bool


class Limits(Reply):
    """What a request may hold."""

    body: int = Field(validation_alias="body_bytes", description="Bytes.")
    pixels: int = Field(validation_alias="max_pixels")
    questions: int
    question_length: int = Field(description="Characters.")
    beam: int
    queue: int
    seconds: float


class ModelsReply(Reply):
    """What is served."""

    models: list[ModelItem]
    limits: Limits
    token: bool = Field(description="A bearer token is asked for.")
    examples: list[str] = Field(
        [], description="Of the page's examples those that are like what the first model learned."
    )

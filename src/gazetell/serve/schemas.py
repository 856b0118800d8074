"""What the service takes and gives, as OpenAPI describes it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

__all__ = [
    "AnswerReply",
    "AnswerRequest",
    "CaptionReply",
    "CaptionRequest",
    "LookReply",
    "LookRequest",
    "ModelsReply",
    "PictureRequest",
    "ProblemReply",
]


class PictureRequest(BaseModel):
    """What brings a picture along."""

    model_config = ConfigDict(extra="forbid")

    image: Annotated[
        str | None, Field(description="A picture file in base64; or `look` instead.")
    ] = None


class LookRequest(PictureRequest):
    """A picture to be looked at."""


class _PictureOrLook(PictureRequest):
    look: Annotated[
        str | None, Field(description="A handle that POST /v1/look gave, instead of `image`.")
    ] = None
    model: Annotated[
        str | None, Field(description="A name of GET /v1/models; the first fitting if not given.")
    ] = None
    gaze: Annotated[bool, Field(description="Send the attention too.")] = True


class CaptionRequest(_PictureOrLook):
    """A picture to be told about."""

    beam: Annotated[
        int | None, Field(ge=1, description="Beam of the search, 1 for greedy; else the model's.")
    ] = None
    max_length: Annotated[
        int | None, Field(ge=1, le=100, description="Most words; the model's own if not given.")
    ] = None
    captions: Annotated[
        int, Field(ge=1, description="How many, the best first; at most the beam.")
    ] = 1


class AnswerRequest(_PictureOrLook):
    """Questions about a picture."""

    # The first that is no text ends the check: of thousands each would have its own complaint.
    questions: Annotated[
        list[str], FailFast(), Field(description="In words; or `question` for a single one.")
    ] = []
    question: Annotated[str | None, Field(description="A single question.")] = None
    abstain_below: Annotated[
        float, Field(ge=0, le=1, description="Mark answers with a lower confidence as abstained.")
    ] = 0.0
    evidence: Annotated[
        bool, Field(description="Also ask about a plain grey picture: `without_picture`.")
    ] = False

    @model_validator(mode="before")
    @classmethod
    def _one_is_a_list(cls, values: Any) -> Any:
        """``question`` becomes a list of one."""
        if isinstance(values, dict) and values.get("question") is not None:
            if values.get("questions"):
                raise ValueError("both question and questions were given; expected one of them")
            values = {**values, "questions": [values["question"]], "question": None}
        return values


class Attention(BaseModel):
    """Where the model looked: a map for each word or pass."""

    height: int
    width: int
    maps: Annotated[
        list[list[float]], Field(description="height x width numbers each, row by row, sum 1.")
    ]


class Timings(BaseModel):
    """Milliseconds: to open the picture, in the queue, in the models, and altogether."""

    open: float
    wait: float
    run: float
    total: float


class CaptionItem(BaseModel):
    """A caption."""

    text: str
    words: list[str]
    log_prob: Annotated[float, Field(description="Natural logarithm of its probability.")]
    ended: Annotated[bool, Field(description="False if it was cut at the greatest length.")]
    attention: Attention | None


class CaptionReply(BaseModel):
    """Captions, best first."""

    model: str
    captions: list[CaptionItem]
    timings: Timings


class Choice(BaseModel):
    """A possible answer."""

    answer: str
    confidence: float


class AnswerItem(BaseModel):
    """An answer."""

    question: str
    answer: str
    confidence: Annotated[float, Field(description="Calibrated probability, 0 to 1.")]
    top: Annotated[list[Choice], Field(description="The five likeliest answers.")]
    unknown_words: Annotated[list[str], Field(description="Words that the model never learned.")]
    words_cut: Annotated[
        int, Field(description="Words at the question's end that it did not read.")
    ] = 0
    abstained: bool
    without_picture: float | None
    attention: Attention | None


class AnswerReply(BaseModel):
    """Answers in the order of the questions."""

    model: str
    answers: list[AnswerItem]
    timings: Timings


class LookReply(BaseModel):
    """A picture that was looked at."""

    look: str
    expires_in: Annotated[float, Field(description="Seconds after the last use.")]


class ModelItem(BaseModel):
    """A model that is served."""

    name: str
    kind: Literal["captioner", "answerer"]
    architecture: str
    encoder: str
    attention: bool
    beam: int | None
    max_length: int | None
    answers: int | None
    default: bool


class Limits(BaseModel):
    """What a request may hold."""

    body: Annotated[int, Field(description="Bytes.")]
    pixels: int
    questions: int
    question_length: Annotated[int, Field(description="Characters.")]
    beam: int
    queue: int
    seconds: float


class ModelsReply(BaseModel):
    """What is served."""

    models: list[ModelItem]
    limits: Limits
    token: Annotated[bool, Field(description="A bearer token is asked for.")]


class ProblemReply(BaseModel):
    """RFC 9457, with a stable code."""

    type: str
    title: str
    status: int
    code: str
    detail: str

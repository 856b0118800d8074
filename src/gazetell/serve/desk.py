"""Between routes and engine: checks what is asked, opens pictures, waits, writes replies."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from starlette.requests import Request

from ..errors import UsageError
from ..features import Model as AnyModel
from ..inference.predict import Answer, Answerer, Caption, Captioner
from ..pictures import open_image
from .engine import Ask, Done, Engine, Look, Task, Tell
from .intake import Intake
from .looks import Held, LookStore, handle_of
from .monitor import Monitor
from .options import ServeOptions
from .problems import Problem
from .schemas import (
    AnswerItem,
    AnswerReply,
    AnswerRequest,
    Attention,
    CaptionItem,
    CaptionReply,
    CaptionRequest,
    Choice,
    Limits,
    LookReply,
    LookRequest,
    ModelItem,
    ModelsReply,
    Timings,
)
from .wait import Wait

__all__ = ["Desk"]

Model = TypeVar("Model", Captioner, Answerer)


@dataclass(frozen=True)
class _Opened:
    """A picture ready for the engine, and the seconds that took."""

    held: Held
    seconds: float


class Desk:
    """Serves models.

    Args:
        models: by name; the first of a kind is its default.
        options: limits.
        monitor: is told what happens.
    """

    def __init__(
        self, models: Mapping[str, Captioner | Answerer], options: ServeOptions, monitor: Monitor
    ) -> None:
        for name, model in models.items():
            if isinstance(model, Captioner) and model.decoding.beam > options.beam:
                raise UsageError(
                    f"--beam {options.beam}: {name} decodes with beam {model.decoding.beam}; "
                    "expected no less"
                )
        self.models, self.options, self.monitor = models, options, monitor
        self.engine = Engine(
            list(models.values()),
            batch=options.batch,
            gather=options.gather / 1000,
            observer=monitor,
        )
        self.store = LookStore(options.looks * 2**20, options.look_seconds)
        self.openers = ThreadPoolExecutor(options.openers, "gazetell-open")
        monitor.watch(self.store)

    def open(self) -> None:
        """Warm up and begin."""
        self.engine.start()

    def close(self) -> None:
        """Finish what was taken in."""
        self.openers.shutdown(cancel_futures=True)
        self.engine.close()

    def check_alive(self) -> None:
        """Refuse when the models can answer no more.

        Raises:
            Problem: they failed.
        """
        if self.engine.failure is not None:
            raise Problem("not_ready", "The models failed; the log says why.")

    def check_ready(self) -> None:
        """Refuse before the models are warm.

        Raises:
            Problem: not yet.
        """
        self.check_alive()
        if not self.engine.ready.is_set():
            raise Problem("not_ready", "The models are still warming up.", {"Retry-After": "2"})

    async def caption(self, request: Request, intake: Intake[CaptionRequest]) -> CaptionReply:
        """See ``POST /v1/caption``."""
        asked, wait = intake.asked, Wait(request, self.options.seconds)
        name, model = self._model(asked.model, Captioner)
        changes = {"beam": asked.beam, "max_length": asked.max_length}
        if asked.max_length is not None and asked.max_length < model.decoding.min_length:
            raise Problem(
                "invalid",
                f"max_length {asked.max_length}: the captions of {name} have at least "
                f"{model.decoding.min_length} words.",
            )
        options = model.options(**{k: v for k, v in changes.items() if v is not None})
        if options.beam > self.options.beam:
            raise Problem("invalid", f"beam {options.beam}: expected 1 to {self.options.beam}.")
        if asked.captions > options.beam:
            raise Problem(
                "invalid", f"captions {asked.captions}: expected at most the beam, {options.beam}."
            )
        opened = await self._opened(wait, intake.picture, asked.look, [model])
        done = await self._done(wait, opened.held, Tell(model, options, asked.captions))
        return CaptionReply(
            model=name,
            captions=[_caption_item(caption, asked.gaze) for caption in done.result],
            timings=_timings(wait, opened, done),
        )

    async def answer(self, request: Request, intake: Intake[AnswerRequest]) -> AnswerReply:
        """See ``POST /v1/answer``."""
        asked, limits = intake.asked, self.options
        wait = Wait(request, limits.seconds)
        name, model = self._model(asked.model, Answerer)
        if not 1 <= len(asked.questions) <= limits.questions:
            raise Problem(
                "invalid", f"{len(asked.questions)} questions: expected 1 to {limits.questions}."
            )
        questions = []
        for number, question in enumerate(asked.questions, 1):
            if len(question) > limits.question_length:
                raise Problem(
                    "invalid",
                    f"Question {number} has {len(question)} characters; expected at most "
                    f"{limits.question_length}.",
                )
            try:
                question.encode()
            except UnicodeEncodeError:
                raise Problem("invalid", f"Question {number} is no valid Unicode.") from None
            # Here, before one without words can spoil the batch of others.
            questions.append(model.read_question(question))
        opened = await self._opened(wait, intake.picture, asked.look, [model])
        work = Ask(model, questions, asked.abstain_below, asked.evidence)
        done = await self._done(wait, opened.held, work)
        return AnswerReply(
            model=name,
            answers=[_answer_item(answer, asked.gaze) for answer in done.result],
            timings=_timings(wait, opened, done),
        )

    async def look(self, request: Request, intake: Intake[LookRequest]) -> LookReply:
        """See ``POST /v1/look``."""
        assert intake.picture is not None  # a look request has one: see intake.read
        handle, wait = handle_of(intake.picture), Wait(request, self.options.seconds)
        held = self.store.get(handle)
        if held is None:
            held = (await self._opened(wait, intake.picture, None, self.engine.lookers)).held
            await self._done(wait, held, Look())
            self.store.put(handle, held)
        return LookReply(look=handle, expires_in=self.options.look_seconds)

    def models_reply(self, token: bool) -> ModelsReply:
        """See ``GET /v1/models``."""
        self.check_ready()
        items, kinds = [], set[type]()
        for name, model in self.models.items():
            items.append(
                ModelItem(
                    name=name,
                    kind="captioner" if isinstance(model, Captioner) else "answerer",
                    architecture=_network(model).config["architecture"],
                    encoder=model.encoder.config.name,
                    attention=self.engine.attentive[id(model)],
                    beam=model.decoding.beam if isinstance(model, Captioner) else None,
                    max_length=model.decoding.max_length if isinstance(model, Captioner) else None,
                    answers=len(model.answers) if isinstance(model, Answerer) else None,
                    default=type(model) not in kinds,
                )
            )
            kinds.add(type(model))
        options = self.options
        limits = Limits(
            body=options.body_bytes,
            pixels=options.max_pixels,
            questions=options.questions,
            question_length=options.question_length,
            beam=options.beam,
            queue=options.queue,
            seconds=options.seconds,
        )
        return ModelsReply(models=items, limits=limits, token=token)

    def _model(self, name: str | None, kind: type[Model]) -> tuple[str, Model]:
        """The model that is meant.

        Raises:
            Problem: none of that name, or of that kind.
        """
        fitting = {n: m for n, m in self.models.items() if isinstance(m, kind)}
        what = "captioner" if kind is Captioner else "answerer"
        if not fitting:
            raise Problem("no_such_model", f"No {what} is served here.")
        if name is None:
            return next(iter(fitting.items()))
        if name not in fitting:
            served = ", ".join(fitting)
            raise Problem("no_such_model", f"No {what} has this name; expected one of {served}.")
        return name, fitting[name]

    async def _opened(
        self, wait: Wait, picture: bytes | None, handle: str | None, lookers: Sequence[AnyModel]
    ) -> _Opened:
        """The picture that was sent or is meant.

        Raises:
            Problem: a look that is not kept (any more), models that are not warm, or too late.
            ImageError: a picture that cannot be opened.
        """
        self.check_ready()
        begin = time.monotonic()
        if picture is None:
            held = self.store.get(str(handle))
            if held is None:
                raise Problem("look_expired", "This look is not kept; send the picture again.")
            return _Opened(held, 0.0)

        def opened() -> Held:
            near = max(looker.side for looker in lookers)
            image = open_image(picture, near=near, max_pixels=self.options.max_pixels)
            pixels: dict[str, np.ndarray] = {
                looker.fingerprint: looker.encoder.pixels(image) for looker in lookers
            }
            return Held(pixels)

        held = await wait.until(self.openers.submit(opened))
        return _Opened(held, time.monotonic() - begin)

    async def _done(self, wait: Wait, held: Held, work: Tell | Ask | Look) -> Done[Any]:
        """What the engine makes of a request, as long as its client waits.

        Raises:
            Problem: the time is over.
        """
        return await wait.until(self.engine.submit(Task(held, work, wait.end)))


def _network(model: Captioner | Answerer) -> Any:
    return model.captioner if isinstance(model, Captioner) else model.answerer


def _timings(wait: Wait, opened: _Opened, done: Done[Any]) -> Timings:
    total = time.monotonic() - wait.begin
    seconds = {"open": opened.seconds, "wait": done.wait, "run": done.run, "total": total}
    return Timings(**{name: round(1000 * value, 2) for name, value in seconds.items()})


def _attention(maps: np.ndarray | None, wanted: bool) -> Attention | None:
    """Attention (T, height, width) as flat lists, 6 digits each."""
    if maps is None or not wanted:
        return None
    _, height, width = maps.shape
    flat = np.round(maps.astype(float).reshape(len(maps), -1), 6)
    return Attention(height=height, width=width, maps=flat.tolist())


def _caption_item(caption: Caption, gaze: bool) -> CaptionItem:
    return CaptionItem(
        text=caption.text,
        words=caption.words,
        log_prob=caption.log_prob,
        ended=caption.ended,
        attention=_attention(caption.attention, gaze),
    )


def _answer_item(answer: Answer, gaze: bool) -> AnswerItem:
    return AnswerItem(
        question=answer.question,
        answer=answer.text,
        confidence=answer.confidence,
        top=[Choice(answer=text, confidence=chance) for text, chance in answer.top],
        unknown_words=answer.unknown,
        words_cut=answer.cut,
        abstained=answer.abstained,
        without_picture=answer.without_picture,
        attention=_attention(answer.attention, gaze),
    )

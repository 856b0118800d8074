"""The API: how requests are read and answered; ``schemas`` has what they and the replies hold.

A further endpoint is a reply, a ``Work`` and a route, all in this file; see docs/serving.md. Routes
are ``async``: a request that waits for its batch costs no thread, and when its client leaves it is
cancelled and so taken out of the queue.
"""

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import torch
from fastapi import Depends, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from PIL import Image
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from .. import __version__
from ..data.text import Question
from ..errors import ImageError, ModelError, UsageError
from ..features import GREY
from ..inference.predict import Answer, Answerer, Caption, Captioner
from ..models.decoding import DecodingOptions
from ..models.encoders import Grid
from ..pictures import WHOLE_VIEW
from .engine import Engine, StoredPicture, Work
from .guard import (
    CODES,
    Guard,
    Looks,
    Monitor,
    Problem,
    ProblemReply,
    ServeOptions,
    read,
    request_body,
)
from .schemas import (
    AnswerItem,
    AnswerReply,
    AnswerRequest,
    CaptionItem,
    CaptionReply,
    CaptionRequest,
    Limits,
    LookReply,
    ModelItem,
    ModelsReply,
    PictureOrLookRequest,
    PictureRequest,
    Timings,
)

Kind = TypeVar("Kind", Captioner, Answerer)
# Of the page. Scenes are for models that know them.
PHOTOGRAPHS = ("chelsea.jpg", "coffee.jpg", "astronaut.jpg")
SCENES = ("scene-1.png", "scene-2.png", "scene-3.png")
OPTIONS = set(DecodingOptions.__dataclass_fields__)

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"content": {"application/problem+json": {"schema": ProblemReply.model_json_schema()}}}
    for status in sorted(set(CODES.values()))
}


@dataclass(frozen=True)
class CaptionWork(Work):
    """The ``count`` best captions of a picture."""

    stage = "caption"
    model: Captioner
    options: DecodingOptions
    count: int = 1

    def run(self, works: Sequence["CaptionWork"], grid: Grid) -> list[list[Caption]]:
        """The captions of each picture."""
        # Each draws as if it were alone.
        return self.model.decode_best(grid, self.options, self.count, [0] * len(works))


@dataclass(frozen=True)
class AnswerWork(Work):
    """Answers to questions about a picture."""

    stage = "answer"
    model: Answerer
    evidence: bool
    questions: list[Question] = field(compare=False)

    @property
    def size(self) -> int:
        """Of the questions."""
        return len(self.questions)

    def run(self, works: Sequence["AnswerWork"], grid: Grid) -> list[list[Answer]]:
        """The answers about each picture."""
        questions = [question for work in works for question in work.questions]
        owner = torch.tensor([n for n, work in enumerate(works) for _ in work.questions])
        answers = iter(self.model.answer(grid, questions, owner, evidence=self.evidence))
        return [[next(answers) for _ in work.questions] for work in works]


@dataclass(frozen=True)
class NoveltyWork(Work):
    """Whether a picture is unlike those that a model learned from."""

    stage = "example"
    model: Captioner | Answerer

    def run(self, works: Sequence[Work], grid: Grid) -> list[bool]:
        """That of each picture."""
        novelty = self.model.novelty
        return novelty.unfamiliar(grid.pooled.float().cpu()) if novelty else [False] * len(works)


def _kind(model: Captioner | Answerer) -> str:
    return "captioner" if isinstance(model, Captioner) else "answerer"


class Service:
    """The models by name, the first of a kind its default, and how they answer requests."""

    def __init__(
        self,
        models: Mapping[str, Captioner | Answerer],
        options: ServeOptions,
        monitor: Monitor,
        looks: Looks,
    ) -> None:
        self.models, self.options, self.looks = models, options, looks
        self.engine = Engine(list(models.values()), options, monitor)
        self.attention: dict[str, bool] = {}  # of the models that are warm
        self.examples: list[str] = []  # for the page: what the first model can judge

    async def choose_examples(self, model: Captioner | Answerer) -> None:
        """The example pictures of the kind that the model knows best; none where it knows neither.

        Photographs where it cannot tell.
        """
        judged, known = NoveltyWork(model), dict[tuple[str, ...], int]()
        for kind in (PHOTOGRAPHS, SCENES) if model.novelty else (PHOTOGRAPHS,):
            opened, familiar = list[str](), 0
            for name in kind:
                with suppress(ImageError):  # over a limit of this service
                    content = (files("gazetell") / "examples" / name).read_bytes()
                    picture = await self.engine.open(content, judged)
                    familiar += not (await self.engine.run(picture, judged)).result
                    opened.append(name)
            known[tuple(opened)] = familiar
        best = max(known.values())
        self.examples = [
            name for kind, count in known.items() if 0 < count == best for name in kind
        ]

    async def warm_up(self) -> None:
        """A first pass through every model: memory is taken and kernels are chosen now."""
        try:
            if first := next(iter(self.models.values()), None):
                await self.choose_examples(first)
            for name, model in self.models.items():
                grey = Image.new("RGB", (model.encoder.size,) * 2, (GREY,) * 3)
                pixels = model.encoder.frame.pixels(grey)
                picture = StoredPicture({model.fingerprint: pixels}, grey.size)
                work: Work
                if isinstance(model, Captioner):
                    work = CaptionWork(model, model.decoding)
                else:
                    work = AnswerWork(model, True, [model.read_question("what is this?")])
                result = (await self.engine.run(picture, work)).result[0]
                score = result.log_prob if isinstance(result, Caption) else result.confidence
                if not math.isfinite(score):
                    raise ModelError(f"{name} gives no finite numbers: its weights are damaged")
                self.attention[name] = result.attention is not None
            self.engine.monitor.batches.clear()  # these passes answered nobody
        except Exception as error:
            self.engine.fail(error.__cause__ or error)

    def check(self, *, warm: bool = True) -> None:
        """Refuse when the models cannot answer any more, or not yet."""
        if self.engine.failure is not None:
            raise Problem("not_ready", "The models failed; the log says why.")
        if warm and len(self.attention) < len(self.models):
            raise Problem("not_ready", "The models are still warming up.", {"Retry-After": "2"})

    def choose(self, kind: type[Kind], name: str | None) -> tuple[str, Kind]:
        """The model of a name, else the first of its kind."""
        fitting = {n: m for n, m in self.models.items() if isinstance(m, kind)}
        name = next(iter(fitting), None) if name is None else name
        if name in fitting:
            return name, fitting[name]
        detail = f"has this name; expected one of {', '.join(fitting)}" if fitting else "is served"
        raise Problem("no_such_model", f"No {kind.__name__.lower()} {detail}.")

    async def reply(self, asked: PictureOrLookRequest, work: Work) -> tuple[Any, Timings]:
        """What the models make of the picture that is meant, and the time it took."""
        self.check()
        begin, opening = time.monotonic(), 0.0
        if asked.image is not None:
            picture = await self.engine.open(asked.image, work)
            opening = time.monotonic() - begin
        elif recalled := await self.looks.recall(asked.look or ""):
            picture = recalled
        else:
            raise Problem("look_expired", "This look is not kept; send the picture again.")
        done = await self.engine.run(picture, work)
        encoder, view, doubt = work.model and work.model.encoder, WHOLE_VIEW, ""
        if encoder:
            view, doubt = encoder.view(picture.shape), encoder.frame.doubt(picture.shape)
        total = time.monotonic() - begin
        took = {"open": opening, "wait": done.wait, "run": done.run, "total": total}
        shown = (Caption, Answer)  # an endpoint of one's own may give something else
        found = [x.of(view, doubt) if isinstance(x, shown) else x for x in done.result]
        return found, Timings(**{name: round(1000 * s, 2) for name, s in took.items()})

    def items(self) -> list[ModelItem]:
        """What is said of each model."""
        first = {_kind(model): name for name, model in reversed(list(self.models.items()))}
        items = []
        for name, model in self.models.items():
            own: dict[str, Any] = {"beam": None, "max_length": None, "answers": None}
            if isinstance(model, Captioner):
                decoding = model.decoding
                own |= {"beam": decoding.beam, "max_length": decoding.max_length}
                own["not_sure_below"] = model.confidence and model.confidence.threshold
            else:
                own |= {"answers": len(model.answers) if model.answers else None}
                own |= {"not_sure_below": model.abstain_below}
            own |= {"name": name, "kind": _kind(model)}
            own |= {"architecture": model.architecture, "encoder": model.encoder.config.name}
            own |= {"attention": self.attention[name], "default": first[_kind(model)] == name}
            items.append(ModelItem(**own))
        return items


def create_app(
    models: Mapping[str, Captioner | Answerer],
    options: ServeOptions | None = None,
    *,
    token: str | None = None,
    looks: Looks | None = None,
    route: type[APIRoute] = APIRoute,
    guarded: bool = True,
) -> FastAPI:
    """The service as an ASGI application.

    Args:
        models: by the names under which they are served; the first of a kind is its default.
        options: limits.
        token: that requests to the API must bear; None for no token.
        looks: where encoded pictures are kept; by default in this process.
        route: how routes answer; a front has one that passes requests on, see ``replicas``.
        guarded: False where another process guards what arrives here: problems are raised.

    Raises:
        UsageError: a model that decodes with a wider beam than may be asked for.
    """
    options, monitor = options or ServeOptions(), Monitor()
    for name, model in models.items():
        if isinstance(model, Captioner) and model.decoding.beam > options.beam:
            raise UsageError(
                f"--beam {options.beam}: {name} decodes with beam {model.decoding.beam}; "
                "expected no less"
            )
    service = Service(models, options, monitor, looks or Looks(options))
    engine = service.engine

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        warming = asyncio.create_task(service.warm_up())
        yield
        warming.cancel()
        # What was taken in is finished; that may take a while, and others want the loop.
        await asyncio.to_thread(engine.close)

    app = FastAPIOffline(
        title="gazetell",
        version=__version__,
        summary="Tells what a picture shows, answers questions, and shows where it looked.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # Relative to this document, wherever a proxy shows it.
        servers=[{"url": "."}],
    )
    app.state.service = service
    app.router.route_class = route
    if guarded:
        app.add_middleware(Guard, options=options, monitor=monitor, token=token)
    # The guard checks the token; this tells OpenAPI of it.
    bearer = [Depends(HTTPBearer(auto_error=False))] if token else []

    def post(path: str, kind: type[BaseModel], **more: Any) -> Callable[[Any], Any]:
        body = request_body(kind)
        return app.post(path, responses=PROBLEMS, dependencies=bearer, openapi_extra=body, **more)

    @app.exception_handler(HTTPException)
    async def _problem(_: Request, error: HTTPException) -> Response:
        code, detail = {
            404: ("not_found", "There is nothing here; the API is described at /docs."),
            405: ("method_not_allowed", "This path takes another method; see /docs."),
        }.get(error.status_code, ("bad_request", f"{error.detail}."))
        raise Problem(code, detail, dict(error.headers or {}))  # the guard tells of all problems

    @post("/v1/caption", CaptionRequest)
    async def caption(request: Request) -> CaptionReply:
        """Tell what a picture shows, and where the model looked for each word."""
        asked = await read(request, CaptionRequest)
        name, model = service.choose(Captioner, asked.model)
        least = model.decoding.min_length if asked.min_length is None else 0
        if asked.max_length is not None and asked.max_length < least:
            detail = f"the captions of {name} have at least {least} words."
            raise Problem("invalid", f"max_length {asked.max_length}: {detail}")
        decoding = model.options(**asked.model_dump(include=OPTIONS, exclude_none=True))
        if decoding.beam > options.beam:
            raise Problem("invalid", f"beam {decoding.beam}: expected 1 to {options.beam}.")
        if (count := asked.captions) > (most := decoding.beam):
            raise Problem("invalid", f"captions {count}: expected at most the beam, {most}.")
        found, timings = await service.reply(asked, CaptionWork(model, decoding, count))
        items = [CaptionItem.of(caption, asked.gaze) for caption in found]
        return CaptionReply(model=name, captions=items, timings=timings)

    @post("/v1/answer", AnswerRequest)
    async def answer(request: Request) -> AnswerReply:
        """Answer questions about a picture, with calibrated confidences."""
        asked = await read(request, AnswerRequest, options.questions)
        name, model = service.choose(Answerer, asked.model)
        count, most = len(asked.questions), options.question_length
        if not 1 <= count <= options.questions:
            raise Problem("invalid", f"{count} questions: expected 1 to {options.questions}.")
        for number, text in enumerate(asked.questions, 1):
            if len(text) > most:
                detail = f"has {len(text)} characters; expected at most {most}."
                raise Problem("invalid", f"Question {number} {detail}")
        # Here, before one without words can spoil the batch of others.
        questions = [model.read_question(text) for text in asked.questions]
        found, timings = await service.reply(asked, AnswerWork(model, asked.evidence, questions))
        if (least := asked.abstain_below) is not None:
            found = [replace(x, abstained=x.confidence < least) for x in found]
        items = [AnswerItem.of(x, asked.gaze) for x in found]
        return AnswerReply(model=name, answers=items, timings=timings)

    @post("/v1/look", PictureRequest, status_code=201)
    async def look(request: Request) -> LookReply:
        """Send a picture once; further requests name it by the handle."""
        image = (await read(request, PictureRequest)).image or b""
        handle = hashlib.sha256(image).hexdigest()[:40]
        if await service.looks.recall(handle) is None:
            service.check()
            picture = await engine.open(image, Work(None))
            await engine.run(picture, Work(None))
            if not await service.looks.keep(handle, picture, picture.size):
                raise Problem("busy", "There is no room for a picture; send it with each request.")
        return LookReply(look=handle, expires_in=options.look_seconds)

    @app.get("/v1/models", responses={503: PROBLEMS[503]})
    async def served() -> ModelsReply:
        """What is served, and within which limits."""
        service.check()
        limits = Limits.model_validate(options)
        has_token, shown = token is not None, service.examples
        return ModelsReply(models=service.items(), limits=limits, token=has_token, examples=shown)

    @app.get("/healthz", include_in_schema=False)
    async def alive() -> dict[str, str]:
        service.check(warm=False)
        return {"status": "alive"}

    @app.get("/readyz", include_in_schema=False)
    async def ready() -> dict[str, str]:
        service.check()
        return {"status": "ready"}

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        kept, size = await service.looks.size()
        monitor.looks.set(kept)
        monitor.look_bytes.set(size)
        return Response(monitor.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        # The library's own page names its files from the root; a proxy may show us below a prefix.
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title="gazetell: API",
            swagger_js_url="static-offline-docs/swagger-ui-bundle.js",
            swagger_css_url="static-offline-docs/swagger-ui.css",
            swagger_favicon_url="page/icon.svg",
            oauth2_redirect_url=None,
        )

    page = Path(str(files(__package__) / "page"))

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(page / "index.html")

    # gaze.js is of the templates: it draws gazes here and in the pages that the library writes.
    shared = (("gazetell.inference", "templates"), ("gazetell", "examples"))
    static = StaticFiles(directory=page, packages=[*shared])
    app.mount("/page", static, name="page")
    return app

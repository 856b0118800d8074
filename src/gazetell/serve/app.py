"""The service: routes over an engine.

The routes are ``async``, unlike plain functions in a pool of threads: a request that waits for its
batch costs no thread, and when its client leaves it is taken out of the queue.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from .. import __version__
from ..inference.predict import Answerer, Captioner
from .desk import Desk
from .guard import Guard
from .intake import read, request_body
from .monitor import Monitor
from .options import ServeOptions
from .problems import CODES, Problem
from .schemas import (
    AnswerReply,
    AnswerRequest,
    CaptionReply,
    CaptionRequest,
    LookReply,
    LookRequest,
    ModelsReply,
    ProblemReply,
)

__all__ = ["create_app"]

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"content": {"application/problem+json": {"schema": ProblemReply.model_json_schema()}}}
    for status in sorted(set(CODES.values()))
}


def create_app(
    models: Mapping[str, Captioner | Answerer],
    options: ServeOptions | None = None,
    *,
    token: str | None = None,
) -> FastAPI:
    """The service as an ASGI application.

    Args:
        models: by the names under which they are served; the first of a kind is its default.
        options: limits.
        token: that requests to the API must bear; None for no token.
    """
    options, monitor = options or ServeOptions(), Monitor()
    desk = Desk(models, options, monitor)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        desk.open()
        yield
        # What was taken in is finished; that may take a while, and others want the loop.
        await asyncio.to_thread(desk.close)

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
    app.state.desk = desk
    app.add_middleware(Guard, options=options, monitor=monitor, token=token)

    # The guard checks the token; this tells OpenAPI of it.
    bearer = [Depends(HTTPBearer(auto_error=False))] if token else []
    post = partial(app.post, responses=PROBLEMS, dependencies=bearer)

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        # The guard tells of this as of all other problems.
        code, detail = {
            404: ("not_found", "There is nothing here; the API is described at /docs."),
            405: ("method_not_allowed", "This path takes another method; see /docs."),
        }.get(error.status_code, ("bad_request", f"{error.detail}."))
        raise Problem(code, detail, dict(error.headers or {}))

    @post("/v1/caption", openapi_extra=request_body(CaptionRequest))
    async def caption(request: Request) -> CaptionReply:
        """Tell what a picture shows, and where the model looked for each word."""
        return await desk.caption(request, await read(request, CaptionRequest, 0))

    @post("/v1/answer", openapi_extra=request_body(AnswerRequest))
    async def answer(request: Request) -> AnswerReply:
        """Answer questions about a picture, with calibrated confidences."""
        return await desk.answer(request, await read(request, AnswerRequest, options.questions))

    @post("/v1/look", status_code=201, openapi_extra=request_body(LookRequest))
    async def look(request: Request) -> LookReply:
        """Send a picture once; further requests name it by the handle."""
        return await desk.look(request, await read(request, LookRequest, 0))

    @app.get("/v1/models", responses={503: PROBLEMS[503]})
    async def served() -> ModelsReply:
        """What is served, and within which limits."""
        return desk.models_reply(token is not None)

    @app.get("/healthz", include_in_schema=False)
    async def alive() -> dict[str, str]:
        desk.check_alive()
        return {"status": "alive"}

    @app.get("/readyz", include_in_schema=False)
    async def ready() -> dict[str, str]:
        desk.check_ready()
        return {"status": "ready"}

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(monitor.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        # The library's own page names its files from the root; a proxy may show us below a prefix.
        files_at = "static-offline-docs"
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title="gazetell: API",
            swagger_js_url=f"{files_at}/swagger-ui-bundle.js",
            swagger_css_url=f"{files_at}/swagger-ui.css",
            swagger_favicon_url="page/icon.svg",
            oauth2_redirect_url=None,
        )

    page = Path(str(files(__package__) / "page"))

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(page / "index.html")

    app.mount("/page", StaticFiles(directory=page), name="page")
    return app

"""What stands before the routes: limits, the token, headers, reading, errors as JSON, figures.

``Guard`` is an ASGI middleware, because limits have to hold before a request is in memory: a body
is counted as it arrives, and one that is too large, too slow, or one too many is refused at once.
Slow heads and slow readers are left to the proxy in front, see docs/serving.md.
"""

import asyncio
import hmac
import json
import logging
import math
import time
from dataclasses import dataclass, fields
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

from cachetools import TTLCache
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers, MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import ImageError, PixelLimitError, UsageError
from ..pictures import Fit

log = logging.getLogger("gazetell.serve")
Asked = TypeVar("Asked", bound=BaseModel)
JSON, FORM = "application/json", "multipart/form-data"
FIELDS = 32  # most fields of a request, questions of a form not counted
LEFT = 499  # status in figures and log when the client left: as nginx has it
OPEN_PATHS = ("/v1/models",)  # of the API, without a token: the page asks there if one is needed

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# Swagger's page brings a script and styles inline; nobody's content is shown there.
DOCS_POLICY = PAGE_POLICY.replace("-src 'self';", "-src 'self' 'unsafe-inline';", 2)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}

# The code of each problem, and its status.
CODES = {
    "bad_request": 400,
    "unauthorized": 401,
    "not_found": 404,
    "no_such_model": 404,
    "look_expired": 404,
    "method_not_allowed": 405,
    "receive_timeout": 408,
    "body_too_large": 413,
    "picture_too_large": 413,
    "unsupported_media_type": 415,
    "picture_unreadable": 422,
    "invalid": 422,
    "queue_full": 429,
    "internal": 500,
    "not_ready": 503,
    "busy": 503,
    "timeout": 504,
}


@dataclass(frozen=True)
class ServeOptions:
    """Where and how the service runs; what it takes, keeps and waits for.

    Attributes:
        host: Address to listen on; 0.0.0.0 for all.
        port: Port to listen on; 0 for any that is free.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, bf16 or fp32.
        fit: How pictures are fitted: squash, crop or pad; as in training if not given.
        threads: CPU threads of torch; 0 for torch's own choice.
        body: Largest request in MiB.
        pixels: Largest picture in millions of pixels, checked before it is decoded.
        questions: Maximum number of questions in a request.
        question_length: Maximum number of characters in a question.
        beam: Largest beam that a request may ask for.
        queue: Maximum number of requests that wait for an answer; more are refused with 429.
        seconds: Time limit in seconds for an answer after the request has arrived, else 504.
        receive_seconds: Time limit in seconds for a request to arrive, else 408.
        uploads: Maximum size of all requests in memory, in MiB; more are refused with 503.
        looks: MiB for encoded pictures that are kept for further requests.
        look_seconds: Seconds that an encoded picture is kept after it was last used.
        batch: Maximum number of pictures per forward pass.
        gather: Milliseconds that the first request of a batch waits for others.
        openers: Threads that open pictures.
        trust: Run the code of an architecture that is not of gazetell, which a model names.
        prompt: What asks large models for a caption (docs/large.md).
    """

    host: str = "127.0.0.1"
    port: int = 8000
    device: str = "auto"
    precision: str = "auto"
    fit: Fit | None = None
    threads: int = 0
    body: float = 10.0
    pixels: float = 40.0
    questions: int = 16
    question_length: int = 500
    beam: int = 10
    queue: int = 256
    seconds: float = 30.0
    receive_seconds: float = 20.0
    uploads: float = 256.0
    looks: float = 256.0
    look_seconds: float = 600.0
    batch: int = 32
    gather: float = 3.0
    openers: int = 2
    trust: bool = False
    prompt: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value, option = getattr(self, field.name), field.name.replace("_", "-")
            if value is None or isinstance(value, str | bool):
                continue
            expected = "0 or more" if option in ("port", "threads", "gather") else "more than 0"
            if not math.isfinite(value) or value < 0 or (value == 0 and "0 or" not in expected):
                raise UsageError(f"--{option} {value}: expected {expected}")
        if self.port > 65535:  # some systems would cut it to 16 bits and take another
            raise UsageError(f"--port {self.port}: expected at most 65535")

    @property
    def body_bytes(self) -> int:
        """Largest request in bytes."""
        return int(self.body * 2**20)

    @property
    def max_pixels(self) -> int:
        """Largest picture in pixels."""
        return int(self.pixels * 1e6)


class ProblemReply(BaseModel):
    """RFC 9457, with a stable code."""

    type: str
    title: str
    status: int
    code: str
    detail: str


class Problem(Exception):
    """What a client is told: problem JSON (RFC 9457) with a stable code and one sentence.

    Args:
        code: a key of ``CODES``.
        detail: the sentence.
        headers: of the response, besides the usual.
    """

    def __init__(self, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code, self.detail, self.headers = code, detail, headers or {}

    @classmethod
    def of(cls, error: Exception) -> "Problem":
        """What a client is told of an error; of a defect nothing but that."""
        if isinstance(error, Problem):
            return error
        if isinstance(error, ImageError):
            code = "too_large" if isinstance(error, PixelLimitError) else "unreadable"
            # Bytes have no file name: the library calls them "picture".
            detail = str(error).replace("picture: ", "The picture ", 1)
            return cls(f"picture_{code}", f"{detail}.")
        if isinstance(error, ValidationError):
            # Only the first, and nothing of what was sent is repeated.
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part)[:40] for part in first["loc"])
            what = first["msg"].removeprefix("Value error, ")
            return cls(
                "invalid", f"{where}: {what}." if where else f"{what[:1].upper()}{what[1:]}."
            )
        if isinstance(error, UsageError):
            return cls("invalid", f"{error}.")
        log.error("a request failed", exc_info=error)
        return cls("internal", "Something went wrong here; it has been logged.")

    def response(self) -> Response:
        """The response that says it."""
        status = CODES[self.code]
        title, code = HTTPStatus(status).phrase, self.code
        reply = ProblemReply(
            type="about:blank", title=title, status=status, code=code, detail=self.detail
        )
        headers = {"Cache-Control": "no-store", **self.headers}
        return Response(reply.model_dump_json(), status, headers, "application/problem+json")


class Monitor:
    """Figures of one service, for Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        self.requests = counter("gazetell_requests", "Requests answered", ("route", "status"))
        self.problems = counter("gazetell_problems", "Requests answered with a problem", ("code",))
        self.abandoned = counter("gazetell_abandoned", "Requests whose client left before")
        self.queue = gauge("gazetell_queue", "Requests that wait for an answer")
        self.uploads = gauge("gazetell_upload_bytes", "Requests in memory")
        self.looks = gauge("gazetell_looks", "Encoded pictures kept")
        self.look_bytes = gauge("gazetell_look_bytes", "Memory of the encoded pictures")
        self.seconds = Histogram(
            "gazetell_request_seconds",
            "From the first byte of a request to the last of its response",
            ("route",),
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=self.registry,
        )
        self.batches = Histogram(
            "gazetell_batch_size",
            "Pictures or questions that went through a stage together",
            ("stage",),
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self.registry,
        )

    def batch(self, stage: str, size: int) -> None:
        """So many pictures or questions went through a stage together."""
        self.batches.labels(stage).observe(size)

    def text(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self.registry)


class Looks:
    """Encoded pictures by handle, kept for a time after their last use.

    Its methods are ``async`` because the store of a cluster is in another process.

    Args:
        options: how much is kept, and for how long.
    """

    def __init__(self, options: ServeOptions) -> None:
        self._kept: TTLCache[str, tuple[Any, int]] = TTLCache(
            options.looks * 2**20, options.look_seconds, getsizeof=lambda kept: kept[1]
        )

    async def recall(self, handle: str) -> Any:
        """A picture that is kept, else None; its time begins anew."""
        kept = self._kept.pop(handle, None)
        if kept is not None:
            self._kept[handle] = kept
        return kept and kept[0]

    async def keep(self, handle: str, picture: Any, size: int) -> bool:
        """Keep a picture of so many bytes; False if that is more than all that may be kept."""
        try:
            self._kept[handle] = picture, size
        except ValueError:
            return False
        return True

    async def size(self) -> tuple[int, float]:
        """How many are kept, and their bytes."""
        return len(self._kept), self._kept.currsize


class Guard:
    """Checks every request.

    Args:
        app: what it guards.
        options: the limits.
        monitor: is told of every request.
        token: that a request to the API must bear; None for no token.
    """

    def __init__(
        self, app: ASGIApp, *, options: ServeOptions, monitor: Monitor, token: str | None
    ) -> None:
        self.app, self.options, self.monitor, self.token = app, options, monitor, token
        self.uploads = 0  # bytes of requests in memory
        self.waiting = 0  # requests that have arrived whole and are not yet answered
        monitor.queue.set_function(lambda: self.waiting)
        monitor.uploads.set_function(lambda: self.uploads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request as ASGI has it."""
        if scope["type"] == "http":
            await _Exchange(self, scope, receive, send).run()
        else:
            await self.app(scope, receive, send)


class _Exchange:
    """A request and its response, on their way through the guard."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard, self.options, self.method = guard, guard.options, scope["method"]
        # HEAD is answered as GET is, without the body.
        self.scope = {**scope, "method": "GET"} if self.method == "HEAD" else scope
        self._receive, self._send = receive, send
        self.status = self.size = 0
        self.complete = self.waits = self.left = self.answered = False
        self.watch: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Have it answered, in time: first to arrive, then to be answered."""
        begin, monitor = time.monotonic(), self.guard.monitor
        try:
            self._check()
            seconds = self.options.receive_seconds if self.method == "POST" else None
            async with asyncio.timeout(seconds) as self.limit:
                try:
                    await self.guard.app(self.scope, self.receive, self.send)
                finally:
                    if self.watch:
                        self.watch.cancel()
        except Exception as error:
            if self.left or isinstance(error, ClientDisconnect):
                monitor.abandoned.inc()
                self.status = self.status or LEFT
                return
            late = isinstance(error, TimeoutError) and self.limit.expired()
            problem = self._late() if late else Problem.of(error)
            if not self.status:  # else an answer has begun
                monitor.problems.labels(problem.code).inc()
                await problem.response()(self.scope, self._receive, self.send)
        finally:
            self._forget()
            self.guard.waiting -= self.waits
            seconds = time.monotonic() - begin
            # An unknown path is not a label: there are endlessly many.
            route = getattr(self.scope.get("route"), "path", "other")
            monitor.requests.labels(route, self.status).inc()
            monitor.seconds.labels(route).observe(seconds)
            # Without the query: people put into addresses what does not belong there.
            path = self.scope["path"][:200]
            log.info("%s %r %s %.0f ms", self.method, path, self.status, 1000 * seconds)

    async def receive(self) -> Message:
        """The next piece of the request, counted."""
        message = await self._receive()
        if self.complete or message["type"] != "http.request":
            return message
        size = len(message.get("body", b""))
        self.size += size
        self.guard.uploads += size
        self._check_size(self.size)
        if self.guard.uploads > self.options.uploads * 2**20:
            self._forget()  # at once: one that goes makes room for the others
            raise Problem("busy", "Too much is arriving at once; try again.", {"Retry-After": "1"})
        self.complete = not message.get("more_body", False)
        if self.complete and self.method == "POST":
            # Those that are still arriving do not count: slow clients fill no queue.
            self._check_queue()
            self.waits = True
            self.guard.waiting += 1
            self._end_in(self.options.seconds)
            self.watch = asyncio.create_task(self._watch())
        return message

    async def send(self, message: Message) -> None:
        """Send with the headers that every response has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers, path = MutableHeaders(scope=message), self.scope["path"]
            policy = DOCS_POLICY if path == "/docs" else PAGE_POLICY
            for name, value in {**HEADERS, "Content-Security-Policy": policy}.items():
                headers.setdefault(name, value)
            if path.startswith("/v1/"):
                headers.setdefault("Cache-Control", "no-store")
        else:
            self.answered = not message.get("more_body", False)
            if self.method == "HEAD":
                message = {**message, "body": b""}
        await self._send(message)

    def _check(self) -> None:
        """Refuse what need not even be read."""
        headers, path, token = Headers(scope=self.scope), self.scope["path"], self.guard.token
        if token and path.startswith("/v1/") and path not in OPEN_PATHS:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(given.strip().encode(), token.encode())
            if not same or scheme.lower() != "bearer":
                detail = "Expected the header Authorization: Bearer with this service's token."
                raise Problem("unauthorized", detail, {"WWW-Authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        self._check_size(int(length) if length.isdecimal() else 0)
        if self.method == "POST":
            self._check_queue()

    def _check_size(self, size: int) -> None:
        if size > self.options.body_bytes:
            limit = f"{self.options.body:g} MiB"
            raise Problem("body_too_large", f"The request is larger than {limit}, the limit here.")

    def _check_queue(self) -> None:
        if self.guard.waiting >= self.options.queue:
            detail = f"{self.options.queue} requests are already waiting; try again in a moment."
            raise Problem("queue_full", detail, {"Retry-After": "1"})

    def _forget(self) -> None:
        """The request is not in memory any more."""
        self.guard.uploads -= self.size
        self.size = 0

    def _end_in(self, seconds: float) -> None:
        self.limit.reschedule(asyncio.get_running_loop().time() + seconds)

    async def _watch(self) -> None:
        """End the work as soon as the client leaves."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.answered:
            self.left = True
            self._end_in(0)

    def _late(self) -> Problem:
        if self.complete:
            detail = f"No answer within {self.options.seconds:g} seconds; try again later."
            return Problem("timeout", detail)
        detail = f"The request did not arrive within {self.options.receive_seconds:g} seconds."
        return Problem("receive_timeout", detail, {"Connection": "close"})


async def read(request: Request, kind: type[Asked], questions: int = 0) -> Asked:
    """Read a request, JSON or a form, whose body was not read yet.

    One path takes both; FastAPI's own parameters read only one of them.

    Args:
        request: whose fields are read; names of uploaded files are not.
        kind: what it asks for.
        questions: most of them.

    Raises:
        Problem: neither JSON nor a form, malformed, or with fields in the address.
        ValidationError: fields that do not fit.
    """
    if request.url.query:
        raise Problem("invalid", "Fields in the address are not read; send them in the body.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unsupported_media_type", "Expected a body without Content-Encoding.")
    content = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content == JSON:
        try:
            values = json.loads(await request.body(), object_pairs_hook=_fields)
        except (ValueError, RecursionError):
            raise Problem("bad_request", "The body is not valid JSON.") from None
        if not isinstance(values, dict):
            raise Problem("bad_request", "Expected a JSON object.")
    elif content == FORM:
        values = await _form(request, FIELDS + questions)
    else:
        raise Problem("unsupported_media_type", f"Expected the content type {JSON} or {FORM}.")
    return kind.model_validate(values)


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of a JSON object."""
    if len(pairs) > FIELDS:
        raise Problem("invalid", f"{len(pairs)} fields: expected at most {FIELDS}.")
    values = dict(pairs)
    if len(values) < len(pairs):  # the last of two would win unseen
        raise Problem("invalid", "A field was given twice.")
    return values


async def _form(request: Request, most: int) -> dict[str, Any]:
    """The fields of a form, the content of the file as ``image``."""
    try:
        form = await request.form(max_files=1, max_fields=most)
    except HTTPException as error:
        raise Problem("bad_request", f"The form cannot be read: {error.detail}") from None
    except UnicodeError:  # from the charset that the client named
        raise Problem("bad_request", "The form is not in the charset that it names.") from None
    values: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in ("question", "questions"):
            values.setdefault("questions", []).append(value)
        elif name in values:
            raise Problem("invalid", f"{name[:40]!r} was given twice.")
        elif not isinstance(value, UploadFile):
            values[name] = value
        elif name == "image":
            values[name] = await value.read()
        else:
            raise Problem("invalid", f"{name[:40]!r} is a file; expected the file in 'image'.")
    await form.close()
    return values


def request_body(kind: type[BaseModel]) -> dict[str, Any]:
    """How OpenAPI describes what ``read`` reads."""
    schema = kind.model_json_schema()
    properties = {}
    for name, about in schema["properties"].items():
        # A form has no null: what is not given is not there.
        given = [choice for choice in about.get("anyOf", []) if choice != {"type": "null"}]
        rest = {k: v for k, v in about.items() if k not in ("anyOf", "default")}
        properties[name] = {**rest, **given[0]} if given else about
    file = {"type": "string", "format": "binary", "description": "A picture file."}
    properties["image"] = file
    form = {**schema, "properties": properties}
    content = {JSON: {"schema": schema}, FORM: {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}

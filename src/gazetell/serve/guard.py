"""What stands before the routes: the token, limits on what arrives, headers on what leaves.

An ASGI middleware, because limits have to hold before a request is in memory: the body is counted
as it comes, and a request that is too large, too slow, or one too many is sent away while its
bytes are still on the wire.
"""

import asyncio
import contextlib
import hmac
import logging
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .monitor import Monitor
from .options import ServeOptions
from .problems import Problem, answer_to, problem_of

__all__ = ["OPEN_PATHS", "Guard"]

log = logging.getLogger("gazetell.serve")
LINGER = 1.0  # seconds in which a refused request may still arrive
LEFT = 499  # in figures and log, of a request whose client left: as nginx has it

# Paths of the API that need no token: the page asks there whether one is needed.
OPEN_PATHS = ("/v1/models",)

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
        self.app, self.options, self.monitor = app, options, monitor
        self.token = token
        self.uploads = 0  # bytes of requests in memory
        self.waiting = 0  # requests that have arrived whole and are not yet answered
        monitor.queue.set_function(lambda: self.waiting)
        monitor.uploads.set_function(lambda: self.uploads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":  # what GET answers, without its body
            scope = {**scope, "method": "GET"}
        visit = _Visit(self, scope, receive, send, body=method != "HEAD")
        begin = time.monotonic()
        try:
            try:
                self._check(scope)
                await self.app(scope, visit.receive, visit.send)
            except ClientDisconnect:
                raise
            except Exception as error:
                await self._tell(error, visit)
        except ClientDisconnect:
            self.monitor.abandoned.inc()
            visit.status = visit.status or LEFT
        finally:
            visit.leave()
            # An unknown path is not a label: there are endlessly many.
            route = getattr(scope.get("route"), "path", "other")
            self.monitor.requests.labels(route, visit.status).inc()
            seconds = time.monotonic() - begin
            self.monitor.seconds.labels(route).observe(seconds)
            # Without the query: people put into addresses what does not belong there.
            path = scope["path"][:200]
            log.info("%s %r %s %.0f ms", method, path, visit.status, 1000 * seconds)

    async def _tell(self, error: Exception, visit: "_Visit") -> None:
        """Answer with a problem, unless an answer has begun."""
        problem = problem_of(error)
        if problem.code == "internal":
            log.error("a request failed", exc_info=error)
        if not visit.status:
            await visit.drain()
            self.monitor.rejected.labels(problem.code).inc()
            await answer_to(problem)(visit.scope, visit.receive, visit.send)

    def _check(self, scope: Scope) -> None:
        """Refuse what need not even be read.

        Raises:
            Problem: no token, too large, or one too many.
        """
        headers, path = Headers(scope=scope), scope["path"]
        if self.token and path.startswith("/v1/") and path not in OPEN_PATHS:
            given = headers.get("authorization", "")
            scheme, _, secret = given.partition(" ")
            same = hmac.compare_digest(secret.strip().encode(), self.token.encode())
            if not same or scheme.lower() != "bearer":
                raise Problem(
                    "unauthorized",
                    "Expected the header Authorization: Bearer with the token of this service.",
                    {"WWW-Authenticate": "Bearer"},
                )
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.options.body_bytes:
            raise self.too_large()
        if scope["method"] == "POST":
            self.check_room()

    def check_room(self) -> None:
        """Refuse one request more than may wait.

        Raises:
            Problem: there is no room.
        """
        if self.waiting >= self.options.queue:
            raise Problem(
                "queue_full",
                f"{self.options.queue} requests are waiting already; try again in a moment.",
                {"Retry-After": "1"},
            )

    def too_large(self) -> Problem:
        """The problem of a body over the limit."""
        limit = f"{self.options.body:g} MiB"
        return Problem("body_too_large", f"The request is larger than {limit}, the limit here.")


class _Visit:
    """A request on its way through the guard."""

    def __init__(
        self, guard: Guard, scope: Scope, receive: Receive, send: Send, *, body: bool
    ) -> None:
        self.guard, self.scope, self.body = guard, scope, body
        self._receive, self._send = receive, send
        self.taken, self.status = 0, 0
        self.complete = self.waits = False
        self.until = time.monotonic() + guard.options.receive_seconds

    async def receive(self) -> Message:
        """The next piece of the request, counted and in time.

        Raises:
            Problem: too large, too slow, or too much altogether.
        """
        if self.complete:
            return await self._receive()  # only to hear that the client left
        try:
            async with asyncio.timeout(max(0.0, self.until - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            seconds = self.guard.options.receive_seconds
            raise Problem(
                "receive_timeout", f"The request did not arrive within {seconds:g} seconds."
            ) from None
        if message["type"] != "http.request":
            return message
        size = len(message.get("body", b""))
        self.taken += size
        self.guard.uploads += size
        if self.taken > self.guard.options.body_bytes:
            raise self.guard.too_large()
        if self.guard.uploads > self.guard.options.uploads * 2**20:
            self._forget()  # at once: one that goes makes room for the others
            raise Problem("busy", "Too much is arriving at once; try again.", {"Retry-After": "1"})
        if not message.get("more_body", False):
            self.complete = True
            # Those that are still arriving do not count: slow clients fill no queue.
            if self.scope["method"] == "POST":
                self.guard.check_room()
                self.waits = True
                self.guard.waiting += 1
        return message

    async def send(self, message: Message) -> None:
        """Send with the headers that every response has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            policy = DOCS_POLICY if self.scope["path"] == "/docs" else PAGE_POLICY
            for name, value in {**HEADERS, "Content-Security-Policy": policy}.items():
                headers.setdefault(name, value)
            if self.scope["path"].startswith("/v1/"):
                headers.setdefault("Cache-Control", "no-store")
            if not self.complete and self.scope["method"] == "POST":
                # The rest of the request is not read: the connection is of no more use.
                headers["Connection"] = "close"
        elif not self.body:
            message = {**message, "body": b""}
        try:
            async with asyncio.timeout(self.guard.options.receive_seconds):
                await self._send(message)
        except TimeoutError:  # a client that does not read
            raise ClientDisconnect from None

    async def drain(self) -> None:
        """Let what is still arriving pass by, for a moment; nothing of it is kept.

        A connection that is closed with bytes unread is reset, and the client, still sending,
        would never see the response.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while self.scope["method"] == "POST" and not self.complete:
                    message = await self._receive()
                    self.complete = not message.get("more_body", False)

    def leave(self) -> None:
        """The request is answered, or its client left."""
        self._forget()
        self.guard.waiting -= self.waits

    def _forget(self) -> None:
        self.guard.uploads -= self.taken
        self.taken = 0

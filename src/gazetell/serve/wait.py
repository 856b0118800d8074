"""Waiting for a result as long as the client does, and no longer than is allowed."""

import asyncio
import time
from concurrent.futures import Future
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from .problems import Problem

__all__ = ["Wait"]

Result = TypeVar("Result")


class Wait:
    """The patience of one request, whose body has been read.

    Args:
        request: whose client waits.
        seconds: longest.
    """

    def __init__(self, request: Request, seconds: float) -> None:
        self.request, self.seconds = request, seconds
        self.begin = time.monotonic()
        self.end = self.begin + seconds

    async def until(self, future: "Future[Result]") -> Result:
        """The result of a future; it is cancelled when nobody waits for it any more.

        Raises:
            Problem: the time is over.
            ClientDisconnect: the client left.
        """
        wanted = asyncio.wrap_future(future)
        # One pending receive, not a look now and then: each would let more bytes in.
        left = asyncio.ensure_future(self._left())
        try:
            remaining = max(0.0, self.end - time.monotonic())
            both: set[asyncio.Future[Any]] = {wanted, left}
            await asyncio.wait(both, timeout=remaining, return_when="FIRST_COMPLETED")
            if wanted.done():
                return wanted.result()
            if left.done():
                raise ClientDisconnect
            raise TimeoutError
        except TimeoutError:
            allowed = f"{self.seconds:g} seconds"
            raise Problem("timeout", f"No answer within {allowed}; try again later.") from None
        finally:
            left.cancel()
            wanted.cancel()

    async def _left(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass

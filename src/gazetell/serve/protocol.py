"""HTTP on a connection, with an end to waiting for a request's head.

uvicorn waits for ever for the first request of a connection, and for the rest of a head that has
begun; silent connections would take all file descriptors in the end. Its h11 protocol is named
here and not left to what is installed: it bounds the size of a head, the faster one does not.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["protocol"]


class _Prompt(H11Protocol):
    """Closes a connection on which no request begins in time."""

    patience = 20.0  # seconds
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._waiting():
            self._wait()
        else:
            self._stop()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _waiting(self) -> bool:
        """Whether no request is being read or answered."""
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.patience, self._late)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._waiting() and not self.transport.is_closing():
            self.transport.close()


def protocol(seconds: float) -> type[H11Protocol]:
    """A protocol for ``uvicorn.Config(http=...)`` that waits so long for the head of a request."""
    return type("Prompt", (_Prompt,), {"patience": seconds})

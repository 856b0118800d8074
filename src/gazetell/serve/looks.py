"""Pictures that were looked at, kept for a while: a client sends one once and asks on.

The handle is the beginning of the SHA-256 of the file that was sent: the same file has the same
handle, and who does not have the file cannot guess it. Kept are the grids, not the picture.
"""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..models.encoders import Grid

__all__ = ["Held", "LookStore", "handle_of"]


@dataclass(eq=False)
class Held:
    """A picture in the house.

    Attributes:
        pixels: uint8 (3, S, S) for each encoder (by fingerprint) that has not seen it yet.
        grids: of one picture, for each encoder that has.
    """

    pixels: dict[str, np.ndarray] = field(default_factory=dict)
    grids: dict[str, Grid] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        grids = (x for grid in self.grids.values() for x in (grid.cells, grid.pooled))
        return sum(p.nbytes for p in self.pixels.values()) + sum(
            x.nelement() * x.element_size() for x in grids
        )


def handle_of(content: bytes) -> str:
    """The handle of a picture file."""
    return hashlib.sha256(content).hexdigest()[:40]


class LookStore:
    """Held pictures by handle, bounded in bytes and in time; the least used leave first.

    Args:
        most: bytes that are kept.
        seconds: after the last use.
        clock: tells the seconds.
    """

    def __init__(
        self, most: float, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most, self.seconds, self.clock = most, seconds, clock
        self._held: OrderedDict[str, tuple[float, int, Held]] = OrderedDict()
        self._lock = threading.Lock()
        self.size = 0

    def __len__(self) -> int:
        return len(self._held)

    def put(self, handle: str, held: Held) -> None:
        """Keep a picture that all encoders have seen."""
        with self._lock:
            self._drop(handle)
            self._held[handle] = (self.clock() + self.seconds, held.size, held)
            self.size += held.size
            while self.size > self.most and len(self._held) > 1:
                self._drop(next(iter(self._held)))
            self._sweep()

    def get(self, handle: str) -> Held | None:
        """The picture, whose time begins anew; None if it left or never was."""
        with self._lock:
            self._sweep()
            if handle not in self._held:
                return None
            _, size, held = self._held[handle]
            self._held[handle] = (self.clock() + self.seconds, size, held)
            self._held.move_to_end(handle)
            return held

    def measure(self) -> tuple[int, int]:
        """How many there are, and their bytes, once those have gone whose time is over."""
        with self._lock:
            self._sweep()
            return len(self._held), self.size

    def _sweep(self) -> None:
        now = self.clock()
        # All have the same time to live and the last used stand last: the first expire first.
        while self._held and next(iter(self._held.values()))[0] <= now:
            self._drop(next(iter(self._held)))

    def _drop(self, handle: str) -> None:
        if handle in self._held:
            self.size -= self._held.pop(handle)[1]

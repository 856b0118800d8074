"""The process: the memory that it keeps and takes, how far it is, how long it will take."""

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

KEPT = 512 << 20  # bytes
FIRST, EVERY = 3.0, 60.0  # seconds to the first line about the time that is left, and to the next
# The same for a process that has yet to start, where its threads will compute.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(KEPT),
}
# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_memory() -> None:
    """Keep up to ``KEPT`` freed bytes instead of giving them back to the system at once.

    A CNN takes and frees tensors of some MB in each layer. glibc gives large ones back when they
    are freed, and the system has to clear each page of the next: encoding pictures then takes up to
    twice as long. Does nothing where the C library is another one, or where a variable
    ``MALLOC_...`` says otherwise.

    References:
        mallopt(3).
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_ARENA_MAX, 1)  # a thread's own memory is mapped in pieces, which are given back
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, KEPT)


def peak_memory() -> int:
    """Bytes that the process held in memory at most, so far.

    What the kernel says of this program: the ``ru_maxrss`` of a child counts its parent's, too.
    """
    try:
        with open("/proc/self/status") as file:
            return 1024 * int(next(x for x in file if x.startswith("VmHWM:")).split()[1])
    except (OSError, StopIteration):  # no Linux
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Pace:
    """How long work will take, by how long it took since the first call.

    Attributes:
        left: the time that is left, in words; empty as long as that cannot be told.
    """

    left = ""

    def __init__(self) -> None:
        self._begun: tuple[int, float] | None = None
        self._told = 0.0

    def __call__(self, done: int, total: int) -> str:
        """``left`` where it is time to tell it: once it is known, then once a minute."""
        now = time.monotonic()
        # What was done before is another run's work, or warmed up.
        before, began = self._begun = self._begun or (done, now)
        if done == before or now - began < FIRST:
            return ""
        seconds = (total - done) * (now - began) / (done - before)
        self.left = f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
        self.left = f"{seconds:.0f} s" if seconds < 90 else self.left
        if done == total or (self._told and now - self._told < EVERY):
            return ""
        self._told = now
        return self.left


@contextmanager
def bar(
    title: str, show: bool, report: Callable[[str], None] | None = None
) -> Iterator[Callable[[int, int], None]]:
    """One progress bar for all that takes time, on standard error.

    Gives a function to call with (done, total). Unless ``show`` it draws nothing, and ``report``
    takes a line a minute.
    """
    pace = Pace()

    def tell(done: int, total: int) -> None:
        if report and (left := pace(done, total)):
            report(f"{title}: {done} of {total}, about {left} left")

    if not show:
        yield tell
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)

"""The process: its memory, the signals that end it, how far it is and how long it will take."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer, current_thread, main_thread
from typing import Any

from .errors import GazetellError

STOP = (signal.SIGINT, signal.SIGTERM)
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


@contextmanager
def _handled(numbers: tuple[int, ...], handler: Callable[..., Any]) -> Iterator[None]:
    """Handle signals so until the block ends; only the main thread may."""
    if current_thread() is not main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, each in before.items():
            signal.signal(number, signal.SIG_DFL if each is None else each)


@contextmanager
def interrupted_by(*numbers: int) -> Iterator[list[int]]:
    """The first of these signals ends the block as Ctrl-C does, any further one does nothing.

    Schedulers and ``timeout`` send SIGTERM, and often twice: to the process and to its group.
    Gives the signals that came.
    """
    came: list[int] = []
    hook = sys.unraisablehook

    def interrupt(number: int, _: Any) -> None:
        came.append(number)
        if len(came) == 1:
            raise KeyboardInterrupt

    def again(unraised: Any) -> None:
        """Python loses an interrupt within ``__del__``, where a loader waits for its workers."""
        if unraised.exc_type is not KeyboardInterrupt:
            hook(unraised)
            return
        number = came[-1] if came else signal.SIGINT
        came.clear()
        Timer(0.05, os.kill, (os.getpid(), number)).start()

    sys.unraisablehook = again
    try:
        with _handled(numbers, interrupt):
            yield came
    finally:
        sys.unraisablehook = hook


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block ends, for this process and those it starts there.

    Half a start would leave processes behind. What is started says by ``listen`` that it can take
    them.
    """
    late: list[int] = []
    block: Any = getattr(signal, "pthread_sigmask", lambda *_: set())  # Windows has no such mask
    with _handled(STOP, lambda number, _: late.append(number)):
        before = block(getattr(signal, "SIG_BLOCK", 0), STOP)
        try:
            yield
        finally:
            block(getattr(signal, "SIG_SETMASK", 0), before)
    for number in late:
        signal.raise_signal(number)


def listen() -> None:
    """Take the signals that waited since this process was started."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)


def begin_worker(_: int) -> None:
    """Begin a process that only works for its parent, which hears the same signals and decides.

    Ctrl-C does nothing to it, and SIGTERM ends it as if it were done.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    listen()


@contextmanager
def worker_errors(after: str = "") -> Iterator[None]:
    """Make one line of what torch says where a worker of a loader was killed.

    Raises:
        GazetellError: with ``after`` at its end.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        reason = str(error).partition(". ")[0]
        raise GazetellError(
            f"a process that opens pictures has ended ({reason}); fewer --workers need less "
            f"memory{after}"
        ) from error


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

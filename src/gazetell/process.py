"""The process: the memory that it keeps, and how far it is."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

KEPT = 512 << 20  # bytes
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


@contextmanager
def bar(title: str, show: bool) -> Iterator[Callable[[int, int], None]]:
    """One progress bar for all that takes time, on standard error.

    Gives a function to call with (done, total); it draws nothing unless ``show``.
    """
    if not show:
        yield lambda done, total: None
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

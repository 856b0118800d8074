"""The engine: pictures in memory, and one thread that answers many requests at once.

Requests wait in a queue. The thread takes what has gathered, a few milliseconds after the first
came at the latest: pictures that no one has encoded yet go through the CNN together, then equal
works (of one kind, for one model, with the same options) go through it together. Whoever left in
the meantime (a cancelled future) is dropped before any work is done.

One thread, because a forward pass uses all cores (or the GPU) by itself: two at once would only
fight over them.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from ..features import Model
from ..models.encoders import Grid
from ..pictures import PREVIEW, LoadedPicture, open_image
from .guard import Monitor, ServeOptions

log = logging.getLogger("gazetell.serve")


@dataclass(eq=False)
class StoredPicture:
    """A picture in memory.

    Attributes:
        pixels: uint8 (3, S, S) for each encoder (by fingerprint) that has not encoded it yet.
        shape: its width and height.
        grids: of one picture, for each encoder that has.
    """

    pixels: dict[str, np.ndarray]
    shape: tuple[int, int] = (1, 1)
    grids: dict[str, Grid] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of memory."""
        grids = sum(grid.nbytes for grid in self.grids.values())
        return grids + sum(pixels.nbytes for pixels in self.pixels.values())


@dataclass(frozen=True)
class Work:
    """What is asked about a picture: by itself, only to encode it. Equal ones run together.

    Attributes:
        stage: its name in the figures.
        model: whose work it is; None for the encoders of all.
    """

    stage: ClassVar[str] = ""
    model: Model | None

    @property
    def size(self) -> int:
        """What it adds to the size of a batch."""
        return 1

    def run(self, works: Sequence[Any], grid: Grid) -> Sequence[Any]:
        """The results of several equal works; row ``b`` of the grid is of work ``b``."""
        raise NotImplementedError


class Done(NamedTuple):
    """What became of a request: its result, and the seconds it waited and ran."""

    result: Any
    wait: float
    run: float


class _Task(NamedTuple):
    picture: StoredPicture
    work: Work
    future: "Future[Done]"
    arrived: float


class Failed(Exception):
    """A batch that could not be answered; the log says why, and ``__cause__``."""


class Engine:
    """Runs the models for everyone.

    Args:
        models: those with the same encoder share what it makes.
        options: limits.
        monitor: is told the sizes of batches.

    Attributes:
        failure: why the models can answer no more; None while they can.
        on_failure: is called when they cannot.
    """

    def __init__(self, models: Sequence[Model], options: ServeOptions, monitor: Monitor) -> None:
        self.options, self.monitor = options, monitor
        self.encoders = {model.fingerprint: model for model in models}
        self.failure: BaseException | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self._openers = ThreadPoolExecutor(options.openers, "gazetell-open")
        self._queue: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._answer, name="gazetell-engine", daemon=True)

    async def open(self, image: bytes, work: Work) -> StoredPicture:
        """The picture of a file, ready for the encoders of some work; ImageError if it is none."""
        models = [work.model] if work.model else list(self.encoders.values())

        def opened() -> StoredPicture:
            side = max(PREVIEW, *(model.encoder.size for model in models))  # as captioning
            picture = open_image(image, side=side, max_pixels=self.options.max_pixels)
            pixels = {m.fingerprint: m.encoder.frame.pixels(picture) for m in models}
            return StoredPicture(pixels, picture.size)

        return await asyncio.get_running_loop().run_in_executor(self._openers, opened)

    async def run(self, picture: StoredPicture, work: Work) -> Done:
        """What the models make of a picture; given up when nobody waits for it any more."""
        task = _Task(picture, work, Future(), time.monotonic())
        self._queue.put(task)
        return await asyncio.wrap_future(task.future)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Finish what was taken in, then stop."""
        self._openers.shutdown(cancel_futures=True)
        self._queue.put(None)
        self._thread.join()

    def fail(self, error: BaseException) -> None:
        """From now on nothing is answered."""
        log.error("the models failed", exc_info=error)
        self.failure = error
        self.on_failure()

    def _answer(self) -> None:
        if self.options.threads:
            torch.set_num_threads(self.options.threads)
        while self._answer_batch():
            pass

    def _answer_batch(self) -> bool:
        """Answer what has gathered; whether there may be more. Nothing of it is kept."""
        task, tasks = self._queue.get(), list[_Task]()
        until = time.monotonic() + self.options.gather / 1000
        while task is not None:
            tasks.append(task)
            left = until - time.monotonic()
            try:
                if len(tasks) == self.options.batch:
                    break
                task = self._queue.get(timeout=left) if left > 0 else self._queue.get_nowait()
            except queue.Empty:
                break
        self._run(tasks)
        return task is not None

    def _run(self, tasks: Sequence[_Task]) -> None:
        begin = time.monotonic()
        groups: dict[Work, list[_Task]] = defaultdict(list)
        with self._refusing(tasks):
            if self.failure is not None:
                raise self.failure
            tasks = [task for task in tasks if not task.future.cancelled()]
            self._encode(tasks)
            for task in tasks:
                groups[task.work].append(task)
        for work, group in groups.items():
            # Those before may have taken long: whoever left meanwhile is dropped.
            live = [task for task in group if task.future.set_running_or_notify_cancel()]
            with self._refusing(live):
                results: Sequence[Any] = [None] * len(live)
                if live and work.model:
                    works, name = [task.work for task in live], work.model.fingerprint
                    grid = Grid.join([task.picture.grids[name] for task in live])
                    self.monitor.batch(work.stage, sum(one.size for one in works))
                    results = work.run(works, grid)
                run = time.monotonic() - begin
                for task, result in zip(live, results, strict=True):
                    task.future.set_result(Done(result, begin - task.arrived, run))

    def _encode(self, tasks: Sequence[_Task]) -> None:
        """Grids of the pictures that an encoder has not seen, each picture once."""
        for name, model in self.encoders.items():
            wanting = [x.picture for x in tasks if (x.work.model or model).fingerprint == name]
            pictures = list({id(x): x for x in wanting if name not in x.grids}.values())
            if not pictures:
                continue
            self.monitor.batch("encode", len(pictures))
            grid = model.see([LoadedPicture(x.pixels[name], x.shape, None) for x in pictures])
            for n, picture in enumerate(pictures):
                picture.grids[name] = grid.rows(n, n + 1).copied()
                del picture.pixels[name]

    @contextmanager
    def _refusing(self, tasks: Sequence[_Task]) -> Iterator[None]:
        """Tell these tasks of an error, and let others go on."""
        try:
            yield
        except BaseException as error:  # a panic in Rust is no Exception
            log.error("a batch of %s failed", len(tasks), exc_info=error)
            failed = Failed(type(error).__name__)
            failed.__cause__ = error
            for task in tasks:
                with suppress(InvalidStateError):  # it is answered, or its client left
                    task.future.set_exception(failed)
            if isinstance(error, torch.AcceleratorError) and self.failure is None:
                self.fail(error)  # such a device computes nothing any more

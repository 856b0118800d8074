"""The engine: one thread that owns the models and answers many requests at once.

Requests wait in a queue. The engine takes what has gathered, a few milliseconds after the first
came at the latest, and runs each model once for all of them: pictures that no one has encoded yet
go through the CNN together, captions with the same options are decoded together, questions to the
same model are answered together. Who left in the meantime (a cancelled future, a deadline that
passed) is dropped before any work is done.

One thread, because a forward pass uses all cores (or the GPU) by itself: two at once would only
fight over them.
"""

import logging
import math
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from ..data.text import Question
from ..errors import ModelError
from ..features import Model
from ..inference.predict import Answer, Answerer, Caption, Captioner
from ..models.decoding import DecodingOptions
from ..models.encoders import Grid
from .looks import Held

__all__ = ["Ask", "Done", "Engine", "Failed", "Look", "Observer", "Task", "Tell"]

log = logging.getLogger("gazetell.serve")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Tell:
    """Caption a picture: the ``count`` best captions."""

    model: Captioner
    options: DecodingOptions
    count: int = 1


@dataclass(frozen=True)
class Ask:
    """Answer questions about a picture."""

    model: Answerer
    questions: Sequence[Question]
    abstain_below: float = 0.0
    evidence: bool = False


@dataclass(frozen=True)
class Look:
    """Encode a picture for all models, and keep it."""


@dataclass(frozen=True)
class Done(Generic[Result]):
    """What became of a request: its result, and the seconds it waited and ran."""

    result: Result
    wait: float
    run: float


@dataclass(eq=False)
class Task:
    """A request in the queue."""

    held: Held
    work: Tell | Ask | Look
    deadline: float
    future: "Future[Done[Any]]" = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)

    def lookers(self, everyone: Sequence[Model]) -> Sequence[Model]:
        """Whose encoders must have seen the picture."""
        return everyone if isinstance(self.work, Look) else (self.work.model,)


class Failed(Exception):
    """A batch that could not be answered; the log says why."""


class Observer(Protocol):
    """What is told how large the batches are."""

    def batch(self, stage: str, size: int) -> None:
        """So many pictures or questions went through a stage together."""


class Engine:
    """Runs the models for everyone.

    Args:
        models: captioners and answerers; those with the same encoder share what it makes.
        batch: most requests at once.
        gather: seconds that the first request of a batch waits for others.
        observer: is told the sizes of the batches.
    """

    def __init__(
        self,
        models: Sequence[Captioner | Answerer],
        *,
        batch: int = 32,
        gather: float = 0.003,
        observer: Observer | None = None,
    ) -> None:
        self.models, self.batch, self.gather, self.observer = models, batch, gather, observer
        # One of each encoder.
        self.lookers = list({model.fingerprint: model for model in models}.values())
        self.ready = threading.Event()
        self.attentive: dict[int, bool] = {}  # by id of the model, once warm
        self._queue: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="gazetell-engine", daemon=True)
        self._closed = threading.Lock()
        self._open = True
        self.failure: BaseException | None = None  # why the models can answer no more
        self.on_failure: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin: the models are warmed up, then ``ready`` is set."""
        self._thread.start()

    def submit(self, task: Task) -> "Future[Done[Any]]":
        """Queue a request.

        Raises:
            RuntimeError: after ``close``.
        """
        with self._closed:
            if not self._open:
                raise RuntimeError("the engine is closed")
            self._queue.put(task)
        return task.future

    def close(self) -> None:
        """Finish what was taken in, then stop."""
        with self._closed:
            if not self._open:
                return
            self._open = False
            self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        try:
            self._warm()
            self.ready.set()
            while self._batch():
                pass
        except BaseException as error:
            log.error("the models failed", exc_info=error)
            with self._closed:
                self._open, self.failure = False, error
            while not self._queue.empty():
                task = self._queue.get()
                if task is not None and task.future.set_running_or_notify_cancel():
                    task.future.set_exception(Failed(type(error).__name__))
            self.on_failure()

    def _batch(self) -> bool:
        """Answer one batch; whether there may be another. Nothing of it is kept."""
        tasks, last = self._gathered()
        live = [task for task in tasks if self._wanted(task)]
        if live:
            self._run(live)
        return not last

    def _warm(self) -> None:
        """A first pass through every model: memory is taken and kernels are chosen now."""
        for model in self.models:
            size = model.encoder.size
            grid = model.grid(torch.full((1, 3, size, size), 128, dtype=torch.uint8))
            if isinstance(model, Captioner):
                seen: Caption | Answer = model.decode(grid, model.decoding)[0]
            else:
                model.blank()
                seen = model.answer(grid, ["what is this?"], torch.zeros(1, dtype=torch.long))[0]
            self.attentive[id(model)] = seen.attention is not None
            sure = seen.log_prob if isinstance(seen, Caption) else seen.confidence
            if not math.isfinite(sure):
                raise ModelError("a model computes no finite numbers: its weights are damaged")

    def _gathered(self) -> tuple[list[Task], bool]:
        """The next batch, and whether it is the last."""
        first = self._queue.get()
        if first is None:
            return [], True
        tasks, until = [first], time.monotonic() + self.gather
        while len(tasks) < self.batch:
            try:
                left = until - time.monotonic()
                task = self._queue.get(timeout=left) if left > 0 else self._queue.get_nowait()
            except queue.Empty:
                break
            if task is None:
                return tasks, True
            tasks.append(task)
        return tasks, False

    def _wanted(self, task: Task) -> bool:
        """Whether somebody still waits for it."""
        return task.future.set_running_or_notify_cancel() and self._in_time(task)

    def _in_time(self, task: Task) -> bool:
        """Whether its deadline lies ahead; else it is answered with that."""
        if time.monotonic() <= task.deadline:
            return True
        task.future.set_exception(TimeoutError())
        return False

    def _run(self, tasks: list[Task]) -> None:
        begin = time.monotonic()
        try:
            self._encode(tasks)
        except BaseException as error:  # a panic in Rust is no Exception
            self._fail(tasks, error)
            return
        groups: dict[Hashable, list[Task]] = defaultdict(list)
        for task in tasks:
            groups[_key(task.work)].append(task)
        for group in groups.values():
            # Those before may have taken long.
            live = [task for task in group if self._in_time(task)]
            if not live:
                continue
            try:
                found = self._group(live)
            except BaseException as error:
                self._fail(live, error)
                continue
            run = time.monotonic() - begin
            for task, result in zip(live, found, strict=True):
                task.future.set_result(Done(result, wait=begin - task.arrived, run=run))

    def _fail(self, tasks: Sequence[Task], error: BaseException) -> None:
        log.error("a batch of %s failed", len(tasks), exc_info=error)
        for task in tasks:
            task.future.set_exception(Failed(type(error).__name__))
        # Such a device computes nothing any more: every later batch would fail like this one.
        if isinstance(error, torch.AcceleratorError):
            raise error

    def _encode(self, tasks: Sequence[Task]) -> None:
        """Grids of the pictures that an encoder has not seen, each picture once."""
        for looker in self.lookers:
            name = looker.fingerprint
            new = {
                id(task.held): task.held
                for task in tasks
                if name not in task.held.grids
                and any(wanted.fingerprint == name for wanted in task.lookers(self.lookers))
            }
            if not new:
                continue
            self._observe("encode", len(new))
            helds = list(new.values())
            pixels = torch.from_numpy(np.stack([held.pixels[name] for held in helds]))
            grid = looker.grid(pixels)
            for n, held in enumerate(helds):
                # A copy: a row of the batch would keep the whole batch in memory.
                one = grid.rows(n, n + 1)
                held.grids[name] = one._replace(cells=one.cells.clone(), pooled=one.pooled.clone())
                del held.pixels[name]

    def _group(self, tasks: Sequence[Task]) -> list[Any]:
        """The results of tasks that go through a model together."""
        work = tasks[0].work
        if isinstance(work, Look):
            return [None] * len(tasks)
        grid = Grid.join([task.held.grids[work.model.fingerprint] for task in tasks])
        if isinstance(work, Tell):
            self._observe("caption", len(tasks))
            captions: list[list[Caption]] = work.model.decode_best(grid, work.options, work.count)
            return captions
        asked = [task.work for task in tasks if isinstance(task.work, Ask)]
        questions = [question for ask in asked for question in ask.questions]
        self._observe("answer", len(questions))
        owner = torch.arange(len(asked)).repeat_interleave(
            torch.tensor([len(ask.questions) for ask in asked])
        )
        answers = iter(work.model.answer(grid, questions, owner, evidence=work.evidence))
        return [[_judged(next(answers), ask.abstain_below) for _ in ask.questions] for ask in asked]

    def _observe(self, stage: str, size: int) -> None:
        if self.observer:
            self.observer.batch(stage, size)


def _key(work: Tell | Ask | Look) -> Hashable:
    """Equal for requests that can go through a model together."""
    if isinstance(work, Tell):
        return id(work.model), work.options, work.count
    if isinstance(work, Ask):
        return id(work.model), work.evidence
    return None


def _judged(answer: Answer, bound: float) -> Answer:
    return replace(answer, abstained=answer.confidence < bound)

"""Several devices: one process for each, a rank; who computes what, who writes, and how they end.

``--devices N`` starts the ranks of one machine by ``torch.multiprocessing``: each is a fresh
process that is told its place as torchrun would tell it. Lightning's own launcher runs the command
line again, which a notebook, a script or ``gazetell reproduce`` cannot have; and it leaves the
others alone where the first process is killed. torchrun and srun start the ranks themselves.

Each rank reads the data and builds the model; rank 0 alone writes and reports. What a rank says to
the others besides gradients goes through a group of its own on the CPU, whose patience does not
end: a pass over all pictures may take hours.

The loss of a step is a mean over the words of all ranks, as if one process had them all. DDP takes
the mean of the W ranks' gradients, so rank r multiplies the mean over its own M_r words by::

    W M_r / sum_s M_s
"""

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from lightning.pytorch import callbacks
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy
from torch import Tensor, nn
from torch.multiprocessing.spawn import (
    ProcessException,
    ProcessExitedException,
    start_processes,
)
from torch.utils.data import Sampler

from ..errors import GazetellError, OtherRankError, UsageError
from ..models.precision import choose_device
from ..process import STOP, interrupted_by, keep_memory, listen, undisturbed
from .options import TrainOptions
from .task import Report, Terms

T = TypeVar("T")
FOREVER = timedelta(days=365)
# How long ranks may take to end by themselves when one of them is gone, in seconds.
GRACE = 5.0
INTERRUPTED = 130  # the exit status
# Where other launchers say how many processes they started.
OTHERS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


@dataclass
class Ranks:
    """The processes that train together, and which of them this one is.

    Attributes:
        device: the kind of device of each.
        environment: who started them.
        devices: on each machine, one a process.
        nodes: machines.
        rank: of this process, from 0.
        local: the same among those of its machine.
        started: whether they run already; else ``launch`` starts them.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    environment: ClusterEnvironment = field(default_factory=LightningEnvironment)
    devices: int = 1
    nodes: int = 1
    rank: int = 0
    local: int = 0
    started: bool = True
    _group: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: a copy of the weights has the same company."""
        return self

    @property
    def world(self) -> int:
        """How many there are."""
        return self.devices * self.nodes

    @property
    def first(self) -> bool:
        """Whether this one writes and reports."""
        return self.rank == 0

    @contextmanager
    def joined(self, out: Path, report: Report) -> Iterator[None]:
        """Meet the other ranks, and part when all are done.

        Raises:
            OtherRankError: another rank failed, which says why, or is gone.
        """
        if self.world == 1:
            yield
            return
        log = logging.getLogger("gazetell")
        before = log.level
        try:
            if not self.first:
                log.setLevel(logging.CRITICAL)
            self._meet()
            yield
        except RuntimeError as error:
            lost = isinstance(error, dist.DistError) or "gloo" in str(error).lower()
            if not lost:
                raise
            report(f"another process of this training has ended or cannot be reached{go_on(out)}")
            raise OtherRankError("another process of this training has ended") from error
        finally:
            log.setLevel(before)
        dist.destroy_process_group()

    def _meet(self) -> None:
        """Open the group of gradients, which Lightning then uses, and our own."""
        where = self.environment.main_address, str(self.environment.main_port)
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = where
        cuda = torch.device("cuda", self.local) if self.device.type == "cuda" else None
        if cuda:
            torch.cuda.set_device(cuda)
            self.device = cuda
        dist.init_process_group(
            "nccl" if cuda else "gloo", rank=self.rank, world_size=self.world, device_id=cuda
        )
        self._group = dist.new_group(backend="gloo", timeout=FOREVER)

    def gathered(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self._group)
        return values

    @contextmanager
    def together(self) -> Iterator[None]:
        """Leave a block when all ranks do; what one raises ends all, and only that one says it."""
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            failed = error
        failures = self.gathered(failed is not None)
        if any(failures) and failures.index(True) != self.rank:
            raise OtherRankError(f"process {failures.index(True) + 1} of {self.world} failed")
        if failed:
            raise failed

    def once(self, compute: Callable[[], T]) -> T:
        """What the first rank computes, on all."""
        result: list[Any] = [None]
        with self.together():
            if self.first:
                result = [compute()]
        return self.gathered(result[0])[0]

    def mean(self, terms: Terms, idle: bool) -> tuple[Tensor, Tensor]:
        """A loss to learn from, and its value over all ranks to show.

        Args:
            terms: of the loss: each a mean, and over how many words, captions or questions.
            idle: the batch belongs to another rank, and is here for company.
        """
        if self.world == 1:
            loss = torch.stack([value for value, _ in terms]).sum()
            return loss, loss.detach()
        means = torch.stack([value.float() for value, _ in terms])
        counts = means.new_tensor([0.0 if idle else count for _, count in terms])
        total = torch.stack((counts, counts * means.detach()))
        dist.all_reduce(total)
        every = total[0].clamp(min=1)
        return (means * (counts * self.world / every)).sum(), (total[1] / every).sum()

    def strategy(self, chosen: str, network: nn.Module) -> Strategy | Literal["auto"]:
        """Lightning's strategy for a network."""
        if self.world == 1:
            return "auto"
        if chosen == "fsdp":
            return FSDPStrategy()
        # Each rank's batch norms see other pictures: the statistics of the first are kept.
        return DDPStrategy(broadcast_buffers=normalises(network), gradient_as_bucket_view=True)


def find_ranks(options: TrainOptions) -> Ranks:
    """The ranks that options and launcher ask for, and which this process is.

    Raises:
        UsageError: devices that are not there, or options that do not fit together.
    """
    device = choose_device(options.device)
    devices, nodes = options.devices or 1, options.nodes or 1
    environment = _launcher()
    if environment:
        world = environment.world_size()
        name = "SLURM_NNODES" if isinstance(environment, SLURMEnvironment) else "LOCAL_WORLD_SIZE"
        number = int(os.environ.get(name, 1))
        nodes = number if name == "SLURM_NNODES" else world // number
        devices = world // nodes
        found = {"devices": (options.devices, devices), "nodes": (options.nodes, nodes)}
        for name, (asked, there) in found.items():
            if asked not in (None, there):
                raise UsageError(f"--{name} {asked}: the launcher started {there}")
    elif nodes > 1:
        raise UsageError(f"--nodes {nodes}: expected a start by torchrun or srun on each node")
    if devices * nodes > 1:
        if device.type not in ("cpu", "cuda"):
            raise UsageError(f"--devices {devices}: there is only one {device.type}; expected 1")
        if device.index is not None:
            raise UsageError(f"--devices {devices}: --device {device} is a single one")
        if device.type == "cuda" and devices > (here := torch.cuda.device_count()):
            raise UsageError(f"--devices {devices}: this machine has {here} GPUs")
        if options.batch < devices * nodes:
            said = f"fewer pictures per step than {devices * nodes} devices"
            raise UsageError(f"--batch {options.batch}: {said}; expected at least one per device")
    elif options.strategy != "auto":
        raise UsageError(f"--strategy {options.strategy}: needs more than one device")
    if options.strategy == "fsdp":
        if device.type != "cuda":
            raise UsageError(f"--strategy fsdp: needs GPUs with CUDA, not {device.type}")
        if options.ema:
            raise UsageError(f"--ema {options.ema}: needs whole weights; expected --strategy ddp")
    if environment is None:
        return Ranks(device, devices=devices, started=devices == 1)
    rank, local = environment.global_rank(), environment.local_rank()
    return Ranks(device, environment, devices, nodes, rank, local)


def _launcher() -> ClusterEnvironment | None:
    """Who started this process as one of several, if somebody did.

    Raises:
        UsageError: a launcher that is not known here: its processes would write one folder.
    """
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    # Not SLURM_NTASKS: an allocation of several tasks may run one process.
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        try:
            return SLURMEnvironment(auto_requeue=False)
        except RuntimeError as error:
            raise UsageError(f"srun: {error}") from error
    for name in OTHERS:
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value) > 1:
            raise UsageError(
                f"{name}={value}: a launcher started {value} processes; expected torchrun or srun, "
                "or one process and --devices"
            )
    return None


def silent(line: str) -> None:
    """Takes the reports of the other ranks."""


def go_on(out: Path) -> str:
    """The end of a line about a run that ended too soon."""
    begun = (out / "training.json").is_file()
    best = (out / "checkpoints" / "best.ckpt").is_file()
    end = f", or take the best model so far: gazetell train --finish {out}" if best else ""
    return f"; go on with: gazetell train --resume {out}{end}" if begun else ""


def stopping(out: Path, trained: int) -> str:
    """The line about a run that was interrupted after so many epochs, of which one can be kept."""
    return (
        f"stopped after epoch {trained}; the best model so far is being written to {out} (Ctrl-C "
        f"again leaves that to: gazetell train --finish {out}); go on with: gazetell train "
        f"--resume {out}"
    )


class _Forward(QueueHandler):
    """Sends warnings to the process that started the ranks."""

    queue: Any

    def enqueue(self, record: logging.LogRecord) -> None:
        """Wait for no thread of its own, as a simple queue has none."""
        self.queue.put(record)


def launch(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    count: int,
    out: Path,
    report: Report,
    bar: bool,
) -> None:
    """Run ``function(*arguments, report=..., progress=...)`` as so many ranks, and wait for them.

    Args:
        function: can be imported; finds its place by ``find_ranks``.
        arguments: can be pickled.
        count: of the ranks.
        out: the run folder.
        report: takes what the first of them reports.
        bar: show a progress bar.

    Raises:
        GazetellError: of the first rank that failed, or that a rank was killed.
    """
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    given = (function, arguments, count, find_free_network_port(), queue, bar)
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    errors: list[GazetellError] = []
    ranks: Any = None
    try:
        with undisturbed():
            ranks = start_processes(_run_rank, given, nprocs=count, join=False)
        while not ranks.join(0.1, grace_period=GRACE):
            _listen(queue, report, errors)
        _listen(queue, report, errors)
    except ProcessException as error:
        _listen(queue, silent, errors)
        if own := [each for each in errors if not isinstance(each, OtherRankError)]:
            raise own[0] from None
        codes = [process.exitcode or 0 for process in ranks.processes]
        if not isinstance(error, ProcessExitedException):
            raise
        who = error.error_index
        # Those that hang without another are interrupted by join.
        if codes[who] == INTERRUPTED or (errors and INTERRUPTED in codes and min(codes) >= 0):
            raise KeyboardInterrupt from None
        if errors and codes[who] > 0:  # it only lost the others; join sends SIGTERM to who is left
            who = min(range(count), key=lambda n: (codes[n] >= 0, codes[n] == -signal.SIGTERM))
        status = codes[who]
        how = "could not begin" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
        raise GazetellError(f"process {who + 1} of {count} {how}{go_on(out)}") from None
    except RuntimeError as error:
        if "bootstrapping" not in str(error):
            raise
        raise UsageError(
            f"--devices {count}: each process runs the whole script; expected the training below "
            "if __name__ == '__main__':"
        ) from error
    finally:
        _end(ranks.processes if ranks else ())


def _end(processes: Sequence[Any]) -> None:
    """End ranks: with their own workers, files and locks if they can, else at once."""
    patience = time.monotonic() + GRACE
    try:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(max(0.0, patience - time.monotonic()))
    finally:
        for process in processes:
            process.kill()
            process.join()


def _listen(queue: Any, report: Report, errors: list[GazetellError]) -> None:
    """Pass on what the ranks have said."""
    while not queue.empty():
        said = queue.get()
        if isinstance(said, GazetellError):
            errors.append(said)
        elif isinstance(said, logging.LogRecord):
            logging.getLogger(said.name).handle(said)
        else:
            report(said)


def _run_rank(
    rank: int,
    function: Callable[..., Any],
    arguments: Sequence[Any],
    count: int,
    port: int,
    queue: Any,
    bar: bool,
) -> None:
    """One of the ranks, in its own process."""
    place: dict[str, Any] = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
    }
    place |= {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ["TORCHELASTIC_RUN_ID"] = "gazetell"
    log = logging.getLogger("gazetell")
    keep_memory()
    multiprocessing.set_start_method(None, force=True)  # a rank's workers are not spawned too
    log.addHandler(_Forward(queue))
    log.propagate = False

    with interrupted_by(*STOP) as came:

        def report(line: str) -> None:  # a function, which may be copied with the module
            if not came:  # else who started us says it
                queue.put(line)

        try:
            listen()
            function(*arguments, report=report, progress=bar)
        except GazetellError as error:
            queue.put(error)
            raise SystemExit(error.exit_code) from None
        except KeyboardInterrupt:
            for worker in multiprocessing.active_children():
                worker.terminate()
            os._exit(INTERRUPTED)  # else a group waits for the ranks that are gone


def normalises(network: nn.Module) -> bool:
    """Whether a batch norm of a network, in training, takes the statistics of its batch."""
    norms = (m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    return any(norm.training for norm in norms)


def deal(pictures: Sequence[int], words: Sequence[int], ranks: int) -> list[list[int]]:
    """Deal a batch to the ranks: as many pictures to each, but for one, and about as many words.

    The picture with the most words goes to the rank with the fewest so far that has room.

    Args:
        pictures: of the global batch.
        words: of each picture of the split.
        ranks: how many.

    Returns:
        The pictures of each rank, in the order of the batch.
    """
    if ranks == 1:
        return [list(pictures)]
    shares: list[list[int]] = [[] for _ in range(ranks)]
    load, room = [0] * ranks, -(-len(pictures) // ranks)
    for place in sorted(range(len(pictures)), key=lambda place: -words[pictures[place]]):
        rank = min((r for r in range(ranks) if len(shares[r]) < room), key=load.__getitem__)
        shares[rank].append(place)
        load[rank] += words[pictures[place]]
    return [[pictures[place] for place in sorted(share)] for share in shares]


class Shares(Sampler[list[int]]):
    """The batches of a rank; those of all ranks together are the global batches, in order.

    Args:
        order: of the pictures.
        batch: pictures of all ranks a step.
        words: of each picture.
        ranks: who shares them.
    """

    def __init__(
        self, order: Sequence[int], batch: int, words: Sequence[int], ranks: Ranks
    ) -> None:
        self.order, self.batch, self.words, self.ranks = order, batch, words, ranks

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch)

    def __iter__(self) -> Iterator[list[int]]:
        for begin in range(0, len(self.order), self.batch):
            whole = self.order[begin : begin + self.batch]
            ranks = self.ranks
            # Where there is none for this rank, the first: see ``idle``.
            yield deal(whole, self.words, ranks.world)[ranks.rank] or list(whole[:1])

    def idle(self, step: int) -> bool:
        """Whether a step has fewer pictures than ranks, and none for this one."""
        return self.ranks.rank >= min(self.batch, len(self.order) - step * self.batch)


class Threads(callbacks.Callback):
    """As many threads of the CPU as pay, found anew before each epoch.

    Threads wait for each other in each product: where something else keeps one core busy, all
    together are slower than one alone. OMP_NUM_THREADS fixes their number.

    Args:
        report: takes a line when the number changes.
    """

    def __init__(self, report: Report) -> None:
        self.report, self.all = report, torch.get_num_threads()

    def on_train_epoch_start(self, *_: Any) -> None:
        """Try both for some 50 ms."""
        before, rates = torch.get_num_threads(), {1: 0, self.all: 0}
        for threads in (1, self.all) * 2:
            rates[threads] += _products(threads)
        chosen = max(rates, key=rates.__getitem__)
        torch.set_num_threads(chosen)
        if chosen != before:
            why = "others keep the cores busy" if chosen == 1 else "the cores are free"
            self.report(f"{chosen} of {self.all} threads of the CPU: {why} (see OMP_NUM_THREADS)")

    def teardown(self, *_: Any, **__: Any) -> None:
        """Leave the process as it was."""
        torch.set_num_threads(self.all)


def _products(threads: int, seconds: float = 0.0125) -> int:
    """How many products of the size of a recurrent step so many threads make in a moment."""
    torch.set_num_threads(threads)
    rows, weights = torch.zeros(64, 512), torch.zeros(512, 512)
    count, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        torch.mm(rows, weights).tanh_()
        count += 1
    return count

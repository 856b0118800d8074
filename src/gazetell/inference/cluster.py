"""Work on a Ray cluster, or on the cores of this machine: captions in bulk, features of a dataset.

Ray Data gives blocks to a pool of actors, one a device, each of which loads the model once. The
model goes to the machines through Ray's object store, which they need nothing for but gazetell; the
results come back here and are written here. So what is written does not depend on which machine
made it, or whether it died and another did it again: a block's result is taken once.

Errors that a user can cause come back as values and are raised here, with the machine's name. Ray
itself is kept quiet: its logs stay in its own files.
"""

import contextlib
import io
import logging
import os
import pickle
import platform
import signal
import socket
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Unpack

import numpy as np
import torch
from safetensors.torch import load, save

from .. import __version__
from ..errors import DataError, GazetellError, UsageError
from ..features import BLOCK, LoadOptions, encode_records
from ..models.encoders import Encoder, EncoderConfig
from ..models.folder import fetch, is_pair, named_or_photo
from ..models.large import is_large
from ..models.precision import choose
from ..pictures import load_pictures, stack_pixels
from ..process import KEEP_MEMORY, interrupted_by
from .describe import Describer, Row, Task
from .predict import Answerer, Captioner
from .sources import Block, Reader, Source, need

DEVICES = ("auto", "cpu", "cuda")  # of a cluster; which of a machine's GPUs is Ray's to say
REACH = 5  # seconds to open a connection to a cluster

log = logging.getLogger(__name__)


def check_ready(device: str, address: str | None = None) -> None:
    """Refuse with a UsageError, before a model is loaded, what needs none to be seen.

    Args:
        device: one of ``DEVICES``.
        address: of a cluster, which must answer; see ``connected``.
    """
    need("ray")
    if device not in DEVICES:
        raise UsageError(f"--device {device}: expected {', '.join(DEVICES)} with --engine ray")
    if address := address or os.environ.get("RAY_ADDRESS"):
        _check_address(address)


class Job(Protocol):
    """What the actors do. It travels to them pickled."""

    device: str

    def open(self) -> Callable[[Any], Any]:
        """Load what is needed, once an actor; gives what makes a block's result."""


class Actor:
    """What Ray Data runs, one a device."""

    def __init__(self, job: Job, versions: dict[str, str]) -> None:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
        self.work: Callable[[Any], Any] | None = None
        try:
            for name, here in _versions().items():
                if here != versions[name]:
                    raise DataError(
                        f"has {name} {here}; the machine that started this has {versions[name]}"
                    )
            self.work = job.open()
        except (GazetellError, OSError) as error:
            self.error: Exception = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The result of one block, or the error, pickled: both travel as one column."""
        try:
            if self.work is None:
                raise self.error
            result = self.work(pickle.loads(batch["block"][0]))
        except GazetellError as error:
            result = type(error)(f"machine {platform.node()}: {error}")
        except OSError as error:  # of its disk, for example, while it unpacks the model
            result = GazetellError(f"machine {platform.node()}: {error}")
        return {"number": batch["number"], "result": [pickle.dumps(result)]}


def _versions() -> dict[str, str]:
    return {"gazetell": __version__, "torch": torch.__version__}


def run(
    job: Callable[[Any], Job],
    blocks: Sequence[Any],
    address: str | None,
    device: str,
    *,
    ordered: bool = False,
) -> Iterator[tuple[int, Any]]:
    """Do a job on every device of a cluster.

    Args:
        job: makes the job, given ``ray.put``, once the cluster is there.
        blocks: what ``Job.open`` gives a function of; each can be pickled.
        address: of a cluster; one is started on this machine if not given.
        device: ``auto`` for a GPU an actor where the cluster has any, else a core; ``cpu``;
            ``cuda``.
        ordered: give the results in the order of the blocks.

    Yields:
        The number of a block with its result, else as they come.

    Raises:
        UsageError: no such cluster, or no GPU in it where one is asked for.
        GazetellError: of a job, or of Ray.
    """
    if not blocks:
        return
    # Ray tells of deaths there, also of those at its own end.
    with contextlib.redirect_stdout(io.StringIO()), connected(address) as ray:
        from ray.data import ActorPoolStrategy

        have = ray.cluster_resources()
        if device == "cuda" and not have.get("GPU"):
            raise UsageError("--device cuda: the cluster has no GPU")
        gpu = device != "cpu" and have.get("GPU", 0) >= 1
        count = int(have["GPU"] if gpu else have.get("CPU", 1))
        machines = _alive(ray)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_options.preserve_order = ordered
        made = job(ray.put)
        made.device = "cuda" if gpu else "cpu"
        rows = [{"number": n, "block": pickle.dumps(block)} for n, block in enumerate(blocks)]
        work = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Actor,
            fn_constructor_args=(made, _versions()),
            batch_size=1,
            num_cpus=1,
            num_gpus=1 if gpu else 0,
            # Ray calls an actor in a thread, which has memory of its own before it is ours.
            runtime_env={"env_vars": KEEP_MEMORY},
            # The cluster may grow meanwhile, and what a machine that died had goes to the others.
            compute=ActorPoolStrategy(min_size=1, initial_size=max(1, min(count, len(rows)))),
        )
        try:
            for row in work.iter_rows():
                result = pickle.loads(row["result"])
                if isinstance(result, GazetellError):
                    raise result
                yield int(row["number"]), result
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise GazetellError(f"Ray: {_last_line(error)}") from error
        if (lost := machines - _alive(ray)) and lost:
            log.warning(f"machines that stopped, whose work others did: {len(lost)}")


def _alive(ray: Any) -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def quiet() -> Any:
    """Ray, which reports to nobody, and whose logs stay in its files; a UsageError without it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of its C++ in this process
    ray = need("ray")
    need("ray.data")
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return ray


@contextmanager
def connected(address: str | None, **own: Any) -> Iterator[Any]:
    """Ray, connected to a cluster; what it was connected to before is left as it is.

    Args:
        address: of a cluster; one is started on this machine if not given.
        own: options of ``ray.init`` for one that is started here.

    Raises:
        UsageError: Ray is not installed, or no cluster answers at the address.
    """
    ray = quiet()
    # `ray job submit` says by the variable which cluster it runs on.
    address = address or os.environ.get("RAY_ADDRESS")
    before = ray.is_initialized()
    if before and address is not None:
        raise UsageError(f"--address {address}: Ray is already connected; expected none")
    if not before:
        _connect(ray, address, own)
    try:
        with interrupted_by(signal.SIGTERM):  # else Ray prints its C++ stack
            yield ray
    finally:
        if not before:
            ray.shutdown()


def _connect(ray: Any, address: str | None, own: dict[str, Any]) -> None:
    if address is None:
        how: dict[str, Any] = {"address": "local", "include_dashboard": False} | own
    else:
        how = {"address": address}
        _check_address(address)
    try:
        with _no_stderr():
            ray.init(**how, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:  # a bare one where a busy machine is slow to start
        place = f"--address {address}" if address else "a cluster on this machine"
        raise UsageError(f"{place}: cannot be used: {str(error)[:300]}") from error


def _check_address(address: str) -> None:
    """Refuse an address where no cluster answers: Ray itself would try for minutes."""
    if address.startswith("ray://"):
        raise UsageError(
            f"--address {address}: Ray's client cannot run this; expected auto or host:port on "
            "a machine of the cluster, or send it there with: ray job submit"
        )
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise UsageError(f"--address {address}: expected auto or host:port")
    try:
        socket.create_connection((host, int(port)), timeout=REACH).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--address {address}: cannot be reached: {error}") from error
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return  # this does not have its certificates
    grpc = need("grpc")
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(REACH)
        except grpc.FutureTimeoutError as error:
            raise UsageError(f"--address {address}: what answers there is not Ray") from error


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Keep what Ray's C++ says of its own settings from standard error."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


# Captions and answers


class Ray:
    """The engine of ``describe`` that works on a cluster.

    Args:
        models: as for ``gazetell.load``; captioners, and with questions a pair.
        address: see ``run``.
        how: as for ``gazetell.load``; the device as for ``run``.
    """

    def __init__(
        self, models: Sequence[str], address: str | None = None, **how: Unpack[LoadOptions]
    ) -> None:
        check_ready(how.get("device", "auto"), address)
        self.models, self.address, self.how = models, address, how
        self.precision = how.get("precision", "auto")

    def __call__(
        self, source: Source, blocks: Sequence[Block], task: Task
    ) -> Generator[tuple[Block, list[Row]], None, None]:
        """Rows block by block, as they come."""
        folders = [fetch(path) for path in named_or_photo(self.models)]
        if large := next((folder for folder in folders if is_large(folder)), None):
            raise UsageError(f"--engine ray: takes no models of transformers, as {large} is")

        def job(put: Callable[[Any], Any]) -> Job:
            content = [put(_files(folder)) for folder in folders]
            return Describing(content, self.how, source.reader, task)

        device = self.how.get("device", "auto")
        seen: set[str] = set()
        for number, (rows, precision) in run(job, blocks, self.address, device):
            seen.add(precision)
            yield blocks[number], rows
        if len(seen) > 1:
            log.warning(f"computed in {' and '.join(sorted(seen))}, as the machines differ")


def _files(folder: Path) -> dict[str, bytes]:
    """What a model folder, or a pair, needs to be loaded."""
    places = [folder, folder / "captioner", folder / "answerer"] if is_pair(folder) else [folder]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for place in places
        for path in place.iterdir()
        if path.suffix in (".json", ".safetensors")
    }


@dataclass
class Describing:
    """The job of ``describe``."""

    models: list[Any]  # references to the files of each
    how: LoadOptions
    reader: Reader
    task: Task
    device: str = "cpu"

    def open(self) -> Callable[[Block], tuple[list[Row], str]]:
        """Load the models from the object store."""
        self.reader.check()
        how: LoadOptions = {**self.how, "device": self.device}
        with tempfile.TemporaryDirectory() as root:
            folders = []
            for number, files in enumerate(need("ray").get(self.models)):
                folders.append(Path(root, str(number)))
                for name, content in files.items():
                    path = folders[-1] / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
            captioner = Captioner.load(*folders, **how)
            answerer = Answerer.load(folders[0], **how) if self.task.questions else None
        describer = Describer(captioner, answerer, self.task)
        precision = captioner.precision.name
        return lambda block: (list(describer.rows(self.reader(block))), precision)


# Features


@dataclass
class Encoding:
    """The job of ``features``: records (N, F, h, w, C) of the pictures at some paths."""

    config: dict[str, Any]
    weights: Any  # a reference
    precision: str
    flip: bool
    batch: int
    root: str
    device: str = "cpu"

    def open(self) -> Callable[[Sequence[str]], np.ndarray]:
        """Build the encoder from the object store."""
        Reader(None, self.root).check()
        device, precision = choose(self.device, self.precision)
        encoder = Encoder(EncoderConfig.from_dict(self.config), pretrained=False).eval()
        encoder.load_state_dict(load(need("ray").get(self.weights)))
        encoder = encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

        def records(paths: Sequence[str]) -> np.ndarray:
            loading = load_pictures(paths, encoder.frame, batch=self.batch)
            made = [
                encode_records(encoder, stack_pixels(loaded).to(device), precision, self.flip)
                for loaded in loading
            ]
            return np.concatenate(made)

        return records


def ray_records(
    encoder: Encoder,
    precision: str,
    root: Path,
    *,
    flip: bool = False,
    batch: int = 64,
    address: str | None = None,
    device: str = "auto",
) -> Callable[[Sequence[Path]], Iterator[np.ndarray]]:
    """What ``build_cache`` takes to encode on a cluster; arguments as there and for ``run``."""
    state = {name: x.detach().cpu().contiguous() for name, x in encoder.state_dict().items()}

    def job(put: Callable[[Any], Any]) -> Job:
        where = str(root.resolve())
        weights, config = put(save(state)), encoder.config.to_dict()
        return Encoding(config, weights, precision, flip, batch, where)

    def records(paths: Sequence[Path]) -> Iterator[np.ndarray]:
        size = max(BLOCK, batch)
        places = [os.path.abspath(path) for path in paths]
        blocks = [places[n : n + size] for n in range(0, len(places), size)]
        for _, made in run(job, blocks, address, device, ordered=True):
            yield made

    return records

"""Running the service: models by name, a socket, uvicorn until a signal comes."""

import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
import uvicorn

from ..errors import ModelError, UsageError
from ..inference.predict import Answerer, Captioner, load
from .app import create_app
from .options import ServeOptions
from .protocol import protocol

__all__ = ["TOKEN", "load_models", "serve"]

TOKEN = "GAZETELL_TOKEN"  # the environment variable of the bearer token
# Once the service has been told to stop, answers that are under way have so many seconds more than
# an answer may take.
GRACE = 5


def load_models(
    named: Sequence[str], *, device: str = "auto", precision: str = "auto"
) -> dict[str, Captioner | Answerer]:
    """Load models under the names that they are served by.

    Args:
        named: ``RUN`` or ``NAME=RUN``; a run is named after its folder. One that is named twice is
            loaded once.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``bf16`` or ``fp32``.

    Raises:
        UsageError: two of the same name.
        ModelError: no model there.
    """
    places: dict[str, str] = {}
    for text in named:
        name, equals, path = text.partition("=")
        if not equals or Path(text).is_dir():  # a folder may have "=" in its name
            name, path = Path(text).resolve().name, text
        if not name or not path:
            raise UsageError(f"--model {text}: expected RUN or NAME=RUN")
        if name in places:
            raise UsageError(f"--model {text}: the name {name!r} is taken; expected NAME={path}")
        places[name] = path if path.startswith("hf://") else str(Path(path).resolve())
    loaded = {path: load(path, device=device, precision=precision) for path in set(places.values())}
    return {name: loaded[path] for name, path in places.items()}


def serve(
    named: Sequence[str],
    options: ServeOptions,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    report: Callable[[str], None] = print,
) -> None:
    """Serve until SIGINT or SIGTERM; what was taken in is answered first.

    Args:
        named: see ``load_models``.
        options: limits.
        host: address to listen on.
        port: 0 for any that is free.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``bf16`` or ``fp32``.
        threads: of torch; 0 for its own choice.
        report: takes lines about what is served.

    Raises:
        UsageError: an address that cannot be listened on, a token that no client can send, or an
            option that has no effect on these models.
        ModelError: no model there, or models that fail.
    """
    # What takes no time is checked before the models are loaded.
    token = _token(report)
    bound = _bind(host, port)
    models = load_models(named, device=device, precision=precision)
    _check_effects(models, options, threads)
    if threads:
        torch.set_num_threads(threads)
    try:
        bound.listen()
    except OSError as error:  # another process bound it at the same time and was faster
        raise _unusable(host, port, error) from error
    address, port = bound.getsockname()[:2]
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for name, model in models.items():
        report(f"{name}: {'captioner' if isinstance(model, Captioner) else 'answerer'}")
    for model in list(models.values())[:1]:  # all have the same
        report(
            f"device {model.device}, precision {model.precision.name} ({model.precision.reason}), "
            f"{torch.get_num_threads()} threads"
        )
    shown = f"[{address}]" if ":" in address else address
    report(f"http://{shown}:{port}/  (API: /docs)")
    if not token and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        report(f"warning: anyone who reaches {shown} may use it; set {TOKEN} to ask for a token")
    app = create_app(models, options, token=token)
    config = uvicorn.Config(
        app,
        log_level="info",
        access_log=False,  # the guard has one that leaves queries out
        server_header=False,
        http=protocol(options.receive_seconds),
        ws="none",
        timeout_graceful_shutdown=int(options.seconds) + GRACE,
    )
    server, engine = uvicorn.Server(config), app.state.desk.engine
    # Whoever started it can start it again; one that answers nothing is of no use.
    engine.on_failure = partial(setattr, server, "should_exit", True)
    server.run(sockets=[bound])
    if engine.failure is not None:
        raise ModelError(f"the models failed: {engine.failure}") from engine.failure


def _token(report: Callable[[str], None]) -> str | None:
    """The token of the environment.

    Raises:
        UsageError: no client can send it.
    """
    token = os.environ.get(TOKEN)
    if token is None:
        return None
    if token != (cut := token.rstrip("\r\n")):
        report(f"{TOKEN} ends with a line break, which is left out")
    if not (cut.isascii() and cut.isprintable() and cut.strip(" ")):
        raise UsageError(f"{TOKEN} is empty or not plain ASCII; expected a token, or no variable")
    if " " in cut:
        raise UsageError(f"{TOKEN} has a space in it; expected a token without")
    return cut


def _check_effects(
    models: Mapping[str, Captioner | Answerer], options: ServeOptions, threads: int
) -> None:
    """Refuse options that change nothing.

    Raises:
        UsageError: there is one.
    """
    kinds = {type(model) for model in models.values()}
    idle = [
        ("questions", Answerer not in kinds, "no answerer is served"),
        ("question_length", Answerer not in kinds, "no answerer is served"),
        ("beam", Captioner not in kinds, "no captioner is served"),
        ("gather", options.batch == 1, "--batch 1 waits for no others"),
    ]
    for name, useless, why in idle:
        value = getattr(options, name)
        if useless and value != getattr(ServeOptions, name):
            raise UsageError(f"--{name.replace('_', '-')} {value}: has no effect, {why}")
    for model in models.values():
        if threads and model.device.type != "cpu":
            raise UsageError(f"--threads {threads}: has no effect on {model.device}")


def _bind(host: str, port: int) -> socket.socket:
    """A socket that is bound: what is wrong with an address is known before anything starts."""
    if not 0 <= port <= 65535:  # some systems would cut it to 16 bits and take another
        raise UsageError(f"--port {port}: cannot be used; expected 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise _unusable(host, port, error) from error
    return bound


def _unusable(host: str, port: int, error: OSError) -> UsageError:
    return UsageError(f"--host {host} --port {port}: cannot be used: {error.strerror or error}")

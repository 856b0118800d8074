"""Running the service: models by name, a socket, uvicorn until a signal comes."""

import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import uvicorn

from ..errors import UsageError
from ..inference.answering import Answerer
from ..inference.predictor import Captioner, load
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
        named: ``RUN`` or ``NAME=RUN``; a run is named after its folder.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``bf16`` or ``fp32``.

    Raises:
        UsageError: two of the same name.
        ModelError: no model there.
    """
    places: dict[str, str] = {}
    for text in named:
        name, equals, path = text.partition("=")
        if not equals:
            name, path = Path(text).resolve().name, text
        if not name or not path:
            raise UsageError(f"--model {text}: expected RUN or NAME=RUN")
        if name in places:
            raise UsageError(f"--model {text}: the name {name!r} is taken; expected NAME={path}")
        places[name] = path
    return {name: load(path, device=device, precision=precision) for name, path in places.items()}


def serve(
    models: dict[str, Captioner | Answerer],
    options: ServeOptions,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    threads: int = 0,
    report: Callable[[str], None] = print,
) -> None:
    """Serve until SIGINT or SIGTERM; what was taken in is answered first.

    Args:
        models: by name.
        options: limits.
        host: address to listen on.
        port: 0 for any that is free.
        threads: of torch; 0 for its own choice.
        report: takes lines about what is served.

    Raises:
        UsageError: an address that cannot be listened on, or an empty token.
    """
    token = os.environ.get(TOKEN)
    if token is not None and not (token.isascii() and token.isprintable() and token.strip(" ")):
        raise UsageError(f"{TOKEN} is empty or not plain ASCII; expected a token, or no variable")
    if token is not None and " " in token:
        raise UsageError(f"{TOKEN} has a space in it; expected a token without")
    if threads:
        torch.set_num_threads(threads)
    listening = _listen(host, port)
    address, port = listening.getsockname()[:2]
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    shown = f"[{address}]" if ":" in address else address
    for name, model in models.items():
        kind = "captioner" if isinstance(model, Captioner) else "answerer"
        report(f"{name}: {kind}")
    report(f"http://{shown}:{port}/  (API: /docs)")
    if not token and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        report(f"warning: anyone who reaches {shown} may use it; set {TOKEN} to ask for a token")
    config = uvicorn.Config(
        create_app(models, options, token=token),
        log_level="info",
        access_log=False,  # the guard has one that leaves queries out
        server_header=False,
        http=protocol(options.receive_seconds),
        ws="none",
        timeout_graceful_shutdown=int(options.seconds) + GRACE,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """A socket that is bound: what is wrong with an address is known before anything starts."""
    if not 0 <= port <= 65535:  # some systems would cut it to 16 bits and take another
        raise UsageError(f"--port {port}: cannot be used; expected 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"--host {host} --port {port}: cannot be used: {reason}") from error
    return listening

"""Running the service: models by name, a socket, uvicorn until a signal comes."""

import ipaddress
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

import torch
import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

from ..errors import ModelError, UsageError
from ..features import LoadOptions
from ..inference.load import Pair, load
from ..inference.predict import Answerer, Captioner
from ..models.folder import fetch, named_or_photo
from .api import create_app
from .guard import ServeOptions

TOKEN = "GAZETELL_TOKEN"  # the environment variable of the bearer token
# Once the service has been told to stop, answers that are under way have so many seconds more than
# an answer may take.
GRACE = 5


def named_places(named: Sequence[str]) -> dict[str, str]:
    """Where the models are, by name.

    Args:
        named: ``RUN`` or ``NAME=RUN``; a run is named after its folder. Without any, ``photo``.

    Raises:
        UsageError: two of the same name.
    """
    places: dict[str, str] = {}
    for text in map(str, named_or_photo(named)):
        name, equals, path = text.partition("=")
        if not equals or Path(text).is_dir():  # a folder may have "=" in its name
            name, path = Path(text).resolve().name, text
        if not name or not path:
            raise UsageError(f"--model {text}: expected RUN or NAME=RUN")
        if name in places:
            raise UsageError(f"--model {text}: the name {name!r} is taken; expected NAME={path}")
        places[name] = path if path.startswith("hf://") else str(fetch(path).resolve())
    return places


def load_models(
    named: Sequence[str], **how: Unpack[LoadOptions]
) -> dict[str, Captioner | Answerer]:
    """Load models under the names that they are served by.

    Args:
        named: see ``named_places``. A model that is named twice is loaded once. The models of a
            pair are served as ``NAME/captioner`` and ``NAME/answerer``.
        how: as for ``load``.

    Raises:
        UsageError: two of the same name.
        ModelError: no model there.
    """
    places = named_places(named)
    loaded = {x: load(x, **how) for x in dict.fromkeys(places.values())}
    served: dict[str, Captioner | Answerer] = {}
    for name, path in places.items():
        model = loaded[path]
        if isinstance(model, Pair):
            served[f"{name}/captioner"] = model.captioner
            served[f"{name}/answerer"] = model.answerer
        else:
            served[name] = model
    return served


def serve(
    named: Sequence[str], options: ServeOptions, *, report: Callable[[str], None] = print
) -> None:
    """Serve until SIGINT or SIGTERM; what was taken in is answered first.

    Args:
        named: see ``named_places``.
        options: address, device, limits.
        report: takes lines about what is served.

    Raises:
        UsageError: an address that cannot be listened on, a token that no client can send, or an
            option that has no effect on these models.
        ModelError: no model there, or models that fail.
    """
    # What takes no time is checked before the models are loaded.
    token, bound = token_of_environment(report), bound_socket(options)
    threads = options.threads or torch.get_num_threads()
    # For the engine alone. Where two threads of a process each compute with several, OpenMP finds
    # more threads than cores and lets them sleep between products: an answer takes twice as long.
    torch.set_num_threads(1)
    models = load_models(named, **how_to_load(options))
    check_effects(list(models.values()), options)
    app = create_app(models, replace(options, threads=threads), token=token)
    for name, model in models.items():
        report(f"{name}: {'captioner' if isinstance(model, Captioner) else 'answerer'}")
    report(f"threads: {threads}")  # loading has told of device and precision
    listen(app, bound, options, token, report)


def how_to_load(options: ServeOptions) -> LoadOptions:
    """What the options say to ``load``."""
    names = ("device", "precision", "fit", "trust", "prompt")
    return {name: getattr(options, name) for name in names}  # type: ignore[return-value]


def listen(
    app: FastAPI,
    bound: socket.socket,
    options: ServeOptions,
    token: str | None,
    report: Callable[[str], None],
) -> None:
    """Run the application on a bound socket until a signal comes.

    Raises:
        UsageError: another process listens there.
        ModelError: models that fail.
    """
    try:
        bound.listen()
    except OSError as error:  # another process bound it at the same time and was faster
        raise _unusable(options, error) from error
    address, port = bound.getsockname()[:2]
    where = f"[{address}]" if ":" in address else address
    report(f"http://{where}:{port}/  (API: /docs)")
    if not token and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        report(f"warning: anyone who reaches {where} may use it; set {TOKEN} to ask for a token")
    server = uvicorn.Server(config(app, options))
    engine = app.state.service.engine
    # Whoever started it can start it again; one that answers nothing is of no use.
    engine.on_failure = partial(setattr, server, "should_exit", True)
    server.run(sockets=[bound])
    if engine.failure is not None:
        raise ModelError(f"the models failed: {engine.failure}") from engine.failure


def config(app: object, options: ServeOptions) -> uvicorn.Config:
    """How uvicorn runs the service; both write one log."""
    own = {"handlers": ["default"], "level": "INFO", "propagate": False}
    loggers = {**LOGGING_CONFIG["loggers"], "gazetell.serve": own}
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config={**LOGGING_CONFIG, "loggers": loggers},
        access_log=False,  # the guard has one that leaves queries out
        server_header=False,
        http="h11",  # bounds the size of a head, unlike the faster one
        h11_max_incomplete_event_size=2**16,
        ws="none",
        limit_concurrency=options.queue + 256,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(options.seconds) + GRACE,
    )


def token_of_environment(report: Callable[[str], None]) -> str | None:
    """The token of the environment."""
    given = os.environ.get(TOKEN)
    if given is None:
        return None
    token = given.rstrip("\r\n")
    if token != given:
        report(f"{TOKEN} ends with a line break, which is left out")
    if not (token.isascii() and token.isprintable() and token.strip(" ")):
        raise UsageError(f"{TOKEN} is empty or not plain ASCII; expected a token, or unset it")
    if " " in token:
        raise UsageError(f"{TOKEN} contains a space; expected a token without spaces")
    return token


def check_effects(models: Sequence[Captioner | Answerer], options: ServeOptions) -> None:
    """Refuse options that change nothing."""
    answers = any(isinstance(model, Answerer) for model in models)
    captions, device = any(isinstance(model, Captioner) for model in models), models[0].device
    effects = {
        "questions": (answers, "no answerer is served"),
        "question_length": (answers, "no answerer is served"),
        "beam": (captions, "no captioner is served"),
        "gather": (options.batch > 1, "--batch 1 waits for no others"),
        "threads": (device.type == "cpu", f"the models run on {device}"),
    }
    for name, (has_effect, why) in effects.items():
        value = getattr(options, name)
        if not has_effect and value != getattr(ServeOptions, name):
            raise UsageError(f"--{name.replace('_', '-')} {value}: has no effect, {why}")


def bound_socket(options: ServeOptions) -> socket.socket:
    """A socket that is bound: what is wrong with an address is known before anything starts."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise _unusable(options, error) from error
    return bound


def _unusable(options: ServeOptions, error: OSError) -> UsageError:
    address = f"--host {options.host} --port {options.port}"
    return UsageError(f"{address}: cannot be used: {error.strerror or error}")

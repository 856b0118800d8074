"""The service on replicas of the models, with Ray Serve: ``gazetell serve --engine ray``.

    client -> front -> a replica, or another one if that is lost -> looks

The **front** is the application of ``create_app`` without models: the guard holds every limit
before a request leaves this process, and ``/v1/`` goes on to a replica. Each **replica** is a
process with the models, the whole application and its engine, so requests are batched there as in
the local service. **Looks** is one process that keeps encoded pictures for all replicas.

Ray Serve itself does not repeat a request whose replica died. The front does: requests change
nothing, so one that was answered twice by mistake does no harm.

``app`` builds the same as an application of Ray Serve with the front in a process of its own, for
KubeRay (deploy/rayservice.yaml).
"""

import asyncio
import json
import logging
import os
import pickle
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from types import ModuleType
from typing import Any, NamedTuple

import torch
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from .. import __version__, errors
from ..errors import ModelError, UsageError
from ..inference.cluster import check_ready, connected, quiet
from ..inference.sources import need
from ..models.folder import fetch
from ..models.large import is_large
from ..process import keep_memory
from .api import create_app
from .guard import Looks, Problem, ServeOptions
from .server import (
    GRACE,
    bound_socket,
    check_effects,
    how_to_load,
    listen,
    load_models,
    named_places,
    token_of_environment,
)

log = logging.getLogger("gazetell.serve")
NAME = "gazetell"  # of the application
# A request that three replicas did not survive may be what killed them: no fourth one.
ATTEMPTS = 3
# What a replica needs to know of a request, besides its body.
SCOPE = {"type", "method", "path", "raw_path", "root_path", "query_string", "headers"}
QUIET = {"log_level": "WARNING", "enable_access_log": False}  # the front tells of requests
# Of a cluster of our own. Requests and replies larger than 100 kB pass through the store.
HERE = {"object_store_memory": 2**29}


class Answered(NamedTuple):
    """What a replica sends back: a response or a problem, and its batches since the last one."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    problem: tuple[str, str, dict[str, str]] | None
    batches: list[tuple[str, int]]


def bounds(text: str) -> tuple[int, int]:
    """``N`` or ``MIN:MAX`` as the least and the greatest number of replicas."""
    found = re.fullmatch(r"(\d+)(?::(\d+))?", text)
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most:
        raise UsageError(f"--replicas {text}: expected N or MIN:MAX, from 1, such as 1:4")
    return least, most


async def _call(method: Any, *arguments: Any) -> Any:
    """Call a method of a deployment; again when the process that ran it is lost."""
    from ray.exceptions import RayError, RayTaskError
    from ray.serve.exceptions import RayServeException

    for attempt in range(1, ATTEMPTS + 1):
        response = method.remote(*arguments)
        try:
            return await response
        except asyncio.CancelledError:  # the client left, or its time is over
            response.cancel()
            raise
        except RayTaskError:
            raise  # a defect, not a loss
        except RayServeException as error:
            raise Problem("not_ready", "No replica answers; the log says why.") from error
        except RayError as error:
            log.warning("a replica was lost: %s; attempt %s", type(error).__name__, attempt)
            await asyncio.sleep(0.1 * attempt)
    raise Problem("not_ready", f"{ATTEMPTS} replicas were lost while they answered this request.")


class SharedLooks(Looks):
    """The looks of all replicas.

    Args:
        handle: of the deployment.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def recall(self, handle: str) -> Any:
        """See ``Looks``."""
        kept = await _call(self._handle.recall, handle)
        return kept and pickle.loads(kept)

    async def keep(self, handle: str, picture: Any, size: int) -> bool:
        """See ``Looks``; as bytes, since its process has no torch to understand them."""
        return await _call(self._handle.keep, handle, pickle.dumps(picture), size)

    async def size(self) -> tuple[int, float]:
        """See ``Looks``."""
        return await _call(self._handle.size)


class Replica:
    """The models and the application that answers for them.

    Args:
        looks: handle of the deployment.
        named: see ``named_places``.
        options: limits, device.
        token: whether one is asked for is told in ``/v1/models``; the front checks it.
        version: of gazetell, where the service was started.
    """

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self,
        looks: Any,
        named: Sequence[str],
        options: ServeOptions,
        token: str | None,
        version: str,
    ) -> None:
        if version != __version__:
            raise ModelError(f"a replica has gazetell {__version__}; expected {version}, as here")
        keep_memory()
        torch.set_num_threads(1)  # as in serve
        models = load_models(named, **how_to_load(options))
        check_effects(list(models.values()), options)
        shared = SharedLooks(looks)
        own = replace(options, threads=options.threads or 1)
        self._app = create_app(models, own, token=token, looks=shared, guarded=False)
        service = self._app.state.service
        service.engine.start()
        await service.warm_up()
        if service.engine.failure is not None:
            raise ModelError(f"the models failed: {service.engine.failure}")
        # A process that can answer nothing more ends: Ray starts another, and the front asks again.
        service.engine.on_failure = lambda: os._exit(ModelError.exit_code)
        self._batches: list[tuple[str, int]] = []
        service.engine.monitor.batch = lambda *batch: self._batches.append(batch)

    async def answer(self, scope: dict[str, Any], body: bytes) -> Answered:
        """Answer a request that arrived whole."""
        sent: list[Message] = []
        problem = None

        async def receive() -> Message:
            return {"type": "http.request", "body": body}

        async def send(message: Message) -> None:
            sent.append(message)

        try:
            await self._app(scope, receive, send)
        except Exception as error:
            told = Problem.of(error)
            problem = told.code, told.detail, told.headers
        begin, content = sent[0], b"".join(message.get("body", b"") for message in sent)
        batches, self._batches[:] = self._batches[:], []
        return Answered(begin["status"], list(begin["headers"]), content, problem, batches)


def front(replicas: Any, looks: Any, options: ServeOptions, token: str | None) -> FastAPI:
    """The application that guards the replicas and passes requests on to them.

    Args:
        replicas: handle of the deployment.
        looks: handle of the deployment.
        options: limits.
        token: that requests to the API must bear; None for no token.
    """

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
            if not self.path.startswith(("/v1/", "/readyz")):
                return super().get_route_handler()  # the page, the docs, the front's own figures

            async def passed_on(request: Request) -> Response:
                scope = {name: value for name, value in request.scope.items() if name in SCOPE}
                answered = await _call(replicas.answer, scope, await request.body())
                for stage, size in answered.batches:
                    request.app.state.service.engine.monitor.batch(stage, size)
                if answered.problem:
                    raise Problem(*answered.problem)
                response = Response(answered.body, answered.status)
                response.raw_headers = answered.headers
                return response

            return passed_on

    return create_app({}, options, token=token, looks=SharedLooks(looks), route=Route)


class Front:
    """The front as a deployment, where Ray Serve's own proxy takes the requests."""

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments

    def __serve_build_asgi_app__(self) -> FastAPI:
        return front(*self._arguments)


def _serve() -> ModuleType:
    """Ray Serve."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of itself
    quiet()
    return need("ray.serve")


def _needs(options: ServeOptions) -> dict[str, float]:
    """What a replica asks of its node: GPUs if there are any now."""
    automatic = options.device == "auto"
    on_gpu = need("ray").cluster_resources().get("GPU") if automatic else options.device == "cuda"
    return {"num_cpus": options.threads or 1, "num_gpus": int(bool(on_gpu))}


def build(
    named: Sequence[str],
    options: ServeOptions,
    token: str | None,
    number: tuple[int, int],
    needs: Mapping[str, float],
) -> tuple[Any, Any]:
    """The deployments of the replicas and of the looks."""
    serve = _serve()
    idle = {"ray_actor_options": {"num_cpus": 0}, "max_ongoing_requests": 10_000}
    looks = serve.deployment(**idle)(Looks).bind(options)
    deployment = serve.deployment(
        # While a batch is computed the next one gathers; what is more waits for whoever is free.
        max_ongoing_requests=2 * options.batch,
        autoscaling_config={
            "min_replicas": number[0],
            "max_replicas": number[1],
            "target_ongoing_requests": max(1, options.batch // 4),
            "upscale_delay_s": 10,
        },
        ray_actor_options=dict(needs),
        graceful_shutdown_timeout_s=options.seconds + GRACE,
        max_constructor_retry_count=1,
    )
    return deployment(Replica).bind(looks, list(named), options, token, __version__), looks


def app(arguments: dict[str, Any]) -> Any:
    """The application for Ray Serve's own configuration: ``gazetell.serve.replicas:app``.

    Args:
        arguments: ``model``, a list as of ``gazetell serve --model``; ``replicas``; and the limits
            by the names of ``ServeOptions``.

    Raises:
        UsageError: an argument that there is not.
    """
    serve = _serve()
    limits = dict(arguments)
    named, number = limits.pop("model", []), bounds(str(limits.pop("replicas", "1")))
    known = {field.name for field in fields(ServeOptions)} - {"host", "port"}
    if unknown := sorted(set(limits) - known):
        expected = ", ".join(sorted({"model", "replicas", *known}))
        raise UsageError(f"{unknown[0]}: is not an argument; expected {expected}")
    options, token = ServeOptions(**limits), token_of_environment(log.warning)
    replicas, looks = build(named, options, token, number, _needs(options))
    # One front: its figures are those of the whole service.
    ingress = serve.deployment(max_ongoing_requests=10_000, ray_actor_options={"num_cpus": 0})
    return ingress(serve.ingress(None)(Front)).bind(replicas, looks, options, token)


def serve(
    named: Sequence[str],
    options: ServeOptions,
    number: tuple[int, int],
    address: str | None = None,
    *,
    report: Callable[[str], None] = print,
) -> None:
    """Serve on replicas until SIGINT or SIGTERM; what was taken in is answered first.

    Args:
        named: see ``named_places``.
        options: address, device, limits; ``threads`` is of each replica, which is as many cores.
        number: least and greatest number of replicas.
        address: of a Ray cluster that this machine belongs to; None to start one here.
        report: takes lines about what is served.

    Raises:
        UsageError: Ray is missing or cannot be reached, an address that cannot be listened on, or
            more replicas than there is room for.
        ModelError: a replica that cannot start.
    """
    check_ready("auto", address)  # before a model is fetched
    serve = _serve()
    token, bound = token_of_environment(report), bound_socket(options)
    where = named_places(named)
    if large := next((path for path in where.values() if is_large(fetch(path))), None):
        raise UsageError(f"--engine ray: takes no models of transformers, as {large} is")
    places = [f"{name}={path}" for name, path in where.items()]
    with _cluster(address, report) as ray:
        needs = _needs(options)
        _check_room(number, needs, ray.cluster_resources(), address, report)
        replicas = _deployed(serve, build(places, options, token, number, needs)[0])
        looks = serve.get_deployment_handle(Looks.__name__, NAME)
        scope = {"type": "http", "method": "GET", "path": "/v1/models", "query_string": b""}
        told = replicas.answer.remote(scope | {"headers": []}, b"").result()
        for model in json.loads(told.body)["models"]:
            report(f"{model['name']}: {model['kind']}")
        listen(front(replicas, looks, options, token), bound, options, token, report)


@contextmanager
def _cluster(address: str | None, report: Callable[[str], None]) -> Iterator[Any]:
    """Be in a cluster with Ray Serve, and leave it as it was; yields Ray."""
    report(f"joining the cluster {address}" if address else "starting Ray here")
    with connected(address, **HERE) as ray:
        serve = _serve()
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        if address and NAME in serve.status().applications:
            raise UsageError(f"--address {address}: {NAME} is already served there")
        serve.start(proxy_location="Disabled", logging_config=QUIET)
        try:
            yield ray
        finally:
            if address and set(serve.status().applications) - {NAME}:
                serve.delete(NAME)  # others serve there, too
            elif address:
                serve.shutdown()  # an own cluster ends with it


def _check_room(
    number: tuple[int, int],
    needs: Mapping[str, float],
    resources: Mapping[str, float],
    address: str | None,
    report: Callable[[str], None],
) -> None:
    """Tell of replicas that have no room; an own cluster does not grow."""
    least, most = number
    kinds = {"num_cpus": "CPU", "num_gpus": "GPU"}
    have = {kind: int(resources.get(kind, 0)) for name, kind in kinds.items() if needs[name]}
    room = min(int(have[kind] // needs[name]) for name, kind in kinds.items() if needs[name])
    found = " and ".join(f"{count} {kind}" for kind, count in have.items())
    if room < least and not address:
        raise UsageError(f"--replicas {least}:{most}: {found} here; expected at most {room}")
    if room < most:
        report(f"--replicas {least}:{most}: room for {room} at the moment ({found})")


def _deployed(serve: ModuleType, application: Any) -> Any:
    """The handle of an application that runs.

    Raises:
        GazetellError: as raised by the replica that could not start.
    """
    try:
        return serve.run(application, name=NAME, route_prefix=None, logging_config=QUIET)
    except RuntimeError as error:
        status = serve.status().applications[NAME]
        text = "\n".join([str(error), *(each.message for each in status.deployments.values())])
        if told := re.search(r"gazetell\.errors\.(\w+): (.*)", text):
            raise getattr(errors, told[1])(told[2]) from error
        last = [line for line in text.splitlines() if line.strip()][-1]
        raise ModelError(f"a replica could not be started: {last}") from error

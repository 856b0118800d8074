"""``gazetell serve``."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ..errors import UsageError
from ..files import check_models
from ..serve.guard import ServeOptions
from .terminal import report


def serve(
    *,
    model: tuple[str, ...] = (),
    engine: Literal["local", "ray"] = "local",
    replicas: str | None = None,
    address: str | None = None,
    options: Annotated[ServeOptions, Parameter(name="*")] = ServeOptions(),  # noqa: B008
) -> None:
    """Serve trained models: a REST API, and a page to look and ask.

    A token that requests must bear is taken from the environment variable GAZETELL_TOKEN.

    Args:
        model: A model folder, hf://owner/name, or NAME=either; given several times, all are
            served, and the first captioner and the first answerer are the defaults. If not
            given, photo, which comes with gazetell.
        engine: local answers in this process; ray on replicas of the models (Ray Serve), each a
            process with a CPU core or a GPU, here or on a cluster.
        replicas: Number of replicas with --engine ray: N, or MIN:MAX to follow the load; 1
            if not given.
        address: A Ray cluster that this machine belongs to, HOST:PORT or auto, for --engine ray;
            if not given, one is started here and ends with the service.
        options: Address, device, limits.
    """
    for text in model:
        path = text if Path(text).is_dir() else text.partition("=")[2] or text
        check_models(path)
    if engine == "ray":
        from ..serve import replicas as cluster

        cluster.serve(model, options, cluster.bounds(replicas or "1"), address, report=report)
        return
    for name, value in (("replicas", replicas), ("address", address)):
        if value is not None:
            raise UsageError(f"--{name} {value}: has no effect without --engine ray")

    from ..serve.server import serve as run

    run(model, options, report=report)

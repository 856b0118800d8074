"""``gazetell serve``."""

from typing import Annotated

from cyclopts import Parameter

from ..errors import UsageError
from ..serve.options import ServeOptions
from ..serve.server import serve as run
from .terminal import report

__all__ = ["serve"]


def serve(
    *,
    model: tuple[str, ...] = (),
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    options: Annotated[ServeOptions, Parameter(name="*")] = ServeOptions(),  # noqa: B008
) -> None:
    """Serve trained models: a REST API, and a page to look and ask.

    A token that requests must bear is taken from the environment variable GAZETELL_TOKEN.

    Args:
        model: A model folder, hf://owner/name, or NAME=either; given several times, all are
            served, and the first captioner and the first answerer are the defaults.
        host: Address to listen on; 0.0.0.0 for all.
        port: Port to listen on; 0 for any that is free.
        device: auto, cpu or cuda.
        precision: auto, bf16 or fp32.
        threads: Of torch, on the CPU; 0 for its own choice.
        options: Limits.
    """
    if not model:
        raise UsageError("expected --model, a model folder or hf://owner/name")
    if threads < 0:
        raise UsageError(f"--threads {threads}: expected 0 or more")
    run(
        model,
        options,
        host=host,
        port=port,
        device=device,
        precision=precision,
        threads=threads,
        report=report,
    )

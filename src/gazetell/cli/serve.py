"""``gazetell serve``."""

from typing import Annotated

from cyclopts import Parameter

from ..serve.guard import ServeOptions
from ..serve.server import serve as run
from .terminal import report


def serve(
    *,
    model: tuple[str, ...] = (),
    options: Annotated[ServeOptions, Parameter(name="*")] = ServeOptions(),  # noqa: B008
) -> None:
    """Serve trained models: a REST API, and a page to look and ask.

    A token that requests must bear is taken from the environment variable GAZETELL_TOKEN.

    Args:
        model: A model folder, hf://owner/name, or NAME=either; given several times, all are
            served, and the first captioner and the first answerer are the defaults. If not
            given, photo, which comes with gazetell.
        options: Address, device, limits.
    """
    run(model, options, report=report)

"""``gazetell train``."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.config import Dict

from ..errors import UsageError
from ..training.fit import resume as resume_run
from ..training.fit import train as train_run
from ..training.options import TrainOptions, read_recipe
from .terminal import on_terminal, report

__all__ = ["recipe_defaults", "train"]


def train(
    data: Path | None = None,
    *,
    out: Path | None = None,
    recipe: str | None = None,
    resume: Path | None = None,
    options: Annotated[TrainOptions, Parameter(name="*")] = TrainOptions(),  # noqa: B008
) -> None:
    """Train a captioner or an answerer on a prepared dataset, or go on with a stopped run.

    Args:
        data: A prepared dataset (see gazetell data).
        out: The run folder to write; must be new or empty.
        recipe: A recipe's name or .toml file; any option given beside it wins.
        resume: Go on with the run in this folder, with its own options.
        options: Options of the run.
    """
    if resume is not None:
        if data is not None or out is not None or recipe is not None:
            raise UsageError("--resume takes the run folder alone; its options stand in it")
        resume_run(resume, report=report, progress=on_terminal())
        return
    if data is None or out is None:
        raise UsageError("expected a prepared dataset and --out RUN, or --resume RUN")
    train_run(data, out, options, report=report, progress=on_terminal())


def recipe_defaults(app: App, commands: tuple[str, ...], arguments: Any) -> None:
    """Fill the options that were not given with those of ``--recipe``."""
    for argument in arguments:
        if argument.name == "--recipe" and argument.tokens:
            values = read_recipe(argument.tokens[-1].value)
            if "features" in commands:  # its batch and the like are another thing
                values = {k: v for k, v in values.items() if k == "flip" or "encoder" in k}
            Dict(values, use_commands_as_keys=False, allow_unknown=True)(app, commands, arguments)
            return

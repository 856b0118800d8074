"""Recipes: training options preset in a TOML file.

Its tables are headings for the reader and its keys are the options' names::

    [encoder]
    encoder = "mobilenet_v2"
    [training]
    learning_rate = 1e-3
"""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError
from ..files import read_text
from .options import TrainOptions

__all__ = ["read_recipe", "recipe_names"]


def recipe_names() -> list[str]:
    """The recipes that come with gazetell."""
    folder = resources.files(__package__) / "recipes"
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".toml"))


def read_recipe(name: str) -> dict[str, Any]:
    """The options of a recipe, by name or file.

    Raises:
        UsageError: no such recipe.
        DataError: not TOML, or an option that does not exist.
    """
    if name in recipe_names():
        source = f"recipe {name}"
        text = (resources.files(__package__) / "recipes" / f"{name}.toml").read_text("utf-8")
    elif Path(name).suffix == ".toml":
        source, text = name, read_text(name)
    else:
        raise UsageError(
            f"--recipe {name}: expected a .toml file or one of {', '.join(recipe_names())}"
        )
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{source}: is not TOML: {error}") from error
    values: dict[str, Any] = {}
    for key, value in tables.items():
        values |= value if isinstance(value, dict) else {key: value}
    TrainOptions.from_dict(values, source)
    return values

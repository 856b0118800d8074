"""A plan: which models a table of results holds and how each is trained.

A TOML file with a title, the beams, and its rows::

    title = "Flickr8k"
    beams = [1, 3]
    [[row]]
    name = "lstm"
    recipe = "flickr8k"
    options = {architecture = "lstm"}       # of TrainOptions, over the recipe's
    seeds = [0, 1]
    [[row]]
    name = "lstm, CIDEr"
    init_from = "lstm"                      # a second stage, from the row's run of the same seed
    options = {reward = "cider"}
    [[row]]
    name = "lstm, word vectors"
    recipe = "flickr8k"
    options = {architecture = "lstm"}
    vectors = 256                           # word2vec of that size on the training captions
    [[row]]
    name = "both"
    members = ["lstm", "lstm, CIDEr"]       # all their runs as an ensemble
    [[compare]]
    rows = ["lstm", "lstm, CIDEr"]          # paired bootstrap of their first runs
    [[published]]
    name = "..."                            # a row of the paper's figures, as text
"""

import tomllib
from dataclasses import dataclass, field, replace
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError
from ..files import read_text
from ..training.options import TrainOptions
from ..training.recipes import read_recipe

__all__ = ["Plan", "Row", "plan_names", "read_plan"]


@dataclass(frozen=True)
class Row:
    """One model of a table; see the module.

    ``members`` names the rows of an ensemble, which has no training of its own.
    """

    name: str
    recipe: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    init_from: str | None = None
    vectors: int = 0
    members: tuple[str, ...] = ()

    def run_name(self, seed: int) -> str:
        """The folder of the run with a seed."""
        words = "".join(c if c.isalnum() else " " for c in self.name.lower()).split()
        return f"{'-'.join(words)}-seed{seed}"

    def train_options(self, seed: int, encoder_weights: str | None) -> TrainOptions:
        """What the run with a seed is made of, apart from ``init_from``."""
        values = read_recipe(self.recipe) if self.recipe else {}
        values |= self.options | {"seed": seed}
        if encoder_weights:
            values["encoder_weights"] = encoder_weights
        return TrainOptions.from_dict(values, f"row {self.name!r}")


@dataclass(frozen=True)
class Plan:
    """A table to be made."""

    title: str
    beams: tuple[int, ...]
    rows: tuple[Row, ...]
    compare: tuple[tuple[str, str], ...] = ()
    published: tuple[dict[str, str], ...] = ()

    def row(self, name: str) -> Row:
        """The row of a name."""
        return next(row for row in self.rows if row.name == name)

    def check_ensembles(self, encoder_weights: str | None) -> None:
        """Refuse, before hours of work, an ensemble whose members would have different CNNs.

        Raises:
            UsageError: naming the row and two of its members.
        """
        for row in self.rows:
            runs = [(m, seed) for m in map(self.row, row.members) for seed in m.seeds]
            for (first, one), (other, two) in pairwise(runs):
                if self._cnn(first, one, encoder_weights) != self._cnn(other, two, encoder_weights):
                    raise UsageError(
                        f"row {row.name!r}: an ensemble needs one CNN, but {first.name!r} (seed "
                        f"{one}) and {other.name!r} (seed {two}) have each its own"
                    )

    def _cnn(self, row: Row, seed: int, encoder_weights: str | None) -> tuple[Any, ...]:
        """What tells the CNN of a run from others: equal means the same weights."""
        options = row.train_options(seed, encoder_weights)
        if options.encoder_trainable != "none":
            return row.name, seed
        if row.init_from:
            return self._cnn(self.row(row.init_from), seed, encoder_weights)
        # Each run may project the grid in its own way: that is no part of the CNN.
        config = replace(options.encoder_config(), project=None)
        return options.encoder_from, config, seed if config.weights == "none" else None


def plan_names() -> list[str]:
    """The plans that come with gazetell."""
    folder = resources.files(__package__) / "plans"
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".toml"))


def read_plan(name: str) -> Plan:
    """A plan by name or file.

    Raises:
        UsageError: no such plan.
        DataError: not TOML, an option that does not exist, or a row that names an unknown one.
    """
    if name in plan_names():
        source = f"plan {name}"
        text = (resources.files(__package__) / "plans" / f"{name}.toml").read_text("utf-8")
    elif Path(name).suffix == ".toml":
        source, text = name, read_text(name)
    else:
        raise UsageError(f"plan {name}: expected a .toml file or one of {', '.join(plan_names())}")
    try:
        values = tomllib.loads(text)
        plan = Plan(
            title=values["title"],
            beams=tuple(values["beams"]),
            rows=tuple(_row(row) for row in values["row"]),
            compare=tuple((a, b) for a, b in (pair["rows"] for pair in values.get("compare", []))),
            published=tuple(values.get("published", [])),
        )
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{source}: is not TOML: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{source}: is no plan: {type(error).__name__} {error}") from error
    _check(plan, source)
    return plan


def _row(values: dict[str, Any]) -> Row:
    lists: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Row(**lists)


def _check(plan: Plan, source: str) -> None:
    """Refuse a plan before hours of work, not after."""
    known: list[str] = []
    for row in plan.rows:
        for name in (*row.members, *([row.init_from] if row.init_from else [])):
            if name not in known:
                raise DataError(f"{source}: row {row.name!r} needs {name!r}, which is no row above")
        if row.name in known:
            raise DataError(f"{source}: two rows are named {row.name!r}")
        if not row.members:
            row.train_options(0, None)
        known.append(row.name)
    for pair in plan.compare:
        if unknown := [name for name in pair if name not in known]:
            raise DataError(f"{source}: compares {unknown[0]!r}, which is no row")

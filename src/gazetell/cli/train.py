"""``gazetell train`` and ``gazetell reproduce``.

The options of ``train`` are those of training and of all architectures. They stand beside the
models, whose modules load torch, which takes seconds. So a command line is read by their names and
types as the source has them, and only the help loads them.
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import make_dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal  # noqa: F401  # Literal: in the source

from cyclopts import Group, Parameter

from ..data.prepare import prepare
from ..data.readers.captions import flickr8k
from ..data.readers.rows import BadRows
from ..data.records import Dataset
from ..errors import UsageError
from ..files import check_new_run, check_run, read_toml, toml_names
from .terminal import on_terminal, report

if TYPE_CHECKING:
    from ..training.options import Flag

Recipe = Annotated[str | None, Parameter(name=("--recipe", "--config"))]
SOURCE = resources.files("gazetell")
OWNERS = ("encoders", "captioners", "answerers")  # of options, and training


@cache
def declared() -> dict[str, str]:
    """The type of each option of a run by its name, as the source writes it."""
    found: dict[str, str] = {}
    for path in (*(f"models/{name}.py" for name in OWNERS), "training/options.py"):
        for owner in ast.parse((SOURCE / path).read_text(encoding="utf-8")).body:
            for each in owner.body if isinstance(owner, ast.ClassDef) else ():
                match each:
                    case ast.AnnAssign(
                        target=ast.Name(name), value=ast.Call(func=ast.Name("option"))
                    ):
                        if path == "models/encoders.py":
                            name = "encoder" if name == "name" else f"encoder_{name}"
                        found[name] = ast.unparse(each.annotation)
    return found


def named_class(name: str, names: Iterable[str]) -> type[Any]:
    """A dataclass of options of a run, for a verb to take: None where one was not given."""
    rows = [(each, f"{declared()[each]} | None", None) for each in names]
    # Cyclopts takes a class without a module of its own for a plain value.
    return make_dataclass(name, rows, frozen=True, namespace={"__module__": __name__})


def explained_class(options: "Iterable[Flag]") -> type[Any]:
    """The same with the help of each option, in groups."""
    groups: dict[str, Group] = {}
    rows = []
    for each in options:
        group = groups.setdefault(each.group, Group.create_ordered(each.group))
        unset = each.default is None or each.default is False or each.default == ()
        default = False if unset else str(each.default)
        shown = Parameter(help=each.help, group=group, show_default=default)
        rows.append((each.name, Annotated[each.type | None, shown], None))
    return make_dataclass("Given", rows, frozen=True, namespace={"__module__": __name__})


def given(options: Any) -> dict[str, Any]:
    """Those that were given."""
    return {name: value for name, value in vars(options).items() if value is not None}


Given = named_class("Given", declared())


def train(
    data: Path | None = None,
    *,
    out: Path | None = None,
    recipe: Recipe = None,
    resume: Path | None = None,
    finish: Path | None = None,
    trust: bool = False,
    options: Annotated[Given, Parameter(name="*")] = Given(),  # type: ignore[valid-type]  # noqa: B008
) -> None:
    """Train a captioner or an answerer on a prepared dataset, or go on with a stopped run.

    Args:
        data: A prepared dataset (see gazetell data).
        out: The run folder to write; must be new.
        recipe: A recipe's name or .toml file; any option given beside it wins. Each run folder has
            a recipe.toml that repeats the run.
        resume: Go on with the run in this folder, with its own options but for the devices and
            --epochs.
        finish: Write the best model so far of the stopped run in this folder.
        trust: Run the code of architectures that are not of gazetell, which the run, the recipe or
            a model names.
        options: Options of the run.
    """
    chosen = given(options)
    whole = data is not None or out is not None or recipe is not None
    if finish is not None:
        if whole or resume is not None or chosen.keys() - {"device"}:
            raise UsageError("--finish takes only the run folder, with --device")
        check_run(finish)
        from ..training.fit import finish as finish_run

        finish_run(finish, **chosen, trust=trust, report=report)
        return
    if resume is not None:
        if whole or chosen.keys() - {"device", "devices", "nodes", "strategy", "epochs"}:
            raise UsageError(
                "--resume takes only the run folder, with --epochs, --device, --devices, --nodes "
                "and --strategy; its other options are read from there"
            )
        check_run(resume)
        from ..training.fit import resume as resume_run

        resume_run(resume, **chosen, trust=trust, report=report, progress=on_terminal())
        return
    if data is None:
        raise UsageError("expected a prepared dataset and --out RUN, --resume RUN or --finish RUN")
    if out is None:
        raise UsageError("--out is missing: for example --out runs/mine")
    check_data(data, recipe)
    check_new_run(out)
    from ..training.fit import train as train_run
    from ..training.options import train_options

    run = train_options(recipe, trust=trust, **chosen)
    train_run(data, out, run, trust=trust, report=report, progress=on_terminal())


def check_data(data: Path, recipe: str | None) -> None:
    """Refuse what is no prepared dataset and no recipe."""
    if not (data / "dataset.json").is_file():
        Dataset.open(data)  # says what is wrong
    if recipe is not None:
        read_toml(recipe, SOURCE / "training" / "recipes", "--recipe")


def with_all_options(
    verb: Callable[..., None], tokens: Sequence[str], names: Sequence[str] = ()
) -> AbstractContextManager[None]:
    """Give a verb the options that only the models know, all or these, where it needs them.

    That is the help of options, and those of the own architecture that it names.
    """
    following = zip(tokens, [*tokens[1:], ""], strict=True)
    pairs = (x.partition("=")[::2] if "=" in x else (x, after) for x, after in following)
    named = dict(pairs).get("--architecture", "")
    if ":" not in named and not {"--help", "-h"} & {*tokens}:
        return nullcontext()
    from ..models.options import import_architecture
    from ..training.options import flags

    import_architecture(named, trust=True)  # somebody wrote it there
    every = flags(named)
    return _taking(verb, explained_class([every[name] for name in names or every]))


@contextmanager
def _taking(verb: Any, options: type[Any]) -> Iterator[None]:
    """Let a verb take these options."""
    before = verb.__annotations__["options"]
    verb.__annotations__["options"] = Annotated[options, Parameter(name="*")]
    try:
        yield
    finally:
        verb.__annotations__["options"] = before


def reproduce(
    plan: str | None = None,
    data: Path | None = None,
    *,
    out: Path | None = None,
    encoder_weights: str | None = None,
    split: str | None = None,
    java: bool = False,
    trust: bool = False,
) -> None:
    """Make a table of results: every model trained, measured and printed; a killed run goes on.

    Args:
        plan: A plan's name or .toml file; without it the plans are listed.
        data: A prepared dataset, or the folder of those that the plan names; for the plan flickr8k
            also the folder of Flickr8k itself.
        out: The folder of the table; runs/PLAN if not given.
        encoder_weights: Weights in place of the recipes' own, where these cannot be downloaded.
        split: Split to measure where the plan names none; test if not given.
        java: Also METEOR, where Java and pycocoevalcap are there.
        trust: Run the code of architectures that are not of gazetell, which the plan names.
    """
    plans = SOURCE / "plans"
    if plan is None:
        options = {"--out": out, "--encoder-weights": encoder_weights, "--split": split}
        for name, value in (options | {"--java": java or None}).items():
            if value is not None:
                raise UsageError(f"{name}: has no effect without a plan")
        print("\n".join(toml_names(plans)))
        return
    read_toml(plan, plans, "plan")
    if data is None:
        raise UsageError("expected a prepared dataset after the plan (see gazetell data)")
    if not data.is_dir():
        Dataset.open(data)  # says that it is none
    from ..reproduce import read_plan
    from ..reproduce import reproduce as make_table

    chosen = read_plan(plan, trust=trust)
    folder = out or Path("runs") / Path(plan).stem
    if not (data / "dataset.json").is_file() and plan == "flickr8k":
        if not (folder / "data" / "dataset.json").is_file():
            bad = BadRows()
            summary = prepare(flickr8k(data, bad=bad), folder / "data", bad=bad)
            for line in (summary.lines()[0], *summary.remarks()):
                report(line)
        elif not Dataset.open(folder / "data").root.is_relative_to(data.resolve()):
            raise UsageError(f"{folder / 'data'}: was prepared from another folder than {data}")
        data = folder / "data"
    make_table(
        chosen,
        data,
        folder,
        encoder_weights=encoder_weights,
        split=split or "test",
        java=java,
        report=report,
        show=lambda line: print(line, flush=True),
        progress=on_terminal(),
    )

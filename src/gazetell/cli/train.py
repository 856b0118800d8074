"""``gazetell train`` and ``gazetell reproduce``.

The options of ``train`` are those of training and of all architectures.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from ..data.prepare import prepare
from ..data.readers.captions import flickr8k
from ..data.readers.rows import BadRows
from ..data.records import Dataset
from ..errors import UsageError
from ..models.options import import_architecture
from ..reproduce import plan_names, read_plan
from ..reproduce import reproduce as make_table
from ..training.fit import finish as finish_run
from ..training.fit import resume as resume_run
from ..training.fit import train as train_run
from ..training.options import Flag, flags, train_options
from .terminal import on_terminal, report

Recipe = Annotated[str | None, Parameter(name=("--recipe", "--config"))]
GROUPS = {each.group: Group.create_ordered(each.group) for each in flags().values()}


def _field(each: Flag) -> tuple[str, Any, None]:
    """A flag whose value is None where it was not given."""
    unset = each.default is None or each.default is False or each.default == ()
    shown = Parameter(
        help=each.help, group=GROUPS[each.group], show_default=False if unset else str(each.default)
    )
    return each.name, Annotated[each.type | None, shown], None


def given_class(name: str, options: Iterable[Flag]) -> type[Any]:
    """A dataclass of options of a run, for a verb to take; see ``given``."""
    # Cyclopts takes a class without a module of its own for a plain value.
    own = {"__module__": __name__}
    return make_dataclass(name, map(_field, options), frozen=True, namespace=own)


def given(options: Any) -> dict[str, Any]:
    """Those that were given."""
    return {name: value for name, value in vars(options).items() if value is not None}


Given = given_class("Given", flags().values())


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
        finish_run(finish, **chosen, trust=trust, report=report)
        return
    if resume is not None:
        if whole or chosen.keys() - {"device", "devices", "nodes", "strategy", "epochs"}:
            raise UsageError(
                "--resume takes only the run folder, with --epochs, --device, --devices, --nodes "
                "and --strategy; its other options are read from there"
            )
        resume_run(resume, **chosen, trust=trust, report=report, progress=on_terminal())
        return
    if data is None or out is None:
        raise UsageError("expected a prepared dataset and --out RUN, --resume RUN or --finish RUN")
    run = train_options(recipe, trust=trust, **chosen)
    train_run(data, out, run, trust=trust, report=report, progress=on_terminal())


@contextmanager
def taking_own(tokens: Sequence[str]) -> Iterator[None]:
    """Let ``train`` take the options of the own architecture that its command line names, too."""
    following = zip(tokens, [*tokens[1:], ""], strict=True)
    pairs = (x.partition("=")[::2] if "=" in x else (x, after) for x, after in following)
    named = dict(pairs).get("--architecture", "")
    import_architecture(named, trust=True)  # somebody wrote it there
    before = train.__annotations__["options"]
    if ":" in named:
        taken = given_class("Given", flags(named).values())
        train.__annotations__["options"] = Annotated[taken, Parameter(name="*")]
    try:
        yield
    finally:
        train.__annotations__["options"] = before


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
    if plan is None:
        options = {"--out": out, "--encoder-weights": encoder_weights, "--split": split}
        for name, value in (options | {"--java": java or None}).items():
            if value is not None:
                raise UsageError(f"{name}: has no effect without a plan")
        print("\n".join(plan_names()))
        return
    chosen = read_plan(plan, trust=trust)
    if data is None:
        raise UsageError("expected a prepared dataset after the plan (see gazetell data)")
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

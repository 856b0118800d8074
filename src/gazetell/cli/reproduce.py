"""``gazetell reproduce``."""

from pathlib import Path

from ..data.prepare import prepare
from ..data.readers import BadRows, flickr8k
from ..data.records import Dataset
from ..errors import UsageError
from ..reproduce import plan_names, read_plan
from ..reproduce import reproduce as make_table
from .terminal import on_terminal, report


def reproduce(
    plan: str | None = None,
    data: Path | None = None,
    *,
    out: Path | None = None,
    encoder_weights: str | None = None,
    split: str | None = None,
    java: bool = False,
) -> None:
    """Make a table of results: every model trained, measured and printed; a killed run goes on.

    Args:
        plan: A plan's name or .toml file; without it the plans are listed.
        data: A prepared dataset; for the plan flickr8k also the folder of Flickr8k itself.
        out: The folder of the table; runs/PLAN if not given.
        encoder_weights: Instead of the recipes' own, where these cannot be downloaded.
        split: That is measured, test if not given.
        java: Also METEOR, where Java and pycocoevalcap are there.
    """
    if plan is None:
        options = {"--out": out, "--encoder-weights": encoder_weights, "--split": split}
        for name, value in (options | {"--java": java or None}).items():
            if value is not None:
                raise UsageError(f"{name}: has no effect without a plan")
        print("\n".join(plan_names()))
        return
    chosen = read_plan(plan)
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

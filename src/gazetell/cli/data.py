"""``gazetell data``: a verb a source, made from its reader, and ``scenes`` and ``show``."""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from ..data.prepare import Summary, read_and_prepare, summarise
from ..data.readers import READERS
from ..data.readers.vqa import write_vqa_text
from ..data.records import Dataset
from ..process import bar
from .terminal import on_terminal, print_json, report

app = App(name="data")


@dataclass(frozen=True)
class _Preparing:
    """Options of every source.

    Attributes:
        skip_bad: Leave bad rows and pictures out and list them in OUT/quarantine.jsonl, instead of
            writing nothing.
        without: Leave out the pictures that this prepared dataset has, or FOLDER:SPLIT of it.
        check: Look for each picture (exists), open each (decode), or trust the files (none).
        json: Print the summary as one JSON object.
    """

    skip_bad: bool = False
    without: tuple[str, ...] = ()
    check: Literal["exists", "decode", "none"] = "exists"
    json: bool = False


def _verb(reader: Callable[..., Dataset]) -> Callable[..., None]:
    """The verb of a reader: its own options, --out, and those of every source."""
    taken = inspect.signature(reader).parameters

    def verb(
        *arguments: Any,
        out: Annotated[Path, Parameter(help="The prepared folder to write.")],
        common: Annotated[_Preparing, Parameter(name="*")] = _Preparing(),
        **options: Any,
    ) -> None:
        how = {"skip_bad": common.skip_bad, "without": common.without, "check": common.check}
        with bar("pictures", on_terminal()) if "progress" in taken else nullcontext() as update:
            if "progress" in taken:
                options["progress"] = update
            summary = read_and_prepare(reader, *arguments, out=out, **how, **options)  # type: ignore[arg-type]
        _show(summary, common.json)

    given = ("bad", "pictures", "progress")
    own = [option for name, option in taken.items() if name not in given]
    shared = [inspect.signature(verb).parameters[name] for name in ("out", "common")]
    verb.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    verb.__doc__ = reader.__doc__
    return verb


for name, reader in READERS.items():
    app.command(_verb(reader), name=name)


@app.command(name="write-vqa-text")
def _write_vqa_text(prepared: Path, *, out: Path) -> None:
    """Write the questions of a prepared dataset as the text files of the VQA tutorials.

    Args:
        prepared: A prepared dataset with questions.
        out: The folder to write questions_train2014.txt, answers_train2014_modal.txt, ... to.
    """
    dataset = Dataset.open(prepared)
    written = write_vqa_text(dataset, out)
    shares = ", ".join(f"{split} {count:,}" for split, count in written.items())
    print(f"questions written to {out}: {shares}")
    left_out = len(dataset.questions) - sum(written.values())
    if left_out:
        report(f"questions without an answer, left out: {left_out:,}")


@app.command
def scenes(
    *,
    out: Path,
    train: int = 8000,
    val: int = 200,
    test: int = 600,
    captions: int = 5,
    questions: int = 6,
    seed: int = 0,
    workers: int = 2,
    json: bool = False,
) -> None:
    """Generated scenes: coloured shapes with captions, questions, boxes and a known truth.

    Args:
        out: The folder to write.
        train: Pictures to train on.
        val: Pictures for validation.
        test: Pictures for testing, of contents that training does not have.
        captions: Captions per picture.
        questions: Questions per picture.
        seed: Random seed of the scenes.
        workers: Processes that draw.
        json: Print the summary as one JSON object.
    """
    from ..scenes import generate

    report(f"generating {train + val + test} scenes in {out}")
    with bar("scenes", on_terminal()) as update:
        dataset = generate(
            out,
            train=train,
            val=val,
            test=test,
            captions_per_image=captions,
            questions_per_image=questions,
            seed=seed,
            workers=workers,
            progress=update,
        )
    _show(summarise(dataset), json)


@app.command
def show(folder: Path, *, json: bool = False) -> None:
    """Sum up a prepared dataset.

    Args:
        folder: A prepared dataset.
        json: Print one JSON object instead of lines.
    """
    _show(summarise(Dataset.open(folder)), json)


def _show(summary: Summary, json: bool) -> None:
    """Print a summary; what was decided, left out, or is doubtful goes to standard error."""
    if json:
        print_json(summary.to_dict())
    else:
        print("\n".join(summary.lines()))
    for line in summary.remarks():
        report(line)

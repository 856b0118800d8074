"""``gazetell demo``: the whole path on generated data, from nothing to a report."""

import shlex
import shutil
import time
from pathlib import Path

from ..data import scenes
from ..data.images import open_image
from ..data.records import Dataset
from ..errors import UsageError
from ..files import read_jsonl
from ..inference.evaluate import Evaluation, evaluate
from ..inference.predictor import load
from ..inference.report import Example, write_report
from ..models.checkpoint import update_metrics
from ..progress import bar
from ..training.fit import train
from ..training.options import TrainOptions, read_recipe
from .terminal import on_terminal, report

__all__ = ["demo"]

BEAM = 3


def demo(
    *,
    out: Path = Path("runs/demo"),
    train_pictures: int = 7800,
    val_pictures: int = 100,
    test_pictures: int = 600,
    epochs: int | None = None,
    seed: int = 0,
    again: bool = False,
) -> None:
    """Generate scenes, train on them, evaluate, and write a report: minutes, no download.

    Args:
        out: The run folder; the pictures go to OUT/scenes.
        train_pictures: Pictures to train on.
        val_pictures: Pictures to choose the best epoch by.
        test_pictures: Pictures to measure on, of contents never seen in training.
        epochs: Passes over the training pictures; the recipe's if not given.
        seed: Of the scenes and of the training.
        again: Delete what an earlier demo left in OUT and begin anew.
    """
    began = time.perf_counter()
    _clear(out, again)
    data = out / "scenes"
    total = train_pictures + val_pictures + test_pictures
    report(f"1/4  generating {total} scenes in {data}")
    with bar("scenes", on_terminal()) as update:
        dataset = scenes.generate(
            data,
            train=train_pictures,
            val=val_pictures,
            test=test_pictures,
            questions_per_image=0,
            seed=seed,
            workers=2,
            progress=update,
        )
    report("2/4  training an attention LSTM from scratch")
    values = read_recipe("scenes") | {"seed": seed}
    if epochs is not None:
        values |= {"epochs": epochs}
    options = TrainOptions.from_dict(values, "demo")
    train(data, out, options, report=report, progress=on_terminal())
    report(f"3/4  captioning {test_pictures} scenes it never saw, beam {BEAM}")
    result = evaluate(load(out), dataset, split="test", beam=BEAM, progress=on_terminal())
    result.save(out / "evaluation" / f"test-beam{BEAM}")
    update_metrics(out, result.figures)
    report("4/4  writing the report")
    page = out / "report.html"
    commands = _commands(out, data, dataset)
    _write(page, out, dataset, result, commands)
    _summary(result, page, commands, time.perf_counter() - began)


def _clear(out: Path, again: bool) -> None:
    """Refuse to write over anything but, if asked, an earlier demo."""
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / "scenes").is_dir() and not (out / "training.json").is_file():
        raise UsageError(f"--out {out}: holds something else; expected a new or empty folder")
    if not again:
        raise UsageError(f"--out {out}: holds a demo; make it anew with --again, or name another")
    shutil.rmtree(out)


def _commands(out: Path, data: Path, dataset: Dataset) -> list[str]:
    """The command lines to go on with."""
    picture = next(dataset.path(r) for r in dataset.captions if r.split == "test")
    run, table = shlex.quote(str(out)), shlex.quote(str(data))
    return [
        f"gazetell caption {shlex.quote(str(picture))} --model {run} --gaze gaze.html",
        f"gazetell evaluate {run} --data {table} --split test --beam 5",
        "gazetell data table captions.csv --images pictures/ --out data/mine",
    ]


def _write(
    page: Path, out: Path, dataset: Dataset, result: Evaluation, commands: list[str]
) -> None:
    """The report: figures, curves, a dozen scenes, best and worst."""

    def example(index: int) -> Example:
        caption, record = result.captions[index], result.records[index]
        verdict = None
        if result.verdicts is not None:
            found = result.verdicts[index]
            verdict = "true" if found.true else f"false: {found.reason}"
        return Example(
            open_image(dataset.path(record)),
            caption.text,
            caption.words,
            caption.attention,
            record.captions,
            result.scores[index],
            verdict,
        )

    order = sorted(range(len(result.scores)), key=lambda index: result.scores[index])
    dozen = range(min(12, len(order)))  # the order of scenes is random: the first are any
    figures = result.figures
    write_report(
        page,
        title="gazetell demo: captions of generated scenes",
        command="gazetell demo",
        figures=_headline(figures),
        history=[row for _, row in read_jsonl(out / "metrics.jsonl")],
        examples=[example(index) for index in dozen],
        best=[example(index) for index in reversed(order[-4:])],
        worst=[example(index) for index in order[:4]],
        commands=commands,
        notes=[
            "A caption is judged true by a grammar that reads it back into claims (what there is, "
            "how many, which colour, shape and size, where, on which background) and checks each "
            "against the scene that was drawn. A caption it cannot read counts as false.",
            "A person's level is what one reference caption scores against the others; the "
            "model's CIDEr beside it is against those same others.",
            "Pointing: how often the gaze of a word is strongest inside the box of an object "
            "that the word names.",
        ],
        date=time.strftime("%Y-%m-%d"),
    )


def _headline(figures: dict[str, object]) -> dict[str, float | int | str | None]:
    """The figures of the report and of the summary."""
    metrics, human, pointing = figures["metrics"], figures["human"], figures["pointing"]
    shown: dict[str, float | int | str | None] = {"true captions": _share(figures["truth"])}
    if isinstance(human, dict):
        shown["CIDEr"] = human["model_cider"]
        shown["CIDEr of a person"] = human["cider"]
    if isinstance(metrics, dict):
        shown |= {f"BLEU-{n}": metrics[f"bleu_{n}"] for n in range(1, 5)}
        shown["ROUGE-L"] = metrics["rouge_l"]
    if isinstance(pointing, dict):
        shown["gaze on the object"] = _share(pointing["score"])
        shown["by chance"] = _share(pointing["chance"])
    return shown


def _share(value: object) -> str | None:
    return f"{100 * value:.1f} %" if isinstance(value, float) else None


def _summary(result: Evaluation, page: Path, commands: list[str], seconds: float) -> None:
    """Say what was done, the figures, and what to try next."""
    print(f"Trained on generated scenes and captioned {len(result.records)} it never saw:")
    for name, value in _headline(result.figures).items():
        print(f"  {name:<20} {f'{value:.4f}' if isinstance(value, float) else value}")
    print(f"Report: {page}   ({seconds:.0f} s in all)")
    print("Try next:")
    for command in commands:
        print(f"  {command}")

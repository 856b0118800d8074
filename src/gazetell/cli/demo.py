"""``gazetell demo``: the whole path on generated data, from nothing to a report.

The answerer stands on the captioner's encoder, frozen: both share one look at a picture.
"""

import shlex
import shutil
import time
from pathlib import Path
from typing import Any

from .. import scenes
from ..data.records import CaptionRecord, Dataset, QuestionRecord
from ..errors import UsageError
from ..files import read_jsonl, write_error
from ..inference.evaluate import Evaluation, evaluate, evaluate_answers
from ..inference.predict import Answer, Answerer, Caption, Captioner
from ..inference.report import Example, figure_text, write_report
from ..models.folder import update_metrics
from ..pictures import open_image
from ..progress import bar
from ..training.fit import train
from ..training.options import TrainOptions, read_recipe
from .terminal import on_terminal, report

__all__ = ["demo"]

Captions = Evaluation[CaptionRecord, Caption]
Answers = Evaluation[QuestionRecord, Answer]
BEAM = 3
STEPS = 6
QUESTIONS = 6  # a picture
# What a demo leaves in its folder, finished or not; a folder with anything else is not deleted.
OWN = {
    *("scenes", "answerer", "report.html"),
    *("README.md", "config.json", "model.safetensors", "tokenizer.json", "metrics.json"),
    *("checkpoints", "evaluation", "metrics.jsonl", "tensorboard", "training.json"),
}


def demo(
    *,
    out: Path = Path("runs/demo"),
    train_pictures: int = 7800,
    val_pictures: int = 100,
    test_pictures: int = 600,
    epochs: int | None = None,
    answer_epochs: int | None = None,
    seed: int = 0,
    again: bool = False,
) -> None:
    """Generate scenes, train on them, evaluate, and write a report: minutes, no download.

    Args:
        out: The run folder of the captioner; the pictures go to OUT/scenes, the model that answers
            questions to OUT/answerer.
        train_pictures: Pictures to train on.
        val_pictures: Pictures to choose the best epoch by.
        test_pictures: Pictures to measure on, of contents never seen in training.
        epochs: Passes over the training pictures; the recipe's if not given.
        answer_epochs: Passes over the training questions; the recipe's if not given.
        seed: Of the scenes and of the training.
        again: Delete what an earlier demo left in OUT and begin anew.
    """
    began = time.perf_counter()
    for name, count, least in (
        ("train", train_pictures, 1),
        ("val", val_pictures, 1),
        ("test", test_pictures, 2),  # CIDEr weighs words by the pictures they occur in
    ):
        if count < least:
            raise UsageError(f"--{name}-pictures {count}: expected {least} or more")
    for option, value in (("--epochs", epochs), ("--answer-epochs", answer_epochs)):
        if value is not None and value < 1:
            raise UsageError(f"{option} {value}: expected 1 or more")
    _clear(out, again)
    data = out / "scenes"
    total = train_pictures + val_pictures + test_pictures
    report(f"1/{STEPS}  generating {total} scenes in {data}")
    with bar("scenes", on_terminal()) as update:
        dataset = scenes.generate(
            data,
            train=train_pictures,
            val=val_pictures,
            test=test_pictures,
            questions_per_image=QUESTIONS,
            seed=seed,
            workers=2,
            progress=update,
        )
    report(f"2/{STEPS}  training an attention LSTM from scratch")
    _train(data, out, "scenes", seed, epochs)
    report(f"3/{STEPS}  captioning {test_pictures} scenes it never saw, beam {BEAM}")
    result = evaluate(Captioner.load(out), dataset, beam=BEAM, progress=on_terminal())
    result.save(out / "evaluation" / f"test-beam{BEAM}")
    update_metrics(out, result.figures)
    report(f"4/{STEPS}  training DMN+ on the questions, with the same encoder, frozen")
    answerer = out / "answerer"
    _train(data, answerer, "scenes-answers", seed, answer_epochs, encoder_from=str(out))
    report(f"5/{STEPS}  answering questions about the {test_pictures} scenes")
    model = Answerer.load(answerer)
    answered = evaluate_answers(model, dataset, evidence=True, progress=on_terminal())
    answered.save(answerer / "evaluation" / "test")
    update_metrics(answerer, answered.figures)
    report(f"6/{STEPS}  writing the report")
    page = out / "report.html"
    commands = _commands(out, answerer, data, dataset)
    _write(page, out, dataset, result, _asked(answered, dataset, model), answered, commands)
    _summary(result, answered, page, commands, time.perf_counter() - began)


def _train(
    data: Path, out: Path, recipe: str, seed: int, epochs: int | None, **more: object
) -> None:
    """Train by a recipe."""
    values = read_recipe(recipe) | {"seed": seed} | more
    if epochs is not None:
        values |= {"epochs": epochs, "patience": epochs}
    options = TrainOptions.from_dict(values, "demo")
    train(data, out, options, report=report, progress=on_terminal())


def _clear(out: Path, again: bool) -> None:
    """Refuse to write over anything but, if asked, an earlier demo."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; expected a folder")
    names = {path.name for path in out.iterdir()} if out.exists() else set()
    if not names:
        return
    if "scenes" not in names or names - OWN:
        raise UsageError(f"--out {out}: holds something else; expected a new or empty folder")
    if not again:
        raise UsageError(f"--out {out}: holds a demo; make it anew with --again, or name another")
    try:
        shutil.rmtree(out)
    except OSError as error:
        raise write_error(out, error) from error


def _commands(out: Path, answerer: Path, data: Path, dataset: Dataset) -> list[str]:
    """The command lines to go on with."""
    picture = next(dataset.path(r) for r in dataset.captions if r.split == "test")
    run, other, table = (shlex.quote(str(path)) for path in (out, answerer, data))
    return [
        f"gazetell caption {shlex.quote(str(picture))} --model {run} --gaze gaze.html",
        f"gazetell ask {shlex.quote(str(picture))} 'how many circles are there?' --model {other}",
        f"gazetell evaluate {run} --data {table} --split test --beam 5",
        "gazetell data table captions.csv --images pictures/ --out data/mine",
    ]


def _asked(answered: Answers, dataset: Dataset, model: Answerer) -> list[Example]:
    """Eight questions about different scenes, with the gaze of each pass."""
    asked: dict[str, list[int]] = {}
    for index, record in enumerate(answered.records):
        asked.setdefault(record.image, []).append(index)
    examples = []
    for number, indices in enumerate(list(asked.values())[:8]):
        index = indices[number % len(indices)]  # of another type each time
        record = answered.records[index]
        answer = model.ask(dataset.path(record), record.question)
        right = answered.scores[index] == 1
        examples.append(
            Example(
                dataset.path(record),
                f"{record.question} {answer.text} ({100 * answer.confidence:.1f} %)",
                answer.passes,
                answer.attention,
                record.answers,
                verdict="right" if right else "wrong",
                right=right,
            )
        )
    return examples


def _write(
    page: Path,
    out: Path,
    dataset: Dataset,
    result: Captions,
    asked: list[Example],
    answered: Answers,
    commands: list[str],
) -> None:
    """The report: figures, curves, a dozen scenes, questions, best and worst."""

    def example(index: int) -> Example:
        caption, record = result.results[index], result.records[index]
        verdict, true = None, None
        if result.verdicts is not None:
            true = result.verdicts[index].true
            verdict = "true" if true else f"false: {result.verdicts[index].reason}"
        return Example(
            open_image(dataset.path(record)),
            caption.text,
            caption.words,
            caption.attention,
            record.captions,
            result.scores[index],
            verdict,
            true,
        )

    order = sorted(range(len(result.scores)), key=lambda index: result.scores[index])
    dozen = range(min(12, len(order)))  # the order of scenes is random: the first are any
    few = min(4, len(order) // 2)  # no picture is among the best and the worst
    figures = result.figures
    write_report(
        page,
        title="gazetell demo: captions of generated scenes, and answers",
        command="gazetell demo",
        figures=_headline(figures, answered.figures),
        history=[row for _, row in read_jsonl(out / "metrics.jsonl")],
        examples=[example(index) for index in dozen],
        best=[example(index) for index in reversed(order[-few:])],
        worst=[example(index) for index in order[:few]],
        answers=asked,
        commands=commands,
        notes=[
            "A caption is judged true by a grammar that reads it back into claims (what there is, "
            "how many, which colour, shape and size, where, on which background) and checks each "
            "against the scene that was drawn. A caption it cannot read counts as false.",
            "A person's level is what one reference caption scores against the others; the "
            "model's CIDEr beside it is against those same others.",
            "Pointing: how often the gaze of a word is strongest inside the box of an object "
            "that the word names; of an answer, how often that of its last pass is strongest "
            "inside the box of a thing the question is about.",
            "Question only: the most frequent answer to questions that begin with the same two "
            "words, without a look at the picture.",
        ],
        date=time.strftime("%Y-%m-%d"),
    )


def _headline(
    figures: dict[str, Any], answered: dict[str, Any]
) -> dict[str, float | int | str | None]:
    """The figures of the report and of the summary."""
    shown: dict[str, float | int | str | None] = {"true captions": _share(figures["truth"])}
    if human := figures["human"]:
        shown["CIDEr"] = human["model_cider"]
        shown["CIDEr of a person"] = human["cider"]
    shown |= {f"BLEU-{n}": figures["metrics"][f"bleu_{n}"] for n in range(1, 5)}
    shown["ROUGE-L"] = figures["metrics"]["rouge_l"]
    if pointing := figures["pointing"]:
        shown["gaze on the object"] = _share(pointing["score"])
        shown["by chance"] = _share(pointing["chance"])
    shown["right answers"] = f"{answered['metrics']['accuracy']:.1f} %"
    shown["question only"] = f"{answered['bias']['prefix']:.1f} %"
    shown["grey picture"] = f"{answered['evidence']['blank']['accuracy']:.1f} %"
    if passes := answered["pointing"]:
        shown["gaze of an answer on the object"] = _share(passes[-1]["score"])
    return shown


def _share(value: object) -> str | None:
    return f"{100 * value:.1f} %" if isinstance(value, float | int) else None


def _summary(
    result: Captions,
    answered: Answers,
    page: Path,
    commands: list[str],
    seconds: float,
) -> None:
    """Say what was done, the figures, and what to try next."""
    print(
        f"Trained on generated scenes; captioned {len(result.records)} that it never saw and "
        f"answered {len(answered.records)} questions about them:"
    )
    for name, value in _headline(result.figures, answered.figures).items():
        text = f"{value:.4f}" if isinstance(value, float) else figure_text(value)
        print(f"  {name:<32} {text}")
    print(f"Report: {page}   ({seconds:.0f} s in all)")
    print("Try next:")
    for command in commands:
        print(f"  {command}")

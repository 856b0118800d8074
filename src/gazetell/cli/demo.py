"""``gazetell demo``: photographs captioned and asked about, or a training from nothing.

Both end in a page, ``report.html``. In the training on generated scenes the answerer stands on the
captioner's encoder, frozen: a picture is encoded once for both.
"""

import re
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..data.records import CaptionRecord, Dataset, QuestionRecord
from ..errors import UsageError
from ..files import RUN_FILES, check_models, read_jsonl, write_error
from ..inference.report import Example, figure_text, write_report
from ..inference.results import Answer, Caption
from ..metrics import METRICS, TITLES, points
from ..process import bar
from .terminal import HERE, Computing, Here, on_terminal, one_line, report

if TYPE_CHECKING:
    from ..inference.evaluate import Evaluation
    from ..inference.predict import Answerer

    Captions = Evaluation[CaptionRecord, Caption]
    Answers = Evaluation[QuestionRecord, Answer]
Figures = Mapping[str, Any]
EXAMPLES = Path(str(resources.files("gazetell") / "examples"))
# What is asked about each of the photographs.
PHOTOGRAPHS = {
    "chelsea.jpg": ("What animal is this?", "What color are the eyes?", "Is this a dog?"),
    "coffee.jpg": ("What is in the cup?", "What color is the plate?", "What is the table made of?"),
    "camera.jpg": ("What is the man holding?", "Is the man standing?", "What color is the coat?"),
    "china.jpg": ("Is this a building?", "What color is the sky?", "Are there any trees?"),
    "flower.jpg": ("What kind of flower is this?", "What color is the flower?"),
    "astronaut.jpg": ("Is this a man or a woman?", "Is she smiling?", "What color is the suit?"),
    "rocket.jpg": ("Is it day or night?", "How many people are there?"),
}
OWN_DATA = "gazetell data table captions.csv --images pictures/ --out data/mine"
BEAM = 3
# Of the training's numbers; CIDEr weighs words by the pictures they occur in.
LEAST = {
    **{"train_pictures": 1, "val_pictures": 1, "test_pictures": 2},
    **{"epochs": 1, "answer_epochs": 1},
}
# What a demo leaves in its folder besides a run; a folder with anything else is not deleted.
OWN = {"scenes", "answerer", "report.html", "evaluation", ".lock"}
NOTES = (
    "A caption is judged true by a grammar that reads it back into claims (what there is, how "
    "many, which colour, shape and size, where, on which background) and checks each against the "
    "scene that was drawn. A caption it cannot read counts as false.",
    "A person's level is what one reference caption scores against the others; the model's CIDEr "
    "beside it is against those same others.",
    "Pointing: how often the gaze of a word is strongest inside the box of an object that the word "
    "names; of an answer, how often that of its last pass is strongest inside the box of a thing "
    "the question is about.",
    "Question only: the most frequent answer to questions that begin with the same two words, "
    "without the picture.",
)


@dataclass(frozen=True)
class Training:
    """What is generated and trained.

    Attributes:
        train_pictures: Pictures to train on; 7800 if not given.
        val_pictures: Pictures to choose the best epoch by; 100 if not given.
        test_pictures: Pictures to measure on, of contents never seen in training; 600 if not given.
        epochs: Passes over the training pictures; the recipe's if not given.
        answer_epochs: Passes over the training questions; the recipe's if not given.
        seed: Random seed of the scenes and of the training; 0 if not given.
        again: Delete what an earlier training left in OUT and start over.
    """

    train_pictures: int | None = None
    val_pictures: int | None = None
    test_pictures: int | None = None
    epochs: int | None = None
    answer_epochs: int | None = None
    seed: int | None = None
    again: bool = False


def demo(
    *,
    model: tuple[str, ...] = (),
    train: bool = False,
    out: Path | None = None,
    training: Annotated[Training, Parameter(name="*")] = Training(),
    computing: Here = HERE,
) -> None:
    """Caption photographs and ask about them, and write a page: seconds, no download.

    With --train: generate scenes, train on them from nothing, evaluate, and write the page.

    Args:
        model: A model folder, or hf://owner/name; give it twice for a captioner and an answerer.
            If not given, photo, which comes with gazetell.
        train: Train on generated scenes instead; minutes.
        out: The folder of report.html, runs/demo if not given. With --train the run folder of the
            captioner, runs/demo-train if not given; the pictures go to OUT/scenes, the model that
            answers questions to OUT/answerer.
        training: With --train alone.
        computing: Where.
    """
    if train:
        if model or computing.fit:
            name = "--model" if model else "--fit"
            raise UsageError(f"{name}: has no effect with --train, which makes its own model")
        _from_nothing(out or Path("runs/demo-train"), training, computing)
        return
    for name, value in asdict(training).items():
        if value is not None and value is not False:
            raise UsageError(f"{name}: has no effect without train")
    _photographs(model, out or Path("runs/demo"), computing)


def _photographs(names: tuple[str, ...], out: Path, computing: Computing) -> None:
    """Caption the photographs, ask about them, and write the page."""
    began = time.perf_counter()
    page = out / "report.html"
    if (out.exists() and not out.is_dir()) or (out / "scenes").exists():
        raise UsageError(f"--out {out}: is not empty; expected a new or empty folder")
    check_models(*names)
    from ..inference.load import load

    how: Any = asdict(computing)
    # Captioner, answerer, or both in one.
    models: list[Any] = [load(name, **how) for name in names] or [load(**how)]
    captioners = [model for model in models if hasattr(model, "caption")]
    answerers = [model for model in models if hasattr(model, "ask")]
    if len(captioners) != 1 or len(answerers) > 1:
        raise UsageError(
            f"--model {' '.join(names)}: expected a captioner, and at most an answerer"
        )
    if not answerers:
        report(f"no questions are asked: {names[0]} only captions; add an answerer with --model")
    loaded = time.perf_counter()
    examples = []
    for name, questions in PHOTOGRAPHS.items():
        picture = captioners[0].encode(EXAMPLES / name)
        caption: Caption = captioners[0].caption(picture)
        answers: list[Answer] = []
        for answerer in answerers:
            own = picture if answerer is captioners[0] else answerer.encode(EXAMPLES / name)
            answers = answerer.ask_all(own, questions)
        looked, doubt = (caption.words, caption.attention), caption.sure is False
        more: dict[str, Any] = {"asked": answers, "view": caption.view}
        if doubt:
            more["verdict"] = f"not sure ({100 * (caption.confidence or 0):.0f} %)"
        else:
            more["confidence"] = caption.confidence
        examples.append(Example(EXAMPLES / name, caption.text, *looked, **more))
        print(one_line(f"{name}: {caption.text}{'  (not sure)' * doubt}"))
        for answer in answers:
            print(one_line(f"  {answer.question} {answer.with_confidence}"))
    seconds = time.perf_counter() - loaded
    given = [f" --model {shlex.quote(name)}" for name in names] or [""]

    def named(model: Any) -> str:
        return given[models.index(model)]

    commands = [
        "# A photograph of your own, and where the model looked for each word",
        f"gazetell caption photo.jpg{named(captioners[0])} --gaze gaze.html",
        *(f"gazetell ask photo.jpg 'What animal is this?'{named(model)}" for model in answerers),
        "# Both in the browser, on this machine",
        f"gazetell serve{''.join(given)}",
        "# A model of your own, from nothing, on generated scenes",
        "gazetell demo --train",
        "# Your own pictures with captions, from a table, as data to train on",
        OWN_DATA,
    ]
    write_report(
        page,
        title="What it sees, and where it looked",
        command=f"gazetell demo{''.join(given)}",
        figures={
            "photographs": len(examples),
            "seconds for each": seconds / len(examples),
            "seconds to load": loaded - began,
        },
        lead="Choose a word to see where the model looked for it.",
        examples=examples,
        commands=commands,
        notes=(
            "The model ran on this machine; nothing was looked up and nothing was sent.",
            "A caption's percentage is the probability that it is as good as a person's; an "
            "answer's, that it is right. Below a bound, which the model learned, it is not sure.",
            *_credits(),
        ),
        date=time.strftime("%Y-%m-%d"),
    )
    print(f"Report: {page}   ({time.perf_counter() - began:.0f} s in all)")


def _credits() -> list[str]:
    """A line a photograph: title, author, licence, source."""
    text = (EXAMPLES / "CREDITS.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    lines = (f"{title}: {author}; {licence}." for _, title, author, licence, _ in rows)
    return [re.sub(r"\[(.+?)\]\((.+?)\)", r"\1, \2", line) for line in lines]  # links as text


def _from_nothing(out: Path, training: Training, computing: Computing) -> None:
    """Generate scenes, train on them, evaluate, and write the page."""
    for name, least in LEAST.items():
        number = getattr(training, name)
        if number is not None and number < least:
            raise UsageError(f"{name} {number}: expected {least} or more")
    from .. import scenes
    from ..inference.evaluate import evaluate, evaluate_answers
    from ..inference.predict import Answerer, Captioner
    from ..models.folder import update_metrics
    from ..training.options import train_options

    began = time.perf_counter()
    test_pictures, seed = training.test_pictures or 600, training.seed or 0
    sizes: dict[str, Any] = {"train": training.train_pictures or 7800, "test": test_pictures}
    sizes["val"] = training.val_pictures or 100
    where: dict[str, Any] = {"device": computing.device, "precision": computing.precision}
    train_options("scenes", seed=seed, **where)  # refuses a seed before anything is made
    _clear(out, training.again)
    data, answerer, page = out / "scenes", out / "answerer", out / "report.html"
    progress = on_terminal()
    report(f"1/6  generating {sum(sizes.values())} scenes in {data}")
    with bar("scenes", progress) as update:
        how: dict[str, Any] = {"questions_per_image": 6, "workers": 2, "progress": update}
        dataset = scenes.generate(data, seed=seed, **sizes, **how)
    report("2/6  training an attention LSTM from scratch")
    _train(data, out, "scenes", training.epochs, seed=seed, **where)
    report(f"3/6  captioning {test_pictures} scenes it never saw, beam {BEAM}")
    captions = evaluate(Captioner.load(out, **where), dataset, beam=BEAM, progress=progress)
    captions.save(out / "evaluation" / f"test-beam{BEAM}")
    update_metrics(out, captions.figures)
    report("4/6  training DMN+ on the questions, with the same encoder, frozen")
    more = {"seed": seed, "encoder_from": str(out), **where}
    _train(data, answerer, "scenes-answers", training.answer_epochs, **more)
    report(f"5/6  answering questions about the {test_pictures} scenes")
    model = Answerer.load(answerer, **where)
    answers = evaluate_answers(model, dataset, evidence=True, progress=progress)
    answers.save(answerer / "evaluation" / "test")
    update_metrics(answerer, answers.figures)
    report("6/6  writing the report")
    figures = _headline(captions.figures, answers.figures)
    scene = dataset.path(captions.records[0])
    picture, run, other, table = (shlex.quote(str(p)) for p in (scene, out, answerer, data))
    commands = [
        f"gazetell caption {picture} --model {run} --gaze gaze.html",
        f"gazetell ask {picture} 'how many circles are there?' --model {other}",
        f"gazetell evaluate {run} --data {table} --split test --beam 5",
        OWN_DATA,
    ]
    order = sorted(range(test_pictures), key=lambda index: captions.scores[index])
    few = min(4, test_pictures // 2)  # no picture is among the best and the worst
    write_report(
        page,
        title="Captions of generated scenes, and answers",
        command="gazetell demo --train",
        figures=figures,
        history=[row for _, row in read_jsonl(out / "metrics.jsonl")],
        # The order of scenes is random: the first dozen are any.
        examples=_told(captions, dataset, range(test_pictures)[:12]),
        best=_told(captions, dataset, order[: -few - 1 : -1]),
        worst=_told(captions, dataset, order[:few]),
        answers=_asked(answers, dataset, model),
        commands=commands,
        notes=NOTES,
        date=time.strftime("%Y-%m-%d"),
    )
    print(
        f"Trained on generated scenes; captioned {len(captions.records)} that it never saw and "
        f"answered {len(answers.records)} questions about them:"
    )
    for name, value in figures.items():
        print(f"  {name:<32} {figure_text(value)}")
    print(f"Report: {page}   ({time.perf_counter() - began:.0f} s in all)")
    print("Try next:", *commands, sep="\n  ")


def _clear(out: Path, again: bool) -> None:
    """Refuse to write over anything but, if asked, an earlier demo."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; expected a folder")
    names = {path.name for path in out.iterdir()} if out.exists() else set()
    if not names:
        return
    if "scenes" not in names or names - OWN - {*RUN_FILES}:
        raise UsageError(f"--out {out}: is not empty; expected a new or empty folder")
    if not again:
        raise UsageError(f"--out {out}: holds a demo; replace it with --again, or name another")
    try:
        shutil.rmtree(out)
    except OSError as error:
        raise write_error(out, error) from error


def _train(data: Path, out: Path, recipe: str, epochs: int | None, **more: Any) -> None:
    """Train by a recipe, for all of the epochs if their number is given."""
    from ..training.fit import train
    from ..training.options import train_options

    fixed: Any = {} if epochs is None else {"epochs": epochs, "patience": epochs}
    options = train_options(recipe, **more, **fixed)
    train(data, out, options, report=report, progress=on_terminal())


def _told(captions: "Captions", dataset: Dataset, indices: Sequence[int]) -> list[Example]:
    """Some test pictures with their captions and whether these are true."""
    examples = []
    for index in indices:
        record, caption = captions.records[index], captions.results[index]
        verdict = captions.verdicts[index] if captions.verdicts else None
        told = None if verdict is None else "true" if verdict.true else f"false: {verdict.reason}"
        examples.append(
            Example(
                dataset.path(record),
                caption.text,
                caption.words,
                caption.attention,
                record.captions,
                score=captions.scores[index],
                confidence=caption.confidence,
                verdict=told,
                right=None if verdict is None else verdict.true,
                view=caption.view,
            )
        )
    return examples


def _asked(answers: "Answers", dataset: Dataset, model: "Answerer") -> list[Example]:
    """Eight questions about different scenes, with the gaze of each pass."""
    asked: dict[str, list[int]] = {}
    for index, record in enumerate(answers.records):
        asked.setdefault(record.image, []).append(index)
    examples = []
    for number, indices in enumerate(list(asked.values())[:8]):
        index = indices[number % len(indices)]  # of another type each time
        record, right = answers.records[index], answers.scores[index] == 1
        answer = model.ask(dataset.path(record), record.question)
        examples.append(
            Example(
                dataset.path(record),
                f"{record.question} {answer.text} ({100 * answer.confidence:.1f} %)",
                answer.passes,
                answer.attention,
                record.answers,
                verdict="right" if right else "wrong",
                right=right,
                view=answer.view,
            )
        )
    return examples


def _headline(told: Figures, answered: Figures) -> dict[str, float | int | str | None]:
    """The figures of the report and of the summary; None for what was not computed."""

    def percent(value: float | None, scale: float = 100) -> str | None:
        return None if value is None else f"{scale * value:.1f} %"

    human, pointing, passes = told["human"] or {}, told["pointing"] or {}, answered["pointing"]
    metrics, blank = told["metrics"], answered["evidence"]["blank"]
    return {
        "true captions": percent(told["truth"]),
        "CIDEr": points("cider", human.get("model_cider")),
        "CIDEr of a person": points("cider", human.get("cider")),
        **{TITLES[n]: points(n, metrics[n]) for n in METRICS[:5]},
        "gaze on the object": percent(pointing.get("score")),
        "by chance": percent(pointing.get("chance")),
        "right answers": percent(answered["metrics"]["accuracy"], 1),
        "question only": percent(answered["bias"]["prefix"], 1),
        "grey picture": percent(blank["accuracy"], 1),
        "gaze of an answer on the object": percent(passes[-1]["score"]) if passes else None,
    }

"""``gazetell data``: one verb a source; those of questions are in ``data_questions.py``."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import App

from . import data_questions
from .preparing import DEFAULTS, Common, prepare, show_summary
from .terminal import on_terminal, report

if TYPE_CHECKING:
    from ..data.readers import BadRows
    from ..data.records import Dataset

__all__ = ["app"]

app = App(
    name="data",
    help="Prepare a dataset: COCO, Flickr8k, Flickr30k, coco.pt, VQA, easy-VQA, DAQUAR, your own "
    "table, or scenes.",
)
for verb in data_questions.VERBS:
    app.command(verb)


@app.command
def flickr8k(
    folder: Path, *, out: Path, images: Path | None = None, common: Common = DEFAULTS
) -> None:
    """Flickr8k: Flickr8k.token.txt with its three picture lists, or captions.txt.

    Args:
        folder: Where the files lie.
        out: The prepared folder to write.
        images: The folder of pictures, if it is not found below FOLDER.
        common: Options of every source.
    """
    from ..data import readers

    prepare(lambda bad: readers.flickr8k(folder, images=images, bad=bad), out, common)


@app.command
def flickr30k(
    folder: Path,
    *,
    out: Path,
    images: Path | None = None,
    val: int = 1000,
    test: int = 1000,
    seed: int = 0,
    common: Common = DEFAULTS,
) -> None:
    """Flickr30k: the .token file or results.csv; for Karpathy's split see gazetell data karpathy.

    Args:
        folder: Where the files lie.
        out: The prepared folder to write.
        images: The folder of pictures, if it is not found below FOLDER.
        val: Pictures for validation, drawn by the seed.
        test: Pictures for testing, drawn by the seed.
        seed: Of the draw.
        common: Options of every source.
    """
    from ..data import readers

    def read(bad: "BadRows") -> "Dataset":
        return readers.flickr30k(folder, images=images, val=val, test=test, seed=seed, bad=bad)

    prepare(read, out, common)


@app.command
def coco(
    folder: Path,
    *,
    out: Path,
    images: Path | None = None,
    year: Literal[2014, 2017] = 2014,
    train: Path | None = None,
    val: Path | None = None,
    test: Path | None = None,
    common: Common = DEFAULTS,
) -> None:
    """COCO Captions: the official captions_*.json of 2014 or 2017.

    Args:
        folder: Where the files lie.
        out: The prepared folder to write.
        images: The folder of pictures or of train2014, val2014, ...; FOLDER if not given.
        year: Which files to look for.
        train: The training captions, if they lie elsewhere.
        val: The validation captions, if they lie elsewhere.
        test: The test captions.
        common: Options of every source.
    """
    from ..data import readers

    given = {"train": train, "val": val, "test": test}
    files = {split: path for split, path in given.items() if path is not None}

    def read(bad: "BadRows") -> "Dataset":
        found = files or readers.coco_files(folder, year)
        return readers.coco(found, images or folder, bad=bad)

    prepare(read, out, common)


@app.command
def karpathy(
    file: Path,
    *,
    images: Path,
    out: Path,
    restval: Literal["train", "drop"] = "train",
    common: Common = DEFAULTS,
) -> None:
    """Karpathy's splits: dataset_coco.json, dataset_flickr8k.json, dataset_flickr30k.json.

    Args:
        file: The JSON file.
        images: The folder of pictures.
        out: The prepared folder to write.
        restval: What becomes of COCO's restval pictures.
        common: Options of every source.
    """
    from ..data import readers

    rest = "train" if restval == "train" else None
    prepare(lambda bad: readers.karpathy(file, images, restval=rest, bad=bad), out, common)


@app.command
def table(
    file: Path,
    *,
    out: Path,
    images: Path | None = None,
    image_column: str = "image",
    caption_column: str | None = None,
    question_column: str | None = None,
    answer_column: str | None = None,
    split_column: str | None = None,
    id_column: str | None = None,
    val: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    common: Common = DEFAULTS,
) -> None:
    """Your own .csv, .tsv or .jsonl: a row a caption, or a row a question and its answer.

    Several rows a picture are several captions or questions; several rows of the same picture and
    question are several answers.

    Args:
        file: The table.
        out: The prepared folder to write.
        images: The folder of pictures; the table's own if not given.
        image_column: The column with the picture's path below IMAGES.
        caption_column: The column with the caption; caption if not given.
        question_column: The column with the question; question if not given.
        answer_column: The column with the answer; answer if not given.
        split_column: The column with train, val or test; without it the seed draws.
        id_column: The column with the picture's id; its path if not given.
        val: Share of pictures for validation.
        test: Share of pictures for testing.
        seed: Of the draw.
        common: Options of every source.
    """
    from ..data import readers

    def read(bad: "BadRows") -> "Dataset":
        return readers.table(
            file,
            images=images,
            image_column=image_column,
            caption_column=caption_column,
            question_column=question_column,
            answer_column=answer_column,
            split_column=split_column,
            id_column=id_column,
            val=val,
            test=test,
            seed=seed,
            bad=bad,
        )

    prepare(read, out, common)


@app.command
def course(
    file: Path,
    *,
    out: Path,
    unknown: Literal["drop", "keep"] = "drop",
    test_from_val: float = 0.5,
    seed: int = 0,
    common: Common = DEFAULTS,
) -> None:
    """The coco.pt of EECS 498-007, assignment 4: its images go to OUT/images.

    Args:
        file: The file of torch.save.
        out: The prepared folder to write.
        unknown: Leave training captions with an unknown word out, or keep them for training with
            --min-frequency 2 or more. Those of val and test stay.
        test_from_val: Share of the pictures of val that becomes test, drawn by the seed.
        seed: Of the draw.
        common: Options of every source.
    """
    from ..data import readers
    from ..progress import bar

    def read(bad: "BadRows") -> "Dataset":
        with bar("pictures", on_terminal()) as update:
            return readers.course(
                file,
                out / "images",
                unknown=unknown,
                test_from_val=test_from_val,
                seed=seed,
                bad=bad,
                progress=update,
            )

    prepare(read, out, common)


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
        captions: Captions a picture.
        questions: Questions a picture.
        seed: Of the scenes.
        workers: Processes that draw.
        json: Print the summary as one JSON object.
    """
    from ..data.prepare import summarise
    from ..progress import bar
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
    show_summary(summarise(dataset), json)


@app.command
def show(folder: Path, *, json: bool = False) -> None:
    """Sum up a prepared dataset.

    Args:
        folder: A prepared dataset.
        json: Print one JSON object instead of lines.
    """
    from ..data.prepare import summarise
    from ..data.records import Dataset

    show_summary(summarise(Dataset.open(folder)), json)

"""``gazetell data``: the sources of questions; ``cli/data.py`` gives them their place."""

from pathlib import Path
from typing import TYPE_CHECKING

from .preparing import DEFAULTS, Common, prepare
from .terminal import report

if TYPE_CHECKING:
    from ..data.readers import BadRows
    from ..data.records import Dataset

__all__ = ["VERBS"]


def vqa(
    folder: Path,
    *,
    out: Path,
    images: Path | None = None,
    train: Path | None = None,
    train_annotations: Path | None = None,
    val: Path | None = None,
    val_annotations: Path | None = None,
    test: Path | None = None,
    test_annotations: Path | None = None,
    val_from_train: float = 0.0,
    seed: int = 0,
    common: Common = DEFAULTS,
) -> None:
    """VQA v1 and v2: the official questions and annotations, .json or .json.gz.

    Args:
        folder: Where the files lie.
        out: The prepared folder to write.
        images: The folder of pictures or of train2014, val2014, ...; FOLDER if not given.
        train: The training questions; with any of TRAIN, VAL, TEST nothing is searched for.
        train_annotations: Their annotations.
        val: The validation questions.
        val_annotations: Their annotations.
        test: The test questions.
        test_annotations: Their annotations; the official tests have none.
        val_from_train: Share of the pictures of train that becomes val; the official val is test
            then.
        seed: Of the draw.
        common: Options of every source.
    """
    from ..data import readers
    from ..errors import UsageError

    given = {
        "train": (train, train_annotations),
        "val": (val, val_annotations),
        "test": (test, test_annotations),
    }
    for split, (questions, annotations) in given.items():
        if questions is None and annotations is not None:
            raise UsageError(f"--{split}-annotations: expected --{split} with it")
        if questions is not None and annotations is None and split != "test":
            raise UsageError(f"--{split}: expected --{split}-annotations with it")
    files = {
        split: readers.VQAFiles(questions, annotations)
        for split, (questions, annotations) in given.items()
        if questions is not None
    }

    def read(bad: "BadRows") -> "Dataset":
        found = files or readers.vqa_files(folder, bad)
        return readers.vqa(
            found, images or folder, val_from_train=val_from_train, seed=seed, bad=bad
        )

    prepare(read, out, common)


def vqa_text(
    folder: Path,
    *,
    images: Path,
    out: Path,
    val_from_train: float = 0.0,
    seed: int = 0,
    common: Common = DEFAULTS,
) -> None:
    """The text files of the VQA tutorials in Keras: questions_train2014.txt and so on.

    Args:
        folder: Where the files lie.
        images: The folder of pictures or of train2014, val2014, ...
        out: The prepared folder to write.
        val_from_train: Share of the pictures of train that becomes val; the official val is test
            then.
        seed: Of the draw.
        common: Options of every source.
    """
    from ..data import readers

    def read(bad: "BadRows") -> "Dataset":
        return readers.vqa_text(folder, images, val_from_train=val_from_train, seed=seed, bad=bad)

    prepare(read, out, common)


def write_vqa_text(prepared: Path, *, out: Path) -> None:
    """Write the questions of a prepared dataset as the text files of the VQA tutorials.

    Args:
        prepared: A prepared dataset with questions.
        out: The folder to write questions_train2014.txt, answers_train2014_modal.txt, ... to.
    """
    from ..data import readers
    from ..data.records import Dataset

    dataset = Dataset.open(prepared)
    written = readers.write_vqa_text(dataset, out)
    shares = ", ".join(f"{split} {count:,}" for split, count in written.items())
    print(f"questions written to {out}: {shares}")
    left_out = len(dataset.questions) - sum(written.values())
    if left_out:
        report(f"questions without an answer, left out: {left_out:,}")


def easy_vqa(
    folder: Path, *, out: Path, val: float = 0.1, seed: int = 0, common: Common = DEFAULTS
) -> None:
    """easy-VQA: coloured shapes, train and test with questions.json and images.

    Args:
        folder: The folder of train, test and answers.txt.
        out: The prepared folder to write.
        val: Share of the pictures of train for validation.
        seed: Of the draw.
        common: Options of every source.
    """
    from ..data import readers

    prepare(lambda bad: readers.easy_vqa(folder, val=val, seed=seed, bad=bad), out, common)


def daquar(
    folder: Path,
    *,
    out: Path,
    pairs: Path | None = None,
    images: Path | None = None,
    val: float = 0.1,
    seed: int = 0,
    common: Common = DEFAULTS,
) -> None:
    """DAQUAR: all_qa_pairs.txt with the official lists of pictures.

    Args:
        folder: Where the files lie.
        out: The prepared folder to write.
        pairs: The file of questions and answers, if it is not all_qa_pairs.txt in FOLDER.
        images: The folder of pictures, if it is not found below FOLDER.
        val: Share of the pictures of train for validation.
        seed: Of the draw.
        common: Options of every source.
    """
    from ..data import readers

    def read(bad: "BadRows") -> "Dataset":
        return readers.daquar(folder, pairs=pairs, images=images, val=val, seed=seed, bad=bad)

    prepare(read, out, common)


VERBS = (vqa, vqa_text, write_vqa_text, easy_vqa, daquar)

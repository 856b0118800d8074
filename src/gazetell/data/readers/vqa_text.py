"""The text files of the VQA tutorials in Keras (2015 to 2018), one line a question.

::

    questions_train2014.txt        the question
    questions_id_train2014.txt     its id
    images_train2014.txt           the number of its picture; images_val2014_all.txt for val
    answers_train2014_modal.txt    its most frequent answer; none for test

and likewise for val2014, test-dev2015 and test2015. Those tutorials' scripts write them from the
official files of VQA (``vqa.py``) and train on them. A picture that has no number of COCO's, as in
a dataset of one's own, stands in ``images_*.txt`` under its name.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...errors import DataError
from ...files import read_text, write_text
from ..records import Dataset, QuestionRecord
from .question_rows import CocoPictures, QuestionCollector, answer_texts, question_text
from .rows import BadRows, entries
from .vqa import official_val_for_test

__all__ = ["vqa_text", "write_vqa_text"]

_SUBSETS = {"train": "train2014", "val": "val2014", "test": "test2015"}
_QUESTIONS = re.compile(r"questions_((train|val|test-dev|test)\d*)\.txt")
_NUMBER = re.compile(r"[0-9]{1,12}")
_COCO = re.compile(r"(?:.*/)?COCO_[a-z]+\d{4}_(\d{12})\.jpg")


def write_vqa_text(dataset: Dataset, folder: str | os.PathLike[str]) -> dict[str, int]:
    """Write the questions of a prepared dataset as these files.

    White space within a question, an answer or an id becomes one blank, so that a question is a
    line. Questions without an answer are left out of a split where others have one.

    Args:
        dataset: with questions.
        folder: where to write; made if need be.

    Returns:
        The number of questions written for each split that has some.

    Raises:
        DataError: the dataset has no questions.
        WriteError: the file system refused; what was written before stays.
    """
    if not dataset.questions:
        raise DataError(f"{dataset.folder or dataset.name}: has no questions")
    folder = Path(folder)
    written = {}
    for split, subset in _SUBSETS.items():
        records = [record for record in dataset.questions if record.split == split]
        answered = [record for record in records if any(record.answers)]
        records = answered or records
        if not records:
            continue
        images = f"images_{subset}_all.txt" if split == "val" else f"images_{subset}.txt"
        files = {
            f"questions_{subset}.txt": [record.question for record in records],
            f"questions_id_{subset}.txt": [record.id for record in records],
            images: [_picture(record.image) for record in records],
        }
        if answered:
            answers = [_modal(record.answers) for record in records]
            files[f"answers_{subset}_modal.txt"] = answers
        for name, values in files.items():
            lines = [" ".join(value.split()) for value in values]
            write_text(folder / name, "\n".join(lines) + "\n")
        written[split] = len(records)
    return written


def _picture(image: str) -> str:
    """The number of a picture of COCO, the name of any other."""
    match = _COCO.fullmatch(image)
    return str(int(match[1])) if match else image


def _modal(answers: Sequence[str]) -> str:
    """The most frequent answer as it was given, the first of those that are equally frequent."""
    return Counter(answer for answer in answers if answer).most_common(1)[0][0]


def vqa_text(
    folder: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    val_from_train: float = 0.0,
    seed: int = 0,
    bad: BadRows | None = None,
) -> Dataset:
    """Read these files. Each question has one answer, or none where there is no file of them.

    Args:
        folder: where they lie; test is read from test2015 or, without it, from test-dev2015.
        images: the folder of pictures or of the folders train2014, val2014, ...
        val_from_train: share of the *pictures* of train that becomes val; an official val then
            becomes test (see ``vqa.vqa``).
        seed: of that draw.
        bad: what to do with bad rows; by default the first is an error.

    Raises:
        DataError: a file is missing or shorter than another, or a bad row (``file:line``).
        UsageError: ``val_from_train`` out of range.
    """
    folder, bad = Path(folder), bad or BadRows()
    subsets: dict[str, list[str]] = {}
    for path in entries(folder):
        if match := _QUESTIONS.fullmatch(path.name):
            subsets.setdefault(match[2].partition("-")[0], []).append(match[1])
    if not subsets:
        raise DataError(f"{folder}: no file questions_train2014.txt, questions_val2014.txt, ...")
    pictures, collector = CocoPictures(Path(images)), QuestionCollector(bad)
    for split in (split for split in _SUBSETS if split in subsets):
        # test-dev is a part of test
        subset, *others = sorted(subsets[split], key=lambda name: ("-dev" in name, name))
        if others:
            bad.notes.append(f"not read, as {subset} is there: {', '.join(others)}")
        _read(folder, split, subset, pictures, collector, bad)
    records = official_val_for_test(collector.records(), val_from_train, seed, bad)
    if not records:
        raise DataError(f"{folder}: holds no question with a picture")
    return Dataset(folder.resolve().name, "vqa-text", Path(images), questions=records)


def _read(
    folder: Path,
    split: str,
    subset: str,
    pictures: CocoPictures,
    collector: QuestionCollector,
    bad: BadRows,
) -> None:
    """Add the questions of a split."""
    path = folder / f"questions_{subset}.txt"
    questions = _lines(path)
    ids = _lines(folder / f"questions_id_{subset}.txt", len(questions))
    images_all = folder / f"images_{subset}_all.txt"
    images = _lines(
        images_all if images_all.is_file() else folder / f"images_{subset}.txt", len(questions)
    )
    file = folder / f"answers_{subset}_modal.txt"
    answers = None
    if file.is_file() or split != "test":
        answers = _lines(file, len(questions))
    else:
        bad.notes.append(f"{path.name}: questions without answers")
    for number, (text, id, image) in enumerate(zip(questions, ids, images, strict=True)):
        where = f"{path}:{number + 1}"
        question, reason = question_text(text)
        given: tuple[str, ...] | None = ()
        if answers is not None and question is not None:
            given, reason = answer_texts([answers[number]])
        if question is None or given is None:
            bad.add(where, reason, text)
        elif not id or not image:
            bad.add(where, "has no id or no picture", text)
        else:
            if _NUMBER.fullmatch(image):
                image = pictures.name(int(image), subset.replace("-dev", ""))
            collector.add(where, QuestionRecord(id, image, question, given, split), text)


def _lines(path: Path, expected: int | None = None) -> list[str]:
    """The lines of a file, as many as there are questions."""
    lines = [line.strip() for line in read_text(path).split("\n")]
    if not lines[-1]:
        lines.pop()
    if expected is not None and len(lines) != expected:
        raise DataError(f"{path}: has {len(lines):,} lines; expected {expected:,}, one a question")
    return lines

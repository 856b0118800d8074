"""DAQUAR: questions about pictures of rooms (Malinowski and Fritz 2014, arXiv 1410.0210).

::

    all_qa_pairs.txt         a line of question and a line of answer in turn
    train_images_list.txt    the official pictures of train, one name (image3) a line
    test_images_list.txt     those of test
    images/image3.jpg ...    or nyu_depth_images/image3.png

The question names its picture: "what is on the desk in the image3 ?" Some name two; the last one
counts. What names a picture ("in the image3") is taken out of the question, since a number that
stands for one picture is nothing to learn from.

An answer may be several things, "table, chair", in an order that varies from one question to the
next. They are sorted here and joined by ", ", so that the same things are the same answer.
"""

import os
import re
from pathlib import Path

from ...errors import DataError
from ...files import read_text
from ..records import Dataset, QuestionRecord
from .question_rows import QuestionCollector, answer_texts, question_text, val_from_train
from .rows import BadRows, entries, find, find_pictures

__all__ = ["daquar"]

_PAIRS = ("all_qa_pairs.txt", "qa.894.raw.txt")
_IMAGES = ("images", "nyu_depth_images")
_NAME = re.compile(r"image\d+", re.IGNORECASE)
_MENTION = re.compile(r"(?:\b(?:in|on|of)\s+)?(?:\b(?:the|this)\s+)?\bimage\d+\b", re.IGNORECASE)


def daquar(
    folder: str | os.PathLike[str],
    *,
    pairs: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    val: float = 0.1,
    seed: int = 0,
    bad: BadRows | None = None,
) -> Dataset:
    """Read DAQUAR with its official lists of pictures.

    Args:
        folder: where the files lie.
        pairs: the file of questions and answers; found in ``folder`` if not given.
        images: the folder of pictures; found below ``folder`` if not given.
        val: share of the pictures of train that becomes val, in [0, 1).
        seed: of that draw.
        bad: what to do with bad rows; by default the first is an error.

    Raises:
        DataError: a file or the pictures are missing, or a bad row: a question that names no
            picture or has no answer.
        UsageError: ``val`` out of range.
    """
    folder, bad = Path(folder), bad or BadRows()
    path = Path(pairs) if pairs is not None else _file(folder, *_PAIRS)
    root = Path(images) if images is not None else find_pictures(folder, _IMAGES)
    splits = _splits(folder, bad)
    pictures = {one.stem: one.name for one in entries(root) if _NAME.fullmatch(one.stem)}
    collector = QuestionCollector(bad)
    sorted_answers = unlisted = 0
    lines = [line.strip() for line in read_text(path).rstrip().split("\n")]
    for number in range(0, len(lines), 2):
        where, line = f"{path}:{number + 1}", lines[number]
        mentions = _NAME.findall(line)
        question, reason = question_text(_without_mentions(line))
        if not mentions:
            bad.add(where, "names no picture; expected a question about an image of a number", line)
            continue
        if question is None:
            bad.add(where, reason, line)
            continue
        if number + 1 == len(lines):
            bad.add(where, "the last question has no line of answer", line)
            continue
        parts = [part.strip() for part in lines[number + 1].split(",") if part.strip()]
        answer = ", ".join(sorted(parts))
        given, reason = answer_texts([answer])
        name = mentions[-1].lower()
        if given is None:
            bad.add(f"{path}:{number + 2}", reason, line)
        elif name not in splits:
            unlisted += 1
        else:
            sorted_answers += len(parts) > 1
            image = pictures.get(name, f"{name}.jpg")
            id = str(number // 2 + 1)
            collector.add(where, QuestionRecord(id, image, question, given, splits[name]), line)
    if unlisted:
        bad.notes.append(f"questions of pictures in no official list, left out: {unlisted:,}")
    if sorted_answers:
        bad.notes.append(
            f"answers of several things, sorted because their order varies: {sorted_answers:,}"
        )
    records = val_from_train(collector.records(), val, seed)
    if not records:
        raise DataError(f"{path}: holds no question about a picture of the official lists")
    return Dataset("daquar", "daquar", root, questions=records)


def _without_mentions(line: str) -> str:
    """A question without what names its picture."""
    return " ".join(_MENTION.sub(" ", line).split()).replace(" ?", "?")


def _splits(folder: Path, bad: BadRows) -> dict[str, str]:
    """The official split of each picture."""
    splits: dict[str, str] = {}
    for split in ("train", "test"):
        path = _file(folder, f"{split}_images_list.txt")
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            name = Path(line.strip().lower()).stem
            if not name:
                continue
            if splits.setdefault(name, split) != split:
                bad.add(f"{path}:{number}", f"{name} is in the list of train as well", line)
    return splits


def _file(folder: Path, *names: str) -> Path:
    """The first of these files in a folder or right below it."""
    path = find(folder, names)
    if path is None:
        raise DataError(f"{folder}: no file {' or '.join(names)}")
    return path

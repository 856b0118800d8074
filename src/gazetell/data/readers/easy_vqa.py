"""easy-VQA: coloured shapes at 64x64 and 13 answers (Victor Zhou, 2019).

::

    train/images/0.png ...   train/questions.json   test/images/...   test/questions.json
    answers.txt              one answer a line

    questions.json           [["what is the blue shape?", "rectangle", 0], ...]

Both folders number their pictures from 0, so a record's id and image begin with the folder. There
is no val: it is a share of the pictures of train.
"""

import os
from pathlib import Path

from ...errors import DataError
from ...files import read_json, read_text
from ..records import Dataset, QuestionRecord
from .question_rows import QuestionCollector, answer_texts, question_text, val_from_train
from .rows import BadRows

__all__ = ["easy_vqa"]


def easy_vqa(
    folder: str | os.PathLike[str],
    *,
    val: float = 0.1,
    seed: int = 0,
    bad: BadRows | None = None,
) -> Dataset:
    """Read easy-VQA.

    Args:
        folder: the folder of ``train``, ``test`` and ``answers.txt``, or of their folder ``data``.
        val: share of the pictures of train that becomes val, in [0, 1).
        seed: of that draw.
        bad: what to do with bad rows; by default the first is an error.

    Raises:
        DataError: a file is missing or of another form, or a bad row: not three fields, or an
            answer that ``answers.txt`` does not have.
        UsageError: ``val`` out of range.
    """
    root, bad = Path(folder), bad or BadRows()
    if not (root / "train").is_dir() and (root / "data" / "train").is_dir():
        root /= "data"
    answers = {line.strip() for line in read_text(root / "answers.txt").split("\n")}
    collector = QuestionCollector(bad)
    for split in ("train", "test"):
        path = root / split / "questions.json"
        rows = read_json(path)
        if not isinstance(rows, list):
            raise DataError(f"{path}: expected a list of [question, answer, picture id]")
        for number, row in enumerate(rows):
            where = f"{path}: row {number}"
            if not isinstance(row, list) or len(row) != 3 or type(row[2]) is not int:
                bad.add(where, "expected [question, answer, picture id]", row)
                continue
            question, reason = question_text(row[0])
            given, lack = answer_texts([row[1]])
            if question is None or given is None:
                bad.add(where, reason or lack, row)
            elif given[0] not in answers:
                bad.add(where, f"answer {given[0]!r} is not in {root / 'answers.txt'}", row)
            else:
                image = f"{split}/images/{row[2]}.png"
                id = f"{split}-{number}"
                collector.add(where, QuestionRecord(id, image, question, given, split), row)
    records = val_from_train(collector.records(), val, seed)
    if not records:
        raise DataError(f"{root}: holds no question with a picture")
    return Dataset("easy-vqa", "easy-vqa", root, questions=records)

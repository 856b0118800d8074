"""VQA v1 and v2: questions about pictures of COCO, with ten human answers.

Antol et al., arXiv 1505.00468; Goyal et al., arXiv 1612.00837. The official files, plain or
compressed (``.gz``), in a folder or right below it::

    [v2_]OpenEnded_mscoco_train2014_questions.json     train2014, val2014, test-dev2015, test2015
    MultipleChoice_mscoco_train2014_questions.json     the same questions with choices
    [v2_]mscoco_train2014_annotations.json             train2014 and val2014 alone

    {"data_subtype": "train2014", "questions": [{"question_id", "image_id", "question"}]}
    {"annotations": [{"question_id", "image_id", "question_type", "answer_type", "answers":
        [{"answer", "answer_confidence", "answer_id"}], "multiple_choice_answer"}]}

All answers are kept in their order; the official accuracy compares each with the others. It does
not look at the confidence of an answer, and the record does not hold it. The official tests have
no annotations, so that ``val_from_train`` makes a test of the official val.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import DataError, UsageError
from ...files import read_json
from ..records import SPLITS, Dataset, QuestionRecord
from .question_rows import (
    CocoPictures,
    QuestionCollector,
    answer_texts,
    question_text,
    val_from_train,
)
from .rows import BadRows, below

__all__ = ["VQAFiles", "official_val_for_test", "vqa", "vqa_files"]

_QUESTIONS = re.compile(
    r"(v2_)?(OpenEnded|MultipleChoice)_mscoco_(train|val|test-dev|test)(\d{4})?_questions\.json(\.gz)?"
)
_SUBSET = re.compile(r"(?:train|val|test)\d{4}")


@dataclass(frozen=True)
class VQAFiles:
    """The two files of a split; ``annotations`` None where nobody may know the answers."""

    questions: Path
    annotations: Path | None = None


def vqa_files(folder: str | os.PathLike[str], bad: BadRows | None = None) -> dict[str, VQAFiles]:
    """Find the official files of each split in a folder.

    Of several for a split v2 goes before v1, open questions before multiple choice, all of test
    before test-dev, which is a part of it; the others are named in ``bad.notes``.

    Raises:
        DataError: no such folder, no questions in it, or no annotations for train or val.
    """
    folder, bad = Path(folder), bad or BadRows()
    paths = {path.name: path for path in reversed(below(folder)) if path.is_file()}
    found: dict[str, list[tuple[Any, str]]] = {}
    for name in paths:
        if match := _QUESTIONS.fullmatch(name):
            version, task, split, _, packed = match.groups()
            rank = (version is None, task != "OpenEnded", split == "test-dev", packed is not None)
            found.setdefault(split.partition("-")[0], []).append((rank, name))
    if not found:
        raise DataError(f"{folder}: no file OpenEnded_mscoco_*_questions.json of VQA v1 or v2")
    files, others = {}, []
    for split in (split for split in SPLITS if split in found):
        chosen, *rest = (name for _, name in sorted(found[split]))
        others += rest
        names = _annotation_names(chosen)
        annotations = next((paths[name] for name in names if name in paths), None)
        if annotations is None and split != "test":
            raise DataError(f"{paths[chosen]}: the annotations are missing; expected {names[0]}")
        files[split] = VQAFiles(paths[chosen], annotations)
    if others:
        bad.notes.append(f"files of questions that were not read: {', '.join(sorted(others))}")
    return files


def _annotation_names(questions: str) -> list[str]:
    """What the annotations to a file of questions may be called."""
    name = re.sub("(OpenEnded|MultipleChoice)_", "", questions).replace("questions", "annotations")
    name = name.removesuffix(".gz")
    return [name, f"{name}.gz"]


def vqa(
    files: Mapping[str, VQAFiles],
    images: str | os.PathLike[str],
    *,
    val_from_train: float = 0.0,
    seed: int = 0,
    bad: BadRows | None = None,
) -> Dataset:
    """Read the official files of VQA v1 or v2.

    Args:
        files: those of train, val and test, any of them (``vqa_files`` finds them).
        images: the folder of pictures or of the folders train2014, val2014, test2015.
        val_from_train: share of the *pictures* of train that becomes val. The official val then
            becomes test, and the official test is left out.
        seed: of that draw.
        bad: what to do with bad rows; by default the first is an error.

    Raises:
        DataError: a file is missing or of another form, or a bad row: no question or picture, an
            id that occurs twice, a question without its annotation or the reverse.
        UsageError: no files, a name that is no split, or ``val_from_train`` out of range.
    """
    bad = bad or BadRows()
    if not files:
        raise UsageError("no files of questions; expected some of train, val or test")
    pictures, collector = CocoPictures(Path(images)), QuestionCollector(bad)
    for split, pair in files.items():
        if split not in SPLITS:
            raise UsageError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
        _read(split, pair, pictures, collector, bad)
    records = official_val_for_test(collector.records(), val_from_train, seed, bad)
    if not records:
        names = ", ".join(str(pair.questions) for pair in files.values())
        raise DataError(f"{names}: holds no question with a picture")
    second = any(pair.questions.name.startswith("v2_") for pair in files.values())
    return Dataset("vqa2" if second else "vqa", "vqa", Path(images), questions=records)


def official_val_for_test(
    records: Sequence[QuestionRecord], share: float, seed: int, bad: BadRows
) -> tuple[QuestionRecord, ...]:
    """Draw val from the pictures of train, so that an official val becomes the test split.

    With ``share`` 0 all stays as it is; without an official val the official test stays.
    """
    if share and any(record.split == "val" for record in records):
        left_out = sum(record.split == "test" for record in records)
        if left_out:
            bad.notes.append(f"questions of the official test, left out: {left_out:,}")
        bad.notes.append("test is the official val; val was drawn from the pictures of train")
        records = [
            replace(record, split="test") if record.split == "val" else record
            for record in records
            if record.split != "test"
        ]
    return val_from_train(records, share, seed)


def _read(
    split: str, files: VQAFiles, pictures: CocoPictures, collector: QuestionCollector, bad: BadRows
) -> None:
    """Add the questions of a split."""
    path = files.questions
    about, rows = _list(path, "questions")
    answers = _annotations(files.annotations, bad) if files.annotations else None
    subset = _subset(about, path)
    choices = 0
    asked = set()
    for number, row in enumerate(rows):
        where = f"{path}: questions[{number}]"
        if not isinstance(row, dict) or not _id(row.get("question_id")):
            bad.add(where, "expected an object with question_id, image_id and question", row)
            continue
        key = str(row["question_id"])
        asked.add(key)
        image = row.get("image_id")
        question, reason = question_text(row.get("question"))
        if not isinstance(image, int) or isinstance(image, bool):
            bad.add(where, f"image_id is {image!r}; expected a number", row)
        elif question is None:
            bad.add(where, reason, row)
        elif answers is not None and key not in answers:
            bad.add(where, f"question {key} has no annotation in {files.annotations}", row)
        else:
            given = answers[key] if answers is not None else _Annotation("", None, (), None, None)
            if given.image not in (None, image):
                reason = f"is about image_id {image}, its annotation about {given.image}"
                bad.add(where, reason, row)
            elif not given.unusable:
                choices += "multiple_choices" in row
                record = QuestionRecord(
                    key, pictures.name(image, subset), question, given.answers, split,
                    given.question_type, given.answer_type,
                )  # fmt: skip
                collector.add(where, record, row)
    for key, given in (answers or {}).items():
        if key not in asked:
            bad.add(given.where, f"question_id {key} is that of no question in {path}")
    if choices:
        bad.notes.append(
            f"{path.name}: the multiple choices of {choices:,} questions are not kept; "
            "the questions are taken as open ones"
        )
    if answers is None:
        bad.notes.append(f"{path.name}: questions without annotations, so without answers")


@dataclass(frozen=True)
class _Annotation:
    """What the annotations tell of a question; ``unusable`` if that was a bad row."""

    where: str
    image: Any
    answers: tuple[str, ...]
    question_type: str | None
    answer_type: str | None
    unusable: bool = False


def _annotations(path: Path, bad: BadRows) -> dict[str, _Annotation]:
    """The annotations of a file by question id."""
    _, rows = _list(path, "annotations")
    found: dict[str, _Annotation] = {}
    alone = 0
    for number, row in enumerate(rows):
        where = f"{path}: annotations[{number}]"
        if not isinstance(row, dict) or not _id(row.get("question_id")):
            bad.add(where, "expected an object with question_id and answers", row)
            continue
        key = str(row["question_id"])
        if key in found:
            bad.add(where, f"question_id {key} occurs twice", row)
            continue
        given = row.get("answers")
        if given is None and row.get("multiple_choice_answer") is not None:
            given, alone = [row["multiple_choice_answer"]], alone + 1
        values = given if isinstance(given, list) else [given]
        texts, reason = answer_texts(
            [value.get("answer") if isinstance(value, dict) else value for value in values]
        )
        if texts is None:
            bad.add(where, reason, row)
        found[key] = _Annotation(
            where, row.get("image_id"), texts or (), _text(row, "question_type"),
            _text(row, "answer_type"), texts is None,
        )  # fmt: skip
    if alone:
        bad.notes.append(
            f"{path.name}: annotations without answers but with multiple_choice_answer, "
            f"which was taken: {alone:,}"
        )
    return found


def _subset(about: dict[str, Any], path: Path) -> str:
    """The folder of the pictures of a file: train2014, val2014 or test2015 (also for test-dev)."""
    for text in (about.get("data_subtype"), path.name):
        if isinstance(text, str):
            match = _SUBSET.search(text.replace("test-dev", "test"))
            if match:
                return match[0]
    return ""


def _list(path: Path, key: str) -> tuple[dict[str, Any], list[Any]]:
    """The top object of a file and the list in it."""
    value = read_json(path)
    rows = value.get(key) if isinstance(value, dict) else None
    if not isinstance(rows, list):
        raise DataError(f"{path}: has no list {key!r}; expected a file of VQA {key}")
    return value, rows


def _id(value: Any) -> bool:
    """Whether a value may be the id of a question."""
    return isinstance(value, int | str) and not isinstance(value, bool) and str(value).strip() != ""


def _text(row: dict[str, Any], key: str) -> str | None:
    """A text that a row may lack."""
    value = row.get(key)
    return value if isinstance(value, str) and value.strip() else None

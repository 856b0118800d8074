"""What the readers of questions share: rows into records, the validation split, COCO's pictures.

A question needs a word: "???" is a bad row. Any script will do, and so will any length, since the
tokenizer cuts a question and never the reader. Answers are text; a whole number in JSON is taken
for its digits. Of several answers some may be empty (people left them out), but not all.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ..records import QuestionRecord
from .rows import BadRows, entries, is_unicode, seeded_split

__all__ = [
    "CocoPictures",
    "QuestionCollector",
    "answer_texts",
    "question_text",
    "val_from_train",
]

# Categories of characters that make no word; other symbols (So) are emoji, which the tokenizer
# takes for words.
_NO_WORD = ("P", "Z", "Cc", "Cf", "Sm", "Sc", "Sk")
_COCO_NAME = re.compile(r"(?:.*_)?(\d{12})\.(?:jpg|jpeg|png)", re.IGNORECASE)


def question_text(value: Any) -> tuple[str | None, str]:
    """A question stripped of outer white space, or None and the reason why it is none."""
    if value is None:
        return None, "question is missing"
    if not isinstance(value, str):
        return None, f"question is {type(value).__name__}; expected text"
    text = value.strip()
    if not text:
        return None, "question is empty"
    if not is_unicode(text):
        return None, "question is no valid Unicode (a lone surrogate)"
    if all(unicodedata.category(character).startswith(_NO_WORD) for character in text):
        return None, f"question has no words: {text[:40]!r}"
    return text, ""


def answer_texts(values: Sequence[Any]) -> tuple[tuple[str, ...] | None, str]:
    """The answers to a question in their order, or None and the reason why they are none."""
    texts = []
    for value in values:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None:
            return None, "answer is missing"
        if not isinstance(value, str):
            return None, f"answer is {type(value).__name__}; expected text"
        if not is_unicode(value):
            return None, "answer is no valid Unicode (a lone surrogate)"
        texts.append(value.strip())
    if not any(texts):
        return None, "answer is empty" if texts else "answer is missing"
    return tuple(texts), ""


class QuestionCollector:
    """Gathers records by their id, in the order in which they come."""

    def __init__(self, bad: BadRows, *, several: bool = False) -> None:
        """Start with none.

        Args:
            bad: what to do with bad rows.
            several: an id that comes again adds answers to its question; else it is a bad row.
        """
        self._bad = bad
        self._several = several
        self._records: dict[str, QuestionRecord] = {}
        self._where: dict[str, str] = {}

    def __contains__(self, id: str) -> bool:
        return id in self._where

    def add(self, where: str, record: QuestionRecord, row: Any = "") -> None:
        """Add a question; one that contradicts an earlier one is a bad row."""
        known, first = self._records.get(record.id), self._where.get(record.id)
        if not is_unicode(record.image + record.id):
            self._bad.add(where, f"picture {record.image!r} or id is no valid Unicode", row)
        elif known is None:
            self._records[record.id], self._where[record.id] = record, where
        elif not self._several:
            self._bad.add(where, f"question id {record.id!r} occurs twice, first at {first}", row)
        elif (known.image, known.question) != (record.image, record.question):
            self._bad.add(where, f"id {record.id!r} is that of another question at {first}", row)
        elif known.split != record.split:
            reason = f"question {record.id!r} is in split {known.split} at {first}"
            self._bad.add(where, f"{reason}, here {record.split}", row)
        else:
            self._records[record.id] = replace(known, answers=known.answers + record.answers)

    def records(self) -> tuple[QuestionRecord, ...]:
        """The questions."""
        return tuple(self._records.values())


def val_from_train(
    records: Iterable[QuestionRecord], share: float, seed: int = 0
) -> tuple[QuestionRecord, ...]:
    """Make a share of the *pictures* of train, with all their questions, the validation split.

    Args:
        records: questions of all splits; those of other splits stay what they are.
        share: of the pictures, in [0, 1); 0 for none.
        seed: of the draw (``rows.seeded_split``).

    Raises:
        UsageError: ``share`` out of range.
    """
    if not 0 <= share < 1:
        raise UsageError(f"val {share}: expected a share of the pictures from 0 to below 1")
    records = tuple(records)
    images = {record.image for record in records if record.split == "train"}
    drawn = seeded_split(images, val=float(share), test=0.0, seed=seed)
    return tuple(
        replace(record, split=drawn[record.image]) if record.split == "train" else record
        for record in records
    )


class CocoPictures:
    """Finds pictures by their number: COCO_val2014_000000000042.jpg, 000000000042.jpg, ...

    They may lie in the folder itself or in folders right below it (train2014, val2014, ...).
    """

    def __init__(self, root: Path) -> None:
        """Look through a folder.

        Raises:
            DataError: no such folder.
        """
        self._found: dict[str, dict[int, str]] = {"": {}}
        for path in entries(root):
            if path.is_dir():
                self._found[path.name] = _numbered(path, f"{path.name}/")
        self._found[""] = _numbered(root, "")

    def name(self, number: int, subset: str) -> str:
        """The picture relative to the folder, or what it would be called if it is not there.

        Args:
            number: COCO's image id.
            subset: train2014, val2014, test2015, ...: where it is looked for first.
        """
        for folder in (subset, "", *self._found):
            image = self._found.get(folder, {}).get(number)
            if image is not None:
                return image
        prefix = f"{subset}/" if subset in self._found and subset else ""
        return f"{prefix}COCO_{subset}_{number:012d}.jpg"


def _numbered(folder: Path, prefix: str) -> dict[int, str]:
    """The pictures right in a folder by their numbers."""
    names = (path.name for path in entries(folder))
    return {int(match[1]): prefix + match[0] for match in map(_COCO_NAME.fullmatch, names) if match}

"""Records: what every dataset becomes, and the prepared folder that holds them.

A prepared dataset is a folder::

    dataset.json      {"format": 1, "name", "root", "kind"}: root is the folder of the pictures
    captions.jsonl    one CaptionRecord a line
    questions.jsonl   one QuestionRecord a line

Image paths are relative to ``root``; ``root`` is absolute or relative to the folder itself.
Everything after the readers (features, training, evaluation) reads only this.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import DataError
from ..files import read_json, read_jsonl, write_json, write_jsonl

__all__ = ["SPLITS", "Box", "CaptionRecord", "Dataset", "QuestionRecord"]

FORMAT = 1
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Box:
    """A region of a picture and the words that name what is in it.

    ``x0, y0, x1, y1`` are fractions of width and height in [0, 1], origin top left.
    """

    words: tuple[str, ...]
    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class CaptionRecord:
    """A picture and its reference captions (none in a split without references)."""

    id: str
    image: str
    captions: tuple[str, ...]
    split: str
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class QuestionRecord:
    """A question about a picture and its human answers (none in a split without them).

    ``boxes`` are the things that the question is about, where that is known.
    """

    id: str
    image: str
    question: str
    answers: tuple[str, ...]
    split: str
    question_type: str | None = None
    answer_type: str | None = None
    boxes: tuple[Box, ...] = ()


Record = TypeVar("Record", CaptionRecord, QuestionRecord)


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset: records and the folder of their pictures.

    ``kind`` names the reader that made it ("flickr8k", "coco", "table", "scenes", ...).
    """

    name: str
    kind: str
    root: Path
    captions: tuple[CaptionRecord, ...] = ()
    questions: tuple[QuestionRecord, ...] = ()
    folder: Path | None = None

    def split(self, name: str) -> tuple[CaptionRecord, ...]:
        """The caption records of a split.

        Raises:
            DataError: the split holds no pictures; the message lists those that do.
        """
        return self._chosen(self.captions, name, "pictures")

    def questions_of(self, name: str) -> tuple[QuestionRecord, ...]:
        """The question records of a split.

        Raises:
            DataError: the split holds no questions; the message lists those that do.
        """
        return self._chosen(self.questions, name, "questions")

    def _chosen(self, records: Sequence[Record], name: str, what: str) -> tuple[Record, ...]:
        """The records of a split, at least one."""
        chosen = tuple(record for record in records if record.split == name)
        if not chosen:
            have = sorted({record.split for record in records})
            raise DataError(
                f"{self.folder or self.name}: split {name!r} has no {what}; "
                f"splits with {what}: {', '.join(have) or 'none'}"
            )
        return chosen

    def path(self, record: CaptionRecord | QuestionRecord) -> Path:
        """Where a record's picture lies."""
        return self.root / record.image

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the prepared folder; ``dataset.json`` comes last, so a killed run leaves none."""
        folder = Path(folder)
        if self.captions:
            write_jsonl(folder / "captions.jsonl", (_row(record) for record in self.captions))
        if self.questions:
            write_jsonl(folder / "questions.jsonl", (_row(record) for record in self.questions))
        root = self.root.resolve()
        inside = root.is_relative_to(folder.resolve())
        # A root inside the folder travels with it; any other place is named in full.
        where = root.relative_to(folder.resolve()).as_posix() if inside else str(root)
        write_json(
            folder / "dataset.json",
            {"format": FORMAT, "name": self.name, "kind": self.kind, "root": where},
        )

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "Dataset":
        """Read a prepared folder.

        Raises:
            DataError: no prepared dataset there, a format from another version, or a bad row.
        """
        folder = Path(folder)
        if not (folder / "dataset.json").is_file():
            raise DataError(
                f"{folder}: is no prepared dataset (no dataset.json); "
                "make one with: gazetell data --help"
            )
        about = read_json(folder / "dataset.json")
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise DataError(f"{folder / 'dataset.json'}: expected format {FORMAT}; prepare it anew")
        try:
            name, kind, root = about["name"], about["kind"], folder / about["root"]
        except (KeyError, TypeError) as error:
            raise DataError(f"{folder / 'dataset.json'}: lacks {error}") from error
        captions = tuple(_read(folder / "captions.jsonl", CaptionRecord))
        questions = tuple(_read(folder / "questions.jsonl", QuestionRecord))
        if not captions and not questions:
            raise DataError(f"{folder}: holds no records (captions.jsonl, questions.jsonl)")
        return cls(name, kind, root, captions, questions, folder)


def _row(record: CaptionRecord | QuestionRecord) -> dict[str, Any]:
    """A record as a JSON object, empty optional fields left out."""
    row = asdict(record)
    return {
        key: value
        for key, value in row.items()
        if not (key in ("boxes", "question_type", "answer_type") and not value)
    }


def _read(path: Path, kind: type) -> Iterable[Any]:
    """Yield the records of a JSON Lines file, none if it is absent."""
    if not path.is_file():
        return
    for number, row in read_jsonl(path):
        try:
            for key in ("captions", "answers"):
                if key in row:
                    row[key] = tuple(row[key])
            if "boxes" in row:
                row["boxes"] = tuple(
                    Box(**{**box, "words": tuple(box["words"])}) for box in row["boxes"]
                )
            yield kind(**row)
        except (TypeError, KeyError) as error:
            raise DataError(f"{path}:{number}: is no {kind.__name__}: {error}") from error

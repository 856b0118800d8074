"""Records: what every dataset becomes, and the prepared folder that holds them.

A prepared dataset is a folder::

    dataset.json      {"format": 1, "name", "root", "kind"}: root is the folder of the pictures;
                      "machine_made" where a model told the texts
    captions.jsonl    one CaptionRecord a line
    questions.jsonl   one QuestionRecord a line

Image paths are relative to ``root``; ``root`` is absolute or relative to the folder itself.
Everything after the readers (features, training, evaluation) reads only this.
"""

import hashlib
import os
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ..errors import DataError
from ..files import json_object, read_json, read_lines, write_json, write_jsonl

FORMAT = 1
SPLITS = ("train", "val", "test")
MACHINE_MADE = "%s: its references are machine-made, by %s: the figures measure agreement with it"
STRICT = {"extra": "forbid", "allow_inf_nan": False}  # how pydantic reads a record


@dataclass(frozen=True)
class Box:
    """A region of a picture and the words that name what is in it.

    ``x0, y0, x1, y1`` are fractions of width and height in [0, 1], origin top left.
    """

    __pydantic_config__: ClassVar = STRICT

    words: tuple[str, ...]
    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class CaptionRecord:
    """A picture and its reference captions (none in a split without references)."""

    __pydantic_config__: ClassVar = STRICT

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

    __pydantic_config__: ClassVar = STRICT

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

    ``kind`` names the reader that made it ("flickr8k", "coco", "table", "scenes", ...),
    ``machine_made`` the models that told its texts, or some of them.
    """

    name: str
    kind: str
    root: Path
    captions: tuple[CaptionRecord, ...] = ()
    questions: tuple[QuestionRecord, ...] = ()
    folder: Path | None = None
    machine_made: tuple[str, ...] = ()

    @property
    def records(self) -> "tuple[CaptionRecord | QuestionRecord, ...]":
        """All records: captions, then questions."""
        return (*self.captions, *self.questions)

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

    def without(self, images: Container[str]) -> "Dataset":
        """The dataset without the records of some pictures."""
        captions = tuple(record for record in self.captions if record.image not in images)
        questions = tuple(record for record in self.questions if record.image not in images)
        return replace(self, captions=captions, questions=questions)

    def fingerprint(self) -> str:
        """SHA-256 of the records."""
        digest = hashlib.sha256()
        for record in (*self.captions, *self.questions):
            digest.update(repr(record).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def save(self, folder: str | os.PathLike[str], home: Path | None = None) -> None:
        """Write the prepared folder; ``dataset.json`` comes last, so a killed run leaves none.

        Args:
            folder: where to write.
            home: where the folder will lie, if it is to be moved.
        """
        folder = Path(folder)
        if self.captions:
            write_jsonl(folder / "captions.jsonl", map(_row, self.captions))
        if self.questions:
            write_jsonl(folder / "questions.jsonl", map(_row, self.questions))
        root, home = self.root.resolve(), (home or folder).resolve()
        # A root inside the folder travels with it; any other place is named in full.
        where = root.relative_to(home).as_posix() if root.is_relative_to(home) else str(root)
        about = {"format": FORMAT, "name": self.name, "kind": self.kind, "root": where}
        made = {"machine_made": list(self.machine_made)} if self.machine_made else {}
        write_json(folder / "dataset.json", about | made)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "Dataset":
        """Read a prepared folder.

        Raises:
            DataError: no prepared dataset there, a format from another version, or a bad row: a
                field missing, unknown or of another type, or an id twice in a split.
        """
        folder = Path(folder)
        about_path = folder / "dataset.json"
        if not about_path.is_file():
            raise DataError(
                f"{folder}: is not a prepared dataset (no dataset.json); "
                "make one with: gazetell data --help"
            )
        about = read_json(about_path)
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise DataError(f"{about_path}: expected format {FORMAT}; prepare it again")
        for key in ("name", "kind", "root"):
            if not isinstance(about.get(key), str):
                raise DataError(f'{about_path}: expected "{key}", a string')
        made = about.get("machine_made", [])
        if not isinstance(made, list) or not all(isinstance(name, str) for name in made):
            raise DataError(f'{about_path}: expected "machine_made", a list of names of models')
        captions = tuple(_records(folder / "captions.jsonl", CaptionRecord))
        questions = tuple(_records(folder / "questions.jsonl", QuestionRecord))
        if not captions and not questions:
            raise DataError(f"{folder}: has no records (captions.jsonl, questions.jsonl)")
        root = folder / about["root"]
        return cls(about["name"], about["kind"], root, captions, questions, folder, tuple(made))


def part_of(text: str) -> tuple[str, str]:
    """The folder and the split that FOLDER or FOLDER:SPLIT names; the split may be empty."""
    folder, _, split = text.rpartition(":")
    return (text, "") if split not in SPLITS or os.path.isdir(text) else (folder, split)


def open_part(text: str) -> Dataset:
    """A prepared dataset, or one split of it: FOLDER or FOLDER:SPLIT.

    Raises:
        DataError: see ``Dataset.open``; or the split is empty.
    """
    folder, split = part_of(text)
    dataset = Dataset.open(folder)
    if not split:
        return dataset
    captions = tuple(record for record in dataset.captions if record.split == split)
    questions = tuple(record for record in dataset.questions if record.split == split)
    if not captions and not questions:
        raise DataError(f"{folder}: split {split!r} is empty")
    return replace(dataset, captions=captions, questions=questions)


def picture_keys(datasets: Sequence[Dataset]) -> list[dict[str, str]]:
    """What tells the pictures of several datasets apart: from each one's images to their keys.

    That is the path below the folder of pictures if they share it, else the file name alone.

    Raises:
        DataError: a file name that two folders of a dataset have, where it would have to do.
    """
    images = [dict.fromkeys(record.image for record in dataset.records) for dataset in datasets]
    if len({dataset.root.resolve() for dataset in datasets}) == 1:
        return [{image: image for image in one} for one in images]
    for one, dataset in zip(images, datasets, strict=True):
        first: dict[str, str] = {}
        for image in one:
            if (other := first.setdefault(Path(image).name, image)) != image:
                raise DataError(
                    f"{dataset.folder or dataset.name}: has {other} and {image}; expected file "
                    "names that differ, to find the same pictures in another folder"
                )
    return [{image: Path(image).name for image in one} for one in images]


def _row(record: CaptionRecord | QuestionRecord) -> dict[str, Any]:
    """A record as a JSON object, empty optional fields left out."""
    optional = ("boxes", "question_type", "answer_type")
    row = vars(record) | {"boxes": [vars(box) for box in record.boxes]}
    return {key: value for key, value in row.items() if value or key not in optional}


def _records(path: Path, record_class: type[Record]) -> Iterator[Record]:
    """Yield the records of a JSON Lines file, none if it is absent."""
    if not path.is_file():
        return
    from pydantic import TypeAdapter, ValidationError  # late: whoever makes records needs none

    lines: dict[tuple[str, str], int] = {}
    made = TypeAdapter(record_class)
    for number, line in read_lines(path):
        where = f"{path}:{number}"
        try:
            # Its reader keeps one copy of a text that comes again.
            record = made.validate_json(line)
        except ValidationError:
            row = json_object(line, where)  # Python's reader takes more
            try:
                record = made.validate_python(row)
            except ValidationError as error:
                wrong = error.errors()[0]
                what = f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}"
                raise DataError(f"{where}: is not a {record_class.__name__}: {what}") from error
        first = lines.setdefault((record.split, record.id), number)
        if first != number:
            raise DataError(
                f"{where}: id {record.id!r} twice in {record.split}, first on line {first}"
            )
        yield record

"""Files to score: reference captions or people's answers, and what a model said.

Captions are of pictures, answers of questions; all else is alike. Two formats, told apart by the
file name, each plain or gzip'd. JSON Lines (any name but ``*.json`` and ``*.json.gz``)::

    {"id": "12", "captions": ["a dog runs", "a brown dog"]}                 references
    {"id": "7", "answers": ["red", "dark red"], "answer_type": "other"}
    {"id": "12", "caption": "a dog"}                                        predictions
    {"id": "7", "answer": "red"}

so a prepared ``captions.jsonl`` or ``questions.jsonl`` is a file of references as it stands; other
keys are ignored. And the official COCO and VQA files (``*.json``)::

    {"images": [{"id": 12}], "annotations": [{"image_id": 12, "caption": "a dog runs"}]}
    {"annotations": [{"question_id": 7, "answers": [{"answer": "red"}], "question_type": ...}]}
    [{"image_id": 12, "caption": "a dog"}]
    [{"question_id": 7, "answer": "red"}]

Ids are compared as text: 12 and "12" are the same picture.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import DataError
from ..files import read_json, read_jsonl

__all__ = [
    "Content",
    "Predictions",
    "References",
    "RowFile",
    "content_of",
    "match",
    "read_predictions",
    "read_references",
]

logger = logging.getLogger(__name__)

FilePath = str | os.PathLike[str]
Content = Literal["captions", "answers"]
NAMED = 5  # how many ids a message names


@dataclass(frozen=True)
class _Terms:
    """What pictures and questions are called in files and messages."""

    item: str
    text: str
    official: str

    @property
    def id(self) -> str:
        """The key of the id in an official file."""
        return f"{'image' if self.item == 'picture' else self.item}_id"


_TERMS: dict[Content, _Terms] = {
    "captions": _Terms("picture", "caption", "COCO"),
    "answers": _Terms("question", "answer", "VQA"),
}


@dataclass(frozen=True)
class RowFile:
    """A file that was read but not yet understood: large ones are parsed only once.

    Attributes:
        path: where it lies.
        lines: whether it is JSON Lines; otherwise ``content`` is a JSON document.
        content: the document, or a list of (line number, object).
    """

    path: FilePath
    lines: bool
    content: Any

    @classmethod
    def read(cls, path: FilePath) -> "RowFile":
        """Read JSON or JSON Lines, plain or gzip'd (told apart by content).

        Raises:
            DataError: missing, damaged, not UTF-8 or not JSON.
        """
        lines = not str(path).lower().removesuffix(".gz").endswith(".json")
        return cls(path, lines, list(read_jsonl(path)) if lines else read_json(path))

    def holds(self) -> Content | None:
        """What its first row speaks of; None if that cannot be told."""
        first = self.content
        if isinstance(first, dict):
            if "questions" in first:
                return "answers"
            first = first.get("annotations")
        first = first[0] if isinstance(first, list) and first else {}
        row = first[1] if self.lines and first else first
        if not isinstance(row, dict):
            return None
        if {"answers", "answer", "question_id", "question"} & row.keys():
            return "answers"
        return "captions" if {"captions", "caption", "image_id"} & row.keys() else None

    def rows(
        self, document: Any, key: str, what: str, once: str | None
    ) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield (place for a message, id, row) of JSON Lines, or of a list of a document.

        Args:
            document: the list; not used for JSON Lines.
            key: of the id in a document; in JSON Lines it is "id".
            what: a row of the document is called in a message.
            once: what an id stands for, if it may be there only once.

        Raises:
            DataError: a row that is no object or without an id, or an id twice.
        """
        key, what = ("id", "line") if self.lines else (key, what)
        seen: dict[str, int] = {}
        for number, row in self.content if self.lines else enumerate(document, start=1):
            where = f"{self.path}:{number}" if self.lines else f"{self.path}: {what} {number}"
            if not isinstance(row, dict):
                raise DataError(f"{where}: expected an object, found {type(row).__name__}")
            value = row.get(key)
            # bool is an int in Python, but true is no id.
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise DataError(f'{where}: expected "{key}", a string or an integer')
            name = str(value)
            if once and name in seen:
                raise DataError(f"{where}: {once} {name!r} again, first on {what} {seen[name]}")
            seen[name] = number
            yield where, name, row


def content_of(files: Sequence[RowFile]) -> Content:
    """What all the files hold; a file of which that cannot be told goes with the others.

    Raises:
        DataError: captions in one, answers in another.
    """
    known = {str(file.path): content for file in files if (content := file.holds()) is not None}
    if len(set(known.values())) > 1:
        told = ", ".join(f"{path} holds {content}" for path, content in known.items())
        raise DataError(f"{told}; expected captions in all or answers in all")
    return next(iter(known.values()), "captions")


@dataclass(frozen=True)
class References:
    """What people said of each picture or question, by id and in the order of the file.

    Attributes:
        path: of the file.
        texts: captions or answers; a picture or question may have none.
        question_types: of each question, None where the file names none.
        answer_types: likewise.
    """

    path: FilePath
    texts: dict[str, list[str]] = field(default_factory=dict)
    question_types: dict[str, str | None] = field(default_factory=dict)
    answer_types: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Predictions:
    """What a model said of each picture or question, by id and in the order of the file."""

    path: FilePath
    texts: dict[str, str] = field(default_factory=dict)


def read_references(file: RowFile, content: Content) -> References:
    """Read what people said.

    Raises:
        DataError: malformed (with its line or entry), an id twice, or nothing at all.
    """
    terms = _TERMS[content]
    found = References(file.path)
    document: Any = None if file.lines else _annotations(file, terms)
    if not file.lines and content == "captions":
        images = file.content.get("images")
        if not isinstance(images, list):
            raise DataError(f'{file.path}: expected a COCO annotation file with "images", a list')
        for _, picture, _ in file.rows(images, "id", "image", once="picture"):
            found.texts[picture] = []
        for where, picture, row in file.rows(document, terms.id, "annotation", once=None):
            if picture not in found.texts:
                raise DataError(f'{where}: picture {picture!r} is not among "images"')
            found.texts[picture].append(_text(row.get("caption"), "caption", where))
    else:
        for where, name, row in file.rows(document, terms.id, "annotation", once=terms.item):
            found.texts[name] = _texts(row, terms, where, plain=file.lines)
            if content == "answers":
                found.question_types[name] = _type(row, "question_type", where)
                found.answer_types[name] = _type(row, "answer_type", where)
    if not found.texts:
        raise DataError(f"{file.path}: holds no {content}")
    return found


def read_predictions(file: RowFile, content: Content) -> Predictions:
    """Read the one caption or answer that a model gave each picture or question.

    Raises:
        DataError: malformed (with its line or entry), an id twice, or nothing at all.
    """
    terms = _TERMS[content]
    if not file.lines and not isinstance(file.content, list):
        raise DataError(f"{file.path}: expected a {terms.official} result file, a list of objects")
    found = Predictions(file.path)
    for where, name, row in file.rows(file.content, terms.id, "entry", once=terms.item):
        found.texts[name] = _text(row.get(terms.text), terms.text, where)
    if not found.texts:
        raise DataError(f"{file.path}: holds no {content}")
    return found


def match(
    references: References, models: Sequence[Predictions], content: Content, *, subset: bool = False
) -> tuple[References, list[Predictions], int]:
    """Keep what is scored: the pictures or questions that have references and predictions.

    Texts without a letter or digit are kept, and a warning says how many there are.

    Args:
        references: what people said.
        models: what one or more models said.
        content: of all of them.
        subset: leave out what lacks a prediction of any of the models.

    Returns:
        References and predictions with the same ids, and how many references were left out.

    Raises:
        DataError: something predicted without a reference; something without a prediction and no
            ``subset``; or nothing to score. The message names the first ones.
    """
    item = _TERMS[content].item
    for model in models:
        _lacks(references.path, references.texts, model.path, model.texts, item)
        if not subset:
            hint = f"; --subset scores the {item}s that have a prediction"
            _lacks(model.path, model.texts, references.path, references.texts, item, hint)
    ids = [name for name in references.texts if all(name in model.texts for model in models)]
    if not ids:
        paths = " and ".join(str(model.path) for model in models)
        raise DataError(f"{paths}: have no {item} in common, expected some")
    bare = [name for name in ids if not references.texts[name]]
    if bare:
        raise DataError(
            f"{references.path}: {len(bare)} {item}s have no {content}, "
            f"expected some: {_named(bare)}"
        )
    types = references.question_types, references.answer_types
    kept = References(references.path, *(_only(ids, part) for part in (references.texts, *types)))
    said = [Predictions(model.path, _only(ids, model.texts)) for model in models]
    for model in said:
        _warn_of_empty(model.path, model.texts.items(), item, content)
    pairs = ((name, text) for name, texts in kept.texts.items() for text in texts)
    _warn_of_empty(kept.path, pairs, item, content)
    return kept, said, len(references.texts) - len(ids)


def _only(ids: Iterable[str], values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in ids if name in values}


def _lacks(
    path: FilePath, have: dict[str, Any], other: FilePath, want: dict[str, Any], item: str, hint=""
) -> None:
    missing = [name for name in want if name not in have]
    if missing:
        raise DataError(
            f"{path}: lacks {len(missing)} of the {len(want)} {item}s of {other}: "
            f"{_named(missing)}{hint if len(missing) < len(want) else ''}"
        )


def _named(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")


def _warn_of_empty(
    path: FilePath, texts: Iterable[tuple[str, str]], item: str, content: Content
) -> None:
    empty = [name for name, text in texts if not any(map(str.isalnum, text))]
    if empty:
        logger.warning(
            "%s: %s without a word: %d; scored as they are (%s %s)",
            *(path, content, len(empty), item, _named(list(dict.fromkeys(empty)))),
        )


def _annotations(file: RowFile, terms: _Terms) -> Sequence[Any]:
    """The annotations of an official file."""
    content = file.content
    if isinstance(content, dict) and "questions" in content and "annotations" not in content:
        raise DataError(f"{file.path}: is a VQA question file; expected the annotation file")
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise DataError(
            f"{file.path}: expected a {terms.official} annotation file, "
            'an object with "annotations", a list'
        )
    return content["annotations"]


def _texts(row: dict[str, Any], terms: _Terms, where: str, *, plain: bool) -> list[str]:
    """Captions or answers of a row: strings in JSON Lines, objects in an annotation file."""
    key = f"{terms.text}s"
    texts = row.get(key)
    if not isinstance(texts, list):
        hint = f' (one "{terms.text}" makes a prediction)' if terms.text in row and plain else ""
        raise DataError(
            f'{where}: expected "{key}", a list of {"strings" if plain else "objects"}, '
            f"found {_described(texts)}{hint}"
        )
    if plain:
        return [_text(text, key, where, "a list of strings") for text in texts]
    for text in texts:
        if not isinstance(text, dict):
            found = _described(text)
            raise DataError(f'{where}: expected "{key}", a list of objects, found {found}')
    return [
        _text(text.get(terms.text), terms.text, f"{where}, {terms.text} {number}")
        for number, text in enumerate(texts, start=1)
    ]


def _type(row: dict[str, Any], key: str, where: str) -> str | None:
    return None if row.get(key) is None else _text(row[key], key, where)


def _text(value: Any, key: str, where: str, expected: str = "a string") -> str:
    if not isinstance(value, str):
        raise DataError(f'{where}: expected "{key}", {expected}, found {_described(value)}')
    return value


def _described(value: Any) -> str:
    """What a message calls a value that is no text."""
    if value is None:
        return "nothing"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'the number {value} (write "{value}")'
    return type(value).__name__

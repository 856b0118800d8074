"""Files to score: reference captions or people's answers, and what a model said.

Captions are of pictures, answers of questions; all else is alike. Three formats, told apart by the
file name, each plain or packed. JSON Lines (any other name than those of the next two)::

    {"id": "12", "captions": ["a dog runs", "a brown dog"]}                 references
    {"id": "7", "answers": ["red", "dark red"], "answer_type": "other"}
    {"id": "12", "caption": "a dog"}                                        predictions
    {"id": "7", "answer": "red"}

so a prepared ``captions.jsonl`` or ``questions.jsonl`` is a file of references as it stands; other
keys are ignored. Tables (``*.csv``, ``*.tsv``) with the columns that ``data table`` reads and
``caption --csv`` and ``describe`` write: several rows of a picture are its references. And the
official COCO and VQA files (``*.json``)::

    {"images": [{"id": 12}], "annotations": [{"image_id": 12, "caption": "a dog runs"}]}
    {"annotations": [{"question_id": 7, "answers": [{"answer": "red"}], "question_type": ...}]}
    [{"image_id": 12, "caption": "a dog"}]
    [{"question_id": 7, "answer": "red"}]

Ids are compared as text: 12 and "12" are the same picture.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..errors import DataError
from ..files import read_json, read_jsonl
from .readers.rows import unpacked
from .readers.table import table_rows

logger = logging.getLogger(__name__)

FilePath = str | os.PathLike[str]
Content = Literal["captions", "answers"]
NAMED = 5  # how many ids a message names
_LINES = (
    'JSON Lines: references {"id", "captions": [...]} or {"id", "answers": [...]}, as in '
    "captions.jsonl or questions.jsonl of a prepared dataset (gazetell data); predictions "
    '{"id", "caption"} or {"id", "answer"}; or tables, .csv or .tsv'
)
_DOCUMENT = "a JSON document of COCO or VQA; the name of JSON Lines ends in .jsonl"


class _Terms(NamedTuple):
    """What captions and answers are called in files and messages."""

    item: str  # what they are of
    text: str  # one of them, also as a key
    texts: str  # several
    id: str  # the key of the item in an official file
    official: str


_TERMS: dict[Content, _Terms] = {
    "captions": _Terms("picture", "caption", "captions", "image_id", "COCO"),
    "answers": _Terms("question", "answer", "answers", "question_id", "VQA"),
}


@dataclass(frozen=True)
class RowFile:
    """A file that was read but not yet understood: large ones are parsed only once."""

    path: FilePath
    lines: bool  # whether it is JSON Lines
    content: Any  # a JSON document, or of JSON Lines a list of (line number, object)

    @classmethod
    def read(cls, path: FilePath, *, model: bool = False) -> "RowFile":
        """Read a table, JSON or JSON Lines, plain or packed.

        Args:
            path: of the file.
            model: it holds predictions.

        Raises:
            DataError: missing, damaged, not UTF-8 or not JSON, or a table with a bad row.
        """
        if unpacked(str(path)).lower().endswith((".csv", ".tsv", ".tab")):
            return cls(path, True, _of_table(Path(path), model))
        lines = not str(path).lower().removesuffix(".gz").endswith(".json")
        try:
            return cls(path, lines, list(read_jsonl(path)) if lines else read_json(path))
        except DataError as error:
            if not isinstance(error.__cause__, json.JSONDecodeError):
                raise
            raise DataError(f"{error}; expected {_LINES if lines else _DOCUMENT}") from error

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

    def of_split(self, split: str) -> "RowFile":
        """The rows of one split of a prepared file.

        Raises:
            DataError: another file, or no row of that split; the message names those there are.
        """
        rows = self.content if self.lines else []
        found = sorted({str(row["split"]) for _, row in rows if "split" in row})
        if split not in found:
            said = f"expected {', '.join(found)}" if found else "its rows name no split"
            raise DataError(f"{self.path}: has no split {split!r}; {said}")
        return replace(self, content=[each for each in rows if each[1].get("split") == split])

    def rows(
        self, document: Any, key: str, name: str, item: str | None
    ) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield (place for a message, id, row) of JSON Lines, or else of a list of a document.

        Args:
            document: the list; not used for JSON Lines.
            key: of the id in the list; in JSON Lines it is "id".
            name: of a row of the list in a message.
            item: what an id stands for, if it may be there only once.

        Raises:
            DataError: a row that is no object or without an id, or an id twice.
        """
        key, name = ("id", "line") if self.lines else (key, name)
        seen: dict[str, int] = {}
        for number, row in self.content if self.lines else enumerate(document, start=1):
            where = f"{self.path}:{number}" if self.lines else f"{self.path}: {name} {number}"
            if not isinstance(row, dict):
                raise DataError(f"{where}: expected an object, found {type(row).__name__}")
            value = row.get(key)
            # bool is an int in Python, but true is no id.
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise DataError(f'{where}: expected "{key}", a string or an integer')
            first = seen.setdefault(str(value), number)
            if item and first != number:
                raise DataError(f"{where}: {item} {str(value)!r} twice, first on {name} {first}")
            yield where, str(value), row


def _of_table(path: Path, model: bool) -> list[tuple[int, dict[str, Any]]]:
    """The rows of a table as those of JSON Lines; several references of an id are one row.

    The id is that of the column ``id``, else the picture's name, of a question with the question.
    """
    found: list[tuple[int, dict[str, Any]]] = []
    first: dict[str, dict[str, Any]] = {}
    for line, texts in table_rows(path):
        key = "caption" if "caption" in texts else "answer"
        named = [texts["image"], texts["question"]] if key == "answer" else [texts["image"]]
        row: dict[str, Any] = {"id": texts.get("id") or " ".join(named)}
        row |= {name: texts[name] for name in ("split",) if name in texts}
        if model:
            found.append((line, row | {key: texts[key]}))
        elif row["id"] in first:
            first[row["id"]][f"{key}s"].append(texts[key])
        else:
            first[row["id"]] = row | {f"{key}s": [texts[key]]}
            found.append((line, first[row["id"]]))
    return found


def content_of(files: Sequence[RowFile]) -> Content:
    """What all the files hold; a file of which that cannot be told goes with the others.

    Raises:
        DataError: captions in one, answers in another.
    """
    known = {str(file.path): content for file in files if (content := file.holds()) is not None}
    if len(set(known.values())) > 1:
        told = ", ".join(f"{path} holds {content}" for path, content in known.items())
        raise DataError(f"{told}; expected only captions or only answers")
    return next(iter(known.values()), "captions")


@dataclass(frozen=True)
class Texts:
    """What people or a model said of each picture or question, in the order of the file."""

    path: FilePath
    texts: dict[str, list[str]] = field(default_factory=dict)  # a model's: one of each
    question_types: dict[str, str | None] = field(default_factory=dict)
    answer_types: dict[str, str | None] = field(default_factory=dict)

    def only(self, ids: Sequence[str]) -> "Texts":
        """What is said of some of them."""
        parts: list[dict[str, Any]] = [self.texts, self.question_types, self.answer_types]
        return Texts(self.path, *({i: part[i] for i in ids if i in part} for part in parts))


def read_texts(file: RowFile, content: Content, *, model: bool = False) -> Texts:
    """Read what people said, or what a model said.

    Args:
        file: of references; of predictions if ``model``.
        content: of the file.
        model: there is one text of each picture or question, which may be empty. People's may
            lack.

    Raises:
        DataError: malformed (with its line or entry), an id twice, or nothing at all.
    """
    terms, found = _TERMS[content], Texts(file.path)
    document = None if file.lines else _document(file, terms, model)
    annotated = content == "captions" and not file.lines and not model  # a row is one caption
    if annotated:
        for _, picture, _ in file.rows(file.content["images"], "id", "image", terms.item):
            found.texts[picture] = []
    once = None if annotated else terms.item
    for where, name, row in file.rows(document, terms.id, "entry" if model else "annotation", once):
        if annotated and name not in found.texts:
            raise DataError(f'{where}: picture {name!r} is not among "images"')
        one = annotated or model
        texts = [_text(row, terms.text, where)] if one else _texts(row, terms, where, file.lines)
        found.texts.setdefault(name, []).extend(texts)
        if content == "answers" and not model:
            for key in ("question_type", "answer_type"):
                value = None if row.get(key) is None else _text(row, key, where)
                getattr(found, f"{key}s")[name] = value
    if not found.texts:
        raise DataError(f"{file.path}: has no {content}")
    return found


def match(
    references: Texts, models: Sequence[Texts], content: Content, *, subset: bool = False
) -> tuple[Texts, list[Texts], int]:
    """Keep what is scored: the pictures or questions that have references and predictions.

    Texts without a letter or digit are kept, and a warning says how many there are.

    Args:
        references: what people said.
        models: what one or more models said.
        content: of all of them.
        subset: leave out what lacks a prediction of any of the models.

    Returns:
        References and predictions with the same ids in the same order, and how many references
        were left out.

    Raises:
        DataError: something predicted without a reference; something without a prediction and no
            ``subset``; or nothing to score. The message names the first ones.
    """
    item = _TERMS[content].item
    for model in models:
        _refuse_lack(references, model, item)
        if not subset:
            _refuse_lack(model, references, item, "; --subset scores the {} that have a prediction")
    ids = [name for name in references.texts if all(name in model.texts for model in models)]
    if not ids:
        paths = " and ".join(str(model.path) for model in models)
        raise DataError(f"{paths}: have no {item} in common")
    bare = [name for name in ids if not references.texts[name]]
    if bare:
        raise DataError(f"{references.path}: {len(bare)} {item}s have no {content}: {_named(bare)}")
    kept = [part.only(ids) for part in (references, *models)]
    for part in kept:
        pairs = ((name, text) for name, texts in part.texts.items() for text in texts)
        empty = [name for name, text in pairs if not any(map(str.isalnum, text))]
        if empty:
            logger.warning(
                "%s: %s without a word: %d; scored as they are (%s %s)",
                *(part.path, content, len(empty), item, _named(list(dict.fromkeys(empty)))),
            )
    return kept[0], kept[1:], len(references.texts) - len(ids)


def _refuse_lack(have: Texts, want: Texts, item: str, hint: str = "") -> None:
    missing = [name for name in want.texts if name not in have.texts]
    if missing:
        # Where nothing is there, a subset would hold nothing.
        hint = hint.format(f"{item}s") if len(missing) < len(want.texts) else ""
        if os.path.basename(missing[0]) in have.texts:
            hint = "; without their folder these names are there"
        raise DataError(
            f"{have.path}: lacks {len(missing)} of the {len(want.texts)} {item}s of {want.path}: "
            f"{_named(missing)}{hint}"
        )


def _named(ids: Sequence[str]) -> str:
    return ", ".join(ids[:NAMED]) + (", ..." if len(ids) > NAMED else "")


def _document(file: RowFile, terms: _Terms, model: bool) -> list[Any]:
    """The results or annotations of an official file."""
    content = file.content
    if model:
        if not isinstance(content, list):
            expected = f"a {terms.official} result file, a list of objects"
            raise DataError(f"{file.path}: expected {expected}")
        return content
    if isinstance(content, dict) and "questions" in content and "annotations" not in content:
        raise DataError(f"{file.path}: is a VQA question file; expected the annotation file")
    keys = ("annotations", "images") if terms.item == "picture" else ("annotations",)
    for key in keys:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            expected = f'a {terms.official} annotation file, an object with "{key}", a list'
            raise DataError(f"{file.path}: expected {expected}")
    return content["annotations"]


def _texts(row: dict[str, Any], terms: _Terms, where: str, plain: bool) -> list[str]:
    """Captions or answers of a row: strings in JSON Lines, objects in an annotation file."""
    expected, type_ = ("strings", str) if plain else ("objects", dict)
    texts: Any = row.get(terms.texts)
    is_list = isinstance(texts, list)
    wrong = [text for text in texts if not isinstance(text, type_)] if is_list else [texts]
    if wrong:
        hint = f' (one "{terms.text}" makes a prediction)' if terms.text in row and plain else ""
        raise DataError(
            f'{where}: expected "{terms.texts}", a list of {expected}, '
            f"found {_described(wrong[0])}{hint}"
        )
    return (
        texts if plain else [_text(text, terms.text, f"{where}, {terms.texts}") for text in texts]
    )


def _text(row: dict[str, Any], key: str, where: str) -> str:
    if not isinstance(row.get(key), str):
        found = _described(row.get(key))
        raise DataError(f'{where}: expected "{key}", a string, found {found}')
    return row[key]


def _described(value: Any) -> str:
    """What a message calls a value that is no text."""
    if value is None:
        return "nothing"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'the number {value} (write "{value}")'
    return type(value).__name__

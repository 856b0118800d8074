"""Files of answers to score: what people answered to each question, and what a model answered.

Two formats, told apart by the file name, each plain or gzip'd. JSON Lines (any name but ``*.json``
and ``*.json.gz``), a question a line::

    {"id": "7", "answers": ["red", "dark red"], "answer_type": "other"}     references
    {"id": "7", "answer": "red"}                                            predictions

so a prepared ``questions.jsonl`` is a file of references as it stands; other keys are ignored. And
the official VQA files (``*.json``), annotations and results::

    {"annotations": [{"question_id": 7, "answers": [{"answer": "red"}], "question_type": ...}]}
    [{"question_id": 7, "answer": "red"}]

Ids are compared as text: 7 and "7" are the same question. A file of captions is told from one of
answers by its content (`RowFile.holds`).
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import DataError
from ..files import read_json, read_jsonl
from .predictions import FilePath, once, row_id

__all__ = [
    "AnswerReferences",
    "RowFile",
    "read_answer_predictions",
    "read_answer_references",
]


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

    def holds(self) -> Literal["answers", "captions"] | None:
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


@dataclass(frozen=True)
class AnswerReferences:
    """What people answered to each question, by id and in the order of the file.

    Attributes:
        answers: at least one for each question.
        question_types: of each question, None where the file names none.
        answer_types: likewise.
    """

    answers: dict[str, list[str]] = field(default_factory=dict)
    question_types: dict[str, str | None] = field(default_factory=dict)
    answer_types: dict[str, str | None] = field(default_factory=dict)


def read_answer_references(source: FilePath | RowFile) -> AnswerReferences:
    """Read what people answered to each question.

    Args:
        source: JSON Lines with "id" and "answers", or an official VQA annotation file.

    Raises:
        DataError: missing or malformed (with its line or entry), an id twice, a question without
            answers, an answer that is no text, or no questions at all.
    """
    file = source if isinstance(source, RowFile) else RowFile.read(source)
    path, key = file.path, "id" if file.lines else "question_id"
    rows = file.content
    if not file.lines:
        if isinstance(rows, dict) and "questions" in rows and "annotations" not in rows:
            raise DataError(f"{path}: is a VQA question file; expected the annotation file")
        if not isinstance(rows, dict) or not isinstance(rows.get("annotations"), list):
            raise DataError(
                f'{path}: expected a VQA annotation file, an object with "annotations", a list'
            )
        rows = list(enumerate(rows["annotations"], start=1))
    found = AnswerReferences()
    seen: dict[str, int] = {}
    for number, row in rows:
        where = f"{path}:{number}" if file.lines else f"{path}: annotation {number}"
        question = row_id(row, key, where)
        once("question", question, number, seen, where, "line" if file.lines else "annotation")
        found.answers[question] = _answers(row, where, question, file.lines)
        found.question_types[question] = _type(row, "question_type", where)
        found.answer_types[question] = _type(row, "answer_type", where)
    if not found.answers:
        raise DataError(f"{path}: holds no answers")
    return found


def read_answer_predictions(source: FilePath | RowFile) -> dict[str, str]:
    """Read the answer that a model gave to each question.

    Args:
        source: JSON Lines with "id" and "answer", or an official VQA result file.

    Returns:
        One answer a question, by id and in the order of the file. It may be empty.

    Raises:
        DataError: missing or malformed (with its line or entry), an id twice, an answer that is no
            text, or no answers at all.
    """
    file = source if isinstance(source, RowFile) else RowFile.read(source)
    path, key = file.path, "id" if file.lines else "question_id"
    rows = file.content
    if not file.lines:
        if not isinstance(rows, list):
            raise DataError(f"{path}: expected a VQA result file, a list of objects")
        rows = list(enumerate(rows, start=1))
    found: dict[str, str] = {}
    seen: dict[str, int] = {}
    for number, row in rows:
        where = f"{path}:{number}" if file.lines else f"{path}: entry {number}"
        question = row_id(row, key, where)
        once("question", question, number, seen, where, "line" if file.lines else "entry")
        found[question] = _text(row.get("answer"), f'{where}: expected "answer", a string')
    if not found:
        raise DataError(f"{path}: holds no answers")
    return found


def _answers(row: dict[str, Any], where: str, question: str, plain: bool) -> list[str]:
    """People's answers: strings in JSON Lines, objects with "answer" in an annotation file."""
    expected = f'{where}: expected "answers", a list of ' + ("strings" if plain else "objects")
    answers = row.get("answers")
    if not isinstance(answers, list):
        hint = ' (one "answer" makes a prediction)' if "answer" in row and plain else ""
        raise DataError(f"{expected}, found {_named(answers)}{hint}")
    if not answers:
        raise DataError(f"{where}: question {question!r} has no answers, expected some")
    if plain:
        return [_text(answer, expected) for answer in answers]
    texts = []
    for number, answer in enumerate(answers, start=1):
        if not isinstance(answer, dict):
            raise DataError(f"{expected}, found {_named(answer)}")
        what = f'{where}, answer {number}: expected "answer", a string'
        texts.append(_text(answer.get("answer"), what))
    return texts


def _type(row: dict[str, Any], key: str, where: str) -> str | None:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise DataError(f'{where}: expected "{key}", a string, found {_named(value)}')
    return value


def _text(value: Any, expected: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{expected}, found {_named(value)}")
    return value


def _named(value: Any) -> str:
    """What a message calls a value that is no text."""
    if value is None:
        return "nothing"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'the number {value} (write "{value}")'
    return type(value).__name__

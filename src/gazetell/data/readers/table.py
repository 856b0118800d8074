"""One's own captions or questions: a CSV, TSV or JSON Lines file with a row for each.

Captions: several rows of one picture are its several captions. Questions: several rows of the same
picture and question are its several answers. In JSON Lines a row may hold them as a list::

    {"image": "a.jpg", "captions": ["...", "..."]}
    {"image": "a.jpg", "question": "...", "answers": ["...", "..."]}

Without a split column the pictures are shared out by a seeded split, each with all its questions.
Line numbers in errors are those of the file, also where a quoted field runs over several lines.
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import DataError, UsageError
from ...files import read_text
from ..records import Dataset, QuestionRecord
from .question_rows import QuestionCollector, answer_texts, question_text
from .rows import BadRows, Collector, caption_text, seeded_split, split_name

__all__ = ["table"]

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class _Columns:
    """The names of the columns.

    As given by the user ``caption``, ``question`` and ``answer`` are None where nothing was said;
    once the file is known either ``caption`` or the other two are names. ``split`` or ``id`` is
    None where the file has none.
    """

    image: str
    caption: str | None
    question: str | None
    answer: str | None
    split: str | None
    id: str | None


def table(
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    image_column: str = "image",
    caption_column: str | None = None,
    question_column: str | None = None,
    answer_column: str | None = None,
    split_column: str | None = None,
    id_column: str | None = None,
    val: float | int = 0.1,
    test: float | int = 0.1,
    seed: int = 0,
    bad: BadRows | None = None,
) -> Dataset:
    """Read a table of one's own pictures and captions, or pictures, questions and answers.

    It holds questions if ``question_column`` or ``answer_column`` is given, or if it has a column
    ``question`` and no column ``caption``.

    Args:
        path: a ``.csv``, ``.tsv`` or ``.jsonl`` file, UTF-8, with a header line if CSV or TSV.
        images: the folder that picture names are relative to; the table's own by default.
        image_column: the column of the picture's name.
        caption_column: the column of the caption; ``caption`` by default.
        question_column: the column of the question; ``question`` by default.
        answer_column: the column of the answer; ``answer`` by default.
        split_column: the column of train, val or test. By default ``split`` where the file has
            such a column.
        id_column: the column of the record id. By default the picture's name is the id of its
            captions, and with "#1", "#2", ... that of its questions.
        val: pictures for val where no split is given: a fraction (float) or a number (int).
        test: likewise for test.
        seed: of that split.
        bad: what to do with bad rows; by default the first is an error.

    Raises:
        DataError: the file is missing, empty, of another kind or without such a column, or a bad
            row (``file:line``): wrong number of fields, empty picture, caption, question or
            answer, unknown split.
        UsageError: columns of captions and of questions, or a seeded split that leaves nothing
            for train.
    """
    path, bad = Path(path), bad or BadRows()
    root = Path(images) if images is not None else path.parent
    if caption_column is not None and (question_column or answer_column) is not None:
        raise UsageError("caption_column and question_column: a table is read for one of the two")
    columns = _Columns(
        image_column, caption_column, question_column, answer_column, split_column, id_column
    )
    suffix = path.suffix.lower()
    if suffix in _DELIMITERS:
        columns, rows = _delimited(path, _DELIMITERS[suffix], columns, bad)
    elif suffix in _JSON_LINES:
        columns, rows = _json_lines(path, columns, bad)
    else:
        raise DataError(f"{path}: expected a .csv, .tsv or .jsonl file")
    seeded = None if columns.split is not None else (val, test, seed)
    if columns.question is not None:
        return Dataset(
            path.stem, "table", root, questions=_questions(path, rows, columns, seeded, bad)
        )
    collector = Collector(bad)
    for where, row in rows:
        _add_caption(collector, where, row, columns, bad)
    splits = _split(path, collector.images, seeded, "caption")
    return Dataset(path.stem, "table", root, collector.records(splits))


_Seeded = tuple[float | int, float | int, int] | None  # val, test, seed; None: the file tells


def _split(
    path: Path, images: Collection[str], seeded: _Seeded, what: str
) -> dict[str, str] | None:
    """The seeded split of the pictures, None where the file tells it."""
    if not images:
        raise DataError(f"{path}: holds no picture with a {what}")
    if seeded is None:
        return None
    val, test, seed = seeded
    return seeded_split(images, val=val, test=test, seed=seed)


def _questions(
    path: Path, rows: "_Rows", columns: _Columns, seeded: _Seeded, bad: BadRows
) -> tuple[QuestionRecord, ...]:
    """The questions of a table."""
    collector = QuestionCollector(bad, several=True)
    numbers: Counter[str] = Counter()
    ids: dict[tuple[str, str], str] = {}
    for where, row in rows:
        basis = _basis(where, row, columns, bad)
        if basis is None:
            continue
        image, split, id = basis
        question, reason = question_text(row.get(columns.question or ""))
        if question is None:
            bad.add(where, reason, row)
            continue
        raw = row.get(columns.answer or "", row.get("answers"))
        answers, reason = answer_texts(raw if isinstance(raw, list) else [raw])
        if answers is None:
            bad.add(where, reason, row)
            continue
        if id is None and (image, question) not in ids:
            numbers[image] += 1
            ids[image, question] = f"{image}#{numbers[image]}"
        key = ids[image, question] if id is None else id
        collector.add(where, QuestionRecord(key, image, question, answers, split), row)
    records = collector.records()
    splits = _split(path, {record.image for record in records}, seeded, "question")
    if splits is None:
        return records
    return tuple(replace(record, split=splits[record.image]) for record in records)


def _basis(
    where: str, row: dict[str, Any], columns: _Columns, bad: BadRows
) -> tuple[str, str, str | None] | None:
    """Picture, split and id (None where there is no such column) of a row; None if it is bad."""
    image = row.get(columns.image)
    if not isinstance(image, str) or not image.strip() or "\0" in image:
        bad.add(where, f"{columns.image} is {_shown(image)}; expected the name of a picture", row)
        return None
    # "./a.jpg" and "a.jpg" are one picture.
    image = Path(os.path.normpath(image.strip())).as_posix()
    split = "train" if columns.split is None else split_name(row.get(columns.split))
    if split is None:
        found = _shown(row.get(columns.split or ""))
        bad.add(where, f"{columns.split} is {found}; expected train, val or test", row)
        return None
    if columns.id is None:
        return image, split, None
    value = row.get(columns.id)
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
        bad.add(where, f"{columns.id} is {_shown(value)}; expected an id", row)
        return None
    return image, split, str(value).strip()


def _add_caption(
    collector: Collector, where: str, row: dict[str, Any], columns: _Columns, bad: BadRows
) -> None:
    """Add a row to its picture, or report what is wrong with it."""
    basis = _basis(where, row, columns, bad)
    if basis is None:
        return
    image, split, id = basis
    captions = []
    raw = row.get(columns.caption or "", row.get("captions"))
    values = raw if isinstance(raw, list) and raw else [raw]
    for value in values:
        caption, reason = caption_text(value)
        if caption is None:
            bad.add(where, reason, row)
            return
        captions.append(caption)
    collector.add(where, image, id if id is not None else image, split, captions, row)


def _shown(value: Any) -> str:
    """A value in an error message."""
    if value is None:
        return "missing"
    return "empty" if value == "" else repr(value)[:60]


_Rows = Iterator[tuple[str, dict[str, Any]]]


def _delimited(
    path: Path, delimiter: str, columns: _Columns, bad: BadRows
) -> tuple[_Columns, _Rows]:
    """The columns in use and the rows of a CSV or TSV file."""
    lines = _numbered(path, delimiter, bad)
    number, header = next(lines, (1, []))
    header = [name.strip() for name in header]
    if not any(header):
        raise DataError(f"{path}:1: is empty; expected a header line")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}:{number}: column {twice[0]!r} occurs twice")
    columns = _resolved(columns, header, f"{path}:{number}")

    def rows() -> _Rows:
        for number, fields in lines:
            where = f"{path}:{number}"
            if len(fields) != len(header):
                reason = f"expected {len(header)} fields, found {len(fields)}"
                bad.add(where, reason, delimiter.join(fields))
            else:
                yield where, dict(zip(header, fields, strict=True))

    return columns, rows()


def _resolved(columns: _Columns, header: Collection[str], where: str) -> _Columns:
    """``columns`` with those checked that must be there and ``split`` added if it is there."""
    columns = _captions_or_questions(columns, header)
    named = (columns.image, columns.caption, columns.question, columns.answer)
    for name in (*named, columns.split, columns.id):
        if name is not None and name not in header:
            raise DataError(f"{where}: no column {name!r}; columns: {', '.join(header)}")
    split = columns.split or ("split" if "split" in header else None)
    return replace(columns, split=split)


def _captions_or_questions(columns: _Columns, header: Collection[str]) -> _Columns:
    """``columns`` with the names by default of either captions or questions."""
    asked = columns.question is not None or columns.answer is not None
    told = columns.caption is not None or "caption" in header or "captions" in header
    if not asked and (told or "question" not in header):
        return replace(columns, caption=columns.caption or "caption")
    return replace(
        columns, question=columns.question or "question", answer=columns.answer or "answer"
    )


def _numbered(path: Path, delimiter: str, bad: BadRows) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV or TSV file, each with the line it begins on; blank lines are skipped."""
    # Split at line ends only: a field may hold other characters that splitlines() breaks at.
    reader = csv.reader(
        (line + "\n" for line in read_text(path).split("\n")), delimiter=delimiter, strict=True
    )
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # An open quote swallows all that follows; say how far it got.
            reason = f"is no row of CSV ({error}), read on to line {reader.line_num}"
            bad.add(f"{path}:{number}", reason)
            continue
        if any(field.strip() for field in fields):
            yield number, fields


def _json_lines(path: Path, columns: _Columns, bad: BadRows) -> tuple[_Columns, _Rows]:
    """The columns in use and the rows of a JSON Lines file."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            bad.add(where, f"is not JSON ({error})", line)
            continue
        if isinstance(row, dict):
            rows.append((where, row))
        else:
            bad.add(where, f"expected a JSON object, found {type(row).__name__}", line)
    if not rows:
        raise DataError(f"{path}:1: holds no rows; expected one JSON object a line")
    # A row may lack what others have; the line is told where it does.
    header = dict.fromkeys(key for _, row in rows for key in row)
    columns = _captions_or_questions(columns, header)
    if columns.split is None and "split" in header:
        columns = replace(columns, split="split")
    return columns, iter(rows)

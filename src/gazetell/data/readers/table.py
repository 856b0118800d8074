"""One's own captions: a CSV, TSV or JSON Lines file with a picture and a caption a row.

Several rows of one picture are its several captions. In JSON Lines a row may hold them as a list,
``{"image": "a.jpg", "captions": ["...", "..."]}``. Without a split column the pictures are shared
out by a seeded split. Line numbers in errors are those of the file, also where a quoted field
runs over several lines.
"""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...files import read_text
from ..records import Dataset
from .rows import BadRows, Collector, caption_text, seeded_split, split_name

__all__ = ["table"]

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class _Columns:
    """The names of the columns; ``split`` or ``id`` None where the file has none."""

    image: str
    caption: str
    split: str | None
    id: str | None


def table(
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    image_column: str = "image",
    caption_column: str = "caption",
    split_column: str | None = None,
    id_column: str | None = None,
    val: float | int = 0.1,
    test: float | int = 0.1,
    seed: int = 0,
    bad: BadRows | None = None,
) -> Dataset:
    """Read a table of one's own pictures and captions.

    Args:
        path: a ``.csv``, ``.tsv`` or ``.jsonl`` file, UTF-8, with a header line if CSV or TSV.
        images: the folder that picture names are relative to; the table's own by default.
        image_column: the column of the picture's name.
        caption_column: the column of the caption.
        split_column: the column of train, val or test. By default ``split`` where the file has
            such a column.
        id_column: the column of the record id; by default the picture's name is its id.
        val: pictures for val where no split is given: a fraction (float) or a number (int).
        test: likewise for test.
        seed: of that split.
        bad: what to do with bad rows; by default the first is an error.

    Raises:
        DataError: the file is missing, empty, of another kind or without such a column, or a bad
            row (``file:line``): wrong number of fields, empty picture or caption, unknown split.
        UsageError: a seeded split that leaves nothing for train.
    """
    path, bad = Path(path), bad or BadRows()
    root = Path(images) if images is not None else path.parent
    columns = _Columns(image_column, caption_column, split_column, id_column)
    suffix = path.suffix.lower()
    if suffix in _DELIMITERS:
        columns, rows = _delimited(path, _DELIMITERS[suffix], columns, bad)
    elif suffix in _JSON_LINES:
        columns, rows = _json_lines(path, columns, bad)
    else:
        raise DataError(f"{path}: expected a .csv, .tsv or .jsonl file")
    collector = Collector(bad)
    for where, row in rows:
        _add(collector, where, row, columns, bad)
    pictures = collector.images
    if not pictures:
        raise DataError(f"{path}: holds no picture with a caption")
    splits = None
    if columns.split is None:
        splits = seeded_split(pictures, val=val, test=test, seed=seed)
    return Dataset(path.stem, "table", root, collector.records(splits))


def _add(
    collector: Collector, where: str, row: dict[str, Any], columns: _Columns, bad: BadRows
) -> None:
    """Add a row to its picture, or report what is wrong with it."""
    image = row.get(columns.image)
    if not isinstance(image, str) or not image.strip() or "\0" in image:
        bad.add(where, f"{columns.image} is {_shown(image)}; expected the name of a picture", row)
        return
    # "./a.jpg" and "a.jpg" are one picture.
    image = Path(os.path.normpath(image.strip())).as_posix()
    captions = []
    raw = row.get(columns.caption, row.get("captions"))
    values = raw if isinstance(raw, list) and raw else [raw]
    for value in values:
        caption, reason = caption_text(value)
        if caption is None:
            bad.add(where, reason, row)
            return
        captions.append(caption)
    split = "train" if columns.split is None else split_name(row.get(columns.split))
    if split is None:
        found = _shown(row.get(columns.split or ""))
        bad.add(where, f"{columns.split} is {found}; expected train, val or test", row)
        return
    key = image
    if columns.id is not None:
        value = row.get(columns.id)
        if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
            bad.add(where, f"{columns.id} is {_shown(value)}; expected an id", row)
            return
        key = str(value).strip()
    collector.add(where, image, key, split, captions, row)


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


def _resolved(columns: _Columns, header: Sequence[str], where: str) -> _Columns:
    """``columns`` with those checked that must be there and ``split`` added if it is there."""
    named = (columns.image, columns.caption, columns.split, columns.id)
    for name in named:
        if name is not None and name not in header:
            raise DataError(f"{where}: no column {name!r}; columns: {', '.join(header)}")
    split = columns.split or ("split" if "split" in header else None)
    return _Columns(columns.image, columns.caption, split, columns.id)


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
    if columns.split is None and any("split" in row for _, row in rows):
        columns = _Columns(columns.image, columns.caption, "split", columns.id)
    return columns, iter(rows)

"""One's own captions or questions: a CSV, TSV or JSON Lines file with a row for each.

Captions: several rows of one picture are its several captions. Questions: several rows of the same
picture and question are its several answers. In JSON a row may hold them as a list::

    {"image": "a.jpg", "captions": ["...", "..."]}
    {"image": "a.jpg", "question": "...", "answers": ["...", "..."]}

Quotation marks. A quoted field of CSV may run over several lines, but never over a line that reads
as a row of its own: as many fields as the header and the name of a picture in its place. Such a
mark was never closed, and its line is a bad row. Between tabs a mark is text, unless it encloses
a whole field. Errors name the line where a row begins. Columns that are not read are named.

A table of ``gazetell describe``, and what its review sheet saves, is known by its columns. Its
texts are machine-made, which the dataset keeps with the model's name. Rows that teach nothing good
are left out: failed, empty, cut off, not sure, not approved. Answers become questions.
"""

import csv
import json
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ...errors import DataError, UsageError
from ...files import YES_OR_NO, read_bytes, spreadsheet_plain
from ..records import CaptionRecord, Dataset, QuestionRecord
from .rows import BadRows, BadValue, Collector, refuse, split_name, unpacked

log = logging.getLogger(__name__)
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
_WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")
_WORKBOOK = "is a workbook; save the sheet as CSV UTF-8 and give that file"
_PICTURE = re.compile(r".*\.(jpe?g|png|gif|bmp|webp|tiff?|avif|heic)", re.IGNORECASE | re.DOTALL)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.\-]+://", re.IGNORECASE)
_SHOWN = 5  # values of a column that an error names
_UNREAD = 20  # columns that a note names
# Of ``gazetell describe`` or of its review sheet are the first three and one of the others.
_DESCRIBED = {"picture", "caption", "model", "log_prob", "approved"}
# What is read of these, besides the texts; alt_text is the caption where it was approved.
_READ = {"model", "approved", "alt_text", "error", "sure", "ended"}
_HAN = "Chinese or Japanese"  # whose scripts one text mixes
# What a column may be called where the user does not say.
_PLACE = ("image", "picture", "file_name", "filename", "file", "image_name", "image_path", "path")
_NAMES = {
    "image": _PLACE,
    "caption": ("caption", "captions", "text", "description", "comment"),
    "question": ("question",),
    "answer": ("answer", "answers"),
    "split": ("split",),
    "id": (),
}

_Rows = Iterable[tuple[str, dict[str, Any]]]  # where a row begins, its fields by column


def table(
    file: Path,
    *,
    images: Path | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    question_column: str | None = None,
    answer_column: str | None = None,
    split_column: str | None = None,
    id_column: str | None = None,
    val: float | None = None,
    test: float | None = None,
    seed: int = 0,
    split: Literal["train", "val", "test"] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    where: tuple[str, ...] = (),
    bad: BadRows | None = None,
) -> Dataset:
    """Your own .csv, .tsv or .jsonl: a row a caption, or a row a question and its answer.

    Several rows a picture are several captions or questions; several rows of the same picture and
    question are several answers. A table with captions and questions is read for its captions,
    unless the column of the question or of the answer is named. A table of gazetell describe
    gives captions and questions, without what the model was not sure of.

    Args:
        file: The table, with a header line; .txt is one too, and .json is a list of rows.
        images: The folder of pictures; the table's own if not given.
        image_column: The column with the picture's path below IMAGES; image if not given.
        caption_column: The column with the caption; caption if not given.
        question_column: The column with the question; question if not given.
        answer_column: The column with the answer; answer if not given.
        split_column: The column with train, val or test; split if there is one, else the seed
            draws.
        id_column: The column with the picture's id; its path if not given.
        val: Pictures for validation: a share of them, or a number from 1; 0.1 if not given.
        test: Pictures for testing, likewise.
        seed: Random seed of the draw.
        split: Every picture goes to this split, such as test, and none is drawn.
        delimiter: The character between fields, or tab; found by the header line if not given.
        encoding: Of the text; UTF-8, UTF-16 and Windows' code page 1252 are found.
        where: COLUMN=VALUE: only rows with this value in this column. Several of one column
            are alternatives; of several columns each must hold.
        bad: What to do with bad rows.
    """
    given = {
        "image": image_column,
        "caption": caption_column,
        "question": question_column,
        "answer": answer_column,
        "split": split_column,
        "id": id_column,
    }
    if caption_column is not None and (question_column or answer_column) is not None:
        raise UsageError("caption_column and question_column: expected only one of them")
    named = [column for column in given.values() if column is not None]
    if twice := [column for column in named if named.count(column) > 1]:
        first, second = (f"{role}_column" for role, column in given.items() if column == twice[0])
        raise UsageError(f"{first} and {second}: are both {twice[0]!r}; expected different columns")
    if images is not None and not images.is_dir():
        raise UsageError(f"images {images}: is not a folder; expected the folder of the pictures")
    collector = Collector(images or file.parent, bad, several=True)
    suffix, whole = Path(unpacked(file.name)).suffix.lower(), split or "train"
    rows: list[tuple[str, dict[str, Any]]] = []  # of JSON
    if suffix in (".jsonl", ".ndjson", ".json"):
        refuse("the file is JSON", delimiter=delimiter)
        rows = list(_json(file, suffix == ".json", encoding, collector.bad))
        if not rows:
            raise DataError(f"{file}:1: has no rows; expected one JSON object per line")
        header: Sequence[str] = list(dict.fromkeys(key for _, row in rows for key in row))
        columns = _columns(header, given, str(file), file.name, collector.bad)
        read: _Rows = rows
    elif suffix in _DELIMITERS:
        text = _Delimited(file, _DELIMITERS[suffix], delimiter, encoding, given, collector.bad)
        header = text.header
        columns = _columns(header, given, text.where, file.name, collector.bad)
        read = text.rows(columns["image"])
    else:
        expected = _WORKBOOK if suffix in _WORKBOOKS else "expected a .csv, .tsv or .jsonl file"
        raise DataError(f"{file}: {expected}")
    read, made = _chosen(read, where, header, file, collector.bad), dict[str, None]()
    asked: list[str] = []
    described = "caption" in columns and {"picture", "caption", "model"} < {*header} & _DESCRIBED
    if described:
        asked = [name for name in header if f"{name} (confidence)" in header]
        read = _described(read, columns, asked, made, file.name, collector, whole)
    told_of = columns.get("caption") or columns["answer"]
    used = {_column(header, one.partition("=")[0], str(file)) for one in where}
    used |= {*columns.values(), *asked, *(f"{name} (sure)" for name in asked)}
    used |= _READ if described else set()
    # In JSON one row may say "caption" and another "captions".
    if rows and not any(told_of in row and f"{told_of}s" in row for _, row in rows):
        used.add(f"{told_of}s")
    _tell_unread([name for name in header if name not in used], columns, file.name, collector.bad)
    _add(read, columns, collector, whole)
    if made:
        by = ", ".join(made)
        collector.bad.notes.append(f"{file.name}: the texts are machine-made, by {by}")
    dataset = collector.dataset(file.name.partition(".")[0], "table", file, made)
    told = [text for record in dataset.captions for text in record.captions]
    scripts = _scripts(told or [record.question for record in dataset.questions])
    if len(scripts) > 1:
        shares = ", ".join(f"{script} {count:,}" for script, count in scripts.most_common())
        what = f"{'captions' if told else 'questions'} mix scripts ({shares})"
        hint = "--where COLUMN=VALUE takes the rows of one language"
        collector.bad.notes.append(f"{file.name}: {what}; {hint}")
    drawn: dict[str, Any] = {"val": val, "test": test, "seed": seed or None}
    if "split" in columns:
        refuse(f"column {columns['split']!r} tells the splits", **drawn, split=split)
    if split:
        refuse("every picture goes to one split", **drawn)
    if split or "split" in columns:
        return dataset
    collector.draw(val=0.1 if val is None else val, test=0.1 if test is None else test, seed=seed)
    return collector.dataset(dataset.name, "table", file, made)


def table_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The line and the texts of each row of a CSV or TSV file, by what they hold.

    That is ``image``, ``caption`` or ``question`` and ``answer``, and where they are there
    ``split`` and ``id``. No row of ``gazetell describe`` is left out.

    Raises:
        DataError: missing, another encoding, without these columns, or a bad row.
    """
    bad, given = BadRows(), dict.fromkeys(_NAMES)
    usual = _DELIMITERS[Path(unpacked(file.name)).suffix.lower()]
    text = _Delimited(file, usual, None, None, given, bad)
    given["id"] = _column(text.header, "id", text.where)
    try:
        columns = _columns(text.header, given, text.where, file.name, bad)
    except DataError as error:
        said = str(error).partition("; expected one")[0]
        raise DataError(f"{said}; gazetell data table takes other names, too") from error
    described = "caption" in columns and {"picture", "caption"} < {*text.header} & _DESCRIBED
    for where, row in text.rows(columns["image"]):
        texts = {role: row[column].strip() for role, column in columns.items()}
        texts["image"] = texts["image"].removeprefix("./")
        if described:
            texts["caption"] = spreadsheet_plain(texts["caption"])
        yield int(where.rpartition(":")[2]), texts
    for note in [] if described else bad.notes:
        log.warning(note.partition("; --")[0])  # options of ``table``


def _columns(
    header: Sequence[str], given: dict[str, str | None], where: str, name: str, bad: BadRows
) -> dict[str, str]:
    """The columns in use, by what they hold; letter case is ignored where that is clear."""

    def find(role: str, names: Iterable[str]) -> str | None:
        wanted = names if given[role] is None else (str(given[role]),)
        return next(filter(None, (_column(header, one, where) for one in wanted)), None)

    asked = given["question"] is not None or given["answer"] is not None
    captioned = find("caption", _NAMES["caption"][:2]) is not None
    questions = find("question", _NAMES["question"]) is not None
    if captioned and questions and not asked and given["caption"] is None:
        bad.notes.append(
            f"{name}: has captions and questions, and is read for its captions; "
            "--question-column reads the questions"
        )
    needed = (
        ["image", "question", "answer"] if asked or questions > captioned else ["image", "caption"]
    )
    columns = {}
    # First the columns that were named: a slip in a name is told before what else is missing.
    for role in sorted((*needed, "split", "id"), key=lambda role: given[role] is None):
        found = find(role, _NAMES[role])
        if found is not None:
            columns[role] = found
            if given[role] is None and found.strip().lower() not in (role, f"{role}s"):
                bad.notes.append(f"{name}: column {found!r} is taken for the {role}")
        elif role in needed or given[role] is not None:
            no_header = any(_PICTURE.fullmatch(one) for one in header)
            hint = "; expected a header line first" if no_header else ""
            known = f"columns: {', '.join(header)}{hint}"
            if given[role] is not None:
                option = f"{role}_column {given[role]}"
                raise UsageError(f"{option}: {where} has no such column; {known}")
            named = "" if hint else f"; expected one, or its name: --{role}-column"
            raise DataError(f"{where}: no column {role!r}; {known}{named}")
    return columns


def _tell_unread(unread: Sequence[str], columns: Iterable[str], name: str, bad: BadRows) -> None:
    """Note the columns that are not read, and what to do with a second text of a row."""
    if not unread:
        return
    shown = ", ".join(one or "(no name)" for one in unread[:_UNREAD])
    more = f" and {len(unread) - _UNREAD} more" if len(unread) > _UNREAD else ""
    second = re.compile(rf"({'|'.join(columns)})s?[ _.-]?\d+", re.IGNORECASE)
    hint = "; give a second text of a picture a row of its own"
    further = hint if any(map(second.fullmatch, unread)) else ""
    bad.notes.append(f"{name}: columns not read: {shown}{more}{further}")


def _column(header: Sequence[str], wanted: str, where: str) -> str | None:
    """The column of this name, or else the one that differs from it in letter case only."""
    alike = [one for one in header if one.strip().lower() == wanted.strip().lower()]
    fits = [wanted] if wanted in header else alike
    if len(fits) > 1:
        raise DataError(f"{where}: columns {', '.join(fits)} all match {wanted!r}")
    return fits[0] if fits else None


def _chosen(
    rows: _Rows, conditions: Sequence[str], header: Sequence[str], file: Path, bad: BadRows
) -> _Rows:
    """The rows that fit the conditions of ``--where``; a note says how many of how many."""
    wanted: dict[str, dict[str, str]] = {}  # from a column to its values, and their conditions
    for condition in conditions:
        name, equals, value = condition.partition("=")
        column = _column(header, name, str(file)) if equals else None
        if column is None:
            wrong = f"{file} has no column {name!r}" if equals else "expected COLUMN=VALUE"
            raise UsageError(f"where {condition}: {wrong}; columns: {', '.join(header)}")
        wanted.setdefault(column, {})[value.strip()] = condition
    seen: dict[str, Counter[str]] = {column: Counter() for column in wanted}
    total = taken = 0
    for where, row in rows:
        total += 1
        has = {}
        for column in wanted:
            value = row.get(column, "")
            has[column] = value.strip() if isinstance(value, str) else json.dumps(value)
            seen[column][has[column]] += 1
        if all(has[column] in values for column, values in wanted.items()):
            taken += 1
            yield where, row
    for column, values in wanted.items():
        for value, condition in values.items():
            if value not in seen[column]:
                known = [f"{x[:40]!r} ({n:,})" for x, n in seen[column].most_common(_SHOWN)]
                more = ", ..." if len(seen[column]) > _SHOWN else ""
                told = f"no row of {file} has it; {column} is {', '.join(known)}{more}"
                raise UsageError(f"where {condition}: {told}")
    if conditions and not taken:
        raise UsageError(f"where {' and '.join(conditions)}: no row of {file} has them together")
    if conditions:
        told = f"{taken:,} of {total:,} rows taken, where {' and '.join(conditions)}"
        bad.notes.append(f"{file.name}: {told}")


def _described(
    rows: _Rows,
    columns: dict[str, str],
    asked: Sequence[str],
    made: dict[str, None],
    name: str,
    collector: Collector,
    split: str,
) -> _Rows:
    """The rows with a caption to learn from; their answers go to the collector.

    Args:
        rows: of a table of ``gazetell describe``, or of what a review sheet saved.
        columns: in use, by what they hold.
        asked: the columns of answers, each named after its question.
        made: gets the names of the models.
        name: of the file.
        collector: of the questions.
        split: of every picture, if no column tells it.
    """
    caption = columns["caption"]

    def left_out(why: str, where: str) -> None:
        collector.bad.count(f"{name}: {why}, left out", where)

    for where, row in rows:
        told = {key: str(value).strip() for key, value in row.items() if value is not None}
        if not YES_OR_NO.get(told.get("approved", "yes").lower()):
            left_out("captions that nobody approved", where)
            continue
        if told.get("error"):
            left_out("pictures that failed", where)
            continue
        model = told.get("model") or "an unnamed model"
        made[f"{model}, approved by a person" if "approved" in told else model] = None
        for question in asked:
            with collector.bad.catch(where, row):
                if told.get(f"{question} (sure)", "").lower() == "false":
                    left_out("answers that the model was not sure of", where)
                elif answer := spreadsheet_plain(told.get(question, "")):
                    own = split_name(told.get(columns.get("split", ""))) or split
                    image = told.get(columns["image"], "")
                    collector.add(where, QuestionRecord("", image, question, (answer,), own))
        if told.get("sure", "").lower() == "false":
            left_out("captions that the model was not sure of", where)
        elif told.get("ended", "").lower() == "false":
            left_out("captions that were cut off", where)
        elif not told.get(caption):
            left_out("pictures for which the model found no words", where)
        else:
            yield where, row | {caption: spreadsheet_plain(told[caption])}


def _scripts(texts: Iterable[str]) -> Counter[str]:
    """How many texts there are in each script, by the one that most of a text is in."""
    counts: Counter[str] = Counter()
    for text in texts:
        # NFKC: without letters of other widths and ligatures.
        plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
        letters = Counter(_script(letter) for letter in plain if letter.isalpha())
        letters[_HAN] *= 4  # about as many letters make a word of theirs
        (script, number), *_ = letters.most_common(1)
        counts[script] += number > 0
    return +counts


@cache
def _script(letter: str) -> str:
    """The script of a letter, as its name in Unicode tells it."""
    script = "Latin" if letter.isascii() else unicodedata.name(letter, "?").split()[0].capitalize()
    return _HAN if script in ("Cjk", "Hiragana", "Katakana") else script


def _add(rows: _Rows, columns: dict[str, str], collector: Collector, whole: str) -> None:
    """Add rows, all to the split ``whole`` if none tells its own; report what is wrong."""
    for where, row in rows:
        with collector.bad.catch(where, row):
            image, split, id = (row.get(columns.get(role, "")) for role in ("image", "split", "id"))
            if not isinstance(image, str) or not image.strip() or "\0" in image:
                raise _unlike(columns["image"], image, "the name of a picture")
            if _ADDRESS.match(image.strip()):
                expected = "a file: download the pictures and give their names"
                raise _unlike(columns["image"], image, expected)
            split = split_name(split) if "split" in columns else whole
            if split is None:
                raise _unlike(columns["split"], row.get(columns["split"]), "train, val or test")
            known = isinstance(id, str | int) and not isinstance(id, bool) and str(id).strip()
            if "id" in columns and not known:
                raise _unlike(columns["id"], id, "an id")
            # In JSON one row may say "caption" and another "captions".
            told = columns.get("caption") or columns["answer"]
            value = row.get(told, row.get(f"{told}s"))
            values = tuple(value) if isinstance(value, list) and value else (value,)
            record: CaptionRecord | QuestionRecord = CaptionRecord(
                str(id).strip() if known else "", image.strip(), values, split
            )
            if "question" in columns:
                question: Any = row.get(columns["question"])
                record = QuestionRecord(record.id, record.image, question, values, split)
            collector.add(where, record)


def _unlike(column: str, value: Any, expected: str) -> BadValue:
    """The error for a value of a column."""
    shown = "missing" if value is None else "empty" if value == "" else repr(value)[:60]
    return BadValue(f"{column} is {shown}; expected {expected}")


def _json(path: Path, whole: bool, encoding: str | None, bad: BadRows) -> _Rows:
    """The rows of a JSON Lines file, or of a JSON file with a list of rows."""
    text, told = _decoded(path, encoding)
    if told:
        bad.notes.append(f"{path.name}: read as {told}; --encoding if wrong")
    if whole:
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: is not JSON ({error})") from error
        if not isinstance(values, list):
            raise DataError(f"{path}: expected a list of rows, found {type(values).__name__}")
    else:
        values = text.split("\n")
    for number, value in enumerate(values, start=1):
        where = f"{path}: row {number}" if whole else f"{path}:{number}"
        with bad.catch(where, value):
            if not whole:
                if not value.strip():
                    continue
                if value.rstrip().endswith(","):
                    bad.count(f"{path.name}: commas dropped at the end of a line", where)
                try:
                    value = json.loads(value.rstrip().removesuffix(","))
                except (ValueError, RecursionError) as error:
                    raise BadValue(f"is not JSON ({error})") from error
            if not isinstance(value, dict):
                raise BadValue(f"expected a JSON object, found {type(value).__name__}")
            yield where, value


class _Delimited:
    """A CSV or TSV file: its header at the place ``where``, and its rows."""

    def __init__(
        self,
        path: Path,
        usual: str,  # the delimiter of its kind of file
        delimiter: str | None,
        encoding: str | None,
        given: dict[str, str | None],
        bad: BadRows,
    ) -> None:
        text, told = _decoded(path, encoding)
        self._path, self._bad, self._lines = path, bad, text.split("\n")
        start = next((n for n, line in enumerate(self._lines) if line.strip()), None)
        if start is None:
            raise DataError(f"{path}:1: is empty; expected a header line")
        said = re.fullmatch(r'"?sep=(.)"?', self._lines[start])  # Excel's own line
        if said:
            start += 1
        line = self._lines[start] if start < len(self._lines) else ""
        if delimiter is None and said:
            self._delimiter = said[1]
        else:
            self._delimiter = _delimiter(line, usual, delimiter, given)
        if delimiter is None and self._delimiter != usual:
            between = {"\t": "tabs"}.get(self._delimiter, repr(self._delimiter))
            told = f"{told}, with {between} between fields" if told else f"{between} between fields"
        if told:
            bad.notes.append(f"{path.name}: read as {told}; --encoding or --delimiter if wrong")
        self.where, self._start = f"{path}:{start + 1}", start + 1
        fields = self._record(start, lambda _: True)[0]
        self.header = [name.strip() for name in fields or _between_tabs(line)]
        while self.header and not self.header[-1]:
            self.header.pop()
        if not self.header:
            raise DataError(f"{self.where}: is empty; expected a header line")
        twice = {name for name in self.header if name and self.header.count(name) > 1}
        if twice:
            raise DataError(f"{self.where}: column {min(twice)!r} occurs twice")

    def rows(self, image: str) -> _Rows:
        """The rows; ``image`` is the column of the picture, by which a row is known."""
        width, place, delimiter = len(self.header), self.header.index(image), self._delimiter

        def is_row(line: str) -> bool:
            fields = line.split(delimiter)
            return len(fields) >= width and bool(_PICTURE.fullmatch(fields[place].strip(' "')))

        end = self._start
        while end < len(self._lines):
            first, where = end, f"{self._path}:{end + 1}"
            fields, end, error = self._record(first, is_row)
            line = self._lines[first]
            if delimiter == "\t" and '"' in line and len(fields) < width:
                fields, end, error = _between_tabs(line), first + 1, ""
                self._bad.count(f"{self._path.name}: rows whose quotation marks are text", where)
            if end > first + 1:
                self._bad.count(f"{self._path.name}: rows that run over several lines", where)
            while len(fields) > width and not fields[-1].strip():
                fields.pop()  # empty cells beyond the table
            if error:
                reason = f"is not a row of CSV ({error}); write a quotation mark twice, or close it"
                self._bad.add(where, reason, line)
            elif any(field.strip() for field in fields):
                if len(fields) == width:
                    yield where, dict(zip(self.header, fields, strict=True))
                else:
                    self._bad.add(where, f"expected {width} fields, found {len(fields)}", line)

    def _record(self, first: int, is_row: Callable[[str], bool]) -> tuple[list[str], int, str]:
        """The fields of the record that begins at a line, where the next begins, what is wrong.

        A quoted field ends before a line that ``is_row`` takes for a row of its own.
        """

        def lines() -> Iterator[str]:
            for number in range(first, len(self._lines)):
                if number > first and is_row(self._lines[number]):
                    return
                yield self._lines[number] + "\n"

        reader = csv.reader(lines(), delimiter=self._delimiter, strict=True)
        try:
            return next(reader, []), first + reader.line_num, ""
        except csv.Error as error:
            return [], first + 1, str(error)


def _between_tabs(line: str) -> list[str]:
    """The fields between tabs; quotation marks count where they enclose a whole field."""
    fields = line.split("\t")
    for place, field in enumerate(fields):
        inner = field[1:-1].replace('""', "")
        if len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inner:
            fields[place] = field[1:-1].replace('""', '"')
    return fields


def _delimiter(line: str, usual: str, given: str | None, columns: dict[str, str | None]) -> str:
    """The delimiter given, or the one that finds most known columns in a header line."""
    if given is not None:
        chosen = {"tab": "\t", "\\t": "\t"}.get(given.lower(), given)
        if len(chosen) != 1 or chosen in '"\n\r':
            raise UsageError(f"delimiter {given!r}: expected one character, or tab")
        return chosen
    known = {name.lower() for names in _NAMES.values() for name in names}
    known |= {name.lower() for name in columns.values() if name is not None}

    def found(delimiter: str) -> tuple[int, int]:
        names = [name.strip(' "').lower() for name in line.split(delimiter)]
        return sum(name in known for name in names), len(names)

    return max((usual, *",;\t|"), key=found)


def _decoded(path: Path, encoding: str | None) -> tuple[str, str]:
    """The text of a file with line feeds at line ends, and what to say of its encoding.

    Without ``encoding`` it is UTF-8 or UTF-16; what is neither is Windows' code page 1252, as
    Excel writes it in Western Europe, unless three bytes in a row are no ASCII: no Western
    language has three such letters in a row, and others have little else.
    """
    content, told = read_bytes(path), ""
    if encoding is None and content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = told = "UTF-16"
    elif encoding is None and b"\0" in content[:2]:
        encoding = told = "UTF-16-BE" if content[0] == 0 else "UTF-16-LE"
    try:
        text = content.decode(encoding or "UTF-8")
    except LookupError as error:
        raise UsageError(
            f"encoding {encoding!r}: is unknown; expected one such as cp1252"
        ) from error
    except UnicodeDecodeError as error:
        line = len((content[: error.start] + b"?").splitlines())
        if content.startswith(b"PK"):
            raise DataError(f"{path}: {_WORKBOOK}") from error
        if encoding is not None or re.search(rb"[\x80-\xff]{3}|[\x81\x8d\x8f\x90\x9d]", content):
            wrong = f"{path}:{line}: is not {encoding or 'UTF-8'} text"
            raise DataError(f"{wrong}; name its --encoding") from error
        told = f"Windows' code page 1252 (line {line} is not UTF-8)"
        text = content.decode("cp1252")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"), told


READERS = {"table": table}

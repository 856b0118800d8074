"""What ``describe`` writes: a journal with a table or a sheet, or a folder of parts.

The sheet is in the order of the model's fitted confidence. A model without one is taken at the
probability that it gave to the whole sentence. Its geometric mean a word, often used, favours long
captions, though each further word is a further chance to be wrong: on generated scenes, whose truth
is known, the mean finds false captions no better than chance and the whole sentence does (figures
in docs/alt-text.md).

The sheet is one page that fetches nothing, which its own content policy holds it to. Pictures are
small data URIs in a JSON block that the script draws rows from as they are scrolled to, so that
thousands open at once; edits are kept by the browser until they are downloaded as CSV.
"""

import csv
import hashlib
import html
import io
import json
import logging
import math
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import filterfalse
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..data.text import sentence
from ..errors import DataError, ImageError, UsageError, WriteError
from ..files import (
    YES_OR_NO,
    read_text,
    spreadsheet_name,
    spreadsheet_plain,
    spreadsheet_text,
    write_error,
    write_jsonl,
)
from ..models.confidence import certainty
from ..models.search import DecodingOptions
from .gaze import fill, one_line, template
from .sources import file_system, need

Row = dict[str, Any]
FORMATS = (".csv", ".jsonl", ".html")
TAGS, WORDPRESS = ".img.html", ".wordpress.csv"  # forms of the first and the last for web sites
FORMAT = 1  # of the journal and of the parts
COLUMNS = (
    *("picture", "caption", "alt_text", "confidence", "sure", "probability", "log_prob", "ended"),
    *("unfamiliar", "model"),
)
# Of parts, with their types in Parquet; answers come before the error.
PART_COLUMNS = {
    **{"picture": "string", "caption": "string", "confidence": "double", "sure": "bool"},
    **{"log_prob": "double", "ended": "bool", "unfamiliar": "bool", "model": "string"},
}
KINDS = ("string", "double", "bool")  # of an answer, its confidence, and whether it is sure
PART = r"part-(\d+)\.(?:parquet|jsonl)"
MANIFEST = "_gazetell.json"  # what reads a folder of Parquet files passes over such names
LARGE = 100_000_000  # bytes of a sheet that a browser is slow to open

log = logging.getLogger(__name__)


def check_out(out: str | os.PathLike[str]) -> bool:
    """Whether the output is one file; a UsageError for another suffix, or a folder for a file."""
    name = os.fspath(out)
    suffix, slash = Path(name).suffix.lower(), name.endswith("/")
    if suffix in FORMATS and not slash and "://" not in name:
        if Path(out).is_dir():
            more = f", or {out}/ for a folder of parts" * (suffix == ".jsonl")
            raise UsageError(f"--out {out}: is a folder; expected a file{more}")
        return True
    if suffix not in ("", ".parquet", ".jsonl") and not (slash and suffix not in FORMATS):
        raise UsageError(
            f"--out {out}: expected a name that ends in {', '.join(FORMATS)} or .parquet, or a "
            "folder"
        )
    return False


def is_for_site(out: str | os.PathLike[str]) -> bool:
    """Whether what is written is for a web site."""
    return os.fspath(out).lower().endswith((TAGS, WORDPRESS))


def check_site(out: str | os.PathLike[str], url: str | None, questions: Sequence[str]) -> bool:
    """Whether the output is for a web site; a UsageError for what does not go with it."""
    site = is_for_site(out)
    if questions and (site or os.fspath(out).lower().endswith(".html")):
        raise UsageError(f"--question: has no effect on {out}, which holds only alt texts")
    if not site:
        if url is None:
            return False
        raise UsageError(f"--url: has no effect on {out}; expected a name in {TAGS}, {WORDPRESS}")
    if url is not None and not re.match(r"(https?://|/)[^?#]+$", url):
        raise UsageError(
            f"--url {url}: expected the address of a folder, such as https://example.org/a"
        )
    if os.fspath(out).lower().endswith(WORDPRESS) and not re.match("https?://.", url or ""):
        raise UsageError(
            f"--out {out}: WordPress knows a picture by its address; expected --url "
            "https://.../wp-content/uploads, where the folder is"
        )
    return True


def answer_columns(questions: Sequence[str]) -> list[tuple[str, str, str]]:
    """The names of the columns of each question: answer, confidence, whether the model is sure."""
    return [(question, f"{question} (confidence)", f"{question} (sure)") for question in questions]


def answers_of(row: Row, questions: Sequence[str]) -> Row:
    """The answers in a row by the names of their columns."""
    return {
        name: value
        for names, answer in zip(answer_columns(questions), row.get("answers", ()), strict=False)
        for name, value in zip(names, answer, strict=False)  # of an earlier version: without sure
    }


def output_digest(content: bytes) -> str:
    """What an output is known by."""
    return hashlib.sha256(content).hexdigest()


class Journal:
    """A JSON Lines file that long work writes as it goes, and goes on from when killed.

    The first line says what the work is; each line after it is a caption, or the digest of an
    output that was written. Lines are only ever appended, so a kill leaves at most the last torn.

    Attributes:
        path: of the file; nothing is read before ``resume``.
        lines: the JSON objects it holds; empty where there is no file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.lines: list[Row] = []

    def resume(self) -> None:
        """Read what is there, and cut away a torn last line.

        Raises:
            DataError: the file cannot be read, or a line before its last is damaged.
            WriteError: a torn last line cannot be cut away.
        """
        content = content_of(self.path) or b""
        # What stands after the last line feed is torn.
        whole, size = content.split(b"\n")[:-1], 0
        for number, line in enumerate(whole, start=1):
            try:
                value = json.loads(line)
                if not isinstance(value, dict):
                    raise ValueError(f"expected a JSON object, found {type(value).__name__}")
            except ValueError as error:
                if number == len(whole):
                    break  # a machine that lost power may leave a last line of anything
                raise self._damaged(number, str(error)) from error
            self.lines.append(value)
            size += len(line) + 1
        try:
            if size < len(content):
                os.truncate(self.path, size)
        except OSError as error:
            raise write_error(self.path, error) from error

    def begin(self, lines: list[Row]) -> None:
        """Start anew with these lines; the file appears whole or not at all."""
        self.lines = lines
        write_jsonl(self.path, lines)

    def append(self, line: Row) -> None:
        """Add a line that outlives the process.

        Raises:
            WriteError: the file system refused.
        """
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        except OSError as error:
            raise write_error(self.path, error) from error
        self.lines.append(line)

    def captions(self) -> dict[str, Row]:
        """The last caption of each picture, by its name.

        Raises:
            DataError: a line without what a caption has.
        """
        types, rows = {"caption": str, "log_prob": float, "ended": bool}, {}
        for number, line in enumerate(self.lines, start=1):
            if "picture" in line:
                if not all(isinstance(line.get(name), kind) for name, kind in types.items()):
                    raise self._damaged(number, "expected a caption")
                rows[line["picture"]] = line
        return rows

    def _damaged(self, number: int, why: str) -> DataError:
        return DataError(f"{self.path}:{number}: is damaged ({why}); start over with --again")


def content_of(path: Path) -> bytes | None:
    """What a file holds; None if there is none."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def kept_journal(out: Path, again: bool) -> tuple[Journal, str | None]:
    """The journal of an output and the digest of what is there, if that need not be kept.

    Args:
        out: a table or a sheet.
        again: it may be overwritten, and the journal is begun anew.

    Raises:
        UsageError: an output that somebody else made or changed.
        DataError: a damaged journal.
    """
    journal, content = Journal(out.with_name(f"{out.name}.done.jsonl")), content_of(out)
    written = None if content is None else output_digest(content)
    if again:
        return journal, written
    journal.resume()
    if not journal.lines and written:
        raise UsageError(
            f"--out {out}: already exists and is not from gazetell describe (it has no "
            f"{journal.path.name} beside it); name another, or overwrite it with --again"
        )
    first = journal.lines[0] if journal.lines else {"format": FORMAT, "options": {}}
    if first.get("format") != FORMAT or not isinstance(first.get("options"), dict):
        raise DataError(
            f"{journal.path}: is not a journal of this version; start over with --again"
        )
    if written and written not in [line.get("wrote") for line in journal.lines]:
        why = "was changed since gazetell wrote it; rename it to keep the changes"
        raise UsageError(f"--out {out}: {why}, or start over with --again")
    return journal, written


def open_journal(out: Path, begun: Row, again: bool) -> Journal:
    """The journal of an output, gone on with or begun, if nothing is lost by it."""
    journal, written = kept_journal(out, again)
    if not journal.lines:
        # What is there now may be overwritten, also by the run that goes on with this one.
        journal.begin([begun, *([{"wrote": written}] if written else [])])
        return journal
    first = journal.lines[0]
    other = _differences(first, begun)
    other += [f"the folder {first.get('folder')}"] * (first.get("folder") != begun["folder"])
    if other:
        why = f"was begun with {', '.join(other)}; name another"
        raise UsageError(f"--out {out}: {why}, or start over with --again")
    before, now = first.get("precision", begun["precision"]), begun["precision"]
    if before != now:
        log.warning(
            f"{out}: captions made before are in {before}, new ones in {now}, which may differ "
            "where two are about as likely"
        )
    return journal


def _differences(first: Row, now: Row) -> list[str]:
    """In what an output was begun differently."""
    # The answerer's name comes second, where there are questions.
    pairs = zip(str(first.get("model")).split("-"), now["model"].split("-"), strict=False)
    other = ["another model"] * any(a != b for a, b in pairs)
    for name, value in now["options"].items():
        # What an earlier version did not know was as it is by default.
        if (before := first["options"].get(name, getattr(DecodingOptions, name, None))) != value:
            other.append(f"{name} {_told(before)} (now {_told(value)})")
    return other


def _told(value: Any) -> str:
    value = "none" if value is None else value
    return ", ".join(map(repr, value)) if isinstance(value, list) else str(value)


def _is_torn(name: str) -> bool:
    """Whether a run that was killed had begun to write such a file; it is no obstacle."""
    return name.startswith(".") and name.endswith(".tmp")


class Parts:
    """A folder of parts, on this machine or at an address; see the module.

    Args:
        out: the folder; JSON Lines if it ends in ``.jsonl``, else Parquet.
        questions: whose answers have columns.
        model: the name of the captioner, for its column.
    """

    def __init__(self, out: str, questions: Sequence[str], model: str) -> None:
        self.out, self.questions, self.model = out, questions, model
        names = answer_columns(questions)
        asked = {name: kind for each in names for name, kind in zip(each, KINDS, strict=True)}
        self.columns: dict[str, str] = PART_COLUMNS | asked | {"error": "string"}
        self.files, self.path = file_system(out.rstrip("/") or out)
        self.begun: Row | None = None  # what is yet to be written
        self.old: set[str] = set()
        self.suffix = ".jsonl" if self.path.lower().endswith(".jsonl") else ".parquet"

    def there(self) -> set[str]:
        """What is in the folder; UsageError if that is from somebody else, or there is a file."""
        try:
            kinds = need("pyarrow.fs").FileType
            if self.files.get_file_info([self.path])[0].type in (kinds.File, kinds.Unknown):
                raise UsageError(f"--out {self.out}: is a file; expected a folder")
            selector = need("pyarrow.fs").FileSelector(self.path, allow_not_found=True)
            names = {about.base_name for about in self.files.get_file_info(selector)}
        except OSError as error:
            raise write_error(self.out, error) from error
        except UnicodeDecodeError:
            names = {"another"}  # a name that is not UTF-8
        if set(filterfalse(_is_torn, names)) and MANIFEST not in names:
            raise UsageError(
                f"--out {self.out}: contains something that is not from gazetell describe (it has "
                f"no {MANIFEST}); name another folder"
            )
        return names

    def begin(self, begun: Row, again: bool) -> set[int]:
        """The numbers of the parts that are done, if nothing is lost by going on.

        Raises:
            UsageError: parts of another model, of other options, or a folder of something else.
            DataError: of another source, or of one that changed.
            WriteError: the file system refused.
        """
        there = self.there()
        known = {name: re.fullmatch(PART, name) for name in there}
        done = {int(m[1]) for name, m in known.items() if m and name == self._name(int(m[1]))}
        if MANIFEST in there and not again:
            self._same(begun)
            return done
        # With the first part, so that a run that comes to none leaves all as it was.
        self.begun, self.old = begun, {n for n, match in known.items() if match or _is_torn(n)}
        return set()

    def _begin(self) -> None:
        try:
            self.files.create_dir(self.path, recursive=True)
            for name in self.old:
                self.files.delete_file(f"{self.path}/{name}")
        except OSError as error:
            raise write_error(self.out, error) from error
        self._put(MANIFEST, json.dumps(self.begun, indent=2, ensure_ascii=False).encode())
        self.begun = None

    def _same(self, begun: Row) -> None:
        try:
            with self.files.open_input_stream(f"{self.path}/{MANIFEST}") as file:
                first = json.loads(file.read())
            other = _differences(first, begun)
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise DataError(
                f"{self.out}/{MANIFEST}: is damaged ({error}); start over with --again"
            ) from error
        instead = "name another, or start over with --again"
        if other:
            raise UsageError(f"--out {self.out}: was begun with {', '.join(other)}; {instead}")
        if any(first.get(name) != begun[name] for name in ("format", "digest", "parts")):
            if first.get("source") != begun["source"]:
                why = f"was begun with {first.get('source')}, not with {begun['source']}"
                raise UsageError(f"--out {self.out}: {why}; {instead}")
            counts = first.get("pictures"), begun["pictures"]
            told = " (pictures: {}, now {})".format(*counts) if counts[0] != counts[1] else ""
            raise DataError(
                f"{begun['source']}: has changed since {self.out} was begun{told}; {instead}"
            )
        if "columns" not in first:  # of an earlier version, whose parts lack some
            self.columns = {
                name: kind
                for name, kind in self.columns.items()
                if name != "model" and not name.endswith(" (sure)")
            }
        if first.get("precision") != begun["precision"]:
            log.warning(
                f"{self.out}: parts made before are in {first.get('precision')}, new ones in "
                f"{begun['precision']}, which may differ where two captions are about as likely"
            )

    def errors(self, number: int) -> list[str | None]:
        """The error of each row of a part that is done, None where there is none."""
        path = f"{self.path}/{self._name(number)}"
        try:
            with self.files.open_input_file(path) as file:
                if self.suffix == ".jsonl":
                    return [json.loads(line)["error"] for line in file.read().splitlines()]
                table = need("pyarrow.parquet").read_table(file, columns=["error"])
                return list(table.column(0).to_pylist())
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataError(f"{path}: is damaged ({error}); delete it and go on") from error

    def write(self, number: int, rows: Sequence[Row]) -> None:
        """Write the part of a block, whole or not at all."""
        if self.begun is not None:
            self._begin()
        told = [self._flat(row) for row in rows]
        if self.suffix == ".jsonl":
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in told)
            content: Any = text.encode()
        else:
            arrow, names = need("pyarrow"), self.columns.items()
            schema = arrow.schema([(name, arrow.type_for_alias(kind)) for name, kind in names])
            sink = arrow.BufferOutputStream()
            need("pyarrow.parquet").write_table(arrow.Table.from_pylist(told, schema), sink)
            content = sink.getvalue()
        self._put(self._name(number), content)

    def _flat(self, row: Row) -> Row:
        """A row with every column: null where nothing is known, no caption where it failed."""
        model = None if "error" in row else self.model
        known = {"caption": "", "model": model, **row, **answers_of(row, self.questions)}
        return {name: known.get(name) for name in self.columns}

    def _name(self, number: int) -> str:
        return f"part-{number:05d}{self.suffix}"

    def _put(self, name: str, content: Any) -> None:
        temporary = f"{self.path}/.{name}.tmp"
        try:
            with self.files.open_output_stream(temporary) as file:
                file.write(content)
            self.files.move(temporary, f"{self.path}/{name}")
        except OSError as error:
            with suppress(OSError):
                self.files.delete_file(temporary)
            raise WriteError(f"{self.out}/{name}: cannot be written: {error}") from error


# What is told of a picture


def table_text(rows: Sequence[Row], questions: Sequence[str], model: str, as_csv: bool) -> str:
    """The rows, told by a model of this name, as CSV or as JSON Lines."""
    text = io.StringIO()
    texts = ["caption", "alt_text", *questions]
    columns = [*COLUMNS, *(name for pair in answer_columns(questions) for name in pair)]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if as_csv:
        writer.writeheader()
    for row in rows:
        # Four digits, but no 0 for what is small: a long caption may well have 1e-12.
        chance = float(f"{math.exp(row['log_prob']):.4g}")
        more = {"alt_text": sentence(row["caption"], row["ended"]), "probability": chance}
        more |= {"model": model}
        known = row | more | answers_of(row, questions)
        told = {name: known.get(name) for name in columns}
        if as_csv:
            safe = {name: spreadsheet_text(str(told[name])) for name in texts}
            safe["picture"] = spreadsheet_name(row["picture"])
            marks = {n: str(x).lower() for n, x in told.items() if isinstance(x, bool)}
            writer.writerow(told | safe | marks)
        else:
            text.write(json.dumps(told, ensure_ascii=False) + "\n")
    return text.getvalue()


def drafts(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Of lines of the journal with a caption: picture, alt text and how sure the model is."""
    return [
        (row["picture"], sentence(row["caption"], row["ended"]), _certainty(row) or "")
        for row in rows
        if row["caption"]
    ]


def reviewed(path: Path) -> tuple[list[tuple[str, str, str]], int]:
    """What a person approved on a sheet, as ``drafts`` gives it, and how many pictures are not.

    An approved text that is empty is the text of a decorative picture, and stays.

    Args:
        path: the CSV that the sheet saved.

    Raises:
        DataError: another file.
    """
    expected = "expected the CSV that a review sheet saved"
    text = read_text(path)
    between = max(",;\t", key=text.partition("\n")[0].count)  # as a spreadsheet may save it
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=between)
    try:
        if lost := {"picture", "alt_text", "approved"} - set(rows.fieldnames or ()):
            raise DataError(f"{path}: has no column {min(lost)}; {expected}")
        told, left = [], 0
        for row in rows:
            yes = YES_OR_NO.get((row["approved"] or "").strip().lower())
            if yes is None or None in row.values():
                raise DataError(
                    f"{path}:{rows.line_num}: approved is {row['approved']!r:.40}; expected yes or "
                    "no, true or false, 1 or 0"
                )
            if yes:
                text = spreadsheet_plain(row["alt_text"])
                told.append((row["picture"].removeprefix("./"), text, ""))
            else:
                left += 1
    except csv.Error as error:
        raise DataError(f"{path}:{rows.line_num}: is not CSV ({error}); {expected}") from error
    return told, left


def site_text(title: str, told: Sequence[tuple[str, str, str]], base: str, as_csv: bool) -> str:
    """Alt texts for a web site.

    Args:
        title: of the page of tags.
        told: each picture, its text and a remark, as ``drafts`` and ``reviewed`` give them.
        base: the address of the folder of the pictures.
        as_csv: the two columns that importers of alt texts into WordPress take, the picture's
            address and the text; else an ``<img>`` a line, on a page that shows them.
    """
    told = [(f"{base}/{quote(picture)}", text, sure) for picture, text, sure in told]
    if as_csv:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        # Exact: an importer would take what guards a spreadsheet for a part of the text.
        writer.writerows([("Image URL", "Alt Text"), *(pair[:2] for pair in told)])
        return text.getvalue()
    head = (
        f'<!doctype html>\n<meta charset="utf-8">\n<title>{html.escape(one_line(title))}</title>\n'
    )
    lines = []
    for address, alt, sure in told:
        remark = f" <!-- {sure} -->" if sure else ""
        lines.append(f'<img src="{html.escape(address)}" alt="{html.escape(alt)}">{remark}\n')
    return head + "".join(lines)


def _certainty(row: Row) -> str | None:
    """How sure the model is of the caption of a row, in a word."""
    return certainty(row.get("confidence"), row.get("sure"), unfamiliar=row.get("unfamiliar"))


def review_sheet(
    title: str,
    rows: Sequence[Row],
    failed: Sequence[ImageError] = (),
    *,
    base: str = ".",
    key: str = "",
    model: str = "",
) -> str:
    """The sheet on which a person reviews captions, as HTML.

    Args:
        title: of the page, such as the folder's name.
        rows: lines of the journal, in any order; another ``stamp`` takes an approval back.
        failed: why other pictures are not there.
        base: the folder of the pictures as seen from the page, an address to open them from.
        key: tells the reviews of this sheet from those of others in the same browser.
        model: the name of the one that told the captions, for what is downloaded.
    """
    keys = ("picture", "log_prob", "ended", "stamp", "thumb", "width", "height")
    fitted = ("confidence", "sure", "unfamiliar")
    level = "confidence" if all("confidence" in row for row in rows) else "log_prob"
    content = {
        "key": key,
        "model": model,
        "name": one_line(title),
        "base": base,
        "rows": [
            {name: row[name] for name in keys}
            | {name: row[name] for name in fitted if name in row}
            | {"caption": sentence(row["caption"], row["ended"]), "level": row[level]}
            | {"certainty": _certainty(row)}
            for row in sorted(rows, key=lambda row: (row[level], row["picture"]))
        ],
    }
    errors = ""
    if failed:
        items = "\n".join(f"<li>{html.escape(one_line(str(error)))}</li>" for error in failed)
        what = "1 picture is" if len(failed) == 1 else f"{len(failed)} pictures are"
        errors = f"<h2>{what} not on this sheet</h2>\n<ul>\n{items}\n</ul>"
    sheet = fill(
        "review.html",
        title=html.escape(one_line(title)),
        style=template("review.css"),
        failed=f'<section class="failed">{errors}</section>' if errors else "",
        # A "<" in a caption or a name could end the block that holds it.
        data=json.dumps(content, ensure_ascii=False).replace("<", "\\u003c"),
        script=template("review.js"),
    )
    if len(sheet) > LARGE:
        log.warning(
            f"a sheet of {len(sheet) // 1_000_000} MB is slow to open in a browser; describe "
            "fewer pictures a sheet, for example folder by folder"
        )
    return sheet

"""Alt text for a folder: every picture below it captioned, into a table or a sheet to review.

Whatever the output, each caption is first a line of the journal beside it, ``OUT.done.jsonl``; the
output is made of it when all pictures are done, at once and whole. So a run that is killed goes on
where it was, and pictures that come later cost their own time only. The journal's first line says
by which model, of which folder and with which options; a run that differs is refused.

A picture counts as unchanged while its size and modification time are. Hashing contents would
read every file each time, which on a fast model takes as long as captioning; a copy that loses the
times only costs captioning again, never a wrong caption.

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
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import DataError, ImageError, UsageError
from ..files import atomic_path, spreadsheet_text, write_error, write_jsonl
from ..pictures import image_files
from ..progress import bar
from .gaze import fill, one_line, picture_uri, resized, template
from .predict import Caption, Captioner, caption_many

Row = dict[str, Any]
FORMATS = (".csv", ".jsonl", ".html")
FORMAT = 1  # of the journal
COLUMNS = ("picture", "caption", "alt_text", "confidence", "probability", "log_prob", "ended")
STOPS = ".!?\u2026\u3002\uff01\uff1f\u0964\u06d4\u061f"  # Latin, Chinese, Hindi, Urdu, Arabic
SIDE = 320  # longer side of a picture on the sheet, in pixels
LARGE = 100_000_000  # bytes of a sheet that a browser is slow to open

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Described:
    """What a run did.

    Attributes:
        pictures: in the folder.
        captioned: by this run.
        failed: one error for each picture that could not be opened.
        cut: captions that were cut off at the greatest length.
        empty: pictures for which the model found no words.
        gone: pictures captioned before that are no longer in the folder, and not in the output.
    """

    pictures: int
    captioned: int
    failed: Sequence[ImageError]
    cut: int = 0
    empty: int = 0
    gone: int = 0


def describe(
    model: Captioner,
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    again: bool = False,
    batch: int = 16,
    progress: bool = False,
    **options: Any,
) -> Described:
    """Caption every picture below a folder, those that are done and unchanged left out.

    Args:
        model: a loaded captioner.
        folder: with pictures, at any depth; they are named relative to it, with forward slashes.
        out: ``.csv`` or ``.jsonl`` in the order of the names, or ``.html``, a sheet to review,
            least sure first. ``OUT.done.jsonl`` beside it keeps what is done.
        again: begin anew, whatever is there.
        batch: pictures a forward pass.
        progress: show a progress bar on standard error.
        options: decoding, see ``Captioner.caption``.

    Raises:
        UsageError: another suffix, an option out of its range, or an output that another model,
            other options or somebody else made.
        ImageError: no folder, or no pictures in it.
        DataError: a damaged journal.
        WriteError: the file system refused; what was done until then is kept.
    """
    folder, out = Path(folder), Path(out)
    check_out(folder, out)
    begun = {
        "format": FORMAT,
        "model": identity(model),
        "options": asdict(model.options(**options)),
        # A name that is not UTF-8 can be written to no file as it is.
        "folder": _seen_from(out.parent, folder).decode(errors="backslashreplace"),
        "precision": model.precision.name,
    }
    files, failed = _named(folder)
    stamps = {name: _stamp(path) for name, path in files.items()}
    journal = _open(out, begun, again)
    known = journal.captions()
    rows = {n: row for n, row in known.items() if stamps.get(n) and row.get("stamp") == stamps[n]}
    todo = {name: number for number, name in enumerate(files) if name not in rows}
    with bar("pictures", progress) as update:
        update(0, len(todo))
        paths = [files[name] for name in todo]
        results = caption_many(model, paths, batch=batch, positions=todo.values(), **options)
        for number, (name, (_, result)) in enumerate(zip(todo, results, strict=True), 1):
            if isinstance(result, ImageError):
                failed.append(result)
            else:
                rows[name] = _row(name, stamps[name], result, out)
                journal.append(rows[name])
            update(number, len(todo))
    told = [rows[name] for name in files if name in rows]
    if out.suffix.lower() == ".html":
        base = quote(_seen_from(out.parent, folder))
        # A browser keeps the review under this key: the same each time the sheet is written.
        key = _digest(str(out.resolve()).encode())[:16]
        text = review_sheet(folder.resolve().name or "pictures", told, failed, base=base, key=key)
    else:
        text = _table(told, as_csv=out.suffix.lower() == ".csv")
    content = text.encode()
    if _content(out) != content:
        # First said, then written: a run killed in between knows its own output again.
        journal.append({"wrote": _digest(content)})
        with atomic_path(out) as temporary:
            temporary.write_bytes(content)
    return Described(
        len(told) + len(failed),
        sum(name in rows for name in todo),
        failed,
        cut=sum(not row["ended"] for row in told),
        empty=sum(not row["caption"] for row in told),
        gone=len(known.keys() - files.keys()),
    )


def check_out(folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Refuse what needs no model to be seen.

    Raises:
        UsageError: an output of another suffix, or a folder.
        ImageError: no folder of pictures.
    """
    if Path(out).suffix.lower() not in FORMATS:
        raise UsageError(f"--out {out}: expected a name that ends in {', '.join(FORMATS)}")
    if Path(out).is_dir():
        raise UsageError(f"--out {out}: is a folder; expected a file")
    if not Path(folder).is_dir():
        raise ImageError(f"{folder}: is no folder; expected a folder of pictures")


def identity(model: Captioner) -> str:
    """A hash of all that decides about captions but the options: equal means the same model.

    Device and precision are no part of it: they change a caption where two are about as likely.
    """
    digest = hashlib.sha256(model.fingerprint.encode())
    digest.update(repr(model.tokenizer.vocabulary).encode())
    if model.confidence is not None:
        digest.update(repr(model.confidence).encode())
    for captioner in model.decoder.captioners:
        digest.update(repr(sorted(captioner.config.items())).encode())  # type: ignore[union-attr,operator]
    for name, tensor in sorted(model.decoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _named(folder: Path) -> tuple[dict[str, Path], list[ImageError]]:
    """The pictures below a folder by their names, and errors for names that cannot be written."""
    files, failed = {}, []
    for path in image_files([folder]):
        name = path.relative_to(folder).as_posix()
        # A lone surrogate is a byte that is not UTF-8; a carriage return breaks rows of a table.
        foreign = any("\ud800" <= letter <= "\udfff" for letter in name)
        if foreign or "\r" in name:
            why = "is not UTF-8" if foreign else "holds a line end"
            failed.append(ImageError(f"{str(path)!r}: its name {why}; rename it"))
        else:
            files[name] = path
    return files, failed


def _stamp(path: Path) -> str | None:
    """Size and modification time; None for a file that is not there."""
    try:
        about = path.stat()
    except OSError:
        return None
    return f"{about.st_size}-{about.st_mtime_ns}"


def _seen_from(start: Path, folder: Path) -> bytes:
    """A folder as seen from another, with forward slashes: both may be moved together."""
    try:
        return os.fsencode(Path(os.path.relpath(folder, start)).as_posix())
    except ValueError:  # on another drive
        return os.fsencode(folder.resolve().as_posix())


def _digest(content: bytes) -> str:
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
        content = _content(self.path) or b""
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


def _content(path: Path) -> bytes | None:
    """What a file holds; None if there is none."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _open(out: Path, begun: Row, again: bool) -> Journal:
    """The journal of an output, gone on with or begun, if nothing is lost by it."""
    journal, content = Journal(out.with_name(f"{out.name}.done.jsonl")), _content(out)
    written = None if content is None else _digest(content)
    if not again:
        journal.resume()
    if not journal.lines:
        if written and not again:
            raise UsageError(
                f"--out {out}: is there, and not from gazetell describe (it has no "
                f"{journal.path.name} beside it); name another, or overwrite it with --again"
            )
        # What is there now may be overwritten, also by the run that goes on with this one.
        journal.begin([begun, *([{"wrote": written}] if written else [])])
        return journal
    first = journal.lines[0]
    if first.get("format") != FORMAT or not isinstance(first.get("options"), dict):
        raise DataError(f"{journal.path}: is no journal of this version; start over with --again")
    other = ["another model"] * (first.get("model") != begun["model"])
    other += [f"the folder {first.get('folder')}"] * (first.get("folder") != begun["folder"])
    for name, value in begun["options"].items():
        if (before := first["options"].get(name)) != value:
            other.append(f"{name} {before} (now {value})")
    if other:
        why = f"was begun with {', '.join(other)}; name another"
        raise UsageError(f"--out {out}: {why}, or start over with --again")
    if written and written not in [line.get("wrote") for line in journal.lines]:
        why = "was changed since gazetell wrote it; rename it to keep the changes"
        raise UsageError(f"--out {out}: {why}, or start over with --again")
    before, now = first.get("precision", begun["precision"]), begun["precision"]
    if before != now:
        log.warning(
            f"{out}: captions made before are in {before}, new ones in {now}, which may differ "
            "where two are about as likely"
        )
    return journal


# What is told of a picture


def sentence(text: str, ended: bool) -> str:
    """A caption as alt text: with a capital and a full stop; an ellipsis if it was cut off."""
    if not text:
        return ""
    stop = "." if unicodedata.east_asian_width(text[-1]) != "W" else "\u3002"
    stop = "" if text[-1] in STOPS else stop if ended else "\u2026"
    return text[0].title() + text[1:] + stop


def _row(name: str, stamp: str | None, caption: Caption, out: Path) -> Row:
    """A line of the journal, with a small picture if the output is a sheet."""
    row = {
        "picture": name,
        "caption": caption.text,
        "log_prob": round(caption.log_prob, 5),
        "ended": caption.ended,
        "stamp": stamp,
    }
    if caption.confidence is not None:
        row |= {"confidence": round(caption.confidence, 5), "sure": caption.sure}
    if out.suffix.lower() == ".html" and caption.image is not None:
        small = resized(caption.image, min(SIDE, max(caption.image.size)))
        # About 10 kB a photograph, half of what JPEG needs to look as good.
        row["thumb"] = picture_uri(small, SIDE, "WEBP", quality=62)
        row |= {"width": small.width, "height": small.height}
    return row


def _table(rows: Sequence[Row], as_csv: bool) -> str:
    """The rows as CSV or as JSON Lines."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    if as_csv:
        writer.writeheader()
    for row in rows:
        # Four digits, but no 0 for what is small: a long caption may well have 1e-12.
        chance = float(f"{math.exp(row['log_prob']):.4g}")
        more = {"alt_text": sentence(row["caption"], row["ended"]), "probability": chance}
        row = {"confidence": None, **row, **more}
        if as_csv:
            texts = {n: spreadsheet_text(row[n]) for n in ("picture", "caption", "alt_text")}
            writer.writerow(row | texts | {"ended": str(row["ended"]).lower()})
        else:
            told = {name: row[name] for name in COLUMNS}
            text.write(json.dumps(told, ensure_ascii=False) + "\n")
    return text.getvalue()


def review_sheet(
    title: str,
    rows: Sequence[Row],
    failed: Sequence[ImageError] = (),
    *,
    base: str = ".",
    key: str = "",
) -> str:
    """The sheet on which a person reviews captions, as HTML.

    Args:
        title: of the page, such as the folder's name.
        rows: lines of the journal, in any order; another ``stamp`` takes an approval back.
        failed: why other pictures are not there.
        base: the folder of the pictures as seen from the page, an address to open them from.
        key: tells the reviews of this sheet from those of others in the same browser.
    """
    keys = ("picture", "log_prob", "ended", "stamp", "thumb", "width", "height")
    fitted = ("confidence", "sure")
    level = "confidence" if all("confidence" in row for row in rows) else "log_prob"
    content = {
        "key": key,
        "name": one_line(title),
        "base": base,
        "rows": [
            {name: row[name] for name in keys}
            | {name: row[name] for name in fitted if name in row}
            | {"caption": sentence(row["caption"], row["ended"]), "level": row[level]}
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

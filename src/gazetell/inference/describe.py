"""Alt text for a folder: every picture below it captioned, into a table or a sheet to review.

Whatever the output, each caption is first a line of the journal beside it, ``OUT.done.jsonl``; the
output is made of it when all pictures are done, at once and whole. So a run that is killed goes on
where it was, and pictures that come later cost their own time only. The journal's first line says
by which model, of which folder and with which options; a run that differs is refused.

A picture counts as unchanged while its size and modification time are. Hashing contents would
read every file each time, which on a fast model takes as long as captioning; a copy that loses the
times only costs captioning again, never a wrong caption.

**Confidence** is the probability that the model gave to the whole sentence. Its geometric mean a
word, often used, favours long captions, though each further word is a further chance to be wrong:
on generated scenes, whose truth is known, the mean finds false captions no better than chance and
the whole sentence does (figures in docs/alt-text.md).
"""

import csv
import hashlib
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
from ..files import atomic_path, spreadsheet_text
from ..pictures import image_files
from ..progress import bar
from .bulk import caption_many
from .journal import Journal
from .lettering import one_line
from .predict import Caption, Captioner
from .review import review_sheet, thumbnail

__all__ = ["FORMATS", "Described", "check_out", "describe", "identity"]

Row = dict[str, Any]
FORMATS = (".csv", ".jsonl", ".html")
FORMAT = 1  # of the journal
COLUMNS = ("picture", "caption", "alt_text", "probability", "log_prob", "ended")
STOPS = ".!?\u2026\u3002\uff01\uff1f\u0964\u06d4\u061f"  # Latin, Chinese, Hindi, Urdu, Arabic
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
        DataError: no folder, no pictures in it, or a damaged journal.
        WriteError: the file system refused; what was done until then is kept.
    """
    folder, out = Path(folder), Path(out)
    check_out(folder, out)
    chosen = asdict(model.options(**options))
    pictures = list(image_files([folder]))
    begun: Row = {
        "format": FORMAT,
        "model": identity(model),
        "folder": _relative(folder, out.parent),
        "options": chosen,
        "precision": model.precision.name,
    }
    journal = _open(out, begun, again)
    done = _done(journal)
    if done and journal.lines[0].get("precision", begun["precision"]) != begun["precision"]:
        log.warning(
            "%s: captions made before are in %s, new ones in %s, which may differ where two are "
            "about as likely",
            out,
            journal.lines[0]["precision"],
            begun["precision"],
        )
    failed: list[ImageError] = []
    todo, positions, captioned = [], [], 0
    for number, path in enumerate(pictures):
        name = path.relative_to(folder).as_posix()
        try:
            name.encode()
        except UnicodeEncodeError:
            failed.append(ImageError(f"{str(path)!r}: its name is not UTF-8; rename it"))
            continue
        if "\r" in name:  # a table's reader takes it for the end of a line
            failed.append(ImageError(f"{str(path)!r}: its name holds a line end; rename it"))
            continue
        stamp = _stamp(path)
        if stamp is None or done.get(name, {}).get("stamp") != stamp:
            done.pop(name, None)
            todo.append((path, name, stamp))
            positions.append(number)
    with_picture = out.suffix.lower() == ".html"
    with bar("pictures", progress) as update:
        update(0, len(todo))
        paths = [path for path, _, _ in todo]
        found = caption_many(model, paths, batch=batch, positions=positions, **options)
        for number, ((_, name, stamp), (_, result)) in enumerate(zip(todo, found, strict=True), 1):
            if isinstance(result, ImageError):
                failed.append(result)
            else:
                done[name] = _row(name, stamp, result, with_picture)
                journal.append(done[name])
                captioned += 1
            update(number, len(todo))
    names = [path.relative_to(folder).as_posix() for path in pictures]
    rows = [done[name] for name in names if name in done]
    if with_picture:
        title = one_line(folder.resolve().name) or "pictures"
        shown = [row | {"caption": sentence(row["caption"], row["ended"])} for row in rows]
        text = review_sheet(title, shown, failed, base=_address(folder, out.parent), key=_key(out))
        if len(text) > LARGE:
            log.warning(
                "%s: is a sheet of %d MB, which browsers are slow to open; describe fewer "
                "pictures a sheet, for example folder by folder",
                out,
                len(text) // 1_000_000,
            )
    else:
        text = (_table if out.suffix.lower() == ".csv" else _lines)(rows)
    _write(out, text, journal)
    return Described(
        len(pictures),
        captioned,
        failed,
        cut=sum(not row["ended"] for row in rows),
        empty=sum(not row["caption"] for row in rows),
        gone=len(done.keys() - set(names)),
    )


def check_out(folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Refuse what needs no model to be seen.

    Raises:
        UsageError: an output of another suffix, or a folder.
        DataError: no folder of pictures.
    """
    if Path(out).suffix.lower() not in FORMATS:
        raise UsageError(f"--out {out}: expected a name that ends in {', '.join(FORMATS)}")
    if Path(out).is_dir():
        raise UsageError(f"--out {out}: is a folder; expected a file")
    if not Path(folder).is_dir():
        raise DataError(f"{folder}: is no folder; expected a folder of pictures")


def identity(model: Captioner) -> str:
    """A hash of all that decides about captions but the options: equal means the same model.

    Device and precision are no part of it: they change a caption where two are about as likely.
    """
    digest = hashlib.sha256(model.fingerprint.encode())
    digest.update(repr(model.tokenizer.vocabulary).encode())
    for captioner in model.decoder.captioners:
        digest.update(repr(sorted(captioner.config.items())).encode())  # type: ignore[union-attr,operator]
    for name, tensor in sorted(model.decoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _open(out: Path, begun: Row, again: bool) -> Journal:
    """The journal of an output, gone on with or begun, if nothing is lost by it."""
    path = out.with_name(f"{out.name}.done.jsonl")
    content = _present(out)
    journal = Journal(path)
    if not again:
        try:
            journal.resume()
        except DataError as error:
            raise DataError(f"{error}; start over with --again") from error
    if not journal.lines:
        if content is not None and not again:
            raise UsageError(
                f"--out {out}: is there, and not from gazetell describe (it has no {path.name} "
                "beside it); name another, or overwrite it with --again"
            )
        # What is there now may be overwritten, also by the run that goes on with this one.
        journal.begin([begun, *([{"wrote": content}] if content else [])])
        return journal
    first = journal.lines[0]
    if first.get("format") != FORMAT or not isinstance(first.get("options"), dict):
        raise DataError(f"{path}: is no journal of this version; start over with --again")
    other = _differences(first, begun)
    if other:
        raise UsageError(
            f"--out {out}: was begun with {other}; name another, or start over with --again"
        )
    if content is not None and content not in [line.get("wrote") for line in journal.lines]:
        raise UsageError(
            f"--out {out}: was changed since gazetell wrote it; rename it to keep the changes, "
            "or start over with --again"
        )
    return journal


def _differences(old: Row, new: Row) -> str:
    """In what a run differs from the one that began the journal; empty if in nothing."""
    other = []
    if old.get("model") != new["model"]:
        other.append("another model")
    if old.get("folder") != new["folder"]:
        other.append(f"the folder {old.get('folder')}")
    for name, value in new["options"].items():
        before = old["options"].get(name)
        if before != value:
            other.append(f"{name} {before} (now {value})")
    return ", ".join(other)


def sentence(text: str, ended: bool) -> str:
    """A caption as alt text: with a capital and a full stop; an ellipsis if it was cut off."""
    if not text:
        return ""
    stop = "." if unicodedata.east_asian_width(text[-1]) != "W" else "\u3002"
    stop = "" if text[-1] in STOPS else stop if ended else "\u2026"
    return text[0].title() + text[1:] + stop


def _relative(folder: Path, start: Path) -> str:
    """A folder as seen from another: both may be moved together."""
    try:
        name = Path(os.path.relpath(folder, start)).as_posix()
    except ValueError:  # on another drive
        name = folder.resolve().as_posix()
    # A name that is not UTF-8 can be written to no file as it is.
    return os.fsencode(name).decode(errors="backslashreplace")


def _address(folder: Path, start: Path) -> str:
    """A folder as the address of a link in a page that lies in ``start``."""
    try:
        return quote(os.fsencode(Path(os.path.relpath(folder, start)).as_posix()))
    except ValueError:  # on another drive
        return folder.resolve().as_uri()


def _done(journal: Journal) -> dict[str, Row]:
    """The last line of each picture, by name.

    Raises:
        DataError: a line that says of a picture less or other than was written.
    """
    wanted = {"caption": str, "log_prob": float, "ended": bool}
    done = {}
    for number, line in enumerate(journal.lines, start=1):
        if "picture" not in line:
            continue
        if not all(isinstance(line.get(name), kind) for name, kind in wanted.items()):
            raise DataError(f"{journal.path}:{number}: is damaged; start over with --again")
        done[line["picture"]] = line
    return done


def _key(out: Path) -> str:
    """What a browser keeps the review of this sheet under: the same each time it is written."""
    return _digest(str(out.resolve()).encode())[:16]


def _stamp(path: Path) -> str | None:
    """Size and modification time; None for a file that is not there."""
    try:
        about = path.stat()
    except OSError:
        return None
    return f"{about.st_size}-{about.st_mtime_ns}"


def _row(name: str, stamp: str | None, caption: Caption, with_picture: bool) -> Row:
    """A line of the journal."""
    row = {
        "picture": name,
        "caption": caption.text,
        "log_prob": round(caption.log_prob, 5),
        "ended": caption.ended,
        "stamp": stamp,
    }
    if with_picture and caption.image is not None:
        row |= thumbnail(caption.image)
    return row


def _columns(row: Row) -> Row:
    """What is told of a picture."""
    # Four digits, but no 0 for what is small: a long caption may well have 1e-12.
    told = row | {
        "alt_text": sentence(row["caption"], row["ended"]),
        "probability": float(f"{math.exp(row['log_prob']):.4g}"),
    }
    return {name: told[name] for name in COLUMNS}


def _table(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        told = _columns(row)
        texts = {name: spreadsheet_text(told[name]) for name in ("picture", "caption", "alt_text")}
        writer.writerow(told | texts | {"ended": str(told["ended"]).lower()})
    return text.getvalue()


def _lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(_columns(row), ensure_ascii=False) + "\n" for row in rows)


def _write(out: Path, text: str, journal: Journal) -> None:
    """Write the output, unless it is there as it should be."""
    content = text.encode()
    digest = _digest(content)
    if _present(out) == digest:
        return
    # First said, then written: a run killed in between does not take its own output for another's.
    journal.append({"wrote": digest})
    with atomic_path(out) as temporary:
        temporary.write_bytes(content)


def _present(out: Path) -> str | None:
    """The digest of what is there; None for nothing."""
    try:
        return _digest(out.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"--out {out}: cannot be read: {error.strerror or error}") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

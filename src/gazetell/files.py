"""Reading and writing small files so that nothing is ever half-written.

A file is written beside its target and renamed over it, so a reader sees the old or the new
content and a full disk leaves the old one. JSON is UTF-8; JSON Lines is one object a line. What
is read may be packed by gzip or xz, which its first bytes tell.

Whether a folder is one of a model or of a run is checked here too: it takes no torch.
"""

import gzip
import json
import logging
import lzma
import os
import re
import tomllib
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from .errors import DataError, ImageError, ModelError, UsageError, WriteError

log = logging.getLogger(__name__)
PHOTO = "photo"
SHIPPED = (PHOTO, f"{PHOTO}/captioner", f"{PHOTO}/answerer")  # models that come with gazetell
# What a run writes into its folder.
RUN_FILES = (
    *("training.json", "config.json", "model.safetensors", "tokenizer.json", "answers.json"),
    *("metrics.json", "metrics.jsonl", "README.md", "recipe.toml", "checkpoints"),
    *("tensorboard", "csv"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a spreadsheet runs begins with one
_UNPACK = {b"\x1f\x8b": ("gzip", gzip.decompress), b"\xfd7zXZ\0": ("xz", lzma.decompress)}


def write_error(path: str | os.PathLike[str], error: OSError) -> WriteError:
    """The one-line error for a failed write to ``path``."""
    return WriteError(f"{path}: cannot be written: {error.strerror or error}")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it over ``path`` when the block succeeds.

    The suffix of ``path`` is kept, so that libraries that choose a format by it work. A link stays
    one: what it points to is replaced.

    Raises:
        WriteError: the file system refused (full disk, no permission, no such folder), or there is
            a device or pipe, which a file would take the place of.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise WriteError(f"{path}: is a device or pipe; expected a file")
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        # Where the folder is no folder there is nothing to remove, and the error above tells.
        with suppress(OSError):
            temporary.unlink()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: str | os.PathLike[str], rows: Iterable[dict[str, Any]]) -> int:
    """Write one JSON object a line, atomically; return how many."""
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file, unpacked if it is packed by gzip or xz.

    Raises:
        DataError: missing, unreadable or damaged.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    for magic, (kind, unpack) in _UNPACK.items():
        if content.startswith(magic):
            try:
                return unpack(content)
            except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
                raise DataError(
                    f"{path}: is a truncated or damaged {kind} file ({error})"
                ) from error
    return content


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a UTF-8 file, plain or packed (a byte order mark is dropped).

    Every line end becomes a line feed, as in a file that is opened as text.

    Raises:
        DataError: missing, unreadable, damaged, or not UTF-8 (with the line).
    """
    content = read_bytes(path)
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = len((content[: error.start] + b"?").splitlines())
        raise DataError(
            f"{path}:{line}: is not UTF-8 text (byte {error.start}); expected a UTF-8 file"
        ) from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value of a JSON file.

    Raises:
        DataError: missing, not UTF-8, or not JSON (with line and column).
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: is not JSON ({error.msg}, column {error.colno})"
        ) from error


def read_jsonl(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield ``(line number, object)`` for each non-blank line.

    Raises:
        DataError: missing, not UTF-8, or a line that is no JSON object.
    """
    for number, line in read_lines(path):
        yield number, json_object(line, f"{path}:{number}")


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Yield ``(line number, line)`` for each non-blank line of a JSON Lines file."""
    # Not splitlines(): a JSON string may hold U+2028 and its like unescaped.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield number, line


def json_object(line: str, where: str) -> dict[str, Any]:
    """The object in a line of JSON; ``where`` names it in a ``DataError``."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: is not JSON ({error.msg})") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(row).__name__}")
    return row


def spreadsheet_text(text: str) -> str:
    """``text`` for a cell of a CSV file, never run as a formula by a spreadsheet.

    A text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line break gets a leading
    apostrophe, the usual mark of a spreadsheet for "this is text"; a warning says so.
    """
    if not text.startswith(_FORMULA):
        return text
    log.warning("in CSV an apostrophe stands before a text that begins with =, +, - or @")
    return f"'{text}"


def picture_path(name: str | os.PathLike[str]) -> str:
    """The path of a picture; an ``ImageError`` for an address on the web: nothing is fetched."""
    path = os.fspath(name)
    if re.match("https?://", path, re.IGNORECASE):
        raise ImageError(f"{path}: addresses are not fetched; download the picture first")
    return path


def is_named_model(name: str) -> bool:
    """Whether a model is named that lies in no folder here: on the hub, or with gazetell."""
    return name.startswith("hf://") or Path(name).as_posix() in SHIPPED


def check_models(*names: str | os.PathLike[str]) -> None:
    """Refuse what is no model folder, without torch, which takes seconds to load.

    Raises:
        ModelError: no model there, or not yet.
    """
    for folder in (Path(name) for name in names if not is_named_model(os.fspath(name))):
        one, *pair = ((folder / x / "config.json").is_file() for x in ("", "captioner", "answerer"))
        if one or all(pair):
            continue
        if (folder / "checkpoints").is_dir() and not (folder / "model.safetensors").exists():
            raise ModelError(
                f"{folder}: its training is not finished; go on: gazetell train --resume {folder}, "
                f"or take the best model so far: gazetell train --finish {folder}"
            )
        raise ModelError(f"{folder}: is not a model folder (no config.json)")


def check_new_run(out: Path) -> None:
    """Refuse a folder that holds something of a run already, with a UsageError."""
    if present := [name for name in RUN_FILES if (out / name).exists()]:
        how = f"go on with --resume {out}, or name another folder"
        said = how if present[0] == "training.json" else "expected a new folder for the run"
        raise UsageError(f"{out}: already contains {present[0]}; {said}")


def check_run(out: Path) -> None:
    """Refuse a folder without a run, with a ModelError."""
    if not (out / "training.json").is_file():
        raise ModelError(f"{out}: has no run to resume (no training.json)")


# What a cell may say, in any case: spreadsheets make TRUE of true.
YES_OR_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def spreadsheet_plain(cell: str) -> str:
    """The text that ``spreadsheet_text`` made a cell of."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def spreadsheet_name(name: str) -> str:
    """The same for the name of a file: ``./=1.png`` is no formula, and still that file."""
    return f"./{name}" if name.startswith(_FORMULA) else name


def toml_names(folder: Traversable) -> list[str]:
    """The TOML files of a folder of the package, without their suffix."""
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".toml"))


def read_toml(name: str, folder: Traversable, what: str) -> tuple[str, dict[str, Any]]:
    """A TOML file by its name in a folder of the package or its path: how to name it, its tables.

    Raises:
        UsageError: no such file.
        DataError: not TOML.
    """
    if name in toml_names(folder):
        source = f"{what.removeprefix('--')} {name}"
        text = (folder / f"{name}.toml").read_text("utf-8")
    elif Path(name).suffix == ".toml":
        source, text = name, read_text(name)
    else:
        known = ", ".join(toml_names(folder))
        raise UsageError(f"{what} {name}: expected a .toml file or one of {known}")
    try:
        return source, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{source}: is not TOML: {error}") from error

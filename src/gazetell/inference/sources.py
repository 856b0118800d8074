"""Where many pictures lie: a folder, a pattern, an address, Parquet or tars, cut into blocks.

A ``Source`` is a list of blocks that one machine makes, and a reader that any machine can read
them with: both are small and can be pickled. The blocks of a source are the same whenever it is
opened and unchanged, which is what resuming long work stands on; its digest tells a change.

=====================  ==========================  ==============================================
source                 a block                     name of a picture
=====================  ==========================  ==============================================
folder, pattern        some of the files           as seen from the folder, with forward slashes
``s3://bucket/dir``    likewise                    likewise
Parquet, paths         likewise                    the path as it stands in the column
Parquet, bytes         a row group                 ``file.parquet#row``
``shards/*.tar``       a tar                       ``file.tar/member``, the second one ``...#2``
=====================  ==========================  ==============================================

An address is what ``pyarrow.fs.FileSystem.from_uri`` reads: ``s3://``, ``gs://``, ``hdfs://``,
``abfs://``, ``file:///``.
"""

import fnmatch
import glob
import hashlib
import logging
import os
import tarfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any, NamedTuple, TypeVar

from ..errors import DataError, ImageError, UsageError
from ..files import picture_path
from ..pictures import SUFFIXES, NamedBytes, image_files, left_out

log = logging.getLogger(__name__)
T = TypeVar("T")
V = TypeVar("V")
AHEAD = 16  # pictures that are fetched at once from where each takes its time
PATIENCE = 20  # seconds until an address that does not answer is given up
SMALLEST, LARGEST = 32, 1024  # pictures of a block of files
TARS = (".tar", ".tar.gz", ".tgz")
FIRST = 20  # paths of a column that are looked for before the work
KINDS = "a folder, a pattern, an address such as s3://bucket/folder, .parquet or .tar files"


class Item(NamedTuple):
    """A picture to be opened.

    Attributes:
        name: that its row bears.
        content: a path or the bytes of a file, or why it cannot be had.
        position: its number among all, which keeps random draws apart.
    """

    name: str
    content: NamedBytes | str | ImageError
    position: int


@dataclass(frozen=True)
class Block:
    """A unit of work.

    Attributes:
        number: among the blocks of the source.
        count: pictures; None for a tar, which nobody has counted.
        first: position of the first.
        what: for the reader.
    """

    number: int
    count: int | None
    first: int
    what: Any


class Entry(NamedTuple):
    """A picture that is a file.

    Attributes:
        name: that its row bears.
        place: its path, its content once it was fetched, or why it cannot be had.
        stamp: size and modification time; None for a file that is not there.
    """

    name: str
    place: str | ImageError | NamedBytes
    stamp: str | None


@dataclass(frozen=True)
class Reader:
    """Reads pictures that are a file each.

    Attributes:
        files: their file system, of pyarrow; None for pictures that are opened by their paths.
        root: what has to be on this machine; None where all is read from an address.
    """

    files: Any
    root: str | None

    def check(self) -> None:
        """Refuse a machine that does not see the pictures, with a DataError."""
        if self.root is not None and not os.path.exists(self.root):
            raise DataError(
                f"{self.root}: is not here; expected a folder that every machine of the cluster "
                "sees, or an address such as s3://bucket/folder"
            )

    def __call__(self, block: Block) -> Iterator[Item]:
        """The pictures of a block."""
        for position, entry in block.what if self.files is None else self._fetched(block.what):
            yield Item(entry.name, entry.place, position)

    def _fetched(self, entries: Iterable[tuple[int, Entry]]) -> Iterator[tuple[int, Entry]]:
        def fetch(numbered: tuple[int, Entry]) -> tuple[int, Entry]:
            position, entry = numbered
            if isinstance(entry.place, ImageError):
                return numbered
            return position, entry._replace(place=self.content(entry.place, entry.name))

        return ahead(fetch, entries)

    def content(self, place: Any, name: str) -> NamedBytes | ImageError:
        """What a file holds, or why it cannot be had."""
        try:
            with self.files.open_input_stream(place) as file:
                return _named(file.read(), name)
        # A path can also be none at all.
        except (OSError, ValueError) as error:
            why = f"there is no file {place}" if isinstance(error, FileNotFoundError) else error
            return ImageError(f"{name}: cannot be read: {why}")


@dataclass(frozen=True)
class TableReader(Reader):
    """Reads row groups of Parquet files; ``what`` is a path, a row group, its first row, a name.

    The column holds bytes, or a struct of ``bytes`` and ``path`` as Hugging Face writes them; where
    it has no bytes, the path is seen from the Parquet file.
    """

    column: str

    def __call__(self, block: Block) -> Iterator[Item]:
        """The pictures of a block."""
        path, group, row, name = block.what
        parquet, done = need("pyarrow.parquet"), 0
        try:
            # The pages are read as they are needed: a row group may be larger than the memory.
            with self.files.open_input_file(path) as file:
                table = parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
                for batch in table.iter_batches(32, row_groups=[group], columns=[self.column]):
                    for value in batch.column(0).to_pylist():
                        own = f"{name}#{row + done}"
                        beside = None
                        if isinstance(value, dict):
                            beside, value = value.get("path"), value.get("bytes")
                        content: NamedBytes | ImageError
                        if value:
                            content = _named(value, own)
                        elif beside:
                            content = self.content(str(PurePosixPath(path).parent / beside), own)
                        else:
                            content = ImageError(f"{own}: the column {self.column} is empty there")
                        yield Item(own, content, block.first + done)
                        done += 1
        except (OSError, need("pyarrow").ArrowException) as error:
            # Each picture has its row, whatever became of it.
            for number in range(done, block.count or 0):
                why = ImageError(f"{name}#{row + number}: cannot be read: {error}")
                yield Item(f"{name}#{row + number}", why, block.first + number)


class TarReader(Reader):
    """Reads tars of pictures, as WebDataset writes them; ``what`` is a path and a name.

    What is no picture by its suffix belongs to one (``.json``, ``.txt``, ``.cls``) and is left out.
    """

    def __call__(self, block: Block) -> Iterator[Item]:
        """The pictures of a block."""
        path, name = block.what
        number, names = block.first, Counter[str]()
        try:
            with (
                self.files.open_input_stream(path) as file,
                tarfile.open(fileobj=file, mode="r|*") as tar,
            ):
                for member in tar:
                    link = member.islnk() or member.issym()
                    if not _is_picture(member.name) or not (link or member.isreg()):
                        continue
                    own = f"{name}/{member.name}"
                    names[own] += 1
                    if names[own] > 1:
                        own = f"{own}#{names[own]}"
                    # A tar that is read once, from front to back, has passed what a link means.
                    why = f"{own}: is a link to {member.linkname} in the tar; expected the picture"
                    content: Any = None if link else tar.extractfile(member)
                    picture = _named(content.read(), own) if content else ImageError(why)
                    yield Item(own, picture, number)
                    number += 1
        except (OSError, tarfile.TarError, EOFError) as error:
            after = f"after {number - block.first} pictures ({error})"
            yield Item(name, ImageError(f"{name}: is damaged or truncated {after}"), number)


@dataclass(frozen=True)
class Source:
    """Many pictures.

    Attributes:
        name: as it was given.
        reader: reads a block on any machine.
        blocks: all of them, in order.
        digest: of names, sizes and times of change.
        entries: the pictures, where each is a file that may be looked at by its name.
        base: the folder on this machine that names are seen from; None for an address.
    """

    name: str
    reader: Reader
    blocks: Sequence[Block]
    digest: str
    entries: Sequence[Entry] = field(default=(), repr=False)
    base: Path | None = None

    @property
    def pictures(self) -> int | None:
        """How many; None where nobody has counted."""
        counts = [block.count for block in self.blocks]
        return None if None in counts else sum(count or 0 for count in counts)

    def some(self, positions: Sequence[int]) -> list[Block]:
        """Blocks of some of the entries."""
        return _blocks(positions, self.entries)


def need(module: str) -> Any:
    """A module of the extra ``cluster``; a UsageError without it."""
    try:
        return import_module(module)
    except ImportError as error:
        packages = "pip install 'ray[data,serve]' pyarrow (extra cluster)"
        raise UsageError(f"this needs {module} ({error}): {packages}") from error


def file_system(address: str) -> tuple[Any, str]:
    """The file system of pyarrow and the path there of an address, or of a path of this machine.

    Raises:
        DataError: an address that cannot be read, or that does not answer.
    """
    system = need("pyarrow.fs")
    if "://" not in address:
        return system.LocalFileSystem(), os.path.abspath(address)
    return _answer(address, lambda: system.FileSystem.from_uri(address))


def open_source(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], column: str | None = None
) -> Source:
    """What is to be read, see the module.

    Args:
        source: a folder, a pattern, an address, ``.parquet`` or ``.tar`` files; or a list of
            picture files.
        column: of Parquet: of bytes or of paths; a folder is then taken as one of Parquet files.

    Raises:
        ImageError: no pictures there.
        DataError: nothing that can be read, or no such column.
        UsageError: a column where there is none to choose, or none where there is.
    """
    if not isinstance(source, str | os.PathLike):
        return _list(source, column)
    name = picture_path(source)
    if name.startswith("file://"):
        name = file_system(name)[1]
    tars = name.lower().endswith(TARS)
    if column is not None or name.lower().endswith(".parquet"):
        if column is None:
            raise UsageError(f"{name}: expected --column, the column of pictures or paths")
        if tars:
            raise UsageError(f"--column {column}: has no effect on tars; expected Parquet")
        return _parquet(name, column)
    if tars:
        files, found, base = _listed(name, TARS)
        blocks = [
            Block(n, None, n << 20, (one.path, _seen_from(base, one.path)))
            for n, one in enumerate(found)
        ]
        reader = TarReader(files, _root(name, base))
        return Source(name, reader, blocks, _digest([(f.path, _stamp(f)) for f in found]))
    if "://" in name:
        files, found, base = _listed(name, tuple(SUFFIXES))
        entries = [Entry(_seen_from(base, one.path), one.path, _stamp(one)) for one in found]
        return _files(name, entries, Reader(files, None))
    if not os.path.isdir(name) and not (glob.has_magic(name) and not os.path.lexists(name)):
        single = "is a file; for single pictures use gazetell caption"
        what = single if os.path.isfile(name) else "does not exist"
        raise ImageError(f"{name}: {what}; expected {KINDS}")
    folder = _before_pattern(name)
    if os.path.isdir(name) and any(x.lower().endswith(TARS) for x in os.listdir(name)):
        log.warning(f"{name}: its .tar files are left out; to read them, name '{name}/*.tar'")
    entries = [_entry(path, folder) for path in image_files([name])]
    return _files(name, entries, Reader(None, str(folder.resolve())), folder)


def _list(pictures: Sequence[str | os.PathLike[str]], column: str | None) -> Source:
    """The source of a list of picture files."""
    if column is not None:
        raise UsageError(f"column {column}: has no effect on a list of pictures; expected Parquet")
    if not isinstance(pictures, Sequence) or isinstance(pictures, bytes) or not pictures:
        raise UsageError(f"{pictures!r:.60}: expected {KINDS}, or a list of picture files")
    if other := [x for x in pictures if not isinstance(x, str | os.PathLike)]:
        raise UsageError(f"{other[0]!r:.60}: expected the path of a picture in the list")
    files = [Path(os.path.abspath(path)) for path in image_files(pictures)]
    folder = Path(os.path.commonpath([path.parent for path in files]))
    entries = [_entry(path, folder) for path in files]
    return _files(str(folder), entries, Reader(None, str(folder)), folder)


def _entry(path: Path, folder: Path) -> Entry:
    """A file of this machine; one whose name can stand in no table is refused."""
    name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()
    # A lone surrogate is a byte that is not UTF-8; a carriage return breaks rows of a table.
    foreign = any("\ud800" <= letter <= "\udfff" for letter in name)
    if foreign or "\r" in name:
        why = "is not UTF-8" if foreign else "contains a line break"
        told = name.encode(errors="backslashreplace").decode().replace("\r", "\\r")
        return Entry(told, ImageError(f"{str(path)!r}: its name {why}; rename it"), None)
    try:
        about = path.stat()
        stamp = f"{about.st_size}-{about.st_mtime_ns}"
    except OSError:
        stamp = None
    return Entry(name, os.path.abspath(path), stamp)


def _files(name: str, entries: list[Entry], reader: Reader, base: Path | None = None) -> Source:
    digest = _digest([(entry.name, entry.stamp) for entry in entries])
    return Source(name, reader, _blocks(range(len(entries)), entries), digest, entries, base)


def _blocks(positions: Sequence[int], entries: Sequence[Entry]) -> list[Block]:
    """Enough blocks for many devices to share few pictures, and large ones of many."""
    size = max(SMALLEST, min(LARGEST, len(positions) // 32))
    cuts = [positions[begin : begin + size] for begin in range(0, len(positions), size)]
    return [
        Block(n, len(cut), cut[0], tuple((position, entries[position]) for position in cut))
        for n, cut in enumerate(cuts)
    ]


def _parquet(name: str, column: str) -> Source:
    arrow, parquet = need("pyarrow"), need("pyarrow.parquet")
    files, found, base = _listed(name, (".parquet",))
    types = arrow.types

    def text(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return any(f(kind) for f in (types.is_string, types.is_large_string, types.is_string_view))

    def read(one: Any) -> tuple[list[int], Any, list[str | None]]:
        """Rows of each row group, type of the column, and the paths where it holds those."""
        try:
            with files.open_input_file(one.path) as file:
                table = parquet.ParquetFile(file)
                schema = table.schema_arrow
                if column not in schema.names:
                    there = ", ".join(schema.names)
                    raise DataError(
                        f"{one.path}: has no column {column!r}; expected one of {there}"
                    )
                kind = schema.field(column).type
                groups = [table.metadata.row_group(n).num_rows for n in range(table.num_row_groups)]
                paths = table.read(columns=[column]).column(0).to_pylist() if text(kind) else []
                return groups, kind, paths
        except (OSError, arrow.ArrowException) as error:
            raise DataError(
                f"{one.path}: is not a Parquet file that can be read: {error}"
            ) from error

    read_all = list(ahead(read, found))
    kinds = [kind for _, kind, _ in read_all]
    if all(map(text, kinds)):
        rows = [
            (f"{_seen_from(base, one.path)}#{n}", path, one)
            for one, (_, _, paths) in zip(found, read_all, strict=True)
            for n, path in enumerate(paths)
        ]
        return _paths(name, base, rows, files, column)
    for one, kind in zip(found, kinds, strict=True):
        held = kind.field("bytes").type if _has_bytes(types, kind) else kind
        if not any(f(held) for f in (types.is_binary, types.is_large_binary, types.is_binary_view)):
            raise DataError(
                f"{one.path}: column {column!r} is {kind}; expected bytes of pictures, or paths"
            )
    blocks: list[Block] = []
    first = 0
    for one, (groups, _, _) in zip(found, read_all, strict=True):
        row = 0
        for group, count in enumerate(groups):
            what = one.path, group, row, _seen_from(base, one.path)
            blocks.append(Block(len(blocks), count, first, what))
            row, first = row + count, first + count
    if not first:
        raise ImageError(f"{name}: has no rows")
    digest = _digest([(f.path, _stamp(f)) for f in found] + [("column", column)])
    return Source(name, TableReader(files, _root(name, base), column), blocks, digest)


def _has_bytes(types: Any, kind: Any) -> bool:
    return types.is_struct(kind) and "bytes" in [kind.field(n).name for n in range(len(kind))]


def _paths(
    name: str, base: str, rows: list[tuple[str, str | None, Any]], files: Any, column: str
) -> Source:
    """A source of the paths in a column, each as seen from its Parquet file."""
    start = ""
    if far := next((path for _, path, _ in rows if path and "://" in path), None):
        files, inside = file_system(far)
        start = far.removesuffix(inside)
    entries = []
    for number, path, one in rows:
        place: str | ImageError
        if not path:
            path, place = number, ImageError(f"{number}: the column {column} is empty there")
        elif "://" in path:
            if not start or not path.startswith(start):
                raise DataError(f"{number}: {path}: expected an address in {start}")
            place = path.removeprefix(start)
        elif start not in ("", "file://"):
            raise DataError(f"{number}: {path}: expected an address in {start}")
        else:
            place = os.path.join(os.path.dirname(one.path), path)
        entries.append(Entry(path, place, _stamp(one)))
    if not entries:
        raise ImageError(f"{name}: has no rows")
    first = [entry.place for entry in entries if isinstance(entry.place, str)][:FIRST]
    if not start and "://" not in name and first and not any(map(_is_there, first)):
        raise DataError(
            f"{name}: column {column!r}: none of the files of the first {len(first)} rows exists "
            f"(first: {first[0]}); a path starts at the folder of its Parquet file"
        )
    return _files(name, entries, Reader(files, None if start else _root(name, base)))


def _listed(name: str, endings: tuple[str, ...]) -> tuple[Any, list[Any], str]:
    """The files of an address or path with these endings, and the folder they are seen from."""
    files, path = file_system(name)
    base = str(_before_pattern(path)) if glob.has_magic(path) else path
    parts = PurePosixPath(path).parts
    if "**" in parts:
        raise UsageError(f"{name}: expected * or ?; a folder is read with everything below it")
    (found,) = _answer(name, lambda: files.get_file_info([base]))
    kinds = need("pyarrow.fs").FileType
    if found.type == kinds.NotFound:
        raise DataError(f"{name}: does not exist")
    try:
        if not found.is_file:
            selector = need("pyarrow.fs").FileSelector(base, recursive=True)
            there = [one for one in files.get_file_info(selector) if one.is_file]
        else:
            there = [found]
        for one in there:
            one.path  # noqa: B018 - decodes the name
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: contains a name that is not UTF-8: {error.object!r}") from error
    chosen: list[Any] = []
    others: list[Any] = []
    for one in there:
        own = PurePosixPath(one.path)
        if base != path and not (
            len(own.parts) == len(parts) and all(map(fnmatch.fnmatchcase, own.parts, parts))
        ):
            continue
        inside = own.parts[len(PurePosixPath(base).parts) :]
        # Spark and its like write _SUCCESS and _metadata beside the Parquet files.
        hidden = any(part.startswith(".") for part in inside) or (
            ".parquet" in endings and own.name.startswith("_")
        )
        if not hidden:
            (chosen if own.name.lower().endswith(endings) else others).append(one)
    if not chosen:
        raise ImageError(f"{name}: nothing there that ends in {', '.join(sorted(endings))}")
    if others:
        log.warning(left_out([Path(one.path) for one in others]))
    return files, sorted(chosen, key=lambda one: one.path), base


def _before_pattern(name: str) -> Path:
    """The folder that the names of what a pattern matches are seen from."""
    if not glob.has_magic(name) or os.path.isdir(name):
        return Path(name)
    parts = Path(name).parts
    fixed = next(n for n, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])


def _root(name: str, base: str) -> str | None:
    return None if "://" in name else base


def _seen_from(base: str, path: str) -> str:
    return path[len(base) :].lstrip("/") or PurePosixPath(path).name


def _is_there(path: str) -> bool:
    try:
        return os.path.exists(path)
    except ValueError:  # it is no path
        return False


def _named(content: bytes, name: str) -> NamedBytes:
    """The bytes of a picture, whose errors bear its name."""
    named = NamedBytes(content)
    named.name = name
    return named


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _stamp(about: Any) -> str:
    return f"{about.size}-{about.mtime_ns}"


def _digest(rows: Iterable[tuple[str, str | None]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row).encode())
    return digest.hexdigest()[:16]


def _answer(address: str, ask: Callable[[], T]) -> T:
    """What a file system answers, or a DataError: some wait for minutes where nobody is."""
    answers: list[T] = []
    errors: list[Exception] = []

    def wait() -> None:
        try:
            answers.append(ask())
        except Exception as error:  # told to the caller's thread
            errors.append(error)

    thread = Thread(target=wait, daemon=True)
    thread.start()
    thread.join(PATIENCE if "://" in address else None)
    if errors:
        raise DataError(f"{address}: cannot be read: {errors[0]}") from errors[0]
    if not answers:
        raise DataError(f"{address}: cannot be read: no answer within {PATIENCE} s")
    return answers[0]


def ahead(work: Callable[[T], V], items: Iterable[T]) -> Iterator[V]:
    """``map``, some items ahead, for work that waits for others."""
    rest = iter(items)
    with ThreadPoolExecutor(AHEAD) as pool:
        waiting = deque(pool.submit(work, item) for item in islice(rest, AHEAD))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(rest, 1))

"""Flickr8k and Flickr30k: five captions a picture, in the forms in which they are handed on.

Flickr8k (Hodosh, Young and Hockenmaier, "Framing image description as a ranking task", JAIR
2013) is a token file, ``name.jpg#0<TAB>caption``, with three lists of pictures (6,000 train,
1,000 dev, 1,000 test; the rest belongs to no split). Flickr30k (Young et al., "From image
descriptions to visual denotations", TACL 2014) has no official lists. Copies found on the web
hold one table instead: ``captions.txt`` (``image,caption``) or ``results.csv``
(``image_name| comment_number| comment``). For Karpathy's JSON of either see ``coco.karpathy``.
"""

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...errors import DataError
from ...files import read_text
from ..records import Dataset
from .rows import BadRows, Collector, caption_text, find, find_pictures, seeded_split

__all__ = ["flickr8k", "flickr30k"]

_TABLES_8K = ("Flickr8k.token.txt", "Flickr8k.token", "captions.txt")
_TABLES_30K = ("results_20130124.token", "results.token", "results.csv", "captions.txt")
_IMAGES_8K = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "Flickr8k_images")
_IMAGES_30K = ("flickr30k_images", "flickr30k-images", "Images")
_LISTS_8K = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}

# Where a row stood, the picture's file name, the caption, the row itself.
_Row = tuple[str, str, str, str]


def flickr8k(
    folder: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    val: float | int = 1000,
    test: float | int = 1000,
    seed: int = 0,
    bad: BadRows | None = None,
) -> Dataset:
    """Read a Flickr8k folder.

    Args:
        folder: holds the captions, the split lists and the pictures, at most one folder down.
        images: the folder of the pictures, if it lies elsewhere.
        val: pictures of the seeded split where no list is found: a number or a fraction.
        test: likewise.
        seed: of that split.
        bad: what to do with bad rows; by default the first is an error. Pictures of no split
            are counted in its notes.

    Raises:
        DataError: no captions, lists or pictures found; a list missing of the three; a bad row.
        UsageError: a seeded split that leaves nothing for train.
    """
    folder, bad = Path(folder), bad or BadRows()
    table = _table(folder, _TABLES_8K)
    root = Path(images) if images is not None else find_pictures(folder, _IMAGES_8K)
    found = {split: find(folder, [name]) for split, name in _LISTS_8K.items()}
    lists = {split: path for split, path in found.items() if path is not None}
    if lists and len(lists) < len(found):
        missing = ", ".join(name for split, name in _LISTS_8K.items() if split not in lists)
        raise DataError(f"{folder}: has split lists, but not {missing}")
    splits = _listed(lists, bad) if lists else None
    return _dataset("flickr8k", table, root, splits, val, test, seed, bad)


def flickr30k(
    folder: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    val: float | int = 1000,
    test: float | int = 1000,
    seed: int = 0,
    bad: BadRows | None = None,
) -> Dataset:
    """Read a Flickr30k folder with a seeded split, for it has no official one.

    One row of the well-known ``results.csv`` has lost a separator; it is a bad row like any other.

    Args:
        folder: holds the captions and the pictures, at most one folder down.
        images: the folder of the pictures, if it lies elsewhere.
        val: pictures for val, a number or a fraction.
        test: likewise for test.
        seed: of the split.
        bad: what to do with bad rows; by default the first is an error.

    Raises:
        DataError: no captions or pictures found, or a bad row.
        UsageError: a split that leaves nothing for train.
    """
    folder, bad = Path(folder), bad or BadRows()
    table = _table(folder, _TABLES_30K)
    root = Path(images) if images is not None else find_pictures(folder, _IMAGES_30K)
    return _dataset("flickr30k", table, root, None, val, test, seed, bad)


def _table(folder: Path, names: tuple[str, ...]) -> Path:
    """The file of captions in a folder."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    table = find(folder, names)
    if table is None:
        raise DataError(f"{folder}: no captions; expected one of {', '.join(names)}")
    return table


def _listed(lists: Mapping[str, Path], bad: BadRows) -> dict[str, str]:
    """The split of each picture that a list names."""
    splits: dict[str, str] = {}
    for split, path in lists.items():
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            name = line.strip()
            if name and splits.setdefault(name, split) != split:
                bad.add(f"{path}:{number}", f"{name} is also in the list of {splits[name]}", line)
    if not splits:
        raise DataError(f"{next(iter(lists.values()))}: the split lists name no pictures")
    return splits


def _dataset(
    kind: str,
    table: Path,
    root: Path,
    splits: dict[str, str] | None,
    val: float | int,
    test: float | int,
    seed: int,
    bad: BadRows,
) -> Dataset:
    """Read the table of captions and share its pictures out."""
    collector = Collector(bad)
    unlisted = set()
    for where, name, raw, row in _rows(table, bad):
        caption, reason = caption_text(raw)
        if not name:
            bad.add(where, "picture name is empty", row)
        elif splits is not None and name not in splits:
            unlisted.add(name)
        elif caption is None:
            bad.add(where, reason, row)
        else:
            split = splits[name] if splits is not None else "train"
            collector.add(where, name, Path(name).stem, split, [caption], row)
    pictures = collector.images
    if not pictures:
        raise DataError(f"{table}: holds no caption of a picture in a split")
    if unlisted:
        bad.notes.append(f"pictures of no split, left out: {len(unlisted):,}")
    for name in sorted((splits or {}).keys() - set(pictures)):
        bad.add(f"{table}", f"has no caption of {name}, which is in a split list", name)
    if splits is None:
        splits = seeded_split(pictures, val=val, test=test, seed=seed)
    return Dataset(kind, kind, root, collector.records(splits))


def _rows(table: Path, bad: BadRows) -> Iterator[_Row]:
    """The rows of a captions file in any of its three forms, told apart by the first line."""
    text = read_text(table)
    first = text.split("\n", 1)[0].strip()
    if not first:
        raise DataError(f"{table}:1: is empty; expected captions")
    if "\t" in first or ".token" in table.name:
        return _token_rows(table, text, bad)
    if "|" in first:
        return _bar_rows(table, text, bad)
    if first.replace(" ", "").lower() == "image,caption":
        return _comma_rows(table, text, bad)
    raise DataError(
        f"{table}:1: expected 'name.jpg#0<TAB>caption', 'image,caption' or "
        f"'image_name| comment_number| comment', found {first[:60]!r}"
    )


def _token_rows(table: Path, text: str, bad: BadRows) -> Iterator[_Row]:
    """``name.jpg#0<TAB>caption``."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        key, tab, caption = line.partition("\t")
        name, mark, index = key.rpartition("#")
        if tab and mark and index.strip().isdigit():
            yield f"{table}:{number}", name.strip(), caption, line
        else:
            bad.add(f"{table}:{number}", "expected name.jpg#0<TAB>caption", line)


def _bar_rows(table: Path, text: str, bad: BadRows) -> Iterator[_Row]:
    """``image_name| comment_number| comment`` below a line that says so."""
    for number, line in enumerate(text.split("\n")[1:], start=2):
        if not line.strip():
            continue
        fields = line.split("|", 2)
        if len(fields) == 3 and fields[1].strip().isdigit():
            yield f"{table}:{number}", fields[0].strip(), fields[2], line
        else:
            bad.add(f"{table}:{number}", "expected image_name| comment_number| comment", line)


def _comma_rows(table: Path, text: str, bad: BadRows) -> Iterator[_Row]:
    """``image,caption`` below a line that says so, quoted where the caption has commas."""
    for number, line in enumerate(text.split("\n")[1:], start=2):
        if not line.strip():
            continue
        # Line by line: a stray quote then spoils one row and not the rest of the file.
        try:
            fields = next(csv.reader([line], strict=True))
        except csv.Error as error:
            bad.add(f"{table}:{number}", f"is no row of CSV ({error})", line)
            continue
        if len(fields) == 2:
            yield f"{table}:{number}", fields[0].strip(), fields[1], line
        else:
            bad.add(f"{table}:{number}", f"expected 2 fields, found {len(fields)}", line)

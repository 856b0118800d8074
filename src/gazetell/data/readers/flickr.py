"""Flickr8k and Flickr30k: five captions a picture, in the forms in which they are handed on.

Flickr8k (Hodosh, Young and Hockenmaier, "Framing image description as a ranking task", JAIR
2013) is a token file, ``name.jpg#0<TAB>caption``, with three lists of pictures (6,000 train,
1,000 dev, 1,000 test; the rest belongs to no split). Flickr30k (Young et al., "From image
descriptions to visual denotations", TACL 2014) has no official lists. Copies found on the web
hold one table instead: ``captions.txt`` (``image,caption``) or ``results.csv``
(``image_name| comment_number| comment``). For Karpathy's JSON of either see ``coco.karpathy``.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from ...errors import DataError
from ...files import read_text
from ..records import CaptionRecord, Dataset
from .rows import BadRows, Collector, find, find_pictures, needed, refuse

__all__ = ["flickr8k", "flickr30k"]

_LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}


def flickr8k(
    folder: Path,
    *,
    images: Path | None = None,
    val: float | None = None,
    test: float | None = None,
    seed: int = 0,
    bad: BadRows | None = None,
) -> Dataset:
    """Flickr8k: Flickr8k.token.txt with its three picture lists, or captions.txt.

    Args:
        folder: Where the files lie, at most one folder down.
        images: The folder of pictures, if it is not found below FOLDER.
        val: Pictures for validation where there are no lists: a number from 1, or a share; 1,000
            if not given.
        test: Pictures for testing, likewise.
        seed: Of that draw.
        bad: What to do with bad rows; by default the first is an error.

    Raises:
        DataError: no captions, lists or pictures found; a list missing of the three; a bad row.
        UsageError: a draw that leaves nothing for train, or one where there are lists.
    """
    folder, bad = Path(folder), bad or BadRows()
    table = needed(folder, ("Flickr8k.token.txt", "Flickr8k.token", "captions.txt"), bad)
    names = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "Flickr8k_images")
    collector = Collector(find_pictures(folder, names) if images is None else images, bad)
    lists = {split: find(folder, [name]) for split, name in _LISTS.items()}
    if not any(lists.values()):
        bad.notes.append(f"no split lists in {folder}: the splits drawn are not those of papers")
        return _drawn("flickr8k", table, collector, val, test, seed)
    refuse("the split lists tell the splits", val=val, test=test)
    splits: dict[str, str] = {}
    for split, path in lists.items():
        if path is None:
            raise DataError(f"{folder}: has split lists, but not {_LISTS[split]}")
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            name = collector.picture(line.strip()) if line.strip() else ""
            if name and splits.setdefault(name, split) != split:
                bad.add(f"{path}:{number}", f"{name} is also in the list of {splits[name]}", line)
    if not splits:
        raise DataError(f"{lists['train']}: the split lists name no pictures")
    _captions(table, collector, splits)
    dataset = collector.dataset("flickr8k", "flickr8k", table)
    for name in sorted(splits.keys() - {record.image for record in dataset.captions}):
        bad.add(f"{table}", f"has no caption of {name}, which is in a split list", name)
    return dataset


def flickr30k(
    folder: Path,
    *,
    images: Path | None = None,
    val: float = 1000,
    test: float = 1000,
    seed: int = 0,
    bad: BadRows | None = None,
) -> Dataset:
    """Flickr30k: the .token file or results.csv; for Karpathy's split see gazetell data karpathy.

    There is no official split, so the seed draws one. One row of the well-known results.csv has
    lost a separator; it is a bad row like any other.

    Args:
        folder: Where the files lie, at most one folder down.
        images: The folder of pictures, if it is not found below FOLDER.
        val: Pictures for validation: a number from 1, or a share.
        test: Pictures for testing, likewise.
        seed: Of the draw.
        bad: What to do with bad rows; by default the first is an error.

    Raises:
        DataError: no captions or pictures found, or a bad row.
        UsageError: a draw that leaves nothing for train.
    """
    folder, bad = Path(folder), bad or BadRows()
    tables = ("results_20130124.token", "results.token", "results.csv", "captions.txt")
    table = needed(folder, tables, bad)
    names = ("flickr30k_images", "flickr30k-images", "Images")
    collector = Collector(find_pictures(folder, names) if images is None else images, bad)
    return _drawn("flickr30k", table, collector, val, test, seed)


def _drawn(
    kind: str,
    table: Path,
    collector: Collector,
    val: float | None,
    test: float | None,
    seed: int,
) -> Dataset:
    """All captions, with splits that the seed draws."""
    _captions(table, collector, None)
    collector.dataset(kind, kind, table)  # an empty one is told before the draw
    collector.draw(val=1000 if val is None else val, test=1000 if test is None else test, seed=seed)
    return collector.dataset(kind, kind, table)


def _captions(table: Path, collector: Collector, splits: dict[str, str] | None) -> None:
    """Add the captions of the pictures in ``splits``, or of all, as train, where it is None."""
    unlisted = set()
    for number, line, fields in _rows(table):
        where = f"{table}:{number}"
        if isinstance(fields, str):
            collector.bad.add(where, fields, line)
            continue
        name, caption = fields
        if not name:
            collector.bad.add(where, "picture name is empty", line)
        elif splits is not None and collector.picture(name) not in splits:
            unlisted.add(name)
        else:
            image = collector.picture(name)
            split = "train" if splits is None else splits[image]
            collector.add(where, CaptionRecord(Path(image).stem, image, (caption,), split), line)
    if unlisted:
        collector.bad.notes.append(f"pictures of no split, left out: {len(unlisted):,}")


def _rows(table: Path) -> Iterator[tuple[int, str, tuple[str, str] | str]]:
    """Number, line, and picture and caption (or what is wrong) of each row of a captions file."""
    lines = list(enumerate(read_text(table).split("\n"), start=1))
    first = lines[0][1].strip()
    if not first:
        raise DataError(f"{table}:1: is empty; expected captions")
    if "\t" in first or ".token" in table.name:
        parse = _token_row
    elif "|" in first:
        parse, lines = _bar_row, lines[1:]
    elif first.replace(" ", "").lower() == "image,caption":
        parse, lines = _comma_row, lines[1:]
    else:
        raise DataError(
            f"{table}:1: expected 'name.jpg#0<TAB>caption', 'image,caption' or "
            f"'image_name| comment_number| comment', found {first[:60]!r}"
        )
    for number, line in lines:
        if line.strip():
            yield number, line, parse(line)


def _token_row(line: str) -> tuple[str, str] | str:
    key, tab, caption = line.partition("\t")
    name, mark, index = key.rpartition("#")
    if tab and mark and index.strip().isdigit():
        return name.strip(), caption
    return "expected name.jpg#0<TAB>caption"


def _bar_row(line: str) -> tuple[str, str] | str:
    fields = line.split("|", 2)
    if len(fields) == 3 and fields[1].strip().isdigit():
        return fields[0].strip(), fields[2]
    return "expected image_name| comment_number| comment"


def _comma_row(line: str) -> tuple[str, str] | str:
    # Line by line: a stray quotation mark then spoils one row and not the rest of the file.
    try:
        fields = next(csv.reader([line], strict=True))
    except csv.Error as error:
        return f"is no row of CSV ({error})"
    if len(fields) != 2:
        return f"expected 2 fields, found {len(fields)}"
    return fields[0].strip(), fields[1]

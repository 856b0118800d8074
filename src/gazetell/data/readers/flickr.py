"""Flickr8k and Flickr30k: five captions a picture, in the forms in which they are handed on.

Flickr8k (Hodosh, Young and Hockenmaier, "Framing image description as a ranking task", JAIR
2013) is a token file, ``name.jpg#0<TAB>caption``, with three lists of pictures (6,000 train,
1,000 dev, 1,000 test; the rest belongs to no split). Flickr30k (Young et al., "From image
descriptions to visual denotations", TACL 2014) has no official lists. Copies found on the web
hold one table instead: ``captions.txt`` (``image,caption``) or ``results.csv``
(``image_name| comment_number| comment``). For Karpathy's JSON of either see ``coco.karpathy``.
"""

import csv
from pathlib import Path

from ...errors import DataError
from ...files import read_text
from ..records import CaptionRecord, Dataset
from .rows import BadRows, BadValue, Collector, find, find_pictures, needed, refuse, split_lists

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
        bad: What to do with bad rows.
    """
    table = needed(folder, ("Flickr8k.token.txt", "Flickr8k.token", "captions.txt"), bad)
    names = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "Flickr8k_images")
    collector = Collector(images or find_pictures(folder, names), bad)
    lists = {split: path for split, name in _LISTS.items() if (path := find(folder, [name]))}
    splits = split_lists(lists, collector.picture, collector.bad)
    if lists:
        refuse("the split lists tell the splits", val=val, test=test)
        if missing := [name for split, name in _LISTS.items() if split not in lists]:
            raise DataError(f"{folder}: has split lists, but not {missing[0]}")
        if not splits:
            raise DataError(f"{lists['train']}: the split lists name no pictures")
    _read(table, collector, splits)
    dataset = collector.dataset("flickr8k", "flickr8k", table)
    for name in sorted(splits.keys() - {record.image for record in dataset.captions}):
        collector.bad.add(f"{table}", f"has no caption of {name}, which is in a split list", name)
    if splits:
        return dataset
    collector.bad.notes.append(f"no split lists in {folder}: the splits are not those of papers")
    collector.draw(val=1000 if val is None else val, test=1000 if test is None else test, seed=seed)
    return collector.dataset("flickr8k", "flickr8k", table)


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
        bad: What to do with bad rows.
    """
    tables = ("results_20130124.token", "results.token", "results.csv", "captions.txt")
    table = needed(folder, tables, bad)
    names = ("flickr30k_images", "flickr30k-images", "Images")
    collector = Collector(images or find_pictures(folder, names), bad)
    _read(table, collector, {})
    collector.draw(val=val, test=test, seed=seed)
    return collector.dataset("flickr30k", "flickr30k", table)


def _read(table: Path, collector: Collector, splits: dict[str, str]) -> None:
    """Add the captions of the pictures that have a split, or of all if none has, as train."""
    lines = read_text(table).split("\n")
    first = lines[0].strip()
    if not first:
        raise DataError(f"{table}:1: is empty; expected captions")
    if "\t" in first or ".token" in table.name:
        form, expected = "\t", "expected name.jpg#0<TAB>caption"
    elif "|" in first:
        form, expected = "|", "expected image_name| comment_number| comment"
    elif first.replace(" ", "").lower() == "image,caption":
        form, expected = ",", "expected 2 fields"
    else:
        raise DataError(
            f"{table}:1: expected 'name.jpg#0<TAB>caption', 'image,caption' or "
            f"'image_name| comment_number| comment', found {first[:60]!r}"
        )
    unlisted = set()
    for number, line in enumerate(lines, start=1):
        where = f"{table}:{number}"
        if not line.strip() or (number == 1 and form != "\t"):
            continue
        with collector.bad.catch(where, line):
            name, index, caption = _fields(line, form)
            if not index.strip().isdigit():
                raise BadValue(expected)
            if not name.strip():
                raise BadValue("picture name is empty")
            image = collector.picture(name.strip())
            split = splits.get(image) if splits else "train"
            if split is None:
                unlisted.add(image)
            else:
                collector.add(where, CaptionRecord(Path(image).stem, image, (caption,), split))
    if unlisted:
        collector.bad.notes.append(f"pictures of no split, left out: {len(unlisted):,}")


def _fields(line: str, form: str) -> tuple[str, str, str]:
    """Picture, number of the caption (no digits where the row is none) and caption of a row."""
    if form == "\t":
        key, tab, caption = line.partition("\t")
        name, mark, index = key.rpartition("#")
        return name, index if tab and mark else "", caption
    if form == "|":
        name, index, caption = (*line.split("|", 2), "", "")[:3]
        return name, index, caption
    # Line by line: a stray quotation mark then spoils one row and not the rest of the file.
    try:
        fields = next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise BadValue(f"is no row of CSV ({error})") from error
    if len(fields) != 2:
        raise BadValue(f"expected 2 fields, found {len(fields)}")
    return fields[0], "0", fields[1]

"""Datasets of captions: COCO's official files, Karpathy's split files, Flickr8k and Flickr30k.

Official (Chen et al., "Microsoft COCO captions", arXiv 1504.00325): one JSON a split with
``images: [{id, file_name}]`` and ``annotations: [{image_id, caption}]``, in 2014 and in 2017;
the file of the test split has no annotations. Karpathy and Fei-Fei ("Deep visual-semantic
alignments", CVPR 2015) published the splits that papers report on, for COCO, Flickr8k and
Flickr30k alike: ``images: [{filename, filepath, split, sentences: [{raw}]}]``, where "restval"
marks pictures of COCO's val that are trained on.

Flickr8k (Hodosh, Young and Hockenmaier, "Framing image description as a ranking task", JAIR
2013) is a token file, ``name.jpg#0<TAB>caption``, with three lists of pictures (6,000 train,
1,000 dev, 1,000 test; the rest belongs to no split). Flickr30k (Young et al., "From image
descriptions to visual denotations", TACL 2014) has no official lists. Copies found on the web
hold one table instead: ``captions.txt`` (``image,caption``) or ``results.csv``
(``image_name| comment_number| comment``). For Karpathy's JSON of either see ``karpathy``.
"""

import csv
import re
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ...errors import DataError
from ...files import read_json, read_text
from ..records import CaptionRecord, Dataset
from .rows import (
    BadRows,
    BadValue,
    Collector,
    find,
    find_pictures,
    json_rows,
    needed,
    plain_text,
    refuse,
    split_lists,
    split_name,
)

SUBSET = re.compile(r"(?:train|val|test)20\d\d")


def coco(
    folder: Path,
    *,
    images: Path | None = None,
    year: Literal[2014, 2017] | None = None,
    train: Path | None = None,
    val: Path | None = None,
    test: Path | None = None,
    bad: BadRows | None = None,
) -> Dataset:
    """COCO Captions: the official captions_*.json of 2014 or 2017.

    Record ids are the image ids. Pictures lie in the folder of pictures itself or, where it has
    such a folder, in the one that the annotations are named after, such as train2014.

    Args:
        folder: Where the files lie, at most one folder down.
        images: The folder of pictures or of train2014, val2014, ...; FOLDER if not given.
        year: Which files to look for; the earlier ones that are there if not given.
        train: The training captions; with any of TRAIN, VAL, TEST nothing is searched for.
        val: The validation captions.
        test: The test captions, or image_info_test2014.json.
        bad: What to do with bad rows.
    """
    collector = Collector(images or folder, bad)
    given = {"train": train, "val": val, "test": test}
    files = {split: path for split, path in given.items() if path is not None}
    if files:
        refuse("the files are named", year=year)
    else:
        files = _found(folder, year, collector.bad)
    for split, path in files.items():
        _read(path, split, collector)
    return collector.dataset("coco", "coco", ", ".join(map(str, files.values())))


def _found(folder: Path, year: int | None, bad: BadRows) -> dict[str, Path]:
    """The official files of a year, or of the first year that some are there of."""
    files: dict[str, Path] = {}
    for wanted in (2014, 2017) if year is None else (year,):
        names = {split: f"captions_{split}{wanted}.json" for split in ("train", "val")}
        paths = {split: find(folder, [name], bad) for split, name in names.items()}
        found = {split: path for split, path in paths.items() if path is not None}
        if files and found:
            bad.notes.append(f"the captions of {wanted} are there too, and are not read")
        files = files or found
    if not files:
        years = "2014 or 2017" if year is None else str(year)
        raise DataError(f"{folder}: no captions_train*.json or captions_val*.json of {years}")
    return files


def _read(path: Path, split: str, collector: Collector) -> None:
    """Add the pictures of one annotation file."""
    about, bad = read_json(path), collector.bad
    subset = SUBSET.search(path.name)
    folder = subset[0] if subset and (collector.root / subset[0]).is_dir() else ""
    captions: dict[Any, tuple[str, list[tuple[str, Any]]]] = {}
    for where, row in json_rows(about, "images", path, bad):
        key = row.get("id")
        if not _is_key(key) or not _is_name(row.get("file_name")):
            bad.add(where, "expected id and file_name", row)
        elif key in captions:
            bad.add(where, f"id {key} occurs twice", row)
        else:
            captions[key] = str(PurePosixPath(folder, row["file_name"])), []
    bare = "annotations" not in about
    for where, row in () if bare else json_rows(about, "annotations", path, bad):
        key = row.get("image_id")
        if not _is_key(key) or key not in captions:
            bad.add(where, f"image_id {key!r} is that of no picture in this file", row)
        else:
            captions[key][1].append((where, row.get("caption")))
    for key, (image, texts) in captions.items():
        if not texts and not bare:
            bad.add(f"{path}", f"picture {image} has no caption", image)
        for where, text in texts or [(f"{path}: picture {key}", None)] * bare:
            with bad.catch(where, text):
                collector.add(where, CaptionRecord(str(key), image, () if bare else (text,), split))


def karpathy(
    file: Path,
    *,
    images: Path,
    restval: Literal["train", "val", "test", "drop"] = "train",
    bad: BadRows | None = None,
) -> Dataset:
    """Karpathy's splits: dataset_coco.json, dataset_flickr8k.json, dataset_flickr30k.json.

    Record ids are COCO's image ids where the file has them, else file names without suffix.

    Args:
        file: The JSON file.
        images: The folder of pictures; those of COCO lie in val2014 and train2014 below it or,
            where there are no such folders, in the folder itself.
        restval: The split that COCO's restval pictures join, or leave them out.
        bad: What to do with bad rows.
    """
    about, collector = read_json(file), Collector(images, bad)
    for where, row in json_rows(about, "images", file, collector.bad):
        split = row.get("split")
        if split == "restval" and restval == "drop":
            collector.bad.count("restval pictures, left out")
            continue
        with collector.bad.catch(where, row):
            name, folder = row.get("filename"), row.get("filepath") or ""
            if not _is_name(name):
                raise BadValue("expected an object with filename, split and sentences")
            if not isinstance(folder, str):
                raise BadValue(f"filepath is {type(folder).__name__}; expected a folder")
            place = restval if split == "restval" else split_name(split)
            if place is None:
                raise BadValue(f"split {split!r}: expected train, val, test, restval")
            sentences, texts = row.get("sentences"), []
            for number, one in enumerate(sentences if isinstance(sentences, list) else ()):
                with collector.bad.catch(f"{where}.sentences[{number}]", one):
                    raw = one.get("raw") if isinstance(one, dict) else None
                    texts.append(plain_text(raw, "caption"))
            if not texts:
                raise BadValue("has no caption")
            id = str(row.get("cocoid", PurePosixPath(name).stem))
            image = PurePosixPath(folder if (images / folder).is_dir() else "", name)
            collector.add(where, CaptionRecord(id, str(image), tuple(texts), place))
    kind = about.get("dataset")
    kind = kind if isinstance(kind, str) and kind else "karpathy"
    return collector.dataset(kind, kind, file)


def _is_key(value: Any) -> bool:
    """Whether a value may be the id of a picture."""
    return _is_name(value) or type(value) is int


def _is_name(value: Any) -> bool:
    """Whether a value may be a file name."""
    try:
        return "\0" not in plain_text(value, "name")
    except BadValue:
        return False


_LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}


def flickr8k(
    folder: Path,
    *,
    captions: Path | None = None,
    images: Path | None = None,
    val: float | None = None,
    test: float | None = None,
    seed: int = 0,
    split: Literal["train", "val", "test"] | None = None,
    bad: BadRows | None = None,
) -> Dataset:
    """Flickr8k: Flickr8k.token.txt with its three picture lists, or captions.txt.

    Args:
        folder: Where the files lie, at most one folder down.
        captions: A file of the same form, if its name is another, such as Pascal1k.token.txt.
        images: The folder of pictures, if it is not found below FOLDER.
        val: Pictures for validation where there are no lists: a number from 1, or a share; 1,000
            if not given.
        test: Pictures for testing, likewise.
        seed: Of that draw.
        split: Without lists: every picture goes to this split, such as test, and none is drawn.
        bad: What to do with bad rows.
    """
    known = ("Flickr8k.token.txt", "Flickr8k.token", "captions.txt")
    table = captions or needed(folder, known, bad)
    name = table.name.partition(".")[0].lower() if captions else "flickr8k"
    names = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "Flickr8k_images")
    collector = Collector(images or find_pictures(folder, names), bad)
    lists = {split: path for split, name in _LISTS.items() if (path := find(folder, [name]))}
    splits = split_lists(lists, collector.picture, collector.bad)
    if lists:
        refuse("the split lists tell the splits", val=val, test=test, split=split)
        if missing := [text for split, text in _LISTS.items() if split not in lists]:
            raise DataError(f"{folder}: has split lists, but not {missing[0]}")
        if not splits:
            raise DataError(f"{lists['train']}: the split lists name no pictures")
    _read_flickr(table, collector, splits, split or "train")
    dataset = collector.dataset(name, "flickr8k", table)
    for image in sorted(splits.keys() - {record.image for record in dataset.captions}):
        collector.bad.add(f"{table}", f"has no caption of {image}, which is in a split list", image)
    if split:
        refuse("every picture goes to one split", val=val, test=test)
    if splits or split:
        return dataset
    collector.bad.notes.append(f"no split lists in {folder}: the splits are not those of papers")
    collector.draw(val=1000 if val is None else val, test=1000 if test is None else test, seed=seed)
    return collector.dataset(name, "flickr8k", table)


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
        seed: Random seed of the draw.
        bad: What to do with bad rows.
    """
    tables = ("results_20130124.token", "results.token", "results.csv", "captions.txt")
    table = needed(folder, tables, bad)
    names = ("flickr30k_images", "flickr30k-images", "Images")
    collector = Collector(images or find_pictures(folder, names), bad)
    _read_flickr(table, collector, {}, "train")
    collector.draw(val=val, test=test, seed=seed)
    return collector.dataset("flickr30k", "flickr30k", table)


def _read_flickr(table: Path, collector: Collector, splits: dict[str, str], whole: str) -> None:
    """Add the captions of the pictures that have a split; if none has, of all, to ``whole``."""
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
            split = splits.get(image) if splits else whole
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
        raise BadValue(f"is not a row of CSV ({error})") from error
    if len(fields) != 2:
        raise BadValue(f"expected 2 fields, found {len(fields)}")
    return fields[0], "0", fields[1]


READERS = {"coco": coco, "karpathy": karpathy, "flickr8k": flickr8k, "flickr30k": flickr30k}

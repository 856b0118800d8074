"""COCO captions: the official annotation files, and Karpathy's split files.

Official (Chen et al., "Microsoft COCO captions", arXiv 1504.00325): one JSON a split with
``images: [{id, file_name}]`` and ``annotations: [{image_id, caption}]``, in 2014 and in 2017;
the file of the test split has no annotations. Karpathy and Fei-Fei ("Deep visual-semantic
alignments", CVPR 2015) published the splits that papers report on, for COCO, Flickr8k and
Flickr30k alike: ``images: [{filename, filepath, split, sentences: [{raw}]}]``, where "restval"
marks pictures of COCO's val that are trained on.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ...errors import DataError
from ...files import read_json
from ..records import CaptionRecord, Dataset
from .rows import BadRows, BadValue, Collector, find, json_list, plain_text, refuse, split_name

__all__ = ["SUBSET", "coco", "karpathy"]

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
        bad: What to do with bad rows; by default the first is an error.

    Raises:
        DataError: a file is missing or of another form, or holds a bad row.
        UsageError: a year beside the names of files.
    """
    folder, bad = Path(folder), bad or BadRows()
    given = {"train": train, "val": val, "test": test}
    files = {split: Path(path) for split, path in given.items() if path is not None}
    if files:
        refuse("the files are named", year=year)
    else:
        files = _found(folder, year, bad)
    collector = Collector(folder if images is None else images, bad)
    for split, path in files.items():
        _official(path, split, collector)
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


def _official(path: Path, split: str, collector: Collector) -> None:
    """Add the pictures of one annotation file."""
    about, bad = read_json(path), collector.bad
    subset = SUBSET.search(path.name)
    folder = subset[0] if subset and (collector.root / subset[0]).is_dir() else ""
    images: dict[Any, str] = {}
    for number, row in enumerate(json_list(about, "images", path)):
        where = f"{path}: images[{number}]"
        if not isinstance(row, dict) or not _key(row.get("id")) or not _name(row.get("file_name")):
            bad.add(where, "expected id and file_name", row)
        elif row["id"] in images:
            bad.add(where, f"id {row['id']} occurs twice", row)
        else:
            images[row["id"]] = str(PurePosixPath(folder, row["file_name"]))
    rows = json_list(about, "annotations", path) if "annotations" in about else None
    captions: dict[Any, list[tuple[str, dict[str, Any]]]] = {key: [] for key in images}
    for number, row in enumerate(rows or []):
        where = f"{path}: annotations[{number}]"
        key = row.get("image_id") if isinstance(row, dict) else None
        if not isinstance(row, dict):
            bad.add(where, "expected an object with image_id and caption", row)
        elif not _key(key) or key not in captions:
            bad.add(where, f"image_id {key!r} is that of no picture in this file", row)
        else:
            captions[key].append((where, row))
    for key, image in images.items():
        if rows is None:
            collector.add(f"{path}: image {key}", CaptionRecord(str(key), image, (), split), image)
        elif not captions[key]:
            bad.add(f"{path}", f"picture {image} has no caption", image)
        for where, row in captions[key]:
            record = CaptionRecord(str(key), image, (row.get("caption"),), split)  # type: ignore[arg-type]
            collector.add(where, record, row)


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
        bad: What to do with bad rows; by default the first is an error.

    Raises:
        DataError: the file is missing or of another form, or holds a bad row.
    """
    path, bad = Path(file), bad or BadRows()
    about, collector = read_json(path), Collector(images, bad)
    for number, row in enumerate(json_list(about, "images", path)):
        where = f"{path}: images[{number}]"
        if not isinstance(row, dict) or not _name(row.get("filename")):
            bad.add(where, "expected an object with filename, split and sentences", row)
            continue
        folder, given = row.get("filepath") or "", row.get("split")
        if given == "restval" and restval == "drop":
            bad.count("restval pictures, left out")
            continue
        split = restval if given == "restval" else split_name(given)
        sentences = row.get("sentences")
        if not isinstance(folder, str):
            bad.add(where, f"filepath is {type(folder).__name__}; expected a folder", row)
        elif split is None:
            bad.add(where, f"split {given!r}: expected train, val, test, restval", row)
        elif not isinstance(sentences, list) or not sentences:
            bad.add(where, "has no caption", row)
        else:
            below = folder if (collector.root / folder).is_dir() else ""
            image = str(PurePosixPath(below, row["filename"]))
            id = str(row.get("cocoid", PurePosixPath(row["filename"]).stem))
            texts = []
            for place, sentence in enumerate(sentences):
                raw = sentence.get("raw") if isinstance(sentence, dict) else None
                try:
                    texts.append(plain_text(raw, "caption"))
                except BadValue as error:
                    bad.add(f"{where}.sentences[{place}]", str(error), sentence)
            if texts:
                collector.add(where, CaptionRecord(id, image, tuple(texts), split), row)
    name = about.get("dataset")
    name = name if isinstance(name, str) and name else "karpathy"
    return collector.dataset(name, name, path)


def _key(value: Any) -> bool:
    """Whether a value may be the id of a picture."""
    return _name(value) or type(value) is int


def _name(value: Any) -> bool:
    """Whether a value may be a file name."""
    try:
        return "\0" not in plain_text(value, "name")
    except BadValue:
        return False

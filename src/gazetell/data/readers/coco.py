"""COCO captions: the official annotation files, and Karpathy's split files.

Official (Chen et al., "Microsoft COCO captions", arXiv 1504.00325): one JSON a split with
``images: [{id, file_name}]`` and ``annotations: [{image_id, caption}]``, in 2014 and in 2017;
the file of the test split has no annotations. Karpathy and Fei-Fei ("Deep visual-semantic
alignments", CVPR 2015) published the splits that papers report on, for COCO, Flickr8k and
Flickr30k alike: ``images: [{filename, filepath, split, sentences: [{raw}]}]``, where "restval"
marks pictures of COCO's val that are trained on.
"""

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import DataError, UsageError
from ...files import read_json
from ..records import SPLITS, CaptionRecord, Dataset
from .rows import BadRows, Collector, caption_text, find, is_unicode, split_name

__all__ = ["coco", "coco_files", "karpathy"]


def coco_files(folder: str | os.PathLike[str], year: int = 2014) -> dict[str, Path]:
    """The official caption files of a year in a COCO folder, by split.

    Raises:
        DataError: neither train nor val is there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    names = {split: f"captions_{split}{year}.json" for split in ("train", "val")}
    found = {split: find(folder, [name]) for split, name in names.items()}
    files = {split: path for split, path in found.items() if path is not None}
    if not files:
        raise DataError(f"{folder}: no captions; expected {' or '.join(names.values())}")
    return files


def coco(
    annotations: Mapping[str, str | os.PathLike[str]],
    images: str | os.PathLike[str],
    *,
    bad: BadRows | None = None,
) -> Dataset:
    """Read official COCO caption files.

    Record ids are the image ids. Pictures lie in ``images`` itself or, where ``images`` has such a
    folder, in one named after the file: ``train2014`` for ``captions_train2014.json``.

    Args:
        annotations: the file of each split, e.g. ``{"train": "captions_train2014.json"}``.
        images: the folder of the pictures.
        bad: what to do with bad rows; by default the first is an error.

    Raises:
        DataError: a file is missing or of another form, or holds a bad row.
        UsageError: a split that is not train, val or test.
    """
    bad, root = bad or BadRows(), Path(images)
    if not annotations:
        raise UsageError("no annotation files; expected one for train, val or test")
    records: list[CaptionRecord] = []
    for split, path in annotations.items():
        if split not in SPLITS:
            raise UsageError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
        records.extend(_official(Path(path), split, root, bad))
    return _dataset("coco", root, records, ", ".join(str(path) for path in annotations.values()))


def _official(path: Path, split: str, root: Path, bad: BadRows) -> list[CaptionRecord]:
    """The records of one annotation file."""
    about = _object(path)
    folder = path.stem.rpartition("_")[2]
    prefix = f"{folder}/" if (root / folder).is_dir() else ""
    images: dict[Any, str] = {}
    for number, row in enumerate(_list(about, "images", path)):
        where = f"{path}: images[{number}]"
        if not isinstance(row, dict) or not _key(row.get("id")) or not _name(row.get("file_name")):
            bad.add(where, "expected id and file_name", row)
        elif row["id"] in images:
            bad.add(where, f"id {row['id']} occurs twice", row)
        else:
            images[row["id"]] = prefix + row["file_name"]
    captions: dict[Any, list[str]] = {key: [] for key in images}
    without_captions = "annotations" not in about
    for number, row in enumerate([] if without_captions else _list(about, "annotations", path)):
        where = f"{path}: annotations[{number}]"
        if not isinstance(row, dict):
            bad.add(where, "expected an object with image_id and caption", row)
            continue
        key = row.get("image_id")
        caption, reason = caption_text(row.get("caption"))
        if not _key(key) or key not in captions:
            bad.add(where, f"image_id {key!r} is that of no picture in this file", row)
        elif caption is None:
            bad.add(where, reason, row)
        else:
            captions[key].append(caption)
    records = []
    for key, image in images.items():
        if captions[key] or without_captions:
            records.append(CaptionRecord(str(key), image, tuple(captions[key]), split))
        else:
            bad.add(f"{path}", f"picture {image} has no caption", image)
    return records


def karpathy(
    path: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    restval: str | None = "train",
    bad: BadRows | None = None,
) -> Dataset:
    """Read a split file of Karpathy: ``dataset_coco.json``, ``dataset_flickr8k.json``, ...

    Record ids are COCO's image ids where the file has them, else file names without suffix.

    Args:
        path: the JSON file.
        images: the folder of the pictures; for COCO they lie in ``val2014`` and ``train2014``
            below it, or, where there are no such folders, in ``images`` itself.
        restval: the split that "restval" pictures join; None leaves them out.
        bad: what to do with bad rows; by default the first is an error.

    Raises:
        DataError: the file is missing or of another form, or holds a bad row.
        UsageError: ``restval`` is not train, val or test.
    """
    if restval is not None and restval not in SPLITS:
        raise UsageError(f"restval {restval!r}: expected one of {', '.join(SPLITS)}")
    path, root, bad = Path(path), Path(images), bad or BadRows()
    about = _object(path)
    collector = Collector(bad)
    prefixes: dict[str, str] = {}
    left_out = 0
    for number, row in enumerate(_list(about, "images", path)):
        where = f"{path}: images[{number}]"
        if not isinstance(row, dict) or not _name(row.get("filename")):
            bad.add(where, "expected an object with filename, split and sentences", row)
            continue
        folder = row.get("filepath") or ""
        if not isinstance(folder, str):
            bad.add(where, f"filepath is {type(folder).__name__}; expected a folder", row)
            continue
        if row.get("split") == "restval" and restval is None:
            left_out += 1
            continue
        split = restval if row.get("split") == "restval" else split_name(row.get("split"))
        if split is None:
            bad.add(where, f"split {row.get('split')!r}: expected train, val, test, restval", row)
            continue
        captions = _sentences(row.get("sentences"), where, bad)
        if not captions:
            bad.add(where, "has no caption", row)
            continue
        if folder not in prefixes:
            prefixes[folder] = f"{folder}/" if folder and (root / folder).is_dir() else ""
        image = prefixes[folder] + row["filename"]
        key = str(row.get("cocoid", PurePosixPath(row["filename"]).stem))
        collector.add(where, image, key, split, captions, row)
    if left_out:
        bad.notes.append(f"restval pictures, left out: {left_out:,}")
    name = about.get("dataset")
    return _dataset(
        name if isinstance(name, str) and name else "karpathy",
        root,
        list(collector.records()),
        str(path),
    )


def _sentences(sentences: Any, where: str, bad: BadRows) -> list[str]:
    """The captions of one picture of Karpathy's file."""
    if not isinstance(sentences, list):
        return []
    captions = []
    for number, sentence in enumerate(sentences):
        raw = sentence.get("raw") if isinstance(sentence, dict) else None
        caption, reason = caption_text(raw)
        if caption is None:
            bad.add(f"{where}.sentences[{number}]", reason, sentence)
        else:
            captions.append(caption)
    return captions


def _dataset(name: str, root: Path, records: list[CaptionRecord], source: str) -> Dataset:
    """A dataset of at least one picture."""
    if not records:
        raise DataError(f"{source}: holds no picture with a caption")
    return Dataset(name, name, root, tuple(records))


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _list(about: dict[str, Any], key: str, path: Path) -> list[Any]:
    """A list in the top object of a file."""
    value = about.get(key)
    if not isinstance(value, list):
        raise DataError(f"{path}: has no list {key!r}; expected a file of captions")
    return value


def _key(value: Any) -> bool:
    """Whether a value may be the id of a picture."""
    return _name(value) or (isinstance(value, int) and not isinstance(value, bool))


def _name(value: Any) -> bool:
    """Whether a value may be a file name."""
    return (
        isinstance(value, str) and bool(value.strip()) and "\0" not in value and is_unicode(value)
    )

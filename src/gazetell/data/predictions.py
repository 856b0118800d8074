"""Files to score: reference captions and the captions of a model.

Two formats, told apart by the file name. JSON Lines (any name but ``*.json``), a picture a line::

    {"id": "12", "captions": ["a dog runs", "a brown dog"]}     references
    {"id": "12", "caption": "a dog"}                            predictions

so a prepared ``captions.jsonl`` is a file of references as it stands; other keys are ignored. And
the official COCO files (``*.json``)::

    {"images": [{"id": 12}], "annotations": [{"image_id": 12, "caption": "a dog runs"}]}
    [{"image_id": 12, "caption": "a dog"}]

Ids are compared as text: 12 and "12" are the same picture.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import read_json, read_jsonl

__all__ = ["FilePath", "match", "once", "read_predictions", "read_references", "row_id"]

FilePath = str | os.PathLike[str]
NAMED = 5  # how many ids a message names


def read_references(path: FilePath) -> dict[str, list[str]]:
    """Read the reference captions of each picture.

    Args:
        path: JSON Lines with "id" and "captions", or a COCO annotation file.

    Returns:
        The captions of each picture, at least one, by id and in the order of the file.

    Raises:
        DataError: missing or malformed (with its line or entry), an id twice, a picture without
            captions, or no pictures at all.
    """
    if Path(path).suffix.lower() == ".json":
        found = _coco_references(path)
    else:
        found = {}
        lines: dict[str, int] = {}
        for number, row in read_jsonl(path):
            where = f"{path}:{number}"
            picture = row_id(row, "id", where)
            once("picture", picture, number, lines, where, "line")
            captions = row.get("captions")
            if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
                raise DataError(f'{where}: expected "captions", a list of strings')
            if not captions:
                raise DataError(f"{where}: picture {picture!r} has no captions, expected some")
            found[picture] = captions
    if not found:
        raise DataError(f"{path}: holds no captions")
    return found


def read_predictions(path: FilePath) -> dict[str, str]:
    """Read the caption that a model gave each picture.

    Args:
        path: JSON Lines with "id" and "caption", or a COCO result file.

    Returns:
        One caption a picture, by id and in the order of the file. It may be empty.

    Raises:
        DataError: missing or malformed (with its line or entry), an id twice, or no captions.
    """
    rows: Sequence[tuple[int, Any]]
    if Path(path).suffix.lower() == ".json":
        document = read_json(path)
        if not isinstance(document, list):
            raise DataError(f"{path}: expected a COCO result file, a list of objects")
        rows, key, kind = list(enumerate(document, start=1)), "image_id", "entry"
    else:
        rows, key, kind = list(read_jsonl(path)), "id", "line"
    found: dict[str, str] = {}
    seen: dict[str, int] = {}
    for number, row in rows:
        where = f"{path}:{number}" if kind == "line" else f"{path}: entry {number}"
        picture = row_id(row, key, where)
        once("picture", picture, number, seen, where, kind)
        found[picture] = _caption(row, where)
    if not found:
        raise DataError(f"{path}: holds no captions")
    return found


def match(
    references: Mapping[str, Any],
    predictions: Mapping[str, Any],
    *,
    what: str = "picture",
    references_name: FilePath = "references",
    predictions_name: FilePath = "predictions",
) -> None:
    """Make sure that both speak of the same pictures, or questions.

    Args:
        references: by picture or question.
        predictions: likewise.
        what: ``picture`` or ``question``, for a message.
        references_name: what to call the references in a message.
        predictions_name: what to call the predictions in a message.

    Raises:
        DataError: some without a prediction, or predictions without references; the message
            names the first of them.
    """
    for have, want, name, other in (
        (predictions, references, predictions_name, references_name),
        (references, predictions, references_name, predictions_name),
    ):
        missing = [key for key in want if key not in have]
        if missing:
            names = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
            raise DataError(
                f"{name}: lacks {len(missing)} of the {len(want)} {what}s of {other}: {names}"
            )


def _coco_references(path: FilePath) -> dict[str, list[str]]:
    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("annotations"), list):
        raise DataError(f'{path}: expected a COCO annotation file, an object with "annotations"')
    images = document.get("images")
    if not isinstance(images, list):
        raise DataError(f'{path}: expected a COCO annotation file with "images", a list')
    found: dict[str, list[str]] = {}
    seen: dict[str, int] = {}
    for number, image in enumerate(images, start=1):
        where = f"{path}: image {number}"
        picture = row_id(image, "id", where)
        once("picture", picture, number, seen, where, "image")
        found[picture] = []
    for number, row in enumerate(document["annotations"], start=1):
        where = f"{path}: annotation {number}"
        picture = row_id(row, "image_id", where)
        if picture not in found:
            raise DataError(f'{where}: picture {picture!r} is not among "images"')
        found[picture].append(_caption(row, where))
    bare = [picture for picture, captions in found.items() if not captions]
    if bare:
        names = ", ".join(bare[:NAMED]) + (", ..." if len(bare) > NAMED else "")
        raise DataError(f"{path}: {len(bare)} pictures have no captions, expected some: {names}")
    return found


def row_id(row: Any, key: str, where: str) -> str:
    """The id of a picture or a question as text.

    Raises:
        DataError: no object, or without a string or an integer under ``key``.
    """
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object, found {type(row).__name__}")
    value = row.get(key)
    # bool is an int in Python, but true is no id.
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f'{where}: expected "{key}", a string or an integer')
    return str(value)


def _caption(row: dict[str, Any], where: str) -> str:
    caption = row.get("caption")
    if not isinstance(caption, str):
        raise DataError(f'{where}: expected "caption", a string')
    return caption


def once(what: str, key: str, number: int, seen: dict[str, int], where: str, kind: str) -> None:
    """Note that a picture or a question was met at ``number``.

    Raises:
        DataError: it was met before.
    """
    if key in seen:
        raise DataError(f"{where}: {what} {key!r} again, first on {kind} {seen[key]}")
    seen[key] = number

"""Datasets made of prepared ones."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from ...errors import DataError, UsageError
from ..records import Dataset, QuestionRecord, open_part, picture_keys
from .rows import BadRows, Collector


def merge(*prepared: str, bad: BadRows | None = None) -> Dataset:
    """Prepared datasets, or splits of them, as one; of a single one a part, with --without.

    Captions of the same picture come together. A question id that two datasets have gets the name
    of the second one's folder before it, unless it is the same question. A picture may not be in
    different splits of two datasets, nor a split be given twice.

    Args:
        prepared: Prepared datasets; FOLDER:SPLIT takes one split.
        bad: What to do with bad rows.
    """
    if not prepared:
        raise UsageError("expected prepared datasets")
    datasets = [open_part(text) for text in prepared]
    parts = Counter(
        (dataset.folder and dataset.folder.resolve(), split)
        for dataset in datasets
        for split in {record.split for record in dataset.records}
    )
    (folder, split), times = parts.most_common(1)[0]
    if times > 1:
        raise UsageError(f"{folder}: its split {split!r} is given {times} times; expected it once")
    splits: dict[str, tuple[str, str]] = {}
    for name, dataset, keys in zip(prepared, datasets, picture_keys(datasets), strict=True):
        for record in dataset.records:
            split, other = splits.setdefault(keys[record.image], (record.split, name))
            if other != name and split != record.split:
                part = f"{other.removesuffix(f':{split}')}:{split}"
                raise DataError(
                    f"{record.image} is in {split} of {other} and in {record.split} of {name}; "
                    f"gazetell data merge {name} --without {part} --out FOLDER makes one without "
                    "such pictures"
                )
    roots = [dataset.root.resolve() for dataset in datasets]
    try:
        root = Path(os.path.commonpath(roots))
    except ValueError as error:  # two drives
        raise DataError(f"pictures in {roots[0]} and {roots[-1]}: expected one drive") from error
    collector = Collector(root, bad)
    asked: dict[str, QuestionRecord] = {}
    for text, dataset, place in zip(prepared, datasets, roots, strict=True):
        for record in dataset.records:
            record = replace(record, image=str((place / record.image).relative_to(root)))
            if isinstance(record, QuestionRecord):
                known = asked.setdefault(record.id, record)
                if known == record and known is not record:
                    collector.bad.count("questions that two datasets have, kept once", record.id)
                    continue
                if known is not record:
                    collector.bad.count("question ids that two datasets have, renamed", record.id)
                    record = replace(record, id=f"{(dataset.folder or place).name}/{record.id}")
            with collector.bad.catch(f"{text}: {record.id}", record):
                collector.add(text, record)
    name = "+".join(dict.fromkeys(dataset.name for dataset in datasets))
    made = [model for dataset in datasets for model in dataset.machine_made]
    return collector.dataset(name, "merged", " and ".join(prepared), made)


READERS = {"merge": merge}

"""What all readers share: bad rows, splits, and finding the files of a dataset in a folder.

A bad row is a row of the outside world that gives no caption: a missing field, an empty caption,
a picture that is not there. Every reader takes a ``BadRows``; by default the first one is an
error that names file and line, with ``skip`` they are kept aside and counted.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import DataError, UsageError
from ..records import CaptionRecord

__all__ = [
    "BadRow",
    "BadRows",
    "Collector",
    "below",
    "caption_text",
    "entries",
    "find",
    "find_pictures",
    "is_unicode",
    "seeded_split",
    "split_name",
]

_ROW_TEXT = 500
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class BadRow:
    """A row left out: where it stood (``file:line``), why, and the start of its text."""

    where: str
    reason: str
    row: str = ""


@dataclass
class BadRows:
    """Raises on the first bad row, or collects them all.

    Attributes:
        skip: collect instead of raising (the command line's ``--skip-bad``).
        rows: what was collected, in order.
        notes: lines for the summary about what was left out rightly, such as pictures that
            belong to no official split.
    """

    skip: bool = False
    rows: list[BadRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, where: str, reason: str, row: Any = "") -> None:
        """Report a bad row.

        Raises:
            DataError: ``skip`` is off.
        """
        if not self.skip:
            raise DataError(_writable(f"{where}: {reason}"))
        texts = (where, reason, str(row)[:_ROW_TEXT])
        self.rows.append(BadRow(*(_writable(text) for text in texts)))


@dataclass
class _Picture:
    """The captions found so far for one picture."""

    id: str
    split: str
    where: str
    captions: list[str]


class Collector:
    """Groups rows by picture into records, in the order in which pictures first appear."""

    def __init__(self, bad: BadRows) -> None:
        self.bad = bad
        self._pictures: dict[str, _Picture] = {}
        self._ids: dict[str, str] = {}

    def add(
        self, where: str, image: str, id: str, split: str, captions: Sequence[str], row: Any = ""
    ) -> None:
        """Add captions to a picture; a row that contradicts an earlier one is bad."""
        known = self._pictures.get(image)
        if not is_unicode(image + id):
            self.bad.add(where, f"picture {image!r} or its id is no valid Unicode", row)
        elif known is None:
            other = self._ids.setdefault(id, image)
            if other != image:
                self.bad.add(where, f"id {id!r} is already that of picture {other!r}", row)
                return
            self._pictures[image] = _Picture(id, split, where, list(captions))
        elif known.split != split:
            reason = f"picture {image!r} is in split {known.split} at {known.where}, here {split}"
            self.bad.add(where, reason, row)
        elif known.id != id:
            reason = f"picture {image!r} has id {known.id!r} at {known.where}, here {id!r}"
            self.bad.add(where, reason, row)
        else:
            known.captions.extend(captions)

    @property
    def images(self) -> list[str]:
        """The pictures collected so far."""
        return list(self._pictures)

    def records(self, splits: dict[str, str] | None = None) -> tuple[CaptionRecord, ...]:
        """The records; ``splits``, from picture to split, overrules what was added."""
        return tuple(
            CaptionRecord(
                id=picture.id,
                image=image,
                captions=tuple(picture.captions),
                split=splits[image] if splits is not None else picture.split,
            )
            for image, picture in self._pictures.items()
        )


def _writable(text: str) -> str:
    """``text`` with lone surrogates, which no file can hold, written out as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be written to a file: JSON can smuggle in half a character."""
    return _writable(text) == text


def caption_text(value: Any) -> tuple[str | None, str]:
    """A caption stripped of outer white space, or None and the reason why it is none."""
    if value is None:
        return None, "caption is missing"
    if not isinstance(value, str):
        return None, f"caption is {type(value).__name__}; expected text"
    text = value.strip()
    if not text:
        return None, "caption is empty"
    if not is_unicode(text):
        return None, "caption is no valid Unicode (a lone surrogate)"
    return text, ""


def split_name(value: Any) -> str | None:
    """The split that a name in use means (dev, valid, validation: val), None for any other."""
    return _SPLIT_NAMES.get(value.strip().lower()) if isinstance(value, str) else None


def seeded_split(
    names: Iterable[str], *, val: float | int, test: float | int, seed: int = 0
) -> dict[str, str]:
    """Share pictures out to train, val and test, the same way on every machine.

    Names are ordered by a hash of seed and name, so neither their order in a file nor a version
    of Python matters. A fraction above 0 gives its split at least one picture, as long as train
    keeps one; a single picture goes to train.

    Args:
        names: the pictures.
        val: how many: a fraction in [0, 1) as a float, a number of pictures as an int.
        test: likewise.
        seed: another seed gives another split.

    Raises:
        UsageError: a negative value, or nothing would be left for train.
    """
    order = sorted(set(names), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    total = len(order)
    fractions = [share for share in (val, test) if isinstance(share, float)]
    # Written so that a NaN fails as well.
    if not (min(val, test) >= 0 and sum(fractions) < 1):
        raise UsageError(f"val {val} and test {test}: expected shares that leave some for train")
    counts = {}
    left = total - 1
    for split, share in (("test", test), ("val", val)):
        if isinstance(share, int):
            if share > left:
                raise UsageError(f"{split} {share}: only {total} pictures, and train needs one")
            counts[split] = share
        else:
            wanted = max(1, round(share * total)) if share > 0 else 0
            counts[split] = max(0, min(wanted, left))
        left -= counts[split]
    ends = counts["test"], counts["test"] + counts["val"]
    return {
        name: "test" if place < ends[0] else "val" if place < ends[1] else "train"
        for place, name in enumerate(order)
    }


def find(folder: Path, names: Sequence[str]) -> Path | None:
    """The first file of ``names`` in ``folder`` or in a folder right below it, case ignored."""
    wanted = {name.lower(): place for place, name in reversed(list(enumerate(names)))}
    found = [
        (wanted[path.name.lower()], len(path.parts), path)
        for path in below(folder)
        if path.name.lower() in wanted and path.is_file()
    ]
    return min(found)[-1] if found else None


def find_pictures(folder: Path, names: Sequence[str]) -> Path:
    """The folder of pictures: one of ``names`` at most two levels down, else ``folder`` itself.

    Archives unpack to ``Images/`` or to a folder of the same name twice over, so a folder counts
    only if a JPEG or PNG lies right in it.

    Raises:
        DataError: no such folder.
    """
    wanted = {name.lower() for name in names}
    first = [path for path in below(folder) if path.name.lower() in wanted and path.is_dir()]
    second = [path for outer in first for path in entries(outer) if path.is_dir()]
    for place in (*first, *second, folder):
        if any(path.suffix.lower() in (".jpg", ".jpeg", ".png") for path in entries(place)):
            return place
    raise DataError(f"{folder}: no folder of pictures; expected one of {', '.join(names)}")


def below(folder: Path) -> list[Path]:
    """What lies in a folder and in the folders right below it.

    Raises:
        DataError: no such folder, or one cannot be read.
    """
    here = entries(folder)
    return here + [path for outer in here if outer.is_dir() for path in entries(outer)]


def entries(folder: Path) -> list[Path]:
    """The content of a folder, sorted.

    Raises:
        DataError: no such folder, or it cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read as a folder: {error.strerror}") from error

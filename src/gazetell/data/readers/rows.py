"""What all readers share: bad rows, the collector of records, the draw of splits, finding files.

A reader turns rows of the outside world into records. A bad row gives none: a missing field, an
empty caption, a picture in two splits. By default the first bad row is an error that names file
and line; with ``skip`` bad rows are kept aside and counted.

A question needs a word: "???" is a bad row. Any script will do, and so will any length, since the
tokenizer cuts a question and never the reader. Of several answers some may be empty (people left
them out), but not all; a whole number in JSON is taken for its digits.
"""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import DataError, UsageError
from ...files import read_text
from ..records import CaptionRecord, Dataset, QuestionRecord

_ROW_TEXT = 500
_NAMED = 5  # bad rows that an error names
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Categories of characters that make no word; other symbols (So) are emoji, which the tokenizer
# takes for words.
_NO_WORD = ("P", "Z", "Cc", "Cf", "Sm", "Sc", "Sk")


@dataclass(frozen=True)
class BadRow:
    """A row left out: where it stood (``file:line``), why, and the start of its text."""

    where: str
    reason: str
    row: str = ""


class BadValue(ValueError):
    """Why a value of a row cannot be used."""


@dataclass
class BadRows:
    """Raises on the first bad row, or collects them all.

    Attributes:
        skip: collect instead of raising (the command line's ``--skip-bad``).
        whole: collect until ``refuse`` is called, which then raises.
        rows: what was collected, in order.
        notes: lines about what the reader decided by itself: what it left out rightly, such as
            pictures of no official split, and what it guessed.
    """

    skip: bool = False
    rows: list[BadRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    whole: bool = False
    _counts: dict[str, tuple[int, int, str]] = field(default_factory=dict, repr=False)

    def add(self, where: str, reason: str, row: Any = "") -> None:
        """Report a bad row; raises ``DataError`` unless ``skip`` or ``whole`` is on."""
        if not (self.skip or self.whole):
            raise DataError(_writable(f"{where}: {reason}"))
        self.rows.append(BadRow(*map(_writable, (where, reason, str(row)[:_ROW_TEXT]))))

    def refuse(self) -> None:
        """Raise ``DataError`` for the rows that were collected, unless ``skip`` is on."""
        told = [f"{row.where}: {row.reason}" for row in self.rows[:_NAMED]]
        if len(self.rows) > 1:
            shown = f"the first {_NAMED}" if self.rows[_NAMED:] else "all"
            told.append(f"bad rows: {len(self.rows):,}, {shown} named; --skip-bad leaves them out")
        if told and not self.skip:
            raise DataError("; ".join(told))

    @contextmanager
    def catch(self, where: str, row: Any = "") -> Iterator[None]:
        """Report a ``BadValue`` of the block as a bad row."""
        try:
            yield
        except BadValue as error:
            self.add(where, str(error), row)

    def count(self, what: str, first: str = "", number: int = 1) -> None:
        """Count a thing of one kind: all of a kind are one note, with the first as example."""
        place, before, example = self._counts.get(what, (len(self.notes), 0, first))
        if not before:
            self.notes.append("")
        self._counts[what] = place, before + number, example
        shown = f" (first: {_writable(example)})" if example else ""
        self.notes[place] = f"{what}: {before + number:,}{shown}"


def _writable(text: str) -> str:
    """``text`` with lone surrogates, which no file can hold, written out as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def plain_text(value: Any, what: str) -> str:
    """A text without outer white space; ``what`` names it in the error.

    ``BadValue``: missing, another type, empty, or half a character (which JSON can hold).
    """
    if value is None:
        raise BadValue(f"{what} is missing")
    if not isinstance(value, str):
        raise BadValue(f"{what} is {type(value).__name__}; expected text")
    text = value.strip()
    if not text:
        raise BadValue(f"{what} is empty")
    if not text.isascii() and _writable(text) != text:
        raise BadValue(f"{what} is not valid Unicode (a lone surrogate)")
    return text


def question_text(value: Any) -> str:
    """A question with at least one word; raises ``BadValue`` else."""
    text = plain_text(value, "question")
    if all(unicodedata.category(character).startswith(_NO_WORD) for character in text):
        raise BadValue(f"question has no words: {text[:40]!r}")
    return text


def answer_texts(values: Sequence[Any]) -> tuple[str, ...]:
    """The answers to a question in their order, at least one not empty; ``BadValue`` else."""
    texts = []
    for value in values:
        empty = isinstance(value, str) and not value.strip()
        given = str(value) if type(value) is int else value
        texts.append("" if empty else plain_text(given, "answer"))
    if not any(texts):
        raise BadValue("answer is empty" if texts else "answer is missing")
    return tuple(texts)


def split_name(value: Any) -> str | None:
    """The split that a name in use means (dev, valid, validation: val), None for any other."""
    return _SPLIT_NAMES.get(value.strip().lower()) if isinstance(value, str) else None


class PictureNames:
    """Finds pictures below a folder, also where another system wrote their names.

    A name fits a file if it is equal, or if it differs only in the Unicode form (macOS decomposes
    letters with accents), in slash and backslash, or in letter case, and fits no other file.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listings: dict[str, dict[str, list[str]]] = {}

    def find(self, name: str) -> tuple[str, bool]:
        """The picture's name relative to the folder, and whether it differs from ``name``.

        ``BadValue``: the name fits several files.
        """
        plain = Path(os.path.normpath(name)).as_posix()
        for spelling in (plain, os.path.normpath(plain.replace("\\", "/"))):
            place: str | None = ""
            for part in spelling.split("/"):
                place = None if place is None else self._step(place, part)
            if place is not None:
                return place, place != plain
        return plain, False

    def _step(self, place: str, part: str) -> str | None:
        """One part of a path further; None if there is nothing of that name."""
        if part in ("", ".."):
            return os.path.join(place, part or "/")
        if place not in self._listings:
            listing = self._listings[place] = {}
            # No such folder: no such picture, which the check of pictures tells.
            for name in os.listdir(self._root / place) if os.path.isdir(self._root / place) else ():
                listing.setdefault(_folded(name), []).append(name)
        fits = self._listings[place].get(_folded(part), [])
        composed = [name for name in fits if _composed(name) == _composed(part)]
        fits = [name for name in fits if name == part] or composed or fits
        if len(fits) > 1:
            raise BadValue(f"picture {part!r} matches several files: {', '.join(sorted(fits))}")
        return os.path.join(place, fits[0]) if fits else None


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    """What names have in common that differ only in letter case and Unicode form."""
    return name.lower() if name.isascii() else _composed(_composed(name).casefold())


class Collector:
    """Gathers rows into records: captions by picture, questions by id, in order of appearance.

    ``root`` is the folder of the pictures, which ``PictureNames`` finds; two spellings of a name
    are one picture. With ``several`` a question that comes again adds answers.
    """

    def __init__(self, root: Path, bad: BadRows | None, *, several: bool = False) -> None:
        self.root, self.bad = root, bad or BadRows()
        self._several = several
        self._on_disk = PictureNames(root)
        self._names: dict[str, str] = {}
        self._captions: dict[str, tuple[CaptionRecord, str]] = {}
        self._questions: dict[str, tuple[QuestionRecord, str]] = {}
        self._ids: dict[str, str] = {}  # of the records of captions: the picture of each
        self._numbered: dict[tuple[str, str], str] = {}
        self._per_picture: Counter[str] = Counter()

    def add(self, where: str, record: CaptionRecord | QuestionRecord) -> None:
        """Add what the row at ``where`` holds, with texts of any type; all of it or nothing.

        Without an id a record of captions takes the picture's name, and the questions of a picture
        are numbered. A question without answers is one that nobody may know the answers of.
        ``BadValue``: texts that are none, or an id, picture or split that contradicts an earlier
        row.
        """
        image = self.picture(record.image)
        add: Any = self._add_captions if isinstance(record, CaptionRecord) else self._add_question
        add(where, replace(record, image=image))

    def picture(self, name: str) -> str:
        """The picture that a row means; raises ``BadValue`` if it may be several."""
        if name not in self._names:
            plain_text(name, f"picture {name!r}")
            found, differs = self._on_disk.find(name)
            if differs:
                self.bad.count(
                    "pictures found although slash, letter case or Unicode form differ",
                    f"{name!a} is {found!a}",
                )
            self._names[name] = found
        return self._names[name]

    def _add_captions(self, where: str, record: CaptionRecord) -> None:
        """Add a picture, or captions to it."""
        texts = tuple(plain_text(caption, "caption") for caption in record.captions)
        image, id = record.image, plain_text(record.id or record.image, "id")
        known, first = self._captions.get(image, (None, where))
        if known is None:
            other = self._ids.setdefault(id, image)
            if other != image:
                raise BadValue(f"id {id!r} is already that of picture {other!r}")
        elif known.split != record.split:
            raise BadValue(
                f"picture {image!r} is in split {known.split} at {first}, here {record.split}"
            )
        elif known.id != id:
            raise BadValue(f"picture {image!r} has id {known.id!r} at {first}, here {id!r}")
        else:
            if repeated := sum(text in known.captions for text in texts):
                self.bad.count("captions that a picture has twice, kept", where, repeated)
            texts = known.captions + texts
        self._captions[image] = replace(record, id=id, captions=texts), first

    def _add_question(self, where: str, record: QuestionRecord) -> None:
        """Add a question, or answers to it."""
        image, text = record.image, question_text(record.question)
        answers = answer_texts(record.answers) if record.answers else ()
        id = record.id or self._numbered.get((image, text), "")
        if not id:
            self._per_picture[image] += 1
            id = self._numbered[image, text] = f"{image}#{self._per_picture[image]}"
        record = replace(record, id=plain_text(id, "id"), question=text, answers=answers)
        known, first = self._questions.get(id, (None, where))
        if known is not None:
            if not self._several:
                raise BadValue(f"question id {id!r} occurs twice, first at {first}")
            if (known.image, known.question) != (image, text):
                raise BadValue(f"id {id!r} is that of another question at {first}")
            if known.split != record.split:
                raise BadValue(
                    f"question {id!r} is in split {known.split} at {first}, here {record.split}"
                )
            record = replace(known, answers=known.answers + answers)
        self._questions[id] = record, first

    def draw(self, *, val: float, test: float = 0, seed: int = 0, pool: str = "train") -> None:
        """Draw val and test from the pictures of a split (``pool``), each with all its rows.

        The others stay in it. For ``val`` and ``test`` see ``seeded_split``; ``UsageError``: one is
        out of range, or there is nothing to draw from.
        """
        captions = {key for key, (record, _) in self._captions.items() if record.split == pool}
        asked = [record for record, _ in self._questions.values() if record.split == pool]
        names = captions | {record.image for record in asked}
        if not names and (val or test) and (self._captions or self._questions):
            raise UsageError(f"val {val} and test {test}: no pictures of {pool} to draw from")
        drawn = seeded_split(names, val=val, test=test, seed=seed)
        counts = Counter(drawn.values())
        for split, share in (("val", val), ("test", test)):
            if 0 < share < 1 and counts[split] != max(0.5, round(share * len(names))):
                self.bad.notes.append(
                    f"{split} {share} of {len(names)} pictures is {share * len(names):.1f}; "
                    f"{counts[split]} taken"
                )
        splits = {name: pool if split == "train" else split for name, split in drawn.items()}
        for key in captions:
            caption, where = self._captions[key]
            self._captions[key] = replace(caption, split=splits[key]), where
        for record in asked:
            where = self._questions[record.id][1]
            self._questions[record.id] = replace(record, split=splits[record.image]), where

    def dataset(
        self, name: str, kind: str, source: object, machine_made: Iterable[str] = ()
    ) -> Dataset:
        """The dataset of all that was added; ``DataError``, naming ``source``: nothing was."""
        captions = tuple(record for record, _ in self._captions.values())
        questions = tuple(record for record, _ in self._questions.values())
        if not captions and not questions:
            raise DataError(f"{source}: has no picture with a caption or question")
        made = tuple(dict.fromkeys(machine_made))
        return Dataset(name, kind, self.root, captions, questions, machine_made=made)


def seeded_split(names: Iterable[str], *, val: float, test: float, seed: int = 0) -> dict[str, str]:
    """Share pictures out to train, val and test, the same way on every machine.

    Names are ordered by a hash of seed and name, so neither their order in a file nor a version
    of Python matters. ``val`` and ``test`` are a share if below 1, else a number of pictures. A
    share above 0 gives its split at least one picture, as long as train keeps one; a single
    picture goes to train. ``UsageError``: a negative or broken number, or none left for train.
    """
    order = sorted(set(names), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    # Written so that a NaN fails as well.
    if not (min(val, test) >= 0 and sum(share for share in (val, test) if share < 1) < 1):
        raise UsageError(f"val {val} and test {test}: expected shares that leave some for train")
    splits = dict.fromkeys(order, "train")
    for split, share in (("test", test), ("val", val)):
        left = max(0, len(order) - 1)
        count = min(max(1, round(share * len(splits))), left) if 0 < share < 1 else share
        if count % 1:
            raise UsageError(f"{split} {share}: expected a share below 1 or a whole number")
        if count > left:
            raise UsageError(
                f"{split} {share:g}: only {len(splits)} pictures to draw from, and one must stay; "
                "expected fewer, or a share such as 0.1"
            )
        splits.update(dict.fromkeys(order[: int(count)], split))
        order = order[int(count) :]
    return splits


def refuse(reason: str, **options: object) -> None:
    """Refuse options that were given (are not None) and would do nothing."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name} {value}: has no effect, since {reason}")


def split_lists(
    lists: dict[str, Path], name_of: Callable[[str], str], bad: BadRows
) -> dict[str, str]:
    """The split of each picture in lists of pictures, one a line; ``name_of`` reads a line."""
    splits: dict[str, str] = {}
    for split, path in lists.items():
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            with bad.catch(f"{path}:{number}", line):
                if line.strip():
                    name = name_of(line.strip())
                    if splits.setdefault(name, split) != split:
                        raise BadValue(f"{name} is also in the list of {splits[name]}")
    return splits


def find(folder: Path, names: Sequence[str], bad: BadRows | None = None) -> Path | None:
    """The first file of ``names`` in a folder or in a folder right below it.

    Letter case is ignored, and the file may be packed (``.gz``, ``.xz``). Other files that fit
    are named in the notes of ``bad``.
    """
    wanted = {name.lower(): place for place, name in reversed(list(enumerate(names)))}
    found = sorted(
        (wanted[name], len(path.parts), path)
        for path in below(folder)
        if (name := unpacked(path.name).lower()) in wanted and path.is_file()
    )
    if bad is not None and len(found) > 1:
        others = ", ".join(str(path.relative_to(folder)) for *_, path in found[1:])
        bad.notes.append(f"read {found[0][-1].relative_to(folder)}; not read: {others}")
    return found[0][-1] if found else None


def needed(folder: Path, names: Sequence[str], bad: BadRows | None = None) -> Path:
    """What ``find`` finds; raises ``DataError`` if that is nothing."""
    path = find(folder, names, bad)
    if path is None:
        raise DataError(f"{folder}: no file {' or '.join(names)}")
    return path


def unpacked(name: str) -> str:
    """A file's name without the suffix of its packing."""
    return name.removesuffix(".gz").removesuffix(".xz")


def find_pictures(folder: Path, names: Sequence[str]) -> Path:
    """The folder of pictures: one of ``names`` at most two levels down, else ``folder`` itself.

    Archives unpack to ``Images/`` or to a folder of the same name twice over, so a folder counts
    only if a JPEG or PNG lies right in it.
    """
    wanted = {name.lower() for name in names}
    first = [path for path in below(folder) if path.name.lower() in wanted and path.is_dir()]
    second = [path for outer in first for path in entries(outer) if path.is_dir()]
    for place in (*first, *second, folder):
        if any(path.suffix.lower() in (".jpg", ".jpeg", ".png") for path in entries(place)):
            return place
    raise DataError(f"{folder}: no folder of pictures; expected one of {', '.join(names)}")


def below(folder: Path) -> list[Path]:
    """What lies in a folder and in the folders right below it; errors as ``entries``."""
    here = entries(folder)
    return here + [path for outer in here if outer.is_dir() for path in entries(outer)]


def entries(folder: Path) -> list[Path]:
    """The content of a folder, sorted; raises ``DataError`` if it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read as a folder: {error.strerror}") from error


def json_rows(value: Any, key: str, path: Path, bad: BadRows) -> Iterator[tuple[str, Any]]:
    """The place and content of each object in the list under a key of a JSON file's top object."""
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(value).__name__}")
    if not isinstance(value.get(key), list):
        raise DataError(f"{path}: has no list {key!r}")
    for number, row in enumerate(value[key]):
        where = f"{path}: {key}[{number}]"
        if isinstance(row, dict):
            yield where, row
        else:
            bad.add(where, f"expected an object, found {type(row).__name__}", row)

"""Preparing a dataset: check its pictures, write the prepared folder, sum it up.

    reader -> Dataset -> prepare -> folder (dataset.json, captions.jsonl,
                                         questions.jsonl, quarantine.jsonl)

``quarantine.jsonl`` is there only if something was left out: one object a line with ``where``,
``reason`` and the start of the ``row``. The folder is written beside itself first and then moved
into place, so that a full disk leaves an earlier one as it was.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import DataError, ImageError, UsageError, WriteError
from ..files import read_json, write_error, write_json, write_jsonl
from ..metrics.vqa import normalise_answer
from ..pictures import open_image
from .answers import coverage, modal_answer
from .readers.rows import BadRow, BadRows
from .records import SPLITS, CaptionRecord, Dataset, QuestionRecord
from .text import unspaced_warning, word_counts

__all__ = ["CHECKS", "Check", "QuestionSurvey", "Summary", "prepare", "summarise", "survey"]

Check = Literal["exists", "decode", "none"]
CHECKS = ("exists", "decode", "none")
QUARANTINE = "quarantine.jsonl"

# A small target makes large JPEGs decode at 1/8 of their size: all data is read all the same.
_NEAR = 32

FREQUENT = 5
SIZES = (10, 100, 1000, 3000)
_LENGTH_BINS = ((0, 5), (6, 10), (11, 15), (16, 20), (21, 30), (31, 50))
_TYPES = 8


@dataclass(frozen=True)
class QuestionSurvey:
    """What the questions of a dataset hold.

    Attributes:
        questions: in each of train, val and test.
        answer_types: how many questions have which type of answer, as the source tells, most
            frequent first; empty where it does not.
        question_types: likewise for the types of questions.
        words: different words in the questions of train, as the tokenizer sees them.
        frequent_words: those of them that occur at least five times.
        lengths: how many questions have how many words.
        answers_a_question: how many questions have how many answers.
        answers: different modal answers in train, after normalisation.
        never_in_test: those of them that nobody gives in test; None if test has no answers.
        ceiling: for each split with answers, from a number K of answers to the accuracy in [0, 1]
            that no model with the K most frequent answers of train can exceed.
        repeated: questions that another one about the same picture asks in the same words.
        without_answer: questions without an answer in each split.
        without_picture: questions whose picture is not on disk.
        pictures_in_two_splits: by their names.
    """

    questions: dict[str, int]
    answer_types: dict[str, int]
    question_types: dict[str, int]
    words: int
    frequent_words: int
    lengths: dict[int, int]
    answers_a_question: dict[int, int]
    answers: int
    never_in_test: int | None
    ceiling: dict[str, dict[int, float]]
    repeated: int
    without_answer: dict[str, int]
    without_picture: int
    pictures_in_two_splits: int

    def to_dict(self) -> dict[str, Any]:
        """The survey as a JSON object."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The survey as lines of plain text."""
        lines = [f"questions  {sum(self.questions.values()):,} ({_listed(self.questions)})"]
        for name, types in (("asked", self.question_types), ("types", self.answer_types)):
            if types:
                lines.append(f"{name:<10} {_shares(types)}")
        if self.words:
            lines.append(
                f"words      {self.words:,} in the questions of train, "
                f"{self.frequent_words:,} of them at least {FREQUENT} times"
            )
        lines.append(f"lengths    {length_line(self.lengths)}")
        numbers = sorted(number for number in self.answers_a_question if number)
        if numbers:
            several = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"{numbers[0]}"
            line = f"answers    {several} a question"
            if self.answers:
                line += f"; {self.answers:,} different in train"
            if self.never_in_test:
                line += f", {self.never_in_test:,} of them never in test"
            lines.append(line)
        for split, ceiling in self.ceiling.items():
            sizes = ", ".join(f"{size:,}: {100 * best:.1f} %" for size, best in ceiling.items())
            lines.append(f"ceiling    of the most frequent answers, on {split}: {sizes}")
        if self.repeated:
            lines.append(f"repeated   {self.repeated:,} about the same picture in the same words")
        lacking = {split: n for split, n in self.without_answer.items() if n and split != "train"}
        if lacking:
            lines.append(f"unanswered {_listed(lacking)}")
        return lines

    def warnings(self) -> list[str]:
        """What the user should look into; pictures in two splits are for the caller to tell."""
        warnings = []
        if self.without_answer.get("train"):
            warnings.append(
                f"questions of train without an answer: {self.without_answer['train']:,}"
            )
        if self.without_picture:
            warnings.append(f"questions whose picture is missing: {self.without_picture:,}")
        if self.answers and self.never_in_test == self.answers:
            warnings.append("no answer of train ever occurs in test; expected answers in common")
        return warnings


@dataclass(frozen=True)
class Summary:
    """What a prepared dataset holds and what was left out of it.

    Attributes:
        name: the dataset's name.
        kind: the reader that made it.
        folder: where it was written.
        pictures: different pictures.
        captions: captions in all splits.
        questions: questions in all splits.
        splits: pictures in each of train, val and test.
        words: different words in the captions of train, as the tokenizer sees them.
        frequent_words: those of them that occur at least five times.
        lengths: how many captions have how many words.
        bad_rows: rows of the source that were left out.
        missing: names of pictures that are not on disk.
        unreadable: pictures that cannot be decoded: name and reason.
        notes: what the reader left out rightly.
        warnings: what the user should look into.
        asked: what the questions hold; None if there are none.
    """

    name: str
    kind: str
    folder: str
    pictures: int
    captions: int
    questions: int
    splits: dict[str, int]
    words: int
    frequent_words: int
    lengths: dict[int, int]
    bad_rows: int = 0
    missing: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    asked: QuestionSurvey | None = None

    def to_dict(self) -> dict[str, Any]:
        """The summary as a JSON object."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The summary as lines of plain text."""
        shares = ", ".join(f"{split} {count:,}" for split, count in self.splits.items())
        lines = [f"{self.name} ({self.kind}) -> {self.folder}", f"pictures   {self.pictures:,}"]
        lines[-1] += f" ({shares})"
        if self.captions:
            lines.append(f"captions   {self.captions:,}")
            lines.append(
                f"words      {self.words:,} in train, "
                f"{self.frequent_words:,} of them at least {FREQUENT} times"
            )
            lines.append(f"lengths    {length_line(self.lengths)}")
        if self.asked:
            lines.extend(self.asked.lines())
        left_out = {
            "bad rows": self.bad_rows,
            "missing pictures": len(self.missing),
            "unreadable pictures": len(self.unreadable),
        }
        found = [f"{what} {count:,}" for what, count in left_out.items() if count]
        if found:
            lines.append(f"left out   {', '.join(found)}; see {Path(self.folder) / QUARANTINE}")
        lines.extend(f"note: {note}" for note in self.notes)
        lines.extend(f"warning: {warning}" for warning in self.warnings)
        return lines


@dataclass
class _Pictures:
    """What checking the pictures found."""

    missing: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    digests: dict[str, bytes] = field(default_factory=dict)


def prepare(
    dataset: Dataset,
    folder: str | os.PathLike[str],
    *,
    check_images: Check = "exists",
    bad: BadRows | None = None,
    workers: int = 2,
) -> Summary:
    """Check a dataset, write its prepared folder and sum it up.

    Args:
        dataset: what a reader made.
        folder: where to write; made if need be, an earlier prepared dataset in it is replaced.
        check_images: "exists" looks for every picture on disk; "decode" opens every one as well
            and finds pictures of equal content in two splits; "none" trusts the dataset.
        bad: the ``BadRows`` given to the reader. With ``skip`` missing and unreadable pictures
            are left out, and all that was left out goes to ``quarantine.jsonl``.
        workers: threads that open pictures.

    Raises:
        DataError: missing or unreadable pictures without ``skip``; nothing left to write.
        UsageError: an unknown ``check_images``.
        WriteError: the file system refused; an earlier prepared folder is left as it was.
    """
    if check_images not in CHECKS:
        raise UsageError(f"check_images {check_images!r}: expected one of {', '.join(CHECKS)}")
    folder, bad = Path(folder), bad or BadRows()
    records: tuple[CaptionRecord | QuestionRecord, ...] = (*dataset.captions, *dataset.questions)
    images = list(dict.fromkeys(record.image for record in records))
    found = _check(dataset.root, images, check_images, workers)
    reasons = dict.fromkeys(found.missing, "picture is missing") | dict(found.unreadable)
    if reasons and not bad.skip:
        raise _pictures_error(dataset.root, found, len(images))
    quarantine = [*bad.rows, *_left_out(dataset, records, reasons)]
    dataset = replace(
        dataset,
        captions=tuple(record for record in dataset.captions if record.image not in reasons),
        questions=tuple(record for record in dataset.questions if record.image not in reasons),
    )
    if not dataset.captions and not dataset.questions:
        raise DataError(f"{dataset.name}: no picture is left; expected at least one")
    summary = _summary(dataset, folder, bad, found)
    _write(dataset, folder, quarantine)
    return summary


def summarise(dataset: Dataset) -> Summary:
    """Sum up a prepared dataset as it is, looking for its pictures on disk."""
    records: tuple[CaptionRecord | QuestionRecord, ...] = (*dataset.captions, *dataset.questions)
    images = list(dict.fromkeys(record.image for record in records))
    found = _check(dataset.root, images, "exists", 2)
    return _summary(dataset, dataset.folder or dataset.root, BadRows(), found)


def _check(root: Path, images: list[str], check: Check, workers: int) -> _Pictures:
    """Look at every picture, in order, in a few threads (decoding leaves Python's lock)."""

    def look(image: str) -> tuple[str | None, bytes]:
        path = root / image
        # Not Path.is_file(), which raises where a name is too long to be one.
        if not os.path.isfile(path):
            return "", b""
        if check == "exists":
            return None, b""
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "blake2b").digest()
            open_image(path, near=_NEAR)
        except ImageError as error:
            return str(error).removeprefix(f"{path}: "), b""
        except OSError as error:
            return f"cannot be read: {error.strerror or error}", b""
        return None, digest

    found = _Pictures()
    if check == "none":
        return found
    with ThreadPoolExecutor(workers) as pool:
        for image, (reason, digest) in zip(images, pool.map(look, images), strict=True):
            if reason is None:
                found.digests[image] = digest
            elif reason:
                found.unreadable.append((image, reason))
            else:
                found.missing.append(image)
    return found


def _pictures_error(root: Path, found: _Pictures, total: int) -> DataError:
    """One line on the pictures that cannot be used."""
    parts = []
    if found.missing:
        parts.append(f"{len(found.missing):,} missing (first: {found.missing[0]})")
    if found.unreadable:
        name, reason = found.unreadable[0]
        parts.append(f"{len(found.unreadable):,} unreadable (first: {name}: {reason})")
    return DataError(
        f"{root}: of {total:,} pictures {' and '.join(parts)}; --skip-bad leaves them out"
    )


def _left_out(
    dataset: Dataset,
    records: tuple[CaptionRecord | QuestionRecord, ...],
    reasons: dict[str, str],
) -> Iterator[BadRow]:
    """The records whose pictures cannot be used."""
    for record in records:
        if record.image in reasons:
            row = json.dumps(asdict(record), ensure_ascii=False)
            yield BadRow(str(dataset.path(record)), reasons[record.image], row)


def _summary(dataset: Dataset, folder: Path, bad: BadRows, found: _Pictures) -> Summary:
    """Count what the dataset holds."""
    records: tuple[CaptionRecord | QuestionRecord, ...] = (*dataset.captions, *dataset.questions)
    by_split = {split: {r.image for r in records if r.split == split} for split in SPLITS}
    train = _texts(dataset, ["train"])
    words, lengths = word_counts(train)
    frequent = sum(count >= FREQUENT for count in words.values())
    lengths += word_counts(_texts(dataset, [s for s in SPLITS if s != "train"]))[1]
    asked = survey(dataset.questions, found.missing) if dataset.questions else None
    captions = sum(len(record.captions) for record in dataset.captions)
    warnings = [f"split {split} has no pictures" for split in SPLITS if not by_split[split]]
    pictures = len(set.union(*by_split.values()))
    if pictures == 1:
        warnings.append("the dataset has one picture only; it can be learnt by heart, not learnt")
    warnings.extend(_shared(by_split, found.digests))
    bare = sum(1 for record in dataset.captions if record.split == "train" and not record.captions)
    if bare:
        warnings.append(f"pictures of train without a caption: {bare:,}")
    if train and not frequent:
        warnings.append(
            f"no word occurs {FREQUENT} times in train; train with a lower minimum frequency"
        )
    unspaced = unspaced_warning([*train, *(r.question for r in dataset.questions)])
    warnings.extend([unspaced] if unspaced else [])
    warnings.extend(asked.warnings() if asked else [])
    return Summary(
        name=dataset.name,
        kind=dataset.kind,
        folder=str(folder),
        pictures=pictures,
        captions=captions,
        questions=len(dataset.questions),
        splits={split: len(images) for split, images in by_split.items()},
        words=len(words),
        frequent_words=frequent,
        lengths=dict(sorted(lengths.items())),
        bad_rows=len(bad.rows),
        missing=tuple(found.missing),
        unreadable=tuple(found.unreadable),
        notes=tuple(bad.notes),
        warnings=tuple(warnings),
        asked=asked,
    )


def _texts(dataset: Dataset, splits: list[str]) -> list[str]:
    """The captions of some splits."""
    return [text for r in dataset.captions if r.split in splits for text in r.captions]


def _shared(by_split: dict[str, set[str]], digests: dict[str, bytes]) -> Iterator[str]:
    """A warning if the same picture, by name or by content, is in two splits."""
    first: dict[str | bytes, tuple[str, str]] = {}
    again: list[tuple[str, str, str, str]] = []
    for split, images in by_split.items():
        for image in sorted(images):
            # Without decoding there are no digests, and a picture is its name.
            key = digests.get(image) or image
            other, other_split = first.setdefault(key, (image, split))
            if other_split != split:
                again.append((other, other_split, image, split))
    if again:
        one, one_split, two, two_split = again[0]
        yield (
            f"pictures in two splits: {len(again):,}, "
            f"first: {one} ({one_split}) and {two} ({two_split})"
        )


def _write(dataset: Dataset, folder: Path, quarantine: list[BadRow]) -> None:
    """Write everything into a hidden folder inside ``folder``, then move the files up."""
    made = not folder.exists()
    stage = folder / f".prepare-{os.getpid()}"
    try:
        stage.mkdir(parents=True, exist_ok=True)
        dataset.save(stage)
        root, home = dataset.root.resolve(), folder.resolve()
        if root.is_relative_to(home):
            # save() saw the hidden folder; pictures inside this one travel with it.
            about = read_json(stage / "dataset.json")
            about["root"] = root.relative_to(home).as_posix()
            write_json(stage / "dataset.json", about)
        if quarantine:
            write_jsonl(stage / QUARANTINE, (asdict(row) for row in quarantine))
        # dataset.json last: what it announces is there.
        for name in ("captions.jsonl", "questions.jsonl", QUARANTINE, "dataset.json"):
            if (stage / name).exists():
                os.replace(stage / name, folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
    except WriteError as error:
        # The user knows nothing of the hidden folder.
        raise WriteError(str(error).replace(str(stage), str(folder))) from error
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if made and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def survey(records: Sequence[QuestionRecord], missing: Collection[str] = ()) -> QuestionSurvey:
    """Look through the questions of a dataset.

    Args:
        records: the questions of all splits.
        missing: the pictures that are not on disk.
    """
    train = [record for record in records if record.split == "train"]
    words, lengths = word_counts(record.question for record in train)
    lengths += word_counts(record.question for record in records if record.split != "train")[1]
    answers = {modal_answer(record.answers) for record in train} - {""}
    tested = {
        normalise_answer(answer)
        for answer in {one for r in records if r.split == "test" for one in r.answers}
    } - {""}
    asked = Counter((r.image, " ".join(r.question.lower().split())) for r in records)
    splits: dict[str, set[str]] = {}
    for record in records:
        splits.setdefault(record.image, set()).add(record.split)
    missing = set(missing)
    return QuestionSurvey(
        questions={split: sum(r.split == split for r in records) for split in SPLITS},
        answer_types=_types(record.answer_type for record in records),
        question_types=_types(record.question_type for record in records),
        words=len(words),
        frequent_words=sum(count >= FREQUENT for count in words.values()),
        lengths=dict(sorted(lengths.items())),
        answers_a_question=dict(sorted(Counter(len(r.answers) for r in records).items())),
        answers=len(answers),
        never_in_test=len(answers - tested) if tested else None,
        ceiling=_ceiling(records, train, len(answers)),
        repeated=sum(count - 1 for count in asked.values()),
        without_answer={
            split: sum(r.split == split and not any(r.answers) for r in records) for split in SPLITS
        },
        without_picture=sum(record.image in missing for record in records),
        pictures_in_two_splits=sum(len(of) > 1 for of in splits.values()),
    )


def _ceiling(
    records: Sequence[QuestionRecord], train: Sequence[QuestionRecord], answers: int
) -> dict[str, dict[int, float]]:
    """The ceilings of the splits that have answers."""
    if not answers:
        return {}
    sizes = [*(size for size in SIZES if size < answers), answers]
    ceiling = {}
    for split in SPLITS:
        try:
            asked = [record for record in records if record.split == split]
            ceiling[split] = coverage(asked, sizes, train=train)
        except DataError:  # no answers in this split
            continue
    return ceiling


def length_line(lengths: dict[int, int]) -> str:
    """A histogram of lengths in words in a few bins, and the longest."""
    longest = max(lengths)
    bins = [*_LENGTH_BINS, (_LENGTH_BINS[-1][1] + 1, longest)]
    parts = []
    for low, high in bins:
        count = sum(n for length, n in lengths.items() if low <= length <= high)
        if count:
            parts.append(f"{low}-{high}: {count:,}")
    return f"{', '.join(parts)} words (longest {longest:,})"


def _types(types: Iterable[str | None]) -> dict[str, int]:
    """How often each type occurs, most frequent first."""
    return dict(Counter(one for one in types if one).most_common())


def _shares(types: dict[str, int]) -> str:
    """The most frequent types with their shares."""
    total = sum(types.values())
    parts = [f"{name} {100 * n / total:.1f} %" for name, n in list(types.items())[:_TYPES]]
    more = [f"{len(types) - _TYPES:,} more"] if len(types) > _TYPES else []
    return ", ".join([*parts, *more])


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{split} {count:,}" for split, count in counts.items())

"""Preparing a dataset: check its pictures, write the prepared folder, sum it up.

    reader -> Dataset -> prepare -> folder (dataset.json, captions.jsonl,
                                         questions.jsonl, quarantine.jsonl)

``quarantine.jsonl`` is there only if something was left out: one object a line with ``where``,
``reason`` and the start of the ``row``. The folder is written beside itself first and then moved
into place, so that a full disk leaves an earlier one as it was.

The summary tells before any training what can be hoped for: words and lengths, and of questions
how many answers there are and the ceiling that a vocabulary of the most frequent of them puts on
the accuracy of each split.
"""

import glob
import hashlib
import inspect
import json
import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import DataError, ImageError, UsageError, WriteError
from ..files import write_error, write_jsonl
from ..metrics.answers import normalise_answer
from ..pictures import open_image
from .answers import AnswerVocabulary, coverage, modal_answer
from .readers.rows import BadRow, BadRows
from .records import SPLITS, Dataset, QuestionRecord, open_part, part_of, picture_keys
from .text import unspaced_warning, word_counts

Check = Literal["exists", "decode", "none"]
RECORDS = ("captions.jsonl", "questions.jsonl")
QUARANTINE = "quarantine.jsonl"
MISSING = "picture is missing"
FREQUENT = 5  # a word that training keeps by default occurs so often
SIZES = (10, 100, 1000, 3000)  # of answer vocabularies
TYPES = 8  # that a line names
_LENGTH_BINS = ((0, 5), (6, 10), (11, 15), (16, 20), (21, 30), (31, 50))
# A small target makes large JPEGs decode at 1/8 of their size: all data is read all the same.
_SIDE = 32


@dataclass(frozen=True)
class QuestionSurvey:
    """What the questions of a dataset hold."""

    questions: dict[str, int]  # in each split
    answer_types: dict[str, int]  # as the source tells them, most frequent first
    question_types: dict[str, int]
    words: int  # different ones in the questions of train, as the tokenizer sees them
    frequent_words: int  # those of them that occur at least FREQUENT times
    lengths: dict[int, int]  # from a number of words to how many questions have it
    answers_a_question: dict[int, int]  # from a number of answers to questions
    answers: int  # different modal answers in train, after normalisation
    never_in_test: int | None  # those of them that nobody gives in test, if test has answers
    # Of each split with answers: from a number K of answers to the accuracy in [0, 1] that no
    # model with the K most frequent answers of train can exceed.
    ceiling: dict[str, dict[int, float]]
    repeated: int  # questions that another one about the same picture asks in the same words
    without_answer: dict[str, int]  # questions of each split whose answers hold no word
    without_picture: int
    pictures_in_two_splits: int  # by their names

    def lines(self) -> list[str]:
        """The survey as lines of plain text."""
        lines = [f"questions  {sum(self.questions.values()):,} ({_listed(self.questions)})"]
        for name, types in (("asked", self.question_types), ("types", self.answer_types)):
            if types:
                lines.append(f"{name:<10} {_shares(types)}")
        if self.words:
            lines.append(_word_line(self.words, self.frequent_words, "the questions of train"))
        lines.append(f"lengths    {_length_line(self.lengths)}")
        numbers = sorted(number for number in self.answers_a_question if number)
        if numbers:
            several = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"{numbers[0]}"
            line = f"answers    {several} a question"
            line += f"; {self.answers:,} different in train" if self.answers else ""
            lost = self.never_in_test
            lines.append(line + (f", {lost:,} of them never in test" if lost else ""))
        for split, ceiling in self.ceiling.items():
            sizes = ", ".join(f"{size:,}: {100 * best:.1f} %" for size, best in ceiling.items())
            lines.append(f"ceiling    of the most frequent answers, on {split}: {sizes}")
        if self.repeated:
            lines.append(f"repeated   {self.repeated:,} about the same picture in the same words")
        lacking = {split: n for split, n in self.without_answer.items() if n and split != "train"}
        return lines + ([f"unanswered {_listed(lacking)}"] if lacking else [])

    def warnings(self) -> Iterator[str]:
        """What the user should look into; pictures in two splits are for the caller to tell."""
        if self.lengths.get(0):
            yield f"questions without a word: {self.lengths[0]:,}"
        if self.without_answer.get("train"):
            yield f"questions of train without an answer: {self.without_answer['train']:,}"
        if self.without_picture:
            yield f"questions whose picture is missing: {self.without_picture:,}"
        if self.answers and self.never_in_test == self.answers:
            yield "no answer of train ever occurs in test; expected answers in common"


@dataclass(frozen=True)
class Summary:
    """What a prepared dataset holds and what was left out of it."""

    name: str
    kind: str  # the reader that made it
    folder: str  # where it was written
    pictures: int  # different ones
    captions: int
    questions: int
    splits: dict[str, int]  # pictures in each
    words: int  # different ones in the captions of train, as the tokenizer sees them
    frequent_words: int  # those of them that occur at least FREQUENT times
    lengths: dict[int, int]  # from a number of words to how many captions have it
    bad_rows: int  # rows of the source that were left out
    missing: tuple[str, ...]  # pictures that are not on disk
    unreadable: tuple[tuple[str, str], ...]  # pictures that cannot be decoded: name and reason
    notes: tuple[str, ...]  # what the reader left out rightly
    warnings: tuple[str, ...]  # what the user should look into
    asked: QuestionSurvey | None  # what the questions hold, if there are any
    machine_made: tuple[str, ...] = ()  # the models that told texts
    kept: bool = False  # whether missing pictures are in the dataset all the same

    def to_dict(self) -> dict[str, Any]:
        """The summary as a JSON object."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What the dataset holds, as lines of plain text."""
        lines = [
            f"{self.name} ({self.kind}) -> {self.folder}",
            f"pictures   {self.pictures:,} ({_listed(self.splits)})",
        ]
        if self.machine_made:
            lines.append(f"texts      machine-made, by {', '.join(self.machine_made)}")
        if self.captions:
            lines.append(f"captions   {self.captions:,}")
            lines.append(_word_line(self.words, self.frequent_words, "train"))
            lines.append(f"lengths    {_length_line(self.lengths)}")
        return lines + (self.asked.lines() if self.asked else [])

    def remarks(self) -> list[str]:
        """What was left out, what the reader decided, and what should be looked into."""
        left_out = {
            "bad rows": self.bad_rows,
            "missing pictures": len(self.missing),
            "unreadable pictures": len(self.unreadable),
        }
        left_out = {what: count for what, count in left_out.items() if count and not self.kept}
        lines = [f"left out: {_listed(left_out)}; see {Path(self.folder) / QUARANTINE}"]
        lines = lines if left_out else []
        if self.kept and self.missing:
            first = f"first: {self.missing[0]}"
            lines.append(f"warning: pictures missing on disk: {len(self.missing):,} ({first})")
        lines += [f"note: {note}" for note in self.notes]
        return lines + [f"warning: {warning}" for warning in self.warnings]


def prepare(
    dataset: Dataset,
    folder: str | os.PathLike[str],
    *,
    check_images: Check = "exists",
    without: Sequence[Dataset] = (),
    bad: BadRows | None = None,
    workers: int = 2,
) -> Summary:
    """Check a dataset, write its prepared folder and sum it up.

    Args:
        dataset: what a reader made.
        folder: where to write; made if need be, an earlier prepared dataset in it is replaced.
        check_images: "exists" looks for every picture on disk; "decode" opens every one as well
            and finds pictures of equal content; "none" trusts the dataset.
        without: datasets whose pictures are left out, as those of a test that must not be seen;
            ``picture_keys`` tells which are the same.
        bad: the ``BadRows`` given to the reader. With ``skip`` missing and unreadable pictures
            are left out, and all that was left out goes to ``quarantine.jsonl``.
        workers: threads that open pictures.

    Raises:
        DataError: missing or unreadable pictures without ``skip``; nothing left to write.
        UsageError: an unknown ``check_images``; a folder with record files of something else.
        WriteError: the file system refused; an earlier prepared folder is left as it was.
    """
    if check_images not in get_args(Check):
        raise UsageError(f"check_images {check_images!r}: expected {', '.join(get_args(Check))}")
    folder, bad = Path(folder), bad or BadRows()
    for other in without:
        own, others = picture_keys((dataset, other))
        theirs = set(others.values())
        same = {image for image, key in own.items() if key in theirs}
        where = other.folder or other.name
        bad.notes.append(f"pictures left out, since {where} has them: {len(same):,}")
        dataset = dataset.without(same)
    reasons, digests, total = _check(dataset, check_images, workers)
    missing, unreadable = _sorted_out(reasons)
    if missing and not dataset.root.is_dir():
        raise DataError(f"{dataset.root}: is not a folder; expected the folder of the pictures")
    if reasons and not bad.skip:
        parts = [f"{len(missing):,} missing (first: {missing[0]})"] if missing else []
        if unreadable:
            name, reason = unreadable[0]
            parts.append(f"{len(unreadable):,} unreadable (first: {name}: {reason})")
        some = "--skip-bad leaves them out"
        hint = some if len(missing) < total else "is it the folder of the pictures?"
        if missing and (there := glob.glob(f"{glob.escape(str(dataset.root / missing[0]))}.*")):
            hint = f"{Path(there[0]).name} is there; expected names with their suffix"
        raise DataError(f"{dataset.root}: of {total:,} pictures {' and '.join(parts)}; {hint}")
    quarantine = list(bad.rows)
    for record in dataset.records:
        if record.image in reasons:
            row = json.dumps(asdict(record), ensure_ascii=False)
            quarantine.append(BadRow(str(dataset.path(record)), reasons[record.image], row))
    dataset = dataset.without(reasons)
    if not dataset.captions and not dataset.questions:
        raise DataError(f"{dataset.name}: no picture is left; expected at least one")
    if folder.resolve() == dataset.root.resolve() and not (folder / "dataset.json").exists():
        raise UsageError(f"{folder}: is the folder of the pictures; expected another folder")
    # Without dataset.json such a file is somebody's own, perhaps the table that was read.
    earlier = (folder / "dataset.json").exists()
    for name, records in zip(RECORDS, (dataset.captions, dataset.questions), strict=True):
        if (folder / name).exists() and not (earlier and records):
            raise UsageError(f"{folder}: already contains {name}; expected another folder")
    summary = _summary(dataset, folder, bad, reasons, digests)
    _write(dataset, folder, quarantine)
    return summary


def read_and_prepare(
    reader: Callable[..., Dataset],
    *arguments: Any,
    out: Path,
    skip_bad: bool = False,
    without: Sequence[str] = (),
    check: Check = "exists",
    **options: Any,
) -> Summary:
    """Read a dataset and prepare it, as ``gazetell data`` does.

    Args:
        reader: one of ``READERS``.
        arguments: of the reader.
        out: the folder to write.
        skip_bad: leave bad rows and pictures out, see ``prepare``.
        without: prepared datasets, or FOLDER:SPLIT, whose pictures are left out.
        check: ``check_images`` of ``prepare``.
        options: of the reader.

    Raises:
        UsageError: ``out`` is read, too. Else as the reader and ``prepare``.
    """
    taken = inspect.signature(reader).parameters
    read = [*without, *(map(str, arguments) if "prepared" in taken else ())]
    own = [text for text in read if Path(part_of(text)[0]).resolve() == out.resolve()]
    replaced = {(out / name).resolve() for name in (*RECORDS, "dataset.json")}
    others = [x for x in (*arguments, *options.values()) if isinstance(x, Path)]
    if own := own + [str(x) for x in others if x.resolve() in replaced]:
        raise UsageError(f"--out {out}: {own[0]} is read here; expected another folder")
    bad, left = BadRows(skip=skip_bad, whole=True), [open_part(text) for text in without]
    if "pictures" in taken:
        options["pictures"] = out / "images"
    try:
        dataset = reader(*arguments, bad=bad, **options)
    except DataError:
        bad.refuse()  # perhaps no row is left
        raise
    bad.refuse()
    return prepare(dataset, out, check_images=check, without=left, bad=bad)


def summarise(dataset: Dataset) -> Summary:
    """Sum up a prepared dataset as it is, looking for its pictures on disk."""
    reasons, digests, _ = _check(dataset, "exists", 2)
    folder = dataset.folder or dataset.root
    return replace(_summary(dataset, folder, BadRows(), reasons, digests), kept=True)


def _check(
    dataset: Dataset, check: Check, workers: int
) -> tuple[dict[str, str], dict[str, bytes], int]:
    """Why pictures cannot be used, digests of those that were decoded, how many there are."""

    def examine(image: str) -> tuple[str, bytes]:
        path = dataset.root / image
        # Not Path.is_file(), which raises where a name is too long to be one.
        if not os.path.isfile(path):
            return MISSING, b""
        if check == "exists":
            return "", b""
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "blake2b").digest()
            open_image(path, side=_SIDE)
        except ImageError as error:
            return str(error).removeprefix(f"{path}: "), b""
        except OSError as error:
            return f"cannot be read: {error.strerror or error}", b""
        return "", digest

    images = list(dict.fromkeys(record.image for record in dataset.records))
    reasons: dict[str, str] = {}
    digests: dict[str, bytes] = {}
    if check != "none":
        with ThreadPoolExecutor(workers) as pool:  # decoding leaves Python's lock
            for image, (reason, digest) in zip(images, pool.map(examine, images), strict=True):
                if reason:
                    reasons[image] = reason
                elif digest:
                    digests[image] = digest
    return reasons, digests, len(images)


def _sorted_out(reasons: dict[str, str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Missing pictures, and unreadable ones with the reason."""
    missing = [name for name, reason in reasons.items() if reason == MISSING]
    return missing, [item for item in reasons.items() if item[1] != MISSING]


def _summary(
    dataset: Dataset,
    folder: Path,
    bad: BadRows,
    reasons: dict[str, str],
    digests: dict[str, bytes],
) -> Summary:
    """Count what the dataset holds."""
    by_split = {split: {r.image for r in dataset.records if r.split == split} for split in SPLITS}
    pictures = len(set.union(*by_split.values()))
    missing, unreadable = _sorted_out(reasons)
    asked = survey(dataset.questions, missing) if dataset.questions else None
    texts = [(r.split == "train", text) for r in dataset.captions for text in r.captions]
    train = [text for of_train, text in texts if of_train]
    words, lengths = word_counts(train)
    lengths += word_counts(text for of_train, text in texts if not of_train)[1]
    frequent = sum(count >= FREQUENT for count in words.values())
    bare = sum(record.split == "train" and not record.captions for record in dataset.captions)

    warnings = [f"split {split} has no pictures" for split in SPLITS if not by_split[split]]
    others = Counter(record.split for record in dataset.records if record.split not in SPLITS)
    if others:
        warnings.append(f"records of splits that nothing reads: {_listed(others)}")
    if pictures == 1:
        warnings.append("the dataset has one picture only; a model would only memorise it")
    warnings += _same_pictures(by_split, digests)
    if bare:
        warnings.append(f"pictures of train without a caption: {bare:,}")
    if lengths[0]:
        warnings.append(f"captions without a word: {lengths[0]:,}")
    if train and not frequent:
        warnings.append(
            f"no word occurs {FREQUENT} times in train; train with a lower minimum frequency"
        )
    unspaced = unspaced_warning([*train, *(record.question for record in dataset.questions)])
    warnings += [unspaced] if unspaced else []
    warnings += asked.warnings() if asked else []
    return Summary(
        name=dataset.name,
        kind=dataset.kind,
        folder=str(folder),
        pictures=pictures,
        captions=len(texts),
        questions=len(dataset.questions),
        splits={split: len(images) for split, images in by_split.items()},
        words=len(words),
        frequent_words=frequent,
        lengths=dict(sorted(lengths.items())),
        bad_rows=len(bad.rows),
        missing=tuple(missing),
        unreadable=tuple(unreadable),
        notes=tuple(bad.notes),
        warnings=tuple(warnings),
        asked=asked,
        machine_made=dataset.machine_made,
    )


def _same_pictures(by_split: dict[str, set[str]], digests: dict[str, bytes]) -> Iterator[str]:
    """Warnings if the same picture, by name or by content, is there twice."""
    first: dict[str | bytes, tuple[str, str]] = {}
    again: dict[bool, list[str]] = {True: [], False: []}  # whether in two splits
    for split, images in by_split.items():
        for image in sorted(images):
            # Without decoding there are no digests, and a picture is its name in one spelling.
            key = digests.get(image) or unicodedata.normalize("NFC", image)
            other, other_split = first.setdefault(key, (image, split))
            if (other, other_split) != (image, split):
                pair = f"{other} ({other_split}) and {image} ({split})"
                again[other_split != split].append(pair)
    for what, pairs in (("in two splits", again[True]), ("twice in a split", again[False])):
        if pairs:
            yield f"pictures {what}: {len(pairs):,}, first: {pairs[0]}"


def survey(records: Sequence[QuestionRecord], missing: Collection[str] = ()) -> QuestionSurvey:
    """Look through the questions of a dataset.

    Args:
        records: the questions of all splits.
        missing: the pictures that are not on disk.
    """
    by_split = {split: [r for r in records if r.split == split] for split in SPLITS}
    train, missing = by_split["train"], set(missing)
    words, lengths = word_counts(record.question for record in train)
    lengths += word_counts(record.question for record in records if record.split != "train")[1]
    modal = {split: [modal_answer(r.answers) for r in found] for split, found in by_split.items()}
    answers = set(modal["train"]) - {""}
    tested = {normalise_answer(a) for a in {a for r in by_split["test"] for a in r.answers}} - {""}
    asked = Counter((r.image, " ".join(r.question.lower().split())) for r in records)
    splits_of = Counter(image for image, _ in {(r.image, r.split) for r in records})
    ranks = AnswerVocabulary.train(train, 2**31) if answers else None
    return QuestionSurvey(
        questions={split: len(found) for split, found in by_split.items()},
        answer_types=_types(record.answer_type for record in records),
        question_types=_types(record.question_type for record in records),
        words=len(words),
        frequent_words=sum(count >= FREQUENT for count in words.values()),
        lengths=dict(sorted(lengths.items())),
        answers_a_question=dict(sorted(Counter(len(r.answers) for r in records).items())),
        answers=len(answers),
        never_in_test=len(answers - tested) if tested else None,
        ceiling={
            split: coverage(
                found, [*(size for size in SIZES if size < len(answers)), len(answers)], train=ranks
            )
            for split, found in by_split.items()
            if ranks and any(modal[split])
        },
        repeated=sum(count - 1 for count in asked.values()),
        without_answer={split: found.count("") for split, found in modal.items()},
        without_picture=sum(record.image in missing for record in records),
        pictures_in_two_splits=sum(count > 1 for count in splits_of.values()),
    )


def _word_line(words: int, frequent: int, where: str) -> str:
    return f"words      {words:,} in {where}, {frequent:,} of them at least {FREQUENT} times"


def _length_line(lengths: dict[int, int]) -> str:
    """A histogram of lengths in words in a few bins, and the longest."""
    longest = max(lengths)
    parts = []
    for low, high in (*_LENGTH_BINS, (_LENGTH_BINS[-1][1] + 1, longest)):
        count = sum(n for length, n in lengths.items() if low <= length <= high)
        if count:
            parts.append(f"{low}-{high}: {count:,}")
    return f"{', '.join(parts)} words (longest {longest:,})"


def _types(types: Iterable[str | None]) -> dict[str, int]:
    """How often each type occurs, most frequent first."""
    return dict(Counter(filter(None, types)).most_common())


def _shares(types: dict[str, int]) -> str:
    """The most frequent types with their shares."""
    total = sum(types.values())
    parts = [f"{name} {100 * n / total:.1f} %" for name, n in list(types.items())[:TYPES]]
    return ", ".join(parts + ([f"{len(types) - TYPES:,} more"] if len(types) > TYPES else []))


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _write(dataset: Dataset, folder: Path, quarantine: list[BadRow]) -> None:
    """Write everything into a hidden folder inside ``folder``, then move the files up."""
    made = not folder.exists()
    stage = folder / f".prepare-{os.getpid()}"
    try:
        stage.mkdir(parents=True, exist_ok=True)
        dataset.save(stage, home=folder)
        if quarantine:
            write_jsonl(stage / QUARANTINE, map(asdict, quarantine))
        # dataset.json last: what it announces is there.
        for name in (*RECORDS, QUARANTINE, "dataset.json"):
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

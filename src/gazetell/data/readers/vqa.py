"""VQA v1 and v2: questions about pictures of COCO, with ten human answers.

Antol et al., arXiv 1505.00468; Goyal et al., arXiv 1612.00837. The official files, plain or
packed (``.gz``, ``.xz``), in a folder or right below it::

    [v2_]OpenEnded_mscoco_train2014_questions.json     train2014, val2014, test-dev2015, test2015
    MultipleChoice_mscoco_train2014_questions.json     the same questions with choices
    [v2_]mscoco_train2014_annotations.json             train2014 and val2014 alone

    {"data_subtype": "train2014", "questions": [{"question_id", "image_id", "question"}]}
    {"annotations": [{"question_id", "image_id", "question_type", "answer_type", "answers":
        [{"answer", "answer_confidence", "answer_id"}], "multiple_choice_answer"}]}

All answers are kept in their order; the official accuracy compares each with the others. It does
not look at the confidence of an answer, and the record does not hold it. The official tests have
no annotations, so that ``val_from_train`` makes a test of the official val.

The VQA tutorials in Keras (2015 to 2018) train on text files that their scripts write from these,
one line a question, with its most frequent answer::

    2015  questions_train2014.txt  questions_id_train2014.txt  images_train2014.txt (for val
          images_val2014_all.txt)  answers_train2014_modal.txt; also val2014, test-dev2015, test2015
    2018  ques_train.txt  ques_train_id.txt  images_coco_id.txt (for val val_images_coco_id.txt)
          answer_train.txt; also val

A picture stands in them by its number in COCO, or by its name where it has none.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import DataError, UsageError
from ...files import read_json, read_text, write_text
from ..records import SPLITS, Dataset, QuestionRecord
from .coco import SUBSET
from .rows import BadRows, BadValue, Collector, answer_texts, below, entries, json_list, unpacked

__all__ = ["vqa", "vqa_text", "write_vqa_text"]

_QUESTIONS = re.compile(
    r"(v2_)?(OpenEnded|MultipleChoice)_mscoco_(train|val|test-dev|test)(\d{4})?_questions\.json"
)
_TEXT_QUESTIONS = re.compile(
    r"questions_((train|val|test-dev|test)\d*)\.txt|ques_(train|val|test)\.txt"
)
_PICTURE = re.compile(r"(?:.*[_/])?(\d{12})\.(?:jpg|jpeg|png)", re.IGNORECASE)
_SUBSETS = {"train": "train2014", "val": "val2014", "test": "test2015"}


class _Files(NamedTuple):
    """The two files of a split; no annotations where nobody may know the answers."""

    questions: Path
    annotations: Path | None


def vqa(
    folder: Path,
    *,
    images: Path | None = None,
    train: Path | None = None,
    train_annotations: Path | None = None,
    val: Path | None = None,
    val_annotations: Path | None = None,
    test: Path | None = None,
    test_annotations: Path | None = None,
    val_from_train: float = 0.0,
    seed: int = 0,
    bad: BadRows | None = None,
) -> Dataset:
    """VQA v1 and v2: the official questions and annotations, .json or .json.gz.

    Of several files of a split v2 goes before v1, open questions before multiple choice, and all
    of test before test-dev, which is a part of it.

    Args:
        folder: Where the files lie, at most one folder down.
        images: The folder of pictures or of train2014, val2014, ...; FOLDER if not given.
        train: The training questions; with any of TRAIN, VAL, TEST nothing is searched for.
        train_annotations: Their annotations.
        val: The validation questions.
        val_annotations: Their annotations.
        test: The test questions.
        test_annotations: Their annotations; the official tests have none.
        val_from_train: Share of the pictures of train (or their number, from 1) that becomes val;
            the official val is test then.
        seed: Of the draw.
        bad: What to do with bad rows; by default the first is an error.

    Raises:
        DataError: a file is missing or of another form, or a bad row: no question or picture, an
            id that occurs twice, a question without its annotation or the reverse.
        UsageError: questions without annotations or the reverse, or a draw out of range.
    """
    folder, bad = Path(folder), bad or BadRows()
    files = _named(
        {
            "train": (train, train_annotations),
            "val": (val, val_annotations),
            "test": (test, test_annotations),
        }
    ) or _found(folder, bad)
    collector = Collector(folder if images is None else images, bad)
    numbers = _Numbers(collector.root)
    for split, pair in _val_for_test(files, val_from_train, bad).items():
        _read(split, pair, numbers, collector)
    if val_from_train:
        collector.draw(val=val_from_train, seed=seed)
    second = any(pair.questions.name.startswith("v2_") for pair in files.values())
    source = ", ".join(str(pair.questions) for pair in files.values())
    return collector.dataset("vqa2" if second else "vqa", "vqa", source)


def _named(given: Mapping[str, tuple[Path | None, Path | None]]) -> dict[str, _Files]:
    """The files that the user named, in pairs."""
    files = {}
    for split, (questions, annotations) in given.items():
        if questions is None and annotations is not None:
            raise UsageError(f"--{split}-annotations: expected --{split} with it")
        if questions is not None:
            if annotations is None and split != "test":
                raise UsageError(f"--{split}: expected --{split}-annotations with it")
            files[split] = _Files(Path(questions), annotations and Path(annotations))
    return files


def _found(folder: Path, bad: BadRows) -> dict[str, _Files]:
    """The official files of each split in a folder."""
    paths = {unpacked(path.name): path for path in reversed(below(folder)) if path.is_file()}
    ranked: dict[str, list[tuple[tuple[bool, ...], str]]] = {}
    for name in paths:
        if match := _QUESTIONS.fullmatch(name):
            version, task, split, _ = match.groups()
            rank = (version is None, task != "OpenEnded", split == "test-dev")
            ranked.setdefault(split.partition("-")[0], []).append((rank, name))
    if not ranked:
        raise DataError(
            f"{folder}: no file OpenEnded_mscoco_*_questions.json of VQA v1 or v2; files of other "
            "names are given by name"
        )
    files = {}
    for split in (split for split in SPLITS if split in ranked):
        chosen, *others = (name for _, name in sorted(ranked[split]))
        name = re.sub("(OpenEnded|MultipleChoice)_", "", chosen).replace("question", "annotation")
        if name not in paths and split != "test":
            raise DataError(f"{paths[chosen]}: the annotations are missing; expected {name}")
        files[split] = _Files(paths[chosen], paths.get(name))
        bad.notes += [f"{paths[other].name}: not read, since {chosen} is there" for other in others]
    return files


def _val_for_test(files: dict[str, Any], val_from_train: float, bad: BadRows) -> dict[str, Any]:
    """The files by split, where val is drawn from train: the official val is test then."""
    if not val_from_train or "val" not in files:
        return files
    left_out = "; the official test is left out" if "test" in files else ""
    bad.notes.append(f"test is the official val; val is drawn from the pictures of train{left_out}")
    return {"train": files["train"], "test": files["val"]} if "train" in files else files


class _Numbers:
    """Finds pictures by their number: COCO_val2014_000000000042.jpg, 000000000042.jpg, ...

    They may lie in the folder itself or in folders right below it (train2014, val2014, ...).
    """

    def __init__(self, root: Path) -> None:
        """Look through a folder; raises ``DataError`` if there is none."""
        self._folders: dict[str, dict[int, str]] = {"": {}}
        for folder in (*(path for path in entries(root) if path.is_dir()), root):
            prefix = "" if folder == root else f"{folder.name}/"
            matches = (_PICTURE.fullmatch(path.name) for path in entries(folder))
            self._folders[prefix] = {int(one[1]): prefix + one[0] for one in matches if one}

    def name(self, number: int, subset: str) -> str:
        """The picture relative to the folder, or what it would be called if it is not there.

        Args:
            number: COCO's image id.
            subset: train2014, val2014, test2015, ...: where it is looked for first.
        """
        for folder in (f"{subset}/", "", *self._folders):
            if number in self._folders.get(folder, {}):
                return self._folders[folder][number]
        prefix = f"{subset}/" if f"{subset}/" in self._folders else ""
        return f"{prefix}COCO_{subset}_{number:012d}.jpg"


def _number(value: Any) -> Any:
    """A whole number also where it is written as text."""
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value


def _id(row: Any) -> str:
    """The id of a question as text, empty if the row has none."""
    value = row.get("question_id") if isinstance(row, dict) else None
    return str(value).strip() if isinstance(value, int | str) and type(value) is not bool else ""


def _read(split: str, files: _Files, numbers: _Numbers, collector: Collector) -> None:
    """Add the questions of a split."""
    path, bad = files.questions, collector.bad
    about = read_json(path)
    rows = json_list(about, "questions", path)
    given = None if files.annotations is None else _annotations(files.annotations, bad)
    if given is None:
        bad.notes.append(f"{path.name}: questions without annotations, so without answers")
    told = (about.get("data_subtype"), path.name)
    matches = (SUBSET.search(one.replace("test-dev", "test")) for one in told if one)
    subset = next((match[0] for match in matches if match), "")
    asked = set()
    for number, row in enumerate(rows):
        where, id = f"{path}: questions[{number}]", _id(row)
        if not id:
            bad.add(where, "expected an object with question_id, image_id and question", row)
            continue
        asked.add(id)
        image, annotation = _number(row.get("image_id")), (given or {}).get(id, _Annotation())
        if type(image) is not int:
            bad.add(where, f"image_id is {image!r}; expected a number", row)
        elif given is not None and id not in given:
            bad.add(where, f"question {id} has no annotation in {files.annotations}", row)
        elif annotation.image not in (None, image):
            bad.add(
                where, f"is about image_id {image}, its annotation about {annotation.image}", row
            )
        elif annotation.answers is not None:
            if "multiple_choices" in row:
                bad.count(f"{path.name}: multiple choices not kept, the questions taken as open")
            name, question = numbers.name(image, subset), row.get("question")
            record = QuestionRecord(
                id, name, question, annotation.answers, split, *annotation.types
            )
            collector.add(where, record, row)
    for id, annotation in (given or {}).items():
        if id not in asked:
            bad.add(annotation.where, f"question_id {id} is that of no question in {path}")


class _Annotation(NamedTuple):
    """What the annotations tell of a question; no ``answers`` (None) if that was a bad row."""

    where: str = ""
    image: Any = None
    answers: tuple[str, ...] | None = ()
    types: tuple[str | None, str | None] = (None, None)


def _annotations(path: Path, bad: BadRows) -> dict[str, _Annotation]:
    """The annotations of a file by question id."""
    found: dict[str, _Annotation] = {}
    for number, row in enumerate(json_list(read_json(path), "annotations", path)):
        where, id = f"{path}: annotations[{number}]", _id(row)
        if not id:
            bad.add(where, "expected an object with question_id and answers", row)
            continue
        if id in found:
            bad.add(where, f"question_id {id} occurs twice", row)
            continue
        given = row.get("answers")
        if given is None and row.get("multiple_choice_answer") is not None:
            given = row["multiple_choice_answer"]
            bad.count(f"{path.name}: annotations with multiple_choice_answer alone, taken", where)
        values = given if isinstance(given, list) else [given]
        answers = None
        try:
            answers = answer_texts(
                [value.get("answer") if isinstance(value, dict) else value for value in values]
            )
        except BadValue as error:
            bad.add(where, str(error), row)
        types = [row.get(key) for key in ("question_type", "answer_type")]
        first, second = (one if isinstance(one, str) and one.strip() else None for one in types)
        found[id] = _Annotation(where, _number(row.get("image_id")), answers, (first, second))
    return found


class _Lines(NamedTuple):
    """The text files of a split, without answers where nobody may know them."""

    subset: str
    questions: Path
    ids: Path
    images: Path
    answers: Path


def vqa_text(
    folder: Path,
    *,
    images: Path,
    val_from_train: float = 0.0,
    seed: int = 0,
    bad: BadRows | None = None,
) -> Dataset:
    """The text files of the VQA tutorials in Keras: questions_train2014.txt or ques_train.txt, ...

    Each question has one answer, or none where there is no file of answers for test.

    Args:
        folder: Where the files lie.
        images: The folder of pictures or of train2014, val2014, ...
        val_from_train: Share of the pictures of train (or their number, from 1) that becomes val;
            the official val is test then.
        seed: Of the draw.
        bad: What to do with bad rows; by default the first is an error.

    Raises:
        DataError: a file is missing or shorter than another, or a bad row (``file:line``).
        UsageError: ``val_from_train`` out of range.
    """
    folder, bad = Path(folder), bad or BadRows()
    files: dict[str, _Lines] = {}
    # test2015 before test-dev2015, which is a part of it
    for path in sorted(entries(folder), key=lambda path: ("-dev" in path.name, path.name)):
        if match := _TEXT_QUESTIONS.fullmatch(path.name):
            split = (match[2] or match[3]).partition("-")[0]
            if split in files:
                bad.notes.append(
                    f"{path.name}: not read, since {files[split].questions.name} is there"
                )
                continue
            files[split] = _lines_of(folder, path, match[1], split)
    if not files:
        raise DataError(f"{folder}: no file questions_train2014.txt, ques_train.txt, ...")
    collector = Collector(images, bad)
    numbers = _Numbers(collector.root)
    files = {split: files[split] for split in SPLITS if split in files}
    for split, lines in _val_for_test(files, val_from_train, bad).items():
        _read_lines(split, lines, numbers, collector)
    if val_from_train:
        collector.draw(val=val_from_train, seed=seed)
    return collector.dataset(folder.resolve().name, "vqa-text", folder)


def _lines_of(folder: Path, questions: Path, subset: str | None, split: str) -> _Lines:
    """The files that belong to a file of questions."""
    if subset is None:  # 2018
        images = f"{'' if split == 'train' else f'{split}_'}images_coco_id.txt"
        ids, answers, subset = f"ques_{split}_id.txt", f"answer_{split}.txt", _SUBSETS[split]
    else:
        ids, answers = f"questions_id_{subset}.txt", f"answers_{subset}_modal.txt"
        images = f"images_{subset}_all.txt"
        if not (folder / images).is_file():
            images = f"images_{subset}.txt"
    return _Lines(
        subset.replace("-dev", ""), questions, folder / ids, folder / images, folder / answers
    )


def _read_lines(split: str, files: _Lines, numbers: _Numbers, collector: Collector) -> None:
    """Add the questions of a split of text files."""
    path = files.questions
    questions = _lines(path)
    ids, images = (_lines(path, len(questions)) for path in (files.ids, files.images))
    answers: list[str | None] = [None] * len(questions)
    if files.answers.is_file() or split != "test":
        answers = [*_lines(files.answers, len(questions))]
    else:
        collector.bad.notes.append(f"{path.name}: questions without answers")
    for number, question in enumerate(questions):
        where, image, answer = f"{path}:{number + 1}", images[number], answers[number]
        if not ids[number] or not image:
            collector.bad.add(where, "has no id or no picture", question)
            continue
        if image.isdecimal():
            image = numbers.name(int(image), files.subset)
        given = () if answer is None else (answer,)
        collector.add(where, QuestionRecord(ids[number], image, question, given, split), question)


def _lines(path: Path, expected: int | None = None) -> list[str]:
    """The lines of a file, as many as there are questions."""
    lines = [line.strip() for line in read_text(path).split("\n")]
    if not lines[-1]:
        lines.pop()
    if expected is not None and len(lines) != expected:
        raise DataError(f"{path}: has {len(lines):,} lines; expected {expected:,}, one a question")
    return lines


def write_vqa_text(dataset: Dataset, folder: str | os.PathLike[str]) -> dict[str, int]:
    """Write the questions of a prepared dataset as the text files of 2015.

    White space within a question, an answer or an id becomes one blank, so that a question is a
    line. Questions without an answer are left out of a split where others have one.

    Returns:
        The number of questions written for each split that has some.

    Raises:
        DataError: the dataset has no questions.
        WriteError: the file system refused; what was written before stays.
    """
    if not dataset.questions:
        raise DataError(f"{dataset.folder or dataset.name}: has no questions")
    written = {}
    for split, subset in _SUBSETS.items():
        records = [record for record in dataset.questions if record.split == split]
        answered = [record for record in records if any(record.answers)]
        records = answered or records
        if not records:
            continue
        pictures = (_PICTURE.fullmatch(record.image) for record in records)
        images = [
            str(int(match[1])) if match and "COCO_" in match[0] else record.image
            for match, record in zip(pictures, records, strict=True)
        ]
        values = {
            f"questions_{subset}.txt": [record.question for record in records],
            f"questions_id_{subset}.txt": [record.id for record in records],
            f"images_{subset}{'_all' if split == 'val' else ''}.txt": images,
        }
        if answered:
            # The first of those that are equally frequent.
            values[f"answers_{subset}_modal.txt"] = [
                Counter(answer for answer in record.answers if answer).most_common(1)[0][0]
                for record in records
            ]
        for name, texts in values.items():
            lines = "\n".join(" ".join(text.split()) for text in texts)
            write_text(Path(folder) / name, lines + "\n")
        written[split] = len(records)
    return written

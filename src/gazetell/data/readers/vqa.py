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

import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import DataError, UsageError
from ...files import read_json, read_text, write_text
from ..records import SPLITS, Dataset, QuestionRecord
from .captions import SUBSET
from .rows import BadRows, BadValue, Collector, answer_texts, below, entries, json_rows, unpacked

_QUESTIONS = re.compile(
    r"(v2_)?(OpenEnded|MultipleChoice)_mscoco_(train|val|test-dev|test)(?:\d{4})?_questions\.json"
)
_TEXT_QUESTIONS = re.compile(
    r"questions_((train|val|test-dev|test)\d*)\.txt|ques_(train|val|test)\.txt"
)
_PICTURE = re.compile(r"(?:.*[_/])?(\d{12})\.(?:jpg|jpeg|png)", re.IGNORECASE)
_SUBSETS = {"train": "train2014", "val": "val2014", "test": "test2015"}


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
        seed: Random seed of the draw.
        bad: What to do with bad rows.
    """
    collector = Collector(images or folder, bad)
    pairs = (train, train_annotations), (val, val_annotations), (test, test_annotations)
    files: dict[str, tuple[Path, Path | None]] = {}
    for split, (questions, annotations) in zip(SPLITS, pairs, strict=True):
        if questions is None and annotations is not None:
            raise UsageError(f"--{split}-annotations: expected --{split} with it")
        if questions is not None and annotations is None and split != "test":
            raise UsageError(f"--{split}: expected --{split}-annotations with it")
        if questions is not None:
            files[split] = questions, annotations
    files = files or _found(folder, collector.bad)
    numbers = _Numbers(collector.root)
    for split, origin in _splits(files, val_from_train, collector.bad).items():
        _read(split, *files[origin], numbers, collector)
    if val_from_train:
        collector.draw(val=val_from_train, seed=seed)
    names = [path for path, _ in files.values()]
    kind = "vqa2" if any(path.name.startswith("v2_") for path in names) else "vqa"
    return collector.dataset(kind, "vqa", ", ".join(map(str, names)))


def _found(folder: Path, bad: BadRows) -> dict[str, tuple[Path, Path | None]]:
    """The official files of each split in a folder: questions, and annotations if there are."""
    paths = {unpacked(path.name): path for path in reversed(below(folder)) if path.is_file()}
    matches = [match for match in map(_QUESTIONS.fullmatch, paths) if match]
    files: dict[str, tuple[Path, Path | None]] = {}
    # v2 before v1, open questions before multiple choice, test before test-dev
    for match in sorted(matches, key=lambda m: (not m[1], m[2] != "OpenEnded", "-dev" in m[3])):
        split, path = match[3].partition("-")[0], paths[match[0]]
        if split in files:
            bad.notes.append(f"{path.name}: not read, since {files[split][0].name} is there")
            continue
        name = match[0].replace(f"{match[2]}_", "").replace("question", "annotation")
        if name not in paths and split != "test":
            raise DataError(f"{path}: the annotations are missing; expected {name}")
        files[split] = path, paths.get(name)
    if not files:
        raise DataError(
            f"{folder}: no file OpenEnded_mscoco_*_questions.json of VQA v1 or v2; files of other "
            "names can be named"
        )
    return {split: files[split] for split in SPLITS if split in files}


def _splits(files: dict[str, Any], val_from_train: float, bad: BadRows) -> dict[str, str]:
    """The splits to read and whose files each has: val for test where val comes from train."""
    if not val_from_train or "val" not in files or "train" not in files:
        return {split: split for split in SPLITS if split in files}
    left_out = "; the official test is left out" if "test" in files else ""
    bad.notes.append(f"test is the official val; val is drawn from the pictures of train{left_out}")
    return {"train": "train", "test": "val"}


class _Numbers:
    """Finds pictures by their number: COCO_val2014_000000000042.jpg, 000000000042.jpg, ...

    They may lie in the folder itself or in folders right below it (train2014, val2014, ...).
    """

    def __init__(self, root: Path) -> None:
        self._folders: dict[str, dict[int, str]] = {}
        for folder in (*(path for path in entries(root) if path.is_dir()), root):
            prefix = "" if folder == root else f"{folder.name}/"
            matches = (_PICTURE.fullmatch(path.name) for path in entries(folder))
            self._folders[prefix] = {int(one[1]): prefix + one[0] for one in matches if one}

    def name(self, number: int, subset: str) -> str:
        """The picture relative to the folder, or what it would be called if it is not there.

        ``subset`` (train2014, val2014, test2015, ...) is where it is looked for first.
        """
        for folder in (f"{subset}/", "", *self._folders):
            if number in self._folders.get(folder, {}):
                return self._folders[folder][number]
        prefix = f"{subset}/" if f"{subset}/" in self._folders else ""
        return f"{prefix}COCO_{subset}_{number:012d}.jpg"


def _number(value: Any) -> Any:
    """A whole number also where it is written as text."""
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value


def _id(row: dict[str, Any]) -> str:
    """The id of a question as text."""
    value = row.get("question_id")
    text = str(value).strip() if isinstance(value, int | str) and type(value) is not bool else ""
    if not text:
        raise BadValue("expected an object with question_id")
    return text


class _Annotation(NamedTuple):
    """What the annotations tell of a question; no ``answers`` (None) if that was a bad row."""

    where: str = ""
    image: Any = None
    answers: tuple[str, ...] | None = ()
    question_type: str | None = None
    answer_type: str | None = None


def _read(
    split: str, path: Path, answered: Path | None, numbers: _Numbers, collector: Collector
) -> None:
    about, bad = read_json(path), collector.bad
    given = _annotations(answered, bad) if answered is not None else {}
    if answered is None:
        bad.notes.append(f"{path.name}: questions without annotations, so without answers")
    asked, subset = set(), ""
    for where, row in json_rows(about, "questions", path, bad):
        with bad.catch(where, row):
            id, image = _id(row), _number(row.get("image_id"))
            asked.add(id)
            annotation = given.get(id, _Annotation())
            if type(image) is not int:
                raise BadValue(f"image_id is {image!r}; expected a number")
            if answered is not None and id not in given:
                raise BadValue(f"question {id} has no annotation in {answered}")
            if annotation.image not in (None, image):
                other = annotation.image
                raise BadValue(f"is about image_id {image}, its annotation about {other}")
            if annotation.answers is None:
                continue
            if "multiple_choices" in row:
                bad.count(f"{path.name}: multiple choices not kept, the questions taken as open")
            subset = subset or _subset(about.get("data_subtype"), path.name)
            name, question = numbers.name(image, subset), row.get("question")
            types = annotation.question_type, annotation.answer_type
            record = QuestionRecord(id, name, question, annotation.answers, split, *types)
            collector.add(where, record)
    for id, annotation in given.items():
        if id not in asked:
            bad.add(annotation.where, f"question_id {id} is that of no question in {path}")


def _subset(*told: Any) -> str:
    """The folder of the pictures of a file: train2014, val2014 or test2015 (also for test-dev)."""
    texts = (text.replace("test-dev", "test") for text in told if isinstance(text, str))
    return next((match[0] for match in map(SUBSET.search, texts) if match), "")


def _annotations(path: Path, bad: BadRows) -> dict[str, _Annotation]:
    """The annotations of a file by question id."""
    found: dict[str, _Annotation] = {}
    for where, row in json_rows(read_json(path), "annotations", path, bad):
        with bad.catch(where, row):
            id = _id(row)
            if id in found:
                raise BadValue(f"question_id {id} occurs twice")
            types = [row.get(key) for key in ("question_type", "answer_type")]
            kept = [one if isinstance(one, str) and one.strip() else None for one in types]
            found[id] = _Annotation(where, _number(row.get("image_id")), None, *kept)
            given = row.get("answers")
            if given is None and row.get("multiple_choice_answer") is not None:
                given = row["multiple_choice_answer"]
                bad.count(
                    f"{path.name}: annotations with multiple_choice_answer alone, taken", where
                )
            values = given if isinstance(given, list) else [given]
            texts = [value.get("answer") if isinstance(value, dict) else value for value in values]
            found[id] = found[id]._replace(answers=answer_texts(texts))
    return found


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
        seed: Random seed of the draw.
        bad: What to do with bad rows.
    """
    collector = Collector(images, bad)
    files: dict[str, tuple[Path, str]] = {}
    # test2015 before test-dev2015, which is a part of it
    for path in sorted(entries(folder), key=lambda path: ("-dev" in path.name, path.name)):
        if match := _TEXT_QUESTIONS.fullmatch(path.name):
            split = (match[2] or match[3]).partition("-")[0]
            if split in files:
                told = f"{path.name}: not read, since {files[split][0].name} is there"
                collector.bad.notes.append(told)
            else:
                files[split] = path, match[1] or ""
    if not files:
        raise DataError(
            f"{folder}: expected files such as questions_train2014.txt or ques_train.txt"
        )
    numbers = _Numbers(collector.root)
    for split, origin in _splits(files, val_from_train, collector.bad).items():
        _read_text(split, origin, *files[origin], numbers, collector)
    if val_from_train:
        collector.draw(val=val_from_train, seed=seed)
    return collector.dataset(folder.resolve().name, "vqa-text", folder)


def _read_text(
    split: str, origin: str, path: Path, subset: str, numbers: _Numbers, collector: Collector
) -> None:
    """Add the questions of a split; without ``subset`` they are of the tutorial of 2018."""
    if subset:
        ids, answers = f"questions_id_{subset}.txt", f"answers_{subset}_modal.txt"
        images = f"images_{subset}_all.txt"
        if not path.with_name(images).is_file():
            images = f"images_{subset}.txt"
    else:
        ids, answers, subset = f"ques_{origin}_id.txt", f"answer_{origin}.txt", _SUBSETS[origin]
        images = "images_coco_id.txt" if origin == "train" else f"{origin}_images_coco_id.txt"
    questions, columns = _lines(path), []
    names = [ids, images]
    if path.with_name(answers).is_file() or origin != "test":
        names.append(answers)
    else:
        collector.bad.notes.append(f"{path.name}: questions without answers")
    for name in names:
        columns.append(_lines(path.with_name(name)))
        if len(columns[-1]) != len(questions):
            found = f"has {len(columns[-1]):,} lines; expected {len(questions):,}, one per question"
            raise DataError(f"{path.with_name(name)}: {found}")
    rows = zip(questions, *columns, strict=True)
    for number, (question, id, image, *answer) in enumerate(rows, start=1):
        where = f"{path}:{number}"
        with collector.bad.catch(where, question):
            if not id or not image:
                raise BadValue("has no id or no picture")
            if image.isdecimal():
                image = numbers.name(int(image), subset.replace("-dev", ""))
            collector.add(where, QuestionRecord(id, image, question, tuple(answer), split))


def _lines(path: Path) -> list[str]:
    """The lines of a file without outer white space."""
    lines = [line.strip() for line in read_text(path).split("\n")]
    return lines if lines[-1] else lines[:-1]


def write_vqa_text(dataset: Dataset, folder: Path) -> dict[str, int]:
    """Write the questions of a prepared dataset as the text files of 2015.

    White space within a question, an answer or an id becomes one blank, so that a question is a
    line. Questions without an answer are left out of a split where others have one. The result is
    the number of questions written for each split that has some. ``DataError``: the dataset has no
    questions, or a file of another one is in the way.
    """
    if not dataset.questions:
        raise DataError(f"{dataset.folder or dataset.name}: has no questions")
    written, files = {}, {}
    for split, subset in _SUBSETS.items():
        records = [record for record in dataset.questions if record.split == split]
        answered = [record for record in records if any(record.answers)]
        records = answered or records
        if not records:
            continue
        pictures = (_PICTURE.fullmatch(record.image) for record in records)
        files[f"questions_{subset}.txt"] = [record.question for record in records]
        files[f"questions_id_{subset}.txt"] = [record.id for record in records]
        files[f"images_{subset}{'_all' if split == 'val' else ''}.txt"] = [
            str(int(match[1])) if match and "COCO_" in match[0] else record.image
            for match, record in zip(pictures, records, strict=True)
        ]
        if answered:
            # The first of those that are equally frequent.
            files[f"answers_{subset}_modal.txt"] = [
                Counter(answer for answer in record.answers if answer).most_common(1)[0][0]
                for record in records
            ]
        written[split] = len(records)
    for subset in _SUBSETS.values():
        for name in (f"questions_{subset}.txt", f"answers_{subset}_modal.txt"):
            if name not in files and (folder / name).exists():
                raise DataError(f"{folder / name}: is of another dataset; expected a new folder")
    for name, texts in files.items():
        lines = "\n".join(" ".join(text.split()) for text in texts)
        write_text(folder / name, lines + "\n")
    return written


READERS = {"vqa": vqa, "vqa-text": vqa_text}

"""Two small datasets of questions: DAQUAR and easy-VQA.

DAQUAR (Malinowski and Fritz 2014, arXiv 1410.0210) asks about pictures of rooms::

    all_qa_pairs.txt         a line of question and a line of answer in turn
    train_images_list.txt    the official pictures of train, one name (image3) a line
    test_images_list.txt     those of test
    images/image3.jpg ...    or nyu_depth_images/image3.png

The authors hand out ``qa.894.raw.train.txt`` and ``qa.894.raw.test.txt`` (or ``qa.37.raw...``, of
37 classes) instead, with the same lines. A question names its picture: "what is on the desk in the
image3 ?" Some name two; the last one counts. What names a picture ("in the image3") is taken out
of the question, since a number that stands for one picture is nothing to learn from. An answer may
be several things, "table, chair", in an order that varies from one question to the next. They are
sorted here and joined by ", ", so that the same things are the same answer.

easy-VQA (Victor Zhou, 2019) asks about coloured shapes at 64x64, with 13 answers::

    train/images/0.png ...   train/questions.json   test/images/...   test/questions.json
    answers.txt              one answer a line

    questions.json           [["what is the blue shape?", "rectangle", 0], ...]

Both of its folders number their pictures from 0, so a record's id and image begin with the folder.
"""

import re
from pathlib import Path

from ...errors import DataError
from ...files import read_json, read_text
from ..records import Dataset, QuestionRecord
from .rows import BadRows, BadValue, Collector, entries, find, find_pictures, needed, split_lists

_HALVES = ("train", "test")
_NAME = re.compile(r"image\d+", re.IGNORECASE)
_MENTION = re.compile(r"(?:\b(?:in|on|of)\s+)?(?:\b(?:the|this)\s+)?\bimage\d+\b", re.IGNORECASE)


def daquar(
    folder: Path,
    *,
    pairs: Path | None = None,
    images: Path | None = None,
    val: float = 0.1,
    seed: int = 0,
    bad: BadRows | None = None,
) -> Dataset:
    """DAQUAR: all_qa_pairs.txt with the official lists of pictures, or qa.894.raw.train.txt, ...

    Args:
        folder: Where the files lie, at most one folder down.
        pairs: The file of questions and answers, if it is not all_qa_pairs.txt in FOLDER.
        images: The folder of pictures, if it is not found below FOLDER.
        val: Share of the pictures of train for validation, or their number, from 1.
        seed: Random seed of the draw.
        bad: What to do with bad rows.
    """
    collector = Collector(images or find_pictures(folder, ("images", "nyu_depth_images")), bad)
    whole = ("all_qa_pairs.txt", "qa.894.raw.txt", "qa.37.raw.txt")
    sources = {
        split: path
        for split in _HALVES
        if (path := find(folder, [f"qa.{number}.raw.{split}.txt" for number in (894, 37)]))
    }
    listed: dict[str, str] = {}
    if pairs is not None or len(sources) < 2 or find(folder, whole[:1]) is not None:
        sources = {"": pairs or needed(folder, whole, bad)}
        lists = {half: needed(folder, (f"{half}_images_list.txt",), bad) for half in _HALVES}
        listed = split_lists(lists, lambda line: Path(line.lower()).stem, collector.bad)
    for split, path in sources.items():
        _read_pairs(path, split, listed, collector)
    collector.draw(val=val, seed=seed)
    return collector.dataset("daquar", "daquar", " and ".join(map(str, sources.values())))


def _read_pairs(path: Path, half: str, listed: dict[str, str], collector: Collector) -> None:
    """Add the pairs of a file: all of a half, or, where it is empty, as the lists tell."""
    bad = collector.bad
    names = [name for name in entries(collector.root) if _NAME.fullmatch(name.stem)]
    pictures = {name.stem.lower(): name.name for name in names}
    lines = [line.strip() for line in read_text(path).rstrip().split("\n")]
    for number in range(0, len(lines), 2):
        where, line = f"{path}:{number + 1}", lines[number]
        with bad.catch(where, line):
            mentions = _NAME.findall(line)
            if not mentions:
                raise BadValue("names no picture; expected a name such as image12")
            if number + 1 == len(lines):
                raise BadValue("the last question has no answer line")
            name = mentions[-1].lower()
            split = half or listed.get(name)
            if split is None:
                bad.count("questions of pictures in no official list, left out", where)
                continue
            parts = [part.strip() for part in lines[number + 1].split(",") if part.strip()]
            if len(parts) > 1:
                bad.count("answers of several things, sorted because their order varies", where)
            question = " ".join(_MENTION.sub(" ", line).split()).replace(" ?", "?")
            id, image = str(number // 2 + 1), pictures.get(name, f"{name}.jpg")
            id, answers = f"{half}-{id}" if half else id, (", ".join(sorted(parts)),)
            collector.add(where, QuestionRecord(id, image, question, answers, split))


def easy_vqa(
    folder: Path, *, val: float = 0.1, seed: int = 0, bad: BadRows | None = None
) -> Dataset:
    """easy-VQA: coloured shapes, train and test with questions.json and images.

    Args:
        folder: The folder of train, test and answers.txt, or of their folder data.
        val: Share of the pictures of train for validation, or their number, from 1.
        seed: Random seed of the draw.
        bad: What to do with bad rows.
    """
    within = not (folder / "train").is_dir() and (folder / "data" / "train").is_dir()
    root = folder / "data" if within else folder
    collector = Collector(root, bad)
    answers = {line.strip() for line in read_text(root / "answers.txt").split("\n")}
    for split in _HALVES:
        path = root / split / "questions.json"
        rows = read_json(path)
        if not isinstance(rows, list):
            raise DataError(f"{path}: expected a list of [question, answer, picture id]")
        for number, row in enumerate(rows):
            where = f"{path}: row {number}"
            with collector.bad.catch(where, row):
                if not isinstance(row, list) or len(row) != 3 or type(row[2]) is not int:
                    raise BadValue("expected [question, answer, picture id]")
                question, answer, picture = row
                if isinstance(answer, str) and answer.strip() and answer.strip() not in answers:
                    raise BadValue(f"answer {answer!r} is not in {root / 'answers.txt'}")
                id, image = f"{split}-{number}", f"{split}/images/{picture}.png"
                collector.add(where, QuestionRecord(id, image, question, (answer,), split))
    collector.draw(val=val, seed=seed)
    return collector.dataset("easy-vqa", "easy-vqa", root)


READERS = {"daquar": daquar, "easy-vqa": easy_vqa}

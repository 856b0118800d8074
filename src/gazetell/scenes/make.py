"""Making the dataset: a folder of pictures, their truth, and the prepared records.

::

    dataset.json  captions.jsonl  questions.jsonl     the prepared dataset (``records.py``)
    images/scene-000000.png ...                       the pictures
    scenes.jsonl                                      {"id", "things", "background"} a line
    recipe.json                                       {"version", "seed", "train", ...}

Scene ``i`` depends on the version, the seed, ``i`` and its split alone, not on the number of
workers; the same arguments give the same bytes with the same Pillow, numpy and zlib.
"""

import contextlib
import os
import random
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from ..data.records import SPLITS, Box, CaptionRecord, Dataset, QuestionRecord
from ..errors import DataError, UsageError
from ..files import read_json, read_jsonl, write_error, write_json, write_jsonl
from .draw import draw
from .language import captions, names
from .questions import questions
from .world import Scene, Thing, extent, sample_scene

VERSION = 1  # of the scenes: raised whenever the same arguments give other data
_OWN = {"images", "scenes.jsonl", "recipe.json", "captions.jsonl", "questions.jsonl"}


def boxes(scene: Scene) -> tuple[Box, ...]:
    """One box a thing, with the words that name it (``language.names``), within the picture."""
    return tuple(map(_box, scene.things))


def _box(thing: Thing) -> Box:
    return Box(names(thing), *(min(1.0, max(0.0, round(edge, 4))) for edge in extent(thing)))


def generate(
    folder: str | os.PathLike[str],
    *,
    train: int = 3000,
    val: int = 400,
    test: int = 600,
    captions_per_image: int = 5,
    questions_per_image: int = 6,
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Make the scenes dataset in a folder; see the module for what lies in it.

    Args:
        folder: new, empty, or a scenes folder, which is made anew.
        train: pictures in the training split.
        val: pictures in the validation split.
        test: pictures in the test split.
        captions_per_image: captions a picture, 1 to 10.
        questions_per_image: questions a picture, 0 for none; pictures that give fewer sure
            questions have fewer.
        seed: any integer; other seeds give other scenes, with the same contents in each split.
        workers: processes that make pictures; the result is the same for any number.
        progress: called with (pictures done, pictures in all).

    Returns:
        The prepared dataset, as ``Dataset.open(folder)`` would.

    Raises:
        UsageError: an argument out of range, or the folder holds something else.
        WriteError: the folder cannot be written.
    """
    folder = Path(folder)
    sizes = dict(zip(SPLITS, (train, val, test), strict=True))
    checks = (
        *((name, size, size >= 0, "a number of pictures") for name, size in sizes.items()),
        ("train, val, test", 0, sum(sizes.values()) > 0, "at least one picture in all"),
        ("captions_per_image", captions_per_image, 1 <= captions_per_image <= 10, "1 to 10"),
        ("questions_per_image", questions_per_image, 0 <= questions_per_image <= 12, "0 to 12"),
        ("workers", workers, workers >= 1, "at least 1"),
    )
    for name, value, fine, expected in checks:
        if not fine:
            raise UsageError(f"{name}: expected {expected}, found {value}")
    _clear(folder)
    splits = [name for name in SPLITS for _ in range(sizes[name])]
    jobs = [(folder, f"scene-{i:06d}", split, seed) for i, split in enumerate(splits)]
    told, asked, truth = [], [], []
    for (_, name, split, _), scene in zip(jobs, _scenes(jobs, workers, progress), strict=True):
        own, image = f"{VERSION} {seed} {name}", f"images/{name}.png"
        texts = captions(scene, captions_per_image, own)
        told.append(CaptionRecord(name, image, texts, split, boxes(scene)))
        asked += [
            QuestionRecord(
                f"{name}-q{number}", image, one.text, (one.answer,), split, one.type,
                one.answer_type, tuple(map(_box, one.things)),
            )
            for number, one in enumerate(questions(scene, questions_per_image, own), start=1)
        ]  # fmt: skip
        truth.append({"id": name, **scene.to_dict()})
    write_jsonl(folder / "scenes.jsonl", truth)
    recipe = {
        "version": VERSION,
        "seed": seed,
        **sizes,
        "captions_per_image": captions_per_image,
        "questions_per_image": questions_per_image,
    }
    write_json(folder / "recipe.json", recipe)
    dataset = Dataset("scenes", "scenes", folder, tuple(told), tuple(asked), folder)
    dataset.save(folder)
    return dataset


def read_truth(folder: str | os.PathLike[str]) -> dict[str, Scene]:
    """The scenes of a generated folder, by record id.

    Raises:
        DataError: no scenes there, scenes of another version, or a malformed row.
    """
    folder = Path(folder)
    if not (folder / "recipe.json").is_file() or not (folder / "scenes.jsonl").is_file():
        raise DataError(f"{folder}: holds no generated scenes (recipe.json, scenes.jsonl)")
    recipe = read_json(folder / "recipe.json")
    version = recipe.get("version") if isinstance(recipe, dict) else None
    if version != VERSION:
        raise DataError(
            f"{folder / 'recipe.json'}: version {version}, expected {VERSION}; generate it anew"
        )
    scenes = {}
    for number, row in read_jsonl(folder / "scenes.jsonl"):
        try:
            scenes[row["id"]] = Scene.from_dict(row)
        except (DataError, KeyError) as error:
            raise DataError(f"{folder / 'scenes.jsonl'}:{number}: {error}") from error
    return scenes


def _clear(folder: Path) -> None:
    """Refuse a folder of something else; remove what an earlier run left in ours.

    Ours is one whose ``dataset.json`` says so or, after an interrupted run, one that holds
    nothing but what this module writes.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; expected a new or empty folder")
    try:
        about = folder / "dataset.json"
        if about.is_file():
            kind = read_json(about)
            ours = isinstance(kind, dict) and kind.get("kind") == "scenes"
        else:
            ours = not folder.exists() or {path.name for path in folder.iterdir()} <= _OWN
        if not ours:
            raise UsageError(f"{folder}: holds something else; expected a new or empty folder")
        about.unlink(missing_ok=True)
        for name in _OWN - {"images"}:
            (folder / name).unlink(missing_ok=True)
        for path in (folder / "images").glob("scene-*.png"):
            path.unlink()
        (folder / "images").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error


Job = tuple[Path, str, str, int]  # folder, id, split, seed


def _scenes(
    jobs: list[Job], workers: int, progress: Callable[[int, int], None] | None
) -> Iterator[Scene]:
    """Sample the scenes and write their pictures, in order."""
    with contextlib.ExitStack() as stack:
        if workers == 1:
            made: Iterator[Scene] = map(_make_one, jobs)
        else:
            pool = ProcessPoolExecutor(workers)
            stack.callback(pool.shutdown, cancel_futures=True)
            made = pool.map(_make_one, jobs, chunksize=50)
        for done, scene in enumerate(made, start=1):
            yield scene
            if progress and (done % 50 == 0 or done == len(jobs)):
                progress(done, len(jobs))


def _make_one(job: Job) -> Scene:
    folder, name, split, seed = job
    scene = sample_scene(random.Random(f"scene {VERSION} {seed} {name}"), split=split)
    image = folder / "images" / f"{name}.png"
    try:
        # Straight to its place: without dataset.json, written last, the folder is no dataset.
        # Huffman codes alone: in pictures with noise a search for repeated bytes gains nothing.
        draw(scene).save(image, compress_level=1, compress_type=zlib.Z_HUFFMAN_ONLY)
    except OSError as error:
        raise write_error(image, error) from error
    return scene

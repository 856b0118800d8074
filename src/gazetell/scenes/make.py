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
import math
import os
import random
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from ..data.records import SPLITS, Box, CaptionRecord, Dataset, QuestionRecord
from ..errors import DataError, UsageError
from ..files import read_json, read_jsonl, write_error, write_json, write_jsonl
from .language import captions, names
from .questions import questions
from .world import FILL, HOLE, Background, Scene, Thing, extent, outline, sample_scene

SIDE = 128
OVER = 3  # supersampling
RIM = 0.013  # width of the darker rim, in fractions of the side


def draw(scene: Scene, size: int = SIDE) -> Image.Image:
    """The picture of a scene, RGB, ``size`` by ``size`` pixels.

    The same scene gives the same pixels; a larger size gives the same picture in more detail.
    """
    picture = _background(scene.background, size)
    for thing in scene.things:
        _stamp(picture, thing, size)
    return _noisy(picture, scene.background)


def _stamp(picture: Image.Image, thing: Thing, size: int) -> None:
    """Draw one thing: its figure in a darker colour, then a smaller one in its own."""
    reach = thing.radius + 2 / size
    left, top = math.floor((thing.x - reach) * size), math.floor((thing.y - reach) * size)
    side = math.ceil(2 * reach * size) + 1
    rim = tuple(round(level * 0.62) for level in thing.rgb)
    for colour, shrink in ((rim, 0.0), (thing.rgb, RIM)):
        mask = Image.new("L", (side * OVER, side * OVER))
        _figure(ImageDraw.Draw(mask), thing, size, left, top, shrink)
        small = mask.reduce(OVER)
        picture.paste(colour, (left, top, left + side, top + side), small)


def _figure(
    pen: ImageDraw.ImageDraw, thing: Thing, size: int, left: int, top: int, shrink: float
) -> None:
    def spot(x: float, y: float) -> tuple[float, float]:
        # Pillow draws on pixel centres: the half keeps the figure where its box says it is.
        return (x * size - left) * OVER - 0.5, (y * size - top) * OVER - 0.5

    def disc(radius: float, fill: int) -> None:
        (x, y), reach = spot(thing.x, thing.y), radius * size * OVER
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=fill)

    if thing.shape in FILL:
        reach = thing.radius * FILL[thing.shape]
        disc(reach - shrink, 255)
        if thing.shape == "ring":
            disc(reach * HOLE + shrink, 0)
        return
    inner = 1 - SHRINK[thing.shape] * shrink / thing.radius
    corners = outline(thing)
    pen.polygon([spot(thing.x + (x - thing.x) * inner, thing.y + (y - thing.y) * inner)
                 for x, y in corners], fill=255)  # fmt: skip


# Radius lost for one unit of rim: the ratio of the circles around and inside the figure.
SHRINK = {"square": 1.41, "triangle": 2.0, "star": 2.0, "cross": 1.3}


def _background(back: Background, size: int) -> Image.Image:
    if back.pattern == "plain":
        return Image.new("RGB", (size, size), back.low)
    if back.pattern == "speckled":
        dots = random.Random(back.seed).randbytes(36 * 36)
        fine = Image.frombytes("L", (36, 36), dots).resize((size, size), Image.Resampling.BICUBIC)
        mix = fine.point(_STEEP)
    else:
        mix = Image.fromarray(_pattern(back, size))
    low, high = (Image.new("RGB", mix.size, colour) for colour in (back.low, back.high))
    return Image.composite(high, low, mix)


# Grey levels of smooth noise to speckles with soft edges.
_STEEP = [max(0, min(255, (level - 150) * 6)) for level in range(256)]


def _pattern(back: Background, size: int) -> np.ndarray:
    """Mixing levels 0 to 255 (size, size) of a gradient, stripes or checks."""
    turn = math.radians(back.angle)
    across = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    u = across[None, :] * math.cos(turn) + across[:, None] * math.sin(turn)
    if back.pattern == "shaded":
        return np.asarray((u / 1.42 + 0.5) * 255, dtype=np.uint8)
    wave = np.sin(u * np.float32(math.tau / back.scale))
    if back.pattern == "checkered":
        v = across[:, None] * math.cos(turn) - across[None, :] * math.sin(turn)
        wave *= np.sin(v * np.float32(math.tau / back.scale))
    # Steep enough for an edge, soft enough not to be jagged.
    return np.asarray(np.clip(wave * 500 + 128, 0, 255), dtype=np.uint8)


def _noisy(picture: Image.Image, back: Background) -> Image.Image:
    rows = _noise(picture.width, back.noise)
    shift = random.Random(back.seed ^ 1)
    left, top = shift.randrange(_SPARE), shift.randrange(_SPARE)
    piece = rows.crop((left, top, left + picture.width, top + picture.height))
    return ImageChops.add(picture, piece, scale=1.0, offset=-128)


_SPARE = 160


@lru_cache(maxsize=8)
def _noise(side: int, deviation: int) -> Image.Image:
    """A sheet of noise around 128, larger than a picture; each picture takes its own piece."""
    # RandomState: its stream is frozen for all numpy versions, that of default_rng is not.
    levels = np.random.RandomState(side * 100 + deviation).normal(
        128, deviation, (side + _SPARE, side + _SPARE, 3)
    )
    return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))


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
        *((name, size, size >= 0, "0 pictures or more") for name, size in sizes.items()),
        ("train and val and test", 0, sum(sizes.values()) > 0, "at least one picture in all"),
        ("captions", captions_per_image, 1 <= captions_per_image <= 10, "1 to 10 a picture"),
        ("questions", questions_per_image, 0 <= questions_per_image <= 12, "0 to 12 a picture"),
        ("workers", workers, workers >= 1, "at least 1"),
    )
    for name, value, fine, expected in checks:
        if not fine:
            raise UsageError(f"{name} {value}: expected {expected}")
    recipe = {
        "version": VERSION,
        "seed": seed,
        **sizes,
        "captions_per_image": captions_per_image,
        "questions_per_image": questions_per_image,
    }
    _clear(folder)
    write_json(folder / "recipe.json", recipe)  # first: it tells whose folder this is
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
        raise DataError(f"{folder}: has no generated scenes (recipe.json, scenes.jsonl)")
    recipe = read_json(folder / "recipe.json")
    version = recipe.get("version") if isinstance(recipe, dict) else None
    if version != VERSION:
        raise DataError(
            f"{folder / 'recipe.json'}: version {version}, expected {VERSION}; generate it again"
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

    Ours is one whose ``dataset.json`` says so or, after an interrupted run, one that has our
    ``recipe.json`` and nothing but what this module writes.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; expected a new or empty folder")
    try:
        about = folder / "dataset.json"
        if about.is_file():
            kind = read_json(about)
            ours = isinstance(kind, dict) and kind.get("kind") == "scenes"
        else:
            present = {path.name for path in folder.iterdir()} if folder.exists() else set()
            ours = not present or "recipe.json" in present <= _OWN
        if not ours:
            raise UsageError(f"{folder}: is not empty; expected a new or empty folder")
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

"""Encode once: a picture for a caption and any number of questions, a dataset for many epochs.

A feature cache is a folder. ``grids.f16`` holds float16 records (F, R, C) one after the other, F
being 1 or, with the mirrored copy of each picture, 2. The first line of ``index.jsonl`` says what
they are, each further line which pictures a block of records is of, with the size and modification
time of their files, and the block's checksum. Both files only grow: a block counts once its line
is complete, so a pass that is killed goes on at its last block; a picture that was replaced is
encoded anew, and its last record counts. Reading maps the file into memory.

Shapes: ``B`` batch, ``F`` variants (plain, mirrored), ``R`` regions, ``C`` channels, ``S`` input
side.
"""

import hashlib
import json
import logging
import os
import random
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .data.records import Dataset
from .errors import DataError, ModelError, UsageError, WriteError
from .files import write_error, write_text
from .models.encoders import Encoder, Grid
from .models.precision import Precision, choose
from .pictures import (
    PREVIEW,
    PictureSource,
    load_pictures,
    open_image,
    preview,
    stack_pixels,
    to_pixels,
)

__all__ = [
    *("Encoding", "FeatureCache", "Model", "Picture", "build_cache", "cache_folder", "find_cache"),
    "check_several",
    "grids",
]

log = logging.getLogger(__name__)
FORMAT = 2
BLOCK = 256  # records that are flushed to the disk together
LARGEST = 65504.0  # of float16


@dataclass(frozen=True)
class Encoding:
    """A picture that has been encoded.

    Attributes:
        grid: of the CNN, before any projection; one picture.
        image: the picture, at most 640 px a side.
        encoder: fingerprint of the encoder that made the grid.
    """

    grid: Grid
    image: Image.Image
    encoder: str


Picture = PictureSource | Encoding


class Model:
    """Base of ``Captioner`` and ``Answerer``: the encoder of a loaded model, on its device.

    ``encode`` and ``encode_all`` take pictures and give an ``Encoding`` each, ``grid`` takes the
    network's input; what is decoded from a grid is the subclass's own.

    Args:
        encoder: of the model.
        device: see ``choose_device``.
        precision: see ``choose_precision``.
    """

    def __init__(self, encoder: Encoder, device: str, precision: str) -> None:
        self.device, self.precision = choose(device, precision)
        self.encoder = encoder.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.fingerprint = encoder.fingerprint()

    def encode(self, image: Picture) -> Encoding:
        """Encode a picture once, for a caption and any number of questions.

        Args:
            image: a path, the bytes of a file, a PIL image, or the ``Encoding`` that a model with
                the same encoder made.

        Raises:
            ImageError: the picture cannot be opened.
            ModelError: encoded by another encoder.
        """
        return self.encode_all([image])[0]

    def encode_all(self, images: Sequence[Picture]) -> list[Encoding]:
        """Encode several pictures in one batch."""
        given = [image for image in images if isinstance(image, Encoding)]
        if any(encoding.encoder != self.fingerprint for encoding in given):
            raise ModelError("the picture was encoded by a model with another encoder")
        size = self.encoder.size
        sources = [image for image in images if not isinstance(image, Encoding)]
        pictures = [open_image(source, side=max(PREVIEW, size)) for source in sources]
        new: Iterator[Encoding] = iter(())
        if pictures:
            pixels = np.stack([to_pixels(picture, size) for picture in pictures])
            grid = self.grid(torch.from_numpy(pixels))
            new = (
                Encoding(grid.rows(n, n + 1), preview(picture), self.fingerprint)
                for n, picture in enumerate(pictures)
            )
        return [image if isinstance(image, Encoding) else next(new) for image in images]

    def blank_grid(self) -> Grid:
        """A grid (1, R, C) of zeros, to try a model out."""
        height, width = self.encoder.height, self.encoder.width
        cells = torch.zeros(1, height * width, self.encoder.trunk_channels, device=self.device)
        return Grid.of(cells, height, width)

    @torch.inference_mode()
    def grid(self, images: Tensor) -> Grid:
        """The CNN's grid of uint8 images (B, 3, S, S), before any projection."""
        with self.precision.autocast(self.device):
            return self.encoder.encode(images.to(self.device))


def check_several(what: str, values: object) -> None:
    """Refuse one where several are expected: the letters of a text would be taken for them.

    Raises:
        UsageError: a text, bytes or no sequence at all.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise UsageError(f"{what} {values!r:.60}: expected a list of {what}")


def grids(model: Model, dataset: Dataset, images: Sequence[str], batch: int) -> Iterator[Grid]:
    """The grids, before any projection, of the named pictures, ``batch`` at a time.

    From a feature cache where there is one that holds them all as they are now.
    """
    cache = find_cache(dataset, model.encoder, model.precision, images)
    if cache is not None:
        for begin in range(0, len(images), batch):
            cells = cache.load(images[begin : begin + batch]).float().to(model.device)
            yield Grid.of(cells, cache.height, cache.width)
    else:
        paths = [dataset.root / name for name in images]
        for loaded in load_pictures(paths, model.encoder.size, batch=batch):
            yield model.grid(stack_pixels(loaded))


class FeatureCache:
    """Grids of pictures, read from disk; it is a ``Source`` of training.

    Args:
        folder: of the cache.
        root: folder of the pictures.

    Attributes:
        variants: F.
        height: of the grid.
        width: of the grid.
        rows: of each picture its record, and size and time of its file then.
        records: (N, F, R, C) float16, mapped from the file.

    Raises:
        DataError: no cache there, or one whose bytes are not what was written.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        blocks = self._read_index()
        total = sum(len(block["pictures"]) for block in blocks)
        path, expected = folder / "grids.f16", 2 * total * int(np.prod(self.shape))
        size = path.stat().st_size if path.is_file() else 0
        if size < expected:
            raise self._damaged(f"has {size} bytes, expected {expected}")
        self.size = expected  # bytes that count
        self.records: np.ndarray = np.empty((0, *self.shape), np.float16)
        if total:  # an empty file cannot be mapped
            self.records = np.memmap(path, np.float16, "r", shape=(total, *self.shape))
        self.rows: dict[str, tuple[int, Any]] = {}
        # Reading all of a large cache would take minutes: a few blocks are compared, and the last.
        chosen = {len(blocks) - 1, *random.Random(total).choices(range(len(blocks) or 1), k=8)}
        begin = 0
        for number, block in enumerate(blocks):
            end = begin + len(block["pictures"])
            if number in chosen and zlib.crc32(self.records[begin:end].data) != block["crc32"]:
                raise self._damaged(f"block {number} is damaged (its checksum differs)")
            for row, (name, stamp) in enumerate(block["pictures"], begin):
                self.rows[name] = row, stamp
            begin = end

    def _read_index(self) -> list[dict[str, Any]]:
        """The blocks; a line that a killed pass did not complete does not count."""
        path = self.folder / "index.jsonl"
        if not path.is_file():
            raise DataError(f"{self.folder}: is no feature cache; make one: gazetell features")
        text = path.read_text(encoding="ascii", errors="replace")
        self.index_size = text.rfind("\n") + 1  # bytes that count
        try:
            about, *blocks = map(json.loads, text[: self.index_size].splitlines())
            self.variants, self.height, self.width, channels = about["shape"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: is no feature cache; delete the folder") from error
        self.shape = self.variants, self.height * self.width, channels
        return blocks

    def _damaged(self, reason: str) -> DataError:
        again = "delete the folder and run gazetell features again"
        return DataError(f"{self.folder / 'grids.f16'}: {reason}; {again}")

    def lacks(self, names: Sequence[str]) -> dict[str, Any]:
        """Pictures without a record of them as they are now, with size and time of their files.

        A file that is gone is not another one: its record is as good as before.
        """
        lacking = {}
        for name in names:
            try:
                about = (self.root / name).stat()
                stamp = [about.st_size, about.st_mtime_ns]
            except OSError:
                stamp = None
            if name not in self.rows or stamp not in (None, self.rows[name][1]):
                lacking[name] = stamp
        return lacking

    def load(self, names: Sequence[str], mirrored: np.ndarray | None = None) -> Tensor:
        """Cells (B, R, C) float16 of pictures, mirrored where ``mirrored`` (B,) says so.

        Raises:
            DataError: a picture, or a mirrored copy, that the cache does not hold.
        """
        try:
            rows = [self.rows[name][0] for name in names]
        except KeyError as error:
            raise DataError(f"{self.folder}: has no features of {error}") from error
        variant = np.zeros(len(rows), np.int64) if mirrored is None else mirrored.astype(np.int64)
        if variant.any() and self.variants == 1:
            raise DataError(f"{self.folder}: has no mirrored copies; make it with --flip")
        return torch.from_numpy(self.records[rows, variant])


def cache_folder(dataset: Dataset, encoder: Encoder, precision: Precision, *, flip: bool) -> Path:
    """Where the cache of a prepared dataset lies.

    Another encoder, precision or folder of pictures has another cache; so have mirrored copies.
    """
    base = dataset.folder or dataset.root
    folder, root = base.resolve(), dataset.root.resolve()
    # A root inside the dataset's folder moves with it.
    place = root.relative_to(folder) if root.is_relative_to(folder) else root
    key = f"{FORMAT} {encoder.fingerprint()} {os.fspath(place)!r} {precision.name} {flip}"
    digest = hashlib.sha256(key.encode(errors="backslashreplace")).hexdigest()[:12]
    return base / "features" / f"{encoder.config.name}-{encoder.size}-{digest}"


def find_cache(
    dataset: Dataset, encoder: Encoder, precision: Precision, names: Sequence[str]
) -> FeatureCache | None:
    """The cache of a prepared dataset that holds pictures as they are now; None without one.

    One that is there and cannot be used is told in a warning.
    """
    if dataset.folder is None or not encoder.frozen:
        return None
    instead = "the pictures are encoded instead"
    for flip in (False, True):
        folder = cache_folder(dataset, encoder, precision, flip=flip)
        if not (folder / "index.jsonl").is_file():
            continue
        try:
            cache = FeatureCache(folder, dataset.root)
        except DataError as error:
            log.warning("%s; %s", error, instead)
            continue
        if not (lacking := cache.lacks(names)):
            return cache
        count, first = f"{len(lacking)} of {len(names)} pictures", next(iter(lacking))
        log.warning("%s: lacks %s as they are now (first: %s); %s", folder, count, first, instead)
    return None


def build_cache(
    dataset: Dataset,
    encoder: Encoder,
    device: torch.device,
    precision: Precision,
    *,
    flip: bool = False,
    batch: int = 64,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureCache:
    """Encode the pictures of a dataset that its cache lacks; what was replaced is encoded anew.

    Args:
        dataset: with all pictures that will be asked for.
        encoder: a frozen encoder.
        device: where to compute.
        precision: to compute in.
        flip: also encode each picture mirrored left to right.
        batch: pictures a forward pass.
        workers: processes that open pictures meanwhile; 0 opens them in threads of this one.
        progress: called with (pictures done, pictures in all).

    Raises:
        ImageError: a picture that cannot be opened.
        ModelError: an encoder that gives numbers that are not finite.
        WriteError: not enough room on the disk.
        DataError: a damaged cache.
    """
    encoder = encoder.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    folder, root = cache_folder(dataset, encoder, precision, flip=flip), dataset.root
    shape = [1 + flip, encoder.height, encoder.width, encoder.trunk_channels]
    names = sorted({r.image for r in dataset.captions} | {r.image for r in dataset.questions})
    index = folder / "index.jsonl"
    if not index.is_file():
        if old := list(folder.parent.glob("*/features.json")):
            log.warning(
                "%s: caches of an older version are not used and can be deleted: %s",
                *(folder.parent, ", ".join(sorted(path.parent.name for path in old))),
            )
        _check_room(folder, 2 * int(np.prod(shape)) * len(names))
        write_text(index, json.dumps({"format": FORMAT, "shape": shape}) + "\n")
    cache = FeatureCache(folder, root)
    todo = cache.lacks(names)
    if not todo:
        return cache
    if changed := [name for name in todo if name in cache.rows]:
        count = f"{len(changed)} pictures were changed since (first: {changed[0]})"
        log.warning("%s: %s; they are encoded anew", folder, count)
    _check_room(folder, 2 * int(np.prod(shape)) * len(todo))
    rest, done = iter(todo.items()), len(names) - len(todo)
    block: list[tuple[str, Any]] = []
    crc = 0
    try:
        with (folder / "grids.f16").open("ab") as grids, index.open("ab") as lines:
            # What was written after the last counted block is written anew.
            grids.truncate(cache.size)
            lines.truncate(cache.index_size)
            paths = [root / name for name in todo]
            for loaded in load_pictures(paths, encoder.size, batch=batch, workers=workers):
                records = _records(encoder, stack_pixels(loaded).to(device), precision, flip)
                grids.write(records)
                crc = zlib.crc32(records, crc)
                block += islice(rest, len(loaded))
                if len(block) >= BLOCK or done + len(block) == len(names):
                    grids.flush()
                    os.fsync(grids.fileno())
                    lines.write(json.dumps({"pictures": block, "crc32": crc}).encode() + b"\n")
                    lines.flush()
                    done += len(block)
                    block, crc = [], 0
                    if progress:
                        progress(done, len(names))
    except OSError as error:
        raise write_error(folder / "grids.f16", error) from error
    return FeatureCache(folder, root)


@torch.inference_mode()
def _records(encoder: Encoder, images: Tensor, precision: Precision, flip: bool) -> bytes:
    """Float16 records (B, F, R, C) of uint8 images (B, 3, S, S)."""
    with precision.autocast(images.device):
        variants = [images, images.flip(3)] if flip else [images]
        cells = torch.stack([encoder.encode(x).cells for x in variants], 1)
    largest = float(cells.abs().max())
    if not np.isfinite(largest):
        raise ModelError(f"encoder {encoder.config.name}: gives numbers that are not finite")
    if largest > LARGEST:
        log.warning("features up to %.3g are cut to %s, the largest of float16", largest, LARGEST)
    return cells.clamp(-LARGEST, LARGEST).to(torch.float16).cpu().numpy().tobytes()


def _check_room(folder: Path, needed: int) -> None:
    """Refuse before the work what cannot fit."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise write_error(folder, error) from error
    if needed > free:
        raise WriteError(f"{folder}: needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")

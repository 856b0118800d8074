"""Encode once: the grids of a frozen encoder on disk.

A cache is a folder: ``grids.f16`` holds float16 records (F, R, C) one after the other, F being 1
or, with the mirrored copy of each picture, 2; ``features.json`` says what they are and how many
are safely there. Records are appended a block at a time; a block counts once it is flushed to
the disk and its checksum stands in ``features.json``, so a pass that is killed at any point goes
on at the last block. Reading maps the file into memory: training touches only the records of a
batch.

Shapes: ``N`` pictures, ``F`` variants (plain, mirrored), ``R`` regions, ``C`` channels.
"""

import hashlib
import os
import random
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from .data.records import Dataset as Records
from .errors import DataError, GazetellError, ImageError, ModelError, UsageError, WriteError
from .files import read_json, write_error, write_json
from .models.encoders import Encoder, Grid, resize_pixels
from .models.precision import choose_device, choose_precision
from .pictures import PREVIEW, PixelSource, open_image, preview

__all__ = [
    "Encoding",
    "FeatureCache",
    "Model",
    "Picture",
    "build_cache",
    "cache_fingerprint",
    "cache_folder",
    "check_several",
    "grids",
]

FORMAT = 1
BLOCK = 256
Progress = Callable[[int, int], None]


def cache_folder(dataset: Records, encoder: Encoder, *, flip: bool) -> tuple[Path, list[str]]:
    """Where the cache of a prepared dataset lies, and the pictures it holds."""
    names = sorted(
        {record.image for record in dataset.captions}
        | {record.image for record in dataset.questions}
    )
    key = cache_fingerprint(encoder, names, flip=flip)[:12]
    folder = dataset.folder or dataset.root
    return folder / "features" / f"{encoder.config.name}-{encoder.size}-{key}", names


def cache_fingerprint(encoder: Encoder, names: Sequence[str], *, flip: bool) -> str:
    """What a cache is keyed by: encoder, weights, transform, pictures, mirrored copies."""
    digest = hashlib.sha256(f"{FORMAT} {encoder.fingerprint()} {flip}".encode())
    for name in names:
        digest.update(name.encode() + b"\0")
    return digest.hexdigest()


class FeatureCache:
    """Grids of pictures, read from disk.

    Attributes:
        names: the pictures, as record image names.
        variants: F, 2 if each picture has its mirrored copy.
        height: of the grid.
        width: of the grid.
        channels: C.

    Raises:
        DataError: no cache there, an incomplete one, or one whose bytes are not what was written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        about = _about(self.folder)
        if about is None:
            raise DataError(f"{self.folder}: is no feature cache; make one: gazetell features")
        if about["done"] < len(about["names"]):
            raise DataError(
                f"{self.folder}: holds {about['done']} of {len(about['names'])} pictures; "
                "run gazetell features again to complete it"
            )
        self.names: list[str] = about["names"]
        self.fingerprint: str = about["fingerprint"]
        self.variants, regions, self.channels = about["shape"]
        self.height, self.width = about["height"], about["width"]
        path = self.folder / "grids.f16"
        shape = (len(self.names), self.variants, regions, self.channels)
        expected = 2 * int(np.prod(shape))
        if not path.is_file() or path.stat().st_size != expected:
            size = path.stat().st_size if path.is_file() else 0
            raise DataError(f"{path}: has {size} bytes, expected {expected}; delete and redo it")
        self.grids = np.memmap(path, np.float16, "r", shape=shape)
        self.row = {name: row for row, name in enumerate(self.names)}
        self._check(about["checksums"])

    def _check(self, checksums: list[int], blocks: int = 8) -> None:
        """Compare a few blocks, the last among them, with their checksums."""
        last = len(checksums) - 1
        chosen = {last, *random.Random(self.fingerprint).sample(range(last + 1), min(blocks, last))}
        for block in sorted(chosen):
            data = self.grids[block * BLOCK : (block + 1) * BLOCK]
            if zlib.crc32(data.tobytes()) != checksums[block]:
                raise DataError(
                    f"{self.folder / 'grids.f16'}: block {block} is damaged (its checksum "
                    "differs); delete the folder and run gazetell features again"
                )

    def load(self, names: Sequence[str], mirrored: np.ndarray | None = None) -> torch.Tensor:
        """Cells (B, R, C) float16 of pictures, mirrored where ``mirrored`` (B,) says so.

        Raises:
            DataError: a picture, or a mirrored copy, that the cache does not hold.
        """
        try:
            rows = [self.row[name] for name in names]
        except KeyError as error:
            raise DataError(f"{self.folder}: has no features of {error}") from error
        variant = np.zeros(len(rows), np.int64) if mirrored is None else mirrored.astype(np.int64)
        if variant.any() and self.variants == 1:
            raise DataError(f"{self.folder}: has no mirrored copies; make it with --flip")
        return torch.from_numpy(self.grids[rows, variant])


def build_cache(
    encoder: Encoder,
    root: Path,
    names: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    flip: bool = False,
    batch: int = 64,
    workers: int = 1,
    device: torch.device | None = None,
    precision: str = "auto",
    progress: Progress | None = None,
) -> FeatureCache:
    """Encode pictures into a cache, going on where an earlier pass stopped.

    Args:
        encoder: a frozen encoder.
        root: folder of the pictures.
        names: their paths below ``root``.
        folder: where the cache lies.
        flip: also encode each picture mirrored left to right.
        batch: pictures a forward pass.
        workers: processes that open pictures meanwhile; 0 opens them in this one.
        device: where to compute, the CPU by default.
        precision: ``auto``, ``bf16`` or ``fp32``.
        progress: called with (pictures done, pictures in all).

    Raises:
        ImageError: a picture that cannot be opened.
        WriteError: not enough room on the disk.
        DataError: the folder holds a cache of something else.
    """
    folder, names = Path(folder), list(names)
    device = device or torch.device("cpu")
    encoder = encoder.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    regions, channels = encoder.height * encoder.width, encoder.trunk_channels
    record = 2 * (1 + flip) * regions * channels
    fingerprint = cache_fingerprint(encoder, names, flip=flip)
    about = _about(folder)
    if about is None:
        _check_room(folder, record * len(names))
        # The names do not change from block to block: they stand in a file of their own.
        write_json(folder / "names.json", names)
        about = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "encoder": encoder.config.to_dict() | {"weights": Path(encoder.config.weights).name},
            "shape": [1 + flip, regions, channels],
            "height": encoder.height,
            "width": encoder.width,
            "done": 0,
            "checksums": [],
            "names": names,
        }
    elif about["fingerprint"] != fingerprint:
        raise DataError(
            f"{folder}: holds features of another encoder or other pictures; "
            "expected an empty folder or the same (delete it or name another)"
        )
    else:
        _check_room(folder, record * (len(names) - about["done"]))
        _check_size(folder / "grids.f16", record * about["done"])
    try:
        with (folder / "grids.f16").open("r+b" if about["done"] else "wb") as file:
            # What was written after the last counted block is written anew.
            file.truncate(about["done"] * record)
            file.seek(0, os.SEEK_END)
            todo = _Pictures(encoder.size, root, names[about["done"] :])
            with torch.inference_mode(), choose_precision(device, precision).autocast(device):
                blocks = _blocks(_encode(encoder, todo, batch, workers, device, flip))
                for block in blocks:
                    data = block.tobytes()
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                    about["done"] += len(block)
                    about["checksums"].append(zlib.crc32(data))
                    _write_about(folder, about)
                    if progress:
                        progress(about["done"], len(names))
    except OSError as error:
        raise write_error(folder / "grids.f16", error) from error
    return FeatureCache(folder)


class _Pictures(Dataset[Any]):
    """Opens pictures as the encoder's input; an unreadable one comes as its error."""

    def __init__(self, size: int, root: Path, names: Sequence[str]) -> None:
        # The size alone: a worker process has no use for a copy of the encoder.
        self.size, self.root, self.names = size, root, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray | GazetellError:
        # An exception would cross the process border as a page of text.
        try:
            picture = open_image(self.root / self.names[index], near=self.size)
        except GazetellError as error:
            return error
        return resize_pixels(picture, self.size)


def _collate(items: list[np.ndarray | GazetellError]) -> torch.Tensor | GazetellError:
    errors = [item for item in items if isinstance(item, GazetellError)]
    return errors[0] if errors else torch.from_numpy(np.stack(items))  # type: ignore[arg-type]


def _encode(
    encoder: Encoder,
    pictures: _Pictures,
    batch: int,
    workers: int,
    device: torch.device,
    flip: bool,
) -> Iterator[np.ndarray]:
    """Yield float16 records (B, F, R, C) in the order of the pictures."""
    loader = DataLoader(
        pictures,
        batch,
        num_workers=workers if len(pictures) > batch else 0,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if workers and len(pictures) > batch else None,
    )
    for images in loader:
        if isinstance(images, GazetellError):
            raise ImageError(str(images))
        images = images.to(device, non_blocking=True)
        grids = [encoder.encode(images).cells]
        if flip:
            grids.append(encoder.encode(images.flip(3)).cells)
        records = torch.stack(grids, 1).clamp(-65504, 65504)  # (B, F, R, C), float16's range
        yield records.to(torch.float16).cpu().numpy()


def _blocks(batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Regroup records into blocks of ``BLOCK``, the last one shorter."""
    held: list[np.ndarray] = []
    count = 0
    for records in batches:
        held.append(records)
        count += len(records)
        while count >= BLOCK:
            joined = np.concatenate(held)
            yield joined[:BLOCK]
            held, count = [joined[BLOCK:]], count - BLOCK
    if count:
        yield np.concatenate(held)


def _check_room(folder: Path, needed: int) -> None:
    """Refuse before the work what cannot fit."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise write_error(folder, error) from error
    if needed > free:
        raise WriteError(f"{folder}: needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")


def _check_size(path: Path, expected: int) -> None:
    """Refuse to go on with a file that lost records which count as done."""
    size = path.stat().st_size if path.is_file() else 0
    if size < expected:
        raise DataError(
            f"{path}: has {size} bytes, expected {expected} or more; delete the folder and redo it"
        )


def _write_about(folder: Path, about: dict[str, Any]) -> None:
    """Save the state."""
    write_json(folder / "features.json", {k: v for k, v in about.items() if k != "names"})


def _about(folder: Path) -> dict[str, Any] | None:
    """The state of the cache in ``folder``, None if there is none."""
    path = folder / "features.json"
    if not path.is_file():
        return None
    about = read_json(path)
    keys = {"format", "fingerprint", "shape", "height", "width", "done", "checksums"}
    if not isinstance(about, dict) or not keys <= set(about) or about["format"] != FORMAT:
        raise DataError(f"{path}: is no feature cache of this version; delete the folder")
    about["names"] = read_json(folder / "names.json")
    return about


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


Picture = bytes | str | os.PathLike[str] | Image.Image | Encoding


class Model:
    """Base of ``Captioner`` and ``Answerer``: the encoder of a loaded model, on its device.

    ``encode`` and ``encode_all`` take pictures and give an ``Encoding`` each, ``grid`` takes the
    network's input; what is decoded from a grid is the subclass's own.

    Args:
        encoder: of the model.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``auto``, ``bf16`` or ``fp32``.
    """

    def __init__(self, encoder: Encoder, device: str, precision: str) -> None:
        self.device = choose_device(device)
        self.precision = choose_precision(self.device, precision)
        self.encoder = encoder.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.fingerprint = encoder.fingerprint()
        # Large JPEGs are decoded no larger than the network and the gaze need them.
        self.side = max(PREVIEW, self.encoder.size)

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
        for image in images:
            if isinstance(image, Encoding) and image.encoder != self.fingerprint:
                raise ModelError("the picture was encoded by a model with another encoder")
        fresh = [image for image in images if not isinstance(image, Encoding)]
        pictures = [open_image(image, near=self.side) for image in fresh]
        new: list[Encoding] = []
        if pictures:
            pixels = np.stack([self.encoder.pixels(picture) for picture in pictures])
            grid = self.grid(torch.from_numpy(pixels))
            new = [
                Encoding(grid.rows(n, n + 1), preview(picture), self.fingerprint)
                for n, picture in enumerate(pictures)
            ]
        made = iter(new)
        return [image if isinstance(image, Encoding) else next(made) for image in images]

    def blank_grid(self) -> Grid:
        """A grid (1, R, C) of zeros, to try a model out."""
        height, width = self.encoder.height, self.encoder.width
        cells = torch.zeros(1, height * width, self.encoder.trunk_channels, device=self.device)
        return Grid.of(cells, height, width)

    @torch.inference_mode()
    def grid(self, images: torch.Tensor) -> Grid:
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


def grids(model: Model, dataset: Records, images: Sequence[str], batch: int) -> Iterator[Grid]:
    """The grids, before any projection, of the named pictures, ``batch`` at a time."""
    encoder = model.encoder
    cache = _cache(model, dataset)
    pixels = None if cache else PixelSource(dataset.root, [], encoder.pixels, encoder.size)
    for begin in range(0, len(images), batch):
        names = images[begin : begin + batch]
        if cache is not None:
            cells = cache.load(names).float().to(model.device)
            yield Grid.of(cells, cache.height, cache.width)
        elif pixels is not None:
            yield model.grid(pixels.load(names, np.zeros(len(names), bool)))


def _cache(model: Model, dataset: Records) -> FeatureCache | None:
    if dataset.folder is None or not model.encoder.frozen:
        return None
    for flip in (False, True):
        folder, _ = cache_folder(dataset, model.encoder, flip=flip)
        if (folder / "features.json").is_file():
            try:
                return FeatureCache(folder)
            except DataError:
                # Incomplete or damaged: the pictures themselves are as good.
                continue
    return None

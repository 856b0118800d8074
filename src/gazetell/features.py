"""Encode once: a picture for a caption and any number of questions, a dataset for many epochs.

A feature cache is a folder of blocks. ``00000.npy`` holds float16 records (N, F, h, w, C), F being
1 or, with the mirrored copy of each picture, 2; ``00000.json`` beside it says which pictures they
are of, with the size and modification time of their files, and the checksum. It is written last: a
pass that is killed goes on at its last block. A picture that was replaced is encoded anew, into
another block, and its last record counts.

Shapes: ``B`` batch, ``N`` records of a block, ``F`` variants (plain, mirrored), ``h w`` grid height
and width, ``R = h*w`` regions, ``C`` channels, ``S`` input side.
"""

import hashlib
import logging
import os
import random
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict, overload

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL import Image
from torch import Tensor

from .data.records import Dataset
from .errors import DataError, ImageError, ModelError, UsageError, WriteError, unknown_option
from .files import atomic_path, read_json, write_error, write_json
from .models.confidence import Novelty
from .models.encoders import Encoder, Grid
from .models.precision import Precision, choose
from .pictures import (
    WHOLE_VIEW,
    Area,
    Fit,
    LoadedPicture,
    PictureSource,
    View,
    load_picture,
    load_pictures,
    picture_size,
    stack_pixels,
)
from .process import worker_errors

log = logging.getLogger(__name__)
FORMAT = 2
BLOCK = 256  # pictures
GREY = 128  # of the picture that stands for none
LARGEST = 65504.0  # of float16


@dataclass(frozen=True)
class Encoding:
    """A picture that has been encoded.

    Attributes:
        grid: of the CNN, before any projection; one picture.
        image: the picture, at most 640 px a side.
        encoder: fingerprint of the encoder that made the grid.
        view: where the grid lies on the picture.
        doubt: why nothing sure can be told of the picture; empty where it can.
    """

    grid: Grid
    image: Image.Image
    encoder: str
    view: View = WHOLE_VIEW
    doubt: str = ""


Picture = PictureSource | Encoding
Several = list[Any] | tuple[Any, ...]  # of them


class Computing(TypedDict, total=False):
    """How a model computes and sees, see ``Model``."""

    device: str
    precision: str
    fit: Fit | None
    prompt: str | None


def check_computing(how: Mapping[str, Any]) -> None:
    """Refuse options of loading that do not exist, with a UsageError that names those that do."""
    for name in how:
        if name not in Computing.__annotations__:
            raise unknown_option(name, [*Computing.__annotations__, "trust"])


class LoadOptions(Computing, total=False):
    """The options of ``gazetell.load``."""

    trust: bool


class Model:
    """Base of ``Captioner`` and ``Answerer``: the encoder of a loaded model, on its device.

    ``encode`` and ``encode_all`` take pictures and give an ``Encoding`` each, ``grid`` takes the
    network's input; what is decoded from a grid is the subclass's own.

    Args:
        encoder: of the model.
        device: see ``choose_device``.
        precision: see ``choose_precision``.
        fit: how pictures are fitted to the input, see ``Frame``; as in training if not given.
            Another one is told in a warning.
        prompt: refused; only models of transformers take one.

    Attributes:
        own_fit: that of its training.
        name: by which it was loaded.
        blind: it learned without pictures, and does not look at them.
        novelty: how far a picture is from those it learned from; None where that is not known.
    """

    name = ""
    blind = False
    novelty: Novelty | None = None

    def __init__(
        self,
        encoder: Encoder,
        device: str = "auto",
        precision: str = "auto",
        fit: Fit | None = None,
        prompt: str | None = None,
    ) -> None:
        if prompt is not None:
            raise UsageError(f"--prompt {prompt!r}: only models of transformers take one")
        self.device, self.precision = choose(device, precision)
        self.own_fit = encoder.config.fit
        if fit not in (None, self.own_fit):
            encoder.config = replace(encoder.config, fit=fit)
            log.warning("pictures are fitted by %s; the model learned with %s", fit, self.own_fit)
        self.encoder = encoder.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    @cached_property
    def fingerprint(self) -> str:
        """Of the encoder; computed when it is first needed, since it reads all weights."""
        return self.encoder.fingerprint()

    @overload
    def encode(self, image: Picture) -> Encoding: ...
    @overload
    def encode(self, image: Several) -> list[Encoding]: ...
    def encode(self, image: Picture | Several) -> Encoding | list[Encoding]:
        """Encode a picture once, for a caption and any number of questions; a list as a list.

        Args:
            image: a path, the bytes of a file, an image of Pillow, an array or a tensor (see
                ``pictures.array_image``), or the ``Encoding`` that a model with the same encoder
                made.

        Raises:
            ImageError: the picture cannot be opened.
            ModelError: encoded by another encoder.
        """
        if isinstance(image, list | tuple):
            return self.encode_all(image)
        return self.encode_all([image])[0]

    def encode_all(self, images: Sequence[Picture]) -> list[Encoding]:
        """Encode several pictures in one batch."""
        given = [image for image in images if isinstance(image, Encoding)]
        if any(encoding.encoder != self.fingerprint for encoding in given):
            raise ModelError("the picture was encoded by a model with another encoder")
        sources = [image for image in images if not isinstance(image, Encoding)]
        new: Iterator[Encoding] = iter(())
        frame, batch = self.encoder.frame, max(len(sources), 1)
        for loaded in load_pictures(sources, frame, batch=batch, with_preview=True):
            grid = self.see(loaded)
            new = (
                Encoding(
                    grid.rows(n, n + 1),
                    picture.preview,  # type: ignore[union-attr,arg-type]
                    self.fingerprint,
                    self.encoder.view(picture.size),  # type: ignore[union-attr]
                    frame.doubt(picture.size),  # type: ignore[union-attr]
                )
                for n, picture in enumerate(loaded)
            )
        return [image if isinstance(image, Encoding) else next(new) for image in images]

    def view(self, image: PictureSource) -> View:
        """Where the grid lies on a picture, whose header is read where that depends on it."""
        squashed = self.encoder.config.fit == "squash"
        return self.encoder.view((1, 1) if squashed else picture_size(image))

    def blank_grid(self) -> Grid:
        """A grid (1, R, C) of zeros, to try a model out."""
        height, width = self.encoder.height, self.encoder.width
        cells = torch.zeros(1, height * width, self.encoder.trunk_channels, device=self.device)
        return Grid.of(cells, height, width)

    def see(self, loaded: Sequence[LoadedPicture | ImageError]) -> Grid:
        """The grids of loaded pictures; the ImageError of the first that could not be opened."""
        return self.grid(stack_pixels(loaded))

    @cached_property
    def blank(self) -> Grid:
        """The grid (1, R, C) of a plain grey picture."""
        side = self.encoder.size
        grey = Image.new("RGB", (side, side), (GREY,) * 3)
        return self.see([load_picture(grey, self.encoder.frame)])

    @torch.inference_mode()
    def grid(self, images: Tensor) -> Grid:
        """The CNN's grid of uint8 images (B, 3, S, S), before any projection."""
        with self.precision.autocast(self.device):
            return self.encoder.encode(images.to(self.device))


def grids(model: Model, dataset: Dataset, images: Sequence[str], batch: int) -> Iterator[Grid]:
    """The grids, before any projection, of the named pictures, ``batch`` at a time.

    From a feature cache where there is one that holds them all as they are now; a blind model's are
    zeros, and no picture is opened.
    """
    if model.blind:
        for begin in range(0, len(images), batch):
            yield Grid.join([model.blank_grid()] * len(images[begin : begin + batch]))
        return
    cache = find_cache(dataset, model.encoder, model.precision, images)
    if cache is not None:
        for begin in range(0, len(images), batch):
            grid = cache.grid(images[begin : begin + batch])
            yield Grid.of(grid.cells.float().to(model.device), grid.height, grid.width)
    else:
        paths = [dataset.root / name for name in images]
        for loaded in load_pictures(paths, model.encoder.frame, batch=batch):
            yield model.see(loaded)


class FeatureCache:
    """Grids of pictures, read from disk; a ``Source`` of training.

    Args:
        folder: of the cache.
        root: folder of the pictures.

    Attributes:
        blocks: (N, F, h, w, C) each.
        rows: of each picture its block, its record there, and size and time of its file then.

    Raises:
        DataError: a block whose bytes are not what was written.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        self.blocks: list[np.ndarray] = []
        self._files: list[tuple[Path, int]] = []  # of each block, and where its records begin
        self.rows: dict[str, tuple[int, int, list[int] | None]] = {}
        paths = sorted(folder.glob("[0-9]*.json"))
        # Reading all of a large cache would take minutes: the last block and a few are compared.
        compared = {*random.Random(len(paths)).sample(paths, min(8, len(paths))), *paths[-1:]}
        for path in paths:
            try:
                about = read_json(path)
                block = np.lib.format.open_memmap(path.with_suffix(".npy"), "r").view(np.ndarray)
                if path in compared and zlib.crc32(block.data) != about["crc32"]:
                    raise ValueError("its checksum differs")
                for row, (name, stamp) in enumerate(about["pictures"]):
                    self.rows[name] = len(self.blocks), row, stamp
            except (DataError, OSError, ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{path.with_suffix('.npy')}: is damaged ({error}); delete the folder and run "
                    "gazetell features again"
                ) from error
            self.blocks.append(block)
            file = path.with_suffix(".npy")
            self._files.append((file, file.stat().st_size - block.nbytes))

    @property
    def size(self) -> int:
        """Bytes of all records."""
        return sum(block.nbytes for block in self.blocks)

    def lacks(self, names: Sequence[str]) -> dict[str, list[int] | None]:
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
            if name not in self.rows or stamp not in (None, self.rows[name][2]):
                lacking[name] = stamp
        return lacking

    def grid(self, names: Sequence[str], mirrored: np.ndarray | None = None) -> Grid:
        """The grid of pictures, mirrored where ``mirrored`` (B,) says so, in float16.

        Raises:
            DataError: a picture, or a mirrored copy, that the cache does not hold.
        """
        if unknown := next((name for name in names if name not in self.rows), None):
            raise DataError(f"{self.folder}: has no features of {unknown!r}")
        variants = np.zeros(len(names), int) if mirrored is None else mirrored.astype(int)
        if variants.any() and self.blocks[0].shape[1] == 1:
            raise DataError(f"{self.folder}: has no mirrored copies; make it with --flip")
        shape = self.blocks[0].shape
        cells = np.empty((len(names), *shape[2:]), np.float16)
        for cell, name, variant in zip(cells, names, variants, strict=True):
            block, row, _ = self.rows[name]
            path, begin = self._files[block]
            # Not from the map: its pages come one by one, which takes ten times as long as a read.
            with path.open("rb", buffering=0) as file:
                file.seek(begin + int(row * shape[1] + variant) * cell.nbytes)
                if file.readinto(cell.data.cast("B")) != cell.nbytes:
                    raise DataError(
                        f"{path}: is cut off; delete it and run gazetell features again"
                    )
        height, width = cells.shape[1:3]
        return Grid.of(torch.from_numpy(cells).flatten(1, 2), height, width)

    def load(
        self, names: Sequence[str], mirrored: np.ndarray, crops: Sequence[Area] | None = None
    ) -> Tensor:
        """The cells (B, R, C) of ``grid``."""
        if crops is not None:
            raise ValueError("a cache holds only grids of whole pictures")
        return self.grid(names, mirrored).cells


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
        if not folder.is_dir():
            continue
        try:
            cache = FeatureCache(folder, dataset.root)
        except DataError as error:
            log.warning("%s; %s", error, instead)
            continue
        if not (lacking := cache.lacks(names)):
            return cache
        new = [name for name in lacking if name not in cache.rows]
        changed = [name for name in lacking if name in cache.rows]
        for what, some in (("not encoded yet", new), ("changed since they were encoded", changed)):
            if some:
                count = f"{len(some)} of {len(names)} pictures"
                log.warning("%s: %s: %s (first: %s); %s", folder, what, count, some[0], instead)
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
    pictures: Sequence[str] | None = None,
    encode: Callable[[Sequence[Path]], Iterator[np.ndarray]] | None = None,
    progress: Callable[[int, int], None] | None = None,
    report: Callable[[str], None] | None = None,
) -> FeatureCache:
    """Encode the pictures of a dataset that its cache lacks; what was replaced is encoded anew.

    Args:
        dataset: whose pictures they are.
        encoder: a frozen encoder.
        device: where to compute.
        precision: to compute in.
        flip: also encode each picture mirrored left to right.
        batch: pictures a forward pass.
        workers: processes that open pictures meanwhile; 0 opens them in threads of this one.
        pictures: names of those that will be asked for, all of the dataset if not given. The rest
            may be encoded later, into the same cache.
        encode: gives records (N, F, h, w, C) of pictures in their order, as ``encode_records``
            makes them, so many at a time as it likes; instead of the encoder here.
        progress: called with (pictures done, pictures in all) after each batch.
        report: takes a line before the work, with its size.

    Raises:
        ImageError: a picture that cannot be opened.
        ModelError: an encoder that gives numbers that are not finite.
        WriteError: not enough room on the disk.
        DataError: a damaged cache.
    """
    encoder = encoder.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    folder = cache_folder(dataset, encoder, precision, flip=flip)
    if not folder.is_dir() and (old := sorted(folder.parent.glob("*/features.json"))):
        log.warning(
            "%s: caches of an older version are not used and can be deleted: %s",
            *(folder.parent, ", ".join(path.parent.name for path in old)),
        )
    every = {r.image for r in dataset.captions} | {r.image for r in dataset.questions}
    names = sorted(every if pictures is None else pictures)
    cache = FeatureCache(folder, dataset.root)
    if not (todo := cache.lacks(names)):
        return cache
    record = (1 + flip) * encoder.height * encoder.width * encoder.trunk_channels
    _check_room(folder, 2 * record * len(todo))
    if report:
        size = f"{2e-6 * record * len(todo):,.0f} MB"
        report(f"pictures to encode: {len(todo)} of {len(names)}, {size} in {folder}")
    with _alone(folder), worker_errors():
        cache = FeatureCache(folder, dataset.root)
        todo = cache.lacks(names)  # now that nobody else writes
        if changed := [name for name in todo if name in cache.rows]:
            log.warning(
                "%s: pictures that have changed are encoded again: %s (first: %s)",
                *(folder, len(changed), changed[0]),
            )
        rest, done = iter(todo.items()), len(names) - len(todo)
        records: list[np.ndarray] = []
        paths = [dataset.root / name for name in todo]
        here = (
            encode_records(encoder, stack_pixels(loaded).to(device), precision, flip)
            for loaded in load_pictures(paths, encoder.frame, batch=batch, workers=workers)
        )
        for made in encode(paths) if encode else here:
            records.append(made)
            count = sum(map(len, records))
            if count >= BLOCK or done + count == len(names):
                block = np.concatenate(records)
                path = folder / f"{len(list(folder.glob('*.json'))):05d}.npy"
                with atomic_path(path) as temporary:
                    np.save(temporary, block)
                about = {"pictures": list(islice(rest, count)), "crc32": zlib.crc32(block.data)}
                write_json(path.with_suffix(".json"), about)
                records, done, count = [], done + count, 0
            if progress:
                progress(done + count, len(names))
    return FeatureCache(folder, dataset.root)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process writes this cache; its lock goes when the process does."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("%s: another process encodes the pictures; waiting for it", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@torch.inference_mode()
def encode_records(
    encoder: Encoder, images: Tensor, precision: Precision, flip: bool
) -> np.ndarray:
    """Float16 records (B, F, h, w, C) of uint8 images (B, 3, S, S)."""
    with precision.autocast(images.device):
        variants = [images, images.flip(3)] if flip else [images]
        cells = torch.stack([encoder.encode(x).cells for x in variants], 1)
    largest = float(cells.abs().max())
    if not np.isfinite(largest):
        raise ModelError(f"encoder {encoder.config.name}: gives numbers that are not finite")
    if largest > LARGEST:
        log.warning("features up to %.3g are cut to %s, the largest of float16", largest, LARGEST)
    records = cells.clamp(-LARGEST, LARGEST).to(torch.float16).cpu()
    return records.unflatten(2, (encoder.height, encoder.width)).numpy()


def _check_room(folder: Path, needed: int) -> None:
    """Refuse before the work what cannot fit."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise write_error(folder, error) from error
    if needed > free:
        raise WriteError(f"{folder}: needs {needed / 1e9:.1f} GB; {free / 1e9:.1f} GB are free")

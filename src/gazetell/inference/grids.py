"""Grids of the pictures of a dataset: from a complete cache where there is one."""

from collections.abc import Iterator, Sequence

import numpy as np

from ..data.batches import PixelSource
from ..data.records import Dataset
from ..errors import DataError
from ..features import FeatureCache, cache_folder
from ..models.encoders import Grid
from .look import Looker

__all__ = ["grids"]


def grids(model: Looker, dataset: Dataset, images: Sequence[str], batch: int) -> Iterator[Grid]:
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
            yield model.encode(pixels.load(names, np.zeros(len(names), bool)))


def _cache(model: Looker, dataset: Dataset) -> FeatureCache | None:
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

"""Where the batches of a training run come from: the source of pictures and the loaders."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, DistributedSampler
from torch.utils.data import Dataset as TorchDataset

from ..data.batches import Source
from ..data.records import Dataset
from ..errors import GazetellError
from ..features import build_cache, cache_folder
from ..models.encoders import Encoder
from ..models.precision import choose_precision
from ..pictures import PixelSource
from ..progress import bar
from .history import Report
from .options import TrainOptions

__all__ = ["Batches", "picture_source"]


def picture_source(
    dataset: Dataset,
    encoder: Encoder,
    options: TrainOptions,
    pictures: Sequence[str],
    device: torch.device,
    report: Report,
    progress: bool,
) -> Source:
    """Cached grids of a frozen encoder, else the pictures themselves; nothing for a blind model."""
    if options.blind:
        return NoPictures(encoder.height * encoder.width, encoder.trunk_channels)
    needed = list(dict.fromkeys(pictures))
    if not encoder.frozen or options.features == "none":
        return PixelSource(dataset.root, needed, encoder.size)
    precision = choose_precision(device, options.precision)
    folder = cache_folder(dataset, encoder, precision, flip=options.flip)
    if (options.limit or options.overfit) and not folder.is_dir():
        # A quick try does not encode everything; a cache serves it where there is one.
        return PixelSource(dataset.root, needed, encoder.size)
    with bar("features", progress) as update:
        return build_cache(
            dataset,
            encoder,
            device,
            precision,
            flip=options.flip,
            workers=options.workers,
            progress=update,
        )


class NoPictures:
    """Grids of zeros (B, R, C) for a model that does not look: the pictures need not be there."""

    def __init__(self, regions: int, channels: int) -> None:
        self.shape = regions, channels

    def load(self, names: Sequence[str], mirrored: np.ndarray) -> torch.Tensor:
        """See ``Source.load``."""
        return torch.zeros(len(names), *self.shape, dtype=torch.float16)


class Batches(L.LightningDataModule):
    """Loaders for the Trainer, made anew each epoch so that the draws depend on it alone.

    Args:
        training: a dataset indexed by lists, with an ``epoch`` (``CaptionData``, ``QuestionData``).
        validation: likewise.
        options: of the run.
    """

    def __init__(self, training: Any, validation: Any, options: TrainOptions) -> None:
        super().__init__()
        self.training, self.validation, self.options = training, validation, options

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled by seed and epoch."""
        self.training.epoch = self.trainer.current_epoch if self.trainer else 0
        return self._loader(self.training, self.options.batch, shuffle=True)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Raise what went wrong with a batch."""
        if isinstance(batch, GazetellError):
            raise batch
        return batch

    def val_dataloader(self) -> DataLoader[Any]:
        """In order."""
        return self._loader(self.validation, 64, shuffle=False)

    def _loader(self, data: Any, batch: int, shuffle: bool) -> DataLoader[Any]:
        sampler: DistributedSampler[Any] = DistributedSampler(
            data, num_replicas=1, rank=0, shuffle=shuffle, seed=self.options.seed
        )
        sampler.set_epoch(data.epoch)
        # Worker processes pay off only where pictures are opened again and again.
        opens = isinstance(data.source, PixelSource) and not data.source.kept
        return DataLoader(
            _Told(data),
            batch,
            sampler=sampler,
            collate_fn=_as_is,
            num_workers=self.options.workers if opens else 0,
        )


class _Told(TorchDataset[Any]):
    """A dataset that gives its one-line errors away: raised in a worker they become tracebacks."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """A batch, or what went wrong with it."""
        try:
            return self.data.__getitems__(indices)
        except GazetellError as error:
            return error


def _as_is(batch: Any) -> Any:
    """The dataset makes whole batches."""
    return batch

"""Where the batches of a training run come from: the source of pictures and the loaders."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, DistributedSampler

from ..data.batches import CaptionData, PixelSource, Source
from ..data.records import CaptionRecord, Dataset
from ..data.text import Tokenizer
from ..errors import DataError
from ..features import FeatureCache, build_cache, cache_folder
from ..models.encoders import Encoder
from ..progress import bar
from .history import Report
from .options import TrainOptions

__all__ = ["CaptionBatches", "picture_source"]


def picture_source(
    dataset: Dataset,
    encoder: Encoder,
    options: TrainOptions,
    records: Sequence[CaptionRecord],
    device: torch.device,
    report: Report,
    progress: bool,
) -> Source:
    """Cached grids of a frozen encoder, else the pictures themselves."""
    needed = list(dict.fromkeys(record.image for record in records))
    if not encoder.frozen or options.features == "none":
        return PixelSource(dataset.root, needed, encoder.pixels, encoder.size)
    folder, names = cache_folder(dataset, encoder, flip=options.flip)
    if (options.limit or options.overfit) and not (folder / "features.json").is_file():
        # A quick try does not encode everything; a full cache serves it where there is one.
        return PixelSource(dataset.root, needed, encoder.pixels, encoder.size)
    if (folder / "features.json").is_file():
        try:
            return FeatureCache(folder)
        except DataError as error:
            report(str(error))
    with bar("features", progress) as update:
        return build_cache(
            encoder,
            dataset.root,
            names,
            folder,
            flip=options.flip,
            workers=options.workers,
            device=device,
            precision=options.precision,
            progress=update,
        )


class CaptionBatches(L.LightningDataModule):
    """Loaders for the Trainer, made anew each epoch so that the draws depend on it alone."""

    def __init__(
        self,
        training: Sequence[CaptionRecord],
        validation: Sequence[CaptionRecord],
        tokenizer: Tokenizer,
        source: Source,
        options: TrainOptions,
    ) -> None:
        super().__init__()
        self.source, self.options = source, options
        self.training = CaptionData(
            training,
            tokenizer,
            source,
            max_length=options.max_length,
            captions_per_image=options.captions_per_image,
            flip=0.5 if options.flip else 0.0,
            seed=options.seed,
        )
        self.validation = CaptionData(validation, tokenizer, source, max_length=options.max_length)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled by seed and epoch."""
        self.training.epoch = self.trainer.current_epoch if self.trainer else 0
        return self._loader(self.training, self.options.batch, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """In order."""
        return self._loader(self.validation, 64, shuffle=False)

    def _loader(self, data: CaptionData, batch: int, shuffle: bool) -> DataLoader[Any]:
        trainer = self.trainer
        sampler: DistributedSampler[Any] = DistributedSampler(
            data,
            num_replicas=trainer.world_size if trainer else 1,
            rank=trainer.global_rank if trainer else 0,
            shuffle=shuffle,
            seed=self.options.seed,
        )
        sampler.set_epoch(data.epoch)
        # Worker processes pay off only where pictures are opened again and again.
        opens = isinstance(self.source, PixelSource) and not self.source.kept
        return DataLoader(
            data,
            batch,
            sampler=sampler,
            collate_fn=_as_is,
            num_workers=self.options.workers if opens else 0,
        )


def _as_is(batch: Any) -> Any:
    """The dataset makes whole batches."""
    return batch

"""Many pictures: opened in threads, captioned in batches, one bad picture spoils no other."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import ImageError, UsageError
from ..pictures import open_image, preview
from .predictor import Caption, Captioner

__all__ = ["caption_many"]

Item = bytes | str | os.PathLike[str]


def caption_many(
    model: Captioner, items: Iterable[Item], *, batch: int = 16, **options: Any
) -> Iterator[tuple[Item, Caption | ImageError]]:
    """Yield each picture with its caption, or with the error why it could not be opened.

    Args:
        model: a loaded captioner.
        items: paths or bytes, in any number; they are read as the work goes on.
        batch: pictures a forward pass.
        options: see ``Captioner.caption``.

    Raises:
        UsageError: an option out of its range.
    """
    if batch < 1:
        raise UsageError(f"batch {batch}: expected 1 or more")
    chosen = model.options(**options)
    rest = iter(items)

    def read(item: Item) -> tuple[np.ndarray, Image.Image] | ImageError:
        try:
            picture = open_image(item, near=model.side)
        except ImageError as error:
            return error
        return model.encoder.pixels(picture), preview(picture)

    with ThreadPoolExecutor(2) as pool:
        ahead = [(item, pool.submit(read, item)) for item in islice(rest, batch)]
        while ahead:
            # The next batch is opened while this one is captioned.
            following = [(item, pool.submit(read, item)) for item in islice(rest, batch)]
            opened = [(item, task.result()) for item, task in ahead]
            good = [result for _, result in opened if not isinstance(result, ImageError)]
            captions: Iterator[Caption] = iter(())
            if good:
                pixels = torch.from_numpy(np.stack([pixels for pixels, _ in good]))
                captions = iter(model.decode(model.grid(pixels), chosen))
            for item, result in opened:
                if isinstance(result, ImageError):
                    yield item, result
                else:
                    yield item, replace(next(captions), image=result[1])
            ahead = following

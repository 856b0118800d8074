"""Many pictures: opened in threads, captioned in batches, one bad picture spoils no other."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import ImageError, UsageError
from ..pictures import open_image, preview
from .predict import Caption, Captioner

__all__ = ["caption_many"]

Item = bytes | str | os.PathLike[str]


def caption_many(
    model: Captioner,
    items: Iterable[Item],
    *,
    batch: int = 16,
    positions: Iterable[int] | None = None,
    **options: Any,
) -> Iterator[tuple[Item, Caption | ImageError]]:
    """Yield each picture with its caption, or with the error why it could not be opened.

    Args:
        model: a loaded captioner.
        items: paths or bytes, in any number; they are read as the work goes on.
        batch: pictures a forward pass.
        positions: the number of each item, which keeps random draws apart; counted if not given.
        options: see ``Captioner.caption``.

    Raises:
        UsageError: an option out of its range.
    """
    if batch < 1:
        raise UsageError(f"batch {batch}: expected 1 or more")
    chosen = model.options(**options)
    rest = zip(items, count() if positions is None else positions, strict=False)

    def read(item: Item) -> tuple[np.ndarray, Image.Image] | ImageError:
        try:
            picture = open_image(item, near=model.side)
        except ImageError as error:
            return error
        return model.encoder.pixels(picture), preview(picture)

    with ThreadPoolExecutor(2) as pool:
        ahead = [(item, place, pool.submit(read, item)) for item, place in islice(rest, batch)]
        while ahead:
            # The next batch is opened while this one is captioned.
            following = [
                (item, place, pool.submit(read, item)) for item, place in islice(rest, batch)
            ]
            opened = [(item, place, task.result()) for item, place, task in ahead]
            good = [(place, x) for _, place, x in opened if not isinstance(x, ImageError)]
            captions: Iterator[Caption] = iter(())
            if good:
                pixels = torch.from_numpy(np.stack([pixels for _, (pixels, _) in good]))
                places = [place for place, _ in good]
                captions = iter(model.decode(model.grid(pixels), chosen, places))
            for item, _, result in opened:
                if isinstance(result, ImageError):
                    yield item, result
                else:
                    yield item, replace(next(captions), image=result[1])
            ahead = following

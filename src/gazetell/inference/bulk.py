"""Many pictures: opened in threads, captioned in batches, one bad picture spoils no other."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count, islice, tee
from typing import Any

from ..errors import ImageError, UsageError
from ..pictures import load_pictures, stack_pixels
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
    queue, rest = tee(items)
    places = iter(count() if positions is None else positions)
    for loaded in load_pictures(queue, model.encoder.size, batch=batch, with_preview=True):
        rows = list(zip(islice(rest, len(loaded)), places, loaded, strict=False))
        good = [(place, x) for _, place, x in rows if not isinstance(x, ImageError)]
        captions: Iterator[Caption] = iter(())
        if good:
            grid = model.grid(stack_pixels([picture for _, picture in good]))
            captions = iter(model.decode(grid, chosen, [place for place, _ in good]))
        for item, _, picture in rows:
            if isinstance(picture, ImageError):
                yield item, picture
            else:
                yield item, replace(next(captions), image=picture.preview)

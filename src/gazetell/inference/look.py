"""A picture is encoded once: what captioners and answerers share when they are used.

look = model.look("photo.jpg")
model.caption(look); other.ask(look, "Is it raining?"); other.ask(look, "What colour is the car?")
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..data.images import open_image
from ..errors import ModelError
from ..models.encoders import Encoder, Grid
from ..models.precision import choose_device, choose_precision

__all__ = ["SHOWN", "Look", "Looker", "Picture", "fetch", "rows", "shown", "together"]

# Pictures are kept with a caption for the gaze at no more than this many pixels a side.
SHOWN = 640


@dataclass(frozen=True)
class Look:
    """A picture that has been encoded.

    Attributes:
        grid: of the CNN, before any projection; one picture.
        image: the picture, at most 640 px a side.
        encoder: fingerprint of the encoder that made the grid.
    """

    grid: Grid
    image: Image.Image
    encoder: str


Picture = bytes | str | os.PathLike[str] | Image.Image | Look


class Looker:
    """The encoder of a loaded model, on its device.

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
        self.near = max(SHOWN, self.encoder.size)

    def look(self, image: Picture) -> Look:
        """Encode a picture once, for a caption and any number of questions.

        Args:
            image: a path, the bytes of a file, a PIL image, or what ``look`` of a model with the
                same encoder gave.

        Raises:
            ImageError: the picture cannot be opened.
            ModelError: looked at by another encoder.
        """
        return self.looks([image])[0]

    def looks(self, images: Sequence[Picture]) -> list[Look]:
        """``look`` at several pictures in one batch."""
        for image in images:
            if isinstance(image, Look) and image.encoder != self.fingerprint:
                raise ModelError("the picture was looked at by a model with another encoder")
        fresh = [image for image in images if not isinstance(image, Look)]
        pictures = [open_image(image, near=self.near) for image in fresh]
        new: list[Look] = []
        if pictures:
            pixels = np.stack([self.encoder.pixels(picture) for picture in pictures])
            grid = self.encode(torch.from_numpy(pixels))
            new = [
                Look(rows(grid, n, n + 1), shown(picture), self.fingerprint)
                for n, picture in enumerate(pictures)
            ]
        made = iter(new)
        return [image if isinstance(image, Look) else next(made) for image in images]

    @torch.inference_mode()
    def encode(self, images: torch.Tensor) -> Grid:
        """The CNN's grid of uint8 images (B, 3, S, S), before any projection."""
        with self.precision.autocast(self.device):
            return self.encoder.encode(images.to(self.device))


def rows(grid: Grid, begin: int, end: int) -> Grid:
    """Some pictures of a grid."""
    return grid._replace(cells=grid.cells[begin:end], pooled=grid.pooled[begin:end])


def together(grids: Sequence[Grid]) -> Grid:
    """Grids of the same encoder as one batch."""
    return grids[0]._replace(
        cells=torch.cat([grid.cells for grid in grids]),
        pooled=torch.cat([grid.pooled for grid in grids]),
    )


def shown(picture: Image.Image) -> Image.Image:
    """A picture no larger than is needed to show it."""
    if max(picture.size) > SHOWN:
        picture = picture.copy()
        picture.thumbnail((SHOWN, SHOWN))
    return picture


def fetch(path: str | os.PathLike[str]) -> Path:
    """The local folder of a model, fetched from the hub where ``path`` is ``hf://owner/name``."""
    name = os.fspath(path)
    if not name.startswith("hf://"):
        return Path(name)
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "README.md"]
    try:
        return Path(snapshot_download(name.removeprefix("hf://"), allow_patterns=wanted))
    except Exception as error:  # the hub's own errors have no common base
        raise ModelError(f"{name}: cannot be fetched: {error}") from error

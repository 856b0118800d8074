"""Published or local weights for a torchvision network, and the transform that belongs to them."""

import logging
import re
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torchvision import models as zoo
from torchvision.models import WeightsEnum

from ..errors import ModelError, UsageError

log = logging.getLogger(__name__)
# Published DenseNets still have names with a dot that the modules lost ("denselayer1.norm.1").
_DENSE = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def load_pretrained(network: nn.Module, name: str, weights: str) -> dict[str, Any]:
    """Load ``weights`` into ``network`` strictly and return their transform.

    Args:
        network: a torchvision model with its classifier.
        name: its torchvision name.
        weights: a torchvision enum name (``IMAGENET1K_V2``) or a local file.

    Returns:
        What is known of ``size``, ``mean``, ``std`` and ``padding``: from the enum's transform
        (also for a file that was downloaded under its published name), or from the metadata of a
        safetensors file. Of an enum also ``weights``, its name: ``DEFAULT`` means another one in
        another version of torchvision.

    Raises:
        UsageError: neither a file nor an enum name of this network.
        ModelError: weights that cannot be downloaded or read, do not fit, or are not finite.
    """
    if Path(weights).suffix in (".safetensors", ".pth", ".pt"):
        state, transform = read_state_dict(weights)
        for entry in zoo.get_model_weights(name):
            if Path(entry.url).name == Path(weights).name:
                transform = _preset(name, entry)
    else:
        state, transform = _published(name, weights)
    # Training wrappers prefix every name.
    state = {_DENSE.sub(r"\1\2", key.removeprefix("module.")): x for key, x in state.items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"{weights}: does not fit {name}: {first[:200]}") from error
    if broken := next((key for key, x in state.items() if not x.isfinite().all()), None):
        raise ModelError(f"{weights}: {broken} has numbers that are not finite")
    return transform


def read_state_dict(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a ``.safetensors`` or ``.pth`` file and the transform its metadata tell.

    A ``.pth`` file is read with ``weights_only=True``: no code in it is run.

    Raises:
        ModelError: missing, truncated, or no state dict.
    """
    path = Path(path)
    metadata: dict[str, str] = {}
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                metadata = file.metadata() or {}
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load lets pickle's own errors through
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{path}: is no plain state dict that can be read: {reason}") from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise ModelError(f"{path}: expected a state dict (name to tensor), found something else")
    paddings = {name: name for name in ("stock", "same")}
    readers: dict[str, Callable[[str], Any]] = {"size": int, "mean": _three, "std": _three}
    readers["padding"] = paddings.__getitem__
    try:
        return state, {key: read(metadata[key]) for key, read in readers.items() if key in metadata}
    except (ValueError, KeyError) as error:
        raise ModelError(
            f"{path}: metadata are malformed ({error}); expected size as a number, "
            "mean and std as three numbers with commas, padding as stock or same"
        ) from error


def _three(text: str) -> tuple[float, float, float]:
    """Three numbers with commas; ValueError for anything else."""
    red, green, blue = (float(part) for part in text.split(","))
    return red, green, blue


def _published(name: str, weights: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and transform of a torchvision weight enum."""
    enum = zoo.get_model_weights(name)
    if weights not in enum.__members__:
        raise UsageError(
            f"encoder weights {weights!r}: expected a .safetensors or .pth file, none, or one of "
            f"{', '.join(enum.__members__)}"
        )
    entry = enum[weights]
    try:
        state = entry.get_state_dict(progress=False, check_hash=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise ModelError(
            f"weights {name} {weights} cannot be downloaded ({error}); fetch {entry.url} where "
            f"there is a network and pass the file: --encoder-weights {Path(entry.url).name}"
        ) from error
    if entry.name != weights:
        log.warning("encoder weights %s are %s here", weights, entry.name)
    return dict(state), _preset(name, entry) | {"weights": entry.name}


def _preset(name: str, entry: WeightsEnum) -> dict[str, Any]:
    """The transform of a torchvision weight enum."""
    preset = entry.transforms()
    mean, std = tuple(preset.mean), tuple(preset.std)
    if name in ("googlenet", "inception_v3"):
        # Torchvision normalises as for ImageNet and has these two undo it in their first step,
        # which only its own constructor switches on; this is what comes out of both.
        mean = std = (0.5, 0.5, 0.5)
    return {"size": preset.crop_size[0], "mean": mean, "std": std}

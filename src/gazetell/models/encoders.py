"""Encoders: a picture becomes a grid of regions.

Any torchvision classification CNN by name, cut at its last spatial map (or at a node of one's
choice), or ``small-cnn``, a small network to be trained from scratch. Input size, mean and
standard deviation belong to the weights and travel with them in ``EncoderConfig``.

Shapes: ``B`` batch, ``S`` input side in pixels, ``h w`` grid height and width, ``R = h*w``
regions in reading order (row 0 on top), ``C`` channels.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models as zoo
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from ..errors import UsageError
from .config import Config
from .weights import load_pretrained

__all__ = [
    "SMALL_CNN",
    "Encoder",
    "EncoderConfig",
    "Grid",
    "SamePaddedConv2d",
    "encoder_names",
    "pad_as_tensorflow",
]

SMALL_CNN = "small-cnn"


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


@dataclass(frozen=True)
class EncoderConfig(Config):
    """Everything that makes an encoder what it is, apart from the weights' numbers.

    Attributes:
        name: a torchvision classification model, or ``small-cnn``.
        weights: a torchvision enum name (``IMAGENET1K_V2``), a local ``.safetensors``/``.pth``
            file with a state dict, or ``none`` for random initialisation.
        layer: the graph node whose output is the grid; None is the last spatial map. A node with
            a flat output (VGG's ``classifier.3``) gives a grid of one cell.
        size: input side S in pixels; pictures are resized to S x S without cropping. None takes
            the weights' own.
        mean: per channel, of pixels in [0, 1]. None takes the weights' own.
        std: likewise.
        padding: ``stock``, or ``same`` for weights converted from TensorFlow, whose strided
            convolutions pad less on the left and top. None takes the weights' own.
        trainable: ``none``, ``all``, or ``last:N`` for the last N stages.
        project: replace the classifier by a 1x1 convolution to this many channels, or None.
    """

    what = "encoder"

    name: str = "regnet_x_400mf"
    weights: str = "none"
    layer: str | None = None
    size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    padding: str | None = None
    trainable: str = "none"
    project: int | None = None

    def __post_init__(self) -> None:
        if self.name != SMALL_CNN and self.name not in encoder_names():
            raise UsageError(
                f"encoder {self.name!r} is unknown; expected {SMALL_CNN} or a torchvision "
                "classification model (gazetell models lists them)"
            )
        if self.padding not in (None, "stock", "same"):
            raise UsageError(f"encoder padding {self.padding!r}: expected stock or same")
        if self.trainable not in ("none", "all") and not _last_stages(self.trainable):
            raise UsageError(f"encoder trainable {self.trainable!r}: expected none, all or last:N")
        if self.size is not None and not 32 <= self.size <= 1024:
            raise UsageError(f"encoder size {self.size}: expected 32 to 1024 pixels")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and (len(values) != 3 or (name == "std" and min(values) <= 0)):
                raise UsageError(f"encoder {name} {values}: expected three numbers, std above 0")
        if self.project is not None and self.project < 1:
            raise UsageError(f"encoder project {self.project}: expected a positive number")


def encoder_names() -> list[str]:
    """The torchvision classification CNNs (transformers have no grid to cut out)."""
    return zoo.list_models(module=zoo, exclude=["vit_*", "swin_*", "maxvit_*"])


def _last_stages(trainable: str) -> int:
    """N of ``last:N``, 0 if it is something else."""
    head, _, number = trainable.partition(":")
    return int(number) if head == "last" and number.isdecimal() else 0


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
        transform: dict[str, Any] = {}
        network: nn.Module
        if config.name == SMALL_CNN:
            network = SmallCNN()
            transform = {"size": 128, "mean": (0.5,) * 3, "std": (0.25,) * 3}
            if pretrained and config.weights != "none":
                raise UsageError(f"{SMALL_CNN} has no published weights; expected weights none")
            if config.layer:
                raise UsageError(f"{SMALL_CNN} has one map: layer {config.layer!r} is unknown")
        else:
            network = zoo.get_model(config.name, weights=None)
            if pretrained and config.weights != "none":
                transform = load_pretrained(network, config.name, config.weights)
        # What the user said wins over what the weights say, which wins over ImageNet's usual.
        chosen = {
            "size": config.size or transform.get("size", 224),
            "mean": config.mean or transform.get("mean", (0.485, 0.456, 0.406)),
            "std": config.std or transform.get("std", (0.229, 0.224, 0.225)),
            "padding": config.padding or transform.get("padding", "stock"),
        }
        if chosen["padding"] == "same":
            pad_as_tensorflow(network)
        layer = config.layer or (
            "" if config.name == SMALL_CNN else last_spatial_node(network, config.name)
        )
        self.config = EncoderConfig(**{**asdict(config), **chosen, "layer": layer or None})
        self.trunk = _cut(network, layer, config.name) if layer else network
        self.register_buffer("mean", torch.tensor(chosen["mean"]).view(1, 3, 1, 1) * 255, False)
        self.register_buffer("std", torch.tensor(chosen["std"]).view(1, 3, 1, 1) * 255, False)
        self.trunk_channels, self.height, self.width = self._measure()
        self.channels = config.project or self.trunk_channels
        # A 1x1 convolution of the map is an affine map of each cell.
        self.project = nn.Linear(self.trunk_channels, config.project) if config.project else None
        self._freeze()

    @property
    def size(self) -> int:
        """Input side S in pixels."""
        return int(self.config.size or 224)

    @property
    def frozen(self) -> bool:
        """Whether no parameter of the trunk is trained, so that its grids can be cached."""
        return self._trunk_frozen

    def forward(self, images: Tensor) -> Grid:
        """The grid (B, R, C) of uint8 images (B, 3, S, S)."""
        return self.project_grid(self.encode(images))

    def encode(self, images: Tensor) -> Grid:
        """The trunk's grid, before the projection: what a feature cache holds."""
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._trunk_frozen):
            features = self.trunk(x)
        if isinstance(features, dict):
            features = features["grid"]
        if features.dim() == 2:  # (B, C): a grid of one cell
            features = features[:, :, None, None]
        height, width = features.shape[2:]
        cells = features.flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, R, C)
        return Grid.of(cells.float(), height, width)

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
        values = self.config.to_dict()
        # Where the weights came from and what is trained do not change the grids.
        other = ("weights", "trainable", "project")
        identity = {k: v for k, v in values.items() if k not in other}
        digest = hashlib.sha256(repr(sorted(identity.items())).encode())
        for name, tensor in sorted(self.trunk.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _measure(self) -> tuple[int, int, int]:
        """Channels, height and width of the grid for this input size."""
        was_training = self.trunk.training
        self.trunk.eval()
        try:
            with torch.no_grad():
                out = self.trunk(torch.zeros(1, 3, self.size, self.size))
        except RuntimeError as error:
            raise UsageError(
                f"encoder {self.config.name} cannot take pictures of {self.size} pixels: {error}"
            ) from error
        self.trunk.train(was_training)
        out = out["grid"] if isinstance(out, dict) else out
        if not isinstance(out, Tensor) or out.dim() not in (2, 4):
            found = f"{out.dim()} dimensions" if isinstance(out, Tensor) else type(out).__name__
            raise UsageError(
                f"layer {self.config.layer!r} of {self.config.name} gives {found}; "
                "expected a spatial map (4 dimensions) or a vector (2)"
            )
        height, width = (out.shape[2], out.shape[3]) if out.dim() == 4 else (1, 1)
        return int(out.shape[1]), int(height), int(width)

    def _freeze(self) -> None:
        """Switch gradients off outside the trained stages and remember what stays in eval."""
        stages = _stages(self.trunk)
        trained = {"none": 0, "all": len(stages)}.get(
            self.config.trainable, _last_stages(self.config.trainable)
        )
        frozen = stages[: max(len(stages) - trained, 0)]
        for stage in frozen:
            stage.requires_grad_(False)
        self._trunk_frozen = trained == 0
        if self.config.weights != "none":
            # Fine-tuning keeps the statistics of ImageNet: those of a small batch are worse.
            frozen = [*frozen, *(m for m in self.trunk.modules() if isinstance(m, nn.BatchNorm2d))]
        # A plain list inside a tuple, so that torch does not register the modules twice.
        self._frozen_modules = (*([self.trunk] if self._trunk_frozen else []), *frozen)
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

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 128)) -> None:
        blocks: list[nn.Module] = []
        before = 5
        for width in widths:
            kind = SamePaddedConv2d if width == widths[-1] else nn.Conv2d
            blocks += [
                kind(before, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            before = width
        for _ in range(2):
            blocks += [
                nn.Conv2d(before, before, 3, padding=1, bias=False),
                nn.BatchNorm2d(before),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, S, S) to the map (B, C, h, w)."""
        batch, _, height, width = x.shape
        rows = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype)
        columns = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype)
        y, x_ = torch.meshgrid(rows, columns, indexing="ij")
        where = torch.stack((x_, y)).expand(batch, 2, height, width)
        return super().forward(torch.cat((x, where), 1))


class SamePaddedConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME, for weights that were trained there.

    For input side ``n``, kernel ``k``, stride ``s`` and dilation ``d`` the output has
    ``ceil(n / s)`` places, and ``max((ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)`` zeros are
    added in all: half of them, rounded down, on the left and top, the others on the right and
    below. PyTorch's own padding is the same on both sides, which looks one pixel further up and
    left where a stride is even.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Pad by the input's size, then convolve."""
        pads: list[int] = []
        for n, k, s, d in zip(
            reversed(input.shape[2:]),
            reversed(self.kernel_size),
            reversed(self.stride),
            reversed(self.dilation),
            strict=True,
        ):
            total = max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(
            F.pad(input, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


def pad_as_tensorflow(network: nn.Module) -> None:
    """Turn the padded strided convolutions into SAME ones, in place.

    With stride 1 and odd kernels TensorFlow's padding is the stock symmetric one.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1 and module.padding != (0, 0):
            module.__class__ = SamePaddedConv2d


_LEAVES = {"leaf_modules": [SamePaddedConv2d]}


def _cut(network: nn.Module, layer: str, name: str) -> nn.Module:
    """The network up to ``layer``."""
    try:
        return create_feature_extractor(
            network, {layer: "grid"}, tracer_kwargs=_LEAVES, suppress_diff_warning=True
        )
    except ValueError as error:
        _, nodes = get_graph_node_names(network, tracer_kwargs=_LEAVES, suppress_diff_warning=True)
        raise UsageError(
            f"encoder {name} has no layer {layer!r}; the last ones are {', '.join(nodes[-8:])}"
        ) from error


def last_spatial_node(network: nn.Module, name: str) -> str:
    """The name of the last node with a map (B, C, h, w) larger than 1 x 1.

    A pooling to a fixed size (VGG's 7 x 7 before its classifier) does not count: it would undo a
    larger input.
    """
    modules = dict(network.named_modules())
    _, nodes = get_graph_node_names(network, tracer_kwargs=_LEAVES, suppress_diff_warning=True)
    was_training = network.training
    every = create_feature_extractor(
        network, nodes, tracer_kwargs=_LEAVES, suppress_diff_warning=True
    ).eval()
    with torch.no_grad():
        outputs = every(torch.zeros(1, 3, 128, 128))
    network.train(was_training)
    spatial = [
        node
        for node, value in outputs.items()
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

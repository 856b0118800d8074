"""Weights files: what they carry, and what is refused by name."""

import io
import pickle
import re
import urllib.error
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save, save_file
from torchvision import models as zoo
from torchvision.models import DenseNet, GoogLeNet, Inception3, WeightsEnum

from gazetell.errors import ModelError, UsageError
from gazetell.models import weights as module
from gazetell.models.encoders import Encoder, EncoderConfig
from gazetell.models.weights import load_pretrained, read_state_dict

NAME = "squeezenet1_1"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(7)
    return {k: v.clone() for k, v in zoo.squeezenet1_1().state_dict().items()}


@pytest.fixture
def network():
    torch.manual_seed(8)
    return zoo.squeezenet1_1()


def same(network, state):
    found = network.state_dict()
    return set(found) == set(state) and all(torch.equal(found[k], state[k]) for k in state)


def test_a_safetensors_file_brings_its_transform(network, state, tmp_path):
    file = tmp_path / "net.safetensors"
    metadata = {"size": "192", "mean": "0.5, 0.25,0.125", "std": "1,2,4.5", "padding": "same"}
    save_file(state, file, metadata | {"source": "a converter"})
    assert not same(network, state)
    transform = load_pretrained(network, NAME, str(file))
    assert same(network, state)
    assert transform == {
        "size": 192,
        "mean": (0.5, 0.25, 0.125),
        "std": (1.0, 2.0, 4.5),
        "padding": "same",
    }


def test_what_the_user_says_wins_over_what_the_file_says(state, tmp_path):
    file = tmp_path / "net.safetensors"
    save_file(state, file, {"size": "96", "mean": "0.5,0.5,0.5", "padding": "same"})
    config = Encoder(EncoderConfig(NAME, str(file), size=64)).config
    assert (config.size, config.mean, config.padding) == (64, (0.5, 0.5, 0.5), "same")
    assert config.std == (0.229, 0.224, 0.225)  # nobody said: ImageNet's usual
    assert Encoder(EncoderConfig(NAME, str(file))).config.size == 96


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_a_state_dict_of_torch(network, state, tmp_path, suffix):
    file = tmp_path / f"net{suffix}"
    torch.save(state, file)
    assert load_pretrained(network, NAME, str(file)) == {}
    assert same(network, state)


def test_the_prefix_of_a_training_wrapper_is_dropped(network, state, tmp_path):
    file = tmp_path / "net.pth"
    torch.save({f"module.{k}": v for k, v in state.items()}, file)
    load_pretrained(network, NAME, str(file))
    assert same(network, state)


def test_densenet_files_with_the_old_names_fit(tmp_path):
    network = DenseNet(4, (2, 1), num_init_features=6, bn_size=2, num_classes=3)
    state = {k: torch.randn_like(v.float()).to(v.dtype) for k, v in network.state_dict().items()}
    old = {re.sub(r"(norm|relu|conv)([12])\.", r"\1.\2.", k): v for k, v in state.items()}
    assert "features.denseblock1.denselayer2.norm.1.weight" in old
    torch.save(old, tmp_path / "dense.pth")
    load_pretrained(network, "densenet121", str(tmp_path / "dense.pth"))
    assert same(network, state)


class Trap:
    """A pickle that runs code when it is opened."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_a_pickled_object_is_refused_and_not_run(tmp_path, protocol):
    mark, file = tmp_path / "ran", tmp_path / "net.pth"
    if protocol == "torch":
        torch.save({"weight": Trap(mark)}, file)
    else:
        file.write_bytes(pickle.dumps(Trap(mark), 2))
    with pytest.raises(ModelError, match=r"net\.pth: is no"):
        read_state_dict(file)
    assert not mark.exists()


def test_a_module_pickled_whole_is_refused(tmp_path, network):
    torch.save(network, tmp_path / "net.pth")
    with pytest.raises(ModelError, match=r"net\.pth: is no plain state dict"):
        read_state_dict(tmp_path / "net.pth")


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(1)],
        {"state_dict": {"weight": torch.zeros(1)}},
        {"epoch": 3},
        {0: torch.zeros(1)},
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(ModelError, match=r"net\.pth: expected a state dict"):
        read_state_dict(tmp_path / "net.pth")


def truncated(state, kind):
    if kind == "safetensors":
        return save(state)[:-100]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()[:-100]


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_damaged_file_is_named(state, tmp_path, kind, damage):
    file = tmp_path / f"net.{kind}"
    contents = {"empty": b"", "text": b"<html>404 not found</html>\n"}
    file.write_bytes(truncated(state, kind) if damage == "truncated" else contents[damage])
    with pytest.raises(ModelError) as caught:
        read_state_dict(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(network, tmp_path):
    with pytest.raises(ModelError, match=r"none\.pth: no such weights file"):
        load_pretrained(network, NAME, str(tmp_path / "none.pth"))


def test_weights_of_another_network_are_refused(network, tmp_path):
    file = tmp_path / "other.safetensors"
    save_file(zoo.shufflenet_v2_x0_5().state_dict(), file)
    with pytest.raises(ModelError, match=rf"other\.safetensors: does not fit {NAME}") as caught:
        load_pretrained(network, NAME, str(file))
    assert len(str(caught.value)) < 400


def test_weights_that_are_not_finite_are_refused(network, state, tmp_path):
    state = state | {"features.0.weight": state["features.0.weight"] * torch.nan}
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(ModelError, match=r"features\.0\.weight has numbers that are not finite"):
        load_pretrained(network, NAME, str(tmp_path / "nan.safetensors"))


def test_weights_that_lack_one_tensor_are_refused(network, state, tmp_path):
    part = {k: v for k, v in state.items() if k != "features.0.weight"}
    save_file(part, tmp_path / "part.safetensors")
    with pytest.raises(ModelError, match=r"features\.0\.weight"):
        load_pretrained(network, NAME, str(tmp_path / "part.safetensors"))


@pytest.mark.parametrize(
    "metadata",
    [
        {"size": "large"},
        {"mean": "0.5,0.5"},
        {"mean": "0.5;0.5;0.5"},
        {"std": ""},
        {"padding": "valid"},
    ],
)
def test_malformed_metadata_are_named(tmp_path, metadata):
    file = tmp_path / "net.safetensors"
    save_file({"weight": torch.zeros(1)}, file, metadata)
    with pytest.raises(ModelError, match=r"net\.safetensors: metadata are malformed"):
        read_state_dict(file)


def test_an_unknown_name_is_answered_with_those_there_are(network):
    with pytest.raises(UsageError, match=r"'IMAGENET22K'.*IMAGENET1K_V1"):
        load_pretrained(network, NAME, "IMAGENET22K")


@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError("no route to host"),
        urllib.error.HTTPError("u", 403, "Forbidden", {}, None),
        TimeoutError("timed out"),
        RuntimeError("invalid hash value"),
    ],
)
def test_a_failed_download_says_what_to_fetch_and_which_option_takes_it(
    network, monkeypatch, failure
):
    def fail(self, *args, **kwargs):
        raise failure

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    with pytest.raises(ModelError) as caught:
        load_pretrained(network, NAME, "IMAGENET1K_V1")
    message = str(caught.value)
    url = zoo.SqueezeNet1_1_Weights.IMAGENET1K_V1.url
    assert url in message
    assert f"--encoder-weights {url.rsplit('/', 1)[1]}" in message
    assert "\n" not in message


def test_published_weights_bring_their_transform(network, state, monkeypatch, caplog):
    asked = []

    def have(self, **options):
        asked.append((self.name, options["check_hash"]))
        return state

    monkeypatch.setattr(WeightsEnum, "get_state_dict", have)
    transform = load_pretrained(network, NAME, "IMAGENET1K_V1")
    assert asked == [("IMAGENET1K_V1", True)]
    assert same(network, state)
    assert transform == {
        "size": 224,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "weights": "IMAGENET1K_V1",
    }
    assert load_pretrained(network, NAME, "DEFAULT")["weights"] == "IMAGENET1K_V1"
    assert "encoder weights DEFAULT are IMAGENET1K_V1 here" in caplog.text


def test_a_published_file_that_was_fetched_by_hand_keeps_its_transform(tmp_path, monkeypatch):
    # Inputs of 240 pixels: not what a file that says nothing would be taken for.
    url = zoo.EfficientNet_B1_Weights.IMAGENET1K_V2.url
    file = tmp_path / url.rsplit("/", 1)[1]
    torch.save(torch.nn.Linear(1, 1).state_dict(), file)
    transform = load_pretrained(torch.nn.Linear(1, 1), "efficientnet_b1", str(file))
    assert transform["size"] == 240
    file = file.rename(tmp_path / "mine.pth")
    assert load_pretrained(torch.nn.Linear(1, 1), "efficientnet_b1", str(file)) == {}


@pytest.mark.parametrize(
    ("name", "network", "entry"),
    [
        ("googlenet", GoogLeNet, zoo.GoogLeNet_Weights.IMAGENET1K_V1),
        ("inception_v3", Inception3, zoo.Inception_V3_Weights.IMAGENET1K_V1),
    ],
)
def test_networks_that_undo_imagenets_normalisation(name, network, entry):
    """What their first layer gets is what torchvision's own constructor would feed it."""
    preset = entry.transforms()
    pixels = torch.rand(1, 3, 4, 4)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (preset.mean, preset.std))
    switched_on = SimpleNamespace(transform_input=True)
    expected = network._transform_input(switched_on, (pixels - mean) / std)
    ours = module._preset(name, entry)
    mean, std = (torch.tensor(ours[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    assert torch.allclose((pixels - mean) / std, expected, atol=1e-6)

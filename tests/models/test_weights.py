"""Weights files: what they carry, and what is refused by name."""

import pickle
import re
import urllib.error
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models as zoo
from torchvision.models import DenseNet, GoogLeNet, Inception3, WeightsEnum

from gazetell.errors import ModelError, UsageError
from gazetell.models import weights as module
from gazetell.models.encoders import Encoder, EncoderConfig, encoder_names
from gazetell.models.weights import load_pretrained, read_state_dict

NAME = "squeezenet1_1"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
TENSOR = {"weight": torch.zeros(1)}


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(7)
    return {k: v.clone() for k, v in zoo.squeezenet1_1().state_dict().items()}


@pytest.fixture
def network():
    torch.manual_seed(8)
    return zoo.squeezenet1_1()


def same(network, state):
    loaded = network.state_dict()
    return set(loaded) == set(state) and all(torch.equal(loaded[k], state[k]) for k in state)


def save(state, file, metadata=None):
    if file.suffix == ".safetensors":
        save_file(state, file, metadata)
    else:
        torch.save(state, file)
    return file


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth", "net.pt"])
@pytest.mark.parametrize("prefix", ["", "module."])  # of a training wrapper
def test_a_local_file(network, state, tmp_path, name, prefix):
    file = save({prefix + k: v for k, v in state.items()}, tmp_path / name)
    assert not same(network, state)
    assert load_pretrained(network, NAME, str(file)) == {}
    assert same(network, state)


def test_a_file_brings_its_transform_and_what_the_user_says_wins(network, state, tmp_path):
    metadata = {"size": "96", "mean": "0.5, 0.25,0.125", "std": "1,2,4.5", "padding": "stock"}
    file = save(state, tmp_path / "net.safetensors", metadata | {"source": "a converter"})
    transform = load_pretrained(network, NAME, str(file))
    mean, std = (0.5, 0.25, 0.125), (1.0, 2.0, 4.5)
    assert transform == {"size": 96, "mean": mean, "std": std}
    config = Encoder(EncoderConfig(NAME, str(file), size=64)).config
    assert (config.size, config.mean, config.std) == (64, mean, std)
    plain = Encoder(EncoderConfig(NAME, str(save(state, tmp_path / "plain.safetensors")))).config
    assert (plain.size, plain.mean, plain.std) == (224, *IMAGENET.values())  # nobody said


def test_densenet_files_with_the_old_names_fit(tmp_path):
    network = DenseNet(4, (2, 1), num_init_features=6, bn_size=2, num_classes=3)
    state = {k: torch.randn_like(v.float()).to(v.dtype) for k, v in network.state_dict().items()}
    old = {re.sub(r"(norm|relu|conv)([12])\.", r"\1.\2.", k): v for k, v in state.items()}
    assert "features.denseblock1.denselayer2.norm.1.weight" in old
    load_pretrained(network, "densenet121", str(save(old, tmp_path / "dense.pth")))
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
    with pytest.raises(ModelError, match=r"net\.pth: is not a plain state dict"):
        read_state_dict(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content", [[torch.zeros(1)], {"state_dict": TENSOR}, {"epoch": 3}, {0: torch.zeros(1)}]
)
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    with pytest.raises(ModelError, match=r"net\.pth: expected a state dict"):
        read_state_dict(save(content, tmp_path / "net.pth"))


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "missing"])
def test_a_damaged_or_missing_file_is_named(state, network, tmp_path, name, damage):
    file = save(state, tmp_path / name)
    whole = file.read_bytes()
    contents = {"truncated": whole[:-100], "empty": b"", "text": b"<html>404 not found</html>\n"}
    file.unlink() if damage == "missing" else file.write_bytes(contents[damage])
    with pytest.raises(ModelError) as caught:
        load_pretrained(network, NAME, str(file))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: zoo.shufflenet_v2_x0_5().state_dict(), f"does not fit {NAME}"),
        (lambda state: {k: v for k, v in state.items() if k != "classifier.1.bias"},
         "classifier.1.bias"),
        (lambda state: state | {"classifier.1.bias": torch.full((1000,), torch.nan)},
         "classifier.1.bias has numbers that are not finite"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(network, state, tmp_path, change, said):
    file = save(change(state), tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=rf"other\.safetensors: .*{said}") as caught:
        load_pretrained(network, NAME, str(file))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("key", "value"),
    [("size", "large"), ("mean", "0.5,0.5"), ("mean", "0.5;0.5;0.5"), ("std", "")],
)
def test_malformed_metadata_are_named(tmp_path, key, value):
    file = save(TENSOR, tmp_path / "net.safetensors", {key: value})
    with pytest.raises(ModelError, match=r"net\.safetensors: metadata are malformed"):
        read_state_dict(file)


def test_weights_that_want_tensorflows_padding_are_refused(tmp_path):
    file = save(TENSOR, tmp_path / "net.safetensors", {"padding": "same"})
    with pytest.raises(ModelError, match=r"net\.safetensors: padding same: .*TensorFlow"):
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
    url = zoo.SqueezeNet1_1_Weights.IMAGENET1K_V1.url
    assert url in str(caught.value)
    assert f"--encoder-weights {url.rsplit('/', 1)[1]}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_published_weights_bring_their_transform(network, state, monkeypatch, caplog, capsys):
    asked = []

    def have(self, **options):
        asked.append((self.name, options["check_hash"]))
        print("Downloading")
        return state

    monkeypatch.setattr(WeightsEnum, "get_state_dict", have)
    for name in ("IMAGENET1K_V1", "DEFAULT"):  # which is another one in another version
        transform = load_pretrained(network, NAME, name)
        assert transform == {"size": 224, "weights": "IMAGENET1K_V1", **IMAGENET}
    assert capsys.readouterr() == ("", 2 * "Downloading\n")
    assert asked == [("IMAGENET1K_V1", True)] * 2
    assert same(network, state)
    assert caplog.messages == ["encoder weights DEFAULT are IMAGENET1K_V1 here"]


@pytest.mark.parametrize("name", ["vgg16", "densenet121", "convnext_tiny", "resnet50"])
def test_an_encoder_takes_its_best_published_weights(name, monkeypatch):
    asked, layer = [], torch.nn.Linear(1, 1)

    def have(self, **options):
        asked.append(self)
        return layer.state_dict()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", have)
    transform = load_pretrained(layer, name, EncoderConfig(name).weights)
    (entry,) = asked
    assert transform["size"] == entry.transforms().crop_size[0]
    measured = [each.meta["_metrics"].get("ImageNet-1K", {"acc@1": 0}) for each in type(entry)]
    top = max(each["acc@1"] for each in measured)
    assert entry.meta["_metrics"]["ImageNet-1K"]["acc@1"] == top


def test_every_encoder_has_a_default():
    """That of torchvision, where torchvision has the network."""
    for name in encoder_names():
        weights = EncoderConfig(name).weights
        if name not in (*module.LITE, "small-cnn"):
            assert zoo.get_model_weights(name)[weights] is zoo.get_model_weights(name).DEFAULT
    assert EncoderConfig("timm/resnet18").weights == "a1_in1k"
    with pytest.raises(UsageError, match="timm has it: timm/resnet18d"):
        EncoderConfig("resnet18d")


def test_a_published_file_that_was_fetched_by_hand_keeps_its_transform(tmp_path):
    # Inputs of 240 pixels: not what a file that says nothing would be taken for.
    url, layer = zoo.EfficientNet_B1_Weights.IMAGENET1K_V2.url, torch.nn.Linear(1, 1)
    file = save(layer.state_dict(), tmp_path / url.rsplit("/", 1)[1])
    assert load_pretrained(layer, "efficientnet_b1", str(file))["size"] == 240
    file = file.rename(tmp_path / "mine.pth")
    assert load_pretrained(layer, "efficientnet_b1", str(file)) == {}


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

"""Graphs that run without torch tell and answer what the torch models do."""

import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import gazetell.onnx
from gazetell.cli import _status
from gazetell.errors import ModelError, UsageError
from gazetell.inference.predict import Answerer, Captioner
from gazetell.models import export
from gazetell.models.captioners import CAPTIONERS
from gazetell.models.confidence import Novelty
from gazetell.models.decoding import DecodingOptions
from gazetell.models.export import save_graphs
from test_contributing import OWN, example

QUESTIONS = ("what is left of the red circle", "is there a zebra", "colour")
ANSWERERS = [
    ("bow-mlp", {"pooling": "mean"}),
    ("lstm-vqa", {}),
    ("attention-vqa", {"positions": True}),
    ("dmn-plus", {"question": "lstm"}),
    ("dmn-plus", {"attention_kind": "soft", "memory": "gru"}),
]


@pytest.fixture(scope="module")
def pictures(scenes_dataset):
    return [scenes_dataset.root / record.image for record in scenes_dataset.captions[:3]]


def novelty(architecture):
    """What tells every picture from those of training, or none of them."""
    return Novelty(np.ones((1, 128), np.float32) / 128**0.5, len(architecture) % 2 - 0.5)


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    """What is the same in all exports is made once: torch's tables of operators, the encoder."""
    from torch._export import utils
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    encoder, write = tmp_path_factory.mktemp("encoder") / "encoder.onnx", export._write

    def write_once(path, *rest):
        if path.name != encoder.name:
            return write(path, *rest)
        if not encoder.exists():
            write(encoder, *rest)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(encoder, path)

    with pytest.MonkeyPatch.context() as patch:
        once = staticmethod(functools.cache(ONNXRegistry.from_torchlib))
        patch.setattr(ONNXRegistry, "from_torchlib", once)
        name = "_materialize_cpp_cia_ops"
        operators = functools.cache(getattr(utils, name, lambda: None))
        patch.setattr(utils, name, operators, raising=False)
        patch.setattr(export, "_write", write_once)
        yield


def same(ours, theirs):
    """Whether two results agree, numbers within 1e-4."""
    a, b = ({**x.to_dict(), "attention": x.attention} for x in (ours, theirs))
    for name, value in b.items():
        if isinstance(value, float | np.ndarray):
            assert np.shape(a[name]) == np.shape(value), name
            assert np.abs(a[name] - value).max(initial=0) < 1e-4, name
        elif name == "top":
            for row, other in zip(a[name], value, strict=True):
                assert row["answer"] == other["answer"]
                assert abs(row["confidence"] - other["confidence"]) < 1e-4
        else:
            assert a[name] == value, name
    assert ours.image.tobytes() == theirs.image.tobytes()
    return True


@pytest.fixture(scope="module")
def own():
    """The captioner of CONTRIBUTING.md, in a module that has been imported."""
    module = ModuleType(OWN.partition(":")[0])
    exec(example("captioner"), vars(module))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        yield


@pytest.mark.parametrize("architecture", [*CAPTIONERS, OWN])
def test_captions(architecture, own, untrained, confidence, pictures, tmp_path):
    own = DecodingOptions(no_repeat_ngram=2, max_length=9)
    folder = untrained(architecture=architecture, decoding=own, confidence=confidence())
    folder.novelty = novelty(architecture)
    save_graphs(tmp_path / "graphs", folder)
    model = gazetell.onnx.load(tmp_path / "graphs", threads=1)
    reference = Captioner(folder, device="cpu", precision="fp32")
    texts = set()
    for picture in pictures:
        x, y = model.encode(picture), reference.encode(picture)
        for options in ({}, {"beam": 1}, {"beam": 5, "min_length": 4, "no_repeat_ngram": 1}):
            caption = model.caption(x, **options)
            assert same(caption, reference.caption(y, **options))
            texts.add(caption.text)
    assert len(texts) > 1


@pytest.mark.parametrize(("architecture", "options"), ANSWERERS)
def test_answers(architecture, options, untrained_answerer, pictures, tmp_path):
    folder = untrained_answerer(architecture=architecture, options=options)
    folder.temperature, folder.unknown_temperature, folder.abstain_below = 1.5, 3.0, 0.3
    folder.novelty = novelty(architecture)
    folder.sigmoid = architecture == "lstm-vqa"
    save_graphs(tmp_path / "graphs", folder)
    model = gazetell.onnx.load(tmp_path / "graphs", threads=1)
    reference = Answerer(folder, device="cpu", precision="fp32")
    for picture in pictures:
        x, y = model.encode(picture), reference.encode(picture)
        for question in QUESTIONS:
            assert same(model.ask(x, question), reference.ask(y, question))


@pytest.fixture(scope="module")
def pair(whole_pretrained, tmp_path_factory):
    """The graphs of a captioner and an answerer on one encoder, in 8 bits, by the command."""
    graphs = tmp_path_factory.mktemp("pair") / "graphs"
    assert (
        _status(["export", str(whole_pretrained / "photo"), "--onnx", str(graphs), "--int8"]) == 0
    )
    return graphs


def test_without_torch(pair, pictures, tmp_path):
    """A process that can import neither torch nor what needs it."""
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'lightning', 'scipy', 'matplotlib', 'onnx'):\n"
        "    sys.modules[name] = None\n"
        "import gazetell.onnx\n"
        f"model = gazetell.onnx.load({str(pair)!r}, threads=1)\n"
        f"picture = model.encode({str(pictures[0])!r})\n"
        "caption, answer = model.caption(picture), model.ask(picture, 'is there a circle')\n"
        f"caption.save_gaze({str(tmp_path / 'gaze.png')!r})\n"
        "print(caption.text, caption.sure, answer.text, sep='|')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    text, sure, answer = ran.stdout.strip().split("|")
    assert text
    assert answer
    assert sure == "None"
    assert (tmp_path / "gaze.png").stat().st_size > 1000


def test_what_it_has_not_is_refused_by_name(pair, pictures, untrained, untrained_answerer):
    model = gazetell.onnx.load(pair, threads=1)
    for options, message in (
        ({"sample": True}, "sample True: gazetell.onnx does not have this option"),
        ({"beam": 4, "beam_groups": 2}, "beam_groups 2: gazetell.onnx does not have this option"),
        ({"temperature": 0.5}, "temperature: has no effect without sample"),
        ({"beams": 2}, "beams: there is no such option; "),
        ({"beam": 0}, "beam 0: expected 1 to 100"),
    ):
        with pytest.raises(UsageError, match=f"^{message}"):
            model.caption(pictures[0], **options)
    with pytest.raises(UsageError, match="has no words"):
        model.ask(pictures[0], "?!")
    groups = untrained(decoding=DecodingOptions(beam=4, beam_groups=2))
    with pytest.raises(
        UsageError, match=r"^beam_groups 2: gazetell\.onnx does not have this option"
    ):
        save_graphs(pair.with_name("groups"), groups)
    with pytest.raises(ModelError, match="have different encoders"):
        save_graphs(pair.with_name("two"), untrained(), untrained_answerer(seed=1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.json").unlink(), "has no model.json"),
        (lambda folder: (folder / "model.json").write_text("[1]"), "model.json: is malformed"),
        (lambda folder: (folder / "encoder.onnx").unlink(), "encoder.onnx: cannot be read"),
        (
            lambda folder: (folder / "captioner/step.onnx").write_bytes(b"x"),
            "step.onnx: does not belong to model.json beside it",
        ),
    ],
)
def test_a_damaged_folder_is_refused(damage, message, pair, tmp_path):
    folder = shutil.copytree(pair, tmp_path / "graphs")
    damage(folder)
    with pytest.raises(ModelError, match=message):
        gazetell.onnx.load(folder)


def test_eight_bits_are_for_matrices_alone(pair):
    assert json.loads((pair / "model.json").read_text("utf-8"))["int8"]
    for path in pair.rglob("*.onnx"):
        matrices = b"DynamicQuantizeLinear" in path.read_bytes()
        assert matrices == (path.name != "encoder.onnx"), path


@pytest.mark.parametrize("options", ["--int8 --out x", "--onnx .", "--onnx x --out y", ""])
def test_options_of_the_command(options, photo, capsys):
    assert _status(["export", "photo", *options.split()]) == UsageError.exit_code
    assert capsys.readouterr().err.count("\n") == 1


def test_the_client_of_the_docs(pair, pictures, tmp_path):
    """It needs nothing of gazetell, and tells the same greedy caption."""
    guide = Path(__file__).parents[1] / "docs" / "onnx.md"
    client = re.search(r"<!-- client -->\n```python\n(.*?)```", guide.read_text("utf-8"), re.S)[1]
    assert len(client.split("\n\n")[1].splitlines()) <= 15  # besides its imports
    (tmp_path / "client.py").write_text(client)
    command = [sys.executable, "-I", "client.py", pair, pictures[1]]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    model = gazetell.onnx.load(pair, threads=1)
    own = {"beam": 1, "min_length": 0, "max_length": 20, "no_repeat_ngram": 0}
    assert ran.stdout.strip() == " ".join(model.caption(pictures[1], **own).words)


def test_what_cannot_be_written_right_is_refused(tmp_path, capfd):
    with pytest.raises(ModelError, match="expected one layer with biases, batch first"):
        export._Recurrent(torch.nn.GRU(3, 4, num_layers=2, batch_first=True))
    network, x = torch.nn.Linear(2, 2), torch.ones(2, 2)
    with pytest.raises(ModelError, match="y of its graph is not what the network gives"):
        export._write(tmp_path / "a.onnx", torch.nn.Linear.forward, network, {"x": x}, {"y": x})

    def by_value(network, x):
        return network(x) if float(x.sum()) > 9 else x

    with pytest.raises(ModelError, match="a: torch cannot export this network: "):
        export._write(tmp_path / "a.onnx", by_value, network, {"x": x}, {"y": x})
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())

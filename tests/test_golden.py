"""What must not change: files written by version 0.1 of 2026-11-26, held against the code of today.

``tests/golden/README.md`` says what each file is. A change that must alter one says so there.
"""

import io
import json
import random
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from gazetell import scenes
from gazetell.cli import _options_of, app
from gazetell.inference.predict import Answerer, Captioner
from gazetell.models.answerers import answerer_config, build_answerer
from gazetell.models.captioners import build_captioner, captioner_config
from gazetell.models.encoders import Grid
from gazetell.models.folder import load_model
from gazetell.scenes import Scene
from gazetell.serve.api import create_app
from gazetell.training.fit import resume
from gazetell.training.options import recipe_names, train_options

GOLDEN = Path(__file__).parent / "golden"


def read(name):
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


NETWORKS = read("networks.json")
EXPECTED = read("expected.json")
HELP = read("help.json")


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """The unpacked model and run folders, and the scenes that the runs were trained on."""
    folder = tmp_path_factory.mktemp("golden")
    for name in ("models", "runs"):
        with tarfile.open(GOLDEN / f"{name}.tar.xz") as archive:
            # Python has this filter since 3.11.4.
            safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            archive.extractall(folder, **safe)
    sizes = {"train": 12, "val": 6, "test": 6, "captions_per_image": 3, "questions_per_image": 2}
    scenes.generate(folder / "scenes", **sizes)
    return folder


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_the_same_numbers(name):
    """Logits, attention and gradients of every architecture, from weights of the old names."""
    kept = load_file(GOLDEN / "networks.safetensors")
    part = {k.removeprefix(f"{name}/"): v for k, v in kept.items() if k.startswith(f"{name}/")}
    weights = {k[8:]: v for k, v in part.items() if k.startswith("weights/")}
    config = NETWORKS[name]["config"]
    cells = part["inputs/cells"].double()
    height, width = {6: (2, 3)}[cells.shape[1]]
    grid = Grid.of(cells, height, width)
    if NETWORKS[name]["kind"] == "captioner":
        model = build_captioner(**captioner_config(config))
        asked = (part["inputs/tokens"],)
    else:
        model = build_answerer(**answerer_config(config))
        asked = tuple(part[f"inputs/{key}"] for key in ("tokens", "lengths", "owner"))
    model = model.double().eval()
    model.load_state_dict({k: v.double() for k, v in weights.items()})
    logits, attention = model(grid, *asked)
    draw = torch.Generator().manual_seed(7)
    total = (logits * torch.randn(logits.shape, generator=draw, dtype=torch.float64)).sum()
    assert torch.allclose(logits.float(), part["logits"], atol=1e-5, rtol=1e-5)
    assert (attention is None) == ("attention" not in part)
    if attention is not None:
        weight = torch.randn(attention.shape, generator=draw, dtype=torch.float64)
        total = total + (attention * weight).sum()
        assert torch.allclose(attention.float(), part["attention"], atol=1e-5, rtol=1e-5)
    total.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert {f"gradients/{n}" for n in gradients} == {k for k in part if k.startswith("gradients/")}
    for parameter, gradient in gradients.items():
        expected = part[f"gradients/{parameter}"]
        assert torch.allclose(gradient.float(), expected, atol=1e-4, rtol=1e-4), parameter


def test_old_model_folders_say_the_same(golden):
    folders = (golden / "models" / "captioner", golden / "models" / "answerer")
    captioner = Captioner.load(folders[0], device="cpu", precision="fp32")
    answerer = Answerer.load(folders[1], device="cpu", precision="fp32")
    pictures = [golden / "scenes" / name for name in EXPECTED["pictures"]]
    for beam, name in ((3, "captions"), (1, "greedy")):
        told = captioner.captions(pictures, beam=beam)
        assert [caption.text for caption in told] == [text for text, _ in EXPECTED[name]]
        probabilities = [log_prob for _, log_prob in EXPECTED[name]]
        assert [caption.log_prob for caption in told] == pytest.approx(probabilities, abs=1e-3)
    for image, question, text, confidence in EXPECTED["answers"]:
        answer = answerer.ask(golden / "scenes" / image, question)
        assert answer.text == text
        assert answer.confidence == pytest.approx(confidence, abs=1e-3)


@pytest.mark.parametrize("task", ["captions", "answers"])
def test_an_old_run_resumes(golden, tmp_path, task):
    """A run killed in its second epoch, moved to another folder, ends as the whole one did."""
    run = tmp_path / "run"
    shutil.copytree(golden / "runs" / f"{task}-killed", run)
    about = json.loads((run / "training.json").read_text())
    about["data"] = str(golden / "scenes")
    about["options"]["encoder_from"] = str(golden / "models" / "captioner")
    (run / "training.json").write_text(json.dumps(about))
    resume(run, report=lambda line: None)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    expected = EXPECTED[f"{task}_rows"]
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        for name in ("train_loss", "val_loss"):
            assert row[name] == pytest.approx(other[name], rel=0.02)
    weights = load_model(run).network.state_dict()
    norms = {name: float(tensor.double().norm()) for name, tensor in weights.items()}
    assert norms == pytest.approx(EXPECTED[f"{task}_norms"], rel=0.02, abs=0.02)


@pytest.mark.parametrize("name", sorted(read("recipes.json")))
def test_recipes_give_the_same_options(name):
    assert name in recipe_names()
    resolved = train_options(name).to_dict()
    before = read("recipes.json")[name]
    shared = set(resolved) & set(before)
    assert len(shared) > 20
    as_json = json.loads(json.dumps(resolved))
    assert {k: as_json[k] for k in shared} == {k: before[k] for k in shared}


def options_of(text):
    return {word.strip(",│ ") for word in text.split() if word.startswith("--")}


@pytest.mark.parametrize("verb", list(HELP), ids=lambda verb: verb or "gazetell")
def test_every_verb_still_has_its_options(verb):
    shown, words = Console(file=io.StringIO(), width=80), verb.split()
    with _options_of([*words, "--help"]):
        app.help_print(words, console=shown)
    missing = options_of(HELP[verb]) - options_of(shown.file.getvalue())
    assert not missing


def contained(old, new, where=""):
    """Yield where a JSON document lacks something that the old one had."""
    if isinstance(old, dict):
        for key, value in old.items():
            if key in ("description", "summary", "title", "operationId", "version"):
                continue
            if not isinstance(new, dict) or key not in new:
                yield f"{where}/{key}"
            else:
                yield from contained(value, new[key], f"{where}/{key}")
    elif isinstance(old, list):
        for n, value in enumerate(old):
            alike = [other for other in new if not list(contained(value, other))]
            if not alike:
                yield f"{where}[{n}]"
    elif old != new:
        yield f"{where}: {old!r} is {new!r}"


def test_the_api_keeps_what_it_had(golden):
    models = {
        "captioner": Captioner.load(golden / "models" / "captioner", precision="fp32"),
        "answerer": Answerer.load(golden / "models" / "answerer", precision="fp32"),
    }
    assert not list(contained(read("openapi.json"), create_app(models).openapi()))


def test_scenes_are_told_asked_drawn_and_judged_as_before():
    import hashlib

    kept = read("scenes.json")
    worlds = [Scene.from_dict(row) for row in kept["scenes"]]
    for i, world in enumerate(worlds):
        split = ("train", "val", "test")[i % 3]
        assert scenes.sample_scene(random.Random(f"golden {i}"), split=split) == world
        assert list(scenes.captions(world, 5, f"golden {i}")) == kept["captions"][i]
        asked = scenes.questions(world, 6, f"golden {i}")
        assert [[q.text, q.answer, q.type] for q in asked] == kept["questions"][i]
    for world, digest in zip(worlds, kept["pixels"], strict=False):
        assert hashlib.sha256(scenes.draw(world).tobytes()).hexdigest()[:16] == digest
    assert len(kept["judged"]) == 1000
    for i, caption, true, reason in kept["judged"]:
        verdict = scenes.judge(caption, worlds[i])
        assert (verdict.true, verdict.reason) == (true, reason), caption

"""The examples of CONTRIBUTING.md work: a captioner of one's own, a reader, an endpoint.

The endpoint's example stands in docs/serving.md; ``tests/serve`` runs it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import gazetell
from gazetell import cli
from gazetell.data.records import Dataset
from gazetell.errors import ModelError, UsageError
from gazetell.models.captioners import build_captioner
from gazetell.models.folder import load_model, read_config
from gazetell.serve.server import load_models
from gazetell.training.fit import resume
from gazetell.training.options import flags, train_options

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"
OWN = "mine:GRUCaptioner"
SMALL = (
    "--embedding 8 --hidden 12 --epochs 1 --batch 4 --min-frequency 1 --encoder small-cnn "
    "--encoder-weights none --encoder-size 64 --precision fp32 --device cpu"
)


def example(name):
    found = re.search(rf"<!-- {name} -->\n```python\n(.*?)```", GUIDE.read_text("utf-8"), re.S)
    return found[1]


@pytest.fixture(scope="module")
def trained(scenes_folder, tmp_path_factory):
    """A folder with the example's module and a run of it, trained by the command."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(example("captioner"))
    command = f"train {scenes_folder} --out run --architecture {OWN} --depth 2 {SMALL}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        assert cli._status(command.split()) == 0
    del sys.modules["mine"]
    return folder


@pytest.fixture
def own(trained, tmp_path, monkeypatch, capfd):
    """Run a command in a copy of that folder, where nobody has imported the module yet."""
    shutil.copytree(trained, tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)

    def run(command, status=0):
        assert cli._status(command.split()) == status
        return capfd.readouterr()

    yield run
    sys.modules.pop("mine", None)


def test_a_captioner_of_ones_own_is_used_where_it_is_trusted(own, scenes_folder):
    Image.new("RGB", (64, 64)).save("a.png")
    asked = f"error: run: architecture {OWN}: is code that is not of gazetell; expected --trust"
    for command in (
        "caption a.png --model run",
        f"evaluate run --data {scenes_folder}",
        "export run --out small",
        "models run",
        f"train {scenes_folder} --out next --init-from run",
    ):
        said = own(command, ModelError.exit_code).err.splitlines()
        assert asked in said[-1].replace(os.getcwd() + os.sep, ""), command
        assert "mine" not in sys.modules
    with pytest.raises(ModelError, match="trust=True"):
        gazetell.load("run")
    own("export run --out small --trust")
    assert "trust=True" in own("models small").out  # imported by now
    captions = [own(f"caption a.png --model {run} --trust").out for run in ("run", "small")]
    assert all(text.strip() for text in captions)
    figures = json.loads(own(f"evaluate run --data {scenes_folder} --trust --json").out)
    assert figures["pictures"] == 6
    (served,) = load_models(["run"], device="cpu", trust=True).values()
    assert served.captioner.config == read_config(Path("run"))["captioner"]
    assert served.captioner.config["depth"] == 2


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("outputs[-1], State(outputs[1:])", "not enough values to unpack"),
        (
            "outputs[-1], State(outputs[1:]), outputs[-1].new_full((2, 7), 1 / 7)",
            "attention (2, 1, 7)",
        ),
        ("outputs[-1], State(outputs[1:]), outputs[-1].new_ones(2, 16)", "shares of the regions"),
    ],
)
def test_one_that_cannot_work_is_refused_before_a_run_begins(own, scenes_folder, returned, said):
    code = Path("mine.py").read_text()
    right = "return outputs[-1], State(outputs[1:]), None"
    assert right in code
    Path("mine.py").write_text(code.replace(right, f"return {returned}"))
    err = own(f"train {scenes_folder} --out bad --architecture {OWN} {SMALL}", 2).err
    assert f"error: --architecture {OWN}: cannot read a picture and a word: ValueError: " in err
    assert said in err.splitlines()[-1]
    assert not Path("bad").exists()


def test_a_run_of_it_is_resumed(own, scenes_folder):
    finished = load_model("run", trust=True).captioner.state_dict()
    options = json.loads(Path("run/training.json").read_text())["options"]
    sys.modules.pop("mine")
    # As if the run had been killed before its first checkpoint.
    Path("run/config.json").unlink()
    shutil.rmtree("run/checkpoints")
    Path("run/metrics.jsonl").unlink()
    assert "expected --trust" in own("train --resume run", ModelError.exit_code).err
    with pytest.raises(ModelError, match=r"run/training.json: architecture mine:GRUCaptioner"):
        resume("run")
    resume("run", trust=True, report=lambda line: None)
    assert options["depth"] == 2
    again = load_model("run").captioner.state_dict()
    assert all((again[name] == weight).all() for name, weight in finished.items())


def test_its_options_stand_in_the_help_and_are_nobody_elses(own, scenes_folder, tmp_path):
    text = own(f"train --architecture {OWN} --help").out
    assert re.search(
        r"--depth INT +Layers of the GRU +\(mine:", " ".join(text.split()).replace("│", "")
    )
    assert "depth" not in flags()
    assert "Unknown option" in own("train data --out x --depth 2", UsageError.exit_code).err
    said = own(
        f"train {scenes_folder} --out x --architecture={OWN} --depth 0", UsageError.exit_code
    ).err
    assert "--depth 0: expected 1 or more" in said
    recipe = tmp_path / "own.toml"
    recipe.write_text(f'architecture = "{OWN}"\ndepth = 3\n')
    assert train_options(str(recipe)).depth == 3
    with pytest.raises(UsageError, match="--depht: there is no such option; did you mean --depth"):
        train_options(architecture=OWN, depht=2)
    sys.modules.pop("mine")
    with pytest.raises(ModelError, match=rf"{recipe}: architecture {OWN}: is code"):
        train_options(str(recipe))
    assert train_options(str(recipe), trust=True).depth == 3
    assert flags(OWN)["depth"].help.startswith("Layers of the GRU")


BROKEN = """
from dataclasses import dataclass
from gazetell.models.answerers import AnswerModel
from gazetell.models.captioners import CaptionerOptions, CaptionModel, RNNCaptioner

class Half(CaptionModel):
    pass

class Bare(RNNCaptioner):
    class Options(CaptionerOptions):
        depth: int = 1

class Taken(RNNCaptioner):
    @dataclass(frozen=True)
    class Options(CaptionerOptions):
        epochs: int = 1
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere:Mine", "nowhere:Mine: cannot be imported: ModuleNotFoundError: No module named"),
        ("raises:Mine", "cannot be imported: ZeroDivisionError: division by zero (.*raises.py:1)"),
        ("broken:Mine", "broken:Mine: expected the class of a captioner or an answerer"),
        ("broken:dataclass", "expected the class of a captioner or an answerer"),
        ("broken:Half", "broken:Half: lacks advance, begin; see CaptionModel"),
        ("broken:Bare", "Options: expected a dataclass(frozen=True) that extends CaptionerOptions"),
        ("broken:Taken", "--epochs: training has it"),
    ],
)
def test_what_is_no_architecture(name, said, own, scenes_folder):
    Path("broken.py").write_text(BROKEN)
    Path("raises.py").write_text("1 / 0\n")
    status = UsageError.exit_code if "training has it" in said else ModelError.exit_code
    line = own(f"train {scenes_folder} --out x --architecture {name}", status).err
    sys.modules.pop("broken", None)
    assert re.search(re.escape(said).replace(r"\.\*", ".*"), line)
    assert len(line.splitlines()) == 1


def test_an_answerer_is_no_captioner(own):
    with pytest.raises(ModelError, match="expected the class of a captioner"):
        build_captioner("gazetell.models.answerers:BowMLP", channels=1, vocabulary=9)


def test_a_reader(tmp_path):
    for n in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{n}.jpg")
        (tmp_path / f"{n}.txt").write_text(f"a dog\nthe number {n}\n")
    out, source = tmp_path / "out", tmp_path / "source"
    # The sources as they are, and the example as one more file among them.
    shutil.copytree(Path(gazetell.__file__).parent, source / "gazetell", copy_function=os.symlink)
    (source / "gazetell/data/readers/pairs.py").write_text(example("reader"))
    command = f"-m gazetell data pairs {tmp_path} --val 1 --out {out}".split()
    environment = os.environ | {"PYTHONPATH": str(source)}
    subprocess.run([sys.executable, *command], check=True, env=environment)
    dataset = Dataset.open(out)
    assert [len(dataset.split(split)) for split in ("train", "val")] == [3, 1]
    assert dataset.captions[0].captions == ("a dog", "the number 0")

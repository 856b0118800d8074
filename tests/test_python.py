"""gazetell from Python: docs/python.md and docs/gazetell.ipynb are run, wrong names are told."""

import json
import re
import shutil
import sys
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import matplotlib
import pytest

import gazetell
from gazetell.errors import DataError, UsageError

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK = DOCS / "gazetell.ipynb"


@pytest.fixture
def here(tmp_path, monkeypatch):
    shutil.copy(files("gazetell") / "examples" / "chelsea.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")


def test_the_page_is_true(here, capsys, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text("utf-8"), re.S)
    module = ModuleType("mine")  # a class of one's own is found in the module that it is of
    monkeypatch.setitem(sys.modules, "mine", module)
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), vars(module))
    said = capsys.readouterr().out
    assert "cat" in said.splitlines()[0]
    assert "most at row" in said
    assert Path("gaze.png").is_file()
    assert Path("runs/colours/evaluation/mine/predictions.jsonl").is_file()
    assert (
        json.loads(Path("runs/mean/config.json").read_text())["captioner"]["architecture"]
        == "mine:Mean"
    )


def test_the_notebook_is_true(here, capsys):
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert notebook["nbformat"] == 4
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    names = {}
    for cell in code:
        exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), names)
    said = capsys.readouterr().out
    assert "cat" in said.splitlines()[0]
    assert "Which animal is this? cat" in said
    pyplot = names["plt"]
    figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
    maps = [axis for figure in figures for axis in figure.axes if len(axis.images) == 2]
    assert len(maps) == len(names["caption"].words) + len(names["answer"].passes)
    pyplot.close("all")


def test_the_public_names():
    assert dir(gazetell) == sorted(gazetell.__all__)
    for name in gazetell.__all__:
        assert getattr(gazetell, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        gazetell.lod  # noqa: B018


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: gazetell.prepare("tabel", "a.csv", out="x"), "tabel: .*did you mean table?"),
        (lambda: gazetell.prepare("table", "a.csv", out="x", image="y"), "did you mean images?"),
        (lambda: gazetell.prepare("table", out="x"), "table: missing a required argument: 'file'"),
        (lambda: gazetell.train("x", "y", epoch=3), "--epoch: .*did you mean --epochs?"),
        (lambda: gazetell.load("x", devise="cpu"), "devise: .*did you mean device?"),
        (lambda: gazetell.resume("x", devise="cpu"), "devise: .*did you mean device"),
    ],
)
def test_a_wrong_name_is_told_with_the_right_one(call, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        call()


def test_evaluate_takes_any_model(untrained_answerer, scenes_folder, scenes_dataset, photo):
    answerer = gazetell.Answerer(untrained_answerer(), device="cpu", precision="fp32")
    found = gazetell.evaluate(answerer, scenes_dataset, limit=2)
    assert found.figures["questions"] == len(found.results)
    with pytest.raises(UsageError, match="beam: there is no such option; expected one of abstain"):
        gazetell.evaluate(answerer, scenes_folder, beam=2)
    with pytest.raises(UsageError, match=r"expected model.captioner or model.answerer"):
        gazetell.evaluate(gazetell.load(device="cpu"), scenes_folder)
    with pytest.raises(DataError, match="nowhere: "):
        gazetell.evaluate(answerer, "nowhere")

"""The benchmarks run, at sizes that measure nothing; what they compare is the same model."""

import io
import json
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
TINY = {
    "captioning.py": "--side 2 --channels 8 --vocabulary 20 --pictures 2 --captions 2 --steps 1"
    " --decode 4 --decode-batch 2 --repeats 1 --rounds 1 --embedding 4 --hidden 4"
    " --attention-width 4 --more-pictures 3 --encoders small-cnn --precision bf16",
    "answering.py": "--side 2 --channels 8 --vocabulary 20 --batch 4 --questions 2 --size 32"
    " --repeats 1 --rounds 1 --embedding 4 --hidden 4 --attention-width 4 --width 8 --answers 5"
    " --encoders small-cnn --precision bf16",
    "photo.py": "--parts caption --encoder small-cnn --words 20 --hidden 4 --length 2"
    " --repeats 1 --rounds 1",
    "large.py": "--models photo --rounds 1 --pictures 1 --words 2",
    "onnx.py": "--parts size",
    "gpu.py": "--device cpu --quick --minutes 3 --parts equal decode training search features",
}

PARTS = {
    "captioning.py": ("training", "decoding", "share"),
    "answering.py": ("training", "latency"),
    "photo.py": ("caption",),
    "large.py": ("models",),
    "onnx.py": ("size",),
    "gpu.py": ("equal", "decode", "training", "search", "features"),
}


def run(command, **_):
    """Stands for ``subprocess.run``: a program of ours, in this process."""
    said, before = io.StringIO(), sys.argv
    sys.argv = command[1:]
    try:
        with redirect_stdout(said):
            runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        sys.argv = before
    return SimpleNamespace(stdout=said.getvalue())


@pytest.mark.parametrize("name", TINY)
def test_it_runs_and_keeps_its_figures(name, tmp_path, monkeypatch):
    """As a program, but in this process: importing torch anew takes longer than all the rest."""
    found, script = tmp_path / "a.json", str(FOLDER / name)
    monkeypatch.setattr(sys, "argv", [script, *TINY[name].split(), "--json", str(found)])
    # They import each other. Behind all else: one of them is called onnx.
    monkeypatch.setattr(sys, "path", [*sys.path, str(FOLDER)])
    if name == "large.py":  # a process for each model, of which this is one
        monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
    ended = None
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        ended = stop.code
    assert not ended
    figures = json.loads(found.read_text())
    assert all(figures[part] for part in PARTS[name])

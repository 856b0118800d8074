"""The benchmarks run, at sizes that measure nothing; what they compare is the same model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
TINY = {
    "captioning.py": "--side 2 --channels 8 --vocabulary 20 --pictures 2 --captions 2 --steps 1"
    " --decode 4 --decode-batch 2 --repeats 1 --rounds 1 --embedding 4 --hidden 4"
    " --attention-width 4 --more-pictures 3 --encoders small-cnn",
    "answering.py": "--side 2 --channels 8 --vocabulary 20 --batch 4 --questions 2 --size 32"
    " --repeats 1 --rounds 1 --embedding 4 --hidden 4 --attention-width 4 --width 8 --answers 5"
    " --encoders small-cnn",
    "photo.py": "--parts caption --encoder small-cnn --words 20 --hidden 4 --length 2"
    " --repeats 1 --rounds 1",
    "onnx.py": "--parts size",
    "gpu.py": "--device cpu --quick --parts equal decode training search features",
}

PARTS = {
    "captioning.py": ("training", "decoding", "share"),
    "answering.py": ("training", "latency"),
    "photo.py": ("caption",),
    "onnx.py": ("size",),
    "gpu.py": ("equal", "decode", "training", "search", "features"),
}


@pytest.mark.parametrize("name", TINY)
def test_it_runs_and_keeps_its_figures(name, tmp_path):
    command = [sys.executable, FOLDER / name, *TINY[name].split(), "--json", tmp_path / "a.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "a.json").read_text())
    assert all(found[part] for part in PARTS[name])

"""The examples of CONTRIBUTING.md work: one file for a captioner, for a reader, for an endpoint.

The endpoint's example stands in docs/serving.md; ``tests/serve`` runs it.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import gazetell
from gazetell.data.records import Dataset
from gazetell.errors import UsageError
from gazetell.inference.predict import Captioner
from gazetell.models import captioners
from gazetell.models.options import POSITIVE
from gazetell.training.fit import train
from gazetell.training.options import flags, run_class, train_options

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"


def example(name):
    found = re.search(rf"<!-- {name} -->\n```python\n(.*?)```", GUIDE.read_text("utf-8"), re.S)
    return found[1]


def test_a_captioner_with_an_option_of_its_own(scenes_folder, tmp_path):
    names = {**vars(captioners), "POSITIVE": POSITIVE}
    flags.cache_clear()
    try:
        exec(example("captioner"), names)
        assert flags()["depth"].help.startswith("Layers of the GRU")
        small = {"embedding": 8, "hidden": 12, "epochs": 1, "batch": 4, "min_frequency": 1}
        small |= {"encoder": "small-cnn", "encoder_weights": "none", "encoder_size": 64}
        options = train_options(None, architecture="gru", depth=2, precision="fp32", **small)
        train(scenes_folder, tmp_path / "run", options, report=lambda line: None)
        model = Captioner.load(tmp_path / "run", device="cpu", precision="fp32")
        assert model.captioner.config["depth"] == 2
        assert model.caption(Image.new("RGB", (64, 64))).text
        with pytest.raises(
            UsageError, match="--depth 2: lstm has no such option; expected one of gru"
        ):
            train_options(None, architecture="lstm", depth=2)
    finally:
        captioners.CAPTIONERS.pop("gru", None)
        flags.cache_clear()
        run_class.cache_clear()


def test_its_option_stands_in_the_help():
    code = (
        "from gazetell.models.captioners import *; from gazetell.models import captioners\n"
        f"exec({example('captioner')!r}, vars(captioners))\n"
        "import sys; sys.argv = ['gazetell', 'train', '--help']\n"
        "from gazetell.cli import main; main()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--depth" in ran.stdout
    assert "gru" in ran.stdout


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

"""A small dataset of scenes, and a way to train tiny models on it."""

import json
from contextlib import contextmanager

import pytest
import torch

from gazetell import scenes
from gazetell.data.records import Dataset
from gazetell.files import write_jsonl
from gazetell.models.folder import load_model
from gazetell.training.fit import resume, train
from gazetell.training.options import train_options

OPTIONS = {"embedding": 12, "hidden": 16, "dropout": 0.0, "min_frequency": 1, "encoder_size": 32}
OPTIONS |= {"encoder": "small-cnn", "encoder_weights": "none", "encoder_trainable": "all"}
OPTIONS |= {"learning_rate": 3e-3, "encoder_learning_rate": 3e-3, "epochs": 2, "batch": 8}
OPTIONS |= {"precision": "fp32", "seed": 5}


class Killed(Exception):
    """What kills a run in these tests."""


class Tiny:
    """Options, runs, and what a run leaves."""

    def __init__(self, data):
        self.data = data

    def options(self, **changes):
        """Options of a tiny run; None leaves one out. ``bow-mlp`` has no ``hidden``."""
        return train_options(**self.values(changes))

    def flags(self, **changes):
        """The same for the command line."""
        pairs = self.values({"device": "cpu", **changes}).items()
        return [text for key, x in pairs for text in (f"--{key.replace('_', '-')}", str(x))]

    def values(self, changes):
        """What is given of the options."""
        values = OPTIONS | changes
        if values["encoder_trainable"] == "none":
            values["encoder_learning_rate"] = None
        if values.get("architecture") == "bow-mlp" and "hidden" not in changes:
            del values["hidden"]
        return {k: v for k, v in values.items() if v is not None}

    def second(self, run, **changes):
        """Options of a stage that begins with a run."""
        without = dict.fromkeys(("embedding", "hidden", "min_frequency", "encoder"))
        without |= dict.fromkeys(("encoder_weights", "encoder_size"))
        return self.options(**without, init_from=str(run), **changes)

    def train(self, run, chosen=None, data=None, **changes):
        """Train; the lines of the report."""
        lines = []
        train(data or self.data, run, chosen or self.options(**changes), report=lines.append)
        return lines

    @staticmethod
    @contextmanager
    def ends_at(epoch, error):
        """A training ends with an error between the row of an epoch and its checkpoint."""

        def write(path, rows):
            write_jsonl(path, rows := list(rows))
            if rows[-1]["epoch"] == epoch:
                raise error

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gazetell.training.module.write_jsonl", write)
            yield

    def killed(self, run, epoch=2, data=None, **changes):
        """A run of four epochs that dies at the end of one, before its checkpoint is written."""
        chosen = self.options(**{"epochs": 4, **changes})
        with self.ends_at(epoch, Killed), pytest.raises(Killed):
            train(data or self.data, run, chosen, report=lambda _: None)

    def resume(self, run):
        """Go on; the lines of the report."""
        lines = []
        resume(run, report=lines.append)
        return lines

    def rows(self, run):
        """The history without the times."""
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        times = ("seconds", "reward_share")
        return [{k: v for k, v in row.items() if k not in times} for row in rows]

    def weights(self, run):
        """All weights of the model of a run."""
        model = load_model(run)
        return {**model.network.state_dict(), **model.encoder.state_dict()}

    def same(self, run, other):
        """Whether two runs ended in the same weights."""
        one, two = self.weights(run), self.weights(other)
        return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)

    def changed(self, folder, captions=None, questions=None):
        """The dataset with its records changed by functions; None drops one."""
        whole = Dataset.open(self.data)
        made = [
            tuple(r for r in map(change or (lambda r: r), records) if r)
            for change, records in ((captions, whole.captions), (questions, whole.questions))
        ]
        Dataset("made", "table", whole.root, *made).save(folder)
        return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Sixteen pictures to train on, with two captions and four questions each."""
    folder = tmp_path_factory.mktemp("scenes")
    sizes = {"train": 16, "val": 6, "test": 2, "captions_per_image": 2, "questions_per_image": 4}
    scenes.generate(folder, **sizes, seed=1)
    return Tiny(folder)

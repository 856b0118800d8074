"""The command line as a function, and a folder with data and models of every kind."""

import shutil
import sys

import pytest

from gazetell import cli, scenes
from gazetell.models.folder import save_model


@pytest.fixture
def run(capfd, monkeypatch):
    """Call ``gazetell ...``; give exit status, standard output, standard error.

    The first argument may be several words; those behind it are taken as they are. Another exit
    status than ``status`` fails the test.
    """

    def call(command, *more, status=None):
        words = [*str(command).split(), *map(str, more)]
        monkeypatch.setattr(sys, "argv", ["gazetell", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capfd.readouterr()
        # Said by the first command of a process alone, which may be any of the tests.
        lines = [line for line in err.splitlines(keepends=True) if "computing on " not in line]
        code = stop.value.code or 0
        assert status in (code, None), err
        return code, out, "".join(lines)

    return call


@pytest.fixture
def mistake(run, tmp_path):
    """A command that ends with this status and one line of error, and leaves all as it was."""

    def call(status, said, command, *more):
        before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
        _, out, err = run(command, *more, status=status)
        assert out == ""
        assert said in err
        assert err.startswith("error: ")
        assert len(err.strip().splitlines()) == 1
        assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before

    return call


@pytest.fixture(scope="session")
def whole_world(untrained, untrained_answerer, tmp_path_factory):
    """Scenes with questions and untrained models; not to be written to."""
    folder = tmp_path_factory.mktemp("world")
    sizes = {"train": 12, "val": 4, "test": 5, "captions_per_image": 3, "questions_per_image": 3}
    scenes.generate(folder / "data", **sizes)
    save_model(folder / "tell", untrained(seed=2))
    save_model(folder / "lstm", untrained(architecture="lstm"))
    save_model(folder / "ask", untrained_answerer(seed=2))
    save_model(folder / "blind", untrained_answerer(blind=True))
    save_model(folder / "plain", untrained_answerer(architecture="bow-mlp"))
    shutil.copy(sorted((folder / "data/images").iterdir())[0], folder / "a.png")
    return folder


@pytest.fixture
def world(whole_world, tmp_path, monkeypatch):
    """The same as the test's own, and the folder that it works in."""
    shutil.copytree(whole_world, tmp_path / "world")
    monkeypatch.chdir(tmp_path / "world")
    return tmp_path / "world"

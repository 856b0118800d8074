"""The command line as a function."""

import sys

import pytest

from gazetell import cli


@pytest.fixture
def run(capfd, monkeypatch):
    """Call ``gazetell ...``; give exit status, standard output, standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["gazetell", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capfd.readouterr()
        return stop.value.code or 0, out, err

    return call

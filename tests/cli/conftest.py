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
        # Said by the first command of a process alone, which may be any of the tests.
        lines = [line for line in err.splitlines(keepends=True) if "computing on " not in line]
        return stop.value.code or 0, out, "".join(lines)

    return call

"""What stands on the standard streams, in every locale and when they cannot take it."""

import csv
import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from gazetell import cli
from gazetell.errors import UsageError
from gazetell.models.precision import _say_once

NAMES = [b"=1+2.png", b"gr\xfcn.png", b"two\nlines.png", "円.png".encode()]
full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")


@pytest.fixture
def pictures(world):
    """A folder in which every name is trouble."""
    (world / "odd").mkdir()
    for number, name in enumerate(NAMES):
        path = os.path.join(os.fsencode(world / "odd"), name)
        Image.new("RGB", (20, 20), (number * 60, 0, 0)).save(os.fsdecode(path), "PNG")
    return world / "odd"


@pytest.fixture
def command(monkeypatch):
    """Run ``gazetell`` with a standard output of some encoding, a file or none; what it took."""

    def call(words, output="utf-8"):
        out = io.TextIOWrapper(io.BytesIO(), output) if isinstance(output, str) else output
        monkeypatch.setattr(sys, "argv", ["gazetell", *words.split()])
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, out.buffer.getvalue().decode() if isinstance(output, str) else ""

    return call


@pytest.mark.parametrize(
    ("locale", "form"), [("utf-8", "--json"), ("cp1252", "--csv"), ("ascii", "--no-csv")]
)
def test_no_row_is_lost_for_its_name(command, pictures, capfd, locale, form):
    """The output is UTF-8 whatever the locale; JSON gives the very name back."""
    status, out = command(f"caption odd --model tell {form}", locale)
    assert status == 0
    assert "names that are not UTF-8" in capfd.readouterr().err.splitlines()[-1]
    if form == "--json":
        rows = [json.loads(line)["picture"] for line in out.splitlines()]
        assert [os.fsencode(os.path.basename(name)) for name in rows] == NAMES
    elif form == "--csv":
        rows = [row["picture"] for row in csv.DictReader(io.StringIO(out))]
        assert rows == ["odd/=1+2.png", "odd/gr\\udcfcn.png", "odd/two\nlines.png", "odd/円.png"]
    else:
        names = [line.split("\t")[0] for line in out.splitlines()]
        assert names == ["odd/=1+2.png", "odd/gr\\udcfcn.png", "odd/two\\nlines.png", "odd/円.png"]


def test_no_name_is_a_formula(command, pictures, monkeypatch):
    monkeypatch.chdir(pictures)
    _, out = command("caption =1+2.png --model ../tell --csv")
    assert next(csv.DictReader(io.StringIO(out)))["picture"] == "./=1+2.png"


def test_what_was_chosen_for_the_user_is_said(command, world, capfd):
    _say_once.cache_clear()
    command("caption a.png --model tell")
    assert capfd.readouterr().err.startswith("computing on ")
    _say_once.cache_clear()
    command("caption a.png --model tell --device cpu --precision fp32")
    assert capfd.readouterr().err == ""


@full
@pytest.mark.parametrize(
    "words", ["caption a.png --model tell", "models", "--help", "train --help", "doctor"]
)
def test_a_full_standard_output_is_one_line(command, world, capfd, words):
    with open("/dev/full", "w") as output:
        status, _ = command(words, output)
        line = "error: standard output: cannot be written: No space left on device\n"
        lines = capfd.readouterr().err.splitlines(keepends=True)
        assert (status, lines[-1]) == (6, line)
        assert len([line for line in lines if "computing on" not in line]) == 1


@full
def test_nothing_more_is_said_when_python_ends():
    arguments = [sys.executable, "-m", "gazetell", "--help"]
    with open("/dev/full", "w") as output:
        done = subprocess.run(arguments, stdout=output, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (6, 1)


def test_closed_streams(command, capfd, monkeypatch):
    """A closed standard output is a failed write; a closed standard error mixes into nothing."""
    assert command("models", None)[0] == 6
    assert capfd.readouterr().err.startswith("error: standard output: cannot be written")
    monkeypatch.setattr(sys, "stderr", None)
    assert command("models nowhere") == (5, "")


def test_who_reads_only_the_beginning_hears_nothing(command, capfd, monkeypatch):
    monkeypatch.setattr(cli.app, "console", Console())  # silent ever after
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output:
        assert command("train --help", output)[0] == 1
        assert capfd.readouterr().err == ""


def test_questions_that_are_not_utf_8_are_told_as_unknown_words(command, world, monkeypatch):
    typed = io.TextIOWrapper(io.BytesIO(b"is gr\xfcn\n"), "utf-8")
    monkeypatch.setattr(sys, "stdin", typed)
    status, out = command("ask a.png --model ask")
    assert status == 0
    assert out.endswith("unknown words: gr, \ufffd, n\n")


def test_a_warning_of_a_library_is_one_line(run, world, monkeypatch):
    def warn(*paths, **options):
        for _ in range(2):
            warnings.warn("two\n  lines", RuntimeWarning, stacklevel=1)
        raise UsageError("no")

    monkeypatch.setattr("gazetell.inference.predict.Captioner.load", warn)
    assert run("caption a.png --model tell") == (2, "", "two lines\nerror: no\n")

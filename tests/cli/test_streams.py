"""What stands on the standard streams, in every locale and when they cannot take it."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from gazetell.models.folder import save_model


@pytest.fixture(scope="module")
def model(untrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, untrained())
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Names in Latin-1 bytes, in Chinese, with a line break and as a formula."""
    folder = os.fsencode(tmp_path_factory.mktemp("pictures"))
    names = [b"gr\xfcn.png", "円.png".encode(), b"two\nlines.png", b"=1+2.png"]
    for number, name in enumerate(sorted(names)):
        path = os.path.join(folder, name)
        Image.new("RGB", (20, 20), (number * 60, 0, 0)).save(os.fsdecode(path), "PNG")
    return os.fsdecode(folder)


def command(*arguments, **options):
    """Run ``gazetell`` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "gazetell", *map(str, arguments)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "check": False} | options,
    )


@pytest.mark.parametrize(
    ("locale", "form"), [("utf-8:strict", "--json"), ("cp1252", "--csv"), ("ascii", "--no-csv")]
)
def test_no_row_is_lost_for_its_name(model, pictures, locale, form):
    """The output is UTF-8 whatever the locale; JSON gives the very name back."""
    environment = os.environ | {"PYTHONIOENCODING": locale, "PYTHONUTF8": "0"}
    names = sorted(os.listdir(pictures))
    done = command("caption", pictures, "--model", model, form, env=environment)
    assert done.returncode == 0, done.stderr
    out = done.stdout.decode("utf-8")
    assert "names that are not UTF-8" in done.stderr.decode("utf-8").splitlines()[-1]
    if form == "--json":
        rows = [json.loads(line)["picture"] for line in out.splitlines()]
        assert sorted(os.path.basename(name) for name in rows) == names
    elif form == "--csv":
        rows = [row["picture"] for row in csv.DictReader(io.StringIO(out))]
        assert len(rows) == 4
        assert any(name.endswith("円.png") for name in rows)
        assert any(name.endswith("two\nlines.png") for name in rows)
    else:
        assert len(out.splitlines()) == 4
        assert "two\\nlines.png\t" in out
        assert "gr\\udcfcn.png\t" in out


def test_no_name_is_a_formula(model, pictures):
    done = command("caption", "=1+2.png", "--model", model, "--csv", cwd=pictures)
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert rows[0]["picture"] == "'=1+2.png"
    # What was chosen for the user is said, in one line.
    assert done.stderr.decode().startswith("computing on cpu in ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("arguments", ["caption", "models", "--help", "train --help"])
def test_a_full_standard_output_is_one_line(model, pictures, arguments):
    words = arguments.split()
    if words == ["caption"]:
        words += [pictures, "--model", model, "--csv", "--device", "cpu", "--precision", "fp32"]
    with open("/dev/full", "w") as full:
        done = command(*words, stdout=full)
    line = b"error: standard output: cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr.splitlines(keepends=True)[-1]) == (6, line)
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="closes descriptors")
def test_closed_streams_lose_nothing_silently():
    """A closed standard output is a failed write; a closed standard error mixes into nothing."""
    shell = f'"{sys.executable}" -m gazetell models'
    done = subprocess.run(f"{shell} >&-", shell=True, capture_output=True, check=False)
    assert done.returncode == 6
    assert done.stderr.startswith(b"error: standard output: cannot be written")
    done = subprocess.run(f"{shell} nowhere 2>&-", shell=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (5, b"")


def test_who_reads_only_the_beginning_hears_nothing():
    shell = f'"{sys.executable}" -m gazetell train --help | head -c 1'
    done = subprocess.run(shell, shell=True, capture_output=True, check=False)
    assert (done.stdout.strip(), done.stderr) == (done.stdout.strip(), b"")


def test_questions_that_are_not_utf_8_are_told_as_unknown_words(
    untrained_answerer, pictures, tmp_path
):
    save_model(tmp_path / "answerer", untrained_answerer())
    picture = Path(pictures) / "=1+2.png"
    fixed = ("--model", tmp_path / "answerer", "--device", "cpu", "--precision", "fp32")
    done = command("ask", picture, *fixed, input=b"is gr\xfcn\n" + b"is " * 40 + b"\n")
    assert (done.returncode, done.stderr) == (0, b"")
    first, second = done.stdout.decode("utf-8").splitlines()
    assert "unknown words: gr, \ufffd, n" in first
    assert second.endswith("words not read, at the end: 10")

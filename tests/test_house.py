"""What stands around the code: the commands of the docs are commands that there are, the wheel
holds all of the package and works alone, the files for contributors and readers are sound."""

import multiprocessing
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from cyclopts import CycloptsError, MissingArgumentError

import gazetell
from gazetell.cli import app
from gazetell.training.options import recipe_names

ROOT = Path(__file__).parents[1]
# Not CONTRIBUTING.md, whose commands are of its own examples; tests/test_contributing.py runs them.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page):
    """The lines of a page that begin with ``gazetell``, and what of it stands between backticks.

    Left out are placeholders for a verb, and options of a class of one's own (``mine:...``).
    """
    text = re.sub(r"\s*\\\n\s+", " ", page.read_text(encoding="utf-8"))
    blocks = re.findall(r"^    (gazetell .*)$", text, re.M)
    inline = re.findall(r"`(gazetell [^`\n]*)`", text)
    lines = [line for line in blocks + inline if "..." not in line and "|" not in line]
    return [line for line in lines if not re.search(r" mine:| data [A-Z]", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_the_docs_is_one(page, capsys):
    for line in commands(page):
        words = shlex.split(line.partition(" > ")[0].removesuffix(" &"), comments=True)
        try:
            app.parse_args(words[1:], print_error=False, exit_on_error=False)
        except MissingArgumentError:
            pass  # it names a verb; the rest is on its page
        except CycloptsError as error:
            pytest.fail(f"{page.name}: {line}\n{error}")
        recipe = words[words.index("--recipe") + 1] if "--recipe" in words else "FILE"
        # A file is the reader's own.
        assert recipe in {*recipe_names(), "FILE"} or recipe.endswith(".toml"), line


def test_every_dataset_of_a_verb_has_its_place_in_the_table():
    from gazetell.data.readers import READERS

    told = " ".join(commands(ROOT / "docs/datasets.md"))
    own = {"table", "merge", "questions-from-captions", "vqa-text"}  # not datasets
    assert {verb for verb in READERS if f"data {verb} " not in told} <= own
    recipes = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
    assert [name for name in recipe_names() if f"`{name}`" not in recipes] == []


def test_no_text_asks_an_index_for_gazetell():
    """It is on none: a missing package is named by its own name, with the extra that has it."""
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.[mi]*"), *ROOT.glob("deploy/*.service")]
    texts += [path for path in (ROOT / "src").rglob("*") if path.suffix in (".py", ".toml")]
    asks = re.compile(r"gazetell\[|pip install (-\S+ )*'?gazetell\b")
    assert [path.name for path in texts if asks.search(path.read_text(encoding="utf-8"))] == []


def caption_by(place, picture):
    """In a fork: the package at a place captions, whatever was imported before."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "gazetell"]:
        del sys.modules[name]
    sys.path.insert(0, str(place))
    sys.argv = ["gazetell", "caption", str(picture), "--beam", "1"]
    import gazetell
    from gazetell.cli import main

    print(gazetell.__file__)
    main()


def test_the_wheel_holds_the_package_and_captions_alone(tmp_path, capfd):
    pytest.importorskip("hatchling", reason="make wheel needs it: pip install -e '.[dev]'")
    python, quiet = [sys.executable, "-m"], {"check": True, "capture_output": True, "text": True}
    build = [*python, "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(build, cwd=ROOT, **quiet)
    (wheel,) = tmp_path.glob("gazetell-*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = (path for path in (ROOT / "src").rglob("*") if path.is_file())
    kept = {path.relative_to(ROOT / "src").as_posix() for path in files if path.suffix != ".pyc"}
    assert packed == {name for name in kept if ".egg-info/" not in name}
    alone = tmp_path / "alone"
    options = ["--no-deps", "--no-index", "--no-compile", "--quiet", "--target", alone]
    subprocess.run([*python, "pip", "install", *options, wheel], **quiet)
    # The libraries are those of this environment, the package is that of the wheel.
    given = (alone, alone / "gazetell/examples/chelsea.jpg")
    process = multiprocessing.get_context("fork").Process(target=caption_by, args=given)
    process.start()
    process.join()
    said, errors = capfd.readouterr()
    assert process.exitcode == 0, errors
    place, caption = said.splitlines()
    assert Path(place).is_relative_to(alone)
    assert "cat" in caption.split()


def test_the_files_for_contributors_say_what_is_so():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]  # nothing is downloaded
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]
    for hook in hooks[0]["hooks"]:
        assert " ".join(hook["entry"].split()[-2:]).removeprefix(".venv/bin/").split()[0] in lint
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make test"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == gazetell.__version__
    assert citation["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()

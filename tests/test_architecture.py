"""The plan: which part may import which, and how large the code may be."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import gazetell

ROOT = Path(gazetell.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

# From the ground up: each part may import itself and what is named here, and nothing else of
# ours. Training and inference stand side by side; metrics know nothing of us.
LOWEST = {"errors", "files", "process", "metrics"}
MIDDLE = {*LOWEST, "pictures", "data", "scenes", "models", "features"}
MAY = {
    "errors": set(),
    "files": {"errors"},
    "process": {"errors"},
    "metrics": set(),
    "pictures": {"errors", "files", "process"},
    "data": {"errors", "files", "metrics", "pictures"},
    "scenes": {"errors", "files", "data"},
    "models": {"errors", "files", "metrics", "data", "pictures"},
    "onnx": {"errors", "files", "data", "models", "inference", "pictures"},  # torch: test_onnx
    "features": {"errors", "files", "process", "data", "models", "pictures"},
    "training": MIDDLE,
    "inference": MIDDLE,
    "reproduce": {*MIDDLE, "training", "inference"},
    "serve": {*MIDDLE, "inference"} - {"metrics", "scenes"},
    "cli": {*MIDDLE, "training", "inference", "reproduce", "serve"},
    "__main__": {"cli"},
}
# The root package tells the version to everyone and lends its public names from inference, late.
VERSION = ("", "__version__")


def part_of(module):
    """``("gazetell", "data", "text")`` belongs to ``data``, the root to ``""``."""
    return module[1] if len(module) > 1 else ""


def dotted(path):
    """A file as the parts of its module's name."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


@functools.cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path, tree=None):
    """Yield (module it comes from, name or None) of everything of ours a file imports."""
    here = dotted(path)
    package = here if path.name == "__init__.py" else here[:-1]
    for node in ast.walk(tree or parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "gazetell":
                    yield tuple(alias.name.split(".")), None
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module or "").split(".")) if node.module else base
            if module[:1] == ("gazetell",):
                for alias in node.names:
                    yield module, alias.name


def reached(path, tree=None):
    """The parts that a file imports from, the version left out."""
    for module, name in imports(path, tree):
        # ``from .. import data`` reaches the part that the name says.
        target = (*module, name) if len(module) == 1 and name else module
        if len(module) == 1 and name == VERSION[1]:
            continue
        yield part_of(target)


def test_every_part_has_its_place_in_the_plan():
    parts = {part_of(dotted(path)) for path in MODULES} - {""}
    assert parts <= set(MAY)
    assert {"errors", "data", "models", "training", "inference", "cli"} <= parts


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path):
    own = part_of(dotted(path))
    if not own:
        return  # the root: see below
    upward = set(reached(path)) - MAY[own] - {own}
    assert not upward, f"{path.name} in {own} imports {sorted(upward)}"


def test_the_plan_is_seen_to_be_broken():
    """The reader of imports finds every form of them."""
    path = ROOT / "data" / "text.py"
    text = """
import gazetell.training.fit
from ..inference import gaze
from .. import cli, __version__
from .records import Dataset
def late():
    from gazetell.features import FeatureCache
import torch
from torch import nn
"""
    assert " ".join(reached(path, ast.parse(text))) == "training inference cli data features"
    package = ROOT / "data" / "__init__.py"
    assert list(reached(package, ast.parse("from .text import Tokenizer"))) == ["data"]
    assert list(reached(package, ast.parse("from ..models import encoders"))) == ["models"]


def test_the_root_imports_nothing_at_once():
    body = parsed(ROOT / "__init__.py").body
    at_once = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not list(imports(ROOT / "__init__.py", ast.Module(at_once, [])))


def test_no_circle_of_imports_among_modules():
    """Also within a part: a module never comes back to itself."""
    files = {dotted(path): path for path in MODULES}
    graph = {}
    for module, path in files.items():
        targets = set()
        for source, name in imports(path):
            for target in ((*source, name), source):
                if target in files and target != module:
                    targets.add(target)
                    break
        graph[module] = targets - {("gazetell",)}

    done, path_to = set(), []

    def visit(module):
        assert module not in path_to, " -> ".join(".".join(m) for m in [*path_to, module])
        if module in done:
            return
        path_to.append(module)
        for target in graph[module]:
            visit(target)
        path_to.pop()
        done.add(module)

    for module in graph:
        visit(module)


def test_the_size_stays_within_its_ceilings():
    """They only go down. A file with two subjects is better cut, code said twice better merged."""
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert max(lines.values()) <= 600
    assert len(lines) <= 98
    assert sum(lines.values()) <= 30_509
    tests = Path(__file__).parent.rglob("*.py")
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in tests) <= 23_400


def test_every_module_says_what_it_is():
    for path in MODULES:
        assert not path.stat().st_size or ast.get_docstring(parsed(path)), path
    assert not [path for path in MODULES if path.stem in ("utils", "helpers", "misc", "common")]


HEAVY = ("torch", "torchvision", "lightning", "matplotlib", "huggingface_hub", "tokenizers")


@pytest.mark.parametrize("module", ["gazetell", "gazetell.data.records", "gazetell.errors"])
def test_a_light_import_stays_light(module):
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & set({HEAVY})))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []

"""Loaded models, and a browser for the pages that are written to be looked at."""

import shutil

import pytest

from gazetell.inference.predict import Answerer, Captioner

EXACT = {"device": "cpu", "precision": "fp32"}


@pytest.fixture
def captioner(untrained):
    return Captioner(untrained(seed=2), **EXACT)


@pytest.fixture
def build(untrained_answerer):
    """A loaded answerer; options by name."""
    return lambda **options: Answerer(untrained_answerer(**{"seed": 2} | options), **EXACT)


@pytest.fixture
def answerer(build):
    return build()


@pytest.fixture(scope="module")
def browser():
    """Chromium, as Debian or a desktop has it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
    if path is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()

"""The service in a thread, with untrained models of the scenes' words; and once on replicas."""

import os

import pytest
from service import on_replicas, running


@pytest.fixture(scope="session")
def models(untrained, untrained_answerer, confidence):
    """A captioner and two answerers; the first two share an encoder."""
    from gazetell.inference.predict import Answerer, Captioner

    return {
        "tell": Captioner(untrained(confidence=confidence())),
        "ask": Answerer(untrained_answerer()),
        "other": Answerer(untrained_answerer(seed=1, architecture="lstm-vqa")),
    }


@pytest.fixture(scope="session")
def server_url(models):
    """The service with the usual limits, but a small body."""
    from gazetell.serve.api import create_app
    from gazetell.serve.guard import ServeOptions

    with running(create_app(models, ServeOptions(body=1, pixels=1))) as url:
        yield url


@pytest.fixture(scope="package")
def replicas(untrained, untrained_answerer, confidence, tmp_path_factory):
    """The same on two replicas: ``gazetell serve --engine ray``.

    It starts once, and ends before the tests of other packages: it is never quite idle.
    """
    pytest.importorskip("ray.serve", reason="needs the extra [cluster]")
    if (os.cpu_count() or 1) < 2:
        pytest.skip("two replicas need two cores")
    from gazetell.models.folder import save_model

    folder = tmp_path_factory.mktemp("replicas")
    save_model(folder / "tell", untrained(confidence=confidence()))
    save_model(folder / "ask", untrained_answerer())
    save_model(folder / "other", untrained_answerer(seed=1, architecture="lstm-vqa"))
    arguments = ["--body", "1", "--pixels", "1", "--precision", "fp32"]
    for name in ("tell", "ask", "other"):
        arguments += ["--model", str(folder / name)]
    with on_replicas(folder / "log", "--replicas", "2:2", *arguments) as service:
        yield service


@pytest.fixture(scope="session")
def picture(scenes_folder):
    """The bytes of a scene."""
    return sorted((scenes_folder / "images").glob("*.png"))[0].read_bytes()

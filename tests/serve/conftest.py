"""The service in a thread, with untrained models of the scenes' words."""

import pytest
from service import running


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


@pytest.fixture(scope="session")
def picture(scenes_folder):
    """The bytes of a scene."""
    return sorted((scenes_folder / "images").glob("*.png"))[0].read_bytes()

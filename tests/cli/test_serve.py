"""``gazetell serve``: what it refuses before anything is loaded or listened on."""

import socket

import pytest

from gazetell.cli.serve import serve
from gazetell.errors import ModelError, UsageError
from gazetell.inference.predictor import Captioner
from gazetell.serve.options import ServeOptions
from gazetell.serve.server import TOKEN, load_models
from gazetell.serve.server import serve as run


def test_models_have_the_names_of_their_folders_or_given_ones(model_folder):
    found = load_models([str(model_folder), f"other={model_folder}"])
    assert list(found) == ["model", "other"]
    assert all(isinstance(model, Captioner) for model in found.values())


@pytest.mark.parametrize("named", [["{m}", "{m}"], ["{m}", "model={m}"], ["={m}"], ["x="]])
def test_names_that_do_not_do(model_folder, named):
    with pytest.raises(UsageError, match="--model"):
        load_models([text.format(m=model_folder) for text in named])


def test_no_model_and_no_model_there(tmp_path):
    with pytest.raises(UsageError, match="expected --model"):
        serve()
    with pytest.raises(ModelError, match="nowhere"):
        serve(model=(str(tmp_path / "nowhere"),))
    with pytest.raises(UsageError, match="--threads -1"):
        serve(model=("x",), threads=-1)


@pytest.mark.parametrize("name", ["body", "queue", "look_seconds", "gather"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_limits_that_are_none(name, value):
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} {value}"):
        ServeOptions(**{name: value})


def test_a_port_that_is_taken_and_a_host_that_is_not_ours():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}: cannot be used"):
            run({}, ServeOptions(), port=port)
    with pytest.raises(UsageError, match=r"--host 192\.0\.2\.1 .*cannot be used"):
        run({}, ServeOptions(), host="192.0.2.1")
    with pytest.raises(UsageError, match="--port 70000"):
        run({}, ServeOptions(), port=70000)


@pytest.mark.parametrize("token", ["", " ", "a b", "secret ", "gehe\u00edm", "a\n"])
def test_tokens_that_could_never_match(monkeypatch, token):
    monkeypatch.setenv(TOKEN, token)
    with pytest.raises(UsageError, match=TOKEN):
        run({}, ServeOptions())


def test_a_beam_below_a_models_own_is_refused(model_folder):
    with pytest.raises(UsageError, match="--beam 2: model decodes with beam 3"):
        run(load_models([str(model_folder)]), ServeOptions(beam=2), port=0)

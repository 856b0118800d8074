"""``gazetell serve``: what it refuses before anything is loaded or listened on."""

import socket

import pytest
import torch

from gazetell.cli.serve import serve
from gazetell.errors import ModelError, UsageError
from gazetell.inference.predict import Captioner
from gazetell.models.folder import save_model
from gazetell.serve import server
from gazetell.serve.guard import ServeOptions
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


def test_a_pair_is_served_as_two_models(photo):
    for named in ([], ["photo"], [str(photo)]):
        assert list(load_models(named)) == ["photo/captioner", "photo/answerer"]
    found = load_models([f"mine={photo}"])
    assert found["mine/answerer"].fingerprint == found["mine/captioner"].fingerprint


def test_no_model_there(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        serve(model=(str(tmp_path / "nowhere"),), options=ServeOptions(port=0))
    with pytest.raises(UsageError, match="--threads -1"):
        ServeOptions(threads=-1)


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
            # Before any model is looked for.
            run(["nowhere"], ServeOptions(port=port))
    with pytest.raises(UsageError, match=r"--host 192\.0\.2\.1 .*cannot be used"):
        run([], ServeOptions(host="192.0.2.1"))
    with pytest.raises(UsageError, match="--port 70000"):
        ServeOptions(port=70000)


@pytest.mark.parametrize("token", ["", " ", "a b", "secret ", "gehe\u00edm", "a\nb", "\n"])
def test_tokens_that_could_never_match(monkeypatch, token):
    monkeypatch.setenv(TOKEN, token)
    with pytest.raises(UsageError, match=TOKEN):
        run(["nowhere"], ServeOptions())


def test_a_token_from_a_file_ends_with_a_line_break(monkeypatch, tmp_path):
    lines = []
    monkeypatch.setenv(TOKEN, "secret\r\n")
    with pytest.raises(ModelError, match="nowhere"):
        run([str(tmp_path / "nowhere")], ServeOptions(port=0), report=lines.append)
    assert lines == [f"{TOKEN} ends with a line break, which is left out"]


def test_a_folder_is_loaded_once_and_may_have_an_equals_sign(model_folder):
    folder = model_folder.rename(model_folder.with_name("lr=0.1"))
    found = load_models([str(folder), f"other={folder}"])
    assert list(found) == ["lr=0.1", "other"]
    assert found["lr=0.1"] is found["other"]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("captioner", {"questions": 3}, "--questions 3: has no effect, no answerer is served"),
        ("captioner", {"question_length": 9}, "--question-length 9: has no effect"),
        ("answerer", {"beam": 4}, "--beam 4: has no effect, no captioner is served"),
        ("captioner", {"batch": 1, "gather": 9}, "--gather 9: has no effect, --batch 1"),
        ("captioner", {"beam": 2}, "--beam 2: model decodes with beam 3"),
    ],
)
def test_options_without_effect_are_refused_by_name(
    model_folder, untrained_answerer, tmp_path, kind, options, message
):
    folder = model_folder
    if kind == "answerer":
        folder = tmp_path / "answerer"
        save_model(folder, untrained_answerer())
    with pytest.raises(UsageError, match=message):
        run([str(folder)], ServeOptions(port=0, **options))


def test_threads_have_no_effect_on_a_gpu(model_folder, monkeypatch):
    model = load_models([str(model_folder)])["model"]
    model.device = torch.device("cuda")
    monkeypatch.setattr(server, "load_models", lambda *_, **__: {"m": model})
    with pytest.raises(UsageError, match="--threads 2: has no effect, the models run on cuda"):
        run(["m"], ServeOptions(port=0, threads=2))


@pytest.mark.parametrize("damage", ["raises", "is not finite"])
def test_models_that_fail_end_the_service_with_one_line(model_folder, monkeypatch, damage):
    lines, model = [], load_models([str(model_folder)])["model"]
    if damage == "raises":
        monkeypatch.setattr(model, "decode_best", lambda *_: 1 / 0)
    else:
        for weights in model.captioner.parameters():
            weights.data.fill_(float("nan"))
    monkeypatch.setattr(server, "load_models", lambda *_, **__: {"m": model})
    with pytest.raises(ModelError, match="the models failed: ") as failed:
        run(["m"], ServeOptions(port=0), report=lines.append)
    assert ("weights are damaged" in str(failed.value)) is (damage == "is not finite")
    assert lines[:2] == ["m: captioner", f"threads: {torch.get_num_threads()}"]
    assert lines[2].startswith("http://127.0.0.1:")

"""The model folder: it brings back the same model, and every damage is refused by name."""

import errno
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gazetell import files
from gazetell.data.answers import AnswerVocabulary
from gazetell.data.text import Tokenizer
from gazetell.errors import ModelError, WriteError
from gazetell.models import folder as module
from gazetell.models.answerers import ANSWERERS
from gazetell.models.decoding import DecodingOptions, decode
from gazetell.models.folder import (
    AnswererFolder,
    CaptionerFolder,
    load_kind,
    load_model,
    read_config,
    save_model,
    update_metrics,
)

PIECES = {"config.json", "model.safetensors", "tokenizer.json", "metrics.json", "README.md"}


def captions(model, seed=0):
    """What a model says of four random pictures."""
    random = torch.Generator().manual_seed(seed)
    shape = (4, 3, model.encoder.size, model.encoder.size)
    pictures = torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)
    with torch.inference_mode():
        grid = model.encoder(pictures)
    found = decode(model.captioner, grid, model.decoding, start=1, end=2, banned=(0, 3))
    return [(model.tokenizer.decode(one.tokens), one.log_prob) for one in found]


def edit(folder, **changes):
    """Change values of config.json."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | changes))


def refused(folder, *named):
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    for part in named:
        assert part in message, message


def test_a_saved_model_says_the_same(untrained, tmp_path):
    model = untrained(decoding=DecodingOptions(beam=2, max_length=9), about={"dataset": "scenes"})
    save_model(tmp_path / "m", model)
    assert {path.name for path in (tmp_path / "m").iterdir()} == PIECES
    again = load_model(tmp_path / "m")
    assert captions(again) == captions(model)
    assert again.decoding == model.decoding
    assert again.about == {"dataset": "scenes"}
    assert again.metrics == {}
    assert again.tokenizer == model.tokenizer
    assert again.encoder.fingerprint() == model.encoder.fingerprint()
    assert not again.captioner.training
    assert not again.encoder.training


def test_saving_a_loaded_model_gives_the_same_bytes(model_folder, tmp_path):
    save_model(tmp_path / "copy", load_model(model_folder))
    for name in PIECES:
        assert (tmp_path / "copy" / name).read_bytes() == (model_folder / name).read_bytes(), name


def test_a_folder_can_be_moved_and_written_over(model_folder, untrained, tmp_path):
    said = captions(load_model(model_folder))
    moved = tmp_path / "elsewhere" / "with a space"
    moved.parent.mkdir()
    shutil.move(model_folder, moved)
    assert captions(load_model(moved)) == said
    other = untrained(seed=1)
    save_model(moved, other)
    assert captions(load_model(moved)) == captions(other) != said


def test_a_projecting_encoder_comes_back(untrained, tmp_path):
    model = untrained()
    model.encoder.config = replace(model.encoder.config, project=128)
    model.encoder.project = torch.nn.Linear(128, 128)
    save_model(tmp_path / "m", model)
    assert captions(load_model(tmp_path / "m")) == captions(model)


def test_no_path_of_this_machine_is_kept(untrained, tmp_path):
    model = untrained()
    model.encoder.config = replace(
        model.encoder.config, weights=str(tmp_path / "my weights.safetensors")
    )
    save_model(tmp_path / "m", model)
    text = (tmp_path / "m" / "config.json").read_text()
    assert json.loads(text)["encoder"]["weights"] == "my weights.safetensors"
    for name in ("config.json", "README.md", "metrics.json", "tokenizer.json"):
        assert str(tmp_path) not in (tmp_path / "m" / name).read_text()


# -- the card --------------------------------------------------------------------------------


def test_the_card_tells_what_it_is(model_folder):
    config = read_config(model_folder)
    card = (model_folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: gazetell\n")
    assert "# attention-lstm on scenes" in card
    assert "Encoder: small-cnn, weights none" in card
    assert "64 px" in card
    assert f"hidden 16, vocabulary {config['captioner']['vocabulary']}" in card
    assert "- Seed: 0" in card
    assert "Not evaluated yet" in card


def test_the_card_tells_what_was_measured(model_folder):
    metrics = {
        "metrics": {"cider": 0.51234, "bleu_4": 0.25, "spice": None},
        "split": "test",
        "pictures": 6,
        "beam": 3,
    }
    update_metrics(model_folder, metrics)
    card = (model_folder / "README.md").read_text()
    assert "On test (6 pictures), beam 3:" in card
    assert "| cider | 0.5123 |" in card
    assert "| bleu_4 | 0.2500 |" in card
    assert "spice" not in card  # not computed is not 0
    assert "Not evaluated" not in card
    assert load_model(model_folder).metrics == metrics


# -- damage ----------------------------------------------------------------------------------


def test_no_folder_and_an_empty_one_are_named(tmp_path):
    refused(tmp_path / "none", str(tmp_path / "none"), "is no model folder")
    refused(tmp_path, str(tmp_path), "no config.json")


def test_an_unfinished_training_is_named(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    refused(tmp_path / "run", "not finished", f"gazetell train --resume {tmp_path / 'run'}")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_missing_piece_is_named(model_folder, name):
    (model_folder / name).unlink()
    refused(model_folder, str(model_folder / name), "is missing")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty"])
def test_a_damaged_piece_is_named(model_folder, name, damage):
    path = model_folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= damage == "one bit"
    cut = {"truncated": len(data) - 10, "one bit": len(data), "empty": 0}[damage]
    path.write_bytes(data[:cut])
    refused(model_folder, str(path), "does not belong to config.json")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_pieces_of_two_models_are_not_mixed(model_folder, untrained, tmp_path, name):
    other = untrained(seed=5)
    other.tokenizer = Tokenizer.train(["other words"], min_frequency=1)
    save_model(tmp_path / "other", other)
    shutil.copy(tmp_path / "other" / name, model_folder / name)
    refused(model_folder, "does not belong to config.json")


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", '"model"', "{}", '{"model_type": "bert"}', "\x00\x01", "null"]
)
def test_a_foreign_configuration_is_named(model_folder, text):
    (model_folder / "config.json").write_text(text)
    refused(model_folder, str(model_folder / "config.json"))


def test_another_version_is_named(model_folder):
    edit(model_folder, format=2)
    refused(model_folder, "config.json", "format 2 captioner", "reads format 1")
    edit(model_folder, format=1, kind="painter")
    refused(model_folder, "format 1 painter", "captioner or answerer")
    edit(model_folder, format=1, kind="answerer")
    refused(model_folder, "expected the key 'answerer'")


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("captioner", {"architecture": "of tomorrow"}),
        ("captioner", {"heads": 8}),
        ("captioner", {"hidden": "many"}),
        ("captioner", {"hidden": 0}),
        ("encoder", {"name": "of_tomorrow"}),
        ("encoder", {"colour": "grey"}),
        ("encoder", {"mean": [0.5, 0.5]}),
        ("encoder", {"size": None, "mean": "x"}),
        ("decoding", {"beam": 0}),
        ("decoding", {"width": 3}),
        ("decoding", {"beam": None}),
    ],
)
def test_values_that_cannot_be_are_named(model_folder, key, change):
    config = read_config(model_folder)
    edit(model_folder, **{key: config[key] | change})
    refused(model_folder, str(model_folder / "config.json"), "is malformed")


@pytest.mark.parametrize("key", ["captioner", "encoder", "decoding", "about", "sha256"])
@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_values_of_another_kind_are_named(model_folder, key, value):
    edit(model_folder, **{key: value})
    refused(model_folder, str(model_folder / "config.json"))


@pytest.mark.parametrize(
    ("key", "change", "named"),
    [
        ("captioner", {"vocabulary": 9}, "config.json expects 9"),
        ("captioner", {"channels": 9}, "the encoder gives 128 channels"),
        ("captioner", {"hidden": 17}, "does not fit config.json"),
        ("encoder", {"project": 9}, "the encoder gives 9 channels"),
    ],
)
def test_sizes_that_do_not_fit_are_named(model_folder, key, change, named):
    config = read_config(model_folder)
    edit(model_folder, **{key: config[key] | change})
    refused(model_folder, named)


def test_tensors_that_belong_nowhere_or_are_not_finite_are_named(model_folder):
    def changed(change):
        state = load_file(model_folder / "model.safetensors")
        save_file(change(state), model_folder / "model.safetensors")
        sums = read_config(model_folder)["sha256"]
        edit(
            model_folder,
            sha256=sums | {"model.safetensors": module._sha256(model_folder / "model.safetensors")},
        )

    name = "captioner.embed.weight"
    changed(lambda state: state | {name: state[name] * torch.inf})
    refused(model_folder, name, "not finite")
    changed(lambda state: state | {"elsewhere.weight": torch.zeros(1)})
    refused(model_folder, "does not fit config.json", "elsewhere.weight")
    changed(lambda state: {k: v for k, v in state.items() if k not in (name, "elsewhere.weight")})
    refused(model_folder, "does not fit config.json", name)


def test_damaged_metrics_are_named(model_folder):
    (model_folder / "metrics.json").write_text("{")
    refused(model_folder, str(model_folder / "metrics.json"))
    (model_folder / "metrics.json").unlink()
    assert load_model(model_folder).metrics == {}


def test_no_pickle_is_written(model_folder):
    for path in model_folder.iterdir():
        assert path.suffix in (".json", ".safetensors", ".md")


# -- answerers -------------------------------------------------------------------------------


@pytest.fixture
def answerer_folder(untrained_answerer, tmp_path):
    """The folder of an untrained answerer, the test's own to damage."""
    folder = tmp_path / "answerer"
    model = untrained_answerer(temperature=1.75, sigmoid=True, max_question=9)
    save_model(folder, replace(model, about={"dataset": "scenes", "seed": 0}))
    return folder


def logits(model, seed=0):
    """What an answerer makes of four random pictures and four questions of random words."""
    random = torch.Generator().manual_seed(seed)
    shape = (4, 3, model.encoder.size, model.encoder.size)
    pictures = torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)
    tokens = torch.randint(3, model.tokenizer.vocab_size, (4, 6), generator=random)
    with torch.inference_mode():
        found, _ = model.answerer(model.encoder(pictures), tokens, torch.tensor([6, 1, 4, 5]))
    return found


@pytest.mark.parametrize("architecture", ANSWERERS)
@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_saved_answerer_says_the_same(untrained_answerer, tmp_path, architecture, sigmoid):
    model = untrained_answerer(
        architecture=architecture, temperature=0.375, sigmoid=sigmoid, max_question=12
    )
    save_model(tmp_path / "m", model)
    assert {path.name for path in (tmp_path / "m").iterdir()} == PIECES | {"answers.json"}
    again = load_model(tmp_path / "m")
    assert isinstance(again, AnswererFolder)
    assert torch.equal(logits(again), logits(model))
    assert (again.temperature, again.sigmoid, again.max_question) == (0.375, sigmoid, 12)
    assert again.answers == model.answers
    assert again.tokenizer == model.tokenizer
    assert again.answerer.config == model.answerer.config
    assert not again.answerer.training


def test_saving_a_loaded_answerer_gives_the_same_bytes(answerer_folder, tmp_path):
    save_model(tmp_path / "copy", load_model(answerer_folder))
    for path in answerer_folder.iterdir():
        assert (tmp_path / "copy" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_blind_answerer_stays_blind(untrained_answerer, tmp_path):
    save_model(tmp_path / "m", untrained_answerer(blind=True))
    assert load_model(tmp_path / "m").answerer.options.blind


def test_the_card_of_an_answerer(answerer_folder):
    card = (answerer_folder / "README.md").read_text()
    assert "pipeline_tag: visual-question-answering" in card
    assert "# dmn-plus on scenes" in card
    assert "model.ask(" in card
    assert f"answers {read_config(answerer_folder)['answerer']['answers']}" in card
    assert "Not evaluated yet" in card
    measured = {"metrics": {"accuracy": 61.25, "ece": 0.04}, "split": "test", "questions": 80}
    update_metrics(answerer_folder, measured)
    card = (answerer_folder / "README.md").read_text()
    assert "On test (80 questions):" in card
    assert "| accuracy | 61.2500 |" in card
    assert "beam" not in card
    assert load_model(answerer_folder).metrics == measured


@pytest.mark.parametrize("damage", ["missing", "truncated", "changed", "empty"])
def test_damaged_answers_are_named(answerer_folder, damage):
    path = answerer_folder / "answers.json"
    text = path.read_text()
    if damage == "missing":
        path.unlink()
        refused(answerer_folder, str(path), "is missing")
        return
    changed = text.replace("yes", "yep") if "yes" in text else text.replace('"1"', '"one more"')
    path.write_text({"truncated": text[:-9], "changed": changed, "empty": ""}[damage])
    refused(answerer_folder, str(path), "does not belong to config.json")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "answers.json"])
def test_pieces_of_two_answerers_are_not_mixed(answerer_folder, untrained_answerer, tmp_path, name):
    other = untrained_answerer(seed=5)
    other.answers = AnswerVocabulary([*other.answers.answers[::-1]])
    other.tokenizer = Tokenizer.train(["other words"], min_frequency=1)
    save_model(tmp_path / "other", other)
    shutil.copy(tmp_path / "other" / name, answerer_folder / name)
    refused(answerer_folder, str(answerer_folder / name), "does not belong to config.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "answers.json"),
        ("[]", "has no list of answers"),
        ('{"answers": [1, 2]}', "has no list of answers"),
        ('{"answers": []}', "expected a list of different answers"),
        ('{"answers": ["yes", "Yes"]}', "expected a list of different answers"),
        ('{"answers": ["yes", "no"]}', "has 2 answers, config.json expects"),
    ],
)
def test_answers_that_cannot_be_are_named(answerer_folder, text, said):
    """Even where the checksum says they belong."""
    path = answerer_folder / "answers.json"
    path.write_text(text)
    sums = read_config(answerer_folder)["sha256"]
    edit(answerer_folder, sha256=sums | {"answers.json": module._sha256(path)})
    refused(answerer_folder, str(path), said)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", 0),
        ("temperature", -1.0),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "warm"),
        ("temperature", None),
        ("max_question", 0),
        ("max_question", "long"),
        ("sigmoid", "no"),
        ("answerer", {"architecture": "of tomorrow"}),
        ("answerer", {"attention": "sharp"}),
        ("answerer", {"heads": 8}),
        ("answerer", {"passes": 0}),
    ],
)
def test_values_of_an_answerer_that_cannot_be_are_named(answerer_folder, key, value):
    if isinstance(value, dict):
        value = read_config(answerer_folder)[key] | value
    edit(answerer_folder, **{key: value})
    refused(answerer_folder, str(answerer_folder / "config.json"), "is malformed")


@pytest.mark.parametrize("key", ["temperature", "sigmoid", "max_question"])
def test_a_lacking_value_is_named(answerer_folder, key):
    config = read_config(answerer_folder)
    del config[key]
    (answerer_folder / "config.json").write_text(json.dumps(config))
    refused(answerer_folder, str(answerer_folder / "config.json"), key)


def test_an_answerer_is_no_captioner(answerer_folder, model_folder):
    with pytest.raises(ModelError, match="is an answerer; use it with: gazetell ask"):
        load_kind(answerer_folder, CaptionerFolder)
    with pytest.raises(ModelError, match="is a captioner; use it with: gazetell caption"):
        load_kind(model_folder, AnswererFolder)
    edit(answerer_folder, kind="captioner")
    refused(answerer_folder, "expected the key 'captioner'")
    edit(model_folder, kind="answerer", answerer=read_config(model_folder)["captioner"])
    refused(model_folder, "answers.json")


# -- a full disk -----------------------------------------------------------------------------


def full_after(monkeypatch, bytes_left):
    """Let every write but the first so many bytes fail."""
    left = [bytes_left]

    def limited(size):
        left[0] -= size
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real_bytes, real_text = Path.write_bytes, Path.write_text

    def write_bytes(self, data):
        limited(len(data))
        return real_bytes(self, data)

    def write_text(self, data, *args, **kwargs):
        limited(len(data))
        return real_text(self, data, *args, **kwargs)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    monkeypatch.setattr(Path, "write_text", write_text)


def test_a_full_disk_leaves_the_old_model_or_none(model_folder, untrained, monkeypatch):
    said = captions(load_model(model_folder))
    new = untrained(seed=3)
    sizes = [
        (model_folder / name).stat().st_size
        for name in ("model.safetensors", "tokenizer.json", "metrics.json", "README.md")
    ]
    for written in range(5):
        with monkeypatch.context() as patch:
            full_after(patch, sum(sizes[:written]) + 1)
            with pytest.raises(WriteError, match="No space left"):
                save_model(model_folder, new)
        if written == 0:  # by far the largest piece is the first
            assert captions(load_model(model_folder)) == said
        else:
            refused(model_folder, "does not belong to config.json")
        assert {path.name for path in model_folder.iterdir()} == PIECES  # nothing half-written
    save_model(model_folder, new)
    assert captions(load_model(model_folder)) == captions(new)


def test_a_folder_that_cannot_be_written_is_named(untrained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file"):
        save_model(tmp_path / "file" / "model", untrained())


def test_the_configuration_comes_last(untrained, tmp_path, monkeypatch):
    order = []
    replace_file = os.replace

    def watch(source, target):
        order.append(Path(target).name)
        replace_file(source, target)

    monkeypatch.setattr(files.os, "replace", watch)
    save_model(tmp_path / "m", untrained())
    assert set(order) == PIECES
    assert order[-1] == "config.json"
    assert set(CaptionerFolder.files()) < set(order)

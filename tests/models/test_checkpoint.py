"""The model folder: it brings back the same model, and every damage is refused by name."""

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gazetell import files
from gazetell.data.text import Tokenizer
from gazetell.errors import ModelError, WriteError
from gazetell.models import checkpoint
from gazetell.models.checkpoint import load_model, read_config, save_model, update_metrics
from gazetell.models.decoding import DecodingOptions, decode

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
    edit(model_folder, format=1, kind="answerer")
    refused(model_folder, "format 1 answerer")


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


def test_damaged_metrics_are_named(model_folder):
    (model_folder / "metrics.json").write_text("{")
    refused(model_folder, str(model_folder / "metrics.json"))
    (model_folder / "metrics.json").unlink()
    assert load_model(model_folder).metrics == {}


def test_no_pickle_is_written(model_folder):
    for path in model_folder.iterdir():
        assert path.suffix in (".json", ".safetensors", ".md")


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
    assert set(checkpoint.PIECES) < set(order)

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
from gazetell.models.captioners import build_captioner
from gazetell.models.decoding import DecodingOptions
from gazetell.models.folder import (
    AnswererFolder,
    CaptionerFolder,
    load_kind,
    load_model,
    read_config,
    save_model,
    save_pair,
    update_metrics,
    update_settings,
)

ABOUT = {"dataset": "scenes", "seed": 0}


@pytest.fixture
def build(untrained, untrained_answerer):
    """A function that builds an untrained model of a kind."""
    builders = {"captioner": untrained, "answerer": untrained_answerer}
    return lambda kind, **options: builders[kind](**options)


@pytest.fixture
def folder_of(build, tmp_path):
    """A function that saves a model of a kind: the test's own to damage."""

    def save(kind, **options):
        save_model(tmp_path / kind, build(kind, about=ABOUT, **options))
        return tmp_path / kind

    return save


def test_what_a_person_wrote_into_the_card_stays(folder_of, caplog):
    folder = folder_of("captioner")
    card = (folder / "README.md").read_text()
    mine = card.replace("---\n", "---\nlicense: mit\n", 1)
    mine = mine.replace("## Limits", "## Mine\n\nA.\n\n## Limits")
    (folder / "README.md").write_text(mine)
    for value in (0.25, 0.5):  # measured again
        update_metrics(folder, {"metrics": {"bleu_4": value}, "split": "test", "pictures": 6})
    table = "| metric | value |\n|---|---|\n| BLEU-4 | 50.0 |"
    before = "Not evaluated yet: `gazetell evaluate RUN --data DIR`."
    expected = mine.replace(before, f"On test (6 pictures), beam ?:\n\n{table}")
    assert (folder / "README.md").read_text() == expected
    assert not caplog.messages
    (folder / "README.md").write_text("mine alone")
    update_metrics(folder, {"metrics": {"bleu_4": 0.75}})
    assert (folder / "README.md").read_text() == "mine alone"
    assert (
        "README.md: has no section Measured, so the new figures are not on the card" in caplog.text
    )
    assert load_model(folder).metrics["metrics"] == {"bleu_4": 0.75}


def numbers(model):
    """What a model makes of four random pictures and four rows of random words."""
    random = torch.Generator().manual_seed(0)
    shape = (4, 3, model.encoder.size, model.encoder.size)
    pictures = torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)
    tokens = torch.randint(4, model.tokenizer.vocab_size, (4, 6), generator=random)
    with torch.inference_mode():
        grid = model.encoder(pictures)
        if model.kind == "answerer":
            return model.network(grid, tokens, torch.tensor([6, 1, 4, 5]))[0]
        return model.network(grid, tokens)[0]


def edit(folder, **changes):
    """Change values of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def resign(folder, name):
    """Let config.json believe that a file belongs to it."""
    sums = read_config(folder)["sha256"]
    edit(folder, sha256=sums | {name: module._sha256(folder / name)})


def refused(folder, *named):
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    for part in named:
        assert part in message, message


# -- saved and loaded ------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["attention-lstm", *ANSWERERS])
def test_a_saved_model_is_the_same(build, tmp_path, architecture):
    if architecture == "attention-lstm":
        settings = {"decoding": DecodingOptions(beam=2, max_length=9)}
        model = replace(build("captioner"), **settings)
    else:
        settings = {"temperature": 0.375, "sigmoid": True, "max_question": 12}
        model = build("answerer", architecture=architecture, **settings)
    save_model(tmp_path / "m", replace(model, about=ABOUT))
    expected = {"config.json", "metrics.json", "README.md", *model.files()}
    assert {path.name for path in (tmp_path / "m").iterdir()} == expected
    assert {path.suffix for path in (tmp_path / "m").iterdir()} == {".json", ".safetensors", ".md"}
    again = load_model(tmp_path / "m")
    assert type(again) is type(model)
    assert torch.equal(numbers(again), numbers(model))
    assert {name: getattr(again, name) for name in settings} == settings
    assert (again.about, again.metrics) == (ABOUT, {})
    assert again.tokenizer == model.tokenizer
    assert again.network.config == model.network.config
    assert again.encoder.fingerprint() == model.encoder.fingerprint()
    assert not again.network.training
    assert not again.encoder.training
    save_model(tmp_path / "copy", again)
    for name in expected:
        assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / "m" / name).read_bytes(), name


def test_a_folder_can_be_moved_and_written_over(folder_of, build, tmp_path):
    folder = folder_of("captioner")
    said = numbers(load_model(folder))
    moved = tmp_path / "elsewhere" / "with a space"
    moved.parent.mkdir()
    shutil.move(folder, moved)
    assert torch.equal(numbers(load_model(moved)), said)
    save_model(moved, build("captioner", seed=1))
    assert not torch.equal(numbers(load_model(moved)), said)


def test_a_projection_comes_back_and_no_path_of_this_machine_is_kept(build, tmp_path):
    model = build("captioner")
    weights = str(tmp_path / "my weights.safetensors")
    model.encoder.config = replace(model.encoder.config, project=128, weights=weights)
    model.encoder.project = torch.nn.Linear(128, 128)
    save_model(tmp_path / "m", model)
    assert torch.equal(numbers(load_model(tmp_path / "m")), numbers(model))
    assert read_config(tmp_path / "m")["encoder"]["weights"] == "my weights.safetensors"
    for path in (tmp_path / "m").glob("*[!s]"):  # all but the weights
        assert str(tmp_path) not in path.read_text()


# -- half the size, and pairs ----------------------------------------------------------------


@pytest.fixture
def wide(build):
    """A captioner with a matrix that is large enough for 8 bits, one of its rows all zeros."""
    model = build("captioner")
    config = model.captioner.config | {"hidden": 256}
    model.captioner = build_captioner(**config).eval()
    model.captioner.state_gates.weight.data[3] = 0
    return model


def test_compact_weights_round_once(wide, tmp_path):
    variances = wide.encoder.trunk[1].running_var.fill_(1e-9).clone()  # nothing in float16
    paths = [tmp_path / name / "model.safetensors" for name in ("m", "compact", "again")]
    save_model(tmp_path / "m", wide)
    save_model(tmp_path / "compact", wide, compact=True)
    assert paths[1].stat().st_size < 0.45 * paths[0].stat().st_size
    compact = load_model(tmp_path / "compact")
    assert {x.dtype for x in compact.network.state_dict().values()} == {torch.float32}
    assert torch.equal(compact.encoder.trunk[1].running_var, variances)
    assert torch.allclose(numbers(compact), numbers(wide), atol=0.02, rtol=0.01)
    kept = load_file(paths[1])
    large = "captioner.state_gates.weight"
    assert [name for name, x in kept.items() if x.dtype == torch.int8] == [large]
    weights = wide.captioner.state_gates.weight
    error = (compact.captioner.state_gates.weight - weights).abs().amax(1)
    assert (error <= 0.501 * kept[f"{large}.scale"]).all()
    assert torch.allclose(kept[f"{large}.scale"] * 127, weights.abs().amax(1))
    save_model(tmp_path / "again", compact, compact=True)
    for name, tensor in load_file(paths[2]).items():
        assert torch.allclose(tensor, kept[name], rtol=1e-6), name
    wide.captioner.embed.weight.data[0, 0] = 1e5
    with pytest.raises(ModelError, match=r"captioner.embed.weight: .* too large for float16"):
        save_model(tmp_path / "m", wide, compact=True)


@pytest.mark.parametrize("scales", [None, 3])
def test_a_matrix_of_8_bits_without_its_scales_is_named(wide, tmp_path, scales):
    save_model(tmp_path, wide, compact=True)
    kept = load_file(tmp_path / "model.safetensors")
    scale = kept.pop("captioner.state_gates.weight.scale")
    if scales:
        kept["captioner.state_gates.weight.scale"] = scale[:scales].clone()
    save_file(kept, tmp_path / "model.safetensors")
    resign(tmp_path, "model.safetensors")
    refused(tmp_path, f"captioner.state_gates.weight has {scales or 0} scales", "one per row")


def test_a_pair_keeps_its_encoder_once(build, tmp_path):
    captioner, answerer = build("captioner", about=ABOUT), build("answerer", metrics={"a": 1})
    answerer.encoder.project = torch.nn.Linear(128, 128)  # each projection is its model's own
    answerer.encoder.config = replace(answerer.encoder.config, project=128)
    folder = tmp_path / "pair"
    save_pair(folder, captioner, answerer)
    trunk = load_file(folder / "encoder.safetensors")
    assert {name.split(".")[1] for name in trunk} == {"trunk"}
    for model in (captioner, answerer):
        own = load_file(folder / model.kind / "model.safetensors")
        assert not [name for name in own if name in trunk]
        again = load_kind(folder, type(model))
        assert torch.equal(numbers(again), numbers(model))
        assert (again.about, again.metrics) == (model.about, model.metrics)
        update_metrics(folder / model.kind, {"split": "test"})
        assert load_model(folder / model.kind).metrics == {"split": "test"}
    refused(folder, "holds two models", str(folder / "captioner"), str(folder / "answerer"))
    with pytest.raises(ModelError, match="different encoders"):
        save_pair(tmp_path / "two", captioner, build("answerer", seed=1))


@pytest.mark.parametrize("damage", ["missing", "another"])
def test_a_pair_whose_encoder_is_damaged_is_named(build, tmp_path, damage):
    save_pair(tmp_path / "pair", build("captioner"), build("answerer"))
    path = tmp_path / "pair" / "encoder.safetensors"
    if damage == "missing":
        path.unlink()
        refused(tmp_path / "pair" / "answerer", "encoder.safetensors", "is missing")
    else:
        save_pair(tmp_path / "other", build("captioner", seed=1), build("answerer", seed=1))
        shutil.copy(tmp_path / "other" / "encoder.safetensors", path)
        refused(tmp_path / "pair" / "answerer", "does not belong to config.json")


def test_the_configuration_comes_last(folder_of, monkeypatch):
    order = []
    replace_file = os.replace

    def watch(source, target):
        order.append(Path(target).name)
        replace_file(source, target)

    monkeypatch.setattr(files.os, "replace", watch)
    folder_of("answerer")
    assert set(AnswererFolder.files()) < set(order)
    assert order[-1] == "config.json"


def test_settings_can_be_changed(folder_of):
    folder = folder_of("captioner")
    update_settings(folder, {"decoding": DecodingOptions(beam=5)})
    assert load_model(folder).decoding == DecodingOptions(beam=5)


# -- the card --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "said", "metrics", "measured"),
    [
        (
            "captioner",
            ["pipeline_tag: image-to-text", "# attention-lstm on scenes", "model.caption("],
            {"metrics": {"cider": 0.51234, "spice": None}, "pictures": 6, "beam": 3},
            ["On test (6 pictures), beam 3:", "| CIDEr | 51.2 |"],
        ),
        (
            "answerer",
            ["pipeline_tag: visual-question-answering", "# dmn-plus on scenes", "model.ask("],
            {"metrics": {"accuracy": 61.25, "spice": None}, "questions": 80},
            ["On test (80 questions):", "| accuracy | 61.25 |"],
        ),
    ],
)
def test_the_card_tells_what_it_is_and_what_was_measured(folder_of, kind, said, metrics, measured):
    folder = folder_of(kind)
    network, card = read_config(folder)[kind], (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: gazetell\n")
    sizes = [f"hidden 16, vocabulary {network['vocabulary']}"]
    sizes += [f"answers {network['answers']}"] if kind == "answerer" else []
    encoder = "Encoder: small-cnn, weights none, layer None, 64 px, fit pad, trained: none"
    for part in (*said, *sizes, encoder, "\n- Seed: 0\n", "Not evaluated yet"):
        assert part in card, part
    metrics |= {"split": "test"}
    update_metrics(folder, metrics)
    card = (folder / "README.md").read_text()
    for part in (*said, *measured):
        assert part in card, part
    assert "spice" not in card  # not computed is not 0
    assert "Not evaluated" not in card
    assert load_model(folder).metrics == metrics


# -- damage ----------------------------------------------------------------------------------


def test_what_is_no_model_folder_is_named(tmp_path):
    refused(tmp_path / "none", str(tmp_path / "none"), "is not a model folder")
    refused(tmp_path, str(tmp_path), "no config.json")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    refused(tmp_path / "run", "not finished", f"gazetell train --resume {tmp_path / 'run'}")


@pytest.mark.parametrize("name", AnswererFolder.files())
@pytest.mark.parametrize("damage", ["missing", "truncated", "one bit", "empty", "another model's"])
def test_a_damaged_file_is_named(folder_of, build, tmp_path, name, damage):
    path = folder_of("answerer") / name
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
        refused(path.parent, str(path), "is missing")
        return
    if damage == "another model's":
        other = build("answerer", seed=5)
        other.answers = AnswerVocabulary(other.answers.answers[::-1])
        other.tokenizer = Tokenizer.train(["other words"], min_frequency=1)
        save_model(tmp_path / "other", other)
        data = (tmp_path / "other" / name).read_bytes()
    elif damage == "one bit":
        data[len(data) // 2] ^= 1
    path.write_bytes(data[: {"truncated": -10, "empty": 0}.get(damage)])
    refused(path.parent, str(path), "does not belong to config.json")


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", '"model"', "{}", '{"model_type": "bert"}', "\x00\x01", "null"]
)
def test_a_foreign_configuration_is_named(folder_of, text):
    folder = folder_of("captioner")
    (folder / "config.json").write_text(text)
    refused(folder, str(folder / "config.json"))


def test_another_version_or_kind_is_named(folder_of):
    captioner, answerer = folder_of("captioner"), folder_of("answerer")
    with pytest.raises(ModelError, match="is an answerer; use it with: gazetell ask"):
        load_kind(answerer, CaptionerFolder)
    with pytest.raises(ModelError, match="is a captioner; use it with: gazetell caption"):
        load_kind(captioner, AnswererFolder)
    edit(captioner, format=2)
    refused(captioner, "config.json", "format 2 captioner", "reads format 1")
    edit(captioner, format=1, kind="painter")
    refused(captioner, "format 1 painter", "captioner or answerer")
    edit(captioner, kind="answerer")
    refused(captioner, "expected the key 'answerer'")
    edit(captioner, answerer=read_config(answerer)["answerer"])
    refused(captioner, "answers.json")


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("captioner", "captioner", {"architecture": "of tomorrow"}),
        ("captioner", "captioner", {"heads": 8}),
        ("captioner", "captioner", {"hidden": "many"}),
        ("captioner", "captioner", {"hidden": 0}),
        ("captioner", "encoder", {"name": "of_tomorrow"}),
        ("captioner", "encoder", {"colour": "grey"}),
        ("captioner", "encoder", {"mean": [0.5, 0.5]}),
        ("captioner", "encoder", {"size": None, "mean": "x"}),
        ("captioner", "decoding", {"beam": 0}),
        ("captioner", "decoding", {"width": 3}),
        ("captioner", "decoding", {"beam": None}),
        ("answerer", "answerer", {"architecture": "of tomorrow"}),
        ("answerer", "answerer", {"heads": 8}),
        ("answerer", "answerer", {"passes": 0}),
        *(("answerer", "temperature", value) for value in (0, -1.0, math.nan, "warm", None)),
        *(("answerer", "max_question", value) for value in (0, "long")),
        ("answerer", "sigmoid", "no"),
        *(("captioner", key, 3) for key in ("captioner", "encoder", "decoding")),
        *(("answerer", key, KeyError) for key in ("temperature", "sigmoid", "max_question")),
    ],
)
def test_values_that_cannot_be_are_named(folder_of, kind, key, value):
    folder = folder_of(kind)
    config = read_config(folder)
    if isinstance(value, dict):
        value = config[key] | value
    if value is KeyError:
        del config[key]
        (folder / "config.json").write_text(json.dumps(config))
    else:
        edit(folder, **{key: value})
    refused(folder, str(folder / "config.json"), "is malformed")


@pytest.mark.parametrize(
    ("key", "change", "named"),
    [
        ("answerer", {"vocabulary": 9}, "config.json expects 9"),
        ("answerer", {"answers": 99}, "config.json expects 99"),
        ("answerer", {"channels": 9}, "the encoder gives 128 channels"),
        ("answerer", {"hidden": 17}, "does not fit config.json"),
        ("encoder", {"project": 9}, "the encoder gives 9 channels"),
    ],
)
def test_sizes_that_do_not_fit_are_named(folder_of, key, change, named):
    folder = folder_of("answerer")
    edit(folder, **{key: read_config(folder)[key] | change})
    refused(folder, named)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "answers.json"),
        ("[]", "has no list of answers"),
        ('{"answers": ["yes", "Yes"]}', "expected a list of different answers"),
        ('{"answers": ["yes", "no"]}', "has 2 answers, config.json expects"),
    ],
)
def test_answers_that_cannot_be_are_named(folder_of, text, said):
    """Even where the checksum says they belong."""
    folder = folder_of("answerer")
    (folder / "answers.json").write_text(text)
    resign(folder, "answers.json")
    refused(folder, str(folder / "answers.json"), said)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda old: {**old, "captioner.embed.weight": old["captioner.embed.weight"] * math.inf},
         ("captioner.embed.weight", "not finite")),
        (lambda old: {**old, "elsewhere.weight": torch.zeros(1)},
         ("does not fit config.json", "elsewhere.weight")),
        (lambda old: {name: old[name] for name in old if name != "captioner.embed.weight"},
         ("does not fit config.json", "captioner.embed.weight")),
    ],
)  # fmt: skip
def test_weights_that_belong_nowhere_are_lacking_or_not_finite_are_named(folder_of, change, named):
    path = folder_of("captioner") / "model.safetensors"
    save_file(change(load_file(path)), path)
    resign(path.parent, path.name)
    refused(path.parent, *named)


def test_damaged_metrics_are_named(folder_of):
    path = folder_of("captioner") / "metrics.json"
    path.write_text("{")
    refused(path.parent, str(path))
    path.unlink()
    assert load_model(path.parent).metrics == {}


# -- a full disk -----------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_model_or_none(folder_of, build, monkeypatch):
    folder, new = folder_of("captioner"), build("captioner", seed=3)
    said = numbers(load_model(folder))
    names = {path.name for path in folder.iterdir()}
    # In the order of writing; a file that does not fit leaves nothing half-written.
    for written, name in enumerate((*CaptionerFolder.files(), "metrics.json", "README.md")):

        def full(source, target, name=name):
            if Path(target).name == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            shutil.move(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(files.os, "replace", full)
            with pytest.raises(WriteError, match="No space left"):
                save_model(folder, new)
        if written == 0:  # by far the largest file is the first
            assert torch.equal(numbers(load_model(folder)), said)
        else:
            refused(folder, "does not belong to config.json")
        assert {path.name for path in folder.iterdir()} == names
    save_model(folder, new)
    assert torch.equal(numbers(load_model(folder)), numbers(new))


def test_a_folder_that_cannot_be_written_is_named(build, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file"):
        save_model(tmp_path / "file" / "model", build("captioner"))

"""Options and recipes: what does not fit or does nothing is named; old files are still read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gazetell.errors import DataError, ModelError, UsageError
from gazetell.models.answerers import ANSWERERS
from gazetell.models.captioners import CAPTIONERS
from gazetell.models.folder import save_model
from gazetell.training.options import (
    flags,
    read_recipe,
    recipe_names,
    recipe_text,
    run_class,
    saved_options,
    train_options,
)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"epochs": 0}, "--epochs 0: expected 1 or more"),
        ({"learning_rate": -1.0}, "--learning-rate"),
        ({"label_smoothing": 1.0}, "--label-smoothing"),
        ({"schedule": "step"}, "cosine, constant"),
        ({"architecture": "gpt"}, "attention-lstm"),
        ({"eval_every": 30, "epochs": 3}, "--eval-every"),
        ({"features": "maybe"}, "auto, none"),
        ({"captions_per_image": -1}, "--captions-per-image"),
        ({"seed": 2**32}, "--seed"),
        ({"reward": "cider", "samples": 1}, "--samples 1: expected 2 or more"),
        ({"encoder": "resnet9000"}, "resnet9000"),
        ({"epoks": 3}, "--epoks: there is no such option"),
        ({"architecture": "bow-mlp", "targets": "firm"}, "expected one of hard, soft, votes"),
        ({"architecture": "lstm-vqa", "fusion": "sum"}, "expected one of concat, product"),
        # Of another architecture or task.
        ({"architecture": "lstm", "passes": 9}, "--passes 9: lstm has no such option.*dmn-plus"),
        ({"architecture": "rnn", "targets": "soft"}, "--targets soft: rnn.*bow-mlp, lstm-vqa, att"),
        ({"architecture": "bow-mlp", "reward": "cider"}, "--reward cider: bow-mlp.*lstm"),
        ({"blind": True, "attention_penalty": 1.0}, "--attention-penalty 1.0: has no effect"),
        # Without effect.
        ({"freeze_words": True}, "--freeze-words: would freeze random"),
        ({"samples": 3}, "--samples 3: expected --reward"),
        ({"reward_references": "data"}, "--reward-references .*data: expected --reward"),
        ({"random_crop": 0.5}, "--random-crop 0.5: has no effect on grids that are kept"),
        ({"random_crop": 1.0}, "--random-crop 1.0: expected 0 up to below 1"),
        ({"teacher_weight": 0.3}, "--teacher-weight 0.3: expected --teacher"),
        ({"teacher": ("a",), "reward": "cider"}, "--teacher [^(]*a: has no effect with"),
        ({"teacher": ("a", "./a")}, "--teacher .*a: is given twice"),
        ({"reward_baseline": "greedy"}, "--reward-baseline greedy: expected --reward"),
        ({"reward": "cider", "label_smoothing": 0.2}, "--label-smoothing 0.2: has no effect"),
        ({"reward": "cider", "attention_penalty": 1.0}, "--attention-penalty 1.0: has no effect"),
        ({"encoder_learning_rate": 1e-3}, "--encoder-learning-rate 0.001: the encoder is frozen"),
        ({"encoder_trainable": "all", "features": "auto"}, "--features auto: only grids"),
        ({"overfit": 4, "dropout": 0.5}, "--dropout 0.5: has no effect with --overfit"),
        ({"overfit": 4, "flip": True}, "--flip: has no effect"),
        ({"architecture": "bow-mlp", "blind": True, "flip": True}, "--flip: has no effect"),
        ({"architecture": "bow-mlp", "blind": True, "encoder_trainable": "all"}, "with --blind"),
        ({"architecture": "bow-mlp", "targets": "soft", "label_smoothing": 0.1}, "--label-smooth"),
    ],
)
def test_what_does_not_fit_or_does_nothing_is_refused_by_name(given, named):
    with pytest.raises(UsageError, match=named):
        train_options(**given)


@pytest.mark.parametrize("name", recipe_names())
def test_the_recipes_that_come_along_leave_nothing_out(name, tmp_path, caplog):
    chosen = train_options(name)
    assert chosen.encoder_config()
    assert not caplog.records
    written = tmp_path / "recipe.toml"
    written.write_text(recipe_text(chosen, "a comment\nof two lines"))
    assert train_options(str(written)) == chosen
    assert not caplog.records
    assert saved_options(json.loads(json.dumps(chosen.to_dict())), name) == chosen


@pytest.mark.parametrize(
    ("recipe", "architecture", "left"),
    [
        ("flickr8k", "rnn", None),
        ("easy-vqa", "bow-mlp", "fusion, hidden"),
        ("coco-vqa", "dmn-plus", "fusion, normalise, layers"),
        ("scenes", "bow-mlp", "hidden, max_length, length_penalty"),
    ],
)
def test_what_another_architecture_lacks_of_a_recipe_is_left_out_and_named(
    recipe, architecture, left, caplog
):
    assert train_options(recipe, architecture=architecture).architecture == architecture
    said = [record.getMessage() for record in caplog.records]
    assert said == ([f"recipe {recipe}: left out, without effect here: {left}"] if left else [])


@pytest.mark.parametrize(
    ("recipe", "encoder", "weights", "left"),
    [
        ("vqa2-lstm", "resnet50", "IMAGENET1K_V2", "encoder vgg16: encoder_weights, encoder_layer"),
        ("scenes", "convnext_tiny", "IMAGENET1K_V1", "small-cnn: encoder_weights, encoder_size"),
        ("scenes", "small-cnn", "none", None),
        ("flickr8k", "densenet121", "IMAGENET1K_V1", None),
    ],
)
def test_weights_and_layer_of_a_recipe_are_its_encoders(recipe, encoder, weights, left, caplog):
    chosen = train_options(recipe, encoder=encoder)
    assert (chosen.encoder, chosen.encoder_weights) == (encoder, weights)
    assert not left or (chosen.encoder_layer, chosen.encoder_size) == (None, None)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == bool(left)
    assert all(line.endswith(left) for line in said)
    assert train_options(recipe, encoder=encoder, encoder_weights="none").encoder_weights == "none"


def test_what_is_given_wins_over_the_recipe():
    chosen = train_options("scenes", hidden=16)
    assert (chosen.hidden, chosen.embedding, chosen.clip) == (16, 128, 5.0)


def test_a_recipe_of_ones_own_also_of_earlier_names(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'epochs = 2\nscheduled_sampling = 0.0\n[model]\narchitecture = "dmn-plus"\n'
        'attention = "soft"\n[encoder]\nencoder = "resnet18"\nencoder_mean = [0.1, 0.2, 0.3]\n'
    )
    chosen = train_options(str(path))
    assert chosen.attention_kind == "soft"
    assert chosen.encoder_config().mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epochs = ", "is not TOML"),
        ("epoks = 3", "unknown option 'epoks'"),
        ('[training]\nepochs = "many"', "--epochs many: expected a whole number"),
        ("scheduled_sampling = 0.25", "scheduled_sampling was removed"),
    ],
)
def test_a_bad_recipe_is_named(tmp_path, text, named):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=named) as error:
        train_options(str(path))
    assert "bad.toml" in str(error.value)


def test_an_unknown_recipe_lists_the_known():
    with pytest.raises(UsageError, match=r"--recipe imagenet: expected .*scenes"):
        read_recipe("imagenet")


def test_options_of_an_earlier_run_folder():
    """It had the options of all architectures, and one that is gone."""
    old = {"architecture": "lstm", "hidden": 7, "passes": 9, "attention": "gru", "answers": 3}
    chosen = saved_options(old | {"scheduled_sampling": 0.0}, "training.json")
    assert chosen == replace(run_class("lstm")(hidden=7), encoder_fit="squash", architecture="lstm")
    with pytest.raises(DataError, match=r"training\.json: scheduled_sampling was removed"):
        saved_options(old | {"scheduled_sampling": 0.5}, "training.json")
    with pytest.raises(DataError, match=r"training\.json: unknown option 'pases'"):
        saved_options(old | {"pases": 9}, "training.json")


def test_paths_are_absolute_and_models_must_be_there(tmp_path, monkeypatch, photo):
    monkeypatch.chdir(tmp_path)
    Path("vectors.txt").touch()
    assert train_options(word_vectors="vectors.txt").word_vectors == str(tmp_path / "vectors.txt")
    assert train_options(word_vectors="photo").word_vectors == str(photo / "captioner")
    for name in ("init_from", "encoder_from"):
        with pytest.raises(ModelError, match="nowhere"):
            train_options(**{name: "nowhere"})


@pytest.fixture(scope="module")
def captioner(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "captioner"
    tiny.train(folder, epochs=1)
    return folder


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"architecture": "rnn"}, "--architecture rnn: --init-from .* has attention-lstm"),
        ({"architecture": "dmn-plus"}, "--architecture dmn-plus: --init-from"),
        ({"hidden": 99}, "--hidden 99: .* has 16, which is taken over"),
        ({"encoder_size": 64}, "--encoder-size 64: .* has 32"),
        ({"min_frequency": 2}, "--min-frequency 2: .* brings its own vocabulary"),
        ({"keep": "all"}, "--keep all: .* brings its own vocabulary"),
        ({"word_vectors": "a.txt"}, "--word-vectors a.txt: .* brings its own vocabulary"),
        ({"passes": 3}, "--passes 3: attention-lstm has no such option"),
    ],
)
def test_a_second_stage_refuses_what_the_first_brings(captioner, given, named):
    with pytest.raises(UsageError, match=named):
        train_options(init_from=str(captioner), **given)


def test_a_second_stage_takes_over_and_says_what_of_a_recipe_is_left(captioner, tmp_path, caplog):
    chosen = train_options("flickr8k", init_from=str(captioner), hidden=16, dropout=0.2)
    assert (chosen.architecture, chosen.hidden, chosen.embedding) == ("attention-lstm", 16, 12)
    assert (chosen.encoder, chosen.encoder_size, chosen.dropout) == ("small-cnn", 32, 0.2)
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.endswith(": embedding, min_frequency, encoder")
    (tmp_path / "recipe.toml").write_text(recipe_text(chosen, "of a second stage"))
    assert train_options(str(tmp_path / "recipe.toml")) == chosen
    assert len(caplog.records) == 1


def test_an_encoder_is_taken_over(captioner, caplog):
    chosen = train_options("scenes-answers", encoder_from=str(captioner))
    assert (chosen.architecture, chosen.encoder_size) == ("dmn-plus", 32)
    assert "left out, without effect here: encoder_size" in caplog.text
    with pytest.raises(UsageError, match=r"--encoder resnet18: --encoder-from .* has small-cnn"):
        train_options(encoder_from=str(captioner), encoder="resnet18")


def test_a_blind_model_lends_no_encoder(untrained, tmp_path):
    save_model(tmp_path / "blind", untrained(blind=True))
    with pytest.raises(
        UsageError, match=r"--encoder-from .*blind: is blind: its encoder was never used"
    ):
        train_options(encoder_from=str(tmp_path / "blind"))


def test_every_option_of_every_run_is_a_flag_with_help():
    names = {name for model in CAPTIONERS | ANSWERERS for name in vars(run_class(model)())}
    assert set(flags()) == names
    assert all(each.help.endswith(".") and each.group for each in flags().values())

"""Options and recipes: bad values are named, recipes are complete and true."""

import pytest

from gazetell.errors import DataError, UsageError
from gazetell.training.options import TrainOptions, read_recipe, recipe_names


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"epochs": 0}, "--epochs 0"),
        ({"learning_rate": -1.0}, "--learning-rate"),
        ({"label_smoothing": 1.0}, "--label-smoothing"),
        ({"schedule": "step"}, "cosine, constant"),
        ({"architecture": "gpt"}, "attention-lstm"),
        ({"eval_every": 30, "epochs": 3}, "--eval-every"),
        ({"features": "maybe"}, "auto, none"),
        ({"captions_per_image": -1}, "--captions-per-image"),
    ],
)
def test_a_bad_value_is_named(bad, named):
    with pytest.raises(UsageError, match=named):
        TrainOptions(**bad)


def test_round_trip():
    options = TrainOptions(encoder_mean=(0.5, 0.5, 0.5), epochs=3, eval_every=1)
    assert TrainOptions.from_dict(options.to_dict(), "here") == options


@pytest.mark.parametrize("name", recipe_names())
def test_the_recipes_that_come_along_are_valid(name):
    values = read_recipe(name)
    assert TrainOptions.from_dict(values, name).encoder_config()


def test_a_recipe_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('epochs = 2\n[encoder]\nencoder = "resnet18"\nencoder_mean = [0.1, 0.2, 0.3]\n')
    assert read_recipe(str(path)) == {
        "epochs": 2,
        "encoder": "resnet18",
        "encoder_mean": [0.1, 0.2, 0.3],
    }
    options = TrainOptions.from_dict(read_recipe(str(path)), "mine")
    assert options.encoder_config().mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epochs = ", "is not TOML"),
        ("epoks = 3", "unknown option 'epoks'"),
        ('[training]\nepochs = "many"', "wrong type"),
    ],
)
def test_a_bad_recipe_is_named(tmp_path, text, named):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=named) as error:
        read_recipe(str(path))
    assert "bad.toml" in str(error.value)


def test_an_unknown_recipe_lists_the_known():
    with pytest.raises(UsageError, match="scenes"):
        read_recipe("imagenet")

"""What a training run is made of: options, and the recipes that preset them.

A run has the options below, those of its task, and those of its architecture, which stand beside
the model (``CAPTIONERS[name].Options``). ``train_options`` makes one flat frozen dataclass of the
three; nothing else lists them. An option that was given and does nothing is refused by name; one
of a recipe is left out, and one line names it.

A recipe is a TOML file. Its tables are headings for the reader, its keys are options::

    [encoder]
    encoder = "mobilenet_v2"
    [training]
    learning_rate = 1e-3
"""

import logging
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_type_hints

from ..data.answers import Target
from ..errors import DataError, UsageError
from ..files import read_text
from ..models.answerers import ANSWERERS, answerer_config
from ..models.captioners import CAPTIONERS, captioner_config
from ..models.encoders import EncoderConfig
from ..models.folder import fetch, read_config
from ..models.options import (
    POSITIVE,
    SHARE,
    Options,
    all_options,
    flag,
    option,
    options_class,
)

__all__ = [
    "Flag",
    "TrainOptions",
    "flags",
    "read_recipe",
    "recipe_names",
    "saved_options",
    "train_options",
]

logger = logging.getLogger(__name__)
MODELS = {**CAPTIONERS, **ANSWERERS}
NOT_NEGATIVE = (lambda value: value >= 0, "0 or more")
RATE = (lambda value: 0 < value <= 1, "above 0, at most 1")


@dataclass(frozen=True)
class StartOptions(Options):
    """What a run begins with."""

    architecture: str = option("attention-lstm", f"Of the model: {', '.join(MODELS)}.")
    init_from: str | None = option(
        None,
        "Begin with the weights of this model folder: a second stage. Its architecture, sizes, "
        "vocabulary and encoder are taken over.",
    )
    encoder_from: str | None = option(
        None, "Take the encoder of this model folder, weights and all."
    )
    word_vectors: str | None = option(
        None,
        "Begin with these word embeddings: a text file of GloVe, word2vec or fastText, also "
        "gzip'd (see gazetell vectors), as wide as --embedding.",
    )
    freeze_words: bool = option(False, "Do not train the word embeddings.")
    min_frequency: int = option(
        5, "A word of the vocabulary occurs at least so often in the training texts.", POSITIVE
    )
    max_words: int = option(0, "Most words in the vocabulary; 0 for no limit.", NOT_NEGATIVE)


@dataclass(frozen=True)
class EncoderOptions(Options):
    """The CNN that sees the picture."""

    encoder: str = option(
        "regnet_x_400mf", "A CNN by name (see gazetell models), or small-cnn to begin from scratch."
    )
    encoder_weights: str = option(
        "IMAGENET1K_V2", "A weights name of torchvision, a .safetensors or .pth file, or none."
    )
    encoder_layer: str | None = option(
        None, "The node whose output is the grid; the last spatial map if not given."
    )
    encoder_size: int | None = option(None, "Input side in pixels; the weights' own if not given.")
    encoder_mean: tuple[float, float, float] | None = option(
        None, "Mean of each channel, of pixels in 0 to 1; the weights' own if not given."
    )
    encoder_std: tuple[float, float, float] | None = option(
        None, "Standard deviation of each channel; the weights' own if not given."
    )
    encoder_padding: str | None = option(
        None, "stock, or same for weights converted from TensorFlow; the weights' own if not given."
    )
    encoder_trainable: str = option("none", "none, all, or last:N for the last N stages.")
    encoder_project: int | None = option(
        None, "Project the grid to so many channels by a 1x1 convolution."
    )
    features: Literal["auto", "none"] = option(
        "auto", "Keep the grids of a frozen encoder on disk (auto), or encode in each epoch (none)."
    )


@dataclass(frozen=True)
class OptimiserOptions(Options):
    """How weights are learned."""

    learning_rate: float = option(1e-3, "Peak learning rate of AdamW.", RATE)
    encoder_learning_rate: float = option(1e-4, "That of a trained encoder.", RATE)
    beta2: float = option(
        0.999,
        "Decay of AdamW's second moments; less suits short runs.",
        (lambda value: 0 < value < 1, "above 0, below 1"),
    )
    weight_decay: float = option(
        1e-2, "Weight decay of AdamW, on matrices.", (lambda value: 0 <= value <= 1, "0 to 1")
    )
    warmup: float = option(
        0.05, "Share of all steps in which the learning rate rises to its peak.", SHARE
    )
    schedule: Literal["cosine", "constant"] = option(
        "cosine", "After the warm-up: cosine to zero, or constant."
    )
    clip: float = option(5.0, "Largest norm of the gradient; 0 for no limit.", NOT_NEGATIVE)
    label_smoothing: float = option(
        0.1, "Share of the target probability spread over all words or answers.", SHARE
    )
    ema: float = option(
        0.0,
        "Decay a step of a moving average of the weights, which is then validated and kept; 0 for "
        "off, 0.999 is usual.",
        SHARE,
    )


@dataclass(frozen=True)
class RunOptions(Options):
    """Epochs, data and machine."""

    epochs: int = option(20, "Most passes over the training pictures.", POSITIVE)
    batch: int = option(32, "Pictures a step; each comes with its captions or questions.", POSITIVE)
    captions_per_image: int = option(
        0,
        "Captions, or questions, of a picture a pass, drawn anew each time; 0 for all.",
        NOT_NEGATIVE,
    )
    flip: bool = option(
        False, "Show half of the pictures mirrored. Unfit where texts say left and right."
    )
    patience: int = option(
        5, "Stop after so many passes without a better one on the validation split.", POSITIVE
    )
    eval_every: int = option(1, "Validate every so many passes, a divisor of --epochs.", POSITIVE)
    limit: int = option(
        0, "Use only the first so many pictures of each split; 0 for all.", NOT_NEGATIVE
    )
    overfit: int = option(
        0,
        "Train and validate on the same so many pictures, without dropout, as a check that the "
        "model can learn at all; 0 for off.",
        NOT_NEGATIVE,
    )
    seed: int = option(
        0, "Of first weights, order and dropout.", (lambda value: 0 <= value < 2**32, "0 to 2^32-1")
    )
    device: str = option("auto", "auto, cpu or cuda.")
    precision: str = option("auto", "auto, bf16 or fp32.")
    workers: int = option(
        1, "Processes that open pictures, where these do not fit into memory.", NOT_NEGATIVE
    )


@dataclass(frozen=True)
class TrainOptions(RunOptions, OptimiserOptions, EncoderOptions, StartOptions):
    """The options that every run has."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.encoder_config()
        # Else the last passes would be trained and never looked at.
        if self.epochs % self.eval_every:
            raise UsageError(
                f"--eval-every {self.eval_every}: expected a divisor of --epochs {self.epochs}"
            )

    def encoder_config(self) -> EncoderConfig:
        """The encoder's part."""
        own = {name: getattr(self, f"encoder_{name}") for name in ENCODER if name != "name"}
        return EncoderConfig(name=self.encoder, **own)

    def model(self) -> dict[str, Any]:
        """The architecture's part."""
        own = _names(options_class(MODELS, self.architecture))
        return {name: getattr(self, name) for name in own}

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class CaptionOptions(TrainOptions):
    """What only captioners learn by."""

    max_length: int = option(20, "Most words of a caption, in training and decoding.", POSITIVE)
    length_penalty: float = option(
        0.7,
        "Exponent of beam search's length normalisation that the model decodes with.",
        (lambda value: 0 <= value <= 5, "0 to 5"),
    )
    attention_penalty: float = option(
        0.0,
        "Weight of the doubly stochastic penalty (Xu et al. 2015): the mean, over captions and "
        "regions, of the squared lack of attention to 1 in a whole caption.",
        NOT_NEGATIVE,
    )
    reward: Literal["none", "cider"] = option(
        "none", "none for cross-entropy, cider for self-critical training on CIDEr-D."
    )
    reward_baseline: Literal["mean", "greedy"] = option(
        "mean",
        "What a sampled caption must beat: mean, the other samples of the picture, or greedy, the "
        "caption of the greedy search.",
    )
    samples: int = option(5, "Captions sampled of a picture in self-critical training.", POSITIVE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reward_baseline == "mean" and self.samples < 2:  # there are no others
            raise UsageError(f"--samples {self.samples}: expected 2 with --reward-baseline mean")


@dataclass(frozen=True)
class AnswerOptions(TrainOptions):
    """What only answerers learn by."""

    answers: int = option(
        1000, "Answers in the vocabulary, the most frequent of the training questions.", POSITIVE
    )
    targets: Target = option(
        "hard",
        "What is learned: hard (the most frequent answer), soft (each answer right by "
        "min(count / 3, 1), independently) or votes (the share of people who gave it).",
    )
    max_question: int = option(30, "Most words of a question; the rest is cut.", POSITIVE)


# An option is given for nothing where its condition does not hold.
Condition = Callable[[Any], bool]


def _trained(options: Any) -> bool:
    return options.encoder_trainable != "none"


def _rewarded(options: Any) -> bool:
    return getattr(options, "reward", "none") != "none"


def _sees(options: Any) -> bool:
    return not getattr(options, "blind", False)


USED: dict[str, tuple[Condition, str]] = {
    "freeze_words": (
        lambda o: o.word_vectors or o.init_from,
        "would freeze random word embeddings; expected --word-vectors or --init-from beside it",
    ),
    "encoder_trainable": (_sees, "a --blind model sees no picture"),
    "encoder_learning_rate": (_trained, "the encoder is frozen (--encoder-trainable none)"),
    "features": (
        lambda o: _sees(o) and not _trained(o),
        "only the grids of a frozen encoder can be kept",
    ),
    "flip": (lambda o: _sees(o) and not o.overfit, "has no effect with --blind and --overfit"),
    "grid_dropout": (
        lambda o: _sees(o) and not o.overfit,
        "has no effect with --blind and --overfit",
    ),
    **dict.fromkeys(
        ("dropout", "word_dropout", "limit", "captions_per_image"),
        (lambda o: not o.overfit, "has no effect with --overfit"),
    ),
    "label_smoothing": (
        lambda o: not (_rewarded(o) or o.overfit) and getattr(o, "targets", "") != "soft",
        "has no effect with --reward, --targets soft and --overfit",
    ),
    "attention_penalty": (lambda o: not _rewarded(o), "has no effect with --reward"),
    **dict.fromkeys(("reward_baseline", "samples"), (_rewarded, "expected --reward beside it")),
}

# What --overfit turns off.
OVERFIT = {
    **dict.fromkeys(("dropout", "grid_dropout", "word_dropout", "label_smoothing"), 0.0),
    **{"flip": False, "limit": 0, "captions_per_image": 0},
}
ENCODER = tuple(each.name for each in fields(EncoderConfig))
# What of an earlier model's architecture a second stage chooses anew, and what its vocabulary sets.
ANEW = {"dropout", "grid_dropout", "word_dropout", "blind"}
VOCABULARY = ("min_frequency", "max_words", "answers", "word_vectors")


@cache
def run_class(architecture: str) -> type[TrainOptions]:
    """The options of a run of an architecture.

    Raises:
        UsageError: no such architecture.
    """
    own = options_class(MODELS, architecture)
    task = CaptionOptions if architecture in CAPTIONERS else AnswerOptions
    return dataclass(frozen=True)(type(f"{own.__name__}OfARun", (own, task), {}))


def _names(options: type[Options]) -> set[str]:
    return {each.name for each in fields(options)}


class Flag(NamedTuple):
    """An option as the command line shows it."""

    name: str
    type: Any
    default: Any
    help: str
    group: str


@cache
def flags() -> dict[str, Flag]:
    """Every option of every run, by name."""
    found = {}
    classes = {
        "Start": StartOptions,
        "Encoder": EncoderOptions,
        "Optimiser": OptimiserOptions,
        "Run": RunOptions,
        "Captions": CaptionOptions,
        "Answers": AnswerOptions,
    }
    for group, made in classes.items():
        hints = get_type_hints(made)
        for each in fields(made):
            row = Flag(each.name, hints[each.name], each.default, each.metadata["help"], group)
            found.setdefault(each.name, row)
    for name, each in all_options(MODELS).items():
        found[name] = Flag(name, each.type, each.default, each.help, "Model")
    return found


def train_options(recipe: str | None = None, /, **given: Any) -> TrainOptions:
    """The options of a run.

    Args:
        recipe: a recipe's name or .toml file.
        given: options by name; they win over the recipe's.

    Raises:
        UsageError: an option that does not exist, is out of bounds, or does nothing in this run.
        DataError: a recipe that is none.
        ModelError: no model in ``init_from`` or ``encoder_from``.
    """
    for name in given:
        if name not in flags():
            raise UsageError(f"{flag(name)}: there is no such option")
    values = _plain((read_recipe(recipe) if recipe else {}) | given)
    for name in ("init_from", "encoder_from", "word_vectors", "encoder_weights"):
        # Absolute, since the run may be resumed from another folder.
        if name in values and (name.endswith("_from") or Path(values[name]).exists()):
            values[name] = str(fetch(values[name]).resolve())
    brought, bringer = _brought(values)
    architecture = {**StartOptions().__dict__, **values, **brought}["architecture"]
    made, known = run_class(architecture), _names(run_class(architecture))
    left: list[str] = []

    def drop(name: str, why: str) -> None:
        """Leave out an option of the recipe; refuse one that was given."""
        value = values.pop(name)
        if name in given:
            raise UsageError(f"{flag(name)} {value}: {why}")
        left.append(name)

    for name in list(values):
        if name in brought and values[name] != brought[name]:
            drop(name, f"{bringer} has {brought[name]}, which is taken over")
        elif name in VOCABULARY and "init_from" in values:
            drop(name, f"{bringer} brings its own vocabulary")
        elif name not in known:
            owners = ", ".join(a for a in MODELS if name in _names(run_class(a)))
            drop(name, f"{architecture} has no such option; expected one of {owners}")
    try:
        for name, (condition, why) in USED.items():
            off = values.get(name) in (None, False, 0, "none")
            if not off and not condition(made(**values | brought)):
                drop(name, why)
        options = made(**values | brought)
    except UsageError as error:
        named = str(error).split(maxsplit=1)[0].removeprefix("--").replace("-", "_")
        if named in given or named not in values:
            raise
        raise DataError(f"recipe {recipe}: {error}") from error
    if left:
        logger.warning("recipe %s: left out, without effect here: %s", recipe, ", ".join(left))
    return options


def saved_options(values: Mapping[str, Any], source: str) -> TrainOptions:
    """The options of a run folder, also an earlier version's, which had those of all architectures.

    Raises:
        DataError: an option that does not exist, or one that is out of bounds.
    """
    values = _checked(values, source)
    made = run_class(values.get("architecture", StartOptions.architecture))
    known = _names(made)
    try:
        return made(**{name: value for name, value in values.items() if name in known})
    except UsageError as error:
        raise DataError(f"{source}: {error}") from error


def recipe_names() -> list[str]:
    """The recipes that come with gazetell."""
    folder = resources.files(__package__) / "recipes"
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".toml"))


def read_recipe(name: str) -> dict[str, Any]:
    """The options of a recipe, by name or file.

    Raises:
        UsageError: no such recipe.
        DataError: not TOML, or an option that does not exist.
    """
    if name in recipe_names():
        source = f"recipe {name}"
        text = (resources.files(__package__) / "recipes" / f"{name}.toml").read_text("utf-8")
    elif Path(name).suffix == ".toml":
        source, text = name, read_text(name)
    else:
        raise UsageError(
            f"--recipe {name}: expected a .toml file or one of {', '.join(recipe_names())}"
        )
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{source}: is not TOML: {error}") from error
    values: dict[str, Any] = {}
    for key, value in tables.items():
        values |= value if isinstance(value, dict) else {key: value}
    return _checked(values, source)


def _checked(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Options of a file in today's names."""
    values = _plain(values)
    if "attention" in values:
        values["attention_kind"] = values.pop("attention")
    if values.pop("scheduled_sampling", 0):
        raise DataError(
            f"{source}: scheduled_sampling: is no longer there, since it brought nothing; "
            "expected a file without it"
        )
    if unknown := sorted(set(values) - set(flags())):
        raise DataError(
            f"{source}: unknown option {unknown[0]!r}; options: {', '.join(sorted(flags()))}"
        )
    return values


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _brought(values: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The options that an earlier model sets, and how it is named in a message."""
    first, second = values.get("init_from"), values.get("encoder_from")
    if first and second:
        raise UsageError("--encoder-from beside --init-from: that model brings its encoder")
    if not first and not second:
        return {}, ""
    config = read_config(Path(first or second))
    encoder = EncoderConfig.from_dict(config["encoder"])
    # What is trained and projected is this run's, unless the whole model goes on.
    names = set(ENCODER) - {"name", "trainable"} - ({"project"} if second else set())
    brought = {f"encoder_{name}": getattr(encoder, name) for name in names}
    brought["encoder"] = encoder.name
    if first:
        kind = config["kind"]
        read = captioner_config if kind == "captioner" else answerer_config
        model = read(config[kind])
        own = _names(options_class(MODELS, model["architecture"])) - ANEW
        brought |= {name: model[name] for name in own if name in model}
        brought["architecture"] = model["architecture"]
    return brought, f"{'--init-from' if first else '--encoder-from'} {first or second}"

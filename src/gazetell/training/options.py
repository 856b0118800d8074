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

import json
import logging
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, make_dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_type_hints

from ..errors import DataError, UsageError, unknown_option
from ..files import is_named_model, read_toml, toml_names
from ..models.answerers import ANSWERERS, answerer_config
from ..models.captioners import CAPTIONERS, captioner_config
from ..models.encoders import SMALL_CNN, EncoderConfig
from ..models.folder import architecture_in, fetch, read_config
from ..models.options import (
    POSITIVE,
    SHARE,
    Network,
    Options,
    all_options,
    architecture_class,
    flag,
    import_architecture,
    option,
    options_class,
)
from ..models.weights import SAME

logger = logging.getLogger(__name__)
MODELS: ChainMap[str, Any] = ChainMap(ANSWERERS, CAPTIONERS)  # in this order captioners come first
RECIPES = resources.files(__package__) / "recipes"
COUNT = (lambda value: value >= 0, "0 or more")
WORDS = (lambda value: 1 <= value <= 1000, "1 to 1000")
RATE = (lambda value: 0 < value <= 1, "above 0, at most 1")


@dataclass(frozen=True)
class StartOptions(Options):
    """What a run begins with."""

    architecture: str = option(
        "attention-lstm",
        f"One of {', '.join(MODELS)}; or your own as package.module:Class, whose options --help "
        "then lists.",
    )
    init_from: str | None = option(
        None, "A model folder whose weights, vocabulary, sizes and encoder are taken over."
    )
    encoder_from: str | None = option(None, "A model folder whose encoder is taken, with weights.")
    word_vectors: str | None = option(
        None,
        "Word embeddings, of a text file of GloVe, word2vec or fastText or of a model; as wide as "
        "--embedding.",
    )
    freeze_words: bool = option(False, "Do not train the word embeddings.")
    min_frequency: int = option(
        5, "Words of the training texts that are rarer than this are unknown.", POSITIVE
    )
    max_words: int = option(0, "Maximum number of words in the vocabulary; 0 for no limit.", COUNT)
    keep: Literal["none", "case", "all"] = option(
        "none",
        "How the model writes: none (lower case, no punctuation), case (as in the training texts, "
        "without punctuation) or all (with punctuation too). Accents are always kept.",
    )


def _encoder_options() -> Any:
    """The fields of ``EncoderConfig`` under the names that a run has for them."""
    hints = get_type_hints(EncoderConfig)
    rows = [
        (
            "encoder" if each.name == "name" else f"encoder_{each.name}",
            hints[each.name],
            field(default=each.default, metadata=each.metadata),
        )
        for each in fields(EncoderConfig)
    ]
    own = {"__module__": __name__, "__doc__": "The CNN that sees the picture."}
    return make_dataclass("EncoderOptions", rows, bases=(Options,), namespace=own, frozen=True)


EncoderOptions = _encoder_options()


@dataclass(frozen=True)
class OptimiserOptions(Options):
    """How weights are learned."""

    learning_rate: float = option(1e-3, "Peak learning rate of AdamW.", RATE)
    encoder_learning_rate: float = option(1e-4, "Peak learning rate of a trained encoder.", RATE)
    beta2: float = option(
        0.999,
        "Decay of AdamW's second moments; less suits short runs.",
        (lambda value: 0 < value < 1, "above 0, below 1"),
    )
    weight_decay: float = option(
        1e-2, "Weight decay of AdamW, on matrices.", (lambda value: 0 <= value <= 1, "0 to 1")
    )
    warmup: float = option(0.05, "Share of the steps in which the rate rises to its peak.", SHARE)
    schedule: Literal["cosine", "constant"] = option(
        "cosine", "After the warm-up: cosine to zero, or constant."
    )
    clip: float = option(5.0, "Largest norm of the gradient; 0 for no limit.", COUNT)
    label_smoothing: float = option(0.1, "Share of the target spread over all words.", SHARE)
    ema: float = option(
        0.0,
        "Decay per step of the average of the weights that is kept; usually 0.999, 0 for none.",
        SHARE,
    )


@dataclass(frozen=True)
class RunOptions(Options):
    """Epochs, data and machine."""

    epochs: int = option(20, "Maximum number of passes over the training pictures.", POSITIVE)
    batch: int = option(32, "Number of pictures per step; each comes with its texts.", POSITIVE)
    features: Literal["auto", "none"] = option(
        "auto", "Keep the grids of a frozen encoder on disk (auto), or encode in each epoch (none)."
    )
    captions_per_image: int = option(
        0, "Captions or questions drawn per picture in each pass; 0 for all.", COUNT
    )
    flip: bool = option(False, "Mirror half of the pictures; unfit where texts say left and right.")
    random_crop: float = option(
        0.0, "Train on random crops of at least this share of a picture; 0 for whole ones.", SHARE
    )
    patience: int = option(5, "Stop after N passes without a better one on val.", POSITIVE)
    eval_every: int = option(1, "Validate every N passes, a divisor of --epochs.", POSITIVE)
    limit: int = option(0, "Use only the first N pictures of each split; 0 for all.", COUNT)
    overfit: int = option(
        0, "Train and validate on the same N pictures, as a check; 0 for off.", COUNT
    )
    seed: int = option(
        0,
        "Random seed of first weights, order and dropout.",
        (lambda value: 0 <= value < 2**32, "0 to 2^32-1"),
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.")
    devices: int | None = option(
        None,
        "Devices of a machine, each with a process of its own, that share every batch; without it "
        "one, or what torchrun or srun started.",
        POSITIVE,
    )
    nodes: int | None = option(
        None, "Machines; more than one are started by torchrun or srun, which say it too.", POSITIVE
    )
    strategy: Literal["auto", "ddp", "fsdp"] = option(
        "auto",
        "How devices share the work: ddp (auto) has all weights on each, fsdp a part of them (only "
        "CUDA).",
    )
    precision: str = option("auto", "auto, bf16 or fp32.")
    logger: Literal["tensorboard", "csv", "wandb", "trackio"] = option(
        "tensorboard", "What keeps the curves; wandb and trackio are packages of their own."
    )
    workers: int = option(1, "Processes that open pictures that do not fit in memory.", COUNT)


@dataclass(frozen=True)
class TrainOptions(RunOptions, OptimiserOptions, EncoderOptions, StartOptions):  # type: ignore[misc,valid-type]
    """The options that every run has."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # The weights by name: "auto" may mean others in another version.
        object.__setattr__(self, "encoder_weights", self.encoder_config().weights)
        # Else the last passes would be trained and never looked at.
        if self.epochs % self.eval_every:
            expected = f"expected a divisor of --epochs {self.epochs}"
            raise UsageError(f"--eval-every {self.eval_every}: {expected}")

    def encoder_config(self) -> EncoderConfig:
        """The encoder's part."""
        own = {name: getattr(self, f"encoder_{name}") for name in ENCODER}
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
    """Captions."""

    max_length: int = option(
        20, "Maximum number of words of a caption, in training and decoding.", WORDS
    )
    length_penalty: float = option(
        0.7,
        "Exponent of the length normalisation that the model decodes with.",
        (lambda value: 0 <= value <= 5, "0 to 5"),
    )
    no_repeat_ngram: int = option(
        0,
        "The model never says a sequence of N words twice in a caption; 0 for no limit.",
        (lambda value: 0 <= value <= 100, "0 to 100"),
    )
    attention_penalty: float = option(
        0.0, "Weight of the doubly stochastic penalty, a mean over regions and captions.", COUNT
    )
    reward: Literal["none", "cider"] = option(
        "none", "none for cross-entropy, cider for self-critical training on CIDEr-D."
    )
    reward_baseline: Literal["mean", "greedy"] = option(
        "mean",
        "What a sample must beat: the mean of the picture's other samples, or its greedy caption.",
    )
    samples: int = option(5, "Captions sampled per picture in self-critical training.", POSITIVE)
    reward_references: str | None = option(
        None,
        "A prepared dataset whose training captions say how rare each n-gram of the reward is; "
        "those trained on if not given.",
    )
    teacher: tuple[str, ...] = option(
        (),
        "A model folder whose word probabilities are learned too; given several times, their mean.",
    )
    teacher_weight: float = option(
        0.5,
        "Share of the teachers in the loss; the rest is that of the captions.",
        (lambda value: 0 < value <= 1, "above 0, at most 1"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.teacher)) < len(self.teacher):
            raise UsageError(
                f"--teacher {self.teacher[-1]}: is given twice; expected different folders"
            )
        if self.reward_baseline == "mean" and self.samples < 2:  # there are no others
            raise UsageError(
                f"--samples {self.samples}: expected 2 or more with --reward-baseline mean"
            )


@dataclass(frozen=True)
class AnswerOptions(TrainOptions):
    """Answers."""

    answers: int = option(1000, "Number of most frequent answers that can be given.", POSITIVE)
    targets: Literal["hard", "soft", "votes"] = option(
        "hard",
        "What is learned: hard (the most frequent answer), soft (each answer right by "
        "min(count / 3, 1), independently) or votes (the share of people who gave it).",
    )
    max_question: int = option(
        30, "Maximum number of words of a question; the rest is cut.", POSITIVE
    )


PARTS = (StartOptions, EncoderOptions, OptimiserOptions, RunOptions, CaptionOptions, AnswerOptions)
ENCODER = tuple(each.name for each in fields(EncoderConfig) if each.name != "name")
# What of a recipe is its encoder's alone, and no other's.
OF_ITS_ENCODER = tuple(f"encoder_{name}" for name in ("weights", "layer", "size", "mean", "std"))
# What of an earlier model's architecture a second stage chooses anew, and what its vocabulary sets.
ANEW = {"dropout", "grid_dropout", "word_dropout", "blind"}
VOCABULARY = ("min_frequency", "max_words", "keep", "answers", "word_vectors")
# What --overfit turns off.
OVERFIT = {
    **dict.fromkeys(("dropout", "grid_dropout", "word_dropout", "label_smoothing"), 0.0),
    **{"flip": False, "random_crop": 0.0, "limit": 0, "captions_per_image": 0},
}


def _trained(options: Any) -> bool:
    return options.encoder_trainable != "none"


def _sees(options: Any) -> bool:
    return not options.blind


def _rewarded(options: Any) -> bool:
    return getattr(options, "reward", "none") != "none"


OFF = (None, False, 0, "none")  # values that need no effect
# Where an option does something, and why it is refused elsewhere.
USED: dict[str, tuple[Callable[[Any], Any], str]] = {
    **dict.fromkeys(OVERFIT, (lambda o: not o.overfit, "has no effect with --overfit")),
    **dict.fromkeys(
        ("reward_baseline", "samples", "reward_references"),
        (_rewarded, "expected --reward beside it"),
    ),
    "teacher": (
        lambda o: _sees(o) and not _rewarded(o),
        "has no effect with --blind or --reward",
    ),
    "teacher_weight": (lambda o: o.teacher, "expected --teacher beside it"),
    "encoder_trainable": (_sees, "has no effect with --blind"),
    "freeze_words": (
        lambda o: o.word_vectors or o.init_from,
        "would freeze random word embeddings; expected --word-vectors or --init-from beside it",
    ),
    "encoder_learning_rate": (_trained, "the encoder is frozen (--encoder-trainable none)"),
    "features": (
        lambda o: _sees(o) and not _trained(o),
        "only grids of a frozen encoder are kept, and none with --blind",
    ),
    "random_crop": (
        lambda o: _sees(o) and not o.overfit and (_trained(o) or o.features == "none"),
        "has no effect on grids that are kept, nor with --blind or --overfit; expected "
        "--encoder-trainable or --features none beside it",
    ),
    **dict.fromkeys(
        ("grid_dropout", "flip"),
        (lambda o: _sees(o) and not o.overfit, "has no effect with --blind or --overfit"),
    ),
    "label_smoothing": (
        lambda o: not (_rewarded(o) or o.overfit) and getattr(o, "targets", "") != "soft",
        "has no effect with --reward, --targets soft or --overfit",
    ),
    "attention_penalty": (
        lambda o: _sees(o) and not _rewarded(o),
        "has no effect with --reward or --blind",
    ),
}


def run_class(architecture: str) -> type[TrainOptions]:
    """The options of a run of an architecture.

    Raises:
        UsageError: no such architecture, or one with an option that every run has.
        ModelError: somebody's own architecture that cannot be used.
    """
    made: Any = architecture_class(MODELS, architecture)
    return _run_class(made)


@cache
def _run_class(made: Any) -> type[TrainOptions]:
    own = made.Options
    task = CaptionOptions if made.kind == "captioner" else AnswerOptions
    if both := _names(own) & _names(task):
        raise UsageError(f"{flag(min(both))}: training has it; expected another name in {own}")
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


def flags(architecture: Any = "") -> dict[str, Flag]:
    """Every option of every run, by name, with those of somebody's own architecture."""
    named = str(architecture)
    return _flags(((named, architecture_class(MODELS, named)),) if ":" in named else ())


@cache
def _flags(more: tuple[tuple[str, type[Network]], ...]) -> dict[str, Flag]:
    every: dict[str, Flag] = {}
    for part in PARTS:
        hints, group = get_type_hints(part), str(part.__doc__).rstrip(".")
        for x in fields(part):
            row = Flag(x.name, hints[x.name], x.default, x.metadata["help"], group)
            every.setdefault(x.name, row)
    for name, each in all_options({**MODELS, **dict(more)}).items():
        every[name] = Flag(name, each.type, each.default, each.help, "The architecture")
    return every


def train_options(
    recipe: str | None = None, /, *, trust: bool = False, **given: Any
) -> TrainOptions:
    """The options of a run.

    Args:
        recipe: a recipe's name or .toml file.
        trust: import architectures that are not ours, which the recipe or a model names; one that
            is given must have been imported, see ``import_architecture``.
        given: options by name; they win over the recipe's.

    Raises:
        UsageError: an option that does not exist, is out of bounds, or does nothing in this run.
        DataError: a recipe that is none.
        ModelError: no model in ``init_from`` or ``encoder_from``.
    """
    own = _with_encoder(recipe, given.get("encoder"), trust) if recipe else {}
    values = plain(own | given)
    named = values.get("architecture", StartOptions.architecture)
    import_architecture(named, trust=trust)
    every = flags(named)
    for name in given:
        if name not in every:
            raise unknown_option(flag(name), map(flag, every))
    # Of a folder with both: the one of the architecture's kind.
    kind = architecture_class(MODELS, named).kind
    # Absolute, since the run may be resumed from another folder.
    for name in ("init_from", "encoder_from", "word_vectors", "encoder_weights"):
        model = name == "word_vectors" and is_named_model(values.get(name, ""))
        if name in values and (name.endswith("_from") or model or Path(values[name]).exists()):
            values[name] = str(fetch(values[name], kind).resolve())
    if "reward_references" in values:
        values["reward_references"] = str(Path(values["reward_references"]).resolve())
    if "teacher" in values:
        values["teacher"] = tuple(
            str(fetch(path, "captioner").resolve()) for path in values["teacher"]
        )
    _import_lenders(values, trust)
    earlier = _taken(values)
    taken = {name: value for name, (value, _) in earlier.items()}
    chosen = {"encoder", "encoder_from", "encoder_weights"} & (values.keys() | taken.keys())
    if values.get("blind") and not chosen:
        # A blind model looks through no encoder; this one is small and needs no weights.
        values |= {"encoder": SMALL_CNN, "encoder_weights": "none"}
    architecture = {"architecture": StartOptions.architecture, **values, **taken}["architecture"]
    made = run_class(architecture)
    left: list[str] = []

    def drop(name: str, why: str) -> None:
        """Leave out an option of the recipe; refuse one that was given."""
        value = values.pop(name)
        value = " ".join(map(str, value)) if isinstance(value, tuple) else value
        if name in given:
            raise UsageError(f"{flag(name)}{'' if value is True else f' {value}'}: {why}")
        left.append(name)

    for name in list(values):
        if name in taken and values[name] != taken[name]:
            drop(name, f"{earlier[name][1]} has {taken[name]}, which is taken over")
        elif name in VOCABULARY and "init_from" in values:
            drop(name, f"--init-from {values['init_from']} brings its own vocabulary")
        elif name not in _names(made):
            owners = ", ".join(other for other in MODELS if name in _names(run_class(other)))
            drop(name, f"{architecture} has no such option; expected one of {owners}")
    try:
        for name, (condition, why) in USED.items():
            if values.get(name) not in OFF and not condition(made(**values | taken)):
                drop(name, why)
        options = made(**values | taken)
    except UsageError as error:
        named = str(error).split(maxsplit=1)[0].removeprefix("--").replace("-", "_")
        if named in given or named not in values:
            raise
        raise DataError(f"recipe {recipe}: {error}") from error
    if left:
        logger.warning("recipe %s: left out, without effect here: %s", recipe, ", ".join(left))
    return options


def _with_encoder(recipe: str, encoder: str | None, trust: bool) -> dict[str, Any]:
    """The options of a recipe, without those of its encoder where another one is given."""
    values = read_recipe(recipe, trust=trust)
    own = values.get("encoder", EncoderConfig.name)
    if encoder not in (None, own) and (left := [n for n in OF_ITS_ENCODER if values.pop(n, None)]):
        what = ", ".join(left)
        logger.warning("recipe %s: left out, only for its encoder %s: %s", recipe, own, what)
    return values


def _import_lenders(values: Mapping[str, Any], trust: bool) -> None:
    """Import architectures that are not ours, of the models that a run begins with."""
    lenders = [values.get(name) for name in ("init_from", "encoder_from", "word_vectors")]
    for path in (*filter(None, lenders), *values.get("teacher", ())):
        if (Path(path) / "config.json").is_file():
            architecture = architecture_in(read_config(Path(path)))
            import_architecture(architecture, trust=trust, named_by=path)


def taken_over(options: TrainOptions) -> set[str]:
    """The options that a second stage of a model does not choose anew."""
    encoder = {f"encoder_{name}" for name in ENCODER if name != "trainable"}
    own = _names(options_class(MODELS, options.architecture)) - ANEW
    return own | encoder | {"architecture", "encoder", *VOCABULARY}


def saved_options(values: Mapping[str, Any], source: str, *, trust: bool = False) -> TrainOptions:
    """The options of a run folder, also an earlier version's, which had those of all architectures.

    ``trust`` as for ``train_options``.

    Raises:
        DataError: an option that does not exist, or one that is out of bounds.
    """
    values = {"encoder_fit": "squash", **values}  # as it was when there was no other
    if values.pop("encoder_padding", None) == "same":
        raise DataError(f"{source}: {SAME}")
    values = _checked(values, source, trust)
    _import_lenders(values, trust)
    made = run_class(values.get("architecture", StartOptions.architecture))
    try:
        return made(**{name: value for name, value in values.items() if name in _names(made)})
    except UsageError as error:
        raise DataError(f"{source}: {error}") from error


def recipe_names() -> list[str]:
    """The recipes that come with gazetell."""
    return toml_names(RECIPES)


def read_recipe(name: str, *, trust: bool = False) -> dict[str, Any]:
    """The options of a recipe, by name or file; ``trust`` as for ``train_options``.

    Raises:
        UsageError: no such recipe.
        DataError: not TOML, or an option that does not exist.
    """
    source, tables = read_toml(name, RECIPES, "--recipe")
    values: dict[str, Any] = {}
    for key, value in tables.items():
        values |= value if isinstance(value, dict) else {key: value}
    return _checked(values, source, trust)


def recipe_text(options: TrainOptions, head: str) -> str:
    """A recipe with all options of a run that have an effect, below a comment."""
    lines = [f"# {' '.join(head.split())}", ""]
    for name in flags(options.architecture):
        value = getattr(options, name, None)  # of other architectures there is none
        brought = options.init_from and name in VOCABULARY
        idle = name in USED and value not in OFF and not USED[name][0](options)
        if value in (None, ()) or brought or idle:
            continue
        # A string, number, truth value or list of JSON is one of TOML, too.
        lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _checked(values: Mapping[str, Any], source: str, trust: bool) -> dict[str, Any]:
    """Options of a file in today's names."""
    values = plain(values)
    named = str(values.get("architecture", ""))
    import_architecture(named, trust=trust, named_by=source)
    if "attention" in values:
        values["attention_kind"] = values.pop("attention")
    if values.pop("scheduled_sampling", 0):
        raise DataError(f"{source}: scheduled_sampling was removed, since it did not help")
    if unknown := sorted(values.keys() - flags(named).keys()):
        known = ", ".join(sorted(flags(named)))
        raise DataError(f"{source}: unknown option {unknown[0]!r}; options: {known}")
    return values


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a TOML or JSON file, with tuples for lists."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _taken(values: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """The options that earlier models set, and how each model is named in a message."""
    first, second = values.get("init_from"), values.get("encoder_from")
    taken: dict[str, tuple[Any, str]] = {}
    if first:
        config = read_config(Path(first))
        read = captioner_config if config["kind"] == "captioner" else answerer_config
        model = read(config[config["kind"]])
        own = _names(options_class(MODELS, model["architecture"])) - ANEW | {"architecture"}
        taken = {name: (model[name], f"--init-from {first}") for name in own if name in model}
        if model.get("blind", False):
            first = None  # it never looked through its encoder
        elif second:
            raise UsageError("--encoder-from: has no effect with --init-from, which brings its own")
    if first or second:
        source = f"--init-from {first}" if first else f"--encoder-from {second}"
        config = read_config(Path(first or second or ""))
        if config[config["kind"]].get("blind", False):
            raise UsageError(f"{source}: is blind: its encoder was never used")
        encoder = EncoderConfig.from_dict(config["encoder"])
        # What is trained and projected is this run's, unless the whole model goes on.
        names = set(ENCODER) - {"trainable"} - ({"project"} if second else set())
        taken |= {f"encoder_{name}": (getattr(encoder, name), source) for name in names}
        taken["encoder"] = encoder.name, source
    return taken

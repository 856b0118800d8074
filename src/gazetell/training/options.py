"""What a training run is made of: one flat set of options, which a recipe may preset.

A recipe is a TOML file; its tables are headings for the reader, its keys the options' names::

    [encoder]
    encoder = "mobilenet_v2"
    [training]
    learning_rate = 1e-3
"""

import tomllib
from dataclasses import asdict, dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from ..data.answers import TARGETS, Target
from ..errors import DataError, UsageError
from ..files import read_text
from ..models.answerers import ANSWERERS
from ..models.captioners import CAPTIONERS
from ..models.encoders import EncoderConfig
from ..models.folder import AnswererFolder, CaptionerFolder
from ..models.options import all_options

__all__ = ["TrainOptions", "read_recipe", "recipe_names"]


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a training run.

    Attributes:
        architecture: The captioner or the answerer.
        init_from: Begin with the weights of this model folder; its architecture, sizes, vocabulary
            and encoder are taken over, the rest is this run's: a second stage.
        encoder_from: Take the encoder of this model folder, weights and all: models with the same
            frozen encoder can share a look at a picture.
        word_vectors: Begin with these word embeddings, a text file of GloVe, word2vec or fastText,
            also gzip'd (see gazetell vectors); its width must be --embedding.
        freeze_words: Do not train the word embeddings.
        embedding: Width of the word embeddings.
        hidden: Width of the recurrent state.
        attention_width: Width of the additive attention of show-attend-tell and dual-attention, and
            of the layer behind the gates of dmn-plus.
        dropout: Dropout on the word embeddings and the output of a captioner, on the hidden layers
            and before the output of an answerer.
        grid_dropout: Dropout on the regions of the grid, or on the picture's vector.
        word_dropout: Dropout on the word embeddings of an answerer.
        answers: How many answers the vocabulary has, the most frequent of the training questions.
        targets: What an answerer learns: hard (the most frequent answer), soft (each answer right
            by min(count / 3, 1), independently) or votes (the share of people who gave it).
        max_question: Most words of a question; the rest is cut.
        blind: Hide the picture from an answerer: the question-only twin of an architecture.
        fusion: How lstm-vqa merges question and picture: concat, or product (of tanh layers).
        pooling: How bow-mlp sums up the words: sum or mean.
        normalise: The picture's vector in bow-mlp and lstm-vqa: l2, layer or none.
        layers: LSTM layers of lstm-vqa, hidden layers of bow-mlp.
        width: Width of the hidden layers of bow-mlp, and of the merged layer of lstm-vqa.
        passes: Passes of dmn-plus over the picture.
        memory: How dmn-plus renews its memory after a pass: relu or gru.
        attention: How dmn-plus reads the regions it attends to: gru or soft (a weighted sum).
        question: How dmn-plus reads the question: gru or lstm.
        positions: Tell each region of dmn-plus where it lies, for questions about places.
        min_frequency: A word must occur so often in the training captions or questions to get into
            the vocabulary.
        max_words: Most words in the vocabulary; 0 for no limit.
        max_length: Most words of a caption, in training and when decoding.
        length_penalty: Exponent of beam search's length normalisation that the model decodes with.
        encoder: A torchvision CNN, or small-cnn to be trained from scratch.
        encoder_weights: A torchvision weights name (IMAGENET1K_V2), a .safetensors or .pth file,
            or none.
        encoder_layer: The node whose output is the grid; the last spatial map if not given.
        encoder_size: Input side in pixels; the weights' own if not given.
        encoder_mean: Mean of each channel, of pixels in 0 to 1; the weights' own if not given.
        encoder_std: Standard deviation of each channel; the weights' own if not given.
        encoder_padding: stock, or same for weights converted from TensorFlow; the weights' own if
            not given.
        encoder_trainable: none, all, or last:N for the last N stages.
        encoder_project: Project the grid to so many channels by a 1x1 convolution.
        features: Cache the grids of a frozen encoder (auto), or encode anew each epoch (none).
        epochs: Most passes over the training pictures.
        batch: Pictures a step; each comes with its captions or questions.
        captions_per_image: Captions, or questions, of a picture a pass, drawn anew each time; 0 for
            all.
        flip: Show half of the pictures mirrored. Unfit where texts say left and right.
        learning_rate: Peak learning rate of AdamW.
        encoder_learning_rate: Peak learning rate of a trained encoder.
        beta2: Decay of AdamW's second moments; below 0.999 suits short runs.
        weight_decay: Weight decay of AdamW, on matrices.
        warmup: Share of all steps in which the learning rate rises to its peak.
        schedule: After the warm-up: cosine to zero, or constant.
        clip: Largest norm of the gradient; 0 for no limit.
        label_smoothing: Share of the target probability spread over all words or answers.
        attention_penalty: Weight of the doubly stochastic penalty (Xu et al. 2015): the mean, over
            captions and regions, of the squared lack of attention to 1 in a whole caption.
        scheduled_sampling: Share of the words read in training that the model drew itself, in place
            of the reference's, reached linearly from 0.
        ema: Decay a step of an exponential moving average of the weights, which is what is
            validated and kept; 0 for off, 0.999 is usual.
        reward: none for cross-entropy, cider for self-critical training on CIDEr-D.
        reward_baseline: What a sampled caption must beat: mean, the other samples of the picture,
            or greedy, the caption of the greedy search.
        samples: Captions sampled of a picture in self-critical training.
        patience: Stop after so many passes without a better CIDEr, or accuracy, on the validation
            split.
        eval_every: Look at the validation split every so many passes; a divisor of epochs.
        limit: Use only the first so many pictures of each split, for a quick try; 0 for all.
        overfit: Train and validate on the same so many pictures, without dropout: a check that
            the model can learn at all; 0 for off.
        seed: Of initialisation, order and dropout.
        device: auto, cpu or cuda.
        precision: auto, bf16 or fp32.
        workers: Processes that open pictures when they do not fit into memory.
    """

    architecture: str = "attention-lstm"
    init_from: str | None = None
    encoder_from: str | None = None
    word_vectors: str | None = None
    freeze_words: bool = False
    embedding: int = 256
    hidden: int = 512
    attention_width: int = 256
    dropout: float = 0.4
    grid_dropout: float = 0.0
    word_dropout: float = 0.0
    answers: int = 1000
    targets: Target = "hard"
    max_question: int = 30
    blind: bool = False
    fusion: str = "concat"
    pooling: str = "sum"
    normalise: str = "l2"
    layers: int = 3
    width: int = 1024
    passes: int = 3
    memory: str = "relu"
    attention: str = "gru"
    question: str = "gru"
    positions: bool = False
    min_frequency: int = 5
    max_words: int = 0
    max_length: int = 20
    length_penalty: float = 0.7
    encoder: str = "regnet_x_400mf"
    encoder_weights: str = "IMAGENET1K_V2"
    encoder_layer: str | None = None
    encoder_size: int | None = None
    encoder_mean: tuple[float, float, float] | None = None
    encoder_std: tuple[float, float, float] | None = None
    encoder_padding: str | None = None
    encoder_trainable: str = "none"
    encoder_project: int | None = None
    features: str = "auto"
    epochs: int = 20
    batch: int = 32
    captions_per_image: int = 0
    flip: bool = False
    learning_rate: float = 1e-3
    encoder_learning_rate: float = 1e-4
    beta2: float = 0.999
    weight_decay: float = 1e-2
    warmup: float = 0.05
    schedule: str = "cosine"
    clip: float = 5.0
    label_smoothing: float = 0.1
    attention_penalty: float = 0.0
    scheduled_sampling: float = 0.0
    ema: float = 0.0
    reward: str = "none"
    reward_baseline: str = "mean"
    samples: int = 5
    patience: int = 5
    eval_every: int = 1
    limit: int = 0
    overfit: int = 0
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    workers: int = 1

    def __post_init__(self) -> None:
        choices = {
            "architecture": (*CAPTIONERS, *ANSWERERS),
            "features": ("auto", "none"),
            "schedule": ("cosine", "constant"),
            "reward": ("none", "cider"),
            "reward_baseline": ("mean", "greedy"),
            "targets": TARGETS,
        }
        for name, each in all_options({**CAPTIONERS, **ANSWERERS}).items():
            if texts := get_args(each.type):
                choices["attention" if name == "attention_kind" else name] = texts
        checks = (
            *((k, getattr(self, k) in v, f"one of {', '.join(v)}") for k, v in choices.items()),
            ("learning_rate", 0 < self.learning_rate <= 1, "above 0, at most 1"),
            ("encoder_learning_rate", 0 < self.encoder_learning_rate <= 1, "above 0, at most 1"),
            ("length_penalty", 0 <= self.length_penalty <= 5, "0 to 5"),
            ("beta2", 0 < self.beta2 < 1, "above 0, below 1"),
            ("weight_decay", 0 <= self.weight_decay <= 1, "0 to 1"),
            ("warmup", 0 <= self.warmup < 1, "0 up to below 1"),
            ("clip", self.clip >= 0, "0 or more"),
            ("scheduled_sampling", 0 <= self.scheduled_sampling <= 1, "0 to 1"),
            ("ema", 0 <= self.ema < 1, "0 up to below 1"),
            # A single sample has no others to be compared with.
            (
                "samples",
                self.samples >= (2 if self.reward_baseline == "mean" else 1),
                "1 or more, 2 with --reward-baseline mean",
            ),
            ("attention_penalty", self.attention_penalty >= 0, "0 or more"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "0 up to below 1"),
            *(
                (name, getattr(self, name) >= 1, "1 or more")
                for name in (
                    "epochs",
                    "batch",
                    "min_frequency",
                    "max_length",
                    "patience",
                    "answers",
                    "max_question",
                )
            ),
            # Else the last passes would be trained and never looked at.
            (
                "eval_every",
                self.eval_every >= 1 and self.epochs % self.eval_every == 0,
                f"a divisor of --epochs {self.epochs}",
            ),
            *(
                (name, getattr(self, name) >= 0, "0 or more")
                for name in (
                    "max_words",
                    "captions_per_image",
                    "limit",
                    "overfit",
                    "workers",
                )
            ),
            ("seed", 0 <= self.seed < 2**32, "0 to 2^32 - 1"),
        )
        for name, fine, expected in checks:
            if not fine:
                value = getattr(self, name)
                raise UsageError(f"--{name.replace('_', '-')} {value}: expected {expected}")

    def taking_over(self, model: CaptionerFolder | AnswererFolder) -> "TrainOptions":
        """These options with the architecture, the sizes and the encoder of a model.

        Raises:
            UsageError: the model captions and the architecture answers, or the reverse.
        """
        fitting = ANSWERERS if isinstance(model, AnswererFolder) else CAPTIONERS
        # The default architecture is that of who named none.
        if self.architecture not in (*fitting, TrainOptions.architecture):
            raise UsageError(
                f"--init-from {self.init_from}: is the {model.kind} "
                f"{model.network.config['architecture']}; --architecture {self.architecture} "
                "cannot begin with it"
            )
        network, encoder = model.network.config, model.encoder.config
        own = {field.name for field in fields(self)}
        mine = {"dropout", "grid_dropout", "word_dropout", "blind"}
        taken = {k: v for k, v in network.items() if k in own - mine}
        if "attention_kind" in network:
            taken["attention"] = network["attention_kind"]
        taken["encoder_project"] = encoder.project
        return replace(self, **taken).taking_encoder(encoder)

    def taking_encoder(self, encoder: EncoderConfig) -> "TrainOptions":
        """These options with another encoder; what is trained and projected stays."""
        return replace(
            self,
            encoder=encoder.name,
            encoder_weights=encoder.weights,
            encoder_layer=encoder.layer,
            encoder_size=encoder.size,
            encoder_mean=encoder.mean,
            encoder_std=encoder.std,
            encoder_padding=encoder.padding,
        )

    def encoder_config(self) -> EncoderConfig:
        """The encoder's part."""
        return EncoderConfig(
            name=self.encoder,
            weights=self.encoder_weights,
            layer=self.encoder_layer,
            size=self.encoder_size,
            mean=self.encoder_mean,
            std=self.encoder_std,
            padding=self.encoder_padding,
            trainable=self.encoder_trainable,
            project=self.encoder_project,
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str) -> "TrainOptions":
        """From ``to_dict``'s values or a recipe's.

        Raises:
            DataError: an option that does not exist; ``source`` is named.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise DataError(
                f"{source}: unknown option {unknown[0]!r}; options: {', '.join(sorted(known))}"
            )
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise DataError(
                f"{source}: an option has a value of the wrong type: {error}"
            ) from error


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
    TrainOptions.from_dict(values, source)
    return values

"""The model folder: everything that is needed to use a trained model, anywhere.

``config.json`` (architecture, encoder with its transform, defaults, checksums),
``model.safetensors`` (``captioner.*`` or ``answerer.*``, and ``encoder.*``), ``tokenizer.json``,
``answers.json`` where it answers questions, ``metrics.json``, ``README.md`` (the model card). No
pickle. ``config.json`` is written last and holds the checksums of the others, so pieces of two
models are never taken for one.
"""

import hashlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ..data.answers import AnswerVocabulary
from ..data.text import Tokenizer
from ..errors import DataError, GazetellError, ModelError, UsageError
from ..files import atomic_path, read_json, write_json, write_text
from .answerers import AnswerModel, answerer_config, build_answerer
from .captioners import CaptionModel, build_captioner, captioner_config
from .decoding import DecodingOptions
from .encoders import Encoder, EncoderConfig

__all__ = [
    "AnswererFolder",
    "CaptionerFolder",
    "ModelFolder",
    "fetch",
    "load_answerer",
    "load_captioner",
    "load_model",
    "model_card",
    "read_config",
    "save_model",
    "update_decoding",
    "update_metrics",
    "wrong_kind",
]

FORMAT = 1
VERBS = {"captioner": "gazetell caption", "answerer": "gazetell ask"}


@dataclass(kw_only=True)
class ModelFolder(ABC):
    """What every trained model has.

    ``about`` holds what is known of its making (data, command, versions), ``metrics`` what was
    measured.
    """

    kind: ClassVar[str]
    pieces: ClassVar[tuple[str, ...]] = ("model.safetensors", "tokenizer.json")

    encoder: Encoder
    tokenizer: Tokenizer
    about: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    @abstractmethod
    def network(self) -> CaptionModel | AnswerModel:
        """The captioner or the answerer."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What ``config.json`` says of this kind alone."""

    def save_pieces(self, folder: Path) -> None:
        """Write the pieces besides the weights."""
        self.tokenizer.save(folder / "tokenizer.json")

    @classmethod
    def read_pieces(cls, folder: Path) -> dict[str, Any]:
        """The pieces besides the weights, by field; errors name their file."""
        return {"tokenizer": Tokenizer.load(folder / "tokenizer.json")}

    @classmethod
    @abstractmethod
    def build(cls, config: dict[str, Any], fields: dict[str, Any]) -> Self:
        """From ``config.json`` and all other fields, the weights not loaded yet."""

    def check(self, folder: Path) -> None:
        """Refuse pieces that do not fit together.

        Raises:
            ModelError: naming the piece.
        """
        network = self.network
        if self.tokenizer.vocab_size != network.vocabulary:
            raise ModelError(
                f"{folder / 'tokenizer.json'}: has {self.tokenizer.vocab_size} words, "
                f"config.json expects {network.vocabulary}"
            )
        if network.channels != self.encoder.channels:
            raise ModelError(
                f"{folder / 'config.json'}: the encoder gives {self.encoder.channels} channels, "
                f"the {self.kind} expects {network.channels}"
            )


@dataclass(kw_only=True)
class CaptionerFolder(ModelFolder):
    """A trained captioner with all that belongs to it."""

    kind = "captioner"

    captioner: CaptionModel
    decoding: DecodingOptions = field(default_factory=DecodingOptions)

    @property
    def network(self) -> CaptionModel:
        """The captioner."""
        return self.captioner

    def settings(self) -> dict[str, Any]:
        """See ``ModelFolder.settings``."""
        return {"decoding": asdict(self.decoding)}

    @classmethod
    def build(cls, config: dict[str, Any], fields: dict[str, Any]) -> Self:
        """See ``ModelFolder.build``."""
        captioner = build_captioner(**captioner_config(config["captioner"]))
        decoding = DecodingOptions(**config["decoding"])
        return cls(captioner=captioner.eval(), decoding=decoding, **fields)


@dataclass(kw_only=True)
class AnswererFolder(ModelFolder):
    """A trained answerer with all that belongs to it.

    Attributes:
        answers: what it can say.
        temperature: divides the logits, fitted on the validation split.
        sigmoid: an answer's probability is the sigmoid of its logit, not the softmax over all.
        max_question: most words of a question that it reads.
    """

    kind = "answerer"
    pieces = (*ModelFolder.pieces, "answers.json")

    answerer: AnswerModel
    answers: AnswerVocabulary
    temperature: float = 1.0
    sigmoid: bool = False
    max_question: int = 30

    @property
    def network(self) -> AnswerModel:
        """The answerer."""
        return self.answerer

    def settings(self) -> dict[str, Any]:
        """See ``ModelFolder.settings``."""
        names = ("temperature", "sigmoid", "max_question")
        return {name: getattr(self, name) for name in names}

    def save_pieces(self, folder: Path) -> None:
        """See ``ModelFolder.save_pieces``."""
        super().save_pieces(folder)
        self.answers.save(folder / "answers.json")

    @classmethod
    def read_pieces(cls, folder: Path) -> dict[str, Any]:
        """See ``ModelFolder.read_pieces``."""
        answers = AnswerVocabulary.load(folder / "answers.json")
        return super().read_pieces(folder) | {"answers": answers}

    def check(self, folder: Path) -> None:
        """See ``ModelFolder.check``."""
        super().check(folder)
        if len(self.answers) != self.answerer.answers:
            raise ModelError(
                f"{folder / 'answers.json'}: has {len(self.answers)} answers, "
                f"config.json expects {self.answerer.answers}"
            )

    @classmethod
    def build(cls, config: dict[str, Any], fields: dict[str, Any]) -> Self:
        """See ``ModelFolder.build``."""
        answerer = build_answerer(**answerer_config(config["answerer"]))
        temperature, longest = float(config["temperature"]), int(config["max_question"])
        sigmoid = config["sigmoid"]
        if not (0 < temperature < math.inf and longest >= 1 and isinstance(sigmoid, bool)):
            raise ValueError(
                f"temperature {temperature}, max_question {longest} or sigmoid {sigmoid!r} is out "
                "of range"
            )
        return cls(
            answerer=answerer.eval(),
            temperature=temperature,
            sigmoid=sigmoid,
            max_question=longest,
            **fields,
        )


KINDS: dict[str, type[ModelFolder]] = {
    "captioner": CaptionerFolder,
    "answerer": AnswererFolder,
}


def save_model(folder: str | os.PathLike[str], model: ModelFolder) -> None:
    """Write a model folder.

    Raises:
        WriteError: the folder cannot be written; an older model in it stays whole until the first
            new piece is in place, and is refused by its checksums after that.
    """
    folder = Path(folder)
    state = {f"{model.kind}.{k}": v for k, v in model.network.state_dict().items()}
    state |= {f"encoder.{k}": v for k, v in model.encoder.state_dict().items()}
    state = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    with atomic_path(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(state))
    model.save_pieces(folder)
    write_json(folder / "metrics.json", model.metrics)
    encoder = model.encoder.config
    # Of a local weights file only the name: the path says nothing on another machine.
    encoder = replace(encoder, weights=Path(encoder.weights).name)
    config = {
        "format": FORMAT,
        "kind": model.kind,
        model.kind: model.network.config,
        "encoder": encoder.to_dict(),
        **model.settings(),
        "about": model.about,
        "sha256": {name: _sha256(folder / name) for name in model.pieces},
    }
    write_text(folder / "README.md", model_card(config, model.metrics))
    write_json(folder / "config.json", config)


def load_model(folder: str | os.PathLike[str]) -> CaptionerFolder | AnswererFolder:
    """Read a model folder.

    Raises:
        ModelError: no model there, a missing, truncated or foreign piece, or another version's.
    """
    folder = Path(folder)
    config = read_config(folder)
    kind = KINDS[config["kind"]]
    for name in kind.pieces:
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name}: is missing; the model folder is incomplete")
        if _sha256(folder / name) != config["sha256"].get(name):
            raise ModelError(
                f"{folder / name}: does not belong to config.json beside it (its checksum "
                "differs): truncated, or from another model"
            )
    metrics = folder / "metrics.json"
    fields = kind.read_pieces(folder)
    try:
        fields["metrics"] = read_json(metrics) if metrics.is_file() else {}
    except DataError as error:
        raise ModelError(str(error)) from error
    try:
        encoder = Encoder(EncoderConfig.from_dict(config["encoder"]), pretrained=False)
        fields |= {"encoder": encoder.eval(), "about": config["about"]}
        model = kind.build(config, fields)
    except (TypeError, ValueError, AttributeError, KeyError, GazetellError) as error:
        raise ModelError(f"{folder / 'config.json'}: is malformed: {error}") from error
    model.check(folder)
    _load_weights(folder / "model.safetensors", {kind.kind: model.network, "encoder": encoder})
    return model  # type: ignore[return-value]


def load_captioner(folder: str | os.PathLike[str]) -> CaptionerFolder:
    """``load_model``, refusing an answerer.

    Raises:
        ModelError: as ``load_model``, or a model that answers questions.
    """
    model = load_model(folder)
    if not isinstance(model, CaptionerFolder):
        raise wrong_kind(folder, model)
    return model


def load_answerer(folder: str | os.PathLike[str]) -> AnswererFolder:
    """``load_model``, refusing a captioner.

    Raises:
        ModelError: as ``load_model``, or a model that captions.
    """
    model = load_model(folder)
    if not isinstance(model, AnswererFolder):
        raise wrong_kind(folder, model)
    return model


def wrong_kind(folder: str | os.PathLike[str], model: ModelFolder) -> ModelError:
    """The error of asking a captioner or captioning with an answerer."""
    article = "an" if model.kind == "answerer" else "a"
    return ModelError(f"{folder}: is {article} {model.kind}; use it with: {VERBS[model.kind]}")


def update_metrics(folder: str | os.PathLike[str], metrics: dict[str, Any]) -> None:
    """Put what was measured into the model folder and its card."""
    folder = Path(folder)
    config = read_config(folder)
    write_json(folder / "metrics.json", metrics)
    write_text(folder / "README.md", model_card(config, metrics))


def update_decoding(folder: str | os.PathLike[str], decoding: DecodingOptions) -> None:
    """Make these the model's own decoding options."""
    folder = Path(folder)
    write_json(folder / "config.json", read_config(folder) | {"decoding": asdict(decoding)})


def fetch(path: str | os.PathLike[str]) -> Path:
    """The local folder of a model, fetched from the hub where ``path`` is ``hf://owner/name``."""
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"model {path!r}: expected a model folder or hf://owner/name")
    name = os.fspath(path)
    if not name.startswith("hf://"):
        return Path(name)
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "README.md"]
    try:
        return Path(snapshot_download(name.removeprefix("hf://"), allow_patterns=wanted))
    except Exception as error:  # the hub's own errors have no common base
        raise ModelError(f"{name}: cannot be fetched: {error}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """The checked ``config.json`` of a model folder."""
    path = folder / "config.json"
    if not path.is_file():
        if (folder / "checkpoints").is_dir():
            raise ModelError(
                f"{folder}: its training is not finished; go on: gazetell train --resume {folder}"
            )
        raise ModelError(f"{folder}: is no model folder (no config.json)")
    try:
        config = read_json(path)
    except DataError as error:
        raise ModelError(str(error)) from error
    keys = {"format", "kind", "encoder", "about", "sha256"}
    if (
        not isinstance(config, dict)
        or not keys <= set(config)
        or not all(isinstance(config[key], dict) for key in ("about", "sha256"))
    ):
        raise ModelError(f"{path}: is no gazetell model (expected the keys {sorted(keys)})")
    if config["format"] != FORMAT or config["kind"] not in KINDS:
        raise ModelError(
            f"{path}: format {config['format']} {config['kind']}; this version reads "
            f"format {FORMAT} {' or '.join(KINDS)}"
        )
    if config["kind"] not in config:
        raise ModelError(f"{path}: is no gazetell model (expected the key {config['kind']!r})")
    return config


def _load_weights(path: Path, modules: Mapping[str, torch.nn.Module]) -> None:
    """Load the tensors of a file into the modules they are prefixed with, strictly."""
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    for prefix, module in modules.items():
        part = {k.removeprefix(f"{prefix}."): v for k, v in state.items() if k.startswith(prefix)}
        try:
            module.load_state_dict(part)
        except RuntimeError as error:
            detail = str(error).strip().splitlines()[-1].strip()[:200]
            raise ModelError(f"{path}: does not fit config.json: {detail}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_CARDS = {
    "captioner": (
        "image-to-text",
        "[image-captioning, attention]",
        "it tells what a picture shows and where it looked for each word",
        ['    caption = model.caption("picture.jpg")', '    caption.save_gaze("gaze.png")'],
        "It knows only what its training captions speak of, and says the likeliest sentence even "
        "where it sees nothing it knows. Review captions before they are published.",
    ),
    "answerer": (
        "visual-question-answering",
        "[visual-question-answering, attention]",
        "it answers questions about a picture, says how sure it is and where it looked",
        [
            '    answer = model.ask("picture.jpg", "What is on the table?")',
            "    answer.text, answer.confidence, answer.top",
        ],
        "It knows only the answers of its list and the words of its training questions, and many "
        "questions can be answered without looking: see the question-only figures of its "
        "evaluation, and ask with `--evidence`.",
    ),
}


def model_card(config: dict[str, Any], metrics: dict[str, Any]) -> str:
    """What a model is, how it was made, what it can do.

    Args:
        config: of the model folder.
        metrics: what was measured, as ``gazetell evaluate --json`` prints.
    """
    kind = config["kind"]
    task, tags, does, use, limits = _CARDS[kind]
    network, encoder, about = config[kind], config["encoder"], config["about"]
    names = ("embedding", "hidden", "vocabulary", "answers")
    sizes = [f"{name} {network[name]}" for name in names if name in network]
    lines = [
        "---",
        "library_name: gazetell",
        f"pipeline_tag: {task}",
        f"tags: {tags}",
        "---",
        f"# {network['architecture']} on {about.get('dataset', 'unnamed data')}",
        "",
        f"A gazetell {kind}: {does}.",
        "",
        "    import gazetell",
        '    model = gazetell.load("FOLDER")',
        *use,
        "",
        f"- Encoder: {encoder['name']}, weights {encoder['weights']}, layer {encoder['layer']}, "
        f"{encoder['size']} px, trained: {encoder['trainable']}",
        f"- Network: {', '.join(sizes)}",
        *(f"- {key.capitalize()}: {value}" for key, value in about.items()),
        "",
        "## Measured",
        "",
        *_measured(kind, metrics),
        "",
        "## Limits",
        "",
        limits,
    ]
    return "\n".join(lines) + "\n"


def _measured(kind: str, metrics: dict[str, Any]) -> list[str]:
    """The table of what was measured."""
    rows = [
        f"| {name} | {value:.4f} |"
        for name, value in metrics.get("metrics", {}).items()
        if isinstance(value, float)
    ]
    if not rows:
        return ["Not evaluated yet: `gazetell evaluate RUN --data DIR`."]
    what = (
        f"{metrics.get('pictures', '?')} pictures), beam {metrics.get('beam', '?')}"
        if kind == "captioner"
        else f"{metrics.get('questions', '?')} questions)"
    )
    return [
        f"On {metrics.get('split', '?')} ({what}:",
        "",
        "| metric | value |",
        "|---|---|",
        *rows,
    ]

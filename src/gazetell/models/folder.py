"""The model folder: everything that is needed to use a trained model, anywhere.

``config.json`` (architecture, encoder with its transform, defaults, checksums),
``model.safetensors`` (``captioner.*`` or ``answerer.*``, and ``encoder.*``), ``tokenizer.json``,
``answers.json`` where it answers questions, ``metrics.json``, ``README.md`` (the model card). No
pickle. ``config.json`` is written last and holds the checksums of the others, so files of two
models are never taken for one.

A pair is a folder with two of these, ``captioner`` and ``answerer``, on one encoder. Its weights
stand once, in ``encoder.safetensors`` beside them. ``photo``, which comes with gazetell, is a pair.

A compact folder, as ``gazetell export`` writes it, has smaller weights, see ``weights.py``.
"""

import hashlib
import logging
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

from torch import nn

from ..data.answers import AnswerVocabulary
from ..data.text import Tokenizer
from ..errors import DataError, GazetellError, ModelError, UsageError
from ..files import PHOTO, SHIPPED, check_models, read_json, read_text, write_json, write_text
from ..metrics import TITLES, points
from .answerers import AnswerModel, answerer_config, build_answerer
from .captioners import CaptionModel, build_captioner, captioner_config
from .confidence import Confidence, Novelty
from .decoding import DecodingOptions
from .encoders import Encoder, EncoderConfig, Geometry
from .large import is_large, recognise
from .options import import_architecture
from .weights import download, load_weights, shown_name, write_weights

log = logging.getLogger(__name__)
FORMAT = 1
# Settings that the folders of older versions lack.
LATER = ("confidence", "abstain_below", "novelty", "unknown_temperature")
SHARED = "../encoder.safetensors"  # of both models of a pair
PRETRAINED = Path(__file__).parents[1] / "pretrained"  # the models that come with gazetell


class Card(NamedTuple):
    """What the model card says of a kind of model."""

    task: str
    tag: str
    does: str
    example: str
    limits: str


@dataclass(kw_only=True)
class ModelFolder:
    """What every trained model has. A kind of model is a subclass.

    ``about`` holds what is known of its making (data, command, versions), ``metrics`` what was
    measured.

    Attributes:
        kind: of model; also the name of the field that holds the network.
        verb: the command that uses it.
        vocabularies: fields that are a JSON file each, with their classes.
        settings: fields that stand in ``config.json``, the network among them, each with what
            makes it of its JSON value.
        card: the kind's part of the model card.
        name: by which it was loaded; not saved.
        novelty: how far a picture is from those it learned from.
    """

    kind: ClassVar[str]
    verb: ClassVar[str]
    vocabularies: ClassVar[dict[str, Any]] = {"tokenizer": Tokenizer}
    settings: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "novelty": lambda values: values and Novelty.from_dict(values)
    }
    card: ClassVar[Card]

    encoder: Encoder
    tokenizer: Tokenizer
    name: str = ""
    novelty: Novelty | None = None
    about: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def network(self) -> Any:
        """The captioner or the answerer."""
        return getattr(self, self.kind)

    @classmethod
    def files(cls) -> list[str]:
        """The files whose checksums stand in ``config.json``."""
        return ["model.safetensors", *(f"{name}.json" for name in cls.vocabularies)]


@dataclass(kw_only=True)
class CaptionerFolder(ModelFolder):
    """A trained captioner with all that belongs to it."""

    kind = "captioner"
    verb = "gazetell caption"
    settings: ClassVar = {
        "captioner": lambda values: build_captioner(**captioner_config(values)).eval(),
        "decoding": lambda values: DecodingOptions(**values),
        "confidence": lambda values: values and Confidence.from_dict(values),
        **ModelFolder.settings,
    }
    card = Card(
        "image-to-text",
        "image-captioning",
        "it tells what a picture shows and where it looked for each word",
        'caption = model.caption("picture.jpg")\n    caption.save_gaze("gaze.png")',
        "It knows only what its training captions speak of, and says the likeliest sentence even "
        "where it sees nothing it knows. Review captions before they are published.",
    )

    captioner: CaptionModel
    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    confidence: Confidence | None = None


def _within(read: Callable[[Any], Any], fits: Callable[[Any], bool]) -> Callable[[Any], Any]:
    """A reader of a setting that refuses what does not fit."""

    def checked(value: Any) -> Any:
        if not fits(read(value)):
            raise ValueError(f"{value!r} is out of range")
        return read(value)

    return checked


_TEMPERATURE = _within(float, lambda value: 0 < value < math.inf)


@dataclass(kw_only=True)
class AnswererFolder(ModelFolder):
    """A trained answerer with all that belongs to it.

    Attributes:
        answers: what it can say.
        temperature: divides the logits, fitted on the validation split.
        unknown_temperature: likewise, of questions with an unknown content word.
        sigmoid: an answer's probability is the sigmoid of its logit, not the softmax over all.
        max_question: most words of a question that it reads.
        abstain_below: the confidence below which it is not sure, fitted likewise.
    """

    kind = "answerer"
    verb = "gazetell ask"
    vocabularies: ClassVar = {**ModelFolder.vocabularies, "answers": AnswerVocabulary}
    settings: ClassVar = {
        "answerer": lambda values: build_answerer(**answerer_config(values)).eval(),
        "temperature": _TEMPERATURE,
        "unknown_temperature": lambda value: value and _TEMPERATURE(value),
        "sigmoid": _within(lambda value: value, lambda value: isinstance(value, bool)),
        "max_question": _within(int, lambda value: value >= 1),
        "abstain_below": _within(float, lambda value: 0 <= value <= 1),
        **ModelFolder.settings,
    }
    card = Card(
        "visual-question-answering",
        "visual-question-answering",
        "it answers questions about a picture, says how sure it is and where it looked",
        'answer = model.ask("picture.jpg", "What is on the table?")\n'
        "    answer.text, answer.confidence, answer.top",
        "It knows only the answers of its list and the words of its training questions, and many "
        "questions can be answered without looking: see the question-only figures of its "
        "evaluation, and ask with `--evidence`.",
    )

    answerer: AnswerModel
    answers: AnswerVocabulary
    temperature: float = 1.0
    unknown_temperature: float | None = None
    sigmoid: bool = False
    max_question: int = 30
    abstain_below: float = 0.0


KINDS: dict[str, type[CaptionerFolder] | type[AnswererFolder]] = {
    "captioner": CaptionerFolder,
    "answerer": AnswererFolder,
}
Folder = TypeVar("Folder", bound=ModelFolder)


def save_model(
    folder: str | os.PathLike[str],
    model: ModelFolder,
    *,
    compact: bool = False,
    shared: bool = False,
) -> None:
    """Write a model folder.

    Args:
        folder: made if it is not there.
        model: to write.
        compact: keep weights in float16 and int8, in half the size or less.
        shared: leave the CNN's weights out, which ``save_pair`` has written beside the folder.

    Raises:
        ModelError: a weight that is too large for ``compact``.
        WriteError: the folder cannot be written; an older model in it stays whole until the first
            new file is in place, and is refused by its checksums after that.
    """
    folder = Path(folder)
    state = nn.ModuleDict({model.kind: model.network, "encoder": model.encoder}).state_dict()
    if shared:
        state = {name: x for name, x in state.items() if not name.startswith("encoder.trunk.")}
    write_weights(folder / "model.safetensors", state, compact)
    for name in model.vocabularies:
        getattr(model, name).save(folder / f"{name}.json")
    write_json(folder / "metrics.json", model.metrics)
    encoder = model.encoder.config
    files = [*model.files(), SHARED] if shared else model.files()
    config = {
        "format": FORMAT,
        "kind": model.kind,
        # Of a local weights file only the name: the path says nothing on another machine.
        "encoder": replace(encoder, weights=Path(encoder.weights).name).to_dict(),
        "grid": model.encoder.geometry._asdict(),
        **{name: _plain(getattr(model, name)) for name in model.settings},
        "about": model.about,
        "sha256": {name: _sha256(folder / name) for name in files},
    }
    write_text(folder / "README.md", model_card(config, model.metrics))
    write_json(folder / "config.json", config)


def save_pair(
    folder: str | os.PathLike[str],
    captioner: CaptionerFolder,
    answerer: AnswererFolder,
    *,
    compact: bool = False,
) -> None:
    """Write a captioner and an answerer, whose CNN is the same, as a pair.

    Raises:
        ModelError: two CNNs, or a weight that is too large for ``compact``.
        WriteError: as for ``save_model``.
    """
    if captioner.encoder.fingerprint() != answerer.encoder.fingerprint():
        raise ModelError("captioner and answerer have different encoders; expected the same CNN")
    trunk = nn.ModuleDict({"encoder": nn.ModuleDict({"trunk": captioner.encoder.trunk})})
    write_weights(Path(folder) / Path(SHARED).name, trunk.state_dict(), compact)
    for model in (captioner, answerer):
        save_model(Path(folder) / model.kind, model, compact=compact, shared=True)


def _plain(value: Any) -> Any:
    """A setting as its JSON value."""
    if isinstance(value, nn.Module):
        return value.config
    if isinstance(value, Confidence | Novelty):
        return value.to_dict()
    return asdict(value) if isinstance(value, DecodingOptions) else value


def load_kind(path: str | os.PathLike[str], kind: type[Folder], *, trust: bool = False) -> Folder:
    """``load_model``, of a pair the one of that kind; a ModelError for a model of another kind."""
    model = load_model(fetch(path, kind.kind), trust=trust)
    if not isinstance(model, kind):
        article = "an" if model.kind == "answerer" else "a"
        raise ModelError(f"{path}: is {article} {model.kind}; use it with: {model.verb}")
    return model


def told(path: str | os.PathLike[str], model: Folder) -> Folder:
    """A model that was loaded to be used, with its name; that it is blind is said."""
    model.name = model.name or shown_name(path)
    if model.network.options.blind:
        log.warning("%s: is blind; it does not look at the picture", path)
    return model


def architecture_in(config: Mapping[str, Any]) -> str:
    """The architecture that a ``config.json`` names."""
    network = config[config["kind"]]
    return str(network.get("architecture", "")) if isinstance(network, dict) else ""


def load_model(
    path: str | os.PathLike[str], *, trust: bool = False
) -> CaptionerFolder | AnswererFolder:
    """Read a model folder; see ``fetch`` for what else ``path`` may be.

    Args:
        path: of the folder.
        trust: import the module of an architecture that is not ours, which runs its code.

    Raises:
        ModelError: no model there, a missing, truncated or foreign file, another version's, or an
            architecture that is not ours without ``trust``.
    """
    folder = fetch(path)
    config = read_config(folder)
    import_architecture(architecture_in(config), trust=trust, named_by=str(path))
    made = KINDS[config["kind"]]
    files = check_pieces(folder, config)
    fields = {name: of.load(folder / f"{name}.json") for name, of in made.vocabularies.items()}
    metrics = folder / "metrics.json"
    try:
        fields["metrics"] = read_json(metrics) if metrics.is_file() else {}
    except DataError as error:
        raise ModelError(str(error)) from error
    try:
        encoder = Encoder(EncoderConfig.from_dict(config["encoder"]), pretrained=False).eval()
        if "grid" in config:  # of an older folder it is measured when it is needed
            encoder.geometry = Geometry(**{k: float(x) for k, x in config["grid"].items()})
        known = {n: read for n, read in made.settings.items() if n in config or n not in LATER}
        fields |= {name: read(config[name]) for name, read in known.items()}
    except (TypeError, ValueError, AttributeError, KeyError, GazetellError) as error:
        raise ModelError(f"{folder / 'config.json'}: is malformed: {error}") from error
    model = made(**fields, encoder=encoder, about=config["about"])
    _check_sizes(folder, model)
    weights = [folder / name for name in files if name.endswith(".safetensors")]
    load_weights(weights, {model.kind: model.network, "encoder": encoder})
    return model


def check_pieces(folder: Path, config: dict[str, Any]) -> list[str]:
    """The files beside ``config.json`` that hold the model; ModelError if one is not as written."""
    files = [*KINDS[config["kind"]].files(), *({SHARED} & config["sha256"].keys())]
    for name in files:
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name}: is missing; the model folder is incomplete")
        if _sha256(folder / name) != config["sha256"].get(name):
            raise ModelError(
                f"{folder / name}: does not belong to config.json beside it (its checksum "
                "differs): truncated, or from another model"
            )
    return files


def _check_sizes(folder: Path, model: ModelFolder) -> None:
    """Refuse files that do not fit together."""
    network, sizes = model.network, [("tokenizer.json", model.tokenizer.vocab_size, "vocabulary")]
    if isinstance(model, AnswererFolder):
        sizes.append(("answers.json", len(model.answers), "answers"))
    for name, size, of in sizes:
        expected = getattr(network, of)
        if size != expected:
            what = "words" if of == "vocabulary" else of
            raise ModelError(f"{folder / name}: has {size} {what}, config.json expects {expected}")
    if network.channels != model.encoder.channels:
        raise ModelError(
            f"{folder / 'config.json'}: the encoder gives {model.encoder.channels} channels, "
            f"the {model.kind} expects {network.channels}"
        )
    known, channels = model.novelty, model.encoder.trunk_channels
    if known and known.centroids.shape[1] != channels:
        what = f"novelty of {known.centroids.shape[1]} channels, the encoder gives {channels}"
        raise ModelError(f"{folder / 'config.json'}: {what}")


def update_metrics(folder: str | os.PathLike[str], metrics: dict[str, Any]) -> None:
    """Put what was measured into the model folder, and into the section Measured of its card."""
    folder = Path(folder)
    config = read_config(folder)
    card, path = model_card(config, metrics), folder / "README.md"
    measured = re.compile(r"^## Measured\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    old = read_text(path) if path.is_file() else card
    if not measured.search(old):
        log.warning("%s: has no section Measured, so the new figures are not on the card", path)
    write_json(folder / "metrics.json", metrics)
    # The rest may be a person's by now, as the licence is.
    write_text(path, measured.sub(lambda _: measured.findall(card)[0], old, count=1))


def update_settings(folder: str | os.PathLike[str], settings: dict[str, Any]) -> None:
    """Make these the model's own: its ``decoding`` options, for example."""
    folder, plain = Path(folder), {name: _plain(value) for name, value in settings.items()}
    write_json(folder / "config.json", read_config(folder) | plain)


def fetch(path: str | os.PathLike[str], kind: str = "") -> Path:
    """The local folder of a model.

    Args:
        path: a folder, ``hf://owner/name`` or ``hf://owner/name@revision`` on the Hugging Face
            hub, or ``photo``, the model that comes with gazetell (also ``photo/captioner`` and
            ``photo/answerer``).
        kind: ``captioner`` or ``answerer``: of a pair that model's folder.

    Raises:
        ModelError: it cannot be had.
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"model {path!r}: expected a model folder, hf://owner/name or {PHOTO}")
    name, folder = os.fspath(path), Path(path)
    if name.startswith("hf://"):
        # What is for nothing is said before gigabytes of weights come.
        folder = download(name, lambda there: is_large(there) and recognise(there, name))
    elif folder.as_posix() in SHIPPED:
        if has_model(folder):
            log.warning(
                "%s: the model in this folder is used, not that which comes with gazetell", name
            )
        else:
            if folder.exists():
                log.warning("%s: that of gazetell is used; the folder here has no model", name)
            folder = shipped(name)
    return folder / kind if kind and is_pair(folder) else folder


def shipped(name: str = PHOTO) -> Path:
    """The folder of a model that comes with gazetell; ModelError where it does not."""
    folder = PRETRAINED / name
    if not has_model(folder):
        raise ModelError(
            f"{name}: this installation of gazetell has no such model; expected a model folder, "
            "such as gazetell train writes"
        )
    return folder


def named_or_photo(paths: Sequence[str | os.PathLike[str]]) -> Sequence[str | os.PathLike[str]]:
    """The models that somebody named; without any ``photo``, which is said."""
    if paths:
        return paths
    photo = shipped()
    log.warning("no model was named: %s is used, which comes with gazetell", PHOTO)
    return (photo,)


def is_pair(folder: Path) -> bool:
    """Whether a folder holds a captioner and an answerer."""
    return all((folder / kind / "config.json").is_file() for kind in KINDS)


def has_model(folder: Path) -> bool:
    """Whether a folder holds a model, or a pair of them."""
    return (folder / "config.json").is_file() or is_pair(folder)


def read_config(folder: Path) -> dict[str, Any]:
    """The checked ``config.json`` of a model folder."""
    path = folder / "config.json"
    if not path.is_file():
        if is_pair(folder):
            expected = " or ".join(str(folder / kind) for kind in KINDS)
            raise ModelError(f"{folder}: holds two models; expected {expected}")
        check_models(folder)
    try:
        config = read_json(path)
    except DataError as error:
        raise ModelError(str(error)) from error
    if is_large(folder):
        raise ModelError(f"{path}: is a model of transformers, which this command does not take")
    keys = {"format", "kind", "encoder", "about", "sha256"}
    if (
        not isinstance(config, dict)
        or not keys <= set(config)
        or not all(isinstance(config[key], dict) for key in ("about", "sha256"))
    ):
        raise ModelError(f"{path}: is not a gazetell model (expected the keys {sorted(keys)})")
    if config["format"] != FORMAT or config["kind"] not in KINDS:
        raise ModelError(
            f"{path}: format {config['format']} {config['kind']}; this version reads "
            f"format {FORMAT} {' or '.join(KINDS)}"
        )
    if config["kind"] not in config:
        raise ModelError(f"{path}: is not a gazetell model (expected the key {config['kind']!r})")
    return config


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


CARD = """\
---
library_name: gazetell
pipeline_tag: {card.task}
tags: [{card.tag}, attention]
---
# {network[architecture]} on {dataset}

A gazetell {kind}: {card.does}.

    import gazetell
    model = gazetell.load("FOLDER"{trust})
    {card.example}

- Encoder: {encoder[name]}, weights {encoder[weights]}, layer {encoder[layer]}, \
{encoder[size]} px, fit {encoder[fit]}, trained: {encoder[trainable]}
- Network: {sizes}
{about}
## Measured

{measured}

## Limits

{limits}
"""
MACHINE_MADE = """

The texts that it learned from are machine-made, by {}: it learned the mistakes of that model, too.
Figures against such texts measure how far the two agree, not how good a caption or an answer is."""


def model_card(config: dict[str, Any], metrics: dict[str, Any]) -> str:
    """What a model is, how it was made, what it can do: the README of its folder.

    Args:
        config: of the model folder.
        metrics: what was measured, as ``gazetell evaluate --json`` prints.
    """
    kind, about = config["kind"], config["about"]
    made = ", ".join(value for key, value in about.items() if key.endswith("machine_made"))
    network = config[kind]
    names = ("embedding", "hidden", "vocabulary", "answers")
    figures = {k: v for k, v in metrics.get("metrics", {}).items() if isinstance(v, float)}
    measured = "Not evaluated yet: `gazetell evaluate RUN --data DIR`."
    if figures:
        of, beam = "questions", ""
        if kind == "captioner":
            of, beam = "pictures", f", beam {metrics.get('beam', '?')}"
        rows = [f"| {TITLES.get(n, n)} | {points(n, value)} |" for n, value in figures.items()]
        against = ", against machine-made references" * ("machine_made" in metrics)
        first = f"On {metrics.get('split', '?')} ({metrics.get(of, '?')} {of}){beam}{against}:"
        measured = "\n".join([first, "", "| metric | value |", "|---|---|", *rows])
    return CARD.format(
        kind=kind,
        card=KINDS[kind].card,
        trust=", trust=True" if ":" in network["architecture"] else "",
        network=network,
        encoder={"fit": "squash"} | config["encoder"],
        dataset=about.get("dataset", "unnamed data"),
        sizes=", ".join(f"{name} {network[name]}" for name in names if name in network),
        about="".join(
            f"- {key.capitalize().replace('_', ' ')}: {value}\n" for key, value in about.items()
        ),
        measured=measured,
        limits=KINDS[kind].card.limits + MACHINE_MADE.format(made) * bool(made),
    )

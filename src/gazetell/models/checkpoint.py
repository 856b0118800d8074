"""The model folder: everything that is needed to use a trained model, anywhere.

``config.json`` (architecture, encoder with its transform, decoding defaults, checksums),
``model.safetensors`` (``captioner.*`` and ``encoder.*``), ``tokenizer.json``, ``metrics.json``,
``README.md`` (the model card). No pickle. ``config.json`` is written last and holds the checksums
of the others, so pieces of two models are never taken for one.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ..data.text import Tokenizer
from ..errors import DataError, GazetellError, ModelError
from ..files import atomic_path, read_json, write_json, write_text
from .captioners import CaptionerConfig, CaptionModel, build_captioner
from .decoding import DecodingOptions
from .encoders import Encoder, EncoderConfig

__all__ = [
    "ModelFolder",
    "load_model",
    "read_config",
    "save_model",
    "update_decoding",
    "update_metrics",
]

FORMAT = 1
PIECES = ("model.safetensors", "tokenizer.json")


@dataclass
class ModelFolder:
    """A trained captioner with all that belongs to it.

    ``about`` holds what is known of its making (data, command, versions), ``metrics`` what was
    measured.
    """

    captioner: CaptionModel
    encoder: Encoder
    tokenizer: Tokenizer
    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    about: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


def save_model(folder: str | os.PathLike[str], model: ModelFolder) -> None:
    """Write a model folder.

    Raises:
        WriteError: the folder cannot be written; an older model in it stays whole until the first
            new piece is in place, and is refused by its checksums after that.
    """
    folder = Path(folder)
    state = {f"captioner.{k}": v for k, v in model.captioner.state_dict().items()}
    state |= {f"encoder.{k}": v for k, v in model.encoder.state_dict().items()}
    state = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    with atomic_path(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(state))
    model.tokenizer.save(folder / "tokenizer.json")
    write_json(folder / "metrics.json", model.metrics)
    encoder = model.encoder.config
    # Of a local weights file only the name: the path says nothing on another machine.
    encoder = replace(encoder, weights=Path(encoder.weights).name)
    config = {
        "format": FORMAT,
        "kind": "captioner",
        "captioner": model.captioner.config.to_dict(),
        "encoder": encoder.to_dict(),
        "decoding": asdict(model.decoding),
        "about": model.about,
        "sha256": {name: _sha256(folder / name) for name in PIECES},
    }
    write_text(folder / "README.md", model_card(config, model.metrics))
    write_json(folder / "config.json", config)


def load_model(folder: str | os.PathLike[str]) -> ModelFolder:
    """Read a model folder.

    Raises:
        ModelError: no model there, a missing, truncated or foreign piece, or another version's.
    """
    folder = Path(folder)
    config = read_config(folder)
    for name in PIECES:
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name}: is missing; the model folder is incomplete")
        if _sha256(folder / name) != config["sha256"].get(name):
            raise ModelError(
                f"{folder / name}: does not belong to config.json beside it (its checksum "
                "differs): truncated, or from another model"
            )
    try:
        encoder = Encoder(EncoderConfig.from_dict(config["encoder"]), pretrained=False)
        captioner = build_captioner(CaptionerConfig.from_dict(config["captioner"]))
        decoding = DecodingOptions(**config["decoding"])
        metrics = folder / "metrics.json"
        measured = read_json(metrics) if metrics.is_file() else {}
    except DataError as error:
        raise ModelError(str(error)) from error
    except (TypeError, ValueError, AttributeError, GazetellError) as error:
        raise ModelError(f"{folder / 'config.json'}: is malformed: {error}") from error
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    if tokenizer.vocab_size != captioner.config.vocabulary:
        raise ModelError(
            f"{folder / 'tokenizer.json'}: has {tokenizer.vocab_size} words, "
            f"config.json expects {captioner.config.vocabulary}"
        )
    if captioner.config.channels != encoder.channels:
        raise ModelError(
            f"{folder / 'config.json'}: the encoder gives {encoder.channels} channels, "
            f"the captioner expects {captioner.config.channels}"
        )
    _load_weights(folder / "model.safetensors", {"captioner": captioner, "encoder": encoder})
    return ModelFolder(
        captioner.eval(),
        encoder.eval(),
        tokenizer,
        decoding,
        config["about"],
        measured,
    )


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
    keys = {"format", "kind", "captioner", "encoder", "decoding", "about", "sha256"}
    if (
        not isinstance(config, dict)
        or not keys <= set(config)
        or not all(isinstance(config[key], dict) for key in ("about", "sha256"))
    ):
        raise ModelError(f"{path}: is no gazetell model (expected the keys {sorted(keys)})")
    if config["format"] != FORMAT or config["kind"] != "captioner":
        raise ModelError(
            f"{path}: format {config['format']} {config['kind']}; this version reads "
            f"format {FORMAT} captioner"
        )
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


def model_card(config: dict[str, Any], metrics: dict[str, Any]) -> str:
    """The README of a model folder: what it is, how it was made, what it can do."""
    captioner, encoder, about = config["captioner"], config["encoder"], config["about"]
    rows = [
        f"| {name} | {value:.4f} |"
        for name, value in metrics.get("metrics", {}).items()
        if isinstance(value, float)
    ]
    measured = (
        [
            f"On {metrics.get('split', '?')} ({metrics.get('pictures', '?')} pictures), "
            f"beam {metrics.get('beam', '?')}:",
            "",
            "| metric | value |",
            "|---|---|",
            *rows,
        ]
        if rows
        else ["Not evaluated yet: `gazetell evaluate RUN --data DIR`."]
    )
    lines = [
        "---",
        "library_name: gazetell",
        "pipeline_tag: image-to-text",
        "tags: [image-captioning, attention]",
        "---",
        f"# {captioner['architecture']} on {about.get('dataset', 'unnamed data')}",
        "",
        "A gazetell captioner: it tells what a picture shows and where it looked for each word.",
        "",
        "    import gazetell",
        '    model = gazetell.load("FOLDER")',
        '    caption = model.caption("picture.jpg")',
        '    caption.save_gaze("gaze.png")',
        "",
        f"- Encoder: {encoder['name']}, weights {encoder['weights']}, layer {encoder['layer']}, "
        f"{encoder['size']} px, trained: {encoder['trainable']}",
        f"- Decoder: embedding {captioner['embedding']}, hidden {captioner['hidden']}, "
        f"vocabulary {captioner['vocabulary']}",
        *(f"- {key.capitalize()}: {value}" for key, value in about.items()),
        "",
        "## Measured",
        "",
        *measured,
        "",
        "## Limits",
        "",
        "It knows only what its training captions speak of, and says the likeliest sentence even "
        "where it sees nothing it knows. Review captions before they are published.",
    ]
    return "\n".join(lines) + "\n"

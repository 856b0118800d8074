"""``gazetell doctor`` and ``gazetell models``: what there is."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import urllib.request
from pathlib import Path

from .. import __version__
from ..files import read_text
from .terminal import print_json

LIBRARIES = (
    *("torch", "torchvision", "lightning", "tokenizers", "pillow", "numpy", "scipy"),
    *("pycocoevalcap", "gensim", "pillow-heif"),
)


def doctor(*, online: bool = False, json: bool = False) -> None:
    """Show versions, devices, and what can be used here.

    Args:
        online: Ask whether published weights can be downloaded; without it no host is asked.
        json: Print one JSON object instead of lines.
    """
    import torch

    from ..models.precision import choose_device, choose_precision

    system = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    facts = {"gazetell": __version__, "python": system}
    for name in LIBRARIES:
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            facts[name] = "not installed"
    device = choose_device()
    precision = choose_precision(device)
    chip = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "?"
    facts["device"] = f"{device.type} ({chip}), {torch.get_num_threads()} of {os.cpu_count()} cores"
    facts["precision"] = f"{precision.name}: {precision.reason}"
    facts["java"] = _java()
    facts["disk"] = f"{shutil.disk_usage(Path.cwd()).free / 1e9:.1f} GB free in {Path.cwd()}"
    facts["published weights"] = _weights(online)
    if json:
        print_json(facts)
        return
    for name, value in facts.items():
        print(f"{name:<18} {value}")


def _java() -> str:
    """The Java version, for METEOR and SPICE."""
    if shutil.which("java") is None:
        return "not found: METEOR and SPICE are not computed"
    try:
        run = subprocess.run(
            ["java", "-version"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"does not run: {error}"
    return (run.stderr or run.stdout).strip().splitlines()[0]


def _weights(online: bool) -> str:
    """Whether torchvision's weights can be downloaded from here."""
    from torchvision.models import RegNet_X_400MF_Weights

    request = urllib.request.Request(RegNet_X_400MF_Weights.IMAGENET1K_V2.url, method="HEAD")
    if not online:
        return f"not asked; --online asks {request.host}"
    try:
        with urllib.request.urlopen(request, timeout=5):
            return "can be downloaded"
    except OSError as error:
        reason = getattr(error, "reason", error)
        return f"cannot be reached ({reason}); pass a local file: --encoder-weights FILE"


def models(run: str | None = None, *, json: bool = False) -> None:
    """List architectures, encoders and recipes, or describe a trained model.

    Args:
        run: A model folder, or hf://owner/name.
        json: Print one JSON object instead of lines.
    """
    if run is not None:
        from ..models.folder import fetch, load_model, read_config

        folder = fetch(run)
        model = load_model(folder)
        if json:
            print_json(read_config(folder) | {"metrics": model.metrics})
        else:
            card = read_text(folder / "README.md")
            print(card.split("---\n", 2)[-1].strip())
        return
    from ..models.answerers import ANSWERERS
    from ..models.captioners import CAPTIONERS
    from ..models.encoders import SMALL_CNN, encoder_names
    from ..training.options import recipe_names

    lists = {
        "captioners": list(CAPTIONERS),
        "answerers": list(ANSWERERS),
        "encoders": [SMALL_CNN, *encoder_names()],
        "recipes": recipe_names(),
    }
    if json:
        print_json(lists)
        return
    for title, names in lists.items():
        print(f"{title}: {' '.join(names)}")

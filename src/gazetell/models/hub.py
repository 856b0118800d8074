"""A model folder is sent to the Hugging Face hub; ``download`` of weights.py brings it.

What is sent are the files that ``config.json`` names, the figures and the card: no checkpoint, no
evaluation, no picture.
"""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ModelError, UsageError, WriteError
from ..files import read_text
from .folder import KINDS, check_pieces, fetch, is_pair, read_config
from .weights import quiet

log = logging.getLogger(__name__)
# By the name of the dataset: why a model trained on it is not for everybody.
BOUND = {
    "flickr8k": "its pictures are for non-commercial research and education alone",
    "flickr30k": "its pictures are for non-commercial research and education alone",
    "daquar": "it names no licence, and the pictures of NYU Depth are for research",
}
CARD = "README.md"


def push(
    run: str, target: str, *, license: str | None = None, private: bool = False
) -> tuple[str, list[str]]:
    """Send a trained model to a repository on the hub, which is made if it is not there.

    The licence stands in the card that is sent; the folder stays as it is. Files that an earlier
    model of gazetell left in the repository are removed.

    Args:
        run: a model folder, one of a captioner and an answerer, or ``photo``.
        target: ``hf://owner/name``.
        license: as the hub writes it, such as ``cc-by-4.0``; of the card if not given.
        private: make a repository that only its owner sees.

    Returns:
        The address of the repository, and the files that were sent.

    Raises:
        UsageError: no such name, no licence, a dataset whose models are not for everybody, no
            token, or a repository with another program's model or that everybody sees.
        ModelError: no whole model in the folder.
        WriteError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    if not re.fullmatch(r"hf://[\w.-]+/[\w.-]+", target):
        raise UsageError(f"{target}: expected hf://owner/name")
    folder, name = fetch(run), target.removeprefix("hf://")
    pieces, datasets = _pieces(folder)
    card = _card(run, folder, target, license)
    why = [f"it was trained on {known}: {BOUND[known]}" for known in BOUND if known in datasets]
    if why and not private:
        raise UsageError(
            f"{run}: may not be shared with everybody, for {why[0]}; expected --private"
        )
    if why:
        log.warning("%s: keep it private, for %s", target, why[0])
    if get_token() is None:
        raise UsageError(
            f"{target}: needs a token that may write there; set HF_TOKEN, or run: hf auth login"
        )
    api = HfApi()
    with quiet("huggingface_hub"):
        try:
            there = _asked(target, lambda: api.repo_info(name), RepositoryNotFoundError)
        except RepositoryNotFoundError as error:
            if error.response.status_code != 404:
                raise WriteError(_refused(target, error)) from error
            _asked(target, lambda: api.create_repo(name, private=private))
            log.warning("%s: a new %s repository", target, "private" if private else "public")
            there = None
        if there is not None and private and not there.private:
            raise UsageError(
                f"{target}: everybody sees this repository; make it private on its page first, "
                "or expected another name"
            )
        old = {file.rfilename for file in there.siblings or ()} if there is not None else set()
        if there is not None and "config.json" in old and there.library_name != "gazetell":
            raise UsageError(f"{target}: holds another program's model; expected another name")
        sent: dict[str, Any] = {
            CARD: card.encode(),
            **{piece: str(path) for piece, path in pieces.items()},
        }
        left = sorted(old & _known() - sent.keys())
        operations: list[Any] = [CommitOperationAdd(*each) for each in sent.items()]
        operations += [CommitOperationDelete(piece) for piece in left]
        message = "A model of gazetell"
        _asked(target, lambda: api.create_commit(name, operations, commit_message=message))
    if left:
        log.warning("%s: files of an earlier model, removed: %s", target, ", ".join(left))
    return f"{api.endpoint}/{name}", sorted(sent)


def _asked(target: str, request: Callable[[], Any], *passed: type[Exception]) -> Any:
    """What the hub answers; every failure but those ``passed`` is a WriteError of one line."""
    try:
        return request()
    except passed:
        raise
    except Exception as error:  # the hub's own errors have no common base
        raise WriteError(_refused(target, error)) from error


def _refused(target: str, error: Exception) -> str:
    """Why the hub does not do it."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = getattr(error, "server_message", None) or str(error)
    reasons = {
        401: "the hub does not know the token (HF_TOKEN, or hf auth login)",
        403: f"the token may not write there: {said}",
        404: "the hub knows no such owner or repository",
        None: f"cannot be sent: {said}",
    }
    return f"{target}: {reasons.get(status, f'the hub refuses ({status}): {said}')}"


def _pieces(folder: Path) -> tuple[dict[str, Path], set[str]]:
    """The model's files by their names in the repository, and the datasets of its training."""
    pair, pieces, datasets = is_pair(folder), {}, set()
    for part in [folder / kind for kind in KINDS] if pair else [folder]:
        config = read_config(part)
        checked = check_pieces(part, config)
        if not pair and any(name.startswith("..") for name in checked):
            raise ModelError(
                f"{folder}: its encoder lies in {folder.parent}, the folder of the pair; "
                f"expected {folder.parent}"
            )
        there = [CARD] if pair else []
        there += [name for name in ("metrics.json", *there) if (part / name).is_file()]
        for name in {"config.json", *checked, *there}:
            path = os.path.normpath(part / name)
            pieces[Path(os.path.relpath(path, folder)).as_posix()] = Path(path)
        taken = {str(x) for key, x in config["about"].items() if key.endswith("dataset")}
        datasets |= {word for name in taken for word in re.split(r"[+-]", name)}
    return pieces, datasets


def _known() -> set[str]:
    """Every file that a model of gazetell may have."""
    names = {"config.json", "metrics.json", CARD}
    names |= {name for kind in KINDS.values() for name in kind.files()}
    return {*names, "encoder.safetensors"} | {f"{kind}/{name}" for kind in KINDS for name in names}


def _card(run: str, folder: Path, target: str, license: str | None) -> str:
    """The card that is sent: with a licence, and with the repository's name in its example."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    paths = [folder / CARD]
    if is_pair(folder) and not paths[0].is_file():
        paths = [folder / kind / CARD for kind in KINDS]
    try:
        with quiet("huggingface_hub"):  # of a card without metadata
            first, *others = [ModelCard(read_text(path)) for path in paths]
    except (ValueError, YAMLError) as error:
        raise ModelError(f"{paths[0]}: its YAML metadata cannot be read: {error}") from error
    stated = {card.data.get("license") for card in (first, *others)}
    if license is None and (None in stated or len(stated) > 1):
        raise UsageError(
            f"{run}: its card ({CARD}) names no licence; expected --license, such as cc-by-4.0"
        )
    first.data["license"] = license or stated.pop()
    first.data["library_name"] = "gazetell"
    tags = {tag for card in (first, *others) for tag in card.data.get("tags") or ()}
    first.data["tags"] = sorted(tags)
    first.text = "\n\n".join(card.text.strip() for card in (first, *others)) + "\n"
    first.text = first.text.replace("FOLDER", target)
    return str(first)

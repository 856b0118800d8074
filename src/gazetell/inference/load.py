"""``gazetell.load``: a model folder becomes a captioner, an answerer, or both on one encoder.

model = gazetell.load()  # the model that comes with gazetell
picture = model.encode("photo.jpg")  # once for both
model.caption(picture).text, model.ask(picture, "Which animal is this?").text
"""

import os
from collections.abc import Sequence
from typing import Unpack

from ..errors import ModelError, UsageError
from ..features import Computing, check_computing
from ..models.folder import (
    CaptionerFolder,
    fetch,
    is_pair,
    load_kind,
    load_model,
    named_or_photo,
    told,
)
from ..models.large import Network, is_large
from .large import LargeAnswerer, LargeCaptioner
from .predict import Answerer, Captioner, PathLike, check_members


class Pair:
    """A captioner and an answerer on one encoder: what one has encoded the other reads too.

    Args:
        captioner: whose ``encode``, ``caption``, ``captions`` and ``n_best`` are the pair's.
        answerer: whose ``ask`` and ``ask_all`` are the pair's.

    Raises:
        ModelError: two encoders.
    """

    def __init__(self, captioner: Captioner, answerer: Answerer) -> None:
        if captioner.fingerprint != answerer.fingerprint:
            raise ModelError("captioner and answerer have different encoders")
        self.captioner, self.answerer = captioner, answerer
        self.encode, self.encode_all = captioner.encode, captioner.encode_all
        self.caption, self.captions = captioner.caption, captioner.captions
        self.n_best, self.ask, self.ask_all = captioner.n_best, answerer.ask, answerer.ask_all


def load(
    *paths: PathLike, trust: bool = False, **how: Unpack[Computing]
) -> Captioner | Answerer | Pair:
    """Load a trained model, or several captioners as an ensemble.

    Args:
        paths: a model folder, ``hf://owner/name`` for one on the Hugging Face hub, or a folder that
            holds a captioner and an answerer; without any ``photo``, such a pair that comes with
            gazetell. A repository of transformers does as well (docs/large.md). Several are
            captioners of the same vocabulary and CNN, whose word probabilities are averaged.
        trust: import the module of an architecture that is not of gazetell (the model folder says
            ``package.module:Class``), which runs its code. What has been imported needs none.
        how: ``device`` (``auto``, ``cpu`` or ``cuda``), ``precision`` (``auto``, ``bf16`` or
            ``fp32``), ``fit`` (``squash``, ``crop`` or ``pad``, as in training if not given;
            another one is told in a warning), and ``prompt`` (what asks a large model for a
            caption).

    Raises:
        ModelError: no model there, one whose pieces do not fit together, answerers in an
            ensemble, or an architecture that is not of gazetell without ``trust``.
        UsageError: an option that does not exist.
    """
    check_computing(how)
    path, *others = named_or_photo(paths)
    folder = fetch(path)
    if network := _network(paths, trust, **how):
        if not network.question:
            return LargeCaptioner(network)
        answerer = LargeAnswerer(network)
        if not network.captions:
            return answerer
        return Pair(LargeCaptioner(network), answerer)
    if is_pair(folder) and not others:
        captioner = Captioner.load(folder, trust=trust, **how)
        return Pair(captioner, Answerer.load(folder, trust=trust, **how))
    model = told(path, load_model(fetch(folder, "captioner"), trust=trust))
    if isinstance(model, CaptionerFolder):
        check_members((path, *others))
        more = (told(x, load_kind(x, CaptionerFolder, trust=trust)) for x in others)
        return Captioner(model, *more, **how)
    if others:
        raise ModelError(f"{path}: answers questions; an ensemble takes only captioners")
    return Answerer(model, **how)


def load_captioner(*paths: PathLike, trust: bool = False, **how: Unpack[Computing]) -> Captioner:
    """``load``, of a pair the captioner; a ModelError for an answerer."""
    network = _network(paths, trust, **how)
    if network is None:
        return Captioner.load(*paths, trust=trust, **how)
    if not network.captions:
        raise ModelError(f"{network.name}: is an answerer; use it with: gazetell ask")
    return LargeCaptioner(network)


def load_answerer(
    path: PathLike | None = None,
    *,
    beside: Captioner | None = None,
    trust: bool = False,
    **how: Unpack[Computing],
) -> Answerer:
    """``load``, of a pair the answerer; a ModelError for a captioner.

    ``beside`` is the captioner of the same path; a large model is then loaded but once.
    """
    if isinstance(beside, LargeCaptioner):
        network: Network | None = beside.network
    else:
        network = _network(() if path is None else (path,), trust, **how)
        if how.get("prompt") is not None:
            raise UsageError("--prompt: has no effect on answers; the question is the prompt")
    if network is None:
        return Answerer.load(path, trust=trust, **how)
    if not network.question:
        raise ModelError(f"{network.name}: is a captioner; use it with: gazetell caption")
    return LargeAnswerer(network)


def _network(paths: Sequence[PathLike], trust: bool, **how: Unpack[Computing]) -> Network | None:
    """What transformers opens of a repository; None for models of gazetell."""
    for path in paths:
        if not is_large(folder := fetch(path)):
            continue
        if len(paths) > 1:
            raise UsageError(
                f"{path}: an ensemble takes only models of gazetell, none of transformers"
            )
        if (fit := how.pop("fit", None)) is not None:
            raise UsageError(f"--fit {fit}: has no effect: the processor of {path} fits pictures")
        return Network(folder, os.fspath(path), trust=trust, **how)  # type: ignore[misc]
    return None

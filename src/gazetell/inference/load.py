"""``gazetell.load``: a model folder becomes a captioner, an answerer, or both on one encoder.

model = gazetell.load()  # the model that comes with gazetell
picture = model.encode("photo.jpg")  # once for both
model.caption(picture).text, model.ask(picture, "Which animal is this?").text
"""

from typing import Unpack

from ..errors import ModelError
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
from .predict import Answerer, Captioner, Path, check_members


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
    *paths: Path, trust: bool = False, **how: Unpack[Computing]
) -> Captioner | Answerer | Pair:
    """Load a trained model, or several captioners as an ensemble.

    Args:
        paths: a model folder, ``hf://owner/name`` for one on the Hugging Face hub, or a folder that
            holds a captioner and an answerer; without any ``photo``, such a pair that comes with
            gazetell. Several are captioners of the same vocabulary and CNN, whose word
            probabilities are averaged.
        trust: import the module of an architecture that is not of gazetell (the model folder says
            ``package.module:Class``), which runs its code. What has been imported needs none.
        how: ``device`` (``auto``, ``cpu`` or ``cuda``), ``precision`` (``auto``, ``bf16`` or
            ``fp32``), and ``fit`` (``squash``, ``crop`` or ``pad``, as in training if not given;
            another one is told in a warning).

    Raises:
        ModelError: no model there, one whose pieces do not fit together, answerers in an
            ensemble, or an architecture that is not of gazetell without ``trust``.
        UsageError: an option that does not exist.
    """
    check_computing(how)
    path, *others = named_or_photo(paths)
    folder = fetch(path)
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

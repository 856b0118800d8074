"""gazetell: looks at a picture, tells what it sees, and shows where it looked.

import gazetell
model = gazetell.load()  # the model that comes with it; load("runs/demo") is one of your own
caption = model.caption("photo.jpg")
caption.save_gaze("gaze.png")
model.ask("photo.jpg", "Which animal is this?").text

gazetell.prepare("table", "captions.csv", images="pictures/", out="data/mine")
model = gazetell.train("data/mine", "runs/mine", recipe="flickr8k", epochs=5)
gazetell.evaluate(model, "data/mine").figures["metrics"]
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import metrics, scenes
    from .data.records import Dataset
    from .errors import GazetellError
    from .inference.describe import describe
    from .inference.evaluate import Evaluation
    from .inference.load import Pair, load
    from .inference.predict import Answerer, Captioner
    from .inference.results import Answer, Caption

# Where each public name comes from, when it is first used: importing gazetell stays quick.
_FROM = {
    "Answer": "inference.results",
    "Answerer": "inference.predict",
    "Caption": "inference.results",
    "Captioner": "inference.predict",
    "Dataset": "data.records",
    "Evaluation": "inference.evaluate",
    "GazetellError": "errors",
    "Pair": "inference.load",
    "describe": "inference.describe",
    "load": "inference.load",
    "metrics": "",
    "scenes": "",
}
__all__ = [
    "Answer",
    "Answerer",
    "Caption",
    "Captioner",
    "Dataset",
    "Evaluation",
    "GazetellError",
    "Pair",
    "__version__",
    "describe",
    "evaluate",
    "load",
    "metrics",
    "prepare",
    "resume",
    "scenes",
    "train",
]
Path = str | os.PathLike[str]
Report = Callable[[str], None]


def __getattr__(name: str) -> Any:
    """A public name that has not been used yet."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if not _FROM[name]:
        return import_module(f".{name}", __name__)
    return getattr(import_module(f".{_FROM[name]}", __name__), name)


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted(__all__)


def prepare(
    source: str, *files: Path, out: Path, report: Report = print, **options: Any
) -> "Dataset":
    """Prepare a dataset, as ``gazetell data SOURCE`` does.

    Args:
        source: the form of the files: ``table``, ``coco``, ``flickr8k``, ``vqa``, ...
        files: what the verb takes: files or folders.
        out: the folder to write.
        report: takes the lines of the summary.
        options: those of the verb, with ``_`` for ``-``: ``images="pictures/"``, ``skip_bad=True``.

    Raises:
        UsageError: a source or an option that does not exist, or does not fit.
        DataError: files that cannot be used, see ``data.prepare``.
        WriteError: the folder cannot be written.
    """
    import pathlib
    from inspect import signature

    from .data.prepare import read_and_prepare
    from .data.readers import READERS
    from .data.records import Dataset
    from .errors import UsageError, unknown_option

    if source not in READERS:
        raise unknown_option(source, READERS)
    shared = {"skip_bad", "without", "check"}
    taken = signature(READERS[source]).parameters
    own = [name for name in taken if name not in ("bad", "pictures", "progress")]
    for name in options:
        if name not in {*own, *shared}:
            raise unknown_option(name, {*own, *shared})
    try:
        given = {name: value for name, value in options.items() if name not in shared}
        bound = signature(READERS[source]).bind(*files, **given)
    except TypeError as error:
        raise UsageError(f"{source}: {error}; see gazetell data {source} --help") from error
    for name, value in bound.arguments.items():
        if "Path" in str(taken[name].annotation):  # a text is as good
            several = isinstance(value, list | tuple)
            paths = tuple(map(pathlib.Path, value)) if several else pathlib.Path(value)
            bound.arguments[name] = paths
    how = {name: value for name, value in options.items() if name in shared}
    folder = pathlib.Path(out)
    summary = read_and_prepare(READERS[source], *bound.args, out=folder, **how, **bound.kwargs)
    for line in (*summary.lines(), *summary.remarks()):
        report(line)
    return Dataset.open(folder)


def train(
    data: Path,
    out: Path,
    *,
    recipe: str | None = None,
    trust: bool = False,
    report: Report = print,
    progress: bool = False,
    **options: Any,
) -> "Captioner | Answerer | Pair":
    """Train a captioner or an answerer, as ``gazetell train`` does, and load it.

    Args:
        data: a prepared dataset.
        out: the run folder to write; must be new.
        recipe: a recipe's name or .toml file; any option given beside it wins.
        trust: run the code of architectures that are not of gazetell, which the recipe or a model
            names. One that is given here as ``architecture`` is trusted.
        report: takes one line of plain text at a time.
        progress: show a progress bar on standard error.
        options: those of the verb, with ``_`` for ``-``: ``epochs=5``, ``encoder="resnet18"``.
            ``architecture`` may also be a class of your own.

    Raises:
        UsageError: an option that does not exist, is out of its bounds or does nothing in this
            run, or a folder that holds something already.
        DataError: a dataset without what the model learns from.
    """
    import logging

    from .inference.load import load
    from .models.options import import_architecture
    from .training import fit
    from .training.options import train_options

    named = options.get("architecture", "")
    if isinstance(named, type):
        named = options["architecture"] = f"{named.__module__}:{named.__qualname__}"
    import_architecture(named, trust=True)  # the caller wrote it
    if named.startswith("__main__:"):
        said = "architecture %s: is of this program alone; in a module others could load the model"
        logging.getLogger(__name__).warning(said, named)
    chosen = train_options(recipe, trust=trust, **options)
    fit.train(data, out, chosen, trust=trust, report=report, progress=progress)
    return load(out)


def resume(out: Path, *, trust: bool = False, **how: Any) -> "Captioner | Answerer | Pair":
    """Go on with a run that was stopped, and load it; ``how`` as for ``training.fit.resume``."""
    from .inference.load import load
    from .training import fit

    _check_names(fit.resume, how)
    fit.resume(out, trust=trust, **how)
    return load(out)


def evaluate(
    model: "Captioner | Answerer | Pair", data: "Dataset | Path", **options: Any
) -> "Evaluation[Any, Any]":
    """Measure a loaded model on a split of a prepared dataset, ``test`` if not given.

    Args:
        model: of a pair the captioner where the dataset has captions, else the answerer.
        data: a prepared dataset, or its folder.
        options: ``split``, ``limit``, ``batch``, ``progress``; of captions ``java`` and decoding
            options, of answers ``evidence``, ``abstain_below`` and ``question_only``, a loaded
            model.

    Raises:
        UsageError: a pair and a dataset with both, or an option that does not exist or fit.
        DataError: the split holds nothing to measure on.
    """
    from .data.records import Dataset
    from .errors import UsageError
    from .inference import evaluate as measuring
    from .inference.predict import Answerer, Captioner

    dataset = data if isinstance(data, Dataset) else Dataset.open(data)
    if not isinstance(model, Captioner | Answerer):
        if dataset.captions and dataset.questions:
            raise UsageError(f"{data}: has both; expected model.captioner or model.answerer")
        model = model.captioner if dataset.captions else model.answerer
    if isinstance(model, Captioner):
        return measuring.evaluate(model, dataset, **options)
    _check_names(measuring.evaluate_answers, options)
    return measuring.evaluate_answers(model, dataset, **options)


def _check_names(function: Callable[..., Any], given: dict[str, Any]) -> None:
    """Refuse options that a function does not have, naming those that it has."""
    from inspect import signature

    from .errors import unknown_option

    known = [x.name for x in signature(function).parameters.values() if x.kind is x.KEYWORD_ONLY]
    for name in given:
        if name not in known:
            raise unknown_option(name, known)

"""The command line: thin verbs over the library, each loaded when it is used.

Results go to standard output, everything else to standard error; ``EXIT_STATUS`` stands in the
help.
"""

import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, get_args

from cyclopts import (
    UNSET,
    App,
    CycloptsError,
    Group,
    MissingArgumentError,
    Parameter,
    Token,
    UnknownOptionError,
    UnusedCliTokensError,
)

from .. import __version__
from ..errors import (
    GazetellError,
    OtherRankError,
    StoppedError,
    UsageError,
    check_device,
    check_precision,
)
from ..process import interrupted_by, keep_memory
from .terminal import STDIN, on_terminal, report, standard_streams

__all__ = ["app", "main"]

EXIT_STATUS = (
    "Exit status: 0 done; 1 some of several pictures or questions failed; an error in 2 an option, "
    "3 data, 4 a picture, 5 a model, 6 writing; 130 interrupted, by Ctrl-C or SIGTERM."
)


def _default(value: Any) -> Any:
    """What the help says of a default; nothing of a flag that is off or a list that is empty."""
    return None if value is None or value is False or value == () else str(value)


app = App(
    name="gazetell",
    version=__version__,
    help="Describe pictures, answer questions about them, and show where the model looked.",
    help_epilogue=EXIT_STATUS,
    # No --empty-model and the like.
    default_parameter=Parameter(negative_iterable=(), show_default=_default),
    suppress_keyboard_interrupt=False,  # said in one line here
)
# What each verb does, in the order and the groups of the help.
USE, TRAIN, MORE = map(Group.create_ordered, ("Use a model", "Train your own model", "More"))
VERBS = {
    "demo": "Caption example photographs into a page, or train a model on generated scenes.",
    "caption": "Describe pictures in a sentence each, and show where the model looked.",
    "ask": "Answer questions about a picture, with a confidence.",
    "describe": "Write alt text for a whole folder, into a table or a page to review and edit.",
    "compare": "Show what several models tell of the same pictures, what it costs, who agrees.",
    "serve": "Start a REST API and a web page to try a model.",
    "data": "Prepare a dataset: your own table, COCO, Flickr, VQA or generated scenes.",
    "train": "Train a captioner or an answerer, or resume a run that was stopped.",
    "evaluate": "Measure a trained model on a split of a dataset.",
    "calibrate": "Fit how sure a model is of its captions or answers, on a validation split.",
    "score": "Score captions or answers of any program with the official metrics.",
    "features": "Encode the pictures of a dataset once, for training with a frozen encoder.",
    "vectors": "Pretrain word vectors on the training captions and questions of a dataset.",
    "reproduce": "Train and measure every model of a plan, and print the table of results.",
    "export": "Write a small model folder, a captioner and an answerer in one, or ONNX graphs.",
    "push": "Share a trained model on the Hugging Face hub, with its card and licence.",
    "models": "List architectures, encoders and recipes, or describe a trained model.",
    "doctor": "Show versions, devices, and what works on this machine.",
}
GROUPS = dict.fromkeys(("demo", "caption", "ask", "describe", "compare", "serve"), USE)
GROUPS |= dict.fromkeys(("export", "push", "models", "doctor"), MORE)
# The module of a verb that has none of its own.
MODULES = {
    "vectors": "features",
    "reproduce": "train",
    "ask": "caption",
    "calibrate": "evaluate",
    "models": "doctor",
    "export": "doctor",
    "push": "doctor",
}
for flag in ("--help", "--version"):
    app[flag].group = MORE
for place, (verb, text) in enumerate(VERBS.items()):
    # "data" is a group of verbs.
    target = "data:app" if verb == "data" else f"{MODULES.get(verb, verb)}:{verb}"
    app.command(
        f"gazetell.cli.{target}",
        name=verb,
        help=text,
        group=GROUPS.get(verb, TRAIN),
        sort_key=place,
    )

# What other programs call an option, after our name of it. It is suggested where the verb has ours.
ELSEWHERE = {
    "learning-rate": "lr base-lr max-lr",
    "batch": "batch-size bs b per-device-train-batch-size",
    "workers": "num-workers n-workers jobs j",
    "epochs": "num-epochs max-epochs n-epochs num-train-epochs",
    "beam": "beam-size num-beams beam-width",
    "model": "checkpoint checkpoint-path ckpt model-path model-name weights m",
    "init-from": "checkpoint checkpoint-path ckpt model model-path pretrained finetune weights",
    "RUNS": "checkpoint checkpoint-path ckpt model model-path model-name weights run",
    "PICTURES": "image images image-path img input picture file i",
    "PICTURE": "image image-path img input file i",
    "QUESTIONS": "question prompt q",
    "device": "gpu gpu-id cuda use-cuda cpu",
    "devices": "gpus num-gpus n-gpu nproc-per-node",
    "nodes": "num-nodes nnodes",
    "out": "output output-dir output-path out-dir save-dir save-path o",
    "data": "dataset data-dir data-path data-root root",
    "folder": "dataset data data-dir data-path data-root root input",
    "file": "csv table input path",
    "source": "image images image-dir dir input path",
    "images": "image-dir image-folder image-root img-dir images-dir",
    "encoder": "backbone cnn",
    "encoder-size": "image-size img-size input-size resize",
    "encoder-trainable": "finetune-encoder fine-tune-encoder unfreeze",
    "hidden": "hidden-size hidden-dim rnn-size decoder-dim",
    "embedding": "embed-size embed-dim embedding-size embedding-dim emb-dim",
    "attention-width": "attention-dim attention-size att-dim",
    "layers": "num-layers n-layers",
    "architecture": "arch model-type caption-model",
    "weight-decay": "wd",
    "clip": "grad-clip clip-grad max-grad-norm gradient-clip-val",
    "max-length": "max-len max-seq-len max-new-tokens max-tokens",
    "min-frequency": "min-freq min-word-freq min-count word-count-threshold",
    "max-words": "vocab-size max-vocab",
    "word-vectors": "glove word2vec",
    "seed": "random-seed manual-seed random-state",
    "schedule": "scheduler lr-scheduler",
    "warmup": "warmup-steps warmup-ratio",
    "precision": "amp fp16 bf16 dtype mixed-precision",
    "patience": "early-stopping",
    "recipe": "cfg",
    "reward": "scst self-critical",
    "answers": "num-answers ans-vocab-size",
    "gaze": "attention save-attention visualize visualise heatmap",
    "again": "overwrite force f",
    "references": "ref refs gt ground-truth annotations ann-file",
    "predictions": "pred preds results res-file",
}


# What an option that a verb cannot do without may be.
EXAMPLES = {
    "describe": "captions.html",
    "data": "data/mine",
    "vectors": "vectors.txt",
    "evaluate": "data/mine",
}


NAMES = {"--device": check_device, "--precision": check_precision}


def _check_arguments(app: App, commands: tuple[str, ...], arguments: Any) -> None:
    """Refuse a lone hyphen and an empty value of an option, and an address where a path belongs.

    An empty value is mostly that of an unset variable, and as a path it would be the current
    folder.
    """
    for argument in arguments:
        if argument.name.startswith("--") and any(t.value == STDIN for t in argument.tokens):
            raise UsageError(f"{argument.name} -: standard input cannot be used here")
        if any(not t.value and t.implicit_value is UNSET for t in argument.tokens):
            raise UsageError(f"{argument.name} '': is empty; expected a value")
        if check := NAMES.get(argument.name):  # before a verb loads torch, which takes seconds
            for token in argument.tokens:
                check(token.value)
        # A path would lose a slash of it.
        if Path in (argument.hint, *get_args(argument.hint)):
            for token in argument.tokens:
                if re.match(r"\w+://", token.value):
                    raise UsageError(
                        f"{argument.name} {token.value}: addresses are not fetched; expected a "
                        "path on this machine, so download it first"
                    )


app.config = (_check_arguments,)


def main() -> None:
    """Run the command line and exit."""
    keep_memory()
    if not on_terminal():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Damaged metadata of a picture say nothing about its pixels.
    warnings.filterwarnings("ignore", module="PIL")
    # The parser takes a lone hyphen for an option without a name.
    tokens = [STDIN if token == "-" else token for token in sys.argv[1:]]
    sys.exit(_status(tokens))


def _options_of(tokens: list[str]) -> AbstractContextManager[None]:
    """What ``train`` and ``features`` take, where their names are not enough."""
    if tokens[:1] not in (["train"], ["features"]):
        return nullcontext()
    from . import features, train

    if tokens[0] == "train":
        return train.with_all_options(train.train, tokens)
    return train.with_all_options(features.features, tokens, features.NAMES)


def _status(tokens: list[str]) -> int:
    """Run a command; the exit status. Every error that a user can cause is one line here."""
    try:
        # The service ends by itself.
        numbers = () if tokens[:1] == ["serve"] else (signal.SIGTERM,)
        with standard_streams(), interrupted_by(*numbers), _options_of(tokens):
            status = app(
                tokens, print_error=False, exit_on_error=False, result_action="return_value"
            )
        return status if isinstance(status, int) else 0
    except CycloptsError as error:
        said = str(error)
        if isinstance(error, MissingArgumentError):
            said = _missing(error, tokens)
        elif isinstance(error, UnknownOptionError):
            said = _unknown(error)
        elif isinstance(error, UnusedCliTokensError) and error.unused_tokens:
            more = ", ".join(error.unused_tokens[:3]) + ", ..." * (len(error.unused_tokens) > 3)
            said = f"too many arguments: {more}"
            if tokens[0] == "describe":
                said += "; expected one folder, or a pattern in quotation marks"
        # Its own box would be several lines.
        message, status = "error: " + " ".join(said.split()), UsageError.exit_code
    except OtherRankError as error:
        return error.exit_code  # the other one says why
    except GazetellError as error:
        message, status = f"error: {error}", error.exit_code
        if isinstance(error, UsageError):
            message = f"error: {_with_flags(str(error), tokens)}"
    except StoppedError:
        return 130
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    except BrokenPipeError:
        return 1  # the reader of our output (head, less) left; say nothing more
    except Exception as error:
        # By its name: torch is not imported for this.
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            said = "no memory is left; a smaller batch, beam or model needs less"
        elif not (said := _unfit_torchvision(error)):
            raise
        message, status = f"error: {said}", 1
    report(message)
    return status


def _unfit_torchvision(error: Exception) -> str:
    """What is wrong where torchvision raised and was made for another torch; else empty."""
    frames = traceback.extract_tb(error.__traceback__)
    if not any("torchvision" in frame.filename for frame in frames):
        return ""
    from importlib import metadata

    from packaging.requirements import Requirement

    found = {name: metadata.version(name) for name in ("torch", "torchvision")}
    for needed in map(Requirement, metadata.requires("torchvision") or ()):
        fits = needed.specifier.contains(found["torch"], prereleases=True)
        if needed.name == "torch" and not (needed.marker or fits):
            return (
                f"torch {found['torch']} and torchvision {found['torchvision']} do not fit "
                f"together: this torchvision needs torch{needed.specifier}; install a pair, as "
                "pip does when it chooses both"
            )
    return ""


def _unknown(error: UnknownOptionError) -> str:
    """What is said of an unknown option, with what ours is called where others call it so."""
    written = (error.token.keyword or error.token.value).partition("=")[0]
    theirs = written.lstrip("-").replace("_", "-").lower()
    names = {name for each in error.argument_collection for name in each.names}
    for ours, others in ELSEWHERE.items():
        if theirs in others.split():
            if f"--{ours}" in names:
                return f"Unknown option: {written}. Did you mean --{ours}?"
            if ours in names:
                return f"Unknown option: {written}. {ours}: no option name is needed."
    return str(error)


def _missing(error: MissingArgumentError, tokens: Sequence[str]) -> str:
    """What is said of an option that is not given: that another is not known, if one is."""
    argument = error.argument
    if argument is None or error.keyword or argument.index is not None:
        return str(error)
    known = app.parse_commands(tokens)[1][-1].assemble_argument_collection()
    names = {name for each in known for name in each.names}
    for token in error.unused_tokens or ():
        word = token.partition("=")[0]
        if re.match("--?[a-zA-Z]", word) and word not in names:
            return _unknown(
                UnknownOptionError(token=Token(keyword=word), argument_collection=known)
            )
    example = EXAMPLES.get(tokens[0]) if argument.name in ("--out", "--data") else None
    return f"{argument.name} is missing" + f": for example {argument.name} {example}" * bool(
        example
    )


def _with_flags(message: str, tokens: list[str]) -> str:
    """A message of the library with the names of options as they are on the command line.

    ``top_k 0: ...`` becomes ``--top-k 0: ...`` where the verb has that option. A word that is a
    value on the command line is left as it is: it may be a folder's name.
    """
    names = {
        name.removeprefix("--").replace("-", "_"): name
        for argument in app.parse_commands(tokens)[1][-1].assemble_argument_collection()
        for name in argument.names
        if name.startswith("--")
    }

    def named(word: re.Match[str]) -> str:
        return word[0] if word[0] in tokens else names.get(word[0], word[0])

    head, colon, rest = message.partition(":")
    head = re.sub(r"^\w+(?![\w./-])|(?<= and )\w+", named, head)
    return head + re.sub(r"\b\w+_\w+\b|(?<= without )\w+$", named, colon + rest)

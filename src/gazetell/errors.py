"""One family of exceptions: a one-line message for a person, and the exit status of the command.

The message names the file, the line or the option, and says what was expected. The command line
prints it after ``error:`` and exits with ``exit_code``; a programmer catches ``GazetellError``.
Everything else that is raised is a defect of gazetell.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

DEVICES = "expected auto, cpu, cuda, cuda:N or mps"


class GazetellError(Exception):
    """Base of every error that a user can cause or must know of."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        # One line, whatever a wrapped library's message looked like.
        super().__init__(" ".join(str(message).split()))


class UsageError(GazetellError):
    """An option or argument that cannot be used as given."""

    exit_code = 2


def unknown_option(name: str, known: Iterable[str]) -> UsageError:
    """The error of an option that does not exist, with the nearest of those that do."""
    names = sorted(known)
    near = get_close_matches(name, names, 1)
    meant = f"did you mean {near[0]}? expected one of " if near else "expected one of "
    return UsageError(f"{name}: there is no such option; {meant}{', '.join(names)}")


class OtherRankError(GazetellError):
    """Another process of a training on several devices failed, and says why."""


class StoppedError(KeyboardInterrupt):
    """Somebody interrupted, and a line has said what becomes of the work."""


class DataError(GazetellError):
    """A dataset file, a row of it or a prepared folder that is missing or malformed."""

    exit_code = 3


class ImageError(GazetellError):
    """A picture that cannot be opened: missing, truncated, too large, or no image at all."""

    exit_code = 4


class PixelLimitError(ImageError):
    """A picture with more pixels than are allowed; nothing of it was decoded."""


class ModelError(GazetellError):
    """A model folder, weights file or checkpoint that is missing, foreign or does not fit."""

    exit_code = 5


class WriteError(GazetellError):
    """Output that could not be written (full disk, no permission). Nothing half-written stays."""

    exit_code = 6


def check_device(name: str) -> None:
    """Refuse what is no name of a device, without torch, which takes seconds to load.

    Raises:
        UsageError: another name.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name, re.ASCII):
        raise UsageError(f"device {name!r}: {DEVICES}")


def check_precision(name: str) -> None:
    """The same for the name of a number format."""
    if name not in ("auto", "bf16", "fp32"):
        raise UsageError(f"precision {name!r}: expected auto, bf16 or fp32")

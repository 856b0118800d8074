"""Standard streams: results to standard output, everything else as lines on standard error.

Both are UTF-8 in every locale. Bytes of a file name that are not UTF-8 are written as ``udcfc`` and
the like after a backslash: no picture and no row is lost for its name.

Options that several verbs have stand here too.
"""

import glob
import io
import json
import logging
import os
import sys
import unicodedata
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ..errors import UsageError
from ..files import picture_path, write_error
from ..inference.sources import open_source
from ..models.search import check_ranges
from ..pictures import Fit

STDIN = "<standard input>"  # what a lone hyphen on the command line becomes


class _Output(io.TextIOWrapper):
    """Standard output; a failed write or flush is a ``WriteError``, said once."""

    def write(self, text: str) -> int:
        with self._failures():
            return super().write(text)

    def flush(self) -> None:
        with self._failures():
            super().flush()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What is still in the buffer would fail again when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if isinstance(error, BrokenPipeError):
                raise
            raise write_error("standard output", error) from error


class _Warnings(logging.Handler):
    """Warnings of this and other libraries as lines, each once; the service has its own log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("gazetell.serve"):
            self.show(record.getMessage())

    def show(self, message: Warning | str, *_: Any) -> None:
        """Stands for ``warnings.showwarning``, which would print a place in the source too."""
        line = " ".join(str(message).split())
        if line not in self.said:
            self.said.add(line)
            report(line)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Make the standard streams what this module says, until the block ends.

    Raises:
        WriteError: on leaving too: standard output took not all that was printed.
    """
    if sys.stderr is None:  # closed; print() would take standard output instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:  # closed: every write to this descriptor fails
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper) and not sys.stdin.isatty():
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    logger, lines, before = logging.getLogger("gazetell"), _Warnings(), sys.stdout
    logger.addHandler(lines)
    showwarning, warnings.showwarning = warnings.showwarning, lines.show  # type: ignore[assignment]
    try:
        if isinstance(before, io.TextIOWrapper):
            sys.stdout = _Output(
                before.buffer, "utf-8", "backslashreplace", line_buffering=before.line_buffering
            )
        yield
    finally:
        logger.removeHandler(lines)
        warnings.showwarning = showwarning
        output, sys.stdout = sys.stdout, before
        if isinstance(output, _Output):
            try:
                output.flush()
            finally:
                output.detach()  # else it closes what lies below


def one_line(name: str) -> str:
    """A file's name without what would break a line or steer the terminal."""
    odd = ("Cc", "Cs", "Zl", "Zp")
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in odd else c for c in name
    )


def report(line: str) -> None:
    """Print a line to standard error; where that cannot be written the work goes on."""
    with suppress(OSError):
        print(one_line(line), file=sys.stderr, flush=True)


def on_terminal() -> bool:
    """Whether progress bars make sense."""
    return sys.stderr is not None and sys.stderr.isatty()


def print_json(value: Any) -> None:
    """Print one JSON object to standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


@dataclass(frozen=True)
class Computing:
    """Where and how to compute, and how pictures are fitted to the input.

    Attributes:
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, bf16 or fp32.
        fit: squash, crop or pad (see --encoder-fit of gazetell train); as in training if not given.
        trust: Run the code of an architecture that is not of gazetell, which the model names.
        prompt: What asks a large model for a caption (docs/large.md).
    """

    device: str = "auto"
    precision: str = "auto"
    fit: Fit | None = None
    trust: bool = False
    prompt: str | None = None


@dataclass(frozen=True)
class Decoding:
    """How to search for a caption; the model's own where not given.

    Attributes:
        beam: Beam of the search, 1 for greedy; the model's own if not given.
        max_length: Maximum number of words of a caption; the model's own if not given.
        length_penalty: Exponent of the length normalisation of a beam of 2 or more; the model's
            own if not given.
        min_length: Minimum number of words of a caption; the model's own if not given.
        no_repeat_ngram: Never repeat a sequence of N words in a caption, 0 for no limit; the
            model's own if not given.
        beam_groups: Search in N groups that avoid each other's words; N must divide the beam.
        diversity: With beam groups: how much log-probability a word loses for each earlier
            group's prefix that took it; 0.5 if not given.
    """

    beam: int | None = None
    max_length: int | None = None
    length_penalty: float | None = None
    min_length: int | None = None
    no_repeat_ngram: int | None = None
    beam_groups: int | None = None
    diversity: float | None = None

    def __post_init__(self) -> None:
        check_ranges(self.given())

    def given(self) -> dict[str, Any]:
        """The options that were given."""
        values = asdict(self).items()
        return {name: value for name, value in values if value is not None and value is not False}


Here = Annotated[Computing, Parameter(name="*")]
Own = Annotated[Decoding, Parameter(name="*")]
HERE, OWN = Computing(), Decoding()


def check_source(name: str, column: str | None) -> None:
    """Refuse a source of pictures that is not there; what else is wrong shows when it is read."""
    picture_path(name)
    if "://" not in name and not glob.has_magic(name) and not os.path.lexists(name):
        open_source(name, column)  # says so


def is_gaze_file(gaze: Path | None, pictures: Collection[str], count: int, what: str) -> bool:
    """Whether ``--gaze`` names one file, and not a folder of files.

    Raises:
        UsageError: a file of another format, one of the pictures (given by their real paths), one
            for several pictures or questions, or a file where a folder is expected.
    """
    from ..inference.gaze import FORMATS

    if gaze is None or gaze.is_dir():
        return False
    if gaze.suffix == "":
        if gaze.exists():
            raise UsageError(f"--gaze {gaze}: is a file; expected a folder")
        return False
    if gaze.suffix.lower() not in FORMATS:
        raise UsageError(f"--gaze {gaze}: expected a folder, or a file {', '.join(FORMATS)}")
    if count != 1:
        many = f"{count} {what}" if count else f"typed {what}"
        raise UsageError(f"--gaze {gaze}: one file for {many}; expected a folder")
    refuse_pictures(gaze, pictures)
    return True


def refuse_pictures(gaze: Path, pictures: Collection[str]) -> None:
    """Keep ``--gaze`` from writing over one of the pictures."""
    if os.path.realpath(gaze) in pictures:
        raise UsageError(f"--gaze {gaze}: is one of the pictures; expected another name")

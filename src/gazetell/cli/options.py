"""Options that several verbs have, each said once."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ..errors import UsageError


@dataclass(frozen=True)
class Computing:
    """Where and how to compute.

    Attributes:
        device: auto, cpu or cuda.
        precision: auto, bf16 or fp32.
    """

    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True)
class Decoding:
    """How to search for a caption; the model's own where not given.

    Attributes:
        beam: Beam of the search, 1 for greedy; the model's own if not given.
        max_length: Most words of a caption; the model's own if not given.
        length_penalty: Exponent of the length normalisation of a beam of 2 or more; the model's
            own if not given.
    """

    beam: int | None = None
    max_length: int | None = None
    length_penalty: float | None = None

    def given(self) -> dict[str, Any]:
        """The options that were given."""
        values = asdict(self).items()
        return {name: value for name, value in values if value is not None and value is not False}


Here = Annotated[Computing, Parameter(name="*")]
Own = Annotated[Decoding, Parameter(name="*")]
HERE, OWN = Computing(), Decoding()


def is_gaze_file(gaze: Path | None, count: int, what: str) -> bool:
    """Whether ``--gaze`` names one file, and not a folder of files.

    Raises:
        UsageError: a file of another format, one for several pictures or questions, or a file
            where a folder is expected.
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
    return True

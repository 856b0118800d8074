"""What the verbs of ``gazetell data`` share: options of every source, and the summary."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from .terminal import print_json

if TYPE_CHECKING:
    from ..data.prepare import Summary
    from ..data.readers import BadRows
    from ..data.records import Dataset

__all__ = ["DEFAULTS", "Common", "Preparing", "prepare", "show_summary"]


@dataclass(frozen=True)
class Preparing:
    """Options of every source.

    Attributes:
        skip_bad: Leave bad rows and pictures out and list them in OUT/quarantine.jsonl, instead of
            stopping at the first.
        check: Look for each picture (exists), open each (decode), or trust the files (none).
        json: Print the summary as one JSON object.
    """

    skip_bad: bool = False
    check: Literal["exists", "decode", "none"] = "exists"
    json: bool = False


Common = Annotated[Preparing, Parameter(name="*")]
DEFAULTS = Preparing()


def prepare(read: Callable[["BadRows"], "Dataset"], out: Path, common: Preparing) -> None:
    """Read, check, write, and print the summary."""
    from ..data.prepare import prepare
    from ..data.readers import BadRows

    bad = BadRows(skip=common.skip_bad)
    show_summary(prepare(read(bad), out, check_images=common.check, bad=bad), common.json)


def show_summary(summary: "Summary", json: bool) -> None:
    """Print a summary."""
    if json:
        print_json(summary.to_dict())
    else:
        print("\n".join(summary.lines()))

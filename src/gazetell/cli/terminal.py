"""What the verbs say besides their results: on standard error."""

import json
import sys
from typing import Any

__all__ = ["STDIN", "on_terminal", "print_json", "report"]

STDIN = "<standard input>"  # what a lone hyphen on the command line becomes


def report(line: str) -> None:
    """Print a line to standard error."""
    print(line, file=sys.stderr, flush=True)


def on_terminal() -> bool:
    """Whether progress bars make sense."""
    return sys.stderr.isatty()


def print_json(value: Any) -> None:
    """Print one JSON object to standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))

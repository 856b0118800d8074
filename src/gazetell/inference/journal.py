"""A journal: a JSON Lines file that long work writes as it goes, and goes on from when killed.

The first line says what the work is; each line after it is something done. Lines are only ever
appended, so a run that is killed leaves at most its last line torn, and that one is cut away when
the file is opened again.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import write_error, write_jsonl

__all__ = ["Journal"]


class Journal:
    """The lines of a file that grows.

    Attributes:
        path: of the file; nothing is read before ``resume``.
        lines: the JSON objects it holds, the first included; empty where there is no file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.lines: list[dict[str, Any]] = []

    def resume(self) -> None:
        """Read what is there, and cut away a torn last line.

        Raises:
            DataError: the file cannot be read, or a line before its last is damaged.
            WriteError: a torn last line cannot be cut away.
        """
        try:
            content = self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        # What stands after the last line feed is torn.
        whole, size = content.split(b"\n")[:-1], 0
        for number, line in enumerate(whole, start=1):
            try:
                value = json.loads(line)
                if not isinstance(value, dict):
                    raise ValueError(f"expected a JSON object, found {type(value).__name__}")
            except ValueError as error:
                if number == len(whole):
                    break  # a machine that lost power may leave a last line of anything
                raise DataError(f"{self.path}:{number}: is damaged ({error})") from error
            self.lines.append(value)
            size += len(line) + 1
        if size < len(content):
            try:
                os.truncate(self.path, size)
            except OSError as error:
                raise write_error(self.path, error) from error

    def begin(self, lines: Iterable[dict[str, Any]]) -> None:
        """Start anew with these lines; the file appears whole or not at all."""
        self.lines = list(lines)
        write_jsonl(self.path, self.lines)

    def append(self, line: dict[str, Any]) -> None:
        """Add a line that outlives the process.

        Raises:
            WriteError: the file system refused.
        """
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        except OSError as error:
            raise write_error(self.path, error) from error
        self.lines.append(line)

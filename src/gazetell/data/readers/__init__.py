"""Readers: each turns the outside form of one family of datasets into a ``Dataset``.

A reader takes files, options and a ``BadRows``, by which the first bad row is an error unless it
collects them. It raises ``DataError`` for a file that is missing, of another form or without usable
rows, and for a bad row; ``UsageError`` for an option out of range or one that would do nothing.

Its signature and the ``Args`` of its docstring are the options and the help of its verb in
``gazetell data``, which has the name that the ``READERS`` of its module gives it. The verb itself
gives ``bad``, and, where a reader has them, ``pictures`` (the folder for pictures that it writes)
and ``progress``.
"""

import pkgutil
from collections.abc import Callable
from importlib import import_module

from ..records import Dataset

READERS: dict[str, Callable[..., Dataset]] = {
    name: reader
    for module in pkgutil.iter_modules(__path__)
    for name, reader in vars(import_module(f".{module.name}", __name__)).get("READERS", {}).items()
}

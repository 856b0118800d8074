"""Readers: each turns the outside form of one family of datasets into a ``Dataset``.

A reader takes files, options and a ``BadRows``, by which the first bad row is an error unless it
skips them. It raises ``DataError`` for a file that is missing, of another form or without usable
rows, and for a bad row; ``UsageError`` for an option out of range or one that would do nothing.

Its signature and the ``Args`` of its docstring are the options and the help of its verb, which
``READERS`` gives it in ``gazetell data``. The verb itself gives ``bad``, and, where a reader has
them, ``pictures`` (the folder for pictures that it writes) and ``progress``.
"""

from collections.abc import Callable

from ..records import Dataset
from .captions import coco, flickr8k, flickr30k, karpathy
from .course import course
from .rows import BadRow, BadRows
from .small import daquar, easy_vqa
from .table import table
from .vqa import vqa, vqa_text, write_vqa_text

__all__ = [
    "READERS",
    "BadRow",
    "BadRows",
    "coco",
    "course",
    "daquar",
    "easy_vqa",
    "flickr8k",
    "flickr30k",
    "karpathy",
    "table",
    "vqa",
    "vqa_text",
    "write_vqa_text",
]

_ALL = (flickr8k, flickr30k, coco, karpathy, table, course, vqa, vqa_text, easy_vqa, daquar)
READERS: dict[str, Callable[..., Dataset]] = {
    reader.__name__.replace("_", "-"): reader for reader in _ALL
}

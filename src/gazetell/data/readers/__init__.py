"""Readers: each turns the outside form of one family of datasets into a ``Dataset``.

A reader takes files, options and a ``BadRows``. Its signature and the ``Args`` of its docstring
are the options and the help of its verb: ``READERS`` gives it one in ``gazetell data``. The verb
itself gives ``bad``, and, where a reader has them, ``pictures`` (the folder for pictures that it
writes) and ``progress``.
"""

from collections.abc import Callable

from ..records import Dataset
from .coco import coco, karpathy
from .course import course
from .flickr import flickr8k, flickr30k
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

READERS: dict[str, Callable[..., Dataset]] = {
    "flickr8k": flickr8k,
    "flickr30k": flickr30k,
    "coco": coco,
    "karpathy": karpathy,
    "table": table,
    "course": course,
    "vqa": vqa,
    "vqa-text": vqa_text,
    "easy-vqa": easy_vqa,
    "daquar": daquar,
}

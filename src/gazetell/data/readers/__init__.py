"""Readers: each turns the outside form of one family of datasets into a ``Dataset``."""

from .coco import coco, coco_files, karpathy
from .course import course
from .flickr import flickr8k, flickr30k
from .rows import BadRow, BadRows
from .table import table

__all__ = [
    "BadRow",
    "BadRows",
    "coco",
    "coco_files",
    "course",
    "flickr8k",
    "flickr30k",
    "karpathy",
    "table",
]

"""Readers: each turns the outside form of one family of datasets into a ``Dataset``."""

from .coco import coco, coco_files, karpathy
from .course import course
from .daquar import daquar
from .easy_vqa import easy_vqa
from .flickr import flickr8k, flickr30k
from .rows import BadRow, BadRows
from .table import table
from .vqa import VQAFiles, vqa, vqa_files
from .vqa_text import vqa_text, write_vqa_text

__all__ = [
    "BadRow",
    "BadRows",
    "VQAFiles",
    "coco",
    "coco_files",
    "course",
    "daquar",
    "easy_vqa",
    "flickr8k",
    "flickr30k",
    "karpathy",
    "table",
    "vqa",
    "vqa_files",
    "vqa_text",
    "write_vqa_text",
]

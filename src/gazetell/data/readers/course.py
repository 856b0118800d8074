"""The data file of a course, ``coco.pt``: images and captions as tensors.

University of Michigan, EECS 498-007 / 598-005 "Deep Learning for Computer Vision", assignment 4:
part of COCO (Chen et al., arXiv 1504.00325), a dict saved with ``torch.save``::

    train_images    uint8 (N, 3, H, W)   val_images     likewise; H = W = 112
    train_captions  int64 (N, T)         val_captions   likewise; T = 17
    vocab           {"idx_to_token": [...], "token_to_idx": {...}}

A row of captions holds the indices of ``<START>``, words and ``<END>``, then ``<NULL>``; a long
caption is cut off without ``<END>``. Rows of a split with the same pixels are one picture with
several captions.

Rare words were replaced by ``<UNK>`` before they reached us, and no text has that meaning: a
tokenizer would learn "unk" as a word and models would say it. So each one becomes a word of its
own, "unknown-1", "unknown-2", ... In references that is right as it stands: no caption can match
a word that is not known, as none could match the rare word. In captions that are trained on it
falls below every minimum frequency but 1 and is the model's ``<unk>``, which is never said; with
a minimum frequency of 1 it would be a word to say. Hence such captions are left out of train, and
of train alone, unless ``unknown`` is "keep".
"""

import hashlib
import io
import itertools
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ...errors import DataError
from ...files import atomic_path, write_error
from ..records import CaptionRecord, Dataset
from .rows import BadRows, BadValue, Collector, plain_text

_KEYS = ("train_images", "train_captions", "val_images", "val_captions", "vocab")
_NULL, _START, _END, _UNKNOWN = "<NULL>", "<START>", "<END>", "<UNK>"


@dataclass
class _Split:
    """One of the file's two splits."""

    name: str
    images: np.ndarray  # uint8 (N, 3, H, W)
    captions: np.ndarray  # int64 (N, T)
    # The first row of each picture with a caption, by a hash of its pixels.
    rows: dict[bytes, int] = field(default_factory=dict)
    # Hashes of pictures that a caption was left out of.
    lost: set[bytes] = field(default_factory=set)

    def picture(self, digest: bytes) -> str:
        """``train-000012.png``: the key and the row tell where it stands in the file."""
        return f"{self.name}-{self.rows[digest]:06d}.png"


def course(
    file: Path,
    *,
    pictures: Path,
    unknown: Literal["drop", "keep"] = "drop",
    test_from_val: float = 0.5,
    seed: int = 0,
    bad: BadRows | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The coco.pt of EECS 498-007, assignment 4: its images go to OUT/images.

    The file has no test split: it is drawn from the pictures of val. Nothing is written before
    every row has been read. A picture that is there already is left as it is if it is the same,
    so a run that was killed can be repeated.

    Args:
        file: The file of torch.save; read without running code that it may hold.
        pictures: The folder to write train-000000.png, val-000000.png, ... to, numbered by row
            (those of the test split come from val and are named so): the root of the dataset.
        unknown: Leave training captions with an unknown word out, or keep them for training with
            --min-frequency 2 or more. Those of val and test stay.
        test_from_val: Share of the pictures of val that becomes test, or their number, from 1.
        seed: Random seed of the draw.
        bad: What to do with bad rows (an index outside the vocabulary, a caption without words).
        progress: Called with (pictures written, pictures in all).

    Raises:
        DataError: no file of ``torch.save``, one that holds more than tensors and plain values, a
            key that is missing or of another type or shape, or another picture of the same name.
        WriteError: a picture cannot be written.
    """
    data, collector = _load(file), Collector(pictures, bad)
    words, numbers = _words(data["vocab"], file), itertools.count(1)
    train, val = (_split(data, name, file) for name in ("train", "val"))
    kept = "of train, kept; train with a minimum frequency of at least 2"
    _collect(train, words, numbers, kept if unknown == "keep" else "", file, collector)
    kept = "of val and test, kept, though no caption can match that word"
    _collect(val, words, numbers, kept, file, collector)
    if not train.rows:
        raise DataError(f"{file}: train_captions: no row is left to train on")
    for what, number in (
        ("pictures of train left out with captions", len(train.lost - train.rows.keys())),
        ("pictures of train that are in val or test too", len(train.rows.keys() & val.rows.keys())),
    ):
        if number:
            collector.bad.count(what, number=number)
    collector.draw(val=0, test=test_from_val if val.rows else 0, seed=seed, pool="val")
    collector.bad.refuse()  # before anything is written
    _write(collector.root, (train, val), progress)
    return collector.dataset(file.stem, "course", file)


def _split(data: dict[str, Any], name: str, path: Path) -> _Split:
    images = _array(data, f"{name}_images", "uint8", "(N, 3, H, W)", path)
    captions = _array(data, f"{name}_captions", "int64", "(N, T)", path)
    if len(images) != len(captions):
        raise DataError(
            f"{path}: {name}_images has {len(images):,} rows and {name}_captions "
            f"{len(captions):,}; expected the same number"
        )
    return _Split(name, images, captions)


def _load(path: Path) -> dict[str, Any]:
    """The dict of the file, its tensors mapped into memory where the file can be."""
    import torch  # late: the other readers do without

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice to those who saved the file
            # torch.save of before 1.6 wrote no zip file, and only a zip file can be mapped.
            data = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch.load lets errors of many kinds through
        raise DataError(
            f"{path}: cannot be read ({type(error).__name__}); expected a whole file of "
            "torch.save with nothing but tensors and plain values in it"
        ) from error
    if not isinstance(data, dict):
        found = f"holds {type(data).__name__}; expected a dict of"
        raise DataError(f"{path}: {found} {', '.join(_KEYS)}")
    if missing := [key for key in _KEYS if key not in data]:
        raise DataError(f"{path}: lacks {', '.join(missing)}; expected {', '.join(_KEYS)}")
    return data


def _words(vocab: Any, path: Path) -> list[str]:
    """The words by index."""
    words = vocab.get("idx_to_token") if isinstance(vocab, dict) else None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise DataError(f"{path}: vocab: expected a dict with idx_to_token, a list of words")
    if missing := [word for word in (_NULL, _START, _END) if word not in words]:
        raise DataError(f"{path}: vocab: idx_to_token lacks {', '.join(missing)}")
    return words


def _array(data: dict[str, Any], key: str, dtype: str, shape: str, path: Path) -> np.ndarray:
    """A tensor of the file, of shape (N, 3, H, W) or (N, T), as an array."""
    import torch

    value = data[key]
    found = type(value).__name__
    if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta:
        found = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
        fits = value.ndim == len(shape.split(",")) and all(value.shape[1:])
        if found.startswith(f"{dtype} ") and fits and (value.ndim == 2 or value.shape[1] == 3):
            return value.numpy()
    raise DataError(f"{path}: {key} is {found}; expected {dtype} {shape}")


def _collect(
    split: _Split,
    words: list[str],
    numbers: Iterator[int],
    kept: str,
    path: Path,
    collector: Collector,
) -> None:
    """Turn the rows of a split into pictures with captions.

    ``kept`` says what becomes of captions with an unknown word; empty: they are left out.
    """
    silent, end = {words.index(_NULL), words.index(_START)}, words.index(_END)
    for row, indices in enumerate(split.captions.tolist()):
        at = f"{path}: {split.name}_captions[{row}]"
        with collector.bad.catch(at, indices):
            if outside := [index for index in indices if not 0 <= index < len(words)]:
                raise BadValue(
                    f"index {outside[0]} is outside the vocabulary of {len(words):,} words"
                )
            said = indices[: indices.index(end)] if end in indices else indices
            found = [words[index] for index in said if index not in silent]
            caption = " ".join(
                f"unknown-{next(numbers)}" if word == _UNKNOWN else word for word in found
            )
            plain_text(caption, "caption")
            digest = hashlib.blake2b(split.images[row].tobytes(), digest_size=16).digest()
            if _UNKNOWN in found:
                told = kept or "of train, left out"
                collector.bad.count(f"captions with {_UNKNOWN} {told}", at)
                if not kept:
                    split.lost.add(digest)
                    continue
            split.rows.setdefault(digest, row)
            name = split.picture(digest)
            collector.add(at, CaptionRecord(Path(name).stem, name, (caption,), split.name))


def _write(
    root: Path, splits: tuple[_Split, ...], progress: Callable[[int, int], None] | None
) -> None:
    """Write the pictures, never over another one of the same name."""
    jobs = [(split, digest) for split in splits for digest in split.rows]
    for done, (split, digest) in enumerate(jobs, start=1):
        path = root / split.picture(digest)
        packed = io.BytesIO()
        # (3, H, W) -> (H, W, 3)
        pixels = np.ascontiguousarray(split.images[split.rows[digest]].transpose(1, 2, 0))
        Image.fromarray(pixels).save(packed, format="PNG")
        try:
            there = path.read_bytes() if path.exists() else None
        except OSError as error:
            raise write_error(path, error) from error
        if there is None:
            with atomic_path(path) as temporary:
                temporary.write_bytes(packed.getvalue())
        elif there != packed.getvalue():
            # Features computed of that picture would be taken for features of this one.
            raise DataError(f"{path}: is another picture; expected a new or empty folder {root}")
        if progress and (done % 50 == 0 or done == len(jobs)):
            progress(done, len(jobs))


READERS = {"course": course}

"""``gazetell caption``."""

import csv as tables
import sys
from json import dumps
from pathlib import Path
from typing import Any

from ..errors import ImageError, UsageError
from ..inference.bulk import caption_many
from ..inference.gaze import FORMATS
from ..inference.predictor import Caption, Captioner
from ..pictures import image_files
from .terminal import STDIN, report

__all__ = ["caption"]


def caption(
    *pictures: str,
    model: tuple[str, ...] = (),
    beam: int | None = None,
    max_length: int | None = None,
    length_penalty: float | None = None,
    sample: bool = False,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    json: bool = False,
    csv: bool = False,
    gaze: Path | None = None,
    batch: int = 16,
    device: str = "auto",
    precision: str = "auto",
) -> int:
    """Tell what pictures show.

    Args:
        pictures: Files, folders, globs, or - for one picture from standard input.
        model: A model folder, or hf://owner/name; given several times, an ensemble.
        beam: Beam of the search, 1 for greedy; the model's own if not given.
        max_length: Most words of a caption; the model's own if not given.
        length_penalty: Exponent of the length normalisation; the model's own if not given.
        sample: Draw words at random instead of taking the best.
        temperature: Of sampling; below 1 is more careful.
        top_k: Sample among so many likeliest words.
        top_p: Sample among the likeliest words that reach this probability.
        seed: Of sampling.
        json: One JSON object a line, with words, log-probability and attention.
        csv: Rows of picture, caption and log-probability, with a header.
        gaze: Save where the model looked: a .png, .html or .gif file for one picture, a folder
            (of .png files) for several.
        batch: Pictures a forward pass.
        device: auto, cpu or cuda.
        precision: auto, bf16 or fp32.
    """
    if not pictures:
        raise UsageError("expected pictures: files, folders, globs, or - for standard input")
    if not model:
        raise UsageError("expected --model, a model folder or hf://owner/name")
    if json and csv:
        raise UsageError("--json and --csv: expected one of them")
    if batch < 1:
        raise UsageError(f"--batch {batch}: expected 1 or more")
    given = {
        "beam": beam,
        "max_length": max_length,
        "length_penalty": length_penalty,
        "sample": sample or None,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
    }
    items = _items(pictures)
    one_file = gaze is not None and gaze.suffix != "" and not gaze.is_dir()
    if one_file and gaze is not None and gaze.suffix.lower() not in FORMATS:
        raise UsageError(f"--gaze {gaze}: expected a folder, or a file {', '.join(FORMATS)}")
    if one_file and len(items) > 1:
        raise UsageError(f"--gaze {gaze}: one file for {len(items)} pictures; expected a folder")
    captioner = Captioner.load(*model, device=device, precision=precision)
    options = {key: value for key, value in given.items() if value is not None}
    failed = []
    write = _writer(json, csv, len(items) > 1)
    found = caption_many(captioner, items, batch=batch, **options)
    for number, (item, result) in enumerate(found):
        name = "-" if isinstance(item, bytes) else str(item)
        if isinstance(result, ImageError):
            failed.append(result)
            continue
        write(name, result)
        if gaze is not None:
            stem = "picture" if isinstance(item, bytes) else Path(str(item)).stem
            result.save_gaze(gaze if one_file else gaze / f"{number:04d}-{stem}.png")
    for error in failed:
        report(f"error: {error}")
    if failed and len(items) > 1:
        report(f"{len(failed)} of {len(items)} pictures failed")
    return 0 if not failed else 1


def _items(pictures: tuple[str, ...]) -> list[Any]:
    """Paths, and the bytes of standard input for ``-``."""
    if STDIN not in pictures:
        return list(image_files(pictures))
    if len(pictures) > 1:
        raise UsageError("- reads one picture from standard input; expected no other pictures")
    return [sys.stdin.buffer.read()]


def _writer(as_json: bool, as_csv: bool, several: bool) -> Any:
    """A function that prints a picture's name and caption in the chosen form."""
    table = tables.writer(sys.stdout, lineterminator="\n")
    if as_csv:
        table.writerow(["picture", "caption", "log_prob"])

    def write(name: str, caption: Caption) -> None:
        if as_json:
            print(dumps({"picture": name, **caption.to_dict()}, ensure_ascii=False), flush=True)
        elif as_csv:
            table.writerow([name, caption.text, round(caption.log_prob, 5)])
        else:
            print(f"{name}\t{caption.text}" if several else caption.text, flush=True)

    return write

"""``gazetell caption`` and ``gazetell ask``."""

import csv as tables
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from json import dumps
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ..errors import ImageError, UsageError
from ..files import (
    PHOTO,
    check_models,
    picture_path,
    read_text,
    spreadsheet_name,
    spreadsheet_text,
)
from ..inference.results import Answer, Caption
from ..models.confidence import check_bound
from ..pictures import NamedBytes, image_files
from .terminal import (
    HERE,
    STDIN,
    Decoding,
    Here,
    is_gaze_file,
    one_line,
    refuse_pictures,
    report,
)

UNFAMILIAR = "unlike the pictures that the model learned from: check what is told of it"


@dataclass(frozen=True)
class Sampling(Decoding):
    """How to search for a caption, or to draw one.

    Attributes:
        sample: Draw words at random instead of taking the best.
        temperature: Temperature of sampling; below 1 is more careful.
        top_k: Sample among the N likeliest words; 0 for all.
        top_p: Sample among the likeliest words that reach this probability.
        seed: Random seed of sampling.
    """

    sample: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None


def caption(
    *pictures: str,
    model: tuple[str, ...] = (),
    decoding: Annotated[Sampling, Parameter(name="*")] = Sampling(),
    json: bool = False,
    csv: bool = False,
    gaze: Path | None = None,
    n_best: int = 1,
    batch: int | None = None,
    computing: Here = HERE,
) -> int:
    """Tell what pictures show. A caption that is less likely to be good is marked "(not sure)".

    Args:
        pictures: Files, folders, globs, or - for one picture from standard input.
        model: A model folder, or hf://owner/name; given several times, an ensemble. If not
            given, photo, which comes with gazetell.
        decoding: How to search.
        json: One JSON object a line, with words, log-probability, confidence and attention.
        csv: Rows of picture, caption, log-probability, confidence and whether the picture is unlike
            those that the model learned from, with a header. A text that a spreadsheet would
            run, such as one that begins with =, gets a leading apostrophe.
        gaze: Save where the model looked: a .png, .html or .gif file for one picture, a folder
            (of .png files) for several.
        n_best: Number of captions per picture, best first, each as a row with its rank; at most
            the beam, or any number with --sample.
        batch: Number of pictures per forward pass; 16 if not given.
        computing: Where.
    """
    if not pictures:
        raise UsageError("expected pictures: files, folders, globs, or - for standard input")
    if json and csv:
        raise UsageError("--json and --csv: expected only one of them")
    if batch is not None and batch < 1:
        raise UsageError(f"--batch {batch}: expected 1 or more")
    if batch is not None and STDIN in pictures:
        raise UsageError("--batch: has no effect on the one picture of standard input")
    items: list[Any]
    if STDIN not in pictures:
        items = list(image_files(pictures))
    elif len(pictures) > 1:
        raise UsageError("-: one picture is read from standard input; expected no other pictures")
    else:
        items = [_standard_input()]
    given = {os.path.realpath(item) for item in items if not isinstance(item, bytes)}
    several = "captions" if n_best > 1 else "pictures"
    one_file = is_gaze_file(gaze, given, n_best * len(items), several)
    if n_best < 1:
        raise UsageError(f"--n-best {n_best}: expected 1 or more")
    check_models(*model)
    from ..inference.large import Large
    from ..inference.load import load_captioner
    from ..inference.predict import caption_best

    captioner = load_captioner(*model, **vars(computing))
    chosen = captioner.options(**decoding.given())
    if n_best > chosen.beam and not chosen.sample:
        raise UsageError(f"--n-best {n_best}: expected 1 to {chosen.beam}, the beam (--beam)")
    if gaze is not None and not captioner.attentive:
        raise UsageError(f"--gaze {gaze}: {' '.join(model) or PHOTO} has no attention to show")
    failed, told, cut, odd, fewer = [], 0, 0, 0, 0
    unfamiliar: list[str] = []
    write = _writer(json, csv, len(items) > 1, n_best > 1)
    found = caption_best(captioner, items, n_best, batch=batch or 16, **decoding.given())
    for number, (item, captions) in enumerate(found):
        if isinstance(captions, ImageError):
            failed.append(captions)
            continue
        name = "-" if isinstance(item, bytes) else str(item)
        odd += any("\udc80" <= letter <= "\udcff" for letter in name)
        fewer += len(captions) < n_best
        unfamiliar += [name] * any(result.unfamiliar for result in captions)
        told += len(captions)
        for rank, result in enumerate(captions, 1):
            write(name, result, rank)
            cut += not result.ended
            if gaze is not None:
                # Short enough for every file system; the number tells pictures of one name apart.
                stem = "standard-input" if isinstance(item, bytes) else Path(name).stem[:50]
                stem += f"-{rank}" if n_best > 1 else ""
                target = gaze if one_file else gaze / f"{number:04d}-{stem}.png"
                refuse_pictures(target, given)
                result.save_gaze(target)
    if told and gaze is not None and not json:
        report(f"{gaze}: " + ("written" if one_file else f"files written: {told}"))
    if unfamiliar:
        more = len(unfamiliar) - 1
        others = f" (and {more} more of {len(items)} pictures)" if more else ""
        report(f"{one_line(unfamiliar[0])}{others}: is {UNFAMILIAR}")
    if cut:
        unit = "tokens" if isinstance(captioner, Large) else "words"
        report(f"cut at {chosen.max_length} {unit} (--max-length): {cut} of {told} captions")
    if fewer:
        report(f"pictures with fewer different captions than --n-best {n_best}: {fewer}")
    if odd:
        report(f"names that are not UTF-8, their bytes written as \\udc80 to \\udcff: {odd}")
    for error in failed:
        report(f"error: {error}")
    if failed and len(items) > 1:
        report(f"{len(failed)} of {len(items)} pictures failed")
    return (1 if len(items) > 1 else ImageError.exit_code) if failed else 0


def _standard_input() -> NamedBytes:
    """The picture of standard input."""
    picture = NamedBytes(sys.stdin.buffer.read())
    if not picture:
        raise UsageError("-: nothing is on standard input; expected a picture there")
    picture.name = "standard input"
    return picture


def _writer(
    as_json: bool, as_csv: bool, several: bool, ranked: bool
) -> Callable[[str, Caption, int], None]:
    """A function that prints a picture's name, a caption and its rank in the chosen form."""
    table = tables.writer(sys.stdout, lineterminator="\n")
    if as_csv:
        columns = ["picture", "caption", "log_prob", "confidence"]
        table.writerow([*columns, *["rank"] * ranked, "unfamiliar"])

    def write(name: str, caption: Caption, rank: int) -> None:
        if as_json:
            beside = {"rank": rank} if ranked else {}
            row = {"picture": name, **beside, **caption.to_dict()}
            print(dumps(row, ensure_ascii=False), flush=True)
        elif as_csv:
            texts = [spreadsheet_name(name), spreadsheet_text(caption.text)]
            sure = "" if caption.confidence is None else round(caption.confidence, 5)
            cells = [*texts, round(caption.log_prob, 5), sure]
            known = "" if caption.unfamiliar is None else str(caption.unfamiliar).lower()
            table.writerow([*cells, *[rank] * ranked, known])
        else:
            mark = "  (not sure)" if caption.sure is False else ""
            text = f"{one_line(name)}\t{caption.text}" if several else caption.text
            print(text + mark, flush=True)

    return write


def ask(
    picture: str,
    /,
    *questions: str,
    model: str | None = None,
    abstain_below: float | None = None,
    evidence: bool = False,
    top: int | None = None,
    answers: Path | None = None,
    json: bool = False,
    gaze: Path | None = None,
    computing: Here = HERE,
) -> int:
    """Answer questions about a picture, with a confidence.

    Args:
        picture: A file, or - for standard input.
        questions: In words; without any, they are read from standard input, one a line.
        model: A model folder, or hf://owner/name; photo, which comes with gazetell, if not given.
        abstain_below: Say "not sure" where the confidence is lower; the model's own bound if not
            given.
        evidence: Also tell how much the confidence falls without the picture.
        top: How many answers to show, 1 if not given.
        answers: File with an answer per line, among which a large model chooses; without it such a
            model writes its own.
        json: One JSON object a question, with the five likeliest answers and the attention.
        gaze: Save where the model looked: a .png, .html or .gif file for one question, a folder
            (of .png files) for several.
        computing: Where.
    """
    check_bound(abstain_below)
    if top is not None and not 1 <= top <= 5:
        raise UsageError(f"--top {top}: expected 1 to 5")
    if top is not None and json:
        raise UsageError("--top: has no effect with --json, which has the five likeliest answers")
    if picture == STDIN and not questions:
        raise UsageError("-: is the picture on standard input; expected questions as arguments")
    if STDIN in questions:
        raise UsageError(
            "-: is not a question; without questions they are read from standard input"
        )
    if file := next((text for text in questions if os.path.isfile(text)), None):
        raise UsageError(f"{file}: is a file, not a question; expected one picture")
    if picture != STDIN and not os.path.lexists(picture):
        image_files([picture])  # says that it is missing
    given = {os.path.realpath(picture_path(picture))}
    one_file = is_gaze_file(gaze, given, len(questions), "questions")
    asked: Iterable[str] = questions or _typed()
    if not questions and not sys.stdin.isatty():  # a person is asked when the model is loaded
        if (first := next(typed := _typed(), None)) is None:
            raise UsageError("give a question: as an argument, or one a line on standard input")
        asked = chain([first], typed)
    content = _standard_input() if picture == STDIN else picture
    check_models(*filter(None, [model]))
    listed = None if answers is None else read_text(answers).splitlines()
    from ..inference.large import LargeAnswerer
    from ..inference.load import load_answerer

    answerer = load_answerer(model, **vars(computing))
    if isinstance(answerer, LargeAnswerer):
        answerer = LargeAnswerer(answerer.network, listed, top or 1)
    elif answers is not None:
        raise UsageError(f"--answers: {model or PHOTO} has a list of its own")
    if gaze is not None and not answerer.attentive:
        raise UsageError(f"--gaze {gaze}: {model or PHOTO} has no attention to show")
    for question in questions:
        answerer.read_question(question)
    encoded = answerer.encode(content)
    status, number, saved, told = 0, 0, 0, False
    for number, question in enumerate(asked, 1):
        try:
            answer = answerer.ask(encoded, question, abstain_below=abstain_below, evidence=evidence)
        except UsageError as error:  # only of a typed question: the others were read before
            report(f"error: {error}")
            status = 1
            continue
        if answer.unfamiliar and not told:
            report(f"{picture}: is {UNFAMILIAR}")
        told = True
        text = dumps(answer.to_dict(), ensure_ascii=False) if json else _line(answer, top or 1)
        print(text, flush=True)
        if gaze is not None:
            target = gaze if one_file else gaze / f"{number - 1:04d}.png"
            refuse_pictures(target, given)
            answer.save_gaze(target)
            saved += 1
    if saved and not json:
        report(f"{gaze}: " + ("written" if one_file else f"files written: {saved}"))
    if not number:
        report("no question on standard input")
    return status


def _typed() -> Iterator[str]:
    """Questions from standard input, with a prompt where a person types them."""
    person = sys.stdin.isatty()
    if person:
        report("type a question; an empty line ends")
    while True:
        if person:
            print("? ", end="", file=sys.stderr, flush=True)
        text = sys.stdin.readline()
        if not text or (person and not text.strip()):
            return
        if text.strip():
            yield text.strip()


def _line(answer: Answer, top: int) -> str:
    """An answer as a line of text."""
    text = "  ".join(f"{text}  ({100 * chance:.2f} %)" for text, chance in answer.top[:top])
    if answer.abstained:
        text = f"not sure; at best: {text}"
    if answer.without_picture is not None:
        text += f"  without the picture {100 * answer.without_picture:.2f} %"
    if answer.unknown:
        text += f"  unknown words: {', '.join(answer.unknown)}"
    if answer.cut:
        text += f"  words not read, at the end: {answer.cut}"
    return text

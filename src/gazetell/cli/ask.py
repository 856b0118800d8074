"""``gazetell ask``."""

import sys
from collections.abc import Iterable, Iterator
from json import dumps
from pathlib import Path

from ..errors import UsageError
from ..inference.answering import Answer, Answerer, check_bound
from ..inference.gaze import FORMATS
from .terminal import STDIN, report

__all__ = ["ask"]


def ask(
    picture: str,
    /,
    *questions: str,
    model: str,
    abstain_below: float = 0.0,
    evidence: bool = False,
    top: int = 1,
    json: bool = False,
    gaze: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> int:
    """Answer questions about a picture, with a confidence.

    Args:
        picture: A file, or - for standard input.
        questions: In words; without any, they are read from standard input, one a line.
        model: A model folder, or hf://owner/name.
        abstain_below: Say "not sure" where the confidence is lower.
        evidence: Also tell how much the confidence falls without the picture.
        top: How many answers to show.
        json: One JSON object a question, with the five likeliest answers and the attention.
        gaze: Save where the model looked: a .png, .html or .gif file for one question, a folder
            (of .png files) for several.
        device: auto, cpu or cuda.
        precision: auto, bf16 or fp32.
    """
    check_bound(abstain_below)
    if not 1 <= top <= 5:
        raise UsageError(f"--top {top}: expected 1 to 5")
    if picture == STDIN and not questions:
        raise UsageError("- takes standard input for the picture; expected questions beside it")
    one_file = gaze is not None and gaze.suffix != "" and not gaze.is_dir()
    if one_file and gaze is not None and gaze.suffix.lower() not in FORMATS:
        raise UsageError(f"--gaze {gaze}: expected a folder, or a file {', '.join(FORMATS)}")
    if one_file and len(questions) != 1:
        several = f"{len(questions)} questions" if questions else "typed questions"
        raise UsageError(f"--gaze {gaze}: one file for {several}; expected a folder")
    answerer = Answerer.load(model, device=device, precision=precision)
    encoded = answerer.encode(sys.stdin.buffer.read() if picture == STDIN else picture)
    status = 0
    for number, question in enumerate(questions or _typed()):
        try:
            answer = answerer.ask(encoded, question, abstain_below=abstain_below, evidence=evidence)
        except UsageError as error:
            if questions:
                raise
            report(f"error: {error}")
            status = 1
            continue
        print(
            dumps(answer.to_dict(), ensure_ascii=False) if json else line(answer, top), flush=True
        )
        if gaze is not None:
            answer.save_gaze(gaze if one_file else gaze / f"{number:04d}.png")
    return status


def _typed() -> Iterator[str]:
    """Questions from standard input, with a prompt where a person types them."""
    lines: Iterable[str] = sys.stdin
    person = sys.stdin.isatty()
    if person:
        report("ask, a question a line; an empty line ends")
    while True:
        if person:
            print("? ", end="", file=sys.stderr, flush=True)
        text = next(iter(lines), "")
        if not text or (person and not text.strip()):
            return
        if text.strip():
            yield text.strip()


def line(answer: Answer, top: int) -> str:
    """An answer as a line of text."""
    shown = "  ".join(f"{text}  ({100 * chance:.2f} %)" for text, chance in answer.top[:top])
    if answer.abstained:
        shown = f"not sure; at best: {shown}"
    if answer.without_picture is not None:
        shown += f"  without the picture {100 * answer.without_picture:.2f} %"
    if answer.unknown:
        shown += f"  unknown words: {', '.join(answer.unknown)}"
    return shown

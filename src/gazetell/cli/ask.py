"""``gazetell ask``."""

import sys
from collections.abc import Iterator
from json import dumps
from pathlib import Path

from ..errors import UsageError
from ..inference.predict import Answer, Answerer, check_bound
from .options import HERE, Here, is_gaze_file
from .terminal import STDIN, report


def ask(
    picture: str,
    /,
    *questions: str,
    model: str,
    abstain_below: float = 0.0,
    evidence: bool = False,
    top: int | None = None,
    json: bool = False,
    gaze: Path | None = None,
    computing: Here = HERE,
) -> int:
    """Answer questions about a picture, with a confidence.

    Args:
        picture: A file, or - for standard input.
        questions: In words; without any, they are read from standard input, one a line.
        model: A model folder, or hf://owner/name.
        abstain_below: Say "not sure" where the confidence is lower.
        evidence: Also tell how much the confidence falls without the picture.
        top: How many answers to show, 1 if not given.
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
        raise UsageError("- takes standard input for the picture; expected questions beside it")
    one_file = is_gaze_file(gaze, len(questions), "questions")
    answerer = Answerer.load(model, device=computing.device, precision=computing.precision)
    if gaze is not None and not answerer.attentive:
        raise UsageError(f"--gaze {gaze}: {model} has no attention to show")
    for question in questions:
        answerer.read_question(question)
    encoded = answerer.encode(sys.stdin.buffer.read() if picture == STDIN else picture)
    status, number = 0, 0
    for number, question in enumerate(questions or _typed(), 1):
        try:
            answer = answerer.ask(encoded, question, abstain_below=abstain_below, evidence=evidence)
        except UsageError as error:  # only of a typed question: the others were read before
            report(f"error: {error}")
            status = 1
            continue
        text = dumps(answer.to_dict(), ensure_ascii=False) if json else _line(answer, top or 1)
        print(text, flush=True)
        if gaze is not None:
            answer.save_gaze(gaze if one_file else gaze / f"{number - 1:04d}.png")
    if not number:
        report("no question on standard input")
    return status


def _typed() -> Iterator[str]:
    """Questions from standard input, with a prompt where a person types them."""
    person = sys.stdin.isatty()
    if person:
        report("ask, a question a line; an empty line ends")
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

"""The report of a run: one page with figures, curves, gaze, best and worst cases, and what next.

Everything is in the one file: style, script, charts as inline SVG and pictures as data URIs.
Nothing is fetched, so the page can be sent by mail and read in ten years. It is light or dark as
its reader's system is, and every text from a model or a user is escaped.
"""

import math
import numbers
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from ..files import write_text
from ..pictures import open_image
from . import gaze
from .curves import chart, curve
from .lettering import one_line

__all__ = ["Example", "figure_text", "write_report"]

SIDE = 480  # longer side of an embedded picture in pixels: some 50 kB each


@dataclass(frozen=True, eq=False)
class Example:
    """A test picture and what the model made of it.

    Attributes:
        image: the picture, or where it lies.
        caption: what the model said.
        words: T words of the caption, as the model emitted them.
        attention: (T, h, w) one map a word, or None for a model without attention.
        references: what people said.
        score: the picture's own score (CIDEr, 1.0 is a hundred points), or None.
        verdict: what a check of the facts found, for example ``"false: no red circle"``.
        right: whether the verdict is a good one; None marks it as neither.
    """

    image: Image.Image | str | os.PathLike[str]
    caption: str
    words: Sequence[str] = ()
    attention: np.ndarray | None = None
    references: Sequence[str] = ()
    score: float | None = None
    verdict: str | None = None
    right: bool | None = None


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    command: str,
    figures: Mapping[str, float | int | str | None],
    history: Sequence[Mapping[str, Any]],
    examples: Sequence[Example],
    best: Sequence[Example],
    worst: Sequence[Example],
    commands: Sequence[str],
    notes: Sequence[str],
    answers: Sequence[Example] = (),
    date: str | None = None,
) -> None:
    """Write ``report.html``: one file that is complete in itself, whole or not at all.

    A section without content is left out.

    Args:
        path: the file, for example ``run/report.html``.
        title: the heading.
        command: the command line that made the run.
        figures: headline figures by name; None is shown as "not computed".
        history: rows of ``metrics.jsonl``: ``"epoch"`` and any of ``"train_loss"``,
            ``"val_loss"``, ``"val_cider"`` and other ``"val_..."`` scores, of which the first
            three are drawn.
        examples: a dozen test pictures.
        best: the pictures with the highest scores.
        worst: the pictures with the lowest scores.
        commands: the command lines to go on with; a line that starts with ``#`` is a comment.
        notes: what the reader must know, a sentence or two each.
        answers: questions about test pictures; ``caption`` is question and answer, ``words`` name
            the passes of the attention.
        date: shown beneath the title as it is.

    Raises:
        ImageError: the picture of an example cannot be opened.
        WriteError: the file system refused.
        ValueError: the attention of an example does not fit its words.
    """
    page = Template(gaze.template("report.html")).substitute(
        title=escape(one_line(title)),
        date=f'<p class="date">{escape(one_line(date))}</p>' if date else "",
        command=_code(command),
        figures=_figures(figures),
        sections="\n".join(
            (
                _section("How it learned", _curves(history) + _left_out(history)),
                _section(
                    "Where it looked",
                    _gallery(examples, tiles=True),
                    "Pictures of the test set. Choose a word to see where the model looked for it.",
                ),
                _section(
                    "What it answered",
                    _gallery(answers, tiles=True),
                    "Questions about pictures of the test set, and where it looked in each pass.",
                ),
                _section("Its best", _gallery(best), "The highest scores of the test set."),
                _section("Its worst", _gallery(worst), "The lowest scores: where to look first."),
                _section("Good to know", _notes(notes)),
                _section("Where to go from here", "\n".join(map(_code, commands))),
            )
        ),
        style=gaze.template("report.css"),
        gaze_style=gaze.style(),
        gaze_script=gaze.script(),
        script=gaze.template("report.js"),
    )
    write_text(Path(path), page)


def _section(heading: str, content: str, lead: str = "") -> str:
    """A section with its heading, or nothing where there is nothing to show."""
    if not content:
        return ""
    lead = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f"<section>\n<h2>{escape(heading)}</h2>\n{lead}\n{content}\n</section>"


def figure_text(value: float | int | str | None) -> str:
    """A headline figure as a person would write it."""
    if value is None:
        return "not computed"
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return one_line(str(value))
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}"
    number = float(value)
    if not math.isfinite(number):
        return "undefined"
    size = abs(number)
    if size >= 1000:
        return f"{number:,.0f}"
    if size >= 10:
        return f"{number:.1f}"
    return f"{number:.3f}" if size >= 0.001 or number == 0 else f"{number:.1e}"


def _figures(figures: Mapping[str, float | int | str | None]) -> str:
    """The headline figures as cards."""
    cards = []
    for name, value in figures.items():
        text = figure_text(value)
        spoken = value is None or (isinstance(value, str) and len(text) > 8)
        kind = ' class="words"' if spoken else ' class="long"' if len(text) > 6 else ""
        cards.append(f"<div><dt>{escape(one_line(name))}</dt><dd{kind}>{escape(text)}</dd></div>")
    return f'<dl class="figures">{"".join(cards)}</dl>' if cards else ""


def _score_name(key: str) -> str:
    """``val_cider`` as the field writes it."""
    name = key.removeprefix("val_")
    known = {"cider": "CIDEr", "rouge_l": "ROUGE-L", "meteor": "METEOR", "spice": "SPICE"}
    return known.get(name, name.replace("bleu_", "BLEU-").replace("_", " "))


def _curves(history: Sequence[Mapping[str, Any]]) -> str:
    """Loss, and up to three scores of the validation split, CIDEr first."""
    panels = [
        (
            "Loss",
            chart(
                "loss",
                "Loss",
                [
                    curve("training", history, "train_loss"),
                    curve("validation", history, "val_loss"),
                ],
                best="min",
            ),
        )
    ]
    keys = dict.fromkeys(key for row in history for key in row)
    scores = [key for key in keys if key.startswith("val_") and key != "val_loss"]
    scores.sort(key=lambda key: key != "val_cider")
    for number, key in enumerate(scores[:3]):
        name = _score_name(key)
        line = curve(name, history, key)
        panels.append((f"{name}, validation", chart(f"score{number}", name, [line], best="max")))
    drawn = "".join(
        f'<div class="panel"><h3>{escape(name)}</h3>\n{svg}</div>' for name, svg in panels if svg
    )
    return f'<div class="panels">{drawn}</div>' if drawn else ""


def _left_out(history: Sequence[Mapping[str, Any]]) -> str:
    """How many epochs the curves do not show, because a figure is not finite."""
    shown = ("train_loss", "val_")
    broken = [
        row
        for row in history
        if any(
            key.startswith(shown) and isinstance(value, numbers.Real) and not math.isfinite(value)
            for key, value in row.items()
        )
    ]
    if not broken:
        return ""
    return (
        f'<p class="small">{len(broken)} of {len(history)} epochs have figures that are not '
        "finite; the curves leave them out.</p>"
    )


def _gallery(examples: Sequence[Example], tiles: bool = False) -> str:
    """Examples side by side; with tiles, one below the other with an overlay for each word."""
    cards = "\n".join(_card(example, tiles) for example in examples)
    kind = "gallery wide" if tiles else "gallery"
    return f'<div class="{kind}">\n{cards}\n</div>' if cards else ""


def _card(example: Example, tiles: bool) -> str:
    """One picture with its gaze, score, verdict and references."""
    picture, caption = open_image(example.image), one_line(example.caption)
    if example.attention is None:
        shown = (
            f'<figure class="plain"><img src="{gaze.picture_uri(picture, SIDE)}" '
            f'alt="{escape(caption)}">'
            f'<figcaption dir="auto">{escape(caption)}</figcaption></figure>'
        )
    else:
        shown = gaze.html(
            picture,
            example.words,
            example.attention,
            title=caption if tiles else None,
            caption=caption,
            with_assets=False,
            tiles=tiles,
            side=SIDE,
        )
    marks = []
    if example.score is not None:
        marks.append(f'<span class="mark">CIDEr {example.score:.2f}</span>')
    if example.verdict:
        kind = {None: "", True: " right", False: " wrong"}[example.right]
        marks.append(f'<span class="mark{kind}">{escape(one_line(example.verdict))}</span>')
    references = "".join(
        f'<li dir="auto">{escape(one_line(text))}</li>' for text in example.references
    )
    if references:
        references = f'<p class="small">People said</p><ul class="references">{references}</ul>'
    line = f'<p class="marks">{" ".join(marks)}</p>' if marks else ""
    about = f'<div class="about">{line}{references}</div>' if line or references else ""
    return f"<article>\n{shown}{about}\n</article>"


def _notes(notes: Sequence[str]) -> str:
    """Notes as a list."""
    items = "".join(f"<li>{escape(one_line(note))}</li>" for note in notes)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _code(line: str) -> str:
    """A command line to copy; one that starts with ``#`` is a remark on the next."""
    line = line.strip()
    if line.startswith("#"):
        return f'<p class="remark">{escape(line.lstrip("# "))}</p>'
    if not line:
        return ""
    return (
        f'<div class="command"><pre tabindex="0"><code>{escape(line)}</code></pre>'
        '<button type="button" class="copy" hidden>Copy</button></div>'
    )

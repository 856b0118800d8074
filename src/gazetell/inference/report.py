"""The report of a run: one page with figures, curves, gaze, best and worst cases, and what next.

Everything is in the one file: style, script, charts as inline SVG and pictures as data URIs.
Nothing is fetched, so the page can be sent by mail and read in ten years. It is light or dark as
its reader's system is, and every text from a model or a user is escaped.
"""

import html
import logging
import math
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..files import write_text
from ..metrics import TITLES
from ..models.confidence import LIKELY, certainty
from ..pictures import WHOLE_VIEW, View, open_image
from .figures import references_of
from .gaze import Gaze, fill, one_line, picture_uri, script, template
from .results import Answer, Caption

if TYPE_CHECKING:
    from .compare import Comparison

SHOWN = 60  # captions or answers of a comparison, each of several models
SIDE = 480  # longer side of an embedded picture in pixels: some 50 kB each
Figure = float | int | str | None
History = Sequence[Mapping[str, Any]]
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Example:
    """A test picture and what the model made of it.

    Attributes:
        image: the picture, or where it lies.
        caption: what the model said.
        words: T words of the caption, as the model emitted them.
        attention: (T, h, w) one map a word, or None for a model without attention.
        references: what people said.
        score: the picture's own score (CIDEr, 1.0 is shown as 100), or None.
        confidence: the model's own, in [0, 1], or None.
        verdict: what a check of the facts found, for example ``"false: no red circle"``.
        right: whether the verdict is a good one; None marks it as neither.
        view: where the maps lie on the picture.
        asked: answers to questions about it.
        heading: a line above it, such as a model's name.
    """

    image: Image.Image | str | os.PathLike[str]
    caption: str
    words: Sequence[str] = ()
    attention: np.ndarray | None = None
    references: Sequence[str] = ()
    score: float | None = None
    confidence: float | None = None
    verdict: str | None = None
    right: bool | None = None
    view: View = WHOLE_VIEW
    asked: Sequence[Answer] = ()
    heading: str = ""


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    command: str,
    figures: Mapping[str, Figure],
    examples: Sequence[Example],
    commands: Sequence[str],
    notes: Sequence[str],
    lead: str = "Pictures of the test set. Choose a word to see where the model looked for it.",
    history: History = (),
    best: Sequence[Example] = (),
    worst: Sequence[Example] = (),
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
        examples: a dozen pictures.
        commands: the command lines to go on with; a line that starts with ``#`` is a comment.
        notes: what the reader must know, a sentence or two each.
        lead: what the examples are.
        history: rows of ``metrics.jsonl``: ``"epoch"`` and any of ``"train_loss"``,
            ``"val_loss"``, ``"val_cider"`` and other ``"val_..."`` scores, of which the first
            three are drawn.
        best: the pictures with the highest scores.
        worst: the pictures with the lowest scores.
        answers: questions about test pictures; ``caption`` is question and answer, ``words`` name
            the passes of the attention.
        date: shown beneath the title as it is.

    Raises:
        ImageError: the picture of an example cannot be opened.
        WriteError: the file system refused.
        ValueError: the attention of an example does not fit its words.
    """
    sections = (
        ("How it learned", "", _curves(history)),
        ("Where it looked", lead, gallery(examples, tiles=True)),
        (
            "What it answered",
            "Questions about pictures of the test set, and where it looked in each pass.",
            gallery(answers, tiles=True),
        ),
        ("Its best", "The highest scores of the test set.", gallery(best)),
        ("Its worst", "The lowest scores: where to look first.", gallery(worst)),
        ("Good to know", "", listed(notes)),
        ("Where to go from here", "", "\n".join(map(_command, commands))),
    )
    write_page(
        path,
        title=title,
        kind="report",
        command=command,
        head=_figures(figures),
        sections=sections,
        date=date,
    )


def write_page(
    path: str | os.PathLike[str],
    *,
    title: str,
    kind: str,
    command: str,
    head: str,
    sections: Sequence[tuple[str, str, str]],
    date: str | None = None,
) -> None:
    """Write a page that is complete in itself, whole or not at all.

    Args:
        path: the file.
        title: the heading.
        kind: of page, in a word above it.
        command: the command line that made it.
        head: HTML below the heading.
        sections: heading, what it is, and its HTML; one without content is left out.
        date: shown beneath the title as it is.

    Raises:
        WriteError: the file system refused.
    """
    page = fill(
        "report.html",
        title=_text(title),
        kind=kind,
        date=f'<p class="date">{_text(date)}</p>' if date else "",
        command=_command(command),
        figures=head,
        sections="\n".join(
            f"<section>\n<h2>{_text(heading)}</h2>\n"
            + (f'<p class="lead">{_text(lead)}</p>\n' if lead else "")
            + f"{content}\n</section>"
            for heading, lead, content in sections
            if content
        ),
        style=template("gaze.css") + template("report.css"),
        gaze_script=script(),
        script=template("report.js"),
    )
    write_text(Path(path), page)


def write_comparison(path: str | os.PathLike[str], comparison: "Comparison", command: str) -> None:
    """Write what several models tell of the same pictures: costs, agreement, gazes side by side.

    The rows where they differ most come first, at most ``SHOWN`` of them.

    Args:
        path: of the page.
        comparison: of ``compare``.
        command: the command line that made it.

    Raises:
        WriteError: the file system refused.
    """
    columns, rows = comparison.columns, comparison.rows
    of = "answers" if comparison.answers else "captions"
    opened = [n for n in range(len(rows)) if any(not isinstance(c.told[n], str) for c in columns)]
    opened.sort(key=lambda n: -comparison.apart[n])
    lead = "Where the models differ most comes first."
    if len(opened) > SHOWN:
        lead += f" {SHOWN} of {len(opened)} are shown."
        log.warning(f"{path}: shows the {SHOWN} {of} that differ most, of {len(opened)}")
    chosen = opened[:SHOWN]
    contents = comparison.contents(chosen)
    cards = []
    for n in chosen:
        name, question, record = rows[n]
        people = () if record is None else references_of(record)
        examples = [_cell(c.model, c.told[n], contents[n], people) for c in columns]
        cards.append(gallery(examples, heading=f"{name}: {question}" if question else name))
    differences = comparison.difference_rows()
    notes = (
        "CPU ms: processor time a picture, of all threads together, from the file to the words; "
        "the median, one picture at a time. Memory: the most that the model's process held, and "
        "what of it came with the model.",
        "What models agree on may be wrong: read it against the pictures.",
    )
    *first, last = [column.model for column in columns]
    write_page(
        path,
        title=f"{', '.join(first)} and {last}",
        kind="comparison",
        command=command,
        head=table(comparison.figures()),
        sections=(
            (f"How far the {of} agree", "", listed(comparison.agreement_lines())),
            (
                "Differences against the references",
                "An interval that holds 0 shows no difference.",
                table(differences) if len(differences) > 1 else "",
            ),
            (f"The {of}", lead, "\n".join(cards)),
            ("What failed", "", listed(comparison.failed)),
            ("Good to know", "", listed(notes)),
        ),
    )


def _cell(model: str, told: Any, content: Any, people: Sequence[str]) -> Example:
    """What one model told of a picture; a text is the error instead."""
    if isinstance(told, str):
        return Example(content, "", heading=model, verdict=told, right=False)
    captions, heading, sure, least = isinstance(told, Caption), model, True, 0.0
    if isinstance(told, Caption):
        sure, words = bool(told.sure), told.words
    else:
        sure, words, least = not told.abstained, told.passes, LIKELY
        heading = f"{model}: {told.text}"
    return Example(
        content,
        told.text,
        words,
        told.attention,
        people,
        confidence=None if captions else told.confidence,
        verdict=certainty(told.confidence, sure, least, unfamiliar=told.unfamiliar),
        view=told.view,
        heading=heading,
    )


def _text(text: str) -> str:
    return html.escape(one_line(text))


def listed(items: Sequence[str], kind: str = "notes") -> str:
    """Texts as a list; nothing for none."""
    rows = "".join(f'<li dir="auto">{_text(item)}</li>' for item in items)
    return f'<ul class="{kind}">{rows}</ul>' if rows else ""


def table(rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row is its head, the first column names."""
    head, *others = ["".join(f"<td>{_text(x)}</td>" for x in row) for row in rows]
    head = head.replace("<td>", '<th scope="col">').replace("</td>", "</th>")
    body = "".join(f"<tr>{row}</tr>" for row in others)
    return (
        '<div class="table" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def figure_text(value: Figure) -> str:
    """A figure as a person would write it."""
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
    if size >= 10:
        return f"{number:,.0f}" if size >= 1000 else f"{number:.1f}"
    return f"{number:.3f}" if size >= 0.001 or number == 0 else f"{number:.1e}"


def _figures(figures: Mapping[str, Figure]) -> str:
    """The headline figures as cards."""
    cards = ""
    for name, value in figures.items():
        text = figure_text(value)
        spoken = value is None or (isinstance(value, str) and len(text) > 8)
        kind = ' class="words"' if spoken else ' class="long"' if len(text) > 6 else ""
        cards += f"<div><dt>{_text(name)}</dt><dd{kind}>{html.escape(text)}</dd></div>"
    return f'<dl class="figures">{cards}</dl>' if cards else ""


def gallery(examples: Sequence[Example], tiles: bool = False, heading: str = "") -> str:
    """Examples side by side; with tiles, one below the other with an overlay for each word.

    A heading stands above them all.
    """
    above = f'<h3 class="of" dir="auto">{_text(heading)}</h3>\n' if heading else ""
    cards = "\n".join(_card(example, tiles) for example in examples)
    return (
        f'{above}<div class="gallery{" wide" if tiles else ""}">\n{cards}\n</div>' if cards else ""
    )


def _card(example: Example, tiles: bool) -> str:
    """One picture with its gaze, score, verdict and references."""
    picture, caption = open_image(example.image), _text(example.caption)
    if example.attention is None:
        image = f'<img src="{picture_uri(picture, SIDE)}" alt="{caption}">'
        figure = f'<figcaption dir="auto">{caption}</figcaption>'
        seen = f'<figure class="plain">{image}{figure}</figure>'
    else:
        title = example.caption if tiles else ""
        maps = example.words, example.attention
        gaze = Gaze(picture, *maps, title, example.caption, example.view)
        seen = gaze.html(tiles=tiles, assets=False, side=SIDE)
    marks = (
        ""
        if example.score is None
        else f'<span class="mark">CIDEr {100 * example.score:.1f}</span>'
    )
    if example.confidence is not None:
        marks += f' <span class="mark">{100 * example.confidence:.0f} % sure</span>'
    if example.verdict:
        kind = {None: "", True: " right", False: " wrong"}[example.right]
        marks += f' <span class="mark{kind}">{_text(example.verdict)}</span>'
    about = f'<p class="marks">{marks}</p>' if marks else ""
    if example.references:
        about += '<p class="small">People said</p>' + listed(example.references, "references")
    if example.asked:
        rows = (
            f"<dt>{_text(one.question)}</dt><dd>{_text(one.with_confidence)}</dd>"
            for one in example.asked
        )
        about += f'<dl class="asked">{"".join(rows)}</dl>'
    above = f'<h4 dir="auto">{_text(example.heading)}</h4>\n' if example.heading else ""
    below = f'<div class="about">{about}</div>' if about else ""
    return f"<article>\n{above}{seen}{below}</article>"


def _command(line: str) -> str:
    """A command line to copy; one that starts with ``#`` is a remark on the next."""
    line = line.strip()
    if line.startswith("#"):
        return f'<p class="remark">{html.escape(line.lstrip("# "))}</p>'
    return (
        f'<div class="command"><pre tabindex="0"><code>{html.escape(line)}</code></pre>'
        '<button type="button" class="copy" hidden>Copy</button></div>'
    )


def _curves(history: History) -> str:
    """Loss, and up to three scores of the validation split, CIDEr first."""
    scores = [
        key
        for key in dict.fromkeys(key for row in history for key in row)
        if key.startswith("val_") and key != "val_loss"
    ]
    scores.sort(key=lambda key: key != "val_cider")
    panels = [("Loss", {"train_loss": "training", "val_loss": "validation"}, min)]
    for key in scores[:3]:
        score = key.removeprefix("val_")
        name = TITLES.get(score, score.replace("_", " "))
        panels.append((f"{name}, validation", {key: name}, max))
    # Scores from 0 to 100, as everywhere; metrics.jsonl has them from 0 to 1.
    scaled = [
        {k: 100 * v if k in scores and isinstance(v, numbers.Real) else v for k, v in row.items()}
        for row in history
    ]
    drawn = "".join(
        f'<div class="panel"><h3>{_text(title)}</h3>\n{svg}</div>'
        for title, curves, best in panels
        if (svg := chart(title, scaled, curves, best))
    )
    if not drawn:
        return ""
    broken = sum(
        isinstance(value, float) and not math.isfinite(value)
        for row in history
        for key, value in row.items()
        if key == "train_loss" or key.startswith("val_")
    )
    which = f"Figures that are not finite ({broken} in {len(history)} epochs)"
    note = f'<p class="small">{which} are left out of the curves.</p>' if broken else ""
    return f'<div class="panels">{drawn}</div>{note}'


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 270, 56, 446, 16, 230  # of a chart, its axes


def chart(title: str, history: History, curves: Mapping[str, str], best: Any = None) -> str:
    """Curves over epochs as one ``<svg>`` element; the style sheet of the page colours it.

    Args:
        title: what the curves show, said in the alternative text.
        history: rows of ``metrics.jsonl``; what is no finite number is left out.
        curves: the name in the legend by key of the rows; the last one with a point is drawn in
            the loud colour, those before it quiet.
        best: ``min`` or ``max`` marks the best point of the last curve.

    Returns:
        The element, or ``""`` when no curve has a point.
    """
    lines = {name: points for key, name in curves.items() if (points := _points(history, key))}
    if not lines:
        return ""
    epochs, values = zip(*(point for points in lines.values() for point in points), strict=True)
    pad = 0.15 * (max(values) - min(values))
    across, x_ticks = _axis(min(epochs), max(epochs), LEFT, RIGHT, whole=True)
    up, y_ticks = _axis(min(values) - pad, max(values) + pad, BOTTOM, TOP)
    drawn, spoken = [f'<text x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 6}">epoch</text>'], []
    for tick in y_ticks:
        drawn.append(f'<path class="rule" d="M{LEFT} {up(tick)}H{RIGHT}"/>')
        drawn.append(f'<text class="y" x="{LEFT - 8}" y="{up(tick)}">{tick:g}</text>')
    for tick in x_ticks:
        drawn.append(f'<text x="{across(tick)}" y="{BOTTOM + 16}">{tick:g}</text>')
    for number, (name, points) in enumerate(lines.items()):
        loud = " loud" if number == len(lines) - 1 else ""
        places = [f"{across(x)} {up(y)}" for x, y in points]
        # A single point is a line that goes nowhere, with a round end.
        drawn.append(
            f'<path class="line{loud}" d="M{"L".join(places)}{"h0" * (len(places) == 1)}"/>'
        )
        if len(lines) > 1:
            line = TOP + 16 * number
            drawn.append(f'<path class="line{loud}" d="M{RIGHT - 96} {line}h18"/>')
            drawn.append(f'<text class="name" x="{RIGHT - 72}" y="{line}">{_text(name)}</text>')
        ends = dict.fromkeys(f"{value:.3g}" for _, value in (points[0], points[-1]))
        spoken.append(f"{name} {' to '.join(ends)}")
    if best is not None:
        epoch, value = best(points, key=lambda point: point[1])
        said = f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
        x, y = across(epoch), up(value)
        drawn.append(f'<circle cx="{x}" cy="{y}" r="4"/>')
        place = f'x="{min(x, WIDTH - 22)}" y="{y + (18 if best is min else -10)}"'
        drawn.append(f'<text class="best" {place}>{said}</text>')
        spoken.append(f"best {said} at epoch {epoch:g}")
    label = _text(f"{title} by epoch: {'; '.join(spoken)}")
    head = f'<svg class="chart" role="img" viewBox="0 0 {WIDTH} {HEIGHT}" aria-label="{label}">'
    return head + "\n".join(drawn) + "</svg>"


def _points(history: History, key: str) -> list[tuple[float, float]]:
    """(epoch, value) of each row in which both are finite numbers."""
    pairs = [(row.get("epoch"), row.get(key)) for row in history]
    return [
        (float(x), float(y))
        for x, y in pairs
        if isinstance(x, numbers.Real) and isinstance(y, numbers.Real) and math.isfinite(y)
    ]


def _axis(
    low: float, high: float, start: float, end: float, whole: bool = False
) -> tuple[Callable[[float], float], list[float]]:
    """A function from numbers to places on a chart, and three to seven round numbers between."""
    if low == high:
        low, high = low - (0.1 * abs(low) or 0.5), high + (0.1 * abs(high) or 0.5)
    step = (high - low) / 7
    power = 10.0 ** math.floor(math.log10(step))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= step * 0.999)
    step = max(1.0, step) if whole else step
    ticks = range(math.ceil(low / step), math.floor(high / step) + 1)
    scale = (end - start) / (high - low)
    return lambda x: round(start + (x - low) * scale, 1), [float(f"{n * step:.6g}") for n in ticks]

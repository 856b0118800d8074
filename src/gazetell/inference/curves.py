"""Curves of a training run as inline SVG that takes its colours from the page around it.

matplotlib draws; what it writes is then cut down to what may stand in an HTML page: no prologue,
no metadata, no addresses, ids that no second chart has, and colours that are the page's own, so
that one drawing serves light and dark.
"""

import io
import math
import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

__all__ = ["Curve", "chart", "curve"]

# Colours to draw with, each exchanged for one of the page's.
INK, RULE, QUIET, LOUD = "#010101", "#020202", "#030303", "#040404"
PAGE_COLOURS = {
    INK: "currentColor",
    RULE: "var(--rule, #8884)",
    QUIET: "var(--quiet, #888)",
    LOUD: "var(--accent, #c2540a)",
}


@dataclass(frozen=True)
class Curve:
    """One line of a chart: values by epoch."""

    label: str
    epochs: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def ends(self) -> str:
        """The first and the last value, in words."""
        if len(self.values) == 1:
            return f"{self.label} {self.values[0]:.3g}"
        return f"{self.label} from {self.values[0]:.3g} to {self.values[-1]:.3g}"


def curve(label: str, history: Sequence[Mapping[str, Any]], key: str) -> Curve:
    """The values of ``key`` by epoch; rows without it, or with one that is not finite, are skipped.

    Args:
        label: the name in the legend.
        history: rows of ``metrics.jsonl``.
        key: for example ``"val_loss"``.
    """
    points = [
        (float(row["epoch"]), float(row[key]))
        for row in history
        if isinstance(row.get(key), numbers.Real)
        and isinstance(row.get("epoch"), numbers.Real)
        and math.isfinite(row[key])
    ]
    return Curve(label, tuple(x for x, _ in points), tuple(y for _, y in points))


def chart(name: str, title: str, curves: Sequence[Curve], best: str | None = None) -> str:
    """Draw curves over epochs as one ``<svg>`` element.

    Args:
        name: a word that no other chart on the page has; the ids start with it.
        title: what the curves show, said in the alternative text.
        curves: the last one in the loud colour, those before it quiet; empty ones are left out.
        best: ``"min"`` or ``"max"`` marks the best point of the last curve.

    Returns:
        The element, or ``""`` when no curve has a point.
    """
    curves = [one for one in curves if one.values]
    if not curves:
        return ""
    # 0.4 s of import, needed by reports alone. No pyplot: it keeps figures in a global list.
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.6, 2.7), layout="constrained")
        axes = figure.add_subplot()
        for one in curves:
            loud = one is curves[-1]
            axes.plot(
                one.epochs,
                one.values,
                label=one.label,
                color=LOUD if loud else QUIET,
                linewidth=2 if loud else 1.5,
                marker="o" if len(one.values) == 1 else None,
                markersize=5,
                solid_capstyle="round",
            )
        last, note = curves[-1], ""
        if best is not None:
            value = min(last.values) if best == "min" else max(last.values)
            epoch = last.epochs[last.values.index(value)]
            note = f", best {value:.3f} at epoch {epoch:g}"
            axes.plot([epoch], [value], "o", color=LOUD, markersize=6)
            axes.annotate(
                f"{value:.3f}",
                (epoch, value),
                xytext=(0, -14 if best == "min" else 8),
                textcoords="offset points",
                ha="center",
                color=INK,
                gid="best",
            )
        axes.margins(y=0.18)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.set_xlabel("epoch", color=INK)
        axes.grid(axis="y", color=RULE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(RULE)
        axes.tick_params(length=0, labelcolor=INK)
        if len(curves) > 1:
            axes.legend(frameon=False, labelcolor=INK, handlelength=1.2, borderaxespad=0.2)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    spoken = f"{title} by epoch: {'; '.join(one.ends for one in curves)}{note}"
    return _inline(buffer.getvalue(), name, spoken)


def _inline(svg: str, name: str, spoken: str) -> str:
    """What matplotlib wrote, as an element of an HTML page."""
    svg = svg[svg.index("<svg") :]
    # The style sheet in it would hold for the whole page.
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)
    head = f'<svg class="chart" role="img" {box.group() if box else ""}'
    svg = f'{head} aria-label="{escape(spoken)}">' + svg[svg.index(">") + 1 :]
    for old in (r'\bid="', r'xlink:href="#', r"url\(#"):
        svg = re.sub(f"({old})", rf"\g<1>{name}-", svg)
    # The page's own font; matplotlib names a row of families in each text.
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    for drawn, own in PAGE_COLOURS.items():
        svg = svg.replace(drawn, own)
    return svg.strip()

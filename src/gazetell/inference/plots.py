"""Plots of an evaluation of answers: reliability, and risk against coverage."""

import os
from typing import TYPE_CHECKING

from ..files import atomic_path
from ..metrics import Reliability, RiskCoverage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["save_reliability", "save_risk_coverage"]

INK, ACCENT, QUIET = "#262421", "#c2540a", "#969189"


def save_reliability(path: str | os.PathLike[str], found: Reliability) -> None:
    """Accuracy by confidence, with how many answers each bin holds, as a PNG.

    Raises:
        WriteError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    width = float(found.edges[1] - found.edges[0])
    middle = found.edges[:-1] + width / 2
    filled = found.count > 0
    top.plot([0, 1], [0, 1], color=QUIET, linewidth=1)
    top.bar(middle[filled], found.accuracy[filled], width * 0.92, color=ACCENT, alpha=0.85)
    top.plot(
        found.confidence[filled], found.accuracy[filled], "o", color=INK, markersize=4, zorder=3
    )
    top.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title="Is a confidence what it says?")
    bottom.bar(middle, found.count, width * 0.92, color=QUIET)
    bottom.set(xlabel="confidence", ylabel="answers")
    _save(path, figure)


def save_risk_coverage(path: str | os.PathLike[str], found: RiskCoverage) -> None:
    """Share of wrong answers by the share of questions answered, surest first, as a PNG.

    Raises:
        WriteError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(found.coverage, found.risk, color=ACCENT)
    axes.axhline(float(found.risk[-1]), color=QUIET, linewidth=1)
    axes.set(
        xlim=(0, 1),
        ylim=(0, None),
        xlabel="coverage: share of questions answered, surest first",
        ylabel="risk: share of wrong answers",
        title=f"What abstaining buys (area {found.area:.3f})",
    )
    _save(path, figure)


def _save(path: str | os.PathLike[str], figure: "Figure") -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)

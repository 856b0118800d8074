"""A table of results as Markdown."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from .plan import Plan

__all__ = ["HEADER", "line", "page"]

COLUMNS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr")
KEYS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider")
NAMES = ("model", "seed", "beam", *COLUMNS, "parameters", "training", "captions/s", "pictures/s")
HEADER = f"| {' | '.join(NAMES)} |\n|{'---|' * len(NAMES)}"


def line(entry: dict[str, Any]) -> str:
    """The row of one run at one beam."""
    figures = entry["figures"]
    seconds = entry.get("training_seconds")
    cells = [
        entry["row"],
        str(entry["seed"]) if "parameters" in entry else "",
        "greedy" if entry["beam"] == 1 else str(entry["beam"]),
        *(_percent(figures["metrics"].get(key)) for key in KEYS),
        f"{entry['parameters'] / 1e6:.1f} M" if "parameters" in entry else "",
        f"{seconds / 60:.1f} min" if seconds else "",
        f"{entry['captions_per_second']:,.0f}" if seconds else "",
        f"{figures['decoding_pictures_per_second']:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def page(plan: Plan, found: Sequence[dict[str, Any]], differences: Sequence[dict[str, Any]]) -> str:
    """The whole table, the spread over seeds, the published rows and the comparisons."""
    lines = [f"# {plan.title}", "", HEADER, *(line(entry) for entry in found), ""]
    spreads = [text for row in plan.rows if (text := _spread(row.name, found))]
    if spreads:
        lines += ["Over the seeds, mean and standard deviation:", "", *spreads, ""]
    if plan.published:
        lines += ["| published | BLEU-1..4 | METEOR | CIDEr |", "|---|---|---|---|"]
        keys = ("name", "bleu", "meteor", "cider")
        lines += [f"| {' | '.join(row.get(k, '') for k in keys)} |" for row in plan.published]
        lines.append("")
    if differences:
        lines += [
            "Differences (first less second, the first run of each; 95 % interval of a paired "
            "bootstrap over pictures):",
            "",
            "| first | second | beam | BLEU-4 | CIDEr |",
            "|---|---|---|---|---|",
            *(_difference(one) for one in differences),
            "",
        ]
    return "\n".join(lines)


def _spread(name: str, found: Sequence[dict[str, Any]]) -> str:
    """A row's figures over its seeds, at each beam; empty for a single seed."""
    texts = []
    for beam in dict.fromkeys(entry["beam"] for entry in found):
        own = [e["figures"]["metrics"] for e in found if (e["row"], e["beam"]) == (name, beam)]
        if len(own) < 2:
            continue
        parts = []
        for key, title in (("bleu_4", "BLEU-4"), ("cider", "CIDEr")):
            values = [100 * metrics[key] for metrics in own if metrics[key] is not None]
            if len(values) < 2:
                continue
            parts.append(f"{title} {mean(values):.1f} ± {stdev(values):.1f}")
        texts.append(f"- {name}, beam {beam}, {len(own)} seeds: {', '.join(parts)}")
    return "\n".join(texts)


def _difference(one: dict[str, Any]) -> str:
    cells = [*one["rows"], str(one["beam"])]
    for key in ("bleu_4", "cider"):
        value = one["metrics"][key]
        text = f"{100 * value['difference']:+.1f} [{100 * value['low']:+.1f}, "
        text += f"{100 * value['high']:+.1f}]"
        cells.append(f"**{text}**" if value["significant"] else f"{text}: none shown")
    return f"| {' | '.join(cells)} |"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"

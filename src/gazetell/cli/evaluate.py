"""``gazetell evaluate``."""

from pathlib import Path
from typing import Any

from ..data.records import Dataset
from ..inference.evaluate import evaluate as measure
from ..inference.predictor import load
from ..models.checkpoint import update_metrics
from .terminal import on_terminal, print_json, report

__all__ = ["evaluate", "figure_lines"]


def evaluate(
    run: Path,
    *,
    data: Path,
    split: str = "test",
    beam: int | None = None,
    max_length: int | None = None,
    length_penalty: float | None = None,
    limit: int = 0,
    java: bool = False,
    json: bool = False,
    out: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> None:
    """Measure a trained model on a split of a prepared dataset.

    Args:
        run: A model folder.
        data: A prepared dataset.
        split: Of the dataset.
        beam: Beam of the search, 1 for greedy; the model's own if not given.
        max_length: Most words of a caption; the model's own if not given.
        length_penalty: Exponent of the length normalisation; the model's own if not given.
        limit: Only the first so many pictures; 0 for all.
        java: Also METEOR and SPICE, where Java and pycocoevalcap are there.
        json: Print one JSON object instead of lines.
        out: Folder for predictions.jsonl and metrics.json; RUN/evaluation/SPLIT-beamK if not given.
        device: auto, cpu or cuda.
        precision: auto, bf16 or fp32.
    """
    model = load(run, device=device, precision=precision)
    given: dict[str, Any] = {
        "beam": beam,
        "max_length": max_length,
        "length_penalty": length_penalty,
    }
    result = measure(
        model,
        Dataset.open(data),
        split=split,
        limit=limit,
        java=java,
        progress=on_terminal(),
        **{key: value for key, value in given.items() if value is not None},
    )
    folder = out or run / "evaluation" / f"{split}-beam{result.figures['beam']}"
    result.save(folder)
    if out is None and not limit:
        update_metrics(run, result.figures)
    report(f"predictions and figures in {folder}")
    if json:
        print_json(result.figures)
    else:
        print("\n".join(figure_lines(result.figures)))


def figure_lines(figures: dict[str, Any]) -> list[str]:
    """The figures of an evaluation as plain lines."""

    def shown(value: Any) -> str:
        if value is None:
            return "not computed"
        return f"{value:.4f}" if isinstance(value, float) else str(value)

    lines = [f"{name:<12} {shown(value)}" for name, value in figures["metrics"].items()]
    plain = ("pictures", "beam", "distinct", "unseen", "vocabulary", "mean_length")
    lines += [f"{name:<12} {shown(figures[name])}" for name in plain]
    if human := figures["human"]:
        lines.append(
            f"{'human':<12} CIDEr {shown(human['cider'])} of one reference against the others; "
            f"the model's against those {shown(human['model_cider'])}"
        )
    if pointing := figures["pointing"]:
        lines.append(
            f"{'pointing':<12} {shown(pointing['score'])}, by chance {shown(pointing['chance'])} "
            f"({pointing['words']} words that name a box)"
        )
    if figures["truth"] is not None:
        lines.append(f"{'truth':<12} {shown(figures['truth'])} of the captions are true")
    return lines

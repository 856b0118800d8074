"""``gazetell evaluate``."""

from itertools import product
from pathlib import Path
from typing import Any

from ..data.records import Dataset
from ..errors import UsageError
from ..inference.evaluate import Evaluation
from ..inference.evaluate import evaluate as measure
from ..inference.predictor import load
from ..models.checkpoint import update_decoding, update_metrics
from .terminal import on_terminal, print_json, report

__all__ = ["evaluate", "figure_lines"]


def evaluate(
    *runs: Path,
    data: Path,
    split: str = "test",
    beam: tuple[int, ...] = (),
    max_length: int | None = None,
    length_penalty: tuple[float, ...] = (),
    keep_best: bool = False,
    limit: int = 0,
    java: bool = False,
    json: bool = False,
    out: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> None:
    """Measure a trained model, or several together, on a split of a prepared dataset.

    Args:
        runs: A model folder; several are an ensemble, their probabilities averaged.
        data: A prepared dataset.
        split: Of the dataset.
        beam: Beam of the search, 1 for greedy; the model's own if not given. Give it several times
            to compare.
        max_length: Most words of a caption; the model's own if not given.
        length_penalty: Exponent of the length normalisation; the model's own if not given. Give it
            several times to compare.
        keep_best: Make the setting with the best CIDEr the model's own; not with --split test.
        limit: Only the first so many pictures; 0 for all.
        java: Also METEOR and SPICE, where Java and pycocoevalcap are there.
        json: Print one JSON object instead of lines; a list of them for several settings.
        out: Folder for predictions.jsonl and metrics.json; RUN/evaluation/SPLIT-beamK if not given.
        device: auto, cpu or cuda.
        precision: auto, bf16 or fp32.
    """
    if not runs:
        raise UsageError("expected a model folder")
    if keep_best and (split == "test" or len(runs) > 1):
        raise UsageError("--keep-best: expected one model and --split val; test is for the end")
    model = load(*runs, device=device, precision=precision)
    settings = list(product(beam or (None,), length_penalty or (None,)))
    if out is not None and len(settings) > 1:
        raise UsageError("--out: expected one beam and one length penalty")
    results: list[Evaluation] = []
    dataset = Dataset.open(data)
    for beams, penalty in settings:
        given: dict[str, Any] = {"beam": beams, "max_length": max_length, "length_penalty": penalty}
        result = measure(
            model,
            dataset,
            split=split,
            limit=limit,
            java=java,
            progress=on_terminal(),
            **{key: value for key, value in given.items() if value is not None},
        )
        folder = out or runs[0] / "evaluation" / _name(result.figures, len(length_penalty) > 1)
        result.save(folder)
        report(f"predictions and figures in {folder}")
        results.append(result)
    best = max(results, key=lambda result: result.figures["metrics"]["cider"] or 0.0)
    if keep_best:
        chosen = best.figures
        kept = model.options(beam=chosen["beam"], length_penalty=chosen["length_penalty"])
        update_decoding(runs[0], kept)
        report(f"kept: beam {kept.beam}, length penalty {kept.length_penalty}")
    if (len(results) == 1 or keep_best) and out is None and not limit and len(runs) == 1:
        update_metrics(runs[0], best.figures)
    figures = [result.figures for result in results]
    if json:
        print_json(figures[0] if len(figures) == 1 else figures)
    else:
        print("\n".join(figure_lines(figures[0]) if len(figures) == 1 else setting_lines(figures)))


def _name(figures: dict[str, Any], penalties: bool) -> str:
    """The folder of an evaluation."""
    name = f"{figures['split']}-beam{figures['beam']}"
    if penalties:
        name += f"-penalty{figures['length_penalty']}"
    return name if figures["members"] == 1 else f"{name}-ensemble{figures['members']}"


def setting_lines(figures: list[dict[str, Any]]) -> list[str]:
    """A table with a row a setting, the best CIDEr marked."""
    best = max(one["metrics"]["cider"] or 0.0 for one in figures)
    lines = ["beam  penalty  bleu_4  rouge_l  cider   words  pictures/s"]
    for one in figures:
        metrics = one["metrics"]
        mark = "  best CIDEr" if metrics["cider"] == best else ""
        lines.append(
            f"{one['beam']:<4}  {one['length_penalty']:<7}  {metrics['bleu_4']:.4f}  "
            f"{metrics['rouge_l']:.4f}   {metrics['cider']:.4f}  {one['mean_length']:5.1f}  "
            f"{one['decoding_pictures_per_second']:.0f}{mark}"
        )
    return lines


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

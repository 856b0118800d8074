"""``gazetell evaluate``."""

from itertools import product
from pathlib import Path
from typing import Any

from ..data.records import Dataset
from ..errors import UsageError
from ..inference.answering import Answerer
from ..inference.evaluate import Evaluation
from ..inference.evaluate import evaluate as measure
from ..inference.evaluate_answers import evaluate_answers
from ..inference.predictor import load
from ..models.folder import update_decoding, update_metrics
from .figures import answer_lines, figure_lines, setting_lines
from .terminal import on_terminal, print_json, report

__all__ = ["evaluate"]


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
    abstain_below: float = 0.0,
    evidence: bool = False,
    question_only: Path | None = None,
    json: bool = False,
    out: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> None:
    """Measure a trained model, or several together, on a split of a prepared dataset.

    Args:
        runs: A model folder; several captioners are an ensemble, their probabilities averaged.
        data: A prepared dataset.
        split: Of the dataset.
        beam: Of captions: beam of the search, 1 for greedy; the model's own if not given. Give it
            several times to compare.
        max_length: Of captions: most words; the model's own if not given.
        length_penalty: Of captions: exponent of the length normalisation; the model's own if not
            given. Give it several times to compare.
        keep_best: Of captions: make the setting with the best CIDEr the model's own; not with
            --split test.
        limit: Only the first so many pictures; 0 for all.
        java: Of captions: also METEOR and SPICE, where Java and pycocoevalcap are there.
        abstain_below: Of answers: also the accuracy of those with at least this confidence.
        evidence: Of answers: also ask about a plain grey picture and about another picture.
        question_only: Of answers: compare with this model, trained with --blind.
        json: Print one JSON object instead of lines; a list of them for several settings.
        out: Folder for predictions.jsonl and metrics.json; RUN/evaluation/SPLIT-beamK (SPLIT for
            answers) if not given.
        device: auto, cpu or cuda.
        precision: auto, bf16 or fp32.
    """
    if not runs:
        raise UsageError("expected a model folder")
    if keep_best and (split == "test" or len(runs) > 1):
        raise UsageError("--keep-best: expected one model and --split val; test is for the end")
    model = load(*runs, device=device, precision=precision)
    answers = isinstance(model, Answerer)
    refuse(
        {
            "--beam": beam,
            "--max-length": max_length,
            "--length-penalty": length_penalty,
            "--keep-best": keep_best,
            "--java": java,
        }
        if answers
        else {
            "--abstain-below": abstain_below,
            "--evidence": evidence,
            "--question-only": question_only,
        },
        f"{runs[0]} {'answers questions' if answers else 'captions'}",
    )
    if isinstance(model, Answerer):
        answered = evaluate_answers(
            model,
            Dataset.open(data),
            split=split,
            limit=limit,
            abstain_below=abstain_below,
            evidence=evidence,
            question_only=_twin(question_only, device, precision) if question_only else None,
            progress=on_terminal(),
        )
        folder = out or runs[0] / "evaluation" / split
        answered.save(folder)
        report(f"predictions, figures and plots in {folder}")
        if out is None and not limit:
            update_metrics(runs[0], answered.figures)
        if json:
            print_json(answered.figures)
        else:
            print("\n".join(answer_lines(answered.figures)))
        return
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


def _twin(run: Path, device: str, precision: str) -> Answerer:
    """A model that was trained without pictures."""
    twin = Answerer.load(run, device=device, precision=precision)
    if not twin.answerer.options.blind:
        raise UsageError(
            f"--question-only {run}: looks at the picture; expected a model trained with --blind"
        )
    return twin


def refuse(options: dict[str, Any], why: str) -> None:
    """Refuse options that are of the other kind of model.

    Raises:
        UsageError: one of them was given.
    """
    for name, value in options.items():
        if value not in (None, (), False, 0.0):
            raise UsageError(f"{name}: {why}; that option is of the other kind of model")


def _name(figures: dict[str, Any], penalties: bool) -> str:
    """The folder of an evaluation."""
    name = f"{figures['split']}-beam{figures['beam']}"
    if penalties:
        name += f"-penalty{figures['length_penalty']}"
    return name if figures["members"] == 1 else f"{name}-ensemble{figures['members']}"

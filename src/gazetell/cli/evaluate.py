"""``gazetell evaluate``."""

from itertools import product
from pathlib import Path
from typing import Any

from ..data.records import Dataset
from ..errors import UsageError
from ..inference.evaluate import Evaluation, evaluate_answers, scored_records
from ..inference.evaluate import evaluate as measure
from ..inference.predict import Answerer, Captioner, load
from ..metrics import cider_problem
from ..models.folder import update_decoding, update_metrics
from .caption import given
from .terminal import on_terminal, print_json, report, report_device

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
            --split test, nor where CIDEr cannot choose.
        limit: Only the first so many pictures; 0 for all.
        java: Of captions: also METEOR and SPICE, where Java and pycocoevalcap are there.
        abstain_below: Of answers: also the accuracy of those with at least this confidence.
        evidence: Of answers: also ask about a plain grey picture and about another picture.
        question_only: Of answers: compare with this model, trained with --blind.
        json: Print one JSON object instead of lines; a list of them for several settings.
        out: Folder for predictions.jsonl and metrics.json; RUN/evaluation/SPLIT-beamK (SPLIT for
            answers; the other options too) if not given.
        device: auto, cpu or cuda.
        precision: auto, bf16 or fp32.
    """
    if not runs:
        raise UsageError("expected a model folder")
    if keep_best and (split == "test" or len(runs) > 1):
        raise UsageError("--keep-best: expected one model and --split val; test is for the end")
    if keep_best and not (beam or length_penalty or max_length):
        raise UsageError("--keep-best: expected --beam, --length-penalty or --max-length to keep")
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
        twin = _twin(question_only, device, precision) if question_only else None
        answered = evaluate_answers(
            model,
            Dataset.open(data),
            split=split,
            limit=limit,
            abstain_below=abstain_below,
            evidence=evidence,
            question_only=twin,
            progress=on_terminal(),
        )
        folder = out or runs[0] / "evaluation" / f"{split}{_limited(limit)}"
        answered.save(folder)
        report_device(model, device, precision)
        report(f"predictions, figures and plots in {folder}")
        if out is None and not limit:
            update_metrics(runs[0], answered.figures)
        if json:
            print_json(answered.figures)
        else:
            print("\n".join(answer_lines(answered.figures)))
        return
    settings = _settings(model, beam, length_penalty, max_length)
    if out is not None and len(settings) > 1:
        raise UsageError("--out: expected one beam and one length penalty")
    dataset = Dataset.open(data)
    if keep_best:
        references = {r.id: r.captions for r in scored_records(dataset, split, limit)}
        if problem := cider_problem(references):
            raise UsageError(f"--keep-best: nothing to choose by: {problem}")
    results: list[Evaluation] = []
    for setting in settings:
        result = measure(
            model,
            dataset,
            split=split,
            limit=limit,
            java=java,
            progress=on_terminal(),
            **setting,
        )
        folder = out or runs[0] / "evaluation" / _name(result.figures, setting, limit)
        result.save(folder)
        report(f"predictions and figures in {folder}")
        results.append(result)
    report_device(model, device, precision)
    best = max(range(len(results)), key=lambda n: results[n].figures["metrics"]["cider"] or 0.0)
    figures = results[best].figures
    if keep_best:
        kept = model.options(**settings[best])
        update_decoding(runs[0], kept)
        report(
            f"kept: beam {kept.beam}, length penalty {kept.length_penalty}, "
            f"max length {kept.max_length}"
        )
    if len(runs) == 1 and out is None and not limit and (len(results) == 1 or keep_best):
        if keep_best or max_length in (None, model.decoding.max_length):
            update_metrics(runs[0], figures)
        else:
            report(f"not on the model's card: measured with --max-length {max_length}, not its own")
    every = [result.figures for result in results]
    if json:
        print_json(every[0] if len(every) == 1 else every)
    else:
        print("\n".join(figure_lines(every[0]) if len(every) == 1 else setting_lines(every)))


def _settings(
    model: Captioner,
    beams: tuple[int, ...],
    penalties: tuple[float, ...],
    max_length: int | None,
) -> list[dict[str, Any]]:
    """The decoding options of each evaluation; a beam of 1 has no length penalty.

    Raises:
        UsageError: an option out of its range, or without effect.
    """
    settings: list[dict[str, Any]] = []
    own = model.decoding.beam
    searched = any((beam or own) > 1 for beam in (beams or (own,)))
    for beam, penalty in product(beams or (None,), penalties or (None,)):
        if searched and (own if beam is None else beam) == 1:
            penalty = None
        setting = given(beam=beam, max_length=max_length, length_penalty=penalty)
        model.options(**setting)
        if setting not in settings:
            settings.append(setting)
    return settings


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


def _name(figures: dict[str, Any], setting: dict[str, Any], limit: int) -> str:
    """The folder of an evaluation: two that differ in their options have two."""
    name = f"{figures['split']}-beam{figures['beam']}"
    if "length_penalty" in setting:
        name += f"-penalty{setting['length_penalty']}"
    if "max_length" in setting:
        name += f"-words{setting['max_length']}"
    if figures["members"] > 1:
        name += f"-ensemble{figures['members']}"
    return name + _limited(limit)


def _limited(limit: int) -> str:
    return f"-first{limit}" if limit else ""


MOST_TYPES = 12  # with more types of questions the table is left to --json


def setting_lines(figures: list[dict[str, Any]]) -> list[str]:
    """A table with a row a setting, the best CIDEr marked."""
    best = max(one["metrics"]["cider"] or 0.0 for one in figures)
    lines = ["beam  penalty  bleu_4  rouge_l  cider   words  pictures/s"]
    for one in figures:
        metrics = one["metrics"]
        mark = "  best CIDEr" if metrics["cider"] == best else ""
        penalty = "-" if one["length_penalty"] is None else one["length_penalty"]
        lines.append(
            f"{one['beam']:<4}  {penalty:<7}  {metrics['bleu_4']:.4f}  "
            f"{metrics['rouge_l']:.4f}   {shown(metrics['cider']):<6}  {one['mean_length']:5.1f}  "
            f"{one['decoding_pictures_per_second']:.0f}{mark}"
        )
    return lines + reasons(figures[0])


def figure_lines(figures: dict[str, Any]) -> list[str]:
    """The figures of an evaluation of captions."""
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
    if figures["cut"]:
        lines.append(
            f"{'cut':<12} {shown(figures['cut'])} of them at {figures['max_length']} words"
        )
    return lines + reasons(figures)


def answer_lines(figures: dict[str, Any]) -> list[str]:
    """The figures of an evaluation of answers."""
    metrics, bias, selective = figures["metrics"], figures["bias"], figures["selective"]
    lines = [
        f"{'accuracy':<16} {metrics['accuracy']:.2f}  ({figures['measure']}, "
        f"{figures['questions']} questions about {figures['pictures']} pictures)"
    ]
    for kind in ("answer_type", "question_type"):
        types = figures[f"per_{kind}"]
        if 0 < len(types) <= MOST_TYPES:
            shares = ", ".join(f"{name} {value:.2f}" for name, value in types.items())
            lines.append(f"{kind.replace('_', ' '):<16} {shares}")
    if bias["prefix"] is not None:
        lines += [
            f"{'most frequent':<16} {percent(bias['most_frequent'])}  "
            f"(always {bias['most_frequent_answer']!r})",
            f"{'by first words':<16} {percent(bias['prefix'])}  "
            "(most frequent by the first two words)",
        ]
    if twin := figures["question_only"]:
        verdict = "a difference" if twin["significant"] else "no difference shown"
        interval = f"95 % interval {twin['low']:+.2f} to {twin['high']:+.2f}: {verdict}"
        lines.append(
            f"{'question only':<16} {twin['accuracy']:.2f}  "
            f"(the model is {twin['difference']:+.2f}, {interval})"
        )
    lines.append(f"{'ceiling':<16} {bias['ceiling']:.2f}  (the best answers of its vocabulary)")
    if evidence := figures["evidence"]:
        for name, title in (("blank", "grey picture"), ("other_picture", "other picture")):
            one = evidence[name]
            if one is None:
                continue
            lines.append(
                f"{title:<16} {one['accuracy']:.2f}  (loses {one['lost']:.2f}; "
                f"{100 * one['changed']:.1f} % of the answers change)"
            )
    at = ", ".join(
        f"{100 * float(share):.0f} %: {percent(value)}"
        for share, value in selective["accuracy_at_coverage"].items()
    )
    if metrics["ece"] is not None:
        temperature = f"at temperature {figures['temperature']:.3f}"
        lines.append(f"{'calibration':<16} ECE {metrics['ece']:.4f} {temperature}")
    lines += [
        f"{'answering only':<16} {at}  (the surest share of the questions: accuracy)",
    ]
    if selective["abstain_below"]:
        lines.append(
            f"{'abstaining':<16} below {selective['abstain_below']}: answers "
            f"{100 * selective['coverage']:.1f} %, accuracy {percent(selective['accuracy'])}"
        )
    if pointing := figures["pointing"]:
        scores = ", ".join(f"pass {n}: {one['score']:.4f}" for n, one in enumerate(pointing, 1))
        lines.append(
            f"{'pointing':<16} {scores}; by chance {pointing[0]['chance']:.4f} "
            f"({pointing[0]['words']} questions about things)"
        )
    if wups := figures["wups"]:
        values = ", ".join(
            f"{threshold}: {shown(value)}"
            for threshold, value in wups.items()
            if threshold != "reason"
        )
        lines.append(f"{'WUPS':<16} {values}" + (f"  ({wups['reason']})" if wups["reason"] else ""))
    lines.append(f"{'answers/s':<16} {figures['answers_per_second']}")
    return lines + reasons(figures)


def reasons(figures: dict[str, Any]) -> list[str]:
    """Which figures cannot be known, and why."""
    return [f"not measured: {name} ({why})" for name, why in figures["not_measured"].items()]


def percent(value: float | None) -> str:
    """An accuracy in 0 to 100, or that there is none."""
    return "not computed" if value is None else f"{value:.2f}"


def shown(value: Any) -> str:
    """A figure, or that there is none."""
    if value is None:
        return "not computed"
    return f"{value:.4f}" if isinstance(value, float) else str(value)

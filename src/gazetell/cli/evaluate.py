"""``gazetell evaluate``: measures, keeps the results in the run folder, prints the figures."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.records import Dataset
from ..errors import DataError, UsageError
from ..files import check_models, read_json, read_jsonl, write_json
from ..inference.figures import compare
from ..metrics import TITLES, cider_problem, points
from ..models.search import check_ranges
from .score import comparison
from .terminal import HERE, Decoding, Here, on_terminal, print_json, report

if TYPE_CHECKING:
    from ..inference.evaluate import Evaluation
    from ..inference.predict import Answerer, Captioner

# In the name of a folder.
SHORT = {"length_penalty": "penalty", "max_length": "words", "min_length": "least"}
SHORT |= {"no_repeat_ngram": "ngram", "beam_groups": "groups", "diversity": "diversity"}
MOST_TYPES = 12  # with more types of questions the table is left to --json


def evaluate(
    *runs: str,
    data: Path,
    split: str = "test",
    beam: tuple[int, ...] = (),
    max_length: int | None = None,
    length_penalty: tuple[float, ...] = (),
    min_length: int | None = None,
    no_repeat_ngram: int | None = None,
    beam_groups: int | None = None,
    diversity: float | None = None,
    keep_best: bool = False,
    calibrate: bool = False,
    limit: int = 0,
    java: bool = False,
    abstain_below: float | None = None,
    evidence: bool = False,
    question_only: str | None = None,
    against: str | None = None,
    json: bool = False,
    out: Path | None = None,
    computing: Here = HERE,
) -> None:
    """Measure a trained model, or several together, on a split of a prepared dataset.

    Args:
        runs: A model folder, hf://owner/name, or photo, which comes with gazetell; several
            captioners are an ensemble, their probabilities averaged.
        data: A prepared dataset.
        split: Split of the dataset to measure.
        beam: Captions: beam of the search, 1 for greedy; the model's own if not given. Give it
            several times to compare.
        max_length: Captions: maximum number of words; the model's own if not given.
        length_penalty: Captions: exponent of the length normalisation; the model's own if not
            given. Give it several times to compare.
        min_length: Captions: minimum number of words; the model's own if not given.
        no_repeat_ngram: Captions: never repeat a sequence of N words, 0 for no limit; the
            model's own if not given.
        beam_groups: Captions: search in N groups that avoid each other's words.
        diversity: Captions: how much log-probability a word loses for each earlier group's prefix
            that took it; 0.5 if not given.
        keep_best: Captions: make the setting with the best CIDEr the model's own; not with --split
            test, nor where CIDEr cannot choose.
        calibrate: First fit again, on the training and validation splits, and keep in the model
            folder: the confidence of captions, or the bound to abstain below; and which pictures
            are unlike the training pictures.
        limit: Use only the first N pictures; 0 for all.
        java: Captions: also METEOR and SPICE, where Java and pycocoevalcap are there.
        abstain_below: Answers: also the accuracy of those with at least this confidence; the
            model's own bound if not given.
        evidence: Answers: also ask about a plain grey picture and about another picture.
        question_only: Answers: compare with this model, trained with --blind.
        against: Another model of the same kind: both scores, and the 95 % interval of their
            difference by the paired bootstrap. Its earlier predictions of the split are used again.
        json: Print one JSON object instead of lines; a list of them for several settings.
        out: Folder for predictions.jsonl and metrics.json; RUN/evaluation/SPLIT-beamK (SPLIT for
            answers; the other options too) if not given. Without it nothing is kept of a model
            that lies in no folder of yours.
        computing: Where.
    """
    if not runs:
        raise UsageError("expected a model folder")
    if keep_best and (split == "test" or len(runs) > 1):
        raise UsageError(
            "--keep-best: expected one model and --split val; test must not choose options"
        )
    more = {
        "max_length": max_length,
        "min_length": min_length,
        "no_repeat_ngram": no_repeat_ngram,
        "beam_groups": beam_groups,
        "diversity": diversity,
    }
    more = {name: value for name, value in more.items() if value is not None}
    if keep_best and not (beam or length_penalty or more):
        raise UsageError("--keep-best: expected --beam, --length-penalty or --max-length to keep")
    if keep_best and beam_groups is not None:
        raise UsageError("--keep-best: has no effect on --beam-groups, which no model keeps")
    for name, values in {"beam": beam, "length_penalty": length_penalty}.items():
        for value in values:
            check_ranges({name: value})
    check_ranges(more)
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; expected a folder")
    if out is not None and (out / "config.json").exists():
        raise UsageError(f"--out {out}: holds a model with a metrics.json; expected another folder")
    given: dict[str, dict[str, Any]] = {
        "captions": {
            "--beam": beam,
            "--length-penalty": length_penalty,
            **{f"--{name.replace('_', '-')}": value for name, value in more.items()},
            "--keep-best": keep_best,
            "--java": java,
        },
        "answers questions": {
            "--abstain-below": abstain_below,
            "--evidence": evidence,
            "--question-only": question_only,
        },
    }
    if against is not None and against in runs:
        raise UsageError(f"--against {against}: is the model itself; expected another")
    check_models(*runs, *filter(None, [against, question_only]))
    dataset, where = Dataset.open(data), vars(computing)
    from ..inference import evaluate as measuring
    from ..inference.calibrate import calibrate_and_keep
    from ..inference.load import Pair, load, load_answerer
    from ..inference.predict import Answerer, Captioner
    from ..models.folder import fetch, update_metrics, update_settings

    own = _is_own(runs[0])
    if keep_best and not own:
        raise UsageError(f"--keep-best: {runs[0]} is not a model folder of yours")
    if calibrate and (len(runs) > 1 or split == "val" or not own):
        why = "expected one model folder, and a --split other than val, which the fit uses"
        raise UsageError(f"--calibrate: {why}")
    model = load(*runs, **where)
    if isinstance(model, Pair):
        if dataset.captions and dataset.questions:
            report(f"{data}: its captions are measured; for questions evaluate {runs[0]}/answerer")
        model = model.captioner if dataset.captions else model.answerer
    home = fetch(runs[0], "captioner" if isinstance(model, Captioner) else "answerer")
    does = _does(model)
    second: Any = None if against is None else load(against, **where)
    if isinstance(second, Pair):
        second = second.captioner if isinstance(model, Captioner) else second.answerer
    if second and _does(second) != does:
        raise UsageError(f"--against {against}: {_does(second)}; expected a model that {does}")
    for kind, options in given.items():
        for name, value in options.items():
            if kind != does and not (value is None or value is False or value == ()):
                raise UsageError(f"{name}: has no effect, since {runs[0]} {does}")
    if calibrate:
        report(calibrate_and_keep(model, home, dataset, progress=on_terminal()))
    _tell_trained_on(home, dataset, split)
    common: dict[str, Any] = {"split": split, "limit": limit, "progress": on_terminal()}
    shared = dict(common)
    results: dict[str, Evaluation[Any, Any]] = {}
    settings: list[dict[str, Any]] = [{}]
    if isinstance(model, Answerer):
        twin = load_answerer(question_only, **where) if question_only else None
        if twin and not twin.blind:
            raise UsageError(
                f"--question-only {question_only}: looks at the picture; expected a model trained "
                "with --blind"
            )
        shared |= {"abstain_below": abstain_below, "evidence": evidence, "question_only": twin}
        results[_folder(model, {}, split, limit)] = measuring.evaluate_answers(
            model, dataset, **shared
        )
    else:
        settings = _settings(model, beam, length_penalty, more)
        if out is not None and len(settings) > 1:
            raise UsageError("--out: expected one beam and one length penalty")
        if against is not None and len(settings) > 1:
            raise UsageError("--against: expected one beam and one length penalty")
        if keep_best:
            references = {r.id: r.captions for r in measuring.scored_records(dataset, split, limit)}
            if problem := cider_problem(references):
                raise UsageError(f"--keep-best: CIDEr cannot choose: {problem}")
        for setting in settings:
            result = measuring.evaluate(model, dataset, java=java, **shared, **setting)
            results[_folder(model, setting, split, limit)] = result
    if out is None and not own:
        report(
            f"predictions are not kept: {runs[0]} is not a model folder of yours; --out keeps them"
        )
    for (name, result), setting in zip(results.items(), settings, strict=True):
        if out or own:
            folder = out or home / "evaluation" / name
            result.save(folder)
            report(f"predictions and figures in {folder}")
            if not out:
                of = _of(runs, model, dataset, setting)
                write_json(folder / "of.json", of | {"java": java})
    figures = [result.figures for result in results.values()]
    compared: dict[str, Any] = {}
    if against is not None and second:
        (result,) = results.values()
        said = result.texts
        if len(said) < 2:
            raise UsageError("--against: expected two pictures or questions to compare on, or more")
        other = _said(against, second, dataset, settings[0], common, list(said))
        compared = compare(result.records, said, other)
    best = max(range(len(figures)), key=lambda n: figures[n]["metrics"].get("cider") or 0.0)
    if keep_best and isinstance(model, Captioner):
        kept = model.options(**settings[best])
        update_settings(home, {"decoding": kept})
        penalty, words = kept.length_penalty, kept.max_length
        limits = f"min length {kept.min_length}, no repeated n-gram {kept.no_repeat_ngram}"
        report(f"kept: beam {kept.beam}, length penalty {penalty}, max length {words}, {limits}")
    # The card tells of the model as it is, on the whole split.
    if own and len(runs) == 1 and out is None and not limit and (len(figures) == 1 or keep_best):
        if more and not keep_best:
            given_ = f"--{next(iter(more)).replace('_', '-')}"
            report(f"not on the model's card: measured with a {given_} that is not its own")
        elif model.encoder.config.fit != model.own_fit:
            report("not on the model's card: measured with a --fit that is not its own")
        else:
            update_metrics(home, figures[best])
    if json:
        metrics = {name: asdict(difference) for name, difference in compared.items()}
        beside = {"against": {"model": against, "metrics": metrics}} if compared else {}
        print_json(figures[0] | beside if len(figures) == 1 else figures)
        return
    lines = _settings_table(figures) if len(figures) > 1 else _LINES[does](figures[0])
    lines += [f"not measured: {n} ({why})" for n, why in figures[0]["not_measured"].items()]
    if does == "captions" and not java:
        lines.append("not measured: meteor, spice (--java was not given)")
    if compared:
        lines += ["", *comparison(compared, " + ".join(runs), str(against))]
    print("\n".join(lines))


def calibrate(model: str, /, data: Path, *, limit: int = 0, computing: Here = HERE) -> None:
    """Fit how sure a model is, on the validation split of a prepared dataset, and keep it.

    Of captions that is their confidence; of answers the bound to abstain below; of both which
    pictures are unlike the training pictures. As gazetell evaluate --calibrate, without measuring.
    Of a large model it is the confidence of captions, the temperature of answers and the bound; a
    line says which file keeps them.

    Args:
        model: A model folder, or a large model also by hf://owner/name; of a captioner and
            answerer in one, what the dataset can fit.
        data: A prepared dataset with the splits train and val.
        limit: Use only the first N validation pictures; 0 for all.
        computing: Where.
    """
    check_models(model)
    dataset = Dataset.open(data)
    from ..inference.calibrate import calibrate_and_keep
    from ..inference.load import Pair, load
    from ..inference.predict import Captioner
    from ..models.folder import fetch
    from ..models.large import is_large

    large = is_large(fetch(model))
    if not (large or _is_own(model)):
        raise UsageError(f"{model}: is not a model folder of yours, where it could be kept")
    loaded = load(model, **vars(computing))
    some: list[Any] = [loaded]
    if isinstance(loaded, Pair):
        some = [loaded.captioner, loaded.answerer]
    fit = [x for x in some if (dataset.captions if isinstance(x, Captioner) else dataset.questions)]
    if not fit:
        what = "captions" if isinstance(some[0], Captioner) else "questions"
        raise UsageError(f"{data}: has no {what} to fit {model} to")
    failed: list[DataError] = []
    for one in fit:
        kind = "captioner" if isinstance(one, Captioner) else "answerer"
        home = Path() if large else fetch(model, kind)
        try:
            how: dict[str, Any] = {"limit": limit, "progress": on_terminal()}
            report(calibrate_and_keep(one, home, dataset, **how))
        except DataError as error:  # the other half of a pair may be fitted all the same
            failed.append(error)
    for other in failed[:-1]:
        report(f"error: {other}")
    if failed:
        raise failed[-1]


def _is_own(run: str) -> bool:
    """Whether a model lies in a folder of gazetell, which figures may be written to."""
    from ..models.folder import has_model
    from ..models.large import is_large

    return has_model(Path(run)) and not is_large(Path(run))


def _tell_trained_on(home: Path, dataset: Dataset, split: str) -> None:
    """Say that pictures to be measured on were trained on, as after another draw of the splits."""
    if split == "train" or not (home / "training.json").is_file():
        return
    made = read_json(home / "training.json")
    if dataset.fingerprint() == made.get("sha256"):
        return
    try:
        trained = Dataset.open(made["data"])
    except DataError:
        return
    if trained.fingerprint() != made.get("sha256"):
        if trained.folder == dataset.folder:
            report(f"{dataset.folder}: has changed since {home} was trained on it")
        return
    first, second = (
        {each.path(record).resolve() for record in each.records if record.split == name}
        for each, name in ((trained, "train"), (dataset, split))
    )
    if same := len(first & second):
        report(f"{home}: was trained on pictures of split {split!r}: {same} of {len(second)}")


def _does(model: "Captioner | Answerer") -> str:
    from ..inference.predict import Captioner

    return "captions" if isinstance(model, Captioner) else "answers questions"


def _of(
    runs: Sequence[str], model: "Captioner | Answerer", dataset: Dataset, setting: dict[str, Any]
) -> dict[str, Any]:
    """What predictions are of: with anything else they would be others."""
    from ..inference.describe import identity
    from ..inference.large import Large
    from ..inference.predict import Captioner
    from ..models.folder import fetch, read_config

    kind = "captioner" if isinstance(model, Captioner) else "answerer"
    if isinstance(model, Large):
        hashes = [identity(model)]
    else:
        configs = [read_config(fetch(run, kind)) for run in runs]
        hashes = [config["sha256"]["model.safetensors"] for config in configs]
    decoding = asdict(model.options(**setting)) if isinstance(model, Captioner) else None
    return {
        "models": hashes,
        "data": dataset.fingerprint(),
        "decoding": decoding,
        "precision": model.precision.name,
    }


def _said(
    run: str,
    model: "Captioner | Answerer",
    dataset: Dataset,
    setting: dict[str, Any],
    common: dict[str, Any],
    ids: Sequence[str],
) -> dict[str, str]:
    """What another model says of the records of these ids, read where it was kept."""
    from ..inference import evaluate as measuring
    from ..inference.predict import Captioner
    from ..models.folder import fetch

    captions = isinstance(model, Captioner)
    home = fetch(run, "captioner" if captions else "answerer") / "evaluation"
    folder = home / _folder(model, setting, common["split"], common["limit"])
    of = _of([run], model, dataset, setting)
    if (folder / "of.json").is_file() and of.items() <= read_json(folder / "of.json").items():
        rows = [row for _, row in read_jsonl(folder / "predictions.jsonl")]
        if [row["id"] for row in rows] == list(ids):
            report(f"--against: predictions of {folder} are used again")
            return {row["id"]: row["caption" if captions else "answer"] for row in rows}
    result: Evaluation[Any, Any]
    if isinstance(model, Captioner):
        result = measuring.evaluate(model, dataset, **common, **setting)
    else:
        result = measuring.evaluate_answers(model, dataset, **common)
    if _is_own(run) and not folder.exists():
        result.save(folder)
        write_json(folder / "of.json", of | {"java": False})
        report(f"--against: predictions and figures in {folder}")
    return result.texts


def _settings(
    model: "Captioner", beams: tuple[int, ...], penalties: tuple[float, ...], more: dict[str, Any]
) -> list[dict[str, Any]]:
    """The decoding options of each evaluation; a beam of 1 has no length penalty.

    Raises:
        UsageError: an option out of its range, or without effect.
    """
    settings: list[dict[str, Any]] = []
    own = model.decoding.beam
    searched = any((beam or own) > 1 for beam in (beams or (own,)))
    for beam, penalty in product(beams or (None,), penalties or (None,)):
        greedy = (own if beam is None else beam) == 1
        own_penalty = None if searched and greedy else penalty
        setting = Decoding(beam, length_penalty=own_penalty, **more).given()
        model.options(**setting)
        if setting not in settings:
            settings.append(setting)
    return settings


def _folder(model: "Captioner | Answerer", setting: dict[str, Any], split: str, limit: int) -> str:
    """The folder of an evaluation: two that differ in their options have two."""
    from ..inference.predict import Captioner

    name = split
    if isinstance(model, Captioner):
        name += f"-beam{model.options(**setting).beam}"
        for option, short in SHORT.items():
            name += f"-{short}{setting[option]}" if option in setting else ""
        name += f"-ensemble{model.members}" if model.members > 1 else ""
    name += f"-first{limit}" if limit else ""
    fit = model.encoder.config.fit
    return name if fit == model.own_fit else f"{name}-{fit}"


def _share(value: float | None) -> str:
    """A share in percent, or that there is none."""
    return "not computed" if value is None else f"{100 * value:.1f} %"


def _settings_table(figures: list[dict[str, Any]]) -> list[str]:
    """A row a setting, the best CIDEr marked."""
    best = max(one["metrics"]["cider"] or 0.0 for one in figures)
    lines = ["beam  penalty  BLEU-4  ROUGE-L   CIDEr  words  pictures/s"]
    for one in figures:
        metrics, penalty = one["metrics"], one["length_penalty"]
        mark = "  best CIDEr" if metrics["cider"] == best else ""
        lines.append(
            f"{one['beam']:<4}  {'-' if penalty is None else penalty:<7}  "
            f"{points('bleu_4', metrics['bleu_4'], '6.2f')}  "
            f"{points('rouge_l', metrics['rouge_l'], '7.2f')}  "
            f"{points('cider', metrics['cider'], '6.2f')}  {one['mean_length']:5.1f}  "
            f"{one['decoding_pictures_per_second']:.0f}{mark}"
        )
    return lines


def _calibration(figures: dict[str, Any]) -> str:
    """What confidences are worth."""
    keys = ("ece", "brier", "auroc", "risk_coverage_area")
    return ", ".join(f"{TITLES[key]} {points(key, figures[key])}" for key in keys)


def _caption_lines(figures: dict[str, Any]) -> list[str]:
    """The figures of an evaluation of captions."""
    rows = {TITLES[name]: points(name, value) for name, value in figures["metrics"].items()}
    rows |= {name: str(figures[name]) for name in ("pictures", "beam")}
    rows |= {name: _share(figures[name]) for name in ("distinct", "unseen")}
    rows |= {"vocabulary": f"{figures['vocabulary']} words"}
    rows |= {"mean_length": f"{figures['mean_length']:.1f} words"}
    if (human := figures["human"]) and human["cider"] is not None:
        rows["human"] = (
            f"CIDEr {points('cider', human['cider'])} of one reference against the others; the "
            f"model's against those {points('cider', human['model_cider'])}"
        )
    if pointing := figures["pointing"]:
        rows["pointing"] = (
            f"{_share(pointing['score'])}, by chance {_share(pointing['chance'])} "
            f"({pointing['words']} words that name a box)"
        )
    if figures["truth"] is not None:
        rows["truth"] = f"{_share(figures['truth'])} of the captions are true"
    if sure := figures["confidence"]:
        cider = ", ".join(
            f"{100 * float(share):.0f} %: {points('cider', value)}"
            for share, value in sure["cider_at_coverage"].items()
        )
        rows["confidence"] = _calibration(sure)
        rows["good"] = (
            f"{_share(sure['good'])} of the captions are above CIDEr "
            f"{points('cider', sure['level'])}, as half of people's are"
        )
        rows["sure"] = (
            f"{_share(sure['sure'])} of the captions, from {_share(sure['threshold'])} on; of "
            f"these {_share(sure['good_of_sure'])} are good"
        )
        rows["keeping"] = f"{cider}  (the surest share of the captions: CIDEr)"
    if figures["cut"]:
        rows["cut"] = f"{_share(figures['cut'])} of them at {figures['max_length']} words"
    return [f"{name:<12} {text}" for name, text in rows.items()]


def _answer_lines(figures: dict[str, Any]) -> list[str]:
    """The figures of an evaluation of answers."""
    metrics, bias, selective = figures["metrics"], figures["bias"], figures["selective"]
    about = f"{figures['questions']} questions about {figures['pictures']} pictures"
    rows = {"accuracy": f"{metrics['accuracy']:.2f}  ({figures['measure']}, {about})"}
    for kind in ("answer", "question"):
        types = figures[f"per_{kind}_type"]
        if 0 < len(types) <= MOST_TYPES:
            rows[f"{kind} type"] = ", ".join(f"{n} {value:.2f}" for n, value in types.items())
    if bias["prefix"] is not None:
        first = bias["most_frequent_answer"]
        rows["most frequent"] = f"{bias['most_frequent']:.2f}  (always {first!r})"
        rows["by first words"] = f"{bias['prefix']:.2f}  (most frequent by the first two words)"
    if twin := figures["question_only"]:
        verdict = "a difference" if twin["significant"] else "no difference shown"
        interval = f"95 % interval {twin['low']:+.2f} to {twin['high']:+.2f}: {verdict}"
        difference = f"(the model is {twin['difference']:+.2f}, {interval})"
        rows["question only"] = f"{twin['accuracy']:.2f}  {difference}"
    if bias["ceiling"] is not None:
        rows["ceiling"] = f"{bias['ceiling']:.2f}  (the best answers of its vocabulary)"
    for name, title in (("blank", "grey picture"), ("other_picture", "other picture")):
        if one := (figures["evidence"] or {}).get(name):
            changed = f"{100 * one['changed']:.1f} % of the answers change"
            rows[title] = f"{one['accuracy']:.2f}  (loses {one['lost']:.2f}; {changed})"
    if metrics["ece"] is not None:
        rows["calibration"] = f"{_calibration(metrics)} at temperature {figures['temperature']:.3f}"
    at = selective["accuracy_at_coverage"].items()
    shares = ", ".join(
        f"{100 * float(share):.0f} %: {points('accuracy', value)}" for share, value in at
    )
    rows["answering only"] = f"{shares}  (the surest share of the questions: accuracy)"
    if selective["abstain_below"]:
        rows["abstaining"] = (
            f"below {selective['abstain_below']:.4g}: answers {100 * selective['coverage']:.1f} %, "
            f"accuracy {points('accuracy', selective['accuracy'])}"
        )
    if pointing := figures["pointing"]:
        scores = ", ".join(f"pass {n}: {_share(one['score'])}" for n, one in enumerate(pointing, 1))
        things = f"{pointing[0]['words']} questions about things"
        rows["pointing"] = f"{scores}; by chance {_share(pointing[0]['chance'])} ({things})"
    if wups := figures["wups"]:
        values = [f"{n}: {points('accuracy', v)}" for n, v in wups.items() if n != "reason"]
        reason = f"  ({wups['reason']})" if wups["reason"] else ""
        rows["WUPS"] = f"{', '.join(values)}{reason}"
    rows["answers/s"] = str(figures["answers_per_second"])
    return [f"{name:<16} {text}" for name, text in rows.items()]


_LINES = {"captions": _caption_lines, "answers questions": _answer_lines}

"""The figures of an evaluation as plain lines."""

from typing import Any

__all__ = ["answer_lines", "figure_lines", "setting_lines"]

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

"""``gazetell compare``: several models on the same pictures."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..files import check_models, read_text
from ..inference.report import write_comparison
from .score import comparison
from .terminal import HERE, OWN, Here, Own, check_source, on_terminal, one_line, print_json, report

if TYPE_CHECKING:
    from ..inference.compare import Comparison


def compare(
    *pictures: str,
    model: tuple[str, ...] = (),
    question: tuple[str, ...] = (),
    answers: Path | None = None,
    split: str | None = None,
    column: str | None = None,
    limit: int = 0,
    out: Path | None = None,
    json: bool = False,
    decoding: Own = OWN,
    computing: Here = HERE,
) -> int:
    """Show what several models tell of the same pictures, what it costs, and where they agree.

    Each model works alone, one picture at a time, so that time and memory are its own.

    Args:
        pictures: Pictures, folders or patterns, or what else gazetell describe reads; or a
            prepared dataset, whose references then give metrics and the 95 % interval of each
            difference.
        model: A model folder, hf://owner/name, or photo, which comes with gazetell. Give two or
            more.
        question: Compare the answers to this question instead of captions; can be given several
            times.
        answers: File with an answer per line, among which large models choose; without it they
            write their own.
        split: Split of a prepared dataset; test if not given.
        column: Parquet: the column that holds the pictures' bytes or their paths.
        limit: Use only the first N pictures; 0 for all.
        out: An .html page with captions and gazes side by side, where they differ most first.
        json: Print one JSON object instead of lines.
        decoding: How to search, for all models.
        computing: Where.
    """
    if not pictures:
        raise UsageError("expected pictures: files, folders, patterns, or a prepared dataset")
    if out is not None and (out.suffix.lower() != ".html" or out.is_dir()):
        raise UsageError(f"--out {out}: expected the name of an .html file")
    if len(model) < 2:
        raise UsageError("--model: expected two models or more to compare")
    check_models(*model)
    if len(pictures) == 1:
        check_source(pictures[0], column)
    from ..inference.compare import compare as compare_models

    found = compare_models(
        model,
        pictures,
        split=split,
        questions=question,
        listed=None if answers is None else read_text(answers).splitlines(),
        column=column,
        limit=limit,
        how=vars(computing),
        progress=on_terminal(),
        **decoding.given(),
    )
    if out is not None:
        write_comparison(out, found, shlex.join(["gazetell", *sys.argv[1:]]))
        report(f"page: {out}")
    if json:
        print_json(found.to_dict())
    else:
        print("\n".join(_lines(found)))
    for one_model in found.columns:
        told: list[Any] = [one for one in one_model.told if not isinstance(one, str)]
        marks: dict[str, Callable[[Any], Any]] = {
            "captions cut off at their greatest length": lambda one: (
                not getattr(one, "ended", True)
            ),
            "results without a word": lambda one: not one.text,
            "questions with unknown words": lambda one: getattr(one, "unknown", ()),
            "of pictures unlike those that it learned from": lambda one: one.unfamiliar,
        }
        for what, marked in marks.items():
            if count := sum(bool(marked(one)) for one in told):
                report(f"{one_model.model}: {what}: {count} of {len(told)}")
    for line in found.failed:
        report(f"error: {line}")
    return 1 if found.failed else 0


def _lines(found: "Comparison") -> list[str]:
    """What each model told, then what it cost and where the models agree."""
    width = max(len(column.model) for column in found.columns)
    lines = []
    for n, (name, question, _) in enumerate(found.rows):
        lines.append(one_line(f"{name}  {question}".rstrip()))
        for column in found.columns:
            told = column.told[n]
            text = f"failed: {told}" if isinstance(told, str) else told.text
            lines.append(f"  {column.model:<{width}}  {text}")
    rows = found.figures()
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines.append("")
    for name, *cells in rows:
        figures = (f"{x:>{size}}" for x, size in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([f"{name:<{widths[0]}}", *figures]))
    lines += ["", *found.agreement_lines()]
    for pair, differences in found.differences.items():
        lines += ["", f"{pair[0]} against {pair[1]}:", *comparison(differences, *pair)]
    return lines

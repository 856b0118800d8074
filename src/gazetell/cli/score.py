"""``gazetell score``."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ..data.predictions import match, read_predictions, read_references
from ..errors import DataError, UsageError
from ..metrics import Difference, compare_captions, score_captions
from .terminal import print_json

__all__ = ["score"]

LEVEL = 0.95  # of the interval of a difference


def score(
    *,
    references: Path,
    predictions: Path,
    against: Path | None = None,
    resamples: int = 1000,
    seed: int = 0,
    java: bool = False,
    json: bool = False,
) -> None:
    """Score captions with the official metrics, without Java for all but METEOR and SPICE.

    Args:
        references: JSON Lines {"id", "captions": [...]}, or COCO annotation JSON.
        predictions: JSON Lines {"id", "caption"}, or COCO result JSON.
        against: Other predictions of the same pictures: print both scores and the 95 % interval
            of their difference, by the paired bootstrap.
        resamples: With AGAINST, how many times pictures are drawn.
        seed: With AGAINST, of the draws.
        java: Also METEOR and SPICE, where Java and pycocoevalcap are there.
        json: Print one JSON object instead of lines.
    """
    if against is not None and java:
        raise UsageError("--java: METEOR and SPICE are not compared; leave out --java or --against")
    if resamples < 1:
        raise UsageError(f"--resamples {resamples}: expected at least 1")
    if seed < 0:
        raise UsageError(f"--seed {seed}: expected 0 or more")
    wanted, found = read_references(references), read_predictions(predictions)
    match(wanted, found, references_name=str(references), predictions_name=str(predictions))
    if against is not None:
        others = read_predictions(against)
        match(wanted, others, references_name=str(references), predictions_name=str(against))
        if len(wanted) < 2:
            raise DataError(f"{references}: has one picture; expected at least two to compare on")
        compared = compare_captions(
            wanted, found, others, resamples=resamples, seed=seed, level=LEVEL
        )
        if json:
            print_json({
                "pictures": len(wanted),
                "resamples": resamples,
                "seed": seed,
                "level": LEVEL,
                "metrics": {name: asdict(one) for name, one in compared.items()},
            })  # fmt: skip
        else:
            print("\n".join(_comparison_lines(compared)))
        return
    scores = score_captions(wanted, found, java=java)
    if json:
        print_json(scores)
        return
    for name, value in scores.items():
        print(f"{name:<8} {'not computed' if value is None else f'{value:.4f}'}")


def _comparison_lines(compared: Mapping[str, Difference]) -> list[str]:
    """A table with a line a metric."""
    lines = [f"{'':<8} predictions  against  difference  {100 * LEVEL:.0f} % interval"]
    for name, one in compared.items():
        interval = f"{one.low:+.4f} to {one.high:+.4f}"
        verdict = "a difference" if one.significant else "no difference shown"
        lines.append(
            f"{name:<8} {one.first:>11.4f}  {one.second:>7.4f}  {one.difference:>+10.4f}"
            f"  {interval}  {verdict}"
        )
    return lines

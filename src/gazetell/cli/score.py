"""``gazetell score``."""

from pathlib import Path

from ..data.predictions import match, read_predictions, read_references
from ..metrics import score_captions
from .terminal import print_json

__all__ = ["score"]


def score(*, references: Path, predictions: Path, java: bool = False, json: bool = False) -> None:
    """Score captions with the official metrics, without Java for all but METEOR and SPICE.

    Args:
        references: JSON Lines {"id", "captions": [...]}, or COCO annotation JSON.
        predictions: JSON Lines {"id", "caption"}, or COCO result JSON.
        java: Also METEOR and SPICE, where Java and pycocoevalcap are there.
        json: Print one JSON object instead of lines.
    """
    wanted, found = read_references(references), read_predictions(predictions)
    match(wanted, found, references_name=str(references), predictions_name=str(predictions))
    scores = score_captions(wanted, found, java=java)
    if json:
        print_json(scores)
        return
    for name, value in scores.items():
        print(f"{name:<8} {'not computed' if value is None else f'{value:.4f}'}")

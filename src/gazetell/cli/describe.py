"""``gazetell describe``."""

from pathlib import Path

from ..errors import UsageError
from ..inference.describe import check_out
from ..inference.describe import describe as describe_folder
from ..inference.predict import Captioner
from .terminal import HERE, OWN, Here, Own, on_terminal, report


def describe(
    folder: Path,
    *,
    out: Path,
    model: tuple[str, ...] = (),
    again: bool = False,
    decoding: Own = OWN,
    batch: int = 16,
    computing: Here = HERE,
) -> int:
    """Alt text for a folder: caption every picture in it, into a table or a sheet to review.

    A killed run goes on where it was; pictures that are done and unchanged are left out.

    Args:
        folder: Of pictures, at any depth.
        out: A .csv or .jsonl table, or an .html sheet to review and edit the captions on, least
            sure first. OUT.done.jsonl beside it keeps what is done.
        model: A model folder, or hf://owner/name; given several times, an ensemble. If not
            given, photo, which comes with gazetell.
        again: Begin anew, whatever is there.
        decoding: How to search.
        batch: Pictures a forward pass.
        computing: Where.
    """
    if batch < 1:
        raise UsageError(f"--batch {batch}: expected 1 or more")
    check_out(folder, out)
    captioner = Captioner.load(*model, **vars(computing))
    done = describe_folder(
        captioner,
        folder,
        out,
        again=again,
        batch=batch,
        progress=on_terminal(),
        **decoding.given(),
    )
    for error in done.failed:
        report(f"error: {error}")
    for count, what in (
        (done.cut, "captions cut at --max-length (ended: false)"),
        (done.empty, "pictures for which the model found no words"),
        (done.gone, f"pictures captioned before that are no longer in {folder}, left out"),
    ):
        if count:
            report(f"{what}: {count}")
    before = done.pictures - done.captioned - len(done.failed)
    report(
        f"{out}: {done.pictures} picture{'s' * (done.pictures != 1)}, {done.captioned} captioned "
        f"now, {before} before, {len(done.failed)} failed"
    )
    return 1 if done.failed else 0

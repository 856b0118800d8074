"""``gazetell describe``."""

from pathlib import Path

from ..errors import UsageError
from ..inference.describe import check_out
from ..inference.describe import describe as describe_folder
from ..inference.predict import Captioner
from .caption import given
from .terminal import on_terminal, report

__all__ = ["describe"]


def describe(
    folder: Path,
    *,
    model: tuple[str, ...] = (),
    out: Path,
    again: bool = False,
    beam: int | None = None,
    max_length: int | None = None,
    length_penalty: float | None = None,
    batch: int = 16,
    device: str = "auto",
    precision: str = "auto",
) -> int:
    """Alt text for a folder: caption every picture in it, into a table or a sheet to review.

    A killed run goes on where it was; pictures that are done and unchanged are left out.

    Args:
        folder: Of pictures, at any depth.
        model: A model folder, or hf://owner/name; given several times, an ensemble.
        out: A .csv or .jsonl table, or an .html sheet to review and edit the captions on, least
            sure first. OUT.done.jsonl beside it keeps what is done.
        again: Begin anew, whatever is there.
        beam: Beam of the search, 1 for greedy; the model's own if not given.
        max_length: Most words of a caption; the model's own if not given.
        length_penalty: Exponent of the length normalisation; the model's own if not given.
        batch: Pictures a forward pass.
        device: auto, cpu or cuda.
        precision: auto, bf16 or fp32.
    """
    if not model:
        raise UsageError("expected --model, a model folder or hf://owner/name")
    if batch < 1:
        raise UsageError(f"--batch {batch}: expected 1 or more")
    check_out(folder, out)
    captioner = Captioner.load(*model, device=device, precision=precision)
    options = given(beam=beam, max_length=max_length, length_penalty=length_penalty)
    done = describe_folder(
        captioner, folder, out, again=again, batch=batch, progress=on_terminal(), **options
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

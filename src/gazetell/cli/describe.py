"""``gazetell describe``."""

from pathlib import Path
from typing import Literal

from ..errors import UsageError
from ..files import check_models
from ..inference.outputs import Parts, check_out, check_site, is_for_site, kept_journal
from .terminal import HERE, OWN, Here, Own, check_source, on_terminal, report

SHOWN = 20  # errors of pictures that are told a line each, of parts


def describe(
    source: str,
    *,
    out: str,
    model: tuple[str, ...] = (),
    question: tuple[str, ...] = (),
    column: str | None = None,
    url: str | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    again: bool = False,
    decoding: Own = OWN,
    batch: int = 16,
    computing: Here = HERE,
) -> int:
    """Alt text for many pictures: into a table, a sheet to review, or a folder of parts.

    A killed run goes on where it was; pictures that are done and unchanged are left out.

    Args:
        source: A folder of pictures at any depth, a pattern, an address such as
            s3://bucket/folder, .parquet (with --column) or .tar files; or the .csv that a review
            sheet saved, whose approved texts go into .img.html or .wordpress.csv as they are.
        out: A .csv or .jsonl table, or an .html sheet to review and edit the captions on, least
            sure first; OUT.done.jsonl beside it keeps what is done. For a web site NAME.img.html,
            an img element with alt text per line, or NAME.wordpress.csv, the columns Image URL
            and Alt Text that WordPress plugins import. For many pictures a folder or address, or
            a name that ends in .parquet, for Parquet files; in .jsonl/ for JSON Lines files.
            They have a row for each picture, with the error where one failed.
        model: A model folder, or hf://owner/name; given several times, an ensemble. If not
            given, photo, which comes with gazetell.
        question: Also answer this question about each picture; can be given several times. The
            model must answer too, as photo does.
        column: Parquet: the column that holds the pictures' bytes or their paths.
        url: The folder's address on the web, for .img.html and .wordpress.csv.
        engine: local, or ray for all devices of a cluster (extra cluster).
        address: Ray cluster, auto or host:port; if not given, one starts on this machine.
        again: Start over and overwrite what is there.
        decoding: How to search.
        batch: Number of pictures per forward pass.
        computing: Where.
    """
    if batch < 1:
        raise UsageError(f"--batch {batch}: expected 1 or more")
    if address is not None and engine == "local":
        raise UsageError("--address: has no effect without --engine ray")
    if Path(source).suffix.lower() == ".csv":
        own: dict[str, object] = {"model": model, "question": question, "column": column}
        own |= {"address": address, "engine": engine == "ray", "batch": batch != 16}
        own |= {n: value != vars(HERE)[n] for n, value in vars(computing).items()}
        if name := next((name for name, value in (own | decoding.given()).items() if value), None):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option}: has no effect on {source}, which needs no model")
        from ..inference.describe import publish

        written, left = publish(source, out, url=url, again=again)
        report(f"{out}: {written} approved texts" + f", {left} not approved, left out" * bool(left))
        return 0
    if Path(source).suffix.lower() in (".html", ".htm"):
        raise UsageError(
            f"{source}: is a page; of a sheet to review, press Download CSV in it and give that "
            "file"
        )
    # What is in the way is said before a model is loaded.
    if table := check_out(out):
        kept_journal(Path(out), again)
    else:
        Parts(out, question, "").there()
    check_site(out, url, question)
    check_models(*model)
    check_source(source, column)
    from ..inference.describe import describe as describe_source
    from ..inference.load import load_answerer, load_captioner
    from ..models.folder import fetch, is_pair
    from ..models.large import is_large

    folder = fetch(model[0]) if question and model else None
    if folder and not is_pair(folder) and not is_large(folder):
        raise UsageError(
            f"--question: {model[0]} has no answerer; expected a captioner and answerer in one, "
            "such as photo or what gazetell export writes"
        )
    work = None
    if engine == "ray":
        from ..inference.cluster import Ray

        work = Ray(model, address, **vars(computing))
    # With Ray it is loaded here too: what is wrong with it is seen before a cluster is asked.
    here = {**vars(computing), "device": "cpu", "precision": "fp32"} if work else vars(computing)
    captioner = load_captioner(*model, **here)
    answerer = load_answerer(*model[:1], beside=captioner, **here) if question else None
    done = describe_source(
        captioner,
        source,
        out,
        answerer=answerer,
        questions=question,
        column=column,
        url=url,
        engine=work,
        again=again,
        batch=batch,
        progress=on_terminal(),
        **decoding.given(),
    )
    left_out = ", left out" * is_for_site(out)
    shown = len(done.failed) if table else SHOWN
    for error in done.failed[:shown]:
        report(f"error: {error}")
    if len(done.failed) > shown:
        report(f"further pictures that failed, see the column error: {len(done.failed) - shown}")
    for count, what in (
        (done.cut, "captions cut at --max-length (ended: false)"),
        (done.empty, f"pictures for which the model found no words{left_out}"),
        (done.unfamiliar, "pictures unlike those that the model learned from (unfamiliar: true)"),
        (done.gone, f"pictures captioned before that are no longer in {source}, left out"),
    ):
        if count:
            report(f"{what}: {count}")
    before = done.pictures - done.captioned - len(done.failed)
    report(
        f"{out}: {done.pictures} picture{'s' * (done.pictures != 1)}, {done.captioned} captioned "
        f"now, {before} before, {len(done.failed)} failed"
    )
    return 1 if done.failed else 0

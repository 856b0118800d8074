"""Many pictures captioned, and asked about: into a table, a sheet to review, or a folder of parts.

Whatever the output, an engine gives the rows of blocks of pictures: ``Here`` in this process,
``cluster.Ray`` on many machines. What a row says is made in one place, by ``Describer``.

A table or sheet: each caption is first a line of the journal beside it, ``OUT.done.jsonl``; the
output is made of it when all pictures are done, at once and whole. So a run that is killed goes on
where it was, and pictures that come later cost their own time only. The journal's first line says
by which model, of which folder and with which options; a run that differs is refused.

A picture counts as unchanged while its size and modification time are. Hashing contents would
read every file each time, which on a fast model takes as long as captioning; a copy that loses the
times only costs captioning again, never a wrong caption.

Parts: ``part-00012.parquet`` or ``.jsonl`` holds a row for each picture of block 12, failed ones
included, and is there whole or not at all; ``_gazetell.json`` says what they are parts of. A run
that is killed goes on with the blocks that have no part; a source that changed is refused, since
its blocks are others.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice, tee
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import torch
from PIL import Image

from ..errors import ImageError, StoppedError, UsageError
from ..files import atomic_path, write_text
from ..pictures import LoadedPicture, load_pictures
from ..process import bar
from .gaze import picture_uri, resized
from .large import Large
from .outputs import (
    COLUMNS,
    FORMAT,
    PART_COLUMNS,
    TAGS,
    WORDPRESS,
    Parts,
    Row,
    answer_columns,
    check_out,
    check_site,
    content_of,
    drafts,
    is_for_site,
    open_journal,
    output_digest,
    review_sheet,
    reviewed,
    site_text,
    table_text,
)
from .predict import Answer, Answerer, Caption, Captioner, in_parts
from .sources import Block, Item, Source, ahead, open_source

SIDE = 320  # longer side of a picture on the sheet, in pixels

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Described:
    """What a run did.

    Attributes:
        pictures: in the source.
        captioned: by this run.
        failed: one error for each picture that could not be opened; of parts, by any run.
        cut: captions that were cut off at the greatest length; of parts, by this run.
        empty: pictures for which the model found no words; of parts, in this run.
        gone: pictures captioned before that are no longer in the source, and not in the output.
        unfamiliar: pictures unlike those that the model learned from; of parts, in this run.
    """

    pictures: int
    captioned: int
    failed: Sequence[ImageError]
    cut: int = 0
    empty: int = 0
    gone: int = 0
    unfamiliar: int = 0


@dataclass(frozen=True)
class Task:
    """What is to be told of each picture.

    Attributes:
        questions: that are answered.
        options: of decoding, see ``Captioner.caption``.
        batch: pictures a forward pass; fewer where the memory of the device does not hold them.
        table: of a folder that somebody looks at: a picture that nothing sure can be told of is
            told in a warning. Of parts ``sure`` says it.
        thumbs: small pictures for a sheet.
    """

    questions: tuple[str, ...] = ()
    options: Row = field(default_factory=dict)
    batch: int = 16
    table: bool = False
    thumbs: bool = False


class Engine(Protocol):
    """What does the work.

    Attributes:
        precision: that it computes in.
    """

    precision: str

    def __call__(
        self, source: Source, blocks: Sequence[Block], task: Task
    ) -> Generator[tuple[Block, Iterable[Row]], None, None]:
        """Blocks of a source, in any order, each with the rows of its pictures in theirs."""


class Describer:
    """Makes the rows of pictures, with loaded models; every engine's own work."""

    def __init__(self, captioner: Captioner, answerer: Answerer | None, task: Task) -> None:
        self.captioner, self.answerer, self.task = captioner, answerer, task
        self.options = captioner.options(**task.options)
        self.asked = [answerer.read_question(q) for q in task.questions] if answerer else []

    def rows(self, items: Iterable[Item]) -> Iterator[Row]:
        """A row for each picture, in order; of one that failed only its name and the error."""
        task, device = self.task, self.captioner.device
        queue, rest = tee(items)
        loading = load_pictures(
            (item.content for item in queue),
            self.captioner.encoder.frame,
            batch=task.batch,
            threads=2 if device.type == "cpu" else min(16, os.cpu_count() or 2),
            with_preview=task.table,
        )
        for loaded in loading:
            batch = list(zip(islice(rest, len(loaded)), loaded, strict=True))
            good = [(item.position, x) for item, x in batch if not isinstance(x, ImageError)]
            told = iter(in_parts(self._told, good) if good else [])
            for item, picture in batch:
                if isinstance(picture, ImageError):
                    # By the name that the row bears, not by a path of the machine that failed.
                    known = item.content if isinstance(item.content, str) else item.name
                    why = str(picture).replace(f"{known}: ", f"{item.name}: ", 1)
                    yield {"picture": item.name, "error": why}
                    continue
                row = next(told)
                if isinstance(row, ImageError):
                    why = str(row).replace("picture", item.name, 1)
                    yield {"picture": item.name, "error": why}
                else:
                    yield self._row(item.name, *row, picture)

    def _told(
        self, pictures: Sequence[tuple[int, LoadedPicture]]
    ) -> list[tuple[Caption, list[Answer]]]:
        grid = self.captioner.see([picture for _, picture in pictures])
        captions = self.captioner.decode(grid, self.options, [place for place, _ in pictures])
        answers: list[Answer] = []
        if self.answerer and self.asked:
            owner = torch.arange(len(pictures)).repeat_interleave(len(self.asked))
            answers = self.answerer.answer(grid, self.asked * len(pictures), owner)
        count = len(self.asked)
        return [(c, answers[n * count : (n + 1) * count]) for n, c in enumerate(captions)]

    def _row(
        self, name: str, caption: Caption, answers: Sequence[Answer], picture: LoadedPicture
    ) -> Row:
        frame = self.captioner.encoder.frame
        caption = caption.of(caption.view, frame.doubt(picture.size))
        row = {
            "picture": name,
            "caption": caption.text,
            "log_prob": round(caption.log_prob, 5),
            "ended": caption.ended,
        }
        if caption.confidence is not None:
            row["confidence"] = round(caption.confidence, 5)
        if caption.sure is not None:
            row["sure"] = caption.sure
        if caption.unfamiliar is not None:
            row["unfamiliar"] = caption.unfamiliar
        if answers:
            asked = [answer.of(caption.view, frame.doubt(picture.size)) for answer in answers]
            row["answers"] = [[x.text, round(x.confidence, 5), not x.abstained] for x in asked]
        if self.task.thumbs and picture.preview is not None:
            row |= thumbnail(picture.preview)
        return row


def thumbnail(picture: Image.Image) -> Row:
    """The small picture of a row of a sheet."""
    small = resized(picture, min(SIDE, max(picture.size)))
    # About 10 kB a photograph, half of what JPEG needs to look as good.
    uri = picture_uri(small, SIDE, "WEBP", quality=62)
    return {"thumb": uri, "width": small.width, "height": small.height}


class Here:
    """The engine that works in this process."""

    def __init__(self, captioner: Captioner, answerer: Answerer | None = None) -> None:
        self.captioner, self.answerer = captioner, answerer
        self.precision = captioner.precision.name

    def __call__(
        self, source: Source, blocks: Sequence[Block], task: Task
    ) -> Generator[tuple[Block, Iterable[Row]], None, None]:
        """Rows as they are made, block after block."""
        describer = Describer(self.captioner, self.answerer, task)
        for block in blocks:
            yield block, describer.rows(source.reader(block))


def describe(
    model: Captioner,
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    answerer: Answerer | None = None,
    questions: Sequence[str] = (),
    column: str | None = None,
    engine: Engine | None = None,
    url: str | None = None,
    again: bool = False,
    batch: int = 16,
    progress: bool = False,
    **options: Any,
) -> Described:
    """Caption every picture of a source, those that are done and unchanged left out.

    Args:
        model: a loaded captioner.
        source: a folder with pictures at any depth, what else ``open_source`` reads, or a list of
            picture files, whose names are then seen from the folder that has them all.
        out: ``.csv`` or ``.jsonl`` in the order of the names, or ``.html``, a sheet to review,
            least sure first, or ``.img.html`` or ``.wordpress.csv`` for a web site, with
            ``OUT.done.jsonl`` beside it; or a folder of parts, of Parquet
            files, or of JSON Lines where the name ends in ``.jsonl/``.
        answerer: of the captioner's encoder, for questions.
        questions: that are answered about each picture.
        column: of Parquet.
        url: where the folder of the pictures is on the web, for what is written for a web site.
        engine: that works; ``Here`` if not given. It must use the same models.
        again: begin anew, whatever is there.
        batch: pictures a forward pass.
        progress: show a progress bar on standard error.
        options: decoding, see ``Captioner.caption``.

    Raises:
        UsageError: another suffix, an option out of its range, or an output that another model,
            other options or somebody else made.
        ImageError: no pictures there.
        DataError: a source that cannot be read, or that changed; a damaged journal.
        WriteError: the file system refused; what was done until then is kept.
    """
    table = check_out(out)
    site = check_site(out, url, questions)
    thumbs = table and not site and Path(out).suffix.lower() == ".html"
    _check_questions(model, answerer, questions)
    task = Task(tuple(questions), options, batch, table, thumbs)
    opened, work = open_source(source, column), engine or Here(model, answerer)
    begun = {
        "format": FORMAT,
        "model": "-".join(identity(m) for m in (model, answerer if questions else None) if m),
        "options": asdict(model.options(**options)) | {"questions": list(questions) or None},
        "precision": work.precision,
    }
    if not table:
        parts = Parts(os.fspath(out), questions, model.name)
        return _into_parts(parts, opened, work, task, begun, again, progress)
    if not opened.entries or column is not None:
        raise UsageError(
            f"--out {out}: tables and sheets take only picture files; expected a folder, "
            ".parquet or .jsonl/ for a source of Parquet or tars"
        )
    if thumbs and opened.base is None:
        raise UsageError(f"--out {out}: a sheet takes pictures on this machine, not at an address")
    if site and opened.base is None and url is None:
        raise UsageError(f"--out {out}: the pictures are not on this machine; expected --url")
    # A name that is not UTF-8 can be written to no file as it is.
    seen = os.fsencode(opened.name)
    if opened.base:
        seen = _seen_from(Path(out).parent, Path(opened.name))
    begun["folder"] = seen.decode(errors="backslashreplace")
    return _into_table(Path(out), opened, work, task, begun, again, progress, url, model.name)


@contextmanager
def _interrupted(done: Callable[[], int], total: int | None, again: bool) -> Iterator[None]:
    """Say how far the work came if somebody interrupts it."""
    try:
        yield
    except KeyboardInterrupt as stop:
        of = "" if total is None else f" of {total}"
        command = "the same command" + " without --again" * again
        log.warning(f"interrupted: {done()}{of} pictures are done; {command} goes on")
        raise StoppedError from stop


def _into_table(
    out: Path,
    source: Source,
    engine: Engine,
    task: Task,
    begun: Row,
    again: bool,
    progress: bool,
    url: str | None,
    model: str,
) -> Described:
    failed = [entry.place for entry in source.entries if isinstance(entry.place, ImageError)]
    stamps = {e.name: e.stamp for e in source.entries if not isinstance(e.place, ImageError)}
    journal = open_journal(out, begun, again)
    known = journal.captions()
    rows = {n: row for n, row in known.items() if stamps.get(n) and row.get("stamp") == stamps[n]}
    todo = [
        position
        for position, entry in enumerate(source.entries)
        if entry.name in stamps and entry.name not in rows
    ]
    captioned = 0
    # Closed when interrupted, at once: Ray ends while its messages still go nowhere.
    blocks = closing(engine(source, source.some(todo), task))
    said = _interrupted(lambda: len(rows), len(source.entries), again)
    with said, bar("pictures", progress) as update, blocks as made_blocks:
        update(0, len(todo))
        for _, made in made_blocks:
            for row in made:
                if "error" in row:
                    failed.append(ImageError(row["error"]))
                else:
                    row["stamp"] = stamps[row["picture"]]
                    rows[row["picture"]] = row
                    journal.append(row)
                    captioned += 1
                update(captioned + len(failed), len(todo))
    told = [rows[name] for name in stamps if name in rows]
    base = quote(_seen_from(out.parent, source.base or Path()))
    title = (source.base or Path()).resolve().name or "pictures"
    if is_for_site(out):
        unsure = sum(row.get("sure") is False for row in told)
        if unsure:
            log.warning(f"{out}: captions that the model is not sure of, read them first: {unsure}")
        base = base if url is None else url.rstrip("/")
        text = site_text(title, drafts(told), base, as_csv=out.suffix.lower() == ".csv")
    elif task.thumbs:
        # A browser keeps the review under this key: the same each time the sheet is written.
        key = output_digest(str(out.resolve()).encode())[:16]
        text = review_sheet(title, told, failed, base=base, key=key, model=model)
    else:
        text = table_text(told, task.questions, model, as_csv=out.suffix.lower() == ".csv")
    content = text.encode()
    if content_of(out) != content:
        # First said, then written: a run killed in between knows its own output again.
        journal.append({"wrote": output_digest(content)})
        with atomic_path(out) as temporary:
            temporary.write_bytes(content)
    return Described(
        len(told) + len(failed),
        captioned,
        failed,
        cut=sum(not row["ended"] for row in told),
        empty=sum(not row["caption"] for row in told),
        gone=len(known.keys() - stamps.keys()),
        unfamiliar=sum(row.get("unfamiliar") is True for row in told),
    )


def _into_parts(
    parts: Parts,
    source: Source,
    engine: Engine,
    task: Task,
    begun: Row,
    again: bool,
    progress: bool,
) -> Described:
    begun["columns"] = list(parts.columns)
    about = {"source": source.name, "digest": source.digest, "pictures": source.pictures}
    done = parts.begin(begun | about | {"parts": len(source.blocks)}, again)
    todo = [block for block in source.blocks if block.number not in done]
    counted = source.pictures is not None
    total = source.pictures if counted else len(source.blocks)
    errors = [x for each in ahead(parts.errors, sorted(done)) for x in each]
    before, failed = len(errors), [ImageError(error) for error in errors if error]
    made = Described(before, 0, failed)
    blocks = closing(engine(source, todo, task))
    said = _interrupted(lambda: made.pictures, source.pictures, again)
    with said, bar("pictures" if counted else "tars", progress) as update, blocks as made_blocks:
        update(before if counted else len(done), total or 0)
        for number, (block, some) in enumerate(made_blocks, 1):
            if not (rows := list(some)):  # a tar without pictures has no part
                continue
            parts.write(block.number, rows)
            bad = [ImageError(row["error"]) for row in rows if "error" in row]
            failed += bad
            made = Described(
                made.pictures + len(rows),
                made.captioned + len(rows) - len(bad),
                failed,
                made.cut + sum(not row.get("ended", True) for row in rows),
                made.empty + sum(row.get("caption") == "" for row in rows),
                unfamiliar=made.unfamiliar + sum(row.get("unfamiliar") is True for row in rows),
            )
            update(made.pictures if counted else len(done) + number, total or 0)
    if not made.pictures:
        raise ImageError(f"{source.name}: no pictures there")
    return made


def publish(
    review: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    url: str | None = None,
    again: bool = False,
) -> tuple[int, int]:
    """Write what a person approved on a review sheet for a web site; no model is asked.

    Args:
        review: the CSV that the sheet saved.
        out: ``.img.html`` or ``.wordpress.csv``.
        url: where the folder of the pictures is on the web; for ``.img.html`` the review's own
            folder if not given.
        again: overwrite what is there.

    Returns:
        How many texts were written, and how many pictures are not approved and left out.

    Raises:
        UsageError: another output, or one that is there.
        DataError: another file than a sheet saves.
        WriteError: the file system refused.
    """
    if not check_site(out, url, ()):
        raise UsageError(f"--out {out}: expected a name in {TAGS} or {WORDPRESS} for {review}")
    told, left = reviewed(Path(review))
    if Path(out).exists() and not again:
        raise UsageError(f"--out {out}: already exists; name another, or overwrite it with --again")
    base = quote(_seen_from(Path(out).parent, Path(review).parent)) if url is None else url
    as_csv = Path(out).suffix.lower() == ".csv"
    write_text(out, site_text(Path(review).stem, told, base.rstrip("/"), as_csv))
    return len(told), left


def _check_questions(model: Captioner, answerer: Answerer | None, questions: Sequence[str]) -> None:
    if not questions:
        return
    if answerer is None:
        raise UsageError("--question: the model has no answerer; expected a pair, such as photo")
    if answerer.fingerprint != model.fingerprint:
        raise UsageError("--question: captioner and answerer have different encoders")
    taken = {*COLUMNS, *PART_COLUMNS, "error"}
    for question in questions:
        if question in taken:
            raise UsageError(f"--question {question!r}: is given twice, or is the name of a column")
        taken.update(*answer_columns([question]))
        read = answerer.read_question(question)
        if read.unknown:
            log.warning(f"{question}: unknown words: {', '.join(read.unknown)}")
        if read.cut:
            log.warning(f"{question}: words not read, at the end: {read.cut}")
    if model.novelty and answerer.novelty:
        far = answerer.novelty.unfamiliar(model.novelty.centroids)
        if 2 * sum(far) > len(far):
            log.warning(
                "captions and answers are by models that learned from different kinds of pictures; "
                "at most one of them knows yours"
            )


def identity(model: Captioner | Answerer) -> str:
    """A hash of all that decides about results but the options: equal means the same model.

    Device and precision are no part of it: they change a caption where two are about as likely.
    """
    digest = hashlib.sha256(model.fingerprint.encode())
    if isinstance(model, Large):
        digest.update(repr((model.network.prompt, model.network.kept)).encode())
        return digest.hexdigest()[:16]
    digest.update(repr(model.tokenizer.vocabulary).encode())
    network: torch.nn.Module
    if isinstance(model, Captioner):
        if model.confidence is not None:
            digest.update(repr(model.confidence).encode())
        if model.novelty is not None:
            digest.update(repr(model.novelty.to_dict()).encode())
        for captioner in model.decoder.captioners:
            config = captioner.config.items()  # type: ignore[union-attr,operator]
            digest.update(repr(sorted(config)).encode())
        network = model.decoder
    else:
        network = model.answerer
        fitted = model.answers.answers, model.temperature, model.sigmoid, model.max_question
        digest.update(repr((sorted(network.config.items()), fitted)).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _seen_from(start: Path, folder: Path) -> bytes:
    """A folder as seen from another, with forward slashes: both may be moved together."""
    try:
        return os.fsencode(Path(os.path.relpath(folder, start)).as_posix())
    except ValueError:  # on another drive
        return os.fsencode(folder.resolve().as_posix())

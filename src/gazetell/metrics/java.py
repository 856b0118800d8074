"""METEOR and SPICE: the two captioning metrics that exist only in Java.

The Java programs come with pycocoevalcap. Where it or Java is absent, or a program fails, a
metric is "not computed": its score is None, with the reason, never 0 and never an exception.

pycocoevalcap's own wrappers are not used. That for METEOR waits for ever on a program that has
died, and that for SPICE starts a download. The programs are given the same text and options.

References: Denkowski and Lavie 2014, Meteor Universal; Anderson et al. 2016, SPICE.
"""

import contextlib
import importlib.util
import json
import math
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["JavaScore", "meteor", "spice"]

METEOR = ("-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm")
SPICE = ("-Xmx8G", "-jar", "spice-1.0.jar")
SPICE_NEEDS = (
    "lib/stanford-corenlp-3.6.0.jar",
    "lib/stanford-corenlp-3.6.0-models.jar",
)


@dataclass(frozen=True)
class JavaScore:
    """A score that may not have been computed.

    ``score`` is in [0, 1], or None and then ``reason`` is one line that says why.
    ``per_picture`` has a score for each candidate, or nothing.
    """

    score: float | None
    per_picture: tuple[float, ...] = ()
    reason: str | None = None


class _NotComputed(Exception):
    """Why a metric could not be computed, in one line."""


def meteor(
    candidates: Sequence[str], references: Sequence[Sequence[str]], timeout: float = 1800.0
) -> JavaScore:
    """METEOR 1.5, as the COCO caption evaluation computes it.

    Args:
        candidates: one caption a picture, split into words joined by blanks.
        references: the reference captions of each picture, split likewise.
        timeout: seconds after which the program is stopped (it starts in about eight).
    """
    try:
        java, folder = _program("meteor", ("meteor-1.5.jar", "data/paraphrase-en.gz"))
        return _ask_meteor([java, *METEOR], folder, candidates, references, timeout)
    except _NotComputed as why:
        return JavaScore(None, reason=str(why))


def spice(
    candidates: Sequence[str], references: Sequence[Sequence[str]], timeout: float = 3600.0
) -> JavaScore:
    """SPICE 1.0, as the COCO caption evaluation computes it.

    It needs the Stanford CoreNLP 3.6.0 jars, which pycocoevalcap downloads on first use. They are
    never downloaded here.

    Args:
        candidates: one caption a picture, split into words joined by blanks.
        references: the reference captions of each picture, split likewise.
        timeout: seconds after which the program is stopped.
    """
    try:
        java, folder = _program("spice", ("spice-1.0.jar", *SPICE_NEEDS))
        return _run_spice([java, *SPICE], folder, candidates, references, timeout)
    except _NotComputed as why:
        return JavaScore(None, reason=str(why))


def _program(name: str, files: Sequence[str]) -> tuple[str, Path]:
    """The Java command and the folder of a metric in pycocoevalcap."""
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise _NotComputed("pycocoevalcap is not installed (pip install 'gazetell[coco]')")
    folder = Path(next(iter(spec.submodule_search_locations))) / name
    for file in files:
        if not (folder / file).is_file():
            raise _NotComputed(f"pycocoevalcap has no {name}/{file}")
    java = shutil.which("java")
    if java is None:
        raise _NotComputed("Java is not installed (no 'java' on the PATH)")
    return java, folder


def _ask_meteor(
    command: list[str],
    folder: Path,
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    timeout: float,
) -> JavaScore:
    """Hold METEOR's dialogue: a line of statistics for each picture, then scores from all."""
    late = threading.Event()
    with contextlib.ExitStack() as stack:
        # Its messages go to a file: a pipe that nobody reads would fill up and stop it.
        errors = stack.enter_context(tempfile.TemporaryFile())
        try:
            process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        except OSError as error:
            raise _NotComputed(f"Java could not be started: {error}") from error
        stack.callback(_end, process)

        def stop() -> None:
            late.set()
            process.kill()

        watch = threading.Timer(timeout, stop)
        watch.daemon = True
        watch.start()
        stack.callback(watch.cancel)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            statistics = []
            for candidate, texts in zip(candidates, references, strict=True):
                candidate = candidate.replace("|||", "").replace("  ", " ")
                _say(process.stdin, " ||| ".join(("SCORE", *texts, candidate)))
                statistics.append(_hear(process.stdout))
            _say(process.stdin, " ||| ".join(("EVAL", *statistics)))
            scores = tuple(float(_hear(process.stdout)) for _ in statistics)
            return JavaScore(float(_hear(process.stdout)), scores)
        except (OSError, ValueError) as error:
            if late.is_set():
                raise _NotComputed(f"METEOR took longer than {timeout:g} s") from error
            _end(process, grace=2.0)  # so that its last words are in the file
            raise _NotComputed(f"METEOR failed: {_last_line(errors) or error}") from error


def _say(pipe: IO[bytes], line: str) -> None:
    pipe.write((line + "\n").encode("utf-8", errors="replace"))
    pipe.flush()


def _hear(pipe: IO[bytes]) -> str:
    line = pipe.readline().decode("utf-8", errors="replace").strip()
    if not line:
        raise ValueError("it stopped without an answer")
    return line


def _end(process: subprocess.Popen[bytes], grace: float = 0.0) -> None:
    """Close a program's pipes, stop it if it still runs after ``grace`` seconds, collect it."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            # What is left unwritten is of no use to a program that is gone.
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        process.wait(timeout=grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _run_spice(
    command: list[str],
    folder: Path,
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    timeout: float,
) -> JavaScore:
    """Give SPICE a file of captions and read the file of scores that it writes."""
    pictures = [
        {"image_id": i, "test": candidate, "refs": list(texts)}
        for i, (candidate, texts) in enumerate(zip(candidates, references, strict=True))
    ]
    with tempfile.TemporaryDirectory() as place:
        asked, answer = Path(place) / "captions.json", Path(place) / "scores.json"
        try:
            asked.write_text(json.dumps(pictures), encoding="utf-8")
            done = subprocess.run(
                [*command, str(asked), "-out", str(answer), "-subset", "-silent"],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=timeout,
                check=False,
            )
            if done.returncode:
                message = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
                why = message[-1] if message else f"exit status {done.returncode}"
                raise _NotComputed(f"SPICE failed: {why}")
            rows = json.loads(answer.read_text(encoding="utf-8"))
            found = {row["image_id"]: float(row["scores"]["All"]["f"]) for row in rows}
            scores = tuple(found[i] for i in range(len(pictures)))
        except subprocess.TimeoutExpired as error:
            raise _NotComputed(f"SPICE took longer than {timeout:g} s") from error
        except OSError as error:
            raise _NotComputed(f"SPICE could not be run: {error}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise _NotComputed(f"SPICE wrote no scores that can be read: {error!r}") from error
    mean = math.fsum(scores) / len(scores) if scores else math.nan
    if math.isnan(mean):
        raise _NotComputed("SPICE gave no number for some pictures")
    return JavaScore(mean, scores)


def _last_line(file: IO[bytes]) -> str:
    """The last line of what a program complained of."""
    file.seek(0)
    lines = file.read().decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""

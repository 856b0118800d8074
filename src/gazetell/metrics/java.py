"""METEOR and SPICE: the two captioning metrics that exist only in Java.

The Java programs come with pycocoevalcap. Where it or Java is absent, or a program fails, a
metric is "not computed": its score is None, with the reason, never 0 and never an exception.

pycocoevalcap's own wrappers are not used. That for METEOR waits for ever on a program that has
died, and that for SPICE starts a download. The programs are given the same text and options.

References: Denkowski and Lavie 2014, Meteor Universal; Anderson et al. 2016, SPICE.
"""

import importlib.util
import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

METEOR = ("-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm")
METEOR_NEEDS = ("meteor-1.5.jar", "data/paraphrase-en.gz")
SPICE = ("-Xmx8G", "-jar", "spice-1.0.jar")
SPICE_NEEDS = (
    "spice-1.0.jar",
    "lib/stanford-corenlp-3.6.0.jar",
    "lib/stanford-corenlp-3.6.0-models.jar",
)
Texts = Sequence[str]
Run = Callable[[Sequence[str], str], list[str]]


@dataclass(frozen=True)
class JavaScore:
    """A score that may not have been computed.

    ``score`` is in [0, 1], or None and then ``reason`` is one line that says why.
    ``per_picture`` has a score for each candidate, or nothing.
    """

    score: float | None
    per_picture: tuple[float, ...] = ()
    reason: str | None = None


def meteor(candidates: Texts, references: Sequence[Texts], timeout: float = 1800.0) -> JavaScore:
    """METEOR 1.5, as the COCO caption evaluation computes it.

    The program is run twice: for the statistics of each picture, then for the scores of them all.

    Args:
        candidates: one caption a picture, split into words joined by blanks.
        references: the reference captions of each picture, split likewise.
        timeout: seconds after which a run is stopped (each starts in about eight).
    """

    def scores(run: Run) -> tuple[float, list[float]]:
        lines = [
            " ||| ".join(("SCORE", *texts, caption.replace("|||", "").replace("  ", " ")))
            for caption, texts in zip(candidates, references, strict=True)
        ]
        statistics = run(METEOR, "\n".join(lines) + "\n")
        if len(statistics) != len(lines):
            raise ValueError(f"gave {len(statistics)} lines for {len(lines)} captions")
        *each, total = map(float, run(METEOR, " ||| ".join(("EVAL", *statistics)) + "\n"))
        return total, each

    return _score("METEOR", METEOR_NEEDS, len(candidates), timeout, scores)


def spice(candidates: Texts, references: Sequence[Texts], timeout: float = 3600.0) -> JavaScore:
    """SPICE 1.0, as the COCO caption evaluation computes it.

    It needs the Stanford CoreNLP 3.6.0 jars, which pycocoevalcap downloads on first use. They are
    never downloaded here.

    Args:
        candidates: one caption a picture, split into words joined by blanks.
        references: the reference captions of each picture, split likewise.
        timeout: seconds after which the program is stopped.
    """

    def scores(run: Run) -> tuple[float, list[float]]:
        pictures = [
            {"image_id": i, "test": caption, "refs": list(texts)}
            for i, (caption, texts) in enumerate(zip(candidates, references, strict=True))
        ]
        with tempfile.TemporaryDirectory() as folder:
            given, written = Path(folder) / "captions.json", Path(folder) / "scores.json"
            given.write_text(json.dumps(pictures), encoding="utf-8")
            run((*SPICE, str(given), "-out", str(written), "-subset", "-silent"), "")
            rows = json.loads(written.read_text(encoding="utf-8"))
        by_picture = {row["image_id"]: float(row["scores"]["All"]["f"]) for row in rows}
        each = [by_picture[i] for i in range(len(pictures))]
        return math.fsum(each) / len(each), each

    return _score("SPICE", SPICE_NEEDS, len(candidates), timeout, scores)


def _score(
    name: str,
    needs: Sequence[str],
    pictures: int,
    timeout: float,
    scores: Callable[[Run], tuple[float, list[float]]],
) -> JavaScore:
    """The score of a program in pycocoevalcap, or the reason why there is none."""
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        return JavaScore(
            None, reason="pycocoevalcap is not installed (pip install 'gazetell[coco]')"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / name.lower()
    if missing := [file for file in needs if not (folder / file).is_file()]:
        return JavaScore(None, reason=f"pycocoevalcap has no {name.lower()}/{missing[0]}")
    java = shutil.which("java")
    if java is None:
        return JavaScore(None, reason="Java is not installed (no 'java' on the PATH)")

    def run(options: Sequence[str], text: str) -> list[str]:
        """The lines that the program prints."""
        done = subprocess.run(
            [java, *options],
            cwd=folder,
            input=text.encode("utf-8", errors="replace"),
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            said = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
            raise ValueError(said[-1].strip() if said else f"exit status {done.returncode}")
        return done.stdout.decode("utf-8", errors="replace").splitlines()

    try:
        total, each = scores(run)
        if len(each) != pictures or not math.isfinite(total):
            raise ValueError("gave no number for some pictures")
    except subprocess.TimeoutExpired:
        return JavaScore(None, reason=f"{name} took longer than {timeout:g} s")
    except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError) as error:
        return JavaScore(None, reason=f"{name} failed: {error or type(error).__name__}")
    return JavaScore(total, tuple(each))

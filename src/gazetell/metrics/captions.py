"""Scores of captions, as the official COCO caption evaluation (pycocoevalcap) prints them.

METEOR and SPICE exist only in Java; the programs come with pycocoevalcap. Where it or Java is
absent, or a program fails, a metric is "not computed": its score is None, with the reason, never 0
and never an exception. pycocoevalcap's own wrappers are not used. That for METEOR waits for ever on
a program that has died, and that for SPICE starts a download. The programs are given the same text
and options.

References: Chen et al. 2015, Microsoft COCO Captions: Data Collection and Evaluation Server;
Denkowski and Lavie 2014, Meteor Universal; Anderson et al. 2016, SPICE.
"""

import importlib.util
import json
import logging
import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .cider import CiderD
from .ngrams import bleu_counts, bleu_of_counts, count_ngrams, rouge_l
from .words import at_blanks, check_pairs, split, unspaced_texts

TITLES = {
    **{f"bleu_{n}": f"BLEU-{n}" for n in range(1, 5)},
    **{"rouge_l": "ROUGE-L", "cider": "CIDEr", "cider_d": "CIDEr-D"},
    **{"meteor": "METEOR", "spice": "SPICE", "accuracy": "accuracy"},
    **{"ece": "ECE", "brier": "Brier", "auroc": "AUROC", "risk_coverage_area": "AURC"},
}
"""What a person reads for the key of a metric."""

METRICS = tuple(TITLES)[:9]
"""The keys of `score_captions`, in the order of a table."""

Words = list[list[str]]

logger = logging.getLogger(__name__)


def points(name: str, value: float | None, form: str = "") -> str:
    """A metric as a person reads it: from 0 to 100, CIDEr to 1,000.

    Args:
        name: its key; an accuracy is in 0 to 100 as it is.
        value: as JSON files have it; None for one that is not computed.
        form: of the number; one digit if not given, of an accuracy two.
    """
    if value is None:
        return "not computed"
    form = form or (".2f" if name == "accuracy" else ".1f")
    return format(value if name == "accuracy" else 100 * value, form)


def score_captions(
    references: Mapping[str, Sequence[str]],
    predictions: Mapping[str, str],
    *,
    java: bool = False,
) -> dict[str, float | None]:
    """Score captions against references, as the official COCO caption evaluation does.

    ``cider`` and ``cider_d`` are the same number under its two names: what pycocoevalcap, and
    every table of results, calls CIDEr is CIDEr-D (see `gazetell.metrics.cider`). Document
    frequencies are those of the references given, so a score depends on the set of pictures.

    Args:
        references: the reference captions of each picture, at least one.
        predictions: the caption of each of the same pictures; one without words scores as empty.
        java: also compute METEOR and SPICE, which need Java and pycocoevalcap.

    Returns:
        The scores under `METRICS`, in [0, 1] (CIDEr in [0, 10]). None means not computed; for
        METEOR and SPICE with ``java`` the reason is logged as a warning.

    Raises:
        ValueError: no pictures, different pictures in the two, or one without references.
    """
    candidates, texts = _split(references, predictions)
    found = Scored.of(candidates, texts)
    scores: dict[str, float | None] = dict.fromkeys(METRICS)
    scores |= found.scores | {"cider_d": found.scores["cider"]}
    if java:
        lines = [" ".join(words) for words in candidates]
        reference_lines = [[" ".join(words) for words in captions] for captions in texts]
        for name, metric in (("meteor", meteor), ("spice", spice)):
            result = metric(lines, reference_lines)
            scores[name] = result.score
            if result.score is None:
                logger.warning("%s not computed: %s", name.upper(), result.reason)
    return scores


def caption_scores(
    references: Mapping[str, Sequence[str]], predictions: Mapping[str, str]
) -> dict[str, float]:
    """The CIDEr of each picture's caption, for lists of the best and the worst.

    Arguments and errors are those of `score_captions`.

    Returns:
        A score in [0, 10] for each picture, in the order of ``predictions``. Their mean is the
        ``cider`` of `score_captions`.
    """
    candidates, texts = _at_blanks(*_split(references, predictions))
    return dict(zip(predictions, CiderD(texts).score(candidates).tolist(), strict=True))


def person_level(references: Mapping[str, Sequence[str]]) -> float | None:
    """The CIDEr that half of the people's captions exceed, each against the others of its picture.

    Document frequencies are those of all references. None where every picture has one alone.

    Args:
        references: the reference captions of each picture, at least one.
    """
    texts = [
        [at_blanks(split(caption)) for caption in captions] for captions in references.values()
    ]
    scores = CiderD(texts).people(texts)
    known = scores[~np.isnan(scores)]
    return float(np.median(known)) if len(known) else None


def cider_problem(references: Mapping[str, Sequence[str]]) -> str | None:
    """Why CIDEr cannot tell good captions from bad ones against these references.

    It is 0 for every caption where all pictures share all their n-grams: of one picture, or of
    references that are alike. Of text without blanks between words the official splitter makes
    one word a sentence. A model must not be chosen by such a figure.

    Args:
        references: the reference captions of each picture, at least one.

    Returns:
        The reason, half a sentence for a message; None if CIDEr can tell.
    """
    captions = [caption for texts in references.values() for caption in texts]
    unspaced = unspaced_texts(captions)
    if 2 * unspaced.total() > len(captions):
        return (
            f"the references are in {' and '.join(unspaced)} without blanks between words, and "
            "the official splitter takes whole sentences for words"
        )
    if len(references) == 1:
        return "CIDEr of one picture is 0 by definition"
    sets = (
        {ngram for caption in texts for ngram in count_ngrams(at_blanks(split(caption)))}
        for texts in references.values()
    )
    first = next(sets, set())
    if all(ngrams == first for ngrams in sets):
        return "the references of all pictures are alike, and CIDEr is 0 by definition"
    return None


@dataclass(frozen=True)
class Scored:
    """What captions score: on the set, and in each picture what the scores of a draw need."""

    scores: dict[str, float]
    counts: NDArray[np.float64]  # (pictures, 10), see bleu_counts
    means: NDArray[np.float64]  # (pictures, 2): ROUGE-L and CIDEr

    @classmethod
    def of(cls, candidates: Words, texts: list[Words]) -> "Scored":
        """Score the words of captions and of their references."""
        spaced, spaced_texts = _at_blanks(candidates, texts)
        counts = bleu_counts(spaced, spaced_texts)
        bleus = bleu_of_counts(counts.sum(axis=0, keepdims=True))[:, 0]
        rouge, rouges = rouge_l(candidates, texts)
        ciders = CiderD(spaced_texts).score(spaced)
        scores = {f"bleu_{n}": float(score) for n, score in enumerate(bleus, start=1)}
        scores |= {"rouge_l": rouge, "cider": float(ciders.mean())}
        return cls(scores, counts, np.stack([rouges, ciders], axis=1))

    @classmethod
    def in_order(
        cls, references: Mapping[str, Sequence[str]], captions: Mapping[str, str]
    ) -> "Scored":
        """Score captions, pictures in the order of the references."""
        ordered = {picture: captions[picture] for picture in references if picture in captions}
        # Captions of other pictures stay, to be refused by name.
        return cls.of(*_split(references, {**ordered, **captions}))


def _split(
    references: Mapping[str, Sequence[str]], predictions: Mapping[str, str]
) -> tuple[Words, list[Words]]:
    """The words of predictions and references, pictures in the order of ``predictions``."""
    check_pairs(references, predictions, "picture")
    return (
        [split(caption) for caption in predictions.values()],
        [[split(caption) for caption in references[picture]] for picture in predictions],
    )


def _at_blanks(candidates: Words, texts: list[Words]) -> tuple[Words, list[Words]]:
    """Words for BLEU and CIDEr."""
    return (
        [at_blanks(words) for words in candidates],
        [[at_blanks(words) for words in captions] for captions in texts],
    )


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
            None, reason="pycocoevalcap is not installed (pip install pycocoevalcap; extra coco)"
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

"""Compare gazetell's captioning metrics with pycocoevalcap: same figures, and how fast.

    python benchmarks/metrics_parity.py --captions Flickr8k.token.txt questions.json

Needs Java and pycocoevalcap. Prints, for each file of texts, on how many the two split into
different words; then the largest difference of each metric on random captions and on the
captions of the files; then the time that both take for 5,000 pictures of five references in one
and the same run. With --golden FOLDER it computes anew, with pycocoevalcap, the figures that
the tests compare with.
"""

import argparse
import gzip
import json
import random
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from gazetell.metrics import bleu, cider_d, meteor, rouge_l, split

NAMES = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider")
Words = list[str]

# Pieces that nasty captions are made of.
PIECES = re.findall(
    r"\S+",
    """a b I no not can cannot don't it's dog's dogs' 'em 'n' rock o'clock ma'am O' y'all gonna
U.S. u.s p.m. a.m etc. etc Mr. mr Inc. inc co. St. Jan. Calif. no. No. fig. La. la. e.g. Ph.D. vs.
1 2 12 123 415 555 1234 2015 1,000 1.5 .5 -1 +1 1/2 3/4 1st 50s 1950's '90s 10:30 am $ £ € ¢ % # &
+ = * @ ^ ~ _ | \\ / < > ( ) [ ] { } " ' `` '' ` “ ” ‘ ’ « » - -- --- – — … ... .. . , ; : ? ! ?!
é café naïve 日本 привет ½ ² ° © → ★ AT&T R&B C++ C# T-shirt black-and-white and/or w/o www.a.com
http://a.b.com/c?d=1 a@b.com @me #tag <b> </b> <unk> &amp; &lt; &quot; &apos; :) :-( :D ^_^ -lrb-
n't 's 'll 're ' 's-eye-view jack-o'-lantern 4x4 mp3 3-D 9/11 24/7 US$ A. B. J.R. O.K. 'tis 'twas
lemme foo.txt a.jpg word.word no!! yes??""",
)


def nasty_text(rng: random.Random) -> str:
    """A text of random pieces or random characters."""
    if rng.random() < 0.6:
        ends = ["", " ", " ", "", "-", ".", ",", " ", "'", "/"]
        parts = [rng.choice(PIECES) + rng.choice(ends) for _ in range(rng.randint(1, 6))]
        return "".join(parts).strip()
    letters = "abnst'’-./,.:;!?&@#$%()<>[]\"+=*_ 0123 ABNST é"
    return "".join(rng.choice(letters) for _ in range(rng.randint(2, 14))).strip()


def random_set(rng: random.Random) -> tuple[list[Words], list[list[Words]]]:
    """Candidates and references of random words: short, repetitive, sometimes empty."""
    vocabulary = [f"w{i}" for i in range(rng.choice([2, 5, 30]))]

    def text(lengths: list[int]) -> Words:
        return [rng.choice(vocabulary) for _ in range(rng.choice(lengths))]

    pictures = rng.randint(1, 6)
    candidates = [text([0, 1, 2, 3, 5, 9]) for _ in range(pictures)]
    references = [
        [text([1, 1, 2, 3, 5, 9, 0]) for _ in range(rng.randint(1, 5))] for _ in range(pictures)
    ]
    references[0][0] = references[0][0] or ["w0"]  # pycocoevalcap fails where no text has a word
    return candidates, references


def java_words(texts: list[str]) -> list[Words]:
    """What pycocoevalcap makes of texts, one Java call. The last gets a line end, as the rest."""
    captions = {i: [{"caption": text}] for i, text in enumerate([*texts, "end"])}
    found = PTBTokenizer().tokenize(captions)
    return [found[i][0].split(" ") if found[i][0] else [] for i in range(len(texts))]


def official(candidates: list[Words], references: list[list[Words]]) -> dict[str, Any]:
    """Scores of the set, of each picture, and seconds, by pycocoevalcap."""
    gts = {i: [" ".join(text) for text in texts] for i, texts in enumerate(references)}
    res = {i: [" ".join(text)] for i, text in enumerate(candidates)}
    start = time.perf_counter()
    bleus, each_bleu = Bleu(4).compute_score(gts, res, verbose=0)
    at_bleu = time.perf_counter()
    rouge, each_rouge = Rouge().compute_score(gts, res)
    at_rouge = time.perf_counter()
    cider, each_cider = Cider().compute_score(gts, res)
    end = time.perf_counter()
    return {
        "set": np.array([*bleus, rouge, cider]),
        "each": np.array([*each_bleu, each_rouge, each_cider]),
        "seconds": np.array([at_bleu - start, at_rouge - at_bleu, end - at_rouge]),
    }


def ours(candidates: list[Words], references: list[list[Words]]) -> dict[str, Any]:
    """The same by gazetell."""
    start = time.perf_counter()
    bleus, each_bleu = bleu(candidates, references)
    at_bleu = time.perf_counter()
    rouge, each_rouge = rouge_l(candidates, references)
    at_rouge = time.perf_counter()
    cider, each_cider = cider_d(candidates, references)
    end = time.perf_counter()
    return {
        "set": np.array([*bleus, rouge, cider]),
        "each": np.array([*each_bleu, each_rouge, each_cider]),
        "seconds": np.array([at_bleu - start, at_rouge - at_bleu, end - at_rouge]),
    }


def differences(candidates: list[Words], references: list[list[Words]]) -> np.ndarray:
    """Largest difference of each metric, of the set or of a picture, shape (6,)."""
    mine, theirs = ours(candidates, references), official(candidates, references)
    each = np.abs(mine["each"] - theirs["each"]).max(axis=1)
    return np.maximum(each, np.abs(mine["set"] - theirs["set"]))


def read_texts(path: Path) -> dict[str, list[str]]:
    """Texts by picture: a Flickr token file, VQA questions (JSON, also gzipped), or plain lines."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    text = data.decode("utf-8")
    found: dict[str, list[str]] = {}
    if ".json" in path.name:
        for row in json.loads(text)["questions"]:
            found.setdefault(str(row["question_id"]), []).append(row["question"])
        return found
    for number, line in enumerate(text.splitlines()):
        name, tab, caption = line.rpartition("\t")
        found.setdefault(name.split("#")[0] if tab else str(number), []).append(caption)
    return found


def report_words(name: str, texts: list[str]) -> None:
    """Print on how many texts the splitters differ, and the first of these."""
    start = time.perf_counter()
    mine = [split(text) for text in texts]
    middle = time.perf_counter()
    theirs = java_words(texts)
    end = time.perf_counter()
    bad = [i for i in range(len(texts)) if mine[i] != theirs[i]]
    print(
        f"{name:34} {len(texts):8,d} texts  {len(bad):5d} differ ({len(bad) / len(texts):8.4%})"
        f"   {middle - start:6.2f} s, Java {end - middle:6.2f} s"
    )
    for i in bad[:5]:
        print(f"    {texts[i]!r}\n      java {theirs[i]}\n      ours {mine[i]}")


def report_metrics(name: str, sets: list[tuple[list[Words], list[list[Words]]]]) -> None:
    """Print the largest difference of each metric over sets of captions."""
    worst = np.max([differences(*one) for one in sets], axis=0)
    pictures = sum(len(candidates) for candidates, _ in sets)
    figures = "  ".join(f"{metric} {value:.1e}" for metric, value in zip(NAMES, worst, strict=True))
    print(f"{name:34} {pictures:8,d} pictures  {figures}")


def held_out(captions: list[list[Words]]) -> tuple[list[Words], list[list[Words]]]:
    """Take the first caption of each picture as the candidate for the others."""
    several = [texts for texts in captions if len(texts) > 1]
    return [texts[0] for texts in several], [texts[1:] for texts in several]


def report_speed(rng: random.Random, captions: list[list[Words]]) -> None:
    """Time both on 5,000 pictures of five references; random captions where none are given."""
    if sum(len(texts) >= 5 for texts in captions) < 5000:
        # A few thousand words, the rank deciding how often, as in captions.
        vocabulary = [f"w{i}" for i in range(5000)]
        weights = [1 / (rank + 1) for rank in range(5000)]
        captions = [
            [rng.choices(vocabulary, weights, k=rng.randint(7, 16)) for _ in range(5)]
            for _ in range(5000)
        ]
    references = [texts[:5] for texts in captions if len(texts) >= 5][:5000]
    candidates = [references[i - 1][0] for i in range(len(references))]
    theirs = official(candidates, references)["seconds"]
    mine = ours(candidates, references)["seconds"]
    print("\nseconds for 5,000 pictures of five references, words given")
    print(f"{'':16}{'BLEU':>8}{'ROUGE-L':>9}{'CIDEr':>8}{'all':>8}")
    for name, seconds in (("pycocoevalcap", theirs), ("gazetell", mine)):
        bleus, rouge, cider = seconds
        print(f"{name:16}{bleus:8.2f}{rouge:9.2f}{cider:8.2f}{seconds.sum():8.2f}")


def report_meteor(candidates: list[Words], references: list[list[Words]]) -> None:
    """Compare METEOR, the same Java program through two doors."""
    lines = [" ".join(words) for words in candidates]
    texts = [[" ".join(words) for words in captions] for captions in references]
    mine = meteor(lines, texts)
    if mine.score is None:
        print(f"METEOR not computed: {mine.reason}")
        return
    gts, res = dict(enumerate(texts)), {i: [line] for i, line in enumerate(lines)}
    score, each = Meteor().compute_score(gts, res)
    worst = max(abs(score - mine.score), np.abs(np.array(each) - mine.per_picture).max())
    print(f"{'METEOR':34} {len(lines):8,d} pictures  meteor {worst:.1e}")


def write_golden(folder: Path) -> None:
    """Compute anew the expected figures in the files of ``folder``; their texts stay."""
    path = folder / "captions_words.json"
    cases = json.loads(path.read_text(encoding="utf-8"))
    texts = [text for text, _ in cases]
    # A line between any two, so that none is read with the next.
    words = java_words([line for text in texts for line in (text, "and")])[::2]
    rows = [json.dumps(case, ensure_ascii=False) for case in zip(texts, words, strict=True)]
    path.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")

    path = folder / "captions_scores.json"
    cases = json.loads(path.read_text(encoding="utf-8"))
    for case in cases:
        names = list(case["references"])
        sizes = [len(case["references"][name]) for name in names]
        texts = [text for name in names for text in case["references"][name]]
        found = iter(java_words(texts))
        references = [[next(found) for _ in range(size)] for size in sizes]
        candidates = java_words([case["predictions"][name] for name in names])
        scores = official(candidates, references)
        case["scores"] = dict(zip(NAMES, scores["set"].tolist(), strict=True))
        case["cider"] = dict(zip(names, scores["each"][-1].tolist(), strict=True))
    path.write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--captions", type=Path, nargs="*", default=[], metavar="FILE")
    parser.add_argument("--random", type=int, default=20000, help="random texts to split")
    parser.add_argument("--sets", type=int, default=1000, help="random sets to score")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--meteor", action="store_true", help="compare METEOR too")
    parser.add_argument("--golden", type=Path, metavar="FOLDER", help="only rewrite its figures")
    options = parser.parse_args()
    if options.golden:
        write_golden(options.golden)
        return 0
    rng = random.Random(options.seed)

    files = {path: read_texts(path) for path in options.captions}
    for path, texts in files.items():
        report_words(path.name, [text for captions in texts.values() for text in captions])
    nasty = [nasty_text(rng) for _ in range(options.random)]
    report_words("random, nasty", nasty)

    print("\nlargest difference, of a set or of a picture")
    report_metrics("random sets", [random_set(rng) for _ in range(options.sets)])
    captions = [
        [split(text) for text in texts] for file in files.values() for texts in file.values()
    ]
    real = held_out(captions)
    if real[0]:
        report_metrics("captions of the files, held out", [real])
        mixed = [*real[0][1:], real[0][0]]
        report_metrics("the same, of the wrong picture", [(mixed, real[1])])
    if options.meteor:
        report_meteor(*(part[:500] for part in (real if real[0] else random_set(rng))))
    report_speed(rng, captions)
    return 0


if __name__ == "__main__":
    sys.exit(main())

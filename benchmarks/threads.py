"""Two processes of one thread, one of two threads, one of one: training on a CPU, captions/s.

    python benchmarks/threads.py [--models NAME ...] [--ways '2 x 1' ...] [--loads idle busy]

Each is ``gazetell train`` on pictures with captions of random words, 7 to 17 as in Flickr8k, or
with four questions: idle, and with a process beside it that keeps one core busy. ``found`` sets
no number of threads: training finds one itself. The encoder of the first three is frozen and its
features cached (7x7x1280); ``fine-tuned`` trains the last stages of a CNN at 128 px below
attention-lstm. Weights are random. A figure is the median of all epochs but the first, which warms
up, and the last, which validates.
"""

import json
import os
import random
import statistics
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from captioning import describe
from gazetell import scenes
from gazetell.data.records import CaptionRecord, Dataset, QuestionRecord
from gazetell.files import read_jsonl
from gazetell.models.precision import choose_precision

FROZEN = "--encoder mobilenet_v2 --encoder-weights none --encoder-size 224"
MODELS = {
    "attention-lstm": f"--architecture attention-lstm {FROZEN}",
    "show-attend-tell": f"--architecture show-attend-tell {FROZEN}",
    "dmn-plus": f"--architecture dmn-plus {FROZEN}",
    "fine-tuned": "--architecture attention-lstm --encoder mobilenet_v2 --encoder-weights none "
    "--encoder-size 128 --encoder-trainable last:6",
}
# Processes, and threads of each.
WAYS = {"1 x 2": (1, "2"), "1 x 1": (1, "1"), "2 x 1": (2, "1"), "found": (1, None)}
EACH = 5  # captions of a picture; questions are four


def make_data(folder: Path, pictures: int, words: int) -> None:
    """Scenes with captions and questions of random words, the frequent ones more often."""
    scenes.generate(folder, train=pictures, val=8, test=0)
    draw, drawn = random.Random(0), Dataset.open(folder)
    every = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdfgklmnprst"]
    every = [a + b for a in ("", *every[:9]) for b in every][:words]
    weights = [1 / (n + 10) for n in range(len(every))]

    def text() -> str:
        length = min(max(round(draw.gauss(11, 3)), 7), 17)
        return " ".join(draw.choices(every, weights, k=length))

    captions, questions = [], []
    for record in drawn.captions:
        about: Any = (record.id, record.image)
        captions.append(CaptionRecord(*about, tuple(text() for _ in range(EACH)), record.split))
        for n in range(4):
            answers = (draw.choice(every[:500]),)
            name = f"{record.id}-{n}"
            questions.append(QuestionRecord(name, record.image, text(), answers, record.split))
    Dataset("random", "table", drawn.root, tuple(captions), tuple(questions)).save(folder)


@contextmanager
def busy(cores: int) -> Iterator[None]:
    """Keep so many cores busy."""
    code = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(code) for _ in range(cores)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def rate(data: Path, options: list[str], processes: int, threads: str | None, epochs: int) -> float:
    """Captions or questions a second of one training."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    if threads:
        environment["OMP_NUM_THREADS"] = threads
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "gazetell", "train", str(data), "--out", f"{folder}/run"]
        command += [*options, "--device", "cpu", "--devices", str(processes)]
        command += ["--epochs", str(epochs), "--eval-every", str(epochs), "--min-frequency", "1"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
        rows = [row for _, row in read_jsonl(f"{folder}/run/metrics.jsonl")]
    train = Dataset.open(data).split("train")
    texts = len(train) * (4 if "dmn-plus" in options else EACH)
    return texts / statistics.median(row["seconds"] for row in rows[1:-1])


def measure(options: Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """Rates by model, load (``idle`` or ``busy``) and way."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    with TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        make_data(data, options.train_pictures, options.words)
        for model in options.models:
            given = [*MODELS[model].split(), *options.more.split()]
            rate(data, given, 1, None, 3)  # makes the cache
            for load in options.loads:
                with busy(int(load == "busy")):
                    rates = {
                        way: rate(data, given, *WAYS[way], options.epochs) for way in options.ways
                    }
                found.setdefault(model, {})[load] = rates
                shown = "  ".join(f"{way} {value:6.0f}/s" for way, value in rates.items())
                print(f"{model:<17} {load}  {shown}", flush=True)
    return found


def main() -> None:
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--loads", nargs="+", choices=("idle", "busy"), default=["idle", "busy"])
    parser.add_argument("--train-pictures", type=int, default=512)
    parser.add_argument("--words", type=int, default=3000, help="in the vocabulary")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--more", default="", help="options of gazetell train")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cpu = torch.device("cpu")
    about = describe(cpu, choose_precision(cpu))
    print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)
    found = {"machine": about, "threads": measure(options)}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""One process against two, one thread and one core each: features, training, bulk captioning.

    python benchmarks/scaling.py [--parts bare features training bulk] [--rounds 3] [--json FILE]

The verbs themselves are run, on generated JPEG files. One process is bound to one core; two have
two cores. ``features`` and ``bulk`` run on some pictures and on three times as many: the difference
leaves out what starting takes, which is given too. ``training`` takes the seconds of the epochs
after the first. What is compared takes turns; medians are given. Two processes are ``--engine ray``
for features and bulk work (extra cluster), and ``--devices 2`` for training.
``bare`` is what this machine gives at most: processes that know nothing of each other, each with
torchvision's network in plain PyTorch on pictures of its own.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from captioning import describe
from gazetell.files import read_jsonl
from gazetell.models.precision import choose_precision

AIMS = {"bare": 2.0, "features": 1.8, "training": 1.7, "bulk": 1.8}
BARE = """
import sys, time
import torch, torchvision
from PIL import Image
torch.set_num_threads(1)
name, *paths = sys.argv[1:]
network = torchvision.models.get_model(name).eval().to(memory_format=torch.channels_last)
passed = network.features
def batch(paths):
    tensor = torchvision.transforms.functional.pil_to_tensor
    opened = [tensor(Image.open(path).convert("RGB").resize((224, 224))) for path in paths]
    return (torch.stack(opened).float() / 255).contiguous(memory_format=torch.channels_last)
with torch.inference_mode():
    passed(batch(paths[:16]))
    print("ready", flush=True)
    sys.stdin.readline()
    for start in range(0, len(paths), 16):
        passed(batch(paths[start : start + 16]))
print("done", flush=True)
"""
MORE = 3  # times as many pictures
CPU = ("--device", "cpu", "--precision", "fp32")
Measure = Callable[[Path, int, Namespace], dict[str, float]]


def gazetell(processes: int, *arguments: str | Path) -> float:
    """Seconds of a command that may use so many cores, one thread a process."""
    cores = sorted(os.sched_getaffinity(0))[:processes]
    if len(cores) < processes:
        raise SystemExit(f"{processes} processes: expected {processes} cores, found {len(cores)}")
    command = [sys.executable, "-m", "gazetell", *map(str, arguments)]
    began = time.perf_counter()
    done = subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return time.perf_counter() - began


def make(folder: Path, pictures: int) -> None:
    """Pictures of 480x360 and a dataset of so many for training, with five captions each."""
    draw = np.random.default_rng(0)
    words = [f"word{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(500)]
    (folder / "pictures").mkdir()
    rows = []
    for number in range(pictures):
        rough = draw.integers(256, size=(12, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(rough).resize((480, 360), Image.Resampling.BICUBIC)
        name = f"{number:06d}.jpg"
        picture.save(folder / "pictures" / name, quality=90)
        said = [{"raw": " ".join(draw.choice(words, draw.integers(8, 14)))} for _ in range(5)]
        # Few for validation: its time is that of one process, and is not what is measured.
        split = "val" if number % 50 == 0 else "train"
        rows.append({"filename": name, "filepath": "", "split": split, "sentences": said})
    for few in (pictures // MORE, pictures):
        (folder / f"{few}.json").write_text(json.dumps({"images": rows[:few]}))
        gazetell(
            *(1, "data", "karpathy", folder / f"{few}.json", "--images", folder / "pictures"),
            *("--out", folder / f"data-{few}"),
        )
        chosen = folder / f"pictures-{few}"
        chosen.mkdir()
        for row in rows[:few]:
            os.link(folder / "pictures" / row["filename"], chosen / row["filename"])


def difference(seconds: dict[int, float]) -> dict[str, float]:
    """Pictures a second, and seconds of starting, of two runs by their number of pictures.

    Both are NaN where too few pictures tell nothing.
    """
    (few, first), (many, second) = sorted(seconds.items())
    rate = (many - few) / (second - first) if second > first else float("nan")
    return {"rate": rate, "start": first - few / rate}


def bare(folder: Path, processes: int, options: Namespace) -> dict[str, float]:
    paths = [str(path) for path in sorted((folder / "pictures").iterdir())]
    cores, began = sorted(os.sched_getaffinity(0))[:processes], time.perf_counter()
    runs = []
    for number in range(processes):
        command = [sys.executable, "-c", BARE, options.encoder, *paths[number::processes]]
        one = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        os.sched_setaffinity(one.pid, cores)
        runs.append(one)
    said = [run.stdout.readline() for run in runs if run.stdout]
    start = time.perf_counter() - began
    for run in runs:
        print(file=run.stdin, flush=True)
    said += [run.communicate()[0] for run in runs]
    if any(run.returncode for run in runs):
        raise SystemExit(f"the plain network failed: {said}")
    return {"rate": len(paths) / (time.perf_counter() - began - start), "start": start}


def features(folder: Path, processes: int, options: Namespace) -> dict[str, float]:
    how = ("--workers", "0", "--device", "cpu") if processes == 1 else ("--engine", "ray")
    seconds = {}
    for count in (options.pictures // MORE, options.pictures):
        fresh = folder / "fresh"
        shutil.copytree(folder / f"data-{count}", fresh, ignore=lambda *_: ["features"])
        seconds[count] = gazetell(
            *(processes, "features", fresh, "--encoder", options.encoder),
            *("--encoder-weights", "none", "--precision", "fp32", *how),
        )
        shutil.rmtree(fresh)
    return difference(seconds)


def training(folder: Path, processes: int, options: Namespace) -> dict[str, float]:
    out, data = folder / "run", folder / f"data-{options.pictures}"
    several = ("--devices", str(processes)) if processes > 1 else ()
    encoder = ("--encoder", options.encoder, "--encoder-weights", "none")
    if not (data / "features").exists():
        gazetell(1, "features", data, *encoder, *CPU)
    seconds = gazetell(
        *(processes, "train", data, "--out", out, "--architecture", "attention-lstm"),
        *(*encoder, "--min-frequency", "1"),
        *("--epochs", str(options.epochs), "--batch", str(options.batch), *CPU, *several),
    )
    rows = [row["seconds"] for _, row in read_jsonl(out / "metrics.jsonl")]
    shutil.rmtree(out)
    captions = 5 * sum(n % 50 > 0 for n in range(options.pictures))
    return {"rate": captions / statistics.median(rows[1:]), "start": seconds - sum(rows)}


def bulk(folder: Path, processes: int, options: Namespace) -> dict[str, float]:
    how = CPU if processes == 1 else ("--engine", "ray", *CPU)
    seconds = {}
    for count in (options.pictures // MORE, options.pictures):
        out = folder / "out.jsonl"
        seconds[count] = gazetell(
            *(processes, "describe", folder / f"pictures-{count}", "--out", out, *how)
        )
        for path in folder.glob("out.jsonl*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return difference(seconds)


PARTS: dict[str, Measure] = {
    "bare": bare,
    "features": features,
    "training": training,
    "bulk": bulk,
}


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--pictures", type=int, default=1200)
    parser.add_argument("--encoder", default="mobilenet_v2")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=48, help="pictures a step, of all processes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="to work in; a temporary one if not given")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.pictures < 100 or options.epochs < 2:
        parser.error("expected at least 100 pictures and 2 epochs")
    options.pictures -= options.pictures % MORE
    cpu = torch.device("cpu")
    found: dict[str, Any] = {"machine": describe(cpu, choose_precision(cpu, "fp32"))}
    print(", ".join(f"{key} {value}" for key, value in found["machine"].items()))
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        make(folder, options.pictures)
        print(f"{'':10} {'one':>9} {'two':>9} {'ratio':>6} {'aim':>5}   starts: one, two; rounds")
        for part in options.parts:
            rounds = [
                {processes: PARTS[part](folder, processes, options) for processes in (1, 2)}
                for _ in range(options.rounds)
            ]
            ratios = [row[2]["rate"] / row[1]["rate"] for row in rounds]
            middle = {
                (key, n): statistics.median(row[n][key] for row in rounds)
                for key in ("rate", "start")
                for n in (1, 2)
            }
            ratio = statistics.median(ratios)
            print(
                f"{part:10} {middle['rate', 1]:7.1f}/s {middle['rate', 2]:7.1f}/s {ratio:6.2f} "
                f"{AIMS[part]:5.1f}   {middle['start', 1]:.1f} s, {middle['start', 2]:.1f} s; "
                f"{' '.join(f'{x:.2f}' for x in ratios)}",
                flush=True,
            )
            found[part] = {"ratio": ratio, "aim": AIMS[part], "rounds": rounds}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The model as ONNX graphs beside torch, in one run: equal results, size, start, latency, 8 bits.

python benchmarks/onnx.py --pictures FOLDER --data PREPARED

- equal: captions by greedy and beam search, and answers, of ``--limit`` pictures
- size: installed files of what each way needs, by the distributions' own lists
- start: from a fresh process to its first caption, turn by turn
- latency: a caption of an opened file, turn by turn, both with ``--threads``
- int8: CIDEr of the test split in float32 and with matrices of 8 bits; of a dataset with questions
  exact match, and the share of answers that are torch's
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from stat import S_ISREG
from typing import Any

QUESTIONS = ("What is in the picture?", "How many people are there?", "Is it sunny?")
RUNNER = ("onnxruntime", "numpy", "pillow", "tokenizers")
FIRST = {
    "torch": "import gazetell; model = gazetell.load({model!r}, device='cpu', precision='fp32')",
    "onnx": "import gazetell.onnx; model = gazetell.onnx.load({graphs!r}, threads={threads})",
}


def needed(names: Iterable[str]) -> dict[str, Distribution]:
    """Distributions and all that they require here, by name; extras are left out."""
    found: dict[str, Distribution] = {}
    queue = list(names)
    while queue:
        name = re.sub(r"[-_.]+", "-", queue.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # of another system
        rows = (row for row in found[name].requires or () if "extra ==" not in row)
        queue += [re.split(r"[^\w.-]", row, maxsplit=1)[0] for row in rows]
    return found


def installed(names: Iterable[str]) -> float:
    """Megabytes of distributions and of what they require."""
    files = {}  # each once, though two distributions may name it
    for each in needed(names).values():
        for file in each.files or ():
            with suppress(OSError):
                found = os.stat(each.locate_file(file))
                files[found.st_dev, found.st_ino] = found
    return sum(found.st_size for found in files.values() if S_ISREG(found.st_mode)) / 1e6


def measure_size(options: Namespace) -> dict[str, Any]:
    requires = [re.split(r"[^\w.-]", row, maxsplit=1)[0] for row in base_requirements()]
    result = {"torch": installed(requires), "onnx": installed(RUNNER)}
    cuda = [name for name in needed(requires) if name.startswith(("nvidia-", "cuda-", "triton"))]
    alone = needed(cuda)
    result["torch_without_cuda"] = result["torch"] - installed(alone)
    for name, size in result.items():
        print(f"{name}: {size:.0f} MB installed")
    print(f"share: {result['onnx'] / result['torch']:.3f}")
    if options.graphs.is_dir():
        result["graphs"] = sum(x.stat().st_size for x in options.graphs.rglob("*.*")) / 1e6
        print(f"graphs: {result['graphs']:.1f} MB")
    return result


def base_requirements() -> list[str]:
    import tomllib

    text = (Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8")
    rows: list[str] = tomllib.loads(text)["project"]["dependencies"]
    return rows


def measure_start(options: Namespace) -> dict[str, Any]:
    picture, times = str(options.files[0]), {name: [] for name in FIRST}
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    for number in range(options.rounds + 1):
        for name, code in FIRST.items():
            code = code.format(model=options.model, graphs=str(options.graphs), **threads(options))
            began = time.perf_counter()
            command = [sys.executable, "-c", f"{code}; print(model.caption({picture!r}).text)"]
            subprocess.run(command, check=True, capture_output=True, env=environment)
            if number:  # the first brings the files into memory
                times[name].append(time.perf_counter() - began)
    return compared(times, "s from start to first caption", 1)


def threads(options: Namespace) -> dict[str, int]:
    return {"threads": options.threads}


def compared(times: dict[str, list[float]], what: str, factor: float) -> dict[str, Any]:
    result: dict[str, Any] = {name: factor * statistics.median(x) for name, x in times.items()}
    ratios = [a / b for a, b in zip(times["onnx"], times["torch"], strict=True)]
    result["share"] = statistics.median(ratios)
    print(f"{what}: torch {result['torch']:.2f}, onnx {result['onnx']:.2f}, {result['share']:.2f}")
    return result


def models(options: Namespace) -> dict[str, Any]:
    import torch

    import gazetell
    import gazetell.onnx

    torch.set_num_threads(options.threads)
    return {
        "torch": gazetell.load(options.model, device="cpu", precision="fp32"),
        "onnx": gazetell.onnx.load(options.graphs, threads=options.threads),
    }


def measure_latency(options: Namespace) -> dict[str, Any]:
    both, result = models(options), {}
    for beam in (1, 3):
        times: dict[str, list[float]] = {name: [] for name in both}
        for number, file in enumerate(options.files[: options.captions + 3]):
            for name, model in both.items():
                began = time.perf_counter()
                model.caption(file, beam=beam)
                if number >= 3:
                    times[name].append(time.perf_counter() - began)
        result[f"beam_{beam}"] = compared(times, f"ms a caption, beam {beam}", 1000)
    return result


def measure_equal(options: Namespace) -> dict[str, Any]:
    import numpy as np

    both = models(options)
    count, same = len(options.files), dict.fromkeys(("beam 1", "beam 3", "answers"), 0)
    most = dict.fromkeys(("attention", "confidence"), 0.0)
    for file in options.files:
        encoded = {name: model.encode(file) for name, model in both.items()}

        def pair(run: Callable[[Any, Any], Any], encoded: dict[str, Any] = encoded) -> list[Any]:
            return [run(both[name], encoded[name]) for name in both]

        rows = [
            (f"beam {beam}", pair(lambda model, x, beam=beam: model.caption(x, beam=beam)))
            for beam in (1, 3)
        ]
        rows += [("answers", pair(lambda model, x, q=q: model.ask(x, q))) for q in QUESTIONS]
        for name, (a, b) in rows:
            same[name] += a.text == b.text
            if a.text == b.text:
                for key in most:
                    apart = np.abs(np.subtract(getattr(a, key), getattr(b, key))).max(initial=0)
                    most[key] = max(most[key], float(apart))
    same["answers"] /= len(QUESTIONS)
    print(f"equal of {count}: {same}; most apart: {most}")
    return {"pictures": count, "equal": same, "most": most}


def measure_int8(options: Namespace) -> dict[str, Any]:
    import gazetell.onnx
    from gazetell.data.records import Dataset
    from gazetell.metrics import score_captions

    dataset, result = Dataset.open(options.data), {}
    if dataset.questions:
        return measure_answers(options, dataset)
    records = dataset.split(options.split)[: options.records]
    people = {record.image: list(record.captions) for record in records}
    for name in ("float32", "int8"):
        folder = options.graphs if name == "float32" else export(options, int8=True)
        model = gazetell.onnx.load(folder, threads=options.threads)
        told = {image: model.caption(dataset.root / image).text for image in people}
        figures = score_captions(people, told)
        size = sum(x.stat().st_size for x in folder.rglob("*.onnx")) / 1e6
        result[name] = {"CIDEr": 100 * figures["cider"], "MB": size}
        print(f"{name}: {len(people)} pictures, CIDEr {100 * figures['cider']:.2f}, {size:.1f} MB")
    return result


def measure_answers(options: Namespace, dataset: Any) -> dict[str, Any]:
    """Exact match, the share of answers that are torch's, and how far the confidence is off."""
    import gazetell.onnx
    from gazetell.metrics.answers import exact_match

    rows = [row for row in dataset.questions if row.split == options.split][: options.records]
    every = models(options)
    every["int8"] = gazetell.onnx.load(export(options, int8=True), threads=options.threads)
    answers: dict[str, list[Any]] = {name: [] for name in every}
    image, encoded = "", {}
    for row in rows:
        if row.image != image:
            image = row.image
            encoded = {name: x.encode(dataset.root / image) for name, x in every.items()}
        for name, model in every.items():
            answers[name].append(model.ask(encoded[name], row.question))
    result: dict[str, Any] = {"questions": len(rows)}
    for name, given in answers.items():
        pairs = list(zip(given, answers["torch"], strict=True))
        right = sum(exact_match(r.answers, x.text) for x, r in zip(given, rows, strict=True))
        result[name] = {
            "exact_match": 100 * right / len(rows),
            "equal": 100 * sum(x.text == y.text for x, y in pairs) / len(rows),
            "confidence_apart": max(abs(x.confidence - y.confidence) for x, y in pairs),
        }
        print(f"{name}: {len(rows)} questions, {result[name]}")
    return result


def export(options: Namespace, *, int8: bool = False) -> Path:
    """The graphs of the model, made where they are not there."""
    folder = options.graphs.with_name(f"{options.graphs.name}-int8") if int8 else options.graphs
    if not folder.is_dir():
        command = [sys.executable, "-m", "gazetell", "export", options.model, "--onnx", str(folder)]
        subprocess.run([*command, *["--int8"] * int8], check=True)
    return Path(folder)


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parts: dict[str, Callable[[Namespace], Any]] = {
        "size": measure_size,
        "start": measure_start,
        "latency": measure_latency,
        "equal": measure_equal,
        "int8": measure_int8,
    }
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--model", default="photo")
    parser.add_argument("--graphs", type=Path, help="made where it is not there")
    parser.add_argument("--pictures", type=Path, help="of start, latency and equal")
    parser.add_argument("--data", type=Path, help="of int8")
    parser.add_argument("--split", default="test")
    parser.add_argument("--records", type=int, default=None, help="of int8; all if not given")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--captions", type=int, default=50, help="of latency")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        options.graphs = options.graphs or Path(temporary) / "graphs"
        if set(options.parts) != {"size"}:
            export(options)
        if options.pictures:
            options.files = sorted(options.pictures.rglob("*.jpg"))[: options.limit]
        result: dict[str, Any] = {}
        for part in options.parts:
            print(f"\n{part} (load {os.getloadavg()[0]:.1f}, {options.threads} thread)")
            result[part] = parts[part](options)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""How fast one photograph is captioned, against what cannot be avoided, in one run.

    python benchmarks/photo.py [--parts caption command] [--json FILE]

``caption``: a greedy caption of one picture, as the service makes it (the encoder, then so many
words and ``<end>``), against the encoder alone. The input is there already (uint8 pixels).

``command``: ``gazetell caption photo.jpg`` on a JPEG of 12 megapixels, against a Python that
imports torch and torchvision and does nothing.

The weights are random, and the length of the caption is set: a trained model costs the same. What
is compared takes turns, so that a drifting machine treats all alike. A round is the
median of a few runs; the ratio is the median of the rounds'.
"""

import json
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from captioning import clock, describe, take_turns
from gazetell.data.text import Tokenizer
from gazetell.inference.predict import Captioner
from gazetell.models.captioners import build_captioner
from gazetell.models.encoders import Encoder, EncoderConfig
from gazetell.models.folder import CaptionerFolder, save_model
from gazetell.models.precision import choose_device, choose_precision

ARCHITECTURES = ("attention-lstm", "show-attend-tell")


def tokenizer(words: int) -> Tokenizer:
    """A vocabulary of about so many words that mean nothing."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    texts = ["".join(letters[[n // 676, n // 26 % 26, n % 26]]) for n in range(words)]
    return Tokenizer.train([" ".join(texts)], min_frequency=1)


def build(architecture: str, options: Namespace) -> CaptionerFolder:
    """A captioner with random weights on an encoder with random weights."""
    torch.manual_seed(options.seed)
    words = tokenizer(options.words)
    encoder = Encoder(EncoderConfig(options.encoder, "none")).eval()
    sizes = {"channels": encoder.channels, "vocabulary": words.vocab_size}
    network = build_captioner(architecture, **sizes, hidden=options.hidden).eval()
    return CaptionerFolder(captioner=network, encoder=encoder, tokenizer=words)


def timed(work: Callable[[], Any], device: torch.device, times: int) -> Callable[[], float]:
    """Milliseconds of a piece of work, the median of a few."""

    def run() -> float:
        found = []
        for _ in range(times):
            began = clock(device)
            work()
            found.append(clock(device) - began)
        return 1000 * statistics.median(found)

    return run


def measure_caption(options: Namespace) -> dict[str, Any]:
    result = {}
    for architecture in ARCHITECTURES:
        folder = build(architecture, options)
        model = Captioner(folder, device=options.device, precision=options.precision)
        side = model.encoder.size
        pixels = torch.randint(256, (1, 3, side, side), dtype=torch.uint8)
        grid = model.grid(pixels)
        how = model.options(beam=1, min_length=options.length, max_length=options.length)

        def caption(model: Captioner = model, pixels: Any = pixels, how: Any = how) -> None:
            model.decode(model.grid(pixels), how)

        def encode(model: Captioner = model, pixels: Any = pixels) -> None:
            model.grid(pixels)

        runs = {"encoder": encode, "caption": caption}
        rates = take_turns(
            options.rounds,
            {name: timed(run, model.device, options.repeats) for name, run in runs.items()},
        )
        result[architecture] = row = compare(rates)
        print(
            f"{architecture}, {len(model.decode(grid, how)[0].words)} words, "
            f"{model.precision.name}: encoder {row['encoder']:.1f} ms, encoder and caption "
            f"{row['caption']:.1f} ms, ratio {row['ratio']:.2f}"
        )
    return result


def compare(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Medians of two times, and of the second's ratio to the first in each round."""
    ratios = [b / a for a, b in zip(*rates.values(), strict=True)]
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {**medians, "ratio": statistics.median(ratios), "ratios": ratios}


def measure_command(options: Namespace) -> dict[str, Any]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder / "model", build(ARCHITECTURES[0], options), compact=True)
        coarse = np.random.default_rng(options.seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        photo = Image.fromarray(coarse).resize((4000, 3000), Image.Resampling.BICUBIC)
        photo.save(folder / "photo.jpg", quality=90)
        command = ["caption", folder / "photo.jpg", "--model", folder / "model"]
        command += ["--device", str(options.device), "--precision", options.precision]
        runs = {
            "imports": [sys.executable, "-c", "import torch, torchvision"],
            "caption": [sys.executable, "-m", "gazetell", *command],
        }

        def seconds(words: list[Any]) -> Callable[[], float]:
            def run() -> float:
                began = time.perf_counter()
                subprocess.run(words, check=True, capture_output=True)
                return time.perf_counter() - began

            return run

        rates = take_turns(options.rounds, {name: seconds(words) for name, words in runs.items()})
    row = compare(rates)
    print(
        f"gazetell caption, 12 megapixels: {row['caption']:.2f} s; import torch, torchvision: "
        f"{row['imports']:.2f} s; ratio {row['ratio']:.2f}"
    )
    return row


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parts = {"caption": measure_caption, "command": measure_command}
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--encoder", default="efficientnet-lite2")
    numbers = {"words": 4000, "hidden": 512, "length": 10, "repeats": 11, "rounds": 5, "seed": 0}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="auto, bf16 or fp32")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.device = str(choose_device(options.device))
    device = torch.device(options.device)
    machine = describe(device, choose_precision(device, options.precision))
    result: dict[str, Any] = {"machine": machine}
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    for part in options.parts:
        result[part] = parts[part](options)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

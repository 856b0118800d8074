"""The feature pass against the bare encoder, in one run.

    python benchmarks/features.py DATA --encoder mobilenet_v2 --weights FILE [--pictures 2000]

Prints pictures/s of (a) the encoder's forward pass on tensors that lie ready in memory, (b) the
whole pass: opening, resizing, encoding, writing; and (b)/(a). The two alternate in rounds, so
that a machine whose speed drifts treats them alike; medians are given.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from gazetell.data.records import Dataset
from gazetell.features import build_cache
from gazetell.models.encoders import Encoder, EncoderConfig
from gazetell.models.precision import choose_device, choose_precision
from gazetell.pictures import open_image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoder", default="mobilenet_v2")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--pictures", type=int, default=1536)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    dataset = Dataset.open(arguments.data)
    names = sorted({record.image for record in dataset.captions})[: arguments.pictures]
    few = replace(
        dataset, captions=tuple(r for r in dataset.captions if r.image in set(names)), questions=()
    )
    device = choose_device(arguments.device)
    precision = choose_precision(device)
    encoder = Encoder(EncoderConfig(arguments.encoder, arguments.weights)).eval()
    encoder = encoder.to(device, memory_format=torch.channels_last)
    some = [
        encoder.frame.pixels(open_image(dataset.root / name))
        for name in names[: 4 * arguments.batch]
    ]
    ready = torch.from_numpy(np.stack(some)).split(arguments.batch)

    def bare() -> float:
        done, began = 0, time.perf_counter()
        with torch.inference_mode(), precision.autocast(device):
            while done < len(names):
                for images in ready:
                    encoder.encode(images.to(device)).cells.to(torch.float16).cpu()
                    done += len(images)
        return done / (time.perf_counter() - began)

    def whole() -> float:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            build_cache(
                replace(few, folder=Path(folder)),
                encoder,
                device,
                precision,
                batch=arguments.batch,
                workers=arguments.workers,
            )
            return len(names) / (time.perf_counter() - began)

    bare()
    rounds = [(bare(), whole()) for _ in range(arguments.rounds)]
    ratios = [b / a for a, b in rounds]
    print(f"{arguments.encoder}, {len(names)} pictures, {device.type}, {precision.name}")
    print(f"bare forward pass  {statistics.median(a for a, _ in rounds):8.1f} pictures/s")
    print(f"whole pass         {statistics.median(b for _, b in rounds):8.1f} pictures/s")
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"ratio              {statistics.median(ratios):8.2f}  (rounds: {each})")


if __name__ == "__main__":
    main()

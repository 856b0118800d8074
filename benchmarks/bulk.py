"""Captions in bulk on Ray: what a dead machine costs, and what Ray costs, in one run.

    python benchmarks/bulk.py [--parts kill overhead] [--json FILE]

``kill``: a Ray cluster of three machines that are processes of this one, one core each. When half
of the blocks are there, one machine is killed (SIGKILL). Every picture must have exactly one row,
and the row that one process alone gives it. A second run finds nothing left to do.

``overhead``: the same pictures by ``--engine local`` and by ``--engine ray`` on one core, each in
one process of one thread. Told are pictures/s from the first block to the last, and the whole time,
which has Ray's start in it. The two take turns.

The weights are random, and the length of the caption is set: a trained model costs the same. Choose
``--encoder``, ``--size`` and ``--length`` so that a picture takes about 20 ms: the line tells.
"""

import json
import os
import shutil
import statistics
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import numpy as np
import pyarrow.parquet
import ray
import torch
from PIL import Image
from ray.cluster_utils import Cluster

from gazetell.inference.cluster import Ray, quiet
from gazetell.inference.describe import Engine, Here, Task, describe
from gazetell.inference.predict import Captioner
from gazetell.inference.sources import Block, Source
from gazetell.models.captioners import build_captioner
from gazetell.models.decoding import DecodingOptions
from gazetell.models.encoders import Encoder, EncoderConfig
from gazetell.models.folder import CaptionerFolder, save_model
from photo import tokenizer

HOW: dict[str, Any] = {"device": "cpu", "precision": "fp32"}


class Timed:
    """An engine that keeps when each block was done, and how many pictures it has."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.precision = engine, engine.precision
        self.done: list[tuple[float, int]] = []

    def __call__(
        self, source: Source, blocks: Sequence[Block], task: Task
    ) -> Iterator[tuple[Block, Iterable[Any]]]:
        for block, rows in self.engine(source, blocks, task):
            made = list(rows)
            self.done.append((time.perf_counter(), len(made)))
            yield block, made

    @property
    def rate(self) -> float:
        """Pictures a second, from the end of the first block to the end of the last."""
        (begin, _), *rest = self.done
        return sum(count for _, count in rest) / (rest[-1][0] - begin)


def make(home: Path, options: Namespace) -> None:
    """Pictures of noise, and a model."""
    random = np.random.default_rng(options.seed)
    (home / "pictures").mkdir()
    for number in range(options.pictures):
        pixels = random.integers(0, 256, (options.side, options.side, 3), np.uint8)
        Image.fromarray(pixels).save(home / f"pictures/{number:05d}.png")
    torch.manual_seed(options.seed)
    words = tokenizer(options.words)
    encoder = Encoder(EncoderConfig(options.encoder, "none", size=options.size)).eval()
    sizes = {"channels": encoder.channels, "vocabulary": words.vocab_size}
    network = build_captioner("attention-lstm", **sizes, hidden=options.hidden).eval()
    folder = CaptionerFolder(
        captioner=network,
        encoder=encoder,
        tokenizer=words,
        decoding=DecodingOptions(beam=1, max_length=options.length),
    )
    save_model(home / "model", folder)


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return pyarrow.parquet.read_table(folder).to_pylist()


def kill(home: Path, options: Namespace) -> dict[str, Any]:
    """Kill a machine half-way; count the rows."""
    captioner = Captioner.load(home / "model", **HOW)
    describe(captioner, home / "pictures", home / "alone", progress=True)
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    killed: list[int] = []

    def watch() -> None:
        while len(parts := list((home / "out").glob("part-*"))) < blocks // 2:
            time.sleep(0.05)
        cluster.remove_node(nodes[0], allow_graceful=False)
        killed.append(len(parts))

    blocks = len(list((home / "alone").glob("part-*")))
    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    began = time.perf_counter()
    engine = Ray([str(home / "model")], cluster.address, **HOW)
    done = describe(captioner, home / "pictures", home / "out", engine=engine, progress=True)
    seconds = time.perf_counter() - began
    watcher.join()
    rows, expected = rows_in(home / "out"), rows_in(home / "alone")
    again = describe(captioner, home / "pictures", home / "out", engine=engine)
    cluster.shutdown()
    counts = Counter(row["picture"] for row in rows)
    alike = {row["picture"]: row["caption"] for row in rows} == {
        row["picture"]: row["caption"] for row in expected
    }
    return {
        "pictures": options.pictures,
        "blocks": blocks,
        "killed_at": killed[0],
        "rows": len(rows),
        "twice": sum(count > 1 for count in counts.values()),
        "missing": options.pictures - len(counts),
        "captions_as_by_one_process": alike,
        "captioned_by_the_run": done.captioned,
        "captioned_by_a_second_run": again.captioned,
        "seconds": round(seconds, 1),
    }


def overhead(home: Path, options: Namespace) -> dict[str, Any]:
    """Ray against this process, one core each."""
    torch.set_num_threads(1)
    captioner = Captioner.load(home / "model", **HOW)
    rates: dict[str, list[float]] = {"local": [], "ray": []}
    whole: dict[str, list[float]] = {"local": [], "ray": []}
    for _ in range(options.rounds):
        for name in rates:
            shutil.rmtree(home / "timed", ignore_errors=True)
            engine = Timed(
                Here(captioner) if name == "local" else Ray([str(home / "model")], **HOW)
            )
            began = time.perf_counter()
            if name == "ray":
                quiet()
                ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
            describe(captioner, home / "pictures", home / "timed", engine=engine)
            whole[name].append(time.perf_counter() - began)
            rates[name].append(engine.rate)
            ray.shutdown()
    ratios = [b / a for a, b in zip(rates["local"], rates["ray"], strict=True)]
    return {
        "milliseconds_a_picture": round(1000 / statistics.median(rates["local"]), 1),
        **{f"{name}_per_second": round(statistics.median(x), 1) for name, x in rates.items()},
        **{f"{name}_whole_seconds": round(statistics.median(x), 1) for name, x in whole.items()},
        "overhead_percent": round(100 * (1 / statistics.median(ratios) - 1), 1),
    }


def main() -> None:
    # Ray lets its workers stand back behind all else that runs, this process among them.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", choices=["kill", "overhead"])
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--side", type=int, default=32, help="of a picture, in pixels")
    parser.add_argument("--encoder", default="small-cnn")
    parser.add_argument("--size", type=int, default=32, help="of the encoder's input")
    parser.add_argument("--words", type=int, default=100)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--length", type=int, default=6, help="words of a caption")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for part in options.parts or ["kill", "overhead"]:
        with TemporaryDirectory() as home:
            make(Path(home), options)
            found[part] = {"kill": kill, "overhead": overhead}[part](Path(home), options)
        print(part)
        for name, value in found[part].items():
            print(f"  {name.replace('_', ' '):30} {value}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()

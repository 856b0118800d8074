"""One run for any CUDA card, eight minutes at most: is it right on the GPU, and how fast?

    python benchmarks/gpu.py [--parts ...] [--minutes 8] [--json FILE]
    python benchmarks/gpu.py --device cpu --quick      to see that it runs; measures nothing

It needs what gazetell itself needs, no data and no network. Copy the folder of the project to the
machine, ``pip install .`` there, and run it alone on the card.

``equal``: every architecture on the card against the CPU, the same weights and batch. Logits and
gradients may differ by 1e-3 of the largest one (float32, without TF32), the loss in bfloat16 by
3 %. ``decode``: captions of greedy and beam search, which may differ in one of 20: a tie that
rounding breaks. ``resume``: a run that is killed by ``kill -9`` and resumed ends with the losses of
one that was not, to 2 %.

``training``: captions/s and questions/s of a step (forward, backward, clipping, AdamW) in the
number format of the card, at 64 and 256 a step, against plain PyTorch modules; peak memory; all of
ours; and one step under ``torch.compile``, plain and with CUDA graphs. ``search``: beam search,
pictures/s. ``features``: pictures/s of the encoder's forward pass on pictures that lie on the card,
on pictures from memory, and of the whole pass over JPEG files, written to disk.

What does not fit into ``--minutes`` is left out, and said so. The exit status is 1 if something
is not equal. What is compared takes turns; medians are given.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import answering
import captioning
from captioning import describe, random_grid, speak, take_turns
from gazetell.data.records import CaptionRecord, Dataset
from gazetell.features import build_cache
from gazetell.files import read_jsonl
from gazetell.models.answerers import ANSWERERS
from gazetell.models.captioners import CAPTIONERS
from gazetell.models.decoding import DecodingOptions, decode
from gazetell.models.encoders import Encoder, EncoderConfig, Grid
from gazetell.models.precision import Precision, choose_device, choose_precision

TOLERANCE = 1e-3  # of the largest logit or gradient
BF16 = 0.03  # of the loss
SAME = 0.95  # of the captions
RESUMED = 0.02  # of a loss
FULL = {
    **captioning.NUMBERS,
    **{"vocabulary": 10_000, "answers": 3_000, "embedding": 512, "hidden": 512, "width": 1024},
    **{"attention_width": 512, "passes": 3, "dropout": 0.4, "questions": 5, "batch": 256},
    **{"sizes": (64, 256), "decode": 512, "rounds": 5, "steps": 8, "jpegs": 2048, "scenes": 400},
    **{"encoder": "mobilenet_v2", "compile": "attention-lstm"},
}
QUICK = {
    **{"side": 2, "channels": 8, "vocabulary": 20, "answers": 5, "embedding": 4, "hidden": 4},
    **{"attention_width": 4, "width": 8, "sizes": (2, 3), "decode": 4, "rounds": 1, "steps": 1},
    **{"jpegs": 6, "scenes": 12, "encoder": "small-cnn", "batch": 4},
}


def build(name: str, options: Namespace) -> Any:
    """A captioner or answerer with random weights on the device."""
    torch.manual_seed(0)
    return (captioning if name in CAPTIONERS else answering).build(name, options)


def loss_of(name: str, model: Any) -> captioning.Loss:
    return (captioning if name in CAPTIONERS else answering).our_loss(model)


def batch_of(name: str, size: int, options: Namespace) -> Any:
    """Captions of so many pictures, five of each; or so many questions."""
    if name in CAPTIONERS:
        return captioning.random_batch(size, options)
    return answering.random_batch(Namespace(**{**vars(options), "batch": size}), options.questions)


def logits_of(name: str, model: Any, batch: Any) -> Tensor:
    if name in ANSWERERS:
        return model(batch.grid, batch.tokens, batch.lengths, batch.owner)[0]
    grid = Grid.of(batch.pictures, batch.pictures.shape[1], 1)
    steps = batch.tokens[:, :-1]
    outputs, _ = model.unroll(model.start(grid).select(batch.owner), steps, batch.lengths)
    real = torch.arange(steps.shape[1]) < batch.lengths.cpu().unsqueeze(1)
    return model.head(outputs)[real.to(outputs.device)]


def moved(batch: Any, device: torch.device) -> Any:
    """A batch on another device; lengths stay on the CPU, as in training."""
    parts = {}
    for name, value in batch._asdict().items():
        if isinstance(value, Grid):
            value = Grid.of(value.cells.to(device), value.height, value.width)
        elif name not in ("lengths", "records"):
            value = value.to(device)
        parts[name] = value
    return type(batch)(**parts)


def apart(ours: Tensor, others: Tensor) -> float:
    """The largest difference, in shares of the largest value."""
    return float((ours.cpu() - others).abs().max() / others.abs().max().clamp(min=1e-12))


def measure_equal(options: Namespace, form: Precision) -> dict[str, Any]:
    found, cpu = {}, torch.device("cpu")
    at_home = Namespace(**{**vars(options), "device": cpu})
    for name in (*CAPTIONERS, *ANSWERERS):
        home, away = build(name, at_home).train(), build(name, options).train()
        away.load_state_dict(home.state_dict())
        for module in (*home.modules(), *away.modules()):
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # evaluation would do, but cuDNN gives no gradients then
        batch = batch_of(name, min(options.batch, 16), at_home)
        there = moved(batch, options.device)
        logits = apart(logits_of(name, away, there).detach(), logits_of(name, home, batch).detach())
        value = loss_of(name, home)(batch)
        value.backward()
        loss_of(name, away)(there).backward()
        pairs = zip(home.parameters(), away.parameters(), strict=True)
        gradients = max(apart(b.grad, a.grad) for a, b in pairs if a.grad is not None)
        with torch.autocast(options.device.type, torch.bfloat16):
            low = loss_of(name, away)(there)
        bf16 = float((low.detach().cpu() - value.detach()).abs() / value.detach())
        right = logits <= TOLERANCE and gradients <= TOLERANCE and bf16 <= BF16
        found[name] = {"logits": logits, "gradients": gradients, "bf16_loss": bf16, "right": right}
        print(
            f"    {name:17} logits {logits:.1e}, gradients {gradients:.1e}, loss in bf16 "
            f"{bf16:.1e}{'' if right else '   NOT EQUAL'}",
            flush=True,
        )
    return found


def measure_decode(options: Namespace, form: Precision) -> dict[str, Any]:
    found = {}
    at_home = Namespace(**{**vars(options), "device": torch.device("cpu")})
    cells = random_grid(min(options.decode, 64), at_home).cells
    special = {"start": captioning.START, "end": captioning.END}
    special["banned"] = (captioning.PAD, captioning.UNK)
    for name in CAPTIONERS:
        home = build(name, at_home).eval()
        grid = Grid.of(cells, options.side, options.side)
        speak(home, grid, 12)
        away = build(name, options).eval()
        away.load_state_dict(home.state_dict())
        there = Grid.of(cells.to(options.device), options.side, options.side)
        row: dict[str, Any] = {}
        for beam in (1, options.beam):
            how = DecodingOptions(beam=beam, max_length=12)
            captions = [decode(m, g, how, **special) for m, g in ((home, grid), (away, there))]
            same = sum(a.tokens == b.tokens for a, b in zip(*captions, strict=True))
            row[f"beam_{beam}"] = same / len(cells)
        row["right"] = min(row.values()) >= SAME
        found[name] = row
        shares = ", ".join(f"{key} {100 * row[key]:.0f} %" for key in row if key != "right")
        print(f"    {name:17} the same: {shares}{'' if row['right'] else '   NOT EQUAL'}")
    return found


def measure_resume(options: Namespace, form: Precision) -> dict[str, Any]:
    """Two runs of four epochs through the command line, one of them killed after its first."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, n = Path(temporary), options.scenes
        say(
            ("data", "scenes", "--out", folder / "data", "--train", n, "--val", n // 4, "--test", 4)
        )
        train = ("train", folder / "data", "--architecture", "attention-lstm", "--epochs", 4)
        train += ("--encoder", "small-cnn", "--encoder-trainable", "all", "--batch", 16, "--hidden")
        train += (64, "--min-frequency", 1, "--device", options.device.type, "--patience", 4)
        say((*train, "--out", folder / "whole"))
        checkpoint = folder / "killed" / "checkpoints" / "last.ckpt"
        say((*train, "--out", folder / "killed"), until=checkpoint.is_file)
        say(("train", "--resume", folder / "killed"))
        losses = {
            name: [row["train_loss"] for _, row in read_jsonl(folder / name / "metrics.jsonl")]
            for name in ("whole", "killed")
        }
    worst = max(abs(a - b) / a for a, b in zip(*losses.values(), strict=True))
    right = worst <= RESUMED
    print(f"    losses {losses}: {worst:.1e} apart{'' if right else '   NOT EQUAL'}")
    return {"run": {"apart": worst, "right": right, **losses}}


def say(arguments: tuple[Any, ...], until: Callable[[], bool] | None = None) -> None:
    """Run a verb of gazetell; ``until`` ends it by ``kill -9``."""
    with tempfile.TemporaryFile("w+") as said:
        command = [sys.executable, "-m", "gazetell", *map(str, arguments)]
        run = subprocess.Popen(command, stdout=said, stderr=said)
        killed = False
        while run.poll() is None:
            if until and until():
                os.kill(run.pid, signal.SIGKILL)
                killed = True
            time.sleep(0.05)
        if run.returncode and not killed:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{said.read()[-3000:]}")


def peak_of(run: captioning.Run, device: torch.device) -> float | None:
    """The most memory, in MB, that a run takes on the card."""
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return round(torch.cuda.max_memory_allocated(device) / 1e6)


def measure_training(options: Namespace, form: Precision) -> dict[str, Any]:
    pairs = {"show-attend-tell": captioning.Reference, "dmn-plus": answering.Reference}
    found: dict[str, Any] = {}
    for name, reference in pairs.items():
        ours = build(name, options)
        plain = reference(ours).to(options.device)
        loss = plain.loss if name in CAPTIONERS else answering.plain_loss(plain)
        for size in options.sizes:
            batches = [batch_of(name, size, options) for _ in range(options.steps)]
            runs = {
                "reference": captioning.training_run(plain, loss, batches, form),
                "ours": captioning.training_run(ours, loss_of(name, ours), batches, form),
            }
            rates = captioning.compare(take_turns(options.rounds, runs))
            peaks = {key: peak_of(run, options.device) for key, run in runs.items()}
            row = {**rates, "peak_mb": peaks}
            what = f"{size} pictures x 5 captions" if name in CAPTIONERS else f"{size} questions"
            found[f"{name}, {what}"] = row
            print(
                f"    {name}, {what}, {form.name}: reference {row['reference']:.0f}, ours "
                f"{row['ours']:.0f} a second, ratio {row['ratio']:.2f}; peak MB {peaks}",
                flush=True,
            )
    size = max(options.sizes)
    for name in (*CAPTIONERS, *ANSWERERS):
        batches = [batch_of(name, size, options) for _ in range(options.steps)]
        model = build(name, options)
        run = captioning.training_run(model, loss_of(name, model), batches, form)
        rate = take_turns(options.rounds, {name: run})[name]
        peak = peak_of(run, options.device)
        found[name] = {"rate": float(np.median(rate)), "peak_mb": peak}
        print(f"    {name:17} {found[name]['rate']:9.0f} a second at {size}, peak {peak} MB")
    return found


def measure_compiled(options: Namespace, form: Precision) -> dict[str, Any]:
    """One batch again and again, as it is and compiled; new lengths would compile anew."""
    name, size = options.compile, min(options.sizes)
    batches = [batch_of(name, size, options)] * options.steps
    ways = {"as it is": None, "compiled": "default", "with CUDA graphs": "reduce-overhead"}
    if options.device.type != "cuda":
        del ways["with CUDA graphs"]
    runs, first, found = {}, {}, {}
    for way, mode in ways.items():
        model = build(name, options)
        loss = loss_of(name, model)
        runs[way] = captioning.training_run(
            model, torch.compile(loss, mode=mode) if mode else loss, batches, form
        )
        began = time.perf_counter()
        try:
            runs[way]()
        except Exception as error:  # a compiler raises many kinds: it is what is tried here
            found[way] = {"failed": str(error).strip().splitlines()[0][:200]}
            print(f"    {way}: failed: {found[way]['failed']}")
            del runs[way]
            continue
        first[way] = time.perf_counter() - began
    for way, rates in take_turns(options.rounds, runs).items():
        found[way] = {"rate": float(np.median(rates)), "first_seconds": round(first[way], 1)}
        print(f"    {name} {way:17} {found[way]['rate']:9.0f} a second, first {first[way]:.1f} s")
    return found


def measure_search(options: Namespace, form: Precision) -> dict[str, Any]:
    cells = random_grid(options.decode, options).cells
    how = DecodingOptions(beam=options.beam, min_length=8, max_length=12)
    runs = {}
    for name in CAPTIONERS:
        model = build(name, options).eval()
        speak(model, Grid.of(cells[:64], options.side, options.side), how.max_length)
        for size in options.sizes:
            grids = [Grid.of(part, options.side, options.side) for part in cells.split(size)]
            runs[f"{name}, {size} a batch"] = captioning.decoding_run(model, grids, how, form, [])
    rates = take_turns(min(options.rounds, 2), runs)
    found = {key: float(np.median(values)) for key, values in rates.items()}
    for key, rate in found.items():
        print(f"    beam {how.beam}, {key:32} {rate:9.0f} pictures/s")
    return found


def measure_features(options: Namespace, form: Precision) -> dict[str, Any]:
    device, count = options.device, options.jpegs
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(options.encoder, "none")).eval()
    encoder = encoder.to(device, memory_format=torch.channels_last)
    side, draw = encoder.size, np.random.default_rng(0)
    ready = torch.from_numpy(draw.integers(256, size=(64, 3, side, side), dtype=np.uint8))
    there = ready.to(device)

    def passes(pictures: Tensor, keep: bool) -> captioning.Run:
        def run() -> float:
            began = captioning.clock(device)
            with torch.inference_mode(), form.autocast(device):
                for _ in range(-(-count // 64)):
                    cells = encoder.encode(pictures.to(device)).cells
                    if keep:
                        cells.to(torch.float16).cpu()
            return 64 * -(-count // 64) / (captioning.clock(device) - began)

        return run

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        records = []
        for number in range(count):
            rough = draw.integers(256, size=(12, 16, 3), dtype=np.uint8)
            picture = Image.fromarray(rough).resize((640, 480), Image.Resampling.BICUBIC)
            picture.save(root / f"{number}.jpg", quality=90)
            records.append(CaptionRecord(str(number), f"{number}.jpg", ("a",), "train"))
        dataset = Dataset("jpeg", "table", root, tuple(records))
        workers = max((os.cpu_count() or 1) - 1, 1)

        def whole() -> float:
            with tempfile.TemporaryDirectory() as folder:
                own = replace(dataset, folder=Path(folder))
                began = time.perf_counter()
                build_cache(own, encoder, device, form, workers=workers)
                return count / (time.perf_counter() - began)

        runs = {"forward": passes(there, False), "memory": passes(ready, True), "jpeg": whole}
        rates = take_turns(min(options.rounds, 2), runs)
    found = {key: float(np.median(values)) for key, values in rates.items()}
    found |= {"workers": workers, "peak_mb": peak_of(runs["forward"], device)}
    share = 100 * found["jpeg"] / found["forward"]
    print(
        f"    {options.encoder}, {form.name}: forward pass {found['forward']:.0f} pictures/s, "
        f"from memory {found['memory']:.0f}, from JPEG 640x480 with {workers} workers "
        f"{found['jpeg']:.0f} ({share:.0f} % of the forward pass)"
    )
    return found


PARTS: dict[str, Callable[[Namespace, Precision], dict[str, Any]]] = {
    "equal": measure_equal,
    "decode": measure_decode,
    "resume": measure_resume,
    "training": measure_training,
    "search": measure_search,
    "features": measure_features,
    "compiled": measure_compiled,
}
CHECKS = ("equal", "decode", "resume")


def stop(*_: Any) -> None:
    raise TimeoutError


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--precision", default="auto", help="of the speeds: auto, bf16 or fp32")
    parser.add_argument("--quick", action="store_true", help="sizes that measure nothing")
    parser.add_argument("--minutes", type=int, default=8, help="stop after these")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    began = time.perf_counter()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    options = Namespace(**{**FULL, **(QUICK if given.quick else {}), **vars(given)})
    options.device = choose_device(given.device)
    form = choose_precision(options.device, given.precision)
    torch.backends.cudnn.allow_tf32 = False
    found: dict[str, Any] = {"machine": describe(options.device, form), "quick": given.quick}
    print(", ".join(f"{key} {value}" for key, value in found["machine"].items()))
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(60 * given.minutes)
    for number, part in enumerate(given.parts):
        print(f"{part} ({time.perf_counter() - began:.0f} s)", flush=True)
        try:
            found[part] = PARTS[part](options, form)
        except TimeoutError:
            found["left_out"] = given.parts[number:]
            print(f"{given.minutes} minutes are over; left out: {', '.join(found['left_out'])}")
            break
        if given.json:  # after each part: what was measured stays, whatever happens
            given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    signal.alarm(0)
    wrong = [
        f"{part} of {name}"
        for part in CHECKS
        for name, row in (found.get(part) or {}).items()
        if not row["right"]
    ]
    found |= {"seconds": round(time.perf_counter() - began, 1), "wrong": wrong}
    print(f"{found['seconds']:.0f} s; {'NOT EQUAL: ' + ', '.join(wrong) if wrong else 'all equal'}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

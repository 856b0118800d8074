"""How fast captioners train and decode, against plain references, in one run.

    python benchmarks/captioning.py [--parts training decoding share] [--json FILE]

``training``: captions/s (forward, backward, clipping, AdamW) of ``show-attend-tell`` against the
same model as a plain loop over time, which first gets our weights and must give the same logits.
Both also with more pictures and in the number format that suits the hardware; then all of ours.

``decoding``: pictures/s of beam search in batches against one picture at a time. With random
weights a caption would end at once or never, so they are made to speak like trained ones: the
vocabulary layer is scaled until logits deviate by 3.5 (the best word then has some 30 %), and
``<end>`` biased until it is the likeliest word one time in four. Captions have 8 to 12 words.

``share``: what the greedy caption of one picture, 10 words and ``<end>``, costs beside the
encoder's forward pass on it (uint8).

Grids and captions are random: 7 to 17 words as in Flickr8k, normal of mean 11 and deviation 3.
What is compared takes turns, so that a drifting machine treats all alike; medians are given.
"""

import json
import os
import platform
import statistics
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gazetell.data.batches import CaptionBatch
from gazetell.models.captioners import CAPTIONERS, CaptionModel, ShowAttendTell, build_captioner
from gazetell.models.decoding import Decoded, DecodingOptions, decode
from gazetell.models.encoders import Encoder, EncoderConfig, Grid
from gazetell.models.precision import Precision, choose_device, choose_precision
from gazetell.training.captions import teacher_forcing
from plain_show_attend_tell import Reference

PAD, UNK, START, END = range(4)
SIZES = ("embedding", "hidden", "attention_width", "dropout")
NUMBERS = {
    "side": 7,  # cells of the grid's side
    "channels": 1280,
    "vocabulary": 3000,
    "pictures": 12,  # a training step
    "captions": 5,  # of a picture
    "steps": 4,  # of training, a round
    "decode": 256,  # pictures to decode
    "decode_batch": 64,
    "beam": 3,
    "repeats": 5,  # of the share, a round
    "rounds": 5,
    "seed": 0,
}
Run = Callable[[], float]
Loss = Callable[[Any], Tensor]


def random_grid(pictures: int, options: Namespace) -> Grid:
    """Cells (B, R, C), not negative, alike within a picture, as those of a CNN."""
    common = torch.randn(pictures, 1, options.channels)
    own = torch.randn(pictures, options.side**2, options.channels)
    return Grid.of((common + own).relu().to(options.device), options.side, options.side)


def random_batch(pictures: int, options: Namespace) -> CaptionBatch:
    """Pictures with their captions of random words, longest first."""
    count = pictures * options.captions
    drawn = (torch.randn(count) * 3 + 11).round().long().clamp(7, 17)
    lengths = drawn.sort(descending=True).values + 1  # <end> counts
    tokens = torch.full((count, int(lengths[0]) + 1), PAD)
    tokens[:, 0] = START
    for row, n in enumerate(lengths.tolist()):
        tokens[row, 1:n] = torch.randint(END + 1, options.vocabulary, (n - 1,))
        tokens[row, n] = END
    owner = (torch.randperm(count) % pictures).to(options.device)
    cells, records = random_grid(pictures, options).cells, torch.arange(pictures)
    return CaptionBatch(cells, records, owner, tokens.to(options.device), lengths)


def build(architecture: str, options: Namespace, channels: int = 0) -> CaptionModel:
    """Our captioner with random weights."""
    own = {x.name for x in fields(CAPTIONERS[architecture].Options)}
    given = {name: getattr(options, name) for name in SIZES if name in own}
    sizes = {"channels": channels or options.channels, "vocabulary": options.vocabulary}
    return build_captioner(architecture, **sizes, **given).to(options.device)


def our_loss(model: CaptionModel) -> Loss:
    """The loss as training computes it."""
    return lambda batch: teacher_forcing(
        model, Grid.of(batch.pictures, batch.pictures.shape[1], 1), batch
    ).loss()


def check_same(reference: Reference, ours: Any, batch: CaptionBatch) -> dict[str, float]:
    """Largest difference of the logits, and of some gradients relative to the largest one."""
    reference.copy(ours)
    reference.eval()
    ours.eval()
    inputs, real = batch.tokens[:, :-1], batch.tokens[:, 1:] != PAD
    with torch.no_grad():
        grid = Grid.of(batch.pictures, batch.pictures.shape[1], 1)
        outputs, _ = ours.unroll(ours.start(grid).select(batch.owner), inputs, batch.lengths)
        plain = reference(batch.pictures[batch.owner], inputs, batch.lengths.tolist())
        logits = float((ours.head(outputs)[real] - plain[real]).abs().max())
    our_loss(ours)(batch).backward()
    reference.loss(batch).backward()
    gradients = 0.0
    for mine, other in ((ours.embed, reference.embedding), (ours.regions, reference.encoder_att)):
        worst = (mine.weight.grad - other.weight.grad).abs().max() / other.weight.grad.abs().max()
        gradients = max(gradients, float(worst))
    if logits > 1e-3 or gradients > 1e-2:
        raise SystemExit(f"not the same model: logits differ by {logits}, gradients {gradients}")
    return {"logits": logits, "gradients": gradients}


def clock(device: torch.device) -> float:
    """Seconds, when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def take_turns(rounds: int, runs: dict[Any, Run]) -> dict[Any, list[float]]:
    """What each run gives, round after round; one round before it warms up."""
    every = [{name: run() for name, run in runs.items()} for _ in range(rounds + 1)][1:]
    return {name: [found[name] for found in every] for name in runs}


def compare(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Medians of two rates and of their ratios, second to first, of each round."""
    ratios = [b / a for a, b in zip(*rates.values(), strict=True)]
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {**medians, "ratio": statistics.median(ratios), "ratios": ratios, "rates": rates}


def training_run(model: nn.Module, loss: Loss, batches: list[Any], form: Precision) -> Run:
    """Steps of training on batches of captions, or of questions: how many a second."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2, fused=True)
    device = batches[0].owner.device

    def run() -> float:
        model.train()
        began = clock(device)
        for batch in batches:
            optimiser.zero_grad()
            with form.autocast(device):
                value = loss(batch)
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
        return sum(len(batch.owner) for batch in batches) / (clock(device) - began)

    return run


def measure_training(options: Namespace, form: Precision) -> dict[str, Any]:
    fp32 = choose_precision(options.device, "fp32")
    ours = build("show-attend-tell", options)
    reference = Reference(ours).to(options.device)
    same = check_same(reference, ours, random_batch(options.pictures, options))
    print(f"logits differ by at most {same['logits']:.1e}, gradients by {same['gradients']:.1e}")
    more = [options.pictures] * (form.dtype != fp32.dtype) + options.more_pictures
    settings = [(options.pictures, fp32), *((pictures, form) for pictures in more)]
    runs: dict[str, dict[str, Run]] = {}
    for pictures, chosen in settings:
        batches = [random_batch(pictures, options) for _ in range(options.steps)]
        runs[f"{pictures} pictures x {options.captions}, {chosen.name}"] = {
            "reference": training_run(reference, reference.loss, batches, chosen),
            "ours": training_run(ours, our_loss(ours), batches, chosen),
        }
    every = {(key, name): run for key, pair in runs.items() for name, run in pair.items()}
    rates = take_turns(options.rounds, every)
    rows = {key: compare({name: rates[key, name] for name in pair}) for key, pair in runs.items()}
    for key, row in rows.items():
        print(
            f"{key}: reference {row['reference']:.1f}, ours {row['ours']:.1f} captions/s, "
            f"ratio {row['ratio']:.2f}  (rounds: {' '.join(f'{x:.2f}' for x in row['ratios'])})"
        )
    first = next(iter(rows))
    best, plain = (max(rows, key=lambda key: rows[key][name]) for name in ("ours", "reference"))
    pairs = {"fp32": (first, first), "best": (first, best), "best_of_both": (plain, best)}
    ratios = {}
    for name, (a, b) in pairs.items():
        ratios[name] = compare({"a": rates[a, "reference"], "b": rates[b, "ours"]})["ratio"]
    print(
        f"ours at its best ({best}): {ratios['best']:.2f} times the reference of the first line, "
        f"{ratios['best_of_both']:.2f} times the reference at its best ({plain})"
    )
    others = measure_architectures(options, form)
    return {"difference": same, "settings": rows, "ratios": ratios, "architectures": others}


def measure_architectures(options: Namespace, form: Precision) -> dict[str, float]:
    batches = [random_batch(options.pictures, options) for _ in range(options.steps)]
    models = {name: build(name, options) for name in CAPTIONERS}
    runs = {name: training_run(x, our_loss(x), batches, form) for name, x in models.items()}
    rates = take_turns(options.rounds, runs)
    print(f"all of ours, {options.pictures} pictures x {options.captions}, {form.name}:")
    for name, values in rates.items():
        print(f"    {name:17} {statistics.median(values):8.1f} captions/s")
    return {name: statistics.median(values) for name, values in rates.items()}


@torch.no_grad()
def speak(model: CaptionModel, grid: Grid, words: int) -> None:
    """Make random weights as sure of a word as trained ones, and end; see the module."""
    layer = [module for module in model.head.modules() if isinstance(module, nn.Linear)][-1]
    tokens = torch.randint(END + 1, model.vocabulary, (len(grid.cells), words))
    outputs, _ = model.unroll(model.start(grid), tokens.to(grid.cells.device))
    layer.bias.zero_()
    layer.weight *= 3.5 / model.head(outputs).std()
    logits = model.head(outputs)  # (B, T, V)
    short = logits[..., END + 1 :].max(-1).values - logits[..., END]
    layer.bias[END] = torch.quantile(short, 0.25)


def decoding_run(
    model: CaptionModel,
    grids: Sequence[Grid],
    how: DecodingOptions,
    form: Precision,
    found: list[Decoded],
) -> Run:
    """Captions of grids, in pictures/s; ``found`` gets them."""
    device = grids[0].cells.device

    def run() -> float:
        found.clear()
        began = clock(device)
        with form.autocast(device):
            for grid in grids:
                found.extend(decode(model, grid, how, start=START, end=END, banned=(PAD, UNK)))
        return len(found) / (clock(device) - began)

    return run


def measure_decoding(options: Namespace, form: Precision) -> dict[str, Any]:
    cells = random_grid(options.decode, options).cells
    how = DecodingOptions(beam=options.beam, min_length=8, max_length=12)
    result = {}
    for architecture in ("show-attend-tell", "attention-lstm"):
        model = build(architecture, options).eval()
        speak(model, Grid.of(cells[:64], options.side, options.side), how.max_length)
        found: dict[int, list[Decoded]] = {1: [], options.decode_batch: []}
        runs = {}
        for batch, captions in found.items():
            grids = [Grid.of(part, options.side, options.side) for part in cells.split(batch)]
            runs[f"batch_{batch}"] = decoding_run(model, grids, how, form, captions)
        row = compare(take_turns(options.rounds, runs))
        equal = sum(a.tokens == b.tokens for a, b in zip(*found.values(), strict=True))
        lengths = sorted(len(caption.tokens) for caption in found[options.decode_batch])
        row |= {"lengths": {n: lengths.count(n) for n in lengths}, "same": equal}
        rates = ", ".join(f"{name} {row[name]:.1f}" for name in runs)
        print(f"{architecture}, beam {how.beam}: {rates} pictures/s, ratio {row['ratio']:.2f}")
        print(f"    captions by words {row['lengths']}; {equal} of {len(cells)} the same in both")
        result[architecture] = row
    return result


def measure_share(options: Namespace, form: Precision) -> dict[str, Any]:
    device, how = options.device, DecodingOptions(beam=1, min_length=10, max_length=10)
    result = {}
    for name in options.encoders:
        encoder = Encoder(EncoderConfig(name, "none")).eval()
        encoder = encoder.to(device, memory_format=torch.channels_last)
        pictures = torch.randint(256, (1, 3, encoder.size, encoder.size), dtype=torch.uint8)
        # The grid is drawn: random weights may make it huge, or vanish into slow subnormals.
        cells = torch.randn(1, encoder.height * encoder.width, encoder.channels).relu()
        grids = [Grid.of(cells.to(device), encoder.height, encoder.width)] * options.repeats
        runs = {"encoder": encoder_run(encoder, pictures.to(device), options.repeats, form)}
        for architecture in CAPTIONERS:
            model = build(architecture, options, encoder.channels).eval()
            runs[architecture] = decoding_run(model, grids, how, form, [])
        rates = take_turns(options.rounds, runs)
        ms = {key: 1000 / statistics.median(values) for key, values in rates.items()}
        percent = {key: 100 * ms[key] / ms["encoder"] for key in CAPTIONERS}
        print(f"{name}, {encoder.size} px, {form.name}: forward pass {ms['encoder']:.2f} ms")
        for key, value in percent.items():
            print(f"    greedy caption, {key:17} {ms[key]:8.2f} ms, {value:6.1f} % of the encoder")
        result[name] = {"ms": ms, "percent": percent}
    return result


def encoder_run(encoder: Encoder, pictures: Tensor, times: int, form: Precision) -> Run:
    """Forward passes, in pictures/s."""

    def run() -> float:
        began = clock(pictures.device)
        with torch.inference_mode(), form.autocast(pictures.device):
            for _ in range(times):
                encoder(pictures)
        return times * len(pictures) / (clock(pictures.device) - began)

    return run


def describe(device: torch.device, form: Precision) -> dict[str, Any]:
    """What it is measured on."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        name = next((x.split(": ")[1] for x in lines if x.startswith("model name")), name)
    return {
        "cpu": f"{name}, {os.cpu_count()} cores",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "precision": f"{form.name} ({form.reason})",
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parts = {"training": measure_training, "decoding": measure_decoding, "share": measure_share}
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    usual = ShowAttendTell.Options()
    sizes: dict[str, int] = {name: getattr(usual, name) for name in SIZES[:3]}
    for name, default in {**NUMBERS, **sizes}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--dropout", type=float, default=usual.dropout)
    parser.add_argument("--more-pictures", type=int, nargs="*", default=[24])
    parser.add_argument("--encoders", nargs="+", default=["resnet152", "mobilenet_v2"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="auto, bf16 or fp32")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    options.device = choose_device(options.device)
    form = choose_precision(options.device, options.precision)
    chosen = {key: str(value) for key, value in vars(options).items() if key != "json"}
    result: dict[str, Any] = {"machine": describe(options.device, form), "options": chosen}
    for values in (result["machine"], chosen):
        print(", ".join(f"{key} {value}" for key, value in values.items()))
    for part in options.parts:
        print(f"\n{part}")
        result[part] = parts[part](options, form)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

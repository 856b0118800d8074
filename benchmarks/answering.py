"""How fast answerers train and answer, against plain references, in one run.

    python benchmarks/answering.py [--parts training latency] [--short] [--json FILE]

``training``: questions/s (forward, backward, clipping, AdamW) of ``dmn-plus`` on a grid of 14x14
regions against the same model as plain modules with a loop over regions, which first gets our
weights and must give the same logits and gradients. Questions share pictures (``--questions`` of
each, 5 as in VQA v2) and once each have a picture of their own; then in the number format that
suits the hardware; then all of ours.

``latency``: what one question costs once its picture is encoded and looked at, and that look,
beside the encoder's forward pass at 448 pixels on the same picture (uint8).

Grids and questions are random: 3 to 15 words, normal of mean 6 and deviation 2, as in VQA. What is
compared takes turns, so that a drifting machine treats all alike; medians are given. ``--short``
is for trying it: small models, two rounds.
"""

import json
import statistics
from argparse import ArgumentParser, Namespace
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from captioning import (
    Loss,
    Run,
    clock,
    compare,
    describe,
    encoder_run,
    random_grid,
    take_turns,
    training_run,
)
from gazetell.models.answerers import ANSWERERS, AnswerModel, build_answerer
from gazetell.models.encoders import Encoder, EncoderConfig, Grid
from gazetell.models.precision import Precision, choose_device, choose_precision
from plain_dmn import Reference

SIZES = {"channels": 512, "vocabulary": 10000, "answers": 1000}  # VGG16's last map
OPTIONS = {"embedding": 300, "hidden": 512, "attention_width": 256, "width": 1024, "passes": 3}
NUMBERS = {
    "side": 14,  # cells of the grid's side
    "batch": 128,  # questions a training step
    "questions": 5,  # of a picture
    "steps": 1,  # of training, a round
    "size": 448,  # pixels of the encoder's input
    "repeats": 5,  # of a question, a round
    "rounds": 3,
    "seed": 0,
}
SHORT = {
    "batch": 32,
    "rounds": 2,
    "hidden": 128,
    "attention_width": 128,
    "channels": 128,
    "width": 256,
}


class Batch(NamedTuple):
    """Pictures and questions about them, with the number of the right answer (N,)."""

    grid: Grid
    tokens: Tensor
    lengths: Tensor
    owner: Tensor
    targets: Tensor


def random_batch(options: Namespace, questions: int) -> Batch:
    """Questions of random words about pictures of random numbers."""
    n = options.batch
    pictures = -(-n // questions)
    lengths = (torch.randn(n) * 2 + 6).round().long().clamp(3, 15)
    tokens = torch.randint(4, options.vocabulary, (n, int(lengths.max())))
    tokens *= torch.arange(tokens.shape[1]) < lengths.unsqueeze(1)
    owner = torch.randperm(n) % pictures
    targets = torch.randint(options.answers, (n,))
    moved = (x.to(options.device) for x in (tokens, lengths, owner, targets))
    return Batch(random_grid(pictures, options), *moved)


def build(architecture: str, options: Namespace, **changes: Any) -> AnswerModel:
    """Our answerer with random weights."""
    names = {x.name for x in fields(ANSWERERS[architecture].Options)} & set(OPTIONS)
    given = {name: getattr(options, name) for name in (*SIZES, *names)} | changes
    return build_answerer(architecture, **given).to(options.device)


def our_loss(model: AnswerModel) -> Loss:
    """Cross-entropy, each picture looked at once."""

    def loss(batch: Batch) -> Tensor:
        logits, _ = model(batch.grid, batch.tokens, batch.lengths, batch.owner)
        return F.cross_entropy(logits.float(), batch.targets)

    return loss


def plain_loss(model: Reference) -> Loss:
    """Cross-entropy, each picture looked at for each of its questions."""

    def loss(batch: Batch) -> Tensor:
        cells = batch.grid.cells[batch.owner]
        logits = model(cells, batch.grid.height, batch.tokens, batch.lengths)
        return F.cross_entropy(logits.float(), batch.targets)

    return loss


def check_same(reference: Reference, ours: Any, batch: Batch) -> dict[str, float]:
    """Difference of the losses, and of some gradients relative to the largest one."""
    reference.copy(ours)
    losses = []
    for model, loss in ((ours.eval(), our_loss(ours)), (reference.eval(), plain_loss(reference))):
        model.zero_grad()
        value = loss(batch)
        value.backward()
        losses.append(value.detach())
    gradients = 0.0
    first, second = reference.episodes[0], reference.episodes[1]
    for mine, other in (
        (ours.facts, reference.fc),
        (ours.gates[1].inner, second.z1),
        (ours.reader.facts, first.cell.Wr),
    ):
        grad = other.weight.grad
        worst = (mine.weight.grad[: len(grad)] - grad).abs().max() / grad.abs().max()
        gradients = max(gradients, float(worst))
    value = float((losses[0] - losses[1]).abs())
    if value > 1e-4 or gradients > 1e-3:
        raise SystemExit(f"not the same model: losses differ by {value}, gradients {gradients}")
    return {"loss": value, "gradients": gradients}


def measure_training(options: Namespace, form: Precision) -> dict[str, Any]:
    fp32 = choose_precision(options.device, "fp32")
    ours = build("dmn-plus", options)
    reference = Reference(ours).to(options.device)
    small = Namespace(**{**vars(options), "batch": 4})
    same = check_same(reference, ours, random_batch(small, 2))
    print(f"losses differ by at most {same['loss']:.1e}, gradients by {same['gradients']:.1e}")
    settings = [(options.questions, fp32), (1, fp32)]
    if form.dtype != fp32.dtype:
        settings += [(options.questions, form), (1, form)]
    runs: dict[Any, Run] = {}
    names = []
    for questions, chosen in settings:
        batches = [random_batch(options, questions) for _ in range(options.steps)]
        names.append(f"{options.batch} questions, {questions} a picture, {chosen.name}")
        runs[names[-1], "reference"] = training_run(
            reference, plain_loss(reference), batches, chosen
        )
        runs[names[-1], "ours"] = training_run(ours, our_loss(ours), batches, chosen)
    rates = take_turns(options.rounds, runs)
    rows = {key: compare({x: rates[key, x] for x in ("reference", "ours")}) for key in names}
    for key, row in rows.items():
        print(
            f"{key}: reference {row['reference']:.2f}, ours {row['ours']:.2f} questions/s, "
            f"ratio {row['ratio']:.2f}  (rounds: {' '.join(f'{x:.2f}' for x in row['ratios'])})"
        )
    best = max(names, key=lambda key: rows[key]["ours"])
    ratio = compare({"a": rates[names[0], "reference"], "b": rates[best, "ours"]})["ratio"]
    print(f"ours at its best ({best}): {ratio:.2f} times the reference of the first line")
    return {
        "difference": same,
        "settings": rows,
        "best": ratio,
        "architectures": measure_architectures(options, form),
    }


def measure_architectures(options: Namespace, form: Precision) -> dict[str, float]:
    batches = [random_batch(options, options.questions) for _ in range(options.steps)]
    models = {name: build(name, options) for name in ANSWERERS}
    runs = {name: training_run(x, our_loss(x), batches, form) for name, x in models.items()}
    rates = take_turns(options.rounds, runs)
    print(f"all of ours, {options.batch} questions, {options.questions} a picture, {form.name}:")
    for name, values in rates.items():
        print(f"    {name:9} {statistics.median(values):8.1f} questions/s")
    return {name: statistics.median(values) for name, values in rates.items()}


def latency_runs(model: AnswerModel, grid: Grid, times: int, form: Precision) -> dict[str, Run]:
    """Looks, and questions of 6 words asked one after the other, per second."""
    device = grid.cells.device
    tokens = torch.randint(4, model.vocabulary, (times, 6), device=device)
    length = torch.tensor([6])

    def look() -> float:
        began = clock(device)
        with torch.inference_mode(), form.autocast(device):
            for _ in range(times):
                model.encode_picture(grid)
        return times / (clock(device) - began)

    def ask() -> float:
        with torch.inference_mode(), form.autocast(device):
            encoded = model.encode_picture(grid)
            began = clock(device)
            for question in tokens.split(1):
                model.answer(encoded, question, length)
        return times / (clock(device) - began)

    return {"look": look, "question": ask}


def measure_latency(options: Namespace, form: Precision) -> dict[str, Any]:
    result = {}
    for name in options.encoders:
        encoder = Encoder(EncoderConfig(name, "none", size=options.size)).eval()
        encoder = encoder.to(options.device, memory_format=torch.channels_last)
        pictures = torch.randint(256, (1, 3, options.size, options.size), dtype=torch.uint8)
        pictures = pictures.to(options.device)
        # The grid is drawn: random weights may make it huge, or vanish into slow subnormals.
        cells = torch.randn(1, encoder.height * encoder.width, encoder.channels).relu()
        grid = Grid.of(cells.to(options.device), encoder.height, encoder.width)
        runs: dict[Any, Run] = {"encoder": encoder_run(encoder, pictures, options.repeats, form)}
        for architecture in ANSWERERS:
            model = build(architecture, options, channels=encoder.channels).eval()
            for part, run in latency_runs(model, grid, options.repeats, form).items():
                runs[f"{architecture} {part}"] = run
        rates = take_turns(options.rounds, runs)
        ms = {key: 1000 / statistics.median(values) for key, values in rates.items()}
        print(
            f"{name}, {options.size} px, grid {grid.height}x{grid.width}, {form.name}: "
            f"forward pass {ms['encoder']:.2f} ms"
        )
        for key in list(runs)[1:]:
            share = 100 * ms[key] / ms["encoder"]
            print(f"    {key:18} {ms[key]:8.2f} ms, {share:6.1f} % of the encoder")
        result[name] = ms
    return result


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parts = {"training": measure_training, "latency": measure_latency}
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--short", action="store_true", help=f"to try it: {SHORT}")
    for name, default in {**NUMBERS, **SIZES, **OPTIONS}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--encoders", nargs="+", default=["vgg16", "mobilenet_v2"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="auto, bf16 or fp32")
    parser.add_argument("--json", type=Path, metavar="FILE")
    if parser.parse_known_args()[0].short:
        parser.set_defaults(**SHORT)
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

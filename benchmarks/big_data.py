"""COCO Captions and VQA v2 at their full size on one machine: seconds, memory, step time.

    python benchmarks/big_data.py --data FOLDER [--questions FOLDER] [--parts ...] [--json FILE]

FOLDER holds the official ``captions_train2014.json`` and ``captions_val2014.json`` (also packed).
No picture is needed: the feature cache, 7x7x1280 float16 a picture, is made of sparse files, in
which one cell of each picture is drawn and the others are holes, which read as zeros. Of the
official val 5,000 pictures stay val and 5,000 become test; the others are trained on, as in
Karpathy's splits. ``--questions`` holds files of VQA's official layout. Where they have fewer
questions than VQA v2 (443,757 to train on), these are repeated with new ids, about all pictures.

``prepare``: the verbs that prepare both datasets, with their survey. ``captions``, ``questions``:
an epoch of ``--steps`` steps over all training pictures, ``kill -9``, the second epoch by
``--resume``, evaluation of 5,000 pictures. ``reward``: document frequencies of all references.
``workers``: a whole pass of two worker processes; what each takes for itself. ``steps``: the same
model and batch size on all of the data and on a hundredth of it, in turns.

Memory is that of each process. PSS shares out the pages that several processes have; "own" is the
part of it that no file lies behind (pages of the feature cache go when memory is short). "Of CPU"
are the seconds of all cores, which a busy machine changes little.
"""

import itertools
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader

from captioning import clock, describe, our_loss
from gazetell.data.answers import AnswerVocabulary
from gazetell.data.batches import CaptionData, NoPictures, QuestionData
from gazetell.data.records import Dataset
from gazetell.data.text import Tokenizer
from gazetell.features import BLOCK, FeatureCache, cache_folder
from gazetell.files import read_json, read_jsonl
from gazetell.metrics import CiderD
from gazetell.models.answerers import build_answerer
from gazetell.models.captioners import build_captioner
from gazetell.models.encoders import Encoder, EncoderConfig, Grid
from gazetell.models.precision import choose_precision
from gazetell.training.answers import answer_loss

QUESTIONS = {"train": 443_757, "val": 5_000}  # VQA v2 has 214,354 in val
HELD = 5_000  # pictures of val, and of test
ENCODER = "mobilenet_v2"
SMALL = {"hidden": 64, "embedding": 64}  # what reads the data shows
# Where pictures are squashed, no evaluation asks for their shape.
ENCODING = (
    "--encoder",
    ENCODER,
    "--encoder-weights",
    "none",
    "--seed",
    "0",
    "--encoder-fit",
    "squash",
)
CPU = ("--device", "cpu", "--precision", "fp32")


def memory(pid: int) -> dict[str, int]:
    """PSS, of it what no file lies behind, and what it alone has, in MB; nothing if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    own = kilobytes["Pss_Anon"] + kilobytes["Pss_Shmem"]
    private = kilobytes["Private_Dirty"]
    return {"pss": kilobytes["Pss"] // 1024, "own": own // 1024, "private": private // 1024}


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return [pid]
    return [pid, *(one for text in lists for child in text.split() for one in family(int(child)))]


def children_cpu() -> float:
    """Seconds of all cores that processes which ended took: a busy machine changes them little."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command: Sequence[str | Path], until: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Run a command: seconds, the most memory of it and of each process that it starts.

    ``until`` ends it by ``kill -9`` of all its processes.
    """
    began, peaks, killed, before = time.perf_counter(), {}, False, children_cpu()
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=said, text=True
        )
        while done.poll() is None:
            for pid in family(done.pid):
                for key, value in memory(pid).items():
                    peak = peaks.setdefault(pid, {"pss": 0, "own": 0, "private": 0})
                    peak[key] = max(peak[key], value)
            if until():
                for pid in family(done.pid):
                    os.kill(pid, signal.SIGKILL)
                killed = True
            time.sleep(0.2)
        seconds = time.perf_counter() - began
        out = done.stdout.read() if done.stdout else ""
        said.seek(0)
        if done.returncode and not killed:
            raise SystemExit(f"{' '.join(map(str, command))} failed:\n{said.read()[-3000:]}")
    first, *others = peaks.values()
    found = {"seconds": round(seconds, 1), "cpu": round(children_cpu() - before, 1), **first}
    found |= {"out": out, "began": time.time() - seconds}
    return found | {"others": others}


def gazetell(*arguments: str | Path, **more: Any) -> dict[str, Any]:
    return run((sys.executable, "-m", "gazetell", *arguments), **more)


def stage(name: str, *arguments: str | Path) -> dict[str, Any]:
    """A part of this script in a process of its own, with the figures that it prints."""
    found = run((sys.executable, __file__, "--stage", name, "--data", *arguments))
    return found | json.loads(found.pop("out").splitlines()[-1])


def show(what: str, found: dict[str, Any], more: str = "") -> None:
    others = ", ".join(f"{one['pss']} ({one['own']})" for one in found["others"])
    started = f"{found['start']:7.1f}" if "start" in found else " " * 7
    columns = f"{found['seconds']:8.1f} {found['cpu']:7.1f} {started}"
    memory_of = f"{found['pss']:7} {found['own']:7}"
    print(f"{what:34} {columns} {memory_of}  {others or '-':20} {more}", flush=True)


def hundredth(dataset: Dataset, folder: Path, share: int) -> None:
    """Save every so manieth picture of a dataset with all its texts."""
    images = list(dict.fromkeys(record.image for record in dataset.records))
    kept = set(images[::share])
    few = dataset.without(set(images) - kept)
    few.save(folder)


def make_cache(folder: Path) -> dict[str, float]:
    """A feature cache of all pictures of a dataset; see the module."""
    dataset = Dataset.open(folder)
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(ENCODER, "none", fit="squash"))
    shape = (1, encoder.height, encoder.width, encoder.trunk_channels)
    place = cache_folder(
        dataset, encoder, choose_precision(torch.device("cpu"), "fp32"), flip=False
    )
    place.mkdir(parents=True)
    images = sorted({record.image for record in dataset.records})
    draw = np.random.default_rng(0)
    for number, begin in enumerate(range(0, len(images), BLOCK)):
        names = images[begin : begin + BLOCK]
        block = np.zeros((len(names), *shape), np.float16)
        cell = draw.normal(0.5, 1, (len(names), shape[-1])).clip(0).astype(np.float16)
        block[:, 0, shape[1] // 2, shape[2] // 2] = cell
        path = place / f"{number:05d}.npy"
        header = np.lib.format.open_memmap(path, "w+", np.float16, block.shape)  # all holes
        header[:, 0, shape[1] // 2, shape[2] // 2] = cell
        header.flush()
        about = {"pictures": [[name, None] for name in names], "crc32": zlib.crc32(block.data)}
        path.with_suffix(".json").write_text(json.dumps(about))
    sparse = [path.stat() for path in place.glob("*.npy")]
    size, disk = sum(x.st_size for x in sparse) / 1e9, sum(x.st_blocks for x in sparse) * 512 / 1e9
    print(f"feature cache of {folder.name}: {size:.2f} GB, {disk:.2f} GB of them on the disk")
    return {"GB": round(size, 2), "GB_on_disk": round(disk, 2)}


def resplit(folder: Path) -> None:
    """Of the official val keep some, make some test, and train on the others."""
    dataset = Dataset.open(folder)
    val = [record.id for record in dataset.captions if record.split == "val"]
    held = min(HELD, len(val) // 4)
    places = dict.fromkeys(val, "train") | dict.fromkeys(val[:held], "val")
    places |= dict.fromkeys(val[held : 2 * held], "test")
    captions = (replace(r, split=places.get(r.id, r.split)) for r in dataset.captions)
    replace(dataset, captions=tuple(captions)).save(folder)


def make_questions(source: Path, captions: Dataset, out: Path) -> int:
    """Write questions in the official layout as VQA v2 has them; how many different ones."""
    asked: list[tuple[str, dict[str, Any]]] = []
    for path in sorted(source.glob("*questions.json*")):
        name = path.name.replace("OpenEnded_", "").replace("questions", "annotations")
        by_id = {row["question_id"]: row for row in read_json(path.with_name(name))["annotations"]}
        rows = read_json(path)["questions"]
        asked += [(row["question"], by_id[row["question_id"]]) for row in rows]
    if not asked:
        raise SystemExit(f"{source}: no questions.json with annotations.json of VQA's layout")
    ids = itertools.count(1)
    for split, count in QUESTIONS.items():
        pictures = [int(r.id) for r in captions.captions if r.split == split]
        count = min(count, len(pictures) * 5)
        questions, annotations = [], []
        rows = zip(itertools.cycle(asked), itertools.cycle(pictures), ids, strict=False)
        for (text, about), image, id in itertools.islice(rows, count):
            both = {"question_id": id, "image_id": image}
            questions.append(both | {"question": text})
            annotations.append(about | both)
        # Their pictures are named after train2014, those of COCO's val among them too.
        head = {"data_subtype": "train2014"}
        names = f"v2_OpenEnded_mscoco_{split}2014_", f"v2_mscoco_{split}2014_"
        (out / f"{names[0]}questions.json").write_text(json.dumps(head | {"questions": questions}))
        (out / f"{names[1]}annotations.json").write_text(
            json.dumps(head | {"annotations": annotations})
        )
    return len(asked)


def training(data: Path, run_folder: Path, architecture: str, options: Namespace) -> dict[str, Any]:
    """One epoch, a kill, the other epoch, an evaluation."""
    dataset = Dataset.open(data)
    of = dataset.captions or dataset.questions
    pictures = len({record.image for record in of if record.split == "train"})
    batch = -(-pictures // options.steps)
    steps = -(-pictures // batch)
    del dataset, of
    shutil.rmtree(run_folder, ignore_errors=True)
    history = run_folder / "metrics.jsonl"
    checkpoint = run_folder / "checkpoints" / "last.ckpt"

    def rows() -> list[dict[str, Any]]:
        return [row for _, row in read_jsonl(history)] if history.is_file() else []

    def epoch(command: tuple[str | Path, ...], number: int) -> dict[str, Any]:
        """Run until an epoch is done and saved; the time before it, and of it."""
        found = gazetell(
            *command, until=lambda: number == 1 and len(rows()) == 1 and checkpoint.is_file()
        )
        row = rows()[number - 1]
        ended = os.stat(checkpoint).st_mtime if number == 1 else history.stat().st_mtime
        found["start"] = round(ended - found["began"] - row["seconds"], 1)
        return found | {"epoch": row["seconds"]}

    sizes = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    one = ("--captions-per-image", "1") if architecture != "lstm-vqa" else ()
    found = {}
    print(f"{architecture}: {steps} steps an epoch, of {batch} pictures")
    first = ("train", data, "--out", run_folder, "--architecture", architecture, *ENCODING, *CPU)
    found["train"] = epoch((*first, *sizes, *one, "--batch", str(batch), "--epochs", "2"), 1)
    show("train, first epoch, killed", found["train"], f"epoch {found['train']['epoch']:.0f} s")
    found["resume"] = epoch(("train", "--resume", run_folder), 2)
    show("train --resume, second epoch", found["resume"], f"epoch {found['resume']['epoch']:.0f} s")
    split = "test" if architecture != "lstm-vqa" else "val"
    found["evaluate"] = gazetell(
        *("evaluate", run_folder, "--data", data, "--split", split, *CPU),
        *(("--beam", "3") if split == "test" else ()),
    )
    show(f"evaluate {split}", found["evaluate"])
    return {"steps": steps, "batch": batch, **found}


def reading(data: Path, source: Any, words: Tokenizer | None = None) -> tuple[Any, Any, Any]:
    """Training data of a dataset, its tokenizer and its answers, as a run makes them."""
    dataset = Dataset.open(data)
    if dataset.captions:
        records: Any = [record for record in dataset.captions if record.split == "train"]
        words = words or Tokenizer.train(text for r in records for text in r.captions)
        return CaptionData(records, words, source), words, None
    records = [record for record in dataset.questions if record.split == "train"]
    words = words or Tokenizer.train(record.question for record in records)
    answers = AnswerVocabulary.train(records, 1000)
    return QuestionData(records, words, answers, source, targets="soft"), words, answers


def batches_of(data: Any, size: int, seed: int) -> Iterable[list[int]]:
    draw = torch.Generator().manual_seed(seed)
    return BatchSampler(torch.randperm(len(data), generator=draw).tolist(), size, drop_last=True)


def stage_reward(folders: list[Path], options: Namespace) -> dict[str, Any]:
    """Document frequencies of the training captions, as token ids, and rewards of a batch."""
    dataset = Dataset.open(folders[0])
    records = [record for record in dataset.captions if record.split == "train"]
    texts = [text for record in records for text in record.captions]
    began = time.perf_counter()
    words = Tokenizer.train(texts)
    vocabulary = time.perf_counter() - began
    rows = iter(words.encode_batch(texts, 22))
    references = [[next(rows)[1:] for _ in record.captions] for record in records]
    began = time.perf_counter()
    scorer = CiderD(references)
    counted = time.perf_counter() - began
    sampled = list(range(0, len(references), max(len(references) // 320, 1)))[:320]
    began = time.perf_counter()
    scorer.score([references[n][0] for n in sampled], sampled)
    rewards = time.perf_counter() - began
    return {
        "captions": len(texts),
        "vocabulary_seconds": round(vocabulary, 2),
        "frequencies_seconds": round(counted, 2),
        "rewards_of_320_seconds": round(rewards, 4),
    }


def stage_workers(folders: list[Path], options: Namespace) -> dict[str, Any]:
    """What two workers of a loader take for themselves, at first and after a whole pass."""
    found = {}
    for folder in folders:
        data = reading(folder, NoPictures(1))[0]
        loader: Any = DataLoader(
            data,
            batch_sampler=list(batches_of(data, 64 if len(data) > 1000 else 4, 0)),
            collate_fn=lambda batch: batch,  # the dataset makes whole batches
            num_workers=2,
        )
        began, batches = [], iter(loader)
        for number, _ in enumerate(batches):
            if number == 1:
                workers = [worker.pid for worker in batches._workers]
                began = [memory(pid)["private"] for pid in workers]
            if number == len(loader) - 3:
                ended = [memory(pid)["private"] for pid in workers]
        found[folder.name] = {
            "main": memory(os.getpid()),
            "pictures": len(data),
            "first": began,
            "last": ended,
        }
    return {"workers": found}


def stage_steps(folders: list[Path], options: Namespace) -> dict[str, Any]:
    """Seconds a step on all of the data and on a part of it, in turns."""
    whole, part = folders
    words = answers = None
    source = {}
    for folder in folders:
        cache = next((folder / "features").iterdir())
        data, words, answers_of = reading(folder, FeatureCache(cache, folder), words)
        answers = answers or answers_of
        if answers:
            data.answers = answers  # one model for both
        source[folder] = data
    sizes: dict[str, Any] = {"channels": 1280, "vocabulary": words.vocab_size}
    if answers is None:
        network: Any = build_captioner("attention-lstm", **sizes, **SMALL)
        loss = our_loss(network)
    else:
        network = build_answerer("lstm-vqa", **sizes, answers=len(answers), **SMALL)

        def loss(batch: Any) -> torch.Tensor:
            grid = Grid.of(batch.pictures, 7, 7)
            logits, _ = network(grid, batch.tokens, batch.lengths, batch.owner)
            return answer_loss(logits.float(), batch.targets, "soft")

    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    device = torch.device("cpu")
    orders = {
        folder: itertools.chain.from_iterable(
            batches_of(data, options.batch, seed) for seed in itertools.count()
        )
        for folder, data in source.items()
    }
    seconds: dict[Path, list[float]] = {folder: [] for folder in folders}
    cpu: dict[Path, list[float]] = {folder: [] for folder in folders}
    reads: dict[Path, list[float]] = {folder: [] for folder in folders}
    for turn in range(options.turns + 1):
        for folder in folders if turn % 2 else folders[::-1]:
            began, used, read = clock(device), time.process_time(), 0.0
            for indices in itertools.islice(orders[folder], -(-options.steps // options.turns)):
                start = time.process_time()
                batch = source[folder].__getitems__(indices)
                read += time.process_time() - start
                optimiser.zero_grad()
                value = loss(batch._replace(pictures=batch.pictures.float()))
                value.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 5.0)
                optimiser.step()
            if turn:  # the first warms up
                count = -(-options.steps // options.turns)
                seconds[folder].append((clock(device) - began) / count)
                cpu[folder].append((time.process_time() - used) / count)
                reads[folder].append(read / count)
    found: dict[str, Any] = {}
    for name, each in (("wall", seconds), ("cpu", cpu), ("reading_cpu", reads)):
        ratios = [a / b for a, b in zip(each[whole], each[part], strict=True)]
        found[name] = {f.name: round(1000 * statistics.median(each[f]), 2) for f in folders}
        found[name] |= {"ratio": round(statistics.median(ratios), 3)}
        found[name] |= {"ratios": [round(ratio, 3) for ratio in ratios]}
    return found | {
        "texts_in_dataset": {f.name: len(source[f].tokens.lengths) for f in folders},
    }


STAGES = {"reward": stage_reward, "workers": stage_workers, "steps": stage_steps}


def everything(folder: Path, options: Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    coco, vqa, pictures = folder / "coco", folder / "vqa", folder / "pictures"
    few, few_questions = folder / "coco-part", folder / "vqa-part"
    pictures.mkdir(exist_ok=True)
    head = f"{'seconds':>8} {'of CPU':>7} {'start':>7} {'PSS MB':>7} {'own':>7}"
    print(f"{'':34} {head}  other processes: PSS (own)")
    unseen = ("--images", pictures, "--check", "none")
    if not coco.exists():
        found["data coco"] = gazetell("data", "coco", options.data, *unseen, "--out", coco)
        show("data coco", found["data coco"])
        resplit(coco)
        hundredth(Dataset.open(coco), few, options.share)
        found["cache"] = {place.name: make_cache(place) for place in (coco, few)}
    if options.questions and not vqa.exists():
        raw = folder / "vqa-raw"
        raw.mkdir()
        different = make_questions(options.questions, Dataset.open(coco), raw)
        print(f"questions: {different} different ones, repeated with new ids")
        found["data vqa"] = gazetell("data", "vqa", raw, *unseen, "--out", vqa)
        found["data vqa"]["different"] = different
        show("data vqa", found["data vqa"])
        hundredth(Dataset.open(vqa), few_questions, options.share)
        found["cache of vqa"] = {place.name: make_cache(place) for place in (vqa, few_questions)}
    if "captions" in options.parts:
        found["captions"] = training(coco, folder / "run", "attention-lstm", options)
    if "questions" in options.parts and options.questions:
        found["questions"] = training(vqa, folder / "run-vqa", "lstm-vqa", options)
    if "reward" in options.parts:
        found["reward"] = stage("reward", coco)
        row = found["reward"]
        told = (
            f"vocabulary {row['vocabulary_seconds']} s, frequencies {row['frequencies_seconds']} s"
        )
        show(f"references, {row['captions']:,} captions", row, told)
    pairs = [(coco, few)] + ([(vqa, few_questions)] if options.questions else [])
    if "workers" in options.parts:
        found["workers"] = stage("workers", *(place for pair in pairs for place in pair))
        for name, row in found["workers"]["workers"].items():
            print(
                f"loader of {name}, {row['pictures']:,} pictures: what its two workers alone have: "
                f"{row['first']} MB at the first batches, {row['last']} MB after the whole pass"
            )
    if "steps" in options.parts:
        more = ("--steps", str(options.steps), "--turns", str(options.turns))
        for pair in pairs:
            row = stage("steps", *pair, *more, "--batch", str(options.batch))
            found[f"steps {pair[0].name}"] = row
            for what in ("wall", "cpu", "reading_cpu"):
                print(f"steps on {pair[0].name}, ms of {what}: {row[what]}")
    return found


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, nargs="+", help="official captions")
    parser.add_argument("--questions", type=Path, help="official questions with annotations")
    parts = ("captions", "questions", "reward", "workers", "steps")
    parser.add_argument("--parts", nargs="*", choices=parts, default=parts)
    parser.add_argument("--steps", type=int, default=300, help="of an epoch, and in turns")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--batch", type=int, default=64, help="pictures, of the part steps")
    parser.add_argument("--share", type=int, default=100, help="the part is one of so many")
    parser.add_argument(
        "--folder", type=Path, help="keep all there, and use what is there; else a temporary one"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--stage", choices=STAGES, help="one part alone, as the script calls it")
    options = parser.parse_args()
    if options.stage:
        torch.manual_seed(0)
        print(json.dumps(STAGES[options.stage](options.data, options)))
        return
    options.data = options.data[0]
    machine = describe(torch.device("cpu"), choose_precision(torch.device("cpu"), "fp32"))
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = {"machine": machine, **everything(folder.resolve(), options)}
    if options.json:
        options.json.write_text(json.dumps(found, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

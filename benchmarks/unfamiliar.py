"""Which share of foreign pictures a model marks as unfamiliar.

    python benchmarks/unfamiliar.py photo --known DATASET
    python benchmarks/unfamiliar.py RUN --known RUN/scenes --photographs FOLDER

The pictures are drawn here: generated scenes, pages of text, line drawings, charts, soft shapes and
stripes like those of a chest x-ray, noise. ``--known`` is a prepared dataset of the model's own
kind: its test split gives the share of false alarms, of which the threshold allows 5 % on
validation. ``--photographs`` is a folder of photographs, for a model that learned from others.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont

import gazetell
from gazetell import scenes
from gazetell.data.records import Dataset
from gazetell.pictures import image_files

WORDS = "the of and to in is that for it as was with be by on not he his but at are this have"


def page(draw: random.Random) -> Image.Image:
    """A page of text."""
    image = Image.new("RGB", (600, 800), draw.choice(["white", "#faf5e6"]))
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=draw.choice([12, 14, 18, 24]))
    for y in range(30, 760, round(1.5 * font.size)):
        line = " ".join(draw.choices(WORDS.split(), k=round(800 / font.size / 3)))
        pen.text((40, y), line, fill="#141414", font=font)
    return image


def drawing(draw: random.Random) -> Image.Image:
    """Lines and circles in black on white."""
    image = Image.new("RGB", (500, 400), "white")
    pen = ImageDraw.Draw(image)
    for _ in range(draw.randint(5, 14)):
        ends = [(draw.randint(20, 480), draw.randint(20, 380)) for _ in range(draw.randint(2, 6))]
        pen.line(ends, fill="black", width=draw.randint(2, 5), joint="curve")
        pen.circle(draw.choice(ends), draw.randint(10, 60), outline="black", width=3)
    return image


def chart(draw: random.Random) -> Image.Image:
    """Bars over an axis."""
    image = Image.new("RGB", (600, 400), "white")
    pen = ImageDraw.Draw(image)
    pen.line((50, 20, 50, 360, 580, 360), fill="black", width=2)
    for n in range(8):
        colour = tuple(draw.choices(range(256), k=3))
        pen.rectangle((70 + 60 * n, 360 - draw.randint(20, 300), 110 + 60 * n, 360), fill=colour)
    return image


def xray(draw: random.Random) -> Image.Image:
    """Two dark fields, bright stripes and a bright column, blurred."""
    y, x = np.mgrid[:400, :400].astype(float)
    light = 200 + 60 * np.exp(-(((x - 200) / 15) ** 2))
    for side in (-80, 80):
        light -= 120 * np.exp(-(((x - 200 - side) / 60) ** 2) - ((y - 200) / 120) ** 2)
    for n in range(10):
        light += 35 * np.exp(-(((y - 60 - 30 * n - 0.002 * (x - 200) ** 2) / 5) ** 2))
    light += np.random.default_rng(draw.randrange(2**32)).normal(0, 6, light.shape)
    image = Image.fromarray(np.clip(0.9 * light, 0, 255).astype(np.uint8)).convert("RGB")
    return image.filter(ImageFilter.GaussianBlur(draw.randint(1, 3))).rotate(draw.randint(-10, 10))


def noise(draw: random.Random) -> Image.Image:
    """Every pixel of any colour."""
    random_ = np.random.default_rng(draw.randrange(2**32))
    return Image.fromarray(random_.integers(0, 256, (300, 400, 3), dtype=np.uint8))


DRAWN = {f.__name__: f for f in (page, drawing, chart, xray, noise)}


def sets(known: Path | None, photographs: Path | None, count: int) -> Iterator[tuple[str, list]]:
    """Names and pictures of each kind."""
    draw = random.Random(0)
    if known:
        dataset = Dataset.open(known)
        records = dataset.split("test") or dataset.questions_of("test")
        images = list(dict.fromkeys(dataset.root / record.image for record in records))
        yield "its own kind (false alarms)", draw.sample(images, min(len(images), 4 * count))
    if photographs:
        files = list(image_files([str(photographs)]))
        yield "photographs", draw.sample(files, min(len(files), 4 * count))
    with tempfile.TemporaryDirectory() as folder:
        made = scenes.generate(Path(folder) / "scenes", train=count, val=1, test=1)
        yield "scenes", [made.path(record) for record in made.split("train")]
    for name, make in DRAWN.items():
        yield name, [make(draw) for _ in range(count)]


def main() -> None:
    """Print a line for each kind of picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a captioner or answerer")
    parser.add_argument("--known", type=Path, help="prepared dataset of the model's kind")
    parser.add_argument("--photographs", type=Path, help="folder of photographs")
    parser.add_argument("--count", type=int, default=60, help="pictures of each kind")
    given = parser.parse_args()
    model = gazetell.load(given.model, device="cpu")
    if isinstance(model, gazetell.Pair):
        model = model.captioner
    if model.novelty is None:
        sys.exit(f"{given.model}: cannot tell; fit it with gazetell evaluate --calibrate")
    for name, pictures in sets(given.known, given.photographs, given.count):
        pooled = []
        for begin in range(0, len(pictures), 16):
            pooled += [e.grid.pooled for e in model.encode_all(pictures[begin : begin + 16])]
        marked = model.novelty.unfamiliar(torch.cat(pooled).float())
        share = f"{100 * sum(marked) / len(marked):5.1f} %"
        print(f"{name:<28} {len(marked):>4} pictures   unfamiliar {share}", flush=True)


if __name__ == "__main__":
    main()

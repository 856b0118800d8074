"""What a caption costs by ``photo`` and by large models of their true size, in one run on this CPU.

    python benchmarks/large.py [--models NAME ...] [--rounds N] [--json FILE]

The large models are built from transformers' configuration classes, in the published sizes, with
random weights: the arithmetic does not depend on them. Nothing is downloaded, and nothing is said
about quality. Every model says a caption of the same length: ``photo`` so many words, the others so
many tokens, greedily, with nothing that could end it earlier. ``photo-beam`` searches as ``photo``
does by itself.

From the file of a photograph to the words, all counted: opening, resizing, the network. Each
model is alone in a process of its own, whose peak of memory is then the model's, with Python and
torch in it. The processes take turns, round after round, so that a drifting machine treats all
alike; a round is the median of some photographs, and medians of the rounds are given. The whole
takes about four minutes on two idle cores.

Sizes are transformers' defaults but for these, taken from what is known of the published models;
their files could not be read where this was written:

- BLIP base (Salesforce/blip-image-captioning-base): ViT-B/16 at 384 px, and a text decoder of 12
  layers with cross-attention that has 12 heads.
- ViT-GPT2 (nlpconnect/vit-gpt2-image-captioning): ViT-B/16 at 224 px, GPT-2 with cross-attention.
- GIT base (microsoft/git-base-coco): CLIP's ViT-B/16 at 224 px, six layers over image and words.
- SmolVLM-256M (HuggingFaceTB/SmolVLM-256M-Instruct): SigLIP B/16 at 512 px, Llama of 30 layers,
  64 tokens a tile. ``smolvlm-256m`` sees the picture as one tile, ``smolvlm-256m-tiles`` as
  published: at 2,048 px in tiles of 512, and the whole.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from gazetell.models.folder import shipped
from gazetell.models.precision import choose_precision
from gazetell.process import peak_memory

Say = Callable[[Path], int]  # a photograph's file to the number of words or tokens said
Made = tuple[Say, list[nn.Module], int | None]  # with the networks, and bytes on disk if known
EXAMPLES = Path(str(resources.files("gazetell") / "examples"))
PROMPT = 16  # tokens of a question and of the chat's frame around a picture


def photo(options: Namespace, beam: int | None = 1) -> Made:
    """The model in the box; ``beam`` of None is its own."""
    from gazetell.inference.predict import Captioner

    model = Captioner.load("photo", device="cpu", precision=options.precision)
    how = {} if beam is None else {"beam": beam}
    how |= {"min_length": options.words, "max_length": options.words}
    folder = shipped()
    files = [folder / "encoder.safetensors", *(folder / "captioner").iterdir()]
    disk = sum(path.stat().st_size for path in files)
    networks = [model.encoder, model.captioner]
    return lambda path: len(model.caption(path, **how).words), networks, disk


def generating(model: Any, inputs: Callable[[Image.Image], dict[str, Any]], words: int) -> Made:
    """A model of transformers, by what it is given of a picture."""
    model.eval()
    length = {"min_new_tokens": words, "max_new_tokens": words}

    def say(path: Path) -> int:
        given = inputs(Image.open(path).convert("RGB"))
        # A prompt is given back before what is said.
        begun = given["input_ids"].shape[1] if "input_ids" in given else 1
        with torch.inference_mode():
            said = model.generate(**given, **length, do_sample=False, num_beams=1)
        return int(said.shape[1]) - begun

    return say, [model], None


def pixels(processor: Any, dtype: torch.dtype) -> Callable[[Image.Image], dict[str, Any]]:
    """A picture as a model without a prompt takes it."""
    return lambda image: {
        "pixel_values": processor(image, return_tensors="pt").pixel_values.to(dtype)
    }


def blip(options: Namespace, dtype: torch.dtype) -> Made:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor

    config = BlipConfig(text_config={"num_attention_heads": 12}, initializer_factor=1.0)
    model = BlipForConditionalGeneration(config)
    return generating(model, pixels(BlipImageProcessor(), dtype), options.words)


def vit_gpt2(options: Namespace, dtype: torch.dtype) -> Made:
    from transformers import (
        GPT2Config,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
    )

    made = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(), GPT2Config())
    model = VisionEncoderDecoderModel(made)
    model.generation_config.decoder_start_token_id = 50256
    model.generation_config.pad_token_id = model.generation_config.eos_token_id = 50256
    processor = ViTImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return generating(model, pixels(processor, dtype), options.words)


def git(options: Namespace, dtype: torch.dtype) -> Made:
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM

    model = GitForCausalLM(GitConfig())
    picture, start = pixels(CLIPImageProcessor(), dtype), torch.tensor([[101]])
    return generating(model, lambda x: {**picture(x), "input_ids": start}, options.words)


def smolvlm(options: Namespace, dtype: torch.dtype, tiles: bool = False) -> Made:
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMImageProcessor

    vision = {"hidden_size": 768, "num_attention_heads": 12, "image_size": 512, "patch_size": 16}
    text = {
        **{"model_type": "llama", "vocab_size": 49280, "hidden_size": 576, "head_dim": 64},
        **{"intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9},
        **{"num_key_value_heads": 3, "max_position_embeddings": 8192},
    }
    picture, token = {"longest_edge": 512}, 49190
    ends = {"pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 49279}
    config = SmolVLMConfig(
        vision_config=vision, text_config=text | ends, scale_factor=4, image_token_id=token
    )
    model = SmolVLMForConditionalGeneration(config)
    processor = SmolVLMImageProcessor(
        size={"longest_edge": 2048} if tiles else picture,
        max_image_size=picture,
        do_image_splitting=tiles,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )

    def inputs(image: Image.Image) -> dict[str, Any]:
        found = processor(image, return_tensors="pt")
        values = found["pixel_values"].to(dtype)  # (1, tiles, 3, 512, 512)
        # A tile is 64 tokens between two marks; a prompt and the chat's frame stand around.
        one = [0, *[token] * 64, 0]
        ids = torch.tensor([[1] * PROMPT + one * values.shape[1]])
        return {
            "pixel_values": values,
            "pixel_attention_mask": found["pixel_attention_mask"],
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
        }

    return generating(model, inputs, options.words)


LARGE: dict[str, Callable[..., Made]] = {
    "vit-gpt2": vit_gpt2,
    "git-base": git,
    "blip-base": blip,
    "smolvlm-256m": smolvlm,
    "smolvlm-256m-tiles": lambda options, dtype: smolvlm(options, dtype, tiles=True),
}
SLOW = ("smolvlm-256m-tiles",)
MODELS = ("photo", "photo-beam", *LARGE)


def measure(options: Namespace) -> dict[str, Any]:
    """One round of one model, in this process."""
    torch.manual_seed(options.seed)
    form = choose_precision(torch.device("cpu"), options.precision)
    began, libraries = time.perf_counter(), peak_memory()
    if options.one in LARGE:
        # Made in the number format, as weights are loaded.
        torch.set_default_dtype(form.dtype)
        say, networks, disk = LARGE[options.one](options, form.dtype)
        torch.set_default_dtype(torch.float32)
    else:
        say, networks, disk = photo(options, None if options.one == "photo-beam" else 1)
    loaded = time.perf_counter() - began
    # Tied weights are one.
    weights = {id(x): x for network in networks for x in network.parameters()}.values()
    photographs = sorted(EXAMPLES.glob("*.jpg"))[: options.pictures]
    # The first one warms up; what takes half a minute each needs none, and has one a round.
    told = photographs[:1] if options.one in SLOW else [photographs[0], *photographs]
    rows = []
    for path in told:
        wall, cpu = time.perf_counter(), time.process_time()
        said = say(path)
        rows.append((time.perf_counter() - wall, time.process_time() - cpu))
        if said != options.words:
            raise SystemExit(f"{options.one}: a caption of {said}; expected {options.words}")
    walls, cpus = zip(*(rows[1:] or rows), strict=True)
    return {
        "wall_ms": 1000 * statistics.median(walls),
        "cpu_ms": 1000 * statistics.median(cpus),
        "load_s": loaded,
        "peak_mb": peak_memory() / 1e6,
        "own_mb": (peak_memory() - libraries) / 1e6,
        "parameters": sum(x.numel() for x in weights),
        "disk_mb": (disk or sum(x.numel() * x.element_size() for x in weights)) / 1e6,
    }


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    numbers = {"words": 10, "pictures": 3, "rounds": 2, "seed": 0}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--precision", default="fp32", help="auto, bf16 or fp32")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--one", choices=MODELS, help="one round of this model, as JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options)))
        return
    from captioning import describe  # with what trains, which no caption needs

    device = torch.device("cpu")
    machine = describe(device, choose_precision(device, options.precision))
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    given = [f"--{name}={getattr(options, name)}" for name in ("words", "pictures", "seed")]
    command = [sys.executable, __file__, *given, "--precision", options.precision]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in options.models}
    for _ in range(options.rounds):
        for name, found in rows.items():
            ran = subprocess.run(
                [*command, "--one", name], stdout=subprocess.PIPE, check=True, env=environment
            )
            found.append(json.loads(ran.stdout.splitlines()[-1]))
    result: dict[str, Any] = {"machine": machine, "words": options.words}
    result["models"] = {
        name: {key: statistics.median(row[key] for row in found) for key in found[0]}
        for name, found in rows.items()
    }
    least = next(iter(result["models"].values()))["cpu_ms"]
    heads = ("model", "CPU ms", "ms", "times the first", "peak MB", "of the model")
    heads += ("parameters", "MB on disk")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, row in result["models"].items():
        cells = [f"{row['cpu_ms']:,.0f}", f"{row['wall_ms']:,.0f}", f"{row['cpu_ms'] / least:.1f}"]
        cells += [f"{row['peak_mb']:,.0f}", f"{row['own_mb']:,.0f}"]
        cells += [f"{row['parameters'] / 1e6:.1f} M"]
        print(f"| {name} | {' | '.join(cells)} | {row['disk_mb']:,.0f} |")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

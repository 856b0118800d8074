"""Large models of transformers >= 5: what they tell, as tokens, probabilities and attention.

``inference.large`` makes captions and answers of it. Known are BLIP (Li et al. 2022; captions, or
answers), GIT (Wang et al. 2022), VisionEncoderDecoder (ViT-GPT2), and models that are asked by a
prompt, in a chat or not. In the place of a ``Grid`` they have the pictures themselves: the
repository's own processor prepares them.

The search is transformers' own ``generate``. Probabilities are of its raw logits, as those of our
models, with the end as w_T+1, which is forced, and counted, where a text is cut::

    log p(w_1 ... w_T) = sum_t log softmax(logits_t)[w_t]        max_length counts tokens

The **gaze** is read in one more pass over what was told: the attention of the position that
predicts a token to the patches (BLIP, ViT-GPT2: cross-attention; GIT: self-attention to the image),
the mean over all heads of the upper half of the layers, the class token left out, the mean over the
tokens of a word, scaled to a sum of 1. The upper half, since lower layers of such decoders still
mix words: a guess, no true weights were at hand. BLIP's answers see the picture only through the
question: their gaze is the mean over its words.

Shapes: ``B`` pictures, ``N`` texts told of them, ``L`` positions, ``T`` tokens, ``R`` patches.
"""

import hashlib
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError, ImageError, ModelError, UsageError
from ..files import read_json
from ..pictures import WHOLE, Area, Fit, Frame, View
from .encoders import Grid
from .precision import Precision, choose
from .search import Decoded, DecodingOptions
from .weights import quiet

WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
Told = tuple[Any, Callable[[Tensor], Tensor | None]]  # what generates, and what gives attention
PROMPT = "Describe this image in one sentence."
# Without a chat template: what asks for a caption, and for an answer where it can.
FORMS = {
    "blip-2": ("", "Question: {} Answer:"),
    "florence2": ("<CAPTION>", ""),
    "instructblip": (PROMPT, "{}"),
    "paligemma": ("caption en", "answer en {}"),
}
USUAL = 384  # side of a picture, in pixels, where a processor has no side of its own
SEEING = ("blip_vision_model", "git_vision_model", "vit", "deit", "beit")  # a patch a place
LONG = 8  # times the shorter side, what is kept of a picture whose middle alone is shown
PIECES = 16  # of a file, that are read for its fingerprint

log = logging.getLogger(__name__)


class Pictures(Grid):
    """Pictures as they are, in the place of a grid, for models with a processor of their own.

    ``cells`` is a list of uint8 arrays (height, width, 3).
    """

    @classmethod
    def of_arrays(cls, arrays: Sequence[Any]) -> "Pictures":
        """These pictures."""
        return cls(list(arrays), torch.empty(len(arrays), 0), 0, 0)  # type: ignore[arg-type]

    @staticmethod
    def together(grids: Sequence[Grid]) -> Any:
        """The pictures of several."""
        return [picture for grid in grids for picture in grid.cells]

    def copied(self) -> Grid:
        """Each has its own memory."""
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(picture.nbytes for picture in self.cells)


@dataclass(frozen=True)
class Sight(Frame):
    """How a processor of transformers fits pictures to its input; it is given them as they are.

    Attributes:
        scaled: width and height, or ``shortest_edge``, to which it scales; empty where what it
            shows is its own affair, such as tiles.
        shown: width and height of the input.
        patch: side of a patch in pixels; 0 where there is no gaze.
    """

    scaled: dict[str, int] = field(default_factory=dict)
    shown: tuple[int, int] = (0, 0)
    patch: int = 0

    @classmethod
    def of(cls, images: Any, vision: Any) -> "Sight":
        """That of an image processor, and of the configuration of the network that looks."""
        scaled = {k: v for k, v in dict(getattr(images, "size", None) or {}).items() if v}
        size = max((v for v in scaled.values() if v < 4096), default=2048)
        cut = getattr(images, "do_center_crop", None) and images.crop_size
        own = ("do_pad", "do_thumbnail", "do_image_splitting", "do_align_long_axis")
        square = {*scaled} == {"height", "width"} or (cut and {*scaled} == {"shortest_edge"})
        if not square or any(getattr(images, name, None) for name in own):
            return cls(size)
        fit: Fit = "crop" if cut else "squash"
        patch = vision.patch_size if getattr(vision, "model_type", "") in SEEING else 0
        shown = cut or scaled
        shown = (shown["width"], shown["height"])
        return cls(size, fit, scaled=scaled, shown=shown, patch=patch)

    @property
    def patches(self) -> tuple[int, int]:
        """Rows and columns of the patches; 0 where there is no gaze."""
        columns, rows = (side // self.patch if self.patch else 0 for side in self.shown)
        return rows, columns

    def seen(self, size: tuple[int, int]) -> Area:
        """The area of a picture (width, height) that the input shows."""
        if not self.scaled:
            return WHOLE
        if short := self.scaled.get("shortest_edge"):
            scaled = [int(short * side / min(size)) for side in size]
        else:
            scaled = [self.scaled["width"], self.scaled["height"]]
        x, y = (shown / side / 2 for shown, side in zip(self.shown, scaled, strict=True))
        return 0.5 - x, 0.5 - y, 0.5 + x, 0.5 + y

    def view(self, size: tuple[int, int], cells: Area = WHOLE) -> View:
        """The view of a picture (width, height); the patches may leave a rest of the input."""
        if self.patch:
            sides = zip(reversed(self.patches), self.shown, strict=True)
            right, bottom = (self.patch * count / side for count, side in sides)
            cells = (0.0, 0.0, right, bottom)
        return super().view(size, cells)

    def doubt(self, size: tuple[int, int]) -> str:
        """As of ``Frame``."""
        if self.scaled:
            return super().doubt(size)
        return Frame(USUAL).doubt(size).partition(":")[0]

    def pixels(self, picture: Image.Image, crop: Area = WHOLE) -> np.ndarray:
        """The picture (height, width, 3), made smaller where it is far larger than is shown."""
        side = LONG * min(picture.size)
        if self.fit == "crop" and max(picture.size) > side:  # a line would become a huge picture
            x, y = (max(length - side, 0) // 2 for length in picture.size)
            picture = picture.crop((x, y, picture.width - x, picture.height - y))
        if (factor := min(picture.size) // (2 * self.size)) > 1:
            picture = picture.reduce(factor)
        return np.asarray(picture)


@dataclass(frozen=True)
class Network:
    """A model of transformers with its processor, on its device; ``load`` opens one.

    Attributes:
        name: what messages call it.
        family: ``model_type`` of its configuration; ``chat`` where it is asked by a prompt.
        model: of transformers.
        teller: the part of it that generates, ``model`` but for BLIP.
        images: its image processor; of a chat model the whole processor.
        words: its tokenizer.
        ends: tokens that end a text.
        sight: what its processor shows of a picture, see ``load``.
        decoding: its own options.
        prompt: what asks for a caption.
        question: what asks for an answer, with {} for the question.
        fingerprint: of its files.
        kept: a calibration, as JSON values.
    """

    name: str
    family: str
    model: Any
    teller: Any
    images: Any
    words: Any
    ends: list[int]
    sight: Any
    decoding: DecodingOptions
    prompt: str
    question: str
    fingerprint: str
    kept: dict[str, Any]
    device: torch.device
    precision: Precision

    @property
    def captions(self) -> bool:
        """Whether it tells captions; where it answers, ``question`` says how."""
        return not (self.family == "blip" and self.question)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        return str(self.words.decode(tokens, skip_special_tokens=True))

    def worded(self, tokens: Sequence[int], prompt: str) -> tuple[str, list[str], list[list[int]]]:
        """The text of tokens, without a prompt that it repeats; its words, and the tokens of each.

        Marks of punctuation are no words.
        """
        ends = [len(self.decode(tokens[:n])) for n in range(len(tokens) + 1)]
        text, first = self.decode(tokens), 0
        if prompt and (repeated := re.match(rf"\s*{re.escape(prompt)}\W*", text, re.IGNORECASE)):
            first = repeated.end()
        words, groups = [], []
        for word in WORD.finditer(text, first):
            places = range(len(tokens))
            own = [n for n in places if ends[n] < word.end() and ends[n + 1] > word.start()]
            words.append(word.group())
            groups.append(own or [len(tokens) - 1])  # a letter may be half a token
        return " ".join(text[first:].split()), words, groups

    def _prepare(self, pictures: Sequence[np.ndarray], texts: Sequence[str]) -> Told:
        """What generates texts of pictures; what gives the attention (N, L, R) of tokens (N, L)."""
        given, model, device = [Image.fromarray(x) for x in pictures], self.model, self.device
        if self.family == "chat":
            return self._asked(given, texts), lambda ids: None
        pixels = self.images(images=given, return_tensors="pt")["pixel_values"]
        pixels = pixels.to(device, self.precision.dtype)
        if self.family == "git":
            first = self.words(list(texts), return_tensors="pt").input_ids[:, :-1].to(device)

            def look_git(ids: Tensor) -> Tensor:
                own, width = pixels.repeat_interleave(len(ids) // len(pixels), 0), ids.shape[1]
                seen = model(input_ids=ids, pixel_values=own, output_attentions=True).attentions
                return _upper(seen)[:, -width:, :-width]

            ones = torch.ones_like(first)
            return {"pixel_values": pixels, "input_ids": first, "attention_mask": ones}, look_git
        if self.family == "vision-encoder-decoder":
            encoded = model.encoder(pixel_values=pixels)
            states = encoded[0]  # generate expands the other in place

            def look_across(ids: Tensor) -> Tensor:
                own = (states.repeat_interleave(len(ids) // len(pixels), 0),)
                seen = model(encoder_outputs=own, decoder_input_ids=ids, output_attentions=True)
                return _upper(seen.cross_attentions)

            return {"encoder_outputs": encoded}, look_across
        states = model.vision_model(pixel_values=pixels)[0]
        cross = _cross(states, torch.ones(states.shape[:2], dtype=torch.long, device=device))
        asked: Tensor | None = None
        if any(texts):  # BLIP reads the question; its decoder sees no more than that
            read = self.words(list(texts), padding=True, return_tensors="pt").to(device)
            ids, mask = read.input_ids, read.attention_mask
            seen = model.text_encoder(ids, attention_mask=mask, output_attentions=True, **cross)
            inner = (mask.cumsum(1) > 1) & (mask.flip(1).cumsum(1).flip(1) > 1)  # without its marks
            weights = inner / inner.sum(1, keepdim=True).clamp(min=1)
            asked = torch.einsum("bl,blr->br", weights, _upper(seen.cross_attentions))
            cross = _cross(seen[0], mask)

        def look_blip(ids: Tensor) -> Tensor:
            count = len(ids) // len(pixels)
            if asked is not None:
                return asked.repeat_interleave(count, 0).unsqueeze(1).expand(-1, ids.shape[1], -1)
            own = {name: x.repeat_interleave(count, 0) for name, x in cross.items()}
            return _upper(self.teller(ids, output_attentions=True, **own).cross_attentions)

        text = model.config.text_config
        first = torch.full((len(pixels), 1), text.bos_token_id, device=device)
        ends = {"eos_token_id": self.ends, "pad_token_id": text.pad_token_id}
        return {"input_ids": first, **ends, **cross}, look_blip

    def _asked(self, given: Sequence[Image.Image], texts: Sequence[str]) -> Any:
        """Inputs of a model that is asked by a prompt."""
        asked, images, special = list(texts), list[Any](given), True
        if self.images.chat_template:
            for n, text in enumerate(texts):
                content = [{"type": "image"}, {"type": "text", "text": text}]
                messages = [{"role": "user", "content": content}]
                asked[n] = self.images.apply_chat_template(messages, add_generation_prompt=True)
            images = [[image] for image in given]
            special = not asked[0].startswith(self.words.bos_token or "\0")
        how = {"padding": True, "return_tensors": "pt", "add_special_tokens": special}
        inputs = self.images(text=asked, images=images, **how)
        return inputs.to(self.device, dtype=self.precision.dtype)

    def tell(
        self,
        pictures: Sequence[np.ndarray],
        texts: Sequence[str],
        limit: int,
        count: int = 1,
        forced: Sequence[Sequence[int]] = (),
        **how: Any,
    ) -> list[list[Decoded]]:
        """What the model tells of each of B pictures, ``count`` texts, best first.

        Args:
            pictures: (height, width, 3) each.
            texts: of each the prompt or the question; empty for none.
            limit: most tokens of a text.
            count: texts of a picture.
            forced: B * count rows of tokens, with their ends, that are to be told.
            how: further options of ``generate``.
        """
        # GIT counts its positions without regard to padding.
        most = 1 if self.family == "git" and any(texts) else 4 if self.family == "chat" else 16
        if len(pictures) > most:
            told = []
            for n in range(0, len(pictures), most):
                rows = forced[n * count : (n + most) * count]
                some = slice(n, n + most)
                told += self.tell(pictures[some], texts[some], limit, count, rows, **how)
            return told
        begin: list[int] = []

        def force(ids: Tensor, chances: Tensor) -> Tensor:
            begin.extend([] if begin else [ids.shape[1]])
            place, only = ids.shape[1] - begin[0], torch.full_like(chances, -math.inf)
            for n, row in enumerate(forced):
                only[n, row[min(place, len(row) - 1)]] = 0.0
            return only

        if forced:  # drawn, since the best of one search cannot be several
            how |= {"logits_processor": [force], "do_sample": True, "num_beams": 1}
        how |= {"max_new_tokens": limit + 1, "forced_eos_token_id": self.ends}
        how |= {"num_return_sequences": count, "return_dict_in_generate": True}
        try:
            with torch.inference_mode(), quiet("transformers"):
                inputs, look = self._prepare(pictures, texts)
                out = self.teller.generate(**inputs, **how, output_logits=True)
                attention = look(out.sequences[:, :-1]) if all(self.sight.patches) else None
        except ValueError as error:  # of the processor
            raise ImageError(f"picture: {self.name} cannot take it: {error}") from error
        beams = getattr(out, "beam_indices", None)
        steps = len(out.logits) if beams is None else beams.shape[1]
        tokens = out.sequences[:, -steps:]
        own = torch.arange(len(tokens), device=self.device).unsqueeze(1).expand(-1, steps)
        own = own if beams is None else beams.clamp(min=0)
        scores = torch.empty(2, *tokens.shape)  # of what was told, of what is likeliest
        for t in range(steps):
            chances = out.logits[t][own[:, t]].float().log_softmax(-1)  # (N, V)
            scores[0, :, t] = chances.gather(1, tokens[:, t : t + 1]).squeeze(1)
            scores[1, :, t] = chances.amax(1)
        if attention is not None:
            attention = attention[:, -steps:, -math.prod(self.sight.patches) :].cpu()
            attention = attention / attention.sum(-1, keepdim=True).clamp(min=1e-12)
        power, found = how.get("length_penalty", 0.0), list[Decoded]()
        for n, row in enumerate(tokens.tolist()):
            last = next(t for t, token in enumerate(row) if token in self.ends)
            chance = scores[0, n, : last + 1].tolist()
            if math.isnan(log_prob := sum(chance)):
                raise ModelError(f"{self.name}: gives no word a probability: damaged weights")
            words = [sum(chance[t] for t in group) for group in self.worded(row[:last], "")[2]]
            found.append(
                Decoded(
                    row[:last],
                    None if attention is None else attention[n, : max(last, 1)],
                    log_prob,
                    log_prob / (last + 1) ** power,
                    last < limit or bool(scores[0, n, last] == scores[1, n, last]),
                    min([*words, chance[last]]),
                )
            )
        return [found[n : n + count] for n in range(0, len(found), count)]


def _cross(states: Tensor, mask: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": states, "encoder_attention_mask": mask}


def _upper(layers: Sequence[Tensor]) -> Tensor:
    """The mean over heads and the upper half of layers (N, heads, L, K): (N, L, K)."""
    upper = layers[len(layers) // 2 :]
    return torch.stack([layer.float().mean(1) for layer in upper]).mean(0)


def is_foreign(config: Any) -> bool:
    """Whether a ``config.json`` is of transformers, and not of gazetell."""
    return isinstance(config, dict) and "model_type" in config and "kind" not in config


def is_large(folder: Path) -> bool:
    """Whether a folder holds a model of transformers."""
    try:
        return is_foreign(read_json(folder / "config.json"))
    except DataError:
        return False  # what opens it says why


def recognise(folder: Path, name: str) -> tuple[dict[str, Any], bool]:
    """What the ``config.json`` of a repository of transformers says; its weights are not needed.

    Returns:
        The configuration, and whether transformers itself has such models of pictures.

    Raises:
        ModelError: without the extra, or a repository that tells nothing of pictures.
    """
    try:
        import transformers
        from transformers.models.auto import modeling_auto
    except ImportError as error:
        extra = "it needs the packages of the extra [large]"
        raise ModelError(f"{name}: is a model of transformers; {extra}: {error}") from error
    if int(transformers.__version__.partition(".")[0]) < 5:
        raise ModelError(f"{name}: needs transformers 5 or later, found {transformers.__version__}")
    config = read_json(folder / "config.json")
    family, auto = config["model_type"], config.get("auto_map", {})
    architecture = (config.get("architectures") or [""])[0]
    known = family in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    tells = architecture.endswith(("ConditionalGeneration", "LM", "QuestionAnswering")) or auto
    if not (known or auto) or (family == "blip" and not tells):
        what = "tells nothing of pictures, as far as transformers knows"
        raise ModelError(f"{name}: {architecture or family} {what}; expected a captioner or such")
    return config, known


def calibration_file(fingerprint: str) -> Path:
    """Where the calibration of a large model is kept; its own folder belongs to others.

    JSON with any of ``confidence`` (``Confidence.to_dict``), ``temperature``, ``abstain_below``.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "gazetell", "calibration", f"{fingerprint}.json")


def open_network(
    folder: Path,
    name: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    prompt: str | None = None,
    trust: bool = False,
) -> Network:
    """Open a repository of transformers that lies in a folder.

    Args:
        folder: with ``config.json``.
        name: what messages call it.
        device: see ``choose_device``.
        precision: see ``choose_precision``; all weights are of it.
        prompt: what asks for a caption; of a model that is asked by prompts.
        trust: run the code of the repository, where transformers has none of its own for it.

    Raises:
        ModelError: without the extra, or a repository that is not whole, tells nothing of
            pictures, or brings code of its own without ``trust``.
        UsageError: a prompt that the model does not take.
    """
    config, known = recognise(folder, name)
    import transformers

    family, auto = config["model_type"], config.get("auto_map", {})
    architecture = (config.get("architectures") or [""])[0]
    if not known and auto and not trust:
        raise ModelError(f"{name}: is code of its own ({family}); expected --trust, which runs it")
    answers = architecture == "BlipForQuestionAnswering"
    named = "BlipForQuestionAnswering" if answers else "AutoModelForImageTextToText"
    if not known and named not in auto:
        named = "AutoModelForCausalLM"
    direct = family in ("blip", "git", "vision-encoder-decoder")
    where, number = choose(device, precision)
    if not any(folder.glob("*.safetensors")) and any(folder.glob("*.bin")):
        log.warning("%s: its weights are a pickle; nothing but tensors is read from it", name)
    own = {"trust_remote_code": trust and not known, "local_files_only": True}
    how: dict[str, Any] = {"dtype": number.dtype, "output_loading_info": True, **own}
    try:
        with quiet("transformers"), _no_bars():
            if direct:
                images = transformers.AutoImageProcessor.from_pretrained(folder, **own)
                words = transformers.AutoTokenizer.from_pretrained(folder, **own)
                how["attn_implementation"] = "eager"  # others give no attention back
            else:
                images = transformers.AutoProcessor.from_pretrained(folder, **own)
                images.image_processor  # noqa: B018  (a tokenizer has none)
                words = images.tokenizer
                words.padding_side, words.pad_token = "left", words.pad_token or words.eos_token
            model, found = getattr(transformers, named).from_pretrained(folder, **how)
    except Exception as error:  # the library's own errors have no common base
        why = " ".join(str(error).split())[:300]
        raise ModelError(f"{name}: transformers cannot open it: {why}") from error
    if lacking := sorted([*found["missing_keys"], *map(str, found["mismatched_keys"])]):
        raise ModelError(f"{name}: its weights do not fit: {len(lacking)}, first {lacking[0]}")
    asks, question = ("", "{}" if answers or family == "git" else "")
    if not direct:
        template = getattr(images, "chat_template", None)
        if not template and family not in FORMS:
            raise ModelError(f"{name}: has no chat template; nothing says how {family} is asked")
        asks, question = (PROMPT, "{}") if template else FORMS[family]
    elif prompt is not None:
        raise UsageError(f"prompt {prompt!r}: {name} takes no prompt")
    teller = model.text_decoder if family == "blip" else model
    options = teller.generation_config
    end = model.config.text_config.sep_token_id if family == "blip" else options.eos_token_id
    end = words.eos_token_id if end is None else end
    if end is None:
        raise ModelError(f"{name}: names no token that ends a text (eos_token_id)")
    try:
        decoding = DecodingOptions(
            beam=options.num_beams or 1,
            min_length=0,
            max_length=30 if direct else 60,  # about as many words as ours, which are whole
            length_penalty=1.0 if options.length_penalty is None else options.length_penalty,
            no_repeat_ngram=options.no_repeat_ngram_size or 0,
        )
    except UsageError as error:
        raise ModelError(f"{name}: generation_config.json: {error}") from error
    vision = getattr(model.config, "vision_config", None) or getattr(model.config, "encoder", None)
    sight = Sight.of(images if direct else images.image_processor, vision)
    if not direct:  # pictures and words go through the same layers
        sight = replace(sight, patch=0)
    if not all(sight.patches):
        log.warning("%s: shows not where it looked: its attention has no map of patches", name)
    if family == "git":
        log.warning("%s: answers well only if it was trained to, which nothing here says", name)
    fingerprint = _fingerprint(folder)
    kept, calibration = {}, calibration_file(fingerprint)
    if calibration.is_file():
        kept = read_json(calibration)
        log.warning("%s: its confidence was fitted by gazetell calibrate (%s)", name, calibration)
    return Network(
        name,
        family if direct else "chat",
        model.to(where).eval(),
        teller,
        images,
        words,
        [end] if isinstance(end, int) else list(end),
        sight,
        decoding,
        asks if prompt is None else prompt,
        question,
        fingerprint,
        kept,
        where,
        number,
    )


def _fingerprint(folder: Path) -> str:
    """A hash of the small files, and of pieces of the large ones: to read all takes seconds."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".json", ".safetensors", ".bin", ".jinja", ".txt", ".model"):
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for n in range(PIECES):
                file.seek(size * n // PIECES)
                digest.update(file.read(2**16))
    return digest.hexdigest()[:32]


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep the library's progress bars off standard error."""
    from transformers.utils import logging as own

    before = own.is_progress_bar_enabled()
    own.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            own.enable_progress_bar()

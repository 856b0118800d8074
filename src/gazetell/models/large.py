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
the mean over all heads of the upper half of the layers, the class token left out, scaled to a sum
of 1, the mean over the tokens of a word. The upper half, since lower layers of such decoders still
mix words: a guess, no true weights were at hand. BLIP's answers see the picture only through the
question: their gaze is the mean over its words.

Shapes: ``B`` pictures, ``N`` texts told of them, ``L`` positions, ``T`` tokens, ``R`` patches.
"""

import hashlib
import logging
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError, ImageError, ModelError, UsageError
from ..files import read_json
from ..pictures import WHOLE, Area, Frame
from .encoders import Grid
from .precision import choose
from .search import Decoded, DecodingOptions
from .weights import quiet

WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")
Told = tuple[Any, Callable[[Tensor], Tensor] | None]  # see ``Network._prepare``
PROMPT = "Describe this image in one sentence."
DIRECT = ("blip", "git", "vision-encoder-decoder")  # asked without a prompt
# Without a chat template: what asks for a caption, and for an answer where it can.
FORMS = {
    **{"blip": ("", ""), "git": ("", "{}"), "vision-encoder-decoder": ("", "")},
    "blip-2": ("", "Question: {} Answer:"),
    "florence2": ("<CAPTION>", ""),
    "instructblip": (PROMPT, "{}"),
    "paligemma": ("caption en", "answer en {}"),
}
VQA = "BlipForQuestionAnswering"
USUAL = 384  # side of a picture, in pixels, where a processor has no side of its own
SEEING = ("blip_vision_model", "git_vision_model", "vit", "deit", "beit")  # a patch a place
LONG = 8  # times the shorter side, what is kept of a picture whose middle alone is shown
PIECES = 16  # of a file, that are read for its fingerprint

log = logging.getLogger(__name__)


class Pictures(Grid):
    """Pictures as they are, in the place of a grid, for models with a processor of their own.

    ``cells`` is a list of uint8 arrays (height, width, 3).
    """

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
        plain: it squashes them, or shows their middle; else what it shows is its own affair.
        patches: in a row and in a column of the input; 0 where there is no gaze.
    """

    plain: bool = False
    patches: int = 0

    @classmethod
    def of(cls, images: Any, vision: Any) -> "Sight":
        """That of an image processor, and of the configuration of the network that looks."""
        size, cut = (
            {side: x for side, x in dict(getattr(images, name, None) or {}).items() if x}
            for name in ("size", "crop_size")
        )
        side = max((x for x in size.values() if x < 4096), default=2048)
        square, crop = {"height": side, "width": side}, getattr(images, "do_center_crop", None)
        plain = size == {"shortest_edge": side} and cut == square if crop else size == square
        own = ("do_pad", "do_thumbnail", "do_image_splitting", "do_align_long_axis")
        if not plain or any(getattr(images, name, None) for name in own):
            return cls(side)
        patch = vision.patch_size if getattr(vision, "model_type", "") in SEEING else side + 1
        patches = 0 if side % patch else side // patch
        return cls(side, "crop" if crop else "squash", plain=True, patches=patches)

    def doubt(self, size: tuple[int, int]) -> str:
        """As of ``Frame``."""
        return super().doubt(size) if self.plain else Frame(USUAL).doubt(size).partition(":")[0]

    def pixels(self, picture: Image.Image, crop: Area = WHOLE) -> np.ndarray:
        """The picture (height, width, 3), made smaller where it is far larger than is shown."""
        if self.fit == "crop":  # a line would become a huge picture
            side = LONG * min(picture.size)
            x, y = (max(length - side, 0) // 2 for length in picture.size)
            picture = picture.crop((x, y, picture.width - x, picture.height - y))
        if (factor := min(picture.size) // (2 * self.size)) > 1:
            picture = picture.reduce(factor)
        return np.asarray(picture)


class Network:
    """A model of transformers with its processor, from a folder; options as those of ``load``.

    ``family`` is the ``model_type`` of its configuration, or ``chat`` where it is asked by a
    prompt. ``prompt`` asks for a caption, ``question`` for an answer, with {} for the question, and
    is empty where nothing can. ``ends`` are the tokens that end a text, ``kept`` is a calibration.

    Raises:
        ModelError: without the extra, or a repository that is not whole, tells nothing of
            pictures, or brings code of its own without ``trust``.
        UsageError: a prompt that the model does not take.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        device: str = "auto",
        precision: str = "auto",
        prompt: str | None = None,
        trust: bool = False,
    ) -> None:
        family, named, foreign = recognise(folder, name)
        import transformers
        from transformers.utils import logging as library

        if foreign and not trust:
            raise ModelError(f"{name}: is code of its own ({family}); --trust would run it")
        if (direct := family in DIRECT) and prompt is not None:
            raise UsageError(f"prompt {prompt!r}: {name} takes no prompt")
        self.name, self.family = name, family if direct else "chat"
        self.device, self.precision = choose(device, precision)
        if not any(folder.glob("*.safetensors")) and any(folder.glob("*.bin")):
            log.warning("%s: its weights are a pickle; nothing but tensors is read from it", name)
        own: dict[str, Any] = {"trust_remote_code": foreign, "local_files_only": True}
        how = own | {"dtype": self.precision.dtype, "output_loading_info": True}
        how |= {"attn_implementation": "eager"} if direct else {}  # others give no attention back
        bars = library.is_progress_bar_enabled()
        library.disable_progress_bar()
        try:
            with quiet("transformers"):
                if direct:
                    self.images: Any = transformers.AutoImageProcessor.from_pretrained(
                        folder, **own
                    )
                    self.words: Any = transformers.AutoTokenizer.from_pretrained(folder, **own)
                else:
                    self.images = transformers.AutoProcessor.from_pretrained(folder, **own)
                    self.words = self.images.tokenizer
                    self.words.padding_side = "left"
                    self.words.pad_token = self.words.pad_token or self.words.eos_token
                looks = self.images if direct else self.images.image_processor
                self.model, found = getattr(transformers, named).from_pretrained(folder, **how)
            self.teller = self.model.text_decoder if family == "blip" else self.model
            options, config = self.teller.generation_config, self.model.config
            self.decoding = DecodingOptions(
                beam=options.num_beams or 1,
                min_length=0,
                max_length=30 if direct else 60,  # about as many words as ours, which are whole
                length_penalty=1.0 if options.length_penalty is None else options.length_penalty,
                no_repeat_ngram=options.no_repeat_ngram_size or 0,
            )
        except Exception as error:  # the library's own errors have no common base
            why = " ".join(str(error).split())[:300]
            raise ModelError(f"{name}: cannot be opened: {why}") from error
        finally:
            if bars:
                library.enable_progress_bar()
        if lacking := sorted([*found["missing_keys"], *map(str, found["mismatched_keys"])]):
            said = f"weights missing or of another shape: {len(lacking)}, first {lacking[0]}"
            raise ModelError(f"{name}: {said}")
        self.model.to(self.device).eval()
        end = config.text_config.sep_token_id if family == "blip" else options.eos_token_id
        if (end := self.words.eos_token_id if end is None else end) is None:
            raise ModelError(f"{name}: has no token that ends a text (eos_token_id)")
        self.ends = [end] if isinstance(end, int) else list(end)
        form = (PROMPT, "{}") if not direct and self.images.chat_template else FORMS.get(family)
        if form is None:
            raise ModelError(f"{name}: has no chat template, which {family} needs")
        self.prompt, self.captions = form[0] if prompt is None else prompt, named != VQA
        self.question = form[1] if self.captions else "{}"
        vision = getattr(config, "vision_config", None) or getattr(config, "encoder", None)
        # Where words go through the same layers as pictures there is no map.
        self.sight = Sight.of(looks, vision if direct else None)
        if not self.sight.patches:
            log.warning("%s: cannot show where it looked: it has no plain map of patches", name)
        if family == "git":
            log.warning("%s: may not have been trained to answer: check its answers", name)
        self.fingerprint, self.kept = _fingerprint(folder), dict[str, Any]()
        if (path := calibration_file(self.fingerprint)).is_file():
            self.kept = read_json(path)
            log.warning("%s: its confidence was fitted by gazetell calibrate (%s)", name, path)

    def worded(self, tokens: Sequence[int], prompt: str) -> tuple[str, list[str], list[list[int]]]:
        """The text of tokens, without a prompt that it repeats; its words, and the tokens of each.

        Marks of punctuation are no words.
        """
        count, first = len(tokens), 0
        texts = [self.words.decode(tokens[:n], skip_special_tokens=True) for n in range(count + 1)]
        if prompt and (said := re.match(rf"\s*{re.escape(prompt)}\W*", texts[-1], re.IGNORECASE)):
            first = said.end()
        words, groups, ends = [], [], [len(text) for text in texts]
        for word in WORD.finditer(texts[-1], first):
            own = [n for n in range(count) if ends[n] < word.end() and ends[n + 1] > word.start()]
            words.append(word.group())
            groups.append(own or [count - 1])  # a letter may be half a token
        return " ".join(texts[-1][first:].split()), words, groups

    def _prepare(self, pictures: Sequence[np.ndarray], texts: Sequence[str]) -> Told:
        """What generates texts of pictures; what gives the attention (N, L, R) of tokens (N, L)."""
        given: list[Any] = [Image.fromarray(x) for x in pictures]
        if self.family == "chat":
            asked = list(texts)
            if self.images.chat_template:
                contents = [[{"type": "image"}, {"type": "text", "text": text}] for text in texts]
                chats = [[{"role": "user", "content": content}] for content in contents]
                asked = self.images.apply_chat_template(chats, add_generation_prompt=True)
                given = [[image] for image in given]
            special = not asked[0].startswith(self.words.bos_token or "\0")
            how = {"padding": True, "return_tensors": "pt", "add_special_tokens": special}
            read = self.images(text=asked, images=given, **how)
            return read.to(self.device, dtype=self.precision.dtype), None
        model, reader = self.model, self.teller
        pixels = self.images(images=given, return_tensors="pt")["pixel_values"]
        pixels = pixels.to(self.device, self.precision.dtype)
        gaze: Tensor | None = None
        if self.family == "git":
            first = self.words(list(texts), return_tensors="pt").input_ids[:, :-1].to(self.device)
            seen = {"pixel_values": pixels}
            inputs = {"input_ids": first, "attention_mask": torch.ones_like(first), **seen}
        elif self.family == "vision-encoder-decoder":
            inputs, reader = {"encoder_outputs": model.encoder(pixel_values=pixels)}, model.decoder
            states = inputs["encoder_outputs"][0]
            project = getattr(model, "enc_to_dec_proj", None)
            seen = {"encoder_hidden_states": project(states) if project else states}
        else:
            seen = {"encoder_hidden_states": model.vision_model(pixel_values=pixels)[0]}
            if any(texts):  # BLIP reads the question; its decoder sees no more than that
                how = {"padding": True, "return_special_tokens_mask": True, "return_tensors": "pt"}
                read = self.words(list(texts), **how).to(self.device)
                mask, inner = read.attention_mask, 1 - read.special_tokens_mask
                seen |= {"attention_mask": mask, "output_attentions": True}
                out = model.text_encoder(read.input_ids, **seen)
                weights = inner / inner.sum(1, keepdim=True).clamp(min=1)
                gaze = torch.einsum("bl,blr->br", weights, _upper(out.cross_attentions))
                seen = {"encoder_hidden_states": out[0], "encoder_attention_mask": mask}
            start = model.config.text_config.bos_token_id
            inputs = {"input_ids": torch.full((len(pixels), 1), start, device=self.device), **seen}

        def look(ids: Tensor) -> Tensor:
            count, width = len(ids) // len(pixels), ids.shape[1]
            if gaze is not None:
                return gaze.repeat_interleave(count, 0).unsqueeze(1).expand(-1, width, -1)
            own = {name: x.repeat_interleave(count, 0) for name, x in seen.items()}
            out = reader(input_ids=ids, output_attentions=True, **own)
            if self.family == "git":  # pictures come before the words
                return _upper(out.attentions)[:, -width:, :-width]
            return _upper(out.cross_attentions)

        return inputs, look

    def tell(
        self,
        pictures: Sequence[np.ndarray],
        texts: Sequence[str],
        limit: int,
        count: int = 1,
        forced: Sequence[Sequence[int]] = (),
        **how: Any,
    ) -> list[list[Decoded]]:
        """What the model tells of each of B pictures (height, width, 3), best first.

        ``texts`` are the prompts or questions; told are ``count`` texts of a picture, each of at
        most ``limit`` tokens, or the B * count rows of tokens with their ends that are
        ``forced``. ``how`` are further options of ``generate``.
        """
        # GIT counts its positions without regard to padding.
        most = 1 if self.family == "git" and any(texts) else 4 if self.family == "chat" else 16
        if len(pictures) > most:
            told = []
            for n in range(0, len(pictures), most):
                own, some = forced[n * count : (n + most) * count], slice(n, n + most)
                told += self.tell(pictures[some], texts[some], limit, count, own, **how)
            return told
        begin: list[int] = []

        def force(ids: Tensor, chances: Tensor) -> Tensor:
            begin.extend([] if begin else [ids.shape[1]])
            place = ids.shape[1] - begin[0]
            wanted = torch.tensor([[row[min(place, len(row) - 1)]] for row in forced])
            return torch.full_like(chances, -math.inf).scatter(1, wanted.to(self.device), 0.0)

        if forced:  # drawn, since the best of one search cannot be several
            how |= {"logits_processor": [force], "do_sample": True, "num_beams": 1}
        how |= {"max_new_tokens": limit + 1, "forced_eos_token_id": self.ends}
        how |= {"eos_token_id": self.ends, "pad_token_id": self.ends[0]}
        how |= {"num_return_sequences": count, "return_dict_in_generate": True}
        try:
            with torch.inference_mode(), quiet("transformers"):
                inputs, look = self._prepare(pictures, texts)
                out = self.teller.generate(**inputs, **how, output_logits=True)
                attention = look(out.sequences[:, :-1]) if look and self.sight.patches else None
        except ValueError as error:  # of the processor
            raise ImageError(f"picture: {self.name} cannot take it: {error}") from error
        beams = getattr(out, "beam_indices", None)
        rows = torch.arange(len(out.sequences), device=self.device)
        beams = rows.expand(len(out.logits), -1) if beams is None else beams.T.clamp(min=0)
        tokens = out.sequences[:, -len(beams) :]
        steps = zip(out.logits, beams, tokens.T, strict=False)
        # Not by compute_transition_scores, which copies the logits of all steps.
        each = [logits[at].float().log_softmax(-1)[rows, words] for logits, at, words in steps]
        chances = torch.stack(each, 1)  # (N, T)
        if attention is not None:
            attention = attention[:, -tokens.shape[1] :, -(self.sight.patches**2) :].cpu()
            attention = attention / attention.sum(-1, keepdim=True).clamp(min=1e-12)
        power, found = how.get("length_penalty", 0.0), list[Decoded]()
        for n, row in enumerate(tokens.tolist()):
            last = next(t for t, token in enumerate(row) if token in self.ends)
            chance = chances[n, : last + 1].tolist()
            if math.isnan(log_prob := sum(chance)):
                raise ModelError(f"{self.name}: gives no word a probability: damaged weights")
            words = [sum(chance[t] for t in group) for group in self.worded(row[:last], "")[2]]
            found.append(
                Decoded(
                    row[:last],
                    None if attention is None else attention[n, : max(last, 1)],
                    log_prob,
                    log_prob / (last + 1) ** power,
                    last < limit or int(out.logits[last][beams[last, n]].argmax()) in self.ends,
                    min([*words, chance[last]]),
                )
            )
        return [found[n : n + count] for n in range(0, len(found), count)]


def _upper(layers: Sequence[Tensor]) -> Tensor:
    """The mean over heads and the upper half of layers (N, heads, L, K): (N, L, K)."""
    upper = layers[len(layers) // 2 :]
    return torch.stack([layer.float().mean(1) for layer in upper]).mean(0)


def is_large(folder: Path) -> bool:
    """Whether a folder holds a model of transformers, not of gazetell, by its ``config.json``."""
    try:
        config = read_json(folder / "config.json")
    except DataError:
        return False  # what opens it says why
    return isinstance(config, dict) and "model_type" in config and "kind" not in config


def takes_prompt(folder: Path) -> bool:
    """Whether a folder holds a model of transformers that is asked for a caption by a prompt."""
    return is_large(folder) and read_json(folder / "config.json")["model_type"] not in DIRECT


def recognise(folder: Path, name: str) -> tuple[str, str, bool]:
    """What the ``config.json`` of a repository of transformers says; its weights are not needed.

    That is its ``model_type``, the class that opens it, and whether that runs code of its own.

    Raises:
        ModelError: without the extra, or a repository that tells nothing of pictures.
    """
    try:
        import transformers
        from transformers.models.auto import modeling_auto

        if int(transformers.__version__.partition(".")[0]) < 5:
            raise ImportError(f"transformers is {transformers.__version__}; expected 5 or later")
    except ImportError as error:
        extra = "it needs the packages of the extra [large]"
        raise ModelError(f"{name}: is a model of transformers; {extra}: {error}") from error
    config = read_json(folder / "config.json")
    family, code = config["model_type"], config.get("auto_map", {})
    architecture = (config.get("architectures") or [""])[0]
    known = family in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if not (known or code) or architecture in ("BlipModel", "BlipForImageTextRetrieval"):
        what = "tells nothing of pictures, as far as transformers knows"
        raise ModelError(f"{name}: {architecture or family} {what}; expected a captioner or such")
    named = VQA if architecture == VQA else "AutoModelForImageTextToText"
    return family, named if known or named in code else "AutoModelForCausalLM", not known


def calibration_file(fingerprint: str) -> Path:
    """Where the calibration of a large model is kept; its own folder belongs to others.

    JSON with any of ``confidence`` (``Confidence.to_dict``), ``temperature``, ``abstain_below``.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "gazetell", "calibration", f"{fingerprint}.json")


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

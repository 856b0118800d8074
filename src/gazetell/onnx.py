"""Captions and answers without torch: runs what ``gazetell export RUN --onnx DIR`` writes.

model = gazetell.onnx.load("photo-onnx")
caption = model.caption("photo.jpg", beam=3)
caption.text, caption.words, caption.attention, caption.confidence
model.ask("photo.jpg", "Which animal is this?").text

Needs onnxruntime, numpy, Pillow and tokenizers alone. Pictures are read, words cut and results
shown by the modules that the torch models use; here stand the search of ``models.decoding`` for one
picture, in numpy, and the same sums from logits to answers. Greedy and beam captions and answers
are those of torch in float32.

Shapes: ``K`` beam, ``N <= K`` prefixes, ``T`` words so far, ``V`` vocabulary, ``R`` regions, ``C``
channels, ``A`` answers, ``P`` passes.
"""

import hashlib
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .data.text import Tokenizer, read_question
from .errors import DataError, ModelError
from .files import read_json
from .inference.results import TOP, Answer, Caption
from .models.confidence import Confidence, Novelty, check_bound, judge
from .models.search import Decoded, DecodingOptions, changed, check_plain
from .pictures import Area, Frame, PictureSource, View, load_picture

Floats = NDArray[np.float32]
FORMAT = 1
log = logging.getLogger(__name__)


class Encoding(NamedTuple):
    """A picture that has been encoded, for a caption and any number of questions.

    Attributes:
        cells: (1, R, C) of the CNN.
        image: the picture, at most 640 px a side.
        view: where the grid lies on the picture.
        doubt: why nothing sure can be told of the picture; empty where it can.
    """

    cells: Floats
    image: Image.Image
    view: View
    doubt: str


class Model:
    """A loaded folder of graphs; see ``load``.

    Attributes:
        about: the content of ``model.json``.
        decoding: the captioner's own options; None without a captioner.
    """

    decoding: DecodingOptions | None = None

    def __init__(self, folder: Path, about: dict[str, Any], sessions: dict[str, Any]) -> None:
        self.folder, self.about, self.sessions = folder, about, sessions
        picture, grid = about["picture"], about["grid"]
        self.frame = Frame(picture["size"], picture["fit"], tuple(picture["fill"]))
        self.cells: Area = tuple(picture["cells"])
        self.grid: tuple[int, int] = grid["height"], grid["width"]
        kinds = [kind for kind in ("captioner", "answerer") if kind in about]
        self.tokenizers = {kind: Tokenizer.load(folder / kind / "tokenizer.json") for kind in kinds}
        if own := about.get("captioner"):
            self.decoding = DecodingOptions(**own["decoding"])
            self.confidence = own["confidence"] and Confidence.from_dict(own["confidence"])
        self.novelty = {
            kind: about[kind]["novelty"] and Novelty.from_dict(about[kind]["novelty"])
            for kind in kinds
        }

    def encode(self, image: PictureSource | Encoding) -> Encoding:
        """Encode a picture once, for a caption and any number of questions.

        Args:
            image: a path, the bytes of a file, a PIL image, or what this gave.

        Raises:
            ImageError: the picture cannot be opened.
        """
        if isinstance(image, Encoding):
            return image
        loaded = load_picture(image, self.frame, with_preview=True)
        (cells,) = self._run("encoder", loaded.pixels[None])
        view, doubt = self.frame.view(loaded.size, self.cells), self.frame.doubt(loaded.size)
        return Encoding(cells, loaded.preview, view, doubt)  # type: ignore[arg-type]

    def caption(self, image: PictureSource | Encoding, **options: Any) -> Caption:
        """Tell what a picture shows.

        Args:
            image: see ``encode``.
            options: ``beam``, ``min_length``, ``max_length``, ``length_penalty`` and
                ``no_repeat_ngram`` where they differ from the model's own; see
                ``gazetell.models.search.DecodingOptions``.

        Raises:
            ImageError: the picture cannot be opened.
            UsageError: another option, or one that is out of its range or has no effect.
            ModelError: the folder has no captioner.
        """
        if self.decoding is None:
            raise ModelError(f"{self.folder}: has no captioner; it only answers questions")
        check_plain(chosen := changed(self.decoding, options))
        x, words = self.encode(image), self.tokenizers["captioner"]
        found = self._search(x.cells, chosen)
        pooled = x.cells[0].mean(0)
        sure = judge(found, pooled, self.confidence, self.novelty["captioner"])
        texts = words.decode(found.tokens), [word.strip() for word in words.words(found.tokens)]
        maps = self._maps(found.attention)
        caption = Caption(*texts, maps, found.log_prob, found.ended, sure[0], sure[1], sure[2])
        return caption.of(x.view, x.doubt, x.image)

    def ask(
        self,
        image: PictureSource | Encoding,
        question: str,
        *,
        abstain_below: float | None = None,
    ) -> Answer:
        """Answer a question about a picture; arguments and errors as ``Answerer.ask``'s."""
        if "answerer" not in self.about:
            raise ModelError(f"{self.folder}: has no answerer; it only captions")
        check_bound(abstain_below)
        own = self.about["answerer"]
        asked = read_question(self.tokenizers["answerer"], question, own["max_question"])
        x = self.encode(image)
        logits, *attention = self._run("answerer/answer", x.cells, np.array([asked.ids]))
        unknown = own["unknown_temperature"] if asked.unreadable else None
        scaled = logits[0] / np.float32(unknown or own["temperature"])
        if own["sigmoid"]:
            shares = 1 / (1 + np.exp(-scaled))
        else:
            shares = np.exp(scaled - scaled.max())
            shares /= shares.sum()
        if not np.isfinite(shares).all():
            raise ModelError("the model gives no answer a probability: its weights are damaged")
        best = np.argsort(-shares, kind="stable")[:TOP]
        top = [(own["answers"][place], float(shares[place])) for place in best]
        novelty, unfamiliar = self.novelty["answerer"], None
        if novelty:
            (unfamiliar,) = novelty.unfamiliar(x.cells.mean(1))
        bound = own["abstain_below"] if abstain_below is None else abstain_below
        answer = Answer(
            asked.text,
            *top[0],
            top=top,
            attention=self._maps(attention[0][0] if attention else None),
            unknown=asked.unknown,
            cut=asked.cut,
            abstained=top[0][1] < bound or (abstain_below is None and asked.unreadable),
            unfamiliar=unfamiliar,
        )
        return answer.of(x.view, x.doubt if abstain_below is None else "", x.image)

    def _run(self, graph: str, *inputs: NDArray[Any]) -> list[Floats]:
        session = self.sessions[graph]
        names = [each.name for each in session.get_inputs()]
        found: list[Floats] = session.run(None, dict(zip(names, inputs, strict=True)))
        return found

    def _maps(self, attention: Floats | None) -> Floats | None:
        return None if attention is None else attention.reshape(-1, *self.grid)

    def _search(self, cells: Floats, options: DecodingOptions) -> Decoded:
        """The best caption of a picture: ``models.decoding``, which says how."""
        end, longest, penalty = Tokenizer.end, options.max_length, options.length_penalty
        states = self._run("captioner/start", cells)  # (1, ...) each
        recurrent = self.about["captioner"]["recurrent"]
        prefixes: list[list[int]] = [[]]
        # Of each prefix the log-probability and the least of its words' (N,), and its gaze.
        alive, weakest = np.zeros(1, np.float32), np.zeros(1, np.float32)
        gaze: list[list[Floats]] = [[]]
        best: Decoded | None = None
        for step in range(longest + 1):
            last = np.array([words[-1] if words else Tokenizer.start for words in prefixes])
            scores, *rest = self._run("captioner/step", last, *states)
            states[:recurrent], attention = rest[:recurrent], rest[recurrent:]
            allow(scores, prefixes, options)
            totals = alive[:, None] + scores  # (N, V)
            chosen = scores.argmax(1)
            ending = totals[:, end] / (step + 1) ** penalty
            n = int(ending.argmax())
            ends = options.beam > 1 or chosen[0] == end or step == longest
            if ends and ending[n] > (-math.inf if best is None else best.score):
                log_prob, least = float(totals[n, end]), min(weakest[n], scores[n, end])
                best = Decoded(
                    tokens=prefixes[n],
                    attention=np.stack(gaze[n] or [attention[0][n]])[:step] if attention else None,
                    log_prob=log_prob,
                    score=log_prob / (step + 1) ** penalty,
                    ended=step < longest or int(chosen[n]) == end,
                    weakest=float(least),
                )
            if step == longest or (ends and options.beam == 1):
                break
            totals[:, end] = -math.inf
            flat = totals.ravel()
            order = np.argpartition(-flat, min(options.beam, len(flat)) - 1)[: options.beam]
            order = order[np.argsort(-flat[order], kind="stable")]
            order = order[np.isfinite(flat[order])]
            # What a prefix can reach at best: no further loss, spread over the greatest length.
            alive = flat[order]
            reach = alive.max(initial=-math.inf) / (longest + 1) ** penalty
            if not reach > np.float32(-math.inf if best is None else best.score):
                break
            parents, words = np.divmod(order, totals.shape[1])
            weakest = np.minimum(weakest[parents], scores[parents, words])
            prefixes = [[*prefixes[p], int(w)] for p, w in zip(parents, words, strict=True)]
            if attention:
                gaze = [[*gaze[p], attention[0][p]] for p in parents]
            states[:recurrent] = [x[parents] for x in states[:recurrent]]
            if len(parents) != len(totals):  # what is attended to is the same for all prefixes
                states[recurrent:] = [np.repeat(x[:1], len(parents), 0) for x in states[recurrent:]]
        if best is None or math.isnan(best.log_prob):
            raise ModelError("the model gives no word a probability: its weights are damaged")
        return best


def allow(scores: Floats, prefixes: Sequence[list[int]], options: DecodingOptions) -> None:
    """Put what must not come next to -inf in log-probabilities (N, V)."""
    end, length, n = Tokenizer.end, len(prefixes[0]), options.no_repeat_ngram
    scores[:, end] = scores[:, end].clip(-1e9)  # finite, so that every caption can end
    ending = scores[:, end].copy()
    scores[:, [Tokenizer.pad, Tokenizer.start, Tokenizer.unk]] = -math.inf
    if length < options.min_length:
        scores[:, end] = -math.inf
    for row, words in zip(scores, prefixes, strict=True):
        for at in range(length - n + 1) if n else ():
            if words[at : at + n - 1] == words[length - n + 1 :]:
                row[words[at + n - 1]] = -math.inf
    stuck = np.isneginf(scores).all(1)
    scores[stuck, end] = ending[stuck]


def load(folder: str | os.PathLike[str], *, threads: int = 0) -> Model:
    """Load a folder of graphs.

    Args:
        folder: as ``gazetell export RUN --onnx DIR`` writes it.
        threads: of a sum; 0 for as many as the CPU has cores.

    Raises:
        ModelError: no such folder, one that is incomplete or of another version, or no onnxruntime.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError("gazetell.onnx needs onnxruntime: pip install onnxruntime") from error
    folder, sessions = Path(folder), {}
    path = folder / "model.json"
    if not path.is_file():
        expected = "expected a folder that gazetell export --onnx wrote"
        raise ModelError(f"{folder}: has no model.json; {expected}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        about = read_json(path)
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}; this version reads {FORMAT}")
        for name, digest in about["sha256"].items():
            content = (folder / name).read_bytes()
            if hashlib.sha256(content).hexdigest() != digest:
                raise ModelError(f"{folder / name}: does not belong to model.json beside it")
            if name.endswith(".onnx"):
                sessions[name.removesuffix(".onnx")] = onnxruntime.InferenceSession(
                    content, options, providers=["CPUExecutionProvider"]
                )
        model = Model(folder, about, sessions)
    except OSError as error:
        raise ModelError(f"{error.filename}: cannot be read: {error.strerror}") from error
    except (DataError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: is malformed: {error}") from error
    for kind in model.tokenizers:
        if about[kind]["blind"]:
            log.warning("%s: the %s is blind; it does not look at the picture", folder, kind)
    return model

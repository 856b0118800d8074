"""Using a trained model: ``caption`` pictures or ``ask`` about them, and see where it looked.

model = gazetell.load("runs/demo")
caption = model.caption("scene.png")
caption.text, caption.words, caption.attention, caption.log_prob, caption.confidence
caption.save_gaze("gaze.png")
answer = gazetell.load("runs/vqa").ask("photo.jpg", "Which animal is this?")
answer.text, answer.confidence, answer.top, answer.attention
"""

import itertools
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice, tee
from typing import Any, TypeVar, Unpack, overload

import numpy as np
import torch

from ..data.batches import pad_rows
from ..data.text import Question, read_question
from ..errors import ImageError, ModelError, UsageError
from ..features import Computing, Model, Picture, Several, check_computing
from ..models.confidence import check_bound, judge
from ..models.decoding import Decoded, DecodingOptions, Ensemble, n_best
from ..models.encoders import Grid
from ..models.folder import AnswererFolder, CaptionerFolder, load_kind, named_or_photo, told
from ..models.search import changed
from ..pictures import LoadedPicture, load_pictures, name_of
from .results import TOP, Answer, Caption

PathLike = str | os.PathLike[str]
T = TypeVar("T")
R = TypeVar("R")
# Of a question the likeliest answers, the attention, and the first's probability without a picture.
Found = tuple[list[tuple[str, float]], np.ndarray | None, float | None]
log = logging.getLogger(__name__)


def check_several(what: str, values: object) -> None:
    """Refuse one where several are expected: the letters of a text would be taken for them."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise UsageError(f"{what} {values!r:.60}: expected a list of {what}")


def check_members(paths: Sequence[PathLike]) -> None:
    """Refuse a model that is named twice in an ensemble, which it would not change."""
    names = [str(path).rstrip(os.sep) for path in paths]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"model {twice}: is named twice; expected different ones")


class Captioner(Model):
    """A loaded captioning model, or several that tell captions together; see ``load``.

    Args:
        model: a model folder's content.
        others: of the same vocabulary and the same CNN: an ensemble.
        how: as for ``load``.

    Raises:
        ModelError: models that do not fit together.
    """

    def __init__(
        self,
        model: CaptionerFolder,
        *others: CaptionerFolder,
        **how: Unpack[Computing],
    ) -> None:
        cnn = model.encoder.fingerprint() if others else ""
        for number, other in enumerate(others, 2):
            if other.tokenizer != model.tokenizer:
                raise ModelError(f"model {number} of the ensemble has another vocabulary")
            if other.encoder.fingerprint() != cnn:
                raise ModelError(f"model {number} of the ensemble has another encoder")
        super().__init__(model.encoder, **how)
        self.captioner = model.captioner.to(self.device).eval()
        # Of the others' encoders only the projections: the CNN is the same.
        members = [(m.encoder.project, m.captioner) for m in (model, *others)]
        self.decoder = Ensemble(members).to(self.device).eval()
        self.converted: Any = self.precision.converted(self.decoder)
        self.members = len(members)
        self.blind = all(m.captioner.options.blind for m in (model, *others))
        self.tokenizer: Any = model.tokenizer
        self.architecture = self.captioner.config["architecture"]
        self.decoding: DecodingOptions = model.decoding
        self.confidence = None if others else model.confidence
        self.novelty = model.novelty
        self.about = model.about
        self.name = " + ".join(m.name for m in (model, *others))

    @classmethod
    def load(cls, *paths: PathLike, trust: bool = False, **how: Unpack[Computing]) -> "Captioner":
        """``gazetell.load``, refusing answerers."""
        check_computing(how)
        check_members(paths)
        named = named_or_photo(paths)
        models = [told(path, load_kind(path, CaptionerFolder, trust=trust)) for path in named]
        return cls(*models, **how)

    @overload
    def caption(self, image: Picture, **options: Any) -> Caption: ...
    @overload
    def caption(self, image: Several, **options: Any) -> list[Caption]: ...
    def caption(self, image: Picture | Several, **options: Any) -> Caption | list[Caption]:
        """Tell what a picture shows; a list of pictures gives a list.

        Args:
            image: what ``encode`` takes.
            options: fields of ``DecodingOptions`` that differ from the model's own, such as
                ``beam=5``, ``max_length=12`` or ``sample=True, beam=1``.

        Raises:
            ImageError: the picture cannot be opened.
            UsageError: an option that does not exist, is out of its range or has no effect.
        """
        if isinstance(image, list | tuple):
            return self.captions(image, **options)
        return self.captions([image], **options)[0]

    def captions(self, images: Sequence[Picture], **options: Any) -> list[Caption]:
        """``caption`` for several pictures, in one batch."""
        chosen = self.options(**options)
        check_several("pictures", images)
        if not images:
            return []
        encodings = self.encode_all(images)
        captions = self.decode(Grid.join([encoding.grid for encoding in encodings]), chosen)
        pairs = zip(captions, encodings, strict=True)
        return [caption.of(x.view, x.doubt, x.image) for caption, x in pairs]

    def n_best(self, image: Picture, count: int, **options: Any) -> list[Caption]:
        """The ``count`` best captions of a picture, best first; options as for ``caption``.

        With ``sample=True`` so many drawn ones; else no more than the beam.
        """
        x, chosen = self.encode(image), self.options(**options)
        return [c.of(x.view, x.doubt, x.image) for c in self.decode_best(x.grid, chosen, count)[0]]

    def options(self, **changes: Any) -> DecodingOptions:
        """The model's decoding options with some changed, checked as ``caption`` says."""
        return changed(self.decoding, changes)

    def plain(self, texts: Sequence[str]) -> list[str]:
        """Texts as the model would write them, to be compared with its own."""
        return [self.tokenizer.decode(ids) for ids in self.tokenizer.encode_batch(texts)]

    @cached_property
    def attentive(self) -> bool:
        """Whether captions come with attention."""
        with torch.inference_mode(), self.precision.autocast(self.device):
            start = torch.tensor([self.tokenizer.start], device=self.device)
            state = self.converted.start(self.blank_grid())
            return self.converted.step(start, state)[2] is not None

    def decode(
        self, grid: Grid, options: DecodingOptions, positions: Sequence[int] | None = None
    ) -> list[Caption]:
        """Captions, without pictures, of grids (B, R, C) as ``grid`` makes them.

        ``positions`` of the pictures in all that the caller captions keep random draws apart.
        """
        return [best[0] for best in self.decode_best(grid, options, 1, positions)]

    @torch.inference_mode()
    def decode_best(
        self,
        grid: Grid,
        options: DecodingOptions,
        count: int,
        positions: Sequence[int] | None = None,
    ) -> list[list[Caption]]:
        """As ``decode``, the ``count`` best captions of each picture, best first."""
        decoded = self.search(grid, options, count, positions)

        def caption(one: Decoded, pooled: torch.Tensor) -> Caption:
            sure = judge(one, pooled, self.confidence, self.novelty)
            return Caption(*self.worded(one, grid), one.log_prob, one.ended, *sure)

        pairs = zip(decoded, grid.pooled.float().cpu(), strict=True)
        return [[caption(one, pooled) for one in best] for best, pooled in pairs]

    def worded(self, one: Decoded, grid: Grid) -> tuple[str, list[str], np.ndarray | None]:
        """A caption's text, its words, and the attention of each (T, height, width)."""
        words = [word.strip() for word in self.tokenizer.words(one.tokens)]  # blanks about a mark
        return self.tokenizer.decode(one.tokens), words, _maps(one.attention, grid)

    @torch.inference_mode()
    def search(
        self,
        grid: Grid,
        options: DecodingOptions,
        count: int = 1,
        positions: Sequence[int] | None = None,
    ) -> list[list[Decoded]]:
        """What ``decode_best`` makes captions of."""
        words = self.tokenizer
        with self.precision.autocast(self.device):
            decoded = n_best(
                self.converted,
                grid,
                options,
                count,
                start=words.start,
                end=words.end,
                banned=(words.pad, words.unk),
                positions=positions,
            )
        if any(math.isnan(one.log_prob) for best in decoded for one in best):
            raise ModelError("the model gives no word a probability: its weights are damaged")
        return decoded


def in_parts(
    work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]
) -> list[R | ImageError]:
    """What some work makes of items: in halves where memory does not hold what all of them need.

    Of one that alone is too much for the model or the memory it is an ImageError.
    """
    try:
        return list(work(items))
    except (ImageError, MemoryError, RuntimeError) as error:
        full = isinstance(error, MemoryError | torch.OutOfMemoryError)
        # So says torch on a CPU.
        full = full or (type(error) is RuntimeError and "allocate memory" in str(error))
        if not full and not isinstance(error, ImageError):
            raise
        if len(items) == 1:
            why = "picture: no memory is left for it" if full else str(error)
            return [ImageError(why)]
        if full:
            log.warning(
                f"the device has no memory for {len(items)} pictures at once: half are taken"
            )
    half = len(items) // 2
    return in_parts(work, items[:half]) + in_parts(work, items[half:])


def caption_many(
    model: Captioner, items: Iterable[bytes | PathLike], **rest: Any
) -> Iterator[tuple[bytes | PathLike, Caption | ImageError]]:
    """The best of ``caption_best`` alone."""
    for item, best in caption_best(model, items, **rest):
        yield item, best if isinstance(best, ImageError) else best[0]


def caption_best(
    model: Captioner,
    items: Iterable[bytes | PathLike],
    count: int = 1,
    *,
    batch: int = 16,
    positions: Iterable[int] | None = None,
    **options: Any,
) -> Iterator[tuple[bytes | PathLike, list[Caption] | ImageError]]:
    """Yield each picture with its best captions, or with the error why it could not be opened.

    Args:
        model: a loaded captioner.
        items: paths or bytes, in any number; they are read as the work goes on.
        count: captions a picture, as for ``Captioner.n_best``.
        batch: pictures a forward pass.
        positions: the number of each item, which keeps random draws apart; counted if not given.
        options: see ``Captioner.caption``, which tells of errors too.
    """
    chosen = model.options(**options)
    if batch < 1:
        raise UsageError(f"batch {batch}: expected 1 or more")
    (queue, rest), frame = tee(items), model.encoder.frame
    places = iter(itertools.count() if positions is None else positions)
    for loaded in load_pictures(queue, frame, batch=batch, with_preview=True):
        rows = list(zip(islice(rest, len(loaded)), places, loaded, strict=False))
        good = [(place, x) for _, place, x in rows if not isinstance(x, ImageError)]

        def tell(some: Sequence[tuple[int, LoadedPicture]]) -> list[list[Caption]]:
            grid = model.see([picture for _, picture in some])
            return model.decode_best(grid, chosen, count, [place for place, _ in some])

        captions = iter(in_parts(tell, good) if good else [])
        for item, _, picture in rows:
            if isinstance(picture, ImageError):
                yield item, picture
                continue
            told = next(captions)
            if isinstance(told, ImageError):
                yield item, ImageError(str(told).replace("picture", name_of(item), 1))
                continue
            view, doubt = model.encoder.view(picture.size), frame.doubt(picture.size)
            yield item, [one.of(view, doubt, picture.preview) for one in told]


class Answerer(Model):
    """A loaded model that answers questions; arguments as for ``Captioner``."""

    def __init__(self, model: AnswererFolder, **how: Unpack[Computing]) -> None:
        super().__init__(model.encoder, **how)
        self.answerer = model.answerer.to(self.device).eval()
        self.blind = bool(model.answerer.options.blind)
        self.converted = self.precision.converted(self.answerer)
        self.architecture = self.answerer.config["architecture"]
        self.tokenizer = model.tokenizer
        self.answers: Any = model.answers  # an AnswerVocabulary; None where a model writes its own
        self.temperature, self.sigmoid = model.temperature, model.sigmoid
        self.unknown_temperature = model.unknown_temperature
        self.max_question, self.abstain_below = model.max_question, model.abstain_below
        self.novelty, self.about, self.name = model.novelty, model.about, model.name

    @classmethod
    def load(
        cls, path: PathLike | None = None, *, trust: bool = False, **how: Unpack[Computing]
    ) -> "Answerer":
        """``gazetell.load``, refusing a captioner."""
        check_computing(how)
        (chosen,) = named_or_photo(() if path is None else (path,))
        return cls(told(chosen, load_kind(chosen, AnswererFolder, trust=trust)), **how)

    @overload
    def ask(
        self,
        image: Picture,
        question: str,
        *,
        abstain_below: float | None = ...,
        evidence: bool = ...,
    ) -> Answer: ...
    @overload
    def ask(
        self,
        image: Several,
        question: str,
        *,
        abstain_below: float | None = ...,
        evidence: bool = ...,
    ) -> list[Answer]: ...
    def ask(
        self,
        image: Picture | Several,
        question: str,
        *,
        abstain_below: float | None = None,
        evidence: bool = False,
    ) -> Answer | list[Answer]:
        """Answer a question about a picture; about each of a list.

        Args:
            image: what ``encode`` takes.
            question: in words; ``Answer.cut`` counts those that the model does not read.
            abstain_below: mark the answer as abstained where its confidence is lower; the model's
                own bound if not given.
            evidence: also ask about a plain grey picture, see ``Answer.without_picture``.

        Raises:
            ImageError: the picture cannot be opened.
            UsageError: a question without words, or a bound outside 0 to 1.
        """
        how: Any = {"abstain_below": abstain_below, "evidence": evidence}
        if isinstance(image, list | tuple):
            return [self.ask_all(x, [question], **how)[0] for x in self.encode_all(image)]
        return self.ask_all(image, [question], **how)[0]

    def ask_all(
        self,
        image: Picture,
        questions: Sequence[str],
        *,
        abstain_below: float | None = None,
        evidence: bool = False,
    ) -> list[Answer]:
        """``ask`` several questions about a picture, which is encoded once."""
        check_bound(abstain_below)
        check_several("questions", questions)
        if not questions:
            return []
        encoding, owner = self.encode(image), torch.zeros(len(questions), dtype=torch.long)
        answers = self.answer(
            encoding.grid, questions, owner, abstain_below=abstain_below, evidence=evidence
        )
        doubt = encoding.doubt if abstain_below is None else ""
        return [answer.of(encoding.view, doubt, encoding.image) for answer in answers]

    def answer(
        self,
        grid: Grid,
        questions: Sequence[str | Question],
        owner: torch.Tensor,
        *,
        abstain_below: float | None = None,
        evidence: bool = False,
    ) -> list[Answer]:
        """Answers, without pictures, about grids (B, R, C) as ``grid`` makes them.

        Args:
            grid: of B pictures.
            questions: N of them, as text or as ``read_question`` gave them.
            owner: (N,) which picture each is about.
            abstain_below: as for ``ask``.
            evidence: as for ``ask``.
        """
        asked = [q if isinstance(q, Question) else self.read_question(q) for q in questions]
        bound = self.abstain_below if abstain_below is None else abstain_below
        pictures: Sequence[bool | None] = [None] * len(grid.cells)
        if self.novelty:
            pictures = self.novelty.unfamiliar(grid.pooled.float().cpu())
        found, places = self.search(grid, asked, owner, evidence), owner.tolist()
        return [
            Answer(
                question.text,
                *top[0],
                top=top,
                attention=attention,
                unknown=question.unknown,
                cut=question.cut,
                abstained=top[0][1] < bound or (abstain_below is None and question.unreadable),
                unfamiliar=pictures[place],
                without_picture=without,
            )
            for question, place, (top, attention, without) in zip(asked, places, found, strict=True)
        ]

    def search(
        self, grid: Grid, asked: Sequence[Question], owner: torch.Tensor, evidence: bool
    ) -> Iterator[Found]:
        """What ``answer`` makes answers of, one a question."""
        logits, attention = self.logits(grid, asked, owner)
        shares = self.probabilities(logits, asked)
        if not bool(shares.isfinite().all()):
            raise ModelError("the model gives no answer a probability: its weights are damaged")
        plain: torch.Tensor | None = None
        if evidence:
            nowhere = torch.zeros_like(owner)
            plain = self.probabilities(self.logits(self.blank, asked, nowhere)[0], asked)
        best = shares.topk(min(TOP, shares.shape[1]), dim=1)
        for n, places in enumerate(best.indices.tolist()):
            texts = [self.answers.answers[place] for place in places]
            without = None if plain is None else float(plain[n, places[0]])
            maps = _maps(None if attention is None else attention[n], grid)
            yield list(zip(texts, best.values[n].tolist(), strict=True)), maps, without

    @torch.inference_mode()
    def logits(
        self, grid: Grid, questions: Sequence[Question], owner: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits (N, A) and attention (N, P, R) or None, in float32 on the CPU."""
        tokens, lengths = pad_rows([question.ids for question in questions], self.tokenizer.pad)
        rows = [rows.to(self.device) for rows in (tokens, lengths, owner)]
        with self.precision.autocast(self.device):
            logits, attention = self.converted(self.encoder.project_grid(grid), *rows)
        return logits.float().cpu(), None if attention is None else attention.float().cpu()

    def read_question(self, text: str) -> Question:
        """A question as the model reads it; UsageError without words."""
        return read_question(self.tokenizer, text, self.max_question)

    def probabilities(self, logits: torch.Tensor, questions: Sequence[Question]) -> torch.Tensor:
        """Calibrated probabilities (N, A) of the answers to N questions."""
        unknown = self.unknown_temperature or self.temperature
        each = [unknown if question.unreadable else self.temperature for question in questions]
        scaled = logits / torch.tensor(each).unsqueeze(1)
        return scaled.sigmoid() if self.sigmoid else scaled.softmax(1)

    @cached_property
    def attentive(self) -> bool:
        """Whether answers come with attention."""
        question = Question("", [self.tokenizer.unk], [])
        owner = torch.zeros(1, dtype=torch.long)
        return self.logits(self.blank_grid(), [question], owner)[1] is not None


def _maps(attention: torch.Tensor | None, grid: Grid) -> np.ndarray | None:
    return None if attention is None else attention.numpy().reshape(-1, grid.height, grid.width)

"""Large models of transformers through the same verbs: ``LargeCaptioner``, ``LargeAnswerer``.

They are a ``Captioner`` and an ``Answerer`` whose grids are the pictures themselves (``Pictures``)
and whose tokens, probabilities and attention come from a ``Network`` (``models.large``), which says
how. ``load`` opens them.

An answer's confidence, with p the probability of its sequence and a temperature of 1 unless a
calibration was kept, is ``sigmoid(log(p / (1 - p)) / temperature)``, which is p at 1; of a given
list of answers ``softmax(log p / temperature)``.

Shapes: ``N`` questions, ``T`` words, ``t`` tokens of a word, ``R`` patches.
"""

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ..data.answers import AnswerVocabulary
from ..data.text import Question
from ..errors import ImageError, UsageError
from ..features import Model
from ..models.confidence import Confidence, judge
from ..models.decoding import Decoded, DecodingOptions
from ..models.encoders import Grid
from ..models.large import USUAL, WORD, Network, Pictures
from ..models.weights import shown_name
from ..pictures import LoadedPicture
from .predict import Answerer, Captioner
from .results import TOP, Answer, Caption

log = logging.getLogger(__name__)
LISTED = 64  # answers of a list at a time


class Large(Model):
    """What a large captioner and answerer have alike: a network of transformers."""

    def take(self, network: Network) -> None:
        """Use a network; its pictures stand in the place of grids."""
        self.network, self.device, self.precision = network, network.device, network.precision
        sight = network.sight
        self.encoder: Any = SimpleNamespace(
            frame=sight,
            size=min(sight.size, USUAL),
            view=sight.view,
            config=SimpleNamespace(name=network.family, fit=sight.fit),
            frozen=False,
            fingerprint=lambda: network.fingerprint,
        )
        self.own_fit, self.architecture = sight.fit, type(network.model).__name__
        self.tokenizer: Any = network
        self.attentive = all(sight.patches)
        self.about = {"model": network.name}
        self.name = shown_name(network.name)

    def see(self, loaded: Sequence[LoadedPicture | ImageError]) -> Grid:
        """The pictures themselves."""
        arrays = []
        for picture in loaded:
            if isinstance(picture, ImageError):
                raise picture
            arrays.append(picture.pixels)
        return Pictures.of_arrays(arrays)

    def maps(self, groups: Sequence[Any]) -> np.ndarray | None:
        """Attention (T, height, width) of words, from the maps (t, R) of the tokens of each."""
        if not self.attentive:
            return None
        means = [np.asarray(group, np.float32).mean(0) for group in groups]
        scaled = [mean / max(float(mean.sum()), 1e-12) for mean in means]
        return np.array(scaled, np.float32).reshape(-1, *self.network.sight.patches)


class LargeCaptioner(Large, Captioner):
    """A captioner of transformers; see ``large``. No ensemble, and no groups of beams."""

    def __init__(self, network: Network) -> None:
        self.take(network)
        self.members, self.decoding = 1, network.decoding
        kept = network.kept.get("confidence")
        self.confidence = Confidence.from_dict(kept) if kept else None

    def options(self, **changes: Any) -> DecodingOptions:
        """As ``Captioner.options``; ``max_length`` and ``min_length`` count tokens."""
        chosen = super().options(**changes)
        if chosen.beam_groups > 1:
            name = self.network.name
            raise UsageError(f"beam_groups {chosen.beam_groups}: {name} has no groups of beams")
        return chosen

    def plain(self, texts: Sequence[str]) -> list[str]:
        """Texts in lower case, without marks of punctuation."""
        return [" ".join(WORD.findall(text.lower())) for text in texts]

    def said(self, tokens: Sequence[int]) -> str:
        """The text of a caption's tokens, without the prompt that it may repeat."""
        return self.network.worded(tokens, self.network.prompt)[0]

    def decode_best(
        self,
        grid: Grid,
        options: DecodingOptions,
        count: int,
        positions: Sequence[int] | None = None,
    ) -> list[list[Caption]]:
        """As ``Captioner.decode_best``."""

        def caption(one: Decoded) -> Caption:
            text, words, groups = self.network.worded(one.tokens, self.network.prompt)
            rows = [one.attention[group] for group in groups if self.attentive]
            sure = judge(one, (), self.confidence, None)
            return Caption(text, words, self.maps(rows), one.log_prob, one.ended, *sure)

        told = []
        for best in self.search(grid, options, count, positions):
            different: dict[str, Caption] = {}
            for one in map(caption, best):
                different.setdefault(one.text, one)  # tokens that differ may read alike
            told.append(list(different.values()))
        return told

    def search(
        self,
        grid: Grid,
        options: DecodingOptions,
        count: int = 1,
        positions: Sequence[int] | None = None,
    ) -> list[list[Decoded]]:
        """What ``decode_best`` makes captions of; draws depend on seed and position alone."""
        how: dict[str, Any] = {"num_beams": options.beam, "do_sample": options.sample}
        how |= {"no_repeat_ngram_size": options.no_repeat_ngram}
        how |= {"min_new_tokens": options.min_length} if options.min_length else {}
        how |= {"length_penalty": options.length_penalty} if options.beam > 1 else {}
        texts, limit = [self.network.prompt] * len(grid.cells), options.max_length
        pictures: Any = grid.cells
        if not options.sample:
            return self.network.tell(pictures, texts, limit, count, **how)
        for name in ("temperature", "top_k", "top_p"):
            how[name] = getattr(options, name)
        drawn = []
        for n, position in enumerate(positions or range(len(pictures))):
            with torch.random.fork_rng():
                torch.manual_seed(hash((options.seed, position)) % 2**63)
                drawn += self.network.tell(pictures[n : n + 1], texts[:1], limit, count, **how)
        return drawn


class LargeAnswerer(Large, Answerer):
    """An answerer of transformers; see ``large``.

    Args:
        network: that answers.
        answers: that it chooses among, blank ones left out; it writes its own if not given.
        beam: answers that it searches for, and can tell in ``Answer.top``, if it writes its own.
    """

    max_question = 10**6  # words: none is cut
    unknown_temperature, sigmoid = None, True

    def __init__(
        self, network: Network, answers: Sequence[str] | None = None, beam: int = 1
    ) -> None:
        self.take(network)
        self.beam, self.answers = beam, None
        if answers is not None:
            self.answers = AnswerVocabulary([text for text in answers if text.strip()])
        self.temperature = float(network.kept.get("temperature", 1.0))
        self.abstain_below = float(network.kept.get("abstain_below", 0.0))

    def read_question(self, text: str) -> Question:
        """A question as it is; UsageError without words, or with a mark of the model's own."""
        if not isinstance(text, str) or not WORD.search(text):
            raise UsageError(f"question {text!r:.60}: has no words")
        if mark := next((x for x in self.network.words.all_special_tokens if x in text), None):
            raise UsageError(f"question {text!r:.60}: {mark} is a mark of the model's own")
        return Question(text, [], [])

    def answer(
        self,
        grid: Grid,
        questions: Sequence[str | Question],
        owner: torch.Tensor,
        *,
        abstain_below: float | None = None,
        evidence: bool = False,
    ) -> list[Answer]:
        """As ``Answerer.answer``."""
        asked = [q if isinstance(q, Question) else self.read_question(q) for q in questions]
        texts = [self.network.question.format(question.text) for question in asked]
        pictures: Any = [grid.cells[n] for n in owner.tolist()]
        limit = self.network.decoding.max_length
        if self.answers:
            found = self._rank(pictures, texts, self.answers.answers)
        else:
            how: dict[str, Any] = {"num_beams": self.beam, "do_sample": False}
            found = self.network.tell(pictures, texts, limit, self.beam, **how)
            if cut := sum(not best[0].ended for best in found):
                log.warning("%s: answers cut at %d tokens: %d", self.network.name, limit, cut)
        shares = [self._shares(best) for best in found]
        best = [int(np.argmax(row)) for row in shares]
        plain: list[float | None] = [None] * len(asked)
        if evidence:
            grey: Any = list(self.blank.cells) * len(asked)
            if self.answers:
                again = self._rank(grey, texts, self.answers.answers)
            else:
                likeliest = [row[n] for row, n in zip(found, best, strict=True)]
                first = [[*one.tokens, self.network.ends[0]] for one in likeliest]
                again = self.network.tell(grey, texts, limit, 1, first)
            places = best if self.answers else [0] * len(asked)
            plain = [float(self._shares(x)[n]) for x, n in zip(again, places, strict=True)]
        bound = self.abstain_below if abstain_below is None else abstain_below
        answers = []
        for question, rows, likely, without in zip(asked, found, shares, plain, strict=True):
            top: dict[str, float] = {}
            for n in np.argsort(-likely, kind="stable")[:TOP]:
                text = self.network.worded(rows[n].tokens, question.text)[0]
                top[text] = top.get(text, 0.0) + float(likely[n])
            ((text, sure), *_), maps = list(top.items()), rows[int(np.argmax(likely))].attention
            answers.append(
                Answer(
                    question.text,
                    text,
                    sure,
                    list(top.items()),
                    self.maps([] if maps is None else [maps]),
                    abstained=sure < bound,
                    without_picture=without,
                )
            )
        return answers

    def _shares(self, told: Sequence[Decoded]) -> np.ndarray:
        """The probabilities of some answers; of a list they sum to 1."""
        logs = np.array([one.log_prob for one in told]).clip(max=-1e-9)
        if self.answers:
            scaled = np.exp((logs - logs.max()) / self.temperature)
            return np.asarray(scaled / scaled.sum())
        logits = logs - np.log(-np.expm1(logs))
        return np.asarray(1 / (1 + np.exp(-logits / self.temperature)))

    def _rank(
        self, pictures: Sequence[np.ndarray], texts: Sequence[str], answers: Sequence[str]
    ) -> list[list[Decoded]]:
        """What the network makes of each answer of a list."""
        words, end = self.network.words, self.network.ends[:1]
        rows = [words(text, add_special_tokens=False).input_ids + end for text in answers]
        found: list[list[Decoded]] = [[] for _ in pictures]
        for n in range(0, len(rows), LISTED):
            some = rows[n : n + LISTED]
            limit, forced = max(map(len, some)), some * len(pictures)
            told = self.network.tell(pictures, texts, limit, len(some), forced)
            found = [[*best, *more] for best, more in zip(found, told, strict=True)]
        return found

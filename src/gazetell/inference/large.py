"""Large models of transformers through the same verbs: ``LargeCaptioner``, ``LargeAnswerer``.

They are a ``Captioner`` and an ``Answerer`` whose grids are the pictures themselves (``Pictures``)
and whose tokens, probabilities and attention come from a ``Network`` (``models.large``), which says
how. ``load`` opens them.

An answer's confidence, with p the probability of its sequence and a temperature of 1 unless a
calibration was kept, is ``sigmoid(log(p / (1 - p)) / temperature)``, which is p at 1; of a given
list of answers ``softmax(log p / temperature)``.

Shapes: ``N`` questions, ``T`` words, ``t`` tokens of all, ``R`` patches.
"""

import logging
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ..data.answers import AnswerVocabulary
from ..data.text import Question
from ..errors import ImageError, UsageError
from ..features import Model
from ..models.confidence import Confidence
from ..models.decoding import Decoded, DecodingOptions
from ..models.encoders import Grid
from ..models.large import USUAL, WORD, Network, Pictures
from ..models.weights import shown_name
from ..pictures import LoadedPicture
from .predict import Answerer, Captioner, Found
from .results import TOP, Caption

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
        self.attentive = sight.patches > 0
        self.about = {"model": network.name}
        self.name = shown_name(network.name)

    def see(self, loaded: Sequence[LoadedPicture | ImageError]) -> Grid:
        """The pictures themselves."""
        arrays: Any = []
        for picture in loaded:
            if isinstance(picture, ImageError):
                raise picture
            arrays.append(picture.pixels)
        return Pictures(arrays, torch.empty(len(arrays), 0), 0, 0)

    def maps(self, attention: Any, groups: Sequence[Any]) -> np.ndarray | None:
        """The attention (T, height, width) of words, from that of tokens (t, R) in groups."""
        side = self.network.sight.patches
        rows = [np.asarray(attention[group]).mean(0) for group in groups] if side else []
        return np.array(rows, np.float32).reshape(-1, side, side) if side else None


class LargeCaptioner(Large, Captioner):
    """A captioner of transformers; see ``large``. No ensemble, and no groups of beams."""

    def __init__(self, network: Network) -> None:
        self.take(network)
        self.members, self.decoding, asked = 1, network.decoding, network.prompt
        self.tokenizer = SimpleNamespace(decode=lambda tokens: network.worded(tokens, asked)[0])
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

    def decode_best(self, *given: Any, **more: Any) -> list[list[Caption]]:
        """As ``Captioner.decode_best``; tokens that differ may read alike, and then count once."""
        told = super().decode_best(*given, **more)
        return [
            [x for n, x in enumerate(best) if x.text not in [y.text for y in best[:n]]]
            for best in told
        ]

    def worded(self, one: Decoded, grid: Grid) -> tuple[str, list[str], np.ndarray | None]:
        """As ``Captioner.worded``."""
        text, words, groups = self.network.worded(one.tokens, self.network.prompt)
        return text, words, self.maps(one.attention, groups)

    def search(
        self,
        grid: Grid,
        options: DecodingOptions,
        count: int = 1,
        positions: Sequence[int] | None = None,
    ) -> list[list[Decoded]]:
        """What ``decode_best`` makes captions of; draws depend on seed and position alone."""
        how = {name: getattr(options, name) for name in ("temperature", "top_k", "top_p")}
        how |= {"num_beams": options.beam, "do_sample": options.sample}
        how |= {"no_repeat_ngram_size": options.no_repeat_ngram}
        how |= {"min_new_tokens": options.min_length, "length_penalty": options.length_penalty}
        texts, limit = [self.network.prompt] * len(grid.cells), options.max_length
        pictures: Any = grid.cells
        if not options.sample:
            return self.network.tell(pictures, texts, limit, count, **how)
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
            raise UsageError(f"question {text!r:.60}: leave out {mark}, a mark of the model")
        return Question(text, [], [])

    def search(
        self, grid: Grid, asked: Sequence[Question], owner: torch.Tensor, evidence: bool
    ) -> Iterator[Found]:
        """As ``Answerer.search``."""
        network, listed = self.network, list[list[int]]()
        if self.answers:
            read = network.words(list(self.answers.answers), add_special_tokens=False)
            listed = [[*row, network.ends[0]] for row in read.input_ids]
        texts = [network.question.format(question.text) for question in asked]
        pictures: Any = [grid.cells[n] for n in owner.tolist()]
        told = self._told(pictures, texts, [listed] * len(texts))
        best = [int(np.argmax(self._shares(rows))) for rows in told]
        without: list[float | None] = [None] * len(texts)
        if evidence:
            grey: Any = list(self.blank.cells) * len(texts)
            own = [[*rows[n].tokens, network.ends[0]] for rows, n in zip(told, best, strict=True)]
            again = self._told(grey, texts, [listed or [row] for row in own])
            places = best if listed else [0] * len(texts)
            without = [float(self._shares(x)[n]) for x, n in zip(again, places, strict=True)]
        for question, rows, place, plain in zip(asked, told, best, without, strict=True):
            shares, top = self._shares(rows), dict[str, float]()
            for n in np.argsort(-shares, kind="stable")[:TOP]:
                text = network.worded(rows[n].tokens, question.text)[0]
                top[text] = top.get(text, 0.0) + float(shares[n])  # tokens may read alike
            attention = rows[place].attention
            yield list(top.items()), self.maps(attention, [slice(None)]), plain

    def _told(
        self, pictures: Sequence[np.ndarray], texts: Sequence[str], rows: Sequence[list[list[int]]]
    ) -> list[list[Decoded]]:
        """What the network makes of as many rows of tokens of each; without any, what it writes."""
        network, limit = self.network, self.network.decoding.max_length
        if not any(rows):
            how: dict[str, Any] = {"num_beams": self.beam, "do_sample": False}
            written = network.tell(pictures, texts, limit, self.beam, **how)
            if cut := sum(not best[0].ended for best in written):
                log.warning("%s: answers cut at %d tokens: %d", network.name, limit, cut)
            return written
        told: list[list[Decoded]] = [[] for _ in texts]
        for n in range(0, len(rows[0]), LISTED):
            some = [row for each in rows for row in each[n : n + LISTED]]
            more = network.tell(pictures, texts, max(map(len, some)), len(some) // len(rows), some)
            told = [[*best, *others] for best, others in zip(told, more, strict=True)]
        return told

    def _shares(self, told: Sequence[Decoded]) -> np.ndarray:
        """The probabilities of some answers; of a list they sum to 1."""
        logs = np.array([one.log_prob for one in told]).clip(max=-1e-9)
        if self.answers:
            scaled = np.exp((logs - logs.max()) / self.temperature)
            return np.asarray(scaled / scaled.sum())
        logits = logs - np.log(-np.expm1(logs))
        return np.asarray(1 / (1 + np.exp(-logits / self.temperature)))

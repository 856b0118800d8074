"""Decoding: from a captioner and a grid to token ids, the gaze of each word, a log-probability.

Knows only token ids and ``start``/``step``; batched over pictures. Greedy and sampled decoding
feed each chosen word back in; beam search keeps the K best prefixes of every picture and compares
finished captions by::

    score = log p(words, <end>) / length ** length_penalty       length counts <end>

with ``length_penalty`` 0 the plain log-probability and 1 the mean a word (Wu et al. 2016 use a
shifted form of the same normalisation). The search stops when no unfinished prefix can still beat
the worst kept caption, so a large enough beam is exact.

With ``beam_groups`` G above 1 the beam is G searches of K/G prefixes that take their words one
after the other (Vijayakumar et al. 2018, Diverse Beam Search). Group g chooses by::

    log p(words) - diversity * (how often groups before g chose the last word at this step)

The penalty only chooses which prefixes are continued. The log-probabilities and scores that are
returned are the model's own, and ending a caption is never penalised. Each group keeps its own best
captions.

Several captioners decode together as an ``Ensemble``.

Shapes: ``B`` pictures, ``K`` beam or samples, ``N = B*K`` rows, ``T`` words so far, ``V``
vocabulary, ``R`` regions, ``M`` members.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UsageError
from .captioners import CaptionModel, State
from .encoders import Grid
from .search import Decoded, DecodingOptions


class Decoder(Protocol):
    """What decoding needs of a captioner; a state is anything with ``State``'s two methods."""

    def start(self, grid: Grid) -> Any:
        """The state before the first word."""

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any, Tensor | None]:
        """Logits (N, V), state and attention (N, R) after reading tokens (N,)."""


def decode(
    decoder: Decoder, grid: Grid, options: DecodingOptions, *, samples: int = 1, **rest: Any
) -> list[Decoded]:
    """The best caption of each picture, or all drawn ones, by picture; see ``n_best``."""
    captions = n_best(decoder, grid, options, samples, **rest)
    return [caption for each in captions for caption in each]


@torch.inference_mode()
def n_best(
    decoder: Decoder,
    grid: Grid,
    options: DecodingOptions,
    count: int,
    *,
    start: int,
    end: int,
    banned: tuple[int, ...] = (),
    positions: Sequence[int] | None = None,
) -> list[list[Decoded]]:
    """The ``count`` best captions of each picture, best first, or so many drawn ones.

    Args:
        decoder: a captioner in evaluation mode.
        grid: cells (B, R, C).
        options: see ``DecodingOptions``.
        count: at most the beam without ``sample``. A search may meet fewer, but at least one.
        start: id of ``<start>``.
        end: id of ``<end>``.
        banned: ids that are never emitted (``<pad>``, ``<unk>``); ``start`` is always banned.
        positions: where each picture stands in all that its caller captions, from 0; None: the
            grid is all. With the seed and the sample's number it alone decides about the random
            draws: they are the same in batches of any size.

    Raises:
        UsageError: more captions than the beam, without sampling.
    """
    if count < 1 or (count > options.beam and not options.sample):
        raise UsageError(f"captions {count}: expected 1 to the beam, {options.beam}")
    search = _Search(decoder, options, start, end, banned)
    return search.beam(grid, count) if options.beam > 1 else search.path(grid, count, positions)


class _Search:
    """What the ways of decoding share: what may come next, and the caption of a finished row."""

    def __init__(
        self,
        decoder: Decoder,
        options: DecodingOptions,
        start: int,
        end: int,
        banned: Sequence[int],
    ) -> None:
        self.decoder, self.options, self.start, self.end = decoder, options, start, end
        self.never = torch.tensor(sorted({start, *banned} - {end}), dtype=torch.long)

    def log_probs(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities (N, V) with what must not come next at -inf; tokens (N, T) so far.

        The forbidden words' probability is not handed to the others: these are the model's own.
        """
        scores = logits.float().log_softmax(1)
        length, n = tokens.shape[1], self.options.no_repeat_ngram
        # Finite, so that every caption can end, whatever a model says.
        end = scores[:, self.end].clamp_(min=-1e9)
        ending = end.clone() if length < self.options.min_length else None
        scores.index_fill_(1, self.never.to(scores.device), -math.inf)
        if ending is not None:
            end.fill_(-math.inf)
        if n and length >= n:
            grams = tokens.unfold(1, n, 1)  # (N, T-n+1, n)
            prefix = tokens[:, length - n + 1 :].unsqueeze(1)  # (N, 1, n-1)
            rows, places = (grams[:, :, : n - 1] == prefix).all(2).nonzero(as_tuple=True)
            following = grams[rows, places, n - 1]
            word = following != self.end
            scores[rows[word], following[word]] = -math.inf
        if ending is not None:
            torch.where(scores.isneginf().all(1), ending, end, out=end)
        return scores

    def caption(
        self,
        ids: list[int],
        attention: Tensor | None,
        log_prob: float,
        ended: bool,
        weakest: float,
    ) -> Decoded:
        """A caption of T words, without its end, from attention (T or more, R)."""
        length = len(ids)
        return Decoded(
            tokens=ids,
            attention=None if attention is None else attention[:length].float().cpu(),
            log_prob=log_prob,
            score=log_prob / (length + 1) ** self.options.length_penalty,
            ended=ended,
            weakest=weakest,
        )

    def path(self, grid: Grid, count: int, positions: Sequence[int] | None) -> list[list[Decoded]]:
        """Greedy or sampled: one word after the other, ``count`` captions a picture."""
        device, longest = grid.cells.device, self.options.max_length
        pictures = range(len(grid.cells))
        batch = len(pictures) * count
        draws: Tensor | None = None
        if self.options.sample:
            table = [
                np.random.default_rng((self.options.seed, place, number)).random(longest + 1, "f4")
                for _, place in zip(pictures, positions or pictures, strict=True)
                for number in range(count)
            ]
            draws = torch.from_numpy(np.stack(table)).double().to(device)  # (N, T+1)
        state = self.decoder.start(grid)
        if count > 1:
            state = state.select(torch.arange(batch, device=device) // count)
        last = torch.full((batch,), self.start, device=device)
        tokens = torch.empty((batch, 0), dtype=torch.long, device=device)
        done = torch.zeros(batch, dtype=torch.bool, device=device)
        gains: list[Tensor] = []
        gaze: list[Tensor] = []
        for step in range(longest + 1):
            logits, state, attention = self.decoder.step(last, state)
            scores = self.log_probs(logits, tokens)
            if draws is None:
                gained, last = scores.max(1)
            else:
                last = self.draw(scores, draws[:, step])
                gained = scores.gather(1, last.unsqueeze(1)).squeeze(1)
            done = done | (last == self.end)
            if step == longest:  # no room for another word: the caption ends, whatever is chosen
                last, gained = torch.full_like(last, self.end), scores[:, self.end]
            tokens = torch.cat((tokens, last.unsqueeze(1)), 1)
            gains.append(gained)
            if attention is not None:
                gaze.append(attention)
            if bool(done.all()):
                break
        # To the CPU at once, not a row at a time. What stands behind a row's end is left out.
        maps = torch.stack(gaze, 1).cpu() if gaze else [None] * batch
        rows = zip(
            tokens.tolist(), torch.stack(gains, 1).tolist(), maps, done.tolist(), strict=True
        )
        captions = []
        for ids, row, attention, ended in rows:
            length = ids.index(self.end)
            row = row[: length + 1]
            captions.append(self.caption(ids[:length], attention, sum(row), ended, min(0.0, *row)))
        return [captions[n * count : (n + 1) * count] for n in pictures]

    def draw(self, scores: Tensor, uniform: Tensor) -> Tensor:
        """A word (N,) from log-probabilities (N, V), by numbers (N,) from 0 to below 1."""
        scores = scores / self.options.temperature
        if self.options.top_k or self.options.top_p < 1:
            ordered, ids = scores.sort(1, descending=True)
            if self.options.top_k:
                ordered[:, self.options.top_k :] = -math.inf
            probabilities = ordered.softmax(1)
            # Keep the words before which less than top_p is reached: always the first.
            ordered[probabilities.cumsum(1) - probabilities >= self.options.top_p] = -math.inf
            scores = torch.empty_like(scores).scatter(1, ids, ordered)
        reached = scores.double().softmax(1).cumsum(1)
        wanted = uniform.unsqueeze(1) * reached[:, -1:]
        drawn = torch.searchsorted(reached, wanted, right=True).squeeze(1)
        return drawn.clamp(max=scores.shape[1] - 1)  # where weights are damaged

    def beam(self, grid: Grid, count: int) -> list[list[Decoded]]:
        """Beam search: the ``count`` best captions of each picture, best first.

        What is said of a picture below is true of each group of a picture.
        """
        groups, device = self.options.beam_groups, grid.cells.device
        batch, beam, wanted = len(grid.cells) * groups, self.options.beam // groups, count
        count = math.ceil(count / groups)
        longest, penalty = self.options.max_length, self.options.length_penalty
        best: list[list[Decoded]] = [[] for _ in range(batch)]
        live = torch.arange(batch, device=device)  # (B,): pictures whose best may still be beaten
        state = self.decoder.start(grid).select((live // groups).repeat_interleave(beam))
        last = torch.full((batch * beam,), self.start, device=device)
        tokens = torch.empty((batch * beam, 0), dtype=torch.long, device=device)
        gaze: Tensor | None = None
        # One prefix a picture at first: K copies of it would give K times the same.
        alive = torch.full((batch, beam), -math.inf, device=device)
        alive[:, 0] = 0.0
        weakest = torch.zeros(batch * beam, device=device)
        for step in range(longest + 1):
            logits, state, attention = self.decoder.step(last, state)
            scores = self.log_probs(logits, tokens)
            # At the last step every prefix ends; those that would rather go on are cut.
            ended = scores.argmax(1) == self.end if step == longest else torch.ones_like(last) > 0
            vocabulary = scores.shape[1]
            totals = alive.unsqueeze(2) + scores.view(-1, beam, vocabulary)  # (B, K, V)
            if gaze is None and attention is not None:
                gaze = attention.new_empty((len(tokens), 0, attention.shape[1]))  # (N, T, R)
            # Let the prefixes that end now compete with the best so far.
            ending = totals[:, :, self.end]  # (B, K)
            ranked, winners = (ending / (step + 1) ** penalty).topk(count, 1)
            for row, b in enumerate(live.tolist()):
                for score, k in zip(ranked[row].tolist(), winners[row].tolist(), strict=True):
                    full = len(best[b]) == count
                    if score == -math.inf or (full and score <= best[b][-1].score):
                        break
                    n = row * beam + k
                    maps = None if gaze is None else gaze[n]
                    least = min(float(weakest[n]), float(scores[n, self.end]))
                    sums = float(ending[row, k]), bool(ended[n]), least
                    caption = self.caption(tokens[n].tolist(), maps, *sums)
                    # Of equals the earlier one stays ahead: sorting is stable.
                    best[b] = sorted([*best[b], caption], key=lambda each: -each.score)[:count]
            if step == longest:
                break
            totals[:, :, self.end] = -math.inf
            alive, flat = self.grow(totals, live)  # (B, K)
            rows = torch.arange(len(live), device=device).unsqueeze(1) * beam + flat // vocabulary
            parents = rows.view(-1)
            last = (flat % vocabulary).view(-1)
            weakest = weakest[parents].minimum(scores[parents, last])
            tokens = torch.cat((tokens[parents], last.unsqueeze(1)), 1)
            if gaze is not None and attention is not None:
                gaze = torch.cat((gaze, attention.unsqueeze(1)), 1)[parents]
            # What a prefix can reach at best: no further loss, spread over the greatest length.
            reach = alive.amax(1) / (longest + 1) ** penalty
            worst = [
                -math.inf if len(best[b]) < count else best[b][-1].score for b in live.tolist()
            ]
            open_ = (reach > torch.tensor(worst, device=device)).nonzero().squeeze(1)
            if len(open_) == 0:
                break
            if len(open_) == len(live):
                state = state.reorder(parents)
                continue
            # Pictures that are settled leave the batch.
            rows = (open_.unsqueeze(1) * beam + torch.arange(beam, device=device)).view(-1)
            state = state.select(parents[rows])
            live, alive, last, tokens = live[open_], alive[open_], last[rows], tokens[rows]
            weakest = weakest[rows]
            gaze = None if gaze is None else gaze[rows]
        if groups > 1:
            each_picture = (best[n : n + groups] for n in range(0, batch, groups))
            best = [_merged(found, wanted) for found in each_picture]
        # Where weights are damaged nothing has a probability.
        return [each or [Decoded([], None, math.nan, math.nan, False, math.nan)] for each in best]

    def grow(self, totals: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
        """The prefixes that go on: log-probabilities (B, K), and places (B, K) in K x V.

        ``totals`` (B, K, V) are those of all continuations, ``live`` (B,) numbers the groups.
        """
        _, beam, vocabulary = totals.shape
        flat, groups = totals.flatten(1), self.options.beam_groups
        if groups == 1:
            return flat.topk(beam, 1)
        places = live.new_zeros(len(live), beam)
        chosen = totals.new_zeros(int(live[-1]) // groups + 1, vocabulary)  # by picture and word
        for group in range(groups):
            rows = (live % groups == group).nonzero().squeeze(1)
            pictures = live[rows] // groups
            penalty = self.options.diversity * chosen[pictures].repeat(1, beam)
            places[rows] = (flat[rows] - penalty).topk(beam, 1).indices
            real = flat[rows].gather(1, places[rows]).isfinite().to(chosen.dtype)
            chosen.index_put_((pictures.unsqueeze(1), places[rows] % vocabulary), real, True)
        return flat.gather(1, places), places


def _merged(groups: Sequence[list[Decoded]], count: int) -> list[Decoded]:
    """The captions of a picture's groups, each once: the best of all groups, then the second."""
    found: dict[tuple[int, ...], Decoded] = {}
    for rank in zip_longest(*groups):
        for caption in sorted(filter(None, rank), key=lambda each: -each.score):
            found.setdefault(tuple(caption.tokens), caption)
    return sorted(list(found.values())[:count], key=lambda each: -each.score)


@dataclass(frozen=True)
class States:
    """The states of an ensemble's members, moved together."""

    members: tuple[State, ...]

    def select(self, rows: Tensor) -> "States":
        """As ``State.select``."""
        return States(tuple(state.select(rows) for state in self.members))

    def reorder(self, rows: Tensor) -> "States":
        """As ``State.reorder``."""
        return States(tuple(state.reorder(rows) for state in self.members))


class Ensemble(nn.Module):
    """Captioners that tell one caption together, by the mean of their probabilities::

        p(w | ...) = 1/M sum_m p_m(w | ...)

    All read the same CNN's grid, each through its own projection, and share one vocabulary. The
    gaze is the mean of those members that have attention. A single member is as good as itself.

    Args:
        members: each captioner, and the projection of the grid that it was trained with or None.
    """

    def __init__(self, members: Sequence[tuple[nn.Module | None, CaptionModel]]) -> None:
        super().__init__()
        self.projections = nn.ModuleList(project or nn.Identity() for project, _ in members)
        self.captioners = nn.ModuleList(captioner for _, captioner in members)

    def start(self, grid: Grid) -> States:
        """The members' states before the first word, for the CNN's own grid (B, R, C)."""
        states = []
        for project, captioner in zip(self.projections, self.captioners, strict=True):
            own = grid
            if not isinstance(project, nn.Identity):
                own = Grid.of(project(grid.cells), grid.height, grid.width)
            states.append(captioner.start(own))  # type: ignore[operator]
        return States(tuple(states))

    def step(self, tokens: Tensor, state: States) -> tuple[Tensor, States, Tensor | None]:
        """Read a word (N,), give log-probabilities (N, V), states and attention (N, R)."""
        logits, states, gazes = [], [], []
        for captioner, own in zip(self.captioners, state.members, strict=True):
            scores, own, gaze = captioner.step(tokens, own)  # type: ignore[operator]
            logits.append(scores)
            states.append(own)
            if gaze is not None:
                gazes.append(gaze)
        attention = torch.stack(gazes).mean(0) if gazes else None
        if len(logits) == 1:
            return logits[0], States(tuple(states)), attention
        each = torch.stack([x.float().log_softmax(1) for x in logits])  # (M, N, V)
        return each.logsumexp(0) - math.log(len(logits)), States(tuple(states)), attention

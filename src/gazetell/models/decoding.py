"""Decoding: from a captioner and a grid to token ids, the gaze of each word, a log-probability.

Knows only token ids and ``start``/``step``; batched over pictures. Greedy and sampled decoding
feed each chosen word back in; beam search keeps the K best prefixes of every picture and compares
finished captions by::

    score = log p(words, <end>) / length ** length_penalty       length counts <end>

with ``length_penalty`` 0 the plain log-probability and 1 the mean a word (Wu et al. 2016 use a
shifted form of the same normalisation). The search stops when no unfinished prefix can still beat
the worst kept caption, so a large enough beam is exact.

Shapes: ``B`` pictures, ``K`` beam, ``N = B*K`` rows, ``T`` words so far, ``V`` vocabulary,
``R`` regions.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import UsageError
from .encoders import Grid

__all__ = ["Decoded", "Decoder", "DecodingOptions", "decode", "n_best"]


class Decoder(Protocol):
    """What decoding needs of a captioner; a state is anything with ``State``'s two methods."""

    def start(self, grid: Grid) -> Any:
        """The state before the first word."""

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any, Tensor | None]:
        """Logits (N, V), state and attention (N, R) after reading tokens (N,)."""


@dataclass(frozen=True)
class DecodingOptions:
    """How to decode.

    Attributes:
        beam: K; 1 is greedy.
        min_length: fewest words before ``<end>`` may come.
        max_length: most words of a caption.
        length_penalty: exponent of the length normalisation of beam search, 0 for none.
        no_repeat_ngram: forbid any n-gram of this size to occur twice; 0 allows all.
        sample: draw words at random instead of taking the best; needs beam 1.
        temperature: divides the logits before sampling; below 1 is more careful.
        top_k: sample among the k likeliest words; 0 is all.
        top_p: sample among the likeliest words that together reach this probability.
        seed: of the random draws.
    """

    beam: int = 3
    min_length: int = 1
    max_length: int = 20
    length_penalty: float = 0.7
    no_repeat_ngram: int = 0
    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        checks = (
            ("beam", self.beam, 1, 100),
            ("max_length", self.max_length, 1, 1000),
            ("min_length", self.min_length, 0, self.max_length),
            ("length_penalty", self.length_penalty, 0, 5),
            ("no_repeat_ngram", self.no_repeat_ngram, 0, 100),
            ("temperature", self.temperature, 1e-3, 100),
            ("top_k", self.top_k, 0, 10**9),
            ("top_p", self.top_p, 1e-6, 1),
        )
        for name, value, low, high in checks:
            if not low <= value <= high:
                raise UsageError(f"{name} {value}: expected {low} to {high}")
        if self.sample and self.beam > 1:
            raise UsageError(f"sample with beam {self.beam}: expected beam 1")


@dataclass(frozen=True)
class Decoded:
    """One caption as token ids.

    ``tokens`` hold neither ``<start>`` nor ``<end>``; ``attention`` (T, R) has a row a token, or
    is None; ``log_prob`` is the natural logarithm of the caption's probability, with ``<end>`` if
    ``ended``; ``score`` is what beam search compared.
    """

    tokens: list[int]
    attention: Tensor | None
    log_prob: float
    score: float
    ended: bool


@torch.inference_mode()
def decode(
    decoder: Decoder,
    grid: Grid,
    options: DecodingOptions,
    *,
    start: int,
    end: int,
    banned: tuple[int, ...] = (),
    samples: int = 1,
) -> list[Decoded]:
    """Caption every picture of a grid.

    Args:
        decoder: a captioner in evaluation mode.
        grid: cells (B, R, C).
        options: see ``DecodingOptions``.
        start: id of ``<start>``.
        end: id of ``<end>``.
        banned: ids that are never emitted (``<pad>``, ``<unk>``); ``start`` is always banned.
        samples: so many captions of each picture, one after the other; needs ``beam`` 1.

    Returns:
        The captions, at least ``min_length`` words long, ended or cut at ``max_length``.
    """
    never = tuple({start, *banned} - {end})
    if options.beam > 1:
        return [best[0] for best in _beam(decoder, grid, options, start, end, never, 1)]
    return _greedy(decoder, grid, options, start, end, never, samples)


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
) -> list[list[Decoded]]:
    """The ``count`` best captions of each picture, best first; see ``decode``.

    With a beam, those with the highest scores that the search met, at least one; drawn ones with
    ``sample``, in the order of their draws.

    Raises:
        UsageError: more captions than the beam, without sampling.
    """
    if count < 1 or (count > options.beam and not options.sample):
        raise UsageError(f"captions {count}: expected 1 to the beam, {options.beam}")
    never = tuple({start, *banned} - {end})
    if options.beam > 1:
        return _beam(decoder, grid, options, start, end, never, count)
    found = _greedy(decoder, grid, options, start, end, never, count)
    return [found[at : at + count] for at in range(0, len(found), count)]


def _log_probs(
    logits: Tensor, tokens: Tensor, options: DecodingOptions, end: int, never: tuple[int, ...]
) -> Tensor:
    """Log-probabilities (N, V) with what must not come next at -inf; tokens (N, T) so far.

    The forbidden words' probability is not handed to the others: ``log_prob`` stays the model's.
    """
    scores = logits.float().log_softmax(1)
    scores[:, list(never)] = -math.inf
    length = tokens.shape[1]
    if length < options.min_length:
        scores[:, end] = -math.inf
    n = options.no_repeat_ngram
    if n and length >= n:
        grams = tokens.unfold(1, n, 1)  # (N, T-n+1, n)
        prefix = tokens[:, length - n + 1 :].unsqueeze(1)  # (N, 1, n-1)
        repeats = (grams[:, :, : n - 1] == prefix).all(2)  # (N, T-n+1)
        rows, places = repeats.nonzero(as_tuple=True)
        following = grams[rows, places, n - 1]
        spared = following != end
        scores[rows[spared], following[spared]] = -math.inf
    # A row with nothing left may always end: every picture gets a caption.
    stuck = scores.isneginf().all(1)
    scores[stuck, end] = 0.0
    return scores


def _choose(scores: Tensor, options: DecodingOptions, random: torch.Generator | None) -> Tensor:
    """The next word (N,) from log-probabilities (N, V): the best, or a draw."""
    if random is None:
        return scores.argmax(1)
    scores = scores / options.temperature
    ordered, ids = scores.sort(1, descending=True)
    if options.top_k:
        ordered[:, options.top_k :] = -math.inf
    probabilities = ordered.softmax(1)
    # Keep the words before which less than top_p is reached: always the first.
    outside = probabilities.cumsum(1) - probabilities >= options.top_p
    probabilities[outside] = 0.0
    drawn = torch.multinomial(probabilities, 1, generator=random)
    return ids.gather(1, drawn).squeeze(1)


def _greedy(
    decoder: Decoder,
    grid: Grid,
    options: DecodingOptions,
    start: int,
    end: int,
    never: tuple[int, ...],
    samples: int,
) -> list[Decoded]:
    batch, device = grid.cells.shape[0] * samples, grid.cells.device
    random = None
    if options.sample:
        random = torch.Generator(device).manual_seed(options.seed)
    state = decoder.start(grid)
    if samples > 1:
        state = state.select(torch.arange(batch, device=device) // samples)
    last = torch.full((batch,), start, device=device)
    tokens = torch.empty((batch, 0), dtype=torch.long, device=device)
    log_prob = torch.zeros(batch, device=device)
    done = torch.zeros(batch, dtype=torch.bool, device=device)
    gaze: list[Tensor] = []
    for step in range(options.max_length + 1):
        logits, state, attention = decoder.step(last, state)
        scores = _log_probs(logits, tokens, options, end, never)
        if step == options.max_length:
            # No room for another word: the caption ends if <end> is the model's own choice.
            last = _choose(scores, options, random)
            ended = done | (last == end)
            log_prob = torch.where(done | (last != end), log_prob, log_prob + scores[:, end])
            done = ended
            break
        last = torch.where(done, end, _choose(scores, options, random))
        gained = scores.gather(1, last.unsqueeze(1)).squeeze(1)
        log_prob = torch.where(done, log_prob, log_prob + gained)
        tokens = torch.cat((tokens, last.unsqueeze(1)), 1)
        if attention is not None:
            gaze.append(attention)
        done = done | (last == end)
        if bool(done.all()):
            break
    maps = torch.stack(gaze, 1) if gaze else None
    return [
        _cut(tokens[b], None if maps is None else maps[b], log_prob[b], options, end, bool(done[b]))
        for b in range(batch)
    ]


def _cut(
    tokens: Tensor,
    attention: Tensor | None,
    log_prob: Tensor,
    options: DecodingOptions,
    end: int,
    ended: bool,
) -> Decoded:
    """A caption from a row of tokens (T,) and attention (T, R): what stands before ``<end>``."""
    ids = tokens.tolist()
    length = ids.index(end) if end in ids else len(ids)
    total = float(log_prob)
    return Decoded(
        tokens=ids[:length],
        attention=None if attention is None else attention[:length].float().cpu(),
        log_prob=total,
        score=total / max(length + ended, 1) ** options.length_penalty,
        ended=ended,
    )


def _beam(
    decoder: Decoder,
    grid: Grid,
    options: DecodingOptions,
    start: int,
    end: int,
    never: tuple[int, ...],
    count: int,
) -> list[list[Decoded]]:
    batch, beam, device = grid.cells.shape[0], options.beam, grid.cells.device
    penalty = options.length_penalty
    best: list[list[Decoded]] = [[] for _ in range(batch)]  # of each picture, best first
    live = torch.arange(batch, device=device)  # (B,): pictures whose best may still be beaten
    state = decoder.start(grid).select(live.repeat_interleave(beam))
    last = torch.full((batch * beam,), start, device=device)
    tokens = torch.empty((batch * beam, 0), dtype=torch.long, device=device)
    gaze: Tensor | None = None
    # One prefix a picture at first: K copies of it would give K times the same.
    alive = torch.full((batch, beam), -math.inf, device=device)
    alive[:, 0] = 0.0
    for step in range(options.max_length + 1):
        logits, state, attention = decoder.step(last, state)
        scores = _log_probs(logits, tokens, options, end, never)
        vocabulary = scores.shape[1]
        totals = alive.unsqueeze(2) + scores.view(-1, beam, vocabulary)  # (B, K, V)
        if gaze is None and attention is not None:
            gaze = attention.new_empty((len(tokens), 0, attention.shape[1]))  # (N, T, R)
        _keep_best(best, live, totals[:, :, end], tokens, gaze, options, end, count)
        if step == options.max_length:
            break
        totals[:, :, end] = -math.inf
        alive, flat = totals.view(-1, beam * vocabulary).topk(beam, 1)  # (B, K)
        parents = torch.arange(len(live), device=device).unsqueeze(1) * beam + flat // vocabulary
        last = (flat % vocabulary).view(-1)
        tokens = torch.cat((tokens[parents.view(-1)], last.unsqueeze(1)), 1)
        if gaze is not None and attention is not None:
            gaze = torch.cat((gaze, attention.unsqueeze(1)), 1)[parents.view(-1)]
        # What a prefix can reach at best: no further loss, spread over the greatest length.
        reach = alive[:, 0] / (options.max_length + 1) ** penalty
        found = torch.tensor(
            [-math.inf if len(best[b]) < count else best[b][-1].score for b in live.tolist()],
            device=device,
        )
        open_ = (reach > found).nonzero().squeeze(1)
        if len(open_) == 0:
            break
        if len(open_) == len(live):
            state = state.reorder(parents.view(-1))
            continue
        # Pictures that are settled leave the batch.
        rows = (open_.unsqueeze(1) * beam + torch.arange(beam, device=device)).view(-1)
        state = state.select(parents.view(-1)[rows])
        live, alive, last, tokens = live[open_], alive[open_], last[rows], tokens[rows]
        gaze = None if gaze is None else gaze[rows]
    for row, b in enumerate(live.tolist()):
        if not best[b]:  # <end> had no probability anywhere: the best prefix is the caption
            maps = None if gaze is None else gaze[row * beam]
            best[b] = [_cut(tokens[row * beam], maps, alive[row, 0], options, end, False)]
    return best


def _keep_best(
    best: list[list[Decoded]],
    live: Tensor,
    ending: Tensor,
    tokens: Tensor,
    gaze: Tensor | None,
    options: DecodingOptions,
    end: int,
    count: int,
) -> None:
    """Let the prefixes that end now, log-probabilities (B, K), compete with the best so far."""
    beam, length = ending.shape[1], tokens.shape[1] + 1
    scores, winners = (ending / length**options.length_penalty).topk(count, 1)  # (B, count)
    for row, b in enumerate(live.tolist()):
        for score, k in zip(scores[row].tolist(), winners[row].tolist(), strict=True):
            full = len(best[b]) == count
            if score == -math.inf or (full and score <= best[b][-1].score):
                break
            n = row * beam + k
            maps = None if gaze is None else gaze[n]
            kept = [*best[b], _cut(tokens[n], maps, ending[row, k], options, end, True)]
            # Of equals the earlier one stays ahead: sorting is stable.
            best[b] = sorted(kept, key=lambda caption: -caption.score)[:count]

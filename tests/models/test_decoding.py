"""Decoding against exhaustive search on toy language models, and batched against one by one."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetell.errors import UsageError
from gazetell.models.captioners import State
from gazetell.models.decoding import DecodingOptions, decode, n_best
from gazetell.models.encoders import Grid

START, END = 0, 1


class Toy:
    """A language model whose next-word logits depend on picture, step and last word."""

    def __init__(self, tables: torch.Tensor) -> None:
        self.tables = tables  # (B, T, V, V)

    def start(self, grid: Grid) -> State:
        picture = torch.arange(grid.cells.shape[0])
        return State(recurrent=(torch.zeros(len(picture), dtype=torch.long),), memory=(picture,))

    def step(self, tokens, state):
        (t,), (picture,) = state.recurrent, state.memory
        logits = self.tables[picture, t, tokens]
        # The attention tells which step and picture it belongs to.
        attention = torch.stack((t.float(), picture.float()), 1)
        return logits.clone(), State((t + 1,), (picture,)), attention


def grid(batch: int) -> Grid:
    return Grid.of(torch.zeros(batch, 2, 1), 1, 2)


def tables(batch, steps, vocabulary, seed, sharpness=2.0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(batch, steps, vocabulary, vocabulary, generator=random) * sharpness


def probability(table, words, ended=True):
    """Log-probability of words (and <end>) under one picture's table."""
    last, total = START, 0.0
    for t, word in enumerate((*words, END) if ended else words):
        total += float(table[t, last].log_softmax(0)[word])
        last = word
    return total


def exhaustive(table, options, vocabulary):
    """All captions by the documented score, best first."""
    found = []
    for length in range(options.min_length, options.max_length + 1):
        for words in itertools.product(range(2, vocabulary), repeat=length):
            n = options.no_repeat_ngram
            grams = [words[i : i + n] for i in range(length - n + 1)] if n else []
            if len(set(grams)) < len(grams):
                continue
            score = probability(table, words) / (length + 1) ** options.length_penalty
            found.append((score, words))
    return sorted(found, reverse=True)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    penalty=st.sampled_from([0.0, 0.7, 1.0, 2.0]),
    minimum=st.integers(0, 2),
    ngram=st.sampled_from([0, 1, 2]),
)
def test_a_wide_beam_finds_what_exhaustive_search_finds(seed, penalty, minimum, ngram):
    vocabulary, longest = 5, 4
    table = tables(2, longest + 1, vocabulary, seed)
    options = DecodingOptions(
        beam=64,
        min_length=minimum,
        max_length=longest,
        length_penalty=penalty,
        no_repeat_ngram=ngram,
    )
    found = decode(Toy(table), grid(2), options, start=START, end=END)
    for caption, one in zip(found, table, strict=True):
        score, words = exhaustive(one, options, vocabulary)[0]
        assert tuple(caption.tokens) == words
        assert caption.score == pytest.approx(score, abs=1e-4)
        assert caption.log_prob == pytest.approx(probability(one, words), abs=1e-4)
        assert caption.ended


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    penalty=st.sampled_from([0.0, 0.7, 2.0]),
    count=st.integers(1, 6),
)
def test_a_wide_beam_finds_the_best_few_that_exhaustive_search_finds(seed, penalty, count):
    vocabulary, longest = 5, 4
    table = tables(2, longest + 1, vocabulary, seed)
    options = DecodingOptions(beam=64, max_length=longest, length_penalty=penalty)
    found = n_best(Toy(table), grid(2), options, count, start=START, end=END)
    first = decode(Toy(table), grid(2), options, start=START, end=END)
    for captions, best, one in zip(found, first, table, strict=True):
        expected = exhaustive(one, options, vocabulary)[:count]
        assert [tuple(c.tokens) for c in captions] == [words for _, words in expected]
        scores = [score for score, _ in expected]
        assert [c.score for c in captions] == pytest.approx(scores, abs=1e-4)
        assert captions[0].tokens == best.tokens


def test_several_drawn_captions_are_draws_of_the_same_picture():
    table = tables(2, 7, 8, seed=3, sharpness=1.0)
    options = DecodingOptions(beam=1, sample=True, max_length=6)
    found = n_best(Toy(table), grid(2), options, 5, start=START, end=END)
    assert [len(captions) for captions in found] == [5, 5]
    assert len({tuple(c.tokens) for c in found[0]}) > 1
    for captions, one in zip(found, table, strict=True):
        for c in captions:
            assert c.log_prob == pytest.approx(probability(one, c.tokens, c.ended), abs=1e-4)


@pytest.mark.parametrize(("beam", "count"), [(1, 2), (3, 4), (3, 0)])
def test_no_more_captions_than_the_beam(beam, count):
    table = tables(1, 4, 5, seed=0)
    with pytest.raises(UsageError, match=f"captions {count}: expected 1 to the beam, {beam}"):
        n_best(Toy(table), grid(1), DecodingOptions(beam=beam), count, start=START, end=END)


def naive_beam(table, beam, options, vocabulary):
    """Beam search of one picture with lists, as a textbook has it."""
    alive, best = [(0.0, ())], (-math.inf, ())
    for t in range(options.max_length + 1):
        grown = []
        for total, words in alive:
            logs = table[t, words[-1] if words else START].log_softmax(0)
            if t >= options.min_length:
                score = (total + float(logs[END])) / (t + 1) ** options.length_penalty
                best = max(best, (score, words))
            grown += [(total + float(logs[w]), (*words, w)) for w in range(2, vocabulary)]
        alive = sorted(grown, reverse=True)[:beam]
    return best


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), beam=st.integers(2, 5), penalty=st.sampled_from([0.0, 0.7, 1.0]))
def test_beam_equals_a_textbook_beam(seed, beam, penalty):
    vocabulary, longest = 9, 6
    table = tables(3, longest + 1, vocabulary, seed)
    options = DecodingOptions(beam=beam, max_length=longest, length_penalty=penalty)
    for caption, one in zip(
        decode(Toy(table), grid(3), options, start=START, end=END), table, strict=True
    ):
        score, words = naive_beam(one, beam, options, vocabulary)
        assert tuple(caption.tokens) == words
        assert caption.score == pytest.approx(score, abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_greedy_takes_the_best_word_each_time(seed):
    table = tables(4, 8, 7, seed)
    options = DecodingOptions(beam=1, min_length=0, max_length=7)
    for caption, one in zip(
        decode(Toy(table), grid(4), options, start=START, end=END), table, strict=True
    ):
        words, last = [], START
        for t in range(7):
            scores = one[t, last].clone()
            scores[START] = -math.inf
            last = int(scores.argmax())
            if last == END:
                break
            words.append(last)
        assert caption.tokens == words
        assert caption.log_prob == pytest.approx(
            probability(one, words, ended=caption.ended), abs=1e-4
        )


@pytest.mark.parametrize("beam", [1, 3])
def test_batched_equals_one_by_one(beam):
    table = tables(17, 9, 11, seed=5)
    options = DecodingOptions(beam=beam, max_length=8)
    together = decode(Toy(table), grid(17), options, start=START, end=END)
    for caption, one in zip(together, table, strict=True):
        (alone,) = decode(Toy(one[None]), grid(1), options, start=START, end=END)
        assert caption.tokens == alone.tokens
        assert caption.log_prob == pytest.approx(alone.log_prob, abs=1e-5)


@pytest.mark.parametrize("beam", [1, 4])
def test_each_word_keeps_its_own_gaze(beam):
    options = DecodingOptions(beam=beam, max_length=6)
    for b, caption in enumerate(
        decode(Toy(tables(5, 7, 8, seed=3)), grid(5), options, start=START, end=END)
    ):
        assert caption.attention.shape == (len(caption.tokens), 2)
        assert caption.attention[:, 0].tolist() == list(range(len(caption.tokens)))
        assert set(caption.attention[:, 1].tolist()) <= {float(b)}


@pytest.mark.parametrize("beam", [1, 3])
def test_there_is_a_caption_when_nothing_ends(beam):
    table = tables(2, 6, 6, seed=1)
    table[..., END] = -math.inf
    options = DecodingOptions(beam=beam, max_length=5)
    for caption in decode(Toy(table), grid(2), options, start=START, end=END):
        assert len(caption.tokens) == 5
        assert not caption.ended
        assert math.isfinite(caption.log_prob)


@pytest.mark.parametrize("beam", [1, 3])
def test_banned_words_and_lengths(beam):
    table = tables(8, 12, 9, seed=2)
    table[..., 4] += 20.0  # the banned word would win everywhere
    options = DecodingOptions(beam=beam, min_length=3, max_length=6)
    for caption in decode(Toy(table), grid(8), options, start=START, end=END, banned=(4,)):
        assert 3 <= len(caption.tokens) <= 6
        assert not {START, END, 4} & set(caption.tokens)


def test_sampling_draws_from_the_model():
    table = tables(1, 1, 6, seed=9, sharpness=1.0).expand(4000, 1, 6, 6)
    options = DecodingOptions(beam=1, sample=True, min_length=1, max_length=1, seed=4)

    class Once(Toy):
        def step(self, tokens, state):
            logits, after, attention = super().step(
                tokens, State((state.recurrent[0] * 0,), state.memory)
            )
            return logits, after, attention

    drawn = decode(Once(table), grid(4000), options, start=START, end=END)
    counts = torch.bincount(torch.tensor([c.tokens[0] for c in drawn]), minlength=6) / 4000
    expected = table[0, 0, START].clone()
    expected[[START, END]] = -math.inf
    assert torch.allclose(counts, expected.softmax(0), atol=0.03)


def test_top_k_and_top_p_keep_only_the_likeliest():
    table = torch.zeros(500, 1, 8, 8)
    table[..., 2:6] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    table[..., 6:] = -9.0
    table[..., END] = -9.0
    base = {"beam": 1, "sample": True, "min_length": 1, "max_length": 1}

    class Once(Toy):
        def step(self, tokens, state):
            return super().step(tokens, State((state.recurrent[0] * 0,), state.memory))

    def words(**more):
        found = decode(
            Once(table), grid(500), DecodingOptions(**base, **more), start=START, end=END
        )
        return {c.tokens[0] for c in found}

    assert words(top_k=2) == {2, 3}
    assert words(top_p=0.7) == {2, 3}  # 0.64 alone does not reach 0.7
    assert words(top_k=1) == {2}
    assert words(temperature=0.01) == {2}


@pytest.mark.parametrize(
    "bad", [{"beam": 0}, {"top_p": 0.0}, {"min_length": 30}, {"temperature": 0}, {"sample": True}]
)
def test_options_out_of_range_are_named(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        DecodingOptions(**bad)

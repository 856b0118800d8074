"""Decoding against exhaustive search on toy language models; ensembles by hand."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetell.errors import UsageError
from gazetell.models.captioners import CAPTIONERS, State, build_captioner
from gazetell.models.decoding import DecodingOptions, Ensemble, decode, n_best
from gazetell.models.encoders import Grid
from gazetell.models.search import check_effect

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


def decoded(table, options, **more):
    """The captions of all pictures."""
    return decode(Toy(table), grid(len(table)), options, start=START, end=END, **more)


def probability(table, words):
    """Log-probability of words and <end> under one picture's table."""
    last, total = START, 0.0
    for t, word in enumerate((*words, END)):
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
    limits = {"min_length": minimum, "max_length": longest}
    options = DecodingOptions(64, **limits, length_penalty=penalty, no_repeat_ngram=ngram)
    found = n_best(Toy(table), grid(2), options, 5, start=START, end=END)
    first = decoded(table, options)
    for captions, best, one in zip(found, first, table, strict=True):
        expected = exhaustive(one, options, vocabulary)[:5]
        assert [tuple(caption.tokens) for caption in captions] == [words for _, words in expected]
        scores = [score for score, _ in expected]
        assert [caption.score for caption in captions] == pytest.approx(scores, abs=1e-4)
        assert best.tokens == captions[0].tokens
        assert best.log_prob == pytest.approx(probability(one, best.tokens), abs=1e-4)
        assert best.ended or len(best.tokens) == longest


@pytest.mark.parametrize("options", [{"beam": 1}, {"beam": 3}, {"beam": 1, "sample": True}])
def test_damaged_weights_give_captions_without_a_probability(options):
    table = torch.full((2, 4, 5, 5), math.nan)
    options = DecodingOptions(**options, max_length=3)
    captions = decoded(table, options)
    assert [math.isnan(caption.log_prob) for caption in captions] == [True, True]


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
    for caption, one in zip(decoded(table, options), table, strict=True):
        score, words = naive_beam(one, beam, options, vocabulary)
        assert tuple(caption.tokens) == words
        assert caption.score == pytest.approx(score, abs=1e-4)


def naive_diverse(table, options, vocabulary, count):
    """Diverse beam search of one picture with lists: groups one after the other at each step.

    A group whose captions can no longer be beaten takes no further words.
    """
    groups, beam = options.beam_groups, options.beam // options.beam_groups
    kept = math.ceil(count / groups)
    alive = {group: [(0.0, ())] for group in range(groups)}
    best = {group: [] for group in range(groups)}
    for t in range(options.max_length + 1):
        chosen = [0] * vocabulary
        for group, prefixes in list(alive.items()):
            grown = []
            for total, words in prefixes:
                logs = table[t, words[-1] if words else START].log_softmax(0).tolist()
                if t >= options.min_length:
                    score = (total + logs[END]) / (t + 1) ** options.length_penalty
                    best[group] = sorted([*best[group], (score, words)], reverse=True)[:kept]
                for w in range(2, vocabulary):
                    judged = total + logs[w] - options.diversity * chosen[w]
                    grown.append((judged, total + logs[w], (*words, w)))
            alive[group] = [
                (total, words) for _, total, words in sorted(grown, reverse=True)[:beam]
            ]
            for _, words in alive[group]:
                chosen[words[-1]] += 1
            reach = max(total for total, _ in alive[group])
            bound = reach / (options.max_length + 1) ** options.length_penalty
            if len(best[group]) == kept and bound <= best[group][-1][0]:
                del alive[group]
    found = {}
    for rank in range(kept):
        for score, words in sorted((best[g][rank] for g in range(groups)), reverse=True):
            found.setdefault(words, score)
    return sorted(((s, w) for w, s in list(found.items())[:count]), reverse=True)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.sampled_from([(4, 2), (6, 3), (3, 3), (6, 2)]),
    diversity=st.sampled_from([0.3, 2.0, 20.0]),
    count=st.integers(1, 3),
)
def test_beam_groups_equal_a_naive_diverse_beam(seed, sizes, diversity, count):
    vocabulary, longest, (beam, groups) = 9, 5, sizes
    table = tables(3, longest + 1, vocabulary, seed)
    options = DecodingOptions(beam, max_length=longest, beam_groups=groups, diversity=diversity)
    found = n_best(Toy(table), grid(3), options, count, start=START, end=END)
    for captions, one in zip(found, table, strict=True):
        expected = naive_diverse(one, options, vocabulary, count)
        assert [tuple(caption.tokens) for caption in captions] == [words for _, words in expected]
        for caption, (score, words) in zip(captions, expected, strict=True):
            assert caption.score == pytest.approx(score, abs=1e-4)
            assert caption.log_prob == pytest.approx(probability(one, words), abs=1e-4)


def test_groups_tell_other_words_than_a_beam():
    table = tables(4, 7, 12, seed=5)
    options = {"beam": 4, "min_length": 2, "max_length": 6}

    def first_words(**more):
        chosen = DecodingOptions(**options, **more)
        found = n_best(Toy(table), grid(4), chosen, 4, start=START, end=END)
        return sum(len({caption.tokens[0] for caption in captions}) for captions in found)

    assert first_words(beam_groups=4, diversity=50.0) == 4 * 4  # a word is taken once a step
    assert first_words() < 4 * 4


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_greedy_takes_the_best_word_each_time(seed):
    table = tables(4, 8, 7, seed)
    options = DecodingOptions(beam=1, min_length=0, max_length=7)
    for caption, one in zip(decoded(table, options), table, strict=True):
        words, last = [], START
        for t in range(7):
            scores = one[t, last].clone()
            scores[START] = -math.inf
            last = int(scores.argmax())
            if last == END:
                break
            words.append(last)
        assert caption.tokens == words
        assert caption.log_prob == pytest.approx(probability(one, words), abs=1e-4)
        assert caption.ended == (last == END or int(one[7, last][1:].argmax()) + 1 == END)


@pytest.mark.parametrize("beam", [1, 4])
def test_each_word_keeps_its_own_gaze(beam):
    options = DecodingOptions(beam=beam, max_length=6)
    for b, caption in enumerate(decoded(tables(5, 7, 8, seed=3), options)):
        assert caption.attention.shape == (len(caption.tokens), 2)
        assert caption.attention[:, 0].tolist() == list(range(len(caption.tokens)))
        assert set(caption.attention[:, 1].tolist()) <= {float(b)}


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("ending", [-60.0, -math.inf])
def test_a_caption_that_is_cut_has_the_probability_of_its_end_too(beam, ending):
    table = tables(2, 6, 6, seed=1)
    table[..., END] = ending
    options = DecodingOptions(beam=beam, max_length=5)
    for caption, one in zip(decoded(table, options), table, strict=True):
        assert len(caption.tokens) == 5
        assert not caption.ended
        if ending == -60:
            assert caption.log_prob == pytest.approx(probability(one, caption.tokens), abs=1e-3)
        assert -math.inf < caption.log_prob < -50


@pytest.mark.parametrize("beam", [1, 3])
def test_a_caption_that_must_end_has_the_probability_of_its_end_too(beam):
    table = tables(4, 11, 6, seed=8)
    table[..., END] = -20.0
    options = DecodingOptions(beam=beam, min_length=9, max_length=10, no_repeat_ngram=1)
    for caption, one in zip(decoded(table, options), table, strict=True):
        assert sorted(caption.tokens) == [2, 3, 4, 5]  # there are no other words
        assert caption.log_prob == pytest.approx(probability(one, caption.tokens), abs=1e-3)
        assert caption.log_prob < -15
        assert caption.ended


@pytest.mark.parametrize("beam", [1, 3])
def test_banned_words_and_lengths(beam):
    table = tables(8, 12, 9, seed=2)
    table[..., 4] += 20.0  # the banned word would win everywhere
    options = DecodingOptions(beam=beam, min_length=3, max_length=6)
    for caption in decoded(table, options, banned=(4,)):
        assert 3 <= len(caption.tokens) <= 6
        assert not {START, END, 4} & set(caption.tokens)


class Once(Toy):
    """One whose logits do not depend on the step."""

    def step(self, tokens, state):
        return super().step(tokens, State((state.recurrent[0] * 0,), state.memory))


def test_sampling_draws_from_the_model():
    table = tables(1, 1, 6, seed=9, sharpness=1.0).expand(4000, 1, 6, 6)
    options = DecodingOptions(beam=1, sample=True, min_length=1, max_length=1, seed=4)
    drawn = decode(Once(table), grid(4000), options, start=START, end=END)
    first = probability(torch.stack([table[0, 0]] * 2), drawn[0].tokens)
    assert drawn[0].log_prob == pytest.approx(first, abs=1e-4)
    counts = torch.bincount(torch.tensor([c.tokens[0] for c in drawn]), minlength=6) / 4000
    expected = table[0, 0, START].clone()
    expected[[START, END]] = -math.inf
    assert torch.allclose(counts, expected.softmax(0), atol=0.03)


def drawn(table, batch, samples=1, seed=0):
    """The captions of all pictures, drawn in batches."""
    options = DecodingOptions(beam=1, sample=True, max_length=8, seed=seed)
    captions = []
    for first in range(0, len(table), batch):
        part = table[first : first + batch]
        places = range(first, first + len(part))
        captions += decode(
            *(Toy(part), grid(len(part)), options),
            **{"start": START, "end": END, "samples": samples, "positions": places},
        )
    return [tuple(caption.tokens) for caption in captions]


def test_draws_depend_on_seed_picture_and_sample_alone():
    table = tables(1, 9, 12, seed=5, sharpness=1.0).expand(12, 9, 12, 12)  # twelve times the same
    together = drawn(table, 12)
    assert len(set(together)) > 8
    for batch in (1, 5):
        assert drawn(table, batch) == together
    assert drawn(table, 12, seed=1) != together
    # The first of several samples is the only one of a single sample.
    several = drawn(table, 4, samples=3)
    assert several[::3] == together
    assert len(set(several)) > 24


def test_top_k_and_top_p_keep_only_the_likeliest():
    table = torch.zeros(500, 1, 8, 8)
    table[..., 2:6] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    table[..., 6:] = -9.0
    table[..., END] = -9.0
    base = {"beam": 1, "sample": True, "min_length": 1, "max_length": 1}

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
    "bad",
    [
        *({"beam": 0}, {"top_p": 0.0}, {"min_length": 30}, {"temperature": 0}, {"sample": True}),
        *({"seed": -1}, {"length_penalty": math.nan}, {"beam_groups": 2}, {"diversity": 0}),
    ],
)
def test_options_out_of_range_are_named(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        DecodingOptions(**bad)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature": 50}, "temperature: has no effect without sample"),
        ({"top_k": 5}, "top_k: has no effect without sample"),
        ({"beam": 1, "top_p": 0.5}, "top_p: has no effect without sample"),
        ({"seed": 0}, "seed: has no effect without sample"),
        ({"beam": 1, "length_penalty": 0}, "length_penalty: has no effect without a beam of 2 or"),
        ({"beam": 1, "sample": True, "length_penalty": 1}, "length_penalty: has no effect without"),
        ({"beam": 1, "sample": True, "top_k": 1, "seed": 3}, "seed: has no effect without a top_k"),
        ({"max_length": 4, "no_repeat_ngram": 4}, "no_repeat_ngram: .* a max_length of 5 or more"),
        ({"beam": 4, "diversity": 1.0}, "diversity: has no effect without beam_groups of 2 or"),
        ({"beam": 4, "beam_groups": 2, "diversity": 1.0}, None),
        ({"length_penalty": 0.0, "beam": 2, "max_length": 3, "no_repeat_ngram": 2}, None),
        ({"sample": True, "beam": 1, "temperature": 1.0, "seed": 0, "top_k": 2}, None),
    ],
)
def test_options_without_effect_are_refused(given, message):
    options = DecodingOptions(**given)
    if message is None:
        check_effect(given, options)
        return
    with pytest.raises(UsageError, match=f"^{message}"):
        check_effect(given, options)


def captioner(architecture, seed):
    torch.manual_seed(seed)
    sizes = {"channels": 5, "vocabulary": 9, "embedding": 4, "hidden": 6}
    return build_captioner(architecture, **sizes).eval().double()


def pictures(batch=3):
    random = torch.Generator().manual_seed(7)
    return Grid.of(torch.randn(batch, 4, 5, generator=random, dtype=torch.float64), 2, 2)


def test_a_step_of_an_ensemble_is_the_mean_of_the_members_probabilities():
    parts = [captioner(name, seed) for seed, name in enumerate(CAPTIONERS)]
    doubling = torch.nn.Linear(5, 5, bias=False, dtype=torch.float64)
    doubling.weight.data = 2 * torch.eye(5, dtype=torch.float64)
    ensemble = Ensemble([(doubling if n % 2 else None, part) for n, part in enumerate(parts)])
    together = ensemble.start(pictures())
    twice = Grid.of(pictures().cells * 2, 2, 2)
    alone = [part.start(twice if n % 2 else pictures()) for n, part in enumerate(parts)]
    for word in ([1, 1, 1], [4, 5, 6], [0, 7, 2]):
        tokens = torch.tensor(word)
        logits, together, gaze = ensemble.step(tokens, together)
        steps = [part.step(tokens, state) for part, state in zip(parts, alone, strict=True)]
        alone = [state for _, state, _ in steps]
        expected = sum(each.softmax(1) for each, _, _ in steps) / len(parts)
        assert torch.allclose(logits.double().exp(), expected, atol=1e-6)
        gazes = [each for _, _, each in steps if each is not None]
        assert len(gazes) > 2
        assert torch.allclose(gaze, sum(gazes) / len(gazes), atol=1e-12)


@pytest.mark.parametrize("beam", [1, 3])
def test_one_member_or_twice_the_same_is_that_member(beam):
    part, options = captioner("attention-lstm", 3), DecodingOptions(beam=beam, max_length=6)
    plain = decode(part, pictures(), options, start=1, end=2)
    for members in (1, 2):
        ensemble = Ensemble([(None, part)] * members)
        captions = decode(ensemble, pictures(), options, start=1, end=2)
        assert [c.tokens for c in captions] == [c.tokens for c in plain]
        probabilities = [c.log_prob for c in plain]
        assert [c.log_prob for c in captions] == pytest.approx(probabilities, abs=1e-5)

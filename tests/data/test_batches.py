"""Batches: every text of every picture, drawn by seed, epoch and picture alone."""

import gc
from collections import Counter
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from gazetell.data.answers import AnswerVocabulary
from gazetell.data.batches import CaptionData, QuestionData
from gazetell.data.records import CaptionRecord, QuestionRecord
from gazetell.data.text import Tokenizer

FIRST = ("a", "a b", "a b c d e", "b c", "c d e")
TEXTS = [FIRST, ("e d c b", "b"), ("c " * 7 + "c", "a e", "d"), (), ("b a",)]
WORDS = Tokenizer.train(["a b c d e"], min_frequency=1)
ANSWERS = AnswerVocabulary(["red", "blue", "yes", "no"])


class Numbers:
    """A source whose pictures are their numbers from 1, negative if mirrored."""

    def __init__(self):
        self.asked = []

    def load(self, names, mirrored, crops=None):
        self.asked += names
        self.crops = crops
        numbers = [int(name.removesuffix(".png")) + 1 for name in names]
        return torch.tensor([-n if m else n for n, m in zip(numbers, mirrored, strict=True)])


def captions(texts=TEXTS, **options):
    records = [CaptionRecord(f"{n}", f"{n}.png", tuple(t), "train") for n, t in enumerate(texts)]
    return CaptionData(records, WORDS, Numbers(), **options)


def questions(texts=TEXTS, **options):
    """The same texts as questions, several of a picture; the last of them comes first."""
    rows = [(n, text) for n, group in enumerate(texts) for text in group or ("d",)]
    records = []
    for i, (n, text) in enumerate(rows):
        records.append(QuestionRecord(str(i), f"{n}.png", text, ("red", "no"), "train"))
    return QuestionData(records, WORDS, ANSWERS, Numbers(), **options)


BOTH = pytest.mark.parametrize("data", [captions, questions])


def said(batch):
    """(picture, text) of each row."""
    rows = zip(batch.owner.tolist(), batch.tokens.tolist(), strict=True)
    return [(abs(int(batch.pictures[owner])) - 1, WORDS.decode(ids)) for owner, ids in rows]


def everything(data, order=range(5)):
    return [part.tolist() for part in data.__getitems__(list(order))]


@BOTH
def test_a_batch_holds_every_text_of_its_pictures(data):
    batch = data().__getitems__([2, 0, 4])
    assert batch.pictures.tolist() == [3, 1, 5]
    assert sorted(said(batch)) == sorted((n, text) for n in (2, 0, 4) for text in TEXTS[n])
    assert batch.tokens.dtype == batch.owner.dtype == batch.lengths.dtype == torch.long


@BOTH
def test_draws_depend_on_seed_and_epoch_alone(data):
    options = {"per_image": 2, "flip": 0.5}
    first = everything(data(seed=3, epoch=4, **options))
    used = data(seed=3, epoch=0, **options)
    everything(used)
    used.epoch = 4
    assert everything(used) == first
    assert len({str(everything(data(seed=3, epoch=n, **options))) for n in range(6)}) > 3
    assert len({str(everything(data(seed=n, epoch=4, **options))) for n in range(6)}) > 3


@BOTH
def test_draws_of_a_picture_do_not_depend_on_its_batch(data):
    drawing = data(per_image=1, flip=0.5, crop=0.5, seed=1, epoch=2)
    together = drawing.__getitems__([0, 1, 2, 4])
    crops = drawing.source.crops
    assert len(set(crops)) == 4
    for index in (4, 2, 1, 0):
        alone = drawing[index]
        assert drawing.source.crops == [crops[min(index, 3)]]
        assert alone.pictures[0] in together.pictures
        assert said(alone)[0] in said(together)


@BOTH
@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_so_many_texts_of_a_picture(data, wanted):
    drawn = set()
    for epoch in range(40):
        rows = said(data(per_image=wanted, epoch=epoch).__getitems__([0, 1, 4]))
        for n in (0, 1, 4):
            own = [text for picture, text in rows if picture == n]
            assert len(own) == min(wanted, len(TEXTS[n]))
            assert len(set(own)) == len(own)  # none twice
            drawn |= {(n, text) for text in own}
    assert drawn == {(n, text) for n in (0, 1, 4) for text in TEXTS[n]}  # all get their turn


@BOTH
@pytest.mark.parametrize("flip", [0.0, 0.5, 1.0])
def test_mirrored_pictures(data, flip):
    batches = [data(flip=flip, epoch=epoch).__getitems__(range(5)) for epoch in range(100)]
    mirrored = [picture < 0 for batch in batches for picture in batch.pictures]
    assert np.mean(mirrored) == pytest.approx(flip, abs=0.08)


@BOTH
def test_torchs_loader_asks_for_whole_batches(data):
    loader = DataLoader(data(), 2, collate_fn=lambda batch: batch)
    assert [batch.pictures.tolist() for batch in loader] == [[1, 2], [3, 4], [5]]
    assert len(data()) == 5


@BOTH
def test_what_is_cut_and_what_has_no_word(data, caplog):
    longest = {"max_length": 3} if data is captions else {"max_question": 3}
    rows = said(data(**longest).__getitems__(range(3)))
    assert {(0, "a b c"), (1, "e d c"), (2, "c c c")} <= set(rows)
    batch = data([["?!", "a"], ["..."]]).__getitems__([0, 1])
    assert sorted(said(batch)) == [(0, ""), (0, "a"), (1, "")]
    assert (batch.tokens == WORDS.unk).sum() == 2  # one unknown word each
    what = data.__name__
    told = f"{what} without a word count as one unknown word: 2 (first: '?!')"
    assert caplog.messages == [told]


def objects_of(data) -> int:
    """How many Python objects an object holds, classes and what they hold left out."""
    seen, todo = {id(data)}, [data]
    while todo:
        for held in gc.get_referents(todo.pop()):
            if id(held) not in seen and not isinstance(held, type | ModuleType):
                seen.add(id(held))
                todo.append(held)
    return len(seen)


@BOTH
def test_no_python_object_for_each_text_or_picture(data):
    """A worker process would copy each when it counts a reference to it."""
    few, many = (data(TEXTS * times) for times in (1, 200))
    assert (len(few), len(many)) == (5, 1000)
    few.source = many.source = None
    assert objects_of(few) == objects_of(many)


def test_captions_are_sorted_by_falling_length():
    batch = captions().__getitems__([0, 1, 2, 3, 4])
    assert batch.records.tolist() == [0, 1, 2, 3, 4]
    lengths = batch.lengths.tolist()
    assert lengths == sorted(lengths, reverse=True)
    # Steps of a caption: its words and <end>.
    assert lengths == [len(text.split()) + 1 for _, text in said(batch)]
    assert batch.tokens.shape == (11, 8 + 2)
    for ids, length in zip(batch.tokens.tolist(), lengths, strict=True):
        assert (ids[0], ids[length]) == (WORDS.start, WORDS.end)
        assert set(ids[length + 1 :]) <= {WORDS.pad}
        assert WORDS.pad not in ids[: length + 1]


def test_a_picture_without_captions_is_only_encoded():
    batch = captions().__getitems__([3, 4])
    assert (batch.pictures.tolist(), batch.owner.tolist()) == ([4, 5], [1])
    batch = captions()[3]
    assert batch.tokens.shape == (0, 2)
    assert batch.lengths.shape == batch.owner.shape == (0,)


some_questions = st.lists(st.sampled_from("abcde"), min_size=1, max_size=6).map(" ".join)
some_answers = st.lists(st.sampled_from(["red", "yes", "2"]), min_size=1, max_size=10)
drawn = st.lists(st.tuples(st.integers(1, 5), some_questions, some_answers), min_size=1)


@settings(max_examples=40, deadline=None)
@given(drawn, st.sampled_from(["hard", "soft", "votes"]), st.integers(1, 4), st.integers(1, 4))
def test_each_question_stands_once_beside_its_picture(rows, targets, size, longest):
    records = [
        QuestionRecord(str(i), str(image), text, tuple(answers), "train")
        for i, (image, text, answers) in enumerate(rows)
    ]
    data = QuestionData(records, WORDS, ANSWERS, Numbers(), targets=targets, max_question=longest)
    assert len(data) == len({record.image for record in records})
    seen = []
    for begin in range(0, len(data), size):
        batch = data.__getitems__(list(range(len(data)))[begin : begin + size])
        assert batch.tokens.shape == (len(batch.records), int(batch.lengths.max()))
        assert batch.targets.dtype == torch.float32
        for number, owner, tokens, length, target in zip(
            *(tensor.tolist() for tensor in batch[1:]), strict=True
        ):
            record = records[number]
            assert batch.pictures[owner].item() == int(record.image) + 1
            words = record.question.split()[:longest]
            assert [WORDS.vocabulary[i] for i in tokens[:length]] == words
            assert set(tokens[length:]) <= {WORDS.pad}
            expected = ANSWERS.target(record.answers, targets)
            assert target == pytest.approx([expected.get(a, 0.0) for a in range(4)])
            seen.append(number)
    assert Counter(seen) == Counter(range(len(records)))
    assert Counter(data.source.asked) == Counter({r.image for r in records})  # each read once

"""Batches of questions: each question once, beside its own picture."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gazetell.data.answers import AnswerVocabulary
from gazetell.data.batches import QuestionData, pad_rows
from gazetell.data.records import QuestionRecord
from gazetell.data.text import Question, Tokenizer, read_question
from gazetell.errors import UsageError

WORDS = ("what", "colour", "is", "the", "ball", "left", "of", "it")
ANSWERS = ("red", "blue", "yes", "no", "2")


class Numbered:
    """A source whose picture is its number; negative where it is mirrored."""

    def __init__(self):
        self.asked = []

    def load(self, names, mirrored):
        self.asked += names
        numbers = [-int(name) if m else int(name) for name, m in zip(names, mirrored, strict=True)]
        return torch.tensor(numbers).float().view(-1, 1, 1)


def record(number, image, question, answers=("red",)):
    return QuestionRecord(str(number), str(image), question, tuple(answers), "train")


def tokenizer():
    return Tokenizer.train([" ".join(WORDS)], min_frequency=1)


def data(records, **options):
    answers = AnswerVocabulary(ANSWERS[:4])  # "2" is outside
    return QuestionData(records, tokenizer(), answers, Numbered(), **options)


questions = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
some_answers = st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=10)
drawn = st.lists(st.tuples(st.integers(1, 5), questions, some_answers), min_size=1, max_size=14)


@settings(max_examples=40, deadline=None)
@given(drawn, st.sampled_from(["hard", "soft", "votes"]), st.integers(1, 4), st.integers(1, 4))
def test_each_question_stands_once_beside_its_picture(rows, kind, size, longest):
    records = [record(n, *row) for n, row in enumerate(rows)]
    found = data(records, targets=kind, max_question=longest)
    assert len(found) == len({r.image for r in records})
    seen = []
    for begin in range(0, len(found), size):
        indices = list(range(len(found)))[begin : begin + size]
        batch = found.__getitems__(indices)
        assert len(batch.pictures) == len(indices)
        assert batch.tokens.shape == (len(batch.records), int(batch.lengths.max()))
        assert batch.targets.shape == (len(batch.records), 4)
        assert batch.targets.dtype == torch.float32
        rows_of = zip(*(tensor.tolist() for tensor in batch[1:]), strict=True)
        for number, owner, tokens, length, target in rows_of:
            one = records[number]
            assert batch.pictures[owner].item() == int(one.image)
            words = one.question.split()[:longest]
            assert length == len(words)
            assert found_words(tokens[:length]) == words
            assert set(tokens[length:]) <= {Tokenizer.pad}
            expected = found.answers.target(one.answers, kind)
            assert target == pytest.approx([expected.get(a, 0.0) for a in range(4)])
            seen.append(number)
    assert Counter(seen) == Counter(range(len(records)))
    assert Counter(found.source.asked) == Counter({r.image for r in records})  # each read once


def found_words(ids):
    return [tokenizer().vocabulary[number] for number in ids]


def test_a_batch_by_hand():
    records = [
        record(0, 7, "What is it?", ["red"]),
        record(1, 8, "is THE ball left", ["2"]),
        record(2, 7, "is purple it", ["blue", "blue", "no"]),
    ]
    batch = data(records).__getitems__([1, 0])
    assert batch.pictures.flatten().tolist() == [8, 7]
    assert batch.records.tolist() == [1, 0, 2]
    assert batch.owner.tolist() == [0, 1, 1]
    assert batch.lengths.tolist() == [4, 3, 3]
    assert batch.tokens[1:, 3].tolist() == [Tokenizer.pad] * 2
    assert batch.tokens[2, 1].item() == Tokenizer.unk
    assert batch.targets.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    alone = data(records)[0]
    assert alone.records.tolist() == [0, 2]
    assert alone.tokens.shape == (2, 3)  # padded no further than this batch needs


def test_a_question_without_words_is_one_unknown_word():
    batch = data([record(0, 1, "?!"), record(1, 1, "is it")])[0]
    assert batch.lengths.tolist() == [1, 2]
    assert batch.tokens[0].tolist() == [Tokenizer.unk, Tokenizer.pad]


def mirrored(records, indices, **options):
    pictures = data(records, **options).__getitems__(indices).pictures.flatten()
    return dict(zip(indices, (pictures < 0).tolist(), strict=True))


def test_mirroring_depends_on_seed_epoch_and_picture_alone():
    records = [record(n, n + 1, "is it") for n in range(40)]
    everything = list(range(40))
    options = {"flip": 0.5, "seed": 3, "epoch": 2}
    drawn = mirrored(records, everything, **options)
    assert 8 < sum(drawn.values()) < 32
    assert mirrored(records, everything[::-1], **options) == drawn
    assert mirrored(records, [31], **options) == {31: drawn[31]}
    more = [record(99, 5, "what is it"), *records[::-1]][::-1]  # a further question of one picture
    assert mirrored(more, everything, **options) == drawn
    assert mirrored(records, everything, **options | {"seed": 4}) != drawn
    assert mirrored(records, everything, **options | {"epoch": 3}) != drawn
    assert not any(mirrored(records, everything, flip=0.0).values())
    assert all(mirrored(records, everything, flip=1.0).values())


def test_the_epoch_may_be_set_later():
    records = [record(n, n + 1, "is it") for n in range(40)]
    later = data(records, flip=0.5)
    later.epoch = 6
    pictures = later.__getitems__(range(40)).pictures
    assert torch.equal(pictures, data(records, flip=0.5, epoch=6).__getitems__(range(40)).pictures)


# -- questions as they are asked -------------------------------------------------------------


def test_the_words_of_a_question():
    words = tokenizer()
    known = words.encode("what is it")[1:-1]
    assert read_question(words, "What is it?", 30) == Question("What is it?", known, [])
    assert read_question(words, "What is it?", 2) == Question("What is it?", known[:2], [], 1)
    asked = read_question(words, "Qué es? qué is", 3)
    assert (asked.ids[:2], asked.unknown, asked.cut) == ([words.unk] * 2, ["Qué", "es", "qué"], 1)
    assert read_question(words, "is " * 5_000 + "es", 30).cut == 4_971
    assert read_question(words, "is " * 5_000 + "es", 30).unknown == []  # not read
    assert len(read_question(words, "x" * 10_000, 30).ids) == 1


@pytest.mark.parametrize("question", ["", "  \n", "?!...", "\u200b"])
def test_a_question_without_words_is_refused(question):
    with pytest.raises(UsageError, match="has no words"):
        read_question(tokenizer(), question, 30)


def test_a_question_that_is_no_text_is_refused():
    with pytest.raises(UsageError, match="question 7: expected text"):
        read_question(tokenizer(), 7, 30)


def test_padding():
    tokens, lengths = pad_rows([[5], [6, 7, 8], [9, 4]], pad=0)
    assert tokens.tolist() == [[5, 0, 0], [6, 7, 8], [9, 4, 0]]
    assert lengths.tolist() == [1, 3, 2]
    assert tokens.dtype == lengths.dtype == torch.int64
    assert np.array_equal(pad_rows([[5]], pad=3)[0], [[5]])

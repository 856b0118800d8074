import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gazetell.data.text import Tokenizer
from gazetell.data.vectors import Word2VecOptions, read_vectors, train_word2vec, write_vectors
from gazetell.errors import UsageError

ANIMALS, VEHICLES = ["dog", "cat", "horse"], ["car", "bus", "truck"]
CAPTIONS = [
    *(f"a hungry {word} eats grass in the green field" for word in ANIMALS for _ in range(60)),
    *(f"one {word} sleeps on soft straw" for word in ANIMALS for _ in range(60)),
    *(f"people drive this {word} down that busy road" for word in VEHICLES for _ in range(60)),
    *(f"parked red {word} with broken wheels" for word in VEHICLES for _ in range(60)),
    "an unheard-of zebra",
]
SMALL = Word2VecOptions(size=16, epochs=4, window=3)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(CAPTIONS, min_frequency=5)


@pytest.mark.parametrize("model", ["skipgram", "cbow"])
def test_words_of_the_same_contexts_are_near(tokenizer, model):
    options = Word2VecOptions(model=model, size=24, epochs=15, window=3)
    words, matrix, _ = train_word2vec(CAPTIONS, tokenizer, options)
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    vector = dict(zip(words, unit, strict=True))
    for own, others in ((ANIMALS, VEHICLES), (VEHICLES, ANIMALS)):
        for word in own:
            near = [vector[word] @ vector[other] for other in own if other != word]
            far = [vector[word] @ vector[other] for other in others]
            assert min(near) > max(far) + 0.1


def test_the_words_are_those_of_the_tokenizer(tokenizer):
    words, matrix, running = train_word2vec(CAPTIONS, tokenizer, SMALL)
    # All but <pad>, which no caption has; "zebra" is an <unk>.
    assert words == list(tokenizer.vocabulary[1:])
    assert words[:3] == ["<start>", "<end>", "<unk>"]
    assert matrix.shape == (len(words), 16)
    assert matrix.dtype == np.float32
    assert np.isfinite(matrix).all()
    assert running == sum(len(caption.split()) for caption in CAPTIONS)


def test_a_word_that_does_not_occur_has_no_vector(tokenizer):
    words, _, _ = train_word2vec(["a dog", "a cat"], tokenizer, SMALL)
    assert words == [
        w for w in tokenizer.vocabulary if w in ("<start>", "<end>", "a", *ANIMALS[:2])
    ]


def test_the_seed_alone_decides(tokenizer, tmp_path):
    def file(name, seed):
        options = Word2VecOptions(size=16, epochs=2, seed=seed)
        words, matrix, _ = train_word2vec(CAPTIONS, tokenizer, options)
        write_vectors(tmp_path / name, words, matrix)
        return (tmp_path / name).read_bytes()

    assert file("a", 0) == file("b", 0)
    assert file("a", 0) != file("c", 1)


def test_the_same_in_each_process(tokenizer, tmp_path):
    """Python's own hash of a word differs from process to process."""
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from test_word2vec import CAPTIONS, SMALL, Tokenizer, train_word2vec, write_vectors\n"
        "tokenizer = Tokenizer.train(CAPTIONS, min_frequency=5)\n"
        "write_vectors(sys.argv[1], *train_word2vec(CAPTIONS, tokenizer, SMALL)[:2])"
    )
    path = tmp_path / "v.txt"
    here = Path(__file__).parent
    subprocess.run([sys.executable, "-c", code, str(path), str(here)], check=True)
    words, matrix, _ = train_word2vec(CAPTIONS, tokenizer, SMALL)
    found = read_vectors(path, words).found
    np.testing.assert_array_equal(np.stack([found[word] for word in words]), matrix)


def test_gensim_is_silent(tokenizer, capfd, caplog):
    caplog.set_level(logging.INFO)  # as a program that logs its own progress
    train_word2vec(CAPTIONS[:20], tokenizer, SMALL)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_gensim_is_missing(tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(UsageError, match=r"gensim .*: pip install 'gazetell\[vectors\]'"):
        train_word2vec(CAPTIONS, tokenizer, SMALL)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"size": 0}, "size is 0; expected at least 1"),
        ({"epochs": 0}, "epochs is 0; expected at least 1"),
        ({"window": -1}, "window is -1; expected at least 1"),
        ({"seed": -1}, "seed is -1; expected 0 to 4294967295"),
        ({"seed": 2**32}, "seed is 4294967296; expected"),
        ({"model": "glove"}, "model is 'glove'; expected 'skipgram' or 'cbow'"),
    ],
)
def test_options_out_of_range(option, message):
    with pytest.raises(UsageError) as error:
        Word2VecOptions(**option)
    assert message in str(error.value)

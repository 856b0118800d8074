"""Word vectors, read and trained. The independent reference is gensim's own reader and writer."""

import gzip
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gazetell.data.text import Tokenizer
from gazetell.data.vectors import (
    coverage,
    embedding_matrix,
    read_vectors,
    train_word2vec,
    vectors_for,
    write_vectors,
)
from gazetell.errors import DataError, UsageError, WriteError

GLOVE = "the 0.5 -1 2e-1\n, 1 2 3\n. . . 4 5 6\ndog 7 8 9\nat name@domain.com 1 1 1\n"
NAMED = {"the": [0.5, -1, 0.2], ",": [1, 2, 3], ". . .": [4, 5, 6], "at name@domain.com": [1, 1, 1]}


@pytest.fixture
def file(tmp_path):
    """Write a file of vectors; give its path."""

    def write(content, name="vectors.txt"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def as_lists(vectors):
    return {word: np.round(vector.astype(float), 6).tolist() for word, vector in vectors.items()}


def saved_by_gensim(path, words, matrix, binary=False):
    from gensim.models import KeyedVectors  # takes a second

    keyed = KeyedVectors(matrix.shape[1])
    keyed.add_vectors(words, matrix)
    keyed.save_word2vec_format(str(path), binary=binary)
    return path


@pytest.mark.parametrize(
    "content",
    [
        GLOVE,
        "5 3\n" + GLOVE,
        "5 3\n" + GLOVE.replace("\n", " \n"),  # fastText ends each line with a blank
        GLOVE.replace("\n", "\r\n") + "\r\n",
        "\ufeff5 3\n" + GLOVE.rstrip(),
        "5\t3\n" + GLOVE.replace(" ", "\t").replace(".\t.\t.", ". . .").replace("at\t", "at "),
    ],
    ids=["glove", "word2vec", "fasttext", "windows", "byte-order-mark", "tabs"],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_formats(file, content, zipped):
    data = gzip.compress(content.encode()) if zipped else content
    # The content tells what it is, whatever the name says.
    vectors = read_vectors(file(data, "v.txt" if zipped else "v.gz"), [*NAMED, "cat", "name"])
    assert (vectors.size, vectors.total) == (3, 5)
    assert as_lists(vectors.found) == NAMED
    assert all(v.dtype == np.float32 and v.shape == (3,) for v in vectors.found.values())


def test_words_are_bytes_not_lines(file):
    """A word may hold what Python takes for a line break or a blank, or be no UTF-8."""
    content = "a\u0085b 1 2\nc\u00a0d 3 4\n\u2028 5 6\n".encode() + b"\xff\xfe 7 8\ne 9 10\n"
    vectors = read_vectors(file(content), ["a\u0085b", "c\u00a0d", "\u2028", "e"])
    assert vectors.total == 5
    assert [v[0] for v in vectors.found.values()] == [1, 3, 5, 9]


def test_the_first_of_equal_words_counts(file, caplog):
    path = file("a 1 2\nb 3 4\na 5 6\nb 7 8\n")
    assert as_lists(read_vectors(path, ["a"]).found) == {"a": [1, 2]}
    assert caplog.messages == [f"{path}: words that occur twice, of which the first counts: 1"]


CASED = "Paris 1 0\nPARIS 2 0\nparis 3 0\nROME 4 0\nRome 5 0\nÉcole 6 0\nİ 7 0\n"


def test_lower_case_comes_second(file):
    words = ["paris", "rome", "e\u0301cole", "école"]
    either = read_vectors(file(CASED), words)
    assert as_lists(either.found) == {"paris": [3, 0], "rome": [4, 0], "école": [6, 0]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "v.txt: is empty; expected a word and its numbers on each line"),
        ("the dog runs\n", "v.txt:1: expected a word and its numbers"),
        ("a 1 2\n\nb 1\n", "v.txt:3: expected a word and 2 numbers, found 1"),
        ("a 1 2\nz 1\n", "v.txt:2: expected a word and 2 numbers, found 1"),
        ("a 1 2\nz 1 2 3\n", "v.txt:2: expected a word and 2 numbers, found 3"),
        ("2 2\na 1 2\nb 1 2 3\n", "v.txt:3: expected a word and 2 numbers, found 3"),
        ("a 1 x 3\nb 1 2 3\n", "v.txt:2: expected a word and 1 numbers, found 3"),
        ("a 1 2\nb 1 2,5\n", "v.txt:2: expected a word and 2 finite numbers"),
        ("a 1 2\nb 1  2\nb 1 \n", "v.txt:3: expected a word and 2 numbers, found 1"),
        ("a 1 2\nb nan 2\n", "v.txt:2: expected a word and 2 finite numbers"),
        ("a 1 2\nb 1 -inf\n", "v.txt:2: expected a word and 2 finite numbers"),
        ("a 1 2\nb 1 1e39\n", "v.txt:2: expected a word and 2 finite numbers"),
        ("a 1 2\nnew york x 2\n", "v.txt:2: expected a word and 2 numbers, found 1"),
        ("3 2\na 1 2\nb 3 4\n", "v.txt: holds 2 words, but line 1 says 3; is it truncated?"),
        ("4 2\n", "v.txt: holds 0 words, but line 1 says 4"),
        (b"\x89PNG\r\n\x1a\n 1 2\x00 3 4\n", "v.txt:1: expected a word and its numbers"),
        (b"\x93NUMPY\x01 1 2\n", "v.txt: is not text; expected word vectors as text"),
        (b"PK\x03\x04glove.6B.50d.txt", "v.txt: is a zip archive; unpack it"),
        (gzip.compress(GLOVE.encode(), mtime=0)[:40], "v.txt: is a truncated or damaged gzip file"),
    ],
)
def test_malformed_files(file, content, message):
    with pytest.raises(DataError) as error:
        read_vectors(file(content, "v.txt"), ["a", "b", "the"])
    assert message in str(error.value)


def test_binary_word2vec(tmp_path):
    matrix = np.random.default_rng(0).normal(size=(20, 50)).astype(np.float32)
    words = [f"word{i}" for i in range(20)]
    path = saved_by_gensim(tmp_path / "v.bin", words, matrix, binary=True)
    with pytest.raises(DataError, match="is the binary word2vec format; expected word vectors as"):
        read_vectors(path, words)


def test_reads_what_gensim_writes(tmp_path):
    matrix = np.random.default_rng(1).normal(size=(30, 7)).astype(np.float32)
    words = [f"w{i}" for i in range(29)] + ["naïve"]
    vectors = read_vectors(saved_by_gensim(tmp_path / "v.txt", words, matrix), words[10:])
    assert vectors.total == 30
    assert list(vectors.found) == words[10:]
    np.testing.assert_array_equal(np.stack([*vectors.found.values()]), matrix[10:])


@pytest.mark.parametrize("name", ["v.txt", "v.txt.gz"])
def test_gensim_reads_what_is_written(tmp_path, name):
    from gensim.models import KeyedVectors

    matrix = np.random.default_rng(2).normal(size=(4, 6)).astype(np.float32)
    words = ["<unk>", "don't", "café", "🐕"]
    write_vectors(tmp_path / name, words, matrix)
    keyed = KeyedVectors.load_word2vec_format(str(tmp_path / name))
    assert keyed.index_to_key == words
    np.testing.assert_array_equal(keyed.vectors, matrix)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_gzip_by_name_and_always_the_same(tmp_path):
    for name in ("a.gz", "b.gz", "c.txt"):
        write_vectors(tmp_path / name, ["x"], np.ones((1, 2), np.float32))
    one, other, plain = ((tmp_path / name).read_bytes() for name in ("a.gz", "b.gz", "c.txt"))
    assert one == other
    assert gzip.decompress(one) == plain == b"1 2\nx 1 1\n"


def test_nothing_half_written(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("old")
    with pytest.raises(ValueError, match="longer"):
        write_vectors(path, ["a"], np.ones((2, 2), np.float32))
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]
    with pytest.raises(WriteError, match="cannot be written"):
        write_vectors(path / "inside.txt", ["a"], np.ones((1, 2), np.float32))


@settings(max_examples=40, deadline=None, suppress_health_check=[*HealthCheck])
@given(
    matrix=arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 5)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    zipped=st.booleans(),
)
def test_numbers_come_back_as_they_were(tmp_path, matrix, zipped):
    path = tmp_path / ("v.gz" if zipped else "v.txt")
    words = ["a", "b c", "-", "nan"][: len(matrix)]
    write_vectors(path, words, matrix)
    vectors = read_vectors(path, words)
    assert (vectors.size, vectors.total) == (matrix.shape[1], len(matrix))
    for word, row in zip(words, matrix, strict=True):
        assert vectors.found[word].tobytes() == row.tobytes()


CAPTIONS = ["a dog and a cat", "a dog and a bird", "a dog", "a zebra runs", "a cat runs"]


@pytest.fixture
def tokenizer():
    """Words by frequency: a, dog, and/cat/runs; bird and zebra are unknown."""
    return Tokenizer.train(CAPTIONS, min_frequency=2)


def test_embedding_matrix(file, tokenizer):
    path = file("<unk> 9 9 9\na 1 2 3\nCat -4 5 6\nzebra 1 1 1\n")
    vectors = vectors_for(path, tokenizer)
    matrix, found = embedding_matrix(vectors, tokenizer, seed=3)
    vocabulary = tokenizer.vocabulary
    assert matrix.shape == (len(vocabulary), 3)
    assert matrix.dtype == np.float32
    assert {vocabulary[i] for i in np.flatnonzero(found)} == {"<unk>", "a", "cat"}
    assert matrix[vocabulary.index("a")].tolist() == [1, 2, 3]
    assert matrix[vocabulary.index("cat")].tolist() == [-4, 5, 6]
    assert matrix[tokenizer.unk].tolist() == [9, 9, 9]
    again, _ = embedding_matrix(vectors, tokenizer, seed=3)
    np.testing.assert_array_equal(matrix, again)
    other, _ = embedding_matrix(vectors, tokenizer, seed=4)
    assert (np.any(matrix != other, axis=1) == ~found).all()


def test_words_as_written_take_the_vectors_of_plain_ones(file):
    tokenizer = Tokenizer.train(["A dog, a Cat (no)"], min_frequency=1, keep="all")
    vectors = vectors_for(file("a 1 2\nCat 3 4\ncat 5 6\n, 7 8\nbird 9 9\n"), tokenizer)
    assert as_lists(vectors.found) == {"A": [1, 2], "a": [1, 2], "Cat": [3, 4], ", ": [7, 8]}


def test_rows_not_found_are_as_loud_as_those_found(tmp_path):
    words = [f"{a}{b}" for a in "abcdefghij" for b in "abcdefghijklmnopqrst"]
    tokenizer = Tokenizer.train(words, min_frequency=1)
    known = np.random.default_rng(0).normal(0, 0.3, (100, 50)).astype(np.float32)
    write_vectors(tmp_path / "v.txt", words[:100], known)
    matrix, found = embedding_matrix(vectors_for(tmp_path / "v.txt", tokenizer), tokenizer, 0)
    assert found.sum() == 100
    drawn = matrix[~found]
    assert drawn.shape == (104, 50)
    assert drawn.std() == pytest.approx(known.std(), rel=0.05)
    assert drawn.mean() == pytest.approx(0, abs=0.02)
    assert np.abs(drawn).sum(axis=1).min() > 0


def test_no_word_of_the_vocabulary(file, tokenizer):
    with pytest.raises(DataError, match=r"v\.txt: has none of the 5 words of the vocabulary"):
        vectors_for(file("<unk> 1 2\nhund 3 4\n", "v.txt"), tokenizer)


def test_coverage(file, tokenizer):
    vectors = vectors_for(file("a 1 2\ncat 3 4\nx 5 6\n", "v.txt"), tokenizer)
    # Counted by hand: 18 words, of which 7 are "a", 2 "cat" and 2 unknown.
    assert coverage(vectors, tokenizer, CAPTIONS).splitlines() == [
        "v.txt: 3 words of 2 numbers; it has 2 of the 5 words of the vocabulary (40.0%) "
        "and 50.0% of the running words",
        "without a vector: dog (3), and (2), runs (2)",
    ]
    content = "".join(f"{word} 1 2\n" for word in tokenizer.vocabulary)
    report = coverage(vectors_for(file(content), tokenizer), tokenizer, CAPTIONS)
    assert report.endswith("of the vocabulary (100.0%) and 100.0% of the running words")


ANIMALS, VEHICLES = ["dog", "cat", "horse"], ["car", "bus", "truck"]
CORPUS = [
    *(f"a hungry {word} eats grass in the green field" for word in ANIMALS for _ in range(60)),
    *(f"one {word} sleeps on soft straw" for word in ANIMALS for _ in range(60)),
    *(f"people drive this {word} down that busy road" for word in VEHICLES for _ in range(60)),
    *(f"parked red {word} with broken wheels" for word in VEHICLES for _ in range(60)),
    "an unheard-of zebra",
]
SMALL = {"size": 16, "epochs": 4, "window": 3}


@pytest.fixture(scope="module")
def corpus_words():
    return Tokenizer.train(CORPUS, min_frequency=5)


@pytest.mark.parametrize("model", ["skipgram", "cbow"])
def test_words_of_the_same_contexts_are_near(corpus_words, model):
    options = {"model": model, "size": 24, "epochs": 15, "window": 3}
    words, matrix, _ = train_word2vec(CORPUS, corpus_words, **options)
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    vector = dict(zip(words, unit, strict=True))
    for own, others in ((ANIMALS, VEHICLES), (VEHICLES, ANIMALS)):
        alike, apart = (np.stack([vector[w] for w in other]) for other in (own, others))
        assert (alike @ alike.T).min() > (alike @ apart.T).max() + 0.1


def test_the_words_are_those_of_the_tokenizer(corpus_words):
    words, matrix, running = train_word2vec(CORPUS, corpus_words, **SMALL)
    # All but <pad>, which no caption has; "zebra" is an <unk>.
    assert words == list(corpus_words.vocabulary[1:])
    assert words[:3] == ["<start>", "<end>", "<unk>"]
    assert matrix.shape == (len(words), 16)
    assert matrix.dtype == np.float32
    assert np.isfinite(matrix).all()
    assert running == sum(len(caption.split()) for caption in CORPUS)


def test_the_same_in_each_process(corpus_words, tmp_path):
    """Python's own hash of a word differs from process to process."""
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from test_vectors import CORPUS, SMALL, Tokenizer, train_word2vec, write_vectors\n"
        "words = Tokenizer.train(CORPUS, min_frequency=5)\n"
        "write_vectors(sys.argv[1], *train_word2vec(CORPUS, words, **SMALL)[:2])"
    )
    path = tmp_path / "v.txt"
    here = Path(__file__).parent
    subprocess.run([sys.executable, "-c", code, str(path), str(here)], check=True)
    words, matrix, _ = train_word2vec(CORPUS, corpus_words, **SMALL)
    found = read_vectors(path, words).found
    np.testing.assert_array_equal(np.stack([found[word] for word in words]), matrix)
    assert not np.array_equal(train_word2vec(CORPUS, corpus_words, **SMALL, seed=1)[1], matrix)


def test_gensim_is_silent(corpus_words, capfd, caplog):
    caplog.set_level(logging.INFO)  # as a program that logs its own progress
    train_word2vec(CORPUS, corpus_words, **SMALL)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    train_word2vec(CORPUS[:20], corpus_words, **SMALL)
    assert caplog.messages == ["180 words of text are too few: the vectors stay close to random"]


def test_gensim_is_missing(corpus_words, monkeypatch):
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(UsageError, match=r"gensim .*: pip install gensim \(extra vectors\)"):
        train_word2vec(CORPUS, corpus_words, **SMALL)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"size": 0}, "size is 0; expected at least 1"),
        ({"seed": -1}, "seed is -1; expected 0 to 4294967295"),
        ({"model": "glove"}, "model is 'glove'; expected 'skipgram' or 'cbow'"),
    ],
)
def test_options_out_of_range(corpus_words, option, message):
    with pytest.raises(UsageError) as error:
        train_word2vec(CORPUS, corpus_words, **option)
    assert message in str(error.value)

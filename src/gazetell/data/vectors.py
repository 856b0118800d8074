"""Pretrained word vectors: text files read for the words of a tokenizer, or trained by word2vec.

Three formats that differ little, plain or gzip'd, one word a line with ``E`` numbers behind it::

    the 0.04656 0.21318 ...                 GloVe
    400000 300 / the 0.04656 0.21318 ...    word2vec and fastText: first how many words and E

A word may hold blanks (GloVe 840B has ". . ."), so a line is split from its right end. Files of
millions of words are streamed: only what is asked for is kept, and only its numbers are parsed; of
all other lines the number of fields is checked. gensim's own reader keeps the whole file, knows no
words with blanks and is an extra; training with vectors must work without it.

Training is gensim's, with negative sampling. Skip-gram predicts each neighbour ``c`` of a word
``w`` among five words ``n`` drawn at random, maximising ``log s(u_c . v_w) + sum_n log s(-u_n .
v_w)``; CBOW predicts ``w`` from the mean of its neighbours' ``v``. The rows ``v`` are the vectors.

References: Pennington et al. 2014, GloVe; Mikolov et al. 2013, arXiv:1301.3781 and
arXiv:1310.4546 (word2vec); Bojanowski et al. 2017, arXiv:1607.04606 (fastText).

Shapes: ``V`` vocabulary, ``E`` embedding.
"""

import gzip
import itertools
import logging
import os
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ..errors import DataError, UsageError
from ..files import atomic_path
from .text import SPECIAL, Tokenizer

Word2VecModel = Literal["skipgram", "cbow"]

HEADER = re.compile(rb"(\d+)[ \t]+(\d+)")
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
NAMED = 10  # how many missing words a report names
LEAST = 1000  # running words from which word2vec learns something

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WordVectors:
    """What a file of word vectors holds of the words that were asked for.

    Attributes:
        path: the file.
        size: E, numbers a word.
        found: the vector (E,) float32 of each word found, under the name it was asked for.
        total: words in the file.
    """

    path: Path
    size: int
    found: dict[str, np.ndarray]
    total: int


def read_vectors(path: str | os.PathLike[str], words: Iterable[str]) -> WordVectors:
    """Read the vectors of ``words`` from a text file of word vectors.

    Of a word that is there more than once the first vector counts: files are sorted by frequency.

    Args:
        path: GloVe, word2vec or fastText text, plain or gzip'd (told apart by content).
        words: the words to keep. One that the file does not have as it is takes the vector of
            the first word that equals it in lower case ("paris" that of "Paris").

    Raises:
        DataError: missing, empty, truncated or binary, or a malformed line (file:line).
    """
    wanted = {word.encode(): word for word in words}
    exact: dict[bytes, np.ndarray] = {}
    folded: dict[bytes, np.ndarray] = {}
    size = total = repeated = 0
    header = None
    for number, line in _lines(path):
        where = f"{path}:{number}"
        if not size:
            header = HEADER.fullmatch(line)
            size = int(header[2]) if header else _trailing_numbers(line)
            if not size:
                raise DataError(f"{where}: expected a word and its numbers, or the counts of both")
            if header:
                continue
        if not total and CONTROL.search(line):
            binary = "the binary word2vec format" if header else "not text"
            raise DataError(f"{path}: is {binary}; expected word vectors as text")
        total += 1
        word, numbers = _split(line, size, where)
        if word in wanted:
            repeated += word in exact
            exact.setdefault(word, _parse(numbers, size, where))
        elif (lower := _lower(word)) in wanted and lower not in folded:
            folded[lower] = _parse(numbers, size, where)
    if not size:
        raise DataError(f"{path}: is empty; expected a word and its numbers on each line")
    if header and total != int(header[1]):
        raise DataError(
            f"{path}: holds {total} words, but line 1 says {int(header[1])}; is it truncated?"
        )
    if repeated:
        logger.warning("%s: words that occur twice, of which the first counts: %d", path, repeated)
    found = {wanted[key]: vector for key, vector in (folded | exact).items()}
    return WordVectors(Path(path), size, found, total)


def vectors_for(path: str | os.PathLike[str], tokenizer: Tokenizer) -> WordVectors:
    """Read the vectors of a tokenizer's words, and of its special tokens if the file has them.

    Raises:
        DataError: as ``read_vectors``; or none of the words is in the file.
    """
    # Files of lower case have no "A"; a mark of punctuation has its blanks about it.
    plain = {word: word.strip().lower() for word in tokenizer.vocabulary}
    vectors = read_vectors(path, {**plain, **dict.fromkeys(plain.values())})
    rows = {word: vectors.found.get(word, vectors.found.get(plain[word])) for word in plain}
    found = {word: row for word, row in rows.items() if row is not None}
    vectors = replace(vectors, found=found)
    if not vectors.found.keys() - set(SPECIAL):
        raise DataError(
            f"{path}: has none of the {tokenizer.vocab_size - len(SPECIAL)} words of the "
            "vocabulary; expected vectors of the language of the captions"
        )
    return vectors


def embedding_matrix(
    vectors: WordVectors, tokenizer: Tokenizer, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first weights of an embedding: pretrained rows where there are, random ones elsewhere.

    Random rows, ``<pad>`` among them, are normal with mean 0 and the standard deviation of all the
    numbers found, so that no word is louder than others. A row's draw depends on the seed and
    its id alone, not on which other words were found, but for that common scale.

    Returns:
        The matrix (V, E) float32, and which rows were found (V,) bool.
    """
    vocabulary = tokenizer.vocabulary
    found = np.array([word in vectors.found for word in vocabulary])
    rows = np.random.default_rng(seed).standard_normal((len(vocabulary), vectors.size))
    if vectors.found:
        known = np.stack([vectors.found[word] for word in vocabulary if word in vectors.found])
        rows *= known.std(dtype=np.float64)
        rows[found] = known
    return rows.astype(np.float32), found


def coverage(vectors: WordVectors, tokenizer: Tokenizer, captions: Sequence[str] = ()) -> str:
    """How much of a vocabulary, and of the running words of captions, has a vector.

    A word outside the vocabulary is one ``<unk>``.

    Returns:
        One line, and a second one that names the most frequent words without a vector.
    """
    special, vocabulary = len(SPECIAL), tokenizer.vocabulary
    counts = Counter(itertools.chain.from_iterable(tokenizer.encode_batch(captions)))
    del counts[tokenizer.start], counts[tokenizer.end]
    # Ids go by frequency in training: the order where counts are equal or absent.
    missing = sorted(
        (i for i in range(special, len(vocabulary)) if vocabulary[i] not in vectors.found),
        key=lambda i: -counts[i],
    )
    words = len(vocabulary) - special
    found = words - len(missing)
    line = (
        f"{vectors.path.name}: {vectors.total} words of {vectors.size} numbers; it has {found} of "
        f"the {words} words of the vocabulary ({found / words:.1%})"
    )
    if counts:
        known = sum(n for i, n in counts.items() if vocabulary[i] in vectors.found)
        line += f" and {known / counts.total():.1%} of the running words"
    if not missing:
        return line
    names = (vocabulary[i] + (f" ({counts[i]})" if counts[i] else "") for i in missing[:NAMED])
    more = ", ..." if len(missing) > NAMED else ""
    return f"{line}\nwithout a vector: {', '.join(names)}{more}"


def write_vectors(path: str | os.PathLike[str], words: Sequence[str], matrix: np.ndarray) -> None:
    """Write vectors in the text format of word2vec, atomically; gzip'd if the name ends in .gz.

    Nine digits: a float32 comes back as it was. The same content gives the same bytes.

    Args:
        path: the file.
        words: V words, without line breaks.
        matrix: (V, E).

    Raises:
        WriteError: the file system refused.
    """
    count, size = matrix.shape
    row = " ".join(["%.9g"] * size)
    with atomic_path(path) as temporary, temporary.open("wb") as raw:
        zipped = Path(path).suffix == ".gz"
        # Neither the name nor the time goes into the archive: they would change its bytes.
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if zipped else raw as file:
            file.write(f"{count} {size}\n".encode())
            for word, vector in zip(words, matrix, strict=True):
                file.write(f"{word} {row % tuple(vector.tolist())}\n".encode())


def write_word2vec(
    path: str | os.PathLike[str], texts: Sequence[str], *, min_frequency: int, **options: Any
) -> tuple[int, int]:
    """Train word vectors on texts, with a tokenizer made of them, and write them.

    Args:
        path: the file, see ``write_vectors``.
        texts: see ``train_word2vec``.
        min_frequency: of the tokenizer.
        options: those of ``train_word2vec``.

    Returns:
        How many words have a vector, and how many running words the texts have.
    """
    tokenizer = Tokenizer.train(texts, min_frequency=min_frequency)
    words, matrix, running = train_word2vec(texts, tokenizer, **options)
    write_vectors(path, words, matrix)
    return len(words), running


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, line without its end) of each line that is not blank."""
    try:
        with open(path, "rb") as raw:
            magic = raw.peek(4)
            if magic.startswith(b"PK\x03\x04"):
                raise DataError(f"{path}: is a zip archive; unpack it and name the file inside")
            zipped = magic.startswith(b"\x1f\x8b")
            file: Iterable[bytes] = gzip.GzipFile(fileobj=raw) if zipped else raw
            # Bytes: in text some word would be a line break (U+0085) or not UTF-8.
            for number, line in enumerate(file, start=1):
                line = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).rstrip()
                if line:
                    yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: is a truncated or damaged gzip file ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _trailing_numbers(line: bytes) -> int:
    """E as the first line of a file without header tells it: the numbers at its end."""
    return sum(1 for _ in itertools.takewhile(_is_number, reversed(line.split()[1:])))


def _split(line: bytes, size: int, where: str) -> tuple[bytes, bytes]:
    """Word and numbers of a line."""
    if line.count(b" ") == size:  # nearly every line, and counting is cheaper than splitting
        word, _, numbers = line.partition(b" ")
        return word, numbers
    found = _trailing_numbers(line)
    if found != size:
        raise DataError(f"{where}: expected a word and {size} numbers, found {found}")
    word, *fields = line.rsplit(None, size)
    return word.strip(), b" ".join(fields)


def _parse(numbers: bytes, size: int, where: str) -> np.ndarray:
    """The vector (E,) of a line."""
    with np.errstate(over="ignore"):  # 1e39 becomes infinite, and is refused
        try:
            vector = np.array(numbers.split()).astype(np.float64).astype(np.float32)
        except ValueError:
            vector = np.array([np.nan])
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise DataError(f"{where}: expected a word and {size} finite numbers")
    return vector


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _lower(word: bytes) -> bytes:
    """A word as a tokenizer of lower case words has it."""
    try:
        return unicodedata.normalize("NFC", word.decode().lower()).encode()
    except UnicodeDecodeError:
        return word


def train_word2vec(
    captions: Sequence[str],
    tokenizer: Tokenizer,
    *,
    model: Word2VecModel = "skipgram",
    size: int = 256,
    epochs: int = 20,
    window: int = 5,
    seed: int = 0,
) -> tuple[list[str], np.ndarray, int]:
    """Train word vectors on captions; the same captions and options give the same bits.

    A caption is what the captioner will read: the ids of the tokenizer, ``<start>``, ``<end>`` and
    ``<unk>`` among them, so that these have vectors too.

    Args:
        captions: the training captions, never those of another split.
        tokenizer: made of the same captions; its words get vectors.
        model: "skipgram" (better on small corpora) or "cbow" (faster).
        size: E, numbers a word.
        epochs: passes over the captions.
        window: neighbours to each side, at most.
        seed: Random seed.

    Returns:
        The words that occur, in the order of their ids; their vectors (V, E) float32; and how
        many words the captions have together (special tokens but ``<unk>`` not counted).

    Raises:
        UsageError: an option out of range, or gensim is missing.
    """
    if model not in get_args(Word2VecModel):
        raise UsageError(f"model is {model!r}; expected 'skipgram' or 'cbow'")
    for name, value in (("size", size), ("epochs", epochs), ("window", window)):
        if value < 1:
            raise UsageError(f"{name} is {value}; expected at least 1")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed is {seed}; expected 0 to {2**32 - 1}")
    try:
        from gensim.models import Word2Vec
    except ImportError as error:
        said = f"word vectors are trained by gensim ({error})"
        raise UsageError(f"{said}: pip install gensim (extra vectors)") from error
    vocabulary = tokenizer.vocabulary
    corpus = [[vocabulary[i] for i in ids] for ids in tokenizer.encode_batch(captions)]
    gensim, level = logging.getLogger("gensim"), logging.getLogger("gensim").level
    gensim.setLevel(logging.ERROR)  # its advice is on settings that our user does not see
    try:
        vectors = Word2Vec(
            corpus,
            vector_size=size,
            window=window,
            epochs=epochs,
            sg=int(model == "skipgram"),
            seed=seed,
            min_count=1,  # the tokenizer has sorted out the rare words
            workers=1,  # several would race
            hashfxn=lambda word: zlib.crc32(word.encode()),  # Python's own differs in each process
        ).wv
    finally:
        gensim.setLevel(level)
    words = [word for word in vocabulary if word in vectors]
    running = sum(map(len, corpus)) - 2 * len(corpus)  # without <start> and <end>
    if running < LEAST:
        logger.warning("%d words of text are too few: the vectors stay close to random", running)
    return words, np.stack([vectors[word] for word in words]), running

"""Pretrained word vectors: text files, read for the words of a tokenizer.

Three formats that differ little, plain or gzip'd, one word a line with ``E`` numbers behind it::

    the 0.04656 0.21318 ...                 GloVe
    400000 300 / the 0.04656 0.21318 ...    word2vec and fastText: first how many words and E

A word may hold blanks (GloVe 840B has ". . ."), so a line is split from its right end. Files of
millions of words are streamed: only what is asked for is kept, and only its numbers are parsed; of
all other lines the number of fields is checked.

References: Pennington et al. 2014, GloVe; Mikolov et al. 2013, arXiv:1301.3781 (word2vec);
Bojanowski et al. 2017, arXiv:1607.04606 (fastText).

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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import DataError, UsageError
from ..files import atomic_path
from .text import SPECIAL, Tokenizer

__all__ = [
    "Coverage",
    "Word2VecModel",
    "Word2VecOptions",
    "WordVectors",
    "coverage",
    "embedding_matrix",
    "read_vectors",
    "train_word2vec",
    "vectors_for",
    "write_vectors",
]

GZIP, ZIP, BYTE_ORDER_MARK = b"\x1f\x8b", b"PK\x03\x04", b"\xef\xbb\xbf"
HEADER = re.compile(rb"(\d+)[ \t]+(\d+)")
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
NAMED = 10  # how many missing words a report names

Word2VecModel = Literal["skipgram", "cbow"]


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


@dataclass(frozen=True)
class Coverage:
    """How much of a vocabulary has a pretrained vector.

    Attributes:
        vectors: what was read.
        vocabulary: words of the tokenizer, special tokens not counted.
        found: how many of them have a vector.
        running: the share, in [0, 1], of the words of the captions that have a vector; None
            without captions. A word outside the vocabulary is one ``<unk>``.
        missing: the most frequent words without a vector and how often they occur in the
            captions (0 without captions), most frequent first.
    """

    vectors: WordVectors
    vocabulary: int
    found: int
    running: float | None
    missing: tuple[tuple[str, int], ...]

    @property
    def text(self) -> str:
        """One line, and a second one that names words without a vector if there are any."""
        source = self.vectors
        share = f" and {self.running:.1%} of the running words" if self.running is not None else ""
        line = (
            f"{source.path.name}: {source.total} words of {source.size} numbers; it has "
            f"{self.found} of the {self.vocabulary} words of the vocabulary "
            f"({self.found / max(self.vocabulary, 1):.1%}){share}"
        )
        if not self.missing:
            return line
        names = (f"{word} ({count})" if count else word for word, count in self.missing)
        return f"{line}\nwithout a vector: {', '.join(names)}" + (
            ", ..." if self.vocabulary - self.found > len(self.missing) else ""
        )


def read_vectors(
    path: str | os.PathLike[str], words: Iterable[str], *, ignore_case: bool = False
) -> WordVectors:
    """Read the vectors of ``words`` from a text file of word vectors.

    Of a word that is there more than once the first vector counts: files are sorted by frequency.

    Args:
        path: GloVe, word2vec or fastText text, plain or gzip'd (told apart by content).
        words: the words to keep.
        ignore_case: a word that the file does not have as it is takes the vector of the first
            word that equals it in lower case ("paris" that of "Paris").

    Raises:
        DataError: missing, empty, truncated or binary, or a malformed line (file:line).
    """
    wanted = {word.encode(): word for word in words}
    exact: dict[bytes, np.ndarray] = {}
    folded: dict[bytes, np.ndarray] = {}
    lines = _lines(path)
    number, line = next(lines, (0, b""))
    if not line:
        raise DataError(f"{path}: is empty; expected a word and its numbers on each line")
    header = HEADER.fullmatch(line)
    if header:
        size = int(header[2])
    else:
        size = _trailing_numbers(line)
        lines = itertools.chain([(number, line)], lines)
    if not size:
        raise DataError(f"{path}:{number}: expected a word and its numbers, or how many of each")
    total = 0
    for number, line in lines:
        where = f"{path}:{number}"
        if not total and CONTROL.search(line):
            kind = "the binary word2vec format" if header else "no text"
            raise DataError(f"{path}: is {kind}; expected word vectors as text")
        total += 1
        if line.count(b" ") == size:  # nearly every line, and counting is cheaper than splitting
            word, _, numbers = line.partition(b" ")
        else:
            word, numbers = _split(line, size, where)
        if word in wanted:
            if word not in exact:
                exact[word] = _parse(numbers, size, where)
        elif ignore_case:
            lower = _lower(word)
            if lower in wanted and lower not in exact and lower not in folded:
                folded[lower] = _parse(numbers, size, where)
    if header and total != int(header[1]):
        raise DataError(
            f"{path}: holds {total} words, but line 1 says {int(header[1])}; is it truncated?"
        )
    found = {wanted[key]: vector for key, vector in (folded | exact).items()}
    return WordVectors(Path(path), size, found, total)


def vectors_for(path: str | os.PathLike[str], tokenizer: Tokenizer) -> WordVectors:
    """Read the vectors of a tokenizer's words, and of its special tokens if the file has them.

    A tokenizer of lower case words takes cased ones of the file where there are no others.

    Raises:
        DataError: see ``read_vectors``; or none of the words is in the file.
    """
    lower = all(word == word.lower() for word in tokenizer.vocabulary)
    vectors = read_vectors(path, tokenizer.vocabulary, ignore_case=lower)
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

    Args:
        vectors: from ``vectors_for``.
        tokenizer: whose ids the rows are.
        seed: of the random rows.

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


def coverage(vectors: WordVectors, tokenizer: Tokenizer, captions: Sequence[str] = ()) -> Coverage:
    """Tell how much of a vocabulary, and of the running words of captions, has a vector."""
    special = len(SPECIAL)
    counts = Counter(itertools.chain.from_iterable(tokenizer.encode_batch(captions)))
    del counts[tokenizer.start], counts[tokenizer.end]
    vocabulary = tokenizer.vocabulary
    running = sum(counts.values())
    with_vector = sum(n for i, n in counts.items() if vocabulary[i] in vectors.found)
    # Ids go by frequency in training: the order where counts are equal or absent.
    missing = sorted(
        (i for i in range(special, len(vocabulary)) if vocabulary[i] not in vectors.found),
        key=lambda i: -counts[i],
    )
    return Coverage(
        vectors,
        vocabulary=len(vocabulary) - special,
        found=len(vocabulary) - special - len(missing),
        running=with_vector / running if running else None,
        missing=tuple((vocabulary[i], counts[i]) for i in missing[:NAMED]),
    )


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


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, line without its end) of each line that is not blank."""
    try:
        with open(path, "rb") as raw:
            magic = raw.peek(4)
            if magic.startswith(ZIP):
                raise DataError(f"{path}: is a zip archive; unpack it and name the file inside")
            zipped = magic.startswith(GZIP)
            file: Iterable[bytes] = gzip.GzipFile(fileobj=raw) if zipped else raw
            # Bytes: in text some word would be a line break (U+0085) or not UTF-8.
            for number, line in enumerate(file, start=1):
                line = (line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).rstrip()
                if line:
                    yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: is a truncated or damaged gzip file ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _trailing_numbers(line: bytes) -> int:
    """E as the first line of a file without header tells it: the numbers at its end."""
    fields = reversed(line.split()[1:])
    return sum(1 for _ in itertools.takewhile(_is_number, fields))


def _split(line: bytes, size: int, where: str) -> tuple[bytes, bytes]:
    """Word and numbers of a line that is not simply ``size`` blanks: tabs, words with blanks."""
    fields = line.rsplit(None, size)
    if len(fields) <= size:
        raise _wrong_count(line, size, where)
    word = fields[0]
    parts = word.split()
    if len(parts) > 1:
        if any(map(_is_number, parts[1:])):
            raise _wrong_count(line, size, where)
        _parse(line[len(word) :], size, where)
    return word.strip(), line[len(word) :]


def _wrong_count(line: bytes, size: int, where: str) -> DataError:
    count = len(line.split()) - 1
    return DataError(f"{where}: expected a word and {size} numbers, found {count}")


def _parse(numbers: bytes, size: int, where: str) -> np.ndarray:
    """The vector (E,) of a line."""
    fields = numbers.split()
    if len(fields) != size:
        raise DataError(f"{where}: expected a word and {size} numbers, found {len(fields)}")
    with np.errstate(over="ignore"):  # 1e39 becomes infinite, and is refused
        try:
            vector = np.array([float(field) for field in fields]).astype(np.float32)
        except ValueError:
            wrong = next(field for field in fields if not _is_number(field))
        else:
            if np.isfinite(vector).all():
                return vector
            wrong = fields[int(np.argmin(np.isfinite(vector)))]
    text = wrong.decode(errors="replace")[:40]
    raise DataError(f"{where}: expected a word and {size} finite numbers, found {text!r}")


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


@dataclass(frozen=True)
class Word2VecOptions:
    """How to train; raises UsageError for an option out of range.

    Attributes:
        model: "skipgram" (better on small corpora) or "cbow" (faster).
        size: E, numbers a word.
        epochs: passes over the captions.
        window: neighbours to each side, at most.
        seed: of everything random.
    """

    model: Word2VecModel = "skipgram"
    size: int = 256
    epochs: int = 20
    window: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model not in ("skipgram", "cbow"):
            raise UsageError(f"model is {self.model!r}; expected 'skipgram' or 'cbow'")
        for name in ("size", "epochs", "window"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed is {self.seed}; expected 0 to {2**32 - 1}")


def train_word2vec(
    captions: Sequence[str], tokenizer: Tokenizer, options: Word2VecOptions
) -> tuple[list[str], np.ndarray, int]:
    """Train word vectors on captions; the same captions and options give the same bits.

    Args:
        captions: the training captions, never those of another split.
        tokenizer: made of the same captions; its words get vectors.
        options: how.

    Returns:
        The words that occur, in the order of their ids; their vectors (V, E) float32; and how
        many words the captions have together (special tokens but ``<unk>`` not counted).

    Raises:
        UsageError: gensim is missing.
    """
    try:
        from gensim.models import Word2Vec
    except ImportError as error:
        raise UsageError(
            f"word vectors are trained by gensim ({error}): pip install 'gazetell[vectors]'"
        ) from error
    vocabulary = tokenizer.vocabulary
    corpus = [[vocabulary[i] for i in ids] for ids in tokenizer.encode_batch(captions)]
    with _silent("gensim"):
        model = Word2Vec(
            corpus,
            vector_size=options.size,
            window=options.window,
            epochs=options.epochs,
            sg=int(options.model == "skipgram"),
            seed=options.seed,
            min_count=1,  # the tokenizer has sorted out the rare words
            workers=1,  # several would race
            hashfxn=_hash,
        )
    words = [word for word in vocabulary if word in model.wv]
    running = sum(map(len, corpus)) - 2 * len(corpus)  # without <start> and <end>
    return words, np.stack([model.wv[word] for word in words]), running


def _hash(text: str) -> int:
    """A hash that, unlike Python's own, is the same in each process."""
    return zlib.crc32(text.encode())


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keep a library's advice on its inner settings off the terminal."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)

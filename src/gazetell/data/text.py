"""Words and their ids: the tokenizer of captions and questions.

A word-level tokenizer of the ``tokenizers`` library, kept as its one ``tokenizer.json``:

- normaliser: invisible format characters removed, typographic apostrophes made plain, lower case,
  Unicode form NFC;
- pre-tokeniser: a word is a run of letters, marks and digits, with apostrophes and hyphens inside
  it kept ("don't", "t-shirt"); an emoji is a word of its own, and so is each character of Han,
  Hiragana and Katakana, which are written without blanks; punctuation is dropped, as the classic
  captioning recipes do;
  Accents are kept. A tokenizer that keeps letter case has no lower case in its normaliser; one
  that keeps all has marks of punctuation as words too, each with the blanks beside it (", " and
  " ("), so that a decoded text is written as the captions were;
- model: a table from word to id. Ids 0 to 3 are ``<pad> <start> <end> <unk>``.

The special tokens are plain entries of that table, not "added tokens" of the library: those are
looked for in raw text, and a caption that says "<end>" would end itself. The pre-tokeniser takes
``<`` and ``>`` off every word, so no text can produce one.

``sentence`` makes alt text of a caption, everywhere.
"""

import json
import logging
import operator
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, get_args

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors

from ..errors import DataError, ModelError, UsageError
from ..files import atomic_path, read_text
from ..metrics.words import CJK, unspaced_texts

Keep = Literal["none", "case", "all"]  # of how texts are written, besides words and accents
SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")

# Joiners (U+200C, U+200D) hold words of Persian and emoji sequences together; every other format
# character (zero-width space, byte order mark, direction marks, soft hyphen) is noise.
_INVISIBLE = r"[\p{Cf}&&[^\u200c\u200d]]"
_LETTER = rf"[^\p{{P}}\p{{S}}\p{{Z}}\p{{Cc}}\p{{Cf}}{CJK}]"
# Halfwidth Katakana has its voice marks as characters of their own.
_CHARACTER = rf"[{CJK}][\p{{M}}\uff9e\uff9f]*"
_WORD = rf"{_CHARACTER}|{_LETTER}+(?:['\-\u200c\u200d]{_LETTER}+)*"
_EMOJI = r"\p{So}[\p{M}\p{Sk}]*(?:\u200d\p{So}[\p{M}\p{Sk}]*)*"
_MARK = r" ?[\p{P}\p{Sm}\p{Sc}\p{Sk}] ?"
_CJK = re.compile(f"[{CJK}]")
_STOPS = ".!?\u2026\u3002\uff01\uff1f\u0964\u06d4\u061f"  # Latin, Chinese, Hindi, Urdu, Arabic
_QUOTES = "\"')]\u201d\u2019\xbb"  # may follow the stop
# What the above makes of ASCII in lower case: Python reads it five times as fast as the library.
_ASCII_WORD = re.compile(r"[0-9a-z]+(?:['\-][0-9a-z]+)*")
_PIECE = 10_000

# Words of English questions without which a question is still about the same thing.
FUNCTION_WORDS = (
    "a an the this that these those it its i you we he she they them his her their my our me us "
    "is are was were be been being am do does did has have had can could will would shall should "
    "may might must of in on at by for with from to as than and or but so if any some there here "
    "please just also very too"
)

logger = logging.getLogger(__name__)


class Tokenizer:
    """Turns text into word ids and back; make one with ``train`` or ``load``.

    ``pad``, ``start``, ``end`` and ``unk`` are the ids of the special tokens, the same in every
    tokenizer. Instances are immutable and may be shared by threads and pickled to workers.
    """

    pad, start, end, unk = range(len(SPECIAL))

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        """Wrap a tokenizer of the library.

        Raises:
            ModelError: it is not of the form described at the top of this module.
        """
        table = inner.get_vocab(with_added_tokens=False)
        self._words = tuple(sorted(table, key=table.__getitem__))
        if not isinstance(inner.model, models.WordLevel) or inner.get_added_tokens_decoder():
            raise ModelError("is not a word-level tokenizer of gazetell")
        if self._words[: len(SPECIAL)] != SPECIAL or sorted(table.values()) != list(
            range(len(table))
        ):
            raise ModelError(f"expected {' '.join(SPECIAL)} as ids 0 to 3, and words from 4")
        if len(table) == len(SPECIAL):
            raise ModelError("has no words besides the special tokens")
        self._inner, self._table = inner, table
        form = _form(inner)
        # None: of an earlier version, or foreign.
        self.keep: Keep | None = next(
            (keep for keep in get_args(Keep) if form == _form(_build((), keep))), None
        )
        # Tokenizers of earlier versions took a run of Han characters for one word.
        cut = inner.pre_tokenizer and inner.pre_tokenizer.pre_tokenize_str("\u4e00\u4e2a")
        self._cuts_characters = bool(cut) and len(cut) == 2

    @classmethod
    def train(
        cls,
        captions: Iterable[str],
        *,
        min_frequency: int = 5,
        max_words: int | None = None,
        keep: Keep = "none",
    ) -> "Tokenizer":
        """Collect the words of ``captions``, most frequent first, ties in alphabetical order.

        Args:
            captions: the training captions, never those of another split.
            min_frequency: a rarer word becomes ``<unk>``.
            max_words: keep only the most frequent so many (special tokens not counted).
            keep: "none" for lower case without punctuation, "case" for letter case as written,
                "all" for punctuation as well.

        Raises:
            UsageError: an option out of range.
            DataError: no word is frequent enough.
        """
        if min_frequency < 1:
            raise UsageError(f"min_frequency is {min_frequency}; expected at least 1")
        if max_words is not None and max_words < 1:
            raise UsageError(f"max_words is {max_words}; expected at least 1")
        captions = list(captions)
        if warning := unspaced_warning(captions):
            logger.warning("%s", warning)
        counts = {w: n for w, n in word_counts(captions, keep)[0].items() if n >= min_frequency}
        words = sorted(counts, key=lambda word: (-counts[word], word))[:max_words]
        if not words:
            raise DataError(
                f"no word occurs {min_frequency} times in the training captions; "
                "expected more captions or a lower min_frequency"
            )
        return cls(_build(words, keep))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Tokenizer":
        """Read a ``tokenizer.json``.

        Raises:
            ModelError: missing, truncated, or not written by ``save``.
        """
        try:
            text = read_text(path)
            # Python's parser first: its message has the place, and what it lets through
            # the library refuses without a panic.
            json.loads(text)
            inner = tokenizers.Tokenizer.from_str(text)
        except DataError as error:
            raise ModelError(str(error)) from error
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"{path}: is not a tokenizer file ({error})") from error
        try:
            return cls(inner)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the ``tokenizer.json``, which ``tokenizers.Tokenizer.from_file`` reads as well.

        Raises:
            WriteError: the file system refused.
        """
        with atomic_path(path) as temporary:
            # Not the library's save(): its errors are no OSError.
            temporary.write_text(self._inner.to_str(pretty=True) + "\n", encoding="utf-8")

    @property
    def vocab_size(self) -> int:
        """How many ids there are, V, special tokens included."""
        return len(self._words)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The words by id, special tokens included."""
        return self._words

    def encode(self, text: str) -> list[int]:
        """The ids of ``text`` between ``<start>`` and ``<end>``; empty gives ``[start, end]``."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str], max_length: int | None = None) -> list[list[int]]:
        """``encode`` for many texts; what is not ASCII in the library's own threads.

        Args:
            texts: any strings.
            max_length: the most ids of a text, ``<start>`` and ``<end>`` among them (at least 2).
                Words past it are cut off, ``<end>`` is kept.
        """
        if max_length is not None and max_length < 2:
            raise UsageError(f"max_length is {max_length}; expected at least 2 (<start> and <end>)")
        rows: list[list[int]] = [
            self._encode_ascii(text) if self.keep == "none" and text.isascii() else []
            for text in texts
        ]
        rest = [number for number, row in enumerate(rows) if not row]
        # A piece at a time: the library's result objects are far larger than the ids.
        for begin in range(0, len(rest), _PIECE):
            some = rest[begin : begin + _PIECE]
            batch = self._inner.encode_batch_fast([_encodable(texts[number]) for number in some])
            for number, row in zip(some, batch, strict=True):
                rows[number] = row.ids
        if max_length is None:
            return rows
        return [
            [*ids[: max_length - 1], self.end] if len(ids) > max_length else ids for ids in rows
        ]

    def _encode_ascii(self, text: str) -> list[int]:
        words = _ASCII_WORD.findall(text.lower())
        return [self.start, *[self._table.get(word, self.unk) for word in words], self.end]

    def encode_words(self, text: str) -> tuple[list[int], list[str]]:
        """The ids of the words of ``text``, and the words as they are written in it."""
        # The library's places leave out the mark of a letter that it composed itself.
        text = unicodedata.normalize("NFC", _encodable(text))
        coded = self._inner.encode(text, add_special_tokens=False)
        return coded.ids, [text[begin:end] for begin, end in coded.offsets]

    def words(self, ids: Iterable[SupportsIndex]) -> list[str]:
        """The words of ``ids``, special tokens left out.

        Raises:
            ModelError: an id outside the vocabulary.
        """
        words = []
        for number in map(operator.index, ids):
            if not 0 <= number < len(self._words):
                raise ModelError(
                    f"token id {number} is outside the vocabulary of {len(self._words)} words"
                )
            if number >= len(SPECIAL):
                words.append(self._words[number])
        return words

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """The text of ``ids``, special tokens left out.

        There are no blanks between Han and Kana, and beside a mark those that it has itself.
        """
        text, before = "", ""
        for word in self.words(ids):
            character = self._cuts_characters and _CJK.match(word)
            mark = self.keep == "all" and _is_mark(word)
            kind = "mark" if mark else "character" if character else "word"
            blank = "mark" not in (before, kind) and (before, kind) != ("character",) * 2
            text += f" {word}" if blank else word
            before = kind
        return " ".join(text.split())  # two marks may both have one

    def __contains__(self, word: str) -> bool:
        return self._inner.token_to_id(word) is not None

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Tokenizer) and self._inner.to_str() == other._inner.to_str()

    def __hash__(self) -> int:
        return hash(self._words)


@dataclass(frozen=True)
class Question:
    """A question as a model reads it."""

    text: str  # as it was asked
    ids: list[int]  # of its words, at least one
    unknown: list[str]  # the words that are not in the vocabulary, as written, each once
    cut: int = 0  # how many words at its end are not read

    @property
    def unreadable(self) -> bool:
        """Whether one of the unknown words says what the question is about."""
        return any(word.lower() not in FUNCTION_WORDS.split() for word in self.unknown)


def read_question(tokenizer: Tokenizer, text: str, max_question: int) -> Question:
    """Turn a question into ids, at most ``max_question`` of them.

    Raises:
        UsageError: no text, or a text without words.
    """
    if not isinstance(text, str):
        raise UsageError(f"question {text!r}: expected text")
    ids, words = tokenizer.encode_words(text)
    if all(map(_is_mark, words)):
        raise UsageError(f"question {text[:60]!r}: has no words")
    read = list(zip(ids, words, strict=True))[:max_question]
    unread = (word for number, word in read if number == tokenizer.unk and not _is_mark(word))
    unknown = dict.fromkeys(unread)
    return Question(text, ids[:max_question], list(unknown), len(ids) - len(read))


def _is_mark(word: str) -> bool:
    """Whether a word of a tokenizer that keeps all is a mark of punctuation."""
    return unicodedata.category(word.strip()[:1] or "x").startswith(("P", "Sm", "Sc", "Sk"))


def sentence(text: str, ended: bool) -> str:
    """A caption as alt text: with a capital and a full stop; an ellipsis if it was cut off."""
    if not text:
        return ""
    stop = "\u2026" if not ended else "\u3002" if _CJK.match(text[-1]) else "."
    stop = "" if text.rstrip(_QUOTES).endswith(tuple(_STOPS)) else stop
    return text[0].title() + text[1:] + stop


def _build(words: Sequence[str], keep: Keep = "none") -> tokenizers.Tokenizer:
    """A tokenizer of the library over words, numbered from 4."""
    table = {word: number for number, word in enumerate((*SPECIAL, *words))}
    inner = tokenizers.Tokenizer(models.WordLevel(table, unk_token=SPECIAL[Tokenizer.unk]))
    steps: list[Any] = [
        normalizers.Replace(Regex(_INVISIBLE), ""),
        normalizers.Replace(Regex("[\u2018\u2019\u02bc]"), "'"),
    ]
    if keep == "none":
        steps.append(normalizers.Lowercase())
    if keep == "all":
        steps += [normalizers.Replace(Regex(r"[\p{Z}\p{Cc}]+"), " "), normalizers.Strip()]
    # Last, because lower case may bring a letter and a mark together that compose.
    inner.normalizer = normalizers.Sequence([*steps, normalizers.NFC()])
    # Inverted: the pattern says what a token is, and what lies between is removed.
    pattern = Regex(f"{_WORD}|{_EMOJI}" + (f"|{_MARK}" if keep == "all" else ""))
    inner.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="removed", invert=True)
    first, last = SPECIAL[Tokenizer.start], SPECIAL[Tokenizer.end]
    inner.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        special_tokens=[(first, Tokenizer.start), (last, Tokenizer.end)],
    )
    return inner


def _form(inner: tokenizers.Tokenizer) -> dict[str, Any]:
    """All that makes a tokenizer but its words."""
    about: dict[str, Any] = json.loads(inner.to_str())
    del about["model"]["vocab"]
    return about


def word_counts(texts: Iterable[str], keep: Keep = "none") -> tuple[Counter[str], Counter[int]]:
    """How often each different word occurs, and how many texts have how many words.

    Returns:
        From a word to a count, and from a length to a count.
    """
    words: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    reader = _build((), keep)
    normalise, cut = reader.normalizer.normalize_str, reader.pre_tokenizer.pre_tokenize_str
    for text in texts:
        if keep == "none" and text.isascii():
            found = _ASCII_WORD.findall(text.lower())
        else:
            found = [word for word, _ in cut(normalise(_encodable(text)))]
        words.update(found)
        lengths[len(found)] += 1
    return words, lengths


def unspaced_warning(texts: Sequence[str]) -> str | None:
    """A line for the user if whole sentences count as one word; None if not.

    Han and Kana are cut into characters, so they are no problem.
    """
    counts = unspaced_texts(texts)
    del counts["Chinese or Japanese"]
    if not counts:
        return None
    return (
        f"{counts.total():,} of {len(texts):,} texts are in {' and '.join(counts)} without blanks "
        "between words, and each run of letters counts as one word; put blanks between the words"
    )


def _encodable(text: str) -> str:
    """``text`` without the lone surrogates that a JSON file can smuggle in."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text

"""Splits captions into words as the official captioning metrics do, without Java.

The COCO caption evaluation splits every caption with the Penn Treebank tokeniser of Stanford
CoreNLP 3.4.1 (options -preserveLines -lowerCase) and drops punctuation. BLEU, ROUGE-L and CIDEr
count the words that this leaves, so a score is only comparable if the splitting is the same.
`split` gives those words in pure Python: "don't" is "do" "n't", "a dog's T-shirt." is
"a" "dog" "'s" "t-shirt". Its habits are kept, odd ones too: brackets come out as "-lrb-", which
the evaluation does not drop, because it looks for capitals; "end.Start" is one word; "£" is "#".

The tokeniser is a longest-match scanner: at each place it takes the rule (`rules.RULES`) that
matches the most text. `split` is the same, with a short cut for words that no rule could touch.

Known differences: it reads an astral character (an emoji) as two, so an address that ends in one
is cut elsewhere; and the evaluation joins all captions to one text, so that its last caption
lacks the newline that some rules look for, and "no." before a caption that starts with a number
keeps its full stop. `split` sees one caption.

Reference: Chen et al. 2015, Microsoft COCO Captions: Data Collection and Evaluation Server.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from .rules import ABBREVIATION, JOINED, RULES, Rule

__all__ = ["CJK", "PUNCTUATION", "at_blanks", "split", "split_all", "unspaced_texts"]

CJK = (
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c"
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d"
    "\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
)
"""Han, Hiragana and Katakana as ranges for a regular expression."""

# Scripts without blanks between words. A text that was cut into words has shorter runs of their
# letters, on average, than the number says.
_UNSPACED = {
    "Chinese or Japanese": (re.compile(f"[{CJK}]+"), 3),
    "Thai": (re.compile("[\u0e01-\u0e3a\u0e40-\u0e4e]+"), 8),
    "Lao": (re.compile("[\u0e81-\u0ecd]+"), 8),
    "Khmer": (re.compile("[\u1780-\u17d3]+"), 8),
    "Burmese": (re.compile("[\u1000-\u1049]+"), 8),
}

PUNCTUATION = frozenset({
    "''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-",
    ".", "?", "!", ",", ":", "-", "--", "...", ";",
})  # fmt: skip
"""What the evaluation drops. Words are in lower case by then, so the brackets never match."""

# Characters of Windows-1252 that reached the text undecoded; a soft hyphen is not there at all.
_REPAIR = str.maketrans(
    {"\x80": "€", "\x85": "…", "\x91": "‘", "\x92": "’", "\x93": "“", "\x94": "”"}
    | {"\x96": "–", "\x97": "—", "\u00ad": None}
    | dict.fromkeys("\n\r\x0b\x0c\u2028\u2029", " ")
)
# Letters, at most one mark of punctuation, then a blank: nothing else can start here.
_SIMPLE = re.compile(r"([A-Za-z]*)([.,!?]?)[ \n]")


def _by_start(kind: str) -> tuple[Rule, ...]:
    return tuple(rule for rule in RULES if kind in rule.starts)


_LETTER, _DIGIT, _OTHER = _by_start("a"), _by_start("1"), _by_start(".")


def split(text: str) -> list[str]:
    """Split a caption into lower-case words.

    Args:
        text: one caption; a line break in it counts as a blank.

    Returns:
        The words; none for a text without any. A telephone number or a fraction such as
        "1 1/2" is one word with no-break spaces (U+00A0) in it.
    """
    # Rules look up to two characters ahead, past the last one too.
    text = text.translate(_REPAIR) + "\n\n"
    end = len(text) - 2
    words: list[str] = []
    at = 0
    while at < end:
        if simple := _SIMPLE.match(text, at):
            word, mark = simple.groups()
            if mark != "." or not (len(word) == 1 or ABBREVIATION.fullmatch(word)):
                if word:
                    word = word.lower()
                    words.extend(JOINED.get(word, [word]))
                at = simple.end()
                continue
        at = _scan(text, at, words)
    return words


def split_all(
    references: Mapping[str, Sequence[str]], predictions: Mapping[str, str]
) -> tuple[list[list[str]], list[list[list[str]]]]:
    """The words of predictions and references, pictures in the order of ``predictions``.

    Args:
        references: the reference captions of each picture.
        predictions: the caption of each of the same pictures.

    Returns:
        The words of each prediction, and those of each reference of each picture.

    Raises:
        ValueError: different pictures in the two.
    """
    if references.keys() != predictions.keys():
        first = sorted(references.keys() ^ predictions.keys(), key=str)[0]
        missing = "prediction" if first in references else "reference"
        raise ValueError(f"picture {first!r} has no {missing}")
    return (
        [split(caption) for caption in predictions.values()],
        [[split(caption) for caption in references[picture]] for picture in predictions],
    )


def unspaced_texts(texts: Iterable[str]) -> Counter[str]:
    """How many texts are written without blanks between words, by script.

    `split` takes whole sentences of them for one word, or cuts them at vowel signs: scores of
    such texts tell next to nothing.

    Args:
        texts: captions or questions. One that was cut into words with blanks does not count.

    Returns:
        From "Chinese or Japanese", "Thai", "Lao", "Khmer" or "Burmese" to a number above 0.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        if text.isascii():
            continue
        for script, (letters, longest) in _UNSPACED.items():
            runs = letters.findall(text)
            if runs and sum(map(len, runs)) > longest * len(runs):
                counts[script] += 1
                break
    return counts


def at_blanks(words: list[str]) -> list[str]:
    """Words cut at no-break spaces too, as pycocoevalcap cuts for BLEU and CIDEr, not ROUGE-L."""
    return " ".join(words).split()


def _scan(text: str, at: int, words: list[str]) -> int:
    """Read the token at ``at`` into ``words`` by the rule that matches most; return its end."""
    first = text[at]
    if not first.isascii():
        rules = RULES
    elif first.isalpha():
        rules = _LETTER
    else:
        rules = _DIGIT if first.isdigit() else _OTHER
    longest, best, write = 0, None, None
    for rule in rules:
        found = rule.pattern.match(text, at)
        if found is not None and found.end() - at > longest:
            longest, best, write = found.end() - at, found, rule.write
    if best is None:
        return at + 1  # a blank, or a character that the tokeniser does not know
    token = best.lastindex or 0
    text = best.group(token)
    for word in write(text) if write else [text.lower()]:
        if word not in PUNCTUATION:
            words.append(word)
    return best.end(token)

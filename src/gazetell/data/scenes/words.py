"""The words of the scenes language: one lexicon for the captions, the judge and the boxes."""

import re

from .geometry import Thing
from .world import SHAPES

__all__ = ["COUNTS", "GENERIC", "NOUNS", "SIZE_WORDS", "article", "names", "plural", "tokens"]

COUNTS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
SIZE_WORDS = {"large": "large", "big": "large", "small": "small", "tiny": "small"}
GENERIC = ("shape", "object")  # nouns that name any thing
SPELLING = {"center": "middle", "centre": "middle", "upper": "top", "lower": "bottom"}


def plural(noun: str) -> str:
    """The plural of a noun of this language."""
    return noun + ("es" if noun.endswith("s") else "s")


# noun -> (shape or None for any, whether it is plural)
NOUNS: dict[str, tuple[str | None, bool]] = {
    **{shape: (shape, False) for shape in SHAPES},
    **{plural(shape): (shape, True) for shape in SHAPES},
    **dict.fromkeys(GENERIC, (None, False)),
    **{plural(noun): (None, True) for noun in GENERIC},
}


def article(phrase: str) -> str:
    """``phrase`` with *a* or *an* before it."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def names(thing: Thing) -> tuple[str, ...]:
    """The words that name a thing: colour, shape in both numbers, and the words for its size."""
    sizes = tuple(word for word, size in SIZE_WORDS.items() if size == thing.size)
    return (thing.colour, thing.shape, plural(thing.shape), *sizes)


def tokens(text: str) -> list[str]:
    """Lower-case words without punctuation; spellings of one word become the same."""
    found = re.findall(r"[a-z0-9]+", text.lower())
    return [SPELLING.get(word, word) for word in found]

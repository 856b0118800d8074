"""What a search for a caption can be told, and the caption that it gives, as token ids.

Needs no torch: ``decoding`` and ``gazetell.onnx`` search by the same options.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any

from ..errors import UsageError, unknown_option

# What an option of decoding must be, by the type of its default.
TYPES: dict[type, tuple[type, str]] = {
    bool: (bool, "True or False"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
}
RANGES: dict[str, tuple[float, float]] = {
    "beam": (1, 100),
    "max_length": (1, 1000),
    "min_length": (0, 1000),  # and the greatest length at most
    "length_penalty": (0, 5),
    "no_repeat_ngram": (0, 100),
    "temperature": (1e-3, 100),
    "top_k": (0, 10**9),
    "top_p": (1e-6, 1),
    "seed": (0, 2**63),
    "beam_groups": (1, 100),
    "diversity": (1e-3, 100),
}


def check_ranges(given: Mapping[str, Any]) -> None:
    """Refuse values that no model decodes with, with a UsageError."""
    for name, (low, high) in RANGES.items():
        if name in given and not low <= given[name] <= high:
            raise UsageError(f"{name} {given[name]}: expected {low} to {high}")


@dataclass(frozen=True)
class DecodingOptions:
    """How to decode.

    Attributes:
        beam: K; 1 is greedy.
        min_length: fewest words before ``<end>`` may come, unless nothing else may.
        max_length: most words of a caption.
        length_penalty: exponent of the length normalisation of beam search, 0 for none.
        no_repeat_ngram: forbid any n-gram of this size to occur twice; 0 allows all.
        sample: draw words at random instead of taking the best; needs beam 1.
        temperature: divides the logits before sampling; below 1 is more careful.
        top_k: sample among the k likeliest words; 0 is all.
        top_p: sample among the likeliest words that together reach this probability.
        seed: of the random draws, 0 or more.
        beam_groups: G, searches that avoid each other's words; divides the beam.
        diversity: what a word loses in log-probability for each earlier group's prefix that took
            it.
    """

    beam: int = 3
    min_length: int = 1
    max_length: int = 20
    length_penalty: float = 0.7
    no_repeat_ngram: int = 0
    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    beam_groups: int = 1
    diversity: float = 0.5

    def __post_init__(self) -> None:
        check_ranges(vars(self))
        if self.min_length > self.max_length:
            raise UsageError(f"min_length {self.min_length}: expected 0 to {self.max_length}")
        if self.sample and self.beam > 1:
            raise UsageError(f"sample with beam {self.beam}: expected beam 1")
        if self.beam % self.beam_groups:
            expected = f"expected a number that divides the beam, {self.beam}"
            raise UsageError(f"beam_groups {self.beam_groups}: {expected}")


def check_effect(given: Collection[str], options: DecodingOptions) -> None:
    """Refuse options that somebody gave and that do nothing beside the others.

    Args:
        given: their names.
        options: all options that will decode.

    Raises:
        UsageError: naming the option, and what it needs.
    """
    needs: dict[str, str] = {}
    if not options.sample:
        needs = dict.fromkeys(("temperature", "top_k", "top_p", "seed"), "sample")
    elif options.top_k == 1:
        needs = dict.fromkeys(("temperature", "top_p", "seed"), "a top_k of 2 or more")
    if options.beam == 1:
        needs["length_penalty"] = "a beam of 2 or more"
    if options.beam_groups == 1:
        needs["diversity"] = "beam_groups of 2 or more"
    if options.no_repeat_ngram >= options.max_length:
        needs["no_repeat_ngram"] = f"a max_length of {options.no_repeat_ngram + 1} or more"
    for name, missing in needs.items():
        if name in given:
            raise UsageError(f"{name}: has no effect without {missing}")


def changed(options: DecodingOptions, changes: dict[str, Any]) -> DecodingOptions:
    """Decoding options with some changed; without a beam where captions are to be drawn.

    Raises:
        UsageError: an option that does not exist, is out of its range or has no effect.
    """
    names = [option.name for option in fields(DecodingOptions)]
    for name, value in changes.items():
        if name not in names:
            raise unknown_option(name, names)
        kind, expected = TYPES[type(getattr(DecodingOptions, name))]
        if not isinstance(value, kind):
            raise UsageError(f"{name} {value!r}: expected {expected}")
    beam: dict[str, Any] = {"beam": 1} if changes.get("sample") else {}
    chosen = replace(options, **beam | changes)
    check_effect(changes, chosen)
    return chosen


@dataclass(frozen=True)
class Decoded:
    """One caption as token ids.

    Attributes:
        tokens: neither ``<start>`` nor ``<end>``.
        attention: (T, R), a row a token, a tensor or an array on the CPU; or None.
        log_prob: natural logarithm of the probability that the model gives to exactly this
            caption: its words and ``<end>`` behind them. It is the model's own, whatever
            temperature, length limits and forbidden words the search had; the end is counted also
            where the caption is cut or nothing but the end was allowed. No number where the
            model's logits are none.
        score: what beam search compares, ``log_prob`` normalised by the length.
        ended: False if the caption was cut: at ``max_length`` the search would have gone on.
        weakest: the least log-probability of one of its words or of the end.
    """

    tokens: list[int]
    attention: Any
    log_prob: float
    score: float
    ended: bool
    weakest: float


def check_plain(options: DecodingOptions) -> None:
    """Refuse what ``gazetell.onnx`` does not search by, with a UsageError."""
    for name in ("sample", "beam_groups"):
        value = getattr(options, name)
        if value != getattr(DecodingOptions, name):
            raise UsageError(
                f"{name} {value}: gazetell.onnx does not have this option; use the model with torch"
            )

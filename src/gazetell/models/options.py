"""The options of an architecture: a frozen dataclass beside each model class, which owns them.

Everything else reads them from there: training, command line, recipes, model folders::

    @dataclass(frozen=True)
    class ShowAttendTellOptions(CaptionerOptions):
        attention_width: int = option(256, "Width of the additive attention.", POSITIVE)

The help text is what ``--help`` prints. Literal types list what a text may be.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from ..errors import ModelError, UsageError

__all__ = [
    "POSITIVE",
    "SHARE",
    "Architectures",
    "Option",
    "Options",
    "all_options",
    "check_sizes",
    "current",
    "flag",
    "make_options",
    "option",
    "options_class",
]

T = TypeVar("T")
# From name to model class; its attribute ``Options`` is the class of its options.
Architectures = Mapping[str, Any]
# A test of a value, and what is said where it fails.
Check = tuple[Callable[[Any], bool], str]
POSITIVE: Check = (lambda value: value >= 1, "1 or more")
SHARE: Check = (lambda value: 0 <= value < 1, "0 up to below 1")

KINDS: dict[Any, tuple[type | tuple[type, ...], str]] = {
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "text"),
}


def option(default: T, help: str, check: Check | None = None) -> T:
    """A field of ``Options``: its default, its help text and its bounds."""
    made: T = field(default=default, metadata={"help": help, "check": check})
    return made


@dataclass(frozen=True)
class Options:
    """Base of all options. Values that do not fit raise UsageError, naming the option."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for each in fields(self):
            value = getattr(self, each.name)
            expected = _unmet(value, hints[each.name], each.metadata.get("check"))
            if expected:
                raise UsageError(f"{flag(each.name)} {value}: expected {expected}")


class Option(NamedTuple):
    """An option, and which architectures have it, in the order of their dict."""

    name: str
    type: Any
    default: Any
    help: str
    architectures: tuple[str, ...]


def flag(name: str) -> str:
    """The option as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def options_class(architectures: Architectures, architecture: str) -> type[Options]:
    """The options of an architecture.

    Raises:
        UsageError: an architecture that does not exist.
    """
    if architecture not in architectures:
        raise UsageError(
            f"--architecture {architecture}: expected one of {', '.join(architectures)}"
        )
    return architectures[architecture].Options


def make_options(
    architectures: Architectures, architecture: str, values: Mapping[str, Any]
) -> Options:
    """The options of an architecture from values by name; the others keep their defaults.

    Args:
        architectures: all there are, from name to class: ``CAPTIONERS``, ``ANSWERERS`` or both.
        architecture: the chosen one.
        values: what was given, by the option's name.

    Raises:
        UsageError: an architecture that does not exist, an option that this architecture does not
            have (architectures that have it are named), or a value out of bounds.
    """
    chosen = options_class(architectures, architecture)
    known = {each.name for each in fields(chosen)}
    for name in values:
        if name not in known:
            others = all_options(architectures).get(name)
            have = "have" if others and len(others.architectures) > 1 else "has"
            hint = f"; {', '.join(others.architectures)} {have}" if others else ""
            raise UsageError(f"{flag(name)}: {architecture} has no such option{hint}")
    return chosen(**values)


def all_options(architectures: Architectures) -> dict[str, Option]:
    """The options of all architectures by name; the help says to which of them each belongs."""
    found: dict[str, dict[str, Any]] = {}  # name of the option -> architecture -> field
    hints: dict[str, Any] = {}
    for architecture, model in architectures.items():
        for each in fields(model.Options):
            found.setdefault(each.name, {})[architecture] = each
        hints |= get_type_hints(model.Options)
    union = {}
    for name, owners in found.items():
        texts: dict[str, list[str]] = {}
        for architecture, each in owners.items():
            texts.setdefault(each.metadata["help"], []).append(architecture)
        text = " ".join(f"{text.rstrip('.')} ({', '.join(of)})." for text, of in texts.items())
        if len(texts) == 1 and len(owners) == len(architectures):
            text = next(iter(texts))
        default = next(iter(owners.values())).default
        union[name] = Option(name, hints[name], default, text, tuple(owners))
    return union


def check_sizes(**sizes: int) -> None:
    """Refuse sizes that are no positive whole numbers.

    Raises:
        UsageError: naming the size.
    """
    for name, value in sizes.items():
        if expected := _unmet(value, int, POSITIVE):
            raise UsageError(f"{name} {value}: expected {expected}")


def current(
    values: Mapping[str, Any], architectures: Architectures, sizes: tuple[str, ...]
) -> dict[str, Any]:
    """The configuration in a model folder, in today's names.

    Earlier versions wrote the options of all architectures, and called the width of the attention
    ``attention`` or ``gate`` and its kind ``attention``.

    Args:
        values: the configuration as it was read.
        architectures: ``CAPTIONERS`` or ``ANSWERERS``.
        sizes: what a configuration has besides the architecture and its options.

    Raises:
        ModelError: a field that this version does not know.
        UsageError: an architecture that does not exist.
    """
    values = dict(values)
    own = {each.name for each in fields(options_class(architectures, values["architecture"]))}
    own |= {"architecture", *sizes}
    if "attention" in values:
        earlier = values.pop("attention")
        values["attention_kind" if isinstance(earlier, str) else "attention_width"] = earlier
        values["attention_width"] = values.pop("gate", values.get("attention_width"))
        foreign = {name for name in all_options(architectures) if name not in own}
        foreign |= {"attention_kind", "attention_width"} - own
        values = {name: value for name, value in values.items() if name not in foreign}
    if unknown := sorted(set(values) - own):
        raise ModelError(f"the configuration has unknown fields: {unknown}")
    return values


def _unmet(value: Any, hint: Any, check: Check | None) -> str | None:
    """What was expected of a value that does not fit; None if it fits."""
    if type(None) in get_args(hint):
        if value is None:
            return None
        hint = next(x for x in get_args(hint) if x is not type(None))
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return None if value in choices else f"one of {', '.join(map(str, choices))}"
    if hint in KINDS:
        types, text = KINDS[hint]
        if not isinstance(value, types) or (isinstance(value, bool) and hint is not bool):
            return text
    return check[1] if check and not check[0](value) else None

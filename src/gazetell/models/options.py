"""The options of an architecture, and the networks that are built from them.

A frozen dataclass beside each model class owns its options. Everything else reads them from there:
training, command line, recipes, model folders::

    @dataclass(frozen=True)
    class ShowAttendTellOptions(CaptionerOptions):
        attention_width: int = option(256, "Width of the additive attention.", POSITIVE)

The help text is what ``--help`` prints. A Literal type lists what a text may be.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from torch import nn

from ..errors import ModelError, UsageError

T = TypeVar("T")
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

    prefix: ClassVar[str] = ""  # of the fields' names on the command line

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for each in fields(self):
            value = getattr(self, each.name)
            if expected := _unmet(value, hints[each.name], each.metadata.get("check")):
                raise UsageError(f"{flag(self.prefix + each.name)} {value}: expected {expected}")


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


AnyOptions = Options


class Network(nn.Module):
    """Base of the captioners and the answerers: what one is built from.

    Args:
        options: an ``Options`` of the class.
        sizes: what does not come from options but from encoder and vocabularies, by name.

    Raises:
        UsageError: a size that is no positive whole number.
    """

    Options: ClassVar[type[AnyOptions]]
    size_names: ClassVar[tuple[str, ...]]
    architecture: str  # its name, set by ``build``
    channels: int
    vocabulary: int

    def __init__(self, options: AnyOptions, **sizes: int) -> None:
        super().__init__()
        self.options = options
        for name in self.size_names:
            if expected := _unmet(sizes[name], int, POSITIVE):
                raise UsageError(f"{name} {sizes[name]}: expected {expected}")
            setattr(self, name, sizes[name])

    @property
    def config(self) -> dict[str, Any]:
        """All that ``build`` needs to build it again: architecture, sizes, options."""
        sizes = {name: getattr(self, name) for name in self.size_names}
        return {"architecture": self.architecture, **sizes, **asdict(self.options)}


Architectures = Mapping[str, type[Network]]  # ``CAPTIONERS``, ``ANSWERERS`` or both


def build(architectures: Architectures, architecture: str, values: Mapping[str, Any]) -> Any:
    """A network with random weights.

    Args:
        architectures: all there are, from name to class.
        architecture: the chosen one.
        values: its sizes, and options by name; the others have their defaults.

    Raises:
        UsageError: an architecture that does not exist, an option that it does not have (those that
            have it are named), or a value out of bounds.
    """
    known = {each.name for each in fields(options_class(architectures, architecture))}
    made = architectures[architecture]
    sizes = {name: values[name] for name in made.size_names}
    given = {name: value for name, value in values.items() if name not in sizes}
    for name in given:
        if name not in known:
            owners = all_options(architectures).get(name)
            have = f"; expected one of {', '.join(owners.architectures)}" if owners else ""
            raise UsageError(f"{flag(name)}: {architecture} has no such option{have}")
    network = made(made.Options(**given), **sizes)
    network.architecture = architecture
    return network


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


class Option(NamedTuple):
    """An option, and which architectures have it, in the order of their dict."""

    name: str
    type: Any
    default: Any
    help: str
    architectures: tuple[str, ...]


def all_options(architectures: Architectures) -> dict[str, Option]:
    """The options of all architectures by name; the help says to which of them each belongs."""
    owners: dict[str, dict[str, Any]] = {}  # name of the option -> architecture -> field
    hints: dict[str, Any] = {}
    for architecture, made in architectures.items():
        for each in fields(made.Options):
            owners.setdefault(each.name, {})[architecture] = each
        hints |= get_type_hints(made.Options)
    union = {}
    for name, having in owners.items():
        texts: dict[str, list[str]] = {}
        for architecture, each in having.items():
            texts.setdefault(each.metadata["help"], []).append(architecture)
        text = " ".join(f"{text.rstrip('.')} ({', '.join(of)})." for text, of in texts.items())
        if len(texts) == 1 and len(having) == len(architectures):
            text = next(iter(texts))
        default = next(iter(having.values())).default
        union[name] = Option(name, hints[name], default, text, tuple(having))
    return union


def current_config(architectures: Architectures, values: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in a model folder, in today's names.

    Earlier versions wrote the options of all architectures, and called the width of the attention
    ``attention`` or ``gate`` and its kind ``attention``.

    Raises:
        ModelError: a field that this version does not know.
        UsageError: an architecture that does not exist.
    """
    values = dict(values)
    made = options_class(architectures, values["architecture"])
    own = {"architecture", *(each.name for each in fields(made))}
    own |= set(architectures[values["architecture"]].size_names)
    if "attention" in values:
        earlier = values.pop("attention")
        values["attention_kind" if isinstance(earlier, str) else "attention_width"] = earlier
        values["attention_width"] = values.pop("gate", values.get("attention_width"))
        foreign = {"attention_kind", "attention_width", *all_options(architectures)} - own
        values = {name: value for name, value in values.items() if name not in foreign}
    if unknown := sorted(set(values) - own):
        raise ModelError(f"the configuration has unknown fields: {unknown}")
    return values

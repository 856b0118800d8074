"""The options of an architecture, and the networks that are built from them.

A frozen dataclass beside each model class owns its options. Everything else reads them from there:
training, command line, recipes, model folders::

    @dataclass(frozen=True)
    class ShowAttendTellOptions(CaptionerOptions):
        attention_width: int = option(256, "Width of the additive attention.", POSITIVE)

The help text is what ``--help`` prints. A Literal type lists what a text may be.

An architecture has a name of ours, or is somebody's own class, ``package.module:Class``. The code
of such a module runs when it is imported, so a name in a file imports nothing by itself: see
``import_architecture``.
"""

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
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

    kind: ClassVar[str]  # captioner or answerer
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
    made = architecture_class(architectures, architecture)
    known = {each.name for each in fields(made.Options)}
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


def import_architecture(architecture: str, *, trust: bool, named_by: str = "") -> None:
    """Import the module of somebody's own architecture; nothing for one of ours.

    A module may lie in the current folder, which is searched last.

    Args:
        architecture: its name.
        trust: whether the code may run; else the module must have been imported.
        named_by: the file that names it, for the message.

    Raises:
        ModelError: it cannot be imported, or must not.
    """
    module, colon, _ = architecture.partition(":")
    if not colon or module in sys.modules:
        return
    where = f"{named_by}{': ' * bool(named_by)}architecture {architecture}"
    if not trust:
        raise ModelError(
            f"{where}: is code that is not of gazetell; expected --trust, in Python trust=True, to "
            "run it"
        )
    if not {"", os.getcwd()} & {*sys.path}:
        sys.path.append(os.getcwd())
    try:
        import_module(module)
    except Exception as error:  # what runs there may raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = "" if last.filename.startswith("<frozen") else f" ({last.filename}:{last.lineno})"
        said = f"{type(error).__name__}: {error}{place}"
        raise ModelError(f"{where}: cannot be imported: {said}") from error


def architecture_class(architectures: Architectures, architecture: str) -> type[Network]:
    """The class of an architecture.

    Raises:
        UsageError: an architecture that does not exist.
        ModelError: somebody's own one whose module is not imported, or lacks such a class.
    """
    if architecture in architectures:
        return architectures[architecture]
    module, colon, name = architecture.partition(":")
    if not colon:
        known = ", ".join(architectures)
        raise UsageError(
            f"--architecture {architecture}: expected one of {known}, or package.module:Class"
        )
    import_architecture(architecture, trust=False)
    made = getattr(sys.modules[module], name, None)
    kinds = sorted({each.kind for each in architectures.values()}, reverse=True)
    if not (isinstance(made, type) and issubclass(made, Network)) or (
        getattr(made, "kind", "") not in kinds
    ):
        bases = " or ".join(f"a {kind}" if kind == "captioner" else f"an {kind}" for kind in kinds)
        raise ModelError(f"architecture {architecture}: expected the class of {bases}")
    base: Any = next(each for each in made.__mro__ if "kind" in vars(each))  # of all of its kind
    if lacking := sorted(getattr(made, "__abstractmethods__", ())):
        said = f"lacks {', '.join(lacking)}; see {base.__name__}"
        raise ModelError(f"architecture {architecture}: {said}")
    options, common = made.Options, base.Options
    if not issubclass(options, common) or "__dataclass_fields__" not in vars(options):
        raise ModelError(
            f"architecture {architecture}: Options: expected a dataclass(frozen=True) that extends "
            f"{common.__name__}"
        )
    return made


def options_class(architectures: Architectures, architecture: str) -> type[Options]:
    """The options of an architecture; errors as of ``architecture_class``."""
    return architecture_class(architectures, architecture).Options


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
            texts.setdefault(each.metadata.get("help", ""), []).append(architecture)
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
    made = architecture_class(architectures, values["architecture"])
    own = {"architecture", *made.size_names, *(each.name for each in fields(made.Options))}
    if "attention" in values:
        earlier = values.pop("attention")
        values["attention_kind" if isinstance(earlier, str) else "attention_width"] = earlier
        values["attention_width"] = values.pop("gate", values.get("attention_width"))
        foreign = {"attention_kind", "attention_width", *all_options(architectures)} - own
        values = {name: value for name, value in values.items() if name not in foreign}
    if unknown := sorted(set(values) - own):
        raise ModelError(f"the configuration has unknown fields: {unknown}")
    return values

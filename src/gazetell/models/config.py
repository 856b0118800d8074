"""Configurations: frozen dataclasses that travel as JSON."""

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

from ..errors import ModelError

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    """Base of the configurations of encoders, captioners and answerers."""

    what: ClassVar[str] = "model"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From ``to_dict``'s values; lists become tuples.

        Raises:
            ModelError: a field that this version does not know.
        """
        if unknown := set(values) - {field.name for field in fields(cls)}:
            raise ModelError(f"{cls.what} configuration has unknown fields: {sorted(unknown)}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

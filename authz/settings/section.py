"""What every section of the settings is."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Self


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the settings; its fields are ``<PREFIX>_<field>`` of ``Settings`` but where ``FLAT`` says otherwise."""

    PREFIX: ClassVar[str]
    FLAT: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def flat_names(cls) -> dict[str, str]:
        """The name in ``Settings`` of every field."""
        return {field.name: cls.FLAT.get(field.name, f"{cls.PREFIX}_{field.name}") for field in fields(cls)}

    @classmethod
    def of(cls, settings: object) -> Self:
        """Take the section out of all settings."""
        return cls(**{name: getattr(settings, flat) for name, flat in cls.flat_names().items()})

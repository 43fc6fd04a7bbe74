"""Settings as a command line shows them: one flag for each field."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from authz.settings.precedence import PREFIX
from authz.settings.settings import Settings


@dataclass(frozen=True, slots=True)
class Flag:
    """One setting as a command line shows it."""

    name: str
    kind: type
    """The type of one value: str, bool, int, float or Path."""
    several: bool
    choices: tuple[str, ...]
    help: str


_NOTHING = ("", "None", "{}", "False")
"""Defaults that are not worth showing."""


def setting_flags() -> Iterator[Flag]:
    """One flag for each setting, in the order of the fields."""
    for name, field in Settings.model_fields.items():
        kind: Any = field.annotation
        if get_origin(kind) in (Union, UnionType):  # `Path | None`
            kind = next(part for part in get_args(kind) if part is not type(None))
        several = get_origin(kind) in (tuple, dict)
        if several:
            kind = get_args(kind)[0]
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        shown = ",".join(field.default) if several else str(field.default)
        yield Flag(
            name,
            kind if kind in (bool, int, float, Path) else str,
            several,
            choices,
            f"{field.description}.  [{PREFIX}{name.upper()}{f'; default: {shown}' if shown not in _NOTHING else ''}]",
        )

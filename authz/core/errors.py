"""
The form of everything that can be wrong with input, and the exception tree.

    AuthzError                 the world failed; carries a message for people
    ├── LoadError              a set of documents was refused; carries every Problem
    ├── FetchError             keys, a provider or another peer could not be reached or answered nonsense
    └── SettingsError          the service's own settings are unusable

A ``Problem`` is a value: wrong input is collected, sorted and reported all at once, never raised one by one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A place in a file. ``line`` and ``column`` count from 1; 0 means the file as a whole."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


NOWHERE = Location("<none>")
"""Used for resources that were built in code rather than read."""


class Severity(StrEnum):
    """ERROR refuses the whole set; WARNING and INFO are only reported."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Problem:
    """
    One thing wrong in what was given.

    ``message`` is one line, lower-case, without a period, the user's text in backticks.
    """

    severity: Severity
    code: str
    """Stable identifier: the clause that says so (``VA-24``), so that it can be looked up and suppressed."""
    message: str
    location: Location
    document: int = 0
    """One-based number of the YAML document in the file; 0 when it does not matter."""
    resource: str = ""
    """``AuthorizationPolicy bookinfo/reviews``, or empty when the document has no identity."""
    path: str = ""
    """Field path, ``spec.rules[0].from[0].source.ipBlocks[1]``."""
    help: str = ""

    @property
    def is_error(self) -> bool:
        """Whether it refuses the whole set."""
        return self.severity is Severity.ERROR

    def __str__(self) -> str:
        place = [str(self.location)]
        if self.document:
            place.append(f"document {self.document}")
        head = ": ".join(place) if not self.document else f"{place[0]}: {place[1]}"
        if self.resource:
            head += f", {self.resource}" if self.document else f": {self.resource}"
        text = f"{head}: {self.severity}: {self.path + ': ' if self.path else ''}{self.message} [{self.code}]"
        return f"{text}\n  help: {self.help}" if self.help else text


def sort_problems(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Sort by file, line, column, field path: the order in which a person meets them."""
    return tuple(sorted(problems, key=lambda p: (p.location, p.path, p.code, p.message)))


class AuthzError(Exception):
    """Base of the tree; never raised itself."""


class LoadError(AuthzError):
    """A set of documents was refused. ``problems`` holds all of them, warnings too."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sort_problems(problems)
        errors = sum(p.is_error for p in self.problems)
        super().__init__(f"{errors} error{'s' if errors != 1 else ''} in the given documents")


class FetchError(AuthzError):
    """Something outside could not be fetched or asked; the message says what, from where, and why."""


class SettingsError(AuthzError):
    """The service's settings are unusable; the message names the setting."""

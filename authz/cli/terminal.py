"""
The output of commands: exit codes, problems, tables, JSON.

Answers go to stdout, remarks to stderr. Colour only on a terminal and never with ``NO_COLOR``. The user's text is
printed as text: no markup, no control characters, and nothing that looks like a token. Without colour rich is not
loaded, which would take a sixth of the time of ``authz validate``.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from authz.core.attributes import Json
from authz.core.decision import RuleReference
from authz.core.errors import NOWHERE, Problem, Severity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

PLAIN_WIDTH = 10_000
"""Without a terminal nothing is wrapped: lines belong to grep."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_STEERING = re.compile(r"[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What JSON leaves as it is and a terminal may obey: C1 controls and changes of direction."""
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_=-]*(?:\.[A-Za-z0-9_=-]*)?")
"""A JWT begins with ``{"`` in base64url."""
_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.INFO: "bold cyan"}
_DECIDED = ("FORCE_COLOR", "TTY_COMPATIBLE")
"""Variables by which a user decides what is a terminal; rich reads them."""


class Exit(IntEnum):
    """Exit codes of every command (users-and-interfaces: conventions)."""

    YES = 0
    FAILED = 1
    """Could not answer: unreadable files, refused policies, nothing to do."""
    USAGE = 2
    NO = 3
    """Denied, problems found, a test failed."""


def answers() -> "Console":
    """The console of stdout."""
    return _console(stderr=False)


def remarks() -> "Console":
    """The console of stderr."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def clean(text: str) -> str:
    """Make text that a user or a client wrote fit to print: control characters shown, tokens hidden."""
    text = _TOKEN.sub("(token hidden)", text)
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def say(line: str = "", style: str = "", console: "Console | None" = None) -> None:
    """Print one line of the answer, cleaned."""
    _print([(clean(line), style)], console)


def remark(line: str) -> None:
    """Print one line to stderr, cleaned."""
    _print([(clean(line), "")], stderr=True)


def _print(pieces: Sequence[tuple[str, str]], console: "Console | None" = None, *, stderr: bool = False) -> None:
    """Print text with styles and end the line."""
    stream: TextIO = sys.stderr if stderr else sys.stdout
    if console is None and not stream.isatty() and not any(os.environ.get(name) for name in _DECIDED):
        stream.write("".join(text for text, _ in pieces).expandtabs() + "\n")
        stream.flush()
        return
    from rich.text import Text

    (console or _console(stderr=stderr)).print(Text.assemble(*pieces))


def print_lines(lines: "Iterable[Text]", console: "Console") -> None:
    """
    Print cleaned lines, of which there may be very many; without a terminal they go out unchanged, which is a hundred
    times faster.
    """
    if console.is_terminal or console.color_system is not None:
        for line in lines:
            console.print(line)
    else:
        for line in lines:
            console.file.write(f"{line.plain}\n")


def print_json(value: Json, *, indent: int | None = 2) -> None:
    """
    Print JSON with stable order; tokens in any text are hidden, and what would steer a terminal is escaped. Without
    ``indent`` on one line.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8", "surrogateescape")
    shown = _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text.decode("utf-8", "backslashreplace"))
    click.echo(_TOKEN.sub("(token hidden)", shown))


def print_problems(problems: Iterable[Problem], console: "Console | None" = None) -> None:
    """Print problems in the order given."""
    for problem in problems:
        _print(_pieces(problem), console)


def _pieces(problem: Problem) -> list[tuple[str, str]]:
    """Render a problem: where, then what, then what to do."""
    about = [f"document {problem.document}"] if problem.document else []
    about += [problem.resource] if problem.resource else []
    field = f"{problem.path}: " if problem.path else ""
    return [
        (clean(f"{problem.location}: {', '.join(about)}{':' if about else ''}".rstrip()), "bold"),
        ("\n  ", ""),
        (str(problem.severity), _STYLES[problem.severity]),
        (clean(f": {field}{problem.message} [{problem.code}]"), ""),
        (clean(f"\n  help: {problem.help}") if problem.help else "", ""),
    ]


def problem_json(problem: Problem) -> dict[str, Json]:
    """A problem with the documented fields."""
    return {
        "severity": problem.severity.value,
        "code": problem.code,
        "message": clean(problem.message),
        "file": problem.location.file,
        "line": problem.location.line or None,
        "column": problem.location.column or None,
        "document": problem.document or None,
        "resource": clean(problem.resource) or None,
        "path": clean(problem.path) or None,
        "help": clean(problem.help) or None,
    }


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def place(rule: RuleReference) -> str:
    """``shop/reads/0 at policies/shop.yaml:7``."""
    known = rule.location is not NOWHERE
    return f"{rule.short} at {rule.location.file}:{rule.location.line}" if known else rule.short


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns."""
    cleaned = [[clean(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in (list(heads), *cleaned)) for at in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    _print([(line(heads), "bold")])
    for row in cleaned:
        _print([(line(row), "")])


def answer_form(*forms: str, name: str = "output") -> Callable[[Decorated], Decorated]:
    """The option ``-o``, ``--output`` of every command that answers; the first form is the one for people."""
    return click.option(
        "-o",
        "--output",
        name,
        type=click.Choice(forms),
        default=forms[0],
        show_default=True,
        help="Form of the answer.",
    )


def is_terminal() -> bool:
    """Whether a person watches stderr: the place of progress."""
    return sys.stderr.isatty()

"""
One template: what documents that are alike have in common, and where in them the texts stand that may differ.

``learning`` makes templates, ``templates`` says which documents are alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from operator import itemgetter
from typing import Any

from authz.core.errors import Location
from authz.documents.nodes import Kind, kind_of_plain
from authz.documents.schema import Check
from authz.documents.splitting import Slice
from authz.policy.memory import Found

TRIALS = 2
"""How many documents of each template are read both ways."""


@dataclass(slots=True)
class TemplateSlot:
    """A text that may differ: words ``first`` to ``last`` of the document, and some characters around them."""

    first: int
    before: int
    last: int
    after: int
    is_plain: bool
    checks: tuple[Check, ...]


@dataclass(slots=True)
class Column:
    """A place in a line with such texts before it: where it stands, and where its line begins."""

    part: int
    offset: int
    line_part: int
    line_offset: int
    line: int


@dataclass(slots=True)
class Template:
    """How a resource is built from the words of a document: texts, places and constants, then step by step."""

    slots: list[TemplateSlot]
    pattern: tuple[int, ...]
    """For each text the position of the first equal one; empty for one rule, which cannot be repeated."""
    columns: list[Column]
    constants: list[object]
    steps: list[tuple[Callable[..., Any], Callable[[list[Any]], Any]]]
    resource: int
    facts: int
    place: Column
    number: int
    trials: int = TRIALS

    def read(self, file: str, words: list[str], part: Slice, number: int) -> Found | None:
        """The resource of a document; None when one of its texts does not pass."""
        ends, text = [0, *accumulate(map(len, words))], "".join(words)
        values: list[Any] = []
        for slot in self.slots:
            value = text[ends[slot.first] - slot.before : ends[slot.last + 1] + slot.after]
            if slot.is_plain and kind_of_plain(value) is not Kind.TEXT:
                return None
            for check in slot.checks:
                if check(value) is not None:
                    return None
            values.append(value)
        if self.pattern and pattern_of(values) != self.pattern:
            return None
        values += [_place(file, column, ends, part.line) for column in self.columns]
        values += self.constants
        for build, arguments in self.steps:
            values.append(build(*arguments(values)))
        facts = sha256(repr(values[self.facts]).encode()).digest()
        return Found(values[self.resource], facts, _place(file, self.place, ends, part.line), number + self.number, "")


def getter(indices: list[int]) -> Callable[[list[Any]], tuple[Any, ...]]:
    """Like ``itemgetter``, but always a tuple."""
    if not indices:
        return lambda _: ()
    if len(indices) == 1:
        only = indices[0]
        return lambda values: (values[only],)
    return itemgetter(*indices)


def pattern_of(values: list[str]) -> tuple[int, ...]:
    """Which of some texts are equal: for each the position of the first equal one."""
    first: dict[str, int] = {}
    return tuple(first.setdefault(value, number) for number, value in enumerate(values))


def _place(file: str, column: Column, ends: list[int], first_line: int) -> Location:
    at = ends[column.part] + column.offset - ends[column.line_part] - column.line_offset
    return Location(file, first_line + column.line, at + 1)

"""
How a document that was read becomes a template: which of its texts may differ, and how its resource is built from them.

This must not bypass checks that look at several texts at once: ``_TEXTS`` and ``_differing`` see to that.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from itertools import accumulate
from typing import Any

from authz.core.errors import Location
from authz.core.resources import AuthorizationPolicy, Condition, Metadata, Operation, Source, Target
from authz.documents.nodes import Scalar
from authz.documents.schema import Check
from authz.documents.splitting import Slice
from authz.policy.memory import Found
from authz.policy.template import Column, Template, TemplateSlot, getter, pattern_of
from authz.policy.version import facts_of

Checked = dict[int, tuple[Scalar, list[Check]]]
"""The texts of a document that only have to pass some checks, by the ``id`` of their nodes."""

MAX_WORD = 256
_TEXTS = {
    Metadata: ("name", "namespace"),
    Target: ("match_labels",),
    Condition: ("values",),
    Source: tuple(field.name for field in fields(Source)),
    Operation: tuple(field.name for field in fields(Operation)),
}
"""Fields whose text may differ: they are looked at one by one, by their checks alone."""


class Unfit(Exception):
    """This document does not make a template."""


class Learning:
    """Makes a template of one document."""

    def __init__(self, file: str, words: list[str], part: Slice, found: Found, number: int, checked: Checked) -> None:
        self._file, self._words, self._part, self._found, self._number = file, words, part, found, number
        self._checked = checked
        self._ends = [0, *accumulate(map(len, words))]
        self._lines = [0, *accumulate(len(line) + 1 for line in "".join(words).split("\n")[:-1])]
        self._slots: list[TemplateSlot] = []
        self._columns: list[Column] = []
        self._constants: list[object] = []
        self._steps: list[tuple[Callable[..., Any], list[tuple[str, int]]]] = []
        self._texts: dict[int, int] = {}
        """Slots by the ``id`` of their text."""

    def template(self) -> tuple[Template, list[int]]:
        """The template, and the numbers of the words that must be the same. Raises Unfit."""
        resource = self._found.resource
        assert isinstance(resource, AuthorizationPolicy), "others are not learnt"
        allowed = set(_differing(resource))
        written = Counter(id(node.value) for node, _ in self._checked.values())
        for node, checks in self._checked.values():
            # Python has one object for each text of one character: which of two equal ones a field holds is not known.
            if id(node.value) in allowed and len(node.value) > 1 and written[id(node.value)] == 1:
                self._slot(node, tuple(checks))
        if not self._slots:
            raise Unfit
        made, facts = self._make(resource), self._make(facts_of(resource))
        if made is None or facts is None:
            raise Unfit
        taken = {number for slot in self._slots for number in range(slot.first, slot.last + 1)}
        fixed = [number for number in range(1, len(self._words), 2) if number not in taken]
        values = [self._text_of(slot) for slot in self._slots]
        template = Template(
            self._slots,
            pattern_of(values) if len(resource.rules) > 1 else (),
            self._columns,
            self._constants,
            [(build, getter([self._at(one) for one in arguments])) for build, arguments in self._steps],
            self._at(made),
            self._at(facts),
            self._column(self._found.place),
            self._found.number - self._number,
        )
        return template, fixed

    def _at(self, made: tuple[str, int]) -> int:
        """Where a value stands among all values: texts, places, constants, then what the steps build."""
        kind, number = made
        before = {
            "text": 0,
            "place": len(self._slots),
            "constant": len(self._slots) + len(self._columns),
            "step": len(self._slots) + len(self._columns) + len(self._constants),
        }
        return before[kind] + number

    def _text_of(self, slot: TemplateSlot) -> str:
        return "".join(self._words)[self._ends[slot.first] - slot.before : self._ends[slot.last + 1] + slot.after]

    def _slot(self, node: Scalar, checks: tuple[Check, ...]) -> None:
        """Find a text among the words; what is not found as it is written stays as it is."""
        text = "".join(self._words)
        begin = self._lines[node.line - self._part.line] + node.column - 1 + (1 if node.style else 0)
        end = begin + len(node.value)
        if node.style not in ("", "'", '"') or text[begin:end] != node.value or "\n" in node.value:
            return
        if node.style and text[end : end + 1] != node.style:
            return
        inside = [
            number
            for number in range(1, len(self._words), 2)
            if begin <= self._ends[number] and self._ends[number + 1] <= end
        ]
        if not inside or any(len(self._words[number]) > MAX_WORD for number in inside):
            return
        first, last = inside[0], inside[-1]
        self._texts[id(node.value)] = len(self._slots)
        self._slots.append(
            TemplateSlot(
                first,
                self._ends[first] - begin,
                last,
                end - self._ends[last + 1],
                not node.style,
                tuple(dict.fromkeys(checks)),
            )
        )

    def _column(self, place: Location) -> Column:
        line = place.line - self._part.line
        begin = self._lines[line]
        return Column(*self._within(begin + place.column - 1), *self._within(begin), line)

    def _within(self, offset: int) -> tuple[int, int]:
        """A place in the text as one in a word or between words, never at the end of a word that may differ."""
        number = next(
            number
            for number in range(len(self._words))
            if self._ends[number + 1] > offset or number + 1 == len(self._words)
        )
        return number, offset - self._ends[number]

    def _make(self, value: Any) -> tuple[str, int]:
        """Note how a value is built."""
        if isinstance(value, Location):
            self._columns.append(self._column(value))
            return "place", len(self._columns) - 1
        if type(value) is str and id(value) in self._texts:
            return "text", self._texts[id(value)]
        parts, build = _taken_apart(value)
        made = [self._make(part) for part in parts]
        if build is None or all(kind == "constant" for kind, _ in made):
            self._constants.append(value)
            return "constant", len(self._constants) - 1
        self._steps.append((build, made))
        return "step", len(self._steps) - 1


def _pack(*values: Any) -> tuple[Any, ...]:
    return values


def _taken_apart(value: Any) -> tuple[list[Any], Callable[..., Any] | None]:
    """The parts of a value, and what builds it from them."""
    if isinstance(value, tuple):
        return list(value), _pack
    if isinstance(value, list):
        return value, lambda *items: list(items)
    if isinstance(value, dict):
        names = list(value)
        return list(value.values()), lambda *items: dict(zip(names, items, strict=True))
    if is_dataclass(value):
        return [getattr(value, field.name) for field in fields(value)], type(value)
    return [], None


def _differing(value: Any, *, is_text: bool = False) -> Iterator[int]:
    """
    The texts of a resource that may differ, by ``id``.

    Raises Unfit for one with negations: single texts do not show whether two lists contradict each other.
    """
    if type(value) is str:
        if is_text:
            yield id(value)
    elif isinstance(value, tuple):
        for item in value:
            yield from _differing(item, is_text=is_text)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _differing(item, is_text=is_text)
    elif is_dataclass(value):
        texts = _TEXTS.get(type(value), ())
        for field in fields(value):
            part = getattr(value, field.name)
            if field.name.startswith("not_") and part:
                raise Unfit
            yield from _differing(part, is_text=field.name in texts)

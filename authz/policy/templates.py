"""
Documents that differ in nothing but some texts, as thousands do: read once as YAML, then by what differs.

A document is cut at its words; what stands between them, and every word that is not one of the texts, must be the same
character by character as in a document that was read without any problem. The words that differ then stand in scalars
of one line without escapes, so YAML cannot see another structure in them, and each text has to pass the checks that the
first one passed. What fits no template is read as ever, and the first documents of each template are read both ways.
Checks that look at several texts at once must not be passed over by this: ``_TEXTS`` and ``_differing`` say which.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from hashlib import sha256
from itertools import accumulate
from operator import itemgetter
from typing import Any

from authz.core.errors import Location
from authz.core.resources import AuthorizationPolicy, Condition, Metadata, Operation, Source, Target
from authz.documents.nodes import Kind, Scalar, kind_of_plain
from authz.documents.schema import Check
from authz.documents.splitting import Part
from authz.policy.memory import Found
from authz.policy.version import facts_of

Checked = dict[int, tuple[Scalar, list[Check]]]
"""The texts of a document that only have to pass some checks, by the ``id`` of their nodes."""

_WORDS = re.compile("([A-Za-z0-9][A-Za-z0-9_-]*)")
_NEVER = re.compile(r"[\\&!%|>?\t]|[^\n -~]")
"""Escapes, anchors, tags, directives, texts of several lines; anything but ASCII."""
MAX_LINE = 1_000
"""YAML looks no further than 1,024 characters for the colon after a key."""
MAX_WORD = 256
MAX_SHAPES, MAX_TEMPLATES = 4_096, 32
"""Shapes known at once, and templates of one shape: what is not alike shall cost little."""
TRIALS = 2
"""Documents of each template that are read both ways."""
_TEXTS = {
    Metadata: ("name", "namespace"),
    Target: ("match_labels",),
    Condition: ("values",),
    Source: tuple(field.name for field in fields(Source)),
    Operation: tuple(field.name for field in fields(Operation)),
}
"""Where a text may differ: fields that are looked at one by one, by their checks alone."""


class _Unfit(Exception):
    """This document makes no template."""


@dataclass(slots=True)
class _Slot:
    """A text that may differ: words ``first`` to ``last`` of the document, and some characters around them."""

    first: int
    before: int
    last: int
    after: int
    is_plain: bool
    checks: tuple[Check, ...]


@dataclass(slots=True)
class _Column:
    """A place in a line that has such texts before it: where it stands, and where its line begins."""

    part: int
    offset: int
    line_part: int
    line_offset: int
    line: int


@dataclass(slots=True)
class _Template:
    slots: list[_Slot]
    pattern: tuple[int, ...]
    """Which of the texts are equal, the position of the first that is; empty for one rule, which cannot be repeated."""
    columns: list[_Column]
    constants: list[object]
    steps: list[tuple[Callable[..., Any], Callable[[list[Any]], Any]]]
    resource: int
    facts: int
    place: _Column
    number: int
    trials: int = TRIALS

    def read(self, file: str, words: list[str], part: Part, number: int) -> Found | None:
        """The resource of a document; None when a text of it does not pass."""
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
        if self.pattern and _pattern(values) != self.pattern:
            return None
        values += [_place(file, column, ends, part.line) for column in self.columns]
        values += self.constants
        for build, arguments in self.steps:
            values.append(build(*arguments(values)))
        facts = sha256(repr(values[self.facts]).encode()).digest()
        return Found(values[self.resource], facts, _place(file, self.place, ends, part.line), number + self.number, "")


@dataclass(slots=True)
class _Shape:
    """All documents with the same text between their words."""

    fixed: Callable[[list[str]], Any] | None = None
    """Takes the words that must be the same; None until the first template."""
    templates: dict[Any, _Template | None] | None = None
    """By those words; None is one that failed its trial."""


class Templates:
    """Learns from documents that were read, and reads those that are alike; for one reading of a set."""

    def __init__(self) -> None:
        self._shapes: dict[str, _Shape | None] = {}

    def read(self, file: str, part: Part, number: int) -> tuple[Found | None, bool]:
        """What a document comes to, and whether that is certain; uncertain is what is still on trial."""
        words = self._cut(part)
        shape = self._shapes.get(_shape_of(words)) if words else None
        if shape is None or shape.fixed is None or shape.templates is None:
            return None, False
        template = shape.templates.get(shape.fixed(words))
        if template is None:
            return None, False
        return template.read(file, words, part, number), template.trials <= 0

    def learn(self, file: str, part: Part, found: Found, number: int, checked: Checked, tried: Found | None) -> None:
        """Take what a document came to that was read without problems; ``tried`` is what a template made of it."""
        words = self._cut(part)
        if not words or not isinstance(found.resource, AuthorizationPolicy):
            return
        key = _shape_of(words)
        if key not in self._shapes:
            if len(self._shapes) < MAX_SHAPES:
                self._shapes[key] = None  # seen once; what comes but once needs no template
            return
        shape = self._shapes[key] = self._shapes[key] or _Shape()
        if tried is not None and shape.fixed is not None and shape.templates is not None:
            at = shape.fixed(words)
            template = shape.templates[at]
            if template is not None:
                template.trials -= 1
                if tried != found:
                    shape.templates[at] = None
            return
        known = shape.templates or {}
        if len(known) >= MAX_TEMPLATES or (shape.fixed is not None and shape.fixed(words) in known):
            return  # enough of them; or known, and this document has a text that does not pass
        try:
            template, fixed = _Learning(file, words, part, found, number, checked).template()
        except _Unfit:
            self._shapes[key] = _Shape(lambda _: (), {})  # no other document of this shape fits either
            return
        if shape.templates is None or shape.fixed is None:
            shape.fixed, shape.templates = _getter(fixed), {}
        elif shape.fixed(words) != _getter(fixed)(words):
            return
        shape.templates.setdefault(shape.fixed(words), template)

    @staticmethod
    def _cut(part: Part) -> list[str]:
        """The words of a document and what stands between, in turn; nothing when it can have no template."""
        text = part.text.decode("utf-8")
        if _NEVER.search(text) or (len(text) >= MAX_LINE and max(map(len, text.split("\n"))) >= MAX_LINE):
            return []
        return _WORDS.split(text)


def _shape_of(words: list[str]) -> str:
    return "\0".join(words[::2])


def _getter(indices: list[int]) -> Callable[[list[Any]], tuple[Any, ...]]:
    """As ``itemgetter``, and always a tuple."""
    if not indices:
        return lambda _: ()
    if len(indices) == 1:
        only = indices[0]
        return lambda values: (values[only],)
    return itemgetter(*indices)


def _pattern(values: list[str]) -> tuple[int, ...]:
    first: dict[str, int] = {}
    return tuple(first.setdefault(value, number) for number, value in enumerate(values))


def _place(file: str, column: _Column, ends: list[int], first_line: int) -> Location:
    at = ends[column.part] + column.offset - ends[column.line_part] - column.line_offset
    return Location(file, first_line + column.line, at + 1)


def _pack(*values: Any) -> tuple[Any, ...]:
    return values


class _Learning:
    """Makes a template of one document."""

    def __init__(self, file: str, words: list[str], part: Part, found: Found, number: int, checked: Checked) -> None:
        self._file, self._words, self._part, self._found, self._number = file, words, part, found, number
        self._checked = checked
        self._ends = [0, *accumulate(map(len, words))]
        self._lines = [0, *(match.end() for match in re.finditer("\n", "".join(words)))]
        self._slots: list[_Slot] = []
        self._columns: list[_Column] = []
        self._constants: list[object] = []
        self._steps: list[tuple[Callable[..., Any], list[tuple[str, int]]]] = []
        self._texts: dict[int, int] = {}
        """Slots by the ``id`` of their text."""

    def template(self) -> tuple[_Template, list[int]]:
        """The template, and the numbers of the words that must be the same. Raises _Unfit."""
        resource = self._found.resource
        assert isinstance(resource, AuthorizationPolicy), "others are not learnt"
        allowed = set(_differing(resource))
        written = Counter(id(node.value) for node, _ in self._checked.values())
        for node, checks in self._checked.values():
            # Python keeps texts of one character once for all: which of two equal ones a field holds cannot be told.
            if id(node.value) in allowed and len(node.value) > 1 and written[id(node.value)] == 1:
                self._slot(node, tuple(checks))
        if not self._slots:
            raise _Unfit
        made, facts = self._make(resource), self._make(facts_of(resource))
        if made is None or facts is None:
            raise _Unfit
        taken = {number for slot in self._slots for number in range(slot.first, slot.last + 1)}
        fixed = [number for number in range(1, len(self._words), 2) if number not in taken]
        values = [self._text_of(slot) for slot in self._slots]
        template = _Template(
            self._slots,
            _pattern(values) if len(resource.rules) > 1 else (),
            self._columns,
            self._constants,
            [(build, _getter([self._at(one) for one in arguments])) for build, arguments in self._steps],
            self._at(made),
            self._at(facts),
            self._column(self._found.place),
            self._found.number - self._number,
        )
        return template, fixed

    def _at(self, made: tuple[str, int]) -> int:
        """Where a value stands among all: texts, places, constants, then what the steps build."""
        kind, number = made
        before = {
            "text": 0,
            "place": len(self._slots),
            "constant": len(self._slots) + len(self._columns),
            "step": len(self._slots) + len(self._columns) + len(self._constants),
        }
        return before[kind] + number

    def _text_of(self, slot: _Slot) -> str:
        return "".join(self._words)[self._ends[slot.first] - slot.before : self._ends[slot.last + 1] + slot.after]

    def _slot(self, node: Scalar, checks: tuple[Check, ...]) -> None:
        """Find a text among the words; what cannot be found as it is written stays as it is."""
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
            _Slot(
                first,
                self._ends[first] - begin,
                last,
                end - self._ends[last + 1],
                not node.style,
                tuple(dict.fromkeys(checks)),
            )
        )

    def _column(self, place: Location) -> _Column:
        line = place.line - self._part.line
        begin = self._lines[line]
        return _Column(*self._within(begin + place.column - 1), *self._within(begin), line)

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

    Raises _Unfit for one with negations: whether two lists contradict one another is no question of single texts.
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
                raise _Unfit
            yield from _differing(part, is_text=field.name in texts)

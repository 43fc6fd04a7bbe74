"""
Field access for the documents of a mesh description: every accessor notes what is wrong and answers a usable value.

So one pass reports every problem with its place, and the readers of kinds stay free of error handling.
Codes: ``ME-1`` shape of a field, ``ME-2`` unknown field, ``ME-3`` missing field, ``ME-4`` a name that leads nowhere,
``ME-5`` a clash between two documents, ``ME-6`` something of Istio's that this rendering does not do.
"""

from difflib import get_close_matches
from enum import StrEnum
from typing import TypeVar

from authz.core.errors import Location, Problem, Severity
from authz.documents.reading import Document, Kind, Mapping, Node, Scalar, Sequence

E = TypeVar("E", bound=StrEnum)

MAX_PORT = 65535


class Part:
    """A mapping inside a document. ``problems`` is shared by all parts of one reading."""

    def __init__(self, document: Document, node: Mapping, path: str, resource: str, problems: list[Problem]) -> None:
        self.document = document
        self.node = node
        self.path = path
        self.resource = resource
        self.problems = problems

    @property
    def location(self) -> Location:
        """Where the mapping begins."""
        return Location(self.document.file, self.node.line, self.node.column)

    def note(self, code: str, message: str, field: str = "", help_text: str = "", at: Node | None = None) -> None:
        """Note an error at ``field`` of this mapping (or at its beginning)."""
        place = at or self.node.entries.get(field) or self.node
        location = Location(self.document.file, place.line, place.column)
        path = self._below(field) if field else self.path
        self.problems.append(
            Problem(Severity.ERROR, code, message, location, self.document.number, self.resource, path, help_text)
        )

    def only(self, *known: str) -> None:
        """Note every field that is not in ``known``."""
        for key in self.node.keys:
            if key.value not in known:
                near = get_close_matches(key.value, known, n=1)
                hint = f"; did you mean `{near[0]}`?" if near else ""
                fields = ", ".join(f"`{name}`" for name in known)
                self.note("ME-2", f"unknown field `{key.value}`{hint}", key.value, f"understood here: {fields}", key)

    def has(self, field: str) -> bool:
        """Whether the field is there and not null."""
        node = self.node.entries.get(field)
        return node is not None and not node.is_null

    def text(self, field: str, default: str = "", *, required: bool = False) -> str:
        """A text, or ``default``; what is missing or of another type is noted."""
        node = self.node.entries.get(field)
        if node is None or node.is_null:
            if required:
                self.note("ME-3", f"`{field}` is missing", field)
            return default
        return self._text(node, field, default)

    def texts(self, field: str, *, required: bool = False) -> tuple[str, ...]:
        """A list of texts; empty when it is absent, noted when it is ``required``."""
        found = tuple(self._text(item, f"{field}[{i}]", "") for i, item in enumerate(self._items(field)))
        if required and not found and not self.has(field):
            self.note("ME-3", f"`{field}` is missing", field)
        return found

    def port(self, field: str, *, required: bool = False) -> int:
        """A port number; 0 when it is absent or wrong."""
        node = self.node.entries.get(field)
        if node is None or node.is_null:
            if required:
                self.note("ME-3", f"`{field}` is missing", field)
            return 0
        value = node.value if isinstance(node, Scalar) and node.kind is Kind.NUMBER else ""
        if value.isascii() and value.isdigit() and 0 < int(value) <= MAX_PORT:
            return int(value)
        self.note("ME-1", f"`{value or _shape(node)}` is not a port", field, "a port is a number from 1 to 65535")
        return 0

    def number(self, field: str, default: int) -> int:
        """A whole number, 0 or more."""
        node = self.node.entries.get(field)
        if node is None or node.is_null:
            return default
        if isinstance(node, Scalar) and node.kind is Kind.NUMBER and node.value.isdigit():
            return int(node.value)
        self.note("ME-1", f"expected a whole number, got {_shape(node)}", field)
        return default

    def choice(self, field: str, kind: type[E], default: E) -> E:
        """One of an enumeration's values, or ``default``; another value is noted."""
        written = self.text(field)
        if not written:
            return default
        try:
            return kind(written)
        except ValueError:
            self.note("ME-1", f"`{written}` is none of {', '.join(kind)}", field)
            return default

    def strings(self, field: str) -> dict[str, str]:
        """A mapping of strings: labels, annotations."""
        part = self.part(field)
        return {key: part.text(key) for key in part.node.entries} if part else {}

    def part(self, field: str, *, required: bool = False) -> "Part | None":
        """A mapping within this one; None when it is absent, noted when it is ``required``."""
        node = self.node.entries.get(field)
        if node is None or node.is_null:
            if required:
                self.note("ME-3", f"`{field}` is missing", field)
            return None
        if isinstance(node, Mapping):
            return Part(self.document, node, self._below(field), self.resource, self.problems)
        self.note("ME-1", f"expected a mapping, got {_shape(node)}", field)
        return None

    def parts(self, field: str) -> "list[Part]":
        """A list of mappings; items of another type are noted and left out."""
        found = []
        for i, item in enumerate(self._items(field)):
            name = f"{field}[{i}]"
            if isinstance(item, Mapping):
                found.append(Part(self.document, item, self._below(name), self.resource, self.problems))
            else:
                self.note("ME-1", f"expected a mapping, got {_shape(item)}", name, at=item)
        return found

    def _items(self, field: str) -> list[Node]:
        node = self.node.entries.get(field)
        if node is None or node.is_null:
            return []
        if isinstance(node, Sequence):
            return node.items
        self.note("ME-1", f"expected a list, got {_shape(node)}", field)
        return []

    def _text(self, node: Node, field: str, default: str) -> str:
        if isinstance(node, Scalar) and node.kind is Kind.TEXT:
            return node.value
        self.note("ME-1", f"expected a string, got {_shape(node)}", field, "put it in quotes", at=node)
        return default

    def _below(self, field: str) -> str:
        return f"{self.path}.{field}" if self.path else field


def _shape(node: Node) -> str:
    if isinstance(node, Scalar):
        return f"the {node.kind} `{node.value}`" if not node.is_null else "null"
    return "a list" if isinstance(node, Sequence) else "a mapping"

"""
Documents read by asking for fields by name: every accessor notes what is wrong and returns a usable value.

So one pass reports every problem with its place, and readers stay free of error handling. For documents whose fields
depend on each other, such as mesh descriptions; where a table of fields says it all, use ``schema.Shape``.
"""

from enum import StrEnum
from typing import NamedTuple, TypeVar

from authz.core.errors import Location, Severity
from authz.documents.reading import Kind, Mapping, Node, Scalar, Sequence
from authz.documents.schema import Notes, describe, given, note_unknown

E = TypeVar("E", bound=StrEnum)

MAX_PORT = 65535


class Codes(NamedTuple):
    """The codes of the problems that the accessors themselves find."""

    shape: str
    unknown: str
    missing: str


class Part:
    """A mapping inside a document, at the field path ``path``; ``notes`` are shared by all parts of one document."""

    def __init__(self, node: Mapping, path: str, notes: Notes, codes: Codes) -> None:
        self.node = node
        self.path = path
        self.notes = notes
        self.codes = codes

    @property
    def location(self) -> Location:
        """Where the mapping begins."""
        return self.notes.place(self.node)

    def note(self, code: str, message: str, field: str = "", help_text: str = "", at: Node | None = None) -> None:
        """Note an error at ``field`` of this mapping (or at its beginning)."""
        self._add(Severity.ERROR, code, message, field, help_text, at)

    def warn(self, code: str, message: str, field: str = "", help_text: str = "") -> None:
        """Note at ``field`` what is valid, but probably does not mean what it seems to."""
        self._add(Severity.WARNING, code, message, field, help_text)

    def remark(self, code: str, message: str, field: str = "", help_text: str = "") -> None:
        """Note at ``field`` what somebody may want to know; nothing needs to be done."""
        self._add(Severity.INFO, code, message, field, help_text)

    def _add(
        self, severity: Severity, code: str, message: str, field: str, help_text: str, at: Node | None = None
    ) -> None:
        place = at or self._node_at(field) or self.node
        path = self._below(field) if field else self.path
        self.notes.add(severity, code, place, message, help_text, path)

    def _node_at(self, field: str) -> Node | None:
        """The node of a field, or of one item of a list (``hosts[1]``)."""
        name, _, index = field.removesuffix("]").partition("[")
        node = self.node.entries.get(name)
        if isinstance(node, Sequence) and index.isdigit() and int(index) < len(node.items):
            return node.items[int(index)]
        return node

    def only(self, *known: str) -> None:
        """Note every field that is not in ``known``."""
        for key in self.node.keys:
            if key.value not in known:
                note_unknown(key.value, self.node, known, self.notes, self.codes.unknown)

    def has(self, field: str) -> bool:
        """Whether the field is there and not null."""
        return given(self.node, field) is not None

    def text(self, field: str, default: str = "", *, required: bool = False) -> str:
        """A text, or ``default``; what is missing or of another type is noted."""
        node = given(self.node, field)
        if node is None:
            if required:
                self.note(self.codes.missing, f"`{field}` is missing", field)
            return default
        return self._text(node, field, default)

    def texts(self, field: str, *, required: bool = False) -> tuple[str, ...]:
        """A list of texts; empty when it is absent, noted when it is ``required``."""
        found = tuple(self._text(item, f"{field}[{i}]", "") for i, item in enumerate(self._items(field)))
        if required and not found and not self.has(field):
            self.note(self.codes.missing, f"`{field}` is missing", field)
        return found

    def port(self, field: str, *, required: bool = False) -> int:
        """A port number; 0 when it is absent or wrong."""
        node = given(self.node, field)
        if node is None:
            if required:
                self.note(self.codes.missing, f"`{field}` is missing", field)
            return 0
        value = node.value if isinstance(node, Scalar) and node.kind is Kind.NUMBER else ""
        if value.isascii() and value.isdigit() and len(value) <= 5 and 0 < int(value) <= MAX_PORT:
            return int(value)
        self.note(
            self.codes.shape, f"`{value or describe(node)}` is not a port", field, "a port is a number from 1 to 65535"
        )
        return 0

    def number(self, field: str, default: int) -> int:
        """A whole number, 0 or more."""
        node = given(self.node, field)
        if node is None:
            return default
        if isinstance(node, Scalar) and node.kind is Kind.NUMBER and node.value.isdigit() and len(node.value) <= 9:
            return int(node.value)
        self.note(self.codes.shape, f"expected a whole number, got {describe(node)}", field)
        return default

    def choice(self, field: str, kind: type[E], default: E) -> E:
        """One of an enumeration's values, or ``default``; another value is noted."""
        written = self.text(field)
        if not written:
            return default
        try:
            return kind(written)
        except ValueError:
            self.note(self.codes.shape, f"`{written}` is not one of {', '.join(kind)}", field)
            return default

    def strings(self, field: str) -> dict[str, str]:
        """A mapping of strings: labels, annotations."""
        part = self.part(field)
        return {key: part.text(key) for key in part.node.entries} if part else {}

    def part(self, field: str, *, required: bool = False, help_text: str = "") -> "Part | None":
        """A mapping within this one; None when it is absent, noted when it is ``required``."""
        node = given(self.node, field)
        if node is None:
            if required:
                self.note(self.codes.missing, f"`{field}` is missing", field)
            return None
        if isinstance(node, Mapping):
            return Part(node, self._below(field), self.notes, self.codes)
        self.note(self.codes.shape, f"expected a mapping, got {describe(node)}", field, help_text)
        return None

    def parts(self, field: str) -> "list[Part]":
        """A list of mappings; items of another type are noted and left out."""
        found = []
        for i, item in enumerate(self._items(field)):
            name = f"{field}[{i}]"
            if isinstance(item, Mapping):
                found.append(Part(item, self._below(name), self.notes, self.codes))
            else:
                self.note(self.codes.shape, f"expected a mapping, got {describe(item)}", name, at=item)
        return found

    def _items(self, field: str) -> list[Node]:
        node = given(self.node, field)
        if node is None:
            return []
        if isinstance(node, Sequence):
            return node.items
        self.note(self.codes.shape, f"expected a list, got {describe(node)}", field)
        return []

    def _text(self, node: Node, field: str, default: str) -> str:
        if isinstance(node, Scalar) and node.kind is Kind.TEXT:
            return node.value
        self.note(self.codes.shape, f"expected a string, got {describe(node)}", field, "put it in quotes", at=node)
        return default

    def _below(self, field: str) -> str:
        return f"{self.path}.{field}" if self.path else field

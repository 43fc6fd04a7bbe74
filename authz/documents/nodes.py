"""
The nodes of a YAML document: light values that remember where they stand.

A plain scalar is typed when somebody asks (``Scalar.kind``), as Kubernetes types it: YAML 1.1 booleans, numbers, null;
dates and sexagesimal numbers stay text (RE-10). Lines and columns count from 1.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

_TRUE = ("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON")
_BOOLEANS = (*_TRUE, "false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF")
_WORDS = {
    **dict.fromkeys(_BOOLEANS, "boolean"),
    **dict.fromkeys(["", "~", "null", "Null", "NULL"], "null"),
}
_NUMBER = re.compile(
    r"[-+]?(0x[0-9a-fA-F_]+|0b[01_]+|0o[0-7_]+|(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))"
    r"|\.(nan|NaN|NAN)"
)


class Kind(StrEnum):
    """What a scalar is; the values are the words used in messages."""

    TEXT = "string"
    BOOLEAN = "boolean"
    NUMBER = "number"
    NULL = "null"


MAX_SHOWN = 300


def one_line(text: str) -> str:
    """Text of the user's as it may stand in a message: one line, printable, not longer than a few lines."""
    if len(text) > MAX_SHOWN:
        text = text[:MAX_SHOWN] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def kind_of_plain(text: str) -> Kind:
    """Type an unquoted scalar (RE-10)."""
    return _kind_of_short(text) if len(text) <= 64 else Kind.NUMBER if _NUMBER.fullmatch(text) else Kind.TEXT


@lru_cache(maxsize=16384)
def _kind_of_short(text: str) -> Kind:
    word = _WORDS.get(text)
    if word:
        return Kind(word)
    return Kind.NUMBER if _NUMBER.fullmatch(text) else Kind.TEXT


class Scalar:
    """``style`` is empty for an unquoted one; line and column count from 1."""

    __slots__ = ("column", "line", "style", "value")

    def __init__(self, value: str, style: str, line: int, column: int) -> None:
        self.value = value
        self.style = style
        self.line = line
        self.column = column

    @property
    def kind(self) -> Kind:
        """The YAML type that the text has without a tag: quoted text is always text."""
        return Kind.TEXT if self.style else kind_of_plain(self.value)

    @property
    def is_true(self) -> bool:
        """The value of a boolean."""
        return self.value in _TRUE

    @property
    def is_null(self) -> bool:
        """Whether it is YAML's null, written out or left empty."""
        return not self.style and self.value in ("", "~", "null", "Null", "NULL")


class Sequence:
    """A YAML list with the place where it begins; lines and columns count from 1."""

    __slots__ = ("column", "items", "line")

    def __init__(self, items: "list[Node]", line: int, column: int) -> None:
        self.items = items
        self.line = line
        self.column = column

    @property
    def is_null(self) -> bool:
        """A list is never null."""
        return False


class Mapping:
    """``entries`` holds the values by the text of their keys, ``keys`` the keys in order."""

    __slots__ = ("column", "entries", "keys", "line")

    def __init__(self, entries: "dict[str, Node]", keys: list[Scalar], line: int, column: int) -> None:
        self.entries = entries
        self.keys = keys
        self.line = line
        self.column = column

    @property
    def is_null(self) -> bool:
        """A mapping is never null."""
        return False


Node = Scalar | Sequence | Mapping


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document, or one item of a ``kind: List`` (RE-12)."""

    file: str
    number: int
    """One-based; empty documents are counted."""
    root: Node
    prefix: str = ""
    """Path of the root inside its document, ``items[3]``; empty for whole documents."""

    def paths(self) -> dict[int, str]:
        """The field path of every node and key, by ``id``; an aliased node keeps its first path."""
        found: dict[int, str] = {}
        waiting: list[tuple[Node, str]] = [(self.root, self.prefix)]
        while waiting:
            node, path = waiting.pop()
            if id(node) in found:
                continue
            found[id(node)] = path
            if isinstance(node, Sequence):
                waiting.extend((item, f"{path}[{i}]") for i, item in reversed(list(enumerate(node.items))))
            elif isinstance(node, Mapping):
                for key in node.keys:
                    below = _below(path, key.value)
                    found.setdefault(id(key), below)
                    if key.value in node.entries:
                        waiting.append((node.entries[key.value], below))
        return found


def _below(path: str, name: str) -> str:
    if not name or any(c in name for c in ".[]/ "):
        return f"{path}[{name}]"
    return f"{path}.{name}" if path else name

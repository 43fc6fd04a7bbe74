"""
The nodes of a YAML document: light values that remember where they stand.

A plain scalar is typed when somebody asks (``Scalar.kind``), as the API server types it (RE-10): by the reader of
sigs.k8s.io/yaml 1.6.0, go.yaml.in/yaml/v2 2.4.4. Lines and columns count from 1.
"""

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

_TRUE = ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")
_FALSE = ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")
_WORDS = {
    **dict.fromkeys((*_TRUE, *_FALSE), "boolean"),
    **dict.fromkeys(["", "~", "null", "Null", "NULL"], "null"),
    **dict.fromkeys([".nan", ".NaN", ".NAN"], "number"),
    **dict.fromkeys([sign + word for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")], "number"),
}
_INTEGER = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)|0b[-+][01]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_STRAY_UNDERSCORE = re.compile("(?<![0-9])_|_(?![0-9])")
_BASES = {"0x": 16, "0b": 2, "0o": 8}


class Kind(StrEnum):
    """What a scalar is; the values are the words used in messages."""

    TEXT = "string"
    BOOLEAN = "boolean"
    NUMBER = "number"
    NULL = "null"


MAX_SHOWN = 300


def one_line(text: str) -> str:
    """The user's text as it may stand in a message: printable, on one line, and not very long."""
    if len(text) > MAX_SHOWN:
        text = text[:MAX_SHOWN] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def kind_of_plain(text: str) -> Kind:
    """Type an unquoted scalar (RE-10)."""
    return _kind_of_short(text) if len(text) <= 64 else Kind.NUMBER if _is_number(text) else Kind.TEXT


@lru_cache(maxsize=16384)
def _kind_of_short(text: str) -> Kind:
    word = _WORDS.get(text)
    if word:
        return Kind(word)
    return Kind.NUMBER if _is_number(text) else Kind.TEXT


def _is_number(text: str) -> bool:
    """
    Whether Go's reader sees a number: underscores are dropped first, `0o17`, `0B1` and `00080` are numbers.

    What fits neither 64 bits nor a double stays text, such as `0xFFFFFFFFFFFFFFFFFF` and `1e400`; there are no dates
    and no numbers of base 60.
    """
    if not text.isascii() or text[:1] not in "+-.0123456789":
        return False
    if text[0] == "." and _STRAY_UNDERSCORE.search(text):
        return False
    digits = text.replace("_", "")
    if _INTEGER.fullmatch(digits) and _fits(digits):
        return True
    return bool(_FLOAT.fullmatch(digits)) and float(digits) not in (math.inf, -math.inf)


def _fits(digits: str) -> bool:
    """Whether a whole number fits 64 bits; without a sign it may use all of them."""
    if len(digits) > 80:
        return False
    unsigned = digits.lstrip("+-")
    base = _BASES.get(unsigned[:2].lower(), 8 if unsigned[0] == "0" else 10)
    value = int(unsigned[2:] if unsigned[:2].lower() in _BASES else unsigned, base)
    return value < 2**64 if unsigned == digits else abs(value) < 2**63 or (digits[0] == "-" and value == 2**63)


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

"""
Fields of our own files (suites, requests, registration entries): YAML nodes to values, leniently typed, strictly named.

Policies are read by ``schema``, which is strict about types (RE-10). Here a header value may be an unquoted number, but
an unknown key is an error with the nearest name, because a misspelt expectation would prove nothing.
A reader never raises: it notes the problem under the code of its ``Notes`` and returns the default.
"""

import ipaddress
import re
from collections.abc import Iterable

from authz.core.attributes import Json
from authz.documents.decoders import is_letter
from authz.documents.reading import Kind, Mapping, Node, Scalar, Sequence
from authz.documents.schema import Notes, describe, nearest, note_unknown

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)")
_RADIX = re.compile(r"[-+]?(?:0x[0-9a-fA-F_]+|0b[01_]+)")
_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+")

_LEVELS = 64
"""Deepest nesting of a claim; the YAML reader allows no more either."""


def entries(node: Node | None, known: Iterable[str], what: str, notes: Notes) -> dict[str, Node]:
    """Return the values of a mapping by name; unknown names are noted, with the nearest known one, and left out."""
    if node is None or node.is_null:
        return {}
    if not isinstance(node, Mapping):
        notes.error(notes.code, node, f"expected {what}, a mapping, got {describe(node)}")
        return {}
    names = tuple(known)
    for name in node.entries:
        if name not in names:
            note_unknown(name, node, names, notes, notes.code, f"key of {what}")
    return {name: child for name, child in node.entries.items() if name in names}


def items(node: Node | None, what: str, notes: Notes) -> list[Node]:
    """Return the elements of a list."""
    if node is None or node.is_null:
        return []
    if isinstance(node, Sequence):
        return node.items
    notes.error(notes.code, node, f"expected {what}, a list, got {describe(node)}")
    return []


def named(node: Node | None, what: str, notes: Notes) -> dict[str, Node]:
    """Return a mapping whose names are the user's own."""
    if node is None or node.is_null:
        return {}
    if isinstance(node, Mapping):
        return dict(node.entries)
    notes.error(notes.code, node, f"expected {what}, a mapping, got {describe(node)}")
    return {}


def text(node: Node | None, notes: Notes, default: str = "") -> str:
    """Return a text as written, numbers and booleans too; the default when absent or null."""
    if node is None or node.is_null:
        return default
    if isinstance(node, Scalar):
        return node.value
    notes.error(notes.code, node, f"expected a text, got {describe(node)}")
    return default


def optional_text(node: Node | None, notes: Notes) -> str | None:
    """Return a text, None when absent or null."""
    return None if node is None or node.is_null else text(node, notes)


def address(node: Node | None, notes: Notes, default: str) -> str:
    """Return an IP address: anything else would match no range, in an ALLOW as in a DENY rule."""
    if node is None or node.is_null:
        return default
    value = text(node, notes)
    try:
        ipaddress.ip_address(value)
    except ValueError:
        notes.error(notes.code, node, f"`{value}` is not an IP address")
        return default
    return value


def texts(node: Node | None, what: str, notes: Notes) -> tuple[str, ...]:
    """Return a list of texts; a single text counts as a list of one."""
    if isinstance(node, Scalar) and not node.is_null:
        return (node.value,)
    return tuple(text(item, notes) for item in items(node, what, notes))


def number(node: Node | None, notes: Notes, default: int | None = None, *, most: int | None = None) -> int | None:
    """Return a non-negative integer, the default when absent or null."""
    if node is None or node.is_null:
        return default
    if isinstance(node, Scalar) and node.value.isascii() and node.value.isdigit():
        value = int(node.value[:20])
        if most is None or value <= most:
            return value
        notes.error(notes.code, node, f"`{node.value}` is too large", f"at most {most}")
        return default
    notes.error(notes.code, node, f"expected a number, got {describe(node)}")
    return default


def boolean(node: Node | None, notes: Notes) -> bool | None:
    """Return true or false, None when absent or null."""
    if node is None or node.is_null:
        return None
    if isinstance(node, Scalar) and node.kind is Kind.BOOLEAN:
        return node.is_true
    notes.error(notes.code, node, f"expected true or false, got {describe(node)}")
    return None


def one_of(node: Node | None, names: Iterable[str], what: str, notes: Notes, default: str = "") -> str:
    """Return one of the names, with the nearest offered for a misspelt one."""
    if node is None or node.is_null:
        return default
    known = tuple(names)
    value = text(node, notes)
    if value in known:
        return value
    if isinstance(node, Scalar):
        close = nearest(value, known)
        hint = f"; did you mean `{close}`?" if close else ""
        notes.error(
            notes.code, node, f"`{value}` is not {what}{hint}", "" if close else f"expected one of {', '.join(known)}"
        )
    return default


def reference(name: str, known: Iterable[str], node: Node, what: str, notes: Notes) -> bool:
    """Say whether a name is defined; noted when it is not."""
    names = tuple(known)
    if name in names:
        return True
    close = nearest(name, names)
    hint = f"; did you mean `{close}`?" if close else ""
    listed = ", ".join(sorted(names)) or "none"
    notes.error(notes.code, node, f"there is no {what} `{name}`{hint}", "" if close else f"defined here: {listed}")
    return False


def plain(node: Node | None, notes: Notes, level: int = 0) -> Json:
    """Return a node as a JSON value, typed as YAML 1.1 types it; dates stay text."""
    if node is None or node.is_null:
        return None
    if isinstance(node, Scalar):
        return _scalar(node)
    if level >= _LEVELS:
        notes.error(notes.code, node, f"nested deeper than {_LEVELS} levels")
        return None
    if isinstance(node, Sequence):
        return [plain(item, notes, level + 1) for item in node.items]
    return {name: plain(child, notes, level + 1) for name, child in node.entries.items()}


def _scalar(node: Scalar) -> Json:
    value = node.value
    if node.style or is_letter(node):  # no object of a cluster: `y` is the letter here
        return value
    if node.kind is Kind.BOOLEAN:
        return node.is_true
    if node.kind is not Kind.NUMBER:
        return value
    if len(value) <= 400:  # int() refuses more than 4,300 digits, and nobody writes them
        if _INTEGER.fullmatch(value):
            return int(value.replace("_", ""))
        if _RADIX.fullmatch(value):
            return int(value.replace("_", ""), 0)
        if _OCTAL.fullmatch(value):
            return int(value.replace("_", ""), 8)
        if _FLOAT.fullmatch(value):
            return float(value.replace("_", ""))
    return value

"""
Decoders of single fields: strings, lists of them, numbers, lists of objects.

They never raise: what is wrong is noted, and an empty value is returned, which nobody then uses (RE-24).
"""

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import TypeVar

from authz.documents import reading
from authz.documents.reading import Kind, Node, Scalar, Sequence, kind_of_plain
from authz.documents.schema import Check, Decoder, Fault, Notes, Shape, describe, text_of

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)
_TEXT, _NULL = Kind.TEXT, Kind.NULL


def read_text(node: Node, notes: Notes) -> str:
    """Decode a string; numbers and booleans are not strings (RE-10)."""
    if type(node) is Scalar:
        if node.style or kind_of_plain(node.value) is _TEXT:
            return node.value
        advice = f'quote it: `"{node.value}"`' if node.kind is not _NULL else ""
        notes.error("RE-10", node, f"expected a string, got {describe(node)}", advice)
    else:
        notes.error("RE-10", node, f"expected a string, got {describe(node)}")
    return ""


def text(check: Check | None = None) -> Decoder[str]:
    """A string that passes the check."""

    def decode(node: Node, notes: Notes) -> str:
        value = read_text(node, notes)
        fault = check(value) if check is not None and text_of(node) is not None else None
        if fault is not None:
            notes.fault(node, fault)
        notes.passed(node, (check,) if check is not None else ())
        return value

    return decode


def text_or_letter(check: Check | None = None) -> Decoder[str]:
    """
    As ``text``, but a single unquoted ``y`` or ``n`` is the letter.

    A cluster takes it for a boolean and refuses the object, as it does everywhere else (RE-10). Only for fields where
    nothing but the letter can be meant: a name, a namespace, a claim.
    """
    decode = text(check)

    def decode_letter(node: Node, notes: Notes) -> str:
        return node.value if isinstance(node, Scalar) and is_letter(node) else decode(node, notes)

    return decode_letter


def is_letter(node: Node | None) -> bool:
    """Whether it is an unquoted ``y``, ``Y``, ``n`` or ``N``."""
    return isinstance(node, Scalar) and not node.style and node.value in ("y", "Y", "n", "N")


def texts(*checks: Check, most: int = 0, most_code: str = "") -> Decoder[tuple[str, ...]]:
    """A list of strings, every one of which passes the checks in turn until one complains."""

    def decode(node: Node, notes: Notes) -> tuple[str, ...]:
        if type(node) is not Sequence:
            notes.error("RE-10", node, f"expected a list of strings, got {describe(node)}", "write it in brackets")
            return ()
        if most and len(node.items) > most:
            notes.error(most_code, node, f"has {len(node.items)} values, at most {most} are allowed")
            return ()
        values = []
        for item in node.items:
            if item.is_null:
                notes.error("RE-11", item, "an element of a list is null", "remove it or give a value")
                continue
            value = read_text(item, notes)
            if value or text_of(item) is not None:
                for check in checks:
                    fault = check(value)
                    if fault is not None:
                        notes.fault(item, fault)
                        break
            if notes.checked is not None:
                notes.passed(item, checks)
            values.append(value)
        return tuple(values)

    return decode


def choice(names: type[E], what: str, code: str, default: E) -> Decoder[E]:
    """One of the exact, upper-case names (RE-10)."""
    members = {member.value: member for member in names}

    def decode(node: Node, notes: Notes) -> E:
        value = read_text(node, notes)
        if value in members:
            return members[value]
        if text_of(node) is not None:
            near = f"write `{value.upper()}`" if value.upper() in members else f"expected one of {', '.join(members)}"
            notes.error(code, node, f"`{value}` is not {what}", near)
        return default

    return decode


def boolean(node: Node, notes: Notes) -> bool:
    """A boolean (RE-10)."""
    if isinstance(node, Scalar) and node.kind is Kind.BOOLEAN:
        return node.is_true
    notes.error("RE-10", node, f"expected true or false, got {describe(node)}")
    return False


def integer(least: int, most: int, code: str) -> Decoder[int]:
    """A decimal number in a range, which may also be written as a string, as protobuf's JSON allows."""

    def decode(node: Node, notes: Notes) -> int:
        written = node.value if isinstance(node, Scalar) and node.kind in (Kind.NUMBER, Kind.TEXT) else ""
        value = int(written) if written.isascii() and written.isdigit() and len(written) <= 10 else None
        if value is None or not least <= value <= most:
            got = describe(node)
            notes.error(code, node, f"expected a whole number from {least} to {most}, got {got}")
            return least
        return value

    return decode


def anything(node: Node, notes: Notes) -> None:
    """A field that has no effect here and is not looked at."""


def text_map(check: Callable[[str, str], Fault | None] | None = None) -> Decoder[dict[str, str]]:
    """A mapping of strings to strings; the check gets key and value."""

    def decode(node: Node, notes: Notes) -> dict[str, str]:
        if not isinstance(node, reading.Mapping):
            notes.error("RE-10", node, f"expected a mapping of strings, got {describe(node)}")
            return {}
        values: dict[str, str] = {}
        for key in node.keys:
            child = node.entries.get(key.value, key)
            read_text(key, notes)
            value = values[key.value] = read_text(child, notes)
            fault = check(key.value, value) if check is not None else None
            if fault is not None:
                notes.fault(child, fault)
            if notes.checked is not None:
                notes.passed(child, (partial(check, key.value),) if check is not None else ())
        return values

    return decode


def objects(shape: Shape[T], *, null_code: str = "RE-11", most: int = 0, most_code: str = "") -> Decoder[tuple[T, ...]]:
    """A list of mappings of one shape; a null element is an error (RE-11)."""
    decode_one = shape.decode

    def decode(node: Node, notes: Notes) -> tuple[T, ...]:
        if not isinstance(node, Sequence):
            advice = "begin each element with `- `" if isinstance(node, reading.Mapping) else ""
            notes.error("RE-10", node, f"expected a list, got {describe(node)}", advice)
            return ()
        if most and len(node.items) > most:
            notes.error(most_code, node, f"has {len(node.items)} elements, at most {most} are allowed")
            return ()
        values = []
        for item in node.items:
            if item.is_null:
                notes.error(null_code, item, f"an element is null; expected {shape.what}", "remove it or give a value")
            else:
                values.append(decode_one(item, notes))
        return tuple(values)

    return decode

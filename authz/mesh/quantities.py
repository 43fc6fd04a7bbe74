"""Truths, numbers and durations of Istio's kinds, as protobuf's JSON writes them; what is wrong is noted."""

import re
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar

from authz.documents.accessors import Part
from authz.documents.reading import Kind, Node, Scalar
from authz.documents.schema import describe, given

E = TypeVar("E", bound=StrEnum)

INT32, UINT32 = 2**31 - 1, 2**32 - 1
_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(h|ms|m|s)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_UNITS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_MOST_SECONDS = 315_576_000
"""Ten years: what Envoy takes is bounded, too."""
_DURATION_HELP = "for instance 0.5s, 100ms or 1m30s"
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")


def read_boolean(part: Part, field: str) -> bool | None:
    """True or false; None when it is absent or wrong."""
    node = given(part.node, field)
    if node is None:
        return None
    if isinstance(node, Scalar) and node.kind is Kind.BOOLEAN:
        return node.is_true
    part.note("ME-1", f"expected true or false, got {describe(node)}", field)
    return None


def read_duration(part: Part, field: str, *, zero: bool = False) -> float | None:
    """
    Seconds of a duration such as ``0.5s``, ``100ms`` or ``1m30s``; None when it is absent or wrong.

    At least a millisecond and no fraction of one, as Istio demands; ``zero`` admits 0, which then means never.
    """
    node = given(part.node, field)
    if node is None:
        return None
    if not isinstance(node, Scalar) or node.kind is not Kind.TEXT:
        help_text = _DURATION_HELP
        if isinstance(node, Scalar) and node.kind is Kind.NUMBER:
            help_text = f"write its unit, too: `{node.value}s`"
        part.note("ME-1", f"expected a duration, got {describe(node)}", field, help_text)
        return None
    written = node.value
    if not _DURATION.fullmatch(written):
        part.note("ME-1", f"`{written}` is not a duration", field, _DURATION_HELP)
        return None
    milliseconds = sum(Decimal(number) * _UNITS[unit] for number, unit in _PART.findall(written))
    if zero and milliseconds == 0:
        return 0.0
    if milliseconds < 1 or milliseconds != int(milliseconds):
        part.note("ME-1", f"`{written}` is not a whole number of milliseconds, 1 or more", field)
        return None
    if milliseconds > _MOST_SECONDS * 1000:
        part.note("ME-1", f"`{written}` is longer than ten years", field, "write a shorter one")
        return None
    return int(milliseconds) / 1000


def read_whole(part: Part, field: str, *, least: int = 0, most: int = INT32) -> int | None:
    """A whole number within bounds; None when it is absent or wrong."""
    node = given(part.node, field)
    if node is None:
        return None
    written = node.value if isinstance(node, Scalar) and node.kind is Kind.NUMBER else ""
    if written.isascii() and written.isdigit() and len(written) <= 20 and least <= int(written) <= most:
        return int(written)
    part.note("ME-1", f"expected a whole number from {least} to {most}, got {describe(node)}", field)
    return None


def read_decimal(part: Part, field: str, *, most: float) -> float | None:
    """A number from 0 to ``most``; None when it is absent or wrong."""
    node = given(part.node, field)
    if node is None:
        return None
    value = _number(node)
    if value is not None and 0 <= value <= most:
        return value
    part.note("ME-1", f"expected a number from 0 to {most:g}, got {describe(node)}", field)
    return None


def read_percent(part: Part, field: str) -> float | None:
    """
    Percent of ``{value: 12.5}``, from 0 to 100 and in steps of 0.0001; None when it is absent or wrong.

    An empty mapping is 0, as an absent number is for protobuf.
    """
    percent = part.part(field)
    if percent is None:
        return None
    percent.only("value")
    node = given(percent.node, "value")
    if node is None:
        return 0.0
    value = _number(node)
    if value is None or not (value == 0 or 0.0001 <= value <= 100):
        percent.note("ME-1", f"expected 0, or a number from 0.0001 to 100, got {describe(node)}", "value")
        return None
    return value


def read_choice(part: Part, field: str, kind: type[E], default: E) -> E:
    """One of an enumeration's values, or ``default``; an empty text is noted, too, since it is none of them."""
    node = given(part.node, field)
    if isinstance(node, Scalar) and node.kind is Kind.TEXT and not node.value:
        part.note("ME-1", f"`{field}` is empty", field, f"write one of {', '.join(kind)}, or leave it out")
    return part.choice(field, kind, default)


def _number(node: Node) -> float | None:
    if isinstance(node, Scalar) and node.kind is Kind.NUMBER and _NUMBER.fullmatch(node.value):
        return float(node.value)
    return None

"""Numbers and durations of traffic policies, as protobuf's JSON writes them; what is wrong is noted."""

import re
from enum import StrEnum
from typing import TypeVar

from authz.documents.accessors import Part
from authz.documents.reading import Kind, Scalar
from authz.documents.schema import describe, given

E = TypeVar("E", bound=StrEnum)

_DURATION = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?s")
_GO_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h))+")
_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,2})?")
INT32, UINT32 = 2**31 - 1, 2**32 - 1
_MOST_SECONDS = 315_576_000
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(part: Part, field: str, *, zero: bool = False) -> float | None:
    """
    Seconds of a duration such as ``0.5s`` or ``1m30s``; None when it is absent or wrong.

    At least a millisecond, and no fraction of one, as Istio demands; ``zero`` admits 0, which then means never.
    """
    if not part.has(field):
        return None
    written = part.text(field)
    node = given(part.node, field)
    if not (isinstance(node, Scalar) and node.kind is Kind.TEXT):
        return None  # noted already
    if not (_DURATION.fullmatch(written) or _GO_DURATION.fullmatch(written)):
        part.note("ME-1", f"`{written}` is not a duration", field, "write seconds, for instance 0.5s")
        return None
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", written)
    milliseconds = sum(float(number) * _UNITS[unit] for number, unit in parts) * 1000
    if zero and milliseconds == 0:
        return 0.0
    if milliseconds < 1 or abs(milliseconds - round(milliseconds)) > 1e-6:
        part.note("ME-1", f"`{written}` is not a whole number of milliseconds, 1 or more", field)
        return None
    if milliseconds > _MOST_SECONDS * 1000:
        part.note("ME-1", f"`{written}` is longer than ten years", field, "write a shorter one")
        return None
    return round(milliseconds) / 1000


def whole_of(part: Part, field: str, *, most: int = INT32, least: int = 0) -> int | None:
    """A whole number within bounds; None when it is absent or wrong."""
    node = given(part.node, field)
    if node is None:
        return None
    written = node.value if isinstance(node, Scalar) and node.kind is Kind.NUMBER else ""
    if written.isascii() and written.isdigit() and len(written) <= 20 and least <= int(written) <= most:
        return int(written)
    part.note("ME-1", f"expected a whole number from {least} to {most}, got {_shown(written, node)}", field)
    return None


def decimal_of(part: Part, field: str, *, least: float = 0, most: float) -> float | None:
    """A number within bounds; None when it is absent or wrong."""
    node = given(part.node, field)
    if node is None:
        return None
    written = node.value if isinstance(node, Scalar) and node.kind is Kind.NUMBER else ""
    if _DECIMAL.fullmatch(written) and least <= float(written) <= most:
        return float(written)
    part.note("ME-1", f"expected a number from {least:g} to {most:g}, got {_shown(written, node)}", field)
    return None


def truth_of(part: Part, field: str) -> bool | None:
    """True or false; None when it is absent or wrong."""
    node = given(part.node, field)
    if node is None:
        return None
    if isinstance(node, Scalar) and node.kind is Kind.BOOLEAN:
        return node.is_true
    part.note("ME-1", f"expected true or false, got {describe(node)}", field)
    return None


def choice_of(part: Part, field: str, kind: type[E], default: E) -> E:
    """One of an enumeration's values, or ``default``; an empty text is noted, too, since it is none of them."""
    node = given(part.node, field)
    if isinstance(node, Scalar) and node.kind is Kind.TEXT and not node.value:
        part.note("ME-1", f"`{field}` is empty", field, f"write one of {', '.join(kind)}, or leave it out")
    return part.choice(field, kind, default)


def _shown(written: str, node: object) -> str:
    return f"`{written}`" if written else describe(node)  # type: ignore[arg-type]  # any node of a document

"""Single values of Istio's networking kinds, as protobuf's JSON writes them; what is wrong is noted."""

import ipaddress
import re
from decimal import Decimal

from authz.documents.accessors import Part
from authz.documents.reading import Kind, Mapping, Node, Scalar
from authz.documents.schema import describe, given

_PART = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(h|ms|m|s)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_UNITS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
MOST_SECONDS = 315_576_000
"""Ten years: what Envoy takes is bounded, too."""
_DURATION_HELP = "for instance 0.5s, 100ms or 1m30s"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.IGNORECASE)


def read_boolean(part: Part, field: str) -> bool | None:
    """True or false; None when it is absent or wrong."""
    node = given(part.node, field)
    if node is None:
        return None
    if isinstance(node, Scalar) and node.kind is Kind.BOOLEAN:
        return node.is_true
    part.note("ME-1", f"expected true or false, got {describe(node)}", field)
    return None


def read_duration(part: Part, field: str) -> float | None:
    """
    Seconds of a duration such as ``0.5s``, ``100ms`` or ``1m30s``; None when it is absent or wrong.

    At least a millisecond and no fraction of one, as Istio demands.
    """
    node = given(part.node, field)
    if node is None:
        return None
    if not isinstance(node, Scalar) or node.kind is not Kind.TEXT:
        unit = (
            f"write its unit, too: `{node.value}s`"
            if isinstance(node, Scalar) and node.kind is Kind.NUMBER
            else _DURATION_HELP
        )
        part.note("ME-1", f"expected a duration, got {describe(node)}", field, unit)
        return None
    written = node.value
    if not _DURATION.fullmatch(written):
        part.note("ME-1", f"`{written}` is not a duration", field, _DURATION_HELP)
        return None
    milliseconds = sum(Decimal(number) * _UNITS[unit] for number, unit in _PART.findall(written))
    if milliseconds < 1 or milliseconds != int(milliseconds):
        part.note("ME-1", f"`{written}` is not a whole number of milliseconds, 1 or more", field)
        return None
    if milliseconds > MOST_SECONDS * 1000:
        part.note("ME-1", f"`{written}` is longer than ten years", field)
        return None
    return int(milliseconds) / 1000


def read_whole(part: Part, field: str, default: int = 0, *, most: int = 2**31 - 1) -> int:
    """A whole number from 0 to ``most``; ``default`` when it is absent or wrong."""
    node = given(part.node, field)
    if node is None:
        return default
    written = node.value if isinstance(node, Scalar) and node.kind is Kind.NUMBER else ""
    if written.isascii() and written.isdigit() and len(written) <= 10 and int(written) <= most:
        return int(written)
    part.note("ME-1", f"expected a whole number from 0 to {most}, got {describe(node)}", field)
    return default


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


def _number(node: Node) -> float | None:
    if isinstance(node, Scalar) and node.kind is Kind.NUMBER and _NUMBER.fullmatch(node.value):
        return float(node.value)
    return None


def entries_of(part: Part | None, help_text: str = "") -> list[tuple[str, "Part | None"]]:
    """The entries of a mapping of mappings; None where nothing is written; other values are noted."""
    if part is None:
        return []
    found: list[tuple[str, Part | None]] = []
    for key in part.node.entries:
        node = given(part.node, key)
        if node is not None and not isinstance(node, Mapping):
            part.note("ME-1", f"expected a mapping, got {describe(node)}", key, help_text)
        else:
            found.append((key, part.part(key)))
    return found


def is_host(name: str, *, wildcard: bool = True) -> bool:
    """Whether it is a DNS name or an IP address; ``wildcard`` admits ``*`` and ``*.example.com``."""
    if ":" in name:
        return is_address(name)
    labels = name.removesuffix(".").split(".")
    if wildcard and (labels[0] == "*" or (labels[0].startswith("*-") and _DNS_LABEL.fullmatch(labels[0][2:]))):
        labels = labels[1:]
        return len(name) <= 255 and all(_DNS_LABEL.fullmatch(label) for label in labels)
    return 0 < len(name) <= 255 and all(_DNS_LABEL.fullmatch(label) for label in labels)


def is_address(text: str) -> bool:
    """Whether it is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_label(name: str) -> bool:
    """Whether it is one DNS label, as names of namespaces and subsets are."""
    return bool(_DNS_LABEL.fullmatch(name)) and name == name.lower()


def only_fields(part: Part, fields: dict[str, str]) -> None:
    """Note every field that Istio's API does not have (``ME-2``), and those with a reason why they are not done."""
    part.only(*fields)
    for name, reason in fields.items():
        if reason and part.has(name):
            why, _, help_text = reason.partition("; ")
            part.note("ME-6", f"`{name}` is not done here: {why}", name, help_text or "leave it out")

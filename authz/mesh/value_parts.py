"""Names, entries and fields of Istio's networking kinds; what is wrong is noted."""

import ipaddress
import re
from collections.abc import Mapping

from authz.documents.accessors import Part
from authz.documents.reading import Kind, Scalar
from authz.documents.reading import Mapping as MappingNode
from authz.documents.schema import describe, given

ISTIO_API = "istio.io/api v1.32.0"
"""The version whose fields the tables of fields have (``*_fields.py``); tests hold them against its definitions."""
_SWITCHES = frozenset({"insecureSkipVerify", "useClientProtocol"})
"""Fields that are not done and are ``false`` where nothing is said; of any other ``false`` is no value in Istio."""
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.IGNORECASE)


def entries_of(part: Part | None, help_text: str = "") -> list[tuple[str, "Part | None"]]:
    """The entries of a mapping of mappings; None where nothing is written; other values are noted."""
    if part is None:
        return []
    found: list[tuple[str, Part | None]] = []
    for key in part.node.entries:
        node = given(part.node, key)
        if node is not None and not isinstance(node, MappingNode):
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


def warn_of_deprecated(part: Part, field: str, instead: str) -> None:
    """Warn of a field that Istio's API marks as deprecated and still heeds, where it is written."""
    if part.has(field):
        part.warn("ME-2", f"`{field}` is deprecated in Istio's API, though still heeded", field, f"write {instead}")


def only_fields(part: Part, fields: Mapping[str, str]) -> None:
    """
    Note every field that Istio's API does not have (``ME-2``), and those that are not done (``ME-6``).

    ``fields`` has every field of the message: an empty text where it is done, else the reason why it is not, and after
    a semicolon what to do instead. A switch that is written as ``false`` is not wanted, and may stand there.
    """
    part.only(*fields)
    for name, reason in fields.items():
        if reason and part.has(name) and not (name in _SWITCHES and _is_false(part, name)):
            why, _, help_text = reason.partition("; ")
            part.note("ME-6", f"`{name}` is not done here: {why}", name, help_text or "leave it out")


def _is_false(part: Part, field: str) -> bool:
    node = given(part.node, field)
    return isinstance(node, Scalar) and node.kind is Kind.BOOLEAN and not node.is_true

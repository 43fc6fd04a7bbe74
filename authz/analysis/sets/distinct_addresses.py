"""The addresses that networks tell apart: one of each stretch between two boundaries, of both families (AP-40)."""

import ipaddress
from collections.abc import Iterable, Sequence

from authz.core.matchers import Network
from authz.core.networks import parse_address

_BITS = {4: 32, 6: 128}
NATURAL = ("10.9.9.9", "192.0.2.1", "203.0.113.9", "2001:db8::1", "10.1.0.5")
"""Taken where they lie in a stretch."""


def distinct_addresses(networks: Iterable[Network], natural: Sequence[str] = NATURAL) -> list[str]:
    """Addresses as text, the natural ones first; every stretch between boundaries has one."""
    networks = list(networks)
    found: list[str] = []
    for version, bits in _BITS.items():
        points = {0}
        for network in networks:
            if network.version == version:
                host = bits - network.prefix_length
                points |= {network.value << host, (network.value + 1) << host}
        begins = sorted(point for point in points if point < 1 << bits)
        for begin, end in zip(begins, [*begins[1:], 1 << bits], strict=True):
            found.append(_of_stretch(version, begin, end, natural))
    return sorted(found, key=lambda text: natural.index(text) if text in natural else len(natural))


def _of_stretch(version: int, begin: int, end: int, natural: Sequence[str]) -> str:
    for text in natural:
        known = parse_address(text)
        if known is not None and known[0] == version and begin <= known[1] < end:
            return text
    value = begin + 1 if end - begin > 2 else begin
    return str(ipaddress.IPv4Address(value) if version == 4 else ipaddress.IPv6Address(value))

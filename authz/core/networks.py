"""IP addresses and the ranges they lie in: ``ipBlocks`` and its kin (AP-40)."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from authz.core.matchers import Network, Terms


@lru_cache(maxsize=65536)
def parse_address(text: str) -> tuple[int, int] | None:
    """
    Parse an IP address to (version, value); None when it is not one.

    A zone is not accepted. Cached, because the same peers call again and again.
    """
    if "%" in text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (address.version, int(address))


def parse_network(text: str) -> Network:
    """Parse an IP or CIDR, host bits ignored (AP-40). Raises ValueError with the reason (VA-24)."""
    if "%" in text:
        raise ValueError(f"`{text}` has a zone; an address block has none")
    address_text, slash, length_text = text.partition("/")
    address = ipaddress.ip_address(address_text)
    length: int = address.max_prefixlen
    if slash:
        if not (length_text.isascii() and length_text.isdigit()) or str(int(length_text)) != length_text:
            raise ValueError(f"`{text}` is not a CIDR block: `{length_text}` is not a prefix length")
        length = int(length_text)
        if length > address.max_prefixlen:
            raise ValueError(f"`{text}` is not a CIDR block: a prefix length is 0 to {address.max_prefixlen}")
    return Network(address.version, length, int(address) >> (address.max_prefixlen - length))


@dataclass(frozen=True, slots=True)
class Networks:
    """IP ranges, grouped by family and prefix length: the cost grows with the lengths, not with the ranges."""

    written: tuple[str, ...]
    groups: tuple[tuple[int, int, frozenset[int]], ...]
    """(version, host bits, network values shifted right by the host bits)."""
    terms: Terms | None = None

    def matches(self, values: tuple[str, ...]) -> bool:
        """Whether one of the values is an address in a written network; what is not an address is in none."""
        for value in values:
            address = parse_address(value)
            if address is None:
                continue
            for version, host_bits, networks in self.groups:
                if version == address[0] and address[1] >> host_bits in networks:
                    return True
        return False


def networks(values: Iterable[str]) -> Networks:
    """Compile ``ipBlocks`` and its kin (AP-40). Raises ValueError."""
    values = tuple(values)
    parsed = tuple(parse_network(value) for value in values)
    grouped: dict[tuple[int, int], set[int]] = {}
    for network in parsed:
        bits: int = 32 if network.version == 4 else 128
        grouped.setdefault((network.version, bits - network.prefix_length), set()).add(network.value)
    groups = tuple((version, host_bits, frozenset(found)) for (version, host_bits), found in grouped.items())
    return Networks(values, groups, Terms(networks=parsed))

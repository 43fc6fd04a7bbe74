"""
All VirtualServices of a mesh, found by host and by gateway, in the order in which Istio asks them.

Istio's order: those that only their own namespace sees, those that are exported to some namespaces, all others; in each
group by age, name and namespace. Where a sidecar calls a service, the first that has a route for it decides; those of
one gateway and host are joined.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from authz.mesh.re2_syntax import matcher_of
from authz.mesh.virtual_service import (
    AUTHORITY,
    MESH,
    ConnectionMatch,
    HttpMatch,
    HttpRoute,
    MatchKind,
    StringMatch,
    VirtualService,
)


def is_wildcard(host: str) -> bool:
    """Whether it stands for many hosts, as ``*`` and ``*.example.com`` do."""
    return host.startswith("*")


def is_subset(host: str, of: str) -> bool:
    """Whether every name that ``host`` stands for is one of those that ``of`` stands for."""
    if not is_wildcard(of):
        return host == of
    if is_wildcard(host):
        return len(host) >= len(of) and host[1:].endswith(of[1:])
    return host.endswith(of[1:])


def common_hosts(ours: Iterable[str], theirs: Iterable[str]) -> list[str]:
    """The hosts that both lists admit, the narrower of each pair."""
    other = tuple(theirs)
    found: dict[str, None] = {}
    for host in ours:
        for name in other:
            if is_subset(name, host):
                found[name] = None
            elif is_subset(host, name):
                found[host] = None
    return list(found)


def in_order(services: Iterable[VirtualService]) -> tuple[VirtualService, ...]:
    """Istio's order, delegates left out."""
    return tuple(sorted((one for one in services if not one.is_delegate), key=_order))


class VirtualServices:
    """Frozen after it is made: VirtualServices that were linked, delegates left out."""

    def __init__(self, services: Iterable[VirtualService] = ()) -> None:
        self.all = in_order(services)
        self._exact: dict[str, list[VirtualService]] = {}
        self._wild: dict[str, list[VirtualService]] = {}
        self._of_gateway: dict[str, list[VirtualService]] = {}
        for one in self.all:
            for gateway in one.gateways:
                self._of_gateway.setdefault(gateway, []).append(one)
            for host in dict.fromkeys(one.hosts) if MESH in one.gateways else ():
                index = self._wild if is_wildcard(host) else self._exact
                index.setdefault(host, []).append(one)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VirtualServices) and self.all == other.all

    @property
    def for_sidecars(self) -> tuple[VirtualService, ...]:
        """Those that are not for gateways alone, in order."""
        return tuple(one for one in self.all if MESH in one.gateways)

    __hash__ = None  # type: ignore[assignment]  # the nouns hold mappings, so nothing here can be hashed

    def of_gateway(self, gateway: str, namespace: str) -> list[VirtualService]:
        """Those bound to a gateway (``namespace/name``) that a proxy of this namespace sees, in order."""
        return [one for one in self._of_gateway.get(gateway, ()) if one.is_exported_to(namespace)]

    def of_host(self, host: str, namespace: str) -> list[VirtualService]:
        """
        Those for sidecars that a workload of this namespace sees, and that may decide about a service's host, in order.

        An exact host hides every wildcard; of wildcards the longest alone counts, and of those the first.
        """
        exact = [one for one in self._exact.get(host, ()) if one.is_exported_to(namespace)]
        if exact:
            return exact
        rest = host
        while self._wild and rest:
            # `*.a.b` and `*a.b` are both wildcards, so every suffix is asked, the longest first.
            found = next((one for one in self._wild.get(f"*{rest}", ()) if one.is_exported_to(namespace)), None)
            if found is not None:
                return [found]
            rest = rest[1:]
        return []


def _order(one: VirtualService) -> tuple[int, str, str, str]:
    is_public = not one.export_to or "*" in one.export_to
    group = 2 if is_public else int(set(one.export_to) != {one.namespace})
    return group, one.created, one.name, one.namespace


def reachable(
    routes: Iterable[HttpRoute], gateway: str, port: int, labels: Mapping[str, str], namespace: str, host: str = ""
) -> list[tuple[HttpRoute, HttpMatch | None]]:
    """
    The routes of one VirtualService that a proxy can take on a port, one for each match, in order.

    Ports, gateways and the calling workload are known now, so only those that fit are left; what stands behind a match
    of everything is never asked, and is left out as Istio does it. A sidecar knows the ``host``, too: applications call
    a loopback port and mean the service behind it, so what is said of the authority is decided here.
    """
    found: list[tuple[HttpRoute, HttpMatch | None]] = []
    for route in routes:
        if not route.matches:
            found.append((route, None))
            return found
        for written in route.matches:
            match = with_known_host(written, host) if host else written
            if match is not None and fits(match, gateway, port, labels, namespace):
                found.append((route, match))
                if is_catch_all(match):
                    return found
    return found


def fits(match: HttpMatch, gateway: str, port: int, labels: Mapping[str, str], namespace: str) -> bool:
    """Whether a match can hold at a proxy; where it has ``gateways``, the workload does not matter, as in Istio."""
    if match.port and match.port != port:
        return False
    if match.gateways:
        return gateway in match.gateways
    return match.source_labels.items() <= labels.items() and match.source_namespace in ("", namespace)


def with_known_host(match: HttpMatch, host: str) -> HttpMatch | None:
    """What is left of a match when the requested host is known; None when it cannot hold."""
    about_host = (match.authority, *(one for name, one in match.headers.items() if name.lower() in AUTHORITY))
    if not all(one is None or holds(one, host) for one in about_host):
        return None
    without = (one for name, one in match.without_headers.items() if name.lower() in AUTHORITY)
    if any(one is None or holds(one, host) for one in without):
        return None
    if match.authority is None and not any(
        name.lower() in AUTHORITY for name in (*match.headers, *match.without_headers)
    ):
        return match
    return replace(
        match, authority=None, headers=_others(match.headers), without_headers=_others(match.without_headers)
    )


def _others(headers: Mapping[str, StringMatch | None]) -> dict[str, StringMatch | None]:
    return {name: one for name, one in headers.items() if name.lower() not in AUTHORITY}


def holds(match: StringMatch, text: str) -> bool:
    """Whether a text compares as wanted; a regular expression that Python may read differently does not hold here."""
    if match.kind is MatchKind.EXACT:
        return text == match.value
    if match.kind is MatchKind.PREFIX:
        return text.startswith(match.value)
    pattern = matcher_of(match.value)
    return match.value == "*" or (pattern is not None and pattern.fullmatch(text) is not None)


def fits_connection(match: ConnectionMatch, gateway: str, port: int, labels: Mapping[str, str], namespace: str) -> bool:
    """Whether a match of ``tcp`` or ``tls`` can hold at a proxy; unlike those of HTTP, each condition counts."""
    return (
        match.port in (0, port)
        and (not match.gateways or gateway in match.gateways)
        and match.source_labels.items() <= labels.items()
        and match.source_namespace in ("", namespace)
    )


def is_catch_all(match: HttpMatch | None) -> bool:
    """Whether a match holds for every request of whoever it concerns, by Istio's own test."""
    if match is None:
        return True
    every_path = match.uri is None or (match.uri.kind, match.uri.value) in (("prefix", "/"), ("regex", ".*"))
    conditions = (match.method, match.authority, match.scheme, *match.headers, *match.without_headers)
    return every_path and not any(one is not None for one in conditions) and not match.query_params

"""
Warnings of routes that no request takes, because what stands before them takes every request that they are for.

Istio accepts them all (``istioctl analyze``: IST0109, IST0130, IST0131). Only what is certain is said: of two regular
expressions only the same one, and nothing of a route that delegates, since what its delegate does not take goes on.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product

from authz.core.errors import Location
from authz.mesh.mesh_documents import UnreachedRoute, Written, WrittenVirtualService
from authz.mesh.virtual_service import MESH, HttpMatch, HttpRoute, MatchKind, StringMatch, VirtualService
from authz.mesh.virtual_services import in_order, is_catch_all, with_known_host


def warn_of_unreached(written: Written) -> None:
    """Warn of routes behind others of the same VirtualService, and of another one with the same host."""
    noted: set[int] = set()
    for virtual in written.virtual_services:
        if virtual.unreached is None:
            object.__setattr__(virtual, "unreached", tuple(_unreached_within(virtual)))
        for route, part, message, field, help_text in virtual.unreached or ():
            part.warn("ME-5", message, field, help_text)
            noted.update([id(route)] if not field else ())
    for (gateway, host, _), found in _sharing(written).items():
        if len(found) > 1 and gateway == MESH:
            _warn_of_hidden(found, host)
        elif len(found) > 1:
            _warn_of_joined(found, gateway, host, noted)


class _Taken:
    """Matches that come first, with their places, found by the path and by a header that they are about."""

    def __init__(self) -> None:
        self._found: dict[tuple[_Asked, _Asked], list[tuple[HttpMatch, Location]]] = {}

    def add(self, match: HttpMatch, place: Location) -> None:
        """What is asked for after it may be taken by it."""
        is_any = match.uri is None or match.ignore_uri_case or _is_every_path(match.uri)
        path = None if is_any or match.uri is None else (match.uri.kind.value, match.uri.value)
        header = next(_exact_headers(match), None)
        self._found.setdefault((path, header), []).append((match, place))

    def before(self, match: HttpMatch) -> Location | None:
        """The place of one that takes every request of this match."""
        paths: list[_Asked] = [None]
        if match.uri is not None:
            kind, value = match.uri.kind, match.uri.value
            paths.append((kind.value, value))
            lengths = range(len(value) + 1) if kind is not MatchKind.REGEX else ()
            paths += [(MatchKind.PREFIX.value, value[:length]) for length in lengths]
        # Who asks for one value of a header takes no request that may have another.
        keys = product(dict.fromkeys(paths), (None, *_exact_headers(match)))
        candidates = (one for key in keys for one in self._found.get(key, ()))
        return next((place for one, place in candidates if _covers(one, match)), None)


_Asked = tuple[str, str] | None
"""A kind of match, or the name of a header, with the value that is asked for; None: any."""


def _exact_headers(match: HttpMatch) -> Iterator[tuple[str, str]]:
    for name, wanted in match.headers.items():
        if wanted is not None and wanted.kind is MatchKind.EXACT:
            yield name.lower(), wanted.value


def _unreached_within(virtual: WrittenVirtualService) -> Iterator[UnreachedRoute]:
    service = virtual.service
    named = {name for route in service.http for match in route.matches for name in match.gateways}
    # A delegate does not know the gateways of those who delegate to it: an empty name stands for any other.
    gateways = (*sorted(named), "") if service.is_delegate else service.gateways
    taken = {gateway: _Taken() for gateway in gateways}
    for part, route in zip(virtual.http, service.http, strict=True):
        found = [_before(match, taken) for match in route.matches or (HttpMatch(),)]
        if all(found):
            message = f"no request takes this route: {_takes(next(filter(None, found)))} every one that it is for"
            yield route, part, message, "", "let it stand before that one, or leave it out"
        for i, place in enumerate(found):
            if place is not None and not all(found):
                message = f"no request takes this match: {_takes(place)} every one that it is for"
                yield route, part, message, f"match[{i}]", "let its route stand before that one, or leave it out"
        for match in (route.matches or (HttpMatch(location=route.location),)) if route.delegate is None else ():
            for gateway, before in taken.items():
                if (here := _at(match, gateway)) is not None:
                    before.add(here, match.location)


def _takes(place: Location) -> str:
    return f"what stands at {place} takes"


def _before(match: HttpMatch, taken: Mapping[str, _Taken]) -> Location | None:
    """The place of what takes the requests of a match at every gateway, or at every sidecar, for which it is."""
    here = [(_at(match, gateway), before) for gateway, before in taken.items()]
    places = [before.before(one) for one, before in here if one is not None]
    return places[0] if places and all(places) else None


def _at(match: HttpMatch, gateway: str) -> HttpMatch | None:
    """What a match asks at one gateway; None where it is not for it. With ``gateways``, who calls does not matter."""
    if not match.gateways:
        return match
    return replace(match, gateways=(), source_labels={}, source_namespace="") if gateway in match.gateways else None


# --- several VirtualServices of one host ---------------------------------------------------------------------------


_Shared = tuple[str, str, frozenset[str]]
"""A gateway (or ``mesh``), a host, and the namespaces that see it; empty: all."""


def _sharing(written: Written) -> dict[_Shared, list[WrittenVirtualService]]:
    """The VirtualServices that the same proxies see for a host, in Istio's order."""
    servers = {f"{one.namespace}/{one.name}": [server for server, _ in one.servers] for one in written.gateways}
    parts = {id(one.service): one for one in written.virtual_services}
    found: dict[_Shared, list[WrittenVirtualService]] = {}
    for one in in_order(virtual.service for virtual in written.virtual_services):
        seen_by: frozenset[str] = frozenset() if "*" in one.export_to else frozenset(one.export_to)
        for gateway in dict.fromkeys(one.gateways):
            for host in dict.fromkeys(host.lower() for host in one.hosts):
                if gateway != MESH and not any(s.admits(host, one.namespace) for s in servers.get(gateway, ())):
                    continue
                found.setdefault((gateway, host, seen_by), []).append(parts[id(one)])
    return found


def _warn_of_hidden(found: Iterable[WrittenVirtualService], host: str) -> None:
    """A sidecar takes the first VirtualService that has any route for the called host and port, and no other."""
    first: dict[str, VirtualService] = {}
    for one in found:
        service = one.service
        for what, is_given in (("requests", bool(service.http)), ("connections", bool(service.tcp))):
            if is_given and what in first:
                name = f"{first[what].namespace}/{first[what].name}"
                message = f"{what} of sidecars to `{host}` take the routes of `{name}`, and none of these"
                hosts = [name.lower() for name in service.hosts]
                spec = one.part.part("spec") or one.part
                spec.warn("ME-5", message, f"hosts[{hosts.index(host)}]", _HIDDEN_HELP)
        if any(_is_always(route, host) for route in service.http):
            first.setdefault("requests", service)
        if any(not route.matches for route in service.tcp):
            first.setdefault("connections", service)


_HIDDEN_HELP = "write one VirtualService for the host; of several the oldest counts (`creationTimestamp`, or the name)"


def _is_always(route: HttpRoute, host: str) -> bool:
    """Whether every sidecar that calls the host has this route, whatever the port and the workload."""
    if not route.matches:
        return True
    here = (_at(match, MESH) for match in route.matches)
    return any(
        match is not None
        and not (match.port or match.source_labels or match.source_namespace)
        and with_known_host(match, host) is not None
        for match in here
    )


def _warn_of_joined(found: Iterable[WrittenVirtualService], gateway: str, host: str, noted: set[int]) -> None:
    """A gateway joins the routes of all, each one's in its order; those that take everything come last."""
    taken, last = _Taken(), _Taken()
    names: dict[Location, str] = {}
    for virtual in found:
        own: list[HttpMatch] = []
        for part, route in zip(virtual.http, virtual.service.http, strict=True):
            matches = route.matches or (HttpMatch(location=route.location),)
            here = [one for one in (_at(match, gateway) for match in matches) if one is not None]
            places = [(last if is_catch_all(one) else taken).before(one) for one in here]
            if places and all(places) and id(route) not in noted:
                noted.add(id(route))
                place = next(filter(None, places))
                message = f"`{names[place]}` takes every request to `{host}` at `{gateway}` that this is for: {place}"
                part.warn("ME-5", message, "", _JOINED_HELP)
            own += here if route.delegate is None else ()
        for match in own:
            (last if is_catch_all(match) else taken).add(match, match.location)
            names[match.location] = f"{virtual.service.namespace}/{virtual.service.name}"


_JOINED_HELP = "write both routes into one VirtualService: Istio promises no order of several for one host of a gateway"


# --- what implies what -----------------------------------------------------------------------------------------------


def _covers(first: HttpMatch, later: HttpMatch) -> bool:
    """Whether the first holds for every request for which the later one does; False where nobody can say."""
    return (
        first.port in (0, later.port)
        and first.source_labels.items() <= later.source_labels.items()
        and first.source_namespace in ("", later.source_namespace)
        and _covers_path(first, later)
        and _covers_text(first.scheme, later.scheme)
        and _covers_text(first.method, later.method)
        and _covers_text(first.authority, later.authority)
        and _covers_all(_lower(first.headers), _lower(later.headers))
        and _covers_all(first.query_params, later.query_params)
        and _lower(first.without_headers).items() <= _lower(later.without_headers).items()
    )


def _lower(headers: Mapping[str, StringMatch | None]) -> dict[str, StringMatch | None]:
    return {name.lower(): match for name, match in headers.items()}


def _is_every_path(uri: StringMatch) -> bool:
    return (uri.kind, uri.value) in ((MatchKind.PREFIX, "/"), (MatchKind.REGEX, ".*"))


def _covers_path(first: HttpMatch, later: HttpMatch) -> bool:
    if first.uri is None or _is_every_path(first.uri):
        return True
    if later.uri is None:
        return False
    if not first.ignore_uri_case:
        return not later.ignore_uri_case and _covers_text(first.uri, later.uri)
    if MatchKind.REGEX in (first.uri.kind, later.uri.kind):
        return first.uri == later.uri
    lower = (replace(one, value=one.value.lower()) for one in (first.uri, later.uri))
    return _covers_text(*lower)


def _covers_all(first: Mapping[str, StringMatch | None], later: Mapping[str, StringMatch | None]) -> bool:
    """``first`` may ask of a name only that it is there (None)."""
    return all(name in later and _covers_text(match, later[name]) for name, match in first.items())


def _covers_text(first: StringMatch | None, later: StringMatch | None) -> bool:
    if first is None or first == later:
        return True
    if later is None or first.kind is not MatchKind.PREFIX or later.kind is MatchKind.REGEX:
        return False
    return later.value.startswith(first.value)

"""
Follow one request through the routes of a proxy, without a proxy: which rule takes it, where to, and what it becomes.

The routes are those that are rendered (``routing``); requests are compared as Envoy does: the path without its query,
values of a header joined, the first value of a parameter. What only Envoy can tell is said (``notes``), not guessed.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl

from authz.mesh.nouns import GatewayServer, Mesh, MeshService, MeshWorkload
from authz.mesh.re2_syntax import matcher_of
from authz.mesh.routing import gateway_routes, port_of, sidecar_routes
from authz.mesh.virtual_service import (
    HeaderChanges,
    HeaderOperations,
    HttpMatch,
    HttpRoute,
    MatchKind,
    RouteDestination,
    StringMatch,
    VirtualService,
    authority_of,
)
from authz.mesh.virtual_services import is_subset


@dataclass(frozen=True, slots=True)
class OutgoingRequest:
    """A request as it leaves an application; header names in lower case."""

    method: str
    host: str
    path: str
    """With its query."""
    scheme: str = "http"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ReachedWorkload:
    """A workload at the end of a route, and the port on which its proxy receives."""

    workload: MeshWorkload
    port: int


@dataclass(frozen=True, slots=True)
class RouteEnd:
    """One destination of the rule that was taken."""

    destination: RouteDestination
    share: float
    """Of the rule's requests, from 0 to 1."""
    request: OutgoingRequest
    """What the destination receives."""
    reached: tuple[ReachedWorkload, ...]
    """Empty outside the mesh."""


@dataclass(frozen=True, slots=True)
class FollowedRoute:
    """What became of a request at the proxy that sends it on."""

    service: MeshService | None
    """The called one; None at a gateway."""
    port: int
    virtual_service: VirtualService | None = None
    route: HttpRoute | None = None
    """None: no rule took it, and if there is a VirtualService it is answered 404."""
    match: HttpMatch | None = None
    ends: tuple[RouteEnd, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Asked:
    """A request that is being compared, and what could not be told."""

    request: OutgoingRequest
    notes: list[str] = field(default_factory=list)

    def text(self, match: StringMatch | None, value: str | None, *, ignore_case: bool = False) -> bool:
        if match is None or (match.kind is MatchKind.REGEX and match.value == "*"):
            return value is not None
        if value is None:
            return False
        if match.kind is not MatchKind.REGEX:
            wanted, given = (match.value.lower(), value.lower()) if ignore_case else (match.value, value)
            return given == wanted if match.kind is MatchKind.EXACT else given.startswith(wanted)
        pattern = matcher_of(match.value)
        if pattern is None:
            self.notes.append(f"whether `{match.value}` matches only Envoy can tell; taken for no")
            return False
        flags = re.IGNORECASE if ignore_case else 0
        return re.compile(pattern.pattern, re.ASCII | flags).fullmatch(value) is not None

    def header(self, name: str) -> str | None:
        request, lower = self.request, name.lower()
        pseudo = {
            ":method": request.method,
            ":authority": request.host,
            "host": request.host,
            ":scheme": request.scheme,
        }
        if lower in pseudo:
            return pseudo[lower]
        if lower == ":path":
            return request.path
        values = [value for given, value in request.headers if given.lower() == lower]
        return ",".join(values) if values else None

    def takes(self, match: HttpMatch | None) -> bool:
        if match is None:
            return True
        path, _, query = self.request.path.partition("#")[0].partition("?")
        parameters = dict(reversed(parse_qsl(query, keep_blank_values=True)))
        pseudo = ((":method", match.method), (":authority", match.authority), (":scheme", match.scheme))
        without = match.without_headers.items()
        return (
            (match.uri is None or self.text(match.uri, path, ignore_case=match.ignore_uri_case))
            and all(one is None or self.text(one, self.header(name)) for name, one in pseudo)
            and all(self.text(one, self.header(name)) for name, one in match.headers.items())
            and not any(self.text(one, self._given(name, one)) for name, one in without)
            and all(self.text(one, parameters.get(name)) for name, one in match.query_params.items())
        )

    def _given(self, name: str, match: StringMatch | None) -> str | None:
        """A missing header counts as empty, where its value is compared."""
        value = self.header(name)
        is_compared = match is not None and (match.kind, match.value) != (MatchKind.REGEX, "*")
        return "" if value is None and is_compared else value


def follow(
    mesh: Mesh, caller: MeshWorkload, service: MeshService, port: int, request: OutgoingRequest
) -> FollowedRoute:
    """The way of a request from a workload to a port of a service. Its host is the service's (docs/traffic.md)."""
    asked = _Asked(replace(request, host=service.host))
    chosen = sidecar_routes(mesh, caller, service, port)
    if chosen is None:
        itself = RouteDestination(service.host, port)
        end = RouteEnd(itself, 1.0, asked.request, reached_by(mesh, itself, port))
        return FollowedRoute(service, port, ends=(end,))
    for route, match in chosen.routes:
        if asked.takes(match):
            return _taken(mesh, FollowedRoute(service, port, chosen.service, route, match), asked)
    return FollowedRoute(service, port, chosen.service, notes=tuple(asked.notes))


def follow_gateway(mesh: Mesh, gateway: MeshWorkload, server: GatewayServer, request: OutgoingRequest) -> FollowedRoute:
    """The way of a request that came to a gateway's server."""
    asked = _Asked(request)
    hosts = gateway_routes(mesh, gateway, server)
    name = request.host.partition(":")[0].lower()
    fitting = sorted((host for host in hosts if is_subset(name, host)), key=lambda host: (host != name, -len(host)))
    if not fitting:
        return FollowedRoute(None, server.port, notes=(f"no VirtualService has the host `{name}` here",))
    rules = [
        (is_last, one.service, route, match)
        for one in hosts[fitting[0]]
        for is_last, (route, match) in zip(one.catch_alls, one.routes, strict=True)
    ]
    for _, service, route, match in sorted(rules, key=lambda rule: rule[0]):
        if asked.takes(match):
            return _taken(mesh, FollowedRoute(None, server.port, service, route, match), asked)
    return FollowedRoute(None, server.port, notes=tuple(asked.notes))


def _taken(mesh: Mesh, found: FollowedRoute, asked: _Asked) -> FollowedRoute:
    route = found.route
    assert route is not None, "the caller found it"
    sharing = [one for one in route.destinations if one.weight] or list(route.destinations)
    total = sum(one.weight for one in sharing) or 1
    changed = _rewritten(route, found.match, asked)
    ends = tuple(
        RouteEnd(
            one.destination,
            one.weight / total if len(sharing) > 1 else 1.0,
            _with_headers(_with_headers(changed, route.headers, asked), one.headers, asked, host=not _renames(route)),
            reached_by(mesh, one.destination, found.port),
        )
        for one in sharing
    )
    notes = [*asked.notes, *_fault_notes(route)]
    notes += [f"a copy goes to {named(mirror.destination)}" for mirror in route.mirrored_to]
    return replace(found, ends=ends, notes=tuple(dict.fromkeys(notes)))


def _renames(route: HttpRoute) -> bool:
    return bool(authority_of(route.headers) or (route.rewrite and route.rewrite.authority))


def _fault_notes(route: HttpRoute) -> Iterable[str]:
    fault = route.fault
    if fault is not None and fault.delay_seconds and fault.delay_percent:
        yield f"{fault.delay_percent:g} % wait for {fault.delay_seconds:g} s first"
    if fault is not None and fault.abort_percent:
        yield f"{fault.abort_percent:g} % are answered {fault.abort_grpc or fault.abort_status} at once"


def named(destination: RouteDestination) -> str:
    """A destination in one phrase."""
    subset = f", subset {destination.subset}" if destination.subset else ""
    return f"{destination.host}{subset}"


def reached_by(mesh: Mesh, destination: RouteDestination, called: int) -> tuple[ReachedWorkload, ...]:
    """The workloads behind a destination; of a subset those with its labels, where a DestinationRule is known."""
    service = mesh.find_service(destination.host)
    port = port_of(service, destination, called) if service else None
    if service is None or port is None:
        return ()
    labels = _subset_labels(mesh, destination)
    return tuple(
        ReachedWorkload(workload, workload.ports[port.name])
        for workload in mesh.workloads_of(service)
        if labels.items() <= workload.labels.items() and port.name in workload.ports
    )


def _subset_labels(mesh: Mesh, destination: RouteDestination) -> Mapping[str, str]:
    for rule in mesh.destination_rules.for_service(destination.host) if destination.subset else ():
        subset = rule.subset(destination.subset)
        if subset is not None:
            return subset.labels
    return {}


def _rewritten(route: HttpRoute, match: HttpMatch | None, asked: _Asked) -> OutgoingRequest:
    request, rewrite = asked.request, route.rewrite
    if rewrite is None:
        return request
    path, mark, query = request.path.partition("?")
    if rewrite.regex is not None:
        pattern = matcher_of(rewrite.regex[0])
        if pattern is None:
            asked.notes.append(f"what `{rewrite.regex[0]}` makes of the path only Envoy can tell")
        else:
            path = pattern.sub(re.sub(r"\\(\d)", r"\\g<\1>", rewrite.regex[1]), path)
    elif rewrite.uri:
        # Envoy puts it in the place of what matched: a prefix, or with other matches all of the path.
        uri = match.uri if match and match.uri else StringMatch(MatchKind.PREFIX, "/")
        path = rewrite.uri + (path[len(uri.value) :] if uri.kind is MatchKind.PREFIX else "")
    return replace(request, path=f"{path}{mark}{query}", host=rewrite.authority or request.host)


def _with_headers(
    request: OutgoingRequest, changes: HeaderChanges | None, asked: _Asked, *, host: bool = True
) -> OutgoingRequest:
    if changes is None:
        return request
    operations = changes.request
    gone = {name.lower() for name in (*operations.set, *operations.remove)}
    kept = [(name, value) for name, value in request.headers if name.lower() not in gone]
    kept += _written(operations, asked)
    name = authority_of(changes) if host else ""
    return replace(request, headers=tuple(kept), host=name or request.host)


def _written(operations: HeaderOperations, asked: _Asked) -> Iterable[tuple[str, str]]:
    for name, value in (*operations.set.items(), *operations.add.items()):
        if "%" in value.replace("%%", ""):
            asked.notes.append(f"the value of the header `{name}` only Envoy can tell")
        elif not name.startswith(":") and name.lower() != "host":
            yield name, value.replace("%%", "%")

"""
Virtual hosts: the routes to one service from a sidecar, and those of a gateway's server by host.

A table of a loopback port is composed of ``service_virtual_host``, one for each service to which the port leads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    Route,
    RouteMatch,
    VirtualHost,
    VirtualHostTlsRequirementType,
)

from authz.envoy import naming
from authz.envoy.hashing import hash_policies
from authz.envoy.http_routes import DEFAULT_ROUTE, ClusterOfDestination, default_action, http_route
from authz.envoy.plain import kept
from authz.envoy.routes import REFUSED, host_outside
from authz.mesh.domains import domains
from authz.mesh.nouns import GatewayServer, Mesh, MeshService, MeshWorkload, OutboundPort, ServicePort, TlsMode
from authz.mesh.routing import ChosenRoutes, demanding_hosts, gateway_routes, port_of, sidecar_routes
from authz.mesh.virtual_service import HttpMatch, HttpRoute, RouteDestination
from authz.mesh.virtual_services import is_subset, is_wildcard

MISDIRECTED = "misdirected"
"""Name of the route for hosts of another server that demands a certificate of the client."""

_MOST_KEPT = 64
"""Tables in which the routes of one VirtualService are kept."""


def service_virtual_host(
    mesh: Mesh, workload: MeshWorkload, service: MeshService, port: ServicePort, *, domains: list[str]
) -> VirtualHost:
    """
    The routes of a workload to a port of a service: its VirtualService's, or everything to the service.

    Args:
        domains: the values of Host that mean this service at the port; ``["*"]`` where it leads nowhere else.
    """
    cluster_of = clusters_of(mesh, workload, port.number)
    chosen = sidecar_routes(mesh, workload, service, port.number)
    # Which of many names was asked for is known only when it is, and must not be lost.
    known = "" if is_wildcard(service.host) else service.host
    if chosen is None:
        cluster, outside = cluster_of(RouteDestination(service.host, port.number))
        action = default_action(cluster, outside or known or None)
        action.hash_policy = hash_policies(mesh, workload, service.host, "", port.number)
        routes = [Route(name=DEFAULT_ROUTE, match=RouteMatch(prefix="/"), route=action)]
    else:
        routes = []
        for route, match in chosen.routes:
            made = http_route(route, match, cluster_of, port.number, host=known)
            routes.append(_with_hashes(made, route, mesh, workload, port.number))
    return VirtualHost(name=f"{service.host}:{port.number}", domains=domains, routes=routes)


def virtual_hosts_by_host(mesh: Mesh, workload: MeshWorkload, port: OutboundPort) -> list[VirtualHost]:
    """
    The virtual hosts of a loopback port that leads to several services, and what becomes of every other host.

    A service is known by every name by which Istio knows it in the workload's namespace. The port in a host counts
    where the loopback port is for every port of a service.
    """
    found: list[tuple[MeshService, ServicePort]] = []
    for host, number in port.services:
        service = mesh.find_service(host)
        called = service.port(number) if service else None
        if service is not None and called is not None:
            found.append((service, called))
    names = domains({service.host: service for service, _ in found}.values(), workload.namespace)
    made: list[VirtualHost] = []
    seen: set[str] = set()
    for service, called in found:
        asked = names[service.host]
        if port.is_unwritten:
            with_port = [f"{name}:{called.number}" for name in asked]
            asked = with_port if service.host in seen else [*asked, *with_port]
        seen.add(service.host)
        made.append(service_virtual_host(mesh, workload, service, called, domains=asked))
    return [*made, elsewhere(mesh, leaves=port.leaves)]


def elsewhere(mesh: Mesh, *, leaves: bool) -> VirtualHost:
    """What becomes of hosts that are not described: the egress gateway is asked, or 502 answered (Istio's names)."""
    if leaves:
        route = Route(name="allow_any", match=RouteMatch(prefix="/"), route=default_action(naming.egress_route(mesh)))
    else:
        route = Route(name=REFUSED, match=RouteMatch(prefix="/"), direct_response=DirectResponseAction(status=502))
    return VirtualHost(name=route.name, domains=["*"], routes=[route])


def server_virtual_hosts(mesh: Mesh, workload: MeshWorkload, servers: Sequence[GatewayServer]) -> list[VirtualHost]:
    """
    What is bound to the servers of one table, routes of one host joined in order, what matches everything last.

    Hosts with the same routes share a virtual host. Without any, everything is answered 404. Where a server redirects,
    each of its hosts does, whether it has routes or not.
    """
    port = servers[0].port
    is_tls = servers[0].tls is not TlsMode.DISABLE
    by_host: dict[str, dict[str, ChosenRoutes]] = {}
    redirected: set[str] = set()
    for server in servers:
        for host, bound in gateway_routes(mesh, workload, server).items():
            found = by_host.setdefault(host, {})
            for one in bound:
                found.setdefault(f"{server.gateway} {one.service.namespace}/{one.service.name}", one)
            redirected.update([host] if server.https_redirect else ())
        for host in server.hosts if server.https_redirect else ():
            by_host.setdefault(host.lower(), {})
            redirected.add(host.lower())
    foreign = demanding_hosts(workload, servers[0])
    for host in [one for one in by_host if _is_theirs(one, foreign, servers[0])]:
        del by_host[host]
    made: dict[str, list[Route]] = {}
    sharing: dict[tuple[bool, tuple[str, ...]], list[str]] = {}
    for host, chosen in by_host.items():
        sharing.setdefault((host in redirected, tuple(chosen)), []).append(host)
        for name, one in chosen.items():
            if name not in made:
                made[name] = _kept_routes(one, mesh, workload, port, is_tls=is_tls)
    if not sharing:
        return [VirtualHost(name=f"blackhole:{port}", domains=["*"])]
    return ([_misdirected(port, foreign)] if foreign else []) + [
        VirtualHost(
            name=f"{hosts[0]}:{port}",
            domains=hosts,
            routes=_joined(by_host[hosts[0]], made),
            require_tls=VirtualHostTlsRequirementType.ALL if is_redirected else VirtualHostTlsRequirementType.NONE,
        )
        for (is_redirected, _), hosts in sharing.items()
    ]


def _kept_routes(one: ChosenRoutes, mesh: Mesh, workload: MeshWorkload, port: int, *, is_tls: bool) -> list[Route]:
    """The routes of a VirtualService at a gateway, kept with it while they lead where they led."""
    cluster_of = clusters_of(mesh, workload, port)
    ends: list[object] = []
    for route, _ in one.routes:
        ends += [cluster_of(mirror.destination) for mirror in route.mirrored_to]
        for weighted in route.destinations:
            service = mesh.find_service(weighted.destination.host)
            called = port_of(service, weighted.destination, port) if service is not None else None
            rule = mesh.rule_for(workload, service) if service is not None else None
            is_inside = service is not None and not service.external
            ends.append((cluster_of(weighted.destination), called and called.number, is_inside, rule))
    place = ("routes of a gateway", workload.name, port, is_tls)
    found = one.service.kept.get(place)
    if isinstance(found, _KeptRoutes) and (found.chosen, found.ends) == (one.routes, ends):
        return found.routes
    routes = []
    for route, match in one.routes:
        plain = http_route(route, match, cluster_of, port, is_tls=is_tls)
        routes.append(kept(_with_hashes(plain, route, mesh, workload, port)))
    if len(one.service.kept) >= _MOST_KEPT:  # of gateways that had other names or ports
        one.service.kept.clear()
    one.service.kept[place] = _KeptRoutes(one.routes, ends, routes)
    return routes


@dataclass(frozen=True, slots=True)
class _KeptRoutes:
    """Routes that nobody changes any more, and what they are made of beside their VirtualService."""

    chosen: list[tuple[HttpRoute, HttpMatch | None]]
    ends: list[object]
    routes: list[Route]


def _is_theirs(host: str, foreign: list[str], server: GatewayServer) -> bool:
    """Whether a host is for a server with one of the ``foreign`` hosts: this one has none that fits it better."""
    own = [one.lower() for one in server.hosts if is_subset(host, one.lower())]
    return any(is_subset(host, theirs) and not any(is_subset(one, theirs) for one in own) for theirs in foreign)


def _misdirected(port: int, hosts: list[str]) -> VirtualHost:
    """
    What is for a server that demands a certificate is not answered where another server's TLS was spoken.

    Browsers then ask again on a connection of its own, where they show one (RFC 9110, 15.5.20).
    """
    answer = DirectResponseAction(status=421)
    route = Route(name=MISDIRECTED, match=RouteMatch(prefix="/"), direct_response=answer)
    return VirtualHost(name=f"{MISDIRECTED}:{port}", domains=hosts, routes=[route])


def _joined(chosen: Mapping[str, ChosenRoutes], made: Mapping[str, list[Route]]) -> list[Route]:
    routes: list[tuple[bool, Route]] = []
    for name, one in chosen.items():
        routes += zip(one.catch_alls, made[name], strict=True)
    return [route for _, route in sorted(routes, key=lambda pair: pair[0])]


def _with_hashes(made: Route, route: HttpRoute, mesh: Mesh, workload: MeshWorkload, called: int) -> Route:
    """The route with what DestinationRules make hashes from, of every destination, as Istio does."""
    if made.route is None:
        return made
    for one in route.destinations:
        destination = one.destination
        service = mesh.find_service(destination.host)
        port = port_of(service, destination, called) if service is not None else None
        if service is not None and port is not None and not service.external:
            made.route.hash_policy += hash_policies(mesh, workload, service.host, destination.subset, port.number)
    return made


def clusters_of(mesh: Mesh, workload: MeshWorkload, called: int) -> ClusterOfDestination:
    """The clusters of destinations at a proxy, where requests come for this port of a service or of a gateway."""

    def cluster_of(destination: RouteDestination) -> tuple[str, str]:
        service = mesh.find_service(destination.host)
        if service is None:
            return f"outbound|{destination.port or called}|{destination.subset}|{destination.host}", ""
        port = port_of(service, destination, called)
        if service.external and not mesh.leaves_alone(workload):
            return naming.egress_route(mesh), host_outside(service, port) if port else ""
        number = port.number if port else destination.port or called
        return naming.subset_cluster(service.host, number, destination.subset), ""

    return cluster_of

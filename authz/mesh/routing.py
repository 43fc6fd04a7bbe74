"""
Which routes a proxy takes, by what is known without a request: the called service and port, the gateway, who calls.

Read by the rendering and by ``authz explain``, so that both choose alike.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from authz.mesh.nouns import GatewayServer, Mesh, MeshService, MeshWorkload, Protocol, ServicePort, TlsMode
from authz.mesh.virtual_service import (
    MESH,
    ConnectionMatch,
    ConnectionRoute,
    HttpMatch,
    HttpRoute,
    RouteDestination,
    VirtualService,
    WeightedDestination,
)
from authz.mesh.virtual_services import common_hosts, fits_connection, is_catch_all, is_subset, reachable

_DEMANDING = (TlsMode.MUTUAL, TlsMode.ISTIO_MUTUAL)


@dataclass(frozen=True, slots=True)
class ChosenRoutes:
    """What is left of a VirtualService at one proxy and port: its routes, one for each match."""

    service: VirtualService
    routes: list[tuple[HttpRoute, HttpMatch | None]]

    @property
    def catch_alls(self) -> list[bool]:
        """For each route whether it takes everything that comes to it."""
        return [is_catch_all(match) for _, match in self.routes]


def sidecar_routes(mesh: Mesh, workload: MeshWorkload, service: MeshService, port: int) -> ChosenRoutes | None:
    """The routes by which a workload reaches a service's port; None: no VirtualService has a word in it."""
    for one in mesh.virtual_services.of_host(service.host, workload.namespace):
        routes = reachable(one.http, MESH, port, workload.labels, workload.namespace, service.host)
        if routes:
            return ChosenRoutes(one, routes)
    return None


def gateway_routes(mesh: Mesh, workload: MeshWorkload, server: GatewayServer) -> dict[str, list[ChosenRoutes]]:
    """The routes of a gateway's server by host, of every VirtualService that is bound to it."""
    return mesh.once(_gateway_routes, workload, server)


def _gateway_routes(mesh: Mesh, workload: MeshWorkload, server: GatewayServer) -> dict[str, list[ChosenRoutes]]:
    found: dict[str, list[ChosenRoutes]] = {}
    for one in mesh.virtual_services.of_gateway(server.gateway, workload.namespace):
        hosts = common_hosts(server.hosts_for(one.namespace), one.hosts)
        routes = reachable(one.http, server.gateway, server.port, workload.labels, workload.namespace) if hosts else []
        if routes:
            for host in hosts:
                found.setdefault(host.lower(), []).append(ChosenRoutes(one, routes))
    return found


def demanding_hosts(workload: MeshWorkload, server: GatewayServer) -> list[str]:
    """
    The hosts, among those of a server with TLS, of narrower servers of its port that demand a client's certificate.

    Who spoke this server's TLS has shown none that those would take, whatever host the request then names.
    """
    if server.tls is TlsMode.DISABLE:
        return []
    others = (one for one in workload.servers if (one.port, one.bind) == (server.port, server.bind))
    hosts = [host.lower() for one in others if one is not server and one.tls in _DEMANDING for host in one.hosts]
    return sorted({host for host in hosts if any(is_subset(host, own.lower()) for own in server.hosts)})


def gateway_connections(
    mesh: Mesh, workload: MeshWorkload, server: GatewayServer
) -> dict[tuple[str, ...], ConnectionRoute]:
    """Where connections of a gateway's server go, by server names: those of its routes, or of the server itself."""
    if server.tls is TlsMode.PASSTHROUGH:
        return dict(gateway_tls_routes(mesh, workload, server))
    chosen = gateway_tcp_route(mesh, workload, server)
    return {server.server_names if server.tls is not TlsMode.DISABLE else (): chosen} if chosen else {}


def gateway_tcp_route(mesh: Mesh, workload: MeshWorkload, server: GatewayServer) -> ConnectionRoute | None:
    """The first ``tcp`` route of what is bound to a gateway's server; who calls is not asked, as in Istio."""
    for one in mesh.virtual_services.of_gateway(server.gateway, workload.namespace):
        for route in one.tcp if common_hosts(server.hosts_for(one.namespace), one.hosts) else ():
            if not route.matches or any(_fits_server(match, server) for match in route.matches):
                return route
    return None


def gateway_tls_routes(
    mesh: Mesh, workload: MeshWorkload, server: GatewayServer
) -> list[tuple[tuple[str, ...], ConnectionRoute]]:
    """The server names and ``tls`` routes of the VirtualServices bound to a server; of a name the first."""
    seen: set[str] = set()
    found = []
    for one in mesh.virtual_services.of_gateway(server.gateway, workload.namespace):
        for route in one.tls if common_hosts(server.hosts_for(one.namespace), one.hosts) else ():
            for match in route.matches:
                names = tuple(dict.fromkeys(name.lower() for name in match.sni_hosts if name.lower() not in seen))
                if names and _fits_server(match, server):
                    seen.update(names)
                    found.append((names, route))
    return found


def _fits_server(match: ConnectionMatch, server: GatewayServer) -> bool:
    return match.port in (0, server.port) and (not match.gateways or server.gateway in match.gateways)


def tcp_route(mesh: Mesh, workload: MeshWorkload, service: MeshService, port: int) -> ConnectionRoute | None:
    """The first ``tcp`` route by which a workload reaches a service's port."""
    for one in mesh.virtual_services.of_host(service.host, workload.namespace):
        for route in one.tcp:
            matches = (fits_connection(m, MESH, port, workload.labels, workload.namespace) for m in route.matches)
            if not route.matches or any(matches):
                return route
    return None


def tls_routes(
    mesh: Mesh, workload: MeshWorkload, service: MeshService, port: int
) -> list[tuple[tuple[str, ...], ConnectionRoute]]:
    """The server names and ``tls`` routes by which a workload reaches a service's port; equal names once, the first."""
    found: dict[tuple[str, ...], ConnectionRoute] = {}
    for one in mesh.virtual_services.of_host(service.host, workload.namespace):
        for route in one.tls:
            for match in route.matches:
                if fits_connection(match, MESH, port, workload.labels, workload.namespace):
                    found.setdefault(match.sni_hosts, route)
    return list(found.items())


def port_of(service: MeshService, destination: RouteDestination, called: int) -> ServicePort | None:
    """The port of a destination: the one that is written, the only one of the service, or the one that was called."""
    if destination.port:
        return service.port(destination.port)
    return service.ports[0] if len(service.ports) == 1 else service.port(called)


def called_by(mesh: Mesh, workload: MeshWorkload) -> Iterator[tuple[MeshService, ServicePort, RouteDestination]]:
    """Everything to which requests and connections of a proxy can lead, in order, some of it several times."""
    if workload.is_gateway:  # it may lead to thousands, and is asked for several times
        yield from mesh.once(_called_by, workload)
    else:
        yield from _called_by(mesh, workload)


def _called_by(mesh: Mesh, workload: MeshWorkload) -> list[tuple[MeshService, ServicePort, RouteDestination]]:
    ways = _destinations(mesh, workload)
    return [one for destinations, called in ways for one in _resolved(mesh, destinations, called)]


def called_by_requests(
    mesh: Mesh, workload: MeshWorkload
) -> Iterator[tuple[MeshService, ServicePort, RouteDestination]]:
    """Where requests end that a proxy takes: of a VirtualService only its routes."""
    for service, port, is_bytes in _outbound(mesh, workload):
        if not is_bytes:
            yield from _resolved(mesh, requests_of_sidecar(mesh, workload, service, port), port.number)
    for server in workload.servers:
        if server.leads_inwards:
            yield from _resolved(mesh, _requests_of_server(mesh, workload, server), server.port)


def called_by_bytes(mesh: Mesh, workload: MeshWorkload) -> Iterator[tuple[MeshService, ServicePort, RouteDestination]]:
    """Where connections end that a proxy takes and does not look into."""
    for service, port, is_bytes in _outbound(mesh, workload):
        if is_bytes:
            yield from _resolved(mesh, _bytes_of_sidecar(mesh, workload, service, port), port.number)
    for server in workload.servers:
        if server.leads_inwards:
            yield from _resolved(mesh, _bytes_of_server(mesh, workload, server), server.port)


def _outbound(mesh: Mesh, workload: MeshWorkload) -> Iterator[tuple[MeshService, ServicePort, bool]]:
    """What a sidecar's loopback ports lead to, once each, and whether as bytes."""
    pairs = ((pair, not port.protocol.is_http) for port in workload.outbound for pair in port.services)
    for (host, number), is_bytes in dict.fromkeys(pairs):
        service = mesh.find_service(host)
        port = service.port(number) if service else None
        if service is not None and port is not None:
            yield service, port, is_bytes


def connection_ways(
    mesh: Mesh, workload: MeshWorkload, service: MeshService, port: ServicePort
) -> list[tuple[tuple[str, ...], tuple[WeightedDestination, ...]]]:
    """
    Where bytes for a service's port go, by the server names of ``tls`` routes; without names wherever they are from.

    Bytes for HTTPS outside are TLS of the application's own, as in Istio.
    """
    chosen = None
    if port.speaks_tls:
        by_name = tls_routes(mesh, workload, service, port.number)
        if by_name:
            return [(names, route.destinations) for names, route in by_name]
    if port.protocol is not Protocol.TLS:
        chosen = tcp_route(mesh, workload, service, port.number)
    itself = (WeightedDestination(RouteDestination(service.host, port.number)),)
    return [((), chosen.destinations if chosen else itself)]


def requests_of_sidecar(
    mesh: Mesh, workload: MeshWorkload, service: MeshService, port: ServicePort
) -> Iterator[RouteDestination]:
    """Where the requests of a workload for a service's port end: by its routes, or at the service itself."""
    chosen = sidecar_routes(mesh, workload, service, port.number)
    yield from _of_http(chosen.routes) if chosen else (RouteDestination(service.host, port.number),)


def _bytes_of_sidecar(
    mesh: Mesh, workload: MeshWorkload, service: MeshService, port: ServicePort
) -> Iterator[RouteDestination]:
    for _, destinations in connection_ways(mesh, workload, service, port):
        yield from (weighted.destination for weighted in destinations)


def _requests_of_server(mesh: Mesh, workload: MeshWorkload, server: GatewayServer) -> Iterator[RouteDestination]:
    for bound in gateway_routes(mesh, workload, server).values() if server.takes_requests else ():
        for one in bound:
            yield from _of_http(one.routes)


def _bytes_of_server(mesh: Mesh, workload: MeshWorkload, server: GatewayServer) -> Iterator[RouteDestination]:
    for route in gateway_connections(mesh, workload, server).values() if not server.takes_requests else ():
        yield from (weighted.destination for weighted in route.destinations)


def _of_http(routes: Iterable[tuple[HttpRoute, HttpMatch | None]]) -> Iterator[RouteDestination]:
    for route, _ in routes:
        yield from (weighted.destination for weighted in route.destinations)
        yield from (mirror.destination for mirror in route.mirrored_to)


def unresolved(mesh: Mesh, workload: MeshWorkload) -> Iterator[tuple[RouteDestination, MeshService, int]]:
    """Destinations without a port that a proxy can take, and that have no port like the one that was called."""
    for destinations, called in _destinations(mesh, workload):
        for destination in destinations:
            service = mesh.find_service(destination.host)
            if service is not None and not destination.port and port_of(service, destination, called) is None:
                yield destination, service, called


def _destinations(mesh: Mesh, workload: MeshWorkload) -> Iterator[tuple[Iterator[RouteDestination], int]]:
    for service, port, is_bytes in _outbound(mesh, workload):
        yield iter((RouteDestination(service.host, port.number),)), port.number
        ways = _bytes_of_sidecar if is_bytes else requests_of_sidecar
        yield ways(mesh, workload, service, port), port.number
    for server in workload.servers:
        if server.leads_inwards:
            yield _bytes_of_server(mesh, workload, server), server.port
            yield _requests_of_server(mesh, workload, server), server.port


def _resolved(
    mesh: Mesh, destinations: Iterable[RouteDestination], called: int
) -> Iterator[tuple[MeshService, ServicePort, RouteDestination]]:
    for destination in destinations:
        service = mesh.find_service(destination.host)
        port = port_of(service, destination, called) if service else None
        if service is not None and port is not None:
            yield service, port, destination

"""
Virtual hosts: the routes to one service from a sidecar, and those of a gateway's server by host.

A table of a loopback port is composed of ``service_virtual_host``, one for each service to which the port leads.
"""

from envoy_data_plane.envoy.config.route.v3 import Route, RouteMatch, VirtualHost

from authz.envoy import naming
from authz.envoy.hashing import hash_policies
from authz.envoy.http_routes import DEFAULT_ROUTE, ClusterOfDestination, default_action, http_route
from authz.mesh.nouns import GatewayServer, Mesh, MeshService, MeshWorkload, ServicePort, TlsMode
from authz.mesh.routing import gateway_routes, port_of, sidecar_routes
from authz.mesh.virtual_service import HttpRoute, RouteDestination


def service_virtual_host(
    mesh: Mesh, workload: MeshWorkload, service: MeshService, port: ServicePort, *, domains: list[str]
) -> VirtualHost:
    """
    The routes of a workload to a port of a service: its VirtualService's, or everything to the service.

    Args:
        domains: the values of Host that mean this service at the port; ``["*"]`` where it leads nowhere else.
    """
    cluster_of = clusters_of(mesh, port.number)
    chosen = sidecar_routes(mesh, workload, service, port.number)
    if chosen is None:
        cluster, outside = cluster_of(RouteDestination(service.host, port.number))
        action = default_action(cluster, outside or service.host)
        action.hash_policy = hash_policies(mesh, workload, service.host, "", port.number)
        routes = [Route(name=DEFAULT_ROUTE, match=RouteMatch(prefix="/"), route=action)]
    else:
        routes = []
        for route, match in chosen.routes:
            made = http_route(route, match, cluster_of, port.number, host=service.host)
            routes.append(_with_hashes(made, route, mesh, workload, port.number))
    return VirtualHost(name=f"{service.host}:{port.number}", domains=domains, routes=routes)


def server_virtual_hosts(mesh: Mesh, workload: MeshWorkload, server: GatewayServer) -> list[VirtualHost]:
    """
    The VirtualServices bound to a gateway's server, those of one host joined in order, what matches everything last.

    Hosts with the same routes share a virtual host. Without any, everything is answered 404.
    """
    cluster_of = clusters_of(mesh, server.port)
    is_tls = server.tls is not TlsMode.DISABLE
    made: dict[str, list[Route]] = {}
    by_services: dict[tuple[str, ...], list[str]] = {}
    joined: dict[tuple[str, ...], list[Route]] = {}
    for host, bound in gateway_routes(mesh, workload, server).items():
        key = tuple(f"{one.service.namespace}/{one.service.name}" for one in bound)
        by_services.setdefault(key, []).append(host)
        if key in joined:
            continue
        routes: list[tuple[bool, Route]] = []
        for name, one in zip(key, bound, strict=True):
            if name not in made:
                made[name] = []
                for route, match in one.routes:
                    plain = http_route(route, match, cluster_of, server.port, is_tls=is_tls)
                    made[name].append(_with_hashes(plain, route, mesh, workload, server.port))
            routes += zip(one.catch_alls, made[name], strict=True)
        joined[key] = [route for is_last, route in sorted(routes, key=lambda pair: pair[0])]
    if not by_services:
        return [VirtualHost(name=f"blackhole:{server.port}", domains=["*"])]
    return [
        VirtualHost(name=f"{hosts[0]}:{server.port}", domains=hosts, routes=joined[key])
        for key, hosts in by_services.items()
    ]


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


def clusters_of(mesh: Mesh, called: int) -> ClusterOfDestination:
    """The clusters of destinations at a proxy, where requests come for this port of a service or of a gateway."""

    def cluster_of(destination: RouteDestination) -> tuple[str, str]:
        service = mesh.find_service(destination.host)
        if service is None:
            return f"outbound|{destination.port or called}|{destination.subset}|{destination.host}", ""
        if service.external:
            return naming.egress_route(mesh), service.host
        port = port_of(service, destination, called)
        number = port.number if port else destination.port or called
        return naming.subset_cluster(service.host, number, destination.subset), ""

    return cluster_of

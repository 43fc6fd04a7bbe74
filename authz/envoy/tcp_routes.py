"""
Filter chains of an outbound port that forwards bytes: by ``tcp`` routes, or by server names where ``tls`` has some.

As in Istio, ``tls`` routes are those of ports with the protocol ``TLS``. Where there are some, a name that none of them
has leads nowhere.
"""

from envoy_data_plane.envoy.config.listener.v3 import FilterChain, FilterChainMatch

from authz.envoy.connection import tcp_filters
from authz.envoy.options import RenderOptions
from authz.envoy.virtual_hosts import clusters_of
from authz.mesh.nouns import Mesh, MeshService, MeshWorkload, OutboundPort, Protocol, ServicePort
from authz.mesh.routing import tcp_route, tls_routes
from authz.mesh.virtual_service import RouteDestination, WeightedDestination


def outbound_chains(
    name: str, mesh: Mesh, workload: MeshWorkload, port: OutboundPort, options: RenderOptions
) -> list[FilterChain]:
    """
    The chains by which bytes reach the services of a loopback port; with names the listener must inspect TLS.

    Where the port leads to several services, the name that is asked for in TLS says to which: of none, nowhere.
    """
    found: dict[tuple[str, ...], tuple[int, tuple[WeightedDestination, ...]]] = {}
    seen: set[str] = set()
    for host, number in port.services:
        service = mesh.service(host)
        called = service.port(number)
        assert called is not None, "linking resolved every outbound port"
        for names, destinations in _ways(mesh, workload, service, called):
            asked = names or ((service.host.lower(),) if port.targets is not None else ())
            left = tuple(one for one in asked if one not in seen)
            if left or not asked:
                seen.update(left)
                found[left] = (number, destinations)
    return [
        FilterChain(
            filter_chain_match=FilterChainMatch(server_names=list(names)) if names else None,
            filters=tcp_filters(name, led_to(mesh, number, destinations), workload, options, checked=False),
        )
        for names, (number, destinations) in found.items()
    ]


def _ways(
    mesh: Mesh, workload: MeshWorkload, service: MeshService, port: ServicePort
) -> list[tuple[tuple[str, ...], tuple[WeightedDestination, ...]]]:
    chosen = None
    if port.protocol is Protocol.TLS:
        by_name = tls_routes(mesh, workload, service, port.number)
        if by_name:
            return [(names, route.destinations) for names, route in by_name]
    else:
        chosen = tcp_route(mesh, workload, service, port.number)
    itself = (WeightedDestination(RouteDestination(service.host, port.number)),)
    return [((), chosen.destinations if chosen else itself)]


def led_to(mesh: Mesh, called: int, destinations: tuple[WeightedDestination, ...]) -> str | list[tuple[str, int]]:
    """The cluster of a connection, or several with their weights."""
    cluster_of = clusters_of(mesh, called)
    weighted = [(cluster_of(one.destination)[0], one.weight) for one in destinations]
    return weighted[0][0] if len(weighted) == 1 else [one for one in weighted if one[1]]

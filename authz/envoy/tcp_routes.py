"""
Filter chains of an outbound port that forwards bytes: by ``tcp`` routes, or by server names where ``tls`` has some.

As in Istio, ``tls`` routes are those of ports with the protocol ``TLS``. Where there are some, a name that none of them
has leads nowhere.
"""

from envoy_data_plane.envoy.config.listener.v3 import FilterChain, FilterChainMatch

from authz.envoy.connection import tcp_filters
from authz.envoy.options import RenderOptions
from authz.envoy.virtual_hosts import clusters_of
from authz.mesh.nouns import Mesh, MeshService, MeshWorkload, Protocol, ServicePort
from authz.mesh.routing import tcp_route, tls_routes
from authz.mesh.virtual_service import RouteDestination, WeightedDestination


def outbound_chains(
    name: str, mesh: Mesh, workload: MeshWorkload, service: MeshService, port: ServicePort, options: RenderOptions
) -> list[FilterChain]:
    """The chains by which a workload reaches a port of a service; with server names the listener must inspect TLS."""

    def chain(destinations: tuple[WeightedDestination, ...], names: tuple[str, ...] = ()) -> FilterChain:
        cluster_of = clusters_of(mesh, port.number)
        weighted = [(cluster_of(one.destination)[0], one.weight) for one in destinations]
        led = weighted[0][0] if len(weighted) == 1 else [one for one in weighted if one[1]]
        return FilterChain(
            filter_chain_match=FilterChainMatch(server_names=list(names)) if names else None,
            filters=tcp_filters(name, led, workload, options, checked=False),
        )

    if port.protocol is Protocol.TLS:
        by_name = tls_routes(mesh, workload, service, port.number)
        if by_name:
            return [chain(route.destinations, names) for names, route in by_name]
        chosen = None
    else:
        chosen = tcp_route(mesh, workload, service, port.number)
    itself = (WeightedDestination(RouteDestination(service.host, port.number)),)
    return [chain(chosen.destinations if chosen else itself)]

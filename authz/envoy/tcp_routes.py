"""
Filter chains of an outbound port that forwards bytes: by ``tcp`` routes, or by server names where ``tls`` has some.

As in Istio, ``tls`` routes are those of ports with the protocol ``TLS``. Where there are some, a name that none of them
has leads nowhere.
"""

from envoy_data_plane.envoy.config.listener.v3 import FilterChain, FilterChainMatch

from authz.envoy import naming
from authz.envoy.connection import tcp_filters
from authz.envoy.options import RenderOptions
from authz.envoy.virtual_hosts import clusters_of
from authz.mesh.nouns import Mesh, MeshWorkload, OutboundPort
from authz.mesh.routing import connection_ways, port_of
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
        for names, destinations in connection_ways(mesh, workload, service, called):
            asked = names or ((service.host.lower(),) if port.targets is not None else ())
            left = tuple(one for one in asked if one not in seen)
            if left or not asked:
                seen.update(left)
                found[left] = (number, destinations)
    return [
        FilterChain(
            filter_chain_match=FilterChainMatch(server_names=list(names)) if names else None,
            filters=tcp_filters(name, led_to(mesh, workload, number, destinations), workload, options, checked=False),
        )
        for names, (number, destinations) in found.items()
    ]


def led_to(
    mesh: Mesh, workload: MeshWorkload, called: int, destinations: tuple[WeightedDestination, ...]
) -> str | list[tuple[str, int]]:
    """The cluster of a connection, or several with their weights."""
    cluster_of = clusters_of(mesh, workload, called)

    def cluster(destination: RouteDestination) -> str:
        service = mesh.find_service(destination.host)
        port = port_of(service, destination, called) if service else None
        if service is not None and port is not None and service.external:  # only gateways send bytes out
            return naming.tunnel_cluster(service, port)
        return cluster_of(destination)[0]

    weighted = [(cluster(one.destination), one.weight) for one in destinations]
    return weighted[0][0] if len(weighted) == 1 else [one for one in weighted if one[1]]

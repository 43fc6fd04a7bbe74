"""
Listeners of a gateway: one for each port and address of its servers, with a filter chain for each certificate.

As in Istio, servers with TLS are told apart by the name for which a client asks, and who asks for another name finds no
chain and is cut off. Every chain has the check, however many servers share a port.
"""

from collections.abc import Iterator, Sequence

from envoy_data_plane.envoy.config.core.v3 import TrafficDirection, TransportSocket
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, FilterChainMatch, Listener
from envoy_data_plane.envoy.extensions.filters.http.dynamic_forward_proxy.v3 import FilterConfig
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter

from authz.envoy import routes
from authz.envoy.browser_login import login_filters
from authz.envoy.connection import Role, http_filter, tcp_filters
from authz.envoy.http_faults import fault_and_cors
from authz.envoy.listener_frame import ANY_ADDRESS, framed
from authz.envoy.messages import pack
from authz.envoy.options import Listeners, RenderOptions
from authz.envoy.outside_clusters import dns_cache, finds_names
from authz.envoy.passthrough import checked_chains
from authz.envoy.route_tables import server_table
from authz.envoy.tcp_routes import led_to
from authz.envoy.tls import mesh_server
from authz.envoy.web_tls import web_server
from authz.mesh.gateway_server import GatewayServer, TlsMode, group_name, server_groups, table_groups
from authz.mesh.nouns import Mesh, MeshWorkload
from authz.mesh.routing import gateway_connections

EDGE_BUFFER_BYTES = 32768
"""Per connection at gateways, Envoy's own advice for the edge."""


def gateway_listeners(mesh: Mesh, workload: MeshWorkload, options: RenderOptions) -> list[Listener]:
    """Every listener of a gateway; none for servers of connections that no route leads anywhere, as in Istio."""
    found = []
    for group in server_groups(workload.servers):
        name, first = group_name(group), group[0]
        chains = list(_chains(name, mesh, workload, group, options))
        if chains:
            made = framed(name, first.bind or ANY_ADDRESS, first.port, chains, TrafficDirection.INBOUND)
            made.per_connection_buffer_limit_bytes = EDGE_BUFFER_BYTES
            found.append(made)
    return found


def _chains(
    name: str, mesh: Mesh, workload: MeshWorkload, group: Sequence[GatewayServer], options: RenderOptions
) -> Iterator[FilterChain]:
    """PeerAuthentication has no say at a gateway (PA-14): the Gateway's own ``tls`` does."""
    first = group[0]
    if first.is_passthrough:
        yield from checked_chains(name, mesh, workload, options)
    elif first.is_egress:
        yield _to_outside(name, mesh, workload, options)
    for table, servers in table_groups(group):
        yield _web_chain(table, mesh, workload, servers, options)
    seen = {host for server in group if server.tls is not TlsMode.PASSTHROUGH for host in server.server_names}
    for server in group:
        if server.takes_requests or not server.leads_inwards:
            continue
        for names, route in gateway_connections(mesh, workload, server).items():
            own = server.tls is not TlsMode.PASSTHROUGH
            left = names if own else tuple(one for one in names if one not in seen)
            if names and not left:
                continue
            seen.update(left)
            leads = led_to(mesh, workload, server.port, route.destinations)
            filters = tcp_filters(name, leads, workload, options, checked=True)
            yield _chain(f"{server.name}", server, left, filters, _socket(mesh, workload, server, options))


def _to_outside(name: str, mesh: Mesh, workload: MeshWorkload, options: RenderOptions) -> FilterChain:
    http = http_filter(
        Role.GATEWAY,
        routes.egress_routes(name, mesh),
        workload,
        mesh.config,
        options,
        extra_filters=(_resolve_hosts(),),
        upgrades=("websocket", "CONNECT"),
    )
    return FilterChain(name="mtls", transport_socket=mesh_server(workload, mesh.config, options), filters=[http])


def _web_chain(
    table: str, mesh: Mesh, workload: MeshWorkload, servers: Sequence[GatewayServer], options: RenderOptions
) -> FilterChain:
    """The chain of servers that share a table."""
    server = servers[0]
    is_followed = options.listeners is not Listeners.STATIC
    http = http_filter(
        Role.GATEWAY,
        table if is_followed else server_table(table, mesh, workload, servers),
        workload,
        mesh.config,
        options,
        answering_filters=fault_and_cors(),
        extra_filters=(_resolve_hosts(),) if finds_names(mesh, workload) else (),
        first_filters=login_filters(server.login, server.hosts, options) if server.login else (),
    )
    names = server.server_names if server.tls is not TlsMode.DISABLE else ()
    return _chain("web", server, names, [http], _socket(mesh, workload, server, options))


def _socket(
    mesh: Mesh, workload: MeshWorkload, server: GatewayServer, options: RenderOptions
) -> TransportSocket | None:
    if server.tls is TlsMode.ISTIO_MUTUAL:
        return mesh_server(workload, mesh.config, options)
    return None if server.tls in (TlsMode.DISABLE, TlsMode.PASSTHROUGH) else web_server(server)


def _chain(
    name: str, server: GatewayServer, names: Sequence[str], filters: list[Filter], socket: TransportSocket | None
) -> FilterChain:
    match = FilterChainMatch(server_names=list(names)) if names else None
    if server.tls is TlsMode.PASSTHROUGH:
        match = FilterChainMatch(transport_protocol="tls", server_names=[one for one in names if one != "*"])
    return FilterChain(
        name=name if server.tls is TlsMode.DISABLE or not names else f"{name} {names[0]}",
        filter_chain_match=match,
        transport_socket=socket,
        filters=filters,
    )


def _resolve_hosts() -> HttpFilter:
    return HttpFilter(
        name="envoy.filters.http.dynamic_forward_proxy", typed_config=pack(FilterConfig(dns_cache_config=dns_cache()))
    )

"""
Listeners of one proxy: inbound by mTLS mode, outbound on loopback, and a gateway's servers.

Inbound (PA-9 to PA-11): STRICT has only the mTLS chain, so that plaintext is refused in the handshake; PERMISSIVE has
both; DISABLE has the plaintext chain only. The rest of the listener is the same in every mode, so that Envoy changes
chains in place when a policy changes.
"""

from collections.abc import Callable, Iterator
from functools import cache

from envoy_data_plane.envoy.config.core.v3 import TrafficDirection
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, FilterChainMatch, Listener
from envoy_data_plane.envoy.extensions.filters.http.dynamic_forward_proxy.v3 import FilterConfig
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter

from authz.core.resources import MtlsMode
from authz.envoy import naming, routes
from authz.envoy.browser_login import login_filters
from authz.envoy.connection import Role, http_filter, tcp_filters
from authz.envoy.http_faults import fault_and_cors
from authz.envoy.messages import pack, seconds, socket_address
from authz.envoy.options import Listeners, RenderOptions
from authz.envoy.outside_clusters import dns_cache
from authz.envoy.passthrough import HELLO_SECONDS, checked_chains, finding_listener, tls_inspector
from authz.envoy.route_tables import outbound_name, outbound_table, server_name, server_table
from authz.envoy.tcp_routes import outbound_chains
from authz.envoy.tls import mesh_server, web_server
from authz.mesh.nouns import GatewayServer, InboundPort, Mesh, MeshWorkload, OutboundPort, Protocol, TlsMode

MtlsModeOf = Callable[[MeshWorkload, int], MtlsMode]
"""The effective mode of a workload's port (PA-4); never UNSET."""

ANY_ADDRESS = "0.0.0.0"  # noqa: S104  # one set of files for processes and containers (XA-190); policies guard it
LOOPBACK = "127.0.0.1"
EDGE_BUFFER_BYTES = 32768
"""Per connection at gateways, Envoy's own advice for the edge."""


def listeners(mesh: Mesh, workload: MeshWorkload, mode_of: MtlsModeOf, options: RenderOptions) -> list[Listener]:
    """Every listener of a proxy, by port; last the one without a port, in which names are looked up."""
    by_port = {
        **{
            port.number: _inbound(mesh, workload, port, mode_of(workload, port.number), options)
            for port in workload.inbound
        },
        **{port.number: _outbound(mesh, workload, port, options) for port in workload.outbound},
        **{server.port: _server(mesh, workload, server, options) for server in workload.servers},
    }
    inner = [finding_listener(workload, options)] if workload.is_passthrough else []
    return [*(by_port[number] for number in sorted(by_port)), *inner]


def _inbound(mesh: Mesh, workload: MeshWorkload, port: InboundPort, mode: MtlsMode, options: RenderOptions) -> Listener:
    name = f"inbound_{port.number}"

    @cache
    def filters() -> list[Filter]:
        cluster = naming.app_cluster(port)
        if not port.protocol.is_http:
            return tcp_filters(name, cluster, workload, options, checked=True)
        return [http_filter(Role.INBOUND, routes.to_cluster(name, cluster), workload, mesh.config, options)]

    def chains() -> Iterator[FilterChain]:
        if mode is not MtlsMode.DISABLE:
            yield FilterChain(
                name="mtls",
                filter_chain_match=FilterChainMatch(transport_protocol="tls"),
                transport_socket=mesh_server(workload, mesh.config, options),
                filters=filters(),
            )
        if mode is not MtlsMode.STRICT:
            yield FilterChain(
                name="plaintext",
                filter_chain_match=FilterChainMatch(transport_protocol="raw_buffer"),
                filters=filters(),
            )

    return _listener(name, ANY_ADDRESS, port.number, list(chains()), TrafficDirection.INBOUND)


def _outbound(mesh: Mesh, workload: MeshWorkload, port: OutboundPort, options: RenderOptions) -> Listener:
    """A loopback port: whoever can connect to it acts as this workload, so it never leaves the host."""
    name = outbound_name(port)
    if port.protocol is Protocol.HTTP_PROXY:
        table = routes.forward_proxy(name, naming.egress_route(mesh))
        upgrades = ("websocket", "CONNECT")
        chains = _one_chain(http_filter(Role.OUTBOUND, table, workload, mesh.config, options, upgrades=upgrades))
    elif port.protocol.is_http:
        followed = options.listeners is Listeners.DYNAMIC
        routed = name if followed else outbound_table(mesh, workload, port)
        extra = fault_and_cors()
        chains = _one_chain(http_filter(Role.OUTBOUND, routed, workload, mesh.config, options, extra_filters=extra))
    else:
        service = mesh.service(port.host)
        service_port = service.port(port.service_port)
        assert service_port is not None, "linking resolved every outbound port"
        chains = outbound_chains(name, mesh, workload, service, service_port, options)
    return _listener(name, LOOPBACK, port.number, chains, TrafficDirection.OUTBOUND)


def _one_chain(only: Filter) -> list[FilterChain]:
    return [FilterChain(filters=[only])]


def _server(mesh: Mesh, workload: MeshWorkload, server: GatewayServer, options: RenderOptions) -> Listener:
    """PeerAuthentication has no say at a gateway (PA-14): the Gateway's own ``tls`` does."""
    name = server_name(server)
    if server.is_passthrough:
        chains = checked_chains(name, mesh, workload, options)
    elif server.is_egress:
        http = http_filter(
            Role.GATEWAY,
            routes.egress_routes(name, mesh),
            workload,
            mesh.config,
            options,
            extra_filters=(_resolve_hosts(),),
            upgrades=("websocket", "CONNECT"),
        )
        tls = mesh_server(workload, mesh.config, options)
        chains = [FilterChain(name="mtls", transport_socket=tls, filters=[http])]
    else:
        http = http_filter(
            Role.GATEWAY,
            name if options.listeners is Listeners.DYNAMIC else server_table(mesh, workload, server),
            workload,
            mesh.config,
            options,
            extra_filters=fault_and_cors(),
            first_filters=login_filters(server.login, server.hosts, options) if server.login else (),
        )
        web = web_server(server) if server.tls is not TlsMode.DISABLE else None
        chains = [FilterChain(name="web", transport_socket=web, filters=[http])]
    listener = _listener(name, ANY_ADDRESS, server.port, chains, TrafficDirection.INBOUND)
    listener.per_connection_buffer_limit_bytes = EDGE_BUFFER_BYTES
    return listener


def _resolve_hosts() -> HttpFilter:
    return HttpFilter(
        name="envoy.filters.http.dynamic_forward_proxy", typed_config=pack(FilterConfig(dns_cache_config=dns_cache()))
    )


def _listener(name: str, host: str, port: int, chains: list[FilterChain], direction: TrafficDirection) -> Listener:
    by_name = any(chain.filter_chain_match and chain.filter_chain_match.server_names for chain in chains)
    inspected = direction is TrafficDirection.INBOUND or by_name
    return Listener(
        name=name,
        address=socket_address(host, port),
        listener_filters=[tls_inspector()] if inspected else [],
        listener_filters_timeout=seconds(HELLO_SECONDS)
        if inspected
        else None,  # ends connections that say nothing (XA-135)
        filter_chains=chains,
        traffic_direction=direction,
        enable_reuse_port=False,  # with it a second process could take the port, and a part of the traffic, unnoticed
    )

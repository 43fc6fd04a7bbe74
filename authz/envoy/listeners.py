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

from authz.core.resources import MtlsMode
from authz.envoy import naming, routes
from authz.envoy.connection import Role, http_filter, tcp_filters
from authz.envoy.gateway_listeners import gateway_listeners
from authz.envoy.http_faults import fault_and_cors
from authz.envoy.listener_frame import ANY_ADDRESS, LOOPBACK, framed
from authz.envoy.options import Listeners, RenderOptions
from authz.envoy.passthrough import finding_listener
from authz.envoy.plain import kept
from authz.envoy.route_tables import outbound_name, outbound_table
from authz.envoy.tcp_routes import outbound_chains
from authz.envoy.tls import mesh_server
from authz.envoy.workload_health import health_chain
from authz.mesh.nouns import InboundPort, Mesh, MeshWorkload, OutboundPort, Protocol

MtlsModeOf = Callable[[MeshWorkload, int], MtlsMode]
"""The effective mode of a workload's port (PA-4); never UNSET."""


def listeners(mesh: Mesh, workload: MeshWorkload, mode_of: MtlsModeOf, options: RenderOptions) -> list[Listener]:
    """Every listener of a proxy, by port; last the one without a port, in which names are looked up."""
    by_port = {
        **{
            port.number: _inbound(mesh, workload, port, mode_of(workload, port.number), options)
            for port in workload.inbound
        },
        **{port.number: _outbound(mesh, workload, port, options) for port in workload.outbound},
    }
    inner = [finding_listener(workload, options)] if workload.is_passthrough else []
    own = [by_port[number] for number in sorted(by_port)]
    return [*own, *gateway_listeners(mesh, workload, options), *inner]


def _inbound(mesh: Mesh, workload: MeshWorkload, port: InboundPort, mode: MtlsMode, options: RenderOptions) -> Listener:
    name = f"inbound_{port.number}"

    @cache
    def filters() -> list[Filter]:
        cluster = naming.app_cluster(port)
        if not port.protocol.is_http:
            return [kept(one) for one in tcp_filters(name, cluster, workload, options, checked=True)]
        return [kept(http_filter(Role.INBOUND, routes.to_cluster(name, cluster), workload, mesh.config, options))]

    def chains() -> Iterator[FilterChain]:
        if mode is not MtlsMode.DISABLE and workload.probe is not None:
            yield health_chain(name, mesh, workload, port, options)
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

    return framed(name, ANY_ADDRESS, port.number, list(chains()), TrafficDirection.INBOUND)


def _outbound(mesh: Mesh, workload: MeshWorkload, port: OutboundPort, options: RenderOptions) -> Listener:
    """A loopback port: whoever can connect to it acts as this workload, so it never leaves the host."""
    name = outbound_name(port)
    if port.protocol is Protocol.HTTP_PROXY:
        table = routes.forward_proxy(name, mesh, leaves=port.leaves)
        upgrades = ("websocket", "CONNECT")
        chains = _one_chain(http_filter(Role.OUTBOUND, table, workload, mesh.config, options, upgrades=upgrades))
    elif port.protocol.is_http:
        followed = options.listeners is not Listeners.STATIC
        routed = name if followed else outbound_table(mesh, workload, port)
        extra = fault_and_cors()
        chains = _one_chain(http_filter(Role.OUTBOUND, routed, workload, mesh.config, options, extra_filters=extra))
    else:
        chains = outbound_chains(name, mesh, workload, port, options)
    return framed(name, LOOPBACK, port.number, chains, TrafficDirection.OUTBOUND)


def _one_chain(only: Filter) -> list[FilterChain]:
    return [FilterChain(filters=[only])]

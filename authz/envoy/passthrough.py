"""
TLS that passes an egress gateway unopened: the name that the client asks for decides (``connection.sni``).

Two listeners, because Envoy's ``sni_dynamic_forward_proxy`` asks the DNS as soon as a connection is there, while the
check waits for its first bytes (XA-164): in one listener, the DNS would already have been told a refused name, which is
a way out of the mesh by itself. So the outer listener checks; the inner one, which has no address, finds the host.
"""

from collections.abc import Iterator
from functools import cache

from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
from envoy_data_plane.envoy.config.listener.v3 import (
    Filter,
    FilterChain,
    FilterChainMatch,
    Listener,
    ListenerFilter,
    ListenerInternalListenerConfig,
)
from envoy_data_plane.envoy.extensions.bootstrap.internal_listener.v3 import InternalListener
from envoy_data_plane.envoy.extensions.filters.listener.tls_inspector.v3 import TlsInspector
from envoy_data_plane.envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3 import FilterConfig

from authz.envoy import naming, routes
from authz.envoy.connection import tcp_filters
from authz.envoy.messages import extension, pack, seconds
from authz.envoy.options import RenderOptions
from authz.envoy.outside_clusters import dns_cache
from authz.envoy.plain import kept
from authz.mesh.nouns import Mesh, MeshWorkload

OUTSIDE_PORT = 443
"""The port for hosts that no ServiceEntry names."""
HELLO_SECONDS = 5
"""The time for the client's first message, which holds the name."""


@cache
def tls_inspector() -> ListenerFilter:
    """Reads the server name and tells TLS from plaintext; one message for all listeners, to be left alone."""
    return kept(ListenerFilter(name="envoy.filters.listener.tls_inspector", typed_config=pack(TlsInspector())))


def checked_chains(name: str, mesh: Mesh, workload: MeshWorkload, options: RenderOptions) -> list[FilterChain]:
    """
    Known external hosts to their addresses, every other name to the inner listener; each connection is checked.

    As with requests, there is a way for every name, so that the policies decide. Plaintext matches no chain.
    """

    def chain(title: str, names: list[str], cluster: str) -> FilterChain:
        return FilterChain(
            name=title,
            filter_chain_match=FilterChainMatch(transport_protocol="tls", server_names=names),
            filters=tcp_filters(name, cluster, workload, options, checked=True),
        )

    known: Iterator[FilterChain] = (
        chain(service.host, [service.host.lower()], naming.tunnel_cluster(service, port))
        for service, port in routes.passed_through(mesh)
    )
    return [*known, chain("any", [], naming.ANY_OUTSIDE_BY_NAME)]


def finding_listener(workload: MeshWorkload, options: RenderOptions) -> Listener:
    """The inner listener: what the outer one allowed goes to wherever DNS says, but not to private addresses."""
    name = naming.ANY_OUTSIDE_BY_NAME
    find = FilterConfig(dns_cache_config=dns_cache(), port_value=OUTSIDE_PORT)
    forward = tcp_filters(name, naming.ANY_OUTSIDE_TUNNEL, workload, options, checked=False)
    return Listener(
        name=name,
        internal_listener=ListenerInternalListenerConfig(),
        listener_filters=[tls_inspector()],
        listener_filters_timeout=seconds(HELLO_SECONDS),
        filter_chains=[
            FilterChain(
                name="tls",
                filter_chain_match=FilterChainMatch(transport_protocol="tls"),
                filters=[
                    Filter(name="envoy.filters.network.sni_dynamic_forward_proxy", typed_config=pack(find)),
                    *forward,
                ],
            )
        ],
        ignore_global_conn_limit=True,  # the outer connection counts
    )


def allow_internal_listeners(bootstrap: Bootstrap) -> None:
    """Without this extension Envoy refuses listeners that have no address."""
    bootstrap.bootstrap_extensions.append(extension("envoy.bootstrap.internal_listener", InternalListener()))

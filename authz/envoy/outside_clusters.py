"""
Clusters of an egress gateway: hosts outside that a ServiceEntry names, each as its DestinationRule says, and any other.

A host with addresses has an endpoint file; every other is found by DNS.
"""

from dataclasses import replace

from envoy_data_plane.envoy.config.cluster.v3 import (
    Cluster,
    ClusterCustomClusterType,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
    ClusterLbPolicy,
)
from envoy_data_plane.envoy.config.core.v3 import ProxyProtocolConfig, ProxyProtocolConfigVersion, TransportSocket
from envoy_data_plane.envoy.extensions.clusters.dynamic_forward_proxy.v3 import ClusterConfig
from envoy_data_plane.envoy.extensions.common.dynamic_forward_proxy.v3 import DnsCacheConfig
from envoy_data_plane.envoy.extensions.transport_sockets.proxy_protocol.v3 import ProxyProtocolUpstreamTransport
from envoy_data_plane.envoy.type.matcher.v3 import AddressMatcher
from envoy_data_plane.xds.core.v3 import CidrRange

from authz.envoy import naming
from authz.envoy.destinations import Callee, destinations
from authz.envoy.http_options import bytes_upstream, outside_upstream
from authz.envoy.messages import assignment, at, pack, seconds, transport_socket
from authz.envoy.placed_endpoints import endpoints_file
from authz.envoy.service_clusters import eds_cluster, looked_up_cluster
from authz.envoy.tls import outside_client, plaintext
from authz.envoy.traffic import apply_policy
from authz.mesh.nouns import Address, Mesh, MeshService, MeshWorkload, Protocol, Resolution, ServicePort
from authz.mesh.routing import called_by, called_by_bytes
from authz.mesh.traffic_policy import ClientTls, ClientTlsMode, ConnectionPool, TrafficPolicy

INSIDE = (
    *(("0.0.0.0", 8), ("127.0.0.0", 8), ("10.0.0.0", 8), ("172.16.0.0", 12), ("192.168.0.0", 16)),  # noqa: S104  # a range
    *(("100.64.0.0", 10), ("169.254.0.0", 16), ("::", 127), ("fc00::", 7), ("fe80::", 10), ("::ffff:0:0", 96)),
)
"""
Addresses that a name without a ServiceEntry must not lead to.

A policy allows names; whoever owns the DNS of an allowed name must not thereby reach this host, the mesh, or a cloud's
metadata service. Hosts on private addresses get a ServiceEntry.
"""


def dns_cache() -> DnsCacheConfig:
    """Shared by the filter and the clusters of hosts that no ServiceEntry names."""
    return DnsCacheConfig(
        name=naming.DNS_CACHE,
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        resolved_address_filter=AddressMatcher(
            ranges=[CidrRange(address_prefix=prefix, prefix_len=length) for prefix, length in INSIDE]
        ),
    )


def _forward_proxy(name: str) -> Cluster:
    return Cluster(
        name=name,
        lb_policy=ClusterLbPolicy.CLUSTER_PROVIDED,
        connect_timeout=seconds(5),
        cluster_type=ClusterCustomClusterType(
            name="envoy.clusters.dynamic_forward_proxy",
            typed_config=pack(ClusterConfig(dns_cache_config=dns_cache())),
        ),
    )


def outside_clusters(mesh: Mesh, gateway: MeshWorkload) -> list[Cluster]:
    """
    What a gateway reaches outside by itself, for requests and for bytes.

    An egress gateway reaches every port of the known hosts, and any other host by TLS, or by CONNECT.
    """
    found = _known(mesh, gateway)
    if not (gateway.is_egress_gateway or gateway.is_passthrough):
        return found
    anywhere = _forward_proxy(naming.ANY_OUTSIDE)
    anywhere.typed_extension_protocol_options = outside_upstream()
    anywhere.transport_socket = outside_client(ClientTls())
    return [*found, anywhere, _forward_proxy(naming.ANY_OUTSIDE_TUNNEL)]


def _known(mesh: Mesh, gateway: MeshWorkload) -> list[Cluster]:
    found = []
    for service, port in outside_ports(mesh, gateway):
        called = list(destinations(mesh, gateway, service, port))
        if port.protocol.is_http:
            found += [_requests(mesh, gateway, destination) for destination in called]
        found.append(reach(mesh, gateway, called[0], naming.tunnel_cluster(service, port)))
    return found


def _requests(mesh: Mesh, gateway: MeshWorkload, called: Callee) -> Cluster:
    """The cluster for requests, with TLS by default where the port is HTTPS."""
    default = ClientTls() if called.port.protocol is Protocol.HTTPS else ClientTls(ClientTlsMode.DISABLE)
    tls, pool = called.policy.tls or default, called.policy.connection_pool or ConnectionPool()
    tls = replace(tls, subject_alt_names=tls.subject_alt_names or called.service.subject_alt_names)
    cluster = _cluster(mesh, gateway, called, called.cluster)
    _apply(cluster, called.policy)
    cluster.typed_extension_protocol_options = outside_upstream(pool, tls)
    if tls.mode is not ClientTlsMode.DISABLE:
        cluster.transport_socket = outside_client(tls, ("h2",) if pool.http2 else ("http/1.1",))
    if called.policy.proxy_protocol:
        inner = cluster.transport_socket or plaintext()
        cluster.transport_socket = _with_proxy_protocol(inner, called.policy.proxy_protocol)
    return cluster


def _apply(cluster: Cluster, policy: TrafficPolicy) -> None:
    apply_policy(cluster, policy)
    if cluster.cluster_type is not None:  # one that finds addresses by itself chooses among them, too
        cluster.lb_policy = ClusterLbPolicy.CLUSTER_PROVIDED


def reach(mesh: Mesh, gateway: MeshWorkload, called: Callee, name: str) -> Cluster:
    """The cluster for bytes: TLS is the application's own."""
    cluster = _cluster(mesh, gateway, called, name)
    # A hash is of requests, and nothing of them is seen here.
    _apply(cluster, replace(called.policy, load_balancer=None))
    cluster.typed_extension_protocol_options = bytes_upstream(called.policy.connection_pool or ConnectionPool())
    if called.policy.proxy_protocol:
        cluster.transport_socket = _with_proxy_protocol(plaintext(), called.policy.proxy_protocol)
    return cluster


def _cluster(mesh: Mesh, gateway: MeshWorkload, called: Callee, name: str) -> Cluster:
    service, port = called.service, called.port
    if not service.is_looked_up:
        return eds_cluster(name, endpoints_file(mesh, gateway, called), None)
    if service.endpoints:
        return looked_up_cluster(name, mesh, gateway, called, None)
    if called.labels:  # what DNS finds has no labels
        return Cluster(name=name, type=ClusterDiscoveryType.STATIC, load_assignment=assignment(name, []))
    if service.resolution is Resolution.BY_NAME:
        return _forward_proxy(name)
    is_all = service.resolution is Resolution.DNS
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STRICT_DNS if is_all else ClusterDiscoveryType.LOGICAL_DNS,
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        connect_timeout=seconds(5),
        load_assignment=assignment(name, [at(Address(service.host, port.target or port.number))]),
    )


def _with_proxy_protocol(inner: TransportSocket, version: str) -> TransportSocket:
    config = ProxyProtocolConfig(version=ProxyProtocolConfigVersion.from_string(version))
    wrapped = ProxyProtocolUpstreamTransport(config=config, transport_socket=inner)
    return transport_socket(wrapped, "envoy.transport_sockets.upstream_proxy_protocol")


def outside_ports(mesh: Mesh, gateway: MeshWorkload) -> list[tuple[MeshService, ServicePort]]:
    """What a gateway reaches outside: an egress gateway can be asked for every port, others go where routes lead."""
    if gateway.is_egress_gateway or gateway.is_passthrough:
        return [(service, port) for service in mesh.services if service.external for port in service.ports]
    found = called_by(mesh, gateway) if mesh.leaves_alone(gateway) else called_by_bytes(mesh, gateway)
    outside = {(service.host, port.number): (service, port) for service, port, _ in found if service.external}
    return list(outside.values())


def finds_names(mesh: Mesh, gateway: MeshWorkload) -> bool:
    """Whether a gateway leads to hosts of a wildcard, which it has to look up for each request."""
    return any(service.resolution is Resolution.BY_NAME for service, _ in outside_ports(mesh, gateway))

"""
Clusters of one proxy: the application, the services it calls with secure naming, and the helpers on local sockets.

No address stands here: addresses are endpoint files (XA-190). An endpoint marked ``tlsMode: disabled`` there, because
its workload's mode is DISABLE, is spoken to in plaintext; every other one gets mTLS, as Istio's automatic mTLS does.
"""

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCustomClusterType,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
    ClusterEdsClusterConfig,
    ClusterLbPolicy,
    ClusterTransportSocketMatch,
    OutlierDetection,
)
from envoy_data_plane.envoy.config.core.v3 import Address as EnvoyAddress
from envoy_data_plane.envoy.config.core.v3 import BindConfig, EnvoyInternalAddress, SocketAddress, TransportSocket
from envoy_data_plane.envoy.extensions.clusters.dynamic_forward_proxy.v3 import ClusterConfig
from envoy_data_plane.envoy.extensions.common.dynamic_forward_proxy.v3 import DnsCacheConfig
from envoy_data_plane.envoy.type.matcher.v3 import AddressMatcher
from envoy_data_plane.google.protobuf import Any as PackedAny
from envoy_data_plane.google.protobuf import Struct
from envoy_data_plane.xds.core.v3 import CidrRange

from authz.core.resources import ExtensionProvider
from authz.envoy import naming, routes
from authz.envoy.browser_login import login_clusters
from authz.envoy.check_filter import check_cluster, embedded_check_cluster
from authz.envoy.http_options import http1_upstream, http2_upstream, outside_upstream
from authz.envoy.messages import assignment, at, endpoint, followed_file, pack, seconds
from authz.envoy.options import LIMITS_CLUSTER, OTLP_CLUSTER, SDS_CLUSTER, Authz, RenderOptions, Secrets
from authz.envoy.rate_limit_filters import asks_service
from authz.envoy.tls import mesh_client, outside_client, plaintext
from authz.mesh.nouns import (
    Address,
    Enforce,
    InboundPort,
    Mesh,
    MeshService,
    MeshWorkload,
    OriginatedTls,
    Protocol,
    ServicePort,
    TlsMode,
)
from authz.mesh.routing import called_by

PLAINTEXT_MARK = {"tlsMode": "disabled"}
"""Endpoint metadata ``envoy.transport_socket_match`` of workloads without mTLS."""


INSIDE = (
    *(("0.0.0.0", 8), ("127.0.0.0", 8), ("10.0.0.0", 8), ("172.16.0.0", 12), ("192.168.0.0", 16)),  # noqa: S104  # a range
    *(("100.64.0.0", 10), ("169.254.0.0", 16), ("::", 127), ("fc00::", 7), ("fe80::", 10), ("::ffff:0:0", 96)),
)
"""
Addresses that a name without a ServiceEntry must not lead to.

A policy allows names; whoever owns the DNS of an allowed name must not thereby reach this host, the mesh, or a cloud's
metadata service. Hosts on private addresses get a ServiceEntry.
"""


def helper_clusters(workload: MeshWorkload, options: RenderOptions) -> list[Cluster]:
    """The clusters that a proxy has from its start on: whom it asks for decisions and secrets, and tells of spans."""
    # Also where Envoy decides by itself: a policy may come that it cannot decide, and a bootstrap stays.
    found = [embedded_check_cluster(workload.name) if options.authz is Authz.EMBEDDED else check_cluster()]
    if options.secrets is Secrets.SDS:
        found.append(_sds())
    if options.otlp:
        found.append(_eds(OTLP_CLUSTER, OTLP_CLUSTER, http2_upstream()))
    return found


def clusters(mesh: Mesh, workload: MeshWorkload, options: RenderOptions) -> list[Cluster]:
    """The clusters to which a proxy's requests lead, and of whom its filters ask; they follow the description."""
    found: list[Cluster] = []
    if (workload.enforce or options.enforce) is Enforce.NATIVE:
        found += [_provider(one) for one in mesh.config.extension_providers if one.is_usable]
    found += login_clusters(workload, options)
    if asks_service(workload, options):
        found.append(_limits())
    found += [_app(workload, port) for port in workload.inbound]
    found += [_mesh_service(mesh, workload, service, port, options) for service, port in _called(mesh, workload)]
    gateway = mesh.egress_gateway
    if gateway is not None and _leaves(mesh, workload):
        found.append(_egress_gateway(workload, gateway, options, mesh))
    if workload.is_egress_gateway or workload.is_passthrough:
        found += _outside(mesh)
    if workload.is_passthrough:
        named = {cluster.name for cluster in found}
        reached = (
            _reach(service, port, naming.tunnel_cluster(service, port)) for service, port in routes.passed_through(mesh)
        )
        found += [cluster for cluster in reached if cluster.name not in named]
        found.append(_by_name())
    return found


def _provider(provider: ExtensionProvider) -> Cluster:
    """An external authorizer that the proxy asks itself; the host's resolver finds its address."""
    host = provider.service.rpartition("/")[2]
    return Cluster(
        name=naming.provider_cluster(provider),
        type=ClusterDiscoveryType.STRICT_DNS,
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        connect_timeout=seconds(1),
        typed_extension_protocol_options=http2_upstream() if provider.protocol == "grpc" else http1_upstream(),
        load_assignment=assignment(naming.provider_cluster(provider), [at(Address(host, provider.port))]),
    )


def dns_cache() -> DnsCacheConfig:
    """Shared by the filter and the clusters of hosts that no ServiceEntry names."""
    return DnsCacheConfig(
        name=naming.DNS_CACHE,
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        resolved_address_filter=AddressMatcher(
            ranges=[CidrRange(address_prefix=prefix, prefix_len=length) for prefix, length in INSIDE]
        ),
    )


def _called(mesh: Mesh, workload: MeshWorkload) -> list[tuple[MeshService, ServicePort]]:
    """The service ports inside the mesh to which a proxy's routes lead, in order and once each."""
    found = {(service.host, port.number): (service, port) for service, port, _ in called_by(mesh, workload)}
    return [(service, port) for service, port in found.values() if not service.external]


def _leaves(mesh: Mesh, workload: MeshWorkload) -> bool:
    if any(port.protocol is Protocol.HTTP_PROXY for port in workload.outbound):
        return True
    return any(service.external for service, _, _ in called_by(mesh, workload))


def _app(workload: MeshWorkload, port: InboundPort) -> Cluster:
    options = None
    if port.protocol.is_http:
        http2 = port.protocol in (Protocol.GRPC, Protocol.HTTP2)
        options = http2_upstream() if http2 else http1_upstream()
    cluster = _eds(naming.app_cluster(port), naming.app_endpoints(workload, port), options)
    cluster.connect_timeout = seconds(1)
    return cluster


def _mesh_service(
    mesh: Mesh, workload: MeshWorkload, service: MeshService, port: ServicePort, options: RenderOptions
) -> Cluster:
    ids = sorted({spiffe for w in mesh.workloads_of(service) for spiffe in identities(mesh, w)})
    http = port.protocol.is_http
    tls = mesh_client(workload, ids, naming.sni(service, port), options, http=http)
    cluster = _eds(
        naming.service_cluster(service, port),
        naming.service_endpoints(service, port),
        http2_upstream(keepalive=True, max_connection_seconds=options.max_connection_seconds) if http else None,
    )
    return _between_proxies(cluster, tls, mesh, workload, options)


def _egress_gateway(workload: MeshWorkload, gateway: MeshWorkload, options: RenderOptions, mesh: Mesh) -> Cluster:
    name = f"{gateway.name}.{gateway.namespace}"
    tls = mesh_client(workload, identities(mesh, gateway), name, options, http=True)
    cluster = _eds(
        naming.egress_cluster(gateway),
        naming.gateway_endpoints(gateway),
        http2_upstream(keepalive=True, max_connection_seconds=options.max_connection_seconds),
    )
    return _between_proxies(cluster, tls, mesh, workload, options)


def identities(mesh: Mesh, workload: MeshWorkload) -> list[str]:
    """A workload's SPIFFE ID in every trust domain that the mesh goes by (AP-27, PA-13)."""
    path = workload.spiffe_id.path
    return [f"spiffe://{trust_domain}{path}" for trust_domain in mesh.config.trust_domains]


def _between_proxies(
    cluster: Cluster, tls: TransportSocket, mesh: Mesh, workload: MeshWorkload, options: RenderOptions
) -> Cluster:
    cluster.transport_socket = tls  # what no mark exempts gets mTLS
    cluster.transport_socket_matches = [
        ClusterTransportSocketMatch(
            name="plaintext", match=Struct.from_dict(dict(PLAINTEXT_MARK)), transport_socket=plaintext()
        )
    ]
    cluster.circuit_breakers = CircuitBreakers(thresholds=[CircuitBreakersThresholds(max_retries=1_000)])
    # Only failures to reach the peer count: a 503 from the other side's authorization is no reason to avoid it.
    cluster.outlier_detection = OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=3,
        enforcing_consecutive_5xx=0,
        enforcing_consecutive_gateway_failure=0,
        enforcing_success_rate=0,
        interval=seconds(1),
        base_ejection_time=seconds(5),
        max_ejection_percent=50,
    )
    if options.source_addresses:
        cluster.upstream_bind_config = BindConfig(source_address=_source_address(mesh, workload))
    return cluster


def _source_address(mesh: Mesh, workload: MeshWorkload) -> SocketAddress:
    place = mesh.workloads.index(workload) + 1
    return SocketAddress(address=f"127.0.1.{place}", port_value=0)


def _outside(mesh: Mesh) -> list[Cluster]:
    """TLS to every known external host and to any other; and the same without TLS, for CONNECT."""
    found = []
    for service in mesh.services:
        port = routes.outside_port(service)
        if port is None:
            continue
        default = OriginatedTls() if port.protocol is Protocol.HTTPS else OriginatedTls(TlsMode.DISABLE)
        tls = service.tls or default
        requests = _reach(service, port, naming.service_cluster(service, port))
        requests.typed_extension_protocol_options = outside_upstream()
        if tls.mode is not TlsMode.DISABLE:
            requests.transport_socket = outside_client(tls)
        found += [requests, _reach(service, port, naming.tunnel_cluster(service, port))]
    anywhere = _forward_proxy(naming.ANY_OUTSIDE)
    anywhere.typed_extension_protocol_options = outside_upstream()
    anywhere.transport_socket = outside_client(OriginatedTls())
    return [*found, anywhere, _forward_proxy(naming.ANY_OUTSIDE_TUNNEL)]


def _reach(service: MeshService, port: ServicePort, name: str) -> Cluster:
    if port.name in service.endpoints:
        return _eds(name, naming.service_endpoints(service, port), None)
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.LOGICAL_DNS,
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        connect_timeout=seconds(5),
        load_assignment=assignment(name, [at(Address(service.host, port.number))]),
    )


def _by_name() -> Cluster:
    """The listener in this proxy that asks the DNS for the name of a connection that was allowed."""
    name = naming.ANY_OUTSIDE_BY_NAME
    inner = EnvoyAddress(envoy_internal_address=EnvoyInternalAddress(server_listener_name=name))
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STATIC,
        connect_timeout=seconds(1),
        load_assignment=assignment(name, [endpoint(inner)]),
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


def _sds() -> Cluster:
    """Its socket is in an endpoint file, as every address is: among containers it lies elsewhere (XA-190)."""
    cluster = _eds(SDS_CLUSTER, SDS_CLUSTER, http2_upstream(keepalive=True))
    cluster.connect_timeout = seconds(1)
    return cluster


def _limits() -> Cluster:
    """Who counts for all proxies; not asked for its health, because what happens without it is the limit's matter."""
    cluster = _eds(LIMITS_CLUSTER, LIMITS_CLUSTER, http2_upstream(keepalive=True))
    cluster.connect_timeout = seconds(0.25)
    most = CircuitBreakersThresholds(max_requests=10_000, max_pending_requests=10_000)
    cluster.circuit_breakers = CircuitBreakers(thresholds=[most])
    return cluster


def _eds(name: str, file: str, options: dict[str, PackedAny] | None) -> Cluster:
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.EDS,
        eds_cluster_config=ClusterEdsClusterConfig(
            service_name=file, eds_config=followed_file("eds", f"{file}.yaml", wait_for_ever=True)
        ),
        connect_timeout=seconds(2),
        typed_extension_protocol_options=options or {},
    )

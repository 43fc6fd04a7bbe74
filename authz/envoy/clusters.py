"""
Clusters of one proxy: the application, the services it calls with secure naming, and the helpers on local sockets.

No address stands here: addresses are endpoint files (XA-190).
"""

from collections.abc import Iterator

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCommonLbConfig,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
)
from envoy_data_plane.envoy.config.core.v3 import Address as EnvoyAddress
from envoy_data_plane.envoy.config.core.v3 import EnvoyInternalAddress
from envoy_data_plane.envoy.type.v3 import Percent

from authz.core.resources import ExtensionProvider
from authz.envoy import naming
from authz.envoy.browser_login import login_clusters
from authz.envoy.check_filter import check_cluster, embedded_check_cluster
from authz.envoy.destinations import Callee, destinations
from authz.envoy.http_options import http1_upstream, http2_upstream
from authz.envoy.messages import assignment, at, endpoint, seconds
from authz.envoy.options import LIMITS_CLUSTER, OTLP_CLUSTER, SDS_CLUSTER, Authz, RenderOptions, Secrets
from authz.envoy.outside_clusters import outside_clusters, outside_ports, reach
from authz.envoy.rate_limit_filters import asks_service
from authz.envoy.service_clusters import between_proxies, eds_cluster, mesh_clusters
from authz.envoy.tls import mesh_client
from authz.envoy.workload_health import application_check
from authz.mesh.nouns import (
    Address,
    Enforce,
    InboundPort,
    Mesh,
    MeshService,
    MeshWorkload,
    Protocol,
    ServicePort,
)
from authz.mesh.routing import called_by
from authz.mesh.secure_naming import identities
from authz.mesh.telemetry_kind import Collector


def helper_clusters(workload: MeshWorkload, options: RenderOptions) -> list[Cluster]:
    """The clusters that a proxy has from its start on: whom it asks for decisions and secrets, and tells of spans."""
    # Also where Envoy decides by itself: a policy may come that it cannot decide, and a bootstrap stays.
    found = [embedded_check_cluster(workload.name) if options.authz is Authz.EMBEDDED else check_cluster()]
    if options.secrets is Secrets.SDS:
        found.append(_sds())
    if options.otlp:
        found.append(eds_cluster(OTLP_CLUSTER, OTLP_CLUSTER, http2_upstream()))
    return found


def clusters(mesh: Mesh, workload: MeshWorkload, options: RenderOptions) -> list[Cluster]:
    """The clusters to which a proxy's requests lead, and of whom its filters ask; they follow the description."""
    found: list[Cluster] = []
    if (workload.enforce or options.enforce) is Enforce.NATIVE:
        found += [_provider(one) for one in mesh.config.extension_providers if one.is_usable]
    found += [_told(mesh, workload, one, options) for one in workload.telemetry.collectors]
    found += login_clusters(workload, options)
    if asks_service(workload, options):
        found.append(_limits())
    found += [_app(workload, port) for port in workload.inbound]
    for service, port in called(mesh, workload):
        found += mesh_clusters(mesh, workload, destinations(mesh, workload, service, port), options)
    gateway = mesh.egress_gateway
    if gateway is not None and _leaves(mesh, workload):
        found.append(_egress_gateway(workload, gateway, options, mesh))
    if workload.is_gateway:
        found += outside_clusters(mesh, workload)
    if workload.is_passthrough:
        found.append(_by_name())
    return found


def _provider(provider: ExtensionProvider) -> Cluster:
    """An external authorizer that the proxy asks itself; the host's resolver finds its address."""
    host = provider.service.rpartition("/")[2]
    made = _by_dns(naming.provider_cluster(provider), Address(host, provider.port))
    made.typed_extension_protocol_options = http2_upstream() if provider.protocol == "grpc" else http1_upstream()
    return made


def _told(mesh: Mesh, workload: MeshWorkload, collector: Collector, options: RenderOptions) -> Cluster:
    """A provider of logs or spans: over mTLS of the mesh where a workload is behind it, else as it is, by gRPC."""
    name = naming.collector_cluster(collector)
    service = next((one for one in mesh.services if one.host == collector.service), None)
    port = service.port(collector.port) if service else None
    if service is None or port is None:
        made = _by_dns(name, Address(collector.service, collector.port))
    elif service.external:
        made = reach(mesh, workload, Callee(service, port), name)
    else:
        (made,) = mesh_clusters(mesh, workload, [Callee(service, port)], options)
        made.name = name
    made.typed_extension_protocol_options = http2_upstream(keepalive=True)
    return made


def _by_dns(name: str, address: Address) -> Cluster:
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STRICT_DNS,
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        connect_timeout=seconds(1),
        load_assignment=assignment(name, [at(address)]),
    )


def called(mesh: Mesh, workload: MeshWorkload) -> list[tuple[MeshService, ServicePort]]:
    """The service ports inside the mesh to which a proxy's routes lead, in order and once each."""
    found = {(service.host, port.number): (service, port) for service, port, _ in called_by(mesh, workload)}
    return [(service, port) for service, port in found.values() if not service.external]


def called_destinations(mesh: Mesh, workload: MeshWorkload) -> Iterator[Callee]:
    """What a proxy calls with endpoints that are files: services inside, and hosts outside with addresses."""
    for service, port in called(mesh, workload):
        if not service.is_looked_up:
            yield from destinations(mesh, workload, service, port)
    if workload.is_gateway:
        for service, port in outside_ports(mesh, workload):
            if not service.is_looked_up:
                yield from destinations(mesh, workload, service, port)


def _leaves(mesh: Mesh, workload: MeshWorkload) -> bool:
    if any(port.protocol is Protocol.HTTP_PROXY or port.leaves for port in workload.outbound):
        return True
    if mesh.leaves_alone(workload):
        return False
    return any(service.external for service, _, _ in called_by(mesh, workload))


def _app(workload: MeshWorkload, port: InboundPort) -> Cluster:
    options = None
    if port.protocol.is_http:
        http2 = port.protocol in (Protocol.GRPC, Protocol.HTTP2)
        options = http2_upstream() if http2 else http1_upstream()
    cluster = eds_cluster(naming.app_cluster(port), naming.app_endpoints(workload, port), options)
    cluster.connect_timeout = seconds(1)
    if workload.probe is not None:
        cluster.health_checks = [application_check(workload.probe)]
        cluster.common_lb_config = ClusterCommonLbConfig(healthy_panic_threshold=Percent(value=0))
    return cluster


def _egress_gateway(workload: MeshWorkload, gateway: MeshWorkload, options: RenderOptions, mesh: Mesh) -> Cluster:
    name = f"{gateway.name}.{gateway.namespace}"
    tls = mesh_client(workload, identities(mesh, gateway), name, options, http=True)
    cluster = eds_cluster(
        naming.egress_cluster(gateway),
        naming.gateway_endpoints(gateway),
        http2_upstream(keepalive=True, max_connection_seconds=options.max_connection_seconds),
    )
    return between_proxies(cluster, tls, mesh, workload, options)


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


def _sds() -> Cluster:
    """Its socket is in an endpoint file, as every address is: among containers it lies elsewhere (XA-190)."""
    cluster = eds_cluster(SDS_CLUSTER, SDS_CLUSTER, http2_upstream(keepalive=True))
    cluster.connect_timeout = seconds(1)
    return cluster


def _limits() -> Cluster:
    """Who counts for all proxies; not asked for its health, because what happens without it is the limit's matter."""
    cluster = eds_cluster(LIMITS_CLUSTER, LIMITS_CLUSTER, http2_upstream(keepalive=True))
    cluster.connect_timeout = seconds(0.25)
    most = CircuitBreakersThresholds(max_requests=10_000, max_pending_requests=10_000)
    cluster.circuit_breakers = CircuitBreakers(thresholds=[most])
    return cluster

"""
Clusters of services inside the mesh and of other proxies: mTLS with secure naming, as their DestinationRule says.

No address stands here: addresses are endpoint files (XA-190). An endpoint marked ``tlsMode: disabled`` there, because
its workload's mode is DISABLE, is spoken to in plaintext; every other one gets mTLS, as Istio's automatic mTLS does.
"""

from collections.abc import Iterable
from dataclasses import replace

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
    ClusterEdsClusterConfig,
    ClusterTransportSocketMatch,
    OutlierDetection,
)
from envoy_data_plane.envoy.config.core.v3 import BindConfig, SocketAddress, TransportSocket
from envoy_data_plane.google.protobuf import Any as PackedAny
from envoy_data_plane.google.protobuf import Struct

from authz.envoy.destinations import Callee, identities_behind
from authz.envoy.http_options import bytes_upstream, service_upstream
from authz.envoy.messages import followed_file, seconds
from authz.envoy.options import RenderOptions
from authz.envoy.placed_endpoints import PLAINTEXT_MARK, endpoints_file, looked_up_assignment
from authz.envoy.plain import kept
from authz.envoy.tls import mesh_client, outside_client, plaintext
from authz.envoy.traffic import apply_policy
from authz.envoy.workload_health import ask_workloads
from authz.mesh.nouns import Mesh, MeshWorkload, Resolution
from authz.mesh.traffic_policy import ClientTlsMode, ConnectionPool

_NO_POOL = ConnectionPool()
_PLAINTEXT = kept(
    ClusterTransportSocketMatch(
        name="plaintext", match=Struct.from_dict(dict(PLAINTEXT_MARK)), transport_socket=plaintext()
    )
)
_BOUNDS = kept(CircuitBreakers(thresholds=[CircuitBreakersThresholds(max_retries=1_000)]))
_UNREACHABLE = kept(
    OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=3,
        enforcing_consecutive_5xx=0,
        enforcing_consecutive_gateway_failure=0,
        enforcing_success_rate=0,
        interval=seconds(1),
        base_ejection_time=seconds(5),
        max_ejection_percent=50,
    )
)
"""Only failures to reach the peer count: a 503 from the other side's authorization is no reason to avoid it."""


def mesh_clusters(
    mesh: Mesh, workload: MeshWorkload, called: Iterable[Callee], options: RenderOptions
) -> list[Cluster]:
    """The clusters of services inside the mesh, one for each destination."""
    return [_mesh_cluster(mesh, workload, destination, options) for destination in called]


def _mesh_cluster(mesh: Mesh, workload: MeshWorkload, called: Callee, options: RenderOptions) -> Cluster:
    http, policy = called.port.protocol.is_http, called.policy
    pool = policy.connection_pool or _NO_POOL
    upstream = service_upstream(pool, options.max_connection_seconds) if http else bytes_upstream(pool)
    if called.service.is_looked_up:
        cluster = looked_up_cluster(called.cluster, mesh, workload, called, upstream)
    else:
        cluster = eds_cluster(called.cluster, endpoints_file(mesh, workload, called), upstream)
    socket = _transport_socket(mesh, workload, called, options)
    # Only where nobody said how to speak to the service does the mark of an endpoint count.
    between_proxies(cluster, socket, mesh, workload, options, heed_marks=policy.tls is None)
    apply_policy(cluster, policy)
    if policy.tls is None or policy.tls.mode is ClientTlsMode.ISTIO_MUTUAL:  # else nobody there could be asked
        ask_workloads(cluster, mesh, called.service)
    return cluster


def _transport_socket(mesh: Mesh, workload: MeshWorkload, called: Callee, options: RenderOptions) -> TransportSocket:
    http, tls = called.port.protocol.is_http, called.policy.tls
    identities = identities_behind(mesh, called)
    if tls is None or tls.mode is ClientTlsMode.ISTIO_MUTUAL:
        sni = called.sni if tls is None or not tls.sni else tls.sni
        return mesh_client(workload, identities, sni, options, http=http)
    if tls.mode is ClientTlsMode.DISABLE:
        return plaintext()
    # Secure naming stays: whoever brings a certificate of another authority names whom it is to be found in.
    named = replace(tls, subject_alt_names=tls.subject_alt_names or tuple(identities), sni=tls.sni or called.sni)
    return outside_client(named, ("h2",) if http else ())


def between_proxies(
    cluster: Cluster,
    tls: TransportSocket,
    mesh: Mesh,
    workload: MeshWorkload,
    options: RenderOptions,
    *,
    heed_marks: bool = True,
) -> Cluster:
    """What every cluster of another proxy has until a policy says something else."""
    cluster.transport_socket = tls  # what no mark exempts gets mTLS
    if heed_marks:
        cluster.transport_socket_matches = [_PLAINTEXT]
    cluster.circuit_breakers, cluster.outlier_detection = _BOUNDS, _UNREACHABLE
    if options.source_addresses:
        cluster.upstream_bind_config = BindConfig(source_address=_source_address(mesh, workload))
    return cluster


def _source_address(mesh: Mesh, workload: MeshWorkload) -> SocketAddress:
    place = mesh.workloads.index(workload) + 1
    return SocketAddress(address=f"127.0.1.{place}", port_value=0)


def looked_up_cluster(
    name: str, mesh: Mesh, workload: MeshWorkload, called: Callee, options: dict[str, PackedAny] | None
) -> Cluster:
    """A cluster whose written endpoints are names, which the DNS of the proxy's own world knows."""
    is_all = called.service.resolution is Resolution.DNS
    content = looked_up_assignment(mesh, workload, called)
    content.cluster_name = name
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STRICT_DNS if is_all else ClusterDiscoveryType.LOGICAL_DNS,
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        connect_timeout=seconds(2),
        load_assignment=content,
        typed_extension_protocol_options=options or {},
    )


def eds_cluster(name: str, file: str, options: dict[str, PackedAny] | None) -> Cluster:
    """A cluster whose endpoints are a file below ``eds/``."""
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.EDS,
        eds_cluster_config=ClusterEdsClusterConfig(
            service_name=file, eds_config=followed_file("eds", f"{file}.yaml", wait_for_ever=True)
        ),
        connect_timeout=seconds(2),
        typed_extension_protocol_options=options or {},
    )

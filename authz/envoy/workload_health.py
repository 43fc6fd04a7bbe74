"""
Health of workloads with a probe: each proxy checks its own application, and tells those who may send it requests.

Whoever calls the service asks the workload's proxy, by mTLS of the mesh with an ALPN of its own, so that the question
meets a filter chain that answers it and leads nowhere. No policy could refuse it, none is passed by, and nothing of the
application can be reached that way. A proxy whose application fails answers 503, and callers send elsewhere.
"""

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterCommonLbConfig
from envoy_data_plane.envoy.config.core.v3 import (
    HeaderValue,
    HeaderValueOption,
    HealthCheck,
    HealthCheckGrpcHealthCheck,
    HealthCheckHttpHealthCheck,
    HealthCheckTcpHealthCheck,
    HealthCheckTlsOptions,
)
from envoy_data_plane.envoy.config.endpoint.v3 import EndpointHealthCheckConfig, LbEndpoint
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, FilterChainMatch
from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher, RouteConfiguration, VirtualHost
from envoy_data_plane.envoy.extensions.filters.http.health_check.v3 import HealthCheck as HealthFilter
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerForwardClientCertDetails,
    HttpFilter,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.envoy.type.v3 import CodecClientType, Int64Range, Percent

from authz.envoy import naming
from authz.envoy.messages import pack, seconds
from authz.envoy.options import RenderOptions
from authz.envoy.tls import mesh_server
from authz.mesh.nouns import InboundPort, Mesh, MeshService, MeshWorkload
from authz.mesh.probes import Probe, ProbeKind

HEALTH_ALPN = "authz-health"
"""What a caller's proxy says in TLS when it asks for the health of a workload."""
HEALTH_PATH = "/health"
_GOOD, _BAD = Int64Range(start=200, end=400), Int64Range(start=400, end=600)
"""As Istio and Kubernetes read the answers of an application."""


def application_check(probe: Probe) -> HealthCheck:
    """How a proxy checks the application beside it."""
    found = HealthCheck(
        timeout=seconds(probe.timeout_seconds),
        interval=seconds(probe.period_seconds),
        no_traffic_interval=seconds(probe.period_seconds),
        healthy_threshold=probe.success_threshold,
        unhealthy_threshold=probe.failure_threshold,
    )
    if probe.kind is ProbeKind.TCP:
        found.tcp_health_check = HealthCheckTcpHealthCheck()
    elif probe.kind is ProbeKind.GRPC:
        found.grpc_health_check = HealthCheckGrpcHealthCheck(service_name=probe.service)
    else:
        headers = [HeaderValueOption(header=HeaderValue(key=name, value=value)) for name, value in probe.headers]
        found.http_health_check = HealthCheckHttpHealthCheck(
            host="localhost",
            path=probe.path,
            request_headers_to_add=headers,
            expected_statuses=[_GOOD],
            retriable_statuses=[_BAD],  # else one bad answer would count as much as the threshold
        )
    return found


def at_probed_port(endpoint: LbEndpoint, probe: Probe | None, port: int) -> LbEndpoint:
    """The application's endpoint, whose health may be asked at another port than its requests go to."""
    if probe is not None and probe.port != port and endpoint.endpoint is not None:
        endpoint.endpoint.health_check_config = EndpointHealthCheckConfig(port_value=probe.port)
    return endpoint


def not_asked(endpoint: LbEndpoint) -> LbEndpoint:
    """An endpoint that is taken for healthy, because nobody there could tell."""
    if endpoint.endpoint is not None:
        endpoint.endpoint.health_check_config = EndpointHealthCheckConfig(disable_active_health_check=True)
    return endpoint


def is_probed(mesh: Mesh, service: MeshService) -> bool:
    """Whether a workload behind a service has a probe."""
    return any(workload.probe is not None for workload in mesh.workloads_of(service))


def ask_workloads(cluster: Cluster, mesh: Mesh, service: MeshService) -> None:
    """Have a caller's proxy ask the proxies behind a service; where all are unwell, nobody is sent anything."""
    probes = [workload.probe for workload in mesh.workloads_of(service) if workload.probe is not None]
    if not probes:
        return
    interval = seconds(min(probe.period_seconds for probe in probes))
    cluster.health_checks = [
        HealthCheck(
            timeout=seconds(1),
            interval=interval,
            no_traffic_interval=interval,
            healthy_threshold=1,
            unhealthy_threshold=1,  # the proxy there has counted already
            # Else Envoy asks with the cluster's name for a host, which is no name of HTTP/2.
            http_health_check=HealthCheckHttpHealthCheck(
                host="health", path=HEALTH_PATH, codec_client_type=CodecClientType.HTTP2
            ),
            tls_options=HealthCheckTlsOptions(alpn_protocols=[HEALTH_ALPN]),
        )
    ]
    cluster.ignore_health_on_host_removal = True
    common = cluster.common_lb_config or ClusterCommonLbConfig()
    if common.healthy_panic_threshold is None:
        common.healthy_panic_threshold = Percent(value=0)
    cluster.common_lb_config = common


def health_chain(
    name: str, mesh: Mesh, workload: MeshWorkload, port: InboundPort, options: RenderOptions
) -> FilterChain:
    """The filter chain of an inbound port that tells the workloads of the mesh how the application is, and no more."""
    table = RouteConfiguration(name=f"{name}_health", virtual_hosts=[VirtualHost(name="health", domains=["*"])])
    told = HealthFilter(
        pass_through_mode=False,
        headers=[HeaderMatcher(name=":path", string_match=StringMatcher(exact=HEALTH_PATH))],
        cluster_min_healthy_percentages={naming.app_cluster(port): Percent(value=100)},
    )
    manager = HttpConnectionManager(
        stat_prefix=table.name,
        route_config=table,
        http_filters=[
            HttpFilter(name="envoy.filters.http.health_check", typed_config=pack(told)),
            HttpFilter(name="envoy.filters.http.router", typed_config=pack(Router())),
        ],
        forward_client_cert_details=HttpConnectionManagerForwardClientCertDetails.SANITIZE,
    )
    return FilterChain(
        name="health",
        filter_chain_match=FilterChainMatch(transport_protocol="tls", application_protocols=[HEALTH_ALPN]),
        transport_socket=mesh_server(workload, mesh.config, options),
        filters=[Filter(name="envoy.filters.network.http_connection_manager", typed_config=pack(manager))],
    )

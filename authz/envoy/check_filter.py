"""
How a proxy asks the authorization server: the two ext_authz filters and the cluster behind them.

The settings are those of sections 7 and 8 of the facts about Envoy; every one that prevents an outage or a bypass
says which.
"""

from functools import cache

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCommonLbConfig,
    ClusterDiscoveryType,
    ClusterEdsClusterConfig,
    ClusterLbPolicy,
    OutlierDetection,
)
from envoy_data_plane.envoy.config.core.v3 import (
    ApiVersion,
    BackoffStrategy,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HeaderValue,
    HealthCheck,
    HealthCheckGrpcHealthCheck,
    RetryPolicy,
    RetryPolicyRetryHostPredicate,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, Listener
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import BufferSettings
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import ExtAuthz as HttpExtAuthz
from envoy_data_plane.envoy.extensions.filters.network.ext_authz.v3 import ExtAuthz as NetworkExtAuthz
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from envoy_data_plane.envoy.type.v3 import HttpStatus, Percent, StatusCode

from authz.envoy.hosting import hosting_address, hosting_listener
from authz.envoy.http_options import http2_upstream
from authz.envoy.messages import assignment, endpoint, followed_file, pack, pipe, seconds
from authz.envoy.options import AUTHZ_CLUSTER, HOST_MODULE, RenderOptions, embedded_socket
from authz.envoy.plain import kept

HTTP_FILTER = "envoy.filters.http.ext_authz"
NETWORK_FILTER = "envoy.filters.network.ext_authz"
CHECK_SERVICE = "envoy.service.auth.v3.Authorization"
OWN_SOCKET_MODE = 0o600
"""Mode of the socket of embedded authorization: only the proxy itself connects."""
MOST_CHECK_BYTES = 4 << 20
"""The service's own default of ``max_message_bytes``."""
LABELS_KEY = "labels"
"""Key of the node metadata that is sent as ``destination.labels`` (XA-39)."""
Times = tuple[float, float]
"""Seconds for one check with its retries, and for one try."""


def http_check_filter(options: RenderOptions, body_bytes: int = 0) -> HttpFilter:
    """
    Ask for every request, and refuse when no answer comes.

    ``body_bytes``: how much of the body the check waits for and carries; 0 for none (XA-50, XA-51).
    """
    times = options.check_timeout_seconds, options.check_try_seconds
    return _http_check_filter(times, body_bytes, include_peer_certificate=options.include_peer_certificate)


@cache
def _http_check_filter(times: Times, body_bytes: int, *, include_peer_certificate: bool) -> HttpFilter:
    """It is the same for all listeners of a mesh, and made once."""
    body = None
    if body_bytes:
        # Partial, because it is the service that refuses what a provider finds too long (AP-83).
        body = BufferSettings(max_request_bytes=body_bytes, allow_partial_message=True, pack_as_bytes=True)
    made = HttpFilter(
        name=HTTP_FILTER,
        typed_config=pack(
            HttpExtAuthz(
                grpc_service=_check_service(times),
                transport_api_version=ApiVersion.V3,
                with_request_body=body,
                failure_mode_allow=False,
                status_on_error=HttpStatus(code=StatusCode.ServiceUnavailable),  # tells "broken" from "denied" (XA-99)
                validate_mutations=True,  # no response splitting (XA-88)
                encode_raw_headers=True,  # every occurrence and every byte stays visible (XA-44)
                include_tls_session=True,  # connection.sni (CS-7)
                include_peer_certificate=include_peer_certificate,
                charge_cluster_response_stats=False,  # a denial is not a fault of the application (XA-112)
                emit_filter_state_stats=True,
                bootstrap_metadata_labels_key=LABELS_KEY,
            )
        ),
    )
    return kept(made)


def network_check_filter(options: RenderOptions, stat_prefix: str) -> Filter:
    """Ask once for every connection (XA-163)."""
    return Filter(
        name=NETWORK_FILTER,
        typed_config=pack(
            NetworkExtAuthz(
                stat_prefix=stat_prefix,
                grpc_service=_check_service((options.check_timeout_seconds, options.check_try_seconds)),
                transport_api_version=ApiVersion.V3,
                failure_mode_allow=False,
                include_tls_session=True,
                include_peer_certificate=options.include_peer_certificate,
                bootstrap_metadata_labels_key=LABELS_KEY,
                send_tls_alert_on_denial=True,
            )
        ),
    )


def _check_service(times: Times) -> GrpcService:
    timeout_seconds, try_seconds = times
    return GrpcService(
        envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=AUTHZ_CLUSTER),
        timeout=seconds(timeout_seconds),
        retry_policy=RetryPolicy(
            num_retries=2,
            # A check changes nothing, so what a worker left unanswered as it died (reset) or went away (cancelled, as
            # grpcio calls it) is asked again as well.
            retry_on="unavailable,cancelled,connect-failure,refused-stream,reset",
            retry_back_off=BackoffStrategy(
                base_interval=seconds(0.005),
                max_interval=seconds(try_seconds),  # is the limit for one try as well (XA-103)
            ),
            retry_host_predicate=[
                RetryPolicyRetryHostPredicate(
                    name="envoy.retry_host_predicates.previous_hosts", typed_config=pack(PreviousHostsPredicate())
                )
            ],
            host_selection_retry_max_attempts=5,
        ),
        initial_metadata=[
            # These tell what the check itself does not say, and the client cannot forge them (XA-37, XA-58).
            HeaderValue(key="x-authz-remote-ip", value="%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
            HeaderValue(key="x-authz-direct-ip", value="%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"),
        ],
    )


@cache
def check_cluster() -> Cluster:
    """
    The workers of the authorization server, one endpoint each (XA-122).

    Their number stands only in the endpoints file. Closed when no worker is healthy (XA-126). One message for all
    proxies, to be left alone.
    """
    cluster = _authz_cluster()
    cluster.type = ClusterDiscoveryType.EDS
    cluster.eds_cluster_config = ClusterEdsClusterConfig(
        service_name=AUTHZ_CLUSTER, eds_config=followed_file("eds", f"{AUTHZ_CLUSTER}.yaml", wait_for_ever=True)
    )
    cluster.outlier_detection = OutlierDetection(
        consecutive_gateway_failure=3,
        enforcing_consecutive_gateway_failure=100,
        consecutive_5xx=3,
        interval=seconds(1),
        base_ejection_time=seconds(5),
        max_ejection_percent=50,
    )
    return kept(cluster)


def embedded_check_cluster(proxy: str) -> Cluster:
    """
    The proxy itself, on a socket of its own. There is no other endpoint, so none is ever avoided.

    A starting proxy asks for health before its own listener is open, so it asks again soon.
    """
    cluster = _authz_cluster()
    (health,) = cluster.health_checks
    health.unhealthy_interval = health.no_traffic_interval = seconds(0.05)
    health.no_traffic_healthy_interval = seconds(1)
    cluster.type = ClusterDiscoveryType.STATIC
    cluster.load_assignment = assignment(AUTHZ_CLUSTER, [endpoint(pipe(embedded_socket(proxy)))])
    return cluster


def embedded_listener(proxy: str) -> Listener:
    """
    The authorization server inside the proxy.

    It does not count as a connection from outside, so a proxy at its limit still asks itself.
    """
    path = hosting_address(f"unix:{embedded_socket(proxy)}", OWN_SOCKET_MODE)
    listener = hosting_listener("authz", [path], HOST_MODULE, max_message_bytes=MOST_CHECK_BYTES)
    listener.ignore_global_conn_limit = True
    return listener


def _authz_cluster() -> Cluster:
    return Cluster(
        name=AUTHZ_CLUSTER,
        connect_timeout=seconds(0.25),
        lb_policy=ClusterLbPolicy.ROUND_ROBIN,
        # The default of three concurrent retries loses a fifth of the requests when a worker restarts (XA-105).
        circuit_breakers=CircuitBreakers(
            thresholds=[CircuitBreakersThresholds(max_requests=10_000, max_pending_requests=10_000, max_retries=1_000)]
        ),
        common_lb_config=ClusterCommonLbConfig(healthy_panic_threshold=Percent(value=0)),
        health_checks=[
            HealthCheck(
                timeout=seconds(0.5),
                interval=seconds(1),
                no_traffic_interval=seconds(1),
                unhealthy_threshold=1,
                healthy_threshold=1,
                grpc_health_check=HealthCheckGrpcHealthCheck(service_name=CHECK_SERVICE),
            )
        ],
        typed_extension_protocol_options=http2_upstream(keepalive=True),
    )

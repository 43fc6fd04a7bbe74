"""
What a patch may change in a listener or cluster that enforces policies; everything else there is closed.

A list of what is free, not of what is closed: a field that Envoy gets tomorrow is closed until somebody has thought.
"""

from enum import StrEnum

_HTTP = "type.googleapis.com/envoy.extensions.filters.http."
_NETWORK = "type.googleapis.com/envoy.extensions.filters.network."
_LISTENER = "type.googleapis.com/envoy.extensions.filters.listener."

LISTENER = frozenset(
    [
        "stat_prefix",
        "per_connection_buffer_limit_bytes",
        "metadata",
        "drain_type",
        "listener_filters_timeout",
        "connection_balance_config",
        "tcp_fast_open_queue_length",
        "tcp_backlog_size",
        "max_connections_to_accept_per_socket_event",
    ]
)
CHAIN = frozenset({"metadata", "transport_socket_connect_timeout"})
MANAGER = frozenset(
    [
        "server_name",
        "server_header_transformation",
        "stream_idle_timeout",
        "stream_flush_timeout",
        "request_timeout",
        "request_headers_timeout",
        "drain_timeout",
        "delayed_close_timeout",
        "codec_type",
        "max_request_headers_kb",
        "tracing",
        "generate_request_id",
        "preserve_external_request_id",
        "always_set_request_id_in_response",
        "request_id_extension",
        "via",
        "stream_error_on_invalid_http_message",
        "proxy_status_config",
        "access_log_flush_interval",
        "access_log_options",
    ]
)
INNER: dict[str, frozenset[str]] = {
    "common_http_protocol_options": frozenset(
        [
            "idle_timeout",
            "max_headers_count",
            "max_response_headers_kb",
            "max_stream_duration",
            "max_requests_per_connection",
        ]
    ),
    "http_protocol_options": frozenset(["accept_http_10", "default_host_for_http_10", "header_key_format"]),
    "http2_protocol_options": frozenset(
        [
            "hpack_table_size",
            "max_concurrent_streams",
            "initial_stream_window_size",
            "initial_connection_window_size",
            "connection_keepalive",
            "max_outbound_frames",
            "max_outbound_control_frames",
            "max_consecutive_inbound_frames_with_empty_payload",
            "max_inbound_priority_frames_per_stream",
            "max_inbound_window_update_frames_per_data_frame_sent",
        ]
    ),
}
"""Tree of the HTTP connection manager of which parts are free."""
APPENDED = frozenset({"access_log"})
"""Lists that may get longer: what records decisions stays."""
TCP_PROXY = frozenset(["idle_timeout", "max_connect_attempts", "backoff_options"])
ROUTER = frozenset(
    [
        "dynamic_stats",
        "start_child_span",
        "suppress_envoy_headers",
        "respect_expected_rq_timeout",
        "upstream_log",
        "upstream_log_options",
        "suppress_grpc_request_failure_code_stats",
        "reject_connect_request_early_data",
    ]
)
CLUSTER = frozenset(
    [
        "alt_stat_name",
        "connect_timeout",
        "per_connection_buffer_limit_bytes",
        "lb_policy",
        "circuit_breakers",
        "outlier_detection",
        "health_checks",
        "max_requests_per_connection",
        "dns_refresh_rate",
        "dns_jitter",
        "dns_failure_refresh_rate",
        "respect_dns_ttl",
        "dns_lookup_family",
        "wait_for_warm_on_init",
        "cleanup_interval",
        "lb_subset_config",
        "ring_hash_lb_config",
        "maglev_lb_config",
        "least_request_lb_config",
        "round_robin_lb_config",
        "common_lb_config",
        "metadata",
        "upstream_connection_options",
        "close_connections_on_host_health_failure",
        "ignore_health_on_host_removal",
        "track_timeout_budgets",
        "track_cluster_stats",
        "preconnect_policy",
        "connection_pool_per_downstream_connection",
    ]
)
UPSTREAM_OPTIONS = frozenset({"common_http_protocol_options", "explicit_http_config", "auto_config"})
"""Of ``HttpProtocolOptions`` of a cluster."""
ADDED_CLUSTER_TYPES = frozenset({"STATIC", "STRICT_DNS", "LOGICAL_DNS"})
"""Whose addresses stand in the cluster itself; the default is STATIC."""


class FilterEffect(StrEnum):
    """What a filter that somebody adds can do to the enforcement."""

    NONE = "none"
    """It can refuse, delay, count and change answers."""
    SAID = "said"
    """It can change requests, or answer by itself: allowed, and said."""
    AFTER = "after"
    """As ``SAID``, but only behind what decides: before it, it could make decisions its own."""


HTTP_FILTERS = {
    **dict.fromkeys(
        [
            "adaptive_concurrency",
            "admission_control",
            "bandwidth_limit",
            "bandwidth_share",
            "buffer",
            "compressor",
            "cors",
            "csrf",
            "fault",
            "file_system_buffer",
            "grpc_stats",
            "kill_request",
            "local_ratelimit",
            "rate_limit_quota",
            "ratelimit",
            "rbac",
        ],
        FilterEffect.NONE,
    ),
    **dict.fromkeys(
        [
            "alternate_protocols_cache",
            "api_key_auth",
            "basic_auth",
            "cdn_loop",
            "connect_grpc_bridge",
            "credential_injector",
            "custom_response",
            "decompressor",
            "dynamic_modules",
            "ext_authz",
            "ext_proc",
            "geoip",
            "grpc_http1_bridge",
            "grpc_http1_reverse_bridge",
            "grpc_json_transcoder",
            "grpc_web",
            "header_mutation",
            "health_check",
            "ip_tagging",
            "lua",
            "oauth2",
            "tap",
            "wasm",
        ],
        FilterEffect.SAID,
    ),
    **dict.fromkeys(
        [
            "aws_request_signing",
            "cache",
            "cache_v2",
            "dynamic_forward_proxy",
            "gcp_authn",
            "grpc_field_extraction",
            "header_to_metadata",
            "json_to_metadata",
            "jwt_authn",
            "set_metadata",
            "stateful_session",
        ],
        FilterEffect.AFTER,
    ),
}
"""By the package of their type; any other is refused."""
NETWORK_FILTERS = {
    **dict.fromkeys(["connection_limit", "local_ratelimit", "ratelimit", "rbac"], FilterEffect.NONE),
    **dict.fromkeys(["wasm", "dynamic_modules", "ext_proc"], FilterEffect.SAID),
}
LISTENER_FILTERS = dict.fromkeys(["http_inspector", "local_ratelimit"], FilterEffect.NONE)


def http_effect(url: str) -> FilterEffect | None:
    """The effect of an HTTP filter by its type; None: unknown, or it would end or fork the chain."""
    return _effect(url, _HTTP, HTTP_FILTERS)


def network_effect(url: str) -> FilterEffect | None:
    """The effect of a network filter by its type."""
    return _effect(url, _NETWORK, NETWORK_FILTERS)


def listener_effect(url: str) -> FilterEffect | None:
    """The effect of a listener filter by its type."""
    return _effect(url, _LISTENER, LISTENER_FILTERS)


def _effect(url: str, prefix: str, table: dict[str, FilterEffect]) -> FilterEffect | None:
    if not url.startswith(prefix):
        return None
    return table.get(url.removeprefix(prefix).split(".")[0])

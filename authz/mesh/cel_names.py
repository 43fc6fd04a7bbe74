"""The names that Envoy 1.40 knows in its expressions in CEL: attributes, types, functions and their arguments."""

from collections.abc import Mapping

_PEER = (
    *("tls_version", "subject_local_certificate", "subject_peer_certificate", "dns_san_local_certificate"),
    *("dns_san_peer_certificate", "uri_san_local_certificate", "uri_san_peer_certificate"),
    *("sha256_peer_certificate_digest", "peer_certificate", "transport_failure_reason"),
)
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "request": (
        *("path", "url_path", "host", "scheme", "method", "headers", "headers_bytes", "referer", "useragent", "time"),
        *("id", "protocol", "query", "duration", "size", "total_size"),
    ),
    "response": (
        *("code", "code_details", "flags", "grpc_status", "headers", "headers_bytes", "trailers", "size"),
        *("total_size", "backend_latency"),
    ),
    "source": ("address", "port"),
    "destination": ("address", "port"),
    "connection": (*_PEER, "id", "mtls", "requested_server_name", "termination_details"),
    "upstream": (
        *_PEER,
        *("address", "port", "num_endpoints", "local_address", "request_attempt_count", "cx_pool_ready_duration"),
        "locality",
    ),
    "xds": (
        *("node", "cluster_name", "cluster_metadata", "listener_direction", "listener_metadata", "route_name"),
        *("route_metadata", "virtual_host_name", "virtual_host_metadata", "upstream_host_metadata"),
        *("upstream_host_locality_metadata", "filter_chain_name"),
    ),
    "metadata": (),
    "filter_state": (),
    "upstream_filter_state": (),
}
"""Envoy's attributes; what may stand below the last three is not known."""
TYPES = frozenset({"int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"})
FUNCTIONS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("size", "int", "uint", "double", "bool", "bytes", "dyn", "type", "timestamp", "duration"), (1,)),
    **dict.fromkeys(("matches", "contains", "startsWith", "endsWith"), (2,)),
    "re.extract": (3,),
    "re.capture": (2,),
    "re.captureN": (2,),
}
_TIMES = (
    *("getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfYear", "getDayOfWeek", "getHours"),
    *("getMinutes", "getSeconds", "getMilliseconds"),
)
METHODS: Mapping[str, tuple[int, ...]] = {
    "size": (0,),
    **dict.fromkeys(("contains", "startsWith", "endsWith", "matches"), (1,)),
    **dict.fromkeys(_TIMES, (0, 1)),
}

"""
The record of native enforcement as a stream: entries of Envoy's gRPC access log service, for receivers elsewhere.

What ``record_log`` writes into a file line by line, with the same constant facts. An entry has the whole metadata of a
request, the token's claims among it, and travels by the TLS of its cluster; what policies ask for beside that is named.
INVARIANT: no token, cookie or other credential is among the headers.
"""

from authz.core.attributes import Json
from authz.envoy.native.record_log import ASKED_STATE, VERSION_STATE, WHO, Config, Subject, loggable_headers

FLUSH_SECONDS = 0.2
"""How long an entry waits for others: who looks for a refusal finds it at once."""
BUFFER_BYTES = 16_384
"""Envoy's own default: what fills it is sent at once."""
_TYPE = "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3."


def http_stream_log(cluster: str, subject: Subject) -> Config:
    """The access log of an HTTP connection manager to whoever receives behind ``cluster``."""
    asked = loggable_headers(subject.asked) if subject.asked is not None else ()
    headers: list[Json] = [":method", "traceparent", "content-type", *asked]
    return {
        "name": "envoy.access_loggers.http_grpc",
        "typed_config": {
            "@type": f"{_TYPE}HttpGrpcAccessLogConfig",
            "common_config": _common(cluster, subject),
            "additional_request_headers_to_log": headers,
        },
    }


def tcp_stream_log(cluster: str, subject: Subject) -> Config:
    """The access log of a TCP proxy; connections that network RBAC closes are in it as well."""
    return {
        "name": "envoy.access_loggers.tcp_grpc",
        "typed_config": {"@type": f"{_TYPE}TcpGrpcAccessLogConfig", "common_config": _common(cluster, subject)},
    }


def _common(cluster: str, subject: Subject) -> Config:
    return {
        "log_name": "authz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": cluster}},
        "buffer_size_bytes": BUFFER_BYTES,
        "buffer_flush_interval": f"{FLUSH_SECONDS}s",
        "filter_state_objects_to_log": [VERSION_STATE, ASKED_STATE],
        "custom_tags": [{"tag": WHO, "literal": {"value": subject.who()}}],
    }

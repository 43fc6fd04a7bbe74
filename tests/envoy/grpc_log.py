"""Access logs to the gRPC access log service, as those configure them who run Envoys of their own."""

from authz.core.attributes import Json
from authz.envoy.native.record_log import ASKED_STATE, VERSION_STATE, WHO, Config, Subject, loggable_headers

TYPE = "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3."


def http_grpc_log(cluster: str, subject: Subject) -> Config:
    """The access log of an HTTP connection manager to the gRPC access log service behind ``cluster``."""
    asked = loggable_headers(subject.asked) if subject.asked is not None else ()
    headers: list[Json] = [":method", "traceparent", "content-type", *asked]
    return {
        "name": "envoy.access_loggers.http_grpc",
        "typed_config": {
            "@type": f"{TYPE}HttpGrpcAccessLogConfig",
            "common_config": _common(cluster, subject),
            "additional_request_headers_to_log": headers,
        },
    }


def tcp_grpc_log(cluster: str, subject: Subject) -> Config:
    """The access log of a TCP proxy to the gRPC access log service behind ``cluster``."""
    return {
        "name": "envoy.access_loggers.tcp_grpc",
        "typed_config": {
            "@type": f"{TYPE}TcpGrpcAccessLogConfig",
            "common_config": _common(cluster, subject),
        },
    }


def _common(cluster: str, subject: Subject) -> Config:
    return {
        "log_name": "authz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": cluster}},
        "buffer_size_bytes": 16384,
        "buffer_flush_interval": "0.2s",
        "filter_state_objects_to_log": [VERSION_STATE, ASKED_STATE],
        "custom_tags": [{"tag": WHO, "literal": {"value": subject.who()}}],
    }

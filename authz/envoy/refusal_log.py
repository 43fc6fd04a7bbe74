"""
What tells the service of requests that a proxy refused by its own rate limits: an access log of these alone.

A proxy that enforces by itself is recorded from its own log, refusals by limits included.
"""

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog, AccessLogFilter, ExtensionFilter
from envoy_data_plane.envoy.config.core.v3 import ApiVersion, GrpcService, GrpcServiceEnvoyGrpc
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.access_loggers.grpc.v3 import (
    CommonGrpcAccessLogConfig,
    HttpGrpcAccessLogConfig,
)
from envoy_data_plane.envoy.type.tracing.v3 import CustomTag, CustomTagLiteral

from authz.envoy.messages import pack, seconds
from authz.envoy.native.record_log import WHO, Subject
from authz.envoy.options import LIMITS_CLUSTER, RenderOptions
from authz.mesh.nouns import MeshWorkload
from authz.mesh.rate_limits import LimitScope


def tells_refusals(workload: MeshWorkload, options: RenderOptions) -> bool:
    """Whether the proxy has limits of its own, and nobody would otherwise know what they refuse."""
    is_local = any(one.rule.scope is LimitScope.LOCAL for one in workload.limits)
    return is_local and not options.is_native(workload)


def refusal_logs(workload: MeshWorkload, listener: str, options: RenderOptions) -> list[AccessLog]:
    """
    What tells the service of requests that the proxy itself refused, for the record; nobody else would know.

    ``listener``: ``stat_prefix`` of the connection manager.
    """
    if not tells_refusals(workload, options):
        return []
    subject = Subject(workload.workload, workload.name, listener, is_gateway=workload.is_gateway)
    config = HttpGrpcAccessLogConfig(
        common_config=CommonGrpcAccessLogConfig(
            log_name="authz",
            transport_api_version=ApiVersion.V3,
            grpc_service=GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=LIMITS_CLUSTER)),
            buffer_flush_interval=seconds(0.2),
            custom_tags=[CustomTag(tag=WHO, literal=CustomTagLiteral(value=subject.who()))],
        ),
        additional_request_headers_to_log=[":method", "traceparent", "content-type"],
    )
    only = ExpressionFilter(expression="response.code_details == 'local_rate_limited'")
    return [
        AccessLog(
            name="envoy.access_loggers.http_grpc",
            filter=AccessLogFilter(
                extension_filter=ExtensionFilter(
                    name="envoy.access_loggers.extension_filters.cel", typed_config=pack(only)
                )
            ),
            typed_config=pack(config),
        )
    ]

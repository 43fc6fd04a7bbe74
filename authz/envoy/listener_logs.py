"""
The access logs of a listener: the proxy's own, and what a Telemetry asks for.

INVARIANT: where a proxy decides by itself, its own log is the record, and no Telemetry thins it, filters it or takes it
away. What a Telemetry says of it is then a second file.
"""

from functools import lru_cache

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog, AccessLogFilter, ExtensionFilter
from envoy_data_plane.envoy.config.core.v3 import (
    ApiVersion,
    DataSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    JsonFormatOptions,
    SubstitutionFormatString,
)
from envoy_data_plane.envoy.extensions.access_loggers.file.v3 import FileAccessLog
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.access_loggers.grpc.v3 import CommonGrpcAccessLogConfig, TcpGrpcAccessLogConfig
from envoy_data_plane.envoy.extensions.access_loggers.open_telemetry.v3 import OpenTelemetryAccessLogConfig
from envoy_data_plane.google.protobuf import Any as PackedAny
from envoy_data_plane.google.protobuf import Struct
from envoy_data_plane.opentelemetry.proto.common.v1 import AnyValue, KeyValue, KeyValueList

from authz.envoy.check_filter import HTTP_FILTER, NETWORK_FILTER
from authz.envoy.messages import json_log, pack, seconds
from authz.envoy.naming import collector_cluster
from authz.envoy.options import Records, RenderOptions, filtered_log_file, log_file, outbound_log_file
from authz.mesh.nouns import Mesh, MeshWorkload
from authz.mesh.telemetry_kind import Collector, FileLog, LogFormat, OtlpLog, OwnLog, TcpLogService, UsedLog

DEFAULT_FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %PATH(NQ:ORIG_OR_PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    "%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "
    '"%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% '
    '%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" '
    '"%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" '
    "%UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% "
    "%DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
"""Istio's default format of a log, except that the path is without its query, which may hold a token (XA-183)."""


def http_logs(workload: MeshWorkload, options: RenderOptions, *, outbound: bool, gateway: bool) -> list[AccessLog]:
    """The access logs of an HTTP connection manager; without a Telemetry only requests that come in are logged."""
    fields = _http_fields(workload.name, outbound=outbound)
    return _logs(workload, options, fields, outbound=outbound, gateway=gateway)


def tcp_logs(workload: MeshWorkload, options: RenderOptions, *, outbound: bool) -> list[AccessLog]:
    """The same of a TCP proxy."""
    fields = _tcp_fields(workload.name, outbound=outbound)
    return _logs(workload, options, fields, outbound=outbound, gateway=workload.is_gateway)


def _logs(
    workload: MeshWorkload, options: RenderOptions, fields: dict[str, str], *, outbound: bool, gateway: bool
) -> list[AccessLog]:
    side = workload.telemetry.client if outbound or gateway else workload.telemetry.server
    native = not outbound and options.is_native(workload)
    found = [json_log(log_file(workload.name), fields)] if native or (side.logs is None and not outbound) else []
    for used in side.logs or ():
        if isinstance(used.sink, OwnLog):
            if native and not used.expression and options.records is Records.FILE:
                continue  # the record has every entry already
            thinned = filtered_log_file if native else log_file
            path = outbound_log_file(workload.name) if outbound else thinned(workload.name)
            found.append(_filtered(json_log(path, fields), used))
        else:
            found.append(_filtered(_sink(used.sink), used))
    return found


def kept_records(mesh: Mesh, options: RenderOptions) -> dict[str, str]:
    """What a Telemetry would have taken from a record and could not, by name of the workload."""
    found = {}
    for workload in mesh.workloads:
        logs = (workload.telemetry.client if workload.is_gateway else workload.telemetry.server).logs
        if logs is None or not options.is_native(workload):
            continue
        own = [log for log in logs if isinstance(log.sink, OwnLog)]
        if not own:
            found[workload.name] = "its log is the record and stays, though a Telemetry turns it off"
        elif own[0].expression:
            path = filtered_log_file(workload.name)
            found[workload.name] = f"its log is the record and stays whole; what the filter leaves is in {path}"
    return found


def _filtered(log: AccessLog, used: UsedLog) -> AccessLog:
    if used.expression:
        chosen = ExtensionFilter(
            name="envoy.access_loggers.extension_filters.cel",
            typed_config=pack(ExpressionFilter(expression=used.expression)),
        )
        log.filter = AccessLogFilter(extension_filter=chosen)
    return log


def _sink(sink: FileLog | TcpLogService | OtlpLog) -> AccessLog:
    if isinstance(sink, FileLog):
        return AccessLog(name="envoy.access_loggers.file", typed_config=_file(sink))
    if isinstance(sink, TcpLogService):
        common = _service(sink.collector, sink.log_name or "tcp_envoy_accesslog")
        made = pack(TcpGrpcAccessLogConfig(common_config=common))
        return AccessLog(name="envoy.access_loggers.tcp_grpc", typed_config=made)
    return AccessLog(name="envoy.access_loggers.open_telemetry", typed_config=_otlp(sink))


def _file(sink: FileLog) -> PackedAny:
    labels = sink.format.labels
    text = _line(sink.format.text or DEFAULT_FORMAT)
    return pack(
        FileAccessLog(
            path=sink.path,
            log_format=SubstitutionFormatString(
                text_format_source=None if labels else DataSource(inline_string=text),
                json_format=Struct.from_dict(dict(labels)) if labels else None,
                json_format_options=JsonFormatOptions(sort_properties=False) if labels else None,
                omit_empty_values=sink.omit_empty,
            ),
        )
    )


def _line(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"


def _otlp(sink: OtlpLog) -> PackedAny:
    return pack(
        OpenTelemetryAccessLogConfig(
            grpc_service=_grpc(sink.collector),
            log_name=sink.log_name or "otel_envoy_accesslog",
            disable_builtin_labels=True,
            body=AnyValue(string_value=_body(sink.format)),
            attributes=KeyValueList(values=_attributes(sink.format)) if sink.format.labels else None,
        )
    )


def _body(format_: LogFormat) -> str:
    return format_.text or DEFAULT_FORMAT


def _attributes(format_: LogFormat) -> list[KeyValue]:
    """Of the labels only texts: Istio gives nothing for others either."""
    texts = {name: value if isinstance(value, str) else "" for name, value in sorted(format_.labels.items())}
    return [KeyValue(key=name, value=AnyValue(string_value=value)) for name, value in texts.items()]


def _service(collector: Collector, log_name: str) -> CommonGrpcAccessLogConfig:
    return CommonGrpcAccessLogConfig(
        log_name=log_name, grpc_service=_grpc(collector), transport_api_version=ApiVersion.V3
    )


def _grpc(collector: Collector) -> GrpcService:
    target = GrpcServiceEnvoyGrpc(cluster_name=collector_cluster(collector), authority=collector.service)
    return GrpcService(envoy_grpc=target, timeout=seconds(1))


@lru_cache(maxsize=16)
def _http_fields(proxy: str, *, outbound: bool) -> dict[str, str]:
    """The path without its query, which may hold a token (XA-183). It is the same for all listeners of a proxy."""
    fields = {
        "time": "%START_TIME%",
        "proxy": proxy,
        "request_id": "%REQ(X-REQUEST-ID)%",
        "trace_id": "%TRACE_ID%",
        "peer": "%DOWNSTREAM_PEER_URI_SAN%",
        "peer_address": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
        "client_address": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "method": "%REQ(:METHOD)%",
        "host": "%REQ(:AUTHORITY)%",
        "path": "%PATH(NQ:PATH)%",
        "protocol": "%PROTOCOL%",
        "status": "%RESPONSE_CODE%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "duration_ms": "%DURATION%",
        "upstream": "%UPSTREAM_HOST%",
    }
    if outbound:
        return fields | {"cluster": "%UPSTREAM_CLUSTER_RAW%"}
    fields["check_us"] = f"%FILTER_STATE({HTTP_FILTER}:FIELD:latency_us)%"
    return fields | _decision_fields(HTTP_FILTER)


def _tcp_fields(proxy: str, *, outbound: bool) -> dict[str, str]:
    fields = {
        "time": "%START_TIME%",
        "proxy": proxy,
        "peer": "%DOWNSTREAM_PEER_URI_SAN%",
        "peer_address": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
        "local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
        "sni": "%REQUESTED_SERVER_NAME%",
        "details": "%CONNECTION_TERMINATION_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "duration_ms": "%DURATION%",
        "received_bytes": "%BYTES_RECEIVED%",
        "sent_bytes": "%BYTES_SENT%",
        "upstream": "%UPSTREAM_HOST%",
    }
    if outbound:
        return fields | {"cluster": "%UPSTREAM_CLUSTER_RAW%"}
    return fields | _decision_fields(NETWORK_FILTER)


def _decision_fields(namespace: str) -> dict[str, str]:
    """The fields that the authorization server sends with every answer, as dynamic metadata (AP-88, XA-176, XA-177)."""
    names = (
        "decision",
        "decision_id",
        "stage",
        "rule",
        "reason",
        "policy_version",
        "audit",
        "dry_run_allow",
        "dry_run_allow_rule",
        "dry_run_deny",
        "dry_run_deny_rule",
    )
    return {name: f"%DYNAMIC_METADATA({namespace}:{name})%" for name in names}

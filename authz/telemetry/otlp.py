"""OpenTelemetry's protocol: where spans and logs are exported, as which service, and time as it counts it."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import grpc  # the exporter takes TLS credentials only as grpc's own type
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as otlp_grpc
from opentelemetry.exporter.otlp.proto.http import trace_exporter as otlp_http
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace.export import SpanExporter

from authz.telemetry.counters import program_version

_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class OtlpTarget:
    """Where and how to export by OTLP. The same shape serves spans and logs."""

    endpoint: str
    """``http://host:4317`` or ``https://…``; for HTTP ``/v1/traces`` or ``/v1/logs`` is added when it has no path."""
    protocol: str = "grpc"
    """``grpc`` or ``http``."""
    headers: Mapping[str, str] | None = None
    ca_file: str = ""
    """PEM bundle that vouches for the collector; empty for the system's own."""
    client_key_file: str = ""
    client_certificate_file: str = ""
    timeout_seconds: float = 10.0

    def url(self, signal: str) -> str:
        """URL of ``traces`` or ``logs`` for HTTP."""
        has_path = urlsplit(self.endpoint).path not in ("", "/")
        return self.endpoint if has_path else f"{self.endpoint.rstrip('/')}/v1/{signal}"

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Read the TLS files for gRPC; None for a plaintext endpoint. Raises OSError."""
        if not self.endpoint.startswith("https://"):
            return None
        return grpc.ssl_channel_credentials(
            _bytes(self.ca_file), _bytes(self.client_key_file), _bytes(self.client_certificate_file)
        )


def _bytes(file: str) -> bytes | None:
    if not file:
        return None
    with open(file, "rb") as opened:
        return opened.read()


def span_exporter(target: OtlpTarget) -> SpanExporter:
    """Build the exporter of one target. Raises OSError when a TLS file cannot be read."""
    if target.protocol == "http":
        return otlp_http.OTLPSpanExporter(
            target.url("traces"),
            certificate_file=target.ca_file or None,
            client_key_file=target.client_key_file or None,
            client_certificate_file=target.client_certificate_file or None,
            headers=dict(target.headers or {}),
            timeout=target.timeout_seconds,
        )
    return otlp_grpc.OTLPSpanExporter(
        target.endpoint,
        insecure=not target.endpoint.startswith("https://"),
        credentials=target.credentials(),
        headers=dict(target.headers or {}),
        timeout=target.timeout_seconds,
    )


def service_resource(instance: str = "", attributes: Mapping[str, str] | None = None) -> Resource:
    """Name this service in spans and logs; ``instance`` tells workers apart."""
    named = {SERVICE_NAME: "authz", SERVICE_VERSION: program_version()}
    if instance:
        named[SERVICE_INSTANCE_ID] = instance
    return Resource.create({**named, **(attributes or {})})


def nanoseconds(seconds: float) -> int:
    """Convert without the error of multiplying a float by 10^9, which is a quarter of a microsecond today."""
    whole = int(seconds)
    return whole * _NANOSECONDS + round((seconds - whole) * _NANOSECONDS)

"""
Where records go besides files: standard output, OTLP logs. They work side by side, and one that fails harms no others.
"""

from collections.abc import Sequence

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as otlp_grpc
from opentelemetry.exporter.otlp.proto.http import _log_exporter as otlp_http
from opentelemetry.sdk._logs import ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from authz.audit.entry import Entry
from authz.audit.file_sink import write_fully
from authz.telemetry.counters import program_version
from authz.telemetry.names import LOG_EVENT
from authz.telemetry.otlp import OtlpTarget, nanoseconds, service_resource
from authz.telemetry.spans import span_attributes


class StreamSink:
    """JSON lines on an open descriptor, standard output by default; the descriptor stays open."""

    problem = ""

    def __init__(self, descriptor: int = 1, name: str = "stdout") -> None:
        self.name = name
        self._descriptor = descriptor

    def write(self, entries: Sequence[Entry]) -> None:
        """Write a batch with one call."""
        write_fully(self._descriptor, b"".join([entry.line + b"\n" for entry in entries]))

    def close(self) -> None:
        """Leave the descriptor open: it is not ours."""


def log_exporter(target: OtlpTarget) -> LogRecordExporter:
    """Build the exporter of one target. Raises OSError when a TLS file cannot be read."""
    if target.protocol == "http":
        return otlp_http.OTLPLogExporter(
            target.url("logs"),
            certificate_file=target.ca_file or None,
            client_key_file=target.client_key_file or None,
            client_certificate_file=target.client_certificate_file or None,
            headers=dict(target.headers or {}),
            timeout=target.timeout_seconds,
        )
    return otlp_grpc.OTLPLogExporter(
        target.endpoint,
        insecure=not target.endpoint.startswith("https://"),
        credentials=target.credentials(),
        headers=dict(target.headers or {}),
        timeout=target.timeout_seconds,
    )


class OtlpSink:
    """
    Records as OTLP logs: the JSON line is the body, the attributes are those of the span.

    Export runs in the SDK's thread with a queue of its own; ``problem`` says how the last export went.
    """

    def __init__(
        self,
        exporter: LogRecordExporter,
        *,
        resource: Resource | None = None,
        name: str = "otlp",
        delay_seconds: float = 1.0,
    ) -> None:
        self.name = name
        self._exporter = _Watched(exporter)
        self._processor = BatchLogRecordProcessor(self._exporter, schedule_delay_millis=delay_seconds * 1000)
        self._resource = resource or service_resource()
        self._scope = InstrumentationScope("authz", program_version())

    @property
    def problem(self) -> str:
        """The complaint of the last export; empty when it went well."""
        return self._exporter.problem

    def write(self, entries: Sequence[Entry]) -> None:
        """Queue a batch for export."""
        for entry in entries:
            self._processor.on_emit(ReadWriteLogRecord(_log_record(entry), self._resource, self._scope))

    def close(self) -> None:
        """Export what is waiting."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]  # the SDK left it bare


def _log_record(entry: Entry) -> LogRecord:
    context = None
    if entry.trace.trace_id:
        flags = TraceFlags(TraceFlags.SAMPLED if entry.trace.is_sampled else TraceFlags.DEFAULT)
        span = SpanContext(int(entry.trace.trace_id, 16), int(entry.trace.span_id, 16), False, flags)
        context = set_span_in_context(NonRecordingSpan(span))
    is_denial = entry.record.get("effect") == "deny"
    return LogRecord(
        timestamp=nanoseconds(entry.at),
        context=context,
        severity_text="WARN" if is_denial else "INFO",
        severity_number=SeverityNumber.WARN if is_denial else SeverityNumber.INFO,
        body=entry.line.decode(),
        attributes=span_attributes(entry.record),
        event_name=LOG_EVENT,
    )


class _Watched(LogRecordExporter):
    """Remembers how the last export went, because the SDK only logs it."""

    def __init__(self, exporter: LogRecordExporter) -> None:
        self._exporter = exporter
        self.problem = ""

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        result = self._exporter.export(batch)
        is_fine = result is LogRecordExportResult.SUCCESS
        self.problem = "" if is_fine else "records could not be exported; see the log"
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the SDK left it bare

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)

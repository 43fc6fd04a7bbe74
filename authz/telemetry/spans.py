"""
One OpenTelemetry span per decision, child of Envoy's Check span (XA-170), made after the fact by the audit writer.

Sampled as the parent says (XA-173): an unsampled decision costs the check path nothing and makes no object here.
Spans are built as finished values, because the work they describe is over: start and end are given, no clock is asked.
The attributes come from the redacted record, so that what is kept out of the audit trail is kept out of traces too.
"""

import re
from collections.abc import Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision as SamplingDecision
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState, format_span_id, format_trace_id
from opentelemetry.trace.status import Status, StatusCode

from authz.core.attributes import read_field
from authz.core.decided import NO_TRACE, Offer, Record, Timing, TraceIds
from authz.core.decision import Stage
from authz.telemetry.counters import program_version
from authz.telemetry.names import SPAN_ATTRIBUTES, SPAN_CONSTANTS, SPAN_EVENTS, SPAN_NAME
from authz.telemetry.otlp import nanoseconds, service_resource

_TRACE_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_TRACE_PARENT_LENGTH = 55
"""The length in version 00; later versions may be longer."""
_ZEROS = frozenset({"0" * 32, "0" * 16})
_SAMPLED_DIGITS = frozenset("13579bdf")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_DETAILS = {
    "stage": "authz.stage.result",
    "token": "authz.token.outcome",
    "provider": "authz.provider.name",
    "introspection": "authz.introspection.issuer",
}
"""First part of a timing's name to the attribute that its detail becomes."""
STAGES = (
    Stage.IDENTITY,
    Stage.NORMALIZATION,
    Stage.PEER_AUTHENTICATION,
    Stage.CUSTOM,
    Stage.JWT,
    Stage.DENY,
    Stage.ALLOW,
)
"""Stages in the order of evaluation (EV-1), as far as a decision can end there."""


def parse_trace_parent(text: str) -> tuple[str, str, bool] | None:
    """Read a W3C ``traceparent`` as (trace id, span id, sampled); None when it is not valid (XA-172)."""
    if _TRACE_PARENT.fullmatch(text) is None:
        return None
    # The parts are cut by place, because every one has its length: groups of the match would cost as much as the match.
    trace_id, span_id = text[3:35], text[36:52]
    if trace_id in _ZEROS or span_id in _ZEROS or (len(text) > _TRACE_PARENT_LENGTH and text[:2] == "00"):
        return None
    return trace_id, span_id, text[54] in _SAMPLED_DIGITS


class DecisionTracer:
    """
    Makes and exports the spans; used by the audit writer only.

    Export happens in the SDK's own thread and queue: a slow collector costs spans, never decisions or records.
    """

    def __init__(
        self,
        exporters: Sequence[SpanExporter],
        *,
        resource: Resource | None = None,
        root_ratio: float = 1.0,
        ids: IdGenerator | None = None,
        delay_seconds: float = 1.0,
    ) -> None:
        """``root_ratio`` samples decisions that came without a trace; 1.0 is OpenTelemetry's own default."""
        self._exporters = [_Watched(exporter) for exporter in exporters]
        self._processors = [
            BatchSpanProcessor(exporter, schedule_delay_millis=delay_seconds * 1000) for exporter in self._exporters
        ]
        self._resource = resource or service_resource()
        self._scope = InstrumentationScope("authz", program_version())
        self._root = TraceIdRatioBased(root_ratio)
        self._ids = ids or RandomIdGenerator()

    @property
    def problem(self) -> str:
        """The complaint of the last export; empty when all is well."""
        return next((exporter.problem for exporter in self._exporters if exporter.problem), "")

    @property
    def is_exporting(self) -> bool:
        """Whether a sampled span goes anywhere."""
        return bool(self._processors)

    def begin(self, offer: Offer) -> TraceIds:
        """Choose the ids of a decision: a new span below a sampled parent, else the parent itself."""
        told = offer.attributes.trace_parent
        parent = parse_trace_parent(told) if told else None
        if parent is None:
            if self._root.rate <= 0.0:  # the sampler would say the same, but more slowly
                return NO_TRACE
            number = self._ids.generate_trace_id()
            if self._root.should_sample(None, number, SPAN_NAME).decision is SamplingDecision.DROP:
                return NO_TRACE
            return TraceIds(format_trace_id(number), format_span_id(self._ids.generate_span_id()), "", True)
        trace_id, parent_id, sampled = parent
        if not sampled:
            return TraceIds(trace_id, parent_id)
        return TraceIds(trace_id, format_span_id(self._ids.generate_span_id()), parent_id, True)

    def finish(self, trace: TraceIds, offer: Offer, record: Record) -> None:
        """Export the span of a sampled decision; ``record`` is already redacted."""
        if not trace.is_sampled:
            return
        trace_id, start = int(trace.trace_id, 16), nanoseconds(offer.started_at)
        end = start + nanoseconds(offer.duration_seconds)
        parent, written = None, offer.attributes.trace_state
        state = TraceState.from_header([written]) if written and trace.parent_id else None
        if trace.parent_id:
            parent = SpanContext(trace_id, int(trace.parent_id, 16), True, _SAMPLED, state)
        failed = offer.decision.stage is Stage.INTERNAL
        span = ReadableSpan(
            SPAN_NAME,
            SpanContext(trace_id, int(trace.span_id, 16), False, _SAMPLED, state),
            parent,
            self._resource,
            SPAN_CONSTANTS | span_attributes(record) | ({"error.type": "internal"} if failed else {}),
            span_events(offer, start),
            kind=SpanKind.SERVER,
            # A denial is an answer, not an error; only our own failure is one.
            status=Status(StatusCode.ERROR, offer.decision.reason) if failed else Status(StatusCode.UNSET),
            start_time=start,
            end_time=end,
            instrumentation_scope=self._scope,
        )
        for processor in self._processors:
            processor.on_end(span)

    def flush(self, timeout_seconds: float = 5.0) -> bool:
        """Export what is waiting; for shutdown and tests."""
        done = [processor.force_flush(int(timeout_seconds * 1000)) for processor in self._processors]
        return all(done)

    def close(self) -> None:
        """Export what is waiting and stop; a second call does nothing."""
        processors, self._processors = self._processors, []
        for processor in processors:
            processor.shutdown()  # type: ignore[no-untyped-call]  # the SDK left it bare


def span_attributes(record: Record) -> dict[str, str | bool | int | float]:
    """Translate a record: semantic conventions where they have the fact, ``authz.*`` elsewhere."""
    attributes: dict[str, str | bool | int | float] = {}
    for name, path in SPAN_ATTRIBUTES.items():
        value = read_field(record, *path)
        if isinstance(value, str | bool | int | float) and value != "":
            attributes[name] = value
    if "url.path" in attributes:
        attributes["url.path"] = str(attributes["url.path"]).partition("?")[0]
    if "server.address" in attributes:
        attributes["server.address"] = _without_port(str(attributes["server.address"]))
    if "network.protocol.version" in attributes:  # `HTTP/1.1`, and for gRPC `HTTP/2`
        name, _, version = str(attributes["network.protocol.version"]).partition("/")
        attributes["network.protocol.name"] = name.lower()
        attributes["network.protocol.version"] = version
    return attributes


def _without_port(host: str) -> str:
    """``reviews`` of ``reviews:9080``; brackets of an IPv6 address go too."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() and (":" not in name or host[:1] == "[") else host).strip("[]")


def span_events(offer: Offer, start: int) -> list[Event]:
    """One event for each timing that was measured, then one for each stage that was reached."""
    events = [_event(timing) for timing in offer.timings]
    if any(timing.name.startswith("stage.") for timing in offer.timings):
        return events
    ended = offer.decision.stage
    if ended not in STAGES and ended is not Stage.DEFAULT:
        return events
    last = Stage.ALLOW if ended is Stage.DEFAULT else ended
    at = start + nanoseconds(offer.duration_seconds)
    for stage in STAGES[: STAGES.index(last) + 1]:
        result = offer.decision.effect.value if stage is last else "continue"
        events.append(Event(SPAN_EVENTS["stage"], {"authz.stage": stage.value, "authz.stage.result": result}, at))
    return events


def _event(timing: Timing) -> Event:
    name, _, rest = timing.name.partition(".")
    attributes: dict[str, str | float] = {"authz.duration_us": round(timing.duration_seconds * 1e6, 1)}
    if name == "stage":
        attributes["authz.stage"] = rest
    if timing.detail:
        attributes[_DETAILS.get(name, f"authz.{name}.detail")] = timing.detail
    return Event(SPAN_EVENTS.get(name, timing.name), attributes, nanoseconds(timing.started_at))


class _Watched(SpanExporter):
    """Remembers how the last export went, because the SDK only logs it."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.problem = ""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        self.problem = "" if result is SpanExportResult.SUCCESS else "spans could not be exported; see the log"
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)

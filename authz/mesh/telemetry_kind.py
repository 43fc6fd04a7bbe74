"""
What a Telemetry says, as nouns: which access logs a proxy writes, and what it traces, on each side of it.

``WorkloadTelemetry`` is what is left for one workload after Istio's selection and merging. Nothing here knows Envoy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from authz.core.attributes import Json

OWN_LOG = "envoy"
"""Istio's name of the provider that is always there; here it is the proxy's own log."""


class TelemetryMode(StrEnum):
    """Istio's WorkloadMode. Every listener of a gateway is a client's side, as in Istio."""

    CLIENT_AND_SERVER = "CLIENT_AND_SERVER"
    CLIENT = "CLIENT"
    SERVER = "SERVER"


@dataclass(frozen=True, slots=True)
class LogFormat:
    """The format of an entry: a text, or a JSON object. Both empty: Istio's default text, without the query."""

    text: str = ""
    labels: Mapping[str, Json] = field(default_factory=dict)
    _exact: str = field(init=False, repr=False)
    """An entry has its members in this order, so that another order is another format."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_exact", repr(self.labels))


@dataclass(frozen=True, slots=True)
class FileLog:
    """``envoyFileAccessLog``: a file of the proxy's host."""

    path: str
    format: LogFormat = LogFormat()
    omit_empty: bool = False


@dataclass(frozen=True, slots=True)
class Collector:
    """Where a provider is: a host of a ServiceEntry, or one that the DNS knows."""

    service: str
    port: int


@dataclass(frozen=True, slots=True)
class TcpLogService:
    """``envoyTcpAls``: entries by gRPC that hold what the connection is, not what was asked on it."""

    collector: Collector
    log_name: str = ""


@dataclass(frozen=True, slots=True)
class OtlpLog:
    """``envoyOtelAls``: entries as OTLP log records."""

    collector: Collector
    log_name: str = ""
    format: LogFormat = LogFormat()


@dataclass(frozen=True, slots=True)
class OtlpTracer:
    """``opentelemetry``: spans by OTLP, gRPC."""

    collector: Collector
    most_tag_length: int = 0
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class OwnLog:
    """The proxy's own access log, ``logs/<proxy>.json``."""


@dataclass(frozen=True, slots=True)
class NoUse:
    """A provider that Istio knows and that is not done here; a Telemetry must not name it."""

    kind: str
    reason: str


LogSink = OwnLog | FileLog | TcpLogService | OtlpLog
TelemetryProvider = LogSink | OtlpTracer | NoUse


@dataclass(frozen=True, slots=True)
class TelemetryProviders:
    """``extensionProviders`` and ``defaultProviders`` of MeshConfig, as far as they log or trace."""

    named: Mapping[str, TelemetryProvider] = field(default_factory=dict)
    """By name in lower case, because Istio finds them whatever the case is."""
    default_logs: tuple[str, ...] = ()
    default_tracer: str = ""

    @property
    def inherited_logs(self) -> tuple[str, ...]:
        """What a Telemetry that names no provider means: without a default the own log, which is always written."""
        return self.default_logs or (OWN_LOG,)

    def find(self, name: str) -> TelemetryProvider | None:
        """The provider of that name; None when there is none."""
        return self.named.get(name.lower(), OwnLog() if name.lower() == OWN_LOG else None)


@dataclass(frozen=True, slots=True)
class UsedLog:
    """An access log that a Telemetry asks for; ``expression`` is in CEL, empty: every entry."""

    provider: str
    sink: LogSink
    expression: str = ""


class TagSource(StrEnum):
    """Where the value of a custom tag comes from."""

    LITERAL = "literal"
    ENVIRONMENT = "environment"
    HEADER = "header"
    FORMATTER = "formatter"


@dataclass(frozen=True, slots=True)
class SpanTag:
    """One of ``customTags``: a literal, the name of a variable or header, or a format."""

    source: TagSource
    value: str
    default: str = ""


@dataclass(frozen=True, slots=True)
class SpanSettings:
    """What a proxy traces on one side."""

    tracer: OtlpTracer | None = None
    """None: the collector of the rendering."""
    is_disabled: bool = False
    sampling_percent: float | None = None
    """None: as the rendering says."""
    tags: Mapping[str, SpanTag] = field(default_factory=dict)
    samples_by_request_id: bool = True
    has_istio_tags: bool = True
    propagates_context: bool = True


@dataclass(frozen=True, slots=True)
class SideTelemetry:
    """One side of a proxy. None: no Telemetry speaks of it, and the proxy does what it does without one."""

    logs: tuple[UsedLog, ...] | None = None
    """Empty: access logging is disabled."""
    spans: SpanSettings | None = None


@dataclass(frozen=True, slots=True)
class WorkloadTelemetry:
    """What holds for one workload."""

    server: SideTelemetry = SideTelemetry()
    client: SideTelemetry = SideTelemetry()

    @property
    def collectors(self) -> tuple[Collector, ...]:
        """Everybody whom the proxy tells something, each once."""
        found: list[Collector] = []
        for side in (self.server, self.client):
            sinks = [log.sink for log in side.logs or ()]
            found += [sink.collector for sink in sinks if isinstance(sink, TcpLogService | OtlpLog)]
            if side.spans and side.spans.tracer and not side.spans.is_disabled:
                found.append(side.spans.tracer.collector)
        return tuple(dict.fromkeys(found))

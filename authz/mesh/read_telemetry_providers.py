"""The providers of logs and spans among the ``extensionProviders`` of a MeshConfig, and which of them are defaults."""

from collections.abc import Callable

from authz.core.attributes import Json
from authz.core.errors import Problem
from authz.documents.accessors import Part
from authz.documents.reading import Document, Kind, Mapping, Scalar, Sequence
from authz.documents.schema import Notes, given
from authz.mesh.format_commands import checked_format
from authz.mesh.kind_parts import CODES
from authz.mesh.quantities import read_boolean, read_duration
from authz.mesh.telemetry_kind import (
    Collector,
    FileLog,
    LogFormat,
    NoUse,
    OtlpLog,
    OtlpTracer,
    OwnLog,
    TcpLogService,
    TelemetryProvider,
    TelemetryProviders,
)
from authz.mesh.value_parts import is_host
from authz.policy.mesh_wrappings import search

_WHOLE_PATH = "its entries hold the path with the query, in which a token may stand; use `envoyOtelAls`"
_OTHERS = {
    "envoyHttpAls": _WHOLE_PATH,
    **dict.fromkeys(
        ("zipkin", "lightstep", "datadog", "stackdriver", "opencensus", "skywalking"),
        "spans are told by OTLP only; use `opentelemetry`, which all of these systems take",
    ),
    "prometheus": "Istio's metrics are made by a filter that only its own Envoy has",
    "envoyExtAuthzGrpc": "it authorizes, and neither logs nor traces",
    "envoyExtAuthzHttp": "it authorizes, and neither logs nor traces",
    "sds": "it gives secrets, and neither logs nor traces",
}
"""Types of providers that a Telemetry cannot use here, with the reason."""


def read_telemetry_providers(document: Document, data: bytes, problems: list[Problem]) -> TelemetryProviders:
    """
    Read the providers of the MeshConfig that a document holds; what is wrong is added to ``problems``.

    ``data`` is the file, in which YAML within YAML is located.
    """
    for found in search((document,), data, []):  # what is wrong around it was noted when the settings were read
        if isinstance(found.config, Mapping):
            notes = Notes(found.document, problems, found.resource)
            return _providers(Part(found.config, found.document.prefix, notes, CODES))
    return TelemetryProviders()


def _providers(config: Part) -> TelemetryProviders:
    named: dict[str, TelemetryProvider] = {}
    for item in config.parts("extensionProviders") if _is_list(config) else ():
        name = _text(item, "name").lower()
        for kind, read in _READERS.items():
            if (part := item.part(kind)) is not None:
                named.setdefault(name, read(part))
        for kind, reason in _OTHERS.items():
            if item.has(kind):
                named.setdefault(name, NoUse(kind, reason))
    defaults = config.part("defaultProviders")
    if defaults is None:
        return TelemetryProviders(named)
    defaults.only("tracing", "metrics", "accessLogging")
    tracers = defaults.texts("tracing")
    defaults.texts("metrics")
    logs = defaults.texts("accessLogging")
    found = TelemetryProviders(named, logs, tracers[0] if tracers else "")
    for field, names, kinds in (("accessLogging", logs, _LOGS), ("tracing", tracers[:1], (OtlpTracer,))):
        for name in names:
            if not isinstance(found.find(name), kinds):
                note_provider(defaults, field, name, found.find(name), field)
    return found


_LOGS = (OwnLog, FileLog, TcpLogService, OtlpLog)


def note_provider(part: Part, field: str, name: str, found: TelemetryProvider | None, use: str) -> None:
    """Note that a provider cannot be used: it is not there, or it is of another sort."""
    if found is None:
        advice = "add it to `extensionProviders` of MeshConfig"
        part.note("ME-4", f"no provider is called `{name}`", field, advice)
    elif isinstance(found, NoUse):
        part.note("ME-6", f"the provider `{name}` (`{found.kind}`) is not done here: {found.reason}", field)
    else:
        part.note("ME-4", f"the provider `{name}` is not one for `{use}`", field)


def _is_list(config: Part) -> bool:
    """Whether there is a list; if not, it was noted when the settings were read."""
    return isinstance(given(config.node, "extensionProviders"), Sequence)


def _text(part: Part, field: str) -> str:
    """A text, without noting again what the reader of the settings notes."""
    node = given(part.node, field)
    return node.value if isinstance(node, Scalar) and node.kind is Kind.TEXT else ""


# --- providers -------------------------------------------------------------------------------------------------------


def _file(part: Part) -> FileLog:
    part.only("path", "logFormat", "omitEmptyValues")
    path = part.text("path") or "/dev/stdout"
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        advice = "the state directory holds the proxies' own logs: write an absolute path"
        part.note("ME-1", f"`{path}` is not the absolute path of a file", "path", advice)
    return FileLog(path, _format(part), bool(read_boolean(part, "omitEmptyValues")))


def _tcp(part: Part) -> TcpLogService:
    part.only("service", "port", "logName", "filterStateObjectsToLog")
    _no_filter_state(part)
    return TcpLogService(_collector(part), part.text("logName"))


def _otlp_log(part: Part) -> OtlpLog:
    part.only("service", "port", "logName", "logFormat")
    return OtlpLog(_collector(part), part.text("logName"), _format(part))


def _tracer(part: Part) -> OtlpTracer:
    part.only(
        *("service", "port", "maxTagLength", "http", "grpc", "resourceDetectors", "serviceAttributeEnrichment"),
        "dynatraceSampler",
    )
    for field, advice in (
        ("http", "spans are told by gRPC: leave it out, and give the collector's port for gRPC"),
        ("resourceDetectors", "leave it out"),
        ("serviceAttributeEnrichment", "leave it out: a span says its workload and namespace"),
        ("dynatraceSampler", "write `randomSamplingPercentage`"),
    ):
        if part.has(field):
            part.note("ME-6", f"`{field}` of a provider of spans is not done here", field, advice)
    timeout = None
    if grpc := part.part("grpc"):
        grpc.only("timeout", "initialMetadata")
        if grpc.has("initialMetadata"):
            message = "`initialMetadata` is not done here: it would put a collector's credential into a rendered file"
            grpc.note("ME-6", message, "initialMetadata", "let a collector on this machine add it")
        timeout = read_duration(grpc, "timeout")
    return OtlpTracer(_collector(part), part.number("maxTagLength", 0), timeout)


_READERS: dict[str, Callable[[Part], TelemetryProvider]] = {
    "envoyFileAccessLog": _file,
    "envoyTcpAls": _tcp,
    "envoyOtelAls": _otlp_log,
    "opentelemetry": _tracer,
}


# --- values ----------------------------------------------------------------------------------------------------------


def _collector(part: Part) -> Collector:
    host = part.text("service", required=True).rpartition("/")[2]
    if part.has("service") and not is_host(host, wildcard=False):
        part.note("ME-1", f"`{host}` is not a host", "service", "write `[<namespace>/]<host name>`, or an IP address")
    return Collector(host, part.port("port", required=True))


def _no_filter_state(part: Part) -> None:
    if part.has("filterStateObjectsToLog"):
        message = "`filterStateObjectsToLog` is not done here: what filters say to each other is of this rendering only"
        part.note("ME-6", message, "filterStateObjectsToLog", "leave it out")


def _format(part: Part) -> LogFormat:
    written = part.part("logFormat")
    if written is None:
        return LogFormat()
    written.only("text", "labels")
    labels = written.part("labels")
    if written.has("text") and labels is not None and part.path.endswith("envoyFileAccessLog"):
        written.note("ME-1", "`text` and `labels` exclude each other", "labels")
    text = _checked(written, "text", written.text("text"))
    made = {key: _label(labels, key) for key in labels.node.entries} if labels else {}
    return LogFormat(text, made)


def _label(labels: Part, key: str) -> Json:
    """A value of a JSON format: a text with commands, or a mapping of such."""
    node = labels.node.entries[key]
    if isinstance(node, Mapping):
        below = labels.part(key)
        return {name: _label(below, name) for name in node.entries} if below else {}
    return _checked(labels, key, labels.text(key))


def _checked(part: Part, field: str, text: str) -> str:
    made, faults = checked_format(text)
    for fault in faults:
        part.note(fault.code, fault.message, field, fault.advice)
    return made

"""
Every field of a Telemetry in Istio's API (``value_parts.ISTIO_API``), by message, and why some are not done here.

The table is complete, which a test holds against Istio's own definition; the documentation is generated from what the
reader says.
"""

from authz.documents.accessors import Part
from authz.mesh.value_parts import only_fields

_METRICS = (
    "Istio's metrics are made by a filter that only its own Envoy has; a stock Envoy counts by itself, and "
    "`authz serve` counts decisions by workload"
)
TELEMETRY_FIELDS: dict[str, dict[str, str]] = {
    "Telemetry": dict.fromkeys(("selector", "targetRef", "targetRefs", "tracing", "metrics", "accessLogging"), ""),
    "WorkloadSelector": {"matchLabels": ""},
    "PolicyTargetReference": dict.fromkeys(("group", "kind", "name", "namespace"), ""),
    "Tracing": dict.fromkeys(
        (
            *("match", "providers", "randomSamplingPercentage", "disableSpanReporting", "customTags"),
            *("useRequestIdForTraceSampling", "enableIstioTags", "disableContextPropagation"),
        ),
        "",
    ),
    "TracingSelector": {"mode": ""},
    "CustomTag": dict.fromkeys(("literal", "environment", "header", "formatter"), ""),
    "Literal": {"value": ""},
    "Environment": dict.fromkeys(("name", "defaultValue"), ""),
    "RequestHeader": dict.fromkeys(("name", "defaultValue"), ""),
    "Formatter": {"value": ""},
    "ProviderRef": {"name": ""},
    "Metrics": {"providers": "", "overrides": "", "reportingInterval": _METRICS},
    "MetricsOverrides": {"match": "", "disabled": "", "tagOverrides": _METRICS},
    "MetricSelector": dict.fromkeys(("metric", "customMetric", "mode"), ""),
    "TagOverride": {"operation": _METRICS, "value": _METRICS},
    "AccessLogging": dict.fromkeys(("match", "providers", "disabled", "filter"), ""),
    "LogSelector": {"mode": ""},
    "Filter": {"expression": ""},
}
"""Message, field, and the reason of ``ME-6`` where it is not done; an empty reason means that it is."""
NO_METRICS = _METRICS
"""Why a metric cannot be had or changed; that it is not there can."""


def only_telemetry_fields(part: Part, message: str) -> None:
    """Note every field that Istio's API does not have (``ME-2``), and those that are not done, with the reason."""
    only_fields(part, TELEMETRY_FIELDS[message])

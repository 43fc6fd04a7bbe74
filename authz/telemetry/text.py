"""
Prometheus' text form, for callers with a few figures and no registry: the authority, and ``authz mtls drift``.

The client library would add ``_total`` to istiod's counters, which dashboards and alerts know without it.
"""

from collections.abc import Iterator, Mapping

from authz.telemetry.counters import Labels
from authz.telemetry.names import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metric_lines(metric: Metric, values: Mapping[Labels, float] | float) -> Iterator[str]:
    """
    Write one metric with its help and type; zeros too, numbers without a fraction.

    Args:
        metric: its labels name the parts of the keys.
        values: by the values of the labels, in their order; a number for a metric without labels.
    """
    yield f"# HELP {metric.name} {metric.help}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for labels, value in (values if isinstance(values, Mapping) else {(): values}).items():
        pairs = ",".join(f'{name}="{_escaped(text)}"' for name, text in zip(metric.labels, labels, strict=True))
        yield f"{metric.name}{{{pairs}}} {value:.0f}" if labels else f"{metric.name} {value:.0f}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

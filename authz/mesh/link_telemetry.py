"""
Telemetries tied to workloads: selection, order and merging as in istiod, file ``pilot/pkg/model/telemetry.go``.

For a workload hold: the first Telemetry for all of the root namespace, the first for all of its own namespace, and
every one there that selects it, each over those before it. *First* is by age, then by name; the others for all are
never used, which is a warning here. Fields of spans are inherited one by one, tags as a whole. Providers of logs are
not merged: the last Telemetry that names some says which are used at all.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from authz.core.errors import Severity
from authz.core.resources import GATEWAY_NAME_LABEL
from authz.mesh.mesh_documents import LogRule, SpanRule, Written, WrittenTelemetry
from authz.mesh.nouns import MeshWorkload
from authz.mesh.read_telemetry_providers import note_provider
from authz.mesh.telemetry_kind import (
    FileLog,
    OtlpLog,
    OtlpTracer,
    OwnLog,
    SideTelemetry,
    SpanSettings,
    TcpLogService,
    TelemetryMode,
    TelemetryProviders,
    UsedLog,
    WorkloadTelemetry,
)

T = TypeVar("T")
_OTHERS = "Istio uses the oldest one, then the first by name"


def sorted_telemetries(written: Written, workloads: Sequence[MeshWorkload]) -> tuple[WrittenTelemetry, ...]:
    """All Telemetries, the oldest first; what leads nowhere, stands twice, or is never used, is noted."""
    found = sorted(written.telemetries, key=lambda one: (one.created, one.name, one.namespace))
    first: dict[tuple[str, str], WrittenTelemetry] = {}
    wide: dict[str, WrittenTelemetry] = {}
    for one in found:
        other = first.setdefault((one.namespace, one.name), one)
        if other is not one:
            name = f"{one.namespace}/{one.name}"
            one.part.note("ME-5", f"the Telemetry `{name}` is given twice, first at {other.part.location}")
        elif one.is_wide and wide.setdefault(one.namespace, one) is not one:
            used = wide[one.namespace]
            message = f"it is never used: `{used.name}` is for all of `{one.namespace}` already"
            one.part.notes.add(Severity.WARNING, "ME-5", one.part.node, message, _OTHERS)
        _check(one, written, workloads)
    return tuple(found)


def _check(one: WrittenTelemetry, written: Written, workloads: Sequence[MeshWorkload]) -> None:
    root = written.config.root_namespace
    if not any(_selects(one, workload, root) for workload in workloads):
        advice = f"it selects in its own namespace; without a selector, in all of them if that is `{root}`"
        one.part.note("ME-4", "the Telemetry selects no workload", "spec", advice)
    providers = written.telemetry_providers
    for log in one.logs:
        for name, at in log.providers:
            found = providers.find(name)
            if not isinstance(found, OwnLog | FileLog | TcpLogService | OtlpLog):
                note_provider(at, "name", name, found, "accessLogging")
        if log.expression and not log.providers:
            message = "a filter without `providers` filters nothing, as in Istio"
            place = log.part.node.entries.get("filter", log.part.node)
            advice = "name the providers, for instance `providers: [{name: envoy}]`"
            log.part.notes.add(Severity.WARNING, "ME-3", place, message, advice)
    for span in one.spans:
        for name, at in span.providers[:1]:
            found = providers.find(name)
            if not isinstance(found, OtlpTracer):
                note_provider(at, "name", name, found, "tracing")


def _selects(one: WrittenTelemetry, workload: MeshWorkload, root: str) -> bool:
    if one.is_wide:
        return one.namespace in (workload.namespace, root)
    if one.namespace != workload.namespace:
        return False
    if one.gateways is not None:
        return workload.labels.get(GATEWAY_NAME_LABEL) in one.gateways
    return one.labels.items() <= workload.labels.items()


def _applicable(
    workload: MeshWorkload, telemetries: Sequence[WrittenTelemetry], root: str
) -> Iterator[WrittenTelemetry]:
    for namespace in dict.fromkeys((root, workload.namespace)):
        yield from [one for one in telemetries if one.is_wide and one.namespace == namespace][:1]
    yield from (one for one in telemetries if not one.is_wide and _selects(one, workload, root))


def telemetry_of(
    workload: MeshWorkload, telemetries: Sequence[WrittenTelemetry], written: Written
) -> WorkloadTelemetry:
    """What holds for a workload; ``telemetries`` are sorted."""
    found = list(_applicable(workload, telemetries, written.config.root_namespace))
    providers = written.telemetry_providers
    logs = [one.logs for one in found if one.logs]
    spans = [rule for one in found for rule in one.spans]

    def side(mode: TelemetryMode) -> SideTelemetry:
        return SideTelemetry(_logs(logs, mode, providers), _spans(spans, mode, providers))

    return WorkloadTelemetry(side(TelemetryMode.SERVER), side(TelemetryMode.CLIENT))


def _holds(mode: TelemetryMode, side: TelemetryMode) -> bool:
    return mode in (TelemetryMode.CLIENT_AND_SERVER, side)


def _logs(
    levels: list[tuple[LogRule, ...]], side: TelemetryMode, providers: TelemetryProviders
) -> tuple[UsedLog, ...] | None:
    """The logs of one side by the name of the provider; None where no Telemetry speaks of it."""
    if not levels:
        default = dict.fromkeys(providers.default_logs, "")
        return tuple(_used(sorted(default.items()), providers)) if default else None
    used = set(providers.inherited_logs)
    filters: dict[str, str] = {}
    for rules in levels:
        named = {name: rule.expression for rule in rules if _holds(rule.mode, side) for name, _ in rule.providers}
        filters |= named
        if named:
            used = set(named)
    found: dict[str, str | None] = {}
    inherited = providers.inherited_logs
    for rule in (rule for rules in levels for rule in rules):
        inherited = tuple(name for name, _ in rule.providers) or inherited
        for name in inherited:
            if name in used and _holds(rule.mode, side):
                found[name] = None if rule.is_disabled else filters.get(name, "")
    if not found:
        return None
    return tuple(_used(sorted(found.items()), providers))


def _used(found: Iterable[tuple[str, str | None]], providers: TelemetryProviders) -> Iterator[UsedLog]:
    for name, expression in found:
        sink = providers.find(name)
        if expression is not None and isinstance(sink, OwnLog | FileLog | TcpLogService | OtlpLog):
            yield UsedLog(name, sink, expression)


def _spans(rules: list[SpanRule], side: TelemetryMode, providers: TelemetryProviders) -> SpanSettings | None:
    """The spans of one side; None where neither a Telemetry nor a default provider speaks of them."""
    default = providers.find(providers.default_tracer) if providers.default_tracer else None
    if not rules and default is None:
        return None
    found = SpanSettings(default if isinstance(default, OtlpTracer) else None)
    for rule in rules:
        if _holds(rule.mode, side):
            found = _over(found, rule, providers)
    return found


def _over(below: SpanSettings, rule: SpanRule, providers: TelemetryProviders) -> SpanSettings:
    """What a rule says, and else what was said before it."""

    tracer = providers.find(rule.providers[0][0]) if rule.providers else None
    return replace(
        below,
        tracer=tracer if isinstance(tracer, OtlpTracer) else below.tracer,
        is_disabled=_chosen(rule.is_disabled, below.is_disabled),
        sampling_percent=_chosen(rule.sampling_percent, below.sampling_percent),
        tags=_chosen(rule.tags, below.tags),
        samples_by_request_id=_chosen(rule.samples_by_request_id, below.samples_by_request_id),
        has_istio_tags=_chosen(rule.has_istio_tags, below.has_istio_tags),
        propagates_context=below.propagates_context if rule.is_silent is None else not rule.is_silent,
    )


def _chosen(written: T | None, inherited: T) -> T:
    return inherited if written is None else written

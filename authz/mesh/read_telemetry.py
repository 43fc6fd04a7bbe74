"""The reader of Telemetry: whom it selects, what it says of access logs and spans, and why metrics are not done."""

from authz.documents.accessors import Part
from authz.documents.reading import Mapping
from authz.documents.schema import describe, given
from authz.mesh.cel_syntax import cel_fault
from authz.mesh.format_commands import checked_format, header_faults, is_header, is_secret_header
from authz.mesh.kind_parts import read_created, read_metadata, read_spec
from authz.mesh.mesh_documents import LogRule, SpanRule, Written, WrittenTelemetry
from authz.mesh.quantities import read_boolean, read_decimal
from authz.mesh.telemetry_fields import NO_METRICS, only_telemetry_fields
from authz.mesh.telemetry_kind import SpanTag, TagSource, TelemetryMode

_GATEWAYS = "gateway.networking.k8s.io"
_OWN_TAGS = frozenset({"http.url"})
"""Tags that a proxy sets so that they tell no token; a custom tag would take their place."""


def read_telemetry(part: Part, written: Written) -> None:
    """Read what the proxies of some workloads log and trace."""
    name, namespace, _ = read_metadata(part)
    spec = read_spec(part)
    only_telemetry_fields(spec, "Telemetry")
    for metrics in spec.parts("metrics"):
        _check_metrics(metrics)
    labels, gateways = _target(spec)
    telemetry = WrittenTelemetry(
        name=name,
        namespace=namespace,
        created=read_created(part),
        labels=labels,
        gateways=gateways,
        logs=tuple(_log_rule(one) for one in spec.parts("accessLogging")),
        spans=tuple(_span_rule(one) for one in spec.parts("tracing")),
        part=part,
    )
    written.telemetries.append(telemetry)


# --- whom it selects -------------------------------------------------------------------------------------------------


def _target(spec: Part) -> tuple[dict[str, str], tuple[str, ...] | None]:
    """Labels, and the names of the gateways that are targets; None without targets."""
    ways = [name for name in ("selector", "targetRef", "targetRefs") if spec.has(name)]
    if len(ways) > 1:
        names = " and ".join(f"`{name}`" for name in ways)
        spec.note("ME-1", f"{names} are both given, only one is allowed", ways[1])
    labels: dict[str, str] = {}
    if selector := spec.part("selector"):
        only_telemetry_fields(selector, "WorkloadSelector")
        labels = selector.strings("matchLabels")
        if any("*" in key + value for key, value in labels.items()):
            selector.note("ME-1", "labels are compared exactly, a star selects nothing", "matchLabels")
    one = spec.part("targetRef")
    references = [*([one] if one else []), *spec.parts("targetRefs")]
    return labels, tuple(_gateway(reference) for reference in references) if references else None


def _gateway(reference: Part) -> str:
    only_telemetry_fields(reference, "PolicyTargetReference")
    kind, group = reference.text("kind", required=True), reference.text("group")
    if reference.text("namespace"):
        reference.note("ME-1", "a target in another namespace is not allowed", "namespace", "remove `namespace`")
    if kind and (kind, group) != ("Gateway", _GATEWAYS):
        message = f"targets of the kind `{kind}` and the group `{group}` are not supported here"
        advice = f"select by labels, or write kind Gateway and group {_GATEWAYS}"
        reference.note("ME-6", message, "kind", advice)
    return reference.text("name", required=True)


def _mode(rule: Part, message: str) -> TelemetryMode:
    match = rule.part("match")
    if match is None:
        return TelemetryMode.CLIENT_AND_SERVER
    only_telemetry_fields(match, message)
    return match.choice("mode", TelemetryMode, TelemetryMode.CLIENT_AND_SERVER)


def _providers(rule: Part) -> tuple[tuple[str, Part], ...]:
    found = []
    for provider in rule.parts("providers"):
        only_telemetry_fields(provider, "ProviderRef")
        name = provider.text("name", required=True)
        if name:
            found.append((name, provider))
        elif provider.has("name"):
            provider.note("ME-1", "the name of a provider is empty", "name")
    return tuple(found)


# --- access logs -----------------------------------------------------------------------------------------------------


def _log_rule(rule: Part) -> LogRule:
    only_telemetry_fields(rule, "AccessLogging")
    return LogRule(
        mode=_mode(rule, "LogSelector"),
        providers=_providers(rule),
        is_disabled=bool(read_boolean(rule, "disabled")),
        expression=_expression(rule),
        part=rule,
    )


def _expression(rule: Part) -> str:
    chosen = rule.part("filter")
    if chosen is None:
        return ""
    only_telemetry_fields(chosen, "Filter")
    expression = chosen.text("expression", required=True)
    fault = cel_fault(expression) if chosen.has("expression") else None
    if fault is not None:
        place = f"at character {fault.offset + 1}"
        chosen.note("ME-1", f"the expression is wrong {place}: {fault.message}", "expression", fault.advice)
    return expression


# --- spans -----------------------------------------------------------------------------------------------------------


def _span_rule(rule: Part) -> SpanRule:
    only_telemetry_fields(rule, "Tracing")
    providers = _providers(rule)
    if len(providers) > 1:
        rule.note("ME-6", "a proxy tells its spans to one provider", "providers", "name one; Istio takes the first")
    return SpanRule(
        mode=_mode(rule, "TracingSelector"),
        providers=providers,
        is_disabled=read_boolean(rule, "disableSpanReporting"),
        sampling_percent=read_decimal(rule, "randomSamplingPercentage", most=100),
        tags=_tags(rule),
        samples_by_request_id=read_boolean(rule, "useRequestIdForTraceSampling"),
        has_istio_tags=read_boolean(rule, "enableIstioTags"),
        is_silent=read_boolean(rule, "disableContextPropagation"),
        part=rule,
    )


def _tags(rule: Part) -> dict[str, SpanTag] | None:
    """The tags by name; None where nothing is written, since tags are inherited as a whole."""
    tags = rule.part("customTags")
    if tags is None:
        return None
    found = {}
    for name in tags.node.entries:
        if not isinstance(given(tags.node, name), Mapping):
            node = given(tags.node, name) or tags.node
            tags.note("ME-1", f"expected a mapping, got {describe(node)}", name)
            continue
        if name in _OWN_TAGS or not name:
            message = f"the tag `{name}` is the proxy's own, without what may be a token"
            tags.note("ME-6" if name else "ME-1", message if name else "a tag without a name", name, "choose another")
        tag = tags.part(name)
        if tag is not None and (value := _tag(tag)) is not None:
            found[name] = value
    return found


def _tag(tag: Part) -> SpanTag | None:
    only_telemetry_fields(tag, "CustomTag")
    sources = [source for source in TagSource if tag.has(source)]
    if len(sources) != 1:
        known = ", ".join(f"`{source}`" for source in TagSource)
        tag.note("ME-3" if not sources else "ME-1", f"a tag has one of {known}", sources[1] if sources else "")
        return None
    source = sources[0]
    part = tag.part(source)
    if part is None:
        return None
    message = {"header": "RequestHeader"}.get(source, source.capitalize())
    only_telemetry_fields(part, message)
    field = "value" if source in (TagSource.LITERAL, TagSource.FORMATTER) else "name"
    value = part.text(field, required=True)
    if not value and part.has(field):
        part.note("ME-1", f"`{field}` is empty", field)
    if source is TagSource.HEADER and value and not is_header(value):
        part.note("ME-1", f"`{value}` is not the name of a header", field)
    elif source is TagSource.HEADER and is_secret_header(value):
        fault = header_faults(value)
        part.note(fault.code, fault.message, field, fault.advice)
    if source is TagSource.FORMATTER:
        value, faults = checked_format(value)
        for fault in faults:
            part.note(fault.code, fault.message, field, fault.advice)
    default = part.text("defaultValue") if field == "name" else ""
    return SpanTag(source, value, default)


# --- metrics ---------------------------------------------------------------------------------------------------------


def _check_metrics(metrics: Part) -> None:
    """A metric of Istio's that is disabled is not there, as told; anything else cannot be done."""
    only_telemetry_fields(metrics, "Metrics")
    _providers(metrics)
    overrides = metrics.parts("overrides")
    for override in overrides:
        only_telemetry_fields(override, "MetricsOverrides")
        if match := override.part("match"):
            only_telemetry_fields(match, "MetricSelector")
            match.choice("mode", TelemetryMode, TelemetryMode.CLIENT_AND_SERVER)
            if match.has("metric") and match.has("customMetric"):
                match.note("ME-1", "`metric` and `customMetric` exclude each other", "customMetric")
            match.text("metric")
            match.text("customMetric")
        if tags := override.part("tagOverrides"):
            for name in tags.node.entries:
                if isinstance(given(tags.node, name), Mapping) and (tag := tags.part(name)):
                    only_telemetry_fields(tag, "TagOverride")
        if read_boolean(override, "disabled") is not True and not override.has("tagOverrides"):
            override.note("ME-6", f"a metric can only be disabled here: {NO_METRICS}", "disabled", "write true")
    if not overrides:
        metrics.note("ME-6", f"metrics cannot be had here: {NO_METRICS}", "", "remove it from `metrics`")

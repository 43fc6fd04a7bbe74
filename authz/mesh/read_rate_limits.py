"""
The kind BackendTrafficPolicy of Envoy Gateway: its ``rateLimit``, every mistake with its place.

Fields that Envoy Gateway knows and that are not done here are problems by name (ME-6), with the reason.
"""

from authz.core.decision import RuleReference
from authz.documents.accessors import Part
from authz.mesh.kind_parts import read_metadata, read_spec
from authz.mesh.mesh_documents import Written
from authz.mesh.quantities import read_boolean
from authz.mesh.rate_limits import (
    AddressSelector,
    LimitScope,
    LimitUnit,
    RateLimitPolicy,
    RateLimitRule,
    RateLimitTarget,
)
from authz.mesh.read_limit_selectors import read_selectors

GROUP = "networking.istio.io"
TARGET_KINDS = ("WorkloadEntry", "ServiceEntry", "Gateway")
_TRAFFIC = "traffic is described by VirtualService and DestinationRule here"
NOT_DONE = {
    "targetRef": "it is the old form of `targetRefs`: write a list with this one entry",
    "mergeType": "all policies of a workload hold together here, there is nothing to merge",
    **dict.fromkeys(("loadBalancer", "circuitBreaker", "retry", "timeout", "faultInjection", "healthCheck"), _TRAFFIC),
    **dict.fromkeys(("tcpKeepalive", "proxyProtocol", "connection", "dns", "http2", "useClientProtocol"), _TRAFFIC),
    **dict.fromkeys(("compression", "compressor", "decompressor", "responseOverride", "requestBuffer"), _TRAFFIC),
    **dict.fromkeys(("httpUpgrade", "telemetry", "bandwidthLimit", "admissionControl", "routingType"), _TRAFFIC),
}
"""Fields of Envoy Gateway's ``spec`` beside ``rateLimit``, and why they are refused."""
MOST_RULES = {LimitScope.GLOBAL: 128, LimitScope.LOCAL: 16}
"""Envoy Gateway's own limits."""
MOST_COST = 1_000_000_000


def read_traffic_policy(part: Part, written: Written) -> None:
    """The rate limits of some workloads."""
    name, namespace, _ = read_metadata(part)
    spec = read_spec(part)
    for field, reason in NOT_DONE.items():
        if spec.has(field):
            spec.note("ME-6", f"`{field}` of a BackendTrafficPolicy is not done here", field, reason)
    spec.only("targetRefs", "targetSelectors", "rateLimit", *NOT_DONE)
    targets = [_by_name(ref) for ref in spec.parts("targetRefs")]
    targets += [_by_labels(selector) for selector in spec.parts("targetSelectors")]
    if not targets:
        spec.note("ME-3", "neither `targetRefs` nor `targetSelectors` says whose requests are limited", "targetRefs")
    limit = spec.part("rateLimit", required=True)
    rules = _rate_limit(limit, namespace, name) if limit else ()
    written.rate_limits.append((RateLimitPolicy(name, namespace, tuple(targets), rules), spec))


def _by_name(ref: Part) -> RateLimitTarget:
    ref.only("group", "kind", "name", "sectionName")
    if ref.has("sectionName"):
        ref.note("ME-6", "a limit is for a whole workload or gateway", "sectionName", "choose requests by `path`")
    return RateLimitTarget(_kind(ref), ref.text("name", required=True))


def _by_labels(selector: Part) -> RateLimitTarget:
    selector.only("group", "kind", "matchLabels", "matchExpressions")
    if selector.has("matchExpressions"):
        selector.note("ME-6", "`matchExpressions` are not done here", "matchExpressions", "write `matchLabels`")
    kind = _kind(selector)
    if kind == "ServiceEntry":
        selector.note("ME-6", "a ServiceEntry is chosen by its name", "kind", "write `targetRefs`")
    labels = selector.strings("matchLabels")
    if not labels and not selector.has("matchExpressions"):
        selector.note("ME-3", "`matchLabels` is missing", "matchLabels", "without labels nobody is meant")
    return RateLimitTarget(kind, labels=frozenset(labels.items()))


def _kind(target: Part) -> str:
    kind = target.text("kind", required=True)
    group = target.text("group", GROUP)
    if group != GROUP:
        target.note("ME-6", f"resources of the group `{group}` are not described here", "group", f"write `{GROUP}`")
    elif kind and kind not in TARGET_KINDS:
        help_text = f"one of {', '.join(TARGET_KINDS)}; a route is chosen by `path` and `headers`"
        target.note("ME-6", f"a limit cannot be attached to the kind `{kind}`", "kind", help_text)
    return kind


def _rate_limit(limit: Part, namespace: str, policy: str) -> tuple[RateLimitRule, ...]:
    limit.only("type", "global", "local")
    written = limit.text("type")
    if written not in ("", "Global", "Local"):
        limit.note("ME-1", f"`{written}` is not one of Global, Local", "type")
    found: list[RateLimitRule] = []
    for scope in LimitScope:
        part = limit.part(scope)
        if part is not None:
            found += _rules(part, scope, namespace, policy)
    needed = written.lower() or "global"
    if not limit.has(needed) and (written or not limit.has("local")):
        limit.note("ME-3", f"`{needed}` is missing", needed)
    return tuple(found)


def _rules(part: Part, scope: LimitScope, namespace: str, policy: str) -> list[RateLimitRule]:
    is_global = scope is LimitScope.GLOBAL
    part.only("rules", *(("failClosed",) if is_global else ()))
    fails_closed = read_boolean(part, "failClosed") is True
    rules = part.parts("rules")
    if not rules:
        part.note("ME-3", "there is no rule", "rules")
    if len(rules) > MOST_RULES[scope]:
        part.note("ME-1", f"more than {MOST_RULES[scope]} rules", "rules", "write several policies")
    found = []
    for index, rule in enumerate(rules):
        rule.only("clientSelectors", "limit", "cost", "shared", "shadowMode")
        shadow = read_boolean(rule, "shadowMode") is True
        if shadow and not is_global:
            rule.note("ME-6", "`shadowMode` is for global limits, as in Envoy Gateway", "shadowMode")
        name = f"ns[{namespace}]-limit[{policy}]-{scope}[{index}]"
        requests, unit = _limit(rule)
        if not requests and not is_global and rule.has("limit"):
            message = "a proxy that counts for itself lets at least one request pass"
            rule.note("ME-6", message, "limit", "refuse them by an AuthorizationPolicy")
        one = RateLimitRule(
            RuleReference(namespace, policy, index, name, rule.location),
            scope,
            requests,
            unit,
            tuple(one for selector in rule.parts("clientSelectors") for one in read_selectors(selector, scope)),
            cost=_cost(rule, scope),
            is_shared=read_boolean(rule, "shared") is True,
            is_shadow=shadow,
            fails_closed=fails_closed,
        )
        _check_together(rule, one)
        found.append(one)
    return found


def _check_together(rule: Part, found: RateLimitRule) -> None:
    """What each selector allows for itself, but not all together."""
    addresses = [one for one in found.selectors if isinstance(one, AddressSelector)]
    if len(addresses) > 1:
        rule.note("ME-6", "a rule looks at one `sourceCIDR`", "clientSelectors", "write the narrower one, or two rules")
    if found.scope is LimitScope.LOCAL and found.is_shared:
        message = "a proxy counts for itself, so nothing is shared between targets"
        rule.note("ME-6", message, "shared", "write it below `global`")


def _limit(rule: Part) -> tuple[int, LimitUnit]:
    limit = rule.part("limit", required=True)
    if limit is None:
        return 0, LimitUnit.SECOND
    limit.only("requests", "unit")
    for field in ("requests", "unit"):
        if not limit.has(field):
            limit.note("ME-3", f"`{field}` is missing", field)
    return limit.number("requests", 0), limit.choice("unit", LimitUnit, LimitUnit.SECOND)


def _cost(rule: Part, scope: LimitScope) -> int:
    cost = rule.part("cost")
    if cost is None:
        return 1
    cost.only("request", "response")
    if cost.has("response"):
        cost.note("ME-6", "what a response costs is not counted here", "response", "write `request`")
    request = cost.part("request")
    if request is None:
        return 1
    request.only("from", "number", "metadata")
    source = request.text("from", required=True)
    if source == "Metadata" or request.has("metadata"):
        request.note("ME-6", "a cost from metadata is not done here", "from", "write `from: Number`")
    elif source not in ("", "Number"):
        request.note("ME-1", f"`{source}` is not one of Number, Metadata", "from")
    number = request.number("number", 1)
    if scope is LimitScope.LOCAL and number == 0:
        request.note("ME-6", "a proxy that counts for itself cannot look without counting", "number", "write 1 or more")
    return min(number, MOST_COST)

"""
The security graph as JSON in the shape of Kiali's graph API, with ``policy`` data beside Kiali's own.

Kiali: ``GET /api/namespaces/graph`` answers ``{timestamp, duration, graphType, elements: {nodes, edges}}``; numbers in
``rates`` are texts with two decimals, ``isMTLS`` is the percentage as text. What we add is documented in docs/page.md.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping

from authz.analysis.graph.graph import (
    GraphEdge,
    GraphNode,
    Grouping,
    NodeKey,
    SecurityGraph,
    app_of,
    version_of,
)
from authz.analysis.graph.permitted import is_open
from authz.analysis.offline.as_json import rule_json
from authz.core.attributes import Json, Workload
from authz.core.decision import Effect, RuleReference
from authz.core.engine import PoliciesOf, WorkloadPolicies
from authz.core.resources import Action

CLUSTER = "authz"
"""Kiali's nodes name their cluster; a mesh of plain Envoys has but one."""


def graph_json(
    graph: SecurityGraph,
    policies_of: PoliciesOf,
    rules: Mapping[str, RuleReference],
    *,
    now: float,
    window_seconds: float,
    grouping: Grouping,
) -> dict[str, Json]:
    """
    Write a graph.

    Args:
        policies_of: the policies of a workload, for what a node says of itself.
        rules: rules in force by Istio's name; one that is gone is told by its name alone.
        window_seconds: how long the counts were collected.
    """
    edges: list[Json] = [{"data": _edge_json(edge, rules, window_seconds)} for edge in graph.edges]
    incoming: dict[NodeKey, list[GraphEdge]] = {}
    outgoing: dict[NodeKey, list[GraphEdge]] = {}
    for edge in graph.edges:
        outgoing.setdefault(edge.source, []).append(edge)
        incoming.setdefault(edge.target, []).append(edge)
    nodes: list[Json] = [
        {"data": _node_json(node, policies_of, incoming.get(key, ()), outgoing.get(key, ()), window_seconds)}
        for key, node in sorted(graph.nodes.items())
    ]
    return {
        "timestamp": int(now),
        "duration": int(window_seconds),
        "graphType": grouping.value,
        "elements": {"nodes": nodes, "edges": edges},
    }


def element_id(*parts: str) -> str:
    """A short name for a node or an edge, which does not change while the thing itself is the same."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def _rate(count: int, seconds: float) -> str:
    return f"{count / max(seconds, 1.0):.2f}"


def _node_json(
    node: GraphNode,
    policies_of: PoliciesOf,
    incoming: Iterable[GraphEdge],
    outgoing: Iterable[GraphEdge],
    window_seconds: float,
) -> dict[str, Json]:
    kind, namespace, name = node.key
    first = node.workloads[0] if node.workloads else None
    versions = sorted({version for workload in node.workloads if (version := version_of(workload))})
    data: dict[str, Json] = {
        "id": element_id(*node.key),
        "nodeType": {"account": "workload", "namespace": "box"}.get(kind, kind),
        "cluster": CLUSTER,
        "namespace": namespace or "unknown",
        "traffic": _node_traffic(incoming, outgoing, window_seconds),
    }
    if node.parent is not None:
        data["parent"] = element_id(*node.parent)
    if kind in ("box", "namespace"):
        data["isBox"] = "app" if kind == "box" else "namespace"
        data["app" if kind == "box" else "namespace"] = name
    if kind == "unknown":
        data["isInaccessible"] = True
    if kind in ("workload", "account"):
        data["workload"] = name
    if kind in ("service", "app"):
        data[kind] = name
    if first is not None:
        data["app"] = app_of(first)
        if versions:
            data["version"] = versions[0] if len(versions) == 1 else "*"
        if any(label == "istio" and value.endswith("gateway") for label, value in first.labels):
            data["isGateway"] = {"ingressInfo": {}} if "ingress" in dict(first.labels)["istio"] else {"egressInfo": {}}
    data["name"] = name or "outside"
    data["isOutside"] = kind in ("unknown", "account")
    if node.workloads:
        data["policy"] = _node_policy([policies_of(workload) for workload in node.workloads], node.workloads)
    return data


def _node_policy(found: list[WorkloadPolicies], workloads: list[Workload]) -> dict[str, Json]:
    applying = {(policy.namespace, policy.name): policy for policies in found for policy in policies.policies}
    counted = Counter(policy.action for policy in applying.values() if not policy.dry_run)
    return {
        "mtlsModes": [*sorted({policies.base_mode.value for policies in found})],
        "isOpen": any(is_open(policies) for policies in found),
        "actions": {action.value: counted.get(action, 0) for action in Action},
        "dryRun": sum(policy.dry_run for policy in applying.values()),
        "jwtRules": max((len(policies.jwt_rules) for policies in found), default=0),
        "policies": [f"{namespace}/{name}" for namespace, name in sorted(applying)],
        "serviceAccounts": [*sorted({workload.service_account for workload in workloads if workload.service_account})],
        "workloads": [*sorted({workload.name for workload in workloads if workload.name})],
    }


def _node_traffic(incoming: Iterable[GraphEdge], outgoing: Iterable[GraphEdge], seconds: float) -> list[Json]:
    rates: dict[str, Counter[str]] = {}
    for direction, edges in (("In", incoming), ("Out", outgoing)):
        for edge in edges:
            for outcome, count in edge.outcomes.items():
                found = rates.setdefault(outcome.protocol, Counter())
                found[f"{outcome.protocol}{direction}"] += count
                if outcome.status:
                    found[f"{outcome.protocol}{direction}{outcome.status // 100}xx"] += count
    return [
        {"protocol": protocol, "rates": {name: _rate(count, seconds) for name, count in sorted(found.items())}}
        for protocol, found in sorted(rates.items())
    ]


def _edge_json(edge: GraphEdge, rules: Mapping[str, RuleReference], seconds: float) -> dict[str, Json]:
    """Kiali has one protocol an edge: the one seen most; ``policy`` has them all."""
    source, target = element_id(*edge.source), element_id(*edge.target)
    allowed, denied = edge.total(Effect.ALLOW), edge.total(Effect.DENY)
    protocols = Counter({o.protocol: 0 for o in edge.outcomes})
    for outcome, count in edge.outcomes.items():
        protocols[outcome.protocol] += count
    data: dict[str, Json] = {"id": element_id(source, target), "source": source, "target": target}
    if edge.outcomes:
        data["isMTLS"] = f"{edge.mtls_percent:.0f}"
        protocol = protocols.most_common(1)[0][0]
        data["traffic"] = _edge_traffic(edge, protocol, seconds)
    named = [principal for principal, _ in edge.principals.most_common()] + sorted(edge.permitted)
    principal = next((principal for principal in named if principal), "")
    if principal:
        data["sourcePrincipal"] = f"spiffe://{principal}"
    data["policy"] = {
        "state": edge.state.value,
        "allowed": allowed,
        "denied": denied,
        "deniedPercent": round(100.0 * denied / (allowed + denied), 1) if denied else 0.0,
        "rate": round((allowed + denied) / max(seconds, 1.0), 3),
        "mtlsPercent": round(edge.mtls_percent, 1),
        "lastAt": edge.last_at or None,
        "protocols": [*sorted(protocols)],
        "principals": [
            {"principal": principal, "requests": edge.principals[principal], "permitted": principal in edge.permitted}
            for principal in sorted({*edge.principals, *edge.permitted}, key=lambda p: (-edge.principals[p], p))
        ],
        "rules": _rules_json(edge, rules),
        "permission": edge.permission or None,
        "permittedBy": [rule_json(rule) for _, rule in sorted(edge.permits.items())],
    }
    return data


def _edge_traffic(edge: GraphEdge, protocol: str, seconds: float) -> dict[str, Json]:
    total, denied = edge.total(), edge.total(Effect.DENY)
    rates: dict[str, Json] = {protocol: _rate(total, seconds)}
    responses: dict[str, Json] = {}
    statuses: Counter[int] = Counter()
    for outcome, count in edge.outcomes.items():
        if outcome.status:
            statuses[outcome.status] += count
    for hundreds in sorted({status // 100 for status in statuses}):
        count = sum(n for status, n in statuses.items() if status // 100 == hundreds)
        rates[f"{protocol}{hundreds}xx"] = _rate(count, seconds)
    for status, count in sorted(statuses.items()):
        responses[str(status)] = {"flags": {"UAEX": f"{100.0 * count / total:.1f}"}, "hosts": {}}
    if denied:
        rates[f"{protocol}PercentErr"] = f"{100.0 * denied / total:.1f}"
    if total > denied:
        responses["-"] = {"flags": {"-": f"{100.0 * (total - denied) / total:.1f}"}, "hosts": {}}
    return {"protocol": protocol, "rates": rates, "responses": responses}


def _rules_json(edge: GraphEdge, rules: Mapping[str, RuleReference]) -> list[Json]:
    """The rules that decided, most frequent first; a stage without a rule is named itself."""
    counted: Counter[tuple[str, str, str]] = Counter()
    for outcome, count in edge.outcomes.items():
        counted[(outcome.effect.value, outcome.stage, outcome.rule)] += count
    return [
        {
            "effect": effect,
            "stage": stage,
            "name": name or None,
            "rule": rule_json(rules.get(name)),
            "requests": count,
        }
        for (effect, stage, name), count in counted.most_common()
    ]

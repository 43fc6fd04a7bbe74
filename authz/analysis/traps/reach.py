"""Traps in what objects reach: those that nobody obeys, that another one outweighs, or that ask too little."""

from collections.abc import Callable, Iterator

from authz.analysis.traps.policy_set import HEADER, PolicySet, finding, rules_of, uses_of
from authz.core.attributes import Workload
from authz.core.catalog import CONDITION_KEYS, Voucher
from authz.core.errors import Problem
from authz.core.resources import (
    GATEWAY_NAME_LABEL,
    Action,
    AuthorizationPolicy,
    PeerAuthentication,
    RequestAuthentication,
    TargetRef,
)

_PORT, _SNI, _SOURCE_IP = (CONDITION_KEYS[key] for key in ("destination.port", "connection.sni", "source.ip"))


def _is_of(item: AuthorizationPolicy, word: str) -> bool:
    """Whether a selector or a target names a gateway of this sort: Istio's own labels say ``egressgateway``."""
    named = [*item.target.match_labels.values(), *(ref.name for ref in item.target.target_refs)]
    return any(word in value for value in named)


def _server_name_without_port(whole: PolicySet) -> Iterator[Problem]:
    """AN-18: an egress gateway's ALLOW rule rests on the server name at every port."""
    for policy, index, rule in rules_of(whole, Action.ALLOW):
        uses = list(uses_of(rule))
        sni = next((use for use in uses if use.attribute is _SNI and use.values), None)
        if sni is not None and _is_of(policy, "egress") and not any(u.attribute is _PORT and u.values for u in uses):
            yield finding(
                "AN-18",
                policy,
                "this ALLOW rule rests on the server name (SNI) at every port of the gateway, where the client may "
                "write any name and HTTP ports are routed by the host",
                "add the `ports` at which TLS is passed through",
                location=rule.location,
                path=f"spec.rules[{index}].{sni.path}",
            )


def _targets_nobody(whole: PolicySet) -> Iterator[Problem]:
    """AN-19: targetRefs that nobody obeys."""
    items: tuple[AuthorizationPolicy | RequestAuthentication, ...] = (
        *whole.policies,
        *whole.engine.resources.request_authentications,
    )
    for item in items:
        refs = item.target.target_refs
        if not refs or any(_may_obey(ref, item.metadata.namespace, whole.workloads) for ref in refs):
            continue
        names = ", ".join(f"{ref.kind} `{ref.name}`" for ref in refs)
        what = f"this {item.action} policy" if isinstance(item, AuthorizationPolicy) else "this object"
        yield finding(
            "AN-19",
            item,
            f"nobody obeys {what}: sidecars ignore targetRefs, and no gateway here is {names}",
            "give it a `selector` with the labels of the workloads",
            path="spec.targetRefs",
        )


def _may_obey(ref: TargetRef, namespace: str, workloads: tuple[Workload, ...]) -> bool:
    """Only a Gateway-API gateway of that name and namespace does (RE-16, RE-19); unknown workloads may be one."""
    if ref.kind != "Gateway":
        return False
    return not workloads or any(
        workload.namespace == namespace and dict(workload.labels).get(GATEWAY_NAME_LABEL) == ref.name
        for workload in workloads
    )


def _token_is_optional(whole: PolicySet) -> Iterator[Problem]:
    """AN-20: tokens are verified and nothing asks for one."""
    for item in whole.engine.resources.request_authentications:
        if not item.jwt_rules or item.target.target_refs or any(rule.presence == "REQUIRED" for rule in item.jwt_rules):
            continue
        if not any(_asks_for_token(policy, whole) for policy in whole.policies_with(item)):
            yield finding(
                "AN-20",
                item,
                "no policy asks for a token here, so requests without one are admitted (RA-3)",
                'add an ALLOW policy with `requestPrincipals: ["*"]`, or a DENY with `notRequestPrincipals: ["*"]`',
                path="spec.jwtRules",
            )


def _asks_for_token(policy: AuthorizationPolicy, whole: PolicySet) -> bool:
    if policy.action is Action.ALLOW and not policy.rules:
        return True  # nothing comes in at all
    return any(
        use.attribute.voucher is Voucher.TOKEN or use.attribute.key[len(HEADER) : -1] in whole.output_headers
        for rule in policy.rules
        for use in uses_of(rule)
    )


def _direct_peer_of_a_gateway(whole: PolicySet) -> Iterator[Problem]:
    """AN-21: an ingress gateway's rule asks for the direct peer."""
    for policy, index, rule in rules_of(whole, Action.ALLOW, Action.DENY, Action.CUSTOM):
        if not _is_of(policy, "ingress"):
            continue
        for use in uses_of(rule):
            if use.attribute is _SOURCE_IP:
                yield finding(
                    "AN-21",
                    policy,
                    "`ipBlocks` is the direct peer, which at an ingress gateway is often a load balancer",
                    "for the client use `remoteIpBlocks` (`remote.ip`), with `gatewayTopology.numTrustedProxies`",
                    location=rule.location,
                    path=f"spec.rules[{index}].{use.path}",
                )


def _outweighed(whole: PolicySet) -> Iterator[Problem]:
    """AN-22: a PeerAuthentication stands behind another of the same scope."""
    first: dict[tuple[str, frozenset[tuple[str, str]]], PeerAuthentication] = {}
    for item in sorted(whole.engine.resources.peer_authentications, key=lambda item: item.metadata.age_key):
        scope = item.metadata.namespace, frozenset(item.match_labels.items())
        winner = first.setdefault(scope, item)
        if winner is not item:
            name = f"{winner.metadata.namespace}/{winner.metadata.name}"
            yield finding(
                "AN-22",
                item,
                f"it has no effect: {name} has the same scope and is older, or earlier by name (PA-6)",
                "put both into one object",
            )


def _two_providers(whole: PolicySet) -> Iterator[Problem]:
    """AN-23: two CUSTOM providers meet at one workload."""
    custom = [policy for policy in whole.policies if policy.action is Action.CUSTOM and not policy.target.target_refs]
    if whole.engine.mesh.multiple_custom_providers or len({policy.provider for policy in custom}) < 2:
        return
    for at, policy in enumerate(custom):
        other = next((o for o in custom[:at] if o.provider != policy.provider and _share(o, policy, whole.root)), None)
        if other is not None:
            name = f"{other.metadata.namespace}/{other.metadata.name}"
            yield finding(
                "AN-23",
                policy,
                f"where {name} applies too there are two providers, `{other.provider}` and `{policy.provider}`, so "
                "both policies deny what they match (AP-81)",
                "use one provider for a workload",
                path="spec.provider.name",
            )


def _share(one: AuthorizationPolicy, other: AuthorizationPolicy, root: str) -> bool:
    """Whether some workload can be under both."""
    namespaces = {one.metadata.namespace, other.metadata.namespace}
    labels = other.target.match_labels
    return (len(namespaces) == 1 or root in namespaces) and all(
        labels.get(name, value) == value for name, value in one.target.match_labels.items()
    )


REACH_CHECKS: dict[str, Callable[[PolicySet], Iterator[Problem]]] = {
    "AN-18": _server_name_without_port,
    "AN-19": _targets_nobody,
    "AN-20": _token_is_optional,
    "AN-21": _direct_peer_of_a_gateway,
    "AN-22": _outweighed,
    "AN-23": _two_providers,
}

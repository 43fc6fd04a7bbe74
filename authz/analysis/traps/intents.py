"""Traps in what was meant: text that was to be more, two rules taken for one, a place where no policy is asked."""

from collections.abc import Callable, Iterator

from authz.analysis.traps.policy_set import HEADER, PolicySet, Use, finding, rules_of, uses_of
from authz.core.catalog import CONDITION_KEYS, HOSTS, PATHS, SOURCE_FIELDS, Voucher
from authz.core.errors import Problem
from authz.core.hints import VERBATIM, is_block, is_reference
from authz.core.peer_hints import KEPT_LOCAL, is_unaliased
from authz.core.resources import Action, AuthorizationPolicy, Rule

_PRINCIPAL, _PORT = CONDITION_KEYS["source.principal"], CONDITION_KEYS["destination.port"]
_CALLERS = (Voucher.MTLS, Voucher.TOKEN)


def _more_than_text(whole: PolicySet) -> Iterator[Problem]:
    """AN-24: a value is meant as more than the text that it is."""
    for policy, index, rule in rules_of(whole, *Action):
        for use in uses_of(rule):
            told = next(
                (found for value in (*use.values, *use.not_values) if (found := _more(value, use, whole))), None
            )
            if told is not None:
                path = f"spec.rules[{index}].{use.path}"
                yield finding("AN-24", policy, *told, location=rule.location, path=path)


def _more(value: str, use: Use, whole: PolicySet) -> tuple[str, str] | None:
    """Message and advice, for a value that its author hardly means as text."""
    if is_reference(value):
        advice = "a value is a fixed text; two values of a request cannot be compared"
        return f"`{value}` {VERBATIM}", advice
    if use.attribute.key.startswith(HEADER) and is_block(value):
        return f"a header is compared as text: no address of `{value}` matches", "use `remoteIpBlocks` (`remote.ip`)"
    if use.attribute is _PRINCIPAL and is_unaliased(value) and whole.engine.mesh.trust_domain != "cluster.local":
        return f"`{value}` {KEPT_LOCAL}", "write all five parts, or use `namespaces`"
    return None


def parted(rules: tuple[Rule, ...]) -> Iterator[int]:
    """
    The index of each rule that asks for nothing of the caller, beside one that asks for nothing else.

    That is what a dash too many makes of one rule (AP-9); or it is meant, where the rule opens something to everybody.
    """
    for index, rule in enumerate(rules):
        beside = (*rules[max(index - 1, 0) : index], *rules[index + 1 : index + 2])
        asks_of_caller_only = any(other.sources and not (other.operations or other.conditions) for other in beside)
        if asks_of_caller_only and (rule.operations or rule.conditions) and not _names_caller(rule):
            yield index


def opens_some(rule: Rule) -> bool:
    """Whether a rule names paths or ports, as one does that opens them to everybody on purpose."""
    return any(use.attribute in (PATHS, _PORT) for use in uses_of(rule))


def _names_caller(rule: Rule) -> bool:
    return bool(rule.sources) or any(use.attribute.voucher in _CALLERS for use in uses_of(rule))


def _parted_rule(whole: PolicySet) -> Iterator[Problem]:
    """AN-25: what was meant as one rule is two. Paths and ports open to all are often meant, and no finding."""
    for policy in whole.policies:
        for index in parted(policy.rules) if policy.action is Action.ALLOW else ():
            rule = policy.rules[index]
            if not opens_some(rule):
                yield finding(
                    "AN-25",
                    policy,
                    "this rule asks nothing of the caller, and the one beside it only who the caller is: one is enough",
                    "if both were meant as one rule, remove the dash before the second of `from`, `to` and `when`",
                    location=rule.location,
                    path=f"spec.rules[{index}]",
                )


def _closed_gateways(whole: PolicySet) -> Iterator[Problem]:
    """AN-26: a policy for the whole mesh allows nothing, which is so of gateways, too."""
    allow = [policy for policy in whole.policies if policy.action is Action.ALLOW and not policy.dry_run]
    opening = [policy for policy in allow if policy.rules]
    places = [f"{w.namespace} {' '.join(value for pair in w.labels for value in pair)}" for w in whole.workloads]
    if not opening or any(_may_be_of_gateway(policy, whole.root) for policy in opening):
        return
    if places and not any("gateway" in place for place in places):
        return
    for policy in allow:
        if policy.metadata.namespace == whole.root and not (policy.rules or _is_narrow(policy)):
            yield finding(
                "AN-26",
                policy,
                "this policy allows nothing at gateways either, and no ALLOW policy opens one",
                "allow at the gateway, too, what may come in there",
            )


def _is_narrow(policy: AuthorizationPolicy) -> bool:
    return bool(policy.target.match_labels or policy.target.target_refs)


def _may_be_of_gateway(policy: AuthorizationPolicy, root: str) -> bool:
    target = policy.target
    named = [policy.metadata.namespace, *target.match_labels, *target.match_labels.values()]
    is_named = any(word in text for text in named for word in ("gateway", "ingress"))
    return policy.metadata.namespace == root or bool(target.target_refs) or is_named


def _asked_at_the_caller(whole: PolicySet) -> Iterator[Problem]:
    """AN-27: a rule of the callers' namespace names a host outside: policies are asked where a request arrives."""
    for policy, index, rule in rules_of(whole, Action.ALLOW, Action.DENY):
        if _may_be_of_gateway(policy, whole.root):
            continue
        own = policy.metadata.namespace
        uses = list(uses_of(rule))
        hosts = next((use for use in uses if use.attribute is HOSTS and use.values), None)
        callers = [value for use in uses if use.attribute in _OF_CALLERS for value in use.values]
        is_own = bool(callers) and all(value == own or f"/ns/{own}/" in value for value in callers)
        if hosts is not None and is_own and all(_is_outside(value, own) for value in hosts.values):
            yield finding(
                "AN-27",
                policy,
                f"this rule is asked where a request arrives in `{own}`, not where one of `{own}` leaves for "
                f"`{hosts.values[0]}`",
                "put the policy where the host is served, or at an egress gateway",
                location=rule.location,
                path=f"spec.rules[{index}].{hosts.path}",
            )


_OF_CALLERS = (SOURCE_FIELDS["namespaces"], SOURCE_FIELDS["principals"])


def _is_outside(host: str, namespace: str) -> bool:
    """Whether a host is no short or long name of a service in the cluster."""
    name = host.partition(":")[0].rstrip(".")
    return "." in name.lstrip("*.") and not name.endswith((".svc", ".local", f".{namespace}"))


INTENT_CHECKS: dict[str, Callable[[PolicySet], Iterator[Problem]]] = {
    "AN-24": _more_than_text,
    "AN-25": _parted_rule,
    "AN-26": _closed_gateways,
    "AN-27": _asked_at_the_caller,
}

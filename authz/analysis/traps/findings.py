"""
Traps in a whole set of policies: what is valid and means what it says, but hardly what was meant.

Each check is one function from the set to problems with a stable code (``AN-1`` …), described in docs/findings.md.
A finding never says more than can be known from the policies, the mesh settings and, if given, the workloads.
"""

from collections.abc import Callable, Iterable, Iterator

from authz.analysis.needless.verdict import NeedlessRules
from authz.analysis.traps.intents import INTENT_CHECKS
from authz.analysis.traps.needless_traps import COVERED_CHECK, NEEDLESS_CHECKS, told_once
from authz.analysis.traps.policy_set import HEADER, PolicySet, finding, rules_of, uses_of
from authz.analysis.traps.reach import REACH_CHECKS
from authz.analysis.traps.value_traps import VALUE_CHECKS
from authz.core.attributes import Workload
from authz.core.catalog import OPERATION_FIELDS, Voucher
from authz.core.engine import Engine
from authz.core.errors import Problem, sort_problems
from authz.core.matchers import path_strings
from authz.core.resources import (
    Action,
    AuthorizationPolicy,
    Metadata,
    MtlsMode,
    PathNormalization,
    PeerAuthentication,
    RequestAuthentication,
    Target,
)

_WEAK = (PathNormalization.NONE, PathNormalization.BASE)


def find(
    engine: Engine,
    workloads: Iterable[Workload] = (),
    needless: NeedlessRules | None = None,
    warned: Iterable[Problem] = (),
) -> tuple[Problem, ...]:
    """
    Answer all findings, sorted by place.

    Args:
        workloads: those of a mesh description, if there is one.
        needless: what is proved of the rules; without it they are compared as written.
        warned: what validation says of the same policies, and need not be said again.
    """
    headers = frozenset(
        name.lower()
        for authentication in engine.resources.request_authentications
        for rule in authentication.jwt_rules
        for name in (rule.output_payload_to_header, *(output.header for output in rule.output_claim_to_headers))
        if name
    )
    whole = PolicySet(engine, tuple(workloads), headers, needless)
    found = (problem for check in CHECKS.values() for problem in check(whole))
    return sort_problems(told_once(whole, found, warned))


def find_unselecting(engine: Engine, workloads: Iterable[Workload]) -> tuple[Problem, ...]:
    """Answer AN-5 alone, the finding that is right of any object in any mesh; sorted by place."""
    return sort_problems(_selects_nobody(PolicySet(engine, tuple(workloads), frozenset())))


def _forgeable_allow(whole: PolicySet) -> Iterator[Problem]:
    """AN-1: an ALLOW rule rests on a header that anyone can send."""
    for policy, index, rule in rules_of(whole, Action.ALLOW):
        uses = list(uses_of(rule))
        if any(use.attribute.voucher is not Voucher.CLIENT and use.values for use in uses):
            continue
        for use in uses:
            name = use.attribute.key.removeprefix(HEADER).removesuffix("]")
            is_header = use.attribute.key.startswith(HEADER) and not name.startswith(":") and name != "host"
            if is_header and use.values and name not in whole.output_headers:
                yield finding(
                    "AN-1",
                    policy,
                    f"this ALLOW rule rests on the header `{name}`, which anyone can send",
                    "also require an identity or a verified token, or take the value from a claim",
                    location=rule.location,
                    path=f"spec.rules[{index}].{use.path}",
                )


def _weak_normalization(whole: PolicySet) -> Iterator[Problem]:
    """AN-2: a path in a DENY or CUSTOM rule is evaded by writing it with two slashes."""
    mode = whole.engine.mesh.path_normalization
    if mode not in _WEAK:
        return
    for policy, index, rule in rules_of(whole, Action.DENY, Action.CUSTOM):
        for use in uses_of(rule):
            if use.attribute is OPERATION_FIELDS["paths"] and (example := _evaded_by_slashes(use.values)):
                yield finding(
                    "AN-2",
                    policy,
                    f"`{example}` written with two slashes escapes this {policy.action} "
                    f"rule, because the mesh's path normalisation is {mode}",
                    "set `pathNormalization: {normalization: MERGE_SLASHES}` or stronger",
                    location=rule.location,
                    path=f"spec.rules[{index}].{use.path}",
                )


def _evaded_by_slashes(values: tuple[str, ...]) -> str:
    """The first path that the values match, and not with some slash of it doubled; empty: there is none."""
    matcher = path_strings(values)
    for value in values:
        written = f"/{value.removeprefix('*').lstrip('/')}"
        path = written.replace("{**}", "x").replace("{*}", "x").replace("*", "x")
        doubled = [f"{path[:at]}/{path[at:]}" for at, letter in enumerate(path) if letter == "/"]
        if not all(matcher.matches((one,)) for one in doubled):
            return written
    return ""


def _hosts_without_port(whole: PolicySet) -> Iterator[Problem]:
    """AN-3: a host without a port does not match the same host with one, which is routed the same way."""
    for policy, index, rule in rules_of(whole, Action.DENY, Action.CUSTOM, Action.ALLOW):
        for use in uses_of(rule):
            if use.attribute is not OPERATION_FIELDS["hosts"]:
                continue
            values = use.not_values if policy.action is Action.ALLOW else use.values
            known = {value.lower() for value in values}
            for value in values:
                has_port = ":" in value or value.endswith("*")
                if not has_port and f"{value.lower()}:*" not in known:
                    yield finding(
                        "AN-3",
                        policy,
                        f"`{value}` does not match `{value}:80`, which is routed the same way",
                        f"add `{value}:*`",
                        location=rule.location,
                        path=f"spec.rules[{index}].{use.path}",
                    )


def _selects_nobody(whole: PolicySet) -> Iterator[Problem]:
    """AN-5: a selector selects none of the known workloads."""
    items: tuple[AuthorizationPolicy | RequestAuthentication | PeerAuthentication, ...] = (
        *whole.policies,
        *whole.engine.resources.request_authentications,
        *whole.engine.resources.peer_authentications,
    )
    for item in items:
        scope = item.metadata.namespace
        target = Target(item.match_labels) if isinstance(item, PeerAuthentication) else item.target
        if whole.workloads and not target.target_refs:
            labels = target.match_labels.items()
            inside = [w for w in whole.workloads if scope in (whole.root, w.namespace)]
            if not any(labels <= dict(workload.labels).items() for workload in inside):
                is_deny = isinstance(item, AuthorizationPolicy) and item.action is Action.DENY
                is_lost = ", and nothing is denied by this policy" if is_deny else ""
                where = "the mesh" if scope == whole.root else f"namespace `{scope}`"
                yield finding(
                    "AN-5",
                    item,
                    f"no workload of {where} is selected{is_lost}",
                    "compare `selector.matchLabels` with the labels of the workloads",
                    path="spec.selector",
                )


def _needs_token_without_rule(whole: PolicySet) -> Iterator[Problem]:
    """AN-6: a rule asks for claims where no RequestAuthentication verifies tokens, so it never sees any."""
    for policy, index, rule in rules_of(whole, Action.ALLOW, Action.DENY, Action.AUDIT):
        use = next((use for use in uses_of(rule) if use.attribute.voucher is Voucher.TOKEN), None)
        if use is not None and not any(True for _ in whole.authentications_with(policy)):
            yield finding(
                "AN-6",
                policy,
                "no RequestAuthentication applies where this rule does, so no request ever has claims",
                "add a RequestAuthentication for the same workloads",
                location=rule.location,
                path=f"spec.rules[{index}].{use.path}",
            )


def _admits_strangers(whole: PolicySet) -> Iterator[Problem]:
    """AN-7: an ALLOW rule only says who may not come in, so callers who show nothing may."""
    vouched = (Voucher.MTLS, Voucher.TOKEN)
    for policy, index, rule in rules_of(whole, Action.ALLOW):
        uses = [use for use in uses_of(rule) if use.attribute.voucher in vouched]
        negative = [use for use in uses if use.not_values and not use.values]
        if negative and not any(use.values for use in uses):
            use = negative[0]
            who = "a token" if use.attribute.voucher is Voucher.TOKEN else "an identity"
            yield finding(
                "AN-7",
                policy,
                f"this ALLOW rule only says who may not come in: a request without {who} may",
                "also say who may, for example `*`",
                location=rule.location,
                path=f"spec.rules[{index}].{use.path}",
            )


def _plaintext_evades_deny(whole: PolicySet) -> Iterator[Problem]:
    """AN-8: a DENY rule names an identity where plaintext is accepted, so a caller without a certificate evades it."""
    for policy, index, rule in rules_of(whole, Action.DENY):
        use = next((u for u in uses_of(rule) if u.attribute.voucher is Voucher.MTLS and u.values), None)
        if use is None or policy.target.target_refs:
            continue
        labels = frozenset(policy.target.match_labels.items())
        mode = whole.engine.for_workload(Workload(policy.metadata.namespace, labels)).base_mode
        if mode is not MtlsMode.STRICT:
            yield finding(
                "AN-8",
                policy,
                f"mTLS is {mode} here: a caller without a certificate is not matched by this DENY rule",
                "make mTLS STRICT with a PeerAuthentication, or say in ALLOW rules who may",
                location=rule.location,
                path=f"spec.rules[{index}].{use.path}",
            )


def _open_beside_closed(whole: PolicySet) -> Iterator[Problem]:
    """AN-9: a rule that allows everything makes a policy that allows nothing ineffective."""
    closed = [p for p in whole.policies if p.action is Action.ALLOW and not p.rules and not p.dry_run]
    for policy, index, rule in rules_of(whole, Action.ALLOW):
        if rule.sources or rule.operations or rule.conditions or policy.dry_run:
            continue
        for other in closed:
            if _reaches(policy.metadata, policy.target, other, whole.root):
                name = f"{other.metadata.namespace}/{other.metadata.name}"
                yield finding(
                    "AN-9",
                    policy,
                    f"this rule allows everything, so {name}, which allows nothing, has no effect",
                    "ALLOW policies are a union; only DENY takes away",
                    location=rule.location,
                    path=f"spec.rules[{index}]",
                )
                break


def _reaches(metadata: Metadata, target: Target, other: AuthorizationPolicy, root: str) -> bool:
    """Whether a target covers every workload of another policy."""
    is_inside = metadata.namespace in (root, other.metadata.namespace)
    return (
        is_inside
        and not target.target_refs
        and not other.target.target_refs
        and target.match_labels.items() <= other.target.match_labels.items()
    )


CHECKS: dict[str, Callable[[PolicySet], Iterator[Problem]]] = {
    "AN-1": _forgeable_allow,
    "AN-2": _weak_normalization,
    "AN-3": _hosts_without_port,
    "AN-4": COVERED_CHECK,
    "AN-5": _selects_nobody,
    "AN-6": _needs_token_without_rule,
    "AN-7": _admits_strangers,
    "AN-8": _plaintext_evades_deny,
    "AN-9": _open_beside_closed,
    **VALUE_CHECKS,
    **REACH_CHECKS,
    **INTENT_CHECKS,
    **NEEDLESS_CHECKS,
}
"""Every check by its code; each code has a section in docs/findings.md."""

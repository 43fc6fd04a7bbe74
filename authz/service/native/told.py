"""What Envoy's own filters did, in the words of a decision: read from response code details and dynamic metadata."""

from collections.abc import Mapping
from dataclasses import replace

from authz.core.decision import FORBIDDEN_BODY, Decision, DryRunResult, Effect, RuleReference, Stage
from authz.core.engine import WorkloadPolicies
from authz.wire.enforced import Enforced

_CUSTOM = "istio-ext-authz-"
_CUSTOM_RESULT = "istio_ext_authz_shadow_effective_policy_id"
_DRY_RUN = {Effect.ALLOW: "istio_dry_run_allow_shadow_", Effect.DENY: "istio_dry_run_deny_shadow_"}
_POLICY_ID = "effective_policy_id"
_MAX_LIMIT = 1024
"""Characters of a limit's id: names of namespace and policy have 253 each at most."""


def told_decision(
    enforced: Enforced,
    policies: WorkloadPolicies,
    names: dict[str, RuleReference],
    allow: frozenset[str],
    *,
    tcp: bool = False,
) -> Decision:
    """
    Say what Envoy did in the words of a decision.

    A rule that the policies no longer have is named as Envoy names it, without file and line.
    """
    sets = policies.tcp if tcp else policies.http
    results = enforced.results

    def rule(name: str) -> RuleReference | None:
        return (names.get(name) or RuleReference("", "", 0, name)) if name else None

    effect, stage, fired, body = Effect.ALLOW, Stage.DEFAULT if sets.allow is None else Stage.ALLOW, None, ""
    reason = "no ALLOW policy applies to the workload"
    match enforced.denied_by:
        case "rbac":
            effect, fired, body = Effect.DENY, rule(enforced.matched), FORBIDDEN_BODY
            stage = Stage.ALLOW if fired is None else Stage.DENY
            reason = "no ALLOW rule matched" if fired is None else f"DENY rule {fired.short} matched"
            if fired is not None and fired.name.startswith(_CUSTOM):
                stage, reason = Stage.CUSTOM, "the provider cannot be asked"
        case "jwt":
            effect, stage = Effect.DENY, Stage.JWT
            reason = body = enforced.details.partition("{")[2][:-1].replace("_", " ")
        case "custom":
            effect, stage, fired = Effect.DENY, Stage.CUSTOM, rule(results.get(_CUSTOM_RESULT, ""))
            refused = enforced.details == "ext_authz_denied"
            reason = "the provider refused" if refused else f"the provider could not be asked: {enforced.details}"
        case _ if stage is Stage.ALLOW:
            name = results.get(f"enforced_{_POLICY_ID}", "")
            fired = rule(name) if name in allow else None
            reason = f"ALLOW rule {fired.short} matched" if fired is not None else "an ALLOW rule matched"
    return Decision(
        effect, stage, reason, fired,
        0 if effect is Effect.ALLOW else enforced.status or 403,
        body,
        audit=enforced.audit if sets.audit is not None else None,
        dry_run_allow=_dry_run(results, Effect.ALLOW, names),
        dry_run_deny=_dry_run(results, Effect.DENY, names),
        policy_version=policies.version,
    )  # fmt: skip


def limited_decision(allowed: Decision, enforced: Enforced) -> Decision:
    """
    What became of a request that the policies allowed, as ``allowed`` says, and a rate limit refused.

    A proxy that counts by itself does not say which of its limits it was.
    """
    rule = _limit_rule(enforced.limit)
    reason = {
        "service": f"the limit {rule.short} is used up" if rule is not None else "a rate limit is used up",
        "proxy": "a limit that the proxy counts by itself is used up",
        "error": "nobody can count for a limit that fails closed",
    }[enforced.limited_by]
    return replace(
        allowed, effect=Effect.DENY, stage=Stage.RATE_LIMIT, reason=reason, rule=rule, status=enforced.status
    )


def _limit_rule(written: str) -> RuleReference | None:
    """``namespace/policy/global/0`` as a rule."""
    namespace, _, rest = written.partition("/")
    policy, _, place = rest.partition("/")
    scope, _, index = place.partition("/")
    if not index.isascii() or not index.isdigit() or len(written) > _MAX_LIMIT:
        return None
    return RuleReference(namespace, policy, int(index), f"ns[{namespace}]-limit[{policy}]-{scope}[{index}]")


def _dry_run(results: Mapping[str, str], kind: Effect, names: dict[str, RuleReference]) -> DryRunResult | None:
    prefix = _DRY_RUN[kind]
    result = results.get(f"{prefix}engine_result")
    if result is None:
        return None
    name = results.get(f"{prefix}{_POLICY_ID}", "")
    reference = (names.get(name) or RuleReference("", "", 0, name)) if name else None
    return DryRunResult(Effect.ALLOW if result == "allowed" else Effect.DENY, reference)

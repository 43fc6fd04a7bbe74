"""
The stages in order: PeerAuthentication, CUSTOM, RequestAuthentication, AUDIT, DENY, ALLOW (EV-1, EV-5).

The one evaluator of the house: service, offline check, test and replay all come through here. It is a generator that
yields the question to an external provider and is sent the answer, so it never waits itself.
"""

from collections.abc import Callable
from dataclasses import replace

from authz.core.attributes import (
    AttributeContext,
    Authentication,
    AuthenticationOutcome,
    Destination,
    Source,
)
from authz.core.decision import (
    FORBIDDEN_BODY,
    NO_OBLIGATIONS,
    Decision,
    DryRunResult,
    Effect,
    Obligations,
    RuleReference,
    Stage,
)
from authz.core.engine import WorkloadPolicies
from authz.core.introspection import TokenQuestion
from authz.core.obligations import after_provider, with_authentication
from authz.core.providers import Evaluation, ProviderAnswer, ProviderQuestion
from authz.core.resources import JwtRule, MtlsMode
from authz.core.rule_sets import ActionSets, CustomSet
from authz.core.rules import RuleSet

_STRICT, _DISABLE, _REJECTED = MtlsMode.STRICT, MtlsMode.DISABLE, AuthenticationOutcome.REJECTED
_ALLOW_STAGE = Stage.ALLOW
# Named for every request: asking an enumeration for a member costs ten times as much in Python 3.11.

Authenticate = Callable[[AttributeContext, tuple[JwtRule, ...]], Authentication | TokenQuestion]
"""
The RequestAuthentication stage (RA); ``tokens`` provides it. Never raises.

With a question it is called again once that is answered, and has kept the answer.
"""


def evaluate(policies: WorkloadPolicies, attributes: AttributeContext, authenticate: Authenticate) -> Evaluation:
    """
    Decide one request.

    Returns:
        The request as the last stage saw it (EV-6), and the decision.

    Raises:
        Nothing of its own; what ``authenticate`` raises passes through and is denied at the edge.
    """
    mode = peer_mode(policies, attributes.destination)
    if mode is _STRICT and not attributes.is_mtls:
        return attributes, _refusal(policies, Stage.PEER_AUTHENTICATION, "plaintext to a port that is STRICT (PA-9)")
    if mode is _DISABLE and (attributes.source.identities or attributes.source.is_unproven):
        attributes = replace(attributes, source=_anonymous(attributes.source))  # "never an identity" (PA-11)
    http = attributes.http
    if http is None:
        sets = policies.tcp
    else:
        sets = policies.http
        if http.path and not http.path.startswith("/"):
            return attributes, unusable_path(policies.version)  # [Q] of RA-9

    gained = NO_OBLIGATIONS
    for custom in sets.custom:
        rule = custom.rules.first(attributes)
        if rule is None:
            continue
        if custom.provider is None:
            return attributes, _refusal(policies, Stage.CUSTOM, custom.problem, rule.reference, FORBIDDEN_BODY)
        if http is not None and http.hides_headers:  # the provider would judge another request than goes on
            reason = f"provider `{custom.provider.name}` is not asked about a request whose headers are not all known"
            return attributes, _refusal(policies, Stage.CUSTOM, reason, rule.reference, FORBIDDEN_BODY)
        answer = yield ProviderQuestion(custom.provider, rule.reference, attributes)
        assert isinstance(answer, ProviderAnswer)
        refusal = _judge(policies, custom, rule.reference, answer)
        if refusal is not None:
            return attributes, refusal
        if not answer.error:
            attributes, gained = after_provider(attributes, gained, answer)

    if http is not None:
        authentication = authenticate(attributes, policies.jwt_rules)
        while isinstance(authentication, TokenQuestion):
            yield authentication
            authentication = authenticate(attributes, policies.jwt_rules)
        if authentication.outcome is _REJECTED:
            return attributes.after(authentication), _rejection(policies, authentication)
        attributes = attributes.after(authentication)
        gained = with_authentication(gained, authentication)
    return attributes, authorize(policies, sets, attributes, gained)


def peer_mode(policies: WorkloadPolicies, destination: Destination) -> MtlsMode:
    """The mode of PeerAuthentication in force: "never applies to gateways' own TLS settings" (PA-14)."""
    return MtlsMode.PERMISSIVE if destination.is_gateway else policies.mtls_mode(destination.port)


def decide(
    policies: WorkloadPolicies,
    attributes: AttributeContext,
    authenticate: Authenticate,
    ask: Callable[[ProviderQuestion], ProviderAnswer],
) -> tuple[AttributeContext, Decision]:
    """Drive ``evaluate`` with providers that answer at once, and no issuer to ask: offline commands and tests."""
    steps = evaluate(policies, attributes, authenticate)
    try:
        question = next(steps)
        while True:
            assert isinstance(question, ProviderQuestion), "whoever judges tokens here must not ask"
            question = steps.send(ask(question))
    except StopIteration as stop:
        result: tuple[AttributeContext, Decision] = stop.value
        return result


def authorize(
    policies: WorkloadPolicies, sets: ActionSets, attributes: AttributeContext, gained: Obligations
) -> Decision:
    """
    AUDIT, then DENY, then ALLOW, on one view of the request (EV-4, EV-7).

    Within a stage the dry-run set comes before the enforced one (AP-89).
    """
    audit: bool | None = None
    audit_rule = None
    if sets.audit is not None:
        fired = sets.audit.first(attributes)
        audit, audit_rule = fired is not None, fired.reference if fired else None
    would_deny = None if sets.dry_run_deny is None else _dry_run(sets.dry_run_deny, attributes, Effect.DENY)
    would_allow = None

    if sets.deny is not None and (rule := sets.deny.first(attributes)) is not None:
        reference, stage = rule.reference, Stage.DENY
    else:
        would_allow = None if sets.dry_run_allow is None else _dry_run(sets.dry_run_allow, attributes, Effect.ALLOW)
        if sets.allow is None:
            reference, stage = None, Stage.DEFAULT
        else:
            found = sets.allow.first(attributes)
            reference, stage = found.reference if found is not None else None, _ALLOW_STAGE

    if audit is not None or would_deny is not None or would_allow is not None or gained.is_personal:
        return _decision(
            policies,
            stage,
            reference,
            gained,
            audit=audit,
            audit_rule=audit_rule,
            would_allow=would_allow,
            would_deny=would_deny,
        )
    # Most decisions of a workload are one of few: making the value costs more than finding it.
    name = reference.name if reference is not None else stage
    key = name if gained is NO_OBLIGATIONS else (name, gained)
    decision = policies.remembered.get(key)
    if decision is None:
        decision = _decision(policies, stage, reference, gained)
        policies.remember(key, decision)
    return decision


def _decision(
    policies: WorkloadPolicies,
    stage: Stage,
    rule: RuleReference | None,
    gained: Obligations,
    *,
    audit: bool | None = None,
    audit_rule: RuleReference | None = None,
    would_allow: DryRunResult | None = None,
    would_deny: DryRunResult | None = None,
) -> Decision:
    """The answer of the native actions: DENY fired, no ALLOW policy, an ALLOW rule fired, or none did (EV-4)."""
    denied = stage is Stage.DENY or (stage is Stage.ALLOW and rule is None)
    if rule is not None:
        reason = f"{stage.name} rule {rule.short} matched"
    else:
        reason = "no ALLOW rule matched" if denied else "no ALLOW policy applies to the workload"
    return Decision(
        effect=Effect.DENY if denied else Effect.ALLOW,
        stage=stage,
        reason=reason,
        rule=rule,
        status=403 if denied else 0,
        body=FORBIDDEN_BODY if denied else "",
        obligations=NO_OBLIGATIONS if denied else gained,
        audit=audit,
        audit_rule=audit_rule,
        dry_run_allow=would_allow,
        dry_run_deny=would_deny,
        policy_version=policies.version,
    )


def unusable_path(policy_version: str) -> Decision:
    """Refuse a path that cannot be normalised (PN-10) or does not begin with a slash (RA-9)."""
    return Decision(
        Effect.DENY, Stage.NORMALIZATION, "the path cannot be normalised", status=400, policy_version=policy_version
    )


def _refusal(
    policies: WorkloadPolicies, stage: Stage, reason: str, rule: RuleReference | None = None, body: str = ""
) -> Decision:
    return Decision(Effect.DENY, stage, reason, rule=rule, status=403, body=body, policy_version=policies.version)


def _rejection(policies: WorkloadPolicies, authentication: Authentication) -> Decision:
    """The answer to a token that was not accepted (RA-40, RA-41)."""
    challenge = authentication.challenge
    return Decision(
        Effect.DENY,
        Stage.JWT,
        authentication.reason or authentication.body,
        status=authentication.status,
        body=authentication.body,
        headers=(("www-authenticate", challenge),) if challenge else (),
        policy_version=policies.version,
    )


def _judge(
    policies: WorkloadPolicies, custom: CustomSet, rule: RuleReference, answer: ProviderAnswer
) -> Decision | None:
    """A provider's refusal is final, its acceptance only lets the request go on (AP-77, AP-83)."""
    provider = custom.provider
    assert provider is not None
    if answer.error:
        if provider.fail_open and not answer.is_final:
            return None
        status = answer.status if answer.is_final else provider.status_on_error
        reason = f"provider `{provider.name}` could not be asked: {answer.error}"
        return Decision(
            Effect.DENY,
            Stage.CUSTOM,
            reason,
            rule=rule,
            status=status,
            body=answer.body,
            policy_version=policies.version,
        )
    if answer.allowed:
        return None
    return Decision(
        Effect.DENY,
        Stage.CUSTOM,
        f"provider `{provider.name}` refused",
        rule=rule,
        status=answer.status,
        body=answer.body,
        headers=answer.headers,
        policy_version=policies.version,
    )


def _dry_run(rules: RuleSet, attributes: AttributeContext, fires: Effect) -> DryRunResult:
    """AP-88: ALLOW is ``allowed`` iff a rule fired, DENY is ``denied`` iff a rule fired."""
    rule = rules.first(attributes)
    if rule is None:
        return DryRunResult(Effect.DENY if fires is Effect.ALLOW else Effect.ALLOW)
    return DryRunResult(fires, rule.reference)


def _anonymous(source: Source) -> Source:
    return replace(source, identities=(), is_unproven=False)

"""
One recorded request, decided again by the pipeline; what the record does not tell leads to no guess.

The token was judged then, by the clock of then, and is not judged again; a provider is not asked again. Where other
policies would judge the token or ask a provider, and the record does not show how that would end, it cannot be said.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from authz.analysis.replay.bounds import BoundedPolicies
from authz.analysis.replay.carried import NOTHING_CARRIED, Carried, carried_over
from authz.analysis.replay.recorded_request import BEFORE_TOKENS, GATEWAY, MTLS, RecordedAnswer, RecordedRequest
from authz.core.attributes import (
    NOT_AUTHENTICATED,
    AttributeContext,
    Authentication,
    AuthenticationOutcome,
)
from authz.core.decision import Decision, Stage
from authz.core.engine import WorkloadPolicies
from authz.core.errors import NOWHERE
from authz.core.pipeline import decide, peer_mode
from authz.core.providers import ProviderAnswer, ProviderQuestion
from authz.core.resources import JwtRule, MtlsMode, Presence

TOKEN = "token"  # noqa: S105  # a word for people, not a secret
LABELS = "destination.labels"
_UNSEEN = Authentication(AuthenticationOutcome.REJECTED, status=401, reason="the token was not seen")


class DecidedAgain(NamedTuple):
    """What came of a request."""

    answer: RecordedAnswer | None
    """None when it cannot be said."""
    facts: tuple[str, ...] = ()
    """The facts for lack of which it cannot be said, sorted: ``request.headers[x-team]``, ``token``."""
    rules: tuple[str, ...] = ()
    """The rules that ask for them, ``namespace/policy/index``."""
    is_assumed: bool = False
    """It rests on the token having been found, or not, by the same rules as then, which nothing shows."""
    is_exact: bool = True
    """Every fact was known; else the rule that is named may be another one with the same effect."""


@dataclass(frozen=True, slots=True)
class Then:
    """The policies that decided at the time, if they are known."""

    policies: WorkloadPolicies | None = None
    """Of the workload; None where they are not known."""
    providers: frozenset[str] = frozenset()
    """CUSTOM providers that were asked about the request and let it go on."""
    is_same: bool = False
    """They are those that decide now, so that whatever the record says of tokens and providers holds."""


def decide_again(bounded: BoundedPolicies, request: RecordedRequest, then: Then) -> DecidedAgain:
    """Decide a request, between bounds where the record lacks what the policies ask for. Raises nothing."""
    lacking = frozenset([key for key in bounded.asked if request.lacks(key)])
    policies = bounded.exact
    mode = peer_mode(policies, request.attributes.destination)
    if mode is not MtlsMode.PERMISSIVE:
        if request.lacks(MTLS):
            return DecidedAgain(None, (MTLS,))
        if request.lacks(GATEWAY) and (mode is MtlsMode.DISABLE or not request.attributes.is_mtls):
            return DecidedAgain(None, (GATEWAY,))
    token = _standing(policies.jwt_rules, request, then)
    if token is None:
        lacking |= {key for key in bounded.asked if key.startswith("request.auth.")}
    elif token.authentication.token is None:  # whatever was in a token that is not looked for
        lacking = frozenset(key for key in lacking if not key.startswith("request.auth."))
    providers = _Providers(request, then)
    if not lacking and token is not None:
        decision = _decide(policies, request, token.authentication, providers.first)
        if not providers.unknown:
            return DecidedAgain(answer_from(decision), is_assumed=token.is_assumed and _reached(decision))
    admitting, refusing = bounded.between(lacking, _carried(policies, request, then))
    most = _decide(admitting, request, token.authentication if token else NOT_AUTHENTICATED, providers.admitting)
    least = _decide(refusing, request, token.authentication if token else _UNSEEN, providers.refusing)
    if most.effect is least.effect:
        is_assumed = token is not None and token.is_assumed and _reached(most) and _reached(least)
        answers = (answer_from(most), answer_from(least))
        likely = next((one for one in answers if one.rule == request.answer.rule), answers[0])
        return DecidedAgain(likely, is_assumed=is_assumed, is_exact=False)
    return _unsaid(bounded, lacking, most, least, providers, has_token=token is not None)


def answer_from(decision: Decision) -> RecordedAnswer:
    """A decision as records tell it."""
    rule, place = decision.rule, ""
    if rule is not None and rule.location is not NOWHERE:
        place = f"{rule.location.file}:{rule.location.line}"
    return RecordedAnswer(
        decision.effect.value, decision.status, decision.stage.value, rule.short if rule is not None else "", place
    )


def attributes_with_token(request: RecordedRequest) -> AttributeContext:
    """The request with what the record tells of its token."""
    if request.token is None:
        return request.attributes
    return request.attributes.after(Authentication(AuthenticationOutcome.ACCEPTED, request.token))


def _unsaid(
    bounded: BoundedPolicies,
    lacking: frozenset[str],
    most: Decision,
    least: Decision,
    providers: "_Providers",
    *,
    has_token: bool,
) -> DecidedAgain:
    facts: set[str] = set()
    rules: set[str] = set()
    for decision in (most, least):
        found = bounded.facts(decision.rule.name, lacking) if decision.rule is not None else frozenset()
        if found and decision.rule is not None:
            facts |= found
            rules.add(decision.rule.short)
    if least.stage is Stage.JWT and not has_token:
        facts = {TOKEN}
    if least.stage is Stage.CUSTOM:
        facts |= {f"answer of provider {name}" for name in providers.unknown}
    return DecidedAgain(None, tuple(sorted(facts or lacking)), tuple(sorted(rules)))


def _decide(
    policies: WorkloadPolicies,
    request: RecordedRequest,
    authentication: Authentication,
    ask: Callable[[ProviderQuestion], ProviderAnswer],
) -> Decision:
    def authenticate(attributes: AttributeContext, rules: tuple[JwtRule, ...]) -> Authentication:
        return authentication

    return decide(policies, request.attributes, authenticate, ask)[1]


def _reached(decision: Decision) -> bool:
    """Whether tokens had a say."""
    return decision.stage not in (Stage.PEER_AUTHENTICATION, Stage.NORMALIZATION, Stage.CUSTOM)


class _Standing(NamedTuple):
    authentication: Authentication
    is_assumed: bool = False


def _standing(rules: tuple[JwtRule, ...], request: RecordedRequest, then: Then) -> _Standing | None:
    """What the token stage would find, or None when the record does not show it."""
    answer = request.answer
    if not rules or request.attributes.http is None:
        return _Standing(NOT_AUTHENTICATED)  # RA-2: nobody looks for one
    if answer.stage in BEFORE_TOKENS:
        return None
    if not then.is_same and then.policies is not None and meaning(then.policies.jwt_rules) != meaning(rules):
        return None
    is_assumed = not then.is_same and then.policies is None
    if answer.stage == "jwt":
        refused = Authentication(AuthenticationOutcome.REJECTED, status=answer.status, reason="refused then")
        return _Standing(refused, is_assumed)
    required = {rule.issuer for rule in rules if rule.presence is Presence.REQUIRED}
    if request.token is None:
        return _Standing(_UNSEEN if required else NOT_AUTHENTICATED, is_assumed)
    if required - {request.token.issuer} or not any(rule.issuer in ("", request.token.issuer) for rule in rules):
        return None
    return _Standing(Authentication(AuthenticationOutcome.ACCEPTED, request.token), is_assumed)


def _carried(policies: WorkloadPolicies, request: RecordedRequest, then: Then) -> Carried:
    """What is known of rules that stand as they stood, where tokens are judged as they were."""
    if then.policies is None or meaning(then.policies.jwt_rules) != meaning(policies.jwt_rules):
        return NOTHING_CARRIED
    return carried_over(then.policies, policies, request)


def meaning(rules: tuple[JwtRule, ...]) -> tuple[JwtRule, ...]:
    """Token rules without their names and places, to be compared."""
    return tuple(replace(rule, name="", location=NOWHERE) for rule in rules)


class _Providers:
    """Answers of CUSTOM providers as far as the record shows them; the names of the others are kept."""

    def __init__(self, request: RecordedRequest, then: Then) -> None:
        self._request = request
        self._then = then
        self.unknown: set[str] = set()

    def _known(self, question: ProviderQuestion) -> ProviderAnswer | None:
        name, answer = question.provider.name, self._request.answer
        if self._request.provider == name and name:
            return ProviderAnswer(allowed=False, status=answer.status or 403)
        passed = answer.stage not in BEFORE_TOKENS
        if (self._then.is_same and (passed or name < self._request.provider)) or (
            passed and name in self._then.providers
        ):
            return ProviderAnswer(allowed=True)
        self.unknown.add(name)
        return None

    def first(self, question: ProviderQuestion) -> ProviderAnswer:
        return self._known(question) or ProviderAnswer(allowed=True)

    admitting = first

    def refusing(self, question: ProviderQuestion) -> ProviderAnswer:
        return self._known(question) or ProviderAnswer(allowed=False, status=403)


def providers_asked(bounded: BoundedPolicies, request: RecordedRequest) -> frozenset[str]:
    """The providers that these policies certainly ask about a request, if all of them let it go on."""
    lacking = frozenset(key for key in bounded.asked if request.lacks(key))
    policies = bounded.between(lacking)[0] if lacking else bounded.exact
    asked: set[str] = set()

    def note(question: ProviderQuestion) -> ProviderAnswer:
        asked.add(question.provider.name)
        return ProviderAnswer(allowed=True)

    _decide(policies, request, NOT_AUTHENTICATED, note)
    return frozenset(asked)

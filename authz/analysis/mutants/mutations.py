"""
The mutants of a set of policies: each resource with one small fault of those that people make.

AUDIT policies and dry-run policies have none: they change no answer. Neither has what is only forwarded
(``outputClaimToHeaders``), nor selectors, nor keys.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from authz.analysis.mutants.mutant import ChangedResource, Mutant, origin_of
from authz.analysis.mutants.rule_mutations import changed_rules
from authz.core.errors import Location
from authz.core.resources import (
    Action,
    AuthorizationPolicy,
    JwtRule,
    MtlsMode,
    PeerAuthentication,
    Presence,
    RequestAuthentication,
    Resources,
)

ANOTHER_ISSUER = "https://another-issuer.invalid"
"""Takes the place of the issuer of a rule."""
_OTHER_ACTION = {Action.ALLOW: Action.DENY, Action.DENY: Action.ALLOW}
_OTHER_MODE = {
    MtlsMode.STRICT: MtlsMode.PERMISSIVE,
    MtlsMode.PERMISSIVE: MtlsMode.STRICT,
    MtlsMode.DISABLE: MtlsMode.STRICT,
}
_Change = tuple[str, Location, ChangedResource, int | None]


def mutants_of(resources: Resources) -> Iterator[Mutant]:
    """Every mutant, in the order of the resources."""
    for policy in resources.authorization_policies:
        if policy.action is not Action.AUDIT and not policy.dry_run:
            yield from _made(policy, _policy(policy))
    for tokens in resources.request_authentications:
        yield from _made(tokens, _tokens(tokens))
    for peers in resources.peer_authentications:
        yield from _made(peers, _peers(peers))


def _made(resource: ChangedResource, changes: Iterable[_Change]) -> Iterator[Mutant]:
    origin, place = origin_of(resource), resource.metadata.location
    yield Mutant(origin, place, "the whole resource dropped", None)
    for text, location, changed, lost_rule in changes:
        yield Mutant(origin, location, text, changed, lost_rule)


def _policy(policy: AuthorizationPolicy) -> Iterator[_Change]:
    other = _OTHER_ACTION.get(policy.action)
    if other is not None:
        text = f"action: {policy.action} replaced by {other}"
        yield text, policy.metadata.location, replace(policy, action=other), None
    for number, rule in enumerate(policy.rules):
        yield f"rules[{number}] dropped", rule.location, policy, number
        for text, location, changed in changed_rules(rule):
            rules = (*policy.rules[:number], changed, *policy.rules[number + 1 :])
            yield f"rules[{number}].{text}", location, replace(policy, rules=rules), None


def _tokens(written: RequestAuthentication) -> Iterator[_Change]:
    rules = written.jwt_rules
    for number, rule in enumerate(rules):
        others = rules[:number], rules[number + 1 :]
        if len(rules) > 1:
            yield f"jwtRules[{number}] dropped", rule.location, replace(written, jwt_rules=sum(others, ())), None
        for text, changed in _token_rule(rule):
            new = (*others[0], changed, *others[1])
            yield f"jwtRules[{number}].{text}", rule.location, replace(written, jwt_rules=new), None


def _token_rule(rule: JwtRule) -> Iterator[tuple[str, JwtRule]]:
    if rule.issuer:
        yield f"issuer: `{rule.issuer}` replaced by another", replace(rule, issuer=ANOTHER_ISSUER)
    if rule.audiences:
        yield "audiences dropped", replace(rule, audiences=())
    if len(rule.audiences) > 1:
        for value in rule.audiences:
            left = tuple(other for other in rule.audiences if other != value)
            yield f"audiences: `{value}` dropped", replace(rule, audiences=left)
    for header in rule.from_headers:
        kept = tuple(other for other in rule.from_headers if other != header)
        yield f"fromHeaders: `{header.name}` dropped", replace(rule, from_headers=kept)
    for name in rule.from_params:
        left = tuple(other for other in rule.from_params if other != name)
        yield f"fromParams: `{name}` dropped", replace(rule, from_params=left)
    for name in rule.from_cookies:
        left = tuple(other for other in rule.from_cookies if other != name)
        yield f"fromCookies: `{name}` dropped", replace(rule, from_cookies=left)
    if rule.presence is Presence.REQUIRED:
        yield "presence: REQUIRED replaced by OPTIONAL", replace(rule, presence=Presence.OPTIONAL)


def _peers(written: PeerAuthentication) -> Iterator[_Change]:
    place = written.metadata.location
    other = _OTHER_MODE.get(written.mode)
    if other is not None:
        yield f"mtls.mode: {written.mode} replaced by {other}", place, replace(written, mode=other), None
    listed = written.port_level_mtls or {}
    for port, mode in listed.items():
        left = {number: value for number, value in listed.items() if number != port}
        yield f"portLevelMtls.{port} dropped", place, replace(written, port_level_mtls=left or None), None
        other = _OTHER_MODE.get(mode)
        if other is not None:
            new = {**listed, port: other}
            text = f"portLevelMtls.{port}.mode: {mode} replaced by {other}"
            yield text, place, replace(written, port_level_mtls=new), None

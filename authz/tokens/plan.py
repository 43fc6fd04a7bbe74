"""What can be said of a list of rules before any request is seen: locations, outputs, inline keys, cache names."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from authz.core.attributes import Authentication, AuthenticationOutcome, Token
from authz.core.resources import JwtRule, Presence
from authz.tokens.jwks import KeySet, read_key_set
from authz.tokens.key_sets import KeySets, KeySetState
from authz.tokens.locations import locations_of
from authz.tokens.output import output_names

MAX_PLANS = 1024
"""One per list of rules, so about one per workload; beyond it, the oldest goes and is made anew when needed."""

_ACCEPTED = AuthenticationOutcome.ACCEPTED
_PLANS: dict[int, tuple[tuple[JwtRule, ...], "Plan"]] = {}


class TokenPlace(NamedTuple):
    """One location a token can be found at."""

    kind: str
    """``header``, ``parameter`` or ``cookie``."""
    name: str
    prefix: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class PlannedRule:
    """One jwtRule with the places where its tokens may stand and where its keys come from."""

    rule: JwtRule
    places: tuple[TokenPlace, ...]
    """In the order of RA-13."""
    keys_from: str
    inline: KeySetState | None

    def state(self, key_sets: KeySets) -> KeySetState | None:
        """Return the keys of the rule; None: nobody has tried to fetch them yet."""
        return self.inline if self.inline is not None else key_sets.get(self.keys_from)


class Alone(NamedTuple):
    """The only rule of a workload, if it writes no headers, and where its only token is taken from."""

    planned: PlannedRule
    headers_to_remove: tuple[str, ...]
    parameters_to_remove: tuple[str, ...]

    def accept(self, token: Token) -> Authentication:
        """The answer to a good token, complete but for the rewritten path."""
        return Authentication(_ACCEPTED, token, 0, "", "", "", (), self.headers_to_remove, self.parameters_to_remove)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The jwtRules of a workload, prepared once for all of its requests."""

    rules: tuple[PlannedRule, ...]
    headers: tuple[TokenPlace, ...]
    """Places of all rules, each once."""
    parameters: frozenset[str]
    cookies: tuple[str, ...]
    output_names: tuple[str, ...]
    """Output headers of all rules, removed from every request (RA-49)."""
    cache_names: Mapping[TokenPlace, bytes]
    """Per place: digest of all rules and the place, the second half of a cache key."""
    no_token: Authentication
    """The answer to a request that carries none."""
    requires_token: bool
    """Some rule has presence REQUIRED."""
    alone: Mapping[TokenPlace, Alone]
    """Per place, what becomes of a token if it is the only one; empty if more than one rule has a say."""


def plan_for(jwt_rules: tuple[JwtRule, ...]) -> Plan:
    """Return the plan of the rules; found by the identity of the tuple, since hashing rules costs more than a check."""
    known = _PLANS.get(id(jwt_rules))
    if known is not None and known[0] is jwt_rules:
        return known[1]
    plan = make_plan(jwt_rules)
    if len(_PLANS) >= MAX_PLANS:
        _PLANS.pop(next(iter(_PLANS)), None)
    _PLANS[id(jwt_rules)] = (jwt_rules, plan)  # holding the tuple keeps its id from being given to another
    return plan


def forget_plans() -> None:
    """Drop every plan when policies are replaced: each keeps its rules alive."""
    _PLANS.clear()


def make_plan(jwt_rules: tuple[JwtRule, ...]) -> Plan:
    """Prepare the rules; an unreadable inline key set counts as never fetched (fails closed)."""
    outputs = frozenset().union(*(output_names(rule) for rule in jwt_rules))
    rules = tuple(
        PlannedRule(rule, _places_of(rule, outputs), rule.keys_from, _inline_keys(rule.jwks) if rule.jwks else None)
        for rule in jwt_rules
    )
    places = sorted({place for rule in rules for place in rule.places})
    digest = hashlib.sha256(repr(jwt_rules).encode("utf-8", "surrogatepass")).digest()
    is_alone = len(rules) == 1 and not outputs and not jwt_rules[0].is_asked_only
    return Plan(
        rules=rules,
        headers=tuple(place for place in places if place.kind == "header"),
        parameters=frozenset(place.name for place in places if place.kind == "parameter"),
        cookies=tuple(place.name for place in places if place.kind == "cookie"),
        output_names=tuple(sorted(outputs)),
        cache_names={place: hashlib.sha256(digest + repr(place).encode()).digest() for place in places},
        no_token=Authentication(headers_to_remove=tuple(sorted(outputs))),
        requires_token=any(rule.presence is Presence.REQUIRED for rule in jwt_rules),
        alone={place: _alone(rules[0], place) for place in places} if is_alone else {},
    )


def _alone(planned: PlannedRule, place: TokenPlace) -> Alone:
    """A token that is forwarded is not taken from its place; one in a cookie stays there (RA-45)."""
    names = () if planned.rule.forward_original_token else (place.name,)
    return Alone(planned, names if place.kind == "header" else (), names if place.kind == "parameter" else ())


def _places_of(rule: JwtRule, outputs: frozenset[str]) -> tuple[TokenPlace, ...]:
    """
    Places in the order of RA-13.

    Output headers are removed "before anything else" (RA-49), so a token can never be found in one.
    """
    locations = locations_of(rule)
    headers = (TokenPlace("header", name, prefix) for name, prefix in locations.headers if name not in outputs)
    parameters = (TokenPlace("parameter", name) for name in locations.parameters)
    cookies = (TokenPlace("cookie", name) for name in locations.cookies if "cookie" not in outputs)
    return (*headers, *parameters, *cookies)


def faulty_inline_keys(rules: Iterable[JwtRule]) -> dict[str, KeySetState]:
    """Key sets written in their rule of which something is not used, by ``keys_from``."""
    states = {rule.keys_from: _inline_keys(rule.jwks) for rule in rules if rule.jwks}
    return {
        name: state
        for name, state in states.items()
        if state.error or (state.key_set is not None and state.key_set.skipped)
    }


@lru_cache(maxsize=1024)
def _inline_keys(text: str) -> KeySetState:
    try:
        return KeySetState(read_key_set(text))
    except ValueError as error:
        return KeySetState(KeySet((), ""), error=str(error))

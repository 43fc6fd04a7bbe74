"""
The tokens that two lists of JWT rules can tell apart, and what becomes of each on both sides.

A token is characterised by who signed it, where it stands, its issuer and its audiences (RA-10, RA-24 to RA-35). A
forged or expired one is refused wherever some rule looks, so it matters only where one side looks and the other does
not. Key sets are compared key by key where they are written into the rules, and by where they come from elsewhere.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from authz.analysis.sets.boxes import Box, Literal
from authz.analysis.sets.claim_values import plain_audience
from authz.analysis.sets.request_variables import AUDIENCES, CLAIM, HEADER, METHOD, Variables
from authz.core.matchers import ascii_lower
from authz.core.resources import JwtRule, Presence

TokenSpot = tuple[str, str, str]
"""``header``, ``parameter`` or ``cookie``; its name; the prefix of the value."""
_DEFAULT_PLACES: tuple[TokenSpot, ...] = (("header", "authorization", "Bearer "), ("parameter", "access_token", ""))
STRANGER = "https://issuer.example"
"""An issuer that no rule names, for rules that take any."""


@dataclass(frozen=True, slots=True)
class TokenCase:
    """Tokens of one kind, or none."""

    box: Box
    """The audiences that such tokens have."""
    old: int = 0
    """What becomes of it: 0 it is not looked at, 200 accepted, else the status of the refusal (RA-40)."""
    new: int = 0
    issuer: str | None = None
    place: TokenSpot | None = None
    """None: no token."""
    key: str = ""
    """Who signed it: as in ``keys_of``; empty for one that nobody signed."""
    is_preflight: bool = False
    """A CORS preflight, which needs no token where others do (RA-44)."""


def places_of(rule: JwtRule) -> tuple[TokenSpot, ...]:
    """Where a rule looks for tokens (RA-10)."""
    found = [
        *(("header", ascii_lower(header.name), header.prefix) for header in rule.from_headers),
        *(("parameter", name, "") for name in rule.from_params),
        *(("cookie", name, "") for name in rule.from_cookies),
    ]
    return tuple(found) or _DEFAULT_PLACES


def keys_of(rule: JwtRule) -> frozenset[str]:
    """The keys of a rule that are written into it, else where they come from."""
    if not rule.jwks:
        return frozenset({rule.jwks_uri or f"discovery of {rule.issuer}"})
    try:
        keys = json.loads(rule.jwks)["keys"]
        return frozenset(json.dumps(key, sort_keys=True) for key in keys) or frozenset({rule.jwks})
    except (ValueError, KeyError, TypeError):
        return frozenset({rule.jwks})


def _meaning(rule: JwtRule) -> tuple[object, ...]:
    """What decides of a rule; neither its name nor where it stands."""
    return (
        rule.issuer, frozenset(map(plain_audience, rule.audiences)), keys_of(rule), places_of(rule),
        rule.forward_original_token, rule.output_payload_to_header, rule.output_claim_to_headers,
        rule.space_delimited_claims, rule.presence, rule.introspection,
    )  # fmt: skip


def are_alike(old: Sequence[JwtRule], new: Sequence[JwtRule]) -> bool:
    """Whether two lists of rules treat every token alike."""
    return [_meaning(rule) for rule in old] == [_meaning(rule) for rule in new]


def touched_headers(rules: Sequence[JwtRule]) -> set[str]:
    """Headers that JWT rules read, remove or write, in lower case."""
    touched: set[str] = set()
    for rule in rules:
        touched |= {output.header.lower() for output in rule.output_claim_to_headers}
        touched.add(rule.output_payload_to_header.lower())
        touched |= {name if kind == "header" else kind for kind, name, _ in places_of(rule)}
    return touched


def undecided_about(rules: Sequence[JwtRule], variables: Variables) -> Iterator[str]:
    """Why the tokens of these rules are not modelled beside what policies ask for."""
    if not rules:
        return
    for name in sorted(touched_headers(rules)):
        header = HEADER + name
        if header in variables.asked:
            yield f"policies ask for the header `{name}`, which JWT rules read, remove or write (RA-45, RA-49)"
    if {f"{HEADER}origin", f"{HEADER}access-control-request-method"} <= variables.asked:
        yield "policies ask for the headers of a CORS preflight, whose tokens are not looked at (RA-44)"
    if len(rules) > 1 and any(rule.presence is Presence.REQUIRED for rule in rules):
        yield "one of several JWT rules has presence REQUIRED"


def split_alike(old: Sequence[JwtRule], new: Sequence[JwtRule], variables: Variables) -> Iterator[str]:
    """Why one token may have other values on the two sides: a claim is split at blanks on one of them (RA-33)."""
    sides = [{name for rule in rules for name in rule.space_delimited_claims} for rules in (old, new)]
    for name in sorted(sides[0] ^ sides[1]):
        if CLAIM + name in variables.asked and name not in ("scope", "permission"):
            yield f"policies ask for the claim `{name}`, which the JWT rules of one side split at blanks (RA-33)"


def asked_elsewhere(old: Sequence[JwtRule], new: Sequence[JwtRule]) -> Iterator[str]:
    """Why tokens cannot be told apart by who signed them: issuers are asked about theirs, and the rules differ."""
    issuers = {rule.issuer for rule in (*old, *new) if rule.introspection is not None}
    if issuers and not are_alike(old, new):
        names = ", ".join(sorted(issuers))
        yield f"the JWT rules differ, and {names} is asked about opaque tokens (`tokenIntrospection`)"


def token_cases(
    old: Sequence[JwtRule], new: Sequence[JwtRule], variables: Variables, *, needed: bool
) -> Iterator[TokenCase]:
    """
    Every kind of token, no token first.

    Args:
        needed: whether some rule of a policy asks for a claim; without it, a token that both sides treat alike matters
            no more than none.
    """
    yield TokenCase({}, _without(old), _without(new))
    if _without(old) or _without(new):
        yield TokenCase(variables.only(METHOD, "OPTIONS"), is_preflight=True)
    if are_alike(old, new):
        if new:  # refused alike, but only where both sides see HTTP
            yield TokenCase({}, 401, 401, place=places_of(new[0])[0])
        if not needed and not (_without(old) or _without(new)):
            return
        kinds = dict.fromkeys((rule.issuer, rule.audiences) for rule in new)
        rules = [next(rule for rule in new if (rule.issuer, rule.audiences) == kind) for kind in kinds]
        for rule in rules:
            yield from _of_key(old, new, min(keys_of(rule)), places_of(rule)[0], variables, only=200)
        return
    both = [*old, *new]
    for key in sorted({key for rule in both for key in keys_of(rule)}):
        seen = dict.fromkeys(place for rule in both if key in keys_of(rule) for place in places_of(rule))
        for place in seen:
            yield from _of_key(old, new, key, place, variables)
    looked = [dict.fromkeys(place for rule in rules for place in places_of(rule)) for rules in (old, new)]
    for place in {**looked[0], **looked[1]}:  # a forged one, say
        yield TokenCase({}, 401 if place in looked[0] else _without(old), 401 if place in looked[1] else _without(new),
                        place=place)  # fmt: skip


def _without(rules: Sequence[JwtRule]) -> int:
    """What becomes of a request without a token."""
    return 401 if any(rule.presence is Presence.REQUIRED for rule in rules) else 0


def _of_key(
    old: Sequence[JwtRule], new: Sequence[JwtRule], key: str, place: TokenSpot, variables: Variables, only: int = 0
) -> Iterator[TokenCase]:
    """Tokens that one key signed, at one place, issuer by issuer; ``only`` those with this result on both sides."""
    holders = [rule for rule in (*old, *new) if key in keys_of(rule)]
    issuers: dict[str | None, None] = dict.fromkeys(rule.issuer for rule in holders if rule.issuer)
    if any(not rule.issuer for rule in holders):
        issuers |= {STRANGER: None, None: None}
    for issuer in issuers:
        for old_result, box in _results(old, key, place, issuer, variables, {}):
            for new_result, part in _results(new, key, place, issuer, variables, box):
                if not only or old_result == new_result == only:
                    yield TokenCase(part, old_result, new_result, issuer, place, key)


def _results(
    rules: Sequence[JwtRule], key: str, place: TokenSpot, issuer: str | None, variables: Variables, within: Box
) -> Iterator[tuple[int, Box]]:
    """What becomes of such tokens by their audiences: the results, each with the part of ``within`` that has it."""
    looking = [rule for rule in rules if place in places_of(rule)]
    if not looking:
        yield _without(rules), within
        return
    fitting = [rule for rule in looking if key in keys_of(rule) and (not rule.issuer or rule.issuer == (issuer or ""))]
    space, rest = variables.space, [within]
    for rule in fitting:
        if not rule.audiences:
            yield from ((200, box) for box in rest)
            return
        literal = audience_literal(rule.audiences, variables)
        for box in rest:
            accepted = space.narrow(box, literal)
            if accepted is not None:
                yield 200, accepted
        rest = [left for box in rest if (left := space.narrow(box, space.negated(literal))) is not None]
    yield from ((403 if fitting else 401, box) for box in rest)


def audience_literal(audiences: Sequence[str], variables: Variables) -> Literal:
    """Some audience of the token is one of these (RA-30, RA-31)."""
    wanted = {plain_audience(audience) for audience in audiences}
    number = variables.names[AUDIENCES]
    mask = 0
    for at, value in enumerate(variables.values[number]):
        if value is not None and plain_audience(value) in wanted:
            mask |= 1 << at
    return Literal(number, mask, some=True)

"""Tokens that their issuer is asked about: which, in which order, and what its answer means. No network."""

import time
from dataclasses import replace
from typing import Any

import pytest

from authz.core.attributes import (
    AttributeContext,
    Authentication,
    AuthenticationOutcome,
    Destination,
    HttpRequest,
    Source,
    Workload,
)
from authz.core.introspection import Introspection, TokenAnswer
from authz.core.resources import ClaimToHeader, JwtHeader, JwtRule, Presence
from authz.tokens.authenticate import authenticate
from authz.tokens.cache import TokenCache
from authz.tokens.opaque import KnownAnswer, MustAsk, not_asked
from authz.tokens.signing import jwks_text, make_keys, make_token

NOW = 1_800_000_000.0
KEYS = make_keys({"k": {"kty": "EC", "crv": "P-256", "kid": "k"}})
JWKS = jwks_text(KEYS.values())
ASKED = Introspection("https://asked.test", "https://asked.test/introspect", "authz", "/secret")
OTHER = Introspection("https://other.test", "https://other.test/introspect", "authz", "/secret")
RULE = JwtRule("https://asked.test", introspection=ASKED, name="shop/a/0")
OTHER_RULE = JwtRule("https://other.test", introspection=OTHER, name="shop/a/1")
JWT_RULE = JwtRule("https://jwt.test", jwks=JWKS, name="shop/a/2")
ACTIVE = TokenAnswer({"active": True, "sub": "alice", "client_id": "app", "scope": "read write", "exp": NOW + 100})
OPAQUE = "AB-._~+/12=="


def jwt(issuer: str, **claims: Any) -> str:
    return make_token({"key": "k", "alg": "ES256", "claims": {"iss": issuer, "sub": "s", **claims}}, KEYS, NOW)


def request(*tokens: str, path: str = "/", header: str = "authorization", prefix: str = "Bearer ") -> AttributeContext:
    headers = {header: tuple(f"{prefix}{token}" for token in tokens)} if tokens else {}
    return AttributeContext(Source(), Destination(Workload("shop")), HttpRequest("GET", "shop.test", path, headers))


class Issuers:
    """Answers from a table, and notes who was asked what."""

    def __init__(self, **answers: TokenAnswer) -> None:
        self.answers, self.asked = answers, list[tuple[str, str]]()

    def __call__(self, introspection: Introspection, token: str) -> TokenAnswer:
        self.asked.append((introspection.issuer, token))
        return self.answers.get(introspection.issuer.partition("//")[2].partition(".")[0], TokenAnswer(None))


def judge(
    rules: tuple[JwtRule, ...], attributes: AttributeContext, known: KnownAnswer, **others: Any
) -> Authentication:
    return authenticate(attributes, rules, {}, NOW, known_answer=known, **others)


def test_the_claims_of_an_active_token_are_usable_as_those_of_a_jwt() -> None:
    found = judge((RULE,), request(OPAQUE), Issuers(asked=ACTIVE))
    assert found.outcome is AuthenticationOutcome.ACCEPTED
    assert found.token is not None
    assert (found.token.issuer, found.token.subject, found.token.rule) == ("https://asked.test", "alice", "shop/a/0")
    assert found.token.claims["scope"] == ["read", "write"]
    assert found.token.claims["azp"] == "app"
    assert "active" not in found.token.claims
    assert (found.token.is_introspected, found.token.expires_at, found.token.key_id) == (True, NOW + 100, "")
    assert found.headers_to_remove == ("authorization",)  # as a JWT that is not forwarded (RA-45)


@pytest.mark.parametrize(
    ("claims", "audiences", "status", "body"),
    [
        ({"aud": "shop"}, ("shop",), 0, ""),
        ({"aud": ["a", "shop"]}, ("shop",), 0, ""),
        ({"aud": "other"}, ("shop",), 403, "Audiences in Jwt are not allowed"),
        ({}, ("shop",), 403, "Audiences in Jwt are not allowed"),
        ({"iss": "https://asked.test"}, (), 0, ""),
        ({"iss": "https://evil.test"}, (), 401, "Jwt issuer is not configured"),
        ({"iss": ""}, (), 401, "Jwt issuer is not configured"),
        ({"exp": NOW - 60}, (), 0, ""),
        ({"exp": NOW - 61}, (), 401, "Jwt is expired"),
        ({"nbf": NOW + 61}, (), 401, "Jwt not yet valid"),
        ({"exp": "soon"}, (), 401, "Jwt payload [exp] field is not an integer"),
        ({"sub": 7}, (), 401, "Jwt payload [sub] field is not a string"),
        ({"aud": 7}, (), 401, "Jwt payload [aud] field is not a string or string list"),
    ],
)
def test_an_answer_is_judged_as_the_payload_of_a_jwt(
    claims: dict[str, Any], audiences: tuple[str, ...], status: int, body: str
) -> None:
    answer = TokenAnswer({"active": True, "sub": "alice", **claims})
    found = judge((replace(RULE, audiences=audiences),), request(OPAQUE), Issuers(asked=answer))
    assert (found.status, found.body) == (status, body)
    assert (found.token is not None) == (status == 0)


@pytest.mark.parametrize(
    ("answer", "status", "body", "challenged"),
    [
        (TokenAnswer(None), 401, "Token is not active", True),
        (TokenAnswer(error="no answer within 2 s"), 503, "Token introspection fails", False),
    ],
)
def test_a_token_that_is_not_known_to_be_active_is_refused(
    answer: TokenAnswer, status: int, body: str, challenged: bool
) -> None:
    found = judge((RULE,), request(OPAQUE), Issuers(asked=answer))
    assert (found.outcome, found.status, found.body) == (AuthenticationOutcome.REJECTED, status, body)
    assert bool(found.challenge) is challenged
    assert OPAQUE not in found.reason
    if answer.error:
        assert answer.error in found.reason


@pytest.mark.parametrize(
    ("token", "rules", "asked"),
    [
        (OPAQUE, (RULE,), ["https://asked.test"]),
        (OPAQUE, (JWT_RULE, RULE), ["https://asked.test"]),
        (OPAQUE, (RULE, OTHER_RULE), ["https://asked.test", "https://other.test"]),
        (jwt("https://asked.test"), (RULE, OTHER_RULE), ["https://asked.test"]),
        (jwt("https://other.test"), (RULE, OTHER_RULE), ["https://other.test"]),
        (jwt("https://jwt.test"), (RULE, OTHER_RULE, JWT_RULE), []),
        (jwt("https://nobody.test"), (RULE, OTHER_RULE), []),
        (jwt("https://asked.test"), (replace(RULE, jwks=JWKS),), []),
        (OPAQUE, (replace(RULE, jwks=JWKS),), ["https://asked.test"]),
        (OPAQUE, (JWT_RULE,), []),
        ("a.b.c", (RULE,), ["https://asked.test"]),
        ("", (RULE,), []), ("a b", (RULE,), []), ("é", (RULE,), []), ("a,b", (RULE,), []),
        ("x" * 20_000, (RULE,), []),
        ("eyJhbGciOiJub25lIn0.e30.", (RULE,), ["https://asked.test"]),
        ("eyJhbGciOiJub25lIn0.e30.x", (RULE,), []),
        ("eyJhbGciOiJSU0EifQ.a.b.c.d", (RULE,), ["https://asked.test"]),
    ],
)  # fmt: skip
def test_an_issuer_sees_opaque_tokens_and_its_own_and_no_others(
    token: str, rules: tuple[JwtRule, ...], asked: list[str]
) -> None:
    issuers = Issuers()
    judge(rules, request(token), issuers)
    assert list(dict.fromkeys(issuer for issuer, _ in issuers.asked)) == asked


@pytest.mark.parametrize(
    ("token", "rules", "accepted"),
    [
        (OPAQUE, (JWT_RULE, RULE), "shop/a/0"),
        (OPAQUE, (RULE, OTHER_RULE), "shop/a/0"),
        (jwt("https://jwt.test"), (RULE, JWT_RULE), "shop/a/2"),
        (jwt("https://jwt.test", exp=NOW - 100), (RULE, JWT_RULE), ""),
        (jwt("https://asked.test"), (RULE, JWT_RULE), "shop/a/0"),
        (jwt("https://asked.test", exp=NOW - 100), (replace(RULE, jwks=JWKS),), ""),
        (jwt("https://asked.test")[:-6] + "AAAAAA", (replace(RULE, jwks=JWKS),), ""),
    ],
)
def test_a_jwt_is_judged_by_its_own_rule_and_no_other_issuer_can_save_it(
    token: str, rules: tuple[JwtRule, ...], accepted: str
) -> None:
    found = judge(rules, request(token), Issuers(asked=ACTIVE, other=ACTIVE))
    assert (found.token.rule if found.token is not None else "") == accepted


def test_what_is_not_known_is_a_question_that_shows_no_token() -> None:
    with pytest.raises(MustAsk) as needed:
        judge((RULE,), request(OPAQUE), lambda introspection, token: None)
    assert (needed.value.question.introspection, needed.value.question.token) == (ASKED, OPAQUE)
    assert OPAQUE not in repr(needed.value.question) + str(needed.value)


def test_offline_nobody_is_asked_and_the_token_is_refused() -> None:
    found = judge((RULE,), request(OPAQUE), not_asked)
    assert (found.status, "not asked offline" in found.reason) == (503, True)


@pytest.mark.parametrize("place", ["header", "parameter", "cookie"])
def test_an_opaque_token_stands_where_the_rule_says(place: str) -> None:
    rule = {
        "header": replace(RULE, from_headers=(JwtHeader("x-token", "T "),)),
        "parameter": replace(RULE, from_params=("t",)),
        "cookie": replace(RULE, from_cookies=("session",)),
    }[place]
    sent = {
        "header": request(OPAQUE, header="x-token", prefix="T "),
        "parameter": request(path="/?t=opaque123"),
        "cookie": request("session=opaque123", header="cookie", prefix=""),
    }[place]
    found = judge((rule,), sent, Issuers(asked=ACTIVE))
    assert found.outcome is AuthenticationOutcome.ACCEPTED
    assert found.rewritten_path == ("/" if place == "parameter" else None)


def test_an_output_header_has_the_issuers_word_and_a_forged_one_goes() -> None:
    rule = replace(RULE, output_claim_to_headers=(ClaimToHeader("x-sub", "sub"),), forward_original_token=True)
    assert judge((rule,), request(OPAQUE), Issuers(asked=ACTIVE)).headers_to_set == (("x-sub", "alice"),)
    assert "x-sub" in judge((rule,), request(), Issuers()).headers_to_remove


def test_a_second_token_that_is_not_active_refuses_the_request() -> None:
    class One(Issuers):
        def __call__(self, introspection: Introspection, token: str) -> TokenAnswer:
            return ACTIVE if token == OPAQUE else TokenAnswer(None)

    assert judge((RULE,), request(OPAQUE, "another"), One()).status == 401
    assert judge((RULE,), request("another", OPAQUE), One()).status == 401


def test_a_required_token_may_be_an_opaque_one() -> None:
    rule = replace(RULE, presence=Presence.REQUIRED)
    assert judge((rule,), request(), Issuers(asked=ACTIVE)).status == 401
    assert judge((rule,), request(OPAQUE), Issuers(asked=ACTIVE)).outcome is AuthenticationOutcome.ACCEPTED


def test_the_cache_of_verified_tokens_never_holds_one_that_was_asked_about() -> None:
    cache, issuers = TokenCache(), Issuers(asked=ACTIVE)
    for token in (OPAQUE, jwt("https://asked.test")):
        assert judge((RULE,), request(token), issuers, cache=cache).token is not None
    assert len(cache) == 0
    issuers.answers.clear()  # revoked
    assert judge((RULE,), request(OPAQUE), issuers, cache=cache).status == 401


def test_a_rule_with_keys_judges_jwts_as_before_however_many_rules_are_asked() -> None:
    rules = (replace(RULE, jwks=JWKS), OTHER_RULE)
    cache = TokenCache()
    token = jwt("https://asked.test", exp=time.time() + 10**9)
    for _ in range(2):
        found = judge(rules, request(token), Issuers(), cache=cache)
        assert found.token is not None
        assert not found.token.is_introspected
    assert cache.hits == 1

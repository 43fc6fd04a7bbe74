"""The stage as a whole: rules in order, several tokens, removal, outputs, preflights, REQUIRED, limits, the cache."""

import dataclasses
from typing import Any

from authz.core.attributes import NOT_AUTHENTICATED, AttributeContext, AuthenticationOutcome
from authz.core.resources import ClaimToHeader, JwtHeader, JwtRule, Presence
from authz.tokens.authenticate import authenticate
from authz.tokens.cache import TokenCache
from authz.tokens.key_sets import KeySetState
from authz.tokens.reasons import refusal_to_report
from authz.tokens.signing import jwks_text
from authz.tokens.token_refusals import Refusal
from tests.tokens.material import ISSUER, KEYS, NOW, bearer, judge, key_sets, keys_of, request, rule, table, token

NONE, ACCEPTED, REJECTED = AuthenticationOutcome
GOOD = token()
FORGED = token("rogue")
EXPIRED = token(claims={"exp": 1})
OTHER = token(claims={"iss": "other"})
BAD_FORMAT = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"


def raw(*names: str, **changes: Any) -> JwtRule:
    """A rule that reads the named headers, whole."""
    return rule(from_headers=tuple(JwtHeader(name) for name in names), **changes)


def test_without_rules_tokens_are_not_looked_at() -> None:
    """RA-2."""
    assert authenticate(bearer(FORGED), (), {}, NOW) is NOT_AUTHENTICATED


def test_tcp_has_no_jwt_stage() -> None:
    """EV-5."""
    assert judge(dataclasses.replace(request(), http=None)) is NOT_AUTHENTICATED


@table(
    "attributes",
    [
        request(),
        request({"authorization": f"bearer {FORGED}"}),
        request({"authorization": "Basic dTpw"}),
        request({"cookie": f"access_token={FORGED}"}),
        request(path=f"/?Access_Token={FORGED}"),
        bearer(FORGED, path="", method="CONNECT"),
    ],
)
def test_no_token_is_no_refusal(attributes: AttributeContext) -> None:
    """RA-3, RA-9, RA-16, SE-12, SE-14."""
    answer = judge(attributes)
    assert answer.outcome is NONE
    assert attributes.after(answer).http == attributes.http


@table("name", ["access_token", "%61ccess_token", "access%5Ftoken", "%61%63%63%65%73%73%5f%74%6f%6b%65%6e"])
def test_a_forged_token_is_refused_however_its_parameter_is_written(name: str) -> None:
    """RA-18."""
    answer = judge(request(path=f"/?a=1&{name}={FORGED}"))
    assert (answer.outcome, answer.status) == (REJECTED, 401)


def test_path_without_slash_is_refused() -> None:
    """RA-9."""
    answer = judge(bearer(GOOD, path="*", method="OPTIONS"))
    assert (answer.outcome, answer.status) == (REJECTED, 400)


def test_refusal_is_complete() -> None:
    answer = judge(bearer(EXPIRED, path="/orders?id=7&access_token=x", host="shop"))
    assert (answer.outcome, answer.status, answer.token) == (REJECTED, 401, None)
    assert answer.challenge == 'Bearer realm="http://shop/orders?id=7&access_token=redacted", error="invalid_token"'
    what = "1 section, so it is opaque: not a JWT"
    assert answer.reason == f"{BAD_FORMAT}: {what} (parameter access_token, rule ns/jwt/0)"
    assert EXPIRED not in repr(answer)


@table(
    ("headers", "path", "outcome", "body"),
    [
        ({"x-a": GOOD, "x-b": GOOD}, "/", ACCEPTED, ""),
        ({"x-a": GOOD, "x-b": FORGED}, "/", REJECTED, "Jwt verification fails"),
        ({"x-a": FORGED, "x-b": GOOD}, "/", REJECTED, "Jwt verification fails"),
        ({"x-a": [GOOD, FORGED]}, "/", REJECTED, "Jwt verification fails"),
        ({"x-a": [GOOD, GOOD]}, "/", ACCEPTED, ""),
        ({"x-a": ""}, "/", REJECTED, BAD_FORMAT),
        ({"x-a": GOOD}, "/?t=", REJECTED, BAD_FORMAT),
        ({"x-a": GOOD}, f"/?t={FORGED}", REJECTED, "Jwt verification fails"),
        ({"x-a": FORGED}, f"/?t={EXPIRED}", REJECTED, "Jwt is expired"),
        ({"x-a": EXPIRED, "x-b": FORGED}, "/", REJECTED, "Jwt verification fails"),
        ({"x-a": [EXPIRED, FORGED]}, "/", REJECTED, "Jwt verification fails"),
        ({"x-a": FORGED, "cookie": f"c={EXPIRED}"}, f"/?t={OTHER}", REJECTED, "Jwt is expired"),
        ({"cookie": f"c={GOOD}"}, "/", ACCEPTED, ""),
        ({"x-c": FORGED, "authorization": f"Bearer {FORGED}"}, f"/?access_token={FORGED}", NONE, ""),
        ({}, f"/?t={GOOD}&t={FORGED}", ACCEPTED, ""),
    ],
)
def test_every_token_of_a_rule_must_verify_the_last_one_first(
    headers: dict[str, Any], path: str, outcome: AuthenticationOutcome, body: str
) -> None:
    """RA-10 to RA-13, RA-17, RA-18, RA-20, SE-21."""
    answer = judge(request(headers, path), raw("x-b", "x-a", from_params=("t",), from_cookies=("c",)))
    assert (answer.outcome, answer.body) == (outcome, body)


def test_claims_are_those_of_the_first_location() -> None:
    """RA-13, RA-51."""
    texts = {name: token(claims={"sub": name}) for name in ("header", "parameter", "cookie")}
    reader = raw("x-a", from_params=("t",), from_cookies=("c",))
    headers = {"x-a": texts["header"], "cookie": f"c={texts['cookie']}"}
    subjects = []
    for shown in (headers, {"cookie": headers["cookie"]}):
        answer = judge(request(shown, f"/?t={texts['parameter']}"), reader)
        assert answer.token is not None
        subjects.append(answer.token.subject)
    assert subjects == ["header", "parameter"]


UNKNOWN = Refusal(401, "unknown", is_unknown_issuer=True)
A, B = Refusal(401, "a"), Refusal(403, "b")


@table(
    ("outcomes", "expected"),
    [
        ([None, None], None),
        ([None, UNKNOWN], UNKNOWN),
        ([UNKNOWN, None], UNKNOWN),
        ([UNKNOWN, A], A),
        ([A, UNKNOWN], A),
        ([A, B], A),
        ([B, A], B),
        ([None, A, B], A),
        ([UNKNOWN, A, B], B),
    ],
)
def test_which_failure_is_reported(outcomes: list[Refusal | None], expected: Refusal | None) -> None:
    """RA-8, computed by hand from its text."""
    assert refusal_to_report(outcomes) is expected


@table(
    ("a", "b", "outcome", "principal"),
    [
        (GOOD, OTHER, ACCEPTED, ISSUER),
        (GOOD, "x", ACCEPTED, ISSUER),
        (EXPIRED, OTHER, ACCEPTED, "other"),
        ("x", OTHER, ACCEPTED, "other"),
        (None, OTHER, ACCEPTED, "other"),
        (EXPIRED, None, REJECTED, None),
        (None, GOOD, REJECTED, None),
        (None, None, NONE, None),
    ],
)
def test_first_rule_that_succeeds_with_a_token_decides(
    a: str | None, b: str | None, outcome: AuthenticationOutcome, principal: str | None
) -> None:
    """RA-5, RA-6."""
    rules = (raw("x-a"), raw("x-b", issuer="other"))
    headers = {name: text for name, text in (("x-a", a), ("x-b", b)) if text is not None}
    answer = judge(request(headers), *rules)
    assert answer.outcome is outcome
    assert (answer.token.issuer if answer.token else None) == principal


@table("forward", [False, True])
@table(
    ("headers", "path", "removed", "rewritten"),
    [
        ({"x-a": [GOOD, GOOD], "x-c": "v"}, "/?a=%20", ("x-a",), None),
        ({"cookie": f"c={GOOD}; d=e"}, "/", (), None),
        ({}, f"/?b=%2B&t={GOOD}&a", (), "/?a=&b=+"),
        ({"x-a": GOOD}, f"/?t={GOOD}", ("x-a",), "/"),
    ],
)
def test_accepted_tokens_are_removed_unless_forwarded(
    forward: bool, headers: dict[str, Any], path: str, removed: tuple[str, ...], rewritten: str | None
) -> None:
    """RA-45, EV-6: the whole header goes, cookies stay, the query is rewritten."""
    reader = raw("x-a", from_params=("t",), from_cookies=("c",), forward_original_token=forward)
    attributes = request(headers, path)
    answer = judge(attributes, reader)
    assert answer.outcome is ACCEPTED
    assert answer.headers_to_remove == (() if forward else removed)
    assert answer.rewritten_path == (None if forward else rewritten)
    assert answer.query_parameters_to_remove == (("t",) if rewritten and not forward else ())
    after = attributes.after(answer).http
    assert after is not None
    assert after.path == (rewritten or path if not forward else path)


def test_header_with_and_without_tokens_goes_as_a_whole() -> None:
    reader = rule(from_headers=(JwtHeader("x-a", "Tok "),))
    answer = judge(request({"x-a": [f"Tok {GOOD}", "plain"]}), reader)
    assert answer.headers_to_remove == ("x-a",)


def test_query_that_cannot_be_rewritten_is_refused() -> None:
    """RA-45; also from the cache."""
    cache = TokenCache()
    assert judge(request(path=f"/?access_token={GOOD}&a=1"), cache=cache).rewritten_path == "/?a=1"
    answer = judge(request(path=f"/?access_token={GOOD}&a=%0d%0ax"), cache=cache)
    assert (answer.outcome, answer.status) == (REJECTED, 400)
    assert GOOD not in repr(answer)


def test_tokens_of_other_rules_stay() -> None:
    """RA-45."""
    rules = (raw("x-a"), raw("x-b", issuer="other"))
    assert judge(request({"x-a": GOOD, "x-b": OTHER}), *rules).headers_to_remove == ("x-a",)


OUTPUTS = rule(output_payload_to_header="X-Payload", output_claim_to_headers=(ClaimToHeader("X-Sub", "sub"),))
FORGED_OUTPUTS: dict[str, str | list[str]] = {"x-payload": "forged", "x-sub": ["root", "root"]}


@table("rules", [(OUTPUTS,), (OUTPUTS, rule(issuer="zzz"))])
def test_outputs_carry_verified_values(rules: tuple[JwtRule, ...]) -> None:
    """RA-47, RA-48; forged values are overwritten."""
    attributes = request(FORGED_OUTPUTS | {"authorization": f"Bearer {GOOD}"})
    after = attributes.after(judge(attributes, *rules))
    assert after.header("x-payload") == (GOOD.split(".")[1],)
    assert after.header("x-sub") == ("alice",)


@table(
    ("method", "headers"),
    [
        ("GET", {}),
        ("GET", {"authorization": f"Bearer {OTHER}"}),
        ("OPTIONS", {"origin": "o", "access-control-request-method": "GET", "authorization": f"Bearer {FORGED}"}),
    ],
)
def test_forged_outputs_of_any_rule_are_removed(method: str, headers: dict[str, str]) -> None:
    """RA-44, RA-49, RA-50, SE-40."""
    attributes = request(FORGED_OUTPUTS | headers, method=method)
    answer = judge(attributes, OUTPUTS, rule(issuer="other"))
    assert answer.outcome in (NONE, ACCEPTED)
    after = attributes.after(answer)
    assert after.header("x-payload") == after.header("x-sub") == ()


def test_token_in_an_output_header_is_removed_before_it_is_seen() -> None:
    """RA-49: "before anything else"."""
    reader = raw("x-a", output_claim_to_headers=(ClaimToHeader("X-A", "sub"),))
    for text in (GOOD, FORGED):
        answer = judge(request({"x-a": text}), reader)
        assert (answer.outcome, answer.headers_to_remove) == (NONE, ("x-a",))


@table(
    ("method", "origin", "asked", "outcome"),
    [
        ("OPTIONS", "o", "GET", NONE),
        ("OPTIONS", "", "GET", REJECTED),
        ("OPTIONS", "o", "", REJECTED),
        ("OPTIONS", None, "GET", REJECTED),
        ("OPTIONS", "o", None, REJECTED),
        ("GET", "o", "GET", REJECTED),
        ("options", "o", "GET", REJECTED),
    ],
)
def test_preflights_skip_the_stage(
    method: str, origin: str | None, asked: str | None, outcome: AuthenticationOutcome
) -> None:
    """RA-44, SE-46."""
    headers = {"authorization": f"Bearer {FORGED}", "origin": origin, "access-control-request-method": asked}
    given = {name: value for name, value in headers.items() if value is not None}
    assert judge(request(given, method=method)).outcome is outcome


REQUIRED = Presence.REQUIRED


@table(
    ("rules", "headers", "body"),
    [
        ((raw("x-a", presence=REQUIRED),), {"x-a": GOOD}, ""),
        ((raw("x-a", presence=REQUIRED),), {}, "Jwt is missing"),
        ((raw("x-a", presence=REQUIRED),), {"x-a": EXPIRED}, "Jwt is expired"),
        ((raw("x-a", presence=REQUIRED),), {"x-a": OTHER}, "Jwt issuer is not configured"),
        ((raw("x-a"), raw("x-b", presence=REQUIRED, issuer="other")), {"x-a": GOOD}, "Jwt is missing"),
        ((raw("x-a"), raw("x-b", presence=REQUIRED, issuer="other")), {"x-a": GOOD, "x-b": OTHER}, ""),
        ((raw("x-a"), raw("x-b", presence=REQUIRED, issuer="other")), {"x-a": GOOD, "x-b": "x"}, BAD_FORMAT),
        ((raw("x-a"), raw("x-b", presence=REQUIRED, issuer="other")), {"x-b": OTHER}, ""),
        ((raw("x-a", presence=REQUIRED), raw("x-a", issuer="other")), {"x-a": OTHER}, "Jwt is missing"),
    ],
)
def test_required_rule_needs_a_token_of_its_own(rules: tuple[JwtRule, ...], headers: dict[str, str], body: str) -> None:
    """Section 10; with and without a cache."""
    for cache in (None, TokenCache()):
        for _ in range(2):
            answer = judge(request(headers), *rules, cache=cache)
            assert answer.body == body
            assert (answer.outcome is REJECTED) == bool(body)
            assert answer.status == (401 if body else 0)


def test_oversized_token_is_refused_unread() -> None:
    answer = judge(bearer(GOOD), max_token_bytes=len(GOOD) - 1)
    assert (answer.status, answer.body) == (401, BAD_FORMAT)
    assert answer.reason.startswith(f"oversized token: {len(GOOD)} bytes, at most {len(GOOD) - 1}")
    assert judge(bearer(GOOD), max_token_bytes=len(GOOD)).outcome is ACCEPTED


def test_unknown_key_gives_a_hint() -> None:
    hints: list[str] = []
    asked = rule()
    for text, expected in ((token(kid="new"), 1), (FORGED, 1), (EXPIRED, 1), ("x", 1)):
        judge(bearer(text), asked, on_unknown_key=hints.append)
        assert hints == [asked.keys_from] * expected
    judge(bearer(GOOD), asked, key_sets={}, on_unknown_key=hints.append)
    assert hints == [asked.keys_from] * 2
    judge(bearer(token(kid="new")), rule(jwks=jwks_text([KEYS["rsa"]])), on_unknown_key=hints.append)
    assert len(hints) == 2, "an inline set has nobody to ask"


def test_never_fetched_keys_are_named_in_the_reason() -> None:
    """RA-39."""
    state = {rule().keys_from: KeySetState(None, None, "connection refused")}
    answer = judge(bearer(GOOD), key_sets=state)
    assert answer.body == "Jwt verification fails"
    assert f"key set of issuer {ISSUER} was never fetched: connection refused" in answer.reason


@table("jwks", ['{"keys":[]}', "not JSON", '{"keys":[{"kty":"RSA"}]}'])
def test_unusable_inline_set_refuses_tokens_only(jwks: str) -> None:
    """RA-37."""
    answer = judge(bearer(GOOD), rule(jwks=jwks))
    assert (answer.status, answer.body) == (401, "Jwks doesn't have any valid public key")
    assert judge(request(), rule(jwks=jwks)).outcome is NONE


class TestCache:
    def test_a_hit_answers_the_same(self) -> None:
        cache, rules = TokenCache(), (rule(),)
        first, second = (judge(bearer(GOOD), *rules, cache=cache) for _ in range(2))
        assert first == second
        assert second.token is first.token
        assert (cache.hits, cache.misses, len(cache)) == (1, 1, 1)

    @table(
        ("claims", "later", "body"),
        [
            ({"exp": NOW + 10}, 70, ""),
            ({"exp": NOW + 10}, 70.9, ""),
            ({"exp": NOW + 10}, 71, "Jwt is expired"),
            ({"nbf": NOW}, -60, ""),
            ({"nbf": NOW}, -61, "Jwt not yet valid"),
            ({"exp": 0}, 1e9, ""),
        ],
    )
    def test_times_are_checked_on_every_hit(self, claims: dict[str, Any], later: float, body: str) -> None:
        cache, text = TokenCache(), token(claims=claims)
        assert judge(bearer(text), cache=cache).outcome is ACCEPTED
        assert judge(bearer(text), cache=cache, now=NOW + later).body == body

    def test_expired_entry_is_dropped(self) -> None:
        cache = TokenCache()
        judge(bearer(GOOD), cache=cache)
        judge(bearer(GOOD), cache=cache, now=NOW + 1e6)
        assert len(cache) == 0

    def test_key_change_forgets(self) -> None:
        cache, asked = TokenCache(), rule()
        assert judge(bearer(GOOD), asked, cache=cache).outcome is ACCEPTED
        for state in (KeySetState(keys_of("rogue"), NOW), KeySetState(None, None, "gone"), None):
            given = {asked.keys_from: state} if state else {}
            assert judge(bearer(GOOD), asked, cache=cache, key_sets=given).body == "Jwt verification fails"
        assert judge(bearer(GOOD), asked, cache=cache).outcome is ACCEPTED

    @table(
        "changed",
        [
            rule(audiences=("shop",)),
            rule(issuer="other"),
            rule(jwks_uri="https://elsewhere.example"),
        ],
    )
    def test_policy_change_forgets(self, changed: JwtRule) -> None:
        cache = TokenCache()
        assert judge(bearer(GOOD), rule(), cache=cache).outcome is ACCEPTED
        assert judge(bearer(GOOD), changed, cache=cache, key_sets=key_sets(rule())).outcome is REJECTED

    def test_equal_rules_read_again_keep_the_entries(self) -> None:
        cache = TokenCache()
        judge(bearer(GOOD), rule(), cache=cache)
        judge(bearer(GOOD), rule(), cache=cache)
        assert cache.hits == 1

    def test_place_of_the_token_is_part_of_the_entry(self) -> None:
        cache, rules = TokenCache(), (raw("x-a", "x-b", from_params=("t",)),)
        for place in ("x-a", "x-b"):
            assert judge(request({place: GOOD}), *rules, cache=cache).headers_to_remove == (place,)
        assert judge(request(path=f"/?t={GOOD}&a=1"), *rules, cache=cache).rewritten_path == "/?a=1"
        assert judge(request(path=f"/?t={GOOD}&a=2"), *rules, cache=cache).rewritten_path == "/?a=2"
        assert cache.hits == 1

    def test_second_rule_is_not_remembered_while_the_first_may_still_win(self) -> None:
        """A token that is refused for its signature today may verify with tomorrow's keys (RA-5)."""
        first = rule(jwks_uri="https://first.example", name="first")
        second = rule(jwks_uri="https://second.example", name="second")
        cache, old, new = TokenCache(), KeySetState(keys_of("rogue"), NOW), KeySetState(keys_of("rsa"), NOW)
        for state, expected in ((old, "second"), (new, "first")):
            given = {first.keys_from: state, second.keys_from: new}
            answer = judge(bearer(GOOD), first, second, cache=cache, key_sets=given)
            assert answer.token is not None
            assert answer.token.rule == expected

    def test_second_rule_of_another_issuer_is_remembered(self) -> None:
        cache, rules = TokenCache(), (rule(issuer="a"), rule())
        for _ in range(2):
            assert judge(bearer(GOOD), *rules, cache=cache).outcome is ACCEPTED
        assert cache.hits == 1

    def test_refusals_are_not_remembered(self) -> None:
        cache = TokenCache()
        for text in (FORGED, EXPIRED, OTHER, "x", "é"):
            assert judge(bearer(text), cache=cache).outcome is REJECTED
        assert len(cache) == 0

    def test_size_is_bounded(self) -> None:
        cache = TokenCache(max_entries=3)
        for number in range(5):
            judge(bearer(token(claims={"n": number})), cache=cache)
        assert len(cache) == 3
        cache.clear()
        assert len(cache) == 0

    def test_no_token_is_held(self) -> None:
        cache = TokenCache()
        judge(bearer(GOOD), cache=cache)
        assert not any(part in repr(cache._entries) for part in GOOD.split("."))

"""What people are told of a refused token: both sides of what was compared."""

import pytest

from authz.core.attributes import Json
from authz.core.resources import JwtRule
from authz.tokens.parsed import ParsedToken, read_token
from authz.tokens.reasons import in_words, unknown_issuer
from authz.tokens.signing import make_keys, make_token
from authz.tokens.token_refusals import AUDIENCE, BAD_FORMAT, EXPIRED, NOT_YET_VALID, Refusal

KEYS = make_keys({"k": {"kty": "EC", "crv": "P-256"}})
NOW = 1_700_000_000.0


def parsed(**claims: Json) -> ParsedToken:
    text = make_token({"key": "k", "alg": "ES256", "claims": claims}, KEYS, NOW)
    token = read_token(text)
    assert isinstance(token, ParsedToken)
    return token


@pytest.mark.parametrize(
    ("claims", "audiences", "said"),
    [
        ({}, ("a",), "the token has no aud, rule ns/jwt/0 wants `a`"),
        ({"aud": "b"}, ("a", "c"), "the token has aud `b`, rule ns/jwt/0 wants one of `a`, `c`"),
        ({"aud": ["b", "d"]}, ("a",), "the token has aud `b`, `d`, rule ns/jwt/0 wants `a`"),
        ({"aud": []}, ("a",), "the token has aud an empty list, rule ns/jwt/0 wants `a`"),
        ({"aud": "Cart"}, ("cart",), "wants `cart`; differs by upper and lower case"),
    ],
)
def test_an_audience_is_told_with_what_is_wanted(
    claims: dict[str, Json], audiences: tuple[str, ...], said: str
) -> None:
    rule = JwtRule(issuer="i", audiences=audiences, name="ns/jwt/0")
    assert said in in_words(AUDIENCE, "", parsed(**claims), rule, NOW)


@pytest.mark.parametrize(
    ("issuer", "first"),
    [
        ("https://a.example/", "`https://a.example` (rule ns/jwt/1, differs by a slash at the end)"),
        ("http://a.example", "`https://a.example` (rule ns/jwt/1, differs by the scheme)"),
        ("HTTPS://A.example", "`https://a.example` (rule ns/jwt/1, differs by upper and lower case)"),
        ("https://b.example/realms/x", "`https://b.example/realms/one`"),
        ("", "`https://a.example`, `https://b.example/realms/one`, `other`"),
    ],
)
def test_all_issuers_are_told_the_nearest_first(issuer: str, first: str) -> None:
    names = ("other", "https://a.example", "https://b.example/realms/one")
    rules = [JwtRule(issuer=name, name=f"ns/jwt/{at}") for at, name in enumerate(names)]
    said = unknown_issuer(parsed(iss=issuer), rules)
    assert f"; the rules expect {first}" in said
    assert all(f"`{name}`" in said for name in names)


def test_many_issuers_are_cut() -> None:
    said = unknown_issuer(parsed(iss="x"), [JwtRule(issuer=f"https://{at}.example") for at in range(100)])
    assert said.endswith(" and 68 more")
    assert len(said) < 2000


@pytest.mark.parametrize(
    ("refusal", "text", "said"),
    [
        (BAD_FORMAT, "opaque", "1 section, so it is opaque: not a JWT"),
        (BAD_FORMAT, "", "it is empty: not a JWT"),
        (BAD_FORMAT, "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", "2 sections"),
        (BAD_FORMAT, "ya29.a0AfB_byC4xO", "2 sections, so it is opaque: not a JWT"),
        (BAD_FORMAT, "a.b.c.d.e", "encrypted (JWE)"),
        (BAD_FORMAT, "a..c.d.e", "5 sections, so it is encrypted (JWE)"),
        (BAD_FORMAT, "Bearer a.b.c", "the value begins with `Bearer `; give `fromHeaders` the prefix `Bearer `"),
    ],
)
def test_a_text_that_is_no_token_is_told_without_repeating_it(refusal: Refusal, text: str, said: str) -> None:
    told = in_words(refusal, text, None, JwtRule(), NOW)
    assert told.startswith(f"{refusal.body}: ")
    assert said in told


def test_times_are_told_in_words() -> None:
    late, early = parsed(exp=NOW - 7_260), parsed(nbf=NOW + 360)
    assert "2 h ago" in in_words(EXPIRED, "", late, JwtRule(), NOW)
    assert "becomes valid in 5 min" in in_words(NOT_YET_VALID, "", early, JwtRule(), NOW)

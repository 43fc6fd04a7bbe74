"""One token against one rule and key set: every row of RA-40, the order of checks, and key selection."""

import json
from typing import Any

from authz.core.resources import JwtRule
from authz.tokens.base64url import write_base64url
from authz.tokens.jwks import read_key_set
from authz.tokens.key_sets import KeySetState
from authz.tokens.parsed import ParsedToken, read_token
from authz.tokens.signing import jwks_text, make_token, sign_text
from authz.tokens.token_refusals import Refusal
from authz.tokens.verify import accepted_token, check_token
from tests.tokens.material import ISSUER, KEYS, NOW, keys_of, rule, table, token

BAD_FORMAT = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
FAILS = "Jwt verification fails"
NO_KEY = "Jwks doesn't have key to match kid or alg from Jwt"


def verify(text: str, *keys: str, now: float = NOW, of: JwtRule | None = None) -> tuple[int, str]:
    """Status and body; ``(0, "")`` for a good token."""
    parsed = read_token(text)
    state = KeySetState(keys_of(*(keys or ("rsa",))), NOW)
    result = parsed if isinstance(parsed, Refusal) else check_token(parsed, of or rule(), state, now)
    return (result.status, result.body) if result is not None else (0, "")


def signed(header: str | bytes = '{"alg":"RS256"}', payload: str | bytes = "{}") -> str:
    """A token with exactly this header and payload text, properly signed."""
    raw = [part.encode() if isinstance(part, str) else part for part in (header, payload)]
    return sign_text(raw[0], raw[1], KEYS["rsa"], "RS256")


def payload(members: str) -> str:
    return signed(payload=f'{{"iss":"{ISSUER}","sub":"s",{members}}}')


GOOD = token()
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")


def test_good_token_is_good() -> None:
    assert verify(GOOD) == (0, "")


@table(
    "text",
    ["", ".", "...", "abc", "a.b", "a.b.", ".a.b", "a.b.c.d", f"{HEADER}.{PAYLOAD}.", f"{HEADER}..{PAYLOAD}"],
)
def test_other_than_three_pieces_is_bad_format(text: str) -> None:
    """RA-21."""
    assert verify(text) == (401, BAD_FORMAT)


def test_empty_pieces_are_ignored() -> None:
    """RA-21."""
    assert verify(f".{HEADER}..{PAYLOAD}.{SIGNATURE}.") == (0, "")


@table(
    ("text", "body"),
    [
        (f"{HEADER}===.{PAYLOAD}.{SIGNATURE}", "Jwt header is an invalid Base64url encoded"),
        (f"{HEADER[:4]}={HEADER[4:]}.{PAYLOAD}.{SIGNATURE}", "Jwt header is an invalid Base64url encoded"),
        (f"é.{PAYLOAD}.{SIGNATURE}", "Jwt header is an invalid Base64url encoded"),
        (f"AAAAA.{PAYLOAD}.{SIGNATURE}", "Jwt header is an invalid Base64url encoded"),
        (f"{HEADER}.{PAYLOAD}+.{SIGNATURE}", "Jwt payload is an invalid Base64url encoded"),
        (f"{HEADER}.{PAYLOAD}\0.{SIGNATURE}", "Jwt payload is an invalid Base64url encoded"),
        (f"{HEADER}.{PAYLOAD}.{SIGNATURE}/", "Jwt signature is an invalid Base64url encoded"),
        (f"{HEADER}.{PAYLOAD}.{SIGNATURE}, x", "Jwt signature is an invalid Base64url encoded"),
        (f"{HEADER}.{PAYLOAD}.{SIGNATURE}\ud800", "Jwt signature is an invalid Base64url encoded"),
    ],
)
def test_what_is_no_base64url_is_refused(text: str, body: str) -> None:
    """RA-21, RA-40."""
    assert verify(text) == (401, body)


@table(
    ("header", "body"),
    [
        ("", BAD_FORMAT),
        ("x", "Jwt header is an invalid JSON"),
        ("[]", "Jwt header is an invalid JSON"),
        ("null", "Jwt header [alg] field is required and must be a string"),
        (b'{"alg":"\xff"}', "Jwt header is an invalid JSON"),
        ('{"alg":"RS256","alg":"RS256"}', "Jwt header is an invalid JSON"),
        ('{"alg":"RS256"} x', "Jwt header is an invalid JSON"),
        ("{}", "Jwt header [alg] field is required and must be a string"),
        ('{"alg":null}', "Jwt header [alg] field is required and must be a string"),
        ('{"alg":["RS256"]}', "Jwt header [alg] field is required and must be a string"),
        ('{"alg":"none"}', "Jwt header [alg] is not supported"),
        ('{"alg":"None"}', "Jwt header [alg] is not supported"),
        ('{"alg":"NONE","kid":5}', "Jwt header [alg] is not supported"),
        ('{"alg":""}', "Jwt header [alg] is not supported"),
        ('{"alg":"rs256"}', "Jwt header [alg] is not supported"),
        ('{"alg":"RS1"}', "Jwt header [alg] is not supported"),
        ('{"alg":"ES256K"}', "Jwt header [alg] is not supported"),
        ('{"alg":"RS256","kid":5}', "Jwt header [kid] field is not a string"),
        ('{"alg":"RS256","kid":null}', "Jwt header [kid] field is not a string"),
    ],
)
def test_bad_header(header: str | bytes, body: str) -> None:
    """RA-21, RA-22; checked before the payload is looked at."""
    assert verify(signed(header, "not JSON")) == (401, body)


@table(
    "text",
    [
        "x",
        "[]",
        '"s"',
        b"\xff",
        '{"iss":"i","iss":"i"}',
        '{"a":{"b":1,"b":1}}',
        '{"a":1e400}',
        '{"a":-1e400}',
        '{"a":' + "9" * 400 + "}",
        '{"a":' + "9" * 5000 + "}",
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"a":-Infinity}',
        '{"a":"\\ud800"}',
        '{"\\udfff":1}',
        '{"a":1,,}',
        "{'a\":1}",
        '\ufeff{"a":1}',
        '{"a":' + "[" * 100 + "]" * 100 + "}",
        "[" * 100_000,
    ],
)
def test_payload_that_protobuf_does_not_read(text: str | bytes) -> None:
    """RA-23."""
    assert verify(signed(payload=text)) == (401, "Jwt payload is an invalid JSON")


def test_brackets_in_strings_do_not_nest() -> None:
    assert verify(payload('"a":"' + '[{\\"' * 200 + '"')) == (0, "")


@table(
    ("members", "body"),
    [
        *(
            (f'"{name}":{value}', f"Jwt payload [{name}] field is not a string")
            for name in ("jti",)
            for value in ("5", "null", "[]")
        ),
        *(
            (f'"{name}":{value}', f"Jwt payload [{name}] field is not an integer")
            for name in ("iat", "nbf", "exp")
            for value in ('"5"', "null", "true", "[]", "{}")
        ),
        *(
            (f'"{name}":{value}', f"Jwt payload [{name}] field is not a positive 64 bit integer")
            for name in ("iat", "nbf", "exp")
            for value in ("-1", "-0.5", "18446744073709551616", "1e300")
        ),
        *(
            (f'"aud":{value}', "Jwt payload [aud] field is not a string or string list")
            for value in ("5", "null", "[1]", '["a",null]', "{}", "true")
        ),
    ],
)
def test_wrong_payload_types(members: str, body: str) -> None:
    """RA-23: refused whatever the signature."""
    assert verify(payload(members)) == (401, body)


@table("name", ["iss", "sub"])
@table("value", ["5", "null", "true", "[]"])
def test_issuer_and_subject_are_strings(name: str, value: str) -> None:
    assert verify(signed(payload=f'{{"{name}":{value}}}')) == (401, f"Jwt payload [{name}] field is not a string")


@table("members", ['"iat":1.5', '"exp":4e9', '"exp":0', '"exp":1e10,"nbf":0.5', '"crit":["x"]', '"aud":[]'])
def test_unusual_but_right_payloads(members: str) -> None:
    assert verify(payload(members)) == (0, "")


@table(
    ("issuer", "claims", "expected"),
    [
        (ISSUER, {}, 0),
        (ISSUER, {"iss": ISSUER + "/"}, 401),
        (ISSUER, {"iss": ISSUER.upper()}, 401),
        (ISSUER, {"iss": ""}, 401),
        (ISSUER, {"iss": ...}, 401),
        ("", {}, 0),
        ("", {"iss": ...}, 0),
        ("", {"iss": "anyone"}, 0),
    ],
)
def test_issuer(issuer: str, claims: dict[str, Any], expected: int) -> None:
    """RA-24."""
    status, body = verify(token(claims=claims), of=rule(issuer=issuer))
    assert status == expected
    assert body == ("Jwt issuer is not configured" if expected else "")


@table(
    ("claims", "body"),
    [
        ({"exp": NOW - 60}, ""),
        ({"exp": NOW - 60.0}, ""),
        ({"exp": NOW - 61}, "Jwt is expired"),
        ({"exp": 1}, "Jwt is expired"),
        ({"exp": 0.5}, ""),
        ({"exp": NOW - 59.5}, ""),
        ({"nbf": NOW + 60.9}, ""),
        ({"exp": 0}, ""),
        ({"exp": ...}, ""),
        ({"nbf": NOW + 60}, ""),
        ({"nbf": NOW + 61}, "Jwt not yet valid"),
        ({"nbf": NOW + 61, "exp": 1}, "Jwt not yet valid"),
        ({"iat": NOW + 1e6}, ""),
    ],
)
def test_times(claims: dict[str, Any], body: str) -> None:
    """RA-25."""
    assert verify(token(claims=claims)) == (401 if body else 0, body)


@table(
    ("allowed", "aud", "is_good"),
    [
        ((), ..., True),
        (("a",), ..., False),
        (("a",), "a", True),
        (("a",), "A", False),
        (("a",), "a*", False),
        (("a*",), "ab", False),
        (("a", "b"), ["x", "b"], True),
        (("a",), [], False),
        (("a",), "http://a/", True),
        (("https://a/",), "a", True),
        (("https://a",), "http://a/", True),
        (("a",), "a//", False),
        (("a/",), "a//", False),
        (("a",), "https://http://a", False),
        (("a",), "HTTP://a", False),
        (("",), "/", True),
    ],
)
def test_audiences(allowed: tuple[str, ...], aud: object, is_good: bool) -> None:
    """RA-30, RA-31."""
    expected = (0, "") if is_good else (403, "Audiences in Jwt are not allowed")
    assert verify(token(claims={"aud": aud}), of=rule(audiences=allowed)) == expected


@table(
    ("claims", "body"),
    [
        ({"iss": "x", "exp": 1, "aud": "x"}, "Jwt issuer is not configured"),
        ({"exp": 1, "aud": "x"}, "Jwt is expired"),
        ({"aud": "x"}, "Audiences in Jwt are not allowed"),
        ({"aud": "a"}, FAILS),
    ],
)
def test_forged_token_reveals_the_earlier_checks(claims: dict[str, Any], body: str) -> None:
    """RA-28."""
    assert verify(token("rogue", claims=claims), of=rule(audiences=("a",)))[1] == body


ALGORITHMS = [
    *(("rsa", alg) for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    *(("ec", "ES256"), ("ec384", "ES384"), ("ec521", "ES512"), ("ed", "EdDSA")),
    *(("oct", alg) for alg in ("HS256", "HS384", "HS512")),
]


@table(("key", "alg"), ALGORITHMS)
def test_every_algorithm(key: str, alg: str) -> None:
    """RA-22."""
    assert verify(token(key, alg=alg), key) == (0, "")
    assert verify(token(key, alg=alg, sign="corrupt"), key) == (401, FAILS)


@table("key", ["rsa", "ec", "ec384", "ec521", "oct"])
@table("alg", [alg for _, alg in ALGORITHMS])
def test_algorithm_must_fit_the_key_exactly(key: str, alg: str) -> None:
    """RA-35: what is signed with a key under the name of a foreign algorithm never verifies."""
    expected = (0, "") if (key, alg) in ALGORITHMS else (401, FAILS)
    assert verify(token(key, alg=alg), key) == expected


@table("alg", ["HS256", "HS384", "HS512"])
def test_public_key_is_no_hmac_secret(alg: str) -> None:
    """RA-35, SE-43."""
    assert verify(token("rsa", alg=alg, sign="hmac-with-public-key"), "rsa") == (401, FAILS)


@table(
    ("key", "kid", "key_set", "expected"),
    [
        ("rsa", "rsa", ("ec", "rsa"), ""),
        ("rsa", "other", ("ec", "rsa"), NO_KEY),
        ("rsa", "", ("ec", "rsa"), ""),
        ("rsa", None, ("ec", "rsa"), ""),
        ("rsa", None, ("rogue", "rsa"), ""),
        ("rsa", "rsa", ("rogue", "rsa"), ""),
        ("rsa", "rsa", ("rogue",), FAILS),
        ("rsa-nokid", "anything", ("rsa-nokid",), ""),
        ("rsa-nokid", "anything", ("rsa", "rsa-nokid"), ""),
        ("rsa", None, ("ed", "rsa"), "Jwt ED25519 signature is wrong length"),
        ("rsa", None, ("rsa", "ed"), ""),
        ("rsa", "rsa", ("ed", "rsa"), ""),
        ("ec", None, ("ed",), FAILS),
        ("ed", None, ("ed",), FAILS),
    ],
)
def test_key_selection(key: str, kid: str | None, key_set: tuple[str, ...], expected: str) -> None:
    """RA-34; every token says RS256."""
    assert verify(token(key, kid=kid), *key_set)[1] == expected


def test_es256_token_passes_an_ed25519_key() -> None:
    assert verify(token("ec", alg="ES256", kid=None), "ed", "ec") == (0, "")


def test_alg_of_the_key_restricts_it() -> None:
    key_set = json.loads(jwks_text([KEYS["rsa"]]))
    key_set["keys"][0]["alg"] = "RS256"
    state = KeySetState(read_key_set(json.dumps(key_set)), NOW)
    for alg, expected in (("RS256", None), ("RS512", NO_KEY)):
        parsed = read_token(token(alg=alg))
        assert isinstance(parsed, ParsedToken)
        result = check_token(parsed, rule(), state, NOW)
        assert (result.body if result else None) == expected


def test_set_without_usable_key_refuses() -> None:
    """RA-37."""
    parsed = read_token(GOOD)
    assert isinstance(parsed, ParsedToken)
    result = check_token(parsed, rule(), KeySetState(read_key_set('{"keys":[]}')), NOW)
    assert result is not None
    assert (result.status, result.body) == (401, "Jwks doesn't have any valid public key")


@table(
    ("state", "cause"),
    [(None, "not fetched yet"), (KeySetState(None, None, "connection refused"), "connection refused")],
)
@table(
    ("claims", "body"),
    [
        ({}, FAILS),
        ({"iss": "x"}, "Jwt issuer is not configured"),
        ({"exp": 1}, "Jwt is expired"),
        ({"aud": "x"}, "Audiences in Jwt are not allowed"),
    ],
)
def test_keys_that_were_never_fetched_refuse_with_the_cause(
    state: KeySetState | None, cause: str, claims: dict[str, Any], body: str
) -> None:
    """RA-39, SE-42."""
    parsed = read_token(token(claims={"aud": "a"} | claims))
    assert isinstance(parsed, ParsedToken)
    result = check_token(parsed, rule(audiences=("a",)), state, NOW)
    assert result is not None
    assert result.body == body
    if body == FAILS:
        assert result.reason == f"{FAILS}: key set of issuer {ISSUER} was never fetched: {cause}"


def test_unknown_kid_names_the_failed_refresh() -> None:
    parsed = read_token(token(kid="new\n\x1b[31m" + "x" * 100))
    assert isinstance(parsed, ParsedToken)
    result = check_token(parsed, rule(), KeySetState(keys_of("rsa"), NOW, "timed out"), NOW)
    assert result is not None
    assert result.is_unknown_key
    assert "last refresh of the key set failed: timed out" in result.reason
    assert result.reason.isprintable()
    assert len(result.reason) < 300


@table(
    ("claim", "value", "expected"),
    [
        ("scope", "read write", ["read", "write"]),
        ("permission", " a  b ", ["a", "b"]),
        ("scope", "one", ["one"]),
        ("scope", "", ""),
        ("scope", "  ", "  "),
        ("scope", "a\tb", ["a\tb"]),
        ("scope", ["a b"], ["a b"]),
        ("scope", 5, 5),
        ("roles", "a b", "a b"),
        ("groups", "a b", ["a", "b"]),
        ("a.b", "a b", ["a", "b"]),
        ("a", {"b": "a b"}, {"b": "a b"}),
    ],
)
def test_space_delimited_claims(claim: str, value: object, expected: object) -> None:
    """RA-33, SE-16."""
    parsed = read_token(token(claims={claim: value}))
    assert isinstance(parsed, ParsedToken)
    accepted = accepted_token(parsed, rule(space_delimited_claims=("groups", "a.b")))
    assert accepted.claims[claim] == expected
    assert parsed.claims[claim] == value


def test_accepted_token_has_what_policies_and_audit_need() -> None:
    parsed = read_token(GOOD)
    assert isinstance(parsed, ParsedToken)
    accepted = accepted_token(parsed, rule())
    assert (accepted.issuer, accepted.subject, accepted.key_id) == (ISSUER, "alice", "rsa")
    assert (accepted.expires_at, accepted.rule) == (NOW + 3600, "ns/jwt/0")
    assert len(accepted.digest) == 8
    assert not any(part in repr(accepted) for part in GOOD.split("."))


def test_integers_beyond_two_to_the_53_are_doubles() -> None:
    """Section 10."""
    parsed = read_token(payload('"a":9007199254740992,"b":9007199254740993,"c":-9007199254740993,"d":7'))
    assert isinstance(parsed, ParsedToken)
    assert (parsed.claims["a"], parsed.claims["b"]) == (2**53, 2.0**53)
    assert (parsed.claims["c"], parsed.claims["d"]) == (-(2.0**53), 7)


def test_token_without_subject_is_accepted() -> None:
    """RA-29, SE-18."""
    assert verify(token(claims={"sub": ...})) == (0, "")


def test_empty_header_piece_is_no_piece() -> None:
    assert verify(f"{write_base64url(b'')}.{PAYLOAD}.{SIGNATURE}") == (401, BAD_FORMAT)


def test_raw_description_is_the_token() -> None:
    assert make_token({"raw": "x"}, KEYS, NOW) == "x"

"""The signer: the description format of the conformance corpus."""

import base64
import json
from typing import Any

import pytest

from authz.tokens.signing import KeyPool, make_keys, make_token, sign_text
from tests.tokens.material import KEYS, NOW


def parts(text: str) -> list[Any]:
    return [json.loads(base64.urlsafe_b64decode(part + "==")) for part in text.split(".")[:2]]


@pytest.mark.parametrize(
    ("description", "header"),
    [
        ({}, {"typ": "JWT", "alg": "RS256", "kid": "rsa"}),
        ({"alg": "PS512"}, {"typ": "JWT", "alg": "PS512", "kid": "rsa"}),
        ({"kid": None}, {"typ": "JWT", "alg": "RS256"}),
        ({"kid": "other"}, {"typ": "JWT", "alg": "RS256", "kid": "other"}),
        ({"header": {"alg": "RS1", "typ": None, "kid": 5}}, {"alg": "RS1", "kid": 5}),
    ],
)
def test_header_as_described(description: dict[str, Any], header: dict[str, Any]) -> None:
    assert parts(make_token({"key": "rsa", "claims": {}} | description, KEYS, NOW))[0] == header


def test_now_is_replaced_anywhere_in_the_claims() -> None:
    claims = {"exp": {"$now": 5}, "deep": [{"at": {"$now": -5}}], "n": 1}
    payload = parts(make_token({"key": "rsa", "claims": claims}, KEYS, 100.9))[1]
    assert payload == {"exp": 105, "deep": [{"at": 95}], "n": 1}


def test_unsigned_token_has_an_empty_third_part() -> None:
    assert make_token({"key": "rsa", "claims": {}, "sign": "none"}, KEYS, NOW).endswith(".")
    assert sign_text(b"{}", b"{}", KEYS["rsa"], "RS256", "none").count(".") == 2


def test_pool_reuses_keys_between_groups_but_not_within_one() -> None:
    pool = KeyPool()
    first = make_keys({"a": {"kty": "EC"}, "b": {"kty": "EC"}, "c": {"kty": "EC", "crv": "P-384"}}, pool)
    second = make_keys({"x": {"kty": "EC", "kid": "x"}}, pool)
    assert first["a"].private is second["x"].private
    assert first["a"].private is not first["b"].private
    assert (first["a"].kid, second["x"].kid) == (None, "x")


@pytest.mark.parametrize("description", [{"kty": "XYZ"}, {"kty": "EC", "crv": "P-1"}])
def test_unknown_key_descriptions_are_refused(description: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="unknown"):
        make_keys({"a": description})


def test_public_jwk_has_no_private_member() -> None:
    for name in ("rsa", "ec", "ed"):
        assert not {"d", "p", "q"} & set(KEYS[name].jwk)

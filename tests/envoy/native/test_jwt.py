"""Which keys are emitted, and what stands for a set without any."""

import json

import pytest

from authz.core.resources import JwtRule
from authz.envoy.native.jwt import NOBODY, emitted_keys, has_usable_key, jwt_filter
from authz.tokens.jwks import read_key_set
from authz.tokens.signing import jwks_text, make_keys

KEYS = make_keys(
    {
        "rsa": {"kty": "RSA", "kid": "rsa"},
        "rs512": {"kty": "RSA", "kid": "rs512", "alg": "RS512"},
        "ec": {"kty": "EC", "kid": "ec"},
        "ed": {"kty": "OKP"},
        "oct": {"kty": "oct", "kid": "oct"},
    }
)


@pytest.mark.parametrize(
    ("name", "algorithms"),
    [
        ("rsa", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
        ("rs512", ["RS512"]),
        ("ec", ["ES256"]),
        ("ed", ["EdDSA"]),
        ("oct", ["HS256", "HS384", "HS512"]),
    ],
)
def test_every_key_says_its_algorithm(name: str, algorithms: list[str]) -> None:
    keys = json.loads(emitted_keys(jwks_text([KEYS[name]])))["keys"]
    assert [key["alg"] for key in keys] == algorithms
    assert {key.get("kid") for key in keys} == {KEYS[name].kid}
    assert len(read_key_set(json.dumps({"keys": keys})).keys) == len(algorithms)


def test_private_members_are_left_out() -> None:
    entry = json.loads(jwks_text([KEYS["ec"]]))["keys"][0] | {"d": "c2VjcmV0", "use": "sig", "x5c": ["AAAA"]}
    assert set(json.loads(emitted_keys(json.dumps({"keys": [entry]})))["keys"][0]) == {
        "kty",
        "crv",
        "x",
        "y",
        "kid",
        "alg",
    }


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"keys": []}', '{"keys": [{"kty": "RSA"}]}', '{"keys": 1}'])
def test_a_set_without_a_usable_key_verifies_nothing(text: str) -> None:
    assert json.loads(emitted_keys(text)) == {"keys": [NOBODY]}
    assert not has_usable_key(text)


def test_what_cannot_be_used_is_left_out_of_a_set() -> None:
    usable = json.loads(jwks_text([KEYS["ec"]]))["keys"]
    text = json.dumps({"keys": [{"kty": "RSA"}, "x", *usable]})
    assert [key["kid"] for key in json.loads(emitted_keys(text))["keys"]] == ["ec"]


def test_verified_tokens_are_remembered() -> None:
    rule = JwtRule("https://a.test", jwks=jwks_text([KEYS["ec"]]), name="ns/jwt/0")
    found = jwt_filter((rule,), {})
    assert found is not None
    assert '"jwt_cache_config"' in json.dumps(found)
    assert jwt_filter((), {}) is None

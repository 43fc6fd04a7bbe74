"""Which keys are emitted, and what stands for a set without any."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from authz.core.resources import JwtRule
from authz.envoy.native.jwt import NOBODY, NOBODY_ED25519, emitted_keys, has_usable_key, jwt_filter
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
    assert [key["alg"] for key in keys if "alg" in key] == algorithms
    assert {key.get("kid") for key in keys} == {KEYS[name].kid}
    nobodys = [key for key in keys if "alg" not in key]
    assert all({**key, "kid": ""} in ({**NOBODY, "kid": ""}, {**NOBODY_ED25519, "kid": ""}) for key in nobodys)
    assert bool(nobodys) is ("alg" not in KEYS[name].jwk)
    assert len(read_key_set(json.dumps({"keys": keys})).keys) == len(keys)


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


SINGLE = json.dumps(json.loads(jwks_text([KEYS["rs512"]]))["keys"][0])


@pytest.mark.parametrize(
    "text", [SINGLE, "", "no json", "[]", '{"keys": []}', '{"keys": [{"kty": "RSA"}]}', '{"keys": 1}']
)
def test_a_set_without_a_usable_key_verifies_nothing(text: str) -> None:
    assert json.loads(emitted_keys(text)) == {"keys": [NOBODY]}
    assert not has_usable_key(text)


def test_what_cannot_be_used_is_left_out_of_a_set() -> None:
    usable = json.loads(jwks_text([KEYS["ec"]]))["keys"]
    text = json.dumps({"keys": [{"kty": "RSA"}, "x", *usable]})
    assert {key["kid"] for key in json.loads(emitted_keys(text))["keys"]} == {"ec"}


def test_verified_tokens_are_remembered() -> None:
    rule = JwtRule("https://a.test", jwks=jwks_text([KEYS["ec"]]), name="ns/jwt/0")
    found = jwt_filter((rule,), {})
    assert found is not None
    assert '"jwt_cache_config"' in json.dumps(found)
    assert jwt_filter((), {}) is None


def test_keys_are_those_of_the_check_whatever_their_spelling() -> None:
    (ec,) = json.loads(jwks_text([KEYS["ec"]]))["keys"]
    del ec["crv"]  # it is P-256 then, `alg` there or not
    ec["x"] = f" {ec['x']} "
    keys = json.loads(emitted_keys(json.dumps({"keys": [ec]})))["keys"]
    assert [key.get("alg") for key in keys] == ["ES256", None]
    assert keys[0]["crv"] == "P-256"


def test_certificates_are_keys_as_for_the_check() -> None:
    """Firebase's form (RA-39)."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    text = json.dumps({"one": certificate.public_bytes(serialization.Encoding.PEM).decode()})
    keys = json.loads(emitted_keys(text))["keys"]
    assert [key.get("alg") for key in keys] == ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", None]
    assert read_key_set(json.dumps({"keys": keys})).keys[0].public_members() == {
        name: value for name, value in keys[0].items() if name != "alg"
    }
    assert has_usable_key(text)

"""Key sets: what is usable, what is skipped, what is refused."""

import base64
import json
from typing import Any

import pytest

from authz.tokens.jwks import MAX_KEY_SET_BYTES, MAX_KEYS, read_key_set
from tests.tokens.material import KEYS, keys_of, table


def jwk(name: str, **changes: Any) -> dict[str, Any]:
    members: dict[str, Any] = dict(KEYS[name].jwk) | changes
    return {member: value for member, value in members.items() if value is not None}


def text(*entries: object) -> str:
    return json.dumps({"keys": entries})


def test_keys_keep_their_order_kid_and_alg() -> None:
    key_set = read_key_set(text(jwk("ed"), jwk("rsa", alg="RS256"), jwk("ec384"), jwk("oct"), jwk("rsa-nokid")))
    assert [(key.family, key.kid, key.alg) for key in key_set.keys] == [
        ("Ed25519", "ed", ""),
        ("RSA", "rsa", "RS256"),
        ("P-384", "ec384", ""),
        ("oct", "oct", ""),
        ("RSA", "", ""),
    ]
    assert key_set.skipped == ()


def test_single_jwk_is_no_set() -> None:
    """RA-37: the webhook admits it, Envoy has no key of it."""
    key_set = read_key_set(json.dumps(jwk("ec")))
    assert key_set.keys == ()
    assert key_set.skipped == ('a single key is not a key set: write it as `{"keys": [...]}`',)


@table("member", ["kid", "alg", "use", "x5c", "key_ops"])
@table("value", ["null", "5", "[]", "{}", "true"])
def test_members_that_are_no_text_count_as_absent(member: str, value: str) -> None:
    """RA-39."""
    entry = json.dumps({name: text for name, text in jwk("rsa").items() if name != member})
    (key,) = read_key_set(f'{{"keys":[{entry[:-1]},"{member}":{value}}}]}}').keys
    assert (key.kid, key.alg) == ("" if member == "kid" else "rsa", "")


def test_every_skipped_key_is_named_with_its_kid_but_never_its_secret() -> None:
    secret = jwk("oct", alg="HS1")
    (line,) = read_key_set(text(secret)).skipped
    assert line == "keys[0] (kid `oct`): `alg` does not fit the key type oct"
    assert secret["k"] not in line


@table(
    ("entry", "why"),
    [
        ("text", "not an object"),
        (jwk("rsa", kty=None), "`kty` is none of"),
        (jwk("rsa", kty="XYZ"), "`kty` is none of"),
        (jwk("rsa", kty=5), "`kty` is none of"),
        (jwk("rsa", n=5), "`n` is not a string"),
        (jwk("rsa", alg="ES256"), "`alg` does not fit"),
        (jwk("ec", alg="RS256"), "`alg` does not fit"),
        (jwk("oct", alg="none"), "`alg` does not fit"),
        (jwk("rsa", n=None), "`n` is missing"),
        (jwk("rsa", n="!!!"), "not base64url"),
        (jwk("rsa", n="AQAB"), ""),
        (jwk("ec", crv="secp256k1"), "`crv` is none of"),
        (jwk("ec", crv="P-384"), ""),
        (jwk("ec", x=jwk("ec")["y"]), ""),
        (jwk("ed", crv="Ed448"), "`crv` is not Ed25519"),
        (jwk("ed", x="AAAA"), ""),
        (jwk("oct", k=""), "`k` is empty"),
    ],
)
def test_unusable_entry_is_skipped_and_noted(entry: object, why: str) -> None:
    """RA-37."""
    key_set = read_key_set(text(entry, jwk("rsa-nokid")))
    assert [key.family for key in key_set.keys] == ["RSA"]
    assert len(key_set.skipped) == 1
    assert key_set.skipped[0].startswith("keys[0]")
    assert why in key_set.skipped[0]


@table(
    ("document", "why"),
    [
        ("", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("{}", "no `keys` list"),
        ('{"keys": {}}', "no `keys` list"),
        ('{"keys": [], "keys": []}', "repeated member name"),
        ('{"keys": [' + "[" * 200 + "]" * 200 + "]}", "nested deeper"),
        (" " * (MAX_KEY_SET_BYTES + 1), "at most"),
        (json.dumps({"keys": [{}] * (MAX_KEYS + 1)}), "at most"),
    ],
)
def test_what_is_no_key_set_is_refused(document: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_key_set(document)


def test_private_members_are_not_read() -> None:
    numbers = dict(jwk("rsa"), d="AQAB", p="AQAB", q="AQAB", dp="AQAB", dq="AQAB", qi="AQAB")
    assert len(read_key_set(text(numbers)).keys) == 1


def test_empty_set_is_a_set_without_keys() -> None:
    assert len(read_key_set('{"keys": []}')) == 0


def test_digest_follows_the_text() -> None:
    assert keys_of("rsa").digest == keys_of("rsa").digest
    assert keys_of("rsa").digest != keys_of("rogue").digest


def test_secrets_are_not_shown() -> None:
    key_set = keys_of("oct")
    secret = KEYS["oct"].jwk["k"]
    assert secret not in repr(key_set)
    assert repr(base64.urlsafe_b64decode(secret + "==")) not in repr(key_set)
    assert secret not in repr(KEYS["oct"])

"""Inline key sets: what Istio's webhook takes and what it refuses, and what is only warned about."""

import json

import pytest

from authz.policy.inline_keys import inline_keys

K = "keys[0] of the inline key set"
RSA = {"kty": "RSA", "n": "AQAB", "e": "AQAB"}
EC = {
    "kty": "EC",
    "crv": "P-256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
}
OKP = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


def without(key: dict[str, str], name: str) -> dict[str, str]:
    return {member: value for member, value in key.items() if member != name}


def one(key: object) -> str:
    return json.dumps({"keys": [key]})


# The answers of istiod's webhook of 2026-08-27 (istio.io/istio, with github.com/lestrrat-go/jwx 1.2.31).
REFUSED = {
    "text for a list": (one({**RSA, "n": ["AQAB"]}), K + ": `n` is not a string"),
    "a number as kid": (one({**RSA, "kid": 1}), K + ": `kid` is not a string"),
    "an object as alg": (one({**OKP, "alg": {}}), K + ": `alg` is not a string"),
    "a boolean as use": (one({**OKP, "use": True}), K + ": `use` is not a string"),
    "a number as crv": (one({**EC, "crv": 256}), K + ": `crv` is not a string"),
    "not base64": (one({**RSA, "e": "A Q"}), K + ": `e` is not base64"),
    "both alphabets": (one({**RSA, "n": "A-Q+"}), K + ": `n` is not base64"),
    "one letter over": (one({**RSA, "n": "AQABA"}), K + ": `n` is not base64"),
    "wrong padding": (one({**RSA, "n": "AQAB="}), K + ": `n` is not base64"),
    "operations as text": (one({**RSA, "key_ops": "sign"}), K + ": `key_ops` is not a list of strings"),
    "operations by number": (one({**RSA, "key_ops": [1]}), K + ": `key_ops` is not a list of strings"),
    "a chain as text": (one({**EC, "x5c": "MIIB"}), K + ": `x5c` is not a list of strings"),
    "no certificate": (one({**EC, "x5c": ["MIIB"]}), K + ": `x5c` holds something that is not a certificate"),
    "no modulus": (one(without(RSA, "n")), K + ": `n` is missing"),
    "no y": (one(without(EC, "y")), K + ": `y` is missing"),
    "no crv": (one(without(EC, "crv")), K + ": `crv` is missing"),
    "an empty secret": (one({"kty": "oct"}), K + ": `k` is missing"),
    "a private member": (one({**OKP, "d": "Ed448"}), K + ": `d` is not base64"),
    "an unknown type": (
        one({"kty": "AKP", "pub": "AQAB"}),
        K + " has the `kty` `AKP`",
    ),
    "a type in lower case": (
        one({**RSA, "kty": "rsa"}),
        K + " has the `kty` `rsa`",
    ),
    "a type that is no text": (
        one({**RSA, "kty": ["RSA"]}),
        K + " has an unknown `kty`",
    ),
    "no type": (one({"n": "AQAB", "e": "AQAB"}), "keys[0] has no `kty`"),
    "the second": (json.dumps({"keys": [RSA, {"kty": "x"}]}), "keys[1] of the inline key set has the `kty` `x`"),
    "a key alone": (json.dumps({"kty": "RSA", "e": "AQAB"}), "the key of the inline key set: `n` is missing"),
    "a null": (one(None), K + " is not an object"),
    "two types": ('{"keys": [{"kty": "EC", "kty": "RSA", "n": "AQAB", "e": "AQAB"}]}', K + ": `kty` is given twice"),
    "another type in capitals": (one({**RSA, "KTY": "EC"}), K + ": `KTY` is read as `kty`"),
    "the type in capitals is a list": (one({**EC, "Kty": ["EC"]}), K + ": `Kty` is read as `kty`"),
    "the type with a Kelvin sign": (one({**RSA, "\u212aty": "oct"}), K + ": `\u212aty` is read as `kty`"),
    "a private member in capitals": (one({**OKP, "D": None}), K + ": `D` is read as `d`, so `d` is missing"),
    "a list": (json.dumps([RSA]), "the inline key set is not a JWK set"),
    "an object as keys": (json.dumps({"keys": RSA}), "the inline key set is not a JWK set"),
    "an empty object": ("{}", "the inline key set is not a JWK set"),
    "no number of JSON": ('{"keys": [], "a": NaN}', "the inline key set is not JSON"),
    "a tab in a text": ('{"keys": [{"kty": "R\tSA"}]}', "the inline key set is not JSON"),
    "half of it": ('{"keys": [', "the inline key set is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_the_webhook_refuses_is_an_error(text: str, message: str) -> None:
    fault = inline_keys(text)
    assert fault is not None
    assert (fault.code, fault.severity) == ("VA-37", "error")
    assert fault.message.removesuffix(", which Istio refuses") == message


TAKEN = {
    "a set": one(RSA),
    "a curve": one(EC),
    "Ed25519": one(OKP),
    "spaces around": f" \n{one(RSA)}\n",
    "padded base64": one({**RSA, "n": "AQ=="}),
    "the other alphabet": one({**RSA, "n": "+/+/"}),
    "nulls": one({**RSA, "kid": None, "alg": None, "use": None, "key_ops": None, "x5c": None}),
    "other members": json.dumps({"keys": [{**RSA, "foo": [1]}], "bar": {}}),
    "private members without d": one({**RSA, "p": 1}),
    "the type in capitals too": one({**RSA, "KTY": "RSA", "Kty": None}),
    "other members in capitals": one({**EC, "X": 1, "CRV": 1, "KID": 1}),
    "an empty kid": one({**RSA, "kid": ""}),
}


@pytest.mark.parametrize("text", TAKEN.values(), ids=TAKEN)
def test_what_the_webhook_takes_is_taken(text: str) -> None:
    assert inline_keys(text) is None


WARNED = [
    (one({"kty": "oct", "k": "AAAA"}), "VA-39"),
    (one({**RSA, "d": "AQAB"}), "VA-39"),
    (one({**RSA, "d": None}), "VA-39"),
    ('{"keys": []}', "RA-37"),
    ('{"keys": null}', "RA-37"),
    (one({**RSA, "n": None}), "RA-37"),
    (json.dumps(RSA), "RA-39"),
]


@pytest.mark.parametrize(("text", "code"), WARNED)
def test_a_set_that_is_taken_and_still_no_good_is_warned_about(text: str, code: str) -> None:
    fault = inline_keys(text)
    assert fault is not None
    assert (fault.code, fault.severity) == (code, "warning")


def test_what_follows_the_set_is_refused_though_the_webhook_lets_it_pass() -> None:
    """Envoy would not read it, so that no token of the rule could ever be accepted."""
    fault = inline_keys('{"keys": []} x')
    assert fault is not None
    assert fault.message == "the inline key set is not JSON"


def test_an_empty_text_is_no_set() -> None:
    assert inline_keys("") is None

"""One valid key set, token and request for all tests of this room; tests change one thing at a time."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from authz.core.attributes import AttributeContext, Authentication, Destination, HttpRequest, Source, Workload
from authz.core.normalize import join_headers
from authz.core.resources import JwtRule
from authz.tokens.authenticate import authenticate
from authz.tokens.jwks import KeySet, read_key_set
from authz.tokens.key_sets import KeySets, KeySetState
from authz.tokens.signing import SigningKey, jwks_text, make_keys, make_token

NOW = 1_800_000_000.0
ISSUER = "https://idp.example"

KEYS: Mapping[str, SigningKey] = make_keys(
    {
        "rsa": {"kty": "RSA", "kid": "rsa"},
        "rogue": {"kty": "RSA", "kid": "rsa"},
        "rsa-nokid": {"kty": "RSA"},
        "ec": {"kty": "EC", "kid": "ec"},
        "ec384": {"kty": "EC", "kid": "ec384", "crv": "P-384"},
        "ec521": {"kty": "EC", "kid": "ec521", "crv": "P-521"},
        "ed": {"kty": "OKP", "kid": "ed"},
        "oct": {"kty": "oct", "kid": "oct"},
    }
)


def keys_of(*names: str) -> KeySet:
    return read_key_set(jwks_text(KEYS[name] for name in names))


def token(key: str = "rsa", *, now: float = NOW, **description: Any) -> str:
    """A token of ``ISSUER`` for ``alice``; ``claims`` are merged over the valid ones, ``...`` takes one away."""
    changes = description.pop("claims", {})
    merged = {"iss": ISSUER, "sub": "alice", "exp": {"$now": 3600}} | changes
    claims = {name: value for name, value in merged.items() if value is not ...}
    return make_token({"key": key, "claims": claims, **description}, KEYS, now)


def rule(**changes: Any) -> JwtRule:
    values: dict[str, Any] = {"issuer": ISSUER, "jwks_uri": "https://idp.example/keys", "name": "ns/jwt/0"}
    return JwtRule(**(values | changes))


def key_sets(*rules: JwtRule, keys: KeySet | None = None) -> KeySets:
    return {r.keys_from: KeySetState(keys or keys_of("rsa"), NOW) for r in rules}


def request(
    headers: Mapping[str, str | list[str]] | None = None,
    path: str = "/",
    *,
    method: str = "GET",
    host: str = "api.example.com",
    scheme: str = "http",
) -> AttributeContext:
    pairs = [
        (name.lower(), value)
        for name, values in (headers or {}).items()
        for value in (values if isinstance(values, list) else [values])
    ]
    http = HttpRequest(method, host, path, join_headers(pairs), scheme)
    return AttributeContext(Source(), Destination(Workload("ns")), http)


def bearer(text: str, path: str = "/", **more: Any) -> AttributeContext:
    return request({"authorization": f"Bearer {text}"}, path, **more)


def judge(attributes: AttributeContext, *rules: JwtRule, now: float = NOW, **more: Any) -> Authentication:
    """``authenticate`` with a key set that holds the key ``rsa`` for every rule, unless told otherwise."""
    given = more.pop("key_sets", None)
    applicable = rules or (rule(),)
    return authenticate(attributes, applicable, key_sets(*applicable) if given is None else given, now, **more)


def table(names: str | tuple[str, ...], rows: Iterable[Any]) -> pytest.MarkDecorator:
    """``parametrize`` whose identifiers hold no long text: tokens differ from run to run, identifiers must not."""

    def name_of(value: object) -> str | None:
        return "text" if isinstance(value, str | bytes) and len(value) > 60 else None

    return pytest.mark.parametrize(names, list(rows), ids=name_of)

"""
RequestAuthentication as Envoy's jwt_authn filter, structurally as Istio's builder emits it (RA-4, RA-5).

Key sets are delivered inline; who fetches them passes them in. Every key that verifies says its ``alg``: a key without
one becomes one key for each algorithm that fits its type, because Envoy would let the token choose more freely. What
else such a key does, being tried for every algorithm, is done by a key with its ``kid`` that belongs to nobody: so a
token is refused in the words in which Istio and the check refuse it (RA-34, RA-35), and an Ed25519 key ends the search.
"""

import json
from collections.abc import Mapping

from authz.core.attributes import Json
from authz.core.resources import JwtRule
from authz.envoy.native.value_matchers import PAYLOAD, TYPE, Message
from authz.tokens.jwks import Key, read_key_set

JWT_TYPE = f"{TYPE}envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
CACHED_TOKENS = 1000
"""Verified tokens that each worker of Envoy remembers for each rule; without it the signature is checked every time."""
_SPLIT = ("permission", "scope")
"""Claims that are lists of words whatever a rule says (RA-33)."""
_ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA",),
    "oct": ("HS256", "HS384", "HS512"),
}
"""Algorithms by family of ``tokens.jwks.Key``."""
_MODULUS = (
    "nOPQdhK8ww-eCPnj_Fes-QJviPAhhMxZRSrEu7cGIUmtdmKqZSFUi-dOGhQRkVZNSfOWC2tpsqYH6wQxlN2zcwFB578p15NLGh5L"
    "q_G0ddHoTkHnoKhLZUQrmAphkyyHOk3RVDwr2uFtPJLkkB5TzHxTg0XeVGNFeHUoagvCzBNoy2LJb9X8y35VsHmEcb2TDHJ9f9I0"
    "4YSlLGtU9x4Tf3ICp2OSsCGLZa27xu3WluTcBmY0ntoi5cTBGkyU1Mo2v8xThhj9NfhjTQckr9h4KXyFo6qZH3HMp6HzrawW7tYi"
    "wT4TD82OWnsinCQNgTRiCzFZLxnGIZk9l1s8SU_0rw"
)
NOBODY: Message = {"kty": "RSA", "e": "AQAB", "n": _MODULUS}
"""A public key whose private half was thrown away as it was made, and exists nowhere: it verifies nothing."""
NOBODY_ED25519: Message = {"kty": "OKP", "crv": "Ed25519", "x": "IeO0uIDTbeNfkT7T2umOnhhYrw4eseFmEyhZGLswR5E"}
"""Another one. Envoy looks no further than an Ed25519 key if the signature does not have that key's length."""


def jwt_filter(rules: tuple[JwtRule, ...], key_sets: Mapping[str, str], *, gateway: bool = False) -> Message | None:
    """
    The filter of a workload's merged rules (``WorkloadPolicies.jwt_rules``); None without rules.

    ``key_sets``: texts by ``JwtRule.keys_from``; inline sets need no entry. A rule whose set is missing or without a
    usable key gets one that verifies nothing: tokens are refused, requests without a token pass (RA-37, RA-39).
    """
    if not rules:
        return None
    names = [f"origins-{index}" for index in range(len(rules))]
    one_each: list[Json] = [{"provider_name": name} for name in names]
    or_missing: list[Json] = [
        {"requires_any": {"requirements": [{"provider_name": name}, {"allow_missing": {}}]}} for name in names
    ]
    requires = or_missing[0]
    if len(rules) > 1:
        together: Json = {"requires_all": {"requirements": or_missing}}
        requires = {"requires_any": {"requirements": [*one_each, together]}}
    return {
        "@type": JWT_TYPE,
        "providers": {
            name: _provider(rule, key_sets, gateway=gateway) for name, rule in zip(names, rules, strict=True)
        },
        "rules": [{"match": {"prefix": "/"}, "requires": requires}],
        "bypass_cors_preflight": True,
    }


def _provider(rule: JwtRule, key_sets: Mapping[str, str], *, gateway: bool) -> Message:
    found: Message = {
        "issuer": rule.issuer,
        "local_jwks": {"inline_string": emitted_keys(rule.jwks or key_sets.get(rule.keys_from, ""))},
        "payload_in_metadata": PAYLOAD,
        "normalize_payload_in_metadata": {"space_delimited_claims": _words({*_SPLIT, *rule.space_delimited_claims})},
        "jwt_cache_config": {"jwt_cache_size": CACHED_TOKENS},
    }
    if rule.audiences:
        found["audiences"] = list(rule.audiences)
    if rule.forward_original_token:
        found["forward"] = True
    if rule.output_payload_to_header:
        found["forward_payload_header"] = rule.output_payload_to_header
    if rule.output_claim_to_headers:
        found["claim_to_headers"] = [
            {"header_name": one.header, "claim_name": one.claim} for one in rule.output_claim_to_headers
        ]
    if rule.from_headers:
        found["from_headers"] = [
            {"name": one.name, "value_prefix": one.prefix} if one.prefix else {"name": one.name}
            for one in rule.from_headers
        ]
    if rule.from_params:
        found["from_params"] = list(rule.from_params)
    if rule.from_cookies:
        found["from_cookies"] = list(rule.from_cookies)
    if gateway:
        found["clear_route_cache"] = True
    return found


def _words(words: set[str]) -> list[Json]:
    return [*sorted(words, key=str.encode)]


def emitted_keys(text: str) -> str:
    """
    The keys of a key set that the check would use, only public members, each with its ``alg``, and nobody's; a JWKS.

    What our reader skips is left out (RA-37). Never raises: what cannot be read has no usable key.
    """
    entries: list[Json] = []
    free: dict[str, None] = {}  # identifiers of keys that are tried for every algorithm
    for key in _usable(text):
        members = key.public_members()
        entries += [{**members, "alg": alg} for alg in ((key.alg,) if key.alg else _ALGORITHMS[key.family])]
        if not key.alg:
            free[key.kid] = None
            if key.family == "Ed25519":
                entries.append(_named(NOBODY_ED25519, key.kid))
    entries += [_named(NOBODY, kid) for kid in ([""] if "" in free else free)]
    return json.dumps({"keys": entries or [NOBODY]}, separators=(",", ":"), sort_keys=True)


def has_usable_key(text: str) -> bool:
    """Whether Envoy could verify anything by this key set."""
    return bool(_usable(text))


def _usable(text: str) -> tuple[Key, ...]:
    try:
        return read_key_set(text).keys
    except ValueError:
        return ()


def _named(key: Message, kid: str) -> Message:
    return {**key, "kid": kid} if kid else key

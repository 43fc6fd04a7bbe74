"""Tokens and certificates of every sort that the check shows: good ones, and all the ways in which one can be bad."""

import json
from collections.abc import Callable
from typing import cast

from authz.core.spiffe import SpiffeId
from authz.demo.certificates import authority
from authz.demo.layout import Layout
from authz.identity.ca import CertificateAuthority, Issued
from authz.identity.keys import generate_key
from authz.tokens.base64url import read_base64url
from authz.tokens.signing import SigningKey, jwks_text, sign_text, signing_key

HOUR_SECONDS = 3600.0


def make_tokens(issued: Callable[[str], str], published: dict[str, str]) -> dict[str, str]:
    """
    Make them all, by name.

    Args:
        issued: asks the issuer for the token of a person, with a query.
        published: the issuer's key as in its key set.
    """
    alice, bob = issued("alice"), issued("bob")
    header, payload, _ = alice.split(".")
    facts, claims = _decode(header), _decode(payload)
    ours = signing_key(generate_key(), kid=str(facts["kid"]), alg=str(facts["alg"]))
    theirs = SigningKey("EC", b"", published)
    foreign = {**claims, "iss": "https://issuer.invalid"}
    return {
        "alice": alice,
        "bob": bob,
        "expired": issued(f"alice?expires_in=-{HOUR_SECONDS:.0f}"),
        "wrong audience": issued("alice?audience=somebody-else"),
        "forged": sign_text(_encode(facts), _encode(claims), ours, "ES256"),
        "promoted": tampered(alice, bob),
        "alg none": sign_text(_encode({**facts, "alg": "none"}), _encode(claims), ours, "none", "none"),
        "alg confusion": sign_text(
            _encode({**facts, "alg": "HS256"}), _encode(claims), theirs, "HS256", "hmac-with-public-key"
        ),
        "other issuer": sign_text(_encode(facts), _encode(foreign), ours, "ES256"),
        "own key inside": sign_text(
            _encode({**facts, "jwk": json.loads(jwks_text([ours]))["keys"][0]}), _encode(claims), ours, "ES256"
        ),
        "garbage": "not-a-token",
    }


def tampered(token: str, other: str) -> str:
    """Put the claims of another token under the signature of one."""
    header, _, signature = token.split(".")
    return f"{header}.{other.split('.')[1]}.{signature}"


def make_certificates(layout: Layout, now: float) -> dict[str, Issued]:
    """Make them all: every workload's by its name, and the bad ones."""
    trust_domain = layout.mesh.config.trust_domain
    ca = authority(layout, "ca", trust_domain, now)
    somebody = layout.mesh.workload("productpage-v1").spiffe_id
    account = str(somebody.service_account)
    foreign = CertificateAuthority.create("elsewhere.example", now)
    return {workload.name: ca.issue_svid(workload.spiffe_id, now) for workload in layout.mesh.workloads} | {
        "namesake": ca.issue_svid(SpiffeId.for_workload(trust_domain, "default", account), now),
        "expired": ca.issue_svid(somebody, now - 2 * HOUR_SECONDS, ttl_seconds=HOUR_SECONDS),
        "not yet valid": ca.issue_svid(somebody, now + 2 * HOUR_SECONDS, ttl_seconds=HOUR_SECONDS),
        "self-made": CertificateAuthority.create(trust_domain, now).issue_svid(somebody, now),
        "foreign": foreign.issue_svid(SpiffeId.for_workload("elsewhere.example", "bookinfo", account), now),
    }


def _decode(part: str) -> dict[str, object]:
    return cast("dict[str, object]", json.loads(read_base64url(part)))


def _encode(value: dict[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()

"""
JWT-SVIDs: signed by the authority's key, validated against the keys of the token's own trust domain (JWT-SVID 2 to 4).

The clock is an argument, and "no" is a value. The rules are the standard's, not Envoy's: ``sub``, ``aud`` and ``exp``
must be there, and only RS*, PS* and ES* signatures count.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from authz.core.attributes import Json
from authz.core.spiffe import SpiffeId
from authz.identity.bundle import Bundles
from authz.identity.jwt_keys import ALGORITHM, CLOCK_SKEW_SECONDS, JwtSigningKey
from authz.identity.svid_validation import Rejection
from authz.tokens.base64url import read_base64url
from authz.tokens.json_text import read_object
from authz.tokens.signing import SigningKey, sign_text

ALGORITHMS = frozenset(f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512))
"""JWT-SVID 2.1; symmetric keys, EdDSA and ``none`` are not among them."""
MAX_TOKEN_BYTES = 16 * 1024
MAX_AUDIENCES = 32
MAX_AUDIENCE_BYTES = 4096
"""Of all audiences of one token together."""
_TOKEN = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


@dataclass(frozen=True, slots=True)
class IssuedJwt:
    """A token just signed. ``repr`` omits it."""

    token: str = field(repr=False)
    spiffe_id: SpiffeId
    audience: tuple[str, ...]
    issued_at: float
    expires_at: float
    kid: str


@dataclass(frozen=True, slots=True)
class ValidJwt:
    """A token that was found valid."""

    spiffe_id: SpiffeId
    claims: Mapping[str, Json]
    expires_at: float


def judge_audience(audience: tuple[str, ...]) -> str | None:
    """Say why no token can be for this audience, or None."""
    if not audience or not all(audience):
        return "an audience is needed: who shall accept the token"
    if len(audience) > MAX_AUDIENCES or sum(len(one.encode()) for one in audience) > MAX_AUDIENCE_BYTES:
        return f"a token has at most {MAX_AUDIENCES} audiences of {MAX_AUDIENCE_BYTES} bytes together"
    return None


def sign_jwt_svid(
    key: JwtSigningKey, spiffe_id: SpiffeId, audience: tuple[str, ...], now: float, ttl_seconds: float, issuer: str = ""
) -> IssuedJwt:
    """
    Sign a token.

    ``issuer``: what ``iss`` is to be, for verifiers that ask for one; empty leaves it out, as the standard does.
    Raises ValueError for an ID without a path or an audience that ``judge_audience`` refuses.
    """
    if not spiffe_id.path:
        raise ValueError(f"`{spiffe_id}` has no path: a workload's SPIFFE ID needs one")
    if reason := judge_audience(audience):
        raise ValueError(reason)
    begin = math.floor(now)
    end = begin + math.ceil(ttl_seconds)
    claims: dict[str, Json] = {"sub": str(spiffe_id), "aud": list(audience), "iat": begin, "exp": end}
    claims |= {"iss": issuer} if issuer else {}
    header = json.dumps({"alg": ALGORITHM, "kid": key.kid, "typ": "JWT"}, separators=(",", ":")).encode()
    payload = json.dumps(claims, separators=(",", ":")).encode()
    token = sign_text(header, payload, SigningKey("EC", key.key, {}), ALGORITHM)
    return IssuedJwt(token, spiffe_id, audience, now, end, key.kid)


def validate_jwt_svid(token: str, audience: str, bundles: Bundles, now: float) -> ValidJwt | Rejection:
    """Validate a token for somebody who calls itself ``audience``. Never raises on content."""
    pieces = _TOKEN.fullmatch(token) if len(token) <= MAX_TOKEN_BYTES else None
    if pieces is None:
        return Rejection("not a token: expected three parts of base64url with a dot between them")
    try:
        header, claims = (read_object(read_base64url(piece)) for piece in pieces.groups()[:2])
        signature = read_base64url(pieces[3])
    except (ValueError, RecursionError):
        return Rejection("a part of the token is not base64url of a JSON object")
    kid, alg = header.get("kid", ""), header.get("alg")
    if reason := _judge_header(header):
        return Rejection(reason)
    judged = _judge_claims(claims, audience, now)
    if isinstance(judged, Rejection):
        return judged
    domain = judged.spiffe_id.trust_domain
    bundle = bundles.get(domain)
    if bundle is None:
        return Rejection(f"the trust domain `{domain}` is not trusted")
    keys = [key for key in bundle.jwt_keys if key.is_tried_for(str(kid), str(alg))]
    if not keys:
        return Rejection(f"`{domain}` has no key `{kid}` for {alg}")
    signed = f"{pieces[1]}.{pieces[2]}".encode()
    if not any(key.verifies(signed, str(alg), signature) for key in keys):
        return Rejection(f"the signature is not by a key of `{domain}`")
    return judged


def _judge_header(header: Mapping[str, Json]) -> str | None:
    if header.get("alg") not in ALGORITHMS:
        return f"`alg` is none of {', '.join(sorted(ALGORITHMS))}"
    if header.get("typ", "JWT") not in ("JWT", "JOSE"):
        return "`typ` is neither JWT nor JOSE"
    if not isinstance(header.get("kid", ""), str):
        return "`kid` is not a string"
    return "the header has `crit`, which is not understood here" if "crit" in header else None


def _judge_claims(claims: Mapping[str, Json], audience: str, now: float) -> ValidJwt | Rejection:
    subject, audiences, end = claims.get("sub"), claims.get("aud"), claims.get("exp")
    try:
        spiffe_id = SpiffeId.parse(subject if isinstance(subject, str) else "")
    except ValueError as error:
        return Rejection(f"`sub`: {error}" if "sub" in claims else "there is no `sub`")
    if not spiffe_id.path:
        return Rejection(f"`sub`: `{spiffe_id}` has no path: it is a trust domain's, not a workload's")
    meant = [audiences] if isinstance(audiences, str) else audiences
    if not isinstance(meant, list) or not meant or not all(isinstance(one, str) for one in meant):
        return Rejection("`aud` is neither a string nor a list of strings" if "aud" in claims else "there is no `aud`")
    if audience not in meant:
        return Rejection(f"the token is not for the audience `{audience}`")
    if not _is_time(end):
        return Rejection("`exp` is not a time" if "exp" in claims else "there is no `exp`")
    if now >= float(end) + CLOCK_SKEW_SECONDS:  # type: ignore[arg-type]  # _is_time says that it is a number
        return Rejection("the token has expired")
    for name in ("nbf", "iat"):
        begin = claims.get(name, 0)
        if not _is_time(begin):
            return Rejection(f"`{name}` is not a time")
        if now + CLOCK_SKEW_SECONDS < float(begin):  # type: ignore[arg-type]  # as above
            return Rejection(f"the token is not yet valid: `{name}`")
    return ValidJwt(spiffe_id, claims, float(end))  # type: ignore[arg-type]  # as above


def _is_time(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**63

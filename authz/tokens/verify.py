"""
One token against one rule and its keys at a given time (RA-21 to RA-37), in Envoy's order of checks.

The order is visible to clients: a forged and expired token is "expired" (RA-28).
An invalid token is an expected "no", so everything here answers values; nothing raises.
No reason holds a token; text that a client chose is cut and printable.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from authz.core.attributes import Json, Token
from authz.core.resources import JwtRule
from authz.tokens.base64url import read_base64url
from authz.tokens.json_text import read_object
from authz.tokens.jwks import ED25519_SIGNATURE_BYTES, SUPPORTED_ALGORITHMS, KeySet
from authz.tokens.key_sets import KeySetState

CLOCK_SKEW_SECONDS = 60
"""Fixed by Envoy (RA-25)."""
MAX_UNSIGNED_64 = float(2**64)
MAX_PLAIN_TIME = 2**40
"""Seconds: further than any real token; larger times are looked at with care."""
NO_BEGIN, NO_END = float("-inf"), float("inf")
DIGEST_DIGITS = 8
"""Of the SHA-256 of a token: enough to find it again, of no use to anybody else."""
MAX_SKIPPED_TOLD = 3
"""Keys a reason names that are not used."""
MAX_KNOWN_HEADER = 512
"""Bytes of a header that is remembered; longer ones are read each time."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a token is refused: ``status`` and ``body`` are RA-40's, ``reason`` is for the audit record."""

    status: int
    body: str
    reason: str = ""
    is_unknown_issuer: bool = False
    """Such an outcome never hides another one (RA-8)."""
    is_unknown_key: bool = False
    """The key set may have been rotated since it was fetched: worth a hint to the source."""


def _refusal(body: str, status: int = 401) -> Refusal:
    return Refusal(status, body, body)


BAD_FORMAT = _refusal("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")
BAD_HEADER_BASE64 = _refusal("Jwt header is an invalid Base64url encoded")
BAD_HEADER_JSON = _refusal("Jwt header is an invalid JSON")
BAD_ALG = _refusal("Jwt header [alg] field is required and must be a string")
UNSUPPORTED_ALG = _refusal("Jwt header [alg] is not supported")
BAD_KID = _refusal("Jwt header [kid] field is not a string")
BAD_PAYLOAD_BASE64 = _refusal("Jwt payload is an invalid Base64url encoded")
BAD_PAYLOAD_JSON = _refusal("Jwt payload is an invalid JSON")
BAD_SIGNATURE_BASE64 = _refusal("Jwt signature is an invalid Base64url encoded")
BAD_AUDIENCE_TYPE = _refusal("Jwt payload [aud] field is not a string or string list")
EXPIRED = _refusal("Jwt is expired")
NOT_YET_VALID = _refusal("Jwt not yet valid")
AUDIENCE = _refusal("Audiences in Jwt are not allowed", 403)
MISSING = _refusal("Jwt is missing")
"""Only for rules with presence REQUIRED (section 10); RA-43 otherwise."""

UNKNOWN_ISSUER_BODY = "Jwt issuer is not configured"
NO_MATCHING_KEY_BODY = "Jwks doesn't have key to match kid or alg from Jwt"
VERIFICATION_FAILS_BODY = "Jwt verification fails"
NO_USABLE_KEY_BODY = "Jwks doesn't have any valid public key"
WRONG_LENGTH_BODY = "Jwt ED25519 signature is wrong length"


class ParsedToken(NamedTuple):
    """A well-formed token, nothing about it verified yet."""

    alg: str
    kid: str
    claims: Mapping[str, Json]
    payload_text: str
    """The payload section exactly as it appeared (RA-47)."""
    signing_input: bytes
    signature: bytes
    audiences: tuple[str, ...] | None
    """None: there is no ``aud``."""
    issuer: str
    valid_from: float
    """``nbf`` less the skew; minus infinity without one."""
    valid_until: float
    """``exp`` plus the skew, inclusive; infinity without one (RA-25)."""
    digest: str


def read_token(text: str, digest: str = "") -> ParsedToken | Refusal:
    """
    Read a token as RA-21 to RA-23 demand: format, header, algorithm, payload and its types, signature's coding.

    Args:
        digest: the first digits of the text's SHA-256, if they are known.
    """
    data = text.encode("utf-8", "surrogatepass")
    pieces = data.split(b".")
    if len(pieces) != 3 or not all(pieces):
        pieces = [piece for piece in pieces if piece]
        if len(pieces) != 3:
            return BAD_FORMAT
    header_text, payload_text, signature_text = pieces
    header = _known_header(header_text) if len(header_text) <= MAX_KNOWN_HEADER else _read_header(header_text)
    if isinstance(header, Refusal):
        return header
    try:
        payload = read_base64url(payload_text)
    except ValueError:
        return BAD_PAYLOAD_BASE64
    try:
        claims = read_object(payload)
    except (ValueError, RecursionError):
        return BAD_PAYLOAD_JSON
    if not _are_plain(claims) and (refusal := _check_types(claims)):
        return refusal
    try:
        signature = read_base64url(signature_text)
    except ValueError:
        return BAD_SIGNATURE_BASE64
    exp, nbf, aud = claims.get("exp"), claims.get("nbf"), claims.get("aud")
    issuer = claims.get("iss")
    # Envoy cuts the fractions, and an `exp` of zero means "none" (RA-25).
    until = int(_number(exp)) if exp is not None else 0
    return ParsedToken(
        header[0],
        header[1],
        claims,
        payload_text.decode("ascii"),
        b"%b.%b" % (header_text, payload_text),
        signature,
        None if aud is None else (aud,) if isinstance(aud, str) else _strings(aud),
        issuer if isinstance(issuer, str) else "",
        NO_BEGIN if nbf is None else int(_number(nbf)) - CLOCK_SKEW_SECONDS,
        until + CLOCK_SKEW_SECONDS if until else NO_END,
        digest or hashlib.sha256(data).hexdigest()[:DIGEST_DIGITS],
    )


def _read_header(data: bytes) -> tuple[str, str] | Refusal:
    """Return ``alg`` and ``kid``; an absent ``kid`` is empty, as Envoy treats both alike."""
    try:
        text = read_base64url(data)
    except ValueError:
        return BAD_HEADER_BASE64
    try:
        header = read_object(text)
    except (ValueError, RecursionError):
        return BAD_HEADER_JSON
    alg, kid = header.get("alg"), header.get("kid", "")
    if not isinstance(alg, str):
        return BAD_ALG
    if alg not in SUPPORTED_ALGORITHMS:
        return UNSUPPORTED_ALG
    if not isinstance(kid, str):
        return BAD_KID
    return alg, kid


_known_header = lru_cache(maxsize=512)(_read_header)
"""An issuer writes the same header into every token of a key."""


def _are_plain(claims: Mapping[str, Json]) -> bool:
    """Whether the types are those of nearly every token: what ``_check_types`` says otherwise needs no question."""
    claim = claims.get
    return (
        type(claim("iss", "")) is type(claim("sub", "")) is type(claim("jti", "")) is type(claim("aud", "")) is str
        and type(exp := claim("exp", 0)) is type(nbf := claim("nbf", 0)) is type(iat := claim("iat", 0)) is int
        and 0 <= exp < MAX_PLAIN_TIME
        and 0 <= nbf < MAX_PLAIN_TIME
        and 0 <= iat < MAX_PLAIN_TIME
    )


def _check_types(claims: Mapping[str, Json]) -> Refusal | None:
    """RA-23: `null` is a wrong type everywhere."""
    for name in ("iss", "sub"):
        if name in claims and not isinstance(claims[name], str):
            return _refusal(f"Jwt payload [{name}] field is not a string")
    for name in ("iat", "nbf", "exp"):
        if name in claims:
            value = claims[name]
            if isinstance(value, bool) or not isinstance(value, int | float):
                return _refusal(f"Jwt payload [{name}] field is not an integer")
            if not 0 <= value < MAX_UNSIGNED_64:
                return _refusal(f"Jwt payload [{name}] field is not a positive 64 bit integer")
    if "jti" in claims and not isinstance(claims["jti"], str):
        return _refusal("Jwt payload [jti] field is not a string")
    if "aud" in claims:
        aud = claims["aud"]
        if not isinstance(aud, str) and not (isinstance(aud, list) and all(isinstance(item, str) for item in aud)):
            return BAD_AUDIENCE_TYPE
    return None


def check_token(token: ParsedToken, rule: JwtRule, state: KeySetState | None, now: float) -> Refusal | None:
    """
    Check issuer, time, audience and signature, in this order (RA-24 to RA-28).

    Args:
        state: the keys of ``rule.keys_from``; None or without a key set: never fetched (RA-39).

    Returns:
        None when the token is good.
    """
    if rule.issuer and token.issuer != rule.issuer:
        reason = f"token {token.digest} is of issuer {clip(token.issuer)}, rule {rule.name} expects {rule.issuer}"
        return Refusal(401, UNKNOWN_ISSUER_BODY, reason, is_unknown_issuer=True)
    if refusal := check_time(token.valid_from, token.valid_until, now):
        return refusal
    if rule.audiences and not _shares_audience(token.audiences, rule.audiences):
        return AUDIENCE
    if state is None or state.key_set is None:
        cause = state.error if state is not None and state.error else "not fetched yet"
        source = f"issuer {rule.issuer}" if rule.issuer else rule.keys_from
        reason = f"{VERIFICATION_FAILS_BODY}: key set of {source} was never fetched: {cause}"
        return Refusal(401, VERIFICATION_FAILS_BODY, reason, is_unknown_key=True)
    return _check_signature(token, state.key_set, state.error)


def check_time(valid_from: float, valid_until: float, now: float) -> Refusal | None:
    """RA-25; exactly 60 s late is still valid. Whole seconds count, as in Envoy."""
    now = int(now)
    if now < valid_from:
        return NOT_YET_VALID
    return EXPIRED if now > valid_until else None


def _shares_audience(audiences: tuple[str, ...] | None, allowed: tuple[str, ...]) -> bool:
    """RA-30; both sides are compared without scheme and trailing slash (RA-31)."""
    if audiences is None:
        return False
    return not {_plain_audience(value) for value in audiences}.isdisjoint(_plain_audience(value) for value in allowed)


def _plain_audience(audience: str) -> str:
    for scheme in ("http://", "https://"):
        if audience.startswith(scheme):
            audience = audience[len(scheme) :]
            break
    return audience.removesuffix("/")


def _check_signature(token: ParsedToken, key_set: KeySet, error: str) -> Refusal | None:
    """RA-34, RA-35. ``error`` is the last failed fetch, which explains a missing key better than the body does."""
    if not key_set.keys:
        reason = f"{NO_USABLE_KEY_BODY}{_skipped(key_set)}"
        if error:
            reason += f"; the key set cannot be used: {error}"
        return Refusal(401, NO_USABLE_KEY_BODY, reason, is_unknown_key=True)
    was_tried = False
    for key in key_set.keys:
        if not key.is_tried_for(token.kid, token.alg):
            continue
        was_tried = True
        if key.family == "Ed25519" and len(token.signature) != ED25519_SIGNATURE_BYTES:
            return Refusal(401, WRONG_LENGTH_BODY, WRONG_LENGTH_BODY)
        if key.verifies(token.signing_input, token.alg, token.signature):
            return None
    if was_tried:
        reason = f"{VERIFICATION_FAILS_BODY}: token {token.digest}{_skipped(key_set)}"
        return Refusal(401, VERIFICATION_FAILS_BODY, reason)
    reason = f"{NO_MATCHING_KEY_BODY}: token {token.digest}, kid {clip(token.kid)}, alg {token.alg}"
    reason += _skipped(key_set)
    if error:
        reason += f"; the last refresh of the key set failed: {error}"
    return Refusal(401, NO_MATCHING_KEY_BODY, reason, is_unknown_key=True)


def _skipped(key_set: KeySet) -> str:
    """Which keys of the set are not used, and why: one of them may be what the token was signed with."""
    if not key_set.skipped:
        return ""
    more = len(key_set.skipped) - MAX_SKIPPED_TOLD
    return f"; skipped {'; '.join(key_set.skipped[:MAX_SKIPPED_TOLD])}{f'; and {more} more' if more > 0 else ''}"


def accepted_token(token: ParsedToken, rule: JwtRule) -> Token:
    """Build the noun policies see of a token that was checked: space-delimited claims split (RA-33)."""
    claims = token.claims
    if "scope" in claims or "permission" in claims or rule.space_delimited_claims:
        claims = dict(claims)
        for name in ("scope", "permission", *rule.space_delimited_claims):
            value = claims.get(name)
            if isinstance(value, str) and (pieces := [piece for piece in value.split(" ") if piece]):
                claims[name] = list[Json](pieces)
    exp = token.claims.get("exp")
    expires_at = _number(exp) if exp else None
    return Token(claims, token.issuer, _string(claims.get("sub")), token.kid, token.digest, expires_at, rule.name)


def clip(text: str) -> str:
    """Show text that a client chose: printable, at most 64 characters, in backticks."""
    shown = "".join(character if character.isprintable() else "?" for character in text[:64])
    return f"`{shown}{'…' if len(text) > 64 else ''}`"


def _string(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _strings(value: Json) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _number(value: Json) -> float:
    return value if isinstance(value, int | float) else 0.0

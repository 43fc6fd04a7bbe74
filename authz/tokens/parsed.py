"""
One token, from text to its parts and the meaning of its claims (RA-21 to RA-23, RA-25); nothing is verified here.

The order of the questions is Envoy's and visible to clients. Nothing raises: a malformed token is an expected "no".
"""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache

from authz.core.attributes import Json, per_request
from authz.tokens.base64url import read_base64url, write_base64url
from authz.tokens.json_text import read_object
from authz.tokens.jwks import SUPPORTED_ALGORITHMS
from authz.tokens.token_refusals import (
    BAD_ALG,
    BAD_AUDIENCE_TYPE,
    BAD_FORMAT,
    BAD_HEADER_BASE64,
    BAD_HEADER_JSON,
    BAD_KID,
    BAD_PAYLOAD_BASE64,
    BAD_PAYLOAD_JSON,
    BAD_SIGNATURE_BASE64,
    UNSUPPORTED_ALG,
    Refusal,
    wrong_type,
)  # fmt: skip

CLOCK_SKEW_SECONDS = 60
"""Fixed by Envoy (RA-25)."""
MAX_UNSIGNED_64 = float(2**64)
MAX_PLAIN_TIME = 2**40
"""Seconds: later than in any real token; larger times are looked at with care."""
NO_BEGIN, NO_END = float("-inf"), float("inf")
DIGEST_DIGITS = 8
"""Digits kept of a token's SHA-256: enough to find it again, of no use to anybody else."""
MAX_KNOWN_HEADER = 512
"""Most bytes of a header that is remembered; longer ones are read each time."""

Meaning = tuple[tuple[str, ...] | None, str, float, float]
"""Audiences, issuer, beginning and end of a token, as ``ParsedToken`` has them."""


@per_request
class ParsedToken:
    """A well-formed token, nothing about it verified yet."""

    alg: str
    kid: str
    claims: Mapping[str, Json]
    signing_input: bytes
    signature: bytes
    audiences: tuple[str, ...] | None
    """None: there is no ``aud``."""
    issuer: str
    valid_from: float
    """``nbf`` less the skew; minus infinity without one."""
    valid_until: float
    """``exp`` plus the skew, inclusive; infinity without one, and with zero, which is none to Envoy (RA-25)."""
    digest: str
    is_introspected: bool = False
    """Its issuer said what is in it; there is no signature to verify."""

    @property
    def payload_text(self) -> str:
        """The payload section exactly as it appeared (RA-47)."""
        return self.signing_input.partition(b".")[2].decode("ascii")


def read_token(text: str | bytes, digest: str = "") -> ParsedToken | Refusal:
    """
    Read a token as RA-21 to RA-23 demand: format, header, algorithm, payload and its types, encoding of the signature.

    Args:
        digest: the first digits of the text's SHA-256, if they are known.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
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
    meaning = _plain_meaning(claims) or _check_types(claims) or _meaning(claims)
    if isinstance(meaning, Refusal):
        return meaning
    try:
        signature = read_base64url(signature_text)
    except ValueError:
        return BAD_SIGNATURE_BASE64
    alg, kid = header
    audiences, issuer, valid_from, valid_until = meaning
    signing_input = b"%b.%b" % (header_text, payload_text)
    digest = digest or hashlib.sha256(data).hexdigest()[:DIGEST_DIGITS]
    return ParsedToken(alg, kid, claims, signing_input, signature, audiences, issuer, valid_from, valid_until, digest)


def introspected_token(claims: Mapping[str, Json], digest: str) -> ParsedToken | Refusal:
    """What an issuer answered about a token, with the meaning that the same claims of a JWT have (RA-23, RA-25)."""
    meaning = _check_types(claims) or _meaning(claims)
    if isinstance(meaning, Refusal):
        return meaning
    payload = write_base64url(json.dumps(dict(claims), separators=(",", ":")).encode())
    return ParsedToken("", "", claims, f".{payload}".encode(), b"", *meaning, digest, is_introspected=True)


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
"""Remembered, because an issuer writes the same header into every token of a key."""


def _plain_meaning(claims: Mapping[str, Json]) -> Meaning | None:
    """The meaning where the types are those of nearly every token, checked in one go; None where they are not."""
    claim = claims.get
    issuer, aud, exp, nbf = claim("iss", ""), claim("aud", ""), claim("exp", 0), claim("nbf", 0)
    if (
        type(issuer) is str
        and type(aud) is type(claim("sub", "")) is type(claim("jti", "")) is str
        and type(exp) is int
        and type(nbf) is int
        and type(iat := claim("iat", 0)) is int
        and 0 <= exp < MAX_PLAIN_TIME
        and 0 <= nbf < MAX_PLAIN_TIME
        and 0 <= iat < MAX_PLAIN_TIME
    ):
        return (
            (aud,) if aud or "aud" in claims else None,
            issuer,
            nbf - CLOCK_SKEW_SECONDS if nbf or "nbf" in claims else NO_BEGIN,
            exp + CLOCK_SKEW_SECONDS if exp else NO_END,
        )
    return None


def _meaning(claims: Mapping[str, Json]) -> Meaning:
    """The meaning of claims whose types were checked; Envoy cuts fractions off (RA-25)."""
    exp, nbf, aud, issuer = claims.get("exp"), claims.get("nbf"), claims.get("aud"), claims.get("iss")
    until = int(_number(exp))
    return (
        None if aud is None else (aud,) if isinstance(aud, str) else _strings(aud),
        _string(issuer),
        NO_BEGIN if nbf is None else int(_number(nbf)) - CLOCK_SKEW_SECONDS,
        until + CLOCK_SKEW_SECONDS if until else NO_END,
    )


def _check_types(claims: Mapping[str, Json]) -> Refusal | None:
    """RA-23: `null` is a wrong type everywhere."""
    for name in ("iss", "sub"):
        if name in claims and not isinstance(claims[name], str):
            return wrong_type(name, "a string")
    for name in ("iat", "nbf", "exp"):
        if name in claims:
            value = claims[name]
            if isinstance(value, bool) or not isinstance(value, int | float):
                return wrong_type(name, "an integer")
            if not 0 <= value < MAX_UNSIGNED_64:
                return wrong_type(name, "a positive 64 bit integer")
    if "jti" in claims and not isinstance(claims["jti"], str):
        return wrong_type("jti", "a string")
    if "aud" in claims:
        aud = claims["aud"]
        if not isinstance(aud, str) and not (isinstance(aud, list) and all(isinstance(item, str) for item in aud)):
            return BAD_AUDIENCE_TYPE
    return None


def _string(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _strings(value: Json) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _number(value: Json) -> float:
    return value if isinstance(value, int | float) else 0.0

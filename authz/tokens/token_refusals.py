"""
Why a token is refused, in Envoy's words: the body that the client sees is part of the behaviour (RA-40).

No reason holds a token; text that a client chose is cut and printable.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a token is refused: ``status`` and ``body`` are RA-40's, ``reason`` is for the audit record."""

    status: int
    body: str
    reason: str = ""
    is_unknown_issuer: bool = False
    """Such a refusal never hides another one (RA-8)."""
    is_unknown_key: bool = False
    """The key set may have been rotated since it was fetched: worth a hint to the source."""


def _refusal(body: str, status: int = 401) -> Refusal:
    return Refusal(status, body, body)


def wrong_type(claim: str, expected: str) -> Refusal:
    """A registered claim does not have the type it must have (RA-23)."""
    return _refusal(f"Jwt payload [{claim}] field is not {expected}")


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
NOT_ACTIVE = _refusal("Token is not active")
"""Ours: its issuer says so (RFC 7662)."""
NOT_ASKED_BODY = "Token introspection fails"
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


def clip(text: str) -> str:
    """Show text that a client chose: printable, at most 64 characters, in backticks."""
    shown = "".join(character if character.isprintable() else "?" for character in text[:64])
    return f"`{shown}{'…' if len(text) > 64 else ''}`"

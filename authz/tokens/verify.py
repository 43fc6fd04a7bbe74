"""
One token against one rule and its keys at a given time (RA-24 to RA-37), in Envoy's order of checks.

The order is visible to clients: a forged and expired token is "expired" (RA-28).
An invalid token is an expected "no", so everything here returns values; nothing raises.
"""

from authz.core.attributes import Json, Token
from authz.core.resources import JwtRule
from authz.tokens.jwks import ED25519_SIGNATURE_BYTES, KeySet
from authz.tokens.key_sets import KeySetState
from authz.tokens.parsed import ParsedToken
from authz.tokens.token_refusals import (
    AUDIENCE,
    EXPIRED,
    NO_MATCHING_KEY_BODY,
    NO_USABLE_KEY_BODY,
    NOT_YET_VALID,
    UNKNOWN_ISSUER_BODY,
    VERIFICATION_FAILS_BODY,
    WRONG_LENGTH_BODY,
    Refusal,
    clip,
)  # fmt: skip

MAX_SKIPPED_TOLD = 3
"""Most unused keys that a reason names."""


def check_token(token: ParsedToken, rule: JwtRule, state: KeySetState | None, now: float) -> Refusal | None:
    """
    Check issuer, time, audience and signature, in this order (RA-24 to RA-28); of a token that the issuer itself was
    asked about, all but the signature.

    Args:
        state: the keys of ``rule.keys_from``; None or without a key set: never fetched (RA-39).

    Returns:
        None when the token is good.
    """
    if rule.issuer and token.issuer != rule.issuer:
        reason = f"token {token.digest} has the issuer {clip(token.issuer)}, rule {rule.name} expects {rule.issuer}"
        return Refusal(401, UNKNOWN_ISSUER_BODY, reason, is_unknown_issuer=True)
    now = int(now)  # whole seconds count, as in Envoy (RA-25)
    if now < token.valid_from:
        return NOT_YET_VALID
    if now > token.valid_until:  # exactly 60 s late is still valid (RA-25)
        return EXPIRED
    if rule.audiences and not _shares_audience(token.audiences, rule.audiences):
        return AUDIENCE
    if token.is_introspected:
        return None
    if state is None or state.key_set is None:
        cause = state.error if state is not None and state.error else "not fetched yet"
        source = f"issuer {rule.issuer}" if rule.issuer else rule.keys_from
        reason = f"{VERIFICATION_FAILS_BODY}: key set of {source} was never fetched: {cause}"
        return Refusal(401, VERIFICATION_FAILS_BODY, reason, is_unknown_key=True)
    return _check_signature(token, state.key_set, state.error)


def _shares_audience(audiences: tuple[str, ...] | None, allowed: tuple[str, ...]) -> bool:
    """RA-30; both sides are compared without scheme or trailing slash (RA-31)."""
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
    """Which keys of the set are not used, and why: the token may have been signed with one of them."""
    if not key_set.skipped:
        return ""
    more = len(key_set.skipped) - MAX_SKIPPED_TOLD
    return f"; skipped {'; '.join(key_set.skipped[:MAX_SKIPPED_TOLD])}{f'; and {more} more' if more > 0 else ''}"


def accepted_token(token: ParsedToken, rule: JwtRule) -> Token:
    """Build what policies see of a token that was checked, space-delimited claims split (RA-33)."""
    claims = token.claims
    if "scope" in claims or "permission" in claims or rule.space_delimited_claims:
        claims = dict(claims)
        for name in ("scope", "permission", *rule.space_delimited_claims):
            value = claims.get(name)
            if isinstance(value, str) and (pieces := [piece for piece in value.split(" ") if piece]):
                claims[name] = list[Json](pieces)
    subject = claims.get("sub", "")
    if not isinstance(subject, str):  # split, because the rule says so
        subject = ""
    expires_at: float | None = token.claims.get("exp") or None  # type: ignore[assignment]  # a number: it was checked
    return Token(claims, token.issuer, subject, token.kid, token.digest, expires_at, rule.name, token.is_introspected)

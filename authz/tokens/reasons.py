"""
Why a token was refused, for people: both sides of the comparison, the nearest first.

The client is told Envoy's body and nothing else. No reason holds a token; what a client chose is cut and printable.
"""

from collections.abc import Iterable, Sequence

from authz.core.hints import difference
from authz.core.resources import JwtRule
from authz.tokens.parsed import ParsedToken
from authz.tokens.token_refusals import (
    AUDIENCE,
    BAD_FORMAT,
    EXPIRED,
    NOT_YET_VALID,
    UNKNOWN_ISSUER_BODY,
    UNSUPPORTED_ALG,
    Refusal,
    clip,
)

MAX_NAMED = 32
"""Issuers or audiences named in one reason."""
MILLISECONDS = 100_000_000_000
"""Seconds since 1970 that no clock will show for 3,000 years."""
MAX_COMPARED = 512
"""Most characters by which likeness is measured: the text is a client's."""
_PREFIXES = ("bearer ", "basic ", "jwt ", "token ")
_OBJECT = "eyJ"
"""How every JSON object begins in base64url that begins with a name."""


def in_words(refusal: Refusal, text: str, token: ParsedToken | None, rule: JwtRule, now: float) -> str:
    """Say why a token was refused, with what it has and what the rule wants; ``text`` is never repeated."""
    if refusal.body == AUDIENCE.body and token is not None:
        return f"{refusal.reason}: {audience(token, rule)}"
    if refusal.body == EXPIRED.body and token is not None:
        return f"{refusal.reason}: token {token.digest} was valid until {_span(now - token.valid_until)} ago"
    if refusal.body == NOT_YET_VALID.body and token is not None:
        unit = "; `nbf` is in seconds, and this looks like milliseconds" if token.valid_from > MILLISECONDS else ""
        return f"{refusal.reason}: token {token.digest} becomes valid in {_span(token.valid_from - now)}{unit}"
    if token is not None:
        return refusal.reason
    prefix = next((prefix for prefix in _PREFIXES if text.lower().startswith(prefix)), "")
    if prefix:
        shown = text[: len(prefix)]
        return f"{refusal.reason}: the value begins with `{shown}`; give `fromHeaders` the prefix `{shown}`"
    if refusal is BAD_FORMAT:
        return f"{refusal.reason}: {_sections(text)}"
    if refusal.body == UNSUPPORTED_ALG.body:
        return f"{refusal.reason}: neither `none` nor encryption is"
    return refusal.reason


def _sections(text: str) -> str:
    if text.count(".") == 4:  # the second is empty where the key is agreed on beforehand, as Auth0's is
        return "5 sections, so it is encrypted (JWE), which Envoy does not read"
    pieces = len([piece for piece in text.split(".") if piece])
    if not pieces:
        return "it is empty: not a JWT"
    counted = "1 section" if pieces == 1 else f"{pieces} sections"
    is_opaque = pieces == 1 or not text.startswith(_OBJECT)
    return f"{counted}, so it is opaque: not a JWT" if is_opaque else counted


def audience(token: ParsedToken, rule: JwtRule) -> str:
    """Say what the token has and what the rule wants (RA-30, RA-31)."""
    wanted = _listed(rule.audiences)
    if token.audiences is None:
        return f"the token has no aud, rule {rule.name} wants {'one of ' if len(rule.audiences) > 1 else ''}{wanted}"
    has = _listed(token.audiences) or "an empty list"
    found = next((apart for a in token.audiences for b in rule.audiences if (apart := difference(b, a))), "")
    one_of = "one of " if len(rule.audiences) > 1 else ""
    return f"the token has aud {has}, rule {rule.name} wants {one_of}{wanted}{f'; {found}' if found else ''}"


def unknown_issuer(token: ParsedToken, rules: Iterable[JwtRule]) -> str:
    """Say the token's issuer and those of all rules that looked at it, nearest first (RA-24)."""
    issuer = token.issuer[:MAX_COMPARED]
    names = {rule.issuer: rule.name for rule in reversed(list(rules))}
    ordered = sorted(names, key=lambda name: (not difference(name, issuer), -_likeness(name, issuer), name))
    told = []
    for name in ordered[:MAX_NAMED]:
        apart = difference(name, issuer) or ("a star is an ordinary character" if "*" in name else "")
        told.append(f"{clip(name)}{f' (rule {names[name]}, {apart})' if apart else ''}")
    more = f" and {len(ordered) - MAX_NAMED} more" if len(ordered) > MAX_NAMED else ""
    is_of = f"has the issuer {clip(token.issuer)}" if token.issuer else "names no issuer"
    return f"{UNKNOWN_ISSUER_BODY}: token {token.digest} {is_of}; the rules expect {', '.join(told)}{more}"


def _likeness(one: str, other: str) -> int:
    """How many characters two texts share at their beginning and at their end."""
    start = _shared(one, other)
    return start + _shared(one[start:][::-1], other[start:][::-1])


def _shared(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _listed(values: Iterable[str]) -> str:
    named = list(values)
    more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    return ", ".join(clip(value) for value in named[:MAX_NAMED]) + more


def _span(seconds: float) -> str:
    """``45 s``, ``3 min``, ``5 h``, ``12 days``."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def refusal_to_report(outcomes: Sequence[Refusal | None], again: Refusal | None = None) -> Refusal | None:
    """
    Choose which failure is reported; None stands for "no token" (RA-8).

    Args:
        again: the first failure when the rules are asked a second time; None: the same as the first time.

    "Unknown issuer" never replaces another failure, any other one replaces what was there.
    """
    result: Refusal | None = None
    first = again or next((outcome for outcome in outcomes if outcome is not None), None)
    for outcome in (*outcomes, first):
        if outcome is not None and (result is None or not outcome.is_unknown_issuer):
            result = outcome
    return result

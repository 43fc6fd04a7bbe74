"""Which key sets the JWT rules of some policies need, and what they say of each."""

from collections.abc import Iterable
from dataclasses import dataclass

from authz.core.resources import JwtRule


@dataclass(frozen=True, slots=True)
class KeyNeed:
    """The demands of the rules on one source."""

    uri: str
    """Empty: discovery from the issuer."""
    issuers: tuple[str, ...]
    timeout_seconds: float
    """The longest of the rules that share the source."""


def key_needs(rules: Iterable[JwtRule]) -> dict[str, KeyNeed]:
    """Find what has to be fetched for the rules; inline sets need nothing, nor does an issuer that is asked instead."""
    needs: dict[str, KeyNeed] = {}
    for rule in rules:
        if rule.jwks or rule.is_asked_only:
            continue
        known = needs.get(rule.keys_from)
        issuers = {rule.issuer} - {""} | set(known.issuers if known else ())
        timeout = max(rule.timeout_seconds, known.timeout_seconds if known else 0.0)
        needs[rule.keys_from] = KeyNeed(rule.jwks_uri, tuple(sorted(issuers)), timeout)
    return needs

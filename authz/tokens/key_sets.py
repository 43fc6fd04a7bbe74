"""The key sets in force: what was fetched, when, and what went wrong since."""

from collections.abc import Mapping
from dataclasses import dataclass

from authz.tokens.jwks import KeySet


@dataclass(frozen=True, slots=True)
class KeySetState:
    """
    One source of keys.

    ``key_set`` None: never fetched, or too old to be trusted; every token of the rule is refused (RA-39).
    """

    key_set: KeySet | None
    fetched_at: float | None = None
    """Seconds since the epoch of the last successful fetch."""
    error: str = ""
    """Why the last attempt failed; empty when it succeeded."""


KeySets = Mapping[str, KeySetState]
"""By ``JwtRule.keys_from``. Inline sets need no entry: they are part of their rule."""

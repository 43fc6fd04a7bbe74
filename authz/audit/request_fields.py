"""
The part of a request that a record keeps, and how text and times are written in it.

A record is a JSON object; ``docs/observability/audit.md`` names every field. ``writer`` writes it off the check path.
INVARIANT: it never holds a token, a cookie, an authorization header, or a query value that was not asked for by name.
This file knows neither sinks nor threads.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

MAX_TEXT = 1024
"""Longest text of a field in characters; what a client sends has no other bound."""
ESCAPED = "…"
"""Stands for what is not recorded."""

NEVER_KEPT = frozenset({"access_token", "id_token", "refresh_token", "token", "jwt", "code", "password", "secret"})
"""Query parameters whose values are not recorded even when asked for: they are credentials."""


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """The parts of the request that are recorded beyond the defaults."""

    query_values: frozenset[str] = frozenset()
    """Query parameters whose values are recorded; by default only names are. Never those of NEVER_KEPT."""
    user_agent: bool = True


DEFAULT_OPTIONS = RecordOptions()


def rfc3339(seconds: float) -> str:
    """Render seconds since the epoch as ``2026-01-31T12:00:00.123456Z``."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def clean(text: str) -> str:
    """Shorten to MAX_TEXT and show bytes that are not UTF-8 as ``\\xff``, so that every reader of JSON copes."""
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + ESCAPED
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a surrogate pair, as JSON escapes in a claim can spell it
        return text.encode("utf-8", "backslashreplace").decode()

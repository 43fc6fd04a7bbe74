"""When a key set is fetched again: after a success by what the response says, after failures ever later (RA-39)."""

import re
from collections.abc import Mapping

REFRESH_SECONDS = 20 * 60.0
"""Istio's default (RA-39); also the upper bound of a response's ``max-age``."""
MIN_REFRESH_SECONDS = 30.0
"""Lower bound of ``max-age``: an issuer that says "do not cache" is still not asked for every request."""
FIRST_RETRIES = 6
"""Retries after 1, 2, 4, ... 32 s, where Istio tries 7 times a second apart; then 1 min doubling to 60 min."""
MAX_RETRY_SECONDS = 3600.0

_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


def retry_delay(failures: int) -> float:
    """Seconds to wait after this many failures in a row: 1, 2, 4, ... 32, then 60 doubling to 3600."""
    if failures <= FIRST_RETRIES:
        return float(2 ** (failures - 1))
    return min(60.0 * float(2 ** min(failures - FIRST_RETRIES - 1, 6)), MAX_RETRY_SECONDS)


def refresh_delay(headers: Mapping[str, str], refresh_seconds: float) -> float:
    """
    Seconds until a fetched set is fetched again.

    The response's ``max-age`` less its ``age``, at least ``MIN_REFRESH_SECONDS``, at most ``refresh_seconds``; without
    ``max-age``, ``refresh_seconds``. ``no-store`` and ``no-cache`` do not shorten it: keys are meant to be kept.
    """
    match = _MAX_AGE.search(headers.get("cache-control", ""))
    if match is None:
        return refresh_seconds
    age = headers.get("age", "")
    left = float(match[1]) - (float(age) if age.isascii() and age.isdigit() and len(age) < 10 else 0.0)
    return min(max(left, MIN_REFRESH_SECONDS), refresh_seconds)

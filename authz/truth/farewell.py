"""Who ends in order takes its report away, so that nobody misses it: tried for a while, and not for long."""

import time
from threading import Event

from authz.truth.truth_bucket import FLEET, TruthBucket
from authz.truth.truth_client import TruthAway, TruthChanged, TruthClient

FAREWELL_SECONDS = 8.0
"""Whoever stops processes kills them after ten; if a server of three is killed, the others elect for up to eight."""
TRY_SECONDS = 1.0
"""For each answer: what is asked while nobody leads is never answered, and has to be asked again."""
PAUSE_SECONDS = 0.2


class Farewell:
    """Of one replica. ``say`` is called once, ``hurry`` by any thread."""

    def __init__(self, client: TruthClient) -> None:
        """Nothing is asked yet."""
        self._bucket = TruthBucket(client, FLEET, seconds=TRY_SECONDS)
        self._is_hurried = Event()

    def say(self, *patterns: str, until: float) -> None:
        """
        Delete what there is below these patterns, trying until a time by the monotonic clock, once at least.

        Raises:
            TruthAway, TruthChanged: the last try failed.
            TruthRefused: it may not.
        """
        while True:
            try:
                for pattern in patterns:
                    for key, entry in self._bucket.entries(pattern).items():
                        self._bucket.delete(key, entry.revision)
                return
            except (TruthAway, TruthChanged):  # perhaps changed by the try before
                if self._is_hurried.wait(PAUSE_SECONDS) or time.monotonic() > until:
                    raise

    def hurry(self) -> None:
        """Try no more."""
        self._is_hurried.set()

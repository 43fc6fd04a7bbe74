"""Ids of decisions."""

import itertools


class DecisionIds:
    """
    Ids of 24 hexadecimal digits: seconds of the start, randomness of the process, a counter.

    Sortable within a process and, by the start, across restarts; far cheaper than a UUID per call.
    """

    def __init__(self, started_at: float, randomness: bytes) -> None:
        self._prefix = f"{int(started_at):08x}"[-8:] + randomness.hex()[:6].rjust(6, "0")
        self._count = itertools.count()

    def next(self) -> str:
        """Return the id of one more decision."""
        return f"{self._prefix}{next(self._count):010x}"

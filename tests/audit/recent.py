"""A sink that remembers, to see what a trail wrote."""

from collections import deque
from collections.abc import Sequence

from authz.audit.entry import Entry


class RecentSink:
    """The last ``capacity`` entries in memory. Read it from any thread."""

    problem = ""

    def __init__(self, capacity: int = 1000, name: str = "recent") -> None:
        self.name = name
        self._entries: deque[Entry] = deque(maxlen=capacity)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Oldest first."""
        return tuple(self._entries)

    def write(self, entries: Sequence[Entry]) -> None:
        """Remember a batch."""
        self._entries.extend(entries)

    def close(self) -> None:
        """Keep what is remembered."""

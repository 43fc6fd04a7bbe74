"""Where records go: standard output, rotated files, OTLP logs; side by side, and one that fails harms no other."""

import os
from collections import deque
from collections.abc import Sequence

from authz.audit.trail import Entry


def write_fully(descriptor: int, data: bytes) -> None:
    """Write all of ``data``. One call of the system nearly always, so that lines of several processes stay whole."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class StreamSink:
    """JSON lines on an open descriptor, standard output by default; the descriptor stays open."""

    def __init__(self, descriptor: int = 1, name: str = "stdout") -> None:
        self.name = name
        self._descriptor = descriptor

    def write(self, entries: Sequence[Entry]) -> None:
        """Write a batch with one call."""
        write_fully(self._descriptor, b"".join([entry.line + b"\n" for entry in entries]))

    def close(self) -> None:
        """Leave the descriptor open: it is not ours."""


class RecentSink:
    """The last ``capacity`` entries in memory, for the operator's page and for tests. Read it from any thread."""

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

"""
What the trail hands to sinks, and what trail and sinks tell of themselves.

Neither the queue nor any sink is known here.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from authz.audit.record import NO_TRACE, Record, TraceIds


class Entry:
    """One record for the sinks. Most of them need the line only, so the object is parsed when it is asked for."""

    __slots__ = ("_record", "at", "line", "trace")

    def __init__(self, line: bytes, at: float, trace: TraceIds = NO_TRACE) -> None:
        self.line = line
        """JSON without a newline."""
        self.at = at
        """When the decision began, seconds since the epoch."""
        self.trace = trace
        self._record: Record | None = None

    @property
    def record(self) -> Record:
        """The record as an object; do not change it."""
        if self._record is None:
            self._record = json.loads(self.line)
        return self._record


class Sink(Protocol):
    """Where records go. Only the writer thread calls it."""

    name: str
    """For people and metrics: ``stdout``, ``file:/var/log/authz/audit.jsonl``."""

    @property
    def problem(self) -> str:
        """What is wrong although ``write`` succeeds, for sinks that deliver later; else empty."""

    def write(self, entries: Sequence[Entry]) -> None:
        """Write a batch through to the operating system. Raises OSError when it could not."""

    def close(self) -> None:
        """Write what is held back and release everything."""


@dataclass(slots=True)
class SinkStatus:
    """How one sink is doing. The writer thread changes its own; ``status`` hands out copies."""

    name: str
    written: int = 0
    lost: int = 0
    """Records it refused for good."""
    errors: int = 0
    error: str = ""
    """Last error, empty again after a success."""


@dataclass(frozen=True, slots=True)
class TrailStatus:
    """The trail as metrics and readiness see it."""

    queued: int
    capacity: int
    written: int
    """Records handed to the sinks."""
    dropped: int
    """Records lost to a full queue."""
    filtered: int
    """Records left out on purpose by a drop rule."""
    failed: int
    """Records that could not be built: our own mistakes, see the log."""
    sinks: tuple[SinkStatus, ...]
    tracing: str
    """What the export of spans complains of, or empty."""
    is_running: bool
    denies: bool = False
    """Whether a record that cannot be kept refuses the request."""

"""
An entry, which the trail hands to sinks, and a record as bytes: one compact JSON line, plain ASCII so
that every reader copes.

Neither the queue nor any sink is known here.
"""

import json
from collections.abc import Sequence
from typing import Protocol

from authz.core.decided import NO_TRACE, Record, TraceIds


class Entry:
    """One record for the sinks. Most of them need only the line, so the object is parsed when it is asked for."""

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
    """The name for people and metrics: ``stdout``, ``file:/var/log/authz/audit.jsonl``."""

    @property
    def problem(self) -> str:
        """The trouble of a sink that delivers later, although ``write`` succeeded; empty without any."""

    def write(self, entries: Sequence[Entry]) -> None:
        """Write a batch through to the operating system. Raises OSError when it could not."""

    def close(self) -> None:
        """Write what is held back and release everything."""


_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, check_circular=False, allow_nan=False)


def encode_record(record: Record) -> bytes:
    """Encode one record without a newline."""
    return _encoder.encode(record).encode()

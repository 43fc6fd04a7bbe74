"""An audit that is a list."""

from typing import NamedTuple

from authz.core.attributes import AttributeContext
from authz.core.decided import Timing
from authz.core.decision import Decision


class Entry(NamedTuple):
    attributes: AttributeContext
    decision: Decision
    decision_id: str
    started_at: float
    duration_seconds: float
    cache_hit: bool | None
    timings: tuple[Timing, ...]


class Recorder:
    def __init__(self, *, accepts: bool = True) -> None:
        self.entries: list[Entry] = []
        self._accepts = accepts

    def offer(
        self,
        attributes: AttributeContext,
        decision: Decision,
        decision_id: str,
        started_at: float,
        duration_seconds: float,
        cache_hit: bool | None = None,
        timings: tuple[Timing, ...] = (),
    ) -> bool:
        self.entries.append(Entry(attributes, decision, decision_id, started_at, duration_seconds, cache_hit, timings))
        return self._accepts

    def clear(self) -> None:
        self.entries.clear()

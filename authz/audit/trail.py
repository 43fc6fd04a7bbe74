"""
The audit trail: decisions are offered on the check path and written by a thread of their own.

``offer`` appends one tuple to a bounded queue: it never waits, never raises, and formats nothing.
The writer wakes every ``flush_seconds``, builds records, spans and metrics, and hands whole batches to the sinks, which
write through to the operating system. A killed process therefore loses the records of at most the last
``flush_seconds`` plus the batch at hand; a lost machine loses more unless the file sink is told to sync.
Given an event loop's ``call_soon``, plain records are built there, after the answers: two threads that both want the
interpreter cost a third more than one that does the work of both. Writing is the writer's in any case.
A full queue drops and counts, or refuses the request: ``on_full`` says which.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from authz.audit.encode import encode_record
from authz.audit.entry import Entry, Sink
from authz.audit.filters import RecordRules
from authz.audit.record import DEFAULT_OPTIONS, RecordOptions, RecordWriter, rfc3339
from authz.core.attributes import AttributeContext
from authz.core.decided import NO_TRACE, Offer, Record, Timing, TraceIds
from authz.core.decision import Decision, Effect, Stage
from authz.core.explain import RuleNote
from authz.telemetry.counters import Telemetry
from authz.telemetry.spans import DecisionTracer
from authz.telemetry.status import SinkStatus, TrailStatus

_log = logging.getLogger("authz.audit")

BATCH = 256
"""Most records written with one call of a sink."""
CallSoon = Callable[[Callable[[], None]], object]
"""As of an event loop: run this when what is under way is done."""
_BREATH = 16
"""Records built before the writer lets other threads run: it must not hold the interpreter against a check."""
_BREATH_SECONDS = 50e-6


class OnFull(StrEnum):
    """What a full queue does to the decision at hand."""

    DROP = "drop"
    """The request is answered as decided; the record is lost and counted. For those who put traffic first."""
    DENY = "deny"
    """``offer`` says False and the caller must refuse. For those who must not decide without a record."""


@dataclass(frozen=True, slots=True)
class Steps:
    """What the writer does with each offer besides writing it."""

    telemetry: Telemetry = field(default_factory=Telemetry)
    """Counts every decision, those without a record too."""
    tracer: DecisionTracer = field(default_factory=lambda: DecisionTracer((), root_ratio=0.0))
    """Without exporters it only reads the ids of the trace. Sampling has no say in what is recorded."""
    rules: RecordRules = field(default_factory=RecordRules)
    options: RecordOptions = DEFAULT_OPTIONS
    nearest: Callable[[AttributeContext, Decision], RuleNote | None] | None = None
    """
    Finds the rule that came closest, asked for denials of the ALLOW stage only; None records none.

    It costs as much as the policies are long, so it is left out while the queue is filling up.
    """
    watch: Callable[[Offer, TraceIds], None] | None = None
    """Told of every decision besides the sinks, with its request: the operator's page explains from it."""


class AuditTrail:
    """
    The queue and its writer. ``start`` once, ``offer`` from any thread, ``close`` once.

    ``capacity`` bounds memory: a waiting offer keeps its request alive, some 5 kB each.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        capacity: int = 8192,
        on_full: OnFull | str = OnFull.DROP,
        flush_seconds: float = 0.05,
        retry_seconds: float = 0.5,
        steps: Steps | None = None,
    ) -> None:
        self._sinks = tuple(zip(sinks, (SinkStatus(sink.name) for sink in sinks), strict=True))
        self._queue: deque[Offer | Entry | threading.Event] = deque()
        self._built: deque[Entry | Offer | threading.Event] = deque()
        """What the event loop has been through, in order; an offer that it left to the writer is there as it was."""
        self._call_soon: CallSoon | None = None
        self._is_called = False
        self._passes = 0
        """How often the event loop has built; when that stands still, the writer builds."""
        self._is_urgent = False
        self._building = threading.Lock()
        """Held by whoever takes from ``_queue`` or builds; the event loop never waits for it."""
        self._capacity = self.capacity = capacity
        self._denies = OnFull(on_full) is OnFull.DENY
        self._flush_seconds = flush_seconds
        self._retry_seconds = retry_seconds
        self._steps = steps or Steps()
        self._writer = RecordWriter(self._steps.options)
        self._has_rules = not self._steps.rules.is_empty
        self._finds_nearest = self._steps.nearest is not None
        self._is_tracing = self._steps.tracer.is_exporting
        self._is_written = bool(self._sinks) or self._is_tracing
        """Whether anybody reads records; without sinks and spans decisions are counted and shown only."""
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._dropped = self._written = self._filtered = self._failed = 0
        self._thread = threading.Thread(target=self._run, name="authz-audit", daemon=True)

    def start(self, call_soon: CallSoon | None = None) -> None:
        """
        Start the writer; offers made before are kept.

        ``call_soon`` is of the event loop whose thread makes all offers from now on; None builds in the writer.
        """
        self._call_soon = call_soon
        self._thread.start()

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
        """
        Hand over one decision. Never waits, never raises.

        Returns:
            False when the queue is full and the setting says to deny: the caller must then refuse the request.
        """
        offer = Offer(attributes, decision, decision_id, started_at, duration_seconds, cache_hit, timings)
        if len(self._queue) + len(self._built) >= self._capacity:
            return self._overflow(offer)
        self._queue.append(offer)
        if not self._is_called and self._call_soon is not None:
            self._is_called = True
            try:
                self._call_soon(self._build_soon)
            except RuntimeError:  # the loop is closed: from now on the writer builds
                self._call_soon = None
        return True

    def note(self, entry: Entry) -> None:
        """Put a record that is no decision behind those offered so far. It is never dropped: only few are made."""
        self._queue.append(entry)
        self._wake.set()

    def flush(self, timeout_seconds: float = 5.0) -> bool:
        """Wait until everything offered so far is written; False when that took too long. Not for the check path."""
        written = threading.Event()
        self._queue.append(written)
        self._is_urgent = True
        self._wake.set()
        return written.wait(timeout_seconds)

    def close(self, timeout_seconds: float = 5.0) -> bool:
        """Write what is queued, close the sinks, stop. Later offers count as dropped. False when time ran out."""
        self._capacity = 0
        self._closing.set()
        self._wake.set()
        if self._thread.ident is None:  # never started: nobody else closes what was opened
            self._close_all()
        else:
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive() and not self._queue and not self._built

    def status(self) -> TrailStatus:
        """Say how the trail is doing, from any thread."""
        return TrailStatus(
            queued=len(self._queue) + len(self._built),
            capacity=self.capacity,
            written=self._written,
            dropped=self._dropped,
            filtered=self._filtered,
            failed=self._failed,
            sinks=tuple(
                SinkStatus(s.name, s.written, s.lost, s.errors, s.error or sink.problem) for sink, s in self._sinks
            ),
            tracing=self._steps.tracer.problem,
            is_running=self._thread.is_alive(),
            denies=self._denies,
        )

    def _overflow(self, offer: Offer) -> bool:
        try:
            with self._lock:  # held for an increment only
                self._dropped += 1
            self._steps.telemetry.observe(offer)
        except Exception:  # a decision must not fail because counting did
            _log.exception("an audit record was dropped, and could not be counted")
        return not self._denies

    def _run(self) -> None:
        passes = -1
        while True:
            is_closing = self._closing.is_set()
            builds = is_closing or self._call_soon is None or self._is_urgent or self._passes == passes
            passes, self._is_urgent = self._passes, False
            try:
                # Where the loop builds, only what is there now: chasing it would take the interpreter from it.
                left = len(self._built)
                while (builds and self._queue) or (self._built and (builds or left > 0)):
                    left -= BATCH
                    self._write_batch(builds=builds)
            except Exception:  # the writer must survive anything, or the queue fills up and requests are lost
                _log.exception("the audit writer failed")
            if is_closing:
                break
            self._wake.wait(self._flush_seconds)
            self._wake.clear()
        self._close_all()

    def _close_all(self) -> None:
        for sink, _ in self._sinks:
            try:
                sink.close()
            except Exception:
                _log.exception("audit sink %s could not be closed", sink.name)
        self._steps.tracer.close()

    def _build_soon(self) -> None:
        """In the event loop: build what waits, but leave to the writer what takes long."""
        self._is_called = False
        if not self._building.acquire(blocking=False):
            self._is_urgent = True  # the writer is at it and will take the rest too
            return
        try:
            self._passes += 1
            self._build_waiting(len(self._queue), is_loop=True)
        finally:
            self._building.release()

    def _build_waiting(self, most: int, *, is_loop: bool) -> None:
        """Move from the queue to what is built, in order. The lock is held."""
        queue, built = self._queue, self._built
        for number in range(min(most, len(queue))):
            if not is_loop and number % _BREATH == _BREATH - 1 and len(queue) < self.capacity // 2:
                time.sleep(_BREATH_SECONDS)
            item = queue.popleft()
            if not isinstance(item, Offer) or (is_loop and self._takes_long(item)):
                built.append(item)
            elif (entry := self._build(item)) is not None:
                built.append(entry)

    def _takes_long(self, offer: Offer) -> bool:
        """Redaction, spans, and finding the nearest rule: several times the work of a plain record."""
        if self._has_rules or (self._finds_nearest and _needs_nearest(offer.decision)):
            return True
        return self._is_tracing and not offer.attributes.trace_parent.endswith("-00")

    def _write_batch(self, *, builds: bool) -> None:
        entries: list[Entry] = []
        waiting: list[threading.Event] = []
        try:
            if builds and self._queue:
                with self._building:
                    self._build_waiting(BATCH, is_loop=False)
            built = self._built
            for _ in range(min(len(built), BATCH)):
                item = built.popleft()
                if isinstance(item, threading.Event):
                    waiting.append(item)
                    continue
                if isinstance(item, Offer):
                    with self._building:
                        entry = self._build(item)
                else:
                    entry = item
                if entry is not None:
                    entries.append(entry)
            if entries:
                for sink, status in self._sinks:
                    self._write(sink, status, entries)
                self._written += len(entries)
        finally:
            for event in waiting:
                event.set()

    def _build(self, offer: Offer) -> Entry | None:
        """Count, choose the span's ids, make the record, end the span; one failing step does not cost the others."""
        steps, trace, line, is_dropped = self._steps, NO_TRACE, b"", False
        try:
            steps.telemetry.observe(offer)
        except Exception:
            _log.exception("metrics of decision %s could not be counted", offer.decision_id)
        try:
            trace = steps.tracer.begin(offer)
            if self._is_written:
                nearest = self._nearest(offer) if self._finds_nearest and _needs_nearest(offer.decision) else None
                line = self._writer.write(offer, trace, nearest).encode()
                if self._has_rules:
                    record: Record = json.loads(line)
                    is_dropped = steps.rules.drops(record)
                    line = encode_record(steps.rules.redact(record))
        except Exception:
            _log.exception("the audit record of decision %s could not be built", offer.decision_id)
            self._failed += 1
            is_dropped, line = False, encode_record(_bare_record(offer))
        if steps.watch is not None:
            try:
                steps.watch(offer, trace)
            except Exception:
                _log.exception("decision %s could not be watched", offer.decision_id)
        entry = Entry(line, offer.started_at, trace)
        if self._is_tracing and trace.is_sampled:
            try:
                steps.tracer.finish(trace, offer, entry.record)
            except Exception:
                _log.exception("the span of decision %s could not be made", offer.decision_id)
        if is_dropped:
            self._filtered += 1
        return entry if self._sinks and not is_dropped else None

    def _nearest(self, offer: Offer) -> RuleNote | None:
        find = self._steps.nearest
        if find is None or len(self._queue) + len(self._built) > self.capacity // 8:
            return None
        try:
            return find(offer.attributes, offer.decision)
        except Exception:
            _log.exception("the nearest rule of decision %s could not be found", offer.decision_id)
            return None

    def _write(self, sink: Sink, status: SinkStatus, entries: list[Entry]) -> None:
        """Write to one sink; where records must not be lost, try until it works, and let the queue fill up."""
        while True:
            try:
                sink.write(entries)
            except Exception as error:
                if not status.error:
                    _log.error("audit sink %s failed: %s", sink.name, error)
                status.errors += 1
                status.error = str(error) or type(error).__name__
                if self._denies and not self._closing.wait(self._retry_seconds):
                    continue
                status.lost += len(entries)
                return
            if status.error:
                _log.warning("audit sink %s works again", sink.name)
                status.error = ""
            status.written += len(entries)
            return


def _needs_nearest(decision: Decision) -> bool:
    return decision.effect is Effect.DENY and decision.stage is Stage.ALLOW


def _bare_record(offer: Offer) -> Record:
    """What is certain of a decision whose record could not be built: a decision is never without a line."""
    return {
        "decision_id": offer.decision_id,
        "time": rfc3339(offer.started_at),
        "effect": offer.decision.effect.value,
        "stage": offer.decision.stage.value,
        "reason": "the full record could not be built; see the log of the service",
        "policy_version": offer.decision.policy_version,
    }

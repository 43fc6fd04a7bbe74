"""
The audit trail: decisions are offered on the check path and written by a thread of their own.

``offer`` appends one tuple to a bounded queue: it never waits, never raises, and formats nothing. Records are built
there or here: ``handover`` says who builds, ``builder`` how. The writer wakes every ``flush_seconds`` and hands whole
batches to the sinks, which write through to the operating system. A killed process therefore loses the records of at
most the last ``flush_seconds`` plus the batch at hand; a lost machine loses more unless the file sink is told to sync.
A full queue drops and counts, or refuses the request: ``on_full`` says which.
"""

import logging
import threading
from collections.abc import Sequence
from enum import StrEnum

from authz.audit.builder import EntryBuilder, RecordSteps
from authz.audit.entry import Entry, Sink
from authz.audit.handover import CallSoon, Handover
from authz.core.decided import Offer
from authz.telemetry.status import SinkStatus, TrailStatus

_log = logging.getLogger("authz.audit")


class OnFull(StrEnum):
    """The effect of a full queue on the decision at hand."""

    DROP = "drop"
    """The request is answered as decided; the record is lost and counted: for those who put traffic first."""
    DENY = "deny"
    """``offer`` answers False and the caller must refuse: for those who must not decide without a record."""


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
        steps: RecordSteps | None = None,
    ) -> None:
        self._sinks = tuple(zip(sinks, (SinkStatus(sink.name) for sink in sinks), strict=True))
        steps = steps or RecordSteps()
        self._telemetry, self._tracer = steps.telemetry, steps.tracer
        self._builder = EntryBuilder(steps, has_sinks=bool(self._sinks))
        self._handover = Handover(self._builder, capacity)
        self._capacity = self.capacity = capacity
        self._denies = OnFull(on_full) is OnFull.DENY
        self._flush_seconds = flush_seconds
        self._retry_seconds = retry_seconds
        self._reopens = False
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._dropped = self._written = 0
        self._thread = threading.Thread(target=self._run, name="authz-audit", daemon=True)

    def start(self, call_soon: CallSoon | None = None) -> None:
        """
        Start the writer; offers made before are kept.

        ``call_soon`` belongs to the event loop whose thread makes all offers from now on; None builds in the writer.
        """
        self._handover.use_loop(call_soon)
        self._thread.start()

    def record(self, offer: Offer) -> bool:
        """
        Hand over one decision. Never waits, never raises.

        Returns:
            False when the queue is full and the setting says to deny: the caller must then refuse the request.
        """
        if len(self._handover) >= self._capacity:
            return self._overflow(offer)
        self._handover.put(offer)
        return True

    def note(self, entry: Entry) -> None:
        """Put a record that is not a decision behind those offered so far. It is never dropped: only few are made."""
        self._handover.pass_on(entry)
        self._wake.set()

    def flush(self, timeout_seconds: float = 5.0) -> bool:
        """Wait until everything offered so far is written; False when that took too long. Not for the check path."""
        written = threading.Event()
        self._handover.mark(written)
        self._wake.set()
        return written.wait(timeout_seconds)

    def reopen(self) -> None:
        """Let sinks that write files reopen them, before the next batch at the latest; from any thread."""
        self._reopens = True
        self._wake.set()

    def close(self, timeout_seconds: float = 5.0) -> bool:
        """Write what is queued, close the sinks, stop. Later offers count as dropped. False when time ran out."""
        self._capacity = 0
        self._closing.set()
        self._wake.set()
        if self._thread.ident is None:  # never started: nobody else closes what was opened
            self._close_all()
        else:
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive() and not self._handover

    def status(self) -> TrailStatus:
        """Say how the trail is doing, from any thread."""
        return TrailStatus(
            queued=len(self._handover),
            capacity=self.capacity,
            written=self._written,
            dropped=self._dropped,
            filtered=self._builder.filtered,
            failed=self._builder.failed,
            sinks=tuple(_seen(sink, status) for sink, status in self._sinks),
            tracing=self._tracer.problem,
            is_running=self._thread.is_alive(),
            denies=self._denies,
        )

    def _overflow(self, offer: Offer) -> bool:
        try:
            with self._lock:  # held for an increment only
                self._dropped += 1
            self._telemetry.observe(offer)
        except Exception:  # a decision must not fail because counting did
            _log.exception("an audit record was dropped, and could not be counted")
        return not self._denies

    def _run(self) -> None:
        while True:
            is_closing = self._closing.is_set()
            if self._reopens:
                self._reopens = False
                self._reopen_all()
            try:
                for entries, waiting in self._handover.batches(everything=is_closing):
                    self._write_batch(entries, waiting)
            except Exception:  # the writer must survive anything, or the queue fills up and requests are lost
                _log.exception("the audit writer failed")
            if is_closing:
                break
            self._wake.wait(self._flush_seconds)
            self._wake.clear()
        self._close_all()

    def _reopen_all(self) -> None:
        for sink, _ in self._sinks:
            reopen = getattr(sink, "reopen", None)
            if reopen is None:
                continue
            try:
                reopen()
                _log.info("audit sink %s was reopened", sink.name)
            except OSError as error:
                _log.error("audit sink %s could not be reopened, the old file stays in use: %s", sink.name, error)

    def _close_all(self) -> None:
        for sink, _ in self._sinks:
            try:
                sink.close()
            except Exception:
                _log.exception("audit sink %s could not be closed", sink.name)
        self._tracer.close()

    def _write_batch(self, entries: list[Entry], waiting: list[threading.Event]) -> None:
        try:
            if entries:
                for sink, status in self._sinks:
                    self._write(sink, status, entries)
                self._written += len(entries)
        finally:
            for event in waiting:
                event.set()

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


def _seen(sink: Sink, status: SinkStatus) -> SinkStatus:
    """How a sink is doing, with what it says of itself."""
    waiting: int | None = getattr(sink, "waiting", None)
    is_late = waiting is not None and not status.error and bool(sink.problem)
    error = status.error or sink.problem
    return SinkStatus(status.name, status.written, status.lost, status.errors, error, is_late, waiting)

"""
From access log entries to the audit trail: judged, counted, offered, with back-pressure and notes of what is wrong.

Runs in the event loop, like the checks, a few entries at a time. When the trail is full nothing is read: a file waits,
and gRPC's flow control makes a stream's sender wait.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from time import time
from typing import Protocol

from authz.audit.entry import Entry
from authz.audit.request_fields import rfc3339
from authz.core.attributes import Json
from authz.core.decided import CandidateAnswer
from authz.core.decision import Decision, RuleReference
from authz.envoy.native.key_hints import Hinter, is_of_unknown_key
from authz.service.askers import identity_problem
from authz.service.check_function import Audit
from authz.service.native.judge import Judge, Judged, Verdict
from authz.service.ports.failure import where_it_failed
from authz.telemetry.status import NativeStatus, TrailStatus
from authz.wire.access_line import LineReader
from authz.wire.access_log import LogEntry, NotAnEntry

_log = logging.getLogger("authz.native")
SLICE = 32
"""Entries between which checks get their turn: about a millisecond."""
WAIT_SECONDS = 0.005
SHARE, LARGE_SHARE = 2, 32
"""Nothing is read while the trail is full to this part: half, or a 32nd for what is large."""
TENTHS = 10
"""Entries are counted by tenths of a second for the comparison with Envoy's counters."""
SHOWN = 200
"""Characters of a name that a sender chose, in a line of the log."""
TCP = "tcp:"
"""Prefix of the listener's name where connections are counted; an HTTP listener may have the same name."""
COMPLAINTS_SECONDS = 10.0
"""At most one line in the operator's log for each kind of trouble in this many seconds; metrics and notes have all."""
Recorded = Counter[tuple[str, str]]
"""(decision id, time) of records that were written before the last stop and may come again."""


class Trail(Audit, Protocol):
    """``audit.trail.AuditTrail``, as far as it is used here."""

    def note(self, entry: Entry) -> None:
        """Put a record that is not a decision into the trail."""

    def status(self) -> TrailStatus:
        """How the trail is doing."""

    def flush(self, timeout_seconds: float = 5.0) -> bool:
        """Wait until everything so far is written; False when that took too long."""


class Intake:
    """One for a service; both carriers feed it. All calls are in one event loop."""

    def __init__(self, trail: Trail, sample: float = 1.0, clock: Callable[[], float] = time) -> None:
        self._trail = trail
        self._clock = clock
        self.judge = Judge(sample)
        self.verdicts: Counter[str] = Counter()
        self.results: Counter[tuple[str, str]] = Counter()
        """By carrier and result: recorded, undecided, unreadable, torn, refused, failed or repeated."""
        self.disagreements: Counter[tuple[str, str]] = Counter()
        self.seen: Counter[tuple[str, str, int]] = Counter()
        """(proxy, listener, tenth of a second in which it ended) to entries; ``gaps`` takes from it."""
        self.counts_seen = False
        self.newest_at = 0.0
        self.hinter: Hinter | None = None
        """Told of key sets that may be too old; None: nobody could fetch them."""
        self.compare: Callable[[LogEntry, Judged], CandidateAnswer | None] | None = None
        """Says what a candidate would have answered, where that differs; never raises. None: there is never one."""
        self._complained: dict[str, float] = {}
        self._room = 0
        self.held_since: float | None = None
        """Since when nothing is read because the trail has no room, seconds since the epoch; None while it has."""
        self._turn, self._large_turn = asyncio.Lock(), asyncio.Lock()
        """One stream waits at a time and the others for it, so that thousands of them cost nothing while they wait."""
        self._reader = LineReader()

    def status(self) -> NativeStatus:
        """What was read, judged and disagreed on so far."""
        return NativeStatus(dict(self.results), dict(self.verdicts), dict(self.disagreements), newest_at=self.newest_at)

    def take_lines(self, lines: Iterable[bytes], repeated: Recorded | None = None) -> None:
        """Take at most SLICE lines of a file; ``room`` must have been awaited."""
        torn = self._reader.torn
        for line in lines:
            if not line:
                continue
            try:
                entry = self._reader.read(line)
            except NotAnEntry as error:
                self.refuse("file", error)
                continue
            except Exception as error:  # our mistake: a line must not stop those behind it
                self.results["file", "failed"] += 1
                self._complain("failed", "a line of an access log could not be read: %s", where_it_failed(error))
                self.note("access-log-failed", self._clock(), {})
                continue
            if repeated and self._is_repeated(entry, repeated):
                self._count(entry, "file", "repeated")
            else:
                self.take(entry, "file")
        if self._reader.torn > torn:
            self.results["file", "torn"] += self._reader.torn - torn

    def take(self, entry: LogEntry, carrier: str, caller: str = "") -> None:
        """Take one entry; ``room`` must have been awaited within the last SLICE ones. ``caller`` as in ``stream``."""
        destination = entry.attributes.destination
        workload = destination.workload
        problem = identity_problem(destination.principal, workload.namespace, workload.service_account, caller)
        if caller and problem:  # not counted as seen: that would hide requests of the proxy that it names
            self.disbelieve(carrier, problem)
            return
        if not entry.is_decided:
            self._count(entry, carrier, "undecided")
            return
        if problem:
            self._count(entry, carrier, "refused")
            self._complain("refused", "an access log entry is not recorded: %s", problem)
            return
        try:
            judged = self.judge.judge(entry)
        except Exception as error:  # our mistake: the entry must not be lost without a trace, nor stop the others
            self._count(entry, carrier, "failed")
            self._complain("failed", "an access log entry could not be judged: %s", where_it_failed(error))
            told: dict[str, Json] = {"request": entry.decision_id, "proxy": entry.proxy}
            self.note("access-log-failed", entry.started_at, told)
            return
        if self.hinter is not None and is_of_unknown_key(entry.enforced.details):
            self.hinter.hint(self.judge.jwt_rules(entry))
            if self.hinter.problem:
                self._complain("hint", "a key set may be too old, and nobody could be told: %s", self.hinter.problem)
        self.verdicts[judged.verdict.value] += 1
        answer = self.compare(entry, judged) if self.compare is not None else None
        self._trail.record(judged.offer if answer is None else judged.offer._replace(candidate=answer))
        if judged.verdict is Verdict.OTHER_VERSION and self.judge.is_settled(entry):
            self._complain("version", "proxy %s decides by other policies or mesh settings than are here", entry.proxy)
        if judged.verdict is Verdict.DISAGREED and judged.engine is not None:
            self._disagree(entry, judged, judged.engine)
        self._count(entry, carrier, "recorded")
        self.newest_at = max(self.newest_at, min(entry.ended_at, self._clock()))  # a clock may be far ahead

    def refuse(self, carrier: str, error: NotAnEntry) -> None:
        """Count what is not an entry of ours, and say so."""
        self.results[carrier, "unreadable"] += 1
        self._complain("unreadable", "an entry of an access log is not recorded: %s", error)

    def disbelieve(self, carrier: str, problem: str) -> None:
        """Count an entry that is not its sender's to make, and say so."""
        self.results[carrier, "refused"] += 1
        self._complain("refused", "an access log entry is not recorded: %s", problem)

    async def room(self, *, is_large: bool = False) -> None:
        """
        Wait until the trail can take another slice; lets checks have their turn in any case.

        ``is_large``: the slice is large in bytes: then hardly anything may be waiting, for what waits is in memory.
        """
        if is_large:
            async with self._large_turn:
                await self._free(LARGE_SHARE)
        async with self._turn:  # until it is this one's: who has been let in takes its slice before the next is
            self._room -= SLICE
            if self._room <= 0:
                try:
                    self._room = max(SLICE, min(await self._free(SHARE) // 2, 256))
                finally:
                    self.held_since = None
            await asyncio.sleep(0)

    async def _free(self, share: int) -> int:
        """Wait until a slice fits before the trail is full to this part; return how many entries do."""
        while True:
            status = self._trail.status()
            free = max(SLICE, status.capacity // share) - status.queued
            if free >= SLICE or not status.capacity or not status.is_running:
                return free
            if share == SHARE and self.held_since is None:
                self.held_since = self._clock()
            await asyncio.sleep(WAIT_SECONDS)

    async def flushed(self) -> bool:
        """Wait until everything taken so far is with the sinks."""
        return await asyncio.to_thread(self._trail.flush)

    def note(self, event: str, at: float, told: dict[str, Json]) -> None:
        """Put a record of our own into the trail: not a decision, but what must not be lost about decisions."""
        line = json.dumps({"event": event, "time": _rfc3339(at), **told}, separators=(",", ":"))
        self._trail.note(Entry(line.encode(), at))

    def _count(self, entry: LogEntry, carrier: str, result: str) -> None:
        self.results[carrier, result] += 1
        if self.counts_seen:
            listener = entry.listener if entry.attributes.http is not None else TCP + entry.listener
            self.seen[entry.proxy, listener, int(entry.ended_at * TENTHS)] += 1

    def _is_repeated(self, entry: LogEntry, repeated: Recorded) -> bool:
        key = (entry.decision_id, _rfc3339(entry.started_at))
        if repeated[key] <= 0:
            return False
        repeated[key] -= 1
        return True

    def _disagree(self, entry: LogEntry, judged: Judged, engine: Decision) -> None:
        workload = entry.attributes.destination.workload
        envoy = judged.offer.decision
        self.disagreements[workload.namespace, workload.name or workload.service_account] += 1
        self.note(
            "native-disagreement",
            entry.started_at,
            {
                "request": entry.decision_id,
                "proxy": entry.proxy,
                "namespace": workload.namespace,
                "workload": workload.name,
                "envoy": _answer(envoy),
                "engine": _answer(engine),
                "details": entry.enforced.details,
                "policy_version": envoy.policy_version,
            },
        )
        self._complain(
            "disagreement",
            "Envoy and the engine disagree about request %s at %s: Envoy says %s, the engine says %s",
            entry.decision_id, entry.proxy, envoy.reason, engine.reason,
        )  # fmt: skip

    def _complain(self, kind: str, text: str, *values: object) -> None:
        now = self._clock()
        if now - self._complained.get(kind, 0.0) >= COMPLAINTS_SECONDS:
            self._complained[kind] = now
            _log.error(text, *values)


def _answer(decision: Decision) -> Json:
    dry_run: dict[str, Json] = {
        name: None if result is None else {"effect": result.effect.value, "rule": _name(result.rule)}
        for name, result in (("dry_run_deny", decision.dry_run_deny), ("dry_run_allow", decision.dry_run_allow))
    }
    return {
        "effect": decision.effect.value,
        "stage": decision.stage.value,
        "rule": _name(decision.rule),
        "reason": decision.reason,
        "status": decision.status or None,
        "audit": decision.audit,
        **dry_run,
    }


def _name(rule: RuleReference | None) -> str | None:
    return rule.name if rule is not None else None


def _rfc3339(seconds: float) -> str:
    """As the record writer does it, from the same text of the number."""
    at = f"{seconds:.6f}"
    return f"{rfc3339(int(at[:-7]))[:-8]}{at[-7:]}Z"

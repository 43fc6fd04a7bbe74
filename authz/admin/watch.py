"""
What the page remembers: recent decisions with their requests, and counts for each edge of the graph.

``observe`` is called by the audit writer's thread, never on the check path. Memory is bounded in every direction, and
credentials are taken out of a request before it is kept. Reading is allowed from any thread.
"""

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from authz.analysis.graph.graph import Outcome, Traffic
from authz.core.attributes import AttributeContext, HttpRequest, Workload
from authz.core.decided import Offer, TraceIds
from authz.core.decision import Decision, Effect, RuleReference
from authz.core.explain import HIDDEN

DENIED_KEPT, ALLOWED_KEPT = 1_000, 1_000
"""
Denied and allowed decisions are kept apart, so that busy traffic does not push out the refusal that somebody wants.
"""
BYTES_KEPT = 16 << 20
"""The bound on each of the two; nothing else here limits what a client sends."""
DENIED_EACH_SECOND, ALLOWED_EACH_SECOND = 200, 50
"""Further ones are counted, but not kept: nobody can read faster, and the audit log has them all."""
MAX_EDGES = 2_000
MAX_OUTCOMES = 64
"""Kinds of outcomes of one edge within one slot."""
SLOT_SECONDS = 5
SLOTS = 120
WINDOW_SECONDS = SLOT_SECONDS * SLOTS
"""How far back the graph can look."""
CREDENTIALS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token", "x-csrf-token"}
)
_LOOKS_SECRET = ("Bearer ", "bearer ", "Basic ", "basic ", "eyJ")
_ROUGH_BYTES = 2_048
"""An upper bound for everything in a request that is not a header."""


class Kept(NamedTuple):
    """One decision that can be explained. ``offer.attributes`` holds no credentials."""

    sequence: int
    """Grows by one for each decision that is kept."""
    offer: Offer
    trace: TraceIds
    size: int


class _Ring:
    """The newest decisions within a number and a size."""

    def __init__(self, number: int, size: int) -> None:
        self._number, self._size = number, size
        self._kept: deque[Kept] = deque()
        self._by_id: dict[str, Kept] = {}
        self._bytes = 0

    def add(self, kept: Kept) -> None:
        self._kept.append(kept)
        self._by_id[kept.offer.decision_id] = kept
        self._bytes += kept.size
        while len(self._kept) > self._number or (self._bytes > self._size and len(self._kept) > 1):
            oldest = self._kept.popleft()
            self._bytes -= oldest.size
            self._by_id.pop(oldest.offer.decision_id, None)

    def find(self, decision_id: str) -> Kept | None:
        return self._by_id.get(decision_id)

    def newest(self, after: int) -> Iterator[Kept]:
        for kept in reversed(self._kept):
            if kept.sequence <= after:
                return
            yield kept


@dataclass(slots=True)
class _Count:
    outcome: Outcome
    number: int


class _Edge:
    """Counts of one caller and one workload in slots of time."""

    __slots__ = ("ever_allowed", "last_at", "principal", "slots", "workload")

    def __init__(self, principal: str, workload: Workload) -> None:
        self.principal = principal
        self.workload = workload
        self.slots: deque[tuple[int, dict[tuple[int, int, str, int, bool, str], _Count]]] = deque(maxlen=SLOTS)
        self.last_at = 0.0
        self.ever_allowed = False

    def count(self, attributes: AttributeContext, decision: Decision, at: float) -> None:
        slot = int(at) // SLOT_SECONDS
        if not self.slots or self.slots[-1][0] < slot:
            self.slots.append((slot, {}))
        counts = self.slots[-1][1]
        rule = decision.rule
        # Constants are known by id: hashing an enumeration costs as much as all the rest.
        key = (
            id(decision.effect),
            id(decision.stage),
            rule.name if rule is not None else "",
            decision.status,
            bool(attributes.source.identities),
            _protocol(attributes.http),
        )
        count = counts.get(key)
        if count is not None:
            count.number += 1
        elif len(counts) < MAX_OUTCOMES:
            counts[key] = _Count(Outcome(decision.effect, decision.stage.value, *key[2:]), 1)
        self.last_at = at
        self.ever_allowed = self.ever_allowed or decision.effect is Effect.ALLOW

    def traffic(self, since: float) -> Traffic:
        totals: dict[Outcome, int] = {}
        for slot, counts in reversed(self.slots):
            if (slot + 1) * SLOT_SECONDS <= since:
                break
            for count in counts.values():
                totals[count.outcome] = totals.get(count.outcome, 0) + count.number
        return Traffic(self.principal, self.workload, totals, self.last_at, self.ever_allowed)


class Watch:
    """One for each service. Call ``observe`` from one thread; everything else may be called from any."""

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at
        self._lock = threading.Lock()
        self._denied = _Ring(DENIED_KEPT, BYTES_KEPT)
        self._allowed = _Ring(ALLOWED_KEPT, BYTES_KEPT)
        self._edges: dict[tuple[str, Workload], _Edge] = {}
        self._rules: dict[str, RuleReference] = {}
        self._second = 0
        self._this_second = [0, 0]
        self.sequence = 0
        """The number of the newest decision that is kept; comparing it tells cheaply whether there is news."""
        self.uncounted = 0
        """Decisions on edges beyond MAX_EDGES."""

    def observe(self, offer: Offer, trace: TraceIds) -> None:
        """Count one decision, and keep it when it is a denial or there is room."""
        decision, attributes = offer.decision, offer.attributes
        is_denied = decision.effect is Effect.DENY
        with self._lock:
            self._count(attributes, decision, offer.started_at)
            if not self._has_room(offer.started_at, is_denied):
                return
        kept, size = without_credentials(attributes)
        with self._lock:
            self.sequence += 1
            ring = self._denied if is_denied else self._allowed
            ring.add(Kept(self.sequence, offer._replace(attributes=kept), trace, size))

    def find(self, decision_id: str) -> Kept | None:
        """The decision of this id, if it is still kept."""
        with self._lock:
            return self._denied.find(decision_id) or self._allowed.find(decision_id)

    def newest(self, *, after: int = 0, limit: int = 200, effect: Effect | None = None) -> list[Kept]:
        """
        Decisions after a sequence number, newest first.

        The writer handles a batch kind by kind, so the sequence says what is news and the time what came first.
        """
        with self._lock:
            found: list[Kept] = []
            if effect is not Effect.ALLOW:
                found.extend(self._denied.newest(after))
            if effect is not Effect.DENY:
                found.extend(self._allowed.newest(after))
        found.sort(key=lambda kept: -kept.sequence)
        return sorted(found[:limit], key=lambda kept: (-kept.offer.started_at, -kept.sequence))

    def traffic(self, now: float, window_seconds: float) -> list[Traffic]:
        """Counts by edge within the window; edges without traffic in it are listed too, with empty counts."""
        with self._lock:
            return [edge.traffic(now - window_seconds) for edge in self._edges.values()]

    def rules(self) -> Mapping[str, RuleReference]:
        """Rules that decided, by Istio's name."""
        with self._lock:
            return dict(self._rules)

    def _count(self, attributes: AttributeContext, decision: Decision, at: float) -> None:
        rule = decision.rule
        if rule is not None and rule.name not in self._rules and len(self._rules) < MAX_EDGES:
            self._rules[rule.name] = rule
        workload = attributes.destination.workload
        if not workload.namespace:  # a sidecar that did not say who it is
            return
        identities = attributes.source.identities
        key = (identities[0] if identities else "", workload)
        edge = self._edges.get(key)
        if edge is None:
            if len(self._edges) >= MAX_EDGES and not self._forget(at):
                self.uncounted += 1
                return
            edge = self._edges[key] = _Edge(attributes.source.principal, workload)
        edge.count(attributes, decision, at)

    def _forget(self, now: float) -> bool:
        """Make room: edges outside the window go. Returns False when all are in use."""
        old = [key for key, edge in self._edges.items() if edge.last_at < now - WINDOW_SECONDS]
        for key in old:
            del self._edges[key]
        return bool(old)

    def _has_room(self, at: float, is_denied: bool) -> bool:
        second = int(at)
        if second != self._second:
            self._second, self._this_second = second, [0, 0]
        self._this_second[is_denied] += 1
        return self._this_second[is_denied] <= (DENIED_EACH_SECOND if is_denied else ALLOWED_EACH_SECOND)


def without_credentials(attributes: AttributeContext) -> tuple[AttributeContext, int]:
    """
    Return the request with the values of credentials hidden, and roughly how many bytes it takes.

    Hidden are known headers, and any value that looks like a token or a password, whatever its header is called.
    """
    http, size = attributes.http, _ROUGH_BYTES + len(attributes.certificate)
    if http is None:
        return attributes, size
    hidden: list[str] = []
    for name, values in http.headers.items():
        size += len(name)
        for value in values:
            size += len(value)
            if name in CREDENTIALS or value.startswith(_LOOKS_SECRET):
                hidden.append(name)
    if not hidden:
        return attributes, size
    headers = {**http.headers, **{name: (HIDDEN,) * len(http.headers[name]) for name in hidden}}
    return replace(attributes, http=http.changed(headers, http.path)), size


def _protocol(http: HttpRequest | None) -> str:
    if http is None:
        return "tcp"
    content = http.headers.get("content-type")
    return "grpc" if content and content[0].startswith("application/grpc") else "http"

"""
The contents of the page as JSON: plain functions of what the service knows, run in a thread of their own.

The answers are documented in docs/page.md. Nothing here waits, and nothing here changes anything.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool

from authz.admin.explained import Sources, decision_json, row_json
from authz.admin.health import judge_health
from authz.admin.policies import policies_json, reload_json
from authz.admin.reach_matrix import Reach, ReachMatrix, ReachState, reach_json
from authz.admin.shadow import candidate_json
from authz.admin.watch import WINDOW_SECONDS, Watch
from authz.analysis.graph.graph import Grouping, build_graph, merge_workloads
from authz.analysis.graph.kiali import graph_json
from authz.analysis.graph.permitted import Permit, permits
from authz.core.attributes import Json, Workload
from authz.core.decision import Effect
from authz.core.engine import Engine
from authz.core.resources import Resources
from authz.telemetry.counters import Telemetry, program_version
from authz.telemetry.status import ServiceStatus, TrailStatus

MAX_WORKLOADS = 300
"""The graph shows at most this many workloads, and this many callers; a larger mesh is looked at by namespace."""
SPIFFE = "spiffe://"
GRAPH_SECONDS = 1.0
"""A graph is made anew at most once in this time, however many people look at it."""


@dataclass(slots=True)
class PageFacts:
    """The facts that the service knows; each is asked for when it is needed."""

    watch: Watch
    engine: Callable[[], Engine | None]
    status: Callable[[], ServiceStatus]
    trail: Callable[[], TrailStatus]
    telemetry: Telemetry
    clock: Callable[[], float]
    sources: Sources = field(default_factory=Sources)
    reach: Reach | None = None
    """None: no process can be started here."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _graphs: dict[tuple[object, ...], tuple[float, dict[str, Json]]] = field(default_factory=dict)
    _permits: tuple[tuple[object, ...], tuple[Permit, ...]] = ((), ())

    def overview(self) -> dict[str, Json]:
        """Gather what the head of the page shows."""
        status, trail, now = self.status(), self.trail(), self.clock()
        health = judge_health(status, trail, now)
        return {
            "version": program_version(),
            "now": now,
            "started_at": self.watch.started_at,
            "policy_version": status.reload.policy_version or None,
            "loaded_at": status.reload.loaded_at or None,
            "reload_ok": status.reload.is_ok,
            "problems": sum(problem.is_error for problem in status.reload.problems),
            "ready": health.is_ready,
            "causes": [{"part": c.part, "message": c.message, "blocks": c.blocks} for c in health.causes],
            "records": {"written": trail.written, "dropped": trail.dropped, "queued": trail.queued},
        }

    def graph(
        self, window_seconds: float, grouping: Grouping, namespaces: frozenset[str], *, permitted: bool = True
    ) -> dict[str, Json]:
        """The security graph, without ``permitted`` of what was seen only; at most one is made at a time."""
        now = self.clock()
        window_seconds = min(max(window_seconds, 5.0), WINDOW_SECONDS)
        key = (window_seconds, grouping, namespaces, permitted)
        with self._lock:
            kept = self._graphs.get(key)
            if kept is not None and 0 <= now - kept[0] < GRAPH_SECONDS:
                return kept[1]
            made = self._graph(now, window_seconds, grouping, namespaces, permitted=permitted)
            if len(self._graphs) >= 16:
                self._graphs.clear()
            self._graphs[key] = (now, made)
            return made

    def _graph(
        self, now: float, window_seconds: float, grouping: Grouping, namespaces: frozenset[str], *, permitted: bool
    ) -> dict[str, Json]:
        engine = self.engine()
        if engine is None:
            return {"timestamp": int(now), "elements": {"nodes": [], "edges": []}, "graphType": grouping.value}
        traffic = self.watch.traffic(now, window_seconds)
        everything = merge_workloads((*engine.known_workloads(), *(seen.workload for seen in traffic)))
        known = everything[:MAX_WORKLOADS]
        seen_callers = frozenset(seen.principal for seen in traffic if seen.principal)
        found = self._permitted(engine, known, seen_callers) if permitted else ()
        graph = build_graph(traffic, known, found, grouping=grouping, namespaces=namespaces)
        seconds = max(1.0, min(window_seconds, now - self.watch.started_at))
        made = graph_json(
            graph, engine.for_workload, self.watch.rules(), now=now, window_seconds=seconds, grouping=grouping
        )
        made["policyVersion"] = engine.version
        made["namespaces"] = [*sorted({workload.namespace for workload in everything})]
        made["truncated"] = len(everything) > len(known) or self.watch.uncounted > 0
        return made

    def _permitted(self, engine: Engine, known: tuple[Workload, ...], seen: frozenset[str]) -> tuple[Permit, ...]:
        """Permits change with policies and workloads only, so they are remembered."""
        domain = engine.mesh.trust_domain
        accounts = {f"{domain}/ns/{w.namespace}/sa/{w.service_account}" for w in known if w.service_account}
        callers = sorted(accounts | seen | set(named_principals(engine.resources)))[:MAX_WORKLOADS]
        cells = self.reach.cells(engine.version) if self.reach is not None else {}
        key = (engine.version, known, tuple(callers), bool(cells))
        if self._permits[0] != key:
            answers = {(identity.removeprefix(SPIFFE), name): cell for (identity, name), cell in cells.items()}
            self._permits = (key, tuple(permits(engine, known, callers, answers)))
        return self._permits[1]

    def reach_matrix(self) -> dict[str, Json]:
        """Who may call whom, as far as it is known; an answer never waits for it."""
        engine = self.engine()
        if engine is None or self.reach is None:
            return reach_json("", ReachState.FAILED, "no policies are in force", ReachMatrix())
        return reach_json(engine.version, *self.reach.of(engine.version))

    def reach_cell(self, identity: str, workload: str) -> dict[str, Json] | None:
        """One pair with its grants; None when it is not known."""
        engine = self.engine()
        if engine is None or self.reach is None:
            return None
        _, _, matrix = self.reach.of(engine.version)
        cell = matrix.cells.get((identity, workload))
        return {**json.loads(cell.told), "policy_version": matrix.version} if cell is not None else None

    def decisions(self, *, after: int = 0, limit: int = 200, effect: Effect | None = None) -> dict[str, Json]:
        """Recent decisions after a sequence number, newest first; one from the future belongs to an earlier process."""
        engine, newest = self.engine(), self.watch.sequence
        after = after if after <= newest else 0
        rows: list[Json] = [
            row_json(kept, engine) for kept in self.watch.newest(after=after, limit=limit, effect=effect)
        ]
        return {"decisions": rows, "cursor": str(newest)}

    def decision(self, decision_id: str) -> dict[str, Json] | None:
        """One decision with its explanation; None when it is not kept."""
        kept = self.watch.find(decision_id)
        return decision_json(kept, self.engine(), self.sources) if kept is not None else None

    def policies(self) -> dict[str, Json]:
        """List what is in force, what was wrong with the last change, and which rules were ever hit."""
        engine, reload = self.engine(), self.status().reload
        hits = self.telemetry.rule_hits()
        documents = policies_json(engine.resources, hits) if engine is not None else {}
        return {**reload_json(reload), "started_at": self.watch.started_at, **documents}

    def candidate(self) -> dict[str, Json]:
        """What the candidate policies would change."""
        status = self.status()
        return candidate_json(status.candidate, self.sources, status.policy_source)

    def identity(self) -> dict[str, Json]:
        """List certificates, key sets, and who was seen with which identity."""
        status, now = self.status(), self.clock()
        peers: list[Json] = [
            {"principal": principal, "last_at": last_at} for principal, last_at in sorted(self._last_seen(now).items())
        ]
        return {
            "now": now,
            "certificates": [
                {
                    "kind": c.kind,
                    "identity": c.identity,
                    "namespace": c.namespace,
                    "workload": c.workload,
                    "not_before": c.not_before or None,
                    "not_after": c.not_after,
                }
                for c in sorted(status.certificates, key=lambda c: c.not_after)
            ],
            "key_sets": [
                {
                    "name": k.name,
                    "keys": k.keys,
                    "fetched_at": k.fetched_at,
                    "error": k.error,
                    "skipped": list(k.skipped),
                }
                for k in status.key_sets
            ],
            "peers": peers,
        }

    def _last_seen(self, now: float) -> dict[str, float]:
        seen: dict[str, float] = {}
        for traffic in self.watch.traffic(now, WINDOW_SECONDS):
            seen[traffic.principal] = max(traffic.last_at, seen.get(traffic.principal, 0.0))
        return seen


class LocalSource:
    """The page of one process: the work is done in threads, whose number starlette bounds."""

    def __init__(self, facts: PageFacts) -> None:
        self._facts = facts

    def close(self) -> None:
        """Stop the process that finds out who may call whom."""
        if self._facts.reach is not None:
            self._facts.reach.stop()

    async def overview(self) -> dict[str, Json]:
        """Gather in a thread what the start of the page shows."""
        return await run_in_threadpool(self._facts.overview)

    async def graph(
        self, window_seconds: float, grouping: Grouping, namespaces: frozenset[str], *, permitted: bool = True
    ) -> dict[str, Json]:
        """Nodes and edges of the last ``window_seconds``, gathered in a thread."""
        facts = self._facts
        return await run_in_threadpool(facts.graph, window_seconds, grouping, namespaces, permitted=permitted)

    async def reach(self) -> dict[str, Json]:
        """Who may call whom, as far as it is known."""
        return await run_in_threadpool(self._facts.reach_matrix)

    async def reach_cell(self, identity: str, workload: str) -> dict[str, Json] | None:
        """One pair of it with its grants."""
        return await run_in_threadpool(self._facts.reach_cell, identity, workload)

    async def decisions(self, after: str, limit: int, effect: Effect | None) -> dict[str, Json]:
        """Decisions newer than the cursor ``after``, newest first, with the next cursor."""
        if after == str(self._facts.watch.sequence):  # no news, the usual answer, is not worth a thread
            return {"decisions": [], "cursor": after}
        number = int(after) if after.isdigit() else 0
        return await run_in_threadpool(self._facts.decisions, after=number, limit=limit, effect=effect)

    async def decision(self, decision_id: str) -> dict[str, Json] | None:
        """One decision with its explanation; None when it is no longer remembered."""
        return await run_in_threadpool(self._facts.decision, decision_id)

    async def policies(self) -> dict[str, Json]:
        """The policies in force and what was found in them."""
        return await run_in_threadpool(self._facts.policies)

    async def candidate(self) -> dict[str, Json]:
        """What the candidate policies would change."""
        return await run_in_threadpool(self._facts.candidate)

    async def identity(self) -> dict[str, Json]:
        """Certificates, key sets and peers with what is wrong with each."""
        return await run_in_threadpool(self._facts.identity)


def named_principals(resources: Resources) -> tuple[str, ...]:
    """
    Callers that ALLOW policies name in full, so that a permission for somebody who does not exist becomes visible.
    """
    return tuple(
        principal
        for policy in resources.authorization_policies
        for rule in policy.rules
        for source in rule.sources
        for principal in source.principals
        if "*" not in principal and principal.count("/") == 4
    )

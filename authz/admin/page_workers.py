"""The page of several workers: all are asked, each over its own socket, and their answers are merged."""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from urllib.parse import quote, urlencode

from authz.admin.merge import (
    JsonAnswer,
    merge_decisions,
    merge_graphs,
    merge_identities,
    merge_overviews,
    merge_policies,
)
from authz.admin.shadow import merge_candidates
from authz.admin.workers import Fetch, WorkerRequest
from authz.analysis.graph.graph import Grouping
from authz.core.decision import Effect

_log = logging.getLogger("authz.admin")
_NOBODY: JsonAnswer = {
    "ready": False,
    "reload_ok": True,
    "policy_version": None,
    "problems": 0,
    "causes": [{"part": "workers", "message": "no worker answers", "blocks": True}],
}


class WorkersSource:
    """The source of ``page.Page`` that asks all workers. One that does not answer is left out."""

    def __init__(self, workers: Callable[[], Sequence[int]], fetch: Fetch) -> None:
        self._workers = workers
        self._fetch = fetch

    def close(self) -> None:
        """Nothing is found out here; the workers stop by themselves."""

    async def overview(self) -> JsonAnswer:
        """The overviews of all workers as one."""
        found = await self._ask("/api/overview")
        return merge_overviews([answer for _, answer in found]) if found else _NOBODY

    async def graph(
        self, window_seconds: float, grouping: Grouping, namespaces: frozenset[str], *, permitted: bool = True
    ) -> JsonAnswer:
        """The graphs of all workers added up; what is permitted is found by one of them, the same as for ``reach``."""
        asked = {"duration": f"{window_seconds:.0f}s", "graphType": grouping.value, "namespaces": ",".join(namespaces)}
        target = f"/api/namespaces/graph?{urlencode(asked)}"
        rest = f"{target}&permitted=false"
        workers = self._workers()
        found = await self._ask(*[target if permitted and at == 0 else rest for at in range(len(workers))] or [rest])
        if not found:
            return {"graphType": grouping.value, "elements": {"nodes": [], "edges": []}}
        return merge_graphs([answer for _, answer in found])

    async def reach(self) -> JsonAnswer:
        """Who may call whom: one worker finds it for all."""
        found = await self._ask_first("/api/reach")
        return found if found is not None else {"state": "failed", "reason": "no worker answers", "policy_version": "",
            "matrix_version": None, "done": 0, "pairs": 0, "callers": [], "workloads": [], "answers": []}  # fmt: skip

    async def reach_cell(self, identity: str, workload: str) -> JsonAnswer | None:
        """One pair of it with its grants."""
        return await self._ask_first(f"/api/reach/cell?{urlencode({'caller': identity, 'workload': workload})}")

    async def decisions(self, after: str, limit: int, effect: Effect | None) -> JsonAnswer:
        """The cursor is one number per worker, in their order; a worker that does not answer keeps its own."""
        workers = self._workers()
        cursors = after.split(".") if after else []
        cursors += [""] * (len(workers) - len(cursors))
        asked = {"limit": str(limit), "effect": effect.value if effect is not None else ""}
        targets = [f"/api/decisions?{urlencode({**asked, 'after': cursors[index]})}" for index in workers]
        found = await self._ask(*targets)
        for index, answer in found:
            cursors[index] = answer["cursor"]
        cursor = ".".join(text or "0" for text in cursors[: len(workers)])
        return {"decisions": merge_decisions(found, limit), "cursor": cursor}

    async def decision(self, decision_id: str) -> JsonAnswer | None:
        """The decision of whichever worker made it, with the worker's number."""
        found = await self._ask(f"/api/decisions/{quote(decision_id, safe='')}")
        return {**found[0][1], "worker": found[0][0]} if found else None

    async def policies(self) -> JsonAnswer:
        """The policies of the workers as one, and whether all are at the same version."""
        found = await self._ask("/api/policies")
        if not found:
            return {"policy_version": None, "loaded_at": None, "reload_ok": True, "problems": [], "documents": {},
                    "reloads": {"successes": 0, "failures": 0}, "started_at": 0.0}  # fmt: skip
        return merge_policies([answer for _, answer in found])

    async def candidate(self) -> JsonAnswer:
        """What the candidate of each worker would change, added up."""
        found = await self._ask("/api/candidate")
        return merge_candidates([answer for _, answer in found]) if found else {"is_set": False, "version": None}

    async def identity(self) -> JsonAnswer:
        """Certificates, key sets and peers of all workers, each once."""
        found = await self._ask("/api/identity")
        if not found:
            return {"now": 0.0, "certificates": [], "key_sets": [], "peers": []}
        return merge_identities([answer for _, answer in found])

    async def _ask_first(self, target: str) -> JsonAnswer | None:
        workers = self._workers()
        return await self._one(workers[0], target) if workers else None

    async def _ask(self, *targets: str) -> list[tuple[int, JsonAnswer]]:
        """Ask every worker, with one target for all or one for each; answers with their worker, in order."""
        workers = self._workers()
        each = targets if len(targets) == len(workers) else targets * len(workers)
        answers = await asyncio.gather(*(self._one(index, target) for index, target in zip(workers, each, strict=True)))
        return [(index, answer) for index, answer in zip(workers, answers, strict=True) if answer is not None]

    async def _one(self, index: int, target: str) -> JsonAnswer | None:
        try:
            answer = await self._fetch(index, WorkerRequest("GET", target))
            found: JsonAnswer | None = json.loads(answer.body) if answer.status == 200 else None
        except Exception:  # the page shows what the others know, rather than nothing
            _log.warning("worker %s could not be asked for %s", index, target.partition("?")[0], exc_info=True)
            return None
        return found

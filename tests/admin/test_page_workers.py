"""The page of several workers: their answers merged, and one that is gone left out."""

import json
from typing import Any

import pytest

from authz.admin.merge import merge_edges
from authz.admin.page_workers import WorkersSource
from authz.admin.shadow import merge_candidates
from authz.admin.workers import WorkerAnswer, WorkerRequest
from authz.analysis.graph.graph import Grouping
from tests.admin.test_page import NOW, Service, asking


class Workers:
    """Some services behind their pages, each as a worker; ``gone`` ones do not answer."""

    def __init__(self, number: int) -> None:
        self.services = [Service() for _ in range(number)]
        self.gone: set[int] = set()
        self.source = WorkersSource(lambda: range(number), self._fetch)

    async def _fetch(self, index: int, request: WorkerRequest) -> WorkerAnswer:
        if index in self.gone:
            if "identity" in request.target:
                raise RuntimeError("the connection broke in a way nobody thought of")
            return WorkerAnswer()
        answer = await self.services[index].get(request.target)
        return WorkerAnswer(answer.status_code, (), answer.content)


@pytest.fixture
def workers() -> Workers:
    found = Workers(2)
    for number in range(3):
        found.services[0].decide(asking(), f"a-{number}", NOW + number)
    found.services[1].decide(asking(method="POST"), "d-0", NOW + 1.5)
    return found


async def edge(workers: Workers) -> dict[str, Any]:
    graph = await workers.source.graph(600, Grouping.VERSION, frozenset())
    found = [one["data"] for one in graph["elements"]["edges"] if one["data"]["policy"]["principals"][0]["requests"]]
    assert len(found) == 1
    only: dict[str, Any] = found[0]
    return only


async def test_counts_are_added_and_shares_follow(workers: Workers) -> None:
    found = await edge(workers)
    policy = found["policy"]
    assert (policy["state"], policy["allowed"], policy["denied"], policy["deniedPercent"]) == ("mixed", 3, 1, 25.0)
    assert (found["isMTLS"], policy["mtlsPercent"]) == ("100", 100.0)
    assert policy["principals"][0]["requests"] == 4
    assert [(rule["effect"], rule["requests"]) for rule in policy["rules"]] == [("allow", 3), ("deny", 1)]
    assert found["traffic"]["rates"] == {"http": "0.07", "http4xx": "0.02", "httpPercentErr": "25.0"}
    assert found["traffic"]["responses"]["403"]["flags"] == {"UAEX": "25.0"}
    assert found["traffic"]["responses"]["-"]["flags"] == {"-": "75.0"}


async def test_the_numbers_of_all_candidates_are_added() -> None:
    def worker(version: str, count: int, at: float) -> dict[str, Any]:
        difference = {
            "result": "newly_denied",
            "namespace": "shop",
            "workload": "api",
            "rule": {"name": "a"},
            "candidate_rule": None,
            "count": count,
            "first_at": at,
            "last_at": at + 5,
            "decisions": [f"{at:.0f}-{n}" for n in range(2)],
        }
        return {
            "is_set": True,
            "version": version,
            "since": at,
            "reload_ok": version != "v0",
            "problems": [],
            "results": {"same": 5, "newly_denied": count},
            "differences": [difference],
            "uncounted": 1,
            "timed": 1,
            "own_seconds": 0.5,
            "check_seconds": 1.0,
            "commands": {},
        }

    found = merge_candidates([worker("v1", 2, 10.0), worker("v1", 3, 20.0), worker("v0", 100, 1.0)])
    assert (found["version"], found["since"], found["reload_ok"]) == ("v1", 10.0, False)
    assert found["results"] == {"same": 10, "newly_denied": 5}
    (only,) = found["differences"]
    assert (only["count"], only["first_at"], only["last_at"]) == (5, 10.0, 25.0)
    assert only["decisions"] == ["20-0", "20-1", "10-0"]
    assert (found["timed"], found["own_seconds"], found["uncounted"]) == (2, 1.0, 2)
    none = {"is_set": False, "version": None}
    assert merge_candidates([none, none]) == none


async def test_a_worker_that_is_gone_is_left_out(workers: Workers) -> None:
    workers.gone = {1}
    assert (await edge(workers))["policy"]["state"] == "allowed"
    assert (await workers.source.overview())["workers"] == 1
    assert await workers.source.decision("d-0") is None


async def test_without_any_worker_everything_is_answered(workers: Workers) -> None:
    workers.gone = {0, 1}
    assert (await workers.source.overview())["ready"] is False
    assert (await workers.source.graph(60, Grouping.APP, frozenset()))["elements"] == {"nodes": [], "edges": []}
    assert (await workers.source.policies())["policy_version"] is None
    assert (await workers.source.identity())["peers"] == []
    assert (await workers.source.decisions("", 10, None))["decisions"] == []


async def test_decisions_are_merged_by_time_and_followed_by_one_cursor(workers: Workers) -> None:
    found = await workers.source.decisions("", 10, None)
    assert [(row["decision_id"], row["worker"]) for row in found["decisions"]] == [
        ("a-2", 0), ("d-0", 1), ("a-1", 0), ("a-0", 0),
    ]  # fmt: skip
    assert found["cursor"] == "3.1"
    assert (await workers.source.decisions("3.1", 10, None))["decisions"] == []
    workers.services[1].decide(asking(), "a-9", NOW + 9)
    later = await workers.source.decisions("3.1", 10, None)
    assert ([row["decision_id"] for row in later["decisions"]], later["cursor"]) == (["a-9"], "3.2")


async def test_a_worker_that_was_started_again_is_followed_from_its_beginning(workers: Workers) -> None:
    workers.services[0] = Service()
    workers.services[0].decide(asking(), "new", NOW + 20)
    found = await workers.source.decisions("3.1", 10, None)
    assert ([row["decision_id"] for row in found["decisions"]], found["cursor"]) == (["new"], "1.1")


async def test_a_decision_is_found_whichever_worker_made_it(workers: Workers) -> None:
    found = await workers.source.decision("d-0")
    assert found is not None
    assert (found["worker"], found["nearest_rule"]["rule"]["policy"]) == (1, "reads")


async def test_hits_are_added_by_rule(workers: Workers) -> None:
    workers.services[1].decide(asking(), "a-3")
    found = await workers.source.policies()
    assert {(p["name"], rule["index"]): rule["hits"] for p in found["authorization"] for rule in p["rules"]} == {
        ("reads", 0): 4, ("reads", 1): 0, ("no-admin", 0): 0,
    }  # fmt: skip


async def test_workers_that_disagree_are_a_cause(workers: Workers) -> None:
    workers.services[1].reload = workers.services[1].reload.__class__("v2", NOW)
    found = await workers.source.overview()
    assert "workers disagree on the policies in force: v1, v2" in [cause["message"] for cause in found["causes"]]


async def test_a_caller_was_seen_when_any_worker_saw_it(workers: Workers) -> None:
    assert [(p["principal"], p["last_at"]) for p in (await workers.source.identity())["peers"]] == [
        ("cluster.local/ns/web/sa/front", NOW + 2)
    ]


def test_an_edge_that_one_worker_used_is_not_unused() -> None:
    policy: dict[str, Any] = {
        "allowed": 0, "denied": 0, "rate": 0.0, "mtlsPercent": 0.0, "lastAt": None, "protocols": [], "principals": [],
        "rules": [], "permission": None, "permittedBy": [],
    }  # fmt: skip
    found = [{"id": "x", "policy": {**policy, "state": state}} for state in ("unused", "idle")]
    assert merge_edges(found)["policy"]["state"] == "idle"
    assert json.loads(json.dumps(merge_edges(found)))["id"] == "x"

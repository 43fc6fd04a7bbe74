"""Who may call whom, proved by a real process of its own: what it says, when it is believed, and when it is asked."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from authz.admin import reach_matrix
from authz.admin.explained import Sources
from authz.admin.page_workers import WorkersSource
from authz.admin.reach_matrix import Reach, ReachMatrix, ReachState
from authz.admin.workers import WorkerAnswer, WorkerRequest
from authz.analysis.graph.graph import Grouping
from authz.cli import application
from authz.service.loading.described import described_workloads
from authz.service.loading.snapshot import load_snapshot
from tests.admin.test_page import NOW, Service

ROOT = Path(__file__).parents[2]
POLICIES, MESH = ROOT / "policies", ROOT / "envoy-configs" / "mesh.yaml"
PROGRAM = (sys.executable, "-m", "authz")
FRONT = "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-productpage"


def making(program: tuple[str, ...] = PROGRAM, policies: Path = POLICIES, described: int = 10) -> Reach:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AUTHZ_WHO_CAN_METHOD": "PUT"}
    sources = Sources(str(policies), str(MESH))
    return Reach(program, environment, sources, lambda: described, lambda: NOW)


def settled(found: Reach, version: str) -> tuple[ReachState, str, ReachMatrix]:
    """What is known when nothing is being made any more."""
    deadline = time.monotonic() + 60
    while (known := found.of(version))[0] is ReachState.COMPUTING:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return known


@pytest.fixture(scope="module")
def snapshot() -> Any:
    return load_snapshot(POLICIES, MESH, NOW)


@pytest.fixture(scope="module")
def made(snapshot: Any) -> Iterator[Reach]:
    found = making()
    assert settled(found, snapshot.version)[0] is ReachState.READY
    yield found
    found.stop()


def without_examples(answer: dict[str, Any]) -> dict[str, Any]:
    """Of several smallest requests any may be the example."""
    changing = ("request", "decision", "command")
    return {**answer, "grants": [{**grant, **dict.fromkeys(changing)} for grant in answer["grants"]]}


def test_it_says_what_who_can_says(made: Reach, snapshot: Any) -> None:
    _, _, matrix = made.of(snapshot.version)
    arguments = ["who-can", "-p", str(POLICIES), "--mesh", str(MESH), "--matrix", "-o", "json"]
    told = json.loads(CliRunner().invoke(application, arguments, prog_name="authz").stdout)["answers"]
    assert len(told) == len(matrix.cells) == len(matrix.callers) * len(matrix.workloads) == 90
    for one in told:
        cell = matrix.cells[one["identity"], one["workload"]]
        assert without_examples(json.loads(cell.told)) == without_examples(one)
        assert cell.answer == one["answer"]
    front = matrix.cells[FRONT, "bookinfo/details-v1"]
    assert (front.answer, front.rules, front.names_caller) == (
        "with conditions",
        ("bookinfo/details-from-productpage/0",),
        True,
    )
    assert not matrix.cells["", "istio-system/ingressgateway"].names_caller


def test_what_is_known_of_a_version_is_not_made_again(made: Reach, snapshot: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(made, "_make", lambda version: pytest.fail("a process was started"))
    assert made.of(snapshot.version)[0] is ReachState.READY


def test_files_that_are_not_in_force_are_not_believed() -> None:
    state, reason, matrix = settled(found := making(), "another")
    assert (state, matrix.is_whole) == (ReachState.OTHER_FILES, False)
    assert reason.startswith("the files hold version ")
    assert found.cells("another") == {}


def test_policies_that_cannot_be_read_are_told_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("kind: AuthorizationPolicy\n")
    state, reason, _ = settled(making(policies=tmp_path), "v1")
    assert state is ReachState.FAILED
    assert reason.startswith(f"{tmp_path}/broken.yaml:1:1: ")
    assert " error: " in reason


@pytest.mark.parametrize(
    ("described", "state"), [(0, ReachState.UNDESCRIBED), (100, ReachState.TOO_LARGE), (5_000, ReachState.TOO_LARGE)]
)
def test_no_process_is_started_for_what_cannot_be_answered(described: int, state: ReachState) -> None:
    assert making(("/nonexistent",), described=described).of("v1")[0] is state


HEAD = {"policy_version": "v1", "callers": [{"caller": "a", "identity": "spiffe://a"}], "workloads": ["shop/api"]}


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("", ReachState.FAILED),
        ("no JSON", ReachState.FAILED),
        ("[]", ReachState.FAILED),
        ("[" * 1_900, ReachState.FAILED),  # RecursionError
        (json.dumps(HEAD), ReachState.TOO_LARGE),  # and then it was ended
        (json.dumps(HEAD) + "\n{}", ReachState.FAILED),
        (json.dumps(HEAD) + "\n" + json.dumps({"x": "y" * 3_000}), ReachState.TOO_LARGE),
    ],
)
def test_a_process_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, state: ReachState
) -> None:
    monkeypatch.setattr(reach_matrix, "MAX_BYTES", 2_000)
    (tmp_path / "said").write_text(said)
    (tmp_path / "program").write_text(f"#!/bin/sh\ncat '{tmp_path}/said'\n")
    (tmp_path / "program").chmod(0o755)
    assert settled(making((str(tmp_path / "program"),)), "v1")[0] is state


def test_a_process_that_cannot_be_started_is_told_and_not_tried_at_once() -> None:
    now = NOW
    found = Reach(("/nonexistent",), {}, Sources("p", "m"), lambda: 1, lambda: now)
    state, reason, _ = settled(found, "v1")
    assert (state, reason) == (ReachState.FAILED, "/nonexistent: No such file or directory")
    assert found.of("v1")[0] is ReachState.FAILED
    now += reach_matrix.AGAIN_SECONDS
    assert found.of("v1")[0] is ReachState.COMPUTING


def test_a_process_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "program").write_text("#!/bin/sh\nexec sleep 1000\n")
    (tmp_path / "program").chmod(0o755)
    monkeypatch.setattr(reach_matrix, "MAX_SECONDS", 0.05)
    assert settled(making((str(tmp_path / "program"),)), "v1")[0] is ReachState.FAILED
    monkeypatch.setattr(reach_matrix, "MAX_SECONDS", 1_000.0)
    found = making((str(tmp_path / "program"),))
    assert found.of("v1")[0] is ReachState.COMPUTING
    found.stop()
    assert settled(found, "v1")[0] is ReachState.FAILED
    assert settled(found, "v2")[0] is ReachState.FAILED


# --- on the page -----------------------------------------------------------------------------------------------------


@pytest.fixture
def service(made: Reach, snapshot: Any) -> Service:
    found = Service()
    found.engine = snapshot.engine
    for workload in described_workloads(MESH):
        snapshot.engine.for_workload(workload)
    found.facts.reach = made
    return found


async def test_the_graph_draws_what_is_proved(service: Service) -> None:
    graph = await service.json("/api/namespaces/graph?graphType=workload")
    names = {node["data"]["id"]: node["data"]["name"] for node in graph["elements"]["nodes"]}
    edges = {
        (names[edge["data"]["source"]], names[edge["data"]["target"]]): edge["data"]["policy"]
        for edge in graph["elements"]["edges"]
    }
    assert edges["ingressgateway", "productpage-v1"]["permission"] == "yes"
    assert edges["productpage-v1", "details-v1"]["permission"] == "with conditions"
    assert edges["outside", "ingressgateway"]["permission"] == "with conditions"
    assert ("details-v1", "ingressgateway") not in edges  # let in as everybody is
    seen = await service.json("/api/namespaces/graph?graphType=workload&permitted=false")
    assert seen["elements"]["edges"] == []


async def test_the_matrix_and_one_pair_are_answered(service: Service) -> None:
    told = await service.json("/api/reach")
    assert (told["state"], told["done"], told["pairs"]) == ("ready", 90, 90)
    row, column = (
        told["workloads"].index("bookinfo/details-v1"),
        [caller["identity"] for caller in told["callers"]].index(FRONT),
    )
    assert told["answers"][row][column] == "with conditions"
    cell = await service.json(f"/api/reach/cell?caller={FRONT}&workload=bookinfo/details-v1")
    assert cell["grants"][0]["said"]["may"] == "method GET, path /details/*"
    assert (await service.get("/api/reach/cell?caller=x&workload=y")).status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "", "?caller", "?caller=", "?workload=bookinfo/details-v1&caller=%ff", "?caller=%00&workload=%00",
        f"?caller={FRONT}&workload=bookinfo/details-v1&workload=", f"?caller[]={FRONT}&workload=bookinfo/details-v1%20",
        f"?caller={FRONT.upper()}&workload=bookinfo/details-v1", f"?caller={'x' * 10_000}&workload={'y' * 10_000}",
    ],
)  # fmt: skip
async def test_a_pair_that_is_not_asked_for_exactly_is_not_known(service: Service, query: str) -> None:
    answer = await service.get(f"/api/reach/cell{query}")
    assert (answer.status_code, answer.json()) == (404, {"error": "not kept any more"})


async def test_one_worker_finds_it_for_all(service: Service) -> None:
    other = Service()
    other.engine = service.engine
    asked: list[tuple[int, str]] = []

    async def fetch(index: int, request: WorkerRequest) -> WorkerAnswer:
        asked.append((index, request.target))
        answer = await (service, other)[index].get(request.target)
        return WorkerAnswer(answer.status_code, (), answer.content)

    source = WorkersSource(lambda: [0, 1], fetch)
    assert (await source.reach())["state"] == "ready"
    cell = await source.reach_cell(FRONT, "bookinfo/details-v1")
    assert cell is not None
    assert cell["answer"] == "with conditions"
    assert {index for index, _ in asked} == {0}
    graph = await source.graph(600, Grouping.WORKLOAD, frozenset())
    assert {edge["data"]["policy"]["permission"] for edge in graph["elements"]["edges"]} == {"yes", "with conditions"}
    assert [index for index, target in asked if "permitted=false" in target] == [1]


async def test_without_policies_or_workers_nothing_is_claimed() -> None:
    service = Service()
    assert (await service.json("/api/reach"))["state"] == "failed"
    source = WorkersSource(list, lambda index, request: pytest.fail("nobody is there"))
    assert (await source.reach())["reason"] == "no worker answers"
    assert await source.reach_cell("", "shop/api") is None

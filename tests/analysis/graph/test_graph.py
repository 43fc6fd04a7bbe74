"""The security graph: what becomes a node, what an edge looks like, and what policy permits."""

from typing import Any

import pytest

from authz.analysis.graph.graph import (
    UNKNOWN_CALLER,
    EdgeState,
    Grouping,
    NodeKey,
    Outcome,
    SecurityGraph,
    Traffic,
    build_graph,
    merge_workloads,
)
from authz.analysis.graph.kiali import graph_json
from authz.analysis.graph.permitted import ANYBODY, Permit, permits
from authz.core import resources as r
from authz.core.attributes import Workload
from authz.core.compiler import compile_engine
from authz.core.decision import Effect, RuleReference
from authz.core.engine import Engine
from tests.build import ANYTHING, operation, policy, source, when


def workload(name: str, namespace: str = "shop", account: str = "", **labels: str) -> Workload:
    return Workload(namespace, frozenset(labels.items()), account or name, name)


FRONT = workload("front-v1", app="front", version="v1")
API_1 = workload("api-v1", account="api", app="api", version="v1")
API_2 = workload("api-v2", account="api", app="api", version="v2")
DATABASE = workload("db-v1", namespace="data", app="db")
ALL = (FRONT, API_1, API_2, DATABASE)
OF_FRONT, OF_API = "cluster.local/ns/shop/sa/front-v1", "cluster.local/ns/shop/sa/api"
ALLOWED = Outcome(Effect.ALLOW, "allow", "ns[shop]-policy[p]-rule[0]", 0, True, "http")
DENIED = Outcome(Effect.DENY, "allow", "", 403, True, "http")
PLAIN = Outcome(Effect.DENY, "peer-authentication", "", 403, False, "http")
RULE = RuleReference("shop", "p", 0, "ns[shop]-policy[p]-rule[0]")


def engine(*policies: r.AuthorizationPolicy, strict: bool = False) -> Engine:
    peers = (r.PeerAuthentication(r.Metadata("strict", "istio-system"), mode=r.MtlsMode.STRICT),) if strict else ()
    return compile_engine(r.Resources(policies, (), peers, version="v1"), r.MeshConfig())


def traffic(principal: str, to: Workload, *outcomes: tuple[Outcome, int], ever_allowed: bool = True) -> Traffic:
    return Traffic(principal, to, dict(outcomes), 100.0, ever_allowed)


def edges(graph: SecurityGraph) -> dict[tuple[str, str], EdgeState]:
    return {(edge.source.name or edge.source.kind, edge.target.name): edge.state for edge in graph.edges}


@pytest.mark.parametrize(
    ("outcomes", "permitted", "ever_allowed", "state"),
    [
        (((ALLOWED, 3),), False, True, EdgeState.ALLOWED),
        (((ALLOWED, 3), (DENIED, 1)), True, True, EdgeState.MIXED),
        (((DENIED, 1),), True, False, EdgeState.DENIED),
        ((), True, True, EdgeState.IDLE),
        ((), True, False, EdgeState.UNUSED),
    ],
)
def test_an_edge_tells_use_from_permission(
    outcomes: tuple[tuple[Outcome, int], ...], permitted: bool, ever_allowed: bool, state: EdgeState
) -> None:
    permit = [Permit(OF_FRONT, API_1, (RULE,))] if permitted else []
    graph = build_graph([traffic(OF_FRONT, API_1, *outcomes, ever_allowed=ever_allowed)], ALL, permit)
    assert edges(graph) == {("front-v1", "api-v1"): state}


def test_an_edge_that_is_neither_used_nor_permitted_is_not_drawn() -> None:
    assert build_graph([traffic(OF_FRONT, API_1)], ALL).edges == ()


@pytest.mark.parametrize(
    ("grouping", "source_key", "target_key"),
    [
        (Grouping.VERSION, NodeKey("box", "shop", "api"), NodeKey("workload", "data", "db-v1")),
        (Grouping.WORKLOAD, NodeKey("box", "shop", "api"), NodeKey("workload", "data", "db-v1")),
        (Grouping.APP, NodeKey("app", "shop", "api"), NodeKey("app", "data", "db")),
        (Grouping.SERVICE, NodeKey("service", "shop", "api"), NodeKey("service", "data", "db")),
        (Grouping.NAMESPACE, NodeKey("namespace", "shop", "shop"), NodeKey("namespace", "data", "data")),
    ],
)
def test_an_account_that_versions_share_calls_as_their_group(
    grouping: Grouping, source_key: NodeKey, target_key: NodeKey
) -> None:
    graph = build_graph([traffic(OF_API, DATABASE, (ALLOWED, 1))], ALL, grouping=grouping)
    assert [(edge.source, edge.target) for edge in graph.edges] == [(source_key, target_key)]
    assert {source_key, target_key} <= set(graph.nodes)


@pytest.mark.parametrize(
    ("principal", "key"),
    [
        ("", UNKNOWN_CALLER),
        ("cluster.local/ns/gone/sa/old", NodeKey("account", "gone", "old")),
        ("partner.example/build/7", NodeKey("account", "", "partner.example/build/7")),
        ("<script>", NodeKey("account", "", "<script>")),
        (OF_FRONT, NodeKey("workload", "shop", "front-v1")),
    ],
)
def test_a_caller_is_known_by_its_certificate_only(principal: str, key: NodeKey) -> None:
    graph = build_graph([traffic(principal, API_1, (DENIED, 1))], ALL)
    assert graph.edges[0].source == key


def test_versions_stand_in_the_box_of_their_app() -> None:
    graph = build_graph([], ALL)
    box = NodeKey("box", "shop", "api")
    assert {key.name: node.parent for key, node in graph.nodes.items()} == {
        "front-v1": None, "api": None, "api-v1": box, "api-v2": box, "db-v1": None,
    }  # fmt: skip


def test_a_namespace_shows_its_workloads_and_whoever_talks_to_them() -> None:
    seen = [traffic(OF_API, DATABASE, (ALLOWED, 1)), traffic(OF_FRONT, API_1, (ALLOWED, 1))]
    graph = build_graph(seen, ALL, namespaces=frozenset({"data"}))
    assert edges(graph) == {("api", "db-v1"): EdgeState.ALLOWED}
    assert {key.name for key in graph.nodes} == {"api", "api-v1", "api-v2", "db-v1"}


def test_the_share_of_mtls_counts_requests() -> None:
    graph = build_graph([traffic(OF_FRONT, API_1, (ALLOWED, 3), (PLAIN, 1))], ALL)
    assert graph.edges[0].mtls_percent == 75.0


def test_of_one_workload_the_description_that_says_most_is_kept() -> None:
    bare = Workload("shop", frozenset({"app": "front", "version": "v1"}.items()))
    assert merge_workloads([bare, FRONT, bare]) == (FRONT,)


# --- permits ---------------------------------------------------------------------------------------------------------

NAMED = source(principals=(OF_FRONT,))


@pytest.mark.parametrize(
    ("policies", "strict", "found"),
    [
        ([policy(NAMED)], False, {OF_FRONT}),
        ([policy(source(namespaces=("shop",)))], False, {OF_FRONT, OF_API}),
        ([policy(source(principals=(OF_FRONT,), not_namespaces=("shop",)))], False, set()),
        ([policy(NAMED, dry_run=True)], False, set()),
        ([policy(NAMED), policy(NAMED, action=r.Action.DENY, name="d")], False, set()),
        (
            [
                policy(NAMED),
                policy(
                    r.Rule((r.Source(principals=(OF_FRONT,)),), (r.Operation(methods=("PUT",)),)),
                    action=r.Action.DENY,
                    name="d",
                ),
            ],
            False,
            {OF_FRONT},
        ),
        ([policy(when("source.namespace", "shop"))], False, {OF_FRONT, OF_API}),
        ([policy(operation(methods=("GET",)))], False, {ANYBODY}),
        ([policy(operation(methods=("GET",)))], True, set()),
        ([policy(source(principals=("*",)))], False, set()),
        ([policy(ANYTHING)], False, {ANYBODY}),
        ([policy(r.Rule((r.Source(request_principals=("*",)),)))], False, {ANYBODY}),
        ([], False, set()),
    ],
)
def test_permits_are_what_identity_decides(
    policies: list[r.AuthorizationPolicy], strict: bool, found: set[str]
) -> None:
    given = permits(engine(*policies, strict=strict), [API_1], [OF_FRONT, OF_API])
    assert {permit.principal for permit in given} == found


def test_a_workload_without_allow_policies_is_open_instead_of_permitting_everybody() -> None:
    found = as_json(build_graph([], [API_1]), engine())
    assert found["elements"]["nodes"][0]["data"]["policy"]["isOpen"] is True


# --- Kiali's shape ---------------------------------------------------------------------------------------------------


def as_json(graph: SecurityGraph, compiled: Engine, grouping: Grouping = Grouping.VERSION) -> dict[str, Any]:
    return graph_json(graph, compiled.for_workload, {RULE.name: RULE}, now=1000.5, window_seconds=60, grouping=grouping)


def test_the_json_has_kialis_shape() -> None:
    compiled = engine(policy(NAMED), strict=True)
    seen = [traffic(OF_FRONT, API_1, (ALLOWED, 90), (DENIED, 30)), traffic("", API_1, (PLAIN, 6))]
    found = as_json(build_graph(seen, ALL, permits(compiled, ALL, [OF_FRONT])), compiled)
    assert (found["timestamp"], found["duration"], found["graphType"]) == (1000, 60, "versionedApp")
    nodes = {node["data"]["name"]: node["data"] for node in found["elements"]["nodes"]}
    edges_ = [edge["data"] for edge in found["elements"]["edges"]]
    assert set(nodes) == {"front-v1", "api", "api-v1", "api-v2", "db-v1", "outside"}
    assert nodes["api-v1"]["parent"] == nodes["api"]["id"]
    assert (nodes["api"]["nodeType"], nodes["api"]["isBox"]) == ("box", "app")
    assert (nodes["outside"]["nodeType"], nodes["outside"]["namespace"]) == ("unknown", "unknown")
    assert nodes["api-v1"]["traffic"] == [
        {"protocol": "http", "rates": {"httpIn": "2.10", "httpIn4xx": "0.60"}},
    ]
    assert nodes["api-v1"]["policy"]["mtlsModes"] == ["STRICT"]
    edge = next(e for e in edges_ if e["source"] == nodes["front-v1"]["id"] and e["target"] == nodes["api-v1"]["id"])
    assert edge["isMTLS"] == "100"
    assert edge["sourcePrincipal"] == f"spiffe://{OF_FRONT}"
    assert edge["traffic"] == {
        "protocol": "http",
        "rates": {"http": "2.00", "http4xx": "0.50", "httpPercentErr": "25.0"},
        "responses": {"403": {"flags": {"UAEX": "25.0"}, "hosts": {}}, "-": {"flags": {"-": "75.0"}, "hosts": {}}},
    }
    told = edge["policy"]
    assert (told["state"], told["allowed"], told["denied"], told["deniedPercent"]) == ("mixed", 90, 30, 25.0)
    assert told["principals"] == [{"principal": OF_FRONT, "requests": 120, "permitted": True}]
    assert [(rule["effect"], rule["name"], rule["requests"]) for rule in told["rules"]] == [
        ("allow", RULE.name, 90),
        ("deny", None, 30),
    ]
    unused = next(e for e in edges_ if e["target"] == nodes["api-v2"]["id"])
    assert unused["policy"]["state"] == "unused"
    assert "traffic" not in unused
    plain = next(e for e in edges_ if e["source"] == nodes["outside"]["id"])
    assert (plain["isMTLS"], plain["policy"]["state"]) == ("0", "denied")
    assert "sourcePrincipal" not in plain


def test_ids_stay_the_same_as_numbers_change() -> None:
    first = as_json(build_graph([traffic(OF_FRONT, API_1, (ALLOWED, 1))], ALL), engine())
    later = as_json(build_graph([traffic(OF_FRONT, API_1, (DENIED, 7))], ALL), engine())

    def ids(found: dict[str, Any]) -> list[str]:
        return [one["data"]["id"] for kind in ("nodes", "edges") for one in found["elements"][kind]]

    assert ids(first) == ids(later)
    assert len(set(ids(first))) == len(ids(first))

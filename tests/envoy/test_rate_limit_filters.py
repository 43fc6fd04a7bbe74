"""The filters of rate limits in rendered configuration: where they stand, what they send, and that Envoy takes them."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.core.compiler import compile_engine
from authz.core.resources import Resources
from authz.envoy.native.binary import find_envoy
from authz.envoy.options import Listeners, RenderOptions
from authz.envoy.render import Native, permissive, render_all
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Enforce, Mesh
from tests.mesh.meshes import Ports, description
from tests.mesh.test_rate_limits import policy
from tests.yaml_text import read_yaml

EVERYTHING = """
    RATE:
      rules:
      - clientSelectors:
        - headers:
          - {name: x-a, value: a}
          - {name: x-b, type: RegularExpression, value: "b+"}
          - {name: x-c, type: Distinct}
          methods: [{value: DELETE, invert: true}]
          path: {value: /books}
          sourceCIDR: {value: 10.0.0.0/8}
          attributes: [{name: source.principal, type: Distinct}, {name: "request.auth.claims[a][b]", value: c}]
        limit: {requests: 7, unit: Year}
      - clientSelectors:
        - {path: {type: RegularExpression, value: "/(a|b)"}, sourceCIDR: {type: Distinct, value: "::/0"}}
        - path: {type: Template, value: "/books/{*}/{**}", invert: true}
        limit: {requests: 7, unit: Second}
        cost: {request: {from: Number, number: 2}}
"""
GLOBAL, LOCAL = EVERYTHING.replace("RATE", "global"), EVERYTHING.replace("RATE", "local")
WEB = "targetRefs: [{kind: Gateway, name: web}]"


def mesh(*texts: str) -> Mesh:
    found, problems = read_mesh_description([("mesh.yaml", description(Ports()) + "".join(texts).encode())])
    assert problems == ()
    return found


def rendered(found: Mesh, enforce: Enforce = Enforce.CHECK, listeners: Listeners = Listeners.DYNAMIC) -> dict[str, Any]:
    engine = compile_engine(Resources(), found.config)
    options = RenderOptions(enforce=enforce, listeners=listeners)
    files = render_all(found, permissive, options, Native(engine))
    return {name: read_yaml(data) for name, data in files.items()}


def filters(files: dict[str, Any], proxy: str) -> dict[str, list[list[str]]]:
    """By listener the names of the HTTP filters of each chain."""
    found: dict[str, list[list[str]]] = {}
    for listener in files[f"lds/{proxy}.yaml"]["resources"]:
        for chain in listener.get("filter_chains", ()):
            for one in chain["filters"]:
                if "http_filters" in one["typed_config"]:
                    names = [http["name"] for http in one["typed_config"]["http_filters"]]
                    found.setdefault(listener["name"], []).append(names)
    return found


@pytest.mark.parametrize(
    ("enforce", "deciding"),
    [(Enforce.CHECK, ["envoy.filters.http.ext_authz"]), (Enforce.NATIVE, ["authz-rules"])],
)
def test_requests_are_counted_behind_what_decides(enforce: Enforce, deciding: list[str]) -> None:
    closed = policy("{global: {failClosed: true, rules: [{limit: {requests: 1, unit: Day}}]}}")
    described = mesh(policy(GLOBAL), policy(LOCAL).replace("quota", "own"), closed.replace("quota", "closed"))
    files = rendered(described, enforce)
    limiting = ["authz.local-rate-limits", "authz.rate-limits", "authz.rate-limits-closed"]
    chain = [*deciding, *limiting, "envoy.filters.http.router"]
    assert filters(files, "server-v1") == {"inbound_15011": [chain, chain]}
    assert "rate-limits" not in str(filters(files, "client-v1"))
    assert "eds/limits.yaml" in files
    assert yaml.dump(files["lds/server-v1.yaml"]).count("x-authz-fail-closed") == 2, "the closed filter of each chain"
    assert [one["name"] for one in files["cds/server-v1.yaml"]["resources"]].count("limits") == 1
    assert not any(one["name"] == "limits" for one in files["cds/client-v1.yaml"]["resources"])


def test_a_gateway_counts_behind_what_answers_in_place_of_the_service() -> None:
    files = rendered(mesh(policy(LOCAL, WEB, "istio-system")))
    answering = ["envoy.filters.http.cors", "envoy.filters.http.fault"]
    chain = ["envoy.filters.http.ext_authz", *answering, "authz.local-rate-limits", "envoy.filters.http.router"]
    assert filters(files, "ingress") == {"ingress_15021": [chain]}


def test_without_limits_nothing_of_them_is_rendered() -> None:
    files = rendered(mesh())
    assert not any("limits" in name for name in files)
    assert not any(text in yaml.dump(content) for content in files.values() for text in ("rate-limits", "ratelimit"))


@pytest.mark.envoy
@pytest.mark.parametrize("enforce", list(Enforce))
@pytest.mark.parametrize("target", ["sidecar", "gateway"])
def test_envoy_takes_every_selector(tmp_path: Path, enforce: Enforce, target: str) -> None:
    pytest.importorskip("envoy")
    where = (WEB, "istio-system") if target == "gateway" else ()
    found = mesh(policy(GLOBAL, *where), policy(LOCAL, *where).replace("quota", "own"))
    files = render_all(
        found,
        permissive,
        RenderOptions(enforce=enforce, listeners=Listeners.STATIC),
        Native(compile_engine(Resources(), found.config)),
    )
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    proxy = "ingress" if target == "gateway" else "server-v1"
    command = [find_envoy(), "--mode", "validate", "-c", f"envoy/{proxy}.yaml"]
    for directory in ("logs", "run"):
        (tmp_path / directory).mkdir(exist_ok=True)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

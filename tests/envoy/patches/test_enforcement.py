"""What weakens enforcement is refused, however it is put; what does not is rendered."""

import copy
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from authz.control.extension_validation import ShownExtensions, refused_by_envoy
from authz.core.compiler import compile_engine
from authz.core.errors import LoadError, Problem, Severity, sort_problems
from authz.envoy.extended import Extensions, extended_of
from authz.envoy.native.binary import find_envoy
from authz.envoy.options import RenderOptions
from authz.envoy.patches.proxy_resources import ProxyResources
from authz.envoy.proxy_parts import DEFAULTS, Native, extension_problems, permissive, proxy_parts, shown_to_envoy
from authz.envoy.render import render_all
from authz.mesh.description import read_mesh_description
from authz.mesh.extensions import WEAKENS
from authz.mesh.nouns import Enforce, Mesh
from authz.policy.reader import read_policies
from tests.envoy.rig import Authority
from tests.mesh.meshes import Ports, description
from tests.yaml_text import read_yaml

HCM = "envoy.filters.network.http_connection_manager"
FILTERS = "type.googleapis.com/envoy.extensions.filters"
ATTEMPTS = read_yaml((Path(__file__).parent / "attempts.yaml").read_text())["attempts"]


def mesh_with(patches: list[Any], **metadata: Any) -> Mesh:
    document = {
        "kind": "EnvoyFilter",
        "metadata": {"name": "attempt", "namespace": "istio-system", **metadata},
        "spec": {"configPatches": patches},
    }
    files = [("mesh.yaml", description(Ports())), ("filter.yaml", json.dumps(document).encode())]
    mesh, problems = read_mesh_description(files)
    assert problems == (), [str(one) for one in problems]
    return mesh


def errors(problems: tuple[Problem, ...]) -> list[Problem]:
    return [one for one in problems if one.is_error]


@cache
def parts() -> dict[str, ProxyResources]:
    """The resources of every proxy without patches, which take most of the time."""
    mesh, _ = read_mesh_description([("mesh.yaml", description(Ports()))])
    return {workload.name: proxy_parts(mesh, workload, permissive, DEFAULTS, None) for workload in mesh.workloads}


def outcome(mesh: Mesh) -> tuple[dict[str, ProxyResources], tuple[Problem, ...]]:
    return extended_of(mesh, lambda workload: copy.deepcopy(parts()[workload.name]))


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda one: one["name"])
def test_what_becomes_of_an_attempt(attempt: dict[str, Any]) -> None:
    mesh = mesh_with(attempt["patches"])
    made, problems = outcome(mesh)
    found = errors(problems)
    if attempt["becomes"] in ("refused", "broken"):
        code = {"refused": "ME-8", "broken": "ME-4"}[attempt["becomes"]]
        fitting = [one for one in found if one.code == code and re.search(attempt["about"], str(one))]
        assert fitting, [str(one) for one in problems]
        assert all(one.location.line and one.help for one in found)
        return
    assert found == [], [str(one) for one in found]
    remarks = [one for one in problems if one.severity is Severity.INFO]
    assert bool(remarks) == (attempt["becomes"] == "said"), [str(one) for one in problems]
    assert all(attempt["about"] in one.message for one in remarks)
    assert not [one for one in problems if one.severity is Severity.WARNING], [str(one) for one in problems]
    before = parts()
    assert any(
        (one.listeners, one.clusters, one.route_tables)
        != (before[name].listeners, before[name].clusters, before[name].route_tables)
        for name, one in made.items()
    )


def test_what_is_refused_is_not_rendered() -> None:
    mesh = mesh_with(ATTEMPTS[0]["patches"])
    with pytest.raises(LoadError) as raised:
        render_all(mesh)
    assert raised.value.problems == sort_problems(extension_problems(mesh))


@pytest.mark.parametrize(
    "attempt", [one for one in ATTEMPTS if one["becomes"] == "refused"], ids=lambda one: one["name"]
)
def test_a_person_may_allow_it_by_name_and_is_told_so(attempt: dict[str, Any]) -> None:
    mesh = mesh_with(attempt["patches"], annotations={WEAKENS: "migration until June"})
    _, problems = outcome(mesh)
    assert {one.code for one in errors(problems)} <= {"ME-4"}, "what cannot work cannot be allowed"
    told = [one for one in problems if one.severity is Severity.WARNING and one.code == "ME-8"]
    assert told
    assert all("migration until June" in one.message for one in told)


@pytest.mark.parametrize(
    "attempt", [one for one in ATTEMPTS if one["becomes"] == "broken"], ids=lambda one: one["name"]
)
def test_what_cannot_work_is_refused_even_if_allowed(attempt: dict[str, Any]) -> None:
    assert errors(outcome(mesh_with(attempt["patches"], annotations={WEAKENS: "please"}))[1])


POLICIES = b"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open, namespace: app}
spec:
  rules: [{to: [{operation: {ports: ["15011", "15012"]}}]}]
"""
SLOT = {"filterChain": {"filter": {"name": HCM, "subFilter": {"name": "authz-rules"}}}}
TO_METADATA = {"name": "m", "typed_config": {"@type": f"{FILTERS}.http.header_to_metadata.v3.Config"}}
ANOTHER_JWT = {"name": "j", "typed_config": {"@type": f"{FILTERS}.http.jwt_authn.v3.JwtAuthentication"}}
OFF = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
ON_NATIVE: dict[str, tuple[dict[str, Any], str]] = {
    "remove the slot of the rules": (
        {"applyTo": "HTTP_FILTER", "match": {"listener": SLOT}, "patch": {"operation": "REMOVE"}},
        "is removed",
    ),
    "fill the slot with something else": (
        {
            "applyTo": "HTTP_FILTER",
            "match": {"listener": SLOT},
            "patch": {"operation": "REPLACE", "value": {**TO_METADATA, "name": "authz-rules"}},
        },
        "changes",
    ),
    "forge claims before the rules": (
        {
            "applyTo": "HTTP_FILTER",
            "match": {"listener": SLOT},
            "patch": {"operation": "INSERT_BEFORE", "value": TO_METADATA},
        },
        "stands before",
    ),
    "verify tokens of another issuer before the rules": (
        {
            "applyTo": "HTTP_FILTER",
            "match": {"listener": SLOT},
            "patch": {"operation": "INSERT_BEFORE", "value": ANOTHER_JWT},
        },
        "stands before",
    ),
    "disable the slot for a route": (
        {
            "applyTo": "HTTP_ROUTE",
            "match": {"context": "SIDECAR_INBOUND"},
            "patch": {"operation": "MERGE", "value": {"typed_per_filter_config": {"authz-rules": OFF}}},
        },
        "typed_per_filter_config",
    ),
    "remove the rules of connections": (
        {
            "applyTo": "NETWORK_FILTER",
            "match": {"listener": {"filterChain": {"filter": {"name": "envoy.filters.network.rbac"}}}},
            "patch": {"operation": "REMOVE"},
        },
        "is removed",
    ),
}


@pytest.mark.parametrize("name", ON_NATIVE)
def test_filters_that_decide_by_themselves_stay_as_well(name: str) -> None:
    """The comparison sees what is completed from policies, too."""
    patch, about = ON_NATIVE[name]
    mesh = mesh_with([patch])
    policies = read_policies([("policies.yaml", POLICIES)], mesh.config)
    native = Native(compile_engine(policies.resources, mesh.config))
    problems = extension_problems(mesh, permissive, RenderOptions(enforce=Enforce.NATIVE), native)
    assert [one for one in errors(problems) if one.code == "ME-8" and about in one.message], [str(o) for o in problems]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with the certificate that a cluster names."""
    made = tmp_path_factory.mktemp("state")
    Authority.new().publish(made / "certs" / "outside" / "ca.crt")
    return made


@pytest.mark.envoy
@pytest.mark.parametrize(
    "attempt", [one for one in ATTEMPTS if one["becomes"] in ("free", "said")], ids=lambda one: one["name"]
)
def test_envoy_accepts_what_is_allowed(attempt: dict[str, Any], state: Path) -> None:
    mesh = mesh_with(attempt["patches"])
    shown = ShownExtensions(lambda count: shown_to_envoy(mesh, count=count), Extensions.of(mesh).patches)
    assert refused_by_envoy(find_envoy(), state, shown) == ()

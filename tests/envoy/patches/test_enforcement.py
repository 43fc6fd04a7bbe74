"""What weakens enforcement is refused, however it is put; what does not is rendered."""

import copy
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.core.errors import LoadError, Problem, Severity, sort_problems
from authz.envoy.extended import extended_of
from authz.envoy.patches.proxy_resources import ProxyResources
from authz.envoy.proxy_parts import DEFAULTS, extension_problems, permissive, proxy_parts
from authz.envoy.render import render_all
from authz.mesh.description import read_mesh_description
from authz.mesh.extensions import WEAKENS
from authz.mesh.nouns import Mesh
from tests.mesh.meshes import Ports, description

ATTEMPTS = yaml.safe_load((Path(__file__).parent / "attempts.yaml").read_text())["attempts"]


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

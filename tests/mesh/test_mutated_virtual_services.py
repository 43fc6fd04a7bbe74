"""Mutated VirtualServices: refused with their place and what to do, or rendered to something Envoy accepts."""

from pathlib import Path
from typing import Any

import pytest

from authz.core.errors import Problem, Severity
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh
from tests.mesh.mutated import accepted_by_envoy, mutations
from tests.mesh.shops import BOTH, CASES, OURS, virtual_services
from tests.yaml_text import read_all_yaml

COUNT = 1500
WITH_ENVOY = 20
SEED = 15


def documents() -> list[dict[str, Any]]:
    """Every VirtualService of the shop, subsets left out: they would need DestinationRules."""
    found = [one for case in CASES for one in read_all_yaml(virtual_services(case)) if one]
    return [_whole(one) for one in found if one["spec"].get("hosts")]


def _whole(node: Any) -> Any:
    if isinstance(node, list):
        return [_whole(item) for item in node]
    return {key: _whole(value) for key, value in node.items() if key != "subset"} if isinstance(node, dict) else node


def read(text: str) -> tuple[Mesh, list[Problem]]:
    mesh, problems = read_mesh_description([("case.yaml", "\n---\n".join((text, BOTH, OURS)).encode())])
    return mesh, [problem for problem in problems if "is defined by no DestinationRule" not in str(problem)]


@pytest.mark.slow
def test_a_mutated_document_is_refused_with_its_place_or_read() -> None:
    accepted = 0
    for text in mutations(documents(), SEED, COUNT):
        mesh, problems = read(text)
        accepted += not any(problem.is_error for problem in problems)
        assert mesh is not None
        for problem in problems:
            assert problem.severity in (Severity.ERROR, Severity.WARNING), str(problem)
            assert problem.location.file == "case.yaml", (str(problem), text)
            assert 0 < problem.location.line <= len(text.splitlines()) + 1, (str(problem), text)
            assert problem.message, text
    assert COUNT / 20 < accepted < COUNT * 19 / 20


@pytest.mark.envoy
@pytest.mark.slow
def test_what_is_accepted_envoy_accepts(tmp_path: Path) -> None:
    tried = 0
    for i, text in enumerate(mutations(documents(), SEED + 1, COUNT)):
        mesh, problems = read(text)
        if not problems:
            tried += 1
            state = tmp_path / str(i)
            state.mkdir()
            proxy = "ingress" if "istio-system/web" in text else "client"
            assert accepted_by_envoy(mesh, (proxy,), state) == "", text
        if tried == WITH_ENVOY:
            return
    raise AssertionError(f"only {tried} were accepted")

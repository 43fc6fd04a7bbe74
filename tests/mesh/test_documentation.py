"""docs/mesh.md: its example renders, and its tables name what the code names."""

import re
from pathlib import Path

import pytest

from authz.envoy.options import Listeners, RenderOptions
from authz.envoy.render import render_all
from authz.mesh import kind_parts, kinds
from authz.mesh.description import read_mesh_description

TEXT = (Path(__file__).parents[2] / "docs" / "mesh.md").read_text()


def test_the_example_is_one_sidecar() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
    mesh, problems = read_mesh_description([("docs/mesh.md", example.encode())])
    assert problems == ()
    assert str(mesh.workload("shop").spiffe_id) in TEXT
    assert "envoy/shop.yaml" in render_all(mesh, options=RenderOptions(listeners=Listeners.STATIC))


@pytest.mark.parametrize("name", [*kinds.READERS, kind_parts.COMPOSE_ADDRESS, kind_parts.COMPOSE_APP])
def test_every_kind_and_annotation_is_documented(name: str) -> None:
    assert name in TEXT


def test_every_code_is_documented() -> None:
    source = "".join(path.read_text() for path in (Path(kinds.__file__).parent).glob("*.py"))
    assert set(re.findall(r'"(ME-\d)"', source)) == set(re.findall(r"`(ME-\d)`", TEXT))

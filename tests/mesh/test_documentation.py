"""docs/mesh.md: its example renders, and its tables name what the code names."""

import re
from pathlib import Path

import pytest

from authz.envoy.options import Listeners, RenderOptions
from authz.envoy.proxy_parts import extension_problems
from authz.envoy.render import render_all
from authz.mesh import kind_parts, kinds, read_limit_selectors, read_rate_limits
from authz.mesh.description import read_mesh_description
from authz.mesh.virtual_service_fields import FIELDS as ROUTE_FIELDS

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


def test_the_example_of_a_virtual_service_is_read() -> None:
    page = Path(__file__).parents[2] / "docs" / "traffic.md"
    (example,) = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S)
    bookinfo = (page.parents[1] / "envoy-configs" / "mesh.yaml").read_bytes()
    mesh, problems = read_mesh_description([("mesh.yaml", bookinfo), ("traffic.md", example.encode())])
    # Its subsets are those of a DestinationRule beside it.
    assert [one for one in problems if "is defined by no DestinationRule" not in str(one)] == []
    assert [one.name for one in mesh.virtual_services.all] == ["bookinfo", "reviews"]


@pytest.mark.parametrize(
    "field", [name for fields in ROUTE_FIELDS.values() for name, reason in fields.items() if reason]
)
def test_every_field_that_is_not_done_is_documented_with_its_reason(field: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "traffic.md").read_text()
    reasons = {fields[field] for fields in ROUTE_FIELDS.values() if field in fields}
    rows = [line for line in page.splitlines() if line.startswith("| `") and field in line]
    assert any(reason in row for row in rows for reason in reasons if reason)


def test_the_example_of_a_telemetry_is_read() -> None:
    page = Path(__file__).parents[2] / "docs" / "telemetry.md"
    (example,) = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S)
    (sidecar,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
    mesh, problems = read_mesh_description([("mesh.yaml", sidecar.encode()), ("telemetry.yaml", example.encode())])
    assert problems == ()
    assert mesh.workload("shop").telemetry.server.spans is not None


def test_every_code_is_documented() -> None:
    rooms = [Path(kinds.__file__).parents[1] / room for room in ("mesh", "envoy", "control")]
    source = "".join(path.read_text() for room in rooms for path in room.rglob("*.py"))
    assert set(re.findall(r'"(ME-\d)"', source)) == set(re.findall(r"`(ME-\d)`", TEXT))


EXTENSIONS = (Path(__file__).parents[2] / "docs" / "extensions.md").read_text()
FIELDS = """
workloadSelector targetRefs priority applyTo context proxyVersion metadata portNumber portName name listenerFilter
filterChain sni transportProtocol applicationProtocols destinationPort filter.name filter.subFilter.name
routeConfiguration gateway vhost domainName route.name route.action cluster service subset waypoint operation value
filterClass selector targetRef url sha256 imagePullPolicy imagePullSecret verificationKey pluginConfig pluginName phase
failStrategy vmConfig.env valueFrom match mode ports type
""".split()  # noqa: SIM905  # read as a list of words
"""Of EnvoyFilter and WasmPlugin in Istio's API."""


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_the_extensions_is_done_or_refused_by_name(name: str) -> None:
    assert re.search(rf"[`.]{re.escape(name)}[`.]", EXTENSIONS[EXTENSIONS.index("## Every field") :])


def test_the_examples_of_extensions_are_rendered() -> None:
    (sidecar,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
    lua, plugin = (one for one in re.findall(r"```yaml\n(.*?)```", EXTENSIONS, re.S) if one.startswith("apiVersion"))
    mesh, problems = read_mesh_description([("extensions.yaml", f"{sidecar}---\n{lua}---\n{plugin}".encode())])
    assert problems == ()
    assert [one.code for one in extension_problems(mesh)] == ["ME-8", "ME-8"]
    rendered = render_all(mesh)["lds/shop.yaml"].decode()
    assert "x-stamp" in rendered
    assert "/opt/wasm/count.wasm" in rendered


def test_the_example_of_rate_limits_is_read_for_bookinfo() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rate-limits.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    bookinfo = (Path(__file__).parents[2] / "envoy-configs" / "mesh.yaml").read_bytes()
    mesh, problems = read_mesh_description([("mesh.yaml", bookinfo), ("docs/rate-limits.md", example.encode())])
    assert problems == ()
    limited = {workload.name: len(workload.limits) for workload in mesh.workloads if workload.limits}
    assert limited == {"reviews-v1": 3, "reviews-v2": 3, "reviews-v3": 3}


def test_every_field_that_is_read_of_a_limit_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rate-limits.md").read_text()
    sources = [Path(read_rate_limits.__file__), Path(read_limit_selectors.__file__)]
    named = {
        name
        for path in sources
        for only in re.findall(r"\.only\(([^)]*)\)", path.read_text())
        for name in re.findall(r'"(\w+)"', only)
    }
    assert {name for name in named if not re.search(rf"\b{name}\b", page)} == set()

"""Rules of traffic are read beside the mesh description, and followed as long as the processes stay the same."""

from dataclasses import replace
from pathlib import Path

import pytest

from authz.demo.layout import DemoError, Layout
from authz.demo.prepare import options, plan
from authz.demo.traffic_rules import EXAMPLES, OFF, read_again, read_with_traffic, traffic_files, traffic_state
from authz.envoy.render import render_all
from tests.mesh.meshes import logins

ROOT = Path(__file__).parent.parent.parent
MESH, POLICIES, TRAFFIC = ROOT / "envoy-configs" / "mesh.yaml", ROOT / "policies", ROOT / "traffic"
EVERYTHING = ROOT / "tests" / "demo" / "everything"
RATINGS = (
    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: ratings, namespace: bookinfo}\n"
    "spec:\n  hosts: [ratings]\n  http:\n  - route: [{destination: {host: ratings, subset: v1}}]\n"
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = plan(tmp_path / "state", POLICIES, MESH, offset=1000, copy=True, traffic=TRAFFIC)
    return replace(found, logins=logins(found.mesh))


def test_copies_are_edited_and_examples_lie_beside_them(layout: Layout) -> None:
    assert layout.traffic == layout.state / "traffic"
    assert [Path(name).name for name, _ in traffic_files(layout.traffic)] == ["reviews.yaml", "subsets.yaml"]
    examples = {path.name for path in (TRAFFIC / EXAMPLES).iterdir()}
    assert all(name.endswith(".yaml" + OFF) for name in examples)  # whoever reads the folder whole leaves them out
    assert {path.name for path in (layout.traffic / EXAMPLES).iterdir()} == examples
    assert "book -X POST 'https://localhost:16443/" in (layout.traffic / EXAMPLES / "orders-quota.yaml.off").read_text()


@pytest.mark.parametrize(
    "rules",
    [*sorted((TRAFFIC / EXAMPLES).iterdir()), EVERYTHING],
    ids=lambda path: path.name.partition(".")[0],
)
def test_every_example_can_be_used(layout: Layout, rules: Path) -> None:
    files = traffic_files(rules) if rules.is_dir() else [*traffic_files(TRAFFIC), (rules.name, rules.read_text())]
    mesh, joined = read_with_traffic("mesh.yaml", layout.alone, files)
    rendered = render_all(mesh, options=options(layout))
    assert rendered == render_all(read_with_traffic("mesh.yaml", joined, [])[0], options=options(layout))
    assert rendered != render_all(layout.mesh, options=options(layout))


def test_a_new_file_is_in_the_mesh_that_servers_read(layout: Layout) -> None:
    assert layout.traffic is not None
    before = traffic_state(layout.traffic)
    (layout.traffic / "ratings.yaml").write_text(RATINGS)
    assert traffic_state(layout.traffic) != before
    again = read_again(layout)
    assert (
        "|v1|ratings" in render_all(again.mesh, options=options(again))["rds/reviews-v2.outbound_16141.yaml"].decode()
    )
    assert RATINGS in (layout.state / "mesh.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (RATINGS.replace("subset: v1", "subset: v9"), r"ratings\.yaml:7:\d+: .*v9"),
        (RATINGS.replace("http:", "htpp:"), r"ratings\.yaml:6:\d+: .*htpp"),
        (MESH.read_text().partition("---\n")[0], "second|twice|already"),
        (
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: extra, namespace: bookinfo}\n"
            "spec: {address: 127.0.0.1, serviceAccount: extra, labels: {app: extra}, ports: {http: 15199}}\n---\n"
            "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: extra, namespace: bookinfo}\n"
            "spec:\n  workloadSelector: {labels: {app: extra}}\n  ingress:\n"
            "  - {port: {number: 15199, name: http, protocol: HTTP}, defaultEndpoint: '127.0.0.1:19199'}\n",
            "workloads and their ports cannot change",
        ),
    ],
    ids=["subset", "field", "settings", "workload"],
)
def test_what_cannot_be_used_is_said_with_its_place_and_nothing_is_written(
    layout: Layout, text: str, told: str
) -> None:
    assert layout.traffic is not None
    before = (layout.state / "mesh.yaml").read_bytes()
    (layout.traffic / "ratings.yaml").write_text(text)
    with pytest.raises(DemoError, match=told):
        read_again(layout)
    assert (layout.state / "mesh.yaml").read_bytes() == before


def test_a_folder_that_is_gone_is_said(layout: Layout) -> None:
    with pytest.raises(DemoError, match="cannot read the traffic rules"):
        traffic_files(layout.state / "nowhere")
    assert traffic_state(layout.state / "nowhere") == ()

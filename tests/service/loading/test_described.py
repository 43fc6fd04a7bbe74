"""The workloads of a mesh description as the server takes them: whole, or the change is refused."""

from pathlib import Path

import pytest

from authz.core.errors import LoadError
from authz.service.loading.described import described_workloads
from authz.service.loading.reload import Reloader
from authz.service.loading.snapshot import Snapshot
from tests.service.loading.test_reload import policy

ENTRY = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: seven, namespace: shop}
spec: {address: 127.0.0.1, serviceAccount: seven, labels: {app: %s}}
"""
CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "trustDomain: example"}
---
"""


def test_entries_beside_the_mesh_settings_are_read(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(CONFIG + ENTRY % '"7"')
    (found,) = described_workloads(file)
    assert (found.namespace, found.service_account, found.name) == ("shop", "seven", "seven")
    assert found.labels == frozenset({("app", "7")})


def test_settings_alone_describe_nobody(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text("trustDomain: example\n")
    assert described_workloads(file) == ()
    assert described_workloads(None) == ()


@pytest.mark.parametrize("entry", [ENTRY % "7", ENTRY.replace("serviceAccount: seven", "serviceAccount: [a]") % "a"])
def test_an_entry_whose_identity_cannot_be_used_is_refused(tmp_path: Path, entry: str) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(CONFIG + entry)
    with pytest.raises(LoadError, match=r"WorkloadEntry shop/seven|1 error"):
        described_workloads(file)


async def test_a_broken_entry_keeps_the_last_good_set(tmp_path: Path) -> None:
    policies, mesh = tmp_path / "policies", tmp_path / "mesh.yaml"
    policies.mkdir()
    (policies / "p.yaml").write_text(policy("allow", "ALLOW", "/open"))
    mesh.write_text(CONFIG + ENTRY % '"7"')
    taken: list[Snapshot] = []
    reloader = Reloader(policies, mesh, taken.append, lambda: 0.0)
    assert await reloader.load()
    mesh.write_text(CONFIG + ENTRY % "7")
    assert not await reloader.load()
    assert [workload.name for workload in taken[0].workloads] == ["seven"]
    assert len(taken) == 1
    assert not reloader.status.is_ok

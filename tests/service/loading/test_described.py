"""The workloads of a mesh description as the server takes them: whole, or the change is refused."""

from pathlib import Path
from typing import Any

import pytest

from authz.core.errors import LoadError
from authz.service.loading.described import described_workloads
from authz.service.loading.loader import Loader
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


GROUP = """---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: group, namespace: shop}
spec: {template: {serviceAccount: grouped, labels: {version: %s}}}
"""
GROUPED = ENTRY.replace("namespace: shop}", "namespace: shop, annotations: {istio.io/autoRegistrationGroup: group}}")


def test_what_a_group_says_of_its_workloads_counts(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(CONFIG + GROUPED.replace("serviceAccount: seven, ", "") % "a" + GROUP % "v1")
    (found,) = described_workloads(file)
    assert (found.service_account, found.labels) == ("grouped", frozenset({("app", "a"), ("version", "v1")}))


@pytest.mark.parametrize("group", ["", GROUP % "7", (GROUP % "v1").replace("grouped", "[a]")])
def test_a_group_that_cannot_be_used_is_refused(tmp_path: Path, group: str) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(CONFIG + GROUPED % "a" + group)
    with pytest.raises(LoadError, match="error") as refused:
        described_workloads(file)
    assert any("group" in str(problem).lower() for problem in refused.value.problems)


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


async def test_a_file_that_lost_all_its_workloads_is_refused_unless_it_is_meant(tmp_path: Path) -> None:
    """RE-24: it looks like a truncated file, and what sidecars say of their own labels would count again."""
    policies, mesh = tmp_path / "policies", tmp_path / "mesh.yaml"
    policies.mkdir()
    (policies / "p.yaml").write_text(policy("allow", "ALLOW", "/open"))
    for allow_empty in (False, True):
        mesh.write_text(CONFIG + ENTRY % '"7"')
        reloader = Reloader(policies, mesh, lambda snapshot: None, lambda: 0.0, allow_empty=allow_empty)
        assert await reloader.load()
        mesh.write_text(CONFIG)
        assert await reloader.load() is allow_empty
    mesh.write_text(CONFIG + (ENTRY % '"7"').replace("seven", "eight"))
    assert await reloader.load()


async def test_settings_and_workloads_are_of_one_text(tmp_path: Path) -> None:
    """RE-24: a file emptied while policies are read would leave its settings in force without its workloads."""
    policies, mesh = tmp_path / "policies", tmp_path / "mesh.yaml"
    policies.mkdir()
    (policies / "p.yaml").write_text(policy("allow", "ALLOW", "/open"))
    mesh.write_text(CONFIG + ENTRY % '"7"')
    texts = [CONFIG + ENTRY % '"8"', CONFIG + ENTRY % '"9"']

    class Meanwhile(Loader):
        """The real one, while whose reading somebody writes."""

        def load_here(self, *given: Any, **named: Any) -> Snapshot:
            snapshot = super().load_here(*given, **named)
            if texts:
                mesh.write_text(texts.pop())
            return snapshot

    reloader = Reloader(policies, mesh, lambda snapshot: None, lambda: 0.0)
    reloader._loader = Meanwhile()
    assert await reloader.load()
    assert reloader.snapshot is not None
    assert [workload.labels for workload in reloader.snapshot.workloads] == [frozenset({("app", "8")})]
    texts = ["", CONFIG]
    assert not await reloader.load()
    assert [workload.labels for workload in reloader.snapshot.workloads] == [frozenset({("app", "8")})]

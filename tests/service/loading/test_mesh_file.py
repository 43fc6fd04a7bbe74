"""The mesh file is read again when it may have changed, and what comes of an unchanged text is what came before."""

from pathlib import Path

import pytest

from authz.mesh.description import DescriptionReader
from authz.service.loading.mesh_file import MeshFile
from authz.sources.policies import looking
from tests.mesh.meshes import ONE_SIDECAR

CONFIG = """apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "trustDomain: %s"}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "mesh.yaml"
    file.write_text(CONFIG % "one.test" + "---" + ONE_SIDECAR)
    return file


def test_an_equal_text_gives_the_very_settings_and_workloads_of_before(path: Path) -> None:
    reader = DescriptionReader()
    mesh = MeshFile(reader)
    text = mesh.text(path)
    settings, described = mesh.settings(path), mesh.described(path, text)
    path.write_text(path.read_text())
    assert mesh.text(path) is text
    assert mesh.settings(path) is settings
    assert mesh.described(path, text) is described
    assert [one.name for one in described.workloads] == ["api-v1"]
    assert reader.read([(str(path), text or b"")]) is reader.read([(str(path), path.read_bytes())])


def test_a_changed_text_is_read(path: Path) -> None:
    mesh = MeshFile()
    mesh.text(path)
    assert mesh.settings(path)[0].trust_domain == "one.test"
    path.write_text(CONFIG % "two.test")
    assert mesh.described(path, mesh.text(path)).workloads == ()
    assert mesh.settings(path)[0].trust_domain == "two.test"


def test_a_file_that_is_gone_has_no_text(path: Path) -> None:
    mesh = MeshFile()
    mesh.text(path)
    path.unlink()
    assert mesh.text(path) is None
    with pytest.raises(FileNotFoundError):
        mesh.settings(path)


def test_a_file_of_late_is_read_whatever_its_times_say(path: Path) -> None:
    mesh = MeshFile()
    mesh.text(path)
    assert looking.settled_state(path) is None
    path.write_text(path.read_text().replace("one.test", "two.test"))
    assert b"two.test" in (mesh.text(path) or b"")


def test_times_that_have_lied_are_forgotten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "RECENT_SECONDS", -3600.0)  # as if nothing were of late
    mesh = MeshFile()
    mesh.text(path)
    path.write_text(path.read_text().replace("one.test", "two.test"))
    mesh._state = looking.settled_state(path)  # as if the stamps had not moved
    assert b"one.test" in (mesh.text(path) or b"")
    mesh.forget()
    assert b"two.test" in (mesh.text(path) or b"")

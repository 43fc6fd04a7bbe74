"""What was in force is kept whole, by version, within bounds, without secrets, whoever writes."""

import asyncio
import contextlib
import json
import logging
import os
import stat
import threading
import time
import zipfile
from pathlib import Path

import pytest

from authz.core.attributes import Workload
from authz.core.errors import LoadError
from authz.service.loading.archive import STALE_SECONDS, Archive, read_texts
from authz.service.loading.reload import Reloader
from authz.service.loading.snapshot import load_snapshot

POLICY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p, namespace: shop}}
spec: {{rules: [{{to: [{{operation: {{paths: ["/{path}"]}}}}]}}]}}  # as read
"""
MESH = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: istio}
data: {mesh: "trustDomain: td"}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: api-v1, namespace: shop}
spec: {address: 10.0.0.5, serviceAccount: api, labels: {app: api}}
"""


def keep(archive: Archive, policies: Path, path: str = "a", mesh: Path | None = None) -> str:
    policies.mkdir(exist_ok=True)
    (policies / "p.yaml").write_text(POLICY.format(path=path))
    snapshot = load_snapshot(policies, mesh, 0.0)
    assert archive.keep(snapshot.version, read_texts(policies, mesh), snapshot.resources)
    return snapshot.version


def test_a_version_is_loaded_as_it_was_in_force(tmp_path: Path) -> None:
    mesh = tmp_path / "mesh.yaml"
    mesh.write_text(MESH)
    archive = Archive(tmp_path / "deep" / "archive")
    version = keep(archive, tmp_path / "policies", "a", mesh)
    keep(archive, tmp_path / "policies", "b", mesh)
    found = archive.snapshot(version)
    assert found is not None
    assert (found.version, found.engine.version, found.mesh.trust_domain) == (version, version, "td")
    (policy,) = found.engine.written_for(Workload("shop"))
    assert policy.rules[0].operations[0].paths == ("/a",)
    assert policy.metadata.location.file == str(tmp_path / "policies" / "p.yaml")
    assert [one.name for one in found.workloads] == ["api-v1"]


def test_the_text_is_kept_as_it_was_read_and_readable_by_owner_and_group_only(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    version = keep(archive, tmp_path / "policies")
    file = tmp_path / "archive" / f"{version}.zip"
    with zipfile.ZipFile(file) as opened:
        assert opened.read(f"policies/{tmp_path}/policies/p.yaml").decode() == POLICY.format(path="a")
    assert stat.S_IMODE(file.stat().st_mode) & ~0o640 == 0
    assert stat.S_IMODE(file.parent.stat().st_mode) & ~0o750 == 0


@pytest.mark.parametrize("version", ["", "x", "../../etc/passwd", "0123456789ab/../x", "0123456789AB", "0123456789ab"])
def test_what_is_not_kept_is_none_whatever_a_record_says(tmp_path: Path, version: str) -> None:
    (tmp_path / "archive").mkdir()
    assert Archive(tmp_path / "archive").snapshot(version) is None
    assert Archive(tmp_path / "none").versions() == {}


def test_the_versions_that_were_longest_out_of_force_go_first(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive", max_versions=2)
    first = keep(archive, tmp_path / "policies", "1")
    second = keep(archive, tmp_path / "policies", "2")
    for version, age in ((first, 100), (second, 50)):
        os.utime(tmp_path / "archive" / f"{version}.zip", (time.time() - age,) * 2)
    keep(archive, tmp_path / "policies", "1")  # in force again
    third = keep(archive, tmp_path / "policies", "3")
    assert set(archive.versions()) == {first, third}
    small = Archive(tmp_path / "archive", max_bytes=1)
    fourth = keep(small, tmp_path / "policies", "4")
    assert set(archive.versions()) == {fourth}


def test_what_a_killed_process_left_half_written_is_dropped_when_it_is_old(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    keep(archive, tmp_path / "policies", "1")
    old, young = (tmp_path / "archive" / f".{name}.part" for name in ("old", "young"))
    for file in (old, young):
        file.touch()
    os.utime(old, (time.time() - STALE_SECONDS - 1,) * 2)
    keep(archive, tmp_path / "policies", "2")
    assert (old.exists(), young.exists()) == (False, True)


def test_several_processes_may_write_the_same_versions(tmp_path: Path) -> None:
    folders = [tmp_path / f"policies-{at}" for at in range(4)]
    failed: list[BaseException] = []

    def write(folder: Path) -> None:
        try:
            for at in range(10):
                keep(Archive(tmp_path / "archive", max_versions=3), folder, str(at))
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=write, args=(folder,)) for folder in folders]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert failed == []
    assert 1 <= len(Archive(tmp_path / "archive").versions()) <= 3 + len(folders)
    assert [file.name for file in (tmp_path / "archive").iterdir() if file.suffix != ".zip"] == []


SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
JWT = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt, namespace: shop}}
spec:
  jwtRules:
  - issuer: i
    jwks: |
      {jwks}
"""


def test_secrets_of_inline_key_sets_are_blotted_out(tmp_path: Path) -> None:
    policies, archive = tmp_path / "policies", Archive(tmp_path / "archive")
    policies.mkdir()
    keys = {"keys": [{"kty": "oct", "alg": "HS256", "kid": "1", "k": SECRET}]}
    (policies / "jwt.yaml").write_text(JWT.format(jwks=json.dumps(keys)))
    version = keep(archive, policies)
    data = (tmp_path / "archive" / f"{version}.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "archive" / f"{version}.zip") as opened:
        texts = b"".join(opened.read(name) for name in opened.namelist())
    assert SECRET.encode() not in data + texts
    assert b'"kid": "1"' in texts
    assert archive.snapshot(version) is not None


def test_a_secret_that_is_not_found_in_the_text_keeps_the_set_out(tmp_path: Path) -> None:
    policies, archive = tmp_path / "policies", Archive(tmp_path / "archive")
    policies.mkdir()
    keys = json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "k": SECRET}]}).replace(SECRET, "\\u0063" + SECRET[1:])
    (policies / "jwt.yaml").write_text(JWT.format(jwks=keys))
    snapshot = load_snapshot(policies, None, 0.0)
    assert not archive.keep(snapshot.version, read_texts(policies, None), snapshot.resources)
    assert archive.versions() == {}


def test_what_is_kept_but_broken_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    version = keep(archive, tmp_path / "policies")
    file = tmp_path / "archive" / f"{version}.zip"
    file.write_bytes(b"no zip")
    with pytest.raises(OSError, match="no archived set of policies") as caught:
        archive.snapshot(version)
    assert caught.value.filename == str(file)
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("policies/p.yaml", "kind: Nonsense\n")
    with pytest.raises(LoadError):
        archive.snapshot(version)


def test_a_file_that_nobody_here_wrote_explains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another set under the version's name, one too large to be ours, one with damaged bytes."""
    archive = Archive(tmp_path / "archive")
    version, other = (keep(archive, tmp_path / "policies", path) for path in ("a", "b"))
    file = tmp_path / "archive" / f"{version}.zip"
    kept = file.read_bytes()
    file.write_bytes((tmp_path / "archive" / f"{other}.zip").read_bytes())
    with pytest.raises(OSError, match=f"another set of policies than {version}"):
        archive.snapshot(version)
    for at in range(30, len(kept), 7):
        file.write_bytes(kept[:at] + bytes([kept[at] ^ 0xFF]) + kept[at + 1 :])
        with contextlib.suppress(OSError, LoadError):
            found = archive.snapshot(version)
            assert found is not None, "an attribute that nobody reads"
            assert found.engine.version == version
    file.write_bytes(kept)
    monkeypatch.setattr("authz.service.loading.archive.MAX_BYTES", 10)
    with pytest.raises(OSError, match="no archived set of policies"):
        archive.snapshot(version)


def test_a_secret_that_is_a_word_of_a_policy_keeps_the_set_out(tmp_path: Path) -> None:
    """Blotted out, the policy would ask for another path."""
    folder, archive = tmp_path / "policies", Archive(tmp_path / "archive")
    folder.mkdir()
    (folder / "jwt.yaml").write_text(JWT.format(jwks='{"keys":[{"kty":"oct","k":"c2hvcHBpbmc"}]}'))
    (folder / "p.yaml").write_text(POLICY.format(path="c2hvcHBpbmc"))
    snapshot = load_snapshot(folder, None, 0.0)
    assert not archive.keep(snapshot.version, read_texts(folder, None), snapshot.resources)


async def test_every_set_that_comes_into_force_is_kept(tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    policies.mkdir()
    in_force: list[str] = []
    reloader = Reloader(
        policies, None, lambda snapshot: in_force.append(snapshot.version), lambda: 0.0, archive=tmp_path / "archive"
    )
    for path in ("a", "b", "a"):
        (policies / "p.yaml").write_text(POLICY.format(path=path))
        assert await reloader.load()
    (policies / "p.yaml").write_text("kind: Nonsense\n")
    assert not await reloader.load()
    assert set(Archive(tmp_path / "archive").versions()) == set(in_force)
    assert len(set(in_force)) == 2


async def test_an_archive_that_cannot_be_written_is_told_and_keeps_nothing_from_being_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "p.yaml").write_text(POLICY.format(path="a"))
    (tmp_path / "archive").write_text("a file")
    reloader = Reloader(policies, None, lambda snapshot: None, lambda: 0.0, archive=tmp_path / "archive")
    with caplog.at_level(logging.ERROR, "authz.reload"):
        assert await asyncio.wait_for(reloader.load(), 60)
    assert "is not kept in the archive" in caplog.text
    assert str(tmp_path / "archive") in caplog.text


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_file_that_is_packed_otherwise_than_ours_is_no_archive(tmp_path: Path, method: int) -> None:
    archive = Archive(tmp_path / "archive")
    version = keep(archive, tmp_path / "policies")
    file = tmp_path / "archive" / f"{version}.zip"
    with zipfile.ZipFile(file, "w", method) as opened:
        opened.writestr("policies/p.yaml", POLICY.format(path="a"))
    data = bytearray(file.read_bytes())
    data[60:64] = b"\xff" * 4
    file.write_bytes(data)
    with pytest.raises(OSError, match="no archived set"):
        archive.snapshot(version)


@pytest.mark.parametrize("member", ["r", "d", "t"])
def test_secrets_of_further_primes_are_blotted_out(tmp_path: Path, member: str) -> None:
    policies, archive = tmp_path / "policies", Archive(tmp_path / "archive")
    policies.mkdir()
    keys = {"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "oth": [{member: SECRET}]}]}
    (policies / "jwt.yaml").write_text(JWT.format(jwks=json.dumps(keys)))
    version = keep(archive, policies)
    with zipfile.ZipFile(tmp_path / "archive" / f"{version}.zip") as opened:
        assert SECRET.encode() not in b"".join(opened.read(name) for name in opened.namelist())

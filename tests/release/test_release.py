"""A release can be made again and checked by others: equal bytes, signed checksums, an SBOM."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import authz

ROOT = Path(authz.__file__).parent.parent


def tracked() -> list[str]:
    """The files of a checkout, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout")
    return [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def build(source: Path, out: Path, umask: int) -> bytes:
    """A wheel of a copy of the source elsewhere, with other times and modes."""
    before = os.umask(umask)
    try:
        for name in tracked():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "PYTHONHASHSEED": str(umask)}
        subprocess.run(command, cwd=source, env=environment, check=True, capture_output=True)
        (wheel,) = out.glob("*.whl")
        return wheel.read_bytes()
    finally:
        os.umask(before)


@pytest.mark.slow
def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    first = build(tmp_path / "one", tmp_path / "out-1", 0o022)
    second = build(tmp_path / "another", tmp_path / "out-2", 0o027)
    assert first == second


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private and a public key, made as the page says."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    private, public = tmp_path / "release.key", tmp_path / "release.pub"
    assert run("openssl", "genpkey", "-algorithm", "ed25519", "-out", private).returncode == 0
    assert run("openssl", "pkey", "-in", private, "-pubout", "-out", public).returncode == 0
    private.chmod(0o600)
    return private, public


def test_a_changed_file_or_list_is_not_verified(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    out = tmp_path / "dist"
    out.mkdir()
    (out / "authz-1.whl").write_bytes(b"wheel")
    (out / "sbom.cdx.json").write_bytes(b"{}")
    assert run(".ci/sign", out, private).returncode == 0
    assert run(".ci/verify", out, public).returncode == 0

    (out / "authz-1.whl").write_bytes(b"other")
    assert run(".ci/verify", out, public).returncode != 0
    sums = subprocess.run(
        ["sha256sum", "authz-1.whl", "sbom.cdx.json"], cwd=out, capture_output=True, check=True
    ).stdout
    (out / "SHA256SUMS").write_bytes(sums)  # whoever changed the file changes the list as well
    assert run(".ci/verify", out, public).returncode != 0


def test_another_key_does_not_verify(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    out = tmp_path / "dist"
    out.mkdir()
    (out / "a").write_bytes(b"a")
    assert run(".ci/sign", out, private).returncode == 0
    other = tmp_path / "other.key"
    run("openssl", "genpkey", "-algorithm", "ed25519", "-out", other)
    run("openssl", "pkey", "-in", other, "-pubout", "-out", public)
    assert run(".ci/verify", out, public).returncode != 0


def test_a_key_that_others_may_read_signs_nothing(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, _ = keys
    private.chmod(0o644)
    (tmp_path / "dist").mkdir()
    done = run(".ci/sign", tmp_path / "dist", private)
    assert done.returncode == 1
    assert "chmod 600" in done.stderr


def test_without_a_key_nothing_is_released(tmp_path: Path) -> None:
    done = run(".ci/release", Path(sys.executable).parent, tmp_path / "dist", "")
    assert done.returncode == 1
    assert "openssl genpkey" in done.stderr
    assert not (tmp_path / "dist").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    not (ROOT / ".release" / "bin" / "cyclonedx-py").exists(), reason="`make .release/.installed` first"
)
def test_a_release_is_complete_and_verifies(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    done = run(".ci/release", ROOT / ".release" / "bin", tmp_path / "dist", private)
    assert done.returncode == 0, done.stderr
    names = {path.name.rpartition("-py3")[0] or path.name for path in (tmp_path / "dist").iterdir()}
    assert {"sbom.cdx.json", "SHA256SUMS", "SHA256SUMS.sig"} < names
    assert run(".ci/verify", tmp_path / "dist", public).returncode == 0
    sbom = json.loads((tmp_path / "dist" / "sbom.cdx.json").read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    found = {one["name"] for one in sbom["components"]}
    assert {"grpcio", "cryptography", "pyyaml"} <= {name.lower() for name in found}

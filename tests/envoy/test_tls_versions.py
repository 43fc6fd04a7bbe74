"""TLS versions and ciphers between proxies, as openssl negotiates them with a real Envoy."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.core.resources import MtlsMode
from authz.envoy.options import RenderOptions
from authz.envoy.render import render_all
from authz.envoy.rendered_files import write_files
from authz.mesh.description import read_mesh_description
from tests.envoy.rig import Authority, CheckServer, envoys, free_ports
from tests.mesh.meshes import Ports, description

OPENSSL = shutil.which("openssl")
pytestmark = [
    pytest.mark.envoy,
    pytest.mark.slow,
    pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed"),
]
AES, CHACHA = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"


@contextlib.contextmanager
def running(state: Path, options: RenderOptions) -> Iterator[int]:
    """The sidecar of a server that is STRICT: the port on which it receives."""
    ports = Ports(*free_ports(12))
    mesh, problems = read_mesh_description([("mesh.yaml", description(ports))])
    assert problems == ()
    write_files(state, render_all(mesh, lambda _workload, _port: MtlsMode.STRICT, options))
    authority = Authority.new()
    for workload in mesh.workloads:
        authority.issue(state / "certs" / workload.name, str(workload.spiffe_id))
    authority.publish(state / "certs" / "roots" / "ca.crt")
    (state / "run").mkdir()
    with CheckServer().serving(f"unix:{state}/run/authz-0.sock"), envoys(state, "server-v1"):
        yield mesh.workload("server-v1").inbound[0].number


def negotiated(state: Path, port: int, *options: str) -> str:
    """Version and cipher, or ``refused``."""
    own = state / "certs" / "client-v1"
    assert OPENSSL is not None
    identity = ("-cert", str(own / "tls.crt"), "-key", str(own / "tls.key"))
    trust = ("-CAfile", str(state / "certs/roots/ca.crt"), "-verify_return_error")
    done = subprocess.run(
        [OPENSSL, "s_client", "-connect", f"127.0.0.1:{port}", "-brief", *identity, *trust, *options],
        capture_output=True,
        text=True,
        timeout=20,
        stdin=subprocess.DEVNULL,
    )
    lines = dict(line.split(": ", 1) for line in done.stderr.splitlines() if ": " in line)
    if lines.get("Verification") != "OK":
        return "refused" if "alert" in done.stderr else done.stderr
    return f"{lines['Protocol version']} {lines['Ciphersuite']}"


def test_nothing_below_1_3_unless_told_otherwise(tmp_path: Path) -> None:
    with running(tmp_path, RenderOptions(workers=1)) as port:
        assert negotiated(tmp_path, port, "-tls1_2") == "refused"
        assert negotiated(tmp_path, port).startswith("TLSv1.3 TLS_")


def test_1_2_with_chosen_ciphers_when_it_is_set(tmp_path: Path) -> None:
    options = RenderOptions(workers=1, tls_minimum="TLSv1_2", tls_ciphers=(CHACHA,))
    with running(tmp_path, options) as port:
        assert negotiated(tmp_path, port, "-tls1_2") == f"TLSv1.2 {CHACHA}"
        assert negotiated(tmp_path, port, "-tls1_2", "-cipher", AES) == "refused"
        assert negotiated(tmp_path, port, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0") == "refused"
        assert negotiated(tmp_path, port).startswith("TLSv1.3 TLS_")

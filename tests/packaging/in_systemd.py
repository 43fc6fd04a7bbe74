"""
``python tests/packaging/in_systemd.py DIR``: use the units as an operator would, under the systemd of ``boot.sh``.

Writes what it found to ``DIR/found.json``, and where it broke off to ``DIR/error``.
"""

import asyncio
import grp
import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc

from authz._proto import ext_authz_pb2 as pb
from tests.service.messages import check_request
from tests.service.running import check_call

ETC, CA = Path("/etc/authz"), Path("/var/lib/authz-ca/ca")
IDENTITY = "spiffe://cluster.local/ns/shop/sa/web"
POLICY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open, namespace: shop}
spec:
  rules:
  - to: [{operation: {paths: [/open]}}]
"""
SETTINGS = """\
policies: /etc/authz/policies
server: grpcio
audit: {sinks: ['file:/var/log/authz/audit.jsonl'], chain: 'on'}
drain_delay_seconds: 0.2
"""
RECORDER = """\
policies: /etc/authz/policies
access_logs: ['file:/var/log/envoy']
audit: ['file:/var/log/authz/recorded.jsonl']
"""


def run(*command: str, user: str = "") -> str:
    """Run a command to its end; RuntimeError with what it printed."""
    whole = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *command) if user else command
    done = subprocess.run(whole, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def start(unit: str, verb: str = "start") -> None:
    """RuntimeError when the unit failed."""
    run("systemctl", verb, unit)


def wait_for(path: Path) -> None:
    """Until a service has written a file; the caller fails where it never does."""
    deadline = time.monotonic() + 90
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def owner_and_mode(path: Path) -> str:
    found = path.stat()
    names = pwd.getpwuid(found.st_uid).pw_name, grp.getgrgid(found.st_gid).gr_name
    return f"{names[0]}:{names[1]} {stat.S_IMODE(found.st_mode):04o}"


async def decides(socket_path: str) -> list[int]:
    """gRPC codes of a request that is allowed and of one that is not."""
    async with grpc.aio.insecure_channel(f"unix:{socket_path}") as channel:
        ask = check_call(channel)
        answers = [pb.CheckResponse.FromString(await ask(check_request(path=path))) for path in ("/open", "/shut")]
    return [answer.status.code for answer in answers]


def enrolment(found: dict[str, Any]) -> None:
    """The authority, and a workload that comes with a token."""
    port, renewal = free_port(), free_port()
    (ETC / "ca.env").write_text(
        f"AUTHZ_CA_SERVE_ENROL=127.0.0.1:{port}\nAUTHZ_CA_SERVE_LISTEN=127.0.0.1:{renewal}\n", encoding="utf-8"
    )
    (ETC / "join.env").write_text(
        f"AUTHZ_CA_JOIN_SERVER=localhost:{port}\nAUTHZ_CA_JOIN_RENEW=localhost:{renewal}\n", encoding="utf-8"
    )
    (ETC / "entries.yaml").write_text("entries: []\n", encoding="utf-8")
    run("install", "-d", "-o", "authz-ca", "-g", "authz-ca", "-m", "700", str(CA.parent))
    run("/opt/authz/bin/authz", "ca", "init", "--ca", str(CA), "--trust-domain", "cluster.local", user="authz-ca")
    (ETC / "bundle.pem").write_text(
        run("/opt/authz/bin/authz", "ca", "bundle", "show", "--ca", str(CA), user="authz-ca"), encoding="utf-8"
    )
    start("authz-ca")
    told = run("/opt/authz/bin/authz", "ca", "token", "create", IDENTITY, "--ca", str(CA), user="authz-ca")
    token = ETC / "join-web.token"
    token.write_text(told, encoding="utf-8")
    token.chmod(0o400)
    shutil.chown(token, "web")
    start("authz-join@web")
    certificate = Path("/var/lib/authz-join/web/tls.crt")
    wait_for(certificate)
    told = run("/opt/authz/bin/authz", "ca", "verify", str(certificate), "--ca", str(CA))
    found["joined"] = IDENTITY in told
    found["key"] = owner_and_mode(certificate.with_name("tls.key"))
    token.unlink()
    start("authz-join@web", "restart")  # as it has a certificate, the token is not missed
    found["sds socket"] = owner_and_mode(Path("/run/authz-ca/sds.sock"))


def servers(found: dict[str, Any]) -> None:
    """Two servers, one replaced after the other, while the record stays one chain."""
    (ETC / "policies").mkdir()
    (ETC / "policies" / "open.yaml").write_text(POLICY, encoding="utf-8")
    (ETC / "authz.yaml").write_text(SETTINGS, encoding="utf-8")
    for index in (0, 1):
        start(f"authz@{index}")
    found["socket"] = owner_and_mode(Path("/run/authz/authz-0.sock"))
    found["decided"] = [asyncio.run(decides(f"/run/authz/authz-{index}.sock")) for index in (0, 1)]
    for index in (0, 1):
        start(f"authz@{index}", "restart")
    found["decided after"] = [asyncio.run(decides(f"/run/authz/authz-{index}.sock")) for index in (0, 1)]
    start("authz@0", "stop")
    found["other socket stays"] = Path("/run/authz/authz-1.sock").exists()
    start("authz@1", "stop")
    run("/opt/authz/bin/authz", "audit", "verify", "/var/log/authz/audit.jsonl")
    found["record"] = owner_and_mode(Path("/var/log/authz/audit.jsonl"))


def rendering(found: dict[str, Any]) -> None:
    """Envoys' files, written and kept current."""
    shutil.copy("envoy-configs/mesh.yaml", ETC / "mesh.yaml")
    shutil.copytree("envoy-configs/login", ETC / "login")  # what the demo's issuer said about itself
    start("authz-render")
    written = Path("/var/lib/authz/mesh/envoy/ingressgateway.yaml")
    wait_for(written)
    found["rendered"] = owner_and_mode(written)
    start("authz-render", "stop")


def recording(found: dict[str, Any]) -> None:
    """A recorder, which gives way to the proxies: its sandbox must let it."""
    run("install", "-d", "-g", "envoy", "-m", "2770", "/var/log/envoy")
    (ETC / "authz-record.yaml").write_text(RECORDER, encoding="utf-8")
    start("authz-record")
    pid = run("systemctl", "show", "--value", "-p", "MainPID", "authz-record").strip()
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not found.get("gives way"):
        with suppress(OSError):
            tasks = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
            found["gives way"] = os.SCHED_IDLE in map(os.sched_getscheduler, tasks)
        time.sleep(0.05)
    start("authz-record", "stop")
    found["positions"] = owner_and_mode(Path("/var/log/envoy/.authz-positions.json"))


def main(folder: Path) -> None:
    found: dict[str, Any] = {}
    try:
        enrolment(found)
        servers(found)
        rendering(found)
        recording(found)
        found["active"] = {unit: run("systemctl", "is-active", unit).strip() for unit in ("authz-ca", "authz-join@web")}
        found["failed"] = run("systemctl", "list-units", "--failed", "--plain", "--no-legend")
        found["seccomp"] = seccomp_of("authz-ca")
    except Exception:
        (folder / "error").write_text(traceback.format_exc(), encoding="utf-8")
        os._exit(1)
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")


def seccomp_of(unit: str) -> str:
    """``2``: the kernel filters the process's system calls (proc(5))."""
    pid = run("systemctl", "show", "--value", "-p", "MainPID", unit).strip()
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(line.split()[1] for line in lines if line.startswith("Seccomp:"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

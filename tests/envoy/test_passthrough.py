"""TLS through the egress gateway unopened, on a real Envoy: the name decides, and nothing leaves before it did."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.envoy.options import Authz, Listeners, RenderOptions
from authz.envoy.render import render_all
from authz.envoy.rendered_files import write_files
from authz.mesh.description import read_mesh_description
from tests.envoy.rig import ALLOW, DENY, Application, Authority, CheckServer, Proxy, application, envoys, free_ports
from tests.mesh.meshes import Ports, description
from tests.yaml_text import read_yaml

KNOWN, OTHER = "known.example.com", "localhost"
QUERIES = "dns_cache.outside.dns_query_attempt"


@dataclass
class Gateway:
    """The gateway alone, and a host outside that goes by both names."""

    port: int
    roots: Path
    checks: CheckServer
    outside: Application
    proxy: Proxy


def everywhere(node: Any, port: int) -> Any:
    """Let names without a ServiceEntry lead to this machine and to ``port``: a test has no other outside."""
    if isinstance(node, list):
        return [everywhere(item, port) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: everywhere(value, port) for key, value in node.items() if key != "resolved_address_filter"}
    return kept | {"port_value": port} if "dns_cache_config" in kept and "port_value" in kept else kept


@pytest.fixture(scope="module", params=["as rendered", "with this machine outside"])
def running(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    state, ports = tmp_path_factory.mktemp("through"), Ports(*free_ports(12))
    mesh, problems = read_mesh_description([("mesh.yaml", description(ports))])
    assert problems == ()
    files = render_all(mesh)
    if request.param != "as rendered":
        for name in ("envoy/egress.yaml", "cds/egress.yaml", "lds/egress.yaml"):
            files[name] = yaml.safe_dump(everywhere(read_yaml(files[name]), ports.outside)).encode()
    write_files(state, files)
    authority, outside = Authority.new(), Authority.new()
    authority.issue(state / "certs" / "egress", str(mesh.workload("egress").spiffe_id))
    authority.publish(state / "certs" / "roots" / "ca.crt")
    outside.issue(state / "known", KNOWN)
    roots = state / "certs" / "outside" / "ca.crt"
    outside.publish(roots)
    (state / "run").mkdir()
    with (
        CheckServer().serving(f"unix:{state}/run/authz-0.sock") as checks,
        application(ports.outside, state / "known") as known,
        envoys(state, "egress") as proxies,
    ):
        yield Gateway(ports.through, roots, checks, known, proxies["egress"])


@pytest.fixture
def gateway(running: Gateway) -> Gateway:
    """The gateway with a check server that allows and remembers nothing."""
    running.checks.answer = ALLOW
    running.checks.asked.clear()
    running.outside.paths.clear()
    return running


def ask(gateway: Gateway, name: str | None) -> bytes:
    """The status line that came through TLS with the outside; empty when the connection was ended before."""
    context = ssl.create_default_context(cafile=gateway.roots)
    context.check_hostname = name == KNOWN
    try:
        with (
            socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname=name) as tls,
        ):
            tls.sendall(b"GET /through HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            return tls.makefile("rb").readline()
    except TimeoutError:
        raise
    except OSError:
        return b""


@pytest.mark.envoy
def test_an_allowed_name_reaches_the_host_and_its_own_certificate_the_client(gateway: Gateway) -> None:
    assert ask(gateway, KNOWN) == b"HTTP/1.1 200 OK\r\n"
    assert gateway.outside.paths == ["/through"]
    (asked,) = gateway.checks.asked
    assert f"b\x13\n\x11{KNOWN}".encode() in asked  # tls_session.sni (XA-36)
    assert b"istio-system" in asked
    assert b"spiffe://" not in asked  # no identity: the TLS is not ours


@pytest.mark.envoy
@pytest.mark.parametrize("name", [KNOWN, OTHER, "news.example", None])
def test_a_refused_name_is_told_to_nobody(gateway: Gateway, name: str | None) -> None:
    """Not even to the DNS."""
    before = gateway.proxy.stat(QUERIES), gateway.proxy.stat("dns.cares.resolve_total")
    gateway.checks.answer = DENY
    assert ask(gateway, name) == b""
    assert len(gateway.checks.asked) == 1
    assert gateway.outside.paths == []
    assert (gateway.proxy.stat(QUERIES), gateway.proxy.stat("dns.cares.resolve_total")) == before


@pytest.mark.envoy
def test_any_allowed_name_is_found_by_dns_but_not_at_private_addresses(
    gateway: Gateway, request: pytest.FixtureRequest
) -> None:
    """The first connection to a name, too: nothing is dialled before its address is there."""
    is_outside = "with this machine outside" in request.node.name
    for _ in range(3):
        assert ask(gateway, OTHER) == (b"HTTP/1.1 200 OK\r\n" if is_outside else b"")
    assert len(gateway.checks.asked) == 3
    assert gateway.outside.paths == ["/through"] * (3 if is_outside else 0)


@pytest.mark.envoy
def test_without_a_name_there_is_no_way_even_if_everything_is_allowed(gateway: Gateway) -> None:
    assert ask(gateway, None) == b""
    assert len(gateway.checks.asked) == 1
    assert gateway.outside.paths == []


@pytest.mark.envoy
def test_plaintext_is_ended_without_a_check(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nhost: known.example.com\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert raw.recv(1) == b""
    assert gateway.checks.asked == []


@pytest.mark.envoy
def test_without_an_authorization_server_nothing_passes(tmp_path: Path) -> None:
    ports = Ports(*free_ports(12))
    mesh, _ = read_mesh_description([("mesh.yaml", description(ports))])
    write_files(tmp_path, render_all(mesh))
    authority = Authority.new()
    authority.issue(tmp_path / "certs" / "egress", str(mesh.workload("egress").spiffe_id))
    for name in ("roots", "outside"):
        authority.publish(tmp_path / "certs" / name / "ca.crt")
    authority.issue(tmp_path / "known", KNOWN)
    with application(ports.outside, tmp_path / "known") as known, envoys(tmp_path, "egress") as proxies:
        gateway = Gateway(ports.through, tmp_path / "certs/outside/ca.crt", CheckServer(), known, proxies["egress"])
        assert ask(gateway, KNOWN) == b""
        assert known.paths == []


@pytest.mark.parametrize("options", [RenderOptions(), RenderOptions(Authz.EMBEDDED, listeners=Listeners.STATIC)])
def test_both_ways_are_checked_and_bytes_wait_for_the_answer(options: RenderOptions) -> None:
    """XA-164, XA-165."""
    mesh, _ = read_mesh_description([("mesh.yaml", description(Ports()))])
    files = render_all(mesh, options=options)
    bootstrap = read_yaml(files["envoy/egress.yaml"])
    listeners = bootstrap["static_resources"].get("listeners", [])
    if options.listeners is Listeners.DYNAMIC:
        listeners = read_yaml(files["lds/egress.yaml"])["resources"]
    by_name = {listener["name"]: listener for listener in listeners}
    chains = by_name["egress_15023"]["filter_chains"]
    assert [chain["filter_chain_match"] for chain in chains] == [
        {"transport_protocol": "tls", "server_names": [KNOWN]},
        {"transport_protocol": "tls"},
    ]
    for chain, cluster in zip(chains, ("tunnel|443||known.example.com", "outside-any-by-name"), strict=True):
        check, proxy = (one["typed_config"] for one in chain["filters"])
        assert check["@type"].endswith("network.ext_authz.v3.ExtAuthz")
        assert check["include_tls_session"] is True
        assert (proxy["cluster"], proxy["upstream_connect_mode"]) == (cluster, "ON_DOWNSTREAM_DATA")
    assert "address" not in by_name["outside-any-by-name"]
    assert [one["name"] for one in bootstrap["bootstrap_extensions"]] == ["envoy.bootstrap.internal_listener"]
    assert "bootstrap_extensions" not in read_yaml(files["envoy/ingress.yaml"])

"""DestinationRules of hosts outside: what the egress gateway says to them, and what it shows."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.core.resources import MtlsMode
from authz.envoy.render import permissive, render_all
from authz.envoy.rendered_files import write_files
from authz.envoy.tls_conflicts import tls_conflicts
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh, MeshWorkload
from tests.envoy.rig import Application, Authority, CheckServer, envoys, free_ports, get
from tests.mesh.meshes import Ports, description

OWN = "  trafficPolicy: {tls: {mode: SIMPLE, caCertificates: certs/outside/ca.crt}}"


def described(rule: str, ports: Ports = Ports()) -> Mesh:  # noqa: B008  # a frozen value
    """The small mesh, whose known host outside has this rule."""
    text = description(ports).decode()
    assert OWN in text
    mesh, problems = read_mesh_description([("mesh.yaml", text.replace(OWN, rule).encode())])
    assert problems == ()
    return mesh


def cluster(mesh: Mesh, name: str) -> Any:
    found = yaml.safe_load(render_all(mesh)["cds/egress.yaml"])["resources"]
    return next(one for one in found if one["name"] == name)


def test_disable_is_plaintext_whatever_the_port_is() -> None:
    made = cluster(described("  trafficPolicy: {tls: {mode: DISABLE}}"), "outbound|443||known.example.com")
    assert "transport_socket" not in made


def test_a_subset_and_a_port_have_tls_of_their_own() -> None:
    rule = """
  trafficPolicy: {tls: {mode: DISABLE}}
  subsets:
  - name: old
    trafficPolicy:
      portLevelSettings:
      - port: {number: 443}
        tls: {mode: SIMPLE, sni: old.example.com, subjectAltNames: [a], caCertificates: certs/outside/ca.crt}
"""
    mesh = described(rule)
    assert "transport_socket" not in cluster(mesh, "outbound|443||known.example.com")
    made = cluster(mesh, "outbound|443|old|known.example.com")
    assert made["transport_socket"]["typed_config"]["sni"] == "old.example.com"
    options = made["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]
    assert options["upstream_http_protocol_options"] == {}, "the names are those of the rule, not of the request"


def test_a_named_credential_is_followed_below_certs() -> None:
    files = render_all(described("  trafficPolicy: {tls: {mode: MUTUAL, credentialName: partner}}"))
    (pair,) = yaml.safe_load(files["sds/partner.yaml"])["resources"]
    assert pair["tls_certificate"]["private_key"] == {"filename": "certs/partner/tls.key"}
    (roots,) = yaml.safe_load(files["sds/partner-cacert.yaml"])["resources"]
    assert roots["validation_context"]["trusted_ca"] == {"filename": "certs/partner/ca.crt"}


def test_the_proxy_protocol_wraps_tls() -> None:
    rule = "  trafficPolicy: {tls: {mode: SIMPLE}, proxyProtocol: {version: V2}}"
    made = cluster(described(rule), "outbound|443||known.example.com")
    config = made["transport_socket"]["typed_config"]
    assert config["config"] == {"version": "V2"}
    assert config["transport_socket"]["name"] == "envoy.transport_sockets.tls"


def test_an_upgrade_speaks_http2_to_the_host() -> None:
    rule = "  trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}"
    made = cluster(described(rule), "outbound|443||known.example.com")
    options = made["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]
    assert "http2_protocol_options" in options["explicit_http_config"]
    assert made["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"] == ["h2"]


@pytest.mark.parametrize(("tls", "refusing"), [("DISABLE", MtlsMode.STRICT), ("ISTIO_MUTUAL", MtlsMode.DISABLE)])
def test_whoever_cannot_meet_is_named(tls: str, refusing: MtlsMode) -> None:
    head = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r, namespace: app}"
    rule = f"{OWN}\n---\n{head}\n"
    mesh = described(rule + f"spec: {{host: server, trafficPolicy: {{tls: {{mode: {tls}}}}}}}")

    def mode_of(_workload: MeshWorkload, _port: int) -> MtlsMode:
        return refusing

    assert tls_conflicts(mesh, permissive) == ()
    (first, second) = tls_conflicts(mesh, mode_of)
    assert f"DestinationRule app/r says `{tls}` to `server-v1` at port 15011" in first
    assert "15012" in second


@contextmanager
def demanding(port: int, certificate: Path, clients: Path) -> Iterator[Application]:
    """An application that demands a certificate of its clients."""
    server = Application(port)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "tls.crt", certificate / "tls.key")
    context.load_verify_locations(clients)
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()


@pytest.mark.envoy
@pytest.mark.slow
def test_a_host_outside_sees_the_certificate_that_the_rule_names(tmp_path: Path) -> None:
    ports = Ports(*free_ports(12))
    files = "clientCertificate: certs/us/tls.crt, privateKey: certs/us/tls.key, caCertificates: certs/outside/ca.crt"
    mesh = described(f"  trafficPolicy: {{tls: {{mode: MUTUAL, {files}}}}}", ports)
    write_files(tmp_path, render_all(mesh))
    authority, outside = Authority.new(), Authority.new()
    for workload in mesh.workloads:
        authority.issue(tmp_path / "certs" / workload.name, str(workload.spiffe_id))
    authority.publish(tmp_path / "certs" / "roots" / "ca.crt")
    outside.issue(tmp_path / "known", "known.example.com")
    outside.issue(tmp_path / "certs" / "us", "we.example.com")
    outside.publish(tmp_path / "certs" / "outside" / "ca.crt")
    (tmp_path / "run").mkdir()
    with (
        CheckServer().serving(f"unix:{tmp_path}/run/authz-0.sock"),
        demanding(ports.outside, tmp_path / "known", tmp_path / "certs" / "outside" / "ca.crt") as app,
        envoys(tmp_path, "client-v1", "egress"),
    ):
        assert get(ports.out_known, "/hello") == (200, "hello")
        assert app.paths == ["/hello"]

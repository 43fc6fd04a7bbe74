"""DestinationRules of hosts outside: what the egress gateway says to them, and what it shows."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from authz.core.resources import MtlsMode
from authz.envoy.render import permissive, render_all
from authz.envoy.rendered_files import write_files
from authz.envoy.tls_conflicts import tls_conflicts
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh, MeshWorkload
from tests.envoy.rig import Application, Authority, CheckServer, application, envoys, free_ports, get
from tests.mesh.meshes import Ports, description
from tests.yaml_text import read_yaml

OWN = "  trafficPolicy: {tls: {mode: SIMPLE, caCertificates: certs/outside/ca.crt}}"


def described(rule: str, ports: Ports = Ports()) -> Mesh:  # noqa: B008  # a frozen value
    """The small mesh, whose known host outside has this rule."""
    text = description(ports).decode()
    assert OWN in text
    mesh, problems = read_mesh_description([("mesh.yaml", text.replace(OWN, rule).encode())])
    assert problems == ()
    return mesh


def cluster(mesh: Mesh, name: str) -> Any:
    found = read_yaml(render_all(mesh)["cds/egress.yaml"])["resources"]
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
    (pair,) = read_yaml(files["sds/partner.yaml"])["resources"]
    assert pair["tls_certificate"]["private_key"] == {"filename": "certs/partner/tls.key"}
    (roots,) = read_yaml(files["sds/partner-cacert.yaml"])["resources"]
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


SEVERAL = """
  ports:
  - {number: 443, name: https, protocol: HTTPS}
  - {number: 80, name: http, protocol: HTTP, targetPort: 8443}
  - {number: 8080, name: other, protocol: HTTP}
  - {number: 6379, name: bytes, protocol: TCP}
"""


def several_ports() -> Mesh:
    """The small mesh, whose known host has four ports, with settings for one of them."""
    text = description(Ports()).decode()
    text = text.replace("\n  ports: [{number: 443, name: https, protocol: HTTPS}]\n", SEVERAL)
    text = text.replace(", ports: {https: 19022}", "").replace("number: 15003,", "number: 8080,")
    level = "portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE, sni: other.example.com}}]"
    mesh, problems = read_mesh_description([("mesh.yaml", text.replace(OWN, f"  trafficPolicy: {{{level}}}").encode())])
    assert problems == (), [str(problem) for problem in problems]
    return mesh


def test_every_port_of_a_host_outside_has_a_cluster_of_its_own() -> None:
    mesh = several_ports()
    http = cluster(mesh, "outbound|443||known.example.com")
    assert "sni" not in http["transport_socket"]["typed_config"]
    originated = cluster(mesh, "outbound|80||known.example.com")
    assert originated["transport_socket"]["typed_config"]["sni"] == "other.example.com"
    assert "transport_socket" not in cluster(mesh, "outbound|8080||known.example.com")
    files = render_all(mesh)
    (made,) = read_yaml(files["eds/known.example.com_80.yaml"])["resources"]
    assert made["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"] == 8443
    tunnels = [one["name"] for one in read_yaml(files["cds/egress.yaml"])["resources"] if "tunnel" in one["name"]]
    assert [name.split("|")[1] for name in tunnels if "|" in name] == ["443", "80", "8080", "6379"]


def test_a_sidecar_names_the_port_by_which_the_egress_gateway_chooses() -> None:
    files = render_all(several_ports())
    (table,) = read_yaml(files["rds/client-v1.outbound_8080.yaml"])["resources"]
    (route,) = table["virtual_hosts"][0]["routes"]
    assert route["route"]["host_rewrite_literal"] == "known.example.com:8080"
    listener = read_yaml(files["lds/egress.yaml"])["resources"][0]
    http = listener["filter_chains"][0]["filters"][-1]["typed_config"]["route_config"]
    known = next(one for one in http["virtual_hosts"] if one["name"] == "known.example.com")
    ways = {
        (suffixes[0] if suffixes else "", "connect_matcher" in one["match"]): one["route"]["cluster"].split("||")[0]
        for one in known["routes"]
        for suffixes in [[header["string_match"]["suffix"] for header in one["match"].get("headers", ())]]
    }
    assert ways == {
        (":80", True): "tunnel|80",
        (":80", False): "outbound|80",
        (":8080", True): "tunnel|8080",
        (":8080", False): "outbound|8080",
        (":6379", True): "tunnel|6379",
        ("", True): "tunnel|443",
        ("", False): "outbound|443",
    }
    rewritten = [one["route"].get("host_rewrite_literal") for one in known["routes"] if one["name"] == "outside-80"]
    assert rewritten == ["known.example.com"], "what goes without saying is not said to the host"


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


@pytest.mark.envoy
@pytest.mark.slow
def test_the_second_port_of_a_host_is_reached_and_policies_see_it(tmp_path: Path) -> None:
    ports = Ports(*free_ports(12))
    one = "ports: [{number: 443, name: https, protocol: HTTPS}"
    second = f", {{number: {ports.out_known}, name: b, protocol: HTTP}}]"
    level = "  trafficPolicy: {portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE}}]}"
    text = description(ports).decode().replace(f"{one}]", one + second).replace(OWN, level)
    text = text.replace(f"ports: {{https: {ports.outside}}}", f"ports: {{https: 1, b: {ports.outside}}}")
    mesh, problems = read_mesh_description([("mesh.yaml", text.encode())])
    assert problems == ()
    write_files(tmp_path, render_all(mesh))
    authority = Authority.new()
    for workload in mesh.workloads:
        authority.issue(tmp_path / "certs" / workload.name, str(workload.spiffe_id))
    authority.publish(tmp_path / "certs" / "roots" / "ca.crt")
    (tmp_path / "run").mkdir()
    host = f"known.example.com:{ports.out_known}"
    with (
        CheckServer().serving(f"unix:{tmp_path}/run/authz-0.sock") as checks,
        application(ports.outside) as app,
        envoys(tmp_path, "client-v1", "egress"),
    ):
        assert get(ports.out_known, "/by-port") == (200, "hello")
        assert get(ports.out_any, "/by-proxy", host=host) == (200, "hello")
        assert (app.paths, {one["host"] for one in app.headers}) == (["/by-port", "/by-proxy"], {host})
        assert all(host.encode() in asked for asked in checks.asked)

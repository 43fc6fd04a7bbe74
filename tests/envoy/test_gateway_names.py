"""Servers of one gateway port: what one demands of clients is not got round by the TLS of another."""

import pytest

from authz.envoy.render import render_all
from authz.envoy.virtual_hosts import server_virtual_hosts
from authz.mesh.description import read_mesh_description
from authz.mesh.gateway_server import GatewayServer
from authz.mesh.nouns import Mesh
from tests.mesh.test_description import BOOKINFO

OPEN = """    tls: {mode: SIMPLE, credentialName: bookinfo-web, minProtocolVersion: TLSV1_2}
"""
MORE = """  - port: {number: 15443, name: closed, protocol: HTTPS}
    hosts: [HOSTS]
    tls: {mode: MODE, credentialName: closed}
"""
ROUTES = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: closed, namespace: bookinfo}
spec:
  hosts: [a.closed.example]
  gateways: [istio-system/bookinfo-gateway]
  http: [{route: [{destination: {host: ratings.bookinfo.svc.cluster.local}}]}]
"""


def described(mode: str, hosts: str, own: str = '"*"') -> tuple[Mesh, dict[str, GatewayServer]]:
    _HEAD, _, tail = BOOKINFO.read_text().partition("    mesh.authz/login")
    text = _HEAD.removesuffix("  annotations:\n") + "spec:" + tail.partition("\nspec:")[2]
    text = text.replace(OPEN, OPEN + MORE.replace("MODE", mode).replace("HOSTS", hosts))
    text = text.replace('hosts: ["*"]\n    tls: {mode: SIMPLE', f"hosts: [{own}]\n    tls: {{mode: SIMPLE")
    mesh, problems = read_mesh_description([("mesh.yaml", (text + ROUTES).encode())])
    assert not any(problem.is_error for problem in problems), [str(problem) for problem in problems]
    return mesh, {server.name: server for server in mesh.workload("ingressgateway").servers}


def answers(mesh: Mesh, server: GatewayServer) -> dict[str, list[int]]:
    """Hosts of a server's table, with the statuses that are answered at once there."""
    found = server_virtual_hosts(mesh, mesh.workload("ingressgateway"), [server])
    return {
        domain: [route.direct_response.status for route in host.routes if route.direct_response]
        for host in found
        for domain in host.domains
    }


@pytest.mark.parametrize("hosts", ["a.closed.example", '"*.closed.example"', "A.Closed.Example"])
def test_hosts_of_a_server_that_demands_a_certificate_are_not_reached_by_another_ones_tls(hosts: str) -> None:
    mesh, servers = described("MUTUAL", hosts)
    assert answers(mesh, servers["https"]) == {"*": [], hosts.strip('"').lower(): [421]}
    assert answers(mesh, servers["closed"])["a.closed.example"] == []
    assert any(name.startswith("rds/ingressgateway.") for name in render_all(mesh))


@pytest.mark.parametrize("mode", ["SIMPLE", "OPTIONAL_MUTUAL"])
def test_other_hosts_are_shared_as_in_istio(mode: str) -> None:
    mesh, servers = described(mode, "a.closed.example")
    assert answers(mesh, servers["https"]) == {"*": [], "a.closed.example": []}


def test_a_host_that_fits_better_stays_with_its_server() -> None:
    mesh, servers = described("MUTUAL", '"*.closed.example"', '"*", a.closed.example')
    assert answers(mesh, servers["https"]) == {"*": [], "a.closed.example": [], "*.closed.example": [421]}

"""Istio's tasks about egress gateways: routes lead to a gateway of one's own, and from there outside."""

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import pytest

from authz.core.errors import Problem, Severity
from authz.envoy.render import render_all
from authz.envoy.rendered_files import write_files
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh
from tests.envoy.rig import ALLOW, DENY, Application, Authority, CheckServer, application, envoys, free_ports, get
from tests.yaml_text import read_yaml

DATA = read_yaml((Path(__file__).parents[1] / "mesh" / "istio_egress.yaml").read_text())
NAMES = ("gateway_http", "gateway_tls", "out_http", "out_tls", "outside_http", "outside_tls", "unwritten")
PORTS = {name: 21000 + i for i, name in enumerate(NAMES)}
HOST = "shop.example.com"
GATEWAY = "istio-egressgateway.istio-system.svc.cluster.local"


def described(way: str, ports: dict[str, int] = PORTS, more: str = "") -> tuple[Mesh, tuple[Problem, ...]]:
    chosen = DATA["ways"][way]
    text = Template(DATA["mesh"] + chosen["documents"]).substitute(ports, to_gateway=chosen["to_gateway"])
    return read_mesh_description([("mesh.yaml", (text + more).encode())])


def rendered(way: str) -> dict[str, Any]:
    mesh, problems = described(way)
    assert [problem for problem in problems if problem.severity is Severity.ERROR] == []
    return {name: read_yaml(content) for name, content in render_all(mesh).items() if name.endswith(".yaml")}


def clusters(files: dict[str, Any], proxy: str) -> dict[str, Any]:
    return {one["name"]: one for one in files[f"cds/{proxy}.yaml"]["resources"]}


def test_requests_lead_to_the_gateway_and_from_there_to_the_port_of_its_route() -> None:
    files = rendered("http")
    ((route,),) = [one["routes"] for one in files["rds/client.outbound_21002.yaml"]["resources"][0]["virtual_hosts"]]
    assert route["route"]["cluster"] == f"outbound|80|shop|{GATEWAY}"
    assert route["route"]["host_rewrite_literal"] == HOST
    ((route,),) = [one["routes"] for one in files["rds/leaving.ingress_21000.yaml"]["resources"][0]["virtual_hosts"]]
    assert route["route"]["cluster"] == f"outbound|80||{HOST}"
    assert "transport_socket" not in clusters(files, "leaving")[f"outbound|80||{HOST}"]
    (endpoints,) = files[f"eds/{GATEWAY}_80.yaml"]["resources"]
    (found,) = endpoints["endpoints"][0]["lb_endpoints"]
    assert found["endpoint"]["address"]["socket_address"]["port_value"] == PORTS["gateway_http"]
    assert found["metadata"]["filter_metadata"] == {"envoy.transport_socket_match": {"tlsMode": "disabled"}}


def test_a_mutual_server_with_routes_takes_the_mesh_and_originates_tls() -> None:
    files = rendered("origination")
    (listener,) = files["lds/leaving.yaml"]["resources"]
    (chain,) = listener["filter_chains"]
    assert chain["filter_chain_match"] == {"server_names": [HOST]}
    assert chain["transport_socket"]["typed_config"]["require_client_certificate"] is True
    sent = clusters(files, "client")[f"outbound|80|shop|{GATEWAY}"]["transport_socket"]["typed_config"]
    assert sent["sni"] == HOST
    outside = clusters(files, "leaving")[f"outbound|443||{HOST}"]["transport_socket"]
    assert outside["name"] == "envoy.transport_sockets.tls"


def test_an_unopened_connection_leads_by_its_name_to_the_host_outside() -> None:
    files = rendered("passthrough")
    listener = next(one for one in files["lds/client.yaml"]["resources"] if one["name"] == "outbound_21003")
    (chain,) = listener["filter_chains"]
    assert chain["filter_chain_match"] == {"server_names": [HOST]}
    assert chain["filters"][-1]["typed_config"]["cluster"] == f"outbound|443|shop|{GATEWAY}"
    (listener,) = files["lds/leaving.yaml"]["resources"]
    (chain,) = listener["filter_chains"]
    assert [one["name"].rsplit(".", 1)[-1] for one in chain["filters"]] == ["ext_authz", "tcp_proxy"]
    assert chain["filters"][-1]["typed_config"]["cluster"] == f"tunnel|443||{HOST}"


WAYS_THAT_ARE_NOT_THERE = [
    ("http", "port: 80}]", "port: 81}]", "ME-4", "there is none"),
    ("passthrough", "gateways: [mesh], port: 443", "gateways: [mesh], port: 444", "ME-6", "bytes do not leave"),
    ("http", "{host: shop.example.com, port", "{host: shop.example.com, subset: old, port", "ME-4", "the subset `old`"),
]


@pytest.mark.parametrize(("way", "old", "new", "code", "words"), WAYS_THAT_ARE_NOT_THERE)
def test_what_would_leave_without_a_way_is_named(
    way: str, old: str, new: str, code: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert old in DATA["ways"][way]["documents"]
    changed = {**DATA["ways"][way], "documents": DATA["ways"][way]["documents"].replace(old, new)}
    monkeypatch.setitem(DATA["ways"], way, changed)
    found = [problem for problem in described(way)[1] if problem.severity is Severity.ERROR]
    assert [(problem.code, words in problem.message) for problem in found] == [(code, True)], found


def test_a_server_for_every_host_stays_one_when_others_of_its_gateway_have_routes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servers = "- {port: {number: $gateway_http, name: http, protocol: HTTP}, hosts: [shop.example.com]}"
    assert servers in DATA["ways"]["http"]["documents"]
    any_host = '- {port: {number: $gateway_tls, name: any, protocol: HTTPS}, hosts: ["*"], tls: {mode: ISTIO_MUTUAL}}'
    documents = DATA["ways"]["http"]["documents"].replace(servers, f"{servers}\n  {any_host}")
    monkeypatch.setitem(DATA["ways"], "http", {**DATA["ways"]["http"], "documents": documents})
    mesh, problems = described("http")
    assert [problem for problem in problems if problem.severity is Severity.ERROR] == []
    assert mesh.egress_gateway is not None
    assert [(server.port, server.is_egress) for server in mesh.egress_gateway.servers] == [
        (PORTS["gateway_http"], False),
        (PORTS["gateway_tls"], True),
    ]


@dataclass
class Running:
    """The client and the gateway of one way out, and the host outside."""

    way: str
    ports: dict[str, int]
    state: Path
    checks: CheckServer
    plain: Application
    tls: Application


@pytest.fixture(scope="module", params=list(DATA["ways"]))
def running(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Running]:
    state, ports = tmp_path_factory.mktemp("egress"), dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
    mesh, _ = described(request.param, ports)
    files = render_all(mesh)
    files["lds/client.yaml"] = files["lds/client.yaml"].replace(b": 15001\n", f": {ports['unwritten']}\n".encode())
    write_files(state, files)
    authority, outside = Authority.new(), Authority.new()
    for workload in mesh.workloads:
        authority.issue(state / "certs" / workload.name, str(workload.spiffe_id))
    authority.publish(state / "certs" / "roots" / "ca.crt")
    outside.issue(state / "outside", HOST)
    outside.publish(state / "certs" / "outside" / "ca.crt")
    (state / "run").mkdir()
    with (
        CheckServer().serving(f"unix:{state}/run/authz-0.sock") as checks,
        application(ports["outside_http"]) as plain,
        application(ports["outside_tls"], state / "outside") as tls,
        envoys(state, "client", "leaving"),
    ):
        yield Running(request.param, ports, state, checks, plain, tls)


def by_tls(running: Running) -> tuple[int, str]:
    """One GET by TLS of the application's own."""
    context = ssl.create_default_context(cafile=str(running.state / "certs" / "outside" / "ca.crt"))
    try:
        with (
            socket.create_connection(("127.0.0.1", running.ports["out_tls"]), 5) as plain,
            context.wrap_socket(plain, server_hostname=HOST) as secure,
        ):
            secure.sendall(f"GET /by-tls HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: secure.recv(4096), b""))
    except OSError as error:
        return 0, type(error).__name__
    return int(answer.split()[1]), answer.rpartition(b"\r\n\r\n")[2].decode()


@pytest.mark.envoy
@pytest.mark.slow
def test_the_policies_of_the_gateway_decide_about_what_leaves(running: Running) -> None:
    outside = running.plain if running.way == "http" else running.tls
    for answer, status in ((ALLOW, 200), (DENY, 403)):
        running.checks.answer = answer
        running.checks.asked.clear()
        outside.paths.clear()
        if running.way == "passthrough":
            assert by_tls(running)[0] == (200 if answer == ALLOW else 0)
            assert outside.paths == (["/by-tls"] if answer == ALLOW else [])
        else:
            assert get(running.ports["out_http"], "/a")[0] == status
            assert get(running.ports["unwritten"], "/b", host=HOST)[0] == status
            assert get(running.ports["unwritten"], "/c", host=f"{HOST}:80")[0] == status
            assert outside.paths == (["/a", "/b", "/c"] if answer == ALLOW else [])
        assert all(HOST.encode() in asked for asked in running.checks.asked)
        assert len(running.checks.asked) == (1 if running.way == "passthrough" else 3)
        principal = b"spiffe://cluster.local/ns/default/sa/client"
        assert all((principal in asked) is (running.way == "origination") for asked in running.checks.asked)
    assert get(running.ports["unwritten"], host="elsewhere.example.com")[0] == 502

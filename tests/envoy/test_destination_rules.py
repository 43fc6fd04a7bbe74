"""DestinationRules on real Envoys: subsets, secure naming within them, bounds, ejection, hashes, places, TLS."""

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.core.resources import MtlsMode
from authz.envoy.hashing import hash_policies
from authz.envoy.messages import as_json
from authz.envoy.render import render_all
from authz.envoy.rendered_files import write_files
from authz.mesh.description import read_mesh_description
from tests.envoy.rig import Authority, CheckServer, Proxy, envoys, eventually, free_ports, get
from tests.yaml_text import read_yaml

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

HOST = "server.app.svc.cluster.local"
WORKLOADS = {"one": ("v1", "north/a/1"), "two": ("v2", "south/a/1"), "three": ("v3", "south/a/1")}
"""By name: version and place. The last of them has a certificate of somebody else."""
_WORKLOAD = """
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}, namespace: app}}
spec:
  address: 127.0.0.1
  serviceAccount: {account}
  labels: {labels}
  locality: {place}
  ports: {ports}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {name}, namespace: app}}
spec:
  workloadSelector: {{labels: {{name: {name}}}}}
  {listeners}
"""
_SERVICE = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: server, namespace: app}}
spec:
  hosts: [{HOST}]
  location: MESH_INTERNAL
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  workloadSelector: {{labels: {{app: server}}}}
"""


class Named(http.server.ThreadingHTTPServer):
    """Answers with its name; with 500 while it is broken; on ``/wait`` not before it is let go."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.is_broken, self.go, self.waiting = name, False, threading.Event(), threading.Semaphore(0)
        super().__init__(("127.0.0.1", port), _Answer)


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, Named)
        if self.path == "/wait":
            self.server.waiting.release()
            self.server.go.wait(20)
        self.send_response(500 if self.server.is_broken else 200)
        self.send_header("content-length", str(len(self.server.name)))
        self.end_headers()
        self.wfile.write(self.server.name.encode())

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@dataclass
class Running:
    """A client's sidecar and three servers'; ``rule`` gives the client another DestinationRule and another route."""

    state: Path
    port: int
    text: str
    proxies: dict[str, Proxy]
    apps: dict[str, Named] = field(default_factory=dict)
    mode: MtlsMode = MtlsMode.PERMISSIVE

    def rule(self, spec: dict[str, Any], subset: str = "", *, mode: MtlsMode = MtlsMode.PERMISSIVE) -> None:
        rule: dict[str, Any] = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule"}
        rule |= {"metadata": {"name": "server", "namespace": "app"}, "spec": {"host": "server", **spec}}
        text = f"{self.text}\n---\n{yaml.safe_dump(rule)}"
        mesh, problems = read_mesh_description([("mesh.yaml", text.encode())])
        assert not any(one.is_error for one in problems)
        files = render_all(mesh, lambda _workload, _port: mode)
        hashes = hash_policies(mesh, mesh.workload("client"), HOST, subset, 80)
        name = f"rds/client.outbound_{self.port}.yaml"
        routes = read_yaml(files[name])
        for route in routes["resources"][0]["virtual_hosts"][0]["routes"]:
            route["route"]["cluster"] = f"outbound|80|{subset}|{HOST}"
            route["route"]["hash_policy"] = [as_json(one) for one in hashes]
        routes["resources"][0]["virtual_hosts"][0]["name"] = f"v{time.monotonic_ns()}"  # a change in any case
        files[name] = json.dumps(routes).encode()
        client = self.proxies["client"]
        clusters, routed = client.stat(_CLUSTERS), client.stat(_ROUTES.format(port=self.port))
        written = write_files(self.state, files)
        assert name in written
        if "cds/client.yaml" in written:
            client.wait_for_stat(_CLUSTERS, clusters + 1)
            eventually(lambda: client.stat("cluster_manager.warming_clusters") == 0)
        client.wait_for_stat(_ROUTES.format(port=self.port), routed + 1)

    def answers(self, count: int, **headers: str) -> list[str]:
        return [self.answer(**headers) for _ in range(count)]

    def answer(self, path: str = "/", **headers: str) -> str:
        status, body = get(self.port, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        return body if status == 200 else str(status)


_CLUSTERS = "cluster_manager.cds.update_success"
_ROUTES = "http.outbound_{port}.rds.outbound_{port}.update_success"


def _description(ports: list[int]) -> str:
    text = _SERVICE
    for i, (name, (version, place)) in enumerate(WORKLOADS.items()):
        listener = f"{{port: {{number: {ports[2 * i]}, protocol: HTTP, name: http}}"
        text += _WORKLOAD.format(
            name=name,
            account="server" if name != "three" else "third",
            labels=json.dumps({"app": "server", "version": version, "name": name, "fit": str(name != "three")}),
            place=place,
            ports=f"{{http: {ports[2 * i]}}}",
            listeners=f'ingress: [{listener}, defaultEndpoint: "127.0.0.1:{ports[2 * i + 1]}"}}]',
        )
    return text + _WORKLOAD.format(
        name="client",
        account="client",
        labels=json.dumps({"app": "client", "name": "client"}),
        place="north/a/1",
        ports="{}",
        listeners=f"egress: [{{port: {{number: {ports[6]}, protocol: HTTP, name: server}}, hosts: [./{HOST}]}}]",
    )


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    state, ports = tmp_path_factory.mktemp("rules"), free_ports(7)
    text = _description(ports)
    described, problems = read_mesh_description([("mesh.yaml", text.encode())])
    assert problems == ()
    write_files(state, render_all(described))
    authority = Authority.new()
    for workload in described.workloads:
        wrong = str(workload.spiffe_id).replace("/third", "/somebody")
        authority.issue(state / "certs" / workload.name, wrong)
    authority.publish(state / "certs" / "roots" / "ca.crt")
    (state / "run").mkdir()
    with contextlib.ExitStack() as stack:
        stack.enter_context(CheckServer().serving(f"unix:{state}/run/authz-0.sock"))
        apps = {name: Named(name, ports[2 * i + 1]) for i, name in enumerate(WORKLOADS)}
        for app in apps.values():
            stack.enter_context(app)
            thread = threading.Thread(target=app.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            thread.start()
            stack.callback(app.shutdown)
        proxies = stack.enter_context(envoys(state, "client", *WORKLOADS))
        yield Running(state, ports[6], text, proxies, apps)


SUBSETS = [{"name": version, "labels": {"version": version}} for version, _ in WORKLOADS.values()]

FIT = {"fit": "True"}
"""Labels of those with the right identity."""


def test_a_subset_is_its_workloads_alone(mesh: Running) -> None:
    for name, (version, _) in list(WORKLOADS.items())[:2]:
        mesh.rule({"subsets": SUBSETS}, version)
        assert set(mesh.answers(6)) == {name}


def test_whoever_has_the_wrong_identity_in_a_subset_is_refused(mesh: Running) -> None:
    mesh.rule({"subsets": SUBSETS}, "v3")
    assert set(mesh.answers(3)) == {"503"}
    assert mesh.proxies["client"].stat(f"cluster.outbound|80|v3|{HOST}.ssl.fail_verify_san") > 0


def test_a_subset_that_nobody_is_in_answers_503(mesh: Running) -> None:
    mesh.rule({"subsets": [{"name": "none", "labels": {"version": "v9"}}]}, "none")
    assert mesh.answer() == "503"


def test_requests_beyond_the_bound_are_answered_503_at_once(mesh: Running) -> None:
    pool = {"http": {"http2MaxRequests": 1, "http1MaxPendingRequests": 1}}
    mesh.rule({"subsets": [{**SUBSETS[0], "trafficPolicy": {"connectionPool": pool}}]}, "v1")
    app = mesh.apps["one"]
    app.go.clear()
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(mesh.answer, "/wait")
        assert app.waiting.acquire(timeout=10)
        others = [threads.submit(mesh.answer, "/wait") for _ in range(3)]
        assert [other.result(10) for other in others] == ["503"] * 3
        app.go.set()
        assert first.result(10) == "one"


def test_an_endpoint_that_fails_is_left_out_for_a_while(mesh: Running) -> None:
    outlier = {"consecutive5xxErrors": 2, "interval": "0.2s", "baseEjectionTime": "60s", "maxEjectionPercent": 100}
    balancing = {"simple": "ROUND_ROBIN", "localityLbSetting": {"enabled": False}}
    both = {"name": "both", "labels": FIT}
    policy = {"outlierDetection": outlier, "loadBalancer": balancing}
    mesh.rule({"subsets": [{**both, "trafficPolicy": policy}]}, "both")
    eventually(lambda: {"one", "two"} <= set(mesh.answers(9)))
    mesh.apps["two"].is_broken = True
    try:
        eventually(lambda: set(mesh.answers(6)) == {"one"})
    finally:
        mesh.apps["two"].is_broken = False


def test_the_same_key_leads_to_the_same_endpoint(mesh: Running) -> None:
    balancing = {"consistentHash": {"httpHeaderName": "x-user"}}
    good = [{"name": "good", "labels": FIT, "trafficPolicy": {"loadBalancer": balancing}}]
    mesh.rule({"subsets": good}, "good")
    chosen = {user: set(mesh.answers(5, x_user=user)) for user in map(str, range(12))}
    assert all(len(names) == 1 for names in chosen.values())
    assert set.union(*chosen.values()) >= {"one", "two"}


def test_who_is_near_answers_until_it_fails(mesh: Running) -> None:
    outlier = {"consecutive5xxErrors": 2, "interval": "0.2s", "baseEjectionTime": "60s", "maxEjectionPercent": 100}
    policy = {"outlierDetection": outlier, "loadBalancer": {"localityLbSetting": {"enabled": True}}}
    pair = [{"name": "near", "labels": FIT, "trafficPolicy": policy}]
    mesh.rule({"subsets": pair}, "near")
    assert (mesh.state / "eds" / f"client~{HOST}_80_near.yaml").is_file()
    assert set(mesh.answers(9)) == {"one"}
    mesh.apps["one"].is_broken = True
    try:
        eventually(lambda: set(mesh.answers(6)) == {"two"})
    finally:
        mesh.apps["one"].is_broken = False


def test_places_have_their_shares(mesh: Running) -> None:
    shares = {"distribute": [{"from": "north/*", "to": {"south/*": 100}}]}
    policy = {"loadBalancer": {"localityLbSetting": shares}}
    far = {"name": "far", "labels": {"version": "v2"}, "trafficPolicy": policy}
    mesh.rule({"subsets": [far]}, "far")
    assert set(mesh.answers(9)) == {"two"}


def test_warmup_is_accepted(mesh: Running) -> None:
    balancing = {"simple": "ROUND_ROBIN", "warmup": {"duration": "10s", "minimumPercent": 20, "aggression": 1.5}}
    mesh.rule({"trafficPolicy": {"loadBalancer": balancing}, "subsets": SUBSETS}, "v1")
    assert mesh.answer() == "one"


@pytest.mark.parametrize(("mode", "wanted"), [(MtlsMode.PERMISSIVE, "two"), (MtlsMode.STRICT, "503")])
def test_plaintext_is_spoken_where_a_rule_says_so_and_refused_where_mtls_is_strict(
    mesh: Running, mode: MtlsMode, wanted: str
) -> None:
    mesh.rule({"subsets": SUBSETS, "trafficPolicy": {"tls": {"mode": "DISABLE"}}}, "v2", mode=mode)
    eventually(lambda: mesh.answer() == wanted)


def test_a_certificate_of_the_mesh_by_its_files_is_as_good_as_the_sidecars_own(mesh: Running) -> None:
    files = {"clientCertificate": "certs/client/tls.crt", "privateKey": "certs/client/tls.key"}
    tls = {"mode": "MUTUAL", **files, "caCertificates": "certs/roots/ca.crt"}
    mesh.rule({"subsets": SUBSETS, "trafficPolicy": {"tls": tls}}, "v2", mode=MtlsMode.STRICT)
    eventually(lambda: mesh.answer() == "two")
    mesh.rule({"subsets": SUBSETS, "trafficPolicy": {"tls": tls}}, "v3", mode=MtlsMode.STRICT)
    assert mesh.answer() == "503"

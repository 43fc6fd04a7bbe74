"""VirtualServices on real Envoys: a sidecar that calls, one that receives for several services, and a gateway."""

import collections
import contextlib
import http.client
import http.server
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import pytest

from authz.core.resources import MtlsMode
from authz.envoy.render import render_all, render_changing
from authz.envoy.rendered_files import write_files
from authz.mesh.description import read_mesh_description
from authz.mesh.route_following import OutgoingRequest, follow
from tests.envoy.rig import ALLOW, DENY, Authority, CheckServer, Proxy, envoys, eventually, free_ports

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

DESCRIPTION = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: client, namespace: shop}
spec: {address: 127.0.0.1, serviceAccount: client, labels: {app: client, version: v1}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: server, namespace: shop}
spec:
  address: 127.0.0.1
  serviceAccount: server
  labels: {app: server}
  ports: {one: $in_one, two: $in_two, raw: $in_raw}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: ingress, namespace: shop}
spec: {address: 127.0.0.1, serviceAccount: ingress, labels: {istio: ingress}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: client, namespace: shop}
spec:
  workloadSelector: {labels: {app: client}}
  egress:
  - {port: {number: $out, protocol: HTTP, name: one}, hosts: [./one.shop.svc.cluster.local]}
  - {port: {number: $out_raw, protocol: TLS, name: raw}, hosts: [./raw.shop.svc.cluster.local]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: server, namespace: shop}
spec:
  workloadSelector: {labels: {app: server}}
  ingress:
  - {port: {number: $in_one, protocol: HTTP, name: one}, defaultEndpoint: "127.0.0.1:$app_one"}
  - {port: {number: $in_two, protocol: HTTP, name: two}, defaultEndpoint: "127.0.0.1:$app_two"}
  - {port: {number: $in_raw, protocol: TLS, name: raw}, defaultEndpoint: "127.0.0.1:$app_raw"}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: one, namespace: shop}
spec:
  hosts: [one.shop.svc.cluster.local]
  location: MESH_INTERNAL
  ports: [{number: 80, name: one, protocol: HTTP}]
  workloadSelector: {labels: {app: server}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: two, namespace: shop}
spec:
  hosts: [two.shop.svc.cluster.local]
  location: MESH_INTERNAL
  ports: [{number: 80, name: two, protocol: HTTP}]
  workloadSelector: {labels: {app: server}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: raw, namespace: shop}
spec:
  hosts: [raw.shop.svc.cluster.local]
  location: MESH_INTERNAL
  ports: [{number: 443, name: raw, protocol: TLS}]
  workloadSelector: {labels: {app: server}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web, namespace: shop}
spec:
  selector: {istio: ingress}
  servers: [{port: {number: $ingress, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: names, namespace: shop}
spec:
  hosts: [raw.shop.svc.cluster.local, "*.raw.example"]
  tls: [{match: [{sniHosts: [a.raw.example], port: 443}], route: [{destination: {host: raw}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: traffic, namespace: shop}
spec: $spec
"""
NAMES = ("out", "out_raw", "in_one", "in_two", "in_raw", "app_one", "app_two", "app_raw", "ingress")
TO_ONE = "[{destination: {host: one}}]"
TO_TWO = "[{destination: {host: two}}]"


class Version(http.server.ThreadingHTTPServer):
    """Answers with its name; ``/fail/N/…`` 503 to the first N requests; ``/hang`` when it is let go."""

    daemon_threads = True

    def __init__(self, port: int, name: str) -> None:
        self.name = name
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.failures: collections.Counter[str] = collections.Counter()
        self.let_go = threading.Event()
        super().__init__(("127.0.0.1", port), _Answer)


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Version)
        server.seen.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
        status = 200
        if self.path.startswith("/fail/"):
            server.failures[self.path] += 1
            status = 503 if server.failures[self.path] <= int(self.path.split("/")[2]) else 200
        if self.path == "/hang":
            server.let_go.wait(20)
        self.send_response(status)
        self.send_header("content-length", str(len(server.name)))
        self.send_header("x-from", server.name)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(server.name.encode())

    do_OPTIONS = do_GET
    do_POST = do_GET

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@dataclass
class Traffic:
    """The mesh while it runs; ``follow`` gives it other routes without a restart."""

    ports: dict[str, int]
    state: Path
    checks: CheckServer
    one: Version
    two: Version
    proxies: dict[str, Proxy]
    rendered: int = 0
    http: dict[str, str] = field(default_factory=dict)

    def follow(self, spec: str) -> None:
        """Render, rename into place, and wait until both proxies have it."""
        if self.http.get("spec") == spec:
            return
        marks = {"client": f"http.outbound_{self.ports['out']}.rds.outbound_{self.ports['out']}.update_success"}
        marks["ingress"] = f"http.ingress_{self.ports['ingress']}.rds.ingress_{self.ports['ingress']}.update_success"
        before = {name: self.proxies[name].stat(mark) for name, mark in marks.items()}
        files = render_changing(mesh_of(self.ports, spec), lambda _workload, _port: MtlsMode.STRICT)
        changed = {name for name, data in files.items() if (self.state / name).read_bytes() != data}
        write_files(self.state, {name: data for name, data in files.items() if name in changed})
        for name, mark in marks.items():
            if any(file.startswith(f"rds/{name}.") for file in changed):
                self.proxies[name].wait_for_stat(mark, before[name] + 1)
        self.http["spec"] = spec
        for version in (self.one, self.two):
            version.seen.clear()

    def ask(self, path: str = "/", *, port: str = "out", method: str = "GET", **headers: str) -> "Answer":
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=15)
        try:
            named = {key.replace("_", "-"): value for key, value in headers.items()}
            connection.request(method, path, headers=named)
            response = connection.getresponse()
            lower = {key.lower(): value for key, value in response.getheaders()}
            return Answer(response.status, response.read().decode(), lower)
        finally:
            connection.close()


@dataclass
class Answer:
    status: int
    body: str
    headers: dict[str, str]


def mesh_of(ports: dict[str, int], spec: str):  # type: ignore[no-untyped-def]  # a Mesh
    text = Template(DESCRIPTION).substitute(ports, spec=spec)
    mesh, problems = read_mesh_description([("mesh.yaml", text.encode())])
    assert not any(one.is_error for one in problems), [str(problem) for problem in problems]
    return mesh


def sidecars(http_routes: str) -> str:
    return f"{{hosts: [one, gateway.example], gateways: [mesh, web], http: {http_routes}}}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    state, ports = tmp_path_factory.mktemp("traffic"), dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
    mesh = mesh_of(ports, sidecars(f"[{{route: {TO_ONE}}}]"))
    write_files(state, render_all(mesh, lambda _workload, _port: MtlsMode.STRICT))
    authority = Authority.new()
    for workload in mesh.workloads:
        authority.issue(state / "certs" / workload.name, str(workload.spiffe_id))
    authority.publish(state / "certs" / "roots" / "ca.crt")
    (state / "run").mkdir()
    with contextlib.ExitStack() as stack:
        checks = stack.enter_context(CheckServer().serving(f"unix:{state}/run/authz-0.sock"))
        one, two = Version(ports["app_one"], "one"), Version(ports["app_two"], "two")
        for version in (one, two):
            stack.enter_context(version)
            threading.Thread(target=version.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            stack.callback(version.shutdown)
            stack.callback(version.let_go.set)
        proxies = stack.enter_context(envoys(state, "client", "server", "ingress"))
        yield Traffic(ports, state, checks, one, two, proxies)


@pytest.fixture
def traffic(running: Traffic) -> Traffic:
    running.checks.answer = ALLOW
    running.checks.asked.clear()
    for version in (running.one, running.two):
        version.seen.clear()
        version.failures.clear()
        version.let_go.clear()
    return running


MATCHES = f"""[
  {{match: [{{uri: {{exact: /exact}}}}, {{uri: {{prefix: /Low}}, ignoreUriCase: true}}], route: {TO_TWO}}},
  {{match: [{{uri: {{regex: '/v[0-9]+'}}}}], route: {TO_TWO}}},
  {{match: [{{headers: {{end-user: {{exact: jason}}}}, withoutHeaders: {{x-not: {{}}}}}}], route: {TO_TWO}}},
  {{match: [{{queryParams: {{q: {{prefix: two}}}}}}], route: {TO_TWO}}},
  {{match: [{{method: {{exact: POST}}, scheme: {{exact: http}}}}], route: {TO_TWO}}},
  {{match: [{{authority: {{exact: one.shop.svc.cluster.local}}, uri: {{prefix: /authority}}}}], route: {TO_TWO}}},
  {{match: [{{authority: {{regex: 'o.e[.]other'}}}}], route: {TO_TWO}}},
  {{match: [{{sourceLabels: {{app: other}}}}, {{port: 81}}, {{sourceNamespace: other}}], route: {TO_TWO}}},
  {{match: [{{uri: {{prefix: /first}}}}], route: {TO_TWO}}},
  {{match: [{{uri: {{prefix: /first/second}}}}], route: {TO_ONE}}},
  {{route: {TO_ONE}}}
]"""


@pytest.mark.parametrize(
    ("path", "headers", "method", "wanted"),
    [
        ("/", {}, "GET", "one"),
        ("/exact", {}, "GET", "two"),
        ("/exact/", {}, "GET", "one"),
        ("/exact?x", {}, "GET", "two"),
        ("/lOW/x", {}, "GET", "two"),
        ("/v12", {}, "GET", "two"),
        ("/v12/x", {}, "GET", "one"),
        ("/", {"end_user": "jason"}, "GET", "two"),
        ("/", {"end_user": "jason", "x_not": "1"}, "GET", "one"),
        ("/", {"end_user": "jasonx"}, "GET", "one"),
        ("/?q=two2", {}, "GET", "two"),
        ("/?q=one", {}, "GET", "one"),
        ("/", {}, "POST", "two"),
        ("/authority", {}, "GET", "two"),
        ("/authority", {"Host": "one.other"}, "GET", "two"),
        ("/", {"Host": "one.other"}, "GET", "one"),
        ("/first/second", {}, "GET", "two"),
    ],
)
def test_the_first_match_decides(
    traffic: Traffic, path: str, headers: dict[str, str], method: str, wanted: str
) -> None:
    traffic.follow(sidecars(MATCHES))
    answer = traffic.ask(path, method=method, **headers)
    assert (answer.status, answer.body) == (200, wanted)
    mesh = mesh_of(traffic.ports, sidecars(MATCHES))
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items() if name != "Host")
    sent = OutgoingRequest(method, headers.get("Host", ""), path, headers=named)
    followed = follow(mesh, mesh.workload("client"), mesh.service("one.shop.svc.cluster.local"), 80, sent)
    assert [end.destination.host for end in followed.ends] == [f"{wanted}.shop.svc.cluster.local"]


def test_the_application_behind_a_sidecar_sees_the_services_host(traffic: Traffic) -> None:
    traffic.follow(sidecars(MATCHES))
    traffic.ask("/exact")
    assert traffic.two.seen[0][1]["host"] == "one.shop.svc.cluster.local"


def test_weights_are_shares(traffic: Traffic) -> None:
    weighted = "[{destination: {host: one}, weight: 80}, {destination: {host: two}, weight: 20}]"
    traffic.follow(sidecars(f"[{{route: {weighted}}}]"))
    count = 800
    connection = http.client.HTTPConnection("127.0.0.1", traffic.ports["out"], timeout=5)
    found: collections.Counter[str] = collections.Counter()
    for _ in range(count):
        connection.request("GET", "/")
        found[connection.getresponse().read().decode()] += 1
    connection.close()
    # Five standard deviations of the binomial distribution: wrong once in two million runs.
    bound = 5 * (count * 0.2 * 0.8) ** 0.5
    assert abs(found["two"] - count * 0.2) < bound
    assert found["one"] + found["two"] == count


def test_uris_and_hosts_are_rewritten_before_the_destination_judges(traffic: Traffic) -> None:
    traffic.follow(
        sidecars(
            f"""[
            {{match: [{{uri: {{prefix: /old/}}}}], rewrite: {{uri: /new/, authority: new.example}},
              route: {TO_ONE}}},
            {{rewrite: {{uriRegexRewrite: {{match: '^/a/([^/]+)/(.*)$',
              rewrite: '/\\2/of/\\1'}}}}, route: {TO_ONE}}}]"""
        )
    )
    assert traffic.ask("/old/x?y=z").status == 200
    assert traffic.ask("/a/b/c").status == 200
    (first, headers), (second, _) = traffic.one.seen
    assert (first, headers["host"], second) == ("/new/x?y=z", "new.example", "/c/of/b")
    asked = traffic.checks.asked[0]
    assert b"/new/x?y=z" in asked
    assert b"new.example" in asked


def test_redirects_and_direct_responses_are_answered_at_once(traffic: Traffic) -> None:
    traffic.follow(
        sidecars(
            """[
            {match: [{uri: {exact: /a}}], redirect: {uri: /b, authority: other.example, redirectCode: 307}},
            {match: [{uri: {prefix: /c}}], redirect: {prefixRewrite: /d, scheme: https, port: 8443}},
            {directResponse: {status: 418, body: {string: teapot}}, headers: {response: {set: {x-short: stout}}}}]"""
        )
    )
    answer = traffic.ask("/a")
    assert (answer.status, answer.headers["location"]) == (307, "http://other.example/b")
    answer = traffic.ask("/c/e?f", Host="shop.example")
    assert (answer.status, answer.headers["location"]) == (301, "https://shop.example:8443/d/e?f")
    answer = traffic.ask("/z")
    assert (answer.status, answer.body, answer.headers["x-short"]) == (418, "teapot", "stout")
    assert traffic.checks.asked == []


def test_a_timeout_ends_what_hangs(traffic: Traffic) -> None:
    traffic.follow(sidecars(f"[{{timeout: 200ms, route: {TO_ONE}}}]"))
    assert traffic.ask("/hang").status == 504


def test_retries_hide_what_fails_a_few_times(traffic: Traffic) -> None:
    traffic.follow(sidecars(f"[{{retries: {{attempts: 2, retryOn: '503', backoff: 1ms}}, route: {TO_ONE}}}]"))
    assert traffic.ask("/fail/2/x").status == 200
    assert traffic.one.failures["/fail/2/x"] == 3
    assert traffic.ask("/fail/3/x").status == 503


def test_without_retries_nothing_that_reached_a_server_is_tried_again(traffic: Traffic) -> None:
    traffic.follow(sidecars(f"[{{route: {TO_ONE}}}]"))
    assert traffic.ask("/fail/1/y").status == 503
    assert traffic.one.failures["/fail/1/y"] == 1


def test_faults_delay_and_abort(traffic: Traffic) -> None:
    traffic.follow(
        sidecars(
            f"""[
            {{match: [{{uri: {{prefix: /abort}}}}], route: {TO_ONE},
              fault: {{abort: {{httpStatus: 418, percentage: {{value: 100}}}}}}}},
            {{match: [{{uri: {{prefix: /none}}}}], fault: {{abort: {{httpStatus: 418}}}}, route: {TO_ONE}}},
            {{fault: {{delay: {{fixedDelay: 300ms, percentage: {{value: 100}}}}}}, route: {TO_ONE}}}]"""
        )
    )
    assert traffic.ask("/abort").status == 418
    assert traffic.one.seen == []
    assert traffic.ask("/none").status == 200
    start = time.monotonic()
    assert traffic.ask("/late").status == 200
    assert time.monotonic() - start >= 0.3


def test_a_share_of_requests_is_aborted(traffic: Traffic) -> None:
    fault = "{abort: {httpStatus: 555, percentage: {value: 30}}}"
    traffic.follow(sidecars(f"[{{fault: {fault}, route: {TO_ONE}}}]"))
    count = 400
    aborted = sum(traffic.ask("/").status == 555 for _ in range(count))
    assert abs(aborted - count * 0.3) < 5 * (count * 0.3 * 0.7) ** 0.5


def test_a_mirror_gets_a_copy_and_its_answer_is_not_waited_for(traffic: Traffic) -> None:
    traffic.follow(sidecars(f"[{{route: {TO_ONE}, mirror: {{host: two}}}}]"))
    assert traffic.ask("/copied").body == "one"
    eventually(lambda: traffic.two.seen, 5.0)
    path, headers = traffic.two.seen[0]
    assert (path, headers["host"]) == ("/copied", "one.shop.svc.cluster.local")


def test_headers_are_set_added_and_removed(traffic: Traffic) -> None:
    request = "{set: {x-set: a}, add: {x-add: b}, remove: [x-gone]}"
    changes = f"{{request: {request}, response: {{set: {{x-answer: c}}, remove: [x-from]}}}}"
    to_one = "[{destination: {host: one}, headers: {request: {set: {x-v: v1}}}}]"
    traffic.follow(sidecars(f"[{{headers: {changes}, route: {to_one}}}]"))
    answer = traffic.ask("/", x_set="old", x_gone="here")
    headers = traffic.one.seen[0][1]
    assert (headers["x-set"], headers["x-add"], headers["x-v"], headers.get("x-gone")) == ("a", "b", "v1", None)
    assert (answer.headers["x-answer"], answer.headers.get("x-from")) == ("c", None)


def test_cors_answers_preflights_and_names_allowed_origins(traffic: Traffic) -> None:
    policy = "{allowOrigins: [{exact: 'https://a.example'}], allowMethods: [POST], allowHeaders: [x-a], maxAge: 60s}"
    traffic.follow(sidecars(f"[{{corsPolicy: {policy}, route: {TO_ONE}}}]"))
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    preflight = traffic.ask("/", method="OPTIONS", **asked)
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-methods"] == "POST"
    assert preflight.headers["access-control-max-age"] == "60"
    assert traffic.one.seen == []
    assert traffic.ask("/", Origin="https://a.example").headers["access-control-allow-origin"] == "https://a.example"
    assert "access-control-allow-origin" not in traffic.ask("/", Origin="https://b.example").headers


def test_a_gateways_policies_see_the_request_as_it_came(traffic: Traffic) -> None:
    traffic.follow(
        sidecars(f"[{{match: [{{gateways: [web]}}], rewrite: {{uri: /inside}}, route: {TO_TWO}}}, {{route: {TO_ONE}}}]")
    )
    assert traffic.ask("/", port="ingress", Host="gateway.example").body == "two"
    assert traffic.ask("/").body == "one"
    assert traffic.two.seen[0][0] == "/inside"
    assert b"/inside" not in traffic.checks.asked[0]
    assert any(b"/inside" in asked for asked in traffic.checks.asked[1:])


def test_a_gateway_checks_before_it_injects_faults_or_answers_itself(traffic: Traffic) -> None:
    fault = "{abort: {httpStatus: 418, percentage: {value: 100}}}"
    traffic.follow(
        sidecars(f"[{{match: [{{uri: {{prefix: /f}}}}], fault: {fault}, route: {TO_ONE}}}, {{route: {TO_ONE}}}]")
    )
    traffic.checks.answer = DENY
    assert traffic.ask("/f", port="ingress", Host="gateway.example").status == 403
    traffic.checks.answer = ALLOW
    assert traffic.ask("/f", port="ingress", Host="gateway.example").status == 418


def test_what_no_route_matches_is_answered_404(traffic: Traffic) -> None:
    traffic.follow(sidecars(f"[{{match: [{{uri: {{prefix: /only}}}}], route: {TO_ONE}}}]"))
    assert (traffic.ask("/only").status, traffic.ask("/other").status) == (200, 404)


def said_to(listening: socket.socket, port: int, name: str) -> bytes | None:
    """What arrives at the application when a client begins TLS for ``name``; None where the connection is closed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(outgoing.read())
        ends = [client, listening]
        ready, _, _ = select.select(ends, [], [], 10)
        assert ready, "neither closed nor connected"
        if client in ready:
            return None
        accepted, _ = listening.accept()
        with accepted:
            accepted.settimeout(10)
            return accepted.recv(65536)


def test_a_server_name_leads_where_its_tls_route_says_and_others_nowhere(traffic: Traffic) -> None:
    with socket.create_server(("127.0.0.1", traffic.ports["app_raw"])) as listening:
        begun = said_to(listening, traffic.ports["out_raw"], "a.raw.example")
        assert begun is not None
        assert begun.startswith(b"\x16\x03")
        assert b"a.raw.example" in begun
        assert said_to(listening, traffic.ports["out_raw"], "b.raw.example") is None

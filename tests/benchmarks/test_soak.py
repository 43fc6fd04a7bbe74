"""That the soak notices what it is there to notice."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.soak import Issuer, Sample, Soak, kinds, slope, summary, table
from benchmarks.steady import Kind, Told, bin_of, mixed, percentile, together

BEGAN = 1_800_000_000.0
ROOT = Path(__file__).parents[2]


def run_of(minutes: float, *, growth: float = 0.0, **changes: object) -> Soak:
    """A run in which nothing is wrong but ``changes``, and memory grows by some MB an hour."""
    found = Soak(BEGAN, "envoy", 1)
    for second in range(0, round(minutes * 60), 10):
        found.told.append(Told(BEGAN + second, 100, bins={bin_of(0.001): 99, bin_of(0.1): 1}, answers={"allowed": 100}))
        size = {"authz": 100 + growth * second / 3600, "envoy": 20.0}
        found.samples.append(Sample(BEGAN + second, size, size, {"authz": 5, "envoy": 6}, {"authz": 7, "envoy": 8}))
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def test_percentiles_are_right_within_a_bin() -> None:
    bins = together({bin_of(ms / 1e3): 1} for ms in range(1, 1001))
    assert percentile(bins, 0.5) == pytest.approx(500, rel=0.02)
    assert percentile(bins, 0.999) == pytest.approx(999, rel=0.02)


def test_the_slope_is_by_hour() -> None:
    assert slope([(second, 5 + second / 360) for second in range(0, 100, 10)]) == pytest.approx(10)
    assert slope([(0.0, 1.0)]) == 0


def test_a_run_without_fault_has_no_problem_and_its_parts() -> None:
    found = summary(run_of(12, growth=5), 12, 30.0)
    assert found["problems"] == []
    assert found["growth"] == pytest.approx(5)
    assert [row["minute"] for row in found["parts"]] == [0, 5, 10]
    assert found["parts"][0]["p50"] == pytest.approx(1, rel=0.02)
    assert found["parts"][0]["p99.9"] == pytest.approx(100, rel=0.02)
    assert "nothing wrong" in table(found)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"told": [Told(BEGAN, 1, errors=1, answers={"allowed": 1})]}, "1 errors"),
        ({"told": [Told(BEGAN, 1, answers={"a": 1}, wrong={"a: 200 instead of 403": 2})]}, "200 instead of 403, 2"),
        ({"told": []}, "nothing was answered"),
        ({"reloads_late": [3]}, "change 3 did not come in force"),
        ({"rotations_refused": [2]}, "rotation 2 was refused"),
        ({"lost_records": 7.0}, "7 lost records"),
        ({"restarts": 1.0}, "1 restarts of workers"),
        ({"failed_reloads": 1.0}, "1 failed reloads"),
        ({"growth": 31.0}, "memory grew by 31.0 MB an hour"),
    ],
)
def test_whatever_is_wrong_is_a_problem(changes: dict[str, object], problem: str) -> None:
    found = summary(run_of(12, **changes), 12, 30.0)  # type: ignore[arg-type]  # the table's types are its rows'
    assert len(found["problems"]) == 1
    assert problem in found["problems"][0]
    assert f"WRONG: {found['problems'][0]}" in table(found)


def test_growth_of_a_short_run_is_told_and_not_judged() -> None:
    found = summary(run_of(2, growth=500), 2, 30.0)
    assert found["problems"] == []
    assert "too short to hold it against 30" in table(found)


def test_the_issuer_publishes_ahead_and_drops_late() -> None:
    issuer = Issuer()
    try:
        assert issuer.published() == (-2, -1, 0, 1)
        issuer.rotate()
        assert issuer.published() == (-1, 0, 1, 2)
        names = {kind.name: kind for kind in kinds(issuer)}
        assert names["dropped key"].status == 401
        assert sum(kind.share for kind in names.values() if kind.status == 200) == 70
    finally:
        issuer.close()


def test_kinds_are_mixed_by_their_shares() -> None:
    found = mixed([Kind("a", 200, 3, ["x"]), Kind("b", 403, 1, ["y", "z"])])
    assert [sum(one.kind == name for one in found) for name in ("a", "b")] == [3000, 1000]
    assert {one.data for one in found} == {b"x", b"y", b"z"}


@contextmanager
def answering(asked: threading.Semaphore) -> Iterator[int]:
    """A server that allows everything but closes the connection when asked for /closed; releases for each request."""

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.release()
            if self.path == "/closed":
                self.close_connection = True
                return
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_wrong_answers_and_lost_connections_are_counted() -> None:
    def ask(path: str) -> list[str]:
        return [f"GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer secret\r\n\r\n"]

    order = {
        "rate": 200,
        "kinds": [
            {"name": "right", "status": 200, "share": 2, "requests": ask("/a")},
            {"name": "wrong", "status": 403, "share": 1, "requests": ask("/b")},
            {"name": "lost", "status": 200, "share": 1, "requests": ask("/closed")},
        ],
    }
    asked = threading.Semaphore(0)
    with answering(asked) as port:
        load = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.steady", str(port)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert load.stdin is not None
        load.stdin.write(json.dumps(order) + "\n")
        load.stdin.flush()
        assert all(asked.acquire(timeout=30) for _ in range(40))
        out, _ = load.communicate()
    told = [json.loads(line) for line in out.splitlines()]
    answers, wrong = together(one["answers"] for one in told), together(one["wrong"] for one in told)
    sent, errors = sum(one["sent"] for one in told), sum(one["errors"] for one in told)
    assert min(answers["right"], answers["wrong"], errors) > 0
    assert wrong == {"wrong: 200 instead of 403": answers["wrong"]}
    assert sent == sum(answers.values()) + errors
    assert "secret" not in out

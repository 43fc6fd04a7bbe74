"""
The load: h2load (gRPC) and wrk (through an Envoy) at saturation, benchmarks/pacer.py at fixed rates.

All run on cores of their own. Percentiles are of every single request.
"""

import json
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.check import METADATA
from benchmarks.pacer import Answers, Order

CHECK = "/envoy.service.auth.v3.Authorization/Check"
WARM_SECONDS = 0.5
MADE = 0.75
"""The part of a load that must be made for its figures to count."""
TRIES = 3
"""Something else that runs on this machine for a while spoils one try, and need not spoil an hour of others."""


@dataclass(frozen=True)
class Saturated:
    requests_per_second: float
    requests: int


Timed = tuple[float, float]
"""When a request was due, seconds since the epoch, and the milliseconds it took."""
QUIET_SECONDS, LET_GO_SECONDS = 3.0, 0.5
"""Of a load during which something changes: the quiet time before each change, and the time after it that counts."""


@dataclass(frozen=True)
class Paced:
    """Milliseconds; ``achieved``, requests/s, is below the rate when the server does not keep up."""

    achieved: float
    p50: float
    p99: float
    p999: float


@dataclass(frozen=True)
class Target:
    """Where the load goes: ``frame`` is a file with a gRPC message; None asks an Envoy by GET with ``token``."""

    url: str
    frame: Path | None = None
    token: str = ""

    def pairs(self) -> list[tuple[str, str]]:
        if self.frame is None:
            return [("authorization", f"Bearer {self.token}")]
        return [("content-type", "application/grpc"), ("te", "trailers"), *METADATA]

    def headers(self) -> list[str]:
        return [part for name, value in self.pairs() for part in ("-H", f"{name}: {value}")]

    def body(self) -> list[str]:
        return ["-d", str(self.frame)] if self.frame is not None else []


def run_load(command: Sequence[str], cores: frozenset[int], told: str = "") -> str:
    taskset = ["taskset", "-c", ",".join(map(str, sorted(cores)))] if cores else []
    done = subprocess.run(  # noqa: S603  # our own command
        [*taskset, *command], input=told, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stderr or done.stdout}")
    return done.stdout


def saturate(target: Target, seconds: float, cores: frozenset[int]) -> Saturated:
    """As much as goes, with 64 requests (gRPC) or 32 (through an Envoy) waiting at any time."""
    if target.frame is None:
        told = run_load(["wrk", "-t1", "-c32", f"-d{math.ceil(seconds)}s", *target.headers(), target.url], cores)
        rate, total = re.search(r"Requests/sec:\s+([\d.]+)", told), re.search(r"(\d+) requests in", told)
        if "Non-2xx" in told or "Socket errors" in told:
            raise SystemExit(f"{target.url} refused requests:\n{told}")
    else:
        told = run_load(
            [
                "h2load",
                "-D",
                f"{math.ceil(seconds)}",
                "-c",
                "4",
                "-m",
                "16",
                *target.body(),
                *target.headers(),
                target.url,
            ],
            cores,
        )
        rate, total = re.search(r"finished in \S+, ([\d.]+) req/s", told), re.search(r"(\d+) succeeded", told)
        failed = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", told)
        if failed is None or any(map(int, failed.groups())):
            raise SystemExit(f"{target.url} did not answer everything:\n{told}")
    if rate is None or total is None:
        raise SystemExit(f"not understood:\n{told}")
    return Saturated(float(rate[1]), int(total[1]))


def pace(target: Target, rate: int, seconds: float, cores: frozenset[int]) -> Paced:
    """Requests at a fixed rate. Raises SystemExit when this machine cannot make the load, not even when asked again."""
    for _ in range(TRIES):
        answers = _asked(target, rate, seconds + WARM_SECONDS, cores)
        made = 1 - answers.slipped / (seconds + WARM_SECONDS)
        if made >= MADE:
            break
    else:
        raise SystemExit(f"{target.url}: the load of {rate} requests/s cannot be made here, only {made:.0%} of it")
    found = percentiles(_in_order(answers), seconds)
    return replace(found, achieved=found.achieved / made)


def requests_at(target: Target, rate: int, seconds: float, cores: frozenset[int]) -> list[tuple[float, float]]:
    """(due in seconds since the epoch, milliseconds it took) of every request, in order."""
    return _in_order(_asked(target, rate, seconds, cores))


def _in_order(answers: Answers) -> list[tuple[float, float]]:
    return sorted(zip(answers.due, answers.took, strict=True))


def _asked(target: Target, rate: int, seconds: float, cores: frozenset[int]) -> Answers:
    url = urlsplit(target.url)
    assert url.port is not None
    path = f"{url.path}?{url.query}" if url.query else url.path
    method = "POST" if target.frame is not None else "GET"
    pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", url.netloc)]
    body = target.frame.read_bytes().hex() if target.frame is not None else ""
    order = Order(url.port, [*pseudo, *target.pairs()], body, rate, seconds)
    command = [sys.executable, "-m", "benchmarks.pacer"]
    answers = Answers(**json.loads(run_load(command, cores, json.dumps(asdict(order)))))
    # Few answers are a figure as well: who does not keep up. No answer at all is a mistake.
    if answers.refused or not answers.due:
        raise SystemExit(f"{target.url}: {answers.refused} refused, {len(answers.due)} of {answers.sent} answered")
    return answers


def percentiles(requests: Sequence[tuple[float, float]], seconds: float) -> Paced:
    """Of those due after the warm-up; ``achieved`` counts answers that came in the same time."""
    begin = requests[0][0] + WARM_SECONDS
    taken = sorted(took for due, took in requests if begin <= due < begin + seconds)
    answered = sum(begin <= due + took / 1e3 < begin + seconds for due, took in requests)
    if not taken:
        return Paced(answered / seconds, 0.0, 0.0, 0.0)

    def at(share: float) -> float:
        return taken[min(int(len(taken) * share), len(taken) - 1)]

    return Paced(answered / seconds, at(0.5), at(0.99), at(0.999))


def around(requests: Sequence[Timed], windows: Sequence[tuple[float, float]]) -> tuple[list[Timed], list[Timed]]:
    """Requests of the quiet time before each window, and those within one and shortly after."""

    def between(begin: float, end: float) -> list[Timed]:
        return [one for one in requests if begin <= one[0] < end]

    # What was replaced is freed right after: that belongs to the change.
    quiet = [one for began, _ in windows for one in between(began - QUIET_SECONDS + LET_GO_SECONDS, began)]
    changing = [one for began, ended in windows for one in between(began, ended + LET_GO_SECONDS)]
    return quiet, changing

"""
The load: h2load for gRPC and for fixed rates, wrk for an Envoy at saturation. Both run on cores of their own.

A fixed rate is one HTTP/2 connection on which h2load begins a request at every tick, whether the last one was answered
or not (up to 200 wait), so that a slow answer does not hide those behind it; percentiles are of every single request.
"""

import math
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.check import METADATA

CHECK = "/envoy.service.auth.v3.Authorization/Check"
WARM_SECONDS = 0.5


@dataclass(frozen=True)
class Saturated:
    requests_per_second: float
    requests: int


@dataclass(frozen=True)
class Paced:
    """Milliseconds; ``achieved`` is below the rate when the server does not keep up."""

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

    def headers(self) -> list[str]:
        if self.frame is None:
            pairs: Sequence[tuple[str, str]] = (("authorization", f"Bearer {self.token}"),)
        else:
            pairs = (("content-type", "application/grpc"), ("te", "trailers"), *METADATA)
        return [part for name, value in pairs for part in ("-H", f"{name}: {value}")]

    def body(self) -> list[str]:
        return ["-d", str(self.frame)] if self.frame is not None else []


def run_load(command: Sequence[str], cores: frozenset[int]) -> str:
    taskset = ["taskset", "-c", ",".join(map(str, sorted(cores)))] if cores else []
    done = subprocess.run(  # noqa: S603  # our own command
        [*taskset, *command], capture_output=True, text=True, timeout=120, check=False
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


def pace(target: Target, rate: int, seconds: float, cores: frozenset[int], log: Path) -> Paced:
    """Requests at a fixed rate."""
    log.unlink(missing_ok=True)
    run_load(
        [
            *("h2load", "-D", f"{math.ceil(seconds + WARM_SECONDS)}", "-c", "1", "-m", "200", f"--rps={rate}"),
            *(f"--log-file={log}", *target.body(), *target.headers(), target.url),
        ],
        cores,
    )
    return percentiles(read_log(log), seconds)


def read_log(log: Path) -> list[tuple[float, float]]:
    """(begin in seconds since the epoch, milliseconds) of every request, in order."""
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    if any(line[1] != "200" for line in lines):
        raise SystemExit(f"a request failed, see {log}")
    return sorted((int(line[0]) / 1e6, int(line[2]) / 1e3) for line in lines)


def percentiles(requests: Sequence[tuple[float, float]], seconds: float) -> Paced:
    """Of those that began after the warm-up."""
    begin = requests[0][0] + WARM_SECONDS
    taken = sorted(took for at, took in requests if begin <= at < begin + seconds)

    def at(share: float) -> float:
        return taken[min(int(len(taken) * share), len(taken) - 1)]

    return Paced(len(taken) / seconds, at(0.5), at(0.99), at(0.999))

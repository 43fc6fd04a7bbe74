"""
What loading policies costs: time and memory of 10,000, a thousand reloads, and the latency of checks meanwhile.

    python -m benchmarks.loading [--only NAME]
"""

import argparse
import asyncio
import gc
import json
import logging
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from authz._proto import ext_authz_pb2 as pb
from authz.core.attributes import Workload
from authz.service.check_function import CheckFunction
from authz.service.ids import DecisionIds
from authz.service.loading.garbage import beside_checks, settle
from authz.service.loading.reload import Reloader
from authz.service.loading.snapshot import load_snapshot
from benchmarks.check import METADATA, Nothing
from benchmarks.clients import CHECK, QUIET_SECONDS, Target, around, percentiles, requests_at
from benchmarks.contenders import Field, free_port, serving
from benchmarks.subject import POLICY, make_subject

MANY = 10_000
RELOADS = 1_000
RELOADED = 20
RATE = 500
LOADS = 5
LOAD_SECONDS = 45.0
WORKLOAD = Workload("bookinfo", frozenset({("app", "reviews"), ("version", "v2")}))
TEAM = """---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: team-{number}, namespace: team-{namespace}}}
spec:
  selector: {{matchLabels: {{app: app-{number}}}}}
  rules:
  - from: [{{source: {{principals: ["cluster.local/ns/team-{namespace}/sa/caller-{number}"]}}}}]
    to: [{{operation: {{methods: ["GET", "HEAD"], paths: ["/svc-{number}/*"]}}}}]
    when: [{{key: "request.auth.claims[roles]", values: ["reader"]}}]
"""


def write_many(folder: Path, count: int) -> None:
    """Policies of a large mesh: a hundred files, fifty namespaces, one workload each."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in range(0, count, 100):
        texts = (TEAM.format(number=number, namespace=number % 50) for number in range(file, min(file + 100, count)))
        (folder / f"team-{file}.yaml").write_text("".join(texts))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def load_many(folder: Path) -> dict[str, float]:
    """Seconds and memory of 10,000 policies, in a process that holds nothing else."""
    write_many(folder / "many", MANY)
    load_snapshot(folder / "many" / "team-0.yaml", None, 0.0)  # imports and tables
    gc.collect()
    before = resident_bytes()
    began, cpu = time.perf_counter(), time.process_time()
    with beside_checks():
        snapshot = load_snapshot(folder / "many", None, 0.0)
        snapshot.engine.for_workload(Workload("team-7", frozenset({("app", "app-7")})))
    took, used = time.perf_counter() - began, time.process_time() - cpu
    gc.collect()
    return {
        "policies": MANY,
        "seconds": took,
        "cpu_seconds": used,
        "bytes_each": (resident_bytes() - before) / MANY,
    }


def reload_often(folder: Path) -> dict[str, float]:
    """A thousand reloads of some changing policies, with checks between; memory after 200 and after all."""
    logging.disable(logging.WARNING)
    subject = make_subject(RELOADED)
    file = folder / "policies.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    texts = [subject.istio(), subject.istio() + POLICY.format(number=RELOADED)]
    function = CheckFunction(Nothing(), DecisionIds(0.0, b"abc"), dict)
    request, sizes = subject.check_request(), {}

    async def run() -> None:
        reloader = Reloader(folder, None, function.replace, time.time)
        for number in range(1, RELOADS + 1):
            file.write_text(texts[number % 2])
            assert await reloader.load()
            if number == 1:
                settle()
            for _ in range(5):
                answer = function.check(request, METADATA, time.time())
            assert isinstance(answer, bytes)
            assert pb.CheckResponse.FromString(answer).status.code == 0
            if number in (200, RELOADS):
                gc.collect()
                sizes[number] = (resident_bytes(), sys.getallocatedblocks())

    asyncio.run(run())
    reloads = RELOADS - 200
    return {
        "reloads": RELOADS,
        "policies": RELOADED,
        "bytes_each": (sizes[RELOADS][0] - sizes[200][0]) / reloads,
        "blocks_each": (sizes[RELOADS][1] - sizes[200][1]) / reloads,
        "megabytes": sizes[RELOADS][0] / 1e6,
    }


def latency_meanwhile(folder: Path, server: str) -> dict[str, float]:
    """
    Checks at a fixed rate straight at a server, quiet, and while 10,000 more policies are put in force.

    At first beside the one policy there is, then in the place of 10,000 others, which are let go of.
    """
    place = Field(make_subject(1), folder / server, frozenset(), None)
    new, port = folder / server / "new", free_port()
    write_many(new, MANY)
    with serving(place, server, port) as running, ThreadPoolExecutor(1) as pool:
        target = Target(f"http://127.0.0.1:{port}{CHECK}", place.folder / "raw")
        requests_at(target, RATE, 2, frozenset())  # warm
        load = pool.submit(requests_at, target, RATE, LOAD_SECONDS, frozenset())
        windows: list[tuple[float, float]] = []
        for number in range(1, LOADS + 1):
            time.sleep(QUIET_SECONDS)
            old, new, began = new, place.folder / "policies" / f"new-{number}", time.time()
            os.rename(old, new)
            while running.log.read_text().count(f"in force: {MANY + 1} AuthorizationPolicy") < number:
                if load.done():
                    raise SystemExit(f"the policies did not come in force in time:\n{running.log.read_text()[-2000:]}")
                time.sleep(0.05)
            windows.append((began, time.time()))
        requests = load.result()

    quiet, changing = around(requests, windows)
    before, meanwhile = percentiles(quiet, math.inf), percentiles(changing, math.inf)
    return {
        "rate": RATE,
        "loads": LOADS,
        "seconds": statistics.median(ended - began for began, ended in windows),
        "quiet_p50": before.p50,
        "quiet_p99": before.p99,
        "loading_p50": meanwhile.p50,
        "loading_p99": meanwhile.p99,
        "loading_p999": meanwhile.p999,
    }


PARTS: dict[str, Callable[[Path], dict[str, float]]] = {
    "10,000 policies": load_many,
    "1,000 reloads": reload_often,
    "latency, grpcio": lambda folder: latency_meanwhile(folder, "grpcio"),
    "latency, hosted": lambda folder: latency_meanwhile(folder, "envoy"),
}


def measure_loading(folder: Path) -> dict[str, Any]:
    """Every part in a process of its own."""
    found = {}
    for number, name in enumerate(PARTS):
        own = folder / str(number)  # one part's policies are nothing to another
        command = [sys.executable, "-m", "benchmarks.loading", "--only", name, "--folder", str(own)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr}")
        found[name] = json.loads(done.stdout)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(PARTS))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as name:
        folder = Path(options.folder or name)
        folder.mkdir(parents=True, exist_ok=True)
        found = PARTS[options.only](folder) if options.only else measure_loading(folder)
        print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

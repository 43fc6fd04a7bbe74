"""
10,000 policies of an Envoy that decides by itself, replaced under load.

    python -m benchmarks.native_reload [--quick]

Two sets take turns as the filters of one Envoy, while requests come at a fixed rate. The rule that allows them is
another one in each set, so that half of one set beside half of the other would refuse them; none may be refused, or
lost. One connection asks meanwhile for what only one of the sets allows: its answers tell when a set came in force, and
must change once. Latency near a change is told beside that of the quiet time, emission as CPU seconds.
"""

import http.client
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from authz.core.compiler import compile_engine
from authz.core.resources import MeshConfig
from authz.envoy.native.filters import http_filters
from authz.envoy.native.slots import TYPES, fill_slots
from authz.policy.reader import read_policies
from benchmarks.clients import QUIET_SECONDS, Target, around, percentiles, requests_at
from benchmarks.contenders import Contender, find_envoy, free_port
from benchmarks.subject import AUTHENTICATION, ISSUER, POLICY, WORKLOAD, Subject, checking_envoy, make_subject

MANY = 10_000
RATE = 2_000
CHANGES = 4
ONLY_IN_FIRST = MANY // 4
IN_FORCE_SECONDS = 30.0
RULES = "authz-rules.json"


def emitted(subject: Subject, first: bool) -> tuple[bytes, float]:
    """A discovery file with one of the sets, and the CPU seconds of its emission, policies read and compiled."""
    left_out = set() if first else {ONLY_IN_FIRST}
    order = range(subject.size) if first else reversed(range(subject.size))
    prefix = "first-" if first else "second-"
    text = AUTHENTICATION.format(issuer=ISSUER, jwks=subject.jwks) + "".join(
        POLICY.format(number=number).replace("name: ", f"name: {prefix}") for number in order if number not in left_out
    )
    engine = compile_engine(read_policies([("p.yaml", text.encode())], MeshConfig()).resources, MeshConfig())
    engine.for_workload(WORKLOAD)
    began = time.process_time()
    filters = http_filters(engine, WORKLOAD, {}).filters
    content = json.dumps({"version_info": prefix, "resources": fill_slots(filters, engine.mesh)}).encode()
    return content, time.process_time() - began


class Probe(threading.Thread):
    """Asks one path a hundred times a second; ``answers`` are (seconds since the epoch, status)."""

    def __init__(self, port: int, subject: Subject) -> None:
        super().__init__(daemon=True)
        self.answers: list[tuple[float, int]] = []
        self._port = port
        self._asked = (f"/svc-{ONLY_IN_FIRST}/items/7", {"authorization": f"Bearer {subject.token}"})
        self._is_done = threading.Event()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        while not self._is_done.wait(0.01):
            connection.request("GET", self._asked[0], headers=self._asked[1])
            answer = connection.getresponse()
            answer.read()
            self.answers.append((time.time(), answer.status))

    def stop(self) -> None:
        self._is_done.set()
        self.join()

    def wait_for(self, status: int) -> float:
        """When this status first came. Raises SystemExit when it did not."""
        ends = time.time() + IN_FORCE_SECONDS
        while time.time() < ends:
            if self.answers and self.answers[-1][1] == status:
                return next(at for at, found in reversed(_last_run(self.answers)) if found == status)
            time.sleep(0.005)
        raise SystemExit(f"a set of policies was not in force after {IN_FORCE_SECONDS:g} s")


def _last_run(answers: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """The newest answers that are the same, newest first."""
    run: list[tuple[float, int]] = []
    for one in reversed(answers):
        if run and one[1] != run[0][1]:
            break
        run.append(one)
    return run


def measure_native_reload(changes: int = CHANGES) -> dict[str, Any]:
    """Everything, as figures."""
    subject = make_subject(MANY)
    (first, cpu_first), (second, cpu_second) = emitted(subject, True), emitted(subject, False)
    with tempfile.TemporaryDirectory(prefix="authz-reload-") as name:
        folder, port = Path(name), free_port()
        rules = folder / "rules"
        rules.mkdir()
        (rules / RULES).write_bytes(first)
        watched = {"path": str(rules / RULES), "watched_directory": {"path": str(rules)}}
        source = {"resource_api_version": "V3", "path_config_source": watched}
        slot = {"name": "authz-rules", "config_discovery": {"type_urls": list(TYPES), "config_source": source}}
        configuration = checking_envoy(port, [slot], [], [])
        (folder / "envoy.json").write_text(json.dumps(configuration))
        command = [str(find_envoy()), "-c", str(folder / "envoy.json"), "--concurrency", "1", "--disable-hot-restart"]
        began = time.monotonic()
        process = subprocess.Popen([*command, "--log-level", "error"])  # noqa: S603  # our own
        contender = Contender("reload", Target(f"http://127.0.0.1:{port}{subject.path}", None, subject.token))
        contender.processes.append(process)
        try:
            _wait(contender.target)
            started = time.monotonic() - began
            return {
                "policies": MANY,
                "rate": RATE,
                "emission_cpu_seconds": statistics.median((cpu_first, cpu_second)),
                "megabytes_written": len(first) / 1e6,
                "started_seconds": started,
                "megabytes_of_envoy": contender.megabytes(),
                **_change(contender, subject, rules, (second, first), port, changes),
            }
        finally:
            contender.stop()


def _wait(target: Target) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        try:
            answer = httpx.get(
                target.url, headers={"authorization": f"Bearer {target.token}"}, timeout=5, trust_env=False
            )
            if answer.is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise SystemExit("Envoy does not let the request of the benchmark pass")


def _change(
    contender: Contender, subject: Subject, rules: Path, sets: tuple[bytes, bytes], port: int, changes: int
) -> dict[str, Any]:
    probe = Probe(port, subject)
    windows: list[tuple[float, float]] = []
    seconds = (QUIET_SECONDS + 5) * changes + 5
    requests_at(contender.target, RATE, 1, frozenset())  # warm
    probe.start()
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(requests_at, contender.target, RATE, seconds, frozenset())
        for number in range(changes):
            time.sleep(QUIET_SECONDS)
            new = rules / "new"
            new.write_bytes(sets[number % 2])
            began = time.time()
            os.replace(new, rules / RULES)
            windows.append((began, probe.wait_for(403 if number % 2 == 0 else 200)))
        requests = load.result()  # raises when one was refused
    probe.stop()
    statuses = [status for _, status in probe.answers]
    flips = sum(one != other for one, other in pairwise(statuses))

    quiet, changing = around(requests, windows)
    before, meanwhile = percentiles(quiet, math.inf), percentiles(changing, math.inf)
    return {
        "changes": changes,
        "in_force_seconds": statistics.median(ended - began for began, ended in windows),
        "in_force_seconds_most": max(ended - began for began, ended in windows),
        "requests": len(requests),
        "lost": max(0, int(seconds * RATE) - len(requests)),
        "judged_wrong": max(0, flips - changes),
        "quiet_p99": before.p99,
        "changing_p99": meanwhile.p99,
        "changing_most": max(took for _, took in changing),
    }


def sentence(found: Mapping[str, Any]) -> str:
    """For the report."""
    return (
        f"{found['policies']:,} policies as native filters: emitted in {found['emission_cpu_seconds']:.2f} s of CPU, "
        f"{found['megabytes_written']:.1f} MB; Envoy starts with them in {found['started_seconds']:.1f} s and has "
        f"{found['megabytes_of_envoy']:.0f} MB. Replaced {found['changes']} times under {found['rate']:,} requests/s: "
        f"in force after {found['in_force_seconds']:.2f} s (at most {found['in_force_seconds_most']:.2f}), "
        f"{found['lost']} of {found['requests']:,} requests lost, {found['judged_wrong']} judged wrong; "
        f"p99 {found['quiet_p99']:.2f} → {found['changing_p99']:.2f} ms "
        f"({found['changing_p99'] / found['quiet_p99']:.1f} times), slowest {found['changing_most']:.0f} ms."
    )


def main(arguments: Sequence[str]) -> int:
    print(sentence(measure_native_reload(2 if "--quick" in arguments else CHANGES)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

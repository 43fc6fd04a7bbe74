"""
From how many rules of a stage looking up is faster than a walk: ``python -m benchmarks.threshold [NUMBER ...]``.

CPU time of Envoy a request, less that of an Envoy without rules, for a DENY stage whose rules do not match (the usual
case, where all are walked) and an ALLOW stage in which the middle one does. All forms are listeners of one Envoy and
take turns, so that ratios mean something on a busy machine.
"""

import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from authz.analysis.offline.request import OfflineRequest
from authz.analysis.verify.proxy import Connection, Endpoints, listener, running
from authz.analysis.verify.trial_certificates import Identities
from authz.core.attributes import Workload
from authz.core.compiler import compile_as_needed
from authz.core.engine import Engine
from authz.core.resources import Action, AuthorizationPolicy, MeshConfig, Metadata, Operation, Resources, Rule, Source
from authz.envoy.native.filters import http_filters
from authz.envoy.native.indexed import Form
from authz.envoy.native.lookup import MAX_WALK
from tests.envoy.client import http1_bytes

NUMBERS = (1, 10, 30, 50, 70, 100, 200)
WORKLOAD = Workload("shop")
ROUNDS, REQUESTS = 15, 400


def rules(number: int, action: Action) -> Engine:
    """Each on a path of its own and what is below it, for strangers and two methods."""

    def policy(index: int) -> AuthorizationPolicy:
        operation = Operation(paths=(f"/api/v1/p{index}", f"/api/v1/p{index}/*"), methods=("GET", "POST"))
        rule = Rule(sources=(Source(not_ip_blocks=("10.0.0.0/8",)),), operations=(operation,))
        return AuthorizationPolicy(Metadata(f"p{index:05}", "shop"), action=action, rules=(rule,))

    found = Resources(authorization_policies=tuple(policy(index) for index in range(number)), version="benchmark")
    return compile_as_needed(found, MeshConfig())


def measure(numbers: Sequence[int], action: Action) -> None:
    """Print one line for each number of rules."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        identities = Identities(directory)
        identities.write(directory / "server", "spiffe://cluster.local/ns/shop/sa/api")
        listeners = [listener("none", [], directory)]
        for number in numbers:
            engine = rules(number, action)
            for form in (Form.LINEAR, Form.INDEXED):
                filters = http_filters(engine, WORKLOAD, {}, form=form).filters
                listeners.append(listener(f"{form} {number}", filters, directory))
        names = [str(one["name"]) for one in listeners]
        with running(directory, listeners, identities) as envoy:
            process = Path(f"/proc/{envoy.process.pid}/task")
            ends = Endpoints("127.0.0.1", "10.1.0.5", 8080)
            connections = {one: envoy.connect(one, ends) for one in names}
            costs: dict[str, list[float]] = {one: [] for one in names}
            for _ in range(ROUNDS):
                for one, connection in connections.items():
                    number = int(one.rpartition(" ")[2]) if one != "none" else 0
                    path = f"/api/v1/p{number // 2}/x" if action is Action.ALLOW else "/other"
                    costs[one].append(_cost(process, connection, http1_bytes(OfflineRequest(path=path))))
            for connection in connections.values():
                connection.close()
    base = statistics.median(costs.pop("none"))
    found = {one: (statistics.median(all_of_it) - base) * 1e6 for one, all_of_it in costs.items()}
    print(f"{action.value}: {base * 1e6:.0f} us CPU a request without rules; on top of it:")
    for number in numbers:
        linear, indexed = found[f"linear {number}"], found[f"indexed {number}"]
        faster = "linear" if linear < indexed else "indexed"
        print(f"{number:6} rules  linear {linear:6.1f} us  indexed {indexed:6.1f} us  {faster}", flush=True)


def _cost(process: Path, connection: Connection, request: bytes) -> float:
    before = _seconds(process)
    for _ in range(REQUESTS):
        assert connection.send(request).status == 200
    return (_seconds(process) - before) / REQUESTS


def _seconds(process: Path) -> float:
    """CPU time of all threads, in nanoseconds as Linux keeps it: hundredths of a second would be too coarse."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in process.iterdir()) / 1e9


def main(arguments: list[str]) -> None:
    numbers = [int(one) for one in arguments] or NUMBERS
    for action in (Action.DENY, Action.ALLOW):
        measure(numbers, action)
    print(f"`--form auto` looks up in stages of more than {MAX_WALK} rules")


if __name__ == "__main__":
    main(sys.argv[1:])

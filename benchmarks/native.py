"""
What native filters cost, by number of policies and form: ``python -m benchmarks.native [NUMBER ...]``.

Emission (CPU seconds), size, time until an Envoy that starts with them is ready, its memory, and its CPU time for one
request; the forms of one number are measured one after the other on the same machine, so that ratios mean something.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # the package carries no types

from authz.analysis.offline.request import OfflineRequest
from authz.analysis.verify.proxy import listener, running
from authz.analysis.verify.trial_certificates import Identities
from authz.core.attributes import Workload
from authz.core.compiler import compile_as_needed
from authz.core.engine import Engine
from authz.core.resources import Action, AuthorizationPolicy, MeshConfig, Metadata, Operation, Resources, Rule, Source
from authz.envoy.native.filters import http_filters
from authz.envoy.native.indexed import Form
from tests.envoy.client import http1_bytes

NUMBERS = (1, 10, 35, 70, 140, 1000, 10_000)
"""Policies in the measurement without arguments, half of them DENY and half of them ALLOW."""
WORKLOAD = Workload("shop")
REQUESTS = 2000
"""With many rules one after the other fewer are enough: a request takes long."""


def policies(number: int) -> Engine:
    """DENY from strangers and ALLOW for a method, each on a path of its own and what is below it."""

    def policy(index: int) -> AuthorizationPolicy:
        path = f"/api/v1/p{index // 2}"
        deny = index % 2 == 1
        rule = Rule(
            sources=(Source(ip_blocks=("10.0.0.0/8",)) if deny else Source(not_ip_blocks=("10.0.0.0/8",)),),
            operations=(Operation(paths=(path, f"{path}/*"), methods=("GET", "POST")),),
        )
        metadata = Metadata(f"p{index:05}", "shop")
        return AuthorizationPolicy(metadata, action=Action.DENY if deny else Action.ALLOW, rules=(rule,))

    found = Resources(authorization_policies=tuple(policy(index) for index in range(number)), version="benchmark")
    return compile_as_needed(found, MeshConfig())


def measure(number: int, form: Form) -> None:
    engine = policies(number)
    engine.for_workload(WORKLOAD)  # compiled for the check in any case
    begun = time.process_time()
    filters = http_filters(engine, WORKLOAD, {}, form=form).filters
    size = len(json.dumps([one.as_extension() for one in filters]))
    emission = time.process_time() - begun
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        identities = Identities(directory)
        identities.write(directory / "server", "spiffe://cluster.local/ns/shop/sa/api")
        listeners = [listener("native", filters, directory)]
        started = time.monotonic()
        with running(directory, listeners, identities) as envoy:
            ready = time.monotonic() - started
            process = psutil.Process(envoy.process.pid)
            last = http1_bytes(OfflineRequest(path=f"/api/v1/p{(number - 1) // 2}/x"))
            assert envoy.ask("native", [last])[0].status == 200
            requests = REQUESTS if form is Form.INDEXED or number < 1000 else REQUESTS // 20
            before = sum(process.cpu_times()[:2])
            envoy.ask("native", [last] * requests)
            used = (sum(process.cpu_times()[:2]) - before) / requests
            memory = process.memory_info().rss
    print(
        f"{number:6} {form:8} emission {emission:6.3f} s  {size / 2**20:6.2f} MiB  ready after {ready:5.2f} s  "
        f"{memory / 2**20:5.0f} MiB  {used * 1e6:6.0f} us CPU a request",
        flush=True,
    )


def main(arguments: list[str]) -> None:
    for number in [int(one) for one in arguments] or NUMBERS:
        for form in (Form.LINEAR, Form.INDEXED):
            measure(number, form)


if __name__ == "__main__":
    main(sys.argv[1:])

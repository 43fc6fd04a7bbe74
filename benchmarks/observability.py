"""
What seeing everything costs: CPU of a check without and with audit records, metrics and spans.

    python -m benchmarks.observability [-n CHECKS] [-r ROUNDS] [-o table|json]

First the check function alone (benchmarks/check.py), then the same function hosted in Envoy and behind grpcio, loaded
by h2load as in benchmarks/servers.py, which is what a check costs a host. Variants take turns; shown are medians.
Records are built, counted and written to a file. Spans are built and serialised, but sent to nobody. CPU is of the
whole process.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from authz.admin.watch import Watch
from authz.audit.builder import RecordSteps
from authz.audit.sinks import StreamSink
from authz.audit.trail import AuditTrail
from authz.envoy.hosting import APPLICATION
from authz.service.check_function import CheckFunction
from authz.service.provider_calls import Providers
from authz.service.server import CheckServer
from authz.service.workers.envoy_host import HostedAt, find_hosting, hosting_command
from authz.service.workers.hosted import HostedServer, Receive, Scope, Send
from authz.service.workers.scheduling import calm_host
from authz.telemetry.spans import DecisionTracer
from benchmarks.check import AT_ONCE, METADATA, Nothing, Prepared, prepare
from benchmarks.servers import Contender

UNSAMPLED, SAMPLED = b"b7ad6b7169203331-00", b"b7ad6b7169203331-01"
PORT = 18_790
_VARIANT, _DIRECTORY = "BENCHMARK_VARIANT", "BENCHMARK_DIRECTORY"
VARIANTS = {
    "nothing": "no records, no metrics, no spans",
    "records": "records and metrics, no trace",
    "page": "records, metrics and the page, no trace",
    "unsampled": "records and metrics, unsampled trace",
    "sampled": "records and metrics, a span for each check",
}


class Serialised(SpanExporter):
    """Everything of an export but the network."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


def audit_of(variant: str, directory: Path, capacity: int) -> AuditTrail | Nothing:
    """What the check function tells of its decisions."""
    if variant == "nothing":
        return Nothing()
    tracer = DecisionTracer([Serialised()] if variant in ("unsampled", "sampled") else [], root_ratio=0.0)
    descriptor = os.open(directory / f"{variant}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    watch = Watch(time.time()).observe if variant == "page" else None
    return AuditTrail(
        [StreamSink(descriptor, "file")], capacity=capacity, steps=RecordSteps(tracer=tracer, watch=watch)
    )


def function_of(prepared: Prepared, audit: AuditTrail | Nothing) -> CheckFunction:
    """The prepared check function, but telling this one."""
    prepared.function._audit = audit  # the benchmark's only way to compare with no records at all
    return prepared.function


def messages_of(prepared: Prepared, variant: str) -> list[bytes]:
    """Requests that came without a trace, with an unsampled or with a sampled one."""
    other = {"sampled": SAMPLED, "unsampled": UNSAMPLED}.get(variant, b"-" * len(UNSAMPLED))
    return [message.replace(UNSAMPLED, other) for message in prepared.messages]


async def measure(variant: str, checks: int, directory: Path) -> float:
    """Microseconds of CPU for one call of the check function."""
    prepared = prepare(directory, 2 * checks, audited=False)
    audit = audit_of(variant, directory, 2 * checks)
    check, messages, now = function_of(prepared, audit).check, messages_of(prepared, variant), prepared.now
    if isinstance(audit, AuditTrail):
        audit.start(asyncio.get_running_loop().call_soon)
    began = time.process_time()
    for number in range(0, checks, AT_ONCE):
        for other in range(number, number + AT_ONCE):
            check(messages[other % len(messages)], METADATA, now)
        await asyncio.sleep(0)
    if isinstance(audit, AuditTrail):
        assert audit.flush(120)
        assert audit.status().dropped == 0
    used = time.process_time() - began
    if isinstance(audit, AuditTrail):
        audit.close()
    return used / checks * 1e6


def begin(variant: str, directory: Path) -> CheckFunction:
    """The check function of one variant in a running event loop; the requests to send are left beside it."""
    prepared = prepare(directory, 100_000, audited=False)
    audit = audit_of(variant, directory, 100_000)
    body = messages_of(prepared, variant)[0]
    if isinstance(audit, AuditTrail):
        audit.start(asyncio.get_running_loop().call_soon)
    (directory / "body").write_bytes(b"\0" + len(body).to_bytes(4, "big") + body)
    return function_of(prepared, audit)


async def serve(variant: str, directory: Path, port: int) -> None:
    """One variant behind grpcio."""
    server = CheckServer(begin(variant, directory), Providers().ask, max_message_bytes=4 << 20)
    await server.start([f"127.0.0.1:{port}"])
    await asyncio.Event().wait()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """One variant hosted in Envoy, which the environment names."""
    if scope["type"] == "http":
        await scope["state"]["server"](scope, receive, send)
        return
    await receive()
    function = begin(os.environ[_VARIANT], Path(os.environ[_DIRECTORY]))
    scope["state"]["server"] = HostedServer(function, Providers().ask, max_message_bytes=4 << 20)
    await send({"type": "lifespan.startup.complete"})
    await calm_host(workers=True)
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def by_grpcio(variant: str, directory: Path, port: int) -> Contender:
    command = [sys.executable, "-m", "benchmarks.observability", "--serve", variant]
    command += ["--directory", str(directory), "--port", str(port)]
    return Contender(variant, command, port, {}, directory)


def by_envoy(variant: str, directory: Path, port: int) -> Contender:
    hosting = find_hosting()
    at = HostedAt((f"127.0.0.1:{port}",), directory / "envoy")
    command = hosting_command(hosting, at, max_message_bytes=4 << 20, socket_mode=0o600)
    configuration = at.directory / "envoy.json"
    configuration.write_text(configuration.read_text().replace(APPLICATION, "benchmarks.observability:application"))
    environment = hosting.environment() | {_VARIANT: variant, _DIRECTORY: str(directory)}
    environment["PYTHONPATH"] = f"{Path(__file__).parents[1]}{os.pathsep}{environment['PYTHONPATH']}"
    return Contender(variant, command, port, environment, directory)


def served(
    start: Callable[[str, Path, int], Contender], variants: Sequence[str], requests: int, rounds: int
) -> dict[str, float]:
    """Microseconds of CPU for one check served, by variant."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        found = []
        for number, variant in enumerate(variants):
            (folder / variant).mkdir()
            found.append(start(variant, folder / variant, PORT + number))
            stack.callback(found[-1].stop)
        for one in found:
            while not (folder / one.name / "body").exists() and one.process.poll() is None:
                time.sleep(0.1)
            one.wait((folder / one.name / "body").read_bytes()[5:])
            one.measure(requests // 4, folder / one.name / "body")
        runs: dict[str, list[float]] = {variant: [] for variant in variants}
        for _ in range(rounds):
            for one in found:
                runs[one.name].append(one.measure(requests, folder / one.name / "body").cpu_microseconds)
    return {variant: median(found) for variant, found in runs.items()}


def called(variants: Sequence[str], checks: int, rounds: int) -> dict[str, float]:
    """Microseconds of CPU for one call of the check function, by variant."""
    runs: dict[str, list[float]] = {variant: [] for variant in variants}
    for _ in range(rounds):
        for variant in variants:
            with tempfile.TemporaryDirectory() as directory:
                runs[variant].append(asyncio.run(measure(variant, checks, Path(directory))))
    return {variant: median(found) for variant, found in runs.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--checks", type=int, default=16_000)
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--serve", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve, given.directory, given.port))
        return 0
    results = {"function": called(list(VARIANTS), given.checks, given.rounds)}
    if shutil.which("h2load"):
        results["hosted in Envoy"] = served(by_envoy, list(VARIANTS), given.checks, given.rounds)
        results["served by grpcio"] = served(by_grpcio, list(VARIANTS), given.checks, given.rounds)
    if given.output == "json":
        print(json.dumps(results))
        return 0
    print(
        "µs of CPU for each check, median; in brackets what is added to a check of which nothing is told, and its share"
    )
    for name, row in results.items():
        print(f"\n{name}")
        for variant, cost in row.items():
            added = cost - row["nothing"]
            print(f"  {VARIANTS[variant]:44} {cost:6.1f}   (+{added:.1f} µs, {added / cost:.0%} of it)")
    return 0


if __name__ == "__main__":
    sys.exit(main())

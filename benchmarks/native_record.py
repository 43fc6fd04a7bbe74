"""
What the record of native enforcement costs: ``python -m benchmarks.native_record [ENTRIES]``.

Real entries of an Envoy are multiplied and go through everything ``authz serve --access-logs`` does with them, up to
the line in the audit file: read, decided again, compared, recorded. CPU time of this process, so that a busy machine
shows little. With ``--envoy SECONDS`` also what writing the log costs Envoy: requests a second with a log and without,
one after the other in turns, one worker.
"""

import asyncio
import http.client
import json
import logging
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from authz._proto import access_log_pb2 as pb
from authz.audit.builder import RecordSteps
from authz.audit.files import FileSink
from authz.audit.trail import AuditTrail
from authz.service.loading.snapshot import load_snapshot
from authz.service.native.intake import SLICE, Intake
from authz.service.native.stream import AccessLogStream
from authz.telemetry.counters import Telemetry
from tests.envoy.native_rig import NativeMesh, token

TURNS = 3


def entries_of_a_file(state: Path) -> tuple[Path, list[bytes]]:
    """The policies' directory, and lines of a real Envoy for allowed, refused and signed requests."""
    mesh = NativeMesh.new(state)
    good = token(groups=["admin"])
    with mesh.envoy():
        for _ in range(25):
            for path in ("/ok/1", "/secret/1", "/nowhere", f"/claims?access_token={good}"):
                connection = http.client.HTTPConnection("127.0.0.1", mesh.http, timeout=5)
                connection.request("GET", path, headers={"user-agent": "benchmark"})
                connection.getresponse().read()
                connection.close()
        log = state / "logs" / "reviews-v1.json"
        while not log.exists() or log.read_bytes().count(b"\n") < 100:
            time.sleep(0.05)
        lines = log.read_bytes().splitlines()
    return state / "policies", lines


def as_messages(lines: list[bytes]) -> list[bytes]:
    """The same entries as messages of the gRPC service, some 16 kB each."""
    message = pb.StreamAccessLogsMessage()
    for line in lines[:20]:
        told = json.loads(line)
        entry = message.http_logs.log_entry.add()
        common = entry.common_properties
        common.custom_tags["authz"] = told["authz"]
        common.start_time.seconds = int(float(told["start"]))
        for where, text in (
            (common.downstream_remote_address, told["remote"]),
            (common.downstream_direct_remote_address, told["direct"]),
            (common.downstream_local_address, told["local"]),
        ):
            host, _, port = text.rpartition(":")
            where.socket_address.address, where.socket_address.port_value = host, int(port)
        common.metadata.filter_metadata["envoy.filters.http.rbac"].update(told["rbac"] or {})
        if told["claims"]["iss"]:
            common.metadata.filter_metadata["envoy.filters.http.jwt_authn"].update({"payload": told["claims"]})
        entry.protocol_version = 2
        request = entry.request
        request.scheme, request.authority, request.path = told["scheme"], told["host"], told["path"]
        request.request_id, request.user_agent = told["id"], told["user_agent"]
        request.request_headers[":method"] = told["method"]
        entry.response.response_code.value = told["code"]
        entry.response.response_code_details = told["details"]
    return [message.SerializeToString()] * (len(lines) // 20)


async def measure(policies: Path, directory: Path, take: Callable[[Intake], object], sample: float) -> float:
    """CPU seconds from the carrier to the audit file."""
    sink = FileSink(directory / f"audit-{time.monotonic_ns()}.jsonl")
    trail = AuditTrail([sink], steps=RecordSteps(telemetry=Telemetry()))
    trail.start(asyncio.get_running_loop().call_soon)
    intake = Intake(trail, sample)
    intake.judge.replace(load_snapshot(policies, None, 0.0), 0.0)
    began = time.process_time()
    result = take(intake)
    if asyncio.iscoroutine(result):
        await result
    while not await intake.flushed():
        pass
    spent = time.process_time() - began
    trail.close()
    return spent


async def from_file(intake: Intake, lines: list[bytes]) -> None:
    for begin in range(0, len(lines), SLICE):
        await intake.room()
        intake.take_lines(lines[begin : begin + SLICE])


async def from_stream(intake: Intake, messages: list[bytes]) -> None:
    async def stream() -> "Iterator[bytes]":  # type: ignore[misc]  # an asynchronous generator
        for message in messages:
            yield message

    await AccessLogStream(intake).take(stream())  # type: ignore[arg-type]


async def records(number: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        state = Path(name)
        policies, some = entries_of_a_file(state)
        lines = some * (number // len(some))
        messages = as_messages(lines)
        kinds: dict[str, tuple[Callable[[Intake], object], float]] = {
            "file, every entry decided again": (lambda intake: from_file(intake, lines), 1.0),
            "file, none decided again": (lambda intake: from_file(intake, lines), 0.0),
            "grpc, every entry decided again": (lambda intake: from_stream(intake, messages), 1.0),
        }
        spent: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(TURNS):
            for kind, (take, sample) in kinds.items():
                spent[kind].append(await measure(policies, state, take, sample))
        for kind, seconds in spent.items():
            best = min(seconds)
            print(f"{kind}: {len(lines) / best:,.0f} records/s/core, {best / len(lines) * 1e6:.0f} µs of CPU a record")


def load(port: int, seconds: float, connections: int = 8) -> float:
    """Requests a second over kept connections, as many as the client can."""
    counts = [0] * connections
    end = time.monotonic() + seconds
    asked = b"GET /ok/1 HTTP/1.1\r\nhost: reviews\r\nuser-agent: benchmark\r\n\r\n"

    def run(index: int) -> None:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            while time.monotonic() < end:
                connection.sendall(asked)
                held = b""
                while not held.endswith(b"hello"):
                    held += (got := connection.recv(65536))
                    assert got, "Envoy closed the connection"
                counts[index] += 1

    threads = [threading.Thread(target=run, args=(index,)) for index in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, by /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def envoy(seconds: float) -> None:
    """CPU of Envoy a request, with a file log and without."""
    with tempfile.TemporaryDirectory() as name:
        spent: dict[bool, list[float]] = {True: [], False: []}
        meshes = {}
        for logs in (True, False):
            meshes[logs] = NativeMesh.new(Path(name) / str(logs))
            meshes[logs].log_requests = logs
        with meshes[True].envoy(100) as logged, meshes[False].envoy(100) as bare:
            for _ in range(TURNS):
                for logs, proxy in ((True, logged), (False, bare)):
                    before = cpu_seconds(proxy.process.pid)
                    number = load(meshes[logs].http, seconds) * seconds
                    spent[logs].append((cpu_seconds(proxy.process.pid) - before) / number)
        with_log, without = statistics.median(spent[True]), statistics.median(spent[False])
        print(
            f"Envoy with a file log: {without / with_log:.2f} of the requests a core without one"
            f" ({with_log * 1e6:.0f} and {without * 1e6:.0f} µs of CPU a request)"
        )


def main() -> None:
    logging.disable()
    words = sys.argv[1:]
    if "--envoy" in words:
        envoy(float(words[words.index("--envoy") + 1]))
    else:
        asyncio.run(records(int(words[0]) if words else 50_000))


if __name__ == "__main__":
    main()

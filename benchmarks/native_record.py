"""
What the record of native enforcement costs: ``python -m benchmarks.native_record [ENTRIES]``.

Real lines of an Envoy with one policy and with 10,000 are multiplied and go through everything that ``authz serve
--access-logs`` does with them, up to the line in the audit file: read, decided again, compared, recorded. CPU time of
this process, so that a busy machine shows little. "One path" is a path that comes again and again, "new paths" are such
that never came before; of those only a share is decided again by default. What writing the log costs Envoy is told by
``python -m benchmarks.run --only through``.
"""

import asyncio
import gc
import json
import logging
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from authz._proto import access_log_pb2 as pb
from authz.audit.builder import RecordSteps
from authz.audit.file_sink import FileSink
from authz.audit.trail import AuditTrail
from authz.service.loading.snapshot import Snapshot, load_snapshot
from authz.service.native.intake import SLICE, Intake
from authz.service.native.stream import AccessLogStream
from authz.settings.settings import Settings
from authz.telemetry.counters import Telemetry
from benchmarks.contenders import find_envoy, free_port
from benchmarks.subject import Subject, checking_envoy, make_subject

TURNS = 3
REAL = 500
"""Requests that are really made; their lines come again under other ids."""
SHARE: float = Settings.model_fields["access_log_verify"].default


def real_lines(subject: Subject, folder: Path) -> list[bytes]:
    """Lines of an Envoy for one path, asked again and again over one connection."""
    port, log = free_port(), folder / "log.json"
    (folder / "envoy.json").write_text(
        json.dumps(checking_envoy(port, subject.slots(), [], [], subject.access_log(str(log))))
    )
    command = [str(find_envoy()), "-c", str(folder / "envoy.json"), "--concurrency", "1", "--disable-hot-restart"]
    asked = (
        f"GET {subject.path} HTTP/1.1\r\nhost: reviews\r\nuser-agent: benchmark\r\n"
        f"authorization: Bearer {subject.token}\r\n\r\n"
    ).encode()
    with subprocess.Popen([*command, "--log-level", "error", "--file-flush-interval-msec", "100"]) as process:  # noqa: S603  # our own
        try:
            with _connected(port) as connection:
                for _ in range(REAL):
                    connection.sendall(asked)
                    held = b""
                    while not held.endswith(b"ok\n"):
                        held += (got := connection.recv(65536))
                        assert got, "Envoy closed the connection"
            while log.read_bytes().count(b"\n") < REAL:
                time.sleep(0.05)
        finally:
            process.terminate()
    return log.read_bytes().splitlines()


def _connected(port: int) -> socket.socket:
    ends = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 30)
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.05)


def multiplied(lines: Sequence[bytes], number: int, *, new_paths: bool) -> list[bytes]:
    """So many lines, each with an id of its own, and with a path of its own if wanted."""
    found = []
    for at in range(number):
        line = lines[at % len(lines)].replace(b'"~id":"', b'"~id":"%d-' % at)
        found.append(line.replace(b"/items/7", b"/items/%d" % at) if new_paths else line)
    return found


def as_messages(lines: Sequence[bytes]) -> list[bytes]:
    """The same entries as messages of the gRPC service, some 16 kB each."""
    messages = []
    for begin in range(0, len(lines), 20):
        message = pb.StreamAccessLogsMessage()
        for told in map(json.loads, lines[begin : begin + 20]):
            entry = message.http_logs.log_entry.add()
            common = entry.common_properties
            common.custom_tags["authz"] = told["authz"]
            common.start_time.seconds = int(float(told["~at"].split(" ")[0]))
            for where, text in (
                (common.downstream_remote_address, told["~remote"]),
                (common.downstream_direct_remote_address, told["~direct"]),
                (common.downstream_local_address, told["local"]),
            ):
                host, _, port = text.rpartition(":")
                where.socket_address.address, where.socket_address.port_value = host, int(port)
            results = {name: value[1:] for name, value in told["rbac"].items()}
            common.metadata.filter_metadata["envoy.filters.http.rbac"].update(results)
            claims = {name: value[1:] for name, value in told["claims"].items()}
            payload = {**claims, "exp": int(claims["exp"]), "roles": json.loads(claims["roles"])}
            common.metadata.filter_metadata["envoy.filters.http.jwt_authn"].update({"payload": payload})
            entry.protocol_version = 2
            request = entry.request
            request.scheme, request.authority, request.path = told["scheme"], told["host"], told["~path"]
            request.request_id, request.user_agent = told["~id"], told["user_agent"]
            request.request_headers[":method"] = told["method"]
            entry.response.response_code.value = told["code"]
            entry.response.response_code_details = told["details"]
        messages.append(message.SerializeToString())
    return messages


Take = Callable[[Intake], Awaitable[None]]


async def measure(snapshot: Snapshot, folder: Path, warm: Take, take: Take, sample: float) -> float:
    """CPU seconds from the carrier to the audit file."""
    trail = AuditTrail([FileSink(folder / f"audit-{time.monotonic_ns()}.jsonl")], steps=RecordSteps(Telemetry()))
    trail.start(asyncio.get_running_loop().call_soon)
    intake = Intake(trail, sample)
    intake.judge.replace(snapshot.engine, 0.0)
    await warm(intake)  # compiles the policies of the workload
    await intake.flushed()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)  # as the service does
    began = time.process_time()
    await take(intake)
    while not await intake.flushed():
        pass
    spent = time.process_time() - began
    trail.close()
    gc.unfreeze()
    assert intake.results.total() == sum(intake.results[carrier, "recorded"] for carrier in ("file", "grpc"))
    return spent


def from_file(lines: Sequence[bytes]) -> Take:
    async def take(intake: Intake) -> None:
        for begin in range(0, len(lines), SLICE):
            await intake.room()
            intake.take_lines(lines[begin : begin + SLICE])

    return take


def from_stream(messages: Sequence[bytes]) -> Take:
    async def stream() -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    async def take(intake: Intake) -> None:
        await AccessLogStream(intake).take(stream())

    return take


def measure_records(number: int) -> dict[str, dict[str, float]]:
    """CPU µs of a record, the least of some turns, by carrier, policies and paths."""
    logging.disable(logging.ERROR)
    found: dict[str, dict[str, float]] = {}
    try:
        for size in (1, 10_000):
            with tempfile.TemporaryDirectory(prefix="authz-record-") as name:
                _measure_size(make_subject(size), number, Path(name), found)
    finally:
        logging.disable(logging.NOTSET)
    return found


def _measure_size(subject: Subject, number: int, folder: Path, found: dict[str, dict[str, float]]) -> None:
    policies = folder / "policies"
    policies.mkdir()
    (policies / "policies.yaml").write_text(subject.istio())
    snapshot = load_snapshot(policies, None, 0.0)
    lines = real_lines(subject, folder)
    same, new = (multiplied(lines, number, new_paths=one) for one in (False, True))
    messages = as_messages(same)
    size = f"{subject.size:,} {'policy' if subject.size == 1 else 'policies'}"
    warm, warm_stream = from_file(lines[:SLICE]), from_stream(messages[:2])
    for name, first, take, sample in (
        (f"file, {size}, one path", warm, from_file(same), SHARE),
        (f"file, {size}, new paths", warm, from_file(new), SHARE),
        (f"file, {size}, new paths, all decided again", warm, from_file(new), 1.0),
        (f"gRPC, {size}, one path", warm_stream, from_stream(messages), SHARE),
    ):
        spent = [asyncio.run(measure(snapshot, folder, first, take, sample)) for _ in range(TURNS)]
        found[name] = {"cpu_us": min(spent) / number * 1e6, "records": number}


def main(arguments: Sequence[str]) -> int:
    for name, row in measure_records(int(arguments[0]) if arguments else 20_000).items():
        print(f"{name}: {1e6 / row['cpu_us']:,.0f} records/s/core, {row['cpu_us']:.0f} µs of CPU a record")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

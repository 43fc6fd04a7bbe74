"""
Records beside discovery: ``python -m benchmarks.control_records [--streams 1000] [--changes 60]``.

A control plane with ``--audit`` serves as many proxies as ``benchmarks.xds`` does. A changed policy of one workload is
timed to its proxy, first with nothing else to do and then while proxies send entries as fast as they are taken. Printed
are both, as a ratio, how many entries were recorded in a second, and what one costs.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import grpc

from authz._proto import access_log_pb2 as pb
from authz.core.attributes import Workload
from authz.envoy.native.record_log import Subject
from benchmarks.xds import PATIENCE_SECONDS, TYPES, Fleet, connected, controlled, write

METHOD = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
AUDIT = "audit.jsonl"
ENTRIES = 50
"""Of one message: some 16 kB, as Envoy sends it."""
SENDERS = 4


def message(number: int) -> bytes:
    """The entries of requests that one proxy allowed, all of different callers' addresses and ids."""
    told = pb.StreamAccessLogsMessage()
    subject = Subject(Workload("shop", frozenset({("app", "w0")}), "all", "w0"), "w0", "inbound_80")
    for index in range(ENTRIES):
        entry = told.http_logs.log_entry.add()
        common = entry.common_properties
        common.custom_tags["authz"] = subject.who()
        common.start_time.GetCurrentTime()
        common.duration.nanos = 1_000_000
        common.downstream_direct_remote_address.socket_address.address = f"10.0.{number % 256}.{index}"
        common.tls_properties.peer_certificate_properties.subject_alt_name.add(uri=CALLER)
        common.metadata.filter_metadata["envoy.filters.http.rbac"].update({"enforced_engine_result": "allowed"})
        entry.request.path, entry.request.authority = "/changed", "w0"
        entry.request.request_id = f"{number}-{index}"
        entry.request.request_headers[":method"] = "GET"
        entry.response.response_code.value, entry.response.response_code_details = 200, "via_upstream"
    return told.SerializeToString()


CALLER = "spiffe://mesh.test/ns/shop/sa/all"


def send(port: int, folder: Path) -> None:
    """Entries on several streams, as fast as they are taken, until killed."""
    parts = [(folder / name).read_bytes() for name in ("bundle.pem", "key.pem", "chain.pem")]
    messages = [message(number) for number in range(100)]

    def endless() -> Iterator[bytes]:
        while True:
            yield from messages

    channels = [
        grpc.secure_channel(
            f"localhost:{port}", grpc.ssl_channel_credentials(*parts), [("grpc.use_local_subchannel_pool", 1)]
        )
        for _ in range(SENDERS)
    ]
    calls = [
        channel.stream_unary(METHOD, request_serializer=bytes, response_deserializer=bytes).future(endless())
        for channel in channels
    ]
    for call in calls:
        call.result()


def timed(fleet: Fleet, changes: int, first: int) -> list[float]:
    """How long a changed policy of one workload took to its proxy, sorted, in seconds."""
    times = []
    for number in range(first, first + changes):
        name = f"w{number * 7 % fleet.size}"
        renamed = write(fleet.folder, "one", f"p{number}", f"selector: {{matchLabels: {{app: {name}}}}}")
        times.append(fleet.until({(name, "ecds")}) - renamed)
    return sorted(times)


def lines(fleet: Fleet) -> int:
    """How many records are written."""
    with (fleet.folder / AUDIT).open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--changes", type=int, default=60)
    parser.add_argument("--port", type=int, default=17543)
    parser.add_argument("--send", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.send:
        send(asked.port, asked.send)
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with controlled(asked.streams, asked.port, "--audit", f"file:{AUDIT}") as fleet, connected(fleet):
        fleet.until({(f"w{number}", short) for number in range(fleet.size) for short in TYPES})
        quiet = timed(fleet, asked.changes, 0)
        command = [sys.executable, "-m", "benchmarks.control_records", "--port", str(fleet.port), "--send"]
        sender = subprocess.Popen([*command, str(fleet.folder)])  # noqa: S603  # our own
        try:
            ends = time.time() + PATIENCE_SECONDS
            while not lines(fleet) and sender.poll() is None and time.time() < ends:
                time.sleep(0.1)
            before, used, began = lines(fleet), fleet.cpu(), time.time()
            busy = timed(fleet, asked.changes, asked.changes)
            taken, spent, lasted = lines(fleet) - before, fleet.cpu() - used, time.time() - began
            if sender.poll() is not None:
                raise SystemExit("the sender ended before it was told to")
        finally:
            sender.kill()
            sender.wait(60)
    print(f"{fleet.size} proxies, {asked.changes} changes of one workload each")
    for name, times in (("nothing else", quiet), (f"{taken / lasted:.0f} records a second", busy)):
        print(f"  with {name}: median {median(times):.2f} s, p99 {times[int(len(times) * 0.99)]:.2f} s")
    print(f"  median with records is {median(busy) / median(quiet):.1f} times that without")
    print(f"  CPU of a record: {spent / max(1, taken) * 1e6:.0f} us, the changes of policies among it")


if __name__ == "__main__":
    main()

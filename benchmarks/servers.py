"""
Saturation of one worker by server: grpcio and Envoy hosting it, each with our service and with an empty handler.

    python benchmarks/servers.py [-n REQUESTS] [-r ROUNDS] [-o table|json]

h2load sends the CheckRequest of benchmarks/check.py, 2 kB with an RS256 token that was verified before, over 4
connections with 16 streams each. Our service verifies, decides and writes audit records to a file. The contenders take
turns; shown are medians. CPU is that of the server's processes, all of their threads, by /proc; h2load runs beside
them. Memory is resident, of all processes; those of one server share pages, which count for each.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import grpc

from authz._proto import ext_authz_pb2 as pb
from authz.envoy.hosting import APPLICATION
from authz.service.workers.envoy_host import HostedAt, find_hosting, hosting_command
from authz.tokens.signing import jwks_text, make_keys, make_token
from benchmarks.check import METADATA, POLICIES, message
from benchmarks.empty import METHOD

FIRST_PORT = 18_690
CONNECTIONS, STREAMS = 4, 16
START_SECONDS = 90.0
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Run:
    requests_per_second: float
    cpu_microseconds: float
    """Of the server, for each request."""
    mean_milliseconds: float


@dataclass(frozen=True)
class Row:
    """Medians of one contender."""

    contender: str
    requests_per_second: float
    cpu_microseconds: float
    mean_milliseconds: float
    resident_megabytes: float


class Contender:
    def __init__(self, name: str, command: Sequence[str], port: int, environment: dict[str, str], folder: Path) -> None:
        self.name = name
        self.port = port
        self._log = open(folder / f"{name}.log", "wb")  # noqa: SIM115  # until stop
        self.process = subprocess.Popen(  # noqa: S603  # our own commands
            command, cwd=Path(__file__).parents[1], env={**os.environ, **environment}, stdout=self._log,
            stderr=self._log,
        )  # fmt: skip

    def wait(self, body: bytes) -> None:
        """Until it allows the request, as it must."""
        ends = time.monotonic() + START_SECONDS
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            call = channel.unary_unary(f"/{METHOD}/Check", request_serializer=bytes, response_deserializer=bytes)
            while True:
                try:
                    answer = pb.CheckResponse.FromString(call(body, metadata=METADATA, wait_for_ready=True, timeout=2))
                    if answer.status.code == 0:
                        return
                    problem = str(answer)
                except grpc.RpcError as error:
                    problem = str(error)
                if self.process.poll() is not None or time.monotonic() > ends:
                    raise SystemExit(f"{self.name} does not serve: {problem}; see {self._log.name}")
                time.sleep(0.1)

    def processes(self) -> list[int]:
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").iterdir():
                todo += [int(child) for child in (task / "children").read_text().split()]
        return found

    def cpu_seconds(self) -> float:
        ticks = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICK

    def resident_megabytes(self) -> float:
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.processes())
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def measure(self, requests: int, body: Path) -> Run:
        before = self.cpu_seconds()
        done = subprocess.run(  # noqa: S603  # our own command
            [
                *("h2load", "-n", str(requests), "-c", str(CONNECTIONS), "-m", str(STREAMS), "-d", str(body)),
                *("-H", "content-type: application/grpc", "-H", "te: trailers"),
                *(part for name, value in METADATA for part in ("-H", f"{name}: {value}")),
                f"http://127.0.0.1:{self.port}/{METHOD}/Check",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        cpu = self.cpu_seconds() - before
        rate = re.search(r"finished in \S+, ([\d.]+) req/s", done.stdout)
        succeeded = re.search(r"(\d+) succeeded", done.stdout)
        latency = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", done.stdout)
        if rate is None or latency is None or succeeded is None or int(succeeded[1]) != requests:
            raise SystemExit(f"{self.name} did not answer everything:\n{done.stdout}")
        scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}[latency[2]]
        return Run(float(rate[1]), cpu / requests * 1e6, float(latency[1]) * scale)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


def write_policies(folder: Path) -> bytes:
    """The policies of benchmarks/check.py; returns the message that they allow."""
    keys = make_keys({"main": {"kty": "RSA", "kid": "main"}})
    now = time.time()
    filler = {"groups": [f"group-{number}" for number in range(18)], "roles": ["reader"]}
    claims = {"iss": "https://idp.example", "sub": "alice", "exp": int(now) + 36_000, **filler}
    (folder / "policies").mkdir()
    (folder / "policies" / "policies.yaml").write_text(POLICIES.format(jwks=jwks_text(keys.values())))
    return message(make_token({"key": "main", "claims": claims}, keys, now))


@contextmanager
def contenders(folder: Path) -> Iterator[list[Contender]]:
    """All of them, started; idle ones cost nothing."""
    with ExitStack() as stack:
        found: list[Contender] = []

        def add(name: str, command: Sequence[str], environment: dict[str, str]) -> None:
            port = FIRST_PORT + len(found)
            told = [part.replace("PORT", str(port)) for part in command]
            found.append(Contender(name, told, port, environment, folder))
            stack.callback(found[-1].stop)

        add("empty, grpcio", [sys.executable, "-m", "benchmarks.empty", "127.0.0.1:PORT"], {})
        for server in ("grpcio", "envoy"):
            audit = f"file:{folder}/audit-{server}.jsonl"
            command = [sys.executable, "-m", "authz", "serve", "--server", server, "--workers", "1", "--audit", audit]
            command += ["--policies", str(folder / "policies"), "--listen", "127.0.0.1:PORT", "--log-level", "error"]
            add(f"authz, {server}", command, {})
        hosting = find_hosting()
        at = HostedAt((f"127.0.0.1:{FIRST_PORT + len(found)}",), folder / "empty")
        command = hosting_command(hosting, at, max_message_bytes=4 << 20, socket_mode=0o600)
        configuration = at.directory / "envoy.json"
        configuration.write_text(configuration.read_text().replace(APPLICATION, "benchmarks.empty:application"))
        root = str(Path(__file__).parents[1])
        environment = hosting.environment()
        add("empty, envoy", command, {**environment, "PYTHONPATH": f"{root}{os.pathsep}{environment['PYTHONPATH']}"})
        yield found


def compare(requests: int, rounds: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        body = write_policies(folder)
        framed = folder / "body"
        framed.write_bytes(b"\0" + len(body).to_bytes(4, "big") + body)
        with contenders(folder) as found:
            for one in found:
                one.wait(body)
                one.measure(requests // 4, framed)  # warm
            runs: dict[str, list[Run]] = {one.name: [] for one in found}
            for _ in range(rounds):
                for one in found:
                    runs[one.name].append(one.measure(requests, framed))
            return [
                Row(
                    one.name,
                    median(run.requests_per_second for run in runs[one.name]),
                    median(run.cpu_microseconds for run in runs[one.name]),
                    median(run.mean_milliseconds for run in runs[one.name]),
                    one.resident_megabytes(),
                )
                for one in found
            ]


def machine() -> str:
    try:
        model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        model = None
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model[1] if model else platform.machine()}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--requests", type=int, default=20_000)
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    arguments = parser.parse_args()
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is missing: install the package nghttp2-client")
    rows = compare(arguments.requests, arguments.rounds)
    if arguments.output == "json":
        print(json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=2))
        return
    print(machine())
    print(f"{'':16}{'requests/s':>12}{'CPU µs':>9}{'mean ms':>9}{'MB':>7}")
    for row in rows:
        print(
            f"{row.contender:16}{row.requests_per_second:12,.0f}{row.cpu_microseconds:9.0f}"
            f"{row.mean_milliseconds:9.2f}{row.resident_megabytes:7.0f}"
        )


if __name__ == "__main__":
    main()

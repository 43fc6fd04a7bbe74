"""
Many proxies on one control plane: ``python -m benchmarks.xds [--streams 100 1000] [--changes 100]``.

For each number of streams a mesh of as many workloads is served by ``authz control``, and as many streams connect at
once. Printed are: when the last had everything; memory of the control plane for a proxy; how long a changed policy of
one workload takes to its proxy, from the rename of its file; the same for a policy of all, to the last proxy; and the
control plane's CPU for a change of one workload, with its ratio between the sizes. Where Go is, a snapshot cache of
go-control-plane serves the same clients resources of the same size, and a change of all is measured there, too.

Clients, control plane and this program share one machine. Limits of open files must allow a connection for each proxy.
"""

import argparse
import json
import os
import queue
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from authz.core.spiffe import SpiffeId
from authz.identity.ca import BUNDLE_FILE, CertificateAuthority

CONFIG = """apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "trustDomain: mesh.test"}
"""
WORKLOAD = """---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: w{number}, namespace: shop}}
spec: {{address: 10.{a}.{b}.{c}, serviceAccount: all, labels: {{app: w{number}}}, ports: {{http: {inbound}}}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: w{number}, namespace: shop}}
spec:
  hosts: [w{number}.shop.svc.cluster.local]
  location: MESH_INTERNAL
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  workloadSelector: {{labels: {{app: w{number}}}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: w{number}, namespace: shop}}
spec:
  workloadSelector: {{labels: {{app: w{number}}}}}
  ingress: [{{port: {{number: {inbound}, protocol: HTTP, name: http}}, defaultEndpoint: "127.0.0.1:{app}"}}]
  egress: [{{port: {{number: {out}, protocol: HTTP, name: next}}, hosts: [./w{other}.shop.svc.cluster.local]}}]
"""
POLICY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: shop}}
spec:
  {selector}
  rules: [{{to: [{{operation: {{paths: ["/{path}"]}}}}]}}]
"""
TYPES = frozenset({"cds", "eds", "lds", "rds", "ecds", "sds"})
PATIENCE_SECONDS = 150.0
PER_CLIENT = 2500
"""Streams of one client process."""
IDLE_SECONDS = 10.0
"""In which nothing changes, before the changes and after them, to see what the control plane uses then."""
GO = Path(__file__).with_name("xds_go")


@dataclass
class Fleet:
    """A control plane of so many workloads, and what its proxies say."""

    folder: Path
    size: int
    port: int
    process: "subprocess.Popen[str]"
    heard: "queue.Queue[tuple[str, str, float, int]]" = field(default_factory=queue.Queue)

    sizes: "dict[str, int]" = field(default_factory=dict)
    """Bytes of what last came, by type."""

    def until(self, wanted: "set[tuple[str, str]]") -> float:
        """Wait for something of these types at these proxies; return when the last came."""
        last, missing, ends = 0.0, set(wanted), time.time() + PATIENCE_SECONDS
        while missing:
            name, short, at, self.sizes[short] = self.heard.get(timeout=max(0.1, ends - time.time()))
            missing.discard((name, short))
            last = max(last, at)
        return last

    def cpu(self) -> float:
        """Seconds of CPU that the control plane has used."""
        return cpu(self.process.pid)

    def memory(self) -> int:
        """Bytes of the control plane in memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu(process: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def write(folder: Path, name: str, path: str, selector: str = "") -> float:
    """Rename a policy into place, and return when that was."""
    fresh = folder / f".{name}"
    fresh.write_text(POLICY.format(name=name, path=path, selector=selector or "action: ALLOW"))
    now = time.time()
    fresh.replace(folder / "policies" / f"{name}.yaml")
    return now


@contextmanager
def controlled(size: int, port: int, *more: str) -> Iterator[Fleet]:
    """``authz control`` with a mesh of this size, and more options if wanted."""
    with tempfile.TemporaryDirectory() as written:
        folder = Path(written)
        text = [CONFIG]
        for number in range(size):
            a, b, c = number >> 16, number >> 8 & 255, number & 255
            ports = {name: 10_000 + 3 * number + index for index, name in enumerate(("inbound", "app", "out"))}
            text.append(WORKLOAD.format(number=number, a=a, b=b, c=c, other=(number + 1) % size, **ports))
        (folder / "mesh.yaml").write_text("".join(text))
        (folder / "policies").mkdir()
        ca = CertificateAuthority.create("mesh.test", time.time())
        ca.save(folder / "ca")
        issued = ca.issue_svid(SpiffeId.parse("spiffe://mesh.test/ns/shop/sa/all"), time.time())
        (folder / "chain.pem").write_bytes(issued.chain_pem)
        (folder / "key.pem").write_bytes(issued.key_pem)
        (folder / "bundle.pem").write_bytes((folder / "ca" / BUNDLE_FILE).read_bytes())
        command = [sys.executable, "-m", "authz", "control", "--policies", "policies", "--mesh", "mesh.yaml"]
        command += ["--listen", f"127.0.0.1:{port}", "--validate", "off", *more]
        write(folder, "all", "start")
        process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)  # noqa: S603  # our own
        said = []
        for line in process.stderr or ():
            said.append(line)
            if "serving discovery" in line:
                break
        else:
            raise SystemExit("".join(said))
        fleet = Fleet(folder, size, port, process)
        threading.Thread(target=lambda: [None for _ in process.stderr or ()], daemon=True).start()
        try:
            yield fleet
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@contextmanager
def connected(fleet: Fleet) -> Iterator[None]:
    """All proxies of a fleet, in few processes."""
    clients = []
    for first in range(0, fleet.size, PER_CLIENT):
        count = min(PER_CLIENT, fleet.size - first)
        command = [sys.executable, "-m", "benchmarks.xds_clients", str(fleet.port), str(first), str(count)]
        client = subprocess.Popen([*command, str(fleet.folder)], stdout=subprocess.PIPE, text=True)  # noqa: S603  # our own
        clients.append(client)
        threading.Thread(target=_listen, args=(client, fleet.heard), daemon=True).start()
    try:
        yield
    finally:
        for client in clients:
            client.kill()
            client.wait(60)


def _listen(client: "subprocess.Popen[str]", heard: "queue.Queue[tuple[str, str, float, int]]") -> None:
    for line in client.stdout or ():
        heard.put(json.loads(line))


def measure(size: int, changes: int, port: int, go: Path | None) -> float:
    """Print what one size is like; return the CPU seconds of a change of one workload."""
    everybody = [f"w{number}" for number in range(size)]
    everything = {(name, short) for name in everybody for short in TYPES}
    with controlled(size, port) as fleet:
        made, made_cpu, began = fleet.memory(), fleet.cpu(), time.time()
        print(f"{size} proxies: made after {made_cpu:.1f} s of CPU, {made / 1e6:.0f} MB", flush=True)
        with connected(fleet):
            last = fleet.until(everything)
            print(f"  cold start of all: {last - began:.1f} s, {fleet.cpu() - made_cpu:.1f} s of CPU", flush=True)
            one = (fleet.memory() - made) / size / 1000
            print(f"  memory of a stream: {one:.0f} kB, of everything {fleet.memory() / 1e6:.0f} MB", flush=True)
            idle = at_rest(fleet)
            print(f"  CPU without a change: {idle * 100:.1f} % of a core", flush=True)
            times, used, began = [], fleet.cpu(), time.time()
            for number in range(changes):
                name = everybody[number * 7 % size]
                renamed = write(fleet.folder, "one", f"p{number}", f"selector: {{matchLabels: {{app: {name}}}}}")
                times.append(fleet.until({(name, "ecds")}) - renamed)
            used, lasted = fleet.cpu() - used, time.time() - began
            each = (used - (idle + at_rest(fleet)) / 2 * lasted) / changes
            p99 = sorted(times)[min(changes - 1, int(changes * 0.99))]
            print(f"  a policy of one workload, {changes} times: median {median(times):.2f} s, p99 {p99:.2f} s")
            print(f"  CPU of such a change: {each * 1000:.1f} ms", flush=True)
            used, began = fleet.cpu(), write(fleet.folder, "all", "changed")
            last = fleet.until({(name, "ecds") for name in everybody})
            ours = last - began
            print(f"  a policy of all: {ours:.2f} s to the last, {fleet.cpu() - used:.2f} s of CPU", flush=True)
        if go is not None:
            compare(fleet, go, everything, ours)
    return each


def at_rest(fleet: Fleet) -> float:
    """The share of a core that the control plane uses when nothing changes."""
    time.sleep(IDLE_SECONDS)
    used = fleet.cpu()
    time.sleep(IDLE_SECONDS)
    return (fleet.cpu() - used) / IDLE_SECONDS


def compare(fleet: Fleet, go: Path, everything: "set[tuple[str, str]]", ours: float) -> None:
    """Print what a snapshot cache of go-control-plane takes for the same."""
    port = fleet.port + 1
    command = [str(go), str(port), str(fleet.size), str(fleet.folder), json.dumps(fleet.sizes)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603  # our own
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        server.stdout.readline()
        other = Fleet(fleet.folder, fleet.size, port, server)
        began, used = time.time(), other.cpu()
        with connected(other):
            last = other.until(everything)
            print(f"  go-control-plane: cold start {last - began:.1f} s, {other.cpu() - used:.1f} s of CPU", flush=True)
            used = other.cpu()
            server.stdin.write("change\n")
            server.stdin.flush()
            began = float(server.stdout.readline())
            last = other.until({pair for pair in everything if pair[1] == "ecds"})
            theirs = last - began
            print(f"  go-control-plane: a change of all {theirs:.2f} s to the last, {other.cpu() - used:.2f} s of CPU")
            print(f"  a change of all here is {ours / theirs:.2f} times that", flush=True)
    finally:
        server.kill()
        server.wait(60)


@contextmanager
def built() -> Iterator[Path | None]:
    """The server of go-control-plane; None where it cannot be built."""
    found = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "xds_go"
        if found is None:
            print("go-control-plane is left out: there is no Go here")
        elif subprocess.run([found, "build", "-o", program, "."], cwd=GO).returncode:  # noqa: S603  # our own
            print("go-control-plane is left out: it cannot be built here")
        yield program if program.exists() else None


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--port", type=int, default=17443)
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with built() as go:
        each = {size: measure(size, asked.changes, asked.port, go) for size in asked.streams}
    least, most = min(each), max(each)
    if least != most:
        print(f"CPU of a change of one, {most} streams to {least}: {each[most] / each[least]:.2f} times")


if __name__ == "__main__":
    main()

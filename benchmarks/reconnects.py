"""
All proxies come back at once to a control plane that was killed: ``python -m benchmarks.reconnects [--streams 1000]``.

As ``benchmarks.xds``, but the control plane is killed when all have everything, and started again. Nobody is patient:
every proxy tries again after a fiftieth of a second, where Envoys wait up to half a minute. Printed are when all have
everything again, handshakes and CPU for that, and how long a changed policy of one proxy that has everything already
takes meanwhile. Clients, control plane and this program share one machine.
"""

import argparse
import resource
import selectors
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from authz.control.discovery.discovered import SHORT_NAMES
from benchmarks.xds import Fleet, controlled, write
from benchmarks.xds_clients import Proxy

AGAIN_SECONDS = 0.02
PATIENCE_SECONDS = 300.0
CHANGE_SECONDS = 30.0
CHANGED = "w0"
"""Whose policy changes; it is the first that comes back."""


class Returning:
    """All proxies in one thread; each comes back when its connection is lost."""

    def __init__(self, fleet: Fleet) -> None:
        self._port = fleet.port
        self._context = ssl.create_default_context(cafile=str(fleet.folder / "bundle.pem"))
        self._context.load_cert_chain(fleet.folder / "chain.pem", fleet.folder / "key.pem")
        self._context.set_alpn_protocols(["h2"])
        self._waiting = [f"w{number}" for number in reversed(range(fleet.size))]
        self.missing = {name: set(SHORT_NAMES) for name in self._waiting}
        self.lost = 0
        """Connections that ended, or were never made."""
        self.handshakes: list[float] = []
        """When each was done."""
        self.changes: list[float] = []
        """When the changed proxy got something that it did not miss."""
        self.ending = False

    def run(self) -> None:
        """Until ``ending``."""
        with selectors.DefaultSelector() as selector:
            again = 0.0
            while not self.ending:
                if time.monotonic() >= again and self._waiting:
                    again = self._begin(selector)
                for key, _ in selector.select(AGAIN_SECONDS):
                    self._hear(selector, key.data)

    def _begin(self, selector: selectors.BaseSelector) -> float:
        """Connect whoever is not, as long as somebody listens; return when to go on."""
        while self._waiting:
            try:
                proxy = Proxy(self._port, self._waiting[-1], self._context)
            except OSError:
                return time.monotonic() + AGAIN_SECONDS
            self._waiting.pop()
            selector.register(proxy.socket, selectors.EVENT_READ, proxy)
            self._hear(selector, proxy)
        return 0.0

    def _hear(self, selector: selectors.BaseSelector, proxy: Proxy) -> None:
        missing, was_open = self.missing[proxy.name], proxy._is_open
        try:
            for response in proxy.go_on():
                if proxy.name == CHANGED and not missing:
                    self.changes.append(time.time())
                missing.discard(response.type_url)
        except OSError:
            self.lost += 1
            selector.unregister(proxy.socket)
            proxy.socket.close()
            missing.update(SHORT_NAMES)
            self._waiting.insert(len(self._waiting) if proxy.name == CHANGED else 0, proxy.name)
        if proxy._is_open and not was_open:
            self.handshakes.append(time.monotonic())

    def left(self) -> int:
        """How many proxies do not have everything."""
        return sum(1 for missing in self.missing.values() if missing)


def until_all(clients: Returning) -> None:
    """Wait until all proxies have everything."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while left := clients.left():
        if time.monotonic() > ends:
            raise SystemExit(f"{left} proxies do not have everything after {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.01)


@contextmanager
def ended(fleet: Fleet) -> Iterator[None]:
    """End whatever process the fleet has by then."""
    try:
        yield
    finally:
        fleet.process.terminate()
        fleet.process.wait(60)


@contextmanager
def connected(fleet: Fleet) -> Iterator[Returning]:
    """All proxies of a fleet, with everything."""
    clients = Returning(fleet)
    thread = threading.Thread(target=clients.run, name="clients")
    thread.start()
    try:
        until_all(clients)
        yield clients
    finally:
        clients.ending = True
        thread.join()


def start_again(fleet: Fleet) -> None:
    """The same command, until it serves."""
    fleet.process = subprocess.Popen(fleet.process.args, cwd=fleet.folder, stderr=subprocess.PIPE, text=True)  # noqa: S603  # our own
    for line in fleet.process.stderr or ():
        if "serving discovery" in line:
            break
    stderr = fleet.process.stderr
    threading.Thread(target=lambda: [None for _ in stderr or ()], daemon=True).start()


def change_until(clients: Returning, folder: Path) -> list[float]:
    """Change the policy of one proxy again and again until all have everything; how long each change took."""
    took: list[float] = []
    while clients.left():
        if clients.missing[CHANGED]:
            time.sleep(0.01)
            continue
        before = len(clients.changes)
        path, selector = f"p{len(took)}", f"selector: {{matchLabels: {{app: {CHANGED}}}}}"
        renamed = write(folder, "one", path, selector)
        ends = time.monotonic() + CHANGE_SECONDS
        while len(clients.changes) == before:
            if time.monotonic() > ends:
                raise SystemExit(f"a change of one proxy did not come within {CHANGE_SECONDS:.0f} s")
            time.sleep(0.005)
        took.append(clients.changes[before] - renamed)
    return took


def measure(size: int, port: int) -> None:
    """Print what one size is like."""
    with controlled(size, port) as fleet, ended(fleet), connected(fleet) as clients:
        fleet.process.kill()
        fleet.process.wait()
        while clients.left() < size:
            time.sleep(0.01)
        clients.lost, killed = 0, time.monotonic()
        start_again(fleet)
        served, cpu = time.monotonic(), fleet.cpu()
        clients.handshakes.clear()
        took = change_until(clients, fleet.folder)
        took_all = time.monotonic() - served
        print(f"{size} proxies: the control plane serves again {served - killed:.1f} s after it was killed")
        print(f"  all have everything {took_all:.1f} s later, {fleet.cpu() - cpu:.1f} s of CPU")
        pace = len(clients.handshakes) / (clients.handshakes[-1] - clients.handshakes[0])
        print(f"  {len(clients.handshakes)} handshakes, {pace:.0f} in a second; {clients.lost} connections lost")
        print(
            f"  a policy of one of those meanwhile, {len(took)} times: {median(took):.2f} s, at most {max(took):.2f} s"
        )


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[1000])
    parser.add_argument("--port", type=int, default=17445)
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    for size in asked.streams:
        measure(size, asked.port)


if __name__ == "__main__":
    main()

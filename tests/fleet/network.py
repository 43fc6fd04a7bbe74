"""
Machines of a network that exists only here: network namespaces with addresses of their own, on one switch.

The switch is a namespace, too, so that two networks at the same time know nothing of each other, and nothing of this
machine's own. Files are shared, as everywhere below one kernel: what belongs to one machine lies in its own folder.
"""

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

CLONE_NEWNET = 0x40000000
NAMES = Path("/etc/netns")
"""What lies there for a namespace is seen in it as /etc, so that machines have names: ``one.example``."""
COMMAND_SECONDS = 60.0
GRACE_SECONDS = 10.0
_libc = ctypes.CDLL(None, use_errno=True)


@cache
def missing_right() -> str:
    """Why there can be no such network here; empty: there can."""
    name = f"authz-{os.getpid()}-try"
    try:
        tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, timeout=COMMAND_SECONDS)
    except FileNotFoundError:
        return "machines are network namespaces, which `ip` makes: it is not installed"
    if tried.returncode:
        return f"machines are network namespaces, which only root may make: {tried.stderr.strip()}"
    bridge = f"ip -n {name} link add switch type bridge"
    tried = subprocess.run(bridge.split(), capture_output=True, text=True, timeout=COMMAND_SECONDS)
    subprocess.run(["ip", "netns", "del", name], check=True, timeout=COMMAND_SECONDS)
    return f"there is no bridge here: {tried.stderr.strip()}" if tried.returncode else ""


class Network:
    """``with Network(folder, ("one", "two")) as network``: everything is gone afterwards, processes included."""

    def __init__(self, folder: Path, machines: Sequence[str]) -> None:
        """
        Args:
            folder: each machine gets one below it, by its name, as the home of its files.
            machines: names; the first has the address 10.77.0.1, and so on.
        """
        self.addresses = {machine: f"10.77.0.{number}" for number, machine in enumerate(machines, 1)}
        self.folders = {machine: folder / machine for machine in machines}
        self._prefix = f"authz-{os.getpid()}-{id(self) & 0xFFFF:x}"
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Network":
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._started):
            self.stop(process, kill=True)
        for machine in (*self.addresses, "switch"):
            gone = ["ip", "netns", "del", self.namespace(machine)]
            subprocess.run(gone, capture_output=True, timeout=COMMAND_SECONDS)
            shutil.rmtree(NAMES / self.namespace(machine), ignore_errors=True)

    def namespace(self, machine: str) -> str:
        """By which the kernel knows it."""
        return f"{self._prefix}-{machine}"

    def start(
        self, machine: str, *arguments: str, log: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process on a machine, in the machine's folder; what it prints is in the file ``log`` there."""
        folder = self.folders[machine]
        with (folder / log).open("ab") as out:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace(machine), *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def attach(
        self, machine: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process on a machine, as ``start`` does, to talk with it; what it remarks is with our own remarks."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace(machine), *arguments],
            cwd=self.folders[machine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def stop(self, process: subprocess.Popen[bytes], *, kill: bool = False) -> None:
        """End a process and what it started, once."""
        for number in (9,) if kill else (15, 9):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        if process in self._started:
            self._started.remove(process)

    def run(self, machine: str, script: str, environment: Mapping[str, str] | None = None) -> str:
        """Run lines of the shell on a machine, in its folder; what they print. Fails when they do."""
        ran = subprocess.run(
            ["ip", "netns", "exec", self.namespace(machine), "bash", "-ec", script],
            cwd=self.folders[machine],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            env={**os.environ, **(environment or {})},
        )
        assert ran.returncode == 0, f"on {machine}: {script}\n{ran.stdout}{ran.stderr}"
        return ran.stdout

    def logs(self) -> str:
        """The ends of what processes printed."""
        files = [file for folder in self.folders.values() for file in sorted(folder.glob("*.log"))]
        return "\n".join(f"{file.parent.name}/{file.name}: {file.read_text()[-2000:]}" for file in files)

    def cut(self, machine: str) -> None:
        """Pull a machine's cable out of the switch: nobody is told, packets are gone."""
        self._ip(f"-n {self.namespace('switch')} link set {machine} nomaster")

    def heal(self, machine: str) -> None:
        """Put it back."""
        self._ip(f"-n {self.namespace('switch')} link set {machine} master switch")

    def connect(self, machine: str, port: int, host: str = "127.0.0.1", seconds: float = 5.0) -> socket.socket:
        """A connection that is made on a machine, for this process to use. Raises OSError."""
        made: list[socket.socket] = []

        def make() -> None:  # a thread can be in another network than its process
            with open(f"/run/netns/{self.namespace(machine)}") as namespace:  # of the kernel
                if _libc.setns(namespace.fileno(), CLONE_NEWNET) == 0:
                    made.append(socket.socket())

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        (found,) = made
        found.settimeout(seconds)
        try:
            found.connect((host, port))
        except OSError:
            found.close()
            raise
        return found

    def _make(self) -> None:
        switch = self.namespace("switch")
        self._ip(f"netns add {switch}")
        self._ip(f"-n {switch} link add switch type bridge")
        self._ip(f"-n {switch} link set switch up")
        hosts = "127.0.0.1 localhost\n" + "".join(f"{at} {name}.example\n" for name, at in self.addresses.items())
        for machine, address in self.addresses.items():
            self.folders[machine].mkdir(parents=True)
            one = self.namespace(machine)
            (NAMES / one).mkdir(parents=True)
            (NAMES / one / "hosts").write_text(hosts)
            self._ip(f"netns add {one}")
            self._ip(f"-n {one} link add eth0 type veth peer name {machine} netns {switch}")
            self._ip(f"-n {one} address add {address}/24 dev eth0")
            for device in ("lo", "eth0"):
                self._ip(f"-n {one} link set {device} up")
            self._ip(f"-n {switch} link set {machine} master switch up")

    @staticmethod
    def _ip(arguments: str) -> None:
        ran = subprocess.run(["ip", *arguments.split()], capture_output=True, text=True, timeout=COMMAND_SECONDS)
        assert ran.returncode == 0, f"ip {arguments}: {ran.stderr}"


def asked(network: Network, machine: str, port: int, path: str, host: str = "api.shop.svc.cluster.local") -> str:
    """One request from a machine to a port of its own: the status, or what went wrong."""
    try:
        with network.connect(machine, port) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
            line = connection.recv(4096).split(b"\r\n", 1)[0].split(b" ")
            return line[1].decode() if len(line) > 1 else "closed"
    except OSError as error:
        return type(error).__name__


def until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)

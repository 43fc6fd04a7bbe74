"""A real server of NATS with JetStream, on a free port of this machine."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from authz.truth.truth_address import TruthAccess, read_truth_address
from authz.truth.truth_bucket import make_buckets
from authz.truth.truth_client import TruthClient


class NatsServer:
    """``start`` and ``stop`` as often as a test likes: the port and the data stay."""

    def __init__(self, folder: Path) -> None:
        beside = Path(sys.executable).parent / "nats-server"
        found = str(beside) if beside.exists() else shutil.which("nats-server")
        if found is None:
            pytest.skip("nats-server is not installed")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._command = [found, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(folder / "nats")]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"nats://127.0.0.1:{self.port}/shop"

    def client(self) -> TruthClient:
        return TruthClient(read_truth_address(self.url), TruthAccess())

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ends = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < ends
                time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
        self._process = None


@contextmanager
def nats_server(folder: Path) -> Iterator[NatsServer]:
    """A server with every bucket made."""
    server = NatsServer(folder)
    server.start()
    try:
        with server.client() as client:
            make_buckets(client, 1)
        yield server
    finally:
        server.stop()

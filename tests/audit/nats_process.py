"""A real server of NATS with JetStream, which a test can kill and start again."""

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from authz.truth.truth_address import TruthAccess, TruthAddress
from authz.truth.truth_client import TruthClient

START_SECONDS = 20.0


class NatsProcess:
    """``start`` and ``kill`` as often as needed; what it has stays in its directory."""

    def __init__(self, directory: Path, configuration: str = "") -> None:
        program = shutil.which("nats-server") or shutil.which("nats-server", path=str(Path(sys.executable).parent))
        if program is None:
            pytest.skip("there is no nats-server")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._log = directory / "log"
        self._file = directory / "nats.conf"
        self._command = [program, "-c", str(self._file)]
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._file.write_text(
            f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{directory}" }}\n{configuration}'
        )

    @property
    def address(self) -> TruthAddress:
        return TruthAddress((f"127.0.0.1:{self.port}",), "shop")

    def client(self) -> TruthClient:
        return TruthClient(self.address, TruthAccess())

    def start(self) -> "NatsProcess":
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)
        raise AssertionError(self._log.read_text())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

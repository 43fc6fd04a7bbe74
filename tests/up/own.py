"""A mesh made by ``authz init``, started by ``authz up``, and asked."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from authz.local.busy import busy_ports
from authz.starter.mesh_plan import INGRESS_OFFSET

BIN = str(Path(sys.executable).parent)
PATIENCE_SECONDS = 20.0
START_SECONDS = 120.0


def free_first_port() -> int:
    """A number from which on a mesh of a few services finds its ports free, applications included (the first + 30)."""
    for _ in range(100):
        first = random.randrange(20_000, 30_000, 50)
        if not busy_ports([*range(first, first + 40), first + INGRESS_OFFSET]):
            return first
    raise AssertionError("no free ports")


def environment() -> dict[str, str]:
    """Ours, in which ``authz`` is the one under test, and no proxy stands between curl and loopback."""
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return {**kept, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


class Up:
    """``authz up`` as a user starts it, by itself or by the script that ``authz init`` wrote."""

    def __init__(self, folder: Path, arguments: Iterable[str], program: Iterable[str] = ("authz", "up")) -> None:
        self.log = folder / "up.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*program, *arguments], cwd=folder, stdout=log, stderr=log, env=environment()
            )
        until(lambda: "Decisions" in self.said() or self.process.poll() is not None, START_SECONDS)
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        return self.log.read_text()

    def interrupt(self) -> int:
        """As Ctrl-C does; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


def until(is_so: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> bool:
    """Ask again until it is so; whether it became so."""
    ends = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > ends:
            return False
        time.sleep(0.1)
    return True
